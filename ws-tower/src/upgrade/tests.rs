use std::time::Duration;

use http::{Request, header::ORIGIN, header::SET_COOKIE};

use super::*;
use crate::{CloseCode, Message};

/// A request behind a gate, its upgrade, and the client.
fn upgrade(request: Request<()>) -> (Gate, WebSocketUpgrade) {
    let (mut parts, ()) = request.into_parts();
    let gate = Gate::default();
    parts.extensions.insert(gate.clone());
    let upgrade = WebSocketUpgrade::from_parts(&mut parts).unwrap();
    (gate, upgrade)
}

#[tokio::test]
async fn the_second_taker_gets_a_response_that_says_so() {
    let (request, _client) = test_request("/");
    let (_gate, upgrade) = upgrade(request);
    let again = upgrade.clone();
    let first: Response<String> = upgrade.on_upgrade(async |_: WebSocket| {});
    assert_eq!(first.status(), StatusCode::SWITCHING_PROTOCOLS);
    let second: Response<String> = again.clone().on_upgrade(async |_: WebSocket| {});
    assert_eq!(second.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(second.body().contains("accepted already"));
    assert!(second.extensions().get::<AlreadyTaken>().is_some());
    let (third, mut socket) = again.accept::<String>();
    assert_eq!(third.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(matches!(
        socket.recv().await,
        Some(Err(crate::Error::NotUpgraded))
    ));
}

#[tokio::test]
async fn a_refused_subprotocol_does_not_use_the_upgrade_up() {
    let (request, _client) = test_request("/");
    let (_gate, upgrade) = upgrade(request);
    let refused: Response<String> = upgrade
        .clone()
        .require_subprotocol(["chat"])
        .on_upgrade(async |_: WebSocket| {});
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    let accepted: Response<String> = upgrade.on_upgrade(async |_: WebSocket| {});
    assert_eq!(accepted.status(), StatusCode::SWITCHING_PROTOCOLS);
}

#[tokio::test]
async fn accept_gives_a_handle_at_once_whose_messages_leave_with_the_upgrade() {
    let (request, client) = test_request("/chat?x=1");
    let (gate, upgrade) = upgrade(request);
    assert_eq!(upgrade.path(), "/chat");
    let (mut response, mut socket) = upgrade.accept::<String>();
    socket.send("early").await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(10), socket.recv()).await;
    assert!(early.is_err());
    gate.release(&mut response);
    let mut client = client.finish(&response).unwrap();
    assert_eq!(
        client.recv().await.unwrap().unwrap(),
        Message::text("early")
    );
    client.send("later").await.unwrap();
    assert_eq!(
        socket.recv().await.unwrap().unwrap(),
        Message::text("later")
    );
    drop(socket);
    let closed = client.closed().await;
    assert_eq!(closed.received().unwrap().code(), Some(CloseCode::NORMAL));
}

#[tokio::test]
async fn a_handle_that_is_dropped_before_the_upgrade_closes_the_socket() {
    let (request, client) = test_request("/");
    let (gate, upgrade) = upgrade(request);
    let (mut response, socket) = upgrade.accept::<String>();
    drop(socket);
    gate.release(&mut response);
    let closed = client.finish(&response).unwrap().closed().await;
    assert_eq!(closed.received().unwrap().code(), Some(CloseCode::NORMAL));
}

#[tokio::test]
async fn the_settings_of_an_upgrade_are_its_own() {
    let (mut request, client) = test_request_with::<()>(
        ws_core::handshake::client::Handshake::new(&"ws://chat.example/".parse().unwrap())
            .and_then(|handshake| handshake.subprotocol("v1"))
            .unwrap(),
    );
    let evil = HeaderValue::from_static("https://evil.example");
    request.headers_mut().insert(ORIGIN, evil);
    let (gate, upgrade) = upgrade(request);
    assert_eq!(upgrade.offered_subprotocols().collect::<Vec<_>>(), ["v1"]);
    let refused: Response<String> = upgrade.clone().on_upgrade(async |_: WebSocket| {});
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert!(refused.body().contains("WebSocketUpgrade::origins"));
    let mut accepted: Response<String> = upgrade
        .subprotocols(["v2", "v1"])
        .origins(OriginPolicy::dangerously_any())
        .config(Config::new().max_message_size(1))
        .header(SET_COOKIE, HeaderValue::from_static("a=1"))
        .on_upgrade(
            async |mut socket: WebSocket| {
                while socket.recv().await.is_some() {}
            },
        );
    assert_eq!(accepted.headers()[SET_COOKIE], "a=1");
    gate.release(&mut accepted);
    let socket = client.finish(&accepted).unwrap();
    assert_eq!(socket.subprotocol(), Some("v1"));
    socket.send("too long").await.unwrap();
    let code = socket.closed().await.received().unwrap().code();
    assert_eq!(code, Some(CloseCode::MESSAGE_TOO_BIG));
}

#[test]
fn what_asks_for_nothing_yields_no_upgrade() {
    let (mut parts, ()) = Request::new(()).into_parts();
    let rejection = WebSocketUpgrade::from_parts(&mut parts).unwrap_err();
    assert_eq!(
        rejection,
        UpgradeRejection::Handshake(Rejection::UpgradeMissing)
    );
    assert_eq!(rejection.to_response().status(), 426);
}

#[tokio::test]
async fn an_absolute_uri_can_be_tested_too() {
    let (request, _client) = test_request::<()>("wss://chat.example/rooms?id=7");
    assert_eq!(request.headers()["host"], "chat.example");
    assert_eq!(request.uri(), "/rooms?id=7");
    let panic = std::panic::catch_unwind(|| test_request::<()>("mailto:me")).err();
    assert!(panic.is_some());
}
