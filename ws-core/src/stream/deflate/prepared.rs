//! A message compressed once for many connections.

use bytes::Bytes;

use super::{
    compressor::{Outcome, Settings},
    pool::Pool,
};
use crate::Compress;

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
    /// Compresses a message, if it shrinks or has to be. Of `settings` the window and the level
    /// count.
    pub(crate) fn new(
        message: &[u8],
        compress: Compress,
        settings: Settings,
        pool: &Pool,
    ) -> Option<Self> {
        let must_shrink = compress == Compress::Auto;
        if compress == Compress::Never || must_shrink && message.len() < 2 {
            return None;
        }
        let window_bits = settings.window_bits;
        let mut compressor = pool.compressor(window_bits, settings.level);
        let mut payload = Vec::new();
        let outcome = compressor.compress(message, must_shrink, &mut payload);
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
