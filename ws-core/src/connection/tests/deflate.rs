//! Compression on a connection, in bytes (RFC 7692).

use bytes::Buf;
use http::{HeaderMap, header::SEC_WEBSOCKET_EXTENSIONS};

use super::super::*;
use crate::{
    Deflate, ProtocolError,
    deflate::{Pool, PoolConfig, Takeover, WindowBits},
    handshake::extensions,
};

/// RFC 7692 §7.2.3.1: "Hello".
const HELLO: &[u8] = &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];

/// RFC 7692 §7.2.3.2: "Hello" again, out of the window.
const HELLO_AGAIN: &[u8] = &[0xf2, 0x00, 0x11, 0x00, 0x00];

/// RFC 7692 §7.2.3.4: "Hello" in a final block.
const HELLO_FINAL: &[u8] = &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The first byte and the payload.
type Frame<'payload> = (u8, &'payload [u8]);

const ROLES: [Role; 2] = [Role::Server, Role::Client];

/// What is agreed on, for a server that allows everything.
const TAKEOVER: &str = "permessage-deflate";
const NO_TAKEOVER: &str =
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

fn deflate() -> Deflate {
    Deflate::new()
        .peer_takeover(Takeover::Allowed)
        .threshold(0)
        .pool(Pool::default())
}

fn config() -> Config {
    Config::new().deflate(deflate())
}

/// One end of a connection whose client has made this offer.
fn connection(role: Role, offer: &str, config: Config) -> Connection {
    let mut headers = HeaderMap::new();
    headers.insert(SEC_WEBSOCKET_EXTENSIONS, offer.parse().unwrap());
    let offers = extensions::parse(&headers).unwrap();
    let agreed = Extensions::negotiate(&offers, &config).unwrap();
    assert!(agreed.deflate().is_some());
    Connection::new(role, config)
        .with_extensions(&agreed)
        .with_mask_keys(|| KEY)
}

fn other(role: Role) -> Role {
    match role {
        Role::Client => Role::Server,
        Role::Server => Role::Client,
    }
}

