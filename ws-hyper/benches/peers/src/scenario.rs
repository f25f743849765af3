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
        /// Bytes in each message.
        payload: usize,
    },
    /// Connections that are silent.
    Idle { connections: usize },
}

impl Scenario {
    /// All named scenarios.
    pub fn defaults() -> Vec<Self> {
        let load = |name: &str, connections, in_flight, payload| Self::Load {
            name: name.into(),
            connections,
            in_flight,
            payload,
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

    pub fn name(&self) -> &str {
        match self {
            Self::Load { name, .. } => name,
            Self::Idle { .. } => "idle",
        }
    }
}

/// A name, `CONNECTIONSxIN_FLIGHTxBYTES`, or `idle:CONNECTIONS`.
impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(named) = Self::defaults().into_iter().find(|one| one.name() == text) {
            return Ok(named);
        }
        let positive = |number: &str| number.parse().ok().filter(|&number| number > 0);
        let parsed = if let Some(connections) = text.strip_prefix("idle:") {
            positive(connections).map(|connections| Self::Idle { connections })
        } else {
            let numbers: Option<Vec<usize>> = text.split('x').map(positive).collect();
            match numbers.as_deref() {
                Some(&[connections, in_flight, payload]) => Some(Self::Load {
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
