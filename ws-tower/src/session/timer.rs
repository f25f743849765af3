//! One lazily made timer for all deadlines of a session.

use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::{
    task::unconstrained,
    time::{Instant, Sleep, sleep_until},
};

pin_project! {
    /// A timer on tokio's clock. It is set anew only for an earlier deadline, or once it has
    /// fired: never for each message.
    #[derive(Debug, Default)]
    pub(super) struct Timer {
        #[pin]
        sleep: Option<Sleep>,
    }
}

impl Timer {
    /// Whether the deadline has passed. Cheap: no clock, no registration.
    #[inline]
    pub(super) fn has_fired(self: Pin<&mut Self>) -> bool {
        self.project()
            .sleep
            .as_pin_mut()
            .is_some_and(|sleep| sleep.is_elapsed())
    }

    /// Sees to it that the task is woken at `deadline` or before.
    pub(super) fn arm(self: Pin<&mut Self>, deadline: Instant, cx: &mut Context<'_>) {
        let mut sleep = self.project().sleep;
        match sleep.as_mut().as_pin_mut() {
            None => sleep.set(Some(sleep_until(deadline))),
            Some(sleep) if sleep.is_elapsed() || deadline < sleep.deadline() => {
                sleep.reset(deadline);
            }
            Some(_) => return,
        }
        watch(sleep, cx);
    }

    /// Registers the task again after its waker has changed.
    pub(super) fn register(self: Pin<&mut Self>, cx: &mut Context<'_>) {
        watch(self.project().sleep, cx);
    }

    pub(super) fn clear(self: Pin<&mut Self>) {
        self.project().sleep.set(None);
    }
}

/// Has the task woken at the deadline, or at once if it has passed.
///
/// Whatever the handler has left of the task's budget: without any, tokio would neither set the timer
/// nor be asked for it again.
fn watch(mut sleep: Pin<&mut Option<Sleep>>, cx: &mut Context<'_>) {
    if let Some(sleep) = sleep.as_mut().as_pin_mut()
        && let Poll::Ready(()) = pin!(unconstrained(sleep)).poll(cx)
    {
        cx.waker().wake_by_ref();
    }
}
