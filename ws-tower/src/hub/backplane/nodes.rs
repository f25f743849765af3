//! The other nodes: whether they are alive, what of their members has come so far, and their numbers.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{NodeId, RETENTION, envelope::Entry};

/// The other nodes. What they say decides how much is kept of them, so all of it has a bound.
#[derive(Default)]
pub(super) struct Nodes {
    alive: HashMap<NodeId, Node>,
    /// Those that have ended: their streams are kept for a while.
    gone: HashMap<NodeId, Gone>,
}

struct Gone {
    at: Instant,
    end: End,
}

/// How a node has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It has said so, and does not come back.
    Said,
    /// Nothing is heard of it any more: it may be cut off.
    Silent,
}

struct Node {
    heard: Instant,
    expiry: Duration,
    rosters: Rosters,
}

/// Rosters that are not complete.
#[derive(Default)]
struct Rosters {
    by_topic: HashMap<Arc<str>, Roster>,
    size: usize,
}

#[derive(Default)]
struct Roster {
    version: u64,
    /// So far; `None` for more than are kept.
    members: Option<Vec<Entry>>,
    /// What they take, in bytes.
    size: usize,
}

/// What it means that a node was heard.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Known,
    /// For the first time, as far as is remembered.
    New,
    /// After it had been given up.
    Back,
    /// There are too many, and this is not one of them.
    OneTooMany,
}

impl Nodes {
    /// How many are alive.
    pub(super) fn len(&self) -> usize {
        self.alive.len()
    }

    /// A node has said something, and maybe for how long it may be silent.
    pub(super) fn hear(
        &mut self,
        node: NodeId,
        expiry: Option<Duration>,
        default: Duration,
    ) -> Heard {
        let now = Instant::now();
        let heard = if self.alive.contains_key(&node) {
            Heard::Known
        } else if self.gone.remove(&node).is_some() {
            Heard::Back
        } else if self.alive.len() + self.gone.len() < MAX_NODES {
            Heard::New
        } else {
            return Heard::OneTooMany;
        };
        let known = self.alive.entry(node).or_insert_with(|| Node {
            heard: now,
            expiry: default,
            rosters: Rosters::default(),
        });
        known.heard = now;
        if let Some(expiry) = expiry {
            known.expiry = expiry.min(MAX_EXPIRY);
        }
        heard
    }

    /// A link stands anew: the time without one does not count, and what was begun is lost.
    pub(super) fn link(&mut self) {
        for node in self.alive.values_mut() {
            node.heard = Instant::now();
            node.rosters = Rosters::default();
        }
    }

    pub(super) fn all(&self) -> Vec<NodeId> {
        self.alive.keys().copied().collect()
    }

    /// Those that have been silent for too long.
    pub(super) fn silent(&self) -> Vec<NodeId> {
        let alive = self.alive.iter();
        alive
            .filter(|(_, node)| node.heard.elapsed() >= node.expiry)
            .map(|(id, _)| *id)
            .collect()
    }

    pub(super) fn remove(&mut self, node: NodeId, end: End) {
        if self.alive.remove(&node).is_some() {
            let at = Instant::now();
            self.gone.insert(node, Gone { at, end });
        }
    }

    /// Whether one may be cut off and come back.
    pub(super) fn is_one_missing(&self) -> bool {
        self.gone.values().any(|it| it.end == End::Silent)
    }

    /// The longest silence after which one of those that are alive is given up.
    pub(super) fn longest_expiry(&self) -> Option<Duration> {
        self.alive.values().map(|it| it.expiry).max()
    }

    /// Those that ended so long ago that nothing of theirs is on its way any more.
    pub(super) fn take_old(&mut self) -> HashSet<NodeId> {
        let is_old = |_: &NodeId, gone: &mut Gone| gone.at.elapsed() >= RETENTION;
        self.gone.extract_if(is_old).map(|(id, _)| id).collect()
    }

    /// Takes a part of the members that a node has of a topic. With the last one it gives back all.
    pub(super) fn part(
        &mut self,
        node: NodeId,
        topic: &str,
        version: u64,
        is_last: bool,
        members: Vec<Entry>,
    ) -> Option<Vec<Entry>> {
        let rosters = &mut self.alive.get_mut(&node)?.rosters;
        let mut roster = rosters.by_topic.remove(topic).unwrap_or_default();
        rosters.size -= roster.size;
        if roster.version != version {
            roster = Roster {
                version,
                members: Some(Vec::new()),
                size: 0,
            };
        }
        roster.size += size(&members);
        if let Some(known) = &mut roster.members {
            known.extend(members);
        }
        if is_last {
            return roster.members;
        }
        if rosters.size + roster.size > MAX_ROSTERS {
            tracing::warn!(%node, topic, "a node tells of more members than can be kept");
            roster.members = None;
        }
        if roster.members.is_none() {
            roster.size = 0;
        }
        rosters.size += roster.size;
        rosters.by_topic.insert(topic.into(), roster);
        None
    }
}

/// Nodes by the number that ids of members have for them, from 1.
#[derive(Default)]
pub(super) struct Numbers {
    nodes: Vec<NodeId>,
    by_node: HashMap<NodeId, u16>,
}

impl Numbers {
    /// The number for a node. When all are given, others have 65,535, and their members cannot be
    /// reached by their ids.
    pub(super) fn number_of(&mut self, node: NodeId) -> u16 {
        if let Some(number) = self.by_node.get(&node) {
            return *number;
        }
        let number = u16::try_from(self.nodes.len() + 1).unwrap_or(u16::MAX);
        if number < u16::MAX {
            self.nodes.push(node);
            self.by_node.insert(node, number);
        }
        number
    }

