use std::{
    convert::Infallible,
    fmt::Debug,
    future::{Ready, ready},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{
    Method, Response, StatusCode, Version,
    header::{HOST, ORIGIN, SEC_WEBSOCKET_PROTOCOL, SET_COOKIE},
};
use tower::{Service, ServiceExt, service_fn};
use ws_core::handshake::{client::Handshake, server::Rejection};

use super::*;
use crate::{
    CloseCode, Error, Message, WebSocket, WebSocketUpgrade,
    upgrade::{ProvidedIo, TestClient, test_request, test_request_with},
};

type Text = Request<String>;

async fn echo(mut socket: WebSocket) -> Result<(), Error> {
    while let Some(message) = socket.recv().await {
        socket.send(message?).await?;
    }
    Ok(())
}

async fn hello(socket: WebSocket) {
    let _ = socket.send("hello").await;
}

/// What an inner service answers that is asked although it should not be.
async fn page(_: Text) -> Result<Response<String>, Infallible> {
    Ok(Response::new("page".to_owned()))
}

async fn send(layer: &WebSocketLayer, request: Text) -> Response<String> {
    layer
        .layer(service_fn(page))
        .oneshot(request)
        .await
        .unwrap()
}

async fn next(socket: &mut WebSocket) -> Option<String> {
    let message = tokio::time::timeout(Duration::from_secs(5), socket.recv())
        .await
        .unwrap()?;
    Some(message.unwrap().as_text().unwrap().to_owned())
}

fn rejection<B>(response: &Response<B>) -> &Rejection {
    response.extensions().get().unwrap()
}

fn offering(path: &str, subprotocols: &[&str]) -> (Text, TestClient) {
    let uri = format!("ws://localhost{path}").parse().unwrap();
    let mut handshake = Handshake::new(&uri).unwrap();
    for name in subprotocols {
        handshake = handshake.subprotocol(name).unwrap();
    }
    test_request_with(handshake)
}

// What goes to the inner service.

#[tokio::test]
async fn what_asks_for_no_websocket_goes_inside_untouched() {
    let layer = WebSocketLayer::new().route("/echo", echo);
    let inner = service_fn(async |request: Text| {
        assert!(request.extensions().get::<WebSocketUpgrade>().is_none());
        assert!(request.extensions().get::<Gate>().is_none());
        assert_eq!(request.extensions().get::<u8>(), Some(&7));
        Ok::<_, Infallible>(Response::new(request.into_body()))
    });
    let build = |method: Method, version, upgrade: &str, connection: &str| {
        Request::builder()
            .method(method)
            .version(version)
            .uri("/echo")
            .header("upgrade", upgrade)
            .header("connection", connection)
            .extension(7_u8)
            .body("body".to_owned())
            .unwrap()
    };
    let eleven = Version::HTTP_11;
    for request in [
        build(Method::GET, eleven, "h2c", "upgrade"),
        build(Method::GET, eleven, "websocket", "keep-alive"),
        build(Method::POST, eleven, "websocket", "upgrade"),
        build(Method::GET, Version::HTTP_10, "websocket", "upgrade"),
        build(Method::GET, Version::HTTP_2, "websocket", "upgrade"),
        build(Method::CONNECT, Version::HTTP_2, "", ""),
    ] {
        let response = layer.layer(inner).oneshot(request).await.unwrap();
        assert_eq!(response.body(), "body");
    }
}

#[tokio::test]
async fn an_upgrade_without_a_route_goes_inside_with_a_websocket_upgrade() {
    let layer = WebSocketLayer::new().route("/echo", echo);
    let inner = service_fn(async |request: Text| {
        // hyper's own is still there, for whoever knows nothing of this layer.
        assert!(request.extensions().get::<ProvidedIo>().is_some());
        let upgrade = request.extensions().get::<WebSocketUpgrade>().cloned();
        Ok::<Response<String>, Infallible>(upgrade.unwrap().on_upgrade(hello))
    });
    let (request, client) = test_request::<String>("/other");
    let response = layer.layer(inner).oneshot(request).await.unwrap();
    let mut socket = client.finish(&response).unwrap();
    assert_eq!(next(&mut socket).await.as_deref(), Some("hello"));
    assert_eq!(next(&mut socket).await, None);
    assert!(socket.closed().await.is_clean());
}

#[tokio::test]
async fn an_error_of_the_inner_service_passes_through() {
    #[derive(Debug, PartialEq)]
    struct Own(u8);
    let inner = service_fn(async |_: Text| Err::<Response<String>, _>(Own(3)));
    let service = WebSocketLayer::new().route("/echo", echo).layer(inner);
    assert_eq!(
        service.clone().oneshot(Text::default()).await.unwrap_err(),
        Own(3)
    );
    let (upgrade, _client) = test_request("/other");
    assert_eq!(service.oneshot(upgrade).await.unwrap_err(), Own(3));
}

#[tokio::test]
async fn the_inner_service_that_was_ready_is_the_one_that_is_called() {
    #[derive(Default)]
    struct Once {
        is_ready: bool,
    }
    impl Clone for Once {
        fn clone(&self) -> Self {
            Self::default()
        }
    }
    impl Service<Text> for Once {
        type Response = Response<String>;
        type Error = Infallible;
        type Future = Ready<Result<Response<String>, Infallible>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            self.is_ready = true;
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, _: Text) -> Self::Future {
            assert!(std::mem::take(&mut self.is_ready), "called unready");
            ready(Ok(Response::default()))
        }
    }
    let mut service = WebSocketLayer::new()
        .route("/echo", echo)
        .layer(Once::default());
    for path in ["/", "/other", "/echo", "/"] {
        let (mut request, _client) = test_request(path);
        if path == "/" {
            request = Text::default();
        }
        let service = service.ready().await.unwrap();
        let _unready = service.clone();
        service.call(request).await.unwrap();
    }
}

