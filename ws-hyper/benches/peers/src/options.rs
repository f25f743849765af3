//! The command line.

use std::{str::FromStr, time::Duration};

use crate::{Result, Server, machine, scenario::Scenario, wire::Kind};

/// What the command line asks for.
pub enum Command {
    /// Be one of the servers, as a node with the broker that has this URL.
    Serve(Server, Option<String>),
    /// Open so many sockets of this server, which runs already.
    Open(Server, Opening, usize),
    /// Run the comparison.
    Compare(Options),
}

/// Sockets one after the other, each of which is closed.
#[derive(Clone, Copy)]
pub enum Opening {
    /// Each on a connection of its own.
    Connection,
    /// All on one connection of HTTP/2.
    Stream,
}

/// The comparison to run.
pub struct Options {
    pub servers: Vec<Server>,
    pub scenarios: Vec<Scenario>,
    pub rounds: usize,
    pub measured: Duration,
    pub warm_up: Duration,
    pub kind: Kind,
    pub server_core: usize,
    pub generator_core: usize,
}

pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Command> {
    let mut arguments = arguments.peekable();
    if arguments.next_if_eq("serve").is_some() {
        let name = arguments.next().ok_or("serve: which server?")?;
        return Ok(Command::Serve(name.parse()?, arguments.next()));
    }
    if arguments.next_if_eq("open").is_some() {
        let name = arguments.next().ok_or("open: at which server?")?;
        let opening = match arguments.next().as_deref() {
            Some("connections") => Opening::Connection,
            Some("streams") => Opening::Stream,
            _ => return Err("open: connections or streams?".into()),
        };
        let count = arguments.next().ok_or("open: how many?")?;
        return Ok(Command::Open(name.parse()?, opening, count.parse()?));
    }

    let cores = machine::cores()?;
    let [first, second, ..] = cores[..] else {
        return Err("needs two cores: one for the server, one for the generator".into());
    };
    let mut options = Options {
        servers: Server::ALL.to_vec(),
        scenarios: Scenario::defaults(),
        rounds: 5,
        measured: Duration::from_millis(750),
        warm_up: Duration::from_millis(200),
        kind: Kind::Text,
        server_core: first,
        generator_core: second,
    };
    while let Some(option) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .ok_or(format!("{option}: a value is missing"))
        };
        match option.as_str() {
            "--compression" => {
                options.servers = Server::COMPRESSION.to_vec();
                options.scenarios = Scenario::compression();
            }
            "--fanout" => {
                options.servers = Server::FANOUT.to_vec();
                options.scenarios = Scenario::fanout();
            }
            "--encrypted" => {
                options.servers = Server::ENCRYPTED.to_vec();
                options.scenarios = Scenario::encrypted();
            }
            "--nodes" => {
                options.servers = Server::NODES.to_vec();
                options.scenarios = Scenario::nodes();
            }
            "--servers" => options.servers = list(&value()?)?,
            "--scenarios" => options.scenarios = list(&value()?)?,
            "--rounds" => options.rounds = value()?.parse()?,
            "--seconds" => options.measured = seconds(&value()?)?,
            "--warm-up" => options.warm_up = seconds(&value()?)?,
            "--binary" => options.kind = Kind::Binary,
            "--server-core" => options.server_core = value()?.parse()?,
            "--generator-core" => options.generator_core = value()?.parse()?,
            _ => return Err(format!("unknown option {option}").into()),
        }
    }
    for core in [options.server_core, options.generator_core] {
        if !cores.contains(&core) {
            return Err(format!("core {core} is not one of {cores:?}").into());
        }
    }
    if options.server_core == options.generator_core {
        return Err("server and generator need a core each".into());
    }
    if options.servers.is_empty() {
        return Err("this build has none of these servers".into());
    }
    if options.rounds == 0 || options.measured.is_zero() {
        return Err("nothing to measure".into());
    }
    Ok(Command::Compare(options))
}

fn list<T: FromStr<Err = String>>(value: &str) -> Result<Vec<T>, String> {
    value.split(',').map(str::parse).collect()
}

fn seconds(value: &str) -> Result<Duration> {
    Ok(Duration::try_from_secs_f64(value.parse()?)?)
}
