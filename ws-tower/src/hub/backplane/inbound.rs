//! What other nodes have for this one: their messages in order and once, what is missing, their
//! members, and whether they are alive.

mod liveness;
mod newest;
mod presence;
mod streams;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::Notify, time::Instant};

use self::streams::{Arrival, Streams};
use super::{
    NodeId,
    envelope::{Address, Envelope, Place, Refused, Wanted},
    nodes::{End, Nodes},
    relay::Relay,
    stamp::Stamp,
};
use crate::hub::{Inner, topic::Topic};

pub(in crate::hub) struct Inbound {
    hub: Weak<Inner>,
    relay: Arc<Relay>,
    state: Mutex<State>,
    /// A subscription stands.
    confirmed: Notify,
    /// The log has heard of another version.
    knows_of_another: AtomicBool,
}

#[derive(Default)]
struct State {
    channels: HashMap<Arc<str>, Channel>,
    nodes: Nodes,
    /// When this node last heard itself.
    echo: Option<Instant>,
    /// Nodes that are heard for the first time until then were there before this one, and have
    /// heard all that it has asked.
    is_new_until: Option<Instant>,
    /// Since when neither this node nor one that it has given up has come back.
    steady_since: Option<Instant>,
    /// When all streams are to be marked.
    mark_at: Option<Instant>,
    /// When which topics are to be told of, the next one first.
    answers: BinaryHeap<Reverse<(Instant, Arc<str>)>>,
}

/// A topic that is subscribed to.
struct Channel {
    topic: Weak<Topic>,
    /// Since when the subscription stands.
    since: Option<Instant>,
    streams: Streams,
    /// The newest message, if another node had to tell of it.
    told: Option<Stamp>,
    /// When the newest message was asked for last, and nobody has told yet.
    newest_asked: Option<Instant>,
    /// When this node asked for it.
    asked_at: Option<Instant>,
    asked: HashMap<NodeId, Asked>,
}

/// A node was asked for its members.
struct Asked {
    at: Instant,
    /// The latest version that was heard of: the answer may be older.
    wanted: u64,
}

/// What is to be done to subscriptions.
pub(super) struct Changes {
    pub(super) subscribe: Vec<Arc<str>>,
    pub(super) unsubscribe: Vec<Arc<str>>,
    /// Subscribed to, but for another topic of that name.
    pub(super) renewed: Vec<Arc<str>>,
}

impl Inbound {
    pub(super) fn new(hub: Weak<Inner>, relay: Arc<Relay>) -> Self {
        Self {
            hub,
            relay,
            state: Mutex::default(),
            confirmed: Notify::new(),
            knows_of_another: AtomicBool::new(false),
        }
    }

    // Subscriptions.

    /// Compares what is subscribed to with the topics that are there.
    pub(super) fn settle(&self, names: Vec<Arc<str>>) -> Changes {
        let mut changes = Changes {
            subscribe: Vec::new(),
            unsubscribe: Vec::new(),
            renewed: Vec::new(),
        };
        let names: HashSet<_> = names.into_iter().collect();
        for name in names {
            if !self.relay.takes(&name) {
                continue;
            }
            let topic = self.hub.upgrade().and_then(|hub| hub.topics.find(&name));
            let mut state = self.lock();
            match (&topic, state.channels.get_mut(&name)) {
                (Some(topic), Some(channel)) => {
                    if !std::ptr::eq(channel.topic.as_ptr(), Arc::as_ptr(topic)) {
                        // Nothing of what has come so far was for its members.
                        *channel = Channel::new(topic);
                        changes.renewed.push(name);
                    }
                }
                (Some(topic), None) => {
                    state
                        .channels
                        .insert(Arc::clone(&name), Channel::new(topic));
                    changes.subscribe.push(name);
                }
                (None, Some(_)) => {
                    state.channels.remove(&name);
                    self.relay.release(&name);
                    changes.unsubscribe.push(name);
                }
                (None, None) => {}
            }
            drop(state);
            drop(topic);
        }
        if !changes.renewed.is_empty() {
            // Nothing has to come back for these: the subscription is the one before.
            self.confirmed.notify_waiters();
        }
        changes
    }

    pub(super) fn channels(&self) -> Vec<Arc<str>> {
        self.lock().channels.keys().cloned().collect()
    }

