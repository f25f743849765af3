//! Waiting for what another task, the session or the peer has to do.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use futures_core::ready;
use tokio::task::coop;
use ws_core::{Connection, SendError};

use crate::{
    Closed, Error,
    session::state::{Shared, State, Ticket, Wait, wake},
};

/// Waits for the end.
pub(super) async fn closed(shared: &Shared) -> Closed {
    let mut waiting = Waiting::new(shared);
    poll_fn(|cx| waiting.poll(cx, |state| state.closed.clone().ok_or(Wait::Close))).await
}

/// Polls a handle as part of tokio's cooperation: a task that finds something each time yields
/// now and then. A handler does so by its session's turns, which are bounded.
#[inline]
pub(super) fn cooperate<T>(
    shared: *const Shared,
    cx: &mut Context<'_>,
    poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    if is_of_handler(shared, cx) {
        return poll(cx);
    }
    let budget = ready!(coop::poll_proceed(cx));
    let result = poll(cx);
    if result.is_ready() {
        budget.made_progress();
    }
    result
}

/// Whether it is the handler that polls: the shared state is its waker.
#[inline]
pub(super) fn is_of_handler(shared: *const Shared, cx: &Context<'_>) -> bool {
    cx.waker().data() == shared.cast()
}

/// A future's place among those who wait; given up when the future is dropped.
pub(super) struct Waiting<'a> {
    pub(super) shared: &'a Shared,
    pub(super) ticket: Option<Ticket>,
}

impl<'a> Waiting<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            ticket: None,
        }
    }

    /// Tries to send, and waits while the queue is full.
    #[inline]
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        mut send: impl FnMut(&mut Connection) -> Result<(), SendError>,
    ) -> Poll<Result<(), Error>> {
        let mut session = None;
        let result = self.poll(cx, |state| match send(&mut state.connection) {
            Ok(()) => {
                session = state.nudge();
                Ok(Ok(()))
            }
            Err(SendError::Full) => Err(Wait::Send),
            Err(_) => Ok(Err(state.cause())),
        });
        wake(session);
        result
    }

    /// Looks at the state under the lock, and waits for what `look` asks for.
    #[inline]
    pub(super) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut look: impl FnMut(&mut State) -> Result<T, Wait>,
    ) -> Poll<T> {
        // A waker may do anything when it is cloned or dropped: not under the lock.
        let mut spare = None;
        loop {
            let registered = {
                let mut state = self.shared.lock();
                match look(&mut state) {
                    Ok(result) => return Poll::Ready(result),
                    Err(wait) => {
                        let waiters = &mut state.waiters;
                        waiters.register(&mut self.ticket, wait, cx.waker(), &mut spare)
                    }
                }
            };
            if registered {
                return Poll::Pending;
            }
            spare = Some(cx.waker().clone());
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        forget(self.shared, self.ticket.take());
    }
}

pub(super) fn forget(shared: &Shared, ticket: Option<Ticket>) {
    if let Some(ticket) = ticket {
        let waker = shared.lock().waiters.forget(ticket);
        drop(waker);
    }
}
