//! The server's half, spoken in heads.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Request};
use proptest::prelude::*;

use super::*;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const GOOD: &[(&str, &str)] = &[
    ("host", "server.example.com"),
    ("upgrade", "websocket"),
    ("connection", "Upgrade"),
    ("sec-websocket-key", KEY),
    ("sec-websocket-version", "13"),
];

fn request(headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::get("/chat");
    for (name, value) in headers {
        request = request.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    request.body(()).unwrap().into_parts().0
}

/// The good request with one header replaced by these lines.
fn with(name: &str, values: &[&str]) -> Parts {
    let mut headers = GOOD.to_vec();
    headers.retain(|(other, _)| *other != name);
    headers.extend(values.iter().map(|value| (name, *value)));
    request(&headers)
}

fn connect(headers: &[(&str, &str)]) -> Parts {
    let mut parts = request(headers);
    parts.method = Method::CONNECT;
    parts.version = Version::HTTP_2;
    parts.uri = "https://server.example.com/chat".parse().unwrap();
    parts
}

fn rejection(parts: &Parts) -> Rejection {
    Offer::from_request(parts).unwrap_err()
}

#[test]
fn the_answer_is_that_of_the_rfc() {
    // RFC 6455 §1.3.
    let offer = Offer::from_request(&with("sec-websocket-protocol", &["chat, superchat"]));
    let (response, accepted) = offer.unwrap().accept(Some("chat")).unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!(response.version(), Version::HTTP_11);
    let expected = [
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ("sec-websocket-protocol", "chat"),
    ];
    assert_eq!(response.headers().len(), expected.len());
    for (name, value) in expected {
        assert_eq!(response.headers()[name], value);
    }
    assert_eq!(accepted.subprotocol(), Some("chat"));
    assert_eq!(accepted.opening(), Opening::Upgrade);
    assert!(accepted.extensions().is_none());
}

/// The header lines of a head, as clients write them.
fn head(lines: &str) -> Parts {
    let lines = lines.lines().map(|line| line.trim().split_once(": "));
    request(&lines.map(Option::unwrap).collect::<Vec<_>>())
}

#[test]
fn real_clients_are_understood() {
    let firefox = "Host: 127.0.0.1:8000
        User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0
        Accept: */*
        Sec-WebSocket-Version: 13
        Origin: http://127.0.0.1:8000
        Sec-WebSocket-Extensions: permessage-deflate
        Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==
        Connection: keep-alive, Upgrade
        Sec-Fetch-Mode: websocket
        Upgrade: websocket";
    let chrome = "Host: 127.0.0.1:8000
        Connection: Upgrade
        Pragma: no-cache
        Cache-Control: no-cache
        Upgrade: websocket
        Origin: http://127.0.0.1:8000
        Sec-WebSocket-Version: 13
        Accept-Encoding: gzip, deflate, br, zstd
        Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==
        Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits";
    let safari = "Host: 127.0.0.1:8000
        Origin: http://127.0.0.1:8000
        Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==
        Sec-WebSocket-Version: 13
        Sec-WebSocket-Extensions: permessage-deflate
        Upgrade: websocket
        Connection: Upgrade";
    let internet_explorer = "Origin: http://127.0.0.1:8000
        Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==
        Connection: Upgrade
        Upgrade: Websocket
        Sec-WebSocket-Version: 13
        Host: 127.0.0.1:8000";
    let curl = "Host: 127.0.0.1:8000
        User-Agent: curl/8.9.1
        Accept: */*
        Upgrade: websocket
        Sec-WebSocket-Version: 13
        Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==
        Connection: Upgrade";
    let proxy = "Host: 127.0.0.1:8000
        Connection: close
        Connection: upgrade
        Upgrade: foo, websocket
        Content-Length: 0
        Sec-WebSocket-Version: 13
        Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==";
    for lines in [firefox, chrome, safari, internet_explorer, curl, proxy] {
        let parts = head(lines);
        assert!(is_upgrade(&parts.method, parts.version, &parts.headers));
        let offer = Offer::from_request(&parts).unwrap();
        let deflate = lines.contains("permessage-deflate");
        assert_eq!(offer.extensions().len(), usize::from(deflate));
        let (response, _) = offer.accept(None).unwrap();
        let headers = response.headers();
        assert_eq!(
            headers["sec-websocket-accept"],
            "HSmrc0sMlYUkAGmm5OPpG2HaGWk="
        );
        assert!(!headers.contains_key("sec-websocket-protocol"));
        assert!(!headers.contains_key("sec-websocket-extensions"));
    }
}

#[test]
fn drafts_are_told_the_version() {
    let hixie_75 = "Upgrade: WebSocket
        Connection: Upgrade
        Host: example.com
        Origin: http://example.com
        WebSocket-Protocol: sample";
    let hixie_76 = "Host: example.com
        Connection: Upgrade
        Sec-WebSocket-Key2: 12998 5 Y3 1  .P00
        Sec-WebSocket-Protocol: sample
        Upgrade: WebSocket
        Sec-WebSocket-Key1: 4 @1  46546xW%0l 1 5
        Origin: http://example.com";
    let hybi = "Host: server.example.com
        Upgrade: websocket
        Connection: Upgrade
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==
        Sec-WebSocket-Origin: http://example.com
        Sec-WebSocket-Version: ";
    let (hybi_7, hybi_8) = (format!("{hybi}7"), format!("{hybi}8"));
    for lines in [hixie_75, hixie_76, &hybi_7, &hybi_8] {
        let rejection = rejection(&head(lines));
        assert_eq!(rejection.status(), 426);
        assert_eq!(rejection.headers()["sec-websocket-version"], "13");
    }
}

#[test]
fn what_is_not_an_upgrade_is_left_to_the_inner_service() {
    let good = |change: fn(&mut Parts)| {
        let mut parts = request(GOOD);
        change(&mut parts);
        parts
    };
    let post = good(|parts| parts.method = Method::POST);
    let old = good(|parts| parts.version = Version::HTTP_10);
    let http2 = good(|parts| parts.version = Version::HTTP_2);
    let cases = [
        (post, Rejection::MethodNotAllowed(Method::POST)),
        (old, Rejection::HttpVersion(Version::HTTP_10)),
        (http2, Rejection::HttpVersion(Version::HTTP_2)),
        (with("upgrade", &[]), Rejection::UpgradeMissing),
        (with("upgrade", &["h2c"]), Rejection::UpgradeMissing),
        (with("upgrade", &["websockets"]), Rejection::UpgradeMissing),
        (with("connection", &[]), Rejection::ConnectionMissing),
        (
            with("connection", &["notupgrade"]),
            Rejection::ConnectionMissing,
        ),
        (
            with("connection", &["keep-alive"]),
            Rejection::ConnectionMissing,
        ),
    ];
    for (parts, expected) in cases {
        assert!(!is_upgrade(&parts.method, parts.version, &parts.headers));
        assert_eq!(rejection(&parts), expected);
    }
}

#[test]
fn a_request_that_is_not_in_order_is_refused() {
    type Case<'a> = (&'a str, &'a [&'a str], Rejection);
    let quoted = |text: &str| text.to_owned();
    let version = |version: Option<&str>| Rejection::VersionUnsupported {
        version: version.map(quoted),
        opening: Opening::Upgrade,
    };
    let short = "SGVsbG8sIHdvcmxkIQ==";
    let long = "AAAAAAAAAAAAAAAAAAAAAAAA";
    let url_safe = "______________________==";
    let cases: &[Case<'_>] = &[
        ("host", &[], Rejection::HostMissing),
        ("host", &["a", "a"], Rejection::HostRepeated),
        ("host", &[""], Rejection::HostInvalid(quoted(""))),
        ("host", &["a, b"], Rejection::HostInvalid(quoted("a, b"))),
        ("host", &["a@b"], Rejection::HostInvalid(quoted("a@b"))),
        ("host", &["a:b"], Rejection::HostInvalid(quoted("a:b"))),
        ("host", &["é"], Rejection::HostInvalid(quoted(r"\xc3\xa9"))),
        ("content-length", &["1"], Rejection::BodyNotAllowed),
        ("transfer-encoding", &["chunked"], Rejection::BodyNotAllowed),
        ("sec-websocket-version", &[], version(None)),
        ("sec-websocket-version", &["8"], version(Some("8"))),
        ("sec-websocket-version", &["013"], version(Some("013"))),
        ("sec-websocket-version", &["13, 8"], version(Some("13, 8"))),
        (
            "sec-websocket-version",
            &["13", "13"],
            Rejection::VersionRepeated,
        ),
        (
            "sec-websocket-version",
            &["13", "8"],
            Rejection::VersionRepeated,
        ),
        ("sec-websocket-key", &[], Rejection::KeyMissing),
        ("sec-websocket-key", &[KEY, KEY], Rejection::KeyRepeated),
        (
            "sec-websocket-key",
            &[""],
            Rejection::KeyInvalid(quoted("")),
        ),
        (
            "sec-websocket-key",
            &[short],
            Rejection::KeyInvalid(quoted(short)),
        ),
        (
            "sec-websocket-key",
            &[long],
            Rejection::KeyInvalid(quoted(long)),
        ),
        (
            "sec-websocket-key",
            &[url_safe],
            Rejection::KeyInvalid(quoted(url_safe)),
        ),
        (
            "sec-websocket-protocol",
            &["a b"],
            Rejection::SubprotocolInvalid(quoted("a b")),
        ),
        (
            "sec-websocket-protocol",
            &["a", "b/c"],
            Rejection::SubprotocolInvalid(quoted("b/c")),
        ),
    ];
    for (name, values, expected) in cases {
        let parts = with(name, values);
        assert!(is_upgrade(&parts.method, parts.version, &parts.headers));
        assert_eq!(rejection(&parts), *expected, "{name}: {values:?}");
    }
}

