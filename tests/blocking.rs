//! The blocking client and server of `ws_core::blocking`, against others: tokio-tungstenite,
//! `ws_hyper::serve`, and servers that only know bytes and mean no good.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    error::Error as _,
    future::IntoFuture,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Response, StatusCode, header};
use tokio::runtime::{self, Runtime};
use tokio_tungstenite::tungstenite;
use ws_core::{
    CloseCode, CloseFrame, Config, ConnectionError, Message,
    blocking::{
        AcceptError, ConnectError, Connector, Error, HeadError, Incoming, Stage, WebSocket, connect,
    },
    handshake::{accept_key, client::RefusalReason, server::Rejection},
};
use ws_tests::{raw::PATIENCE, wire::frame};

/// Payloads around every length at which the header changes, and large ones.
const SIZES: [usize; 8] = [0, 1, 125, 126, 65_535, 65_536, 1 << 20, 3 << 20];

/// What each end may say: with and without a reason, from each range.
const CLOSES: [(u16, &str); 5] = [
    (1000, ""),
    (1001, "auf Wiedersehen, κόσμε"),
    (1011, "broken"),
    (3000, ""),
    (4999, "of the application's own"),
];

fn large() -> Config {
    Config::new().max_message_size(16 << 20)
}

fn close_frame((code, reason): (u16, &str)) -> CloseFrame {
    CloseFrame::new(CloseCode::new(code).unwrap(), reason).unwrap()
}

/// A client that takes large messages.
fn open(url: &str) -> WebSocket {
    Connector::new().config(large()).connect(url).unwrap().0
}

/// A runtime whose servers end with it.
fn runtime() -> Runtime {
    runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// An echo by `ws_hyper::serve`, with two subprotocols.
fn our_server(runtime: &Runtime) -> SocketAddr {
    let sockets = ws_tower::WebSocketLayer::new()
        .config(large())
        .subprotocols(["chat.v2", "chat"])
        .route("/echo", async |mut socket: ws_tower::WebSocket| {
            while let Some(message) = socket.recv().await {
                let message = message?;
                match wish(message.as_text()) {
                    Some(close) => drop(socket.close(close_frame(close)).await),
                    None => socket.send(message).await?,
                }
            }
            Ok::<_, ws_tower::Error>(())
        });
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(ws_hyper::serve(listener, sockets.into_service()).into_future());
        address
    })
}

/// An echo by tokio-tungstenite.
fn their_server(runtime: &Runtime) -> SocketAddr {
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(their_echo(stream));
            }
        });
        address
    })
}

async fn their_echo(stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) {
    use tungstenite::protocol::frame::{
        CloseFrame, Frame,
        coding::{Data, OpCode},
    };

    let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        if !message.is_text() && !message.is_binary() {
            continue;
        }
        if let Some((code, reason)) = wish(message.to_text().ok()) {
            let close = CloseFrame {
                code: code.into(),
                reason: reason.into(),
            };
            socket.close(Some(close)).await.unwrap();
        } else if message.is_text() && message.len() >= 2 && message.len() < 1000 {
            // Back in three pieces, the last one empty, with a ping between.
            let text = message.into_text().unwrap();
            let (start, rest) = text.as_bytes().split_at(1);
            let piece = |data: &[u8], kind, last| {
                tungstenite::Message::Frame(Frame::message(data.to_vec(), OpCode::Data(kind), last))
            };
            socket.send(piece(start, Data::Text, false)).await.unwrap();
            let ping = tungstenite::Message::Ping("?".into());
            socket.send(ping).await.unwrap();
            socket
                .send(piece(rest, Data::Continue, false))
                .await
                .unwrap();
            socket.send(piece(b"", Data::Continue, true)).await.unwrap();
        } else {
            socket.send(message).await.unwrap();
        }
    }
}

/// What `close CODE REASON` asks a server to say.
fn wish(text: Option<&str>) -> Option<(u16, &str)> {
    let (code, reason) = text?.strip_prefix("close ")?.split_once(' ')?;
    Some((code.parse().ok()?, reason))
}

