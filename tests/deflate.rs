//! Compression through the public API: whatever is negotiated, and whatever is sent, comes back;
//! and no sender refers to more than was agreed on.
//!
//! Everything follows from a seed; a failure prints it. `DEFLATE_SEEDS=n` runs so many.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, header::SEC_WEBSOCKET_EXTENSIONS};
use ws_core::{
    Compress, Config, Connection, Deflate, Event, Message, PreparedMessage, Role,
    deflate::{Level, Pool, PoolConfig, Takeover, WindowBits},
    handshake::{
        client::Handshake,
        extensions::{DeflateParameters, Extensions},
        server::Offer,
    },
};
use ws_tests::{
    deflate::{Receiver, agree, compressed},
    feed::written,
    random::Random,
    wire::Frames,
};

/// Runs a test with so many seeds.
fn seeds(count: u64, test: impl Fn(&mut Random)) {
    let count = std::env::var("DEFLATE_SEEDS").map_or(count, |count| count.parse().unwrap());
    for seed in 0..count {
        let run = AssertUnwindSafe(|| test(&mut Random::new(seed)));
        if let Err(panic) = catch_unwind(run) {
            eprintln!("seed {seed}");
            resume_unwind(panic);
        }
    }
}

fn pick<T: Clone>(random: &mut Random, from: &[T]) -> T {
    from[random.below(from.len())].clone()
}

fn small(random: &mut Random, below: u8) -> u8 {
    u8::try_from(random.below(usize::from(below))).unwrap()
}

fn any_bits(random: &mut Random) -> WindowBits {
    // The smallest is where a mistake shows.
    let bits = if random.chance(40) {
        9
    } else {
        9 + small(random, 7)
    };
    WindowBits::new(bits).unwrap()
}

fn any_pool(random: &mut Random) -> Pool {
    Pool::new(
        PoolConfig::new()
            .kept_compressors(random.below(3))
            .spare_compressors(random.below(3))
            .spare_decompressors(random.below(3)),
    )
}

fn any_settings(random: &mut Random, pool: &Pool) -> Deflate {
    let takeover = [Takeover::Allowed, Takeover::Allowed, Takeover::Forbidden];
    let mut settings = Deflate::new()
        .level(Level::new(1 + small(random, 9)).unwrap())
        .threshold(pick(random, &[0, 1, 2, 100, 256, 3000]))
        .own_window_bits(any_bits(random))
        .peer_window_bits(any_bits(random))
        .own_takeover(pick(random, &takeover))
        .peer_takeover(pick(random, &takeover));
    if random.chance(80) {
        settings = settings.pool(pool.clone());
    }
    settings
}

/// What two ends with these settings agree on, as they say it on the wire.
fn shake_hands(client: &Config, server: &Config) -> [Extensions; 2] {
    let handshake = Handshake::new(&"ws://localhost/".parse().unwrap())
        .unwrap()
        .negotiate(client);
    let (parts, ()) = handshake.request().into_parts();
    let offer = Offer::from_request(&parts).unwrap();
    let (response, accepted) = offer.negotiate(server).unwrap().accept(None).unwrap();
    let confirmed = handshake.finish(&response).unwrap();
    [
        confirmed.extensions().clone(),
        accepted.extensions().clone(),
    ]
}

/// Offers as other clients make them: with hints, in other words, and the smallest window of all.
const OFFERS: [&str; 6] = [
    "permessage-deflate",
    "permessage-deflate; client_max_window_bits",
    "permessage-deflate; client_max_window_bits=8",
    "permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=9",
    "permessage-deflate; client_no_context_takeover; server_max_window_bits=\"10\"",
    "permessage-deflate; server_no_context_takeover; client_max_window_bits=12",
];

