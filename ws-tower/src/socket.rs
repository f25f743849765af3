//! The handles of a socket: [`WebSocket`], and its halves [`Sender`] and [`Receiver`].
//!
//! Handles have no I/O in them. Receiving takes from the session's queue and sending puts into
//! it, so any number of tasks may do both at once, and a future that is dropped loses nothing.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;
use futures_sink::Sink;
use ws_core::{CloseFrame, Compress, Config, Connection, Message, PreparedMessage, Role};

use crate::{Closed, Error, Session, TrySendError, session::state::Shared};

mod receiver;
mod sender;
mod waiting;

pub use receiver::Receiver;
pub use sender::Sender;

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

impl WebSocket {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            sender: Sender::new(Arc::clone(&shared)),
            receiver: Receiver::new(shared),
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
        self.sender.send(message)
    }

    /// Sends a message as [`send`](Self::send) does, and says whether it is compressed, where that
    /// was agreed on: [`Compress::Never`] for what holds a secret beside a stranger's text, or is
    /// compressed already.
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
        self.sender.send_with(message, compress).await
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

    /// How long the peer took to answer the newest ping: one of keepalive, which goes out when
    /// nothing came for [`Config::keepalive_interval`], or of [`ping`](Self::ping). From its leaving
    /// to its answer, in whole microseconds; what the session had in hand when the answer came counts
    /// as well. `None` before the first. Of pings that are under way at the same time, one is
    /// measured.
    pub fn latency(&self) -> Option<Duration> {
        self.sender.latency()
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

    /// How the socket ended, if it has.
    pub fn try_closed(&self) -> Option<Closed> {
        self.sender.try_closed()
    }

    /// Whether messages can be sent: no Close has gone either way, and nothing has failed.
    pub fn is_open(&self) -> bool {
        self.sender.is_open()
    }

    /// Throws away the messages that wait and all that come, for a handler that only sends. Pings
    /// and the Close are still seen to, and [`recv`](Self::recv) only tells the end.
    pub fn discard_incoming(&mut self) {
        self.receiver.discard_incoming();
    }

    /// Takes the socket apart, at no cost. The receiving half keeps it open.
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }

    /// Another sending half.
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// The path of the request, as the layer saw it; empty for a client.
    pub fn path(&self) -> &str {
        self.sender.path()
    }

    /// A parameter of the route's path, percent-decoded: of `/rooms/{room}` the `room`.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.sender.param(name)
    }

    /// The parameters of the route's path, in its order.
    pub fn params(&self) -> impl Iterator<Item = (&str, &str)> {
        self.sender.params()
    }

    /// The subprotocol that both ends speak; `None` if they agreed on none.
    pub fn subprotocol(&self) -> Option<&str> {
        self.sender.subprotocol()
    }

    /// The address of the peer, if the server told it: `ws_hyper::serve` does, for others see
    /// [`WebSocketLayer::peer_addr`](crate::WebSocketLayer::peer_addr). Behind a proxy it is the
    /// proxy's.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.sender.peer()
    }
}

impl AsRef<Sender> for WebSocket {
    fn as_ref(&self) -> &Sender {
        &self.sender
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
