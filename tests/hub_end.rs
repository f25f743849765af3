//! Seats of sockets that end, in every way there is.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use tokio::{
    io::{AsyncWriteExt, DuplexStream, duplex},
    sync::oneshot,
    task::{JoinHandle, yield_now},
    time::timeout,
};
use ws_core::{Close, Connection, Role};
use ws_tests::{
    io::{Cable, Scissors},
    peer::Peer,
};
use ws_tower::{
    BoxError, CloseCode, CloseFrame, Closed, Config, Session, WebSocket,
    hub::{Hub, Presence, Seat},
    pair,
};

const SOON: Duration = Duration::from_secs(90);

/// What a handler does when it is told to go on.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    Returns,
    Fails,
    Panics,
    Sleeps,
}

/// A member whose seat is held here, and not by its handler.
struct Member {
    peer: Peer<DuplexStream>,
    seat: Seat,
    go: Option<oneshot::Sender<()>>,
    scissors: Scissors,
    session: JoinHandle<Closed>,
}

async fn member(hub: &Hub, outcome: Outcome) -> Member {
    let (near, far) = duplex(4096);
    let (io, scissors) = Cable::new(far);
    let (go, going) = oneshot::channel::<()>();
    let (hand_out, handed_out) = oneshot::channel();
    let connection = Connection::new(Role::Server, Config::default());
    let hub = hub.clone();
    let session = Session::with_handler(io, connection, async move |socket: WebSocket| {
        let _ = hand_out.send(hub.join("topic", &socket));
        let _ = going.await;
        match outcome {
            Outcome::Returns => Ok(()),
            Outcome::Fails => Err(BoxError::from("by design")),
            Outcome::Panics => panic!("by design"),
            Outcome::Sleeps => std::future::pending().await,
        }
    });
    let session = tokio::spawn(session);
    Member {
        peer: Peer::client(near),
        seat: handed_out.await.unwrap(),
        go: Some(go),
        scissors,
        session,
    }
}

/// The member leaves, once, and its topic with it.
async fn leaves(hub: &Hub, mut member: Member, case: &str) {
    let mut watch = hub.watch("topic");
    let drain = tokio::spawn(async move {
        while member.peer.event().await.is_some() {}
        member.peer.flush().await
    });
    let wait = async {
        while member.seat.is_taken() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, wait)
        .await
        .unwrap_or_else(|_| panic!("{case}: it stays"));
    assert_eq!(hub.member_count("topic"), 0, "{case}");
    assert_eq!(hub.publish("topic", "nobody"), 0, "{case}");
    let id = member.seat.id();
    // The watch began before or after the end.
    let mut events = Vec::new();
    while let Ok(Some(event)) = timeout(Duration::from_millis(1), watch.recv()).await {
        events.push(event);
    }
    drop(member.seat);
    match events.as_slice() {
        [Presence::Members(none)] => assert!(none.is_empty(), "{case}"),
        [Presence::Members(one), Presence::Left(left)] => {
            assert_eq!((one.len(), left.id()), (1, id), "{case}");
        }
        events => panic!("{case}: {events:?}"),
    }
    drop(watch);
    assert_eq!(hub.topic_count(), 0, "{case}");
    member.session.abort();
    drain.abort();
}

