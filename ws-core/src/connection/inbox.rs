//! The queue of events that wait for the application.

use std::{collections::VecDeque, mem};

use crate::connection::{Event, MESSAGE_OVERHEAD, Scratch};

/// A queue that knows what it holds, in bytes, and that works in borrowed room if it can.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    events: VecDeque<Event>,
    cost: usize,
}

impl Inbox {
    #[inline]
    pub(super) fn push(&mut self, event: Event) {
        self.cost += cost(&event);
        self.events.push_back(event);
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.cost -= cost(&event);
        Some(event)
    }

    /// Exchanges the queue for an empty one; one that is not empty is added to. A queue that is
    /// empty both here and there keeps its room here, to be released.
    #[inline]
    pub(super) fn take(&mut self, events: &mut VecDeque<Event>) {
        if self.events.is_empty() {
            if events.capacity() > 0 && events.is_empty() {
                if self.events.capacity() == 0 {
                    mem::swap(&mut self.events, events);
                } else {
                    *events = VecDeque::new();
                }
            }
            return;
        }
        if events.is_empty() {
            mem::swap(&mut self.events, events);
        } else {
            // Exchanged, they would come back as events that were never counted.
            events.append(&mut self.events);
        }
        self.cost = 0;
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    #[inline]
    pub(super) fn lend(&mut self, room: &mut VecDeque<Event>) {
        if self.events.capacity() == 0 {
            debug_assert!(room.is_empty());
            mem::swap(&mut self.events, room);
        }
    }

    #[inline]
    pub(super) fn release(&mut self, room: &mut VecDeque<Event>) {
        if self.events.is_empty() && self.events.capacity() > 0 {
            Scratch::keep_events(room, mem::take(&mut self.events));
        }
    }

    /// Payloads plus an overhead for each event, in bytes.
    #[inline]
    pub(super) fn cost(&self) -> usize {
        self.cost
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Message;

    #[test]
    fn events_that_a_caller_has_left_stay_its_own_and_first() {
        let mut inbox = Inbox::default();
        let mut events = VecDeque::new();
        for text in ["a", "b"] {
            inbox.push(Event::Message(Message::text(text)));
            inbox.take(&mut events);
            assert!(inbox.is_empty() && inbox.cost() == 0);
        }
        let [a, b] = ["a", "b"].map(|text| Event::Message(Message::text(text)));
        assert_eq!(events, [a, b]);
    }

    #[test]
    fn of_two_rooms_without_events_one_stays_and_it_is_here() {
        for (here, there) in [(0, 8), (8, 0), (8, 8)] {
            let mut inbox = Inbox {
                events: VecDeque::with_capacity(here),
                cost: 0,
            };
            let mut events = VecDeque::with_capacity(there);
            inbox.take(&mut events);
            assert_eq!(events.capacity(), 0);
            assert!(inbox.events.capacity() >= 8);
        }
    }
}
