//! The client against a server that means harm, or cannot do better.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/transport.rs"]
mod transport;

use std::{error::Error as _, time::Duration};

use self::transport::{in_memory, to_silence};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream},
    net::TcpStream,
    time::{Instant, sleep},
};
use ws_hyper::{
    Connector,
    client::{ConnectError, HttpErrorKind, RedirectErrorKind, Step},
};
use ws_tests::{
    raw::within,
    scripted::{Visit, server},
};
use ws_tower::{
    CloseCode, CloseFrame, Config, Error, WebSocket,
    ws_core::{ConnectionError, ProtocolError, handshake::client::RefusalReason},
};

/// What becomes of a connect to a server in memory, with a deadline.
async fn hasty<F, Fut>(script: F) -> ConnectError
where
    F: Fn(Visit<DuplexStream>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let connector = in_memory(move |io| {
        let script = script.clone();
        async move { script(Visit::of(io).await.unwrap()).await }
    });
    let connector = connector.config(Config::new().handshake_timeout(DEADLINE));
    within(connector.connect("ws://a.example/"))
        .await
        .unwrap_err()
}

const DEADLINE: Duration = Duration::from_millis(300);

async fn attempt(
    connector: &Connector,
    address: std::net::SocketAddr,
) -> Result<WebSocket, ConnectError> {
    let connected = within(connector.connect(format!("ws://{address}/chat"))).await;
    connected.map(|(socket, _)| socket)
}

/// What becomes of a connect that is answered with a response, made from the request.
async fn answered(make: impl Fn(&Visit) -> String + Clone + Send + Sync + 'static) -> ConnectError {
    let address = server(move |mut visit| {
        let answer = make(&visit);
        async move {
            visit.write(answer).await;
            visit.rest().await;
        }
    })
    .await;
    let connector = Connector::new()
        .subprotocol("chat.v2")
        .subprotocol("chat.v1");
    attempt(&connector, address).await.unwrap_err()
}

fn reason(error: &ConnectError) -> RefusalReason {
    error.refusal().expect("a refusal").reason().clone()
}

/// An acceptance with a part of it replaced.
async fn replaced(part: &'static str, by: &'static str) -> RefusalReason {
    let error = answered(move |visit| {
        let acceptance = visit.acceptance("");
        assert!(acceptance.contains(part), "{part}");
        acceptance.replace(part, by)
    })
    .await;
    assert!(error.to_string().starts_with("the server "), "{error}");
    reason(&error)
}

/// An acceptance with more lines.
async fn extended(lines: &'static str) -> RefusalReason {
    let error = answered(move |visit| visit.acceptance(lines)).await;
    assert!(error.to_string().starts_with("the server "), "{error}");
    reason(&error)
}

#[tokio::test]
async fn an_acceptance_that_lacks_something_is_refused() {
    let cases = [
        ("Upgrade: websocket\r\n", "", RefusalReason::Upgrade),
        ("Upgrade: websocket", "Upgrade: h2c", RefusalReason::Upgrade),
        ("Connection: Upgrade\r\n", "", RefusalReason::Connection),
        (
            "Connection: Upgrade",
            "Connection: close",
            RefusalReason::Connection,
        ),
        (
            "Sec-WebSocket-Accept",
            "X-Accept",
            RefusalReason::AcceptMissing,
        ),
        (
            "HTTP/1.1 101",
            "HTTP/1.0 101",
            RefusalReason::HttpVersion(http::Version::HTTP_10),
        ),
        ("101 Switching Protocols", "200 OK", RefusalReason::Status),
    ];
    for (part, by, expected) in cases {
        assert_eq!(replaced(part, by).await, expected, "{part} -> {by}");
    }
    let error = answered(|_| "HTTP/1.1 101 Switching Protocols\r\n\r\n".into()).await;
    assert_eq!(reason(&error), RefusalReason::Upgrade);
}

