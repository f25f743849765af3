//! What a connection may cost, in bytes of heap, counted by the allocator.
//!
//! `allocation_counter` counts the allocations of the thread that measures. A `realloc` counts as
//! a new allocation beside the old one, so the peaks are those of an allocator that always moves.

use std::sync::Arc;

use allocation_counter::measure;
use bytes::{Buf, Bytes};
use ws_core::{Config, Connection, ConnectionError, Event, Message, ProtocolError, Role, Scratch};
use ws_tests::wire::frame;

const KEY: Option<[u8; 4]> = Some([0x37, 0xfa, 0x21, 0x3d]);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Moves what is written to nowhere, in a buffer that is lent, as a session does.
fn write(connection: &mut Connection) {
    while connection.wants_write() {
        let mut transmit = connection.transmit();
        let len = transmit.chunk().len();
        transmit.advance(len);
    }
}

#[test]
fn a_connection_fits_into_240_bytes_and_owns_nothing_at_first() {
    assert!(
        size_of::<Connection>() <= 240,
        "{}",
        size_of::<Connection>()
    );
    let config = Arc::new(Config::default());
    let mut connection = None;
    let info = measure(|| connection = Some(Connection::new(Role::Server, config)));
    assert_eq!((info.bytes_max, info.bytes_current), (0, 0));
}

#[test]
fn a_length_that_is_announced_costs_128_bytes_until_more_come() {
    let config = Arc::new(Config::new().max_message_size(1 << 30));
    let new = |_| Connection::new(Role::Server, Arc::clone(&config));
    let mut connections: Vec<_> = (0..100).map(new).collect();
    let header = b"\x82\xff\x00\x00\x00\x00\x40\x00\x00\x00\x01\x02\x03\x04";
    let info = measure(|| {
        for connection in &mut connections {
            connection.receive(header);
            assert!(connection.wants_read());
        }
    });
    // Where parsing stopped, and nothing for what is to come.
    assert!(info.bytes_max <= 100 * 128, "{}", info.bytes_max);
    // Room for one read is lent, no more.
    let info = measure(|| {
        for connection in &mut connections {
            assert!(connection.read_buf().is_some());
            assert!(connection.read_buf().is_some());
        }
    });
    assert_eq!(info.bytes_max, 100 * 64 * KIB);
}

#[test]
fn a_message_without_end_costs_at_most_two_and_a_half_times_the_limit() {
    let step = 64 << 10;
    for by_read_buf in [false, true] {
        for fragment in [1000, 64 << 10, 1 << 20] {
            let config = Config::new().max_message_size(4 << 20);
            let mut server = Connection::new(Role::Server, config);
            let first = frame(0x02, KEY, b"");
            let next = frame(0x00, KEY, &vec![7; fragment]);
            let info = measure(|| {
                server.receive(&first);
                while server.error().is_none() {
                    for piece in next.chunks(step) {
                        match server.read_buf() {
                            Some(buffer) if by_read_buf => {
                                buffer.extend_from_slice(piece);
                                server.receive(&[]);
                            }
                            _ => server.receive(piece),
                        }
                    }
                }
            });
            let error = server.error();
            let Some(ConnectionError::Protocol(ProtocolError::MessageTooBig { .. })) = error else {
                panic!("{error:?}");
            };
            assert!(info.bytes_max <= 10 * MIB, "{}", info.bytes_max);
            // And nothing is kept of it but how it ended.
            assert!(info.bytes_current <= 400, "{}", info.bytes_current);
        }
    }
}

#[test]
fn a_million_tiny_and_empty_fragments_leave_no_trace() {
    let mut server = Connection::new(Role::Server, Config::default());
    let first = frame(0x01, KEY, b"");
    let tiny = [frame(0x00, KEY, b"x"), frame(0x00, KEY, b"")].concat();
    let thousand = tiny.repeat(500);
    let info = measure(|| {
        server.receive(&first);
        for _ in 0..1000 {
            server.receive(&thousand);
        }
    });
    assert_eq!(server.error(), None);
    assert!(info.bytes_max <= 2 * MIB, "{}", info.bytes_max);
    assert!(info.count_total <= 64, "{}", info.count_total);
}

