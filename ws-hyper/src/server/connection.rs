//! One connection: TLS, then HTTP/1 until it ends, is a WebSocket, or turns out to be HTTP/2.

use std::{error::Error, pin::Pin, sync::Arc};

use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};
use tower::Service;
use ws_tower::BoxError;

#[cfg(feature = "rustls")]
use super::{PeerCertificates, Tls, tls::OnFlush};
use super::{
    phase::{self, Phase},
    service::ConnectionService,
    transport::{Counted, Watched},
};

/// What all connections of a server have in common.
pub(super) struct Protocols {
    pub(super) http1: http1::Builder,
    pub(super) speaks_http2: bool,
    #[cfg(feature = "http2")]
    pub(super) http2: Option<super::Http2>,
    /// How long a connection may have nothing to do.
    #[cfg(feature = "http2")]
    pub(super) idle_timeout: std::time::Duration,
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
    pub(super) service: ConnectionService<S>,
    pub(super) phase: watch::Receiver<Phase>,
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
    pub(super) fn serve<Io>(self, io: Counted<Io>) -> impl Future<Output = ()> + Send
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.serve_http1(io, Settled::Nothing)
    }

    /// The same, over TLS.
    #[cfg(feature = "rustls")]
    pub(super) fn serve_tls<Io>(
        mut self,
        io: Counted<Io>,
        tls: Tls,
    ) -> impl Future<Output = ()> + Send
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        // In a box, for it is gone when the connection begins. All that follows is as well: a task
        // is moved several times before it runs.
        let handshake = Box::pin(tls.handshake(io, self.protocols.speaks_http2));
        async move {
            let handshake = tokio::select! {
                handshake = handshake => handshake,
                // The server is going: what is not a connection yet never will be.
                _ = phase::next(&mut self.phase) => return,
            };
            let io = match handshake {
                Ok(io) => io,
                Err(error) => {
                    // The client's doing, or its certificate's.
                    let peer = self.service.peer.map(tracing::field::display);
                    tracing::debug!(%error, peer, "tls handshake failed");
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
            self.service.certificates = session.peer_certificates().map(PeerCertificates::new);
            let io = OnFlush::new(io);
            #[cfg(feature = "http2")]
            if settled == Settled::Http2 {
                let Self {
                    protocols,
                    service,
                    phase,
                } = self;
                let ahead = bytes::Bytes::new();
                return Box::pin(serve_http2(io, ahead, service, &protocols, phase)).await;
            }
            Box::pin(self.serve_http1(io, settled)).await;
        }
    }

    // No `async fn`: that would keep its arguments beside what is made of them, in every task.
    fn serve_http1<Io>(self, io: Io, settled: Settled) -> impl Future<Output = ()> + Send
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Self {
            protocols,
            service,
            mut phase,
        } = self;
        let expects_preface = protocols.speaks_http2 && settled == Settled::Nothing;
        let io = TokioIo::new(Watched::new(io, expects_preface));
        let connection = protocols.http1.serve_connection(io, service);
        let mut connection = connection.with_upgrades();
        async move {
            let result = loop {
                let next = tokio::select! {
                    result = &mut connection => break result,
                    next = phase::next(&mut phase) => next,
                };
                if next == Phase::Cut {
                    return;
                }
                Pin::new(&mut connection).graceful_shutdown();
            };
            match result {
                Ok(()) => {}
                #[cfg(feature = "http2")]
                Err(error) if error.is_parse_version_h2() => {
                    if let Some(parts) = connection.into_parts()
                        && let Some(io) = parts.io.into_inner().into_http2()
                    {
                        if *phase.borrow() != Phase::Serving {
                            // HTTP/2 is to be told as well.
                            phase.mark_changed();
                        }
                        // In a box: the task of an HTTP/1 connection is no larger for it.
                        let (ahead, service) = (parts.read_buf, parts.service);
                        Box::pin(serve_http2(io, ahead, service, &protocols, phase)).await;
                    }
                }
                Err(error) => report(&error),
            }
        }
    }
}

#[cfg(feature = "http2")]
async fn serve_http2<Io, S, B>(
    io: Io,
    read_ahead: bytes::Bytes,
    service: ConnectionService<S>,
    protocols: &Protocols,
    phase: watch::Receiver<Phase>,
) where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    if let Some(http2) = &protocols.http2
        && let Err(error) = http2
            .serve(io, read_ahead, service, protocols.idle_timeout, phase)
            .await
    {
        report(&error);
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
