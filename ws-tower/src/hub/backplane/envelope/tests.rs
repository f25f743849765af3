use bytes::Bytes;
use proptest::prelude::*;
use ws_core::CloseCode;

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
        (some_place(), address(), message()).prop_map(|(place, to, message)| Envelope::Message {
            place,
            to,
            message
        }),
        (some_place(), 3000..5000_u16, ".{0,20}").prop_map(|(place, code, reason)| {
            let close = CloseFrame::truncated(CloseCode::new(code).unwrap(), &reason);
            Envelope::Close { place, close }
        }),
        (some_place(), any::<u64>()).prop_map(|(place, version)| Envelope::Mark { place, version }),
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
            some_place(),
            any::<u64>(),
            any::<bool>(),
            prop::collection::vec(some_entry(), 0..5)
        )
            .prop_map(
                |(topic, place, version, is_last, members)| Envelope::Roster {
                    topic: topic.into(),
                    place,
                    version,
                    is_last,
                    members,
                }
            ),
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
        let ours = [b"wsb\x03".as_slice(), &[kind], &payload].concat();
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
    let expected = b"wsb\x03\x01\x01\x02\x03\x04\x05\x06\x07\x08\
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
    assert_eq!(decode(b"wsb\x03\x0b\0\0\0\0\0\0\0\x01"), None);
    assert_eq!(
        decode(b"wsb\x03\x0b\0\0\0\0\0\0\0\0"),
        Some(Refused::Broken)
    );
    assert_eq!(
        decode(b"wsb\x03\x0b\0\0\0\0\0\0\0\x01more"),
        Some(Refused::Broken)
    );
}
