//! The connection, in bytes.

use std::time::Duration;

use bytes::Buf;

use super::{incoming::MAX_PONGS, *};
use crate::ProtocolError;

#[cfg(feature = "deflate")]
mod deflate;

/// RFC 6455 §5.7: a masked "Hello".
const HELLO: &[u8] = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";

fn server() -> Connection {
    Connection::new(Role::Server, Config::default())
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

/// A masked frame with a key of zeros, which leaves the payload readable.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![
        first,
        0x80 | u8::try_from(payload.len()).unwrap(),
        0,
        0,
        0,
        0,
    ];
    frame.extend_from_slice(payload);
    frame
}

#[test]
fn control_frames_between_fragments_are_answered_and_reported_in_order() {
    let mut server = server();
    server.receive(&masked(0x01, b"Hel"));
    server.receive(&masked(0x89, b"ping"));
    server.receive(&masked(0x80, b"lo"));
    assert_eq!(
        server.poll(),
        Ok(Some(Event::Ping(Bytes::from_static(b"ping"))))
    );
    assert_eq!(
        server.poll(),
        Ok(Some(Event::Message(Message::text("Hello"))))
    );
    assert_eq!(server.poll(), Ok(None));
    assert_eq!(written(&mut server), b"\x8a\x04ping");
}

#[test]
fn every_ping_of_a_burst_is_answered_in_order() {
    let mut server = server();
    for n in 0..10 {
        server.receive(&masked(0x89, &[n]));
    }
    let expected: Vec<u8> = (0..10).flat_map(|n| [0x8a, 1, n]).collect();
    assert_eq!(written(&mut server), expected);
}

#[test]
fn of_a_flood_of_pings_the_newest_are_answered() {
    let mut server = server();
    for n in 0..10_000_u16 {
        server.receive(&masked(0x89, &n.to_be_bytes()));
        server.poll().unwrap();
    }
    let pongs = written(&mut server);
    assert!(pongs.len() <= MAX_PONGS + 4, "{}", pongs.len());
    assert!(pongs.ends_with(&9_999_u16.to_be_bytes()));
}

#[test]
fn a_pong_overtakes_the_messages_that_wait_but_not_the_batch_under_way() {
    let mut server = server();
    server.send("first").unwrap();
    let mut batch = server.take_transmit();
    server.send("second").unwrap();
    server.receive(&masked(0x89, b""));
    let len = batch.remaining();
    assert_eq!(batch.copy_to_bytes(len), b"\x81\x05first"[..]);
    server.transmitted(len);
    assert_eq!(written(&mut server), b"\x8a\x00\x81\x06second");
}

#[test]
fn a_batch_that_was_lent_can_be_taken_without_what_is_queued_behind_it() {
    let mut server = server();
    server.send("first").unwrap();
    server.transmit().advance(3);
    server.receive(&masked(0x89, b""));
    server.close(None).unwrap();
    let mut batch = server.take_transmit();
    let len = batch.remaining();
    assert_eq!(batch.copy_to_bytes(len), b"irst"[..]);
    server.transmitted(len);
    assert_eq!(written(&mut server), b"\x8a\x00\x88\x00");
}

#[test]
fn a_close_is_echoed_after_what_was_queued_and_nothing_follows() {
    let mut server = server();
    server.send("last").unwrap();
    server.receive(&masked(0x88, b"\x03\xe8bye"));
    server.receive(HELLO);
    server.receive(&masked(0x89, b""));
    assert_eq!(server.send("more"), Err(SendError::Closed));
    let close = CloseFrame::new(CloseCode::NORMAL, "bye").unwrap();
    assert_eq!(server.poll(), Ok(Some(Event::Close(Some(close)))));
    assert_eq!(server.poll(), Ok(None));
    assert!(!server.is_done());
    assert_eq!(written(&mut server), b"\x81\x04last\x88\x02\x03\xe8");
    // RFC 6455 §7.1.1: the server ends the stream first.
    assert!(server.is_done());
}

