//! The session over in-memory streams.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use ws_core::{Close, CloseCode, CloseFrame, Config, Connection, ConnectionError, Message, Role};

use crate::{BoxError, Error, NoHandler, Session, WebSocket, pair};

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
        tokio::time::sleep(Duration::from_secs(60)).await;
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
    assert!(one.unwrap() < Duration::from_secs(5));
    assert!(two.unwrap() < Duration::from_secs(5));
    drop(client);
    server.closed().await;
    assert!(matches!(server.ping().await, Err(Error::Closed)));
}

#[tokio::test]
async fn sizes_stay_within_the_budget() {
    // A tokio task, this session (with hyper's upgraded stream for `Io`), the shared state.
    println!("session {}", size_of::<Session<(), NoHandler>>());
    println!("shared {}", size_of::<crate::session::state::Shared>());
    println!("connection {}", size_of::<Connection>());
    println!("sleep {}", size_of::<tokio::time::Sleep>());
    println!("config {}", size_of::<Config>());
}
