//! The round trip of a ping, measured (RFC 6455 §5.5.2).
//!
//! No clock is read for it when a message comes or goes. A ping that has left, and an answer that has
//! come, ask for the time, which the driver gives before it rests.

use std::{num::NonZeroU32, time::Instant};

/// A ping that is being measured. One at a time: those that leave meanwhile are not.
#[derive(Debug)]
pub(super) struct RoundTrip {
    number: u32,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// In the batch that is being written.
    Written,
    /// On its way; since when is not known until a clock comes by.
    Away(Option<Instant>),
    /// Answered, and it was away since then.
    Back(Instant),
}

impl RoundTrip {
    pub(super) fn new(number: u32) -> Self {
        Self {
            number,
            stage: Stage::Written,
        }
    }

    /// The batch has been written.
    pub(super) fn leave(&mut self) {
        if let Stage::Written = self.stage {
            self.stage = Stage::Away(None);
        }
    }

    /// A ping of this number is answered. Says whether this one will still tell something: not if
    /// the peer has answered a later one only, which it may (§5.5.3), and not if no clock came by.
    pub(super) fn answer(&mut self, number: u32) -> bool {
        match self.stage {
            Stage::Away(Some(since)) if number == self.number => {
                self.stage = Stage::Back(since);
                true
            }
            Stage::Written | Stage::Away(_) => number.wrapping_sub(self.number) > u32::MAX / 2,
            Stage::Back(_) => true,
        }
    }

    /// Whether [`see`](Self::see) would learn something.
    #[inline]
    pub(super) fn wants_clock(&self) -> bool {
        matches!(self.stage, Stage::Away(None) | Stage::Back(_))
    }

    /// Takes the time. Says how many microseconds the round trip took, once it is over.
    pub(super) fn see(&mut self, now: Instant) -> Option<NonZeroU32> {
        match self.stage {
            Stage::Away(None) => self.stage = Stage::Away(Some(now)),
            Stage::Back(since) => {
                let micros = now.saturating_duration_since(since).as_micros();
                let micros = u32::try_from(micros).unwrap_or(u32::MAX);
                return Some(NonZeroU32::new(micros).unwrap_or(NonZeroU32::MIN));
            }
            Stage::Written | Stage::Away(Some(_)) => {}
        }
        None
    }
}
