//! WebSockets over HTTP/2 (RFC 8441) behind `ws_hyper::serve`. The client is the crate `h2`, or
//! bytes alone.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/memory.rs"]
mod memory;

use std::{
    convert::Infallible,
    future::pending,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use self::memory::Dial;
use axum::{
    Router,
    routing::{any, get},
};
use bytes::{Buf, Bytes};
use h2::Reason;
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc, oneshot},
    time::{Instant, sleep},
};
use tower::{Layer, service_fn};
use ws_hyper::{serve, server::Http2};
use ws_tests::{
    http2::{Client, connect},
    raw::{PATIENCE, Raw, masked, until, within},
};
use ws_tower::{
    Closed, Config, Error, Message, OriginPolicy, Shutdown, WebSocket, WebSocketLayer,
    WebSocketUpgrade,
    ws_core::{Connection, Role},
};

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

/// Serves `app`, and gives the address.
macro_rules! served {
    ($app:expr) => {{
        let (listener, address) = bind().await;
        tokio::spawn(serve(listener, $app).into_future());
        address
    }};
}

/// RFC 9113 §3.4.
const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A literal header field without indexing (RFC 7541 §6.2.2).
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        assert!(text.len() < 127);
        field.push(u8::try_from(text.len()).unwrap());
        field.extend(text.as_bytes());
    }
    field
}

fn fields(path: &str) -> Vec<u8> {
    [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "localhost"),
        (":path", path),
    ]
    .iter()
    .flat_map(|(name, value)| field(name, value))
    .collect()
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The next frame of the server: its type and its payload; nothing at the end.
async fn next_frame<Io: AsyncRead + AsyncWrite + Unpin>(
    raw: &mut Raw<Io>,
) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 9];
    within(raw.0.read_exact(&mut head)).await.ok()?;
    let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    Some((head[3], raw.read(len.try_into().unwrap()).await))
}

