//! The handles of a socket: [`WebSocket`], and its halves [`Sender`] and [`Receiver`].
//!
//! Handles have no I/O in them. Receiving takes from the session's queue and sending puts into
//! it, so any number of tasks may do both at once, and a future that is dropped loses nothing.

use std::{
    collections::VecDeque,
    fmt,
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_core::{Stream, ready};
use futures_sink::Sink;
use tokio::{task::coop, time::Instant};
use ws_core::{
    CloseCode, CloseFrame, Config, Connection, Event, Message, PreparedMessage, Role, SendError,
};

use crate::{
    Closed, Error, Session, TrySendError,
    session::state::{About, Shared, State, Ticket, Wait, has_come, wake},
};

/// A WebSocket: what a handler gets, and what [`pair`] and [`Session::new`] yield.
///
/// Pings, pongs, keepalive and closing are the session's; a handle only sees messages. It is
/// `Send + Sync`, may be moved to any task, and has no type parameter.
///
/// The socket closes when its handler has returned and no `WebSocket` or [`Receiver`] is left, after
/// all that was sent: with 1000, or with 1011 when the handler has failed. The
/// [crate's root](crate#the-end-of-a-socket) has the other ends.
///
/// It is also a [`Stream`] of messages and a [`Sink`] for them. The sink needs no flush: the session
/// writes what is queued without being asked. Closing the sink closes the socket with 1000.
///
/// ```
/// use ws_tower::{Error, WebSocket};
///
/// async fn echo(mut socket: WebSocket) -> Result<(), Error> {
///     while let Some(message) = socket.recv().await {
///         socket.send(message?).await?;
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct WebSocket {
    receiver: Receiver,
    sender: Sender,
}

/// The sending half. Clone it for as many tasks as needed: messages never interleave.
///
/// It does not keep the socket open.
pub struct Sender {
    shared: Arc<Shared>,
    /// The place among those who wait, when used as a [`Sink`].
    ticket: Option<Ticket>,
}

/// The receiving half. Dropping it throws away what comes from then on; without a running
/// handler it closes the socket.
pub struct Receiver {
    shared: Arc<Shared>,
    /// Messages taken from the session at once: one hold of the lock for all that came in a turn.
    events: VecDeque<Event>,
}

impl WebSocket {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            sender: Sender::new(Arc::clone(&shared)),
            receiver: Receiver {
                shared,
                events: VecDeque::new(),
            },
        }
    }

    /// Receives the next message. `None` when the peer has closed, and after the error that ended
    /// the connection has been told.
    ///
    /// Messages that arrived before the end are delivered first, and can still be answered.
    ///
    /// # Errors
    ///
    /// Once, when the connection ended without a closing handshake: [`Error::Connection`] says what
    /// the peer did or failed to do, [`Error::Io`] what the stream said, [`Error::NotUpgraded`] and
    /// [`Error::Aborted`] that there is no session (any more).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a message is taken only when the future is ready.
    pub fn recv(&mut self) -> impl Future<Output = Option<Result<Message, Error>>> + Send {
        self.receiver.recv()
    }

    /// Sends a message: queues it, and waits only while the queue is above its
    /// [high-water mark](Config::outgoing_high_water). When it is ready the message is on its way;
    /// whether it arrived, only the peer can say.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] after a Close either way, or what ended the connection.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: either the future is ready and the message is queued whole, or it is not
    /// queued at all. A cancelled wait drops the message;
    /// [`try_send`](Self::try_send) gives it back.
    pub fn send(
        &self,
        message: impl Into<Message>,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        Sending::new(&self.sender.shared, message.into())
    }

    /// Sends a message that is encoded already, as [`send`](Self::send) does.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, as [`send`](Self::send) is.
    pub async fn send_prepared(&self, message: &PreparedMessage) -> Result<(), Error> {
        self.sender.send_prepared(message).await
    }

    /// Sends a message if there is room for it now: below the queue's high-water mark.
    ///
    /// # Errors
    ///
    /// [`TrySendError`], with the message: there is no room, or the socket is closed.
    pub fn try_send(&self, message: impl Into<Message>) -> Result<(), TrySendError> {
        self.sender.try_send(message)
    }

    /// Pings the peer and waits for the answer; returns the time that it took, queues included.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] or what ended the connection.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the ping goes out, and its answer is ignored.
    pub async fn ping(&self) -> Result<Duration, Error> {
        self.sender.ping().await
    }

    /// Closes the socket after what is queued, and waits for its end: at most the flush and
    /// [`Config::close_timeout`]. `None` sends a Close without a code.
    ///
    /// What the peer sends before its own Close can still be received, as far as the inbox has
    /// room.
    ///
    /// 1010 is for clients (RFC 6455 §7.4.1): a server sends 1011 in its place.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the Close is queued when the future is first polled.
    pub async fn close(&self, close: impl Into<Option<CloseFrame>>) -> Closed {
        self.sender.close(close).await
    }

    /// Waits for the end of the socket.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the facts stay.
    pub async fn closed(&self) -> Closed {
        self.sender.closed().await
    }

    /// Throws away the messages that wait and all that come, for a handler that only sends. Pings
    /// and the Close are still seen to, and [`recv`](Self::recv) only tells the end.
    pub fn discard_incoming(&mut self) {
        self.receiver.discard_incoming();
    }

    /// Takes the socket apart, at no cost. The receiving half keeps it open. What the socket knows
    /// of its request ([`path`](Self::path), [`param`](Self::param), …) is to be asked before.
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }

    /// Another sending half.
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// The path of the request, as the layer saw it; empty for a client.
    pub fn path(&self) -> &str {
        self.sender.shared.path()
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
        self.sender.shared.about()
    }
}

