//! Why a client has no WebSocket: what the server answered, and what was wrong with it.

use std::{error::Error, fmt};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, Version, header::LOCATION};

use crate::handshake::{
    conceal,
    extensions::{AnswerError, MalformedExtensions},
    quote,
};

/// The server's response is not the acceptance of our handshake.
///
/// It keeps the status, the headers and, if the caller adds it, the start of the body: what is
/// needed to follow a redirect, to answer a 401, or to log what a proxy in between had to say.
#[derive(Clone, Debug)]
pub struct Refusal(Box<Inner>);

impl Refusal {
    /// The most that is kept of a body, in bytes: enough for a message, too little for harm.
    pub const MAX_BODY: usize = 8 << 10;

    pub(super) fn new(reason: RefusalReason, status: StatusCode, mut headers: HeaderMap) -> Self {
        for (name, value) in &mut headers {
            conceal(name, value);
        }
        Self(Box::new(Inner {
            reason,
            status,
            headers,
            body: Bytes::new(),
        }))
    }

    /// Adds the start of the body, at most [`MAX_BODY`](Self::MAX_BODY) bytes of it. It is
    /// copied.
    #[must_use]
    pub fn with_body(mut self, body: &[u8]) -> Self {
        let start = body.get(..Self::MAX_BODY).unwrap_or(body);
        self.0.body = Bytes::copy_from_slice(start);
        self
    }

    /// What was wrong with the response.
    pub fn reason(&self) -> &RefusalReason {
        &self.0.reason
    }

    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The headers of the response.
    pub fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }

    /// The start of the body; empty if there was none, or nobody read it.
    pub fn body(&self) -> &Bytes {
        &self.0.body
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            reason,
            status,
            headers,
            body,
        } = &*self.0;
        if *reason != RefusalReason::Status {
            return write!(f, "the server accepted the websocket wrongly: {reason}");
        }
        write!(f, "the server refused the websocket with {status}")?;
        if let Some(location) = headers.get(LOCATION) {
            write!(f, ", location `{}`", quote(location.as_bytes()))?;
        }
        if !body.is_empty() {
            write!(f, ": {}", quote(body.trim_ascii()))?;
        }
        Ok(())
    }
}

impl Error for Refusal {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0.reason {
            RefusalReason::ExtensionsMalformed(error) => Some(error),
            _ => None,
        }
    }
}

#[derive(Clone, Debug)]
struct Inner {
    reason: RefusalReason,
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// What was wrong with a server's response (RFC 6455 §4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusalReason {
    /// The status is not 101, or over HTTP/2 not 2xx: the server does not want to.
    Status,
    /// A 101 in an HTTP version that has none.
    HttpVersion(Version),
    /// `Upgrade` is not `websocket`.
    Upgrade,
    /// `Connection` does not list `upgrade`.
    Connection,
    /// There is no `Sec-WebSocket-Accept`: the server has not understood the request.
    AcceptMissing,
    /// There is more than one `Sec-WebSocket-Accept` (RFC 6455 §11.3.3).
    AcceptRepeated,
    /// `Sec-WebSocket-Accept` is not the answer to our key: perhaps from a cache.
    AcceptWrong,
    /// There is more than one `Sec-WebSocket-Protocol` (RFC 6455 §11.3.4).
    SubprotocolRepeated,
    /// The server chose a subprotocol that was not offered.
    SubprotocolNotOffered(String),
    /// `Sec-WebSocket-Extensions` cannot be read.
    ExtensionsMalformed(MalformedExtensions),
    /// The server agreed to other extensions than were offered, or to less than is required.
    Extensions(AnswerError),
    /// The response announces a body where frames should follow.
    BodyAnnounced,
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status => f.write_str("its status is no acceptance"),
            Self::HttpVersion(version) => write!(f, "a 101 over {version:?}"),
            Self::Upgrade => f.write_str("upgrade is not websocket"),
            Self::Connection => f.write_str("connection does not list upgrade"),
            Self::AcceptMissing => f.write_str("there is no sec-websocket-accept"),
            Self::AcceptRepeated => f.write_str("there is more than one sec-websocket-accept"),
            Self::AcceptWrong => {
                f.write_str("sec-websocket-accept is not the answer to this request's key")
            }
            Self::SubprotocolRepeated => {
                f.write_str("there is more than one sec-websocket-protocol")
            }
            Self::SubprotocolNotOffered(name) => {
                write!(f, "the subprotocol `{name}` was not offered")
            }
            Self::ExtensionsMalformed(_) => f.write_str("its extensions cannot be read"),
            Self::Extensions(error) => error.fmt(f),
            Self::BodyAnnounced => f.write_str(
                "it announces a body, by content-length or transfer-encoding, where frames should \
                 follow",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn refusal(reason: RefusalReason, status: u16) -> Refusal {
        Refusal::new(
            reason,
            StatusCode::from_u16(status).unwrap(),
            HeaderMap::new(),
        )
    }

    #[test]
    fn the_text_tells_a_refusal_from_a_wrong_acceptance() {
        let mut redirect = refusal(RefusalReason::Status, 302);
        let location = HeaderValue::from_static("/login");
        redirect.0.headers.insert(LOCATION, location);
        let cases = [
            (
                refusal(RefusalReason::Status, 403).with_body(b"no\r\nentry\n"),
                r"the server refused the websocket with 403 Forbidden: no\r\nentry",
            ),
            (
                redirect,
                "the server refused the websocket with 302 Found, location `/login`",
            ),
            (
                refusal(RefusalReason::Upgrade, 101),
                "the server accepted the websocket wrongly: upgrade is not websocket",
            ),
        ];
        for (refusal, text) in cases {
            assert_eq!(refusal.to_string(), text);
        }
    }

    #[test]
    fn the_body_is_bounded() {
        let refusal = refusal(RefusalReason::Status, 500);
        assert!(refusal.body().is_empty());
        let refusal = refusal.with_body(&vec![b'x'; 100_000]);
        assert_eq!(refusal.body().len(), Refusal::MAX_BODY);
        assert!(refusal.to_string().len() < 300);
    }

    #[test]
    fn the_cause_is_in_the_chain_and_not_in_the_text() {
        let malformed = MalformedExtensions::Syntax;
        let refusal = refusal(RefusalReason::ExtensionsMalformed(malformed), 101);
        assert_eq!(refusal.source().unwrap().to_string(), malformed.to_string());
        assert!(!refusal.to_string().contains(&malformed.to_string()));
    }
}
