//! Clients of other hands against `ws_hyper::serve`: tokio-tungstenite and fastwebsockets.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use ws_hyper::serve;
use ws_tests::raw::within;
use ws_tower::{CloseCode, CloseFrame, Closed, Config, Error, Tracker, WebSocket, WebSocketLayer};

/// A server on a port of its own, and how its sockets ended.
struct Server {
    address: SocketAddr,
    tracker: Tracker,
    closed: Arc<Mutex<Vec<Closed>>>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tracker, closed) = (Tracker::new(), Arc::<Mutex<Vec<_>>>::default());
        let hook = Arc::clone(&closed);
        let sockets = WebSocketLayer::new()
            .config(Config::new().max_message_size(4 << 20))
            .subprotocols(["chat.v2", "chat"])
            .route("/echo", echo)
            .route("/ping", ping)
            .on_closed(move |closed| hook.lock().unwrap().push(closed.clone()));
        let server = serve(listener, sockets.into_service()).tracker(tracker.clone());
        tokio::spawn(server.into_future());
        Self {
            address,
            tracker,
            closed,
        }
    }

    /// How the only socket ended.
    async fn closed(&self) -> Closed {
        ws_tests::raw::until(|| self.tracker.is_empty()).await;
        let mut closed = self.closed.lock().unwrap();
        assert_eq!(closed.len(), 1);
        closed.pop().unwrap()
    }
}

/// Sends everything back; at `close CODE REASON` it closes with those.
async fn echo(mut socket: WebSocket) -> Result<(), Error> {
    while let Some(message) = socket.recv().await {
        let message = message?;
        let wish = message
            .as_text()
            .and_then(|text| text.strip_prefix("close "));
        if let Some((code, reason)) = wish.and_then(|wish| wish.split_once(' ')) {
            let code = CloseCode::try_from(code.parse::<u16>().unwrap()).unwrap();
            socket.close(CloseFrame::new(code, reason).unwrap()).await;
        } else if wish == Some("") {
            socket.close(None).await;
        } else {
            socket.send(message).await?;
        }
    }
    Ok(())
}

/// Pings the client, and says that it was answered.
async fn ping(socket: WebSocket) -> Result<(), Error> {
    socket.ping().await?;
    socket.send("answered").await
}

/// Payloads around every length at which the header changes, and a large one.
const SIZES: [usize; 9] = [0, 1, 125, 126, 127, 65_535, 65_536, 65_537, 1 << 20];

/// Text of so many bytes, with characters of all lengths.
fn text(size: usize) -> String {
    let mut text = "κόσμε 🦀 ".repeat(size / 16 + 1);
    let mut end = size;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text + &".".repeat(size - end)
}

/// What each end may say: with and without a reason, from each range.
const CLOSES: [(u16, &str); 7] = [
    (1000, ""),
    (1000, "bye"),
    (1001, "auf Wiedersehen, κόσμε"),
    (1008, "policy"),
    (1011, "broken"),
    (3000, ""),
    (4999, "of the application's own"),
];

fn bytes(size: usize) -> Vec<u8> {
    (0..=255).cycle().take(size).collect()
}

mod tokio_tungstenite {
    use ::tokio_tungstenite::{
        WebSocketStream, client_async,
        tungstenite::{
            self, Message,
            client::IntoClientRequest,
            protocol::{
                CloseFrame,
                frame::{
                    Frame,
                    coding::{Data, OpCode},
                },
            },
        },
    };

    use super::*;

    async fn connect(server: &Server, path: &str) -> WebSocketStream<TcpStream> {
        let stream = TcpStream::connect(server.address).await.unwrap();
        let url = format!("ws://{}{path}", server.address);
        let (socket, response) = within(client_async(url, stream)).await.unwrap();
        assert_eq!(response.status(), 101);
        socket
    }

