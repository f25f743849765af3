//! The streams that the server puts between a connection and hyper.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Semaphore,
};

/// A stream that counts as a connection until it is dropped, wherever it goes: hyper hands it
/// over at an upgrade.
pub(super) struct Counted<Io> {
    pub(super) io: Io,
    pub(super) _place: Option<Place>,
}

/// A place among the connections that a server may have. Half the size of tokio's own permit, for
/// every connection keeps it.
pub(super) struct Place(Arc<Semaphore>);

impl Place {
    /// Waits for one.
    pub(super) async fn among(places: &Arc<Semaphore>) -> Self {
        if let Ok(permit) = places.acquire().await {
            permit.forget();
        }
        // An error would be that it is closed, which it never is.
        Self(Arc::clone(places))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

write_through!(Counted);

impl<Io: AsyncRead + Unpin> AsyncRead for Counted<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

/// A stream that watches how the peer begins.
///
/// hyper's HTTP/1 tells the preface of HTTP/2 when it sees it whole, and calls half of one a bad
/// request. So a beginning that may become the preface is held back: it takes no room, for it is
/// known. hyper's deadline for the first head runs meanwhile.
pub(super) struct Watched<Io> {
    io: Io,
    beginning: Beginning,
}

/// How a peer has begun.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beginning {
    /// With so many bytes of the preface, and nothing else so far.
    Unknown(u8),
    /// With the preface.
    Preface,
    /// With anything else.
    Other,
}

/// RFC 9113 §3.4: what a client sends first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl<Io> Watched<Io> {
    /// `expects_preface`: whether the peer may speak HTTP/2.
    pub(super) fn new(io: Io, expects_preface: bool) -> Self {
        let beginning = if expects_preface {
            Beginning::Unknown(0)
        } else {
            Beginning::Other
        };
        Self { io, beginning }
    }

    /// The stream, if the peer began with the preface.
    #[cfg(feature = "http2")]
    pub(super) fn into_http2(self) -> Option<Io> {
        (self.beginning == Beginning::Preface).then_some(self.io)
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Watched<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let Beginning::Unknown(held) = this.beginning else {
                return Pin::new(&mut this.io).poll_read(cx, buffer);
            };
            if buffer.remaining() <= PREFACE.len() {
                // hyper lends 8 KiB.
                return Poll::Ready(Err(io::ErrorKind::InvalidInput.into()));
            }
            let start = buffer.filled().len();
            let held = usize::from(held);
            buffer.put_slice(PREFACE.get(..held).unwrap_or_default());
            let read = Pin::new(&mut this.io).poll_read(cx, buffer);
            if !matches!(read, Poll::Ready(Ok(()))) {
                buffer.set_filled(start);
                return read;
            }
            let came = buffer.filled().get(start..).unwrap_or_default();
            let has_ended = came.len() == held;
            if came.starts_with(PREFACE) {
                this.beginning = Beginning::Preface;
            } else if PREFACE.starts_with(came) && !has_ended {
                // No more than the preface has.
                this.beginning = Beginning::Unknown(u8::try_from(came.len()).unwrap_or(u8::MAX));
                buffer.set_filled(start);
            } else {
                this.beginning = Beginning::Other;
            }
            if !matches!(this.beginning, Beginning::Unknown(_)) {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

write_through!(Watched);
