//! One connection: TLS, then HTTP/1 until it ends, is a WebSocket, or turns out to be HTTP/2.

use std::{error::Error, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};
use tower::Service;
use ws_tower::{BoxError, gate::Gate};

#[cfg(feature = "rustls")]
use super::{PeerCertificates, Tls};
use super::{
    service::ConnectionService,
    transport::{Counted, Watched},
};

/// What all connections of a server have in common.
pub(super) struct Protocols {
    pub(super) http1: http1::Builder,
    pub(super) speaks_http2: bool,
    #[cfg(feature = "http2")]
    pub(super) http2: Option<super::Http2>,
    #[cfg(feature = "rustls")]
    pub(super) tls: Option<Tls>,
    /// How long a connection may have nothing to do.
    #[cfg_attr(not(feature = "http2"), expect(dead_code, reason = "http1 knows it"))]
    pub(super) idle_timeout: Duration,
}

/// The protocols that a connection may speak, by what TLS has settled (RFC 7301).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Settled {
    Nothing,
    #[cfg(feature = "rustls")]
    Http1,
    #[cfg(all(feature = "http2", feature = "rustls"))]
    Http2,
}

/// A connection that has been accepted.
pub(super) struct Connection<S> {
    pub(super) protocols: Arc<Protocols>,
    pub(super) service: S,
    pub(super) gate: Gate,
    pub(super) peer: Option<SocketAddr>,
    pub(super) stopping: watch::Receiver<()>,
}

impl<S, B> Connection<S>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// Runs it until its end, or until it is a WebSocket.
    pub(super) async fn serve<Io>(self, io: Counted<Io>)
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        #[cfg(feature = "rustls")]
        if self.protocols.tls.is_some() {
            // In a box: the task of a connection without TLS is no larger for it.
            return Box::pin(self.serve_tls(io)).await;
        }
        let service = self.service();
        self.serve_http(io, service, Settled::Nothing).await;
    }

    #[cfg(feature = "rustls")]
    async fn serve_tls<Io>(mut self, io: Counted<Io>)
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Some(tls) = &self.protocols.tls else {
            return;
        };
        let handshake = tokio::select! {
            handshake = tls.handshake(io, self.protocols.speaks_http2) => handshake,
            // The server is going: what is not a connection yet never will be.
            _ = self.stopping.changed() => return,
        };
        let io = match handshake {
            Ok(io) => io,
            Err(error) => {
                // The client's doing, or its certificate's.
                tracing::debug!(%error, peer = self.peer.map(tracing::field::display), "tls handshake failed");
                return;
            }
        };
        let (_, session) = io.get_ref();
        let settled = match session.alpn_protocol() {
            #[cfg(feature = "http2")]
            Some(b"h2") => Settled::Http2,
            Some(b"http/1.1") => Settled::Http1,
            _ => Settled::Nothing,
        };
        let mut service = self.service();
        service.certificates = session.peer_certificates().map(PeerCertificates::new);
        self.serve_http(io, service, settled).await;
    }

    async fn serve_http<Io>(mut self, io: Io, service: ConnectionService<S>, settled: Settled)
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let protocols = Arc::clone(&self.protocols);
        let expects_preface = protocols.speaks_http2 && settled == Settled::Nothing;
        #[cfg(all(feature = "http2", feature = "rustls"))]
        if settled == Settled::Http2 {
            let io = (io, bytes::Bytes::new());
            return self.serve_http2(io, service).await;
        }
        let io = TokioIo::new(Watched::new(io, expects_preface));
        let connection = protocols.http1.serve_connection(io, service);
        let mut connection = connection.with_upgrades();
        let result = tokio::select! {
            result = &mut connection => Some(result),
            // An error says that the server is gone: the same.
            _ = self.stopping.changed() => None,
        };
        let result = if let Some(result) = result {
            result
        } else {
            // For HTTP/2, should it come to that.
            self.stopping.mark_changed();
            Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        };
        match result {
            Ok(()) => {}
            #[cfg(feature = "http2")]
            Err(error) if error.is_parse_version_h2() => {
                if let Some(parts) = connection.into_parts()
                    && let Some(io) = parts.io.into_inner().into_http2()
                {
                    let io = (io, parts.read_buf);
                    self.serve_http2(io, parts.service).await;
                }
            }
            Err(error) => report(&error),
        }
    }

    #[cfg(feature = "http2")]
    async fn serve_http2<Io>(
        self,
        (io, read_ahead): (Io, bytes::Bytes),
        service: ConnectionService<S>,
    ) where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        if let Some(http2) = &self.protocols.http2 {
            let idle_timeout = self.protocols.idle_timeout;
            // In a box: the task of an HTTP/1 connection is no larger for it.
            let served =
                Box::pin(http2.serve(io, read_ahead, service, idle_timeout, self.stopping.clone()));
            if let Err(error) = served.await {
                report(&error);
            }
        }
    }

    fn service(&self) -> ConnectionService<S> {
        ConnectionService {
            service: self.service.clone(),
            gate: self.gate.clone(),
            peer: self.peer,
            #[cfg(feature = "http2")]
            inlets: None,
            #[cfg(feature = "rustls")]
            certificates: None,
        }
    }
}

/// Says why a connection has ended.
fn report(error: &hyper::Error) {
    if error.is_user() {
        let cause = error.source().map(ToString::to_string);
        tracing::error!(%error, cause, "a service failed, its connection is closed");
    } else {
        // The client's doing: a reset, a timeout, a request that is none.
        tracing::debug!(%error, "http connection ended");
    }
}
