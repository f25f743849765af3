//! The socket: a stream, the engine, and the calls of an application.

use std::{
    io::{Read, Write},
    iter, thread,
    time::{Duration, Instant},
};

use super::{
    driver::{Driver, Turn},
    error::{Closed, Error},
    stream::{Stream, TimedStream},
};
use crate::{CloseCode, CloseFrame, Connection, Event, Message, PreparedMessage, SendError};

/// A WebSocket on blocking I/O, either end of it.
///
/// [`connect`](super::connect) yields one, so does [`Incoming`](super::Incoming), and
/// [`new`](Self::new) puts one on top of any stream and any [`Connection`].
///
/// The calls do the work: between them nothing happens. A ping is answered, the peer's Close is
/// answered, and keepalive runs, while a call waits; [`send`](Self::send) looks at what has come at
/// most once a second. A program that does neither for long should call
/// [`recv_timeout`](Self::recv_timeout) now and then, which takes as little time as it is given.
/// To send while another thread waits for messages, put the socket into a mutex and wait in short
/// steps; a wait that was too short loses nothing.
///
/// Dropping a socket drops its stream, and the peer sees an unclean end. [`close`](Self::close)
/// says goodbye.
///
/// ```no_run
/// use ws_core::blocking::connect;
///
/// let mut socket = connect("ws://127.0.0.1:9001/echo")?;
/// socket.send("Hello")?;
/// while let Some(message) = socket.recv() {
///     println!("{:?}", message?);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct WebSocket<S = Stream> {
    driver: Driver<S>,
    subprotocol: Option<Box<str>>,
    /// Whether `recv` has told the error that ended the connection.
    is_told: bool,
}

impl<S: TimedStream> WebSocket<S> {
    /// Puts a socket on top of a stream, whose opening handshake is done.
    ///
    /// Bytes that came behind the handshake go into [`Connection::receive`] first.
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// use std::{os::unix::net::UnixStream, thread};
    /// use ws_core::{CloseCode, Config, Connection, Message, Role, blocking::WebSocket};
    ///
    /// let (near, far) = UnixStream::pair()?;
    /// let server = thread::spawn(move || {
    ///     let mut socket = WebSocket::new(far, Connection::new(Role::Server, Config::new()));
    ///     while let Some(Ok(message)) = socket.recv() {
    ///         socket.send(message)?;
    ///     }
    ///     Ok::<_, ws_core::blocking::Error>(socket.closed())
    /// });
    ///
    /// let mut socket = WebSocket::new(near, Connection::new(Role::Client, Config::new()));
    /// socket.send("Hello")?;
    /// assert_eq!(socket.recv().transpose()?, Some(Message::text("Hello")));
    /// assert!(socket.close(CloseCode::NORMAL).is_clean());
    /// assert!(server.join().unwrap()?.is_some_and(|closed| closed.is_clean()));
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(stream: S, connection: Connection) -> Self {
        Self::over(Driver::timed(stream, connection))
    }
}

impl<S: Read + Write> WebSocket<S> {
    /// Puts a socket on top of a stream whose waits cannot be limited: a pipe, a serial line, the
    /// streams of a test.
    ///
    /// It has no sense of time while the stream waits: no keepalive, no deadline for closing, and
    /// nobody waits for the peer to end the stream. If the stream itself gives up waiting, with
    /// [`WouldBlock`](std::io::ErrorKind::WouldBlock) or
    /// [`TimedOut`](std::io::ErrorKind::TimedOut), receiving is [`Error::TimedOut`], and what could
    /// not be written goes out with the next call: so a stream in non-blocking mode can be driven.
    pub fn without_timeouts(stream: S, connection: Connection) -> Self {
        Self::over(Driver::untimed(stream, connection))
    }

    /// Receives the next message. `None` when the peer has closed, and after the error that ended
    /// the connection has been told.
    ///
    /// Messages that arrived before the end are delivered first, and can still be answered. The end
    /// comes when nothing is left to do: the peer has had our answer to its Close, and ended the
    /// stream where that is its part, or [`Config::close_timeout`](crate::Config::close_timeout)
    /// has passed.
    ///
    /// # Errors
    ///
    /// Once, when the connection ended without a closing handshake: [`Error::Connection`] says what
    /// the peer did or failed to do, [`Error::Io`] what the stream said. [`Error::TimedOut`] when
    /// the stream gives up waiting of its own accord, see
    /// [`without_timeouts`](Self::without_timeouts).
    pub fn recv(&mut self) -> Option<Result<Message, Error>> {
        self.recv_until(None)
    }

