//! Compression of what is sent: RFC 7692 §7.2.1.

use std::fmt;

use flate2::{Compression, FlushCompress};

use super::{TAIL, pool::Pool};
use crate::Compress;

/// How a connection compresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The negotiated size of our window, as its base-2 logarithm: 8 to 15, and the nearest of
    /// them for anything else (RFC 7692 §7.1.2).
    pub(crate) window_bits: u8,
    /// 1, the fastest, to 9, the smallest, and the nearest of them for anything else.
    pub(crate) level: u8,
    /// The size in bytes from which on a message is compressed unless asked otherwise.
    pub(crate) min_size: usize,
    /// What a message may refer to.
    pub(crate) context: Context,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            window_bits: 15,
            level: 1,
            min_size: 256,
            context: Context::Elastic,
        }
    }
}

/// What a compressed message may refer to (RFC 7692 §7.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Context {
    /// Earlier messages, as long as the connection is busy and the pool lets it keep its
    /// compressor. The peer cannot tell: a message need not refer to anything.
    Elastic,
    /// Nothing but itself: our `no_context_takeover` was negotiated.
    Fresh,
}

/// What came of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a compressed message needs the bit RSV1, and must be sent"]
pub(crate) enum Outcome {
    /// The payload was appended. It must be sent, with RSV1 on its first frame, and in the order
    /// of compression: the next message may refer to it.
    Compressed,
    /// Nothing was appended: send the message as it is, without RSV1.
    NotWorthIt,
}

/// Compresses the messages of one direction of one connection.
pub(crate) struct Deflater {
    pool: Pool,
    settings: Settings,
    /// Kept from the last message. It has seen nothing that the peer has not.
    kept: Option<Box<Compressor>>,
    /// Messages since the last [`tick`](Self::tick).
    messages: u8,
}

impl Deflater {
    pub(crate) fn new(pool: Pool, settings: Settings) -> Self {
        Self {
            pool,
            settings,
            kept: None,
            messages: 0,
        }
    }

    /// Compresses a whole message behind what is in `payload`.
    pub(crate) fn compress(
        &mut self,
        message: &[u8],
        compress: Compress,
        payload: &mut Vec<u8>,
    ) -> Outcome {
        let must_shrink = compress == Compress::Auto;
        if compress == Compress::Never
            || must_shrink && message.len() < self.settings.min_size.max(2)
        {
            return Outcome::NotWorthIt;
        }
        self.messages = self.messages.saturating_add(1);
        let start = payload.len();
        let (mut compressor, kept) = match self.kept.take() {
            Some(compressor) => (compressor, true),
            None => (self.spare(), false),
        };
        if compressor.compress(message, must_shrink, payload) == Outcome::NotWorthIt {
            payload.truncate(start);
            // It has seen what the peer will not: the next message starts afresh.
            if kept {
                self.pool.take_kept(compressor);
            } else {
                self.pool.take_compressor(compressor);
            }
            return Outcome::NotWorthIt;
        }
        match self.settings.context {
            Context::Elastic if kept => self.kept = Some(compressor),
            Context::Elastic => self.kept = self.pool.keep(compressor),
            Context::Fresh => self.pool.take_compressor(compressor),
        }
        Outcome::Compressed
    }

    /// Compresses a piece of a message that is sent in fragments, behind what is in `payload`:
    /// each piece is a frame, the first one has RSV1, and all of them must be sent.
    ///
    /// Whether it pays is not asked, because the size of the message is not known.
    pub(crate) fn compress_fragment(&mut self, piece: &[u8], fin: bool, payload: &mut Vec<u8>) {
        let start = payload.len();
        if self.compress(piece, Compress::Always, payload) == Outcome::NotWorthIt {
            payload.truncate(start);
            store(piece, payload);
        }
        if !fin {
            // Removed from the end of the message only (RFC 7692 §7.2.1).
            payload.extend_from_slice(&TAIL);
        }
    }

    /// Forgets what was sent, as is right at any time. It must be called when a compressed
    /// message has been sent that this did not compress: the peer's window holds it, ours would
    /// not.
    pub(crate) fn forget(&mut self) {
        if let Some(compressor) = self.kept.take() {
            self.pool.take_kept(compressor);
        }
    }

    /// Gives the compressor back if the connection was not busy since the last tick.
    pub(crate) fn tick(&mut self) {
        if self.messages < BUSY
            && let Some(compressor) = self.kept.take()
        {
            self.pool.take_idle(compressor);
        }
        self.messages = 0;
    }

    /// Whether the next message may refer to earlier ones.
    pub(super) fn keeps_context(&self) -> bool {
        self.kept.is_some()
    }

    pub(super) fn settings(&self) -> Settings {
        self.settings
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    fn spare(&self) -> Box<Compressor> {
        self.pool
            .compressor(self.settings.window_bits, self.settings.level)
    }
}

impl Drop for Deflater {
    fn drop(&mut self) {
        self.forget();
    }
}

impl fmt::Debug for Deflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deflater")
            .field("settings", &self.settings)
            .field("keeps_context", &self.kept.is_some())
            .finish_non_exhaustive()
    }
}

/// One zlib state, with the buffer that it writes to.
///
/// The buffer is there because flate2 zeroes whatever uninitialised room it is given.
pub(crate) struct Compressor {
    zlib: flate2::Compress,
    window_bits: u8,
    level: u8,
    chunk: Box<[u8]>,
    /// Whether zlib holds nothing back: all it was given has come out.
    is_flushed: bool,
}