#[test]
fn unusual_but_good_requests_pass() {
    let cases: &[(&str, &[&str])] = &[
        ("host", &["[::1]:8000"]),
        ("host", &["a:"]),
        ("content-length", &["0"]),
        ("sec-websocket-key", &["AAAAAAAAAAAAAAAAAAAAAB=="]),
        ("sec-websocket-protocol", &[""]),
        ("sec-websocket-extensions", &["permessage-deflate;"]),
        ("sec-websocket-extensions", &["\u{ff}"]),
    ];
    for (name, values) in cases {
        let offer = Offer::from_request(&with(name, values)).unwrap();
        assert_eq!(offer.subprotocols().count(), 0);
        assert!(offer.extensions().is_empty());
    }
}

#[test]
fn the_subprotocol_is_exact_and_by_the_servers_preference() {
    let parts = with(
        "sec-websocket-protocol",
        &["xwampy, chat.v1", "chat.v2,", "chat.v2"],
    );
    let offer = Offer::from_request(&parts).unwrap();
    assert!(
        offer
            .subprotocols()
            .eq(["xwampy", "chat.v1", "chat.v2", "chat.v2"])
    );
    let cases: &[(&[&str], Option<&str>)] = &[
        (&["chat.v2", "chat.v1"], Some("chat.v2")),
        (&["chat.v3", "chat.v1"], Some("chat.v1")),
        (&["wamp"], None),
        (&["Chat.v1"], None),
        (&["chat.v1,chat.v2"], None),
        (&[""], None),
        (&[], None),
    ];
    for (preferences, expected) in cases {
        assert_eq!(offer.select_subprotocol(preferences), *expected);
        assert_eq!(offer.require_subprotocol(preferences).ok(), *expected);
    }
    let Err(Rejection::SubprotocolRequired { offered, supported }) =
        offer.require_subprotocol(&["wamp", "stomp"])
    else {
        panic!("none of them is offered");
    };
    assert_eq!(offered, "xwampy,chat.v1,chat.v2,chat.v2");
    assert_eq!(supported, "wamp, stomp");
}

