use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::atomic::{AtomicBool, Ordering},
    task::Wake,
};

use super::*;

/// A stream of pieces that are there, then pending.
struct Pieces {
    pieces: VecDeque<Vec<u8>>,
    dropped: Arc<AtomicBool>,
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::SeqCst);
    }
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.pieces.pop_front() {
            Some(piece) => buffer.put_slice(&piece),
            None => return Poll::Pending,
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pieces {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Whether it was woken.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Flag {
    fn take(&self) -> bool {
        self.0.swap(false, Ordering::SeqCst)
    }
}

/// Both sides, each with a task to wake.
struct Both {
    io: Option<SocketIo<Pieces>>,
    filling: Option<Filling<Pieces>>,
    reader: Arc<Flag>,
    filler: Arc<Flag>,
    dropped: Arc<AtomicBool>,
}

impl Both {
    fn new(pieces: impl IntoIterator<Item = Vec<u8>>, cap: usize) -> Self {
        let dropped = Arc::<AtomicBool>::default();
        let pieces = Pieces {
            pieces: pieces.into_iter().collect(),
            dropped: Arc::clone(&dropped),
        };
        let (io, filling) = SocketIo::new(pieces, cap);
        Self {
            io: Some(io),
            filling: Some(filling),
            reader: Arc::default(),
            filler: Arc::default(),
            dropped,
        }
    }

    fn fill(&mut self) -> Poll<()> {
        let waker = Waker::from(Arc::clone(&self.filler));
        let filling = self.filling.as_ref().unwrap();
        filling.poll(&mut Context::from_waker(&waker))
    }

    fn read(&mut self, room: usize) -> Poll<io::Result<usize>> {
        let waker = Waker::from(Arc::clone(&self.reader));
        let mut bytes = vec![0; room];
        let mut buffer = ReadBuf::new(&mut bytes);
        let io = Pin::new(self.io.as_mut().unwrap());
        io.poll_read(&mut Context::from_waker(&waker), &mut buffer)
            .map_ok(|()| buffer.filled().len())
    }
}

fn count(read: Poll<io::Result<usize>>) -> Option<usize> {
    match read {
        Poll::Ready(result) => Some(result.unwrap()),
        Poll::Pending => None,
    }
}

#[test]
fn many_pieces_are_read_as_one_and_wake_once() {
    let mut both = Both::new(vec![vec![7; 6]; 1000], 1 << 20);
    assert_eq!(count(both.read(100)), None);
    assert!(both.fill().is_pending());
    assert!(both.reader.take());
    assert_eq!(count(both.read(4000)), Some(4000));
    assert_eq!(count(both.read(4000)), Some(2000));
    assert_eq!(count(both.read(4000)), None);
    assert_eq!(lock(&both.io.as_ref().unwrap().0).came.capacity(), 0);
}

#[test]
fn full_of_large_pieces_it_waits_until_some_are_read() {
    let mut both = Both::new(vec![vec![7; 1000]; 10], 4000);
    assert!(both.fill().is_pending());
    assert!(!both.filler.take());
    assert_eq!(count(both.read(1500)), Some(1500));
    assert!(both.filler.take());
    assert!(both.fill().is_pending());
    assert_eq!(count(both.read(10_000)), Some(4500));
}

#[test]
fn a_session_that_is_slower_than_large_pieces_goes_on_for_ever() {
    let mut both = Both::new(vec![vec![7; 1000]; 10_000], 4000);
    for _ in 0..9_000 {
        // It is never empty: only what waits still may be held against the peer.
        assert!(both.fill().is_pending());
        assert_eq!(count(both.read(1000)), Some(1000));
    }
}

#[test]
fn full_of_small_pieces_it_ends_behind_what_has_come() {
    let mut both = Both::new(vec![vec![7; 10]; 1000], 4000);
    assert!(both.fill().is_ready());
    assert!(both.dropped.load(Ordering::SeqCst));
    assert_eq!(count(both.read(10_000)), Some(4000));
    let Poll::Ready(Err(_)) = both.read(10_000) else {
        panic!("there should be an error");
    };
    assert_eq!(count(both.read(10_000)), Some(0));
}

#[test]
fn the_end_is_told_behind_what_has_come_and_again() {
    let mut both = Both::new([vec![7; 10], Vec::new()], 4000);
    assert!(both.fill().is_ready());
    for expected in [10, 0, 0] {
        assert_eq!(count(both.read(10_000)), Some(expected));
    }
    // What is to be written goes on.
    assert!(!both.dropped.load(Ordering::SeqCst));
}

#[test]
fn either_side_learns_that_the_other_has_gone() {
    let mut both = Both::new([], 4000);
    assert!(both.fill().is_pending());
    drop(both.io.take());
    assert!(both.dropped.load(Ordering::SeqCst) && both.filler.take());
    assert!(both.fill().is_ready());

    let mut both = Both::new([], 4000);
    assert_eq!(count(both.read(10)), None);
    drop(both.filling.take());
    assert!(both.reader.take());
    assert!(matches!(both.read(10), Poll::Ready(Err(_))));
}

#[tokio::test]
async fn writing_goes_to_the_stream() {
    let mut both = Both::new([], 4000);
    let io = both.io.as_mut().unwrap();
    let count = poll_fn(|cx| Pin::new(&mut *io).poll_write(cx, b"hello")).await;
    assert_eq!(count.unwrap(), 5);
}
