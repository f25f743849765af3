//! Who is there on other nodes: asked for, told in parts, and put together again.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    super::{
        NodeId,
        envelope::{Entry, Envelope, PART, Wanted},
    },
    Asked, Inbound, State,
};
use crate::hub::topic::Topic;

impl Inbound {
    /// Asks a node for its members of at least this version, if it has not just been asked.
    pub(super) fn ask(&self, topic: &str, node: NodeId, version: u64) {
        let now = Instant::now();
        {
            let mut state = self.lock();
            let Some(channel) = state.channels.get_mut(topic) else {
                return;
            };
            if let Some(asked) = channel.asked.get_mut(&node)
                && now.duration_since(asked.at) < ASK_AGAIN
            {
                asked.wanted = asked.wanted.max(version);
                return;
            }
            let asked = Asked {
                at: now,
                wanted: version,
            };
            channel.asked.insert(node, asked);
        }
        let channel = self.relay.options.topic_channel(topic);
        let envelope = Envelope::Ask {
            node: Some(node),
            wanted: Wanted::members(),
        };
        self.relay.order(channel, envelope);
    }

    /// Tells another node how far the stream has come and who is here, in parts that any broker
    /// takes.
    pub(super) fn tell_members(&self, node: NodeId, topic: &Topic) {
        let Some((place, version, members)) = topic.local_members() else {
            return;
        };
        let channel = self.relay.options.node_channel(node);
        let name = &**topic.name();
        let mut parts: Vec<Vec<Entry>> = vec![Vec::new()];
        let mut size = 0;
        for entry in members {
            size += 32 + entry.metadata.as_ref().map_or(0, |it| it.len());
            if size > PART && parts.last().is_some_and(|it| !it.is_empty()) {
                parts.push(Vec::new());
                size = 0;
            }
            parts.last_mut().unwrap_or(&mut Vec::new()).push(entry);
        }
        let last = parts.len() - 1;
        for (part, members) in parts.into_iter().enumerate() {
            let envelope = Envelope::Roster {
                topic: name.into(),
                place,
                version,
                is_last: part == last,
                members,
            };
            self.relay.order(channel.clone(), envelope);
        }
    }

    pub(super) fn roster(
        &self,
        node: NodeId,
        name: &str,
        version: u64,
        is_last: bool,
        members: Vec<Entry>,
    ) {
        let Some(topic) = self.topic(name).filter(|_| self.relay.has_presence()) else {
            return;
        };
        if version == 0 {
            // Nobody was ever there.
            return;
        }
        let part = |state: &mut State| state.nodes.part(node, name, version, is_last, members);
        let Some(members) = part(&mut self.lock()) else {
            return;
        };
        let number = self.relay.number_of(node);
        topic.replace_remote(node, number, version, members);
        let asked = self.of_channel(name, |it| it.asked.remove(&node));
        if let Some(Some(asked)) = asked
            && asked.wanted > version
        {
            // Once: what it says of itself need not be true.
            self.ask(name, node, 0);
        }
    }
}

/// How long a node has for its answer, until it is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
