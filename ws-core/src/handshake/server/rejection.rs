//! Why a server refuses a WebSocket, and how it says so.

use std::{error::Error, fmt};

use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode, Version,
    header::{
        ALLOW, CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_VERSION, UPGRADE, X_CONTENT_TYPE_OPTIONS,
    },
};

use crate::handshake::{Opening, UPGRADE_OPTION, VERSION, VERSION_13, WEBSOCKET, quote};

/// Why a server refuses a WebSocket. It knows its status and headers, and its `Display` is a
/// text for the person who has to mend it: what happened, why, what to do.
///
/// A handshake that is not in order gives those down to [`SubprotocolInvalid`]; the others are
/// decisions of whoever accepts, and are made there. What a request contained is kept escaped
/// and short.
///
/// [`SubprotocolInvalid`]: Self::SubprotocolInvalid
///
/// ```
/// use ws_core::handshake::server::Rejection;
///
/// let refused = Rejection::OriginNotAllowed {
///     origin: "https://app.example".into(),
///     authority: "127.0.0.1:9000".into(),
///     setting: "WebSocketLayer::origins",
/// };
/// let response = refused.to_response();
/// assert_eq!(response.status(), 403);
/// assert!(response.body().contains("https://app.example"));
/// assert_eq!(response.extensions().get::<Rejection>(), Some(&refused));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// 405: the method is not `GET` (RFC 6455 §4.1).
    MethodNotAllowed(Method),
    /// 426, or 400 where HTTP has no upgrade: a version other than HTTP/1.1 (RFC 6455 §4.1).
    HttpVersion(Version),
    /// 426: `Upgrade` does not list `websocket` (RFC 6455 §4.2.1).
    UpgradeMissing,
    /// 426: `Connection` does not list `upgrade` (RFC 6455 §4.2.1).
    ConnectionMissing,
    /// 400: an extended CONNECT that lacks something; the text says what (RFC 8441 §4).
    ConnectMalformed(&'static str),
    /// 400: no `Host` (RFC 9112 §3.2), or on HTTP/2 no authority.
    HostMissing,
    /// 400: more than one `Host` (RFC 9112 §3.2).
    HostRepeated,
    /// 400: the `Host` is not a host with perhaps a port (RFC 9112 §3.2).
    HostInvalid(String),
    /// 400: the request announces a body, which could be taken for frames.
    BodyNotAllowed,
    /// 426, over HTTP/2 400: the version of the protocol is missing or not 13 (RFC 6455 §4.4).
    VersionUnsupported {
        /// What the client speaks, if it says so.
        version: Option<String>,
        /// HTTP/2 knows no 426, because it knows no `Upgrade` (RFC 9113 §8.2.2).
        opening: Opening,
    },
    /// 400: more than one `Sec-WebSocket-Version` (RFC 6455 §11.3.5).
    VersionRepeated,
    /// 400: no `Sec-WebSocket-Key` (RFC 6455 §4.2.1).
    KeyMissing,
    /// 400: more than one `Sec-WebSocket-Key` (RFC 6455 §11.3.1).
    KeyRepeated,
    /// 400: the key is not 24 characters that decode to 16 bytes (RFC 6455 §4.2.1).
    KeyInvalid(String),
    /// 400: `Sec-WebSocket-Protocol` offers something that is not a token (RFC 6455 §11.3.4).
    SubprotocolInvalid(String),
    /// 400: the server requires a subprotocol, and the client offers none of its own.
    SubprotocolRequired {
        /// What the client offers, with commas between; empty for nothing.
        offered: String,
        /// What the server speaks, with commas between.
        supported: String,
    },
    /// 400: the server requires an extension, and the client offers none of that name which the
    /// server can meet (RFC 7692 §7.1). Not 426: the protocol asked for
    /// is the right one.
    ExtensionRequired {
        /// What the client offers, as it travels; empty for nothing that can be read.
        offered: String,
        /// The name of the extension.
        required: &'static str,
    },
    /// 403: the page that opens the WebSocket is of an origin that may not (RFC 6455 §10.2).
    OriginNotAllowed {
        /// The `Origin` of the request.
        origin: String,
        /// The authority the request was sent to.
        authority: String,
        /// The name of the setting that decides, for the text.
        setting: &'static str,
    },
    /// 503: the server is shutting down.
    Draining,
    /// 500: the HTTP server does not hand over its connections.
    UpgradeUnavailable,
}

