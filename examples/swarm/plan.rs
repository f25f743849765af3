//! What a swarm is to do, from the command line.

use std::{str::FromStr, time::Duration};

use ws_examples::{Arguments, Failure, MAX_THREADS};

const USAGE: &str = "swarm URL [--sockets N] [--mode echo|subscribe] [--size BYTES] [--pause MS]
             [--seconds N] [--at-once N] [--threads N] [--deflate]
             [--insecure]

  URL             ws:// or wss://
  --sockets N     how many to open, at most 1000000 (default: 100)
  --mode MODE     echo: each sends a text, waits for it to come back, and sends the next (default);
                  subscribe: each only listens
  --size BYTES    of each text (default: 128); from 18 on it says whose it is, so that what others
                  send is not taken for the answer
  --pause MS      between an answer and the next text (default: 0)
  --seconds N     how long, opening included; 0 for until Control-C (default: 10)
  --at-once N     handshakes under way at a time (default: 100)
  --threads N     threads of the runtime (default: one for each core)
  --deflate       offers compression
  --insecure      takes any certificate";

/// What a swarm is to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) url: String,
    pub(crate) sockets: usize,
    pub(crate) mode: Mode,
    pub(crate) size: usize,
    pub(crate) pause: Duration,
    /// `None` for until it is interrupted.
    pub(crate) time: Option<Duration>,
    pub(crate) at_once: usize,
    pub(crate) threads: Option<usize>,
    pub(crate) deflate: bool,
    /// Whether any certificate will do.
    pub(crate) insecure: bool,
}

/// What each socket does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Echo,
    Subscribe,
}

impl Plan {
    pub(crate) fn from_env() -> Result<Self, Failure> {
        let mut arguments = Arguments::from_env(USAGE)?;
        let plan = Self {
            sockets: arguments.number("--sockets", 1..=MOST)?.unwrap_or(100),
            mode: arguments.value("--mode")?.unwrap_or(Mode::Echo),
            // Up to the largest message that the library takes by default.
            size: arguments.number("--size", 0..=1 << 20)?.unwrap_or(128),
            pause: Duration::from_millis(arguments.value("--pause")?.unwrap_or(0)),
            time: match arguments.value("--seconds")? {
                Some(0) => None,
                seconds => Some(Duration::from_secs(seconds.unwrap_or(10))),
            },
            at_once: arguments.number("--at-once", 1..=MOST)?.unwrap_or(100),
            threads: arguments.number("--threads", 1..=MAX_THREADS)?,
            deflate: arguments.flag("--deflate"),
            insecure: arguments.flag("--insecure"),
            // Last: it may stand before, between or behind the others.
            url: arguments.word().unwrap_or_default(),
        };
        arguments.finish()?;
        if plan.url.is_empty() {
            return Err(Failure::new(format!("which address?\nusage: {USAGE}")));
        }
        Ok(plan)
    }
}

impl FromStr for Mode {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "echo" => Ok(Self::Echo),
            "subscribe" => Ok(Self::Subscribe),
            _ => Err("echo and subscribe are all there is"),
        }
    }
}

/// Sockets: more than the ports of fifteen addresses.
const MOST: usize = 1_000_000;
