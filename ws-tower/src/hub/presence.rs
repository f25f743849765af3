//! Who is there: the members of a topic, and their comings and goings.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use futures_core::Stream;
use ws_core::Utf8Bytes;

use super::topic::Topic;
use crate::session::feeds::MemberId;

/// A member of a topic: one [`Seat`](super::Seat), as the others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    id: MemberId,
    metadata: Option<Arc<Utf8Bytes>>,
}

impl Member {
    pub(super) fn new(id: MemberId, metadata: Option<Arc<Utf8Bytes>>) -> Self {
        Self { id, metadata }
    }

    /// Its id, for [`Hub::publish_to`](super::Hub::publish_to).
    pub fn id(&self) -> MemberId {
        self.id
    }

    /// What it said of itself when it joined with [`Hub::join_as`](super::Hub::join_as).
    pub fn metadata(&self) -> Option<&str> {
        self.metadata.as_deref().map(Utf8Bytes::as_str)
    }
}

/// What a [`Watch`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Presence {
    /// All who are there: first of all, and again when so much has happened unseen that it was
    /// thrown away.
    Members(Vec<Member>),
    /// One has joined.
    Joined(Member),
    /// One has left, or its socket has closed.
    Left(Member),
}

/// The members of a topic as they come and go: made by [`Hub::watch`](super::Hub::watch).
///
/// It begins with [`Presence::Members`], then tells each join and leave once and in order. It holds
/// 1,024 that nobody has taken; when there are more, they are thrown away and it begins anew
/// with the members of that moment, so what it tells is never wrong and its memory is bounded.
///
/// It keeps its topic, not the hub: it ends when the last [`Hub`](super::Hub) has been dropped. It
/// is also a [`Stream`].
#[derive(Debug)]
pub struct Watch {
    topic: Arc<Topic>,
    watcher: Arc<Watcher>,
}

impl Watch {
    pub(super) fn new(topic: Arc<Topic>, watcher: Arc<Watcher>) -> Self {
        Self { topic, watcher }
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        self.topic.name()
    }

    /// The next event; `None` when the hub is gone.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: an event is taken only when the future is ready.
    pub fn recv(&mut self) -> impl Future<Output = Option<Presence>> + Send {
        poll_fn(|cx| self.poll_presence(cx))
    }

    fn poll_presence(&mut self, cx: &mut Context<'_>) -> Poll<Option<Presence>> {
        // A waker may do anything when it is cloned or dropped: not under the lock.
        let mut waker = Some(cx.waker().clone());
        let result = self.watcher.lock().poll(&mut waker);
        drop(waker);
        match result {
            Turn::Event(event) => Poll::Ready(Some(event)),
            Turn::Ended => Poll::Ready(None),
            Turn::Waits => Poll::Pending,
            Turn::IsBehind => {
                let (members, missed) = self.topic.catch_up(&self.watcher);
                drop(missed);
                Poll::Ready(Some(Presence::Members(members)))
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.topic.unwatch(&self.watcher);
        let waker = self.watcher.lock().waker.take();
        drop(waker);
    }
}

impl Stream for Watch {
    type Item = Presence;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Presence>> {
        self.poll_presence(cx)
    }
}

/// What the topic has for a [`Watch`].
#[derive(Debug, Default)]
pub(super) struct Watcher(Mutex<Queue>);

#[derive(Debug)]
struct Queue {
    events: VecDeque<Presence>,
    /// Whether the events do not tell all: the members are to be told first.
    is_behind: bool,
    has_ended: bool,
    waker: Option<Waker>,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            events: VecDeque::new(),
            is_behind: true,
            has_ended: false,
            waker: None,
        }
    }
}

/// What a watch finds.
enum Turn {
    Event(Presence),
    IsBehind,
    Ended,
    Waits,
}

impl Queue {
    /// Keeps the waker if there is nothing, and gives back the one before.
    fn poll(&mut self, waker: &mut Option<Waker>) -> Turn {
        if self.is_behind {
            return Turn::IsBehind;
        }
        if let Some(event) = self.events.pop_front() {
            return Turn::Event(event);
        }
        if self.has_ended {
            return Turn::Ended;
        }
        mem::swap(&mut self.waker, waker);
        Turn::Waits
    }
}

impl Watcher {
    /// Takes an event; called in the order of events. Returns who is to be woken.
    pub(super) fn tell(&self, event: &Presence) -> Option<Waker> {
        let mut queue = self.lock();
        if queue.events.len() >= MAX_EVENTS {
            queue.is_behind = true;
        }
        if !queue.is_behind {
            queue.events.push_back(event.clone());
        }
        queue.waker.take()
    }

    /// From here on all is told again. Returns the events that are out of date.
    pub(super) fn catch_up(&self) -> VecDeque<Presence> {
        let mut queue = self.lock();
        queue.is_behind = false;
        mem::take(&mut queue.events)
    }

    /// No event will follow.
    pub(super) fn end(&self) -> Option<Waker> {
        let mut queue = self.lock();
        queue.has_ended = true;
        queue.waker.take()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Events that a watcher holds: a burst of joins after a restart, for a task that is busy.
const MAX_EVENTS: usize = 1024;
