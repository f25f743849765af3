//! What travels between nodes: one envelope for each payload of the broker.

mod codec;

use std::sync::Arc;

use ws_core::{CloseFrame, Message, Utf8Bytes};

pub(super) use self::codec::MAX_HEADER;
use super::NodeId;
use crate::session::feeds::MemberId;

/// An envelope, opened.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Envelope {
    /// A message to the members of a topic.
    Message {
        place: Place,
        to: Address,
        message: Message,
    },
    /// The sockets of all members are to be closed.
    Close { place: Place, close: CloseFrame },
    /// How far the stream has come, and which version the members are; 0 for nobody.
    Mark { place: Place, version: u64 },
    /// The members have become this version, out of the one before. Before 0 there was nobody.
    Change {
        previous: u64,
        version: u64,
        change: Change,
    },
    /// Who are your members and how far has your stream come, or which is your newest message?
    /// `None` asks all nodes. What comes back of it says that the subscription stands.
    Ask {
        node: Option<NodeId>,
        wanted: Wanted,
    },
    /// The newest message of a topic, for a node that has asked: again, or for the first time.
    Newest { of: Publication, message: Message },
    /// These are, or the next part of them, and this is how far the stream has come: messages before
    /// that may be on their way.
    Roster {
        topic: Utf8Bytes,
        place: Place,
        version: u64,
        is_last: bool,
        members: Vec<Entry>,
    },
    /// The node is alive, and may be given up when nothing more is heard for so many milliseconds.
    Beat { expiry: u32 },
    /// Mark all streams: the sender has missed something. `None` asks all nodes.
    Resync { node: Option<NodeId> },
    /// The node ends.
    Bye,
}

/// A place in the stream of one node's messages to one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::hub) struct Place {
    /// Of two streams of a node, the later one has the greater number.
    pub(super) stream: u64,
    /// Counts from 1.
    pub(super) sequence: u64,
    /// Since the stream began, in microseconds.
    pub(super) age: u64,
}

/// What a node that has subscribed to a topic wants to know of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) members: bool,
    pub(super) newest: bool,
}

impl Wanted {
    pub(super) fn members() -> Self {
        Self {
            members: true,
            newest: false,
        }
    }

    pub(super) fn newest() -> Self {
        Self {
            members: false,
            newest: true,
        }
    }
}

/// Which publication a message is that is not in its place in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Publication {
    /// The node that published it.
    pub(super) node: NodeId,
    pub(super) stream: u64,
    /// Counts from 1.
    pub(super) sequence: u64,
    /// Since it passed the node that tells of it, in microseconds.
    pub(super) age: u64,
}

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Address {
    All,
    AllBut(Remote),
    One(Remote),
}

/// A member, as the other nodes name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Remote {
    pub(super) node: NodeId,
    pub(super) seat: SeatId,
}

/// A member, as its own node finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::hub) struct SeatId {
    pub(in crate::hub) number: u64,
    pub(in crate::hub) segment: u32,
    pub(in crate::hub) slot: u16,
}

impl From<MemberId> for SeatId {
    fn from(id: MemberId) -> Self {
        Self {
            number: id.number(),
            segment: id.segment,
            slot: id.slot,
        }
    }
}

impl SeatId {
    /// The id on a node that has this number for the member's node; 0 on its own.
    pub(in crate::hub) fn member(self, node: u16) -> MemberId {
        MemberId::of_node(self.number, self.segment, self.slot, node)
    }
}

/// A member with what it says of itself.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::hub) struct Entry {
    pub(in crate::hub) seat: SeatId,
    pub(in crate::hub) metadata: Option<Arc<Utf8Bytes>>,
}

#[derive(Clone, Debug, PartialEq)]
pub(in crate::hub) enum Change {
    Joined(Entry),
    Left(SeatId),
}

/// Why a payload is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Foreign,
    Version(u8),
    Broken,
}

/// A part of the members of a topic, in bytes.
pub(super) const PART: usize = 64 << 10;

#[cfg(test)]
mod tests;
