//! The asynchronous client over HTTP/2 (RFC 8441), against Node's own `http2`: another codec than
//! the one that is ours and hyper's.

use std::io;

use ws_hyper::{
    Connector,
    client::{Backoff, ConnectError, Http2Connection, HttpErrorKind, Reconnecting, Step},
};
use ws_tests::raw::within;
use ws_tower::{
    Error, WebSocket,
    ws_core::{ConnectionError, handshake::client::RefusalReason},
};

use super::*;

async fn http2(connector: &Connector, server: &Foreign) -> Http2Connection {
    let connecting = connector.connect_http2(&server.address);
    within(connecting).await.unwrap()
}

async fn open(connection: &Http2Connection, path: &str) -> WebSocket {
    within(connection.open(path)).await.unwrap().0
}

async fn refused(connection: &Http2Connection, path: &str) -> ConnectError {
    within(connection.open(path)).await.unwrap_err()
}

/// With prior knowledge, and over TLS.
fn servers() -> [(Foreign, Connector); 2] {
    let connector = Connector::new().config(large());
    let (server, tls) = tls_server([]);
    [
        (Foreign::http2(NONE), connector.clone()),
        (server, connector.tls(tls)),
    ]
}

/// Over TLS, with these arguments besides, and who trusts it.
fn tls_server<const COUNT: usize>(arguments: [&str; COUNT]) -> (Foreign, Tls) {
    let identity = Identity::new();
    let [certificate, key] = identity.paths();
    let files = [Path::new("--cert"), certificate, Path::new("--key"), key];
    let server = Foreign::http2(files.into_iter().chain(arguments.map(Path::new)));
    (server, identity.tls())
}

const NONE: [&str; 0] = [];

#[tokio::test]
#[ignore = "needs servers of other hands"]
async fn many_sockets_share_a_connection_and_their_messages_come_back() {
    for (server, connector) in servers() {
        let connection = http2(&connector, &server).await;
        let mut sockets = Vec::new();
        for _ in 0..20 {
            let mut socket = open(&connection, "/connection").await;
            assert_eq!(text(&mut socket).await, "1");
            sockets.push(socket);
        }
        let first = &mut sockets[0];
        for message in messages() {
            echoes(first, message).await;
        }
        for (number, socket) in sockets.iter_mut().enumerate() {
            echoes(socket, Message::text(number.to_string())).await;
        }
        for socket in sockets {
            closes(socket).await;
        }
        let mut socket = open(&connection, "/push/10000").await;
        for number in 0..10_000 {
            assert_eq!(text(&mut socket).await, number.to_string());
        }
        assert!(within(socket.recv()).await.is_none());
        assert!(within(socket.closed()).await.is_clean());
    }
}

#[tokio::test]
#[ignore = "needs servers of other hands"]
async fn http2_is_preferred_and_agreed_on() {
    for (server, connector) in servers() {
        let connector = connector.prefer_http2().subprotocol("chat");
        let address = format!("{}/subprotocol", server.address);
        let (mut socket, response) = within(connector.connect(&address)).await.unwrap();
        assert_eq!(response.version(), http::Version::HTTP_2);
        assert_eq!(socket.subprotocol(), Some("chat"));
        assert_eq!(text(&mut socket).await, "chat");
        echoes(&mut socket, Message::text("Hello")).await;
        assert!(within(socket.ping()).await.is_ok());
        closes(socket).await;
    }
}

#[tokio::test]
#[ignore = "needs servers of other hands"]
async fn headers_cookies_and_credentials_arrive_over_http2() {
    for (server, connector) in servers() {
        let connector = connector
            .header("x-room", "7")
            .cookie("a", "1")
            .bearer_auth("3vJx");
        let connection = http2(&connector, &server).await;
        let mut socket = open(&connection, "/request?x=y").await;
        let request = text(&mut socket).await;
        for (name, value) in [
            (":path", "/request?x=y"),
            (":protocol", "websocket"),
            ("x-room", "7"),
            ("cookie", "a=1"),
            ("authorization", "Bearer 3vJx"),
            ("sec-websocket-version", "13"),
        ] {
            assert!(has_line(&request, name, value), "{name} {request}");
        }
        for absent in ["sec-websocket-key", "upgrade", "connection", "host"] {
            assert!(!has_name(&request, absent), "{request}");
        }
        closes(socket).await;
    }
}

