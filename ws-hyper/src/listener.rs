//! Where connections come from.

use std::{future::Future, io, net::SocketAddr};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};

/// A source of connections: TCP, a Unix socket, or one of your own.
///
/// A listener that is bound already, by systemd or by the process before, becomes one with
/// [`TcpListener::from_std`], once it is set to be non-blocking.
///
/// ```
/// use std::{io, net::SocketAddr};
/// use tokio::{io::DuplexStream, sync::mpsc};
///
/// /// Connections made in memory.
/// struct Memory(mpsc::Receiver<DuplexStream>);
///
/// impl ws_hyper::Listener for Memory {
///     type Io = DuplexStream;
///
///     async fn accept(&mut self) -> io::Result<(DuplexStream, Option<SocketAddr>)> {
///         match self.0.recv().await {
///             Some(io) => Ok((io, None)),
///             None => std::future::pending().await,
///         }
///     }
/// }
/// ```
pub trait Listener: Send + 'static {
    /// A connection's stream.
    type Io: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Waits for the next connection, and tells its peer's address, if it has one.
    ///
    /// # Errors
    ///
    /// An error does not end the server: it is logged, and the server tries again, after a pause
    /// if it is not the connection's own fault (such as too many open files).
    ///
    /// # Cancel safety
    ///
    /// The server drops the future only when it stops accepting, so it need not be cancel safe.
    /// It may do more than one thing in turn, such as accept and read a header of a proxy; but
    /// no other connection is accepted meanwhile, so nothing that a peer can hold up.
    fn accept(&mut self)
    -> impl Future<Output = io::Result<(Self::Io, Option<SocketAddr>)>> + Send;
}

/// Connections get `TCP_NODELAY`: a small frame is not held back until the one before it has been
/// acknowledged.
impl Listener for TcpListener {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, Option<SocketAddr>)> {
        let (io, peer) = TcpListener::accept(self).await?;
        if let Err(error) = io.set_nodelay(true) {
            tracing::debug!(%error, %peer, "TCP_NODELAY could not be set");
        }
        Ok((io, Some(peer)))
    }
}

#[cfg(unix)]
impl Listener for tokio::net::UnixListener {
    type Io = tokio::net::UnixStream;

    async fn accept(&mut self) -> io::Result<(Self::Io, Option<SocketAddr>)> {
        let (io, _) = tokio::net::UnixListener::accept(self).await?;
        Ok((io, None))
    }
}
