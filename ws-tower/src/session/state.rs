//! What a session and its handles share.

use std::{
    any::Any,
    collections::VecDeque,
    io, mem,
    net::SocketAddr,
    num::NonZeroU64,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    task::{Wake, Waker},
};

use ws_core::{
    CloseCode, CloseFrame, Connection, ConnectionError, Event, Outgoing, PreparedMessage, SendError,
};

use super::feeds::Feeds;
use crate::{Closed, Error};

/// The state behind all handles of a socket, and the waker of its handler.
///
/// The lock is never held across I/O, a poll of the handler, or the waking or dropping of a
/// waker: those may run anything, this lock included.
#[repr(C)]
pub(crate) struct Shared {
    /// What has been received since the session's poll began, in bytes; written under the lock.
    taken: AtomicU32,
    /// Whether something the handler waits for has changed.
    handler_woken: AtomicBool,
    state: Mutex<State>,
    about: Option<Box<About>>,
}

// In this order: a broadcast goes from session to session and finds each of them cold. What it
// looks at lies together, behind the lock and before the rest of the connection.
#[repr(C)]
pub(crate) struct State {
    /// Whether the session is being polled: it will look at everything before it rests.
    polling: bool,
    /// Whether the session has been woken since its last poll.
    notified: bool,
    /// Whether something waits for a seat, or is to be dropped: mostly not, and then nobody looks
    /// into their box.
    pub(super) feeds_are_busy: bool,
    /// Whether a `WebSocket` or a `Receiver` is left.
    pub(crate) receiver_is_alive: bool,
    pub(crate) handler: Handler,
    /// Whether the session is to be cut off at once.
    pub(crate) cut: bool,
    /// Whether `recv` has told the error.
    pub(crate) error_is_told: bool,
    /// Whether the handler waits in `recv`: the usual case, which needs no waker.
    handler_waits: bool,
    /// The session's task.
    session: Option<Waker>,
    pub(crate) connection: Connection,
    /// Whoever else waits in `recv`.
    receiver: Option<Waker>,
    pub(crate) waiters: Waiters,
    /// The seats in hubs, and what waits for them. Changed by [`with_feeds`](Self::with_feeds).
    pub(super) feeds: Option<Box<Feeds>>,
    pub(crate) io_error: Option<Arc<io::Error>>,
    pub(crate) closed: Option<Closed>,
}

/// Where the handler is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handler {
    /// It has not returned.
    Running,
    /// There is none, or it has returned without an error.
    Done,
    /// It has returned an error or panicked.
    Failed,
}

/// What a handle can tell about its request, in one small allocation.
#[derive(Debug, Default)]
pub(crate) struct About {
    pub(crate) path: Box<str>,
    pub(crate) params: Box<[(Box<str>, Box<str>)]>,
    pub(crate) subprotocol: Option<Box<str>>,
    pub(crate) peer: Option<SocketAddr>,
}

impl Shared {
    pub(crate) fn new(connection: Connection, handler: Handler, about: About) -> Arc<Self> {
        let about = (!about.is_empty()).then(|| Box::new(about));
        Arc::new(Self {
            state: Mutex::new(State {
                connection: connection.without_control_events(),
                session: None,
                polling: false,
                notified: false,
                handler_waits: false,
                receiver: None,
                waiters: Waiters::default(),
                receiver_is_alive: true,
                handler,
                cut: false,
                error_is_told: false,
                io_error: None,
                closed: None,
                feeds: None,
                feeds_are_busy: false,
            }),
            handler_woken: AtomicBool::new(handler == Handler::Running),
            taken: AtomicU32::new(0),
            about,
        })
    }

