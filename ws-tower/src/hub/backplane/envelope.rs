//! What travels between nodes: one envelope for each payload of the broker.
//!
//! ```text
//! "wsb" | version 2 | kind | node 8 | what the kind has, numbers in network order
//! ```
//!
//! The decoder takes nothing on trust: a broker is shared with others. It refuses what it does not
//! know, what is too short, what is too long and text that is not UTF-8, and allocates no more than
//! the payload has.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ws_core::{CloseCode, CloseFrame, Message, Utf8Bytes};

use super::NodeId;

/// An envelope, opened.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Envelope {
    /// A message to the members of a topic.
    Message {
        place: Place,
        to: Address,
        message: Message,
    },
    /// The sockets of all members are to be closed.
    Close { place: Place, close: CloseFrame },
    /// How far the stream has come, and which version the members are.
    Mark { place: Place, version: u64 },
    /// The members have become this version, out of the one before. Before 0 there was nobody.
    Change {
        previous: u64,
        version: u64,
        change: Change,
    },
    /// Who are your members, or which is your newest message? `None` asks all nodes. To ask for
    /// nothing says on a channel of one's own that the subscription stands.
    Ask {
        node: Option<NodeId>,
        wanted: Wanted,
    },
    /// The newest message of a topic, for a node that has asked: again, or for the first time.
    Newest { of: Publication, message: Message },
    /// These are, or the next part of them.
    Roster {
        topic: Utf8Bytes,
        version: u64,
        is_last: bool,
        members: Vec<Entry>,
    },
    /// The node is alive, and may be given up when nothing more is heard for so many milliseconds.
    Beat { expiry: u32 },
    /// Mark all streams: the sender has missed something. `None` asks all nodes.
    Resync { node: Option<NodeId> },
    /// The node ends.
    Bye,
}

/// A place in the stream of one node's messages to one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Of two streams of a node, the later one has the greater number.
    pub(super) stream: u64,
    /// Counts from 1.
    pub(super) sequence: u64,
    /// Since the stream began, in microseconds.
    pub(super) age: u64,
}

/// What a node that has subscribed to a topic wants to know of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) members: bool,
    pub(super) newest: bool,
}

impl Wanted {
    pub(super) fn members() -> Self {
        Self {
            members: true,
            newest: false,
        }
    }

    pub(super) fn newest() -> Self {
        Self {
            members: false,
            newest: true,
        }
    }
}

/// Which publication a message is that is not in its place in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Publication {
    /// The node that published it.
    pub(super) node: NodeId,
    pub(super) stream: u64,
    /// Counts from 1.
    pub(super) sequence: u64,
    /// Since it passed the node that tells of it, in microseconds.
    pub(super) age: u64,
}

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Address {
    All,
    AllBut(Remote),
    One(Remote),
}

/// A member, as the other nodes name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Remote {
    pub(super) node: NodeId,
    pub(super) seat: SeatId,
}

/// A member, as its own node finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::hub) struct SeatId {
    pub(in crate::hub) number: u64,
    pub(in crate::hub) segment: u32,
    pub(in crate::hub) slot: u16,
}

/// A member with what it says of itself.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::hub) struct Entry {
    pub(in crate::hub) seat: SeatId,
    pub(in crate::hub) metadata: Option<Arc<Utf8Bytes>>,
}

#[derive(Clone, Debug, PartialEq)]
pub(in crate::hub) enum Change {
    Joined(Entry),
    Left(SeatId),
}

/// Why a payload is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Foreign,
    Version(u8),
    Broken,
}

const MAGIC: &[u8; 3] = b"wsb";
const VERSION: u8 = 2;

/// The most that an envelope adds to a payload, in bytes.
pub(super) const MAX_HEADER: usize = 13 + 24 + 2 + 22;

