//! One run: one server, one scenario, one fresh process.

use std::{
    io::{Read, Write},
    iter, thread,
    time::{Duration, Instant},
};

use crate::{
    Result, Server,
    load::{Http2, Load, Run},
    machine,
    options::Options,
    process::{Process, Times},
    scenario::{Payload, Scenario},
    servers::Transport,
    stream::Stream,
    wire::{self, Answer, Exchange, FrameCounter, Window},
};

mod nodes;

/// How many messages a connection exchanges before it is silent: enough to count as busy.
const MESSAGES_BEFORE_SILENCE: usize = 20;

/// How long the connections are silent: more than two ticks of our keepalive, which come every
/// five seconds by default. It is nothing to the peers.
const SILENCE: Duration = Duration::from_secs(12);

/// How much is published in `stalled` until the one that reads nothing is full for certain: more
/// than the kernel's buffers of both sides, and the queues of every server.
const STUFFING_WINDOWS: usize = 256;

/// What one run says about a server.
pub struct Sample {
    /// The row of the report.
    pub row: String,
    pub cost: f64,
    pub unit: Unit,
    pub speed: Option<Speed>,
}

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub enum Unit {
    /// CPU time for each message, delivery or handshake.
    Nanoseconds,
    /// Memory for each connection.
    Bytes,
    /// Memory.
    Kibibytes,
    /// Time on the wall.
    Microseconds,
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Self::Nanoseconds => "ns",
            Self::Bytes => "B",
            Self::Kibibytes => "KiB",
            Self::Microseconds => "µs",
        }
    }
}

/// What the clock on the wall says.
#[derive(Clone, Copy)]
pub struct Speed {
    pub messages_per_second: f64,
    /// Share of the time in which the server ran, 0 to 1.
    pub busy: f64,
    /// Share of the time in which it could have run, had its core not been taken, 0 to 1.
    pub held_up: f64,
    /// Bytes that come back for each message.
    pub bytes_back: f64,
}

pub fn measure(server: Server, scenario: &Scenario, options: &Options) -> Result<Vec<Sample>> {
    match *scenario {
        Scenario::Nodes {
            ref name,
            nodes,
            members,
            in_flight,
        } => return nodes::messages(server, name, [nodes, members, in_flight], options),
        Scenario::Topics { topics } => return nodes::topics(server, topics, options),
        _ => {}
    }
    let process = Process::start(server, options.server_core, options.generator_core)?;
    if server.transport() == Transport::Http2 {
        return over_http2(&process, server, scenario, options);
    }
    let prefix = prefix(server);
    match *scenario {
        Scenario::Load {
            ref name,
            connections,
            in_flight,
            payload,
        } => {
            let offers = matches!(payload, Payload::Json);
            let compressed = offers && proven(&process, options)?;
            let (kind, echo) = (options.kind, server.echo());
            let exchange = Exchange::new(in_flight, payload, kind, echo, compressed)?;
            let mut load = Load::connect(
                iter::repeat_n(&process.endpoint, connections),
                exchange,
                offers,
            )?;
            load.run(options.warm_up)?;
            let row = format!("{prefix}{name}");
            Ok(vec![timed(&process, row, || load.run(options.measured))?])
        }
        Scenario::Fanout {
            ref name,
            connections,
            in_flight,
            payload,
        } => {
            let mut load = audience(&process, server, connections, in_flight, payload, options)?;
            load.publish(options.warm_up)?;
            let row = format!("{prefix}{name}");
            let sample = timed(&process, row, || Ok(load.publish(options.measured)?.0))?;
            Ok(vec![sample])
        }
        Scenario::Stalled { connections } => stalled(&process, server, connections, options),
        Scenario::Handshake => {
            let handshakes = |duration| {
                let start = Instant::now();
                let more = for_a_time(duration);
                let count = wire::handshakes(&process.endpoint, more, server.close_answer())?;
                Ok(of_handshakes(count, start.elapsed()))
            };
            handshakes(options.warm_up)?;
            let row = format!("{prefix}handshake");
            let sample = timed(&process, row, || handshakes(options.measured))?;
            Ok(vec![sample])
        }
        Scenario::Idle { connections } => {
            let exchange = plain(server, options)?;
            let _warm = connect_and_echo(&process, 8, &exchange)?;
            let before = settled(&process)?;
            let mut streams = connect(&process, connections, false)?;
            let fresh = settled(&process)?;
            echo_each(&mut streams, &exchange.windows[0])?;
            let echoed = settled(&process)?;
            Ok(vec![
                memory(&format!("{prefix}idle, fresh"), before, fresh, connections),
                memory(
                    &format!("{prefix}idle, echoed"),
                    before,
                    echoed,
                    connections,
                ),
            ])
        }
        Scenario::DeflateIdle { connections } => {
            // The warm-up compresses nothing: the pool is on the connections' account.
            let _warm = connect_and_echo(&process, 8, &plain(server, options)?)?;
            let before = settled(&process)?;
            let compressed = proven(&process, options)?;
            let mut streams = connect(&process, connections, true)?;
            let (kind, echo) = (options.kind, server.echo());
            let exchange = Exchange::new(1, Payload::Json, kind, echo, compressed)?;
            for window in exchange.windows.iter().take(MESSAGES_BEFORE_SILENCE) {
                echo_each(&mut streams, window)?;
            }
            let busy = settled(&process)?;
            thread::sleep(SILENCE);
            let silent = process.resident()?;
            Ok(vec![
                memory("deflate, busy", before, busy, connections),
                memory("deflate, silent", before, silent, connections),
            ])
        }
        Scenario::Nodes { .. } | Scenario::Topics { .. } => Err("it has several processes".into()),
    }
}

