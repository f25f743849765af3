//! What a hub has done so far.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a hub has done so far. Every number counts from the hub's beginning and wraps.
///
/// A message counts as delivered when it is queued for a subscriber. What a slow one loses after
/// that counts as dropped or replaced too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Messages that were published to a topic with members.
    pub published: u64,
    /// Messages that were queued, for each member that they reached.
    pub delivered: u64,
    /// Messages that were not queued, by [`SkipNewest`](super::SlowConsumer::SkipNewest).
    pub skipped: u64,
    /// Messages that were taken from a backlog, by [`DropOldest`](super::SlowConsumer::DropOldest).
    pub dropped: u64,
    /// Messages that a newer one replaced, by [`Latest`](super::SlowConsumer::Latest).
    pub replaced: u64,
    /// Sockets that were closed, by [`Disconnect`](super::SlowConsumer::Disconnect).
    pub disconnected: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    published: AtomicU64,
    delivered: AtomicU64,
    skipped: AtomicU64,
    dropped: AtomicU64,
    replaced: AtomicU64,
    disconnected: AtomicU64,
    /// Numbers of members.
    last_number: AtomicU64,
}

impl Counters {
    /// The number of the next member.
    pub(super) fn number(&self) -> u64 {
        self.last_number.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn add(&self, stats: &Stats) {
        for (counter, count) in [
            (&self.published, stats.published),
            (&self.delivered, stats.delivered),
            (&self.skipped, stats.skipped),
            (&self.dropped, stats.dropped),
            (&self.replaced, stats.replaced),
            (&self.disconnected, stats.disconnected),
        ] {
            if count > 0 {
                counter.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn get(&self) -> Stats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            published: load(&self.published),
            delivered: load(&self.delivered),
            skipped: load(&self.skipped),
            dropped: load(&self.dropped),
            replaced: load(&self.replaced),
            disconnected: load(&self.disconnected),
        }
    }
}
