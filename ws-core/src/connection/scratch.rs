//! Room to work in, which a thread's connections use in turn.

use std::collections::VecDeque;

use crate::Event;

/// Room for events and bytes, for [`Connection::lend`](crate::Connection::lend).
///
/// Keep one for each thread: it grows to what a busy turn needs, within bounds.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(super) events: VecDeque<Event>,
    pub(crate) bytes: Vec<u8>,
}

/// What a thread keeps at most, in events and in bytes: several turns of small messages.
const MAX_EVENTS: usize = 4096;
const MAX_BYTES: usize = 256 << 10;

impl Scratch {
    pub(super) fn keep_events(slot: &mut VecDeque<Event>, events: VecDeque<Event>) {
        if (slot.capacity()..=MAX_EVENTS).contains(&events.capacity()) {
            *slot = events;
        }
    }

    /// Keeps an empty buffer.
    pub(crate) fn keep_bytes(&mut self, bytes: Vec<u8>) {
        if (self.bytes.capacity()..=MAX_BYTES).contains(&bytes.capacity()) {
            self.bytes = bytes;
        }
    }
}
