//! Streams whose waits have an end, and the one that [`connect`](super::connect) makes.

use std::{
    io::{self, IoSlice, Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

#[cfg(feature = "rustls")]
use super::tls::TlsStream;

/// A byte stream whose waits can be limited, and whose write side can be ended by itself.
///
/// With it a [`WebSocket`](super::WebSocket) has a sense of time: keepalive, deadlines,
/// [`recv_timeout`](super::WebSocket::recv_timeout). It is there for TCP, for Unix sockets and,
/// with the feature `rustls`, for TLS over TCP.
///
/// A read or a write that has waited for its time fails with [`WouldBlock`](io::ErrorKind::WouldBlock)
/// or [`TimedOut`](io::ErrorKind::TimedOut), and has lost nothing: the next goes on where it left.
pub trait TimedStream: Read + Write {
    /// Sets how long a read waits for bytes; `None` for ever. It is never zero.
    ///
    /// # Errors
    ///
    /// Those of the stream; the socket does not live on after one.
    fn set_read_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()>;

    /// Sets how long a write or a flush waits for room; `None` for ever. It is never zero.
    ///
    /// # Errors
    ///
    /// Those of the stream; the socket does not live on after one.
    fn set_write_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()>;

    /// Tells the peer that nothing more is written. Reading goes on.
    ///
    /// # Errors
    ///
    /// Those of the stream. Nobody is bothered with them.
    fn shutdown_write(&mut self) -> io::Result<()>;
}

impl TimedStream for TcpStream {
    fn set_read_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        Self::set_read_timeout(self, timeout)
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        Self::set_write_timeout(self, timeout)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

#[cfg(unix)]
impl TimedStream for std::os::unix::net::UnixStream {
    fn set_read_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        Self::set_read_timeout(self, timeout)
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        Self::set_write_timeout(self, timeout)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl<S: TimedStream + ?Sized> TimedStream for Box<S> {
    fn set_read_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        (**self).set_read_timeout(timeout)
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        (**self).set_write_timeout(timeout)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        (**self).shutdown_write()
    }
}

/// The stream under a socket that [`connect`](super::connect) made: TCP, or TLS over it.
#[derive(Debug)]
pub struct Stream(Kind);

#[derive(Debug)]
enum Kind {
    Plain(TcpStream),
    #[cfg(feature = "rustls")]
    Tls(Box<TlsStream>),
}

impl Stream {
    /// The TCP connection, to ask for addresses or to set its options. Reading from it, writing
    /// to it or changing its timeouts breaks the socket.
    pub fn tcp(&self) -> &TcpStream {
        match &self.0 {
            Kind::Plain(tcp) => tcp,
            #[cfg(feature = "rustls")]
            Kind::Tls(tls) => tls.tcp(),
        }
    }

    /// The TLS session; `None` for a socket in the clear.
    #[cfg(feature = "rustls")]
    pub fn tls(&self) -> Option<&rustls::Connection> {
        match &self.0 {
            Kind::Plain(_) => None,
            Kind::Tls(tls) => Some(tls.session()),
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(tcp: TcpStream) -> Self {
        Self(Kind::Plain(tcp))
    }
}

#[cfg(feature = "rustls")]
impl From<TlsStream> for Stream {
    fn from(tls: TlsStream) -> Self {
        Self(Kind::Tls(Box::new(tls)))
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::Plain(tcp) => tcp.read(buffer),
            #[cfg(feature = "rustls")]
            Kind::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::Plain(tcp) => tcp.write(bytes),
            #[cfg(feature = "rustls")]
            Kind::Tls(tls) => tls.write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::Plain(tcp) => tcp.write_vectored(slices),
            #[cfg(feature = "rustls")]
            Kind::Tls(tls) => tls.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Kind::Plain(tcp) => tcp.flush(),
            #[cfg(feature = "rustls")]
            Kind::Tls(tls) => tls.flush(),
        }
    }
}

impl TimedStream for Stream {
    fn set_read_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match &mut self.0 {
            Kind::Plain(tcp) => TcpStream::set_read_timeout(tcp, timeout),
            #[cfg(feature = "rustls")]
            Kind::Tls(tls) => tls.set_read_timeout(timeout),
        }
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match &mut self.0 {
            Kind::Plain(tcp) => TcpStream::set_write_timeout(tcp, timeout),
            #[cfg(feature = "rustls")]
            Kind::Tls(tls) => tls.set_write_timeout(timeout),
        }
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Kind::Plain(tcp) => tcp.shutdown_write(),
            #[cfg(feature = "rustls")]
            Kind::Tls(tls) => tls.shutdown_write(),
        }
    }
}

/// Reads once, behind what is in the buffer.
pub(super) fn append(
    stream: &mut impl Read,
    buffer: &mut Vec<u8>,
    room: usize,
) -> io::Result<usize> {
    let len = buffer.len();
    buffer.resize(len + room, 0);
    let result = stream.read(buffer.get_mut(len..).unwrap_or_default());
    buffer.truncate(len + result.as_ref().map_or(0, |count| *count));
    result
}
