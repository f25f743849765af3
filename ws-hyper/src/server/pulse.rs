//! A timer that is due before those of connections.
//!
//! Whoever sets the timer that is due next wakes the thread that waits for timers, if only for it to
//! wait for less: with tokio a write to an eventfd, one more return of `epoll_wait` and a turn of the
//! scheduler. Where few are connected nearly every handshake and every socket sets such a timer, and
//! mostly for nothing. While there are connections, a [`Pulse`] is due before all that they set by
//! default, so that the thread knows already.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};

pin_project! {
    /// Beats while there are connections.
    #[derive(Default)]
    pub(super) struct Pulse {
        #[pin]
        beat: Option<Sleep>,
    }
}

/// How long between two beats: less than the shortest of the default deadlines, which are the five
/// seconds of a session's first tick and of a closing handshake.
const PERIOD: Duration = Duration::from_secs(4);

impl Pulse {
    /// Begins to beat, if it does not.
    pub(super) fn begin(self: Pin<&mut Self>) {
        let mut this = self.project();
        if this.beat.is_none() {
            this.beat.set(Some(sleep(PERIOD)));
        }
    }

    /// Beats until nobody is connected. Never resolves: it is no reason to stop what goes on beside
    /// it.
    pub(super) async fn run<T>(mut self: Pin<&mut Self>, is_connected: impl Fn() -> bool) -> T {
        poll_fn(|cx| self.as_mut().poll(cx, &is_connected)).await
    }

    fn poll<T>(self: Pin<&mut Self>, cx: &mut Context<'_>, goes_on: impl Fn() -> bool) -> Poll<T> {
        let mut beat = self.project().beat;
        while let Some(sleep) = beat.as_mut().as_pin_mut() {
            if sleep.poll(cx).is_pending() {
                break;
            }
            match beat.as_mut().as_pin_mut() {
                Some(sleep) if goes_on() => sleep.reset(Instant::now() + PERIOD),
                _ => beat.set(None),
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, pin::pin};

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_beats_while_somebody_is_connected_and_again_when_told() {
        let looks = Cell::new(0);
        let mut pulse = pin!(Pulse::default());
        // From the second look on, nobody is.
        for expected in [0, 2, 4] {
            let run = pulse.as_mut().run::<()>(|| {
                looks.set(looks.get() + 1);
                looks.get() % 2 == 1
            });
            assert!(timeout(PERIOD * 10, run).await.is_err());
            assert_eq!(looks.get(), expected);
            pulse.as_mut().begin();
        }
    }
}
