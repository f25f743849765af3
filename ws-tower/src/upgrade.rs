//! The upgrade: a WebSocket that was asked for, in the hands of the application.
//!
//! Whatever the layer does not route itself reaches the inner service with a
//! [`WebSocketUpgrade`] in the request's extensions. The application looks at the request,
//! decides, and answers with what [`on_upgrade`](WebSocketUpgrade::on_upgrade) returns, or with
//! any other response, which refuses.
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use ws_tower::{Error, WebSocket, WebSocketUpgrade};
//!
//! async fn chat(mut socket: WebSocket) -> Result<(), Error> {
//!     socket.send("welcome").await
//! }
//!
//! async fn application(request: Request<String>) -> Response<String> {
//!     match request.extensions().get::<WebSocketUpgrade>().cloned() {
//!         Some(upgrade) if request.headers().contains_key("authorization") => {
//!             upgrade.subprotocols(["chat.v2"]).on_upgrade(chat)
//!         }
//!         // A real 403, before any 101.
//!         Some(_) => {
//!             let mut response = Response::new("who are you?".to_owned());
//!             *response.status_mut() = StatusCode::FORBIDDEN;
//!             response
//!         }
//!         None => Response::new("a page".to_owned()),
//!     }
//! }
//! ```
//!
//! # axum
//!
//! With the feature `axum`, [`WebSocketUpgrade`] is an extractor. Plain, it refuses what asks for
//! no WebSocket with 426, or 405 for a method other than `GET`; as an `Option` it is `None` then. A
//! handshake that is not in order is refused either way.
//!
//! ```
//! # #[cfg(feature = "axum")]
//! # mod compiled {
//! # use axum_core as axum;
//! use axum::response::{IntoResponse, Response};
//! use ws_tower::{Error, WebSocket, WebSocketUpgrade};
//!
//! async fn chat(upgrade: Option<WebSocketUpgrade>) -> Response {
//!     match upgrade {
//!         Some(upgrade) => upgrade.on_upgrade(welcome),
//!         None => "This page is for people.".into_response(),
//!     }
//! }
//!
//! async fn welcome(socket: WebSocket) -> Result<(), Error> {
//!     socket.send("welcome").await
//! }
//! # }
//! ```
//!
//! Route it with `any(chat)`, for over HTTP/2 the method is `CONNECT`, and make a
//! [`WebSocketLayer`](crate::WebSocketLayer) or a [`GateLayer`](crate::gate::GateLayer) the
//! router's last layer. Without one the extractor answers 500, with the line to add.
//!
//! # Tests without a port
//!
//! [`test_request`] makes a request with a client behind it, for any service:
//!
//! ```
//! use tower::ServiceExt;
//! use ws_tower::{Message, WebSocket, WebSocketLayer, upgrade::test_request};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let service = WebSocketLayer::new()
//!     .route("/hello", |socket: WebSocket| async move { socket.send("hello").await })
//!     .into_service();
//! let (request, client) = test_request::<()>("/hello");
//! let response = service.oneshot(request).await?;
//! let mut socket = client.finish(&response)?;
//! assert_eq!(socket.recv().await.transpose()?, Some(Message::text("hello")));
//! # Ok(())
//! # }
//! ```

mod testing;

use std::{
    error::Error as StdError,
    fmt,
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use http::{HeaderName, HeaderValue, Response, StatusCode, request::Parts};
use ws_core::{
    Config, Connection, Role,
    handshake::{
        Opening,
        server::{Offer, Rejection},
    },
};

pub use self::testing::{TestClient, test_request, test_request_with};
pub use crate::provided::ProvidedIo;
use crate::{
    Closed, OriginPolicy, Tracker, WebSocket,
    body::{DefaultBody, MakeBody},
    gate::{Acceptance, Gate, Pending},
    guard::text_response,
    handler::{Outcome, Start},
    opening::opening_of,
    options::{Options, Subprotocols},
    origin::Sides,
    provided::Promise,
    session::state::{About, Handler, Shared},
};

/// The address of the peer, in a request's extensions. Servers set it; sockets tell it
/// ([`WebSocket::peer`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_structs,
    reason = "it is that address and nothing else"
)]
pub struct PeerAddr(pub SocketAddr);

/// A WebSocket that a request asks for: accept it, or refuse with any response.
///
/// The [layer](crate::WebSocketLayer) puts it into the extensions of a request whose path has no
/// route. With the feature `axum` it is an extractor. See the [module](self).
///
/// It is a value that can be taken once behind a `Clone`: the first
/// [`on_upgrade`](Self::on_upgrade) or [`accept`](Self::accept) takes it, and every later one
/// gets a 500 that says so. Settings made on a clone are that clone's.
///
/// Without settings, those of the layer hold.
#[derive(Clone)]
#[must_use = "a request that is not accepted is refused with the response that is returned"]
pub struct WebSocketUpgrade {
    request: Arc<Asked>,
    options: Options,
}

