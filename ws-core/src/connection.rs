//! The connection: messages and events, closing, and time.
//!
//! The outer doll, and the one that most callers hold. It has no socket and no clock: bytes that
//! came in go into it, bytes to send come out of it, and the time is an argument. It answers
//! what RFC 6455 requires to be answered (pings, the Close frame); everything else is the
//! caller's to decide.
//!
//! The methods of [`Connection`] are of four kinds:
//!
//! | kind | methods | when |
//! |---|---|---|
//! | input | [`receive`](Connection::receive), [`read_buf`](Connection::read_buf), [`receive_eof`](Connection::receive_eof), [`handle_timeout`](Connection::handle_timeout) | bytes came, the stream ended, time passed |
//! | commands | [`send`](Connection::send), [`send_prepared`](Connection::send_prepared), [`start_text`](Connection::start_text), [`ping`](Connection::ping), [`close`](Connection::close) | the application wants something |
//! | outputs | [`poll`](Connection::poll), [`transmit`](Connection::transmit), [`poll_timeout`](Connection::poll_timeout) | after any of the above, in this order |
//! | facts | [`is_open`](Connection::is_open), [`close_received`](Connection::close_received), [`is_done`](Connection::is_done), … | any time |
//!
//! A driver is a loop: read when [`wants_read`](Connection::wants_read), give the bytes to
//! [`receive`](Connection::receive), take events from [`poll`](Connection::poll), write what
//! [`transmit`](Connection::transmit) holds, sleep until
//! [`poll_timeout`](Connection::poll_timeout), and stop when [`is_done`](Connection::is_done).
//!
//! ```
//! use bytes::Buf;
//! use ws_core::{Config, Connection, Event, Message, Role};
//!
//! let mut server = Connection::new(Role::Server, Config::default());
//! server.receive(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"); // RFC 6455 §5.7
//! while let Some(event) = server.poll()? {
//!     if let Event::Message(message) = event {
//!         server.send(message)?;
//!     }
//! }
//! assert_eq!(server.transmit().chunk(), b"\x81\x05Hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::{collections::VecDeque, mem, num::NonZeroU32, sync::Arc, time::Instant};

use bytes::{Buf, Bytes, BytesMut};

use crate::{
    Close, CloseCode, CloseFrame, Compress, Config, ConnectionError, Message, Role, SendError,
    Utf8Bytes,
    frame::{MAX_CONTROL_PAYLOAD, OpCode},
    handshake::extensions::Extensions,
    stream::{
        decoder::Decoder,
        deflate::Compression,
        encoder::{Encoder, Head},
        outgoing::Outgoing,
        prepared::{self, PreparedMessage},
    },
};

mod batch;
mod compression;
mod deadline;
mod ending;
mod fragments;
mod heartbeat;
mod inbox;
mod incoming;
mod round_trip;
mod scratch;
mod time;
mod transmit;

use ending::End;
pub use fragments::Fragments;
use heartbeat::Heartbeat;
use inbox::Inbox;
use incoming::LastWord;
use round_trip::RoundTrip;
pub use scratch::Scratch;
pub use transmit::Transmit;

/// What a message in a queue counts beyond its payload, in bytes: an empty message is not free.
pub(crate) const MESSAGE_OVERHEAD: usize = 64;

/// Something that came from the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "these are the frames of RFC 6455 §5.2"
)]
pub enum Event {
    /// A whole message.
    Message(Message),
    /// A ping, at most 125 bytes. The pong is queued already.
    Ping(Bytes),
    /// A pong, at most 125 bytes, whether it was asked for or not.
    Pong(Bytes),
    /// The peer's Close; `None` when it gave no code. The answer is queued already, and no event
    /// comes after it.
    Close(Option<CloseFrame>),
}

/// One end of a WebSocket connection, without its socket.
///
/// See the [module documentation](self) for how its methods belong together.
#[derive(Debug)]
// In this order: a broadcast goes from connection to connection and finds each of them cold, so
// what queues a message lies together.
#[repr(C)]
pub struct Connection {
    outgoing: Outgoing,
    /// What the messages in `outgoing` count, and those of the batch before them.
    outgoing_cost: usize,
    config: Arc<Config>,
    /// How it ended; `None` while it is open.
    end: Option<Box<End>>,
    /// What a connection has that has agreed on compression.
    compression: Option<Box<Compression>>,
    encoder: Encoder,
    /// Whether a message sent in fragments is under way.
    unfinished: bool,
    /// Whether the batch has been taken.
    batch_is_out: bool,
    /// Whether the probe is in the batch.
    batch_probe: bool,
    role: Role,
    options: Options,
    /// The bytes that are sealed for writing and not written yet.
    batch: usize,
    batch_cost: usize,
    /// What an idle connection has not, in a box that it has not either.
    rare: Option<Box<Rare>>,
    inbox: Inbox,
    decoder: Decoder,
    heartbeat: Heartbeat,
    probe: Probe,
}

