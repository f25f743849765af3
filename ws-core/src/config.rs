//! Limits and times of a connection.

#[cfg(feature = "deflate")]
pub mod deflate;

use std::time::Duration;

#[cfg(feature = "deflate")]
use self::deflate::Deflate;

/// Which end of the connection this is.
///
/// It decides who masks (RFC 6455 §5.1: a client masks every frame, a server none).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a connection has two ends")]
pub enum Role {
    /// The end that asked for the connection.
    Client,
    /// The end that accepted it.
    Server,
}

/// Limits and times of a connection. Everything is bounded unless it is asked not to be.
///
/// It is one small value for many connections: whatever takes it takes an `Arc` of it too. Each
/// option is a field to read and a method to set.
///
/// | option | unit | default |
/// |---|---|---|
/// | [`max_message_size`](Self::max_message_size) | bytes | 1 MiB |
/// | [`max_frame_size`](Self::max_frame_size) | bytes | as large as a message: 1 MiB |
/// | [`inbox_high_water`](Self::inbox_high_water) | bytes | 64 KiB |
/// | [`outgoing_high_water`](Self::outgoing_high_water) | bytes | 64 KiB |
/// | [`http2_receive_cap`](Self::http2_receive_cap) | bytes | 1 MiB |
/// | [`keepalive_interval`](Self::keepalive_interval) | time | 20 s |
/// | [`keepalive_timeout`](Self::keepalive_timeout) | time | 20 s |
/// | [`close_timeout`](Self::close_timeout) | time | 5 s |
/// | [`write_timeout`](Self::write_timeout) | time | 30 s |
/// | [`handshake_timeout`](Self::handshake_timeout) | time | 10 s |
///
/// With the feature `deflate` there is compression besides: `Config::deflate`, by default with
/// every peer that has it too.
///
/// ```
/// use std::time::Duration;
/// use ws_core::Config;
///
/// let config = Config::new()
///     .max_message_size(16 << 20)
///     .keepalive_interval(Duration::from_secs(45));
/// assert_eq!(config.max_message_size, 16 << 20);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The largest message accepted, in bytes, over all its fragments. A larger one ends the
    /// connection with 1009. The application's own messages may be larger.
    pub max_message_size: usize,
    /// The largest frame accepted, in bytes; `None` for as large as a message, or for any size if it
    /// is compressed, which is inflated as it arrives. It is checked on the header, before any
    /// payload is awaited. A larger one ends the connection with 1009.
    pub max_frame_size: Option<usize>,
    /// How much may wait for the application before reading stops, in bytes. A message counts its
    /// payload plus 64 bytes. A single message may exceed it, and a session's receiver has as much
    /// in its hands beside it.
    pub inbox_high_water: usize,
    /// How much may wait for the socket before `send` waits, in bytes. A message counts its
    /// payload plus 64 bytes. A single message may exceed it.
    pub outgoing_high_water: usize,
    /// How much may wait for the application on HTTP/2, in bytes, where reading must not stop.
    /// Beyond it a session ends the socket with 1013.
    pub http2_receive_cap: usize,
    /// How long the peer may be silent before it is asked for a sign of life with a ping; `None`
    /// never asks. The ping leaves after this time, or up to a quarter of it later.
    pub keepalive_interval: Option<Duration>,
    /// How long the peer may be silent after that ping has left. Then the connection is cut. Any
    /// byte is a sign of life, and the time does not run while reading is stopped on this side.
    pub keepalive_timeout: Duration,
    /// How long to wait for the peer's answer to a Close, and for the peer to end the stream. Then
    /// the connection is cut.
    pub close_timeout: Duration,
    /// How long a write may make no progress; then the connection is cut. `None` waits for ever.
    pub write_timeout: Option<Duration>,
    /// How long a handshake may take: on a server from the acceptance until the bytes are handed
    /// over. The engine has no handshake under way, and does not look at it.
    pub handshake_timeout: Duration,
    /// Compression of messages, permessage-deflate (RFC 7692): how to compress, and what to agree
    /// on with the peer; `None` offers and accepts none. See [`deflate`](crate::deflate) for what
    /// it costs and brings, and for when to leave it off.
    #[cfg(feature = "deflate")]
    pub deflate: Option<Deflate>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_message_size: 1 << 20,
            max_frame_size: None,
            inbox_high_water: 64 << 10,
            outgoing_high_water: 64 << 10,
            http2_receive_cap: 1 << 20,
            // Proxies cut what is silent for 60 s (nginx, ALB): two tries fit in.
            keepalive_interval: Some(Duration::from_secs(20)),
            keepalive_timeout: Duration::from_secs(20),
            close_timeout: Duration::from_secs(5),
            write_timeout: Some(Duration::from_secs(30)),
            handshake_timeout: Duration::from_secs(10),
            #[cfg(feature = "deflate")]
            deflate: Some(Deflate::default()),
        }
    }
}

