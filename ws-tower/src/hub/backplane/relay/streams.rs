//! The streams of this node: its messages to each topic have numbers, by which the others find what
//! is missing.

mod part;

use std::{
    hash::{BuildHasher, RandomState},
    mem,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use self::part::Part;
use super::super::{MAX_LOOSE, NodeId, RETENTION, envelope::Place, stamp::Stamp};

/// A stream of messages for each topic that this node publishes to or has members of.
///
/// They are in parts, so that no step takes longer when there are more of them: a table that grows
/// is one of many.
pub(super) struct Streams {
    parts: Box<[Part]>,
    /// What the names are mixed with: nobody else knows which lie in one part.
    seed: u64,
    /// Streams and versions have numbers that are not used twice.
    last_number: u64,
    /// How often all were to be marked.
    pass: u64,
}

struct Outgoing {
    stream: u64,
    sequence: u64,
    started: Instant,
    last: Instant,
    /// The version of the members; 0 if there are none.
    version: u64,
    /// Whether the others were told how far it has come.
    is_marked: bool,
    /// The last pass in which that was not owed.
    pass: u64,
}

/// What came of forgetting a stream.
pub(super) enum Forgotten {
    /// It is not there, or is used.
    Not,
    /// Its mark is out.
    Marked,
    /// This is its mark, with the version of the members.
    Unmarked(Point, u64),
}

/// How far the stream of a topic has come, and when.
pub(super) struct Point {
    pub(super) topic: Arc<str>,
    pub(super) stream: u64,
    pub(super) sequence: u64,
    /// The beginning of the stream.
    pub(super) started: Instant,
    pub(super) since: Instant,
}

impl Streams {
    /// The point of a new message.
    pub(super) fn next(&mut self, topic: &str) -> Point {
        let (name, outgoing) = self.touch(topic);
        outgoing.sequence += 1;
        outgoing.point(name)
    }

    /// The members of a topic change, and it may be the last that leaves. Returns their version before
    /// and after it.
    pub(super) fn change(&mut self, topic: &str, is_last: bool) -> (Point, u64, u64) {
        self.last_number += 1;
        let version = self.last_number;
        let (name, outgoing) = self.touch(topic);
        let next = if is_last { 0 } else { version };
        let previous = mem::replace(&mut outgoing.version, next);
        (outgoing.point(name), previous, version)
    }

    /// Where the stream of a topic is, and the version of its members.
    pub(super) fn point(&self, topic: &str) -> Option<(Point, u64)> {
        self.parts[self.place(topic)].point(topic)
    }

    /// Marks some of the streams that have been quiet for so long since their last mark, and of all
    /// after [`rewind`](Self::rewind), at most so many. Returns where they are, with the version of
    /// their members. Less than so many are all.
    pub(super) fn mark(&mut self, quiet: Duration, max: usize) -> Vec<(Point, u64)> {
        let (now, pass) = (Instant::now(), self.pass);
        self.mark_if(max, |it| {
            it.owes(pass) || now.duration_since(it.last) >= quiet
        })
    }

    /// All streams are to be marked.
    pub(super) fn rewind(&mut self) {
        self.pass += 1;
        for part in &mut self.parts {
            part.rewind();
        }
    }

    /// At most so many of the topics whose streams are of no use any more if nobody is there, with when they
    /// were used last: they were not for so long since their mark, or for [`RETENTION`] without
    /// one, or they are [too many](super::super::MAX_LOOSE).
    pub(super) fn old(&self, retention: Duration, max: usize) -> Vec<(Arc<str>, Instant)> {
        let (now, pass) = (Instant::now(), self.pass);
        self.old_if(max, |it| {
            let quiet = now.duration_since(it.last);
            quiet >= RETENTION || quiet >= retention && it.is_marked(pass)
        })
    }

    /// Whether there are more than are kept.
    pub(super) fn is_crowded(&self) -> bool {
        self.parts.iter().any(|it| it.loose() > LOOSE)
    }

    /// Somebody here has the topic: its stream does not become old.
    pub(super) fn hold(&mut self, topic: &str) {
        let pass = self.pass;
        self.part(topic).hold(topic, pass);
    }

    /// Nobody here has the topic any more.
    pub(super) fn release(&mut self, topic: &str) {
        let pass = self.pass;
        self.part(topic).release(topic, pass);
    }

    /// Forgets the stream of a topic, if it was not used since then.
    pub(super) fn forget(&mut self, topic: &str, last: Instant) -> Forgotten {
        let pass = self.pass;
        self.part(topic).forget(topic, last, pass)
    }

    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(Part::len).sum()
    }

    fn mark_if(
        &mut self,
        max: usize,
        mut is_due: impl FnMut(&Outgoing) -> bool,
    ) -> Vec<(Point, u64)> {
        let mut marks = Vec::new();
        for part in &mut self.parts {
            while marks.len() < max
                && let Some(mark) = part.mark(self.pass, &mut is_due)
            {
                marks.push(mark);
            }
        }
        marks
    }

    fn old_if(
        &self,
        max: usize,
        mut is_old: impl FnMut(&Outgoing) -> bool,
    ) -> Vec<(Arc<str>, Instant)> {
        let mut old = Vec::new();
        for part in &self.parts {
            part.old(&mut old, max, LOOSE, &mut is_old);
        }
        old
    }

    fn touch(&mut self, topic: &str) -> (Arc<str>, &mut Outgoing) {
        let place = self.place(topic);
        let (pass, last_number) = (self.pass, &mut self.last_number);
        self.parts[place].touch(topic, pass, || {
            *last_number += 1;
            Outgoing::new(*last_number, pass)
        })
    }

    fn part(&mut self, topic: &str) -> &mut Part {
        let place = self.place(topic);
        &mut self.parts[place]
    }

    fn place(&self, topic: &str) -> usize {
        let mut hash = self.seed;
        for piece in topic.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..piece.len()].copy_from_slice(piece);
            hash = (hash.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(MIX);
        }
        usize::try_from(hash >> (u64::BITS - PARTS.ilog2())).unwrap_or(0)
    }
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            parts: (0..PARTS).map(|_| Part::default()).collect(),
            seed: RandomState::new().hash_one(()),
            last_number: 0,
            pass: 0,
        }
    }
}

