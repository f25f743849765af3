//! The servers, each with the loop that its own documentation shows.

use std::{fmt, io, str::FromStr, thread};

use rustix::net::sockopt::set_socket_send_buffer_size;
use tokio::{net::TcpListener, runtime};
#[cfg(feature = "nodes")]
use ws_tower::hub::backplane::{Nats, Redis};
#[cfg(feature = "ours")]
use ws_tower::{
    Config,
    hub::{Hub, SlowConsumer},
};

use self::certificate::Certificate;
use crate::{
    Result, broker,
    wire::{CLOSE_ANSWER, Echo},
};

mod axum;
mod certificate;
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
    #[cfg(feature = "ours")]
    OursHub,
    #[cfg(feature = "ours")]
    OursHubTask,
    #[cfg(feature = "ours")]
    OursHubDrop,
    #[cfg(feature = "nodes")]
    OursHubRedis,
    #[cfg(feature = "nodes")]
    OursHubNats,
    AxumBroadcast,
    TokioWebsocketsBroadcast,
    RawFanout,
    #[cfg(feature = "ours")]
    OursTls,
    AxumTls,
    TungsteniteTls,
    #[cfg(feature = "ours")]
    OursHttp2,
    AxumHttp2,
}

/// What lies below the WebSockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Tls,
    /// With prior knowledge, many sockets on each connection.
    Http2,
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

    /// Those that send every message to all connections, of this build.
    pub const FANOUT: &[Self] = &[
        #[cfg(feature = "ours")]
        Self::OursHub,
        #[cfg(feature = "ours")]
        Self::OursHubTask,
        #[cfg(feature = "ours")]
        Self::OursHubDrop,
        Self::AxumBroadcast,
        Self::TokioWebsocketsBroadcast,
        Self::RawFanout,
    ];

    /// Those that send every message to all connections, on one node and on several, of this build.
    pub const NODES: &[Self] = &[
        #[cfg(feature = "nodes")]
        Self::OursHub,
        #[cfg(feature = "nodes")]
        Self::OursHubRedis,
        #[cfg(feature = "nodes")]
        Self::OursHubNats,
    ];

    /// Those that echo over TLS or HTTP/2, of this build.
    pub const ENCRYPTED: &[Self] = &[
        #[cfg(feature = "ours")]
        Self::OursTls,
        Self::AxumTls,
        Self::TungsteniteTls,
        #[cfg(feature = "ours")]
        Self::OursHttp2,
        Self::AxumHttp2,
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
            #[cfg(feature = "ours")]
            Self::OursHub => "ours-hub",
            #[cfg(feature = "ours")]
            Self::OursHubTask => "ours-hub-task",
            #[cfg(feature = "ours")]
            Self::OursHubDrop => "ours-hub-drop",
            #[cfg(feature = "nodes")]
            Self::OursHubRedis => "ours-hub-redis",
            #[cfg(feature = "nodes")]
            Self::OursHubNats => "ours-hub-nats",
            Self::AxumBroadcast => "axum-broadcast",
            Self::TokioWebsocketsBroadcast => "tokio-websockets-broadcast",
            Self::RawFanout => "raw-fanout",
            #[cfg(feature = "ours")]
            Self::OursTls => "ours-tls",
            Self::AxumTls => "axum-tls",
            Self::TungsteniteTls => "tungstenite-tls",
            #[cfg(feature = "ours")]
            Self::OursHttp2 => "ours-http2",
            Self::AxumHttp2 => "axum-http2",
        }
    }

    pub fn echo(self) -> Echo {
        match self {
            Self::Raw | Self::RawFanout => Echo::Bytes,
            _ => Echo::Messages,
        }
    }

    /// What comes back for a Close before the end. The loop in axum's documentation sends the Close
    /// back itself, fails because tungstenite has queued one already, and drops both.
    pub fn close_answer(self) -> &'static [u8] {
        match self {
            Self::Axum | Self::AxumTls | Self::AxumHttp2 => &[],
            _ => &CLOSE_ANSWER,
        }
    }

    /// The broker between its nodes.
    pub fn broker(self) -> Option<broker::Kind> {
        match self {
            #[cfg(feature = "nodes")]
            Self::OursHubRedis => Some(broker::Kind::Redis),
            #[cfg(feature = "nodes")]
            Self::OursHubNats => Some(broker::Kind::Nats),
            _ => None,
        }
    }

    pub fn transport(self) -> Transport {
        match self {
            #[cfg(feature = "ours")]
            Self::OursTls => Transport::Tls,
            Self::AxumTls | Self::TungsteniteTls => Transport::Tls,
            #[cfg(feature = "ours")]
            Self::OursHttp2 => Transport::Http2,
            Self::AxumHttp2 => Transport::Http2,
            _ => Transport::Tcp,
        }
    }
}

