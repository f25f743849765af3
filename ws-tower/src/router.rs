//! Routes: which handler a path has, and the settings of its own.

use std::{fmt, future::Future, sync::Arc};

use http::{HeaderName, HeaderValue, Request};
use matchit::{InsertError, Params};
use ws_core::Config;

use crate::{
    Closed, Handler, IntoRefusal, OriginPolicy,
    guard::Guard,
    handler::{ErasedHandler, erase_type},
    options::{Options, Subprotocols},
};

/// A handler with settings that hold for its path only. What is not set here is the layer's.
///
/// ```
/// use ws_tower::{Config, Route, WebSocket, WebSocketLayer};
///
/// async fn upload(socket: WebSocket) {
///     // …
/// #   drop(socket);
/// }
///
/// let sockets = WebSocketLayer::new().route_with(
///     "/upload/{name}",
///     Route::new(upload)
///         .config(Config::new().max_message_size(64 << 20))
///         .subprotocols(["upload.v1"]),
/// );
/// ```
#[derive(Clone)]
pub struct Route {
    pub(crate) handler: Arc<dyn ErasedHandler>,
    pub(crate) options: Options,
    pub(crate) guards: Vec<Guard>,
}

impl Route {
    /// A route with the layer's settings.
    pub fn new<H: Handler<P>, P: 'static>(handler: H) -> Self {
        Self {
            handler: erase_type(handler),
            options: Options::default(),
            guards: Vec::new(),
        }
    }

    /// Sets limits and times of the connections. Default: the layer's.
    #[must_use]
    pub fn config(mut self, config: impl Into<Arc<Config>>) -> Self {
        self.options.config = Some(config.into());
        self
    }

    /// Chooses the first of these subprotocols that the client offers, or none. Default: the
    /// layer's.
    #[must_use]
    pub fn subprotocols<N: AsRef<str>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.options.subprotocols = Some(Subprotocols::new(names, false));
        self
    }

    /// Like [`subprotocols`](Self::subprotocols), but a client that offers none of them is
    /// refused with 400.
    #[must_use]
    pub fn require_subprotocol<N: AsRef<str>>(
        mut self,
        names: impl IntoIterator<Item = N>,
    ) -> Self {
        self.options.subprotocols = Some(Subprotocols::new(names, true));
        self
    }

    /// Sets which pages may open the WebSocket. Default: the layer's.
    #[must_use]
    pub fn origins(mut self, policy: OriginPolicy) -> Self {
        self.options.origins = Some((policy, "Route::origins"));
        self
    }

    /// Adds a header to the response that accepts, after those of the layer. One that belongs to
    /// the handshake or to a body is left out.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.options.header(name, value);
        self
    }

    /// Adds a guard, after those of the layer: see
    /// [`WebSocketLayer::guard`](crate::WebSocketLayer::guard).
    #[must_use]
    pub fn guard<G, E>(mut self, guard: G) -> Self
    where
        G: Fn(&mut Request<()>) -> Result<(), E> + Send + Sync + 'static,
        E: IntoRefusal,
    {
        self.guards.push(Guard::new(guard));
        self
    }

    /// Adds a guard that waits for something: see
    /// [`WebSocketLayer::guard_async`](crate::WebSocketLayer::guard_async).
    #[must_use]
    pub fn guard_async<G, Fut, E>(mut self, guard: G) -> Self
    where
        G: Fn(Request<()>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Request<()>, E>> + Send + 'static,
        E: IntoRefusal,
    {
        self.guards.push(Guard::new_async(guard));
        self
    }

    /// Sets what is told how each socket of this route ended, instead of the layer's hook.
    #[must_use]
    pub fn on_closed(mut self, hook: impl Fn(&Closed) + Send + Sync + 'static) -> Self {
        self.options.on_closed = Some(Arc::new(hook));
        self
    }

    /// Drops the handler when the socket has ended, at the `.await` where it is. Without this it
    /// runs on, and learns the end from [`recv`](crate::WebSocket::recv),
    /// [`closed`](crate::WebSocket::closed) or a refused send.
    ///
    /// For handlers that wait for something else and have nothing to finish.
    #[must_use]
    pub fn cancel_on_close(mut self) -> Self {
        self.options.cancel_on_close = true;
        self
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("guards", &self.guards.len())
            .finish_non_exhaustive()
    }
}

