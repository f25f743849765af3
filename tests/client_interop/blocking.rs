//! The blocking client.

use ws_core::blocking::{ConnectError, Connector, Error, Stage, TimedStream, WebSocket};
use ws_tests::raw::PATIENCE;

use super::*;

fn connect(connector: &Connector, address: &str) -> WebSocket {
    let connected = connector.connect(address);
    connected
        .unwrap_or_else(|error| panic!("{address}: {error}"))
        .0
}

fn open(address: &str) -> WebSocket {
    connect(&Connector::new().config(large()), address)
}

fn recv<S: TimedStream>(socket: &mut WebSocket<S>) -> Message {
    let message = socket.recv_timeout(PATIENCE);
    message.unwrap().unwrap()
}

fn echoes<S: TimedStream>(socket: &mut WebSocket<S>, message: &Message) {
    socket.send(message.clone()).unwrap();
    assert!(recv(socket) == *message, "{} bytes differ", message.len());
}

fn closes<S: TimedStream>(mut socket: WebSocket<S>) {
    let closed = socket.close(CloseCode::NORMAL);
    assert!(closed.is_clean(), "{closed}");
}

#[test]
#[ignore = "needs servers of other hands"]
fn messages_of_all_sizes_come_back_whole_and_in_fragments() {
    for server in servers() {
        for path in [
            "echo",
            "echo?deflate=none",
            "fragments",
            "fragments?deflate=none",
        ] {
            let mut socket = open(&format!("{}/{path}", server.address));
            for message in messages() {
                echoes(&mut socket, &message);
            }
            closes(socket);
        }
    }
}

#[test]
#[ignore = "needs servers of other hands"]
fn messages_in_flight_keep_their_order_and_a_close_waits_for_them() {
    for server in servers() {
        let mut socket = open(&format!("{}/echo", server.address));
        let mut received = 0;
        for number in 0..10_000 {
            socket.send(number.to_string()).unwrap();
            if number % 100 == 99 {
                while received < number {
                    assert_eq!(recv(&mut socket), Message::text(received.to_string()));
                    received += 1;
                }
            }
        }
        closes(socket);
        let mut socket = open(&format!("{}/push/10000", server.address));
        for number in 0..10_000 {
            assert_eq!(recv(&mut socket), Message::text(number.to_string()));
        }
        assert!(socket.recv().is_none());
        assert!(socket.closed().unwrap().is_clean());
        // What comes between our Close and theirs is received.
        let mut socket = open(&format!("{}/push/10000", server.address));
        let mut count = 0;
        while count < 10 {
            assert_eq!(recv(&mut socket), Message::text(count.to_string()));
            count += 1;
        }
        let _ = socket.start_close(CloseCode::NORMAL);
        for message in socket.messages() {
            assert_eq!(message.unwrap(), Message::text(count.to_string()));
            count += 1;
        }
        assert!(socket.closed().unwrap().is_clean());
    }
}

#[test]
#[ignore = "needs servers of other hands"]
fn compression_is_agreed_on_in_every_combination() {
    let messages = compressible();
    for (server, is_node) in servers().into_iter().zip([false, true]) {
        for ours in Ours::all() {
            let connector = Connector::new().config(ours.config());
            for theirs in Theirs::all() {
                let address = format!("{}/echo{}", server.address, theirs.query());
                if is_node && theirs.is_refused_by_node(ours) {
                    let error = connector.connect(&*address).unwrap_err();
                    assert_eq!(error.refusal().unwrap().status(), 400);
                    continue;
                }
                let (mut socket, response) = connector.connect(&*address).unwrap();
                let answer = response.headers()["sec-websocket-extensions"].to_str();
                theirs.check(ours, answer.unwrap());
                for message in &messages {
                    echoes(&mut socket, message);
                }
                closes(socket);
            }
        }
    }
}

#[test]
#[ignore = "needs servers of other hands"]
fn subprotocols_headers_and_credentials_arrive() {
    use http::header::{AUTHORIZATION, COOKIE, ORIGIN, USER_AGENT};
    for server in servers() {
        let at = |path: &str| format!("{}{path}", server.address);
        let connector = Connector::new().subprotocol("chat").subprotocol("chat.v2");
        let mut socket = connect(&connector, &at("/subprotocol"));
        assert_eq!(socket.subprotocol(), Some("chat.v2"));
        assert_eq!(recv(&mut socket), Message::text("chat.v2"));

        let connector = Connector::new()
            .header(ORIGIN, "https://page.example".parse().unwrap())
            .header(USER_AGENT, "probe/1".parse().unwrap());
        let message = recv(&mut connect(&connector, &at("/request?a=b")));
        let request = message.as_text().unwrap();
        assert!(request.contains("/request?a=b"), "{request}");
        assert!(has_line(request, "origin", "https://page.example"));
        assert!(has_line(request, "user-agent", "probe/1"));

        let connector = Connector::new().header(COOKIE, "a=1; b=2".parse().unwrap());
        let (mut socket, response) = connector.connect(at("/cookies")).unwrap();
        assert_eq!(recv(&mut socket), Message::text("a=1; b=2"));
        assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);

        for (path, value, greeting) in [
            ("/basic", "Basic dXNlcjpzZWNyZXQ=", "welcome user"),
            ("/bearer", "Bearer secret", "welcome bearer"),
        ] {
            let connector = Connector::new().header(AUTHORIZATION, value.parse().unwrap());
            let mut socket = connect(&connector, &at(path));
            assert_eq!(recv(&mut socket), Message::text(greeting));
            let error = Connector::new().connect(at(path)).unwrap_err();
            let refusal = error.refusal().unwrap();
            assert_eq!(
                (refusal.status().as_u16(), &refusal.body()[..]),
                (401, &b"who are you?"[..])
            );
        }
    }
}

