//! A broker in a process of its own.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{Result, machine, process::Ended};

/// A broker that a hub can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "nodes"),
    expect(dead_code, reason = "no server has one")
)]
pub enum Kind {
    Redis,
    Nats,
}

/// A running broker; it ends when this is dropped, and with this process.
pub struct Broker {
    pub process: Ended,
    url: String,
}

impl Broker {
    /// Starts one on the core `core`. This thread must run on `own_core`.
    pub fn start(kind: Kind, core: usize, own_core: usize) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        drop(listener);
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        let (program, scheme) = match kind {
            Kind::Redis => ("redis-server", "redis"),
            Kind::Nats => ("nats-server", "nats"),
        };
        let arguments: &[&str] = match kind {
            Kind::Redis => &["--save", "", "--bind", &host, "--port", &port],
            Kind::Nats => &["-a", &host, "-p", &port],
        };
        machine::pin_to(core)?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        machine::pin_to(own_core)?;
        let process = Ended(child.map_err(|error| format!("{program}: {error}"))?);
        let start = Instant::now();
        while !listens(address) {
            if start.elapsed() > PATIENCE {
                return Err(format!("{program} does not listen").into());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(Self {
            process,
            url: format!("{scheme}://{address}"),
        })
    }

    pub fn url(&self) -> &str {
        &self.url
    }
}

fn listens(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_ok()
}

/// The versions of the brokers that are installed.
pub fn versions() -> String {
    let version = |program: &str| {
        let output = Command::new(program).arg("--version").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let words = text.split_whitespace();
        let mut numbers = words.filter(|word| word.contains('.'));
        let number = numbers.next()?.trim_start_matches("v=");
        Some(format!("{program} {number}"))
    };
    let found: Vec<_> = ["redis-server", "nats-server"]
        .into_iter()
        .filter_map(version)
        .collect();
    found.join(", ")
}

const PATIENCE: Duration = Duration::from_secs(10);
