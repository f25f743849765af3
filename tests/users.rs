//! What users of other libraries suffered, over fifteen years of their issue trackers, and what
//! happens here. The rest of these problems is where its cause would be: closing in the tests of
//! the session, shutdown and running out of descriptors in those of the server, leaks and busy
//! loops among the attacks, browsers' headers in those of the handshake.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/memory.rs"]
mod memory;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use self::memory::Dial;
use http::{Request, Response, header};
use hyper::body::Incoming;
use tokio::{
    io::AsyncWriteExt,
    net::TcpListener,
    sync::{Mutex, mpsc},
};
use tower::{Layer, service_fn};
use ws_hyper::serve;
use ws_tests::raw::{PATIENCE, Raw, handshake, masked, until, within};
use ws_tower::{
    CloseCode, CloseFrame, Closed, Config, Error, Message, Sender, Tracker, TrySendError,
    WebSocket, WebSocketLayer,
};

async fn echo(mut socket: WebSocket) -> Result<(), Error> {
    while let Some(message) = socket.recv().await {
        socket.send(message?).await?;
    }
    Ok(())
}

/// Serves the layer on a port of its own.
async fn start(sockets: WebSocketLayer) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, sockets.into_service()).into_future());
    address
}

/// Users of ws4py lost every connection when one of them broke in the loop that polled all.
#[tokio::test]
async fn a_peer_that_dies_in_any_state_takes_no_other_socket_with_it() {
    let tracker = Tracker::new();
    let sockets = WebSocketLayer::new()
        .with_tracker(tracker.clone())
        .route("/echo", echo)
        .route("/panic", async |_: WebSocket| -> () {
            panic!("on purpose")
        });
    let address = start(sockets).await;
    let mut other = Raw::open(address, "/echo").await;
    let states: [&[u8]; 9] = [
        b"",
        b"\x81",
        b"\x81\x85\0\0",
        b"\x81\x85\0\0\0\0He",
        b"\x01\x82\0\0\0\0He",
        b"\x81\x85\0\0\0\0Hello",
        b"\x89\x80\0\0\0\0",
        b"\x88\x80\0\0\0\0",
        b"\x83\x80\0\0\0\0",
    ];
    for state in states {
        for with_reset in [false, true] {
            for path in ["/echo", "/panic"] {
                let mut raw = Raw::open(address, path).await;
                let _ = raw.0.write_all(state).await;
                if with_reset {
                    raw.0.set_zero_linger().unwrap();
                }
            }
        }
        other.echoes().await;
    }
    for half in ["", "GET", "GET /echo HTTP/1.1\r\nUpgrade: websocket\r\n"] {
        let mut raw = Raw::connect(address).await;
        raw.write(half).await;
        raw.0.set_zero_linger().unwrap();
    }
    other.echoes().await;
    until(|| tracker.len() == 1).await;
}

/// Users of ws4py and gevent-websocket saw frames of two threads mixed on the wire.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_on_many_threads_never_mix_their_frames() {
    const EACH: usize = 200;
    let shout = async |socket: WebSocket| {
        let mut writers = Vec::new();
        for writer in 0..8_u8 {
            let sender = socket.sender();
            writers.push(tokio::spawn(async move {
                for count in 0..EACH {
                    // Each in a length of its own, and some larger than a write.
                    let len = 1 + count * usize::from(writer + 1) * 17;
                    sender.send(vec![writer; len]).await.unwrap();
                }
            }));
        }
        for writer in writers {
            writer.await.unwrap();
        }
    };
    let address = start(WebSocketLayer::new().route("/", shout)).await;
    let mut raw = Raw::open(address, "/").await;
    let mut counts = [0; 8];
    for _ in 0..8 * EACH {
        let (first, payload) = raw.frame().await;
        assert_eq!(first, 0x82);
        let writer = payload[0];
        let count = &mut counts[usize::from(writer)];
        assert_eq!(payload.len(), 1 + *count * usize::from(writer + 1) * 17);
        assert!(payload.iter().all(|byte| *byte == writer));
        *count += 1;
    }
    assert_eq!(counts, [EACH; 8]);
}

