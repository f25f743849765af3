//! The asynchronous client.

use std::{error::Error as _, io};

use http::Response;
use tokio::time::sleep;
use ws_hyper::{
    Connector,
    client::{
        Backoff, ConnectError, ReconnectState, Reconnecting, RedirectErrorKind, Step, TlsErrorKind,
    },
};
use ws_tests::{
    broker::free_port,
    raw::{PATIENCE, within},
};
use ws_tower::{Error, WebSocket};

use super::*;

async fn connect(connector: &Connector, address: &str) -> (WebSocket, Response<()>) {
    let connected = within(connector.connect(address)).await;
    connected.unwrap_or_else(|error| panic!("{address}: {error}"))
}

async fn open(address: &str) -> WebSocket {
    connect(&Connector::new().config(large()), address).await.0
}

async fn failure(connector: &Connector, address: &str) -> ConnectError {
    within(connector.connect(address)).await.unwrap_err()
}

#[tokio::test]
#[ignore = "needs servers of other hands"]
async fn messages_of_all_sizes_come_back_whole_and_in_fragments() {
    for server in servers() {
        for path in [
            "echo",
            "echo?deflate=none",
            "fragments",
            "fragments?deflate=none",
        ] {
            let mut socket = open(&format!("{}/{path}", server.address)).await;
            for message in messages() {
                echoes(&mut socket, message).await;
            }
            closes(socket).await;
        }
    }
}

#[tokio::test]
#[ignore = "needs servers of other hands"]
async fn ten_thousand_messages_in_flight_keep_their_order() {
    for server in servers() {
        let (sender, mut receiver) = open(&format!("{}/echo", server.address)).await.split();
        let sending = tokio::spawn(async move {
            for number in 0..10_000 {
                sender.send(number.to_string()).await.unwrap();
            }
            sender
        });
        for number in 0..10_000 {
            let message = within(receiver.recv()).await.unwrap().unwrap();
            assert_eq!(message, Message::text(number.to_string()));
        }
        let sender = sending.await.unwrap();
        assert!(within(sender.close(None)).await.is_clean());
        let mut socket = open(&format!("{}/push/10000", server.address)).await;
        for number in 0..10_000 {
            assert_eq!(text(&mut socket).await, number.to_string());
        }
        assert!(within(socket.recv()).await.is_none());
        assert!(within(socket.closed()).await.is_clean());
    }
}

#[tokio::test]
#[ignore = "needs servers of other hands"]
async fn compression_is_agreed_on_in_every_combination() {
    let messages = compressible();
    for (server, is_node) in servers().into_iter().zip([false, true]) {
        let mut count = 0;
        for ours in Ours::all() {
            let connector = Connector::new().config(ours.config());
            for theirs in Theirs::all() {
                let address = format!("{}/echo{}", server.address, theirs.query());
                if is_node && theirs.is_refused_by_node(ours) {
                    let error = failure(&connector, &address).await;
                    assert_eq!(error.refusal().unwrap().status(), 400);
                    continue;
                }
                let (mut socket, response) = connect(&connector, &address).await;
                let answer = response.headers()["sec-websocket-extensions"].to_str();
                theirs.check(ours, answer.unwrap());
                for message in &messages {
                    echoes(&mut socket, message.clone()).await;
                }
                closes(socket).await;
                count += 1;
            }
        }
        assert_eq!(count, if is_node { 400 } else { 576 });
    }
}

#[tokio::test]
#[ignore = "needs servers of other hands"]
async fn compression_is_left_out_where_either_end_has_none() {
    for server in servers() {
        let address = format!("{}/echo", server.address);
        let without = format!("{address}?deflate=none");
        let plain = Connector::new().config(large().deflate(None));
        for (connector, address) in [(&Connector::new(), &without), (&plain, &address)] {
            let (mut socket, response) = connect(connector, address).await;
            assert!(!response.headers().contains_key("sec-websocket-extensions"));
            for message in compressible() {
                echoes(&mut socket, message).await;
            }
            closes(socket).await;
        }
        let required = Config::new().deflate(Deflate::new().required());
        let error = failure(&Connector::new().config(required), &without).await;
        assert!(
            error.refusal().is_some_and(|it| it.status() == 101),
            "{error}"
        );
    }
}

#[tokio::test]
#[ignore = "needs servers of other hands"]
async fn subprotocols_are_offered_in_order_and_chosen_by_the_server() {
    let cases: [(&[&str], Option<&str>); 5] = [
        (&["chat", "chat.v2"], Some("chat.v2")),
        (&["chat"], Some("chat")),
        (&["other", "chat"], Some("chat")),
        (&["other"], None),
        (&[], None),
    ];
    for server in servers() {
        for (offered, chosen) in cases {
            let mut connector = Connector::new();
            for name in offered {
                connector = connector.subprotocol(*name);
            }
            let address = format!("{}/subprotocol", server.address);
            let (mut socket, _) = connect(&connector, &address).await;
            assert_eq!(socket.subprotocol(), chosen);
            assert_eq!(text(&mut socket).await, chosen.unwrap_or_default());
        }
    }
}

