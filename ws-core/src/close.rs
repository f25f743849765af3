//! Close codes and close frames (RFC 6455 §5.5.1 and §7.4).

use std::{error::Error, fmt};

use crate::Utf8Bytes;

/// A status code that may stand in a Close frame (RFC 6455 §7.4).
///
/// Only codes that may travel can be constructed: 1000–1003, 1007–1014 and 3000–4999. "No
/// status" (1005) and "abnormal" (1006) are no codes of the wire: an empty Close is `None`
/// wherever a close frame is optional.
///
/// ```
/// use ws_core::CloseCode;
///
/// assert_eq!(CloseCode::NORMAL.as_u16(), 1000);
/// assert_eq!(CloseCode::new(4001)?.as_u16(), 4001);
/// assert!(CloseCode::new(1006).is_err());
/// # Ok::<(), ws_core::InvalidCloseCode>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(u16);

impl CloseCode {
    /// 1000: the purpose of the connection is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// 1001: the server goes down, or the browser leaves the page.
    pub const GOING_AWAY: Self = Self(1001);
    /// 1002: the peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// 1003: a kind of data that this endpoint does not accept.
    pub const UNSUPPORTED_DATA: Self = Self(1003);
    /// 1007: data that does not fit its type, such as text that is not UTF-8.
    pub const INVALID_PAYLOAD: Self = Self(1007);
    /// 1008: the peer broke a policy of this endpoint.
    pub const POLICY_VIOLATION: Self = Self(1008);
    /// 1009: a message that is too big to process.
    pub const MESSAGE_TOO_BIG: Self = Self(1009);
    /// 1010: the server did not negotiate an extension that the client needs. Clients only.
    pub const MANDATORY_EXTENSION: Self = Self(1010);
    /// 1011: the server met a condition that keeps it from going on.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// 1012: the service restarts (IANA registry).
    pub const SERVICE_RESTART: Self = Self(1012);
    /// 1013: the service is overloaded, try again later (IANA registry).
    pub const TRY_AGAIN_LATER: Self = Self(1013);
    /// 1014: a gateway got an invalid answer from its upstream (IANA registry).
    pub const BAD_GATEWAY: Self = Self(1014);

    /// Makes a code from its number.
    ///
    /// # Errors
    ///
    /// [`InvalidCloseCode`] for a number that must not stand in a Close frame.
    pub const fn new(code: u16) -> Result<Self, InvalidCloseCode> {
        match code {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Ok(Self(code)),
            _ => Err(InvalidCloseCode(code)),
        }
    }

    /// The number.
    pub const fn as_u16(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for CloseCode {
    type Error = InvalidCloseCode;

    fn try_from(code: u16) -> Result<Self, InvalidCloseCode> {
        Self::new(code)
    }
}

impl From<CloseCode> for u16 {
    fn from(code: CloseCode) -> Self {
        code.0
    }
}

impl fmt::Debug for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloseCode({})", self.0)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The number is no code that may stand in a Close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidCloseCode(u16);

impl fmt::Display for InvalidCloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} must not stand in a close frame: use 1000-1003, 1007-1014 or 3000-4999 (RFC 6455 section 7.4)",
            self.0
        )
    }
}

impl Error for InvalidCloseCode {}

/// The body of a Close frame: a code and a reason for people (RFC 6455 §5.5.1).
///
/// ```
/// use ws_core::{CloseCode, CloseFrame};
///
/// let frame = CloseFrame::new(CloseCode::NORMAL, "bye")?;
/// assert_eq!(frame.code(), CloseCode::NORMAL);
/// assert_eq!(frame.reason(), "bye");
/// # Ok::<(), ws_core::ReasonTooLong>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CloseFrame {
    code: CloseCode,
    reason: Utf8Bytes,
}

impl CloseFrame {
    /// The longest reason in bytes: a control frame carries 125, the code takes two.
    pub const MAX_REASON_LEN: usize = 123;

