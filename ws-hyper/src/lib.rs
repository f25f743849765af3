//! A WebSocket server on hyper, for any Tower service, and a client.
//!
//! [`serve`] takes a [`Listener`] and a service — a [`WebSocketLayer`] alone, an axum `Router`,
//! anything that answers requests — and serves HTTP/1.1 with upgrades and HTTP/2 with extended
//! CONNECT (RFC 8441) on one port, with TLS or without:
//!
//! | it sees to | how |
//! |---|---|
//! | slow and endless request heads | one deadline, a limit on the size and on the lines (431) |
//! | floods that HTTP/2 makes possible | [limits](server::Http2) on streams, windows, header lists and resets |
//! | handshakes of TLS that fail or never end | beside the accepting of connections, each within a [deadline](server::Tls::handshake_timeout) |
//! | small frames | `TCP_NODELAY` |
//! | too many connections | pauses accepting at [`max_connections`](Serve::max_connections) |
//! | running out of descriptors | logs it, waits, goes on |
//! | a service that fails or panics | the end of that connection, and of nothing else |
//! | responses changed behind the acceptance | no session: the server is the outermost [gate] |
//! | shutdown | 503, 1001 to every socket, a deadline: [`with_graceful_shutdown`](Serve::with_graceful_shutdown) |
//! | the peer's address, and its certificate | [`PeerAddr`] and [`PeerCertificates`](server::PeerCertificates) in the request's extensions |
//!
//! ```
//! use std::time::Duration;
//!
//! use tokio::{net::TcpListener, sync::oneshot};
//! use ws_tower::{Error, WebSocket, WebSocketLayer};
//!
//! async fn echo(mut socket: WebSocket) -> Result<(), Error> {
//!     while let Some(message) = socket.recv().await {
//!         socket.send(message?).await?;
//!     }
//!     Ok(())
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let service = WebSocketLayer::new().route("/echo", echo).into_service();
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
//! let (stop, stopped) = oneshot::channel::<()>();
//! let signal = async {
//!     let _ = stopped.await; // in a program: tokio::signal::ctrl_c()
//! };
//! let server = ws_hyper::serve(listener, service)
//!     .max_connections(10_000)
//!     .with_graceful_shutdown(signal, Duration::from_secs(10));
//! let server = tokio::spawn(server.into_future());
//!
//! drop(stop);
//! let sockets = server.await??; // how many had closed, and how many were cut at the deadline
//! assert_eq!((sockets.closed, sockets.cut), (0, 0));
//! # Ok(())
//! # }
//! ```
//!
//! A shutdown goes in this order: new WebSockets are refused with 503; nothing more is accepted;
//! every socket gets a Close with 1001; requests that are being answered are finished and idle
//! connections closed; what is left at the deadline is cut.
//!
//! # HTTP/2
//!
//! A client says so by its first bytes, or by ALPN in TLS. Layers, guards, origins, subprotocols and
//! shutdown are the same; a WebSocket is a stream, opened by `CONNECT` and accepted with 200. What
//! differs:
//!
//! - Many sockets share a connection, and end with it. A request that fails or panics ends its
//!   stream alone.
//! - Reading never stops for a slow handler: past [`http2_receive_cap`] that socket ends with 1013.
//!   Neither it nor a handler that holds up its thread disturbs the other streams.
//! - A shutdown ends the connection with `GOAWAY`, whether the client would keep it or not.
//!
//! # TLS
//!
//! ```no_run
//! # #[cfg(feature = "rustls")]
//! # async fn run(listener: tokio::net::TcpListener) -> Result<(), Box<dyn std::error::Error>> {
//! # let app = ws_tower::WebSocketLayer::new().into_service();
//! use ws_hyper::server::Tls;
//!
//! let tls = Tls::from_pem_files("certificate.pem", "key.pem")?;
//! ws_hyper::serve(listener, app).tls(tls).await?;
//! # Ok(())
//! # }
//! ```
//!
//! [`Tls`](server::Tls) reads new certificates [again](server::Tls::reload) while sockets go on, and
//! asks clients for [theirs](server::Tls::require_client_certificates).
//!
//! # When not to use it
//!
//! None of it is needed for the layer: the same service runs under `axum::serve`, or under
//! hyper alone, served [with upgrades](hyper::server::conn::http1::Connection::with_upgrades).
//! What the table says is then that server's affair, and the sockets' shutdown is asked of the
//! layer's [`Tracker`](ws_tower::Tracker).
//!
//! # The client
//!
//! [`connect`] goes from an address to a [`WebSocket`], and a [`Connector`] does so with settings:
//! headers, credentials, subprotocols, proxies, redirects, a transport of your own. The
//! [module](client) tells what it sees to on the way, and has what makes sockets anew when they end.
//!
//! ```
//! # use ws_tower::{Error, WebSocket, WebSocketLayer};
//! # async fn echo(mut socket: WebSocket) -> Result<(), Error> {
//! #     while let Some(message) = socket.recv().await { socket.send(message?).await?; }
//! #     Ok(())
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let service = WebSocketLayer::new().route("/echo", echo).into_service();
//! # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! # let address = format!("ws://{}/echo", listener.local_addr()?);
//! # tokio::spawn(ws_hyper::serve(listener, service).into_future());
//! let mut socket = ws_hyper::connect(address).await?;
//! socket.send("Hello").await?;
//! assert_eq!(socket.recv().await.transpose()?, Some("Hello".into()));
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! | feature | adds | default |
//! |---|---|---|
//! | `deflate` | compression, permessage-deflate (RFC 7692) | on |
//! | `http2` | HTTP/2 beside HTTP/1.1 on one port, and WebSockets over it (RFC 8441); for the client [`Connector::prefer_http2`](client), and many sockets on one connection | on |
//! | `rustls` | TLS by rustls, with ring: a server's `Tls`, and `wss` addresses for the client, which trusts nobody by itself | off |
//! | `webpki-roots` | a client trusts Mozilla's roots, as they were at the time of the build | off |
//! | `platform-verifier` | a client trusts whom the operating system trusts | off |
//!
//! The crates whose types are in the signatures of this one are to be had from it, in the version that
//! fits: [`hyper`], [`ws_tower`], `rustls`, and by [`ws_tower::ws_core`] `http` and `bytes`.
//!
//! [`WebSocket`]: ws_tower::WebSocket
//! [`WebSocketLayer`]: ws_tower::WebSocketLayer
//! [`PeerAddr`]: ws_tower::PeerAddr
//! [gate]: ws_tower::gate
//! [`http2_receive_cap`]: ws_tower::Config::http2_receive_cap
#![forbid(unsafe_code)]

#[macro_use]
mod write_through;

pub mod client;
pub mod docs;
#[cfg(feature = "http2")]
mod inlet;
mod listener;
pub mod server;

pub use client::{Connector, connect};
pub use hyper;
pub use listener::Listener;
pub use server::{Serve, serve};
#[cfg(feature = "rustls")]
pub use tokio_rustls::rustls;
pub use ws_tower;
