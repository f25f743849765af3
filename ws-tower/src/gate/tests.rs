use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use tower::{ServiceExt, service_fn};

use super::*;
use crate::{Error, WebSocket, WebSocketLayer, WebSocketUpgrade, upgrade::test_request};

type Text = Request<String>;

/// A middleware that decides after the application has answered.
fn forbid(mut response: Response<String>) -> Response<String> {
    *response.status_mut() = StatusCode::FORBIDDEN;
    response
}

/// An application that accepts, and tells whether its handler ever ran.
fn accept(request: Text, ran: Arc<AtomicBool>) -> Ready<Result<Response<String>, Infallible>> {
    let (mut parts, _) = request.into_parts();
    let handler = async move |socket: WebSocket| {
        ran.store(true, Ordering::Relaxed);
        let _ = socket.send("hello").await;
    };
    ready(Ok(match WebSocketUpgrade::from_parts(&mut parts) {
        Ok(upgrade) => upgrade.on_upgrade(handler),
        Err(rejection) => rejection.to_response(),
    }))
}

async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_acceptance_that_leaves_opens_a_session() {
    let ran = Arc::new(AtomicBool::new(false));
    let gate = GateLayer::new();
    let seen = Arc::clone(&ran);
    let service = gate.layer(service_fn(move |request| {
        accept(request, Arc::clone(&seen))
    }));
    let (request, client) = test_request("/any");
    let response = service.oneshot(request).await.unwrap();
    let mut socket = client.finish(&response).unwrap();
    assert_eq!(gate.tracker().len(), 1);
    assert!(socket.recv().await.unwrap().unwrap().is_text());
    assert!(socket.closed().await.is_clean());
    settle().await;
    assert!(gate.tracker().is_empty());
}

