//! WebSockets for any Tower stack.
#![forbid(unsafe_code)]

#[cfg(feature = "axum")]
mod axum;
mod body;
mod error;
mod future;
pub mod gate;
mod guard;
mod handler;
pub mod layer;
mod opening;
mod options;
pub mod origin;
mod provided;
mod router;
mod service;
mod session;
mod socket;
mod tracker;
pub mod upgrade;

pub use body::{DefaultBody, MakeBody};
pub use error::{BoxError, Closed, Error, TrySendError};
pub use future::ResponseFuture;
pub use guard::IntoRefusal;
pub use handler::{Handler, Outcome};
pub use layer::WebSocketLayer;
pub use origin::OriginPolicy;
pub use router::Route;
pub use service::{NotFound, WebSocketService};
pub use session::{NoHandler, Session};
pub use socket::{Receiver, Sender, WebSocket, pair};
pub use tracker::{Shutdown, Tracker};
pub use upgrade::{PeerAddr, WebSocketUpgrade};
pub use ws_core::{self, CloseCode, CloseFrame, Config, Message, PreparedMessage, Utf8Bytes};
