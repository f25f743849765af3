//! A message that is encoded once for many connections.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::{
    Compress, Message, Role,
    frame::OpCode,
    stream::{
        deflate::{Compression, Deflated},
        encoder::{Encoder, Head},
        outgoing::{BY_REFERENCE, Outgoing},
    },
};

/// A message that is encoded once and sent on many connections.
///
/// Frames of a server are the same bytes for every receiver, so all connections share one copy.
/// Cloning is cheap. A client has to mask each frame afresh (RFC 6455 §5.3), so there it costs
/// what an ordinary message costs.
///
/// It is compressed once too, by the first connection that has agreed on compression, from a
/// window of its own. Every connection whose window covers it sends that, and then forgets its
/// own window, for it has not seen what the peer has. It is compressed once more for all those
/// with smaller windows, with the smallest there is.
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
    compress: Compress,
    /// Header and payload as a server sends them, or of a large message the header.
    frame: Bytes,
    /// `None` where compressing does not pay.
    deflated: OnceLock<Option<Deflated>>,
    /// The same for all connections whose windows that does not fit: it fits any.
    narrow: OnceLock<Option<Box<Deflated>>>,
}

impl PreparedMessage {
    /// Encodes a message.
    pub fn new(message: impl Into<Message>) -> Self {
        Self::with(message.into(), Compress::Auto)
    }

    /// Encodes a message that is not to be compressed: see [`Compress::Never`].
    pub fn uncompressed(message: impl Into<Message>) -> Self {
        Self::with(message.into(), Compress::Never)
    }

    /// Encodes a message that is compressed wherever that was agreed on, even if it grows: see
    /// [`Compress::Always`].
    pub fn compressed(message: impl Into<Message>) -> Self {
        Self::with(message.into(), Compress::Always)
    }

    fn with(message: Message, compress: Compress) -> Self {
        let server = Encoder::new(Role::Server);
        let mut frame = Vec::new();
        let head = Head::whole(opcode(&message));
        if message.len() < BY_REFERENCE {
            server.frame(&mut frame, head, message.as_bytes());
        } else {
            server.head(&mut frame, head, message.len());
        }
        Self(Arc::new(Prepared {
            message,
            compress,
            frame: frame.into(),
            deflated: OnceLock::new(),
            narrow: OnceLock::new(),
        }))
    }

    /// The message.
    pub fn message(&self) -> &Message {
        &self.0.message
    }

    /// Compresses it now, and not when the first connection sends it: for a large message that is
    /// sent under a lock. The window, the level and the pool are those of `settings`. A message
    /// below their threshold stays as it is, unless it is to be [compressed](Self::compressed).
    #[cfg(feature = "deflate")]
    pub fn deflate(&self, settings: &crate::Deflate) {
        let message = self.message();
        let compress = self.0.compress;
        if compress == Compress::Always || message.len() >= settings.threshold {
            self.0.deflated.get_or_init(|| {
                let own = crate::stream::deflate::Settings {
                    window_bits: settings.own_window_bits.get(),
                    level: settings.level.get(),
                    ..Default::default()
                };
                Deflated::new(message.as_bytes(), compress, own, settings.pool_or_global())
            });
        }
    }

    pub(crate) fn write(
        &self,
        encoder: Encoder,
        compression: Option<&mut Compression>,
        out: &mut Outgoing,
    ) {
        let Prepared {
            message,
            compress,
            frame,
            deflated,
            narrow,
        } = &*self.0;
        let head = Head::whole(opcode(message));
        if let Some(compression) = compression
            && compression.wants(message.len(), *compress)
            && let Some(deflated) =
                deflated.get_or_init(|| compression.deflate(message.as_bytes(), *compress))
        {
            if compression.adopt(deflated) {
                return encoder.data(out, head.compressed(), deflated.payload());
            }
            // Its window is smaller than the message reaches. Any client can ask for such a one,
            // and many of them must not cost a compression each.
            let narrow = narrow.get_or_init(|| {
                let narrow = compression.deflate_narrow(message.as_bytes(), *compress);
                narrow.map(Box::new)
            });
            if let Some(deflated) = narrow
                && compression.adopt(deflated)
            {
                return encoder.data(out, head.compressed(), deflated.payload());
            }
        }
        if encoder.masks() {
            encoder.data(out, head, message.payload());
        } else {
            out.write(|buffer| {
                // The first of a turn has room for itself: mostly it stays alone. A second one
                // mostly has others behind it.
                if !buffer.is_empty() && buffer.capacity() - buffer.len() < frame.len() {
                    buffer.reserve((8 * frame.len()).min(BURST).max(frame.len()));
                }
                buffer.extend_from_slice(frame);
            });
            if message.len() >= BY_REFERENCE {
                out.push(message.payload().clone());
            }
        }
    }
}

impl From<Message> for PreparedMessage {
    fn from(message: Message) -> Self {
        Self::new(message)
    }
}

/// The room that a second message makes for more, in bytes. Sixteen of 128 bytes for each of 400
/// connections took 555 instructions a delivery while the queues doubled from the first, 460 with
/// this.
const BURST: usize = 1 << 10;

/// The opcode of a message's first frame.
pub(crate) fn opcode(message: &Message) -> OpCode {
    match message {
        Message::Text(_) => OpCode::Text,
        Message::Binary(_) => OpCode::Binary,
    }
}