    /// The messages to come, until the peer closes: what [`recv`](Self::recv) returns, again and
    /// again.
    pub fn messages(&mut self) -> impl Iterator<Item = Result<Message, Error>> + '_ {
        iter::from_fn(|| self.recv())
    }

    /// Sends a message, and waits until the stream has taken all of it. Whether it arrived, only
    /// the peer can say.
    ///
    /// A peer that reads nothing before somebody reads from it is read from, until the inbox is
    /// full ([`Config::inbox_high_water`](crate::Config::inbox_high_water)): so take what comes.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] after a Close either way, or what ended the connection: a peer that takes
    /// no bytes for [`Config::write_timeout`](crate::Config::write_timeout) is given up. With a
    /// stream that gives up waiting of its own accord [`Error::TimedOut`], and nothing is queued,
    /// when the queue is above its high-water mark.
    pub fn send(&mut self, message: impl Into<Message>) -> Result<(), Error> {
        let message = message.into();
        self.queue(|connection| connection.send_ref(&message))
    }

    /// Sends a message that is encoded already, as [`send`](Self::send) does.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    pub fn send_prepared(&mut self, message: &PreparedMessage) -> Result<(), Error> {
        self.queue(|connection| connection.send_prepared(message))
    }

    /// Pings the peer and waits for the answer; returns the time that it took. Messages that come
    /// meanwhile are kept for [`recv`](Self::recv).
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] without an answer for
    /// [`Config::keepalive_timeout`](crate::Config::keepalive_timeout), or when the inbox is full
    /// and nothing more is read: take the messages first. [`Error::Closed`] or what ended the
    /// connection.
    pub fn ping(&mut self) -> Result<Duration, Error> {
        let start = Instant::now();
        let deadline = start.checked_add(self.driver.connection.config().keepalive_timeout);
        let number = self.driver.connection.probe();
        loop {
            let connection = &mut self.driver.connection;
            // Keepalive may have asked since, and the newest answer stands for all before it.
            if connection.answered_probe().wrapping_sub(number) < u32::MAX / 2 {
                let now = Instant::now();
                self.driver.connection.measure(now);
                return Ok(now.saturating_duration_since(start));
            }
            if !connection.is_open() {
                return Err(self.why_closed());
            }
            if !connection.wants_write() && !connection.wants_read() {
                return Err(Error::TimedOut);
            }
            let turn = self.driver.turn(deadline);
            if self.has_waited(turn, deadline) {
                return Err(Error::TimedOut);
            }
        }
    }

    /// Closes the socket after what was sent, and waits for its end: at most for
    /// [`Config::close_timeout`](crate::Config::close_timeout), if the stream can limit its waits.
    /// `None` sends a Close without a code.
    ///
    /// What the peer sends before its own Close can still be received afterwards, as far as the
    /// inbox has room. Closing what is closed already tells how it ended.
    ///
    /// 1010 is for clients (RFC 6455 §7.4.1): a server sends 1011 in its place.
    pub fn close(&mut self, close: impl Into<Option<CloseFrame>>) -> Closed {
        /// How long a stream that does not wait is left alone.
        const PAUSE: Duration = Duration::from_millis(1);
        let connection = &mut self.driver.connection;
        // Whatever there is against it has been done already.
        let _ = say_close(connection, close.into().as_ref());
        connection.discard_overflow();
        while !self.driver.is_over() {
            if self.driver.turn(None) == Turn::Waited && !self.driver.is_timed() {
                thread::sleep(PAUSE);
            }
        }
        self.driver.finish();
        self.driver.facts()
    }

    /// Sends a Close after what was sent, and does not wait for the answer, unlike
    /// [`close`](Self::close): for a program that takes what the peer still has to say as it comes.
    /// So go on receiving; [`recv`](Self::recv) is `None` after the peer's Close, or when
    /// [`Config::close_timeout`](crate::Config::close_timeout) has passed.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    ///
    /// ```no_run
    /// use ws_core::{CloseCode, blocking::connect};
    ///
    /// let mut socket = connect("ws://127.0.0.1:9001/report")?;
    /// socket.send("all of it, please")?;
    /// socket.start_close(CloseCode::NORMAL)?;
    /// for message in socket.messages() {
    ///     println!("{:?}", message?);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn start_close(&mut self, close: impl Into<Option<CloseFrame>>) -> Result<(), Error> {
        let close = close.into();
        self.queue(|connection| say_close(connection, close.as_ref()))
    }

    /// Throws away the messages that wait and all that come, for a program that only sends. Pings
    /// and the Close are still seen to, and [`recv`](Self::recv) only tells the end.
    pub fn discard_incoming(&mut self) {
        self.driver.connection.discard_incoming();
    }

    fn recv_until(&mut self, deadline: Option<Instant>) -> Option<Result<Message, Error>> {
        let mut is_late = false;
        loop {
            match self.driver.connection.poll() {
                Ok(Some(Event::Message(message))) => return Some(Ok(message)),
                Ok(Some(_)) => continue,
                // The error is told when the peer has been.
                Ok(None) | Err(_) => {}
            }
            if self.driver.is_over() {
                return self.tell_end().map(Err);
            }
            if is_late {
                return Some(Err(Error::TimedOut));
            }
            let turn = self.driver.turn(deadline);
            is_late = self.has_waited(turn, deadline);
        }
    }

    fn tell_end(&mut self) -> Option<Error> {
        self.driver.finish();
        let is_told = std::mem::replace(&mut self.is_told, true);
        self.driver.cause().filter(|_| !is_told)
    }

    /// Whether the time is over, or only the stream knows how long it waits.
    fn has_waited(&self, turn: Turn, deadline: Option<Instant>) -> bool {
        turn == Turn::Waited && !self.driver.is_timed()
            || deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    fn queue(
        &mut self,
        queue: impl Fn(&mut Connection) -> Result<(), SendError>,
    ) -> Result<(), Error> {
        self.driver.listen_if_deaf();
        self.driver.lend();
        loop {
            match queue(&mut self.driver.connection) {
                Ok(()) => break,
                // Left behind by a stream that does not wait.
                Err(SendError::Full) => {
                    if self.driver.turn(None) == Turn::Waited && !self.driver.is_timed() {
                        return Err(Error::TimedOut);
                    }
                }
                Err(SendError::Closed) => return Err(self.why_closed()),
                Err(error) => return Err(Error::Send(error)),
            }
        }
        while self.driver.connection.wants_write() && !self.driver.is_over() {
            if self.driver.turn(None) == Turn::Waited && !self.driver.is_timed() {
                // It is queued, and goes out with the next call.
                return Ok(());
            }
        }
        match self.driver.cause() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn why_closed(&self) -> Error {
        self.driver.cause().unwrap_or(Error::Closed)
    }
}

impl<S: TimedStream> WebSocket<S> {
    /// Receives the next message, and waits for it no longer than this. Zero takes what has come
    /// already, and waits for one millisecond at most.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when the time is over. Nothing is lost by it, not even the half of a
    /// message, and the next call goes on. Else those of [`recv`](Self::recv).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Option<Result<Message, Error>> {
        // A time that no clock can tell is no limit.
        self.recv_until(Instant::now().checked_add(timeout))
    }

    /// Receives the next message, and waits for it no longer than until then; see
    /// [`recv_timeout`](Self::recv_timeout).
    ///
    /// # Errors
    ///
    /// Those of [`recv_timeout`](Self::recv_timeout).
    pub fn recv_deadline(&mut self, deadline: Instant) -> Option<Result<Message, Error>> {
        self.recv_until(Some(deadline))
    }
}