    /// A panic of another thread that held the lock says nothing about the state: nothing that
    /// can panic runs under it.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn about(&self) -> Option<&About> {
        self.about.as_deref()
    }

    pub(crate) fn path(&self) -> &str {
        self.about().map_or("", |about| &about.path)
    }

    /// Whether the handler is to be polled; clears the flag.
    pub(crate) fn take_handler_wake(&self) -> bool {
        self.handler_is_woken() && self.handler_woken.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn handler_is_woken(&self) -> bool {
        self.handler_woken.load(Ordering::Acquire)
    }

    /// Whether the handler has taken so much in this poll of the session that others are to come
    /// first.
    #[inline]
    pub(crate) fn handler_is_sated(&self) -> bool {
        self.taken.load(Ordering::Relaxed) > HELPING
    }

    /// The session begins to be polled: see [`State::begin_poll`].
    pub(crate) fn whet_handler(&self) {
        self.taken.store(0, Ordering::Relaxed);
    }

    /// Takes the messages that wait, and counts what they are.
    #[inline]
    pub(crate) fn take_events(
        &self,
        state: &mut State,
        events: &mut VecDeque<Event>,
    ) -> Result<(), ConnectionError> {
        let size = u32::try_from(state.connection.inbox_size()).unwrap_or(u32::MAX);
        let taken = self.taken.load(Ordering::Relaxed).saturating_add(size);
        self.taken.store(taken, Ordering::Relaxed);
        state.connection.take_events(events)
    }

    /// Asks the session to look after the peer's end, or to end at once.
    pub(crate) fn go_away(&self, close: &CloseFrame) {
        let waker = {
            let mut state = self.lock();
            // A socket that is closing already needs no telling.
            if state.connection.close(close.clone()) == Err(SendError::ServerSent1010) {
                let close = CloseFrame::truncated(CloseCode::INTERNAL_ERROR, close.reason());
                let _ = state.connection.close(close);
            }
            state.nudge()
        };
        wake(waker);
    }

    pub(crate) fn cut(&self) {
        let waker = {
            let mut state = self.lock();
            state.cut = true;
            state.nudge()
        };
        wake(waker);
    }

    /// How the socket ended.
    pub(crate) fn closed(&self) -> Closed {
        let closed = self.lock().closed.clone();
        closed.unwrap_or_else(|| Closed::new(None, None, Some(Error::Aborted), self.about()))
    }

    /// Ends the socket, once, and wakes everyone. Says whether this was the end.
    pub(crate) fn end(&self, cause: Option<Error>) -> Option<Closed> {
        let (closed, wakers, unsent, feeds) = {
            let mut state = self.lock();
            if state.closed.is_some() {
                return None;
            }
            let cause = state
                .io_error
                .clone()
                .map(Error::Io)
                .or_else(|| state.connection.error().map(Error::Connection))
                .or(cause);
            // Nobody may send into a socket that is no more.
            state.connection.receive_eof();
            let closed = Closed::new(
                state.connection.close_sent().cloned(),
                state.connection.close_received().cloned(),
                cause,
                self.about(),
            );
            state.closed = Some(closed.clone());
            let feeds = state.take_feeds();
            (closed, state.wakers(), state.give_up_writing(), feeds)
        };
        wakers.wake(self);
        drop(unsent);
        if let Some(feeds) = feeds {
            feeds.leave();
        }
        Some(closed)
    }

    /// The session is no more: nobody has to be woken.
    pub(crate) fn forget_session(&self) {
        let session = self.lock().session.take();
        drop(session);
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("about", &self.about)
            .finish_non_exhaustive()
    }
}

/// The shared state is the handler's waker: something it waits for has changed.
impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.handler_woken.swap(true, Ordering::AcqRel) {
            let session = self.lock().nudge();
            wake(session);
        }
    }
}

impl State {
    /// The session's waker, when it has to be woken to see a change. The caller wakes it after
    /// it has let go of the lock.
    #[inline]
    #[must_use = "the session is to be woken outside the lock"]
    pub(crate) fn nudge(&mut self) -> Option<Waker> {
        if self.polling || mem::replace(&mut self.notified, true) {
            return None;
        }
        self.session.clone()
    }

    /// The session begins to be polled. Returns the waker that is no longer needed.
    pub(crate) fn begin_poll(&mut self, waker: &Waker) -> Option<Waker> {
        self.polling = true;
        self.notified = false;
        match &self.session {
            Some(session) if session.will_wake(waker) => None,
            _ => self.session.replace(waker.clone()),
        }
    }

    /// The session rests: from now on it has to be woken.
    pub(crate) fn end_poll(&mut self) {
        self.polling = false;
    }

    /// Closes a socket that nobody uses any more.
    pub(crate) fn close_if_abandoned(&mut self) {
        if self.receiver_is_alive || !self.connection.is_open() {
            return;
        }
        let code = match self.handler {
            Handler::Running => return,
            Handler::Done => CloseCode::NORMAL,
            Handler::Failed => CloseCode::INTERNAL_ERROR,
        };
        let _ = self.connection.close(CloseFrame::from(code));
    }

    /// Remembers whoever waits in `recv`. Says whether that was done: if not, it takes a clone of
    /// the waker in `spare`, where the waker that is no longer needed will be.
    pub(crate) fn wait_for_messages(&mut self, waker: &Waker, spare: &mut Option<Waker>) -> bool {
        let is_known = self.receiver.as_ref().is_some_and(|it| it.will_wake(waker));
        if !is_known {
            if spare.is_none() {
                return false;
            }
            mem::swap(&mut self.receiver, spare);
        }
        self.handler_waits = false;
        true
    }

