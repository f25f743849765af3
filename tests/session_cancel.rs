//! Cancellation: every future of a handle is polled any number of times and dropped, and nothing
//! is lost, sent twice or stranded.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures_util::{FutureExt, SinkExt, StreamExt, future::BoxFuture};
use tokio::{
    io::{DuplexStream, duplex},
    time::timeout,
};
use ws_core::{Connection, Event, Role};
use ws_tests::{
    io::{Fault, Faulty, Valve, Valved},
    peer::Peer,
};
use ws_tower::{
    CloseCode, CloseFrame, Config, Message, PreparedMessage, Sender, Session, WebSocket, pair,
};

/// A waker that does nothing but to be counted.
struct Counted;

impl Wake for Counted {
    fn wake(self: Arc<Self>) {}
}

/// A session turned by hand, behind a valve, with an outgoing queue that one message fills.
struct World {
    session: Pin<Box<Session<Valved<DuplexStream>>>>,
    valve: Valve,
    peer: Peer<DuplexStream>,
    /// What the peer has seen.
    seen: Vec<Event>,
}

impl World {
    fn new() -> (Self, WebSocket) {
        let (near, far) = duplex(1 << 20);
        let (io, valve) = Valved::new(far);
        let config = Config::new()
            .keepalive_interval(None)
            .outgoing_high_water(1);
        let (session, socket) = Session::new(io, Connection::new(Role::Server, config));
        let world = Self {
            session: Box::pin(session),
            valve,
            peer: Peer::client(near),
            seen: Vec::new(),
        };
        (world, socket)
    }

    /// Polls the session once, and lets the peer read and answer.
    async fn turn(&mut self) {
        let _ = self.session.as_mut().now_or_never();
        while let Some(Some(event)) = self.peer.event().now_or_never() {
            self.seen.push(event);
        }
        let _ = self.peer.flush().now_or_never();
        // A fresh cooperative budget for the next turn.
        tokio::task::yield_now().await;
    }

    /// Opens the valve, and turns until all is quiet.
    async fn drain(&mut self) {
        self.valve.open();
        for _ in 0..20 {
            self.turn().await;
        }
    }

    fn count(&self, message: &str) -> usize {
        let wanted = Event::Message(Message::text(message));
        self.seen.iter().filter(|event| **event == wanted).count()
    }
}

