//! The turns of a session.
//!
//! One turn: write what is queued; read once and parse all of it; poll the handler if something
//! it waits for has changed; write everything it produced in one write. Turns follow each other
//! while they bring something, and after 32 of them the task yields.

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
use ws_core::Outgoing;

use crate::{
    BoxError, Closed, Error,
    session::{
        Session, SessionProj, drop_handler,
        state::{Handler, State, panic_text},
    },
};

/// Turns in one poll. A turn moves up to 64 KiB each way, so that a flooding peer holds a worker
/// for milliseconds at most; and each costs two of the 128 units of a task's cooperative budget.
const TURNS: usize = 32;

/// The size of a thread's read buffer, in bytes: what a socket's receive buffer holds on a fast
/// connection, and enough to make the system call cheap beside the work on what it brings.
const READ_BUFFER: usize = 64 << 10;

/// A thread keeps no larger buffer for writing.
const MAX_WRITE_BUFFER: usize = 256 << 10;

/// Writes in one turn: one, unless the socket takes a batch in pieces or other tasks add to it.
const WRITES: usize = 8;

/// Slices in one vectored write.
const SLICES: usize = 32;

thread_local! {
    /// The thread's buffers, shared by all its sessions: an idle one owns none.
    static READ: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static WRITE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What the session knows of the engine without holding the lock.
#[derive(Clone, Copy, Debug, Default)]
struct View {
    wants_read: bool,
    wants_shutdown: bool,
    is_done: bool,
    is_cut: bool,
}

impl View {
    #[inline]
    fn of(state: &State) -> Self {
        Self {
            wants_read: state.connection.wants_read(),
            wants_shutdown: state.connection.wants_shutdown(),
            is_done: state.connection.is_done(),
            is_cut: state.cut,
        }
    }
}

/// One poll of the session: what is known of the engine, and which sides of the stream are worth
/// another try.
struct Pass {
    view: View,
    reading: Side,
    writing: Side,
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
        let mut scratch = WRITE.take();
        let result = session.turns(cx, &mut scratch);
        if scratch.capacity() <= MAX_WRITE_BUFFER {
            WRITE.set(scratch);
        }
        result
    }
}

