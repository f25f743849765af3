//! The same windows over HTTP/2: many sockets on each of a few connections, by the crate h2.
//!
//! The generator's thread does not sleep here either: a task that always has something to do keeps
//! the runtime awake.

use std::{
    future::poll_fn,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::{RecvStream, SendStream, client::SendRequest, ext::Protocol};
use http::{Method, Request, StatusCode};
use tokio::{
    net::TcpStream,
    runtime::{self, Runtime},
    task::{JoinHandle, yield_now},
    time::timeout,
};

use super::Run;
use crate::{
    Result,
    wire::{Answer, CLOSE, Exchange, PATH, PATIENCE},
};

/// How many sockets share a connection: fewer streams than any server allows by default.
const SOCKETS_PER_CONNECTION: usize = 100;

/// Sockets of one server.
pub struct Http2 {
    runtime: Runtime,
    address: SocketAddr,
    connections: Vec<Connection>,
    sockets: Vec<Socket>,
}

struct Connection {
    requests: SendRequest<Bytes>,
    task: JoinHandle<Result<(), h2::Error>>,
}

struct Socket {
    send: SendStream<Bytes>,
    receive: RecvStream,
}

impl Http2 {
    pub fn new(address: SocketAddr) -> Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Self {
            runtime,
            address,
            connections: Vec::new(),
            sockets: Vec::new(),
        })
    }

    /// Opens so many sockets more.
    pub fn open(&mut self, count: usize) -> Result<()> {
        awake(&self.runtime, async {
            for opened in 0..count {
                if opened.is_multiple_of(SOCKETS_PER_CONNECTION) {
                    self.connections.push(Connection::open(self.address).await?);
                }
                let connection = self.connections.last_mut().ok_or("no connection")?;
                self.sockets.push(connection.socket(self.address).await?);
            }
            Ok(())
        })
    }

    /// Keeps a window in flight on every socket for `duration`, then waits for all answers; each
    /// sends one at least.
    pub fn run(&mut self, exchange: &Exchange, duration: Duration) -> Result<Run> {
        let window = &exchange.windows[0];
        let Answer::Bytes(answer) = &window.answer else {
            return Err("no compression over HTTP/2 here".into());
        };
        let (request, answer) = (
            Bytes::copy_from_slice(&window.request),
            Bytes::copy_from_slice(answer),
        );
        let start = Instant::now();
        let sockets = std::mem::take(&mut self.sockets);
        let windows = awake(&self.runtime, async {
            let tasks: Vec<_> = sockets
                .into_iter()
                .map(|mut socket| {
                    let (request, answer) = (request.clone(), answer.clone());
                    tokio::spawn(async move {
                        let mut windows = 0;
                        while windows == 0 || start.elapsed() < duration {
                            let exchange = socket.exchange(&request, &answer);
                            timeout(PATIENCE, exchange)
                                .await
                                .map_err(|_| "stuck, a socket waits for an answer".to_owned())??;
                            windows += 1;
                        }
                        Ok::<_, String>((socket, windows))
                    })
                })
                .collect();
            let mut windows = 0;
            for task in tasks {
                let (socket, count) = task.await??;
                self.sockets.push(socket);
                windows += count;
            }
            Ok(windows)
        })?;
        Ok(Run {
            messages: windows * exchange.messages,
            elapsed: start.elapsed(),
            bytes_back: (windows * answer.len()) as u64,
        })
    }

    /// One after the other while `more` says so of their number: a connection with one socket,
    /// which is closed. Returns how many, and how long it took.
    pub fn handshakes(
        &mut self,
        mut more: impl FnMut(usize) -> bool,
        answer: &[u8],
    ) -> Result<(usize, Duration)> {
        let address = self.address;
        let start = Instant::now();
        awake(&self.runtime, async {
            let mut count = 0;
            while more(count) {
                let mut connection = Connection::open(address).await?;
                connection.socket(address).await?.close(answer).await?;
                connection.end().await?;
                count += 1;
            }
            Ok((count, start.elapsed()))
        })
    }

    /// The same on one connection: a socket, which is closed.
    pub fn streams(
        &mut self,
        mut more: impl FnMut(usize) -> bool,
        answer: &[u8],
    ) -> Result<(usize, Duration)> {
        let address = self.address;
        let start = Instant::now();
        awake(&self.runtime, async {
            let mut connection = Connection::open(address).await?;
            let mut count = 0;
            while more(count) {
                connection.socket(address).await?.close(answer).await?;
                count += 1;
            }
            connection.end().await?;
            Ok((count, start.elapsed()))
        })
    }
}

/// Runs the work without ever sleeping.
fn awake<T>(runtime: &Runtime, work: impl Future<Output = Result<T>>) -> Result<T> {
    runtime.block_on(async {
        let watch = tokio::spawn(async {
            loop {
                yield_now().await;
            }
        });
        let outcome = work.await;
        watch.abort();
        outcome
    })
}

impl Connection {
    async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .handshake(stream)
            .await?;
        let task = tokio::spawn(connection);
        let start = Instant::now();
        // RFC 8441 §3: the server's settings have to allow it.
        while !requests.is_extended_connect_protocol_enabled() {
            if start.elapsed() >= PATIENCE || task.is_finished() {
                return Err("the server allows no WebSockets over HTTP/2".into());
            }
            yield_now().await;
        }
        Ok(Self { requests, task })
    }

    async fn socket(&mut self, address: SocketAddr) -> Result<Socket> {
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(format!("http://{address}{PATH}"))
            .header("sec-websocket-version", "13")
            .extension(Protocol::from_static("websocket"))
            .body(())?;
        poll_fn(|context| self.requests.poll_ready(context)).await?;
        let (response, send) = self.requests.send_request(request, false)?;
        let response = response.await?;
        if response.status() != StatusCode::OK {
            return Err(format!("refused the handshake: {}", response.status()).into());
        }
        Ok(Socket {
            send,
            receive: response.into_body(),
        })
    }

    /// Waits until the server has closed it, too.
    async fn end(self) -> Result<()> {
        drop(self.requests);
        Ok(timeout(PATIENCE, self.task).await???)
    }
}

impl Socket {
    async fn exchange(&mut self, request: &Bytes, answer: &[u8]) -> Result<(), String> {
        let failed = |error: h2::Error| error.to_string();
        self.send
            .send_data(request.clone(), false)
            .map_err(failed)?;
        let mut rest = answer;
        while !rest.is_empty() {
            let data = self.receive.data().await;
            let data = data.ok_or("closed by the server")?.map_err(failed)?;
            let flow = self.receive.flow_control();
            flow.release_capacity(data.len()).map_err(failed)?;
            if rest.get(..data.len()) != Some(&data[..]) {
                return Err("the answer is not what was sent".into());
            }
            rest = &rest[data.len()..];
        }
        Ok(())
    }

    /// The closing handshake, and the end of the stream in both directions.
    async fn close(mut self, answer: &[u8]) -> Result<()> {
        let closing = async {
            self.send.send_data(Bytes::from_static(&CLOSE), false)?;
            let mut received = Vec::new();
            while let Some(data) = self.receive.data().await {
                received.extend_from_slice(&data?);
            }
            // Unless the server has reset the stream behind its end (RFC 9113 §8.1).
            let _ = self.send.send_data(Bytes::new(), true);
            if received != answer {
                return Err("the Close was not answered".into());
            }
            Ok(())
        };
        timeout(PATIENCE, closing).await?
    }
}