/// What is kept of the request: copies, for a slice would pin the buffer of the whole head.
struct Asked {
    /// A handshake that is not in order is answered when the application accepts it.
    offer: Result<Offer, Rejection>,
    sides: Sides,
    gate: Gate,
    /// The layer's own, beside that of the gate.
    tracker: Tracker,
    once: Mutex<Option<Once>>,
    path: Box<str>,
}

/// What only the first taker gets.
struct Once {
    promise: Promise,
    about: About,
}

impl WebSocketUpgrade {
    /// Takes the WebSocket that a request asks for out of its extensions or, behind a
    /// [gate](crate::gate) without a layer, makes it. For applications without extractors.
    ///
    /// # Errors
    ///
    /// The request does not ask for a WebSocket, or not in order, or there is no gate.
    pub fn from_parts(parts: &mut Parts) -> Result<Self, UpgradeRejection> {
        if let Some(upgrade) = parts.extensions.get::<Self>() {
            return match &upgrade.request.offer {
                Ok(_) => Ok(upgrade.clone()),
                Err(rejection) => Err(rejection.clone().into()),
            };
        }
        let Some(opening) = opening_of_parts(parts) else {
            let rejection = Offer::from_request(parts).err();
            return Err(rejection.unwrap_or(Rejection::UpgradeMissing).into());
        };
        let Some(gate) = parts.extensions.get::<Gate>().cloned() else {
            tracing::error!(path = parts.uri.path(), "{GATE_MISSING}");
            return Err(UpgradeRejection::GateMissing);
        };
        let upgrade = Self::new(
            parts,
            opening,
            Promise::of(&parts.extensions),
            About::of(parts),
            gate.tracker().clone(),
            gate,
            Options::default(),
        );
        match &upgrade.request.offer {
            Ok(_) => Ok(upgrade),
            Err(rejection) => Err(rejection.clone().into()),
        }
    }

    pub(crate) fn new(
        parts: &Parts,
        opening: Opening,
        promise: Promise,
        about: About,
        tracker: Tracker,
        gate: Gate,
        options: Options,
    ) -> Self {
        let offer = match opening {
            Opening::ExtendedConnect => Offer::from_extended_connect(parts),
            _ => Offer::from_request(parts),
        };
        Self {
            request: Arc::new(Asked {
                offer,
                sides: Sides::of(parts),
                gate,
                tracker,
                path: about.path.clone(),
                once: Mutex::new(Some(Once { promise, about })),
            }),
            options,
        }
    }

