//! Subscribers that do not keep up: what each policy keeps, what it counts, and whom it leaves
//! alone.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use allocation_counter::measure;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, duplex},
    task::{JoinHandle, yield_now},
    time::timeout,
};
use ws_core::{Close, Connection, Event, Role};
use ws_tests::{
    io::{Buffered, Fault, Faulty, Valve, Valved},
    peer::Peer,
};
use ws_tower::{
    CloseCode, CloseFrame, Closed, Config, Message, Sender, Session, WebSocket,
    hub::{Hub, Policy, Presence, Seat, SlowConsumer},
};

const SOON: Duration = Duration::from_secs(30);

/// What a message of three bytes counts.
const COST: usize = 3 + 64;

/// A subscriber whose socket takes nothing before its valve is open.
struct Stalled {
    peer: Peer<DuplexStream>,
    valve: Valve,
    socket: WebSocket,
    seat: Seat,
    session: JoinHandle<Closed>,
}

impl Stalled {
    /// Its outgoing queue is full with the first message.
    fn join(hub: &Hub) -> Self {
        Self::join_with(hub, Config::new().outgoing_high_water(1))
    }

    fn join_with(hub: &Hub, config: Config) -> Self {
        let (near, far) = duplex(1 << 20);
        let (far, valve) = Valved::new(far);
        let connection = Connection::new(Role::Server, config.keepalive_interval(None));
        let (session, socket) = Session::new(far, connection);
        Self {
            peer: Peer::client(near),
            valve,
            seat: hub.join("topic", &socket),
            socket,
            session: tokio::spawn(session),
        }
    }

    /// The texts that come when the valve is opened, up to one that is published then.
    async fn texts(&mut self, hub: &Hub) -> Vec<String> {
        self.valve.open();
        let mut texts = Vec::new();
        let mut has_ended = false;
        loop {
            let Ok(message) = timeout(Duration::from_millis(50), self.peer.message()).await else {
                if has_ended {
                    return texts;
                }
                assert_eq!(hub.publish("topic", "end"), 1);
                has_ended = true;
                continue;
            };
            let text = message.unwrap().as_text().unwrap().to_owned();
            if text != "end" {
                texts.push(text);
            }
        }
    }
}

fn hub(policy: impl Into<Policy>) -> Hub {
    Hub::builder().slow_consumer(policy).build()
}

/// Room for five messages.
fn five(rule: SlowConsumer) -> Policy {
    Policy::new(rule).backlog(5 * COST)
}

/// Publishes `m00` to `m20`; returns how many times it was reached.
async fn publish_21(hub: &Hub) -> usize {
    let mut reached = 0;
    for number in 0..=20 {
        reached += hub.publish("topic", format!("m{number:02}"));
        if number % 3 == 0 {
            yield_now().await;
        }
    }
    reached
}

fn numbers(numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    let text = |number| format!("m{number:02}");
    numbers.into_iter().map(text).collect()
}

// What is kept.

#[tokio::test(start_paused = true)]
async fn skip_newest_keeps_what_came_first() {
    let hub = hub(five(SlowConsumer::SkipNewest));
    let mut slow = Stalled::join(&hub);
    assert_eq!(publish_21(&hub).await, 6);
    let stats = hub.stats();
    assert_eq!((stats.published, stats.delivered), (21, 6));
    assert_eq!(stats.skipped, 15);
    assert_eq!(
        (stats.dropped, stats.replaced, stats.disconnected),
        (0, 0, 0)
    );
    assert_eq!(slow.texts(&hub).await, numbers(0..=5));
    assert_eq!(hub.stats().skipped, 15);
}

#[tokio::test(start_paused = true)]
async fn drop_oldest_keeps_what_came_last() {
    let hub = hub(five(SlowConsumer::DropOldest));
    let mut slow = Stalled::join(&hub);
    assert_eq!(publish_21(&hub).await, 21);
    let stats = hub.stats();
    assert_eq!((stats.delivered, stats.dropped), (21, 15));
    assert_eq!(
        (stats.skipped, stats.replaced, stats.disconnected),
        (0, 0, 0)
    );
    // The first was in the outgoing queue, and cannot be taken back.
    assert_eq!(slow.texts(&hub).await, numbers([0, 16, 17, 18, 19, 20]));
}

