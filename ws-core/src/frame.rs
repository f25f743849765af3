//! Frames: the header of RFC 6455 §5.2, between bytes and values.
//!
//! The innermost of the three dolls. Bytes go in, a [`FrameHeader`] comes out, and back; the
//! rules that concern a single frame are checked here. It knows neither messages nor roles.
//!
//! ```text
//!   0               1               2               3
//!  +-+-+-+-+-------+-+-------------+-------------------------------+
//!  |F|R|R|R| opcode|M| Payload len |    Extended payload length    |
//!  |I|S|S|S|  (4)  |A|     (7)     |       16 bits if len is 126   |
//!  |N|V|V|V|       |S|             |       64 bits if len is 127   |
//!  | |1|2|3|       |K|             |                               |
//!  +-+-+-+-+-------+-+-------------+-------------------------------+
//!  |                       Masking key, if MASK                    |
//!  +---------------------------------------------------------------+
//! ```
//!
//! ```
//! use ws_core::frame::{FrameHeader, OpCode};
//!
//! let (header, len) = FrameHeader::parse(b"\x81\x05Hello")?.expect("a whole header");
//! assert_eq!((header.opcode, header.payload_len, len), (OpCode::Text, 5, 2));
//! assert_eq!(FrameHeader::parse(b"\x81")?, None);
//! # Ok::<(), ws_core::ProtocolError>(())
//! ```

use crate::ProtocolError;

pub mod mask;

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const RSV2_RSV3: u8 = 0x30;
const OPCODE: u8 = 0x0f;
const MASK: u8 = 0x80;
const LEN: u8 = 0x7f;
/// Seven-bit lengths that announce a 16-bit and a 64-bit length behind them.
const LEN_16: u8 = 126;
const LEN_64: u8 = 127;

/// The largest payload of a control frame, in bytes (RFC 6455 §5.5).
pub const MAX_CONTROL_PAYLOAD: usize = 125;

/// The kind of a frame (RFC 6455 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(
    clippy::exhaustive_enums,
    reason = "RFC 6455 §5.2 reserves all other opcodes, and they are refused"
)]
pub enum OpCode {
    /// 0: the next fragment of a message.
    Continuation = 0,
    /// 1: a text message or its first fragment.
    Text = 1,
    /// 2: a binary message or its first fragment.
    Binary = 2,
    /// 8: the closing handshake.
    Close = 8,
    /// 9: asks for a pong.
    Ping = 9,
    /// 10: answers a ping.
    Pong = 10,
}

impl OpCode {
    /// Whether frames of this kind are control frames (RFC 6455 §5.5).
    pub const fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

impl TryFrom<u8> for OpCode {
    type Error = ProtocolError;

    fn try_from(opcode: u8) -> Result<Self, ProtocolError> {
        Ok(match opcode {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return Err(ProtocolError::ReservedOpcode(opcode)),
        })
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "these are the fields of RFC 6455 §5.2"
)]
pub struct FrameHeader {
    /// Whether this is the last fragment of a message.
    pub fin: bool,
    /// The first reserved bit, which permessage-deflate uses (RFC 7692 §6). The other two are
    /// always refused.
    pub rsv1: bool,
    /// The kind of the frame.
    pub opcode: OpCode,
    /// The masking key, on frames of a client.
    pub mask: Option<[u8; 4]>,
    /// The size of the payload in bytes, less than 2^63.
    pub payload_len: u64,
}

impl FrameHeader {
    /// The longest header, in bytes.
    pub const MAX_LEN: usize = 14;

    /// Parses the header at the beginning of `input`, and says how many bytes it took. `None`
    /// when more bytes are needed.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`] as soon as the bytes at hand break a rule: RSV2 or RSV3, a reserved
    /// opcode, a fragmented or too long control frame, a length that is not minimal or has its
    /// top bit set.
    #[inline]
    pub fn parse(input: &[u8]) -> Result<Option<(Self, usize)>, ProtocolError> {
        let Some((&first, rest)) = input.split_first() else {
            return Ok(None);
        };
        // RFC 6455 §5.2: "If a nonzero value is received and none of the negotiated extensions
        // defines the meaning of such a nonzero value, the receiving endpoint MUST _Fail the
        // WebSocket Connection_." No registered extension uses RSV2 or RSV3.
        if first & RSV2_RSV3 != 0 {
            return Err(ProtocolError::ReservedBits);
        }
        let opcode = OpCode::try_from(first & OPCODE)?;
        let fin = first & FIN != 0;
        let rsv1 = first & RSV1 != 0;
        if opcode.is_control() {
            if !fin {
                return Err(ProtocolError::FragmentedControlFrame);
            }
            if rsv1 {
                return Err(ProtocolError::ReservedBits);
            }
        }
        let Some((&second, rest)) = rest.split_first() else {
            return Ok(None);
        };
        if opcode.is_control() && second & LEN > 125 {
            return Err(ProtocolError::ControlFrameTooLong);
        }
        let (payload_len, rest) = match second & LEN {
            LEN_16 => {
                let Some((bytes, rest)) = rest.split_first_chunk() else {
                    return Ok(None);
                };
                let len = u64::from(u16::from_be_bytes(*bytes));
                // §5.2: "the minimal number of bytes MUST be used to encode the length"
                if len < u64::from(LEN_16) {
                    return Err(ProtocolError::NonMinimalLength);
                }
                (len, rest)
            }
            LEN_64 => {
                let Some((bytes, rest)) = rest.split_first_chunk() else {
                    return Ok(None);
                };
                let len = u64::from_be_bytes(*bytes);
                if len >> 63 != 0 {
                    return Err(ProtocolError::LengthOverflow);
                }
                if u16::try_from(len).is_ok() {
                    return Err(ProtocolError::NonMinimalLength);
                }
                (len, rest)
            }
            len => (u64::from(len), rest),
        };
        let (mask, rest) = if second & MASK == 0 {
            (None, rest)
        } else {
            let Some((key, rest)) = rest.split_first_chunk() else {
                return Ok(None);
            };
            (Some(*key), rest)
        };
        let header = Self {
            fin,
            rsv1,
            opcode,
            mask,
            payload_len,
        };
        Ok(Some((header, input.len() - rest.len())))
    }

