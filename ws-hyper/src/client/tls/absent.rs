//! TLS in a build without it: every address that needs it is refused.

use super::{
    error::{ConnectError, TlsError, TlsErrorKind},
    transport::Transport,
};

/// There is none.
#[derive(Clone, Debug)]
pub(super) enum Tls {}

/// What is offered by ALPN (RFC 7301).
#[derive(Clone, Copy, Debug)]
pub(super) enum Alpn {
    Http1,
    #[cfg(feature = "http2")]
    Http2,
}

#[expect(clippy::unused_async, reason = "with tls it waits")]
pub(super) async fn connect(
    _: Option<&Tls>,
    _: &str,
    _: Transport,
    _: Alpn,
) -> Result<Transport, ConnectError> {
    Err(unavailable())
}

pub(super) fn unavailable() -> ConnectError {
    ConnectError::Tls(TlsError::new(TlsErrorKind::Unavailable, None))
}
