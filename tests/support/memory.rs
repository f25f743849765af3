//! Connections made in memory, and the server's end of them.
//!
//! Time can be paused around them. It runs on when all tasks wait, and does not know of what the
//! kernel still has to do for a socket.
#![allow(dead_code, reason = "each file of tests takes what it needs")]

use std::{future::pending, io, net::SocketAddr, time::SystemTime};

use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc,
    time::Instant,
};
use ws_hyper::Listener;
use ws_tests::raw::Raw;

/// Where a server listens.
pub(crate) struct Memory(mpsc::UnboundedReceiver<DuplexStream>);

impl Listener for Memory {
    type Io = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, Option<SocketAddr>)> {
        match self.0.recv().await {
            Some(io) => Ok((io, None)),
            None => pending().await,
        }
    }
}

/// Connects to a [`Memory`].
#[derive(Clone)]
pub(crate) struct Dial(mpsc::UnboundedSender<DuplexStream>);

impl Dial {
    pub(crate) fn new() -> (Self, Memory) {
        let (dial, memory) = mpsc::unbounded_channel();
        (Self(dial), Memory(memory))
    }

    pub(crate) fn dial(&self) -> Raw<DuplexStream> {
        let (near, far) = duplex(1 << 20);
        self.0.send(far).expect("a server");
        Raw(near)
    }

    /// Opens a WebSocket.
    pub(crate) async fn open(&self, path: &str) -> Raw<DuplexStream> {
        let mut raw = self.dial();
        raw.upgrade(path).await;
        raw
    }

    /// The head of the response to a request on a connection of its own.
    pub(crate) async fn ask(&self, request: impl AsRef<[u8]>) -> String {
        let mut raw = self.dial();
        raw.write(request).await;
        raw.head().await
    }
}

/// The system's clock, in the time of a test on one thread.
pub(crate) fn clock() -> SystemTime {
    thread_local! {
        static START: (SystemTime, Instant) = (SystemTime::now(), Instant::now());
    }
    START.with(|(system, start)| *system + start.elapsed())
}
