//! The bytes of WebSockets over HTTP/2, taken from their streams by the connection's own task.
//!
//! h2 ends a whole connection when too many small DATA frames wait, of whichever stream. Sessions
//! take theirs at once, but they are tasks of their own: one whose handler holds up its thread, or
//! that is late to run, would cost its neighbours their connection. So the task that reads frames
//! from the connection also moves them from the streams into a buffer for each session, before it
//! reads any more. [`Inlets`] does that; a session reads and writes a [`SocketIo`].

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    io, mem,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
};

use http::{Method, Request};
use hyper::{
    ext::Protocol,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use ws_tower::upgrade::ProvidedIo;

use self::socket::SocketIo;

mod socket;

/// What takes bytes from the streams of one connection. Clones are one.
#[derive(Clone)]
pub(super) struct Inlets {
    all: Arc<Mutex<HashMap<u64, Inlet>>>,
    ready: Arc<Ready>,
    /// How many bytes wait for a session before its stream is held up, or reset.
    cap: usize,
}

/// Takes the bytes of one stream, and is polled when it was woken.
struct Inlet {
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    key: Arc<Key>,
}

impl Inlets {
    pub(super) fn new(cap: usize) -> Self {
        Self {
            all: Arc::default(),
            ready: Arc::default(),
            cap,
        }
    }

    /// Sees to it that a session on this request gets its bytes from here. Whoever takes hyper's
    /// upgrade out of the request gets it still.
    pub(super) fn provide<B>(&self, request: &mut Request<B>) {
        let extensions = request.extensions();
        let (Some(protocol), Some(upgrade)) =
            (extensions.get::<Protocol>(), extensions.get::<OnUpgrade>())
        else {
            return;
        };
        if *request.method() != Method::CONNECT || protocol.as_str() != "websocket" {
            return;
        }
        let (ask, asked) = oneshot::channel();
        let (give, given) = oneshot::channel();
        self.add(Box::pin(run(asked, upgrade.clone(), give, self.cap)));
        let io = async move {
            let _ = ask.send(());
            match given.await {
                Ok(upgraded) => upgraded.map_err(io::Error::other),
                // With its connection.
                Err(_) => Err(io::ErrorKind::ConnectionAborted.into()),
            }
        };
        request.extensions_mut().insert(ProvidedIo::from_future(io));
    }

    fn add(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        let number = {
            let mut ready = lock(&self.ready.0);
            ready.last += 1;
            ready.last
        };
        let key = Arc::new(Key {
            number,
            is_ready: AtomicBool::new(false),
            ready: Arc::clone(&self.ready),
        });
        let waker = Arc::clone(&key);
        lock(&self.all).insert(number, Inlet { future, key });
        waker.wake();
    }

    /// The connection is being polled, and [`poll`](Self::poll) follows: nobody has to be woken.
    pub(super) fn begin_poll(&self) {
        lock(&self.ready.0).is_polled = true;
    }

    /// Takes what there is, for all sessions.
    pub(super) fn poll(&self, cx: &Context<'_>) {
        loop {
            let numbers = {
                let mut ready = lock(&self.ready.0);
                if ready.numbers.is_empty() {
                    // From here on there is.
                    ready.is_polled = false;
                    if !matches!(&ready.task, Some(task) if task.will_wake(cx.waker())) {
                        ready.task = Some(cx.waker().clone());
                    }
                    return;
                }
                mem::take(&mut ready.numbers)
            };
            for number in numbers {
                // Out of the map while it runs: there is nothing to be locked meanwhile.
                let Some(mut inlet) = lock(&self.all).remove(&number) else {
                    continue;
                };
                inlet.key.is_ready.store(false, Ordering::Release);
                let waker = Waker::from(Arc::clone(&inlet.key));
                let poll = inlet.future.as_mut().poll(&mut Context::from_waker(&waker));
                if poll.is_pending() {
                    lock(&self.all).insert(number, inlet);
                }
            }
        }
    }
}

/// Waits until a session asks for its bytes, and the server hands them over; then takes them until
/// their end.
async fn run(
    asked: oneshot::Receiver<()>,
    upgrade: OnUpgrade,
    give: oneshot::Sender<hyper::Result<SocketIo<TokioIo<Upgraded>>>>,
    cap: usize,
) {
    if asked.await.is_err() {
        // The request has gone another way.
        return;
    }
    match upgrade.await {
        Ok(upgraded) => {
            let (io, filling) = SocketIo::new(TokioIo::new(upgraded), cap);
            // It may have given up: then the stream goes with it.
            let _ = give.send(Ok(io));
            poll_fn(|cx| filling.poll(cx)).await;
        }
        Err(error) => {
            let _ = give.send(Err(error));
        }
    }
}

/// The inlets that were woken.
#[derive(Default)]
struct Ready(Mutex<ReadyState>);

#[derive(Default)]
struct ReadyState {
    numbers: Vec<u64>,
    last: u64,
    /// Whether the connection's task will look at them by itself.
    is_polled: bool,
    /// The connection's.
    task: Option<Waker>,
}

/// An inlet's waker.
struct Key {
    number: u64,
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
