//! The driver: carries bytes between a stream and the engine, one turn at a time, and keeps its
//! deadlines.

use std::{
    io::{self, ErrorKind, IoSlice, Read, Write},
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Buf;

use super::{
    error::{Closed, Error},
    stream::{TimedStream, append},
};
use crate::{Connection, Outgoing, Scratch};

/// What is read at once, in bytes, unless a large message is read straight into its own buffer: a
/// record of TLS, or some thousand small messages.
const READ: usize = 16 << 10;

/// What is read at once into a message's own buffer, in bytes.
const READ_IN_PLACE: usize = 64 << 10;

/// The pieces of one vectored write. A large message is two.
const SLICES: usize = 16;

/// How long a write waits alone before reading gets its turn, when both are wanted: the peer may
/// read nothing before it has written. Only a connection that is stuck waits for it.
const STALL: Duration = Duration::from_millis(10);

/// The shortest wait: systems count in milliseconds, and zero means for ever.
const SHORTEST: Duration = Duration::from_millis(1);

/// How long sending goes on without a look at what the peer says.
const DEAF: Duration = Duration::from_secs(1);

/// Reads after a write has failed, and in a look: enough for what a socket's buffer holds of small
/// messages.
const LAST_READS: usize = 16;

/// A stream and the engine.
#[derive(Debug)]
pub(super) struct Driver<S> {
    pub(super) stream: S,
    pub(super) connection: Connection,
    clock: Option<Clock<S>>,
    /// The batch that is being written.
    out: Outgoing,
    /// Whether the end of the batch may still be in a buffer of the stream.
    unflushed: bool,
    buffer: Vec<u8>,
    scratch: Scratch,
    io_error: Option<Arc<io::Error>>,
    is_shut_down: bool,
    is_finished: bool,
    /// When the stream was last asked for input.
    listened: Instant,
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Something has moved, or changed.
    Progress,
    /// The stream has waited for as long as it may, in vain.
    Waited,
}

/// How the waits of a stream are limited. The functions are those of [`TimedStream`], so that a
/// stream without them can be driven by the same code.
#[derive(Debug)]
struct Clock<S> {
    set_read_timeout: SetTimeout<S>,
    set_write_timeout: SetTimeout<S>,
    shutdown_write: fn(&mut S) -> io::Result<()>,
    read: Wait,
    write: Wait,
}

type SetTimeout<S> = fn(&mut S, Option<Duration>) -> io::Result<()>;

/// The wait that a stream is set to; `None` when that is not known.
#[derive(Debug, Default)]
struct Wait {
    set: Option<Duration>,
    /// Whether the last wait was not in vain.
    is_busy: bool,
}

impl<S: TimedStream> Driver<S> {
    /// Drives a stream whose waits can be limited.
    pub(super) fn timed(stream: S, connection: Connection) -> Self {
        let mut driver = Self::untimed(stream, connection);
        driver.clock = Some(Clock {
            set_read_timeout: S::set_read_timeout,
            set_write_timeout: S::set_write_timeout,
            shutdown_write: S::shutdown_write,
            read: Wait::default(),
            write: Wait::default(),
        });
        driver
    }
}

impl<S> Driver<S> {
    /// Drives a stream that waits for as long as it likes.
    pub(super) fn untimed(stream: S, connection: Connection) -> Self {
        Self {
            stream,
            connection,
            clock: None,
            out: Outgoing::default(),
            unflushed: false,
            buffer: Vec::new(),
            scratch: Scratch::default(),
            io_error: None,
            is_shut_down: false,
            is_finished: false,
            listened: Instant::now(),
        }
    }

    pub(super) fn is_timed(&self) -> bool {
        self.clock.is_some()
    }

    /// Whether nothing is left to do.
    pub(super) fn is_over(&self) -> bool {
        let connection = &self.connection;
        if connection.is_done() {
            return true;
        }
        // Without a clock nobody can be waited for, not even to end the stream.
        !self.is_timed()
            && !connection.wants_write()
            && (connection.error().is_some() || self.is_closed_both_ways())
    }

    fn is_closed_both_ways(&self) -> bool {
        self.connection.close_sent().is_some() && self.connection.close_received().is_some()
    }

    /// What ended the connection, if something did that is no Close.
    pub(super) fn cause(&self) -> Option<Error> {
        let io = self.io_error.clone().map(Error::Io);
        io.or_else(|| self.connection.error().map(Error::Connection))
    }

    pub(super) fn facts(&self) -> Closed {
        Closed {
            sent: self.connection.close_sent().cloned(),
            received: self.connection.close_received().cloned(),
            cause: self.cause(),
        }
    }

    /// Gives the queue the buffer of the last batch.
    pub(super) fn lend(&mut self) {
        self.connection.lend(&mut self.scratch);
    }

    /// Tells the peer that nothing more is written.
    fn shut_down(&mut self) {
        if let Some(clock) = &self.clock
            && !mem::replace(&mut self.is_shut_down, true)
        {
            // The peer may be gone by now, which comes to the same.
            let _ = (clock.shutdown_write)(&mut self.stream);
        }
    }

    /// Takes the news that the stream is broken.
    fn fail(&mut self, error: io::Error) {
        self.record(error);
        self.break_off();
    }

    fn record(&mut self, error: io::Error) {
        // A peer that ends the stream its own way after both Closes has done nothing wrong.
        let closing = self.is_closed_both_ways() && !self.connection.wants_write();
        if self.io_error.is_none() && !closing && self.connection.error().is_none() {
            self.io_error = Some(Arc::new(error));
        }
    }

    /// Gives up all that is not written, and reading.
    fn break_off(&mut self) {
        self.connection.receive_eof();
        self.out = Outgoing::default();
        self.unflushed = false;
        self.connection.transmitted(usize::MAX);
        drop(self.connection.take_transmit());
        self.connection.transmitted(usize::MAX);
    }
}

impl<S: Read + Write> Driver<S> {
    /// Writes if there is something to write, else reads, until a deadline at most.
    pub(super) fn turn(&mut self, deadline: Option<Instant>) -> Turn {
        let now = Instant::now();
        let due = self.connection.poll_timeout(now);
        if self.is_over() {
            return Turn::Progress;
        }
        let wait = match due.into_iter().chain(deadline).min() {
            Some(due) => due.saturating_duration_since(now),
            None => Duration::MAX,
        };
        if !self.connection.wants_write() {
            if self.connection.wants_shutdown() {
                self.shut_down();
            }
            return self.listen(wait);
        }
        let wants_read = self.connection.wants_read();
        let patience = if wants_read { wait.min(STALL) } else { wait };
        match self.write(patience) {
            Turn::Progress => Turn::Progress,
            Turn::Waited => {
                let turn = self.listen(wait.min(STALL));
                if turn == Turn::Progress && self.is_timed() {
                    // All that the peer has written so far, so that it can go on.
                    self.listen_on();
                }
                turn
            }
        }
    }

    /// Reads once, if reading is wanted, and then looks at the time: not before, for what shows
    /// that the peer is alive may have waited for us.
    fn listen(&mut self, wait: Duration) -> Turn {
        let turn = if self.connection.wants_read() {
            self.read(wait)
        } else {
            Turn::Waited
        };
        self.listened = Instant::now();
        self.connection.handle_timeout(self.listened);
        turn
    }

    /// Looks at what the peer says, without waiting for it, if that was not done for a while.
    pub(super) fn listen_if_deaf(&mut self) {
        if self.is_timed() && self.listened.elapsed() >= DEAF {
            self.listen_on();
        }
    }

    /// Reads what is there already, within bounds.
    fn listen_on(&mut self) {
        for _ in 0..LAST_READS {
            if !self.connection.wants_read() || self.listen(SHORTEST) == Turn::Waited {
                return;
            }
        }
    }

    /// Sees to the last things, once the connection is over.
    pub(super) fn finish(&mut self) {
        if mem::replace(&mut self.is_finished, true) {
            return;
        }
        // One last try for what could not be written, such as the Close that says why.
        for _ in 0..2 {
            if self.is_timed() && self.io_error.is_none() && self.connection.wants_write() {
                self.write(STALL);
            }
        }
        self.shut_down();
    }

    fn read(&mut self, wait: Duration) -> Turn {
        if let Some(clock) = &mut self.clock
            && let Err(error) = clock.limit_read(&mut self.stream, wait)
        {
            self.fail(error);
            return Turn::Progress;
        }
        let result = if let Some(message) = self.connection.read_buf() {
            let room = (message.capacity() - message.len()).clamp(1, READ_IN_PLACE);
            let result = append(&mut self.stream, message, room);
            self.connection.receive(&[]);
            result
        } else {
            self.buffer.resize(READ, 0);
            let result = self.stream.read(&mut self.buffer);
            let count = result.as_ref().map_or(0, |count| *count);
            let input = self.buffer.get(..count).unwrap_or_default();
            self.connection.receive(input);
            result
        };
        let turn = match result {
            Ok(0) => {
                self.connection.receive_eof();
                Turn::Progress
            }
            Err(error) if is_wait(&error) => Turn::Waited,
            Err(error) if error.kind() != ErrorKind::Interrupted => {
                self.fail(error);
                Turn::Progress
            }
            _ => Turn::Progress,
        };
        if let Some(clock) = &mut self.clock {
            clock.read.is_busy = turn == Turn::Progress;
        }
        turn
    }

    fn write(&mut self, wait: Duration) -> Turn {
        let result = match &mut self.clock {
            Some(clock) => clock.limit_write(&mut self.stream, wait),
            None => Ok(()),
        };
        match result.and_then(|()| self.try_write()) {
            Err(error) if is_wait(&error) => Turn::Waited,
            Err(error) if error.kind() != ErrorKind::Interrupted => {
                self.record(error);
                // The peer may have said why it left: that is still to be read.
                for _ in 0..LAST_READS {
                    if !self.is_timed()
                        || !self.connection.wants_read()
                        || self.read(SHORTEST) == Turn::Waited
                    {
                        break;
                    }
                }
                self.break_off();
                Turn::Progress
            }
            _ => Turn::Progress,
        }
    }

    fn try_write(&mut self) -> io::Result<()> {
        if !self.out.has_remaining() && !self.unflushed {
            self.out = self.connection.take_transmit();
        }
        if self.out.has_remaining() {
            let count = write_some(&mut self.stream, &self.out)?.min(self.out.remaining());
            if count == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            self.out.advance(count);
            self.unflushed = !self.out.has_remaining();
            // A stream with a buffer of its own has written nothing before it is flushed: the
            // engine learns of progress, but not of the end.
            let count = count - usize::from(self.unflushed);
            self.connection.transmitted(count);
        }
        if self.unflushed {
            self.stream.flush()?;
            self.unflushed = false;
            self.connection.transmitted(1);
            self.out.release(&mut self.scratch);
        }
        Ok(())
    }
}

impl<S> Clock<S> {
    fn limit_read(&mut self, stream: &mut S, wait: Duration) -> io::Result<()> {
        self.read.limit(stream, wait, self.set_read_timeout)
    }

    fn limit_write(&mut self, stream: &mut S, wait: Duration) -> io::Result<()> {
        self.write.limit(stream, wait, self.set_write_timeout)
    }
}

impl Wait {
    /// Sees that the stream waits no longer than this.
    ///
    /// It costs a system call. A busy stream hardly ever waits for long, so it may wait less: then
    /// one setting lasts for many reads. An idle one waits for exactly so long, and is not woken
    /// before.
    fn limit<S>(&mut self, stream: &mut S, wait: Duration, set: SetTimeout<S>) -> io::Result<()> {
        let wait = wait.max(SHORTEST);
        if let Some(set) = self.set
            && set <= wait
            && (set == wait || self.is_busy && set >= wait / 8)
        {
            return Ok(());
        }
        let wait = match wait {
            Duration::MAX => wait,
            _ if self.is_busy => (wait / 2).max(SHORTEST),
            _ => wait,
        };
        self.set = None;
        set(stream, (wait < Duration::MAX).then_some(wait))?;
        self.set = Some(wait);
        Ok(())
    }
}

/// Whether a stream says that it has waited in vain.
fn is_wait(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

/// One write of as much as possible.
fn write_some(stream: &mut impl Write, out: &Outgoing) -> io::Result<usize> {
    if out.chunk().len() == out.remaining() {
        return stream.write(out.chunk());
    }
    let mut slices = [IoSlice::new(&[]); SLICES];
    let count = out.chunks_vectored(&mut slices);
    stream.write_vectored(slices.get(..count).unwrap_or_default())
}
