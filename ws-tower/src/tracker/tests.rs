use std::{
    convert::Infallible,
    future::pending,
    io,
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Wake, Waker},
};

use http::{Request, Response};
use tokio::{sync::oneshot, time::Instant};
use tower::ServiceExt;
use ws_core::{Config, Connection, Role};

use super::*;
use crate::{
    Error, WebSocket, WebSocketLayer,
    session::state::{About, Handler},
    upgrade::{ProvidedIo, test_request},
};

async fn open(layer: &WebSocketLayer, request: Request<String>) -> Response<String> {
    let service = layer.clone().into_service();
    let result: Result<_, Infallible> = service.oneshot(request).await;
    result.unwrap()
}

async fn wait(socket: WebSocket) {
    socket.closed().await;
}

#[tokio::test]
async fn shutdown_says_1001_to_every_session_and_waits_for_its_end() {
    let layer = WebSocketLayer::new().route("/", wait);
    let mut sockets = Vec::new();
    for _ in 0..10 {
        let (request, client) = test_request("/");
        sockets.push(client.finish(&open(&layer, request).await).unwrap());
    }
    let tracker = layer.tracker();
    assert_eq!(tracker.len(), 10);
    let shutdown = tracker.shutdown(Duration::from_secs(60)).await;
    assert_eq!((shutdown.closed, shutdown.cut), (10, 0));
    assert!(tracker.is_empty() && tracker.is_draining());
    for socket in sockets {
        let closed = socket.closed().await;
        assert!(closed.is_clean());
        let close = closed.received().unwrap();
        assert_eq!(close.code(), Some(CloseCode::GOING_AWAY));
        assert_eq!(close.frame().unwrap().reason(), "server is shutting down");
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_does_not_end_is_cut_at_the_deadline() {
    struct Dropped(Arc<AtomicBool>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let dropped = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&dropped);
    let layer = WebSocketLayer::new()
        .route("/stuck", move |socket: WebSocket| {
            let dropped = Dropped(Arc::clone(&flag));
            async move {
                pending::<()>().await;
                drop((socket, dropped));
            }
        })
        .route("/fine", wait);
    let mut clients = Vec::new();
    for path in ["/stuck", "/fine"] {
        let (request, client) = test_request(path);
        clients.push(client.finish(&open(&layer, request).await).unwrap());
    }
    let start = Instant::now();
    let shutdown = layer.tracker().shutdown(Duration::from_secs(3)).await;
    assert_eq!((shutdown.closed, shutdown.cut), (1, 1));
    assert_eq!(start.elapsed().as_secs(), 3);
    assert!(dropped.load(Ordering::Relaxed));
    assert!(layer.tracker().is_empty());
}

#[tokio::test]
async fn a_session_that_comes_while_draining_is_told_at_once() {
    // Its 101 has passed the guards, and the server begins to drain before it leaves.
    let tracker = Tracker::new();
    let draining = tracker.clone();
    let layer = WebSocketLayer::new().with_tracker(tracker).route("/", wait);
    let gate = crate::gate::GateLayer::new();
    let service = gate_with(&gate, &layer, move || draining.drain());
    let (request, client) = test_request("/");
    let response = service.oneshot(request).await.unwrap();
    let socket = client.finish(&response).unwrap();
    let closed = socket.closed().await;
    assert_eq!(
        closed.received().unwrap().code(),
        Some(CloseCode::GOING_AWAY)
    );
}

/// Something that happens between the acceptance and the gate.
fn gate_with(
    gate: &crate::gate::GateLayer,
    layer: &WebSocketLayer,
    between: impl Fn() + Clone + Send + 'static,
) -> impl tower::Service<Request<String>, Response = Response<String>, Error = Infallible> {
    use tower_layer::Layer as _;
    let inner = layer.clone().into_service();
    let inner = ServiceExt::<Request<String>>::map_response(inner, move |response| {
        between();
        response
    });
    gate.layer(inner)
}

#[tokio::test(start_paused = true)]
async fn bytes_that_never_come_hold_a_session_for_the_handshake_deadline() {
    let ran = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&ran);
    let layer = WebSocketLayer::new().route("/", move |_: WebSocket| {
        flag.store(true, Ordering::Relaxed);
        async {}
    });
    let (mut request, _client) = test_request::<String>("/");
    request
        .extensions_mut()
        .insert(ProvidedIo::from_future(pending::<
            io::Result<tokio::io::DuplexStream>,
        >()));
    assert_eq!(open(&layer, request).await.status(), 101);
    let start = Instant::now();
    assert_eq!(layer.tracker().len(), 1);
    layer.tracker().empty().await;
    assert_eq!(start.elapsed().as_secs(), 10);
    assert!(!ran.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_cuts_a_session_that_waits_for_its_bytes() {
    let layer = WebSocketLayer::new().route("/", wait);
    let (mut request, _client) = test_request::<String>("/");
    request
        .extensions_mut()
        .insert(ProvidedIo::from_future(pending::<
            io::Result<tokio::io::DuplexStream>,
        >()));
    open(&layer, request).await;
    let start = Instant::now();
    let shutdown = layer.tracker().shutdown(Duration::from_secs(1)).await;
    assert_eq!((shutdown.closed, shutdown.cut), (0, 1));
    assert!(layer.tracker().is_empty());
    assert_eq!(start.elapsed().as_secs(), 1);
}

#[tokio::test]
async fn a_client_that_is_gone_before_the_bytes_leaves_nothing() {
    let layer = WebSocketLayer::new().route("/", wait);
    let (gone, future) = oneshot::channel::<tokio::io::DuplexStream>();
    let (mut request, _client) = test_request::<String>("/");
    let provided = ProvidedIo::from_future(async {
        future
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::ConnectionReset))
    });
    request.extensions_mut().insert(provided);
    open(&layer, request).await;
    assert_eq!(layer.tracker().len(), 1);
    drop(gone);
    timeout(Duration::from_secs(60), layer.tracker().empty())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_thousand_openings_race_a_shutdown_and_none_slips_through() {
    let layer = WebSocketLayer::new().route("/", wait);
    let tracker = layer.tracker();
    let client = {
        let layer = layer.clone();
        tokio::spawn(async move {
            let (mut opened, mut refused) = (Vec::new(), 0);
            for _ in 0..1000 {
                let (request, client) = test_request("/");
                match client.finish(&open(&layer, request).await) {
                    Ok(socket) => opened.push(socket),
                    Err(_) => refused += 1,
                }
                tokio::task::yield_now().await;
            }
            (opened, refused)
        })
    };
    while tracker.len() < 100 {
        tokio::task::yield_now().await;
    }
    tracker.shutdown(Duration::from_secs(60)).await;
    let (opened, refused) = client.await.unwrap();
    assert_eq!(opened.len() + refused, 1000);
    assert!(opened.len() >= 100 && refused > 0);
    for socket in opened {
        let closed = socket.closed().await;
        let code = closed.received().unwrap().code();
        assert_eq!(code, Some(CloseCode::GOING_AWAY));
        assert!(!matches!(closed.cause(), Some(Error::Aborted)));
    }
    tracker.empty().await;
}

#[tokio::test]
async fn a_handler_goes_on_after_its_socket_has_ended() {
    let late = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&late);
    let layer = WebSocketLayer::new().route("/", move |socket: WebSocket| {
        let flag = Arc::clone(&flag);
        async move {
            socket.closed().await;
            tokio::time::sleep(Duration::from_millis(10)).await;
            flag.store(true, Ordering::Relaxed);
        }
    });
    let (request, client) = test_request("/");
    let socket = client.finish(&open(&layer, request).await).unwrap();
    socket.close(CloseFrame::from(CloseCode::NORMAL)).await;
    let end = timeout(Duration::from_secs(60), layer.tracker().empty()).await;
    assert!(end.is_ok() && late.load(Ordering::Relaxed));
}

/// A waker that looks at the tracker when it is woken, as an executor may that polls at once.
struct Looks(Tracker, AtomicBool);

impl Wake for Looks {
    fn wake(self: Arc<Self>) {
        assert!(self.0.is_empty());
        self.1.store(true, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_shutdown_is_woken_outside_the_trackers_lock() {
    let tracker = Tracker::new();
    let connection = Connection::new(Role::Server, Config::default());
    let session = Shared::new(connection, Handler::Done, About::default());
    let registration = tracker.register(&session);
    let looks = Arc::new(Looks(tracker.clone(), AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&looks));
    let mut shutdown = pin!(tracker.shutdown(Duration::from_secs(60)));
    let polled = shutdown.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    // In a thread of its own, so that a lock that is held fails the test and does not stop it.
    let (done, waits) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(registration);
        done.send(())
    });
    assert_eq!(waits.recv_timeout(Duration::from_secs(60)), Ok(()));
    assert!(looks.1.load(Ordering::Relaxed));
    assert_eq!(shutdown.await.closed, 1);
}
