//! Decompression of what arrives: RFC 7692 §7.2.2.

use std::fmt;

use flate2::{Decompress, FlushDecompress, Status};

use super::{TAIL, compressor::difference, pool::Pool};
use crate::ProtocolError;

/// Decompresses the messages of one direction of one connection.
///
/// A message may come in any number of pieces. A state is lent from the pool from its first byte
/// to its end; between messages there is nothing, or, if the peer's context takeover was
/// negotiated, the bytes of its window.
pub(crate) struct Inflater {
    pool: Pool,
    /// Lent while a message is under way.
    state: Option<Box<Decompressor>>,
    /// The last bytes of earlier messages, at most `window_size`.
    window: Vec<u8>,
    /// What of earlier messages the peer may refer to, in bytes.
    window_size: usize,
}

impl Inflater {
    /// For a peer that was told, or has said, that it takes no context over (RFC 7692 §7.1.1).
    pub(crate) fn new(pool: Pool) -> Self {
        Self::with_window_size(pool, 0)
    }

    /// For a peer that refers to its earlier messages, with a window whose base-2 logarithm is
    /// `window_bits`: 8 to 15, and the nearest of them for anything else (RFC 7692 §7.1.2).
    ///
    /// It costs that many bytes for each connection, from the first messages on.
    pub(crate) fn with_context(pool: Pool, window_bits: u8) -> Self {
        Self::with_window_size(pool, 1 << window_bits.clamp(8, 15))
    }

    fn with_window_size(pool: Pool, window_size: usize) -> Self {
        Self {
            pool,
            state: None,
            window: Vec::new(),
            window_size,
        }
    }

    /// Decompresses a piece of a message's payload, cut anywhere, behind what is in `message`.
    ///
    /// `message` is the message and nothing else: empty before the first piece, and the same for
    /// all of them. It grows with what comes out, never beyond `limit` + 1 bytes, and after an
    /// error it holds what came out before.
    ///
    /// # Errors
    ///
    /// It is beyond the limit or not DEFLATE. Nothing that follows makes sense then.
    pub(crate) fn push(
        &mut self,
        compressed: &[u8],
        message: &mut Vec<u8>,
        limit: usize,
    ) -> Result<(), ProtocolError> {
        if compressed.is_empty() {
            return Ok(());
        }
        let mut state = match self.state.take() {
            Some(state) => state,
            None => self.spare()?,
        };
        let result = state.inflate(compressed, message, limit, &self.window);
        if result.is_ok() {
            self.state = Some(state);
        } else {
            self.pool.take_decompressor(state);
        }
        result
    }

    /// Ends the message: after the last piece of its last frame.
    ///
    /// # Errors
    ///
    /// Those of [`push`](Self::push).
    pub(crate) fn finish(
        &mut self,
        message: &mut Vec<u8>,
        limit: usize,
    ) -> Result<(), ProtocolError> {
        // A payload of no bytes at all is not what RFC 7692 §7.2.3.6 makes of an empty message,
        // but it is what senders make of it that cut the tail off a flush that wrote nothing.
        let Some(mut state) = self.state.take() else {
            return Ok(());
        };
        let result = state.finish(message, limit, &self.window);
        if result.is_ok() {
            self.keep_window(state.made(message));
            // A buffer that grew by doubling may be half empty, and messages are kept in queues.
            if message.capacity() - message.len() > message.len() / 4 {
                message.shrink_to_fit();
            }
        }
        self.pool.take_decompressor(state);
        result
    }

    /// Forgets everything: nothing more comes.
    pub(super) fn stop(&mut self) {
        if let Some(state) = self.state.take() {
            self.pool.take_decompressor(state);
        }
        self.window = Vec::new();
    }

    #[cfg(test)]
    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    #[cfg(test)]
    pub(super) fn window_capacity(&self) -> usize {
        self.window.capacity()
    }

    fn spare(&self) -> Result<Box<Decompressor>, ProtocolError> {
        let mut state = self.pool.decompressor();
        state.set_window(&self.window)?;
        Ok(state)
    }

    fn keep_window(&mut self, made: &[u8]) {
        let fresh = last(made, self.window_size);
        let surplus = (self.window.len() + fresh.len()).saturating_sub(self.window_size);
        self.window.drain(..surplus.min(self.window.len()));
        let len = self.window.len() + fresh.len();
        if self.window.capacity() < len {
            let capacity = len.max(2 * self.window.capacity()).min(self.window_size);
            self.window.reserve_exact(capacity - self.window.len());
        }
        self.window.extend_from_slice(fresh);
    }
}

impl Drop for Inflater {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater")
            .field("message_under_way", &self.state.is_some())
            .field("window", &self.window.len())
            .field("window_size", &self.window_size)
            .finish_non_exhaustive()
    }
}

/// One zlib state with a window of 15 bits, which reads what any smaller one has written, and the
/// buffer that it writes to.
///
/// The buffer is there because flate2 zeroes whatever uninitialised room it is given, and so that
/// a message of that size is allocated once and exactly.
pub(crate) struct Decompressor {
    zlib: Decompress,
    chunk: Box<[u8]>,
    /// How much of the message has come out.
    made: usize,
    /// Whether a final block has ended, and nothing came behind it yet.
    ended: bool,
    /// Final blocks with something behind them.
    restarts: usize,
}

impl Decompressor {
    pub(super) fn new() -> Self {
        Self {
            zlib: Decompress::new_with_window_bits(false, MAX_WINDOW_BITS),
            chunk: vec![0; CHUNK].into_boxed_slice(),
            made: 0,
            ended: false,
            restarts: 0,
        }
    }

