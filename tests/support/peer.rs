//! The other end of a session, in the hands of the test: the engine over a stream, one step at a
//! time.

use std::io;

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use ws_core::{CloseFrame, Config, Connection, Event, Message, Role};

/// The other end of a session. It does only what it is told, but for the replies of the protocol.
#[derive(Debug)]
pub struct Peer<Io> {
    /// The stream.
    pub io: Io,
    /// The engine.
    pub connection: Connection,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Peer<Io> {
    /// A client that takes messages of any size.
    pub fn client(io: Io) -> Self {
        Self::new(io, Role::Client)
    }

    /// A server that takes messages of any size.
    pub fn server(io: Io) -> Self {
        Self::new(io, Role::Server)
    }

    fn new(io: Io, role: Role) -> Self {
        let config = Config::new()
            .max_message_size(usize::MAX)
            .inbox_high_water(usize::MAX)
            .outgoing_high_water(usize::MAX);
        Self {
            io,
            connection: Connection::new(role, config),
        }
    }

    /// Writes what the engine has to say.
    ///
    /// # Errors
    ///
    /// Those of the stream.
    pub async fn flush(&mut self) -> io::Result<()> {
        loop {
            let mut transmit = self.connection.transmit();
            if !transmit.has_remaining() {
                return Ok(());
            }
            let count = self.io.write(transmit.chunk()).await?;
            transmit.advance(count);
        }
    }

    /// Sends a message.
    ///
    /// # Errors
    ///
    /// Those of the stream, or of sending after a Close.
    pub async fn send(&mut self, message: impl Into<Message>) -> io::Result<()> {
        self.connection.send(message).map_err(io::Error::other)?;
        self.flush().await
    }

    /// Sends a ping.
    ///
    /// # Errors
    ///
    /// Those of the stream, or of sending after a Close.
    pub async fn ping(&mut self, payload: &[u8]) -> io::Result<()> {
        self.connection.ping(payload).map_err(io::Error::other)?;
        self.flush().await
    }

    /// Sends a Close.
    ///
    /// # Errors
    ///
    /// Those of the stream, or of sending after a Close.
    pub async fn close(&mut self, close: impl Into<Option<CloseFrame>>) -> io::Result<()> {
        self.connection.close(close).map_err(io::Error::other)?;
        self.flush().await
    }

    /// The next event; `None` when the stream or the connection has ended.
    pub async fn event(&mut self) -> Option<Event> {
        loop {
            match self.connection.poll() {
                Ok(Some(event)) => return Some(event),
                Ok(None) => {}
                Err(_) => return None,
            }
            // The peer may be gone by now: what it sent before counts.
            let _ = self.flush().await;
            let mut buffer = [0; 4096];
            match self.io.read(&mut buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.connection.receive(&buffer[..count]),
            }
        }
    }

    /// The next message, whatever else comes before it; `None` at the end.
    pub async fn message(&mut self) -> Option<Message> {
        loop {
            match self.event().await? {
                Event::Message(message) => return Some(message),
                Event::Close(_) => return None,
                Event::Ping(_) | Event::Pong(_) => {}
            }
        }
    }
}

/// A masked frame of at most 125 bytes, as a client sends it, with a key of zeros, which leaves
/// the payload readable. `first` is the byte with FIN and opcode.
///
/// # Panics
///
/// For a longer payload.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() <= 125, "a short frame");
    let mut frame = vec![first, 0x80 | u8::try_from(payload.len()).unwrap_or(0)];
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}
