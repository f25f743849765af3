//! Byte streams with a will of their own: one that keeps a record, one that misbehaves at its
//! n-th call, one with a valve, one that holds back what is not flushed.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a [`Recorder`] has seen. Calls that were pending are not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Bytes of each read; 0 is the end of the stream.
    pub reads: Vec<usize>,
    /// Bytes of each plain write.
    pub writes: Vec<usize>,
    /// Bytes of each vectored write.
    pub vectored_writes: Vec<usize>,
    /// Slices of each vectored write.
    pub slices: Vec<usize>,
    /// Flushes.
    pub flushes: usize,
    /// Shutdowns.
    pub shutdowns: usize,
    /// Calls of any kind that were pending.
    pub pending: usize,
}

/// Keeps a record of everything that is asked of a stream.
#[derive(Debug)]
pub struct Recorder<Io> {
    io: Io,
    is_vectored: bool,
    record: Arc<Mutex<Record>>,
}

/// Reads the record of a [`Recorder`].
#[derive(Clone, Debug)]
pub struct Tape(Arc<Mutex<Record>>);

impl Tape {
    /// The record so far.
    pub fn get(&self) -> Record {
        lock(&self.0).clone()
    }
}

impl<Io> Recorder<Io> {
    /// Records a stream that says it writes several slices at once.
    pub fn new(io: Io) -> (Self, Tape) {
        let record = Arc::default();
        let tape = Tape(Arc::clone(&record));
        let recorder = Self {
            io,
            is_vectored: true,
            record,
        };
        (recorder, tape)
    }

    /// Says that the stream has no vectored writes.
    #[must_use]
    pub fn without_vectored_writes(mut self) -> Self {
        self.is_vectored = false;
        self
    }

    fn note<T>(
        &self,
        result: Poll<io::Result<T>>,
        note: impl FnOnce(&mut Record, &T),
    ) -> Poll<io::Result<T>> {
        let mut record = lock(&self.record);
        match &result {
            Poll::Ready(Ok(value)) => note(&mut record, value),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => record.pending += 1,
        }
        drop(record);
        result
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Recorder<Io> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let result = Pin::new(&mut this.io).poll_read(cx, buf);
        let count = buf.filled().len() - before;
        this.note(result, |record, ()| record.reads.push(count))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Recorder<Io> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_write(cx, buf);
        this.note(result, |record, count| record.writes.push(*count))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.note(result, |record, count| {
            record.vectored_writes.push(*count);
            record.slices.push(bufs.len());
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.is_vectored
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_flush(cx);
        this.note(result, |record, ()| record.flushes += 1)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_shutdown(cx);
        this.note(result, |record, ()| record.shutdowns += 1)
    }
}

/// How a [`Faulty`] stream misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The call moves one byte.
    OneByte,
    /// This call and all after it move one byte.
    OneByteFromThenOn,
    /// The call is pending, and the task is woken at once.
    Pending,
    /// From this call on half of all calls are pending, in no order that a session could share.
    PendingHalfTheTime,
    /// The call and all after it fail.
    Error,
    /// The stream ends; writes fail.
    End,
}

/// Misbehaves at its n-th call, counting reads, writes, flushes and shutdowns.
#[derive(Debug)]
pub struct Faulty<Io> {
    io: Io,
    fault: Fault,
    at: usize,
    calls: Arc<Mutex<usize>>,
}

impl<Io> Faulty<Io> {
    /// Misbehaves at call `at`, counted from 0.
    pub fn new(io: Io, fault: Fault, at: usize) -> Self {
        Self {
            io,
            fault,
            at,
            calls: Arc::default(),
        }
    }

    /// The number of calls so far, to be read when the stream is gone.
    pub fn calls(&self) -> Arc<Mutex<usize>> {
        Arc::clone(&self.calls)
    }

