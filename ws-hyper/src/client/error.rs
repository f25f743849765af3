//! Why there is no WebSocket.

use std::{convert::Infallible, error::Error, fmt, io, time::Duration};

use http::{StatusCode, Uri};
use ws_tower::{
    BoxError,
    ws_core::handshake::client::{Refusal, RefusalReason, RequestError},
};

use super::{address::AddressError, proxy::ProxyError};

/// Why a client has no WebSocket, sorted by who has to do something about it.
///
/// | variant | at fault |
/// |---|---|
/// | [`Address`](Self::Address), [`Setting`](Self::Setting), [`Request`](Self::Request) | the caller |
/// | [`Connect`](Self::Connect), [`Timeout`](Self::Timeout) | the network, or a server that is down |
/// | [`Proxy`](Self::Proxy) | the proxy, or its address and credentials; with the status of an HTTP proxy |
/// | [`Tls`](Self::Tls) | a certificate, the server's or this client's, or what this client trusts |
/// | [`Http`](Self::Http) | the server: it gave no answer that can be read |
/// | [`Refused`](Self::Refused), [`Redirect`](Self::Redirect) | the server's decision, with its status, headers and words |
///
/// Nothing is left behind in any of these cases: the connection is closed.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address is none.
    Address(AddressError),
    /// The name could not be resolved, or no address of it answers.
    Connect {
        /// The host and port.
        to: String,
        /// What the system said.
        source: BoxError,
    },
    /// The server's answer is not HTTP, or too long, or it ended the connection instead.
    Http(HttpError),
    /// The proxy did not connect us.
    Proxy(ProxyError),
    /// The server redirects where this client does not go.
    Redirect(RedirectError),
    /// The server answered, and not with a WebSocket that is in order.
    Refused(Refusal),
    /// The settings do not make a request.
    Request(RequestError),
    /// A setting of the [`Connector`](super::Connector) cannot be used. The text names it.
    Setting(String),
    /// The deadline of the whole attempt has passed.
    Timeout {
        /// What was under way.
        during: Step,
        /// How long the attempt was allowed to take.
        after: Duration,
    },
    /// TLS came to no connection.
    Tls(TlsError),
}

impl ConnectError {
    /// What the server refused with, if it did.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::Redirect(error) => Some(&error.refusal),
            _ => None,
        }
    }

    /// Whether trying again with the same settings would not help: what a
    /// [`Reconnecting`](super::Reconnecting) goes by, unless told otherwise.
    ///
    /// | failure | final |
    /// |---|---|
    /// | the address or a setting cannot be used | yes |
    /// | either certificate is not trusted, or there is no TLS | yes |
    /// | the proxy wants other credentials (407) | yes |
    /// | 4xx, but for 408 (timeout), 425 (too early) and 429 (too many requests) | yes |
    /// | 3xx that is not followed, and redirects that lead nowhere | yes |
    /// | an acceptance that is not in order, such as an extension nobody asked for | yes |
    /// | 5xx and all other answers | no |
    /// | the network, the proxy otherwise, the deadline, an answer that cannot be read | no |
    pub fn is_final(&self) -> bool {
        match self {
            Self::Address(_) | Self::Redirect(_) | Self::Request(_) | Self::Setting(_) => true,
            Self::Tls(error) => error.kind() != TlsErrorKind::Handshake,
            Self::Refused(refusal) => {
                let status = refusal.status();
                let passes = [
                    StatusCode::REQUEST_TIMEOUT,
                    StatusCode::TOO_EARLY,
                    StatusCode::TOO_MANY_REQUESTS,
                ];
                // 101, or over HTTP/2 any 2xx.
                let is_acceptance = *refusal.reason() != RefusalReason::Status;
                is_acceptance
                    || status.is_redirection()
                    || status.is_client_error() && !passes.contains(&status)
            }
            Self::Proxy(error) => error.is_final(),
            Self::Connect { .. } | Self::Http(_) | Self::Timeout { .. } => false,
        }
    }

    pub(super) fn connect(to: impl fmt::Display, source: impl Into<BoxError>) -> Self {
        let (to, source) = (to.to_string(), source.into());
        Self::Connect { to, source }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(error) => error.fmt(f),
            Self::Connect { to, .. } => write!(
                f,
                "could not connect to {to}: is the name right, and does the server run?"
            ),
            Self::Http(error) => error.fmt(f),
            Self::Proxy(error) => error.fmt(f),
            Self::Redirect(error) => error.fmt(f),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Request(error) => error.fmt(f),
            Self::Setting(text) => f.write_str(text),
            Self::Timeout { during, after } => {
                write!(f, "no websocket within {after:?}: still {during}")
            }
            Self::Tls(error) => error.fmt(f),
        }
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Connect { source, .. } => Some(&**source),
            Self::Address(error) => error.source(),
            Self::Http(error) => error.source(),
            Self::Proxy(error) => error.source(),
            Self::Redirect(error) => error.source(),
            Self::Refused(refusal) => refusal.source(),
            Self::Request(error) => error.source(),
            Self::Tls(error) => error.source(),
            Self::Setting(_) | Self::Timeout { .. } => None,
        }
    }
}

