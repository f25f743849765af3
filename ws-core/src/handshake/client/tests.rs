//! The client's half, spoken in heads.

use http::header::AUTHORIZATION;
use proptest::prelude::*;

use super::*;
use crate::handshake::extensions::AnswerError;

fn handshake(uri: &str) -> Result<Handshake, RequestError> {
    Handshake::with_nonce(&uri.parse().unwrap(), *b"the sample nonce")
}

fn offering() -> Handshake {
    let handshake = handshake("ws://server.example.com/chat").unwrap();
    let handshake = handshake.subprotocol("chat").unwrap();
    handshake.subprotocol("superchat").unwrap()
}

const GOOD: &[(&str, &str)] = &[
    ("upgrade", "websocket"),
    ("connection", "Upgrade"),
    ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
];

fn response(status: u16, headers: &[(&str, &str)]) -> Response<()> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    response.body(()).unwrap()
}

/// The good response with one header replaced by these lines.
fn with(name: &str, values: &[&str]) -> Response<()> {
    let mut headers = GOOD.to_vec();
    headers.retain(|(other, _)| *other != name);
    headers.extend(values.iter().map(|value| (name, *value)));
    response(101, &headers)
}

#[test]
fn the_request_is_that_of_the_rfc() {
    // RFC 6455 §1.2 and §1.3.
    let origin = HeaderValue::from_static("http://example.com");
    let request = offering()
        .header(http::header::ORIGIN, origin)
        .unwrap()
        .request();
    assert_eq!(request.method(), Method::GET);
    assert_eq!(request.version(), Version::HTTP_11);
    assert_eq!(request.uri(), "/chat");
    let expected = [
        ("host", "server.example.com"),
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("origin", "http://example.com"),
        ("sec-websocket-protocol", "chat, superchat"),
        ("sec-websocket-version", "13"),
    ];
    assert_eq!(request.headers().len(), expected.len());
    for (name, value) in expected {
        assert_eq!(request.headers()[name], value);
    }
}

#[test]
fn the_uri_gives_target_host_and_port() {
    let cases = [
        ("ws://a.example", "/", "a.example", "a.example", 80),
        ("ws://a.example:80/b", "/b", "a.example", "a.example", 80),
        (
            "ws://a.example:443/b",
            "/b",
            "a.example:443",
            "a.example",
            443,
        ),
        ("wss://a.example:443/b", "/b", "a.example", "a.example", 443),
        (
            "wss://a.example:80/b",
            "/b",
            "a.example:80",
            "a.example",
            80,
        ),
        ("ws://a.example:/b", "/b", "a.example", "a.example", 80),
        ("ws://a.example?c=d", "/?c=d", "a.example", "a.example", 80),
        (
            "ws://a.example/b?c=d#e",
            "/b?c=d",
            "a.example",
            "a.example",
            80,
        ),
        ("ws://[::1]:8000/", "/", "[::1]:8000", "::1", 8000),
        ("wss://[::1]/", "/", "[::1]", "::1", 443),
        ("ws://127.0.0.1:9/", "/", "127.0.0.1:9", "127.0.0.1", 9),
        ("http://a.example/", "/", "a.example", "a.example", 80),
        ("HTTPS://a.example/", "/", "a.example", "a.example", 443),
        ("WsS://a.example/", "/", "a.example", "a.example", 443),
    ];
    for (uri, target, header, host, port) in cases {
        let handshake = handshake(uri).unwrap();
        let request = handshake.request();
        assert_eq!(request.uri().to_string(), target, "{uri}");
        assert_eq!(request.headers()["host"], header, "{uri}");
        assert_eq!((handshake.host(), handshake.port()), (host, port), "{uri}");
        let scheme = uri.split_once(':').unwrap().0.to_ascii_lowercase();
        let secure = ["wss", "https"].contains(&&*scheme);
        assert_eq!(*handshake.scheme() == Scheme::HTTPS, secure, "{uri}");
    }
}

