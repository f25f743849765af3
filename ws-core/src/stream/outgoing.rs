//! The queue of encoded bytes.
//!
//! Headers and small payloads lie in one buffer, so that a turn of many messages is one
//! contiguous write. A large payload is not copied: it is kept by reference, with the place in
//! the buffer where it belongs.

use std::{collections::VecDeque, io::IoSlice, mem};

use bytes::{Buf, Bytes};

use crate::connection::Scratch;

/// Payloads of at least this size are queued by reference: below, a copy costs less than another
/// entry of a vectored write.
pub(crate) const BY_REFERENCE: usize = 16 << 10;

/// From this many written bytes on, they are worth moving the rest to the front.
const COMPACT: usize = 16 << 10;

/// Encoded frames on their way out: an owned [`Buf`], with vectored access.
#[derive(Debug, Default)]
pub struct Outgoing {
    buffer: Vec<u8>,
    /// How much of `buffer` is gone.
    start: usize,
    /// In a box, because a queue mostly has none.
    references: Option<Box<References>>,
}

/// Payloads kept by reference, each before the byte of the buffer at its place.
#[derive(Debug, Default)]
struct References {
    queue: VecDeque<(usize, Bytes)>,
    len: usize,
}

impl Outgoing {
    /// Appends frames encoded by `write`.
    #[inline]
    pub(crate) fn write<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        self.compact();
        write(&mut self.buffer)
    }

    /// Appends a payload by reference.
    pub(crate) fn push(&mut self, payload: Bytes) {
        let references = self.references.get_or_insert_default();
        references.len += payload.len();
        references.queue.push_back((self.buffer.len(), payload));
    }

    /// Puts bytes in front of everything else.
    pub(crate) fn push_front(&mut self, bytes: Bytes) {
        let references = self.references.get_or_insert_default();
        references.len += bytes.len();
        references.queue.push_front((self.start, bytes));
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        let references = self
            .references
            .as_ref()
            .map_or(0, |references| references.len);
        self.buffer.len() - self.start + references
    }

    /// Gives the queue an empty buffer to write into, if it has none.
    #[inline]
    pub(crate) fn lend(&mut self, buffer: &mut Vec<u8>) {
        if self.len() == 0 && self.buffer.capacity() < buffer.capacity() {
            debug_assert!(buffer.is_empty());
            self.buffer.clear();
            self.start = 0;
            mem::swap(&mut self.buffer, buffer);
        }
    }

    /// Gives the buffer of an empty queue back.
    #[inline]
    pub fn release(&mut self, scratch: &mut Scratch) {
        if self.len() == 0 && self.buffer.capacity() > 0 {
            self.start = 0;
            let mut buffer = mem::take(&mut self.buffer);
            buffer.clear();
            scratch.keep_bytes(buffer);
        }
    }

    /// Copies everything into one contiguous piece, for a transport without vectored writes.
    pub fn coalesce(&mut self) {
        if self.references.is_none() {
            return;
        }
        let mut buffer = Vec::with_capacity(self.len());
        while self.has_remaining() {
            let chunk = self.chunk();
            let len = chunk.len();
            buffer.extend_from_slice(chunk);
            self.advance(len);
        }
        self.start = 0;
        self.buffer = buffer;
    }

    /// Forgets what is gone from the buffer, for a queue that never becomes empty would grow for
    /// ever. No more bytes are moved than are forgotten, so that it stays linear.
    #[inline]
    fn compact(&mut self) {
        let is_used_up = self.start == self.buffer.len();
        if self.start > 0 && (is_used_up || self.start >= COMPACT.max(self.buffer.len() / 2)) {
            self.buffer.drain(..self.start);
            if let Some(references) = &mut self.references {
                for (place, _) in &mut references.queue {
                    *place -= self.start;
                }
            }
            self.start = 0;
        }
    }

    /// Where the buffer's next contiguous piece ends.
    fn piece_end(&self) -> usize {
        self.next_reference()
            .map_or(self.buffer.len(), |(place, _)| *place)
    }

    #[inline]
    fn next_reference(&self) -> Option<&(usize, Bytes)> {
        self.references.as_ref()?.queue.front()
    }
}

impl Buf for Outgoing {
    #[inline]
    fn remaining(&self) -> usize {
        self.len()
    }