// The layer alone.

#[tokio::test]
async fn alone_the_layer_finds_nothing_but_sockets() {
    let service = WebSocketLayer::new().route("/echo", echo).into_service();
    let ask = async |request: Text| service.clone().oneshot(request).await.unwrap();

    let response = ask(Request::get("/").body(String::new()).unwrap()).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    let (request, _client) = test_request("/other");
    assert_eq!(ask(request).await.status(), StatusCode::NOT_FOUND);

    let response = ask(Request::get("/echo").body(String::new()).unwrap()).await;
    assert_eq!(response.status(), StatusCode::UPGRADE_REQUIRED);
    assert_eq!(response.headers()["upgrade"], "websocket");
    assert_eq!(response.headers()["sec-websocket-version"], "13");
    assert!(response.body().contains("this is a websocket"));

    let response = ask(Request::post("/echo").body(String::new()).unwrap()).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.headers()["allow"], "GET");

    let (mut request, _client) = test_request("/echo");
    *request.version_mut() = Version::HTTP_10;
    let response = ask(request).await;
    assert_eq!(response.status(), StatusCode::UPGRADE_REQUIRED);
    assert_eq!(
        rejection(&response),
        &Rejection::HttpVersion(Version::HTTP_10)
    );

    let (request, client) = test_request("/echo");
    assert!(client.finish(&ask(request).await).is_ok());
}

// The handshake.

