//! What this node has for the others: a bounded queue that publishers fill and never wait for.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::Notify, time::Instant};
use ws_core::{CloseFrame, Message};

use super::{
    NodeId, Options,
    envelope::{Address, Change, Envelope, MAX_HEADER, Place, Publication, Wanted},
    inbound::PART,
    stamp::Stamp,
    stats::Counters,
};

/// The way out of this node. Its lock is a leaf: a topic's roster or segment may be held, nothing is
/// taken under it.
pub(in crate::hub) struct Relay {
    pub(in crate::hub) node: NodeId,
    pub(in crate::hub) counters: Counters,
    pub(super) options: Options,
    /// There is something to do for the link.
    pub(super) work: Notify,
    /// A subscription stands.
    pub(super) subscribed: Notify,
    /// The largest payload of the broker.
    max_payload: AtomicUsize,
    is_stopped: AtomicBool,
    /// The link has ended, after it was stopped.
    has_ended: AtomicBool,
    ended: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Queued>,
    /// Payloads and 64 bytes for each.
    size: usize,
    /// How many marks are in the queue: they count nothing there.
    marks: usize,
    streams: HashMap<Arc<str>, Outgoing>,
    /// Topics that may have come or gone.
    changed: Vec<Arc<str>>,
    /// What the backplane itself has to say, with the channel.
    orders: VecDeque<(String, Envelope)>,
    /// Nodes by the number that ids of members have for them, from 1.
    nodes: Vec<NodeId>,
    numbers: HashMap<NodeId, u16>,
    last_number: u64,
}

/// A message that waits for the link.
struct Queued {
    topic: Arc<str>,
    since: Instant,
    started: Instant,
    stream: u64,
    sequence: u64,
    what: What,
}

enum What {
    Message(Address, Message),
    Close(CloseFrame),
    Change(u64, u64, Change),
    Mark(u64),
    Ask(Wanted),
    Newest(Stamp, Message),
}

/// A stream of messages to one topic.
struct Outgoing {
    stream: u64,
    sequence: u64,
    started: Instant,
    last: Instant,
    /// The version of the members.
    version: u64,
    /// Whether the others were told how far it has come.
    is_marked: bool,
}

/// Payloads on their way, kept until the broker has taken them.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) payloads: Vec<(String, Bytes)>,
    /// When each is given up, and whether it counts.
    deadlines: Vec<Option<Instant>>,
}

impl Relay {
    pub(super) fn new(node: NodeId, options: Options) -> Self {
        Self {
            node,
            counters: Counters::default(),
            options,
            work: Notify::new(),
            subscribed: Notify::new(),
            max_payload: AtomicUsize::new(usize::MAX),
            is_stopped: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            ended: Notify::new(),
            state: Mutex::default(),
        }
    }

    // What publishers and members do.

    pub(in crate::hub) fn publish(&self, topic: &str, to: Address, message: &Message) {
        if self.queue(topic, to, message).1 {
            self.wake();
        }
    }

    /// As [`publish`](Self::publish), for who holds a lock: says which publication it is, and
    /// whether the link is to be [woken](Self::wake) afterwards.
    pub(in crate::hub) fn queue(
        &self,
        topic: &str,
        to: Address,
        message: &Message,
    ) -> (Option<Stamp>, bool) {
        let len = message.len();
        let max = self.max_payload.load(Ordering::Relaxed);
        let what = What::Message(to, message.clone());
        self.queue_next(topic, what, len, len.saturating_add(MAX_HEADER) > max)
    }

    pub(in crate::hub) fn close(&self, topic: &str, close: &CloseFrame) {
        if self
            .queue_next(topic, What::Close(close.clone()), 0, false)
            .1
        {
            self.wake();
        }
    }

