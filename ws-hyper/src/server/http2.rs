//! HTTP/2: its limits, and one connection of it.
//!
//! Its streams, and with them the handlers of requests, are tasks of their own. They belong to the
//! connection: what ends that ends them.

use std::{
    future::{Future, poll_fn},
    io, mem,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, rt::Executor, server::conn::http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use slab::Slab;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    task::{AbortHandle, unconstrained},
    time::{Instant, sleep},
};
use tower::Service;
use ws_tower::BoxError;

use super::{
    MAX_TIMEOUT,
    phase::{self, Phase, Reporting},
    service::ConnectionService,
};
use crate::inlet::Inlets;

/// The limits of an HTTP/2 connection, for [`Serve::http2`](crate::Serve::http2).
///
/// | limit | unit | default |
/// |---|---|---|
/// | [`max_concurrent_streams`](Self::max_concurrent_streams) | streams | 200 |
/// | [`initial_stream_window`](Self::initial_stream_window) | bytes | 1 MiB |
/// | [`initial_connection_window`](Self::initial_connection_window) | bytes | 4 MiB |
/// | [`max_header_list_size`](Self::max_header_list_size) | bytes | 64 KiB |
/// | [`max_pending_accept_reset_streams`](Self::max_pending_accept_reset_streams) | streams | 20 |
/// | [`max_local_error_reset_streams`](Self::max_local_error_reset_streams) | streams | 1,024 |
/// | [`max_send_buffer_size`](Self::max_send_buffer_size) | bytes | 400 KiB |
/// | [`keep_alive`](Self::keep_alive) | times | 20 s, 20 s |
///
/// How long a connection may have no stream is
/// [`header_read_timeout`](crate::Serve::header_read_timeout). What one socket may leave unread is
/// [`Config::http2_receive_cap`](ws_tower::Config::http2_receive_cap).
///
/// ```no_run
/// # async fn run(listener: tokio::net::TcpListener) -> std::io::Result<()> {
/// # let app = ws_tower::WebSocketLayer::new().into_service();
/// use ws_hyper::server::Http2;
///
/// // A thousand sockets on each connection, such as those of a proxy.
/// let limits = Http2::new().max_concurrent_streams(1000);
/// ws_hyper::serve(listener, app).http2(limits).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Memory
///
/// What waits is bounded for each socket: a stream's window before its session, and
/// [`Config::http2_receive_cap`](ws_tower::Config::http2_receive_cap) in it. One connection may
/// therefore hold, with handlers that all stand still, as much as that times its streams: 400 MiB
/// with the defaults. Where strangers connect, give fewer streams or smaller windows.
#[derive(Clone, Debug)]
#[must_use = "limits do nothing unless a server has them"]
pub struct Http2 {
    max_concurrent_streams: u32,
    initial_stream_window: u32,
    initial_connection_window: u32,
    max_header_list_size: u32,
    max_pending_accept_reset_streams: usize,
    max_local_error_reset_streams: usize,
    max_send_buffer_size: usize,
    keep_alive: Option<(Duration, Duration)>,
}

impl Default for Http2 {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 200,
            initial_stream_window: 1 << 20,
            initial_connection_window: 4 << 20,
            max_header_list_size: 64 << 10,
            max_pending_accept_reset_streams: 20,
            max_local_error_reset_streams: 1024,
            max_send_buffer_size: 400 << 10,
            keep_alive: Some((Duration::from_secs(20), Duration::from_secs(20))),
        }
    }
}

impl Http2 {
    /// The default limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many streams a connection may have open at a time, WebSockets included (RFC 9113
    /// §5.1.2). More are refused, and the client may try again. Default: 200.
    pub fn max_concurrent_streams(mut self, streams: u32) -> Self {
        self.max_concurrent_streams = streams;
        self
    }

    /// Sets how many bytes a stream may send before they are taken (RFC 9113 §6.9.2); at most
    /// 2³¹ − 1. A WebSocket takes them at once; as many wait for a handler that holds up its thread.
    /// When these are many small frames the stream is reset. Default: 1 MiB.
    pub fn initial_stream_window(mut self, bytes: u32) -> Self {
        self.initial_stream_window = bytes.min(MAX_WINDOW);
        self
    }

    /// Sets how many bytes all streams of a connection together may send before they are taken;
    /// at least 65,535, at most 2³¹ − 1. Default: 4 MiB.
    ///
    /// It also says how many small DATA frames may wait: each that is shorter than 256 bytes
    /// counts as what it lacks, and half of this window may be lacking in all. A peer that gets
    /// past that loses the connection, with `ENHANCE_YOUR_CALM`. Those of WebSockets do not wait,
    /// whatever their handlers do; with less than 2 MiB a burst may still be too much.
    pub fn initial_connection_window(mut self, bytes: u32) -> Self {
        self.initial_connection_window = bytes.clamp(65_535, MAX_WINDOW);
        self
    }