#[tokio::test]
async fn a_handshake_that_is_not_in_order_is_refused_with_a_typed_rejection() {
    let layer = WebSocketLayer::new().route("/echo", echo);
    let cases: &[(&str, &[&str], u16)] = &[
        ("host", &[], 400),
        ("host", &["localhost", "localhost"], 400),
        ("content-length", &["3"], 400),
        ("transfer-encoding", &["chunked"], 400),
        ("sec-websocket-version", &[], 426),
        ("sec-websocket-version", &["8"], 426),
        ("sec-websocket-key", &[], 400),
        ("sec-websocket-key", &["short"], 400),
        ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZQ==", "x"], 400),
        ("sec-websocket-protocol", &["a b"], 400),
    ];
    for (name, values, status) in cases {
        let (mut request, client) = test_request::<String>("/echo");
        let headers = request.headers_mut();
        headers.remove(*name);
        for value in *values {
            headers.append(*name, HeaderValue::from_static(value));
        }
        // The same on the layer's path, and where the application accepts.
        for path in ["/echo", "/other"] {
            let mut request = request.clone();
            *request.uri_mut() = path.parse().unwrap();
            let inner = service_fn(async |request: Text| {
                let upgrade = request.extensions().get::<WebSocketUpgrade>().unwrap();
                assert!(upgrade.rejection().is_some());
                Ok::<_, Infallible>(upgrade.clone().on_upgrade::<_, _, String>(hello))
            });
            let response = layer.layer(inner).oneshot(request).await.unwrap();
            assert_eq!(response.status(), *status, "{name} {values:?}");
            assert_eq!(rejection(&response).status(), *status);
            assert!(!response.body().is_empty());
        }
        drop(client);
    }
}

#[tokio::test]
async fn token_lists_and_several_lines_are_understood() {
    let layer = WebSocketLayer::new().route("/echo", echo);
    let (mut request, client) = test_request("/echo");
    let headers = request.headers_mut();
    headers.insert("upgrade", HeaderValue::from_static("foo, WebSocket"));
    headers.insert("connection", HeaderValue::from_static("keep-alive"));
    headers.append("connection", HeaderValue::from_static("x, UPGRADE"));
    let response = send(&layer, request).await;
    assert!(client.finish(&response).is_ok());
}

#[tokio::test]
async fn without_bytes_behind_it_no_request_is_accepted() {
    let layer = WebSocketLayer::new().route("/echo", echo);
    let (mut request, _client) = test_request::<String>("/echo");
    request.extensions_mut().remove::<ProvidedIo>();
    let response = send(&layer, request).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(rejection(&response), &Rejection::UpgradeUnavailable);
    assert!(response.body().contains("with upgrades"));
}

#[tokio::test]
async fn a_page_of_another_origin_is_told_both_sides_and_the_setting() {
    let ask = async |layer: &WebSocketLayer, path: &str, origin: &'static str| {
        let (mut request, _client) = test_request::<String>(path);
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_static("chat.example"));
        headers.insert(ORIGIN, HeaderValue::from_static(origin));
        send(layer, request).await
    };
    let layer = WebSocketLayer::new()
        .route("/echo", echo)
        .route_with(
            "/public",
            Route::new(echo).origins(OriginPolicy::dangerously_any()),
        )
        .route_with(
            "/private",
            Route::new(echo).origins(OriginPolicy::predicate(|_, _| false)),
        );
    let refused = ask(&layer, "/echo", "https://evil.example").await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    for part in ["evil.example", "chat.example", "WebSocketLayer::origins"] {
        assert!(refused.body().contains(part), "{}", refused.body());
    }
    let refused = ask(&layer, "/private", "https://chat.example").await;
    assert!(refused.body().contains("Route::origins"));
    for (path, origin) in [("/public", "null"), ("/echo", "https://chat.example")] {
        let response = ask(&layer, path, origin).await;
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    }
    let policy = OriginPolicy::same_origin();
    let layer = layer.origins(policy.allow("https://evil.example").unwrap());
    let response = ask(&layer, "/echo", "https://evil.example").await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
}

