//! Sending a message in fragments.

use std::marker::PhantomData;

use bytes::Bytes;

use crate::{
    Compress, Connection, SendError, connection::MESSAGE_OVERHEAD, frame::OpCode,
    stream::encoder::Head,
};

/// A message that is sent in fragments (RFC 6455 §5.4): [`push`](Self::push) as often as
/// needed, then [`finish`](Self::finish).
///
/// There is no other way to send fragments, so they cannot be misordered, and no other message
/// can come between them: [`Connection::send`] refuses while one is unfinished. Pings, pongs and
/// a Close may. A message that is dropped unfinished stays so; then only closing is left.
///
/// Where compression was agreed on, the message is compressed if its first fragment is as large as
/// the threshold of the settings, or as [`compress`](Self::compress) says.
///
/// ```
/// use bytes::{Buf, Bytes};
/// use ws_core::{Config, Connection, Role};
///
/// let mut server = Connection::new(Role::Server, Config::default());
/// let mut message = server.start_text()?;
/// message.push(&mut server, "Hel")?;
/// message.finish(&mut server, "lo")?;
/// assert_eq!(server.transmit().chunk(), b"\x01\x03Hel\x80\x02lo"); // RFC 6455 §5.7
/// # Ok::<(), ws_core::SendError>(())
/// ```
#[derive(Debug)]
#[must_use = "a message that is started has to be finished"]
pub struct Fragments<P> {
    opcode: OpCode,
    compress: Compress,
    /// Known from the first fragment on.
    is_compressed: bool,
    payload: PhantomData<fn(P)>,
}

impl<P> Fragments<P> {
    pub(super) fn new(opcode: OpCode) -> Self {
        Self {
            opcode,
            compress: Compress::Auto,
            is_compressed: false,
            payload: PhantomData,
        }
    }

    /// Sets whether the message is compressed, before its first fragment.
    pub fn compress(mut self, compress: Compress) -> Self {
        self.compress = compress;
        self
    }
}

impl<P: Into<Bytes>> Fragments<P> {
    /// Queues a fragment; the message goes on.
    ///
    /// # Errors
    ///
    /// [`SendError::Full`] and [`SendError::Closed`] as for [`Connection::send`]. After `Full`
    /// the same fragment can be given again.
    pub fn push(
        &mut self,
        connection: &mut Connection,
        payload: impl Into<P>,
    ) -> Result<(), SendError> {
        connection.open()?;
        connection.room()?;
        self.write(connection, payload.into(), false);
        self.opcode = OpCode::Continuation;
        Ok(())
    }

    /// Queues the last fragment, which may be empty.
    ///
    /// # Errors
    ///
    /// [`SendError::Closed`] as for [`Connection::send`]. The last fragment is taken above the
    /// high-water mark too.
    pub fn finish(
        mut self,
        connection: &mut Connection,
        payload: impl Into<P>,
    ) -> Result<(), SendError> {
        connection.open()?;
        self.write(connection, payload.into(), true);
        connection.unfinished = false;
        Ok(())
    }

    fn write(&mut self, connection: &mut Connection, payload: P, fin: bool) {
        let payload = payload.into();
        connection.outgoing_cost += payload.len() + MESSAGE_OVERHEAD;
        let (encoder, out) = (connection.encoder, &mut connection.outgoing);
        let opcode = self.opcode;
        if let Some(compression) = &mut connection.compression {
            if opcode != OpCode::Continuation {
                self.is_compressed = compression.wants(payload.len(), self.compress);
            }
            if self.is_compressed {
                return compression.fragment(encoder, out, (opcode, fin), &payload);
            }
        }
        let rsv1 = false;
        encoder.data(out, Head { opcode, fin, rsv1 }, &payload);
    }
}
