//! The bodies of the fuzz targets.
//!
//! They are functions, so that the stored corpora run through them as ordinary tests too.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
};
use ws_core::{
    CloseCode, Config, Connection, ConnectionError, Deflate, Event, Message, Role,
    deflate::{Negotiation, Takeover, WindowBits},
    frame::{FrameHeader, MAX_CONTROL_PAYLOAD, OpCode},
    handshake::{
        client::Handshake,
        extensions::{self, Extension},
        server::Offer,
    },
};

use crate::{
    deflate::agree,
    feed::{Input, Polling, Trace, feed},
    random::Random,
    wire::{frame, frames},
};

/// Small limits, so that short inputs reach them.
const MAX_MESSAGE: usize = 40_000;
const MAX_FRAME: usize = 30_000;

/// What the client offers; `None` for no compression.
type Compressed = Option<&'static str>;

fn connection(role: Role, compressed: Compressed) -> Connection {
    let config = Config::new()
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_FRAME)
        .inbox_high_water(300)
        .deflate(Deflate::new().peer_takeover(Takeover::Allowed).threshold(0));
    let agreed = compressed.map(|offer| agree(offer, &config));
    let connection = Connection::new(role, config).with_mask_keys(|| [1, 2, 3, 4]);
    match agreed {
        Some(agreed) => connection.with_extensions(&agreed),
        None => connection,
    }
}

/// With takeover both ways, with the smallest window; and without.
const OFFERS: [&str; 2] = [
    "permessage-deflate; server_max_window_bits=9; client_max_window_bits=9",
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
];

/// Any bytes from the peer: the same events, the same error and the same output however they are
/// cut, within the limits, and what is received can be sent again. With compression agreed on and
/// without.
pub fn decode(role: Role, data: &[u8]) {
    let [takeover, _] = OFFERS;
    decode_with(role, None, data);
    decode_with(role, Some(takeover), data);
}

/// Any bytes as what is in a compressed message: two of them, so that the second may refer to the
/// first, in fragments or whole. The first byte says which role reads them, as what, and how.
pub fn inflate(data: &[u8]) {
    let Some((choice, payload)) = data.split_first() else {
        return;
    };
    let bit = |number: u8| usize::from(choice >> number & 1);
    let role = [Role::Server, Role::Client][bit(0)];
    let key = [Some([1, 2, 3, 4]), None][bit(0)];
    let opcode = [0x01, 0x02][bit(1)];
    let fragments = [1, 3][bit(3)];
    let size = payload.len().div_ceil(fragments).max(1);
    let mut message = Vec::new();
    for (place, piece) in payload.chunks(size).enumerate() {
        let mut first = if place == 0 { 0x40 | opcode } else { 0 };
        if (place + 1) * size >= payload.len() {
            first |= 0x80;
        }
        message.extend(frame(first, key, piece));
        if bit(4) == 1 {
            message.extend(frame(0x89, key, b"ping"));
        }
    }
    decode_with(role, Some(OFFERS[bit(2)]), &message.repeat(2));
}

fn decode_with(role: Role, compressed: Compressed, data: &[u8]) {
    let connection = || connection(role, compressed);
    let whole = feed(&mut connection(), [data], Input::Receive, Polling::AtTheEnd);
    let bytes = data.chunks(1);
    let single = feed(&mut connection(), bytes, Input::Receive, Polling::Between);
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
        let mut cut = connection();
        let trace = feed(&mut cut, pieces, Input::ReadBuf, polling);
        assert_eq!(whole, trace, "in pieces");
        if cut.error().is_some() || cut.close_received().is_some() {
            let more = feed(&mut cut, [data], Input::ReadBuf, polling);
            assert_eq!((more.events.len(), more.output.len()), (0, 0), "it absorbs");
        }
    }
    check_output(&whole);
    send_again(role, compressed, &whole);
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
fn send_again(role: Role, compressed: Compressed, trace: &Trace) {
    let other = match role {
        Role::Client => Role::Server,
        Role::Server => Role::Client,
    };
    let (mut sender, mut receiver) = (connection(other, compressed), connection(role, compressed));
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
                assert!(accepted.extensions().is_none());
                for settings in settings() {
                    negotiate(offer.clone(), &settings);
                }
            }
            Err(refusal) => {
                assert!(refusal.status().is_client_error());
                assert!(!refusal.to_string().is_empty());
            }
        }
    }
}

