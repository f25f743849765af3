//! The pool: compressors and decompressors that no message uses at the moment.
//!
//! A compressor is worth keeping, because making one costs more than compressing a short message,
//! and is too big to keep one for each connection. So there is a bounded number of them for all
//! connections of a layer: *spare* ones, which wait here for any message, and *kept* ones, which
//! stay with a busy connection between its messages, together with their context.
//!
//! Nothing is taken away from a connection: who finds no spare state makes one, and when it comes
//! back to a full shelf it is freed. What lies here is reset before the next one uses it.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{compressor::Compressor, decompressor::Decompressor};

/// How many states a [`Pool`] holds at most.
///
/// | option | default | heap for each |
/// |---|---|---|
/// | [`kept_compressors`](Self::kept_compressors) | 16 | 379 KiB (window of 15 bits), 267 (12), 253 (9) |
/// | [`spare_compressors`](Self::spare_compressors) | 4 | the same |
/// | [`spare_decompressors`](Self::spare_decompressors) | 8 | 63 KiB |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PoolConfig {
    /// How many connections at a time may keep their compressor between messages. Another
    /// connection compresses each message on its own, at the price of a reset and of the ratio
    /// that the context would have brought.
    pub(crate) kept_compressors: usize,
    /// How many compressors wait for a message. Messages that are compressed at the same moment,
    /// at most one for each thread, take one each.
    pub(crate) spare_compressors: usize,
    /// How many decompressors wait for a message. Messages under way take one each: those whose
    /// frames come in several reads, and one for each thread.
    pub(crate) spare_decompressors: usize,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            kept_compressors: 16,
            spare_compressors: 4,
            spare_decompressors: 8,
        }
    }
}

/// What a [`Pool`] holds, and what it has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Statistics {
    /// Compressors that connections keep now.
    pub(crate) kept_compressors: usize,
    /// The spare compressors.
    pub(crate) compressors: ShelfStatistics,
    /// The spare decompressors.
    pub(crate) decompressors: ShelfStatistics,
}

/// One half of [`Statistics`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShelfStatistics {
    /// States that lie here now.
    pub(crate) spare: usize,
    /// How often a spare state was found.
    pub(crate) hits: u64,
    /// How often one had to be made.
    pub(crate) misses: u64,
    /// How often one was freed, because the shelf was full or it had failed.
    pub(crate) dropped: u64,
}

/// The spare states of the connections of a layer, which share it in an `Arc`.
pub(crate) struct Pool {
    config: PoolConfig,
    /// Held for a few instructions: nothing is made, reset or freed under it.
    shelves: Mutex<Shelves>,
}

#[derive(Default)]
struct Shelves {
    kept_compressors: usize,
    compressors: Shelf<Compressor>,
    decompressors: Shelf<Decompressor>,
}

impl Shelves {
    /// Returns what is to be freed.
    fn put(&mut self, compressor: Box<Compressor>, config: &PoolConfig) -> Option<Box<Compressor>> {
        if !compressor.is_reusable() {
            self.compressors.dropped += 1;
            return Some(compressor);
        }
        self.compressors.put(compressor, config.spare_compressors)
    }
}

impl Pool {
    /// An empty pool.
    pub(crate) fn new(config: PoolConfig) -> Self {
        Self {
            config,
            shelves: Mutex::default(),
        }
    }

    /// A compressor that refers to nothing.
    pub(crate) fn compressor(&self, window_bits: u8, level: u8) -> Box<Compressor> {
        let spare = self
            .shelves()
            .compressors
            .take(|spare| spare.fits(window_bits, level));
        if let Some(mut compressor) = spare {
            compressor.reset();
            return compressor;
        }
        Box::new(Compressor::new(window_bits, level))
    }

    /// Lets the connection keep `compressor`, or takes it when enough of them are kept.
    pub(crate) fn keep(&self, compressor: Box<Compressor>) -> Option<Box<Compressor>> {
        let mut shelves = self.shelves();
        if shelves.kept_compressors < self.config.kept_compressors {
            shelves.kept_compressors += 1;
            return Some(compressor);
        }
        let surplus = shelves.put(compressor, &self.config);
        drop((shelves, surplus));
        None
    }

    /// Takes a compressor back that a connection has [kept](Self::keep).
    pub(crate) fn take_kept(&self, compressor: Box<Compressor>) {
        let mut shelves = self.shelves();
        shelves.kept_compressors = shelves.kept_compressors.saturating_sub(1);
        let surplus = shelves.put(compressor, &self.config);
        drop((shelves, surplus));
    }

    /// Takes a compressor back after one message.
    pub(crate) fn take_compressor(&self, compressor: Box<Compressor>) {
        let surplus = self.shelves().put(compressor, &self.config);
        drop(surplus);
    }

    /// A decompressor without a window.
    pub(crate) fn decompressor(&self) -> Box<Decompressor> {
        let spare = self.shelves().decompressors.take(|_| true);
        if let Some(mut decompressor) = spare {
            decompressor.reset();
            return decompressor;
        }
        Box::new(Decompressor::new())
    }

    /// Takes a decompressor back.
    pub(crate) fn take_decompressor(&self, decompressor: Box<Decompressor>) {
        let surplus = self
            .shelves()
            .decompressors
            .put(decompressor, self.config.spare_decompressors);
        drop(surplus);
    }

    /// What the pool holds, and what it has done so far.
    pub(crate) fn statistics(&self) -> Statistics {
        let shelves = self.shelves();
        Statistics {
            kept_compressors: shelves.kept_compressors,
            compressors: shelves.compressors.statistics(),
            decompressors: shelves.decompressors.statistics(),
        }
    }

    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        // Nothing under the lock leaves it half done.
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self::new(PoolConfig::default())
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("config", &self.config)
            .field("statistics", &self.statistics())
            .finish_non_exhaustive()
    }
}

/// Spare states of one kind, the one that was used last at the end. They are in boxes because a
/// connection that has none should cost a pointer.
struct Shelf<State> {
    spare: Vec<Box<State>>,
    hits: u64,
    misses: u64,
    dropped: u64,
}

impl<State> Shelf<State> {
    /// The one that was used last: its memory is the warmest.
    fn take(&mut self, fits: impl Fn(&State) -> bool) -> Option<Box<State>> {
        let place = self.spare.iter().rposition(|spare| fits(spare));
        if place.is_some() {
            self.hits += 1;
        } else {
            self.misses += 1;
        }
        place.map(|place| self.spare.remove(place))
    }

    /// Returns what has no place any more, to be freed without the lock: the one that has waited
    /// longest, so that a window size or a level that is no longer asked for does not stay.
    fn put(&mut self, state: Box<State>, max: usize) -> Option<Box<State>> {
        self.spare.push(state);
        if self.spare.len() <= max {
            return None;
        }
        self.dropped += 1;
        Some(self.spare.remove(0))
    }

    fn statistics(&self) -> ShelfStatistics {
        ShelfStatistics {
            spare: self.spare.len(),
            hits: self.hits,
            misses: self.misses,
            dropped: self.dropped,
        }
    }
}

impl<State> Default for Shelf<State> {
    fn default() -> Self {
        Self {
            spare: Vec::new(),
            hits: 0,
            misses: 0,
            dropped: 0,
        }
    }
}
