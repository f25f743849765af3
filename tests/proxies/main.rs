//! The deployment guide, tested: two servers behind nginx, `HAProxy` and Caddy, with exactly the
//! configurations that `ws_hyper::docs::deployment` shows. Only where they listen, the certificate
//! and the length of a silence are others.
//!
//! The proxies must be installed, so the tests are ignored unless they are asked for:
//! `cargo test -p ws-tests --test proxies -- --ignored nginx`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod site;

use std::{future::Future, time::Duration};

use tokio::time::{Instant, timeout_at};
use ws_tests::raw::until;
use ws_tower::Config;

use self::site::{CLIENT, Kind, PATIENCE, Site, UPGRADE, frame};

// The guide's way to the client's address, `forwarded`.
include!("../../ws-hyper/src/docs/deployment/forwarded.rs");

/// More than the proxies bear.
const SILENCE: Duration = Duration::from_secs(8);

/// The same tests through each proxy.
macro_rules! through {
    ($($proxy:ident $kind:ident: $($test:ident)*;)*) => {$(
        mod $proxy {
            $(
                #[test]
                #[ignore = "needs the proxy"]
                fn $test() {
                    crate::run(crate::$test(crate::Kind::$kind));
                }
            )*
        }
    )*};
}

through! {
    nginx Nginx:
        messages_of_every_kind_come_back
        keepalive_outlasts_a_silence_that_the_proxy_does_not_bear
        without_keepalive_the_proxy_cuts_a_silent_socket_and_it_ends_uncleanly
        close_codes_travel_both_ways
        a_server_that_shuts_down_says_1001_and_the_other_takes_over
        sockets_end_uncleanly_and_leave_nothing_when_the_proxy_dies
        a_client_that_vanishes_ends_its_socket_uncleanly
        pages_of_the_site_pass_and_others_are_refused
        the_server_knows_the_client_and_not_what_it_claims
        plain_requests_are_answered
        browsers_are_told_to_use_http1_for_sockets
        without_the_host_line_pages_of_the_site_are_refused;
    haproxy Haproxy:
        messages_of_every_kind_come_back
        keepalive_outlasts_a_silence_that_the_proxy_does_not_bear
        without_keepalive_the_proxy_cuts_a_silent_socket_and_it_ends_uncleanly
        close_codes_travel_both_ways
        a_server_that_shuts_down_says_1001_and_the_other_takes_over
        sockets_end_uncleanly_and_leave_nothing_when_the_proxy_dies
        a_client_that_vanishes_ends_its_socket_uncleanly
        pages_of_the_site_pass_and_others_are_refused
        the_server_knows_the_client_and_not_what_it_claims
        plain_requests_are_answered
        sockets_on_http2_reach_a_server_without_it;
    caddy Caddy:
        messages_of_every_kind_come_back
        keepalive_outlasts_a_silence_that_the_proxy_does_not_bear
        without_keepalive_the_proxy_leaves_a_silent_socket_alone
        close_codes_travel_both_ways
        a_server_that_shuts_down_says_1001_and_the_other_takes_over
        sockets_end_uncleanly_and_leave_nothing_when_the_proxy_dies
        a_client_that_vanishes_ends_its_socket_uncleanly
        pages_of_the_site_pass_and_others_are_refused
        the_server_knows_the_client_and_not_what_it_claims
        plain_requests_are_answered
        browsers_are_told_to_use_http1_for_sockets;
}

/// On a runtime of its own, and for three minutes at most.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let ended =
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(180), test).await });
    ended.expect("three minutes are enough");
}

fn silent() -> Config {
    Config::new().keepalive_interval(None)
}

async fn messages_of_every_kind_come_back(kind: Kind) {
    let site = Site::start(kind, Config::new()).await;
    let mut client = site.open("/echo").await;
    let large = vec![0xa5; 1 << 20];
    let text = "grüße ".repeat(10_000);
    for (first, payload) in [
        (0x81, b"Hello".as_slice()),
        (0x82, &[0, 1, 2, 0xff]),
        (0x81, b""),
        (0x81, text.as_bytes()),
        (0x82, &large),
    ] {
        client.write(frame(first, payload)).await;
        assert!(
            client.frame().await == (first, payload.to_vec()),
            "{first:#x}"
        );
    }
    client.write(frame(0x01, b"in three ")).await;
    client.write(frame(0x00, b"frames")).await;
    client.write(frame(0x80, b".")).await;
    assert_eq!(client.frame().await, (0x81, b"in three frames.".to_vec()));
}

