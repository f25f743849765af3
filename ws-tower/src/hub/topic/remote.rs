//! What a topic has to do with other nodes: their messages and members come here, and its own
//! members are told there.

use std::collections::HashMap;

use ws_core::{Message, PreparedMessage};

use super::{Topic, guests::Guests, wake};
use crate::{
    hub::{
        backplane::{Change, Entry, NodeId, Place, SeatId, Stamp},
        delivery::Delivery,
        policy::SlowConsumer,
        presence::{Member, Presence},
        stats::Stats,
    },
    session::feeds::Source,
};

impl Topic {
    // Messages.

    /// Whether the topic keeps its newest message.
    pub(in crate::hub) fn retains(&self) -> bool {
        self.policy.retains
    }

    /// What the topic retains, and which publication it is.
    pub(in crate::hub) fn newest(&self) -> Option<(Message, Stamp)> {
        let first = self.first.lock();
        let retained = first.retained()?;
        Some((retained.message.message().clone(), retained.stamp?))
    }

    /// Queues a message of another node for all members but one.
    pub(in crate::hub) fn deliver(
        &self,
        message: Message,
        except: Option<SeatId>,
        stamp: Option<Stamp>,
    ) {
        let message = PreparedMessage::new(message);
        let mut delivery = self.delivery(&message);
        delivery.stamp = stamp;
        let except = except.map(|it| it.member(0));
        self.pass(&mut delivery, except, |_, _| true);
        delivery.finish(&self.counters);
    }

    /// Queues what another node retains for all members, if it is newer than what is retained here.
    /// Says whether it is.
    pub(in crate::hub) fn deliver_newest(
        &self,
        message: Message,
        stamp: Stamp,
        is_newer: impl FnOnce(&Stamp) -> bool,
    ) -> bool {
        let message = PreparedMessage::new(message);
        let mut delivery = self.delivery(&message);
        delivery.stamp = Some(stamp);
        let passes = self.pass(&mut delivery, None, |_, retained| {
            retained.is_none_or(|it| it.stamp.as_ref().is_some_and(is_newer))
        });
        if passes {
            delivery.finish(&self.counters);
        }
        passes
    }

    /// Queues a message of another node for one member.
    pub(in crate::hub) fn deliver_to(&self, message: Message, member: SeatId) {
        self.publish_to(member.member(0), &PreparedMessage::new(message));
    }

    /// So many messages of another node have not come: what the policy has for that is done.
    pub(in crate::hub) fn miss(&self, missed: u64) {
        if self.policy.notice.is_some() {
            let Some(notice) = self.notice(missed) else {
                return;
            };
            let mut delivery = Delivery::new(&notice, &self.policy);
            self.each_member(|id, member| delivery.reach_with_gap(id, member, missed));
            delivery.finish_notice();
        } else if self.policy.rule == SlowConsumer::Disconnect {
            let disconnected = self.close(&self.policy.close) as u64;
            self.counters.add(&Stats {
                disconnected,
                ..Stats::default()
            });
        }
    }

    // Members.

    /// The members of this node, for the others, with how far its messages have come and the version
    /// that the members are; none without presence. `None`: there never were any of either.
    pub(in crate::hub) fn local_members(&self) -> Option<(Place, u64, Vec<Entry>)> {
        let relay = self.relay.as_ref()?;
        let _roster = self.roster();
        let (place, version) = relay.place(&self.name)?;
        let mut members = Vec::new();
        if relay.has_presence() {
            members = self.collect(|id, member| Entry {
                seat: id.into(),
                metadata: member.metadata.clone(),
            });
        }
        Some((place, version, members))
    }

    /// The version of another node's members; 0 for none.
    pub(in crate::hub) fn remote_version(&self, node: NodeId) -> u64 {
        self.roster().guests.version(node)
    }

    /// A member of another node has come or gone. Says whether that can be, after what is known.
    pub(in crate::hub) fn change_remote(
        &self,
        node: NodeId,
        number: u16,
        previous: u64,
        version: u64,
        change: Change,
    ) -> bool {
        self.update_guests(|guests| guests.change(node, number, previous, version, change))
    }

    /// These are the members of another node.
    pub(in crate::hub) fn replace_remote(
        &self,
        node: NodeId,
        number: u16,
        version: u64,
        members: Vec<Entry>,
    ) {
        let members: HashMap<_, _> = members
            .into_iter()
            .map(|it| (it.seat, Member::new(it.seat.member(number), it.metadata)))
            .collect();
        self.update_guests(|guests| Some(guests.replace(node, version, members)));
    }

    /// Another node is no more, and so are its members.
    pub(in crate::hub) fn forget_node(&self, node: NodeId) {
        self.update_guests(|guests| Some(guests.forget(node)));
    }

    /// Changes who is there on other nodes, and tells the watchers.
    fn update_guests(&self, update: impl FnOnce(&mut Guests) -> Option<Vec<Presence>>) -> bool {
        let wakers = {
            let mut roster = self.roster();
            let Some(events) = update(&mut roster.guests) else {
                return false;
            };
            roster.tell(&events)
        };
        wake(wakers);
        true
    }

    /// Tells other nodes of a change, after which nobody may be left, while the roster is held.
    pub(super) fn share(&self, is_last: bool, change: impl FnOnce() -> Change) {
        if let Some(relay) = &self.relay
            && relay.has_presence()
        {
            relay.change(&self.name, change(), is_last);
        }
    }

    /// To be called after [`share`](Self::share), outside the lock.
    pub(super) fn wake_relay(&self) {
        if let Some(relay) = &self.relay
            && relay.has_presence()
        {
            relay.wake();
        }
    }
}
