//! The client over TLS.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/transport.rs"]
mod transport;

use std::{net::SocketAddr, sync::Arc};

use self::transport::to_silence;
use rcgen::CertifiedKey;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
    server::TlsStream,
};
use ws_hyper::{
    Connector,
    client::{ConnectError, Proxy, RedirectErrorKind, Step, Tls, TlsErrorKind},
};
use ws_tests::{
    proxy::{self, Proxy as ProxyServer},
    raw::within,
    scripted::{Visit, server, visited},
};
use ws_tower::{Error, WebSocket, WebSocketLayer};

/// A certificate for these names, signed by itself.
struct Identity {
    certificate: CertifiedKey<rcgen::KeyPair>,
}

impl Identity {
    fn of(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        Self {
            certificate: rcgen::generate_simple_self_signed(names).unwrap(),
        }
    }

    fn acceptor(&self, alpn: &[&str]) -> TlsAcceptor {
        let key = self.certificate.signing_key.serialize_der();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
        let provider = rustls::crypto::ring::default_provider();
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|it| it.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }

    /// A client that trusts it.
    fn trusted(&self) -> Connector {
        let tls = Tls::roots_from_pem(self.certificate.cert.pem().as_bytes()).unwrap();
        Connector::new().tls(tls)
    }

    /// A server that accepts over TLS, says hello, and does something to the stream.
    async fn serve<F, Fut>(&self, alpn: &[&str], end: F) -> SocketAddr
    where
        F: Fn(Visit<TlsStream<TcpStream>>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let acceptor = self.acceptor(alpn);
        visited(move |io| {
            let (acceptor, end) = (acceptor.clone(), end.clone());
            async move {
                let Ok(io) = acceptor.accept(io).await else {
                    return;
                };
                if let Some(visit) = Visit::of(io).await {
                    end(visit).await;
                }
            }
        })
        .await
    }
}

async fn greet<Io>(mut visit: Visit<Io>)
where
    Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    visit.open(b"\x81\x05Hello").await;
    visit.rest().await;
}

async fn greeted(connector: &Connector, address: &str) -> WebSocket {
    let (mut socket, _) = within(connector.connect(address)).await.unwrap();
    let message = within(socket.recv()).await.unwrap().unwrap();
    assert_eq!(message, "Hello".into());
    socket
}

async fn error(connector: &Connector, address: &str) -> ConnectError {
    let connected = within(connector.connect(address)).await;
    connected.map(|_| ()).unwrap_err()
}

