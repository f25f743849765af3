//! The hub: topics that sockets join, and messages that reach all who are there.
//!
//! ```
//! use ws_tower::hub::Hub;
//! use ws_tower::{Error, WebSocket};
//!
//! async fn chat(hub: Hub, mut socket: WebSocket) -> Result<(), Error> {
//!     let seat = hub.join("lobby", &socket);
//!     while let Some(message) = socket.recv().await {
//!         seat.publish(message?);
//!     }
//!     Ok(())
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use ws_tower::Config;
//! let hub = Hub::new();
//! let (ann, ann_on_server) = ws_tower::pair(Config::new());
//! let (mut bob, bob_on_server) = ws_tower::pair(Config::new());
//! for socket in [ann_on_server, bob_on_server] {
//!     tokio::spawn(chat(hub.clone(), socket));
//! }
//! tokio::task::yield_now().await;
//! ann.send("Hello").await?;
//! assert_eq!(bob.recv().await.transpose()?, Some("Hello".into()));
//! assert_eq!(hub.publish("lobby", "The bar closes"), 2);
//! assert_eq!(hub.publish("elsewhere", "Nobody hears this"), 0);
//! # Ok(())
//! # }
//! ```
//!
//! # Topics and seats
//!
//! A topic is a name. It is there with its first member and gone with its last; nothing is
//! registered before. A socket takes a [`Seat`] with [`Hub::join`], in as many topics and hubs
//! as it likes, and leaves when the seat is dropped or the socket has ended, in whatever way. A socket
//! that takes two seats in one topic gets its messages twice.
//!
//! Joining is possible as soon as there is a handle: what is published before the handshake has
//! left waits behind it.
//!
//! A seat has a [`MemberId`] and, if it wants, [metadata](Hub::join_as).
//! [`Hub::members`] tells who is there, [`Hub::watch`] who comes and goes.
//!
//! # What is promised
//!
//! - **Order.** All members of a topic get its messages in the same order, and what one publisher
//!   has published one after the other, they get in that order. Between topics the same holds
//!   for a subscriber that keeps up; the backlogs of a slow one are emptied in turns. A message by
//!   [`Hub::publish_to`] keeps its place among those of its publisher.
//! - **Nobody waits.** Publishing is no future. It queues the message for each member and
//!   returns, from any thread, in a handler or outside of any runtime. What a slow member costs
//!   is in [the policy](#choosing-a-policy).
//! - **Once encoded.** A message becomes a frame once, and is compressed once more if a member has
//!   agreed on compression; all sockets are sent the same bytes, as many messages in one write as
//!   have come together. The handlers of the subscribers are not woken.
//! - **Reached** is a member for whom the message was queued. Whether it arrives, only the peer can
//!   say.
//!
//! # Choosing a policy
//!
//! A socket has an outgoing queue of its own, [64 KiB](crate::Config::outgoing_high_water) by
//! default. A subscriber that reads fast enough never fills it. What its queue has no room for
//! waits in the backlog of its seat, another 64 KiB by default, and beyond that the [`Policy`] of
//! the topic decides.
//!
//! | what the messages are | policy | a slow subscriber |
//! |---|---|---|
//! | steps that build on each other: edits, moves of a game, strokes of a drawing | [`Disconnect`](SlowConsumer::Disconnect) | is closed with 1013; its client connects again and loads the state anew |
//! | events that stand for themselves, the newest counts: news, log lines, trades | [`DropOldest`](SlowConsumer::DropOldest) | misses what lies longest; a [notice](Policy::notice) tells it how much |
//! | events of which the first counts: alarms, bids, first come first served | [`SkipNewest`](SlowConsumer::SkipNewest) | gets what it was promised, and misses what came later |
//! | a value that replaces the one before: a position, a price, a sensor, a progress bar | [`Latest`](SlowConsumer::Latest) | gets fewer values, and always the newest |
//!
//! In doubt take `Disconnect`, the default: it is the only one under which nobody has a wrong
//! picture without knowing it. With the others, think about what a subscriber shows that has
//! missed something.
//!
//! `Latest` is stricter than the others about what is slow: a value waits as soon as the socket
//! has anything left to write, because what lies in its queue cannot be replaced any more. So of a
//! burst within one turn of the session a subscriber may get the first and the last value only.
//!
//! A stalled peer is found by the session: after
//! [`write_timeout`](crate::Config::write_timeout) its socket is cut off, whatever the policy.
//! [`Hub::stats`] counts what was skipped, dropped, replaced and disconnected.
//!
//! # Whoever comes later
//!
//! A new member knows nothing yet. There are three ways to tell it:
//!
//! | what it has to know | how |
//! |---|---|
//! | nothing of what was before: events | it joins |
//! | the newest message, which is the whole state: a value, a score, a headline | [`Policy::retain`]: the topic keeps the newest message, and queues it for whoever joins |
//! | a state that many messages have made: a document, a history | the application joins first, then loads the state and sends it; the steps it has in it already are told by a number of its own |
//!
//! A retained message stands in its place: a new member gets it before all that are newer, and none
//! that is older, never twice, and nothing is missing in between, while others publish and join. It
//! goes through the policy as any message, and counts as [delivered](Stats::delivered), not as
//! published once more.
//!
//! # More than one machine
//!
//! A [`Backplane`] shares the topics with the hubs of other processes, over Redis or NATS:
//! see [`backplane`].
//!
//! # What it costs
//!
//! | | bytes |
//! |---|---|
//! | a socket without a seat | none |
//! | a seat | about 220: 40 with its holder, the rest in the topic and the session |
//! | a topic, beside its first seat | about 480, with a name of a few letters |
//! | a message that a topic retains | the message once |
//! | a message that waits, for each subscriber | 16, and the message once for all |
//! | a topic [across machines](backplane#what-is-kept), for a while after it was left too | about 500 and 200, with a name of a few letters |
//!
//! The benchmark `hub` of this crate measures what a delivery takes.