#[test]
fn the_last_batch_of_a_server_is_the_one_behind_which_it_ends() {
    let mut server = server();
    server.send("before").unwrap();
    server.transmit();
    assert!(!server.is_last_batch());
    server.receive(&masked(0x88, b"\x03\xe8"));
    // That which is under way has something behind it.
    assert!(!server.is_last_batch());
    let first = server.transmit().remaining();
    server.transmit().advance(first);
    assert!(!server.is_last_batch());
    let last = server.take_transmit();
    assert!(server.is_last_batch());
    server.transmitted(last.remaining());
    assert!(server.is_done() && !server.is_last_batch());

    // Its own Close has yet to be answered, and a client leaves the end to the server.
    for role in [Role::Server, Role::Client] {
        let mut connection = Connection::new(role, Config::default());
        connection.close(CloseCode::NORMAL).unwrap();
        connection.take_transmit();
        assert!(!connection.is_last_batch());
    }
}

#[test]
fn an_empty_close_is_answered_with_an_empty_close() {
    let mut server = server();
    server.receive(&masked(0x88, b""));
    assert_eq!(server.close_received(), Some(&Close::NoStatus));
    assert_eq!(written(&mut server), b"\x88\x00");
}

#[test]
fn messages_before_an_error_are_delivered_and_what_was_queued_goes_before_the_close() {
    let mut server = server();
    server.send("queued").unwrap();
    let mut input = HELLO.to_vec();
    input.extend_from_slice(b"\x81\x05Hello"); // unmasked
    input.extend_from_slice(HELLO);
    server.receive(&input);
    server.receive(HELLO);
    assert!(matches!(server.poll(), Ok(Some(Event::Message(_)))));
    let error = ConnectionError::Protocol(ProtocolError::UnmaskedClientFrame);
    assert_eq!(server.poll(), Err(error));
    assert_eq!(server.poll(), Err(error));
    assert_eq!(server.send("more"), Err(SendError::Closed));
    let written = written(&mut server);
    assert!(written.starts_with(b"\x81\x06queued\x88"));
    assert!(written.ends_with(b"unmasked frame from a client"));
    // The peer's bytes are thrown away until its end.
    assert!(server.wants_shutdown() && server.wants_read() && !server.is_done());
    server.receive_eof();
    assert!(server.is_done());
}

#[test]
fn what_came_before_an_error_in_the_same_read_can_still_be_answered() {
    let mut server = server();
    let mut input = HELLO.to_vec();
    input.extend_from_slice(&masked(0x89, b"ping"));
    input.extend_from_slice(b"\xf1\x80");
    server.receive(&input);
    server.receive(HELLO);
    assert!(server.is_open() && server.has_events());
    while let Ok(Some(event)) = server.poll() {
        if let Event::Message(message) = event {
            server.send(message).unwrap();
        }
    }
    assert!(!server.is_open());
    assert!(written(&mut server).starts_with(b"\x8a\x04ping\x81\x05Hello\x88"));
}

#[test]
fn an_application_that_takes_nothing_delays_the_close_of_a_failure_for_a_bounded_time() {
    let mut server = server();
    let now = Instant::now();
    server.poll_timeout(now);
    server.receive(HELLO);
    server.receive(b"\xf1");
    assert!(server.wants_clock());
    let due = server.poll_timeout(now).unwrap();
    assert_eq!(due - now, Duration::from_millis(1250));
    server.handle_timeout(due);
    assert!(written(&mut server).starts_with(b"\x88"));
    assert!(!server.is_done());
    let end = server.poll_timeout(due).unwrap();
    assert_eq!(end - due, Duration::from_secs(5));
    server.handle_timeout(end);
    assert!(server.is_done());
    // It was there, and is still there to be taken.
    assert!(matches!(server.poll(), Ok(Some(Event::Message(_)))));
    let error = ConnectionError::Protocol(ProtocolError::ReservedBits);
    assert_eq!(server.poll(), Err(error));
}

