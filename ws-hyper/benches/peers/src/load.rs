//! The load generator: one thread, one epoll, and on each connection the same window of messages
//! again and again. It never sleeps: to wake a sleeping core costs the core that does it several
//! microseconds on a virtual machine, and that would be booked on the server.

use std::{
    hint,
    io::{self, ErrorKind, Read, Write},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, unix::SourceFd};

use crate::{
    Result,
    stream::{Endpoint, Stream},
    wire::{self, Answer, Exchange, FrameCounter, PATIENCE, Window},
};

mod fanout;
mod http2;

pub use http2::Http2;

/// The least time between two rounds over the connections that have something to read. A read on
/// one core slows a write to the same connection down on the other (by a third, measured on servers
/// that write each message by itself), which is not so with a network in between. A network card
/// holds its interrupts back for about as long.
const PACE: Duration = Duration::from_micros(50);

/// Connections to one server.
pub struct Load {
    exchange: Exchange,
    connections: Vec<Connection>,
    poll: Poll,
    buffer: Vec<u8>,
}

/// What went round in one run.
pub struct Run {
    pub messages: usize,
    pub elapsed: Duration,
    /// Bytes that came back, with the headers of their frames.
    pub bytes_back: u64,
}

impl Load {
    /// A connection to each of `endpoints`. `offers`: compression, for which the `exchange` is made
    /// then.
    pub fn connect<'a>(
        endpoints: impl Iterator<Item = &'a Endpoint>,
        exchange: Exchange,
        offers: bool,
    ) -> Result<Self> {
        let poll = Poll::new()?;
        let connections = endpoints
            .enumerate()
            .map(|(index, endpoint)| {
                let mut stream = wire::connect(endpoint, offers)?.stream;
                stream.never_wait();
                let interest = Interest::READABLE | Interest::WRITABLE;
                let socket = stream.as_raw_fd();
                poll.registry()
                    .register(&mut SourceFd(&socket), Token(index), interest)?;
                Ok(Connection {
                    stream,
                    // Each begins with another message than the one before it.
                    window: index % exchange.windows.len(),
                    sent: 0,
                    received: 0,
                    frames: FrameCounter::default(),
                    waits: false,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            exchange,
            connections,
            poll,
            // As much as a socket commonly holds, so that one read empties it.
            buffer: vec![0; 256 << 10],
        })
    }

    /// Keeps a window in flight on every connection for `duration`, then waits for all answers.
    /// Before and after, nothing is in flight.
    pub fn run(&mut self, duration: Duration) -> Result<Run> {
        let start = Instant::now();
        let windows = &self.exchange.windows;
        let mut exchanges = 0;
        let mut bytes_back = 0;
        let mut in_flight = self.connections.len();
        for connection in &mut self.connections {
            let window = connection.begin(windows);
            connection.write(window)?;
        }
        let mut events = Events::with_capacity(1024);
        let mut last_event = start;
        while in_flight > 0 {
            if let Err(error) = self.poll.poll(&mut events, Some(Duration::ZERO)) {
                if error.kind() == ErrorKind::Interrupted {
                    continue;
                }
                return Err(error.into());
            }
            let mut now = Instant::now();
            if !events.is_empty() {
                while now - last_event < PACE {
                    hint::spin_loop();
                    now = Instant::now();
                }
                last_event = now;
            } else if now - last_event >= PATIENCE {
                return Err(format!("stuck, {in_flight} connections wait for an answer").into());
            }
            let over = now - start >= duration;
            for event in &events {
                let connection = &mut self.connections[event.token().0];
                let was_waiting = connection.waits;
                let window = &windows[connection.window];
                bytes_back += connection.read(window, &mut self.buffer)? as u64;
                let mut window = window;
                if was_waiting && !connection.waits {
                    exchanges += 1;
                    if over {
                        in_flight -= 1;
                        continue;
                    }
                    window = connection.begin(windows);
                }
                connection.write(window)?;
            }
        }
        Ok(Run {
            messages: exchanges * self.exchange.messages,
            elapsed: start.elapsed(),
            bytes_back,
        })
    }
}

struct Connection {
    stream: Stream,
    /// The window that is under way, or was the last.
    window: usize,
    /// Bytes of its request that were written.
    sent: usize,
    /// Bytes of its answer that were read.
    received: usize,
    /// The frames of its answer, where they are counted.
    frames: FrameCounter,
    /// Whether the answer is not whole yet.
    waits: bool,
}

impl Connection {
    fn begin<'a>(&mut self, windows: &'a [Window]) -> &'a Window {
        self.window = (self.window + 1) % windows.len();
        self.sent = 0;
        self.received = 0;
        self.frames.frames = 0;
        self.waits = true;
        &windows[self.window]
    }

    fn write(&mut self, window: &Window) -> io::Result<()> {
        let request = &window.request;
        while self.sent < request.len() {
            match self.stream.write(&request[self.sent..]) {
                Ok(0) => break,
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        match self.stream.flush() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    /// Reads what is there; a short read says that the socket is empty, without another call. That
    /// is not so with TLS, which reads a record at a time.
    fn read(&mut self, window: &Window, buffer: &mut [u8]) -> Result<usize> {
        let start = self.received;
        while self.waits {
            match self.stream.read(buffer) {
                Ok(0) => return Err("closed by the server".into()),
                Ok(count) => {
                    self.take(window, &buffer[..count])?;
                    if count < buffer.len() && self.stream.is_plain() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.received - start)
    }

    fn take(&mut self, window: &Window, bytes: &[u8]) -> Result<()> {
        match &window.answer {
            Answer::Bytes(answer) => {
                let rest = &answer[self.received..];
                if rest.get(..bytes.len()) != Some(bytes) {
                    return Err("the answer is not what was sent".into());
                }
                self.waits = bytes.len() < rest.len();
            }
            Answer::Frames(count) => {
                self.frames.count(bytes)?;
                if self.frames.frames > *count {
                    return Err("more came back than was sent".into());
                }
                self.waits = self.frames.frames < *count || !self.frames.is_between_frames();
            }
        }
        self.received += bytes.len();
        Ok(())
    }
}
