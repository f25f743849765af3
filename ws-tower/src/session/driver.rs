//! The turns of a session.
//!
//! One turn: write what is queued; read once and parse all of it; poll the handler if something
//! it waits for has changed; write everything it produced in one write. Turns follow each other
//! while they bring something, and after eight of them the task yields.

use std::{
    cell::Cell,
    future::Future,
    io::{self, IoSlice},
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Buf;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};
use tokio_util::io::poll_read_buf;
use ws_core::{Outgoing, Scratch};

use crate::{
    BoxError, Closed, Error,
    session::{
        Session, SessionProj, drop_handler,
        feeds::{Draw, refill},
        state::{Handler, State, panic_text},
        tell,
    },
};

/// Turns in one poll. A turn moves up to 64 KiB each way. Beside fifty flooding peers on one
/// thread, a good client waited 0.2 s at most with eight turns, and 0.9 s with 32. With four,
/// messages of 1 MiB cost three times as much: they no longer came in one poll, and their growing
/// buffers got into each other's way.
const TURNS: usize = 8;

/// The size of a thread's read buffer, in bytes: what a socket's receive buffer holds on a fast
/// connection, and enough to make the system call cheap beside the work on what it brings.
const READ_BUFFER: usize = 64 << 10;

/// Writes in one turn: one, unless the socket takes a batch in pieces or other tasks add to it.
const WRITES: usize = 8;

/// Reads after writing has failed: what a socket's receive buffer holds, mostly.
const LAST_READS: usize = 4;

/// Slices in one vectored write.
const SLICES: usize = 32;

thread_local! {
    /// The thread's buffers, used by all its sessions in turn: an idle one owns none.
    static READ: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static SCRATCH: Cell<Scratch> = Cell::default();
}

/// What a session has in hand while it is polled.
struct Work {
    view: View,
    reading: Side,
    writing: Side,
    /// The batch that is being written.
    out: Outgoing,
    /// Whether the stream ends behind that, and can be told so before it is flushed.
    is_last: bool,
    /// The buffer of a large message under way, or none.
    large: Vec<u8>,
    scratch: Scratch,
    /// Whether the engine works in the thread's room.
    is_lent: bool,
    /// Bytes that are written and flushed, and that the engine has not been told of.
    flushed: usize,
}

/// What is left in hand between two polls: mostly nothing.
#[derive(Debug, Default)]
pub(super) struct Unfinished {
    out: Outgoing,
    large: Vec<u8>,
}

/// What the session knows of the engine without holding the lock.
#[derive(Clone, Copy, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "six facts of the engine that do not exclude each other"
)]
struct View {
    wants_read: bool,
    /// Whether reading never pauses, and one read takes all that has come.
    reads_all: bool,
    /// Whether so much waits for a handler that it comes before the next read, if it can go on.
    is_behind: bool,
    wants_shutdown: bool,
    is_done: bool,
    is_cut: bool,
}

impl View {
    #[inline]
    fn of(state: &State) -> Self {
        let connection = &state.connection;
        let reads_all = !connection.pauses();
        Self {
            wants_read: connection.wants_read(),
            reads_all,
            is_behind: reads_all
                && connection.inbox_size() > connection.config().http2_receive_cap / 2,
            wants_shutdown: state.connection.wants_shutdown(),
            is_done: state.connection.is_done(),
            is_cut: state.cut,
        }
    }
}

/// One side of the stream in one poll.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// It may take or bring something.
    Open,
    /// It was pending; the task is woken when it is not any more.
    Pending,
}