    /// Remembers that the handler waits in `recv`, and nobody else any more.
    #[must_use = "it is to be dropped outside the lock"]
    pub(crate) fn let_handler_wait(&mut self) -> Option<Waker> {
        self.handler_waits = true;
        self.receiver.take()
    }

    /// Nobody will wait in `recv` any more.
    #[must_use = "it is to be dropped outside the lock"]
    pub(crate) fn end_receiving(&mut self) -> Option<Waker> {
        self.receiver_is_alive = false;
        self.handler_waits = false;
        self.connection.discard_incoming();
        self.receiver.take()
    }

    /// Reading or writing failed: the end, as if the stream had ended.
    pub(crate) fn fail(&mut self, error: io::Error) {
        // A peer that ends the stream its own way after both Closes has done nothing wrong.
        let closing = self.connection.close_sent().is_some()
            && self.connection.close_received().is_some()
            && !self.connection.wants_write();
        if self.io_error.is_none() && !closing && self.connection.error().is_none() {
            self.io_error = Some(Arc::new(error));
        }
        self.connection.receive_eof();
    }

    /// Takes everything that can no longer be written. To be dropped outside the lock: a payload
    /// may have an owner of the caller's.
    #[must_use = "it is to be dropped outside the lock"]
    pub(crate) fn give_up_writing(&mut self) -> Outgoing {
        self.connection.transmitted(usize::MAX);
        let unsent = self.connection.take_transmit();
        self.connection.transmitted(usize::MAX);
        unsent
    }

    /// Whether no message can come any more, but for those that wait.
    pub(crate) fn has_ended(&self) -> bool {
        self.connection.close_received().is_some()
            || self.connection.error().is_some()
            || self.closed.is_some()
    }

    /// Why the socket cannot be used any more.
    pub(crate) fn cause(&self) -> Error {
        if let Some(closed) = &self.closed {
            return closed.cause().cloned().unwrap_or(Error::Closed);
        }
        self.io_error
            .clone()
            .map(Error::Io)
            .or_else(|| self.connection.error().map(Error::Connection))
            .unwrap_or(Error::Closed)
    }

    /// Gives the engine what was read. Where it never stops reading, it gets it piece by piece:
    /// what is compressed may become a thousand times as much.
    pub(crate) fn receive(&mut self, input: &[u8]) {
        if self.connection.pauses() {
            return self.connection.receive(input);
        }
        let waited = self.connection.inbox_size() > 0;
        for piece in input.chunks(PIECE) {
            self.connection.receive(piece);
            self.close_if_too_full(waited);
        }
    }

    /// Gives the engine the buffer of a large message back, with what was read into it.
    pub(crate) fn receive_buf(&mut self, buffer: Vec<u8>) {
        let waited = self.connection.inbox_size() > 0;
        self.connection.receive_buf(buffer);
        if !self.connection.pauses() {
            self.close_if_too_full(waited);
        }
    }

    /// Draws the line where reading must go on although nobody receives (HTTP/2). What comes to an
    /// empty inbox may exceed it by a message, or none could be as large as it.
    fn close_if_too_full(&mut self, waited: bool) {
        let config = self.connection.config();
        let mut line = config.http2_receive_cap;
        if !waited {
            line = line.saturating_add(config.max_message_size);
        }
        if self.connection.inbox_size() > line {
            let frame = CloseFrame::truncated(
                CloseCode::TRY_AGAIN_LATER,
                "the application does not keep up",
            );
            // What comes until the peer has heard it finds no room any more.
            self.connection.discard_overflow();
            let _ = self.connection.close(frame);
        }
    }

    /// Whether `recv` has something to say.
    pub(crate) fn is_receivable(&self) -> bool {
        self.connection.has_events() || self.has_ended()
    }

    /// Takes the wakers of all whose wait is over.
    #[inline]
    pub(crate) fn wakers(&mut self) -> Wakers {
        let mut wakers = Wakers::default();
        if (self.handler_waits || self.receiver.is_some()) && self.is_receivable() {
            wakers.handler = mem::take(&mut self.handler_waits);
            wakers.receiver = self.receiver.take();
        }
        if self.feeds_are_busy || !self.waiters.list.is_empty() {
            wakers.others = self.other_wakers();
        }
        wakers
    }

    fn other_wakers(&mut self) -> Option<Box<Others>> {
        let spent = self.with_feeds(Feeds::take_spent).unwrap_or_default();
        let connection = &self.connection;
        let ended = self.closed.is_some();
        let has_ended = self.has_ended();
        let wakers = self.waiters.take(|wait| match wait {
            Wait::Close => ended,
            Wait::Send => connection.is_writable() || !connection.is_open() || ended,
            Wait::Pong(number) => has_come(connection.answered_probe(), number) || has_ended,
        });
        let is_needed = !wakers.is_empty() || !spent.is_empty();
        is_needed.then(|| Box::new(Others { wakers, spent }))
    }
}

