//! The receiving half of a socket.

use std::{
    collections::VecDeque,
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::{Stream, ready};
use ws_core::{Event, Message};

use super::waiting::{closed, cooperate, is_of_handler};
use crate::{
    Closed, Error,
    session::state::{Shared, wake},
};

/// The receiving half. Dropping it throws away what comes from then on; without a running
/// handler it closes the socket.
pub struct Receiver {
    shared: Arc<Shared>,
    /// Messages taken from the session at once: one hold of the lock for all that came in a turn.
    events: VecDeque<Event>,
}

impl Receiver {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            events: VecDeque::new(),
        }
    }

    /// Receives the next message: see [`WebSocket::recv`](crate::WebSocket::recv).
    ///
    /// # Errors
    ///
    /// Once, when the connection ended without a closing handshake.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a message is taken only when the future is ready.
    pub fn recv(&mut self) -> impl Future<Output = Option<Result<Message, Error>>> + Send {
        poll_fn(|cx| self.poll_recv(cx))
    }

    /// Waits for the end of the socket.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the facts stay.
    pub async fn closed(&self) -> Closed {
        closed(&self.shared).await
    }

    /// Throws away the messages that wait and all that come: see
    /// [`WebSocket::discard_incoming`](crate::WebSocket::discard_incoming).
    pub fn discard_incoming(&mut self) {
        let session = {
            let mut state = self.shared.lock();
            state.connection.discard_incoming();
            state.nudge()
        };
        wake(session);
        self.events = VecDeque::new();
    }

    #[inline]
    pub(super) fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Message, Error>>> {
        let shared = Arc::as_ptr(&self.shared);
        cooperate(shared, cx, |cx| self.poll_next_message(cx))
    }

    #[inline]
    fn poll_next_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Error>>> {
        loop {
            // A session reports messages only.
            while let Some(event) = self.events.pop_front() {
                if let Event::Message(message) = event {
                    return Poll::Ready(Some(Ok(message)));
                }
            }
            if let Err(end) = ready!(self.poll_take(cx)) {
                return Poll::Ready(end.map(Err));
            }
        }
    }

    /// Takes the messages that have come. At the end there is an error once, if it had one.
    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Option<Error>>> {
        let is_of_handler = is_of_handler(Arc::as_ptr(&self.shared), cx);
        if is_of_handler && self.shared.handler_is_sated() {
            // There is more, after others.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // A waker may do anything when it is cloned or dropped: not under the lock.
        let mut spare = None;
        let (mut was_paused, mut was_open) = (false, false);
        loop {
            let mut old = None;
            let (result, session) = {
                let mut state = self.shared.lock();
                was_paused |= !state.connection.wants_read();
                was_open |= state.connection.is_open();
                let taken = self.shared.take_events(&mut state, &mut self.events);
                let result = if taken.is_err() && !state.error_is_told {
                    state.error_is_told = true;
                    Poll::Ready(Err(Some(state.cause())))
                } else if !self.events.is_empty() {
                    Poll::Ready(Ok(()))
                } else if state.has_ended() {
                    Poll::Ready(Err(None))
                } else {
                    Poll::Pending
                };
                if result.is_pending() {
                    if is_of_handler {
                        old = state.let_handler_wait();
                    } else if !state.wait_for_messages(cx.waker(), &mut spare) {
                        drop(state);
                        spare = Some(cx.waker().clone());
                        continue;
                    }
                }
                // Room again: reading goes on. What waited for room may be a ping or a Close too;
                // and what the peer broke comes up here, with a Close to be sent.
                let connection = &state.connection;
                let goes_on = was_paused && (connection.wants_read() || connection.wants_write())
                    || was_open && !connection.is_open();
                (result, if goes_on { state.nudge() } else { None })
            };
            drop(old);
            wake(session);
            return result;
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let (session, old) = {
            let mut state = self.shared.lock();
            let old = state.end_receiving();
            (state.nudge(), old)
        };
        drop(old);
        wake(session);
    }
}

impl Stream for Receiver {
    type Item = Result<Message, Error>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Message, Error>>> {
        self.poll_recv(cx)
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receiver").field(&self.shared).finish()
    }
}
