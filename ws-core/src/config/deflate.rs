#![doc = include_str!("deflate.md")]

use std::{error::Error, fmt};

use super::Role;
pub use crate::stream::deflate::pool::{Pool, PoolConfig, PoolStatistics, ShelfStatistics};

/// Settings of permessage-deflate (RFC 7692).
///
/// | option | unit | default |
/// |---|---|---|
/// | [`negotiation`](Self::negotiation) | | optional |
/// | [`level`](Self::level) | 1 to 9 | 1 |
/// | [`threshold`](Self::threshold) | bytes | 256 |
/// | [`own_window_bits`](Self::own_window_bits) | power of 2, 9 to 15 | 15 (32 KiB) |
/// | [`peer_window_bits`](Self::peer_window_bits) | power of 2, 9 to 15 | 15 (32 KiB) |
/// | [`own_takeover`](Self::own_takeover) | | allowed |
/// | [`peer_takeover`](Self::peer_takeover) | | forbidden to clients, allowed to servers |
/// | [`pool`](Self::pool) | | that of the process |
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deflate {
    /// Whether a peer without compression is accepted.
    pub negotiation: Negotiation,
    /// How hard this end tries.
    pub level: Level,
    /// Messages with fewer bytes are sent as they are: they hardly shrink.
    pub threshold: usize,
    /// The largest window this end compresses with. A smaller one costs less memory at both ends,
    /// and brings less.
    pub own_window_bits: WindowBits,
    /// The largest window the peer shall compress with. A client insists on it: a server that
    /// cannot keep it declines compression. A server can only ask, and only the clients that let
    /// themselves be asked (RFC 7692 §7.1.2.2); those that do not use up to 15.
    pub peer_window_bits: WindowBits,
    /// Whether this end may keep its window between messages. If it may, it need not: a window
    /// can be forgotten at any time, at the price of the next message's ratio.
    pub own_takeover: Takeover,
    /// Whether the peer may keep its window, which this end then has to keep too. `None` is by
    /// the role: a server, which has many peers, forbids it; a client allows it.
    pub peer_takeover: Option<Takeover>,
    /// Where compressors and decompressors come from; `None` is the [global](Pool::global) pool.
    pub pool: Option<Pool>,
}

impl Default for Deflate {
    fn default() -> Self {
        Self {
            negotiation: Negotiation::Optional,
            // With a kept window it beats level 6 without one, in speed and in ratio.
            level: Level::MIN,
            // What is shorter fits into a packet with its neighbours, compressed or not.
            threshold: 256,
            own_window_bits: WindowBits::MAX,
            peer_window_bits: WindowBits::MAX,
            own_takeover: Takeover::Allowed,
            peer_takeover: None,
            pool: None,
        }
    }
}

impl Deflate {
    /// The default settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Refuses peers that do not compress: a server answers 400, a client fails the handshake.
    /// Default: they are accepted, without compression.
    #[must_use]
    pub fn required(mut self) -> Self {
        self.negotiation = Negotiation::Required;
        self
    }

    /// Sets how hard this end tries. Default: 1.
    #[must_use]
    pub fn level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    /// Sets from how many bytes on a message is compressed. Default: 256.
    #[must_use]
    pub fn threshold(mut self, bytes: usize) -> Self {
        self.threshold = bytes;
        self
    }

    /// Sets the largest window this end compresses with. Default: 15 bits, 32 KiB.
    #[must_use]
    pub fn own_window_bits(mut self, bits: WindowBits) -> Self {
        self.own_window_bits = bits;
        self
    }

    /// Sets the largest window the peer shall compress with. Default: 15 bits, 32 KiB.
    #[must_use]
    pub fn peer_window_bits(mut self, bits: WindowBits) -> Self {
        self.peer_window_bits = bits;
        self
    }

    /// Sets whether this end may keep its window between messages. Default: allowed.
    #[must_use]
    pub fn own_takeover(mut self, takeover: Takeover) -> Self {
        self.own_takeover = takeover;
        self
    }

    /// Sets whether the peer may keep its window between messages; `None` is by the role.
    /// Default: a server forbids it, a client allows it.
    #[must_use]
    pub fn peer_takeover(mut self, takeover: impl Into<Option<Takeover>>) -> Self {
        self.peer_takeover = takeover.into();
        self
    }