    /// A member has come or gone. The topic's roster is held, so the order is that of the roster;
    /// [`work`](Self::wake) is to be woken when it is not.
    pub(in crate::hub) fn change(&self, topic: &str, change: Change) {
        if !self.options.presence || !self.takes(topic) {
            return;
        }
        let len = match &change {
            Change::Joined(entry) => entry.metadata.as_ref().map_or(0, |it| it.len()),
            Change::Left(_) => 0,
        };
        let mut state = self.lock();
        let version = state.next_number();
        let (name, outgoing) = state.outgoing(topic);
        let previous = mem::replace(&mut outgoing.version, version);
        outgoing.touch();
        let queued = outgoing.queued(name, What::Change(previous, version, change));
        if state.size + len + OVERHEAD <= self.options.queue {
            // What is left out is found by its number, and asked for.
            state.push(queued);
        }
    }

    pub(in crate::hub) fn wake(&self) {
        self.work.notify_one();
    }

    /// A topic has come or gone.
    pub(in crate::hub) fn touch(&self, topic: &Arc<str>) {
        self.lock().changed.push(Arc::clone(topic));
        self.work.notify_one();
    }

    pub(in crate::hub) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
        self.work.notify_one();
    }

    /// Waits until the link has ended.
    pub(in crate::hub) async fn ended(&self) {
        let mut ended = pin!(self.ended.notified());
        ended.as_mut().enable();
        if !self.has_ended.load(Ordering::Acquire) {
            ended.await;
        }
    }

    /// The node that an id of a member belongs to; `None` for a number that was not given.
    pub(in crate::hub) fn node_of(&self, number: u16) -> Option<NodeId> {
        let place = usize::from(number).checked_sub(1)?;
        self.lock().nodes.get(place).copied()
    }

    /// The version of the members of a topic; asked while the roster is held.
    pub(in crate::hub) fn version(&self, topic: &str) -> u64 {
        let state = self.lock();
        state.streams.get(topic).map_or(0, |it| it.version)
    }

    pub(in crate::hub) fn has_presence(&self) -> bool {
        self.options.presence
    }

    /// Whether a topic is shared with other nodes.
    pub(super) fn takes(&self, topic: &str) -> bool {
        topic.len() <= super::MAX_TOPIC && !self.is_stopped()
    }

    /// Queues what is the next of its stream.
    fn queue_next(
        &self,
        topic: &str,
        what: What,
        len: usize,
        is_too_large: bool,
    ) -> (Option<Stamp>, bool) {
        if self.is_stopped() {
            return (None, false);
        }
        if !self.takes(topic) {
            self.counters.too_large.add(1);
            return (None, false);
        }
        let mut state = self.lock();
        let (name, outgoing) = state.outgoing(topic);
        // It has its number, whatever becomes of it: that is how the others find what is missing.
        outgoing.sequence += 1;
        outgoing.touch();
        let queued = outgoing.queued(name, what);
        let stamp = Stamp {
            node: self.node,
            stream: queued.stream,
            sequence: queued.sequence,
            at: queued.since,
        };
        if is_too_large {
            self.counters.too_large.add(1);
            return (Some(stamp), false);
        }
        if state.size.saturating_add(len + OVERHEAD) > self.options.queue {
            self.counters.overflowed.add(1);
            return (Some(stamp), false);
        }
        state.push(queued);
        (Some(stamp), state.queue.len() == 1)
    }

    // What the link does.

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    pub(super) fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
        self.ended.notify_waiters();
    }

    pub(super) fn set_max_payload(&self, max: usize) {
        self.max_payload.store(max, Ordering::Relaxed);
    }

    pub(super) fn take_changed(&self) -> Vec<Arc<str>> {
        mem::take(&mut self.lock().changed)
    }

    pub(super) fn order(&self, channel: String, envelope: Envelope) {
        self.lock().orders.push_back((channel, envelope));
        self.work.notify_one();
    }

    /// Asks on the channel of a topic, behind what was published to it before.
    pub(super) fn ask(&self, topic: &Arc<str>, wanted: Wanted) {
        let queued = Queued::outside(topic, What::Ask(wanted));
        self.lock().push(queued);
        self.work.notify_one();
    }

    /// Tells all who are subscribed to a topic of its newest message, behind what was published to
    /// it before. There is nobody to wait for it if the queue is full.
    pub(super) fn tell_newest(&self, topic: &Arc<str>, stamp: Stamp, message: Message) {
        let queued = Queued::outside(topic, What::Newest(stamp, message));
        let mut state = self.lock();
        if state.size.saturating_add(queued.size()) <= self.options.queue {
            state.push(queued);
            drop(state);
            self.work.notify_one();
        }
    }

    /// The number for a node in the ids of its members. When all are given, they have 65,535, and
    /// cannot be reached by their ids.
    pub(super) fn number_of(&self, node: NodeId) -> u16 {
        let mut state = self.lock();
        if let Some(number) = state.numbers.get(&node) {
            return *number;
        }
        let number = u16::try_from(state.nodes.len() + 1).unwrap_or(u16::MAX);
        if number < u16::MAX {
            state.nodes.push(node);
            state.numbers.insert(node, number);
        }
        number
    }

    /// Whether marks wait that were queued before. More of them would say nothing new, and have
    /// no bound.
    pub(super) fn has_marks(&self) -> bool {
        self.lock().marks > 0
    }

    /// Queues a mark for each stream that has been quiet for a while since its last one, or for
    /// all. Returns topics whose streams may be forgotten if nobody is there.
    pub(super) fn mark(&self, quiet: Duration, all: bool) -> Vec<Arc<str>> {
        let now = Instant::now();
        let mut old = Vec::new();
        let mut state = self.lock();
        let mut marks = Vec::new();
        for (topic, outgoing) in &mut state.streams {
            let age = now.duration_since(outgoing.last);
            if all || (!outgoing.is_marked && age >= quiet) {
                outgoing.is_marked = true;
                let mark = What::Mark(outgoing.version);
                marks.push(outgoing.queued(Arc::clone(topic), mark));
            } else if age >= RETENTION {
                old.push(Arc::clone(topic));
            }
        }
        // Behind the messages that they tell of.
        state.marks += marks.len();
        state.queue.extend(marks);
        old
    }

    /// Topics that have been quiet for so long that their streams may be forgotten, marked or not,
    /// if nobody is there.
    pub(super) fn quiet(&self) -> Vec<Arc<str>> {
        let state = self.lock();
        let streams = state.streams.iter();
        streams
            .filter(|(_, outgoing)| outgoing.last.elapsed() >= RETENTION)
            .map(|(topic, _)| Arc::clone(topic))
            .collect()
    }

    pub(super) fn forget(&self, topics: &[Arc<str>]) {
        let mut state = self.lock();
        for topic in topics {
            let is_old = |it: &Outgoing| it.last.elapsed() >= RETENTION;
            if state.streams.get(topic).is_some_and(is_old) {
                state.streams.remove(topic);
            }
        }
    }

    /// Takes what is to be published next. What has waited too long is left out. When the batch
    /// stays empty, so is the queue.
    pub(super) fn take(&self, batch: &mut Batch) {
        while self.take_some(batch) && batch.is_empty() {}
    }

    /// Says whether there was anything.
    fn take_some(&self, batch: &mut Batch) -> bool {
        let (orders, queued) = {
            let mut state = self.lock();
            let mut queued = Vec::new();
            let mut size = 0;
            while size < BATCH_SIZE && queued.len() < BATCH {
                let Some(next) = state.queue.pop_front() else {
                    break;
                };
                size += next.size();
                state.marks -= usize::from(matches!(next.what, What::Mark(_)));
                queued.push(next);
            }
            state.size -= size;
            let mut orders = Vec::new();
            let mut size = 0;
            while size < BATCH_SIZE && orders.len() < BATCH {
                let Some(next) = state.orders.pop_front() else {
                    break;
                };
                size += match &next.1 {
                    Envelope::Roster { .. } => PART,
                    _ => OVERHEAD,
                };
                orders.push(next);
            }
            (orders, queued)
        };
        let any = !orders.is_empty() || !queued.is_empty();
        let now = Instant::now();
        let max = self.max_payload.load(Ordering::Relaxed);
        for (channel, envelope) in orders {
            let payload = envelope.encode(self.node);
            if payload.len() <= max {
                batch.payloads.push((channel, payload));
                batch.deadlines.push(None);
            }
        }
        for it in queued {
            let deadline = it.deadline(self.options.deadline);
            if deadline.is_some_and(|deadline| deadline <= now) {
                self.counters.expired.add(1);
                continue;
            }
            let channel = self.options.topic_channel(&it.topic);
            let payload = it.into_envelope(now).encode(self.node);
            if payload.len() > max {
                // It was queued for another server, or a member says too much of itself.
                self.counters.too_large.add(u64::from(deadline.is_some()));
                continue;
            }
            batch.payloads.push((channel, payload));
            batch.deadlines.push(deadline);
        }
        any
    }

    /// Gives up what has waited too long, in the queue and in the batch.
    pub(super) fn expire(&self, batch: &mut Batch) {
        let now = Instant::now();
        let patience = self.options.deadline;
        let is_late = |deadline: &Option<Instant>| deadline.is_some_and(|it| it <= now);
        let mut expired = 0;
        let payloads = mem::take(&mut batch.payloads).into_iter();
        let (payloads, deadlines) = payloads
            .zip(mem::take(&mut batch.deadlines))
            // What the backplane itself says is said anew on a new link.
            .filter(|(_, deadline)| {
                let late = is_late(deadline);
                expired += u64::from(late);
                deadline.is_some() && !late
            })
            .unzip();
        *batch = Batch {
            payloads,
            deadlines,
        };
        let gone = {
            let mut state = self.lock();
            state.orders.clear();
            let (gone, kept): (VecDeque<_>, VecDeque<_>) = mem::take(&mut state.queue)
                .into_iter()
                .partition(|it| it.deadline(patience).is_none_or(|it| it <= now));
            state.queue = kept;
            state.marks = 0;
            state.size = state.queue.iter().map(Queued::size).sum();
            gone
        };
        let messages = gone.iter().filter(|it| it.deadline(patience).is_some());
        expired += messages.count() as u64;
        self.counters.expired.add(expired);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn outgoing(&mut self, topic: &str) -> (Arc<str>, &mut Outgoing) {
        let name = match self.streams.get_key_value(topic) {
            Some((name, _)) => Arc::clone(name),
            None => topic.into(),
        };
        let number = self.last_number + 1;
        let outgoing = self.streams.entry(Arc::clone(&name)).or_insert_with(|| {
            self.last_number = number;
            Outgoing::new(number)
        });
        (name, outgoing)
    }

    fn push(&mut self, queued: Queued) {
        self.size += queued.size();
        self.queue.push_back(queued);
    }
}

