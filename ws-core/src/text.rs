//! UTF-8 text in a shared buffer.
//!
//! [`Utf8Bytes`] is to [`Bytes`] what `str` is to `[u8]`: the validation that RFC 6455 §5.6
//! demands of a text message is done once, and its result is a type.

use std::{fmt, ops::Deref, str::Utf8Error};

use bytes::Bytes;

/// Text in a reference-counted buffer: [`Bytes`] that are known to be UTF-8.
///
/// Cloning is cheap and shares the buffer. It dereferences to `str`.
///
/// ```
/// use ws_core::Utf8Bytes;
///
/// let text = Utf8Bytes::from("Hello");
/// assert!(text.starts_with("He"));
/// assert!(Utf8Bytes::try_from(vec![0xff]).is_err());
/// ```
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Utf8Bytes(Bytes);

impl Utf8Bytes {
    /// Makes a text from a string that lives as long as the program, without allocating.
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// The text as a string slice.
    pub fn as_str(&self) -> &str {
        #[expect(
            unsafe_code,
            reason = "validating again on each look would double the price of a text message"
        )]
        // SAFETY: every constructor takes a `str` or validates, `from_validated` is called by
        // the decoder after its own validation, and `Bytes` cannot change behind a shared
        // reference.
        unsafe {
            std::str::from_utf8_unchecked(&self.0)
        }
    }

    pub(crate) fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The underlying bytes.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// Wraps bytes that the caller has validated.
    pub(crate) fn from_validated(bytes: Bytes) -> Self {
        debug_assert!(std::str::from_utf8(&bytes).is_ok());
        Self(bytes)
    }
}

impl Deref for Utf8Bytes {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Utf8Bytes {
    fn as_ref(&self) -> &str {
        self
    }
}

impl AsRef<[u8]> for Utf8Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Utf8Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Utf8Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

impl PartialEq<str> for Utf8Bytes {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Utf8Bytes {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl From<String> for Utf8Bytes {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&str> for Utf8Bytes {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<&String> for Utf8Bytes {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<Utf8Bytes> for Bytes {
    fn from(text: Utf8Bytes) -> Self {
        text.0
    }
}

impl TryFrom<Bytes> for Utf8Bytes {
    type Error = Utf8Error;

    fn try_from(bytes: Bytes) -> Result<Self, Utf8Error> {
        std::str::from_utf8(&bytes)?;
        Ok(Self(bytes))
    }
}

impl TryFrom<Vec<u8>> for Utf8Bytes {
    type Error = Utf8Error;

    fn try_from(bytes: Vec<u8>) -> Result<Self, Utf8Error> {
        Bytes::from(bytes).try_into()
    }
}

impl TryFrom<&[u8]> for Utf8Bytes {
    type Error = Utf8Error;

    fn try_from(bytes: &[u8]) -> Result<Self, Utf8Error> {
        std::str::from_utf8(bytes).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_utf8_can_be_constructed() {
        assert_eq!(Utf8Bytes::try_from(&b"gr\xc3\xbcn"[..]).unwrap(), "grün");
        assert!(Utf8Bytes::try_from(Bytes::from_static(b"\xed\xa0\x80")).is_err());
        assert!(Utf8Bytes::try_from(vec![0xc3]).is_err());
    }

    #[test]
    fn a_clone_shares_the_buffer() {
        let text = Utf8Bytes::from(String::from("shared"));
        assert_eq!(text.clone().as_ptr(), text.as_ptr());
    }
}
