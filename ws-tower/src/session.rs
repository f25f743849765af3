//! The session: one task that owns a socket and its handler.
//!
//! A session owns the bytes provider and the handler's future, and shares the protocol engine
//! with the handles. So pings are answered, keepalive runs and a close is noticed while the
//! handler waits for a database; a batch of messages costs one read and one write; and sending
//! and receiving are operations on queues, which a cancelled future cannot break.
//!
//! The layer spawns a session for each upgrade. Make one yourself to run the protocol over any
//! `AsyncRead + AsyncWrite` after a handshake of your own.

use std::{
    fmt,
    future::Future,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};
use ws_core::Connection;

use crate::{BoxError, Closed, Error, WebSocket};

mod driver;
pub(crate) mod feeds;
pub(crate) mod state;
#[cfg(test)]
mod tests;
mod timer;

use driver::Unfinished;
use state::{About, Handler, Shared, panic_text};
use timer::Timer;

/// A handler, erased once for each connection.
pub(crate) type BoxHandler = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

/// What is told how a socket ended.
pub(crate) type OnClosed = Arc<dyn Fn(&Closed) + Send + Sync>;

/// The handler of a session without one.
pub type NoHandler = std::future::Ready<Result<(), BoxError>>;

pin_project! {
    /// A future that runs one WebSocket to its end; spawn it.
    ///
    /// It resolves when the socket has ended and the handler has returned. Dropping it drops the
    /// socket and the handler at once, without a Close.
    ///
    /// ```
    /// use ws_tower::{Config, Message, Session};
    /// use ws_tower::ws_core::{Connection, Role};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (near, far) = tokio::io::duplex(1024);
    /// let (session, mut client) = Session::new(near, Connection::new(Role::Client, Config::new()));
    /// tokio::spawn(session);
    /// let server = Connection::new(Role::Server, Config::new());
    /// tokio::spawn(Session::with_handler(far, server, async |mut socket| {
    ///     while let Some(message) = socket.recv().await {
    ///         socket.send(message?).await?;
    ///     }
    ///     Ok(())
    /// }));
    /// client.send("Hello").await?;
    /// assert_eq!(client.recv().await.transpose()?, Some(Message::text("Hello")));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "a session does nothing unless it is spawned"]
    #[project = SessionProj]
    pub struct Session<Io, H = NoHandler> {
        // Bytes for each idle connection, beside what the socket itself costs: the task that holds
        // this session, the shared state and the handler's future. The tests hold the sizes.
        #[pin]
        io: Option<Io>,
        #[pin]
        handler: Option<H>,
        shared: Arc<Shared>,
        #[pin]
        timer: Timer,
        // What could not be written or read at once, or nothing.
        unfinished: Option<Box<Unfinished>>,
        on_closed: Option<OnClosed>,
        // The engine has not been asked for its next deadline since the timer was made or fired.
        timer_is_stale: bool,
        // Bytes that were written and not reported to the engine: not before they are flushed.
        unflushed: usize,
        is_shut_down: bool,
        cancel_on_close: bool,
    }

    impl<Io, H> PinnedDrop for Session<Io, H> {
        fn drop(this: Pin<&mut Self>) {
            let mut session = this.project();
            let closed = session.shared.end(Some(Error::Aborted));
            session.shared.forget_session();
            drop_handler(&mut session.handler, session.shared);
            if let Some(closed) = closed {
                tell(session.on_closed, &closed);
            }
        }
    }
}

/// Tells the hook how the socket ended. A panic stays the hook's own.
fn tell(hook: &mut Option<OnClosed>, closed: &Closed) {
    if let Some(hook) = hook.take()
        && let Err(panic) = catch_unwind(AssertUnwindSafe(|| hook(closed)))
    {
        let path = closed.path();
        tracing::error!(path, panic = panic_text(&*panic), "websocket hook panicked");
    }
}

/// Drops a handler, and with it the handles it holds. A panic stays the handler's own.
fn drop_handler<H>(handler: &mut Pin<&mut Option<H>>, shared: &Shared) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| handler.set(None))) {
        let path = shared.path();
        tracing::error!(
            path,
            panic = panic_text(&*panic),
            "websocket handler panicked while it was dropped"
        );
    }
}

impl<Io> Session<Io> {
    /// Runs the protocol over `io`, for whoever holds the handle. It ends when the handle is
    /// dropped, or its receiving half after a [`split`](WebSocket::split).
    ///
    /// Bytes that came with the handshake go into `connection` first.
    pub fn new(io: Io, connection: Connection) -> (Self, WebSocket) {
        Self::after_handshake(io, connection, None, None)
    }

    /// Like [`new`](Self::new), for a handle that can tell what the handshake agreed on, and with
    /// whom: see [`WebSocket::subprotocol`] and [`WebSocket::peer`].
    pub fn after_handshake(
        io: Io,
        connection: Connection,
        subprotocol: Option<Box<str>>,
        peer: Option<SocketAddr>,
    ) -> (Self, WebSocket) {
        let about = About {
            subprotocol,
            peer,
            ..About::default()
        };
        let shared = Shared::new(connection, Handler::Done, about);
        let socket = WebSocket::new(Arc::clone(&shared));
        (Self::start(shared, io, None), socket)
    }
}

impl<Io, H> Session<Io, H>
where
    H: Future<Output = Result<(), BoxError>>,
{
    /// Runs the protocol over `io` and a handler beside it, in one task. It ends when the handler
    /// has returned and no receiving handle is left elsewhere: with 1000, or with 1011 after an
    /// error or a panic.
    pub fn with_handler(
        io: Io,
        connection: Connection,
        handler: impl FnOnce(WebSocket) -> H,
    ) -> Self {
        let shared = Shared::new(connection, Handler::Running, About::default());
        let handler = handler(WebSocket::new(Arc::clone(&shared)));
        Self::start(shared, io, Some(handler))
    }
}

impl<Io, H> Session<Io, H> {
    pub(crate) fn start(shared: Arc<Shared>, io: Io, handler: Option<H>) -> Self {
        Self {
            io: Some(io),
            handler,
            shared,
            timer: Timer::default(),
            unfinished: None,
            on_closed: None,
            timer_is_stale: true,
            unflushed: 0,
            is_shut_down: false,
            cancel_on_close: false,
        }
    }

    /// Calls `hook` once, when the socket has ended.
    pub(crate) fn on_closed(mut self, hook: Option<OnClosed>) -> Self {
        self.on_closed = hook;
        self
    }

    /// Drops the handler when the socket has ended.
    pub(crate) fn cancel_on_close(mut self, cancel: bool) -> Self {
        self.cancel_on_close = cancel;
        self
    }
}

impl<Io, H> Future for Session<Io, H>
where
    Io: AsyncRead + AsyncWrite,
    H: Future<Output = Result<(), BoxError>>,
{
    type Output = Closed;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Closed> {
        self.drive(cx)
    }
}

impl<Io, H> fmt::Debug for Session<Io, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}
