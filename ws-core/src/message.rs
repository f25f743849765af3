//! Messages: what an application sends and receives (RFC 6455 §5.6).

use bytes::{Bytes, BytesMut};

use crate::Utf8Bytes;

/// A data message: text or binary.
///
/// Pings, pongs and closing are not messages; the [`Connection`](crate::Connection) sees to
/// them. An empty message is an ordinary message.
///
/// ```
/// use ws_core::Message;
///
/// assert_eq!(Message::text("Hello").len(), 5);
/// assert!(Message::binary(vec![1, 2, 3]).is_binary());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "RFC 6455 §5.2 knows two kinds of data frame; another one needs a new version of the protocol"
)]
pub enum Message {
    /// A text message, opcode 1: valid UTF-8.
    Text(Utf8Bytes),
    /// A binary message, opcode 2.
    Binary(Bytes),
}

impl Message {
    /// Makes a text message.
    pub fn text(text: impl Into<Utf8Bytes>) -> Self {
        Self::Text(text.into())
    }

    /// Makes a binary message.
    pub fn binary(data: impl Into<Bytes>) -> Self {
        Self::Binary(data.into())
    }

    /// Whether this is a text message.
    pub fn is_text(&self) -> bool {
        matches!(self, Self::Text(_))
    }

    /// Whether this is a binary message.
    pub fn is_binary(&self) -> bool {
        matches!(self, Self::Binary(_))
    }

    /// The size of the payload in bytes, for text too.
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether the payload is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The payload.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_ref(),
            Self::Binary(data) => data,
        }
    }

    /// The text of a text message, `None` for a binary one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }

    /// The payload's buffer.
    pub(crate) fn payload(&self) -> &Bytes {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(data) => data,
        }
    }

    /// The payload, without its kind.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Text(text) => text.into_bytes(),
            Self::Binary(data) => data,
        }
    }
}

/// Whether to compress a message (RFC 7692 §6 leaves it to the sender, message by message).
///
/// It matters on a connection that has agreed on compression; on any other all messages travel as
/// they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "yes, no, or where it pays")]
pub enum Compress {
    /// Where it is likely to pay: from the threshold of the settings on, and if it shrinks.
    #[default]
    Auto,
    /// Always, even if it grows.
    Always,
    /// Never: for what is compressed already, and for secrets beside a stranger's text, which the
    /// size of a compressed message gives away (CRIME, BREACH).
    Never,
}

impl From<Utf8Bytes> for Message {
    fn from(text: Utf8Bytes) -> Self {
        Self::Text(text)
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<Bytes> for Message {
    fn from(data: Bytes) -> Self {
        Self::Binary(data)
    }
}

impl From<Vec<u8>> for Message {
    fn from(data: Vec<u8>) -> Self {
        Self::binary(data)
    }
}

impl<const N: usize> From<&[u8; N]> for Message {
    fn from(data: &[u8; N]) -> Self {
        data.as_slice().into()
    }
}

impl From<BytesMut> for Message {
    fn from(data: BytesMut) -> Self {
        Self::Binary(data.freeze())
    }
}

impl From<&[u8]> for Message {
    fn from(data: &[u8]) -> Self {
        Self::Binary(Bytes::copy_from_slice(data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_become_text_and_bytes_become_binary() {
        assert!(Message::from("a").is_text());
        assert!(Message::from(String::new()).is_text());
        assert!(Message::from(vec![97]).is_binary());
        assert!(Message::from(&b"a"[..]).is_binary());
    }

    #[test]
    fn the_length_is_in_bytes_for_text_too() {
        assert_eq!(Message::text("grün").len(), 5);
    }
}
