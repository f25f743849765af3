//! How far the streams of other nodes have come here: what is due, what is repeated, and how much is
//! missing.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;

use super::super::{NodeId, RETENTION, envelope::Place, stamp::Stamp};

/// The streams of other nodes to one topic.
#[derive(Default)]
pub(super) struct Streams {
    by_node: HashMap<NodeId, Incoming>,
    /// Some streams that began before were forgotten.
    forgot: Option<Instant>,
}

struct Incoming {
    stream: u64,
    sequence: u64,
    /// The last that came and was for all members: what is missing in between does not count.
    heard: u64,
    /// It was told how far it has come, and nothing has come in its place.
    is_told: bool,
}

/// What a place in a stream means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is due, and so many are missing before it.
    Due(u64),
    Repeated,
}

impl Streams {
    /// A message has come, to a subscription that stands since then.
    pub(super) fn message(
        &mut self,
        node: NodeId,
        place: Place,
        is_for_all: bool,
        since: Option<Instant>,
    ) -> Arrival {
        let heard = if is_for_all { place.sequence } else { 0 };
        self.place(node, place, place.sequence - 1, heard, since)
    }

    /// The stream has come so far: what has not arrived will not.
    pub(super) fn mark(&mut self, node: NodeId, place: Place, since: Option<Instant>) -> Arrival {
        self.place(node, place, place.sequence, 0, since)
    }

    /// A node has told how far its stream has come, in no order with its messages: some before that
    /// may come yet. What comes after it is counted from there.
    pub(super) fn begin(&mut self, node: NodeId, place: Place, since: Option<Instant>) {
        if !self.by_node.contains_key(&node) && !self.is_new(place, since) {
            let incoming = Incoming {
                stream: place.stream,
                sequence: place.sequence,
                heard: 0,
                is_told: true,
            };
            self.by_node.insert(node, incoming);
        }
    }

    /// Forgets nodes that are no more.
    pub(super) fn forget(&mut self, nodes: &HashSet<NodeId>) {
        self.by_node.retain(|node, _| !nodes.contains(node));
        self.forgot = Instant::now().checked_sub(RETENTION);
    }

    /// Whether a message for all, or a later one of its node, has come in its place.
    pub(super) fn has_come(&self, stamp: &Stamp) -> bool {
        let known = self.by_node.get(&stamp.node);
        known.is_some_and(|it| (stamp.stream, stamp.sequence) <= (it.stream, it.heard))
    }

    /// All up to `before` should have come by now. What comes is `heard`, or 0.
    fn place(
        &mut self,
        node: NodeId,
        place: Place,
        before: u64,
        heard: u64,
        since: Option<Instant>,
    ) -> Arrival {
        let mut heard_before = 0;
        let expected = match self.by_node.get(&node) {
            Some(known) if known.stream == place.stream => {
                if place.sequence <= known.sequence && !(known.is_told && before < place.sequence) {
                    return Arrival::Repeated;
                }
                heard_before = known.heard;
                Some(known.sequence)
            }
            Some(known) if known.stream > place.stream => return Arrival::Repeated,
            // We were here when it began.
            Some(_) => Some(0),
            None => self.is_new(place, since).then_some(0),
        };
        let incoming = Incoming {
            stream: place.stream,
            sequence: place.sequence,
            heard: heard.max(heard_before),
            is_told: false,
        };
        self.by_node.insert(node, incoming);
        Arrival::Due(expected.map_or(0, |it| before.saturating_sub(it)))
    }

