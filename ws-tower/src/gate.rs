//! The gate: the outermost of our parts, which sees the response that leaves.
//!
//! hyper hands over an HTTP/1 connection whatever the final status is: were a session to begin
//! where its request is accepted, a middleware further out that turns the 101 into a 403 would
//! leave a live WebSocket behind. So an acceptance travels in the response's extensions, and a
//! session begins only when the response that leaves the gate is still that acceptance: 101, or
//! 2xx over HTTP/2. In every other case the acceptance is dropped, and whoever holds a handle
//! already learns [`Error::NotUpgraded`](crate::Error::NotUpgraded).
//!
//! | stack | its gate |
//! |---|---|
//! | one or more [`WebSocketLayer`](crate::WebSocketLayer)s | the outermost of them |
//! | only the extractor | a [`GateLayer`], added last |
//! | `ws_hyper::serve` | the server itself |
//!
//! What lies outside the gate is not covered, so make it the outermost layer. A middleware inside
//! must keep the extensions of requests and responses: one that loses them loses the WebSocket.

mod acceptance;

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Extensions, Request, Response};
use hyper::upgrade::Upgraded;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};
use tower_layer::Layer;
use tower_service::Service;

pub(crate) use self::acceptance::{Acceptance, Pending};
use crate::{
    Tracker,
    opening::opening_of,
    provided::{Io, Through},
};

/// A gate, for servers and middleware: marks the requests that come in, and starts the sessions
/// of the acceptances that leave.
///
/// Clones are one gate. In a stack of layers, [`GateLayer`] does this.
///
/// ```
/// use http::{Request, Response};
/// use ws_tower::{Tracker, gate::Gate};
///
/// let gate = Gate::new(Tracker::new());
/// let mut request = Request::new(());
/// let is_outermost = gate.admit(&mut request);
/// let mut response = Response::new(()); // … that the application gives
/// if is_outermost {
///     gate.release(&mut response);
/// }
/// ```
#[derive(Clone, Default)]
pub struct Gate {
    tracker: Tracker,
    through: Option<Through>,
}

impl Gate {
    /// A gate whose sessions are the tracker's.
    pub fn new(tracker: Tracker) -> Self {
        Self {
            tracker,
            through: None,
        }
    }

    /// Puts a stream of the server's between hyper's and each session that begins here. It is made
    /// when hyper hands over the bytes; an error means that there will be no session. Whoever takes
    /// hyper's upgrade out of a request gets it as it is. Default: none.
    ///
    /// ```
    /// use hyper_util::rt::TokioIo;
    /// use ws_tower::{Tracker, gate::Gate};
    ///
    /// // … that counts, limits or buffers.
    /// let gate = Gate::new(Tracker::new()).with_io(|upgraded| Ok(TokioIo::new(upgraded)));
    /// ```
    #[must_use]
    pub fn with_io<T>(
        mut self,
        io: impl Fn(Upgraded) -> io::Result<T> + Send + Sync + 'static,
    ) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        self.through = Some(Arc::new(move |upgraded| {
            Ok(Io::Provided(Box::pin(io(upgraded)?)))
        }));
        self
    }

    /// The tracker of the sessions that begin here.
    pub fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    pub(crate) fn through(&self) -> Option<&Through> {
        self.through.as_ref()
    }

    /// Marks a request that asks for a WebSocket, unless a gate further out has done so. Returns
    /// whether the response to this request has to be [released](Self::release) here.
    pub fn admit<B>(&self, request: &mut Request<B>) -> bool {
        let opening = opening_of(
            request.method(),
            request.version(),
            request.headers(),
            request.extensions(),
        );
        opening.is_some() && self.mark(request.extensions_mut())
    }

    /// Marks a request that is known to ask for a WebSocket.
    pub(crate) fn mark(&self, extensions: &mut Extensions) -> bool {
        let is_outermost = extensions.get::<Self>().is_none();
        if is_outermost {
            extensions.insert(self.clone());
        }
        is_outermost
    }

    /// Starts the session whose acceptance this response is. Call it last: nothing may change
    /// the response's status behind it.
    ///
    /// The session runs in a task of its own, on the current tokio runtime; without one there is
    /// an error in the log and no session.
    pub fn release<B>(&self, response: &mut Response<B>) {
        let acceptance = response.extensions_mut().remove::<Acceptance>();
        if let Some(pending) = acceptance.and_then(|acceptance| acceptance.take())
            && pending.is_opened_by(response.status())
        {
            pending.launch(&self.tracker);
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("tracker", &self.tracker)
            .finish_non_exhaustive()
    }
}

/// A gate as a layer, for a stack that uses the extractor and no
/// [`WebSocketLayer`](crate::WebSocketLayer). Add it last, so that it is the outermost.
///
/// ```
/// use http::{Request, Response};
/// use tower_layer::Layer;
/// use ws_tower::gate::GateLayer;
///
/// # struct Application;
/// let gate = GateLayer::new();
/// let tracker = gate.tracker(); // for the shutdown
/// let service = gate.layer(Application);
/// ```
#[derive(Clone, Debug, Default)]
pub struct GateLayer {
    gate: Gate,
}

impl GateLayer {
    /// A gate with a tracker of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// A gate whose sessions are the tracker's.
    pub fn with_tracker(tracker: Tracker) -> Self {
        Self {
            gate: Gate::new(tracker),
        }
    }

    /// The tracker of the sessions that begin here.
    pub fn tracker(&self) -> Tracker {
        self.gate.tracker.clone()
    }
}

impl<S> Layer<S> for GateLayer {
    type Service = GateService<S>;

    fn layer(&self, inner: S) -> GateService<S> {
        GateService {
            inner,
            gate: self.gate.clone(),
        }
    }
}

/// A service behind a gate: see [`GateLayer`].
#[derive(Clone, Debug)]
pub struct GateService<S> {
    inner: S,
    gate: Gate,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for GateService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = GateFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let is_outermost = self.gate.admit(&mut request);
        GateFuture {
            future: self.inner.call(request),
            gate: is_outermost.then(|| self.gate.clone()),
        }
    }
}

pin_project! {
    /// The response of a [`GateService`].
    #[derive(Debug)]
    pub struct GateFuture<F> {
        #[pin]
        future: F,
        gate: Option<Gate>,
    }
}

impl<F, B, E> Future for GateFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut result = ready!(this.future.poll(cx));
        if let (Ok(response), Some(gate)) = (&mut result, this.gate.take()) {
            gate.release(response);
        }
        Poll::Ready(result)
    }
}

#[cfg(test)]
mod tests;
