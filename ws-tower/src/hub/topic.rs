//! A topic: its members, and the order in which they join, leave and get its messages.

use std::{
    cell::OnceCell,
    collections::HashMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::Waker,
};

use ws_core::{CloseFrame, Message, PreparedMessage, Utf8Bytes};

use super::{
    backplane::{self, Address, Change, NodeId, Relay, Remote, SeatId, Stamp},
    compression::Compression,
    delivery::Delivery,
    policy::{Lag, Policy, SlowConsumer},
    presence::{Member, Presence, Watcher},
    segment::{Entry, Guarded, Retained},
    stats::{Counters, Stats},
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
    /// Members of other nodes; `None` for none.
    remote: Option<HashMap<NodeId, Guests>>,
    is_closed: bool,
}

/// The members that another node has.
struct Guests {
    version: u64,
    members: HashMap<SeatId, Member>,
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
                remote: None,
                is_closed: false,
            }),
        }
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn len(&self) -> usize {
        let roster = self.roster();
        let guests = roster.guests().map(|it| it.members.len());
        roster.len + guests.sum::<usize>()
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
                    let wakers = roster.tell(&Presence::Joined(member));
                    self.share(|| {
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
        self.compression.prepare(message);
        let mut delivery = Delivery::new(message, &self.policy);
        let mut wakes = false;
        if let Some(relay) = &self.relay {
            let to = address(except, |number| relay.node_of(number));
            if self.policy.retains {
                // The order here is the order there: all nodes end with the same message.
                self.pass(&mut delivery, except, |delivery, _| {
                    (delivery.stamp, wakes) = relay.queue(&self.name, to, message.message());
                    true
                });
                if wakes {
                    relay.wake();
                }
                return delivery.finish(&self.counters);
            }
            relay.publish(&self.name, to, message.message());
        }
        self.pass(&mut delivery, except, |_, _| true);
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
        let roster = self.roster();
        self.members_of_roster(&roster)
    }

    // Other nodes.

    /// Whether the topic keeps its newest message.
    pub(super) fn retains(&self) -> bool {
        self.policy.retains
    }

    /// What the topic retains, and which publication it is.
    pub(super) fn newest(&self) -> Option<(Message, Stamp)> {
        let first = self.first.lock();
        let retained = first.retained()?;
        Some((retained.message.message().clone(), retained.stamp?))
    }

    /// Queues a message of another node for all members but one.
    pub(super) fn deliver(&self, message: Message, except: Option<SeatId>, stamp: Option<Stamp>) {
        let message = PreparedMessage::new(message);
        self.compression.prepare(&message);
        let mut delivery = Delivery::new(&message, &self.policy);
        delivery.stamp = stamp;
        let except = except.map(|it| it.member(0));
        self.pass(&mut delivery, except, |_, _| true);
        delivery.finish(&self.counters);
    }

    /// Queues what another node retains for all members, if it is newer than what is retained here.
    /// Says whether it is.
    pub(super) fn deliver_newest(
        &self,
        message: Message,
        stamp: Stamp,
        is_newer: impl FnOnce(&Stamp) -> bool,
    ) -> bool {
        let message = PreparedMessage::new(message);
        self.compression.prepare(&message);
        let mut delivery = Delivery::new(&message, &self.policy);
        delivery.stamp = Some(stamp);
        let passes = self.pass(&mut delivery, None, |_, retained| {
            retained.is_none_or(|it| it.stamp.as_ref().is_some_and(is_newer))
        });
        if passes {
            delivery.finish(&self.counters);
        }
        passes
    }

    /// Queues a message of another node for one member.
    pub(super) fn deliver_to(&self, message: Message, member: SeatId) {
        self.publish_to(member.member(0), &PreparedMessage::new(message));
    }

    /// So many messages of another node have not come: what the policy has for that is done.
    pub(super) fn miss(&self, missed: u64) {
        if self.policy.notice.is_some() {
            let Some(notice) = self.notice(missed) else {
                return;
            };
            let mut delivery = Delivery::new(&notice, &self.policy);
            {
                let rest = self.first.lock().rest();
                let behind = rest.iter().flat_map(|rest| rest.iter());
                for segment in [&self.first].into_iter().chain(behind) {
                    for (id, member) in segment.lock().members() {
                        delivery.reach_with_gap(id, member, missed);
                    }
                }
            }
            delivery.finish_notice();
        } else if self.policy.rule == SlowConsumer::Disconnect {
            let disconnected = self.close(&self.policy.close) as u64;
            self.counters.add(&Stats {
                disconnected,
                ..Stats::default()
            });
        }
    }

    /// The members of this node, for the others, with the version they are.
    pub(super) fn local_members(&self) -> (u64, Vec<backplane::Entry>) {
        let _roster = self.roster();
        let version = self.relay.as_ref().map_or(0, |it| it.version(&self.name));
        let members = self.collect(|id, member| backplane::Entry {
            seat: id.into(),
            metadata: member.metadata.clone(),
        });
        (version, members)
    }

    /// The version of another node's members; 0 for none.
    pub(super) fn remote_version(&self, node: NodeId) -> u64 {
        let roster = self.roster();
        let guests = roster.remote.as_ref().and_then(|all| all.get(&node));
        guests.map_or(0, |it| it.version)
    }

    /// A member of another node has come or gone. Says whether that can be, after what is known.
    pub(super) fn change_remote(
        &self,
        node: NodeId,
        number: u16,
        previous: u64,
        version: u64,
        change: Change,
    ) -> bool {
        let wakers = {
            let mut roster = self.roster();
            let all = roster.remote.get_or_insert_default();
            let guests = all.entry(node).or_insert_with(Guests::none);
            if version <= guests.version {
                return true;
            }
            let mut events = Vec::new();
            if previous == 0 {
                // Before it was nobody.
                events.extend(guests.members.drain().map(|(_, it)| Presence::Left(it)));
            } else if previous != guests.version {
                return false;
            }
            guests.version = version;
            match change {
                Change::Joined(entry) => {
                    let member = Member::new(entry.seat.member(number), entry.metadata);
                    guests.members.insert(entry.seat, member.clone());
                    events.push(Presence::Joined(member));
                }
                Change::Left(seat) => {
                    events.extend(guests.members.remove(&seat).map(Presence::Left));
                }
            }
            roster.tell_all(&events)
        };
        wake(wakers);
        true
    }

    /// These are the members of another node.
    pub(super) fn replace_remote(
        &self,
        node: NodeId,
        number: u16,
        version: u64,
        members: Vec<backplane::Entry>,
    ) {
        let members: HashMap<_, _> = members
            .into_iter()
            .map(|it| (it.seat, Member::new(it.seat.member(number), it.metadata)))
            .collect();
        let wakers = {
            let mut roster = self.roster();
            let all = roster.remote.get_or_insert_default();
            let guests = all.entry(node).or_insert_with(Guests::none);
            if version < guests.version {
                return;
            }
            let mut events = Vec::new();
            for (seat, member) in &guests.members {
                if !members.contains_key(seat) {
                    events.push(Presence::Left(member.clone()));
                }
            }
            for (seat, member) in &members {
                if !guests.members.contains_key(seat) {
                    events.push(Presence::Joined(member.clone()));
                }
            }
            *guests = Guests { version, members };
            roster.tell_all(&events)
        };
        wake(wakers);
    }

    /// Another node is no more, and so are its members.
    pub(super) fn forget_node(&self, node: NodeId) {
        let wakers = {
            let mut roster = self.roster();
            let guests = roster.remote.as_mut().and_then(|all| all.remove(&node));
            let members = guests.into_iter().flat_map(|it| it.members.into_values());
            let events: Vec<_> = members.map(Presence::Left).collect();
            roster.tell_all(&events)
        };
        wake(wakers);
    }

    /// Tells other nodes of a change, while the roster is held.
    fn share(&self, change: impl FnOnce() -> Change) {
        if let Some(relay) = &self.relay
            && relay.has_presence()
        {
            relay.change(&self.name, change());
        }
    }

    /// To be called after [`share`](Self::share), outside the lock.
    fn wake_relay(&self) {
        if let Some(relay) = &self.relay
            && relay.has_presence()
        {
            relay.wake();
        }
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
        all.extend(roster.guests().flat_map(|it| it.members.values().cloned()));
        all
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
                self.share(|| Change::Left(id.into()));
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

impl Guests {
    fn none() -> Self {
        Self {
            version: 0,
            members: HashMap::new(),
        }
    }
}

impl Roster {
    fn guests(&self) -> impl Iterator<Item = &Guests> {
        self.remote.iter().flat_map(|all| all.values())
    }

    fn tell_all(&self, events: &[Presence]) -> Vec<Waker> {
        events.iter().flat_map(|event| self.tell(event)).collect()
    }

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

/// Whom other nodes deliver a message to that is for all members but one.
pub(super) fn address(
    except: Option<MemberId>,
    node_of: impl FnOnce(u16) -> Option<NodeId>,
) -> Address {
    match except {
        Some(member) if member.node > 0 => match node_of(member.node) {
            Some(node) => Address::AllBut(Remote {
                node,
                seat: member.into(),
            }),
            None => Address::All,
        },
        // It is one of ours.
        _ => Address::All,
    }
}

fn wake(wakers: Vec<Waker>) {
    for waker in wakers {
        waker.wake();
    }
}
