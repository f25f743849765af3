//! A topic: its members, and the order in which they join, leave and get its messages.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::Waker,
};

use ws_core::{CloseFrame, PreparedMessage, Utf8Bytes};

use super::{
    compression::Compression,
    delivery::Delivery,
    policy::{Lag, Policy},
    presence::{Member, Presence, Watcher},
    segment::{Entry, Guarded},
    stats::Counters,
};
use crate::session::{
    feeds::{Draw, MemberId, Source, refill},
    state::{Shared, panic_text},
};

/// A topic of a hub. Locks are taken in this order: roster, segment, session; a watcher's after
/// the roster. Whatever may run code of the application waits until none is held.
pub(super) struct Topic {
    name: Arc<str>,
    policy: Arc<Policy>,
    home: Weak<dyn Home>,
    counters: Arc<Counters>,
    compression: Compression,
    first: Guarded,
    roster: Mutex<Roster>,
}

/// Where the topic can be found.
pub(super) trait Home: Send + Sync {
    /// The topic has neither members nor watchers left, and takes none any more.
    fn forget(&self, topic: &Topic);
}

/// What joins and leaves go by, and publishers do not look at.
struct Roster {
    len: usize,
    /// Segments so far.
    segments: u32,
    /// The segments with room.
    open: Vec<u32>,
    watchers: Vec<Arc<Watcher>>,
    is_closed: bool,
}

/// What came of a join.
pub(super) enum Joined {
    Seated {
        id: MemberId,
        key: usize,
    },
    /// The socket is closed: there is nobody to take a seat.
    SocketIsClosed,
    /// The last member has left meanwhile: look for the topic again.
    TopicIsGone,
}

impl Topic {
    pub(super) fn new(
        name: Arc<str>,
        policy: Arc<Policy>,
        home: Weak<dyn Home>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            name,
            policy,
            home,
            counters,
            compression: Compression::default(),
            first: Guarded::default(),
            roster: Mutex::new(Roster {
                len: 0,
                segments: 1,
                open: vec![0],
                watchers: Vec::new(),
                is_closed: false,
            }),
        }
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn len(&self) -> usize {
        self.roster().len
    }

    /// Takes a member in.
    pub(super) fn join(
        self: &Arc<Self>,
        session: &Arc<Shared>,
        metadata: Option<&Arc<Utf8Bytes>>,
    ) -> Joined {
        let (seat, wakers, is_closed) = {
            let mut roster = self.roster();
            if roster.is_closed {
                return Joined::TopicIsGone;
            }
            let index = self.open_segment(&mut roster);
            match self.seat(index, session, metadata) {
                Some((id, key, is_full)) => {
                    if is_full {
                        // It was the last on the list.
                        roster.open.pop();
                    }
                    roster.len += 1;
                    let member = Member::new(id, metadata.cloned());
                    let wakers = roster.tell(&Presence::Joined(member));
                    (Some((id, key)), wakers, false)
                }
                None => (None, Vec::new(), roster.close_if_unused()),
            }
        };
        wake(wakers);
        if is_closed {
            self.forget();
        }
        match seat {
            Some((id, key)) => Joined::Seated { id, key },
            None => Joined::SocketIsClosed,
        }
    }

    /// Whether a member is here.
    pub(super) fn contains(&self, id: MemberId) -> bool {
        self.segment(id.segment)
            .is_some_and(|segment| segment.lock().get(id).is_some())
    }

    /// Queues a message for all members but one. Returns how many were reached.
    pub(super) fn publish(&self, message: &PreparedMessage, except: Option<MemberId>) -> usize {
        self.compression.prepare(message);
        let mut delivery = Delivery::new(message, &self.policy);
        {
            let rest;
            let mut segment = self.first.lock();
            // Taken under the first lock: whoever comes later knows no fewer segments.
            rest = segment.rest();
            delivery.reach_all(&segment, except);
            for next in rest.iter().flat_map(|rest| rest.iter()) {
                // The lock of this one goes when the next is held: nobody overtakes.
                segment = next.lock();
                delivery.reach_all(&segment, except);
            }
        }
        delivery.finish(&self.counters)
    }

    /// Queues a message for one member. Returns how many were reached.
    pub(super) fn publish_to(&self, id: MemberId, message: &PreparedMessage) -> usize {
        self.compression.prepare(message);
        let mut delivery = Delivery::new(message, &self.policy);
        if let Some(guarded) = self.segment(id.segment) {
            let segment = guarded.lock();
            if let Some(member) = segment.get(id) {
                delivery.reach(id, member);
            }
        }
        delivery.finish(&self.counters)
    }

    /// Closes the sockets of all members. Returns how many there were.
    pub(super) fn close(&self, close: &CloseFrame) -> usize {
        let sessions = self.collect(|_, member| Arc::clone(&member.session));
        for session in &sessions {
            // What waits was published before.
            drop(refill(session, session.lock(), Draw::All));
            session.go_away(close);
        }
        sessions.len()
    }

    pub(super) fn members(&self) -> Vec<Member> {
        // Members neither come nor go meanwhile.
        let _roster = self.roster();
        self.members_of_roster()
    }

    // Presence.

    /// `None`: the topic is gone.
    pub(super) fn watch(&self) -> Option<Arc<Watcher>> {
        let watcher = Arc::new(Watcher::default());
        let mut roster = self.roster();
        if roster.is_closed {
            return None;
        }
        roster.watchers.push(Arc::clone(&watcher));
        Some(watcher)
    }