    /// `None` for a number that was not given.
    pub(super) fn node_of(&self, number: u16) -> Option<NodeId> {
        let place = usize::from(number).checked_sub(1)?;
        self.nodes.get(place).copied()
    }
}

fn size(members: &[Entry]) -> usize {
    let size = |it: &Entry| size_of::<Entry>() + it.metadata.as_ref().map_or(0, |it| it.len());
    members.iter().map(size).sum()
}

/// As many as can be named in the ids of members.
const MAX_NODES: usize = u16::MAX as usize;

/// The longest silence that a node may claim for itself.
const MAX_EXPIRY: Duration = Duration::from_secs(24 * 60 * 60);

/// What is kept of a node's incomplete rosters, in bytes: those of some millions of members.
const MAX_ROSTERS: usize = 256 << 20;

#[cfg(test)]
mod tests {
    use tokio::time::advance;
    use ws_core::Utf8Bytes;

    use super::*;
    use crate::hub::backplane::SeatId;

    const DEFAULT: Duration = Duration::from_secs(15);

    fn entries(count: u32, metadata: &Arc<Utf8Bytes>) -> Vec<Entry> {
        let entry = |segment| Entry {
            seat: SeatId {
                number: 1,
                segment,
                slot: 0,
            },
            metadata: Some(Arc::clone(metadata)),
        };
        (0..count).map(entry).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_nodes_does_not_fill_the_memory() {
        let mut nodes = Nodes::default();
        let flood = |nodes: &mut Nodes, from: u64| {
            let all = (from..from + 100_000).map(|it| nodes.hear(NodeId(it), None, DEFAULT));
            all.filter(|it| *it == Heard::New).count()
        };
        assert_eq!(flood(&mut nodes, 1), MAX_NODES);
        // Who was there before is still heard.
        assert_eq!(nodes.hear(NodeId(1), None, DEFAULT), Heard::Known);
        advance(DEFAULT).await;
        for node in nodes.silent() {
            nodes.remove(node, End::Silent);
        }
        assert_eq!((nodes.len(), flood(&mut nodes, 200_000)), (0, 0));
        assert_eq!(nodes.hear(NodeId(1), None, DEFAULT), Heard::Back);
        advance(RETENTION).await;
        assert_eq!(nodes.take_old().len(), MAX_NODES - 1);
        assert_eq!(flood(&mut nodes, 200_000), MAX_NODES - 1);
    }

    #[test]
    fn a_node_without_a_number_is_not_taken_for_another() {
        let mut numbers = Numbers::default();
        let last = u64::from(u16::MAX);
        for node in 1..last + 10 {
            let number = numbers.number_of(NodeId(node));
            assert_eq!(u64::from(number), node.min(last));
            let known = (node < last).then_some(NodeId(node));
            assert_eq!(numbers.node_of(number), known);
        }
        assert_eq!(
            (numbers.number_of(NodeId(7)), numbers.node_of(0)),
            (7, None)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_cannot_claim_to_be_alive_for_weeks() {
        let mut nodes = Nodes::default();
        nodes.hear(NodeId(1), Some(Duration::from_secs(1 << 22)), DEFAULT);
        advance(MAX_EXPIRY / 2).await;
        assert_eq!(nodes.silent(), []);
        advance(MAX_EXPIRY / 2).await;
        assert_eq!(nodes.silent(), [NodeId(1)]);
    }

    #[tokio::test]
    async fn a_node_that_never_finishes_its_roster_does_not_fill_the_memory() {
        let mut nodes = Nodes::default();
        let node = NodeId(1);
        nodes.hear(node, None, DEFAULT);
        let metadata = Arc::new("x".repeat(16 << 10).into());
        for topic in 0..1000 {
            for _ in 0..10 {
                nodes.part(node, &format!("{topic}"), 1, false, entries(4, &metadata));
            }
            let rosters = &nodes.alive[&node].rosters;
            let kept = rosters.by_topic.values().flat_map(|it| &it.members);
            let kept: usize = kept.map(|it| size(it)).sum();
            assert_eq!(kept, rosters.size);
            assert!(kept <= MAX_ROSTERS);
        }
        // What was cut off is not taken for the whole, and those that end make room.
        let mut end = |topic: u32| nodes.part(node, &format!("{topic}"), 1, true, Vec::new());
        assert_eq!(end(0).map(|it| it.len()), Some(40));
        assert_eq!(end(999), None);
        for topic in 1..999 {
            end(topic);
        }
        assert_eq!(nodes.alive[&node].rosters.size, 0);
    }

    #[tokio::test]
    async fn parts_of_one_version_are_one_roster() {
        let mut nodes = Nodes::default();
        let node = NodeId(1);
        assert_eq!(nodes.part(node, "lobby", 1, true, Vec::new()), None);
        nodes.hear(node, None, DEFAULT);
        let name = Arc::new("Ann".into());
        assert_eq!(nodes.part(node, "lobby", 1, false, entries(2, &name)), None);
        assert_eq!(nodes.part(node, "lobby", 2, false, entries(3, &name)), None);
        let all = nodes.part(node, "lobby", 2, true, entries(4, &name));
        assert_eq!(all.map(|it| it.len()), Some(7));
    }
}