/// Users of ws4py lost what a client had sent right behind its handshake.
#[tokio::test]
async fn five_frames_in_the_packet_of_the_handshake_all_arrive() {
    let address = start(WebSocketLayer::new().route("/", echo)).await;
    let mut raw = Raw::connect(address).await;
    let mut bytes = handshake("/").into_bytes();
    for word in ["one", "two", "three", "four", "five"] {
        bytes.extend(masked(0x81, word.as_bytes()));
    }
    raw.write(bytes).await;
    raw.head().await;
    for word in ["one", "two", "three", "four", "five"] {
        assert_eq!(raw.frame().await, (0x81, word.as_bytes().to_vec()));
    }
}

/// Users of flask-sockets were "connected" to paths that nobody served, and never heard a word.
#[tokio::test]
async fn a_client_is_connected_only_if_a_handler_runs() {
    let ran = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ran);
    let handler = move |socket| {
        count.fetch_add(1, Ordering::Relaxed);
        echo(socket)
    };
    let address = start(WebSocketLayer::new().route("/rooms/{room}", handler)).await;
    for path in ["/", "/rooms", "/rooms/", "/rooms/1/2", "/Rooms/1", "/echo"] {
        let head = Raw::ask(address, handshake(path)).await;
        assert!(head.starts_with("http/1.1 404 "), "{path}: {head}");
    }
    assert_eq!(ran.load(Ordering::Relaxed), 0);
    for path in ["/rooms/1", "/rooms/1?token=a", "/rooms/%C3%A4"] {
        Raw::open(address, path).await.echoes().await;
    }
    assert_eq!(ran.load(Ordering::Relaxed), 3);
}

/// Users of ws4py broke a socket by sending or closing in `opened`, which ran before the 101 had
/// left.
#[tokio::test]
async fn the_first_thing_a_handler_does_may_be_to_send_or_to_close() {
    let sends = async |mut socket: WebSocket| {
        socket.send("welcome").await?;
        socket.recv().await.transpose()?;
        Ok::<_, Error>(())
    };
    let closes = async |socket: WebSocket| {
        let close = CloseFrame::new(CloseCode::TRY_AGAIN_LATER, "full").unwrap();
        socket.close(close).await;
    };
    let sockets = WebSocketLayer::new()
        .route("/sends", sends)
        .route("/closes", closes);
    let address = start(sockets).await;
    for _ in 0..50 {
        let mut raw = Raw::open(address, "/sends").await;
        assert_eq!(raw.frame().await, (0x81, b"welcome".to_vec()));
        raw.close().await;
        let mut raw = Raw::open(address, "/closes").await;
        assert_eq!(raw.frame().await, (0x88, b"\x03\xf5full".to_vec()));
    }
}

/// Users of ws4py and gevent-socketio met `AttributeError: 'NoneType'` when they used a socket
/// that was gone.
#[tokio::test]
async fn a_handle_that_outlives_its_socket_says_that_it_is_closed() {
    let (give, mut given) = mpsc::unbounded_channel::<WebSocket>();
    let keeps = move |socket| {
        let give = give.clone();
        async move { give.send(socket).unwrap() }
    };
    let address = start(WebSocketLayer::new().route("/", keeps)).await;
    for with_reset in [false, true] {
        let raw = Raw::open(address, "/").await;
        let mut socket = within(given.recv()).await.unwrap();
        if with_reset {
            raw.0.set_zero_linger().unwrap();
            drop(raw);
        } else {
            raw.close().await;
        }
        let closed = within(socket.closed()).await;
        assert_eq!(closed.is_clean(), !with_reset);
        let sender = socket.sender();
        for _ in 0..2 {
            assert!(within(socket.send("a")).await.is_err());
            assert!(within(sender.send("a")).await.is_err());
            assert!(within(sender.ping()).await.is_err());
            let error = sender.try_send("a");
            assert!(matches!(error, Err(TrySendError::Closed(_))));
            within(socket.close(None)).await;
        }
        // The error once, if it was one; then the end, as often as it is asked for.
        let first = within(socket.recv()).await;
        assert_eq!(first.is_some(), with_reset);
        assert!(!matches!(first, Some(Ok(_))));
        for _ in 0..3 {
            assert!(within(socket.recv()).await.is_none());
        }
        assert!(!sender.is_open() && sender.try_closed().is_some());
    }
}

