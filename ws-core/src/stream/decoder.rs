//! Bytes to messages: RFC 6455 §5.2 to §5.6 for one direction of a connection.
//!
//! A message that lies whole in one frame and in one read goes straight from the input to its
//! own buffer. Anything else makes [`Progress`]: one contiguous buffer for the message under way,
//! and the place where parsing stopped, so that no byte is looked at twice. The buffer grows with
//! the bytes that arrive, never with what a header promises. Between messages there is nothing.
//!
//! A compressed message is inflated as it arrives, and its compressed bytes are kept nowhere. The
//! limit on messages is for what comes out.

use std::mem;

use bytes::Bytes;

use crate::{
    CloseCode, CloseFrame, Config, Event, Message, ProtocolError, Role, Utf8Bytes,
    frame::{FrameHeader, OpCode, mask},
    stream::{deflate::Inflater, utf8},
};

/// From this many missing bytes of a frame on, they are worth reading straight into the message:
/// below, a copy is cheaper than a read that brings nothing of the next frame.
const READ_IN_PLACE: usize = 16 << 10;

/// The room offered for a read into the message.
const READ_STEP: usize = 64 << 10;

/// How much of a compressed payload is unmasked at a time, in bytes.
const UNMASKED: usize = 2 << 10;

#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// In a box, because an idle connection has none.
    progress: Option<Box<Progress>>,
}

/// A message, or a frame, that has come in part.
#[derive(Debug, Default)]
struct Progress {
    /// The message under way: the payloads of its frames, joined.
    message: Vec<u8>,
    /// How much of `message` is unmasked and accounted for. More lies there only between a read
    /// into [`read_buf`](Decoder::read_buf) and the next call.
    taken: usize,
    /// How much of a text `message` is whole, valid characters.
    valid: usize,
    /// The kind of the message under way.
    kind: Option<Kind>,
    /// Whether the message under way is compressed.
    compressed: bool,
    /// The payload of a control frame, which may arrive in pieces amid a message.
    control: Vec<u8>,
    /// The frame whose payload is awaited.
    frame: Option<Frame>,
    /// The beginning of a header that was cut.
    header: [u8; FrameHeader::MAX_LEN],
    header_len: u8,
}

/// A frame whose header is known and whose payload arrives.
#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: OpCode,
    fin: bool,
    key: Option<[u8; 4]>,
    /// Payload bytes taken so far: the place in the mask.
    done: usize,
    /// Payload bytes still missing.
    missing: usize,
}

/// The two kinds of message (RFC 6455 §5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Binary,
}

impl Decoder {
    /// Takes bytes from the front of `input` until an event is complete. `None`: all of `input`
    /// has been taken, and more is needed.
    #[inline]
    pub(crate) fn decode(
        &mut self,
        input: &mut &[u8],
        role: Role,
        limits: &Config,
        mut inflater: Option<&mut Inflater>,
    ) -> Result<Option<Event>, ProtocolError> {
        if self.progress.is_none() {
            if input.is_empty() {
                return Ok(None);
            }
            if let Some(event) = whole_message(input, role, limits, inflater.as_deref_mut())? {
                return Ok(Some(event));
            }
        }
        self.decode_in_part(input, role, limits, inflater)
    }

    /// [`decode`](Self::decode) for what does not lie there as one whole message.
    fn decode_in_part(
        &mut self,
        input: &mut &[u8],
        role: Role,
        limits: &Config,
        inflater: Option<&mut Inflater>,
    ) -> Result<Option<Event>, ProtocolError> {
        let progress = self.progress.get_or_insert_default();
        let event = progress.decode(input, role, limits, inflater)?;
        if progress.is_nothing() {
            self.progress = None;
        }
        Ok(event)
    }

    /// The buffer of the message under way, with room at its end, when so much of a frame is
    /// missing that it is worth reading straight into it.
    pub(crate) fn read_buf(&mut self) -> Option<&mut Vec<u8>> {
        let progress = self.progress.as_mut()?;
        if progress.compressed {
            return None;
        }
        let frame = progress.frame.filter(|frame| !frame.opcode.is_control())?;
        let message = &mut progress.message;
        let appended = message.len().saturating_sub(progress.taken);
        let missing = frame.missing.saturating_sub(appended);
        if missing < READ_IN_PLACE {
            return None;
        }
        // As much again as has arrived, so that growing stays linear.
        let step = READ_STEP.max(message.len()).min(missing);
        if message.capacity() - message.len() < step.min(READ_STEP) {
            message.reserve_exact(step);
        }
        Some(message)
    }

