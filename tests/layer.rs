//! The layer, the gate and the extractor under real servers: `axum::serve`, and an accept loop on
//! hyper alone. The client is a bare TCP socket, so that every byte is known.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::ConnectInfo,
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::{any, get},
};
use http::{HeaderValue, Request, StatusCode, header::SET_COOKIE};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use ws_tower::{
    Error, WebSocket, WebSocketLayer, WebSocketUpgrade,
    gate::{Gate, GateLayer},
};

/// Who serves.
#[derive(Clone, Copy, Debug)]
enum Server {
    Axum,
    Hyper,
    /// hyper, by someone who does not know that upgrades want `with_upgrades`.
    HyperWithoutUpgrades,
}

const SERVERS: [Server; 2] = [Server::Axum, Server::Hyper];

impl Server {
    /// Serves until the test ends.
    async fn serve(self, app: Router) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        match self {
            Self::Axum => {
                let app = app.into_make_service_with_connect_info::<SocketAddr>();
                tokio::spawn(async move { axum::serve(listener, app).await });
            }
            Self::Hyper | Self::HyperWithoutUpgrades => {
                let with_upgrades = matches!(self, Self::Hyper);
                tokio::spawn(accept(listener, app, with_upgrades));
            }
        }
        address
    }
}

/// The accept loop that hyper's users write.
async fn accept<S, B>(listener: TcpListener, service: S, with_upgrades: bool)
where
    S: tower::Service<
            Request<Incoming>,
            Response = http::Response<B>,
            Error = Infallible,
            Future: Send,
        > + Clone
        + Send
        + 'static,
    B: hyper::body::Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static,
{
    while let Ok((stream, _)) = listener.accept().await {
        let service = TowerToHyperService::new(service.clone());
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        if with_upgrades {
            tokio::spawn(connection.with_upgrades());
        } else {
            tokio::spawn(connection);
        }
    }
}

async fn echo(mut socket: WebSocket) -> Result<(), Error> {
    while let Some(message) = socket.recv().await {
        socket.send(message?).await?;
    }
    Ok(())
}

/// A request for a WebSocket, as bytes. The key is that of RFC 6455 §1.3.
fn handshake(path: &str, connection: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
         Connection: {connection}\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

/// A frame of a client; its mask is zero.
fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    assert!(length < 126);
    let mut frame = vec![0x80 | opcode, 0x80 | length, 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}

/// A client that knows nothing but bytes.
struct Raw(TcpStream);

impl Raw {
    async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// Opens a WebSocket and returns the head of the response.
    async fn open(address: SocketAddr, path: &str, connection: &str) -> (Self, String) {
        let mut raw = Self::connect(address).await;
        raw.write(&handshake(path, connection)).await;
        let head = raw.head().await;
        (raw, head)
    }

    async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(within(self.0.read_u8()).await.unwrap());
        }
        String::from_utf8(head).unwrap().to_ascii_lowercase()
    }

    async fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        within(self.0.read_exact(&mut bytes)).await.unwrap();
        bytes
    }

    /// What comes until the end, even if that is a reset.
    async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = within(self.0.read_to_end(&mut bytes)).await;
        bytes
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), future).await.unwrap()
}

#[tokio::test]
async fn one_application_runs_unchanged_under_axum_and_under_hyper() {
    for server in SERVERS {
        let sockets = WebSocketLayer::new().route("/echo", echo);
        let app = Router::new()
            .route("/", get(async || "index"))
            .layer(sockets);
        let address = server.serve(app).await;

        let (mut raw, head) = Raw::open(address, "/echo", "keep-alive, Upgrade").await;
        assert!(head.starts_with("http/1.1 101 "), "{server:?}: {head}");
        assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"));
        assert!(!head.contains("content-length") && !head.contains("transfer-encoding"));
        raw.write(&masked(1, b"Hello")).await;
        assert_eq!(raw.read(7).await, b"\x81\x05Hello");
        raw.write(&masked(8, &[3, 0xe8])).await;
        assert_eq!(raw.rest().await, b"\x88\x02\x03\xe8");

        // Requests that are no WebSockets share the port, and the connection goes on.
        let mut raw = Raw::connect(address).await;
        for _ in 0..2 {
            raw.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert!(raw.head().await.starts_with("http/1.1 200 "));
            assert_eq!(raw.read(5).await, b"index");
        }
        let (_, head) = Raw::open(address, "/nowhere", "Upgrade").await;
        assert!(head.starts_with("http/1.1 404 "), "{server:?}: {head}");
    }
}

