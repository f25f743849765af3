//! WebSockets on blocking I/O (feature `blocking`): no runtime, no `async`, one thread for each
//! socket.
//!
//! ```text
//!   connect, Connector  ─ client ─┐                                    ┌── send, recv, recv_timeout,
//!   Incoming            ─ server ─┼──>  WebSocket<S>, a stream      <──┤   ping, close, messages
//!   WebSocket::new      ─ any ────┘     and a Connection               └── closed: how it ended
//! ```
//!
//! | for | take |
//! |---|---|
//! | a client in one line | [`connect`] |
//! | headers, subprotocols, limits, the roots of TLS | [`Connector`] |
//! | a stream of your own: a Unix socket, a tunnel | [`Connector::connect_over`] |
//! | a server | [`Incoming`] |
//! | a stream whose opening handshake is done | [`WebSocket::new`] |
//! | a stream that cannot limit its waits | [`WebSocket::without_timeouts`] |
//!
//! A server that echoes, and a client that talks to it:
//!
//! ```
//! use std::{net::TcpListener, thread, time::Duration};
//! use ws_core::{CloseCode, Config, Message, blocking::{Incoming, connect}};
//!
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let address = listener.local_addr()?;
//! let server = thread::spawn(move || {
//!     let (stream, _) = listener.accept()?;
//!     let mut socket = Incoming::read(stream, Config::new())?.accept()?;
//!     while let Some(message) = socket.recv() {
//!         socket.send(message?)?;
//!     }
//!     Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
//! });
//!
//! let mut socket = connect(format!("ws://{address}/echo"))?;
//! socket.send("Hello")?;
//! assert_eq!(socket.recv().transpose()?, Some(Message::text("Hello")));
//!
//! // A wait that was too short loses nothing.
//! let late = socket.recv_timeout(Duration::from_millis(20));
//! assert!(late.is_some_and(|late| late.is_err_and(|error| error.is_timeout())));
//!
//! let closed = socket.close(CloseCode::NORMAL);
//! assert_eq!(closed.to_string(), "closed 1000 (clean)");
//! server.join().unwrap().map_err(|error| error.to_string())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Time
//!
//! A stream that can limit its waits is a [`TimedStream`]: TCP, TLS over it, Unix sockets. On it the
//! limits of [`Config`](crate::Config) hold: a silent peer is pinged, one that does not answer is
//! given up, so is one that takes no bytes or does not answer a Close. Time is looked at within
//! calls only, and only after a look at what the peer has said meanwhile: a program that was busy
//! elsewhere for an hour does not blame its peer.
//!
//! # TLS
//!
//! With the feature `rustls`, `wss` works: rustls with *ring*, the roots that Mozilla trusts or those
//! of [`Connector::tls`](Connector). Certificates are always verified. A stream that ends without
//! TLS's goodbye before the WebSocket's is an unclean end. Without the feature a `wss` URI is
//! [`ConnectError::TlsUnavailable`].

mod connector;
mod driver;
mod error;
mod head;
mod incoming;
mod socket;
mod stream;
#[cfg(feature = "rustls")]
mod tls;

use http::Uri;

#[cfg(feature = "rustls")]
pub use self::tls::TlsStream;
pub use self::{
    connector::{ConnectError, Connector, Stage},
    error::{Closed, Error},
    head::HeadError,
    incoming::{AcceptError, Incoming},
    socket::WebSocket,
    stream::{Stream, TimedStream},
};

/// Connects to a URI of the scheme `ws`, `wss`, `http` or `https`, with the default limits and
/// times. [`Connector`] has more to choose.
///
/// # Errors
///
/// [`ConnectError`] says how far it came, and what to do.
///
/// ```no_run
/// let mut socket = ws_core::blocking::connect("ws://127.0.0.1:9001/echo")?;
/// socket.send("Hello")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn connect<U>(uri: U) -> Result<WebSocket, ConnectError>
where
    U: TryInto<Uri>,
    U::Error: Into<http::Error>,
{
    Connector::new().connect(uri).map(|(socket, _)| socket)
}

#[cfg(test)]
mod tests;