    pub(super) fn unwatch(&self, watcher: &Arc<Watcher>) {
        let is_closed = {
            let mut roster = self.roster();
            roster.watchers.retain(|it| !Arc::ptr_eq(it, watcher));
            roster.close_if_unused()
        };
        if is_closed {
            self.forget();
        }
    }

    /// Brings a watcher up to date that has missed something, or knows nothing yet.
    pub(super) fn catch_up(&self, watcher: &Watcher) -> (Vec<Member>, impl Sized + use<>) {
        let _roster = self.roster();
        let missed = watcher.catch_up();
        (self.members_of_roster(), missed)
    }

    /// Nobody can join any more.
    pub(super) fn end_watches(&self) {
        let wakers: Vec<_> = {
            let roster = self.roster();
            roster.watchers.iter().filter_map(|it| it.end()).collect()
        };
        wake(wakers);
    }

    // Helpers.

    fn roster(&self) -> MutexGuard<'_, Roster> {
        // Nothing that can panic runs under the lock.
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A segment with room.
    fn open_segment(&self, roster: &mut Roster) -> u32 {
        if let Some(index) = roster.open.last() {
            return *index;
        }
        let index = roster.segments;
        roster.segments += 1;
        roster.open.push(index);
        self.first.lock().push(Guarded::new(index));
        index
    }

    fn segment(&self, index: u32) -> Option<Guarded> {
        let Some(behind) = index.checked_sub(1) else {
            return Some(self.first.clone());
        };
        let rest = self.first.lock().rest()?;
        rest.get(behind as usize).cloned()
    }

    /// Takes a seat for a session, if it is open. Says whether the segment is full by now.
    fn seat(
        self: &Arc<Self>,
        index: u32,
        session: &Arc<Shared>,
        metadata: Option<&Arc<Utf8Bytes>>,
    ) -> Option<(MemberId, usize, bool)> {
        let guarded = self.segment(index)?;
        let mut segment = guarded.lock();
        let id = segment.next_id(self.counters.number());
        let mut member = Entry::new(Arc::clone(session), metadata.cloned());
        {
            let mut state = session.lock();
            if !state.connection.is_open() {
                return None;
            }
            let source: Arc<dyn Source> = Arc::clone(self) as _;
            member.key = state.feeds.get_or_insert_default().insert(source, id);
            member.compresses = self.compression.join(&state.connection);
        }
        let key = member.key;
        segment.insert(id, member);
        Some((id, key, segment.is_full()))
    }

    fn members_of_roster(&self) -> Vec<Member> {
        self.collect(|id, member| Member::new(id, member.metadata.clone()))
    }

    fn collect<T>(&self, mut each: impl FnMut(MemberId, &Entry) -> T) -> Vec<T> {
        let rest = self.first.lock().rest();
        let mut all = Vec::new();
        let behind = rest.iter().flat_map(|rest| rest.iter());
        for segment in [&self.first].into_iter().chain(behind) {
            let segment = segment.lock();
            all.extend(segment.members().map(|(id, member)| each(id, member)));
        }
        all
    }

    fn forget(&self) {
        if let Some(home) = self.home.upgrade() {
            home.forget(self);
        }
    }
}

impl Source for Topic {
    fn leave(&self, id: MemberId) {
        let (left, wakers, is_closed) = {
            let mut roster = self.roster();
            let left = self.segment(id.segment).and_then(|guarded| {
                let mut segment = guarded.lock();
                let was_full = segment.is_full();
                segment.remove(id).map(|member| (member, was_full))
            });
            let mut wakers = Vec::new();
            if let Some((member, was_full)) = &left {
                if *was_full {
                    roster.open.push(id.segment);
                }
                if member.compresses {
                    self.compression.leave();
                }
                roster.len -= 1;
                let member = Member::new(id, member.metadata.clone());
                wakers = roster.tell(&Presence::Left(member));
            }
            (left, wakers, roster.close_if_unused())
        };
        wake(wakers);
        if is_closed {
            self.forget();
        }
        drop(left);
    }

    fn notice(&self, missed: u64) -> Option<PreparedMessage> {
        let notice = self.policy.notice.as_ref()?;
        let topic = &*self.name;
        let lag = Lag { topic, missed };
        match catch_unwind(AssertUnwindSafe(|| notice(&lag))) {
            Ok(message) => Some(PreparedMessage::new(message)),
            Err(panic) => {
                let panic = panic_text(&*panic);
                tracing::error!(topic, panic, "the hub's notice of a lag panicked");
                None
            }
        }
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topic")
            .field("name", &self.name)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl Roster {
    /// Tells all watchers. Their wakers are to be woken outside the lock.
    fn tell(&self, event: &Presence) -> Vec<Waker> {
        let watchers = self.watchers.iter();
        watchers.filter_map(|it| it.tell(event)).collect()
    }

    /// Takes nobody in any more, if nobody is left. Says whether that is new.
    fn close_if_unused(&mut self) -> bool {
        if self.len > 0 || !self.watchers.is_empty() || self.is_closed {
            return false;
        }
        self.is_closed = true;
        true
    }
}

fn wake(wakers: Vec<Waker>) {
    for waker in wakers {
        waker.wake();
    }
}