#[tokio::test]
async fn a_subprotocol_is_chosen_by_the_server_from_the_offer() {
    let layer = WebSocketLayer::new()
        .subprotocols(["v2", "v1"])
        .route("/any", echo)
        .route_with("/own", Route::new(echo).subprotocols(["own"]))
        .route_with("/must", Route::new(echo).require_subprotocol(["v3", "v4"]));
    let cases: &[(&str, &[&str], Option<&str>)] = &[
        ("/any", &["v1", "v2"], Some("v2")),
        ("/any", &["v1"], Some("v1")),
        ("/any", &["V1", "v"], None),
        ("/any", &[], None),
        ("/own", &["v1", "own"], Some("own")),
        ("/own", &["v1"], None),
        ("/must", &["v1", "v4"], Some("v4")),
    ];
    for (path, offered, chosen) in cases {
        let (request, client) = offering(path, offered);
        let response = send(&layer, request).await;
        let header = response.headers().get(SEC_WEBSOCKET_PROTOCOL);
        assert_eq!(header.map(|value| value.to_str().unwrap()), *chosen);
        assert_eq!(client.finish(&response).unwrap().subprotocol(), *chosen);
    }
    for offered in [&["v1"][..], &[]] {
        let (request, _client) = offering("/must", offered);
        let response = send(&layer, request).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert!(response.body().contains("v3, v4"));
    }
}

#[tokio::test]
async fn the_101_has_the_headers_of_the_layer_and_of_the_route() {
    let value = HeaderValue::from_static;
    let layer = WebSocketLayer::new()
        .header(SET_COOKIE, value("a=1"))
        .header(http::header::CONNECTION, value("close"))
        .header(http::header::SEC_WEBSOCKET_ACCEPT, value("mine"))
        .route_with("/echo", Route::new(echo).header(SET_COOKIE, value("b=2")));
    let (request, client) = test_request("/echo");
    let response = send(&layer, request).await;
    let cookies: Vec<_> = response.headers().get_all(SET_COOKIE).iter().collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    assert!(client.finish(&response).is_ok());
}

// Guards.

fn refusing(status: StatusCode) -> Box<Response<String>> {
    let mut response = Response::new("who are you?".to_owned());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert("x-why", HeaderValue::from_static("this"));
    Box::new(response)
}

#[tokio::test]
async fn guards_refuse_with_any_response_in_their_order() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let guard = |name: &'static str, passes: bool| {
        let asked = Arc::clone(&asked);
        move |_: &mut Request<()>| {
            asked.lock().unwrap().push(name);
            if passes {
                Ok(())
            } else {
                Err(refusing(StatusCode::UNAUTHORIZED))
            }
        }
    };
    let layer = WebSocketLayer::new()
        .route_with("/no", Route::new(echo).guard(guard("route", false)))
        .route("/yes", echo)
        .guard(guard("first", true))
        .guard(guard("second", true));
    let (request, _client) = test_request("/no");
    let response = send(&layer, request).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.headers()["x-why"], "this");
    assert_eq!(response.body(), "who are you?");
    assert_eq!(*asked.lock().unwrap(), ["first", "second", "route"]);

    asked.lock().unwrap().clear();
    let (request, client) = test_request("/yes");
    assert!(client.finish(&send(&layer, request).await).is_ok());
    assert_eq!(*asked.lock().unwrap(), ["first", "second"]);

    // Nobody is asked about a handshake that is refused anyhow.
    asked.lock().unwrap().clear();
    let (mut request, _client) = test_request::<String>("/yes");
    request
        .headers_mut()
        .insert(ORIGIN, HeaderValue::from_static("null"));
    assert_eq!(send(&layer, request).await.status(), StatusCode::FORBIDDEN);
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_guard_may_wait_and_what_it_finds_reaches_the_handler() {
    #[derive(Clone)]
    struct User(String);
    async fn session(mut request: Request<()>) -> Result<Request<()>, Box<Response<String>>> {
        tokio::task::yield_now().await;
        let name = request.headers().get("x-user").cloned();
        let name = name.ok_or_else(|| refusing(StatusCode::UNAUTHORIZED))?;
        let user = User(name.to_str().unwrap().to_owned());
        request.extensions_mut().insert(user);
        Ok(request)
    }
    async fn greet(socket: WebSocket, request: Request<()>) {
        let User(name) = request.extensions().get().unwrap();
        let _ = socket.send(format!("{name} at {}", request.uri())).await;
    }
    let layer = WebSocketLayer::new()
        .guard_async(session)
        .guard(|request: &mut Request<()>| {
            if request.extensions().get::<User>().is_some() {
                Ok(())
            } else {
                Err(refusing(StatusCode::FORBIDDEN))
            }
        })
        .route("/greet", greet);
    let (mut request, client) = test_request::<String>("/greet?x=1");
    request
        .headers_mut()
        .insert("x-user", HeaderValue::from_static("Ada"));
    let mut socket = client.finish(&send(&layer, request).await).unwrap();
    assert_eq!(
        next(&mut socket).await.as_deref(),
        Some("Ada at /greet?x=1")
    );
    let (request, _client) = test_request("/greet");
    assert_eq!(
        send(&layer, request).await.status(),
        StatusCode::UNAUTHORIZED
    );
}

