//! A TLS stream that is written when it is flushed.

use std::{
    io::{self, IoSlice, Write},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

/// Encrypts what is written, and gives it to the socket when it is flushed or shut down, or when
/// more is written before that.
///
/// tokio-rustls gives every write to the socket at once. So an end that comes right behind the last
/// bytes, such as a WebSocket's Close and then TLS's own (`close_notify`), would be a second write,
/// and a packet of its own.
pub(in crate::server) struct OnFlush<Io>(TlsStream<Io>);

impl<Io> OnFlush<Io> {
    pub(in crate::server) fn new(stream: TlsStream<Io>) -> Self {
        Self(stream)
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncRead for OnFlush<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncWrite for OnFlush<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let (_, session) = self.0.get_mut();
        if session.wants_write() {
            return Pin::new(&mut self.0).poll_write(cx, bytes);
        }
        // It takes some: it has nothing else.
        Poll::Ready(session.writer().write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let (_, session) = self.0.get_mut();
        if session.wants_write() {
            return Pin::new(&mut self.0).poll_write_vectored(cx, slices);
        }
        Poll::Ready(session.writer().write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