impl<Io, H> Session<Io, H>
where
    Io: AsyncRead + AsyncWrite,
    H: Future<Output = Result<(), BoxError>>,
{
    pub(super) fn drive(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Closed> {
        let mut session = self.project();
        let unfinished = session.unfinished.take();
        let Unfinished { out, large } = unfinished.map(|boxed| *boxed).unwrap_or_default();
        let mut work = Work {
            view: session.begin(cx),
            reading: Side::Open,
            writing: Side::Open,
            out,
            is_last: false,
            large,
            scratch: SCRATCH.take(),
            is_lent: false,
            flushed: 0,
        };
        let result = session.turns(cx, &mut work);
        SCRATCH.set(work.scratch);
        if work.out.has_remaining() || work.large.capacity() > 0 {
            let (out, large) = (work.out, work.large);
            *session.unfinished = Some(Box::new(Unfinished { out, large }));
        }
        result
    }
}

impl<Io, H> SessionProj<'_, Io, H>
where
    Io: AsyncRead + AsyncWrite,
    H: Future<Output = Result<(), BoxError>>,
{
    fn turns(&mut self, cx: &mut Context<'_>, work: &mut Work) -> Poll<Closed> {
        // Whoever wrote before this poll is waiting; later turns follow what they read, and what
        // other tasks leave meanwhile.
        let mut active = true;
        for _ in 0..TURNS {
            if work.view.is_cut {
                return Poll::Ready(self.cut(work));
            }
            if self.io.is_some() {
                if self.timer.as_mut().has_fired() {
                    self.tick(work);
                    active = true;
                }
                if work.out.has_remaining() {
                    self.write(cx, work);
                }
                // A handler that goes on is not overrun, only one that does not.
                let is_overrun = work.view.is_behind && self.shared.handler_is_woken();
                if work.reading == Side::Open && work.view.wants_read && !is_overrun {
                    self.read(cx, work);
                    active |= work.reading == Side::Open;
                }
            }
            if self.shared.take_handler_wake() {
                self.poll_handler(work);
                active = true;
            }
            if active && self.io.is_some() {
                self.write(cx, work);
                if work.view.is_done {
                    self.finish(cx, work);
                }
            }
            if self.io.is_none() && self.handler.is_none() {
                return Poll::Ready(self.shared.closed());
            }
            if self.shared.handler_is_sated() {
                break;
            }
            // There is no rest before the stream has been found empty.
            active = false;
            if self.io.is_none() || work.reading == Side::Pending || !work.view.wants_read {
                let Some(more) = self.rest(cx, work) else {
                    return Poll::Pending;
                };
                active = more;
            }
        }
        // Fairness: others are waiting for this thread. A peer that never lets the session rest
        // gains no time by it.
        let deadline = {
            let mut state = self.shared.lock();
            state.connection.transmitted(work.flushed);
            let is_alive = self.io.is_some();
            let deadline = next_deadline(&mut state, self.timer_is_stale, is_alive);
            state.end_poll();
            deadline
        };
        if let Some(deadline) = deadline {
            self.timer.as_mut().arm(deadline.into(), cx);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// From here on handles leave their wishes under the lock, without waking the task.
    fn begin(&mut self, cx: &mut Context<'_>) -> View {
        self.shared.whet_handler();
        let (view, old) = {
            let mut state = self.shared.lock();
            let old = state.begin_poll(cx.waker());
            (View::of(&state), old)
        };
        if old.is_some() {
            // Another task polls the session now.
            self.timer.as_mut().register(cx);
            drop(old);
        }
        view
    }

    /// Reads once, and gives all of it to the engine.
    fn read(&mut self, cx: &mut Context<'_>, work: &mut Work) {
        let Some(io) = self.io.as_mut().as_pin_mut() else {
            return;
        };
        if work.large.capacity() > 0 {
            self.read_in_place(cx, work);
            return;
        }
        let mut buffer = READ.take();
        // Initialised once for the life of the thread.
        buffer.resize(READ_BUFFER, 0);
        let mut came = ReadBuf::new(&mut buffer);
        let read = if work.view.reads_all {
            read_all(io, cx, &mut came)
        } else {
            io.poll_read(cx, &mut came).map_ok(|()| came.filled().len())
        };
        match read {
            Poll::Ready(read) => self.take_input(work, |state| {
                if !came.filled().is_empty() {
                    state.receive(came.filled());
                }
                read
            }),
            Poll::Pending => work.reading = Side::Pending,
        }
        READ.set(buffer);
    }

    /// Reads a large message straight into its own buffer.
    fn read_in_place(&mut self, cx: &mut Context<'_>, work: &mut Work) {
        let Some(io) = self.io.as_mut().as_pin_mut() else {
            return;
        };
        let read = if work.view.reads_all {
            read_all_in_place(io, cx, &mut work.large)
        } else {
            poll_read_buf(io, cx, &mut work.large)
        };
        let Poll::Ready(read) = read else {
            work.reading = Side::Pending;
            return;
        };
        let large = mem::take(&mut work.large);
        self.take_input(work, |state| {
            state.receive_buf(large);
            read
        });
    }

    /// Tells the engine what a read brought, and everyone what came of it.
    fn take_input(
        &mut self,
        work: &mut Work,
        receive: impl FnOnce(&mut State) -> io::Result<usize>,
    ) {
        let wakers = {
            let mut state = self.shared.lock();
            // Events go into the thread's queue, as bytes went into its buffer.
            state.connection.lend(&mut work.scratch);
            work.is_lent = true;
            match receive(&mut state) {
                Ok(0) => state.connection.receive_eof(),
                Ok(_) => {
                    work.large = state.connection.take_read_buf().unwrap_or_default();
                }
                Err(error) => state.fail(error),
            }
            work.view = View::of(&state);
            state.wakers()
        };
        wakers.wake(self.shared);
    }

    /// Writes what is queued, until nothing is left or the socket takes no more.
    fn write(&mut self, cx: &mut Context<'_>, work: &mut Work) {
        if work.writing == Side::Open
            && let Err(error) = self.try_write(cx, work)
        {
            // The peer may have said why it left: that is still to be read.
            for _ in 0..LAST_READS {
                if work.reading == Side::Open && work.view.wants_read {
                    self.read(cx, work);
                }
            }
            let (wakers, unsent) = {
                let mut state = self.shared.lock();
                state.fail(error);
                let unsent = state.give_up_writing();
                work.view = View::of(&state);
                (state.wakers(), unsent)
            };
            *self.unflushed = 0;
            work.out = Outgoing::default();
            drop(unsent);
            wakers.wake(self.shared);
        }
    }

    fn try_write(&mut self, cx: &mut Context<'_>, work: &mut Work) -> io::Result<()> {
        let Some(mut io) = self.io.as_mut().as_pin_mut() else {
            return Ok(());
        };
        for _ in 0..WRITES {
            if !work.out.has_remaining() {
                // A stream with a buffer of its own has written nothing before it is flushed.
                if *self.unflushed > 0 {
                    if work.is_last && !*self.is_shut_down {
                        *self.is_shut_down =
                            matches!(io.as_mut().poll_shutdown(cx), Poll::Ready(Ok(())));
                    }
                    if !*self.is_shut_down && io.as_mut().poll_flush(cx)?.is_pending() {
                        work.writing = Side::Pending;
                        // Progress is told, but for the end of the batch.
                        let progress = mem::replace(self.unflushed, 1) - 1;
                        self.shared.lock().connection.transmitted(progress);
                        return Ok(());
                    }
                    work.flushed += mem::take(self.unflushed);
                    work.out.release(&mut work.scratch);
                    // Mostly that was all: the engine is told before the session rests.
                    break;
                }
                // One hold of the lock reports the last batch and takes the next.
                let wakers = {
                    let mut state = self.shared.lock();
                    state.connection.transmitted(mem::take(&mut work.flushed));
                    state = refill(self.shared, state, Draw::Room);
                    work.is_lent = false;
                    state.close_if_abandoned();
                    work.out = state.connection.take_transmit();
                    work.view = View::of(&state);
                    // hyper's stream over HTTP/2, which takes its end by itself anyway, is never
                    // flushed once it has been shut down.
                    work.is_last = state.connection.is_last_batch() && !work.view.reads_all;
                    state.wakers()
                };
                wakers.wake(self.shared);
                if !work.out.has_remaining() {
                    work.out.release(&mut work.scratch);
                    break;
                }
            }
            match poll_write(io.as_mut(), cx, &mut work.out)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(count) => {
                    work.out.advance(count);
                    *self.unflushed += count;
                }
                Poll::Pending => {
                    work.writing = Side::Pending;
                    let progress = mem::take(self.unflushed);
                    self.shared.lock().connection.transmitted(progress);
                    return Ok(());
                }
            }
        }
        if work.view.wants_shutdown && !work.out.has_remaining() && !*self.is_shut_down {
            match io.poll_shutdown(cx)? {
                Poll::Ready(()) => *self.is_shut_down = true,
                Poll::Pending => work.writing = Side::Pending,
            }
        }
        Ok(())
    }

    /// Polls the handler, with the buffer that it encodes into lent to the engine.
    fn poll_handler(&mut self, work: &mut Work) {
        let Some(handler) = self.handler.as_mut().as_pin_mut() else {
            return;
        };
        if !work.is_lent {
            self.shared.lock().connection.lend(&mut work.scratch);
            work.is_lent = true;
        }
        let waker = Waker::from(Arc::clone(self.shared));
        let mut cx = Context::from_waker(&waker);
        // A panic is the handler's own: its socket ends with 1011, and nothing else.
        match catch_unwind(AssertUnwindSafe(|| handler.poll(&mut cx))) {
            Ok(Poll::Pending) => {}
            Ok(Poll::Ready(Ok(()))) => self.end_handler(Handler::Done),
            Ok(Poll::Ready(Err(error))) => {
                let path = self.shared.path();
                // A handler that passes on the end of its socket has not failed.
                if is_of_the_socket(&*error) && self.shared.lock().has_ended() {
                    tracing::debug!(path, %error, "websocket handler ended with its connection");
                } else {
                    tracing::error!(path, error = chain(&*error), "websocket handler failed");
                }
                self.end_handler(Handler::Failed);
            }
            Err(panic) => {
                let path = self.shared.path();
                tracing::error!(
                    path,
                    panic = panic_text(&*panic),
                    "websocket handler panicked"
                );
                self.end_handler(Handler::Failed);
            }
        }
    }

    /// Drops the handler, and with it the handles it holds.
    fn end_handler(&mut self, outcome: Handler) {
        drop_handler(&mut self.handler, self.shared);
        self.shared.lock().handler = outcome;
    }

    /// Acts on deadlines that have passed.
    fn tick(&mut self, work: &mut Work) {
        self.timer.as_mut().clear();
        *self.timer_is_stale = true;
        let now = Instant::now().into_std();
        let wakers = {
            let mut state = self.shared.lock();
            state.connection.handle_timeout(now);
            work.view = View::of(&state);
            state.wakers()
        };
        wakers.wake(self.shared);
    }

    /// The socket has come to its end: says so to everyone, and gives it back.
    fn finish(&mut self, cx: &mut Context<'_>, work: &mut Work) {
        if let Some(mut io) = self.io.as_mut().as_pin_mut() {
            // One last try for what could not be written, such as the Close that says why.
            for _ in 0..2 {
                if !work.out.has_remaining() {
                    work.out = self.shared.lock().give_up_writing();
                }
                if !work.out.has_remaining() {
                    break;
                }
                match poll_write(io.as_mut(), cx, &mut work.out) {
                    Poll::Ready(Ok(count)) => work.out.advance(count),
                    _ => break,
                }
            }
            if io.as_mut().poll_flush(cx).is_ready() && !*self.is_shut_down {
                let _ = io.poll_shutdown(cx);
            }
        }
        self.end(work, None);
    }

    /// Drops everything at once.
    fn cut(&mut self, work: &mut Work) -> Closed {
        if self.handler.is_some() {
            self.end_handler(Handler::Failed);
        }
        self.end(work, Some(Error::Aborted));
        self.shared.closed()
    }

    fn end(&mut self, work: &mut Work, cause: Option<Error>) {
        self.io.set(None);
        self.timer.as_mut().clear();
        work.out = Outgoing::default();
        work.large = Vec::new();
        if let Some(closed) = self.shared.end(cause) {
            tell(self.on_closed, &closed);
        }
        if *self.cancel_on_close && self.handler.is_some() {
            self.end_handler(Handler::Done);
        }
    }

    /// Rests until the task is woken, if there is nothing to do: `None`. Otherwise says whether
    /// there is something to write.
    fn rest(&mut self, cx: &mut Context<'_>, work: &mut Work) -> Option<bool> {
        let is_alive = self.io.is_some();
        let has_taken_all =
            work.writing == Side::Open && !work.out.has_remaining() && *self.unflushed == 0;
        let draw = if has_taken_all {
            Draw::Room
        } else {
            Draw::Behind
        };
        let deadline = {
            let mut state = self.shared.lock();
            state.connection.transmitted(mem::take(&mut work.flushed));
            state = refill(self.shared, state, draw);
            state.close_if_abandoned();
            work.view = View::of(&state);
            let wakers = state.wakers();
            if !wakers.is_empty() {
                drop(state);
                wakers.wake(self.shared);
                return Some(true);
            }
            let may_write = work.writing == Side::Open && state.connection.wants_write();
            let may_read = work.reading == Side::Open && work.view.wants_read;
            let shuts_down = work.view.wants_shutdown && !*self.is_shut_down;
            let more = is_alive
                && (may_write || work.view.is_done || shuts_down && work.writing == Side::Open);
            if more
                || is_alive && may_read
                || work.view.is_cut
                || self.handler.is_some() && self.shared.handler_is_woken()
            {
                return Some(more);
            }
            state.connection.release(&mut work.scratch);
            let deadline = next_deadline(&mut state, self.timer_is_stale, is_alive);
            state.end_poll();
            deadline
        };
        if let Some(deadline) = deadline {
            self.timer.as_mut().arm(deadline.into(), cx);
        }
        None
    }
}

/// The next deadline, if it may have come closer: the only look at the clock.
fn next_deadline(
    state: &mut State,
    is_stale: &mut bool,
    is_alive: bool,
) -> Option<std::time::Instant> {
    if !is_alive || !(*is_stale || state.connection.wants_clock()) {
        return None;
    }
    *is_stale = false;
    state.connection.poll_timeout(Instant::now().into_std())
}

/// Reads until the buffer is full or nothing is left: over HTTP/2 a read brings one DATA frame, and
/// frames that are not taken count against the whole connection. Says how much came; none is the
/// end.
fn read_all<Io: AsyncRead>(
    mut io: Pin<&mut Io>,
    cx: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<usize>> {
    loop {
        let before = buffer.filled().len();
        let read = io.as_mut().poll_read(cx, buffer);
        let came = buffer.filled().len();
        match read {
            Poll::Ready(Ok(())) if came == before => return Poll::Ready(Ok(0)),
            Poll::Ready(Ok(())) if buffer.remaining() > 0 => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending if came == 0 => return Poll::Pending,
            Poll::Ready(Ok(())) | Poll::Pending => return Poll::Ready(Ok(came)),
        }
    }
}

/// The same, into the buffer of a large message, as far as there is room.
fn read_all_in_place<Io: AsyncRead>(
    mut io: Pin<&mut Io>,
    cx: &mut Context<'_>,
    buffer: &mut Vec<u8>,
) -> Poll<io::Result<usize>> {
    let mut came = 0;
    loop {
        match poll_read_buf(io.as_mut(), cx, buffer)? {
            Poll::Ready(0) => return Poll::Ready(Ok(0)),
            Poll::Ready(count) => came += count,
            Poll::Pending if came == 0 => return Poll::Pending,
            Poll::Pending => return Poll::Ready(Ok(came)),
        }
        if came >= READ_BUFFER || buffer.len() == buffer.capacity() {
            return Poll::Ready(Ok(came));
        }
    }
}

/// One write of as much as possible.
fn poll_write<Io: AsyncWrite>(
    io: Pin<&mut Io>,
    cx: &mut Context<'_>,
    out: &mut Outgoing,
) -> Poll<io::Result<usize>> {
    if out.chunk().len() == out.remaining() {
        return io.poll_write(cx, out.chunk());
    }
    if io.is_write_vectored() {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let count = out.chunks_vectored(&mut slices);
        return io.poll_write_vectored(cx, slices.get(..count).unwrap_or_default());
    }
    // Such as HTTP/2, where every write becomes a frame of its own.
    out.coalesce();
    io.poll_write(cx, out.chunk())
}

/// Whether an error is one of ours, or is caused by one.
fn is_of_the_socket(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut error = Some(error);
    while let Some(cause) = error {
        if cause.is::<Error>() {
            return true;
        }
        error = cause.source();
    }
    false
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
