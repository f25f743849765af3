//! The topics of a hub, by name.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::topic::Topic;

/// Topics by name, in parts with a lock each, which is held to find one and no longer. No topic is
/// dropped under it: it may have a policy, and that a function, of the application's.
pub(super) struct Table {
    parts: Box<[Mutex<Part>]>,
    hasher: RandomState,
}

type Part = HashMap<Arc<str>, Arc<Topic>>;

impl Table {
    pub(super) fn new() -> Self {
        Self {
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    /// Takes a topic in, if there is none of its name yet. Returns the one that is there.
    pub(super) fn insert(&self, topic: &Arc<Topic>) -> Arc<Topic> {
        let mut part = self.part(topic.name());
        let place = part.entry(Arc::clone(topic.name()));
        Arc::clone(place.or_insert_with(|| Arc::clone(topic)))
    }

    /// Takes this topic out, unless there is another one of its name, or none.
    pub(super) fn remove(&self, topic: &Topic) -> Option<Arc<Topic>> {
        let (topic, _part) = {
            let mut part = self.part(topic.name());
            let is_same = |it: &Arc<Topic>| std::ptr::eq(Arc::as_ptr(it), topic);
            if !part.get(topic.name()).is_some_and(is_same) {
                return None;
            }
            let topic = part.remove(topic.name());
            // A peak of topics leaves nothing behind.
            let is_last = part.is_empty();
            (topic, is_last.then(|| mem::take(&mut *part)))
        };
        topic
    }

    /// Takes all topics out, one part after the other.
    pub(super) fn drain(&self) -> impl Iterator<Item = Arc<Topic>> {
        self.parts
            .iter()
            .flat_map(|part| mem::take(&mut *lock(part)).into_values())
    }

    pub(super) fn find(&self, name: &str) -> Option<Arc<Topic>> {
        self.part(name).get(name).cloned()
    }

    pub(super) fn names(&self) -> Vec<Arc<str>> {
        let parts = self.parts.iter();
        parts
            .flat_map(|part| lock(part).keys().cloned().collect::<Vec<_>>())
            .collect()
    }

    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|part| lock(part).len()).sum()
    }

    fn part(&self, name: &str) -> MutexGuard<'_, Part> {
        let hash = self.hasher.hash_one(name);
        // The topmost bits are as good as any; there are 64 parts.
        let place = usize::try_from(hash >> (u64::BITS - PARTS.ilog2())).unwrap_or(0);
        lock(&self.parts[place])
    }
}

fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    // Nothing that can panic runs under the lock.
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Parts of the table: enough that threads hardly meet in one.
const PARTS: usize = 64;