    async fn next(socket: &mut WebSocketStream<TcpStream>) -> Message {
        within(socket.next()).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn text_and_binary_of_all_sizes_come_back() {
        let server = Server::start().await;
        let mut socket = connect(&server, "/echo").await;
        for size in SIZES {
            for message in [Message::text(text(size)), Message::binary(bytes(size))] {
                within(socket.send(message.clone())).await.unwrap();
                assert!(next(&mut socket).await == message, "{size}");
            }
        }
        within(socket.close(None)).await.unwrap();
        assert!(server.closed().await.is_clean());
    }

    #[tokio::test]
    async fn fragments_with_a_ping_between_them_are_one_message() {
        let server = Server::start().await;
        let mut socket = connect(&server, "/echo").await;
        let frame = |payload: &'static str, data, fin| {
            Message::Frame(Frame::message(payload, OpCode::Data(data), fin))
        };
        within(async {
            socket.feed(frame("Hel", Data::Text, false)).await.unwrap();
            socket.feed(Message::Ping("now".into())).await.unwrap();
            socket.feed(frame("", Data::Continue, false)).await.unwrap();
            socket
                .send(frame("lo", Data::Continue, true))
                .await
                .unwrap();
        })
        .await;
        assert_eq!(next(&mut socket).await, Message::Pong("now".into()));
        assert_eq!(next(&mut socket).await, Message::text("Hello"));
    }

    #[tokio::test]
    async fn pings_are_answered_both_ways() {
        let server = Server::start().await;
        let mut socket = connect(&server, "/echo").await;
        for payload in ["", "ping", &"x".repeat(125)] {
            let message = Message::Ping(payload.to_owned().into());
            within(socket.send(message)).await.unwrap();
            let answer = Message::Pong(payload.to_owned().into());
            assert_eq!(next(&mut socket).await, answer);
        }
        let mut socket = connect(&server, "/ping").await;
        assert!(matches!(next(&mut socket).await, Message::Ping(_)));
        // The pong goes out with the next look.
        assert_eq!(next(&mut socket).await, Message::text("answered"));
    }

    #[tokio::test]
    async fn close_codes_and_reasons_arrive_both_ways() {
        for (code, reason) in CLOSES {
            let server = Server::start().await;
            let mut socket = connect(&server, "/echo").await;
            let close = CloseFrame {
                code: code.into(),
                reason: reason.to_owned().into(),
            };
            within(socket.close(Some(close.clone()))).await.unwrap();
            let Message::Close(Some(answer)) = next(&mut socket).await else {
                panic!("no answer with a code");
            };
            // The code comes back (RFC 6455 §5.5.1), the reason need not.
            assert_eq!(answer.code, close.code);
            assert!(within(socket.next()).await.is_none());
            let closed = server.closed().await;
            let received = closed.received().unwrap().frame().unwrap();
            assert_eq!(
                (u16::from(received.code()), received.reason()),
                (code, reason)
            );
            assert!(closed.is_clean());

            let server = Server::start().await;
            let mut socket = connect(&server, "/echo").await;
            let wish = Message::text(format!("close {code} {reason}"));
            within(socket.send(wish)).await.unwrap();
            assert_eq!(next(&mut socket).await, Message::Close(Some(close)));
            assert!(within(socket.next()).await.is_none());
            assert!(server.closed().await.is_clean());
        }
        let server = Server::start().await;
        let mut socket = connect(&server, "/echo").await;
        within(socket.send(Message::text("close "))).await.unwrap();
        assert_eq!(next(&mut socket).await, Message::Close(None));
        assert!(within(socket.next()).await.is_none());
        assert!(server.closed().await.received().unwrap().frame().is_none());
    }

    #[tokio::test]
    async fn the_subprotocol_is_the_servers_choice_from_the_offer() {
        let server = Server::start().await;
        for (offer, chosen) in [
            ("chat, chat.v2", Some("chat.v2")),
            ("other, chat", Some("chat")),
        ] {
            let url = format!("ws://{}/echo", server.address);
            let mut request = url.into_client_request().unwrap();
            let headers = request.headers_mut();
            headers.insert("Sec-WebSocket-Protocol", offer.parse().unwrap());
            let stream = TcpStream::connect(server.address).await.unwrap();
            let (_, response) = within(client_async(request, stream)).await.unwrap();
            let header = response.headers().get("Sec-WebSocket-Protocol");
            assert_eq!(header.map(|it| it.to_str().unwrap()), chosen);
        }
    }