#[tokio::test]
async fn alone_on_hyper_the_layer_needs_no_framework() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = WebSocketLayer::new().route("/echo", echo).into_service();
    tokio::spawn(accept(listener, service, true));
    let (mut raw, head) = Raw::open(address, "/echo", "Upgrade").await;
    assert!(head.starts_with("http/1.1 101 "));
    raw.write(&masked(1, b"Hello")).await;
    assert_eq!(raw.read(7).await, b"\x81\x05Hello");

    let mut raw = Raw::connect(address).await;
    raw.write(b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    let head = raw.head().await;
    assert!(head.starts_with("http/1.1 426 ") && head.contains("upgrade: websocket"));
    assert!(raw.rest().await.starts_with(b"this is a websocket"));
}

/// What a middleware further out makes of an acceptance.
async fn forbid(mut response: Response) -> Response {
    *response.status_mut() = StatusCode::FORBIDDEN;
    response
}

/// An application that accepts, counts the handlers that run, and keeps the handles.
fn accepting(ran: &Arc<AtomicUsize>, kept: &Arc<Mutex<Vec<WebSocket>>>) -> Router {
    let (ran, kept) = (Arc::clone(ran), Arc::clone(kept));
    let on_upgrade = async move |upgrade: WebSocketUpgrade| -> Response {
        let ran = Arc::clone(&ran);
        upgrade.on_upgrade(async move |socket| {
            ran.fetch_add(1, Ordering::Relaxed);
            echo(socket).await
        })
    };
    let accept = async move |upgrade: WebSocketUpgrade| -> Response {
        let (response, socket) = upgrade.accept();
        kept.lock().unwrap().push(socket);
        response
    };
    Router::new()
        .route("/on_upgrade", any(on_upgrade))
        .route("/accept", any(accept))
}

/// The proof behind the gate: without it, hyper 1.12 gives the client a live WebSocket here.
#[tokio::test]
async fn a_403_from_a_middleware_leaves_no_session_even_with_upgrade_close() {
    for server in SERVERS {
        for gate_alone in [true, false] {
            let ran = Arc::new(AtomicUsize::new(0));
            let kept = Arc::default();
            let app = accepting(&ran, &kept);
            let handler = {
                let ran = Arc::clone(&ran);
                move |socket| {
                    ran.fetch_add(1, Ordering::Relaxed);
                    echo(socket)
                }
            };
            let inner = WebSocketLayer::new().route("/routed", handler);
            let (app, tracker) = if gate_alone {
                let gate = GateLayer::new();
                let tracker = gate.tracker();
                (
                    app.layer(inner).layer(map_response(forbid)).layer(gate),
                    tracker,
                )
            } else {
                let outer = WebSocketLayer::new();
                let tracker = outer.tracker();
                (
                    app.layer(inner).layer(map_response(forbid)).layer(outer),
                    tracker,
                )
            };
            let address = server.serve(app).await;
            for connection in ["Upgrade, close", "Upgrade"] {
                for path in ["/on_upgrade", "/accept", "/routed"] {
                    let (mut raw, head) = Raw::open(address, path, connection).await;
                    assert!(head.starts_with("http/1.1 403 "), "{path}: {head}");
                    let _ = raw.0.write_all(&masked(1, b"Hello")).await;
                    let rest = raw.rest().await;
                    // No frame: nothing at all, or HTTP's complaint about one.
                    let silent = rest.is_empty() || rest.starts_with(b"HTTP/1.1 400 ");
                    assert!(silent, "{server:?} {path} {connection}: {rest:?}");
                }
            }
            assert_eq!(ran.load(Ordering::Relaxed), 0);
            assert!(tracker.is_empty());
            let sockets: Vec<_> = kept.lock().unwrap().drain(..).collect();
            assert_eq!(sockets.len(), 2);
            for mut socket in sockets {
                let error = within(socket.recv()).await;
                assert!(matches!(error, Some(Err(Error::NotUpgraded))), "{error:?}");
            }
        }
    }
}

