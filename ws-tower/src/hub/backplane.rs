//! The hub across machines: a broker carries what is published between the nodes.
//!
//! A node is a process with a hub. Hubs with a [`Backplane`] over the same broker, and the same
//! [prefix](Backplane::prefix), share their topics: the application stays as it is. Without one a
//! hub is one process, with nothing to install.
//!
//! ```
//! use ws_tower::hub::{Hub, backplane::InProcess};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use ws_tower::Config;
//! // Instead of it: `Redis::new("redis://10.0.0.7")?` or `Nats::new("nats://10.0.0.7")`.
//! let broker = InProcess::new();
//! let here = Hub::builder().backplane(broker.clone()).build();
//! let there = Hub::builder().backplane(broker.clone()).build();
//!
//! let (mut client, server) = ws_tower::pair(Config::new());
//! let seat = there.join("lobby", &server);
//! there.subscribed("lobby").await;
//! // Nobody is reached on this node.
//! assert_eq!(here.publish("lobby", "hello"), 0);
//! assert_eq!(client.recv().await.transpose()?, Some("hello".into()));
//! # drop(seat);
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! - **Nobody waits.** Publishing reaches the members of this node at once, and queues the message
//!   for the others. A task hands it to the broker, within a [deadline](Backplane::deadline). The
//!   number that publishing returns is of this node.
//! - **Once, in order, or missed.** The messages of a node to a topic are numbered. Members on
//!   other nodes get them in order and never twice. What does not arrive, for whatever reason, is
//!   found by its number, or by a mark that follows when the topic has been quiet for a
//!   [heartbeat](Backplane::heartbeat), or when a connection has come back. Nothing is stored, so
//!   nothing is sent again later. A node that subscribes in the very moment in which the first
//!   messages of another one are on their way may count them as missing: rather that than a loss
//!   unseen.
//! - **Missing is told.** Each member of the topic gets the [notice](super::Policy::notice) of its
//!   policy, with the number of messages that are missing in that place. Without a notice, the
//!   policy [`Disconnect`](super::SlowConsumer::Disconnect) closes the sockets, for nobody is to
//!   have a wrong picture without knowing it; under the others nothing is told.
//! - **Little traffic.** A node has one subscription for each topic that it has members or watches
//!   of, and gives it up with the last. The broker carries the message as it is, behind a header
//!   of 38 bytes; it is encoded for the sockets once on each node. What a node publishes the
//!   broker sends back to it if it has members of the topic, and it is thrown away.
//! - **Members.** [`Hub::members`](super::Hub::members), [`member_count`](super::Hub::member_count)
//!   and [`watch`](super::Hub::watch) tell of the members of all nodes, on a node that has the
//!   topic itself. They vanish when their node ends, and three heartbeats after it has died. While
//!   the broker is away nobody vanishes. [Without presence](Backplane::without_presence)
//!   each node knows its own.
//! - **The newest message**, where the [policy](super::Policy::retain) retains it. A node that
//!   subscribes to a topic asks for it, and so does one that has missed messages and nothing newer
//!   has come. The node that has published it tells it again, after a round trip; if it has no members any
//!   more, one of the others does, 25 to 125 ms later. All members there get it, unless it has reached them
//!   or something newer has. What passes while a node subscribes may be missing between the message
//!   that it begins with and those that follow. With no node left that has members or watches of the
//!   topic it is gone.
//! - **Strangers.** What is on the channels and not an envelope of this version is refused and
//!   counted. Who may publish to the broker may publish to every topic: guard it.
//!
//! Between two nodes the order of a topic may differ: each has its own members' messages first. So
//! two nodes that publish at the same moment may retain different messages, until the next.
//!
//! A node that is new to a topic learns from those who have it how far they are, and counts from
//! there; of a node that publishes to it and does not have it, it counts from the first message.
//!
//! What is counted is the node's: a member that joins during an outage is told of the whole of it.
//! A message [to one member](super::Hub::publish_to) has a number as all others, and when it is
//! lost all members are told. A stream that began within the time a message travels before
//! the subscription may be counted from its beginning. An outage of more than 10 minutes may
//! hide what a node without members has published before it ended, and a node that was away for
//! as long begins anew with the others: what it published before it came back is not counted.
//!
//! A hub numbers the other nodes in the ids of their members, and gives no number twice, for an id may
//! be kept by the application. There are 65,534: members of nodes that it hears of later are seen and
//! get what is published to all, but cannot be named in [`publish_to`](super::Hub::publish_to),
//! [`publish_except`](super::Hub::publish_except) and [`node_of`](super::Hub::node_of). That is as many
//! starts of nodes in the life of one process.
//!
//! A topic with a name of more than 512 bytes is not shared; its messages count as
//! [too large](BackplaneStats::too_large). When the last [`Hub`](super::Hub) is dropped, the node
//! takes its leave, and seats that are left publish on their own node. A program that ends awaits
//! [`Hub::leave`](super::Hub::leave).
//!
//! # What is kept
//!
//! A node remembers how far it has come with each topic that it publishes to, and the version of
//! its members: about 200 bytes and the name. That is what the others compare their numbers with.
//! For topics that somebody on this node has it is kept. For others it is of use as long as a node may
//! be cut off that has missed something: it is forgotten six heartbeats after the last message, join or
//! leave, and while a node is missing, or this one, after 10 minutes. Names may come from clients, so
//! it is at most 65,536 of the others: beyond that those that were used first are forgotten, after the
//! mark that says to all who are there what is missing, and are counted as
//! [forgotten](BackplaneStats::forgotten). Then a node that was cut off at that moment may not be
//! told what it has missed there, and if the broker is behind by as many marks, neither are the
//! others. [`BackplaneStats::streams`] is how many there are.
//!
//! # Redis or NATS
//!
//! Take the one that you operate already. Without one:
//!
//! | | Redis, Valkey | core NATS |
//! |---|---|---|
//! | feature | `redis`; `redis-rustls` for TLS | `nats`, with TLS |
//! | server | 6.0, for a cluster 7.0 | 2.0 |
//! | connections of a node | 2, for a cluster 2 to each master | 1 |
//! | sent means | the server has answered | it is written to the connection |
//! | the broker restarts | what had no answer is sent again, within the deadline | what was on its way is missed |
//! | the largest payload | 512 MiB | `max_payload` of the server, 1 MiB by default: messages of 1 MiB need more |
//! | a node that does not keep up | connects anew when 64 MiB wait in it, or when `client-output-buffer-limit pubsub` wait in the server, 32 MiB by default | is cut off by the server (`write_deadline`, `max_pending`), or loses beyond 65,536 messages of a topic |
//! | memory for each topic on a node | little | a queue of some kilobytes |
//! | more than one server | a cluster divides topics between its masters | a cluster carries messages to where subscribers are |
//! | when one of them dies | all topics wait until its replica has taken over | its nodes go on with another |
//!
//! Both lose what is on its way when a connection breaks, and neither loses it unseen. No store is
//! used: neither Redis streams nor `JetStream`.
//!
//! Users, passwords, TLS, clusters and what to watch: [`operation`].
//!
//! # How many of them
//!
//! [`sizing`] has what a node and a broker can do, measured, and what follows for 100,000, 1 million
//! and 10 million sockets.
//!
//! # Other brokers
//!
//! [`Broker`] and its two halves are all that is asked of one. [`InProcess`] is for tests.

