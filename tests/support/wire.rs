//! Frames as bytes.

use ws_core::frame::{FrameHeader, OpCode};

/// A frame, written by the letter of RFC 6455 §5.2: the first byte as it is, the shortest length,
/// the payload masked byte by byte.
pub fn frame(first: u8, key: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mask = if key.is_some() { 0x80 } else { 0 };
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(mask | u8::try_from(len).expect("at most 125")),
        len @ 126..=0xffff => {
            frame.push(mask | 0x7e);
            frame.extend_from_slice(&u16::try_from(len).expect("16 bits").to_be_bytes());
        }
        len => {
            frame.push(mask | 0x7f);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    match key {
        Some(key) => {
            frame.extend_from_slice(&key);
            frame.extend(payload.iter().zip(key.iter().cycle()).map(|(b, k)| b ^ k));
        }
        None => frame.extend_from_slice(payload),
    }
    frame
}

/// Takes a stream of frames apart, however it was cut.
#[derive(Debug, Default)]
pub struct Frames {
    pending: Vec<u8>,
}

impl Frames {
    /// Appends bytes of the stream.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// Whether the stream ends within a frame.
    pub fn is_cut(&self) -> bool {
        !self.pending.is_empty()
    }
}

impl Iterator for Frames {
    type Item = (FrameHeader, Vec<u8>);

    /// The next whole frame, its payload unmasked.
    fn next(&mut self) -> Option<Self::Item> {
        let parsed = FrameHeader::parse(&self.pending).expect("the engine writes valid headers");
        let (header, len) = parsed?;
        let end = len + usize::try_from(header.payload_len).expect("a frame fits into memory");
        if self.pending.len() < end {
            return None;
        }
        let mut payload: Vec<u8> = self.pending.drain(..end).skip(len).collect();
        if let Some(key) = header.mask {
            for (byte, key) in payload.iter_mut().zip(key.iter().cycle()) {
                *byte ^= key;
            }
        }
        Some((header, payload))
    }
}

/// All frames of a stream, with their opcodes and payloads.
pub fn frames(bytes: &[u8]) -> Vec<(OpCode, Vec<u8>)> {
    let mut frames = Frames::default();
    frames.extend(bytes);
    let all = frames
        .by_ref()
        .map(|(header, payload)| (header.opcode, payload))
        .collect();
    assert!(!frames.is_cut(), "the stream ends within a frame");
    all
}