async fn keepalive_outlasts_a_silence_that_the_proxy_does_not_bear(kind: Kind) {
    let config = Config::new().keepalive_interval(PATIENCE / 10);
    let site = Site::impatient(kind, config).await;
    let mut client = site.open("/echo").await;
    let (end, mut pings) = (Instant::now() + SILENCE, 0);
    // The silence is the application's: a browser answers pings, and its pages know nothing of it.
    while Instant::now() < end {
        let (first, payload) = client.frame().await;
        assert_eq!(first, 0x89);
        client.write(frame(0x8a, &payload)).await;
        pings += 1;
    }
    assert!(pings > 4, "{pings} pings");
    client.echoes().await;
    client.close().await;
    assert!(site.closed(1).await[0].is_clean());
}

async fn without_keepalive_the_proxy_cuts_a_silent_socket_and_it_ends_uncleanly(kind: Kind) {
    let site = Site::impatient(kind, silent()).await;
    let mut client = site.open("/echo").await;
    let since = Instant::now();
    client.echoes().await;
    assert_eq!(client.rest().await, b"", "no Close comes from a proxy");
    // The proxy's clock began when the last byte passed it, and it counts in milliseconds.
    let waited = since.elapsed();
    assert!(waited >= PATIENCE * 9 / 10, "{waited:?}");
    let closed = &site.closed(1).await[0];
    assert!(
        !closed.is_clean() && closed.received().is_none(),
        "{closed:?}"
    );
    assert!(closed.cause().is_some(), "{closed:?}");
}

async fn without_keepalive_the_proxy_leaves_a_silent_socket_alone(kind: Kind) {
    let site = Site::start(kind, silent()).await;
    let mut client = site.open("/echo").await;
    let more = timeout_at(Instant::now() + SILENCE, client.frame()).await;
    assert!(more.is_err(), "{more:?}");
    client.echoes().await;
}

async fn close_codes_travel_both_ways(kind: Kind) {
    let site = Site::start(kind, Config::new()).await;
    for (code, reason) in [(1000, ""), (3000, "enough"), (4999, "grüße")] {
        let payload = [&u16::to_be_bytes(code), reason.as_bytes()].concat();
        let mut client = site.open("/echo").await;
        client.write(frame(0x88, &payload)).await;
        assert_eq!(client.frame().await, (0x88, payload[..2].to_vec()));
        assert_eq!(client.rest().await, b"");

        let mut client = site.open("/echo").await;
        let wish = format!("close {code} {reason}");
        client.write(frame(0x81, wish.as_bytes())).await;
        assert_eq!(client.frame().await, (0x88, payload.clone()));
        client.write(frame(0x88, &payload)).await;
        assert_eq!(client.rest().await, b"");
    }
    let mut client = site.open("/echo").await;
    client.write(frame(0x88, b"")).await;
    assert_eq!(client.frame().await, (0x88, Vec::new()));
    drop(client);
    let closed = site.closed(7).await;
    assert!(closed.iter().all(ws_tower::Closed::is_clean), "{closed:?}");
    let with_reason = closed.iter().filter(|closed| {
        let received = closed.received().and_then(ws_core::Close::frame);
        received.is_some_and(|frame| frame.code().as_u16() == 3000 && frame.reason() == "enough")
    });
    assert_eq!(with_reason.count(), 2);
}

async fn a_server_that_shuts_down_says_1001_and_the_other_takes_over(kind: Kind) {
    let mut site = Site::start(kind, Config::new()).await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(site.open("/echo").await);
    }
    // The proxies send each to the server with fewer sockets.
    let [first, second] = [0, 1].map(|number: usize| site.servers[number].tracker.clone());
    let (leaving, staying) = (first.len(), second.len());
    assert!(leaving > 0 && staying > 0, "{leaving} and {staying}");
    let answers = async {
        until(|| first.is_draining()).await;
        let (mut told, mut kept) = (0, Vec::new());
        for mut client in clients {
            client.write(frame(0x81, b"still there?")).await;
            let (first, payload) = client.frame().await;
            if first == 0x88 {
                assert_eq!(payload[..2], 1001_u16.to_be_bytes());
                client.write(frame(0x88, &payload[..2])).await;
                assert_eq!(client.rest().await, b"");
                told += 1;
            } else {
                assert_eq!((first, payload), (0x81, b"still there?".to_vec()));
                kept.push(client);
            }
        }
        (told, kept)
    };
    let (shutdown, (told, kept)) = tokio::join!(site.servers[0].shut_down(), answers);
    assert_eq!((shutdown.closed, shutdown.cut), (leaving, 0));
    assert_eq!((told, kept.len()), (leaving, staying));
    // At once, while the proxy may still believe in the first: nobody is turned away.
    let mut late = Vec::new();
    for _ in 0..6 {
        let mut client = site.open("/echo").await;
        client.echoes().await;
        late.push(client);
    }
    assert_eq!(second.len(), staying + late.len());
}