/// What the driver asked for.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is asked for by itself")]
struct Options {
    /// Report pings, pongs and the Close as events.
    control_events: bool,
    /// Stop parsing, and ask not to read, while the inbox is full.
    pauses: bool,
    /// Throw messages away.
    discards: bool,
    /// Throw messages away that do not fit.
    discards_overflow: bool,
}

/// Pings that the caller does not name: numbered, the newest answers for all before it.
#[derive(Debug, Default)]
struct Probe {
    queued: bool,
    newest: u32,
    answered: u32,
    /// What the newest round trip took, in microseconds.
    latency: Option<NonZeroU32>,
}

/// What a connection has for a while only.
#[derive(Debug, Default)]
struct Rare {
    /// Input that waits for room in the inbox.
    unparsed: BytesMut,
    /// Pongs that wait, encoded: at most [`MAX_PONGS`] and one more.
    pongs: Vec<u8>,
    /// How the peer ended, while messages before that wait for the application.
    last_word: Option<LastWord>,
    write_due: Option<Instant>,
    close_due: Option<Instant>,
    /// A probe that is being measured.
    round_trip: Option<Box<RoundTrip>>,
}

impl Rare {
    fn is_empty(&self) -> bool {
        self.unparsed.is_empty()
            && self.pongs.is_empty()
            && self.last_word.is_none()
            && self.write_due.is_none()
            && self.close_due.is_none()
            && self.round_trip.is_none()
    }
}

impl Connection {
    /// Makes one end of a connection whose opening handshake is done.
    ///
    /// Many connections can share one configuration: give an `Arc<Config>`.
    pub fn new(role: Role, config: impl Into<Arc<Config>>) -> Self {
        Self {
            config: config.into(),
            role,
            decoder: Decoder::default(),
            encoder: Encoder::new(role),
            inbox: Inbox::default(),
            outgoing: Outgoing::default(),
            outgoing_cost: 0,
            batch: 0,
            batch_cost: 0,
            batch_is_out: false,
            batch_probe: false,
            probe: Probe::default(),
            heartbeat: Heartbeat::new(),
            compression: None,
            rare: None,
            end: None,
            unfinished: false,
            options: Options {
                control_events: true,
                pauses: true,
                discards: false,
                discards_overflow: false,
            },
        }
    }

    /// Uses what the opening handshake has agreed on: compression, with the feature `deflate`. How
    /// this end compresses is in [`Config::deflate`].
    ///
    /// Without it there is none, and a compressed message is a
    /// [`ProtocolError::ReservedBits`](crate::ProtocolError::ReservedBits).
    #[must_use]
    pub fn with_extensions(self, extensions: &Extensions) -> Self {
        let compression = compression::of(extensions, &self.config, self.role);
        Self {
            compression,
            ..self
        }
    }

    /// Replaces the source of masking keys, so that a test knows the bytes. A server ignores it.
    ///
    /// RFC 6455 §5.3 wants keys that the application cannot predict: leave the default, the
    /// operating system's generator, wherever the peer is real.
    #[must_use]
    pub fn with_mask_keys(mut self, keys: fn() -> [u8; 4]) -> Self {
        self.encoder = self.encoder.with_keys(keys);
        self
    }

    /// Keeps [`Event::Ping`], [`Event::Pong`] and [`Event::Close`] to itself: they are answered,
    /// and [`poll`](Self::poll) yields messages only.
    #[must_use]
    pub fn without_control_events(mut self) -> Self {
        self.options.control_events = false;
        self
    }

    /// Never asks to stop reading, for a transport where reading must go on, such as a stream of
    /// HTTP/2. The caller then looks at [`inbox_size`](Self::inbox_size) and draws the line.
    #[must_use]
    pub fn without_pauses(mut self) -> Self {
        self.options.pauses = false;
        self
    }

    // Input.

