//! Compression, both ways: `cargo bench -p ws-core --features deflate --bench deflate`.
//!
//! The messages are 200 different ones of about 1,024 bytes of JSON, in turn. *Kept* is a
//! connection that keeps its compressor from message to message, *fresh* one that has agreed not
//! to. A time is the least of many rounds, because a round is short and what disturbs it only adds
//! to it. It measures through [`Connection`], so framing, masking and queues are in it.

use std::{hint::black_box, sync::Arc, time::Instant};

use bytes::Buf;
use http::{HeaderMap, header::SEC_WEBSOCKET_EXTENSIONS};
use ws_core::{
    Compress, Config, Connection, Deflate, Event, Message, Role, Scratch,
    deflate::{Level, Pool, PoolConfig, Takeover},
    handshake::extensions::{self, Extensions},
};

/// How many different messages there are.
const MESSAGES: usize = 200;

/// How often each is measured.
const ROUNDS: usize = 61;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let messages: Vec<_> = (0..MESSAGES).map(json).collect();
    let size: usize = messages.iter().map(Message::len).sum();
    println!("messages of {} bytes\n", size / MESSAGES);

    println!(
        "| window | level | kept: bytes | deflate | inflate | fresh: bytes | deflate | inflate |"
    );
    println!("|---|---|--:|--:|--:|--:|--:|--:|");
    for bits in [15, 12, 9] {
        for level in 1..=9 {
            let [kept, fresh] = [Takeover::Allowed, Takeover::Forbidden].map(|takeover| {
                let ends = Ends::new(bits, level, takeover)?;
                let (deflate, wire) = ends.deflate(1, &messages);
                Ok(format!(
                    "{} | {} | {}",
                    wire.iter().map(Vec::len).sum::<usize>() / MESSAGES,
                    micros(deflate),
                    micros(ends.inflate(&wire)),
                ))
            });
            let kept: Result<String, Box<dyn std::error::Error>> = kept;
            println!("| {bits} | {level} | {} | {} |", kept?, fresh?);
        }
    }

    println!("\n| busy connections in turn | kept: deflate | fresh: deflate |");
    println!("|--:|--:|--:|");
    for connections in [1, 4, 16, 64, 256] {
        let [kept, fresh] = [Takeover::Allowed, Takeover::Forbidden].map(|takeover| {
            Ends::new(15, 1, takeover).map(|ends| ends.deflate(connections, &messages).0)
        });
        println!("| {connections} | {} | {} |", micros(kept?), micros(fresh?));
    }

    println!("\n| message | bytes | deflate | inflate |");
    println!("|---|--:|--:|--:|");
    let mut parts = messages.iter().filter_map(Message::as_text).cycle();
    let mut long = |len: usize| {
        let parts = parts.by_ref().take(len >> 10);
        Message::text(parts.collect::<String>())
    };
    for (name, messages) in [
        (
            "JSON, 16 KiB",
            vec![
                long(16 << 10),
                long(16 << 10),
                long(16 << 10),
                long(16 << 10),
            ],
        ),
        ("JSON, 64 KiB", vec![long(64 << 10)]),
        ("JSON, 1 MiB", vec![long(1 << 20)]),
        ("noise, 1 KiB", vec![Message::binary(noise(1 << 10))]),
        ("noise, 64 KiB", vec![Message::binary(noise(64 << 10))]),
        ("noise, 1 MiB", vec![Message::binary(noise(1 << 20))]),
    ] {
        let ends = Ends::new(15, 1, Takeover::Allowed)?;
        let (deflate, wire) = ends.deflate(1, &messages);
        let inflate = ends.inflate(&wire);
        let bytes = wire[0].len();
        println!(
            "| {name} | {bytes} | {} | {} |",
            micros(deflate),
            micros(inflate)
        );
    }
    Ok(())
}

/// How the two ends of a connection are made.
struct Ends {
    config: Arc<Config>,
    agreed: Extensions,
}