#[test]
fn a_uri_that_is_no_websocket_is_refused() {
    let cases = [
        ("/chat", RequestError::Scheme(None)),
        ("a.example:80", RequestError::Scheme(None)),
        ("ftp://a.example/", RequestError::Scheme(Some("ftp".into()))),
        ("ws+unix://a/", RequestError::Scheme(Some("ws+unix".into()))),
        ("ws://user@a.example/", RequestError::UserInfo),
        ("ws://user:secret@a.example/", RequestError::UserInfo),
        ("ws://:80/", RequestError::Authority),
        ("ws://a.example:65536/", RequestError::Authority),
    ];
    for (uri, expected) in cases {
        let error = handshake(uri).unwrap_err();
        assert!(!error.to_string().contains("secret"));
        assert_eq!(error, expected, "{uri}");
    }
}

#[test]
fn each_handshake_has_a_key_of_its_own() {
    let uri = "ws://a.example/".parse().unwrap();
    let keys = [(); 2].map(|()| Handshake::new(&uri).unwrap().key);
    assert_ne!(keys[0], keys[1]);
    assert_eq!(STANDARD.decode(&keys[0]).unwrap().len(), 16);
}

#[test]
fn a_subprotocol_is_a_token_and_offered_once() {
    for name in ["", "a b", "a,b", "a/b", "é", "a\r\nb", "chat"] {
        let error = offering().subprotocol(name).unwrap_err();
        assert_eq!(error, RequestError::Subprotocol(name.into()));
        assert_eq!(error.to_string().lines().count(), 1);
    }
}

#[test]
fn headers_of_the_handshake_cannot_be_replaced() {
    for name in [
        "host",
        "connection",
        "upgrade",
        "content-length",
        "transfer-encoding",
        "sec-websocket-key",
        "sec-websocket-version",
        "sec-websocket-extensions",
        "sec-websocket-protocol",
        "sec-websocket-accept",
        "keep-alive",
        "expect",
    ] {
        let name = HeaderName::from_static(name);
        let error = offering().header(name.clone(), HeaderValue::from_static("1"));
        assert_eq!(error.unwrap_err(), RequestError::ReservedHeader(name));
    }
}

#[test]
fn credentials_stay_out_of_debug() {
    let secret = HeaderValue::from_static("Basic c2VjcmV0");
    let handshake = offering().header(AUTHORIZATION, secret).unwrap();
    assert_eq!(
        handshake.request().headers()["authorization"],
        "Basic c2VjcmV0"
    );
    assert!(!format!("{handshake:?}").contains("c2VjcmV0"));
}

#[test]
fn an_extended_connect_has_an_absolute_uri_and_no_key() {
    let handshake = handshake("wss://a.example:8443?b").unwrap();
    let request = handshake
        .subprotocol("chat")
        .unwrap()
        .extended_connect_request();
    assert_eq!(request.method(), Method::CONNECT);
    assert_eq!(request.version(), Version::HTTP_2);
    assert_eq!(request.uri(), "https://a.example:8443/?b");
    assert_eq!(request.headers().len(), 2);
    assert_eq!(request.headers()["sec-websocket-version"], "13");
    assert_eq!(request.headers()["sec-websocket-protocol"], "chat");
}

#[test]
fn a_good_response_is_accepted() {
    let cases: &[(&str, &[&str], Option<&str>)] = &[
        ("x", &[], None),
        ("upgrade", &["WebSocket"], None),
        ("connection", &["keep-alive, upgrade"], None),
        ("connection", &["keep-alive", "UPGRADE"], None),
        ("content-length", &["0"], None),
        ("sec-websocket-extensions", &[""], None),
        ("sec-websocket-protocol", &["chat"], Some("chat")),
        ("sec-websocket-protocol", &["superchat"], Some("superchat")),
    ];
    for (name, values, subprotocol) in cases {
        let accepted = offering().finish(&with(name, values)).unwrap();
        assert_eq!(accepted.subprotocol(), *subprotocol, "{name}: {values:?}");
        assert_eq!(accepted.opening(), Opening::Upgrade);
    }
}

