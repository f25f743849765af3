//! Drives a connection with pieces of a stream.

use bytes::Buf;
use ws_core::{Connection, ConnectionError, Event};

/// By which way bytes go into the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there are two ways")]
pub enum Input {
    /// By `receive` alone.
    Receive,
    /// By `read_buf` wherever it lends a buffer.
    ReadBuf,
}

/// When events are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "these are the two extremes")]
pub enum Polling {
    /// After each piece.
    Between,
    /// After the last piece.
    AtTheEnd,
}

/// What came of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a record of a test")]
pub struct Trace {
    /// The events, in order.
    pub events: Vec<Event>,
    /// How it failed, if it did.
    pub error: Option<ConnectionError>,
    /// What was written, after all events had been taken.
    pub output: Vec<u8>,
}

/// Feeds pieces of a stream.
pub fn feed<'a>(
    connection: &mut Connection,
    pieces: impl IntoIterator<Item = &'a [u8]>,
    input: Input,
    polling: Polling,
) -> Trace {
    let mut trace = Trace::default();
    for piece in pieces {
        match connection.read_buf() {
            Some(buffer) if input == Input::ReadBuf => {
                buffer.extend_from_slice(piece);
                connection.receive(&[]);
            }
            _ => connection.receive(piece),
        }
        if polling == Polling::Between {
            poll(connection, &mut trace);
        }
    }
    poll(connection, &mut trace);
    trace.output = written(connection);
    trace
}

/// Takes all events.
pub fn poll(connection: &mut Connection, trace: &mut Trace) {
    loop {
        match connection.poll() {
            Ok(Some(event)) => {
                assert_eq!(trace.error, None, "an event after an error");
                assert!(
                    !matches!(trace.events.last(), Some(Event::Close(_))),
                    "an event after the Close"
                );
                trace.events.push(event);
            }
            Ok(None) => {
                assert_eq!(trace.error, None, "an error went away");
                return;
            }
            Err(error) => {
                assert_eq!(*trace.error.get_or_insert(error), error);
                assert_eq!(connection.error(), Some(error));
                return;
            }
        }
    }
}

/// Writes all that is to be written.
pub fn written(connection: &mut Connection) -> Vec<u8> {
    let mut written = Vec::new();
    while connection.wants_write() {
        let mut transmit = connection.transmit();
        let len = transmit.chunk().len();
        assert!(len > 0, "something is to be written, but nothing comes");
        written.extend_from_slice(transmit.chunk());
        transmit.advance(len);
    }
    written
}
