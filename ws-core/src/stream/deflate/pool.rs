//! The pool: compressors and decompressors that no message uses at the moment.
//!
//! A compressor is worth keeping, because making one costs more than compressing a short message,
//! and is too big to keep one for each connection. So there is a bounded number of them for many
//! connections: *spare* ones, which wait here for any message, and *kept* ones, which stay with a
//! busy connection between its messages, together with their context.
//!
//! Nothing is taken away from a connection: who finds no spare state makes one, and when it comes
//! back to a full shelf it is freed. What lies here is reset before the next one uses it.

use std::{
    fmt, mem,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
};

use super::{compressor::Compressor, decompressor::Decompressor};

/// The pool of all connections that name no other.
static GLOBAL: LazyLock<Pool> = LazyLock::new(Pool::default);

/// How many states a [`Pool`] holds at most.
///
/// | option | default | heap for each |
/// |---|---|---|
/// | [`kept_compressors`](Self::kept_compressors) | 64 | 379 KiB (window of 15 bits), 267 (12), 253 (9) |
/// | [`spare_compressors`](Self::spare_compressors) | 4 | the same |
/// | [`spare_decompressors`](Self::spare_decompressors) | 8 | 63 KiB |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolConfig {
    /// How many connections at a time may keep their compressor between messages. Another
    /// connection compresses each message on its own, at the price of a reset and of the ratio
    /// that the context would have brought.
    pub kept_compressors: usize,
    /// How many compressors wait for a message. Messages that are compressed at the same moment,
    /// at most one for each thread, take one each.
    pub spare_compressors: usize,
    /// How many decompressors wait for a message. Messages under way take one each: those whose
    /// frames come in several reads, and one for each thread.
    pub spare_decompressors: usize,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            kept_compressors: 64,
            spare_compressors: 4,
            spare_decompressors: 8,
        }
    }
}

impl PoolConfig {
    /// The default numbers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many connections at a time may keep their compressor between messages. Default:
    /// 64.
    #[must_use]
    pub fn kept_compressors(mut self, count: usize) -> Self {
        self.kept_compressors = count;
        self
    }

    /// Sets how many compressors wait for a message. Default: 4.
    #[must_use]
    pub fn spare_compressors(mut self, count: usize) -> Self {
        self.spare_compressors = count;
        self
    }

    /// Sets how many decompressors wait for a message. Default: 8.
    #[must_use]
    pub fn spare_decompressors(mut self, count: usize) -> Self {
        self.spare_decompressors = count;
        self
    }
}

/// What a [`Pool`] holds, and what it has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStatistics {
    /// Compressors that connections keep now.
    pub kept_compressors: usize,
    /// The spare compressors.
    pub compressors: ShelfStatistics,
    /// The spare decompressors.
    pub decompressors: ShelfStatistics,
}

/// One half of [`PoolStatistics`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShelfStatistics {
    /// States that lie here now.
    pub spare: usize,
    /// How often a spare state was found.
    pub hits: u64,
    /// How often one had to be made.
    pub misses: u64,
    /// How often one was freed, because the shelf was full or it had failed.
    pub dropped: u64,
}

/// The compressors and decompressors that many connections share.
///
/// A compressor has hundreds of KiB, so connections hold one only while they are busy. A clone is
/// the same pool. Connections use the one in their
/// [`Deflate::pool`](crate::deflate::Deflate::pool), or the [global](Self::global) one.
///
/// ```
/// use ws_core::deflate::{Deflate, Pool, PoolConfig};
///
/// // More context for a server with many busy connections: up to 38 MB.
/// let pool = Pool::new(PoolConfig::new().kept_compressors(100));
/// let settings = Deflate::new().pool(pool.clone());
/// assert_eq!(pool.statistics().kept_compressors, 0);
/// # let _ = settings;
/// ```
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
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
    /// An empty pool. It fills as messages come.
    pub fn new(config: PoolConfig) -> Self {
        Self(Arc::new(Inner {
            config,
            shelves: Mutex::default(),
        }))
    }

    /// The pool of the process, with the default numbers: for all connections whose settings name
    /// no other.
    pub fn global() -> &'static Self {
        &GLOBAL
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
        if shelves.kept_compressors < self.0.config.kept_compressors {
            shelves.kept_compressors += 1;
            return Some(compressor);
        }
        let surplus = shelves.put(compressor, &self.0.config);
        drop((shelves, surplus));
        None
    }

    /// Takes a compressor back that a connection has [kept](Self::keep).
    pub(crate) fn take_kept(&self, compressor: Box<Compressor>) {
        let mut shelves = self.shelves();
        shelves.kept_compressors = shelves.kept_compressors.saturating_sub(1);
        let surplus = shelves.put(compressor, &self.0.config);
        drop((shelves, surplus));
    }

    /// Takes a compressor back whose connection has become idle.
    ///
    /// One such spare is enough for those that will want it: traffic goes down, and what lies here
    /// is there for messages that are compressed at the same moment.
    pub(crate) fn take_idle(&self, mut compressor: Box<Compressor>) {
        let mut shelves = self.shelves();
        shelves.kept_compressors = shelves.kept_compressors.saturating_sub(1);
        let spare = &mut shelves.compressors.spare;
        let surplus = match spare.iter_mut().find(|spare| spare.is_like(&compressor)) {
            Some(spare) => {
                // A heap shrinks from its end: what stays should lie at its beginning.
                if compressor.place() < spare.place() {
                    mem::swap(spare, &mut compressor);
                }
                shelves.compressors.dropped += 1;
                Some(compressor)
            }
            None => shelves.put(compressor, &self.0.config),
        };
        drop((shelves, surplus));
    }

    /// Takes a compressor back after one message.
    pub(crate) fn take_compressor(&self, compressor: Box<Compressor>) {
        let surplus = self.shelves().put(compressor, &self.0.config);
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
            .put(decompressor, self.0.config.spare_decompressors);
        drop(surplus);
    }

    /// What the pool holds, and what it has done so far.
    pub fn statistics(&self) -> PoolStatistics {
        let shelves = self.shelves();
        PoolStatistics {
            kept_compressors: shelves.kept_compressors,
            compressors: shelves.compressors.statistics(),
            decompressors: shelves.decompressors.statistics(),
        }
    }

    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        // Nothing under the lock leaves it half done.
        self.0
            .shelves
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self::new(PoolConfig::default())
    }
}

/// The same pool, or not.
impl PartialEq for Pool {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Pool {}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("config", &self.0.config)
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
