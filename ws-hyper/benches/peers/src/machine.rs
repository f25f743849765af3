//! Cores, limits, and the line that says where the numbers come from.

use std::{collections::BTreeMap, fs};

use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

use crate::{Result, broker, options::Options};

/// The cores that this process may use.
pub fn cores() -> Result<Vec<usize>> {
    let allowed = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|&core| allowed.is_set(core))
        .collect())
}

/// Pins this thread, and the processes and threads it starts, to one core.
pub fn pin_to(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).map_err(|error| format!("core {core}: {error}").into())
}

/// Allows as many open files as the hard limit does, here and in the processes started.
pub fn raise_open_files() -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// Whether this process and a server can have so many connections.
pub fn allows_connections(connections: usize) -> bool {
    // A few files are open besides.
    getrlimit(Resource::Nofile)
        .current
        .is_none_or(|files| files >= connections as u64 + 100)
}

/// Processor, kernel, compiler, versions of the peers.
pub fn description(options: &Options) -> String {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{processor}, server on core {}, generator on core {}; Linux {}; {}\n\
         {} rounds of {} s; {:?} messages; {}\n",
        options.server_core,
        options.generator_core,
        kernel.trim(),
        env!("COMPILER_VERSION"),
        options.rounds,
        options.measured.as_secs_f64(),
        options.kind,
        versions() + &brokers(options),
    )
}

/// The versions of the brokers, if there is one.
fn brokers(options: &Options) -> String {
    let uses_one = options.servers.iter().any(|it| it.broker().is_some());
    if uses_one {
        format!(", {}", broker::versions())
    } else {
        String::new()
    }
}

/// The peers' versions, as locked.
fn versions() -> String {
    let peers = [
        "axum",
        "fastwebsockets",
        "flate2",
        "h2",
        "hyper",
        "rustls",
        "tokio",
        "tokio-rustls",
        "tokio-tungstenite",
        "tokio-websockets",
        "wtx",
        "yawc",
        "zlib-rs",
    ];
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut lines = include_str!("../Cargo.lock").lines();
    while let Some(line) = lines.next() {
        let Some(name) = quoted(line, "name") else {
            continue;
        };
        let version = lines.next().and_then(|line| quoted(line, "version"));
        if peers.contains(&name) {
            versions.entry(name).or_default().extend(version);
        }
    }
    let versions: Vec<_> = versions
        .iter()
        .map(|(name, versions)| format!("{name} {}", versions.join(" and ")))
        .collect();
    versions.join(", ")
}

fn quoted<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.strip_prefix(key)?
        .strip_prefix(" = \"")?
        .strip_suffix('"')
}
