//! One run: one server, one scenario, one fresh process.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use crate::{
    Result, Server,
    load::Load,
    options::Options,
    process::Process,
    scenario::{Payload, Scenario},
    wire::{self, Answer, Exchange, FrameCounter, Window},
};

/// How many messages a connection exchanges before it is silent: enough to count as busy.
const MESSAGES_BEFORE_SILENCE: usize = 20;

/// How long the connections are silent: more than two ticks of our keepalive, which come every
/// five seconds by default. It is nothing to the peers.
const SILENCE: Duration = Duration::from_secs(12);

/// What one run says about a server.
pub struct Sample {
    /// The row of the report.
    pub row: String,
    /// Nanoseconds for each message, or bytes for each connection.
    pub cost: f64,
    pub speed: Option<Speed>,
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
    let process = Process::start(server, options.server_core, options.generator_core)?;
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
            let mut load = Load::connect(process.address, connections, exchange, offers)?;
            load.run(options.warm_up)?;
            let before = process.times()?;
            let run = load.run(options.measured)?;
            let after = process.times()?;
            let running = (after.running - before.running).as_secs_f64();
            let waiting = (after.waiting - before.waiting).as_secs_f64();
            let (messages, elapsed) = (run.messages as f64, run.elapsed.as_secs_f64());
            Ok(vec![Sample {
                row: name.clone(),
                cost: running / messages * 1e9,
                speed: Some(Speed {
                    messages_per_second: messages / elapsed,
                    busy: running / elapsed,
                    held_up: waiting / elapsed,
                    bytes_back: run.bytes_back as f64 / messages,
                }),
            }])
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
                memory("idle, fresh", before, fresh, connections),
                memory("idle, echoed", before, echoed, connections),
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
    }
}

fn memory(row: &str, before: u64, after: u64, connections: usize) -> Sample {
    Sample {
        row: row.into(),
        cost: (after as f64 - before as f64) / connections as f64,
        speed: None,
    }
}

/// One message of 20 bytes, which nobody compresses.
fn plain(server: Server, options: &Options) -> Result<Exchange> {
    Exchange::new(1, Payload::Bytes(20), options.kind, server.echo(), false)
}

/// Whether the server agrees on compression. If so, it has shown that it can.
fn proven(process: &Process, options: &Options) -> Result<bool> {
    let mut opened = wire::connect(process.address, true)?;
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

fn connect_and_echo(
    process: &Process,
    count: usize,
    exchange: &Exchange,
) -> Result<Vec<TcpStream>> {
    let mut streams = connect(process, count, false)?;
    echo_each(&mut streams, &exchange.windows[0])?;
    Ok(streams)
}

fn connect(process: &Process, count: usize, offers: bool) -> Result<Vec<TcpStream>> {
    (0..count)
        .map(|_| Ok(wire::connect(process.address, offers)?.stream))
        .collect()
}

/// One window on each connection, one after the other.
fn echo_each(streams: &mut [TcpStream], window: &Window) -> Result<()> {
    for stream in streams {
        stream.write_all(&window.request)?;
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
