//! The end of a socket, in every order of what can bring it about.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use tokio::{
    io::{AsyncWriteExt, DuplexStream, duplex},
    sync::oneshot,
    time::timeout,
};
use ws_core::{Close, Connection, ConnectionError, Event, Role};
use ws_tests::{
    io::{Cable, Recorder},
    peer::Peer,
};
use ws_tower::{
    BoxError, CloseCode, CloseFrame, Closed, Config, Error, Message, Receiver, Session, WebSocket,
};

/// How the handler returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Good,
    Fails,
    Panics,
    /// It never does.
    Sleeps,
}

/// Where the receiving half is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    InHandler,
    Elsewhere,
    /// Dropped by the handler at its start.
    Dropped,
}

/// What else happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Happens {
    Nothing,
    PeerCloses,
    PeerLeaves,
    PeerResets,
    HandleCloses,
    TaskIsAborted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    Handler,
    Other,
}

/// How the socket is to end.
#[derive(Debug, PartialEq, Eq)]
struct Expected {
    sent: Option<u16>,
    received: Option<u16>,
    cause: Cause,
}

#[derive(Debug, PartialEq, Eq)]
enum Cause {
    None,
    Aborted,
    Eof,
    Io,
}

impl Expected {
    fn handshake(code: u16) -> Self {
        Self {
            sent: Some(code),
            received: Some(code),
            cause: Cause::None,
        }
    }

    fn unclean(cause: Cause) -> Self {
        Self {
            sent: None,
            received: None,
            cause,
        }
    }

    /// The rules, in order: whatever comes first decides.
    fn of(outcome: Outcome, half: Half, happens: Happens, first: First) -> Option<Self> {
        let code = match outcome {
            Outcome::Good => Some(1000),
            Outcome::Fails | Outcome::Panics => Some(1011),
            Outcome::Sleeps => None,
        };
        let by_handler = code.filter(|_| half != Half::Elsewhere);
        let by_other = match happens {
            Happens::Nothing => None,
            Happens::PeerCloses => Some(Self::handshake(3001)),
            Happens::PeerLeaves => Some(Self::unclean(Cause::Eof)),
            Happens::PeerResets => Some(Self::unclean(Cause::Io)),
            Happens::HandleCloses => Some(Self::handshake(3002)),
            Happens::TaskIsAborted => Some(Self::unclean(Cause::Aborted)),
        };
        let by_handler = by_handler.map(Self::handshake);
        match first {
            First::Handler => by_handler.or(by_other),
            First::Other => by_other.or(by_handler),
        }
        // The last thing that the test does: the half that is elsewhere is dropped.
        .or_else(|| {
            code.filter(|_| half == Half::Elsewhere)
                .map(Self::handshake)
        })
    }

    fn found(closed: &Closed) -> Self {
        let code = |close: Option<&Close>| close.map(|close| close.code().unwrap().as_u16());
        Self {
            sent: code(closed.sent()),
            received: code(closed.received()),
            cause: match closed.cause() {
                None => Cause::None,
                Some(Error::Aborted) => Cause::Aborted,
                Some(Error::Connection(ConnectionError::UnexpectedEof)) => Cause::Eof,
                Some(Error::Io(_)) => Cause::Io,
                cause => panic!("{cause:?}"),
            },
        }
    }
}

async fn settle() {
    for _ in 0..30 {
        tokio::task::yield_now().await;
    }
}

/// What the peer sees: the events, and then the end of the stream.
async fn watch(mut peer: Peer<DuplexStream>, mut orders: oneshot::Receiver<Happens>) -> Vec<Event> {
    let mut events = Vec::new();
    let mut is_ordered = false;
    loop {
        let order = tokio::select! {
            event = peer.event() => match event {
                Some(event) => {
                    events.push(event);
                    // Answers the Close.
                    let _ = peer.flush().await;
                    None
                }
                None => return events,
            },
            order = &mut orders, if !is_ordered => {
                is_ordered = true;
                order.ok()
            }
        };
        match order {
            Some(Happens::PeerCloses) => {
                let code = CloseCode::new(3001).unwrap();
                let _ = peer.close(CloseFrame::from(code)).await;
            }
            Some(Happens::PeerLeaves) => {
                let _ = peer.io.shutdown().await;
            }
            _ => {}
        }
    }
}