impl Outgoing {
    fn new(stream: u64) -> Self {
        let now = Instant::now();
        Self {
            stream,
            sequence: 0,
            started: now,
            last: now,
            version: 0,
            is_marked: false,
        }
    }

    fn touch(&mut self) {
        self.last = Instant::now();
        self.is_marked = false;
    }

    fn queued(&self, topic: Arc<str>, what: What) -> Queued {
        Queued {
            topic,
            since: self.last,
            started: self.started,
            stream: self.stream,
            sequence: self.sequence,
            what,
        }
    }
}

impl Queued {
    /// What is in no stream.
    fn outside(topic: &Arc<str>, what: What) -> Self {
        let now = Instant::now();
        Self {
            topic: Arc::clone(topic),
            since: now,
            started: now,
            stream: 0,
            sequence: 0,
            what,
        }
    }

    /// What it counts in the queue.
    fn size(&self) -> usize {
        match &self.what {
            What::Message(_, message) | What::Newest(_, message) => message.len() + OVERHEAD,
            What::Change(_, _, Change::Joined(entry)) => {
                entry.metadata.as_ref().map_or(0, |it| it.len()) + OVERHEAD
            }
            What::Close(_) | What::Change(..) => OVERHEAD,
            What::Mark(_) | What::Ask(_) => 0,
        }
    }

