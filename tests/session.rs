//! The session: what it does for its handler, and what its handles promise.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures_util::{FutureExt, SinkExt, StreamExt, TryStreamExt, future, poll};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    task::JoinHandle,
    time::{sleep, timeout},
};
use ws_core::{Close, Connection, ConnectionError, Event, Role};
use ws_tests::{
    io::{Buffered, Recorder, Valved},
    peer::{Peer, masked},
    raw::PATIENCE,
};
use ws_tower::{
    BoxError, CloseCode, CloseFrame, Closed, Config, Error, Message, NoHandler, PreparedMessage,
    Sender, Session, TrySendError, WebSocket, pair,
};

/// No answer within this time is a hang: wake-ups come at once or never.
/// On the paused clock.
const SOON: Duration = Duration::from_secs(3);

fn server() -> Connection {
    // Without keepalive no tick repairs a lost wake-up.
    Connection::new(Role::Server, quiet())
}

fn quiet() -> Config {
    Config::new().keepalive_interval(None)
}

async fn echo(mut socket: WebSocket) -> Result<(), BoxError> {
    while let Some(message) = socket.recv().await {
        socket.send(message?).await?;
    }
    Ok(())
}

fn spawn<H>(handler: impl FnOnce(WebSocket) -> H) -> (Peer<DuplexStream>, JoinHandle<Closed>)
where
    H: Future<Output = Result<(), BoxError>> + Send + 'static,
{
    let (near, far) = duplex(64 << 10);
    let session = tokio::spawn(Session::with_handler(far, server(), handler));
    (Peer::client(near), session)
}

/// A session without a handler.
fn spawn_bare(config: Config) -> (Peer<DuplexStream>, WebSocket, JoinHandle<Closed>) {
    let (near, far) = duplex(64 << 10);
    let (session, socket) = Session::new(far, Connection::new(Role::Server, config));
    (Peer::client(near), socket, tokio::spawn(session))
}

fn code(close: Option<&Close>) -> Option<u16> {
    close.and_then(Close::code).map(CloseCode::as_u16)
}

async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

// Turns.

#[tokio::test]
async fn a_batch_of_64_pipelined_messages_costs_one_read_and_one_write() {
    let (mut near, far) = duplex(64 << 10);
    let (io, tape) = Recorder::new(far);
    tokio::spawn(Session::with_handler(io, server(), echo));
    settle().await;
    let batch: Vec<u8> = (0..64).flat_map(|n| masked(0x82, &[n; 20])).collect();
    for round in 1..=3 {
        near.write_all(&batch).await.unwrap();
        let mut replies = vec![0; 64 * 22];
        near.read_exact(&mut replies).await.unwrap();
        let record = tape.get();
        assert_eq!(record.reads, vec![batch.len(); round]);
        assert_eq!(record.writes, vec![replies.len(); round]);
        assert!(record.vectored_writes.is_empty());
    }
}

#[tokio::test]
async fn a_reply_is_not_held_back_while_the_handler_then_sleeps() {
    let (mut peer, session) = spawn(async |mut socket| {
        let message = socket.recv().await.unwrap()?;
        socket.send(message).await?;
        future::pending().await
    });
    peer.send("now").await.unwrap();
    assert_eq!(peer.message().await, Some(Message::text("now")));
    session.abort();
}

#[tokio::test]
async fn a_message_queued_before_the_session_starts_goes_out_first() {
    let (near, far) = duplex(1024);
    let (session, socket) = Session::new(far, server());
    socket.try_send("first").unwrap();
    socket.send("second").await.unwrap();
    tokio::spawn(session);
    let mut peer = Peer::client(near);
    assert_eq!(peer.message().await, Some(Message::text("first")));
    assert_eq!(peer.message().await, Some(Message::text("second")));
}

#[tokio::test]
async fn bytes_that_came_with_the_handshake_are_the_first_input() {
    let bytes = [masked(0x81, b"early"), masked(0x89, b"ping")].concat();
    for cut in 0..=bytes.len() {
        let (mut near, far) = duplex(1024);
        let mut connection = server();
        connection.receive(&bytes[..cut]);
        tokio::spawn(Session::with_handler(far, connection, echo));
        near.write_all(&bytes[cut..]).await.unwrap();
        let mut peer = Peer::client(near);
        let events = [peer.event().await.unwrap(), peer.event().await.unwrap()];
        assert!(
            events.contains(&Event::Message(Message::text("early"))),
            "{cut}"
        );
        assert!(
            events.contains(&Event::Pong(b"ping"[..].to_vec().into())),
            "{cut}"
        );
    }
}

#[tokio::test]
async fn a_client_session_that_gets_bytes_with_the_handshake_delivers_them_without_more_input() {
    let (_near, far) = duplex(1024);
    let mut connection = Connection::new(Role::Client, quiet());
    connection.receive(b"\x81\x05Hello");
    let (session, mut socket) = Session::new(far, connection);
    tokio::spawn(session);
    let message = timeout(PATIENCE, socket.recv()).await.unwrap();
    assert_eq!(message.unwrap().unwrap(), Message::text("Hello"));
}

// While the handler sleeps.

