//! The engine through its public API: streams of bytes, cut everywhere.

use std::time::Duration;

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};
use ws_core::{
    CloseCode, CloseFrame, Config, Connection, ConnectionError, Event, Message, ProtocolError,
    Role,
    frame::{FrameHeader, MAX_CONTROL_PAYLOAD, OpCode},
};
use ws_tests::{
    feed::{Input, Polling, Trace, feed, written},
    process::Stopwatch,
    random::Random,
    wire::{frame, frames},
};

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn connection(role: Role) -> Connection {
    Connection::new(role, Config::default()).with_mask_keys(|| KEY)
}

/// The key with which the peer of this role masks.
fn peer_key(role: Role) -> Option<[u8; 4]> {
    (role == Role::Server).then_some(KEY)
}

/// The key with which this role masks.
fn own_key(role: Role) -> Option<[u8; 4]> {
    (role == Role::Client).then_some(KEY)
}

fn text(text: &str) -> Event {
    Event::Message(Message::text(text))
}

mod examples_of_rfc_6455_section_5_7 {
    use super::*;

    fn events(role: Role, input: &[u8]) -> Vec<Event> {
        let trace = feed(
            &mut connection(role),
            [input],
            Input::Receive,
            Polling::AtTheEnd,
        );
        assert_eq!(trace.error, None);
        trace.events
    }

    #[test]
    fn a_single_frame_unmasked_text_message() {
        let bytes = b"\x81\x05Hello";
        assert_eq!(events(Role::Client, bytes), [text("Hello")]);
        let mut server = connection(Role::Server);
        server.send("Hello").unwrap();
        assert_eq!(written(&mut server), bytes);
    }

    #[test]
    fn a_single_frame_masked_text_message() {
        let bytes = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
        assert_eq!(events(Role::Server, bytes), [text("Hello")]);
        let mut client = connection(Role::Client);
        client.send("Hello").unwrap();
        assert_eq!(written(&mut client), bytes);
    }

    #[test]
    fn a_fragmented_unmasked_text_message() {
        let bytes = b"\x01\x03Hel\x80\x02lo";
        assert_eq!(events(Role::Client, bytes), [text("Hello")]);
        let mut server = connection(Role::Server);
        let mut message = server.start_text().unwrap();
        message.push(&mut server, "Hel").unwrap();
        message.finish(&mut server, "lo").unwrap();
        assert_eq!(written(&mut server), bytes);
    }

    #[test]
    fn an_unmasked_ping_and_its_masked_pong() {
        let mut client = connection(Role::Client);
        let trace = feed(
            &mut client,
            [&b"\x89\x05Hello"[..]],
            Input::Receive,
            Polling::AtTheEnd,
        );
        assert_eq!(trace.events, [Event::Ping("Hello".into())]);
        let pong = b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
        assert_eq!(trace.output, pong);
        assert_eq!(events(Role::Server, pong), [Event::Pong("Hello".into())]);
        let mut server = connection(Role::Server);
        server.ping(b"Hello").unwrap();
        assert_eq!(written(&mut server), b"\x89\x05Hello");
    }