/// Users of ws4py and gevent-websocket lost the code and the reason of a Close, or found the
/// `repr` of an exception in it.
#[tokio::test]
async fn the_code_and_reason_of_a_close_are_known_on_both_sides_and_causes_stay_inside() {
    let (tell, mut told) = mpsc::unbounded_channel::<Closed>();
    let fails = async |mut socket: WebSocket| {
        socket.recv().await;
        Err::<(), _>("password of the database: 1234")
    };
    let sockets = WebSocketLayer::new()
        .route("/echo", echo)
        .route("/fails", fails)
        .on_closed(move |closed| tell.send(closed.clone()).unwrap());
    let address = start(sockets).await;

    let mut raw = Raw::open(address, "/echo").await;
    raw.write(masked(0x88, b"\x0f\xa1done here")).await;
    assert_eq!(raw.frame().await.1[..2], *b"\x0f\xa1");
    let closed = within(told.recv()).await.unwrap();
    let received = closed.received().unwrap().frame().unwrap();
    assert_eq!(received.code().as_u16(), 4001);
    assert_eq!(received.reason(), "done here");

    let mut raw = Raw::open(address, "/fails").await;
    raw.write(masked(0x81, b"")).await;
    let (first, payload) = raw.frame().await;
    assert_eq!((first, &payload[..2]), (0x88, &b"\x03\xf3"[..]));
    assert!(!String::from_utf8_lossy(&payload).contains("1234"));
    drop(raw);
    let closed = within(told.recv()).await.unwrap();
    assert_eq!(
        closed.sent().unwrap().code(),
        Some(CloseCode::INTERNAL_ERROR)
    );
}

/// Users of ws4py never learnt that a peer had gone without a word: its heartbeat was a pong,
/// which nobody answers.
#[tokio::test(start_paused = true)]
async fn a_dead_peer_is_found_by_a_ping_that_wants_an_answer() {
    let config = Config::new()
        .keepalive_interval(Duration::from_millis(100))
        .keepalive_timeout(Duration::from_millis(100));
    let (tell, mut told) = mpsc::unbounded_channel::<Closed>();
    let sockets = WebSocketLayer::new()
        .config(config)
        .route("/", echo)
        .on_closed(move |closed| tell.send(closed.clone()).unwrap());
    let (dial, memory) = Dial::new();
    tokio::spawn(serve(memory, sockets.into_service()).into_future());
    let mut alive = dial.open("/").await;
    let mut dead = dial.open("/").await;
    let answering = async {
        for _ in 0..6 {
            let (first, payload) = alive.frame().await;
            assert_eq!(first, 0x89);
            alive.write(masked(0x8a, &payload)).await;
        }
    };
    let silent = async {
        assert_eq!(dead.frame().await.0, 0x89);
        within(told.recv()).await.unwrap()
    };
    let ((), closed) = tokio::join!(answering, silent);
    assert!(!closed.is_clean() && closed.received().is_none());
    alive.echoes().await;
    // It is on by default, and proxies that cut after 60 s of silence never see so much.
    let config = Config::default();
    assert!(config.keepalive_interval.unwrap() * 5 / 4 < Duration::from_secs(60));
}

/// Users of ws4py blocked everyone when one broadcast met a slow reader.
#[tokio::test]
async fn a_reader_that_is_slow_holds_up_nobody_else() {
    let all: Arc<Mutex<Vec<Sender>>> = Arc::default();
    let join = {
        let all = Arc::clone(&all);
        move |mut socket: WebSocket| {
            let all = Arc::clone(&all);
            async move {
                all.lock().await.push(socket.sender());
                while socket.recv().await.is_some() {}
            }
        }
    };
    let address = start(WebSocketLayer::new().route("/", join)).await;
    let slow = Raw::open(address, "/").await;
    let mut quick = Raw::open(address, "/").await;
    until(|| all.try_lock().is_ok_and(|all| all.len() == 2)).await;
    let message = Message::from(vec![7; 64 << 10]);
    // However much the kernel takes for the slow one, it is less than this.
    let (mut full, mut sent) = (0, 0);
    while full < 100 {
        assert!(sent < 4000, "{full}");
        for sender in all.lock().await.iter() {
            // Nobody waits, and whoever sends learns it.
            full += usize::from(sender.try_send(message.clone()).is_err());
        }
        assert_eq!(quick.frame().await.1.len(), 64 << 10);
        sent += 1;
    }
    drop(slow);
}