impl Config {
    /// The default limits and times.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the largest message accepted, in bytes. Default: 1 MiB.
    #[must_use]
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        self.max_message_size = bytes;
        self
    }

    /// Sets the largest frame accepted, in bytes; `None` for as large as a message. Default:
    /// `None`.
    #[must_use]
    pub fn max_frame_size(mut self, bytes: impl Into<Option<usize>>) -> Self {
        self.max_frame_size = bytes.into();
        self
    }

    /// Sets how much may wait for the application before reading stops, in bytes. Default:
    /// 64 KiB.
    #[must_use]
    pub fn inbox_high_water(mut self, bytes: usize) -> Self {
        self.inbox_high_water = bytes;
        self
    }

    /// Sets how much may wait for the socket before `send` waits, in bytes. Default: 64 KiB.
    #[must_use]
    pub fn outgoing_high_water(mut self, bytes: usize) -> Self {
        self.outgoing_high_water = bytes;
        self
    }

    /// Sets how much may wait for the application on HTTP/2, in bytes. Default: 1 MiB.
    #[must_use]
    pub fn http2_receive_cap(mut self, bytes: usize) -> Self {
        self.http2_receive_cap = bytes;
        self
    }

    /// Sets how long the peer may be silent before it is pinged; `None` never pings. Default:
    /// 20 s.
    #[must_use]
    pub fn keepalive_interval(mut self, silence: impl Into<Option<Duration>>) -> Self {
        self.keepalive_interval = silence.into();
        self
    }

    /// Sets how long the peer may be silent after a keepalive ping has left. Default: 20 s.
    #[must_use]
    pub fn keepalive_timeout(mut self, deadline: Duration) -> Self {
        self.keepalive_timeout = deadline;
        self
    }

    /// Sets how long to wait for the peer's part of the closing handshake. Default: 5 s.
    #[must_use]
    pub fn close_timeout(mut self, deadline: Duration) -> Self {
        self.close_timeout = deadline;
        self
    }

    /// Sets how long a write may make no progress; `None` waits for ever. Default: 30 s.
    #[must_use]
    pub fn write_timeout(mut self, deadline: impl Into<Option<Duration>>) -> Self {
        self.write_timeout = deadline.into();
        self
    }

    /// Sets how long a handshake may take. Default: 10 s.
    #[must_use]
    pub fn handshake_timeout(mut self, deadline: Duration) -> Self {
        self.handshake_timeout = deadline;
        self
    }

    /// Sets how messages are compressed, and what to agree on with the peer; `None` neither
    /// offers nor accepts compression. Default: [`Deflate::default`].
    ///
    /// ```
    /// use ws_core::{Config, Deflate};
    ///
    /// let config = Config::new().deflate(Deflate::new().threshold(1024));
    /// assert_eq!(config.deflate.map(|deflate| deflate.threshold), Some(1024));
    /// assert_eq!(Config::new().deflate(None).deflate, None);
    /// ```
    #[cfg(feature = "deflate")]
    #[must_use]
    pub fn deflate(mut self, deflate: impl Into<Option<Deflate>>) -> Self {
        self.deflate = deflate.into();
        self
    }
}
