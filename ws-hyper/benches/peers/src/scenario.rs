//! What the generator does to a server.

use std::str::FromStr;

/// One scenario.
#[derive(Clone, Debug)]
pub enum Scenario {
    /// Messages go round on some connections.
    Load {
        name: String,
        connections: usize,
        /// Messages in flight on each connection.
        in_flight: usize,
        payload: Payload,
    },
    /// Connections that are silent.
    Idle { connections: usize },
    /// Connections that have exchanged compressed messages, and are silent.
    DeflateIdle { connections: usize },
}

/// What is in the messages.
#[derive(Clone, Copy, Debug)]
pub enum Payload {
    /// So many bytes, never compressed.
    Bytes(usize),
    /// About 1 KiB of JSON, different in each message, and compressed with servers that agree.
    Json,
}

impl Scenario {
    /// All named scenarios.
    pub fn defaults() -> Vec<Self> {
        let load = |name: &str, connections, in_flight, payload| Self::Load {
            name: name.into(),
            connections,
            in_flight,
            payload: Payload::Bytes(payload),
        };
        vec![
            load("pipelined", 32, 64, 20),
            load("pipelined-1k", 32, 64, 1 << 10),
            load("one", 500, 1, 20),
            load("big-64k", 8, 1, 64 << 10),
            load("big-1m", 8, 1, 1 << 20),
            Self::Idle { connections: 2000 },
        ]
    }

    /// Those of compression.
    pub fn compression() -> Vec<Self> {
        let load = |name: &str, connections, in_flight| Self::Load {
            name: name.into(),
            connections,
            in_flight,
            payload: Payload::Json,
        };
        vec![
            load("deflate", 16, 1),
            load("deflate-pipelined", 16, 64),
            load("deflate-64", 64, 1),
            load("deflate-1000", 1000, 1),
            Self::DeflateIdle { connections: 2000 },
        ]
    }

    pub fn name(&self) -> &str {
        match self {
            Self::Load { name, .. } => name,
            Self::Idle { .. } => "idle",
            Self::DeflateIdle { .. } => "deflate-idle",
        }
    }
}

/// A name, `CONNECTIONSxIN_FLIGHTxBYTES`, with `json` for the bytes too, `idle:CONNECTIONS`, or
/// `deflate-idle:CONNECTIONS`.
impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut named = Self::defaults().into_iter().chain(Self::compression());
        if let Some(named) = named.find(|one| one.name() == text) {
            return Ok(named);
        }
        let positive = |number: &str| number.parse().ok().filter(|&number| number > 0);
        let parsed = if let Some(connections) = text.strip_prefix("idle:") {
            positive(connections).map(|connections| Self::Idle { connections })
        } else if let Some(connections) = text.strip_prefix("deflate-idle:") {
            positive(connections).map(|connections| Self::DeflateIdle { connections })
        } else {
            let numbers: Vec<&str> = text.split('x').collect();
            match numbers[..] {
                [connections, in_flight, payload] => positive(connections)
                    .zip(positive(in_flight))
                    .zip(match payload {
                        "json" => Some(Payload::Json),
                        _ => positive(payload).map(Payload::Bytes),
                    })
                    .map(|((connections, in_flight), payload)| Self::Load {
                        name: text.into(),
                        connections,
                        in_flight,
                        payload,
                    }),
                _ => None,
            }
        };
        parsed.ok_or_else(|| format!("unknown scenario {text}"))
    }
}
