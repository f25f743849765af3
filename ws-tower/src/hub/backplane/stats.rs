//! What the backplane of a hub has done so far.

use crate::hub::stats::Counter;

/// What the [backplane](super) of a hub has done so far. Every number but the last three counts from
/// the hub's beginning and wraps.
///
/// A message that this node gave up is counted here as expired, overflowed or too large, and at
/// each node with members of the topic as missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackplaneStats {
    /// Messages of this node that the broker has taken.
    pub sent: u64,
    /// Messages of this node that had waited for the broker until their deadline.
    pub expired: u64,
    /// Messages of this node for which the queue had no room.
    pub overflowed: u64,
    /// Messages of this node that the broker does not take, or whose topic has a name that is
    /// too long.
    pub too_large: u64,
    /// Messages of other nodes to topics with members here.
    pub received: u64,
    /// Messages of other nodes that members here have missed, and were told of if the policy of
    /// the topic has a notice.
    pub missed: u64,
    /// Messages of other nodes that came again, or too late, and were not delivered.
    pub repeated: u64,
    /// Payloads that were foreign, of another version, or broken.
    pub refused: u64,
    /// How often a connection to the broker was lost. The log says why.
    pub disconnects: u64,
    /// How often a connection to the broker could not be made: it was away, or refused the user or
    /// the certificate. The log says why.
    pub failed_connects: u64,
    /// Streams of messages to topics without anybody on this node that were forgotten too early,
    /// because they were more than 65,536. A node that was cut off at that time may not be told
    /// what it has missed in them: see [what is kept](super#what-is-kept).
    pub forgotten: u64,
    /// Other nodes that are alive, now.
    pub nodes: u64,
    /// Whether there is a connection to the broker, now: 1 or 0.
    pub connected: u64,
    /// Streams of messages of this node to a topic whose place it remembers, now: see
    /// [what is kept](super#what-is-kept).
    pub streams: u64,
}

#[derive(Default)]
pub(in crate::hub) struct Counters {
    pub(super) sent: Counter,
    pub(super) expired: Counter,
    pub(super) overflowed: Counter,
    pub(super) too_large: Counter,
    pub(super) received: Counter,
    pub(super) missed: Counter,
    pub(super) repeated: Counter,
    pub(super) refused: Counter,
    pub(super) disconnects: Counter,
    pub(super) failed_connects: Counter,
    pub(super) forgotten: Counter,
    pub(super) nodes: Counter,
    pub(super) connected: Counter,
}

impl Counters {
    /// All of them; [`streams`](BackplaneStats::streams) is not counted here.
    pub(super) fn get(&self) -> BackplaneStats {
        BackplaneStats {
            sent: self.sent.get(),
            expired: self.expired.get(),
            overflowed: self.overflowed.get(),
            too_large: self.too_large.get(),
            received: self.received.get(),
            missed: self.missed.get(),
            repeated: self.repeated.get(),
            refused: self.refused.get(),
            disconnects: self.disconnects.get(),
            failed_connects: self.failed_connects.get(),
            forgotten: self.forgotten.get(),
            nodes: self.nodes.get(),
            connected: self.connected.get(),
            streams: 0,
        }
    }
}
