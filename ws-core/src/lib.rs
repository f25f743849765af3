//! A WebSocket engine without I/O: RFC 6455 as values, over [`http`] types.
//!
//! Bytes go in, messages come out; messages go in, bytes come out. There is no socket, no clock,
//! no runtime and no `async` in it: you own the stream and the time, the engine owns the protocol.
//!
//! ```text
//!  bytes provider                         bytes processing: this crate
//!  ┌────────────────────────┐             ┌──────────────────────────────────────────────────┐
//!  │ yours: a socket, TLS,  │             │ connection  messages ↔ events: ping, close, time │
//!  │ an HTTP/2 stream, a    │   receive   │ ┌──────────────────────────────────────────────┐ │
//!  │ pipe, a slice in a     │ ──────────▶ │ │ stream    frames ↔ messages: UTF-8, sizes    │ │
//!  │ test                   │             │ │ ┌──────────────────────────────────────────┐ │ │
//!  │                        │  transmit   │ │ │ frame   bytes ↔ frames: header, mask     │ │ │
//!  │                        │ ◀────────── │ │ └──────────────────────────────────────────┘ │ │
//!  └────────────────────────┘             │ └──────────────────────────────────────────────┘ │
//!                                         └──────────────────────────────────────────────────┘
//! ```
//!
//! # When to use it
//!
//! Directly, for a runtime other than tokio, for blocking I/O, inside a framework, a proxy or a
//! simulator. On hyper, axum or any other Tower stack take `ws-tower`, which drives this engine.
//!
//! # The order of calls
//!
//! 1. **Open.** A server makes an [`Offer`](handshake::server::Offer) of the request, and answers
//!    with what [`accept`](handshake::server::Offer::accept) returns. A client sends the request of
//!    a [`Handshake`](handshake::client::Handshake), and gives the response to
//!    [`finish`](handshake::client::Handshake::finish).
//! 2. **Build.** [`Connection::new`] with the [`Role`] and the [`Config`]. Bytes that came behind
//!    the request or the response are its first input.
//! 3. **Drive**, until [`is_done`](Connection::is_done):
//!
//! | when | call |
//! |---|---|
//! | bytes came, and [`wants_read`](Connection::wants_read) asked for them | [`receive`](Connection::receive) |
//! | the stream has ended | [`receive_eof`](Connection::receive_eof) |
//! | the deadline of [`poll_timeout`](Connection::poll_timeout) has passed | [`handle_timeout`](Connection::handle_timeout) |
//! | the application has a message | [`send`](Connection::send), or [`close`](Connection::close) |
//! | after any of these | [`poll`](Connection::poll) until `None`; write [`transmit`](Connection::transmit); sleep until [`poll_timeout`](Connection::poll_timeout) |
//! | [`wants_shutdown`](Connection::wants_shutdown) | shut the write side down, go on reading |
//!
//! What RFC 6455 requires to be answered, the engine answers: pings, and the peer's Close. What is
//! left to choose is the caller's.
//!
//! ```
//! use bytes::Buf;
//! use ws_core::{
//!     CloseCode, CloseFrame, Config, Connection, Event, Message, Role,
//!     handshake::{client::Handshake, server::Offer},
//! };
//!
//! // 1. Open: here the request and the response go from hand to hand.
//! let handshake = Handshake::new(&"ws://chat.example/echo".parse()?)?;
//! let (request, ()) = handshake.request().into_parts();
//! let (response, _) = Offer::from_request(&request)?.accept(None)?;
//! handshake.finish(&response)?;
//!
//! // 2. Build.
//! let mut client = Connection::new(Role::Client, Config::new());
//! let mut server = Connection::new(Role::Server, Config::new().max_message_size(64 << 10));
//!
//! // 3. Drive: what one end transmits, the other receives.
//! fn carry(from: &mut Connection, to: &mut Connection) {
//!     while from.wants_write() {
//!         let mut bytes = from.transmit();
//!         let len = bytes.chunk().len();
//!         to.receive(bytes.chunk());
//!         bytes.advance(len); // what a socket has taken
//!     }
//! }
//!
//! client.send("Hello")?;
//! carry(&mut client, &mut server);
//! while let Some(event) = server.poll()? {
//!     if let Event::Message(message) = event {
//!         server.send(message)?;
//!     }
//! }
//! server.close(CloseFrame::new(CloseCode::NORMAL, "bye")?)?;
//! carry(&mut server, &mut client);
//! assert_eq!(client.poll()?, Some(Event::Message(Message::text("Hello"))));
//! assert!(matches!(client.poll()?, Some(Event::Close(Some(close))) if close.reason() == "bye"));
//!
//! // The answer to the Close is queued already. Then the server ends the stream (§7.1.1).
//! carry(&mut client, &mut server);
//! assert!(server.is_done());
//! client.receive_eof();
//! assert!(client.is_done() && client.error().is_none());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A driver over a real socket, with deadlines, is about a hundred lines: the example `engine` is
//! one on `std::net`.
//!
//! # What you can rely on
//!
//! - No input makes it panic. Input cut at any byte yields the same events and the same error.
//! - Everything is bounded, by [`Config`]: the largest message and frame, both queues, the pongs
//!   that wait. Sizes are checked on the frame's header, and memory grows with the bytes that
//!   arrive, never with what a header announces. The one exception is input forced on a
//!   [`Connection`] that does not [want it](Connection::wants_read).
//! - Text is checked as its bytes arrive. A [`Utf8Bytes`] is valid UTF-8, a [`CloseCode`] may
//!   travel: what cannot be right cannot be made.
//! - An error stays: every later call says the same, and a Close that tells the peer why is queued.
//! - No clock is read. A deadline begins with the first
//!   [`poll_timeout`](Connection::poll_timeout) after its cause.
//! - Masking keys (§5.3) come from the operating system's generator, many at a time.
//! - An idle [`Connection`] owns no buffer.
//!
//! # Where things are
//!
//! | | |
//! |---|---|
//! | [`connection`] | [`Connection`], its [`Event`]s, [fragmented sending](connection::Fragments) |
//! | [`handshake`] | the opening handshake, both ends, HTTP/1.1 and extended CONNECT |
//! | [`frame`] | one frame's header and the mask, for tools |
//! | at the root | what a caller names: [`Message`], [`Utf8Bytes`], [`CloseFrame`], [`Config`], the errors |
//! | errors | [`ProtocolError`]: the peer's fault; [`ConnectionError`]: how a connection failed; [`SendError`]: the caller's; [`Rejection`](handshake::server::Rejection) and [`Refusal`](handshake::client::Refusal): no connection |
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `deflate` | compression, permessage-deflate (RFC 7692): the handshake [agrees on it](handshake::server::Offer::negotiate), and the connection is told [what was agreed on](Connection::with_extensions); the module `deflate` says what it costs |
//! | `blocking` | the module `blocking`: a socket on blocking I/O, over any `Read + Write`, and a client and a server on [`std::net`] |
//! | `rustls` | `wss` for it |
//!
//! None is on by default.
//!
//! The crates whose types are in the signatures of this one are to be had from it, in the version that
//! fits: [`http`], [`bytes`], and with the feature `rustls` that.
#![deny(unsafe_code)]
#![warn(clippy::indexing_slicing)]

#[cfg(feature = "blocking")]
pub mod blocking;
mod close;
mod config;
pub mod connection;
mod error;
pub mod frame;
pub mod handshake;
mod message;
mod stream;
mod text;

pub use bytes;
pub use close::{Close, CloseCode, CloseFrame, InvalidCloseCode, ReasonTooLong};
#[cfg(feature = "deflate")]
pub use config::deflate::{self, Deflate};
pub use config::{Config, Role};
pub use connection::{Connection, Event, Scratch};
pub use error::{ConnectionError, ProtocolError, SendError};
pub use http;
pub use message::{Compress, Message};
#[cfg(feature = "rustls")]
pub use rustls;
pub use stream::{outgoing::Outgoing, prepared::PreparedMessage};
pub use text::Utf8Bytes;
