//! Credentials that do not stay the same, under a client that connects again and again.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ws_hyper::{
    Connector,
    client::{Backoff, ConnectError, Proxy, Reconnecting},
};
use ws_tests::{proxy, raw::within, scripted::server};

/// A server that lets in who has the token of the hour, for one hour each.
async fn hourly() -> SocketAddr {
    let hour = Arc::new(AtomicUsize::new(1));
    server(move |mut visit| {
        let hour = Arc::clone(&hour);
        async move {
            let token = format!("Bearer token-{}", hour.load(Ordering::SeqCst));
            if visit.header("authorization") == [token] {
                hour.fetch_add(1, Ordering::SeqCst);
                visit.open(b"\x81\x05Hello\x88\x02\x03\xe8").await;
            } else {
                let head = "HTTP/1.1 401 x\r\nContent-Length: 0\r\n\r\n";
                visit.write(head).await;
            }
        }
    })
    .await
}

fn reconnecting(connector: Connector, address: SocketAddr) -> Reconnecting {
    let sockets = Reconnecting::new(connector, format!("ws://{address}/")).unwrap();
    let pause = Duration::from_millis(20);
    sockets.backoff(Backoff::new().first(pause).max(pause))
}

#[tokio::test]
async fn each_connect_may_have_a_token_of_its_own() {
    let address = hourly().await;
    let issued = AtomicUsize::new(0);
    let mut sockets = reconnecting(Connector::new(), address).prepare(move |connector| {
        let token = format!("token-{}", issued.fetch_add(1, Ordering::SeqCst) + 1);
        async move { Ok(connector.bearer_auth(&token)) }
    });
    for _ in 0..3 {
        let mut socket = within(sockets.next()).await.unwrap().unwrap();
        assert_eq!(
            within(socket.recv()).await.unwrap().unwrap(),
            "Hello".into()
        );
    }
}

#[tokio::test]
async fn a_token_that_is_refused_is_told_and_renewed() {
    let address = hourly().await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let (hook, issued) = (Arc::clone(&told), AtomicUsize::new(0));
    let mut sockets = reconnecting(Connector::new(), address)
        .prepare(move |connector| {
            // The first two are of yesterday; after the third nobody is logged in.
            let number = issued.fetch_add(1, Ordering::SeqCst);
            async move {
                match number {
                    0 | 1 => Ok(connector.bearer_auth("token-0")),
                    2 => Err(ConnectError::Connect {
                        to: "the login service".into(),
                        source: "it restarts".into(),
                    }),
                    3 => Ok(connector.bearer_auth("token-1")),
                    _ => Err(ConnectError::Setting("nobody is logged in".into())),
                }
            }
        })
        .final_if(|error| {
            let is_stale = error.refusal().is_some_and(|it| it.status() == 401);
            error.is_final() && !is_stale
        })
        .on_failure(move |error| hook.lock().unwrap().push(error.to_string()));
    assert!(within(sockets.next()).await.unwrap().is_ok());
    let failures = std::mem::take(&mut *told.lock().unwrap());
    assert_eq!(failures.len(), 3, "{failures:?}");
    assert!(failures[0].contains("401") && failures[1].contains("401"));
    assert!(failures[2].contains("the login service"), "{failures:?}");

    let error = within(sockets.next()).await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "nobody is logged in");
    assert!(within(sockets.next()).await.is_none());
    assert!(told.lock().unwrap().is_empty(), "a final failure is next's");
}

#[tokio::test]
async fn a_proxy_that_wants_another_password_is_not_asked_again() {
    let proxy = proxy::Proxy::http(Some("Basic bmFtZTpzZWNyZXQ=")).await;
    let wrong = Proxy::new(format!("http://name:wrong@{}", proxy.address)).unwrap();
    let mut sockets = reconnecting(Connector::new().proxy(wrong), ([127, 0, 0, 1], 9).into());
    let error = within(sockets.next()).await.unwrap().unwrap_err();
    assert!(
        error.is_final() && error.to_string().contains("407"),
        "{error}"
    );
    assert_eq!(proxy.asked().len(), 1);
}
