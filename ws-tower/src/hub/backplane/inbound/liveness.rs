//! Whether the other nodes are alive, and what follows when they are not, or are again.

use std::{sync::Weak, time::Duration};

use tokio::time::Instant;

use super::{
    super::{
        NodeId, RETENTION,
        envelope::Envelope,
        nodes::{End, Heard},
    },
    Inbound,
};

impl Inbound {
    /// Gives up nodes that have been silent for too long, and what is left of older ones.
    pub(in crate::hub::backplane) fn expire(&self) {
        let silent = {
            let mut state = self.lock();
            let old = state.nodes.take_old();
            if !old.is_empty() {
                for channel in state.channels.values_mut() {
                    channel.streams.forget(&old);
                    channel.asked.retain(|node, _| !old.contains(node));
                }
            }
            state.nodes.silent()
        };
        for node in silent {
            tracing::warn!(%node, "the hub has lost a node: nothing was heard of it");
            self.forget_node(node, End::Silent);
        }
    }

    /// For how long the streams of topics that nobody here has are of use: while all nodes are there
    /// until each has had the time to be missed, and otherwise until they come back.
    pub(in crate::hub::backplane) fn retention(&self) -> Duration {
        let state = self.lock();
        let own = self.relay.options.expiry();
        let longest = state.nodes.longest_expiry().map_or(own, |it| it.max(own));
        let retention = RETENTION.min(longest * 2);
        let is_steady = state
            .steady_since
            .is_some_and(|it| it.elapsed() >= retention);
        if is_steady && !state.nodes.is_one_missing() {
            retention
        } else {
            RETENTION
        }
    }

    /// This node has left: nobody tells it any more who comes and goes.
    pub(in crate::hub::backplane) fn forget_all(&self) {
        let nodes = self.lock().nodes.all();
        for node in nodes {
            self.forget_node(node, End::Said);
        }
    }

    pub(super) fn forget_node(&self, node: NodeId, end: End) {
        let topics: Vec<_> = {
            let mut state = self.lock();
            state.nodes.remove(node, end);
            self.relay.counters.nodes.set(state.nodes.len() as u64);
            // Its streams stay for a while: what it says when it comes back is compared with them.
            state.channels.values().map(|it| it.topic.clone()).collect()
        };
        for topic in topics.iter().filter_map(Weak::upgrade) {
            topic.forget_node(node);
        }
    }

    /// Says whether the node may be listened to.
    pub(super) fn hear(&self, node: NodeId, envelope: &Envelope) -> bool {
        let expiry = match envelope {
            Envelope::Beat { expiry } => Some(Duration::from_millis(u64::from(*expiry))),
            _ => None,
        };
        let (heard, is_new) = {
            let mut state = self.lock();
            let default = self.relay.options.expiry();
            let heard = state.nodes.hear(node, expiry, default);
            if heard == Heard::Back {
                state.steady_since = Some(Instant::now());
            }
            self.relay.counters.nodes.set(state.nodes.len() as u64);
            (
                heard,
                state.is_new_until.is_some_and(|it| Instant::now() < it),
            )
        };
        let asks = heard == Heard::Back || heard == Heard::New && !is_new;
        if asks && !matches!(envelope, Envelope::Bye) {
            // It may have members that we have given up, or have never heard of.
            let channel = self.relay.options.nodes_channel();
            let envelope = Envelope::Resync { node: Some(node) };
            self.relay.order(channel, envelope);
        }
        heard != Heard::OneTooMany
    }
}