    /// Whether the stream has begun when the subscription stood, and no other one was forgotten.
    fn is_new(&self, place: Place, since: Option<Instant>) -> bool {
        let age = Duration::from_micros(place.age);
        let is_younger_than = |it: Instant| it.elapsed() > age;
        since.is_some_and(is_younger_than) && self.forgot.is_none_or(is_younger_than)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const NODE: NodeId = NodeId(7);

    fn place(stream: u64, sequence: u64, age: Duration) -> Place {
        Place {
            stream,
            sequence,
            age: u64::try_from(age.as_micros()).unwrap(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_published_before_the_subscription_is_not_missing() {
        let since = Some(Instant::now());
        advance(Duration::from_secs(5)).await;
        let (older, younger) = (Duration::from_secs(6), Duration::from_secs(4));
        let first = |age, since| Streams::default().message(NODE, place(1, 10, age), true, since);
        assert_eq!(first(older, since), Arrival::Due(0));
        assert_eq!(first(younger, since), Arrival::Due(9));
        assert_eq!(first(younger, None), Arrival::Due(0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_stream_of_a_node_counts_from_its_beginning_and_an_earlier_one_is_repeated() {
        let mut streams = Streams::default();
        let mut message = |stream, sequence| {
            streams.message(NODE, place(stream, sequence, Duration::ZERO), true, None)
        };
        assert_eq!(message(2, 5), Arrival::Due(0));
        assert_eq!(message(2, 5), Arrival::Repeated);
        assert_eq!(message(2, 8), Arrival::Due(2));
        assert_eq!(message(1, 9), Arrival::Repeated);
        assert_eq!(message(3, 3), Arrival::Due(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_mark_tells_of_what_is_missing_at_the_end_once() {
        let mut streams = Streams::default();
        let at = |sequence| place(1, sequence, Duration::ZERO);
        streams.message(NODE, at(1), true, None);
        streams.message(NODE, at(2), false, None);
        assert_eq!(streams.mark(NODE, at(2), None), Arrival::Repeated);
        assert_eq!(streams.mark(NODE, at(4), None), Arrival::Due(2));
        assert_eq!(streams.message(NODE, at(3), true, None), Arrival::Repeated);
        let stamp = |sequence| Stamp {
            node: NODE,
            stream: 1,
            sequence,
            at: Instant::now(),
        };
        assert!(streams.has_come(&stamp(1)));
        assert!(!streams.has_come(&stamp(2)), "it was for one member");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_told_before_is_counted_from_and_hides_nothing_that_is_on_its_way() {
        let since = Some(Instant::now());
        let at = |stream, sequence| place(stream, sequence, Duration::from_secs(9));
        let told = || {
            let mut streams = Streams::default();
            streams.begin(NODE, at(1, 5), since);
            streams
        };
        assert_eq!(told().message(NODE, at(1, 6), true, since), Arrival::Due(0));
        assert_eq!(told().message(NODE, at(1, 8), true, since), Arrival::Due(2));
        assert_eq!(told().mark(NODE, at(1, 8), since), Arrival::Due(3));
        assert_eq!(told().mark(NODE, at(1, 5), since), Arrival::Repeated);
        assert_eq!(told().message(NODE, at(2, 2), true, since), Arrival::Due(1));
        let mut streams = told();
        assert_eq!(
            streams.message(NODE, at(1, 4), true, since),
            Arrival::Due(0)
        );
        streams.begin(NODE, at(1, 9), since);
        assert_eq!(
            streams.message(NODE, at(1, 4), true, since),
            Arrival::Repeated
        );
        assert_eq!(
            streams.message(NODE, at(1, 6), true, since),
            Arrival::Due(1)
        );
        // It began while we listened: it is counted from there.
        advance(Duration::from_secs(10)).await;
        let mut streams = told();
        assert_eq!(streams.mark(NODE, at(1, 7), since), Arrival::Due(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_was_forgotten_begins_anew() {
        let mut streams = Streams::default();
        let since = Some(Instant::now());
        advance(RETENTION * 2).await;
        streams.message(NODE, place(1, 1, RETENTION), true, since);
        streams.forget(&HashSet::from([NODE]));
        let old = place(1, 9, RETENTION);
        assert_eq!(streams.message(NODE, old, true, since), Arrival::Due(0));
        streams.forget(&HashSet::from([NODE]));
        let new = place(1, 9, RETENTION / 2);
        assert_eq!(streams.message(NODE, new, true, since), Arrival::Due(8));
    }
}
