//! The streams of this node: its messages to each topic have numbers, by which the others find what
//! is missing.

use std::{collections::HashMap, mem, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::super::{NodeId, RETENTION, stamp::Stamp};

/// A stream of messages for each topic that this node publishes to or has members of.
#[derive(Default)]
pub(super) struct Streams {
    by_topic: HashMap<Arc<str>, Outgoing>,
    /// Streams and versions have numbers that are not used twice.
    last_number: u64,
}

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
        let (name, outgoing) = self.outgoing(topic);
        outgoing.sequence += 1;
        outgoing.touch();
        outgoing.point(name)
    }

    /// The members of a topic change. Returns their version before and after it.
    pub(super) fn change(&mut self, topic: &str) -> (Point, u64, u64) {
        let version = self.number();
        let (name, outgoing) = self.outgoing(topic);
        let previous = mem::replace(&mut outgoing.version, version);
        outgoing.touch();
        (outgoing.point(name), previous, version)
    }

    /// The version of the members of a topic; 0 if there never were any.
    pub(super) fn version(&self, topic: &str) -> u64 {
        self.by_topic.get(topic).map_or(0, |it| it.version)
    }

    /// Marks each stream that has been quiet for so long since its last mark. Returns where they
    /// are, with the version of their members.
    pub(super) fn mark_quiet(&mut self, quiet: Duration) -> Vec<(Point, u64)> {
        let now = Instant::now();
        self.mark(|it| !it.is_marked && now.duration_since(it.last) >= quiet)
    }

    /// As [`mark_quiet`](Self::mark_quiet), for all streams.
    pub(super) fn mark_all(&mut self) -> Vec<(Point, u64)> {
        self.mark(|_| true)
    }

    /// Topics that have been quiet for so long that their streams may be forgotten, marked or not.
    pub(super) fn old(&self) -> Vec<Arc<str>> {
        let now = Instant::now();
        let streams = self.by_topic.iter();
        streams
            .filter(|(_, outgoing)| outgoing.is_old(now))
            .map(|(topic, _)| Arc::clone(topic))
            .collect()
    }

    /// Forgets the stream of a topic, if it is [old](Self::old) by now.
    pub(super) fn forget(&mut self, topic: &str) {
        let now = Instant::now();
        if self.by_topic.get(topic).is_some_and(|it| it.is_old(now)) {
            self.by_topic.remove(topic);
        }
    }

    fn mark(&mut self, is_due: impl Fn(&Outgoing) -> bool) -> Vec<(Point, u64)> {
        let streams = self.by_topic.iter_mut();
        streams
            .filter(|(_, outgoing)| is_due(outgoing))
            .map(|(topic, outgoing)| {
                outgoing.is_marked = true;
                (outgoing.point(Arc::clone(topic)), outgoing.version)
            })
            .collect()
    }

    fn outgoing(&mut self, topic: &str) -> (Arc<str>, &mut Outgoing) {
        let name = match self.by_topic.get_key_value(topic) {
            Some((name, _)) => Arc::clone(name),
            None => topic.into(),
        };
        let last_number = &mut self.last_number;
        let outgoing = self.by_topic.entry(Arc::clone(&name)).or_insert_with(|| {
            *last_number += 1;
            Outgoing::new(*last_number)
        });
        (name, outgoing)
    }

    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
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

    fn is_old(&self, now: Instant) -> bool {
        now.duration_since(self.last) >= RETENTION
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

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_is_forgotten_begins_anew_with_a_greater_number() {
        let mut streams = Streams::default();
        let first = streams.next("lobby");
        advance(RETENTION / 2).await;
        streams.forget("lobby");
        let second = streams.next("lobby");
        assert_eq!((second.stream, second.sequence), (first.stream, 2));
        advance(RETENTION).await;
        streams.forget("lobby");
        let third = streams.next("lobby");
        assert!(third.stream > second.stream);
        assert_eq!(third.sequence, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_marked_once_for_each_time_it_is_quiet() {
        let quiet = Duration::from_secs(5);
        let mut streams = Streams::default();
        streams.next("lobby");
        assert_eq!(streams.mark_quiet(quiet).len(), 0);
        advance(quiet).await;
        assert_eq!(streams.mark_quiet(quiet).len(), 1);
        assert_eq!(streams.mark_quiet(quiet).len(), 0);
        assert_eq!(streams.mark_all().len(), 1);
        let (_, previous, version) = streams.change("lobby");
        advance(quiet).await;
        let marks = streams.mark_quiet(quiet);
        assert_eq!((previous, marks[0].1), (0, version));
    }
}