    /// What this call meets; `None` is nothing out of the ordinary.
    fn next(&mut self) -> Option<Fault> {
        let mut calls = lock(&self.calls);
        let call = *calls;
        *calls += 1;
        let is_met = match self.fault {
            Fault::OneByte | Fault::Pending => call == self.at,
            Fault::PendingHalfTheTime => call >= self.at && is_odd(call),
            Fault::OneByteFromThenOn | Fault::Error | Fault::End => call >= self.at,
        };
        is_met.then_some(self.fault)
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Faulty<Io> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.next() {
            None => Pin::new(&mut this.io).poll_read(cx, buf),
            Some(Fault::OneByte | Fault::OneByteFromThenOn) => {
                let mut byte = [0];
                let mut one = ReadBuf::new(&mut byte);
                ready!(Pin::new(&mut this.io).poll_read(cx, &mut one))?;
                buf.put_slice(one.filled());
                Poll::Ready(Ok(()))
            }
            Some(Fault::Pending | Fault::PendingHalfTheTime) => again(cx),
            Some(Fault::Error) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Some(Fault::End) => Poll::Ready(Ok(())),
        }
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Faulty<Io> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match this.next() {
            None => Pin::new(&mut this.io).poll_write(cx, buf),
            Some(Fault::OneByte | Fault::OneByteFromThenOn) => {
                Pin::new(&mut this.io).poll_write(cx, buf.get(..1).unwrap_or_default())
            }
            Some(Fault::Pending | Fault::PendingHalfTheTime) => again(cx),
            Some(Fault::Error | Fault::End) => broken(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.next() {
            Some(Fault::Pending | Fault::PendingHalfTheTime) => again(cx),
            Some(Fault::Error | Fault::End) => broken(),
            _ => Pin::new(&mut this.io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.next() {
            Some(Fault::Pending | Fault::PendingHalfTheTime) => again(cx),
            Some(Fault::Error | Fault::End) => broken(),
            _ => Pin::new(&mut this.io).poll_shutdown(cx),
        }
    }
}

/// A stream whose writes wait while its [`Valve`] is shut.
#[derive(Debug)]
pub struct Valved<Io> {
    io: Io,
    valve: Valve,
}

/// Lets the writes of a [`Valved`] stream through, or not.
#[derive(Clone, Debug, Default)]
pub struct Valve(Arc<Mutex<Gauge>>);

#[derive(Debug, Default)]
struct Gauge {
    /// How many bytes may still pass.
    allowance: usize,
    waker: Option<Waker>,
}

impl Valve {
    /// Lets so many more bytes through.
    pub fn allow(&self, bytes: usize) {
        let waker = {
            let mut gauge = lock(&self.0);
            gauge.allowance = gauge.allowance.saturating_add(bytes);
            gauge.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Lets everything through.
    pub fn open(&self) {
        self.allow(usize::MAX);
    }
}

impl<Io> Valved<Io> {
    /// A stream that writes nothing until its valve is opened.
    pub fn new(io: Io) -> (Self, Valve) {
        let valve = Valve::default();
        let stream = Self {
            io,
            valve: valve.clone(),
        };
        (stream, valve)
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Valved<Io> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Valved<Io> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut gauge = lock(&this.valve.0);
        if gauge.allowance == 0 {
            gauge.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let some = buf
            .get(..buf.len().min(gauge.allowance))
            .unwrap_or_default();
        let count = ready!(Pin::new(&mut this.io).poll_write(cx, some))?;
        if gauge.allowance < usize::MAX {
            gauge.allowance -= count;
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

/// Takes everything that is written and passes it on when it is flushed, as a stream with
/// encryption or a buffer of its own may do. Dropping it loses what was not flushed.
#[derive(Debug)]
pub struct Buffered<Io> {
    io: Io,
    held: Vec<u8>,
}

impl<Io> Buffered<Io> {
    /// Holds back what is not flushed.
    pub fn new(io: Io) -> Self {
        Self {
            io,
            held: Vec::new(),
        }
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Buffered<Io> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Buffered<Io> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().held.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while !this.held.is_empty() {
            let count = ready!(Pin::new(&mut this.io).poll_write(cx, &this.held))?;
            this.held.drain(..count);
        }
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

fn again<T>(cx: &Context<'_>) -> Poll<T> {
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Tosses a coin for a number, always the same.
fn is_odd(call: usize) -> bool {
    ((call as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) % 2 == 1
}

fn broken<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stream that fails from the moment on when it is cut.
#[derive(Debug)]
pub struct Cable<Io> {
    io: Io,
    state: Arc<Mutex<CableState>>,
}

/// Cuts a [`Cable`].
#[derive(Clone, Debug)]
pub struct Scissors(Arc<Mutex<CableState>>);

#[derive(Debug, Default)]
struct CableState {
    is_cut: bool,
    has_no_writes: bool,
    wakers: Vec<Waker>,
}

impl Scissors {
    /// From now on every call fails with `ConnectionReset`.
    pub fn cut(&self) {
        self.change(|state| state.is_cut = true);
    }

    /// From now on every call but reading fails, as on a socket whose peer has gone and left
    /// something behind.
    pub fn cut_writes(&self) {
        self.change(|state| state.has_no_writes = true);
    }

    fn change(&self, change: impl FnOnce(&mut CableState)) {
        let wakers = {
            let mut state = lock(&self.0);
            change(&mut state);
            std::mem::take(&mut state.wakers)
        };
        for waker in wakers {
            waker.wake();
        }
    }
}

impl<Io> Cable<Io> {
    /// A stream, and what cuts it.
    pub fn new(io: Io) -> (Self, Scissors) {
        let state = Arc::default();
        let scissors = Scissors(Arc::clone(&state));
        (Self { io, state }, scissors)
    }

    fn check_write(&self, cx: &Context<'_>) -> io::Result<()> {
        if lock(&self.state).has_no_writes {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.check(cx)
    }

    fn check(&self, cx: &Context<'_>) -> io::Result<()> {
        let mut state = lock(&self.state);
        if state.is_cut {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if !state.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.wakers.push(cx.waker().clone());
        }
        Ok(())
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Cable<Io> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Cable<Io> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_write(cx)?;
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_write(cx)?;
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_write(cx)?;
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
