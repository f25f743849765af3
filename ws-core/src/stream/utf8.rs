//! UTF-8 validation of a message while it arrives (RFC 6455 §8.1).
//!
//! The message lies in one buffer, so the state between two pieces is one number: how much of
//! the buffer is known to be whole, valid characters.

// As fast as the standard library on short texts, and six times as fast on long ones that are not
// ASCII.
use simdutf8::compat::from_utf8;

use crate::ProtocolError;

/// Whether a whole message is valid.
#[inline]
pub(crate) fn is_valid(message: &[u8]) -> bool {
    simdutf8::basic::from_utf8(message).is_ok()
}

/// Validates `message` from `valid` on, and moves `valid` behind the last whole character. A
/// character may be cut by the end of what has arrived; one that no byte can complete is an
/// error at once.
#[inline]
pub(crate) fn validate(message: &[u8], valid: &mut usize) -> Result<(), ProtocolError> {
    match from_utf8(message.get(*valid..).unwrap_or_default()) {
        Ok(text) => {
            *valid += text.len();
            Ok(())
        }
        Err(error) if error.error_len().is_none() => {
            *valid += error.valid_up_to();
            Ok(())
        }
        Err(_) => Err(ProtocolError::InvalidUtf8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a validator that sees one byte at a time says: the number of bytes after which it
    /// gave up, or whether the whole is valid.
    fn byte_by_byte(bytes: &[u8]) -> Result<bool, usize> {
        let mut valid = 0;
        for end in 1..=bytes.len() {
            validate(&bytes[..end], &mut valid).map_err(|_| end)?;
        }
        Ok(valid == bytes.len())
    }

    #[test]
    fn every_sequence_of_up_to_three_bytes_agrees_with_the_standard_library_wherever_it_is_cut() {
        for len in 1..=3_u32 {
            for n in 0..256_u32.pow(len) {
                let all = n.to_be_bytes();
                let bytes = &all[4 - len as usize..];
                let hopeless = (1..=bytes.len()).find(|&end| {
                    std::str::from_utf8(&bytes[..end])
                        .is_err_and(|error| error.error_len().is_some())
                });
                let expected = match hopeless {
                    Some(end) => Err(end),
                    None => Ok(std::str::from_utf8(bytes).is_ok()),
                };
                assert_eq!(byte_by_byte(bytes), expected, "{bytes:x?}");
            }
        }
    }

    #[test]
    fn the_boundaries_of_four_byte_characters_are_kept() {
        for (bytes, fails_at) in [
            (&b"\xf0\x90\x80\x80"[..], None),
            (b"\xf4\x8f\xbf\xbf", None),
            (b"\xf0\x8f\xbf\xbf", Some(2)),
            (b"\xf4\x90\x80\x80", Some(2)),
            (b"\xf5\x80\x80\x80", Some(1)),
            (b"\xf0\x90\x80\x41", Some(4)),
            (b"\xed\xa0\x80", Some(2)),
        ] {
            assert_eq!(byte_by_byte(bytes).err(), fails_at, "{bytes:x?}");
        }
    }
}