// Handlers.

#[tokio::test]
async fn a_socket_knows_its_path_parameters_subprotocol_and_peer() {
    async fn tell(socket: WebSocket) {
        let text = format!(
            "{} {:?} {:?} {:?} {:?}",
            socket.path(),
            socket.param("room"),
            socket.param("other"),
            socket.subprotocol(),
            socket.peer()
        );
        let _ = socket.send(text).await;
    }
    let layer = WebSocketLayer::new()
        .route("/rooms/{room}", tell)
        .subprotocols(["chat"]);
    let (mut request, client) = offering("/rooms/caf%C3%A9?x=1", &["chat"]);
    let peer: SocketAddr = "127.0.0.1:9".parse().unwrap();
    request.extensions_mut().insert(PeerAddr(peer));
    let mut socket = client.finish(&send(&layer, request).await).unwrap();
    assert_eq!(
        next(&mut socket).await.as_deref(),
        Some("/rooms/caf%C3%A9 Some(\"café\") None Some(\"chat\") Some(127.0.0.1:9)")
    );
    // Another server tells the peer its own way.
    let layer = layer.peer_addr(|extensions| extensions.get::<SocketAddr>().copied());
    let (mut request, client) = test_request::<String>("/rooms/1");
    request.extensions_mut().insert(peer);
    let mut socket = client.finish(&send(&layer, request).await).unwrap();
    assert!(
        next(&mut socket)
            .await
            .unwrap()
            .ends_with("Some(127.0.0.1:9)")
    );
}

#[tokio::test]
async fn a_handler_may_be_a_closure_and_its_end_decides_the_close_code() {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let layer = WebSocketLayer::new()
        .route("/count", move |socket: WebSocket| {
            let counter = Arc::clone(&counter);
            async move {
                let number = counter.fetch_add(1, Ordering::Relaxed);
                socket.send(number.to_string()).await
            }
        })
        .route("/fail", async |_: WebSocket| Err::<(), _>("no"))
        .route("/panic", |_: WebSocket| -> Ready<()> {
            panic!("before any await")
        })
        .route("/done", async |_: WebSocket| {});
    for (path, code) in [
        ("/count", CloseCode::NORMAL),
        ("/fail", CloseCode::INTERNAL_ERROR),
        ("/panic", CloseCode::INTERNAL_ERROR),
        ("/done", CloseCode::NORMAL),
    ] {
        let (request, client) = test_request(path);
        let socket = client.finish(&send(&layer, request).await).unwrap();
        let closed = socket.closed().await;
        assert_eq!(closed.received().unwrap().code(), Some(code), "{path}");
        assert_eq!(closed.received().unwrap().frame().unwrap().reason(), "");
    }
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn the_hook_is_told_how_each_socket_ended() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let of = |name: &'static str| {
        let told = Arc::clone(&told);
        move |closed: &Closed| {
            let line = format!("{name} {} {}", closed.path(), closed.is_clean());
            told.lock().unwrap().push(line);
        }
    };
    let layer = WebSocketLayer::new()
        .on_closed(of("layer"))
        .route("/a", hello)
        .route_with("/b", Route::new(hello).on_closed(of("route")));
    let tracker = layer.tracker();
    for path in ["/a", "/b"] {
        let (request, client) = test_request(path);
        let response = send(&layer, request).await;
        let mut socket = client.finish(&response).unwrap();
        assert!(socket.recv().await.is_some());
        socket.closed().await;
    }
    while !tracker.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(*told.lock().unwrap(), ["layer /a true", "route /b true"]);
}

