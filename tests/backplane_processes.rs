//! Three servers in processes of their own, a real broker between them, and clients over TCP:
//! `tests/full.sh processes` runs these.
//!
//! Each client is connected to one node and sends numbered messages, which all three clients get.
//! The server is the example `load_target`, whose program `WS_TESTS_LOAD_TARGET` names.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use ws_tests::broker::{Broker, Kind};
use ws_tower::{Config, Receiver, Sender};

const SOON: Duration = Duration::from_secs(60);

// --- what is tested ---

async fn order_and_no_duplicates_under_load(kind: Kind) {
    const COUNT: u64 = 20_000;
    let broker = Broker::start(kind).await;
    let nodes = [(); 3].map(|()| Node::patient(&broker));
    let clients = three(&nodes).await;
    let publishers = clients.each_ref().map(|it| it.publish(COUNT));
    for publisher in publishers {
        publisher.await.unwrap();
    }
    for client in &clients {
        client.reach([COUNT; 3]).await;
        assert_eq!(client.seen().came, [COUNT; 3]);
        assert_eq!(client.seen().missed, 0);
    }
}

async fn a_killed_node(kind: Kind) {
    const COUNT: u64 = 20_000;
    let broker = Broker::start(kind).await;
    let mut nodes = [(); 3].map(|()| Node::patient(&broker));
    let clients = three(&nodes).await;
    let (one, two) = (clients[0].publish(COUNT), clients[1].publish(COUNT));
    let three = clients[2].publish_until(|_| false, 20, "");
    clients[0].reach([COUNT / 4; 3]).await;
    nodes[2].kill();
    one.await.unwrap();
    two.await.unwrap();
    assert!(!three.await.unwrap(), "its node was killed in mid-load");
    let published = clients[2].published();
    for client in &clients[..2] {
        client.reach([COUNT, COUNT, 0]).await;
    }
    // Whoever comes in its place takes part.
    nodes[2] = Node::patient(&broker);
    let again = Client::connect(2, &nodes[2]).await;
    meet([&clients[0], &clients[1], &again]).await;
    for client in &clients[..2] {
        let Seen { came, missed, .. } = client.seen();
        assert_eq!((came[0], came[1], missed), (COUNT, COUNT, 0));
        assert!(came[2] <= published, "{came:?} of {published}");
    }
}

async fn a_killed_broker(kind: Kind) {
    let mut broker = Broker::start(kind).await;
    let nodes = [(); 3].map(|()| Node::start(&broker));
    let clients = three(&nodes).await;
    let load = Load::start(&clients);
    sleep(Duration::from_secs(1)).await;
    broker.kill();
    // Longer than a message waits for the broker.
    sleep(Duration::from_secs(3)).await;
    broker.restart().await;
    let missed = load.end().await;
    assert!(missed.iter().all(|it| *it > 0), "{missed:?}");
}

async fn a_paused_broker(kind: Kind) {
    let broker = Broker::start(kind).await;
    let nodes = [(); 3].map(|()| Node::start(&broker));
    let clients = three(&nodes).await;
    let load = Load::start(&clients);
    sleep(Duration::from_secs(1)).await;
    broker.signal("-STOP");
    sleep(Duration::from_secs(4)).await;
    broker.signal("-CONT");
    load.end().await;
}

async fn a_slow_subscriber(kind: Kind) {
    const COUNT: u64 = 4000;
    let broker = Broker::start(kind).await;
    let nodes = [(); 3].map(|()| Node::patient(&broker));
    let clients = three(&nodes).await;
    // It takes nothing from its socket once its inbox is full.
    let config = Config::new().keepalive_interval(None);
    let connector = ws_hyper::Connector::new().config(config);
    let (stalled, _) = connector.connect(&nodes[1].url).await.unwrap();
    let filler = "x".repeat(4000);
    let publisher = clients[0].publish_until(|sent| sent == COUNT, 5, &filler);
    assert!(publisher.await.unwrap(), "its socket has closed");
    for client in &clients {
        client.reach([COUNT, 0, 0]).await;
        assert_eq!(client.seen().came, [COUNT, 0, 0]);
        assert_eq!(client.seen().missed, 0);
    }
    drop(stalled);
}

