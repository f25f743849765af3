//! The time: what is due when, and what is done then.
//!
//! No clock is read here. A deadline starts with the first call that brings the time after its
//! cause.

use std::time::{Duration, Instant};

use crate::{
    Connection, ConnectionError,
    connection::{
        deadline::after,
        heartbeat::{Heartbeat, Tick},
        round_trip::RoundTrip,
    },
};

impl Connection {
    /// Acts on the time: sends a keepalive ping, or gives up a peer that is silent, takes no
    /// bytes or does not answer a Close.
    ///
    /// Calling it too early or too often does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.measure(now);
        let (write_due, close_due) = self.dues();
        if write_due.is_some_and(|due| now >= due) {
            self.rare().write_due = None;
            if self.wants_write() {
                self.fail(ConnectionError::WriteTimeout);
                self.finish();
            }
        }
        if close_due.is_some_and(|due| now >= due) {
            self.rare().close_due = None;
            let waiting = self.is_waiting_for_the_end();
            self.hear_last_word();
            if waiting && !self.wants_read() && !self.has_peer_ended() {
                // Nobody takes the messages that hide the peer's Close: it gets its time without.
                self.discard_overflow();
            } else if waiting {
                if !self.close_is_answered() {
                    self.fail(ConnectionError::CloseTimeout);
                }
                self.finish();
            }
        }
        if let Some(interval) = self.tick_interval()
            && self.end.is_none()
        {
            let tick = self.heartbeat.tick(now, interval, !self.wants_read());
            if tick != Tick::Wait
                && let Some(compression) = &mut self.compression
            {
                compression.tick();
            }
            match tick {
                Tick::Wait => {}
                _ if self.config.keepalive_interval.is_none() => {
                    self.heartbeat = Heartbeat::new();
                }
                Tick::Quarter => {}
                Tick::Ask => {
                    self.probe();
                }
                Tick::Dead => {
                    self.fail(ConnectionError::KeepaliveTimeout);
                    self.finish();
                }
            }
        }
    }

    /// Takes the time for [`latency`](Self::latency), if a ping that is being measured has left or
    /// been answered since the last time. [`handle_timeout`](Self::handle_timeout) and
    /// [`poll_timeout`](Self::poll_timeout) do so as well: it is for a driver that tells of an
    /// answer before it calls either.
    pub fn measure(&mut self, now: Instant) {
        if let Some(latency) = self.round_trip().and_then(|it| it.see(now)) {
            self.probe.latency = Some(latency);
            self.rare().round_trip = None;
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) should be called; `None` for no time.
    ///
    /// Deadlines start with the first call after their cause, so call it after everything else.
    /// [`wants_clock`](Self::wants_clock) says whether the answer may have come closer.
    pub fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        if self.is_done() {
            return None;
        }
        self.measure(now);
        if !self.wants_write() {
            if let Some(rare) = &mut self.rare {
                rare.write_due = None;
            }
        } else if let Some(timeout) = self.config.write_timeout {
            self.rare()
                .write_due
                .get_or_insert_with(|| after(now, timeout));
        }
        if self.has_last_word() || self.is_waiting_for_the_end() {
            let mut timeout = self.config.close_timeout;
            if self.has_last_word() {
                // The peer waits as long for the answer, or so.
                timeout /= 4;
            }
            self.rare()
                .close_due
                .get_or_insert_with(|| after(now, timeout));
        }
        let heartbeat = match self.tick_interval() {
            Some(interval) if self.end.is_none() => {
                let paused = !self.wants_read();
                let timeout = self.config.keepalive_timeout;
                self.heartbeat.due(now, interval, timeout, paused)
            }
            _ => None,
        };
        let (write_due, close_due) = self.dues();
        [write_due, close_due, heartbeat]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether [`poll_timeout`](Self::poll_timeout) has a deadline to start: a driver that
    /// remembers the earliest deadline need not read a clock otherwise.
    #[inline]
    pub fn wants_clock(&self) -> bool {
        if let Some(rare) = &self.rare
            && let Some(round_trip) = &rare.round_trip
            && round_trip.wants_clock()
        {
            return !self.is_done();
        }
        let (write_due, close_due) = self.dues();
        let writing = write_due.is_none() && self.wants_write();
        if self.end.is_some() {
            return !self.is_done()
                && (writing || close_due.is_none() && self.is_waiting_for_the_end());
        }
        (self.has_last_word() && close_due.is_none())
            || (self.tick_interval().is_some() && self.heartbeat.wants_clock(!self.wants_read()))
            || (writing && self.config.write_timeout.is_some())
    }

    /// How long the peer took to answer the newest ping that was measured: a
    /// [`probe`](Self::probe), those of keepalive included. It begins and ends with the first time
    /// that the driver tells after the ping has left and after its answer has come; in whole
    /// microseconds, at least one. `None` before the first.
    ///
    /// A ping that leaves while another is under way is not measured.
    pub fn latency(&self) -> Option<Duration> {
        let micros = self.probe.latency?;
        Some(Duration::from_micros(micros.get().into()))
    }

    pub(super) fn round_trip(&mut self) -> Option<&mut RoundTrip> {
        self.rare.as_mut()?.round_trip.as_deref_mut()
    }

    /// The time in which the heartbeat ticks four times. Without keepalive it ticks only to see
    /// whether a connection that keeps a compressor is still busy.
    #[inline]
    fn tick_interval(&self) -> Option<Duration> {
        self.config.keepalive_interval.or_else(|| {
            let compression = self.compression.as_ref()?;
            compression.keeps_context().then_some(BUSY_INTERVAL)
        })
    }

    /// When the write and the closing handshake are given up.
    #[inline]
    fn dues(&self) -> (Option<Instant>, Option<Instant>) {
        self.rare
            .as_ref()
            .map_or((None, None), |rare| (rare.write_due, rare.close_due))
    }
}

/// As long as the default keepalive interval.
const BUSY_INTERVAL: Duration = Duration::from_secs(20);