    /// Takes bytes that came from the peer.
    ///
    /// All of them are taken; nothing is returned. Call [`poll`](Self::poll) for what they
    /// amount to. Bytes that come although [`wants_read`](Self::wants_read) says no are kept,
    /// without a bound. After a Close or an error they are thrown away.
    pub fn receive(&mut self, input: &[u8]) {
        if self.is_deaf() {
            return;
        }
        if self.decoder.has_appended() {
            self.heartbeat.input();
            match self.decoder.take_appended() {
                Ok((event, behind)) => {
                    if let Some(event) = event {
                        self.on_event(event);
                    }
                    self.parse(&behind);
                }
                Err(error) => self.reject(error),
            }
        }
        if !input.is_empty() {
            self.heartbeat.input();
            self.parse(input);
        }
    }

    /// Lends the buffer of a large message that is under way, with room at its end.
    ///
    /// Reading straight into it saves a copy. Append what came, then call
    /// [`receive`](Self::receive) with nothing. More than the message may be appended. `None`:
    /// no frame misses so many bytes that this would pay; read elsewhere and call `receive`.
    pub fn read_buf(&mut self) -> Option<&mut Vec<u8>> {
        if self.is_deaf() || self.has_unparsed() {
            return None;
        }
        self.decoder.read_buf()
    }

    /// Takes the buffer that [`read_buf`](Self::read_buf) would lend, so that it can be read into
    /// while others use the connection. Give it back with
    /// [`receive_buf`](Self::receive_buf) before any other input.
    pub fn take_read_buf(&mut self) -> Option<Vec<u8>> {
        self.read_buf().map(mem::take)
    }

    /// Takes the buffer of [`take_read_buf`](Self::take_read_buf) back, with what was appended.
    pub fn receive_buf(&mut self, buffer: Vec<u8>) {
        if !self.is_deaf() {
            self.decoder.restore(buffer);
            self.receive(&[]);
        }
    }

    /// Takes the news that the peer's stream has ended.
    ///
    /// Without a Close before it, the connection has failed (RFC 6455 §7.1.5: 1006).
    pub fn receive_eof(&mut self) {
        // What came before the end is delivered, however much waits already.
        let pauses = mem::replace(&mut self.options.pauses, false);
        self.resume();
        self.options.pauses = pauses;
        self.hear_last_word();
        let end = self.end.get_or_insert_default();
        end.eof = true;
        if end.received.is_none() && end.error.is_none() {
            self.fail(ConnectionError::UnexpectedEof);
        }
    }

    // Commands.

    /// Queues a message.
    ///
    /// # Errors
    ///
    /// [`SendError::Full`] above the high-water mark of the outgoing queue
    /// ([`is_writable`](Self::is_writable) tells beforehand), [`SendError::Closed`] after a
    /// Close either way, [`SendError::MessageUnfinished`] amid a fragmented message. Nothing is
    /// queued then.
    #[inline]
    pub fn send(&mut self, message: impl Into<Message>) -> Result<(), SendError> {
        self.send_ref(&message.into())
    }

    /// Queues a message that the caller keeps.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    #[inline]
    pub fn send_ref(&mut self, message: &Message) -> Result<(), SendError> {
        self.sendable()?;
        self.send_promised(message)
    }

    /// Queues a message above the high-water mark too, for a caller that was promised room
    /// before: a promise of one message each, however many hold one.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send), but for [`SendError::Full`].
    #[inline]
    pub fn send_promised(&mut self, message: &Message) -> Result<(), SendError> {
        self.free()?;
        self.write(message, Compress::Auto);
        Ok(())
    }

