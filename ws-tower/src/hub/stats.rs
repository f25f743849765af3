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
    published: Counter,
    delivered: Counter,
    skipped: Counter,
    dropped: Counter,
    replaced: Counter,
    disconnected: Counter,
    /// Numbers of members.
    last_number: AtomicU64,
}

impl Counters {
    /// The number of the next member.
    pub(super) fn number(&self) -> u64 {
        self.last_number.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn add(&self, stats: &Stats) {
        self.published.add(stats.published);
        self.delivered.add(stats.delivered);
        self.skipped.add(stats.skipped);
        self.dropped.add(stats.dropped);
        self.replaced.add(stats.replaced);
        self.disconnected.add(stats.disconnected);
    }

    pub(super) fn get(&self) -> Stats {
        Stats {
            published: self.published.get(),
            delivered: self.delivered.get(),
            skipped: self.skipped.get(),
            dropped: self.dropped.get(),
            replaced: self.replaced.get(),
            disconnected: self.disconnected.get(),
        }
    }
}

/// A number that counts.
#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        // Most of what is counted has not happened.
        if count > 0 {
            self.0.fetch_add(count, Ordering::Relaxed);
        }
    }

    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
