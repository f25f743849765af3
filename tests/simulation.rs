//! Two engines over a simulated wire that cuts, delays, merges and loses, with a simulated clock.
//!
//! Everything follows from a seed. `SIMULATION_SEED=n` runs that one alone, and
//! `SIMULATION_SEEDS=n` runs so many; a failure prints its seed.
//!
//! At each step: buffers within their bounds, no event after the Close or an error, at most one
//! Close each way and nothing behind it, messages whole and in order, and nothing is waited for
//! that does not come. In the end both ends are done, within a bounded simulated time; and on a
//! wire without faults every message has arrived and both have said Close. Some worlds have agreed on
//! compression, with small windows and a small pool.

use std::{
    collections::VecDeque,
    env,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    thread,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use ws_core::{
    CloseCode, CloseFrame, Compress, Config, Connection, ConnectionError, Deflate, Event, Message,
    Outgoing, PreparedMessage, Role, Scratch, SendError,
    connection::Fragments,
    deflate::{Pool, PoolConfig, Takeover},
    frame::OpCode,
    handshake::extensions::Extensions,
};
use ws_tests::{
    deflate::{Receiver, agree},
    random::Random,
    wire::Frames,
};

/// Seeds in an ordinary run.
const SEEDS: u64 = 10_000;

/// The largest message sent, in bytes: large enough for `read_buf` and for payloads by reference.
const MAX_MESSAGE: usize = 40_000;

/// How long an end may take: the sum of all deadlines, and the time on the wire.
const LIMIT: Duration = Duration::from_secs(300);

/// What is wrong with the wire or an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Nothing.
    None,
    /// From some time on, what is written goes nowhere.
    Vanish,
    /// From some time on, nothing more can be written.
    Stall,
    /// The stream ends amid anything.
    End,
    /// A byte is lost or changed.
    Corrupt,
    /// The application takes nothing more.
    Sleep,
}

/// One direction of the wire.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fault of its own")]
struct Pipe {
    segments: VecDeque<(Instant, Vec<u8>)>,
    capacity: usize,
    vanishes: bool,
    stalls: bool,
    ended: bool,
    end_taken: bool,
}

impl Pipe {
    fn room(&self) -> usize {
        match self {
            Self { stalls: true, .. } => 0,
            Self { vanishes: true, .. } | Self { ended: true, .. } => usize::MAX,
            _ => {
                let flying: usize = self.segments.iter().map(|(_, bytes)| bytes.len()).sum();
                self.capacity.saturating_sub(flying)
            }
        }
    }

    fn write(&mut self, arrival: Instant, bytes: &[u8]) {
        if !self.vanishes && !self.ended {
            let last = self.segments.back().map_or(arrival, |(last, _)| *last);
            self.segments.push_back((last.max(arrival), bytes.to_vec()));
        }
    }

    /// What has arrived, of several writes perhaps, at most `len` bytes.
    fn read(&mut self, now: Instant, len: usize) -> Vec<u8> {
        let mut read = Vec::new();
        while let Some((arrival, bytes)) = self.segments.front_mut() {
            if *arrival > now || read.len() == len {
                break;
            }
            let piece = bytes.len().min(len - read.len());
            read.extend(bytes.drain(..piece));
            if bytes.is_empty() {
                self.segments.pop_front();
            }
        }
        read
    }

    fn next_arrival(&self) -> Option<Instant> {
        self.segments.front().map(|(arrival, _)| *arrival)
    }
}

/// One end: a connection, its application, and what is known of it.
#[expect(clippy::struct_excessive_bools, reason = "they are independent facts")]
struct End {
    connection: Connection,
    /// The messages that the application has sent.
    sent: Vec<Message>,
    fragments: Option<(Fragments<Bytes>, Vec<u8>)>,
    /// How many of the peer's messages the application has received.
    received: usize,
    /// The application has been told the end.
    is_told: bool,
    discards: bool,
    sleeps: bool,
    error: Option<ConnectionError>,
    is_done: bool,
    /// A batch that is being written while the connection is used.
    batch: Option<Outgoing>,
    output: Output,
}

/// What an end has written, as frames.
#[derive(Default)]
struct Output {
    frames: Frames,
    receiver: Option<Receiver>,
    message: Vec<u8>,
    messages: usize,
    closed: bool,
}

