//! The echo servers, each with the loop that its own documentation shows.

use std::{fmt, io, str::FromStr, thread};

use tokio::{net::TcpListener, runtime};

use crate::{Result, wire::Echo};

mod axum;
mod fastwebsockets;
#[cfg(feature = "ours")]
mod ours;
mod raw;
mod tokio_websockets;
mod tungstenite;

/// A server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    #[cfg(feature = "ours")]
    Ours,
    Axum,
    Tungstenite,
    TungsteniteForward,
    Fastwebsockets,
    TokioWebsockets,
    Raw,
}

impl Server {
    /// Those of this build.
    pub const ALL: &[Self] = &[
        #[cfg(feature = "ours")]
        Self::Ours,
        Self::Axum,
        Self::Tungstenite,
        Self::TungsteniteForward,
        Self::Fastwebsockets,
        Self::TokioWebsockets,
        Self::Raw,
    ];

    pub fn name(self) -> &'static str {
        match self {
            #[cfg(feature = "ours")]
            Self::Ours => "ours",
            Self::Axum => "axum",
            Self::Tungstenite => "tungstenite",
            Self::TungsteniteForward => "tungstenite-forward",
            Self::Fastwebsockets => "fastwebsockets",
            Self::TokioWebsockets => "tokio-websockets",
            Self::Raw => "raw",
        }
    }

    pub fn echo(self) -> Echo {
        match self {
            Self::Raw => Echo::Bytes,
            _ => Echo::Messages,
        }
    }
}

impl FromStr for Server {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let mut all = Self::ALL.iter().copied();
        all.find(|server| server.name() == name)
            .ok_or_else(|| format!("this build has no server {name}"))
    }
}

impl fmt::Display for Server {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// Runs `server` on a free port, prints its address, and ends the process when standard input does.
pub fn run(server: Server) -> Result<()> {
    thread::spawn(|| {
        let ended = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(i32::from(ended.is_err()));
    });
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        match server {
            #[cfg(feature = "ours")]
            Server::Ours => ours::serve(listener).await,
            Server::Axum => axum::serve(listener).await,
            Server::Tungstenite => tungstenite::serve(listener, tungstenite::echo).await,
            Server::TungsteniteForward => tungstenite::serve(listener, tungstenite::forward).await,
            Server::Fastwebsockets => fastwebsockets::serve(listener).await,
            Server::TokioWebsockets => tokio_websockets::serve(listener).await,
            Server::Raw => raw::serve(listener).await,
        }
    })
}