impl Outgoing {
    fn new(stream: u64, pass: u64) -> Self {
        let now = Instant::now();
        Self {
            stream,
            sequence: 0,
            started: now,
            last: now,
            version: 0,
            is_marked: false,
            pass,
        }
    }

    fn touch(&mut self) {
        self.last = Instant::now();
        self.is_marked = false;
    }

    fn mark(&mut self, pass: u64) {
        self.is_marked = true;
        self.pass = pass;
    }

    fn is_marked(&self, pass: u64) -> bool {
        self.is_marked && !self.owes(pass)
    }

    /// Whether it is to be marked at once.
    fn owes(&self, pass: u64) -> bool {
        self.pass < pass
    }

    fn point(&self, topic: Arc<str>) -> Point {
        Point {
            topic,
            stream: self.stream,
            sequence: self.sequence,
            started: self.started,
            since: self.last,
        }
    }
}

impl Point {
    /// For what is in no stream.
    pub(super) fn outside(topic: &Arc<str>) -> Self {
        let now = Instant::now();
        Self {
            topic: Arc::clone(topic),
            stream: 0,
            sequence: 0,
            started: now,
            since: now,
        }
    }

    /// As the others are told of it now.
    pub(super) fn place(&self, now: Instant) -> Place {
        Place {
            stream: self.stream,
            sequence: self.sequence,
            age: age(now, self.started),
        }
    }

    /// The publication at this point, by this node.
    pub(super) fn stamp(&self, node: NodeId) -> Stamp {
        Stamp {
            node,
            stream: self.stream,
            sequence: self.sequence,
            at: self.since,
        }
    }
}

/// In microseconds.
pub(super) fn age(now: Instant, since: Instant) -> u64 {
    let age = now.duration_since(since).as_micros();
    u64::try_from(age).unwrap_or(u64::MAX)
}

/// Parts: enough that what grows is small, and few enough to look at the first of each.
const PARTS: usize = 64;

/// How many each part keeps that nobody here has the topic of.
const LOOSE: usize = MAX_LOOSE / PARTS;