/// A message that shrinks, that does not, or that is like an earlier one.
fn any_message(random: &mut Random, before: &[Message]) -> Message {
    let len = match random.below(20) {
        0 => 0,
        1 => 1,
        2..5 => random.below(20),
        5..15 => random.below(1500),
        15..19 => random.below(8000),
        _ => random.below(40_000),
    };
    let mut bytes = Vec::new();
    match random.below(5) {
        0 => bytes = random.bytes(len),
        1 => bytes.resize(len, b'a'),
        2 => {
            while bytes.len() < len {
                let word = format!("{{\"id\":{},\"user\":\"alice\"}},", random.below(5000));
                bytes.extend_from_slice(word.as_bytes());
            }
        }
        // Noise that comes back later, at whatever distance.
        3 => {
            let piece_len = 3 + random.below(700);
            let piece = random.bytes(piece_len);
            while bytes.len() < len {
                bytes.extend_from_slice(&piece);
                if random.chance(30) {
                    let gap = random.below(600);
                    bytes.extend(random.bytes(gap));
                }
            }
        }
        _ => {
            if let Some(message) = before.get(random.below(before.len())) {
                bytes = message.as_bytes().to_vec();
                if random.chance(50) && !bytes.is_empty() {
                    let place = random.below(bytes.len());
                    bytes.rotate_left(place);
                }
            }
        }
    }
    if random.chance(30) {
        let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
        return Message::text(text);
    }
    Message::binary(bytes)
}

/// One end, what it has sent, and who watches its output.
struct End {
    connection: Connection,
    watcher: Receiver,
    frames: Frames,
    now: Instant,
}

impl End {
    fn new(role: Role, settings: Deflate, agreed: &Extensions) -> Self {
        let config = Config::new()
            .deflate(settings)
            .outgoing_high_water(usize::MAX)
            .write_timeout(None)
            .inbox_high_water(usize::MAX);
        Self {
            connection: Connection::new(role, config).with_extensions(agreed),
            watcher: Receiver::of(role, agreed.deflate().unwrap()),
            frames: Frames::default(),
            now: Instant::now(),
        }
    }

    /// Sends a message in one of the ways there are.
    fn send(&mut self, message: &Message, prepared: Option<&PreparedMessage>, random: &mut Random) {
        let connection = &mut self.connection;
        if let Some(prepared) = prepared {
            return connection.send_prepared(prepared).unwrap();
        }
        let compress = pick(random, &[Compress::Auto, Compress::Always, Compress::Never]);
        match (random.below(4), message) {
            (0, Message::Binary(whole)) => {
                let mut fragments = connection.start_binary().unwrap().compress(compress);
                let mut rest = whole.clone();
                while !rest.is_empty() && random.chance(70) {
                    let piece = rest.split_to(random.below(rest.len() + 1));
                    fragments.push(connection, piece).unwrap();
                    if random.chance(30) {
                        connection.ping(b"between").unwrap();
                    }
                    if random.chance(20) {
                        quiet(connection, &mut self.now);
                    }
                }
                fragments.finish(connection, rest).unwrap();
            }
            (1, _) => connection.send(message.clone()).unwrap(),
            _ => connection.send_with(message, compress).unwrap(),
        }
    }

    fn quiet(&mut self) {
        quiet(&mut self.connection, &mut self.now);
    }

    /// What is written, after a look at it.
    fn write(&mut self, sent: &[Message]) -> Vec<u8> {
        let output = written(&mut self.connection);
        self.frames.extend(&output);
        let mut sent = sent.iter();
        for (header, payload) in self.frames.by_ref() {
            if let Some(message) = self.watcher.frame(&header, &payload) {
                assert!(message == sent.next().unwrap().as_bytes());
            }
        }
        assert_eq!(sent.next(), None);
        output
    }

    fn read(&mut self, mut input: &[u8], random: &mut Random) {
        let most = pick(random, &[1, 20, 3000, usize::MAX]);
        while !input.is_empty() {
            let len = 1 + random.below(input.len().min(most));
            let (piece, rest) = input.split_at(len);
            input = rest;
            match self.connection.read_buf() {
                Some(buffer) if random.chance(50) => {
                    buffer.extend_from_slice(piece);
                    self.connection.receive(&[]);
                }
                _ => self.connection.receive(piece),
            }
        }
    }

