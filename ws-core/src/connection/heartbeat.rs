//! Keepalive: is the peer still there? (RFC 6455 §5.5.2)
//!
//! No clock is read when bytes arrive. Input only leaves a flag, which each tick looks at and
//! clears, four times in an interval. So a silence is noticed when it has lasted for the interval
//! and up to a quarter more.

use std::time::{Duration, Instant};

use crate::connection::deadline::after;

/// Ticks in an interval. More find a silence sooner, fewer wake an idle connection less often.
const TICKS: u32 = 4;

/// What a tick found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tick {
    /// It is not time yet.
    Wait,
    /// A quarter of the interval has passed, and nothing is wrong.
    Quarter,
    /// The peer has been silent for the whole interval: ask for a sign of life.
    Ask,
    /// The peer has not answered in time.
    Dead,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// The next tick is due at this time, unknown until a clock comes by, and so many ticks before
    /// it found nothing.
    Listening { due: Option<Instant>, quiet: u32 },
    /// A ping is queued or on its way out.
    Asking,
    /// The ping has left; the answer is due at this time, unknown until a clock comes by.
    Awaiting { due: Option<Instant> },
}

#[derive(Debug)]
pub(super) struct Heartbeat {
    state: State,
    /// Whether anything came in since the last tick.
    active: bool,
}

impl Heartbeat {
    pub(super) fn new() -> Self {
        Self {
            state: State::LISTENING,
            active: false,
        }
    }

    /// Bytes came in: any byte is life.
    #[inline]
    pub(super) fn input(&mut self) {
        self.active = true;
        if !matches!(self.state, State::Listening { .. }) {
            self.state = State::LISTENING;
        }
    }

    /// The ping that was asked for has left the queue.
    pub(super) fn left(&mut self) {
        if matches!(self.state, State::Asking) {
            self.state = State::Awaiting { due: None };
        }
    }

    /// The peer took bytes, or reading has begun again: the wait for an answer starts anew.
    #[inline]
    pub(super) fn restart(&mut self) {
        if let State::Awaiting { due } = &mut self.state {
            *due = None;
        }
    }

    /// Whether [`due`](Self::due) would start a deadline.
    #[inline]
    pub(super) fn wants_clock(&self, paused: bool) -> bool {
        match self.state {
            State::Listening { due, .. } => due.is_none(),
            State::Asking => false,
            State::Awaiting { due } => due.is_none() && !paused,
        }
    }

    /// When the next tick is due. A deadline does not run while reading is paused.
    pub(super) fn due(
        &mut self,
        now: Instant,
        interval: Duration,
        timeout: Duration,
        paused: bool,
    ) -> Option<Instant> {
        match &mut self.state {
            State::Listening { due, .. } => Some(*due.get_or_insert_with(|| {
                // Whatever came, came just now: nothing is left to notice.
                self.active = false;
                after(now, step(interval))
            })),
            State::Asking => None,
            State::Awaiting { due } if paused => {
                *due = None;
                None
            }
            State::Awaiting { due } => Some(*due.get_or_insert(after(now, timeout))),
        }
    }

    /// Looks at what happened since the last tick.
    pub(super) fn tick(&mut self, now: Instant, interval: Duration, paused: bool) -> Tick {
        match self.state {
            State::Listening {
                due: Some(due),
                quiet,
            } if now >= due => {
                // Silence while we do not listen is no silence of the peer.
                let active = std::mem::take(&mut self.active) || paused;
                let quiet = if active { 0 } else { quiet + 1 };
                if quiet >= TICKS {
                    self.state = State::Asking;
                    return Tick::Ask;
                }
                self.state = State::Listening {
                    due: Some(after(now, step(interval))),
                    quiet,
                };
                Tick::Quarter
            }
            State::Awaiting { due: Some(due) } if now >= due && !paused => Tick::Dead,
            _ => Tick::Wait,
        }
    }
}

/// The time between two ticks. An interval of nothing would leave no time for anything else.
fn step(interval: Duration) -> Duration {
    (interval / TICKS).max(Duration::from_millis(1))
}

impl State {
    const LISTENING: Self = Self::Listening {
        due: None,
        quiet: 0,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(20);
    const TIMEOUT: Duration = Duration::from_secs(10);

    /// Runs the heartbeat's clock until it says something, at most `limit`.
    fn run(heartbeat: &mut Heartbeat, from: Instant, limit: Duration) -> (Tick, Duration) {
        let mut now = from;
        loop {
            let Some(due) = heartbeat.due(now, INTERVAL, TIMEOUT, false) else {
                return (Tick::Wait, now - from);
            };
            if due > from + limit {
                return (Tick::Wait, limit);
            }
            now = now.max(due);
            let tick = heartbeat.tick(now, INTERVAL, false);
            if !matches!(tick, Tick::Wait | Tick::Quarter) {
                return (tick, now - from);
            }
        }
    }

    #[test]
    fn a_silent_peer_is_asked_after_the_interval_and_given_up_after_the_timeout() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new();
        assert_eq!(
            run(&mut heartbeat, start, INTERVAL * 9),
            (Tick::Ask, INTERVAL)
        );
        // The ping is stuck in the queue: nobody is blamed.
        assert_eq!(heartbeat.due(start, INTERVAL, TIMEOUT, false), None);
        heartbeat.left();
        assert_eq!(
            run(&mut heartbeat, start, INTERVAL * 9),
            (Tick::Dead, TIMEOUT)
        );
    }

    #[test]
    fn the_question_comes_at_most_a_quarter_of_the_interval_late() {
        let start = Instant::now();
        for millis in (0..60_000).step_by(777) {
            let mut heartbeat = Heartbeat::new();
            let last = Duration::from_millis(millis);
            let mut now = start;
            let mut input = false;
            let asked = loop {
                let due = heartbeat.due(now, INTERVAL, TIMEOUT, false).unwrap();
                if !input && due >= start + last {
                    // A peer that talks until `last`, and is silent from then on.
                    heartbeat.input();
                    input = true;
                    continue;
                }
                now = due;
                if !input {
                    heartbeat.input();
                }
                if heartbeat.tick(now, INTERVAL, false) == Tick::Ask {
                    break now.duration_since(start + last);
                }
            };
            assert!(
                (INTERVAL..=INTERVAL * 5 / 4).contains(&asked),
                "{last:?} {asked:?}"
            );
        }
    }

    #[test]
    fn an_answer_starts_a_whole_interval() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new();
        run(&mut heartbeat, start, INTERVAL * 2);
        heartbeat.left();
        heartbeat.due(start, INTERVAL, TIMEOUT, false);
        heartbeat.input();
        assert!(heartbeat.wants_clock(false));
        assert_eq!(
            run(&mut heartbeat, start, INTERVAL * 9),
            (Tick::Ask, INTERVAL)
        );
    }

    #[test]
    fn the_deadline_does_not_run_while_reading_is_paused_and_restarts_after() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new();
        run(&mut heartbeat, start, INTERVAL * 2);
        heartbeat.left();
        heartbeat.due(start, INTERVAL, TIMEOUT, false);
        assert_eq!(heartbeat.due(start, INTERVAL, TIMEOUT, true), None);
        assert!(!heartbeat.wants_clock(true));
        let later = start + INTERVAL * 10;
        assert_eq!(heartbeat.tick(later, INTERVAL, true), Tick::Wait);
        assert_eq!(
            heartbeat.due(later, INTERVAL, TIMEOUT, false),
            Some(later + TIMEOUT)
        );
    }
}