impl Rejection {
    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            // RFC 9110 §15.5.22: a 426 needs an `Upgrade`, and HTTP/2 must not have one.
            Self::HttpVersion(version) if *version <= Version::HTTP_11 => {
                StatusCode::UPGRADE_REQUIRED
            }
            Self::UpgradeMissing
            | Self::ConnectionMissing
            | Self::VersionUnsupported {
                opening: Opening::Upgrade,
                ..
            } => StatusCode::UPGRADE_REQUIRED,
            Self::HttpVersion(_)
            | Self::VersionUnsupported { .. }
            | Self::ConnectMalformed(_)
            | Self::HostMissing
            | Self::HostRepeated
            | Self::HostInvalid(_)
            | Self::BodyNotAllowed
            | Self::VersionRepeated
            | Self::KeyMissing
            | Self::KeyRepeated
            | Self::KeyInvalid(_)
            | Self::SubprotocolInvalid(_)
            | Self::SubprotocolRequired { .. }
            | Self::ExtensionRequired { .. } => StatusCode::BAD_REQUEST,
            Self::OriginNotAllowed { .. } => StatusCode::FORBIDDEN,
            Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpgradeUnavailable => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The headers that belong to this refusal: `Allow` with a 405; `Upgrade`, `Connection` and
    /// `Sec-WebSocket-Version` with a 426.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        match self.status() {
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(ALLOW, HeaderValue::from_static("GET"));
            }
            StatusCode::UPGRADE_REQUIRED => {
                headers.insert(UPGRADE, WEBSOCKET);
                // RFC 9110 §7.8: "A sender of Upgrade MUST also send an "Upgrade" connection
                // option".
                headers.insert(CONNECTION, UPGRADE_OPTION);
                headers.insert(SEC_WEBSOCKET_VERSION, VERSION_13);
            }
            _ if matches!(self, Self::VersionUnsupported { .. }) => {
                headers.insert(SEC_WEBSOCKET_VERSION, VERSION_13);
            }
            _ => {}
        }
        headers
    }

    /// The response with this text as its body. It carries the rejection in its extensions, for
    /// layers further out.
    pub fn to_response(&self) -> Response<String> {
        let mut response = self.clone().into_response::<String>();
        *response.body_mut() = format!("{self}\n");
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        // The text repeats parts of the request: nobody shall take it for a page.
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }

    /// The response with an empty body, for those who know no other of their body's type. It
    /// carries the rejection in its extensions.
    pub fn into_response<B: Default>(self) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = self.status();
        *response.headers_mut() = self.headers();
        response.extensions_mut().insert(self);
        response
    }
}

impl fmt::Display for Rejection {
    #[expect(clippy::too_many_lines, reason = "one text for each variant")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MethodNotAllowed(method) => write!(
                f,
                "this is a websocket: it is opened with GET, not with {method}"
            ),
            Self::HttpVersion(version) if *version > Version::HTTP_11 => write!(
                f,
                "this is a websocket: over {version:?} it is opened with an extended CONNECT \
                 (RFC 8441), else with an upgrade over HTTP/1.1"
            ),
            Self::HttpVersion(version) => write!(
                f,
                "this is a websocket: it is opened over HTTP/1.1, not over {version:?}; a reverse \
                 proxy has to be told so (nginx: `proxy_http_version 1.1;`)"
            ),
            Self::UpgradeMissing => f.write_str(
                "this is a websocket, but the request has no `Upgrade: websocket`; if the client \
                 sent it, a reverse proxy has dropped it (nginx: `proxy_set_header Upgrade \
                 $http_upgrade;`)",
            ),
            Self::ConnectionMissing => f.write_str(
                "this is a websocket, but the request has no `Connection: Upgrade`; if the \
                 client sent it, a reverse proxy has dropped it (nginx: `proxy_set_header \
                 Connection \"upgrade\";`)",
            ),
            Self::ConnectMalformed(what) => {
                write!(f, "the request is not an extended CONNECT: {what}")
            }
            Self::HostMissing => f.write_str("the request has no host (RFC 9112, section 3.2)"),
            Self::HostRepeated => {
                f.write_str("the request has more than one host (RFC 9112, section 3.2)")
            }
            Self::HostInvalid(host) => write!(
                f,
                "the host `{host}` of the request is not a host and perhaps a port (RFC 9112, \
                 section 3.2)"
            ),
            Self::BodyNotAllowed => f.write_str(
                "the request announces a body, by content-length or transfer-encoding; a \
                 websocket handshake has none",
            ),
            Self::VersionUnsupported { version, .. } => {
                match version {
                    Some(version) => write!(f, "sec-websocket-version is `{version}`")?,
                    None => f.write_str("the request has no sec-websocket-version")?,
                }
                write!(f, "; this server speaks {VERSION}, that of RFC 6455")
            }
            Self::VersionRepeated => f.write_str(
                "the request has more than one sec-websocket-version (RFC 6455, section 11.3.5)",
            ),
            Self::KeyMissing => f.write_str(
                "the request has no sec-websocket-key (RFC 6455, section 4.1); a client makes a \
                 new one for each handshake",
            ),
            Self::KeyRepeated => f.write_str(
                "the request has more than one sec-websocket-key (RFC 6455, section 11.3.1)",
            ),
            Self::KeyInvalid(key) => write!(
                f,
                "the sec-websocket-key `{key}` is not 24 characters of base64 that decode to 16 \
                 bytes (RFC 6455, section 4.1)"
            ),
            Self::SubprotocolInvalid(name) => write!(
                f,
                "sec-websocket-protocol offers `{name}`, which is not a token: letters, digits \
                 and !#$%&'*+-.^_`|~ (RFC 6455, section 4.1)"
            ),
            Self::SubprotocolRequired { offered, supported } => {
                let offered = if offered.is_empty() { "none" } else { offered };
                write!(
                    f,
                    "this websocket needs one of the subprotocols {supported}; the client offers \
                     {offered}"
                )
            }
            Self::ExtensionRequired { offered, required } => {
                let offered = if offered.is_empty() { "none" } else { offered };
                write!(
                    f,
                    "this websocket needs the extension {required}, in a form that this server \
                     can meet; the client offers {offered}"
                )
            }
            Self::OriginNotAllowed {
                origin,
                authority,
                setting,
            } => {
                let (origin, authority) = (quote(origin.as_bytes()), quote(authority.as_bytes()));
                write!(
                    f,
                    "a page of the origin `{origin}` may not open a websocket here: the request was \
                 sent to `{authority}`, which is another origin. If the page is yours, allow its \
                 origin in `{setting}`. If `{authority}` is not the address in the browser, a \
                 reverse proxy has replaced the host: nginx does, unless it is told \
                 `proxy_set_header Host $http_host;`"
                )
            }
            Self::Draining => {
                f.write_str("the server is shutting down and opens no more websockets; try again")
            }
            Self::UpgradeUnavailable => f.write_str(
                "the http server does not hand over the connection; it must serve with upgrades \
                 (hyper: `serve_connection_with_upgrades`, or `with_upgrades` on the connection), \
                 and nothing in between may drop the request's extensions",
            ),
        }
    }
}