/// What a handler may take in one poll of its session, in bytes: more than the turns of a poll
/// read, unless that is compressed. A read of 64 KiB may inflate to as many MiB, and with eight of
/// them in a poll eight peers kept a server of two threads from everyone else for seconds.
const HELPING: u32 = 2 << 20;

/// The size of a piece of input, in bytes. Inflated it is 4 MiB at most, and messages of the usual
/// size lie whole in one.
const PIECE: usize = 4 << 10;

/// Whether a counter that wraps has reached a number.
pub(crate) fn has_come(counter: u32, number: u32) -> bool {
    counter.wrapping_sub(number) <= u32::MAX / 2
}

/// Wakers taken out from under the lock, and what is to be dropped there too.
#[derive(Default)]
#[must_use = "they are to be woken outside the lock"]
pub(crate) struct Wakers {
    handler: bool,
    receiver: Option<Waker>,
    /// Mostly none: a session looks for them several times for each message.
    others: Option<Box<Others>>,
}

struct Others {
    wakers: Vec<Waker>,
    spent: Vec<PreparedMessage>,
}

impl Wakers {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        !self.handler && self.receiver.is_none() && self.others.is_none()
    }

    /// To be called by the session, which looks after its handler before it rests.
    #[inline]
    pub(crate) fn wake(self, shared: &Shared) {
        if self.handler {
            shared.handler_woken.store(true, Ordering::Release);
        }
        wake(self.receiver);
        if let Some(others) = self.others {
            for waker in others.wakers {
                waker.wake();
            }
            drop(others.spent);
        }
    }
}

#[inline]
pub(crate) fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// What a future waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The end.
    Close,
    /// Room in the outgoing queue.
    Send,
    /// The answer to a probe.
    Pong(u32),
}

/// A future's place on the list. No number is given twice: a future may hold one whose wait is
/// over for as long as it likes.
pub(crate) type Ticket = NonZeroU64;

/// Everyone who waits for something but a message: several tasks may wait at once.
#[derive(Default)]
pub(crate) struct Waiters {
    /// In the order of the tickets.
    list: Vec<(Ticket, Wait, Waker)>,
}

/// Tickets of all sockets so far: one number for the process is eight bytes less for each of them.
static TICKETS: AtomicU64 = AtomicU64::new(0);

impl Waiters {
    /// Puts a future on the list, or renews its entry. Says whether that was done: if not, it
    /// takes a clone of the waker in `spare`, where the waker that is no longer needed will be.
    pub(crate) fn register(
        &mut self,
        ticket: &mut Option<Ticket>,
        wait: Wait,
        waker: &Waker,
        spare: &mut Option<Waker>,
    ) -> bool {
        let entry = ticket.and_then(|ticket| {
            let place = self.place(ticket)?;
            self.list.get_mut(place)
        });
        if let Some(entry) = entry {
            entry.1 = wait;
            if entry.2.will_wake(waker) {
                return true;
            }
            let Some(spare) = spare else { return false };
            mem::swap(&mut entry.2, spare);
            return true;
        }
        let Some(waker) = spare.take() else {
            return false;
        };
        let number = NonZeroU64::MIN.saturating_add(TICKETS.fetch_add(1, Ordering::Relaxed));
        *ticket = Some(number);
        self.list.push((number, wait, waker));
        true
    }

    /// Takes a future off the list.
    pub(crate) fn forget(&mut self, ticket: Ticket) -> Option<Waker> {
        let place = self.place(ticket)?;
        let (_, _, waker) = self.list.remove(place);
        self.free();
        Some(waker)
    }

    fn place(&self, ticket: Ticket) -> Option<usize> {
        self.list
            .binary_search_by_key(&ticket, |entry| entry.0)
            .ok()
    }

    fn take(&mut self, is_over: impl Fn(Wait) -> bool) -> Vec<Waker> {
        let over = self.list.extract_if(.., |entry| is_over(entry.1));
        let wakers = over.map(|(_, _, waker)| waker).collect();
        self.free();
        wakers
    }

    /// An idle socket owns no list.
    fn free(&mut self) {
        if self.list.is_empty() {
            self.list = Vec::new();
        }
    }
}

impl About {
    fn is_empty(&self) -> bool {
        self.path.is_empty()
            && self.params.is_empty()
            && self.subprotocol.is_none()
            && self.peer.is_none()
    }
}

/// The text of a panic.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a text")
}
