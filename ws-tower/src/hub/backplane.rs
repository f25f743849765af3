//! The hub across machines: a broker carries what is published between the nodes.

mod broker;
mod envelope;
mod in_process;
mod inbound;
mod link;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "redis")]
mod redis;
mod relay;
mod stats;

use std::{
    fmt,
    future::Future,
    hash::{BuildHasher, RandomState},
    pin::Pin,
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use super::Inner;
use crate::session::feeds::MemberId;

#[cfg(feature = "nats")]
pub use self::nats::{Nats, NatsCommands, NatsMessages};
#[cfg(feature = "redis")]
pub use self::redis::{Redis, RedisCommands, RedisMessages};
pub use self::{
    broker::{Broker, Commands, Messages},
    in_process::{InProcess, InProcessCommands, InProcessMessages},
    stats::BackplaneStats,
};
pub(super) use self::{
    envelope::{Address, Change, Entry, Remote, SeatId},
    inbound::Inbound,
    relay::Relay,
};

/// How a hub shares its topics with those of other nodes: see the [module](self).
#[must_use]
pub struct Backplane {
    start: Box<Start>,
    options: Options,
}

type Start =
    dyn FnOnce(Arc<Inbound>, Arc<Relay>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send;

#[derive(Clone, Debug)]
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

    /// Begins: the task, and the way to it.
    pub(super) fn start(self, hub: Weak<Inner>, relay: Arc<Relay>) -> Arc<Inbound> {
        let inbound = Arc::new(Inbound::new(hub, Arc::clone(&relay)));
        tokio::spawn((self.start)(Arc::clone(&inbound), relay));
        inbound
    }

    pub(super) fn relay(&self) -> Arc<Relay> {
        Arc::new(Relay::new(NodeId::random(), self.options.clone()))
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

    fn topic_of<'a>(&self, channel: &'a str) -> Option<&'a str> {
        channel.strip_prefix(&*self.prefix)?.strip_prefix(":topic:")
    }
}

/// Names one node: one hub with a [`Backplane`]. It is a number by chance, and another one after a
/// restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u64);

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

impl From<MemberId> for SeatId {
    fn from(id: MemberId) -> Self {
        Self {
            number: id.number(),
            segment: id.segment,
            slot: id.slot,
        }
    }
}

impl SeatId {
    /// The id on a node that has this number for the member's node; 0 on its own.
    pub(super) fn member(self, node: u16) -> MemberId {
        MemberId::of_node(self.number, self.segment, self.slot, node)
    }
}

/// The longest name of a topic that is shared, in bytes: escaped it still fits into what brokers
/// take for a name.
const MAX_TOPIC: usize = 512;

const MAX_PREFIX: usize = 32;