    #[test]
    fn binary_messages_of_256_and_64_ki_bytes_in_a_single_unmasked_frame() {
        for (len, header) in [
            (256, &b"\x82\x7e\x01\x00"[..]),
            (65536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
        ] {
            let payload = Random::new(7).bytes(len);
            let bytes = [header, &payload].concat();
            let message = Message::binary(payload);
            assert_eq!(
                events(Role::Client, &bytes),
                [Event::Message(message.clone())]
            );
            let mut server = connection(Role::Server);
            server.send(message).unwrap();
            assert_eq!(written(&mut server), bytes);
        }
    }
}

/// What a stream amounts to, by a model that knows frames and nothing of bytes on the wire.
#[derive(Clone, Debug, Default)]
struct Model {
    /// The message under way: whether it is text, and its payload.
    message: Option<(bool, Vec<u8>)>,
    events: Vec<Event>,
    closed: bool,
}

impl Model {
    /// Takes a frame; whether it may stand here.
    fn take(&mut self, first: u8, payload: &[u8]) -> bool {
        if self.closed {
            return false;
        }
        match first & 0x0f {
            8 => {
                let close = payload.split_first_chunk().map(|(code, reason)| {
                    let code = CloseCode::new(u16::from_be_bytes(*code)).expect("a legal code");
                    CloseFrame::truncated(code, std::str::from_utf8(reason).expect("text"))
                });
                self.events.push(Event::Close(close));
                self.closed = true;
                return true;
            }
            9 => self
                .events
                .push(Event::Ping(Bytes::copy_from_slice(payload))),
            10 => self
                .events
                .push(Event::Pong(Bytes::copy_from_slice(payload))),
            0 => match &mut self.message {
                Some((_, message)) => message.extend_from_slice(payload),
                None => return false,
            },
            _ if self.message.is_some() => return false,
            opcode => self.message = Some((opcode == 1, payload.to_vec())),
        }
        if first & 0x08 != 0 {
            return true;
        }
        let (is_text, message) = self.message.as_ref().expect("set above");
        if *is_text {
            match std::str::from_utf8(message) {
                Err(error) if error.error_len().is_some() || first & 0x80 != 0 => return false,
                _ => {}
            }
        }
        if first & 0x80 != 0 {
            let (is_text, message) = self.message.take().expect("looked at above");
            self.events.push(Event::Message(if is_text {
                Message::text(String::from_utf8(message).expect("validated above"))
            } else {
                Message::binary(message)
            }));
        }
        true
    }

    /// What the connection answers: pongs, then the Close, with the code alone.
    fn output(&self, key: Option<[u8; 4]>) -> Vec<u8> {
        let answer = |event: &Event| match event {
            Event::Ping(payload) => frame(0x8a, key, payload),
            Event::Close(Some(close)) => frame(0x88, key, &close.code().as_u16().to_be_bytes()),
            Event::Close(None) => frame(0x88, key, b""),
            _ => Vec::new(),
        };
        self.events.iter().flat_map(answer).collect()
    }

