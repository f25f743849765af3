//! permessage-deflate: the codec of RFC 7692 §7.2, without its negotiation.
//!
//! [`Deflater`] makes the payload of a message smaller, [`Inflater`] turns it back into a message,
//! whole or in pieces; each is one direction of one connection. [`Deflated`] is a message that was
//! compressed once for many connections. All of them borrow zlib's states from a [`Pool`].
//!
//! # What an idle connection costs
//!
//! | | inline | heap between messages |
//! |---|---|---|
//! | [`Deflater`] | 40 bytes | none, or one of the pool's few kept compressors while it is busy |
//! | [`Inflater`] | 48 bytes | none; with the peer's context takeover its window, 256 bytes to 32 KiB |
//!
//! The **elastic context**: a sender may forget its window at any time, because a fresh
//! compressor refers to nothing and the receiver cannot tell. So a busy connection keeps its
//! compressor, for the speed and the ratio of context takeover; one that is idle at a
//! [`tick`](Deflater::tick), or that finds no place among the kept ones, has no more than one
//! without takeover.
//!
//! # What a message costs
//!
//! Measured with the test `price_of_a_message`, in the release profile, on one core of an AMD EPYC
//! server, with flate2 1.1.10 on zlib-rs 0.6.8: 200 different messages in turn, each about
//! 1,024 bytes of JSON. The columns *kept* are [`Context::Elastic`] on a busy connection, the
//! columns *fresh* [`Context::Fresh`] with a pool that has a spare state. A larger window makes
//! kept context better and nothing else: a fresh one holds a single message.
//!
//! | window | level | kept: bytes | deflate | inflate | fresh: bytes | deflate | inflate |
//! |---|---|---|---|---|---|---|---|
//! | 15 bits | 1 | 246 | 1.2 µs | 1.1 µs | 417 | 2.9 µs | 1.0 µs |
//! | | 2 | 192 | 5.2 µs | 1.7 µs | 320 | 8.2 µs | 1.8 µs |
//! | | 3 | 189 | 6.2 µs | 1.7 µs | 310 | 9.0 µs | 1.8 µs |
//! | | 6 | 181 | 8.7 µs | 1.6 µs | 301 | 9.4 µs | 1.8 µs |
//! | 12 bits | 1 | 308 | 1.7 µs | 0.9 µs | 417 | 2.8 µs | 1.0 µs |
//! | | 2 | 238 | 6.0 µs | 1.7 µs | 320 | 8.3 µs | 1.9 µs |
//! | | 3 | 222 | 6.6 µs | 1.6 µs | 310 | 9.1 µs | 1.9 µs |
//! | | 6 | 202 | 8.1 µs | 1.5 µs | 301 | 9.2 µs | 1.8 µs |
//!
//! The heap of one state, counted by the allocator, with the buffer that it writes to: a
//! compressor 379 KiB with a window of 15 bits, 267 with 12, 253 with 9, at any level; a
//! decompressor 63 KiB.
//!
//! # Secrets
//!
//! Compression tells how alike things are: where a secret and an attacker's text share a message,
//! or a context, the sizes on the wire betray the secret piece by piece (CRIME, BREACH). Send
//! such messages uncompressed.

mod compression;
mod compressor;
mod decompressor;
pub(crate) mod pool;
mod prepared;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub(crate) use self::{
    compression::Compression,
    compressor::{Context, Deflater, Outcome, Settings},
    decompressor::Inflater,
    pool::Pool,
    prepared::Deflated,
};

/// What a flush ends with, and what is therefore not sent (RFC 7692 §7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