#[tokio::test]
async fn a_handler_can_be_dropped_when_its_socket_ends() {
    struct Dropped(tokio::sync::mpsc::Sender<()>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.try_send(());
        }
    }
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let handler = move |socket: WebSocket| {
        let guard = Dropped(sender.clone());
        async move {
            std::future::pending::<()>().await;
            drop((socket, guard));
        }
    };
    let layer = WebSocketLayer::new().route_with("/", Route::new(handler).cancel_on_close());
    let (request, client) = test_request("/");
    let socket = client.finish(&send(&layer, request).await).unwrap();
    drop(socket);
    assert_eq!(receiver.recv().await, Some(()));
    while !layer.tracker().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_settings_of_a_route_are_its_own() {
    let small = Config::new().max_message_size(3);
    let layer = WebSocketLayer::new()
        .config(small)
        .route("/small", echo)
        .route_with("/large", Route::new(echo).config(Config::new()));
    let (request, client) = test_request("/small");
    let socket = client.finish(&send(&layer, request).await).unwrap();
    socket.send("four").await.unwrap();
    let closed = socket.closed().await;
    let code = closed.received().unwrap().code();
    assert_eq!(code, Some(CloseCode::MESSAGE_TOO_BIG));
    let (request, client) = test_request("/large");
    let mut socket = client.finish(&send(&layer, request).await).unwrap();
    socket.send("four").await.unwrap();
    assert_eq!(next(&mut socket).await.as_deref(), Some("four"));
}

// Bodies.

#[tokio::test]
async fn a_body_without_a_known_text_is_empty_and_keeps_status_and_headers() {
    #[derive(Debug, Default, PartialEq)]
    struct Own(Option<String>);
    let inner = service_fn(async |_: Text| Ok::<_, Infallible>(Response::new(Own(None))));
    let (mut request, _client) = test_request::<String>("/echo");
    request.headers_mut().remove("sec-websocket-version");
    let layer = WebSocketLayer::new().route("/echo", echo);
    let response = layer.layer(inner).oneshot(request.clone()).await.unwrap();
    assert_eq!(response.status(), StatusCode::UPGRADE_REQUIRED);
    assert_eq!(response.headers()["sec-websocket-version"], "13");
    assert!(!response.headers().contains_key("content-type"));
    assert_eq!(response.body(), &Own(None));

    let layer = layer.with_body(|text| Own(Some(text)));
    let response = layer.layer(inner).oneshot(request.clone()).await.unwrap();
    assert!(response.body().0.as_ref().unwrap().contains("version"));
    let response = layer.into_service().oneshot(request).await.unwrap();
    assert!(response.body().0.as_ref().unwrap().contains("version"));
}

#[test]
fn the_services_are_what_stacks_ask_for() {
    fn check<T: Clone + Send + Sync + Debug + 'static>(_: &T) {}
    let layer = WebSocketLayer::new().route("/echo", echo);
    check(&layer);
    check(&layer.layer(()));
    check(&layer.clone().into_service());
    check(&layer.with_body::<Vec<u8>>(String::into_bytes));
}

// Draining.