#[tokio::test]
async fn an_answer_to_another_key_is_refused() {
    let cases: [fn(&str) -> String; 3] = [
        |_| "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".into(),
        str::to_ascii_lowercase,
        |accept| format!("{accept}, {accept}"),
    ];
    for change in cases {
        let error = answered(move |visit| {
            let accept = visit.accept();
            visit.acceptance("").replace(&accept, &change(&accept))
        })
        .await;
        assert_eq!(reason(&error), RefusalReason::AcceptWrong);
    }
    let error = answered(|visit| {
        visit.acceptance(&format!("Sec-WebSocket-Accept: {}\r\n", visit.accept()))
    })
    .await;
    assert_eq!(reason(&error), RefusalReason::AcceptRepeated);
}

#[tokio::test]
async fn an_acceptance_of_what_nobody_asked_for_is_refused() {
    let not_offered = |name: &str| RefusalReason::SubprotocolNotOffered(name.into());
    let twice = "Sec-WebSocket-Protocol: chat.v2\r\nSec-WebSocket-Protocol: chat.v1\r\n";
    let cases = [
        ("Upgrade: h2c\r\n", RefusalReason::Upgrade),
        (
            "Sec-WebSocket-Protocol: chat.v3\r\n",
            not_offered("chat.v3"),
        ),
        (
            "Sec-WebSocket-Protocol: CHAT.V2\r\n",
            not_offered("CHAT.V2"),
        ),
        (twice, RefusalReason::SubprotocolRepeated),
        ("Content-Length: 5\r\n", RefusalReason::BodyAnnounced),
        (
            "Transfer-Encoding: chunked\r\n",
            RefusalReason::BodyAnnounced,
        ),
    ];
    for (lines, expected) in cases {
        assert_eq!(extended(lines).await, expected, "{lines}");
    }
    for lines in [
        "Sec-WebSocket-Extensions: permessage-deflate, permessage-deflate\r\n",
        "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=7\r\n",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
        "Sec-WebSocket-Extensions: permessage-deflate; mux\r\n",
        "Sec-WebSocket-Extensions: x-webkit-deflate-frame\r\n",
        "Sec-WebSocket-Extensions: a; b=\"\r\n",
    ] {
        let reason = extended(lines).await;
        let is_of_extensions = matches!(
            reason,
            RefusalReason::Extensions(_) | RefusalReason::ExtensionsMalformed(_)
        );
        assert!(is_of_extensions, "{lines}: {reason:?}");
    }
}

#[tokio::test]
async fn what_is_no_answer_says_what_it_may_be() {
    let cases: [(&[u8], HttpErrorKind); 7] = [
        (b"", HttpErrorKind::Ended),
        (b"HTTP/1.1 101 Switching Prot", HttpErrorKind::Ended),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n", HttpErrorKind::Ended),
        (b"\x15\x03\x01\x00\x02\x02\x32", HttpErrorKind::NotHttp),
        (b"220 smtp.example ESMTP\r\n", HttpErrorKind::NotHttp),
        (b"HTTP/1.1 banana\r\n\r\n", HttpErrorKind::NotHttp),
        (
            b"HTTP/1.1 101 x\r\nno colon\r\n\r\n",
            HttpErrorKind::NotHttp,
        ),
    ];
    for (answer, expected) in cases {
        let address = server(move |mut visit| async move {
            visit.write(answer).await;
            let _ = visit.io.shutdown().await;
            visit.rest().await;
        })
        .await;
        match attempt(&Connector::new(), address).await.unwrap_err() {
            ConnectError::Http(error) => {
                assert_eq!(
                    error.kind(),
                    expected,
                    "{}: {error:?}",
                    answer.escape_ascii()
                );
            }
            error => panic!("{error:?}"),
        }
    }
}

