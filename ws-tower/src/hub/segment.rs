//! The members of a topic, in segments of a few hundred.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use slab::Slab;
use ws_core::{PreparedMessage, Utf8Bytes};

use super::backplane::Stamp;
use crate::session::{feeds::MemberId, state::Shared};

/// Members of a segment. As long as a publisher holds one segment nobody joins or leaves it: it is
/// about 20 µs.
pub(super) const CAPACITY: usize = 256;

/// Some members of a topic, and in the first segment the way to all others.
///
/// Publishers go from segment to segment and hold one until they have the next, so none overtakes
/// another, and all members get the messages of a topic in the same order. If the topic retains its
/// newest message, each segment has the one that has passed last: whoever joins there has all that
/// follow.
#[derive(Default)]
pub(super) struct Segment {
    members: Slab<Entry>,
    /// This segment's place in the topic.
    index: u32,
    /// In the first one: the segments behind it. Copied only if one is added while a publisher
    /// has it in use.
    rest: Rest,
    /// The message that has passed last, if the topic retains it.
    retained: Option<Box<Retained>>,
}

/// A message that a topic keeps.
#[derive(Clone)]
pub(super) struct Retained {
    pub(super) message: PreparedMessage,
    /// Which publication it is; `None` if the topic is not shared with other nodes.
    pub(super) stamp: Option<Stamp>,
}

/// The segments behind the first; `None` for none.
pub(super) type Rest = Option<Arc<Vec<Guarded>>>;

/// One member of a topic.
pub(super) struct Entry {
    pub(super) session: Arc<Shared>,
    /// Where the session has this seat.
    pub(super) key: usize,
    number: u64,
    pub(super) metadata: Option<Arc<Utf8Bytes>>,
    /// Whether its socket has agreed on compression.
    pub(super) compresses: bool,
}

/// A segment behind its lock.
#[derive(Clone, Default)]
pub(super) struct Guarded(Arc<Mutex<Segment>>);

impl Guarded {
    pub(super) fn lock(&self) -> MutexGuard<'_, Segment> {
        // Nothing that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    pub(super) fn new(session: Arc<Shared>, metadata: Option<Arc<Utf8Bytes>>) -> Self {
        Self {
            session,
            key: 0,
            number: 0,
            metadata,
            compresses: false,
        }
    }
}

impl Segment {
    pub(super) fn members(&self) -> impl Iterator<Item = (MemberId, &Entry)> {
        self.members
            .iter()
            .map(|(slot, member)| (self.id(member.number, slot), member))
    }

    /// The id that the next member gets.
    pub(super) fn next_id(&self, number: u64) -> MemberId {
        self.id(number, self.members.vacant_key())
    }

    pub(super) fn insert(&mut self, id: MemberId, member: Entry) {
        let number = id.number();
        self.members.insert(Entry { number, ..member });
    }

    pub(super) fn get(&self, id: MemberId) -> Option<&Entry> {
        let member = self.members.get(usize::from(id.slot))?;
        (member.number == id.number()).then_some(member)
    }

    pub(super) fn remove(&mut self, id: MemberId) -> Option<Entry> {
        self.get(id)?;
        let member = self.members.try_remove(usize::from(id.slot));
        if self.members.is_empty() {
            // A peak of members leaves little behind.
            self.members = Slab::new();
        }
        member
    }

    pub(super) fn is_full(&self) -> bool {
        self.members.len() >= CAPACITY
    }

    pub(super) fn rest(&self) -> Rest {
        self.rest.clone()
    }

    /// To the first one: adds a segment behind all others.
    pub(super) fn push(&mut self, index: u32) {
        let segment = Segment {
            index,
            // The publishers who are on their way do not come there, and all of them have
            // been here.
            retained: self.retained.clone(),
            ..Segment::default()
        };
        let rest = self.rest.get_or_insert_default();
        Arc::make_mut(rest).push(Guarded(Arc::new(Mutex::new(segment))));
    }

    pub(super) fn retained(&self) -> Option<&Retained> {
        self.retained.as_deref()
    }

    /// A message passes. Returns the one before.
    #[must_use = "it is to be dropped outside the lock"]
    pub(super) fn retain(&mut self, retained: Retained) -> Option<PreparedMessage> {
        if let Some(place) = &mut self.retained {
            return Some(mem::replace(&mut **place, retained).message);
        }
        self.retained = Some(Box::new(retained));
        None
    }

    fn id(&self, number: u64, slot: usize) -> MemberId {
        // A segment has fewer slots than that.
        let slot = u16::try_from(slot).unwrap_or(u16::MAX);
        MemberId::new(number, self.index, slot)
    }
}
