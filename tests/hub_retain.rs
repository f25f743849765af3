//! What a topic keeps for whoever comes later: the newest message, in its place.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    runtime::Handle,
    task::yield_now,
    time::{sleep, timeout},
};
use ws_tests::random::Random;
use ws_tower::{
    CloseCode, CloseFrame, Config, Message, PreparedMessage, WebSocket,
    hub::{Hub, Policy, Seat, SlowConsumer},
    pair,
};

const SOON: Duration = Duration::from_secs(60);

/// A hub that retains the newest message of every topic.
fn retaining(rule: SlowConsumer) -> Hub {
    let policy = Policy::new(rule).backlog(usize::MAX).retain();
    Hub::builder().slow_consumer(policy).build()
}

fn quiet() -> Config {
    Config::new().keepalive_interval(None)
}

/// A member that comes now.
fn come(hub: &Hub) -> (WebSocket, Seat, WebSocket) {
    let (client, server) = pair(quiet());
    (client, hub.join("topic", &server), server)
}

async fn text(socket: &mut WebSocket) -> String {
    let message = timeout(SOON, socket.recv()).await.unwrap();
    message.unwrap().unwrap().as_text().unwrap().to_owned()
}

/// Nothing has come, and nothing is on its way.
async fn nothing(socket: &mut WebSocket) {
    for _ in 0..20 {
        yield_now().await;
    }
    assert!(socket.recv().now_or_never().is_none());
}

#[tokio::test]
async fn whoever_joins_gets_the_newest_message_and_then_what_follows() {
    let hub = retaining(SlowConsumer::Disconnect);
    let (mut early, seat, _server) = come(&hub);
    assert_eq!(hub.retained("topic"), None);
    hub.publish("topic", "one");
    hub.publish("topic", "two");
    let (mut late, _late_seat, _late_server) = come(&hub);
    assert_eq!(hub.retained("topic"), Some("two".into()));
    assert_eq!(hub.publish("topic", "three"), 2);
    for expected in ["one", "two", "three"] {
        assert_eq!(text(&mut early).await, expected);
    }
    for expected in ["two", "three"] {
        assert_eq!(text(&mut late).await, expected);
    }
    nothing(&mut early).await;
    nothing(&mut late).await;
    // It was published once, and delivered to one more.
    assert_eq!(hub.stats().published, 3);
    assert_eq!(hub.stats().delivered, 5);
    drop(seat);
}

#[tokio::test]
async fn a_topic_keeps_nothing_unless_it_is_told_to() {
    let hub = Hub::builder()
        .policy_of(|topic| (topic == "kept").then(|| Policy::default().retain()))
        .build();
    let (_first, server) = pair(quiet());
    let (mut late, late_server) = pair(quiet());
    let _seats = ["plain", "kept"].map(|topic| {
        let seat = hub.join(topic, &server);
        hub.publish(topic, topic);
        (seat, hub.join(topic, &late_server))
    });
    assert_eq!(text(&mut late).await, "kept");
    nothing(&mut late).await;
    assert_eq!(hub.retained("plain"), None);
    assert_eq!(hub.retained("nobody is there"), None);
}

#[tokio::test]
async fn what_is_for_all_or_all_but_one_is_kept_and_nothing_else() {
    let policy = Policy::new(SlowConsumer::SkipNewest)
        .backlog(1)
        .notice(|_| "a notice")
        .retain();
    let hub = Hub::builder().slow_consumer(policy).build();
    let (_client, seat, server) = come(&hub);
    let kept = |expected: &str| assert_eq!(hub.retained("topic"), Some(expected.into()));
    hub.publish("topic", "publish");
    kept("publish");
    hub.publish_except("topic", seat.id(), "publish_except");
    kept("publish_except");
    hub.publish_prepared("topic", &PreparedMessage::new("publish_prepared"));
    kept("publish_prepared");
    seat.publish("by a seat");
    kept("by a seat");
    seat.publish_to_others("to others");
    kept("to others");
    seat.publish_prepared(&PreparedMessage::new("prepared"));
    kept("prepared");
    seat.publish_prepared_to_others(&PreparedMessage::new("the last"));
    kept("the last");
    assert!(hub.publish_to("topic", seat.id(), "for one"));
    kept("the last");
    let (mut late, _late_seat, _late_server) = come(&hub);
    assert_eq!(text(&mut late).await, "the last");
    // The Close of all sockets is no message either.
    let _watch = hub.watch("topic");
    hub.close("topic", &CloseFrame::from(CloseCode::NORMAL));
    server.closed().await;
    kept("the last");
}

#[tokio::test]
async fn a_notice_is_not_kept() {
    let policy = Policy::new(SlowConsumer::SkipNewest)
        .backlog(1)
        .notice(|lag| format!("missed {}", lag.missed()))
        .retain();
    let hub = Hub::builder().slow_consumer(policy).build();
    let (mut slow, server) = pair(quiet().outgoing_high_water(1));
    let seat = hub.join("topic", &server);
    for number in 0..4 {
        hub.publish("topic", number.to_string());
    }
    // One in the queue, one in the backlog, two that are missing.
    for expected in ["0", "1", "missed 2"] {
        assert_eq!(text(&mut slow).await, expected);
    }
    assert_eq!(hub.retained("topic"), Some("3".into()));
    let (mut late, _late_seat, _late_server) = come(&hub);
    assert_eq!(text(&mut late).await, "3");
    drop(seat);
}

