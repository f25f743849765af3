//! The newest message of a topic on a node that comes later.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use ws_tower::{
    BoxError, Config, Message, WebSocket,
    hub::{
        Backplane, Hub, Policy, Seat, SlowConsumer,
        backplane::{Broker, Commands, InProcess, Messages},
    },
    pair,
};

const SOON: Duration = Duration::from_secs(30);

/// As long as answers are held back, and longer.
const A_WHILE: Duration = Duration::from_millis(400);

fn backplane(broker: &InProcess) -> Backplane {
    Backplane::new(broker.clone()).heartbeat(Duration::from_millis(200))
}

fn node_with(backplane: Backplane) -> Hub {
    let policy = Policy::new(SlowConsumer::Disconnect)
        .backlog(usize::MAX)
        .retain();
    Hub::builder()
        .slow_consumer(policy)
        .backplane(backplane)
        .build()
}

fn node(broker: &InProcess) -> Hub {
    node_with(backplane(broker))
}

/// A member of a node, when the node is subscribed.
async fn member(hub: &Hub) -> (WebSocket, Seat, WebSocket) {
    let (client, server) = pair(Config::new().keepalive_interval(None));
    let seat = hub.join("topic", &server);
    timeout(SOON, hub.subscribed("topic")).await.unwrap();
    (client, seat, server)
}

async fn text(socket: &mut WebSocket) -> String {
    let message = timeout(SOON, socket.recv()).await.expect("in time");
    let Some(message) = message else {
        panic!("{:?}", socket.try_closed());
    };
    message.unwrap().as_text().unwrap().to_owned()
}

async fn nothing(socket: &mut WebSocket) {
    sleep(A_WHILE).await;
    assert!(socket.recv().now_or_never().is_none());
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..4000 {
        if is_so() {
            return;
        }
        sleep(Duration::from_millis(5)).await;
    }
    panic!("it never came: {what}");
}

/// What a stranger tells of a newest message.
fn newest(stream: u64, sequence: u64, age: u64, of: [u8; 8], text: &str) -> Vec<u8> {
    let numbers = [stream, sequence, age].map(u64::to_be_bytes);
    let head = [b"wsb\x03\x0c\0\0\0\0\0\0\0\x63".as_slice(), &of].concat();
    [&head, &numbers.concat()[..], text.as_bytes()].concat()
}

