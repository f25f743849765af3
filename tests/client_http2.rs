//! The client over HTTP/2 (RFC 8441), against a server written on hyper alone.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/transport.rs"]
mod transport;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use self::transport::in_memory;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use hyper::{
    body::Incoming,
    ext::Protocol,
    server::conn::http2,
    service::service_fn,
    upgrade::{self, Upgraded},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::{Instant, sleep},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};
use ws_hyper::{
    Connector,
    client::{ConnectError, Http2Connection, HttpErrorKind, Step, Tls},
};
use ws_tests::{
    peer::Peer,
    raw::{PATIENCE, until, within},
    scripted::{self, Visit, visited},
};
use ws_tower::{
    CloseCode, Config, Error, Message, WebSocket,
    ws_core::{ConnectionError, Event, handshake::client::RefusalReason},
};

/// A server for HTTP/2 alone, with an echo behind every path but some.
#[derive(Clone, Default)]
struct Server {
    /// Connections so far, and those that are open.
    connections: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    without_extended_connect: bool,
    max_streams: Option<u32>,
}

impl Server {
    async fn start(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = self.clone();
        tokio::spawn(async move {
            while let Ok((io, _)) = listener.accept().await {
                tokio::spawn(server.clone().serve(io));
            }
        });
        address
    }

    async fn serve<Io>(self, io: Io)
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.connections.fetch_add(1, Ordering::SeqCst);
        self.open.fetch_add(1, Ordering::SeqCst);
        let mut http = http2::Builder::new(TokioExecutor::new());
        if !self.without_extended_connect {
            http.enable_connect_protocol();
        }
        if let Some(max) = self.max_streams {
            http.max_concurrent_streams(max);
        }
        let _ = http
            .serve_connection(TokioIo::new(io), service_fn(answer))
            .await;
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    assert_eq!(request.method(), Method::CONNECT);
    let protocol = request.extensions().get::<Protocol>().unwrap();
    assert_eq!(protocol.as_str(), "websocket");
    assert!(request.uri().scheme().is_some() && request.uri().authority().is_some());
    let headers = request.headers();
    assert_eq!(headers["sec-websocket-version"], "13");
    for absent in ["sec-websocket-key", "upgrade", "connection", "host"] {
        assert!(!headers.contains_key(absent), "{absent}");
    }
    let mut response = Response::new(String::new());
    match request.uri().path() {
        "/forbidden" => {
            *response.status_mut() = http::StatusCode::FORBIDDEN;
            *response.body_mut() = "not you".into();
            return Ok(response);
        }
        "/never" => std::future::pending().await,
        "/odd" => {
            let odd = HeaderValue::from_static("odd");
            response.headers_mut().insert("sec-websocket-protocol", odd);
        }
        _ => {}
    }
    if let Some(offered) = headers.get("sec-websocket-protocol") {
        let chosen = offered.clone();
        response
            .headers_mut()
            .insert("sec-websocket-protocol", chosen);
    }
    let seen = seen(request.uri().path(), headers);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade::on(&mut request).await {
            echo(upgraded, seen).await;
        }
    });
    Ok(response)
}

fn seen(path: &str, headers: &HeaderMap) -> String {
    let room = headers.get("x-room").map(|room| room.to_str().unwrap());
    format!("{path} {}", room.unwrap_or_default())
}

/// Says what was requested, then echoes.
async fn echo(upgraded: Upgraded, seen: String) {
    let mut peer = Peer::server(TokioIo::new(upgraded));
    peer.send(seen).await.unwrap();
    while let Some(event) = peer.event().await {
        match event {
            Event::Message(message) if message == Message::text("reset") => return,
            Event::Message(message) => peer.send(message).await.unwrap(),
            Event::Close(_) => break,
            _ => {}
        }
    }
    let _ = peer.flush().await;
    let _ = peer.io.shutdown().await;
}

async fn hears(socket: &mut WebSocket, expected: &str) {
    let message = within(socket.recv()).await.unwrap().unwrap();
    assert_eq!(message, expected.into());
}

async fn echoes(socket: &mut WebSocket, message: impl Into<Message>) {
    let message = message.into();
    within(socket.send(message.clone())).await.unwrap();
    assert_eq!(within(socket.recv()).await.unwrap().unwrap(), message);
}

