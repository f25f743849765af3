//! What waits for a session beside its outgoing queue: messages of the hub for a socket that does
//! not keep up.
//!
//! What lies in the outgoing queue is encoded and cannot be taken back. So a seat in the hub has a
//! backlog of its own, which the session draws from when its queue has drained, in turn for each
//! seat. A socket that keeps up has none, and one without a seat owns nothing but a null pointer.

use std::{
    collections::VecDeque,
    fmt, mem,
    sync::{Arc, MutexGuard},
};

use slab::Slab;
use ws_core::PreparedMessage;

use super::state::{Shared, State};

/// Names one seat of one hub: of all that have been and will be.
///
/// It is a number that is given once, with the place where the hub finds the seat. The number is
/// what [`Display`](fmt::Display) and [`number`](Self::number) tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId {
    number: u64,
    pub(crate) segment: u32,
    pub(crate) slot: u16,
    /// 0 for a member of this node.
    pub(crate) node: u16,
}

impl MemberId {
    pub(crate) fn new(number: u64, segment: u32, slot: u16) -> Self {
        Self::of_node(number, segment, slot, 0)
    }

    pub(crate) fn of_node(number: u64, segment: u32, slot: u16, node: u16) -> Self {
        Self {
            number,
            segment,
            slot,
            node,
        }
    }

    /// The number: unique in the hub of its node, ascending with the joins there, never given
    /// again. Over a [`Backplane`](crate::hub::Backplane) members of different nodes may have the
    /// same: their ids differ, and [`Hub::node_of`](crate::hub::Hub::node_of) tells the node.
    pub fn number(self) -> u64 {
        self.number
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.number, f)
    }
}

/// Where a feed comes from: a topic. Nothing of it is called under the session's lock.
pub(crate) trait Source: Send + Sync {
    /// The socket of this member is no more.
    fn leave(&self, member: MemberId);

    /// What a member is told that has missed so many messages.
    fn notice(&self, missed: u64) -> Option<PreparedMessage>;
}

/// The seats of one socket.
#[derive(Default)]
pub(crate) struct Feeds {
    seats: Slab<Feed>,
    /// The seats for which something waits, in their turn.
    ready: VecDeque<usize>,
    /// Messages that have been sent, to be dropped outside the lock: a payload may have an owner
    /// of the caller's.
    spent: Vec<PreparedMessage>,
}

/// One seat.
pub(crate) struct Feed {
    source: Arc<dyn Source>,
    member: MemberId,
    /// `None` for a seat that keeps up.
    backlog: Option<Box<Backlog>>,
}

/// What waits for one seat.
#[derive(Default)]
pub(crate) struct Backlog {
    items: VecDeque<Item>,
    /// Payloads plus the overhead of each message.
    cost: usize,
    /// Whether it waits until the socket has taken all before: a newer message may replace what
    /// is here, and nothing that is on its way.
    is_replaceable: bool,
}

/// How much is drawn from the backlogs.
#[derive(Clone, Copy)]
pub(crate) enum Draw {
    /// What the outgoing queue has room for, while the socket has yet to take what it was given.
    Behind,
    /// The same, while it has taken everything.
    Room,
    /// All there is: a Close comes behind it.
    All,
}

enum Item {
    Message(PreparedMessage),
    /// So many messages are missing here, and the member is to be told.
    Gap(u64),
}

/// A gap for which a notice is to be made.
struct Due {
    source: Arc<dyn Source>,
    member: MemberId,
    key: usize,
    missed: u64,
}

impl Feeds {
    /// Takes a seat in. Its key is given again when it has left.
    fn insert(&mut self, source: Arc<dyn Source>, member: MemberId) -> usize {
        if self.seats.capacity() == 0 {
            // Most sockets have one.
            self.seats = Slab::with_capacity(1);
        }
        self.seats.insert(Feed {
            source,
            member,
            backlog: None,
        })
    }

