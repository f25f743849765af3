//! One connection publishes, all of them receive.

use std::{
    hint,
    io::ErrorKind,
    mem,
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use mio::{Events, unix::SourceFd};
use rustix::net::sockopt::set_socket_recv_buffer_size;

use super::{Load, PACE, Run};
use crate::{
    Result,
    stream::Stream,
    wire::{Exchange, PATIENCE},
};

/// What the kernel takes on for a connection that nobody reads, in bytes.
const ABANDONED_RECEIVE_BUFFER: usize = 16 << 10;

impl Load {
    /// From now on other messages are sent. Returns those before.
    pub fn replace(&mut self, exchange: Exchange) -> Exchange {
        mem::replace(&mut self.exchange, exchange)
    }

    /// Leaves the last connection open, and reads nothing from it any more.
    pub fn abandon(&mut self) -> Result<Stream> {
        let connection = self.connections.pop().ok_or("no connection")?;
        let socket = connection.stream.as_raw_fd();
        self.poll.registry().deregister(&mut SourceFd(&socket))?;
        set_socket_recv_buffer_size(&connection.stream, ABANDONED_RECEIVE_BUFFER)?;
        Ok(connection.stream)
    }

    /// The first connection sends a window, and the next one when all have received it; for
    /// `duration`, but one at least. Before and after, nothing is in flight. A message counts for each that receives
    /// it. Returns also how long after the sending each connection, by its number, had the whole
    /// window.
    pub fn publish(&mut self, duration: Duration) -> Result<(Run, Vec<(usize, Duration)>)> {
        let start = Instant::now();
        let windows = &self.exchange.windows;
        let mut latencies = Vec::new();
        let mut bytes_back = 0;
        let mut events = Events::with_capacity(1024);
        while latencies.is_empty() || start.elapsed() < duration {
            for connection in &mut self.connections {
                connection.begin(windows);
            }
            let sent = Instant::now();
            let mut last_event = sent;
            let publisher = &mut self.connections[0];
            publisher.write(&windows[publisher.window])?;
            let mut waiting = self.connections.len();
            while waiting > 0 {
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
                    return Err(format!("stuck, {waiting} connections wait for a message").into());
                }
                for event in &events {
                    let connection = &mut self.connections[event.token().0];
                    if !connection.waits {
                        continue;
                    }
                    let window = &windows[connection.window];
                    bytes_back += connection.read(window, &mut self.buffer)? as u64;
                    if !connection.waits {
                        waiting -= 1;
                        latencies.push((event.token().0, sent.elapsed()));
                    }
                    // What did not fit at first; of all others it is there already.
                    if event.token().0 == 0 {
                        connection.write(window)?;
                    }
                }
            }
        }
        let run = Run {
            messages: latencies.len() * self.exchange.messages,
            elapsed: start.elapsed(),
            bytes_back,
        };
        Ok((run, latencies))
    }
}
