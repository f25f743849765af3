//! A topic: its members, and the order in which they join, leave and get its messages.

mod guests;
mod remote;

use std::{
    cell::OnceCell,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::Waker,
};

use ws_core::{CloseFrame, PreparedMessage, Utf8Bytes};

use self::guests::Guests;
use super::{
    backplane::{self, Change, Relay},
    compression::Compression,
    delivery::Delivery,
    policy::{Lag, Policy},
    presence::{Member, Presence, Watcher},
    segment::{Entry, Guarded, Retained},
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
    relay: Option<Arc<Relay>>,
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
    guests: Guests,
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
        relay: Option<Arc<Relay>>,
    ) -> Self {
        Self {
            name,
            policy,
            home,
            counters,
            relay,
            compression: Compression::default(),
            first: Guarded::default(),
            roster: Mutex::new(Roster {
                len: 0,
                segments: 1,
                open: vec![0],
                watchers: Vec::new(),
                guests: Guests::default(),
                is_closed: false,
            }),
        }
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn len(&self) -> usize {
        let roster = self.roster();
        roster.len + roster.guests.len()
    }

    /// Takes a member in.
    pub(super) fn join(
        self: &Arc<Self>,
        session: &Arc<Shared>,
        metadata: Option<&Arc<Utf8Bytes>>,
    ) -> Joined {
        self.prepare_retained(session);
        // What is retained may be replaced as soon as its segment is free.
        let retained = OnceCell::new();
        let mut delivery = None;
        let (seat, wakers, is_closed) = {
            let mut roster = self.roster();
            if roster.is_closed {
                return Joined::TopicIsGone;
            }
            let index = self.open_segment(&mut roster);
            match self.seat(index, session, metadata, &retained, &mut delivery) {
                Some((id, key, is_full)) => {
                    if is_full {
                        // It was the last on the list.
                        roster.open.pop();
                    }
                    roster.len += 1;
                    let member = Member::new(id, metadata.cloned());
                    let wakers = roster.tell(&[Presence::Joined(member)]);
                    self.share(false, || {
                        let (seat, metadata) = (id.into(), metadata.cloned());
                        Change::Joined(backplane::Entry { seat, metadata })
                    });
                    (Some((id, key)), wakers, false)
                }
                None => (None, Vec::new(), roster.close_if_unused()),
            }
        };
        if let Some(delivery) = delivery {
            delivery.finish_retained(&self.counters);
        }
        wake(wakers);
        self.wake_relay();
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

    /// Queues a message for all members but one, and for other nodes. Returns how many were
    /// reached here.
    pub(super) fn publish(&self, message: &PreparedMessage, except: Option<MemberId>) -> usize {
        let mut delivery = self.delivery(message);
        match &self.relay {
            Some(relay) if self.policy.retains => {
                let mut wakes = false;
                // The order here is the order there: all nodes end with the same message.
                self.pass(&mut delivery, except, |delivery, _| {
                    (delivery.stamp, wakes) = relay.queue(&self.name, except, message.message());
                    true
                });
                if wakes {
                    relay.wake();
                }
            }
            relay => {
                if let Some(relay) = relay {
                    relay.publish(&self.name, except, message.message());
                }
                self.pass(&mut delivery, except, |_, _| true);
            }
        }
        delivery.finish(&self.counters)
    }

    /// Takes a message through all segments, unless `begins` says no: it runs under the lock of the
    /// first, and sees what is retained.
    fn pass<'a>(
        &self,
        delivery: &mut Delivery<'a>,
        except: Option<MemberId>,
        begins: impl FnOnce(&mut Delivery<'a>, Option<&Retained>) -> bool,
    ) -> bool {
        let rest;
        let mut segment = self.first.lock();
        if !begins(delivery, segment.retained()) {
            return false;
        }
        // Taken under the first lock: whoever comes later knows no fewer segments.
        rest = segment.rest();
        delivery.reach_all(&mut segment, except);
        for next in rest.iter().flat_map(|rest| rest.iter()) {
            // The lock of this one goes when the next is held: nobody overtakes.
            segment = next.lock();
            delivery.reach_all(&mut segment, except);
        }
        true
    }

    /// What whoever joins now gets first.
    pub(super) fn retained(&self) -> Option<PreparedMessage> {
        let first = self.first.lock();
        first.retained().map(|it| it.message.clone())
    }

    /// Queues a message for one member. Returns how many were reached.
    pub(super) fn publish_to(&self, id: MemberId, message: &PreparedMessage) -> usize {
        let mut delivery = self.delivery(message);
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
        let roster = self.roster();
        self.members_of_roster(&roster)
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
        let roster = self.roster();
        let missed = watcher.catch_up();
        (self.members_of_roster(&roster), missed)
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
        self.first.lock().push(index);
        index
    }

    fn segment(&self, index: u32) -> Option<Guarded> {
        let Some(behind) = index.checked_sub(1) else {
            return Some(self.first.clone());
        };
        let rest = self.first.lock().rest()?;
        rest.get(behind as usize).cloned()
    }

    /// Compresses what is retained for a socket that wants that, while no lock is held. If a newer
    /// message comes in between, the socket compresses that.
    fn prepare_retained(&self, session: &Shared) {
        if self.policy.retains
            && let Some(retained) = self.retained()
        {
            let prepare = Compression::prepare_for(&session.lock().connection);
            prepare(&retained);
        }
    }

    /// Takes a seat for a session, if it is open, and queues what the topic retains. Says whether
    /// the segment is full by now.
    fn seat<'a>(
        self: &'a Arc<Self>,
        index: u32,
        session: &Arc<Shared>,
        metadata: Option<&Arc<Utf8Bytes>>,
        retained: &'a OnceCell<PreparedMessage>,
        delivery: &mut Option<Delivery<'a>>,
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
            member.key = state.insert_feed(source, id);
            member.compresses = self.compression.join(&state.connection);
        }
        let key = member.key;
        segment.insert(id, member);
        if let Some(newest) = segment.retained()
            && let Some(member) = segment.get(id)
        {
            let message = retained.get_or_init(|| newest.message.clone());
            let delivery = delivery.insert(Delivery::new(message, &self.policy));
            delivery.reach(id, member);
        }
        Some((id, key, segment.is_full()))
    }

    fn members_of_roster(&self, roster: &Roster) -> Vec<Member> {
        let mut all = self.collect(|id, member| Member::new(id, member.metadata.clone()));
        all.extend(roster.guests.members().cloned());
        all
    }

    fn collect<T>(&self, mut each: impl FnMut(MemberId, &Entry) -> T) -> Vec<T> {
        let mut all = Vec::new();
        self.each_member(|id, member| all.push(each(id, member)));
        all
    }

    /// One segment after the other is held.
    fn each_member(&self, mut each: impl FnMut(MemberId, &Entry)) {
        let rest = self.first.lock().rest();
        let behind = rest.iter().flat_map(|rest| rest.iter());
        for segment in [&self.first].into_iter().chain(behind) {
            let segment = segment.lock();
            segment.members().for_each(|(id, member)| each(id, member));
        }
    }

    /// Begins with a message for members that are here.
    fn delivery<'a>(&'a self, message: &'a PreparedMessage) -> Delivery<'a> {
        self.compression.prepare(message);
        Delivery::new(message, &self.policy)
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
                wakers = roster.tell(&[Presence::Left(member)]);
                self.share(roster.len == 0, || Change::Left(id.into()));
            }
            (left, wakers, roster.close_if_unused())
        };
        wake(wakers);
        self.wake_relay();
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
    fn tell(&self, events: &[Presence]) -> Vec<Waker> {
        let watchers = &self.watchers;
        let told = events.iter().flat_map(|event| {
            let tell = |it: &Arc<Watcher>| it.tell(event);
            watchers.iter().filter_map(tell)
        });
        told.collect()
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