#[test]
fn a_subprotocol_outside_the_offer_cannot_be_accepted() {
    let offer = Offer::from_request(&with("sec-websocket-protocol", &["a,b"])).unwrap();
    for name in ["c", "", "a,b", "A", "a\r\nset-cookie: x"] {
        let error = offer.accept(Some(name)).unwrap_err();
        assert_eq!(error.subprotocol(), name);
        assert!(error.to_string().contains(&name.escape_debug().to_string()));
    }
}

#[test]
fn an_offer_is_small_and_keeps_no_part_of_the_request() {
    let buffer = Bytes::from(b"chat, superchat".to_vec());
    let mut parts = request(GOOD);
    let value = HeaderValue::from_maybe_shared(buffer.clone()).unwrap();
    parts.headers.insert(SEC_WEBSOCKET_PROTOCOL, value);
    assert!(!buffer.is_unique());

    let offer = Offer::from_request(&parts).unwrap();
    let (response, accepted) = offer.accept(Some("chat")).unwrap();
    drop(parts);
    assert!(buffer.is_unique());
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    assert_eq!(accepted.subprotocol(), Some("chat"));
    assert!(size_of::<Offer>() <= 72);
}

#[test]
fn an_extended_connect_is_answered_200_without_a_key() {
    let parts = connect(&[
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat"),
        ("origin", "https://server.example.com"),
    ]);
    let offer = Offer::from_extended_connect(&parts).unwrap();
    let (response, accepted) = offer.accept(Some("chat")).unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers().len(), 1);
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    assert_eq!(accepted.opening(), Opening::ExtendedConnect);
    assert_eq!(accepted.subprotocol(), Some("chat"));
}

