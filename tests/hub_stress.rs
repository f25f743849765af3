//! The hub under many threads: exact counts, one order for all, and no lock that stays.
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

use tokio::time::timeout;
use ws_tests::random::Random;
use ws_tower::{
    Config, Message, WebSocket,
    hub::{Hub, Policy, Presence, SlowConsumer},
    pair,
};

const SOON: Duration = Duration::from_secs(60);

/// A hub under which nobody loses anything.
fn patient() -> Hub {
    let policy = Policy::new(SlowConsumer::Disconnect).backlog(usize::MAX);
    Hub::builder().slow_consumer(policy).build()
}

fn config(outgoing: usize) -> Config {
    Config::new()
        .keepalive_interval(None)
        .outgoing_high_water(outgoing)
}

/// The number of the publisher, and of its message.
fn parse(message: &Message) -> (usize, usize) {
    let (publisher, number) = message.as_text().unwrap().split_once(' ').unwrap();
    (publisher.parse().unwrap(), number.parse().unwrap())
}

async fn next(socket: &mut WebSocket) -> (usize, usize) {
    let message = timeout(SOON, socket.recv()).await.unwrap();
    parse(&message.unwrap().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_members_get_all_messages_in_one_order() {
    const PUBLISHERS: usize = 4;
    const MEMBERS: usize = 300;
    const MESSAGES: usize = 200;
    let hub = patient();
    let mut clients = Vec::new();
    let mut held = Vec::new();
    for number in 0..MEMBERS {
        // Some have to wait at once, others mostly not.
        let (client, server) = pair(config([300, 3_000, 64 << 10][number % 3]));
        held.push((hub.join("topic", &server), server));
        clients.push(client);
    }
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            let hub = hub.clone();
            thread::spawn(move || {
                for number in 0..MESSAGES {
                    let reached = hub.publish("topic", format!("{publisher} {number}"));
                    assert_eq!(reached, MEMBERS);
                    if number % 16 == 0 {
                        thread::yield_now();
                    }
                }
            })
        })
        .collect();
    let mut first: Option<Vec<_>> = None;
    for mut client in clients {
        let mut seen = Vec::new();
        let mut next_of = [0; PUBLISHERS];
        for _ in 0..PUBLISHERS * MESSAGES {
            let (publisher, number) = next(&mut client).await;
            assert_eq!(number, next_of[publisher]);
            next_of[publisher] += 1;
            seen.push((publisher, number));
        }
        assert_eq!(next_of, [MESSAGES; PUBLISHERS]);
        let first = first.get_or_insert_with(|| seen.clone());
        assert_eq!(*first, seen);
    }
    for publisher in publishers {
        publisher.join().unwrap();
    }
    let stats = hub.stats();
    let published = PUBLISHERS * MESSAGES;
    assert_eq!(stats.published, published as u64);
    assert_eq!(stats.delivered, (published * MEMBERS) as u64);
    drop(held);
    assert_eq!(hub.topic_count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_joins_amid_messages_gets_all_that_follow_without_a_hole() {
    const JOINERS: usize = 8;
    let hub = patient();
    let done = Arc::new(AtomicBool::new(false));
    // So many that new segments come and go.
    let (_quiet, crowd) = pair(config(64 << 10));
    let publisher = thread::spawn({
        let (hub, done) = (hub.clone(), Arc::clone(&done));
        move || {
            let mut number = 0;
            while !done.load(Ordering::Relaxed) {
                hub.publish("topic", format!("0 {number}"));
                number += 1;
                // Slower than everyone who reads.
                thread::sleep(Duration::from_micros(300));
            }
        }
    });
    let joiners: Vec<_> = (0..JOINERS)
        .map(|joiner| {
            let hub = hub.clone();
            tokio::spawn(async move {
                let mut random = Random::new(joiner as u64);
                for _ in 0..60 {
                    let (mut client, server) = pair(config(64 << 10));
                    let seat = hub.join("topic", &server);
                    let (_, mut expected) = next(&mut client).await;
                    for _ in 0..random.below(10) {
                        expected += 1;
                        assert_eq!(next(&mut client).await.1, expected);
                    }
                    if random.chance(50) {
                        drop(seat);
                        server.close(None).await;
                    } else {
                        drop((seat, server));
                    }
                }
            })
        })
        .collect();
    let churn = tokio::spawn({
        let hub = hub.clone();
        async move {
            let mut seats = Vec::new();
            for round in 0..40 {
                let other = "elsewhere";
                seats.extend((0..300).map(|_| hub.join(other, &crowd)));
                assert_eq!(hub.member_count(other), seats.len());
                seats.truncate(round % 7 * 50);
                tokio::task::yield_now().await;
            }
        }
    });
    for joiner in joiners {
        joiner.await.unwrap();
    }
    churn.await.unwrap();
    done.store(true, Ordering::Relaxed);
    publisher.join().unwrap();
    timeout(SOON, async {
        while hub.topic_count() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crowd_that_joins_amid_messages_sees_one_order_across_segments() {
    let hub = patient();
    let done = Arc::new(AtomicBool::new(false));
    let published: [AtomicUsize; 3] = Default::default();
    let published = Arc::new(published);
    let publishers: Vec<_> = (0..3)
        .map(|publisher| {
            let (hub, done) = (hub.clone(), Arc::clone(&done));
            let published = Arc::clone(&published);
            thread::spawn(move || {
                let mut number = 0;
                while !done.load(Ordering::Relaxed) && number < 20_000 {
                    hub.publish("topic", format!("{publisher} {number}"));
                    number += 1;
                    published[publisher].store(number, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(1));
                }
            })
        })
        .collect();
    // However late their threads are, all of them publish before the last has come, and after.
    let all_publish = async || {
        let counts = || published.iter().map(|it| it.load(Ordering::Relaxed));
        let before: Vec<_> = counts().collect();
        timeout(SOON, async {
            while counts().zip(&before).any(|(now, before)| now < before + 5) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .unwrap();
    };
    let mut members = Vec::new();
    for number in 0..600 {
        if number % 100 == 50 {
            all_publish().await;
        }
        let (client, server) = pair(config(64 << 10));
        members.push((client, hub.join("topic", &server), server));
    }
    all_publish().await;
    done.store(true, Ordering::Relaxed);
    for publisher in publishers {
        publisher.join().unwrap();
    }
    assert_eq!(hub.publish("topic", "9 0"), 600);
    // The first has seen the most: what all others have is the end of it.
    let mut all: Option<Vec<_>> = None;
    for (client, _, _) in &mut members {
        let mut seen = Vec::new();
        loop {
            let message = next(client).await;
            if message.0 == 9 {
                break;
            }
            seen.push(message);
        }
        let all = all.get_or_insert_with(|| seen.clone());
        assert!(all.ends_with(&seen), "a hole, or another order");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn topics_that_come_and_go_lose_no_member() {
    let hub = patient();
    let reached = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..4)
        .map(|task| {
            let (hub, reached) = (hub.clone(), Arc::clone(&reached));
            tokio::spawn(async move {
                let (mut client, server) = pair(config(64 << 10));
                for number in 0..500 {
                    // All four make and forget the same few topics.
                    let topic = ["a", "b", "c"][number % 3];
                    let seat = hub.join(topic, &server);
                    assert!(hub.member_count(topic) >= 1);
                    assert!(hub.publish_to(topic, seat.id(), format!("{task} {number}")));
                    assert_eq!(next(&mut client).await, (task, number));
                    reached.fetch_add(1, Ordering::Relaxed);
                    drop(seat);
                }
            })
        })
        .collect();
    for task in tasks {
        timeout(SOON, task).await.unwrap().unwrap();
    }
    assert_eq!(reached.load(Ordering::Relaxed), 2000);
    assert_eq!(hub.topic_count(), 0);
    assert!(hub.topics().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn presence_under_churn_adds_up_to_who_is_there() {
    let hub = patient();
    let mut watch = hub.watch("topic");
    let tasks: Vec<_> = (0..4)
        .map(|task| {
            let hub = hub.clone();
            tokio::spawn(async move {
                let (client, server) = pair(config(64 << 10));
                let mut seats = Vec::new();
                let mut random = Random::new(task);
                for _ in 0..2000 {
                    if random.chance(60) {
                        seats.push(hub.join_as("topic", &server, task.to_string()));
                    } else if !seats.is_empty() {
                        drop(seats.swap_remove(random.below(seats.len())));
                    }
                    if random.chance(5) {
                        tokio::task::yield_now().await;
                    }
                }
                (seats, server, client)
            })
        })
        .collect();
    let mut held = Vec::new();
    for task in tasks {
        held.push(timeout(SOON, task).await.unwrap().unwrap());
    }
    let last = hub.join_as("topic", &held[0].1, "last");
    let mut there = HashMap::new();
    loop {
        match timeout(SOON, watch.recv()).await.unwrap().unwrap() {
            Presence::Members(members) => {
                there = members.into_iter().map(|it| (it.id(), it)).collect();
            }
            Presence::Joined(member) => {
                assert_eq!(there.insert(member.id(), member), None);
            }
            Presence::Left(member) => {
                assert_eq!(there.remove(&member.id()), Some(member));
            }
            _ => {}
        }
        if there.contains_key(&last.id()) {
            break;
        }
    }
    let members = hub.members("topic");
    assert_eq!(members.len(), there.len());
    assert!(members.iter().all(|it| there.get(&it.id()) == Some(it)));
    let seats: usize = held.iter().map(|(seats, _, _)| seats.len()).sum();
    assert_eq!(seats + 1, there.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_policy_counts_exactly_under_many_publishers() {
    for rule in [
        SlowConsumer::SkipNewest,
        SlowConsumer::DropOldest,
        SlowConsumer::Latest,
    ] {
        let policy = Policy::new(rule).backlog(2000);
        let hub = Hub::builder().slow_consumer(policy).build();
        let members: Vec<_> = (0..20)
            .map(|_| {
                let (client, server) = pair(config(1000));
                (hub.join("topic", &server), server, client)
            })
            .collect();
        let publishers: Vec<_> = (0..4)
            .map(|publisher| {
                let hub = hub.clone();
                thread::spawn(move || {
                    let publish = |number| hub.publish("topic", format!("{publisher} {number}"));
                    (0..2000).map(publish).sum::<usize>()
                })
            })
            .collect();
        let reached = publishers.into_iter().map(|it| it.join().unwrap());
        let reached: usize = reached.sum();
        let mut received = 0;
        for (seat, server, mut client) in members {
            // What waits goes out first, and then this.
            let hub = hub.clone();
            let last = tokio::spawn(async move {
                while !hub.publish_to("topic", seat.id(), "9 9") {
                    tokio::task::yield_now().await;
                }
                (seat, server)
            });
            let mut next_of = [0; 4];
            loop {
                let (publisher, number) = next(&mut client).await;
                if publisher == 9 {
                    break;
                }
                assert!(number >= next_of[publisher]);
                next_of[publisher] = number + 1;
                received += 1;
            }
            drop(last.await.unwrap());
        }
        let stats = hub.stats();
        let lost = usize::try_from(stats.dropped + stats.replaced).unwrap();
        assert_eq!(reached, received + lost, "{rule:?}");
        if rule == SlowConsumer::SkipNewest {
            let skipped = usize::try_from(stats.skipped).unwrap();
            // The last messages may have been tried more than once.
            assert!(reached + skipped >= 4 * 2000 * 20);
        } else {
            assert_eq!(reached, 4 * 2000 * 20);
        }
    }
}