#[tokio::test]
async fn an_answer_without_end_is_cut_by_its_size() {
    let units = [
        "X-Filler: 0123456789012345678901234567890123456789\r\n",
        "X-Filler-0123456789012345678901234567890123456789",
    ];
    for unit in units {
        let address = server(move |mut visit| async move {
            visit.write("HTTP/1.1 101 Switching Protocols\r\n").await;
            while visit.io.write_all(unit.as_bytes()).await.is_ok() {}
        })
        .await;
        match attempt(&Connector::new(), address).await.unwrap_err() {
            ConnectError::Http(error) => {
                assert_eq!(error.kind(), HttpErrorKind::TooLarge, "{error:?}");
            }
            error => panic!("{error:?}"),
        }
    }
}

#[tokio::test]
async fn a_storm_of_interim_answers_is_cut_by_its_size() {
    let address = server(|mut visit| async move {
        let interim = "HTTP/1.1 102 Processing\r\n\r\n".repeat(100);
        while visit.io.write_all(interim.as_bytes()).await.is_ok() {}
    })
    .await;
    match attempt(&Connector::new(), address).await.unwrap_err() {
        ConnectError::Http(error) => assert_eq!(error.kind(), HttpErrorKind::TooLarge),
        error => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn a_few_interim_answers_are_passed_over() {
    let address = server(|mut visit| async move {
        visit.write("HTTP/1.1 100 Continue\r\n\r\n").await;
        visit
            .write("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
            .await;
        visit.open(b"\x81\x02hi").await;
        visit.rest().await;
    })
    .await;
    let mut socket = attempt(&Connector::new(), address).await.unwrap();
    let message = within(socket.recv()).await.transpose().unwrap();
    assert_eq!(message, Some("hi".into()));
}

#[tokio::test]
async fn bytes_behind_the_acceptance_are_kept_at_any_cut() {
    let frames: &[u8] = b"\x81\x03one\x01\x02tw\x80\x01o\x89\x01p\x82\x01\x03";
    let probe = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                 Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let len = probe.len() + frames.len();
    // Everywhere near the end of the head, and here and there before it.
    let cuts = (1..probe.len() - 6)
        .step_by(17)
        .chain(probe.len() - 6..=len);
    for cut in cuts {
        let address = server(move |mut visit| async move {
            let mut bytes = visit.acceptance("").into_bytes();
            bytes.extend_from_slice(frames);
            let cut = cut.min(bytes.len());
            visit.io.set_nodelay(true).unwrap();
            visit.write(&bytes[..cut]).await;
            sleep(Duration::from_millis(5)).await;
            visit.write(&bytes[cut..]).await;
            visit.rest().await;
        })
        .await;
        let mut socket = attempt(&Connector::new(), address).await.unwrap();
        for expected in ["one", "two"] {
            let message = within(socket.recv()).await.transpose().unwrap();
            assert_eq!(message, Some(expected.into()), "cut at {cut}");
        }
        let message = within(socket.recv()).await.transpose().unwrap();
        assert_eq!(message, Some([3].to_vec().into()), "cut at {cut}");
    }
}

#[tokio::test]
async fn a_refusal_tells_status_headers_and_the_start_of_the_body() {
    let error = answered(|_| {
        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 12\r\n\r\n\
         who are you?more"
            .into()
    })
    .await;
    let refusal = error.refusal().unwrap();
    assert_eq!(refusal.status(), 401);
    assert_eq!(refusal.headers()["www-authenticate"], "Basic");
    assert_eq!(&refusal.body()[..], b"who are you?");
    assert_eq!(
        error.to_string(),
        "the server refused the websocket with 401 Unauthorized: who are you?"
    );
    // Chunked, and until the end of the connection.
    let error = answered(|_| {
        "HTTP/1.1 503 x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nlater\r\n0\r\n\r\n".into()
    })
    .await;
    assert_eq!(&error.refusal().unwrap().body()[..], b"later");
}

#[tokio::test]
async fn the_body_of_a_refusal_is_bounded_in_size_and_time() {
    let error = answered(|_| {
        let body = "x".repeat(1 << 20);
        format!(
            "HTTP/1.1 500 x\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    })
    .await;
    assert_eq!(error.refusal().unwrap().body().len(), 8 << 10);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_whose_body_does_not_end_is_waited_for_no_longer_than_two_seconds() {
    async fn begins<Io: AsyncRead + AsyncWrite + Unpin>(mut visit: Visit<Io>) {
        visit
            .write("HTTP/1.1 403 x\r\nContent-Length: 100\r\n\r\nbegun")
            .await;
        visit.be_silent().await;
    }
    let connector = in_memory(|io| async { begins(Visit::of(io).await.unwrap()).await });
    let start = Instant::now();
    let connecting = within(connector.connect("ws://a.example/")).await;
    let error = connecting.unwrap_err();
    assert_eq!(&error.refusal().unwrap().body()[..], b"begun");
    assert_eq!(start.elapsed().as_secs(), 2);

    // The deadline of the connect does not lose the refusal.
    let error = hasty(begins).await;
    assert_eq!(&error.refusal().unwrap().body()[..], b"begun");
    assert_eq!(start.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn silence_at_any_step_ends_at_the_deadline() {
    let starts: [&str; 5] = [
        "",
        "HTTP/1.1",
        "HTTP/1.1 101 Switching Protocols\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n",
        "HTTP/1.1 102 Processing\r\n\r\n",
    ];
    for start in starts {
        let error = hasty(move |mut visit| async move {
            visit.write(start).await;
            visit.be_silent().await;
        });
        let during = match error.await {
            ConnectError::Timeout { during, after } => {
                assert_eq!(after, DEADLINE);
                during
            }
            error => panic!("{error:?}"),
        };
        assert_eq!(during, Step::Answer, "{start:?}");
    }
    // Nothing is even read.
    let connector = to_silence().config(Config::new().handshake_timeout(DEADLINE));
    let connected = within(connector.connect("ws://a.example/")).await;
    assert_eq!(
        connected.unwrap_err().to_string(),
        "no websocket within 300ms: still waiting for the server's answer to the request"
    );
}

#[tokio::test(start_paused = true)]
async fn one_byte_at_a_time_does_not_move_the_deadline() {
    let start = Instant::now();
    let error = hasty(|mut visit| async move {
        for byte in visit.acceptance("").bytes() {
            visit.write([byte]).await;
            sleep(Duration::from_millis(50)).await;
        }
    });
    assert!(matches!(error.await, ConnectError::Timeout { .. }));
    let in_time = DEADLINE..DEADLINE + Duration::from_millis(50);
    assert!(in_time.contains(&start.elapsed()), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_redirect_loop_ends_and_a_redirect_is_a_refusal_without_leave() {
    let address = server(|mut visit| async move {
        visit
            .write("HTTP/1.1 302 Found\r\nLocation: /chat\r\nContent-Length: 0\r\n\r\n")
            .await;
    })
    .await;
    let error = attempt(&Connector::new(), address).await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused(_)), "{error:?}");
    assert_eq!(error.refusal().unwrap().status(), 302);
    assert!(error.to_string().contains("location `/chat`"), "{error}");

    let connector = Connector::new().max_redirects(5);
    match attempt(&connector, address).await.unwrap_err() {
        ConnectError::Redirect(error) => {
            assert_eq!(*error.kind(), RedirectErrorKind::TooMany(5));
            assert!(error.source().is_some());
        }
        error => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn a_redirect_to_nowhere_says_so() {
    let locations = [
        "",
        "Location: ftp://a.example/\r\n",
        "Location: ws+unix:///run/a.sock\r\n",
        "Location: http://\r\n",
        "Location: /a\r\nLocation: /b\r\n",
        "Location: \u{e9}\r\n",
    ];
    for location in locations {
        let address = server(move |mut visit| async move {
            let head = format!("HTTP/1.1 307 x\r\n{location}Content-Length: 0\r\n\r\n");
            visit.write(head).await;
        })
        .await;
        match attempt(&Connector::new().max_redirects(1), address).await {
            Err(ConnectError::Redirect(error)) => {
                assert_eq!(*error.kind(), RedirectErrorKind::Location, "{location}");
            }
            result => panic!("{location}: {result:?}"),
        }
    }
}

/// Opens a socket to a server that then writes these bytes and does something to the stream.
async fn opened(behind: &'static [u8], end: fn(TcpStream)) -> WebSocket {
    let address = server(move |mut visit| async move {
        visit.open(behind).await;
        sleep(Duration::from_millis(50)).await;
        end(visit.io);
    })
    .await;
    attempt(&Connector::new(), address).await.unwrap()
}

#[tokio::test]
async fn masked_frames_of_a_server_are_an_error_of_the_protocol() {
    let address = server(|mut visit| async move {
        visit.open(b"\x81\x82\x00\x00\x00\x00hi").await;
        let written = visit.rest().await;
        // A masked Close with 1002.
        assert_eq!(written[0], 0x88);
        let key = &written[2..6];
        let code = [written[6] ^ key[0], written[7] ^ key[1]];
        assert_eq!(u16::from_be_bytes(code), 1002);
    })
    .await;
    let mut socket = attempt(&Connector::new(), address).await.unwrap();
    let error = within(socket.recv()).await.unwrap().unwrap_err();
    let expected = ConnectionError::Protocol(ProtocolError::MaskedServerFrame);
    assert!(matches!(error, Error::Connection(error) if error == expected));
    let closed = within(socket.closed()).await;
    assert!(!closed.is_clean());
}

#[tokio::test]
async fn an_unclean_end_a_reset_and_a_normal_close_are_told_apart() {
    let mut socket = opened(b"\x81\x02hi", drop).await;
    assert!(within(socket.recv()).await.unwrap().is_ok());
    let error = within(socket.recv()).await.unwrap().unwrap_err();
    assert!(
        matches!(error, Error::Connection(ConnectionError::UnexpectedEof)),
        "{error:?}"
    );
    let closed = within(socket.closed()).await;
    assert!(!closed.is_clean() && closed.received().is_none());

    let mut socket = opened(b"", |io| {
        let io = io.into_std().unwrap();
        let io = tokio::net::TcpSocket::from_std_stream(io);
        io.set_zero_linger().unwrap();
    })
    .await;
    match within(socket.recv()).await.unwrap().unwrap_err() {
        Error::Io(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        error => panic!("{error:?}"),
    }
    assert!(!within(socket.closed()).await.is_clean());

    let mut socket = opened(b"\x88\x05\x03\xe8bye", drop).await;
    assert!(within(socket.recv()).await.is_none());
    let closed = within(socket.closed()).await;
    assert!(closed.is_clean(), "{closed:?}");
    let received = closed.received().unwrap();
    assert_eq!(received.code(), Some(CloseCode::NORMAL));
    assert_eq!(received.frame().map(CloseFrame::reason), Some("bye"));
}

#[tokio::test]
async fn a_server_that_only_ends_its_own_half_has_ended_uncleanly() {
    let address = server(|mut visit| async move {
        visit.open(b"").await;
        visit.io.shutdown().await.unwrap();
        visit.rest().await;
    })
    .await;
    let mut socket = attempt(&Connector::new(), address).await.unwrap();
    let error = within(socket.recv()).await.unwrap().unwrap_err();
    let is_eof = matches!(error, Error::Connection(ConnectionError::UnexpectedEof));
    assert!(is_eof, "{error:?}");
    assert!(!within(socket.closed()).await.is_clean());
}

#[tokio::test]
async fn a_server_that_never_answers_a_close_is_left() {
    let address = server(|mut visit| async move {
        visit.open(b"").await;
        visit.be_silent().await;
    })
    .await;
    let config = Config::new().close_timeout(Duration::from_millis(100));
    let connector = Connector::new().config(config);
    let socket = attempt(&connector, address).await.unwrap();
    let closed = within(socket.close(None)).await;
    let cause = closed.cause().cloned();
    assert!(
        matches!(
            cause,
            Some(Error::Connection(ConnectionError::CloseTimeout))
        ),
        "{closed:?}"
    );
}