async fn kind(connector: &Connector, address: &str) -> TlsErrorKind {
    match error(connector, address).await {
        ConnectError::Tls(error) => error.kind(),
        error => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn a_certificate_that_is_trusted_passes_by_name_and_by_address() {
    let identity = Identity::of(&["localhost", "127.0.0.1"]);
    let address = identity
        .serve(&["h2", "http/1.1"], async |visit| {
            let tls = visit.io.get_ref().1;
            assert_eq!(tls.alpn_protocol(), Some(&b"http/1.1"[..]));
            assert!(matches!(tls.server_name(), None | Some("localhost")));
            greet(visit).await;
        })
        .await;
    let connector = identity.trusted();
    let socket = greeted(&connector, &format!("wss://127.0.0.1:{}/", address.port())).await;
    assert_eq!(socket.peer(), Some(address));
    greeted(
        &connector,
        &format!("https://localhost:{}/", address.port()),
    )
    .await;
    // And over a stream of the caller's.
    let stream = TcpStream::connect(address).await.unwrap();
    let connecting = connector.connect_with(stream, "wss://localhost/");
    let (mut socket, _) = within(connecting).await.unwrap();
    assert!(within(socket.recv()).await.unwrap().is_ok());
}

#[tokio::test]
async fn a_certificate_is_verified_unless_a_dangerous_name_says_otherwise() {
    let identity = Identity::of(&["localhost"]);
    let address = identity.serve(&[], greet).await;
    let (by_name, by_address) = (
        format!("wss://localhost:{}/", address.port()),
        format!("wss://{address}/"),
    );
    // For another name.
    let wrong = kind(&identity.trusted(), &by_address).await;
    assert_eq!(wrong, TlsErrorKind::Certificate);
    // Of somebody else.
    let other = Identity::of(&["localhost"]);
    assert_eq!(
        kind(&other.trusted(), &by_name).await,
        TlsErrorKind::Certificate
    );
    // Of nobody known: the features of this test bring no roots.
    let plain = kind(&Connector::new(), &by_name).await;
    assert!(matches!(
        plain,
        TlsErrorKind::NoRoots | TlsErrorKind::Certificate
    ));

    let trusting = Connector::new().tls(Tls::dangerously_accept_any_certificate());
    greeted(&trusting, &by_name).await;
    greeted(&trusting, &by_address).await;
}

#[tokio::test]
async fn what_is_no_tls_is_told() {
    let identity = Identity::of(&["localhost"]);
    let plain = visited(|mut io| async move {
        let _ = io.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    })
    .await;
    let connector = identity.trusted();
    let found = kind(&connector, &format!("wss://localhost:{}/", plain.port())).await;
    assert_eq!(found, TlsErrorKind::Handshake);
    // And the other way round.
    let address = identity.serve(&[], greet).await;
    let error = error(&connector, &format!("ws://{address}/")).await;
    assert!(matches!(error, ConnectError::Http(_)), "{error:?}");
    assert!(error.to_string().contains("tls"), "{error}");

    assert!(Tls::roots_from_pem(b"no pem").is_err());
    assert!(Tls::roots_from_pem(b"").is_err());
}

#[tokio::test(start_paused = true)]
async fn a_silent_tls_handshake_ends_at_the_deadline() {
    match error(&to_silence(), "wss://a.example/").await {
        ConnectError::Timeout { during, .. } => assert_eq!(during, Step::Tls),
        error => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn a_stream_cut_off_without_close_notify_is_unclean() {
    let identity = Identity::of(&["localhost"]);
    let address = identity
        .serve(&[], async |mut visit: Visit<TlsStream<TcpStream>>| {
            visit.open(b"\x81\x05Hello").await;
            // The TCP stream ends as it should; the TLS stream does not.
            let (mut tcp, _) = visit.io.into_inner();
            tcp.shutdown().await.unwrap();
        })
        .await;
    let connector = identity.trusted();
    let mut socket = greeted(&connector, &format!("wss://localhost:{}/", address.port())).await;
    match within(socket.recv()).await.unwrap().unwrap_err() {
        Error::Io(error) => assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof),
        error => panic!("{error:?}"),
    }
    let closed = within(socket.closed()).await;
    assert!(!closed.is_clean());
    let text = closed.to_string();
    assert!(text.contains("(unclean)"), "{text}");
}

#[tokio::test]
async fn a_close_over_tls_is_clean() {
    let identity = Identity::of(&["localhost"]);
    let address = identity
        .serve(&[], async |mut visit: Visit<TlsStream<TcpStream>>| {
            visit.open(b"\x81\x05Hello\x88\x02\x03\xe8").await;
            visit.io.shutdown().await.unwrap();
        })
        .await;
    let connector = identity.trusted();
    let mut socket = greeted(&connector, &format!("wss://localhost:{}/", address.port())).await;
    assert!(within(socket.recv()).await.is_none());
    assert!(within(socket.closed()).await.is_clean());
}

#[tokio::test]
async fn many_messages_of_one_record_all_arrive() {
    let identity = Identity::of(&["localhost"]);
    let address = identity
        .serve(&[], async |mut visit: Visit<TlsStream<TcpStream>>| {
            let frames = b"\x81\x01x".repeat(5000);
            visit.open(&frames).await;
            visit.rest().await;
        })
        .await;
    let connector = identity.trusted();
    let address = format!("wss://localhost:{}/", address.port());
    let (mut socket, _) = within(connector.connect(address)).await.unwrap();
    for _ in 0..5000 {
        assert!(within(socket.recv()).await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn a_redirect_from_tls_to_none_is_not_followed() {
    let identity = Identity::of(&["localhost"]);
    let plain = server(greet).await;
    let location = format!("ws://{plain}/");
    let to = location.clone();
    let address = identity
        .serve(&[], move |mut visit: Visit<TlsStream<TcpStream>>| {
            let head = format!("HTTP/1.1 302 x\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
            async move { visit.write(head).await }
        })
        .await;
    let connector = identity.trusted().max_redirects(3);
    match error(&connector, &format!("wss://localhost:{}/", address.port())).await {
        ConnectError::Redirect(error) => {
            let kind = RedirectErrorKind::Downgrade(location.parse().unwrap());
            assert_eq!(*error.kind(), kind);
        }
        error => panic!("{error:?}"),
    }
    // Upwards it is.
    let secure = identity.serve(&[], greet).await;
    let to = format!("wss://localhost:{}/", secure.port());
    let plain = server(move |mut visit| {
        let head = format!("HTTP/1.1 302 x\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
        async move { visit.write(head).await }
    })
    .await;
    greeted(&connector, &format!("ws://{plain}/")).await;
}

#[tokio::test]
async fn tls_goes_through_proxies_and_over_tls_to_them() {
    let identity = Identity::of(&["localhost", "127.0.0.1"]);
    let target = identity.serve(&[], greet).await;
    let target = format!("wss://localhost:{}/", target.port());
    let http = ProxyServer::http(None).await;
    let socks = ProxyServer::socks(None).await;
    for address in [
        format!("http://{}", http.address),
        format!("socks5://{}", socks.address),
    ] {
        let proxy = Proxy::new(address).unwrap();
        greeted(&identity.trusted().proxy(proxy), &target).await;
    }
    let acceptor = identity.acceptor(&[]);
    let secure = ProxyServer::start(move |io, server| {
        let acceptor = acceptor.clone();
        async move {
            let io = acceptor.accept(io).await?;
            proxy::connect(io, &server, Some("Basic bmFtZTpzZWNyZXQ=")).await
        }
    })
    .await;
    let proxy = Proxy::new(format!("https://name:secret@{}", secure.address)).unwrap();
    greeted(&identity.trusted().proxy(proxy), &target).await;
    assert_eq!(
        secure.asked(),
        [target.replace("wss://", "").replace('/', "")]
    );
}

/// Mutual TLS, between our client and our server.
#[tokio::test]
async fn a_client_shows_its_certificate_to_a_server_that_asks_for_one() {
    let server = Identity::of(&["localhost"]);
    let client = Identity::of(&["client"]);
    let stranger = Identity::of(&["stranger"]);
    let pem = |identity: &Identity| {
        let CertifiedKey { cert, signing_key } = &identity.certificate;
        (cert.pem(), signing_key.serialize_pem())
    };
    let (certificate, key) = pem(&server);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("wss://localhost:{}/", listener.local_addr().unwrap().port());
    let tls = ws_hyper::server::Tls::from_pem(&certificate, &key).unwrap();
    let tls = tls.require_client_certificates(pem(&client).0).unwrap();
    let hello = |socket: WebSocket| async move { socket.send("Hello").await };
    let layer = WebSocketLayer::new().route("/", hello);
    let serving = ws_hyper::serve(listener, layer.into_service()).tls(tls);
    let serving = tokio::spawn(serving.into_future());

    let trusting = || Tls::roots_from_pem(certificate.as_bytes()).unwrap();
    for http2 in [false, true] {
        let connector = || {
            let connector = Connector::new();
            if http2 {
                connector.prefer_http2()
            } else {
                connector
            }
        };
        let (certificate, key) = pem(&client);
        let tls = trusting().client_certificate_from_pem(certificate, key);
        greeted(&connector().tls(tls.unwrap()), &address).await;
        let (certificate, key) = pem(&stranger);
        let other = trusting().client_certificate_from_pem(certificate, key);
        for tls in [trusting(), other.unwrap()] {
            // TLS 1.3 tells it with the first read.
            let error = error(&connector().tls(tls), &address).await;
            let ConnectError::Tls(tls) = &error else {
                panic!("{error:?}");
            };
            assert_eq!(tls.kind(), TlsErrorKind::ClientCertificate);
            assert!(error.is_final(), "trying again would not help");
        }
    }
    let (certificate, _) = pem(&client);
    let (_, key) = pem(&stranger);
    for (certificate, key) in [(&*certificate, &*key), ("", &*key), (&*certificate, "")] {
        let tls = trusting().client_certificate_from_pem(certificate, key);
        let error = tls.unwrap_err();
        assert!(matches!(error, ConnectError::Setting(_)), "{error:?}");
        assert!(error.to_string().contains("the client's"), "{error}");
    }
    serving.abort();
}

#[tokio::test]
async fn roots_are_added_to_those_that_are_trusted_already() {
    let (one, two) = (Identity::of(&["localhost"]), Identity::of(&["localhost"]));
    let pem = two.certificate.cert.pem();
    let tls = Tls::roots([one.certificate.cert.der().clone()]).unwrap();
    let both = tls.clone().also_trust_pem(&pem).unwrap();
    let addresses = [one.serve(&[], greet).await, two.serve(&[], greet).await];
    let [one, two] = addresses.map(|it| format!("wss://localhost:{}/", it.port()));
    for address in [&one, &two] {
        greeted(&Connector::new().tls(both.clone()), address).await;
    }
    let only = Connector::new().tls(tls.clone());
    greeted(&only, &one).await;
    assert_eq!(kind(&only, &two).await, TlsErrorKind::Certificate);
    assert!(tls.also_trust_pem("").is_err());
    let anybody = Tls::dangerously_accept_any_certificate();
    assert!(anybody.also_trust_pem(&pem).is_err());
}

/// The environment belongs to the process: this test runs itself in one of its own.
#[test]
fn the_proxy_for_wss_is_https_proxy_and_not_http_proxy() {
    const TARGET: &str = "WS_TESTS_TLS_TARGET";
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Ok(target) = std::env::var(TARGET) {
        let tls = Tls::dangerously_accept_any_certificate();
        let connector = Connector::new().tls(tls).proxy(Proxy::from_env());
        runtime.block_on(greeted(&connector, &target));
        return;
    }
    let name = "the_proxy_for_wss_is_https_proxy_and_not_http_proxy";
    let identity = Identity::of(&["localhost"]);
    let target = runtime.block_on(identity.serve(&[], greet)).port();
    for (variable, no_proxy, is_proxied) in [
        ("HTTPS_PROXY", "", true),
        ("https_proxy", "", true),
        ("ALL_PROXY", "", true),
        ("HTTP_PROXY", "", false),
        ("HTTPS_PROXY", "localhost", false),
        ("HTTPS_PROXY", "a.example", true),
    ] {
        let server = runtime.block_on(ProxyServer::http(None));
        let url = format!("wss://localhost:{target}/");
        let status = server.run_test(name, variable, no_proxy, (TARGET, &url));
        assert!(status.success(), "{variable} {no_proxy}");
        let asked = server.asked();
        let expected = is_proxied.then(|| format!("localhost:{target}"));
        assert_eq!(asked.first(), expected.as_ref(), "{variable} {no_proxy}");
    }
}