impl Sender {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            ticket: None,
        }
    }

    /// Sends a message: see [`WebSocket::send`].
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

    /// Sends a message that is encoded already: see [`WebSocket::send_prepared`].
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, as [`send`](Self::send) is.
    pub async fn send_prepared(&self, message: &PreparedMessage) -> Result<(), Error> {
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
        let session = {
            let mut state = self.shared.lock();
            match state.connection.send_ref(&message) {
                Ok(()) => state.nudge(),
                Err(SendError::Full) => return Err(TrySendError::Full(message)),
                Err(_) => return Err(TrySendError::Closed(message)),
            }
        };
        wake(session);
        Ok(())
    }

    /// Pings the peer and waits for the answer: see [`WebSocket::ping`].
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
                    Ok(Ok(start.elapsed()))
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

    /// Closes the socket and waits for its end: see [`WebSocket::close`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the Close is queued when the future is first polled.
    pub async fn close(&self, close: impl Into<Option<CloseFrame>>) -> Closed {
        self.start_close(close.into());
        self.closed().await
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
        let mut waiting = Waiting::new(&self.shared);
        poll_fn(|cx| waiting.poll(cx, |state| state.closed.clone().ok_or(Wait::Close))).await
    }

    /// How the socket ended, if it has.
    pub fn try_closed(&self) -> Option<Closed> {
        self.shared.lock().closed.clone()
    }

    /// Whether messages can be sent: no Close has gone either way, and nothing has failed.
    pub fn is_open(&self) -> bool {
        self.shared.lock().connection.is_open()
    }
}

impl Receiver {
    /// Receives the next message: see [`WebSocket::recv`].
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

