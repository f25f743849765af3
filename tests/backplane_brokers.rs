//! The hub across nodes, over real brokers: `tests/full.sh backplane` runs these.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::time::{sleep, timeout};
use ws_tower::{
    Config, WebSocket,
    hub::{
        Backplane, Hub, Policy, Seat, SlowConsumer,
        backplane::{BackplaneStats, Nats, Redis},
    },
    pair,
};

const SOON: Duration = Duration::from_secs(30);
const BEAT: Duration = Duration::from_millis(300);

#[derive(Clone, Copy)]
enum Kind {
    Redis,
    Nats,
}

/// A broker in a process of its own, which ends with it.
struct Server {
    kind: Kind,
    port: u16,
    child: Child,
}

impl Server {
    async fn start(kind: Kind) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let child = Self::spawn(kind, port).await;
        Self { kind, port, child }
    }

    async fn spawn(kind: Kind, port: u16) -> Child {
        let port_text = port.to_string();
        let (program, arguments) = match kind {
            Kind::Redis => (
                "redis-server",
                vec!["--bind", "127.0.0.1", "--port", &*port_text, "--save", ""],
            ),
            Kind::Nats => ("nats-server", vec!["-a", "127.0.0.1", "-p", &*port_text]),
        };
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the broker is installed");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        for _ in 0..500 {
            if TcpStream::connect(address).is_ok() {
                return child;
            }
            sleep(Duration::from_millis(10)).await;
        }
        let _ = child.kill();
        let _ = child.wait();
        panic!("the broker does not listen");
    }

    fn backplane(&self) -> Backplane {
        let backplane = match self.kind {
            Kind::Redis => {
                Backplane::new(Redis::new(&format!("redis://127.0.0.1:{}", self.port)).unwrap())
            }
            Kind::Nats => Backplane::new(Nats::new(&format!("nats://127.0.0.1:{}", self.port))),
        };
        backplane.heartbeat(BEAT).max_backoff(BEAT)
    }

    fn node(&self) -> Node {
        let policy = Policy::new(SlowConsumer::DropOldest)
            .backlog(1 << 30)
            .notice(|lag| format!("missed {}", lag.missed()));
        let hub = Hub::builder()
            .slow_consumer(policy)
            .backplane(self.backplane())
            .build();
        let (client, server) = pair(Config::new().keepalive_interval(None));
        let seat = hub.join("lobby", &server);
        Node {
            hub,
            client,
            _server: server,
            _seat: seat,
        }
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(status.success());
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    async fn restart(&mut self) {
        self.child = Self::spawn(self.kind, self.port).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Node {
    hub: Hub,
    client: WebSocket,
    _server: WebSocket,
    _seat: Seat,
}

impl Node {
    fn stats(&self) -> BackplaneStats {
        self.hub.backplane_stats().unwrap()
    }

    async fn ready(&self) {
        let subscribed = self.hub.subscribed("lobby");
        timeout(SOON, subscribed).await.expect("a subscription");
    }

    async fn text(&mut self) -> String {
        let message = timeout(SOON, self.client.recv()).await.expect("in time");
        message.unwrap().unwrap().as_text().unwrap().to_owned()
    }

    /// Reads the messages `NAME COUNT` up to this one. Returns for each of three names how many
    /// came, in order and none twice; and how many were said to be missing.
    async fn read_until(&mut self, last: [usize; 3]) -> ([usize; 3], u64) {
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

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if is_so() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came: {what}");
}

async fn three(server: &Server) -> [Node; 3] {
    let nodes = [(); 3].map(|()| server.node());
    for node in &nodes {
        node.ready().await;
    }
    for node in &nodes {
        until("all see all", || node.hub.member_count("lobby") == 3).await;
    }
    nodes
}

async fn order_and_no_duplicates_under_load(kind: Kind) {
    const COUNT: usize = 20_000;
    let server = Server::start(kind).await;
    let mut nodes = three(&server).await;
    let mut publishers = Vec::new();
    for (name, node) in nodes.iter().enumerate() {
        let hub = node.hub.clone();
        publishers.push(tokio::spawn(async move {
            for count in 0..COUNT {
                hub.publish("lobby", format!("{name} {count}"));
                if count % 100 == 99 {
                    sleep(Duration::from_millis(1)).await;
                }
            }
        }));
    }
    for node in &mut nodes {
        assert_eq!(node.read_until([COUNT; 3]).await, ([COUNT; 3], 0));
    }
    for node in &nodes {
        let stats = node.stats();
        assert_eq!((stats.missed, stats.repeated, stats.refused), (0, 0, 0));
        assert_eq!(stats.received, 2 * COUNT as u64);
    }
}

/// Nodes that come and go while one publishes: each begins with a newest message, and gets all that
/// follow once.
async fn nodes_that_come_later(kind: Kind) {
    let server = Server::start(kind).await;
    let node = || {
        let policy = Policy::new(SlowConsumer::Disconnect)
            .backlog(usize::MAX)
            .retain();
        Hub::builder()
            .slow_consumer(policy)
            .backplane(server.backplane())
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
    let mut server = Server::start(kind).await;
    let mut nodes = three(&server).await;
    let hub = nodes[0].hub.clone();
    let publisher = tokio::spawn(async move {
        for count in 0..6000 {
            hub.publish("lobby", format!("0 {count}"));
            sleep(Duration::from_millis(1)).await;
        }
    });
    sleep(Duration::from_secs(1)).await;
    server.kill();
    // Longer than the deadline.
    sleep(Duration::from_secs(3)).await;
    server.restart().await;
    publisher.await.unwrap();
    assert_eq!(nodes[0].read_until([6000, 0, 0]).await, ([6000, 0, 0], 0));
    for node in &mut nodes[1..] {
        let (came, missed) = node.read_until([6000, 0, 0]).await;
        assert!(missed > 0, "it was away for longer than the deadline");
        assert_eq!(came[0] as u64 + missed, 6000, "each came or was missed");
        assert_eq!(node.stats().missed, missed);
        assert_eq!(node.hub.member_count("lobby"), 3);
    }
    assert!(nodes[0].stats().expired > 0);
}

async fn a_paused_broker(kind: Kind) {
    let server = Server::start(kind).await;
    let mut nodes = three(&server).await;
    let hub = nodes[0].hub.clone();
    let publisher = tokio::spawn(async move {
        let mut longest = Duration::ZERO;
        for count in 0..6000 {
            let before = std::time::Instant::now();
            hub.publish("lobby", format!("0 {count}"));
            longest = longest.max(before.elapsed());
            sleep(Duration::from_millis(1)).await;
        }
        longest
    });
    sleep(Duration::from_secs(1)).await;
    server.signal("-STOP");
    sleep(Duration::from_secs(4)).await;
    server.signal("-CONT");
    let longest = publisher.await.unwrap();
    assert!(longest < Duration::from_millis(500), "{longest:?}");
    nodes[0].hub.publish("lobby", "0 6000");
    for node in &mut nodes[1..] {
        let (came, missed) = node.read_until([6001, 0, 0]).await;
        assert_eq!(came[0] as u64 + missed, 6001, "each came or was missed");
        assert_eq!(node.stats().missed, missed);
    }
}

async fn a_slow_subscriber(kind: Kind) {
    let server = Server::start(kind).await;
    let mut nodes = three(&server).await;
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
    const URL: &str = "WS_TESTS_BROKER_PORT";
    if let Ok(port) = std::env::var(URL) {
        let server = Server {
            kind,
            port: port.parse().unwrap(),
            // Something to own: it ends at once.
            child: Command::new("true").spawn().unwrap(),
        };
        let node = server.node();
        node.ready().await;
        sleep(Duration::from_secs(60)).await;
        return;
    }
    let server = Server::start(kind).await;
    let nodes = three(&server).await;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--ignored"])
        .env(URL, server.port.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("the fourth member", || {
        nodes.iter().all(|it| it.hub.member_count("lobby") == 4)
    })
    .await;
    child.kill().unwrap();
    child.wait().unwrap();
    let before = std::time::Instant::now();
    until("its members vanish", || {
        nodes.iter().all(|it| it.hub.member_count("lobby") == 3)
    })
    .await;
    assert!(before.elapsed() < BEAT * 8, "{:?}", before.elapsed());
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
