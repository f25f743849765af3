//! The client against our own server and tokio-tungstenite's.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, Request};
use tokio::net::TcpListener;
use tokio_tungstenite::{accept_async, tungstenite};
use ws_hyper::{
    Connector,
    client::{AddressError, ConnectError},
    connect, serve,
};
use ws_tests::{
    raw::{until, within},
    scripted::{server, visited},
};
use ws_tower::{
    CloseCode, CloseFrame, Config, Error, Message, Tracker, WebSocket, WebSocketLayer,
    ws_core::handshake::client::RequestError,
};

/// Our own server: an echo, and what it saw of the requests.
struct Server {
    address: SocketAddr,
    tracker: Tracker,
    seen: Arc<Mutex<Vec<(String, HeaderMap)>>>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tracker, seen) = (Tracker::new(), Arc::<Mutex<Vec<_>>>::default());
        let log = Arc::clone(&seen);
        let sockets = WebSocketLayer::new()
            .config(Config::new().max_message_size(4 << 20))
            .subprotocols(["chat.v2", "chat"])
            .route("/echo", echo)
            .route("/see", move |socket: WebSocket, request: Request<()>| {
                let entry = (request.uri().to_string(), request.headers().clone());
                log.lock().unwrap().push(entry);
                echo(socket)
            })
            .route("/bye", async |socket: WebSocket| {
                let frame = CloseFrame::new(CloseCode::GOING_AWAY, "κόσμε").unwrap();
                socket.close(frame).await;
            });
        let server = serve(listener, sockets.into_service()).tracker(tracker.clone());
        tokio::spawn(server.into_future());
        Self {
            address,
            tracker,
            seen,
        }
    }

    fn at(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address)
    }

    /// What the server saw of the request of this connector.
    async fn sees(&self, connector: &Connector, address: String) -> (String, HeaderMap) {
        let (mut socket, _) = within(connector.connect(address)).await.unwrap();
        echoes(&mut socket, "Hello").await;
        self.seen.lock().unwrap().pop().unwrap()
    }
}

async fn echo(mut socket: WebSocket) -> Result<(), Error> {
    while let Some(message) = socket.recv().await {
        socket.send(message?).await?;
    }
    Ok(())
}

async fn echoes(socket: &mut WebSocket, message: impl Into<Message>) {
    let message = message.into();
    within(socket.send(message.clone())).await.unwrap();
    let back = within(socket.recv()).await.unwrap().unwrap();
    assert_eq!(back, message);
}

#[tokio::test]
async fn a_client_says_and_hears() {
    let server = Server::start().await;
    let mut socket = within(connect(server.at("/echo"))).await.unwrap();
    assert_eq!(socket.peer(), Some(server.address));
    assert_eq!((socket.subprotocol(), socket.path()), (None, ""));
    for size in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
        echoes(&mut socket, "x".repeat(size)).await;
        echoes(&mut socket, vec![7; size]).await;
    }
    assert!(within(socket.ping()).await.unwrap() < Duration::from_secs(5));
    let closed = within(socket.close(CloseFrame::from(CloseCode::NORMAL))).await;
    assert!(closed.is_clean(), "{closed:?}");
    until(|| server.tracker.is_empty()).await;
}

#[tokio::test]
async fn a_client_hears_why_the_server_closes() {
    let server = Server::start().await;
    let mut socket = within(connect(server.at("/bye"))).await.unwrap();
    assert!(within(socket.recv()).await.is_none());
    let closed = within(socket.closed()).await;
    assert!(closed.is_clean());
    let frame = closed.received().unwrap().frame().unwrap().clone();
    assert_eq!(
        (frame.code(), frame.reason()),
        (CloseCode::GOING_AWAY, "κόσμε")
    );
}

#[tokio::test]
async fn dropping_the_last_handle_closes_with_1000() {
    let server = Server::start().await;
    let socket = within(connect(server.at("/echo"))).await.unwrap();
    until(|| server.tracker.len() == 1).await;
    drop(socket);
    until(|| server.tracker.is_empty()).await;
}

#[tokio::test]
async fn the_server_sees_headers_cookies_and_credentials() {
    let server = Server::start().await;
    let connector = Connector::new()
        .header("x-room", "7")
        .header("x-room", "8")
        .cookie("a", "1")
        .cookie("b", "2=3")
        .bearer_auth("3vJx")
        .origin(format!("http://{}", server.address))
        .user_agent("probe/1");
    let (uri, headers) = server.sees(&connector, server.at("/see?x=1&y=%20")).await;
    assert_eq!(uri, "/see?x=1&y=%20");
    assert_eq!(headers["host"], server.address.to_string());
    let rooms: Vec<_> = headers.get_all("x-room").iter().collect();
    assert_eq!(rooms, ["7", "8"]);
    assert_eq!(headers.get_all("cookie").iter().count(), 1);
    assert_eq!(headers["cookie"], "a=1; b=2=3");
    assert_eq!(headers["authorization"], "Bearer 3vJx");
    assert_eq!(headers["user-agent"], "probe/1");
    assert!(headers.contains_key("origin"));
    assert_eq!(headers["sec-websocket-version"], "13");
    assert_eq!(
        headers["sec-websocket-extensions"],
        "permessage-deflate; client_max_window_bits"
    );
    assert!(!headers.contains_key("content-length"));

    let plain = Connector::new().user_agent(None);
    let (_, headers) = server.sees(&plain, server.at("/see")).await;
    for absent in ["origin", "user-agent", "cookie", "authorization"] {
        assert!(!headers.contains_key(absent), "{absent}");
    }
    let (_, headers) = server.sees(&Connector::new(), server.at("/see")).await;
    let agent = headers["user-agent"].to_str().unwrap();
    assert!(agent.starts_with("ws-hyper/"));
}

