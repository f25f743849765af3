//! The load generator: one thread, one epoll, and on each connection the same window of messages
//! again and again. It never sleeps: to wake a sleeping core costs the core that does it several
//! microseconds on a virtual machine, and that would be booked on the server.

use std::{
    hint,
    io::{self, ErrorKind, Read, Write},
    net::SocketAddr,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, net::TcpStream};

use crate::{
    Result,
    wire::{self, Exchange, PATIENCE},
};

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
}

impl Load {
    pub fn connect(address: SocketAddr, connections: usize, exchange: Exchange) -> Result<Self> {
        let poll = Poll::new()?;
        let connections = (0..connections)
            .map(|index| {
                let stream = wire::connect(address)?;
                stream.set_nonblocking(true)?;
                let mut stream = TcpStream::from_std(stream);
                let interest = Interest::READABLE | Interest::WRITABLE;
                poll.registry()
                    .register(&mut stream, Token(index), interest)?;
                Ok(Connection {
                    stream,
                    sent: 0,
                    received: exchange.response.len(),
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
        let mut exchanges = 0;
        let mut in_flight = self.connections.len();
        for connection in &mut self.connections {
            connection.begin();
            connection.write(&self.exchange.request)?;
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
                let was_waiting = connection.waits(&self.exchange);
                connection.read(&self.exchange.response, &mut self.buffer)?;
                if was_waiting && !connection.waits(&self.exchange) {
                    exchanges += 1;
                    if over {
                        in_flight -= 1;
                        continue;
                    }
                    connection.begin();
                }
                connection.write(&self.exchange.request)?;
            }
        }
        Ok(Run {
            messages: exchanges * self.exchange.messages,
            elapsed: start.elapsed(),
        })
    }
}

struct Connection {
    stream: TcpStream,
    /// Bytes of the request that were written.
    sent: usize,
    /// Bytes of the response that were read.
    received: usize,
}

impl Connection {
    fn begin(&mut self) {
        self.sent = 0;
        self.received = 0;
    }

    fn waits(&self, exchange: &Exchange) -> bool {
        self.received < exchange.response.len()
    }

    fn write(&mut self, request: &[u8]) -> io::Result<()> {
        while self.sent < request.len() {
            match self.stream.write(&request[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what is there; a short read says that the socket is empty, without another call.
    fn read(&mut self, response: &[u8], buffer: &mut [u8]) -> Result<()> {
        while self.received < response.len() {
            match self.stream.read(buffer) {
                Ok(0) => return Err("closed by the server".into()),
                Ok(count) => {
                    let rest = &response[self.received..];
                    if rest.get(..count) != Some(&buffer[..count]) {
                        return Err("the answer is not what was sent".into());
                    }
                    self.received += count;
                    if count < buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
