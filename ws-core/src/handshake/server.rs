//! The server's half of the opening handshake (RFC 6455 §4.2, RFC 8441 §5).
//!
//! A request becomes an [`Offer`] or a [`Rejection`]; an offer that is accepted becomes the
//! response and what was agreed on. Between the two lies the server's own decision: the route,
//! the origin, who the client is, the subprotocol.
//!
//! | condition | answer |
//! |---|---|
//! | method other than `GET` | 405, `Allow: GET` |
//! | not HTTP/1.1; no `Upgrade: websocket`; no `Connection: Upgrade` | 426, `Upgrade: websocket`, version |
//! | `Host` missing, twice, or not an authority | 400 |
//! | `Content-Length` above 0, or `Transfer-Encoding` | 400 |
//! | `Sec-WebSocket-Version` missing or not 13 | 426, version; over HTTP/2 400, version |
//! | `Sec-WebSocket-Version` twice | 400 |
//! | `Sec-WebSocket-Key` missing, twice, or not 24 characters that decode to 16 bytes | 400 |
//! | `Sec-WebSocket-Protocol` with something that is not a token | 400 |
//! | `Sec-WebSocket-Extensions` malformed | as if it were absent |
//! | no offer of an extension that is [required](Offer::negotiate) | 400 |
//! | else | an [`Offer`] |
//!
//! The first two rows are for a path that serves nothing else. Where there is something else to
//! answer with, ask [`is_upgrade`] first: RFC 9110 §7.8 lets a server ignore `Upgrade`.
//!
//! ```
//! use http::Request;
//! use ws_core::handshake::server::{Offer, Rejection};
//!
//! let (parts, ()) = Request::get("/chat")
//!     .header("Host", "server.example.com")
//!     .header("Upgrade", "websocket")
//!     .header("Connection", "keep-alive, Upgrade")
//!     .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
//!     .header("Sec-WebSocket-Protocol", "chat, superchat")
//!     .header("Sec-WebSocket-Version", "13")
//!     .body(())?
//!     .into_parts();
//!
//! let offer = Offer::from_request(&parts)?;
//! let chosen = offer.select_subprotocol(&["superchat", "chat"]);
//! let (response, accepted) = offer.accept(chosen)?;
//! assert_eq!(response.status(), 101);
//! assert_eq!(response.headers()["Sec-WebSocket-Accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
//! assert_eq!(accepted.subprotocol(), Some("superchat"));
//!
//! let (page, ()) = Request::get("/chat").body(())?.into_parts();
//! let refused: Rejection = Offer::from_request(&page).unwrap_err();
//! assert_eq!(refused.to_response().status(), 426);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod rejection;

use std::{error::Error, fmt};

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{GeneralPurpose, GeneralPurposeConfig},
};
use http::{
    HeaderMap, Method, Response, StatusCode, Version,
    header::{
        CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
    },
    request::Parts,
    uri::{Authority, Scheme},
};

pub use self::rejection::Rejection;
use super::{
    Accepted, Opening, Repeated, UPGRADE_OPTION, VERSION, WEBSOCKET, accept_key, announces_body,
    at_most_one,
    extensions::{self, Extension, Extensions},
    has_token, header_tokens, host_and_port, is_token, quote, visible,
};
use crate::Config;

/// Whether a request asks for a WebSocket by an HTTP/1.1 upgrade: `GET`, `websocket` among the
/// tokens of `Upgrade`, `upgrade` among those of `Connection`.
///
/// It says nothing about whether the request is in order; that is [`Offer::from_request`].
///
/// ```
/// use http::Request;
/// use ws_core::handshake::server::is_upgrade;
///
/// let request = Request::get("/chat")
///     .header("Upgrade", "websocket")
///     .header("Connection", "keep-alive, Upgrade")
///     .body(())?;
/// assert!(is_upgrade(request.method(), request.version(), request.headers()));
/// # Ok::<(), http::Error>(())
/// ```
pub fn is_upgrade(method: &Method, version: Version, headers: &HeaderMap) -> bool {
    check_upgrade(method, version, headers).is_ok()
}

