//! `ws_hyper::serve` over real sockets and over connections in memory. The client is bytes alone.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/memory.rs"]
mod memory;

use std::{
    convert::Infallible,
    fmt::Write,
    future::{Future, pending, ready},
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use self::memory::{Dial, Memory};
use axum::{Router, routing::get};
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::{Notify, mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tower::{Layer, ServiceBuilder, service_fn};
use ws_hyper::{Listener, serve};
use ws_tests::raw::{Raw, handshake, masked, until, within};
use ws_tower::{Error, PeerAddr, Shutdown, Tracker, WebSocket, WebSocketLayer};

async fn echo(mut socket: WebSocket) -> Result<(), Error> {
    while let Some(message) = socket.recv().await {
        socket.send(message?).await?;
    }
    Ok(())
}

fn sockets() -> WebSocketLayer {
    WebSocketLayer::new().route("/echo", echo)
}

/// A page and an echo.
fn app() -> Router {
    Router::new()
        .route("/", get(async || "index"))
        .layer(sockets())
}

async fn bind() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A page is served, and the connection goes on.
async fn serves<Io>(raw: &mut Raw<Io>)
where
    Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    raw.write(GET).await;
    let head = raw.head().await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert_eq!(raw.read(5).await, b"index");
}

mod listeners {
    use super::*;

    /// Tells what the server was given.
    struct Watched(TcpListener, mpsc::UnboundedSender<bool>);

    impl Listener for Watched {
        type Io = TcpStream;

        async fn accept(&mut self) -> io::Result<(TcpStream, Option<SocketAddr>)> {
            let accepted = Listener::accept(&mut self.0).await?;
            self.1.send(accepted.0.nodelay()?).unwrap();
            Ok(accepted)
        }
    }

    #[tokio::test]
    async fn a_tcp_connection_has_nodelay_and_carries_pages_and_sockets() {
        let (listener, address) = bind().await;
        let (tell, mut told) = mpsc::unbounded_channel();
        tokio::spawn(serve(Watched(listener, tell), app()).into_future());
        let mut raw = Raw::connect(address).await;
        serves(&mut raw).await;
        raw.upgrade("/echo").await;
        raw.echoes().await;
        raw.close().await;
        assert_eq!(told.recv().await, Some(true));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_unix_socket_carries_pages_and_sockets_without_a_peer() {
        let tell = async |socket: WebSocket| {
            let _ = socket.send(format!("{:?}", socket.peer())).await;
        };
        let app = app().layer(WebSocketLayer::new().route("/peer", tell));
        let folder = std::env::temp_dir().join(format!("ws-tests-{}", std::process::id()));
        // One that was killed left it behind, and had the same number.
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("socket");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        tokio::spawn(serve(listener, app).into_future());
        let stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        let mut raw = Raw(stream);
        serves(&mut raw).await;
        raw.upgrade("/echo").await;
        raw.echoes().await;
        raw.close().await;
        let mut raw = Raw(tokio::net::UnixStream::connect(&path).await.unwrap());
        raw.upgrade("/peer").await;
        assert_eq!(raw.frame().await, (0x81, b"None".to_vec()));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn a_listener_that_was_bound_before_is_served() {
        let bound = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = bound.local_addr().unwrap();
        // Whoever connects before the server starts waits in the backlog.
        let mut early = Raw::connect(address).await;
        bound.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(bound).unwrap();
        tokio::spawn(serve(listener, app()).into_future());
        early.upgrade("/echo").await;
        early.echoes().await;
    }

    #[tokio::test]
    async fn a_listener_of_ones_own_is_served() {
        let (dial, memory) = Dial::new();
        tokio::spawn(serve(memory, app()).into_future());
        let mut raw = dial.dial();
        serves(&mut raw).await;
        raw.upgrade("/echo").await;
        raw.echoes().await;
        raw.close().await;
    }

    /// Fails in all the ways that `accept` does, then gives a connection.
    struct Failing(Vec<io::Error>, Memory, Arc<AtomicUsize>);

    impl Listener for Failing {
        type Io = DuplexStream;

        async fn accept(&mut self) -> io::Result<(DuplexStream, Option<SocketAddr>)> {
            self.2.fetch_add(1, Ordering::Relaxed);
            match self.0.pop() {
                Some(error) => Err(error),
                None => self.1.accept().await,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn running_out_of_descriptors_is_survived_after_a_pause_that_grows() {
        const EMFILE: i32 = 24;
        let (dial, memory) = Dial::new();
        let errors = (0..8).map(|_| io::Error::from_raw_os_error(EMFILE));
        let tries = Arc::new(AtomicUsize::new(0));
        let listener = Failing(errors.collect(), memory, Arc::clone(&tries));
        let start = Instant::now();
        tokio::spawn(serve(listener, app()).into_future());
        let mut raw = dial.dial();
        serves(&mut raw).await;
        // 50, 100, 200, 400, 800 ms, and three times a second.
        let pauses = Duration::from_millis(50 * 31 + 3000);
        let elapsed = start.elapsed();
        assert!(
            (pauses..pauses + Duration::from_millis(50)).contains(&elapsed),
            "{elapsed:?}"
        );
        assert_eq!(tries.load(Ordering::Relaxed), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn connections_lost_before_they_are_accepted_cost_no_pause() {
        let (dial, memory) = Dial::new();
        let errors = (0..100_000).map(|_| io::ErrorKind::ConnectionAborted.into());
        let listener = Failing(errors.collect(), memory, Arc::default());
        let start = Instant::now();
        tokio::spawn(serve(listener, app()).into_future());
        serves(&mut dial.dial()).await;
        assert!(start.elapsed() < Duration::from_millis(50));
    }

    /// Never waits.
    struct Endless;

    impl Listener for Endless {
        type Io = DuplexStream;

        async fn accept(&mut self) -> io::Result<(DuplexStream, Option<SocketAddr>)> {
            Err(io::ErrorKind::ConnectionAborted.into())
        }
    }

    #[tokio::test]
    async fn a_listener_that_never_waits_lets_others_run_and_the_server_end() {
        let signal = sleep(Duration::from_millis(50));
        let server = serve(Endless, app()).with_graceful_shutdown(signal, Duration::ZERO);
        within(tokio::spawn(server.into_future()))
            .await
            .unwrap()
            .unwrap();
    }

    /// Takes several steps to accept, as one does that reads the header of a proxy.
    struct Stepwise(Memory);

    impl Listener for Stepwise {
        type Io = DuplexStream;

        async fn accept(&mut self) -> io::Result<(DuplexStream, Option<SocketAddr>)> {
            let (mut io, _) = self.0.accept().await?;
            let mut byte = [0];
            io.read_exact(&mut byte).await?;
            io.read_exact(&mut byte).await?;
            Ok((io, Some(SocketAddr::from(([192, 0, 2, byte[0]], 1)))))
        }
    }

    #[tokio::test]
    async fn an_accept_of_many_steps_is_not_dropped_when_connections_end_meanwhile() {
        let (dial, memory) = Dial::new();
        let tell = async |socket: WebSocket| {
            let _ = socket.send(socket.peer().unwrap().to_string()).await;
        };
        let app = WebSocketLayer::new().route("/", tell).into_service();
        tokio::spawn(serve(Stepwise(memory), app).into_future());
        let mut first = dial.dial();
        first.write(b"\0\x07").await;
        let mut second = dial.dial();
        second.write(b"\0").await;
        first.upgrade("/").await;
        assert_eq!(first.frame().await.1, b"192.0.2.7:1");
        first.close().await;
        sleep(Duration::from_millis(20)).await;
        second.write(b"\x08").await;
        second.upgrade("/").await;
        assert_eq!(second.frame().await.1, b"192.0.2.8:1");
    }
}

mod heads {
    use super::*;

    /// A head of exactly this many bytes, in lines of at most 4 KiB.
    fn head_of(bytes: usize) -> Vec<u8> {
        let mut head = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
        while head.len() + 2 < bytes {
            let rest = bytes - 2 - head.len();
            // No line may be left over that is too short to be one.
            let line = if rest > 4096 + 16 { 4096 } else { rest };
            head.extend_from_slice(b"X: ");
            head.extend(std::iter::repeat_n(b'x', line - 5));
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        assert_eq!(head.len(), bytes);
        head
    }

    #[tokio::test]
    async fn a_head_over_the_limit_is_431_however_it_is_cut_into_reads() {
        for limit in [8 << 10, 20_000, 64 << 10] {
            let (dial, memory) = Dial::new();
            tokio::spawn(serve(memory, app()).max_head_size(limit).into_future());
            for (size, status) in [
                (limit - 1, "200"),
                (limit, "200"),
                (limit + 1, "431"),
                (limit + 4000, "431"),
                (limit * 2, "431"),
                (limit * 8, "431"),
            ] {
                for piece in [usize::MAX, 60_000, 8192, 1000, 37] {
                    let mut raw = dial.dial();
                    for piece in head_of(size).chunks(piece) {
                        // The server may have ended it already.
                        let _ = within(raw.0.write_all(piece)).await;
                        tokio::task::yield_now().await;
                    }
                    let head = raw.head().await;
                    let expected = format!("http/1.1 {status} ");
                    assert!(
                        head.starts_with(&expected),
                        "{limit} {size} {piece}: {head}"
                    );
                }
            }
        }
    }

    fn lines(count: usize) -> String {
        let mut head = "GET / HTTP/1.1\r\nHost: a\r\n".to_owned();
        for line in 1..count {
            writeln!(head, "X-{line}: 1\r").unwrap();
        }
        head + "\r\n"
    }

    #[tokio::test]
    async fn a_head_of_too_many_lines_is_431() {
        let (dial, memory) = Dial::new();
        tokio::spawn(serve(memory, app()).into_future());
        for (count, status) in [(100, "200"), (101, "431"), (100_000, "431")] {
            let mut raw = dial.dial();
            let _ = raw.0.write_all(lines(count).as_bytes()).await;
            let head = raw.head().await;
            assert!(head.starts_with(&format!("http/1.1 {status} ")), "{head}");
        }
        serves(&mut dial.dial()).await;
    }

    #[tokio::test]
    async fn a_limit_of_any_size_is_kept_without_a_panic() {
        let (dial, memory) = Dial::new();
        let server = serve(memory, app())
            .header_read_timeout(Duration::MAX)
            .max_head_size(usize::MAX)
            .max_headers(usize::MAX)
            .max_connections(usize::MAX)
            .with_graceful_shutdown(pending(), Duration::MAX);
        tokio::spawn(server.into_future());
        for (count, status) in [(24_576, "200"), (24_577, "431"), (100_000, "431")] {
            let mut raw = dial.dial();
            let _ = within(raw.0.write_all(lines(count).as_bytes())).await;
            let head = raw.head().await;
            assert!(head.starts_with(&format!("http/1.1 {status} ")), "{head}");
        }
        let (dial, memory) = Dial::new();
        let server = serve(memory, app())
            .max_head_size(0)
            .max_connections(0)
            .max_headers(1);
        tokio::spawn(server.into_future());
        serves(&mut dial.dial()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_arrive_in_time_ends_the_connection_and_no_socket() {
        let (dial, memory) = Dial::new();
        let deadline = Duration::from_millis(300);
        let server = serve(memory, app()).header_read_timeout(deadline);
        tokio::spawn(server.into_future());

        let mut socket = dial.open("/echo").await;
        let start = Instant::now();
        let silent = async {
            dial.dial().rest().await;
            start.elapsed()
        };
        let half = async {
            let mut raw = dial.dial();
            raw.write("GET / HTTP/1.1\r\nHo").await;
            raw.rest().await;
            start.elapsed()
        };
        let dripping = async {
            let mut raw = dial.dial();
            // A byte now and then is no life.
            while raw.0.write_all(b"G").await.is_ok() {
                if timeout(Duration::from_millis(20), raw.0.read_u8())
                    .await
                    .is_ok()
                {
                    break;
                }
            }
            start.elapsed()
        };
        let idle = async {
            let mut raw = dial.dial();
            serves(&mut raw).await;
            raw.rest().await;
            start.elapsed()
        };
        let (silent, half, dripping, idle) = tokio::join!(silent, half, dripping, idle);
        for (name, elapsed) in [
            ("silent", silent),
            ("half", half),
            ("dripping", dripping),
            ("idle", idle),
        ] {
            let in_time = deadline..deadline + Duration::from_millis(50);
            assert!(in_time.contains(&elapsed), "{name}: {elapsed:?}");
        }
        socket.echoes().await;
    }
}

mod limits {
    use super::*;

    #[tokio::test]
    async fn at_the_limit_accepting_pauses_and_sockets_count_until_they_end() {
        let (listener, address) = bind().await;
        tokio::spawn(serve(listener, app()).max_connections(2).into_future());
        let socket = Raw::open(address, "/echo").await;
        let mut page = Raw::connect(address).await;
        serves(&mut page).await;
        let mut waiting = Raw::connect(address).await;
        waiting.write(GET).await;
        let answer = timeout(Duration::from_millis(200), waiting.0.read_u8()).await;
        assert!(answer.is_err(), "the third is not accepted");

        // One ends as a socket …
        socket.close().await;
        assert!(waiting.head().await.starts_with("http/1.1 200 "));
        let mut waiting = Raw::connect(address).await;
        waiting.write(GET).await;
        let answer = timeout(Duration::from_millis(200), waiting.0.read_u8()).await;
        assert!(answer.is_err());
        // … the other as HTTP.
        drop(page);
        assert!(waiting.head().await.starts_with("http/1.1 200 "));
    }

    #[tokio::test]
    async fn every_way_to_end_gives_the_place_back() {
        let (listener, address) = bind().await;
        let panics = async |_: WebSocket| -> () { panic!("on purpose") };
        let leaves = async |_: WebSocket| {};
        let layer = WebSocketLayer::new()
            .route("/echo", echo)
            .route("/panics", panics)
            .route("/leaves", leaves)
            .route("/unfinished", async |_: WebSocket| {
                Err::<(), _>("no reason")
            });
        let app = Router::new().layer(layer);
        tokio::spawn(serve(listener, app).max_connections(1).into_future());
        for _ in 0..3 {
            for path in ["/panics", "/leaves", "/unfinished", "/echo"] {
                // Reset or closed at once, by the client.
                let raw = Raw::open(address, path).await;
                drop(raw);
            }
            let mut raw = Raw::connect(address).await;
            raw.write("no HTTP\r\n\r\n").await;
            raw.rest().await;
            drop(Raw::connect(address).await);
        }
        Raw::open(address, "/echo").await.echoes().await;
    }

    #[tokio::test]
    async fn a_socket_is_one_task_and_nothing_is_left_of_its_connection() {
        let (dial, memory) = Dial::new();
        let tracker = Tracker::new();
        let server = serve(memory, app()).tracker(tracker.clone());
        tokio::spawn(server.into_future());
        let tasks = || Handle::current().metrics().num_alive_tasks();
        let mut open = Vec::new();
        serves(&mut dial.dial()).await;
        until(|| tasks() == 1).await;
        for _ in 0..100 {
            let mut raw = dial.dial();
            raw.upgrade("/echo").await;
            open.push(raw);
        }
        until(|| tasks() == 101).await;
        assert_eq!(tracker.len(), 100);
        drop(open);
        until(|| tasks() == 1).await;
        assert!(tracker.is_empty());
    }
}

mod shutdown {
    use super::*;

    struct Server<A> {
        address: A,
        stop: oneshot::Sender<()>,
        task: JoinHandle<io::Result<Shutdown>>,
        tracker: Tracker,
    }

    impl Server<SocketAddr> {
        async fn start(app: Router, deadline: Duration) -> Self {
            let (listener, address) = bind().await;
            Self::at(address, listener, app, deadline)
        }
    }

    impl<A> Server<A> {
        fn at(address: A, listener: impl Listener, app: Router, deadline: Duration) -> Self {
            let (stop, stopped) = oneshot::channel();
            let tracker = Tracker::new();
            let server = serve(listener, app)
                .tracker(tracker.clone())
                .with_graceful_shutdown(async { stopped.await.unwrap() }, deadline);
            let task = tokio::spawn(server.into_future());
            Self {
                address,
                stop,
                task,
                tracker,
            }
        }
    }

    fn goodbye() -> (u8, Vec<u8>) {
        let mut close = vec![3, 0xe9];
        close.extend_from_slice(b"server is shutting down");
        (0x88, close)
    }

    #[tokio::test]
    async fn it_goes_in_order_and_counts() {
        let (entered, leave) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let slow = {
            let (entered, leave) = (Arc::clone(&entered), Arc::clone(&leave));
            async move || {
                entered.notify_one();
                leave.notified().await;
                "index"
            }
        };
        let late = {
            let (entered, leave) = (Arc::clone(&entered), Arc::clone(&leave));
            async move |upgrade: ws_tower::WebSocketUpgrade| {
                entered.notify_one();
                leave.notified().await;
                upgrade.on_upgrade::<_, _, axum::body::Body>(echo)
            }
        };
        let app = Router::new()
            .route("/", get(async || "index"))
            .route("/slow", get(slow))
            .route("/late", axum::routing::any(late))
            .layer(sockets());
        let server = Server::start(app, Duration::from_secs(60)).await;
        let address = server.address;
        let mut first = Raw::open(address, "/echo").await;
        let mut second = Raw::open(address, "/echo").await;
        let mut idle = Raw::connect(address).await;
        serves(&mut idle).await;
        let mut unused = Raw::connect(address).await;
        let mut slow = Raw::connect(address).await;
        slow.write("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
        within(entered.notified()).await;
        let mut late = Raw::connect(address).await;
        late.write(handshake("/late")).await;
        within(entered.notified()).await;

        server.stop.send(()).unwrap();
        assert_eq!(first.frame().await, goodbye());
        assert_eq!(second.frame().await, goodbye());
        // No more connections, and those without a request are closed.
        assert!(idle.rest().await.is_empty());
        assert!(unused.rest().await.is_empty());
        assert!(TcpStream::connect(address).await.is_err());
        // The handshake is not over, and a request is still being answered.
        answer(first).await;
        answer(second).await;
        sleep(Duration::from_millis(50)).await;
        assert!(!server.task.is_finished());

        // An upgrade that waited meanwhile is refused, the page is served.
        leave.notify_waiters();
        let head = late.head().await;
        assert!(head.starts_with("http/1.1 503 "), "{head}");
        let head = slow.head().await;
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        assert!(head.contains("connection: close"), "{head}");
        assert_eq!(slow.rest().await, b"index");
        let shutdown = within(server.task).await.unwrap().unwrap();
        assert_eq!((shutdown.closed, shutdown.cut), (2, 0));
        assert!(server.tracker.is_empty());
    }

    /// The client's part of the closing handshake.
    async fn answer<Io>(mut raw: Raw<Io>)
    where
        Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        raw.write(masked(0x88, &[3, 0xe9])).await;
        assert!(raw.rest().await.is_empty());
    }

    #[tokio::test]
    async fn a_socket_accepted_before_and_opened_after_is_told_and_waited_for() {
        let leave = Arc::new(Notify::new());
        let accepted = Arc::new(Notify::new());
        let late = {
            let (accepted, leave) = (Arc::clone(&accepted), Arc::clone(&leave));
            async move |upgrade: ws_tower::WebSocketUpgrade| {
                let response = upgrade.on_upgrade::<_, _, axum::body::Body>(echo);
                accepted.notify_one();
                leave.notified().await;
                response
            }
        };
        let app = Router::new().route("/late", axum::routing::any(late));
        let server = Server::start(app, Duration::from_secs(60)).await;
        let mut raw = Raw::connect(server.address).await;
        raw.write(handshake("/late")).await;
        within(accepted.notified()).await;
        server.stop.send(()).unwrap();
        until(|| server.tracker.is_draining()).await;
        sleep(Duration::from_millis(50)).await;
        leave.notify_waiters();
        let head = raw.head().await;
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert_eq!(raw.frame().await, goodbye());
        sleep(Duration::from_millis(50)).await;
        assert!(!server.task.is_finished());
        answer(raw).await;
        let shutdown = within(server.task).await.unwrap().unwrap();
        assert_eq!((shutdown.closed, shutdown.cut), (1, 0));
    }

    /// Says when it is dropped.
    struct Told(Arc<AtomicBool>);

    impl Drop for Told {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_deadline_handlers_and_requests_that_do_not_end_are_cut() {
        let (socket, page) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let stubborn = {
            let dropped = Arc::clone(&socket);
            move |socket: WebSocket| {
                let told = Told(Arc::clone(&dropped));
                async move {
                    let _kept = (told, socket);
                    pending::<()>().await;
                }
            }
        };
        let endless = {
            let dropped: Arc<AtomicBool> = Arc::clone(&page);
            move || {
                let told = Told(Arc::clone(&dropped));
                async move {
                    let _told = told;
                    pending::<&str>().await
                }
            }
        };
        let app = Router::new()
            .route("/endless", get(endless))
            .layer(sockets().route("/stubborn", stubborn));
        let deadline = Duration::from_millis(400);
        let (dial, memory) = Dial::new();
        let server = Server::at(dial, memory, app, deadline);
        let mut cut = server.address.open("/stubborn").await;
        let mut good = server.address.open("/echo").await;
        let mut request = server.address.dial();
        request
            .write("GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
            .await;
        sleep(Duration::from_millis(50)).await;
        server.stop.send(()).unwrap();
        let start = Instant::now();
        assert_eq!(cut.frame().await, goodbye());
        assert_eq!(good.frame().await, goodbye());
        answer(good).await;
        let shutdown = within(server.task).await.unwrap().unwrap();
        let elapsed = start.elapsed();
        // And twice 100 ms for destructors.
        assert!(
            elapsed >= deadline && elapsed <= deadline + Duration::from_millis(210),
            "{elapsed:?}"
        );
        assert_eq!((shutdown.closed, shutdown.cut), (1, 1));
        assert!(socket.load(Ordering::Relaxed) && page.load(Ordering::Relaxed));
        assert!(cut.rest().await.is_empty() && request.rest().await.is_empty());
        assert!(server.tracker.is_empty());
    }

    #[tokio::test]
    async fn with_nothing_to_wait_for_it_returns_at_once() {
        let server = Server::start(app(), Duration::from_secs(60)).await;
        let mut idle = Raw::connect(server.address).await;
        serves(&mut idle).await;
        server.stop.send(()).unwrap();
        let shutdown = within(server.task).await.unwrap().unwrap();
        assert_eq!((shutdown.closed, shutdown.cut), (0, 0));
        assert!(idle.rest().await.is_empty());
    }

    #[tokio::test]
    async fn the_server_can_be_told_while_it_is_full_or_cannot_accept() {
        struct Broken;

        impl Listener for Broken {
            type Io = DuplexStream;

            async fn accept(&mut self) -> io::Result<(DuplexStream, Option<SocketAddr>)> {
                Err(io::Error::other("out of order"))
            }
        }

        let signal = sleep(Duration::from_millis(100));
        let server = serve(Broken, app()).with_graceful_shutdown(signal, Duration::ZERO);
        within(server.into_future()).await.unwrap();

        let (dial, memory) = Dial::new();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = serve(memory, app())
            .max_connections(1)
            .with_graceful_shutdown(async { drop(stopped.await) }, Duration::ZERO);
        let server = tokio::spawn(server.into_future());
        let mut raw = dial.dial();
        raw.upgrade("/echo").await;
        stop.send(()).unwrap();
        let shutdown = within(server).await.unwrap().unwrap();
        assert_eq!(shutdown.closed + shutdown.cut, 1);
    }

    #[tokio::test]
    async fn a_server_that_is_dropped_cuts_requests_and_leaves_sockets_to_the_tracker() {
        let app = app().route("/endless", get(pending::<&str>));
        let server = Server::start(app, Duration::ZERO).await;
        let mut socket = Raw::open(server.address, "/echo").await;
        let mut request = Raw::connect(server.address).await;
        request
            .write("GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
            .await;
        sleep(Duration::from_millis(50)).await;
        server.task.abort();
        assert!(request.rest().await.is_empty());
        assert!(TcpStream::connect(server.address).await.is_err());
        socket.echoes().await;
        let shutdown = tokio::spawn({
            let tracker = server.tracker.clone();
            async move { tracker.shutdown(Duration::from_secs(60)).await }
        });
        assert_eq!(socket.frame().await, goodbye());
        answer(socket).await;
        assert_eq!(within(shutdown).await.unwrap().closed, 1);
        until(|| Handle::current().metrics().num_alive_tasks() == 0).await;
    }
}

mod services {
    use super::*;

    #[tokio::test]
    async fn the_peer_is_in_the_request_and_at_the_socket() {
        let (listener, address) = bind().await;
        let of_request = async |request: axum::extract::Request| {
            let PeerAddr(peer) = *request.extensions().get().unwrap();
            peer.to_string()
        };
        let of_socket = async |socket: WebSocket| {
            let _ = socket.send(socket.peer().unwrap().to_string()).await;
        };
        let app = Router::new()
            .route("/", get(of_request))
            .layer(WebSocketLayer::new().route("/peer", of_socket));
        tokio::spawn(serve(listener, app).into_future());
        let mut raw = Raw::connect(address).await;
        let own = raw.0.local_addr().unwrap().to_string();
        raw.write(GET).await;
        raw.head().await;
        assert_eq!(raw.read(own.len()).await, own.as_bytes());
        raw.upgrade("/peer").await;
        assert_eq!(raw.frame().await, (0x81, own.into_bytes()));
    }

    /// An inner service that has a failure for every occasion.
    async fn fails(request: Request<Incoming>) -> Result<Response<String>, io::Error> {
        match request.uri().path() {
            "/error" => Err(io::Error::other("on purpose")),
            "/panic" => panic!("on purpose"),
            _ => Ok(Response::new("index".to_owned())),
        }
    }

    #[tokio::test]
    async fn a_service_that_fails_or_panics_ends_its_connection_and_no_other() {
        let (dial, memory) = Dial::new();
        let service = ServiceBuilder::new()
            .layer(sockets())
            .layer_fn(|inner| inner)
            .service(service_fn(fails));
        let server = tokio::spawn(serve(memory, service).into_future());
        let mut socket = dial.dial();
        socket.upgrade("/echo").await;
        let mut page = dial.dial();
        serves(&mut page).await;
        for path in ["/error", "/panic"] {
            for request in [
                format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"),
                handshake(path),
            ] {
                let mut raw = dial.dial();
                raw.write(request).await;
                assert!(raw.rest().await.is_empty());
            }
        }
        serves(&mut page).await;
        socket.echoes().await;
        assert!(!server.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stack_of_tower_is_waited_for_until_it_is_ready() {
        let (dial, memory) = Dial::new();
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let inner = {
            let most = Arc::clone(&most);
            service_fn(move |request: Request<Incoming>| {
                let (now, most) = (Arc::clone(&now), Arc::clone(&most));
                async move {
                    most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                    if request.uri().path() == "/never" {
                        // The timeout drops it.
                        struct Leave(Arc<AtomicUsize>);
                        impl Drop for Leave {
                            fn drop(&mut self) {
                                self.0.fetch_sub(1, Ordering::Relaxed);
                            }
                        }
                        let _leave = Leave(now);
                        return pending().await;
                    }
                    sleep(Duration::from_millis(20)).await;
                    now.fetch_sub(1, Ordering::Relaxed);
                    Ok::<_, Infallible>(Response::new("index".to_owned()))
                }
            })
        };
        let service = ServiceBuilder::new()
            .concurrency_limit(2)
            .timeout(Duration::from_millis(500))
            .layer(sockets())
            .service(inner);
        tokio::spawn(serve(memory, service).into_future());
        let mut all = Vec::new();
        for _ in 0..10 {
            let mut raw = dial.dial();
            all.push(tokio::spawn(async move { serves(&mut raw).await }));
        }
        for one in all {
            within(one).await.unwrap();
        }
        assert_eq!(most.load(Ordering::Relaxed), 2);
        // A socket counts while it is a request, not while it runs.
        let mut open = Vec::new();
        for _ in 0..4 {
            let mut raw = dial.dial();
            raw.upgrade("/echo").await;
            open.push(raw);
        }
        for raw in &mut open {
            raw.echoes().await;
        }
        let mut raw = dial.dial();
        raw.write("GET /never HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(raw.rest().await.is_empty());
        serves(&mut dial.dial()).await;
        open[0].echoes().await;
    }

    #[tokio::test]
    async fn a_clone_that_was_never_ready_is_not_called() {
        /// Only an instance that has been asked may be called.
        #[derive(Debug, Default)]
        struct Strict(bool);

        impl Clone for Strict {
            fn clone(&self) -> Self {
                Self(false)
            }
        }

        impl tower::Service<Request<Incoming>> for Strict {
            type Response = Response<String>;
            type Error = Infallible;
            type Future = std::future::Ready<Result<Response<String>, Infallible>>;

            fn poll_ready(
                &mut self,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Result<(), Infallible>> {
                self.0 = true;
                std::task::Poll::Ready(Ok(()))
            }

            fn call(&mut self, _: Request<Incoming>) -> Self::Future {
                assert!(std::mem::take(&mut self.0), "called without being ready");
                ready(Ok(Response::new("index".to_owned())))
            }
        }

        let (dial, memory) = Dial::new();
        tokio::spawn(serve(memory, sockets().layer(Strict::default())).into_future());
        let mut raw = dial.dial();
        serves(&mut raw).await;
        serves(&mut raw).await;
        raw.upgrade("/echo").await;
    }

    #[tokio::test]
    async fn a_response_changed_outside_the_layer_opens_no_session() {
        let forbid = async |mut response: axum::response::Response| {
            *response.status_mut() = http::StatusCode::FORBIDDEN;
            response
        };
        let app = app().layer(axum::middleware::map_response(forbid));
        let (dial, memory) = Dial::new();
        let tracker = Tracker::new();
        let server = serve(memory, app).tracker(tracker.clone());
        tokio::spawn(server.into_future());
        for connection in ["Upgrade", "Upgrade, close"] {
            let request = handshake("/echo").replace(": Upgrade", &format!(": {connection}"));
            let mut raw = dial.dial();
            raw.write(request).await;
            assert!(raw.head().await.starts_with("http/1.1 403 "));
            let _ = raw.0.write_all(&masked(0x81, b"Hello")).await;
            let rest = raw.rest().await;
            assert!(
                rest.is_empty() || rest.starts_with(b"HTTP/1.1 400 "),
                "{rest:?}"
            );
        }
        assert!(tracker.is_empty());
    }

    /// The accept loop that hyper's users write.
    async fn by_hand(listener: TcpListener, app: Router) {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(app.clone());
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection.with_upgrades());
        }
    }

    #[tokio::test]
    async fn one_application_runs_unchanged_here_under_axum_and_under_hyper() {
        let app = app();
        let mut addresses = Vec::new();
        for server in 0..3 {
            let (listener, address) = bind().await;
            addresses.push(address);
            let app = app.clone();
            match server {
                0 => drop(tokio::spawn(serve(listener, app).into_future())),
                1 => drop(tokio::spawn(axum::serve(listener, app).into_future())),
                _ => drop(tokio::spawn(by_hand(listener, app))),
            }
        }
        for address in addresses {
            let mut raw = Raw::connect(address).await;
            serves(&mut raw).await;
            serves(&mut raw).await;
            raw.upgrade("/echo").await;
            raw.echoes().await;
            raw.close().await;
            let head = Raw::ask(address, handshake("/nowhere")).await;
            assert!(head.starts_with("http/1.1 404 "), "{head}");
        }
    }

    #[tokio::test]
    async fn the_future_of_the_server_is_send_and_small_in_its_callers_hands() {
        fn is_send<T: Send + 'static>(value: T) -> T {
            value
        }
        let (_dial, memory) = Dial::new();
        let server = is_send(serve(memory, app()).into_future());
        let running: std::pin::Pin<Box<dyn Future<Output = _> + Send>> = server;
        assert_eq!(size_of_val(&running), 2 * size_of::<usize>());
    }
}
