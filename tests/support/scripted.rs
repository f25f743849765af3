//! A server that says what a script has it say, for clients.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::sleep,
};
use ws_core::handshake::accept_key;

use crate::raw::within;

/// A client's visit, and its request.
#[derive(Debug)]
pub struct Visit<Io = TcpStream> {
    /// The stream.
    pub io: Io,
    /// The head of the request, with its last empty line.
    pub head: String,
}

/// A server on a port of its own. It runs the script for each connection whose request has come.
pub async fn server<F, Fut>(script: F) -> SocketAddr
where
    F: Fn(Visit) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    visited(move |io| {
        let script = script.clone();
        async move {
            if let Some(visit) = Visit::of(io).await {
                script(visit).await;
            }
        }
    })
    .await
}

/// The same before any request.
pub async fn visited<F, Fut>(script: F) -> SocketAddr
where
    F: Fn(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            tokio::spawn(script(io));
        }
    });
    address
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Visit<Io> {
    /// Reads a request; `None` if the client has gone before its end.
    pub async fn of(mut io: Io) -> Option<Self> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(io.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).ok()?;
        Some(Self { io, head })
    }

    /// The values of a header, one for each of its lines.
    pub fn header(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .filter(|(line, _)| line.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }

    /// What is requested.
    pub fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// The answer to the request's key.
    pub fn accept(&self) -> String {
        let key = self.header("sec-websocket-key")[0];
        String::from_utf8_lossy(&accept_key(key.as_bytes())).into_owned()
    }

    /// The response that accepts, with these lines in it, each with its line break.
    pub fn acceptance(&self, lines: &str) -> String {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n{lines}\r\n",
            self.accept()
        )
    }

    /// Writes, as far as the client takes it.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.io.write_all(bytes.as_ref()).await;
    }

    /// Accepts, and writes some bytes in the same write.
    pub async fn open(&mut self, behind: &[u8]) {
        let mut bytes = self.acceptance("").into_bytes();
        bytes.extend_from_slice(behind);
        self.write(bytes).await;
    }

    /// Waits until the client has gone, and returns what it wrote.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = within(self.io.read_to_end(&mut rest)).await;
        rest
    }

    /// Waits so long that no test sees the end of it.
    pub async fn be_silent(&mut self) {
        sleep(Duration::from_secs(3600)).await;
    }
}
