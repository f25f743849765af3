//! Payloads on their way: kept until the broker has taken them, over a new connection if it must be.

use std::mem;

use bytes::Bytes;
use tokio::time::Instant;

/// What is published at once.
#[derive(Default)]
pub(in crate::hub::backplane) struct Batch {
    payloads: Vec<(String, Bytes)>,
    /// When each is given up; `None` for what the backplane itself says.
    deadlines: Vec<Option<Instant>>,
}

impl Batch {
    pub(super) fn push(&mut self, channel: String, payload: Bytes, deadline: Option<Instant>) {
        self.payloads.push((channel, payload));
        self.deadlines.push(deadline);
    }

    /// Gives up what has waited too long. Returns how many messages of the application these were.
    /// What the backplane itself says goes too: it is said anew on a new link.
    pub(super) fn expire(&mut self, now: Instant) -> u64 {
        let mut expired = 0;
        let payloads = mem::take(&mut self.payloads).into_iter();
        (self.payloads, self.deadlines) = payloads
            .zip(mem::take(&mut self.deadlines))
            .filter(|(_, deadline)| {
                let is_late = deadline.is_some_and(|it| it <= now);
                expired += u64::from(is_late);
                deadline.is_some() && !is_late
            })
            .unzip();
        expired
    }

    /// The broker has taken all. Returns how many messages of the application these were.
    pub(in crate::hub::backplane) fn clear(&mut self) -> u64 {
        self.payloads.clear();
        self.deadlines.drain(..).flatten().count() as u64
    }

    pub(in crate::hub::backplane) fn payloads(&self) -> &[(String, Bytes)] {
        &self.payloads
    }

    pub(in crate::hub::backplane) fn is_empty(&self) -> bool {
        self.payloads.is_empty()
    }
}