#[test]
fn close_codes_are_judged_by_the_table() {
    for code in 0..=u16::MAX {
        let mut server = server();
        server.receive(&masked(0x88, &code.to_be_bytes()));
        let answer = written(&mut server);
        if CloseCode::new(code).is_ok() {
            let echo = if code == 1010 { 1000 } else { code };
            assert_eq!(answer[2..], echo.to_be_bytes());
            assert_eq!(server.error(), None);
        } else {
            assert_eq!(answer[2..4], 1002_u16.to_be_bytes());
        }
    }
}

#[test]
fn a_server_cannot_send_1010_and_a_client_can() {
    let mut server = server();
    let close = CloseFrame::from(CloseCode::MANDATORY_EXTENSION);
    assert_eq!(server.close(close.clone()), Err(SendError::ServerSent1010));
    assert!(server.is_open());
    let mut client = Connection::new(Role::Client, Config::default());
    assert_eq!(client.close(close), Ok(()));
}

#[test]
fn limits_are_judged_on_the_header() {
    let config = Arc::new(Config::new().max_message_size(300).max_frame_size(200));
    let mut server = Connection::new(Role::Server, Arc::clone(&config));
    server.receive(b"\x82\xfe\x00\xc9");
    assert_eq!(server.error(), None, "the header is not whole");
    server.receive(&[0; 4]);
    let error = ProtocolError::FrameTooBig {
        size: 201,
        max: 200,
    };
    assert_eq!(server.poll(), Err(error.into()));
    let mut server = Connection::new(Role::Server, config);
    for first in [0x02, 0x00] {
        server.receive(&[first, 0xfe, 0, 0xc8, 0, 0, 0, 0]);
        server.receive(&[0; 200]);
    }
    let error = ProtocolError::MessageTooBig {
        size: 400,
        max: 300,
    };
    assert_eq!(server.poll(), Err(error.into()));
    assert_eq!(written(&mut server)[2..4], 1009_u16.to_be_bytes());
}

#[test]
fn a_full_inbox_stops_parsing_and_loses_nothing() {
    let config = Config::new().inbox_high_water(10 * MESSAGE_OVERHEAD);
    let mut server = Connection::new(Role::Server, config);
    let mut input = Vec::new();
    for n in 0..200 {
        input.extend_from_slice(&masked(0x82, &[n]));
    }
    server.receive(&input);
    assert!(!server.wants_read());
    assert!(server.inbox_size() < 11 * (MESSAGE_OVERHEAD + 1));
    for n in 0..200 {
        assert_eq!(
            server.poll(),
            Ok(Some(Event::Message(Message::binary(vec![n]))))
        );
    }
    assert_eq!(server.poll(), Ok(None));
    assert!(server.wants_read());
}

#[test]
fn what_waits_for_room_in_the_inbox_is_delivered_when_the_stream_ends() {
    for end in [&b""[..], &masked(0x88, b"\x03\xe8"), b"\xff"] {
        let config = Config::new().inbox_high_water(1);
        let mut server = Connection::new(Role::Server, config);
        let mut input = HELLO.repeat(100);
        input.extend_from_slice(end);
        server.receive(&input);
        server.receive_eof();
        for _ in 0..100 {
            assert!(matches!(server.poll(), Ok(Some(Event::Message(_)))));
        }
        match end {
            [] => assert_eq!(server.poll(), Err(ConnectionError::UnexpectedEof)),
            [0xff] => assert!(matches!(server.poll(), Err(ConnectionError::Protocol(_)))),
            _ => assert!(matches!(server.poll(), Ok(Some(Event::Close(Some(_)))))),
        }
    }
}