#[test]
fn an_extended_connect_that_is_not_in_order_is_refused() {
    let status = |parts: &Parts| match Offer::from_extended_connect(parts) {
        Ok(_) => None,
        Err(rejection) => Some(rejection.status()),
    };
    let good = || connect(&[("sec-websocket-version", "13")]);
    let change = |change: fn(&mut Parts)| {
        let mut parts = good();
        change(&mut parts);
        status(&parts)
    };
    let header = |name: &'static str, value: &'static str| {
        let mut parts = good();
        parts.headers.append(name, HeaderValue::from_static(value));
        status(&parts)
    };
    let refused = Some(StatusCode::BAD_REQUEST);
    assert_eq!(change(|_| ()), None);
    assert_eq!(change(|parts| parts.method = Method::GET), refused);
    assert_eq!(change(|parts| parts.version = Version::HTTP_11), refused);
    assert_eq!(
        change(|parts| parts.uri = "/chat".parse().unwrap()),
        refused
    );
    assert_eq!(change(|parts| parts.uri = "a:80".parse().unwrap()), refused);
    assert_eq!(
        change(|parts| parts.uri = "ws://a/".parse().unwrap()),
        refused
    );
    assert_eq!(
        change(|parts| parts.uri = "https://u@a/".parse().unwrap()),
        refused
    );
    assert_eq!(header("host", "server.example.com"), None);
    assert_eq!(header("content-length", "0"), None);
    assert_eq!(header("content-length", "5"), refused);
    assert_eq!(header("sec-websocket-version", "13"), refused);

    // There is no 426 in HTTP/2, but the version is told all the same.
    let rejection = Offer::from_extended_connect(&connect(&[])).unwrap_err();
    assert_eq!(rejection.status(), 400);
    assert_eq!(rejection.headers()["sec-websocket-version"], "13");
    assert_eq!(rejection.headers().len(), 1);
}