    fn trace(&self, role: Role) -> Trace {
        Trace {
            events: self.events.clone(),
            error: None,
            output: self.output(own_key(role)),
        }
    }
}

/// Frames of every kind, short, so that all sequences of them can be tried.
const FRAMES: &[(u8, &[u8])] = &[
    (0x81, "é".as_bytes()),
    (0x81, b""),
    (0x82, b"\xff"),
    (0x01, b"\xe2\x82"),
    (0x02, b"b"),
    (0x00, b"\xac"),
    (0x00, b""),
    (0x80, b"\xac"),
    (0x80, b""),
    (0x89, b"p"),
    (0x8a, b""),
    (0x88, b"\x03\xe8x"),
    (0x88, b""),
];

/// Calls `visit` with every valid stream of at most so many frames.
fn all_streams(
    key: Option<[u8; 4]>,
    depth: usize,
    prefix: &[u8],
    model: &Model,
    visit: &mut impl FnMut(&[u8], &Model),
) {
    visit(prefix, model);
    for (first, payload) in FRAMES.iter().take(if depth > 0 { FRAMES.len() } else { 0 }) {
        let mut model = model.clone();
        if model.take(*first, payload) {
            let stream = [prefix, &frame(*first, key, payload)].concat();
            all_streams(key, depth - 1, &stream, &model, visit);
        }
    }
}

#[test]
fn every_valid_short_stream_means_the_same_wherever_it_is_cut() {
    for role in [Role::Server, Role::Client] {
        let mut count = 0;
        let model = Model::default();
        all_streams(peer_key(role), 4, b"", &model, &mut |stream, model| {
            count += 1;
            let expected = model.trace(role);
            for cut in 0..stream.len().max(1) {
                let (first, second) = stream.split_at(cut);
                let pieces = [first, second];
                let trace = feed(
                    &mut connection(role),
                    pieces,
                    Input::Receive,
                    Polling::AtTheEnd,
                );
                assert_eq!(trace, expected, "{stream:x?} cut at {cut}");
            }
            let bytes = stream.chunks(1);
            let trace = feed(
                &mut connection(role),
                bytes,
                Input::ReadBuf,
                Polling::Between,
            );
            assert_eq!(trace, expected, "{stream:x?} byte by byte");
        });
        assert!(count > 1000, "{count}");
    }
}

/// Frames that break a rule, for the given place in a stream and role, with their error.
fn invalid_frames(role: Role, model: &Model) -> Vec<(Vec<u8>, ProtocolError)> {
    use ProtocolError as E;
    let key = peer_key(role);
    let frame = |first, payload: &[u8]| frame(first, key, payload);
    let header = |first, len: &[u8]| {
        let mut header = vec![first];
        header.extend_from_slice(len);
        header[1] |= if key.is_some() { 0x80 } else { 0 };
        header.extend(key.iter().flatten());
        header
    };
    // A data frame that may stand here.
    let data = match model.message {
        Some(_) => 0x80,
        None => 0x82,
    };
    let mut frames = vec![
        (frame(data | 0x10, b"x"), E::ReservedBits),
        (frame(data | 0x20, b"x"), E::ReservedBits),
        (frame(data | 0x40, b"x"), E::ReservedBits),
        (frame(0xc9, b"x"), E::ReservedBits),
        (frame(0x83, b""), E::ReservedOpcode(3)),
        (frame(0x0f, b"x"), E::ReservedOpcode(15)),
        (frame(0x09, b""), E::FragmentedControlFrame),
        (frame(0x89, &[0; 126]), E::ControlFrameTooLong),
        (frame(0x88, &[3; 126]), E::ControlFrameTooLong),
        (frame(0x88, b"\x03"), E::CloseTooShort),
        (frame(0x88, b"\x03\xed"), E::BadCloseCode(1005)),
        (frame(0x88, b"\x03\xe8\xff"), E::InvalidCloseReason),
        (header(data, &[126, 0, 125]), E::NonMinimalLength),
        (
            header(data, &[127, 0, 0, 0, 0, 0, 0, 255, 255]),
            E::NonMinimalLength,
        ),
        (
            header(data, &[127, 128, 0, 0, 0, 0, 0, 0, 0]),
            E::LengthOverflow,
        ),
        (
            header(data, &[126, 3, 233]),
            E::FrameTooBig {
                size: 1001,
                max: 1000,
            },
        ),
        match role {
            Role::Server => (vec![0x89, 0], E::UnmaskedClientFrame),
            Role::Client => (vec![0x89, 0x80, 0, 0, 0, 0], E::MaskedServerFrame),
        },
    ];
    match &model.message {
        None => {
            frames.push((frame(0x80, b"x"), E::ContinuationWithoutStart));
            frames.push((frame(0x00, b""), E::ContinuationWithoutStart));
            frames.push((frame(0x81, b"abc\xff"), E::InvalidUtf8));
            frames.push((frame(0x81, b"\xe2\x82"), E::InvalidUtf8));
            // It is known before the frame is whole: half of a surrogate, and the rest missing.
            let mut cut = frame(0x01, b"\xed\xa0____");
            cut.truncate(cut.len() - 4);
            frames.push((cut, E::InvalidUtf8));
        }
        Some((is_text, _)) => {
            frames.push((frame(0x81, b"x"), E::NewMessageInFragments));
            frames.push((frame(0x02, b""), E::NewMessageInFragments));
            if *is_text {
                frames.push((frame(0x00, b"\xff"), E::InvalidUtf8));
            }
        }
    }
    frames
}

#[test]
fn an_invalid_stream_gives_the_same_error_wherever_it_is_cut_and_nothing_after_it() {
    for role in [Role::Server, Role::Client] {
        let connection = || {
            let config = Config::new().max_frame_size(1000);
            Connection::new(role, config).with_mask_keys(|| KEY)
        };
        let key = peer_key(role);
        let behind = [frame(0x81, key, b"behind"), frame(0x89, key, b"")].concat();
        all_streams(key, 2, b"", &Model::default(), &mut |prefix, model| {
            if model.closed {
                return;
            }
            for (invalid, error) in invalid_frames(role, model) {
                let stream = [prefix, &*invalid, &*behind].concat();
                let context = format!("{prefix:x?} {invalid:x?}");
                let whole = feed(
                    &mut connection(),
                    [&*stream],
                    Input::Receive,
                    Polling::AtTheEnd,
                );
                assert_eq!(whole.error, Some(error.into()), "{context}");
                assert_eq!(whole.events, model.events, "{context}");
                let pongs = model.output(own_key(role));
                assert!(whole.output.starts_with(&pongs), "{context}");
                let closes = frames(&whole.output[pongs.len()..]);
                assert_eq!(closes.len(), 1, "{context}");
                assert_eq!(closes[0].0, OpCode::Close);
                assert_eq!(closes[0].1[..2], error.close_code().as_u16().to_be_bytes());
                // Short ones are cut everywhere, the others where it may matter.
                for cut in 1..stream.len().min(60) {
                    let (first, second) = stream.split_at(cut);
                    let pieces = [first, second];
                    let mut cut = connection();
                    let trace = feed(&mut cut, pieces, Input::Receive, Polling::AtTheEnd);
                    assert_eq!(trace, whole, "{context}");
                }
                let mut cut = connection();
                let trace = feed(&mut cut, stream.chunks(1), Input::ReadBuf, Polling::Between);
                assert_eq!(trace, whole, "{context}");
                // The state absorbs.
                cut.receive(&behind);
                cut.probe();
                assert!(cut.send("no").is_err() && cut.ping(b"").is_err());
                assert!(cut.close(None).is_err());
                assert_eq!(cut.poll(), Err(error.into()));
                assert_eq!(written(&mut cut), b"");
            }
        });
    }
}

/// A message, how it is cut into fragments, and the control frames between them.
#[derive(Clone, Debug)]
struct Sent {
    is_text: bool,
    payload: Vec<u8>,
    fragments: Vec<usize>,
    controls: Vec<(bool, Vec<u8>)>,
}

fn payload() -> impl Strategy<Value = (bool, Vec<u8>)> {
    let short = vec(any::<u8>(), 0..300);
    let long =
        (30_000..100_000_usize, any::<u64>()).prop_map(|(len, seed)| Random::new(seed).bytes(len));
    let text = vec(any::<char>(), 0..200).prop_map(|text| text.into_iter().collect::<String>());
    prop_oneof![
        4 => text.prop_map(|text| (true, text.into_bytes())),
        4 => short.prop_map(|bytes| (false, bytes)),
        1 => long.prop_map(|bytes| (false, bytes)),
    ]
}

fn sent() -> impl Strategy<Value = Sent> {
    let fragments = vec(prop_oneof![0..3_usize, 0..200_usize, Just(40_000)], 0..5);
    let controls = vec(
        (any::<bool>(), vec(any::<u8>(), 0..=MAX_CONTROL_PAYLOAD)),
        0..3,
    );
    (payload(), fragments, controls).prop_map(|((is_text, payload), fragments, controls)| Sent {
        is_text,
        payload,
        fragments,
        controls,
    })
}

/// The stream of some messages, and the events that they amount to.
fn stream(messages: &[Sent], key: Option<[u8; 4]>) -> (Vec<u8>, Model) {
    let (mut stream, mut model) = (Vec::new(), Model::default());
    let mut write = |first: u8, payload: &[u8]| {
        stream.extend_from_slice(&frame(first, key, payload));
        assert!(model.take(first, payload));
    };
    for message in messages {
        let mut opcode = if message.is_text { 1 } else { 2 };
        let mut rest = &*message.payload;
        let mut controls = message.controls.iter();
        for len in &message.fragments {
            let (piece, behind) = rest.split_at((*len).min(rest.len()));
            write(opcode, piece);
            (opcode, rest) = (0, behind);
            if let Some((is_ping, payload)) = controls.next() {
                write(if *is_ping { 0x89 } else { 0x8a }, payload);
            }
        }
        write(0x80 | opcode, rest);
    }
    (stream, model)
}

/// Cuts a stream into pieces of the given lengths, over and over.
fn pieces<'a>(stream: &'a [u8], lens: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let (mut rest, mut lens) = (stream, lens.iter().cycle());
    std::iter::from_fn(move || {
        let len = (*lens.next()?).clamp(1, rest.len().max(1));
        let (piece, behind) = rest.split_at_checked(len)?;
        rest = behind;
        Some(piece)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn long_streams_mean_the_same_however_they_are_fragmented_cut_and_polled(
        messages in vec(sent(), 0..12),
        lens in vec(prop_oneof![1..4_usize, 1..3000_usize, 1..100_000_usize], 1..8),
        role in prop_oneof![Just(Role::Server), Just(Role::Client)],
    ) {
        let (stream, model) = stream(&messages, peer_key(role));
        for input in [Input::Receive, Input::ReadBuf] {
            for polling in [Polling::Between, Polling::AtTheEnd] {
                let mut connection = connection(role);
                let trace = feed(&mut connection, pieces(&stream, &lens), input, polling);
                prop_assert_eq!(trace.error, None);
                prop_assert_eq!(&trace.events, &model.events);
                // Of many pings at least the newest is answered, and none is that was not sent.
                let mut pings = model.events.iter().filter_map(|event| match event {
                    Event::Ping(payload) => Some(&**payload),
                    _ => None,
                });
                let pongs = frames(&trace.output);
                prop_assert!(pongs.iter().all(|(_, pong)| pings.any(|ping| ping == pong)));
                prop_assert_eq!(pings.next(), None);
            }
        }
    }

    #[test]
    fn whatever_is_sent_is_received(
        messages in vec(sent(), 0..12),
        lens in vec(prop_oneof![1..4_usize, 1..100_000_usize], 1..8),
        role in prop_oneof![Just(Role::Server), Just(Role::Client)],
    ) {
        let other = if role == Role::Server { Role::Client } else { Role::Server };
        let config = Config::new().outgoing_high_water(usize::MAX);
        let mut sender = Connection::new(role, config);
        let mut expected = Vec::new();
        for Sent { is_text, payload, fragments, controls } in &messages {
            for (_, ping) in controls {
                sender.ping(ping).unwrap();
                expected.push(Event::Ping(ping.clone().into()));
            }
            let message = if *is_text {
                Message::text(std::str::from_utf8(payload).unwrap())
            } else {
                Message::binary(payload.clone())
            };
            expected.push(Event::Message(message.clone()));
            if *is_text || fragments.is_empty() {
                sender.send(message).unwrap();
                continue;
            }
            let mut rest = message.into_bytes();
            let mut message = sender.start_binary().unwrap();
            for len in fragments {
                let piece = rest.split_to((*len).min(rest.len()));
                message.push(&mut sender, piece).unwrap();
            }
            message.finish(&mut sender, rest).unwrap();
        }
        let stream = written(&mut sender);
        prop_assert_eq!(sender.outgoing_size(), 0);
        let mut receiver = connection(other);
        let trace = feed(&mut receiver, pieces(&stream, &lens), Input::ReadBuf, Polling::Between);
        prop_assert_eq!(trace.events, expected);
    }

    #[test]
    fn a_length_of_any_size_is_encoded_minimally_and_judged_before_any_payload(
        payload_len in prop_oneof![
            0..200_u64,
            65_000..66_000_u64,
            (1 << 20) - 2..(1 << 20) + 2_u64,
            u64::from(u32::MAX) - 2..u64::from(u32::MAX) + 2,
            (u64::MAX >> 1) - 2..=u64::MAX >> 1,
            any::<u64>().prop_map(|len| len >> 1),
        ],
        opcode in prop_oneof![Just(OpCode::Text), Just(OpCode::Binary)],
        fin: bool,
        key: [u8; 4],
    ) {
        let header = FrameHeader { fin, rsv1: false, opcode, mask: Some(key), payload_len };
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        let len = match payload_len { 0..126 => 6, 126..65536 => 8, _ => 14 };
        prop_assert_eq!(FrameHeader::parse(&bytes), Ok(Some((header, len))));
        let mut server = connection(Role::Server);
        server.receive(&bytes);
        let max = 1 << 20;
        let too_big = ProtocolError::MessageTooBig { size: payload_len, max };
        let expected = (payload_len > max as u64).then_some(too_big.into());
        prop_assert_eq!(server.poll().err(), expected);
    }

    #[test]
    fn any_fourteen_bytes_are_a_header_or_an_error(bytes: [u8; 14]) {
        ws_tests::fuzz::header(&bytes);
        let mut lengths = bytes;
        lengths[..2].copy_from_slice(&[0x82, 0xff]);
        ws_tests::fuzz::header(&lengths);
    }
}

#[test]
fn lengths_from_2_to_the_63_on_are_refused_as_such_and_the_largest_below_by_the_limit() {
    for (len, error) in [
        (u64::MAX, ProtocolError::LengthOverflow),
        (1 << 63, ProtocolError::LengthOverflow),
        (
            u64::MAX >> 1,
            ProtocolError::MessageTooBig {
                size: u64::MAX >> 1,
                max: 1 << 20,
            },
        ),
    ] {
        let config = Config::new().max_frame_size(usize::MAX);
        let mut server = Connection::new(Role::Server, config);
        // A message is under way, so that something can be added to the length.
        server.receive(&frame(0x02, Some(KEY), b""));
        let bytes = [&[0x80, 0xff][..], &len.to_be_bytes(), &KEY].concat();
        server.receive(&bytes);
        assert_eq!(server.poll(), Err(error.into()));
    }
    // No limit at all: the sum of the lengths is still right.
    let config = Config::new()
        .max_frame_size(usize::MAX)
        .max_message_size(usize::MAX);
    let mut server = Connection::new(Role::Server, config);
    server.receive(&frame(0x02, Some(KEY), b"abc"));
    let bytes = [&[0x80, 0xff][..], &(u64::MAX >> 1).to_be_bytes(), &KEY].concat();
    server.receive(&bytes);
    server.receive(b"more");
    assert_eq!(server.poll(), Ok(None));
}

#[test]
fn limits_hold_at_n_and_fail_at_n_plus_one() {
    const N: usize = 1000;
    let outcome = |config: &Config, frames: &[(u8, usize)]| {
        let mut server = Connection::new(Role::Server, config.clone());
        for (first, len) in frames {
            server.receive(&frame(*first, Some(KEY), &vec![b'x'; *len]));
        }
        server.poll().map(|event| event.is_some())
    };
    let frame_limit = Config::new().max_frame_size(N);
    let too_big = |size| ProtocolError::FrameTooBig { size, max: N };
    assert_eq!(outcome(&frame_limit, &[(0x82, N)]), Ok(true));
    assert_eq!(
        outcome(&frame_limit, &[(0x82, N + 1)]),
        Err(too_big(1001).into())
    );
    assert_eq!(outcome(&frame_limit, &[(0x02, N), (0x80, N)]), Ok(true));
    let message_limit = Config::new().max_message_size(N);
    let too_big = |size| ProtocolError::MessageTooBig { size, max: N };
    assert_eq!(outcome(&message_limit, &[(0x81, N)]), Ok(true));
    assert_eq!(
        outcome(&message_limit, &[(0x81, N + 1)]),
        Err(too_big(1001).into())
    );
    assert_eq!(
        outcome(&message_limit, &[(0x01, N), (0x00, 0), (0x80, 0)]),
        Ok(true)
    );
    assert_eq!(
        outcome(&message_limit, &[(0x01, N), (0x80, 1)]),
        Err(too_big(1001).into())
    );
    assert_eq!(
        outcome(&message_limit, &[(0x01, 1), (0x80, N)]),
        Err(too_big(1001).into())
    );
    // Frames of control count for neither.
    let tiny = Config::new().max_frame_size(0).max_message_size(0);
    assert_eq!(outcome(&tiny, &[(0x89, 125)]), Ok(true));
    assert_eq!(outcome(&tiny, &[(0x82, 0)]), Ok(true));
    let too_long = ConnectionError::from(ProtocolError::ControlFrameTooLong);
    assert_eq!(outcome(&tiny, &[(0x89, 126)]), Err(too_long));
}

#[test]
fn a_close_reason_has_at_most_123_bytes_on_the_wire() {
    let reason = [&b"\x03\xe8"[..], &[b'x'; 123]].concat();
    let trace = feed(
        &mut connection(Role::Server),
        [&*frame(0x88, Some(KEY), &reason)],
        Input::Receive,
        Polling::AtTheEnd,
    );
    let close = CloseFrame::new(CloseCode::NORMAL, "x".repeat(123)).unwrap();
    assert_eq!(trace.events, [Event::Close(Some(close.clone()))]);
    let mut client = connection(Role::Client);
    client.close(close).unwrap();
    assert_eq!(written(&mut client), frame(0x88, Some(KEY), &reason));
}

/// What must take linear time works this long at most, in a debug build.
const LINEAR: Duration = Duration::from_secs(3);

#[test]
fn a_message_in_the_smallest_pieces_takes_linear_time() {
    let config = Config::new().max_message_size(16 << 20);
    for (len, piece, is_text) in [
        (64 << 10, 1, true),
        (8 << 20, 1 << 10, true),
        (8 << 20, 1 << 10, false),
    ] {
        let start = Stopwatch::start();
        let payload = "ü".repeat(len / 2).into_bytes();
        let mut server = Connection::new(Role::Server, config.clone());
        // Each byte its own frame is worse than its own read: both.
        let first = if is_text { 0x81 } else { 0x82 };
        for piece in frame(first, Some(KEY), &payload).chunks(piece) {
            server.receive(piece);
            assert!(server.inbox_size() == 0 || server.has_events());
        }
        let Ok(Some(Event::Message(message))) = server.poll() else {
            panic!("a message has come");
        };
        assert!(message.as_bytes() == payload);
        assert!(start.elapsed() < LINEAR, "{:?}", start.elapsed());
    }
}

#[test]
fn a_million_tiny_and_empty_fragments_are_one_message_in_linear_time() {
    let start = Stopwatch::start();
    let mut server = connection(Role::Server);
    server.receive(&frame(0x02, Some(KEY), b""));
    let fragments = [frame(0x00, Some(KEY), b"x"), frame(0x00, Some(KEY), b"")].concat();
    let thousand = fragments.repeat(500);
    for _ in 0..1000 {
        server.receive(&thousand);
    }
    server.receive(&frame(0x80, Some(KEY), b""));
    let Ok(Some(Event::Message(message))) = server.poll() else {
        panic!("a message has come");
    };
    assert_eq!(message.len(), 500_000);
    assert!(start.elapsed() < LINEAR, "{:?}", start.elapsed());
}

#[test]
fn floods_of_empty_messages_and_pings_stop_the_reading_and_lose_nothing() {
    for first in [0x81, 0x82, 0x89, 0x8a] {
        let start = Stopwatch::start();
        let mut server = connection(Role::Server);
        let high_water = server.config().inbox_high_water;
        let thousand = frame(first, Some(KEY), b"").repeat(1000);
        let (mut sent, mut taken) = (0, 0);
        while sent < 200_000 || server.has_events() {
            if server.wants_read() && sent < 200_000 {
                server.receive(&thousand);
                sent += 1000;
            } else {
                assert!(server.poll().unwrap().is_some());
                taken += 1;
            }
            assert!(server.inbox_size() <= high_water + 64);
        }
        assert_eq!(taken, sent);
        assert!(start.elapsed() < LINEAR, "{:?}", start.elapsed());
    }
}

#[test]
fn a_flood_of_pings_to_an_application_without_control_events_keeps_nothing() {
    let mut server = connection(Role::Server).without_control_events();
    let thousand = frame(0x89, Some(KEY), &[7; 125]).repeat(1000);
    for _ in 0..100 {
        server.receive(&thousand);
        assert!(server.wants_read());
        assert_eq!((server.inbox_size(), server.outgoing_size()), (0, 0));
    }
    assert_eq!(server.poll(), Ok(None));
    let pongs = written(&mut server);
    assert!(!pongs.is_empty() && pongs.len() < 1200, "{}", pongs.len());
}