#[tokio::test]
async fn upgrade_close_opens_a_session_if_the_acceptance_leaves() {
    for server in SERVERS {
        let ran = Arc::new(AtomicUsize::new(0));
        let app = accepting(&ran, &Arc::default()).layer(GateLayer::new());
        let address = server.serve(app).await;
        let (mut raw, head) = Raw::open(address, "/on_upgrade", "Upgrade, close").await;
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        raw.write(&masked(1, b"Hello")).await;
        assert_eq!(raw.read(7).await, b"\x81\x05Hello");
    }
}

#[tokio::test]
async fn without_a_gate_the_extractor_answers_with_the_line_to_add() {
    let app = accepting(&Arc::default(), &Arc::default());
    let address = Server::Axum.serve(app).await;
    let (mut raw, head) = Raw::open(address, "/on_upgrade", "Upgrade, close").await;
    assert!(head.starts_with("http/1.1 500 "), "{head}");
    let text = String::from_utf8(raw.rest().await).unwrap();
    assert!(text.contains(".layer(ws_tower::gate::GateLayer::new())"));
}

#[tokio::test]
async fn the_extractor_refuses_or_yields_none_for_a_page() {
    let optional = async |upgrade: Option<WebSocketUpgrade>| match upgrade {
        Some(upgrade) => upgrade.on_upgrade(echo),
        None => "a page".into_response(),
    };
    let app = accepting(&Arc::default(), &Arc::default())
        .route("/optional", any(optional))
        .layer(WebSocketLayer::new());
    let address = Server::Axum.serve(app).await;
    for (path, status) in [("/optional", "200"), ("/accept", "426")] {
        let mut raw = Raw::connect(address).await;
        raw.write(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())
            .await;
        let head = raw.head().await;
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{head}");
    }
    let (_, head) = Raw::open(address, "/optional", "Upgrade").await;
    assert!(head.starts_with("http/1.1 101 "), "{head}");

    // A handshake that is not in order is refused before the application sees it.
    for path in ["/optional", "/accept"] {
        let text = String::from_utf8(handshake(path, "Upgrade")).unwrap();
        let mut raw = Raw::connect(address).await;
        raw.write(text.replace("Version: 13", "Version: 8").as_bytes())
            .await;
        let head = raw.head().await;
        assert!(head.starts_with("http/1.1 426 "), "{head}");
        assert!(head.contains("sec-websocket-version: 13"));
    }
}

#[tokio::test]
async fn bytes_right_behind_the_request_are_the_first_input_at_every_split() {
    let mut input = handshake("/echo", "Upgrade");
    let request = input.len();
    input.extend(masked(1, b"one"));
    input.extend(masked(2, b"two"));
    let output = b"\x81\x03one\x82\x03two";
    let sockets = WebSocketLayer::new().route("/echo", echo);
    let address = Server::Hyper.serve(Router::new().layer(sockets)).await;
    for split in (0..=input.len()).filter(|split| split % 16 == 0 || *split >= request - 4) {
        let mut raw = Raw::connect(address).await;
        let (first, second) = input.split_at(split);
        raw.write(first).await;
        if split >= request {
            assert!(raw.head().await.starts_with("http/1.1 101 "));
            raw.write(second).await;
        } else {
            tokio::time::sleep(Duration::from_millis(1)).await;
            raw.write(second).await;
            assert!(raw.head().await.starts_with("http/1.1 101 "));
        }
        assert_eq!(raw.read(output.len()).await, output, "split at {split}");
    }
}