    #[tokio::test]
    async fn a_refusal_is_seen_with_its_status_and_text() {
        let server = Server::start().await;
        for (path, origin, status) in [
            ("/nowhere", None, 404),
            ("/echo", Some("https://evil.example"), 403),
        ] {
            let url = format!("ws://{}{path}", server.address);
            let mut request = url.into_client_request().unwrap();
            if let Some(origin) = origin {
                request
                    .headers_mut()
                    .insert("Origin", origin.parse().unwrap());
            }
            let stream = TcpStream::connect(server.address).await.unwrap();
            let error = within(client_async(request, stream)).await.unwrap_err();
            let tungstenite::Error::Http(response) = error else {
                panic!("{error}");
            };
            assert_eq!(response.status(), status);
        }
        assert!(server.tracker.is_empty());
    }

    #[tokio::test]
    async fn two_hundred_sockets_at_once_each_hear_their_own_words() {
        let server = Arc::new(Server::start().await);
        let mut clients = Vec::new();
        for client in 0..200 {
            let server = Arc::clone(&server);
            clients.push(tokio::spawn(async move {
                let mut socket = connect(&server, "/echo").await;
                for message in 0..20 {
                    let message = Message::text(format!("{client} says {message}"));
                    within(socket.send(message.clone())).await.unwrap();
                    assert_eq!(next(&mut socket).await, message);
                }
                within(socket.close(None)).await.unwrap();
                while within(socket.next()).await.is_some() {}
            }));
        }
        for client in clients {
            client.await.unwrap();
        }
        ws_tests::raw::until(|| server.tracker.is_empty()).await;
        let closed = server.closed.lock().unwrap();
        assert_eq!(closed.len(), 200);
        assert!(closed.iter().all(Closed::is_clean));
    }
}

mod fastwebsockets {
    use std::future::Future;

    use ::fastwebsockets::{FragmentCollector, Frame, OpCode, Payload, WebSocketError, handshake};
    use http::{
        Request,
        header::{CONNECTION, HOST, UPGRADE},
    };
    use http_body_util::Empty;
    use hyper::{body::Bytes, upgrade::Upgraded};
    use hyper_util::rt::TokioIo;

    use super::*;

    struct Spawn;

    impl<F> hyper::rt::Executor<F> for Spawn
    where
        F: Future<Output: Send> + Send + 'static,
    {
        fn execute(&self, future: F) {
            tokio::spawn(future);
        }
    }

    type Socket = FragmentCollector<TokioIo<Upgraded>>;

    async fn try_connect(
        server: &Server,
        path: &str,
    ) -> Result<(Socket, Option<String>), WebSocketError> {
        let stream = TcpStream::connect(server.address).await?;
        let request = Request::get(path)
            .header(HOST, server.address.to_string())
            .header(UPGRADE, "websocket")
            .header(CONNECTION, "upgrade")
            .header("Sec-WebSocket-Key", handshake::generate_key())
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Protocol", "chat, chat.v2")
            .body(Empty::<Bytes>::new())
            .unwrap();
        let (mut socket, response) = within(handshake::client(&Spawn, request, stream)).await?;
        socket.set_auto_close(true);
        let subprotocol = response.headers().get("Sec-WebSocket-Protocol");
        let subprotocol = subprotocol.map(|it| it.to_str().unwrap().to_owned());
        Ok((FragmentCollector::new(socket), subprotocol))
    }

    async fn connect(server: &Server, path: &str) -> Socket {
        try_connect(server, path).await.unwrap().0
    }

    async fn next(socket: &mut Socket) -> (OpCode, Vec<u8>) {
        let frame = within(socket.read_frame()).await.unwrap();
        (frame.opcode, frame.payload.to_vec())
    }

