//! The codec, both ways: `cargo bench -p ws-core --bench codec [-- FILTER]`.
//!
//! What a driver does, without its system calls: frames come in reads of 64 KiB, events are taken
//! one by one, and what is sent is written when 64 KiB have come together or the queue is full,
//! into a buffer that is lent. A line is the median of eleven samples. It measures by hand,
//! because what counts is the price of a message in a batch, and that of no single call.

use std::{
    env,
    hint::black_box,
    time::{Duration, Instant},
};

use bytes::Buf;
use ws_core::{Config, Connection, Event, Message, PreparedMessage, Role, Scratch};

/// What one read brings, and one write takes.
const BATCH: usize = 64 << 10;

const SAMPLES: usize = 11;
const SAMPLE: Duration = Duration::from_millis(30);

const SIZES: [(&str, usize); 6] = [
    ("20 B", 20),
    ("128 B", 128),
    ("1 KiB", 1 << 10),
    ("16 KiB", 16 << 10),
    ("64 KiB", 64 << 10),
    ("1 MiB", 1 << 20),
];

fn main() {
    let filter = env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let filter = filter.unwrap_or_default();
    println!("{:<34} {:>12} {:>8}", "", "ns/message", "GB/s");
    for (kind, message) in [
        ("binary", binary as fn(usize) -> Message),
        ("ascii", ascii),
        ("mixed", mixed),
    ] {
        for (size, len) in SIZES {
            let message = message(len);
            let print = |what: &str, bench: &mut dyn FnMut() -> usize| {
                let name = format!("{what} {kind} {size}");
                if name.contains(&filter) {
                    let nanos = measure(bench);
                    let speed = as_float(message.len()) / nanos;
                    println!("{name:<34} {nanos:>12.1} {speed:>8.2}");
                }
            };
            print("encode server", &mut encode(Role::Server, &message));
            print("encode client", &mut encode(Role::Client, &message));
            print("encode prepared", &mut prepared(&message));
            print("decode server", &mut decode(Role::Server, &message));
            print("decode client", &mut decode(Role::Client, &message));
        }
    }
}

fn binary(len: usize) -> Message {
    Message::binary(vec![7; len])
}

fn ascii(len: usize) -> Message {
    Message::text("x".repeat(len))
}

/// Two bytes, three, one and four, as text of several scripts has them.
fn mixed(len: usize) -> Message {
    let mut text = "grün 日本 😀 ".repeat(len / 20 + 1);
    let end = (0..=len).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    Message::text(text)
}

fn config() -> Config {
    Config::new().max_message_size(2 << 20)
}

/// Sends messages and writes them; returns how many.
fn send_batch(
    connection: &mut Connection,
    scratch: &mut Scratch,
    mut send: impl FnMut(&mut Connection),
) -> usize {
    let mut count = 0;
    connection.lend(scratch);
    while connection.is_writable() {
        send(connection);
        count += 1;
    }
    while connection.wants_write() {
        let mut transmit = connection.transmit();
        let len = black_box(transmit.chunk()).len();
        transmit.advance(len);
    }
    connection.release(scratch);
    count
}

fn encode(role: Role, message: &Message) -> impl FnMut() -> usize {
    let mut connection = Connection::new(role, config());
    let mut scratch = Scratch::default();
    move || {
        send_batch(&mut connection, &mut scratch, |connection| {
            let sent = connection.send(black_box(message).clone());
            sent.expect("it is open and writable");
        })
    }
}

fn prepared(message: &Message) -> impl FnMut() -> usize {
    let message = PreparedMessage::new(message.clone());
    let mut connection = Connection::new(Role::Server, config());
    let mut scratch = Scratch::default();
    move || {
        send_batch(&mut connection, &mut scratch, |connection| {
            let sent = connection.send_prepared(black_box(&message));
            sent.expect("it is open and writable");
        })
    }
}

/// Frames of the other role, as many as one read brings, or one.
fn decode(role: Role, message: &Message) -> impl FnMut() -> usize {
    let other = match role {
        Role::Client => Role::Server,
        Role::Server => Role::Client,
    };
    let count = (BATCH / (message.len() + 8)).max(1);
    let mut sender = Connection::new(other, config().outgoing_high_water(usize::MAX));
    for _ in 0..count {
        let sent = sender.send(message.clone());
        sent.expect("it is open and writable");
    }
    let mut input = Vec::new();
    while sender.wants_write() {
        let mut transmit = sender.transmit();
        let len = transmit.chunk().len();
        input.extend_from_slice(transmit.chunk());
        transmit.advance(len);
    }
    let mut receiver = Connection::new(role, config());
    move || {
        let mut taken = 0;
        for read in input.chunks(BATCH) {
            match receiver.read_buf() {
                Some(buffer) => {
                    buffer.extend_from_slice(black_box(read));
                    receiver.receive(&[]);
                }
                None => receiver.receive(black_box(read)),
            }
            while let Ok(Some(event)) = receiver.poll() {
                let Event::Message(message) = event else {
                    continue;
                };
                drop(black_box(message));
                taken += 1;
            }
        }
        assert_eq!(taken, count);
        taken
    }
}

/// The time of a message in nanoseconds: the median of some samples.
fn measure(bench: &mut dyn FnMut() -> usize) -> f64 {
    let mut sample = || {
        let (start, mut count) = (Instant::now(), 0);
        while start.elapsed() < SAMPLE {
            count += bench();
        }
        start.elapsed().as_secs_f64() * 1e9 / as_float(count)
    };
    sample();
    let mut samples: Vec<_> = (0..SAMPLES).map(|_| sample()).collect();
    samples.sort_by(f64::total_cmp);
    samples[SAMPLES / 2]
}

#[expect(clippy::cast_precision_loss, reason = "three digits are printed")]
fn as_float(number: usize) -> f64 {
    number as f64
}
