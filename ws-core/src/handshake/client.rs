//! The client's half of the opening handshake (RFC 6455 §4.1, RFC 8441 §5).
//!
//! A [`Handshake`] is made from a URI; it gives the request to send, and checks the response
//! against it. What the response must be:
//!
//! | | HTTP/1.1 | HTTP/2, HTTP/3 |
//! |---|---|---|
//! | status | 101 | 2xx |
//! | `Upgrade` | `websocket`, nothing else | |
//! | `Connection` | lists `upgrade` | |
//! | `Sec-WebSocket-Accept` | once, and the answer to our key, to the letter | |
//! | `Sec-WebSocket-Protocol` | absent, or once and one of ours, to the letter | the same |
//! | `Sec-WebSocket-Extensions` | only what we offered, as RFC 7692 §7.1 allows | the same |
//! | `Content-Length` above 0, `Transfer-Encoding` | never | the same |
//!
//! Anything else is a [`Refusal`], which has the response's status and headers. No redirect is
//! followed: the caller sees the 3xx and decides what of its credentials may go along.
//!
//! ```
//! use http::{Response, header::AUTHORIZATION};
//! use ws_core::handshake::client::Handshake;
//!
//! let handshake = Handshake::new(&"wss://chat.example/rooms?id=7".parse()?)?
//!     .subprotocol("chat.v2")?
//!     .header(AUTHORIZATION, "Bearer 3vJx".parse()?)?;
//! assert_eq!((handshake.host(), handshake.port()), ("chat.example", 443));
//!
//! let request = handshake.request();
//! assert_eq!(request.uri(), "/rooms?id=7");
//! assert_eq!(request.headers()["Host"], "chat.example");
//!
//! let response = Response::builder().status(401).body(())?;
//! let refusal = handshake.finish(&response).unwrap_err().with_body(b"who are you?");
//! assert_eq!(refusal.status(), 401);
//! assert!(refusal.to_string().contains("who are you?"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod refusal;

use std::{error::Error, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, EXPECT, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
        SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TE, TRAILER,
        TRANSFER_ENCODING, UPGRADE,
    },
    uri::{Authority, PathAndQuery, Scheme},
};

pub use self::refusal::{Refusal, RefusalReason};
use super::{
    Accepted, Opening, Repeated, UPGRADE_OPTION, VERSION_13, WEBSOCKET, accept_key, announces_body,
    at_most_one, conceal,
    extensions::{self, Extensions, Offered},
    has_token, header_tokens, host_and_port, is_token, quote, visible,
};
use crate::Config;

/// A client's handshake: the request, and what its response is checked against.
///
/// It is good for one attempt: RFC 6455 §4.1 asks for a new key each time.
#[derive(Clone, Debug)]
pub struct Handshake {
    /// `http` or `https`, the authority without the default port, path and query.
    uri: Uri,
    authority: Authority,
    path: PathAndQuery,
    port: u16,
    key: String,
    subprotocols: Vec<Box<str>>,
    extensions: Offered,
    headers: HeaderMap,
}

