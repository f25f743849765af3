//! The hub across nodes, over a broker in the process that can be cut, stalled and lied to.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{sync::atomic::Ordering, time::Duration};

use futures_util::FutureExt;
use tokio::time::{sleep, timeout};
use ws_tests::faulty::Faulty;
use ws_tower::{
    CloseCode, Config, Message, WebSocket,
    hub::{
        Backplane, Hub, Policy, Presence, SlowConsumer,
        backplane::{BackplaneStats, Broker, Commands, InProcess, Messages},
    },
    pair,
};

const SOON: Duration = Duration::from_secs(30);
const BEAT: Duration = Duration::from_millis(200);

fn node(broker: impl Broker) -> Hub {
    let backplane = Backplane::new(broker).heartbeat(BEAT);
    Hub::builder().backplane(backplane).build()
}

fn telling(broker: impl Broker) -> Hub {
    let policy = Policy::new(SlowConsumer::DropOldest)
        .backlog(1 << 30)
        .notice(|lag| format!("missed {}", lag.missed()));
    Hub::builder()
        .slow_consumer(policy)
        .backplane(Backplane::new(broker).heartbeat(BEAT))
        .build()
}

fn quiet() -> Config {
    Config::new().keepalive_interval(None)
}

async fn message(socket: &mut WebSocket) -> Message {
    let message = timeout(SOON, socket.recv()).await.expect("in time");
    message.unwrap().unwrap()
}

async fn text(socket: &mut WebSocket) -> String {
    message(socket).await.as_text().unwrap().to_owned()
}