#[tokio::test(start_paused = true)]
async fn a_seat_is_left_when_the_handler_ends_however_it_does() {
    for outcome in [Outcome::Returns, Outcome::Fails, Outcome::Panics] {
        let hub = Hub::new();
        let mut member = member(&hub, outcome).await;
        assert_eq!(hub.publish("topic", "hello"), 1);
        drop(member.go.take());
        leaves(&hub, member, &format!("{outcome:?}")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_seat_is_left_when_the_peer_closes_leaves_resets_or_breaks_the_protocol() {
    for (case, bytes) in [
        ("closes", &b"\x88\x82\0\0\0\0\x03\xe8"[..]),
        ("an unmasked frame", b"\x81\x01x"),
        ("an unknown opcode", b"\x83\x80\0\0\0\0"),
        ("bad utf-8", b"\x81\x81\0\0\0\0\xff"),
        ("a frame too long", b"\x82\xff\0\0\0\0\xff\0\0\0\0\0\0\0"),
    ] {
        let hub = Hub::new();
        // The handler sleeps on, and does not even receive.
        let mut member = member(&hub, Outcome::Sleeps).await;
        member.peer.io.write_all(bytes).await.unwrap();
        leaves(&hub, member, case).await;
    }
    let hub = Hub::new();
    let mut gone = member(&hub, Outcome::Sleeps).await;
    gone.peer.io.shutdown().await.unwrap();
    leaves(&hub, gone, "the stream ends").await;
    let reset = member(&hub, Outcome::Sleeps).await;
    reset.scissors.cut();
    leaves(&hub, reset, "the stream breaks").await;
}

#[tokio::test(start_paused = true)]
async fn a_seat_is_left_when_the_peer_falls_silent() {
    let hub = Hub::new();
    let (near, far) = duplex(4096);
    let connection = Connection::new(Role::Server, Config::default());
    let (session, socket) = Session::new(far, connection);
    let session = tokio::spawn(session);
    let seat = hub.join("topic", &socket);
    assert_eq!(hub.publish("topic", "hello"), 1);
    // Nobody answers the ping.
    let closed = timeout(SOON, session).await.unwrap().unwrap();
    assert!(!closed.is_clean());
    assert!(!seat.is_taken());
    assert_eq!(hub.topic_count(), 0);
    drop(near);
}

#[tokio::test(start_paused = true)]
async fn a_seat_is_left_when_the_session_is_dropped_before_or_after_its_first_poll() {
    let hub = Hub::new();
    let aborted = member(&hub, Outcome::Sleeps).await;
    aborted.session.abort();
    leaves(&hub, aborted, "aborted").await;
    let (_near, far) = duplex(4096);
    let connection = Connection::new(Role::Server, Config::default());
    let (session, socket) = Session::new(far, connection);
    let seat = hub.join("topic", &socket);
    assert_eq!(hub.publish("topic", "never written"), 1);
    drop(session);
    assert!(!seat.is_taken());
    assert_eq!(hub.topic_count(), 0);
}

#[tokio::test]
async fn a_seat_is_left_when_the_socket_is_closed_by_a_handle() {
    let hub = Hub::new();
    let (_client, server) = pair(Config::new());
    let seat = hub.join("topic", &server);
    let closed = server.close(CloseFrame::from(CloseCode::NORMAL)).await;
    assert!(closed.is_clean());
    assert!(!seat.is_taken());
    assert_eq!(hub.topic_count(), 0);
}

#[tokio::test]
async fn nothing_is_queued_behind_a_close() {
    let hub = Hub::new();
    let (mut client, server) = pair(Config::new());
    let _seat = hub.join("topic", &server);
    hub.publish("topic", "before");
    let sender = server.sender();
    let closing = tokio::spawn(async move { sender.close(None).await });
    yield_now().await;
    assert_eq!(hub.publish("topic", "behind"), 0);
    let first = client.recv().await.unwrap().unwrap();
    assert_eq!(first.as_text(), Some("before"));
    assert!(client.recv().await.is_none());
    closing.await.unwrap();
}

#[tokio::test]
async fn a_seat_does_not_keep_its_socket_open() {
    let hub = Hub::new();
    let (mut client, server) = pair(Config::new());
    let seat = hub.join("topic", &server);
    hub.publish("topic", "hello");
    drop(server);
    assert_eq!(
        client.recv().await.unwrap().unwrap().as_text(),
        Some("hello")
    );
    assert!(client.recv().await.is_none());
    let closed = client.closed().await;
    let code = closed.received().and_then(Close::code);
    assert_eq!(code, Some(CloseCode::NORMAL));
    yield_now().await;
    assert!(!seat.is_taken());
}

#[tokio::test]
async fn a_socket_that_has_ended_takes_no_seat() {
    let hub = Hub::new();
    let mut watch = hub.watch("watched");
    assert_eq!(watch.recv().await, Some(Presence::Members(Vec::new())));
    let (_client, server) = pair(Config::new());
    let sender = server.sender();
    server.close(None).await;
    for topic in ["topic", "watched"] {
        let seat = hub.join_as(topic, &sender, "too late");
        assert!(!seat.is_taken());
        assert_eq!(hub.publish(topic, "nobody"), 0);
        assert!(!hub.publish_to(topic, seat.id(), "nobody"));
        // A seat that is not taken can still speak.
        let (_other_client, other) = pair(Config::new());
        let _other_seat = hub.join("watched", &other);
        assert_eq!(
            seat.publish_to_others("hello"),
            usize::from(topic == "watched")
        );
    }
    assert_eq!(hub.topics(), [std::sync::Arc::<str>::from("watched")]);
}

#[tokio::test]
async fn one_member_that_ends_takes_no_other_with_it() {
    let hub = Hub::new();
    let mut members = Vec::new();
    for outcome in [
        Outcome::Panics,
        Outcome::Fails,
        Outcome::Sleeps,
        Outcome::Sleeps,
    ] {
        members.push(member(&hub, outcome).await);
    }
    for member in &mut members {
        drop(member.go.take());
    }
    let sleep = members.split_off(2);
    for mut ends in members {
        tokio::spawn(async move { while ends.peer.event().await.is_some() {} });
    }
    let mut rounds = 0;
    while hub.member_count("topic") > 2 {
        // Those that are about to close are not reached.
        assert!(hub.publish("topic", "meanwhile") >= 2);
        rounds += 1;
        yield_now().await;
    }
    assert_eq!(hub.publish("topic", "last"), 2);
    for mut member in sleep {
        for _ in 0..rounds {
            assert_eq!(member.peer.message().await, Some("meanwhile".into()));
        }
        assert_eq!(member.peer.message().await, Some("last".into()));
    }
}