#[tokio::test]
async fn a_ping_is_answered_and_a_close_is_echoed_while_the_handler_sleeps() {
    let (mut peer, session) = spawn(async |_socket| future::pending().await);
    peer.ping(b"there?").await.unwrap();
    assert_eq!(
        peer.event().await,
        Some(Event::Pong(b"there?"[..].to_vec().into()))
    );
    peer.close(CloseFrame::new(CloseCode::GOING_AWAY, "bye").unwrap())
        .await
        .unwrap();
    assert!(matches!(peer.event().await, Some(Event::Close(Some(frame)))
        if frame.code() == CloseCode::GOING_AWAY));
    // RFC 6455 §7.1.1: the server ends the stream first.
    assert_eq!(peer.io.read(&mut [0]).await.unwrap(), 0);
    assert!(!session.is_finished());
    session.abort();
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_sleeps_while_its_socket_ends_is_woken_and_runs_to_its_end() {
    let (mut peer, session) = spawn(async |socket| {
        sleep(Duration::from_secs(60)).await;
        assert_eq!(code(socket.closed().await.received()), Some(1000));
        sleep(Duration::from_secs(60)).await;
        Ok(())
    });
    peer.close(CloseFrame::from(CloseCode::NORMAL))
        .await
        .unwrap();
    assert!(matches!(peer.event().await, Some(Event::Close(_))));
    let closed = timeout(Duration::from_secs(150), session)
        .await
        .unwrap()
        .unwrap();
    assert!(closed.is_clean());
}

#[tokio::test]
async fn the_peers_close_leaves_the_handler_running_and_recv_and_closed_tell_it() {
    let (told, tell) = tokio::sync::oneshot::channel();
    let (mut peer, session) = spawn(async |mut socket| {
        assert_eq!(socket.recv().await.unwrap()?, Message::text("last"));
        assert!(socket.recv().await.is_none());
        assert!(socket.recv().await.is_none());
        let closed = socket.closed().await;
        assert!(matches!(socket.send("late").await, Err(Error::Closed)));
        let _ = told.send(closed);
        sleep(Duration::from_millis(10)).await;
        Ok(())
    });
    peer.send("last").await.unwrap();
    peer.close(CloseFrame::new(CloseCode::new(4001).unwrap(), "why").unwrap())
        .await
        .unwrap();
    assert!(matches!(peer.event().await, Some(Event::Close(_))));
    let closed = tell.await.unwrap();
    assert_eq!(
        closed.received(),
        Some(
            &CloseFrame::new(CloseCode::new(4001).unwrap(), "why")
                .unwrap()
                .into()
        )
    );
    assert!(!session.is_finished());
    assert!(session.await.unwrap().is_clean());
}

// A handler that only sends.

#[tokio::test]
async fn a_handler_that_only_sends_closes_cleanly_though_the_peer_keeps_sending() {
    for discards in [false, true] {
        let (peer, session) = spawn(async move |mut socket| {
            if discards {
                socket.discard_incoming();
            }
            for n in 0..100 {
                socket.send(format!("{n}")).await?;
                tokio::task::yield_now().await;
            }
            Ok(())
        });
        let (mut reader, mut writer) = tokio::io::split(peer.io);
        let flood = tokio::spawn(async move {
            // Until the stream is shut.
            while writer
                .write_all(&masked(0x82, &[7; 100]).repeat(50))
                .await
                .is_ok()
            {}
        });
        let mut engine = peer.connection;
        let mut count = 0;
        let close = 'read: loop {
            let mut buffer = [0; 1024];
            let read = reader.read(&mut buffer).await.unwrap();
            assert!(read > 0, "the stream ended without a close");
            engine.receive(&buffer[..read]);
            while let Some(event) = engine.poll().unwrap() {
                match event {
                    Event::Message(message) => {
                        assert_eq!(message, Message::text(format!("{count}")));
                        count += 1;
                    }
                    Event::Close(close) => break 'read close,
                    _ => {}
                }
            }
        };
        assert_eq!(count, 100);
        assert_eq!(close, Some(CloseCode::NORMAL.into()));
        // The flood goes on until the close is answered.
        flood.abort();
        let _ = flood.await;
        drop(reader);
        let closed = timeout(PATIENCE, session).await.unwrap().unwrap();
        assert_eq!(code(closed.sent()), Some(1000));
    }
}

#[tokio::test]
async fn after_discarding_or_dropping_the_receiving_half_reading_goes_on() {
    for drops in [false, true] {
        let (mut peer, session) = spawn(async move |mut socket| {
            if drops {
                let (sender, receiver) = socket.split();
                drop(receiver);
                sender.closed().await;
            } else {
                socket.discard_incoming();
                socket.closed().await;
            }
            Ok(())
        });
        // Far beyond the inbox and the buffers on the way.
        for _ in 0..100 {
            let send = peer.send(vec![0; 10_000]);
            timeout(PATIENCE, send).await.unwrap().unwrap();
        }
        peer.ping(b"still").await.unwrap();
        assert!(matches!(peer.event().await, Some(Event::Pong(_))));
        peer.close(None).await.unwrap();
        assert!(matches!(peer.event().await, Some(Event::Close(None))));
        let closed = session.await.unwrap();
        assert_eq!(closed.sent(), Some(&Close::NoStatus));
        assert!(closed.is_clean());
    }
}

// Handles elsewhere.

#[tokio::test]
async fn a_socket_moved_out_of_its_handler_stays_open_until_it_is_dropped() {
    let (out, moved) = tokio::sync::oneshot::channel();
    let (mut peer, session) = spawn(async |socket| {
        let _ = out.send(socket);
        Ok(())
    });
    let mut socket = moved.await.unwrap();
    settle().await;
    assert!(socket.sender().is_open());
    peer.send("in").await.unwrap();
    assert_eq!(socket.recv().await.unwrap().unwrap(), Message::text("in"));
    socket.send("out").await.unwrap();
    assert_eq!(peer.message().await, Some(Message::text("out")));
    let sender = socket.sender();
    drop(socket);
    assert!(matches!(peer.event().await, Some(Event::Close(Some(frame)))
        if frame.code() == CloseCode::NORMAL));
    peer.flush().await.unwrap();
    // A sender does not hold the socket.
    assert!(sender.closed().await.is_clean());
    assert!(session.await.unwrap().is_clean());
}