    /// Whether something was appended to the lent buffer.
    #[inline]
    pub(crate) fn has_appended(&self) -> bool {
        self.progress
            .as_ref()
            .is_some_and(|progress| progress.message.len() > progress.taken)
    }

    /// Takes what was appended to the lent buffer, and returns what lay behind the end of the
    /// frame beside the event.
    pub(crate) fn take_appended(&mut self) -> Result<(Option<Event>, Vec<u8>), ProtocolError> {
        let Some(progress) = &mut self.progress else {
            return Ok((None, Vec::new()));
        };
        let Some(frame) = progress.frame.take() else {
            // Appended although nothing was lent: it is input like any other.
            let appended = progress.message.split_off(progress.taken);
            return Ok((None, appended));
        };
        let end = progress.taken + frame.missing;
        let behind = if progress.message.len() > end {
            progress.message.split_off(end)
        } else {
            Vec::new()
        };
        let event = progress.data_payload(frame)?;
        if progress.is_nothing() {
            self.progress = None;
        }
        Ok((event, behind))
    }

    /// Takes the lent buffer back.
    pub(crate) fn restore(&mut self, buffer: Vec<u8>) {
        if let Some(progress) = &mut self.progress {
            debug_assert!(buffer.len() >= progress.taken && progress.message.is_empty());
            progress.message = buffer;
        }
    }
}

/// The event at the front of `input` if it is a whole message in one frame that is all there.
/// Nothing is taken otherwise, and errors are the same as byte by byte.
#[inline]
fn whole_message(
    input: &mut &[u8],
    role: Role,
    limits: &Config,
    inflater: Option<&mut Inflater>,
) -> Result<Option<Event>, ProtocolError> {
    let Some((header, header_len)) = FrameHeader::parse(input)? else {
        return Ok(None);
    };
    let kind = match header.opcode {
        OpCode::Text if header.fin => Kind::Text,
        OpCode::Binary if header.fin => Kind::Binary,
        _ => return Ok(None),
    };
    let len = judge(header, role, limits, inflater.is_some())?;
    if !header.rsv1 {
        fits(len, 0, limits)?;
    }
    let Some((payload, rest)) = input
        .get(header_len..)
        .and_then(|input| input.split_at_checked(len))
    else {
        return Ok(None);
    };
    let message = match inflater {
        Some(inflater) if header.rsv1 => {
            let mut message = Vec::new();
            let limit = limits.max_message_size;
            let result = inflate(inflater, payload, (header.mask, 0), &mut message, limit)
                .and_then(|()| inflater.finish(&mut message, limit));
            if let Err(error) = result {
                // What is not text is found before that, as it is byte by byte.
                return Err(match kind {
                    Kind::Text => utf8::validate(&message, &mut 0).err().unwrap_or(error),
                    Kind::Binary => error,
                });
            }
            message
        }
        _ => {
            let mut message = payload.to_vec();
            if let Some(key) = header.mask {
                mask::apply(&mut message, key, 0);
            }
            message
        }
    };
    *input = rest;
    let message = match kind {
        Kind::Text if !utf8::is_valid(&message) => {
            return Err(ProtocolError::InvalidUtf8);
        }
        Kind::Text => Message::Text(Utf8Bytes::from_validated(message.into())),
        Kind::Binary => Message::Binary(message.into()),
    };
    Ok(Some(Event::Message(message)))
}

/// Inflates a piece of a payload, masked with this key from this place on, behind what there is of
/// the message.
fn inflate(
    inflater: &mut Inflater,
    payload: &[u8],
    (key, done): (Option<[u8; 4]>, usize),
    message: &mut Vec<u8>,
    limit: usize,
) -> Result<(), ProtocolError> {
    let Some(key) = key else {
        return inflater.push(payload, message, limit);
    };
    let mut unmasked = [0; UNMASKED];
    for (number, piece) in payload.chunks(UNMASKED).enumerate() {
        let unmasked = unmasked.get_mut(..piece.len()).unwrap_or_default();
        unmasked.copy_from_slice(piece);
        mask::apply(unmasked, key, done + number * UNMASKED);
        inflater.push(unmasked, message, limit)?;
    }
    Ok(())
}