/// The same over HTTP/2.
fn over_http2(
    process: &Process,
    server: Server,
    scenario: &Scenario,
    options: &Options,
) -> Result<Vec<Sample>> {
    let prefix = prefix(server);
    let exchange =
        |in_flight, payload| Exchange::new(in_flight, payload, options.kind, server.echo(), false);
    let mut load = Http2::new(process.endpoint.address)?;
    match *scenario {
        Scenario::Load {
            ref name,
            connections,
            in_flight,
            payload,
        } => {
            let exchange = exchange(in_flight, payload)?;
            load.open(connections)?;
            load.run(&exchange, options.warm_up)?;
            let row = format!("{prefix}{name}");
            let sample = timed(process, row, || load.run(&exchange, options.measured))?;
            Ok(vec![sample])
        }
        Scenario::Handshake => {
            let answer = server.close_answer();
            load.handshakes(for_a_time(options.warm_up), answer)?;
            let connections = timed(process, format!("{prefix}handshake"), || {
                let (count, elapsed) = load.handshakes(for_a_time(options.measured), answer)?;
                Ok(of_handshakes(count, elapsed))
            })?;
            load.streams(for_a_time(options.warm_up), answer)?;
            let streams = timed(process, format!("{prefix}handshake, more"), || {
                let (count, elapsed) = load.streams(for_a_time(options.measured), answer)?;
                Ok(of_handshakes(count, elapsed))
            })?;
            Ok(vec![connections, streams])
        }
        Scenario::Idle { connections } => {
            let exchange = exchange(1, Payload::Bytes(20))?;
            load.open(8)?;
            load.run(&exchange, Duration::ZERO)?;
            let before = settled(process)?;
            load.open(connections)?;
            let fresh = settled(process)?;
            load.run(&exchange, Duration::ZERO)?;
            let echoed = settled(process)?;
            Ok(vec![
                memory(&format!("{prefix}idle, fresh"), before, fresh, connections),
                memory(
                    &format!("{prefix}idle, echoed"),
                    before,
                    echoed,
                    connections,
                ),
            ])
        }
        _ => Err("not over HTTP/2".into()),
    }
}

/// What is in front of the names of the scenarios in the rows of a server.
fn prefix(server: Server) -> &'static str {
    match server.transport() {
        Transport::Tcp => "",
        Transport::Tls => "tls ",
        Transport::Http2 => "h2 ",
    }
}

/// The server's CPU time in a run.
fn timed(process: &Process, row: String, run: impl FnOnce() -> Result<Run>) -> Result<Sample> {
    let before = process.times()?;
    let run = run()?;
    let after = process.times()?;
    let share = |time: fn(&Times) -> Duration| (time(&after) - time(&before)).as_secs_f64();
    let (running, waiting) = (share(|times| times.running), share(|times| times.waiting));
    let (messages, elapsed) = (run.messages as f64, run.elapsed.as_secs_f64());
    Ok(Sample {
        row,
        cost: running / messages * 1e9,
        unit: Unit::Nanoseconds,
        speed: Some(Speed {
            messages_per_second: messages / elapsed,
            busy: running / elapsed,
            held_up: waiting / elapsed,
            bytes_back: run.bytes_back as f64 / messages,
        }),
    })
}

/// Says yes for so long, from now on.
fn for_a_time(duration: Duration) -> impl FnMut(usize) -> bool {
    let start = Instant::now();
    move |_| start.elapsed() < duration
}

fn of_handshakes(messages: usize, elapsed: Duration) -> Run {
    Run {
        messages,
        elapsed,
        bytes_back: 0,
    }
}

