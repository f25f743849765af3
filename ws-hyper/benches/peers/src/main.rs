//! Compares WebSocket servers end to end: CPU time of the server for each message, delivery or
//! handshake, and resident memory for each idle connection.
//!
//! ```text
//! cargo run --release --manifest-path ws-hyper/benches/peers/Cargo.toml -- [OPTIONS]
//! cargo run --release --manifest-path ws-hyper/benches/peers/Cargo.toml --features ours
//! cargo run --release --manifest-path ws-hyper/benches/peers/Cargo.toml \
//!     --features ours,yawc,wtx -- --compression
//! cargo run --release --manifest-path ws-hyper/benches/peers/Cargo.toml --features ours -- --fanout
//! cargo run --release --manifest-path ws-hyper/benches/peers/Cargo.toml --features ours -- --encrypted
//! cargo run --release --manifest-path ws-hyper/benches/peers/Cargo.toml --features nodes -- --nodes
//!
//! --compression         the servers and scenarios of the second half of the first two tables below
//! --fanout              those of broadcast, further down
//! --encrypted           those over TLS and HTTP/2, further down
//! --nodes               those of several nodes, further down
//! --servers A,B,…       which servers; default: all of this build without compression
//! --scenarios A,B,…     which scenarios; default: all without compression
//! --rounds N            default 5
//! --seconds S           measured time of one run, default 0.75
//! --warm-up S           unmeasured time before it, default 0.2
//! --binary              binary messages; default: text
//! --server-core N       default: the first core that this process may use
//! --generator-core N    default: the second one
//! ```
//!
//! | server | is |
//! |---|---|
//! | `ours` | the layer of this repository behind `ws_hyper::serve` (feature `ours`) |
//! | `axum` | `axum::extract::ws` under `axum::serve`, the echo of its documentation |
//! | `tungstenite` | tokio-tungstenite on a `TcpListener`, `next` and `send` in a loop |
//! | `tungstenite-forward` | the same, `split` and `forward` as in its echo example, which flushes only when nothing is left to read |
//! | `fastwebsockets` | on a hyper upgrade, the echo of its example |
//! | `tokio-websockets` | on a `TcpListener`, the echo of its example |
//! | `raw` | tokio echoing bytes behind a canned handshake, no WebSocket at all: the floor for small messages (its one buffer of 64 KiB is not made for large ones) |
//! | `ours-plain` | `ours` with compression off |
//! | `yawc` | on a hyper upgrade, its *balanced* profile: level 6, context takeover (feature `yawc`) |
//! | `yawc-fast` | its *low latency* profile: level 1, context takeover, as `ours` |
//! | `yawc-pooled` | what its documentation has for many idle connections: level 1, no takeover, a pool |
//! | `wtx` | on a `TcpListener`, its defaults: level 5, 4 KiB windows, no takeover (feature `wtx`) |
//! | `wtx-fast` | the same with level 1 and 32 KiB windows |
//!
//! The comparison of compression has `ours`, `ours-plain`, `tungstenite`, which has none, and those
//! of yawc and wtx. With `ours` in the build all of them have zlib-rs behind flate2, which is
//! faster than what yawc has by default.
//!
//! | scenario | connections × messages in flight on each × payload |
//! |---|---|
//! | `pipelined` | 32 × 64 × 20 bytes |
//! | `pipelined-1k` | 32 × 64 × 1 KiB |
//! | `one` | 500 × 1 × 20 bytes |
//! | `big-64k` | 8 × 1 × 64 KiB |
//! | `big-1m` | 8 × 1 × 1 MiB |
//! | `idle` | memory: 2,000 connections that are silent, then 2,000 that echoed one message of 20 bytes each |
//!
//! | `deflate` | 16 × 1 × JSON |
//! | `deflate-pipelined` | 16 × 64 × JSON |
//! | `deflate-64` | 64 × 1 × JSON: more busy connections than ours keeps compressors |
//! | `deflate-1000` | 1,000 × 1 × JSON |
//! | `deflate-idle` | memory: 2,000 connections after 20 JSON messages each, then after 12 s of silence, in which our keepalive ticks twice |
//!
//! JSON is 200 different messages of about 1,024 bytes in turn. There the generator offers
//! permessage-deflate as a browser does, and sends what it has compressed beforehand, each message
//! by itself, at level 6. It inflates and compares one round of answers before the measured time;
//! in it the answers are counted. A server that declines gets the messages as they are.
//!
//! `100x8x256` and `100x8xjson` are scenarios too, and `idle:500` is `idle` with another number of
//! connections; so are `fanout:500x4x256`, `stalled:500`, `nodes:4x100x16` and `topics:5000` below.
//!
//! # Fan-out
//!
//! `--fanout`: every message of a connection goes to all connections of the process.
//!
//! | server | is |
//! |---|---|
//! | `ours-hub` | a topic of `ws_tower::hub::Hub` with every connection in it; the handler publishes what it receives |
//! | `ours-hub-task` | the same, but a task that belongs to no connection publishes, from a channel |
//! | `ours-hub-drop` | `ours-hub` with `SlowConsumer::DropOldest`, so that one that stalls stays |
//! | `axum-broadcast` | axum with `tokio::sync::broadcast`, as its example `chat` does it |
//! | `tokio-websockets-broadcast` | tokio-websockets with the same channel, one task for each connection |
//! | `raw-fanout` | one plain `write` of the bytes that came for each connection: the floor. They are masked, four bytes more for each message |
//!
//! | scenario | subscribers × messages in flight × payload |
//! |---|---|
//! | `fanout-16` | 1,000 × 16 × 128 bytes |
//! | `fanout-1` | 1,000 × 1 × 128 bytes |
//! | `fanout-10k-16`, `fanout-10k-1` | 10,000 of them, if the hard limit of open files (`ulimit -Hn`) allows |
//! | `stalled` | 1,000 × 1 × 128 bytes, and how long after the sending a subscriber has the message: `alone`, and `stalled`, when one more has stopped to read and is full; then by how much the server has grown |
//!
//! One connection sends the window, and sends it again when all have received it whole: what counts
//! is deliveries. The kernel's send buffers are 64 KiB in all of these servers. The hub sends no
//! pings here, because the generator answers none. Times are only as exact as the 50 µs between two
//! looks. The row `stalled` of `ours-hub` is one whose slow subscriber was disconnected, as is the
//! default.
//!
//! The floor depends on the machine: compare with `raw-fanout` of the same run before comparing with
//! figures from elsewhere. How far p99 moves is `stalled, p99` against `alone, p99` of one server; on
//! a machine that does anything else it says nothing.
//!
//! # TLS and HTTP/2
//!
//! `--encrypted`: `pipelined`, `one`, `big-64k` and `idle` as above, and `handshake`.
//!
//! | server | is |
//! |---|---|
//! | `ours-tls` | the echo of `ours` with `Serve::tls` |
//! | `axum-tls` | axum's echo in the accept loop of its example `low-level-rustls` |
//! | `tungstenite-tls` | tokio-tungstenite's echo on tokio-rustls |
//! | `ours-http2` | `ours`, which speaks HTTP/2 on the same port |
//! | `axum-http2` | `axum` with the feature `http2` |
//!
//! TLS is 1.3 by rustls with ring in all of them, one ECDSA certificate on P-256 that is made at the
//! start, HTTP/1.1, no resumption. HTTP/2 is without TLS, by prior knowledge, up to 100 sockets on a
//! connection; its generator is built on the crate h2.
//!
//! `handshake` is one after the other: TCP, TLS, upgrade, Close, and the end by the server. Over
//! HTTP/2 it is a connection with one socket, and `handshake, more` one socket more on a connection
//! that is there. `handshake` also runs on the servers without TLS, and those of `--encrypted` on
//! any scenario of messages. The servers do not do the same: the loop in axum's documentation answers
//! no Close, and only `ours-tls` ends with TLS's own end (`close_notify`). Only ours has timers, for
//! handshakes, for keepalive and for idle HTTP/2 connections. On a server with nothing else to do each
//! is the next one due, for which tokio writes to its own eventfd.
//!
//! What one connection or socket takes, counted by `valgrind --tool=callgrind` (instructions in user
//! space; in brackets without those that fill buffers with zeros, for axum and tungstenite do that with
//! 128 KiB at once, 260,000 instructions and some 10 µs) and `strace -c` (system calls, those of
//! epoll included; how many reads a handshake takes depends on the generator too):
//!
//! | | ours | axum | tungstenite |
//! |---|--:|--:|--:|
//! | `handshake` | 53,000; 14 | 310,000 (48,000); 14 | 303,000 (40,000); 12 |
//! | TLS | 1,384,000; 29 | 1,626,000 (1,363,000); 26 | 1,708,000 (1,446,000); 26 |
//! | HTTP/2 | 123,000; 23 | 353,000 (91,000); 19 | |
//! | HTTP/2, `more` | 69,000; 7.0 | 313,000 (50,000); 6.0 | |
//!
//! Over TLS ours has a `shutdown` more than axum, and one write for both the answer to the Close and
//! `close_notify`. Each timer that is the next one due is a write to the eventfd and a turn of epoll. Over
//! HTTP/2 what ours has more is the closing handshake, the timers, and the buffer
//! in front of each session that keeps a slow one from costing its neighbours the connection: 47
//! allocations for a socket, where axum makes 31.
//!
//! # Several nodes
//!
//! `--nodes`: fan-out as above, over the backplane of `ws_tower::hub` (feature `nodes`). It starts
//! `redis-server` and `nats-server`, which have to be installed.
//!
//! | server | is |
//! |---|---|
//! | `ours-hub` | one process with all connections |
//! | `ours-hub-redis` | several nodes, a process each, and Redis between them |
//! | `ours-hub-nats` | the same with NATS |
//!
//! | scenario | nodes × subscribers of each × messages in flight, of 128 bytes |
//! |---|---|
//! | `nodes-16`, `nodes-1` | 3 × 300 × 16, and × 1; `ours-hub` has 900 on one node |
//! | `nodes:2x1x16`, `nodes:6x1x16`, `nodes:2x101x16` | their differences are the cost of a node more and of a subscriber more |
//! | `topics` | one node, 100,000 topics with one member each |
//!
//! A subscriber of the first node publishes. The first row of a scenario is the CPU time of all nodes
//! together for each delivery. Then, for each message that was published: CPU time of the first node
//! (`publisher`), of each other one on average (`receiver`) and of the broker, and what the broker
//! has read and written. With one in flight also how long after the sending a subscriber of the
//! first node (`here`) and of the others (`there`) has the message.
//!
//! All nodes and the broker share one core. That changes little in what they cost, but the times are
//! those of a machine that does everything one after the other: an upper bound. At one in flight the broker
//! has little to do, so its row there is mostly what it costs at rest.
//!
//! `topics`: resident memory of the node for each topic, the time until it is subscribed to, 1,000
//! together, and what that costs the node and the broker. One socket has all seats.
//!
//! The arithmetic for large installations is on the page `hub::backplane::sizing` of `ws-tower`.
//!
//! **How it measures.** Each run starts the server as a process of its own, pinned to one core, on
//! a single-threaded tokio runtime, `TCP_NODELAY` on. The generator runs on the other core, sends
//! the same encoded and masked window of messages again and again on each connection, the next one
//! when the last has come back whole, and compares every byte of the answer. (Waiting for the whole
//! window is kind to servers that write each message by itself: they still find 64 in one read.)
//! The generator never sleeps, so that no server pays for waking its core, and looks for answers
//! every 50 µs, so that it does not fight over a connection that the server is writing to.
//! CPU time is user and system time of the server's threads as the scheduler counts it
//! (`/proc/PID/task/*/schedstat`, nanoseconds), read only while nothing is in flight. Memory is the
//! growth of `Rss` in `/proc/PID/smaps_rollup` for each connection, after eight connections have
//! warmed the process up; the kernel's socket buffers are not in it. In `deflate-idle` these eight
//! have compressed nothing, so that a pool counts in full.
//!
//! Each round runs every server on every scenario, so that a change of the machine's speed meets
//! all of them; the report has the median of the rounds, and their least and greatest. `ratio`
//! is the cost in units of `ours`, or of `raw` where `ours` is not built. `busy` is the share of
//! the measured time that the server ran, `held up` the share in which it could have run but
//! something else had its core. Where `held up` is more than a few percent, the machine was not
//! quiet, and CPU times are higher as well, by half and more: repeat the run, with nothing else running,
//! until `least` and `greatest` are within a few percent of the median (`--rounds 9` helps). Where both are low, the generator was the limit: `per second` then says
//! nothing about the server, its CPU time still does.
//!
//! For a profile of one server: `peers serve NAME` prints its address, and serves until its
//! standard input ends. That is also how no server outlives the bench, however that one ends. `peers
//! open NAME connections 1000` reads that line on its standard input, and opens and closes as many
//! sockets there, one after the other; `streams` instead of `connections` means all on one HTTP/2
//! connection. What a socket takes is the difference between two such runs, divided by that of their
//! numbers.
//!
//! Linux only; two cores. Exit status 1 if any run failed.