/// Users of ws4py and pywebsocket had no way to see who asks: no cookies, no headers, before or
/// after the handshake.
#[tokio::test]
async fn cookies_and_headers_are_there_before_the_answer_and_in_the_handler() {
    let guard = |request: &mut Request<()>| {
        let cookie = request.headers().get(header::COOKIE);
        if cookie.is_some_and(|it| it == "session=1") {
            request.extensions_mut().insert("Ada");
            Ok(())
        } else {
            Err(http::StatusCode::UNAUTHORIZED)
        }
    };
    let greets = async |socket: WebSocket, request: Request<()>| {
        let user = request.extensions().get::<&str>().unwrap();
        let agent = request.headers()[header::USER_AGENT].to_str().unwrap();
        let query = request.uri().query().unwrap_or_default();
        let _ = socket.send(format!("{user} {agent} {query}")).await;
    };
    let address = start(WebSocketLayer::new().guard(guard).route("/", greets)).await;
    let head = Raw::ask(address, handshake("/")).await;
    assert!(head.starts_with("http/1.1 401 "), "{head}");
    let request = handshake("/?lang=en").replace(
        "\r\n\r\n",
        "\r\nCookie: session=1\r\nUser-Agent: test\r\n\r\n",
    );
    let mut raw = Raw::connect(address).await;
    raw.write(request).await;
    assert!(raw.head().await.starts_with("http/1.1 101 "));
    assert_eq!(raw.frame().await.1, b"Ada test lang=en");
}

/// Users of ws4py could not serve over IPv6.
#[tokio::test]
async fn ipv6_is_served_and_the_host_in_brackets_is_the_same_origin() {
    let Ok(listener) = TcpListener::bind("[::1]:0").await else {
        // This machine has none.
        return;
    };
    let address = listener.local_addr().unwrap();
    let sockets = WebSocketLayer::new().route("/", echo);
    tokio::spawn(serve(listener, sockets.into_service()).into_future());
    for (origin, status) in [
        (format!("http://{address}"), 101),
        ("http://[::2]".to_owned(), 403),
    ] {
        let request = handshake("/").replace(
            "Host: localhost",
            &format!("Host: {address}\r\nOrigin: {origin}"),
        );
        let head = Raw::ask(address, request).await;
        assert!(
            head.starts_with(&format!("http/1.1 {status} ")),
            "{origin}: {head}"
        );
    }
}