impl From<AddressError> for ConnectError {
    fn from(error: AddressError) -> Self {
        Self::Address(error)
    }
}

impl From<Infallible> for ConnectError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl From<Refusal> for ConnectError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<RequestError> for ConnectError {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

/// What a client was doing when its deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Resolving the name, and waiting for the host to accept a connection.
    Connecting,
    /// Connecting to the proxy, and waiting for it to connect us.
    Proxy,
    /// In the TLS handshake.
    Tls,
    /// Waiting for the server's HTTP/2 settings.
    Settings,
    /// Waiting for the server's answer to the request.
    Answer,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connecting => "connecting",
            Self::Proxy => "waiting for the proxy",
            Self::Tls => "in the tls handshake",
            Self::Settings => "waiting for the server's http/2 settings",
            Self::Answer => "waiting for the server's answer to the request",
        })
    }
}

/// The server gave no answer that can be read.
#[derive(Debug)]
pub struct HttpError {
    kind: HttpErrorKind,
    source: Option<BoxError>,
}

/// How the answer could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpErrorKind {
    /// The connection ended before the answer: often a server that expects TLS, or one that
    /// is about to restart.
    Ended,
    /// The answer is no HTTP: often a port that speaks something else, TLS for instance.
    NotHttp,
    /// The head of the answer is longer than 64 KiB or has more than 100 lines, interim answers
    /// (1xx) included.
    TooLarge,
    /// The HTTP/2 connection is gone, or allows no extended CONNECT (RFC 8441).
    NoHttp2,
    /// Reading or writing failed.
    Failed,
}

impl HttpError {
    /// How the answer could not be read.
    pub fn kind(&self) -> HttpErrorKind {
        self.kind
    }

    #[cfg(feature = "http2")]
    pub(super) fn no_http2(source: Option<BoxError>) -> Self {
        Self {
            kind: HttpErrorKind::NoHttp2,
            source,
        }
    }
}

impl From<hyper::Error> for HttpError {
    fn from(error: hyper::Error) -> Self {
        let kind = if error.is_parse_too_large() || find(&error, |TooLarge| true) {
            HttpErrorKind::TooLarge
        } else if error.is_parse() {
            HttpErrorKind::NotHttp
        } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
            HttpErrorKind::Ended
        } else {
            HttpErrorKind::Failed
        };
        Self {
            kind,
            source: Some(error.into()),
        }
    }
}

impl From<hyper::Error> for ConnectError {
    fn from(error: hyper::Error) -> Self {
        #[cfg(feature = "rustls")]
        if find(&error, super::tls::refuses_us) {
            let kind = TlsErrorKind::ClientCertificate;
            return Self::Tls(TlsError::new(kind, Some(error.into())));
        }
        Self::Http(error.into())
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            HttpErrorKind::Ended => {
                "the server ended the connection without an answer: does it expect tls, or has it \
                 been stopped?"
            }
            HttpErrorKind::NotHttp => {
                "the server's answer is not http: does this port speak another protocol, or tls?"
            }
            HttpErrorKind::TooLarge => {
                "the head of the server's answer is longer than 64 KiB or has more than 100 lines"
            }
            HttpErrorKind::NoHttp2 => {
                "there is no http/2 connection that allows websockets (RFC 8441): connect over \
                 http/1.1, or again"
            }
            HttpErrorKind::Failed => "the connection failed before the server's answer",
        })
    }
}

