//! Why there is no socket: how far it came, and what to do.

use std::{error::Error, fmt, io, net::SocketAddr};

use crate::{
    blocking::head::HeadError,
    handshake::client::{Refusal, RequestError},
};

/// Why a client has no socket, in the order of the way to it.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The text is no URI.
    Uri(http::Error),
    /// A setting of the [`Connector`](super::Connector), or the name in the URI, cannot be sent. The
    /// text names it.
    Setting(String),
    /// What was asked for is no WebSocket request.
    Request(RequestError),
    /// `wss` without TLS: the feature `rustls` of this crate is off.
    TlsUnavailable,
    /// The host's name has no address.
    Resolve {
        /// The name.
        host: String,
        /// What the system says.
        error: io::Error,
    },
    /// No address of the host takes connections.
    Connect {
        /// The name.
        host: String,
        /// What became of each address, in the order in which they were tried.
        failures: Vec<(SocketAddr, io::Error)>,
    },
    /// The handshake of TLS failed. With a certificate that is not trusted the source of the error
    /// is one of rustls's own.
    Tls {
        /// The name that the certificate has to be for.
        host: String,
        /// What was wrong.
        error: io::Error,
    },
    /// The time was over, [`Config::handshake_timeout`](crate::Config::handshake_timeout).
    TimedOut(Stage),
    /// The server's response could not be had: what it said is not HTTP/1.1, or it hung up.
    Response(HeadError),
    /// The server answered, and not with an acceptance: status, headers and the start of the body.
    Refused(Refusal),
}

impl ConnectError {
    /// What the server refused with, if it did.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }
}

/// How far it came before the time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// The host has not taken the connection.
    Connect,
    /// The handshake of TLS has not ended.
    Tls,
    /// The response to the request for a WebSocket has not come.
    Response,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uri(_) => f.write_str("the uri is malformed"),
            Self::Setting(text) => f.write_str(text),
            Self::Request(_) => f.write_str("the request for a websocket cannot be made"),
            Self::TlsUnavailable => f.write_str(
                "wss needs tls: enable the feature `rustls` of ws-core, or bring an encrypted \
                 stream of your own to `Connector::connect_over`",
            ),
            Self::Resolve { host, .. } => {
                write!(f, "the name `{}` cannot be resolved", host.escape_debug())
            }
            Self::Connect { host, failures } => {
                write!(f, "`{}` takes no connections", host.escape_debug())?;
                let mut mark = ':';
                for (address, error) in failures {
                    write!(f, "{mark} {address}: {error}")?;
                    mark = ',';
                }
                Ok(())
            }
            Self::Tls { host, .. } => write!(
                f,
                "the tls handshake with `{}` failed: is its certificate for this name, and is its \
                 root among those of `Connector::tls`?",
                host.escape_debug()
            ),
            Self::TimedOut(stage) => {
                f.write_str("the time to connect, `Config::handshake_timeout`, was over before ")?;
                f.write_str(match stage {
                    Stage::Connect => "the host took the connection",
                    Stage::Tls => "the tls handshake ended",
                    Stage::Response => "the server answered the request for a websocket",
                })
            }
            Self::Response(error) => {
                write!(f, "the server's response cannot be read: {error}")
            }
            Self::Refused(refusal) => refusal.fmt(f),
        }
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Uri(error) => Some(error),
            Self::Request(error) => Some(error),
            Self::Resolve { error, .. } | Self::Tls { error, .. } => Some(error),
            Self::Response(error) => error.source(),
            Self::Refused(refusal) => refusal.source(),
            Self::Connect { .. } | Self::Setting(_) | Self::TimedOut(_) | Self::TlsUnavailable => {
                None
            }
        }
    }
}

impl From<RequestError> for ConnectError {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

impl From<Refusal> for ConnectError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
