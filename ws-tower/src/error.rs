//! Errors of a running socket, and the facts about one that has ended.

use std::{error::Error as StdError, fmt, io, net::SocketAddr, sync::Arc};

use ws_core::{Close, ConnectionError, Message};

use crate::session::state::About;

/// Any error of an application's own.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Why a socket cannot be used, or no longer.
///
/// A normal close is no error: [`recv`](crate::WebSocket::recv) then returns `None`. Sending
/// after it is [`Error::Closed`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The server or the runtime dropped the socket's session.
    Aborted,
    /// A Close has been sent or received: no message may follow.
    Closed,
    /// The connection ended without a closing handshake.
    Connection(ConnectionError),
    /// Reading or writing failed.
    Io(Arc<io::Error>),
    /// The upgrade did not come about: the response that left was another one, it did not leave
    /// in time, or the client was gone by then.
    NotUpgraded,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aborted => "the websocket was dropped by its server",
            Self::Closed => "the websocket is closed",
            Self::Connection(_) => "the websocket ended without a closing handshake",
            Self::Io(_) => "reading from or writing to the websocket failed",
            Self::NotUpgraded => "the websocket was never opened: its upgrade did not come about",
        })
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Connection(error) => Some(error),
            Self::Io(error) => Some(error),
            Self::Aborted | Self::Closed | Self::NotUpgraded => None,
        }
    }
}

impl From<ConnectionError> for Error {
    fn from(error: ConnectionError) -> Self {
        Self::Connection(error)
    }
}

/// A message that [`try_send`](crate::Sender::try_send) gives back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrySendError {
    /// The outgoing queue is above its high-water mark.
    Full(Message),
    /// A Close has been sent or received, or the connection has failed.
    Closed(Message),
}

impl TrySendError {
    /// The message that was not sent.
    pub fn into_message(self) -> Message {
        match self {
            Self::Full(message) | Self::Closed(message) => message,
        }
    }
}

impl fmt::Display for TrySendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "the websocket's outgoing queue is full",
            Self::Closed(_) => "the websocket is closed",
        })
    }
}

impl StdError for TrySendError {}

/// How a socket ended. Made once, cheap to clone, to be had from every handle at any time.
#[derive(Clone)]
pub struct Closed(Arc<Facts>);

struct Facts {
    sent: Option<Close>,
    received: Option<Close>,
    cause: Option<Error>,
    path: Box<str>,
    peer: Option<SocketAddr>,
}

impl Closed {
    pub(crate) fn new(
        sent: Option<Close>,
        received: Option<Close>,
        cause: Option<Error>,
        about: Option<&About>,
    ) -> Self {
        Self(Arc::new(Facts {
            sent,
            received,
            cause,
            path: about.map_or("", |about| &about.path).into(),
            peer: about.and_then(|about| about.peer),
        }))
    }

    /// The Close that was sent, or queued at least.
    pub fn sent(&self) -> Option<&Close> {
        self.0.sent.as_ref()
    }

    /// The peer's Close.
    pub fn received(&self) -> Option<&Close> {
        self.0.received.as_ref()
    }

    /// Whether both sides said Close (RFC 6455 §7.1.4: "closed cleanly").
    pub fn is_clean(&self) -> bool {
        self.0.cause.is_none() && self.0.sent.is_some() && self.0.received.is_some()
    }

    /// What ended the connection, if it was not the closing handshake.
    pub fn cause(&self) -> Option<&Error> {
        self.0.cause.as_ref()
    }

    /// The path of the request, as the layer saw it; empty for a client.
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// The address of the peer, if the server told it.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.0.peer
    }
}

impl fmt::Debug for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Closed")
            .field("sent", &self.sent())
            .field("received", &self.received())
            .field("clean", &self.is_clean())
            .field("cause", &self.cause())
            .field("path", &self.path())
            .field("peer", &self.peer())
            .finish()
    }
}

/// `closed 1000 (clean)`, `closed 1011 "…" (unclean): cause`.
impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("closed ")?;
        match self.received().or(self.sent()) {
            Some(close) => fmt::Display::fmt(close, f)?,
            None => f.write_str("without a close frame")?,
        }
        f.write_str(if self.is_clean() {
            " (clean)"
        } else {
            " (unclean)"
        })?;
        let mut cause = self.cause().map(|cause| cause as &dyn StdError);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