impl End {
    fn new(role: Role, settings: Deflate, agreed: &Extensions, random: &mut Random) -> Self {
        let config = Config::new()
            .inbox_high_water(random.below(3000))
            .outgoing_high_water(random.below(6000))
            // What a fault makes of something compressed is bounded too.
            .max_message_size(MAX_MESSAGE)
            .deflate(settings);
        let connection = Connection::new(role, config)
            .with_extensions(agreed)
            .with_mask_keys(|| [1, 2, 3, 4]);
        let output = Output {
            receiver: agreed.deflate().map(|agreed| Receiver::of(role, agreed)),
            ..Output::default()
        };
        let wanted = random.chance(70);
        Self {
            connection: if wanted {
                connection
            } else {
                connection.without_control_events()
            },
            sent: Vec::new(),
            fragments: None,
            received: 0,
            is_told: false,
            discards: false,
            sleeps: false,
            error: None,
            is_done: false,
            batch: None,
            output,
        }
    }

    /// What holds at all times.
    fn check(&mut self) {
        let connection = &self.connection;
        let config = connection.config();
        let event = MAX_MESSAGE + 64;
        assert!(connection.inbox_size() < config.inbox_high_water.max(1) + event);
        assert!(connection.outgoing_size() < config.outgoing_high_water.max(1) + 2 * event);
        if !connection.wants_write() {
            assert_eq!(connection.outgoing_size(), 0);
        }
        if let Some(error) = self.error {
            assert_eq!(connection.error(), Some(error), "an error is for ever");
        }
        self.error = connection.error();
        assert!(!self.is_done || connection.is_done(), "done is for ever");
        self.is_done = connection.is_done();
        let has_ended = connection.close_sent().is_some()
            || connection.close_received().is_some()
            || connection.error().is_some();
        assert_eq!(connection.is_open(), !has_ended);
    }

    /// Follows what is written: valid frames, whole messages in order, one Close as the last.
    fn check_output(&mut self, written: &[u8]) {
        let output = &mut self.output;
        output.frames.extend(written);
        for (header, payload) in output.frames.by_ref() {
            assert!(!output.closed, "{:?} after the Close", header.opcode);
            let masks = self.connection.role() == Role::Client;
            assert_eq!(header.mask.is_some(), masks);
            if let Some(receiver) = &mut output.receiver {
                if let Some(message) = receiver.frame(&header, &payload) {
                    assert!(message == self.sent[output.messages].as_bytes());
                    output.messages += 1;
                }
                output.closed |= header.opcode == OpCode::Close;
                continue;
            }
            assert!(!header.rsv1);
            match header.opcode {
                OpCode::Close => output.closed = true,
                OpCode::Ping | OpCode::Pong => {}
                _ => {
                    output.message.extend_from_slice(&payload);
                    if header.fin {
                        let message = std::mem::take(&mut output.message);
                        assert!(message == self.sent[output.messages].as_bytes());
                        output.messages += 1;
                    }
                }
            }
        }
    }

    /// The application does something.
    fn command(&mut self, random: &mut Random) {
        let connection = &mut self.connection;
        let was_open = connection.is_open();
        let was_writable = connection.is_writable();
        let was_unfinished = self.fragments.is_some();
        let result = match random.below(40) {
            0 => connection.close(CloseFrame::truncated(CloseCode::GOING_AWAY, "bye")),
            1..6 => connection.ping(&vec![7; random.below(126)]),
            6 => {
                connection.probe();
                Ok(())
            }
            7..10 => connection.start_binary().map(|fragments| {
                let how = [Compress::Auto, Compress::Always][random.below(2)];
                self.fragments = Some((fragments.compress(how), Vec::new()));
            }),
            10..20 if was_unfinished => {
                let Some((mut fragments, mut whole)) = self.fragments.take() else {
                    return;
                };
                let len = random.below(300);
                let piece = random.bytes(len);
                if random.chance(60) {
                    let result = fragments.push(connection, piece.clone());
                    if result.is_ok() {
                        whole.extend_from_slice(&piece);
                    }
                    self.fragments = Some((fragments, whole));
                    result
                } else {
                    whole.extend_from_slice(&piece);
                    let result = fragments.finish(connection, piece);
                    if result.is_ok() {
                        self.sent.push(Message::binary(whole));
                    }
                    result
                }
            }
            kind => {
                let len = match random.below(60) {
                    0 => random.below(MAX_MESSAGE),
                    1..4 => random.below(3000),
                    _ => random.below(200),
                };
                let message = if kind % 2 == 0 {
                    Message::text("ü".repeat(len / 2))
                } else {
                    Message::binary(random.bytes(len))
                };
                let result = match kind % 3 {
                    0 => connection.send_prepared(&PreparedMessage::new(message.clone())),
                    1 => connection.send_with(&message, Compress::Always),
                    _ => connection.send(message.clone()),
                };
                if result.is_ok() {
                    self.sent.push(message);
                }
                result
            }
        };
        match result {
            Ok(()) => {}
            Err(SendError::Closed) => assert!(!was_open),
            Err(SendError::Full) => assert!(was_open && !was_writable),
            Err(SendError::MessageUnfinished) => assert!(was_open && was_unfinished),
            Err(error) => panic!("{error}"),
        }
    }
}