    fn chunk(&self) -> &[u8] {
        match self.next_reference() {
            Some((place, payload)) if *place <= self.start => payload,
            _ => self
                .buffer
                .get(self.start..self.piece_end())
                .unwrap_or_default(),
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut start = self.start;
        let mut filled = 0;
        let references = self.references.iter();
        let mut references = references
            .flat_map(|references| &references.queue)
            .peekable();
        for slot in slices {
            let chunk: &[u8] = match references.peek() {
                Some((place, payload)) if *place <= start => {
                    references.next();
                    payload
                }
                next => {
                    let end = next.map_or(self.buffer.len(), |(place, _)| *place);
                    let piece = self.buffer.get(start..end).unwrap_or_default();
                    start = end;
                    piece
                }
            };
            if chunk.is_empty() {
                break;
            }
            *slot = IoSlice::new(chunk);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        debug_assert!(count <= self.len());
        while count > 0 {
            let piece = count.min(self.piece_end() - self.start);
            self.start += piece;
            count -= piece;
            let Some(references) = &mut self.references else {
                return;
            };
            let Some((place, payload)) = references.queue.front_mut() else {
                return;
            };
            if *place > self.start {
                return;
            }
            let piece = count.min(payload.len());
            payload.advance(piece);
            references.len -= piece;
            count -= piece;
            if payload.is_empty() {
                references.queue.pop_front();
                if references.queue.is_empty() {
                    self.references = None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Outgoing, Vec<u8>) {
        let mut out = Outgoing::default();
        out.write(|buffer| buffer.extend_from_slice(b"abc"));
        out.push(Bytes::from_static(b"DEFG"));
        out.push(Bytes::from_static(b"HI"));
        out.write(|buffer| buffer.extend_from_slice(b"jk"));
        out.push_front(Bytes::from_static(b"01"));
        (out, b"01abcDEFGHIjk".to_vec())
    }

    #[test]
    fn any_sequence_of_advances_yields_the_same_bytes() {
        for step in 1..14 {
            let (mut out, expected) = sample();
            let mut seen = Vec::new();
            while out.has_remaining() {
                let n = step.min(out.chunk().len());
                assert!(n > 0);
                seen.extend_from_slice(&out.chunk()[..n]);
                out.advance(n);
            }
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn an_advance_may_cross_any_number_of_chunks() {
        let expected = sample().1;
        for first in 0..=expected.len() {
            let (mut out, _) = sample();
            out.advance(first);
            let mut slices = [IoSlice::new(&[]); 8];
            let n = out.chunks_vectored(&mut slices);
            let rest: Vec<u8> = slices[..n].iter().flat_map(|s| s.to_vec()).collect();
            assert_eq!(rest, expected[first..]);
        }
    }

    #[test]
    fn coalescing_changes_no_byte() {
        for first in 0..13 {
            let (mut out, expected) = sample();
            out.advance(first);
            out.coalesce();
            assert_eq!(out.chunk(), &expected[first..]);
            assert_eq!(out.remaining(), expected.len() - first);
        }
    }

    #[test]
    fn a_queue_that_never_becomes_empty_keeps_its_order_and_does_not_grow() {
        let mut out = Outgoing::default();
        let mut model = VecDeque::new();
        for n in 0..100_000_usize {
            let bytes = n.to_be_bytes();
            match n % 100 {
                0 => out.push(Bytes::copy_from_slice(&bytes)),
                _ => out.write(|buffer| buffer.extend_from_slice(&bytes)),
            }
            model.extend(bytes);
            // The queue swells and shrinks, around the size from which it is compacted.
            let rest = (COMPACT / 2).max(n % (2 * COMPACT));
            while out.remaining() > rest {
                assert_eq!(Some(out.get_u8()), model.pop_front());
            }
            assert!(out.buffer.len() <= 5 * COMPACT);
        }
        assert!(out.chunk().len() < model.len());
        assert!(out.copy_to_bytes(out.len()) == Vec::from(model));
    }

    #[test]
    fn a_lent_buffer_is_used_and_given_back() {
        let mut out = Outgoing::default();
        let mut scratch = Vec::with_capacity(1024);
        out.lend(&mut scratch);
        assert_eq!(scratch.capacity(), 0);
        out.write(|buffer| buffer.extend_from_slice(b"abc"));
        let mut scratch = Scratch::default();
        out.release(&mut scratch);
        assert_eq!(scratch.bytes.capacity(), 0);
        out.advance(3);
        out.release(&mut scratch);
        assert_eq!(scratch.bytes.capacity(), 1024);
    }
}