    /// Sets where compressors and decompressors come from; `None` is the [global](Pool::global)
    /// pool. Default: `None`.
    #[must_use]
    pub fn pool(mut self, pool: impl Into<Option<Pool>>) -> Self {
        self.pool = pool.into();
        self
    }

    pub(crate) fn pool_or_global(&self) -> &Pool {
        self.pool.as_ref().unwrap_or_else(|| Pool::global())
    }

    /// Whether the peer of an end with this role may keep its window.
    pub(crate) fn peer_takeover_of(&self, role: Role) -> Takeover {
        self.peer_takeover.unwrap_or(match role {
            Role::Client => Takeover::Allowed,
            Role::Server => Takeover::Forbidden,
        })
    }
}

/// Whether a peer without compression is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "it is so or it is not")]
pub enum Negotiation {
    /// It is, and messages then travel as they are.
    Optional,
    /// It is not: there is no connection.
    Required,
}

/// Whether a compressor may keep its window from one message to the next (RFC 7692 §7.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "RFC 7692 has these two")]
pub enum Takeover {
    /// It may, and the receiver has to keep the window too.
    Allowed,
    /// Each message begins with an empty window, and neither end keeps anything in between.
    Forbidden,
}

/// How hard a compressor tries: 1 is the fastest, 9 the smallest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(u8);

impl Level {
    /// 1, the fastest.
    pub const MIN: Self = Self(1);
    /// 9, the smallest output.
    pub const MAX: Self = Self(9);

    /// A level.
    ///
    /// # Errors
    ///
    /// It is not one of 1 to 9.
    pub const fn new(level: u8) -> Result<Self, OutOfRange> {
        match level {
            1..=9 => Ok(Self(level)),
            _ => Err(OutOfRange::Level(level)),
        }
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// The size of a window, as a power of 2: 9 (512 bytes) to 15 (32 KiB).
///
/// RFC 7692 §7.1.2 also has 8, which no compressor in use can keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowBits(u8);

impl WindowBits {
    /// 9: 512 bytes.
    pub const MIN: Self = Self(9);
    /// 15: 32 KiB.
    pub const MAX: Self = Self(15);

    /// A size.
    ///
    /// # Errors
    ///
    /// It is not one of 9 to 15.
    pub const fn new(bits: u8) -> Result<Self, OutOfRange> {
        match bits {
            9..=15 => Ok(Self(bits)),
            _ => Err(OutOfRange::WindowBits(bits)),
        }
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The size of the window in bytes.
    pub const fn size(self) -> usize {
        1 << self.0
    }
}

/// A number that a setting does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutOfRange {
    /// A [`Level`] is one of 1 to 9.
    Level(u8),
    /// [`WindowBits`] are one of 9 to 15.
    WindowBits(u8),
}

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Level(level) => write!(f, "{level} is no level of compression: 1 to 9"),
            Self::WindowBits(bits) => write!(f, "{bits} is no size of a window: 9 to 15 bits"),
        }
    }
}

impl Error for OutOfRange {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_range_cannot_be_made() {
        for number in 0..=u8::MAX {
            let level = Level::new(number).map(Level::get);
            assert_eq!(level.ok(), (1..=9).contains(&number).then_some(number));
            let bits = WindowBits::new(number).map(WindowBits::get);
            assert_eq!(bits.ok(), (9..=15).contains(&number).then_some(number));
        }
        assert_eq!(WindowBits::MAX.size(), 32 << 10);
        let text = WindowBits::new(8).unwrap_err().to_string();
        assert_eq!(text, "8 is no size of a window: 9 to 15 bits");
    }

    #[test]
    fn a_server_forbids_what_a_client_allows_unless_told() {
        let takeover = |deflate: &Deflate| {
            [Role::Client, Role::Server].map(|role| deflate.peer_takeover_of(role))
        };
        let default = Deflate::new();
        assert_eq!(takeover(&default), [Takeover::Allowed, Takeover::Forbidden]);
        for told in [Takeover::Allowed, Takeover::Forbidden] {
            assert_eq!(takeover(&default.clone().peer_takeover(told)), [told; 2]);
        }
    }
}
