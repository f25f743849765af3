//! The client's side of the protocol, by hand: a handshake, and frames encoded beforehand.

use std::{
    io::{ErrorKind, Read, Write},
    time::Duration,
};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use crate::{
    Result, json,
    scenario::Payload,
    stream::{Endpoint, Stream},
};

/// The path of the WebSockets.
pub const PATH: &str = "/socket";

/// The path on which every message joins [`TOPICS`] topics.
pub const TOPICS_PATH: &str = "/topics";

/// Topics that one message joins.
pub const TOPICS: usize = 1000;

/// The example of RFC 6455 §1.3: with a fixed key, nobody here has to hash.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// How long a server may be silent before it counts as stuck.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A Close with 1000, masked, and what answers it (RFC 6455 §5.5.1).
pub const CLOSE: [u8; 8] = [0x88, 0x82, 0x37, 0xfa, 0x21, 0x3d, 0x34, 0x12];
pub const CLOSE_ANSWER: [u8; 4] = [0x88, 0x02, 0x03, 0xe8];

/// What every browser offers (RFC 7692 §7.1).
const OFFER: &str = "permessage-deflate; client_max_window_bits";

/// The least window that reaches back over a whole message, with what zlib keeps of it for itself.
const LEAST_WINDOW_BITS: u8 = 11;

/// What a flush ends with, and what is not sent (RFC 7692 §7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// The kind of message that is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Binary,
}

/// What comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// The same messages, in one unmasked frame each, as every server here sends them.
    Messages,
    /// The same bytes.
    Bytes,
}

/// Windows of messages, and the answers to them. A connection sends one after the other.
pub struct Exchange {
    /// In each window.
    pub messages: usize,
    pub windows: Vec<Window>,
}

/// Some messages, and the answer to them.
pub struct Window {
    pub request: Vec<u8>,
    pub answer: Answer,
}

/// What comes back for a window.
pub enum Answer {
    /// These bytes.
    Bytes(Vec<u8>),
    /// So many frames: how a message is compressed depends on those before it.
    Frames(usize),
}

impl Exchange {
    /// `compressed`: the server has agreed on compression.
    pub fn new(
        messages: usize,
        payload: Payload,
        kind: Kind,
        echo: Echo,
        compressed: bool,
    ) -> Result<Self> {
        let windows = match payload {
            Payload::Bytes(_) => 1,
            // All messages, as often as it takes until a window begins with the first again.
            Payload::Json => json::MESSAGES / messages.clamp(1, 8),
        };
        let windows = (0..windows)
            .map(|window| {
                let mut request = Vec::new();
                let mut response = Vec::new();
                for message in 0..messages {
                    let payload: Vec<u8> = match payload {
                        // No two messages in a row are equal, so a lost or doubled one is seen.
                        Payload::Bytes(len) => (message..message + len)
                            .map(|index| {
                                b' ' + u8::try_from(index % 95).expect("95 printable characters")
                            })
                            .collect(),
                        Payload::Json => {
                            json::message((window * messages + message) % json::MESSAGES)
                        }
                    };
                    let masking_key = Some([0x37, 0xfa, 0x21, 0x3d]);
                    if compressed {
                        push_frame(&mut request, kind, RSV1, masking_key, &deflate(&payload)?);
                        continue;
                    }
                    push_frame(&mut request, kind, 0, masking_key, &payload);
                    if echo == Echo::Messages {
                        push_frame(&mut response, kind, 0, None, &payload);
                    }
                }
                if echo == Echo::Bytes {
                    response.clone_from(&request);
                }
                let answer = if compressed {
                    Answer::Frames(messages)
                } else {
                    Answer::Bytes(response)
                };
                Ok(Window { request, answer })
            })
            .collect::<Result<_>>()?;
        Ok(Self { messages, windows })
    }
}

/// Counts the frames that come, cut anywhere, and looks at nothing but their headers.
#[derive(Default)]
pub struct FrameCounter {
    header: Vec<u8>,
    /// Bytes of the payload that have not come yet.
    missing: usize,
    pub frames: usize,
}

impl FrameCounter {
    pub fn count(&mut self, mut bytes: &[u8]) -> Result<()> {
        loop {
            let payload = self.missing.min(bytes.len());
            (self.missing, bytes) = (self.missing - payload, &bytes[payload..]);
            let Some((&byte, rest)) = bytes.split_first() else {
                return Ok(());
            };
            bytes = rest;
            self.header.push(byte);
            self.missing = match self.header[..] {
                [first, ..] if !matches!(first & !RSV1, 0x81 | 0x82) => {
                    return Err("a frame that is not a message".into());
                }
                [_, len @ ..=125] => len.into(),
                [_, 126, high, low] => u16::from_be_bytes([high, low]).into(),
                [_, 127, ..] => return Err("a frame that is too long".into()),
                _ => continue,
            };
            self.header.clear();
            self.frames += 1;
        }
    }

    /// Whether the last frame has come whole.
    pub fn is_between_frames(&self) -> bool {
        self.missing == 0 && self.header.is_empty()
    }
}

/// An open WebSocket; every byte after the head of the response is still in the stream.
pub struct Opened {
    pub stream: Stream,
    /// Whether the server has agreed on compression.
    pub compressed: bool,
}

/// Opens a WebSocket, and offers compression or does not.
pub fn connect(endpoint: &Endpoint, offers: bool) -> Result<Opened> {
    connect_to(PATH, endpoint, offers)
}