#[tokio::test]
async fn it_is_kept_as_long_as_the_topic_and_a_watch_keeps_a_topic() {
    let hub = retaining(SlowConsumer::Latest);
    hub.publish("topic", "to nobody");
    assert_eq!(hub.retained("topic"), None);
    let (_client, seat, server) = come(&hub);
    hub.publish("topic", "first");
    let watch = hub.watch("topic");
    drop((seat, server));
    hub.publish("topic", "second");
    assert_eq!(hub.retained("topic"), Some("second".into()));
    let (mut client, seat, server) = come(&hub);
    assert_eq!(text(&mut client).await, "second");
    drop(watch);
    assert_eq!(hub.retained("topic"), Some("second".into()));
    drop((seat, server));
    assert_eq!(hub.retained("topic"), None);
    let (mut client, _seat, _server) = come(&hub);
    nothing(&mut client).await;
}

#[tokio::test]
async fn a_socket_with_two_seats_gets_it_twice_and_one_that_joins_again_once_more() {
    let hub = retaining(SlowConsumer::Disconnect);
    let _watch = hub.watch("topic");
    hub.publish("topic", "value");
    let (mut client, server) = pair(quiet());
    let one = hub.join("topic", &server);
    let two = hub.join("topic", &server);
    drop(one);
    let again = hub.join("topic", &server);
    for _ in 0..3 {
        assert_eq!(text(&mut client).await, "value");
    }
    nothing(&mut client).await;
    drop((two, again));
}

#[tokio::test]
async fn for_a_slow_socket_it_waits_as_any_message_and_the_policy_decides() {
    for rule in [
        SlowConsumer::Disconnect,
        SlowConsumer::SkipNewest,
        SlowConsumer::DropOldest,
        SlowConsumer::Latest,
    ] {
        let policy = Policy::new(rule).backlog(1).retain();
        let hub = Hub::builder().slow_consumer(policy).build();
        let _watch = hub.watch("topic");
        hub.publish("topic", "old");
        let (mut client, server) = pair(quiet().outgoing_high_water(70));
        server.try_send("before").unwrap();
        let seat = hub.join("topic", &server);
        hub.publish("topic", "new");
        assert_eq!(text(&mut client).await, "before");
        let stats = hub.stats();
        let counts = (
            stats.disconnected,
            stats.skipped,
            stats.dropped,
            stats.replaced,
        );
        match rule {
            SlowConsumer::Disconnect => {
                // Its backlog held the retained message, and the next is one too many.
                assert_eq!(counts, (1, 0, 0, 0));
                assert!(!seat.is_taken());
            }
            SlowConsumer::SkipNewest => {
                assert_eq!(counts, (0, 1, 0, 0));
                assert_eq!(text(&mut client).await, "old");
            }
            SlowConsumer::DropOldest => {
                assert_eq!(counts, (0, 0, 1, 0));
                assert_eq!(text(&mut client).await, "new");
            }
            _ => {
                assert_eq!(counts, (0, 0, 0, 1));
                assert_eq!(text(&mut client).await, "new");
            }
        }
    }
}

#[tokio::test]
async fn a_closed_socket_takes_nothing() {
    let hub = retaining(SlowConsumer::Disconnect);
    let _watch = hub.watch("topic");
    hub.publish("topic", "value");
    let (client, server) = pair(quiet());
    drop(client);
    server.closed().await;
    let seat = hub.join("topic", &server);
    assert!(!seat.is_taken());
    assert_eq!(hub.stats().delivered, 0);
}

#[tokio::test]
async fn each_of_a_thousand_that_come_one_after_the_other_gets_the_newest() {
    let hub = retaining(SlowConsumer::Disconnect);
    let _watch = hub.watch("topic");
    let mut members = Vec::new();
    for number in 0..1000 {
        hub.publish("topic", number.to_string());
        members.push(come(&hub));
    }
    hub.publish("topic", "1000");
    // The first and the last of segments are among them.
    for (number, (client, _, _)) in members.iter_mut().enumerate().step_by(51) {
        for expected in number..=1000 {
            assert_eq!(text(client).await, expected.to_string());
        }
        nothing(client).await;
    }
}

/// A publisher's number, and its message's.
type Sign = (usize, usize);

fn parse(message: &Message) -> Sign {
    let (publisher, number) = message.as_text().unwrap().split_once(' ').unwrap();
    (publisher.parse().unwrap(), number.parse().unwrap())
}

/// Publishers that publish until they are told to stop, and say how far they are.
struct Publishers {
    begun: Vec<AtomicUsize>,
    done: Vec<AtomicUsize>,
    stops: AtomicBool,
}

