//! An acceptance on its way out, and the task that it becomes.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use http::StatusCode;
use pin_project_lite::pin_project;
use tokio::{
    runtime::Handle,
    task::AbortHandle,
    time::{Sleep, sleep},
};
use ws_core::handshake::Opening;

use crate::{
    Error, Session, Tracker, WebSocket,
    handler::Start,
    provided::{Io, Source},
    session::{BoxHandler, OnClosed, state::Shared},
    tracker::Registration,
};

/// A session that has not begun, in the extensions of the response that opens it. Clones share
/// it, and the first taker has it.
#[derive(Clone)]
pub(crate) struct Acceptance(Arc<Mutex<Option<Pending>>>);

impl Acceptance {
    pub(crate) fn new(pending: Pending) -> Self {
        Self(Arc::new(Mutex::new(Some(pending))))
    }

    pub(crate) fn take(&self) -> Option<Pending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Gives it up if it has not left in time: somebody holds a handle already, and waits.
    pub(crate) fn expire(&self) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(pending) = slot.as_mut() else { return };
        let (timeout, weak) = (pending.timeout, Arc::downgrade(&self.0));
        let task = runtime.spawn(async move {
            sleep(timeout).await;
            if let Some(acceptance) = weak.upgrade() {
                drop(Self(acceptance).take());
            }
        });
        pending.expiry = Some(task.abort_handle());
    }
}

impl fmt::Debug for Acceptance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptance").finish_non_exhaustive()
    }
}

/// All that a session needs but the bytes. Dropped, it ends its handle with `NotUpgraded`.
pub(crate) struct Pending {
    shared: Arc<Shared>,
    opening: Opening,
    /// `None` once there are bytes.
    source: Option<Source>,
    start: Option<Start>,
    on_closed: Option<OnClosed>,
    cancel_on_close: bool,
    /// The layer's own, beside that of the gate.
    tracker: Tracker,
    timeout: Duration,
    expiry: Option<AbortHandle>,
}

impl Pending {
    pub(crate) fn new(
        shared: Arc<Shared>,
        opening: Opening,
        source: Source,
        tracker: Tracker,
    ) -> Self {
        let timeout = shared.lock().connection.config().handshake_timeout;
        Self {
            shared,
            opening,
            source: Some(source),
            start: None,
            on_closed: None,
            cancel_on_close: false,
            tracker,
            timeout,
            expiry: None,
        }
    }

    pub(crate) fn with_start(mut self, start: Option<Start>) -> Self {
        self.start = start;
        self
    }

    pub(crate) fn with_on_closed(mut self, hook: Option<OnClosed>) -> Self {
        self.on_closed = hook;
        self
    }

    pub(crate) fn with_cancel_on_close(mut self, cancel: bool) -> Self {
        self.cancel_on_close = cancel;
        self
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Whether a response of this status is the one that opens the session.
    pub(crate) fn is_opened_by(&self, status: StatusCode) -> bool {
        match self.opening {
            Opening::ExtendedConnect => status.is_success(),
            // RFC 6455 §4.2.2: 101, and an opening that is not known yet will not be another.
            _ => status == StatusCode::SWITCHING_PROTOCOLS,
        }
    }

    /// Lets the session begin as soon as its bytes are there, in a task of its own.
    pub(crate) fn launch(mut self, tracker: &Tracker) {
        let Ok(runtime) = Handle::try_current() else {
            tracing::error!("websocket refused: there is no tokio runtime to spawn its session on");
            return;
        };
        if let Some(expiry) = self.expiry.take() {
            expiry.abort();
        }
        let of_layer =
            (!self.tracker.is_same(tracker)).then(|| self.tracker.register(&self.shared));
        let launch = Launch {
            _registrations: (tracker.register(&self.shared), of_layer),
            phase: Phase::Waiting {
                waiting: Some(Box::new(Waiting {
                    deadline: None,
                    pending: self,
                })),
            },
        };
        runtime.spawn(launch);
    }

    /// The bytes are there.
    fn into_session(mut self, io: Io) -> Session<Io, BoxHandler> {
        self.source = None;
        let start = self.start.take();
        let handler = start.map(|start| start.start(WebSocket::new(Arc::clone(&self.shared))));
        Session::start(Arc::clone(&self.shared), io, handler)
            .on_closed(self.on_closed.take())
            .cancel_on_close(self.cancel_on_close)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(expiry) = self.expiry.take() {
            expiry.abort();
        }
        if self.source.take().is_some() {
            self.shared.end(Some(Error::NotUpgraded));
            self.shared.forget_session();
        }
    }
}

pin_project! {
    /// The task of a session: waits for the bytes, then runs it.
    struct Launch {
        #[pin]
        phase: Phase,
        // Last: a shutdown waits until everything else has been dropped.
        _registrations: (Registration, Option<Registration>),
    }
}

pin_project! {
    // What is only needed before the session is in a box of its own: the task keeps its size.
    #[project = PhaseProj]
    enum Phase {
        Waiting { waiting: Option<Box<Waiting>> },
        Running { #[pin] session: Session<Io, BoxHandler> },
    }
}

struct Waiting {
    pending: Pending,
    /// Mostly the bytes are there at once.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Waiting {
    /// `None`: the session will never begin.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Io>> {
        let Some(source) = self.pending.source.as_mut() else {
            return Poll::Ready(None);
        };
        // A shutdown that cuts the session off wakes this waker.
        let (old, is_cut) = {
            let mut state = self.pending.shared.lock();
            let old = state.begin_poll(cx.waker());
            state.end_poll();
            (old, state.cut)
        };
        drop(old);
        if is_cut {
            return Poll::Ready(None);
        }
        match source.poll(cx) {
            Poll::Ready(Ok(io)) => return Poll::Ready(Some(io)),
            Poll::Ready(Err(error)) => {
                let path = self.pending.shared.path();
                if error.is_misuse() {
                    tracing::error!(
                        path,
                        %error,
                        "websocket lost after its acceptance: the http server must serve with \
                         upgrades (hyper: `serve_connection_with_upgrades`, or `with_upgrades` \
                         on the connection)"
                    );
                } else {
                    tracing::debug!(path, %error, "websocket client was gone before it opened");
                }
                return Poll::Ready(None);
            }
            Poll::Pending => {}
        }
        let timeout = self.pending.timeout;
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(sleep(timeout)));
        deadline.as_mut().poll(cx).map(|()| {
            let path = self.pending.shared.path();
            tracing::debug!(
                path,
                "websocket given up: its acceptance did not leave in time"
            );
            None
        })
    }
}

impl Future for Launch {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut phase = self.project().phase;
        if let PhaseProj::Waiting { waiting } = phase.as_mut().project() {
            let io = match waiting {
                Some(waiting) => ready!(waiting.poll(cx)),
                None => None,
            };
            let (Some(waiting), Some(io)) = (waiting.take(), io) else {
                return Poll::Ready(());
            };
            let session = waiting.pending.into_session(io);
            phase.set(Phase::Running { session });
        }
        match phase.project() {
            PhaseProj::Running { session } => session.poll(cx).map(drop),
            PhaseProj::Waiting { .. } => Poll::Ready(()),
        }
    }
}

#[cfg(test)]
pub(super) const LAUNCH_SIZE: usize = size_of::<Launch>();