mod broker;
mod envelope;
mod in_process;
mod inbound;
mod link;
#[cfg(feature = "nats")]
mod nats;
mod nodes;
pub mod operation;
#[cfg(feature = "redis")]
mod redis;
mod relay;
#[doc = include_str!("backplane/sizing.md")]
pub mod sizing {}
mod stamp;
mod stats;

use std::{
    fmt,
    future::Future,
    hash::{BuildHasher, RandomState},
    pin::Pin,
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use super::{Inner, Shared};

#[cfg(feature = "nats")]
pub use self::nats::{Nats, NatsCommands, NatsMessages};
#[cfg(feature = "redis")]
pub use self::redis::{Redis, RedisCluster, RedisClusterCommands, RedisCommands, RedisMessages};
pub use self::{
    broker::{Broker, Commands, Messages},
    in_process::{InProcess, InProcessCommands, InProcessMessages},
    stats::BackplaneStats,
};
pub(super) use self::{
    envelope::{Change, Entry, Place, SeatId},
    inbound::Inbound,
    relay::Relay,
    stamp::Stamp,
};

/// How a hub shares its topics with those of other nodes: see the [module](self).
#[must_use]
pub struct Backplane {
    start: Box<Start>,
    options: Options,
}

type Start =
    dyn FnOnce(Arc<Inbound>, Arc<Relay>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send;

#[derive(Debug)]
struct Options {
    prefix: String,
    deadline: Duration,
    queue: usize,
    heartbeat: Duration,
    max_backoff: Duration,
    presence: bool,
}

impl Backplane {
    /// A backplane over this broker.
    pub fn new(broker: impl Broker) -> Self {
        Self {
            start: Box::new(|inbound, relay| Box::pin(link::run(broker, inbound, relay))),
            options: Options::default(),
        }
    }

    /// What the names of all channels begin with: hubs with the same prefix on the same broker
    /// are one. At most 32 bytes count. Default: `ws`.
    pub fn prefix(mut self, prefix: &str) -> Self {
        let mut end = prefix.len().min(MAX_PREFIX);
        while !prefix.is_char_boundary(end) {
            end -= 1;
        }
        prefix[..end].clone_into(&mut self.options.prefix);
        self
    }

    /// How long a message may wait for the broker, and each command to it may take. What has
    /// waited longer is given up and counted. Default: 2 seconds.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.options.deadline = deadline;
        self
    }

    /// How much may wait for the broker: bytes of payload, plus 64 for each message. What does not
    /// fit is given up at once and counted. Default: 8 MiB.
    pub fn queue(mut self, bytes: usize) -> Self {
        self.options.queue = bytes;
        self
    }

    /// How often this node says that it is alive. The others give it up after three times as
    /// long, and it gives up a connection on which it has not heard itself for as long. A quiet
    /// topic is compared after this time, so a loss at its end is found. At least 10 ms. Default:
    /// 5 seconds.
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.options.heartbeat = interval.max(Duration::from_millis(10));
        self
    }

    /// The longest wait before a new connection to the broker. The first is 50 ms, and each one
    /// twice as long as the one before; half of it is chance. Default: 5 seconds.
    ///
    /// Keep it below two [heartbeats](Self::heartbeat): when the broker is back, one node may come
    /// so much later than the others, which give it up for a while after three.
    pub fn max_backoff(mut self, delay: Duration) -> Self {
        self.options.max_backoff = delay;
        self
    }

    /// Leaves out who is there: each node knows its own members only, and the broker carries
    /// nothing when one joins or leaves. For feeds with many readers.
    pub fn without_presence(mut self) -> Self {
        self.options.presence = false;
        self
    }

    /// Begins: the task, and the ways to and from it.
    pub(super) fn start(self, hub: Weak<Inner>) -> Shared {
        let relay = Arc::new(Relay::new(NodeId::random(), self.options));
        let inbound = Arc::new(Inbound::new(hub, Arc::clone(&relay)));
        tokio::spawn((self.start)(Arc::clone(&inbound), Arc::clone(&relay)));
        Shared { relay, inbound }
    }
}

