//! A connection to a server, plain or over TLS, and where to make one.

use std::{
    hint,
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    sync::Arc,
    time::Instant,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    client::Resumption,
    crypto::ring,
    pki_types::{CertificateDer, ServerName},
};

use crate::{Result, wire::PATIENCE};

/// The name in the certificates.
pub const HOST: &str = "localhost";

/// Where a server is, and whom it says to be.
pub struct Endpoint {
    pub address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
}

/// A connection. It waits for the peer by looking again and again, until it is told
/// [not to](Stream::never_wait).
pub enum Stream {
    Plain(Impatient),
    Tls(Box<StreamOwned<ClientConnection, Impatient>>),
}

/// Bytes of a socket, without sleeping: to wake a sleeping core is at the cost of the one that
/// does it.
pub struct Impatient {
    stream: TcpStream,
    waits: bool,
}

impl Endpoint {
    /// Reads the line that a server prints: its address, and with TLS its certificate.
    pub fn parse(line: &str) -> Result<Self> {
        let (address, tls) = match line.trim().split_once(' ') {
            None => (line.trim(), None),
            Some((address, certificate)) => (address, Some(trusting(unhex(certificate)?)?)),
        };
        let address = address.parse().map_err(|_| "the server did not start")?;
        Ok(Self { address, tls })
    }

    pub fn connect(&self) -> Result<Stream> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = Impatient {
            stream,
            waits: true,
        };
        let Some(config) = &self.tls else {
            return Ok(Stream::Plain(stream));
        };
        let name = ServerName::try_from(HOST)?;
        let mut connection = ClientConnection::new(Arc::clone(config), name)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        let stream = StreamOwned::new(connection, stream);
        Ok(Stream::Tls(Box::new(stream)))
    }
}

/// What a server prints for [`Endpoint::parse`], behind its address.
pub fn hex(certificate: &[u8]) -> String {
    certificate
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    (0..text.len())
        .step_by(2)
        .map(|at| {
            let digits = text.get(at..at + 2).ok_or("half a byte")?;
            Ok(u8::from_str_radix(digits, 16)?)
        })
        .collect()
}

/// Every handshake is a full one.
fn trusting(certificate: Vec<u8>) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(certificate))?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

impl Stream {
    /// From now on [`ErrorKind::WouldBlock`] says that there is nothing.
    pub fn never_wait(&mut self) {
        self.socket_mut().waits = false;
    }

    /// Whether a read that leaves room in the buffer has emptied the socket.
    pub fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    fn socket_mut(&mut self) -> &mut Impatient {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &mut stream.sock,
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(stream) => stream.stream.as_fd(),
            Self::Tls(stream) => stream.sock.stream.as_fd(),
        }
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

impl Impatient {
    fn retry(
        &mut self,
        mut step: impl FnMut(&mut TcpStream) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut since = None;
        loop {
            match step(&mut self.stream) {
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.waits => {
                    if since.get_or_insert_with(Instant::now).elapsed() >= PATIENCE {
                        return Err(ErrorKind::TimedOut.into());
                    }
                    hint::spin_loop();
                }
                outcome => return outcome,
            }
        }
    }
}

impl Read for Impatient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.retry(|stream| stream.read(buffer))
    }
}

impl Write for Impatient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.retry(|stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