#[test]
fn a_response_that_is_not_in_order_fails_the_connection() {
    use RefusalReason as Reason;
    let accept = "sec-websocket-accept";
    let (good, lower) = (
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        "s3ppLMBiTxaQ9kYGzzhZRbK+xOo=",
    );
    let deflate = "permessage-deflate";
    let no_chat = |name: &str| Reason::SubprotocolNotOffered(name.into());
    let malformed = Reason::ExtensionsMalformed(extensions::MalformedExtensions::Syntax);
    let cases: &[(&str, &[&str], Reason)] = &[
        ("upgrade", &[], Reason::Upgrade),
        ("upgrade", &["h2c"], Reason::Upgrade),
        ("upgrade", &["websocket, h2c"], Reason::Upgrade),
        ("upgrade", &["websocket", "websocket"], Reason::Upgrade),
        ("connection", &[], Reason::Connection),
        ("connection", &["notupgrade"], Reason::Connection),
        (accept, &[], Reason::AcceptMissing),
        (accept, &[good, good], Reason::AcceptRepeated),
        (accept, &[lower], Reason::AcceptWrong),
        (accept, &[""], Reason::AcceptWrong),
        ("content-length", &["1"], Reason::BodyAnnounced),
        ("transfer-encoding", &["chunked"], Reason::BodyAnnounced),
        (
            "sec-websocket-protocol",
            &["chat", "chat"],
            Reason::SubprotocolRepeated,
        ),
        (
            "sec-websocket-protocol",
            &["chat, superchat"],
            no_chat("chat, superchat"),
        ),
        ("sec-websocket-protocol", &["Chat"], no_chat("Chat")),
        ("sec-websocket-protocol", &[""], no_chat("")),
        (
            "sec-websocket-extensions",
            &[deflate],
            Reason::Extensions(AnswerError::NotOffered(deflate.into())),
        ),
        ("sec-websocket-extensions", &["a;"], malformed),
    ];
    for (name, values, expected) in cases {
        let refusal = offering().finish(&with(name, values)).unwrap_err();
        assert_eq!(refusal.reason(), expected, "{name}: {values:?}");
        assert_eq!(refusal.status(), 101);
    }
    let mut old = with("x", &[]);
    *old.version_mut() = Version::HTTP_10;
    let refusal = offering().finish(&old).unwrap_err();
    assert_eq!(*refusal.reason(), Reason::HttpVersion(Version::HTTP_10));
}

#[test]
fn every_other_status_is_a_refusal() {
    for status in [100, 102, 200, 301, 401, 403, 404, 426, 500, 503] {
        let refusal = offering().finish(&response(status, GOOD)).unwrap_err();
        assert_eq!(*refusal.reason(), RefusalReason::Status);
        assert_eq!(refusal.status(), status);
    }
}

#[test]
fn the_cookies_of_a_refusal_are_kept_and_not_shown() {
    let response = response(403, &[("set-cookie", "session=s3cret")]);
    let refusal = offering().finish(&response).unwrap_err();
    assert_eq!(refusal.headers()["set-cookie"], "session=s3cret");
    assert!(!format!("{refusal:?}").contains("s3cret"));
}

#[test]
fn an_extended_connect_is_accepted_by_2xx_without_an_accept() {
    let finish = |status, headers: &[(&str, &str)]| {
        let mut response = response(status, headers);
        *response.version_mut() = Version::HTTP_2;
        offering()
            .finish(&response)
            .map_err(|refusal| refusal.reason().clone())
    };
    let accepted = finish(200, &[("sec-websocket-protocol", "chat")]).unwrap();
    assert_eq!(accepted.subprotocol(), Some("chat"));
    assert_eq!(accepted.opening(), Opening::ExtendedConnect);
    assert!(finish(204, &[]).is_ok());
    assert_eq!(finish(101, GOOD), Err(RefusalReason::Status));
    assert_eq!(finish(403, &[]), Err(RefusalReason::Status));
    assert_eq!(
        finish(200, &[("content-length", "9")]),
        Err(RefusalReason::BodyAnnounced)
    );
}