// --- a load that lasts as long as it has to ---

struct Load<'a> {
    clients: &'a [Client; 3],
    publishers: [JoinHandle<bool>; 3],
    is_over: Arc<AtomicBool>,
}

impl<'a> Load<'a> {
    fn start(clients: &'a [Client; 3]) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        Self {
            publishers: clients.each_ref().map(|it| {
                let is_over = Arc::clone(&is_over);
                it.publish_until(move |_| is_over.load(Ordering::SeqCst), 1, "")
            }),
            clients,
            is_over,
        }
    }

    /// Ends it when every client gets the messages of all again. Asserts that each message came or
    /// was told as missing, and returns how many each client has missed.
    async fn end(self) -> [u64; 3] {
        let published = self.clients.each_ref().map(Client::published);
        for client in self.clients {
            client.reach(published).await;
        }
        // A moment more, with nothing missing at the end.
        sleep(Duration::from_secs(1)).await;
        self.is_over.store(true, Ordering::SeqCst);
        for publisher in self.publishers {
            assert!(publisher.await.unwrap(), "its socket has closed");
        }
        let published = self.clients.each_ref().map(Client::published);
        let mut all_missed = [0; 3];
        for (client, missed) in self.clients.iter().zip(&mut all_missed) {
            // Those that are missing at the end are told of when all has been quiet for a while.
            let sum: u64 = published.iter().sum();
            let has_all = |it: &Seen| it.came.iter().sum::<u64>() + it.missed == sum;
            let each = format!("each of {sum} came or was missed");
            client.sees(&each, has_all).await;
            let (seen, own) = (client.seen(), client.name);
            assert_eq!(seen.came[own], published[own], "its own node misses none");
            *missed = seen.missed;
        }
        println!("published {published:?}, missed {all_missed:?}");
        all_missed
    }
}

// --- a client ---

/// A client of one node, which reads all the time.
struct Client {
    name: usize,
    sender: Sender,
    seen: Arc<Mutex<Seen>>,
    published: Arc<AtomicU64>,
    reader: JoinHandle<()>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Whose greeting has come.
    greeted: [bool; 3],
    /// The number behind the last that came of each publisher.
    next: [u64; 3],
    came: [u64; 3],
    missed: u64,
}

impl Client {
    async fn connect(name: usize, node: &Node) -> Self {
        let socket = timeout(SOON, ws_hyper::connect(&node.url)).await;
        let (sender, receiver) = socket.unwrap().unwrap().split();
        let seen = Arc::default();
        Self {
            name,
            sender,
            reader: tokio::spawn(read(receiver, Arc::clone(&seen))),
            seen,
            published: Arc::default(),
        }
    }

    fn seen(&self) -> Seen {
        *self.seen.lock().unwrap()
    }

    fn published(&self) -> u64 {
        self.published.load(Ordering::SeqCst)
    }

    /// Sends so many messages. Says whether the socket has taken all.
    fn publish(&self, count: u64) -> JoinHandle<bool> {
        self.publish_until(move |sent| sent == count, 20, "")
    }

    /// Sends messages, in batches every other millisecond.
    fn publish_until(
        &self,
        is_over: impl Fn(u64) -> bool + Send + 'static,
        batch: u64,
        filler: &str,
    ) -> JoinHandle<bool> {
        let (name, filler) = (self.name, filler.to_owned());
        let (sender, published) = (self.sender.clone(), Arc::clone(&self.published));
        tokio::spawn(async move {
            for count in 0.. {
                if is_over(count) {
                    break;
                }
                // It counts what it has sent, whatever becomes of it.
                if sender
                    .send(format!("{name} {count} {filler}"))
                    .await
                    .is_err()
                {
                    return false;
                }
                published.store(count + 1, Ordering::SeqCst);
                if count % batch == batch - 1 {
                    sleep(Duration::from_millis(2)).await;
                }
            }
            true
        })
    }

    /// Waits until this many of each publisher have come, or been missed.
    async fn reach(&self, count: [u64; 3]) {
        let is_there = |it: &Seen| it.next.iter().zip(count).all(|(next, it)| *next >= it);
        self.sees(&format!("{count:?}"), is_there).await;
    }