    pub(super) fn reset(&mut self) {
        self.zlib.reset(false);
        self.made = 0;
        self.ended = false;
        self.restarts = 0;
    }

    fn set_window(&mut self, window: &[u8]) -> Result<(), ProtocolError> {
        if window.is_empty() {
            return Ok(());
        }
        match self.zlib.set_dictionary(window) {
            Ok(_) => Ok(()),
            Err(_) => Err(ProtocolError::InvalidDeflate),
        }
    }

    /// The part of `message` that came out of this.
    fn made<'message>(&self, message: &'message [u8]) -> &'message [u8] {
        last(message, self.made)
    }

    fn inflate(
        &mut self,
        mut input: &[u8],
        message: &mut Vec<u8>,
        limit: usize,
        window: &[u8],
    ) -> Result<(), ProtocolError> {
        loop {
            if self.ended {
                if input.is_empty() {
                    return Ok(());
                }
                self.restart(message, window)?;
            }
            // One byte beyond the limit, so that a message of just that size can end.
            let room = limit.saturating_add(1).saturating_sub(message.len());
            let room = room.min(self.chunk.len());
            let (taken, made, is_valid) = self.step(input, room);
            append(message, self.chunk.get(..made).unwrap_or_default(), limit);
            self.made += made;
            if message.len() > limit {
                return Err(too_big(limit));
            }
            if !is_valid {
                return Err(ProtocolError::InvalidDeflate);
            }
            input = input.get(taken..).unwrap_or_default();
            if input.is_empty() && made < room {
                return Ok(());
            }
            if taken == 0 && made == 0 && !self.ended {
                return Err(ProtocolError::InvalidDeflate);
            }
        }
    }

    /// One call of zlib: how much it took, how much lies in `chunk`, and whether what it took is
    /// DEFLATE. What comes before that is not is there.
    fn step(&mut self, input: &[u8], room: usize) -> (usize, usize, bool) {
        let (total_in, total_out) = (self.zlib.total_in(), self.zlib.total_out());
        let chunk = self.chunk.get_mut(..room).unwrap_or_default();
        let result = self.zlib.decompress(input, chunk, FlushDecompress::Sync);
        self.ended = matches!(result, Ok(Status::StreamEnd));
        (
            difference(self.zlib.total_in(), total_in),
            difference(self.zlib.total_out(), total_out),
            result.is_ok(),
        )
    }

    /// Goes on behind a final block, with the window as it was: RFC 7692 §7.2.3.4 allows such
    /// blocks, and says nothing of a new window.
    #[cold]
    fn restart(&mut self, message: &[u8], window: &[u8]) -> Result<(), ProtocolError> {
        self.restarts += 1;
        if self.restarts > FREE_RESTARTS.max(self.made / BYTES_FOR_A_RESTART) {
            return Err(ProtocolError::TooManyFinalBlocks);
        }
        self.zlib.reset(false);
        self.ended = false;
        let made = last(self.made(message), 1 << MAX_WINDOW_BITS);
        let before = (1 << MAX_WINDOW_BITS) - made.len();
        self.set_window(last(window, before))?;
        self.set_window(made)
    }

    fn finish(
        &mut self,
        message: &mut Vec<u8>,
        limit: usize,
        window: &[u8],
    ) -> Result<(), ProtocolError> {
        if self.ended {
            // The sender of a final block should have put one more octet behind it
            // (RFC 7692 §7.2.3.4). Nothing is missing without.
            return Ok(());
        }
        // RFC 7692 §7.2.2: "Append 4 octets of 0x00 0x00 0xff 0xff to the tail end of the
        // payload of the message."
        let made = self.made;
        self.inflate(&TAIL, message, limit, window)?;
        // Now an empty block must have ended, or the message is cut short. zlib does not tell,
        // but nothing comes out of such a block, and where it has ended an empty final one is
        // read as what it is.
        if self.made != made {
            return Err(ProtocolError::InvalidDeflate);
        }
        if self.ended {
            return Ok(());
        }
        match self.step(EMPTY_FINAL_BLOCK, CHUNK) {
            (2, 0, true) if self.ended => Ok(()),
            _ => Err(ProtocolError::InvalidDeflate),
        }
    }
}

/// Appends to a message, which grows to twice its size, but never beyond what it may have.
fn append(message: &mut Vec<u8>, made: &[u8], limit: usize) {
    if message.capacity() - message.len() < made.len() {
        let len = message.len() + made.len();
        let doubled = message.capacity().saturating_mul(2);
        let capacity = doubled.min(limit.saturating_add(1)).max(len);
        message.reserve_exact(capacity - message.len());
    }
    message.extend_from_slice(made);
}

/// The rest was not decompressed.
pub(super) fn too_big(limit: usize) -> ProtocolError {
    ProtocolError::MessageTooBig {
        size: (limit as u64).saturating_add(1),
        max: limit,
    }
}

/// At most `len` bytes from the end.
fn last(bytes: &[u8], len: usize) -> &[u8] {
    bytes
        .get(bytes.len().saturating_sub(len)..)
        .unwrap_or_default()
}

const MAX_WINDOW_BITS: u8 = 15;

/// As much as a message that fits is likely to have. Larger ones go in steps of it.
const CHUNK: usize = 16 << 10;

/// The header of a final block with fixed codes, and the code of its end.
const EMPTY_FINAL_BLOCK: &[u8] = &[0x03, 0x00];

/// Going on behind a final block costs as much as decompressing some KiB, and takes two bytes to
/// ask for. Senders that use them write one for each flush; this bounds what a hostile one can
/// make of a frame.
const FREE_RESTARTS: usize = 256;

/// More are free where as much as this has come out for each.
const BYTES_FOR_A_RESTART: usize = 1 << 10;
