//! The bytes of WebSockets over HTTP/2, taken from their streams by the connection's own task.
//!
//! h2 ends a whole connection when too many small DATA frames wait, of whichever stream. Sessions
//! take theirs at once, but they are tasks of their own: one whose handler holds up its thread, or
//! that is late to run, would cost its neighbours their connection. So the task that reads frames
//! from the connection also moves them from the streams into a buffer for each session, before it
//! reads any more. [`Inlets`] does that, for both ends; a session reads and writes a [`SocketIo`].

use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use slab::Slab;

use self::{sliced::Sliced, socket::Filling};

mod sliced;
mod socket;

pub(crate) use self::socket::SocketIo;

/// What takes bytes from the streams of one connection. Clones are one.
#[derive(Clone)]
pub(crate) struct Inlets(Arc<All>);

struct All {
    /// By number; nothing in the place of one that runs.
    inlets: Mutex<Slab<Option<Inlet>>>,
    ready: Arc<Ready>,
    /// How many bytes wait for a session before its stream is held up, or reset.
    cap: usize,
    /// How many bytes of the connection may be read still in this poll, of so many.
    left: Arc<AtomicUsize>,
    slice_len: usize,
}

/// Takes the bytes of one stream, and is polled when it was woken.
struct Inlet {
    filling: Filling<TokioIo<Upgraded>>,
    key: Arc<Key>,
}

/// A way to [`Inlets`] that does not keep them: they go with their connection.
#[derive(Clone)]
pub(crate) struct WeakInlets(Weak<All>);

impl WeakInlets {
    /// From now on the connection's task takes the bytes of this stream. `None`: it has gone.
    pub(crate) fn add(&self, stream: Upgraded) -> Option<SocketIo<TokioIo<Upgraded>>> {
        Some(self.0.upgrade()?.add(stream))
    }
}

impl All {
    fn add(&self, stream: Upgraded) -> SocketIo<TokioIo<Upgraded>> {
        let (io, filling) = SocketIo::new(TokioIo::new(stream), self.cap);
        let key = {
            let mut inlets = lock(&self.inlets);
            let place = inlets.vacant_entry();
            let key = Arc::new(Key {
                number: place.key(),
                is_ready: AtomicBool::new(false),
                ready: Arc::clone(&self.ready),
            });
            let waker = Arc::clone(&key);
            place.insert(Some(Inlet { filling, key }));
            waker
        };
        key.wake();
        io
    }
}

impl Inlets {
    /// For a connection with these windows, in bytes. As much as that of a stream waits for each
    /// session.
    ///
    /// How many bytes are read before what they bring is taken: whatever they are, h2 charges less
    /// for them than it allows to wait. The smallest frame that carries a message has fifteen bytes,
    /// for which it charges 250, and it allows for half of the connection's window; of that this is
    /// half again.
    pub(crate) fn new(stream_window: u32, connection_window: u32) -> Self {
        Self(Arc::new(All {
            inlets: Mutex::default(),
            ready: Arc::default(),
            cap: stream_window as usize,
            left: Arc::default(),
            slice_len: (connection_window as usize / 64).min(64 << 10),
        }))
    }

    /// The connection's stream, with what was read of it already.
    pub(crate) fn below<Io>(&self, io: Io, read_ahead: Bytes) -> Sliced<Io> {
        Sliced {
            io,
            read_ahead,
            left: Arc::clone(&self.0.left),
        }
    }

    pub(crate) fn downgrade(&self) -> WeakInlets {
        WeakInlets(Arc::downgrade(&self.0))
    }

    /// Polls the connection, and takes what that has brought before anything more is read.
    pub(crate) fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        connection: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.0.left.store(self.0.slice_len, Ordering::Relaxed);
        // Nobody has to be woken meanwhile.
        lock(&self.0.ready.0).is_polled = true;
        let result = connection(cx);
        self.take(cx);
        result
    }

    /// Takes what there is, for all sessions.
    fn take(&self, cx: &Context<'_>) {
        let Self(all) = self;
        let mut numbers = Vec::new();
        loop {
            {
                let mut ready = lock(&all.ready.0);
                if ready.numbers.capacity() < numbers.capacity() || !ready.numbers.is_empty() {
                    // The room of the last ones is that of the next.
                    mem::swap(&mut ready.numbers, &mut numbers);
                }
                if numbers.is_empty() {
                    // From here on there is.
                    ready.is_polled = false;
                    if !matches!(&ready.task, Some(task) if task.will_wake(cx.waker())) {
                        ready.task = Some(cx.waker().clone());
                    }
                    return;
                }
            }
            for number in numbers.drain(..) {
                // Out of its place while it runs: there is nothing to be locked meanwhile. A waker
                // may outlive its inlet, and speak for the next one in that place.
                let inlet = lock(&all.inlets).get_mut(number).and_then(Option::take);
                let Some(inlet) = inlet else { continue };
                inlet.key.is_ready.store(false, Ordering::Release);
                let waker = Waker::from(Arc::clone(&inlet.key));
                let poll = inlet.filling.poll(&mut Context::from_waker(&waker));
                let mut inlets = lock(&all.inlets);
                if poll.is_ready() {
                    inlets.remove(number);
                } else if let Some(place) = inlets.get_mut(number) {
                    *place = Some(inlet);
                }
            }
        }
    }
}

/// The inlets that were woken.
#[derive(Default)]
struct Ready(Mutex<ReadyState>);

#[derive(Default)]
struct ReadyState {
    numbers: Vec<usize>,
    /// Whether the connection's task will look at them by itself.
    is_polled: bool,
    /// The connection's.
    task: Option<Waker>,
}

/// An inlet's waker.
struct Key {
    number: usize,
    is_ready: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for Key {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.is_ready.swap(true, Ordering::AcqRel) {
            return;
        }
        let task = {
            let mut ready = lock(&self.ready.0);
            ready.numbers.push(self.number);
            if ready.is_polled {
                return;
            }
            ready.task.clone()
        };
        if let Some(task) = task {
            task.wake();
        }
    }
}

/// Nothing that can panic runs under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
