//! Hubs over brokers.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use ws_tests::broker::{Broker, Kind};
use ws_tower::{
    Config, WebSocket,
    hub::{
        Backplane, Hub, Policy, Seat, SlowConsumer,
        backplane::{BackplaneStats, Nats, Redis},
    },
    pair,
};

pub(crate) const SOON: Duration = Duration::from_secs(30);
pub(crate) const BEAT: Duration = Duration::from_millis(300);

/// A hub's way to this broker.
pub(crate) fn backplane(kind: Kind, url: &str) -> Backplane {
    match kind {
        Kind::Redis => Redis::new(url).unwrap().into(),
        Kind::Nats => Nats::new(url).into(),
    }
}

/// What this command of a Redis server answers its administrator.
pub(crate) async fn ask<T: redis::FromRedisValue>(server: &Broker, command: &[&str]) -> T {
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut question = redis::cmd(command[0]);
    question.arg(&command[1..]);
    question.query_async(&mut connection).await.unwrap()
}

/// A hub over a broker, with one member of the topic `lobby`.
pub(crate) struct Node {
    pub(crate) hub: Hub,
    pub(crate) client: WebSocket,
    pub(crate) server: WebSocket,
    _seat: Seat,
}

impl Node {
    /// One that soon notices what is wrong.
    pub(crate) fn of(broker: impl Into<Backplane>) -> Self {
        Self::with(broker.into().heartbeat(BEAT).max_backoff(BEAT))
    }

    /// One that is not disturbed by a machine that has other things to do.
    pub(crate) fn patient(broker: impl Into<Backplane>) -> Self {
        Self::with(broker.into().deadline(SOON))
    }

    fn with(backplane: Backplane) -> Self {
        let policy = Policy::new(SlowConsumer::DropOldest)
            .backlog(1 << 30)
            .notice(|lag| format!("missed {}", lag.missed()));
        let hub = Hub::builder()
            .slow_consumer(policy)
            .backplane(backplane)
            .build();
        let (client, server) = pair(Config::new().keepalive_interval(None));
        let seat = hub.join("lobby", &server);
        Self {
            hub,
            client,
            server,
            _seat: seat,
        }
    }

    pub(crate) fn stats(&self) -> BackplaneStats {
        self.hub.backplane_stats().unwrap()
    }

    pub(crate) async fn ready(&self) {
        let subscribed = self.hub.subscribed("lobby");
        let in_time = timeout(SOON, subscribed).await.is_ok();
        assert!(in_time, "no subscription; {}", super::log::said());
    }

    pub(crate) async fn text(&mut self) -> String {
        let message = timeout(SOON, self.client.recv()).await.expect("in time");
        message.unwrap().unwrap().as_text().unwrap().to_owned()
    }

    /// Reads the messages `NAME COUNT` up to this one. Returns for each of three names how many
    /// came, in order and none twice; and how many were said to be missing.
    pub(crate) async fn read_until(&mut self, last: [usize; 3]) -> ([usize; 3], u64) {
        let mut next = [0; 3];
        let (mut came, mut missed) = ([0; 3], 0);
        while next != last {
            let text = self.text().await;
            // What follows fills the queues.
            let (name, count) = text
                .trim_end_matches('x')
                .trim_end()
                .split_once(' ')
                .unwrap();
            if name == "missed" {
                missed += count.parse::<u64>().unwrap();
                continue;
            }
            let (name, count): (usize, usize) = (name.parse().unwrap(), count.parse().unwrap());
            assert!(count >= next[name], "{text} is late, or comes again");
            next[name] = count + 1;
            came[name] += 1;
        }
        (came, missed)
    }
}

pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if is_so() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came: {what}");
}

/// Three nodes that see each other.
pub(crate) async fn three(mut node: impl FnMut(usize) -> Node) -> [Node; 3] {
    let nodes = [0, 1, 2].map(&mut node);
    for node in &nodes {
        node.ready().await;
    }
    for node in &nodes {
        until("all see all", || node.hub.member_count("lobby") == 3).await;
    }
    nodes
}

/// All three publish 20,000 messages at once: each gets all of them, in order and none twice.
pub(crate) async fn all_come_in_order(mut nodes: [Node; 3]) {
    const COUNT: usize = 20_000;
    for (name, node) in nodes.iter().enumerate() {
        let hub = node.hub.clone();
        tokio::spawn(async move {
            for count in 0..COUNT {
                hub.publish("lobby", format!("{name} {count}"));
                if count % 100 == 99 {
                    sleep(Duration::from_millis(1)).await;
                }
            }
        });
    }
    for node in 0..3 {
        let read = nodes[node].read_until([COUNT; 3]).await;
        let stats = nodes.each_ref().map(Node::stats);
        assert_eq!(read, ([COUNT; 3], 0), "{stats:#?}");
    }
    for node in &nodes {
        let stats = node.stats();
        assert_eq!((stats.missed, stats.repeated, stats.refused), (0, 0, 0));
        assert_eq!(stats.received, 2 * COUNT as u64);
    }
}

/// The first node publishes 6000 messages in 6 seconds or more; returns when it has.
pub(crate) async fn publish_6000(hub: Hub) -> Duration {
    let mut longest = Duration::ZERO;
    for count in 0..6000 {
        let before = std::time::Instant::now();
        hub.publish("lobby", format!("0 {count}"));
        longest = longest.max(before.elapsed());
        sleep(Duration::from_millis(1)).await;
    }
    longest
}

/// All have each of the 6000, or know how many are missing. Returns how many are.
pub(crate) async fn all_are_accounted_for(nodes: &mut [Node; 3]) -> u64 {
    // The last may be among those that are missing.
    nodes[0].hub.publish("lobby", "0 6000");
    let mut all_missed = 0;
    assert_eq!(nodes[0].read_until([6001, 0, 0]).await, ([6001, 0, 0], 0));
    for node in &mut nodes[1..] {
        let (came, missed) = node.read_until([6001, 0, 0]).await;
        assert_eq!(came[0] as u64 + missed, 6001, "each came or was missed");
        assert_eq!(node.stats().missed, missed);
        all_missed += missed;
    }
    all_missed
}
