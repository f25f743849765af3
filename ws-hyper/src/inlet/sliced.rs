//! The stream below HTTP/2, read in slices.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream of HTTP/2, with what was read of it already.
///
/// It yields after so many bytes. h2 reads as long as there is something to read, and ends the
/// whole connection with `ENHANCE_YOUR_CALM` when too many small DATA frames wait; they have to be
/// taken in between.
pub(crate) struct Sliced<Io> {
    pub(super) io: Io,
    pub(super) read_ahead: Bytes,
    /// How many bytes may be read still; [`Inlets`](super::Inlets) renew it.
    pub(super) left: Arc<AtomicUsize>,
}

impl<Io: AsyncRead + Unpin> AsyncRead for Sliced<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.read_ahead.is_empty() {
            let count = self.read_ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.read_ahead[..count]);
            self.read_ahead.advance(count);
            return Poll::Ready(Ok(()));
        }
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        let came = buffer.filled().len() - before;
        self.left
            .store(left.saturating_sub(came), Ordering::Relaxed);
        read
    }
}

write_through!(Sliced);