use std::{
    error::Error,
    io::{self, IsTerminal},
    process::ExitCode,
};

use crate::{
    load::Http2,
    measure::{Sample, measure},
    options::{Command, Opening, Options},
    report::Report,
    servers::{Server, Transport},
    stream::Endpoint,
};

mod broker;
mod json;
mod load;
mod machine;
mod measure;
mod options;
mod process;
mod report;
mod scenario;
mod servers;
mod stream;
mod wire;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let outcome = match options::parse(std::env::args().skip(1)) {
        Ok(Command::Serve(server, broker)) => {
            servers::run(server, broker).map(|()| ExitCode::SUCCESS)
        }
        Ok(Command::Open(server, opening, count)) => {
            open(server, opening, count).map(|()| ExitCode::SUCCESS)
        }
        Ok(Command::Compare(options)) => compare(&options),
        Err(error) => Err(format!("{error}; see the head of src/main.rs").into()),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("peers: {error}");
        ExitCode::FAILURE
    })
}

/// Opens sockets of a server whose line is on standard input.
fn open(server: Server, opening: Opening, count: usize) -> Result<()> {
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    let endpoint = Endpoint::parse(&line)?;
    let (more, answer) = (|opened| opened < count, server.close_answer());
    match (server.transport(), opening) {
        (Transport::Http2, Opening::Connection) => {
            Http2::new(endpoint.address)?.handshakes(more, answer)?;
        }
        (Transport::Http2, Opening::Stream) => {
            Http2::new(endpoint.address)?.streams(more, answer)?;
        }
        (_, Opening::Connection) => {
            wire::handshakes(&endpoint, more, answer)?;
        }
        (_, Opening::Stream) => return Err("it does not speak HTTP/2".into()),
    }
    Ok(())
}

fn compare(options: &Options) -> Result<ExitCode> {
    machine::raise_open_files()?;
    machine::pin_to(options.generator_core)?;
    let mut report = Report::default();
    for round in 0..options.rounds {
        for scenario in &options.scenarios {
            // Another server goes first in each round: none always runs behind the same one.
            let (tail, head) = options.servers.split_at(round % options.servers.len());
            for &server in head.iter().chain(tail) {
                let run = format!("{} {server}", scenario.name());
                progress(&format!("round {} of {}: {run}", round + 1, options.rounds));
                match measure(server, scenario, options) {
                    Ok(samples) => report.add(server, samples),
                    Err(error) => report.fail(format!("{run}, round {}: {error}", round + 1)),
                }
            }
        }
    }
    progress("");
    print!("{}\n{report}", machine::description(options));
    Ok(if report.failed() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Replaces the line on the terminal, if there is one.
fn progress(text: &str) {
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
    }
}