/// Judges a header by the role and by the limit on frames, before any of its payload is taken.
/// Returns the size of the payload.
#[inline]
fn judge(
    header: FrameHeader,
    role: Role,
    limits: &Config,
    inflates: bool,
) -> Result<usize, ProtocolError> {
    // RFC 6455 §5.1: "a server MUST close a connection upon receiving a frame that is not
    // masked [...] A client MUST close a connection if it detects a masked frame", whatever the
    // size of its payload.
    match (role, header.mask) {
        (Role::Server, None) => return Err(ProtocolError::UnmaskedClientFrame),
        (Role::Client, Some(_)) => return Err(ProtocolError::MaskedServerFrame),
        _ => {}
    }
    // RFC 7692 §6.2: on the first frame of a message, if compression was agreed on.
    if header.rsv1 && !(inflates && matches!(header.opcode, OpCode::Text | OpCode::Binary)) {
        return Err(ProtocolError::ReservedBits);
    }
    let size = header.payload_len;
    if header.opcode.is_control() {
        // At most 125, or the header would not have been parsed.
        return usize::try_from(size).map_err(|_| ProtocolError::ControlFrameTooLong);
    }
    let len = usize::try_from(size).unwrap_or(usize::MAX);
    if let Some(max) = limits.max_frame_size
        && len > max
    {
        return Err(ProtocolError::FrameTooBig { size, max });
    }
    if len as u64 != size {
        let max = limits.max_message_size;
        return Err(ProtocolError::MessageTooBig { size, max });
    }
    Ok(len)
}

/// Judges the size of a payload by the limit on messages. `before` is the size of the message's
/// fragments so far.
#[inline]
fn fits(len: usize, before: usize, limits: &Config) -> Result<(), ProtocolError> {
    let max = limits.max_message_size;
    if len > max.saturating_sub(before) {
        let size = (len as u64).saturating_add(before as u64);
        return Err(ProtocolError::MessageTooBig { size, max });
    }
    Ok(())
}