impl Handshake {
    /// A handshake for a URI (RFC 6455 §3) of the scheme `ws`, `wss`, `http` or `https`; the
    /// latter two mean the same as the first. The key is 16 bytes of the operating system's
    /// randomness.
    ///
    /// Without a port it is 80, or 443 with TLS. A fragment has no meaning here, and [`Uri`] has
    /// dropped it already.
    ///
    /// # Errors
    ///
    /// Another scheme or none, no host, a port that is none, a user name or password (they would
    /// end up in logs: send an `Authorization` header), or no randomness.
    pub fn new(uri: &Uri) -> Result<Self, RequestError> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|_| RequestError::RandomUnavailable)?;
        Self::with_nonce(uri, nonce)
    }

    /// Like [`new`](Self::new), with a given nonce, so that tests can know the whole request.
    /// Elsewhere it must be random and new (RFC 6455 §4.1), or a cache in between may answer.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new) that concern the URI.
    ///
    /// ```
    /// use ws_core::handshake::client::Handshake;
    ///
    /// let handshake = Handshake::with_nonce(&"ws://a.example".parse()?, *b"the sample nonce")?;
    /// let request = handshake.request();
    /// assert_eq!(request.headers()["Sec-WebSocket-Key"], "dGhlIHNhbXBsZSBub25jZQ==");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_nonce(uri: &Uri, nonce: [u8; 16]) -> Result<Self, RequestError> {
        let (scheme, default_port) = match uri.scheme_str().map(str::to_ascii_lowercase).as_deref()
        {
            Some("ws" | "http") => (Scheme::HTTP, 80),
            Some("wss" | "https") => (Scheme::HTTPS, 443),
            other => return Err(RequestError::Scheme(other.map(str::to_owned))),
        };
        let given = uri.authority().ok_or(RequestError::Authority)?;
        if given.as_str().contains('@') {
            return Err(RequestError::UserInfo);
        }
        let (host, port) = host_and_port(given).ok_or(RequestError::Authority)?;
        // RFC 6455 §4.1: `Host` has the port only if it is not the default one.
        let authority = match port {
            Some(port) if port != default_port => format!("{host}:{port}"),
            _ => host.to_owned(),
        };
        let authority = Authority::try_from(authority).map_err(|_| RequestError::Authority)?;
        // A path may be empty in a URI, but not in a request.
        let path = match uri.path_and_query().map_or("/", PathAndQuery::as_str) {
            path if path.starts_with('/') => PathAndQuery::try_from(path),
            path => PathAndQuery::try_from(format!("/{path}")),
        };
        let path = path.map_err(|_| RequestError::Path)?;
        let mut absolute = http::uri::Parts::default();
        absolute.scheme = Some(scheme);
        absolute.authority = Some(authority.clone());
        absolute.path_and_query = Some(path.clone());
        Ok(Self {
            uri: Uri::from_parts(absolute).map_err(|_| RequestError::Path)?,
            authority,
            path,
            port: port.unwrap_or(default_port),
            key: STANDARD.encode(nonce),
            subprotocols: Vec::new(),
            extensions: Offered::none(),
            headers: HeaderMap::new(),
        })
    }

    /// Offers a subprotocol, after those that are offered already: the order is that of
    /// preference. Default: none.
    ///
    /// # Errors
    ///
    /// It is not a token, or it is offered already (RFC 6455 §4.1).
    pub fn subprotocol(mut self, name: &str) -> Result<Self, RequestError> {
        if !is_token(name.as_bytes()) || self.subprotocols.iter().any(|other| **other == *name) {
            return Err(RequestError::Subprotocol(name.to_owned()));
        }
        self.subprotocols.push(name.into());
        Ok(self)
    }

    /// Offers the extensions that the settings ask for, in place of those offered before.
    /// Default: none.
    ///
    /// ```
    /// # #[cfg(feature = "deflate")] {
    /// use ws_core::{Config, Deflate, handshake::client::Handshake};
    ///
    /// let config = Config::new().deflate(Deflate::new());
    /// let handshake = Handshake::new(&"ws://a.example".parse()?)?.negotiate(&config);
    /// let request = handshake.request();
    /// assert_eq!(
    ///     request.headers()["Sec-WebSocket-Extensions"],
    ///     "permessage-deflate; client_max_window_bits",
    /// );
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn negotiate(mut self, config: &Config) -> Self {
        self.extensions = Offered::new(config);
        self
    }

    /// Adds a header to the request, beside others of the same name. `Origin` is not sent unless
    /// it is added: it is the browsers'.
    ///
    /// # Errors
    ///
    /// The header belongs to the handshake (`Host`, `Connection`, `Upgrade`, `Sec-WebSocket-*`)
    /// or to a body, which there is none.
    pub fn header(
        mut self,
        name: HeaderName,
        mut value: HeaderValue,
    ) -> Result<Self, RequestError> {
        if is_reserved(&name) {
            return Err(RequestError::ReservedHeader(name));
        }
        conceal(&name, &mut value);
        self.headers.append(name, value);
        Ok(self)
    }

    /// The host to connect to: a name or an address, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        let host = self.authority.host();
        let address = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        address.unwrap_or(host)
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The scheme of the connection: [`Scheme::HTTPS`] means TLS.
    pub fn scheme(&self) -> &Scheme {
        // There is always one; without TLS would be the wrong guess.
        self.uri.scheme().unwrap_or(&Scheme::HTTPS)
    }

    /// The request over HTTP/1.1 (RFC 6455 §4.1), its URI in origin form.
    pub fn request(&self) -> Request<()> {
        let mut request = self.common();
        *request.uri_mut() = Uri::from(self.path.clone());
        let headers = request.headers_mut();
        headers.insert(HOST, visible(self.authority.as_str().as_bytes()));
        headers.insert(UPGRADE, WEBSOCKET);
        headers.insert(CONNECTION, UPGRADE_OPTION);
        headers.insert(SEC_WEBSOCKET_KEY, visible(self.key.as_bytes()));
        request
    }

    /// The request over HTTP/2 or HTTP/3 (RFC 8441 §5), its URI in absolute form. `:protocol`
    /// has no place in these types: the caller adds it, hyper for instance as an extension of
    /// the request.
    pub fn extended_connect_request(&self) -> Request<()> {
        let mut request = self.common();
        *request.method_mut() = Method::CONNECT;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = self.uri.clone();
        request
    }

    /// Checks the response; its [version](Response::version) says for which of the two requests.
    ///
    /// # Errors
    ///
    /// The server did not accept, or not in order: see the table of the [module](self). The
    /// caller may add the start of the body to the [`Refusal`].
    pub fn finish<B>(&self, response: &Response<B>) -> Result<Accepted, Refusal> {
        self.check(response.status(), response.version(), response.headers())
            .map_err(|reason| Refusal::new(reason, response.status(), response.headers().clone()))
    }

    /// What both requests have.
    fn common(&self) -> Request<()> {
        let mut request = Request::new(());
        let headers = request.headers_mut();
        headers.clone_from(&self.headers);
        headers.insert(SEC_WEBSOCKET_VERSION, VERSION_13);
        if !self.subprotocols.is_empty() {
            let list = self.subprotocols.join(", ");
            headers.insert(SEC_WEBSOCKET_PROTOCOL, visible(list.as_bytes()));
        }
        if let Some(value) = self.extensions.header_value() {
            headers.insert(SEC_WEBSOCKET_EXTENSIONS, value);
        }
        request
    }

    fn check(
        &self,
        status: StatusCode,
        version: Version,
        headers: &HeaderMap,
    ) -> Result<Accepted, RefusalReason> {
        let opening = if version > Version::HTTP_11 {
            if !status.is_success() {
                return Err(RefusalReason::Status);
            }
            Opening::ExtendedConnect
        } else {
            self.check_upgrade(status, version, headers)?;
            Opening::Upgrade
        };
        if announces_body(headers) {
            return Err(RefusalReason::BodyAnnounced);
        }
        let extensions = extensions::parse(headers)
            .map_err(RefusalReason::ExtensionsMalformed)
            .and_then(|answered| {
                Extensions::confirm(&self.extensions, &answered).map_err(RefusalReason::Extensions)
            })?;
        Ok(Accepted {
            opening,
            subprotocol: self.check_subprotocol(headers)?,
            extensions,
        })
    }

    /// RFC 6455 §4.1, the response's steps 1 to 4.
    fn check_upgrade(
        &self,
        status: StatusCode,
        version: Version,
        headers: &HeaderMap,
    ) -> Result<(), RefusalReason> {
        if status != StatusCode::SWITCHING_PROTOCOLS {
            return Err(RefusalReason::Status);
        }
        if version != Version::HTTP_11 {
            return Err(RefusalReason::HttpVersion(version));
        }
        // A request with one protocol in `Upgrade` can only be answered with that one.
        let mut protocols = header_tokens(headers, &UPGRADE);
        let first = protocols.next().unwrap_or_default();
        if !first.eq_ignore_ascii_case(b"websocket") || protocols.next().is_some() {
            return Err(RefusalReason::Upgrade);
        }
        if !has_token(headers, &CONNECTION, "upgrade") {
            return Err(RefusalReason::Connection);
        }
        match at_most_one(headers, &SEC_WEBSOCKET_ACCEPT) {
            Ok(Some(accept)) if accept == accept_key(self.key.as_bytes()) => Ok(()),
            Ok(Some(_)) => Err(RefusalReason::AcceptWrong),
            Ok(None) => Err(RefusalReason::AcceptMissing),
            Err(Repeated) => Err(RefusalReason::AcceptRepeated),
        }
    }

    /// RFC 6455 §4.1, the response's step 6.
    fn check_subprotocol(&self, headers: &HeaderMap) -> Result<Option<Box<str>>, RefusalReason> {
        let chosen = at_most_one(headers, &SEC_WEBSOCKET_PROTOCOL)
            .map_err(|Repeated| RefusalReason::SubprotocolRepeated)?;
        let Some(chosen) = chosen else {
            return Ok(None);
        };
        let mut offered = self.subprotocols.iter();
        match offered.find(|offered| offered.as_bytes() == chosen) {
            Some(offered) => Ok(Some(offered.clone())),
            None => Err(RefusalReason::SubprotocolNotOffered(quote(chosen))),
        }
    }
}