#[test]
fn a_large_message_is_read_into_its_own_buffer() {
    let payload: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut client = Connection::new(Role::Client, Config::default());
    client.send(payload.clone()).unwrap();
    let mut wire = written(&mut client);
    client.send("behind").unwrap();
    wire.append(&mut written(&mut client));
    let mut server = server();
    let (start, mut rest) = wire.split_at(1000);
    server.receive(start);
    while let Some(buffer) = server.read_buf() {
        let room = buffer.capacity() - buffer.len();
        assert!(room >= 10_000.min(rest.len()), "{room}");
        // More than the frame may be appended.
        let (piece, behind) = rest.split_at(room.min(64 << 10).min(rest.len()));
        buffer.extend_from_slice(piece);
        rest = behind;
        server.receive(&[]);
    }
    server.receive(rest);
    assert_eq!(
        server.poll(),
        Ok(Some(Event::Message(Message::binary(payload))))
    );
    assert_eq!(
        server.poll(),
        Ok(Some(Event::Message(Message::text("behind"))))
    );
}

#[test]
fn fragments_keep_other_messages_out_and_let_control_frames_in() {
    let mut server = server();
    let mut message = server.start_binary().unwrap();
    message.push(&mut server, &b"a"[..]).unwrap();
    assert_eq!(server.send("no"), Err(SendError::MessageUnfinished));
    server.ping(b"").unwrap();
    message.push(&mut server, &b""[..]).unwrap();
    message.finish(&mut server, &b"b"[..]).unwrap();
    server.send("yes").unwrap();
    assert_eq!(
        written(&mut server),
        b"\x02\x01a\x89\x00\x00\x00\x80\x01b\x81\x03yes"
    );
}

#[test]
fn the_outgoing_queue_is_bounded_and_a_single_message_may_exceed_it() {
    let config = Config::new().outgoing_high_water(1000);
    let mut server = Connection::new(Role::Server, config);
    server.send(vec![0; 5000]).unwrap();
    assert_eq!(server.send("x"), Err(SendError::Full));
    let mut batch = server.take_transmit();
    assert_eq!(server.send("x"), Err(SendError::Full));
    server.transmitted(batch.remaining());
    batch.advance(batch.remaining());
    for _ in 0..16 {
        server.send("").unwrap();
    }
    assert_eq!(server.send(""), Err(SendError::Full));
}

#[test]
fn a_probe_is_answered_by_its_pong_or_a_later_one_and_by_no_invented_one() {
    let mut server = server();
    let first = server.probe();
    assert_eq!(written(&mut server), b"\x89\x04\x00\x00\x00\x01");
    server.receive(&masked(0x8a, &7_u32.to_be_bytes()));
    assert_eq!(server.answered_probe(), 0);
    let second = server.probe();
    let third = server.probe();
    assert_eq!(written(&mut server), b"\x89\x04\x00\x00\x00\x03");
    server.receive(&masked(0x8a, &3_u32.to_be_bytes()));
    assert_eq!(server.answered_probe(), third);
    assert!(first < second && second < third);
    server.receive(&masked(0x8a, &1_u32.to_be_bytes()));
    assert_eq!(server.answered_probe(), third);
}

#[test]
fn a_round_trip_is_measured_from_the_leaving_of_a_ping_to_its_own_answer() {
    let pong = |number: u32| masked(0x8a, &number.to_be_bytes());
    let millis = |connection: &Connection| connection.latency().map(|it| it.as_millis());
    let mut server = server();
    let start = Instant::now();
    let at = |millis| start + Duration::from_millis(millis);
    server.poll_timeout(start);
    let first = server.probe();
    // Not while it waits in the queue.
    server.poll_timeout(at(5));
    assert_eq!(server.latency(), None);
    assert!(server.wants_write());
    written(&mut server);
    assert!(server.wants_clock());
    server.poll_timeout(at(10));
    // Another leaves meanwhile: it is not measured, and the first one is.
    server.probe();
    written(&mut server);
    server.poll_timeout(at(20));
    assert!(!server.wants_clock());
    server.receive(&pong(first));
    // A byte that came starts the keepalive anew as well.
    assert!(server.wants_clock());
    server.poll_timeout(at(40));
    assert_eq!(millis(&server), Some(30));
    server.receive(&pong(2));
    server.poll_timeout(at(90));
    assert_eq!(millis(&server), Some(30));

    // Keepalive's own, in whose case the driver is told to come back.
    let mut now = at(90);
    while !server.wants_write() {
        now = server.poll_timeout(now).unwrap();
        server.handle_timeout(now);
    }
    assert_eq!(written(&mut server), b"\x89\x04\x00\x00\x00\x03");
    server.poll_timeout(now);
    server.receive(&pong(3));
    server.measure(now + Duration::from_millis(7));
    assert_eq!(millis(&server), Some(7));

    // The peer answers the newest only (RFC 6455 §5.5.3): nothing is known of the older.
    server.probe();
    written(&mut server);
    server.poll_timeout(now);
    server.probe();
    written(&mut server);
    server.poll_timeout(now);
    server.receive(&pong(5));
    server.measure(now + Duration::from_secs(9));
    assert_eq!(millis(&server), Some(7));
    let mut scratch = Scratch::default();
    server.release(&mut scratch);
    assert!(server.rare.is_none());
}

