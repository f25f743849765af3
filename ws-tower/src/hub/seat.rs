//! A seat: one socket's membership of one topic.

use std::sync::Arc;

use ws_core::{Message, PreparedMessage};

use super::topic::Topic;
use crate::session::{
    feeds::{MemberId, Source},
    state::Shared,
};

/// One socket's membership of one topic: made by [`Hub::join`](super::Hub::join).
///
/// Dropping it leaves the topic. So does the end of the socket, whoever holds the seat; it does
/// not keep the socket open. After the drop nothing more is queued, and what waits in the backlog
/// is thrown away.
#[derive(Debug)]
#[must_use = "a seat that is dropped leaves its topic at once"]
pub struct Seat {
    session: Arc<Shared>,
    topic: Arc<Topic>,
    id: MemberId,
    key: usize,
}

impl Seat {
    pub(super) fn new(session: Arc<Shared>, topic: Arc<Topic>, id: MemberId, key: usize) -> Self {
        Self {
            session,
            topic,
            id,
            key,
        }
    }

    /// The id: others reach this seat by it, with [`Hub::publish_to`](super::Hub::publish_to).
    pub fn id(&self) -> MemberId {
        self.id
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        self.topic.name()
    }

    /// Whether it is still taken: the socket has not ended, and was not closed for being slow.
    pub fn is_taken(&self) -> bool {
        self.topic.contains(self.id)
    }

    /// Publishes to all members of the topic, this one included, as
    /// [`Hub::publish`](super::Hub::publish) does, without looking for the topic first.
    pub fn publish(&self, message: impl Into<Message>) -> usize {
        self.publish_prepared(&PreparedMessage::new(message))
    }

    /// Publishes to all members of the topic but this one. Returns how many were reached.
    pub fn publish_to_others(&self, message: impl Into<Message>) -> usize {
        self.publish_prepared_to_others(&PreparedMessage::new(message))
    }

    /// Publishes what is encoded already: see [`publish`](Self::publish).
    pub fn publish_prepared(&self, message: &PreparedMessage) -> usize {
        self.topic.publish(message, None)
    }

    /// Publishes what is encoded already: see [`publish_to_others`](Self::publish_to_others).
    pub fn publish_prepared_to_others(&self, message: &PreparedMessage) -> usize {
        self.topic.publish(message, Some(self.id))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.topic.leave(self.id);
        // Of the topic nobody can reach it any more.
        let left = {
            let mut state = self.session.lock();
            let left =
                state.with_feeds(|feeds| (feeds.remove(self.key, self.id), feeds.is_empty()));
            // A socket that has left its last topic owns nothing of the hub's.
            let is_last = left.as_ref().is_some_and(|(_, is_last)| *is_last);
            (left, if is_last { state.take_feeds() } else { None })
        };
        drop(left);
    }
}