#[test]
fn a_hostile_list_costs_time_in_proportion_to_its_size() {
    let list = "a,".repeat(1 << 19);
    let start = Instant::now();
    let offer = Offer::from_request(&with("sec-websocket-protocol", &[&list])).unwrap();
    assert_eq!(offer.select_subprotocol(&["b", "c", "d"]), None);
    assert!(offer.accept(Some("b")).is_err());
    assert!(offer.subprotocols.len() < list.len());
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[cfg(feature = "deflate")]
#[test]
fn extensions_are_agreed_on_over_both_openings_or_not_at_all() {
    let config = Config::new().deflate(crate::Deflate::new());
    let name = "sec-websocket-extensions";
    let version = ("sec-websocket-version", "13");
    let cases = [
        (
            "mux, permessage-deflate; client_max_window_bits",
            Some("permessage-deflate; client_no_context_takeover"),
        ),
        ("permessage-deflate; server_max_window_bits=8", None),
        ("permessage-deflate;", None),
        ("mux", None),
        ("", None),
    ];
    for (offered, expected) in cases {
        let offers = [
            Offer::from_request(&with(name, &[offered])),
            Offer::from_extended_connect(&connect(&[version, (name, offered)])),
        ];
        for offer in offers {
            let offer = offer.unwrap().negotiate(&config).unwrap();
            let (response, accepted) = offer.accept(None).unwrap();
            let answer = response.headers().get(name);
            assert_eq!(answer.map(|value| value.to_str().unwrap()), expected);
            assert_eq!(accepted.extensions().is_none(), expected.is_none());

            let offer = offer.negotiate(&Config::new().deflate(None)).unwrap();
            let (response, accepted) = offer.accept(None).unwrap();
            assert!(!response.headers().contains_key(name));
            assert!(accepted.extensions().is_none());
        }
    }
}

#[cfg(feature = "deflate")]
#[test]
fn a_client_without_a_required_extension_is_told_its_name() {
    let config = Config::new().deflate(crate::Deflate::new().required());
    let bad = "permessage-deflate; server_max_window_bits=8";
    for (offered, told) in [
        ("", ""),
        ("permessage-deflate;", ""),
        ("mux", "mux"),
        (bad, bad),
    ] {
        let offer = Offer::from_request(&with("sec-websocket-extensions", &[offered]));
        let rejection = offer.unwrap().negotiate(&config).unwrap_err();
        assert_eq!(rejection.status(), 400);
        let text = rejection.to_string();
        assert!(text.contains("the extension permessage-deflate"), "{text}");
        assert!(text.ends_with(if told.is_empty() { "none" } else { told }));
        let expected = Rejection::ExtensionRequired {
            offered: told.to_owned(),
            required: "permessage-deflate",
        };
        assert_eq!(rejection, expected);
    }
}

proptest! {
    #[test]
    fn no_request_panics(
        lines in prop::collection::vec((0..9_usize, prop::collection::vec(any::<u8>(), 0..32)), 0..8)
    ) {
        let names = [
            "host", "upgrade", "connection", "sec-websocket-key", "sec-websocket-version",
            "sec-websocket-protocol", "sec-websocket-extensions", "content-length", "origin",
        ];
        let (mut http1, mut http2) = (request(GOOD), connect(&GOOD[4..]));
        for (name, value) in &lines {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                for parts in [&mut http1, &mut http2] {
                    if name % 2 == 0 {
                        parts.headers.append(names[*name], value.clone());
                    } else {
                        parts.headers.insert(names[*name], value.clone());
                    }
                }
            }
        }
        for read in [Offer::from_request(&http1), Offer::from_extended_connect(&http2)] {
            match read {
                Ok(offer) => prop_assert!(offer.accept(offer.subprotocols().next()).is_ok()),
                Err(rejection) => prop_assert!(rejection.to_response().status().is_client_error()),
            }
        }
    }
}
