//! How the client gets to its server: names and address families, proxies, Unix sockets,
//! redirects.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/transport.rs"]
mod transport;

use std::{
    io,
    net::{Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use self::transport::to_silence;
use hyper_util::{
    client::legacy::connect::{HttpConnector, dns::Name},
    rt::TokioIo,
};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};
use tower::service_fn;
use ws_hyper::{
    Connector,
    client::{ConnectError, Proxy, ProxyErrorKind, RedirectErrorKind, Step},
};
use ws_tests::{
    proxy::Proxy as ProxyServer,
    raw::{PATIENCE, within},
    scripted::{Visit, server, visited},
};
use ws_tower::{Config, WebSocket};

/// A server that says who is there and what was requested, and keeps the requests.
async fn host() -> (SocketAddr, Requests) {
    let requests = Requests::default();
    let log = requests.clone();
    let address = server(move |visit| greet(visit, log.clone())).await;
    (address, requests)
}

#[derive(Clone, Default)]
struct Requests(Arc<Mutex<Vec<String>>>);

impl Requests {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

async fn greet<Io>(mut visit: Visit<Io>, log: Requests)
where
    Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    log.0.lock().unwrap().push(visit.head.clone());
    visit.open(b"\x81\x05Hello").await;
    visit.rest().await;
}

async fn greeted(connector: &Connector, address: impl Into<String>) -> WebSocket {
    let (mut socket, _) = within(connector.connect(address.into())).await.unwrap();
    let message = within(socket.recv()).await.unwrap().unwrap();
    assert_eq!(message, "Hello".into());
    socket
}

async fn error(connector: &Connector, address: impl Into<String>) -> ConnectError {
    let connected = within(connector.connect(address.into())).await;
    connected.map(|_| ()).unwrap_err()
}

/// hyper-util's own connector, with a resolver that knows these addresses for every name.
fn resolving(addresses: Vec<SocketAddr>) -> Connector {
    let resolver = service_fn(move |_: Name| {
        let addresses = addresses.clone();
        async move { io::Result::Ok(addresses.into_iter()) }
    });
    Connector::new().transport(HttpConnector::new_with_resolver(resolver))
}

#[tokio::test]
async fn the_second_family_is_tried_when_the_first_refuses() {
    let (address, _) = host().await;
    let refusing = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    let connector = resolving(vec![refusing, address]);
    let socket = greeted(&connector, format!("ws://a.example:{}/", address.port())).await;
    assert_eq!(socket.peer(), Some(address));
}

#[tokio::test]
async fn a_family_that_swallows_everything_is_overtaken() {
    let (address, _) = host().await;
    // RFC 6666: 100::/64 is for discarding. Where the system has no route to it, it refuses.
    let black_hole = SocketAddr::from((Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1), 0));
    // One after the other would take longer than the test waits.
    let config = Config::new().handshake_timeout(4 * PATIENCE);
    let connector = resolving(vec![black_hole, address]).config(config);
    let socket = greeted(&connector, format!("ws://a.example:{}/", address.port())).await;
    assert_eq!(socket.peer(), Some(address));
}

/// The same where no route leads nowhere: a listener whose backlog is full takes the first family's
/// connection attempt and never answers it.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_host_that_never_accepts_is_overtaken_by_its_other_family() {
    let Ok(listener) = tokio::net::TcpSocket::new_v6().and_then(|socket| {
        socket.bind((Ipv6Addr::LOCALHOST, 0).into())?;
        socket.listen(1)
    }) else {
        return; // A machine without IPv6.
    };
    let full = listener.local_addr().unwrap();
    let mut fillers = Vec::new();
    for _ in 0..8 {
        let filler = tokio::spawn(async move { TcpStream::connect(full).await });
        fillers.push(filler);
    }
    sleep(Duration::from_millis(100)).await;
    let log = Requests::default();
    let clone = log.clone();
    let v4 = tokio::net::TcpListener::bind(("127.0.0.1", full.port())).await;
    let Ok(v4) = v4 else {
        return; // Somebody else has that port.
    };
    tokio::spawn(async move {
        while let Ok((io, _)) = v4.accept().await {
            let visit = Visit::of(io).await.unwrap();
            tokio::spawn(greet(visit, clone.clone()));
        }
    });
    let v4 = SocketAddr::from(([127, 0, 0, 1], full.port()));
    let config = Config::new().handshake_timeout(4 * PATIENCE);
    let connector = resolving(vec![full, v4]).config(config);
    let start = Instant::now();
    let socket = greeted(&connector, format!("ws://a.example:{}/", full.port())).await;
    assert_eq!(socket.peer(), Some(v4));
    let taken = start.elapsed();
    assert!(
        taken >= Duration::from_millis(200),
        "the first had its start: {taken:?}"
    );
    fillers.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_name_nobody_knows_is_an_error_with_its_cause() {
    let resolver = service_fn(|_: Name| async {
        Err::<std::vec::IntoIter<SocketAddr>, _>(io::Error::other("no such name"))
    });
    let connector = Connector::new().transport(HttpConnector::new_with_resolver(resolver));
    let error = error(&connector, "ws://a.example/").await;
    assert!(matches!(&error, ConnectError::Connect { to, .. } if to == "a.example:80"));
    let mut causes = Vec::new();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    assert!(
        causes.iter().any(|it| it.contains("no such name")),
        "{causes:?}"
    );
}

