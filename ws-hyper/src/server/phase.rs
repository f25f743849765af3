//! What a server tells its connections, and how it learns that they have gone.
//!
//! Connections are tasks that nobody joins: a server that waited in its own task for each to end
//! would be woken for every one of them. They hold a receiver of the server's [`Phase`] instead, and
//! go with their receivers.

use std::{
    any::Any,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::sync::watch;

/// What a server is about. Without a sender it is gone: the same as [`Cut`](Self::Cut).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Serving,
    /// Connections end in order.
    Stopping,
    /// Connections are dropped.
    Cut,
}

/// Waits until connections are to end in order, or are to be dropped.
pub(super) async fn next(phase: &mut watch::Receiver<Phase>) -> Phase {
    match phase.changed().await {
        Ok(()) => *phase.borrow(),
        Err(_) => Phase::Cut,
    }
}

pin_project! {
    /// A task that says so if it panics.
    pub(super) struct Reporting<F> {
        #[pin]
        future: F,
        consequence: &'static str,
    }
}

impl<F> Reporting<F> {
    pub(super) fn new(future: F, consequence: &'static str) -> Self {
        Self {
            future,
            consequence,
        }
    }
}

impl<F: Future<Output = ()>> Future for Reporting<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        match catch_unwind(AssertUnwindSafe(|| this.future.poll(cx))) {
            Ok(poll) => poll,
            Err(panic) => {
                let panic = text_of(&*panic);
                tracing::error!(panic, "a service panicked, {}", this.consequence);
                Poll::Ready(())
            }
        }
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a text")
}
