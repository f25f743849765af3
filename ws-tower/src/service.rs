//! The service that the layer makes.

use std::{
    convert::Infallible,
    fmt,
    future::{Future, Ready, ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response, StatusCode, request::Parts};
use tower_service::Service;
use ws_core::handshake::{
    Opening,
    server::{Offer, Rejection},
};

use crate::{
    body::{DefaultBody, MakeBody},
    future::ResponseFuture,
    gate::Gate,
    guard::{Guard, text_response},
    handler::Start,
    layer::Settings,
    opening::opening_of,
    options::Options,
    provided::Promise,
    router::{Found, Route},
    session::state::About,
    upgrade::WebSocketUpgrade,
};

/// A service with WebSockets on some of its paths: see [`WebSocketLayer`](crate::WebSocketLayer).
#[derive(Clone)]
pub struct WebSocketService<S, M = DefaultBody> {
    inner: S,
    settings: Arc<Settings>,
    gate: Gate,
    make_body: M,
}

impl<S, M> WebSocketService<S, M> {
    pub(crate) fn new(inner: S, settings: Arc<Settings>, gate: Gate, make_body: M) -> Self {
        Self {
            inner,
            settings,
            gate,
            make_body,
        }
    }

    /// The WebSocket that a request asks for. Takes the bytes from it if nobody else shall.
    fn upgrade(
        &self,
        parts: &mut Parts,
        opening: Opening,
        found: Option<&Found<'_>>,
    ) -> WebSocketUpgrade {
        let gate = parts.extensions.get::<Gate>().unwrap_or(&self.gate).clone();
        let about = About {
            path: parts.uri.path().into(),
            params: found.map(Found::params).unwrap_or_default(),
            subprotocol: None,
            peer: (self.settings.peer)(&parts.extensions),
        };
        let layer = &self.settings.options;
        let (promise, options) = match found {
            Some(found) => (
                Promise::take(&mut parts.extensions),
                found.route.options.over(layer),
            ),
            None => (Promise::of(&parts.extensions), Options::clone(layer)),
        };
        let tracker = self.gate.tracker().clone();
        WebSocketUpgrade::new(parts, opening, promise, about, tracker, gate, options)
    }
}

impl<S, M, ReqBody, ResBody> Service<Request<ReqBody>> for WebSocketService<S, M>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    M: MakeBody<ResBody> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, M>;

    // The layer's own answers need no readiness, but which request comes next is not known.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    // The inner service is called here or not at all, so the one that was ready is the one that
    // is called, and no clone of it is needed.
    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let Some(opening) = opening_of(
            request.method(),
            request.version(),
            request.headers(),
            request.extensions(),
        ) else {
            return ResponseFuture::inner(self.inner.call(request), self.make_body.clone(), None);
        };
        let is_outermost = self.gate.mark(request.extensions_mut());
        let gate = is_outermost.then(|| self.gate.clone());
        let (mut parts, body) = request.into_parts();
        let settings = Arc::clone(&self.settings);
        let path = parts.uri.clone();
        let Some(found) = settings.router.find(path.path()) else {
            let upgrade = self.upgrade(&mut parts, opening, None);
            parts.extensions.insert(upgrade);
            let future = self.inner.call(Request::from_parts(parts, body));
            return ResponseFuture::inner(future, self.make_body.clone(), gate);
        };
        let upgrade = self.upgrade(&mut parts, opening, Some(&found));
        let routed = Routed {
            upgrade,
            route: Arc::clone(found.route),
            request: Request::from_parts(parts, ()),
        };
        match routed.answer(&settings) {
            Answer::Now(response) => ResponseFuture::ready(response, self.make_body.clone(), gate),
            Answer::Later(future) => ResponseFuture::guarded(future, self.make_body.clone(), gate),
        }
    }
}

impl<S: fmt::Debug, M> fmt::Debug for WebSocketService<S, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketService")
            .field("inner", &self.inner)
            .field("tracker", self.gate.tracker())
            .finish_non_exhaustive()
    }
}

/// A WebSocket on a path that has a route.
struct Routed {
    upgrade: WebSocketUpgrade,
    route: Arc<Route>,
    request: Request<()>,
}

/// The response to a routed request; a guard may want to think about it.
enum Answer {
    Later(Pin<Box<dyn Future<Output = Response<String>> + Send>>),
    Now(Response<String>),
}

impl Routed {
    fn answer(mut self, settings: &Arc<Settings>) -> Answer {
        if let Err(refusal) = self.upgrade.check() {
            return Answer::Now(*refusal);
        }
        let guards = || settings.guards.iter().chain(&self.route.guards);
        if guards().any(|guard| matches!(guard, Guard::Async(_))) {
            let settings = Arc::clone(settings);
            return Answer::Later(Box::pin(self.guarded(settings)));
        }
        for guard in settings.guards.iter().chain(&self.route.guards) {
            if let Guard::Sync(guard) = guard
                && let Err(response) = guard(&mut self.request)
            {
                return Answer::Now(*response);
            }
        }
        Answer::Now(self.accept())
    }

    async fn guarded(mut self, settings: Arc<Settings>) -> Response<String> {
        for guard in settings.guards.iter().chain(&self.route.guards) {
            match guard {
                Guard::Async(guard) => match guard(self.request).await {
                    Ok(request) => self.request = request,
                    Err(response) => return *response,
                },
                Guard::Sync(guard) => {
                    if let Err(response) = guard(&mut self.request) {
                        return *response;
                    }
                }
            }
        }
        self.accept()
    }

    fn accept(self) -> Response<String> {
        let handler = Arc::clone(&self.route.handler);
        // Otherwise it goes now, and the buffer of its head with it.
        let request = handler.takes_request().then(|| Box::new(self.request));
        self.upgrade
            .complete(Start::Route(handler, request))
            .unwrap_or_else(|refusal| *refusal)
    }
}

/// The inner service of a layer that stands alone: what is not a WebSocket is not found.
#[derive(Clone)]
pub struct NotFound<M = DefaultBody> {
    settings: Arc<Settings>,
    make_body: M,
}

impl<M> NotFound<M> {
    pub(crate) fn new(settings: Arc<Settings>, make_body: M) -> Self {
        Self {
            settings,
            make_body,
        }
    }

    fn answer<B>(&self, request: Request<B>) -> Response<String> {
        let (parts, _) = request.into_parts();
        if self.settings.router.find(parts.uri.path()).is_some() {
            let rejection = Offer::from_request(&parts).err();
            return rejection.unwrap_or(Rejection::UpgradeMissing).to_response();
        }
        text_response(StatusCode::NOT_FOUND, "not found\n".to_owned())
    }
}

impl<B> Service<Request<B>> for NotFound {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ready(Ok(self.answer(request)))
    }
}

impl<B, ResBody> Service<Request<B>> for NotFound<fn(String) -> ResBody> {
    type Response = Response<ResBody>;
    type Error = Infallible;
    type Future = Ready<Result<Response<ResBody>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ready(Ok(self.answer(request).map(self.make_body)))
    }
}

impl<M> fmt::Debug for NotFound<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotFound").finish_non_exhaustive()
    }
}
