//! A part of the streams, in the order in which they were last used, so that what is due is in
//! front and nobody has to look for it.

use std::{collections::HashMap, sync::Arc};

use tokio::time::Instant;

use super::{Forgotten, Outgoing, Point};

/// Streams by topic. They lie side by side and are linked to two orders, by the places where they
/// lie.
#[derive(Default)]
pub(super) struct Part {
    places: HashMap<Arc<str>, u32>,
    streams: Vec<Linked>,
    /// Those of topics that nobody here has, as far as is known.
    loose: Order,
    /// Those of topics that somebody here has.
    held: Order,
}

struct Linked {
    topic: Arc<str>,
    outgoing: Outgoing,
    is_held: bool,
    before: Option<u32>,
    after: Option<u32>,
}

/// The one that was used first is the first.
#[derive(Clone, Copy, Default)]
struct Order {
    first: Option<u32>,
    last: Option<u32>,
    /// The first that is to be marked: all before it are.
    unmarked: Option<u32>,
    len: usize,
}

impl Part {
    /// Finds a stream, or begins one, and puts it behind all that were used before. One that still
    /// [owes](Outgoing::owes) a mark keeps its place: the mark must not wait until it is quiet.
    pub(super) fn touch(
        &mut self,
        topic: &str,
        pass: u64,
        begin: impl FnOnce() -> Outgoing,
    ) -> (Arc<str>, &mut Outgoing) {
        let place = match self.places.get(topic) {
            Some(place) => *place,
            None => self.insert(topic.into(), begin()),
        };
        let linked = &self.streams[place as usize];
        if !linked.outgoing.owes(pass) && linked.after.is_some() {
            self.unlink(place);
            self.push_back(place);
        }
        self.order(place).unmarked.get_or_insert(place);
        let linked = &mut self.streams[place as usize];
        linked.outgoing.touch();
        (Arc::clone(&linked.topic), &mut linked.outgoing)
    }

    /// Where a stream is, with the version of its members.
    pub(super) fn point(&self, topic: &str) -> Option<(Point, u64)> {
        let place = *self.places.get(topic)?;
        Some(self.streams[place as usize].point())
    }

    /// Marks the next one that is due. Returns where it is, with the version of its members.
    pub(super) fn mark(
        &mut self,
        pass: u64,
        is_due: &mut impl FnMut(&Outgoing) -> bool,
    ) -> Option<(Point, u64)> {
        for order in [&mut self.loose, &mut self.held] {
            let Some(place) = order.unmarked else {
                continue;
            };
            let linked = &mut self.streams[place as usize];
            if is_due(&linked.outgoing) {
                order.unmarked = linked.after;
                return Some(linked.mark(pass));
            }
        }
        None
    }

    /// All are to be marked, the first one first.
    pub(super) fn rewind(&mut self) {
        for order in [&mut self.loose, &mut self.held] {
            order.unmarked = order.first;
        }
    }

    /// Adds loose ones that are old, or beyond as many as may be kept, with when they were used,
    /// until there are so many.
    pub(super) fn old(
        &self,
        old: &mut Vec<(Arc<str>, Instant)>,
        max: usize,
        kept: usize,
        is_old: &mut impl FnMut(&Outgoing) -> bool,
    ) {
        let mut left = self.loose.len;
        let mut next = self.loose.first;
        while old.len() < max
            && let Some(place) = next
            && let linked = &self.streams[place as usize]
            && (left > kept || is_old(&linked.outgoing))
        {
            old.push((Arc::clone(&linked.topic), linked.outgoing.last));
            left -= 1;
            next = linked.after;
        }
    }

    /// Somebody here has the topic: its stream is not for [`old`](Self::old).
    pub(super) fn hold(&mut self, topic: &str, pass: u64) {
        self.change(topic, true, pass);
    }

    /// Nobody here has the topic any more.
    pub(super) fn release(&mut self, topic: &str, pass: u64) {
        self.change(topic, false, pass);
    }