impl Error for Rejection {}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<(Rejection, u16)> {
        let text = String::from;
        let version = |opening| Rejection::VersionUnsupported {
            version: Some("8".into()),
            opening,
        };
        vec![
            (Rejection::MethodNotAllowed(Method::POST), 405),
            (Rejection::HttpVersion(Version::HTTP_10), 426),
            (Rejection::HttpVersion(Version::HTTP_2), 400),
            (Rejection::UpgradeMissing, 426),
            (Rejection::ConnectionMissing, 426),
            (
                Rejection::ConnectMalformed("its method is not CONNECT"),
                400,
            ),
            (Rejection::HostMissing, 400),
            (Rejection::HostRepeated, 400),
            (Rejection::HostInvalid(text("a b")), 400),
            (Rejection::BodyNotAllowed, 400),
            (version(Opening::Upgrade), 426),
            (version(Opening::ExtendedConnect), 400),
            (Rejection::VersionRepeated, 400),
            (Rejection::KeyMissing, 400),
            (Rejection::KeyRepeated, 400),
            (Rejection::KeyInvalid(text("x")), 400),
            (Rejection::SubprotocolInvalid(text("a b")), 400),
            (
                Rejection::SubprotocolRequired {
                    offered: text(""),
                    supported: text("chat.v2"),
                },
                400,
            ),
            (
                Rejection::ExtensionRequired {
                    offered: text("permessage-bzip2"),
                    required: "permessage-deflate",
                },
                400,
            ),
            (
                Rejection::OriginNotAllowed {
                    origin: text("https://evil.example"),
                    authority: text("chat.example"),
                    setting: "WebSocketLayer::origins",
                },
                403,
            ),
            (Rejection::Draining, 503),
            (Rejection::UpgradeUnavailable, 500),
        ]
    }

    #[test]
    fn every_rejection_has_its_status_its_headers_and_one_line_of_text() {
        for (rejection, status) in all() {
            let response = rejection.to_response();
            assert_eq!(response.status(), status, "{rejection:?}");
            let header = |name| response.headers().get(name).map(HeaderValue::as_bytes);
            let when =
                |status: u16, value: &'static [u8]| (response.status() == status).then_some(value);
            assert_eq!(header(ALLOW), when(405, b"GET"));
            assert_eq!(header(UPGRADE), when(426, b"websocket"));
            assert_eq!(header(CONNECTION), when(426, b"Upgrade"));
            let speaks = matches!(rejection, Rejection::VersionUnsupported { .. });
            let version = speaks.then_some(b"13".as_slice()).or(when(426, b"13"));
            assert_eq!(header(SEC_WEBSOCKET_VERSION), version);

            let text = response.body();
            assert!(text.ends_with('\n') && text.lines().count() == 1, "{text}");
            assert!(!text.contains("  "), "{text}");
            assert_eq!(response.extensions().get(), Some(&rejection));
            assert!(rejection.into_response::<Vec<u8>>().body().is_empty());
        }
    }

    #[test]
    fn a_refused_origin_is_told_both_sides_and_the_setting() {
        let (rejection, _) = all().into_iter().find(|(_, code)| *code == 403).unwrap();
        let text = rejection.to_string();
        for part in [
            "https://evil.example",
            "chat.example",
            "WebSocketLayer::origins",
            "proxy_set_header Host",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