    /// Throws away the messages that wait and all that come: see
    /// [`WebSocket::discard_incoming`].
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
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Error>>> {
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
        // A waker may do anything when it is cloned or dropped: not under the lock.
        let mut spare = None;
        let (mut was_paused, mut was_open) = (false, false);
        loop {
            let (result, session) = {
                let mut state = self.shared.lock();
                was_paused |= !state.connection.wants_read();
                was_open |= state.connection.is_open();
                let taken = state.connection.take_events(&mut self.events);
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
                if result.is_pending() && !state.wait_for_messages(cx.waker(), &mut spare) {
                    drop(state);
                    spare = Some(cx.waker().clone());
                    continue;
                }
                // Room again: reading goes on. What waited for room may be a ping or a Close too;
                // and what the peer broke comes up here, with a Close to be sent.
                let connection = &state.connection;
                let goes_on = was_paused && (connection.wants_read() || connection.wants_write())
                    || was_open && !connection.is_open();
                (result, if goes_on { state.nudge() } else { None })
            };
            wake(session);
            return result;
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let (session, old) = {
            let mut state = self.shared.lock();
            state.receiver_is_alive = false;
            state.connection.discard_incoming();
            (state.nudge(), state.receiver.take())
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

impl Stream for WebSocket {
    type Item = Result<Message, Error>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Message, Error>>> {
        self.receiver.poll_recv(cx)
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
        let session = {
            let mut state = self.shared.lock();
            // Whoever was told that there is room may have been overtaken: one message more.
            match state.connection.send_promised(&message) {
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

impl Sink<Message> for WebSocket {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.sender).poll_ready(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        Pin::new(&mut self.sender).start_send(message)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.sender).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.sender).poll_close(cx)
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

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receiver").field(&self.shared).finish()
    }
}

/// The future of [`Sender::send`]: no larger than what it holds, for it lies in the handler's own
/// future, which every idle connection has.
struct Sending<'a> {
    message: Message,
    waiting: Waiting<'a>,
}

impl<'a> Sending<'a> {
    fn new(shared: &'a Shared, message: Message) -> Self {
        Self {
            message,
            waiting: Waiting::new(shared),
        }
    }
}

impl Future for Sending<'_> {
    type Output = Result<(), Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Self { message, waiting } = self.get_mut();
        let shared = waiting.shared;
        cooperate(shared, cx, |cx| {
            waiting.poll_send(cx, |connection| connection.send_ref(message))
        })
    }
}

/// Polls a handle as part of tokio's cooperation: a task that finds something each time yields
/// now and then. A handler does so by its session's turns, which are bounded.
#[inline]
fn cooperate<T>(
    shared: *const Shared,
    cx: &mut Context<'_>,
    poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    // The shared state is the handler's waker.
    if cx.waker().data() == shared.cast() {
        return poll(cx);
    }
    let budget = ready!(coop::poll_proceed(cx));
    let result = poll(cx);
    if result.is_ready() {
        budget.made_progress();
    }
    result
}

/// A future's place among those who wait; given up when the future is dropped.
struct Waiting<'a> {
    shared: &'a Shared,
    ticket: Option<Ticket>,
}

impl<'a> Waiting<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            ticket: None,
        }
    }

    /// Tries to send, and waits while the queue is full.
    #[inline]
    fn poll_send(
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
    fn poll<T>(
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

fn forget(shared: &Shared, ticket: Option<Ticket>) {
    if let Some(ticket) = ticket {
        let waker = shared.lock().waiters.forget(ticket);
        drop(waker);
    }
}

/// Two connected sockets in memory: a client and a server, for tests without a port.
///
/// Their sessions are spawned on the current tokio runtime.
///
/// # Panics
///
/// Outside a tokio runtime.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use ws_tower::{Config, Message};
///
/// let (mut client, server) = ws_tower::pair(Config::default());
/// server.send("Hello").await?;
/// assert_eq!(client.recv().await.transpose()?, Some(Message::text("Hello")));
/// # Ok(())
/// # }
/// ```
pub fn pair(config: impl Into<Arc<Config>>) -> (WebSocket, WebSocket) {
    /// What a socket's buffers hold, roughly.
    const BUFFER: usize = 64 << 10;
    let config = config.into();
    let (near, far) = tokio::io::duplex(BUFFER);
    let (session, client) = Session::new(near, Connection::new(Role::Client, Arc::clone(&config)));
    tokio::spawn(session);
    let (session, server) = Session::new(far, Connection::new(Role::Server, config));
    tokio::spawn(session);
    (client, server)
}