/// Polls `recv` once, with the waker of whoever calls, while nothing is there.
async fn find_nothing(socket: &mut WebSocket) {
    assert!(poll!(Box::pin(socket.recv())).is_pending());
}

#[tokio::test]
async fn whoever_waited_last_in_recv_is_woken_be_it_the_handler_or_a_task() {
    let (out, mut waiting) = tokio::sync::mpsc::unbounded_channel();
    let (mut peer, session) = spawn(async move |mut socket| {
        find_nothing(&mut socket).await;
        let task = tokio::spawn({
            let out = out.clone();
            async move {
                let _ = out.send("a task");
                let message = socket.recv().await;
                find_nothing(&mut socket).await;
                (socket, message)
            }
        });
        let (mut socket, message) = task.await?;
        assert_eq!(message.unwrap()?, Message::text("for a task"));
        let _ = out.send("the handler");
        let message = socket.recv().await.unwrap()?;
        socket.send(message).await?;
        Ok(())
    });
    while let Some(who) = waiting.recv().await {
        // Until it has found nothing.
        settle().await;
        peer.send(format!("for {who}")).await.unwrap();
        if who == "the handler" {
            break;
        }
    }
    let answer = timeout(SOON, peer.message()).await.unwrap();
    assert_eq!(answer, Some(Message::text("for the handler")));
    let _ = peer.event().await;
    peer.flush().await.unwrap();
    assert!(session.await.unwrap().is_clean());
}

