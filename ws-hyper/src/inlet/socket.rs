//! One WebSocket's bytes: a stream whose reading is done by somebody else.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::lock;

/// The session's side: reads what has been taken from the stream, and writes to the stream.
pub(crate) struct SocketIo<Io>(Arc<Mutex<Socket<Io>>>);

/// The connection's side: takes what there is.
pub(crate) struct Filling<Io>(Arc<Mutex<Socket<Io>>>);

struct Socket<Io> {
    /// `None`: the session has gone, or has been given up.
    stream: Option<Io>,
    came: BytesMut,
    /// How many pieces `came` was put together from, those left out that have been read: about as
    /// many as their share of the bytes.
    pieces: usize,
    cap: usize,
    end: Option<End>,
    reader: Option<Waker>,
    filling: Option<Waker>,
}

/// How the stream ended.
enum End {
    Eof,
    Error(io::Error),
}

/// The largest piece that is taken at once: half of the largest frame that peers send mostly.
const PIECE: usize = 8 << 10;

/// h2 charges a frame that is shorter as if it were as long.
const SMALL: usize = 256;

impl<Io: AsyncRead + AsyncWrite + Unpin> SocketIo<Io> {
    /// `cap`: how many bytes wait for the session.
    pub(crate) fn new(stream: Io, cap: usize) -> (Self, Filling<Io>) {
        let socket = Arc::new(Mutex::new(Socket {
            stream: Some(stream),
            came: BytesMut::new(),
            pieces: 0,
            cap,
            end: None,
            reader: None,
            filling: None,
        }));
        (Self(Arc::clone(&socket)), Filling(socket))
    }
}

impl<Io: AsyncRead + Unpin> Filling<Io> {
    /// Takes all there is. Ready when nothing more can come.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let (poll, reader, gone) = {
            let mut socket = lock(&self.0);
            let before = socket.came.len();
            let poll = socket.fill(cx);
            let has_news = socket.came.len() > before || socket.end.is_some();
            let reader = has_news.then(|| socket.reader.take()).flatten();
            // A stream that failed takes nothing more.
            let failed = matches!(socket.end, Some(End::Error(_)));
            let gone = failed.then(|| socket.stream.take()).flatten();
            (poll, reader, gone)
        };
        drop(gone);
        if let Some(reader) = reader {
            reader.wake();
        }
        poll
    }
}

impl<Io: AsyncRead + Unpin> Socket<Io> {
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut piece = [MaybeUninit::uninit(); PIECE];
        loop {
            let Some(stream) = &mut self.stream else {
                return Poll::Ready(());
            };
            if self.came.len() < self.cap {
                let mut piece = ReadBuf::uninit(&mut piece);
                match Pin::new(stream).poll_read(cx, &mut piece) {
                    Poll::Ready(Ok(())) if piece.filled().is_empty() => {
                        self.end = Some(End::Eof);
                        return Poll::Ready(());
                    }
                    Poll::Ready(Ok(())) => {
                        self.came.extend_from_slice(piece.filled());
                        self.pieces += 1;
                        continue;
                    }
                    Poll::Ready(Err(error)) => {
                        self.end = Some(End::Error(error));
                        return Poll::Ready(());
                    }
                    Poll::Pending => {}
                }
            } else if self.pieces.saturating_mul(SMALL) > self.came.len() {
                // What comes next would wait where it harms others.
                self.end = Some(End::Error(io::Error::other(
                    "the session takes no bytes, and its peer sends small frames",
                )));
                return Poll::Ready(());
            }
            // Full of large frames: the window of the stream holds the peer up.
            if !matches!(&self.filling, Some(filling) if filling.will_wake(cx.waker())) {
                self.filling = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
    }
}

impl<Io> Drop for Filling<Io> {
    fn drop(&mut self) {
        let reader = {
            let mut socket = lock(&self.0);
            // The connection has ended, and with it all its streams.
            socket
                .end
                .get_or_insert_with(|| End::Error(io::ErrorKind::ConnectionAborted.into()));
            socket.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl<Io> Drop for SocketIo<Io> {
    fn drop(&mut self) {
        let (stream, filling) = {
            let mut socket = lock(&self.0);
            (socket.stream.take(), socket.filling.take())
        };
        drop(stream);
        if let Some(filling) = filling {
            filling.wake();
        }
    }
}

impl<Io> AsyncRead for SocketIo<Io> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut socket = lock(&self.0);
        if socket.came.is_empty() {
            return match socket.end.take() {
                Some(End::Error(error)) => {
                    socket.end = Some(End::Eof);
                    Poll::Ready(Err(error))
                }
                Some(End::Eof) => {
                    socket.end = Some(End::Eof);
                    Poll::Ready(Ok(()))
                }
                None => {
                    if !matches!(&socket.reader, Some(it) if it.will_wake(cx.waker())) {
                        socket.reader = Some(cx.waker().clone());
                    }
                    Poll::Pending
                }
            };
        }
        let before = socket.came.len();
        let was_full = before >= socket.cap;
        let count = before.min(buffer.remaining());
        buffer.put_slice(&socket.came[..count]);
        socket.came.advance(count);
        // A session that is slow for long reads much without ever finding the end.
        socket.pieces = socket
            .pieces
            .saturating_mul(before - count)
            .div_ceil(before);
        if socket.came.is_empty() {
            // An idle socket owns no buffer.
            socket.came = BytesMut::new();
        }
        let filling = was_full.then(|| socket.filling.take()).flatten();
        drop(socket);
        if let Some(filling) = filling {
            filling.wake();
        }
        Poll::Ready(Ok(()))
    }
}

/// Under the lock: hyper puts bytes into a channel, and wakes a task at the most.
impl<Io: AsyncWrite + Unpin> AsyncWrite for SocketIo<Io> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut lock(&self.0).stream {
            Some(stream) => Pin::new(stream).poll_write(cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut lock(&self.0).stream {
            Some(stream) => Pin::new(stream).poll_flush(cx),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut lock(&self.0).stream {
            Some(stream) => Pin::new(stream).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests;
