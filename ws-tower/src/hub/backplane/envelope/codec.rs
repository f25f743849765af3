//! Envelopes as bytes.
//!
//! ```text
//! "wsb" | version 3 | kind | node 8 | what the kind has, numbers in network order
//! ```
//!
//! The decoder takes nothing on trust: a broker is shared with others. It refuses what it does not
//! know, what is too short, what is too long and text that is not UTF-8, and allocates no more than
//! the payload has.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ws_core::{CloseCode, CloseFrame, Message, Utf8Bytes};

use super::{
    super::NodeId, Address, Change, Entry, Envelope, Place, Publication, Refused, Remote, SeatId,
    Wanted,
};

const MAGIC: &[u8; 3] = b"wsb";
const VERSION: u8 = 3;

/// The most that an envelope adds to a payload, in bytes.
pub(in crate::hub::backplane) const MAX_HEADER: usize = 13 + 24 + 2 + 22;

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
    pub(in crate::hub::backplane) fn encode(&self, node: NodeId) -> Bytes {
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
                place,
                version,
                is_last,
                members,
            } => {
                put_text(&mut out, topic);
                put_place(&mut out, *place);
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

    pub(in crate::hub::backplane) fn decode(mut payload: Bytes) -> Result<(NodeId, Self), Refused> {
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
            let place = mark(rest)?;
            let version = number(rest)?;
            let is_last = flag(rest)?;
            let mut members = Vec::new();
            while rest.has_remaining() {
                members.push(entry(rest)?);
            }
            Envelope::Roster {
                topic,
                place,
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