#[test]
#[ignore = "needs servers of other hands"]
fn a_refusal_has_status_headers_and_the_start_of_its_body() {
    for server in servers() {
        for status in [400, 403, 404, 429, 500, 503] {
            let address = format!("{}/refuse/{status}", server.address);
            let error = Connector::new().connect(address).unwrap_err();
            let body = format!("refused with {status}");
            check_refusal(error.refusal().unwrap(), status, &body);
        }
        let address = format!("{}/refuse/403?length=100000", server.address);
        let error = Connector::new().connect(address).unwrap_err();
        let start = "x".repeat(Refusal::MAX_BODY);
        check_refusal(error.refusal().unwrap(), 403, &start);
        let address = format!("{}/redirect/302?to=/echo", server.address);
        let error = Connector::new().connect(address).unwrap_err();
        assert_eq!(error.refusal().unwrap().headers()["location"], "/echo");
    }
}

#[test]
#[ignore = "needs servers of other hands"]
fn close_codes_go_both_ways() {
    for server in servers() {
        for (code, reason) in CLOSES {
            let address = format!("{}/close/{code}?reason={}", server.address, quoted(reason));
            let mut socket = open(&address);
            assert!(socket.recv().is_none());
            let closed = socket.closed().unwrap();
            let frame = closed.received().unwrap().frame().unwrap();
            assert_eq!((u16::from(frame.code()), frame.reason()), (code, reason));
            assert!(closed.is_clean(), "{closed}");

            let mut socket = open(&format!("{}/echo", server.address));
            let closed = socket.close(close_frame((code, reason)));
            assert!(closed.is_clean(), "{closed}");
            let received = closed.received().unwrap().code().unwrap();
            assert_eq!(u16::from(received), code);
        }
    }
}

#[test]
#[ignore = "needs servers of other hands"]
fn an_end_without_a_close_is_told_from_one_with_it() {
    for server in servers() {
        let mut socket = open(&format!("{}/abort", server.address));
        socket.send("now").unwrap();
        let error = socket.recv().unwrap().unwrap_err();
        assert!(
            matches!(error, Error::Connection(_) | Error::Io(_)),
            "{error:?}"
        );
        assert!(socket.recv().is_none());
        let closed = socket.closed().unwrap();
        assert!(
            !closed.is_clean() && closed.received().is_none(),
            "{closed}"
        );
    }
}

#[test]
#[ignore = "needs servers of other hands"]
fn pings_are_answered_both_ways_and_silence_ends_at_the_deadline() {
    for server in servers() {
        let mut socket = open(&format!("{}/ping", server.address));
        assert_eq!(recv(&mut socket), Message::text("answered"));
        let latency = socket.ping().unwrap();
        assert!(latency > Duration::ZERO && latency < PATIENCE);
        echoes(&mut socket, &Message::text("still here"));

        let config = Config::new().handshake_timeout(Duration::from_secs(1));
        let connecting = Connector::new().config(config);
        let error = connecting.connect(format!("{}/hang", server.address));
        let is_told = matches!(error, Err(ConnectError::TimedOut(Stage::Response)));
        assert!(is_told, "{error:?}");
    }
}

#[cfg(unix)]
#[test]
#[ignore = "needs servers of other hands"]
fn a_unix_socket_is_a_stream() {
    use std::os::unix::net::UnixStream;
    let folder = Folder::new();
    for (_server, path) in unix_servers(&folder) {
        let stream = UnixStream::connect(path).unwrap();
        let connector = Connector::new().config(large());
        let connected = connector.connect_over("ws://localhost/echo", stream);
        let (mut socket, _) = connected.unwrap();
        for message in messages() {
            echoes(&mut socket, &message);
        }
        closes(socket);
    }
}

#[test]
#[ignore = "needs servers of other hands"]
fn tls_takes_the_roots_it_is_given_and_no_others() {
    let (servers, tls) = tls_servers();
    for server in servers {
        let address = format!("{}/echo", server.address);
        for tls in [tls.clone(), Tls::dangerously_accept_any_certificate()] {
            let connector = Connector::new().config(large()).tls(tls);
            let mut socket = connect(&connector, &address);
            for message in messages() {
                echoes(&mut socket, &message);
            }
            closes(socket);
        }
        let wrong_name = address.replace("127.0.0.1", "localhost");
        for (connector, address) in [
            (Connector::new(), &address),
            (Connector::new().tls(tls.clone()), &wrong_name),
        ] {
            let error = connector.connect(&**address).unwrap_err();
            assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
        }
    }
}