#[tokio::test]
#[ignore = "needs servers of other hands"]
async fn closes_arrive_over_http2_with_code_and_reason() {
    let (server, connector) = servers().into_iter().next().unwrap();
    let connection = http2(&connector, &server).await;
    for (code, reason) in CLOSES {
        let path = format!("/close/{code}?reason={}", quoted(reason));
        let mut socket = open(&connection, &path).await;
        assert!(within(socket.recv()).await.is_none());
        let closed = within(socket.closed()).await;
        assert!(closed.is_clean(), "{closed}");
        let frame = closed.received().unwrap().frame().unwrap().clone();
        assert_eq!((frame.code().into(), frame.reason()), (code, reason));
    }
}

#[tokio::test]
#[ignore = "needs servers of other hands"]
async fn refusals_over_http2_have_status_headers_and_body() {
    for (server, connector) in servers() {
        let connection = http2(&connector, &server).await;
        let mut neighbour = open(&connection, "/echo").await;
        for status in [400, 401, 403, 404, 503] {
            let error = refused(&connection, &format!("/refuse/{status}")).await;
            check_refusal(
                error.refusal().unwrap(),
                status,
                &format!("refused with {status}"),
            );
            assert_eq!(error.is_final(), status < 500);
        }
        let config = large().handshake_timeout(Duration::from_secs(3));
        let impatient = http2(&connector.config(config), &server).await;
        match refused(&impatient, "/hang").await {
            ConnectError::Timeout { during, .. } => assert_eq!(during, Step::Answer),
            error => panic!("{error:?}"),
        }
        echoes(&mut neighbour, Message::text("still here")).await;
    }
}

/// What the server accepts wrongly it will accept wrongly again.
#[tokio::test]
#[ignore = "needs servers of other hands"]
async fn an_acceptance_over_http2_that_is_not_in_order_is_final() {
    let (server, connector) = servers().into_iter().next().unwrap();
    let connection = http2(&connector, &server).await;
    for path in ["/extension", "/odd"] {
        let error = refused(&connection, path).await;
        let refusal = error.refusal().unwrap();
        assert_eq!(refusal.status(), 200);
        assert_ne!(*refusal.reason(), RefusalReason::Status);
        assert!(error.is_final(), "{error}");

        let address = format!("{}{path}", server.address);
        let mut sockets = Reconnecting::new(connector.clone().prefer_http2(), address)
            .unwrap()
            .backoff(Backoff::new().first(Duration::from_millis(1)));
        let error = within(sockets.next()).await.unwrap().unwrap_err();
        assert!(error.is_final(), "{error}");
        assert!(within(sockets.next()).await.is_none());
    }
}

#[tokio::test]
#[ignore = "needs servers of other hands"]
async fn without_extended_connect_http1_is_spoken_or_the_failure_told() {
    let (server, tls) = tls_server(["--no-extended-connect"]);
    let connector = Connector::new().tls(tls).prefer_http2();
    let address = format!("{}/echo", server.address);
    let (mut socket, response) = within(connector.connect(&address)).await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_11);
    echoes(&mut socket, Message::text("Hello")).await;
    closes(socket).await;

    let clear = Foreign::http2(["--no-extended-connect"]);
    for (connector, address) in [
        (connector, &server.address),
        (Connector::new(), &clear.address),
    ] {
        match within(connector.connect_http2(address)).await.unwrap_err() {
            ConnectError::Http(error) => assert_eq!(error.kind(), HttpErrorKind::NoHttp2),
            error => panic!("{error:?}"),
        }
    }
}

#[tokio::test]
#[ignore = "needs servers of other hands"]
async fn ends_over_http2_are_told_apart() {
    for (server, connector) in servers() {
        let is_tls = server.address.starts_with("wss");
        for path in ["/end", "/reset", "/goaway", "/kill"] {
            let connection = http2(&connector, &server).await;
            let mut socket = open(&connection, path).await;
            within(socket.send("x")).await.unwrap();
            let error = within(socket.recv()).await.unwrap().unwrap_err();
            let kind = match (path, is_tls) {
                ("/reset", _) => Some(io::ErrorKind::ConnectionReset),
                ("/kill", true) => Some(io::ErrorKind::UnexpectedEof),
                _ => None,
            };
            match (&error, kind) {
                (Error::Connection(ConnectionError::UnexpectedEof), None) => {}
                (Error::Io(error), Some(kind)) => assert_eq!(error.kind(), kind, "{path}"),
                _ => panic!("{path}: {error:?}"),
            }
            assert!(!within(socket.closed()).await.is_clean());
        }
    }
}