/// A part of the members of a topic, in bytes.
pub(super) const PART: usize = 64 << 10;

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 3;
const MARK: u8 = 4;
const JOINED: u8 = 5;
const LEFT: u8 = 6;
const ASK: u8 = 7;
const ROSTER: u8 = 8;
const BEAT: u8 = 9;
const RESYNC: u8 = 10;
const BYE: u8 = 11;
const NEWEST_TEXT: u8 = 12;
const NEWEST_BINARY: u8 = 13;

const MEMBERS: u8 = 1;
const NEWEST: u8 = 2;

impl Envelope {
    pub(super) fn encode(&self, node: NodeId) -> Bytes {
        let payload = match self {
            Self::Message { message, .. } | Self::Newest { message, .. } => message.len(),
            _ => 64,
        };
        let mut out = BytesMut::with_capacity(MAX_HEADER + payload);
        out.put_slice(MAGIC);
        out.put_u8(VERSION);
        out.put_u8(self.kind());
        out.put_u64(node.0);
        match self {
            Self::Message { place, to, message } => {
                put_place(&mut out, *place);
                match to {
                    Address::All => out.put_u8(0),
                    Address::AllBut(member) => put_remote(&mut out, 1, member),
                    Address::One(member) => put_remote(&mut out, 2, member),
                }
                out.put_slice(message.as_bytes());
            }
            Self::Close { place, close } => {
                put_place(&mut out, *place);
                out.put_u16(close.code().as_u16());
                out.put_slice(close.reason().as_bytes());
            }
            Self::Mark { place, version } => {
                put_place(&mut out, *place);
                out.put_u64(*version);
            }
            Self::Change {
                previous,
                version,
                change,
            } => {
                out.put_u64(*previous);
                out.put_u64(*version);
                match change {
                    Change::Joined(entry) => put_entry(&mut out, entry),
                    Change::Left(seat) => put_seat(&mut out, seat),
                }
            }
            Self::Ask { node, wanted } => {
                out.put_u64(node.map_or(0, |it| it.0));
                out.put_u8(u8::from(wanted.members) * MEMBERS + u8::from(wanted.newest) * NEWEST);
            }
            Self::Newest { of, message } => {
                out.put_u64(of.node.0);
                out.put_u64(of.stream);
                out.put_u64(of.sequence);
                out.put_u64(of.age);
                out.put_slice(message.as_bytes());
            }
            Self::Resync { node } => out.put_u64(node.map_or(0, |it| it.0)),
            Self::Roster {
                topic,
                version,
                is_last,
                members,
            } => {
                put_text(&mut out, topic);
                out.put_u64(*version);
                out.put_u8(u8::from(*is_last));
                for entry in members {
                    put_entry(&mut out, entry);
                }
            }
            Self::Beat { expiry } => out.put_u32(*expiry),
            Self::Bye => {}
        }
        out.freeze()
    }

    pub(super) fn decode(mut payload: Bytes) -> Result<(NodeId, Self), Refused> {
        if !payload.starts_with(MAGIC) {
            return Err(Refused::Foreign);
        }
        payload.advance(MAGIC.len());
        let version = payload.try_get_u8().map_err(|_| Refused::Broken)?;
        if version != VERSION {
            return Err(Refused::Version(version));
        }
        open(payload).ok_or(Refused::Broken)
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Message { message, .. } if message.is_text() => TEXT,
            Self::Message { .. } => BINARY,
            Self::Close { .. } => CLOSE,
            Self::Mark { .. } => MARK,
            Self::Change {
                change: Change::Joined(_),
                ..
            } => JOINED,
            Self::Change { .. } => LEFT,
            Self::Ask { .. } => ASK,
            Self::Newest { message, .. } if message.is_text() => NEWEST_TEXT,
            Self::Newest { .. } => NEWEST_BINARY,
            Self::Roster { .. } => ROSTER,
            Self::Beat { .. } => BEAT,
            Self::Resync { .. } => RESYNC,
            Self::Bye => BYE,
        }
    }
}