impl Error for HttpError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source = self.source.as_deref()?;
        Some(source)
    }
}

/// More has come than an answer may be long.
#[derive(Debug)]
pub(super) struct TooLarge;

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer does not end")
    }
}

impl Error for TooLarge {}

/// Whether one of the causes is such. An `io::Error` hides the one it is made of.
fn find<T: Error + 'static>(error: &hyper::Error, is_such: impl Fn(&T) -> bool) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.downcast_ref().and_then(io::Error::get_ref);
        if inner.and_then(|it| it.downcast_ref()).is_some_and(&is_such) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The server redirects where this client does not go. The redirect itself is the
/// [`refusal`](ConnectError::refusal).
#[derive(Debug)]
pub struct RedirectError {
    kind: RedirectErrorKind,
    refusal: Refusal,
}

/// Why a redirect is not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedirectErrorKind {
    /// From TLS to a connection without.
    Downgrade(Uri),
    /// `Location` is missing, is there twice, or is no address of a WebSocket.
    Location,
    /// There have been as many redirects as are allowed.
    TooMany(usize),
}

impl RedirectError {
    pub(super) fn new(kind: RedirectErrorKind, refusal: Refusal) -> Self {
        Self { kind, refusal }
    }

    /// Why it is not followed.
    pub fn kind(&self) -> &RedirectErrorKind {
        &self.kind
    }
}

impl fmt::Display for RedirectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            RedirectErrorKind::Downgrade(uri) => write!(
                f,
                "the server redirects from tls to {uri}, which is not followed"
            ),
            RedirectErrorKind::Location => f.write_str(
                "the server redirects to nowhere: its location is missing, repeated, or no \
                 address of a websocket",
            ),
            RedirectErrorKind::TooMany(count) => write!(
                f,
                "the server redirects again after {count} redirects, which are all that are \
                 allowed"
            ),
        }
    }
}

impl Error for RedirectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.refusal)
    }
}

/// TLS came to no connection.
#[derive(Debug)]
pub struct TlsError {
    kind: TlsErrorKind,
    source: Option<BoxError>,
}

/// Why TLS came to no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsErrorKind {
    /// The server's certificate is not trusted: it has expired, is for another name, or nobody
    /// this client trusts has signed it.
    Certificate,
    /// The server does not trust this client's certificate, or wants one and was shown none. With
    /// TLS 1.3 that comes after the handshake;
    /// [`connect_http2`](super::Connector::connect_http2) tells it as
    /// [`NoHttp2`](HttpErrorKind::NoHttp2).
    ClientCertificate,
    /// The handshake failed, or the connection ended in it.
    Handshake,
    /// The host is neither a name nor an address that a certificate could be for.
    ServerName,
    /// This client trusts nobody, so no certificate can pass: give it roots, or enable one of
    /// the features `webpki-roots` and `platform-verifier`.
    NoRoots,
    /// The crate was built without the feature `rustls`.
    Unavailable,
}

impl TlsError {
    /// Why there is no connection.
    pub fn kind(&self) -> TlsErrorKind {
        self.kind
    }

    pub(super) fn new(kind: TlsErrorKind, source: Option<BoxError>) -> Self {
        Self { kind, source }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            TlsErrorKind::Certificate => {
                "the server's certificate is not trusted: it may have expired, be for another \
                 name, or be signed by somebody unknown"
            }
            TlsErrorKind::ClientCertificate => {
                "the server refuses this client's certificate, or wants one: it has to be signed by \
                 somebody whom the server trusts, and not to have expired"
            }
            TlsErrorKind::Handshake => "the tls handshake failed: does this port speak tls at all?",
            TlsErrorKind::ServerName => "no certificate can be for this host: it is no name",
            TlsErrorKind::NoRoots => {
                "this client trusts no certificate: give it roots, or enable one of ws-hyper's \
                 features webpki-roots and platform-verifier"
            }
            TlsErrorKind::Unavailable => {
                "this program has no tls: enable ws-hyper's feature rustls"
            }
        })
    }
}

impl Error for TlsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source = self.source.as_deref()?;
        Some(source)
    }
}
