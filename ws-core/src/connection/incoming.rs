//! What becomes of the peer's bytes: events in order, the replies that RFC 6455 requires, and the
//! peer's last word.

use std::mem;

use bytes::Buf;

use crate::{
    CloseCode, CloseFrame, Connection, Event, ProtocolError, Role,
    frame::OpCode,
    stream::{decoder::Decoder, deflate::Compression, encoder::Head},
};

/// How many bytes of pongs wait at most: a burst of pings is answered one by one, as peers
/// expect, and a flood is not.
pub(super) const MAX_PONGS: usize = 1024;

/// After it nothing is heard from the peer. It takes effect when all messages before it have been
/// taken: so these can still be answered, whether they came in the same read or not.
#[derive(Debug)]
pub(super) enum LastWord {
    Broken(ProtocolError),
    Close(Option<CloseFrame>),
}

impl Connection {
    #[inline]
    pub(super) fn has_unparsed(&self) -> bool {
        self.rare
            .as_ref()
            .is_some_and(|rare| !rare.unparsed.is_empty())
    }

    #[inline]
    pub(super) fn has_last_word(&self) -> bool {
        self.rare
            .as_ref()
            .is_some_and(|rare| rare.last_word.is_some())
    }

    /// Whether input no longer matters.
    pub(super) fn is_deaf(&self) -> bool {
        self.has_last_word() || self.has_peer_ended()
    }

    /// Whether a full inbox stops reading.
    #[inline]
    pub(super) fn may_pause(&self) -> bool {
        self.options.pauses && !self.options.discards_overflow
    }

    /// Whether the inbox is below its high-water mark. One of zero lets one event in at a time.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.inbox.cost() < self.config.inbox_high_water.max(1)
    }

    /// Parses what came, or keeps it while the inbox is full.
    pub(super) fn parse(&mut self, mut input: &[u8]) {
        if !self.has_unparsed() {
            self.parse_some(&mut input);
        }
        if !input.is_empty() && !self.is_deaf() {
            self.rare().unparsed.extend_from_slice(input);
        }
    }

    /// Parses until the inbox is full or the input used up.
    fn parse_some(&mut self, input: &mut &[u8]) {
        while !input.is_empty() && !self.is_deaf() && (!self.may_pause() || self.has_room()) {
            let compression = self.compression.as_deref_mut();
            let inflater = compression.map(Compression::inflater);
            match self
                .decoder
                .decode(input, self.role, &self.config, inflater)
            {
                Ok(Some(event)) => self.on_event(event),
                Ok(None) => return,
                Err(error) => return self.reject(error),
            }
        }
    }

    /// Goes on with kept input, once the inbox is empty.
    pub(super) fn resume(&mut self) {
        self.heartbeat.restart();
        // The decoder is not to be asked for nothing: its buffer may be lent to the driver.
        let Some(rare) = &mut self.rare else { return };
        if rare.unparsed.is_empty() {
            return;
        }
        let mut unparsed = mem::take(&mut rare.unparsed);
        let mut rest = &*unparsed;
        self.parse_some(&mut rest);
        let parsed = unparsed.len() - rest.len();
        if parsed < unparsed.len() && !self.is_deaf() {
            unparsed.advance(parsed);
            self.rare().unparsed = unparsed;
        }
    }

    #[inline]
    pub(super) fn on_event(&mut self, event: Event) {
        if let Event::Message(_) = event {
            let is_unwanted =
                self.options.discards || self.options.discards_overflow && !self.has_room();
            if !is_unwanted {
                self.inbox.push(event);
            }
        } else {
            self.on_control(event);
        }
    }

    fn on_control(&mut self, event: Event) {
        match event {
            Event::Close(close) => return self.end_input(LastWord::Close(close)),
            // Nothing follows our own Close.
            Event::Ping(ref payload) if self.close_sent().is_none() => self.queue_pong(payload),
            Event::Pong(ref payload) => self.on_pong(payload),
            Event::Message(_) | Event::Ping(_) => {}
        }
        self.report(event);
    }

    /// Tells the application of a control frame, if it wants to know.
    fn report(&mut self, event: Event) {
        if self.options.control_events && !self.options.discards {
            self.inbox.push(event);
        }
    }

    fn queue_pong(&mut self, payload: &[u8]) {
        let encoder = self.encoder;
        let pongs = &mut self.rare().pongs;
        if pongs.len() + payload.len() > MAX_PONGS {
            // RFC 6455 §5.5.3: "If an endpoint receives a Ping frame and has not yet sent Pong
            // frame(s) in response to previous Ping frame(s), the endpoint MAY elect to send a
            // Pong frame for only the most recently processed Ping frame."
            pongs.clear();
        }
        encoder.frame(pongs, Head::whole(OpCode::Pong), payload);
    }

    fn on_pong(&mut self, payload: &[u8]) {
        if let Ok(number) = payload.try_into().map(u32::from_be_bytes) {
            // Only what was asked and is not answered yet: anyone can send an unsolicited pong.
            let asked = self.probe.newest.wrapping_sub(self.probe.answered);
            if number.wrapping_sub(self.probe.answered) <= asked {
                self.probe.answered = number;
                if let Some(round_trip) = self.round_trip()
                    && !round_trip.answer(number)
                {
                    self.rare().round_trip = None;
                }
            }
        }
    }

    /// The peer broke the protocol.
    #[cold]
    pub(super) fn reject(&mut self, error: ProtocolError) {
        self.end_input(LastWord::Broken(error));
    }

    /// Nothing more is heard from the peer.
    fn end_input(&mut self, last_word: LastWord) {
        // What is left of a message under way is of no use.
        self.decoder = Decoder::default();
        if let Some(compression) = &mut self.compression {
            compression.stop_receiving();
        }
        self.rare().last_word = Some(last_word);
        // An application that has closed counts on no answers, and one that discards on nothing.
        if self.inbox.is_empty() || self.end.is_some() {
            self.hear_last_word();
        }
    }

    #[inline]
    pub(super) fn hear_last_word(&mut self) {
        if let Some(rare) = &mut self.rare
            && let Some(last_word) = rare.last_word.take()
        {
            rare.close_due = None;
            self.obey(last_word);
        }
    }

    fn obey(&mut self, last_word: LastWord) {
        match last_word {
            LastWord::Broken(error) => self.fail(error.into()),
            LastWord::Close(close) => {
                let end = self.end.get_or_insert_default();
                end.received = Some(close.clone().into());
                if end.sent.is_none() {
                    // RFC 6455 §5.5.1: "When sending a Close frame in response, the endpoint
                    // typically echos the status code it received." But 1010 is for clients.
                    let code = match close.as_ref().map(CloseFrame::code) {
                        Some(CloseCode::MANDATORY_EXTENSION) if self.role == Role::Server => {
                            Some(CloseCode::NORMAL)
                        }
                        code => code,
                    };
                    self.queue_close(code.map(CloseFrame::from));
                }
                self.report(Event::Close(close));
            }
        }
    }
}