/// A server of one connection that reads the request and then does as it likes. What it is given is
/// the stream, and the head of an acceptance.
fn evil<T: Send + 'static>(
    act: impl FnOnce(TcpStream, Vec<u8>, String) -> T + Send + 'static,
) -> (String, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/path", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        let request = head(&mut stream);
        let key = request
            .lines()
            .find_map(|line| line.strip_prefix("sec-websocket-key: "))
            .unwrap();
        let accept = String::from_utf8(accept_key(key.as_bytes()).to_vec()).unwrap();
        let acceptance = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        act(stream, acceptance.into_bytes(), request)
    });
    (url, server)
}

/// The head of a request, with its last empty line.
fn head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// What a client says until it ends the stream.
fn rest(mut stream: impl Read) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    rest
}

fn refused_by(act: impl FnOnce(TcpStream, Vec<u8>, String) + Send + 'static) -> ConnectError {
    refused_within(PATIENCE, act)
}

fn refused_within(
    timeout: Duration,
    act: impl FnOnce(TcpStream, Vec<u8>, String) + Send + 'static,
) -> ConnectError {
    let (url, server) = evil(act);
    let config = Config::new().handshake_timeout(timeout);
    let start = Instant::now();
    let error = Connector::new().config(config).connect(&*url).unwrap_err();
    assert!(start.elapsed() < timeout + PATIENCE);
    server.join().unwrap();
    error
}

fn echo(mut socket: WebSocket) {
    for size in SIZES {
        for message in [
            Message::text("x".repeat(size)),
            Message::binary(vec![7; size]),
        ] {
            socket.send(message.clone()).unwrap();
            assert_eq!(socket.recv().unwrap().unwrap(), message, "{size}");
        }
    }
    assert!(socket.ping().unwrap() < PATIENCE);
    // Many at once.
    for number in 0..1000 {
        socket.send(number.to_string()).unwrap();
    }
    for (number, message) in (0..1000).zip(socket.messages()) {
        assert_eq!(message.unwrap(), Message::text(number.to_string()));
    }
    let closed = socket.close(CloseCode::NORMAL);
    assert_eq!(closed.to_string(), "closed 1000 (clean)");
}

#[test]
fn messages_of_all_sizes_come_back_from_our_server_and_theirs() {
    let runtime = runtime();
    for address in [our_server(&runtime), their_server(&runtime)] {
        echo(open(&format!("ws://{address}/echo")));
    }
}

#[test]
fn either_end_closes_with_any_code() {
    let runtime = runtime();
    for address in [our_server(&runtime), their_server(&runtime)] {
        let url = format!("ws://{address}/echo");
        for close in CLOSES {
            let closed = open(&url).close(close_frame(close));
            assert!(closed.is_clean(), "{closed}");
            assert_eq!(closed.sent().unwrap().code().unwrap().as_u16(), close.0);

            let mut socket = open(&url);
            socket
                .send(format!("close {} {}", close.0, close.1))
                .unwrap();
            assert!(socket.recv().is_none());
            let closed = socket.closed().unwrap();
            assert!(closed.is_clean(), "{closed}");
            assert_eq!(
                closed.received().unwrap().frame(),
                Some(&close_frame(close))
            );
        }
        assert!(open(&url).close(None).is_clean());
    }
}

#[test]
fn a_subprotocol_and_headers_are_asked_for_and_nothing_else() {
    let runtime = runtime();
    let url = format!("ws://{}/echo", our_server(&runtime));
    let connector = Connector::new().subprotocol("other").subprotocol("chat");
    let (socket, response) = connector.connect(&*url).unwrap();
    assert_eq!(socket.subprotocol(), Some("chat"));
    assert_eq!(response.headers()[header::SEC_WEBSOCKET_PROTOCOL], "chat");
    assert_eq!(connect(&*url).unwrap().subprotocol(), None);

    let (url, server) = evil(|_, _, request| request);
    let value = HeaderValue::from_static("Bearer 3vJx");
    let connector = Connector::new().header(header::AUTHORIZATION, value);
    assert!(connector.connect(&*url).is_err());
    let request = server.join().unwrap().to_ascii_lowercase();
    assert!(request.starts_with("get /path http/1.1\r\n"), "{request}");
    assert!(
        request.contains("\r\nauthorization: bearer 3vjx\r\n"),
        "{request}"
    );
    assert!(!request.contains("origin"), "{request}");
    assert!(
        request.contains("\r\nsec-websocket-extensions: permessage-deflate;"),
        "{request}"
    );
    assert_eq!(request.lines().count(), 9, "{request}");
}

