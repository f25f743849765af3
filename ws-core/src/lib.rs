//! A sans-I/O WebSocket engine.
#![deny(unsafe_code)]
#![warn(clippy::indexing_slicing)]

mod close;
mod config;
pub mod connection;
mod error;
pub mod frame;
pub mod handshake;
mod message;
mod stream;
mod text;

pub use close::{Close, CloseCode, CloseFrame, InvalidCloseCode, ReasonTooLong};
pub use config::{Config, Role};
pub use connection::{Connection, Event, Scratch};
pub use error::{ConnectionError, ProtocolError, SendError};
pub use message::Message;
pub use stream::{outgoing::Outgoing, prepared::PreparedMessage};
pub use text::Utf8Bytes;
