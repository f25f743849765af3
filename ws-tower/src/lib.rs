//! WebSockets for any Tower stack: one layer, by path, on the port that serves the rest.
//!
//! An axum, tonic, warp, salvo, poem or plain hyper service gets WebSockets by adding a
//! [`WebSocketLayer`]; everything else it serves is untouched. HTTP is needed for the opening
//! handshake only: then a [session](#who-owns-the-bytes) of this crate owns the bytes, and the
//! handler holds a [`WebSocket`].
//!
//! # Two modes
//!
//! **The layer routes.** A path has a handler:
//!
//! ```
//! use std::convert::Infallible;
//!
//! use http::{Request, Response, StatusCode};
//! use tower::{Layer, ServiceExt, service_fn};
//! use ws_tower::{Error, WebSocket, WebSocketLayer, upgrade::test_request};
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
//! let application = service_fn(async |_: Request<String>| {
//!     Ok::<_, Infallible>(Response::new("a page".to_owned()))
//! });
//! let service = WebSocketLayer::new().route("/echo", echo).layer(application);
//!
//! // A WebSocket on /echo is the layer's, any other request the application's.
//! let (request, client) = test_request("/echo");
//! let response = service.clone().oneshot(request).await?;
//! assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
//! let mut socket = client.finish(&response)?;
//! socket.send("hello").await?;
//! let echoed = socket.recv().await.transpose()?;
//! assert_eq!(echoed.as_ref().and_then(|message| message.as_text()), Some("hello"));
//!
//! let response = service.oneshot(Request::new(String::new())).await?;
//! assert_eq!(response.body(), "a page");
//! # Ok(())
//! # }
//! ```
//!
//! **The application decides.** On a path without a route, the request carries a
//! [`WebSocketUpgrade`] in its extensions: accept with [`on_upgrade`](WebSocketUpgrade::on_upgrade)
//! or [`accept`](WebSocketUpgrade::accept), or refuse with any response, which then is a real
//! one, before any 101. For axum it is an extractor, plain and as an `Option` (feature `axum`, on by default).
//!
//! ```
//! use std::convert::Infallible;
//!
//! use http::{Request, Response, StatusCode};
//! use tower::{Layer, ServiceExt, service_fn};
//! use ws_tower::{WebSocket, WebSocketLayer, WebSocketUpgrade, upgrade::test_request};
//!
//! async fn chat(socket: WebSocket) {
//!     let _ = socket.send("welcome").await;
//! }
//!
//! async fn application(request: Request<String>) -> Result<Response<String>, Infallible> {
//!     let mut response = Response::new(String::new());
//!     match request.extensions().get::<WebSocketUpgrade>().cloned() {
//!         Some(upgrade) if request.headers().contains_key("authorization") => {
//!             response = upgrade.on_upgrade(chat);
//!         }
//!         Some(_) => *response.status_mut() = StatusCode::FORBIDDEN,
//!         None => "a page".clone_into(response.body_mut()),
//!     }
//!     Ok(response)
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let service = WebSocketLayer::new().layer(service_fn(application));
//!
//! let (request, _client) = test_request("/chat");
//! let response = service.clone().oneshot(request).await?;
//! assert_eq!(response.status(), StatusCode::FORBIDDEN);
//!
//! let (mut request, client) = test_request("/chat");
//! request.headers_mut().insert("authorization", "Bearer x".parse()?);
//! let response = service.oneshot(request).await?;
//! let mut socket = client.finish(&response)?;
//! let welcome = socket.recv().await.transpose()?;
//! assert_eq!(welcome, Some("welcome".into()));
//! # Ok(())
//! # }
//! ```
//!
//! # What the layer does with a request
//!
//! | request | what happens |
//! |---|---|
//! | not for a WebSocket | the inner service gets it, untouched |
//! | for a WebSocket, on a path without a route | the inner service gets it, with a [`WebSocketUpgrade`] in its extensions; hyper's `OnUpgrade` is there still |
//! | for a WebSocket, on the path of a route | handshake, [origin], [guards](WebSocketLayer::guard), [subprotocol](WebSocketLayer::subprotocols); then 101 (200 over HTTP/2) and a session with the handler, or a refusal |
//! | the same, while [draining](Tracker::drain) | 503 |
//! | what would go to the inner service, when the layer [stands alone](WebSocketLayer::into_service) | 404; on the path of a route 426, or 405 for a method other than `GET` |
//!
//! A refusal is a response and never an error: the error type of the stack stays the inner
//! service's. The statuses, one by one, are in [`layer`]. Its body is a text that names the culprit
//! where the stack's body is axum's (feature `axum`), a `String`, or made by
//! [`with_body`](WebSocketLayer::with_body); any other body is empty.
//!
//! # Who owns the bytes
//!
//! The session is one task for each WebSocket. It owns the connection and runs the handler's
//! future inside itself. Sending and receiving are operations on its queues, and from this follows:
//!
//! - Pings are answered, [keepalive](Config::keepalive_interval) runs and a Close is noticed while
//!   the handler waits for a database, or never receives at all.
//! - [`recv`](WebSocket::recv), [`send`](WebSocket::send) and all other futures are cancel safe:
//!   use them in `select!` and under a timeout.
//! - A batch of messages costs one read and one write. No reply waits for a flush.
//! - [`split`](WebSocket::split) and [`sender`](WebSocket::sender) cost a reference count, and
//!   messages of many tasks never interleave.
//! - Both queues are [bounded](Config). While the inbox is full nothing is read; while the outgoing
//!   queue is full, `send` waits and [`try_send`](WebSocket::try_send) gives the message back.
//!
//! ## The end of a socket
//!
//! | what happens | what the peer gets | what the handles say |
//! |---|---|---|
//! | the handler has returned `()` or `Ok`, and no [`WebSocket`] or [`Receiver`] is left elsewhere | all that was sent, then 1000 | |
//! | the same, after an `Err` or a panic | all that was sent, then 1011; the cause is in the log, never in the reason | |
//! | [`close`](WebSocket::close) | all that was sent, then that code | [`Closed`] |
//! | the peer closes | answers to the messages that came before, then its own code back | `recv`: these messages, then `None`; `send` after it: [`Error::Closed`]. The handler runs on, unless the route says [`cancel_on_close`](Route::cancel_on_close) |
//! | the peer breaks the protocol or a limit | 1002, 1007 or 1009 | `recv`: the messages that came before, then the error once, then `None` |
//! | the peer is silent, takes no bytes, or is gone | the connection is cut | the same |
//! | [`Tracker::shutdown`] | 1001, and the cut at the deadline | `recv`: `None`; handlers that are left at the deadline are dropped |
//! | the response that leaves is not the acceptance | that response | [`Error::NotUpgraded`] |
//!
//! A [`Sender`] does not keep a socket open. When only the [`Receiver`] is dropped and the handler
//! runs on, what comes is thrown away, as after
//! [`discard_incoming`](WebSocket::discard_incoming). How a socket ended is told by
//! [`closed`](WebSocket::closed) to every [`WebSocket`] and [`Sender`], and to the layer's
//! [`on_closed`](WebSocketLayer::on_closed).
//!
//! # Rooms, feeds and presence
//!
//! A [`Hub`] has topics that sockets [join](Hub::join). What is published to a topic, from anywhere
//! and without waiting, is encoded once and queued on every member's session; their handlers
//! sleep on. A member that does not keep up is dealt with by a [policy](hub#choosing-a-policy),
//! and delays nobody.
//!
//! ```
//! use ws_tower::{Error, Hub, WebSocket, WebSocketLayer};
//!
//! async fn room(hub: Hub, mut socket: WebSocket) -> Result<(), Error> {
//!     let seat = hub.join(socket.param("room").unwrap_or("lobby"), &socket);
//!     while let Some(message) = socket.recv().await {
//!         seat.publish(message?);
//!     }
//!     Ok(())
//! }
//!
//! let hub = Hub::new();
//! let sockets = WebSocketLayer::new()
//!     .route("/rooms/{room}", move |socket: WebSocket| room(hub.clone(), socket));
//! # let _ = sockets;
//! ```
//!
//! # Where to put it, and how to stop it
//!
//! Make the layer the outermost one (axum: the last `.layer`). It is then the [gate]: a
//! middleware inside may still turn a 101 into a 403, and no session begins. Under
//! `ws_hyper::serve` the server is the gate, and the layer may stand anywhere. A stack with the
//! extractor alone needs a [`GateLayer`](gate::GateLayer).
//!
//! HTTP servers forget a connection that has been upgraded, so their graceful shutdown tells no
//! WebSocket. The layer's [`Tracker`] does: 503 to new ones, 1001 to each, then a deadline.
//!
//! ```
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let sockets = ws_tower::WebSocketLayer::new();
//! let tracker = sockets.tracker();
//! // … `.layer(sockets)`, serve, wait for a signal; then
//! let ended = tracker.shutdown(Duration::from_secs(10)).await;
//! assert_eq!((ended.closed, ended.cut), (0, 0));
//! assert!(tracker.is_draining());
//! # }
//! ```
//!
//! # Tests without a port
//!
//! [`test_request`](upgrade::test_request) makes a request with a client behind it, for
//! `oneshot` on the real service: see the examples above. [`pair`] connects two sockets in
//! memory, for a handler alone. [`Session`] runs over any `AsyncRead + AsyncWrite`. Time is tokio's,
//! so `tokio::time::pause`, with tokio's feature `test-util`, turns the clock of keepalive and
//! deadlines.
//!
//! ```
//! use ws_tower::{CloseCode, Config, WebSocket};
//!
//! async fn greet(socket: WebSocket) {
//!     let _ = socket.send("welcome").await;
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), ws_tower::Error> {
//! let (mut client, server) = ws_tower::pair(Config::new());
//! greet(server).await;
//! assert_eq!(client.recv().await.transpose()?, Some("welcome".into()));
//! assert!(client.recv().await.is_none());
//! let closed = client.closed().await;
//! assert_eq!(closed.received().and_then(|close| close.code()), Some(CloseCode::NORMAL));
//! # Ok(())
//! # }
//! ```
//!
//! # What a connection costs
//!
//! An idle session owns no read buffer and no queue: these are the thread's, lent for a turn. It
//! keeps nothing of the request but copies of the path, the parameters, the subprotocol and the
//! address. **A handler that keeps its request pays for it**: a `Uri` or a header value is a slice
//! of the buffer that hyper read the head into, and one that is kept holds about 4.6 KB for as long
//! as the socket lives. Take out what is needed, as a `String`, and drop the request.
//!
//! # Logs
//!
//! The crates log with [`tracing`](https://docs.rs/tracing), and nothing is seen of it before the
//! program installs a subscriber. A handler's `Err` and its panic are told nowhere else. With the
//! crate `tracing-subscriber`, at the start of `main`:
//!
//! ```text
//! tracing_subscriber::fmt().with_writer(std::io::stderr).init();
//! ```
//!
//! | target | level | what |
//! |---|---|---|
//! | `ws_tower::session` | error | a handler failed (`path`, `error` with its causes) or panicked (`path`, `panic`); the hook [`on_closed`](WebSocketLayer::on_closed) panicked |
//! | `ws_tower::gate` | error | a WebSocket was lost or refused because the HTTP server serves without upgrades, or outside of tokio |
//! | `ws_tower::upgrade` | error | the server cannot upgrade, or the extractor has no [gate] around it |
//! | `ws_tower::options` | warn | the application sets a header that is the handshake's own |
//! | `ws_tower::hub` | error | a [notice](hub::Policy::notice) panicked |
//! | `ws_tower::hub::backplane` | warn | the broker is lost, or cannot be reached (`error`: why; while that lasts, once a minute); another node is lost, speaks another version, or has too many members |
//! | `ws_tower::hub::backplane` | info | the broker is there again |
//! | `ws_hyper::server` | error | a service failed or panicked; connections cannot be accepted |
//! | `ws_tower`, `ws_hyper` | debug | what clients and peers do: refusals with their reasons, handlers that end with their connection, TLS handshakes that fail, ends of connections, attempts to reconnect, foreign payloads at the broker |
//!
//! So warnings and errors are the program's and its surroundings', not its clients', unless a handler
//! makes an error of what they send. No message, no query and no password is logged. At debug a
//! refusal quotes the header that it is about, and the end of a socket the reason of its Close. Paths,
//! names of topics and what errors say of themselves are logged as they are.
//!
//! # Numbers
//!
//! What an operator watches are [`Tracker::len`], [`Hub::stats`] and [`Hub::backplane_stats`], read
//! when they are asked for: nothing is to be registered. For Prometheus, behind a route `/metrics`:
//!
//! ```
//! use std::fmt::Write;
//! use ws_tower::{Hub, Tracker};
//!
//! fn metrics(tracker: &Tracker, hub: &Hub) -> Result<String, std::fmt::Error> {
//!     let mut text = format!("websocket_sessions {}\n", tracker.len());
//!     let stats = hub.stats();
//!     writeln!(text, "hub_published_total {}", stats.published)?;
//!     writeln!(text, "hub_delivered_total {}", stats.delivered)?;
//!     writeln!(text, "hub_disconnected_total {}", stats.disconnected)?;
//!     if let Some(stats) = hub.backplane_stats() {
//!         writeln!(text, "backplane_connected {}", stats.connected)?;
//!         writeln!(text, "backplane_missed_total {}", stats.missed)?;
//!     }
//!     Ok(text)
//! }
//!
//! let text = metrics(&Tracker::new(), &Hub::new())?;
//! assert!(text.starts_with("websocket_sessions 0\nhub_published_total 0\n"));
//! # Ok::<(), std::fmt::Error>(())
//! ```
//!
//! With the crate `metrics` each line is `gauge!("websocket_sessions").set(…)` for what is now, and
//! `counter!("hub_published_total").absolute(stats.published)` for what counts. Ends of sockets are
//! counted in [`on_closed`](WebSocketLayer::on_closed), by code and cause.
//!
//! # Modules and features
//!
//! | module | tells |
//! |---|---|
//! | [`layer`] | what is answered, status by status |
//! | [`upgrade`] | the application's own upgrade, requests for tests, [bytes](upgrade::ProvidedIo) from servers other than hyper |
//! | [`origin`] | which pages may open a WebSocket |
//! | [`gate`] | why a session begins only when its 101 has left |
//! | [`hub`] | topics, what is promised of them, slow subscribers, presence |
//! | [`subprotocol`] | sockets of typed messages |
//! | [`ws_core`] | the engine underneath; [`Config`], [`Message`] and close codes are its |
//!
//! | feature | adds | default |
//! |---|---|---|
//! | `axum` | [`WebSocketUpgrade`] as an axum extractor; the texts of refusals in axum's bodies | on |
//! | `deflate` | compression, permessage-deflate (RFC 7692), with every client that offers it: [`Config::deflate`] says how, or to leave it off | on |
//! | `http2` | WebSockets by extended CONNECT (RFC 8441), on servers that allow it | off |
//! | `json` | serde's types as messages, on a socket and for the hub | off |
//! | `nats` | the hub across machines over [NATS](hub::backplane) | off |
//! | `redis` | the hub across machines over [Redis](hub::backplane) | off |
//!
//! Sessions are tasks of tokio.
#![forbid(unsafe_code)]

#[cfg(feature = "axum")]
mod axum;
mod body;
mod error;
mod future;
pub mod gate;
mod guard;
mod handler;
pub mod hub;
#[cfg(feature = "json")]
pub mod json;
pub mod layer;
mod opening;
mod options;
pub mod origin;
mod provided;
mod router;
mod service;
mod session;
mod socket;
pub mod subprotocol;
mod tracker;
pub mod upgrade;

pub use body::{DefaultBody, MakeBody};
pub use error::{BoxError, Closed, Error, TrySendError};
pub use future::ResponseFuture;
pub use guard::IntoRefusal;
pub use handler::{Handler, Outcome};
pub use hub::Hub;
pub use layer::WebSocketLayer;
pub use origin::OriginPolicy;
pub use router::Route;
pub use service::{NotFound, WebSocketService};
pub use session::{NoHandler, Session};
pub use socket::{Receiver, Sender, WebSocket, pair};
pub use tracker::{Shutdown, Tracker};
pub use upgrade::{PeerAddr, WebSocketUpgrade};
#[cfg(feature = "deflate")]
pub use ws_core::Deflate;
pub use ws_core::{
    self, Close, CloseCode, CloseFrame, Compress, Config, ConnectionError, Message,
    PreparedMessage, ProtocolError, Utf8Bytes,
};
