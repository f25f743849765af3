//! Messages to bytes: RFC 6455 §5.2 to §5.6 for the other direction.

use bytes::Bytes;

use crate::{
    CloseFrame, Role,
    frame::{FrameHeader, OpCode, mask},
    stream::outgoing::{BY_REFERENCE, Outgoing},
};

/// Encodes frames for one end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Encoder {
    /// Where masking keys come from, on a client.
    keys: Option<fn() -> [u8; 4]>,
}

impl Encoder {
    pub(crate) fn new(role: Role) -> Self {
        Self {
            keys: match role {
                Role::Client => Some(mask::random_key),
                Role::Server => None,
            },
        }
    }

    /// Replaces the source of masking keys; a server has none.
    pub(crate) fn with_keys(self, keys: fn() -> [u8; 4]) -> Self {
        Self {
            keys: self.keys.map(|_| keys),
        }
    }

    /// Whether frames are masked, and so differ for each connection.
    pub(crate) fn masks(self) -> bool {
        self.keys.is_some()
    }

    /// Queues a data frame. A large payload is kept by reference unless it has to be masked.
    #[inline]
    pub(crate) fn data(self, out: &mut Outgoing, opcode: OpCode, fin: bool, payload: &Bytes) {
        if self.masks() || payload.len() < BY_REFERENCE {
            out.write(|buffer| self.frame(buffer, opcode, fin, payload));
        } else {
            out.write(|buffer| self.header(opcode, fin, payload.len()).encode(buffer));
            out.push(payload.clone());
        }
    }

    /// Writes a whole frame.
    #[inline]
    pub(crate) fn frame(self, buffer: &mut Vec<u8>, opcode: OpCode, fin: bool, payload: &[u8]) {
        let header = self.header(opcode, fin, payload.len());
        buffer.reserve(FrameHeader::MAX_LEN + payload.len());
        header.encode(buffer);
        let start = buffer.len();
        buffer.extend_from_slice(payload);
        if let Some(key) = header.mask {
            mask::apply(buffer.get_mut(start..).unwrap_or_default(), key, 0);
        }
    }

    /// Writes a Close frame; `None` has an empty payload (RFC 6455 §5.5.1).
    pub(crate) fn close(self, buffer: &mut Vec<u8>, close: Option<&CloseFrame>) {
        let mut payload = Vec::new();
        if let Some(close) = close {
            payload.extend_from_slice(&close.code().as_u16().to_be_bytes());
            payload.extend_from_slice(close.reason().as_bytes());
        }
        self.frame(buffer, OpCode::Close, true, &payload);
    }

    fn header(self, opcode: OpCode, fin: bool, len: usize) -> FrameHeader {
        FrameHeader {
            fin,
            rsv1: false,
            opcode,
            // RFC 6455 §5.3: a fresh key for every frame.
            mask: self.keys.map(|key| key()),
            payload_len: len as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Buf;

    use super::*;
    use crate::CloseCode;

    fn bytes(mut out: Outgoing) -> Vec<u8> {
        out.copy_to_bytes(out.remaining()).to_vec()
    }

    #[test]
    fn the_examples_of_the_rfc_come_out() {
        let server = Encoder::new(Role::Server);
        let client = Encoder::new(Role::Client).with_keys(|| [0x37, 0xfa, 0x21, 0x3d]);
        // RFC 6455 §5.7
        let mut out = Outgoing::default();
        server.data(&mut out, OpCode::Text, true, &Bytes::from_static(b"Hello"));
        client.data(&mut out, OpCode::Text, true, &Bytes::from_static(b"Hello"));
        server.data(&mut out, OpCode::Text, false, &Bytes::from_static(b"Hel"));
        server.data(
            &mut out,
            OpCode::Continuation,
            true,
            &Bytes::from_static(b"lo"),
        );
        out.write(|buffer| client.frame(buffer, OpCode::Pong, true, b"Hello"));
        assert_eq!(
            bytes(out),
            b"\x81\x05Hello\
              \x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58\
              \x01\x03Hel\x80\x02lo\
              \x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"
        );
        for (len, header) in [
            (256, &b"\x82\x7e\x01\x00"[..]),
            (65536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
        ] {
            let mut out = Outgoing::default();
            server.data(&mut out, OpCode::Binary, true, &vec![7; len].into());
            let encoded = bytes(out);
            assert_eq!(&encoded[..header.len()], header);
            assert_eq!(encoded.len(), header.len() + len);
        }
    }

    #[test]
    fn an_empty_close_has_no_code_on_the_wire() {
        let server = Encoder::new(Role::Server);
        let mut buffer = Vec::new();
        server.close(&mut buffer, None);
        server.close(&mut buffer, Some(&CloseCode::NORMAL.into()));
        assert_eq!(buffer, b"\x88\x00\x88\x02\x03\xe8");
    }
}