    /// Chooses the first of these subprotocols that the client offers, or none (RFC 6455 §4.2.2).
    /// They are compared exactly. Default: those of the layer, or none.
    pub fn subprotocols<N: AsRef<str>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.options.subprotocols = Some(Subprotocols::new(names, false));
        self
    }

    /// Like [`subprotocols`](Self::subprotocols), but a client that offers none of them is
    /// refused with 400.
    pub fn require_subprotocol<N: AsRef<str>>(
        mut self,
        names: impl IntoIterator<Item = N>,
    ) -> Self {
        self.options.subprotocols = Some(Subprotocols::new(names, true));
        self
    }

    /// Sets limits and times of the connection. An `Arc` is shared by many. Default: those of
    /// the layer, or [`Config::default`].
    pub fn config(mut self, config: impl Into<Arc<Config>>) -> Self {
        self.options.config = Some(config.into());
        self
    }

    /// Adds a header to the response that accepts, such as a cookie. One that belongs to the
    /// handshake or to a body is left out.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.options.header(name, value);
        self
    }

    /// Sets what is told how the socket ended. Default: the layer's hook.
    pub fn on_closed(mut self, hook: impl Fn(&Closed) + Send + Sync + 'static) -> Self {
        self.options.on_closed = Some(Arc::new(hook));
        self
    }

    /// Drops the handler when the socket has ended: see
    /// [`Route::cancel_on_close`](crate::Route::cancel_on_close).
    pub fn cancel_on_close(mut self) -> Self {
        self.options.cancel_on_close = true;
        self
    }

    /// Sets which pages may open the WebSocket. Default: that of the layer, or
    /// [`OriginPolicy::same_origin`].
    pub fn origins(mut self, policy: OriginPolicy) -> Self {
        self.options.origins = Some((policy, "WebSocketUpgrade::origins"));
        self
    }

    /// The subprotocols that the client offers, in the order of its preference.
    pub fn offered_subprotocols(&self) -> impl Iterator<Item = &str> {
        self.request.offer.iter().flat_map(Offer::subprotocols)
    }

    /// The path of the request, as the layer or the extractor saw it.
    pub fn path(&self) -> &str {
        &self.request.path
    }

    /// What is wrong with the handshake, if something is. Accepting then answers with it.
    pub fn rejection(&self) -> Option<&Rejection> {
        self.request.offer.as_ref().err()
    }

    /// Accepts: the response to return, after which `handler` runs with the socket.
    ///
    /// The handler is called once the response has left and the server has handed over the
    /// bytes; never, if another response leaves. It returns `()` or a `Result`: see
    /// [`Handler`](crate::Handler).
    ///
    /// The response is a refusal if the handshake is not in order (400, 426), the page's origin
    /// is not allowed (403), the server is shutting down (503), or it does not hand over bytes
    /// (500). The typed [`Rejection`] is in its extensions.
    pub fn on_upgrade<F, Fut, B>(self, handler: F) -> Response<B>
    where
        F: FnOnce(WebSocket) -> Fut + Send + 'static,
        Fut: Future<Output: Outcome> + Send + 'static,
        B: Default + 'static,
    {
        let response = self
            .check()
            .and_then(|()| self.complete(Start::once(handler)));
        DefaultBody.make(response.unwrap_or_else(|refusal| *refusal))
    }

    /// Accepts, with the socket at once: `send` queues, and `recv` waits, until the response has
    /// left and the server has handed over the bytes.
    ///
    /// When another response leaves, or none within [`Config::handshake_timeout`], the socket
    /// ends with [`Error::NotUpgraded`](crate::Error::NotUpgraded). When the WebSocket cannot be
    /// accepted, the response is the refusal that [`on_upgrade`](Self::on_upgrade) gives, and
    /// the socket has ended the same way.
    ///
    /// Do not wait for messages before the response is returned: none can come.
    pub fn accept<B: Default + 'static>(self) -> (Response<B>, WebSocket) {
        let accepted = self.check().and_then(|()| self.take(Handler::Done));
        let (response, shared) = match accepted {
            Ok((mut response, pending)) => {
                let shared = pending.shared();
                let acceptance = Acceptance::new(pending);
                acceptance.expire();
                response.extensions_mut().insert(acceptance);
                (response, shared)
            }
            Err(refusal) => {
                let connection = Connection::new(Role::Server, Config::default());
                let about = About {
                    path: self.request.path.clone(),
                    ..About::default()
                };
                let shared = Shared::new(connection, Handler::Done, about);
                shared.end(Some(crate::Error::NotUpgraded));
                (*refusal, shared)
            }
        };
        (DefaultBody.make(response), WebSocket::new(shared))
    }

    /// What can be told before the application is asked.
    pub(crate) fn check(&self) -> Result<(), Refused> {
        if self.is_draining() {
            return Err(self.refuse(&Rejection::Draining));
        }
        if let Err(rejection) = &self.request.offer {
            return Err(self.refuse(rejection));
        }
        let sides = &self.request.sides;
        let (passes, setting) = match &self.options.origins {
            Some((policy, setting)) => (sides.pass(policy), *setting),
            None => (
                sides.pass(&OriginPolicy::same_origin()),
                "WebSocketUpgrade::origins",
            ),
        };
        if passes {
            return Ok(());
        }
        Err(self.refuse(&Rejection::OriginNotAllowed {
            origin: sides.origin.as_deref().unwrap_or_default().to_owned(),
            authority: (*sides.authority).to_owned(),
            setting,
        }))
    }

    /// Takes the WebSocket, for a handler.
    pub(crate) fn complete(&self, start: Start) -> Result<Response<String>, Refused> {
        let (mut response, pending) = self.take(Handler::Running)?;
        let acceptance = Acceptance::new(pending.with_start(Some(start)));
        response.extensions_mut().insert(acceptance);
        Ok(response)
    }

    fn take(&self, handler: Handler) -> Result<(Response<String>, Pending), Refused> {
        let refuse = |rejection: Rejection| self.refuse(&rejection);
        let offer = self.request.offer.as_ref();
        let offer = offer.map_err(|rejection| self.refuse(rejection))?;
        // Guards may have taken their time.
        if self.is_draining() {
            return Err(refuse(Rejection::Draining));
        }
        let chosen = match &self.options.subprotocols {
            Some(Subprotocols { names, required }) if *required => {
                Some(offer.require_subprotocol(names).map_err(refuse)?)
            }
            Some(Subprotocols { names, .. }) => offer.select_subprotocol(names),
            None => None,
        };
        let config = self.options.config();
        let offer = offer.clone().negotiate(&config).map_err(refuse)?;
        let (accepted, agreed) = offer
            .accept(chosen)
            .map_err(|error| Box::new(internal_error(&error.to_string())))?;
        let once = self
            .request
            .once
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(Once { promise, mut about }) = once else {
            let mut response = internal_error(&AlreadyTaken.to_string());
            response.extensions_mut().insert(AlreadyTaken);
            return Err(Box::new(response));
        };
        let Some(source) = promise.into_source(self.request.gate.through()) else {
            return Err(refuse(Rejection::UpgradeUnavailable));
        };

        let mut response = accepted.map(|()| String::new());
        for (name, value) in &self.options.headers {
            response.headers_mut().append(name, value.clone());
        }
        let opening = agreed.opening();
        let (subprotocol, extensions) = agreed.into_parts();
        about.subprotocol = subprotocol;
        let mut connection = Connection::new(Role::Server, config).with_extensions(&extensions);
        if opening == Opening::ExtendedConnect {
            connection = connection.without_pauses();
        }
        let shared = Shared::new(connection, handler, about);
        let tracker = self.request.tracker.clone();
        let pending = Pending::new(shared, opening, source, tracker)
            .with_on_closed(self.options.on_closed.clone())
            .with_cancel_on_close(self.options.cancel_on_close);
        Ok((response, pending))
    }

    fn refuse(&self, rejection: &Rejection) -> Refused {
        let path = self.path();
        if *rejection == Rejection::UpgradeUnavailable {
            // The program is at fault, and no request will ever succeed.
            tracing::error!(path, "websocket refused: {rejection}");
        } else {
            tracing::debug!(path, "websocket refused: {rejection}");
        }
        Box::new(rejection.to_response())
    }

    fn is_draining(&self) -> bool {
        self.request.gate.tracker().is_draining() || self.request.tracker.is_draining()
    }
}