/// The routes of a layer, by path.
#[derive(Clone, Default)]
pub(crate) struct Router {
    paths: matchit::Router<Arc<Route>>,
}

impl Router {
    /// Adds a route. A path that cannot be is a mistake of the program, found when it starts.
    #[track_caller]
    pub(crate) fn insert(&mut self, path: &str, route: Route) {
        assert!(
            path.starts_with('/'),
            "the websocket route `{path}` does not begin with a slash"
        );
        match self.paths.insert(path, Arc::new(route)) {
            Ok(()) => {}
            Err(InsertError::Conflict { with }) => {
                panic!("the websocket route `{path}` conflicts with the route `{with}`")
            }
            Err(error) => panic!("the websocket route `{path}` is malformed: {error}"),
        }
    }

    pub(crate) fn find<'a>(&'a self, path: &'a str) -> Option<Found<'a>> {
        let found = self.paths.at(path).ok()?;
        Some(Found {
            route: found.value,
            params: found.params,
        })
    }
}

/// A route that has the path of a request.
pub(crate) struct Found<'a> {
    pub(crate) route: &'a Arc<Route>,
    params: Params<'a, 'a>,
}

impl Found<'_> {
    /// The parameters of the path, percent-decoded.
    pub(crate) fn params(&self) -> Box<[(Box<str>, Box<str>)]> {
        self.params
            .iter()
            .map(|(name, value)| (name.into(), percent_decode(value)))
            .collect()
    }
}

/// Decodes `%C3%A9` (RFC 3986 §2.1). What would not be text stays as it is.
fn percent_decode(text: &str) -> Box<str> {
    if !text.contains('%') {
        return text.into();
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let code = match (byte, tail.split_first_chunk::<2>()) {
            (b'%', Some((digits, tail))) => hexadecimal(*digits).map(|code| (code, tail)),
            _ => None,
        };
        let (byte, tail) = code.unwrap_or((byte, tail));
        decoded.push(byte);
        rest = tail;
    }
    String::from_utf8(decoded).map_or_else(|_| text.into(), Into::into)
}

fn hexadecimal(digits: [u8; 2]) -> Option<u8> {
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    u8::try_from(high? * 16 + low?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WebSocket;

    fn router(paths: &[&str]) -> Router {
        let mut router = Router::default();
        for path in paths {
            router.insert(path, Route::new(|_: WebSocket| async {}));
        }
        router
    }

    fn panic_of(paths: &'static [&'static str]) -> String {
        let panic = std::panic::catch_unwind(|| router(paths)).err().unwrap();
        panic.downcast_ref::<String>().unwrap().clone()
    }

    #[test]
    fn a_conflicting_route_panics_and_names_both() {
        let text = panic_of(&["/rooms/{room}", "/rooms/{id}"]);
        assert!(
            text.contains("`/rooms/{id}`") && text.contains("`/rooms/{room}`"),
            "{text}"
        );
        let text = panic_of(&["/echo", "/echo"]);
        assert_eq!(text.matches("`/echo`").count(), 2, "{text}");
    }

    #[test]
    fn a_malformed_route_panics_and_is_named() {
        assert!(panic_of(&["echo"]).contains("`echo`"));
        assert!(panic_of(&["/a/{"]).contains("`/a/{`"));
        assert!(panic_of(&["/{*rest}/x"]).contains("`/{*rest}/x`"));
    }

    #[test]
    fn parameters_are_percent_decoded_unless_they_would_not_be_text() {
        let router = router(&["/rooms/{room}/{*rest}"]);
        let found = router.find("/rooms/caf%C3%A9%20%2f/a/%ff/%4/%zz%").unwrap();
        let params = found.params();
        assert_eq!(&*params[0].0, "room");
        assert_eq!(&*params[0].1, "café /");
        assert_eq!(&*params[1].0, "rest");
        assert_eq!(&*params[1].1, "a/%ff/%4/%zz%");
        assert!(router.find("/rooms").is_none());
        assert!(router.find("").is_none());
    }

    #[test]
    fn no_percent_sign_can_harm() {
        for (text, decoded) in [
            ("%", "%"),
            ("%%", "%%"),
            ("%2", "%2"),
            ("%25", "%"),
            ("%2525", "%25"),
            ("%+1", "%+1"),
            ("a%c3", "a%c3"),
            ("%C3%A9", "é"),
        ] {
            assert_eq!(&*percent_decode(text), decoded);
        }
    }
}