    async fn sees(&self, what: &str, is_so: impl Fn(&Seen) -> bool) {
        for _ in 0..6000 {
            let (name, seen) = (self.name, self.seen());
            assert!(!self.reader.is_finished(), "{name} has closed: {seen:?}");
            if is_so(&seen) {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!(
            "{} does not come to this: {what}: {:?}",
            self.name,
            self.seen()
        );
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Reads until the end. What comes late or twice is a panic, and that an end.
async fn read(mut receiver: Receiver, seen: Arc<Mutex<Seen>>) {
    while let Some(Ok(message)) = receiver.recv().await {
        let text = message.as_text().unwrap();
        let mut words = text.split(' ');
        let (name, count) = (words.next().unwrap(), words.next().unwrap());
        let count: u64 = count.parse().unwrap();
        let mut seen = seen.lock().unwrap();
        match name {
            "missed" => seen.missed += count,
            "hello" => seen.greeted[usize::try_from(count).unwrap()] = true,
            name => {
                let name: usize = name.parse().unwrap();
                assert!(
                    count >= seen.next[name],
                    "`{name} {count}` is late, or comes again"
                );
                seen.next[name] = count + 1;
                seen.came[name] += 1;
            }
        }
    }
}

/// A client on each node; all hear each other.
async fn three(nodes: &[Node; 3]) -> [Client; 3] {
    let [one, two, three] = nodes;
    let clients = [
        Client::connect(0, one).await,
        Client::connect(1, two).await,
        Client::connect(2, three).await,
    ];
    meet(clients.each_ref()).await;
    clients
}

async fn meet(clients: [&Client; 3]) {
    for client in clients {
        client.seen.lock().unwrap().greeted = [false; 3];
    }
    let all_greeted = || clients.iter().all(|it| it.seen().greeted == [true; 3]);
    for _ in 0..600 {
        for client in clients {
            client
                .sender
                .send(format!("hello {}", client.name))
                .await
                .unwrap();
        }
        sleep(Duration::from_millis(100)).await;
        if all_greeted() {
            // What was lost before they knew each other does not count.
            for client in clients {
                client.seen.lock().unwrap().missed = 0;
            }
            return;
        }
    }
    panic!("they do not hear each other");
}

// --- processes ---

/// A server in a process of its own, which ends with it.
struct Node {
    child: Child,
    url: String,
}

impl Node {
    fn start(broker: &Broker) -> Self {
        Self::start_with(broker, &[])
    }

    /// One that loses nothing while the machine has other things to do.
    fn patient(broker: &Broker) -> Self {
        Self::start_with(broker, &["--deadline", "60"])
    }

    fn start_with(broker: &Broker, more: &[&str]) -> Self {
        let program = std::env::var("WS_TESTS_LOAD_TARGET").expect("the program load_target");
        let mut child = Command::new(program)
            .args(["fanout", "--listen", "127.0.0.1:0"])
            .args(["--backplane", &broker.url()])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("load_target starts");
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let url = line.trim().to_owned();
        assert!(
            url.starts_with("ws://"),
            "the first line is the address: {url}"
        );
        Self { child, url }
    }

    /// By SIGKILL.
    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

macro_rules! tests {
    ($module:ident, $kind:expr) => {
        mod $module {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs a broker: tests/full.sh"]
            async fn keeps_order_and_repeats_nothing_between_processes() {
                order_and_no_duplicates_under_load($kind).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs a broker: tests/full.sh"]
            async fn does_not_feel_that_a_process_is_killed() {
                a_killed_node($kind).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs a broker: tests/full.sh"]
            async fn that_is_killed_and_started_again_loses_what_clients_are_told() {
                a_killed_broker($kind).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs a broker: tests/full.sh"]
            async fn that_is_paused_and_goes_on_loses_what_clients_are_told() {
                a_paused_broker($kind).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs a broker: tests/full.sh"]
            async fn does_not_feel_a_client_that_does_not_read() {
                a_slow_subscriber($kind).await;
            }
        }
    };
}

tests!(redis, Kind::Redis);
tests!(nats, Kind::Nats);