/// A client's request for a WebSocket that is in order, and waits for the server's decision.
///
/// It is small and owns all it holds. Nothing is shared with the request: a header value is a
/// slice of the buffer the whole head was read into, and keeping one keeps that buffer, some
/// kilobytes, for as long. The price is one copy of the offered names.
#[derive(Clone, Debug)]
pub struct Offer {
    answer: Answer,
    /// The offered tokens, in their order, with commas between them.
    subprotocols: Box<str>,
    extensions: Box<[Extension]>,
    agreed: Extensions,
}

impl Offer {
    /// Reads an HTTP/1.1 request (RFC 6455 §4.2.1).
    ///
    /// # Errors
    ///
    /// The request is not an upgrade to a WebSocket, or not in order: see the table of the
    /// [module](self).
    pub fn from_request(parts: &Parts) -> Result<Self, Rejection> {
        let headers = &parts.headers;
        check_upgrade(&parts.method, parts.version, headers)?;
        if !has_host(headers)? {
            return Err(Rejection::HostMissing);
        }
        check_body(headers)?;
        check_version(headers, Opening::Upgrade)?;
        let accept = accept_key(check_key(headers)?);
        Self::new(Answer::Upgrade { accept }, headers)
    }

    /// Reads an extended CONNECT (RFC 8441 §5, RFC 9220). The caller has seen that its
    /// `:protocol` is `websocket`.
    ///
    /// There is no key, and no `Host`, `Upgrade` or `Connection`; the authority and the path are
    /// in the URI.
    ///
    /// # Errors
    ///
    /// The request is not in order: see the table of the [module](self). The URI must have a
    /// scheme, `http` or `https`, and an authority, for which a `Host` may stand in.
    pub fn from_extended_connect(parts: &Parts) -> Result<Self, Rejection> {
        let headers = &parts.headers;
        if parts.method != Method::CONNECT {
            return Err(Rejection::ConnectMalformed("its method is not CONNECT"));
        }
        if parts.version <= Version::HTTP_11 {
            return Err(Rejection::ConnectMalformed("it is not HTTP/2 or HTTP/3"));
        }
        // RFC 8441 §4: the request has a :scheme and a :path; §5: the scheme is http or https.
        // A `Uri` with a scheme has a path.
        let scheme = parts.uri.scheme();
        if !scheme.is_some_and(|scheme| [Scheme::HTTP, Scheme::HTTPS].contains(scheme)) {
            return Err(Rejection::ConnectMalformed(
                "its :scheme is not http or https",
            ));
        }
        match (has_host(headers)?, parts.uri.authority()) {
            (_, Some(authority)) if host_and_port(authority).is_none() => {
                return Err(Rejection::HostInvalid(quote(authority.as_str().as_bytes())));
            }
            (false, None) => return Err(Rejection::HostMissing),
            _ => {}
        }
        check_body(headers)?;
        check_version(headers, Opening::ExtendedConnect)?;
        Self::new(Answer::ExtendedConnect, headers)
    }

    fn new(answer: Answer, headers: &HeaderMap) -> Result<Self, Rejection> {
        let mut subprotocols = String::new();
        for name in header_tokens(headers, &SEC_WEBSOCKET_PROTOCOL) {
            let token = str::from_utf8(name).ok().filter(|_| is_token(name));
            let token = token.ok_or_else(|| Rejection::SubprotocolInvalid(quote(name)))?;
            if !subprotocols.is_empty() {
                subprotocols.push(',');
            }
            subprotocols.push_str(token);
        }
        Ok(Self {
            answer,
            subprotocols: subprotocols.into(),
            // A server may take no extension for any reason (RFC 6455 §9.1); a header that
            // cannot be read is one.
            extensions: extensions::parse(headers).unwrap_or_default().into(),
            agreed: Extensions::none(),
        })
    }

    /// The way the WebSocket is asked for.
    pub fn opening(&self) -> Opening {
        match self.answer {
            Answer::Upgrade { .. } => Opening::Upgrade,
            Answer::ExtendedConnect => Opening::ExtendedConnect,
        }
    }