/// Counts what nodes tell of newest messages.
async fn listen(broker: &InProcess) -> Arc<AtomicUsize> {
    let (mut commands, mut messages) = broker.connect().await.unwrap();
    commands
        .subscribe(&["ws:topic:topic".into()])
        .await
        .unwrap();
    let told = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&told);
    tokio::spawn(async move {
        let _commands = commands;
        while let Ok((_, payload)) = messages.recv().await {
            if matches!(payload.get(4), Some(12 | 13)) {
                counter.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    told
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_later_gets_the_newest_message_once_with_and_without_presence() {
    for presence in [true, false] {
        let broker = InProcess::new();
        let node = || {
            let backplane = backplane(&broker);
            node_with(if presence {
                backplane
            } else {
                backplane.without_presence()
            })
        };
        let (here, there) = (node(), node());
        let (mut early, _seat, _server) = member(&here).await;
        here.publish("topic", "old");
        here.publish("topic", Message::text("new"));
        assert_eq!(text(&mut early).await, "old");
        assert_eq!(text(&mut early).await, "new");
        let (mut late, _late_seat, _late_server) = member(&there).await;
        assert_eq!(text(&mut late).await, "new");
        assert_eq!(there.retained("topic"), Some("new".into()));
        // Whoever comes to that node after it gets it there.
        let (mut later, _later_seat, _later_server) = member(&there).await;
        assert_eq!(text(&mut later).await, "new");
        here.publish("topic", "newer");
        for socket in [&mut early, &mut late, &mut later] {
            assert_eq!(text(socket).await, "newer");
            nothing(socket).await;
        }
        let stats = there.backplane_stats().unwrap();
        assert_eq!((stats.missed, stats.repeated, stats.refused), (0, 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn one_of_many_nodes_tells_what_a_node_without_members_has_published() {
    let broker = InProcess::new();
    let source = node(&broker);
    let mut members = Vec::new();
    for _ in 0..6 {
        let hub = node(&broker);
        let member = member(&hub).await;
        members.push((hub, member));
    }
    assert_eq!(source.publish("topic", "value"), 0);
    for (_, (client, ..)) in &mut members {
        assert_eq!(text(client).await, "value");
    }
    let told = listen(&broker).await;
    let late = node(&broker);
    let (mut client, _seat, _server) = member(&late).await;
    assert_eq!(text(&mut client).await, "value");
    nothing(&mut client).await;
    // On a busy machine some may speak at the same time, but not all.
    let told = told.load(Ordering::SeqCst);
    assert!((1..=3).contains(&told), "{told}");
    for (_, (client, ..)) in &mut members {
        assert!(client.recv().now_or_never().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_node_has_published_before_it_had_members_comes_back_to_it() {
    let broker = InProcess::new();
    let (here, there) = (node(&broker), node(&broker));
    let (mut client, _seat, _server) = member(&there).await;
    there.publish("topic", "of another node");
    assert_eq!(text(&mut client).await, "of another node");
    here.publish("topic", "own");
    // It asks behind what it has published.
    let (mut late, _late_seat, _late_server) = member(&here).await;
    assert_eq!(text(&mut late).await, "own");
    nothing(&mut late).await;
    assert_eq!(text(&mut client).await, "own");
    nothing(&mut client).await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_newer_than_the_one_told_is_not_followed_by_it() {
    let broker = InProcess::new();
    let source = node(&broker);
    let holder = node(&broker);
    let (mut client, _seat, _server) = member(&holder).await;
    source.publish("topic", "old");
    assert_eq!(text(&mut client).await, "old");
    let late = node(&broker);
    let (mut late_client, late_seat, _late_server) = member(&late).await;
    // The holder waits for others to tell: this one is faster.
    late_seat.publish("new");
    assert_eq!(text(&mut late_client).await, "new");
    nothing(&mut late_client).await;
    assert_eq!(text(&mut client).await, "new");
    assert_eq!(holder.retained("topic"), late.retained("topic"));
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_left_and_joined_again_asks_again() {
    let broker = InProcess::new();
    let (here, there) = (node(&broker), node(&broker));
    let (_client, seat, _server) = member(&here).await;
    seat.publish("value");
    for _ in 0..20 {
        let (mut client, seat, server) = member(&there).await;
        assert_eq!(text(&mut client).await, "value");
        drop((seat, server));
        // Now and then the subscription is still there when the next one comes.
        tokio::task::yield_now().await;
    }
    let stats = there.backplane_stats().unwrap();
    assert_eq!((stats.missed, stats.repeated, stats.refused), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn nodes_that_do_not_retain_neither_ask_nor_tell() {
    let broker = InProcess::new();
    let plain = || Hub::builder().backplane(backplane(&broker)).build();
    let (here, there) = (plain(), plain());
    let told = listen(&broker).await;
    let (_client, seat, _server) = member(&here).await;
    seat.publish("value");
    let (mut late, _seat, _server) = member(&there).await;
    nothing(&mut late).await;
    // One that does asks in vain, until there is something new.
    let keeps = node(&broker);
    let (mut late, _seat, _server) = member(&keeps).await;
    nothing(&mut late).await;
    seat.publish("another");
    assert_eq!(text(&mut late).await, "another");
    assert_eq!(keeps.retained("topic"), Some("another".into()));
    assert_eq!(told.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_stranger_tells_replaces_nothing_that_has_passed() {
    let broker = InProcess::new();
    let (here, there) = (node(&broker), node(&broker));
    let (_client, seat, _server) = member(&here).await;
    let (mut client, _seat, _server) = member(&there).await;
    for number in 0..3 {
        seat.publish(number.to_string());
        assert_eq!(text(&mut client).await, number.to_string());
    }
    let node = here.node().unwrap().number().to_be_bytes();
    // Of the same node and its place is past; of another one and its time is.
    broker.publish("ws:topic:topic", newest(1, 1, 0, node, "passed"));
    broker.publish("ws:topic:topic", newest(1, 9, 1 << 40, [7; 8], "long ago"));
    broker.publish("ws:topic:topic", newest(1, 9, u64::MAX, [7; 8], "never"));
    nothing(&mut client).await;
    // Two that are none.
    let refused = || there.backplane_stats().unwrap().refused;
    broker.publish("ws:topic:topic", newest(1, 0, 0, node, "no place"));
    broker.publish("ws:topic:topic", newest(1, 1, 0, [0; 8], "no node"));
    broker.publish("ws:topic:topic", &b"wsb\x03\x0c\0\0\0\0\0\0\0\x63"[..]);
    until("the refusal", || refused() == 3).await;
    // What has passed since this node asked is newer than what another node published before: an
    // age that is told says nothing of the time that the answer took.
    broker.publish("ws:topic:topic", newest(1, 9, 0, [7; 8], "late"));
    nothing(&mut client).await;
    assert_eq!(there.retained("topic"), Some("2".into()));
}

/// A broker that takes nothing from a node before it is let go.
struct Held(InProcess, watch::Receiver<bool>);

struct HeldCommands(<InProcess as Broker>::Commands, watch::Receiver<bool>);

impl Broker for Held {
    type Commands = HeldCommands;
    type Messages = <InProcess as Broker>::Messages;

    async fn connect(&self) -> Result<(Self::Commands, Self::Messages), BoxError> {
        let (commands, messages) = self.0.connect().await?;
        Ok((HeldCommands(commands, self.1.clone()), messages))
    }
}

impl Commands for HeldCommands {
    async fn subscribe(&mut self, channels: &[String]) -> Result<(), BoxError> {
        self.0.subscribe(channels).await
    }

    async fn unsubscribe(&mut self, channels: &[String]) -> Result<(), BoxError> {
        self.0.unsubscribe(channels).await
    }

    async fn publish(&mut self, batch: &[(String, Bytes)]) -> Result<(), BoxError> {
        self.1.wait_for(|is_held| !is_held).await?;
        self.0.publish(batch).await
    }
}

#[tokio::test(start_paused = true)]
async fn what_others_are_told_is_not_taken_before_the_own_question_has_come_back() {
    let broker = InProcess::new();
    let here = node(&broker);
    let (_client, seat, _server) = member(&here).await;
    seat.publish("passed");
    seat.publish("newest");
    let (is_held, held) = watch::channel(true);
    let there = node_with(Backplane::new(Held(broker.clone(), held)).deadline(SOON));
    let (mut client, server) = pair(Config::new().keepalive_interval(None));
    let _late = there.join("topic", &server);
    until("the subscription", || {
        broker.subscriptions("ws:topic:topic") == 2
    })
    .await;
    // It was told before the newest one was published, and has been on its way since then.
    let node = here.node().unwrap().number().to_be_bytes();
    broker.publish("ws:topic:topic", newest(1, 1, 0, node, "passed"));
    nothing(&mut client).await;
    is_held.send_replace(false);
    assert_eq!(text(&mut client).await, "newest");
    seat.publish("next");
    assert_eq!(text(&mut client).await, "next");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_that_come_amid_messages_begin_with_a_newest_one_and_miss_and_repeat_nothing() {
    let broker = InProcess::new();
    // A busy machine holds up each of them for longer than its heartbeat.
    let patient = |broker: &InProcess| node_with(Backplane::new(broker.clone()).deadline(SOON));
    let source = patient(&broker);
    let mut holders = Vec::new();
    for _ in 0..2 {
        let hub = patient(&broker);
        let member = member(&hub).await;
        holders.push((hub, member));
    }
    let (done, begun) = (
        Arc::new(AtomicBool::new(false)),
        Arc::<AtomicUsize>::default(),
    );
    let publisher = thread::spawn({
        let (done, begun, source) = (Arc::clone(&done), Arc::clone(&begun), source.clone());
        move || {
            let mut number = 0;
            while !done.load(Ordering::SeqCst) {
                begun.store(number + 1, Ordering::SeqCst);
                source.publish("topic", number.to_string());
                number += 1;
                thread::sleep(Duration::from_micros(300 * (number as u64 % 7)));
                if number % 64 == 0 {
                    // Long enough that somebody has to tell.
                    thread::sleep(Duration::from_millis(200));
                }
            }
            number
        }
    });
    // A node that subscribes just after a stream has begun takes it for one that began later, if its
    // messages have been on their way for longer than it is old.
    sleep(Duration::from_secs(3)).await;
    until("it has begun", || begun.load(Ordering::SeqCst) >= 256).await;
    let comers: Vec<_> = (0..4)
        .map(|comer| {
            let (broker, begun) = (broker.clone(), Arc::clone(&begun));
            tokio::spawn(async move {
                let hub = patient(&broker);
                for round in 0..10 {
                    let begun_before = begun.load(Ordering::SeqCst);
                    let (mut client, seat, server) = member(&hub).await;
                    let number = |text: String| text.parse::<usize>().unwrap();
                    let first = number(text(&mut client).await);
                    // What was on its way when it came may have come.
                    assert!(first + 200 >= begun_before, "{first} {begun_before}");
                    // What is told to one is heard by all who are there. Whoever comes just then may
                    // begin with it, and with what has passed since it was told go on.
                    let second = number(text(&mut client).await);
                    assert!(first < second, "{second} after {first}");
                    for expected in second + 1..second + 20 + comer * 10 + round {
                        assert_eq!(number(text(&mut client).await), expected);
                    }
                    drop((seat, server));
                }
                hub.backplane_stats().unwrap()
            })
        })
        .collect();
    for comer in comers {
        let stats = timeout(SOON * 3, comer).await.unwrap().unwrap();
        assert_eq!((stats.missed, stats.refused), (0, 0));
    }
    done.store(true, Ordering::SeqCst);
    let last = publisher.join().unwrap() - 1;
    let late = patient(&broker);
    let (mut client, _seat, _server) = member(&late).await;
    while text(&mut client).await != last.to_string() {}
    nothing(&mut client).await;
}
