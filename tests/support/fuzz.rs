//! The bodies of the fuzz targets.
//!
//! They are functions, so that the stored corpora run through them as ordinary tests too.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
};
use ws_core::{
    CloseCode, Config, Connection, ConnectionError, Event, Role,
    frame::{FrameHeader, MAX_CONTROL_PAYLOAD, OpCode},
    handshake::{client::Handshake, extensions, server::Offer},
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

/// Any lines as the head of a request: an offer whose acceptance says what was asked for, or a
/// refusal with a status that is one.
pub fn offer(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "localhost"),
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    add_lines(&mut headers, data);
    let mut request = Request::new(());
    *request.headers_mut() = headers;
    *request.uri_mut() = Uri::from_static("http://localhost/");
    for method in [Method::GET, Method::CONNECT] {
        *request.method_mut() = method.clone();
        let parts = request.clone().into_parts().0;
        let offer = if method == Method::GET {
            Offer::from_request(&parts)
        } else {
            Offer::from_extended_connect(&parts)
        };
        match offer {
            Ok(offer) => {
                let first = offer.subprotocols().next();
                let (response, accepted) = offer.accept(first).expect("it is of the offer");
                assert!(response.status().as_u16() < 300);
                assert_eq!(accepted.subprotocol(), first);
            }
            Err(refusal) => {
                assert!(refusal.status().is_client_error());
                assert!(!refusal.to_string().is_empty());
            }
        }
    }
}

/// Any lines as the head of a server's answer: an acceptance within what was asked for, or a
/// refusal.
pub fn answer(data: &[u8]) {
    let handshake =
        Handshake::with_nonce(&Uri::from_static("ws://localhost/"), *b"the sample nonce")
            .and_then(|handshake| handshake.subprotocol("chat"))
            .expect("it is in order");
    let mut response = Response::new(());
    *response.version_mut() = Version::HTTP_11;
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert("upgrade", HeaderValue::from_static("websocket"));
    headers.insert("connection", HeaderValue::from_static("Upgrade"));
    headers.insert(
        "sec-websocket-accept",
        HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    );
    add_lines(headers, data);
    match handshake.finish(&response) {
        Ok(accepted) => assert!(matches!(accepted.subprotocol(), None | Some("chat"))),
        Err(refusal) => assert!(!refusal.to_string().is_empty()),
    }
    // What is parsed can be written and parsed again.
    if let Ok(list) = extensions::parse(response.headers()) {
        let mut headers = HeaderMap::new();
        for extension in &list {
            let value = HeaderValue::from_str(&extension.to_string()).expect("it is visible");
            headers.append("sec-websocket-extensions", value);
        }
        assert_eq!(extensions::parse(&headers), Ok(list));
    }
}

/// Lines `name: value` of any bytes; a name that none can have stands for the two lists.
fn add_lines(headers: &mut HeaderMap, data: &[u8]) {
    for (place, line) in data.split(|byte| *byte == b'\n').take(50).enumerate() {
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.unwrap_or(0));
        let name = HeaderName::from_bytes(name).unwrap_or_else(|_| {
            HeaderName::from_static(if place % 2 == 0 {
                "sec-websocket-extensions"
            } else {
                "sec-websocket-protocol"
            })
        });
        let value = value.strip_prefix(b":").unwrap_or(value);
        if let Ok(value) = HeaderValue::from_bytes(value) {
            // A line that stands alone replaces the one that is in order.
            if place % 3 == 0 {
                headers.insert(name, value);
            } else {
                headers.append(name, value);
            }
        }
    }
}