    /// Sets the largest list of header fields in a request, in bytes: names and values
    /// uncompressed, and 32 for each field (RFC 9113 §6.5.2). A larger one is answered with 431, and
    /// one of more than four times the size ends the connection. Default: 64 KiB.
    pub fn max_header_list_size(mut self, bytes: u32) -> Self {
        self.max_header_list_size = bytes;
        self
    }

    /// Sets how many streams that the client has reset may wait to be looked at. One more ends
    /// the connection (CVE-2023-44487, "rapid reset"). Default: 20.
    pub fn max_pending_accept_reset_streams(mut self, streams: usize) -> Self {
        self.max_pending_accept_reset_streams = streams;
        self
    }

    /// Sets how many streams may be reset for the client's mistakes in the life of a connection.
    /// One more ends it. Default: 1,024.
    pub fn max_local_error_reset_streams(mut self, streams: usize) -> Self {
        self.max_local_error_reset_streams = streams;
        self
    }

    /// Sets how many bytes of a response wait for a client that does not take them, for each
    /// stream. Default: 400 KiB.
    pub fn max_send_buffer_size(mut self, bytes: usize) -> Self {
        // hyper panics above.
        self.max_send_buffer_size = bytes.min(u32::MAX as usize);
        self
    }

    /// Asks a connection that has been silent for `interval` whether it is alive (RFC 9113 §6.7),
    /// and cuts it off when the answer takes longer than `timeout`. `None`: never. Each is at most
    /// a year. Default: 20 s and 20 s.
    pub fn keep_alive(mut self, times: impl Into<Option<(Duration, Duration)>>) -> Self {
        // They are added to the clock, which would overflow.
        self.keep_alive = times
            .into()
            .map(|(interval, timeout)| (interval.min(MAX_TIMEOUT), timeout.min(MAX_TIMEOUT)));
        self
    }

    fn builder(&self, streams: Streams) -> http2::Builder<Streams> {
        let mut builder = http2::Builder::new(streams);
        builder
            .timer(TokioTimer::new())
            // RFC 8441 §3: "… by sending SETTINGS_ENABLE_CONNECT_PROTOCOL with a value of 1".
            .enable_connect_protocol()
            .max_concurrent_streams(self.max_concurrent_streams)
            .initial_stream_window_size(self.initial_stream_window)
            .initial_connection_window_size(self.initial_connection_window)
            .max_header_list_size(self.max_header_list_size)
            .max_pending_accept_reset_streams(self.max_pending_accept_reset_streams)
            .max_local_error_reset_streams(self.max_local_error_reset_streams)
            .max_send_buf_size(self.max_send_buffer_size);
        if let Some((interval, timeout)) = self.keep_alive {
            builder
                .keep_alive_interval(interval)
                .keep_alive_timeout(timeout);
        }
        builder
    }

    /// Runs one connection until its end.
    pub(super) async fn serve<Io, S, B>(
        &self,
        io: Io,
        read_ahead: Bytes,
        mut service: ConnectionService<S>,
        idle_timeout: Duration,
        mut phase: watch::Receiver<Phase>,
    ) -> hyper::Result<()>
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let streams = Streams::new(phase.clone());
        // Dropped before the connection: nothing goes on without it.
        let guard = Guard(streams.clone());
        let inlets = Inlets::new(self.initial_stream_window, self.initial_connection_window);
        let ways = inlets.downgrade();
        // Sessions get their bytes from the inlets.
        service.gate = service.gate.with_io(move |stream| {
            let io = ways.add(stream);
            io.ok_or_else(|| io::ErrorKind::ConnectionAborted.into())
        });
        let io = inlets.below(io, read_ahead);
        let builder = self.builder(streams.clone());
        let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
        let mut news = phase.clone();
        let mut idle = pin!(sleep(idle_timeout));
        let mut is_ending = false;
        let result = loop {
            let mut next = pin!(phase::next(&mut phase));
            let (mut is_listening, mut is_timed) = (false, false);
            tokio::select! {
                biased;
                result = poll_fn(|cx| inlets.poll(cx, |cx| connection.as_mut().poll(cx))) => {
                    break result;
                }
                next = poll_fn(|cx| {
                    let is_due = news.has_changed().unwrap_or(true);
                    poll_watched(next.as_mut(), &mut is_listening, is_due, cx)
                }) => {
                    if next == Phase::Cut {
                        break Ok(());
                    }
                    news.mark_unchanged();
                    is_ending = true;
                    connection.as_mut().graceful_shutdown();
                }
                // Nobody is woken when a stream ends: this looks when it is time, and goes on
                // waiting if it was not.
                () = poll_fn(|cx| {
                    let is_due = idle.is_elapsed();
                    poll_watched(idle.as_mut(), &mut is_timed, is_due, cx)
                }) => {
                    let now = Instant::now();
                    let due = streams.idle_since().unwrap_or(now) + idle_timeout;
                    if due > now {
                        idle.as_mut().reset(due);
                        continue;
                    }
                    if is_ending {
                        // It was told, and neither goes nor says anything.
                        break Ok(());
                    }
                    is_ending = true;
                    connection.as_mut().graceful_shutdown();
                    idle.as_mut().reset(now + idle_timeout);
                }
            }
        };
        drop(guard);
        result
    }
}

