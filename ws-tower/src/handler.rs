//! Handlers: the functions that speak to a WebSocket.
//!
//! A handler is called once for each connection, after its bytes have been handed over, and runs
//! inside the connection's session. Its future is erased there, once for each connection and
//! never for each message.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::Request;
use pin_project_lite::pin_project;

use crate::{BoxError, WebSocket, session::BoxHandler};

/// A function that a route can have.
///
/// | parameters | |
/// |---|---|
/// | `(WebSocket)` | the socket knows its path, parameters, subprotocol and peer |
/// | `(WebSocket, Request<()>)` | the request too: headers, extensions of layers and guards |
///
/// It is `async` and returns `()`, or a `Result<(), E>` of any error: an `Err` closes the socket
/// with 1011 and leaves one log record; the cause stays here. A closure with state clones it:
/// `move |socket| chat(socket, hub.clone())`.
///
/// A request pins the buffer that its head was read into: a handler that holds it for as long
/// as the socket lives pays about 4.6 KB for each connection under hyper. Take out what is
/// needed, and drop it.
///
/// `Parameters` only tells the two shapes apart.
pub trait Handler<Parameters>: Send + Sync + 'static {
    /// Whether [`call`](Self::call) uses the request. If not, it is dropped before the upgrade.
    const TAKES_REQUEST: bool;

    /// Calls the handler, with a future that calls it when first polled.
    #[doc(hidden)]
    fn call(
        self: Arc<Self>,
        socket: WebSocket,
        request: Request<()>,
    ) -> Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;
}

impl<F, Fut> Handler<(WebSocket,)> for F
where
    F: Fn(WebSocket) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: Outcome> + Send + 'static,
{
    const TAKES_REQUEST: bool = false;

    fn call(self: Arc<Self>, socket: WebSocket, _: Request<()>) -> BoxHandler {
        erase(move || self(socket))
    }
}

impl<F, Fut> Handler<(WebSocket, Request<()>)> for F
where
    F: Fn(WebSocket, Request<()>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: Outcome> + Send + 'static,
{
    const TAKES_REQUEST: bool = true;

    fn call(self: Arc<Self>, socket: WebSocket, request: Request<()>) -> BoxHandler {
        erase(move || self(socket, request))
    }
}

/// What a handler may return: `()`, or a `Result<(), E>` whose error is any that can be boxed.
pub trait Outcome {
    /// The error, in a box.
    ///
    /// # Errors
    ///
    /// What the handler returned.
    fn into_result(self) -> Result<(), BoxError>;
}

impl Outcome for () {
    fn into_result(self) -> Result<(), BoxError> {
        Ok(())
    }
}

impl<E: Into<BoxError>> Outcome for Result<(), E> {
    fn into_result(self) -> Result<(), BoxError> {
        self.map_err(Into::into)
    }
}

/// A route's handler without its type.
pub(crate) trait ErasedHandler: Send + Sync {
    fn takes_request(&self) -> bool;
    fn call(&self, socket: WebSocket, request: Request<()>) -> BoxHandler;
}

/// Forgets the type of a handler.
pub(crate) fn erase_type<H: Handler<P>, P: 'static>(handler: H) -> Arc<dyn ErasedHandler> {
    Arc::new(Erased {
        handler: Arc::new(handler),
        parameters: std::marker::PhantomData,
    })
}

struct Erased<H, P> {
    handler: Arc<H>,
    parameters: std::marker::PhantomData<fn(P)>,
}

impl<H: Handler<P>, P> ErasedHandler for Erased<H, P> {
    fn takes_request(&self) -> bool {
        H::TAKES_REQUEST
    }

    fn call(&self, socket: WebSocket, request: Request<()>) -> BoxHandler {
        Arc::clone(&self.handler).call(socket, request)
    }
}

/// What makes the handler's future once there is a socket.
pub(crate) enum Start {
    /// A handler that is used once and may own what it likes.
    Once(Box<dyn FnOnce(WebSocket) -> BoxHandler + Send>),
    /// That of a route, with the request if it takes it.
    Route(Arc<dyn ErasedHandler>, Option<Box<Request<()>>>),
}

impl Start {
    pub(crate) fn once<F, Fut>(handler: F) -> Self
    where
        F: FnOnce(WebSocket) -> Fut + Send + 'static,
        Fut: Future<Output: Outcome> + Send + 'static,
    {
        Self::Once(Box::new(|socket| erase(|| handler(socket))))
    }

    pub(crate) fn start(self, socket: WebSocket) -> BoxHandler {
        match self {
            Self::Once(start) => start(socket),
            Self::Route(handler, request) => {
                handler.call(socket, request.map(|request| *request).unwrap_or_default())
            }
        }
    }
}

fn erase<F, Fut>(call: F) -> BoxHandler
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output: Outcome> + Send + 'static,
{
    Box::pin(Call::Waiting { call: Some(call) })
}

pin_project! {
    /// A call that happens in the first poll, where the session catches what panics. An `async`
    /// block would keep room for the arguments beside the future.
    #[project = CallProj]
    enum Call<F, Fut> {
        Waiting { call: Option<F> },
        Running { #[pin] future: Fut },
    }
}

impl<F, Fut> Future for Call<F, Fut>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output: Outcome>,
{
    type Output = Result<(), BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match self.as_mut().project() {
                CallProj::Waiting { call } => {
                    let Some(call) = call.take() else {
                        // The call itself panicked, and was polled again.
                        return Poll::Ready(Err("the handler panicked".into()));
                    };
                    let future = call();
                    self.set(Self::Running { future });
                }
                CallProj::Running { future } => {
                    return Poll::Ready(ready!(future.poll(cx)).into_result());
                }
            }
        }
    }
}
