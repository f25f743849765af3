//! The client's side of the protocol, by hand: a handshake, and frames encoded beforehand.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::Result;

/// The path on which the servers echo.
pub const PATH: &str = "/echo";

/// The example of RFC 6455 §1.3: with a fixed key, nobody here has to hash.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// How long a server may be silent before it counts as stuck.
pub const PATIENCE: Duration = Duration::from_secs(5);

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

/// A window of messages and the answer to it.
pub struct Exchange {
    pub messages: usize,
    pub request: Vec<u8>,
    pub response: Vec<u8>,
}

impl Exchange {
    pub fn new(messages: usize, payload: usize, kind: Kind, echo: Echo) -> Self {
        let mut request = Vec::new();
        let mut response = Vec::new();
        for message in 0..messages {
            // No two messages in a row are equal, so a lost or doubled one is seen.
            let payload: Vec<u8> = (message..message + payload)
                .map(|index| b' ' + u8::try_from(index % 95).expect("95 printable characters"))
                .collect();
            let masking_key = [0x37, 0xfa, 0x21, 0x3d];
            push_frame(&mut request, kind, Some(masking_key), &payload);
            if echo == Echo::Messages {
                push_frame(&mut response, kind, None, &payload);
            }
        }
        if echo == Echo::Bytes {
            response.clone_from(&request);
        }
        Self {
            messages,
            request,
            response,
        }
    }
}

/// Opens a WebSocket; every byte after the head of the response is still in the returned stream.
pub fn connect(address: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // One write: `raw` takes the first read for the whole request.
    let request = format!(
        "GET {PATH} HTTP/1.1\r\n\
         Host: {address}\r\n\
         Connection: Upgrade\r\n\
         Upgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {KEY}\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
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
    Ok(stream)
}

/// RFC 6455 §5.2: FIN and the opcode, the length in its shortest form, the key, the payload.
fn push_frame(bytes: &mut Vec<u8>, kind: Kind, masking_key: Option<[u8; 4]>, payload: &[u8]) {
    bytes.push(match kind {
        Kind::Text => 0x81,
        Kind::Binary => 0x82,
    });
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