async fn subscribed(hub: &Hub, topic: &str) {
    timeout(SOON, hub.subscribed(topic)).await.expect("in time");
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

fn stats(hub: &Hub) -> BackplaneStats {
    hub.backplane_stats().unwrap()
}

// Who gets what.

#[tokio::test(start_paused = true)]
async fn a_message_reaches_members_on_all_nodes_once_and_as_it_was() {
    let broker = InProcess::new();
    let hubs = [(); 3].map(|()| node(broker.clone()));
    let mut clients = Vec::new();
    let mut seats = Vec::new();
    for hub in &hubs {
        let (client, server) = pair(quiet());
        seats.push(hub.join("lobby", &server));
        clients.push((client, server));
    }
    for hub in &hubs {
        subscribed(hub, "lobby").await;
    }
    assert_eq!(seats[0].publish("héllo"), 1);
    assert_eq!(
        hubs[0].publish("lobby", Message::binary(&b"\0\xff\r\n"[..])),
        1
    );
    assert_eq!(seats[0].publish_to_others("to others"), 0);
    hubs[0].publish("lobby", "");
    for (at, (client, _)) in clients.iter_mut().enumerate() {
        assert_eq!(text(client).await, "héllo");
        assert_eq!(message(client).await, Message::binary(&b"\0\xff\r\n"[..]));
        if at > 0 {
            assert_eq!(text(client).await, "to others");
        }
        assert_eq!(text(client).await, "");
    }
    // A heartbeat later nothing has come again.
    sleep(BEAT * 2).await;
    for (client, _) in &mut clients {
        assert!(client.recv().now_or_never().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_without_members_publishes_and_has_no_subscription() {
    let broker = InProcess::new();
    let (worker, hub) = (node(broker.clone()), node(broker.clone()));
    let (mut client, server) = pair(quiet());
    let (_other, other_server) = pair(quiet());
    let seats = [hub.join("news", &server), hub.join("news", &other_server)];
    subscribed(&hub, "news").await;
    assert_eq!(worker.publish("news", "rain"), 0);
    assert_eq!(text(&mut client).await, "rain");
    assert_eq!(broker.subscriptions("ws:topic:news"), 1);
    let [first, second] = seats;
    drop(first);
    sleep(BEAT).await;
    assert_eq!(broker.subscriptions("ws:topic:news"), 1);
    drop(second);
    until("no subscription", || {
        broker.subscriptions("ws:topic:news") == 0
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_left_and_joined_again_and_again_ends_up_right() {
    let broker = InProcess::new();
    let (hub, other) = (node(broker.clone()), node(broker.clone()));
    let (mut client, server) = pair(quiet());
    for _ in 0..200 {
        drop(hub.join("lobby", &server));
        tokio::task::yield_now().await;
    }
    let _seat = hub.join("lobby", &server);
    subscribed(&hub, "lobby").await;
    assert_eq!(broker.subscriptions("ws:topic:lobby"), 1);
    other.publish("lobby", "still here?");
    assert_eq!(text(&mut client).await, "still here?");
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_joined_again_at_once_is_still_subscribed_to() {
    let broker = InProcess::new();
    let (here, there) = (node(broker.clone()), node(broker));
    let (mut client, server) = pair(quiet());
    let seat = here.join("lobby", &server);
    subscribed(&here, "lobby").await;
    // Before the backplane's task has its turn.
    drop(seat);
    let _seat = here.join("lobby", &server);
    subscribed(&here, "lobby").await;
    there.publish("lobby", "hello");
    assert_eq!(text(&mut client).await, "hello");
}

#[tokio::test(start_paused = true)]
async fn order_is_kept_for_each_publisher_and_nothing_comes_twice() {
    const COUNT: usize = 2000;
    let broker = InProcess::new();
    let hubs = [(); 3].map(|()| telling(broker.clone()));
    let mut clients = Vec::new();
    let mut seats = Vec::new();
    for hub in &hubs {
        let (client, server) = pair(quiet());
        seats.push(hub.join("lobby", &server));
        clients.push((client, server));
        subscribed(hub, "lobby").await;
    }
    for (name, hub) in hubs.iter().enumerate() {
        let hub = hub.clone();
        tokio::spawn(async move {
            for count in 0..COUNT {
                hub.publish("lobby", format!("{name} {count}"));
                if count % 50 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    for (client, _) in &mut clients {
        let mut next = [0; 3];
        for _ in 0..3 * COUNT {
            let text = text(client).await;
            let (name, count) = text.split_once(' ').unwrap();
            let next = &mut next[name.parse::<usize>().unwrap()];
            assert_eq!(count.parse::<usize>().unwrap(), *next, "of {name}");
            *next += 1;
        }
        assert_eq!(next, [COUNT; 3]);
    }
}

// Who is there.

#[tokio::test(start_paused = true)]
async fn members_of_other_nodes_are_seen_reached_and_left_out() {
    let broker = InProcess::new();
    let (here, there) = (node(broker.clone()), node(broker.clone()));
    let (mut ann, ann_server) = pair(quiet());
    let (mut bob, bob_server) = pair(quiet());
    let ann_seat = here.join_as("lobby", &ann_server, "Ann");
    let mut watch = here.watch("lobby");
    let Some(Presence::Members(members)) = watch.recv().await else {
        panic!("members come first");
    };
    assert_eq!(members.len(), 1);
    let bob_seat = there.join_as("lobby", &bob_server, "Bob");
    let Some(Presence::Joined(bob_here)) = timeout(SOON, watch.recv()).await.unwrap() else {
        panic!("Bob joins");
    };
    assert_eq!(bob_here.metadata(), Some("Bob"));
    assert_eq!(bob_here.id().number(), bob_seat.id().number());
    assert_ne!(bob_here.id(), bob_seat.id());
    assert_eq!(here.node_of(bob_here.id()), there.node());
    assert_eq!(here.node_of(ann_seat.id()), here.node());
    assert_eq!(
        (here.member_count("lobby"), here.members("lobby").len()),
        (2, 2)
    );
    until("who was there before", || there.member_count("lobby") == 2).await;

    assert!(here.publish_to("lobby", bob_here.id(), "for bob"));
    here.publish_except("lobby", bob_here.id(), "not for bob");
    here.publish("lobby", "for both");
    for expected in ["for bob", "for both"] {
        assert_eq!(text(&mut bob).await, expected);
    }
    for expected in ["not for bob", "for both"] {
        assert_eq!(text(&mut ann).await, expected);
    }
    drop(bob_seat);
    let bob_id = bob_here.id();
    assert_eq!(
        timeout(SOON, watch.recv()).await.unwrap(),
        Some(Presence::Left(bob_here))
    );
    assert_eq!(here.member_count("lobby"), 1);
    // Whether it is still there, only its node knows.
    assert!(here.publish_to("lobby", bob_id, "queued"));
    here.leave().await;
    assert!(!here.publish_to("lobby", bob_id, "not queued"));
}

#[tokio::test(start_paused = true)]
async fn closing_a_topic_closes_it_on_all_nodes() {
    let broker = InProcess::new();
    let (here, there) = (node(broker.clone()), node(broker.clone()));
    let (mut client, server) = pair(quiet());
    let _seat = there.join("lobby", &server);
    subscribed(&there, "lobby").await;
    assert_eq!(here.close("lobby", &CloseCode::GOING_AWAY.into()), 0);
    assert!(timeout(SOON, client.recv()).await.unwrap().is_none());
    let closed = client.closed().await;
    let code = closed.received().and_then(ws_core::Close::code);
    assert_eq!(code, Some(CloseCode::GOING_AWAY));
}

#[tokio::test(start_paused = true)]
async fn members_of_a_node_that_ends_leave_at_once_and_of_a_dead_one_after_its_time() {
    let broker = InProcess::new();
    let faulty = Faulty::new(&broker);
    let here = node(broker.clone());
    let (ends, dies) = (node(broker.clone()), node(faulty.clone()));
    let (_ann, ann_server) = pair(quiet());
    let mut servers = Vec::new();
    let _seat = here.join("lobby", &ann_server);
    for hub in [&ends, &dies] {
        let (client, server) = pair(quiet());
        servers.push((hub.join("lobby", &server), client, server));
    }
    until("all members", || here.member_count("lobby") == 3).await;
    assert_eq!(stats(&here).nodes, 2);
    drop(ends);
    until("one node less", || here.member_count("lobby") == 2).await;
    // It is cut off, and does not come back.
    faulty.is_down.store(true, Ordering::SeqCst);
    faulty.cut();
    sleep(BEAT).await;
    assert_eq!(here.member_count("lobby"), 2);
    until("no node left", || here.member_count("lobby") == 1).await;
    // Until it does.
    faulty.is_down.store(false, Ordering::SeqCst);
    until("it is back", || here.member_count("lobby") == 2).await;
    until("it sees us", || dies.member_count("lobby") == 2).await;
}

#[tokio::test(start_paused = true)]
async fn many_members_arrive_in_parts() {
    let broker = InProcess::new();
    let (here, there) = (node(broker.clone()), node(broker.clone()));
    let mut all = Vec::new();
    let metadata = "x".repeat(1000);
    for _ in 0..300 {
        let (client, server) = pair(quiet());
        all.push((here.join_as("lobby", &server, &*metadata), client, server));
    }
    let _watch = there.watch("lobby");
    until("all members", || there.member_count("lobby") == 300).await;
    drop(all);
    until("none", || there.member_count("lobby") == 0).await;
}

// What is lost.

#[tokio::test(start_paused = true)]
async fn what_is_lost_on_the_way_is_told_in_its_place_and_counted() {
    let broker = InProcess::new();
    let faulty = Faulty::new(&broker);
    let (here, there) = (node(faulty.clone()), telling(broker.clone()));
    let (mut client, server) = pair(quiet());
    let _seat = there.join("lobby", &server);
    subscribed(&there, "lobby").await;
    here.publish("lobby", "before");
    assert_eq!(text(&mut client).await, "before");
    faulty.loses.store(7, Ordering::SeqCst);
    for _ in 0..7 {
        here.publish("lobby", "lost");
    }
    here.publish("lobby", "after");
    assert_eq!(text(&mut client).await, "missed 7");
    assert_eq!(text(&mut client).await, "after");
    // At the end nothing follows that could tell: the mark does.
    faulty.loses.store(3, Ordering::SeqCst);
    for _ in 0..3 {
        here.publish("lobby", "lost");
    }
    assert_eq!(text(&mut client).await, "missed 3");
    assert_eq!(stats(&there).missed, 10);
    assert_eq!(stats(&there).received, 2);
}

#[tokio::test(start_paused = true)]
async fn a_newest_message_that_was_lost_is_told_again_by_who_has_it() {
    let broker = InProcess::new();
    let faulty = Faulty::new(&broker);
    let retaining = |broker: Faulty| {
        let policy = Policy::new(SlowConsumer::Latest)
            .notice(|lag| format!("missed {}", lag.missed()))
            .retain();
        Hub::builder()
            .slow_consumer(policy)
            .backplane(Backplane::new(broker).heartbeat(BEAT))
            .build()
    };
    let (here, there) = (retaining(faulty.clone()), retaining(faulty.clone()));
    let (_near, near_server) = pair(quiet());
    let (mut client, server) = pair(quiet());
    let _seats = [
        here.join("sensor", &near_server),
        there.join("sensor", &server),
    ];
    subscribed(&here, "sensor").await;
    subscribed(&there, "sensor").await;
    here.publish("sensor", "20 °C");
    assert_eq!(text(&mut client).await, "20 °C");
    faulty.loses.store(2, Ordering::SeqCst);
    here.publish("sensor", "21 °C");
    here.publish("sensor", "22 °C");
    // The mark tells that they are missing; then the node that has the last one is asked.
    assert_eq!(text(&mut client).await, "missed 2");
    assert_eq!(text(&mut client).await, "22 °C");
    assert_eq!(there.retained("sensor"), Some("22 °C".into()));
    here.publish("sensor", "23 °C");
    assert_eq!(text(&mut client).await, "23 °C");
    assert_eq!(stats(&there).missed, 2);
    assert_eq!(stats(&there).repeated, 0);
}

#[tokio::test(start_paused = true)]
async fn what_another_node_told_of_hides_no_loss_before_it() {
    let broker = InProcess::new();
    let faulty = Faulty::new(&broker);
    let policy = Policy::new(SlowConsumer::DropOldest)
        .notice(|lag| format!("missed {}", lag.missed()))
        .retain();
    let there = Hub::builder()
        .slow_consumer(policy)
        .backplane(Backplane::new(broker.clone()).heartbeat(BEAT))
        .build();
    let here = node(faulty.clone());
    let (mut client, server) = pair(quiet());
    let _seat = there.join("sensor", &server);
    subscribed(&there, "sensor").await;
    let (mut commands, mut messages) = broker.connect().await.unwrap();
    commands
        .subscribe(&["ws:topic:sensor".into()])
        .await
        .unwrap();
    here.publish("sensor", "20 °C");
    assert_eq!(text(&mut client).await, "20 °C");
    let (_, payload) = timeout(SOON, messages.recv()).await.unwrap().unwrap();
    let (node, stream) = (&payload[5..13], &payload[13..21]);
    faulty.loses.store(2, Ordering::SeqCst);
    here.publish("sensor", "21 °C");
    here.publish("sensor", "22 °C");
    // A third node has the last one, and tells of it.
    let sequence_and_age = [3_u64, 0].map(u64::to_be_bytes).concat();
    let head = b"wsb\x03\x0c\0\0\0\0\0\0\0\x63";
    let told = [
        &head[..],
        node,
        stream,
        &sequence_and_age,
        "22 °C".as_bytes(),
    ]
    .concat();
    broker.publish("ws:topic:sensor", told);
    assert_eq!(text(&mut client).await, "22 °C");
    assert_eq!(text(&mut client).await, "missed 2");
    here.publish("sensor", "23 °C");
    assert_eq!(text(&mut client).await, "23 °C");
    assert_eq!(stats(&there).missed, 2);
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_first_messages_are_lost_is_missed_from_its_beginning() {
    let broker = InProcess::new();
    let faulty = Faulty::new(&broker);
    let (here, there) = (node(faulty.clone()), telling(broker.clone()));
    let (mut client, server) = pair(quiet());
    let _seat = there.join("lobby", &server);
    subscribed(&there, "lobby").await;
    // The stream begins while the other listens, and not in the same instant.
    sleep(BEAT).await;
    faulty.loses.store(4, Ordering::SeqCst);
    for count in 0..5 {
        here.publish("lobby", format!("{count}"));
    }
    assert_eq!(text(&mut client).await, "missed 4");
    assert_eq!(text(&mut client).await, "4");
    // One that comes later has missed nothing.
    let late = telling(broker.clone());
    let (mut other, other_server) = pair(quiet());
    let _late_seat = late.join("lobby", &other_server);
    subscribed(&late, "lobby").await;
    here.publish("lobby", "5");
    assert_eq!(text(&mut other).await, "5");
    assert_eq!(stats(&late).missed, 0);
}

#[tokio::test(start_paused = true)]
async fn messages_wait_for_a_broker_until_their_deadline_and_no_longer() {
    let broker = InProcess::new();
    let faulty = Faulty::new(&broker);
    let backplane = Backplane::new(faulty.clone())
        .heartbeat(BEAT)
        .max_backoff(BEAT)
        .deadline(Duration::from_millis(600));
    let here = Hub::builder().backplane(backplane).build();
    let there = telling(broker.clone());
    let (mut client, server) = pair(quiet());
    let _seat = there.join("lobby", &server);
    subscribed(&there, "lobby").await;
    here.publish("lobby", "first");
    assert_eq!(text(&mut client).await, "first");

    faulty.is_down.store(true, Ordering::SeqCst);
    faulty.cut();
    for _ in 0..9 {
        here.publish("lobby", "too late");
    }
    until("they expire", || stats(&here).expired == 9).await;
    assert_eq!(stats(&here).connected, 0);
    here.publish("lobby", "in time");
    faulty.is_down.store(false, Ordering::SeqCst);
    assert_eq!(text(&mut client).await, "missed 9");
    assert_eq!(text(&mut client).await, "in time");
    assert_eq!(stats(&there).missed, 9);
    assert_eq!((stats(&here).expired, stats(&here).sent), (9, 2));
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_takes_nothing_is_given_up_and_what_it_may_have_taken_comes_once() {
    let broker = InProcess::new();
    let faulty = Faulty::new(&broker);
    let backplane = Backplane::new(faulty.clone())
        .heartbeat(BEAT)
        .deadline(Duration::from_millis(500));
    let here = Hub::builder().backplane(backplane).build();
    let there = telling(broker.clone());
    let (mut client, server) = pair(quiet());
    let _seat = there.join("lobby", &server);
    subscribed(&there, "lobby").await;
    // The stream begins while the other listens, and not in the same instant.
    sleep(BEAT).await;
    until("connected", || stats(&here).connected == 1).await;
    faulty.stalls.store(true, Ordering::SeqCst);
    for _ in 0..1000 {
        here.publish("lobby", "lost");
    }
    until("they expire", || stats(&here).expired == 1000).await;
    assert!(stats(&here).disconnects >= 1);
    faulty.stalls.store(false, Ordering::SeqCst);
    here.publish("lobby", "after");
    assert_eq!(text(&mut client).await, "missed 1000");
    assert_eq!(text(&mut client).await, "after");
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_was_cut_off_learns_what_it_missed_meanwhile() {
    let broker = InProcess::new();
    let faulty = Faulty::new(&broker);
    let (here, there) = (node(broker.clone()), telling(faulty.clone()));
    let (mut client, server) = pair(quiet());
    let _seat = there.join("lobby", &server);
    subscribed(&there, "lobby").await;
    here.publish("lobby", "before");
    assert_eq!(text(&mut client).await, "before");
    faulty.is_down.store(true, Ordering::SeqCst);
    faulty.cut();
    until("cut off", || stats(&there).connected == 0).await;
    for _ in 0..12 {
        here.publish("lobby", "unheard");
    }
    until("sent", || stats(&here).sent == 13).await;
    // The quiet stream has been marked before anybody listens again.
    sleep(BEAT * 3).await;
    faulty.is_down.store(false, Ordering::SeqCst);
    assert_eq!(text(&mut client).await, "missed 12");
    here.publish("lobby", "after");
    assert_eq!(text(&mut client).await, "after");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_is_heard_to_the_end_and_goes_on_alone() {
    let broker = InProcess::new();
    let (here, there) = (telling(broker.clone()), telling(broker.clone()));
    let (mut client, server) = pair(quiet());
    let (mut leaver, leaver_server) = pair(quiet());
    let _seats = [
        there.join("lobby", &server),
        here.join("lobby", &leaver_server),
    ];
    subscribed(&there, "lobby").await;
    subscribed(&here, "lobby").await;
    until("both see both", || {
        [&here, &there]
            .iter()
            .all(|it| it.member_count("lobby") == 2)
    })
    .await;
    for count in 0..2000 {
        here.publish("lobby", count.to_string());
    }
    timeout(BEAT, here.leave()).await.expect("at once");
    assert_eq!(here.member_count("lobby"), 1);
    for count in 0..2000 {
        assert_eq!(text(&mut client).await, count.to_string());
        assert_eq!(text(&mut leaver).await, count.to_string());
    }
    // Three heartbeats were it to be found dead.
    until("its member has gone", || there.member_count("lobby") == 1).await;
    assert_eq!(stats(&there).nodes, 0);
    assert_eq!(here.publish("lobby", "alone"), 1);
    assert_eq!(text(&mut leaver).await, "alone");
    // Again is nothing, and so it is while there is no broker.
    timeout(BEAT, here.leave()).await.expect("at once");
    let faulty = Faulty::new(&broker);
    faulty.is_down.store(true, Ordering::SeqCst);
    let lonely = node(faulty);
    timeout(SOON, lonely.leave()).await.expect("some time");
    Hub::new().leave().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_after_long_is_not_said_to_have_missed_what_came() {
    let broker = InProcess::new();
    let faulty = Faulty::new(&broker);
    let (here, there) = (telling(faulty.clone()), telling(broker.clone()));
    let (mut client, server) = pair(quiet());
    let (_member, member_server) = pair(quiet());
    let _seat = there.join("lobby", &server);
    subscribed(&there, "lobby").await;
    sleep(BEAT).await;
    // The stream begins while the other listens.
    let _member_seat = here.join("lobby", &member_server);
    for _ in 0..5 {
        here.publish("lobby", "before");
        assert_eq!(text(&mut client).await, "before");
    }
    faulty.is_down.store(true, Ordering::SeqCst);
    faulty.cut();
    sleep(Duration::from_secs(700)).await;
    assert_eq!(stats(&there).nodes, 0);
    faulty.is_down.store(false, Ordering::SeqCst);
    until("it is back", || stats(&there).nodes == 1).await;
    until("both", || there.member_count("lobby") == 2).await;
    here.publish("lobby", "after");
    assert_eq!(text(&mut client).await, "after");
}

#[tokio::test(start_paused = true)]
async fn what_the_queue_or_the_broker_does_not_take_is_counted_and_told() {
    let broker = InProcess::new();
    let faulty = Faulty::new(&broker);
    let backplane = Backplane::new(faulty.clone()).heartbeat(BEAT).queue(2000);
    let here = Hub::builder().backplane(backplane).build();
    let there = telling(broker.clone());
    let (mut client, server) = pair(quiet());
    let _seat = there.join("lobby", &server);
    subscribed(&there, "lobby").await;
    // The stream begins while the other listens, and not in the same instant.
    sleep(BEAT).await;
    until("connected", || stats(&here).connected == 1).await;
    here.publish("lobby", vec![0; 2 << 20]);
    for _ in 0..20 {
        here.publish("lobby", vec![0; 136]);
    }
    assert_eq!(text(&mut client).await, "missed 1");
    for _ in 0..10 {
        assert_eq!(message(&mut client).await.len(), 136);
    }
    assert_eq!(text(&mut client).await, "missed 10");
    assert_eq!(stats(&here).overflowed, 10);
    assert_eq!(stats(&here).too_large, 1);
    here.publish(&"x".repeat(513), "its name is too long");
    assert_eq!(stats(&here).too_large, 2);
}

#[tokio::test(start_paused = true)]
async fn without_a_notice_a_gap_disconnects_whom_the_policy_disconnects() {
    let broker = InProcess::new();
    let faulty = Faulty::new(&broker);
    let (here, there) = (node(faulty.clone()), node(broker.clone()));
    let (mut client, server) = pair(quiet());
    let _seat = there.join("lobby", &server);
    subscribed(&there, "lobby").await;
    // The stream begins while the other listens, and not in the same instant.
    sleep(BEAT).await;
    faulty.loses.store(1, Ordering::SeqCst);
    here.publish("lobby", "lost");
    assert!(timeout(SOON, client.recv()).await.unwrap().is_none());
    let closed = client.closed().await;
    let code = closed.received().and_then(ws_core::Close::code);
    assert_eq!(code, Some(CloseCode::TRY_AGAIN_LATER));
    assert_eq!(there.stats().disconnected, 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_on_one_node_leaves_the_others_untouched() {
    let broker = InProcess::new();
    let (here, there) = (node(broker.clone()), node(broker.clone()));
    let (_stalled, slow) = pair(quiet());
    let (mut client, server) = pair(quiet());
    let (mut local, local_server) = pair(quiet());
    let _seats = [
        there.join("lobby", &slow),
        there.join("lobby", &server),
        here.join("lobby", &local_server),
    ];
    subscribed(&there, "lobby").await;
    let payload = "x".repeat(8192);
    for _ in 0..64 {
        here.publish("lobby", &*payload);
        assert_eq!(text(&mut client).await.len(), 8192);
        assert_eq!(text(&mut local).await.len(), 8192);
    }
    assert_eq!(there.stats().disconnected, 1);
    assert_eq!(stats(&there).missed, 0);
}

// What others put on the channels.

#[tokio::test(start_paused = true)]
async fn a_burst_from_another_node_is_no_reason_to_call_a_reader_slow() {
    let broker = InProcess::new();
    let (here, there) = (node(broker.clone()), node(broker));
    let (mut client, server) = pair(quiet());
    let _seat = here.join("lobby", &server);
    subscribed(&here, "lobby").await;
    // Within the queue of the backplane, and far beyond that of a socket and its backlog.
    let filler = "x".repeat(4000);
    for count in 0..500 {
        there.publish("lobby", format!("{count} {filler}"));
    }
    for count in 0..500 {
        assert_eq!(text(&mut client).await, format!("{count} {filler}"));
    }
    assert_eq!(here.stats().disconnected, 0);
}

#[tokio::test(start_paused = true)]
async fn foreign_and_broken_payloads_are_counted_and_change_nothing() {
    let broker = InProcess::new();
    let (here, there) = (node(broker.clone()), node(broker.clone()));
    let (mut client, server) = pair(quiet());
    let _seat = there.join("lobby", &server);
    subscribed(&there, "lobby").await;
    let payloads: [&'static [u8]; 6] = [
        b"",
        b"{\"text\":\"hello\"}",
        b"wsb\x04\x01from the future",
        b"wsb\x03\x01short",
        b"wsb\x03\xff\0\0\0\0\0\0\0\x01",
        // A text that is not UTF-8.
        b"wsb\x03\x01\0\0\0\0\0\0\0\x01\
          \0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\xff",
    ];
    for channel in ["ws:topic:lobby", "ws:nodes"] {
        for payload in payloads {
            broker.publish(channel, payload);
        }
    }
    until("refused", || stats(&there).refused == 12).await;
    here.publish("lobby", "fine");
    assert_eq!(text(&mut client).await, "fine");
}

/// An envelope of a node that there is not: its kind and what that has.
fn forged(kind: u8, numbers: &[u64], rest: &[u8]) -> Vec<u8> {
    let mut envelope = b"wsb\x03".to_vec();
    envelope.push(kind);
    for number in [77].iter().chain(numbers) {
        envelope.extend(number.to_be_bytes());
    }
    envelope.extend(rest);
    envelope
}

#[tokio::test(start_paused = true)]
async fn changes_that_do_not_fit_are_asked_about_once() {
    let broker = InProcess::new();
    let hub = node(broker.clone());
    let (_client, server) = pair(quiet());
    let _seat = hub.join("lobby", &server);
    subscribed(&hub, "lobby").await;
    let (mut commands, mut messages) = broker.connect().await.unwrap();
    commands
        .subscribe(&["ws:topic:lobby".into()])
        .await
        .unwrap();
    // Somebody has left, and what was before is not known.
    for version in 1000..2000 {
        let left = forged(6, &[version, version + 1], &[0; 14]);
        broker.publish("ws:topic:lobby", left);
    }
    let mut asked = 0;
    while let Ok(received) = timeout(BEAT * 2, messages.recv()).await {
        asked += usize::from(received.unwrap().1.get(4) == Some(&7));
    }
    assert_eq!(asked, 1);
}

#[tokio::test(start_paused = true)]
async fn numbers_that_cannot_be_true_break_nothing() {
    let broker = InProcess::new();
    let hub = telling(broker.clone());
    let (mut client, server) = pair(quiet());
    let _seat = hub.join("lobby", &server);
    subscribed(&hub, "lobby").await;
    // Their gaps follow each other, and become one.
    for stream in 1..4 {
        broker.publish("ws:topic:lobby", forged(4, &[stream, u64::MAX, 0, 0], b""));
    }
    let here = node(broker.clone());
    here.publish("lobby", "as ever");
    while text(&mut client).await != "as ever" {}
}

#[tokio::test(start_paused = true)]
async fn hubs_with_different_prefixes_know_nothing_of_each_other() {
    let broker = InProcess::new();
    let (here, there) = (node(broker.clone()), {
        let backplane = Backplane::new(broker.clone())
            .prefix("other")
            .heartbeat(BEAT);
        Hub::builder().backplane(backplane).build()
    });
    let (mut client, server) = pair(quiet());
    let _seat = there.join("lobby", &server);
    subscribed(&there, "lobby").await;
    here.publish("lobby", "hello");
    sleep(BEAT * 2).await;
    assert!(client.recv().now_or_never().is_none());
    assert_eq!((stats(&here).nodes, stats(&there).nodes), (0, 0));
}
