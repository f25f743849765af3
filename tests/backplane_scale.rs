//! What the hub across nodes says and keeps when there are many topics: no more than others can have
//! a use for.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::time::{sleep, timeout};
use ws_tests::faulty::Faulty;
use ws_tower::{
    Config, WebSocket,
    hub::{Backplane, Hub, Policy, SlowConsumer, backplane::InProcess},
    pair,
};

const SOON: Duration = Duration::from_secs(20);
const BEAT: Duration = Duration::from_millis(200);

/// Kinds of payloads.
const MARK: usize = 4;
const ROSTER: usize = 8;

fn node_with(backplane: Backplane) -> Hub {
    let policy =
        Policy::new(SlowConsumer::DropOldest).notice(|lag| format!("missed {}", lag.missed()));
    let backplane = backplane.heartbeat(BEAT);
    Hub::builder()
        .slow_consumer(policy)
        .backplane(backplane)
        .build()
}

fn node(broker: &Faulty) -> Hub {
    node_with(Backplane::new(broker.clone()))
}

fn client() -> (WebSocket, WebSocket) {
    pair(Config::new().keepalive_interval(None))
}

async fn text(socket: &mut WebSocket) -> String {
    let message = timeout(SOON, socket.recv()).await.expect("in time");
    message.unwrap().unwrap().as_text().unwrap().to_owned()
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

async fn subscribed(hub: &Hub, topic: &str) {
    timeout(SOON, hub.subscribed(topic)).await.expect("in time");
}

fn streams(hub: &Hub) -> u64 {
    hub.backplane_stats().unwrap().streams
}

fn nodes(hub: &Hub) -> u64 {
    hub.backplane_stats().unwrap().nodes
}

fn taken(kind: &AtomicUsize) -> usize {
    kind.load(Ordering::SeqCst)
}

#[tokio::test(start_paused = true)]
async fn a_node_that_joins_has_the_others_tell_of_what_they_have_in_common() {
    let broker = InProcess::new();
    let old = Faulty::new(&broker);
    let here = node(&old);
    let (_client, server) = client();
    let names: Vec<_> = (0..2000).map(|it| format!("room-{it}")).collect();
    let _seats: Vec<_> = names.iter().map(|it| here.join(it, &server)).collect();
    for name in &names {
        subscribed(&here, name).await;
        here.publish(name, "before");
    }
    until("all are marked", || taken(&old.kinds[MARK]) >= 2000).await;
    sleep(BEAT * 10).await;
    let marks = taken(&old.kinds[MARK]);
    let there = node(&Faulty::new(&broker));
    until("both see both", || nodes(&here) + nodes(&there) == 2).await;
    let (_other, other_server) = client();
    let _other_seats: Vec<_> = names[..10]
        .iter()
        .map(|it| there.join(it, &other_server))
        .collect();
    until("its members", || there.member_count("room-9") == 2).await;
    sleep(BEAT * 10).await;
    assert_eq!(taken(&old.kinds[MARK]) - marks, 0);
    assert_eq!(taken(&old.kinds[ROSTER]), 10);
}

#[tokio::test(start_paused = true)]
async fn a_new_node_learns_what_it_missed_before_anything_has_come() {
    for presence in [true, false] {
        let backplane = |broker: &Faulty| {
            let backplane = Backplane::new(broker.clone());
            if presence {
                backplane
            } else {
                backplane.without_presence()
            }
        };
        let broker = InProcess::new();
        let cut = Faulty::new(&broker);
        let here = node_with(backplane(&Faulty::new(&broker)));
        let (_member, member_server) = client();
        let _member_seat = here.join("lobby", &member_server);
        subscribed(&here, "lobby").await;
        for _ in 0..7 {
            here.publish("lobby", "before");
        }
        sleep(BEAT).await;
        let there = node_with(backplane(&cut));
        let (mut client, server) = client();
        let _seat = there.join("lobby", &server);
        subscribed(&there, "lobby").await;
        sleep(BEAT * 2).await;
        cut.is_down.store(true, Ordering::SeqCst);
        cut.cut();
        until("cut off", || {
            there.backplane_stats().unwrap().connected == 0
        })
        .await;
        for _ in 0..3 {
            here.publish("lobby", "unheard");
        }
        sleep(BEAT).await;
        cut.is_down.store(false, Ordering::SeqCst);
        assert_eq!(text(&mut client).await, "missed 3");
        here.publish("lobby", "after");
        assert_eq!(text(&mut client).await, "after");
    }
}

#[tokio::test(start_paused = true)]
async fn topics_that_are_left_cost_nothing_for_long() {
    for presence in [true, false] {
        let broker = Faulty::new(&InProcess::new());
        let backplane = Backplane::new(broker.clone());
        let here = node_with(if presence {
            backplane
        } else {
            backplane.without_presence()
        });
        let there = node(&broker);
        let (_client, server) = client();
        let _stays = here.join("lobby", &server);
        here.publish("lobby", "hello");
        for room in 0..10_000 {
            let name = format!("room-{room}");
            let seat = here.join(&name, &server);
            seat.publish("hello");
        }
        until("both see both", || nodes(&here) + nodes(&there) == 2).await;
        assert_eq!(streams(&here), 10_001);
        // Twice the three heartbeats after which a node is given up, and one.
        sleep(BEAT * 9).await;
        assert_eq!(streams(&here), 1);
        sleep(Duration::from_secs(700)).await;
        assert_eq!(streams(&here), 1, "somebody is there");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_node_missed_that_is_away_is_kept_for_it() {
    let broker = InProcess::new();
    let cut = Faulty::new(&broker);
    let (here, there) = (node(&Faulty::new(&broker)), node(&cut));
    let (mut client, server) = client();
    let _seat = there.join("lobby", &server);
    subscribed(&there, "lobby").await;
    here.publish("lobby", "before");
    assert_eq!(text(&mut client).await, "before");
    cut.is_down.store(true, Ordering::SeqCst);
    cut.cut();
    until("cut off", || {
        there.backplane_stats().unwrap().connected == 0
    })
    .await;
    here.publish("lobby", "unheard");
    sleep(Duration::from_secs(500)).await;
    assert_eq!((streams(&here), nodes(&here)), (1, 0));
    cut.is_down.store(false, Ordering::SeqCst);
    assert_eq!(text(&mut client).await, "missed 1");
    sleep(BEAT * 10).await;
    assert_eq!(streams(&here), 0);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_topics_fills_no_memory_and_is_told_to_who_is_there() {
    let broker = Faulty::new(&InProcess::new());
    let (here, there) = (node(&broker), node(&broker));
    let (mut client, server) = client();
    let _seat = there.join("room-0", &server);
    subscribed(&there, "room-0").await;
    until("both see both", || nodes(&here) + nodes(&there) == 2).await;
    here.publish("room-0", "first");
    assert_eq!(text(&mut client).await, "first");
    broker.loses.store(1, Ordering::SeqCst);
    here.publish("room-0", "lost");
    until("lost", || broker.loses.load(Ordering::SeqCst) == 0).await;
    for room in 1..150_000 {
        here.publish(&format!("room-{room}"), "x");
        if room % 200 == 0 {
            tokio::task::yield_now().await;
        }
    }
    until("few are left", || streams(&here) <= 1 << 16).await;
    assert_eq!(text(&mut client).await, "missed 1");
    assert!(here.backplane_stats().unwrap().forgotten > 0);
    here.publish("room-0", "after");
    assert_eq!(text(&mut client).await, "after");
}

#[tokio::test(start_paused = true)]
async fn members_that_have_left_while_a_node_was_away_are_not_there_when_it_is_back() {
    let broker = InProcess::new();
    let cut = Faulty::new(&broker);
    let (here, there) = (node(&Faulty::new(&broker)), node(&cut));
    let (_client, server) = client();
    let _seat = there.join("lobby", &server);
    let (_other, other_server) = client();
    let seat = here.join("lobby", &other_server);
    until("both", || there.member_count("lobby") == 2).await;
    cut.is_down.store(true, Ordering::SeqCst);
    cut.cut();
    until("cut off", || {
        there.backplane_stats().unwrap().connected == 0
    })
    .await;
    drop(seat);
    sleep(Duration::from_secs(5)).await;
    cut.is_down.store(false, Ordering::SeqCst);
    until("one has gone", || there.member_count("lobby") == 1).await;
    let _seat = here.join("lobby", &other_server);
    until("and come", || there.member_count("lobby") == 2).await;
}