impl<Io, H> SessionProj<'_, Io, H>
where
    Io: AsyncRead + AsyncWrite,
    H: Future<Output = Result<(), BoxError>>,
{
    fn turns(&mut self, cx: &mut Context<'_>, scratch: &mut Vec<u8>) -> Poll<Closed> {
        let mut pass = Pass {
            view: self.begin(cx),
            reading: Side::Open,
            writing: Side::Open,
        };
        // Whoever wrote before this poll is waiting; later turns follow what they read, and what
        // other tasks leave meanwhile.
        let mut active = true;
        for _ in 0..TURNS {
            if pass.view.is_cut {
                return Poll::Ready(self.cut());
            }
            if self.io.is_some() {
                if self.timer.as_mut().has_fired() {
                    pass.view = self.tick();
                    active = true;
                }
                if self.out.has_remaining() {
                    self.write(cx, scratch, &mut pass);
                }
                if pass.reading == Side::Open && pass.view.wants_read {
                    self.read(cx, &mut pass);
                    active |= pass.reading == Side::Open;
                }
            }
            if self.shared.take_handler_wake() {
                self.poll_handler(scratch);
                active = true;
            }
            if active && self.io.is_some() {
                self.write(cx, scratch, &mut pass);
                if pass.view.is_done {
                    self.finish(cx);
                }
            }
            if let Some(closed) = self.result() {
                return Poll::Ready(closed);
            }
            let Some(more) = self.rest(cx, &mut pass, scratch) else {
                return Poll::Pending;
            };
            active = more;
        }
        // Fairness: others are waiting for this thread.
        self.shared.lock().end_poll();
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// From here on handles leave their wishes under the lock, without waking the task.
    fn begin(&mut self, cx: &mut Context<'_>) -> View {
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
    fn read(&mut self, cx: &mut Context<'_>, pass: &mut Pass) {
        let Some(io) = self.io.as_mut().as_pin_mut() else {
            return;
        };
        // A large message is read straight into its own buffer, anything else into the thread's.
        let in_place = self.reading.capacity() > 0;
        let mut buffer = if in_place {
            mem::take(self.reading)
        } else {
            let mut buffer = READ.take();
            // Initialised once for the life of the thread.
            buffer.resize(READ_BUFFER, 0);
            buffer
        };
        let read = if in_place {
            poll_read_buf(io, cx, &mut buffer)
        } else {
            let mut read = ReadBuf::new(&mut buffer);
            io.poll_read(cx, &mut read).map_ok(|()| read.filled().len())
        };
        let Poll::Ready(read) = read else {
            pass.reading = Side::Pending;
            if in_place {
                *self.reading = buffer;
            } else {
                READ.set(buffer);
            }
            return;
        };
        let (thread_buffer, wakers) = {
            let mut state = self.shared.lock();
            let connection = &mut state.connection;
            let mut thread_buffer = None;
            if in_place {
                connection.receive_buf(buffer);
            } else {
                if let Ok(count) = read {
                    connection.receive(buffer.get(..count).unwrap_or_default());
                }
                thread_buffer = Some(buffer);
            }
            match read {
                Ok(0) => connection.receive_eof(),
                Ok(_) => *self.reading = connection.take_read_buf().unwrap_or_default(),
                Err(error) => state.fail(error),
            }
            state.close_if_too_full();
            pass.view = View::of(&state);
            (thread_buffer, state.wakers())
        };
        if let Some(buffer) = thread_buffer {
            READ.set(buffer);
        }
        wakers.wake();
    }

    /// Writes what is queued, until nothing is left or the socket takes no more.
    fn write(&mut self, cx: &mut Context<'_>, scratch: &mut Vec<u8>, pass: &mut Pass) {
        if pass.writing == Side::Open
            && let Err(error) = self.try_write(cx, scratch, pass)
        {
            let (wakers, unsent) = {
                let mut state = self.shared.lock();
                state.fail(error);
                let unsent = state.give_up_writing();
                pass.view = View::of(&state);
                (state.wakers(), unsent)
            };
            *self.unflushed = 0;
            *self.out = Outgoing::default();
            drop(unsent);
            wakers.wake();
        }
    }

    fn try_write(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Vec<u8>,
        pass: &mut Pass,
    ) -> io::Result<()> {
        let Some(mut io) = self.io.as_mut().as_pin_mut() else {
            return Ok(());
        };
        for _ in 0..WRITES {
            if !self.out.has_remaining() {
                // A stream with a buffer of its own has written nothing before it is flushed.
                if *self.unflushed > 0 && io.as_mut().poll_flush(cx)?.is_pending() {
                    pass.writing = Side::Pending;
                    // Progress is told, but for the end of the batch.
                    let progress = mem::replace(self.unflushed, 1) - 1;
                    self.shared.lock().connection.transmitted(progress);
                    return Ok(());
                }
                if let Some(buffer) = self.out.reclaim() {
                    *scratch = buffer;
                }
                // One hold of the lock reports the last batch and takes the next.
                let wakers = {
                    let mut state = self.shared.lock();
                    state.connection.transmitted(mem::take(self.unflushed));
                    state.close_if_abandoned();
                    *self.out = state.connection.take_transmit();
                    pass.view = View::of(&state);
                    state.wakers()
                };
                wakers.wake();
                if !self.out.has_remaining() {
                    if let Some(buffer) = self.out.reclaim() {
                        *scratch = buffer;
                    }
                    break;
                }
            }
            match poll_write(io.as_mut(), cx, self.out)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(count) => {
                    self.out.advance(count);
                    *self.unflushed += count;
                }
                Poll::Pending => {
                    pass.writing = Side::Pending;
                    let progress = mem::take(self.unflushed);
                    self.shared.lock().connection.transmitted(progress);
                    return Ok(());
                }
            }
        }
        if pass.view.wants_shutdown && !self.out.has_remaining() && !*self.is_shut_down {
            *self.is_shut_down = io.poll_shutdown(cx)?.is_ready();
        }
        Ok(())
    }

    /// Polls the handler, with the buffer that it encodes into lent to the engine.
    fn poll_handler(&mut self, scratch: &mut Vec<u8>) {
        let Some(handler) = self.handler.as_mut().as_pin_mut() else {
            return;
        };
        self.shared.lock().connection.lend_buffer(scratch);
        let waker = Waker::from(Arc::clone(self.shared));
        let mut cx = Context::from_waker(&waker);
        // A panic is the handler's own: its socket ends with 1011, and nothing else.
        match catch_unwind(AssertUnwindSafe(|| handler.poll(&mut cx))) {
            Ok(Poll::Pending) => {}
            Ok(Poll::Ready(Ok(()))) => self.end_handler(Handler::Done),
            Ok(Poll::Ready(Err(error))) => {
                let ended = {
                    let state = self.shared.lock();
                    state.closed.is_some() || state.connection.error().is_some()
                };
                let path = self.shared.path();
                // A handler that passes on the end of its socket has not failed.
                if ended {
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
    fn tick(&mut self) -> View {
        self.timer.as_mut().clear();
        *self.timer_is_stale = true;
        let now = Instant::now().into_std();
        let (view, wakers) = {
            let mut state = self.shared.lock();
            state.connection.handle_timeout(now);
            (View::of(&state), state.wakers())
        };
        wakers.wake();
        view
    }

    /// The socket has come to its end: says so to everyone, and gives it back.
    fn finish(&mut self, cx: &mut Context<'_>) {
        if let Some(mut io) = self.io.as_mut().as_pin_mut() {
            // One last try for what could not be written, such as the Close that says why.
            for _ in 0..2 {
                if !self.out.has_remaining() {
                    *self.out = self.shared.lock().give_up_writing();
                }
                if !self.out.has_remaining() {
                    break;
                }
                match poll_write(io.as_mut(), cx, self.out) {
                    Poll::Ready(Ok(count)) => self.out.advance(count),
                    _ => break,
                }
            }
            if io.as_mut().poll_flush(cx).is_ready() && !*self.is_shut_down {
                let _ = io.poll_shutdown(cx);
            }
        }
        self.io.set(None);
        self.timer.as_mut().clear();
        *self.out = Outgoing::default();
        *self.reading = Vec::new();
        if let Some(closed) = self.shared.end(None) {
            if let Some(hook) = self.on_closed.take() {
                hook(&closed);
            }
            *self.closed = Some(closed);
        }
    }

    /// Drops everything at once.
    fn cut(&mut self) -> Closed {
        if self.handler.is_some() {
            self.end_handler(Handler::Failed);
        }
        self.io.set(None);
        self.timer.as_mut().clear();
        if let Some(closed) = self.shared.end(Some(Error::Aborted)) {
            if let Some(hook) = self.on_closed.take() {
                hook(&closed);
            }
            *self.closed = Some(closed);
        }
        self.take_closed()
    }

    /// The result, once the socket has ended and the handler has returned.
    fn result(&mut self) -> Option<Closed> {
        if self.io.is_some() || self.handler.is_some() {
            return None;
        }
        Some(self.take_closed())
    }

    fn take_closed(&mut self) -> Closed {
        self.closed
            .clone()
            .unwrap_or_else(|| Closed::new(None, None, Some(Error::Aborted), self.shared.path()))
    }

    /// Rests until the task is woken, if there is nothing to do: `None`. Otherwise says whether
    /// there is something to write.
    fn rest(
        &mut self,
        cx: &mut Context<'_>,
        pass: &mut Pass,
        scratch: &mut Vec<u8>,
    ) -> Option<bool> {
        let is_alive = self.io.is_some();
        let deadline = {
            let mut state = self.shared.lock();
            state.close_if_abandoned();
            pass.view = View::of(&state);
            let connection = &state.connection;
            let may_write = pass.writing == Side::Open && connection.wants_write();
            let may_read = pass.reading == Side::Open && pass.view.wants_read;
            let more = is_alive && (may_write || pass.view.is_done);
            if more
                || is_alive && may_read
                || pass.view.is_cut
                || self.handler.is_some() && self.shared.handler_is_woken()
            {
                return Some(more);
            }
            let connection = &mut state.connection;
            if let Some(buffer) = connection.release() {
                *scratch = buffer;
            }
            // The only look at the clock, and only when a deadline begins.
            let deadline = if is_alive && (*self.timer_is_stale || connection.wants_clock()) {
                *self.timer_is_stale = false;
                connection.poll_timeout(Instant::now().into_std())
            } else {
                None
            };
            state.end_poll();
            deadline
        };
        if let Some(deadline) = deadline {
            self.timer.as_mut().arm(deadline.into(), cx);
        }
        None
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
