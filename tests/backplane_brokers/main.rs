//! The hub across nodes, over real brokers: `tests/full.sh backplane` runs these.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod cluster;
mod log;
mod node;
mod tls;

use std::{process::Stdio, time::Duration};

use tokio::{
    process::Command,
    time::{sleep, timeout},
};
use ws_tests::broker::{Broker, Kind};
use ws_tower::{
    Config, WebSocket,
    hub::{Hub, Policy, SlowConsumer},
    pair,
};

use self::node::{
    BEAT, Node, Publisher, SOON, all_come_in_order, backplane, three as nodes, until,
};

async fn three(server: &Broker) -> [Node; 3] {
    nodes(|_| Node::of(backplane(server.kind, &server.url()))).await
}

async fn order_and_no_duplicates_under_load(kind: Kind) {
    let server = Broker::start(kind).await;
    all_come_in_order(nodes(|_| Node::patient(backplane(server.kind, &server.url()))).await).await;
}

/// Nodes that come and go while one publishes: each begins with a newest message, and gets all that
/// follow once.
async fn nodes_that_come_later(kind: Kind) {
    let server = Broker::start(kind).await;
    let node = || {
        let policy = Policy::new(SlowConsumer::Disconnect)
            .backlog(usize::MAX)
            .retain();
        Hub::builder()
            .slow_consumer(policy)
            .backplane(backplane(server.kind, &server.url()).deadline(SOON))
            .build()
    };
    let member = async |hub: &Hub| {
        let (client, socket) = pair(Config::new().keepalive_interval(None));
        let seat = hub.join("lobby", &socket);
        timeout(SOON, hub.subscribed("lobby")).await.unwrap();
        (client, seat, socket)
    };
    let number = async |client: &mut WebSocket| {
        let message = timeout(SOON, client.recv()).await.expect("in time");
        let message = message.unwrap().unwrap();
        message.as_text().unwrap().parse::<usize>().unwrap()
    };
    let (source, holder) = (node(), node());
    let (mut held, _seat, _socket) = member(&holder).await;
    assert_eq!(source.publish("lobby", "0"), 0);
    assert_eq!(number(&mut held).await, 0);
    // A node that subscribes just after a stream has begun takes it for one that began later, if its
    // messages have been on their way for longer than it is old.
    sleep(Duration::from_secs(3)).await;
    let publisher = source.clone();
    let publishing = tokio::spawn(async move {
        for count in 1..=3000 {
            publisher.publish("lobby", count.to_string());
            // Now fast, now so slow that somebody has to tell.
            sleep(Duration::from_micros(if count % 500 == 0 {
                300_000
            } else {
                300
            }))
            .await;
        }
    });
    let late = node();
    let mut rounds = 0;
    while !publishing.is_finished() {
        let (mut client, seat, socket) = member(&late).await;
        let first = number(&mut client).await;
        for expected in (first + 1..=3000).take(100) {
            assert_eq!(number(&mut client).await, expected);
        }
        rounds += 1;
        drop((seat, socket));
    }
    publishing.await.unwrap();
    assert!(rounds > 2, "{rounds}");
    let last = node();
    let (mut client, _seat, _socket) = member(&last).await;
    while number(&mut client).await != 3000 {}
    let stats = late.backplane_stats().unwrap();
    assert_eq!((stats.missed, stats.refused), (0, 0));
}

async fn a_killed_broker(kind: Kind) {
    let mut server = Broker::start(kind).await;
    let mut nodes = three(&server).await;
    let publisher = Publisher::start(&nodes);
    sleep(Duration::from_secs(1)).await;
    server.kill();
    // Longer than the deadline.
    sleep(Duration::from_secs(3)).await;
    server.restart().await;
    let missed = publisher.all_are_accounted_for(&mut nodes).await;
    assert!(missed > 0, "it was away for longer than the deadline");
    for node in &nodes {
        until("all see all", || node.hub.member_count("lobby") == 3).await;
    }
    assert!(nodes[0].stats().expired > 0);
}

async fn a_paused_broker(kind: Kind) {
    let server = Broker::start(kind).await;
    let mut nodes = three(&server).await;
    let publisher = Publisher::start(&nodes);
    sleep(Duration::from_secs(1)).await;
    server.signal("-STOP");
    let before = publisher.count();
    sleep(Duration::from_secs(4)).await;
    let meanwhile = publisher.count() - before;
    server.signal("-CONT");
    assert!(meanwhile > 50, "it waits for the broker: {meanwhile}");
    publisher.all_are_accounted_for(&mut nodes).await;
}

async fn a_slow_subscriber(kind: Kind) {
    let server = Broker::start(kind).await;
    let mut nodes = nodes(|_| Node::patient(backplane(kind, &server.url()))).await;
    let (_stalled, slow) = pair(Config::new().keepalive_interval(None));
    let _seat = nodes[1].hub.join("lobby", &slow);
    let filler = "x".repeat(4000);
    for count in 0..2000 {
        nodes[0].hub.publish("lobby", format!("0 {count} {filler}"));
        if count % 20 == 0 {
            sleep(Duration::from_millis(1)).await;
        }
    }
    for node in &mut nodes {
        assert_eq!(node.read_until([2000, 0, 0]).await, ([2000, 0, 0], 0));
    }
}

/// The node is a process of its own: the test binary runs itself again.
async fn a_killed_node(kind: Kind, test: &str) {
    const URL: &str = "WS_TESTS_BROKER_URL";
    if let Ok(url) = std::env::var(URL) {
        let node = Node::of(backplane(kind, &url));
        node.ready().await;
        sleep(Duration::from_secs(300)).await;
        return;
    }
    let server = Broker::start(kind).await;
    let nodes = three(&server).await;
    let child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--ignored"])
        .env(URL, server.url())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let mut child = child.unwrap();
    until("the fourth member", || {
        nodes.iter().all(|it| it.hub.member_count("lobby") == 4)
    })
    .await;
    child.kill().await.unwrap();
    let before = std::time::Instant::now();
    until("its members vanish", || {
        nodes.iter().all(|it| it.hub.member_count("lobby") == 3)
    })
    .await;
    // A node with the heartbeat that is the default would be waited for until 15 s have passed.
    assert!(before.elapsed() < BEAT * 40, "{:?}", before.elapsed());
}

macro_rules! tests {
    ($module:ident, $kind:expr) => {
        mod $module {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs a broker: tests/full.sh"]
            async fn keeps_order_and_repeats_nothing_under_load() {
                order_and_no_duplicates_under_load($kind).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs a broker: tests/full.sh"]
            async fn tells_nodes_that_come_later_of_the_newest_message() {
                nodes_that_come_later($kind).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs a broker: tests/full.sh"]
            async fn that_is_killed_and_started_again_loses_what_is_counted() {
                a_killed_broker($kind).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs a broker: tests/full.sh"]
            async fn that_is_paused_and_goes_on_loses_what_is_counted() {
                a_paused_broker($kind).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs a broker: tests/full.sh"]
            async fn does_not_feel_a_slow_subscriber() {
                a_slow_subscriber($kind).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs a broker: tests/full.sh"]
            async fn sees_the_members_of_a_killed_node_vanish() {
                let test = concat!(
                    stringify!($module),
                    "::sees_the_members_of_a_killed_node_vanish"
                );
                a_killed_node($kind, test).await;
            }
        }
    };
}

tests!(redis, Kind::Redis);
tests!(nats, Kind::Nats);