/// The code of the `GOAWAY` that comes, if one does before the end.
async fn goaway<Io: AsyncRead + AsyncWrite + Unpin>(raw: &mut Raw<Io>) -> Option<u32> {
    loop {
        if let (GOAWAY, payload) = next_frame(raw).await? {
            return Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
    }
}

/// A message of any size.
fn message(payload: &[u8]) -> Bytes {
    let mut client = Connection::new(Role::Client, Config::new().outgoing_high_water(usize::MAX));
    client.send(Message::binary(payload.to_vec())).unwrap();
    let mut transmit = client.transmit();
    transmit.copy_to_bytes(transmit.remaining())
}

mod one_port {
    use super::*;

    #[tokio::test]
    async fn pages_and_several_sockets_share_a_connection_beside_http1() {
        let address = served!(app());
        let mut client = Client::connect(address).await;
        client.serves("/", "index").await;
        let mut first = client.open("/echo").await;
        let mut second = client.open("/echo").await;
        first.echoes().await;
        second.echoes().await;
        client.serves("/", "index").await;
        first.close().await;
        second.echoes().await;
        let mut http1 = Raw::open(address, "/echo").await;
        http1.echoes().await;
        http1.close().await;
        second.close().await;
        client.end().await.unwrap();
    }

    #[tokio::test]
    async fn the_preface_is_known_however_it_is_cut() {
        let address = served!(app());
        let start = [PREFACE.as_bytes(), &frame(SETTINGS, 0, 0, b"")].concat();
        for piece in [1, 2, 7, 18, 23, 24, 25] {
            let mut raw = Raw::connect(address).await;
            for piece in start.chunks(piece) {
                raw.write(piece).await;
                sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(next_frame(&mut raw).await.unwrap().0, SETTINGS, "{piece}");
        }
    }

    #[tokio::test]
    async fn what_only_begins_like_the_preface_is_http1() {
        let address = served!(app());
        for (start, rest) in [
            ("P", "UT / HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("PRI", " / HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("PRI * HTTP/", "1.1\r\nHost: a\r\n\r\n"),
            ("PRI * HTTP/2.0\r\n\r\n", "XX"),
            ("", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ] {
            let mut raw = Raw::connect(address).await;
            raw.write(start).await;
            sleep(Duration::from_millis(5)).await;
            raw.write(rest).await;
            let head = raw.head().await;
            assert!(head.starts_with("http/1.1 "), "{start}{rest}: {head}");
        }
        // A client that leaves in the midst of it does no harm.
        let mut raw = Raw::connect(address).await;
        raw.write("PRI *").await;
        raw.0.shutdown().await.unwrap();
        raw.rest().await;
        // Nor does one that has spoken HTTP/1 before.
        let mut raw = Raw::connect(address).await;
        raw.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        raw.head().await;
        raw.read(5).await;
        raw.write(PREFACE).await;
        assert_eq!(raw.rest().await, b"");
    }

    #[tokio::test]
    async fn without_http2_the_preface_ends_the_connection() {
        let (listener, address) = bind().await;
        tokio::spawn(serve(listener, app()).http1_only().into_future());
        let mut raw = Raw::connect(address).await;
        raw.write(PREFACE).await;
        assert_eq!(raw.rest().await, b"");
    }

    #[tokio::test]
    async fn a_handler_is_told_the_peer_the_path_and_its_parameters() {
        let tell = async |socket: WebSocket| {
            let room = socket.param("room").unwrap_or_default().to_owned();
            let text = format!("{} {} {room}", socket.peer().unwrap(), socket.path());
            let _ = socket.send(text).await;
        };
        let address = served!(WebSocketLayer::new().route("/{room}", tell).into_service());
        let stream = TcpStream::connect(address).await.unwrap();
        let peer = stream.local_addr().unwrap();
        let mut client = Client::over(stream).await;
        let mut socket = client.open("/blue").await;
        let text = format!("{peer} /blue blue").into_bytes();
        assert_eq!(socket.frame().await, (0x81, text));
    }
}

mod handshakes {
    use super::*;

    /// The status of the answer, and its headers.
    async fn asked(client: &mut Client, request: Request<()>) -> (u16, HeaderMap) {
        let (response, _) = client.ask(request).await;
        let (parts, ()) = response.into_parts();
        (parts.status.as_u16(), parts.headers)
    }

    fn with(path: &str, headers: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = connect(path);
        for &(name, value) in headers {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        request
    }

    #[tokio::test]
    async fn guards_origins_and_subprotocols_work_as_over_http1() {
        let guard = |request: &mut Request<()>| {
            let has = request.headers().contains_key("authorization");
            if has {
                Ok(())
            } else {
                Err(StatusCode::UNAUTHORIZED)
            }
        };
        let layer = WebSocketLayer::new()
            .route("/echo", echo)
            .guard(guard)
            .subprotocols(["b", "a"]);
        let address = served!(layer.into_service());
        let mut client = Client::connect(address).await;
        let allowed = ("authorization", "x");
        let status = async |client: &mut Client, headers: &[_]| {
            asked(client, with("/echo", headers)).await.0
        };
        assert_eq!(status(&mut client, &[]).await, 401);
        assert_eq!(status(&mut client, &[allowed]).await, 200);
        for (origin, expected) in [("http://localhost", 200), ("http://evil.example", 403)] {
            let headers = [allowed, ("origin", origin)];
            assert_eq!(status(&mut client, &headers).await, expected, "{origin}");
        }
        assert_eq!(
            status(&mut client, &[allowed, ("sec-websocket-version", "8")]).await,
            400
        );
        let offered = with("/echo", &[allowed, ("sec-websocket-protocol", "a, b")]);
        let (status, headers) = asked(&mut client, offered).await;
        assert_eq!(
            (status, &headers["sec-websocket-protocol"]),
            (200, &"b".parse().unwrap())
        );
        assert_eq!(asked(&mut client, with("/other", &[allowed])).await.0, 404);
    }

    #[tokio::test]
    async fn other_connects_and_upgrades_as_over_http1_reach_the_application() {
        let inner = service_fn(async |request: Request<hyper::body::Incoming>| {
            let is_asked = request.extensions().get::<WebSocketUpgrade>().is_some();
            let mut response = Response::new(String::new());
            *response.status_mut() = if is_asked {
                StatusCode::IM_A_TEAPOT
            } else {
                StatusCode::ACCEPTED
            };
            if request.method() == "CONNECT" {
                *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
            }
            Ok::<_, Infallible>(response)
        });
        let address = served!(sockets().layer(inner));
        let mut client = Client::connect(address).await;
        let mut other = connect("/echo");
        other
            .extensions_mut()
            .insert(h2::ext::Protocol::from_static("connect-udp"));
        assert_eq!(asked(&mut client, other).await.0, 501);
        let mut plain = Request::new(());
        *plain.method_mut() = "CONNECT".parse().unwrap();
        *plain.uri_mut() = "localhost:80".parse().unwrap();
        assert_eq!(asked(&mut client, plain).await.0, 501);
        let get = Request::get("http://localhost/echo").body(()).unwrap();
        assert_eq!(asked(&mut client, get).await.0, 202);
        client.open("/echo").await.echoes().await;
    }

    #[tokio::test]
    async fn the_application_accepts_or_refuses_and_middleware_has_the_last_word() {
        async fn chat(upgrade: WebSocketUpgrade, headers: HeaderMap) -> axum::response::Response {
            if headers.contains_key("refuse") {
                return axum::response::IntoResponse::into_response(StatusCode::FORBIDDEN);
            }
            upgrade.on_upgrade(echo)
        }
        let started = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&started);
        let late = async move |upgrade: WebSocketUpgrade| -> axum::response::Response {
            upgrade.on_upgrade(async move |_socket: WebSocket| {
                seen.fetch_add(1, Ordering::SeqCst);
            })
        };
        let replaced = axum::middleware::map_response(async |_: axum::response::Response| {
            StatusCode::FORBIDDEN
        });
        let app = Router::new()
            .route("/late", any(late).layer(replaced))
            .route("/chat", any(chat))
            .layer(WebSocketLayer::new());
        let address = served!(app);
        let mut client = Client::connect(address).await;
        client.open("/chat").await.echoes().await;
        let refused = with("/chat", &[("refuse", "1")]);
        assert_eq!(asked(&mut client, refused).await.0, 403);
        assert_eq!(asked(&mut client, with("/late", &[])).await.0, 403);
        sleep(Duration::from_millis(20)).await;
        assert_eq!(started.load(Ordering::SeqCst), 0);
    }
}

mod streams {
    use super::*;

    #[tokio::test]
    async fn messages_of_every_size_come_back() {
        let config = Config::new().max_message_size(8 << 20);
        let app = sockets()
            .config(config)
            .origins(OriginPolicy::same_origin());
        let address = served!(app.into_service());
        let mut client = Client::connect(address).await;
        let mut socket = client.open("/echo").await;
        for size in [0, 1, 125, 126, 16 << 10, 65_535, 65_536, 1 << 20, 5 << 20] {
            let payload = vec![b'x'; size];
            let message = message(&payload);
            socket.write(message).await;
            let (first, echoed) = socket.frame().await;
            assert_eq!(first, 0x82);
            assert!(echoed == payload, "{size}");
        }
        socket.close().await;
    }

    #[tokio::test]
    async fn a_large_message_in_tiny_frames_disturbs_nobody() {
        let address = served!(app());
        let mut client = Client::connect(address).await;
        let neighbour = client.open("/echo").await;
        let mut socket = client.open("/echo").await;
        let payload = vec![b'x'; 500_000];
        let message = message(&payload);
        for piece in message.chunks(50) {
            socket.write(Bytes::copy_from_slice(piece)).await;
        }
        assert!(socket.frame().await == (0x82, payload));
        neighbour.close().await;
    }

    /// Replies leave in batches, each in one DATA frame, and no frame is empty.
    #[tokio::test]
    async fn replies_to_a_batch_leave_together() {
        let address = served!(app());
        let mut client = Client::connect(address).await;
        let mut socket = client.open("/echo").await;
        let batch = masked(0x81, b"Hello").repeat(500);
        socket.write(batch).await;
        let (mut frames, mut bytes) = (0, 0);
        while bytes < 3500 {
            let data = socket.data().await.unwrap().unwrap();
            assert!(!data.is_empty());
            frames += 1;
            bytes += data.len();
        }
        // The batch came as one frame.
        assert_eq!((frames, bytes), (1, 3500));
        // A large payload is kept by reference, and its header goes with it.
        socket.write(message(&[7; 16 << 10])).await;
        assert_eq!(socket.data().await.unwrap().unwrap().len(), 16 << 10);
        assert_eq!(socket.data().await.unwrap().unwrap().len(), 4);
    }

    #[tokio::test]
    async fn a_stream_that_ends_or_is_reset_without_a_close_is_unclean() {
        let (tell, mut told) = mpsc::unbounded_channel::<Closed>();
        let app = sockets().on_closed(move |closed| tell.send(closed.clone()).unwrap());
        let address = served!(app.into_service());
        let mut client = Client::connect(address).await;
        for reason in [None, Some(Reason::CANCEL), Some(Reason::INTERNAL_ERROR)] {
            let mut socket = client.open("/echo").await;
            socket.echoes().await;
            match reason {
                None => socket.end(),
                Some(reason) => socket.send.send_reset(reason),
            }
            let closed = within(told.recv()).await.unwrap();
            assert!(!closed.is_clean(), "{reason:?}: {closed:?}");
            assert!(closed.cause().is_some(), "{reason:?}: {closed:?}");
        }
        client.open("/echo").await.close().await;
        assert!(within(told.recv()).await.unwrap().is_clean());
    }

    #[tokio::test]
    async fn a_client_that_keeps_its_half_open_after_the_close_is_told_that_it_may_go() {
        let address = served!(app());
        let mut client = Client::connect(address).await;
        let mut socket = client.open("/echo").await;
        socket.write(masked(0x88, &[3, 0xe8])).await;
        let (bytes, _) = socket.fate().await;
        assert_eq!(bytes, b"\x88\x02\x03\xe8");
        client.open("/echo").await.close().await;
    }

    #[tokio::test]
    async fn a_violation_ends_its_stream_alone_with_its_code() {
        let address = served!(app());
        let mut client = Client::connect(address).await;
        let mut neighbour = client.open("/echo").await;
        for (bytes, code) in [
            (b"\x81\x05Hello".to_vec(), 1002_u16),
            (masked(0x81, b"\xff"), 1007),
            (message(&vec![0; (1 << 20) + 1]).to_vec(), 1009),
        ] {
            let mut socket = client.open("/echo").await;
            socket.write(bytes).await;
            let (first, payload) = socket.frame().await;
            assert_eq!(first, 0x88);
            assert_eq!(payload[..2], code.to_be_bytes());
        }
        neighbour.echoes().await;
        neighbour.close().await;
    }
}

/// A peer that sends small messages, each in a DATA frame of its own. h2 ends the whole connection
/// when too many of them wait.
mod small_messages {
    use super::*;

    const MESSAGES: usize = 10_000;

    /// Receives slowly at first.
    async fn slow(mut socket: WebSocket) -> Result<(), Error> {
        sleep(Duration::from_millis(500)).await;
        let mut count = 0_usize;
        while let Some(message) = socket.recv().await {
            message?;
            count += 1;
            if count == MESSAGES {
                socket.send(count.to_string()).await?;
            }
        }
        Ok(())
    }

    /// Never receives.
    async fn deaf(socket: WebSocket) {
        let _socket = socket;
        pending::<()>().await;
    }

    /// Holds up its thread with every message at first.
    async fn blocking(mut socket: WebSocket) -> Result<(), Error> {
        let mut count = 0_usize;
        while let Some(message) = socket.recv().await {
            message?;
            if count < 10 {
                std::thread::sleep(Duration::from_millis(50));
            }
            count += 1;
            if count == MESSAGES {
                socket.send(count.to_string()).await?;
            }
        }
        Ok(())
    }

    async fn serve_all() -> SocketAddr {
        // So many messages take a busy machine longer than a silence without pings, and than a peer
        // has for its Close.
        let config = Config::new()
            .keepalive_interval(None)
            .close_timeout(4 * PATIENCE);
        served!(
            sockets()
                .config(config)
                .route("/slow", slow)
                .route("/blocking", blocking)
                .route("/deaf", deaf)
                .into_service()
        )
    }

    async fn a_slow_and_a_fast_handler_take_them_all() {
        let address = serve_all().await;
        let mut client = Client::connect(address).await;
        let mut neighbour = client.open("/echo").await;
        let mut fast = client.open("/echo").await;
        let mut slow = client.open("/slow").await;
        let message = Bytes::from(masked(0x81, b"hi"));
        for socket in [&mut slow, &mut fast] {
            socket.room(MESSAGES * message.len()).await;
            for _ in 0..MESSAGES {
                socket.send.send_data(message.clone(), false).unwrap();
            }
        }
        neighbour.echoes().await;
        for _ in 0..MESSAGES {
            assert_eq!(fast.frame().await, (0x81, b"hi".to_vec()));
        }
        assert_eq!(slow.frame().await, (0x81, b"10000".to_vec()));
        for socket in [neighbour, fast, slow] {
            socket.close().await;
        }
        client.end().await.unwrap();
    }

    #[tokio::test]
    async fn on_one_thread_a_slow_and_a_fast_handler_take_them_all() {
        a_slow_and_a_fast_handler_take_them_all().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn on_many_threads_a_slow_and_a_fast_handler_take_them_all() {
        a_slow_and_a_fast_handler_take_them_all().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_handler_that_holds_up_its_thread_costs_its_neighbours_nothing() {
        let address = serve_all().await;
        let mut client = Client::connect(address).await;
        let mut neighbour = client.open("/echo").await;
        let mut socket = client.open("/blocking").await;
        let message = Bytes::from(masked(0x81, b"hi"));
        socket.room(MESSAGES * message.len()).await;
        for _ in 0..MESSAGES {
            socket.send.send_data(message.clone(), false).unwrap();
        }
        assert_eq!(socket.frame().await, (0x81, b"10000".to_vec()));
        neighbour.echoes().await;
        neighbour.close().await;
        socket.close().await;
        client.end().await.unwrap();
    }

    /// Empty messages are the smallest frames that there are: fifteen bytes each.
    async fn a_burst_of_the_smallest_frames_disturbs_nobody() {
        let address = serve_all().await;
        let mut client = Client::connect(address).await;
        let mut neighbour = client.open("/echo").await;
        let mut socket = client.open("/echo").await;
        let message = Bytes::from(masked(0x81, b""));
        let count = 150_000;
        socket.room(count * message.len()).await;
        for _ in 0..count {
            socket.send.send_data(message.clone(), false).unwrap();
        }
        for _ in 0..count {
            assert_eq!(socket.frame().await, (0x81, Vec::new()));
        }
        neighbour.echoes().await;
        neighbour.close().await;
        socket.close().await;
        client.end().await.unwrap();
    }

    #[tokio::test]
    async fn on_one_thread_a_burst_of_the_smallest_frames_disturbs_nobody() {
        a_burst_of_the_smallest_frames_disturbs_nobody().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn on_many_threads_a_burst_of_the_smallest_frames_disturbs_nobody() {
        a_burst_of_the_smallest_frames_disturbs_nobody().await;
    }

    #[tokio::test]
    async fn over_the_cap_that_socket_alone_ends_with_1013() {
        let address = serve_all().await;
        let mut client = Client::connect(address).await;
        let mut neighbour = client.open("/echo").await;
        let mut socket = client.open("/deaf").await;
        // 66 bytes each, in a megabyte.
        let message = Bytes::from(masked(0x81, b"hi"));
        let count = 40_000;
        socket.room(count * message.len()).await;
        for _ in 0..count {
            socket.send.send_data(message.clone(), false).unwrap();
        }
        let (first, payload) = socket.frame().await;
        assert_eq!((first, &payload[..2]), (0x88, &1013_u16.to_be_bytes()[..]));
        neighbour.echoes().await;
        // The peer answers, behind what it has sent.
        socket.write(masked(0x88, &[3, 0xf5])).await;
        assert_eq!(socket.rest().await, b"");
        drop(socket);
        neighbour.close().await;
        client.end().await.unwrap();
    }
}

mod shutdown {
    use super::*;

    /// A server that can be asked to go.
    macro_rules! stoppable {
        ($app:expr, $deadline:expr) => {{
            let (listener, address) = bind().await;
            let (stop, stopped) = oneshot::channel::<()>();
            let signal = async {
                let _ = stopped.await;
            };
            let server = serve(listener, $app).with_graceful_shutdown(signal, $deadline);
            (address, stop, tokio::spawn(server.into_future()))
        }};
    }

    fn counts(shutdown: Shutdown) -> (usize, usize) {
        (shutdown.closed, shutdown.cut)
    }

    #[tokio::test]
    async fn every_socket_gets_1001_and_the_connection_ends_though_its_client_would_keep_it() {
        let (address, stop, server) = stoppable!(app(), Duration::from_secs(60));
        let mut client = Client::connect(address).await;
        let mut sockets = Vec::new();
        for _ in 0..3 {
            let mut socket = client.open("/echo").await;
            socket.echoes().await;
            sockets.push(socket);
        }
        drop(stop);
        for socket in &mut sockets {
            let (first, payload) = socket.frame().await;
            assert_eq!((first, &payload[..2]), (0x88, &1001_u16.to_be_bytes()[..]));
        }
        // The connection is open still, and refuses what is new, if it takes it at all.
        if let Ok((response, _)) = within(client.try_ask(connect("/echo"))).await {
            assert_eq!(response.status(), 503);
        }
        for mut socket in sockets {
            socket.write(masked(0x88, &[3, 0xe9])).await;
            assert_eq!(socket.rest().await, b"");
        }
        assert_eq!(counts(within(server).await.unwrap().unwrap()), (3, 0));
        // GOAWAY without an error, though the client still wanted to ask.
        within(client.connection).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn at_the_deadline_sockets_and_requests_are_cut() {
        struct Dropped(Arc<AtomicBool>);
        impl Drop for Dropped {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let dropped = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&dropped);
        let entered = Arc::new(Notify::new());
        let enters = Arc::clone(&entered);
        let hang = async move || {
            let _dropped = Dropped(flag);
            enters.notify_one();
            pending::<&str>().await
        };
        let stubborn = async |socket: WebSocket| {
            let _socket = socket;
            pending::<()>().await;
        };
        let app = Router::new()
            .route("/hang", get(hang))
            .layer(WebSocketLayer::new().route("/stubborn", stubborn));
        let (address, stop, server) = stoppable!(app, Duration::from_millis(200));
        let mut client = Client::connect(address).await;
        let _socket = client.open("/stubborn").await;
        let mut asking = client.requests.clone();
        let request = Request::get("http://localhost/hang").body(()).unwrap();
        let (response, _) = asking.send_request(request, true).unwrap();
        within(entered.notified()).await;
        drop(stop);
        assert_eq!(counts(within(server).await.unwrap().unwrap()), (0, 1));
        assert!(
            dropped.load(Ordering::SeqCst),
            "the request outlived the server"
        );
        assert!(within(response).await.is_err());
    }

    #[tokio::test]
    async fn a_connection_without_streams_ends_at_once() {
        let (address, stop, server) = stoppable!(app(), Duration::from_secs(60));
        let client = Client::connect(address).await;
        let mut half = Raw::connect(address).await;
        half.write(&PREFACE[..10]).await;
        sleep(Duration::from_millis(20)).await;
        drop(stop);
        within(server).await.unwrap().unwrap();
        within(client.connection).await.unwrap().unwrap();
        assert_eq!(half.rest().await, b"");
    }

    #[tokio::test]
    async fn a_server_that_is_dropped_ends_its_connections() {
        let (listener, address) = bind().await;
        let server = tokio::spawn(serve(listener, app()).into_future());
        let mut client = Client::connect(address).await;
        let mut socket = client.open("/echo").await;
        socket.echoes().await;
        server.abort();
        assert!(within(client.connection).await.is_ok());
        assert!(socket.data().await.is_none_or(|data| data.is_err()));
    }
}

mod bounds {
    use super::*;

    async fn serve_with(http2: Http2) -> SocketAddr {
        let (listener, address) = bind().await;
        tokio::spawn(serve(listener, app()).http2(http2).into_future());
        address
    }

    const DEADLINE: Duration = Duration::from_millis(200);

    #[tokio::test(start_paused = true)]
    async fn half_a_preface_is_a_head_that_is_late() {
        let (dial, memory) = Dial::new();
        let server = serve(memory, app()).header_read_timeout(DEADLINE);
        tokio::spawn(server.into_future());
        let start = Instant::now();
        let mut raw = dial.dial();
        raw.write(&PREFACE[..20]).await;
        raw.rest().await;
        let elapsed = start.elapsed();
        let in_time = DEADLINE..DEADLINE + Duration::from_millis(50);
        assert!(in_time.contains(&elapsed), "{elapsed:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_streams_is_told_to_go_and_one_with_a_socket_is_not() {
        let (dial, memory) = Dial::new();
        let server = serve(memory, app()).header_read_timeout(DEADLINE);
        tokio::spawn(server.into_future());
        let mut busy = Client::over(dial.dial().0).await;
        let mut socket = busy.open("/echo").await;
        let idle = Client::over(dial.dial().0).await;
        within(idle.connection).await.unwrap().unwrap();
        // One that does not even answer is cut.
        let mut silent = dial.dial();
        silent.write(PREFACE).await;
        silent.write(frame(SETTINGS, 0, 0, b"")).await;
        let start = Instant::now();
        assert_eq!(goaway(&mut silent).await, Some(0));
        silent.rest().await;
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );
        // Such as one in the midst of a header block.
        let mut dripping = dial.dial();
        dripping.write(PREFACE).await;
        dripping.write(frame(SETTINGS, 0, 0, b"")).await;
        dripping.write(frame(HEADERS, 0, 1, &fields("/"))).await;
        let start = Instant::now();
        dripping.rest().await;
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );
        socket.echoes().await;
        busy.serves("/", "index").await;
        socket.close().await;
        within(busy.connection).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_service_that_fails_or_panics_ends_its_stream_alone() {
        let inner = service_fn(async |request: Request<hyper::body::Incoming>| {
            match request.uri().path() {
                "/fail" => Err(io::Error::other("no")),
                "/panic" => panic!("on purpose"),
                _ => Ok(Response::new("index".to_owned())),
            }
        });
        let address = served!(sockets().layer(inner));
        let mut client = Client::connect(address).await;
        let mut socket = client.open("/echo").await;
        for path in ["/fail", "/panic"] {
            let request = Request::get(format!("http://localhost{path}")).body(());
            let answer = within(client.try_ask(request.unwrap())).await;
            assert!(answer.is_err(), "{path}");
        }
        client.serves("/", "index").await;
        socket.echoes().await;
        socket.close().await;
    }

    #[tokio::test]
    async fn more_streams_than_allowed_are_refused() {
        let address = serve_with(Http2::new().max_concurrent_streams(3)).await;
        let mut raw = Raw::connect(address).await;
        raw.write(PREFACE).await;
        raw.write(frame(SETTINGS, 0, 0, b"")).await;
        // Each waits for more of a body, which the page does not care for: so CONNECTs.
        let mut block = Vec::new();
        for (name, value) in [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":authority", "localhost"),
            (":path", "/echo"),
            ("sec-websocket-version", "13"),
        ] {
            block.extend(field(name, value));
        }
        for stream in [1, 3, 5, 7] {
            raw.write(frame(HEADERS, END_HEADERS, stream, &block)).await;
        }
        let mut opened = 0;
        loop {
            match next_frame(&mut raw).await.unwrap() {
                (HEADERS, _) => opened += 1,
                // RFC 9113 §8.7: REFUSED_STREAM.
                (RST_STREAM, reason) => {
                    assert_eq!(reason, 7_u32.to_be_bytes());
                    break;
                }
                _ => {}
            }
        }
        until(|| opened <= 3).await;
    }

    #[tokio::test]
    async fn a_header_list_over_the_limit_is_431_and_one_far_over_it_the_end() {
        let address = serve_with(Http2::new().max_header_list_size(8 << 10)).await;
        let mut client = Client::connect(address).await;
        let large = |size: usize| {
            let mut request = Request::get("http://localhost/");
            for n in 0..size / 1000 {
                request = request.header(format!("x-{n}"), "x".repeat(1000));
            }
            request.body(()).unwrap()
        };
        assert_eq!(client.ask(large(4000)).await.0.status(), 200);
        assert_eq!(client.ask(large(12_000)).await.0.status(), 431);
        client.serves("/", "index").await;
        assert!(within(client.try_ask(large(200_000))).await.is_err());
        Client::connect(address).await.serves("/", "index").await;
    }

    #[tokio::test]
    async fn a_flood_of_continuations_ends_the_connection() {
        let address = served!(app());
        let mut raw = Raw::connect(address).await;
        raw.write(PREFACE).await;
        raw.write(frame(SETTINGS, 0, 0, b"")).await;
        raw.write(frame(HEADERS, 0, 1, &fields("/"))).await;
        let more = frame(CONTINUATION, 0, 1, &field("x", &"y".repeat(100)));
        let mut sent = 0_usize;
        while sent < 64 << 20 && raw.0.write_all(&more).await.is_ok() {
            sent += more.len();
        }
        // The kernel's buffers take some of it.
        assert!(sent < 32 << 20, "{sent}");
        Client::connect(address).await.serves("/", "index").await;
    }

    #[tokio::test]
    async fn rapid_resets_end_the_connection_or_are_served_and_others_go_on() {
        let started = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&started);
        let hang = async move || {
            count.fetch_add(1, Ordering::SeqCst);
            pending::<&str>().await
        };
        let app = app().route("/hang", get(hang));
        let address = served!(app);
        let mut good = Client::connect(address).await;
        let mut raw = Raw::connect(address).await;
        raw.write(PREFACE).await;
        raw.write(frame(SETTINGS, 0, 0, b"")).await;
        let mut burst = Vec::new();
        for n in 0..20_000 {
            let stream = 2 * n + 1;
            burst.extend(frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                stream,
                &fields("/hang"),
            ));
            burst.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        }
        let _ = within(raw.0.write_all(&burst)).await;
        good.serves("/", "index").await;
        // RFC 9113 §7: ENHANCE_YOUR_CALM.
        assert_eq!(goaway(&mut raw).await, Some(11));
        assert!(started.load(Ordering::SeqCst) < 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_answers_no_ping_is_cut() {
        let times = (Duration::from_millis(100), Duration::from_millis(100));
        let (dial, memory) = Dial::new();
        let server = serve(memory, app()).http2(Http2::new().keep_alive(times));
        tokio::spawn(server.into_future());
        let mut raw = dial.dial();
        raw.write(PREFACE).await;
        raw.write(frame(SETTINGS, 0, 0, b"")).await;
        let start = Instant::now();
        raw.rest().await;
        assert!(start.elapsed() < Duration::from_secs(2));
        // One that answers stays.
        let mut client = Client::over(dial.dial().0).await;
        let mut socket = client.open("/echo").await;
        sleep(Duration::from_millis(500)).await;
        socket.echoes().await;
    }

    #[tokio::test]
    async fn connections_are_counted_until_they_end() {
        let (listener, address) = bind().await;
        tokio::spawn(serve(listener, app()).max_connections(1).into_future());
        let mut client = Client::connect(address).await;
        let mut first = client.open("/echo").await;
        let mut second = client.open("/echo").await;
        let mut waiting = Raw::connect(address).await;
        waiting.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        first.echoes().await;
        second.echoes().await;
        let mut byte = [0];
        let early = tokio::time::timeout(Duration::from_millis(50), waiting.0.read(&mut byte));
        assert!(early.await.is_err());
        first.close().await;
        second.close().await;
        drop(client.requests);
        waiting.head().await;
    }
}
