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
    scenario::Scenario,
    wire::{self, Exchange},
};

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
            let exchange = Exchange::new(in_flight, payload, options.kind, server.echo());
            let mut load = Load::connect(process.address, connections, exchange)?;
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
                }),
            }])
        }
        Scenario::Idle { connections } => {
            let exchange = Exchange::new(1, 20, options.kind, server.echo());
            let _warm = connect_and_echo(&process, 8, &exchange)?;
            let before = settled(&process)?;
            let mut streams = connect(&process, connections)?;
            let fresh = settled(&process)?;
            echo_each(&mut streams, &exchange)?;
            let echoed = settled(&process)?;
            let sample = |row: &str, after: u64| Sample {
                row: row.into(),
                cost: (after as f64 - before as f64) / connections as f64,
                speed: None,
            };
            Ok(vec![
                sample("idle, fresh", fresh),
                sample("idle, echoed", echoed),
            ])
        }
    }
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
    let mut streams = connect(process, count)?;
    echo_each(&mut streams, exchange)?;
    Ok(streams)
}

fn connect(process: &Process, count: usize) -> Result<Vec<TcpStream>> {
    (0..count).map(|_| wire::connect(process.address)).collect()
}

fn echo_each(streams: &mut [TcpStream], exchange: &Exchange) -> Result<()> {
    let mut response = vec![0; exchange.response.len()];
    for stream in streams {
        stream.write_all(&exchange.request)?;
        stream.read_exact(&mut response)?;
        if response != exchange.response {
            return Err("the answer is not what was sent".into());
        }
    }
    Ok(())
}
