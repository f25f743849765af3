//! The newest message of a topic: asked for by a node that comes later, and told by one that has it.

use std::{
    cmp::Reverse,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;
use ws_core::Message;

use super::{
    super::{
        NodeId,
        envelope::{Place, Publication, Wanted},
        stamp::Stamp,
    },
    Inbound,
};
use crate::hub::topic::Topic;

impl Inbound {
    /// Asks all nodes for what is to be known of a topic. The echo says that the subscription
    /// stands.
    pub(in crate::hub::backplane) fn ask_all(&self, name: &Arc<str>) {
        let wanted = Wanted {
            members: true,
            newest: self.topic(name).is_some_and(|it| it.retains()),
        };
        if wanted.newest {
            self.of_channel(name, |it| it.asked_at = Some(Instant::now()));
        }
        self.relay.ask(name, wanted);
    }

    /// A node wants to know what is retained. The one that published it tells at once; if it has
    /// no members any more, the first of the others by chance.
    pub(super) fn owe(&self, name: &str, topic: &Arc<Topic>) {
        let Some((_, stamp)) = topic.newest() else {
            return;
        };
        let now = Instant::now();
        let due = if stamp.node == self.relay.node {
            now
        } else {
            let share = RandomState::new().hash_one(()) % 1024;
            now + HOLD_BACK + HOLD_BACK * u32::try_from(share).unwrap_or(0) / 256
        };
        if self.of_channel(name, |it| it.newest_asked.replace(now)) == Some(None) {
            let answer = (due, Arc::clone(topic.name()));
            self.lock().answers.push(Reverse(answer));
            self.relay.wake();
        }
    }

    /// Tells what was asked for, and nobody has told by now.
    pub(in crate::hub::backplane) fn answer(&self) {
        while let Some((name, asked)) = self.next_answer() {
            if let Some(topic) = self.topic(&name)
                && let Some((message, stamp)) = topic.newest()
                // What is newer than the question has reached who asked, too.
                && stamp.at <= asked
            {
                self.relay.tell_newest(&name, stamp, message);
            }
        }
    }

    fn next_answer(&self) -> Option<(Arc<str>, Instant)> {
        let now = Instant::now();
        let mut state = self.lock();
        loop {
            let Reverse((due, _)) = state.answers.peek()?;
            if *due > now {
                return None;
            }
            let Reverse((_, name)) = state.answers.pop()?;
            let channel = state.channels.get_mut(&name);
            if let Some(asked) = channel.and_then(|it| it.newest_asked.take()) {
                return Some((name, asked));
            }
        }
    }

    /// Another node tells of a message that it retains.
    pub(super) fn newest(&self, name: &str, topic: &Topic, of: Publication, message: Message) {
        // Before the echo of this node's own question it is the answer to somebody else's, and may
        // be older than what had passed when this node subscribed.
        let stands = self.of_channel(name, |it| it.since.is_some()) == Some(true);
        if !topic.retains() || !stands {
            return;
        }
        let Some(at) = Instant::now().checked_sub(Duration::from_micros(of.age)) else {
            return;
        };
        let stamp = Stamp {
            node: of.node,
            stream: of.stream,
            sequence: of.sequence,
            at,
        };
        if !self.has_come(name, &stamp) {
            let is_own = stamp.node == self.relay.node;
            let asked_at = self.of_channel(name, |it| it.asked_at).flatten();
            // What this node has published since it has the topic is retained, or older.
            // And of another node's, what has passed since this one asked: the age that is told
            // says nothing of the time that the answer took.
            let is_newer = |it: &Stamp| {
                let is_before = it.node == stamp.node || asked_at.is_none_or(|at| it.at < at);
                !is_own && is_before && stamp.is_newer_than(it)
            };
            if topic.deliver_newest(message, stamp, is_newer) {
                self.relay.counters.received.add(1);
                self.of_channel(name, |it| it.told = Some(stamp));
            }
        }
        let is_told = topic.newest().is_some_and(|(_, it)| it.is_same(&stamp));
        if is_told {
            self.of_channel(name, |it| it.newest_asked = None);
        }
    }

    /// Whether a message has come already, in its place or not.
    fn has_come(&self, name: &str, stamp: &Stamp) -> bool {
        let place = (stamp.stream, stamp.sequence);
        let has_come = self.of_channel(name, |it| {
            it.streams.has_come(stamp) || it.was_told(stamp.node, place)
        });
        has_come.unwrap_or(true)
    }

    /// Whether a message, or a later one of its node, was told of before it came in its place.
    pub(super) fn was_told(&self, node: NodeId, name: &str, place: Place) -> bool {
        let place = (place.stream, place.sequence);
        self.of_channel(name, |it| it.was_told(node, place)) == Some(true)
    }
}

/// How long a node waits at least before it tells of a message of another one, and at most five
/// times as long: that one tells first, and then the others see that it has been told.
const HOLD_BACK: Duration = Duration::from_millis(25);