    /// The next messages.
    fn received(&mut self, expected: &[Message]) {
        for message in expected {
            let received = loop {
                match self.connection.poll().unwrap().expect("a message") {
                    Event::Message(received) => break received,
                    Event::Ping(_) | Event::Pong(_) => {}
                    Event::Close(close) => panic!("{close:?}"),
                }
            };
            assert!(received == *message);
        }
    }
}

/// Lets time pass in which nothing was sent: one tick for what was sent before, and one for this.
fn quiet(connection: &mut Connection, now: &mut Instant) {
    for _ in 0..2 {
        connection.poll_timeout(*now);
        *now += Duration::from_secs(5);
        connection.handle_timeout(*now);
    }
}

/// Messages both ways, one after the other.
fn talk(ends: &mut [End; 2], messages: usize, random: &mut Random) {
    let mut before: Vec<Message> = Vec::new();
    let mut prepared: Vec<PreparedMessage> = Vec::new();
    let foreign = Deflate::new().pool(Pool::default()).threshold(0);
    for _ in 0..messages {
        let from = random.below(2);
        // Several in one write, at times.
        let batch = if random.chance(20) { 5 } else { 1 };
        let mut sent = Vec::new();
        for _ in 0..batch {
            let fresh = any_message(random, &before);
            let again = prepared.get(random.below(3 * prepared.len() + 1)).cloned();
            let ready = again.or_else(|| {
                random.chance(25).then(|| {
                    let ready = PreparedMessage::new(fresh.clone());
                    if random.chance(50) {
                        // Compressed by somebody whose window is none of ours.
                        ready.deflate(&foreign.clone().own_window_bits(any_bits(random)));
                    }
                    ready
                })
            });
            let message = ready
                .as_ref()
                .map_or(fresh, |ready| ready.message().clone());
            ends[from].send(&message, ready.as_ref(), random);
            prepared.extend(ready.filter(|_| prepared.len() < 10));
            before.push(message.clone());
            sent.push(message);
        }
        let output = ends[from].write(&sent);
        ends[1 - from].read(&output, random);
        ends[1 - from].received(&sent);
        // The pongs.
        let output = ends[1 - from].write(&[]);
        ends[from].read(&output, random);
        if random.chance(10) {
            ends[random.below(2)].quiet();
        }
    }
}

#[test]
fn any_message_comes_back_through_any_negotiation_cut_anywhere() {
    seeds(80, |random| {
        let pool = any_pool(random);
        let settings = [(); 2].map(|()| any_settings(random, &pool));
        let [client, server] = settings
            .clone()
            .map(|settings| Config::new().deflate(settings));
        let agreed = if random.chance(40) {
            // Declined altogether, where only the smallest window is offered.
            let agreed = agree(OFFERS[random.below(OFFERS.len())], &server);
            [agreed.clone(), agreed]
        } else {
            shake_hands(&client, &server)
        };
        // Our own offers can always be met.
        assert!(agreed[0].deflate().is_some());
        assert_windows(&agreed, &settings);
        let [client, server] = settings;
        let mut ends = [
            End::new(Role::Client, client, &agreed[0]),
            End::new(Role::Server, server, &agreed[1]),
        ];
        talk(&mut ends, 30, random);
    });
}

/// Both ends have understood the same, or the client promises more than it was asked for.
fn assert_windows(agreed: &[Extensions; 2], settings: &[Deflate; 2]) {
    let [client, server] = [0, 1].map(|end| *agreed[end].deflate().unwrap());
    for role in [Role::Client, Role::Server] {
        assert_eq!(client.own_takeover(role), server.own_takeover(role));
    }
    let bits = |agreed: &DeflateParameters, role| agreed.own_window_bits(role);
    assert!(bits(&client, Role::Client) <= bits(&server, Role::Client));
    assert_eq!(bits(&client, Role::Server), bits(&server, Role::Server));
    assert!(bits(&server, Role::Server) <= Some(settings[1].own_window_bits));
}

