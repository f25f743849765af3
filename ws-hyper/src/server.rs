//! Serving a Tower service, WebSockets included.
//!
//! [`serve`] accepts connections and hands each to hyper. It is also the outermost gate: a
//! session starts only when its acceptance is the response that leaves here. At shutdown it tells
//! the sockets too, which hyper has let go of.

mod connection;
#[cfg(feature = "http2")]
mod http2;
mod phase;
mod service;
#[cfg(feature = "rustls")]
mod tls;
mod transport;

use std::{
    fmt,
    future::{Future, IntoFuture, Pending},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::rt::TokioTimer;
use tokio::{
    sync::{Semaphore, watch},
    task::coop::consume_budget,
    time::{Instant, sleep, timeout},
};
use tower::Service;
use ws_tower::{BoxError, Shutdown, Tracker, gate::Gate};

#[cfg(feature = "http2")]
pub use self::http2::Http2;
#[cfg(feature = "rustls")]
pub use self::tls::{PeerCertificates, Tls, TlsError};
use self::{
    connection::{Connection, Protocols},
    phase::{Phase, Reporting},
    service::ConnectionService,
    transport::{Counted, Place},
};
use crate::Listener;

/// Serves `service` on the connections of `listener`, with upgrades, until the future is dropped
/// or a [shutdown](Serve::with_graceful_shutdown) is asked for.
///
/// | option | default |
/// |---|---|
/// | [`header_read_timeout`](Serve::header_read_timeout) | 10 s |
/// | [`max_head_size`](Serve::max_head_size) | 64 KiB |
/// | [`max_headers`](Serve::max_headers) | 100 |
/// | [`max_connections`](Serve::max_connections) | none |
/// | `http2` (feature `http2`) | the limits of `Http2` |
/// | `tls` (feature `rustls`) | none |
///
/// A service that fails or panics ends the connection it was called for, without a response, and
/// nothing else; over HTTP/2 the stream it was called for. A service whose readiness has to be waited for holds up only the requests that
/// wait.
///
/// The service takes a `Request<`[`Incoming`]`>`, the body of hyper, which is
/// `ws_hyper::hyper::body::Incoming`: tower's `service_fn` may have to be told.
///
/// Dropping the future, or aborting its task, closes the listener and cuts off the requests that
/// are being answered, and the sockets over HTTP/2. Other sockets that are open go on, for they are
/// not the server's any more; its [`tracker`](Serve::tracker) ends them.
///
/// ```no_run
/// use tokio::net::TcpListener;
/// use ws_tower::{Error, WebSocket, WebSocketLayer};
///
/// async fn echo(mut socket: WebSocket) -> Result<(), Error> {
///     while let Some(message) = socket.recv().await {
///         socket.send(message?).await?;
///     }
///     Ok(())
/// }
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let sockets = WebSocketLayer::new().route("/echo", echo);
/// let listener = TcpListener::bind("127.0.0.1:8000").await?;
/// ws_hyper::serve(listener, sockets.into_service()).await?;
/// # Ok(())
/// # }
/// ```
pub fn serve<L, S>(listener: L, service: S) -> Serve<L, S> {
    Serve {
        listener,
        service,
        signal: std::future::pending(),
        deadline: Duration::ZERO,
        tracker: Tracker::new(),
        options: Options::default(),
    }
}

/// A server that is not started yet: `.await` it. Made by [`serve`].
#[must_use = "a server does nothing unless it is awaited"]
pub struct Serve<L, S, F = Pending<()>> {
    listener: L,
    service: S,
    signal: F,
    deadline: Duration,
    tracker: Tracker,
    options: Options,
}

#[derive(Clone, Debug)]
struct Options {
    header_read_timeout: Duration,
    max_head_size: usize,
    max_headers: usize,
    max_connections: Option<usize>,
    #[cfg(feature = "http2")]
    http2: Option<Http2>,
    #[cfg(feature = "rustls")]
    tls: Option<Tls>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            header_read_timeout: Duration::from_secs(10),
            max_head_size: 64 << 10,
            max_headers: 100,
            max_connections: None,
            #[cfg(feature = "http2")]
            http2: Some(Http2::default()),
            #[cfg(feature = "rustls")]
            tls: None,
        }
    }
}

