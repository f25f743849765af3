//! The client: from an address to a [`WebSocket`].
//!
//! [`connect`] does it with the defaults. A [`Connector`] has the settings, and is made once for
//! many connects:
//!
//! ```
//! use std::time::Duration;
//!
//! use ws_hyper::Connector;
//! use ws_tower::{Config, Message, WebSocket, WebSocketLayer};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let layer = WebSocketLayer::new().subprotocols(["chat.v2"]).route("/echo", echo);
//! # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! # let address = format!("ws://{}/echo", listener.local_addr()?);
//! # tokio::spawn(ws_hyper::serve(listener, layer.into_service()).into_future());
//! # async fn echo(mut socket: WebSocket) -> Result<(), ws_tower::Error> {
//! #     while let Some(message) = socket.recv().await { socket.send(message?).await?; }
//! #     Ok(())
//! # }
//! let connector = Connector::new()
//!     .subprotocol("chat.v2")
//!     .bearer_auth("3vJx")
//!     .header("x-room", "7")
//!     .config(Config::new().handshake_timeout(Duration::from_secs(3)));
//! let (mut socket, response) = connector.connect(&address).await?;
//! assert_eq!(socket.subprotocol(), Some("chat.v2"));
//! assert_eq!(response.status(), 101);
//!
//! socket.send("Hello").await?;
//! assert_eq!(socket.recv().await.transpose()?, Some(Message::text("Hello")));
//! let closed = socket.close(ws_tower::CloseFrame::from(ws_tower::CloseCode::NORMAL)).await;
//! assert!(closed.is_clean());
//! # Ok(())
//! # }
//! ```
//!
//! # From the address to the socket
//!
//! One deadline, [`Config::handshake_timeout`], 10 s, is over all of it:
//!
//! | step | what is seen to |
//! |---|---|
//! | the address | [`Address`]: `ws`, `wss`, `http`, `https`, `ws+unix`; a name and password become basic authentication |
//! | the connection | both address families, raced; `TCP_NODELAY`; or a [connector](Connector::transport) of your own, or [any stream](Connector::connect_with) |
//! | [the proxy](Proxy) | none unless asked: HTTP CONNECT or SOCKS5, given or from the environment |
//! | TLS | the feature `rustls`; certificates are verified, against roots that further features or `Tls` bring |
//! | the request | RFC 6455 §4.1, with a new key; `Origin` only if it is set; or an extended CONNECT, with the feature `http2` |
//! | the answer | at most 64 KiB and 100 lines, interim answers included; every check of RFC 6455 §4.1: see [`handshake::client`](ws_tower::ws_core::handshake::client) |
//! | a refusal | [`ConnectError::Refused`] with the status, the headers, and up to 8 KiB of the body, as far as it comes within 2 s |
//! | [redirects](Connector::max_redirects) | none are followed unless asked |
//! | what follows the 101 | is the socket's first input, at whatever byte it is cut |
//!
//! Dropping the future at any point closes the connection. Nothing is spawned before there is a
//! socket, but for the lookup of a name, which the system ends in its own time, and the tasks of an
//! HTTP/2 connection whose settings have come, which end with that connection.
//!
//! # How a socket ends
//!
//! [`WebSocket::recv`] ends with `None` after the peer's Close, and with an error otherwise.
//! [`WebSocket::closed`] has the facts:
//!
//! | what happened | [`is_clean`](ws_tower::Closed::is_clean) | [`cause`](ws_tower::Closed::cause) |
//! |---|---|---|
//! | both sides said Close | yes | none |
//! | the stream ended without a Close: a server that crashed, a proxy that lost patience | no | `Connection(UnexpectedEof)` |
//! | TLS was cut off without its own good-bye, which anybody on the way can do | no | `Io`, kind `UnexpectedEof` |
//! | a reset, over HTTP/2 that of the stream (`RST_STREAM`) too | no | `Io`, kind `ConnectionReset` |
//! | no sign of life, no answer to the Close, no bytes taken | no | `Connection`, with the deadline's name |
//! | the peer broke the protocol, such as by masking | no | `Connection(Protocol(…))` |
//!
//! Over HTTP/2 it is the same, with two remarks. A stream reset with the code `CANCEL` or `NO_ERROR`
//! has ended. And a connection whose own ping is not answered ends for all its sockets: one that has
//! not missed an answer itself by then is told of the end of its stream.
//!
//! # Keepalive and latency
//!
//! The session pings a silent server after [`Config::keepalive_interval`], and gives it up after
//! [`Config::keepalive_timeout`]. [`WebSocket::latency`] tells how long the answer to the newest ping
//! took. To know it of now, ask: [`WebSocket::ping`] waits for the answer and returns the time it
//! took, from any task and beside everything else. [`Sender`](ws_tower::Sender) has both, so a task
//! can go on measuring while another one receives:
//!
//! ```
//! use std::time::Duration;
//!
//! use tokio::{sync::watch, time::sleep};
//! use ws_tower::{Error, Sender};
//!
//! /// Measures until the socket ends.
//! async fn measure(socket: Sender, latency: watch::Sender<Duration>) -> Result<(), Error> {
//!     loop {
//!         latency.send_replace(socket.ping().await?);
//!         sleep(Duration::from_secs(10)).await;
//!     }
//! }
//! # let (client, _server) = tokio::io::duplex(1);
//! # drop((measure, client));
//! ```
//!
//! # One connection after another
//!
//! [`Reconnecting`] makes a new socket when the last one has ended, with a growing pause after
//! failures. It repeats no message: only the application knows which ones have arrived.
//!
//! [`Config::handshake_timeout`]: ws_tower::Config::handshake_timeout
//! [`Config::keepalive_interval`]: ws_tower::Config::keepalive_interval
//! [`Config::keepalive_timeout`]: ws_tower::Config::keepalive_timeout

mod address;
mod connecting;
mod connector;
mod error;
mod exchange;
#[cfg(feature = "http2")]
mod http2;
mod proxy;
mod reconnect;
mod redirect;
#[cfg_attr(not(feature = "rustls"), path = "client/tls/absent.rs")]
mod tls;
mod transport;

use ws_tower::WebSocket;

#[cfg(feature = "http2")]
pub use self::http2::Http2Connection;
#[cfg(feature = "rustls")]
pub use self::tls::Tls;
pub use self::{
    address::{Address, AddressError},
    connector::Connector,
    error::{
        ConnectError, HttpError, HttpErrorKind, RedirectError, RedirectErrorKind, Step, TlsError,
        TlsErrorKind,
    },
    proxy::{Proxy, ProxyError, ProxyErrorKind},
    reconnect::{Backoff, ReconnectState, Reconnecting},
};

/// Connects to a WebSocket, with the defaults of a [`Connector`].
///
/// # Errors
///
/// [`ConnectError`]: why there is none.
///
/// # Cancel safety
///
/// Dropping the future closes the connection.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let mut socket = ws_hyper::connect("ws://127.0.0.1:8000/echo").await?;
/// socket.send("Hello").await?;
/// while let Some(message) = socket.recv().await {
///     println!("{:?}", message?);
/// }
/// # Ok(())
/// # }
/// ```
pub async fn connect<A>(address: A) -> Result<WebSocket, ConnectError>
where
    A: TryInto<Address>,
    A::Error: Into<ConnectError>,
{
    let (socket, _) = Connector::new().connect(address).await?;
    Ok(socket)
}