/// `None`: it is broken.
fn open(mut rest: Bytes) -> Option<(NodeId, Envelope)> {
    let rest = &mut rest;
    let kind = rest.try_get_u8().ok()?;
    // 0 stands for "all".
    let node = NodeId(number(rest).filter(|it| *it != 0)?);
    let envelope = match kind {
        TEXT | BINARY => {
            let place = place(rest)?;
            let to = match rest.try_get_u8().ok()? {
                0 => Address::All,
                1 => Address::AllBut(remote(rest)?),
                2 => Address::One(remote(rest)?),
                _ => return None,
            };
            let message = message(rest, kind == TEXT)?;
            Envelope::Message { place, to, message }
        }
        CLOSE => {
            let place = place(rest)?;
            let code = CloseCode::new(rest.try_get_u16().ok()?).ok()?;
            let reason = Utf8Bytes::try_from(rest.split_to(rest.len())).ok()?;
            let close = CloseFrame::new(code, reason).ok()?;
            Envelope::Close { place, close }
        }
        MARK => Envelope::Mark {
            place: mark(rest)?,
            version: number(rest)?,
        },
        JOINED | LEFT => {
            let (previous, version) = (number(rest)?, number(rest)?);
            let change = if kind == JOINED {
                Change::Joined(entry(rest)?)
            } else {
                Change::Left(seat(rest)?)
            };
            Envelope::Change {
                previous,
                version,
                change,
            }
        }
        ASK => Envelope::Ask {
            node: asked(number(rest)?),
            wanted: wanted(rest.try_get_u8().ok()?)?,
        },
        NEWEST_TEXT | NEWEST_BINARY => Envelope::Newest {
            of: publication(rest)?,
            message: message(rest, kind == NEWEST_TEXT)?,
        },
        ROSTER => {
            let topic = text(rest)?;
            let version = number(rest)?;
            let is_last = flag(rest)?;
            let mut members = Vec::new();
            while rest.has_remaining() {
                members.push(entry(rest)?);
            }
            Envelope::Roster {
                topic,
                version,
                is_last,
                members,
            }
        }
        BEAT => Envelope::Beat {
            expiry: rest.try_get_u32().ok()?,
        },
        RESYNC => Envelope::Resync {
            node: asked(number(rest)?),
        },
        BYE => Envelope::Bye,
        _ => return None,
    };
    (!rest.has_remaining()).then_some((node, envelope))
}

// What envelopes are made of.

fn put_place(out: &mut BytesMut, place: Place) {
    out.put_u64(place.stream);
    out.put_u64(place.sequence);
    out.put_u64(place.age);
}

fn put_remote(out: &mut BytesMut, tag: u8, member: &Remote) {
    out.put_u8(tag);
    out.put_u64(member.node.0);
    put_seat(out, &member.seat);
}

fn put_seat(out: &mut BytesMut, seat: &SeatId) {
    out.put_u64(seat.number);
    out.put_u32(seat.segment);
    out.put_u16(seat.slot);
}

fn put_entry(out: &mut BytesMut, entry: &Entry) {
    put_seat(out, &entry.seat);
    out.put_u8(u8::from(entry.metadata.is_some()));
    if let Some(metadata) = &entry.metadata {
        put_text(out, metadata);
    }
}

fn put_text(out: &mut BytesMut, text: &Utf8Bytes) {
    // What is longer than 4 GiB is refused before.
    out.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
    out.put_slice(text.as_bytes());
}

fn number(rest: &mut Bytes) -> Option<u64> {
    rest.try_get_u64().ok()
}