/// The same on another path.
pub fn connect_to(path: &str, endpoint: &Endpoint, offers: bool) -> Result<Opened> {
    let mut stream = endpoint.connect()?;
    let address = endpoint.address;
    let extensions = if offers {
        format!("Sec-WebSocket-Extensions: {OFFER}\r\n")
    } else {
        String::new()
    };
    // One write: `raw` takes the first read for the whole request.
    let request = format!(
        "GET {path} HTTP/1.1\r\n\
         Host: {address}\r\n\
         Connection: Upgrade\r\n\
         Upgrade: websocket\r\n\
         {extensions}\
         Sec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {KEY}\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        // Nothing follows the head before something was sent, so this reads no further than it.
        let mut buffer = [0; 1024];
        match stream.read(&mut buffer)? {
            0 => return Err("closed during the handshake".into()),
            count => head.extend_from_slice(&buffer[..count]),
        }
    }
    let head = String::from_utf8_lossy(&head);
    if !head.starts_with("HTTP/1.1 101 ") || !head.contains(ACCEPT) {
        return Err(format!(
            "refused the handshake: {}",
            head.lines().next().unwrap_or("")
        )
        .into());
    }
    let compressed = head.contains("permessage-deflate");
    if let Some((_, bits)) = head.split_once("client_max_window_bits=") {
        let digits = bits.trim_start_matches(|char: char| char.is_ascii_digit());
        let bits: u8 = bits[..bits.len() - digits.len()].parse()?;
        if bits < LEAST_WINDOW_BITS {
            return Err("it wants a window that is smaller than a message".into());
        }
    }
    Ok(Opened { stream, compressed })
}

/// One after the other while `more` says so of their number: a connection, which is closed. Returns
/// how many.
pub fn handshakes(
    endpoint: &Endpoint,
    mut more: impl FnMut(usize) -> bool,
    answer: &[u8],
) -> Result<usize> {
    let mut count = 0;
    while more(count) {
        close(connect(endpoint, false)?.stream, answer)?;
        count += 1;
    }
    Ok(count)
}

/// The closing handshake, until the server has closed the connection (RFC 6455 §7.1.1).
/// `answer`: what comes before that.
pub fn close(mut stream: Stream, answer: &[u8]) -> Result<()> {
    stream.write_all(&CLOSE)?;
    stream.flush()?;
    let mut received = Vec::new();
    let mut buffer = [0; 64];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            // Without TLS's own end, or with a reset: some do.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
                ) =>
            {
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    if received != answer {
        return Err("the Close was not answered as expected".into());
    }
    Ok(())
}

/// Sends each of the JSON messages once, one by one, and inflates what comes back: proof that the
/// server compresses, and that what is only counted later is what was sent.
pub fn prove(stream: &mut Stream, kind: Kind) -> Result<()> {
    // What keeps its window reads what was compressed without one, too.
    let mut inflater = Decompress::new(false);
    for number in 0..json::MESSAGES {
        let message = json::message(number);
        let mut request = Vec::new();
        let masking_key = Some([0x37, 0xfa, 0x21, 0x3d]);
        push_frame(&mut request, kind, RSV1, masking_key, &deflate(&message)?);
        stream.write_all(&request)?;
        let mut head = [0; 2];
        stream.read_exact(&mut head)?;
        let len = match head[1] {
            126 => {
                let mut len = [0; 2];
                stream.read_exact(&mut len)?;
                u16::from_be_bytes(len).into()
            }
            len => usize::from(len),
        };
        let mut payload = vec![0; len];
        stream.read_exact(&mut payload)?;
        if head[0] & RSV1 == 0 {
            return Err("the answer is not compressed".into());
        }
        payload.extend_from_slice(&TAIL);
        let mut inflated = Vec::with_capacity(message.len() + 64);
        inflater.decompress_vec(&payload, &mut inflated, FlushDecompress::Sync)?;
        if inflated != message {
            return Err("the answer is not what was sent".into());
        }
    }
    Ok(())
}

/// A message by itself, as a browser compresses it that keeps no window.
fn deflate(message: &[u8]) -> Result<Vec<u8>> {
    let mut payload = Vec::with_capacity(message.len() + 64);
    Compress::new(Compression::default(), false).compress_vec(
        message,
        &mut payload,
        FlushCompress::Sync,
    )?;
    let len = payload.len() - TAIL.len();
    if payload[len..] != TAIL {
        return Err("zlib did not flush".into());
    }
    payload.truncate(len);
    Ok(payload)
}

/// RFC 7692 §6: the message is compressed.
const RSV1: u8 = 0x40;

/// RFC 6455 §5.2: FIN and the opcode, the length in its shortest form, the key, the payload.
fn push_frame(
    bytes: &mut Vec<u8>,
    kind: Kind,
    rsv1: u8,
    masking_key: Option<[u8; 4]>,
    payload: &[u8],
) {
    bytes.push(
        rsv1 | match kind {
            Kind::Text => 0x81,
            Kind::Binary => 0x82,
        },
    );
    let mask_bit = if masking_key.is_some() { 0x80 } else { 0 };
    if let Ok(len @ ..126) = u8::try_from(payload.len()) {
        bytes.push(mask_bit | len);
    } else if let Ok(len) = u16::try_from(payload.len()) {
        bytes.push(mask_bit | 126);
        bytes.extend_from_slice(&len.to_be_bytes());
    } else {
        bytes.push(mask_bit | 127);
        bytes.extend_from_slice(&(payload.len() as u64).to_be_bytes());
    }
    let masking_key = masking_key.inspect(|key| bytes.extend_from_slice(key));
    let masking_key = masking_key.unwrap_or_default();
    bytes.extend(
        payload
            .iter()
            .zip(masking_key.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
}