    /// Takes a seat out, with what waits for it.
    #[must_use = "it is to be dropped outside the lock"]
    pub(crate) fn remove(&mut self, key: usize, member: MemberId) -> Option<Feed> {
        if self.seats.get(key)?.member != member {
            return None;
        }
        self.ready.retain(|ready| *ready != key);
        self.seats.try_remove(key)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// Whether something waits: then a new message has to queue up behind it.
    fn is_waiting(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether something waits, or is to be dropped.
    fn is_busy(&self) -> bool {
        self.is_waiting() || !self.spent.is_empty()
    }

    /// Changes the backlog of a member. `None`: it has no seat here.
    pub(crate) fn change<T>(
        &mut self,
        key: usize,
        member: MemberId,
        change: impl FnOnce(&mut Backlog) -> T,
    ) -> Option<T> {
        let feed = self.seats.get_mut(key)?;
        if feed.member != member {
            return None;
        }
        let backlog = feed.backlog.get_or_insert_default();
        let was_ready = !backlog.items.is_empty();
        let result = change(backlog);
        let is_ready = !backlog.items.is_empty();
        if !is_ready {
            feed.backlog = None;
        }
        if is_ready && !was_ready {
            self.ready.push_back(key);
        } else if was_ready && !is_ready {
            self.ready.retain(|ready| *ready != key);
        }
        Some(result)
    }

    /// Takes the messages that have been sent.
    #[must_use = "they are to be dropped outside the lock"]
    pub(crate) fn take_spent(&mut self) -> Vec<PreparedMessage> {
        mem::take(&mut self.spent)
    }

    /// The socket is no more: tells where its seats were.
    pub(crate) fn leave(self) {
        for (_, feed) in self.seats {
            feed.source.leave(feed.member);
        }
    }

    /// Takes what is to be sent next, or says for which gap a notice is due.
    fn take(&mut self, draw: Draw) -> Option<Result<&PreparedMessage, Due>> {
        if let Draw::Behind = draw {
            self.pass_replaceable()?;
        }
        let key = *self.ready.front()?;
        let feed = self.seats.get_mut(key)?;
        let member = feed.member;
        if let Some(Item::Gap(missed)) = feed.backlog.as_mut()?.items.front_mut() {
            return Some(Err(Due {
                source: Arc::clone(&feed.source),
                member,
                key,
                // It keeps its place: more may be missing by the time the notice is made.
                missed: mem::take(missed),
            }));
        }
        let message = self.change(key, member, Backlog::pop)??;
        // The others have their turn.
        if self.ready.front() == Some(&key) {
            self.ready.rotate_left(1);
        }
        self.spent.push(message);
        self.spent.last().map(Ok)
    }

    /// Gives the turn to the first seat whose messages nothing replaces any more.
    fn pass_replaceable(&mut self) -> Option<()> {
        let seats = &self.seats;
        let stays = |key: &usize| {
            let backlog = seats.get(*key).and_then(|feed| feed.backlog.as_ref());
            backlog.is_some_and(|backlog| !backlog.is_replaceable)
        };
        let place = self.ready.iter().position(stays)?;
        if place > 0 {
            let key = self.ready.remove(place)?;
            self.ready.push_front(key);
        }
        Some(())
    }

    /// Takes a gap away whose notice has been made, unless more is missing by now. Says whether
    /// the member is still there.
    fn told(&mut self, due: &Due) -> bool {
        let told = self.change(due.key, due.member, |backlog| {
            if let Some(Item::Gap(0)) = backlog.items.front() {
                backlog.items.pop_front();
            }
        });
        told.is_some()
    }
}

impl Backlog {
    /// Payloads plus 64 bytes for each message.
    pub(crate) fn cost(&self) -> usize {
        self.cost
    }

    pub(crate) fn push(&mut self, message: PreparedMessage) {
        self.cost += cost(&message);
        self.items.push_back(Item::Message(message));
    }

    /// A newer message may replace what is here, until it is on its way.
    pub(crate) fn may_be_replaced(&mut self) {
        self.is_replaceable = true;
    }

    /// Takes out the oldest message.
    pub(crate) fn pop(&mut self) -> Option<PreparedMessage> {
        let behind_gap = matches!(self.items.front(), Some(Item::Gap(_)));
        let place = usize::from(behind_gap);
        let Some(Item::Message(message)) = self.items.get(place) else {
            return None;
        };
        self.cost -= cost(message);
        match self.items.remove(place)? {
            Item::Message(message) => Some(message),
            Item::Gap(_) => None,
        }
    }

    /// One message more is missing at the front.
    pub(crate) fn miss_first(&mut self) {
        match self.items.front_mut() {
            Some(Item::Gap(missed)) => *missed += 1,
            _ => self.items.push_front(Item::Gap(1)),
        }
    }

    /// So many messages more are missing at the back.
    pub(crate) fn miss_last(&mut self, count: u64) {
        match self.items.back_mut() {
            // Another node says how many.
            Some(Item::Gap(missed)) => *missed = missed.saturating_add(count),
            _ => self.items.push_back(Item::Gap(count)),
        }
    }
}

/// What a message counts: as much as in the engine's queues.
fn cost(message: &PreparedMessage) -> usize {
    message.message().len() + MESSAGE_OVERHEAD
}

/// What a message counts beside its payload, in bytes.
const MESSAGE_OVERHEAD: usize = 64;

/// Draws from the backlogs. It lets go of the lock while the application makes a notice.
#[inline]
pub(crate) fn refill<'a>(
    shared: &'a Shared,
    mut state: MutexGuard<'a, State>,
    draw: Draw,
) -> MutexGuard<'a, State> {
    while let Some(due) = state.draw(draw) {
        drop(state);
        let notice = due.source.notice(due.missed);
        shared.lock().give(&due, notice.as_ref());
        drop((due, notice));
        state = shared.lock();
    }
    state
}