#[test]
fn a_silent_peer_is_pinged_and_then_given_up_with_1011() {
    let mut server = server();
    let mut now = Instant::now();
    let start = now;
    let mut wire = Vec::new();
    while !server.is_done() {
        wire.extend_from_slice(&written(&mut server));
        now = server.poll_timeout(now).unwrap();
        server.handle_timeout(now);
    }
    wire.extend_from_slice(&written(&mut server));
    assert_eq!(now - start, Duration::from_secs(40));
    assert_eq!(wire[..6], *b"\x89\x04\x00\x00\x00\x01");
    assert_eq!(wire[8..10], 1011_u16.to_be_bytes());
    assert_eq!(server.error(), Some(ConnectionError::KeepaliveTimeout));
}

#[test]
fn an_unanswered_close_ends_after_the_close_timeout() {
    let mut server = server();
    let now = Instant::now();
    server.close(None).unwrap();
    written(&mut server);
    let due = server.poll_timeout(now).unwrap();
    assert_eq!(due - now, Duration::from_secs(5));
    // Messages of the peer are still received meanwhile.
    server.receive(HELLO);
    assert!(matches!(server.poll(), Ok(Some(Event::Message(_)))));
    server.handle_timeout(due);
    assert_eq!(server.error(), Some(ConnectionError::CloseTimeout));
    assert!(server.is_done());
}

#[test]
fn a_write_without_progress_ends_after_the_write_timeout() {
    let config = Config::new().keepalive_interval(None);
    let mut server = Connection::new(Role::Server, config);
    let now = Instant::now();
    server.send("one").unwrap();
    let first = server.poll_timeout(now).unwrap();
    let later = now + Duration::from_secs(10);
    server.transmit().advance(1);
    assert!(server.wants_clock());
    let due = server.poll_timeout(later).unwrap();
    assert_eq!(due.duration_since(first), Duration::from_secs(10));
    server.handle_timeout(first);
    assert!(server.is_open());
    server.handle_timeout(due);
    assert_eq!(server.error(), Some(ConnectionError::WriteTimeout));
}

#[test]
fn endless_times_do_not_overflow() {
    let config = Config::new()
        .keepalive_interval(Duration::MAX)
        .keepalive_timeout(Duration::MAX)
        .close_timeout(Duration::MAX)
        .write_timeout(Duration::MAX);
    let mut server = Connection::new(Role::Server, config);
    let now = Instant::now();
    server.send("x").unwrap();
    assert!(server.poll_timeout(now).unwrap() > now);
    server.handle_timeout(now);
    written(&mut server);
    server.close(None).unwrap();
    written(&mut server);
    assert!(server.poll_timeout(now).unwrap() > now);
    assert_eq!(server.error(), None);
}