#[tokio::test(start_paused = true)]
async fn latest_keeps_one_value() {
    let hub = hub(SlowConsumer::Latest);
    // Even with room in the queue: what lies there cannot be replaced.
    let mut slow = Stalled::join_with(&hub, Config::new());
    assert_eq!(publish_21(&hub).await, 21);
    let stats = hub.stats();
    assert_eq!((stats.delivered, stats.replaced), (21, 19));
    assert_eq!(
        (stats.skipped, stats.dropped, stats.disconnected),
        (0, 0, 0)
    );
    assert_eq!(slow.texts(&hub).await, numbers([0, 20]));
}

#[tokio::test(start_paused = true)]
async fn disconnect_closes_with_1013_and_the_reason_after_what_was_queued() {
    let hub = hub(five(SlowConsumer::Disconnect));
    let mut slow = Stalled::join(&hub);
    let mut watch = hub.watch("topic");
    let there = watch.recv().await;
    assert!(matches!(there, Some(Presence::Members(members)) if members.len() == 1));
    assert_eq!(publish_21(&hub).await, 6);
    // It has left at once: its peer may never read the Close.
    assert_eq!(hub.member_count("topic"), 0);
    assert!(!slow.seat.is_taken());
    assert!(!slow.socket.is_open());
    assert!(
        matches!(watch.recv().await, Some(Presence::Left(member)) if member.id() == slow.seat.id())
    );
    let stats = hub.stats();
    assert_eq!((stats.delivered, stats.disconnected), (6, 1));
    assert_eq!((stats.skipped, stats.dropped, stats.replaced), (0, 0, 0));
    slow.valve.open();
    assert_eq!(slow.peer.message().await, Some("m00".into()));
    let Some(Event::Close(Some(close))) = slow.peer.event().await else {
        panic!("no Close");
    };
    assert_eq!(close.code(), CloseCode::TRY_AGAIN_LATER);
    assert_eq!(close.reason(), "the subscriber does not keep up");
    let _ = slow.peer.flush().await;
    let closed = timeout(SOON, slow.session).await.unwrap().unwrap();
    assert!(closed.is_clean());
}