#[test]
fn compression_is_agreed_on_and_used_unless_it_is_off() {
    let runtime = runtime();
    let url = format!("ws://{}/echo", our_server(&runtime));
    for (config, negotiated) in [(Config::new(), true), (Config::new().deflate(None), false)] {
        let connector = Connector::new().config(config);
        let (mut socket, response) = connector.connect(&*url).unwrap();
        let headers = response.headers();
        assert_eq!(
            headers.contains_key(header::SEC_WEBSOCKET_EXTENSIONS),
            negotiated
        );
        assert_eq!(socket.connection().deflate().is_some(), negotiated);
        for len in [0, 300, 5000, 300_000] {
            let message = Message::text("abcdefgh".repeat(len / 8));
            socket.send(message.clone()).unwrap();
            assert_eq!(socket.recv().unwrap().unwrap(), message);
        }
    }
}

#[test]
fn all_addresses_of_a_host_are_tried() {
    // `localhost` is ::1 as well on most machines, and nobody listens there.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        Incoming::read(stream, Config::new())
            .unwrap()
            .accept()
            .unwrap()
            .recv()
    });
    let mut socket = connect(format!("ws://localhost:{port}")).unwrap();
    assert!(socket.stream().tcp().nodelay().unwrap());
    socket.send("Hello").unwrap();
    assert_eq!(
        server.join().unwrap().unwrap().unwrap(),
        Message::text("Hello")
    );
}

#[test]
fn an_error_says_what_was_wrong_with_the_address() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let error = connect(format!("ws://{free}/")).unwrap_err();
    assert!(matches!(&error, ConnectError::Connect { failures, .. } if failures.len() == 1));
    assert!(
        error.to_string().contains(&format!(": {free}: ")),
        "{error}"
    );

    assert!(matches!(connect("ws://[/"), Err(ConnectError::Uri(_))));
    for url in ["ftp://127.0.0.1/", "/path"] {
        assert!(
            matches!(connect(url), Err(ConnectError::Request(_))),
            "{url}"
        );
    }
    let error = connect("ws://us%3Aer:secret@127.0.0.1/").unwrap_err();
    assert!(matches!(&error, ConnectError::Setting(_)), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("secret"));
    let connector = Connector::new().header(header::HOST, HeaderValue::from_static("x"));
    let error = connector.connect("ws://127.0.0.1/").unwrap_err();
    assert!(matches!(error, ConnectError::Request(_)));
    let error = connect("ws://no-such-host.invalid/").unwrap_err();
    assert!(matches!(error, ConnectError::Resolve { .. }), "{error}");
}

#[test]
fn a_refusal_has_status_headers_and_the_start_of_its_body() {
    let body = |length: &'static str, body: &'static str| {
        let error = refused_by(move |mut stream, _, _| {
            let head = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 Forbidden\r\nX-Why: rules\r\n";
            write!(stream, "{head}{length}\r\n\r\n{body}").unwrap();
            // It stays, as servers do.
            rest(stream);
        });
        let text = error.to_string();
        let ConnectError::Refused(refusal) = error else {
            panic!("{error:?}");
        };
        assert_eq!(refusal.status(), StatusCode::FORBIDDEN);
        assert_eq!(refusal.headers()["x-why"], "rules");
        let expected = "the server refused the websocket with 403 Forbidden";
        assert!(text.starts_with(expected), "{text}");
        String::from_utf8(refusal.body().to_vec()).unwrap()
    };
    assert_eq!(body("Content-Length: 6", "no way, not seen"), "no way");
    assert_eq!(body("Content-Length: 60", "no way"), "no way");
    let chunks = "3\r\nno \r\n3\r\nway\r\n0\r\n\r\n";
    assert_eq!(body("Transfer-Encoding: chunked", chunks), "no way");
    assert_eq!(body("Connection: close", "no way"), "no way");
}

