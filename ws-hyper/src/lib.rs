//! A WebSocket server on hyper, for any Tower service.
//!
//! [`serve`] takes a [`Listener`] and a service — a [`WebSocketLayer`] alone, an axum `Router`,
//! anything that answers requests — and serves HTTP/1.1 with upgrades:
//!
//! | it sees to | how |
//! |---|---|
//! | slow and endless request heads | one deadline, a limit on the size and on the lines (431) |
//! | small frames | `TCP_NODELAY` |
//! | too many connections | pauses accepting at [`max_connections`](Serve::max_connections) |
//! | running out of descriptors | logs it, waits, goes on |
//! | responses changed behind the acceptance | no session: the server is the outermost [gate] |
//! | shutdown | 503, 1001 to every socket, a deadline: [`with_graceful_shutdown`](Serve::with_graceful_shutdown) |
//! | the peer's address | [`PeerAddr`] in the request's extensions |
//!
//! None of it is needed to use the layer: the same service runs under `axum::serve`, or under
//! hyper alone, served with upgrades.
//!
//! [`WebSocketLayer`]: ws_tower::WebSocketLayer
//! [`PeerAddr`]: ws_tower::PeerAddr
//! [gate]: ws_tower::gate
#![forbid(unsafe_code)]

mod listener;
mod server;

pub use listener::Listener;
pub use server::{Serve, serve};