/// A handshake that cannot be made: what the caller asked for is no WebSocket request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError {
    /// The scheme is none of `ws`, `wss`, `http` and `https`; `None` if there is none.
    Scheme(Option<String>),
    /// The URI has no host, or its port is not a number up to 65535.
    Authority,
    /// The URI has a user name or a password. They are not repeated here.
    UserInfo,
    /// The URI's path cannot stand in a request.
    Path,
    /// The subprotocol is not a token, or was offered before.
    Subprotocol(String),
    /// The header is the handshake's own.
    ReservedHeader(HeaderName),
    /// The operating system gave no random bytes for the key.
    RandomUnavailable,
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme(Some(scheme)) => {
                write!(
                    f,
                    "the uri's scheme is `{scheme}`, not ws, wss, http or https"
                )
            }
            Self::Scheme(None) => f.write_str("the uri has no scheme: ws:// or wss://"),
            Self::Authority => f.write_str("the uri has no valid host and port"),
            Self::UserInfo => f.write_str(
                "the uri has a user name or password; send an authorization header instead",
            ),
            Self::Path => f.write_str("the uri's path cannot stand in a request"),
            Self::Subprotocol(name) => write!(
                f,
                "the subprotocol `{}` is not a token, or is offered twice (RFC 6455, section 4.1)",
                name.escape_debug()
            ),
            Self::ReservedHeader(name) => {
                write!(f, "the header {name} is set by the handshake itself")
            }
            Self::RandomUnavailable => {
                f.write_str("the operating system gave no random bytes for the key")
            }
        }
    }
}

impl Error for RequestError {}

/// Whether a header is the handshake's own, or would announce something that does not come.
fn is_reserved(name: &HeaderName) -> bool {
    let reserved = [
        HOST,
        CONNECTION,
        UPGRADE,
        CONTENT_LENGTH,
        TRANSFER_ENCODING,
        TE,
        TRAILER,
        EXPECT,
    ];
    reserved.contains(name)
        || name.as_str().starts_with("sec-websocket-")
        || ["keep-alive", "proxy-connection", "http2-settings"].contains(&name.as_str())
}

#[cfg(test)]
mod tests;