/// How both ends compress, and what they have agreed on: in most worlds, nothing.
fn negotiation(random: &mut Random) -> (Deflate, Extensions) {
    let pool = PoolConfig::new()
        .kept_compressors(random.below(2))
        .spare_compressors(1)
        .spare_decompressors(1);
    let mut settings = Deflate::new()
        .pool(Pool::new(pool))
        .threshold(random.below(100));
    if random.chance(70) {
        settings = settings.peer_takeover(Takeover::Allowed);
    }
    if !random.chance(30) {
        return (settings, Extensions::none());
    }
    let bits = [9, 15][random.below(2)];
    let offer = format!("permessage-deflate; server_max_window_bits={bits}");
    let agreed = agree(&offer, &Config::new().deflate(settings.clone()));
    (settings, agreed)
}

struct World {
    now: Instant,
    random: Random,
    fault: Fault,
    ends: [End; 2],
    /// From each end to the other.
    pipes: [Pipe; 2],
    delay: Duration,
    /// Both work in the same room.
    scratch: Scratch,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let fault = match random.below(12) {
            0 => Fault::Vanish,
            1 => Fault::Stall,
            2 => Fault::End,
            3 => Fault::Corrupt,
            4 => Fault::Sleep,
            _ => Fault::None,
        };
        let pipe = |capacity| Pipe {
            capacity,
            ..Pipe::default()
        };
        let mut capacity = || 2000 + random.below(20_000);
        let pipes = [pipe(capacity()), pipe(capacity())];
        let slow = fault != Fault::None && random.chance(30);
        let (settings, agreed) = negotiation(&mut random);
        Self {
            now: Instant::now(),
            fault,
            ends: [
                End::new(Role::Client, settings.clone(), &agreed, &mut random),
                End::new(Role::Server, settings, &agreed, &mut random),
            ],
            pipes,
            delay: Duration::from_millis(if slow { 1000 } else { 3 }),
            scratch: Scratch::default(),
            random,
        }
    }

    fn run(&mut self) {
        // The applications talk.
        let steps = self.random.below(150);
        let fault_at = self.random.below(steps + 1);
        for step in 0..steps {
            if step == fault_at {
                self.strike();
            }
            let index = self.random.below(2);
            match self.random.below(10) {
                0..2 => self.ends[index].command(&mut self.random),
                2..5 => drop(self.read(index)),
                5..7 => drop(self.write(index)),
                7..9 => drop(self.poll(index)),
                _ => {
                    // On a wire without faults no deadline comes near.
                    let unit = if self.fault == Fault::None { 5 } else { 3000 };
                    let wait = self.random.below(unit) as u64;
                    self.advance(self.now + Duration::from_millis(wait));
                }
            }
            self.ends[index].check();
        }
        self.strike();
        // They have done, one or both.
        let first = self.random.below(2);
        let both = self.random.chance(30);
        for index in [first, 1 - first] {
            let End {
                connection, sleeps, ..
            } = &mut self.ends[index];
            // One that takes nothing holds its connection for as long as it likes: it is given up.
            if connection.is_open() && (index == first || both || *sleeps) {
                let code = self.random.chance(50).then_some(CloseCode::NORMAL);
                assert_eq!(connection.close(code.map(CloseFrame::from)), Ok(()));
            }
        }
        self.finish();
    }

    /// The fault happens.
    fn strike(&mut self) {
        let index = self.random.below(2);
        match self.fault {
            Fault::None | Fault::Corrupt => {}
            Fault::Vanish => self.pipes[index].vanishes = true,
            Fault::Stall => self.pipes[index].stalls = true,
            Fault::End => self.pipes[index].ended = true,
            Fault::Sleep => self.ends[index].sleeps = true,
        }
    }

    /// Lets both ends go on until they are done.
    fn finish(&mut self) {
        let start = self.now;
        for round in 0.. {
            assert!(round < 10_000, "no end");
            let mut progress = false;
            for index in [0, 1] {
                progress |= self.read(index);
                progress |= self.poll(index);
                progress |= self.write(index);
                self.ends[index].check();
            }
            if self.ends.iter().all(|end| end.is_done) {
                break;
            }
            if !progress {
                // Only time can help: there must be something that it brings.
                let deadlines = self.ends.iter_mut().filter_map(|end| {
                    let due = end.connection.poll_timeout(self.now)?;
                    assert!(due > self.now, "a deadline that has passed is acted upon");
                    Some(due)
                });
                let arrivals = self.pipes.iter().filter_map(Pipe::next_arrival);
                let next = deadlines.chain(arrivals).filter(|due| *due > self.now);
                let next = next.min().expect("nothing to wait for, and no end");
                self.advance(next);
            }
            let elapsed = self.now - start;
            assert!(elapsed < LIMIT, "{elapsed:?}");
        }
        // What has arrived before the end can still be taken.
        for index in [0, 1] {
            while self.poll(index) {}
        }
        if self.fault == Fault::None {
            let [a, b] = &self.ends;
            for (end, peer) in [(a, b), (b, a)] {
                assert_eq!(end.error, None);
                assert!(end.connection.close_sent().is_some());
                assert!(end.connection.close_received().is_some());
                assert_eq!(end.received, peer.sent.len());
                assert_eq!(end.output.messages, end.sent.len());
                assert!(end.output.closed && !end.output.frames.is_cut());
            }
        }
    }

    fn advance(&mut self, to: Instant) {
        // Deadlines start when somebody looks at them.
        for end in &mut self.ends {
            end.connection.poll_timeout(self.now);
        }
        self.now = to;
        for end in &mut self.ends {
            end.connection.handle_timeout(to);
            assert!(
                !end.connection.wants_clock() || end.connection.poll_timeout(to).is_some(),
                "a clock is wanted for nothing"
            );
        }
    }

    /// An end reads; whether there was something.
    fn read(&mut self, index: usize) -> bool {
        let end = &mut self.ends[index];
        let pipe = &mut self.pipes[1 - index];
        if end.is_done || !end.connection.wants_read() {
            return false;
        }
        let len = match self.random.below(3) {
            0 => 1 + self.random.below(20),
            1 => 1 + self.random.below(1000),
            _ => 64 << 10,
        };
        let mut bytes = pipe.read(self.now, len);
        if bytes.is_empty() {
            if !pipe.ended || pipe.next_arrival().is_some() || pipe.end_taken {
                return false;
            }
            pipe.end_taken = true;
            end.connection.receive_eof();
            return true;
        }
        if self.fault == Fault::Corrupt && self.random.chance(5) {
            let place = self.random.below(bytes.len());
            if self.random.chance(50) {
                bytes.remove(place);
            } else {
                bytes[place] ^= 1 << self.random.below(8);
            }
        }
        match end.connection.read_buf() {
            Some(buffer) if self.random.chance(70) => {
                buffer.extend_from_slice(&bytes);
                end.connection.receive(&[]);
            }
            _ => end.connection.receive(&bytes),
        }
        true
    }

    /// An application takes some events; whether there were any.
    fn poll(&mut self, index: usize) -> bool {
        let count = 1 + self.random.below(20);
        let [a, b] = &mut self.ends;
        let (end, peer) = if index == 0 { (a, b) } else { (b, a) };
        if end.sleeps {
            return false;
        }
        // Few applications do not listen, and not on a wire where all has to arrive.
        if self.fault != Fault::None && self.random.below(500) == 0 {
            end.discards = true;
            end.connection.discard_incoming();
        }
        let (mut progress, was_reading) = (false, end.connection.wants_read());
        // An application that has closed, and takes its time, may lose what does not fit.
        let may_miss = !matches!(self.fault, Fault::None | Fault::Corrupt)
            && end.connection.close_sent().is_some();
        for _ in 0..count {
            let was_told = end.is_told;
            match end.connection.poll() {
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(end.connection.error(), Some(error));
                    if matches!(error, ConnectionError::Protocol(_)) {
                        assert_eq!(self.fault, Fault::Corrupt, "{error:?}");
                    }
                    end.is_told = true;
                    progress |= !was_told;
                    break;
                }
                Ok(Some(event)) => {
                    assert!(!was_told, "{event:?} after the end");
                    progress = true;
                    match event {
                        Event::Message(message) => {
                            if may_miss {
                                // What did not fit once it had closed.
                                let mut rest = peer.sent.iter().skip(end.received);
                                let missed = rest.position(|sent| *sent == message);
                                end.received += missed.expect("it has been sent");
                            } else if self.fault != Fault::Corrupt {
                                assert!(message == peer.sent[end.received]);
                            }
                            end.received += 1;
                        }
                        Event::Close(_) => {
                            end.is_told = true;
                            if self.fault != Fault::Corrupt && !end.discards && !may_miss {
                                assert_eq!(end.received, peer.sent.len());
                            }
                        }
                        Event::Ping(payload) | Event::Pong(payload) => {
                            assert!(payload.len() <= 125);
                        }
                    }
                }
            }
        }
        if self.random.chance(10) {
            end.connection.release(&mut self.scratch);
        }
        // It may have led to no event, but to reading.
        progress || end.connection.wants_read() && !was_reading
    }

    /// An end writes; whether something could be written.
    fn write(&mut self, index: usize) -> bool {
        let arrival =
            self.now + self.delay * u32::from(self.random.number().to_le_bytes()[0]) / 256;
        let end = &mut self.ends[index];
        let pipe = &mut self.pipes[index];
        let room = pipe.room();
        let mut progress = false;
        if end.connection.wants_write() && room > 0 && !pipe.ended {
            let most = if self.random.chance(30) { 30 } else { 9000 };
            let len = room.min(1 + self.random.below(most));
            let connection = &mut end.connection;
            if end.batch.is_none() && self.random.chance(50) {
                if self.random.chance(50) {
                    connection.lend(&mut self.scratch);
                }
                end.batch = Some(connection.take_transmit());
            }
            let bytes = if let Some(batch) = &mut end.batch {
                let bytes = batch.copy_to_bytes(len.min(batch.remaining()));
                connection.transmitted(bytes.len());
                if !batch.has_remaining() {
                    end.batch = None;
                }
                bytes
            } else {
                let mut transmit = connection.transmit();
                let len = len.min(transmit.remaining());
                transmit.copy_to_bytes(len)
            };
            assert!(
                !bytes.is_empty(),
                "something is to be written, but nothing comes"
            );
            end.check_output(&bytes);
            pipe.write(arrival, &bytes);
            progress = true;
        }
        // Its stream is dropped, or one half of it is shut down. The peer learns it.
        if end.connection.is_done() {
            progress |= !end.is_done;
            pipe.ended = true;
            self.pipes[1 - index].ended = true;
            self.pipes[1 - index].stalls = false;
        } else if end.connection.wants_shutdown() && !pipe.ended && !pipe.vanishes && !pipe.stalls {
            pipe.ended = true;
            progress = true;
        }
        progress
    }
}

fn simulate(seed: u64) {
    let run = AssertUnwindSafe(|| World::new(seed).run());
    if let Err(panic) = catch_unwind(run) {
        eprintln!("SIMULATION_SEED={seed} cargo test -p ws-tests --test simulation");
        resume_unwind(panic);
    }
}

fn variable(name: &str) -> Option<u64> {
    let value = env::var(name).ok()?;
    Some(value.parse().expect("a number"))
}

#[test]
fn two_engines_agree_over_any_wire_and_always_end() {
    if let Some(seed) = variable("SIMULATION_SEED") {
        return simulate(seed);
    }
    let seeds = variable("SIMULATION_SEEDS").unwrap_or(SEEDS);
    let threads = thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    thread::scope(|scope| {
        for first in 0..threads {
            scope.spawn(move || {
                for seed in (first..seeds).step_by(usize::try_from(threads).expect("few")) {
                    simulate(seed);
                }
            });
        }
    });
}
