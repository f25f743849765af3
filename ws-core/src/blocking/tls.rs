//! TLS over TCP whose waits have an end (feature `rustls`).
//!
//! rustls's own `StreamOwned` mixes the two waits: a write that has to wait goes on to read, and a
//! read first writes. So sending could hang for as long as receiving may wait. And its reads begin
//! the wait anew with each piece of a record. Here a read only reads, a write only writes, and each
//! is over when its time is.

use std::{
    io::{self, ErrorKind, IoSlice, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::stream::TimedStream;

/// What waits to be written at most, in bytes: one record of TLS. While it waits, nobody can tell
/// that some of it has been taken.
const BUFFER: usize = 16 << 10;

/// TLS over TCP, either end of it.
///
/// [`connect`](super::connect) makes one for `wss`. A server makes its own:
///
/// ```no_run
/// use std::{net::TcpListener, sync::Arc};
/// use rustls::{ServerConfig, ServerConnection};
/// use ws_core::{Config, blocking::{Incoming, TlsStream}};
///
/// # fn settings() -> Arc<ServerConfig> { unimplemented!() }
/// let settings: Arc<ServerConfig> = settings();
/// let (tcp, _) = TcpListener::bind("127.0.0.1:9443")?.accept()?;
/// let stream = TlsStream::new(ServerConnection::new(settings)?, tcp);
/// let mut socket = Incoming::read(stream, Config::new())?.accept()?;
/// socket.send("welcome")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The handshake of TLS takes place with the first read or write. A stream that ends without
/// `close_notify` gives [`UnexpectedEof`](ErrorKind::UnexpectedEof), never an end: somebody may have
/// cut it (RFC 8446 §6.1).
#[derive(Debug)]
pub struct TlsStream {
    session: rustls::Connection,
    tcp: TcpStream,
    read_timeout: Option<Duration>,
    /// What is set on the TCP connection, when it is not `read_timeout`.
    shortened: bool,
}

impl TlsStream {
    /// Puts a session of rustls on top of a TCP connection.
    pub fn new(session: impl Into<rustls::Connection>, tcp: TcpStream) -> Self {
        let mut session = session.into();
        session.set_buffer_limit(Some(BUFFER));
        Self {
            session,
            tcp,
            read_timeout: None,
            shortened: true,
        }
    }

    /// The TCP connection, to ask for addresses or to set its options.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// The session: the peer's certificates, the version, the protocol agreed on by ALPN.
    pub fn session(&self) -> &rustls::Connection {
        &self.session
    }

    /// Runs the handshake of TLS until a point in time.
    pub(super) fn handshake(&mut self, deadline: Instant) -> io::Result<()> {
        while self.session.is_handshaking() {
            self.tcp.set_write_timeout(Some(remaining(deadline)?))?;
            self.write_out()?;
            if self.session.is_handshaking() {
                self.read_records(Some(deadline))?;
            }
        }
        // The last word of the handshake may be ours.
        self.tcp.set_write_timeout(Some(remaining(deadline)?))?;
        self.write_out()
    }

    /// Reads once, and has the session look at it.
    fn read_records(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        if let Some(deadline) = deadline {
            self.tcp.set_read_timeout(Some(remaining(deadline)?))?;
            self.shortened = true;
        }
        if self.session.read_tls(&mut self.tcp)? == 0 && self.session.is_handshaking() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.session.process_new_packets().map_err(|error| {
            // The alert that tells the peer why.
            let _ = self.session.write_tls(&mut self.tcp);
            io::Error::new(ErrorKind::InvalidData, error)
        })?;
        Ok(())
    }

    /// Writes what the session has ready.
    fn write_out(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.tcp) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Hands bytes to the session, and writes what can be written now.
    fn write_through(
        &mut self,
        write: impl FnOnce(&mut rustls::Writer<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if self.session.is_handshaking() {
            self.finish_handshake(self.deadline())?;
        }
        self.write_out()?;
        let count = write(&mut self.session.writer())?;
        // The bytes are taken. What does not leave now is for the next write or the flush.
        let _ = self.write_out();
        Ok(count)
    }

    /// Runs what is left of the handshake. The time is for all of it: a peer that sends a byte now
    /// and then does not get it anew with each.
    fn finish_handshake(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        while self.session.is_handshaking() {
            self.write_out()?;
            if self.session.is_handshaking() {
                self.read_records(deadline)?;
            }
        }
        Ok(())
    }

    /// When a read that begins now is given up.
    fn deadline(&self) -> Option<Instant> {
        Instant::now().checked_add(self.read_timeout?)
    }
}

impl Read for TlsStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.shortened {
            self.tcp.set_read_timeout(self.read_timeout)?;
            self.shortened = false;
        }
        // A record may come in many pieces; the time is for all of them.
        let mut deadline = None;
        if self.session.is_handshaking() {
            deadline = self.deadline();
            self.finish_handshake(deadline)?;
        }
        loop {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return result,
            }
            match (self.read_timeout, deadline) {
                (Some(timeout), None) => {
                    // The first piece has the whole time, which is set already.
                    let start = Instant::now();
                    self.read_records(None)?;
                    deadline = start.checked_add(timeout);
                }
                (_, deadline) => self.read_records(deadline)?,
            }
        }
    }
}

impl Write for TlsStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_through(|writer| writer.write(bytes))
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write_through(|writer| writer.write_vectored(slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_out()
    }
}

impl TimedStream for TlsStream {
    fn set_read_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.read_timeout = timeout;
        self.shortened = false;
        self.tcp.set_read_timeout(timeout)
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.tcp.set_write_timeout(timeout)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        // RFC 8446 §6.1: "Each party MUST send a "close_notify" alert before closing its write
        // side of the connection".
        self.session.send_close_notify();
        self.write_out()?;
        self.tcp.shutdown(Shutdown::Write)
    }
}

/// TLS 1.2 and 1.3 by *ring*, with the roots that Mozilla trusts, made once.
pub(super) fn default_config() -> Result<Arc<ClientConfig>, rustls::Error> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(Arc::clone(config));
    }
    let roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    // Not the process's default provider: nobody may have chosen one.
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::clone(CONFIG.get_or_init(|| Arc::new(config))))
}

/// The time that is left, which is never zero.
fn remaining(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    // The clocks of some systems round what is shorter down to nothing.
    Ok(left.max(Duration::from_millis(1)))
}