    /// Queues a message, compressed or not as `compress` says.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    pub fn send_with(&mut self, message: &Message, compress: Compress) -> Result<(), SendError> {
        self.sendable()?;
        self.write(message, compress);
        Ok(())
    }

    #[inline]
    fn write(&mut self, message: &Message, compress: Compress) {
        self.outgoing_cost += message.len() + MESSAGE_OVERHEAD;
        let opcode = prepared::opcode(message);
        if let Some(compression) = &mut self.compression {
            let (encoder, out) = (self.encoder, &mut self.outgoing);
            if compression.message(encoder, out, opcode, message.as_bytes(), compress) {
                return;
            }
        }
        let head = Head::whole(opcode);
        self.encoder
            .data(&mut self.outgoing, head, message.payload());
    }

    /// Queues a message that is encoded already.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    pub fn send_prepared(&mut self, message: &PreparedMessage) -> Result<(), SendError> {
        self.sendable()?;
        self.send_prepared_promised(message)
    }

    /// Queues a message that is encoded already, above the high-water mark too: see
    /// [`send_promised`](Self::send_promised).
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send), but for [`SendError::Full`].
    pub fn send_prepared_promised(&mut self, message: &PreparedMessage) -> Result<(), SendError> {
        self.free()?;
        self.outgoing_cost += message.message().len() + MESSAGE_OVERHEAD;
        let compression = self.compression.as_deref_mut();
        message.write(self.encoder, compression, &mut self.outgoing);
        Ok(())
    }

    /// Begins a text message that is sent in fragments (RFC 6455 §5.4), for one that is not
    /// whole yet or larger than memory.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    pub fn start_text(&mut self) -> Result<Fragments<Utf8Bytes>, SendError> {
        self.start(OpCode::Text)
    }

    /// Begins a binary message that is sent in fragments (RFC 6455 §5.4).
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    pub fn start_binary(&mut self) -> Result<Fragments<Bytes>, SendError> {
        self.start(OpCode::Binary)
    }

    fn start<P>(&mut self, opcode: OpCode) -> Result<Fragments<P>, SendError> {
        self.sendable()?;
        self.unfinished = true;
        Ok(Fragments::new(opcode))
    }

    /// Queues a ping of at most 125 bytes, in line with the messages. Its answer is an
    /// [`Event::Pong`] with the same bytes.
    ///
    /// # Errors
    ///
    /// [`SendError::PingTooLong`], or those of [`send`](Self::send).
    pub fn ping(&mut self, payload: &[u8]) -> Result<(), SendError> {
        if payload.len() > MAX_CONTROL_PAYLOAD {
            return Err(SendError::PingTooLong);
        }
        self.open()?;
        self.room()?;
        self.outgoing_cost += payload.len() + MESSAGE_OVERHEAD;
        let encoder = self.encoder;
        self.outgoing
            .write(|buffer| encoder.frame(buffer, Head::whole(OpCode::Ping), payload));
        Ok(())
    }

    /// Asks the peer for a sign of life, ahead of the messages that wait, and returns the number
    /// of the question. It is answered when [`answered_probe`](Self::answered_probe) has reached
    /// the number. Keepalive asks the same way.
    ///
    /// Only one such ping is in the queue at a time; the newest stands for all.
    pub fn probe(&mut self) -> u32 {
        if self.end.is_none() {
            self.probe.queued = true;
        }
        self.probe.newest = self.probe.newest.wrapping_add(1);
        self.probe.newest
    }

    /// Queues a Close, after all that was sent before; `None` gives no code. No message can be
    /// sent any more, but the peer's are still received until its own Close. An application that
    /// does not take them any more should say so with
    /// [`discard_overflow`](Self::discard_overflow), or the Close behind them is found late.
    ///
    /// # Errors
    ///
    /// [`SendError::Closed`] when a Close has been queued before or the connection has failed,
    /// [`SendError::ServerSent1010`] for a code that is for clients.
    pub fn close(&mut self, close: impl Into<Option<CloseFrame>>) -> Result<(), SendError> {
        let close = close.into();
        let mandatory_extension = close
            .as_ref()
            .is_some_and(|close| close.code() == CloseCode::MANDATORY_EXTENSION);
        if self.role == Role::Server && mandatory_extension {
            return Err(SendError::ServerSent1010);
        }
        self.open()?;
        self.queue_close(close);
        // An application that has closed counts on no answers.
        self.hear_last_word();
        Ok(())
    }

    /// From now on throws away messages that do not fit into the inbox, instead of stopping to
    /// read.
    pub fn discard_overflow(&mut self) {
        self.options.discards_overflow = true;
        self.resume();
    }

    /// Throws away the messages that wait and all that come, for an application that only sends.
    /// Pings and the Close are still seen to. There is no way back.
    pub fn discard_incoming(&mut self) {
        self.options.discards = true;
        self.inbox.clear();
        self.resume();
        self.hear_last_word();
    }

    // Outputs.

    /// Takes the next event.
    ///
    /// # Errors
    ///
    /// [`ConnectionError`] when the connection has failed and all events before that have been
    /// taken; from then on every call says so. A Close is no error.
    ///
    /// When the peer closes or breaks the protocol, that takes effect with the call that says so,
    /// not before: the messages until then can still be answered, whether they came in the same
    /// read or not. An application that leaves them lying has a quarter of
    /// [`Config::close_timeout`]; one that has none to take is not waited for.
    #[inline]
    pub fn poll(&mut self) -> Result<Option<Event>, ConnectionError> {
        let event = self.inbox.pop();
        if self.has_unparsed() && self.inbox.is_empty() {
            // Not only when the next event is asked for: a ping or a Close may wait there.
            self.resume();
        }
        if let Some(event) = event.or_else(|| self.inbox.pop()) {
            return Ok(Some(event));
        }
        self.hear_last_word();
        match (self.inbox.pop(), self.error()) {
            (None, Some(error)) => Err(error),
            (event, _) => Ok(event),
        }
    }

    /// Adds all events that wait to `events`, for a driver that hands them on one by one. They count no more in [`inbox_size`](Self::inbox_size).
    ///
    /// # Errors
    ///
    /// Those of [`poll`](Self::poll), when there are no more events.
    pub fn take_events(&mut self, events: &mut VecDeque<Event>) -> Result<(), ConnectionError> {
        self.inbox.take(events);
        if self.has_unparsed() {
            self.resume();
            if events.is_empty() {
                self.inbox.take(events);
            }
        }
        if !events.is_empty() {
            return Ok(());
        }
        self.hear_last_word();
        self.inbox.take(events);
        match self.error() {
            Some(error) if events.is_empty() => Err(error),
            _ => Ok(()),
        }
    }

    /// The bytes to write, as a [`Buf`]. Advance it by what has been written.
    ///
    /// What is lent at once is a batch of whole frames; when it is used up, ask again. Pongs and
    /// pings go before everything that was not in a batch yet.
    pub fn transmit(&mut self) -> Transmit<'_> {
        self.seal();
        Transmit(self)
    }

    /// Takes the batch that [`transmit`](Self::transmit) would lend, so that it can be written
    /// while others use the connection. Report progress with
    /// [`transmitted`](Self::transmitted): before all is written, there is nothing more to take.
    pub fn take_transmit(&mut self) -> Outgoing {
        if self.batch_is_out {
            return Outgoing::default();
        }
        self.seal();
        self.batch_is_out = self.batch > 0;
        if self.outgoing.len() > self.batch {
            // It has been lent and not used up, and more is queued behind it. That stays: a pong
            // may have to come between.
            let mut rest = Outgoing::default();
            rest.push(self.outgoing.copy_to_bytes(self.batch));
            return rest;
        }
        mem::take(&mut self.outgoing)
    }

    /// Takes the news that `count` bytes of the batch have been written.
    pub fn transmitted(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        // A peer that closes has one deadline for all that is left, not one for each byte.
        if let Some(rare) = &mut self.rare
            && self.end.is_none()
        {
            rare.write_due = None;
        }
        self.heartbeat.restart();
        self.batch = self.batch.saturating_sub(count);
        if self.batch == 0 {
            self.batch_is_out = false;
            self.outgoing_cost -= mem::take(&mut self.batch_cost);
            if mem::take(&mut self.batch_probe) {
                self.heartbeat.left();
                if let Some(round_trip) = self.round_trip() {
                    round_trip.leave();
                }
            }
        }
    }

    /// Gives the connection the room of `scratch` to work in, where it has none of its own.
    ///
    /// A driver of many connections lends each the same room in turn, and takes it back with
    /// [`release`](Self::release): then queues allocate nothing while it works, and an idle
    /// connection owns none.
    #[inline]
    pub fn lend(&mut self, scratch: &mut Scratch) {
        self.inbox.lend(&mut scratch.events);
        self.outgoing.lend(&mut scratch.bytes);
    }

    /// Frees what an idle connection does not need, into `scratch` if it has none.
    #[inline]
    pub fn release(&mut self, scratch: &mut Scratch) {
        self.inbox.release(&mut scratch.events);
        self.outgoing.release(scratch);
        if let Some(rare) = &self.rare
            && rare.is_empty()
        {
            self.rare = None;
        }
    }

    // Facts.

    /// How this end compresses: the settings of [`Config::deflate`], with the window that was
    /// agreed on. `None`: it sends messages as they are.
    ///
    /// With it a large message can be [compressed](PreparedMessage::deflate) outside a lock that
    /// guards the connection.
    #[cfg(feature = "deflate")]
    pub fn deflate(&self) -> Option<crate::Deflate> {
        let own = self.compression.as_ref()?.settings()?;
        let settings = self.config.deflate.clone().unwrap_or_default();
        let bits = crate::deflate::WindowBits::new(own.window_bits).ok()?;
        Some(settings.own_window_bits(bits))
    }

    /// Which end this is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The limits and times.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Whether messages can be sent: no Close has gone either way, and nothing has failed. What
    /// the peer breaks counts when the events before it have been taken: see
    /// [`poll`](Self::poll).
    pub fn is_open(&self) -> bool {
        self.end.is_none()
    }

    /// Whether the outgoing queue is below its high-water mark.
    #[inline]
    pub fn is_writable(&self) -> bool {
        self.outgoing_cost < self.config.outgoing_high_water.max(1)
    }

    /// Whether reading is wanted. Not while the application has more than the high-water mark of
    /// the inbox to take, not once the stream has ended. What comes after a Close or an error is
    /// read and thrown away.
    #[inline]
    pub fn wants_read(&self) -> bool {
        match &self.end {
            Some(end) if end.eof || end.done => false,
            Some(end) if end.received.is_some() || end.error.is_some() => true,
            _ => !self.may_pause() || !self.has_unparsed() && self.has_room(),
        }
    }

    /// Whether there are bytes to write, those of an unfinished batch included.
    #[inline]
    pub fn wants_write(&self) -> bool {
        self.batch > 0 || self.outgoing.len() > 0 || self.has_control()
    }

    /// Whether a full inbox stops reading: see [`without_pauses`](Self::without_pauses).
    pub fn pauses(&self) -> bool {
        self.options.pauses
    }

    /// How much waits for the application: payloads plus 64 bytes for each message.
    pub fn inbox_size(&self) -> usize {
        self.inbox.cost()
    }

    /// How much waits for the socket: payloads plus 64 bytes for each message.
    pub fn outgoing_size(&self) -> usize {
        self.outgoing_cost
    }

    /// Whether an event or an error waits for [`poll`](Self::poll).
    pub fn has_events(&self) -> bool {
        !self.inbox.is_empty()
            || self.has_unparsed()
            || self.has_last_word()
            || self.error().is_some()
    }

    /// The number of the newest [`probe`](Self::probe) that the peer has answered.
    pub fn answered_probe(&self) -> u32 {
        self.probe.answered
    }

    /// The Close that was sent or is queued.
    pub fn close_sent(&self) -> Option<&Close> {
        self.end.as_ref()?.sent.as_ref()
    }

    /// The peer's Close.
    pub fn close_received(&self) -> Option<&Close> {
        self.end.as_ref()?.received.as_ref()
    }

    /// Why the connection failed, if it did.
    #[inline]
    pub fn error(&self) -> Option<ConnectionError> {
        self.end.as_ref()?.error
    }

    /// Whether the write side should be shut down: all is written, and nothing will follow.
    ///
    /// A client leaves that to the server, which ends the stream first (RFC 6455 §7.1.1).
    pub fn wants_shutdown(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.error.is_some()) && !self.wants_write()
    }

    /// Whether the stream ends with the batch that is being written: nothing will follow, and when
    /// it has left the write side is shut down, or the stream dropped. A driver may shut down where
    /// it would flush, so that the end travels with it.
    #[inline]
    pub fn is_last_batch(&self) -> bool {
        let Some(end) = &self.end else { return false };
        let behind = if self.batch_is_out { 0 } else { self.batch };
        self.batch > 0
            && self.outgoing.len() == behind
            && !self.has_control()
            && (end.error.is_some() || self.role == Role::Server && self.close_is_answered())
    }

    /// Whether nothing is left to do: the stream can be dropped.
    ///
    /// After a clean closing handshake a server ends the stream at once, and a client waits for
    /// that. After an error all is written that can be, and then the peer's bytes are thrown away
    /// for a while, so that a reset does not eat the Close. An unanswered keepalive or a stalled
    /// write ends at once; one last write may be tried.
    pub fn is_done(&self) -> bool {
        let Some(end) = &self.end else { return false };
        end.done
            || !self.wants_write()
                && (end.eof || self.role == Role::Server && self.close_is_answered())
    }

    // Helpers.

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    #[inline]
    fn open(&self) -> Result<(), SendError> {
        match self.end {
            None => Ok(()),
            Some(_) => Err(SendError::Closed),
        }
    }

    /// Whether a message may begin.
    #[inline]
    fn free(&self) -> Result<(), SendError> {
        self.open()?;
        if self.unfinished {
            return Err(SendError::MessageUnfinished);
        }
        Ok(())
    }

    #[inline]
    fn room(&self) -> Result<(), SendError> {
        if self.is_writable() {
            Ok(())
        } else {
            Err(SendError::Full)
        }
    }

    #[inline]
    fn sendable(&self) -> Result<(), SendError> {
        self.free()?;
        self.room()
    }
}

#[cfg(test)]
mod tests;