#[tokio::test]
async fn a_403_instead_of_the_101_leaves_no_session() {
    // The gate alone, and a layer whose route or whose application accepts.
    for path in ["/gate", "/route", "/application"] {
        let ran = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ran);
        let application =
            service_fn(move |request| accept(request, Arc::clone(&seen))).map_response(forbid);
        let (request, client) = test_request::<String>(path);
        let (response, tracker) = if path == "/route" {
            let ran = Arc::clone(&ran);
            let handler = move |_: WebSocket| {
                ran.store(true, Ordering::Relaxed);
                async {}
            };
            let inner = WebSocketLayer::new().route("/route", handler);
            let service = inner.layer(application).map_response(forbid);
            let outer = GateLayer::new();
            let response = outer.layer(service).oneshot(request).await.unwrap();
            assert!(inner.tracker().is_empty());
            (response, outer.tracker())
        } else if path == "/gate" {
            let outer = GateLayer::new();
            let response = outer.layer(application).oneshot(request).await.unwrap();
            (response, outer.tracker())
        } else {
            let outer = WebSocketLayer::new();
            let response = outer.layer(application).oneshot(request).await.unwrap();
            (response, outer.tracker())
        };
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        settle().await;
        assert!(!ran.load(Ordering::Relaxed), "{path}");
        assert!(tracker.is_empty());
        // The bytes were given back: the client is at their end.
        let mut io = client.into_io();
        let read = tokio::io::AsyncReadExt::read(&mut io, &mut [0; 8]).await;
        assert_eq!(read.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_handle_that_exists_already_learns_that_nothing_was_opened() {
    for is_kept in [true, false] {
        let handle = Arc::new(Mutex::new(None));
        let given = Arc::clone(&handle);
        let application = service_fn(move |request: Text| {
            let upgrade = request.extensions().get::<WebSocketUpgrade>().cloned();
            let (response, socket) = upgrade.unwrap().accept::<String>();
            *given.lock().unwrap() = Some(socket);
            ready(Ok::<_, Infallible>(response))
        });
        // The acceptance survives the 403, or is lost with a response that is replaced.
        let service = WebSocketLayer::new().layer(application.map_response(
            move |response: Response<String>| {
                if is_kept {
                    forbid(response)
                } else {
                    forbid(Response::default())
                }
            },
        ));
        let (request, _client) = test_request("/");
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        let mut socket = handle.lock().unwrap().take().unwrap();
        let error = socket.recv().await.unwrap().unwrap_err();
        assert!(matches!(error, Error::NotUpgraded), "{error:?}");
        assert!(socket.recv().await.is_none());
        assert!(socket.send("late").await.is_err());
        let closed = socket.closed().await;
        assert!(matches!(closed.cause(), Some(Error::NotUpgraded)));
    }
}

#[tokio::test(start_paused = true)]
async fn an_acceptance_that_never_leaves_is_given_up_in_time() {
    let (request, _client) = test_request::<String>("/");
    let (mut parts, _) = request.into_parts();
    parts.extensions.insert(Gate::default());
    let upgrade = WebSocketUpgrade::from_parts(&mut parts).unwrap();
    let start = tokio::time::Instant::now();
    let (response, mut socket) = upgrade.accept::<String>();
    assert!(matches!(socket.recv().await, Some(Err(Error::NotUpgraded))));
    assert_eq!(start.elapsed().as_secs(), 10);
    // Too late: it is a 101 without a session.
    let mut response = response;
    let gate = Gate::default();
    gate.release(&mut response);
    assert!(gate.tracker().is_empty());
}

#[tokio::test]
async fn one_acceptance_opens_one_session() {
    let (request, _client) = test_request::<String>("/");
    let (mut parts, _) = request.into_parts();
    let gate = Gate::default();
    parts.extensions.insert(gate.clone());
    let upgrade = WebSocketUpgrade::from_parts(&mut parts).unwrap();
    let mut response: Response<String> = upgrade.on_upgrade(async |_: WebSocket| {});
    // Such as a cache or a retry might make.
    let mut copy = Response::new(());
    *copy.status_mut() = response.status();
    *copy.extensions_mut() = response.extensions().clone();
    gate.release(&mut response);
    gate.release(&mut copy);
    assert_eq!(gate.tracker().len(), 1);
}

#[tokio::test]
async fn inner_layers_leave_it_to_the_outermost_and_both_trackers_know_the_session() {
    let handler = async |socket: WebSocket| {
        socket.closed().await;
    };
    let inner = WebSocketLayer::new().route("/", handler);
    let outer = WebSocketLayer::new();
    let page = service_fn(async |_: Text| Ok::<_, Infallible>(Response::new(String::new())));
    let service = outer.layer(inner.layer(page));
    let (request, client) = test_request("/");
    let response = service.oneshot(request).await.unwrap();
    assert!(response.extensions().get::<Acceptance>().is_none());
    let socket = client.finish(&response).unwrap();
    assert_eq!((inner.tracker().len(), outer.tracker().len()), (1, 1));
    let shutdown = inner.tracker().shutdown(Duration::from_secs(60)).await;
    assert_eq!((shutdown.closed, shutdown.cut), (1, 0));
    socket.closed().await;
    settle().await;
    assert!(outer.tracker().is_empty());

    // Either of them refuses when it is draining.
    let service = outer.layer(inner.layer(page));
    let (request, _client) = test_request("/");
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn without_a_gate_the_extractor_says_which_line_is_missing() {
    let ran = Arc::new(AtomicBool::new(false));
    let (request, _client) = test_request("/");
    let response = accept(request, Arc::clone(&ran)).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(
        response
            .body()
            .contains(".layer(ws_tower::gate::GateLayer::new())")
    );
    // A page needs no gate.
    let response = accept(Text::default(), ran).await.unwrap();
    assert_eq!(response.status(), StatusCode::UPGRADE_REQUIRED);
}

#[tokio::test]
async fn an_error_and_an_ordinary_response_pass_the_gate() {
    let gate = GateLayer::new();
    let failing = service_fn(async |_: Text| Err::<Response<String>, _>("no"));
    let (request, _client) = test_request("/");
    assert_eq!(
        gate.layer(failing).oneshot(request).await.unwrap_err(),
        "no"
    );
    let mut page = Response::new("page");
    Gate::default().release(&mut page);
    assert_eq!(*page.body(), "page");
}

#[test]
fn without_a_runtime_nothing_begins_and_nothing_panics() {
    let (request, _client) = test_request::<String>("/");
    let (mut parts, _) = request.into_parts();
    let gate = Gate::default();
    parts.extensions.insert(gate.clone());
    let upgrade = WebSocketUpgrade::from_parts(&mut parts).unwrap();
    let (mut response, socket) = upgrade.accept::<String>();
    gate.release(&mut response);
    assert!(gate.tracker().is_empty());
    assert!(matches!(
        socket.sender().try_closed().unwrap().cause(),
        Some(Error::NotUpgraded)
    ));
}

#[test]
fn the_task_of_a_session_is_hardly_larger_than_the_session() {
    let session = size_of::<crate::Session<Io, crate::session::BoxHandler>>();
    let task = acceptance::LAUNCH_SIZE;
    assert!(task <= session + 40, "{task} and {session}");
}