#[test]
fn what_is_no_acceptance_is_refused() {
    type Expected = fn(&ConnectError) -> bool;
    let cases: &[(&[u8], Expected)] = &[
        (b"", |error| {
            matches!(error, ConnectError::Response(HeadError::Ended))
        }),
        (b"HTTP/1.1 101 Swi", |error| {
            matches!(error, ConnectError::Response(HeadError::Ended))
        }),
        (b"SSH-2.0-OpenSSH_9\r\n", |error| {
            matches!(error, ConnectError::Response(HeadError::Malformed(_)))
        }),
        (
            b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            |error| {
                matches!(error, ConnectError::Refused(refusal)
                    if *refusal.reason() == RefusalReason::AcceptWrong)
            },
        ),
    ];
    for (response, expected) in cases {
        let response = response.to_vec();
        let error = refused_by(move |mut stream, _, _| stream.write_all(&response).unwrap());
        assert!(expected(&error), "{error:?}");
    }
}

#[test]
fn endless_heads_are_cut_off() {
    for piece in ["X-More: yes\r\n", "x", "HTTP/1.1 102 Processing\r\n\r\n"] {
        let error = refused_by(move |mut stream, _, _| {
            if !piece.starts_with("HTTP") {
                let start = stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nX-Long: ");
                start.unwrap();
            }
            while stream.write_all(piece.repeat(100).as_bytes()).is_ok() {}
        });
        assert!(
            matches!(error, ConnectError::Response(HeadError::TooLarge)),
            "{error:?}"
        );
    }
}

