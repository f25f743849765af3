//! A sans-I/O WebSocket engine.
#![deny(unsafe_code)]
#![warn(clippy::indexing_slicing)]

mod close;
mod config;
mod error;
pub mod handshake;
mod message;
mod text;

pub use close::{CloseCode, CloseFrame, InvalidCloseCode, ReasonTooLong};
pub use config::{Config, Role};
pub use error::{ConnectionError, ProtocolError, SendError};
pub use message::Message;
pub use text::Utf8Bytes;