#[tokio::test]
async fn a_receiver_elsewhere_keeps_the_socket_open_and_a_sender_does_not() {
    let (mut peer, socket, session) = spawn_bare(quiet());
    let (sender, receiver) = socket.split();
    drop(sender);
    peer.ping(b"1").await.unwrap();
    assert!(matches!(peer.event().await, Some(Event::Pong(_))));
    drop(receiver);
    assert!(matches!(peer.event().await, Some(Event::Close(_))));
    peer.flush().await.unwrap();
    assert!(session.await.unwrap().is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cloned_senders_in_many_tasks_never_interleave_and_keep_their_order() {
    const TASKS: usize = 8;
    const EACH: usize = 500;
    let (mut client, server) = pair(quiet().outgoing_high_water(4096));
    let (sender, receiver) = server.split();
    for task in 0..TASKS {
        let sender = sender.clone();
        tokio::spawn(async move {
            for n in 0..EACH {
                // Text and binary, small and large, prepared or not.
                let text = format!("{task}:{n}:{}", "x".repeat(n * 7 % 3000));
                if n % 3 == 0 {
                    let prepared = PreparedMessage::new(Message::text(text));
                    sender.send_prepared(&prepared).await.unwrap();
                } else {
                    sender.send(text).await.unwrap();
                }
            }
        });
    }
    let mut next = [0; TASKS];
    for _ in 0..TASKS * EACH {
        let message = timeout(PATIENCE, client.recv())
            .await
            .expect("a lost wake-up");
        let message = message.unwrap().unwrap();
        let mut parts = message.as_text().unwrap().split(':');
        let task: usize = parts.next().unwrap().parse().unwrap();
        let n: usize = parts.next().unwrap().parse().unwrap();
        assert_eq!(parts.next().unwrap(), "x".repeat(n * 7 % 3000));
        assert_eq!(next[task], n);
        next[task] += 1;
    }
    drop(receiver);
    assert!(client.recv().await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn halves_in_different_threads_echo_without_a_lost_wake_up() {
    let (client, mut server) = pair(quiet().inbox_high_water(512).outgoing_high_water(512));
    tokio::spawn(async move {
        while let Some(Ok(message)) = server.recv().await {
            if server.send(message).await.is_err() {
                break;
            }
        }
    });
    let (sender, mut receiver) = client.split();
    let send = tokio::spawn(async move {
        for n in 0..5000_u32 {
            sender.send(n.to_be_bytes().to_vec()).await.unwrap();
        }
        sender
    });
    for n in 0..5000_u32 {
        let message = timeout(PATIENCE, receiver.recv())
            .await
            .expect("a lost wake-up");
        assert_eq!(message.unwrap().unwrap().as_bytes(), n.to_be_bytes());
    }
    send.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_message_at_a_time_across_threads_is_never_forgotten() {
    let (mut client, mut server) = pair(quiet());
    let rounds = tokio::spawn(async move {
        while let Some(Ok(message)) = server.recv().await {
            server.try_send(message).unwrap();
        }
    });
    for n in 0..3000_u32 {
        client.try_send(n.to_be_bytes().to_vec()).unwrap();
        let message = timeout(PATIENCE, client.recv())
            .await
            .expect("a lost wake-up");
        assert_eq!(message.unwrap().unwrap().as_bytes(), n.to_be_bytes());
    }
    drop(client);
    rounds.await.unwrap();
}

// Bounds.

/// Sends until the stream takes no more, and returns the bytes that went in.
async fn flood(io: &mut DuplexStream, frame: &[u8]) -> usize {
    let mut sent = 0;
    let block = frame.repeat((16 << 10) / frame.len());
    loop {
        let rest = &block[sent % frame.len()..];
        match timeout(Duration::from_millis(20), io.write(rest)).await {
            Ok(count) => sent += count.expect("a write that is not refused"),
            Err(_) => return sent,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_inbox_stops_reading_and_counts_64_bytes_for_each_message() {
    for len in [0, 1, 20, 125] {
        let (mut near, far) = duplex(1024);
        let (io, tape) = Recorder::new(far);
        let (session, socket) = Session::new(io, server());
        tokio::spawn(session);
        let frame = masked(0x82, &vec![0; len]);
        let sent = flood(&mut near, &frame).await;
        // 64 KiB of messages, and what one read may bring beyond.
        let messages = (64 << 10) / (len + 64) + 1;
        let most = messages * frame.len() + 2 * 1024;
        assert!(
            sent <= most,
            "{sent} bytes of messages of {len} bytes, at most {most}"
        );
        assert!(sent >= messages * frame.len() - frame.len(), "{sent}");
        let before = tape.get().reads.len();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(tape.get().reads.len(), before, "read beside a full inbox");
        drop(socket);
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_that_overfills_the_inbox_loses_nothing_and_a_receiver_elsewhere_reads_on() {
    for cut in 0..10 {
        let (mut near, far) = duplex(1 << 20);
        let (session, mut socket) = Session::new(
            far,
            Connection::new(Role::Server, quiet().inbox_high_water(200)),
        );
        tokio::spawn(session);
        // Five messages fit not; the read ends amid the last.
        let bytes: Vec<u8> = (0..5).flat_map(|n| masked(0x82, &[n; 4])).collect();
        let (first, second) = bytes.split_at(bytes.len() - cut);
        near.write_all(first).await.unwrap();
        settle().await;
        near.write_all(second).await.unwrap();
        settle().await;
        for n in 0..5 {
            let message = timeout(SOON, socket.recv()).await;
            let message = message.unwrap_or_else(|_| panic!("reading stays paused: {n}, {cut}"));
            assert_eq!(message.unwrap().unwrap().as_bytes(), [n; 4]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pings_and_a_close_behind_a_full_inbox_are_seen_to_as_soon_as_there_is_room() {
    let (mut near, far) = duplex(1 << 20);
    let (session, mut socket) = Session::new(
        far,
        Connection::new(Role::Server, quiet().inbox_high_water(100)),
    );
    let session = tokio::spawn(session);
    let bytes = [
        masked(0x82, &[0; 100]),
        masked(0x89, b"ping"),
        masked(0x82, &[0; 100]),
        masked(0x88, b"\x03\xe8"),
    ];
    near.write_all(&bytes.concat()).await.unwrap();
    settle().await;
    assert!(socket.recv().await.is_some());
    let second = timeout(SOON, socket.recv()).await.unwrap();
    assert!(second.is_some());
    // Only the receiver's next look parses the Close.
    assert!(timeout(SOON, socket.recv()).await.unwrap().is_none());
    let mut replies = Vec::new();
    timeout(SOON, near.read_to_end(&mut replies))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(replies, b"\x8a\x04ping\x88\x02\x03\xe8");
    assert!(session.await.unwrap().is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_ping_behind_a_full_inbox_is_answered_when_one_message_is_taken() {
    let (mut near, far) = duplex(1 << 20);
    let (session, mut socket) = Session::new(
        far,
        Connection::new(Role::Server, quiet().inbox_high_water(100)),
    );
    tokio::spawn(session);
    let full = masked(0x82, &[0; 100]);
    let bytes = [full.clone(), masked(0x89, b"ping"), full.clone(), full];
    near.write_all(&bytes.concat()).await.unwrap();
    settle().await;
    assert!(socket.recv().await.is_some());
    assert!(socket.recv().await.is_some());
    let mut pong = [0; 6];
    timeout(SOON, near.read_exact(&mut pong))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&pong, b"\x8a\x04ping");
}

#[tokio::test(start_paused = true)]
async fn a_full_outgoing_queue_makes_send_wait_and_try_send_give_the_message_back() {
    for len in [0_usize, 100] {
        let (near, far) = duplex(1024);
        let (io, valve) = Valved::new(far);
        let (session, socket) = Session::new(io, server());
        tokio::spawn(session);
        settle().await;
        let mut count = 0;
        let full = loop {
            match socket.try_send(vec![1; len]) {
                Ok(()) => count += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(full, TrySendError::Full(Message::binary(vec![1; len])));
        assert_eq!(full.into_message(), Message::binary(vec![1; len]));
        assert_eq!(count, (64_usize << 10).div_ceil(len + 64));
        assert!(timeout(SOON, socket.send("waits")).await.is_err());
        assert!(socket.sender().is_open());
        let waits = tokio::spawn({
            let sender = socket.sender();
            async move { sender.send("waits").await }
        });
        settle().await;
        valve.open();
        let mut peer = Peer::client(near);
        for _ in 0..count {
            assert_eq!(peer.message().await, Some(Message::binary(vec![1; len])));
        }
        waits.await.unwrap().unwrap();
        assert_eq!(peer.message().await, Some(Message::text("waits")));
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_senders_are_released_in_order_and_none_is_left_behind() {
    let (near, far) = duplex(64);
    let (io, valve) = Valved::new(far);
    let config = quiet().outgoing_high_water(200);
    let (session, socket) = Session::new(io, Connection::new(Role::Server, config));
    tokio::spawn(session);
    while socket.try_send("fill").is_ok() {}
    let tasks: Vec<_> = (0..50)
        .map(|n| {
            let sender = socket.sender();
            tokio::spawn(async move { sender.send(format!("{n}")).await })
        })
        .collect();
    settle().await;
    valve.open();
    let mut peer = Peer::client(near);
    let mut next = 0;
    while next < 50 {
        let message = timeout(SOON, peer.message())
            .await
            .expect("a sender left behind");
        let message = message.unwrap();
        if message != Message::text("fill") {
            assert_eq!(message, Message::text(format!("{next}")));
            next += 1;
        }
    }
    for task in tasks {
        task.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_future_whose_wait_is_over_takes_nobody_elses_place() {
    // A ping is answered; before its future is polled again, another future begins to wait.
    let (mut peer, socket, _session) = spawn_bare(quiet());
    let mut ping = Box::pin(socket.ping());
    assert!(poll!(&mut ping).is_pending());
    assert!(matches!(peer.event().await, Some(Event::Ping(_))));
    peer.flush().await.unwrap();
    settle().await;
    let sender = socket.sender();
    let closed = tokio::spawn(async move { sender.closed().await });
    settle().await;
    ping.await.unwrap();
    drop(socket);
    assert!(matches!(peer.event().await, Some(Event::Close(_))));
    peer.flush().await.unwrap();
    timeout(SOON, closed)
        .await
        .expect("a lost wake-up")
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_is_overtaken_keeps_waiting_beside_the_others() {
    let (near, far) = duplex(1 << 20);
    let (io, valve) = Valved::new(far);
    let config = quiet().outgoing_high_water(1);
    let (session, socket) = Session::new(io, Connection::new(Role::Server, config));
    tokio::spawn(session);
    socket.try_send("0").unwrap();
    settle().await;
    let mut first = Box::pin(socket.send("first"));
    assert!(poll!(&mut first).is_pending());
    // Room comes, but somebody is quicker, and another one comes to wait.
    valve.allow(3);
    settle().await;
    socket.try_send("1").unwrap();
    let sender = socket.sender();
    let second = tokio::spawn(async move { sender.send("second").await });
    settle().await;
    assert!(poll!(&mut first).is_pending());
    valve.open();
    let both = timeout(SOON, future::join(first, second)).await;
    let (first, second) = both.expect("a lost wake-up");
    first.unwrap();
    second.unwrap().unwrap();
    drop(near);
}

// Large messages.

#[tokio::test]
async fn a_large_message_is_read_in_place_and_arrives_whole() {
    for len in [1_usize << 20, 16 << 20] {
        let (near, far) = duplex(1 << 20);
        let (io, tape) = Recorder::new(far);
        let config = quiet().max_message_size(len);
        let (session, mut socket) = Session::new(io, Connection::new(Role::Server, config));
        tokio::spawn(session);
        let data: Vec<u8> = (0..len).map(|n| (n >> 3).to_le_bytes()[0]).collect();
        let message = Message::binary(data);
        let mut peer = Peer::client(near);
        let (sent, received) = tokio::join!(peer.send(message.clone()), socket.recv());
        sent.unwrap();
        assert!(received.unwrap().unwrap() == message);
        // Larger pieces than the 64 KiB buffer of a thread holds.
        let largest = tape.get().reads.into_iter().max().unwrap();
        assert!(len == 1 << 20 || largest > 64 << 10, "{largest}");
    }
}

#[tokio::test]
async fn closing_or_discarding_amid_a_large_message_does_not_break_it() {
    for action in 0..3 {
        let (near, far) = duplex(1 << 20);
        let (session, mut socket) = Session::new(far, server());
        let session = tokio::spawn(session);
        let mut peer = Peer::client(near);
        let text = "grün ".repeat(50_000);
        let mut frames = Connection::new(Role::Client, Config::new());
        frames.send(text.clone()).unwrap();
        let mut bytes = frames.take_transmit();
        let bytes = bytes::Buf::copy_to_bytes(&mut bytes, 6 + 8 + text.len());
        peer.io.write_all(&bytes[..150_001]).await.unwrap();
        settle().await;
        let sender = socket.sender();
        let close = async {
            match action {
                0 => drop(sender.close(CloseFrame::from(CloseCode::NORMAL)).await),
                1 => socket.discard_incoming(),
                _ => {}
            }
            socket.recv().await
        };
        let rest = async {
            settle().await;
            peer.io.write_all(&bytes[150_001..]).await.unwrap();
            peer.close(CloseFrame::from(CloseCode::NORMAL))
                .await
                .unwrap();
            while peer.event().await.is_some() {}
            drop(peer);
        };
        let (received, ()) = timeout(PATIENCE, future::join(close, rest)).await.unwrap();
        match action {
            1 => assert!(received.is_none()),
            _ => assert!(received.unwrap().unwrap() == Message::text(text)),
        }
        let closed = session.await.unwrap();
        assert!(closed.is_clean(), "{closed}");
    }
}

#[tokio::test]
async fn a_payload_of_16_kib_goes_out_by_reference_in_one_vectored_write() {
    let (near, far) = duplex(1 << 20);
    let (io, tape) = Recorder::new(far);
    let (session, socket) = Session::new(io, server());
    socket.try_send("before").unwrap();
    socket.try_send(vec![1; 16 << 10]).unwrap();
    socket.try_send("after").unwrap();
    tokio::spawn(session);
    let mut peer = Peer::client(near);
    assert_eq!(peer.message().await, Some(Message::text("before")));
    assert_eq!(
        peer.message().await,
        Some(Message::binary(vec![1; 16 << 10]))
    );
    assert_eq!(peer.message().await, Some(Message::text("after")));
    let record = tape.get();
    assert_eq!(record.vectored_writes, [8 + 4 + (16 << 10) + 7]);
    assert_eq!(record.slices, [3]);
    assert!(record.writes.is_empty());
}

#[tokio::test]
async fn a_stream_without_vectored_writes_gets_one_coalesced_write() {
    let (near, far) = duplex(1 << 20);
    let (io, tape) = Recorder::new(far);
    let (session, socket) = Session::new(io.without_vectored_writes(), server());
    socket.try_send("before").unwrap();
    socket.try_send(vec![1; 16 << 10]).unwrap();
    socket.try_send("after").unwrap();
    tokio::spawn(session);
    let mut peer = Peer::client(near);
    for _ in 0..3 {
        assert!(peer.message().await.is_some());
    }
    let record = tape.get();
    assert_eq!(record.writes, [8 + 4 + (16 << 10) + 7]);
    assert!(record.vectored_writes.is_empty());
}

// A stream that holds back what is not flushed.

#[tokio::test]
async fn the_close_is_flushed_before_the_stream_is_let_go() {
    let (near, far) = duplex(16);
    tokio::spawn(Session::with_handler(Buffered::new(far), server(), echo));
    let mut peer = Peer::client(near);
    let text = "x".repeat(100);
    peer.send(text.clone()).await.unwrap();
    peer.close(CloseFrame::from(CloseCode::NORMAL))
        .await
        .unwrap();
    assert_eq!(peer.message().await, Some(Message::text(text)));
    assert_eq!(
        peer.connection.close_received(),
        Some(&CloseFrame::from(CloseCode::NORMAL).into())
    );
}

// Wakers.

/// A waker that uses the socket whenever it is woken, cloned or dropped.
struct Nosy {
    sender: Mutex<Option<Sender>>,
    calls: AtomicUsize,
}

impl Nosy {
    fn look(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let sender = self.sender.lock().expect("nobody panics under it").clone();
        if let Some(sender) = sender {
            sender.is_open();
            sender.try_closed();
            let _ = sender.try_send("");
        }
    }
}

/// Every clone is an object of its own, so that dropping it can be seen.
struct NosyWaker(Arc<Nosy>);

impl Wake for NosyWaker {
    fn wake(self: Arc<Self>) {
        self.0.look();
    }
}

impl Drop for NosyWaker {
    fn drop(&mut self) {
        self.0.look();
    }
}

#[test]
fn no_lock_is_held_while_a_waker_is_woken_or_dropped() {
    // A deadlock would hang the test: another thread watches.
    let (done, watch) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (near, far) = duplex(1 << 20);
            let config = quiet().outgoing_high_water(1);
            let connection = Connection::new(Role::Server, config);
            let (session, mut socket) = Session::new(far, connection);
            let mut session = Box::pin(session);
            let nosy = Arc::new(Nosy {
                sender: Mutex::new(Some(socket.sender())),
                calls: AtomicUsize::new(0),
            });
            let waker = || Waker::from(Arc::new(NosyWaker(Arc::clone(&nosy))));
            let sender = socket.sender();
            let mut peer = Peer::client(near);
            for _ in 0..3 {
                let mut futures: Vec<future::Fuse<future::BoxFuture<'_, ()>>> = vec![
                    socket.recv().map(drop).boxed().fuse(),
                    sender.send("x").map(drop).boxed().fuse(),
                    sender.send("y").map(drop).boxed().fuse(),
                    sender.ping().map(drop).boxed().fuse(),
                    sender.closed().map(drop).boxed().fuse(),
                ];
                for _ in 0..3 {
                    for future in &mut futures {
                        // Each poll with a new waker: the old one is dropped.
                        let waker = waker();
                        let _ = future.poll_unpin(&mut Context::from_waker(&waker));
                    }
                    let waker = waker();
                    let _ = session.poll_unpin(&mut Context::from_waker(&waker));
                    let _ = peer.event().now_or_never();
                    let _ = peer.send("z").now_or_never();
                }
            }
            drop(session);
            assert!(nosy.calls.load(Ordering::Relaxed) > 50);
            *nosy.sender.lock().unwrap() = None;
        });
        done.send(()).unwrap();
    });
    watch.recv_timeout(PATIENCE).expect("a deadlock");
}

// Fairness.

#[tokio::test]
async fn a_good_client_is_answered_beside_50_flooding_ones_on_one_thread() {
    let mut flooders = Vec::new();
    for _ in 0..50 {
        let (near, far) = duplex(256 << 10);
        flooders.push(tokio::spawn(Session::with_handler(
            far,
            server(),
            async |mut socket| {
                socket.discard_incoming();
                socket.closed().await;
                Ok(())
            },
        )));
        flooders.push(tokio::spawn(async move {
            let (_reader, mut writer) = tokio::io::split(near);
            let block = masked(0x82, &[0; 20]).repeat(5000);
            while writer.write_all(&block).await.is_ok() {}
            future::pending().await
        }));
    }
    let (mut peer, _session) = spawn(echo);
    for n in 0..3 {
        let answer = async {
            peer.send(format!("{n}")).await.unwrap();
            peer.message().await
        };
        let answer = timeout(PATIENCE, answer).await.expect("starved");
        assert_eq!(answer, Some(Message::text(format!("{n}"))));
    }
    for flooder in flooders {
        flooder.abort();
    }
}

#[tokio::test]
async fn a_handler_that_never_waits_lets_others_run() {
    let (_peer, session) = spawn(async |_socket| {
        // Always woken again at once.
        future::poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::<Result<(), BoxError>>::Pending
        })
        .await
    });
    settle().await;
    session.abort();
}

#[tokio::test]
async fn receiving_in_a_task_of_its_own_takes_part_in_tokios_cooperation() {
    let (mut peer, mut socket, _session) = spawn_bare(quiet());
    for _ in 0..500 {
        peer.send("").await.unwrap();
    }
    settle().await;
    let (done, polled) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let receive = tokio::spawn({
        let done = Arc::clone(&done);
        async move {
            for _ in 0..500 {
                socket.recv().await.unwrap().unwrap();
            }
            done.store(1, Ordering::Relaxed);
        }
    });
    let others = tokio::spawn({
        let (done, polled) = (Arc::clone(&done), Arc::clone(&polled));
        async move {
            while done.load(Ordering::Relaxed) == 0 {
                polled.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }
    });
    receive.await.unwrap();
    others.await.unwrap();
    assert!(polled.load(Ordering::Relaxed) >= 3);
}

// An idle session.

#[tokio::test(start_paused = true)]
async fn an_idle_session_asks_nothing_of_its_stream() {
    let (_near, far) = duplex(1024);
    let (io, tape) = Recorder::new(far);
    let (session, _socket) = Session::new(io, server());
    tokio::spawn(session);
    settle().await;
    let before = tape.get();
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(tape.get(), before);
    assert_eq!(before.pending, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_sends_from_another_thread_do_not_make_the_session_spin() {
    let (near, far) = duplex(1 << 20);
    let (io, tape) = Recorder::new(far);
    let (session, socket) = Session::new(io, server());
    tokio::spawn(session);
    let mut peer = Peer::client(near);
    for n in 0..2000_u32 {
        socket.send(n.to_be_bytes().to_vec()).await.unwrap();
        if n % 8 == 0 {
            tokio::task::yield_now().await;
        }
    }
    for n in 0..2000_u32 {
        let message = timeout(PATIENCE, peer.message())
            .await
            .expect("a lost wake-up");
        assert_eq!(message.unwrap().as_bytes(), n.to_be_bytes());
    }
    assert!(tape.get().writes.len() <= 2000);
}

// Ends.

#[tokio::test]
async fn a_panic_closes_only_its_own_socket_with_1011() {
    let (mut other, _other) = spawn(echo);
    let (mut peer, session) = spawn(async |mut socket| {
        socket.recv().await;
        panic!("oh dear");
    });
    peer.send("go").await.unwrap();
    let Some(Event::Close(Some(frame))) = peer.event().await else {
        panic!("no close");
    };
    assert_eq!(frame, CloseCode::INTERNAL_ERROR.into());
    peer.flush().await.unwrap();
    let closed = session.await.expect("the session's task does not panic");
    assert!(closed.is_clean());
    other.send("alive").await.unwrap();
    assert_eq!(other.message().await, Some(Message::text("alive")));
}

#[tokio::test]
async fn a_panic_in_the_drop_of_a_handler_closes_only_its_own_socket() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in drop");
        }
    }
    // When it returns, when it is dropped by its session, and beside a panic of its own.
    let (mut peer, session) = spawn(|socket| {
        let bomb = Bomb;
        future::poll_fn(move |_| {
            let _ = (&bomb, &socket);
            Poll::Ready(Ok(()))
        })
    });
    assert!(matches!(peer.event().await, Some(Event::Close(_))));
    peer.flush().await.unwrap();
    assert!(session.await.expect("no panic in the session").is_clean());

    let (_peer, session) = spawn(|socket| {
        let bomb = Bomb;
        future::poll_fn(move |_| {
            let _ = (&bomb, &socket);
            Poll::<Result<(), BoxError>>::Pending
        })
    });
    settle().await;
    session.abort();
    assert!(session.await.unwrap_err().is_cancelled());
}

#[tokio::test]
async fn an_error_closes_with_1011_and_its_text_does_not_travel() {
    let (mut peer, session) = spawn(async |socket| {
        socket.send("queued").await?;
        Err("the password is swordfish".into())
    });
    assert_eq!(
        peer.event().await,
        Some(Event::Message(Message::text("queued")))
    );
    assert_eq!(
        peer.event().await,
        Some(Event::Close(Some(CloseCode::INTERNAL_ERROR.into())))
    );
    peer.flush().await.unwrap();
    assert!(session.await.unwrap().is_clean());
}

#[tokio::test(start_paused = true)]
async fn after_a_protocol_error_the_close_follows_what_was_queued_and_data_is_thrown_away() {
    let (mut near, far) = duplex(1 << 20);
    let (io, tape) = Recorder::new(far);
    let (session, mut socket) = Session::new(io, server());
    socket.try_send("queued").unwrap();
    let session = tokio::spawn(session);
    let start = tokio::time::Instant::now();
    // A reserved opcode, and data behind it.
    near.write_all(&masked(0x83, b"")).await.unwrap();
    let mut reply = [0; 12];
    near.read_exact(&mut reply).await.unwrap();
    assert_eq!(&reply[..8], b"\x81\x06queued");
    assert_eq!(reply[8], 0x88);
    assert_eq!(reply[10..], 1002_u16.to_be_bytes());
    let mut rest = Vec::new();
    near.read_to_end(&mut rest).await.unwrap();
    assert_eq!(tape.get().shutdowns, 1, "the write side is shut");
    assert!(matches!(
        socket.recv().await,
        Some(Err(Error::Connection(ConnectionError::Protocol(_))))
    ));
    assert!(socket.recv().await.is_none());
    // For a bounded time the peer may go on.
    for _ in 0..400 {
        sleep(Duration::from_millis(10)).await;
        near.write_all(&[0; 10_000]).await.unwrap();
    }
    assert!(!session.is_finished());
    let closed = session.await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 5);
    assert_eq!(code(closed.sent()), Some(1002));
    assert_eq!(closed.received(), None);
    assert!(!closed.is_clean());
    assert!(near.write_all(b"x").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_protocol_error_behind_a_message_is_answered_as_soon_as_a_receiver_elsewhere_sees_it() {
    for keepalive in [None, Some(Duration::from_secs(20))] {
        let config = Config::new().keepalive_interval(keepalive);
        let (mut peer, mut socket, _session) = spawn_bare(config);
        let bytes = [masked(0x81, b"fine"), masked(0x83, b"")].concat();
        peer.io.write_all(&bytes).await.unwrap();
        let start = tokio::time::Instant::now();
        let message = socket.recv().await.unwrap().unwrap();
        assert_eq!(message, Message::text("fine"));
        settle().await;
        assert!(matches!(socket.recv().await, Some(Err(_))));
        assert!(matches!(peer.event().await, Some(Event::Close(_))));
        assert_eq!(code(peer.connection.close_received()), Some(1002));
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_protocol_error_that_nobody_receives_is_answered_within_the_close_timeout() {
    let (mut peer, socket, session) = spawn_bare(quiet());
    let bytes = [masked(0x81, b"fine"), masked(0x83, b"")].concat();
    peer.io.write_all(&bytes).await.unwrap();
    let start = tokio::time::Instant::now();
    while !matches!(peer.event().await, Some(Event::Close(_))) {}
    assert_eq!(code(peer.connection.close_received()), Some(1002));
    assert!(start.elapsed() <= Duration::from_secs(5));
    drop(peer);
    session.await.unwrap();
    drop(socket);
}

#[tokio::test]
async fn after_a_protocol_error_a_peer_that_leaves_ends_the_session_at_once() {
    let (mut near, far) = duplex(1024);
    let (session, socket) = Session::new(far, server());
    let session = tokio::spawn(session);
    near.write_all(b"\x81\x00").await.unwrap();
    near.shutdown().await.unwrap();
    let closed = timeout(PATIENCE, session).await.unwrap().unwrap();
    assert_eq!(code(closed.sent()), Some(1002));
    assert_eq!(code(socket.closed().await.sent()), Some(1002));
}

// Streams and sinks.

#[tokio::test]
async fn a_socket_forwards_its_stream_into_its_sink() {
    let (mut client, server) = pair(quiet());
    let echo = tokio::spawn(async move {
        let (sink, stream) = server.split();
        stream.forward(sink).await
    });
    for n in 0..100 {
        client.send(format!("{n}")).await.unwrap();
    }
    for n in 0..100 {
        assert_eq!(
            client.recv().await.unwrap().unwrap(),
            Message::text(format!("{n}"))
        );
    }
    let closed = client.close(CloseFrame::from(CloseCode::NORMAL)).await;
    assert!(closed.is_clean());
    echo.await.unwrap().unwrap();
}

#[tokio::test]
async fn futures_split_and_send_all_work_on_a_whole_socket() {
    let (client, server) = pair(quiet());
    let (mut sink, mut stream) = StreamExt::split(client);
    let (mut server_sink, server_stream) = StreamExt::split(server);
    let echo = tokio::spawn(async move {
        let mut messages = server_stream.into_stream();
        while let Some(message) = messages.try_next().await.unwrap() {
            server_sink.send(message).await.unwrap();
        }
    });
    let mut messages =
        futures_util::stream::iter((0..50).map(|n| Ok(Message::text(format!("{n}")))));
    sink.send_all(&mut messages).await.unwrap();
    for n in 0..50 {
        assert_eq!(
            stream.next().await.unwrap().unwrap(),
            Message::text(format!("{n}"))
        );
    }
    SinkExt::close(&mut sink).await.unwrap();
    assert!(stream.next().await.is_none());
    echo.await.unwrap();
}

#[tokio::test]
async fn a_sink_that_is_told_of_room_takes_one_message_even_if_overtaken() {
    let (mut client, server) = pair(quiet().outgoing_high_water(10));
    let mut sink = server.sender();
    future::poll_fn(|cx| sink.poll_ready_unpin(cx))
        .await
        .unwrap();
    server.try_send("quicker").unwrap();
    sink.start_send_unpin(Message::text("promised")).unwrap();
    assert_eq!(
        client.recv().await.unwrap().unwrap(),
        Message::text("quicker")
    );
    assert_eq!(
        client.recv().await.unwrap().unwrap(),
        Message::text("promised")
    );
}

// Pings.

#[tokio::test(start_paused = true)]
async fn a_ping_resolves_with_the_round_trip_and_many_at_once_share_one_frame() {
    let (mut peer, socket, _session) = spawn_bare(quiet());
    let pings = tokio::spawn(async move { future::join_all((0..10).map(|_| socket.ping())).await });
    assert!(matches!(peer.event().await, Some(Event::Ping(_))));
    sleep(Duration::from_millis(120)).await;
    peer.flush().await.unwrap();
    for ping in pings.await.unwrap() {
        assert_eq!(ping.unwrap().as_millis(), 120);
    }
}

#[tokio::test]
async fn a_ping_on_a_socket_that_ends_says_why() {
    let (peer, socket, session) = spawn_bare(quiet());
    let mut ping = Box::pin(socket.ping());
    assert!(poll!(&mut ping).is_pending());
    drop(peer);
    assert!(matches!(
        timeout(PATIENCE, ping).await.unwrap(),
        Err(Error::Connection(ConnectionError::UnexpectedEof) | Error::Io(_))
    ));
    session.await.unwrap();
    assert!(socket.ping().await.is_err());
}

// Sizes.

#[test]
fn a_session_and_its_handles_stay_within_their_bytes() {
    fn size_of_session<H, C: FnOnce(WebSocket) -> H>(_: &C) -> usize {
        size_of::<Session<(), H>>()
    }
    assert!(size_of::<Session<(), NoHandler>>() <= 400);
    assert!(size_of::<WebSocket>() <= 56);
    let session = size_of_session(&echo);
    println!("session of an echo handler: {session}");
    assert!(session <= 900, "{session}");
}

#[test]
fn handles_can_be_sent_and_shared() {
    fn check<T: Send + Sync + Unpin + 'static>() {}
    check::<WebSocket>();
    check::<Sender>();
    check::<ws_tower::Receiver>();
    check::<Closed>();
}