    /// The channels on which nothing of this node has come back yet.
    pub(super) fn unconfirmed(&self) -> Vec<Arc<str>> {
        let state = self.lock();
        let channels = state.channels.iter();
        channels
            .filter(|(_, channel)| channel.since.is_none())
            .map(|(name, _)| Arc::clone(name))
            .collect()
    }

    /// Whether a topic has anybody on this node, whatever the broker says.
    pub(super) fn has(&self, topic: &str) -> bool {
        self.of_channel(topic, |it| it.has_topic()) == Some(true)
    }

    /// Waits until the subscription to a topic stands.
    pub(in crate::hub) async fn subscribed(&self, topic: &str) {
        loop {
            let notified = self.confirmed.notified();
            let mut notified = pin!(notified);
            notified.as_mut().enable();
            let stands = |it: &mut Channel| it.since.is_some() && it.has_topic();
            if self.of_channel(topic, stands) == Some(true) {
                return;
            }
            notified.await;
        }
    }

    // The link.

    /// A link stands: the time without one does not count against the other nodes. Says whether it
    /// is the first: then there is nothing yet that could have been missed.
    pub(super) fn connected(&self) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        let is_first = state.echo.replace(now).is_none();
        state.steady_since = Some(now);
        state.is_new_until = is_first.then(|| now + self.relay.options.expiry());
        state.nodes.link();
        for channel in state.channels.values_mut() {
            channel.asked.clear();
        }
        // Nodes that come back together have one answer from each other.
        state.mark_at = Some(now + RESYNC);
        is_first
    }

    /// For how long this node has not heard itself.
    pub(super) fn silence(&self) -> Duration {
        let echo = self.lock().echo;
        echo.map_or(Duration::ZERO, |it| it.elapsed())
    }

    /// When there is something to mark or to tell.
    pub(super) fn next_turn(&self) -> Option<Instant> {
        let state = self.lock();
        let answer_at = state.answers.peek().map(|Reverse((at, _))| *at);
        [state.mark_at, answer_at].into_iter().flatten().min()
    }

    pub(super) fn take_mark(&self) -> bool {
        let mut state = self.lock();
        let is_due = state.mark_at.is_some_and(|it| it <= Instant::now());
        if is_due {
            state.mark_at = None;
        }
        is_due
    }

    // Payloads.

    pub(super) fn receive(&self, channel: &str, payload: Bytes) {
        let options = &self.relay.options;
        let (node, envelope) = match Envelope::decode(payload) {
            Ok(opened) => opened,
            Err(refused) => {
                self.relay.counters.refused.add(1);
                // Once is enough: while nodes are replaced it may be each message.
                if let Refused::Version(version) = refused
                    && !self.knows_of_another.swap(true, Ordering::Relaxed)
                {
                    tracing::warn!(channel, version, "there are nodes of another version");
                } else {
                    tracing::debug!(channel, ?refused, "a payload that is none of the hub's");
                }
                return;
            }
        };
        let topic = options.topic_of(channel);
        if node == self.relay.node {
            self.echo(topic);
            return;
        }
        if !self.hear(node, &envelope) {
            self.relay.counters.refused.add(1);
            return;
        }
        match (envelope, topic) {
            (Envelope::Bye, None) => self.forget_node(node, End::Said),
            (Envelope::Beat { .. }, None) => {}
            (Envelope::Resync { node: asked }, None) => {
                if asked.is_none_or(|it| it == self.relay.node) {
                    let mut state = self.lock();
                    // Nodes that come back together are answered together.
                    let at = Instant::now() + RESYNC;
                    state.mark_at.get_or_insert(at);
                    drop(state);
                    self.relay.wake();
                }
            }
            (
                Envelope::Roster {
                    topic,
                    place,
                    version,
                    is_last,
                    members,
                },
                None,
            ) => {
                self.of_channel(&topic, |it| it.streams.begin(node, place, it.since));
                self.roster(node, &topic, version, is_last, members);
            }
            (envelope, Some(topic)) => self.receive_for(node, topic, envelope),
            _ => self.relay.counters.refused.add(1),
        }
    }

    fn receive_for(&self, node: NodeId, name: &str, envelope: Envelope) {
        let Some(topic) = self.topic(name) else {
            // It has left meanwhile.
            return;
        };
        let counters = &self.relay.counters;
        match envelope {
            Envelope::Message { place, to, message } => {
                let is_for_all = !matches!(to, Address::One(_));
                if !self.arrive(node, name, &topic, place, is_for_all) {
                    return;
                }
                counters.received.add(1);
                let here = self.relay.node;
                let stamp = topic.retains().then(|| Stamp {
                    node,
                    stream: place.stream,
                    sequence: place.sequence,
                    at: Instant::now(),
                });
                match to {
                    Address::AllBut(member) if member.node == here => {
                        topic.deliver(message, Some(member.seat), stamp);
                    }
                    Address::All | Address::AllBut(_) => topic.deliver(message, None, stamp),
                    Address::One(member) if member.node == here => {
                        topic.deliver_to(message, member.seat);
                    }
                    Address::One(_) => {}
                }
            }
            Envelope::Close { place, close } => {
                if self.arrive(node, name, &topic, place, false) {
                    counters.received.add(1);
                    topic.close(&close);
                }
            }
            Envelope::Mark { place, version } => {
                self.reach(node, name, &topic, place);
                if self.relay.has_presence() && topic.remote_version(node) != version {
                    if version == 0 {
                        // It has nobody there any more, and would not hear a question.
                        topic.forget_node(node);
                    } else {
                        self.ask(name, node, version);
                    }
                }
            }
            Envelope::Change {
                previous,
                version,
                change,
            } => {
                let number = self.relay.number_of(node);
                if self.relay.has_presence()
                    && !topic.change_remote(node, number, previous, version, change)
                {
                    self.ask(name, node, version);
                }
            }
            Envelope::Ask {
                node: asked,
                wanted,
            } => {
                if asked.is_some_and(|it| it != self.relay.node) {
                    return;
                }
                if wanted.members {
                    self.tell_members(node, &topic);
                }
                if wanted.newest {
                    self.owe(name, &topic);
                }
            }
            Envelope::Newest { of, message } => self.newest(name, &topic, of, message),
            _ => counters.refused.add(1),
        }
    }

    /// Puts a message in its place. Says whether it is to be delivered.
    fn arrive(
        &self,
        node: NodeId,
        name: &str,
        topic: &Topic,
        place: Place,
        is_for_all: bool,
    ) -> bool {
        let arrival = self.of_channel(name, |it| {
            it.streams.message(node, place, is_for_all, it.since)
        });
        if let Some(Arrival::Due(missed)) = arrival {
            self.miss(topic, missed);
            if !(topic.retains() && self.was_told(node, name, place)) {
                return true;
            }
        }
        self.relay.counters.repeated.add(1);
        false
    }

    /// The stream has come so far: what has not arrived will not.
    fn reach(&self, node: NodeId, name: &str, topic: &Topic, place: Place) {
        let arrival = self.of_channel(name, |it| it.streams.mark(node, place, it.since));
        if let Some(Arrival::Due(missed)) = arrival {
            self.miss(topic, missed);
            if missed > 0 && topic.retains() {
                // Nothing newer has come, so it may have been the newest.
                self.relay.ask(topic.name(), Wanted::newest());
            }
        }
    }

    fn miss(&self, topic: &Topic, missed: u64) {
        if missed > 0 {
            self.relay.counters.missed.add(missed);
            topic.miss(missed);
        }
    }

    /// What this node has said itself has come back.
    fn echo(&self, topic: Option<&str>) {
        let now = Instant::now();
        let mut state = self.lock();
        state.echo = Some(now);
        if let Some(channel) = topic.and_then(|it| state.channels.get_mut(it))
            && channel.since.is_none()
        {
            channel.since = Some(now);
            drop(state);
            self.confirmed.notify_waiters();
        }
    }

    fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.of_channel(name, |it| it.topic.upgrade())?
    }

    /// Looks at a channel, or changes it. `None`: it is not subscribed to.
    fn of_channel<T>(&self, name: &str, look: impl FnOnce(&mut Channel) -> T) -> Option<T> {
        self.lock().channels.get_mut(name).map(look)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Channel {
    fn new(topic: &Arc<Topic>) -> Self {
        Self {
            topic: Arc::downgrade(topic),
            since: None,
            streams: Streams::default(),
            told: None,
            newest_asked: None,
            asked_at: None,
            asked: HashMap::new(),
        }
    }

    fn has_topic(&self) -> bool {
        self.topic.strong_count() > 0
    }

    fn was_told(&self, node: NodeId, place: (u64, u64)) -> bool {
        let told = self.told.as_ref();
        told.is_some_and(|it| it.node == node && place <= (it.stream, it.sequence))
    }
}

/// How long answers to nodes that have missed something are held back, so that one answer is for
/// all who ask.
const RESYNC: Duration = Duration::from_millis(250);
