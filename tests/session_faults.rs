//! Fault injection: a whole conversation, for every place at which its stream can misbehave.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use tokio::{io::duplex, time::timeout};
use ws_core::{Connection, Role};
use ws_tests::io::{Fault, Faulty};
use ws_tower::{BoxError, CloseCode, CloseFrame, Closed, Config, Message, Session, WebSocket};

/// No conversation lasts longer, on the paused clock, whatever its stream does.
const LIMIT: Duration = Duration::from_secs(120);

fn messages() -> Vec<Message> {
    vec![
        Message::text("Hello"),
        Message::text(""),
        Message::binary(vec![0; 200]),
        // Beyond the high-water marks, read in place and sent by reference.
        Message::binary(
            (0..100_000_u32)
                .map(|n| n.to_le_bytes()[1])
                .collect::<Vec<_>>(),
        ),
        Message::text("grün".repeat(5_000)),
        Message::text("bye"),
    ]
}

async fn echo(mut socket: WebSocket) -> Result<(), BoxError> {
    while let Some(message) = socket.recv().await {
        socket.send(message?).await?;
    }
    Ok(())
}

struct Outcome {
    /// The replies.
    replies: Vec<Message>,
    client: Closed,
    server: Closed,
    /// The calls of the faulty stream.
    calls: usize,
}

/// Sends all messages through an echo whose stream, or whose client's stream, is faulty.
async fn converse(fault: Fault, at: usize, at_client: bool) -> Outcome {
    // Wide enough that few calls make the whole conversation, narrow enough to make it wait.
    let (near, far) = duplex(40_000);
    let normal = usize::MAX;
    let (client_at, server_at) = if at_client {
        (at, normal)
    } else {
        (normal, at)
    };
    let far = Faulty::new(far, fault, server_at);
    let near = Faulty::new(near, fault, client_at);
    let calls = if at_client { near.calls() } else { far.calls() };
    let server = Connection::new(Role::Server, Config::default());
    let server = tokio::spawn(Session::with_handler(far, server, echo));
    let client = Connection::new(Role::Client, Config::default());
    let (session, socket) = Session::new(near, client);
    let session = tokio::spawn(session);
    let (sender, mut receiver) = socket.split();
    let sending = tokio::spawn(async move {
        for message in messages() {
            if sender.send(message).await.is_err() {
                break;
            }
        }
        let _ = sender.ping().await;
        sender
    });
    let mut replies = Vec::new();
    while replies.len() < messages().len() {
        match receiver.recv().await {
            Some(Ok(message)) => replies.push(message),
            Some(Err(_)) => {}
            None => break,
        }
    }
    let sender = sending.await.unwrap();
    let closed = sender.close(CloseFrame::from(CloseCode::NORMAL)).await;
    let client = session.await.unwrap();
    assert_eq!(client.to_string(), closed.to_string());
    let server = server.await.unwrap();
    let calls = *calls.lock().unwrap();
    Outcome {
        replies,
        client,
        server,
        calls,
    }
}

/// Runs the conversation for every place of a fault, or for a sample of them; `check` says what
/// has to hold.
async fn everywhere(fault: Fault, check: impl Fn(&Outcome, &str)) {
    for at_client in [false, true] {
        let mut at = 0;
        loop {
            let case = format!("{fault:?} at call {at}, client {at_client}");
            let outcome = timeout(LIMIT, converse(fault, at, at_client))
                .await
                .unwrap_or_else(|_| panic!("hangs: {case}"));
            check(&outcome, &case);
            if at >= outcome.calls {
                assert!(at > 10, "{case}");
                break;
            }
            at += 1;
        }
    }
}

fn is_perfect(outcome: &Outcome, case: &str) {
    assert!(outcome.replies == messages(), "{case}");
    assert!(outcome.client.is_clean(), "{case}: {}", outcome.client);
    assert!(outcome.server.is_clean(), "{case}: {}", outcome.server);
}

fn is_a_prefix(outcome: &Outcome, case: &str) {
    let all = messages();
    assert!(all.starts_with(&outcome.replies), "{case}");
    if outcome.client.is_clean() {
        assert!(outcome.replies == all, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_conversation_is_perfect_wherever_one_call_moves_one_byte() {
    everywhere(Fault::OneByte, is_perfect).await;
}

#[tokio::test(start_paused = true)]
async fn a_conversation_is_perfect_wherever_one_call_is_pending() {
    everywhere(Fault::Pending, is_perfect).await;
}

#[tokio::test(start_paused = true)]
async fn a_conversation_is_perfect_wherever_half_of_all_calls_begin_to_be_pending() {
    everywhere(Fault::PendingHalfTheTime, is_perfect).await;
}

#[tokio::test(start_paused = true)]
async fn a_conversation_is_perfect_byte_by_byte() {
    for at_client in [false, true] {
        let outcome = converse(Fault::OneByteFromThenOn, 0, at_client).await;
        is_perfect(&outcome, "byte by byte");
    }
}

#[tokio::test(start_paused = true)]
async fn a_conversation_ends_in_time_and_in_order_wherever_the_stream_fails() {
    everywhere(Fault::Error, is_a_prefix).await;
}

#[tokio::test(start_paused = true)]
async fn a_conversation_ends_in_time_and_in_order_wherever_the_stream_ends() {
    everywhere(Fault::End, is_a_prefix).await;
}