    /// Appends the header to `out`, with the length in as few bytes as it needs.
    ///
    /// It writes what it is told: a control frame with a payload of more than 125 bytes or
    /// without FIN is the caller's mistake.
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>) {
        let first =
            self.opcode as u8 | if self.fin { FIN } else { 0 } | if self.rsv1 { RSV1 } else { 0 };
        let mask = if self.mask.is_some() { MASK } else { 0 };
        if let Ok(len @ 0..=125) = u8::try_from(self.payload_len) {
            out.extend_from_slice(&[first, mask | len]);
        } else if let Ok(len) = u16::try_from(self.payload_len) {
            let [high, low] = len.to_be_bytes();
            out.extend_from_slice(&[first, mask | LEN_16, high, low]);
        } else {
            out.extend_from_slice(&[first, mask | LEN_64]);
            out.extend_from_slice(&self.payload_len.to_be_bytes());
        }
        if let Some(key) = self.mask {
            out.extend_from_slice(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(opcode: OpCode, payload_len: u64) -> FrameHeader {
        FrameHeader {
            fin: true,
            rsv1: false,
            opcode,
            mask: None,
            payload_len,
        }
    }

    #[test]
    fn every_length_boundary_round_trips_in_minimal_form() {
        for (len, bytes) in [
            (0, 2),
            (125, 2),
            (126, 4),
            (127, 4),
            (0xffff, 4),
            (0x1_0000, 10),
            (u64::MAX >> 1, 10),
        ] {
            for mask in [None, Some([1, 2, 3, 4])] {
                let header = FrameHeader {
                    mask,
                    ..header(OpCode::Binary, len)
                };
                let mut out = Vec::new();
                header.encode(&mut out);
                assert_eq!(out.len(), bytes + mask.map_or(0, |_| 4));
                assert_eq!(
                    FrameHeader::parse(&out),
                    Ok(Some((header, out.len()))),
                    "{len}"
                );
                for cut in 0..out.len() {
                    assert_eq!(FrameHeader::parse(&out[..cut]), Ok(None), "{len} at {cut}");
                }
            }
        }
    }

    #[test]
    fn all_first_bytes_are_judged_as_the_rfc_says() {
        for first in 0..=u8::MAX {
            let parsed = FrameHeader::parse(&[first, 0]);
            let known = matches!(first & 0x0f, 0..=2 | 8..=10);
            let control = first & 0x08 != 0;
            let legal = first & 0x30 == 0 && known && (!control || first & 0xc0 == 0x80);
            assert_eq!(parsed.is_ok(), legal, "{first:#x}");
            // A rule that the first byte breaks is not left until the second arrives.
            assert_eq!(FrameHeader::parse(&[first]).is_ok(), legal, "{first:#x}");
        }
    }

    #[test]
    fn a_length_in_too_many_bytes_is_refused() {
        for input in [
            &b"\x82\x7e\x00\x7d"[..],
            b"\x82\x7e\x00\x00",
            b"\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff",
        ] {
            assert_eq!(
                FrameHeader::parse(input),
                Err(ProtocolError::NonMinimalLength)
            );
        }
    }

    #[test]
    fn a_length_with_its_top_bit_set_is_refused() {
        assert_eq!(
            FrameHeader::parse(b"\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00"),
            Err(ProtocolError::LengthOverflow)
        );
    }

    #[test]
    fn a_control_frame_has_at_most_125_bytes() {
        assert!(FrameHeader::parse(b"\x89\x7d").is_ok());
        for len in [0x7e, 0x7f, 0xfe, 0xff] {
            assert_eq!(
                FrameHeader::parse(&[0x89, len]),
                Err(ProtocolError::ControlFrameTooLong)
            );
        }
    }
}