#[test]
fn marks_of_zero_let_one_message_through_at_a_time() {
    let config = Config::new().inbox_high_water(0).outgoing_high_water(0);
    let mut server = Connection::new(Role::Server, config);
    assert!(server.wants_read() && server.is_writable());
    server.receive(&HELLO.repeat(3));
    for _ in 0..3 {
        assert!(!server.wants_read());
        let Ok(Some(Event::Message(message))) = server.poll() else {
            panic!("three messages have come");
        };
        server.send(message).unwrap();
        assert_eq!(server.send(""), Err(SendError::Full));
        written(&mut server);
    }
    assert_eq!(server.poll(), Ok(None));
    assert!(server.wants_read());
}

#[test]
fn a_client_waits_for_the_server_to_end_the_stream() {
    let mut client = Connection::new(Role::Client, Config::default());
    client.close(CloseFrame::from(CloseCode::NORMAL)).unwrap();
    written(&mut client);
    client.receive(b"\x88\x02\x03\xe8");
    assert!(!client.is_done());
    client.receive_eof();
    assert!(client.is_done());
    assert_eq!(client.error(), None);
}

#[test]
fn an_end_without_close_is_an_error_after_all_messages() {
    let mut server = server();
    server.receive(HELLO);
    server.receive_eof();
    assert!(matches!(server.poll(), Ok(Some(Event::Message(_)))));
    assert_eq!(server.poll(), Err(ConnectionError::UnexpectedEof));
    assert!(server.is_done());
}

#[test]
fn an_idle_connection_owns_no_buffer_and_stays_small() {
    let mut server = server();
    for _ in 0..100 {
        server.receive(HELLO);
    }
    while let Ok(Some(Event::Message(message))) = server.poll() {
        server.send(message).unwrap();
    }
    written(&mut server);
    let mut scratch = Scratch::default();
    server.release(&mut scratch);
    // The room that it used is the next one's.
    assert!(scratch.bytes.capacity() > 0 && scratch.events.capacity() > 0);
    assert!(server.rare.is_none());
    assert_eq!(server.decoder.read_buf(), None);
    // Bytes for each connection, whether it is used or not.
    assert!(
        size_of::<Connection>() <= 240,
        "{}",
        size_of::<Connection>()
    );
}

#[test]
fn a_close_is_still_read_when_the_application_has_stopped_receiving() {
    for says_so in [true, false] {
        let config = Config::new().inbox_high_water(MESSAGE_OVERHEAD);
        let mut server = Connection::new(Role::Server, config);
        server.receive(HELLO);
        server.receive(HELLO);
        server.close(CloseFrame::from(CloseCode::NORMAL)).unwrap();
        written(&mut server);
        assert!(!server.wants_read());
        if says_so {
            server.discard_overflow();
        } else {
            let due = server.poll_timeout(Instant::now()).unwrap();
            server.handle_timeout(due);
            assert_eq!(server.error(), None);
        }
        assert!(server.wants_read());
        server.receive(HELLO);
        server.receive(&masked(0x88, b"\x03\xe8"));
        assert!(server.close_received().is_some());
        assert!(matches!(server.poll(), Ok(Some(Event::Message(_)))));
    }
}

#[test]
fn a_read_buffer_can_be_taken_away_and_given_back() {
    let mut server = server();
    server.receive(b"\x82\xff\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07");
    let mut buffer = server.take_read_buf().unwrap();
    server.send("meanwhile").unwrap();
    assert_eq!(server.poll(), Ok(None));
    buffer.resize(1 << 16, 7);
    server.receive_buf(buffer);
    assert_eq!(
        server.poll(),
        Ok(Some(Event::Message(Message::binary(vec![7; 1 << 16]))))
    );
}

#[test]
fn a_close_or_a_discard_amid_a_lent_buffer_leaves_the_message_alone() {
    for discards in [false, true] {
        let mut frames = Connection::new(Role::Client, Config::default());
        let text = "grün ".repeat(20_000);
        frames.send(text.clone()).unwrap();
        let bytes = frames.take_transmit();
        let (first, second) = bytes.chunk().split_at(40_003);
        let mut server = Connection::new(Role::Server, Config::default());
        server.receive(first);
        let mut buffer = server.take_read_buf().unwrap();
        if discards {
            server.discard_incoming();
        } else {
            server.close(None).unwrap();
        }
        buffer.extend_from_slice(second);
        server.receive_buf(buffer);
        let event = server.poll().unwrap();
        let expected = (!discards).then(|| Event::Message(Message::text(text)));
        assert_eq!(event, expected);
    }
}