impl FromStr for Server {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let mut all = Self::ALL
            .iter()
            .chain(Self::COMPRESSION)
            .chain(Self::FANOUT)
            .chain(Self::NODES)
            .chain(Self::ENCRYPTED)
            .copied();
        all.find(|server| server.name() == name)
            .ok_or_else(|| format!("this build has no server {name}"))
    }
}

impl fmt::Display for Server {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// Messages that wait for a subscriber of those with `tokio::sync::broadcast`, before it misses
/// some: more than are in flight, so that none of those that read does.
const BROADCAST_CAPACITY: usize = 1024;

/// What the kernel keeps for a subscriber of a fan-out server, in bytes: as for one behind a
/// network. On loopback it is 2.6 MB otherwise, which takes long to fill.
const FANOUT_SEND_BUFFER: usize = 64 << 10;

/// Runs `server` on a free port, with the broker that has this URL, prints its address and its certificate, if any, and ends the process when standard input does.
pub fn run(server: Server, broker: Option<String>) -> Result<()> {
    #[cfg(not(feature = "nodes"))]
    let _ = broker;
    thread::spawn(|| {
        let ended = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(i32::from(ended.is_err()));
    });
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let certificate = (server.transport() == Transport::Tls)
            .then(Certificate::new)
            .transpose()?;
        if Server::FANOUT.contains(&server) || Server::NODES.contains(&server) {
            // Connections inherit it.
            set_socket_send_buffer_size(&listener, FANOUT_SEND_BUFFER)?;
        }
        match &certificate {
            Some(certificate) => println!("{address} {}", certificate.hex()),
            None => println!("{address}"),
        }
        let tls = || certificate.ok_or("no certificate")?.tls();
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
            #[cfg(feature = "ours")]
            Server::OursHub => ours::hub(listener, Hub::new()).await,
            #[cfg(feature = "ours")]
            Server::OursHubTask => ours::hub_task(listener).await,
            #[cfg(feature = "ours")]
            Server::OursHubDrop => {
                let hub = Hub::builder().slow_consumer(SlowConsumer::DropOldest);
                ours::hub(listener, hub.build()).await
            }
            #[cfg(feature = "nodes")]
            Server::OursHubRedis => {
                let redis = Redis::new(&broker.ok_or("which broker?")?)
                    .map_err(|it| it as Box<dyn std::error::Error>)?;
                ours::hub(listener, Hub::builder().backplane(redis).build()).await
            }
            #[cfg(feature = "nodes")]
            Server::OursHubNats => {
                let nats = Nats::new(&broker.ok_or("which broker?")?);
                ours::hub(listener, Hub::builder().backplane(nats).build()).await
            }
            Server::AxumBroadcast => axum::broadcast(listener).await,
            Server::TokioWebsocketsBroadcast => tokio_websockets::broadcast(listener).await,
            Server::RawFanout => raw::fan_out(listener).await,
            #[cfg(feature = "ours")]
            Server::OursTls => ours::serve_tls(listener, tls()?).await,
            Server::AxumTls => axum::serve_tls(listener, tls()?).await,
            Server::TungsteniteTls => tungstenite::serve_tls(listener, tls()?).await,
            // It speaks both.
            #[cfg(feature = "ours")]
            Server::OursHttp2 => ours::serve(listener, Config::new()).await,
            Server::AxumHttp2 => axum::serve(listener).await,
        }
    })
}