async fn sockets_end_uncleanly_and_leave_nothing_when_the_proxy_dies(kind: Kind) {
    let mut site = Site::start(kind, silent()).await;
    site.open("/echo").await.close().await;
    site.closed(1).await;
    let before = descriptors();
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = site.open("/echo").await;
        client.echoes().await;
        clients.push(client);
    }
    site.kill_proxy();
    let closed = site.closed(21).await;
    let unclean = closed.iter().filter(|closed| !closed.is_clean());
    assert_eq!(unclean.clone().count(), 20);
    for closed in unclean {
        assert!(
            closed.received().is_none() && closed.cause().is_some(),
            "{closed:?}"
        );
    }
    for mut client in clients {
        assert_eq!(client.rest().await, b"");
    }
    until(|| descriptors() <= before).await;
}

async fn a_client_that_vanishes_ends_its_socket_uncleanly(kind: Kind) {
    let site = Site::start(kind, silent()).await;
    let mut client = site.open("/echo").await;
    client.echoes().await;
    drop(client);
    let closed = &site.closed(1).await[0];
    assert!(
        !closed.is_clean() && closed.received().is_none(),
        "{closed:?}"
    );
}

async fn pages_of_the_site_pass_and_others_are_refused(kind: Kind) {
    let site = Site::start(kind, Config::new()).await;
    site.open("/echo").await.close().await;
    let (head, _) = site.ask("/echo", UPGRADE).await;
    assert!(head.starts_with("http/1.1 101 "), "no browser: {head}");
    for origin in ["https://evil.example", "https://chat.example", "null"] {
        let headers = format!("Origin: {origin}\r\n{UPGRADE}");
        let (head, _) = site.ask("/echo", &headers).await;
        assert!(head.starts_with("http/1.1 403 "), "{origin}: {head}");
    }
}

async fn without_the_host_line_pages_of_the_site_are_refused(kind: Kind) {
    let site = Site::changed(kind, Config::new(), |text| {
        text.replace("proxy_set_header Host $http_host;", "")
    })
    .await;
    let headers = format!("Origin: https://{}\r\n{UPGRADE}", site.host());
    let (head, _) = site.ask("/echo", &headers).await;
    assert!(head.starts_with("http/1.1 403 "), "{head}");
}

async fn the_server_knows_the_client_and_not_what_it_claims(kind: Kind) {
    let site = Site::start(kind, Config::new()).await;
    let claims = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: gopher\r\n";
    for claims in ["", claims] {
        let (head, mut raw) = site.ask("/request", &format!("{claims}{UPGRADE}")).await;
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        let told = format!("Some({CLIENT}) https {}", site.host());
        let (_, payload) = raw.frame().await;
        assert_eq!(String::from_utf8(payload).unwrap(), told);
    }
}

async fn plain_requests_are_answered(kind: Kind) {
    let site = Site::start(kind, Config::new()).await;
    let (head, _) = site.ask("/echo", "").await;
    assert!(head.starts_with("http/1.1 426 "), "{head}");
    let (head, _) = site.ask("/nothing", UPGRADE).await;
    assert!(head.starts_with("http/1.1 404 "), "{head}");
}

async fn browsers_are_told_to_use_http1_for_sockets(kind: Kind) {
    let site = Site::start(kind, Config::new()).await;
    assert!(!site.offers_sockets_on_http2().await);
}

async fn sockets_on_http2_reach_a_server_without_it(kind: Kind) {
    let site = Site::start(kind, Config::new()).await;
    assert!(site.offers_sockets_on_http2().await);
    let mut client = site.open_http2("/echo").await;
    client.echoes().await;
    client.write(frame(0x88, &[3, 0xe8])).await;
    assert_eq!(client.frame().await, (0x88, vec![3, 0xe8]));
    assert!(site.closed(1).await[0].is_clean());
}

/// How many sockets this process has open.
fn descriptors() -> usize {
    let all = std::fs::read_dir("/proc/self/fd").unwrap();
    let names = all.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    names
        .filter(|name| name.to_string_lossy().starts_with("socket:"))
        .count()
}
