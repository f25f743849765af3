//! Time: keepalive without false alarms, stalled writes, and the end that is not answered. The
//! clock is paused, so hours pass in milliseconds.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use futures_util::{FutureExt, future};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use ws_core::{Close, Connection, ConnectionError, Event, Role};
use ws_tests::{
    io::{Buffered, Valve, Valved},
    peer::{Peer, masked},
};
use ws_tower::{
    BoxError, CloseCode, CloseFrame, Closed, Config, Error, Message, Session, WebSocket,
};

const SECOND: Duration = Duration::from_secs(1);

fn server(config: Config) -> Connection {
    Connection::new(Role::Server, config)
}

/// A server session, and the raw bytes of its peer.
fn spawn(config: Config) -> (DuplexStream, WebSocket, JoinHandle<Closed>) {
    let (near, far) = duplex(1024);
    let (session, socket) = Session::new(far, server(config));
    (near, socket, tokio::spawn(session))
}

/// A server session behind a valve.
fn spawn_valved(config: Config) -> (DuplexStream, Valve, WebSocket, JoinHandle<Closed>) {
    let (near, far) = duplex(1 << 20);
    let (io, valve) = Valved::new(far);
    let (session, socket) = Session::new(io, server(config));
    (near, valve, socket, tokio::spawn(session))
}

fn code(close: Option<&Close>) -> Option<u16> {
    close.and_then(Close::code).map(CloseCode::as_u16)
}

fn connection_error(closed: &Closed) -> Option<ConnectionError> {
    match closed.cause() {
        Some(Error::Connection(error)) => Some(*error),
        _ => None,
    }
}

