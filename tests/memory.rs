//! What a connection may cost, in bytes of heap, counted by the allocator.
//!
//! `allocation_counter` counts the allocations of the thread that measures. A `realloc` counts as
//! a new allocation beside the old one, so the peaks are those of an allocator that always moves.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use allocation_counter::measure;
use bytes::{Buf, Bytes};
use ws_core::{
    Config, Connection, ConnectionError, Deflate, Event, Message, ProtocolError, Role, Scratch,
    deflate::{Pool, PoolConfig, Takeover},
};
use ws_tests::{
    deflate::{agree, bomb, compressed},
    wire::frame,
};

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
                // Until it is answered, there is a note of when it left.
                let number = connection.probe();
                write(&mut connection);
                connection.receive(&frame(0x8a, key, &number.to_be_bytes()));
                assert!(matches!(connection.poll(), Ok(Some(Event::Pong(_)))));
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

mod compression {
    use super::*;

    /// A pool that holds nothing back, so that all that is left is the connection's own.
    fn settings() -> Deflate {
        let pool = PoolConfig::new()
            .spare_compressors(0)
            .spare_decompressors(0);
        Deflate::new().pool(Pool::new(pool))
    }

    fn server(config: Config) -> Connection {
        let agreed = agree("permessage-deflate", &config);
        Connection::new(Role::Server, config).with_extensions(&agreed)
    }

    #[test]
    fn a_connection_that_compresses_owns_one_small_box_at_first() {
        let config = Arc::new(Config::new().deflate(settings()));
        let agreed = agree("permessage-deflate", &config);
        for role in [Role::Server, Role::Client] {
            let mut connection = None;
            let config = Arc::clone(&config);
            let info = measure(|| {
                connection = Some(Connection::new(role, config).with_extensions(&agreed));
            });
            assert_eq!(info.count_total, 1);
            assert!(info.bytes_current < 128, "{}", info.bytes_current);
        }
    }

    #[test]
    fn an_idle_connection_owns_one_small_box_after_traffic_and_ticks() {
        let takeover = Takeover::Allowed;
        for (settings, window) in [
            (settings(), 0),
            (settings().peer_takeover(takeover), 32 * KIB),
        ] {
            let config = Arc::new(Config::new().deflate(settings));
            let agreed = agree("permessage-deflate", &config);
            // The pool's own lists are there.
            let mut warm =
                Connection::new(Role::Server, Arc::clone(&config)).with_extensions(&agreed);
            warm.receive(&frame(0xc2, KEY, &[0]));
            warm.send(vec![7; 1000]).unwrap();
            drop(warm);
            let mut connection = None;
            let payload = compressed(&b"all work and no play ".repeat(5000), 6);
            let (first, rest) = payload.split_at(payload.len() / 2);
            let input = [
                frame(0xc2, KEY, &payload),
                frame(0x42, KEY, first),
                frame(0x89, KEY, b"ping"),
                frame(0x80, KEY, rest),
                frame(0x82, KEY, &vec![7; 40_000]),
                frame(0xc1, KEY, &[0]).repeat(100),
            ]
            .concat();
            let info = measure(|| {
                let new = Connection::new(Role::Server, config).with_extensions(&agreed);
                let connection = connection.insert(new);
                let mut now = Instant::now();
                connection.poll_timeout(now);
                for piece in input.chunks(3000).chain(input.chunks(60_000)) {
                    connection.receive(piece);
                    while let Ok(Some(event)) = connection.poll() {
                        if let Event::Message(message) = event {
                            connection.send_promised(&message).unwrap();
                        }
                    }
                    write(connection);
                }
                let mut message = connection.start_binary().unwrap();
                message.push(connection, vec![7; 30_000]).unwrap();
                message.finish(connection, Bytes::new()).unwrap();
                write(connection);
                for _ in 0..2 {
                    now += Duration::from_secs(5);
                    connection.handle_timeout(now);
                    connection.poll_timeout(now);
                }
                connection.release(&mut Scratch::default());
            });
            let connection = connection.unwrap();
            assert_eq!(connection.error(), None);
            let own = u64::try_from(info.bytes_current).unwrap();
            assert!(own < 128 + window, "{own}");
            assert!(own > window, "{own}");
        }
    }

    #[test]
    fn a_bomb_costs_at_most_two_and_a_half_times_the_limit_however_it_comes() {
        let payload = bomb(1024);
        assert!(payload.len() < 1100 << 10);
        let whole = frame(0xc2, KEY, &payload);
        let mut fragments = frame(0x42, KEY, b"");
        for piece in payload.chunks(100) {
            fragments.extend(frame(0x00, KEY, piece));
        }
        for input in [whole, fragments] {
            for step in [1, 1000, 64 << 10, usize::MAX] {
                let limit = 4 << 20;
                let mut server = server(Config::new().deflate(settings()).max_message_size(limit));
                let info = measure(|| {
                    for piece in input.chunks(step) {
                        match server.read_buf() {
                            Some(buffer) => {
                                buffer.extend_from_slice(piece);
                                server.receive(&[]);
                            }
                            None => server.receive(piece),
                        }
                        if server.poll().is_err() {
                            break;
                        }
                    }
                });
                let error = server.error();
                let Some(ConnectionError::Protocol(ProtocolError::MessageTooBig { .. })) = error
                else {
                    panic!("{error:?}");
                };
                assert!(info.bytes_max <= 10 * MIB, "{step}: {}", info.bytes_max);
                assert!(info.bytes_current <= 400, "{}", info.bytes_current);
            }
        }
    }

    #[test]
    fn bombs_that_nobody_takes_are_inflated_one_at_a_time() {
        let message = frame(0xc2, KEY, &bomb(1));
        let read = message.repeat((64 << 10) / message.len());
        let mut server = server(Config::new().deflate(settings()));
        let info = measure(|| {
            for _ in 0..100 {
                if server.wants_read() {
                    server.receive(&read);
                }
            }
        });
        assert!(info.bytes_max <= 5 * MIB / 2, "{}", info.bytes_max);
        // And one at a time they are taken.
        let info = measure(|| {
            for _ in 0..60 {
                assert!(matches!(server.poll(), Ok(Some(Event::Message(_)))));
            }
        });
        assert!(info.bytes_max <= 5 * MIB / 2, "{}", info.bytes_max);
    }

    #[test]
    fn a_million_empty_compressed_messages_that_nobody_takes_are_not_read() {
        for payload in [&[0x00][..], &[]] {
            let mut server = server(Config::new().deflate(settings()));
            let thousand = frame(0xc2, KEY, payload).repeat(1000);
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
            assert!(info.bytes_max <= 320 * KIB, "{}", info.bytes_max);
        }
    }

    #[test]
    fn a_compressed_message_that_never_ends_costs_a_decompressor() {
        // Blocks of nothing.
        let mut server = server(Config::new().deflate(settings()));
        let first = frame(0x42, KEY, b"");
        let more = frame(0x00, KEY, &[0x00, 0x00, 0x00, 0xff, 0xff].repeat(20)).repeat(100);
        let info = measure(|| {
            server.receive(&first);
            for _ in 0..50 {
                server.receive(&more);
            }
        });
        assert_eq!(server.error(), None);
        assert!(info.bytes_max <= 128 * KIB, "{}", info.bytes_max);
    }
}
