//! Compression apart from the engine: what a handshake agrees on, and a receiver that keeps no
//! byte more than that.

use flate2::{Compress, Compression, FlushCompress};
use http::{HeaderMap, HeaderValue, header::SEC_WEBSOCKET_EXTENSIONS};
use ws_core::{
    Config, Role,
    deflate::{Takeover, WindowBits},
    frame::{FrameHeader, OpCode},
    handshake::extensions::{self, DeflateParameters, Extensions},
};

/// What a server with these settings agrees on with a client that offers this.
///
/// # Panics
///
/// If the offer is malformed, or the settings require what it does not have.
pub fn agree(offer: &str, config: &Config) -> Extensions {
    let mut headers = HeaderMap::new();
    let value = HeaderValue::from_str(offer).expect("an offer is text");
    headers.insert(SEC_WEBSOCKET_EXTENSIONS, value);
    let offers = extensions::parse(&headers).expect("an offer is in order");
    Extensions::negotiate(&offers, config).expect("the offer can be met")
}

#[path = "../../ws-core/src/stream/deflate/reference.rs"]
mod reference;

/// Inflates the messages of one end as strictly as can be: with a window of the negotiated size
/// and not a byte more, with nothing behind it but the tail of RFC 7692 §7.2.2, and forgetful
/// where takeover was forbidden.
///
/// It is no zlib: that of the engine reads any distance up to 32 KiB, whatever window it was made
/// with.
#[derive(Debug)]
pub struct Receiver {
    size: usize,
    takeover: Takeover,
    window: Vec<u8>,
    message: Vec<u8>,
    is_compressed: bool,
}

impl Receiver {
    /// The receiver of an end that compresses with such a window, 9 to 15 bits.
    pub fn new(window_bits: u8, takeover: Takeover) -> Self {
        Self {
            size: 1 << window_bits,
            takeover,
            window: Vec::new(),
            message: Vec::new(),
            is_compressed: false,
        }
    }

    /// The receiver of the end with this role.
    pub fn of(sender: Role, agreed: &DeflateParameters) -> Self {
        // An end that has no window compresses nothing.
        let bits = agreed.own_window_bits(sender).map_or(9, WindowBits::get);
        Self::new(bits, agreed.own_takeover(sender))
    }

    /// Takes a frame; returns the message that it ends.
    ///
    /// # Panics
    ///
    /// If it may not stand here, or is not what a sender that keeps to the agreement writes.
    pub fn frame(&mut self, header: &FrameHeader, payload: &[u8]) -> Option<Vec<u8>> {
        match header.opcode {
            OpCode::Text | OpCode::Binary => {
                assert!(self.message.is_empty());
                self.is_compressed = header.rsv1;
            }
            OpCode::Continuation => assert!(!header.rsv1, "RSV1 on a continuation"),
            _ => {
                assert!(!header.rsv1, "RSV1 on a control frame");
                return None;
            }
        }
        self.message.extend_from_slice(payload);
        if !header.fin {
            return None;
        }
        let payload = std::mem::take(&mut self.message);
        if self.is_compressed {
            let message = self.inflate(&payload);
            return Some(message.expect("it keeps to the window"));
        }
        Some(payload)
    }

    /// Inflates a message; `None` if it is none, or refers to what is not in the window.
    pub fn inflate(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        let payload = [payload, &[0x00, 0x00, 0xff, 0xff]].concat();
        let inflated = reference::inflate(&payload, &self.window)?;
        if inflated.reach > self.size {
            return None;
        }
        if self.takeover == Takeover::Allowed {
            self.window.extend_from_slice(&inflated.output);
            let surplus = self.window.len().saturating_sub(self.size);
            self.window.drain(..surplus);
        }
        Some(inflated.output)
    }
}

/// So many MiB of zeros, compressed to about a thousandth.
pub fn bomb(mebibytes: usize) -> Vec<u8> {
    let mut piece = compressed(&vec![0; 1 << 20], 9);
    piece.extend_from_slice(&[0x00, 0x00, 0xff, 0xff]);
    let mut bomb = piece.repeat(mebibytes);
    bomb.truncate(bomb.len().saturating_sub(4));
    bomb
}

/// A message as another sender would compress it on its own, with a window of 15 bits.
///
/// # Panics
///
/// If zlib fails.
pub fn compressed(message: &[u8], level: u32) -> Vec<u8> {
    if message.is_empty() {
        return vec![0];
    }
    let mut zlib = Compress::new_with_window_bits(Compression::new(level), false, 15);
    let mut payload = Vec::with_capacity(2 * message.len() + 64);
    zlib.compress_vec(message, &mut payload, FlushCompress::Sync)
        .expect("zlib compresses anything");
    assert!(payload.ends_with(&[0x00, 0x00, 0xff, 0xff]));
    payload.truncate(payload.len() - 4);
    payload
}