#[tokio::test]
async fn a_name_and_password_become_basic_authentication() {
    let server = Server::start().await;
    let with_user = format!("ws://Aladdin:open%20sesame@{}/see", server.address);
    let (uri, headers) = server.sees(&Connector::new(), with_user.clone()).await;
    assert_eq!(uri, "/see");
    assert_eq!(
        headers["authorization"],
        "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    );
    assert_eq!(headers["host"], server.address.to_string());

    let connector = Connector::new().basic_auth("Aladdin", "open sesame");
    let (_, headers) = server.sees(&connector, server.at("/see")).await;
    assert_eq!(
        headers["authorization"],
        "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    );

    // What is set outweighs what is in the address.
    let connector = Connector::new().bearer_auth("x");
    let (_, headers) = server.sees(&connector, with_user).await;
    let all: Vec<_> = headers.get_all("authorization").iter().collect();
    assert_eq!(all, ["Bearer x"]);
}

#[tokio::test]
async fn the_subprotocol_is_one_that_was_offered() {
    let server = Server::start().await;
    let connector = Connector::new().subprotocol("chat").subprotocol("chat.v2");
    let (socket, response) = within(connector.connect(server.at("/echo"))).await.unwrap();
    assert_eq!(socket.subprotocol(), Some("chat.v2"));
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat.v2");
    let connector = Connector::new().subprotocol("other");
    let (socket, _) = within(connector.connect(server.at("/echo"))).await.unwrap();
    assert_eq!(socket.subprotocol(), None);
}

#[tokio::test]
async fn http_and_uri_values_are_addresses_too() {
    let server = Server::start().await;
    let mut socket = within(connect(format!("HTTP://{}/echo", server.address)))
        .await
        .unwrap();
    echoes(&mut socket, "Hello").await;
    let uri: http::Uri = server.at("/echo").parse().unwrap();
    let mut socket = within(connect(&uri)).await.unwrap();
    echoes(&mut socket, "Hello").await;
    let mut socket = within(connect(uri)).await.unwrap();
    echoes(&mut socket, "Hello").await;
}

#[tokio::test]
async fn what_cannot_be_asked_for_is_told_before_anything_is_sent() {
    let nobody = "ws://127.0.0.1:1/";
    let refused = async |connector: Connector, address: &str| {
        let connected = within(connector.connect(address)).await;
        connected.map(|_| ()).unwrap_err()
    };
    let settings = [
        Connector::new().header("bad name", "x"),
        Connector::new().header("x-injected", "a\r\nb: c"),
        Connector::new().cookie("a", "b; c=d"),
        Connector::new().cookie("a b", "c"),
        Connector::new().basic_auth("a:b", "c"),
        Connector::new().bearer_auth("a\nb"),
        Connector::new().origin("a\nb"),
    ];
    for connector in settings {
        let error = refused(connector.clone(), nobody).await;
        assert!(matches!(error, ConnectError::Setting(_)), "{connector:?}");
    }
    let requests = [
        (Connector::new().header("host", "x"), nobody),
        (Connector::new().header("sec-websocket-key", "x"), nobody),
        (Connector::new().subprotocol("a b"), nobody),
        (Connector::new().subprotocol("a").subprotocol("a"), nobody),
        (Connector::new(), "ws://127.0.0.1:99999/"),
    ];
    for (connector, address) in requests {
        let error = refused(connector, address).await;
        assert!(matches!(error, ConnectError::Request(_)), "{error:?}");
    }
    let error = refused(Connector::new().subprotocol("a b"), nobody).await;
    let is_subprotocol =
        matches!(&error, ConnectError::Request(RequestError::Subprotocol(it)) if it == "a b");
    assert!(is_subprotocol, "{error:?}");
    let error = refused(Connector::new(), "chat.example").await;
    assert!(matches!(
        error,
        ConnectError::Address(AddressError::Scheme(None))
    ));
    let error = refused(Connector::new(), nobody).await;
    assert!(matches!(&error, ConnectError::Connect { to, .. } if to == "127.0.0.1:1"));
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}

#[tokio::test]
async fn settings_keep_secrets_to_themselves() {
    let connector = Connector::new()
        .bearer_auth("very-secret")
        .proxy(ws_hyper::client::Proxy::new("http://a:very-secret@127.0.0.1:1").unwrap());
    assert!(!format!("{connector:?}").contains("very-secret"));
    let address: ws_hyper::client::Address = "ws://a:very-secret@b/".parse().unwrap();
    assert!(!format!("{address:?}").contains("very-secret"));
}

#[tokio::test]
async fn any_stream_will_do() {
    let (near, far) = tokio::io::duplex(100);
    tokio::spawn(async {
        let mut socket = accept_async(far).await.unwrap();
        let message = socket.next().await.unwrap().unwrap();
        socket.send(message).await.unwrap();
        while socket.next().await.is_some() {}
    });
    let connector = Connector::new();
    let connecting = connector.connect_with(near, "ws://a.example/echo");
    let (mut socket, _) = within(connecting).await.unwrap();
    assert_eq!(socket.peer(), None);
    echoes(&mut socket, "Hello").await;
    assert!(within(socket.close(None)).await.is_clean());
}

#[tokio::test]
async fn tokio_tungstenite_understands_the_client() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = accept_async(stream).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() || message.is_binary() {
                let ping = tungstenite::Message::Ping("are you there?".into());
                socket.send(ping).await.unwrap();
                socket.send(message).await.unwrap();
            }
        }
    });
    let mut socket = within(connect(format!("ws://{address}/"))).await.unwrap();
    for size in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
        echoes(&mut socket, "κ".repeat(size / 2)).await;
        echoes(&mut socket, vec![0xfe; size]).await;
    }
    let frame = CloseFrame::new(CloseCode::NORMAL, "bye").unwrap();
    assert!(within(socket.close(frame)).await.is_clean());
    within(server).await.unwrap();
}

