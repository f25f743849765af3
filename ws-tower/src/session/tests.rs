//! The session over in-memory streams.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex},
    task::coop,
    time::{sleep, timeout},
};
use ws_core::{Close, CloseCode, CloseFrame, Config, Connection, ConnectionError, Message, Role};

use crate::{BoxError, Error, NoHandler, Session, WebSocket, pair, session::state::Shared};

fn server() -> Connection {
    Connection::new(Role::Server, Config::default())
}

/// A masked frame with a key of zeros, which leaves the payload readable.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![
        first,
        0x80 | u8::try_from(payload.len()).unwrap(),
        0,
        0,
        0,
        0,
    ];
    frame.extend_from_slice(payload);
    frame
}

#[tokio::test]
async fn echo_over_a_pair() {
    let (mut client, mut server) = pair(Config::default());
    client.send("Hello").await.unwrap();
    let message = server.recv().await.unwrap().unwrap();
    server.send(message).await.unwrap();
    assert_eq!(
        client.recv().await.unwrap().unwrap(),
        Message::text("Hello")
    );
    let big: Vec<u8> = (0..900_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let (sent, received) = tokio::join!(client.send(big.clone()), server.recv());
    sent.unwrap();
    assert_eq!(received.unwrap().unwrap(), Message::binary(big));
    let closed = client
        .close(CloseFrame::new(CloseCode::NORMAL, "bye").unwrap())
        .await;
    assert!(closed.is_clean(), "{closed}");
    assert!(server.recv().await.is_none());
    let closed = server.closed().await;
    assert_eq!(
        closed.received(),
        Some(&Close::Status(
            CloseFrame::new(CloseCode::NORMAL, "bye").unwrap()
        ))
    );
    assert!(matches!(server.send("late").await, Err(Error::Closed)));
    assert!(server.recv().await.is_none());
}

#[tokio::test]
async fn a_handler_that_returns_closes_with_1000_and_one_that_fails_with_1011() {
    for (outcome, code) in [
        (Ok(()), CloseCode::NORMAL),
        (Err("out of tea"), CloseCode::INTERNAL_ERROR),
    ] {
        let (near, far) = duplex(1024);
        let outcome: Result<(), BoxError> = outcome.map_err(Into::into);
        tokio::spawn(Session::with_handler(
            far,
            server(),
            async |socket: WebSocket| {
                socket.send("last").await?;
                outcome
            },
        ));
        let client = Connection::new(Role::Client, Config::default());
        let (session, mut client) = Session::new(near, client);
        tokio::spawn(session);
        assert!(client.recv().await.is_some());
        assert!(client.recv().await.is_none());
        let closed = client.closed().await;
        assert!(closed.is_clean());
        assert_eq!(closed.received().and_then(Close::code), Some(code));
        // The cause does not travel.
        assert_eq!(closed.received().unwrap().frame().unwrap().reason(), "");
    }
}

/// Reads until the stream ends.
async fn rest(io: &mut DuplexStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    io.read_to_end(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test]
async fn pings_are_answered_and_a_close_is_echoed_while_the_handler_sleeps() {
    let (mut near, far) = duplex(1024);
    let session = tokio::spawn(Session::with_handler(far, server(), async |socket| {
        std::future::pending::<()>().await;
        drop(socket);
        Ok(())
    }));
    near.write_all(&masked(0x89, b"are you there"))
        .await
        .unwrap();
    let mut pong = [0; 15];
    near.read_exact(&mut pong).await.unwrap();
    assert_eq!(&pong, b"\x8a\x0dare you there");
    near.write_all(&masked(0x88, b"\x03\xe8")).await.unwrap();
    assert_eq!(rest(&mut near).await, b"\x88\x02\x03\xe8");
    assert!(!session.is_finished());
    session.abort();
}

#[tokio::test(start_paused = true)]
async fn a_handler_goes_on_after_its_socket_has_ended() {
    let (mut near, far) = duplex(1024);
    let session = tokio::spawn(Session::with_handler(far, server(), async |mut socket| {
        assert!(socket.recv().await.is_none());
        sleep(Duration::from_secs(60)).await;
        Ok(())
    }));
    near.write_all(&masked(0x88, b"\x03\xe8")).await.unwrap();
    let start = tokio::time::Instant::now();
    assert!(session.await.unwrap().is_clean());
    assert_eq!(start.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_pinged_and_given_up() {
    let (mut near, far) = duplex(1024);
    let (session, mut socket) = Session::new(far, server());
    let session = tokio::spawn(session);
    let start = tokio::time::Instant::now();
    let mut ping = [0; 6];
    near.read_exact(&mut ping).await.unwrap();
    assert_eq!(&ping, b"\x89\x04\x00\x00\x00\x01");
    assert_eq!(start.elapsed().as_secs(), 20);
    let closed = session.await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 40);
    assert!(!closed.is_clean());
    assert!(matches!(
        socket.recv().await,
        Some(Err(Error::Connection(ConnectionError::KeepaliveTimeout)))
    ));
    assert!(socket.recv().await.is_none());
    assert_eq!(rest(&mut near).await[2..4], 1011_u16.to_be_bytes());
}

#[tokio::test]
async fn a_ping_resolves_with_its_round_trip() {
    let (client, server) = pair(Config::default());
    let (one, two) = tokio::join!(server.ping(), server.ping());
    assert!(one.unwrap() < Duration::from_secs(60));
    assert!(two.unwrap() < Duration::from_secs(60));
    drop(client);
    server.closed().await;
    assert!(matches!(server.ping().await, Err(Error::Closed)));
}

/// A peer that always has more to read; whether it takes writes is its choice.
struct Flood {
    frame: Vec<u8>,
    place: usize,
    takes: Poll<io::ErrorKind>,
}

impl Flood {
    fn new() -> Self {
        Self {
            frame: masked(0x82, &[0; 100]),
            place: 0,
            takes: Poll::Pending,
        }
    }
}

impl AsyncRead for Flood {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let budget = ready!(coop::poll_proceed(cx));
        while buf.remaining() > 0 {
            let rest = &self.frame[self.place..];
            let piece = rest.len().min(buf.remaining());
            buf.put_slice(&rest[..piece]);
            self.place = (self.place + piece) % self.frame.len();
        }
        budget.made_progress();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Flood {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.takes {
            Poll::Ready(io::ErrorKind::BrokenPipe) => {
                Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
            }
            Poll::Ready(_) => Poll::Ready(Ok(bytes.len())),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn where_reading_must_go_on_a_deaf_application_costs_no_more_than_the_cap() {
    let config = Config::new().http2_receive_cap(128 << 10);
    let connection = Connection::new(Role::Server, config).without_pauses();
    let (session, _socket) = Session::new(Flood::new(), connection);
    let shared = Arc::clone(&session.shared);
    let session = tokio::spawn(session);
    let closes = async {
        while shared.lock().connection.close_sent().is_none() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(30), closes).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    {
        let state = shared.lock();
        let sent = state.connection.close_sent().and_then(Close::code);
        assert_eq!(sent, Some(CloseCode::TRY_AGAIN_LATER));
        // The read that went over it is in there, too.
        let size = state.connection.inbox_size();
        assert!(size < 256 << 10, "{size}");
    }
    session.abort();
}

#[tokio::test]
async fn a_peer_that_never_stops_sending_gains_no_time_for_its_close() {
    let config = Config::new().close_timeout(Duration::from_millis(100));
    let flood = Flood {
        takes: Poll::Ready(io::ErrorKind::Other),
        ..Flood::new()
    };
    let (session, socket) = Session::new(flood, Connection::new(Role::Server, config));
    tokio::spawn(session);
    let close = socket.close(CloseCode::NORMAL);
    let closed = timeout(Duration::from_secs(20), close).await.unwrap();
    assert!(matches!(
        closed.cause(),
        Some(Error::Connection(ConnectionError::CloseTimeout))
    ));
}

#[tokio::test]
async fn a_peer_that_never_stops_sending_and_takes_nothing_is_given_up() {
    let config = Config::new().write_timeout(Duration::from_millis(100));
    let (session, mut socket) = Session::new(Flood::new(), Connection::new(Role::Server, config));
    socket.discard_incoming();
    socket.send("x").await.unwrap();
    tokio::spawn(session);
    let closed = timeout(Duration::from_secs(20), socket.closed()).await;
    assert!(matches!(
        closed.unwrap().cause(),
        Some(Error::Connection(ConnectionError::WriteTimeout))
    ));
}

#[tokio::test]
async fn an_end_whose_close_never_left_is_not_clean() {
    let flood = Flood {
        frame: masked(0x88, b"\x03\xe8"),
        takes: Poll::Ready(io::ErrorKind::BrokenPipe),
        ..Flood::new()
    };
    let (session, _socket) = Session::new(flood, server());
    let closed = session.await;
    assert!(closed.received().is_some());
    assert!(!closed.is_clean(), "{closed}");
}

/// A stream that remembers what was asked of it.
struct Asked {
    io: DuplexStream,
    calls: Arc<Mutex<Vec<&'static str>>>,
    shuts_down: bool,
}

impl Asked {
    fn ask(&self, what: &'static str) {
        self.calls.lock().unwrap().push(what);
    }
}

impl AsyncRead for Asked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Asked {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.ask("write");
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ask("flush");
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ask("shut down");
        if self.shuts_down {
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }
}

#[tokio::test]
async fn the_end_of_the_stream_travels_with_the_last_bytes() {
    // A Close, and a mistake: a frame that is not masked.
    for (input, is_clean) in [
        (masked(0x88, b"\x03\xe8"), true),
        (b"\x81\x00".to_vec(), false),
    ] {
        let (mut near, io) = duplex(1024);
        let calls = Arc::<Mutex<Vec<_>>>::default();
        let stream = Asked {
            io,
            calls: Arc::clone(&calls),
            shuts_down: true,
        };
        let (session, _socket) = Session::new(stream, server());
        let session = tokio::spawn(session);
        near.write_all(&input).await.unwrap();
        near.shutdown().await.unwrap();
        assert_eq!(session.await.unwrap().is_clean(), is_clean);
        let calls = calls.lock().unwrap();
        assert_eq!(calls.get(..2), Some(&["write", "shut down"][..]));
    }
}

#[tokio::test]
async fn a_stream_whose_end_has_to_wait_is_flushed() {
    let (mut near, io) = duplex(1024);
    let calls = Arc::<Mutex<Vec<_>>>::default();
    let stream = Asked {
        io,
        calls: Arc::clone(&calls),
        shuts_down: false,
    };
    let (session, _socket) = Session::new(stream, server());
    near.write_all(&masked(0x88, b"\x03\xe8")).await.unwrap();
    assert!(session.await.is_clean());
    let calls = calls.lock().unwrap();
    assert_eq!(calls.get(..3), Some(&["write", "shut down", "flush"][..]));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_uses_up_its_tasks_budget_costs_no_deadline() {
    let (mut near, far) = duplex(1024);
    let session = Session::with_handler(far, server(), async move |socket: WebSocket| {
        for _ in 0..1000 {
            coop::consume_budget().await;
        }
        std::future::pending::<()>().await;
        drop(socket);
        Ok(())
    });
    tokio::spawn(session);
    let mut ping = [0; 2];
    let came = timeout(Duration::from_secs(60), near.read_exact(&mut ping)).await;
    came.unwrap().unwrap();
    assert_eq!(ping[0], 0x89);
}

#[tokio::test]
async fn a_hook_that_panics_leaves_the_handler_alone() {
    let finished = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&finished);
    let (mut near, far) = duplex(1024);
    let session = Session::with_handler(far, server(), async move |mut socket: WebSocket| {
        assert!(socket.recv().await.is_none());
        tokio::task::yield_now().await;
        flag.store(true, Ordering::Relaxed);
        Ok(())
    })
    .on_closed(Some(Arc::new(|_| panic!("by design"))));
    near.write_all(&masked(0x88, b"\x03\xe8")).await.unwrap();
    assert!(session.await.is_clean());
    assert!(finished.load(Ordering::Relaxed));
}

#[test]
fn sizes_stay_within_the_budget() {
    // For each idle connection: the task's header and bookkeeping of tokio, about 130 bytes; the
    // session, with hyper's upgraded stream and a box for the handler in it; the shared state; the
    // handler's future, about 150 bytes for an echo. The rest is the socket's own.
    let session = size_of::<Session<(), NoHandler>>();
    assert!(session <= 208, "{session}");
    let shared = size_of::<Shared>();
    assert!(shared <= 320, "{shared}");
    let connection = size_of::<Connection>();
    assert!(connection <= 240, "{connection}");
    assert!(size_of::<WebSocket>() <= 56);
}
