//! A message compressed once for many connections.

use bytes::Bytes;

use super::{compressor::Outcome, pool::Pool};

/// The payload of a message that was compressed from a fresh context.
///
/// It refers to nothing but itself, so it may be sent on any connection that has negotiated
/// compression with a window that [covers](Self::fits) it. That connection must then
/// [forget](super::Deflater::forget) its own context.
#[derive(Clone, Debug)]
pub(crate) struct Deflated {
    payload: Bytes,
    /// No distance in it is larger.
    reach: usize,
}

impl Deflated {
    /// Compresses a message, if it shrinks. `window_bits` and `level` as in
    /// [`Settings`](super::Settings).
    pub(crate) fn new(message: &[u8], window_bits: u8, level: u8, pool: &Pool) -> Option<Self> {
        let mut compressor = pool.compressor(window_bits, level);
        let mut payload = Vec::new();
        let outcome = if message.len() < 2 {
            Outcome::NotWorthIt
        } else {
            compressor.compress(message, true, &mut payload)
        };
        pool.take_compressor(compressor);
        (outcome == Outcome::Compressed).then(|| Self {
            payload: payload.into(),
            reach: message.len().min(1 << window_bits.clamp(8, 15)),
        })
    }

    /// Whether the window of a connection, as its base-2 logarithm, is large enough for it.
    pub(crate) fn fits(&self, window_bits: u8) -> bool {
        self.reach <= 1 << window_bits.clamp(8, 15)
    }

    /// The payload, to be sent with RSV1 on its first frame.
    pub(crate) fn payload(&self) -> &Bytes {
        &self.payload
    }
}