/// Users of ws4py on Python 3 got bytes where they had sent text, and the other way round.
#[tokio::test]
async fn text_stays_text_and_bytes_stay_bytes() {
    let tells = async |mut socket: WebSocket| {
        while let Some(Ok(message)) = socket.recv().await {
            let kind = match &message {
                Message::Text(text) => format!("text {}", text.as_str()),
                Message::Binary(bytes) => format!("binary {bytes:?}"),
            };
            let _ = socket.send(kind).await;
            let _ = socket.send(message).await;
        }
    };
    let address = start(WebSocketLayer::new().route("/", tells)).await;
    let mut raw = Raw::open(address, "/").await;
    raw.write(masked(0x81, "ä".as_bytes())).await;
    assert_eq!(raw.frame().await, (0x81, "text ä".into()));
    assert_eq!(raw.frame().await, (0x81, "ä".into()));
    raw.write(masked(0x82, "ä".as_bytes())).await;
    assert_eq!(raw.frame().await, (0x81, r#"binary b"\xc3\xa4""#.into()));
    assert_eq!(raw.frame().await, (0x82, "ä".into()));
}

/// Users behind nginx got a silent failure when the proxy spoke HTTP/1.0 to their server, left
/// out `Upgrade`, or replaced `Host`.
#[tokio::test]
async fn a_proxy_that_is_set_up_wrongly_is_told_what_is_wrong() {
    let address = start(WebSocketLayer::new().route("/", echo)).await;
    let good = handshake("/").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let replaced = good.replace(
        "Host: localhost",
        "Host: backend:8080\r\nOrigin: https://www.example.com",
    );
    let stripped = good
        .replace("Upgrade: websocket\r\n", "")
        .replace("Connection: Upgrade\r\n", "");
    for (request, status, words) in [
        (
            good.replace("HTTP/1.1", "HTTP/1.0"),
            426,
            &["HTTP/1.0", "proxy_http_version"][..],
        ),
        (stripped, 426, &["upgrade"]),
        (
            replaced,
            403,
            &["https://www.example.com", "backend:8080", "proxy", "Host"],
        ),
    ] {
        let mut raw = Raw::connect(address).await;
        raw.write(&request).await;
        let response = String::from_utf8(raw.rest().await).unwrap();
        assert_eq!(response.split(' ').nth(1), Some(&*status.to_string()));
        let (_, body) = response.split_once("\r\n\r\n").unwrap();
        for word in words {
            assert!(
                body.to_lowercase().contains(&word.to_lowercase()),
                "{word}: {body}"
            );
        }
    }
}

/// Users of ws4py stopped everybody with one handler that blocked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_blocks_its_thread_leaves_the_others_theirs() {
    let (end, work) = std::sync::mpsc::channel();
    let work = Arc::new(std::sync::Mutex::new(work));
    let work = move || work.lock().unwrap().recv_timeout(PATIENCE).unwrap();
    let asked = work.clone();
    let blocks = move |mut socket: WebSocket| {
        let work = work.clone();
        async move {
            socket.recv().await;
            let _ = socket.send("begun").await;
            tokio::task::yield_now().await;
            work();
            let _ = socket.send("done").await;
        }
    };
    // What the documentation of tokio asks for does not even cost a thread of the runtime.
    let asks = move |mut socket: WebSocket| {
        let work = asked.clone();
        async move {
            socket.recv().await;
            let _ = socket.send("begun").await;
            tokio::task::spawn_blocking(work).await.unwrap();
            let _ = socket.send("done").await;
        }
    };
    let sockets = WebSocketLayer::new()
        .route("/echo", echo)
        .route("/blocks", blocks)
        .route("/asks", asks);
    let address = start(sockets).await;
    for path in ["/blocks", "/asks"] {
        let mut blocked = Raw::open(address, path).await;
        let mut other = Raw::open(address, "/echo").await;
        blocked.write(masked(0x81, b"go")).await;
        assert_eq!(blocked.frame().await.1, b"begun");
        other.echoes().await;
        end.send(()).unwrap();
        assert_eq!(blocked.frame().await.1, b"done");
    }
}

/// Users of gevent-websocket and ws4py had one value for the end, for an error, and for an empty
/// message.
#[tokio::test]
async fn an_empty_message_an_error_and_the_end_are_three_things() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let tells = move |mut socket: WebSocket| {
        let tell = tell.clone();
        async move {
            loop {
                let what = match socket.recv().await {
                    Some(Ok(message)) => format!("message of {}", message.len()),
                    Some(Err(_)) => "error".to_owned(),
                    None => "end".to_owned(),
                };
                let is_end = what == "end";
                tell.send(what).unwrap();
                if is_end {
                    break;
                }
            }
        }
    };
    let address = start(WebSocketLayer::new().route("/", tells)).await;
    let mut raw = Raw::open(address, "/").await;
    raw.write(masked(0x81, b"")).await;
    raw.write(masked(0x82, b"")).await;
    raw.close().await;
    for what in ["message of 0", "message of 0", "end"] {
        assert_eq!(within(told.recv()).await.unwrap(), what);
    }
    let mut raw = Raw::open(address, "/").await;
    raw.write(masked(0x81, b"")).await;
    raw.0.shutdown().await.unwrap();
    for what in ["message of 0", "error", "end"] {
        assert_eq!(within(told.recv()).await.unwrap(), what);
    }
}

/// Users of ws4py and gevent lost their sockets whenever the server below changed what was
/// never public: a stack of any services, on any server, is enough here.
#[tokio::test]
async fn nothing_but_public_interfaces_of_the_stack_is_needed() {
    let page = service_fn(async |_: Request<Incoming>| {
        Ok::<_, Infallible>(Response::new("a page".to_owned()))
    });
    let service = WebSocketLayer::new().route("/echo", echo).layer(page);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, service).into_future());
    let head = Raw::ask(address, "GET /echo HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    // On the connection of a page, too.
    let mut raw = Raw::connect(address).await;
    raw.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    raw.head().await;
    assert_eq!(raw.read(6).await, b"a page");
    raw.upgrade("/echo").await;
    raw.echoes().await;
    raw.close().await;
}