#[test]
fn prepared_messages_among_others_inflate_whether_the_window_covers_them_or_not() {
    seeds(15, |random| {
        let pool = any_pool(random);
        // Many sockets with windows of all sizes, and messages that all of them get.
        let mut sockets: Vec<_> = (0..6)
            .map(|_| {
                let settings = any_settings(random, &pool);
                let offer = format!("permessage-deflate; server_max_window_bits={}", {
                    9 + random.below(7)
                });
                let config = Config::new().deflate(settings.clone());
                let agreed = agree(&offer, &config);
                (
                    End::new(Role::Server, settings.clone(), &agreed),
                    End::new(Role::Client, settings, &agreed),
                )
            })
            .collect();
        let mut before = Vec::new();
        for _ in 0..30 {
            let message = any_message(random, &before);
            before.push(message.clone());
            let prepared = PreparedMessage::new(message.clone());
            let everyone = random.chance(50);
            let start = random.below(sockets.len());
            for place in 0..sockets.len() {
                let len = sockets.len();
                let (server, client) = &mut sockets[(start + place) % len];
                if everyone {
                    server.send(&message, Some(&prepared), random);
                } else {
                    server.send(&message, None, random);
                }
                let output = server.write(std::slice::from_ref(&message));
                client.read(&output, random);
                client.received(std::slice::from_ref(&message));
                let pongs = client.write(&[]);
                server.read(&pongs, random);
            }
            if random.chance(10) {
                sockets[start].0.quiet();
            }
        }
        drop(sockets);
        assert_eq!(pool.statistics().kept_compressors, 0);
    });
}

#[test]
fn messages_of_another_compressor_are_read_at_every_level_and_in_any_pieces() {
    seeds(40, |random| {
        let agreed = agree(OFFERS[0], &Config::new().deflate(Deflate::new()));
        let mut client = End::new(Role::Client, Deflate::new(), &agreed);
        for _ in 0..10 {
            let message = any_message(random, &[]);
            let first = if message.is_text() { 0xc1 } else { 0xc2 };
            let level = u32::from(small(random, 10));
            let payload = compressed(message.as_bytes(), level);
            let mut bytes = Vec::new();
            let mut rest = &*payload;
            let mut opcode = first & 0x4f;
            while random.chance(50) {
                let (piece, behind) = rest.split_at(random.below(rest.len() + 1));
                bytes.extend(ws_tests::wire::frame(opcode, None, piece));
                rest = behind;
                opcode = 0;
            }
            bytes.extend(ws_tests::wire::frame(opcode | 0x80, None, rest));
            client.read(&bytes, random);
            client.received(&[message]);
        }
    });
}

#[test]
fn the_strict_receiver_is_strict() {
    let noise = Random::new(7692).bytes(600);
    let twice = [&*noise, &*noise].concat();
    let payload = compressed(&twice, 6);
    assert!(payload.len() < 700);
    let receiver = |bits| Receiver::new(bits, Takeover::Allowed);
    assert_eq!(receiver(10).inflate(&payload), Some(twice));
    assert_eq!(receiver(9).inflate(&payload), None);
    // RFC 7692 §7.2.3.2
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let again = [0xf2, 0x00, 0x11, 0x00, 0x00];
    for (takeover, expected) in [
        (Takeover::Allowed, Some(b"Hello".to_vec())),
        (Takeover::Forbidden, None),
    ] {
        let mut receiver = Receiver::new(9, takeover);
        assert_eq!(receiver.inflate(&hello), Some(b"Hello".to_vec()));
        assert_eq!(receiver.inflate(&again), expected);
    }
}

#[test]
fn what_the_server_answers_is_confirmed_by_the_client_for_all_settings() {
    seeds(500, |random| {
        let pool = Pool::default();
        let settings = [(); 2].map(|()| any_settings(random, &pool));
        let [client, server] = settings
            .clone()
            .map(|settings| Config::new().deflate(settings));
        let agreed = shake_hands(&client, &server);
        assert_windows(&agreed, &settings);
        let none = Config::new().deflate(None);
        for (client, server) in [(&client, &none), (&none, &server), (&none, &none)] {
            let agreed = shake_hands(client, server);
            assert!(agreed.iter().all(Extensions::is_none));
        }
    });
}