    /// Takes a stream out, if it was not used since then.
    pub(super) fn forget(&mut self, topic: &str, last: Instant, pass: u64) -> Forgotten {
        let Some(place) = self.places.get(topic).copied() else {
            return Forgotten::Not;
        };
        if self.streams[place as usize].outgoing.last != last {
            return Forgotten::Not;
        }
        self.unlink(place);
        self.places.remove(topic);
        let mut linked = self.streams.swap_remove(place as usize);
        // The last one lies in its place now.
        if let Some(moved) = self.streams.get(place as usize) {
            let from = u32::try_from(self.streams.len()).ok();
            let (topic, before, after) = (Arc::clone(&moved.topic), moved.before, moved.after);
            let order = self.order(place);
            for end in [&mut order.first, &mut order.last, &mut order.unmarked] {
                if *end == from {
                    *end = Some(place);
                }
            }
            self.link(before, after, Some(place), Some(place));
            self.places.insert(topic, place);
        }
        // A peak of topics leaves nothing behind.
        if self.streams.capacity() > SPARE && self.streams.len() < self.streams.capacity() / 4 {
            self.streams.shrink_to(self.streams.len() * 2);
            self.places.shrink_to(self.places.len() * 2);
        }
        if linked.outgoing.is_marked(pass) {
            return Forgotten::Marked;
        }
        let (point, version) = linked.mark(pass);
        Forgotten::Unmarked(point, version)
    }

    /// How many are loose.
    pub(super) fn loose(&self) -> usize {
        self.loose.len
    }

    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }

    // The orders.

    /// Takes a stream from one order to the other.
    fn change(&mut self, topic: &str, is_held: bool, pass: u64) {
        let Some(place) = self.places.get(topic).copied() else {
            return;
        };
        let linked = &self.streams[place as usize];
        if linked.is_held == is_held {
            return;
        }
        let is_marked = linked.outgoing.is_marked(pass);
        self.unlink(place);
        let linked = &mut self.streams[place as usize];
        linked.is_held = is_held;
        if is_held && is_marked {
            // All that are marked are in front, and for these the order is of no use.
            self.push_front(place);
        } else {
            linked.outgoing.touch();
            self.push_back(place);
            self.order(place).unmarked.get_or_insert(place);
        }
    }

    fn insert(&mut self, topic: Arc<str>, outgoing: Outgoing) -> u32 {
        // So many do not fit into the memory.
        let place = u32::try_from(self.streams.len()).unwrap_or(u32::MAX);
        self.places.insert(Arc::clone(&topic), place);
        self.streams.push(Linked {
            topic,
            outgoing,
            is_held: false,
            before: None,
            after: None,
        });
        self.push_back(place);
        place
    }

    fn order(&mut self, place: u32) -> &mut Order {
        if self.streams[place as usize].is_held {
            &mut self.held
        } else {
            &mut self.loose
        }
    }

    fn push_back(&mut self, place: u32) {
        let order = self.order(place);
        let before = order.last.replace(place);
        order.first.get_or_insert(place);
        order.len += 1;
        self.link(before, None, Some(place), None);
        let linked = &mut self.streams[place as usize];
        (linked.before, linked.after) = (before, None);
    }

    fn push_front(&mut self, place: u32) {
        let order = self.order(place);
        let after = order.first.replace(place);
        order.last.get_or_insert(place);
        order.len += 1;
        self.link(None, after, None, Some(place));
        let linked = &mut self.streams[place as usize];
        (linked.before, linked.after) = (None, after);
    }

    fn unlink(&mut self, place: u32) {
        let linked = &self.streams[place as usize];
        let (before, after) = (linked.before, linked.after);
        let order = self.order(place);
        if order.first == Some(place) {
            order.first = after;
        }
        if order.last == Some(place) {
            order.last = before;
        }
        if order.unmarked == Some(place) {
            order.unmarked = after;
        }
        order.len -= 1;
        self.link(before, after, after, before);
    }

    /// Says to the one before what is after it, and to the one after what is before it.
    fn link(
        &mut self,
        before: Option<u32>,
        after: Option<u32>,
        next: Option<u32>,
        previous: Option<u32>,
    ) {
        if let Some(before) = before {
            self.streams[before as usize].after = next;
        }
        if let Some(after) = after {
            self.streams[after as usize].before = previous;
        }
    }
}

impl Linked {
    fn mark(&mut self, pass: u64) -> (Point, u64) {
        self.outgoing.mark(pass);
        self.point()
    }

    fn point(&self) -> (Point, u64) {
        let point = self.outgoing.point(Arc::clone(&self.topic));
        (point, self.outgoing.version)
    }
}

/// What is not worth giving back.
const SPARE: usize = 64;