#[test]
fn what_lies_behind_the_message_that_filled_the_inbox_is_parsed_when_it_is_taken() {
    let config = Config::new().inbox_high_water(1);
    let mut server = Connection::new(Role::Server, config).without_control_events();
    server.receive(b"\x81\x81\0\0\0\0a\x88\x80\0\0\0\0");
    assert!(!server.wants_read());
    assert_eq!(server.poll(), Ok(Some(Event::Message(Message::text("a")))));
    assert_eq!(server.transmit().chunk(), b"\x88\x00");
}

#[test]
fn messages_that_came_with_a_close_can_still_be_answered() {
    let mut server = server();
    let mut input = HELLO.to_vec();
    input.extend_from_slice(&masked(0x88, b"\x03\xe8"));
    server.receive(&input);
    let Ok(Some(Event::Message(message))) = server.poll() else {
        panic!("there is a message");
    };
    server.send(message).unwrap();
    let close = CloseFrame::from(CloseCode::NORMAL);
    assert_eq!(server.poll(), Ok(Some(Event::Close(Some(close)))));
    assert_eq!(server.send("late"), Err(SendError::Closed));
    assert_eq!(written(&mut server), b"\x81\x05Hello\x88\x02\x03\xe8");
    assert!(server.is_done());
}

#[test]
fn a_close_behind_messages_that_nobody_takes_is_answered_in_time() {
    let config = Config::new().keepalive_interval(None);
    let mut server = Connection::new(Role::Server, config);
    let mut input = HELLO.to_vec();
    input.extend_from_slice(&masked(0x88, b"\x03\xe8"));
    server.receive(&input);
    assert!(server.wants_clock());
    let now = Instant::now();
    let due = server.poll_timeout(now).unwrap();
    assert_eq!(due - now, Duration::from_millis(1250));
    server.handle_timeout(due);
    assert_eq!(written(&mut server), b"\x88\x02\x03\xe8");
    assert!(server.is_done());
    assert_eq!(server.error(), None);
}

#[test]
fn a_batch_is_taken_once() {
    let mut server = server();
    server.send("first").unwrap();
    let batch = server.take_transmit();
    server.send("second").unwrap();
    assert_eq!(server.take_transmit().remaining(), 0);
    assert_eq!(server.transmit().remaining(), 0);
    server.transmitted(batch.remaining());
    assert_eq!(written(&mut server), b"\x81\x06second");
}

#[test]
fn a_server_does_not_echo_1010() {
    let mut server = server();
    server.receive(&masked(0x88, b"\x03\xf2"));
    assert_eq!(written(&mut server), b"\x88\x02\x03\xe8");
}

#[test]
fn our_own_close_is_not_held_up_by_messages_that_came_before_the_peers() {
    let mut server = server();
    let mut input = HELLO.to_vec();
    input.extend_from_slice(&masked(0x88, b"\x03\xe8"));
    server.receive(&input);
    server
        .close(CloseFrame::from(CloseCode::GOING_AWAY))
        .unwrap();
    assert_eq!(written(&mut server), b"\x88\x02\x03\xe9");
    assert!(server.is_done());
}

#[test]
fn a_peer_that_takes_drop_by_drop_does_not_hold_a_closing_connection() {
    let mut server = server();
    server.send(vec![0; 1000]).unwrap();
    server.close(CloseFrame::from(CloseCode::NORMAL)).unwrap();
    let start = Instant::now();
    let mut now = start;
    while !server.is_done() {
        server.transmit().advance(1);
        now += Duration::from_secs(10);
        server.poll_timeout(now);
        server.handle_timeout(now);
        assert!(now - start <= Duration::from_secs(60));
    }
    assert_eq!(server.error(), Some(ConnectionError::WriteTimeout));
}
