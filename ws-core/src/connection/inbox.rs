//! The queue of events that wait for the application.

use std::collections::VecDeque;

use crate::connection::{Event, MESSAGE_OVERHEAD};

/// A queue whose first place is its own: one message at a time needs no allocation, and an idle
/// connection no queue.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    first: Option<Event>,
    rest: VecDeque<Event>,
    cost: usize,
}

/// The room made for a burst at once.
const BURST: usize = 32;

impl Inbox {
    #[inline]
    pub(super) fn push(&mut self, event: Event) {
        self.cost += cost(&event);
        if self.first.is_none() && self.rest.is_empty() {
            self.first = Some(event);
            return;
        }
        if self.rest.capacity() == 0 {
            self.rest.reserve(BURST);
        }
        self.rest.push_back(event);
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<Event> {
        let event = self.first.take().or_else(|| self.rest.pop_front())?;
        self.cost -= cost(&event);
        Some(event)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Frees the place of a burst that is over.
    #[inline]
    pub(super) fn release(&mut self) {
        if self.rest.is_empty() && self.rest.capacity() > 0 {
            self.rest = VecDeque::new();
        }
    }

    /// Payloads plus an overhead for each event, in bytes.
    #[inline]
    pub(super) fn cost(&self) -> usize {
        self.cost
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none() && self.rest.is_empty()
    }
}

#[inline]
fn cost(event: &Event) -> usize {
    MESSAGE_OVERHEAD
        + match event {
            Event::Message(message) => message.len(),
            Event::Ping(payload) | Event::Pong(payload) => payload.len(),
            Event::Close(_) => 0,
        }
}