#[test]
fn a_silent_or_dripping_server_is_given_up_in_time() {
    const QUICK: Duration = Duration::from_secs(3);
    let error = refused_within(QUICK, |stream, _, _| drop(rest(stream)));
    assert!(
        matches!(error, ConnectError::TimedOut(Stage::Response)),
        "{error:?}"
    );
    assert!(error.to_string().contains("handshake_timeout"), "{error}");
    // One byte at a time would keep a mere read timeout alive for ever.
    let error = refused_within(QUICK, |mut stream, acceptance, _| {
        for byte in acceptance {
            if stream.write_all(&[byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(40));
        }
    });
    assert!(
        matches!(error, ConnectError::TimedOut(Stage::Response)),
        "{error:?}"
    );
}

#[test]
fn bytes_right_behind_the_acceptance_are_kept_at_any_cut() {
    for cut in [0, 1, 2, 3, 5] {
        let (url, server) = evil(move |mut stream, mut acceptance, _| {
            let frame = frame(0x81, None, b"Hello");
            acceptance.extend_from_slice(&frame[..cut]);
            stream.write_all(&acceptance).unwrap();
            thread::sleep(Duration::from_millis(20));
            stream.write_all(&frame[cut..]).unwrap();
            rest(stream)
        });
        let mut socket = connect(&*url).unwrap();
        assert_eq!(socket.recv().unwrap().unwrap(), Message::text("Hello"));
        drop(socket);
        server.join().unwrap();
    }
}

#[test]
fn a_timeout_in_mid_message_loses_nothing() {
    let (tell, told) = mpsc::channel();
    let (url, server) = evil(move |mut stream, acceptance, _| {
        stream.write_all(&acceptance).unwrap();
        let frame = frame(0x82, None, &vec![7; 300_000]);
        let (begun, rest_of_it) = frame.split_at(200_000);
        for piece in begun.chunks(100_000) {
            stream.write_all(piece).unwrap();
            // Two timeouts from now on: the second began behind this piece.
            while told.try_recv().is_ok() {}
            for _ in 0..2 {
                told.recv_timeout(PATIENCE).unwrap();
            }
        }
        stream.write_all(rest_of_it).unwrap();
        rest(stream)
    });
    let mut socket = connect(&*url).unwrap();
    let mut late = 0;
    let message = loop {
        let start = Instant::now();
        match socket.recv_timeout(Duration::from_millis(20)).unwrap() {
            Ok(message) => break message,
            Err(error) => assert!(error.is_timeout(), "{error:?}"),
        }
        let waited = start.elapsed();
        assert!(waited >= Duration::from_millis(15), "{waited:?}");
        late += 1;
        // The last piece may be on its way by now.
        let _ = tell.send(());
    };
    assert_eq!(message, Message::binary(vec![7; 300_000]));
    assert!(late >= 4, "{late}");
    drop(socket);
    server.join().unwrap();
}

#[test]
fn a_server_that_cuts_in_mid_message_is_told_from_one_that_closes() {
    let (url, server) = evil(|mut stream, acceptance, _| {
        stream.write_all(&acceptance).unwrap();
        stream.write_all(&frame(0x81, None, b"whole")).unwrap();
        stream.write_all(&frame(0x81, None, b"half")[..4]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        rest(stream)
    });
    let mut socket = connect(&*url).unwrap();
    assert_eq!(socket.recv().unwrap().unwrap(), Message::text("whole"));
    let error = socket.recv().unwrap().unwrap_err();
    assert!(matches!(
        error,
        Error::Connection(ConnectionError::UnexpectedEof)
    ));
    assert!(socket.recv().is_none());
    let expected = "closed without a close frame (unclean): the websocket ended without a closing \
                    handshake: the stream ended without a close frame";
    assert_eq!(socket.closed().unwrap().to_string(), expected);
    drop(socket);
    server.join().unwrap();
}

#[test]
fn a_masked_frame_of_a_server_is_answered_with_1002() {
    let (url, server) = evil(|mut stream, acceptance, _| {
        stream.write_all(&acceptance).unwrap();
        stream
            .write_all(&frame(0x81, Some([1; 4]), b"masked"))
            .unwrap();
        rest(stream)
    });
    let mut socket = connect(&*url).unwrap();
    assert!(matches!(
        socket.recv(),
        Some(Err(Error::Connection(ConnectionError::Protocol(_))))
    ));
    let (_, close) = ws_tests::wire::frames(&server.join().unwrap()).remove(0);
    assert_eq!(close[..2], 1002_u16.to_be_bytes());
}

#[test]
fn keepalive_ends_a_dead_peer_and_spares_a_living_one() {
    const TIMEOUT: Duration = Duration::from_secs(5);
    let config = Config::new()
        .keepalive_interval(Duration::from_millis(200))
        .keepalive_timeout(TIMEOUT);
    let runtime = runtime();
    let url = format!("ws://{}/echo", our_server(&runtime));
    let (mut socket, _) = Connector::new()
        .config(config.clone())
        .connect(url)
        .unwrap();
    let received = socket.recv_timeout(TIMEOUT + Duration::from_secs(1));
    let received = received.unwrap();
    assert!(received.is_err_and(|error| error.is_timeout()));
    assert!(socket.close(None).is_clean());

    let (url, server) = evil(|mut stream, acceptance, _| {
        stream.write_all(&acceptance).unwrap();
        rest(stream)
    });
    let (mut socket, _) = Connector::new().config(config).connect(url).unwrap();
    let start = Instant::now();
    let error = socket.recv().unwrap().unwrap_err();
    assert!(matches!(
        error,
        Error::Connection(ConnectionError::KeepaliveTimeout)
    ));
    assert!(start.elapsed() >= TIMEOUT);
    drop(socket);
    assert_eq!(server.join().unwrap()[..2], *b"\x89\x84");
}

#[test]
fn two_ends_that_both_write_first_do_not_wait_for_each_other() {
    const SIZE: usize = 8 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut socket = Incoming::read(stream, large()).unwrap().accept().unwrap();
        socket.send(vec![1; SIZE]).unwrap();
        let len = socket.recv().unwrap().unwrap().len();
        assert!(socket.recv().is_none());
        len
    });
    let mut socket = open(&format!("ws://{address}"));
    socket.send(vec![2; SIZE]).unwrap();
    assert_eq!(socket.recv().unwrap().unwrap().len(), SIZE);
    assert!(socket.close(None).is_clean());
    assert_eq!(server.join().unwrap(), SIZE);
}

