//! The bytes to write, for a driver that holds the connection while it writes.

use std::io::IoSlice;

use bytes::Buf;

use crate::Connection;

/// The bytes to write, lent by [`Connection::transmit`].
///
/// It is a [`Buf`] over one batch; advancing it tells the connection what has been written.
#[derive(Debug)]
pub struct Transmit<'a>(pub(super) &'a mut Connection);

impl Buf for Transmit<'_> {
    fn remaining(&self) -> usize {
        if self.0.batch_is_out { 0 } else { self.0.batch }
    }

    fn chunk(&self) -> &[u8] {
        let chunk = self.0.outgoing.chunk();
        chunk.get(..self.remaining()).unwrap_or(chunk)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        if self.remaining() == self.0.outgoing.len() {
            return self.0.outgoing.chunks_vectored(slices);
        }
        match (slices.first_mut(), self.chunk()) {
            (Some(slot), chunk) if !chunk.is_empty() => {
                *slot = IoSlice::new(chunk);
                1 // More is queued behind the batch: keep to the part that is sealed.
            }
            _ => 0,
        }
    }

    fn advance(&mut self, count: usize) {
        let count = count.min(self.remaining());
        self.0.outgoing.advance(count);
        self.0.transmitted(count);
    }
}
