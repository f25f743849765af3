//! Where a session's bytes come from: hyper's upgrade, or anything else that reads and writes.

use std::{
    fmt,
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use http::Extensions;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The bytes behind a request that no hyper server hands over: put it into the request's
/// extensions, and the request can be upgraded. For servers other than hyper, and for tests.
///
/// Clones share the bytes; the first upgrade takes them. Bytes that the server has read behind
/// the request must come out first.
///
/// ```
/// use ws_tower::upgrade::ProvidedIo;
///
/// let (near, far) = tokio::io::duplex(4096);
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(ProvidedIo::new(far));
/// # drop(near);
/// ```
///
/// [`test_request`](super::upgrade::test_request) makes a whole request, with a client behind it.
#[derive(Clone)]
pub struct ProvidedIo(Arc<Mutex<Option<Source>>>);

impl ProvidedIo {
    /// Bytes that are there already. The session may write as soon as the response has passed
    /// the gate, so the response must not take this way; if it does, use
    /// [`from_future`](Self::from_future).
    pub fn new<Io>(io: Io) -> Self
    where
        Io: AsyncRead + AsyncWrite + Send + 'static,
    {
        Self::from_future(std::future::ready(Ok(io)))
    }

    /// Bytes that are there once the response has been written, as with hyper's `OnUpgrade`. An
    /// error means that they never will be.
    pub fn from_future<T>(io: impl Future<Output = io::Result<T>> + Send + 'static) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        let erased = async { Ok(Io::Provided(Box::pin(io.await?))) };
        Self(Arc::new(Mutex::new(Some(Source::Provided(Box::pin(
            erased,
        ))))))
    }

    fn take(&self) -> Option<Source> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for ProvidedIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProvidedIo").finish_non_exhaustive()
    }
}

/// What a request's extensions say about its bytes.
#[derive(Debug)]
pub(crate) enum Promise {
    Hyper(OnUpgrade),
    None,
    Provided(ProvidedIo),
}

impl Promise {
    /// Leaves it where it is, for an application that may take it another way.
    pub(crate) fn of(extensions: &Extensions) -> Self {
        if let Some(provided) = extensions.get::<ProvidedIo>() {
            return Self::Provided(provided.clone());
        }
        extensions
            .get::<OnUpgrade>()
            .map_or(Self::None, |upgrade| Self::Hyper(upgrade.clone()))
    }

    /// Takes it out.
    pub(crate) fn take(extensions: &mut Extensions) -> Self {
        let upgrade = extensions.remove::<OnUpgrade>();
        match extensions.remove::<ProvidedIo>() {
            Some(provided) => Self::Provided(provided),
            None => upgrade.map_or(Self::None, Self::Hyper),
        }
    }

    /// `None`: nobody hands over the bytes. Those of hyper go through the gate's stream, if it has
    /// one.
    pub(crate) fn into_source(self, through: Option<&Through>) -> Option<Source> {
        match self {
            Self::Hyper(upgrade) => Some(Source::Hyper(upgrade, through.cloned())),
            Self::None => None,
            Self::Provided(provided) => provided.take(),
        }
    }
}

/// What a server puts between hyper's stream and a session.
pub(crate) type Through = Arc<dyn Fn(Upgraded) -> io::Result<Io> + Send + Sync>;

/// The bytes, or soon.
pub(crate) enum Source {
    Hyper(OnUpgrade, Option<Through>),
    Provided(Pin<Box<dyn Future<Output = io::Result<Io>> + Send>>),
}

impl Source {
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Io, SourceError>> {
        match self {
            Self::Hyper(upgrade, through) => {
                let upgraded = ready!(Pin::new(upgrade).poll(cx)).map_err(SourceError::Hyper)?;
                Poll::Ready(match through {
                    None => Ok(Io::Hyper(TokioIo::new(upgraded))),
                    Some(through) => through(upgraded).map_err(SourceError::Provided),
                })
            }
            Self::Provided(future) => future.as_mut().poll(cx).map_err(SourceError::Provided),
        }
    }
}

/// Why there will be no bytes.
pub(crate) enum SourceError {
    Hyper(hyper::Error),
    Provided(io::Error),
}

impl SourceError {
    /// Whether the program is at fault and not the client.
    pub(crate) fn is_misuse(&self) -> bool {
        matches!(self, Self::Hyper(error) if error.is_user())
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hyper(error) => error.fmt(f),
            Self::Provided(error) => error.fmt(f),
        }
    }
}

/// A session's bytes. One more `dyn` would cost hyper's a second virtual call.
pub(crate) enum Io {
    Hyper(TokioIo<Upgraded>),
    Provided(Pin<Box<dyn ReadWrite>>),
}

pub(crate) trait ReadWrite: AsyncRead + AsyncWrite + Send {}
impl<Io: AsyncRead + AsyncWrite + Send> ReadWrite for Io {}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Hyper(io) => Pin::new(io).poll_read(cx, buffer),
            Self::Provided(io) => io.as_mut().poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Hyper(io) => Pin::new(io).poll_write(cx, bytes),
            Self::Provided(io) => io.as_mut().poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Hyper(io) => Pin::new(io).poll_flush(cx),
            Self::Provided(io) => io.as_mut().poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Hyper(io) => Pin::new(io).poll_shutdown(cx),
            Self::Provided(io) => io.as_mut().poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Hyper(io) => Pin::new(io).poll_write_vectored(cx, slices),
            Self::Provided(io) => io.as_mut().poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Hyper(io) => io.is_write_vectored(),
            Self::Provided(io) => io.is_write_vectored(),
        }
    }
}
