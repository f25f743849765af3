//! A message that is encoded once for many connections.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    Message, Role,
    frame::OpCode,
    stream::{
        encoder::Encoder,
        outgoing::{BY_REFERENCE, Outgoing},
    },
};

/// A message that is encoded once and sent on many connections.
///
/// Frames of a server are the same bytes for every receiver, so all connections share one copy.
/// Cloning is cheap. A client has to mask each frame afresh (RFC 6455 §5.3), so there it costs
/// what an ordinary message costs.
///
/// ```
/// use bytes::Buf;
/// use ws_core::{Config, Connection, Message, PreparedMessage, Role};
///
/// let news = PreparedMessage::new(Message::text("news"));
/// for _ in 0..2 {
///     let mut server = Connection::new(Role::Server, Config::default());
///     server.send_prepared(&news)?;
///     assert_eq!(server.transmit().chunk(), b"\x81\x04news");
/// }
/// # Ok::<(), ws_core::SendError>(())
/// ```
#[derive(Clone, Debug)]
pub struct PreparedMessage(Arc<Prepared>);

#[derive(Debug)]
struct Prepared {
    message: Message,
    /// Header and payload as a server sends them.
    frame: Bytes,
}

impl PreparedMessage {
    /// Encodes a message.
    pub fn new(message: impl Into<Message>) -> Self {
        let message = message.into();
        let mut frame = Vec::new();
        let server = Encoder::new(Role::Server);
        server.frame(&mut frame, opcode(&message), true, message.as_bytes());
        let frame = frame.into();
        Self(Arc::new(Prepared { message, frame }))
    }

    /// The message.
    pub fn message(&self) -> &Message {
        &self.0.message
    }

    pub(crate) fn write(&self, encoder: Encoder, out: &mut Outgoing) {
        if encoder.masks() {
            let message = &self.0.message;
            out.write(|buffer| encoder.frame(buffer, opcode(message), true, message.as_bytes()));
        } else if self.0.frame.len() < BY_REFERENCE {
            out.write(|buffer| buffer.extend_from_slice(&self.0.frame));
        } else {
            out.push(self.0.frame.clone());
        }
    }
}

impl From<Message> for PreparedMessage {
    fn from(message: Message) -> Self {
        Self::new(message)
    }
}

/// The opcode of a message's first frame.
pub(crate) fn opcode(message: &Message) -> OpCode {
    match message {
        Message::Text(_) => OpCode::Text,
        Message::Binary(_) => OpCode::Binary,
    }
}