/// Connections that all receive what one of them sends.
fn audience(
    process: &Process,
    server: Server,
    connections: usize,
    in_flight: usize,
    payload: usize,
    options: &Options,
) -> Result<Load> {
    if !machine::allows_connections(connections) {
        return Err("the limit of open files is too low".into());
    }
    let (kind, echo) = (options.kind, server.echo());
    let exchange = Exchange::new(in_flight, Payload::Bytes(payload), kind, echo, false)?;
    let load = Load::connect(
        iter::repeat_n(&process.endpoint, connections),
        exchange,
        false,
    )?;
    // The handshake is answered before a handler has subscribed.
    settled(process)?;
    Ok(load)
}

/// What one that reads nothing does to the others.
fn stalled(
    process: &Process,
    server: Server,
    connections: usize,
    options: &Options,
) -> Result<Vec<Sample>> {
    let mut load = audience(process, server, connections + 1, 1, 128, options)?;
    let mut samples = Vec::new();
    stuffed(&mut load, server, options)?;
    let (_, latencies) = load.publish(options.measured)?;
    quantiles("alone", &latencies, &mut samples);

    let before = settled(process)?;
    let _stalled = load.abandon()?;
    stuffed(&mut load, server, options)?;
    let (_, latencies) = load.publish(options.measured)?;
    quantiles("stalled", &latencies, &mut samples);
    let after = settled(process)?;
    samples.push(Sample {
        row: "stalled, growth".into(),
        cost: (after as f64 - before as f64) / 1024.0,
        unit: Unit::Kibibytes,
        speed: None,
    });
    Ok(samples)
}

/// Publishes what fills those who read nothing, and then for the time of the warm-up what is
/// measured.
fn stuffed(load: &mut Load, server: Server, options: &Options) -> Result<()> {
    let (kind, echo) = (options.kind, server.echo());
    let large = Exchange::new(4, Payload::Bytes(1 << 10), kind, echo, false)?;
    let small = load.replace(large);
    for _ in 0..STUFFING_WINDOWS {
        load.publish(Duration::ZERO)?;
    }
    load.replace(small);
    load.publish(options.warm_up)?;
    Ok(())
}

fn quantiles(row: &str, latencies: &[(usize, Duration)], samples: &mut Vec<Sample>) {
    let mut latencies: Vec<_> = latencies.iter().map(|(_, latency)| *latency).collect();
    latencies.sort_unstable();
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
        let place = (latencies.len() as f64 * quantile) as usize;
        samples.push(Sample {
            row: format!("{row}, {name}"),
            cost: latencies
                .get(place)
                .map_or(0.0, |latency| latency.as_secs_f64() * 1e6),
            unit: Unit::Microseconds,
            speed: None,
        });
    }
}

fn memory(row: &str, before: u64, after: u64, connections: usize) -> Sample {
    Sample {
        row: row.into(),
        cost: (after as f64 - before as f64) / connections as f64,
        unit: Unit::Bytes,
        speed: None,
    }
}

/// One message of 20 bytes, which nobody compresses.
fn plain(server: Server, options: &Options) -> Result<Exchange> {
    Exchange::new(1, Payload::Bytes(20), options.kind, server.echo(), false)
}

/// Whether the server agrees on compression. If so, it has shown that it can.
fn proven(process: &Process, options: &Options) -> Result<bool> {
    let mut opened = wire::connect(&process.endpoint, true)?;
    if opened.compressed {
        wire::prove(&mut opened.stream, options.kind)?;
    }
    Ok(opened.compressed)
}

/// Resident memory once the server has come to rest.
fn settled(process: &Process) -> Result<u64> {
    thread::sleep(Duration::from_millis(200));
    process.resident()
}

fn connect_and_echo(process: &Process, count: usize, exchange: &Exchange) -> Result<Vec<Stream>> {
    let mut streams = connect(process, count, false)?;
    echo_each(&mut streams, &exchange.windows[0])?;
    Ok(streams)
}

fn connect(process: &Process, count: usize, offers: bool) -> Result<Vec<Stream>> {
    (0..count)
        .map(|_| Ok(wire::connect(&process.endpoint, offers)?.stream))
        .collect()
}

/// One window on each connection, one after the other.
fn echo_each(streams: &mut [Stream], window: &Window) -> Result<()> {
    for stream in streams {
        stream.write_all(&window.request)?;
        stream.flush()?;
        match &window.answer {
            Answer::Bytes(answer) => {
                let mut response = vec![0; answer.len()];
                stream.read_exact(&mut response)?;
                if response != *answer {
                    return Err("the answer is not what was sent".into());
                }
            }
            Answer::Frames(count) => {
                let mut frames = FrameCounter::default();
                let mut buffer = [0; 4096];
                while frames.frames < *count || !frames.is_between_frames() {
                    let count = stream.read(&mut buffer)?;
                    if count == 0 {
                        return Err("closed by the server".into());
                    }
                    frames.count(&buffer[..count])?;
                }
            }
        }
    }
    Ok(())
}