    /// `None` for what is made anew instead.
    fn deadline(&self, patience: Duration) -> Option<Instant> {
        match self.what {
            What::Message(..) | What::Close(_) => Some(self.since + patience),
            What::Change(..) | What::Mark(_) | What::Ask(_) | What::Newest(..) => None,
        }
    }

    fn into_envelope(self, now: Instant) -> Envelope {
        let age = |since| {
            let age = now.duration_since(since).as_micros();
            u64::try_from(age).unwrap_or(u64::MAX)
        };
        let place = Place {
            stream: self.stream,
            sequence: self.sequence,
            age: age(self.started),
        };
        match self.what {
            What::Message(to, message) => Envelope::Message { place, to, message },
            What::Close(close) => Envelope::Close { place, close },
            What::Mark(version) => Envelope::Mark { place, version },
            What::Ask(wanted) => Envelope::Ask { node: None, wanted },
            What::Newest(stamp, message) => {
                let of = Publication {
                    node: stamp.node,
                    stream: stamp.stream,
                    sequence: stamp.sequence,
                    age: age(stamp.at),
                };
                Envelope::Newest { of, message }
            }
            What::Change(previous, version, change) => Envelope::Change {
                previous,
                version,
                change,
            },
        }
    }
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.payloads.is_empty()
    }

    /// Returns how many messages of the application it had.
    pub(super) fn clear(&mut self) -> u64 {
        self.payloads.clear();
        let messages = self.deadlines.drain(..).flatten().count();
        messages as u64
    }
}