/// Polls what is polled with every frame, and rarely ready: once its task is registered, nothing but
/// whether it is due.
fn poll_watched<F: Future>(
    future: Pin<&mut F>,
    is_watched: &mut bool,
    is_due: bool,
    cx: &mut Context<'_>,
) -> Poll<F::Output> {
    if mem::replace(is_watched, true) && !is_due {
        return Poll::Pending;
    }
    // Whatever is left of the task's budget: without any it would not be registered.
    pin!(unconstrained(future)).poll(cx)
}

/// RFC 9113 §6.9.1.
const MAX_WINDOW: u32 = (1 << 31) - 1;

/// The tasks of a connection's streams.
#[derive(Clone)]
struct Streams(Arc<Tasks>);

struct Tasks {
    state: Mutex<State>,
    /// The server waits until nobody has one.
    _phase: watch::Receiver<Phase>,
}

struct State {
    tasks: Slab<Running>,
    last: u64,
    /// Since when there has been none.
    empty_since: Instant,
    /// Whether no more may run.
    is_over: bool,
}

struct Running {
    number: u64,
    /// `None` while the task is being spawned.
    handle: Option<AbortHandle>,
}

impl Streams {
    fn new(phase: watch::Receiver<Phase>) -> Self {
        Self(Arc::new(Tasks {
            state: Mutex::new(State {
                tasks: Slab::new(),
                last: 0,
                empty_since: Instant::now(),
                is_over: false,
            }),
            _phase: phase,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when there has been no stream; `None` if there is one.
    fn idle_since(&self) -> Option<Instant> {
        let state = self.lock();
        state.tasks.is_empty().then_some(state.empty_since)
    }
}

/// hyper spawns here what belongs to a stream: the service's future, and the writing of a socket.
impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        let (key, number) = {
            let mut state = self.lock();
            state.last += 1;
            let number = state.last;
            let handle = None;
            (state.tasks.insert(Running { number, handle }), number)
        };
        let task = Task {
            future,
            _place: StreamPlace {
                streams: self.clone(),
                key,
            },
        };
        // Not under the lock: a runtime that is going drops the task at once.
        let task = tokio::spawn(Reporting::new(task, "its stream is reset"));
        let mut state = self.lock();
        if state.is_over {
            task.abort();
        } else if let Some(running) = state.tasks.get_mut(key)
            // It may have ended, and another one be in its place.
            && running.number == number
        {
            running.handle = Some(task.abort_handle());
        }
    }
}

pin_project! {
    /// The task of a stream.
    struct Task<F> {
        #[pin]
        future: F,
        // Last: the server waits until everything else has been dropped.
        _place: StreamPlace,
    }
}

impl<F: Future<Output = ()>> Future for Task<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.project().future.poll(cx)
    }
}

/// A task's place among those that run.
struct StreamPlace {
    streams: Streams,
    key: usize,
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut state = self.streams.lock();
        // When the connection has ended there is none.
        let task = state.tasks.try_remove(self.key);
        if state.tasks.is_empty() {
            state.empty_since = Instant::now();
        }
        drop(state);
        drop(task);
    }
}

/// Ends the streams when it is dropped.
struct Guard(Streams);

impl Drop for Guard {
    fn drop(&mut self) {
        let tasks = {
            let mut state = self.0.lock();
            state.is_over = true;
            mem::take(&mut state.tasks)
        };
        for (_, Running { handle, .. }) in tasks {
            if let Some(handle) = handle {
                handle.abort();
            }
        }
    }
}
