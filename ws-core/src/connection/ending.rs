//! The end of a connection: Close frames both ways, failures, and who waits for whom (RFC 6455
//! §7).

use crate::{Close, CloseCode, CloseFrame, Connection, ConnectionError, stream::decoder::Decoder};

/// How a connection ends.
#[derive(Debug, Default)]
pub(super) struct End {
    pub(super) sent: Option<Close>,
    pub(super) received: Option<Close>,
    pub(super) error: Option<ConnectionError>,
    pub(super) eof: bool,
    /// Nothing is left to wait for.
    pub(super) done: bool,
}

impl Connection {
    /// Whether nothing more can come from the peer.
    pub(super) fn has_peer_ended(&self) -> bool {
        self.end
            .as_ref()
            .is_some_and(|end| end.received.is_some() || end.error.is_some() || end.eof)
    }

    /// Whether both sides have said Close, and nothing went wrong.
    pub(super) fn close_is_answered(&self) -> bool {
        self.end
            .as_ref()
            .is_some_and(|end| end.sent.is_some() && end.received.is_some() && end.error.is_none())
    }

    /// Whether all is written, and only the peer keeps the connection from its end.
    pub(super) fn is_waiting_for_the_end(&self) -> bool {
        self.end.is_some() && !self.wants_write()
    }

    pub(super) fn queue_close(&mut self, close: Option<CloseFrame>) {
        let encoder = self.encoder;
        self.outgoing
            .write(|buffer| encoder.close(buffer, close.as_ref()));
        if let Some(compression) = &mut self.compression {
            compression.stop_sending();
        }
        self.end.get_or_insert_default().sent = Some(close.into());
    }

    /// Enters the state that absorbs: what was queued is followed by a Close that says why, and
    /// the peer is heard no more.
    pub(super) fn fail(&mut self, error: ConnectionError) {
        let end = self.end.get_or_insert_default();
        if end.error.is_some() {
            return;
        }
        end.error = Some(error);
        if let Some(rare) = &mut self.rare {
            rare.close_due = None;
        }
        self.decoder = Decoder::default();
        self.compression = None;
        if end.sent.is_some() {
            return;
        }
        let (code, reason) = match &error {
            ConnectionError::Protocol(error) => (error.close_code(), error.to_string()),
            ConnectionError::KeepaliveTimeout => (CloseCode::INTERNAL_ERROR, error.to_string()),
            ConnectionError::WriteTimeout => (CloseCode::POLICY_VIOLATION, error.to_string()),
            // Nobody is there to be told.
            ConnectionError::CloseTimeout | ConnectionError::UnexpectedEof => return,
        };
        self.queue_close(Some(CloseFrame::truncated(code, &reason)));
    }

    pub(super) fn finish(&mut self) {
        self.end.get_or_insert_default().done = true;
    }
}