impl Ends {
    fn new(bits: u8, level: u8, takeover: Takeover) -> Result<Self, Box<dyn std::error::Error>> {
        let mut offer = format!("permessage-deflate; server_max_window_bits={bits}");
        if takeover == Takeover::Forbidden {
            offer.push_str("; server_no_context_takeover");
        }
        let pool = Pool::new(PoolConfig::new().kept_compressors(1000));
        let deflate = Deflate::new().level(Level::new(level)?).pool(pool);
        let config = Config::new().max_message_size(2 << 20).deflate(deflate);
        let mut headers = HeaderMap::new();
        headers.insert(SEC_WEBSOCKET_EXTENSIONS, offer.parse()?);
        let agreed = Extensions::negotiate(&extensions::parse(&headers)?, &config)?;
        Ok(Self {
            config: Arc::new(config),
            agreed,
        })
    }

    fn end(&self, role: Role) -> Connection {
        Connection::new(role, Arc::clone(&self.config)).with_extensions(&self.agreed)
    }

    /// The nanoseconds that a message takes on `connections` in turn, and what the first of them
    /// sent of each message when it sent them all.
    fn deflate(&self, connections: usize, messages: &[Message]) -> (f64, Vec<Vec<u8>>) {
        let mut scratch = Scratch::default();
        let mut first = self.end(Role::Server);
        let wire = messages
            .iter()
            .map(|message| {
                let mut bytes = Vec::new();
                send(&mut first, &mut scratch, message, |chunk| {
                    bytes.extend_from_slice(chunk);
                });
                bytes
            })
            .collect();
        drop(first);

        let mut servers: Vec<_> = (0..connections).map(|_| self.end(Role::Server)).collect();
        let mut number = 0;
        // Each connection has all messages in turn, as one alone has: none comes again soon.
        let turns = messages.len().div_ceil(connections);
        let nanos = least(turns * connections, || {
            for _ in 0..turns {
                number += 1;
                for (place, server) in servers.iter_mut().enumerate() {
                    let message = &messages[(number + place) % messages.len()];
                    send(server, &mut scratch, message, |chunk| {
                        black_box(chunk);
                    });
                }
            }
        });
        (nanos, wire)
    }

    /// The nanoseconds that a client takes for one of these messages.
    fn inflate(&self, wire: &[Vec<u8>]) -> f64 {
        least(wire.len(), || {
            let mut client = self.end(Role::Client);
            for bytes in wire {
                client.receive(black_box(bytes));
                match client.poll() {
                    Ok(Some(Event::Message(message))) => drop(black_box(message)),
                    event => panic!("no message: {event:?}"),
                }
            }
        })
    }
}

/// Sends a message and writes it.
fn send(
    connection: &mut Connection,
    scratch: &mut Scratch,
    message: &Message,
    mut write: impl FnMut(&[u8]),
) {
    connection.lend(scratch);
    let sent = connection.send_with(black_box(message), Compress::Auto);
    sent.expect("it is open and writable");
    while connection.wants_write() {
        let mut transmit = connection.transmit();
        let len = transmit.chunk().len();
        write(transmit.chunk());
        transmit.advance(len);
    }
    connection.release(scratch);
}

/// The least time for each of `count` in a round, in nanoseconds.
fn least(count: usize, mut round: impl FnMut()) -> f64 {
    let mut round = || {
        let start = Instant::now();
        round();
        start.elapsed().as_secs_f64()
    };
    let seconds = (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min);
    seconds * 1e9 / as_float(count)
}

fn micros(nanos: f64) -> String {
    match nanos {
        ..100_000.0 => format!("{:.1} µs", nanos / 1e3),
        _ => format!("{:.0} µs", nanos / 1e3),
    }
}

/// About 1 KiB of JSON, different for each number.
fn json(number: usize) -> Message {
    let names = ["alice", "bob", "carol", "dave", "erin"];
    let item = |item: usize| {
        let mixed = (number * 14 + item).wrapping_mul(2_654_435_761) >> 7;
        format!(
            r#"{{"id":{},"user":"{}","price":{}.{:02},"online":{},"note":"n{}"}}"#,
            mixed % 100_000,
            names[mixed % 5],
            mixed % 997,
            mixed % 89,
            mixed.is_multiple_of(3),
            mixed % 1009,
        )
    };
    let items: Vec<_> = (0..14).map(item).collect();
    let items = items.join(",");
    Message::text(format!(
        r#"{{"type":"update","seq":{number},"items":[{items}]}}"#
    ))
}

/// Bytes that do not shrink.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| step()).collect()
}

#[expect(clippy::cast_precision_loss, reason = "three digits are printed")]
fn as_float(number: usize) -> f64 {
    number as f64
}
