//! The sending half of a socket.

use std::{
    fmt,
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_sink::Sink;
use tokio::time::Instant;
use ws_core::{CloseCode, CloseFrame, Compress, Message, PreparedMessage, SendError};

use super::waiting::{Waiting, closed, cooperate, forget};
use crate::{
    Closed, Error, TrySendError,
    session::state::{About, Shared, Ticket, Wait, has_come, wake},
};

/// The sending half. Clone it for as many tasks as needed: messages never interleave.
///
/// It does not keep the socket open.
pub struct Sender {
    shared: Arc<Shared>,
    /// The place among those who wait, when used as a [`Sink`].
    ticket: Option<Ticket>,
}

impl Sender {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            ticket: None,
        }
    }

    /// Sends a message: see [`WebSocket::send`](crate::WebSocket::send).
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] after a Close either way, or what ended the connection.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: either the future is ready and the message is queued whole, or it is not
    /// queued at all.
    pub fn send(
        &self,
        message: impl Into<Message>,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        // Converting may cost what it will: not under the lock.
        Sending::new(&self.shared, message.into())
    }

    /// Sends a message, compressed or not: see [`WebSocket::send_with`](crate::WebSocket::send_with).
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, as [`send`](Self::send) is.
    pub async fn send_with(
        &self,
        message: impl Into<Message>,
        compress: Compress,
    ) -> Result<(), Error> {
        let message = message.into();
        let apart = compressed_apart(&self.shared, &message, compress);
        let mut waiting = Waiting::new(&self.shared);
        poll_fn(|cx| {
            waiting.poll_send(cx, |connection| match &apart {
                Some(prepared) => connection.send_prepared(prepared),
                None => connection.send_with(&message, compress),
            })
        })
        .await
    }

    /// Sends a message that is encoded already: see [`WebSocket::send_prepared`](crate::WebSocket::send_prepared).
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, as [`send`](Self::send) is.
    pub async fn send_prepared(&self, message: &PreparedMessage) -> Result<(), Error> {
        compress_apart(&self.shared, message);
        let mut waiting = Waiting::new(&self.shared);
        poll_fn(|cx| waiting.poll_send(cx, |connection| connection.send_prepared(message))).await
    }

    /// Sends a message if there is room for it.
    ///
    /// # Errors
    ///
    /// [`TrySendError`] with the message.
    pub fn try_send(&self, message: impl Into<Message>) -> Result<(), TrySendError> {
        let message = message.into();
        if message.len() >= LARGE {
            // Compressing a message that finds no room would be for nothing, again and again.
            let state = self.shared.lock();
            if state.connection.is_open() && !state.connection.is_writable() {
                return Err(TrySendError::Full(message));
            }
        }
        let apart = compressed_apart(&self.shared, &message, Compress::Auto);
        let session = {
            let mut state = self.shared.lock();
            let connection = &mut state.connection;
            let sent = match &apart {
                Some(prepared) => connection.send_prepared(prepared),
                None => connection.send_ref(&message),
            };
            match sent {
                Ok(()) => state.nudge(),
                Err(SendError::Full) => return Err(TrySendError::Full(message)),
                Err(_) => return Err(TrySendError::Closed(message)),
            }
        };
        wake(session);
        Ok(())
    }

    /// Pings the peer and waits for the answer: see [`WebSocket::ping`](crate::WebSocket::ping).
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] or what ended the connection.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the ping goes out, and its answer is ignored.
    pub async fn ping(&self) -> Result<Duration, Error> {
        let start = Instant::now();
        let mut asked = None;
        let mut waiting = Waiting::new(&self.shared);
        poll_fn(|cx| {
            let mut session = None;
            let result = waiting.poll(cx, |state| {
                let number = match asked {
                    Some(number) => number,
                    None if !state.connection.is_open() => return Ok(Err(state.cause())),
                    None => {
                        session = state.nudge();
                        *asked.insert(state.connection.probe())
                    }
                };
                if has_come(state.connection.answered_probe(), number) {
                    let now = Instant::now();
                    state.connection.measure(now.into_std());
                    Ok(Ok(now - start))
                } else if state.has_ended() {
                    Ok(Err(state.cause()))
                } else {
                    Err(Wait::Pong(number))
                }
            });
            wake(session);
            result
        })
        .await
    }

    /// Closes the socket and waits for its end: see [`WebSocket::close`](crate::WebSocket::close).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the Close is queued when the future is first polled.
    pub async fn close(&self, close: impl Into<Option<CloseFrame>>) -> Closed {
        self.start_close(close.into());
        self.closed().await
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Polls with the place that is kept between the calls of a [`Sink`].
    fn poll_waiting<T>(&mut self, poll: impl FnOnce(&mut Waiting<'_>) -> T) -> T {
        let mut waiting = Waiting {
            shared: &self.shared,
            ticket: self.ticket.take(),
        };
        let result = poll(&mut waiting);
        self.ticket = waiting.ticket.take();
        result
    }

    fn start_close(&self, close: Option<CloseFrame>) {
        let session = {
            let mut state = self.shared.lock();
            // Messages that nobody takes must not hide the peer's Close.
            state.connection.discard_overflow();
            if state.connection.close(close) == Err(SendError::ServerSent1010) {
                let _ = state
                    .connection
                    .close(CloseFrame::from(CloseCode::INTERNAL_ERROR));
            }
            state.nudge()
        };
        wake(session);
    }

    /// Waits for the end of the socket.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the facts stay.
    pub async fn closed(&self) -> Closed {
        closed(&self.shared).await
    }

    /// How the socket ended, if it has.
    pub fn try_closed(&self) -> Option<Closed> {
        self.shared.lock().closed.clone()
    }

    /// Whether messages can be sent: no Close has gone either way, and nothing has failed.
    pub fn is_open(&self) -> bool {
        self.shared.lock().connection.is_open()
    }

    /// How long the peer took to answer the newest ping: see
    /// [`WebSocket::latency`](crate::WebSocket::latency).
    pub fn latency(&self) -> Option<Duration> {
        self.shared.lock().connection.latency()
    }

    /// The path of the request, as the layer saw it; empty for a client.
    pub fn path(&self) -> &str {
        self.shared.path()
    }

    /// A parameter of the route's path, percent-decoded: of `/rooms/{room}` the `room`.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params()
            .find_map(|(key, value)| (key == name).then_some(value))
    }

    /// The parameters of the route's path, in its order.
    pub fn params(&self) -> impl Iterator<Item = (&str, &str)> {
        let params = self.about().map_or(&[][..], |about| &about.params);
        params.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The subprotocol that both ends speak; `None` if they agreed on none.
    pub fn subprotocol(&self) -> Option<&str> {
        self.about()?.subprotocol.as_deref()
    }

    /// The address of the peer, if the server told it: `ws_hyper::serve` does, for others see
    /// [`WebSocketLayer::peer_addr`](crate::WebSocketLayer::peer_addr). Behind a proxy it is the
    /// proxy's.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.about()?.peer
    }

    fn about(&self) -> Option<&About> {
        self.shared.about()
    }
}