    async fn send(socket: &mut Socket, opcode: OpCode, fin: bool, payload: &[u8]) {
        let frame = Frame::new(fin, opcode, None, Payload::Owned(payload.to_vec()));
        within(socket.write_frame(frame)).await.unwrap();
    }

    #[tokio::test]
    async fn text_and_binary_of_all_sizes_come_back() {
        let server = Server::start().await;
        let mut socket = connect(&server, "/echo").await;
        for size in SIZES {
            for (opcode, payload) in [
                (OpCode::Text, text(size).into_bytes()),
                (OpCode::Binary, bytes(size)),
            ] {
                send(&mut socket, opcode, true, &payload).await;
                assert!(next(&mut socket).await == (opcode, payload), "{size}");
            }
        }
    }

    #[tokio::test]
    async fn fragments_cut_anywhere_are_one_message() {
        let server = Server::start().await;
        let mut socket = connect(&server, "/echo").await;
        let message = text(100_000).into_bytes();
        for piece in [1009, 65_536, 99_999] {
            let count = message.len().div_ceil(piece);
            for (index, part) in message.chunks(piece).enumerate() {
                let opcode = if index == 0 {
                    OpCode::Text
                } else {
                    OpCode::Continuation
                };
                send(&mut socket, opcode, index + 1 == count, part).await;
                if index == 0 {
                    send(&mut socket, OpCode::Ping, true, b"between").await;
                }
            }
            assert_eq!(next(&mut socket).await, (OpCode::Pong, b"between".to_vec()));
            assert!(next(&mut socket).await == (OpCode::Text, message.clone()));
        }
    }

    #[tokio::test]
    async fn pings_are_answered_both_ways() {
        let server = Server::start().await;
        let mut socket = connect(&server, "/echo").await;
        for payload in [&b""[..], b"ping", &[7; 125]] {
            send(&mut socket, OpCode::Ping, true, payload).await;
            assert_eq!(next(&mut socket).await, (OpCode::Pong, payload.to_vec()));
        }
        // It answers pings by itself, and does not tell.
        let mut socket = connect(&server, "/ping").await;
        assert_eq!(
            next(&mut socket).await,
            (OpCode::Text, b"answered".to_vec())
        );
    }

    #[tokio::test]
    async fn close_codes_and_reasons_arrive_both_ways() {
        for (code, reason) in CLOSES {
            let mut payload = code.to_be_bytes().to_vec();
            payload.extend_from_slice(reason.as_bytes());

            let server = Server::start().await;
            let mut socket = connect(&server, "/echo").await;
            send(&mut socket, OpCode::Close, true, &payload).await;
            let (opcode, answer) = next(&mut socket).await;
            assert_eq!((opcode, &answer[..2]), (OpCode::Close, &payload[..2]));
            let closed = server.closed().await;
            let received = closed.received().unwrap().frame().unwrap();
            assert_eq!(
                (u16::from(received.code()), received.reason()),
                (code, reason)
            );
            assert!(closed.is_clean());

            let server = Server::start().await;
            let mut socket = connect(&server, "/echo").await;
            let wish = format!("close {code} {reason}");
            send(&mut socket, OpCode::Text, true, wish.as_bytes()).await;
            assert_eq!(next(&mut socket).await, (OpCode::Close, payload));
            assert!(server.closed().await.is_clean());
        }
    }

    #[tokio::test]
    async fn the_subprotocol_is_the_servers_choice_from_the_offer() {
        let server = Server::start().await;
        let (_, subprotocol) = try_connect(&server, "/echo").await.unwrap();
        assert_eq!(subprotocol.as_deref(), Some("chat.v2"));
    }

    #[tokio::test]
    async fn a_refusal_is_seen_with_its_status() {
        let server = Server::start().await;
        let error = try_connect(&server, "/nowhere").await.err();
        assert!(
            matches!(error, Some(WebSocketError::InvalidStatusCode(404))),
            "{error:?}"
        );
    }
}
