//! WebSockets for any Tower stack.
#![forbid(unsafe_code)]

mod error;
mod session;
mod socket;

pub use error::{BoxError, Closed, Error, TrySendError};
pub use session::{NoHandler, Session};
pub use socket::{Receiver, Sender, WebSocket, pair};
pub use ws_core::{self, CloseCode, CloseFrame, Config, Message, PreparedMessage, Utf8Bytes};