impl Sink<Message> for Sender {
    type Error = Error;

    /// Waits for room in the queue.
    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.get_mut().poll_waiting(|waiting| {
            waiting.poll_send(cx, |connection| {
                if !connection.is_open() {
                    Err(SendError::Closed)
                } else if connection.is_writable() {
                    Ok(())
                } else {
                    Err(SendError::Full)
                }
            })
        })
    }

    fn start_send(self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        let apart = compressed_apart(&self.shared, &message, Compress::Auto);
        let session = {
            let mut state = self.shared.lock();
            let connection = &mut state.connection;
            // Whoever was told that there is room may have been overtaken: one message more.
            let sent = match &apart {
                Some(prepared) => connection.send_prepared_promised(prepared),
                None => connection.send_promised(&message),
            };
            match sent {
                Ok(()) => state.nudge(),
                Err(_) => return Err(state.cause()),
            }
        };
        wake(session);
        Ok(())
    }

    /// Ready at once: the session writes what is queued without being asked.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    /// Sends a Close with 1000, and waits for the end.
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let this = self.get_mut();
        if this.is_open() {
            this.start_close(Some(CloseCode::NORMAL.into()));
        }
        this.poll_waiting(|waiting| {
            waiting.poll(cx, |state| match state.closed {
                Some(_) => Ok(Ok(())),
                None => Err(Wait::Close),
            })
        })
    }
}

impl AsRef<Self> for Sender {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl Clone for Sender {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.shared))
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        forget(&self.shared, self.ticket.take());
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sender").field(&self.shared).finish()
    }
}

/// The future of [`Sender::send`]: no larger than what it holds, for it lies in the handler's own
/// future, which every idle connection has.
struct Sending<'a> {
    message: Queued,
    waiting: Waiting<'a>,
}

/// What is to be queued.
enum Queued {
    Message(Message),
    Prepared(PreparedMessage),
}

impl<'a> Sending<'a> {
    fn new(shared: &'a Shared, message: Message) -> Self {
        Self {
            message: Queued::Message(message),
            waiting: Waiting::new(shared),
        }
    }
}

impl Future for Sending<'_> {
    type Output = Result<(), Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Self {
            message: queued,
            waiting,
        } = self.get_mut();
        let shared = waiting.shared;
        if let Queued::Message(message) = queued
            && let Some(prepared) = compressed_apart(shared, message, Compress::Auto)
        {
            *queued = Queued::Prepared(prepared);
        }
        cooperate(shared, cx, |cx| {
            waiting.poll_send(cx, |connection| match queued {
                Queued::Message(message) => connection.send_ref(message),
                Queued::Prepared(message) => connection.send_prepared(message),
            })
        })
    }
}

/// Compresses a large message outside the lock, where the connection would under it: a megabyte
/// takes some milliseconds, and meanwhile nobody could receive, nor a ping be answered.
#[inline]
fn compressed_apart(
    shared: &Shared,
    message: &Message,
    compress: Compress,
) -> Option<PreparedMessage> {
    #[cfg(feature = "deflate")]
    if message.len() >= LARGE {
        let prepare = match compress {
            Compress::Auto => PreparedMessage::new,
            Compress::Always => PreparedMessage::compressed,
            Compress::Never => return None,
        };
        let settings = shared.lock().connection.deflate()?;
        let prepared = prepare(message.clone());
        prepared.deflate(&settings);
        return Some(prepared);
    }
    #[cfg(not(feature = "deflate"))]
    let _ = (shared, message, compress);
    None
}

/// The same for a message that was prepared, and not compressed so far.
fn compress_apart(shared: &Shared, prepared: &PreparedMessage) {
    #[cfg(feature = "deflate")]
    if prepared.message().len() >= LARGE {
        let settings = shared.lock().connection.deflate();
        if let Some(settings) = settings {
            prepared.deflate(&settings);
        }
    }
    #[cfg(not(feature = "deflate"))]
    let _ = (shared, prepared);
}

/// From this many bytes on, a message is compressed outside the lock. It then refers to no
/// earlier message, which costs a large one nothing.
const LARGE: usize = 64 << 10;