#[expect(clippy::too_many_lines, reason = "one life, from its start to its end")]
async fn run(outcome: Outcome, half: Half, happens: Happens, first: First) {
    let case = format!("{outcome:?} {half:?} {happens:?} {first:?}");
    let (near, far) = duplex(4096);
    let (io, scissors) = Cable::new(far);
    let (orders, ordered) = oneshot::channel();
    let peer = tokio::spawn(watch(Peer::client(near), ordered));
    let (go, going) = oneshot::channel::<()>();
    let (hand_out, handed_out) = oneshot::channel();
    let server = Connection::new(Role::Server, Config::default());
    let session = tokio::spawn(Session::with_handler(
        io,
        server,
        async move |socket: WebSocket| {
            let sender = socket.sender();
            sender.send("hello").await?;
            let (_, receiver) = socket.split();
            let mut kept: Option<Receiver> = None;
            let mut elsewhere = None;
            match half {
                Half::InHandler => kept = Some(receiver),
                Half::Elsewhere => elsewhere = Some(receiver),
                Half::Dropped => drop(receiver),
            }
            let _ = hand_out.send((sender, elsewhere));
            let _ = going.await;
            let _kept = kept;
            match outcome {
                Outcome::Good => Ok(()),
                Outcome::Fails => Err(BoxError::from("secret")),
                Outcome::Panics => panic!("secret"),
                Outcome::Sleeps => std::future::pending().await,
            }
        },
    ));
    let (sender, receiver) = handed_out.await.unwrap();
    settle().await;

    let happen = async {
        match happens {
            Happens::Nothing => {}
            // The peer may be gone by then.
            Happens::PeerCloses | Happens::PeerLeaves => drop(orders.send(happens)),
            Happens::PeerResets => scissors.cut(),
            Happens::HandleCloses => {
                let sender = sender.clone();
                let code = CloseCode::new(3002).unwrap();
                tokio::spawn(async move { sender.close(CloseFrame::from(code)).await });
            }
            Happens::TaskIsAborted => session.abort(),
        }
        settle().await;
    };
    if first == First::Other {
        happen.await;
        let _ = go.send(());
        settle().await;
    } else {
        let _ = go.send(());
        settle().await;
        happen.await;
    }

    // Who still has the receiving half is told how it ended.
    let expected = Expected::of(outcome, half, happens, first);
    if let Some(mut receiver) = receiver {
        let has_ended = sender.try_closed().is_some();
        assert_eq!(has_ended, happens != Happens::Nothing, "{case}");
        if has_ended {
            let told = receiver.recv().await;
            match expected.as_ref().unwrap().cause {
                Cause::None => assert!(told.is_none(), "{case}"),
                Cause::Aborted => assert!(matches!(told, Some(Err(Error::Aborted))), "{case}"),
                Cause::Eof => assert!(
                    matches!(
                        told,
                        Some(Err(Error::Connection(ConnectionError::UnexpectedEof)))
                    ),
                    "{case}"
                ),
                Cause::Io => assert!(matches!(told, Some(Err(Error::Io(_)))), "{case}"),
            }
            assert!(receiver.recv().await.is_none(), "{case}");
        }
        drop(receiver);
        settle().await;
    }

    let Some(expected) = expected else {
        // Nothing has happened, and the handler sleeps: the socket lives.
        assert!(sender.is_open(), "{case}");
        assert!(!session.is_finished(), "{case}");
        session.abort();
        return;
    };
    let closed = timeout(Duration::from_secs(1), sender.closed());
    let closed = closed.await.unwrap_or_else(|_| panic!("no end: {case}"));
    assert_eq!(Expected::found(&closed), expected, "{case}");
    assert_eq!(closed.is_clean(), expected.cause == Cause::None, "{case}");
    assert!(!sender.is_open(), "{case}");
    assert!(sender.send("late").await.is_err(), "{case}");
    assert!(sender.try_send("late").is_err(), "{case}");
    assert!(sender.ping().await.is_err(), "{case}");

    // On the wire: what was queued, one Close at most, and no cause in it.
    let events = peer.await.unwrap();
    let mut wire = events.into_iter();
    if expected.cause != Cause::Aborted {
        assert_eq!(
            wire.next(),
            Some(Event::Message(Message::text("hello"))),
            "{case}"
        );
        let close = wire.next().map(|event| match event {
            Event::Close(Some(frame)) => {
                assert_eq!(frame.reason(), "", "{case}");
                frame.code().as_u16()
            }
            event => panic!("{case}: {event:?}"),
        });
        assert_eq!(close, expected.sent, "{case}");
        assert_eq!(wire.next(), None, "{case}");
    }

    // The session's own result is the same, once the handler has returned.
    if outcome == Outcome::Sleeps && happens != Happens::TaskIsAborted {
        assert!(!session.is_finished(), "the handler runs on: {case}");
        session.abort();
    } else {
        match session.await {
            Ok(closed) => assert_eq!(Expected::found(&closed), expected, "{case}"),
            Err(error) => assert!(error.is_cancelled(), "{case}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_socket_ends_as_the_first_of_handler_handles_peer_and_task_says_in_every_order() {
    for outcome in [
        Outcome::Good,
        Outcome::Fails,
        Outcome::Panics,
        Outcome::Sleeps,
    ] {
        for half in [Half::InHandler, Half::Elsewhere, Half::Dropped] {
            for happens in [
                Happens::Nothing,
                Happens::PeerCloses,
                Happens::PeerLeaves,
                Happens::PeerResets,
                Happens::HandleCloses,
                Happens::TaskIsAborted,
            ] {
                for first in [First::Handler, First::Other] {
                    run(outcome, half, happens, first).await;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_closes_that_cross_end_cleanly_with_the_code_of_each_side() {
    let (near, far) = duplex(1024);
    let (session, socket) = Session::new(far, Connection::new(Role::Server, Config::default()));
    let mut peer = Peer::client(near);
    peer.close(CloseFrame::from(CloseCode::new(3001).unwrap()))
        .await
        .unwrap();
    let closing = tokio::spawn({
        let sender = socket.sender();
        async move { sender.close(CloseFrame::from(CloseCode::NORMAL)).await }
    });
    settle().await;
    tokio::spawn(session);
    let closed = closing.await.unwrap();
    assert!(closed.is_clean());
    assert_eq!(
        closed.sent(),
        Some(&CloseFrame::from(CloseCode::NORMAL).into())
    );
    assert_eq!(
        closed.received().and_then(Close::code),
        Some(CloseCode::new(3001).unwrap())
    );
}

#[tokio::test(start_paused = true)]
async fn messages_that_came_before_the_end_are_received_after_it() {
    for leaves in [false, true] {
        let (near, far) = duplex(4096);
        let (session, mut socket) =
            Session::new(far, Connection::new(Role::Server, Config::default()));
        let session = tokio::spawn(session);
        let mut peer = Peer::client(near);
        for n in 0..10 {
            peer.send(format!("{n}")).await.unwrap();
        }
        if leaves {
            drop(peer);
        } else {
            peer.close(None).await.unwrap();
            while peer.event().await.is_some() {}
        }
        session.await.unwrap();
        for n in 0..10 {
            let message = socket.recv().await.unwrap().unwrap();
            assert_eq!(message, Message::text(format!("{n}")));
        }
        assert_eq!(socket.recv().await.is_some(), leaves);
        assert!(socket.recv().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_peer_said_before_it_left_is_heard_although_writing_fails_first() {
    let (near, far) = duplex(64);
    let (io, scissors) = Cable::new(far);
    let (session, mut socket) = Session::new(io, Connection::new(Role::Server, Config::default()));
    let session = tokio::spawn(session);
    // A write that is stuck: the session begins its turn with it.
    socket.try_send("x".repeat(1000)).unwrap();
    settle().await;
    let mut peer = Peer::client(near);
    peer.connection.send("so long").unwrap();
    peer.connection
        .close(CloseFrame::from(CloseCode::GOING_AWAY))
        .unwrap();
    peer.flush().await.unwrap();
    scissors.cut_writes();
    let closed = session.await.unwrap();
    assert_eq!(
        closed.received().and_then(Close::code),
        Some(CloseCode::GOING_AWAY)
    );
    let message = socket.recv().await.unwrap().unwrap();
    assert_eq!(message, Message::text("so long"));
    assert!(socket.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_was_queued_is_flushed_before_the_close_of_a_handler_that_returns() {
    // Through a narrow pipe, and far more than the queue takes at once.
    let (near, far) = duplex(16);
    let server = Connection::new(Role::Server, Config::default());
    let session = tokio::spawn(Session::with_handler(far, server, async |socket| {
        for n in 0..500 {
            socket.send(format!("{n:0>300}")).await?;
        }
        Ok(())
    }));
    let mut peer = Peer::client(near);
    for n in 0..500 {
        assert_eq!(
            peer.message().await,
            Some(Message::text(format!("{n:0>300}")))
        );
    }
    assert!(matches!(peer.event().await, Some(Event::Close(Some(frame)))
        if frame.code() == CloseCode::NORMAL));
    peer.flush().await.unwrap();
    assert!(session.await.unwrap().is_clean());
}

#[tokio::test(start_paused = true)]
async fn dropping_a_session_that_was_never_polled_ends_its_handles() {
    let (_near, far) = duplex(16);
    let (session, mut socket) = Session::new(far, Connection::new(Role::Client, Config::default()));
    let sender = socket.sender();
    let waits = tokio::spawn(async move { sender.closed().await });
    settle().await;
    drop(session);
    assert!(matches!(waits.await.unwrap().cause(), Some(Error::Aborted)));
    assert!(matches!(socket.recv().await, Some(Err(Error::Aborted))));
    assert!(socket.recv().await.is_none());
    assert!(matches!(socket.send("late").await, Err(Error::Aborted)));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_has_ended_may_be_polled_again() {
    let (near, far) = duplex(16);
    let (session, _socket) = Session::new(far, Connection::new(Role::Server, Config::default()));
    let mut session = Box::pin(session);
    drop(near);
    let first = session.as_mut().await;
    let second = session.as_mut().await;
    assert_eq!(first.to_string(), second.to_string());
}

#[tokio::test(start_paused = true)]
async fn the_stream_is_shut_down_once_and_let_go_at_the_end() {
    let (near, far) = duplex(1024);
    let (io, tape) = Recorder::new(far);
    let (session, socket) = Session::new(io, Connection::new(Role::Server, Config::default()));
    tokio::spawn(session);
    let mut peer = Peer::client(near);
    peer.close(None).await.unwrap();
    while peer.event().await.is_some() {}
    socket.closed().await;
    assert_eq!(tape.get().shutdowns, 1);
    assert!(peer.io.write_all(b"x").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_server_never_sends_1010() {
    let (near, far) = duplex(1024);
    let (session, socket) = Session::new(far, Connection::new(Role::Server, Config::default()));
    tokio::spawn(session);
    let mut peer = Peer::client(near);
    let (closed, event) = tokio::join!(
        socket.close(CloseFrame::from(CloseCode::MANDATORY_EXTENSION)),
        async {
            let event = peer.event().await;
            peer.flush().await.unwrap();
            event
        }
    );
    assert_eq!(
        event,
        Some(Event::Close(Some(CloseCode::INTERNAL_ERROR.into())))
    );
    assert!(closed.is_clean());
}