impl Options {
    fn protocols(&self) -> Protocols {
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_read_timeout)
            // A buffer may come out larger than was asked for, so its size limits nothing
            // exactly.
            .max_header_size(self.max_head_size)
            .max_buf_size(self.max_head_size)
            .max_headers(self.max_headers);
        Protocols {
            http1,
            #[cfg(feature = "http2")]
            idle_timeout: self.header_read_timeout,
            #[cfg(feature = "http2")]
            speaks_http2: self.http2.is_some(),
            #[cfg(not(feature = "http2"))]
            speaks_http2: false,
            #[cfg(feature = "http2")]
            http2: self.http2.clone(),
        }
    }
}

impl<L, S, F> Serve<L, S, F> {
    /// Sets how long the head of a request may take to arrive, from the connection's beginning or
    /// from the end of the response before. So it is also how long a connection may be idle.
    /// When it has passed, the connection is closed. At most a year. Default: 10 s.
    ///
    /// Over HTTP/2 it is how long a connection may have no stream, with a second time of the same
    /// length to go by itself.
    pub fn header_read_timeout(mut self, deadline: Duration) -> Self {
        // hyper adds it to the clock, which would overflow.
        self.options.header_read_timeout = deadline.min(MAX_TIMEOUT);
        self
    }

    /// Sets the largest head of a request over HTTP/1, in bytes, request line and empty line
    /// included; at least 8 KiB. A larger one is answered with 431, however it is cut into reads.
    /// Default: 64 KiB.
    pub fn max_head_size(mut self, bytes: usize) -> Self {
        // hyper panics below.
        self.options.max_head_size = bytes.max(8 << 10);
        self
    }

    /// Sets how many header lines a request may have over HTTP/1; at most 24,576. More are
    /// answered with 431. Default: 100.
    pub fn max_headers(mut self, lines: usize) -> Self {
        self.options.max_headers = lines.min(MAX_HEADERS);
        self
    }

    /// Sets how many connections are served at a time, WebSockets included; at least 1. At the
    /// limit no more are accepted until one ends: they wait in the listener's backlog. Default:
    /// no limit.
    pub fn max_connections(mut self, connections: usize) -> Self {
        // tokio panics above.
        let connections = connections.clamp(1, Semaphore::MAX_PERMITS);
        self.options.max_connections = Some(connections);
        self
    }

    /// Sets the limits of HTTP/2. Default: those of [`Http2::new`].
    #[cfg(feature = "http2")]
    pub fn http2(mut self, limits: Http2) -> Self {
        self.options.http2 = Some(limits);
        self
    }

    /// Speaks no HTTP/2. A client that does without asking is cut off, and TLS offers `http/1.1`
    /// alone, unless its [configuration](Tls::from_config) has a list of its own.
    #[cfg(feature = "http2")]
    pub fn http1_only(mut self) -> Self {
        self.options.http2 = None;
        self
    }

    /// Serves over TLS. The handshakes are done beside the accepting of connections, each within a
    /// deadline. Default: no TLS.
    #[cfg(feature = "rustls")]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.options.tls = Some(tls);
        self
    }

    /// Uses a tracker of the caller's, to count the sockets or to end them apart from the server.
    pub fn tracker(mut self, tracker: Tracker) -> Self {
        self.tracker = tracker;
        self
    }

    /// Shuts down when `signal` completes, and takes at most `deadline` for it.
    ///
    /// In this order: new upgrades are refused with 503; no more connections are accepted; every
    /// socket gets a Close with 1001; requests that are being answered are finished, and idle
    /// connections closed (HTTP/2: after a `GOAWAY`). What is left at the deadline is cut off, and gets up to 200 ms more to
    /// drop what it holds. The future resolves to the counts of the sockets.
    pub fn with_graceful_shutdown<G>(self, signal: G, deadline: Duration) -> Serve<L, S, G>
    where
        G: Future<Output = ()>,
    {
        Serve {
            listener: self.listener,
            service: self.service,
            signal,
            deadline,
            tracker: self.tracker,
            options: self.options,
        }
    }
}