#[tokio::test]
async fn http_1_0_is_never_upgraded() {
    for server in SERVERS {
        let sockets = WebSocketLayer::new().route("/echo", echo);
        let app = Router::new()
            .route("/echo", get(async || "a page"))
            .layer(sockets);
        let address = server.serve(app).await;
        let request = String::from_utf8(handshake("/echo", "Upgrade")).unwrap();
        let mut raw = Raw::connect(address).await;
        raw.write(request.replace("HTTP/1.1", "HTTP/1.0").as_bytes())
            .await;
        let head = raw.head().await;
        assert!(head.starts_with("http/1.0 200 "), "{head}");
        assert_eq!(raw.rest().await, b"a page");
    }
}

#[tokio::test]
async fn shutdown_says_1001_and_waits_for_every_socket() {
    for server in SERVERS {
        let sockets = WebSocketLayer::new().route("/echo", echo);
        let tracker = sockets.tracker();
        let address = server.serve(Router::new().layer(sockets)).await;
        let mut raws = Vec::new();
        for _ in 0..3 {
            raws.push(Raw::open(address, "/echo", "Upgrade").await.0);
        }
        let shutdown = tokio::spawn({
            let tracker = tracker.clone();
            async move { tracker.shutdown(Duration::from_secs(60)).await }
        });
        for raw in &mut raws {
            let reason = b"server is shutting down";
            let mut close = vec![0x88, 2 + u8::try_from(reason.len()).unwrap(), 3, 0xe9];
            close.extend_from_slice(reason);
            assert_eq!(raw.read(close.len()).await, close);
        }
        assert!(!shutdown.is_finished());
        for raw in &mut raws {
            raw.write(&masked(8, &[3, 0xe9])).await;
            assert!(raw.rest().await.is_empty());
        }
        let shutdown = within(shutdown).await.unwrap();
        assert_eq!((shutdown.closed, shutdown.cut), (3, 0), "{server:?}");
        let (_, head) = Raw::open(address, "/echo", "Upgrade").await;
        assert!(head.starts_with("http/1.1 503 "), "{head}");
    }
}

#[tokio::test]
async fn the_101_carries_cookies_and_the_refusal_its_text() {
    for server in SERVERS {
        let sockets = WebSocketLayer::new()
            .route("/echo", echo)
            .header(SET_COOKIE, HeaderValue::from_static("a=1"))
            .header(SET_COOKIE, HeaderValue::from_static("b=2"));
        let address = server.serve(Router::new().layer(sockets)).await;
        let (_, head) = Raw::open(address, "/echo", "Upgrade").await;
        assert!(head.contains("set-cookie: a=1\r\n") && head.contains("set-cookie: b=2\r\n"));

        let text = String::from_utf8(handshake("/echo", "Upgrade, close")).unwrap();
        let evil = "Host: localhost\r\nOrigin: https://evil.example\r\n";
        let mut raw = Raw::connect(address).await;
        raw.write(text.replace("Host: localhost\r\n", evil).as_bytes())
            .await;
        let head = raw.head().await;
        assert!(head.starts_with("http/1.1 403 "), "{head}");
        let body = String::from_utf8(raw.rest().await).unwrap();
        for part in [
            "https://evil.example",
            "localhost",
            "WebSocketLayer::origins",
        ] {
            assert!(body.contains(part), "{body}");
        }
    }
}