    /// Makes a close frame.
    ///
    /// # Errors
    ///
    /// [`ReasonTooLong`] when the reason has more than 123 bytes;
    /// [`truncated`](Self::truncated) cuts instead.
    pub fn new(code: CloseCode, reason: impl Into<Utf8Bytes>) -> Result<Self, ReasonTooLong> {
        let reason = reason.into();
        if reason.len() > Self::MAX_REASON_LEN {
            return Err(ReasonTooLong(reason.len()));
        }
        Ok(Self { code, reason })
    }

    /// Makes a close frame, and cuts a reason of more than 123 bytes at the last character that
    /// fits.
    pub fn truncated(code: CloseCode, reason: &str) -> Self {
        let mut end = reason.len().min(Self::MAX_REASON_LEN);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let reason = reason.get(..end).unwrap_or_default().into();
        Self { code, reason }
    }

    /// The code.
    pub fn code(&self) -> CloseCode {
        self.code
    }

    /// The reason, at most 123 bytes; often empty.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl From<CloseCode> for CloseFrame {
    fn from(code: CloseCode) -> Self {
        Self {
            code,
            reason: Utf8Bytes::default(),
        }
    }
}

/// So that a code alone can be given where a close frame may be left out.
impl From<CloseCode> for Option<CloseFrame> {
    fn from(code: CloseCode) -> Self {
        Some(code.into())
    }
}

impl fmt::Display for CloseFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.code, f)?;
        if !self.reason.is_empty() {
            write!(f, " {:?}", self.reason())?;
        }
        Ok(())
    }
}

/// A Close frame that has gone over the wire.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "RFC 6455 §5.5.1: a Close frame has a body or it has none"
)]
pub enum Close {
    /// A Close with an empty body; RFC 6455 §7.1.5 calls it 1005.
    NoStatus,
    /// A Close with a code, and perhaps a reason.
    Status(CloseFrame),
}

impl Close {
    /// The code and the reason, if there are any.
    pub fn frame(&self) -> Option<&CloseFrame> {
        match self {
            Self::NoStatus => None,
            Self::Status(frame) => Some(frame),
        }
    }

    /// The code, if there is one.
    pub fn code(&self) -> Option<CloseCode> {
        self.frame().map(CloseFrame::code)
    }
}

impl From<Option<CloseFrame>> for Close {
    fn from(frame: Option<CloseFrame>) -> Self {
        frame.map_or(Self::NoStatus, Self::Status)
    }
}

impl From<CloseFrame> for Close {
    fn from(frame: CloseFrame) -> Self {
        Self::Status(frame)
    }
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoStatus => f.write_str("no status"),
            Self::Status(frame) => fmt::Display::fmt(frame, f),
        }
    }
}

/// The reason does not fit into a control frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReasonTooLong(usize);

impl fmt::Display for ReasonTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "close reason of {} bytes: a control frame has room for {} (RFC 6455 section 5.5)",
            self.0,
            CloseFrame::MAX_REASON_LEN
        )
    }
}

impl Error for ReasonTooLong {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_codes_of_the_table_can_be_constructed() {
        for number in 0..=u16::MAX {
            let legal = matches!(number, 1000..=1003 | 1007..=1014 | 3000..=4999);
            assert_eq!(CloseCode::new(number).is_ok(), legal, "{number}");
        }
    }

    #[test]
    fn a_reason_has_at_most_123_bytes() {
        assert!(CloseFrame::new(CloseCode::NORMAL, "x".repeat(123)).is_ok());
        let error = CloseFrame::new(CloseCode::NORMAL, "x".repeat(124)).unwrap_err();
        assert!(error.to_string().contains("124 bytes"), "{error}");
    }

    #[test]
    fn truncation_keeps_whole_characters() {
        let frame = CloseFrame::truncated(CloseCode::NORMAL, &"ü".repeat(70));
        assert_eq!(frame.reason(), "ü".repeat(61));
    }
}