#[test]
fn a_server_reads_requests_and_answers_as_it_likes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let read = || Incoming::read(listener.accept().unwrap().0, Config::new());

        let incoming = read().unwrap();
        assert_eq!(incoming.request().uri(), "/rooms?id=7");
        let mut headers = http::HeaderMap::new();
        headers.append(header::SET_COOKIE, HeaderValue::from_static("a=1"));
        headers.append(header::SET_COOKIE, HeaderValue::from_static("b=2"));
        headers.append(header::UPGRADE, HeaderValue::from_static("h2c"));
        let incoming = incoming.subprotocols(&["x", "chat"]).headers(headers);
        let mut socket = incoming.accept().unwrap();
        assert_eq!(socket.subprotocol(), Some("chat"));
        socket.send("welcome").unwrap();
        assert!(socket.recv().is_none());

        let response = Response::builder().status(403).header("x-why", "rules");
        read()
            .unwrap()
            .refuse(&response.body("no way").unwrap())
            .unwrap();

        let error = read().unwrap_err();
        assert!(matches!(
            error,
            AcceptError::Rejected(Rejection::UpgradeMissing)
        ));
        let error = read().unwrap_err();
        assert!(
            matches!(error, AcceptError::Request(HeadError::Malformed(_))),
            "{error:?}"
        );
    });

    let connector = Connector::new().subprotocol("chat");
    let (mut socket, response) = connector
        .connect(format!("ws://{address}/rooms?id=7"))
        .unwrap();
    let cookies = response.headers().get_all(header::SET_COOKIE);
    assert_eq!(cookies.iter().collect::<Vec<_>>(), ["a=1", "b=2"]);
    assert_eq!(socket.recv().unwrap().unwrap(), Message::text("welcome"));
    assert!(socket.close(CloseCode::NORMAL).is_clean());

    let error = connect(format!("ws://{address}/")).unwrap_err();
    let expected = "the server refused the websocket with 403 Forbidden: no way";
    assert_eq!(error.to_string(), expected);

    let ask = |request: &[u8]| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request).unwrap();
        String::from_utf8(rest(stream)).unwrap()
    };
    let answer = ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(
        answer.starts_with("HTTP/1.1 426 Upgrade Required\r\n"),
        "{answer}"
    );
    assert_eq!(ask(b"\x16\x03\x01\x02\0"), "");
    server.join().unwrap();
}

#[test]
fn a_client_of_other_hands_talks_to_our_server() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut socket = Incoming::read(stream, large()).unwrap().accept().unwrap();
        while let Some(message) = socket.recv() {
            socket.send(message.unwrap()).unwrap();
        }
        socket.closed().unwrap()
    });
    runtime().block_on(async {
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        for size in SIZES {
            let message = tungstenite::Message::binary(vec![7; size]);
            socket.send(message.clone()).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), message);
        }
        socket.close(None).await.unwrap();
        while let Some(Ok(_)) = socket.next().await {}
    });
    assert!(server.join().unwrap().is_clean());
}

mod tls {
    use std::sync::Arc;

    use rustls::{
        ClientConfig, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
        crypto::ring::default_provider,
        pki_types::{CertificateDer, PrivateKeyDer},
    };
    use ws_core::blocking::TlsStream;

    use super::*;

