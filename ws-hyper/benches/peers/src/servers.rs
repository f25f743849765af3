//! The echo servers, each with the loop that its own documentation shows.

use std::{fmt, io, str::FromStr, thread};

use tokio::{net::TcpListener, runtime};
#[cfg(feature = "ours")]
use ws_tower::Config;

use crate::{Result, wire::Echo};

mod axum;
mod fastwebsockets;
#[cfg(feature = "ours")]
mod ours;
mod raw;
mod tokio_websockets;
mod tungstenite;
#[cfg(feature = "wtx")]
mod wtx;
#[cfg(feature = "yawc")]
mod yawc;

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
    #[cfg(feature = "ours")]
    OursPlain,
    #[cfg(feature = "yawc")]
    Yawc,
    #[cfg(feature = "yawc")]
    YawcFast,
    #[cfg(feature = "yawc")]
    YawcPooled,
    #[cfg(feature = "wtx")]
    Wtx,
    #[cfg(feature = "wtx")]
    WtxFast,
}

impl Server {
    /// Those that are compared without compression, of this build.
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

    /// Those that are compared with compression, of this build.
    pub const COMPRESSION: &[Self] = &[
        #[cfg(feature = "ours")]
        Self::Ours,
        #[cfg(feature = "ours")]
        Self::OursPlain,
        Self::Tungstenite,
        #[cfg(feature = "yawc")]
        Self::Yawc,
        #[cfg(feature = "yawc")]
        Self::YawcFast,
        #[cfg(feature = "yawc")]
        Self::YawcPooled,
        #[cfg(feature = "wtx")]
        Self::Wtx,
        #[cfg(feature = "wtx")]
        Self::WtxFast,
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
            #[cfg(feature = "ours")]
            Self::OursPlain => "ours-plain",
            #[cfg(feature = "yawc")]
            Self::Yawc => "yawc",
            #[cfg(feature = "yawc")]
            Self::YawcFast => "yawc-fast",
            #[cfg(feature = "yawc")]
            Self::YawcPooled => "yawc-pooled",
            #[cfg(feature = "wtx")]
            Self::Wtx => "wtx",
            #[cfg(feature = "wtx")]
            Self::WtxFast => "wtx-fast",
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
        let mut all = Self::ALL.iter().chain(Self::COMPRESSION).copied();
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
            Server::Ours => ours::serve(listener, Config::new()).await,
            #[cfg(feature = "ours")]
            Server::OursPlain => ours::serve(listener, Config::new().deflate(None)).await,
            Server::Axum => axum::serve(listener).await,
            Server::Tungstenite => tungstenite::serve(listener, tungstenite::echo).await,
            Server::TungsteniteForward => tungstenite::serve(listener, tungstenite::forward).await,
            Server::Fastwebsockets => fastwebsockets::serve(listener).await,
            Server::TokioWebsockets => tokio_websockets::serve(listener).await,
            Server::Raw => raw::serve(listener).await,
            #[cfg(feature = "yawc")]
            Server::Yawc => yawc::serve(listener, yawc::balanced()).await,
            #[cfg(feature = "yawc")]
            Server::YawcFast => yawc::serve(listener, yawc::fast()).await,
            #[cfg(feature = "yawc")]
            Server::YawcPooled => yawc::serve(listener, yawc::pooled()).await,
            #[cfg(feature = "wtx")]
            Server::Wtx => wtx::serve(listener, wtx::default).await,
            #[cfg(feature = "wtx")]
            Server::WtxFast => wtx::serve(listener, wtx::fast).await,
        }
    })
}
