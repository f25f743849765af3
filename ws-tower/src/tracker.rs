//! The tracker: every running session, for the shutdown of the server.
//!
//! HTTP servers forget a connection that has been upgraded, so their graceful shutdown neither
//! tells its WebSockets nor waits for them. A [`Tracker`] does both. A session is either there
//! when the shutdown begins, or it comes later and is told at once: there is one lock.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use slab::Slab;
use tokio::{sync::Notify, time::timeout};
use ws_core::{CloseCode, CloseFrame};

use crate::session::state::Shared;

/// The running sessions of a server. Clones share them.
///
/// ```
/// use std::time::Duration;
/// use ws_tower::{Tracker, WebSocketLayer};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let sockets = WebSocketLayer::new();
/// let tracker = sockets.tracker();
/// // … serve; then, when it is time to go:
/// let shutdown = tracker.shutdown(Duration::from_secs(10)).await;
/// assert_eq!((shutdown.closed, shutdown.cut), (0, 0));
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Tracker(Arc<Inner>);

/// What a shutdown came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shutdown {
    /// Sessions that ended before the deadline.
    pub closed: usize,
    /// Sessions that were cut off at the deadline.
    pub cut: usize,
}

impl Tracker {
    /// A tracker without sessions.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many sessions are running, those included whose bytes the HTTP server has yet to hand
    /// over.
    pub fn len(&self) -> usize {
        self.lock().sessions.len()
    }

    /// Whether no session is running.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether new WebSockets are refused with 503.
    pub fn is_draining(&self) -> bool {
        self.lock().is_draining
    }

    /// Refuses new WebSockets with 503 from now on. Running sessions go on. There is no way back.
    pub fn drain(&self) {
        self.lock().is_draining = true;
    }

    /// Ends all sessions: refuses new ones, says 1001 to each, waits for their ends, and cuts off
    /// those that are left at the deadline.
    ///
    /// A session ends when the closing handshake is done and its handler has returned. Those
    /// that are cut off lose their handlers, and get up to 100 ms more to run what these drop.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, new WebSockets stay refused and the sessions stay told, but
    /// none is cut off. It may be called again.
    pub async fn shutdown(&self, deadline: Duration) -> Shutdown {
        let (sessions, ended) = {
            let mut state = self.lock();
            state.is_draining = true;
            (state.all(), state.ended)
        };
        let goodbye = goodbye();
        for session in sessions {
            session.go_away(&goodbye);
        }
        let in_time = timeout(deadline, self.empty()).await.is_ok();
        let (left, closed) = {
            let state = self.lock();
            let left = if in_time { Vec::new() } else { state.all() };
            (left, state.ended.wrapping_sub(ended))
        };
        for session in &left {
            session.cut();
        }
        let cut = left.len();
        drop(left);
        if cut > 0 {
            let _ = timeout(LAST_ORDERS, self.empty()).await;
        }
        Shutdown { closed, cut }
    }

    /// Takes a session in. While draining it is told to go at once.
    pub(crate) fn register(&self, session: &Arc<Shared>) -> Registration {
        let (key, is_draining) = {
            let mut state = self.lock();
            (
                state.sessions.insert(Arc::clone(session)),
                state.is_draining,
            )
        };
        // Told by both this and a shutdown that begins now, it closes once.
        if is_draining {
            session.go_away(&goodbye());
        }
        Registration {
            tracker: self.clone(),
            key,
        }
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    async fn empty(&self) {
        loop {
            let changed = self.0.emptied.notified();
            tokio::pin!(changed);
            // From here on no notification is missed.
            changed.as_mut().enable();
            if self.is_empty() {
                return;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Tracker")
            .field("len", &state.sessions.len())
            .field("draining", &state.is_draining)
            .finish()
    }
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    emptied: Notify,
}

#[derive(Default)]
struct State {
    is_draining: bool,
    /// How many have ended so far; it wraps.
    ended: usize,
    sessions: Slab<Arc<Shared>>,
}

impl State {
    fn all(&self) -> Vec<Arc<Shared>> {
        self.sessions.iter().map(|(_, it)| Arc::clone(it)).collect()
    }
}

/// A session's place in a tracker: 16 bytes here, 16 there.
pub(crate) struct Registration {
    tracker: Tracker,
    key: usize,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let (session, is_last) = {
            let mut state = self.tracker.lock();
            let session = state.sessions.try_remove(self.key);
            state.ended = state.ended.wrapping_add(1);
            let is_last = state.sessions.is_empty();
            if is_last && state.sessions.capacity() > FEW {
                // A peak of connections leaves nothing behind.
                state.sessions = Slab::new();
            }
            (session, is_last)
        };
        // It may be the last one, and own an inbox.
        drop(session);
        // Whoever waits looks again for itself; a waker may do anything, so not under the lock.
        if is_last {
            self.tracker.0.emptied.notify_waiters();
        }
    }
}

/// Places that are kept for the next sessions: a kilobyte.
const FEW: usize = 64;

/// How long sessions that were cut off get to run their handlers' destructors: longer than a
/// busy scheduler needs for a turn, shorter than anyone who waits for a shutdown minds.
const LAST_ORDERS: Duration = Duration::from_millis(100);

/// RFC 6455 §7.4.1: 1001 is for "a server going down".
fn goodbye() -> CloseFrame {
    CloseFrame::truncated(CloseCode::GOING_AWAY, "server is shutting down")
}

#[cfg(test)]
mod tests;
