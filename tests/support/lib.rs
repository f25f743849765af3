//! What the tests share.
//!
//! | module | holds |
//! |---|---|
//! | [`broker`] | Redis and NATS, in processes of their own |
//! | [`deflate`] | a receiver of compressed messages that is as strict as can be |
//! | [`faulty`] | a broker for hubs in one process, with faults |
//! | [`feed`] | drives a connection with pieces of a stream, and writes down what comes of it |
//! | [`foreign`] | servers of other hands, in processes of their own |
//! | [`fuzz`] | the bodies of the fuzz targets |
//! | [`http2`] | a client of HTTP/2 that chooses its own frames |
//! | [`io`] | streams that count, stall and fail |
//! | [`peer`] | the other end of a session, in bytes |
//! | [`process`] | a server in a process of its own, to measure what it takes |
//! | [`proxy`] | small proxies, HTTP and SOCKS5 |
//! | [`random`] | a small generator of numbers that a seed repeats |
//! | [`raw`] | a client that knows nothing but bytes |
//! | [`scripted`] | a server that says what a script has it say |
//! | [`wire`] | frames as bytes, made and taken apart apart from the engine |
#![expect(
    clippy::missing_panics_doc,
    reason = "a helper that panics fails the test that uses it"
)]

pub mod broker;
pub mod deflate;
pub mod faulty;
pub mod feed;
pub mod foreign;
pub mod fuzz;
pub mod http2;
pub mod io;
pub mod peer;
pub mod process;
pub mod proxy;
pub mod random;
pub mod raw;
pub mod scripted;
pub mod wire;

/// The README's programs compile, and those that end run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
