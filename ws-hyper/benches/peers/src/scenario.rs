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
    /// One of some connections sends messages, all of them receive them.
    Fanout {
        name: String,
        connections: usize,
        /// Messages that are sent at once.
        in_flight: usize,
        /// Bytes.
        payload: usize,
    },
    /// The same, with the time that it takes until a connection has the message; first by itself,
    /// then while one connection more reads nothing.
    Stalled { connections: usize },
    /// Connections that are opened and closed, one after the other.
    Handshake,
    /// Connections that are silent.
    Idle { connections: usize },
    /// Connections that have exchanged compressed messages, and are silent.
    DeflateIdle { connections: usize },
    /// One of all connections to some nodes sends messages, all of them receive them.
    Nodes {
        name: String,
        nodes: usize,
        /// Connections of each node.
        members: usize,
        in_flight: usize,
    },
    /// Topics with one member each, on one node.
    Topics { topics: usize },
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

    /// Those of fan-out.
    pub fn fanout() -> Vec<Self> {
        let fanout = |name: &str, connections, in_flight| Self::Fanout {
            name: name.into(),
            connections,
            in_flight,
            payload: 128,
        };
        vec![
            fanout("fanout-16", 1000, 16),
            fanout("fanout-1", 1000, 1),
            fanout("fanout-10k-16", 10_000, 16),
            fanout("fanout-10k-1", 10_000, 1),
            Self::Stalled { connections: 1000 },
        ]
    }

    /// Those on several nodes.
    pub fn nodes() -> Vec<Self> {
        let nodes = |name: &str, nodes, members, in_flight| Self::Nodes {
            name: name.into(),
            nodes,
            members,
            in_flight,
        };
        vec![
            nodes("nodes-16", 3, 300, 16),
            nodes("nodes-1", 3, 300, 1),
            // For the arithmetic: what one more node costs, and one more member.
            nodes("nodes:2x1x16", 2, 1, 16),
            nodes("nodes:6x1x16", 6, 1, 16),
            nodes("nodes:2x101x16", 2, 101, 16),
            Self::Topics { topics: 100_000 },
        ]
    }

    /// Those over TLS and HTTP/2.
    pub fn encrypted() -> Vec<Self> {
        let mut scenarios = Self::defaults();
        scenarios
            .retain(|scenario| matches!(scenario.name(), "pipelined" | "one" | "big-64k" | "idle"));
        scenarios.insert(0, Self::Handshake);
        scenarios
    }

    pub fn name(&self) -> &str {
        match self {
            Self::Load { name, .. } | Self::Fanout { name, .. } | Self::Nodes { name, .. } => name,
            Self::Stalled { .. } => "stalled",
            Self::Handshake => "handshake",
            Self::Idle { .. } => "idle",
            Self::DeflateIdle { .. } => "deflate-idle",
            Self::Topics { .. } => "topics",
        }
    }
}

/// A name, `CONNECTIONSxIN_FLIGHTxBYTES`, with `json` for the bytes too, the same behind `fanout:`,
/// `nodes:NODESxMEMBERSxIN_FLIGHT`, `topics:TOPICS`, `stalled:CONNECTIONS`, `idle:CONNECTIONS`, or
/// `deflate-idle:CONNECTIONS`.
impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut named = Self::defaults()
            .into_iter()
            .chain(Self::compression())
            .chain(Self::fanout())
            .chain(Self::encrypted())
            .chain(Self::nodes());
        if let Some(named) = named.find(|one| one.name() == text) {
            return Ok(named);
        }
        let positive = |number: &str| number.parse().ok().filter(|&number| number > 0);
        let parsed = if let Some(connections) = text.strip_prefix("idle:") {
            positive(connections).map(|connections| Self::Idle { connections })
        } else if let Some(connections) = text.strip_prefix("deflate-idle:") {
            positive(connections).map(|connections| Self::DeflateIdle { connections })
        } else if let Some(connections) = text.strip_prefix("stalled:") {
            positive(connections).map(|connections| Self::Stalled { connections })
        } else if let Some(topics) = text.strip_prefix("topics:") {
            positive(topics).map(|topics| Self::Topics { topics })
        } else if let Some(numbers) = text.strip_prefix("nodes:") {
            let numbers: Vec<_> = numbers.split('x').map(positive).collect();
            match numbers[..] {
                [Some(nodes), Some(members), Some(in_flight)] => Some(Self::Nodes {
                    name: text.into(),
                    nodes,
                    members,
                    in_flight,
                }),
                _ => None,
            }
        } else if let Some(numbers) = text.strip_prefix("fanout:") {
            let numbers: Vec<_> = numbers.split('x').map(positive).collect();
            match numbers[..] {
                [Some(connections), Some(in_flight), Some(payload)] => Some(Self::Fanout {
                    name: text.into(),
                    connections,
                    in_flight,
                    payload,
                }),
                _ => None,
            }
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