impl Publishers {
    fn start(hub: &Hub, count: usize) -> (Arc<Self>, Vec<thread::JoinHandle<()>>) {
        let numbers = || (0..count).map(|_| AtomicUsize::new(0)).collect();
        let all = Arc::new(Self {
            begun: numbers(),
            done: numbers(),
            stops: AtomicBool::new(false),
        });
        let start = |publisher: usize| {
            let (hub, all) = (hub.clone(), Arc::clone(&all));
            thread::spawn(move || {
                let mut number = 0;
                while !all.stops.load(Ordering::SeqCst) {
                    all.begun[publisher].store(number + 1, Ordering::SeqCst);
                    hub.publish("topic", format!("{publisher} {number}"));
                    number += 1;
                    all.done[publisher].store(number, Ordering::SeqCst);
                    if number % 3 == 0 {
                        // Others publish in between, in any order.
                        thread::sleep(Duration::from_micros(200));
                    }
                }
            })
        };
        let threads = (0..count).map(start).collect();
        (all, threads)
    }

    async fn until_all_have_published(&self) {
        let all = async {
            while Self::read(&self.done).contains(&0) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(SOON, all).await.unwrap();
    }

    fn read(numbers: &[AtomicUsize]) -> Vec<usize> {
        let numbers = numbers.iter();
        numbers.map(|it| it.load(Ordering::SeqCst)).collect()
    }
}

/// How far all were before a join began, and after it had returned.
struct Joined {
    client: WebSocket,
    done_before: Vec<usize>,
    begun_after: Vec<usize>,
    _seat: Seat,
    _server: WebSocket,
}

fn join(hub: &Hub, publishers: &Publishers) -> Joined {
    let (client, server) = pair(quiet());
    let done_before = Publishers::read(&publishers.done);
    let seat = hub.join("topic", &server);
    let begun_after = Publishers::read(&publishers.begun);
    Joined {
        client,
        done_before,
        begun_after,
        _seat: seat,
        _server: server,
    }
}

async fn until_the_end(client: &mut WebSocket) -> Vec<Sign> {
    let mut seen = Vec::new();
    loop {
        let message = timeout(SOON, client.recv()).await.unwrap();
        let message = parse(&message.unwrap().unwrap());
        if message == (9, 9) {
            return seen;
        }
        seen.push(message);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn joiners_amid_publishers_begin_with_the_newest_and_miss_and_repeat_nothing() {
    const PUBLISHERS: usize = 3;
    const JOINERS: usize = 4;
    let hub = retaining(SlowConsumer::Disconnect);
    let (mut witness, _seat, _server) = come(&hub);
    let (publishers, threads) = Publishers::start(&hub, PUBLISHERS);
    // Whoever comes before them has nothing to begin with.
    publishers.until_all_have_published().await;
    let joiners: Vec<_> = (0..JOINERS)
        .map(|joiner| {
            let (hub, publishers) = (hub.clone(), Arc::clone(&publishers));
            let runtime = Handle::current();
            thread::spawn(move || {
                // Sockets are tasks.
                let _runtime = runtime.enter();
                let mut random = Random::new(joiner as u64);
                let mut joined = Vec::new();
                // So many that segments begin amid the messages.
                for _ in 0..200 {
                    let it = join(&hub, &publishers);
                    if random.chance(20) {
                        // Its place is given to another one.
                        drop(it);
                    } else {
                        joined.push(it);
                    }
                    if random.chance(30) {
                        thread::sleep(Duration::from_micros(300));
                    }
                }
                joined
            })
        })
        .collect();
    let joined = tokio::task::spawn_blocking(|| {
        let joiners = joiners.into_iter();
        joiners.flat_map(|it| it.join().unwrap()).collect()
    });
    let joined: Vec<Joined> = timeout(SOON, joined).await.unwrap().unwrap();
    publishers.stops.store(true, Ordering::SeqCst);
    for thread in threads {
        thread.join().unwrap();
    }
    let members = joined.len() + 1;
    assert_eq!(hub.publish("topic", "9 9"), members);
    let all = until_the_end(&mut witness).await;
    let place: HashMap<_, _> = all.iter().enumerate().map(|(at, it)| (*it, at)).collect();
    assert_eq!(place.len(), all.len());
    let mut began_with_the_retained = 0;
    for mut it in joined {
        let seen = until_the_end(&mut it.client).await;
        assert!(
            all.ends_with(&seen),
            "a hole, a repetition or another order"
        );
        let first = all.len() - seen.len();
        for publisher in 0..PUBLISHERS {
            // Nothing older than what was there before it came,
            if let Some(last) = it.done_before[publisher].checked_sub(1) {
                assert!(first >= place[&(publisher, last)], "an old value");
                began_with_the_retained += usize::from(first == place[&(publisher, last)]);
            }
            // and something that was there when it had come.
            if let Some(next) = place.get(&(publisher, it.begun_after[publisher])) {
                assert!(first < *next, "the newest value was lost");
            }
        }
    }
    assert!(began_with_the_retained > 0);
}