impl<L, S, F, B> Serve<L, S, F>
where
    L: Listener,
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    F: Future<Output = ()>,
{
    async fn run(self) -> io::Result<Shutdown> {
        let Self {
            mut listener,
            service,
            signal,
            deadline,
            tracker,
            options,
        } = self;
        let gate = Gate::new(tracker.clone());
        let protocols = Arc::new(options.protocols());
        let room = options.max_connections.map(Semaphore::new).map(Arc::new);
        let (tell, phase) = watch::channel(Phase::Serving);
        let mut signal = pin!(signal);
        let mut pause = ACCEPT_PAUSE;
        loop {
            // A listener that is always ready must not keep the thread for itself.
            consume_budget().await;
            let accepted = tokio::select! {
                () = &mut signal => break,
                accepted = accept(&mut listener, room.as_ref()) => accepted,
            };
            let (io, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_of_the_connection(&error) => {
                    tracing::debug!(%error, "connection lost before it was accepted");
                    continue;
                }
                Err(error) => {
                    // Such as too many open files: it passes when connections end.
                    tracing::error!(%error, ?pause, "accepting connections failed, trying again");
                    tokio::select! {
                        () = &mut signal => break,
                        () = sleep(pause) => {}
                    }
                    pause = (pause * 2).min(MAX_ACCEPT_PAUSE);
                    continue;
                }
            };
            pause = ACCEPT_PAUSE;
            let connection = Connection {
                protocols: Arc::clone(&protocols),
                service: ConnectionService {
                    service: service.clone(),
                    gate: gate.clone(),
                    peer,
                    #[cfg(feature = "rustls")]
                    certificates: None,
                },
                phase: phase.clone(),
            };
            #[cfg(feature = "rustls")]
            if let Some(tls) = options.tls.clone() {
                tokio::spawn(Reporting::new(connection.serve_tls(io, tls), CLOSED));
                continue;
            }
            tokio::spawn(Reporting::new(connection.serve(io), CLOSED));
        }
        tracker.drain();
        drop((listener, phase));
        let start = Instant::now();
        let requests = async {
            // First polled behind the sockets, so that these have been told.
            tell.send_replace(Phase::Stopping);
            tell.closed().await;
        };
        let requests = timeout(deadline, requests);
        let (mut shutdown, in_time) = tokio::join!(tracker.shutdown(deadline), requests);
        if in_time.is_err() {
            tell.send_replace(Phase::Cut);
            let _ = timeout(LAST_ORDERS, tell.closed()).await;
        }
        // What was accepted before all this may have opened only now.
        let rest = deadline.saturating_sub(start.elapsed());
        let late = tracker.shutdown(rest).await;
        shutdown.closed += late.closed;
        // Those that were cut and have yet to go are among them.
        shutdown.cut = shutdown.cut.max(late.cut);
        Ok(shutdown)
    }
}

/// How long to pause when accepting fails for want of resources, at first. It doubles as long as
/// that goes on.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A second: nobody waits much longer than need be, and the log gets a line a second.
const MAX_ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// How long requests that were cut off get to drop what they hold.
const LAST_ORDERS: Duration = Duration::from_millis(100);

/// As many as `http::HeaderMap` takes at once: three quarters of its 32,768 places. It panics
/// beyond.
const MAX_HEADERS: usize = 24_576;

/// Deadlines are no longer: they are added to the clock, which would overflow.
const MAX_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

const CLOSED: &str = "its connection is closed";

/// Waits for room, then for a connection.
async fn accept<L: Listener>(
    listener: &mut L,
    room: Option<&Arc<Semaphore>>,
) -> io::Result<(Counted<L::Io>, Option<SocketAddr>)> {
    let place = match room {
        None => None,
        Some(room) => Some(Place::among(room).await),
    };
    let (io, peer) = listener.accept().await?;
    let io = Counted { io, _place: place };
    Ok((io, peer))
}

/// Whether an error of `accept` says something about one connection only.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

impl<L, S, F, B> IntoFuture for Serve<L, S, F>
where
    L: Listener,
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    F: Future<Output = ()> + Send + 'static,
{
    type Output = io::Result<Shutdown>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl<L, S, F> fmt::Debug for Serve<L, S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
