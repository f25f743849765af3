//! The stream underneath a client's socket, and how it is made.

use std::{
    any::Any,
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::Uri;
use hyper::rt::{Read, Write};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tower::{Service, ServiceExt};
use ws_tower::BoxError;

/// Any stream of bytes.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<Io: AsyncRead + AsyncWrite + Send + Unpin> Stream for Io {}

/// The stream of a client's connection. The common ones cost no virtual call.
pub(super) enum Transport {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(tokio::net::UnixStream),
    /// TLS over any of these, a TLS connection to a proxy among them.
    #[cfg(feature = "rustls")]
    Tls(Box<tokio_rustls::client::TlsStream<Transport>>),
    /// What a connector of the caller's made.
    Other(Box<dyn Stream>),
}

impl Transport {
    /// The address of the other end, which may be a proxy's.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok(),
            #[cfg(feature = "rustls")]
            Self::Tls(stream) => stream.get_ref().0.peer(),
            _ => None,
        }
    }

    /// Whether TLS has agreed on HTTP/2.
    #[cfg(feature = "http2")]
    pub(super) fn is_http2(&self) -> bool {
        match self {
            #[cfg(feature = "rustls")]
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
            _ => false,
        }
    }

    fn stream(self: Pin<&mut Self>) -> Pin<&mut dyn Stream> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream),
            #[cfg(feature = "rustls")]
            Self::Tls(stream) => Pin::new(stream),
            Self::Other(stream) => Pin::new(stream),
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            other => Pin::new(other).stream().poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            other => Pin::new(other).stream().poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            #[cfg(unix)]
            Self::Unix(stream) => stream.is_write_vectored(),
            #[cfg(feature = "rustls")]
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Other(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}

/// Makes streams to a host and port.
#[derive(Clone)]
pub(super) struct Dialer(Arc<Dial>);

type Dial = dyn Fn(Uri) -> Dialing + Send + Sync;
type Dialing = Pin<Box<dyn Future<Output = Result<Transport, BoxError>> + Send>>;

impl Dialer {
    pub(super) fn new<S>(service: S) -> Self
    where
        S: Service<Uri> + Clone + Send + Sync + 'static,
        S::Response: Read + Write + Unpin + Send + 'static,
        S::Error: Into<BoxError> + Send,
        S::Future: Send,
    {
        Self(Arc::new(move |uri| {
            let connecting = service.clone().oneshot(uri);
            Box::pin(async move { Ok(transport(connecting.await.map_err(Into::into)?)) })
        }))
    }

    /// Connects to a host, an IPv6 address without brackets, and a port.
    pub(super) async fn dial(&self, host: &str, port: u16) -> Result<Transport, BoxError> {
        let uri = format!("http://{}/", authority(host, port));
        (self.0)(uri.parse()?).await
    }
}

/// A host, an IPv6 address without brackets, and a port, as a URI has them.
pub(super) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Both address families, raced; no Nagle.
impl Default for Dialer {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        // RFC 8305 §5 recommends 250 ms before the other family is tried; hyper-util has 300.
        Self::new(connector)
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialer")
    }
}

/// Finds the TCP stream in what hyper-util's own connector makes, whatever its resolver is.
fn transport<Io: Read + Write + Unpin + Send + 'static>(io: Io) -> Transport {
    let mut io = Some(io);
    let any: &mut dyn Any = &mut io;
    let tcp = any.downcast_mut::<Option<TokioIo<TcpStream>>>();
    if let Some(tcp) = tcp.and_then(Option::take) {
        let tcp = tcp.into_inner();
        // Small frames must not wait for the answer to those before. It fails on a connection that
        // is gone, as its first read will tell.
        let _ = tcp.set_nodelay(true);
        return Transport::Tcp(tcp);
    }
    match io {
        Some(io) => Transport::Other(Box::new(TokioIo::new(io))),
        // It was taken out only above.
        None => Transport::Other(Box::new(tokio::io::empty())),
    }
}