/// Keys are 32 bits of a generator: of 10,000 some 0.01 pairs are equal by chance, so three
/// are not chance; and a byte value comes up 156 ± 13 times among 40,000.
#[tokio::test]
async fn ten_thousand_masks_do_not_repeat_and_their_bytes_are_uniform() {
    const COUNT: usize = 10_000;
    let (done, keys) = tokio::sync::oneshot::channel();
    let done = Arc::new(Mutex::new(Some(done)));
    let address = server(move |mut visit| {
        let done = Arc::clone(&done);
        async move {
            visit.open(b"").await;
            let written = visit.rest().await;
            let mut keys = Vec::new();
            let mut rest = &written[..];
            while keys.len() < COUNT {
                assert_eq!(rest[..2], [0x82, 0x84]);
                let key: [u8; 4] = rest[2..6].try_into().unwrap();
                for (place, byte) in rest[6..10].iter().enumerate() {
                    assert_eq!(byte ^ key[place], 7);
                }
                keys.push(key);
                rest = &rest[10..];
            }
            done.lock().unwrap().take().unwrap().send(keys).unwrap();
        }
    })
    .await;
    let socket = within(connect(format!("ws://{address}/"))).await.unwrap();
    for _ in 0..COUNT {
        within(socket.send(vec![7; 4])).await.unwrap();
    }
    drop(socket);
    let keys = within(keys).await.unwrap();
    let unique: HashSet<_> = keys.iter().collect();
    assert!(COUNT - unique.len() < 3, "{} repeat", COUNT - unique.len());
    for place in 0..4 {
        let mut counts = [0_u32; 256];
        for key in &keys {
            counts[usize::from(key[place])] += 1;
        }
        // 255 degrees of freedom: beyond 400 once in 10^8 runs.
        let expected = f64::from(u32::try_from(COUNT).unwrap()) / 256.0;
        let chi: f64 = counts
            .iter()
            .map(|count| (f64::from(*count) - expected).powi(2) / expected)
            .sum();
        assert!((140.0..400.0).contains(&chi), "byte {place}: {chi}");
    }
}

/// Each connect is dropped after so many polls, for every number until it completes.
#[tokio::test]
async fn a_connect_that_is_dropped_at_any_await_leaves_nothing_behind() {
    let open = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&open);
    let address = visited(move |io| {
        let count = Arc::clone(&count);
        async move {
            use std::sync::atomic::Ordering::SeqCst;
            count.fetch_add(1, SeqCst);
            if let Some(mut visit) = ws_tests::scripted::Visit::of(io).await {
                // In pieces, so that the client waits in between.
                let acceptance = visit.acceptance("");
                for piece in acceptance.as_bytes().chunks(40) {
                    visit.write(piece).await;
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                visit.rest().await;
            }
            count.fetch_sub(1, SeqCst);
        }
    })
    .await;
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let connector = Connector::new();
    let before = tasks();
    let mut polls = 0;
    loop {
        let mut left = polls;
        let mut connecting = Box::pin(connector.connect(format!("ws://{address}/")));
        let connected = std::future::poll_fn(|cx| {
            if left == 0 {
                return std::task::Poll::Ready(false);
            }
            left -= 1;
            connecting.as_mut().poll(cx).map(|result| {
                result.unwrap();
                true
            })
        })
        .await;
        drop(connecting);
        until(|| open.load(std::sync::atomic::Ordering::SeqCst) == 0).await;
        until(|| tasks() <= before).await;
        if connected {
            break;
        }
        polls += 1;
    }
    assert!(polls > 3, "there was something to drop");
}