impl<S> WebSocket<S> {
    fn over(driver: Driver<S>) -> Self {
        Self {
            driver,
            subprotocol: None,
            is_told: false,
        }
    }

    pub(super) fn with_subprotocol(mut self, subprotocol: Option<Box<str>>) -> Self {
        self.subprotocol = subprotocol;
        self
    }

    /// The subprotocol that both ends speak; `None` if they agreed on none, or if the opening
    /// handshake was not made here.
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// Whether messages can be sent: no Close has gone either way, and nothing has failed. What
    /// has not been read yet does not count.
    pub fn is_open(&self) -> bool {
        self.driver.connection.is_open()
    }

    /// How long the peer took to answer the newest ping: one of keepalive, or of
    /// [`ping`](Self::ping). From its leaving to its answer, in whole microseconds. `None` before the
    /// first. Keepalive needs a socket that is being read: see the [module](super).
    pub fn latency(&self) -> Option<Duration> {
        self.driver.connection.latency()
    }

    /// How the socket ended, if it has.
    pub fn closed(&self) -> Option<Closed> {
        self.driver.is_over().then(|| self.driver.facts())
    }

    /// The engine, for its facts.
    pub fn connection(&self) -> &Connection {
        &self.driver.connection
    }

    /// The stream. Reading from it, writing to it or changing its timeouts breaks the socket.
    pub fn stream(&self) -> &S {
        &self.driver.stream
    }

    #[cfg(test)]
    pub(super) fn stream_mut(&mut self) -> &mut S {
        &mut self.driver.stream
    }
}

/// Queues a Close. What only a client may say becomes what a server says instead.
fn say_close(connection: &mut Connection, close: Option<&CloseFrame>) -> Result<(), SendError> {
    match connection.close(close.cloned()) {
        Err(SendError::ServerSent1010) => connection.close(CloseCode::INTERNAL_ERROR),
        result => result,
    }
}