/// Each future of a sender that waits in a full queue.
fn futures(sender: &mut Sender, which: usize) -> BoxFuture<'_, bool> {
    match which {
        0 => async { Sender::send(sender, "cancelled").await.is_ok() }.boxed(),
        1 => async {
            let message = PreparedMessage::new(Message::text("cancelled"));
            sender.send_prepared(&message).await.is_ok()
        }
        .boxed(),
        2 => async { sender.feed(Message::text("cancelled")).await.is_ok() }.boxed(),
        3 => async { sender.ping().await.is_ok() }.boxed(),
        _ => async {
            sender.closed().await;
            true
        }
        .boxed(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_future_dropped_after_any_number_of_polls_sends_all_or_nothing_and_strands_nobody() {
    for which in 0..5 {
        for polls in 0..6 {
            for opened_at in 0..6 {
                let case = format!("future {which}, {polls} polls, open at {opened_at}");
                let (mut world, socket) = World::new();
                world.turn().await;
                socket.try_send("fill").unwrap();
                let counted = Arc::new(Counted);
                let waker = Waker::from(Arc::clone(&counted));
                let mut cx = Context::from_waker(&waker);
                // Somebody else waits too, behind this one.
                let other = socket.sender();
                let mut sender = socket.sender();
                let mut is_done = false;
                let mut future = futures(&mut sender, which);
                let mut behind = other.send("behind").boxed();
                let mut behind_is_done = false;
                for poll in 0..polls {
                    if let Poll::Ready(ok) = future.poll_unpin(&mut cx) {
                        assert!(ok, "{case}");
                        is_done = true;
                        break;
                    }
                    if poll == opened_at {
                        // Room for one message.
                        world.valve.allow(6);
                    }
                    if !behind_is_done {
                        let poll = behind.as_mut().now_or_never();
                        behind_is_done = poll.is_some();
                    }
                    world.turn().await;
                }
                drop(future);
                drop(sender);
                drop(waker);
                assert_eq!(Arc::strong_count(&counted), 1, "a place is left: {case}");

                // A pong is not stranded, nor is whoever waits.
                world.peer.connection.ping(b"ping").unwrap();
                world.drain().await;
                if !behind_is_done {
                    let result = timeout(Duration::from_secs(1), async {
                        loop {
                            if let Some(result) = behind.as_mut().now_or_never() {
                                return result;
                            }
                            world.turn().await;
                        }
                    });
                    result.await.expect("stranded").unwrap();
                }
                world.drain().await;
                assert!(
                    world
                        .seen
                        .contains(&Event::Pong(b"ping"[..].to_vec().into())),
                    "{case}"
                );
                assert_eq!(world.count("fill"), 1, "{case}");
                assert_eq!(world.count("behind"), 1, "{case}");
                let sent = usize::from(is_done && which < 3);
                assert_eq!(world.count("cancelled"), sent, "{case}");
                socket.try_send("after").unwrap();
                world.drain().await;
                assert_eq!(world.count("after"), 1, "{case}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_ping_goes_out_and_the_next_one_is_answered() {
    for polls in 0..4 {
        let (mut world, socket) = World::new();
        world.valve.open();
        let mut ping = socket.ping().boxed();
        for _ in 0..polls {
            if ping.as_mut().now_or_never().is_some() {
                break;
            }
        }
        drop(ping);
        world.turn().await;
        let pings = |world: &World| {
            let is_ping = |event: &&Event| matches!(event, Event::Ping(_));
            world.seen.iter().filter(is_ping).count()
        };
        assert_eq!(pings(&world), polls.min(1));
        let mut ping = socket.ping().boxed();
        let mut is_answered = false;
        for _ in 0..5 {
            is_answered |= ping.as_mut().now_or_never().is_some_and(|rtt| rtt.is_ok());
            if is_answered {
                break;
            }
            world.turn().await;
        }
        assert!(is_answered);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_close_is_queued_once_it_was_polled() {
    for polls in 0..3 {
        let (mut world, socket) = World::new();
        world.valve.open();
        let mut close = socket
            .close(CloseFrame::from(CloseCode::GOING_AWAY))
            .boxed();
        for _ in 0..polls {
            let _ = close.as_mut().now_or_never();
        }
        drop(close);
        world.drain().await;
        let closes = world
            .seen
            .iter()
            .filter(|event| matches!(event, Event::Close(_)));
        assert_eq!(closes.count(), polls.min(1));
        assert_eq!(socket.sender().is_open(), polls == 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_sink_close_leaves_no_place_and_can_be_repeated() {
    let (mut world, socket) = World::new();
    world.valve.open();
    let counted = Arc::new(Counted);
    let mut sink = socket.sender();
    let waker = Waker::from(Arc::clone(&counted));
    for _ in 0..3 {
        let poll = sink.poll_close_unpin(&mut Context::from_waker(&waker));
        assert!(poll.is_pending());
    }
    drop(sink);
    drop(waker);
    assert_eq!(Arc::strong_count(&counted), 1);
    world.drain().await;
    let mut sink = socket.sender();
    assert!(SinkExt::close(&mut sink).now_or_never().unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_recv_cancelled_at_every_poll_loses_no_byte_of_a_dripping_stream() {
    for stream in [false, true] {
        for polls in 1..4 {
            let (near, far) = duplex(1 << 20);
            let io = Faulty::new(far, Fault::OneByteFromThenOn, 0);
            let connection = Connection::new(Role::Server, Config::default());
            let (session, mut socket) = Session::new(io, connection);
            tokio::spawn(session);
            let mut peer = Peer::client(near);
            let text = |n: usize| format!("{n}:{}", "x".repeat(n * 37));
            for n in 0..20 {
                peer.send(text(n)).await.unwrap();
            }
            peer.close(None).await.unwrap();
            let mut next = 0;
            'all: loop {
                let mut recv = if stream {
                    socket.next().boxed()
                } else {
                    socket.recv().boxed()
                };
                for _ in 0..polls {
                    match recv.as_mut().now_or_never() {
                        Some(Some(message)) => {
                            assert_eq!(message.unwrap(), Message::text(text(next)));
                            next += 1;
                            break;
                        }
                        Some(None) => break 'all,
                        None => {}
                    }
                }
                drop(recv);
                tokio::task::yield_now().await;
            }
            assert_eq!(next, 20);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn timeouts_around_everything_lose_nothing_that_was_said_to_be_sent() {
    let config = Config::new()
        .keepalive_interval(None)
        .outgoing_high_water(300)
        .inbox_high_water(300);
    let (mut client, server) = pair(config);
    let mut tasks = Vec::new();
    for task in 0..4_u32 {
        let sender = server.sender();
        tasks.push(tokio::spawn(async move {
            let mut sent = Vec::new();
            for n in 0..300_u32 {
                let message = format!("{task}:{n}");
                let wait = Duration::from_micros(u64::from(n % 5) * 20);
                if let Ok(result) = timeout(wait, sender.send(message.clone())).await {
                    result.unwrap();
                    sent.push(message);
                }
            }
            sent
        }));
    }
    let receive = tokio::spawn(async move {
        let mut received = Vec::new();
        loop {
            match timeout(Duration::from_micros(30), client.recv()).await {
                Ok(Some(message)) => received.push(message.unwrap().as_text().unwrap().to_owned()),
                Ok(None) => return received,
                Err(_) => {}
            }
        }
    });
    let mut sent = Vec::new();
    for task in tasks {
        sent.extend(task.await.unwrap());
    }
    drop(server);
    let mut received = timeout(Duration::from_secs(60), receive)
        .await
        .expect("stranded")
        .unwrap();
    sent.sort();
    received.sort();
    assert_eq!(sent, received);
}