pub mod backplane;
mod builder;
mod compression;
mod delivery;
mod policy;
mod presence;
mod seat;
mod segment;
mod stats;
mod table;
mod topic;

use std::{
    fmt,
    sync::{Arc, Weak},
};

use ws_core::{CloseFrame, Message, PreparedMessage, Utf8Bytes};

use crate::Sender;

pub use self::{
    backplane::Backplane,
    builder::HubBuilder,
    policy::{Lag, Policy, SlowConsumer},
    presence::{Member, Presence, Watch},
    seat::Seat,
    stats::Stats,
};
pub use crate::session::feeds::MemberId;

use self::{
    backplane::{BackplaneStats, NodeId, Relay},
    stats::Counters,
    table::Table,
    topic::{Home, Joined, Topic},
};

/// Topics that sockets join. Clones share them; a process may have several hubs, which know
/// nothing of each other. See the [module](self).
///
/// Dropping the last clone closes no socket: seats stay valid and can publish.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    topics: Table,
    policy: Arc<Policy>,
    policy_of: Option<Box<PolicyOf>>,
    counters: Arc<Counters>,
    backplane: Option<Shared>,
}

/// What is shared with other nodes.
struct Shared {
    relay: Arc<Relay>,
    inbound: Arc<backplane::Inbound>,
}

type PolicyOf = dyn Fn(&str) -> Option<Policy> + Send + Sync;

impl Hub {
    /// A hub whose topics [disconnect](SlowConsumer::Disconnect) slow subscribers.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// A hub with other policies.
    pub fn builder() -> HubBuilder {
        HubBuilder::default()
    }