#[tokio::test]
async fn while_draining_every_websocket_is_refused_with_503() {
    let layer = WebSocketLayer::new().route("/echo", echo);
    layer.tracker().drain();
    let inner = service_fn(async |request: Text| {
        let upgrade = request.extensions().get::<WebSocketUpgrade>().cloned();
        Ok::<_, Infallible>(match upgrade {
            Some(upgrade) => upgrade.on_upgrade(hello),
            None => Response::new("page".to_owned()),
        })
    });
    let service = layer.layer(inner);
    for path in ["/echo", "/other"] {
        let (request, _client) = test_request(path);
        let response = service.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(rejection(&response), &Rejection::Draining);
    }
    let page = service.oneshot(Text::default()).await.unwrap();
    assert_eq!(page.body(), "page");
}

#[tokio::test]
async fn a_guard_that_outlasts_the_server_opens_nothing() {
    let tracker = Tracker::new();
    let draining = tracker.clone();
    let layer = WebSocketLayer::new()
        .with_tracker(tracker)
        .guard(move |_: &mut Request<()>| {
            draining.drain();
            Ok::<_, StatusCode>(())
        })
        .route("/echo", echo);
    let (request, _client) = test_request("/echo");
    let response = send(&layer, request).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
}

// HTTP/2 (RFC 8441).

#[cfg(feature = "http2")]
#[tokio::test]
async fn an_extended_connect_is_answered_with_200() {
    use hyper::ext::Protocol;
    let layer = WebSocketLayer::new().route("/echo", hello);
    let connect = |protocol: &'static str| {
        let uri = "wss://localhost/echo".parse().unwrap();
        let handshake = Handshake::new(&uri).unwrap();
        let (upgrade, client) = test_request_with::<String>(handshake.clone());
        let mut request = handshake.extended_connect_request().map(|()| String::new());
        *request.extensions_mut() = upgrade.extensions().clone();
        request
            .extensions_mut()
            .insert(Protocol::from_static(protocol));
        (request, client)
    };
    let (request, client) = connect("websocket");
    let response = send(&layer, request).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers().len(), 0);
    let mut socket = client.finish(&response).unwrap();
    assert_eq!(next(&mut socket).await.as_deref(), Some("hello"));

    let (request, _client) = connect("connect-udp");
    assert_eq!(send(&layer, request).await.body(), "page");
    let (mut request, _client) = connect("websocket");
    request.extensions_mut().remove::<Protocol>();
    assert_eq!(send(&layer, request).await.body(), "page");

    // Another page's, over HTTP/2: the authority is in the URI.
    let (mut request, _client) = connect("websocket");
    request
        .headers_mut()
        .insert(ORIGIN, HeaderValue::from_static("https://evil.example"));
    assert_eq!(send(&layer, request).await.status(), StatusCode::FORBIDDEN);
    let (mut request, _client) = connect("websocket");
    request
        .headers_mut()
        .insert(ORIGIN, HeaderValue::from_static("https://localhost"));
    assert_eq!(send(&layer, request).await.status(), StatusCode::OK);
}

#[cfg(not(feature = "http2"))]
#[tokio::test]
async fn without_http2_every_connect_goes_inside() {
    let layer = WebSocketLayer::new().route("/echo", hello);
    let uri = "wss://localhost/echo".parse().unwrap();
    let request = Handshake::new(&uri).unwrap().extended_connect_request();
    let response = send(&layer, request.map(|()| String::new())).await;
    assert_eq!(response.body(), "page");
}

#[tokio::test]
async fn every_event_of_the_echo_comes_back() {
    let layer = WebSocketLayer::new().route("/echo", echo);
    let (request, client) = test_request("/echo");
    let mut socket = client.finish(&send(&layer, request).await).unwrap();
    for message in [
        Message::text("a"),
        Message::binary(vec![0, 1]),
        Message::text(""),
    ] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.recv().await.unwrap().unwrap(), message);
    }
}