    /// A certificate for `localhost`, and clients that trust it.
    fn settings() -> (Arc<ServerConfig>, Connector) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate: CertificateDer<'static> = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let server = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        (
            Arc::new(server),
            Connector::new().config(large()).tls(client),
        )
    }

    type Tls = StreamOwned<ServerConnection, TcpStream>;

    /// A server of one connection that does as it likes, by rustls's own stream.
    fn serve<T: Send + 'static>(
        config: Arc<ServerConfig>,
        act: impl FnOnce(Tls) -> T + Send + 'static,
    ) -> (String, JoinHandle<T>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("wss://localhost:{}/", listener.local_addr().unwrap().port());
        let server = thread::spawn(move || {
            let (tcp, _) = listener.accept().unwrap();
            tcp.set_nodelay(true).unwrap();
            act(StreamOwned::new(
                ServerConnection::new(config).unwrap(),
                tcp,
            ))
        });
        (url, server)
    }

    #[test]
    fn a_client_that_drips_its_hello_gets_one_deadline_for_all_of_it() {
        let (config, _) = settings();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (tcp, _) = listener.accept().unwrap();
            let stream = TlsStream::new(ServerConnection::new(config).unwrap(), tcp);
            let config = Config::new().handshake_timeout(Duration::from_millis(500));
            let start = Instant::now();
            (Incoming::read(stream, config).is_err(), start.elapsed())
        });
        // The beginning of a record, and no end to it.
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00]).unwrap();
        while !server.is_finished() && client.write_all(&[0x01]).is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
        let (failed, took) = server.join().unwrap();
        assert!(failed);
        // It would have dripped for ever.
        assert!(took >= Duration::from_millis(450), "{took:?}");
    }

    /// Reads a request, and accepts.
    fn accept(stream: &mut Tls) {
        let request = head(stream);
        let mut lines = request.lines();
        let key = lines.find_map(|line| line.strip_prefix("sec-websocket-key: "));
        let accept = accept_key(key.unwrap().as_bytes());
        write!(
            stream,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            str::from_utf8(&accept).unwrap()
        )
        .unwrap();
        stream.flush().unwrap();
    }

    #[test]
    fn messages_of_all_sizes_come_back_from_their_server() {
        let (config, connector) = settings();
        let runtime = runtime();
        let port = runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let acceptor = tokio_rustls::TlsAcceptor::from(config);
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let stream = acceptor.accept(stream).await.unwrap();
                    tokio::spawn(their_echo(stream));
                }
            });
            port
        });
        for url in [
            format!("wss://localhost:{port}"),
            format!("https://localhost:{port}/x"),
        ] {
            let (socket, _) = connector.connect(url).unwrap();
            assert!(socket.stream().tls().is_some());
            echo(socket);
        }
    }

    #[test]
    fn a_certificate_that_is_not_trusted_or_for_another_name_is_refused() {
        let (config, connector) = settings();
        let fails = |connector: &Connector, host: &str| {
            let (url, server) = serve(Arc::clone(&config), |mut stream| {
                stream.read(&mut [0]).unwrap_err()
            });
            let error = connector
                .connect(url.replace("localhost", host))
                .unwrap_err();
            assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
            // The server is told by an alert.
            assert!(
                server
                    .join()
                    .unwrap()
                    .to_string()
                    .contains("received fatal alert")
            );
            error.source().unwrap().to_string()
        };
        let text = fails(&Connector::new(), "localhost");
        assert!(text.contains("UnknownIssuer"), "{text}");
        let text = fails(&connector, "127.0.0.1");
        assert!(text.contains("not valid for name"), "{text}");
    }

    #[test]
    fn a_server_that_is_silent_or_speaks_no_tls_is_given_up() {
        let (config, connector) = settings();
        let config_of_client = Config::new().handshake_timeout(Duration::from_secs(1));
        let connector = connector.config(config_of_client);
        let (url, server) = serve(Arc::clone(&config), |stream| drop(rest(stream.sock)));
        let error = connector.connect(url).unwrap_err();
        assert!(
            matches!(error, ConnectError::TimedOut(Stage::Tls)),
            "{error:?}"
        );
        server.join().unwrap();

        let (url, server) = serve(Arc::clone(&config), |mut stream| {
            stream
                .sock
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .unwrap();
            rest(stream.sock)
        });
        let error = connector.connect(url).unwrap_err();
        assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
        server.join().unwrap();

        let (url, server) = serve(config, drop);
        let error = connector.connect(url).unwrap_err();
        assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
        server.join().unwrap();
    }

    #[test]
    fn an_end_without_close_notify_is_told_from_one_with_it() {
        let cut = |with_notify: bool, with_close: bool| {
            let (config, connector) = settings();
            let (url, server) = serve(config, move |mut stream| {
                accept(&mut stream);
                stream.write_all(&frame(0x81, None, b"whole")).unwrap();
                if with_close {
                    stream.write_all(b"\x88\x02\x03\xe8").unwrap();
                    let mut answer = [0; 8];
                    stream.read_exact(&mut answer).unwrap();
                }
                if with_notify {
                    stream.conn.send_close_notify();
                }
                stream.flush().unwrap();
                stream.sock.shutdown(Shutdown::Write).unwrap();
                rest(stream.sock)
            });
            let (mut socket, _) = connector.connect(url).unwrap();
            assert_eq!(socket.recv().unwrap().unwrap(), Message::text("whole"));
            let end = socket.recv();
            let is_clean = socket.closed().unwrap().is_clean();
            drop(socket);
            server.join().unwrap();
            (end, is_clean)
        };
        let (end, is_clean) = cut(false, false);
        let Some(Err(Error::Io(error))) = end else {
            panic!("{end:?}");
        };
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(!is_clean);
        let (end, is_clean) = cut(true, false);
        let expected = Error::Connection(ConnectionError::UnexpectedEof).to_string();
        assert_eq!(end.unwrap().unwrap_err().to_string(), expected);
        assert!(!is_clean);
        // After both Closes nobody needs TLS's goodbye.
        for with_notify in [false, true] {
            let (end, is_clean) = cut(with_notify, true);
            assert!(end.is_none() && is_clean, "{end:?}");
        }
    }

    /// Carries bytes in small pieces, slowly: records arrive in many reads.
    fn drip(mut from: TcpStream, mut to: TcpStream, size: usize, pause: Duration) {
        let mut buffer = vec![0; size];
        while let Ok(count) = from.read(&mut buffer)
            && count > 0
            && to.write_all(&buffer[..count]).is_ok()
        {
            thread::sleep(pause);
        }
        let _ = to.shutdown(Shutdown::Write);
    }

    #[test]
    fn a_timeout_in_mid_record_loses_nothing_and_is_kept() {
        const SIZE: usize = 20_000;
        let (config, connector) = settings();
        let (url, server) = serve(config, |mut stream| {
            accept(&mut stream);
            for number in 0..3 {
                stream
                    .write_all(&frame(0x82, None, &vec![number; SIZE]))
                    .unwrap();
            }
            stream.flush().unwrap();
            rest(stream)
        });
        let target = url
            .trim_start_matches("wss://")
            .trim_end_matches('/')
            .to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = format!("wss://localhost:{}/", listener.local_addr().unwrap().port());
        let carrier = thread::spawn(move || {
            let (near, _) = listener.accept().unwrap();
            let far = TcpStream::connect(target).unwrap();
            for stream in [&near, &far] {
                stream.set_nodelay(true).unwrap();
            }
            let (from, to) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            let back = thread::spawn(move || drip(from, to, 4096, Duration::ZERO));
            drip(far, near, 100, Duration::from_millis(1));
            back.join().unwrap();
        });
        let (mut socket, _) = connector.connect(proxy).unwrap();
        let (mut late, mut messages) = (0, Vec::new());
        while messages.len() < 3 {
            match socket.recv_timeout(Duration::from_millis(5)).unwrap() {
                Ok(message) => messages.push(message),
                Err(error) => {
                    assert!(error.is_timeout(), "{error:?}");
                    late += 1;
                }
            }
        }
        let expected = [0, 1, 2].map(|number| Message::binary(vec![number; SIZE]));
        assert_eq!(messages, expected);
        // A record takes some 200 ms to arrive: a wait for each piece would be as long.
        assert!(late >= 8, "{late}");
        drop(socket);
        server.join().unwrap();
        carrier.join().unwrap();
    }

    #[test]
    fn two_ends_that_both_write_first_do_not_wait_for_each_other() {
        const SIZE: usize = 8 << 20;
        let (config, connector) = settings();
        let (url, server) = serve(config, |stream| {
            let (session, tcp) = stream.into_parts();
            let stream = TlsStream::new(session, tcp);
            let mut socket = Incoming::read(stream, large()).unwrap().accept().unwrap();
            socket.send(vec![1; SIZE]).unwrap();
            let message = socket.recv().unwrap().unwrap();
            assert!(socket.recv().is_none());
            (message.len(), socket.closed().unwrap().is_clean())
        });
        let (mut socket, _) = connector.connect(url).unwrap();
        socket.send(vec![2; SIZE]).unwrap();
        let message = socket.recv().unwrap().unwrap();
        assert!(message == Message::binary(vec![1; SIZE]));
        assert!(socket.close(None).is_clean());
        assert_eq!(server.join().unwrap(), (SIZE, true));
    }

    #[test]
    fn a_write_that_waits_does_not_lose_bytes_of_a_record() {
        const SIZE: usize = 6 << 20;
        let (config, connector) = settings();
        // A reader that begins late, and pauses: writes wait in the middle of records.
        let (url, server) = serve(config, |mut stream| {
            accept(&mut stream);
            let mut buffer = vec![0; 256 << 10];
            let mut seen = Vec::new();
            while seen.len() < SIZE + 14 {
                thread::sleep(Duration::from_millis(4));
                let count = stream.read(&mut buffer).unwrap();
                seen.extend_from_slice(&buffer[..count]);
            }
            seen
        });
        let (mut socket, _) = connector.connect(url).unwrap();
        let payload: Vec<u8> = (0..=250).cycle().take(SIZE).collect();
        socket.send(payload.clone()).unwrap();
        let (_, received) = ws_tests::wire::frames(&server.join().unwrap()).remove(0);
        assert!(received == payload);
    }
}
