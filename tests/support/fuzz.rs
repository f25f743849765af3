//! The bodies of the fuzz targets.
//!
//! They are functions, so that the stored corpora run through them as ordinary tests too.

use ws_core::{
    CloseCode, Config, Connection, ConnectionError, Event, Role,
    frame::{FrameHeader, MAX_CONTROL_PAYLOAD, OpCode},
};

use crate::{
    feed::{Input, Polling, Trace, feed},
    random::Random,
    wire::frames,
};

/// Small limits, so that short inputs reach them.
const MAX_MESSAGE: usize = 40_000;
const MAX_FRAME: usize = 30_000;

fn connection(role: Role) -> Connection {
    let config = Config::new()
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_FRAME)
        .inbox_high_water(300);
    Connection::new(role, config).with_mask_keys(|| [1, 2, 3, 4])
}

/// Any bytes from the peer: the same events, the same error and the same output however they are
/// cut, within the limits, and what is received can be sent again.
pub fn decode(role: Role, data: &[u8]) {
    let whole = feed(
        &mut connection(role),
        [data],
        Input::Receive,
        Polling::AtTheEnd,
    );
    let bytes = data.chunks(1);
    let single = feed(
        &mut connection(role),
        bytes,
        Input::Receive,
        Polling::Between,
    );
    assert_eq!(whole, single, "byte by byte");
    for polling in [Polling::Between, Polling::AtTheEnd] {
        let mut random = Random::from_bytes(data);
        let mut rest = data;
        let pieces = std::iter::from_fn(|| {
            let len = 1 + random.below(rest.len().min(5000));
            let (piece, behind) = rest.split_at_checked(len)?;
            rest = behind;
            Some(piece)
        });
        let mut cut = connection(role);
        let trace = feed(&mut cut, pieces, Input::ReadBuf, polling);
        assert_eq!(whole, trace, "in pieces");
        if cut.error().is_some() || cut.close_received().is_some() {
            let more = feed(&mut cut, [data], Input::ReadBuf, polling);
            assert_eq!((more.events.len(), more.output.len()), (0, 0), "it absorbs");
        }
    }
    check_output(&whole);
    send_again(role, &whole);
}

/// Pongs only, then at most one Close, which is the last; with the code that the error demands.
fn check_output(trace: &Trace) {
    let output = frames(&trace.output);
    let ends = matches!(trace.events.last(), Some(Event::Close(_))) || trace.error.is_some();
    for (place, (opcode, payload)) in output.iter().enumerate() {
        assert!(payload.len() <= MAX_CONTROL_PAYLOAD);
        let is_last = place + 1 == output.len();
        assert_eq!(*opcode == OpCode::Close, is_last && ends);
        assert!(matches!(opcode, OpCode::Close | OpCode::Pong));
    }
    assert!(!ends || !output.is_empty(), "the peer is told");
    if let Some(ConnectionError::Protocol(error)) = trace.error {
        let code = output.last().and_then(|(_, close)| close.first_chunk());
        let code = code.map(|code| CloseCode::new(u16::from_be_bytes(*code)));
        assert_eq!(code, Some(Ok(error.close_code())));
    }
}

/// What was received goes through another pair of connections unchanged.
fn send_again(role: Role, trace: &Trace) {
    let other = match role {
        Role::Client => Role::Server,
        Role::Server => Role::Client,
    };
    let (mut sender, mut receiver) = (connection(other), connection(role));
    for event in &trace.events {
        match event.clone() {
            Event::Message(message) => {
                assert!(message.len() <= MAX_MESSAGE);
                let fits = message.len() <= MAX_FRAME;
                assert_eq!(sender.send(message), Ok(()));
                if !fits {
                    return; // Received in fragments, and sent in one.
                }
            }
            Event::Ping(payload) => assert_eq!(sender.ping(&payload), Ok(())),
            Event::Pong(payload) => {
                assert!(payload.len() <= MAX_CONTROL_PAYLOAD);
                continue;
            }
            Event::Close(close) => {
                // A server cannot send 1010 back.
                let _ = sender.close(close);
            }
        }
        let output = crate::feed::written(&mut sender);
        let again = feed(&mut receiver, [&*output], Input::Receive, Polling::AtTheEnd);
        if !output.is_empty() {
            assert_eq!(again.events, std::slice::from_ref(event));
        }
    }
}

/// Any bytes as a header: what is parsed is encoded to the same bytes; fewer bytes are not
/// enough; an error stays the same error with more bytes.
pub fn header(data: &[u8]) {
    let data = data.get(..FrameHeader::MAX_LEN).unwrap_or(data);
    match FrameHeader::parse(data) {
        Ok(Some((header, len))) => {
            let mut encoded = Vec::new();
            header.encode(&mut encoded);
            assert_eq!(encoded, data[..len]);
            for cut in 0..len {
                assert_eq!(FrameHeader::parse(&data[..cut]), Ok(None));
            }
            assert!(header.payload_len < 1 << 63);
        }
        Ok(None) => assert!(data.len() < FrameHeader::MAX_LEN),
        Err(error) => {
            let first = (0..=data.len())
                .find_map(|end| FrameHeader::parse(&data[..end]).err())
                .expect("all of it is an error");
            assert_eq!(first, error);
        }
    }
}