#[tokio::test]
#[ignore = "needs servers of other hands"]
async fn the_request_is_what_was_asked_for() {
    for server in servers() {
        let address = format!("{}/request?a=b%20c", server.address);
        let mut socket = open(&address).await;
        let request = text(&mut socket).await;
        assert!(request.contains("/request?a=b%20c"), "{request}");
        let agent = concat!("ws-hyper/", env!("CARGO_PKG_VERSION"));
        assert!(has_line(&request, "user-agent", agent), "{request}");
        let host = server.address.strip_prefix("ws://").unwrap();
        assert!(has_line(&request, "host", host), "{request}");
        for absent in [
            "origin",
            "cookie",
            "authorization",
            "sec-websocket-protocol",
        ] {
            assert!(!has_name(&request, absent), "{request}");
        }
        let connector = Connector::new()
            .header("x-room", "7")
            .header("x-room", "8")
            .origin("https://page.example")
            .user_agent("probe/1");
        let request = text(&mut connect(&connector, &address).await.0).await;
        for (name, value) in [
            ("x-room", "7"),
            ("x-room", "8"),
            ("origin", "https://page.example"),
            ("user-agent", "probe/1"),
        ] {
            assert!(has_line(&request, name, value), "{request}");
        }
        let connector = Connector::new().user_agent(None);
        let request = text(&mut connect(&connector, &address).await.0).await;
        assert!(!has_name(&request, "user-agent"), "{request}");
    }
}

#[tokio::test]
#[ignore = "needs servers of other hands"]
async fn cookies_go_both_ways() {
    for server in servers() {
        let connector = Connector::new().cookie("a", "1").cookie("b", "2");
        let address = format!("{}/cookies", server.address);
        let (mut socket, response) = connect(&connector, &address).await;
        assert_eq!(text(&mut socket).await, "a=1; b=2");
        let set: Vec<_> = response.headers().get_all("set-cookie").iter().collect();
        assert_eq!(
            set,
            ["session=opened; Path=/; HttpOnly", "seen=yes; Path=/"]
        );
    }
}

#[tokio::test]
#[ignore = "needs servers of other hands"]
async fn credentials_open_what_is_closed_without() {
    for server in servers() {
        let basic = format!("{}/basic", server.address);
        let with_name = basic.replace("ws://", "ws://user:secret@");
        let wrong_name = basic.replace("ws://", "ws://user:wrong@");
        let bearer = format!("{}/bearer", server.address);
        let token = Connector::new().bearer_auth("secret");
        let by_option = Connector::new().basic_auth("user", "secret");
        for (connector, address, greeting) in [
            (&by_option, &basic, "welcome user"),
            (&by_option, &wrong_name, "welcome user"),
            (&Connector::new(), &with_name, "welcome user"),
            (&token, &bearer, "welcome bearer"),
        ] {
            let (mut socket, _) = connect(connector, address).await;
            assert_eq!(text(&mut socket).await, greeting);
        }
        for (address, scheme) in [
            (&basic, "Basic realm=\"test\""),
            (&wrong_name, "Basic realm=\"test\""),
            (&bearer, "Bearer"),
        ] {
            let error = failure(&Connector::new(), address).await;
            let refusal = error.refusal().unwrap();
            assert_eq!(refusal.status(), 401);
            assert_eq!(refusal.headers()["www-authenticate"], scheme);
            assert_eq!(refusal.body(), "who are you?");
        }
    }
}

#[tokio::test]
#[ignore = "needs servers of other hands"]
async fn a_refusal_has_status_headers_and_the_start_of_its_body() {
    for server in servers() {
        for status in [400, 403, 404, 429, 500, 503] {
            let address = format!("{}/refuse/{status}", server.address);
            let error = failure(&Connector::new(), &address).await;
            let body = format!("refused with {status}");
            check_refusal(error.refusal().unwrap(), status, &body);
        }
        let address = format!("{}/refuse/403?length=100000", server.address);
        let error = failure(&Connector::new(), &address).await;
        let start = "x".repeat(Refusal::MAX_BODY);
        check_refusal(error.refusal().unwrap(), 403, &start);
    }
}

