//! Errors of a running socket, and the facts about one that has ended.

use std::{error::Error as StdError, fmt, io, sync::Arc};

use crate::{Close, ConnectionError, SendError};

/// Why a socket cannot be used, or not now.
///
/// A normal close is no error: [`recv`](super::WebSocket::recv) then returns `None`. Sending after
/// it is [`Error::Closed`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// A Close has been sent or received: no message may follow.
    Closed,
    /// The connection ended without a closing handshake.
    Connection(ConnectionError),
    /// Reading or writing failed.
    Io(Arc<io::Error>),
    /// The command makes no sense now: a message sent in fragments is not finished.
    Send(SendError),
    /// Nothing came in time. The socket is as good as before: call again.
    TimedOut,
}

impl Error {
    /// Whether the time was too short, and nothing else is wrong.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::TimedOut)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "the websocket is closed",
            Self::Connection(_) => "the websocket ended without a closing handshake",
            Self::Io(_) => "reading from or writing to the websocket's stream failed",
            Self::Send(_) => "the websocket does not take a message now",
            Self::TimedOut => "the websocket's peer sent nothing in time",
        })
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Connection(error) => Some(error),
            Self::Io(error) => Some(error),
            Self::Send(error) => Some(error),
            Self::Closed | Self::TimedOut => None,
        }
    }
}

/// How a socket ended.
#[derive(Clone, Debug)]
pub struct Closed {
    pub(super) sent: Option<Close>,
    pub(super) received: Option<Close>,
    pub(super) cause: Option<Error>,
}

impl Closed {
    /// The Close that was sent, or queued at least.
    pub fn sent(&self) -> Option<&Close> {
        self.sent.as_ref()
    }

    /// The peer's Close.
    pub fn received(&self) -> Option<&Close> {
        self.received.as_ref()
    }

    /// Whether both sides said Close (RFC 6455 §7.1.4: "closed cleanly").
    pub fn is_clean(&self) -> bool {
        self.cause.is_none() && self.sent.is_some() && self.received.is_some()
    }

    /// What ended the connection, if it was not the closing handshake.
    pub fn cause(&self) -> Option<&Error> {
        self.cause.as_ref()
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