impl fmt::Debug for WebSocketUpgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketUpgrade")
            .field("path", &self.path())
            .field("offer", &self.request.offer)
            .field("sides", &self.request.sides)
            .finish_non_exhaustive()
    }
}

/// A response that is not an acceptance. It is large, and rare.
pub(crate) type Refused = Box<Response<String>>;

/// Why a request yields no [`WebSocketUpgrade`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UpgradeRejection {
    /// No [gate](crate::gate) is around the service: nobody would see whether the acceptance
    /// leaves.
    GateMissing,
    /// The request does not ask for a WebSocket, or not in order.
    Handshake(Rejection),
}

impl UpgradeRejection {
    /// The response that tells it: 500 for a missing gate, else that of the [`Rejection`].
    pub fn to_response(&self) -> Response<String> {
        match self {
            Self::GateMissing => internal_error(GATE_MISSING),
            Self::Handshake(rejection) => rejection.to_response(),
        }
    }
}

impl From<Rejection> for UpgradeRejection {
    fn from(rejection: Rejection) -> Self {
        Self::Handshake(rejection)
    }
}

impl fmt::Display for UpgradeRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GateMissing => f.write_str(GATE_MISSING),
            Self::Handshake(rejection) => rejection.fmt(f),
        }
    }
}

impl StdError for UpgradeRejection {}

/// Somebody else has accepted or taken this WebSocket; in the extensions of the 500 that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AlreadyTaken;

impl fmt::Display for AlreadyTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "this websocket has been accepted already: of all clones of a `WebSocketUpgrade`, \
             the first has it",
        )
    }
}

impl StdError for AlreadyTaken {}

impl About {
    /// What can be told of any request: its path and its peer.
    pub(crate) fn of(parts: &Parts) -> Self {
        Self {
            path: parts.uri.path().into(),
            peer: parts.extensions.get::<PeerAddr>().map(|peer| peer.0),
            ..Self::default()
        }
    }
}

/// Whether a request asks for a WebSocket, in order or not.
#[cfg(feature = "axum")]
pub(crate) fn is_asked_for(parts: &Parts) -> bool {
    opening_of_parts(parts).is_some()
}

fn opening_of_parts(parts: &Parts) -> Option<Opening> {
    opening_of(
        &parts.method,
        parts.version,
        &parts.headers,
        &parts.extensions,
    )
}

const GATE_MISSING: &str = "no gate around this service sees which response leaves it, so no \
    websocket can be accepted: add `.layer(ws_tower::gate::GateLayer::new())` as the last layer \
    of the router";

fn internal_error(text: &str) -> Response<String> {
    text_response(StatusCode::INTERNAL_SERVER_ERROR, format!("{text}\n"))
}

#[cfg(test)]
mod tests;
