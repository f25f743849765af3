//! What this node has for the others: publishers fill a bounded queue and never wait for it.

mod batch;
mod queue;
mod streams;

use std::{
    collections::VecDeque,
    mem,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use ws_core::{CloseFrame, Message};

pub(super) use self::batch::Batch;
use self::{
    queue::{BATCH, Queue, Queued, What},
    streams::{Forgotten, Point, Streams},
};
use super::{
    MAX_LOOSE, NodeId, Options,
    envelope::{Address, Change, Envelope, MAX_HEADER, Place, Remote, Wanted},
    nodes::Numbers,
    stamp::Stamp,
    stats::{BackplaneStats, Counters},
};
use crate::session::feeds::MemberId;

/// The way out of this node. Its lock is a leaf: a topic's roster or segment may be held, nothing is
/// taken under it.
pub(in crate::hub) struct Relay {
    pub(in crate::hub) node: NodeId,
    pub(in crate::hub) counters: Counters,
    pub(super) options: Options,
    /// There is something to do for the link.
    pub(super) work: Notify,
    /// The largest payload of the broker.
    max_payload: AtomicUsize,
    is_stopped: AtomicBool,
    /// The link has ended, after it was stopped.
    has_ended: AtomicBool,
    ended: Notify,
    state: Mutex<State>,
}

struct State {
    streams: Streams,
    queue: Queue,
    /// Topics that may have come or gone.
    changed: Vec<Arc<str>>,
    numbers: Numbers,
}

/// What became of a message.
#[derive(Default)]
struct Turn {
    /// Its place among the messages of its topic, if it has one.
    stamp: Option<Stamp>,
    is_queued: bool,
    /// The link is to be woken.
    wakes: bool,
}

impl Relay {
    pub(super) fn new(node: NodeId, options: Options) -> Self {
        Self {
            node,
            counters: Counters::default(),
            work: Notify::new(),
            max_payload: AtomicUsize::new(usize::MAX),
            is_stopped: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            ended: Notify::new(),
            state: Mutex::new(State {
                streams: Streams::default(),
                queue: Queue::new(options.queue),
                changed: Vec::new(),
                numbers: Numbers::default(),
            }),
            options,
        }
    }

    // What publishers and members do.

    /// To all members but one.
    pub(in crate::hub) fn publish(&self, topic: &str, except: Option<MemberId>, message: &Message) {
        let to = self.all_but(except);
        if self.queue_message(topic, to, message).wakes {
            self.wake();
        }
    }

    /// As [`publish`](Self::publish), for who holds a lock: says which publication it is, and
    /// whether the link is to be [woken](Self::wake) afterwards.
    pub(in crate::hub) fn queue(
        &self,
        topic: &str,
        except: Option<MemberId>,
        message: &Message,
    ) -> (Option<Stamp>, bool) {
        let turn = self.queue_message(topic, self.all_but(except), message);
        (turn.stamp, turn.wakes)
    }

    /// To a member of another node. Says whether the node is known, and the message queued.
    pub(in crate::hub) fn publish_to(
        &self,
        topic: &str,
        member: MemberId,
        message: &Message,
    ) -> bool {
        let Some(member) = self.remote(member) else {
            return false;
        };
        let turn = self.queue_message(topic, Address::One(member), message);
        if turn.wakes {
            self.wake();
        }
        turn.is_queued
    }

    pub(in crate::hub) fn close(&self, topic: &str, close: &CloseFrame) {
        if self
            .queue_next(topic, What::Close(close.clone()), false)
            .wakes
        {
            self.wake();
        }
    }

    /// A member has come or gone, maybe the last. The topic's roster is held, so the order is that of the roster;
    /// [`work`](Self::wake) is to be woken when it is not.
    pub(in crate::hub) fn change(&self, topic: &str, change: Change, is_last: bool) {
        if !self.has_presence() || !self.takes(topic) {
            return;
        }
        let mut state = self.lock();
        let (point, previous, version) = state.streams.change(topic, is_last);
        let what = What::Change(previous, version, change);
        let queued = Queued { point, what };
        // What is left out is found by its number, and asked for.
        if state.queue.has_room(&queued) {
            state.queue.push(queued);
        }
    }

    pub(in crate::hub) fn wake(&self) {
        self.work.notify_one();
    }

    /// A topic has come or gone.
    pub(in crate::hub) fn touch(&self, topic: &Arc<str>) {
        self.lock().changed.push(Arc::clone(topic));
        self.wake();
    }

    pub(in crate::hub) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
        self.wake();
    }

    /// What it has done so far, and what is there now.
    pub(in crate::hub) fn stats(&self) -> BackplaneStats {
        let streams = self.lock().streams.len();
        BackplaneStats {
            streams: streams as u64,
            ..self.counters.get()
        }
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
        self.lock().numbers.node_of(number)
    }

    /// How far the stream of a topic has come, and the version of its members; asked while the
    /// roster is held.
    pub(in crate::hub) fn place(&self, topic: &str) -> Option<(Place, u64)> {
        let (point, version) = self.lock().streams.point(topic)?;
        Some((point.place(Instant::now()), version))
    }

    pub(in crate::hub) fn has_presence(&self) -> bool {
        self.options.presence
    }

    /// Whether a topic is shared with other nodes.
    pub(super) fn takes(&self, topic: &str) -> bool {
        topic.len() <= super::MAX_TOPIC && !self.is_stopped()
    }

    /// `None`: it is one of ours, or of a node that is not known.
    fn remote(&self, member: MemberId) -> Option<Remote> {
        if member.node == 0 {
            return None;
        }
        Some(Remote {
            node: self.node_of(member.node)?,
            seat: member.into(),
        })
    }

    fn all_but(&self, except: Option<MemberId>) -> Address {
        match except.and_then(|it| self.remote(it)) {
            Some(member) => Address::AllBut(member),
            None => Address::All,
        }
    }

    fn queue_message(&self, topic: &str, to: Address, message: &Message) -> Turn {
        let is_too_large = message.len().saturating_add(MAX_HEADER) > self.max_payload();
        self.queue_next(topic, What::Message(to, message.clone()), is_too_large)
    }

    /// Queues what is the next of its stream.
    fn queue_next(&self, topic: &str, what: What, is_too_large: bool) -> Turn {
        let mut turn = Turn::default();
        if self.is_stopped() {
            return turn;
        }
        if !self.takes(topic) {
            self.counters.too_large.add(1);
            return turn;
        }
        let mut state = self.lock();
        // It has its number, whatever becomes of it: that is how the others find what is missing.
        let point = state.streams.next(topic);
        turn.stamp = Some(point.stamp(self.node));
        let queued = Queued { point, what };
        if is_too_large {
            self.counters.too_large.add(1);
            return turn;
        }
        if !state.queue.has_room(&queued) {
            self.counters.overflowed.add(1);
            return turn;
        }
        state.queue.push(queued);
        turn.is_queued = true;
        turn.wakes = state.queue.len() == 1;
        turn
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

    fn max_payload(&self) -> usize {
        self.max_payload.load(Ordering::Relaxed)
    }

    pub(super) fn take_changed(&self) -> Vec<Arc<str>> {
        mem::take(&mut self.lock().changed)
    }

    pub(super) fn order(&self, channel: String, envelope: Envelope) {
        self.lock().queue.order((channel, envelope));
        self.wake();
    }

    /// Asks on the channel of a topic, behind what was published to it before.
    pub(super) fn ask(&self, topic: &Arc<str>, wanted: Wanted) {
        let queued = Queued {
            point: Point::outside(topic),
            what: What::Ask(wanted),
        };
        self.lock().queue.push(queued);
        self.wake();
    }

    /// Tells all who are subscribed to a topic of its newest message, behind what was published to
    /// it before. There is nobody to wait for it if the queue is full.
    pub(super) fn tell_newest(&self, topic: &Arc<str>, stamp: Stamp, message: Message) {
        let queued = Queued {
            point: Point::outside(topic),
            what: What::Newest(stamp, message),
        };
        let mut state = self.lock();
        if state.queue.has_room(&queued) {
            state.queue.push(queued);
            drop(state);
            self.wake();
        }
    }

    /// The number for a node in the ids of its members.
    pub(super) fn number_of(&self, node: NodeId) -> u16 {
        self.lock().numbers.number_of(node)
    }

    /// Whether marks wait that were queued before. More of them would say nothing new, and have
    /// no bound.
    pub(super) fn has_marks(&self) -> bool {
        self.lock().queue.marks() > 0
    }

    /// Queues marks for streams that have been quiet for so long since their last one, behind the
    /// messages that they tell of: for as many as a broker takes at once. Says whether there may be
    /// more.
    pub(super) fn mark_some(&self, quiet: Duration) -> bool {
        // Publishers come in between.
        (0..BATCH / PIECE).all(|_| {
            let mut state = self.lock();
            let marks = state.streams.mark(quiet, PIECE);
            let any_more = marks.len() == PIECE;
            for (point, version) in marks {
                state.queue_mark(point, version);
            }
            any_more
        })
    }

    /// All streams are to be [marked](Self::mark_some), quiet or not.
    pub(super) fn rewind(&self) {
        self.lock().streams.rewind();
    }

    /// Whether streams of topics that nobody here has are more than are kept.
    pub(super) fn is_crowded(&self) -> bool {
        self.lock().streams.is_crowded()
    }

    /// Forgets some streams that are of no use any more, after so long without one, or are too
    /// many, if nobody here `has` their topic. Says whether there may be more.
    pub(super) fn forget_some(&self, retention: Duration, has: impl Fn(&str) -> bool) -> bool {
        let old = self.lock().streams.old(retention, PIECE);
        for (topic, last) in &old {
            if has(topic) {
                self.lock().streams.hold(topic);
                continue;
            }
            let mut state = self.lock();
            match state.streams.forget(topic, *last) {
                Forgotten::Not => continue,
                Forgotten::Marked => {}
                Forgotten::Unmarked(point, version) => {
                    if state.queue.marks() < MAX_LOOSE {
                        state.queue_mark(point, version);
                    }
                }
            }
            if last.elapsed() < retention {
                self.counters.forgotten.add(1);
            }
        }
        old.len() == PIECE
    }

    /// Nobody here has the topic any more.
    pub(super) fn release(&self, topic: &str) {
        self.lock().streams.release(topic);
    }

    /// Takes what is to be published next. What has waited too long is left out. When the batch
    /// stays empty, so is the queue.
    pub(super) fn take(&self, batch: &mut Batch) {
        while self.take_some(batch) && batch.is_empty() {}
    }

    /// Says whether there was anything.
    fn take_some(&self, batch: &mut Batch) -> bool {
        let (orders, queued) = self.lock().queue.pop();
        let any = !orders.is_empty() || !queued.is_empty();
        let now = Instant::now();
        let max = self.max_payload();
        for (channel, envelope) in orders {
            let payload = envelope.encode(self.node);
            if payload.len() <= max {
                batch.push(channel, payload, None);
            }
        }
        for it in queued {
            let deadline = it.deadline(self.options.deadline);
            if deadline.is_some_and(|deadline| deadline <= now) {
                self.counters.expired.add(1);
                continue;
            }
            let channel = self.options.topic_channel(&it.point.topic);
            let payload = it.into_envelope(now).encode(self.node);
            if payload.len() > max {
                // It was queued for another server, or a member says too much of itself.
                self.counters.too_large.add(u64::from(deadline.is_some()));
                continue;
            }
            batch.push(channel, payload, deadline);
        }
        any
    }

    /// Gives up what has waited too long, in the queue and in the batch.
    pub(super) fn expire(&self, batch: &mut Batch) {
        let now = Instant::now();
        let patience = self.options.deadline;
        // Publishers do not wait meanwhile.
        let (waiting, _orders) = self.lock().queue.take_all();
        let is_late = |it: &Queued| it.deadline(patience).is_none_or(|it| it <= now);
        let (gone, kept): (VecDeque<_>, _) = waiting.into_iter().partition(is_late);
        self.lock().queue.put_back(kept, &gone);
        let messages = gone.iter().filter(|it| it.deadline(patience).is_some());
        let expired = batch.expire(now) + messages.count() as u64;
        self.counters.expired.add(expired);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn queue_mark(&mut self, point: Point, version: u64) {
        let what = What::Mark(version);
        self.queue.push(Queued { point, what });
    }
}

/// How many streams are looked at while publishers wait.
const PIECE: usize = 32;

#[cfg(test)]
mod tests;