#[tokio::test(start_paused = true)]
async fn the_close_of_a_slow_subscriber_may_be_another() {
    for (wanted, code) in [
        (CloseCode::POLICY_VIOLATION, CloseCode::POLICY_VIOLATION),
        // RFC 6455 §7.4.1: 1010 is for clients.
        (CloseCode::MANDATORY_EXTENSION, CloseCode::INTERNAL_ERROR),
    ] {
        let close = CloseFrame::truncated(wanted, "too slow");
        let hub = hub(five(SlowConsumer::Disconnect).close_with(close));
        let mut slow = Stalled::join(&hub);
        publish_21(&hub).await;
        slow.valve.open();
        assert_eq!(slow.peer.message().await, Some("m00".into()));
        let Some(Event::Close(Some(close))) = slow.peer.event().await else {
            panic!("no Close");
        };
        assert_eq!((close.code(), close.reason()), (code, "too slow"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_that_never_reads_is_cut_off_in_the_end() {
    let hub = hub(five(SlowConsumer::Disconnect));
    let slow = Stalled::join(&hub);
    publish_21(&hub).await;
    let closed = timeout(Duration::from_secs(60), slow.session).await;
    let closed = closed.unwrap().unwrap();
    let sent = closed.sent().and_then(Close::code);
    assert_eq!(sent, Some(CloseCode::TRY_AGAIN_LATER));
    assert!(!closed.is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_disconnected_subscriber_leaves_all_its_topics() {
    let hub = hub(five(SlowConsumer::Disconnect));
    let slow = Stalled::join(&hub);
    let other = Hub::new();
    let seats = [
        hub.join("second", &slow.socket),
        other.join("third", &slow.socket),
    ];
    publish_21(&hub).await;
    assert_eq!((hub.topic_count(), other.topic_count()), (0, 0));
    assert!(seats.iter().all(|seat| !seat.is_taken()));
}

// Notices.

fn telling(rule: SlowConsumer) -> Policy {
    five(rule).notice(|lag| format!("{} of {} missed", lag.missed(), lag.topic()))
}

#[tokio::test(start_paused = true)]
async fn a_notice_stands_where_the_messages_are_missing() {
    let hub = hub(telling(SlowConsumer::DropOldest));
    let mut slow = Stalled::join(&hub);
    publish_21(&hub).await;
    let mut expected = numbers([0]);
    expected.push("15 of topic missed".to_owned());
    expected.extend(numbers(16..=20));
    assert_eq!(slow.texts(&hub).await, expected);

    let hub = self::hub(telling(SlowConsumer::SkipNewest));
    let mut slow = Stalled::join(&hub);
    publish_21(&hub).await;
    let mut expected = numbers(0..=5);
    expected.push("15 of topic missed".to_owned());
    assert_eq!(slow.texts(&hub).await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_keeps_up_gets_no_notice() {
    for rule in [SlowConsumer::DropOldest, SlowConsumer::SkipNewest] {
        let hub = hub(telling(rule));
        let mut quick = Stalled::join(&hub);
        quick.valve.open();
        for number in 0..100 {
            let text = format!("m{number:02}");
            assert_eq!(hub.publish("topic", text.clone()), 1);
            assert_eq!(quick.peer.message().await, Some(text.into()));
        }
        let stats = hub.stats();
        assert_eq!((stats.delivered, stats.dropped, stats.skipped), (100, 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_notice_that_panics_is_left_out() {
    let policy = five(SlowConsumer::DropOldest);
    let policy = policy.notice(|_| -> Message { panic!("by design") });
    let hub = hub(policy);
    let mut slow = Stalled::join(&hub);
    publish_21(&hub).await;
    assert_eq!(slow.texts(&hub).await, numbers([0, 16, 17, 18, 19, 20]));
}

#[tokio::test(start_paused = true)]
async fn a_notice_may_use_the_hub_and_its_own_socket() {
    let once: Arc<Mutex<Option<(Hub, Sender)>>> = Arc::default();
    let used = Arc::clone(&once);
    let policy = five(SlowConsumer::DropOldest).notice(move |_| {
        // Once: each of these pushes one more out.
        if let Some((hub, sender)) = used.lock().unwrap().take() {
            assert!(sender.is_open());
            assert_eq!(hub.members("topic").len(), 1);
            assert_eq!(hub.publish("topic", "more"), 1);
        }
        "missed"
    });
    let hub = hub(policy);
    let mut slow = Stalled::join(&hub);
    *once.lock().unwrap() = Some((hub.clone(), slow.socket.sender()));
    publish_21(&hub).await;
    let texts = slow.texts(&hub).await;
    let expected = [
        "m00", "missed", "missed", "m17", "m18", "m19", "m20", "more",
    ];
    assert_eq!(texts, expected);
}

// Order.

#[tokio::test(start_paused = true)]
async fn what_waits_goes_out_before_what_comes_later() {
    let hub = hub(Policy::new(SlowConsumer::Disconnect).backlog(usize::MAX));
    for mark in [1, 100, 1000, 10_000] {
        let config = Config::new().outgoing_high_water(mark);
        let mut slow = Stalled::join_with(&hub, config);
        for number in 0..1000_u32 {
            assert_eq!(hub.publish("topic", number.to_string()), 1);
            if number % 7 == 0 {
                slow.valve.allow(150);
                yield_now().await;
            }
        }
        slow.valve.open();
        for number in 0..1000_u32 {
            let message = timeout(SOON, slow.peer.message()).await.unwrap();
            assert_eq!(message, Some(number.to_string().into()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_dawdles_delays_and_loses_nothing() {
    async fn check(io: impl AsyncRead + AsyncWrite + Send + 'static, near: DuplexStream) {
        let hub = hub(Policy::new(SlowConsumer::Disconnect).backlog(usize::MAX));
        let config = Config::new().keepalive_interval(None);
        let config = config.outgoing_high_water(500);
        let (session, socket) = Session::new(io, Connection::new(Role::Server, config));
        tokio::spawn(session);
        let _seat = hub.join("topic", &socket);
        let publisher = tokio::spawn({
            let hub = hub.clone();
            async move {
                for number in 0..300_u32 {
                    assert_eq!(hub.publish("topic", number.to_string()), 1);
                    if number % 5 == 0 {
                        yield_now().await;
                    }
                }
            }
        });
        let mut peer = Peer::client(near);
        for number in 0..300_u32 {
            let message = timeout(SOON, peer.message()).await.unwrap();
            assert_eq!(message, Some(number.to_string().into()));
        }
        publisher.await.unwrap();
    }
    for at in 0..20 {
        for fault in [
            Fault::OneByte,
            Fault::OneByteFromThenOn,
            Fault::Pending,
            Fault::PendingHalfTheTime,
        ] {
            let (near, far) = duplex(1000);
            check(Faulty::new(far, fault, at), near).await;
        }
    }
    let (near, far) = duplex(1000);
    check(Buffered::new(far), near).await;
}

#[tokio::test(start_paused = true)]
async fn a_backlog_leaves_room_for_what_the_handler_sends() {
    let hub = hub(Policy::new(SlowConsumer::DropOldest).backlog(1 << 20));
    let config = Config::new().outgoing_high_water(1000);
    let mut slow = Stalled::join_with(&hub, config);
    for _ in 0..5000 {
        hub.publish("topic", "from the hub");
    }
    let sender = slow.socket.sender();
    let sending = tokio::spawn(async move { sender.send("from the handler").await });
    let mut before = 0;
    loop {
        slow.valve.allow(200);
        hub.publish("topic", "from the hub");
        let message = timeout(SOON, slow.peer.message()).await.unwrap();
        if message == Some("from the handler".into()) {
            break;
        }
        before += 1;
    }
    // The queue that was full, and what came with it.
    assert!(before < 100, "{before}");
    sending.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_backlogs_of_a_socket_are_emptied_in_turn() {
    let hub = hub(Policy::new(SlowConsumer::Disconnect).backlog(1 << 20));
    let mut slow = Stalled::join(&hub);
    let _second = hub.join("second", &slow.socket);
    hub.publish("topic", "first of all");
    for topic in ["topic", "second"] {
        for number in 0..3 {
            hub.publish(topic, format!("{topic} {number}"));
        }
    }
    let expected = [
        "first of all",
        "topic 0",
        "second 0",
        "topic 1",
        "second 1",
        "topic 2",
        "second 2",
    ];
    slow.valve.open();
    for text in expected {
        let message = timeout(SOON, slow.peer.message()).await.unwrap();
        assert_eq!(message, Some(text.into()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_seat_that_is_left_takes_its_backlog_with_it() {
    let hub = hub(Policy::new(SlowConsumer::Disconnect).backlog(1 << 20));
    let mut slow = Stalled::join(&hub);
    let second = hub.join("second", &slow.socket);
    hub.publish("topic", "first of all");
    for number in 0..3 {
        hub.publish("second", "second");
        hub.publish("topic", format!("m{number:02}"));
    }
    drop(second);
    let mut expected = vec!["first of all".to_owned()];
    expected.extend(numbers(0..3));
    assert_eq!(slow.texts(&hub).await, expected);
}

// The others.

#[tokio::test(start_paused = true)]
async fn one_stalled_subscriber_changes_nothing_for_999_others() {
    for rule in [
        SlowConsumer::Disconnect,
        SlowConsumer::SkipNewest,
        SlowConsumer::DropOldest,
    ] {
        let hub = hub(five(rule));
        let slow = Stalled::join(&hub);
        let mut others = Vec::new();
        for _ in 0..999 {
            let (near, far) = duplex(64 << 10);
            let config = Config::new().keepalive_interval(None);
            let connection = Connection::new(Role::Server, config);
            let (session, socket) = Session::new(far, connection);
            tokio::spawn(session);
            others.push((Peer::client(near), hub.join("topic", &socket), socket));
        }
        for round in 0..10 {
            for number in 0..10 {
                let reached = hub.publish("topic", format!("{round} {number}"));
                assert!(reached >= 999, "{reached}");
            }
            yield_now().await;
        }
        for (peer, _, _) in &mut others {
            for round in 0..10 {
                for number in 0..10 {
                    let message = timeout(SOON, peer.message()).await.unwrap();
                    assert_eq!(message, Some(format!("{round} {number}").into()));
                }
            }
        }
        drop(slow);
    }
}

// Memory.

#[tokio::test(start_paused = true)]
async fn hundreds_of_thousands_of_messages_to_a_stalled_subscriber_stay_below_the_mark() {
    for rule in [
        SlowConsumer::Disconnect,
        SlowConsumer::SkipNewest,
        SlowConsumer::DropOldest,
        SlowConsumer::Latest,
    ] {
        let policy = Policy::new(rule).notice(|lag| lag.missed().to_string());
        let hub = hub(policy);
        let slow = Stalled::join_with(&hub, Config::new());
        yield_now().await;
        let info = measure(|| {
            for _ in 0..300_000 {
                hub.publish("topic", Message::binary(&b""[..]));
            }
        });
        // 64 KiB here and 64 KiB there, of messages that take more than they count: the price
        // of an empty message behind an `Arc`, and the buffers that hold it.
        assert!(info.bytes_max <= 1 << 20, "{rule:?}: {}", info.bytes_max);
        let stats = hub.stats();
        let lost = stats.skipped + stats.dropped + stats.replaced;
        assert_eq!(
            stats.disconnected,
            u64::from(rule == SlowConsumer::Disconnect)
        );
        assert!(lost > 290_000 || rule == SlowConsumer::Disconnect, "{lost}");
        drop(slow);
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_waits_for_many_is_held_once() {
    let hub = hub(Policy::new(SlowConsumer::DropOldest));
    let slow: Vec<_> = (0..100).map(|_| Stalled::join(&hub)).collect();
    yield_now().await;
    let large = vec![7; 10_000];
    hub.publish("topic", Message::binary(large.clone()));
    let info = measure(|| {
        for _ in 0..5 {
            hub.publish("topic", Message::binary(large.clone()));
        }
    });
    assert_eq!(hub.stats().dropped, 0);
    assert!(info.bytes_current < 200_000, "{}", info.bytes_current);
    drop(slow);
}

#[tokio::test(start_paused = true)]
async fn a_seat_and_a_topic_cost_what_the_documentation_says() {
    let hub = Hub::new();
    let mut sockets = Vec::new();
    for _ in 0..1000 {
        let (_near, far) = duplex(64);
        let config = Config::new().keepalive_interval(None);
        let (session, socket) = Session::new(far, Connection::new(Role::Server, config));
        sockets.push((session, socket));
    }
    let per_seat = i64::try_from(size_of::<Seat>()).unwrap();
    let mut seats = Vec::with_capacity(2000);
    let one_topic = measure(|| {
        seats.extend(sockets.iter().map(|(_, socket)| hub.join("topic", socket)));
    });
    let seat = one_topic.bytes_current / 1000 + per_seat;
    assert!(seat <= 240, "{seat}");
    let names: Vec<_> = (0..1000).map(|number| format!("{number:04}")).collect();
    let topics = measure(|| {
        for ((_, socket), name) in sockets.iter().zip(&names) {
            seats.push(hub.join(name, socket));
        }
    });
    let topic = topics.bytes_current / 1000 + per_seat;
    assert!(topic <= 710, "{topic}");
    let left = measure(|| seats.clear());
    // All of it is given back.
    let taken = one_topic.bytes_current + topics.bytes_current;
    assert_eq!(left.bytes_current, -taken);
    assert_eq!(hub.topic_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn latest_keeps_one_value_however_often_a_stalled_socket_speaks() {
    let hub = hub(SlowConsumer::Latest);
    let mut slow = Stalled::join_with(&hub, Config::new());
    for number in 0..=20 {
        hub.publish("topic", format!("m{number:02}"));
        yield_now().await;
        // Its session has something to do meanwhile, but nothing can be written.
        slow.peer.send("I am here").await.unwrap();
        let message = timeout(SOON, slow.socket.recv()).await.unwrap();
        assert_eq!(message.unwrap().unwrap(), Message::text("I am here"));
        yield_now().await;
    }
    assert_eq!(slow.texts(&hub).await, numbers([0, 20]));
}

#[tokio::test(start_paused = true)]
async fn closing_a_topic_comes_after_what_waits_for_a_slow_subscriber() {
    let hub = hub(Policy::new(SlowConsumer::Disconnect));
    let mut slow = Stalled::join(&hub);
    for number in 0..5 {
        assert_eq!(hub.publish("topic", format!("m{number:02}")), 1);
    }
    assert_eq!(hub.close("topic", &CloseFrame::from(CloseCode::NORMAL)), 1);
    slow.valve.open();
    for number in 0..5 {
        let message = timeout(SOON, slow.peer.message()).await.unwrap();
        let message = message.expect("what was published before should come");
        assert_eq!(message.as_text(), Some(&*format!("m{number:02}")));
    }
}

#[tokio::test(start_paused = true)]
async fn closing_a_topic_with_a_code_of_clients_closes_it_still() {
    let hub = Hub::new();
    let slow = Stalled::join_with(&hub, Config::new());
    let close = CloseFrame::from(CloseCode::MANDATORY_EXTENSION);
    assert_eq!(hub.close("topic", &close), 1);
    assert!(!slow.socket.is_open());
}