#[tokio::test]
async fn an_ipv6_address_is_shown_in_brackets() {
    let error = error(&Connector::new(), "ws://[::1]:1/").await;
    assert!(matches!(&error, ConnectError::Connect { to, .. } if to == "[::1]:1"));
}

#[tokio::test]
async fn a_host_that_is_not_there_is_given_up_at_the_deadline() {
    let never = service_fn(|_: http::Uri| async {
        std::future::pending::<()>().await;
        io::Result::Ok(TokioIo::new(tokio::io::empty()))
    });
    let connector = Connector::new()
        .transport(never)
        .config(Config::new().handshake_timeout(Duration::from_millis(100)));
    match error(&connector, "ws://a.example/").await {
        ConnectError::Timeout { during, .. } => assert_eq!(during, Step::Connecting),
        error => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn any_service_makes_the_stream() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    let service = service_fn(move |uri: http::Uri| {
        log.lock().unwrap().push(uri.to_string());
        let (near, far) = tokio::io::duplex(64);
        tokio::spawn(async move {
            greet(Visit::of(far).await.unwrap(), Requests::default()).await;
        });
        async { io::Result::Ok(TokioIo::new(near)) }
    });
    let connector = Connector::new().transport(service);
    greeted(&connector, "ws://a.example/x?y").await;
    greeted(&connector, "ws://[::1]:7/x").await;
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked, ["http://a.example:80/", "http://[::1]:7/"]);
}

