//! The service of one connection: inside the gate, with what is known of the peer.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response, Version};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tower::{Service, ServiceExt, util::Oneshot};
use ws_tower::{BoxError, PeerAddr, gate::Gate};

#[cfg(feature = "rustls")]
use crate::server::PeerCertificates;

/// The service of one connection.
#[derive(Clone)]
pub(super) struct ConnectionService<S> {
    pub(super) service: S,
    pub(super) gate: Gate,
    pub(super) peer: Option<SocketAddr>,
    #[cfg(feature = "rustls")]
    pub(super) certificates: Option<PeerCertificates>,
}

impl<S, B> hyper::service::Service<Request<Incoming>> for ConnectionService<S>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = ConnectionFuture<S>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(PeerAddr(peer));
        }
        #[cfg(feature = "rustls")]
        if let Some(certificates) = &self.certificates {
            request.extensions_mut().insert(certificates.clone());
        }
        let is_outermost = self.gate.admit(&mut request);
        ConnectionFuture {
            is_stream: request.version() == Version::HTTP_2,
            // A clone is not known to be ready: this waits until it is, and calls that very one.
            response: self.service.clone().oneshot(request),
            gate: is_outermost.then(|| self.gate.clone()),
        }
    }
}

pin_project! {
    /// The response of a service, on its way out through the gate.
    pub(super) struct ConnectionFuture<S: Service<Request<Incoming>>> {
        #[pin]
        response: Oneshot<S, Request<Incoming>>,
        // For a request that asks for a WebSocket.
        gate: Option<Gate>,
        // One of several on its connection.
        is_stream: bool,
    }
}

impl<S, B> Future for ConnectionFuture<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<BoxError>,
{
    type Output = Result<Response<B>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = match ready!(this.response.poll(cx)) {
            Ok(response) => response,
            Err(error) => {
                let error = error.into();
                if *this.is_stream {
                    // Over HTTP/1 it ends the connection, which tells.
                    tracing::error!(%error, "a service failed, its stream is reset");
                }
                return Poll::Ready(Err(error));
            }
        };
        if let Some(gate) = this.gate {
            gate.release(&mut response);
        }
        Poll::Ready(Ok(response))
    }
}
