//! The end of an HTTP/2 stream, told as that of a connection which a socket has for itself.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream of a client's HTTP/2 connection, whose ends are those of TCP.
pub(crate) struct Ending<Io>(pub(super) Io);

impl<Io: AsyncRead + Unpin> AsyncRead for Ending<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.0).poll_read(cx, buf));
        Poll::Ready(read.or_else(translated))
    }
}

/// | over HTTP/2 | as told by hyper | is |
/// |---|---|---|
/// | the connection ended, `GOAWAY` or not | a broken pipe without a cause | the end of the stream |
/// | `RST_STREAM` | h2's error | a reset |
/// | the connection failed | its error | the same |
///
/// `RST_STREAM` with `NO_ERROR` or `CANCEL` is the end of the stream to hyper already.
fn translated(error: io::Error) -> io::Result<()> {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    match cause {
        Some(cause) if h2::Error::is_remote(cause) => {
            Err(io::Error::new(io::ErrorKind::ConnectionReset, error))
        }
        None if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(error),
    }
}

/// A write that fails is not the end: the session reads what the peer has said before.
impl<Io: AsyncWrite + Unpin> AsyncWrite for Ending<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
