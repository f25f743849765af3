//! Errors of a running connection, sorted by whose fault they are.

use std::{error::Error, fmt};

use crate::CloseCode;

/// The peer broke the protocol or a limit. It knows the close code to answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A Close frame with a code that must not travel (RFC 6455 §7.4).
    BadCloseCode(u16),
    /// A Close frame with a payload of one byte (RFC 6455 §5.5.1).
    CloseTooShort,
    /// A control frame with a payload of more than 125 bytes (RFC 6455 §5.5).
    ControlFrameTooLong,
    /// A continuation frame although no message is under way (RFC 6455 §5.4).
    ContinuationWithoutStart,
    /// A control frame without the FIN bit (RFC 6455 §5.5).
    FragmentedControlFrame,
    /// A frame larger than the configured limit.
    FrameTooBig {
        /// The announced payload, in bytes.
        size: u64,
        /// The limit, in bytes.
        max: usize,
    },
    /// The reason of a Close frame is not UTF-8 (RFC 6455 §5.5.1).
    InvalidCloseReason,
    /// A compressed message that is not DEFLATE, refers to what is not there, or ends within a
    /// block (RFC 7692 §7.2.2).
    InvalidDeflate,
    /// A text message that is not UTF-8 (RFC 6455 §8.1).
    InvalidUtf8,
    /// A payload length of 2^63 or more (RFC 6455 §5.2).
    LengthOverflow,
    /// A frame of a server is masked (RFC 6455 §5.1).
    MaskedServerFrame,
    /// A message larger than the configured limit. A compressed one counts what comes out, and is
    /// not decompressed further than the limit.
    MessageTooBig {
        /// The size reached or announced, in bytes.
        size: u64,
        /// The limit, in bytes.
        max: usize,
    },
    /// A new message began before the fragmented one was complete (RFC 6455 §5.4).
    NewMessageInFragments,
    /// A payload length in more bytes than it needs (RFC 6455 §5.2).
    NonMinimalLength,
    /// A reserved bit is set that no negotiated extension defines (RFC 6455 §5.2).
    ReservedBits,
    /// A reserved opcode (RFC 6455 §5.2).
    ReservedOpcode(u8),
    /// A compressed message with more final blocks than its size can explain.
    TooManyFinalBlocks,
    /// A frame of a client is not masked (RFC 6455 §5.1).
    UnmaskedClientFrame,
}

impl ProtocolError {
    /// The code of the Close frame that answers this error (RFC 6455 §7.4.1).
    ///
    /// RFC 7692 names none for data that is not DEFLATE. It is answered with 1007, the code for a
    /// message whose data is "not consistent with the type of the message": the frames are in
    /// order, what they carry is not.
    pub fn close_code(&self) -> CloseCode {
        match self {
            Self::InvalidUtf8 | Self::InvalidCloseReason | Self::InvalidDeflate => {
                CloseCode::INVALID_PAYLOAD
            }
            Self::FrameTooBig { .. } | Self::MessageTooBig { .. } => CloseCode::MESSAGE_TOO_BIG,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadCloseCode(code) => write!(f, "close code {code} must not be sent"),
            Self::CloseTooShort => f.write_str("close frame with a payload of one byte"),
            Self::ControlFrameTooLong => f.write_str("control frame of more than 125 bytes"),
            Self::ContinuationWithoutStart => {
                f.write_str("continuation frame, but no message is under way")
            }
            Self::FragmentedControlFrame => f.write_str("fragmented control frame"),
            Self::FrameTooBig { size, max } => {
                write!(f, "frame of {size} bytes, the limit is {max}")
            }
            Self::InvalidCloseReason => f.write_str("close reason is not valid utf-8"),
            Self::InvalidDeflate => f.write_str("compressed message is not valid deflate data"),
            Self::InvalidUtf8 => f.write_str("text message is not valid utf-8"),
            Self::LengthOverflow => f.write_str("payload length of 2^63 or more"),
            Self::MaskedServerFrame => f.write_str("masked frame from a server"),
            Self::MessageTooBig { size, max } => {
                write!(f, "message of at least {size} bytes, the limit is {max}")
            }
            Self::NewMessageInFragments => {
                f.write_str("new message before the fragmented one was complete")
            }
            Self::NonMinimalLength => {
                f.write_str("payload length encoded in more bytes than it needs")
            }
            Self::ReservedBits => {
                f.write_str("reserved bit set, but no extension was negotiated for it")
            }
            Self::ReservedOpcode(opcode) => write!(f, "reserved opcode {opcode}"),
            Self::TooManyFinalBlocks => {
                f.write_str("compressed message has too many final blocks for its size")
            }
            Self::UnmaskedClientFrame => f.write_str("unmasked frame from a client"),
        }
    }
}

impl Error for ProtocolError {}

/// Why a connection ended without a closing handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The peer did not answer a Close in time.
    CloseTimeout,
    /// The peer did not answer a keepalive ping in time.
    KeepaliveTimeout,
    /// The peer broke the protocol or a limit.
    Protocol(ProtocolError),
    /// The stream ended without a Close frame (RFC 6455 §7.1.5 calls it 1006).
    UnexpectedEof,
    /// The peer took no bytes for too long.
    WriteTimeout,
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CloseTimeout => f.write_str("the peer did not answer the close frame in time"),
            Self::KeepaliveTimeout => {
                f.write_str("the peer did not answer a keepalive ping in time")
            }
            Self::Protocol(_) => f.write_str("the peer broke the protocol"),
            Self::UnexpectedEof => f.write_str("the stream ended without a close frame"),
            Self::WriteTimeout => f.write_str("the peer took no bytes for too long"),
        }
    }
}

impl Error for ConnectionError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Protocol(error) => Some(error),
            _ => None,
        }
    }
}

impl From<ProtocolError> for ConnectionError {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

/// The caller's command cannot be carried out. Nothing was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// A Close has been sent or received, or the connection has failed: no data may follow.
    Closed,
    /// The outgoing queue is above its high-water mark: transmit first.
    Full,
    /// A message that is sent in fragments is not finished (RFC 6455 §5.4).
    MessageUnfinished,
    /// A ping of more than 125 bytes (RFC 6455 §5.5).
    PingTooLong,
    /// 1010 is for clients (RFC 6455 §7.4.1).
    ServerSent1010,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "the connection is closing or closed, no data may follow",
            Self::Full => "the outgoing queue is full",
            Self::MessageUnfinished => "a message sent in fragments is not finished",
            Self::PingTooLong => "ping of more than 125 bytes",
            Self::ServerSent1010 => "close code 1010 is for clients",
        })
    }
}

impl Error for SendError {}