#[tokio::test]
#[ignore = "needs servers of other hands"]
async fn redirects_are_followed_as_far_as_they_may() {
    for server in servers() {
        let at = |path: &str| format!("{}{path}", server.address);
        let none = Connector::new();
        let refused = failure(&none, &at("/redirect/302?to=/echo")).await;
        assert!(matches!(refused, ConnectError::Refused(_)), "{refused:?}");
        assert_eq!(refused.refusal().unwrap().headers()["location"], "/echo");

        let three = Connector::new().max_redirects(3);
        for status in [301, 302, 303, 307, 308] {
            let address = at(&format!("/redirect/{status}?to=/echo"));
            let (mut socket, _) = connect(&three, &address).await;
            echoes(&mut socket, Message::text("here")).await;
        }
        let (mut socket, _) = connect(&three, &at("/hops/3")).await;
        echoes(&mut socket, Message::text("here")).await;
        for path in ["/hops/4", "/loop"] {
            match failure(&three, &at(path)).await {
                ConnectError::Redirect(error) => {
                    assert_eq!(*error.kind(), RedirectErrorKind::TooMany(3));
                }
                error => panic!("{error:?}"),
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs servers of other hands"]
async fn credentials_are_for_the_first_origin_only() {
    let [python, node] = servers();
    for (from, to) in [(&python, &node), (&node, &python)] {
        let connector = Connector::new()
            .max_redirects(1)
            .bearer_auth("secret")
            .cookie("session", "1")
            .header("x-room", "7");
        for (target, is_kept) in [(to, false), (from, true)] {
            let target = format!("{}/request", target.address);
            let address = format!("{}/redirect/307?to={target}", from.address);
            let request = text(&mut connect(&connector, &address).await.0).await;
            assert!(has_line(&request, "x-room", "7"), "{request}");
            for name in ["authorization", "cookie"] {
                assert_eq!(has_name(&request, name), is_kept, "{request}");
            }
        }
        let name = from.address.replace("ws://", "ws://user:secret@");
        let address = format!("{name}/redirect/302?to={}/basic", to.address);
        let error = failure(&Connector::new().max_redirects(1), &address).await;
        assert_eq!(error.refusal().unwrap().status(), 401);
    }
}

#[tokio::test]
#[ignore = "needs servers of other hands"]
async fn close_codes_go_both_ways() {
    for server in servers() {
        for (code, reason) in CLOSES {
            let address = format!("{}/close/{code}?reason={}", server.address, quoted(reason));
            let mut socket = open(&address).await;
            assert!(within(socket.recv()).await.is_none());
            let closed = within(socket.closed()).await;
            let frame = closed.received().unwrap().frame().unwrap();
            assert_eq!((u16::from(frame.code()), frame.reason()), (code, reason));
            assert!(closed.is_clean() && closed.cause().is_none(), "{closed}");

            let socket = open(&format!("{}/echo", server.address)).await;
            let closed = within(socket.close(close_frame((code, reason)))).await;
            assert!(closed.is_clean(), "{closed}");
            let received = closed.received().unwrap().code().unwrap();
            assert_eq!(u16::from(received), code);
        }
        let socket = open(&format!("{}/echo", server.address)).await;
        let closed = within(socket.close(None)).await;
        assert!(closed.is_clean(), "{closed}");
    }
}

#[tokio::test]
#[ignore = "needs servers of other hands"]
async fn an_end_without_a_close_is_told_from_one_with_it() {
    for server in servers() {
        let mut socket = open(&format!("{}/abort", server.address)).await;
        socket.send("now").await.unwrap();
        let error = within(socket.recv()).await.unwrap().unwrap_err();
        assert!(
            matches!(error, Error::Connection(_) | Error::Io(_)),
            "{error:?}"
        );
        let closed = within(socket.closed()).await;
        assert!(
            !closed.is_clean() && closed.received().is_none(),
            "{closed}"
        );
        assert!(socket.send("too late").await.is_err());
    }
    // A process that is killed.
    for server in servers() {
        let mut socket = open(&format!("{}/echo", server.address)).await;
        echoes(&mut socket, Message::text("there")).await;
        drop(server);
        assert!(within(socket.recv()).await.unwrap().is_err());
        assert!(!within(socket.closed()).await.is_clean());
    }
}

#[tokio::test]
#[ignore = "needs servers of other hands"]
async fn pings_are_answered_both_ways_and_measured() {
    for server in servers() {
        let mut socket = open(&format!("{}/ping", server.address)).await;
        assert_eq!(text(&mut socket).await, "answered");
        for _ in 0..10 {
            let latency = within(socket.ping()).await.unwrap();
            assert!(latency > Duration::ZERO && latency < PATIENCE);
        }
        echoes(&mut socket, Message::text("still here")).await;

        let lively = Config::new()
            .keepalive_interval(Duration::from_millis(50))
            .keepalive_timeout(Duration::from_secs(5));
        let connector = Connector::new().config(lively);
        let (mut socket, _) = connect(&connector, &format!("{}/echo", server.address)).await;
        // Were pings not answered, it would be cut by then.
        sleep(Duration::from_secs(6)).await;
        echoes(&mut socket, Message::text("still here")).await;
    }
}

#[tokio::test]
#[ignore = "needs servers of other hands"]
async fn a_server_that_never_answers_is_left_at_the_deadline() {
    for server in servers() {
        let config = Config::new().handshake_timeout(Duration::from_secs(1));
        let connector = Connector::new().config(config);
        match failure(&connector, &format!("{}/hang", server.address)).await {
            ConnectError::Timeout { during, .. } => assert_eq!(during, Step::Answer),
            error => panic!("{error:?}"),
        }
    }
}

#[cfg(unix)]
#[tokio::test]
#[ignore = "needs servers of other hands"]
async fn a_unix_socket_is_an_address() {
    let folder = Folder::new();
    for (server, _) in unix_servers(&folder) {
        let mut socket = open(&format!("{}:/echo", server.address)).await;
        for message in messages() {
            echoes(&mut socket, message).await;
        }
        closes(socket).await;
        let mut socket = open(&format!("{}:/request?a=b", server.address)).await;
        let request = text(&mut socket).await;
        assert!(request.contains("/request?a=b"), "{request}");
        assert!(has_line(&request, "host", "localhost"), "{request}");
    }
}

#[tokio::test]
#[ignore = "needs servers of other hands"]
async fn tls_takes_the_roots_it_is_given_and_no_others() {
    let (servers, tls) = tls_servers();
    for server in servers {
        let address = format!("{}/echo", server.address);
        let trusting = Connector::new().tls(tls.clone()).config(large());
        for connector in [
            trusting.clone(),
            Connector::new()
                .tls(Tls::dangerously_accept_any_certificate())
                .config(large()),
        ] {
            let (mut socket, _) = connect(&connector, &address).await;
            for message in messages() {
                echoes(&mut socket, message).await;
            }
            closes(socket).await;
        }
        let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let other = Tls::roots_from_pem(other.cert.pem().as_bytes()).unwrap();
        let wrong_name = address.replace("127.0.0.1", "localhost");
        for (connector, address) in [
            (&Connector::new().tls(other), &address),
            (&trusting, &wrong_name),
        ] {
            match failure(connector, address).await {
                ConnectError::Tls(error) => {
                    assert_eq!(error.kind(), TlsErrorKind::Certificate);
                }
                error => panic!("{error:?}"),
            }
        }
        // A server that ends without TLS's good-bye, and without the WebSocket's.
        let (mut socket, _) = connect(&trusting, &format!("{}/abort", server.address)).await;
        socket.send("now").await.unwrap();
        let error = within(socket.recv()).await.unwrap().unwrap_err();
        let is_cut = match &error {
            Error::Io(error) => matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
            ),
            // Node says good-bye by TLS, all the same.
            error => error.source().is_some(),
        };
        assert!(is_cut, "{error:?}");
        assert!(!within(socket.closed()).await.is_clean());
        // The port is one of TLS.
        let plain = address.replace("wss://", "ws://");
        let error = failure(&Connector::new(), &plain).await;
        let is_told = matches!(error, ConnectError::Http(_) | ConnectError::Refused(_));
        assert!(is_told, "{error:?}");
    }
}

#[tokio::test]
#[ignore = "needs servers of other hands"]
async fn a_server_that_restarts_is_found_again() {
    for start in [
        Foreign::python::<String> as fn(Vec<String>) -> Foreign,
        Foreign::node::<String>,
    ] {
        let port = free_port().to_string();
        let listen = || vec!["--listen".to_owned(), port.clone()];
        let server = start(listen());
        let address = server.address.clone();
        let backoff = Backoff::new()
            .first(Duration::from_millis(50))
            .max(Duration::from_millis(100));
        let target = format!("{address}/echo");
        let reconnecting = Reconnecting::new(Connector::new(), target).unwrap();
        let mut sockets = reconnecting.backoff(backoff);
        let mut state = sockets.state();
        assert_eq!(*state.borrow(), ReconnectState::Idle);
        let mut first = within(sockets.next()).await.unwrap().unwrap();
        echoes(&mut first, Message::text("first")).await;
        assert_eq!(*state.borrow(), ReconnectState::Connected);

        drop(server);
        assert!(within(first.recv()).await.unwrap().is_err());
        let next = tokio::spawn(async move { sockets.next().await });
        let failing = state.wait_for(
            |state| matches!(state, ReconnectState::Waiting { failures, .. } if *failures > 1),
        );
        within(failing).await.unwrap();
        assert!(!next.is_finished());
        let _again = start(listen());
        let mut second = within(next).await.unwrap().unwrap().unwrap();
        echoes(&mut second, Message::text("second")).await;
        assert_eq!(*state.borrow(), ReconnectState::Connected);
        closes(second).await;
    }
}