/// Waits for a keepalive ping on the wire, and returns its payload.
async fn keepalive_ping(io: &mut DuplexStream) -> [u8; 4] {
    let mut ping = [0; 6];
    io.read_exact(&mut ping).await.unwrap();
    assert_eq!(ping[..2], [0x89, 4]);
    ping[2..].try_into().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_ping_leaves_after_20_s_of_silence_and_at_most_a_quarter_later() {
    for millis in (0..30_000).step_by(1_130) {
        let (mut near, _socket, session) = spawn(Config::new());
        // A peer that talks for a while, often enough.
        let until = Instant::now() + Duration::from_millis(millis);
        let mut last = Instant::now();
        while let Some(left) = until.checked_duration_since(Instant::now())
            && !left.is_zero()
        {
            sleep(left.min(3 * SECOND)).await;
            near.write_all(&masked(0x82, b"")).await.unwrap();
            last = Instant::now();
        }
        keepalive_ping(&mut near).await;
        let silence = last.elapsed();
        assert!(
            (20 * SECOND..=25 * SECOND + SECOND / 100).contains(&silence),
            "{millis} {silence:?}"
        );
        session.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_pings_is_kept_for_a_day() {
    let (mut near, _socket, session) = spawn(Config::new());
    let start = Instant::now();
    let mut pings = 0;
    while start.elapsed() < Duration::from_secs(24 * 3600) {
        let payload = keepalive_ping(&mut near).await;
        pings += 1;
        near.write_all(&masked(0x8a, &payload)).await.unwrap();
    }
    assert!(
        (24 * 3600 / 25..=24 * 3600 / 20).contains(&pings),
        "{pings}"
    );
    assert!(!session.is_finished());
}

#[tokio::test(start_paused = true)]
async fn the_round_trip_of_every_ping_is_known_keepalives_as_well() {
    let (mut near, socket, session) = spawn(Config::new());
    let millis = |socket: &WebSocket| socket.latency().map(|it| it.as_millis());
    assert_eq!(socket.latency(), None);
    for took in [70, 30] {
        let payload = keepalive_ping(&mut near).await;
        sleep(Duration::from_millis(took)).await;
        near.write_all(&masked(0x8a, &payload)).await.unwrap();
        sleep(Duration::from_millis(1)).await;
        assert_eq!(millis(&socket), Some(took.into()));
    }
    // Messages take no time from it, and bring none.
    near.write_all(&masked(0x82, b"x")).await.unwrap();
    sleep(SECOND).await;
    assert_eq!(millis(&socket), Some(30));
    // One's own is known at once.
    let answer = async {
        let payload = keepalive_ping(&mut near).await;
        sleep(Duration::from_millis(9)).await;
        near.write_all(&masked(0x8a, &payload)).await.unwrap();
    };
    let (ping, ()) = tokio::join!(socket.ping(), answer);
    assert_eq!(ping.unwrap().as_millis(), 9);
    assert_eq!(millis(&socket), Some(9));
    assert_eq!(socket.sender().latency(), socket.latency());
    session.abort();
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_given_up_20_s_after_the_ping_with_1011_tried() {
    let (mut near, mut socket, session) = spawn(Config::new());
    let start = Instant::now();
    keepalive_ping(&mut near).await;
    assert_eq!(start.elapsed().as_secs(), 20);
    let closed = session.await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 40);
    assert_eq!(code(closed.sent()), Some(1011));
    assert_eq!(
        connection_error(&closed),
        Some(ConnectionError::KeepaliveTimeout)
    );
    assert!(matches!(
        socket.recv().await,
        Some(Err(Error::Connection(ConnectionError::KeepaliveTimeout)))
    ));
    assert!(socket.recv().await.is_none());
    let mut rest = Vec::new();
    near.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest[2..4], 1011_u16.to_be_bytes());
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_that_takes_no_bytes_is_cut_at_the_deadline_too() {
    let (mut near, valve, socket, session) = spawn_valved(Config::new());
    let start = Instant::now();
    valve.allow(6);
    keepalive_ping(&mut near).await;
    let closed = session.await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 40);
    assert_eq!(
        connection_error(&closed),
        Some(ConnectionError::KeepaliveTimeout)
    );
    assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
    assert!(socket.send("late").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn without_keepalive_nobody_is_asked() {
    let (mut near, _socket, session) = spawn(Config::new().keepalive_interval(None));
    assert!(timeout(3600 * SECOND, near.read(&mut [0])).await.is_err());
    assert!(!session.is_finished());
}

#[tokio::test(start_paused = true)]
async fn the_times_are_those_of_the_configuration() {
    let config = Config::new()
        .keepalive_interval(4 * SECOND)
        .keepalive_timeout(3 * SECOND);
    let (mut near, _socket, session) = spawn(config);
    let start = Instant::now();
    keepalive_ping(&mut near).await;
    assert_eq!(start.elapsed().as_secs(), 4);
    session.await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 7);
}

#[tokio::test(start_paused = true)]
async fn any_byte_is_life_even_without_a_pong() {
    let (mut near, _socket, session) = spawn(Config::new());
    // One byte of one frame, each time just before the deadline.
    let message = [0x7d; 100];
    for byte in masked(0x82, &message) {
        keepalive_ping(&mut near).await;
        sleep(19 * SECOND).await;
        near.write_all(&[byte]).await.unwrap();
    }
    assert!(!session.is_finished());
    keepalive_ping(&mut near).await;
    session.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_inbox_that_is_full_for_minutes_is_no_silence_of_the_peer() {
    for minutes in [1, 7, 60] {
        let (near, mut socket, session) = spawn(Config::new().inbox_high_water(1000));
        let mut peer = Peer::client(near);
        let sent = tokio::spawn(async move {
            for n in 0..200_u32 {
                peer.send(n.to_be_bytes().repeat(25)).await.unwrap();
            }
            // From now on it answers as any client does.
            peer.event().await
        });
        sleep(minutes * 60 * SECOND).await;
        assert!(!session.is_finished(), "{minutes} minutes");
        assert!(!sent.is_finished(), "the peer feels it");
        for n in 0..200_u32 {
            let message = socket.recv().await.unwrap().unwrap();
            assert_eq!(message.as_bytes()[..4], n.to_be_bytes());
        }
        sleep(minutes * 60 * SECOND).await;
        assert!(!sent.is_finished() || sent.await.unwrap().is_some());
        assert!(socket.sender().is_open() || session.is_finished());
    }
}

#[tokio::test(start_paused = true)]
async fn the_peer_has_the_whole_deadline_after_a_full_inbox_has_been_emptied() {
    let (near, mut socket, session) = spawn(Config::new().inbox_high_water(64));
    let mut near = near;
    // Exactly full, with nothing kept behind it.
    near.write_all(&masked(0x82, b"")).await.unwrap();
    sleep(300 * SECOND).await;
    let start = Instant::now();
    assert!(socket.recv().await.is_some());
    keepalive_ping(&mut near).await;
    assert!(start.elapsed() >= 15 * SECOND, "{:?}", start.elapsed());
    let asked = Instant::now();
    session.await.unwrap();
    assert_eq!(asked.elapsed().as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn an_upload_of_one_message_slower_than_the_deadline_goes_through() {
    let (near, mut socket, session) = spawn(Config::new());
    let (mut reader, mut writer) = tokio::io::split(near);
    // The peer cannot put a pong into the frame it is sending, and it reads all the while.
    let read = tokio::spawn(async move {
        let mut bytes = Vec::new();
        let _ = reader.read_to_end(&mut bytes).await;
        bytes
    });
    let len = 200_000;
    let upload = async {
        let header = [&b"\x82\xff"[..], &u64::to_be_bytes(len), &[0; 4]].concat();
        writer.write_all(&header).await.unwrap();
        for _ in 0..20 {
            sleep(38 * SECOND).await;
            writer.write_all(&[9; 10_000]).await.unwrap();
        }
        writer.write_all(&masked(0x88, b"\x03\xe8")).await.unwrap();
    };
    let (received, ()) = future::join(socket.recv(), upload).await;
    assert!(received.unwrap().unwrap() == Message::binary(vec![9; 200_000]));
    assert!(session.await.unwrap().is_clean());
    assert!(read.await.unwrap().ends_with(b"\x88\x02\x03\xe8"));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_slowly_is_not_blamed_for_a_ping_that_is_stuck() {
    let (mut near, valve, socket, session) = spawn_valved(Config::new());
    let len = 100_000;
    socket.send(vec![7; len]).await.unwrap();
    // Ten minutes for one message; the ping waits behind it.
    let mut left = 10 + len + 6;
    while left > 0 {
        sleep(6 * SECOND).await;
        let step = left.min(1000);
        valve.allow(step);
        left -= step;
    }
    let mut bytes = vec![0; 10 + len];
    near.read_exact(&mut bytes).await.unwrap();
    let asked = Instant::now();
    let payload = keepalive_ping(&mut near).await;
    sleep(19 * SECOND).await;
    assert!(!session.is_finished());
    near.write_all(&masked(0x8a, &payload)).await.unwrap();
    sleep(19 * SECOND).await;
    assert!(!session.is_finished(), "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_deadline_starts_anew_while_the_peer_takes_bytes() {
    let (mut near, valve, socket, session) = spawn_valved(Config::new());
    valve.allow(6);
    keepalive_ping(&mut near).await;
    socket.send(vec![7; 10_000]).await.unwrap();
    for _ in 0..60 {
        sleep(19 * SECOND).await;
        assert!(!session.is_finished());
        valve.allow(10);
    }
    let stopped = Instant::now();
    session.await.unwrap();
    assert_eq!(stopped.elapsed().as_secs(), 20);
}

// Stalled writes.

#[tokio::test(start_paused = true)]
async fn a_write_without_progress_ends_the_socket_after_30_s() {
    let config = Config::new().keepalive_interval(None);
    let (_near, _valve, mut socket, session) = spawn_valved(config);
    sleep(100 * SECOND).await;
    socket.send("stuck").await.unwrap();
    let start = Instant::now();
    let closed = session.await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 30);
    assert_eq!(
        connection_error(&closed),
        Some(ConnectionError::WriteTimeout)
    );
    assert!(matches!(
        socket.recv().await,
        Some(Err(Error::Connection(ConnectionError::WriteTimeout)))
    ));
}

#[tokio::test(start_paused = true)]
async fn waiting_senders_learn_of_a_stalled_write() {
    let config = Config::new()
        .keepalive_interval(None)
        .outgoing_high_water(1);
    let (_near, _valve, socket, _session) = spawn_valved(config);
    socket.send("stuck").await.unwrap();
    let results = future::join3(socket.send("1"), socket.send("2"), socket.ping());
    let (one, two, ping) = timeout(31 * SECOND, results).await.expect("stranded");
    for result in [one, two, ping.map(drop)] {
        assert!(matches!(
            result,
            Err(Error::Connection(ConnectionError::WriteTimeout))
        ));
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_makes_progress_is_not_stalled() {
    let config = Config::new().keepalive_interval(None);
    let (_near, valve, socket, session) = spawn_valved(config);
    socket.send(vec![0; 100]).await.unwrap();
    for _ in 0..50 {
        sleep(29 * SECOND).await;
        valve.allow(1);
        assert!(!session.is_finished());
    }
}

#[tokio::test(start_paused = true)]
async fn a_flush_that_hangs_is_a_stalled_write_and_one_that_creeps_is_not() {
    let (mut near, far) = duplex(16);
    let config = Config::new().keepalive_interval(None);
    let (session, socket) = Session::new(Buffered::new(far), server(config));
    let session = tokio::spawn(session);
    socket.send("x".repeat(100)).await.unwrap();
    let start = Instant::now();
    sleep(20 * SECOND).await;
    assert!(!session.is_finished());
    let closed = session.await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 30);
    assert_eq!(
        connection_error(&closed),
        Some(ConnectionError::WriteTimeout)
    );
    let mut rest = Vec::new();
    near.read_to_end(&mut rest).await.unwrap();
}

// Closing.

#[tokio::test(start_paused = true)]
async fn an_unanswered_close_is_waited_for_5_s() {
    let (mut near, mut socket, session) = spawn(Config::new());
    sleep(3 * SECOND).await;
    let start = Instant::now();
    let closed = socket.close(CloseFrame::from(CloseCode::NORMAL)).await;
    assert_eq!(start.elapsed().as_secs(), 5);
    assert_eq!(code(closed.sent()), Some(1000));
    assert_eq!(closed.received(), None);
    assert_eq!(
        connection_error(&closed),
        Some(ConnectionError::CloseTimeout)
    );
    assert!(matches!(
        socket.recv().await,
        Some(Err(Error::Connection(ConnectionError::CloseTimeout)))
    ));
    session.await.unwrap();
    let mut rest = Vec::new();
    near.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"\x88\x02\x03\xe8");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_goes_on_sending_after_our_close_gains_no_time() {
    let (mut near, socket, session) = spawn(Config::new());
    let flood = tokio::spawn(async move {
        while near.write_all(&masked(0x82, &[1; 100])).await.is_ok() {
            sleep(SECOND / 10).await;
        }
    });
    let start = Instant::now();
    let closed = socket.close(None).await;
    assert_eq!(start.elapsed().as_secs(), 5);
    assert_eq!(closed.sent(), Some(&Close::NoStatus));
    session.await.unwrap();
    flood.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_close_behind_a_stalled_write_ends_after_30_s() {
    let (_near, _valve, socket, session) = spawn_valved(Config::new());
    socket.send("stuck").await.unwrap();
    let start = Instant::now();
    socket.close(CloseFrame::from(CloseCode::NORMAL)).await;
    assert_eq!(start.elapsed().as_secs(), 30);
    session.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_waits_5_s_for_the_server_to_end_the_stream_and_is_clean_all_the_same() {
    let (near, far) = duplex(1024);
    let (session, socket) = Session::new(far, Connection::new(Role::Client, Config::new()));
    tokio::spawn(session);
    let mut peer = Peer::server(near);
    let start = Instant::now();
    let close = socket.close(CloseFrame::from(CloseCode::NORMAL));
    let answer = async {
        assert!(matches!(peer.event().await, Some(Event::Close(_))));
        peer.flush().await.unwrap();
    };
    let (closed, ()) = future::join(close, answer).await;
    assert_eq!(start.elapsed().as_secs(), 5);
    assert!(closed.is_clean(), "{closed}");
}

#[tokio::test(start_paused = true)]
async fn a_handler_asleep_hears_of_a_dead_peer_through_closed() {
    let (mut near, far) = duplex(1024);
    let session = Session::with_handler(far, server(Config::new()), async |socket| {
        let sender = socket.sender();
        let work = sleep(3600 * SECOND);
        tokio::select! {
            () = work => Err(BoxError::from("never told")),
            _ = sender.closed() => Ok(()),
        }
    });
    let session = tokio::spawn(session);
    keepalive_ping(&mut near).await;
    let closed = timeout(60 * SECOND, session).await.unwrap().unwrap();
    assert_eq!(
        connection_error(&closed),
        Some(ConnectionError::KeepaliveTimeout)
    );
}

// The session in another task.

#[tokio::test(start_paused = true)]
async fn a_session_that_moves_to_another_task_takes_its_timer_and_its_stream_along() {
    let (mut near, far) = duplex(1024);
    let (session, mut socket) = Session::new(far, server(Config::new()));
    let mut session = Box::pin(session);
    assert!(session.as_mut().now_or_never().is_none());
    sleep(3 * SECOND).await;
    let session = tokio::spawn(session);
    near.write_all(&masked(0x81, b"hi")).await.unwrap();
    let message = timeout(SECOND, socket.recv()).await.unwrap();
    assert_eq!(message.unwrap().unwrap(), Message::text("hi"));
    keepalive_ping(&mut near).await;
    let asked = Instant::now();
    timeout(30 * SECOND, session).await.unwrap().unwrap();
    assert_eq!(asked.elapsed().as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_ping_of_the_application_counts_the_time_in_queues_and_outlives_keepalive() {
    let (mut near, valve, socket, session) = spawn_valved(Config::new());
    let ping = tokio::spawn(async move { socket.ping().await });
    sleep(2 * SECOND).await;
    valve.open();
    let payload = keepalive_ping(&mut near).await;
    sleep(3 * SECOND).await;
    // An unsolicited pong, and one that was never asked for, answer nothing.
    near.write_all(&masked(0x8a, b"")).await.unwrap();
    near.write_all(&masked(0x8a, &99_u32.to_be_bytes()))
        .await
        .unwrap();
    sleep(SECOND).await;
    assert!(!ping.is_finished());
    near.write_all(&masked(0x8a, &payload)).await.unwrap();
    assert_eq!(ping.await.unwrap().unwrap().as_secs(), 6);
    drop(near);
    session.await.unwrap();
}
