//! The members of a topic that are connected to other nodes, as far as these have told.

use std::collections::HashMap;

use crate::hub::{
    backplane::{Change, NodeId, SeatId},
    presence::{Member, Presence},
};

/// The members that other nodes have. A topic without any owns nothing.
#[derive(Default)]
pub(super) struct Guests(Option<HashMap<NodeId, Party>>);

/// The members that one node has.
#[derive(Default)]
struct Party {
    version: u64,
    members: HashMap<SeatId, Member>,
}

impl Guests {
    /// A member of a node has come or gone, which makes this version of the one before; before 0
    /// there was nobody. Returns what that means for who is there; `None` if it cannot be, after
    /// what is known.
    pub(super) fn change(
        &mut self,
        node: NodeId,
        number: u16,
        previous: u64,
        version: u64,
        change: Change,
    ) -> Option<Vec<Presence>> {
        let party = self.party(node);
        let mut events = Vec::new();
        if version <= party.version {
            return Some(events);
        }
        if previous == 0 {
            events.extend(party.members.drain().map(|(_, it)| Presence::Left(it)));
        } else if previous != party.version {
            return None;
        }
        party.version = version;
        match change {
            Change::Joined(entry) => {
                let member = Member::new(entry.seat.member(number), entry.metadata);
                party.members.insert(entry.seat, member.clone());
                events.push(Presence::Joined(member));
            }
            Change::Left(seat) => {
                events.extend(party.members.remove(&seat).map(Presence::Left));
            }
        }
        Some(events)
    }

    /// These are the members of a node. Returns who has left, and who is new.
    pub(super) fn replace(
        &mut self,
        node: NodeId,
        version: u64,
        members: HashMap<SeatId, Member>,
    ) -> Vec<Presence> {
        let party = self.party(node);
        if version < party.version {
            return Vec::new();
        }
        let left = party.members.iter();
        let left = left.filter(|(seat, _)| !members.contains_key(seat));
        let joined = members.iter();
        let joined = joined.filter(|(seat, _)| !party.members.contains_key(seat));
        let events = left
            .map(|(_, it)| Presence::Left(it.clone()))
            .chain(joined.map(|(_, it)| Presence::Joined(it.clone())))
            .collect();
        *party = Party { version, members };
        events
    }

    /// A node is no more. Returns who has left with it.
    pub(super) fn forget(&mut self, node: NodeId) -> Vec<Presence> {
        let party = self.0.as_mut().and_then(|all| all.remove(&node));
        let members = party.into_iter().flat_map(|it| it.members.into_values());
        members.map(Presence::Left).collect()
    }

    /// The version of a node's members; 0 for none.
    pub(super) fn version(&self, node: NodeId) -> u64 {
        let party = self.0.as_ref().and_then(|all| all.get(&node));
        party.map_or(0, |it| it.version)
    }

    pub(super) fn len(&self) -> usize {
        self.parties().map(|it| it.members.len()).sum()
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.parties().flat_map(|it| it.members.values())
    }

    fn party(&mut self, node: NodeId) -> &mut Party {
        self.0.get_or_insert_default().entry(node).or_default()
    }

    fn parties(&self) -> impl Iterator<Item = &Party> {
        self.0.iter().flat_map(HashMap::values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::backplane::Entry;

    const NODE: NodeId = NodeId(7);

    fn seat(number: u64) -> SeatId {
        SeatId {
            number,
            segment: 0,
            slot: 0,
        }
    }

    fn member(number: u64) -> Member {
        Member::new(seat(number).member(1), None)
    }

    fn join(
        guests: &mut Guests,
        number: u64,
        previous: u64,
        version: u64,
    ) -> Option<Vec<Presence>> {
        let entry = Entry {
            seat: seat(number),
            metadata: None,
        };
        guests.change(NODE, 1, previous, version, Change::Joined(entry))
    }

    #[test]
    fn a_change_that_does_not_follow_the_last_one_is_not_made() {
        let mut guests = Guests::default();
        assert_eq!(join(&mut guests, 1, 4, 5), None);
        let joined = Some(vec![Presence::Joined(member(1))]);
        assert_eq!(join(&mut guests, 1, 0, 5), joined);
        assert_eq!(join(&mut guests, 2, 6, 7), None);
        assert_eq!((guests.len(), guests.version(NODE)), (1, 5));
        // What is known by now, from the whole roster, is no gap.
        assert_eq!(join(&mut guests, 1, 4, 5), Some(Vec::new()));
    }

    #[test]
    fn whoever_was_there_before_nobody_was_has_left() {
        let mut guests = Guests::default();
        join(&mut guests, 1, 0, 5);
        let events = [Presence::Left(member(1)), Presence::Joined(member(2))];
        assert_eq!(join(&mut guests, 2, 0, 9), Some(events.to_vec()));
    }

    #[test]
    fn a_roster_tells_of_the_difference_only_and_an_older_one_of_nothing() {
        let mut guests = Guests::default();
        join(&mut guests, 1, 0, 5);
        join(&mut guests, 2, 5, 6);
        let roster = |all: [u64; 2]| all.map(|it| (seat(it), member(it))).into();
        let events = [Presence::Left(member(1)), Presence::Joined(member(3))];
        assert_eq!(guests.replace(NODE, 8, roster([2, 3])), events);
        assert_eq!(guests.replace(NODE, 7, roster([1, 2])), []);
        assert_eq!(guests.forget(NODE).len(), 2);
        assert_eq!((guests.len(), guests.version(NODE)), (0, 0));
    }
}