impl<B: Broker> From<B> for Backplane {
    fn from(broker: B) -> Self {
        Self::new(broker)
    }
}

impl fmt::Debug for Backplane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backplane")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            prefix: "ws".into(),
            deadline: Duration::from_secs(2),
            queue: 8 << 20,
            heartbeat: Duration::from_secs(5),
            max_backoff: Duration::from_secs(5),
            presence: true,
        }
    }
}

impl Options {
    fn expiry(&self) -> Duration {
        self.heartbeat * 3
    }

    /// All nodes listen to it.
    fn nodes_channel(&self) -> String {
        format!("{}:nodes", self.prefix)
    }

    fn node_channel(&self, node: NodeId) -> String {
        format!("{}:node:{node}", self.prefix)
    }

    fn topic_channel(&self, topic: &str) -> String {
        format!("{}:topic:{topic}", self.prefix)
    }

    fn topic_channels(&self, topics: &[Arc<str>]) -> Vec<String> {
        topics.iter().map(|it| self.topic_channel(it)).collect()
    }

    fn topic_of<'a>(&self, channel: &'a str) -> Option<&'a str> {
        channel.strip_prefix(&*self.prefix)?.strip_prefix(":topic:")
    }
}

/// Names one node: one hub with a [`Backplane`]. It is a number by chance, and another one after a
/// restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(super) u64);

impl NodeId {
    fn random() -> Self {
        // The standard library seeds it with randomness of the operating system.
        let number = RandomState::new().hash_one((std::process::id(), SystemTime::now()));
        // 0 stands for all nodes.
        Self(number.max(1))
    }

    /// The number.
    pub fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The longest name of a topic that is shared, in bytes: escaped it still fits into what brokers
/// take for a name.
const MAX_TOPIC: usize = 512;

const MAX_PREFIX: usize = 32;

/// How long a stream is remembered that nobody on this node is subscribed to: an outage that
/// takes longer may hide what was lost at its end.
const RETENTION: Duration = Duration::from_secs(600);

/// How many streams are remembered that nobody on this node is subscribed to.
const MAX_LOOSE: usize = 1 << 16;
