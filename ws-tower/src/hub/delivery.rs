//! One message on its way to the members of a topic.

use std::{cell::Cell, sync::MutexGuard, task::Waker};

use ws_core::{PreparedMessage, SendError};

use super::{
    backplane::Stamp,
    policy::{Policy, SlowConsumer},
    segment::{Entry, Retained, Segment},
    stats::{Counters, Stats},
};
use crate::session::{
    feeds::{Backlog, Feeds, MemberId},
    state::State,
};

thread_local! {
    /// The thread's list of sessions to wake.
    static WAKERS: Cell<Vec<Waker>> = const { Cell::new(Vec::new()) };
}

/// What a thread keeps of its list, in wakers.
const MAX_WAKERS: usize = 4096;

/// A message, and what has become of it so far. Whatever may run code of the application waits
/// here until the locks are gone: wakers, payloads and seats.
pub(super) struct Delivery<'a> {
    message: &'a PreparedMessage,
    policy: &'a Policy,
    /// For a message that the topic retains.
    pub(super) stamp: Option<Stamp>,
    reached: usize,
    stats: Stats,
    wakers: Vec<Waker>,
    spent: Vec<PreparedMessage>,
    gone: Vec<Feeds>,
}

impl<'a> Delivery<'a> {
    pub(super) fn new(message: &'a PreparedMessage, policy: &'a Policy) -> Self {
        Self {
            message,
            policy,
            stamp: None,
            reached: 0,
            stats: Stats::default(),
            wakers: WAKERS.take(),
            spent: Vec::new(),
            gone: Vec::new(),
        }
    }

    /// Queues it for the members of a segment, and leaves it there for those to come if the topic
    /// retains it.
    pub(super) fn reach_all(&mut self, segment: &mut Segment, except: Option<MemberId>) {
        if self.policy.retains {
            self.leave_in(segment);
        }
        for (id, member) in segment.members() {
            if Some(id) != except {
                self.reach(id, member);
            }
        }
    }

    #[inline(never)]
    fn leave_in(&mut self, segment: &mut Segment) {
        let retained = Retained {
            message: self.message.clone(),
            stamp: self.stamp,
        };
        self.spent.extend(segment.retain(retained));
    }

    /// Queues it for one member. The topic's lock is held.
    #[inline]
    pub(super) fn reach(&mut self, id: MemberId, member: &Entry) {
        let mut state = member.session.lock();
        let has_room = match self.policy.rule {
            // A value that lies in the queue cannot be replaced any more.
            SlowConsumer::Latest => state.connection.outgoing_size() == 0,
            _ => true,
        };
        if has_room && !state.is_waiting() {
            match state.connection.send_prepared(self.message) {
                Ok(()) => {
                    self.reached += 1;
                    self.wakers.extend(state.nudge());
                    return;
                }
                Err(SendError::Full) => {}
                // It is closing, and leaves by itself.
                Err(_) => return,
            }
        }
        self.reach_slow(id, member, state);
    }

    /// The socket has more than it takes, for now: the message waits, or the policy decides.
    #[cold]
    fn reach_slow(&mut self, id: MemberId, member: &Entry, mut state: MutexGuard<'_, State>) {
        if !state.connection.is_open() {
            return;
        }
        let Self {
            message,
            policy,
            stats,
            spent,
            ..
        } = self;
        let is_queued = state.with_feeds(|feeds| {
            feeds.change(member.key, id, |backlog| {
                queue(backlog, message, policy, stats, spent)
            })
        });
        match is_queued.flatten() {
            Some(true) => self.reached += 1,
            Some(false) if policy.rule == SlowConsumer::Disconnect => {
                stats.disconnected += 1;
                self.gone.extend(state.take_feeds().map(|feeds| *feeds));
                // What the peer has sent must not hide its Close.
                state.connection.discard_overflow();
                let _ = state.connection.close(policy.close.clone());
                self.wakers.extend(state.nudge());
            }
            // Skipped, or its seat was given up just now.
            _ => {}
        }
    }

    /// Queues it for one member as the notice of a gap: a slow one gets the gap instead, in its
    /// place behind what waits, and the notice is made when its turn has come.
    pub(super) fn reach_with_gap(&mut self, id: MemberId, member: &Entry, missed: u64) {
        let mut state = member.session.lock();
        if !state.is_waiting() && state.connection.send_prepared(self.message).is_ok() {
            self.wakers.extend(state.nudge());
            return;
        }
        if state.connection.is_open() {
            state.with_feeds(|feeds| {
                feeds.change(member.key, id, |backlog| backlog.miss_last(missed))
            });
        }
    }

    /// As [`finish`](Self::finish), for a notice, which counts as no message.
    pub(super) fn finish_notice(self) {
        self.finish_retained(&Counters::default());
    }

    /// Does what had to wait for the end of the locks. Returns how many were reached.
    pub(super) fn finish(mut self, counters: &Counters) -> usize {
        self.stats.published = 1;
        self.finish_retained(counters)
    }

    /// As [`finish`](Self::finish), for a message that has been published before.
    pub(super) fn finish_retained(mut self, counters: &Counters) -> usize {
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
        if self.wakers.capacity() <= MAX_WAKERS {
            WAKERS.set(self.wakers);
        }
        drop(self.spent);
        for feeds in self.gone {
            feeds.leave();
        }
        self.stats.delivered = self.reached as u64;
        counters.add(&self.stats);
        self.reached
    }
}

/// Puts a message into a backlog, by the rules. Says whether it is there.
fn queue(
    backlog: &mut Backlog,
    message: &PreparedMessage,
    policy: &Policy,
    stats: &mut Stats,
    spent: &mut Vec<PreparedMessage>,
) -> bool {
    let tells = policy.notice.is_some();
    let mark = policy.backlog.max(1);
    match policy.rule {
        SlowConsumer::Disconnect if backlog.cost() >= mark => return false,
        SlowConsumer::SkipNewest if backlog.cost() >= mark => {
            stats.skipped += 1;
            if tells {
                backlog.miss_last(1);
            }
            return false;
        }
        SlowConsumer::DropOldest => {
            while backlog.cost() >= mark
                && let Some(oldest) = backlog.pop()
            {
                stats.dropped += 1;
                spent.push(oldest);
                if tells {
                    backlog.miss_first();
                }
            }
        }
        SlowConsumer::Latest => {
            backlog.may_be_replaced();
            if let Some(older) = backlog.pop() {
                stats.replaced += 1;
                spent.push(older);
            }
        }
        SlowConsumer::Disconnect | SlowConsumer::SkipNewest => {}
    }
    backlog.push(message.clone());
    true
}