async fn connection(address: SocketAddr) -> Http2Connection {
    let connector = Connector::new().header("x-room", "7").subprotocol("chat");
    let connecting = connector.connect_http2(format!("ws://{address}/base"));
    within(connecting).await.unwrap()
}

#[tokio::test]
async fn many_sockets_share_one_connection() {
    let server = Server::default();
    let connection = connection(server.start().await).await;
    let mut sockets = Vec::new();
    for number in 0..50 {
        let path = format!("/room/{number}?x");
        let (mut socket, response) = within(connection.open(&path)).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), socket.subprotocol()),
            (200, Some("chat"))
        );
        hears(&mut socket, &format!("/room/{number} 7")).await;
        sockets.push(socket);
    }
    for (number, socket) in sockets.iter_mut().enumerate() {
        echoes(socket, format!("{number}")).await;
        echoes(socket, vec![7; 200_000]).await;
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    let mut last = sockets.pop().unwrap();
    for socket in sockets {
        let closed = within(socket.close(None)).await;
        assert!(closed.is_clean(), "{closed:?}");
    }
    // Gone is the handle; the connection stays for the socket that is left.
    drop(connection);
    echoes(&mut last, "still here").await;
    assert_eq!(server.open.load(Ordering::SeqCst), 1);
    assert!(within(last.close(None)).await.is_clean());
    until(|| server.open.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn an_empty_path_is_that_of_the_address() {
    let connection = connection(Server::default().start().await).await;
    let (mut socket, _) = within(connection.open("")).await.unwrap();
    hears(&mut socket, "/base 7").await;
    assert!(connection.is_open());
}

#[tokio::test]
async fn a_refusal_over_http2_has_status_and_body_and_hurts_nobody_else() {
    let connection = connection(Server::default().start().await).await;
    let (mut socket, _) = within(connection.open("/")).await.unwrap();
    hears(&mut socket, "/ 7").await;
    let error = within(connection.open("/forbidden")).await.unwrap_err();
    let refusal = error.refusal().unwrap();
    assert_eq!(
        (refusal.status().as_u16(), &refusal.body()[..]),
        (403, &b"not you"[..])
    );
    let connector = Connector::new();
    let address = Server::default().start().await;
    let other = within(connector.connect_http2(format!("ws://{address}")))
        .await
        .unwrap();
    let error = within(other.open("/odd")).await.unwrap_err();
    let reason = error.refusal().unwrap().reason().clone();
    assert_eq!(reason, RefusalReason::SubprotocolNotOffered("odd".into()));
    assert!(error.is_final(), "trying again brings the same answer");
    echoes(&mut socket, "still here").await;
}

#[tokio::test(start_paused = true)]
async fn opening_is_cut_at_the_deadline_and_can_be_cancelled() {
    let server = Server::default();
    let started = server.clone();
    let connector = in_memory(move |io| started.clone().serve(io))
        .config(Config::new().handshake_timeout(Duration::from_millis(200)));
    let connecting = connector.connect_http2("ws://a.example");
    let connection = within(connecting).await.unwrap();
    match within(connection.open("/never")).await.unwrap_err() {
        ConnectError::Timeout { during, .. } => assert_eq!(during, Step::Answer),
        error => panic!("{error:?}"),
    }
    let opening = connection.open("/never");
    let _ = tokio::time::timeout(Duration::from_millis(10), opening).await;
    let (mut socket, _) = within(connection.open("/")).await.unwrap();
    hears(&mut socket, "/ ").await;
    drop((connection, socket));
    until(|| server.open.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_stream_that_is_reset_ends_its_socket_alone() {
    let connection = connection(Server::default().start().await).await;
    let (mut one, _) = within(connection.open("/1")).await.unwrap();
    let (mut two, _) = within(connection.open("/2")).await.unwrap();
    hears(&mut one, "/1 7").await;
    hears(&mut two, "/2 7").await;
    one.send("reset").await.unwrap();
    let error = within(one.recv()).await.unwrap().unwrap_err();
    assert!(
        matches!(error, Error::Connection(_) | Error::Io(_)),
        "{error:?}"
    );
    assert!(!within(one.closed()).await.is_clean());
    echoes(&mut two, "still here").await;
}

/// What a server does to a socket, or to the connection below it.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Ended,
    Killed,
    TcpReset,
    Reset(h2::Reason),
    GoAway,
}

async fn fate(fate: Fate) -> Error {
    let address = visited(move |io| async move {
        if matches!(fate, Fate::TcpReset) {
            io.set_zero_linger().unwrap();
        }
        let mut builder = h2::server::Builder::new();
        let builder = builder.enable_connect_protocol();
        let mut connection = builder.handshake::<_, Bytes>(io).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        let text = Bytes::from_static(b"\x81\x02hi");
        stream.send_data(text, false).unwrap();
        // All of this leaves, and all that came is read.
        let _ = tokio::time::timeout(Duration::from_millis(100), connection.accept()).await;
        match fate {
            Fate::Killed | Fate::TcpReset => return,
            Fate::Ended => stream.send_data(Bytes::new(), true).unwrap(),
            Fate::Reset(reason) => stream.send_reset(reason),
            Fate::GoAway => connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM),
        }
        let _ = within(connection.accept()).await;
        drop((request, stream));
    })
    .await;
    let connector = Connector::new();
    let connecting = connector.connect_http2(format!("ws://{address}"));
    let connection = within(connecting).await.unwrap();
    let (mut socket, _) = within(connection.open("/")).await.unwrap();
    hears(&mut socket, "hi").await;
    let error = within(socket.recv()).await.unwrap().unwrap_err();
    let closed = within(socket.closed()).await;
    assert!(!closed.is_clean());
    assert_eq!(closed.cause().unwrap().to_string(), error.to_string());
    error
}

#[tokio::test]
async fn an_end_over_http2_is_told_as_over_http1() {
    for how in [
        Fate::Ended,
        Fate::Killed,
        Fate::Reset(h2::Reason::CANCEL),
        Fate::Reset(h2::Reason::NO_ERROR),
        Fate::GoAway,
    ] {
        let error = fate(how).await;
        let is_end = matches!(error, Error::Connection(ConnectionError::UnexpectedEof));
        assert!(is_end, "{how:?}: {error:?}");
    }
    for how in [
        Fate::TcpReset,
        Fate::Reset(h2::Reason::INTERNAL_ERROR),
        Fate::Reset(h2::Reason::STREAM_CLOSED),
    ] {
        match fate(how).await {
            Error::Io(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{how:?}");
            }
            error => panic!("{how:?}: {error:?}"),
        }
    }
}

/// 10,000 small messages to a handler that takes none: only that socket ends, with 1013.
#[tokio::test]
async fn a_socket_that_is_not_read_does_not_hold_up_the_others() {
    let address = Server::default().start().await;
    let connector = Connector::new().config(Config::new().http2_receive_cap(100 << 10));
    let connecting = connector.connect_http2(format!("ws://{address}"));
    let connection = within(connecting).await.unwrap();
    let (lazy, _) = within(connection.open("/1")).await.unwrap();
    let (mut eager, _) = within(connection.open("/2")).await.unwrap();
    hears(&mut eager, "/2 ").await;
    for number in 0..10_000 {
        // Each comes back, and nobody takes it.
        if lazy.send("0123456789").await.is_err() {
            break;
        }
        if number % 100 == 0 {
            echoes(&mut eager, "still here").await;
        }
    }
    let closed = within(lazy.closed()).await;
    let sent = closed.sent().and_then(ws_core::Close::code);
    assert_eq!(sent, Some(CloseCode::TRY_AGAIN_LATER), "{closed:?}");
    echoes(&mut eager, "still here").await;
    assert!(connection.is_open());
}

/// h2 ends a connection when too many small frames wait. They do not, although the task that takes
/// the messages holds up its thread, and with it perhaps that of the socket's own task.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_the_smallest_frames_to_a_slow_task_disturbs_no_other_socket() {
    const MESSAGES: usize = 150_000;
    let address = visited(|io| async move {
        let mut builder = h2::server::Builder::new();
        let builder = builder.enable_connect_protocol();
        let mut connection = builder.handshake::<_, Bytes>(io).await.unwrap();
        let mut streams = Vec::new();
        for _ in 0..2 {
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            let stream = respond.send_response(Response::new(()), false).unwrap();
            streams.push(stream);
        }
        for _ in 0..MESSAGES {
            let empty = Bytes::from_static(b"\x81\0");
            streams[0].send_data(empty, false).unwrap();
        }
        let text = Bytes::from_static(b"\x81\x02hi");
        streams[1].send_data(text, false).unwrap();
        let _ = connection.accept().await;
    })
    .await;
    let config = Config::new().http2_receive_cap(64 << 20);
    let connector = Connector::new().config(config);
    let connecting = connector.connect_http2(format!("ws://{address}"));
    let connection = within(connecting).await.unwrap();
    let (mut slow, _) = within(connection.open("/slow")).await.unwrap();
    let (mut other, _) = within(connection.open("/other")).await.unwrap();
    let slow = tokio::spawn(async move {
        for number in 0..MESSAGES {
            let message = slow.recv().await;
            assert!(matches!(message, Some(Ok(_))), "{number} {message:?}");
            if number < 10 {
                // Wakes the socket's own task, on this thread.
                slow.send("x").await.unwrap();
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    });
    hears(&mut other, "hi").await;
    // So many messages take a while.
    let slow = tokio::time::timeout(4 * PATIENCE, slow).await;
    slow.unwrap().unwrap();
    assert!(connection.is_open());
}

#[tokio::test]
async fn a_connection_that_is_gone_says_so() {
    let leave = Arc::new(Notify::new());
    let left = Arc::clone(&leave);
    let address = visited(move |io| {
        let left = Arc::clone(&left);
        async move {
            tokio::select! {
                () = Server::default().serve(io) => {}
                () = left.notified() => {}
            }
        }
    })
    .await;
    let connection = connection(address).await;
    leave.notify_one();
    until(|| !connection.is_open()).await;
    match within(connection.open("/")).await.unwrap_err() {
        ConnectError::Http(error) => assert_eq!(error.kind(), HttpErrorKind::NoHttp2),
        error => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn beyond_the_servers_limit_opening_waits_for_room() {
    let server = Server {
        max_streams: Some(1),
        ..Server::default()
    };
    let connection = connection(server.start().await).await;
    let (one, _) = within(connection.open("/1")).await.unwrap();
    let second = tokio::spawn({
        let connection = connection.clone();
        async move { connection.open("/2").await }
    });
    sleep(Duration::from_millis(50)).await;
    assert!(!second.is_finished());
    one.close(None).await;
    let (mut two, _) = within(second).await.unwrap().unwrap();
    hears(&mut two, "/2 7").await;
}

#[tokio::test]
async fn http2_is_preferred_where_there_is_some() {
    let server = Server::default();
    let address = format!("ws://{}/", server.start().await);
    let connector = Connector::new().prefer_http2();
    let (mut socket, response) = within(connector.connect(&address)).await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    hears(&mut socket, "/ ").await;
    assert!(within(socket.close(None)).await.is_clean());
    until(|| server.open.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_server_of_http1_alone_gets_a_fresh_connection() {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let address = scripted::server(move |mut visit| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            if visit.head.starts_with("PRI ") {
                visit
                    .write("HTTP/1.1 400 x\r\nContent-Length: 0\r\n\r\n")
                    .await;
                return;
            }
            visit.open(b"\x81\x02h1").await;
            visit.rest().await;
        }
    })
    .await;
    let connector = Connector::new().prefer_http2();
    let address = format!("ws://{address}/");
    let (mut socket, response) = within(connector.connect(&address)).await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_11);
    hears(&mut socket, "h1").await;
    assert_eq!(connections.load(Ordering::SeqCst), 2);
    // Where HTTP/2 is all that will do, that is an error.
    match within(connector.connect_http2(&address)).await.unwrap_err() {
        ConnectError::Http(error) => assert_eq!(error.kind(), HttpErrorKind::NoHttp2),
        error => panic!("{error:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_to_http2_is_asked_over_http1_in_time() {
    let connector = in_memory(|io| async {
        let mut visit = Visit::of(io).await.unwrap();
        if visit.head.starts_with("PRI ") {
            visit.be_silent().await;
        }
        visit.open(b"\x81\x02h1").await;
        visit.rest().await;
    });
    let config = Config::new().handshake_timeout(Duration::from_secs(1));
    let connector = connector.config(config).prefer_http2();
    let (mut socket, _) = within(connector.connect("ws://a.example/")).await.unwrap();
    hears(&mut socket, "h1").await;
}

/// Each connect is dropped after so many polls, for every number until it completes.
#[tokio::test]
async fn a_connect_that_is_dropped_at_any_await_leaves_nothing_behind() {
    let server = Server::default();
    let address = format!("ws://{}/", server.start().await);
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let connector = Connector::new().prefer_http2();
    let before = tasks();
    for polls in 0.. {
        let mut left = polls;
        let mut connecting = Box::pin(connector.connect(&address));
        let connected = std::future::poll_fn(|cx| {
            if left == 0 {
                return Poll::Ready(false);
            }
            left -= 1;
            connecting.as_mut().poll(cx).map(|result| result.is_ok())
        })
        .await;
        drop(connecting);
        until(|| server.open.load(Ordering::SeqCst) == 0).await;
        until(|| tasks() <= before).await;
        if connected {
            assert!(polls > 3, "there was something to drop");
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_extended_connect_there_is_no_waiting() {
    let server = Server {
        without_extended_connect: true,
        ..Server::default()
    };
    let started = server.clone();
    let connector = in_memory(move |io| started.clone().serve(io));
    let start = Instant::now();
    let connecting = connector.connect_http2("ws://a.example/");
    match within(connecting).await.unwrap_err() {
        ConnectError::Http(error) => assert_eq!(error.kind(), HttpErrorKind::NoHttp2),
        error => panic!("{error:?}"),
    }
    assert!(start.elapsed() < Duration::from_secs(1));
    until(|| server.open.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test(start_paused = true)]
async fn settings_that_never_come_end_at_the_deadline() {
    let gone = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&gone);
    let connector = in_memory(move |io| {
        let count = Arc::clone(&count);
        async move {
            let mut visit = Visit {
                io,
                head: String::new(),
            };
            visit.rest().await;
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    match within(connector.connect_http2("ws://a.example/"))
        .await
        .unwrap_err()
    {
        ConnectError::Timeout { during, .. } => assert_eq!(during, Step::Settings),
        error => panic!("{error:?}"),
    }
    until(|| gone.load(Ordering::SeqCst) == 1).await;
}

/// Over TLS, with what ALPN says; HTTP/1.1 is spoken on the same connection if it is chosen.
#[tokio::test]
async fn alpn_decides_over_tls() {
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let pem = certificate.cert.pem();
    for (alpn, version) in [
        (vec!["h2", "http/1.1"], http::Version::HTTP_2),
        (vec!["http/1.1"], http::Version::HTTP_11),
        (vec![], http::Version::HTTP_11),
    ] {
        let key = PrivatePkcs8KeyDer::from(certificate.signing_key.serialize_der());
        let provider = rustls::crypto::ring::default_provider();
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.cert.der().clone()],
                PrivateKeyDer::Pkcs8(key),
            )
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|it| it.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let address = visited(move |io: TcpStream| {
            let acceptor = acceptor.clone();
            count.fetch_add(1, Ordering::SeqCst);
            async move {
                let io = acceptor.accept(io).await.unwrap();
                if io.get_ref().1.alpn_protocol() == Some(b"h2") {
                    Server::default().serve(io).await;
                } else {
                    let mut visit = Visit::of(io).await.unwrap();
                    visit.open(b"\x81\x02h1").await;
                    visit.rest().await;
                }
            }
        })
        .await;
        let tls = Tls::roots_from_pem(pem.as_bytes()).unwrap();
        let connector = Connector::new().tls(tls).prefer_http2();
        let address = format!("wss://localhost:{}/", address.port());
        let (mut socket, response) = within(connector.connect(&address)).await.unwrap();
        assert_eq!(response.version(), version, "{alpn:?}");
        let greeting = if version == http::Version::HTTP_2 {
            "/ "
        } else {
            "h1"
        };
        hears(&mut socket, greeting).await;
        assert_eq!(connections.load(Ordering::SeqCst), 1);
        let multiplexed = within(connector.connect_http2(&address)).await;
        assert_eq!(multiplexed.is_ok(), version == http::Version::HTTP_2);
    }
}

/// A server that knows HTTP/2 but no WebSockets over it, and HTTP/1.1 on the same port.
#[tokio::test(start_paused = true)]
async fn a_server_without_extended_connect_is_asked_over_http1() {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let connector = in_memory(move |io| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        async move {
            if number == 0 {
                let server = Server {
                    without_extended_connect: true,
                    ..Server::default()
                };
                server.serve(io).await;
            } else {
                let mut visit = Visit::of(io).await.unwrap();
                visit.open(b"\x81\x02h1").await;
                visit.rest().await;
            }
        }
    });
    let start = Instant::now();
    let connector = connector.prefer_http2();
    let (mut socket, response) = within(connector.connect("ws://a.example/")).await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_11);
    hears(&mut socket, "h1").await;
    assert_eq!(connections.load(Ordering::SeqCst), 2);
    assert!(start.elapsed() < Duration::from_secs(1));
}

/// The client against `ws_hyper::serve`.
mod served {
    use tokio::sync::oneshot;
    use ws_core::{Deflate, deflate::Takeover};
    use ws_hyper::{serve, server};
    use ws_tower::{Tracker, WebSocketLayer};

    use super::*;

    struct Site {
        address: String,
        tls: Tls,
        tracker: Tracker,
        stop: oneshot::Sender<()>,
    }

    impl Site {
        async fn start(is_tls: bool, is_http1_only: bool) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            let pem = identity.cert.pem();
            let tracker = Tracker::new();
            let layer = WebSocketLayer::new()
                .config(Config::new().max_message_size(4 << 20))
                .subprotocols(["chat.v2", "chat"])
                .guard(refuse)
                .route("/echo", echo)
                .route("/version", version);
            let mut serving = serve(listener, layer.into_service()).tracker(tracker.clone());
            if is_tls {
                let key = identity.signing_key.serialize_pem();
                serving = serving.tls(server::Tls::from_pem(&pem, key).unwrap());
            }
            if is_http1_only {
                serving = serving.http1_only();
            }
            let (stop, stopped) = oneshot::channel::<()>();
            let stopped = async move {
                let _ = stopped.await;
            };
            let serving = serving.with_graceful_shutdown(stopped, Duration::from_secs(5));
            tokio::spawn(serving.into_future());
            let scheme = if is_tls { "wss" } else { "ws" };
            Self {
                address: format!("{scheme}://localhost:{port}"),
                tls: Tls::roots_from_pem(pem.as_bytes()).unwrap(),
                tracker,
                stop,
            }
        }

        fn at(&self, path: &str) -> String {
            format!("{}{path}", self.address)
        }

        fn connector(&self) -> Connector {
            Connector::new()
                .config(large())
                .tls(self.tls.clone())
                .prefer_http2()
        }
    }

    fn large() -> Config {
        Config::new().max_message_size(4 << 20)
    }

    async fn echo(mut socket: WebSocket) -> Result<(), Error> {
        while let Some(message) = socket.recv().await {
            socket.send(message?).await?;
        }
        Ok(())
    }

    async fn version(socket: WebSocket, request: Request<()>) -> Result<(), Error> {
        socket.send(format!("{:?}", request.version())).await
    }

    fn refuse(request: &mut Request<()>) -> Result<(), (http::StatusCode, &'static str)> {
        if request.headers().contains_key("x-stranger") {
            return Err((http::StatusCode::FORBIDDEN, "no strangers"));
        }
        Ok(())
    }

    fn messages() -> Vec<Message> {
        let text = "κόσμε and the rest of the world. ";
        let mut messages = Vec::new();
        for size in [0, 1, 125, 126, 65_535, 65_536, 500_000] {
            messages.push(Message::binary(vec![7; size]));
            messages.push(Message::text(text.repeat(size / text.len())));
        }
        messages
    }

    #[tokio::test]
    async fn a_socket_of_ours_is_the_same_over_http2_and_tls() {
        for is_tls in [false, true] {
            let site = Site::start(is_tls, false).await;
            let connector = site.connector().subprotocol("chat").subprotocol("chat.v2");
            let connecting = connector.connect(site.at("/version"));
            let (mut socket, response) = within(connecting).await.unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(response.version(), http::Version::HTTP_2);
            hears(&mut socket, "HTTP/2.0").await;
            assert!(within(socket.recv()).await.is_none());
            assert!(within(socket.closed()).await.is_clean());

            let (mut socket, _) = within(connector.connect(site.at("/echo"))).await.unwrap();
            assert_eq!(socket.subprotocol(), Some("chat.v2"));
            for message in messages() {
                echoes(&mut socket, message).await;
            }
            assert!(within(socket.ping()).await.unwrap() > Duration::ZERO);
            assert!(within(socket.close(None)).await.is_clean());

            let stranger = connector.header("x-stranger", "yes");
            let error = within(stranger.connect(site.at("/echo")))
                .await
                .unwrap_err();
            let refusal = error.refusal().unwrap();
            assert_eq!(
                (refusal.status().as_u16(), &refusal.body()[..]),
                (403, &b"no strangers"[..])
            );
            let connector = site.connector();
            let error = within(connector.connect(site.at("/nowhere")))
                .await
                .unwrap_err();
            assert_eq!(error.refusal().unwrap().status(), 404);
            until(|| site.tracker.is_empty()).await;
        }
    }

    #[tokio::test]
    async fn many_sockets_of_ours_share_one_connection_and_end_with_the_server() {
        for is_tls in [false, true] {
            let site = Site::start(is_tls, false).await;
            let connector = site.connector();
            let connection = within(connector.connect_http2(site.at("/echo")))
                .await
                .unwrap();
            let mut sockets = Vec::new();
            for _ in 0..50 {
                sockets.push(within(connection.open("")).await.unwrap().0);
            }
            assert_eq!(site.tracker.len(), 50);
            for (number, socket) in sockets.iter_mut().enumerate() {
                echoes(socket, number.to_string()).await;
                echoes(socket, vec![7; 100_000]).await;
            }
            // All of them at once, each with many in flight.
            let mut tasks = Vec::new();
            for (number, socket) in sockets.into_iter().enumerate() {
                tasks.push(tokio::spawn(async move {
                    let (sender, mut receiver) = socket.split();
                    for count in 0..200 {
                        sender.send(format!("{number} {count}")).await.unwrap();
                    }
                    for count in 0..200 {
                        let message = receiver.recv().await.unwrap().unwrap();
                        assert_eq!(message, Message::text(format!("{number} {count}")));
                    }
                    (sender, receiver)
                }));
            }
            let mut halves = Vec::new();
            for task in tasks {
                halves.push(within(task).await.unwrap());
            }
            site.stop.send(()).unwrap();
            for (_, mut receiver) in halves {
                assert!(within(receiver.recv()).await.is_none());
                let closed = within(receiver.closed()).await;
                let code = closed.received().and_then(ws_core::Close::code);
                assert_eq!(code, Some(CloseCode::GOING_AWAY), "{closed}");
                assert!(closed.is_clean(), "{closed}");
            }
            until(|| !connection.is_open()).await;
        }
    }

    #[tokio::test]
    async fn messages_are_compressed_over_http2() {
        let site = Site::start(false, false).await;
        for takeover in [Takeover::Allowed, Takeover::Forbidden] {
            let deflate = Deflate::new()
                .required()
                .threshold(0)
                .own_takeover(takeover)
                .peer_takeover(takeover);
            let connector = site.connector().config(large().deflate(deflate));
            let (mut socket, response) = within(connector.connect(site.at("/echo"))).await.unwrap();
            assert_eq!(response.version(), http::Version::HTTP_2);
            let answer = response.headers()["sec-websocket-extensions"]
                .to_str()
                .unwrap();
            assert!(answer.starts_with("permessage-deflate"), "{answer}");
            let says_no = answer.contains("server_no_context_takeover");
            assert_eq!(says_no, takeover == Takeover::Forbidden, "{answer}");
            for _ in 0..2 {
                for message in messages() {
                    echoes(&mut socket, message).await;
                }
            }
            assert!(within(socket.close(None)).await.is_clean());
        }
        let plain = site.connector().config(large().deflate(None));
        let (mut socket, response) = within(plain.connect(site.at("/echo"))).await.unwrap();
        assert!(!response.headers().contains_key("sec-websocket-extensions"));
        echoes(&mut socket, "as it is").await;
    }

    #[tokio::test]
    async fn a_server_of_ours_without_http2_is_asked_over_http1() {
        for is_tls in [false, true] {
            let site = Site::start(is_tls, true).await;
            let connector = site.connector();
            let connecting = connector.connect(site.at("/version"));
            let (mut socket, response) = within(connecting).await.unwrap();
            assert_eq!(response.status(), 101);
            hears(&mut socket, "HTTP/1.1").await;
            match within(connector.connect_http2(site.at("/echo")))
                .await
                .unwrap_err()
            {
                ConnectError::Http(error) => assert_eq!(error.kind(), HttpErrorKind::NoHttp2),
                error => panic!("{error:?}"),
            }
        }
    }
}
