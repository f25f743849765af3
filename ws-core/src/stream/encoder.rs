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

/// What the header of a frame says beside its size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) opcode: OpCode,
    pub(crate) fin: bool,
    pub(crate) rsv1: bool,
}

impl Head {
    /// The only frame of a message, or a control frame.
    pub(crate) fn whole(opcode: OpCode) -> Self {
        Self {
            opcode,
            fin: true,
            rsv1: false,
        }
    }

    /// The first frame of a compressed message (RFC 7692 §6).
    pub(crate) fn compressed(self) -> Self {
        Self { rsv1: true, ..self }
    }
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
    pub(crate) fn data(self, out: &mut Outgoing, head: Head, payload: &Bytes) {
        if self.masks() || payload.len() < BY_REFERENCE {
            out.write(|buffer| self.frame(buffer, head, payload));
        } else {
            out.write(|buffer| self.head(buffer, head, payload.len()));
            out.push(payload.clone());
        }
    }

    /// Writes the header of a frame whose payload comes behind it.
    pub(crate) fn head(self, buffer: &mut Vec<u8>, head: Head, len: usize) {
        self.header(head, len).encode(buffer);
    }

    /// Writes a whole frame.
    #[inline]
    pub(crate) fn frame(self, buffer: &mut Vec<u8>, head: Head, payload: &[u8]) {
        let header = self.header(head, payload.len());
        buffer.reserve(FrameHeader::MAX_LEN + payload.len());
        header.encode(buffer);
        let start = buffer.len();
        buffer.extend_from_slice(payload);
        if let Some(key) = header.mask {
            mask::apply(buffer.get_mut(start..).unwrap_or_default(), key, 0);
        }
    }

    /// Queues a data frame whose payload `make` appends to the queue's own buffer, if it says that
    /// it did.
    #[cfg(feature = "deflate")]
    pub(crate) fn made(
        self,
        out: &mut Outgoing,
        head: Head,
        make: impl FnOnce(&mut Vec<u8>) -> bool,
    ) -> bool {
        out.write(|buffer| {
            let start = buffer.len();
            if !make(buffer) {
                return false;
            }
            // The header is as long as the payload's size makes it: it goes behind, then to the
            // front.
            let end = buffer.len();
            let header = self.header(head, end - start);
            if let Some(key) = header.mask {
                mask::apply(buffer.get_mut(start..).unwrap_or_default(), key, 0);
            }
            header.encode(buffer);
            let header_len = buffer.len() - end;
            buffer
                .get_mut(start..)
                .unwrap_or_default()
                .rotate_right(header_len);
            true
        })
    }

    /// Writes a Close frame; `None` has an empty payload (RFC 6455 §5.5.1).
    pub(crate) fn close(self, buffer: &mut Vec<u8>, close: Option<&CloseFrame>) {
        let mut payload = Vec::new();
        if let Some(close) = close {
            payload.extend_from_slice(&close.code().as_u16().to_be_bytes());
            payload.extend_from_slice(close.reason().as_bytes());
        }
        self.frame(buffer, Head::whole(OpCode::Close), &payload);
    }

    #[inline]
    fn header(self, head: Head, len: usize) -> FrameHeader {
        FrameHeader {
            fin: head.fin,
            rsv1: head.rsv1,
            opcode: head.opcode,
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
        let text = Head::whole(OpCode::Text);
        let first = Head { fin: false, ..text };
        let rest = Head::whole(OpCode::Continuation);
        let mut out = Outgoing::default();
        server.data(&mut out, text, &Bytes::from_static(b"Hello"));
        client.data(&mut out, text, &Bytes::from_static(b"Hello"));
        server.data(&mut out, first, &Bytes::from_static(b"Hel"));
        server.data(&mut out, rest, &Bytes::from_static(b"lo"));
        out.write(|buffer| client.frame(buffer, Head::whole(OpCode::Pong), b"Hello"));
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
            server.data(&mut out, Head::whole(OpCode::Binary), &vec![7; len].into());
            let encoded = bytes(out);
            assert_eq!(&encoded[..header.len()], header);
            assert_eq!(encoded.len(), header.len() + len);
        }
    }

    #[cfg(feature = "deflate")]
    #[test]
    fn a_payload_that_is_made_in_place_gets_the_header_of_its_size() {
        // RFC 7692 §7.2.3.1
        let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        let client = Encoder::new(Role::Client).with_keys(|| [0x37, 0xfa, 0x21, 0x3d]);
        let text = Head::whole(OpCode::Text);
        let large = vec![7; 70_000];
        for (encoder, payload) in [
            (Encoder::new(Role::Server), &hello[..]),
            (client, &hello),
            (Encoder::new(Role::Server), &[7; 300]),
            (client, &large),
        ] {
            let (mut made, mut known) = (Outgoing::default(), Outgoing::default());
            for out in [&mut made, &mut known] {
                out.write(|buffer| buffer.extend_from_slice(b"before"));
            }
            assert!(encoder.made(&mut made, text.compressed(), |buffer| {
                buffer.extend_from_slice(payload);
                true
            }));
            assert!(!encoder.made(&mut made, text, |_| false));
            known.write(|buffer| encoder.frame(buffer, text.compressed(), payload));
            assert_eq!(bytes(made), bytes(known));
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
