//! Why a proxy did not connect us.

use std::{error::Error, fmt};

use http::StatusCode;
use ws_tower::BoxError;

use crate::client::error::{TlsError, TlsErrorKind};

/// The proxy did not connect us.
#[derive(Debug)]
pub struct ProxyError {
    proxy: String,
    kind: ProxyErrorKind,
    /// What it says beside the status, fit to be printed.
    words: String,
    source: Option<BoxError>,
}

/// Why a proxy did not connect us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyErrorKind {
    /// Its name could not be resolved, or no address of it answers.
    Unreachable,
    /// TLS with the proxy itself came to no connection.
    Tls,
    /// It answered CONNECT with this status, which is none of 2xx. 407: it wants other credentials.
    Refused(StatusCode),
    /// It gave no answer that can be read, or is a SOCKS proxy that refused.
    Failed,
}

impl ProxyError {
    pub(super) fn new(
        proxy: impl Into<String>,
        kind: ProxyErrorKind,
        source: impl Into<Option<BoxError>>,
    ) -> Self {
        Self {
            proxy: proxy.into(),
            kind,
            words: String::new(),
            source: source.into(),
        }
    }

    pub(super) fn refused(proxy: impl Into<String>, status: StatusCode, body: &[u8]) -> Self {
        let body = body.trim_ascii();
        let start = body.get(..MAX_WORDS).unwrap_or(body);
        let mut words = String::from_utf8_lossy(start).escape_debug().to_string();
        if start.len() < body.len() {
            words.push_str("...");
        }
        Self {
            words,
            ..Self::new(proxy, ProxyErrorKind::Refused(status), None)
        }
    }

    /// The host and port of the proxy.
    pub fn proxy(&self) -> &str {
        &self.proxy
    }

    /// Why it did not connect us.
    pub fn kind(&self) -> ProxyErrorKind {
        self.kind
    }

    /// What it answered with, if it is an HTTP proxy and has answered.
    pub fn status(&self) -> Option<StatusCode> {
        match self.kind {
            ProxyErrorKind::Refused(status) => Some(status),
            _ => None,
        }
    }

    /// Whether it is the certificate of the proxy, there is no TLS, or it wants other credentials.
    pub(in crate::client) fn is_final(&self) -> bool {
        if self.status() == Some(StatusCode::PROXY_AUTHENTICATION_REQUIRED) {
            return true;
        }
        let source = self.source.as_deref();
        let tls = source.and_then(|source| source.downcast_ref::<TlsError>());
        tls.is_some_and(|tls| tls.kind() != TlsErrorKind::Handshake)
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { proxy, words, .. } = self;
        match self.kind {
            ProxyErrorKind::Unreachable => write!(
                f,
                "could not connect to the proxy {proxy}: is its address right, and does it run?"
            ),
            ProxyErrorKind::Tls => write!(f, "no tls connection to the proxy {proxy}"),
            ProxyErrorKind::Refused(status) => {
                write!(f, "the proxy {proxy} refused to connect us with {status}")?;
                if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
                    f.write_str(": check the credentials in its address")
                } else if words.is_empty() {
                    f.write_str(": does it let this host and port through?")
                } else {
                    write!(f, ": {words}")
                }
            }
            ProxyErrorKind::Failed => write!(
                f,
                "the proxy {proxy} did not connect us: check its address and credentials, and \
                 whether it lets this host through"
            ),
        }
    }
}

impl Error for ProxyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source = self.source.as_deref()?;
        Some(source)
    }
}

/// What is repeated of a body, in bytes: as much as of a server's refusal.
const MAX_WORDS: usize = 128;