#[tokio::test]
async fn on_a_nested_router_the_layer_sees_the_rest_of_the_path() {
    let tell = async |socket: WebSocket| {
        let text = format!("{} {:?}", socket.path(), socket.param("room"));
        let _ = socket.send(text).await;
    };
    let sockets = WebSocketLayer::new().route("/rooms/{room}", tell);
    // A nested layer only runs for the routes of its router.
    let nested = Router::new()
        .route("/rooms/{room}", get(async || "a page"))
        .layer(sockets);
    let app = Router::new().nest("/chat", nested);
    let address = Server::Axum.serve(app).await;
    let (mut raw, head) = Raw::open(address, "/chat/rooms/7", "Upgrade").await;
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    let text = b"/rooms/7 Some(\"7\")";
    assert_eq!(raw.read(2 + text.len()).await[2..], *text);
}

#[tokio::test]
async fn the_peer_is_told_by_axums_connect_info() {
    let tell = async |socket: WebSocket| {
        let peer = socket.peer().map(|peer| peer.to_string());
        let _ = socket.send(peer.unwrap_or_default()).await;
    };
    let sockets = WebSocketLayer::new()
        .route("/", tell)
        .peer_addr(|extensions| {
            let info = extensions.get::<ConnectInfo<SocketAddr>>()?;
            Some(info.0)
        });
    let address = Server::Axum.serve(Router::new().layer(sockets)).await;
    let (mut raw, _) = Raw::open(address, "/", "Upgrade").await;
    let own = raw.0.local_addr().unwrap().to_string();
    assert_eq!(raw.read(2 + own.len()).await[2..], *own.as_bytes());
}

#[tokio::test]
async fn a_server_that_forgets_upgrades_ends_the_handle() {
    let kept: Arc<Mutex<Vec<WebSocket>>> = Arc::default();
    let sockets = WebSocketLayer::new();
    let tracker = sockets.tracker();
    let app = accepting(&Arc::default(), &kept).layer(sockets);
    let address = Server::HyperWithoutUpgrades.serve(app).await;
    let (_raw, _) = Raw::open(address, "/accept", "Upgrade").await;
    let mut socket = kept.lock().unwrap().pop().unwrap();
    let error = within(socket.recv()).await;
    assert!(matches!(error, Some(Err(Error::NotUpgraded))), "{error:?}");
    within(async {
        while !tracker.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_middleware_that_loses_the_extensions_loses_the_socket_and_says_why() {
    let sockets = WebSocketLayer::new().route("/echo", echo);
    let forget = async |mut request: Request<Body>| {
        request.extensions_mut().clear();
        request
    };
    let app = Router::new()
        .layer(sockets)
        .layer(axum::middleware::map_request(forget));
    let address = Server::Axum.serve(app).await;
    let (mut raw, head) = Raw::open(address, "/echo", "Upgrade, close").await;
    assert!(head.starts_with("http/1.1 500 "), "{head}");
    let text = String::from_utf8(raw.rest().await).unwrap();
    assert!(text.contains("extensions"), "{text}");
}

#[tokio::test]
async fn a_gate_of_the_servers_own_is_the_outermost() {
    // As a server does that is itself the gate.
    let gate = Gate::new(ws_tower::Tracker::new());
    let sockets = WebSocketLayer::new().route("/echo", echo);
    let app = Router::new().layer(sockets.clone());
    let own = gate.clone();
    let service = tower::service_fn(move |mut request: Request<Incoming>| {
        let (gate, app) = (own.clone(), app.clone());
        async move {
            let is_outermost = gate.admit(&mut request);
            let mut response = tower::ServiceExt::oneshot(app, request).await?;
            if is_outermost {
                gate.release(&mut response);
            }
            Ok::<_, Infallible>(response)
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(accept(listener, service, true));
    let (mut raw, _) = Raw::open(address, "/echo", "Upgrade").await;
    raw.write(&masked(1, b"Hello")).await;
    assert_eq!(raw.read(7).await, b"\x81\x05Hello");
    assert_eq!((gate.tracker().len(), sockets.tracker().len()), (1, 1));
}