    /// The subprotocols the client offers, in the order of its preference.
    pub fn subprotocols(&self) -> impl Iterator<Item = &str> {
        self.subprotocols
            .split(',')
            .filter(|offered| !offered.is_empty())
    }

    /// The extensions the client offers, in the order of its preference; none if the header was
    /// malformed.
    pub fn extensions(&self) -> &[Extension] {
        &self.extensions
    }

    /// The first of the server's subprotocols that the client offers, or `None`. Names are
    /// compared exactly, with their case.
    pub fn select_subprotocol(&self, preferences: &[impl AsRef<str>]) -> Option<&str> {
        preferences.iter().find_map(|preferred| {
            self.subprotocols()
                .find(|offered| *offered == preferred.as_ref())
        })
    }

    /// Like [`select_subprotocol`](Self::select_subprotocol), for a server that cannot speak
    /// without one.
    ///
    /// # Errors
    ///
    /// The client offers none of them: [`Rejection::SubprotocolRequired`].
    pub fn require_subprotocol(&self, preferences: &[impl AsRef<str>]) -> Result<&str, Rejection> {
        self.select_subprotocol(preferences).ok_or_else(|| {
            let supported: Vec<_> = preferences.iter().map(AsRef::as_ref).collect();
            Rejection::SubprotocolRequired {
                offered: quote(self.subprotocols.as_bytes()),
                supported: supported.join(", "),
            }
        })
    }

    /// Agrees on extensions: of each kind the settings ask for, the first offer that they can
    /// meet. Without this call there are none.
    ///
    /// # Errors
    ///
    /// The settings require an extension, and no offer of it can be met:
    /// [`Rejection::ExtensionRequired`].
    ///
    /// ```
    /// # #[cfg(feature = "deflate")] {
    /// use http::Request;
    /// use ws_core::{Config, Deflate, handshake::server::Offer};
    ///
    /// let (parts, ()) = Request::get("/chat")
    ///     .header("Host", "server.example.com")
    ///     .header("Upgrade", "websocket")
    ///     .header("Connection", "Upgrade")
    ///     .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
    ///     .header("Sec-WebSocket-Version", "13")
    ///     .header("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")
    ///     .body(())?
    ///     .into_parts();
    /// let config = Config::new().deflate(Deflate::new());
    ///
    /// let (response, accepted) = Offer::from_request(&parts)?.negotiate(&config)?.accept(None)?;
    /// assert_eq!(
    ///     response.headers()["Sec-WebSocket-Extensions"],
    ///     "permessage-deflate; client_no_context_takeover",
    /// );
    /// assert!(accepted.extensions().deflate().is_some());
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn negotiate(mut self, config: &Config) -> Result<Self, Rejection> {
        let agreed = Extensions::negotiate(&self.extensions, config);
        self.agreed = agreed.map_err(|missing| {
            let offered: Vec<_> = self.extensions.iter().map(Extension::to_string).collect();
            Rejection::ExtensionRequired {
                offered: quote(offered.join(", ").as_bytes()),
                required: missing.name(),
            }
        })?;
        Ok(self)
    }

    /// Accepts: the response to send, and what was agreed on.
    ///
    /// The response is complete, without a body: 101 for an upgrade (RFC 6455 §4.2.2), 200 for
    /// an extended CONNECT (RFC 8441 §5). More headers, cookies for instance, may be added.
    /// Without a subprotocol its header is absent.
    ///
    /// # Errors
    ///
    /// The client has not offered this subprotocol. An answer that names it would make the
    /// client fail the connection.
    pub fn accept(
        &self,
        subprotocol: Option<&str>,
    ) -> Result<(Response<()>, Accepted), SubprotocolNotOffered> {
        let mut response = Response::new(());
        let headers = response.headers_mut();
        if let Some(chosen) = subprotocol {
            if !self.subprotocols().any(|offered| offered == chosen) {
                return Err(SubprotocolNotOffered(chosen.to_owned()));
            }
            headers.insert(SEC_WEBSOCKET_PROTOCOL, visible(chosen.as_bytes()));
        }
        if let Some(value) = self.agreed.header_value() {
            headers.insert(SEC_WEBSOCKET_EXTENSIONS, value);
        }
        match &self.answer {
            Answer::Upgrade { accept } => {
                headers.insert(SEC_WEBSOCKET_ACCEPT, visible(accept));
                headers.insert(UPGRADE, WEBSOCKET);
                headers.insert(CONNECTION, UPGRADE_OPTION);
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            }
            Answer::ExtendedConnect => *response.version_mut() = Version::HTTP_2,
        }
        let accepted = Accepted {
            opening: self.opening(),
            subprotocol: subprotocol.map(Box::from),
            extensions: self.agreed.clone(),
        };
        Ok((response, accepted))
    }
}

