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
//! What a message costs, what a state weighs, and when not to compress is said for users, in the
//! public module `deflate`. The bench target `deflate` measures it.

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
