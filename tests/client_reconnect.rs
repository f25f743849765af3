//! One socket after another.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};
use ws_hyper::{
    Connector,
    client::{Backoff, ConnectError, ReconnectState, Reconnecting},
};
use ws_tests::{raw::within, scripted::server};

/// A server with an answer for each of its visits; the last one is repeated. `open` opens a
/// socket, says hello and ends it.
async fn answering(answers: &'static [&'static str]) -> (SocketAddr, Arc<AtomicUsize>) {
    let visits = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&visits);
    let address = server(move |mut visit| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        async move {
            match answers[number.min(answers.len() - 1)] {
                "open" => visit.open(b"\x81\x05Hello\x88\x02\x03\xe8").await,
                head => {
                    let head = format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n");
                    visit.write(head).await;
                }
            }
        }
    })
    .await;
    (address, visits)
}

/// Quick to try again, and to be content.
fn quick() -> Backoff {
    Backoff::new()
        .first(Duration::from_millis(20))
        .max(Duration::from_millis(50))
        .healthy_after(Duration::ZERO)
}

fn reconnecting(address: SocketAddr) -> Reconnecting {
    let connector = Connector::new();
    let sockets = Reconnecting::new(connector, format!("ws://{address}/")).unwrap();
    sockets.backoff(quick())
}

#[tokio::test]
async fn each_socket_is_a_fresh_one_and_nothing_is_sent_again() {
    let (address, visits) = answering(&["open"]).await;
    let mut sockets = reconnecting(address);
    for number in 1..=5 {
        let mut socket = within(sockets.next()).await.unwrap().unwrap();
        assert_eq!(
            within(socket.recv()).await.unwrap().unwrap(),
            "Hello".into()
        );
        assert!(within(socket.recv()).await.is_none());
        assert!(socket.send("lost").await.is_err());
        assert_eq!(visits.load(Ordering::SeqCst), number);
    }
}

#[tokio::test]
async fn failures_that_pass_are_tried_again_and_the_state_tells() {
    let answers = &["503 x", "408 x", "429 x", "500 x", "open"];
    let (address, visits) = answering(answers).await;
    let mut sockets = reconnecting(address);
    let mut state = sockets.state();
    assert_eq!(*state.borrow_and_update(), ReconnectState::Idle);
    let watching = tokio::spawn(async move {
        let mut most = 0;
        while state.changed().await.is_ok() {
            match *state.borrow_and_update() {
                ReconnectState::Waiting { failures, pause } => {
                    assert!(pause <= Duration::from_millis(50));
                    most = most.max(failures);
                }
                ReconnectState::Connected => break,
                _ => {}
            }
        }
        most
    });
    let socket = within(StreamExt::next(&mut sockets))
        .await
        .unwrap()
        .unwrap();
    drop(socket);
    assert_eq!(visits.load(Ordering::SeqCst), 5);
    assert_eq!(within(watching).await.unwrap(), 4);
}

#[tokio::test]
async fn failures_that_do_not_pass_are_told_and_end_it() {
    for answer in [&["401 x"], &["404 x"], &["302 x"], &["400 x"]] {
        let (address, visits) = answering(answer).await;
        let mut sockets = reconnecting(address);
        let error = within(sockets.next()).await.unwrap().unwrap_err();
        assert!(matches!(error, ConnectError::Refused(_)), "{error:?}");
        assert!(within(sockets.next()).await.is_none());
        assert_eq!(*sockets.state().borrow(), ReconnectState::Ended);
        assert_eq!(visits.load(Ordering::SeqCst), 1);
    }
    // An acceptance that is none will not be one the next time.
    let (address, _) = answering(&["101 x"]).await;
    assert!(within(reconnecting(address).next()).await.unwrap().is_err());
    let connector = Connector::new().header("bad header", "x");
    let mut sockets = Reconnecting::new(connector, format!("ws://{address}/")).unwrap();
    assert!(within(sockets.next()).await.unwrap().is_err());
    assert!(Reconnecting::new(Connector::new(), "nowhere").is_err());
}

#[tokio::test]
async fn what_is_final_is_the_callers_choice() {
    let (address, visits) = answering(&["404 x", "404 x", "open"]).await;
    let mut sockets = reconnecting(address).final_if(|_| false);
    assert!(within(sockets.next()).await.unwrap().is_ok());
    assert_eq!(visits.load(Ordering::SeqCst), 3);

    let (address, _) = answering(&["503 x"]).await;
    let mut sockets = reconnecting(address).final_if(|_| true);
    assert!(within(sockets.next()).await.unwrap().is_err());
}

#[tokio::test]
async fn a_server_that_is_down_is_waited_for() {
    // Bound, so that nobody else has the port meanwhile, but deaf.
    let down = tokio::net::TcpSocket::new_v4().unwrap();
    down.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let mut sockets = reconnecting(down.local_addr().unwrap());
    let mut state = sockets.state();
    let failing = state.wait_for(
        |state| matches!(state, ReconnectState::Waiting { failures, .. } if *failures > 3),
    );
    tokio::select! {
        state = within(failing) => drop(state.unwrap()),
        socket = sockets.next() => panic!("{socket:?}"),
    }
}

#[tokio::test]
async fn a_server_may_ask_to_be_left_alone() {
    let (address, _) = answering(&["503 x\r\nRetry-After: 1", "open"]).await;
    let start = Instant::now();
    assert!(within(reconnecting(address).next()).await.unwrap().is_ok());
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_server_that_hangs_up_at_once_is_not_stormed() {
    let (address, visits) = answering(&["open"]).await;
    let backoff = Backoff::new()
        .first(Duration::from_secs(3600))
        .max(Duration::from_secs(3600));
    let mut sockets = reconnecting(address).backoff(backoff);
    drop(within(sockets.next()).await);
    let next = timeout(Duration::from_millis(200), sockets.next()).await;
    assert!(next.is_err());
    assert_eq!(visits.load(Ordering::SeqCst), 1);
    assert!(matches!(
        *sockets.state().borrow(),
        ReconnectState::Waiting { failures: 1, .. }
    ));
}

#[tokio::test]
async fn waiting_for_the_next_socket_can_be_cancelled_without_loss() {
    let (visits, hang_up) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (count, told) = (Arc::clone(&visits), Arc::clone(&hang_up));
    let address = server(move |mut visit| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        let told = Arc::clone(&told);
        async move {
            if number == 0 {
                told.notified().await;
            } else {
                visit.open(b"").await;
                visit.rest().await;
            }
        }
    })
    .await;
    let mut sockets = reconnecting(address);
    // Many short looks are the same attempt.
    let mut looks = 0;
    while looks < 10 || visits.load(Ordering::SeqCst) == 0 {
        let next = timeout(Duration::from_millis(10), sockets.next()).await;
        assert!(next.is_err());
        looks += 1;
    }
    assert_eq!(visits.load(Ordering::SeqCst), 1);
    hang_up.notify_one();
    assert!(within(sockets.next()).await.unwrap().is_ok());
    assert_eq!(visits.load(Ordering::SeqCst), 2);
}