/// The application chose a subprotocol that the client had not offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubprotocolNotOffered(String);

impl SubprotocolNotOffered {
    /// The name that was chosen.
    pub fn subprotocol(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SubprotocolNotOffered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the client has not offered the subprotocol `{}`, so it must not be chosen",
            self.0.escape_debug()
        )
    }
}

impl Error for SubprotocolNotOffered {}

/// What the response must contain beside the agreement.
#[derive(Clone, Debug)]
enum Answer {
    Upgrade { accept: [u8; 28] },
    ExtendedConnect,
}

/// RFC 6455 §4.2.2 only asks that the key decodes to 16 bytes. The four bits of the last
/// character that fall away are zero in what an encoder writes, but not in keys that some
/// clients make of 22 random characters.
const KEY: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

fn check_upgrade(method: &Method, version: Version, headers: &HeaderMap) -> Result<(), Rejection> {
    if *method != Method::GET {
        return Err(Rejection::MethodNotAllowed(method.clone()));
    }
    // RFC 9110 §7.8: "A server MUST ignore an Upgrade header field that is received in an
    // HTTP/1.0 request"; HTTP/2 has no upgrade.
    if version != Version::HTTP_11 {
        return Err(Rejection::HttpVersion(version));
    }
    if !has_token(headers, &UPGRADE, "websocket") {
        return Err(Rejection::UpgradeMissing);
    }
    if !has_token(headers, &CONNECTION, "upgrade") {
        return Err(Rejection::ConnectionMissing);
    }
    Ok(())
}

/// Whether there is a `Host`. RFC 9112 §3.2: a server refuses "any request message that contains
/// more than one Host header field line or a Host header field with an invalid field value."
fn has_host(headers: &HeaderMap) -> Result<bool, Rejection> {
    let host = at_most_one(headers, &HOST).map_err(|Repeated| Rejection::HostRepeated)?;
    let Some(host) = host else { return Ok(false) };
    match Authority::try_from(host) {
        Ok(authority) if host_and_port(&authority).is_some() => Ok(true),
        _ => Err(Rejection::HostInvalid(quote(host))),
    }
}

fn check_body(headers: &HeaderMap) -> Result<(), Rejection> {
    if announces_body(headers) {
        return Err(Rejection::BodyNotAllowed);
    }
    Ok(())
}

fn check_version(headers: &HeaderMap, opening: Opening) -> Result<(), Rejection> {
    let version = at_most_one(headers, &SEC_WEBSOCKET_VERSION)
        .map_err(|Repeated| Rejection::VersionRepeated)?;
    if version == Some(VERSION.as_bytes()) {
        return Ok(());
    }
    let version = version.map(quote);
    Err(Rejection::VersionUnsupported { version, opening })
}

fn check_key(headers: &HeaderMap) -> Result<&[u8], Rejection> {
    let key =
        at_most_one(headers, &SEC_WEBSOCKET_KEY).map_err(|Repeated| Rejection::KeyRepeated)?;
    let key = key.ok_or(Rejection::KeyMissing)?;
    // The decoder wants room for its estimate, which counts the padding in.
    let mut nonce = [0; 18];
    if key.len() == 24 && matches!(KEY.decode_slice(key, &mut nonce), Ok(16)) {
        return Ok(key);
    }
    Err(Rejection::KeyInvalid(quote(key)))
}

#[cfg(test)]
mod tests;