fn flag(rest: &mut Bytes) -> Option<bool> {
    match rest.try_get_u8().ok()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// All that is left.
fn message(rest: &mut Bytes, is_text: bool) -> Option<Message> {
    let payload = rest.split_to(rest.len());
    if is_text {
        Some(Message::Text(Utf8Bytes::try_from(payload).ok()?))
    } else {
        Some(Message::Binary(payload))
    }
}

fn wanted(flags: u8) -> Option<Wanted> {
    let wanted = Wanted {
        members: flags & MEMBERS > 0,
        newest: flags & NEWEST > 0,
    };
    (flags <= MEMBERS + NEWEST).then_some(wanted)
}

fn publication(rest: &mut Bytes) -> Option<Publication> {
    let of = Publication {
        node: asked(number(rest)?)?,
        stream: number(rest)?,
        sequence: number(rest)?,
        age: number(rest)?,
    };
    (of.sequence > 0).then_some(of)
}

/// 0 asks all nodes.
fn asked(node: u64) -> Option<NodeId> {
    (node != 0).then_some(NodeId(node))
}

/// The place of a message: they count from 1.
fn place(rest: &mut Bytes) -> Option<Place> {
    mark(rest).filter(|place| place.sequence > 0)
}

fn mark(rest: &mut Bytes) -> Option<Place> {
    Some(Place {
        stream: number(rest)?,
        sequence: number(rest)?,
        age: number(rest)?,
    })
}

fn remote(rest: &mut Bytes) -> Option<Remote> {
    Some(Remote {
        node: NodeId(number(rest)?),
        seat: seat(rest)?,
    })
}

fn seat(rest: &mut Bytes) -> Option<SeatId> {
    Some(SeatId {
        number: number(rest)?,
        segment: rest.try_get_u32().ok()?,
        slot: rest.try_get_u16().ok()?,
    })
}

fn entry(rest: &mut Bytes) -> Option<Entry> {
    let seat = seat(rest)?;
    let metadata = if flag(rest)? { Some(text(rest)?) } else { None };
    Some(Entry {
        seat,
        metadata: metadata.map(Arc::new),
    })
}

fn text(rest: &mut Bytes) -> Option<Utf8Bytes> {
    let len = usize::try_from(rest.try_get_u32().ok()?).ok()?;
    if len > rest.len() {
        return None;
    }
    Utf8Bytes::try_from(rest.split_to(len)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NODE: NodeId = NodeId(0x0102_0304_0506_0708);

    fn seat_id() -> impl Strategy<Value = SeatId> {
        (any::<u64>(), any::<u32>(), any::<u16>()).prop_map(|(number, segment, slot)| SeatId {
            number,
            segment,
            slot,
        })
    }

    fn some_entry() -> impl Strategy<Value = Entry> {
        (seat_id(), prop::option::of(any::<String>())).prop_map(|(seat, metadata)| Entry {
            seat,
            metadata: metadata.map(|it| Arc::new(it.into())),
        })
    }

    fn some_place() -> impl Strategy<Value = Place> {
        (any::<u64>(), 1..=u64::MAX, any::<u64>()).prop_map(|(stream, sequence, age)| Place {
            stream,
            sequence,
            age,
        })
    }

    fn message() -> impl Strategy<Value = Message> {
        prop_oneof![
            any::<String>().prop_map(Message::from),
            any::<Vec<u8>>().prop_map(Message::from),
        ]
    }

    fn address() -> impl Strategy<Value = Address> {
        let member = || {
            (any::<u64>(), seat_id()).prop_map(|(node, seat)| Remote {
                node: NodeId(node),
                seat,
            })
        };
        prop_oneof![
            Just(Address::All),
            member().prop_map(Address::AllBut),
            member().prop_map(Address::One),
        ]
    }

    fn envelope() -> impl Strategy<Value = Envelope> {
        let change = prop_oneof![
            some_entry().prop_map(Change::Joined),
            seat_id().prop_map(Change::Left)
        ];
        let node = || prop::option::of((1..=u64::MAX).prop_map(NodeId));
        prop_oneof![
            (some_place(), address(), message())
                .prop_map(|(place, to, message)| Envelope::Message { place, to, message }),
            (some_place(), 3000..5000_u16, ".{0,20}").prop_map(|(place, code, reason)| {
                let close = CloseFrame::truncated(CloseCode::new(code).unwrap(), &reason);
                Envelope::Close { place, close }
            }),
            (some_place(), any::<u64>())
                .prop_map(|(place, version)| Envelope::Mark { place, version }),
            (any::<u64>(), any::<u64>(), change).prop_map(|(previous, version, change)| {
                Envelope::Change {
                    previous,
                    version,
                    change,
                }
            }),
            (node(), any::<bool>(), any::<bool>()).prop_map(|(node, members, newest)| {
                let wanted = Wanted { members, newest };
                Envelope::Ask { node, wanted }
            }),
            (1..=u64::MAX, some_place(), message()).prop_map(|(node, place, message)| {
                let of = Publication {
                    node: NodeId(node),
                    stream: place.stream,
                    sequence: place.sequence,
                    age: place.age,
                };
                Envelope::Newest { of, message }
            }),
            node().prop_map(|node| Envelope::Resync { node }),
            any::<u32>().prop_map(|expiry| Envelope::Beat { expiry }),
            Just(Envelope::Bye),
            (
                any::<String>(),
                any::<u64>(),
                any::<bool>(),
                prop::collection::vec(some_entry(), 0..5)
            )
                .prop_map(|(topic, version, is_last, members)| Envelope::Roster {
                    topic: topic.into(),
                    version,
                    is_last,
                    members,
                }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_put_in_comes_out(envelope in envelope()) {
            let payload = envelope.encode(NODE);
            prop_assert_eq!(Envelope::decode(payload), Ok((NODE, envelope)));
        }

        #[test]
        fn no_payload_is_a_panic(payload in any::<Vec<u8>>(), kind in 0..16_u8) {
            let _ = Envelope::decode(payload.clone().into());
            let ours = [b"wsb\x02".as_slice(), &[kind], &payload].concat();
            if let Ok((node, envelope)) = Envelope::decode(ours.clone().into()) {
                prop_assert_eq!(envelope.encode(node), ours);
            }
        }

        #[test]
        fn a_payload_that_is_cut_short_or_changed_is_no_panic(
            envelope in envelope(),
            cut in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let payload = envelope.encode(NODE);
            let at = cut.index(payload.len());
            let _ = Envelope::decode(payload.slice(..at));
            let mut changed = payload.to_vec();
            changed[at] = byte;
            let _ = Envelope::decode(changed.into());
        }
    }

    #[test]
    fn a_message_is_its_payload_behind_a_header_of_known_bytes() {
        let place = Place {
            stream: 2,
            sequence: 3,
            age: 4,
        };
        let envelope = Envelope::Message {
            place,
            to: Address::All,
            message: "Hi".into(),
        };
        let expected = b"wsb\x02\x01\x01\x02\x03\x04\x05\x06\x07\x08\
            \0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x04\0Hi";
        assert_eq!(&envelope.encode(NODE)[..], expected);
    }

    #[test]
    fn what_is_foreign_newer_or_broken_is_refused_as_such() {
        let decode = |payload: &'static [u8]| Envelope::decode(Bytes::from_static(payload)).err();
        assert_eq!(decode(b""), Some(Refused::Foreign));
        assert_eq!(decode(b"{\"hello\":1}"), Some(Refused::Foreign));
        assert_eq!(decode(b"wsb"), Some(Refused::Broken));
        assert_eq!(decode(b"wsb\x01whatever"), Some(Refused::Version(1)));
        assert_eq!(decode(b"wsb\x02\x0b\0\0\0\0\0\0\0\x01"), None);
        assert_eq!(
            decode(b"wsb\x02\x0b\0\0\0\0\0\0\0\0"),
            Some(Refused::Broken)
        );
        assert_eq!(
            decode(b"wsb\x02\x0b\0\0\0\0\0\0\0\x01more"),
            Some(Refused::Broken)
        );
    }
}
