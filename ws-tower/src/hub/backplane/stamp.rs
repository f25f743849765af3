//! Which publication a retained message is, over all nodes.

use tokio::time::Instant;

use super::NodeId;

/// Which publication a retained message is: its place among the messages of its node, and when it
/// passed here.
#[derive(Clone, Copy, Debug)]
pub(in crate::hub) struct Stamp {
    /// The node that published it.
    pub(super) node: NodeId,
    pub(super) stream: u64,
    pub(super) sequence: u64,
    /// When it passed this node, or another one that told of it.
    pub(super) at: Instant,
}

impl Stamp {
    /// Whether both are the same publication, wherever they were seen.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.node, self.stream, self.sequence) == (other.node, other.stream, other.sequence)
    }

    /// Whether it was published after the other one. Between messages of two nodes the time
    /// decides, for the broker brings both to all nodes in about the same time.
    pub(in crate::hub) fn is_newer_than(&self, other: &Self) -> bool {
        if self.node == other.node {
            (self.stream, self.sequence) > (other.stream, other.sequence)
        } else {
            self.at > other.at
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn of_one_node_the_place_decides_and_of_two_the_time() {
        let at = Instant::now();
        let stamp = |node, stream, sequence, millis| Stamp {
            node: NodeId(node),
            stream,
            sequence,
            at: at + Duration::from_millis(millis),
        };
        let one = stamp(1, 2, 3, 100);
        assert!(one.is_same(&stamp(1, 2, 3, 200)));
        assert!(!stamp(1, 2, 3, 200).is_newer_than(&one));
        assert!(stamp(1, 2, 4, 0).is_newer_than(&one));
        assert!(stamp(1, 3, 1, 0).is_newer_than(&one));
        assert!(!stamp(1, 1, 9, 200).is_newer_than(&one));
        assert!(stamp(2, 1, 1, 101).is_newer_than(&one));
        assert!(!stamp(2, 9, 9, 100).is_newer_than(&one));
    }
}
