//! Hubs over brokers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
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
        // One member is read after the other.
        let patient = Config::new().keepalive_interval(None).write_timeout(None);
        let (client, server) = pair(patient);
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
        let mut read = Read::default();
        while read.next != last {
            read.note(&self.text().await);
        }
        (read.came, read.missed)
    }
}

/// What a member has read of three names.
#[derive(Debug, Default)]
struct Read {
    /// The number behind the last.
    next: [usize; 3],
    came: [usize; 3],
    missed: u64,
    /// Some are told to be missing, and what comes after them has not come yet.
    is_amid: bool,
}

impl Read {
    fn note(&mut self, text: &str) {
        // What follows fills the queues.
        let words = text.trim_end_matches('x').trim_end();
        let (name, count) = words.split_once(' ').unwrap();
        self.is_amid = name == "missed";
        if self.is_amid {
            self.missed += count.parse::<u64>().unwrap();
            return;
        }
        let (name, count): (usize, usize) = (name.parse().unwrap(), count.parse().unwrap());
        assert!(count >= self.next[name], "{text} is late, or comes again");
        self.next[name] = count + 1;
        self.came[name] += 1;
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

/// The first node publishes a message each millisecond, until the last is accounted for.
pub(crate) struct Publisher {
    published: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Publisher {
    pub(crate) fn start(nodes: &[Node; 3]) -> Self {
        let (hub, published) = (nodes[0].hub.clone(), Arc::<AtomicUsize>::default());
        let task = tokio::spawn({
            let published = Arc::clone(&published);
            async move {
                for count in 0.. {
                    hub.publish("lobby", format!("0 {count}"));
                    published.store(count + 1, Ordering::SeqCst);
                    sleep(Duration::from_millis(1)).await;
                }
            }
        });
        Self { published, task }
    }

    /// How many it has published so far.
    pub(crate) fn count(&self) -> usize {
        self.published.load(Ordering::SeqCst)
    }

    /// All have each message up to the 500th from now, or know how many are missing. Returns how many
    /// are.
    ///
    /// It goes on publishing meanwhile, for what is lost is told of with what comes next.
    pub(crate) async fn all_are_accounted_for(self, nodes: &mut [Node; 3]) -> u64 {
        let last = self.count() + 500;
        let mut all_missed = 0;
        for (name, node) in nodes.iter_mut().enumerate() {
            let mut read = Read::default();
            let all = async {
                while read.next[0] <= last || read.is_amid || read.missed < node.stats().missed {
                    read.note(&node.text().await);
                }
            };
            let in_time = timeout(SOON * 2, all).await.is_ok();
            assert!(in_time, "{read:?} of {last}, {:#?}", node.stats());
            let (came, next) = (read.came[0] as u64, read.next[0] as u64);
            assert_eq!(came + read.missed, next, "each came or was missed");
            assert!(name > 0 || read.missed == 0, "it misses none of its own");
            all_missed += read.missed;
        }
        self.task.abort();
        all_missed
    }
}