#[cfg(feature = "deflate")]
#[test]
fn extensions_are_offered_in_both_requests_and_the_answer_is_checked() {
    use crate::{
        Deflate,
        config::deflate::{Takeover, WindowBits},
    };
    let name = "sec-websocket-extensions";
    let limit = WindowBits::new(10).unwrap();
    let config = Config::new().deflate(Deflate::new().peer_window_bits(limit));
    let offering = offering().negotiate(&config);
    let expected = "permessage-deflate; server_max_window_bits=10; client_max_window_bits";
    for request in [offering.request(), offering.extended_connect_request()] {
        assert_eq!(request.headers()[name], expected);
    }

    let good = "permessage-deflate; server_max_window_bits=9; client_no_context_takeover";
    let accepted = offering.finish(&with(name, &[good])).unwrap();
    let agreed = accepted.extensions().deflate().unwrap();
    assert_eq!(
        agreed.own_takeover(crate::Role::Client),
        Takeover::Forbidden
    );
    assert_eq!(agreed.peer_window_bits(crate::Role::Client).get(), 9);
    assert!(
        offering
            .finish(&with(name, &[]))
            .unwrap()
            .extensions()
            .is_none()
    );

    for bad in [
        "permessage-deflate",
        "permessage-deflate; server_max_window_bits=11",
        "permessage-deflate; server_max_window_bits=10; foo",
        "permessage-deflate; server_max_window_bits=10; client_max_window_bits",
    ] {
        let refusal = offering.finish(&with(name, &[bad])).unwrap_err();
        assert!(matches!(refusal.reason(), RefusalReason::Extensions(_)));
        assert!(refusal.to_string().contains(bad), "{refusal}");
    }
    let twice = ["permessage-deflate; server_max_window_bits=10"; 2];
    let refusal = offering.finish(&with(name, &twice)).unwrap_err();
    let repeated = AnswerError::Repeated(twice[0].into());
    assert_eq!(*refusal.reason(), RefusalReason::Extensions(repeated));

    let config = Config::new().deflate(Deflate::new().required());
    let refusal = offering.negotiate(&config).finish(&with(name, &[]));
    let required = AnswerError::Required("permessage-deflate");
    assert_eq!(
        *refusal.unwrap_err().reason(),
        RefusalReason::Extensions(required)
    );
}

proptest! {
    #[test]
    fn no_uri_panics(scheme in "(ws|wss|http)://", rest in any::<String>(), odd in "[a:@/?#\\[\\]%é]{0,12}") {
        for text in [format!("{scheme}{rest}"), format!("{scheme}{odd}")] {
            if let Ok(uri) = text.parse()
                && let Ok(handshake) = Handshake::with_nonce(&uri, [0; 16])
            {
                let request = handshake.request();
                prop_assert!(request.uri().to_string().starts_with('/'));
                let connect = handshake.extended_connect_request();
                prop_assert_eq!(connect.uri().authority(), Some(&handshake.authority));
                prop_assert!(!handshake.host().is_empty());
            }
        }
    }

    #[test]
    fn no_response_panics(
        lines in prop::collection::vec((0..6_usize, prop::collection::vec(any::<u8>(), 0..32)), 0..6),
        http2: bool,
    ) {
        let names = [
            "upgrade", "connection", "sec-websocket-accept", "sec-websocket-protocol",
            "sec-websocket-extensions", "content-length",
        ];
        let mut response = response(if http2 { 200 } else { 101 }, GOOD);
        if http2 {
            *response.version_mut() = Version::HTTP_2;
        }
        for (name, value) in &lines {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                response.headers_mut().append(names[*name], value);
            }
        }
        if let Err(refusal) = offering().finish(&response) {
            prop_assert_eq!(refusal.to_string().lines().count(), 1);
        }
    }
}