#[tokio::test]
async fn nagle_is_off() {
    // A service of the caller's that leaves it on.
    let (address, _) = host().await;
    let sockets = Arc::new(Mutex::new(None));
    let kept = sockets.clone();
    let service = service_fn(move |_: http::Uri| {
        let kept = kept.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(false)?;
            // A second descriptor of the same socket, to look at it from outside.
            let same = stream.into_std()?;
            *kept.lock().unwrap() = Some(same.try_clone()?);
            io::Result::Ok(TokioIo::new(TcpStream::from_std(same)?))
        }
    });
    let connector = Connector::new().transport(service);
    let _socket = greeted(&connector, format!("ws://{address}/")).await;
    assert!(sockets.lock().unwrap().as_ref().unwrap().nodelay().unwrap());
}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket_is_an_address() {
    let folder = std::env::temp_dir().join(format!("ws-tests-{}", std::process::id()));
    // One that was killed left it behind, and had the same number.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("a b.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let log = Requests::default();
    let clone = log.clone();
    tokio::spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            let mut visit = Visit::of(io).await.unwrap();
            if visit.path() == "/old" {
                visit.write("HTTP/1.1 301 x\r\nLocation: new\r\n\r\n").await;
            } else {
                tokio::spawn(greet(visit, clone.clone()));
            }
        }
    });
    let path = path.to_str().unwrap().replace(' ', "%20");
    // No proxy is for a Unix socket.
    let proxy = Proxy::new("http://127.0.0.1:1").unwrap();
    let connector = Connector::new().proxy(proxy).max_redirects(1);
    let socket = greeted(&connector, format!("ws+unix://{path}:/chat?room=7")).await;
    assert_eq!(socket.peer(), None);
    let head = log.take().pop().unwrap();
    assert!(head.starts_with("GET /chat?room=7 HTTP/1.1\r\n"), "{head}");
    assert!(
        head.to_ascii_lowercase()
            .contains("\r\nhost: localhost\r\n"),
        "{head}"
    );
    greeted(&connector, format!("ws+unix:{path}")).await;
    assert!(log.take()[0].starts_with("GET / HTTP/1.1\r\n"));
    // A redirect stays in the socket.
    greeted(&connector, format!("ws+unix:{path}:/old")).await;
    assert!(log.take()[0].starts_with("GET /new HTTP/1.1\r\n"));

    let error = error(&connector, format!("ws+unix:{path}.none")).await;
    assert!(matches!(error, ConnectError::Connect { .. }), "{error:?}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn an_http_proxy_is_asked_to_connect() {
    let (address, requests) = host().await;
    let server = ProxyServer::http(None).await;
    let proxy = Proxy::new(format!("http://{}", server.address)).unwrap();
    let connector = Connector::new().proxy(proxy);
    let port = address.port();
    // The proxy resolves the name.
    greeted(&connector, format!("ws://a.example:{port}/chat")).await;
    assert_eq!(server.asked(), [format!("a.example:{port}")]);
    let head = requests.take().pop().unwrap();
    assert!(head.starts_with("GET /chat HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("a.example:{port}")));
    greeted(&connector, format!("ws://[::1]:{port}/chat")).await;
    assert_eq!(server.asked(), [format!("[::1]:{port}")]);
}

#[tokio::test]
async fn an_http_proxy_gets_its_password_and_the_server_does_not() {
    let (address, requests) = host().await;
    let server = ProxyServer::http(Some("Basic bmFtZTpzZWNyZXQ=")).await;
    let proxy = Proxy::new(format!("http://name:secret@{}", server.address)).unwrap();
    greeted(&Connector::new().proxy(proxy), format!("ws://{address}/")).await;
    let head = requests.take().pop().unwrap().to_ascii_lowercase();
    assert!(
        !head.contains("authorization") && !head.contains("bmftztpzzwnyzxq"),
        "{head}"
    );

    for wrong in ["", "name:wrong@"] {
        let proxy = Proxy::new(format!("http://{wrong}{}", server.address)).unwrap();
        let error = error(&Connector::new().proxy(proxy), format!("ws://{address}/")).await;
        match &error {
            ConnectError::Proxy(error) => {
                assert_eq!(error.proxy(), server.address.to_string());
                assert_eq!(error.status().unwrap(), 407);
            }
            error => panic!("{error:?}"),
        }
        assert!(error.to_string().contains("credentials"), "{error}");
    }
}

#[tokio::test]
async fn a_socks_proxy_leads_to_the_server() {
    let (address, _) = host().await;
    let port = address.port();
    for scheme in ["socks5", "socks5h"] {
        let server = ProxyServer::socks(None).await;
        let proxy = Proxy::new(format!("{scheme}://{}", server.address)).unwrap();
        let connector = Connector::new().proxy(proxy);
        greeted(&connector, format!("ws://a.example:{port}/")).await;
        assert_eq!(server.asked(), [format!("a.example:{port}")]);
        greeted(&connector, format!("ws://127.0.0.1:{port}/")).await;
        assert_eq!(server.asked(), [format!("127.0.0.1:{port}")]);
    }
    let server = ProxyServer::socks(Some("na me:se:cret")).await;
    let proxy = Proxy::new(format!("socks5://na%20me:se%3Acret@{}", server.address)).unwrap();
    greeted(&Connector::new().proxy(proxy), format!("ws://{address}/")).await;
    for wrong in ["", "name:wrong@"] {
        let proxy = Proxy::new(format!("socks5://{wrong}{}", server.address)).unwrap();
        let error = error(&Connector::new().proxy(proxy), format!("ws://{address}/")).await;
        assert!(matches!(error, ConnectError::Proxy { .. }), "{error:?}");
    }
    // A server that is down, behind a proxy that is not.
    let server = ProxyServer::socks(None).await;
    let proxy = Proxy::new(format!("socks5://{}", server.address)).unwrap();
    let error = error(&Connector::new().proxy(proxy), "ws://127.0.0.1:1/").await;
    assert!(matches!(error, ConnectError::Proxy { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_proxy_is_given_up_at_the_deadline() {
    for scheme in ["http", "socks5"] {
        let proxy = Proxy::new(format!("{scheme}://proxy.example:1080")).unwrap();
        match error(&to_silence().proxy(proxy), "ws://a.example/").await {
            ConnectError::Timeout { during, .. } => assert_eq!(during, Step::Proxy),
            error => panic!("{error:?}"),
        }
    }
}

#[tokio::test]
async fn a_proxy_that_is_down_or_talks_nonsense_is_named() {
    let proxy = Proxy::new("http://127.0.0.1:1").unwrap();
    match error(&Connector::new().proxy(proxy), "ws://a.example/").await {
        ConnectError::Proxy(error) => {
            assert_eq!(error.proxy(), "127.0.0.1:1");
            assert_eq!(error.kind(), ProxyErrorKind::Unreachable);
            assert!(error.to_string().contains("the proxy 127.0.0.1:1"));
        }
        error => panic!("{error:?}"),
    }
    for scheme in ["http", "socks5"] {
        let strange = visited(|mut io| async move {
            use tokio::io::AsyncWriteExt;
            while io.write_all(b"\x00\xff banana ").await.is_ok() {}
        })
        .await;
        let proxy = Proxy::new(format!("{scheme}://{strange}")).unwrap();
        let error = error(&Connector::new().proxy(proxy), "ws://a.example/").await;
        assert!(matches!(error, ConnectError::Proxy { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_is_told_with_its_status_and_its_words() {
    let cases = [
        (
            "HTTP/1.1 403 x\r\nContent-Length: 12\r\n\r\nnot \x1byou\r\n\r\n",
            403,
            "with 403 Forbidden: not \\u{1b}you",
        ),
        (
            "HTTP/1.1 502 x\r\nConnection: close\r\n\r\n",
            502,
            "with 502 Bad Gateway: does it",
        ),
        (
            "HTTP/1.1 302 x\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
            302,
            "with 302 Found",
        ),
    ];
    for (answer, status, words) in cases {
        let server = server(move |mut visit| async move { visit.write(answer).await }).await;
        let proxy = Proxy::new(format!("http://{server}")).unwrap();
        let error = error(&Connector::new().proxy(proxy), "wss://a.example/").await;
        let shown = error.to_string();
        assert!(!error.is_final());
        match error {
            ConnectError::Proxy(error) => assert_eq!(error.status().unwrap(), status),
            error => panic!("{error:?}"),
        }
        assert!(
            shown.contains(words) && shown.contains(&server.to_string()),
            "{shown}"
        );
    }
}

/// RFC 9110 §9.3.6: "Any 2xx (Successful) response indicates" a tunnel.
#[tokio::test]
async fn every_2xx_of_a_proxy_is_a_tunnel() {
    let (address, _) = host().await;
    let proxy = server(move |mut visit| async move {
        let mut there = TcpStream::connect(address).await.unwrap();
        visit
            .write("HTTP/1.1 201 x\r\nContent-Length: 7\r\n\r\n")
            .await;
        let _ = tokio::io::copy_bidirectional(&mut visit.io, &mut there).await;
    })
    .await;
    let proxy = Proxy::new(format!("http://{proxy}")).unwrap();
    greeted(&Connector::new().proxy(proxy), "ws://a.example/").await;
}

#[tokio::test]
async fn exceptions_go_past_the_proxy() {
    let (address, _) = host().await;
    let server = ProxyServer::http(None).await;
    let proxy = Proxy::new(format!("http://{}", server.address)).unwrap();
    let connector = Connector::new().proxy(proxy.clone().except("localhost, 127.0.0.0/8"));
    greeted(&connector, format!("ws://{address}/")).await;
    assert!(server.asked().is_empty());
    let connector = Connector::new().proxy(proxy.except("other.example"));
    greeted(&connector, format!("ws://{address}/")).await;
    assert_eq!(server.asked(), [address.to_string()]);
}

/// The environment belongs to the process: this test runs itself in one of its own.
#[test]
fn the_environment_says_which_proxy_and_which_hosts_go_without() {
    const MARK: &str = "WS_TESTS_ENVIRONMENT";
    if std::env::var_os(MARK).is_none() {
        let name = "the_environment_says_which_proxy_and_which_hosts_go_without";
        for [name_of_proxy, no_proxy, expected] in [
            ["HTTP_PROXY", "", "proxied"],
            ["http_proxy", "", "proxied"],
            ["ALL_PROXY", "", "proxied"],
            ["HTTPS_PROXY", "", "direct"],
            ["HTTP_PROXY", "127.0.0.1", "direct"],
            ["HTTP_PROXY", "localhost,127.0.0.0/8", "direct"],
            ["HTTP_PROXY", "*", "direct"],
            ["HTTP_PROXY", "a.example", "proxied"],
        ] {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let server = runtime.block_on(ProxyServer::http(None));
            let status = server.run_test(name, name_of_proxy, no_proxy, (MARK, expected));
            assert!(status.success(), "{name_of_proxy} {no_proxy}");
            let is_proxied = !server.asked().is_empty();
            assert_eq!(
                is_proxied,
                expected == "proxied",
                "{name_of_proxy} {no_proxy}"
            );
        }
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (address, _) = host().await;
        let connector = Connector::new().proxy(Proxy::from_env());
        greeted(&connector, format!("ws://{address}/")).await;
        // Nobody else looks at the environment.
        greeted(&Connector::new(), format!("ws://{address}/")).await;
    });
}

/// A server that redirects.
async fn redirecting(status: u16, to: String) -> (SocketAddr, Requests) {
    let requests = Requests::default();
    let log = requests.clone();
    let address = server(move |mut visit| {
        let head = format!("HTTP/1.1 {status} x\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
        log.0.lock().unwrap().push(visit.head.clone());
        async move { visit.write(head).await }
    })
    .await;
    (address, requests)
}

fn with_credentials() -> Connector {
    Connector::new()
        .max_redirects(3)
        .bearer_auth("3vJx")
        .cookie("a", "1")
        .header("proxy-authorization", "Basic x")
        .header("x-room", "7")
}

fn has_credentials(head: &str) -> bool {
    let head = head.to_ascii_lowercase();
    let names = [
        "\r\nauthorization:",
        "\r\ncookie:",
        "\r\nproxy-authorization:",
    ];
    let found = names.iter().filter(|name| head.contains(**name)).count();
    assert!(found == 0 || found == names.len(), "all or none: {head}");
    found > 0
}

#[tokio::test]
async fn credentials_are_not_sent_to_where_a_redirect_leads() {
    for status in [301, 302, 303, 307, 308] {
        let (last, seen_last) = host().await;
        let to = format!("http://{last}/there?x=1");
        let (first, seen_first) = redirecting(status, to).await;
        greeted(&with_credentials(), format!("ws://{first}/")).await;
        assert!(has_credentials(&seen_first.take()[0]));
        let head = seen_last.take().pop().unwrap();
        assert!(head.starts_with("GET /there?x=1 HTTP/1.1\r\n"), "{head}");
        assert!(!has_credentials(&head), "{head}");
        assert!(head.contains("x-room: 7"), "{head}");
    }
    // Nor what the address had, nor what the redirect would have sent.
    let (last, seen_last) = host().await;
    let (first, _) = redirecting(302, format!("ws://evil:word@{last}/")).await;
    let connector = Connector::new().max_redirects(1);
    greeted(&connector, format!("ws://name:secret@{first}/")).await;
    let head = seen_last.take().pop().unwrap().to_ascii_lowercase();
    assert!(!head.contains("authorization"), "{head}");
}

#[tokio::test]
async fn credentials_stay_with_the_same_origin_and_do_not_come_back() {
    let counter = Arc::new(AtomicUsize::new(0));
    let requests = Requests::default();
    let (log, count) = (requests.clone(), counter.clone());
    let address = server(move |mut visit| {
        let (log, count) = (log.clone(), count.clone());
        async move {
            if count.fetch_add(1, Ordering::SeqCst) == 0 {
                log.0.lock().unwrap().push(visit.head.clone());
                visit
                    .write("HTTP/1.1 302 x\r\nLocation: ../b\r\n\r\n")
                    .await;
                return;
            }
            greet(visit, log).await;
        }
    })
    .await;
    greeted(&with_credentials(), format!("ws://{address}/a/")).await;
    let heads = requests.take();
    assert!(heads.iter().all(|head| has_credentials(head)), "{heads:?}");
    assert!(heads[1].starts_with("GET /b HTTP/1.1\r\n"));

    // There and back again.
    let requests = Requests::default();
    let (log, back) = (requests.clone(), Arc::new(Mutex::new(String::new())));
    let elsewhere = back.clone();
    let home = server(move |mut visit| {
        let (log, to) = (log.clone(), elsewhere.lock().unwrap().clone());
        async move {
            if visit.path() == "/" {
                visit
                    .write(format!("HTTP/1.1 302 x\r\nLocation: {to}\r\n\r\n"))
                    .await;
                return;
            }
            greet(visit, log).await;
        }
    })
    .await;
    let (away, _) = redirecting(302, format!("ws://{home}/back")).await;
    *back.lock().unwrap() = format!("ws://{away}/");
    greeted(&with_credentials(), format!("ws://{home}/")).await;
    assert!(!has_credentials(&requests.take()[0]));
}

#[tokio::test]
async fn as_many_redirects_are_followed_as_are_allowed() {
    let (last, _) = host().await;
    let (second, _) = redirecting(302, format!("//{last}/")).await;
    let (first, _) = redirecting(302, format!("//{second}/")).await;
    greeted(&Connector::new().max_redirects(2), format!("ws://{first}/")).await;
    match error(&Connector::new().max_redirects(1), format!("ws://{first}/")).await {
        ConnectError::Redirect(error) => {
            assert_eq!(*error.kind(), RedirectErrorKind::TooMany(1));
        }
        error => panic!("{error:?}"),
    }
}
