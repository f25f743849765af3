//! The layer: WebSockets by path, for any Tower stack.
//!
//! A request for a WebSocket on a path that has a route is the layer's: it checks the handshake
//! and the origin, asks the guards, answers 101 (200 over HTTP/2) and runs the handler. Every
//! other request goes to the inner service, untouched; one that asks for a WebSocket has a
//! [`WebSocketUpgrade`](crate::WebSocketUpgrade) in its extensions there.
//!
//! | request | answer |
//! |---|---|
//! | no upgrade, or on a path without a route | the inner service. [Alone](WebSocketLayer::into_service): 404; on a socket's path 426, or 405 for a method other than `GET` |
//! | while draining | 503 |
//! | handshake not in order | 400, or 426 for another version |
//! | a page of another origin | 403 |
//! | refused by a guard | the guard's |
//! | no subprotocol in common, and one is required | 400 |
//! | the server does not hand over its connections | 500, and an error in the log |
//! | else | 101, and the handler runs once it has left |
//!
//! A refusal is a response and never an error: the error type of the stack stays the inner
//! service's. Its [`Rejection`](ws_core::handshake::server::Rejection) is in the response's
//! extensions, for layers further out.
//!
//! Make it the outermost layer (axum: the last `.layer`). It is then the [gate](crate::gate): no
//! session begins unless the 101 really leaves. On an axum `Router` it sees every path; on a
//! nested one only those of the routes there, without the prefix.
//!
//! ```
//! use std::convert::Infallible;
//!
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use ws_tower::{Error, Message, WebSocket, WebSocketLayer, upgrade::test_request};
//!
//! async fn echo(mut socket: WebSocket) -> Result<(), Error> {
//!     while let Some(message) = socket.recv().await {
//!         socket.send(message?).await?;
//!     }
//!     Ok(())
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let sockets = WebSocketLayer::new().route("/echo", echo);
//! let page = service_fn(async |_: Request<()>| {
//!     Ok::<_, Infallible>(Response::new("a page".to_owned()))
//! });
//! let service = ServiceBuilder::new().layer(sockets.clone()).service(page);
//!
//! let (request, client) = test_request("/echo");
//! let response = service.clone().oneshot(request).await?;
//! let mut socket = client.finish(&response)?;
//! socket.send("hello").await?;
//! assert_eq!(socket.recv().await.transpose()?, Some(Message::text("hello")));
//!
//! let response = service.oneshot(Request::new(())).await?;
//! assert_eq!(response.body(), "a page");
//! # Ok(())
//! # }
//! ```

use std::{fmt, future::Future, net::SocketAddr, sync::Arc};

use http::{Extensions, HeaderName, HeaderValue, Request};
use tower_layer::Layer;
use ws_core::Config;

use crate::{
    Closed, Handler, IntoRefusal, OriginPolicy, Tracker,
    body::DefaultBody,
    gate::Gate,
    guard::Guard,
    options::{Options, Subprotocols},
    router::{Route, Router},
    service::{NotFound, WebSocketService},
    upgrade::PeerAddr,
};

/// WebSockets by path, for any Tower stack. See the [module](self).
///
/// Cloning is cheap. Clones, and the services they make, share one [`Tracker`].
///
/// | setting | default | for one path: [`Route`] | in the application: [`WebSocketUpgrade`](crate::WebSocketUpgrade) |
/// |---|---|---|---|
/// | [`route`](Self::route) | no path | | |
/// | [`config`](Self::config) | [`Config::default`] | instead | instead |
/// | [`origins`](Self::origins) | same origin | instead | instead |
/// | [`subprotocols`](Self::subprotocols), [`require_subprotocol`](Self::require_subprotocol) | none | instead | instead |
/// | [`header`](Self::header) on the acceptance | none | added | added |
/// | [`guard`](Self::guard), [`guard_async`](Self::guard_async) | none | after these | none is asked: the application decides |
/// | [`on_closed`](Self::on_closed) | nobody is told | instead | the layer's |
/// | [`cancel_on_close`](Self::cancel_on_close) | handlers run on | as well | the layer's |
/// | [`peer_addr`](Self::peer_addr) | [`PeerAddr`] | | |
/// | [`with_tracker`](Self::with_tracker) | one of its own | | |
/// | [`with_body`](Self::with_body) | the body's `Default` | | |
///
/// `M` makes the bodies of the layer's own responses: see [`with_body`](Self::with_body).
#[derive(Clone)]
pub struct WebSocketLayer<M = DefaultBody> {
    settings: Arc<Settings>,
    gate: Gate,
    make_body: M,
}

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) router: Router,
    pub(crate) options: Options,
    pub(crate) guards: Vec<Guard>,
    pub(crate) peer: fn(&Extensions) -> Option<SocketAddr>,
}