impl Compressor {
    pub(super) fn new(window_bits: u8, level: u8) -> Self {
        let (window_bits, level) = normal(window_bits, level);
        Self {
            zlib: flate2::Compress::new_with_window_bits(
                Compression::new(u32::from(level)),
                false,
                window_bits,
            ),
            window_bits,
            level,
            chunk: vec![0; CHUNK].into_boxed_slice(),
            is_flushed: true,
        }
    }

    /// Whether it can be used again after a reset. zlib-rs 0.6.8 does not reset everything while
    /// output is pending: it panics later, or leaves a block's header out.
    pub(super) fn is_reusable(&self) -> bool {
        self.is_flushed
    }

    pub(super) fn fits(&self, window_bits: u8, level: u8) -> bool {
        (self.window_bits, self.level) == normal(window_bits, level)
    }

    /// Whether one serves as well as the other.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        (self.window_bits, self.level) == (other.window_bits, other.level)
    }

    /// Where it lies in memory, more or less: the buffer was allocated right behind the state.
    pub(super) fn place(&self) -> usize {
        self.chunk.as_ptr().addr()
    }

    pub(super) fn reset(&mut self) {
        self.zlib.reset();
    }

    /// After anything but [`Outcome::Compressed`] it has to be reset, and `payload` truncated.
    pub(super) fn compress(
        &mut self,
        message: &[u8],
        must_shrink: bool,
        payload: &mut Vec<u8>,
    ) -> Outcome {
        if message.is_empty() {
            // RFC 7692 §7.2.3.6. zlib has nothing to flush when nothing is new.
            payload.push(0x00);
            return Outcome::Compressed;
        }
        let start = payload.len();
        let max = if must_shrink {
            start + message.len() - 1 + TAIL.len()
        } else {
            usize::MAX
        };
        let mut rest = message;
        if must_shrink
            && message.len() >= TRIAL_FROM
            && let Some((trial, behind)) = message.split_at_checked(TRIAL)
        {
            rest = behind;
            if !self.flush(trial, payload, max) || payload.len() - start > TRIAL - TRIAL / 32 {
                return Outcome::NotWorthIt;
            }
        }
        // RFC 7692 §7.2.1: "Remove 4 octets (that are 0x00 0x00 0xff 0xff) from the tail end."
        if self.flush(rest, payload, max) && payload.ends_with(&TAIL) {
            payload.truncate(payload.len() - TAIL.len());
            Outcome::Compressed
        } else {
            Outcome::NotWorthIt
        }
    }

    /// Compresses `input` up to a byte boundary. `false`: it failed, or became too much.
    ///
    /// What is too much is not kept, but zlib is driven to the end all the same, so that it is
    /// [reusable](Self::is_reusable): with `max` near the size of `input` the end is near.
    fn flush(&mut self, mut input: &[u8], payload: &mut Vec<u8>, max: usize) -> bool {
        self.is_flushed = false;
        let mut fits = true;
        loop {
            let (total_in, total_out) = (self.zlib.total_in(), self.zlib.total_out());
            let result = self
                .zlib
                .compress(input, &mut self.chunk, FlushCompress::Sync);
            if result.is_err() {
                return false;
            }
            let taken = difference(self.zlib.total_in(), total_in);
            let made = difference(self.zlib.total_out(), total_out);
            input = input.get(taken..).unwrap_or_default();
            fits = fits && payload.len() + made <= max;
            if fits {
                payload.extend_from_slice(self.chunk.get(..made).unwrap_or_default());
            }
            // Where the room was used up exactly, more may be waiting: zlib says so by being
            // asked again, and answers with nothing, or with one more empty block.
            if made < self.chunk.len() && (input.is_empty() || taken == 0) {
                self.is_flushed = input.is_empty();
                return fits && input.is_empty();
            }
        }
    }
}

/// What is left to do if zlib fails amid a message that has begun compressed: blocks without
/// compression (RFC 1951 §3.2.4), and an empty one, whose rest is the tail.
pub(super) fn store(piece: &[u8], payload: &mut Vec<u8>) {
    for block in piece.chunks(usize::from(u16::MAX)) {
        let len = u16::try_from(block.len()).unwrap_or(u16::MAX);
        payload.push(0x00);
        payload.extend_from_slice(&len.to_le_bytes());
        payload.extend_from_slice(&(!len).to_le_bytes());
        payload.extend_from_slice(block);
    }
    payload.push(0x00);
}

/// What zlib makes of these parameters.
fn normal(window_bits: u8, level: u8) -> (u8, u8) {
    // zlib has no window of 8 bits. One of 9 serves, because it reaches back 2^9 - 262 = 250
    // bytes and no further, so within the 256 that the peer was promised.
    (window_bits.clamp(9, 15), level.clamp(1, 9))
}

pub(super) fn difference(after: u64, before: u64) -> usize {
    // A single call moves no more than a slice holds.
    usize::try_from(after.saturating_sub(before)).unwrap_or(usize::MAX)
}

/// From this many messages between two ticks on, a connection is busy enough to keep one of the
/// few compressors. With the default keepalive a tick comes every five seconds.
const BUSY: u8 = 16;

/// Room for what a message of 16 to 32 KiB becomes.
const CHUNK: usize = 8 << 10;

/// From this size on, the beginning of a message is tried before the whole of it: pictures and
/// archives then cost 0.1 ms and not 5 ms for each MiB.
const TRIAL_FROM: usize = 64 << 10;

/// How much is tried. It must shrink by one part in 32.
const TRIAL: usize = 16 << 10;