/// 2⁶⁴ divided by the golden ratio: it mixes each bit into those above it.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tokio::time::advance;

    use super::*;

    const QUIET: Duration = Duration::from_secs(5);

    fn forget(streams: &mut Streams, topic: &str) -> bool {
        let old = streams.old(RETENTION, 100);
        let old = old.iter().find(|(it, _)| **it == *topic);
        old.is_some_and(|(topic, last)| !matches!(streams.forget(topic, *last), Forgotten::Not))
    }

    fn marks(streams: &mut Streams) -> Vec<String> {
        let marks = streams.mark(QUIET, usize::MAX);
        marks.iter().map(|(it, _)| it.topic.to_string()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_is_forgotten_begins_anew_with_a_greater_number() {
        let mut streams = Streams::default();
        let first = streams.next("lobby");
        advance(RETENTION / 2).await;
        assert!(!forget(&mut streams, "lobby"));
        let second = streams.next("lobby");
        assert_eq!((second.stream, second.sequence), (first.stream, 2));
        advance(RETENTION).await;
        assert!(forget(&mut streams, "lobby"));
        let third = streams.next("lobby");
        assert!(third.stream > second.stream);
        assert_eq!(third.sequence, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_marked_once_for_each_time_it_is_quiet() {
        let mut streams = Streams::default();
        streams.next("lobby");
        assert_eq!(marks(&mut streams).len(), 0);
        advance(QUIET).await;
        assert_eq!(marks(&mut streams).len(), 1);
        assert_eq!(marks(&mut streams).len(), 0);
        streams.rewind();
        assert_eq!(marks(&mut streams).len(), 1);
        assert_eq!(marks(&mut streams).len(), 0);
        let (_, previous, version) = streams.change("lobby", false);
        advance(QUIET).await;
        let marks = streams.mark(QUIET, 2);
        assert_eq!((previous, marks[0].1), (0, version));
    }

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_looks_at_no_stream_that_is_not_due() {
        let mut streams = Streams::default();
        for topic in 0..100_000 {
            streams.next(&format!("room-{topic}"));
        }
        advance(QUIET).await;
        streams.next("due later");
        assert_eq!(marks(&mut streams).len(), 100_000);
        let mut looked = 0;
        let now = Instant::now();
        streams.mark_if(usize::MAX, |it| {
            looked += 1;
            now.duration_since(it.last) >= QUIET
        });
        assert_eq!(looked, 1);
        let mut looked = 0;
        for part in &streams.parts {
            part.old(&mut Vec::new(), 100, usize::MAX, &mut |_| {
                looked += 1;
                false
            });
        }
        assert_eq!(looked, PARTS);
        // And each of them is found when it is due, in pieces.
        streams.rewind();
        for _ in 0..100_001 / 32 {
            assert_eq!(streams.mark(QUIET, 32).len(), 32);
        }
        assert_eq!(streams.mark(QUIET, 32).len(), 100_001 % 32);
    }

    #[tokio::test(start_paused = true)]
    async fn the_order_is_that_of_a_table_that_is_walked() {
        let mut streams = Streams::default();
        // The topic, when it was used, whether it is owed a mark, and whether it is held.
        let mut known: HashMap<String, (Instant, bool, bool)> = HashMap::new();
        let mut random = 7_u64;
        for step in 0..30_000 {
            random = random.wrapping_mul(MIX).rotate_left(17).wrapping_add(step);
            let topic = format!("room-{}", (random >> 8) % 300);
            let now = Instant::now();
            match random % 16 {
                0..6 => {
                    streams.next(&topic);
                    let is_held = known.get(&topic).is_some_and(|it| it.2);
                    known.insert(topic, (now, true, is_held));
                }
                6..10 => {
                    let mut due: Vec<_> = known
                        .iter()
                        .filter(|(_, it)| it.1 && now.duration_since(it.0) >= QUIET)
                        .map(|(topic, _)| topic.clone())
                        .collect();
                    let mut marks = marks(&mut streams);
                    due.sort_unstable();
                    marks.sort_unstable();
                    assert_eq!(marks, due);
                    for topic in due {
                        known.get_mut(&topic).unwrap().1 = false;
                    }
                }
                10 => {
                    let old = QUIET * 3;
                    for (topic, last) in streams.old(old, usize::MAX) {
                        let (used, is_owed, is_held) = known[&*topic];
                        assert_eq!((used, is_owed, is_held), (last, false, false));
                        if random & 0x1000 > 0 {
                            streams.hold(&topic);
                            known.get_mut(&*topic).unwrap().2 = true;
                        } else {
                            assert!(matches!(streams.forget(&topic, last), Forgotten::Marked));
                            known.remove(&*topic);
                        }
                    }
                    let is_left = |it: &&(Instant, bool, bool)| {
                        !it.1 && !it.2 && now.duration_since(it.0) >= old
                    };
                    assert_eq!(known.values().filter(is_left).count(), 0);
                }
                11 => {
                    streams.release(&topic);
                    if let Some(it) = known.get_mut(&topic)
                        && it.2
                    {
                        *it = (now, true, false);
                    }
                }
                12 if step % 50 == 0 => {
                    streams.rewind();
                    let mut marks = marks(&mut streams);
                    marks.sort_unstable();
                    let mut all: Vec<_> = known.keys().cloned().collect();
                    all.sort_unstable();
                    assert_eq!(marks, all);
                    for it in known.values_mut() {
                        it.1 = false;
                    }
                }
                _ => advance(QUIET / 20).await,
            }
            assert_eq!(streams.len(), known.len());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_used_while_all_are_marked_is_marked_no_later() {
        let mut streams = Streams::default();
        for topic in 0..1000 {
            streams.change(&format!("{topic}"), false);
        }
        advance(QUIET).await;
        assert_eq!(marks(&mut streams).len(), 1000);
        streams.rewind();
        let mut marked = streams.mark(QUIET, 300).len();
        for topic in 0..1000 {
            streams.change(&format!("{topic}"), false);
        }
        marked += marks(&mut streams).len();
        assert_eq!(marked, 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn streams_of_topics_that_nobody_has_are_kept_up_to_a_limit() {
        let mut streams = Streams::default();
        for topic in 0..2 * MAX_LOOSE {
            streams.next(&format!("room-{topic}"));
            while topic % 64 == 63 && streams.is_crowded() {
                for (topic, last) in streams.old(RETENTION, 32) {
                    // Whoever is there is told what is missing before it is forgotten.
                    let forgotten = streams.forget(&topic, last);
                    assert!(matches!(forgotten, Forgotten::Unmarked(..)));
                }
            }
        }
        assert!(streams.len() <= MAX_LOOSE);
        // The names are spread, so the oldest went first.
        assert!(streams.len() > MAX_LOOSE * 9 / 10);
        let newest = format!("room-{}", 2 * MAX_LOOSE - 1);
        assert_eq!(streams.next(&newest).sequence, 2);
        assert_eq!(streams.next("room-0").sequence, 1);
    }
}