impl WebSocketLayer {
    /// A layer without routes, with the defaults of each setting.
    pub fn new() -> Self {
        Self {
            settings: Arc::new(Settings {
                router: Router::default(),
                options: Options {
                    origins: Some((OriginPolicy::same_origin(), "WebSocketLayer::origins")),
                    ..Options::default()
                },
                guards: Vec::new(),
                peer: |extensions| extensions.get::<PeerAddr>().map(|peer| peer.0),
            }),
            gate: Gate::default(),
            make_body: DefaultBody,
        }
    }
}

impl Default for WebSocketLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<M> WebSocketLayer<M> {
    /// Adds a route: paths as in axum, `/echo`, `/rooms/{room}`, `/files/{*path}`. The parameters
    /// are the socket's: [`WebSocket::param`](crate::WebSocket::param).
    ///
    /// The handler is an `async fn(WebSocket)` or `async fn(WebSocket, Request<()>)` that returns
    /// `()` or a `Result`: see [`Handler`].
    ///
    /// # Panics
    ///
    /// The path conflicts with that of another route, or is malformed. The text names both.
    #[must_use]
    #[track_caller]
    pub fn route<H: Handler<P>, P: 'static>(self, path: &str, handler: H) -> Self {
        self.route_with(path, Route::new(handler))
    }

    /// Adds a route with settings of its own.
    ///
    /// # Panics
    ///
    /// Those of [`route`](Self::route).
    #[must_use]
    #[track_caller]
    pub fn route_with(mut self, path: &str, route: Route) -> Self {
        self.settings_mut().router.insert(path, route);
        self
    }

    /// Adds a guard of all routes: it sees the request when the handshake is in order and the
    /// origin may, and answers with any response of its own to refuse. What it puts into the
    /// request's extensions, a handler that takes the request finds there.
    ///
    /// The error is a status, a status with a text, or a whole `Response<String>`: see
    /// [`IntoRefusal`]. Guards are asked in the order in which they were added, the layer's before
    /// the route's. A body that is not text needs
    /// [`WebSocketUpgrade`](crate::WebSocketUpgrade) in the application instead.
    ///
    /// ```
    /// use http::{Request, StatusCode};
    /// use ws_tower::WebSocketLayer;
    ///
    /// fn authenticated(request: &mut Request<()>) -> Result<(), StatusCode> {
    ///     if request.headers().contains_key("authorization") {
    ///         Ok(())
    ///     } else {
    ///         Err(StatusCode::UNAUTHORIZED)
    ///     }
    /// }
    ///
    /// let sockets = WebSocketLayer::new().guard(authenticated);
    /// ```
    ///
    /// A closure with a `?` or more than one `return` has to name its result: `move |request: &mut
    /// Request<()>| -> Result<(), StatusCode> { … }`.
    #[must_use]
    pub fn guard<G, E>(mut self, guard: G) -> Self
    where
        G: Fn(&mut Request<()>) -> Result<(), E> + Send + Sync + 'static,
        E: IntoRefusal,
    {
        self.settings_mut().guards.push(Guard::new(guard));
        self
    }

    /// Like [`guard`](Self::guard), for one that waits for something. It gets the request and
    /// gives it back.
    ///
    /// ```
    /// use http::{Request, StatusCode};
    /// use ws_tower::WebSocketLayer;
    ///
    /// async fn session(mut request: Request<()>) -> Result<Request<()>, StatusCode> {
    ///     // … asks a database
    ///     request.extensions_mut().insert("the user");
    ///     Ok(request)
    /// }
    ///
    /// let sockets = WebSocketLayer::new().guard_async(session);
    /// ```
    #[must_use]
    pub fn guard_async<G, Fut, E>(mut self, guard: G) -> Self
    where
        G: Fn(Request<()>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Request<()>, E>> + Send + 'static,
        E: IntoRefusal,
    {
        self.settings_mut().guards.push(Guard::new_async(guard));
        self
    }

    /// Sets which pages may open WebSockets. Default: [`OriginPolicy::same_origin`].
    #[must_use]
    pub fn origins(mut self, policy: OriginPolicy) -> Self {
        self.settings_mut().options.origins = Some((policy, "WebSocketLayer::origins"));
        self
    }

    /// Sets limits and times of the connections. Default: [`Config::default`].
    #[must_use]
    pub fn config(mut self, config: impl Into<Arc<Config>>) -> Self {
        self.settings_mut().options.config = Some(config.into());
        self
    }

    /// Chooses the first of these subprotocols that a client offers, or none (RFC 6455 §4.2.2).
    /// They are compared exactly. Default: none is chosen.
    #[must_use]
    pub fn subprotocols<N: AsRef<str>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.settings_mut().options.subprotocols = Some(Subprotocols::new(names, false));
        self
    }

    /// Like [`subprotocols`](Self::subprotocols), but a client that offers none of them is
    /// refused with 400.
    #[must_use]
    pub fn require_subprotocol<N: AsRef<str>>(
        mut self,
        names: impl IntoIterator<Item = N>,
    ) -> Self {
        self.settings_mut().options.subprotocols = Some(Subprotocols::new(names, true));
        self
    }

    /// Adds a header to the responses that accept. One that belongs to the handshake or to a body
    /// is left out.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.settings_mut().options.header(name, value);
        self
    }

    /// Sets what is told how each socket ended, those of the application's own upgrades included.
    /// It is called once for each session, in its task: do not block. A WebSocket that never
    /// opened is not told.
    #[must_use]
    pub fn on_closed(mut self, hook: impl Fn(&Closed) + Send + Sync + 'static) -> Self {
        self.settings_mut().options.on_closed = Some(Arc::new(hook));
        self
    }

    /// Drops the handler when the socket has ended, at the `.await` where it is. Without this it
    /// runs on, and learns the end from [`recv`](crate::WebSocket::recv),
    /// [`closed`](crate::WebSocket::closed) or a refused send.
    ///
    /// For handlers that wait for something else and have nothing to finish.
    #[must_use]
    pub fn cancel_on_close(mut self) -> Self {
        self.settings_mut().options.cancel_on_close = true;
        self
    }

    /// Sets where a request tells the address of its peer. Default: its [`PeerAddr`].
    ///
    /// For `axum::serve` with `into_make_service_with_connect_info::<SocketAddr>()`:
    /// `.peer_addr(|extensions| Some(extensions.get::<ConnectInfo<SocketAddr>>()?.0))`.
    #[must_use]
    pub fn peer_addr(mut self, peer: fn(&Extensions) -> Option<SocketAddr>) -> Self {
        self.settings_mut().peer = peer;
        self
    }

    /// Shares a tracker with other layers, so that one shutdown ends the sessions of all.
    /// Default: a tracker of its own.
    #[must_use]
    pub fn with_tracker(mut self, tracker: Tracker) -> Self {
        self.gate = Gate::new(tracker);
        self
    }

    /// Sets how the bodies of the layer's own responses are made of their text, for stacks whose
    /// body has no [`Default`], or shall have the text.
    ///
    /// By default a body is its type's `Default`, with the text if it is a `String` or, with the
    /// feature `axum` (on by default), an axum body.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http_body_util::Full;
    /// use ws_tower::WebSocketLayer;
    ///
    /// let sockets = WebSocketLayer::new().with_body::<Full<Bytes>>(Full::from);
    /// ```
    pub fn with_body<B>(self, make_body: fn(String) -> B) -> WebSocketLayer<fn(String) -> B> {
        WebSocketLayer {
            settings: self.settings,
            gate: self.gate,
            make_body,
        }
    }

    /// The tracker of the sessions, for the shutdown.
    pub fn tracker(&self) -> Tracker {
        self.gate.tracker().clone()
    }

    /// A service without an inner one: what is not a WebSocket is 404, and on the path of one
    /// 426, or 405 for a method other than `GET`.
    pub fn into_service(self) -> WebSocketService<NotFound<M>, M>
    where
        M: Clone,
    {
        let inner = NotFound::new(Arc::clone(&self.settings), self.make_body.clone());
        WebSocketService::new(inner, self.settings, self.gate, self.make_body)
    }

    fn settings_mut(&mut self) -> &mut Settings {
        Arc::make_mut(&mut self.settings)
    }
}

impl<S, M: Clone> Layer<S> for WebSocketLayer<M> {
    type Service = WebSocketService<S, M>;

    fn layer(&self, inner: S) -> Self::Service {
        WebSocketService::new(
            inner,
            Arc::clone(&self.settings),
            self.gate.clone(),
            self.make_body.clone(),
        )
    }
}

impl<M> fmt::Debug for WebSocketLayer<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketLayer")
            .field("tracker", self.gate.tracker())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