impl Progress {
    fn decode(
        &mut self,
        input: &mut &[u8],
        role: Role,
        limits: &Config,
        mut inflater: Option<&mut Inflater>,
    ) -> Result<Option<Event>, ProtocolError> {
        loop {
            let frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.next_header(input)? {
                    Some(header) => self.begin(header, role, limits, inflater.is_some())?,
                    None => return Ok(None),
                },
            };
            let (chunk, rest) = input
                .split_at_checked(frame.missing)
                .unwrap_or((*input, &[]));
            *input = rest;
            let event = if frame.opcode.is_control() {
                self.control_payload(frame, chunk)?
            } else if self.compressed
                && let Some(inflater) = &mut inflater
            {
                self.compressed_payload(frame, chunk, inflater, limits.max_message_size)?
            } else {
                self.grow(chunk.len(), frame, limits);
                self.message.extend_from_slice(chunk);
                self.data_payload(frame)?
            };
            // An unfinished frame is still there; then the input has run out.
            if event.is_some() || self.frame.is_some() {
                return Ok(event);
            }
        }
    }

    /// Whether nothing has come in part: no message, no frame, no header.
    fn is_nothing(&self) -> bool {
        self.kind.is_none() && self.frame.is_none() && self.header_len == 0
    }

    /// The next whole header, from `input` and what was kept of it.
    #[inline]
    fn next_header(&mut self, input: &mut &[u8]) -> Result<Option<FrameHeader>, ProtocolError> {
        if self.header_len == 0
            && let Some((header, len)) = FrameHeader::parse(input)?
        {
            *input = input.get(len..).unwrap_or_default();
            return Ok(Some(header));
        }
        self.next_cut_header(input)
    }

    /// [`next_header`](Self::next_header) for a header that comes in pieces.
    #[cold]
    fn next_cut_header(&mut self, input: &mut &[u8]) -> Result<Option<FrameHeader>, ProtocolError> {
        // One byte at a time: at most fourteen of them, and none is taken that is payload.
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            let mut len = usize::from(self.header_len);
            if let Some(slot) = self.header.get_mut(len) {
                *slot = byte;
                len += 1;
                self.header_len += 1;
            }
            if let Some((header, _)) =
                FrameHeader::parse(self.header.get(..len).unwrap_or_default())?
            {
                self.header_len = 0;
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    /// Judges a header by the role and by what went before, before any of its payload is taken.
    #[inline]
    fn begin(
        &mut self,
        header: FrameHeader,
        role: Role,
        limits: &Config,
        inflates: bool,
    ) -> Result<Frame, ProtocolError> {
        let missing = judge(header, role, limits, inflates)?;
        let kind = match header.opcode {
            OpCode::Text => Some(Kind::Text),
            OpCode::Binary => Some(Kind::Binary),
            OpCode::Continuation if self.kind.is_none() => {
                return Err(ProtocolError::ContinuationWithoutStart);
            }
            _ => None,
        };
        if kind.is_some() {
            if self.kind.is_some() {
                return Err(ProtocolError::NewMessageInFragments);
            }
            self.kind = kind;
            self.compressed = header.rsv1;
        }
        if !header.opcode.is_control() && !self.compressed {
            fits(missing, self.message.len(), limits)?;
        }
        Ok(Frame {
            opcode: header.opcode,
            fin: header.fin,
            key: header.mask,
            done: 0,
            missing,
        })
    }

    /// Makes room for `len` more bytes of the message: exactly when the end of the message is in
    /// sight, else as much again as there is, so that growing stays linear.
    #[inline]
    fn grow(&mut self, len: usize, frame: Frame, limits: &Config) {
        if self.message.capacity() - self.message.len() >= len {
            return;
        }
        let needed = self.message.len() + len;
        let doubled = needed.max(self.message.capacity().saturating_mul(2));
        let end = if frame.fin {
            self.message.len() + frame.missing
        } else {
            limits.max_message_size
        };
        self.message
            .reserve_exact(doubled.min(end).max(needed) - self.message.len());
    }

    /// Unmasks, validates and accounts for what was appended to the message.
    #[inline]
    fn data_payload(&mut self, mut frame: Frame) -> Result<Option<Event>, ProtocolError> {
        let appended = self.message.get_mut(self.taken..).unwrap_or_default();
        if let Some(key) = frame.key {
            mask::apply(appended, key, frame.done);
        }
        frame.done += appended.len();
        frame.missing = frame.missing.saturating_sub(appended.len());
        self.taken = self.message.len();
        if self.kind == Some(Kind::Text) {
            utf8::validate(&self.message, &mut self.valid)?;
        }
        if frame.missing > 0 {
            self.frame = Some(frame);
            return Ok(None);
        }
        if !frame.fin {
            return Ok(None);
        }
        self.message_event().map(Some)
    }

    /// Unmasks, inflates and validates a piece of a compressed message.
    fn compressed_payload(
        &mut self,
        mut frame: Frame,
        chunk: &[u8],
        inflater: &mut Inflater,
        limit: usize,
    ) -> Result<Option<Event>, ProtocolError> {
        let place = (frame.key, frame.done);
        let mut result = inflate(inflater, chunk, place, &mut self.message, limit);
        frame.done += chunk.len();
        frame.missing -= chunk.len();
        let is_end = frame.missing == 0 && frame.fin;
        if result.is_ok() && is_end {
            result = inflater.finish(&mut self.message, limit);
        }
        self.taken = self.message.len();
        if self.kind == Some(Kind::Text) {
            utf8::validate(&self.message, &mut self.valid)?;
        }
        result?;
        if frame.missing > 0 {
            self.frame = Some(frame);
        }
        if is_end {
            return self.message_event().map(Some);
        }
        Ok(None)
    }

    /// The message that has come to its end.
    fn message_event(&mut self) -> Result<Event, ProtocolError> {
        let payload = Bytes::from(mem::take(&mut self.message));
        let valid = mem::take(&mut self.valid);
        self.taken = 0;
        self.compressed = false;
        Ok(Event::Message(match self.kind.take() {
            // The last character must be whole, however the message was cut.
            Some(Kind::Text) if valid != payload.len() => return Err(ProtocolError::InvalidUtf8),
            Some(Kind::Text) => Message::Text(Utf8Bytes::from_validated(payload)),
            _ => Message::Binary(payload),
        }))
    }

    /// Takes a piece of a control frame's payload.
    fn control_payload(
        &mut self,
        mut frame: Frame,
        chunk: &[u8],
    ) -> Result<Option<Event>, ProtocolError> {
        self.control.extend_from_slice(chunk);
        frame.missing -= chunk.len();
        if frame.missing > 0 {
            self.frame = Some(frame);
            return Ok(None);
        }
        if let Some(key) = frame.key {
            mask::apply(&mut self.control, key, 0);
        }
        let payload = mem::take(&mut self.control);
        Ok(Some(match frame.opcode {
            OpCode::Close => Event::Close(close_frame(&payload)?),
            OpCode::Ping => Event::Ping(payload.into()),
            _ => Event::Pong(payload.into()),
        }))
    }
}

/// Parses the payload of a Close frame (RFC 6455 §5.5.1, §7.4).
fn close_frame(payload: &[u8]) -> Result<Option<CloseFrame>, ProtocolError> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() {
            Ok(None)
        } else {
            Err(ProtocolError::CloseTooShort)
        };
    };
    let code = u16::from_be_bytes(*code);
    let code = CloseCode::new(code).map_err(|_| ProtocolError::BadCloseCode(code))?;
    let reason = std::str::from_utf8(reason).map_err(|_| ProtocolError::InvalidCloseReason)?;
    Ok(Some(CloseFrame::truncated(code, reason)))
}