/// A frame as an end with this role sends it.
fn frame(sender: Role, first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = if sender == Role::Client { 0x80 } else { 0 };
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(mask | u8::try_from(len).unwrap()),
        len @ 126..=0xffff => {
            frame.push(mask | 0x7e);
            frame.extend_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
        }
        len => {
            frame.push(mask | 0x7f);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    if sender == Role::Client {
        frame.extend_from_slice(&KEY);
        frame.extend(payload.iter().zip(KEY.iter().cycle()).map(|(b, k)| b ^ k));
    } else {
        frame.extend_from_slice(payload);
    }
    frame
}

/// Everything that comes out of a stream of frames, and the error at its end.
fn received(
    connection: &mut Connection,
    frames: &[Frame<'_>],
    cut: usize,
) -> (Vec<Event>, Option<ConnectionError>) {
    let sender = other(connection.role());
    let bytes: Vec<u8> = frames
        .iter()
        .flat_map(|(first, payload)| frame(sender, *first, payload))
        .collect();
    let mut events = Vec::new();
    for piece in bytes.chunks(cut) {
        connection.receive(piece);
    }
    loop {
        match connection.poll() {
            Ok(Some(event)) => events.push(event),
            Ok(None) => return (events, None),
            Err(error) => return (events, Some(error)),
        }
    }
}

/// The same, for both roles, whole and byte by byte.
fn each(
    offer: &str,
    config: &Config,
    frames: &[Frame<'_>],
) -> (Vec<Event>, Option<ConnectionError>) {
    let mut results = Vec::new();
    for role in ROLES {
        for cut in [usize::MAX, 1, 3] {
            let mut connection = connection(role, offer, config.clone());
            results.push(received(&mut connection, frames, cut));
        }
    }
    for result in &results {
        assert_eq!(*result, results[0]);
    }
    results.swap_remove(0)
}

fn messages(offer: &str, frames: &[Frame<'_>]) -> Vec<Event> {
    let (events, error) = each(offer, &config(), frames);
    assert_eq!(error, None);
    events
}

fn failure(config: &Config, frames: &[Frame<'_>]) -> ProtocolError {
    match each(TAKEOVER, config, frames) {
        (_, Some(ConnectionError::Protocol(error))) => error,
        other => panic!("{other:?}"),
    }
}

fn text(text: &str) -> Event {
    Event::Message(Message::text(text))
}

fn binary(data: &[u8]) -> Event {
    Event::Message(data.into())
}

fn written(connection: &mut Connection) -> Vec<u8> {
    let mut written = Vec::new();
    while connection.wants_write() {
        let mut transmit = connection.transmit();
        let len = transmit.chunk().len();
        written.extend_from_slice(transmit.chunk());
        transmit.advance(len);
    }
    written
}

/// Blocks without compression: a little larger than what they hold.
fn stored(message: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    for block in message.chunks(0xffff) {
        let len = u16::try_from(block.len()).unwrap();
        payload.push(0x00);
        payload.extend_from_slice(&len.to_le_bytes());
        payload.extend_from_slice(&(!len).to_le_bytes());
        payload.extend_from_slice(block);
    }
    payload.push(0x00);
    payload
}

/// A message as another end would send it, compressed.
fn compressed(message: &[u8]) -> Vec<u8> {
    let mut server = connection(Role::Server, NO_TAKEOVER, config());
    let message = Message::binary(message.to_vec());
    server.send_with(&message, Compress::Always).unwrap();
    let frame = written(&mut server);
    let header_len = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    frame[header_len..].to_vec()
}

// RFC 7692 §7.2.3: the examples.

#[test]
fn the_examples_of_the_rfc_are_read_in_both_roles_however_they_are_cut() {
    let stored = b"\x00\x05\x00\xfa\xffHello\x00";
    let two_blocks = b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00";
    let cases: &[(&[Frame<'_>], &[Event])] = &[
        (&[(0xc1, HELLO)], &[text("Hello")]),
        (
            &[(0x41, &HELLO[..3]), (0x80, &HELLO[3..])],
            &[text("Hello")],
        ),
        (
            &[(0xc1, HELLO), (0xc1, HELLO)],
            &[text("Hello"), text("Hello")],
        ),
        (&[(0xc1, stored)], &[text("Hello")]),
        (&[(0xc1, HELLO_FINAL)], &[text("Hello")]),
        (&[(0xc1, two_blocks)], &[text("Hello")]),
        (&[(0xc1, &[0x00])], &[text("")]),
        (&[(0xc2, &[0x00])], &[binary(b"")]),
    ];
    for (frames, events) in cases {
        for offer in [TAKEOVER, NO_TAKEOVER] {
            assert_eq!(messages(offer, frames), *events, "{frames:?}");
        }
    }
    let again = [(0xc1, HELLO), (0xc1, HELLO_AGAIN)];
    assert_eq!(messages(TAKEOVER, &again), [text("Hello"), text("Hello")]);
}

#[test]
fn the_examples_of_the_rfc_are_written() {
    for role in ROLES {
        let mut sender = connection(role, TAKEOVER, config());
        for _ in 0..2 {
            let hello = Message::text("Hello");
            sender.send_with(&hello, Compress::Always).unwrap();
        }
        let output = written(&mut sender);
        // The second refers to the first, in one of the ways there are.
        assert!(output.starts_with(&frame(role, 0xc1, HELLO)));
        assert!(output.len() <= 2 * frame(role, 0xc1, HELLO).len());

        let mut sender = connection(role, NO_TAKEOVER, config());
        for _ in 0..2 {
            sender
                .send_with(&Message::text("Hello"), Compress::Always)
                .unwrap();
        }
        assert_eq!(written(&mut sender), frame(role, 0xc1, HELLO).repeat(2));
        sender
            .send_with(&Message::text(""), Compress::Always)
            .unwrap();
        assert_eq!(written(&mut sender), frame(role, 0xc1, &[0]));
    }
}

#[test]
fn a_message_out_of_a_window_that_is_not_kept_is_not_read() {
    for role in ROLES {
        let mut connection = connection(role, NO_TAKEOVER, config());
        let frames = [(0xc1, HELLO), (0xc1, HELLO_AGAIN)];
        let (events, error) = received(&mut connection, &frames, usize::MAX);
        assert_eq!(events, [text("Hello")]);
        let error = error.unwrap();
        assert_eq!(
            error,
            ConnectionError::Protocol(ProtocolError::InvalidDeflate)
        );
        assert_eq!(
            connection.close_sent().unwrap().code(),
            Some(CloseCode::INVALID_PAYLOAD)
        );
    }
}

// RFC 7692 §6: the bit.

#[test]
fn the_bit_without_agreement_is_1002_and_so_it_is_anywhere_but_on_a_first_frame() {
    for role in ROLES {
        let mut connection = Connection::new(role, config()).with_mask_keys(|| KEY);
        let (events, error) = received(&mut connection, &[(0xc1, HELLO)], 1);
        assert_eq!(events, []);
        let error = error.unwrap();
        assert_eq!(
            error,
            ConnectionError::Protocol(ProtocolError::ReservedBits)
        );
        assert_eq!(
            connection.close_sent().unwrap().code(),
            Some(CloseCode::PROTOCOL_ERROR)
        );
    }
    let cases: &[&[Frame<'_>]] = &[
        // On continuations, of messages with and without compression.
        &[(0x41, &HELLO[..3]), (0xc0, &HELLO[3..])],
        &[(0x41, &HELLO[..3]), (0x40, &HELLO[3..])],
        &[(0x01, b"Hel"), (0xc0, b"lo")],
        &[(0xc0, HELLO)],
        // On control frames, between messages and amid one.
        &[(0xc8, b"")],
        &[(0xc9, b"")],
        &[(0xca, b"")],
        &[(0x41, &HELLO[..3]), (0xc9, b"")],
        // The other two bits.
        &[(0xe1, HELLO)],
        &[(0xd1, HELLO)],
        &[(0xa1, HELLO)],
    ];
    for frames in cases {
        let error = failure(&config(), frames);
        assert_eq!(error, ProtocolError::ReservedBits, "{frames:?}");
        assert_eq!(error.close_code(), CloseCode::PROTOCOL_ERROR);
    }
}

#[test]
fn a_compressed_message_amid_another_is_refused_as_any_is() {
    for first in [0x41, 0x01] {
        let error = failure(&config(), &[(first, b""), (0xc1, HELLO)]);
        assert_eq!(error, ProtocolError::NewMessageInFragments);
    }
}

// Fragments.

#[test]
fn compressed_fragments_go_on_behind_control_frames_and_may_be_empty() {
    for split in 0..=HELLO.len() {
        let (first, rest) = HELLO.split_at(split);
        let frames: &[Frame<'_>] = &[
            (0x41, b""),
            (0x89, b"ping"),
            (0x00, first),
            (0x00, b""),
            (0x8a, b"pong"),
            (0x00, rest),
            (0x80, b""),
            (0x81, b"plain"),
            (0xc2, HELLO),
        ];
        let events = [
            Event::Ping(Bytes::from_static(b"ping")),
            Event::Pong(Bytes::from_static(b"pong")),
            text("Hello"),
            text("plain"),
            binary(b"Hello"),
        ];
        for offer in [TAKEOVER, NO_TAKEOVER] {
            assert_eq!(messages(offer, frames), events, "{split}");
        }
    }
}

#[test]
fn a_message_of_no_octets_is_empty_whole_and_in_fragments() {
    let frames: &[Frame<'_>] = &[(0xc1, b""), (0x41, b""), (0x00, b""), (0x80, b"")];
    for offer in [TAKEOVER, NO_TAKEOVER] {
        assert_eq!(messages(offer, frames), [text(""), text("")]);
        let again: &[Frame<'_>] = &[(0xc1, b""), (0xc1, HELLO), (0x41, b""), (0x80, HELLO)];
        assert_eq!(
            messages(offer, again),
            [text(""), text("Hello"), text("Hello")]
        );
    }
}

#[test]
fn plain_messages_between_compressed_ones_leave_the_window_as_it_was() {
    let frames: &[Frame<'_>] = &[
        (0xc1, HELLO),
        (0x81, b"something else"),
        (0x01, b"in "),
        (0x80, b"two"),
        (0xc1, HELLO_AGAIN),
    ];
    let events = ["Hello", "something else", "in two", "Hello"].map(text);
    assert_eq!(messages(TAKEOVER, frames), events);
}

#[test]
fn final_blocks_are_read_with_and_without_takeover() {
    for offer in [TAKEOVER, NO_TAKEOVER] {
        let frames: &[Frame<'_>] = &[(0xc1, HELLO_FINAL), (0xc1, HELLO_FINAL), (0xc1, HELLO)];
        assert_eq!(messages(offer, frames), ["Hello"; 3].map(text));
        // The octet behind the final block may be missing, and the cut may be anywhere.
        let bare = &HELLO_FINAL[..HELLO_FINAL.len() - 1];
        let frames: &[Frame<'_>] = &[(0x41, bare), (0x80, b""), (0xc1, HELLO)];
        assert_eq!(messages(offer, frames), ["Hello"; 2].map(text));
    }
    // The window goes on over it.
    let frames: &[Frame<'_>] = &[(0xc1, HELLO_FINAL), (0xc1, HELLO_AGAIN)];
    assert_eq!(messages(TAKEOVER, frames), ["Hello"; 2].map(text));
    // A block behind it belongs to the message, and may refer to what was before it.
    let bare = &HELLO_FINAL[..HELLO_FINAL.len() - 1];
    let both = [bare, HELLO_AGAIN].concat();
    for offer in [TAKEOVER, NO_TAKEOVER] {
        assert_eq!(messages(offer, &[(0xc1, &both)]), [text("HelloHello")]);
    }
}

#[test]
fn a_flood_of_final_blocks_is_1002() {
    let flood = [0x03, 0x00].repeat(5000);
    let error = failure(&config(), &[(0xc1, &flood)]);
    assert_eq!(error, ProtocolError::TooManyFinalBlocks);
    assert_eq!(error.close_code(), CloseCode::PROTOCOL_ERROR);
}

// Limits.

#[test]
fn a_message_of_the_limit_is_taken_and_one_byte_more_is_1009() {
    const LIMIT: usize = 5000;
    let config = config().max_message_size(LIMIT);
    let exact = vec![b'a'; LIMIT];
    let more = vec![b'a'; LIMIT + 1];
    for encode in [compressed, stored] {
        let payload = encode(&exact);
        let halves = payload.split_at(payload.len() / 2);
        for frames in [
            &[(0xc2, &payload[..])][..],
            &[(0x42, halves.0), (0x00, b""), (0x80, halves.1)],
        ] {
            let (events, error) = each(TAKEOVER, &config, frames);
            assert_eq!((events, error), (vec![binary(&exact)], None));
        }
        let payload = encode(&more);
        let halves = payload.split_at(payload.len() / 2);
        for frames in [
            &[(0xc2, &payload[..])][..],
            &[(0xc1, &payload[..])],
            &[(0x42, halves.0), (0x00, b""), (0x80, halves.1)],
        ] {
            let error = failure(&config, frames);
            let (size, max) = (LIMIT as u64 + 1, LIMIT);
            assert_eq!(error, ProtocolError::MessageTooBig { size, max });
            assert_eq!(error.close_code(), CloseCode::MESSAGE_TOO_BIG);
        }
    }
}

#[test]
fn a_limit_of_nothing_takes_empty_messages() {
    let config = config().max_message_size(0);
    let (events, error) = each(TAKEOVER, &config, &[(0xc1, &[0]), (0xc1, b"")]);
    assert_eq!((events, error), (vec![text(""), text("")], None));
    let error = failure(&config, &[(0xc1, HELLO)]);
    assert_eq!(error, ProtocolError::MessageTooBig { size: 1, max: 0 });
}

#[test]
fn the_limit_on_messages_is_for_what_comes_out_and_that_on_frames_for_what_comes_in() {
    const LIMIT: usize = 300;
    let message = [b'x'; LIMIT];
    // Larger than the limit as it travels: blocks without compression, and empty ones.
    let mut payload = [0x00, 0x00, 0x00, 0xff, 0xff].repeat(100);
    payload.extend_from_slice(&stored(&message));
    assert!(payload.len() > 2 * LIMIT);
    let whole: &[Frame<'_>] = &[(0xc2, &payload)];
    let open = config().max_message_size(LIMIT);
    assert_eq!(each(TAKEOVER, &open, whole), (vec![binary(&message)], None));

    let size = payload.len();
    let exact = open.clone().max_frame_size(size);
    assert_eq!(
        each(TAKEOVER, &exact, whole),
        (vec![binary(&message)], None)
    );
    let max = size - 1;
    let below = open.max_frame_size(max);
    let error = failure(&below, whole);
    assert_eq!(
        error,
        ProtocolError::FrameTooBig {
            size: size as u64,
            max
        }
    );
    assert_eq!(error.close_code(), CloseCode::MESSAGE_TOO_BIG);
    let (first, rest) = payload.split_at(100);
    let (events, error) = each(TAKEOVER, &below, &[(0x42, first), (0x80, rest)]);
    assert_eq!((events, error), (vec![binary(&message)], None));
    // It is found on the header.
    for role in ROLES {
        let mut connection = connection(role, TAKEOVER, below.clone());
        let header = frame(other(role), 0xc2, &payload);
        connection.receive(&header[..8]);
        assert!(connection.poll().is_err());
    }
}

// What is no message.

#[test]
fn what_is_not_deflate_is_1007() {
    let cases: &[&[Frame<'_>]] = &[
        // The reserved type of block; a length that does not match; a cut; a distance too far.
        &[(0xc2, &[0x06])],
        &[(0xc2, b"\x00\x05\x00\xfa\xfeHello\x00")],
        &[(0xc2, &HELLO[..4])],
        &[(0x42, &HELLO[..2]), (0x80, &HELLO[2..4])],
        &[(0xc2, HELLO_AGAIN)],
        &[(0xc1, b"Hello, this is no compressed message")],
        &[(0xc1, &[0xff; 20])],
        // The tail that ought to have been removed.
        &[(0xc2, &[0x00, 0x00, 0x00, 0xff, 0xff])],
    ];
    for (number, frames) in cases.iter().enumerate() {
        let error = failure(&config(), frames);
        assert_eq!(error, ProtocolError::InvalidDeflate, "{number}");
        assert_eq!(error.close_code(), CloseCode::INVALID_PAYLOAD);
    }
}

#[test]
fn text_that_is_none_when_inflated_is_1007() {
    let cut = "grün".as_bytes()[..3].to_vec();
    for bad in [&b"\xff"[..], b"ok \xed\xa0\x80", &cut] {
        for payload in [compressed(bad), stored(bad)] {
            for frames in [
                &[(0xc1, &payload[..])][..],
                &[(0x41, &payload[..2]), (0x80, &payload[2..])],
            ] {
                let error = failure(&config(), frames);
                assert_eq!(error, ProtocolError::InvalidUtf8);
            }
            assert_eq!(messages(TAKEOVER, &[(0xc2, &payload)]), [binary(bad)]);
        }
    }
    // At once, not at the end of the message.
    for role in ROLES {
        let mut connection = connection(role, TAKEOVER, config());
        let payload = stored(b"\xff and so on");
        connection.receive(&frame(other(role), 0x41, &payload[..8]));
        assert_eq!(
            connection.poll(),
            Err(ConnectionError::Protocol(ProtocolError::InvalidUtf8))
        );
    }
    // A character may be cut by frames.
    let green = stored("grün".as_bytes());
    for split in 0..=green.len() {
        let (first, rest) = green.split_at(split);
        let frames = [(0x41, first), (0x80, rest)];
        assert_eq!(messages(TAKEOVER, &frames), [text("grün")]);
    }
}

#[test]
fn messages_before_an_error_in_the_same_read_are_delivered() {
    let frames: &[Frame<'_>] = &[(0xc1, HELLO), (0xc1, HELLO), (0xc1, &[0x06])];
    let (events, error) = each(TAKEOVER, &config(), frames);
    assert_eq!(events, ["Hello"; 2].map(text));
    assert!(error.is_some());
}

// Sending.

#[test]
fn a_message_is_compressed_from_the_threshold_on_if_it_shrinks_and_as_it_is_told() {
    let settings = deflate().threshold(100);
    for role in ROLES {
        let mut sender = connection(role, TAKEOVER, Config::new().deflate(settings.clone()));
        let mut first = |message: &Message, compress| {
            sender.send_with(message, compress).unwrap();
            written(&mut sender)[0]
        };
        let long = Message::binary(vec![7; 100]);
        let short = Message::binary(vec![7; 99]);
        let noise = Message::binary((0..=255).collect::<Vec<u8>>());
        assert_eq!(first(&long, Compress::Auto), 0xc2);
        assert_eq!(first(&short, Compress::Auto), 0x82);
        assert_eq!(first(&noise, Compress::Auto), 0x82);
        assert_eq!(first(&long, Compress::Never), 0x82);
        assert_eq!(first(&short, Compress::Always), 0xc2);
        assert_eq!(first(&noise, Compress::Always), 0xc2);
    }
}

#[test]
fn a_message_in_fragments_has_the_bit_on_its_first_frame_only() {
    for (role, offer) in ROLES
        .into_iter()
        .flat_map(|role| [TAKEOVER, NO_TAKEOVER].map(|offer| (role, offer)))
    {
        let mut sender = connection(role, offer, config());
        let mut receiver = connection(other(role), offer, config());
        for round in 0..3 {
            let mut message = sender.start_binary().unwrap().compress(Compress::Always);
            let mut whole = Vec::new();
            let mut firsts = Vec::new();
            let mut bytes = Vec::new();
            for len in [0, 1, 0, 300] {
                let piece = vec![b'a'; len];
                whole.extend_from_slice(&piece);
                message.push(&mut sender, piece).unwrap();
                if round == 1 {
                    // Amid a message, the compressor may go.
                    sender.compression.as_mut().unwrap().tick();
                }
                let output = written(&mut sender);
                firsts.push(output[0]);
                bytes.extend(output);
            }
            message.finish(&mut sender, Bytes::new()).unwrap();
            let output = written(&mut sender);
            firsts.push(output[0]);
            bytes.extend(output);
            assert_eq!(firsts, [0x42, 0x00, 0x00, 0x00, 0x80]);
            receiver.receive(&bytes);
            assert_eq!(receiver.poll(), Ok(Some(binary(&whole))));
        }
    }
}

#[test]
fn a_message_in_fragments_is_compressed_by_the_size_of_the_first() {
    let settings = deflate().threshold(100);
    for (len, compress, first) in [
        (99, Compress::Auto, 0x02),
        (100, Compress::Auto, 0x42),
        (100, Compress::Never, 0x02),
        (0, Compress::Always, 0x42),
    ] {
        let mut sender = connection(
            Role::Server,
            TAKEOVER,
            Config::new().deflate(settings.clone()),
        );
        let mut message = sender.start_binary().unwrap().compress(compress);
        message.push(&mut sender, vec![7; len]).unwrap();
        message.finish(&mut sender, vec![7; 500]).unwrap();
        assert_eq!(written(&mut sender)[0], first, "{len} {compress:?}");
    }
}

#[test]
fn a_client_that_is_held_to_256_bytes_sends_messages_as_they_are() {
    // RFC 7692 §7.1.2.2, from the answer of a server.
    let mut answer = HeaderMap::new();
    let value = "permessage-deflate; client_max_window_bits=8";
    answer.insert(SEC_WEBSOCKET_EXTENSIONS, value.parse().unwrap());
    let config = config();
    let offered = extensions::Offered::new(&config);
    let answered = extensions::parse(&answer).unwrap();
    let agreed = Extensions::confirm(&offered, &answered).unwrap();
    let mut client = Connection::new(Role::Client, config)
        .with_extensions(&agreed)
        .with_mask_keys(|| KEY);
    assert_eq!(client.deflate(), None);
    let message = Message::binary(vec![7; 1000]);
    client.send(message.clone()).unwrap();
    client.send_with(&message, Compress::Always).unwrap();
    client
        .send_prepared(&PreparedMessage::new(message.clone()))
        .unwrap();
    let mut fragments = client.start_binary().unwrap().compress(Compress::Always);
    fragments.push(&mut client, vec![7; 500]).unwrap();
    fragments.finish(&mut client, vec![7; 500]).unwrap();
    let plain = frame(Role::Client, 0x82, &[7; 1000]).repeat(3);
    let halves = [
        frame(Role::Client, 0x02, &[7; 500]),
        frame(Role::Client, 0x80, &[7; 500]),
    ];
    assert_eq!(written(&mut client), [plain, halves.concat()].concat());
    // And it reads what the server compresses.
    client.receive(&frame(Role::Server, 0xc1, HELLO));
    assert_eq!(client.poll(), Ok(Some(text("Hello"))));
}

// The pool.

fn kept(pool: &Pool) -> usize {
    pool.statistics().kept_compressors
}

#[test]
fn a_busy_connection_keeps_a_compressor_until_a_quiet_tick_or_its_end() {
    let message = Message::binary(vec![7; 1000]);
    let start = Instant::now();
    let ends: [fn(&mut Connection); 7] = [
        |connection| connection.close(None).unwrap(),
        |connection| connection.receive(&[0xff]),
        |connection| connection.receive(&frame(Role::Client, 0x88, b"")),
        Connection::receive_eof,
        |connection| {
            // A prepared message takes its place.
            let prepared = PreparedMessage::new(vec![7; 500]);
            connection.send_prepared(&prepared).unwrap();
        },
        |connection| {
            let now = connection.poll_timeout(Instant::now()).unwrap();
            connection.handle_timeout(now);
            let now = connection.poll_timeout(now).unwrap();
            connection.handle_timeout(now);
        },
        |connection| *connection = Connection::new(Role::Server, Config::default()),
    ];
    for (number, end) in ends.into_iter().enumerate() {
        let pool = Pool::default();
        let config = Config::new().deflate(deflate().pool(pool.clone()));
        let mut server = connection(Role::Server, TAKEOVER, config);
        server.poll_timeout(start);
        for _ in 0..20 {
            server.send(message.clone()).unwrap();
            written(&mut server);
        }
        assert_eq!(kept(&pool), 1);
        end(&mut server);
        while let Ok(Some(_)) = server.poll() {}
        assert_eq!(kept(&pool), 0, "{number}");
        assert!(pool.statistics().compressors.spare > 0);
    }
}

#[test]
fn without_keepalive_a_quiet_connection_gives_its_compressor_back_and_wants_no_clock_then() {
    let pool = Pool::default();
    let config = Config::new()
        .keepalive_interval(None)
        .deflate(deflate().pool(pool.clone()));
    let mut server = connection(Role::Server, TAKEOVER, config);
    let mut now = Instant::now();
    for _ in 0..3 {
        assert!(!server.wants_clock());
        assert_eq!(server.poll_timeout(now), None);
        server.send(vec![7; 1000]).unwrap();
        written(&mut server);
        assert!(server.wants_clock());
        now = server.poll_timeout(now).unwrap();
        assert_eq!(kept(&pool), 1);
        server.handle_timeout(now);
        assert_eq!(kept(&pool), 0);
        assert!(!server.wants_write(), "it asks for no sign of life");
    }
    // A silent peer is no reason to take it from a busy connection, nor to end it.
    for _ in 0..20 {
        for _ in 0..16 {
            server.send(vec![7; 1000]).unwrap();
        }
        written(&mut server);
        now = server.poll_timeout(now).unwrap();
        server.handle_timeout(now);
        assert_eq!(kept(&pool), 1);
        assert!(server.is_open());
    }
}

#[test]
fn a_tick_takes_no_compressor_from_a_connection_that_is_busy() {
    let pool = Pool::default();
    let config = Config::new().deflate(deflate().pool(pool.clone()));
    let mut server = connection(Role::Server, TAKEOVER, config);
    let mut now = Instant::now();
    for _ in 0..5 {
        for _ in 0..16 {
            server.send(vec![7; 1000]).unwrap();
        }
        written(&mut server);
        now = server.poll_timeout(now).unwrap();
        server.handle_timeout(now);
        assert_eq!(kept(&pool), 1);
        // Too early, or too often, is no tick.
        for _ in 0..3 {
            server.handle_timeout(now);
        }
        assert_eq!(kept(&pool), 1);
        server.receive(&frame(Role::Client, 0x81, b"still there"));
        assert!(server.poll().unwrap().is_some());
    }
    now = server.poll_timeout(now).unwrap();
    server.handle_timeout(now);
    assert_eq!(kept(&pool), 0);
}

#[test]
fn no_more_compressors_are_kept_than_the_pool_has_places_for() {
    for places in [0, 1, 3] {
        let pool = Pool::new(
            PoolConfig::new()
                .kept_compressors(places)
                .spare_compressors(1),
        );
        let config = Config::new().deflate(deflate().pool(pool.clone()));
        let mut servers: Vec<_> = (0..10)
            .map(|_| connection(Role::Server, TAKEOVER, config.clone()))
            .collect();
        let mut clients: Vec<_> = (0..10)
            .map(|_| connection(Role::Client, TAKEOVER, config.clone()))
            .collect();
        for round in 0..20_u8 {
            for (server, client) in servers.iter_mut().zip(&mut clients) {
                let message = vec![round % 3; 400];
                server.send(message.clone()).unwrap();
                client.receive(&written(server));
                assert_eq!(client.poll(), Ok(Some(binary(&message))));
            }
            assert_eq!(kept(&pool), places.min(10));
            assert!(pool.statistics().compressors.spare <= 1);
        }
        drop(servers);
        assert_eq!(kept(&pool), 0);
    }
}

#[test]
fn a_decompressor_that_a_message_holds_comes_back_however_the_message_ends() {
    let ends: [fn(&mut Connection); 5] = [
        |connection| connection.receive(&frame(Role::Client, 0x80, &HELLO[3..])),
        |connection| connection.receive(&frame(Role::Client, 0x80, &[0xff; 10])),
        |connection| connection.receive(&frame(Role::Client, 0x88, b"")),
        Connection::receive_eof,
        |connection| *connection = Connection::new(Role::Server, Config::default()),
    ];
    for (number, end) in ends.into_iter().enumerate() {
        let pool = Pool::default();
        let config = Config::new().deflate(deflate().pool(pool.clone()));
        let mut server = connection(Role::Server, TAKEOVER, config);
        server.receive(&frame(Role::Client, 0x41, &HELLO[..3]));
        assert_eq!(pool.statistics().decompressors.spare, 0);
        end(&mut server);
        while let Ok(Some(_)) = server.poll() {}
        let decompressors = pool.statistics().decompressors;
        assert_eq!(
            (decompressors.spare, decompressors.misses),
            (1, 1),
            "{number}"
        );
    }
}

// Prepared messages.

#[test]
fn a_prepared_message_is_compressed_once_and_once_more_for_all_smaller_windows() {
    let text = "0 1 2 3 4 5 6 ".repeat(128);
    let message = Message::text(text);
    let prepared = PreparedMessage::new(message.clone());
    let (mut first, mut narrow) = (None, None);
    for bits in [15, 12, 9, 10, 15] {
        let offer = format!("{TAKEOVER}; server_max_window_bits={bits}");
        let pool = Pool::default();
        let config = Config::new().deflate(deflate().pool(pool.clone()));
        let mut server = connection(Role::Server, &offer, config.clone());
        let mut client = connection(Role::Client, &offer, config);
        server.send(message.clone()).unwrap();
        client.receive(&written(&mut server));
        let compressed_before = pool.statistics().compressors.misses;
        server.send_prepared(&prepared).unwrap();
        let bytes = written(&mut server);
        assert_eq!(bytes[0], 0xc1);
        client.receive(&bytes);
        let made = if 1 << bits >= message.len() {
            &mut first
        } else {
            &mut narrow
        };
        let times = usize::from(made.is_none());
        // The same bytes, whoever asks.
        assert_eq!(*made.get_or_insert(bytes.clone()), bytes);
        assert_eq!(kept(&pool), 0);
        let compressors = pool.statistics().compressors;
        assert_eq!(compressors.spare, 1 + times, "{bits}");
        assert!(compressors.misses <= compressed_before + 1);
        server.send(message.clone()).unwrap();
        client.receive(&written(&mut server));
        for _ in 0..3 {
            assert_eq!(client.poll(), Ok(Some(Event::Message(message.clone()))));
        }
    }
}

#[test]
fn a_prepared_message_that_is_not_to_be_compressed_is_not() {
    let prepared = PreparedMessage::uncompressed(vec![7; 1000]);
    prepared.deflate(&deflate());
    let mut server = connection(Role::Server, TAKEOVER, config());
    server.send_prepared(&prepared).unwrap();
    assert_eq!(written(&mut server), frame(Role::Server, 0x82, &[7; 1000]));
}

#[test]
fn a_prepared_message_that_is_to_be_compressed_is_even_if_it_grows() {
    let settings = deflate().threshold(1000);
    for message in [&b""[..], b"a", b"Hello", &(0..=255).collect::<Vec<u8>>()] {
        for is_early in [true, false] {
            let prepared = PreparedMessage::compressed(message.to_vec());
            if is_early {
                prepared.deflate(&settings);
            }
            for role in ROLES {
                let config = Config::new().deflate(settings.clone());
                let mut sender = connection(role, TAKEOVER, config.clone());
                let mut receiver = connection(other(role), TAKEOVER, config);
                sender.send_prepared(&prepared).unwrap();
                let bytes = written(&mut sender);
                assert_eq!(bytes[0], 0xc2);
                receiver.receive(&bytes);
                assert_eq!(receiver.poll(), Ok(Some(binary(message))));
                let mut plain = Connection::new(role, Config::default()).with_mask_keys(|| KEY);
                plain.send_prepared(&prepared).unwrap();
                assert_eq!(written(&mut plain), frame(role, 0x82, message));
            }
        }
    }
}

#[test]
fn a_prepared_message_follows_the_threshold_of_its_connection() {
    let prepared = PreparedMessage::new(vec![7; 1000]);
    for (threshold, first) in [(1001, 0x82), (1000, 0xc2), (1001, 0x82)] {
        let config = Config::new().deflate(deflate().threshold(threshold));
        let mut server = connection(Role::Server, TAKEOVER, config);
        server.send_prepared(&prepared).unwrap();
        assert_eq!(written(&mut server)[0], first);
    }
}

#[test]
fn the_settings_that_a_connection_tells_have_the_window_that_was_agreed_on() {
    let offer = format!("{TAKEOVER}; server_max_window_bits=11; client_max_window_bits=10");
    for (role, bits) in [(Role::Server, 11), (Role::Client, 10)] {
        let settings = deflate();
        let config = Config::new().deflate(settings.clone());
        let bits = WindowBits::new(bits).unwrap();
        let told = connection(role, &offer, config).deflate();
        assert_eq!(told, Some(settings.own_window_bits(bits)));
    }
    assert_eq!(Connection::new(Role::Server, config()).deflate(), None);
}
