//! The future of a response: the inner service's, not boxed, or the layer's own.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use pin_project_lite::pin_project;

use crate::{body::MakeBody, gate::Gate};

pin_project! {
    /// The response of a [`WebSocketService`](crate::WebSocketService).
    pub struct ResponseFuture<F, M> {
        #[pin]
        state: State<F>,
        make_body: M,
        // If the response leaves our parts here.
        gate: Option<Gate>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Inner { #[pin] future: F },
        Guarded { future: Own },
        Ready { response: Response<String> },
    }
}

type Own = Pin<Box<dyn Future<Output = Response<String>> + Send>>;

impl<F, M> ResponseFuture<F, M> {
    pub(crate) fn inner(future: F, make_body: M, gate: Option<Gate>) -> Self {
        Self::new(State::Inner { future }, make_body, gate)
    }

    /// The layer's own, once its guards agree.
    pub(crate) fn guarded(future: Own, make_body: M, gate: Option<Gate>) -> Self {
        Self::new(State::Guarded { future }, make_body, gate)
    }

    /// The layer's own.
    pub(crate) fn ready(response: Response<String>, make_body: M, gate: Option<Gate>) -> Self {
        Self::new(State::Ready { response }, make_body, gate)
    }

    fn new(state: State<F>, make_body: M, gate: Option<Gate>) -> Self {
        Self {
            state,
            make_body,
            gate,
        }
    }
}

impl<F, M, B, E> Future for ResponseFuture<F, M>
where
    F: Future<Output = Result<Response<B>, E>>,
    M: MakeBody<B>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut response = match this.state.project() {
            StateProj::Inner { future } => ready!(future.poll(cx))?,
            StateProj::Guarded { future } => this.make_body.make(ready!(future.as_mut().poll(cx))),
            StateProj::Ready { response } => this.make_body.make(mem::take(response)),
        };
        if let Some(gate) = this.gate.take() {
            gate.release(&mut response);
        }
        Poll::Ready(Ok(response))
    }
}

impl<F, M> fmt::Debug for ResponseFuture<F, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
