//! Masking (RFC 6455 §5.3).
//!
//! [`apply`] masks and unmasks, for it is its own inverse. Keys come from [`random_key`].

use std::cell::RefCell;

/// XORs `payload` with the masking key, as if `offset` bytes of the frame went before it.
///
/// The same call masks and unmasks. A payload may arrive in pieces: give each piece's place in
/// the frame.
///
/// ```
/// use ws_core::frame::mask;
///
/// let mut payload = *b"\x7f\x9f\x4d\x51\x58"; // RFC 6455 §5.7
/// mask::apply(&mut payload, [0x37, 0xfa, 0x21, 0x3d], 0);
/// assert_eq!(&payload, b"Hello");
/// ```
#[inline]
pub fn apply(payload: &mut [u8], key: [u8; 4], offset: usize) {
    #[expect(clippy::cast_possible_truncation, reason = "it is less than four")]
    let turns = (offset % 4) as u32;
    // Lowest byte first, whatever the machine: each byte before turns the key by one.
    let turned = u32::from_le_bytes(key).rotate_right(8 * turns);
    let [a, b, c, d] = turned.to_le_bytes();
    // Eight bytes at a time: the compiler turns the loop into vector instructions.
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= key;
    }
}

/// Bytes drawn from the operating system at once: a system call for 256 keys.
const KEY_BUFFER: usize = 1024;

thread_local! {
    static KEYS: RefCell<(usize, [u8; KEY_BUFFER])> = const {
        RefCell::new((KEY_BUFFER, [0; KEY_BUFFER]))
    };
}

/// A fresh masking key, from the operating system's cryptographically secure generator.
///
/// RFC 6455 §5.3: "The masking key needs to be unpredictable". Each byte of the generator is
/// used once.
///
/// # Panics
///
/// When the operating system has no randomness to give: going on with predictable keys would
/// let a page attack the proxies on its way (RFC 6455 §10.3).
pub fn random_key() -> [u8; 4] {
    KEYS.with_borrow_mut(|(used, keys)| {
        if *used >= KEY_BUFFER {
            getrandom::fill(keys).expect("the operating system has randomness");
            *used = 0;
        }
        let key = keys
            .get(*used..)
            .and_then(<[u8]>::first_chunk)
            .copied()
            .unwrap_or_default();
        *used += key.len();
        key
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_length_and_alignment_agrees_with_the_formula_of_the_rfc() {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        let payload: Vec<u8> = (0..=255).collect();
        for offset in 0..9 {
            for start in 0..9 {
                for end in start..80 {
                    let mut masked = payload.clone();
                    apply(&mut masked[start..end], key, offset);
                    for (i, byte) in payload[start..end].iter().enumerate() {
                        assert_eq!(masked[start + i], byte ^ key[(offset + i) % 4]);
                    }
                    apply(&mut masked[start..end], key, offset);
                    assert_eq!(masked, payload);
                }
            }
        }
    }

    #[test]
    fn keys_do_not_repeat_beyond_chance() {
        let keys: HashSet<_> = (0..10_000).map(|_| random_key()).collect();
        // 10,000 draws from 2^32: a repeat is expected once in 86 runs, five in one of 10^11.
        assert!(keys.len() > 9_995);
    }

    #[test]
    fn the_bytes_of_keys_are_uniform() {
        let mut counts = [0_u32; 256];
        for byte in (0..16_384).flat_map(|_| random_key()) {
            counts[usize::from(byte)] += 1;
        }
        // 65,536 bytes: 256 of each on average, standard deviation 16.
        assert!(counts.iter().all(|count| (128..384).contains(count)));
    }
}