    /// Takes a seat in a topic for a socket: for a [`WebSocket`](crate::WebSocket) or a [`Sender`].
    ///
    /// The socket gets what is published from now on, and before that the newest message if the
    /// topic [retains](Policy::retain) it. If it is closed already, the seat is
    /// [not taken](Seat::is_taken), and nothing else happens.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use ws_tower::{Config, hub::Hub};
    ///
    /// let hub = Hub::new();
    /// let (mut client, server) = ws_tower::pair(Config::new());
    /// let seat = hub.join("news", &server);
    /// assert_eq!(hub.publish("news", "rain"), 1);
    /// drop(seat);
    /// assert_eq!(hub.publish("news", "sun"), 0);
    /// assert_eq!(client.recv().await.transpose()?, Some("rain".into()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn join(&self, topic: &str, socket: &impl AsRef<Sender>) -> Seat {
        self.take_seat(topic, socket.as_ref(), None)
    }

    /// Takes a seat as [`join`](Self::join) does, under a name or with whatever else the other
    /// members are to know: see [`Member::metadata`].
    pub fn join_as(
        &self,
        topic: &str,
        socket: &impl AsRef<Sender>,
        metadata: impl Into<Utf8Bytes>,
    ) -> Seat {
        self.take_seat(topic, socket.as_ref(), Some(&Arc::new(metadata.into())))
    }

    /// Publishes a message to all members of a topic. Returns how many were reached.
    pub fn publish(&self, topic: &str, message: impl Into<Message>) -> usize {
        self.publish_message(topic, message.into(), None)
    }

    /// Publishes what is encoded already, to one topic after the other for example: see
    /// [`publish`](Self::publish).
    pub fn publish_prepared(&self, topic: &str, message: &PreparedMessage) -> usize {
        match self.find(topic) {
            Some(topic) => topic.publish(message, None),
            None => self.publish_elsewhere(topic, message.message(), None),
        }
    }

    /// Publishes a message to all members of a topic but one. Returns how many were reached.
    ///
    /// A member does so for itself with [`Seat::publish_to_others`].
    pub fn publish_except(
        &self,
        topic: &str,
        member: MemberId,
        message: impl Into<Message>,
    ) -> usize {
        self.publish_message(topic, message.into(), Some(member))
    }

    /// Publishes a message to one member of a topic. Says whether it was reached: for a member of
    /// another node, whether the message was queued for the broker. It is not, and `false`, if the
    /// hub has [left](Self::leave), if the message is too large or the queue is full, or if the id is
    /// of a node that is not known. Whether the member is still there, only its node knows.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use ws_tower::{Config, hub::Hub};
    ///
    /// let hub = Hub::new();
    /// let (mut client, server) = ws_tower::pair(Config::new());
    /// let _seat = hub.join_as("lobby", &server, "Ann");
    /// for member in hub.members("lobby") {
    ///     let name = member.metadata().unwrap_or("stranger");
    ///     assert!(hub.publish_to("lobby", member.id(), format!("welcome, {name}")));
    /// }
    /// assert_eq!(client.recv().await.transpose()?, Some("welcome, Ann".into()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn publish_to(&self, topic: &str, member: MemberId, message: impl Into<Message>) -> bool {
        if member.node > 0 {
            let relay = self.relay();
            return relay.is_some_and(|it| it.publish_to(topic, member, &message.into()));
        }
        self.find(topic)
            .is_some_and(|topic| topic.publish_to(member, &PreparedMessage::new(message)) > 0)
    }

    /// Closes the sockets of all members of a topic, after what was published before. Returns
    /// how many there were. 1010 is for clients: a 1011 goes out in its place (RFC 6455 §7.4.1).
    pub fn close(&self, topic: &str, close: &CloseFrame) -> usize {
        if let Some(relay) = self.relay() {
            relay.close(topic, close);
        }
        self.find(topic).map_or(0, |topic| topic.close(close))
    }

    /// The message that whoever joins a topic now gets at once: the newest, if the policy of the
    /// topic [retains](Policy::retain) it. What other nodes retain is known shortly after
    /// [`subscribed`](Self::subscribed).
    pub fn retained(&self, topic: &str) -> Option<Message> {
        let message = self.find(topic)?.retained()?;
        Some(message.message().clone())
    }

    /// The members of a topic, in no order.
    pub fn members(&self, topic: &str) -> Vec<Member> {
        self.find(topic)
            .map_or_else(Vec::new, |topic| topic.members())
    }

    /// How many members a topic has.
    pub fn member_count(&self, topic: &str) -> usize {
        self.find(topic).map_or(0, |topic| topic.len())
    }

    /// The names of all topics that have members or are watched, in no order.
    pub fn topics(&self) -> Vec<Arc<str>> {
        self.0.topics.names()
    }

    /// How many topics have members or are watched.
    pub fn topic_count(&self) -> usize {
        self.0.topics.len()
    }

    /// Watches the members of a topic come and go. The topic is there until the watch is
    /// dropped.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use ws_tower::{Config, hub::{Hub, Presence}};
    ///
    /// let hub = Hub::new();
    /// let mut watch = hub.watch("lobby");
    /// assert_eq!(watch.recv().await, Some(Presence::Members(vec![])));
    /// let (_client, server) = ws_tower::pair(Config::new());
    /// let seat = hub.join_as("lobby", &server, "Ann");
    /// let Some(Presence::Joined(member)) = watch.recv().await else { panic!() };
    /// assert_eq!((member.id(), member.metadata()), (seat.id(), Some("Ann")));
    /// drop(seat);
    /// assert_eq!(watch.recv().await, Some(Presence::Left(member)));
    /// # }
    /// ```
    pub fn watch(&self, topic: &str) -> Watch {
        loop {
            let topic = self.find_or_make(topic);
            if let Some(watcher) = topic.watch() {
                return Watch::new(topic, watcher);
            }
            self.0.forget(&topic);
        }
    }

    /// What the backplane has done so far; `None` without one.
    pub fn backplane_stats(&self) -> Option<BackplaneStats> {
        Some(self.relay()?.stats())
    }

    /// This node; `None` without a backplane.
    pub fn node(&self) -> Option<NodeId> {
        Some(self.relay()?.node)
    }

    /// The node that a member is connected to; `None` without a backplane.
    pub fn node_of(&self, member: MemberId) -> Option<NodeId> {
        match member.node {
            0 => self.node(),
            number => self.relay()?.node_of(number),
        }
    }

    /// Waits until what other nodes publish to a topic arrives here: the broker has the
    /// subscription. Joining does not wait for it. An application that loads a state, and then
    /// follows its changes, joins first, waits for this, and then loads.
    ///
    /// It returns at once without a backplane, and waits for as long as nobody is in the topic or
    /// the broker is away: set a time limit.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it takes nothing.
    pub async fn subscribed(&self, topic: &str) {
        if let Some(shared) = &self.0.backplane {
            shared.inbound.subscribed(topic).await;
        }
    }

    /// Leaves the other nodes, for good: what was published before is handed to the broker, and then
    /// that this node goes, so that its members vanish there at once. Its topics and seats go on
    /// alone.
    ///
    /// It takes as long as the broker does, at most some [deadlines](Backplane::deadline), and
    /// returns whether the broker is there or not; at once without a backplane. Call it at the
    /// end of a program, after [the tracker](crate::Tracker::shutdown): when the last [`Hub`] is
    /// dropped the same happens, but a runtime that ends does not wait for it.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the leaving goes on.
    pub async fn leave(&self) {
        if let Some(relay) = self.relay() {
            relay.stop();
            relay.ended().await;
        }
    }

    /// What has been published, and what became of it.
    pub fn stats(&self) -> Stats {
        self.0.counters.get()
    }

    fn publish_message(&self, topic: &str, message: Message, except: Option<MemberId>) -> usize {
        match self.find(topic) {
            Some(topic) => topic.publish(&PreparedMessage::new(message), except),
            None => self.publish_elsewhere(topic, &message, except),
        }
    }

    /// Publishes to other nodes alone, for nobody here has joined the topic.
    fn publish_elsewhere(&self, topic: &str, message: &Message, except: Option<MemberId>) -> usize {
        if let Some(relay) = self.relay() {
            relay.publish(topic, except, message);
        }
        0
    }

    fn relay(&self) -> Option<&Arc<Relay>> {
        self.0.backplane.as_ref().map(|it| &it.relay)
    }

    fn take_seat(&self, name: &str, socket: &Sender, metadata: Option<&Arc<Utf8Bytes>>) -> Seat {
        let session = socket.shared();
        loop {
            let topic = self.find_or_make(name);
            let (id, key) = match topic.join(session, metadata) {
                Joined::Seated { id, key } => (id, key),
                Joined::SocketIsClosed => {
                    let number = self.0.counters.number();
                    (MemberId::new(number, u32::MAX, u16::MAX), usize::MAX)
                }
                Joined::TopicIsGone => {
                    // Whoever left last is about to do the same.
                    self.0.forget(&topic);
                    continue;
                }
            };
            return Seat::new(Arc::clone(session), topic, id, key);
        }
    }

    fn find(&self, name: &str) -> Option<Arc<Topic>> {
        self.0.topics.find(name)
    }

    fn find_or_make(&self, name: &str) -> Arc<Topic> {
        if let Some(topic) = self.find(name) {
            return topic;
        }
        // The application's function is not called under the lock.
        let inner = &self.0;
        let own = inner.policy_of.as_ref().and_then(|of| of(name));
        let policy = own.map_or_else(|| Arc::clone(&inner.policy), Arc::new);
        let home: Weak<Inner> = Arc::downgrade(inner);
        let counters = Arc::clone(&inner.counters);
        let relay = self.relay().cloned();
        let new = Arc::new(Topic::new(name.into(), policy, home, counters, relay));
        let topic = inner.topics.insert(&new);
        if let Some(relay) = self.relay() {
            relay.touch(topic.name());
        }
        topic
    }
}

impl Default for Hub {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("topics", &self.topic_count())
            .field("policy", &self.0.policy)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Home for Inner {
    fn forget(&self, topic: &Topic) {
        if let Some(topic) = self.topics.remove(topic)
            && let Some(shared) = &self.backplane
        {
            shared.relay.touch(topic.name());
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(shared) = &self.backplane {
            shared.relay.stop();
        }
        for topic in self.topics.drain() {
            topic.end_watches();
        }
    }
}
