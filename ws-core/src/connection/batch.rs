//! Batches: what is written at once, control frames first.

use std::mem;

use super::round_trip::RoundTrip;
use crate::{Connection, frame::OpCode, stream::encoder::Head};

impl Connection {
    /// Whether a pong or a probe waits.
    #[inline]
    pub(super) fn has_control(&self) -> bool {
        self.probe.queued
            || self
                .rare
                .as_ref()
                .is_some_and(|rare| !rare.pongs.is_empty())
    }

    /// Makes a batch of what is queued, control frames first, unless one is under way.
    #[inline]
    pub(super) fn seal(&mut self) {
        if self.batch > 0 {
            return;
        }
        if self.has_control() {
            self.seal_control();
        }
        self.batch = self.outgoing.len();
        self.batch_cost = self.outgoing_cost;
    }

    fn seal_control(&mut self) {
        let rare = self.rare.as_mut();
        let mut control = rare.map_or_else(Vec::new, |rare| mem::take(&mut rare.pongs));
        let probe = mem::take(&mut self.probe.queued);
        if probe {
            let number = self.probe.newest;
            let payload = number.to_be_bytes();
            self.encoder
                .frame(&mut control, Head::whole(OpCode::Ping), &payload);
            self.rare()
                .round_trip
                .get_or_insert_with(|| Box::new(RoundTrip::new(number)));
        }
        if self.outgoing.len() == 0 {
            self.outgoing
                .write(|buffer| buffer.extend_from_slice(&control));
        } else {
            self.outgoing.push_front(control.into());
        }
        self.batch_probe = probe;
    }
}