impl State {
    /// Changes the seats, if there are any.
    pub(crate) fn with_feeds<T>(&mut self, change: impl FnOnce(&mut Feeds) -> T) -> Option<T> {
        let feeds = self.feeds.as_mut()?;
        let result = change(feeds);
        self.feeds_are_busy = feeds.is_busy();
        Some(result)
    }

    /// Takes a seat in.
    pub(crate) fn insert_feed(&mut self, source: Arc<dyn Source>, member: MemberId) -> usize {
        let feeds = self.feeds.get_or_insert_default();
        feeds.insert(source, member)
    }

    /// Takes all seats out, with what waits for them.
    #[must_use = "they are to be dropped outside the lock"]
    pub(crate) fn take_feeds(&mut self) -> Option<Box<Feeds>> {
        self.feeds_are_busy = false;
        self.feeds.take()
    }

    /// Whether something waits in a backlog: then a new message has to queue up behind it.
    #[inline]
    pub(crate) fn is_waiting(&self) -> bool {
        self.feeds_are_busy && self.feeds.as_ref().is_some_and(|feeds| feeds.is_waiting())
    }

    /// Fills the outgoing queue to half of its mark: the other half is the handler's. Stops at a
    /// gap.
    #[inline]
    fn draw(&mut self, draw: Draw) -> Option<Due> {
        if !self.feeds_are_busy {
            return None;
        }
        let due = self.draw_from_backlogs(draw);
        self.with_feeds(|_| ());
        due
    }

    fn draw_from_backlogs(&mut self, draw: Draw) -> Option<Due> {
        let feeds = self.feeds.as_mut()?;
        let mark = match draw {
            Draw::Behind | Draw::Room => (self.connection.config().outgoing_high_water / 2).max(1),
            Draw::All => usize::MAX,
        };
        // After a Close nothing more is sent: what waits goes with the socket.
        while feeds.is_waiting()
            && self.connection.outgoing_size() < mark
            && self.connection.is_open()
        {
            match feeds.take(draw)? {
                Ok(message) => self.connection.send_prepared_promised(message).ok()?,
                Err(due) => return Some(due),
            }
        }
        None
    }

    /// Sends a notice in the place of its gap.
    fn give(&mut self, due: &Due, notice: Option<&PreparedMessage>) {
        if self.with_feeds(|feeds| feeds.told(due)) == Some(true)
            && let Some(notice) = notice
        {
            let _ = self.connection.send_prepared_promised(notice);
        }
    }
}
