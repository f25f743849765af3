//! What waits for the link, in order and bounded, and what it becomes for the broker.

use std::{collections::VecDeque, mem, time::Duration};

use tokio::time::Instant;
use ws_core::{CloseFrame, Message};

use super::{
    super::{
        envelope::{Address, Change, Envelope, PART, Publication, Wanted},
        stamp::Stamp,
    },
    streams::{Point, age},
};

/// What the application publishes, and what the backplane itself has to say.
pub(super) struct Queue {
    waiting: VecDeque<Queued>,
    /// Payloads and 64 bytes for each.
    size: usize,
    limit: usize,
    /// How many marks wait: they count nothing in the size.
    marks: usize,
    /// What is in no order with the rest, with the channel.
    orders: VecDeque<Order>,
}

/// What the backplane says on a channel.
pub(super) type Order = (String, Envelope);

/// A message that waits for the link.
pub(super) struct Queued {
    pub(super) point: Point,
    pub(super) what: What,
}

pub(super) enum What {
    Message(Address, Message),
    Close(CloseFrame),
    /// Out of this version of the members, into this one.
    Change(u64, u64, Change),
    /// The version of the members.
    Mark(u64),
    Ask(Wanted),
    Newest(Stamp, Message),
}

impl Queue {
    /// One with room for so many bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            size: 0,
            limit,
            marks: 0,
            orders: VecDeque::new(),
        }
    }

    pub(super) fn has_room(&self, queued: &Queued) -> bool {
        self.size.saturating_add(queued.size()) <= self.limit
    }

    /// Takes it in, whether there is [room](Self::has_room) or not.
    pub(super) fn push(&mut self, queued: Queued) {
        self.size += queued.size();
        self.marks += usize::from(queued.is_mark());
        self.waiting.push_back(queued);
    }

    pub(super) fn order(&mut self, order: Order) {
        self.orders.push_back(order);
    }

    /// Takes what a broker takes at once.
    pub(super) fn pop(&mut self) -> (Vec<Order>, Vec<Queued>) {
        let size_of = |order: &Order| match &order.1 {
            Envelope::Roster { .. } => PART,
            _ => OVERHEAD,
        };
        let (orders, _) = pop(&mut self.orders, size_of);
        let (queued, size) = pop(&mut self.waiting, Queued::size);
        self.size -= size;
        self.marks -= queued.iter().filter(|it| it.is_mark()).count();
        (orders, queued)
    }

    /// Takes out all that waits, to be looked at outside the lock. It counts until it is
    /// [put back](Self::put_back).
    pub(super) fn take_all(&mut self) -> (VecDeque<Queued>, VecDeque<Order>) {
        (mem::take(&mut self.waiting), mem::take(&mut self.orders))
    }

    /// Puts back what is kept of it, before what has come since.
    pub(super) fn put_back(&mut self, kept: VecDeque<Queued>, gone: &VecDeque<Queued>) {
        let since = mem::replace(&mut self.waiting, kept);
        self.waiting.extend(since);
        self.size -= gone.iter().map(Queued::size).sum::<usize>();
        self.marks -= gone.iter().filter(|it| it.is_mark()).count();
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn marks(&self) -> usize {
        self.marks
    }
}

/// Takes up to [`BATCH`] of them, until they have [`BATCH_SIZE`]. Returns what they had, too.
fn pop<T>(waiting: &mut VecDeque<T>, size_of: impl Fn(&T) -> usize) -> (Vec<T>, usize) {
    let mut taken = Vec::new();
    let mut size = 0;
    while size < BATCH_SIZE
        && taken.len() < BATCH
        && let Some(next) = waiting.pop_front()
    {
        size += size_of(&next);
        taken.push(next);
    }
    (taken, size)
}

impl Queued {
    /// `None` for what is made anew instead.
    pub(super) fn deadline(&self, patience: Duration) -> Option<Instant> {
        match self.what {
            What::Message(..) | What::Close(_) => Some(self.point.since + patience),
            What::Change(..) | What::Mark(_) | What::Ask(_) | What::Newest(..) => None,
        }
    }

    pub(super) fn into_envelope(self, now: Instant) -> Envelope {
        let place = self.point.place(now);
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
                    age: age(now, stamp.at),
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

    fn is_mark(&self) -> bool {
        matches!(self.what, What::Mark(_))
    }
}

/// What a message counts beside its payload, in bytes: as in the engine's queues.
const OVERHEAD: usize = 64;

/// What is published at once: as much as hides a round trip, and little enough that a broker
/// that goes down in between leaves little in doubt.
pub(super) const BATCH: usize = 512;
const BATCH_SIZE: usize = 256 << 10;
