//! What the tests share.
//!
//! | module | holds |
//! |---|---|
//! | [`deflate`] | a receiver of compressed messages that is as strict as can be |
//! | [`feed`] | drives a connection with pieces of a stream, and writes down what comes of it |
//! | [`fuzz`] | the bodies of the fuzz targets |
//! | [`io`] | streams that count, stall and fail |
//! | [`peer`] | the other end of a session, in bytes |
//! | [`process`] | a server in a process of its own, to measure what it takes |
//! | [`random`] | a small generator of numbers that a seed repeats |
//! | [`raw`] | a client that knows nothing but bytes |
//! | [`wire`] | frames as bytes, made and taken apart apart from the engine |
#![expect(
    clippy::missing_panics_doc,
    reason = "a helper that panics fails the test that uses it"
)]

pub mod deflate;
pub mod feed;
pub mod fuzz;
pub mod io;
pub mod peer;
pub mod process;
pub mod random;
pub mod raw;
pub mod wire;

/// The README's programs compile, and those that end run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