/// What a message counts beside its payload, in bytes: as in the engine's queues.
const OVERHEAD: usize = 64;

/// What is published at once: as much as hides a round trip, and little enough that a broker
/// that goes down in between leaves little in doubt.
const BATCH: usize = 512;
const BATCH_SIZE: usize = 256 << 10;

/// How long a stream is remembered that nobody on this node is subscribed to: an outage that
/// takes longer may hide what was lost at its end.
pub(super) const RETENTION: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn relay() -> Relay {
        Relay::new(NodeId(1), Options::default())
    }

    fn publish(relay: &Relay, topic: &str, text: &str) {
        relay.publish(topic, Address::All, &Message::from(text));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_in_time_does_not_wait_behind_what_is_late() {
        let relay = relay();
        for _ in 0..2000 {
            publish(&relay, "lobby", "late");
        }
        advance(relay.options.deadline).await;
        publish(&relay, "lobby", "in time");
        let mut batch = Batch::default();
        relay.take(&mut batch);
        assert_eq!(batch.payloads.len(), 1);
        assert_eq!(relay.counters.get().expired, 2000);
    }

    #[tokio::test]
    async fn marks_are_not_queued_again_while_some_wait() {
        let relay = relay();
        for topic in 0..2000 {
            publish(&relay, &format!("{topic}"), "text");
        }
        let mut batch = Batch::default();
        while relay.lock().queue.front().is_some() {
            relay.take(&mut batch);
        }
        assert!(!relay.has_marks());
        relay.mark(Duration::ZERO, true);
        let mut taken = 0;
        while relay.has_marks() {
            batch = Batch::default();
            relay.take(&mut batch);
            taken += batch.payloads.len();
        }
        assert_eq!(taken, 2000);
        relay.mark(Duration::ZERO, true);
        relay.expire(&mut batch);
        assert!(!relay.has_marks());
    }

    #[tokio::test]
    async fn answers_leave_in_pieces_that_a_broker_takes_in_time() {
        let relay = relay();
        for _ in 0..2000 {
            relay.order("ws:nodes".into(), Envelope::Bye);
        }
        let mut batches = 0;
        loop {
            let mut batch = Batch::default();
            relay.take(&mut batch);
            if batch.is_empty() {
                break;
            }
            assert!(batch.payloads.len() <= BATCH);
            batches += 1;
        }
        assert_eq!(batches, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn streams_that_nobody_has_are_forgotten_without_a_broker_too() {
        let relay = relay();
        publish(&relay, "old", "text");
        advance(RETENTION).await;
        publish(&relay, "new", "text");
        let quiet = relay.quiet();
        assert_eq!(quiet, [Arc::from("old")]);
        relay.forget(&quiet);
        assert_eq!(relay.lock().streams.len(), 1);
    }
}