#[test]
fn a_million_empty_messages_that_nobody_takes_are_not_read() {
    for first in [0x81, 0x82, 0x89, 0x8a] {
        let mut server = Connection::new(Role::Server, Config::default());
        let thousand = frame(first, KEY, b"").repeat(1000);
        let mut read = 0;
        let info = measure(|| {
            for _ in 0..1000 {
                if server.wants_read() {
                    server.receive(&thousand);
                    read += 1;
                }
            }
        });
        assert!(read < 1000);
        assert!(info.bytes_max <= 256 * KIB, "{}", info.bytes_max);
    }
}

#[test]
fn a_flood_of_pings_costs_one_kilobyte_of_pongs() {
    let mut server = Connection::new(Role::Server, Config::default()).without_control_events();
    let pings = frame(0x89, KEY, &[7; 125]).repeat(500);
    let info = measure(|| {
        for _ in 0..=(64 << 20) / pings.len() {
            server.receive(&pings);
        }
    });
    assert!(info.bytes_max <= 4 * KIB, "{}", info.bytes_max);
}

#[test]
fn messages_to_a_peer_that_takes_none_stay_below_the_mark() {
    for (role, len) in [
        (Role::Server, 0),
        (Role::Client, 0),
        (Role::Server, 1000),
        (Role::Client, 20_000),
    ] {
        let mut connection = Connection::new(role, Config::default());
        let message = Message::binary(vec![7; len]);
        let info = measure(|| {
            for _ in 0..1_000_000 {
                if connection.send(message.clone()).is_err() {
                    break;
                }
            }
        });
        assert!(!connection.is_writable());
        assert!(info.bytes_max <= 240 * KIB, "{len}: {}", info.bytes_max);
    }
}

#[test]
fn a_queue_that_never_becomes_empty_does_not_grow() {
    let mut server = Connection::new(Role::Server, Config::default());
    let message = Message::binary(vec![7; 500]);
    let info = measure(|| {
        for _ in 0..100_000 {
            server.send(message.clone()).unwrap();
            server.send(message.clone()).unwrap();
            let mut transmit = server.transmit();
            // Always a frame and a half is left, or so.
            let len = transmit.remaining().min(1008);
            transmit.advance(len);
        }
    });
    assert!(info.bytes_max <= 256 * KIB, "{}", info.bytes_max);
}

#[test]
fn an_idle_connection_owns_no_heap_after_traffic_of_every_kind() {
    let config = Arc::new(Config::default());
    for role in [Role::Server, Role::Client] {
        let mut connection = Connection::new(role, Arc::clone(&config));
        let key = if role == Role::Server { KEY } else { None };
        let input = [
            frame(0x81, key, "grün".as_bytes()),
            frame(0x02, key, &vec![7; 40_000]),
            frame(0x89, key, &[7; 125]),
            frame(0x80, key, b""),
            frame(0x8a, key, b"\x00\x00\x00\x01"),
            frame(0x81, key, b"").repeat(2000),
        ]
        .concat();
        let info = measure(|| {
            for round in 0..5 {
                for piece in input.chunks(1 + round * 777) {
                    match connection.read_buf() {
                        Some(buffer) => {
                            buffer.extend_from_slice(piece);
                            connection.receive(&[]);
                        }
                        None => connection.receive(piece),
                    }
                    while let Ok(Some(event)) = connection.poll() {
                        if let Event::Message(message) = event {
                            connection.send(message).unwrap();
                        }
                        if !connection.is_writable() {
                            write(&mut connection);
                        }
                    }
                }
                connection.ping(b"ping").unwrap();
                connection.probe();
                write(&mut connection);
                let mut message = connection.start_binary().unwrap();
                message.push(&mut connection, vec![7; 30_000]).unwrap();
                message.finish(&mut connection, Bytes::new()).unwrap();
                write(&mut connection);
            }
            connection.release(&mut Scratch::default());
        });
        assert_eq!(connection.poll(), Ok(None));
        assert_eq!(info.bytes_current, 0, "{role:?}");
    }
}

#[test]
fn an_echo_allocates_the_payload_and_nothing_else() {
    let mut server = Connection::new(Role::Server, Config::default());
    let input = frame(0x81, KEY, b"twenty bytes of text").repeat(500);
    let mut scratch = Scratch::default();
    let mut echo = || {
        server.lend(&mut scratch);
        server.receive(&input);
        while let Ok(Some(Event::Message(message))) = server.poll() {
            server.send(message).unwrap();
        }
        write(&mut server);
        server.release(&mut scratch);
    };
    echo();
    let info = measure(echo);
    assert_eq!(info.count_total, 500);
}