/// A choice from any offers: a header that says it, within the settings.
fn negotiate(offer: Offer, settings: &Deflate) {
    let requires = settings.negotiation == Negotiation::Required;
    let config = Config::new().deflate(settings.clone());
    let offer = match offer.negotiate(&config) {
        Ok(offer) => offer,
        Err(refusal) => {
            assert!(requires && refusal.status() == StatusCode::BAD_REQUEST);
            return assert!(refusal.to_string().contains("permessage-deflate"));
        }
    };
    let (response, accepted) = offer.accept(None).expect("nothing is chosen");
    let answered = extensions::parse(response.headers()).expect("the answer is in order");
    let Some(agreed) = accepted.extensions().deflate() else {
        assert!(!requires && answered.is_empty());
        return;
    };
    assert_eq!(answered.len(), 1);
    let own = agreed
        .own_window_bits(Role::Server)
        .expect("never 256 bytes");
    assert!(own <= settings.own_window_bits);
    if settings.own_takeover == Takeover::Forbidden {
        assert_eq!(agreed.own_takeover(Role::Server), Takeover::Forbidden);
    }
    // RFC 7692 §7.1.2.2: only if it was offered.
    let limits_client = |(name, _)| name == "client_max_window_bits";
    let offers = offer.extensions().iter();
    assert!(
        !answered
            .iter()
            .flat_map(Extension::parameters)
            .any(limits_client)
            || offers.flat_map(Extension::parameters).any(limits_client)
    );
    // What was agreed on works for both ends.
    let mut server =
        Connection::new(Role::Server, config.clone()).with_extensions(accepted.extensions());
    let mut client = Connection::new(Role::Client, config).with_extensions(accepted.extensions());
    for _ in 0..2 {
        let message = Message::binary(vec![7; 600]);
        for (from, to) in [(0, 1), (1, 0)] {
            let ends = [&mut server, &mut client];
            assert_eq!(ends[from].send(message.clone()), Ok(()));
            let output = crate::feed::written(ends[from]);
            let trace = feed(ends[to], [&*output], Input::Receive, Polling::AtTheEnd);
            assert_eq!(trace.events, [Event::Message(message.clone())]);
        }
    }
}

/// Settings of all sorts.
fn settings() -> [Deflate; 3] {
    [
        Deflate::new(),
        Deflate::new()
            .own_window_bits(WindowBits::MIN)
            .own_takeover(Takeover::Forbidden)
            .peer_takeover(Takeover::Allowed),
        Deflate::new().peer_window_bits(WindowBits::MIN).required(),
    ]
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
        Ok(accepted) => {
            assert!(matches!(accepted.subprotocol(), None | Some("chat")));
            assert!(accepted.extensions().is_none(), "nothing was offered");
        }
        Err(refusal) => assert!(!refusal.to_string().is_empty()),
    }
    for settings in settings() {
        let config = Config::new().deflate(settings.clone());
        match handshake.clone().negotiate(&config).finish(&response) {
            Ok(accepted) => match accepted.extensions().deflate() {
                Some(agreed) => {
                    // What the client insists on.
                    assert!(agreed.peer_window_bits(Role::Client) <= settings.peer_window_bits);
                    let own = agreed.own_window_bits(Role::Client);
                    assert!(own <= Some(settings.own_window_bits));
                    if settings.own_takeover == Takeover::Forbidden {
                        assert_eq!(agreed.own_takeover(Role::Client), Takeover::Forbidden);
                    }
                }
                None => assert_eq!(settings.negotiation, Negotiation::Optional),
            },
            Err(refusal) => assert!(!refusal.to_string().is_empty()),
        }
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