#[test]
fn a_message_of_the_smallest_window_is_read_by_a_server_that_keeps_it() {
    // A client that offers 8 bits compresses with 256 bytes: here, by not reaching back at all.
    let settings = Deflate::new().peer_takeover(Takeover::Allowed);
    let config = Config::new().deflate(settings.clone());
    let agreed = agree("permessage-deflate; client_max_window_bits=8", &config);
    let mut server = End::new(Role::Server, settings, &agreed);
    for _ in 0..3 {
        let message = Message::binary(vec![7; 200]);
        let payload = compressed(message.as_bytes(), 6);
        let frame = ws_tests::wire::frame(0xc2, Some([1, 2, 3, 4]), &payload);
        server.connection.receive(&frame);
        server.received(&[message]);
    }
}

#[test]
fn an_offer_that_cannot_be_met_is_declined_and_a_required_one_refused() {
    let request = |offer: &str| {
        let handshake = Handshake::new(&"ws://localhost/".parse().unwrap()).unwrap();
        let mut request: Request<()> = handshake.request();
        let headers = request.headers_mut();
        headers.insert(SEC_WEBSOCKET_EXTENSIONS, offer.parse().unwrap());
        Offer::from_request(&request.into_parts().0).unwrap()
    };
    for offer in [
        "",
        "permessage-deflate; server_max_window_bits=8",
        "permessage-deflate; unknown",
        "permessage-deflate; server_no_context_takeover=1",
        "x-webkit-deflate-frame",
        "permessage-deflate; client_max_window_bits=7",
    ] {
        let optional = Config::new().deflate(Deflate::new());
        let (response, accepted) = request(offer)
            .negotiate(&optional)
            .unwrap()
            .accept(None)
            .unwrap();
        assert!(accepted.extensions().is_none());
        assert!(!response.headers().contains_key(SEC_WEBSOCKET_EXTENSIONS));
        let required = Config::new().deflate(Deflate::new().required());
        let refusal = request(offer).negotiate(&required).unwrap_err();
        assert_eq!(refusal.status(), 400);
        let text = refusal.to_string();
        assert!(
            text.contains("permessage-deflate") && text.contains(offer),
            "{text}"
        );
    }
}

#[test]
fn a_large_payload_by_reference_is_never_mixed_up_with_compressed_ones() {
    let settings = Deflate::new().threshold(0);
    let agreed = agree(OFFERS[0], &Config::new().deflate(settings.clone()));
    let mut server = End::new(Role::Server, settings.clone(), &agreed);
    let mut client = End::new(Role::Client, settings, &agreed);
    let random = &mut Random::new(1);
    let noise = Message::binary(random.bytes(40_000));
    let text = Message::text("abc".repeat(20_000));
    let prepared = [&noise, &text].map(|message| PreparedMessage::new(message.clone()));
    let mut sent = Vec::new();
    for round in 0..4 {
        for message in [&noise, &text] {
            server.connection.send_ref(message).unwrap();
            let how = [Compress::Never, Compress::Always][round % 2];
            server.connection.send_with(message, how).unwrap();
            sent.extend([message.clone(), message.clone()]);
        }
        for prepared in &prepared {
            server.connection.send_prepared(prepared).unwrap();
            sent.push(prepared.message().clone());
        }
        let mut fragments = server.connection.start_binary().unwrap();
        fragments
            .push(&mut server.connection, Bytes::from(vec![1; 20_000]))
            .unwrap();
        fragments
            .finish(&mut server.connection, random.bytes(20_000))
            .unwrap();
        let output = written(&mut server.connection);
        client.read(&output, random);
        client.received(&sent[round * 6..]);
        assert!(client.connection.poll().unwrap().is_some());
    }
}
