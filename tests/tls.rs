//! `ws_hyper::serve` over TLS. The client is rustls, and above it bytes or the crate `h2`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/memory.rs"]
mod memory;

use std::{
    fs,
    io::{self, IoSlice},
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, atomic::AtomicUsize, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use self::memory::Dial;
use axum::{Router, routing::get};
use http::{Request, StatusCode};
use rcgen::{CertificateParams, CertifiedKey, Issuer, KeyPair, generate_simple_self_signed};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    time::{Instant, sleep},
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls};
use ws_hyper::{
    Listener, serve,
    server::{PeerCertificates, Tls, TlsError},
};
use ws_tests::{
    http2::Client,
    raw::{Raw, masked, within},
};
use ws_tower::{Closed, Error, PeerAddr, WebSocket, WebSocketLayer};

async fn echo(mut socket: WebSocket) -> Result<(), Error> {
    while let Some(message) = socket.recv().await {
        socket.send(message?).await?;
    }
    Ok(())
}

fn app() -> Router {
    Router::new()
        .route("/", get(async || "index"))
        .layer(WebSocketLayer::new().route("/echo", echo))
}

async fn bind() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A certificate for `localhost` that vouches for itself, and its key, as PEM.
#[derive(Clone)]
struct Identity {
    certificate: String,
    key: String,
}

impl Identity {
    fn new() -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        Self {
            certificate: cert.pem(),
            key: signing_key.serialize_pem(),
        }
    }

    fn tls(&self) -> Tls {
        Tls::from_pem(&self.certificate, &self.key).unwrap()
    }

    fn certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }

    async fn serve(&self) -> SocketAddr {
        serve_with(self.tls()).await
    }

    /// A client that trusts this certificate, and offers these protocols.
    async fn connect(&self, address: SocketAddr, protocols: &[&str]) -> TlsStream<TcpStream> {
        self.try_connect(address, protocols, None).await.unwrap()
    }

    /// The same, with a certificate of the client's own.
    async fn try_connect(
        &self,
        address: SocketAddr,
        protocols: &[&str],
        client: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
    ) -> io::Result<TlsStream<TcpStream>> {
        let stream = within(TcpStream::connect(address)).await?;
        stream.set_nodelay(true)?;
        self.try_connect_over(stream, protocols, client).await
    }

    /// The same, over any stream.
    async fn try_connect_over<Io: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: Io,
        protocols: &[&str],
        client: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
    ) -> io::Result<TlsStream<Io>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match client {
            Some((certificate, key)) => config
                .with_client_auth_cert(vec![certificate], key)
                .unwrap(),
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        let connector = TlsConnector::from(Arc::new(config));
        let name = "localhost".try_into().unwrap();
        within(connector.connect(name, stream)).await
    }
}

async fn serve_with(tls: Tls) -> SocketAddr {
    let (listener, address) = bind().await;
    tokio::spawn(serve(listener, app()).tls(tls).into_future());
    address
}

fn protocol(stream: &TlsStream<TcpStream>) -> Option<&[u8]> {
    stream.get_ref().1.alpn_protocol()
}

mod protocols {
    use super::*;

    #[tokio::test]
    async fn pages_and_sockets_are_served_over_http1() {
        let identity = Identity::new();
        let address = identity.serve().await;
        for offered in [&["http/1.1"][..], &[]] {
            let stream = identity.connect(address, offered).await;
            assert_eq!(protocol(&stream).is_some(), !offered.is_empty());
            let mut raw = Raw(stream);
            raw.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
            assert!(raw.head().await.starts_with("http/1.1 200 "));
            assert_eq!(raw.read(5).await, b"index");
            raw.upgrade("/echo").await;
            raw.echoes().await;
            // And a clean end of TLS: another would be an error.
            raw.write(masked(0x88, &[3, 0xe8])).await;
            let mut rest = Vec::new();
            within(raw.0.read_to_end(&mut rest)).await.unwrap();
            assert_eq!(rest, b"\x88\x02\x03\xe8");
        }
    }

    #[tokio::test]
    async fn pages_and_sockets_are_served_over_http2() {
        let identity = Identity::new();
        let address = identity.serve().await;
        let stream = identity.connect(address, &["http/1.1", "h2"]).await;
        assert_eq!(protocol(&stream), Some(&b"h2"[..]));
        let mut client = Client::over(stream).await;
        client.serves("/", "index").await;
        let mut sockets = Vec::new();
        for _ in 0..3 {
            sockets.push(client.open("/echo").await);
        }
        for mut socket in sockets {
            socket.echoes().await;
            socket.close().await;
        }
        client.end().await.unwrap();
    }

    #[tokio::test]
    async fn without_http2_it_is_not_offered() {
        let identity = Identity::new();
        let (listener, address) = bind().await;
        let server = serve(listener, app()).tls(identity.tls()).http1_only();
        tokio::spawn(server.into_future());
        let stream = identity.connect(address, &["h2", "http/1.1"]).await;
        assert_eq!(protocol(&stream), Some(&b"http/1.1"[..]));
        // Nor is it spoken by a client that has agreed on the other.
        let address = identity.serve().await;
        let mut raw = Raw(identity.connect(address, &["http/1.1"]).await);
        raw.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        assert_eq!(raw.rest().await, b"");
    }

    #[tokio::test]
    async fn a_configuration_of_ones_own_is_used_as_it_is() {
        let identity = Identity::new();
        let config = || {
            ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![identity.certificate()], identity.key())
                .unwrap()
        };
        let address = serve_with(Tls::from_config(config())).await;
        let stream = identity.connect(address, &["h2"]).await;
        assert_eq!(protocol(&stream), Some(&b"h2"[..]));
        let mut own = config();
        own.alpn_protocols = vec![b"http/1.1".to_vec()];
        let tls = Tls::from_config(own);
        assert!(matches!(tls.reload(), Err(TlsError::NotFromFiles)));
        let address = serve_with(tls).await;
        let stream = identity.connect(address, &["h2", "http/1.1"]).await;
        assert_eq!(protocol(&stream), Some(&b"http/1.1"[..]));
    }
}

mod certificates {
    use super::*;

    /// A folder of this test's own.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            static COUNT: AtomicUsize = AtomicUsize::new(0);
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("ws-tests-tls-{}-{count}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn write(&self, identity: &Identity) -> (PathBuf, PathBuf) {
            let paths = (self.0.join("certificate.pem"), self.0.join("key.pem"));
            fs::write(&paths.0, &identity.certificate).unwrap();
            fs::write(&paths.1, &identity.key).unwrap();
            paths
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[tokio::test]
    async fn new_ones_are_read_again_while_sockets_go_on() {
        let (folder, first, second) = (Folder::new(), Identity::new(), Identity::new());
        let (certificate, key) = folder.write(&first);
        let tls = Tls::from_pem_files(&certificate, &key).unwrap();
        let address = serve_with(tls.clone()).await;
        let mut raw = Raw(first.connect(address, &[]).await);
        raw.upgrade("/echo").await;

        folder.write(&second);
        // Nobody has asked for it yet.
        first.connect(address, &[]).await;
        tls.reload().unwrap();
        second.connect(address, &[]).await;
        first.try_connect(address, &[], None).await.unwrap_err();
        raw.echoes().await;

        // What cannot be used changes nothing.
        fs::write(&key, &first.key).unwrap();
        assert!(matches!(tls.reload(), Err(TlsError::Config(_))));
        fs::write(&certificate, "").unwrap();
        assert!(matches!(tls.reload(), Err(TlsError::NoCertificate)));
        fs::remove_file(&certificate).unwrap();
        assert!(matches!(tls.reload(), Err(TlsError::File(_, _))));
        second.connect(address, &[]).await;

        tls.reload_pem(&first.certificate, &first.key).unwrap();
        first.connect(address, &[]).await;
        raw.echoes().await;
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let (one, other) = (Identity::new(), Identity::new());
        let missing = Tls::from_pem_files("/nowhere/certificate.pem", "/nowhere/key.pem");
        let error = missing.unwrap_err();
        assert_eq!(error.to_string(), "cannot read /nowhere/certificate.pem");
        let error = |certificate: &str, key: &str| Tls::from_pem(certificate, key).unwrap_err();
        assert!(matches!(error("", &one.key), TlsError::NoCertificate));
        assert!(matches!(error(&one.key, &one.key), TlsError::NoCertificate));
        assert!(matches!(
            error(&one.certificate, &one.certificate),
            TlsError::Key(_)
        ));
        assert!(matches!(
            error(&one.certificate, &other.key),
            TlsError::Config(_)
        ));
        let roots = one.tls().require_client_certificates("");
        assert!(matches!(roots, Err(TlsError::NoCertificate)));
        assert!(matches!(one.tls().reload(), Err(TlsError::NotFromFiles)));
    }

    /// A certificate that `root` vouches for.
    fn issued(root: &Issuer<'_, KeyPair>) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["client".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, root).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        (certificate.der().clone(), key)
    }

    /// An authority, and its certificate as PEM.
    fn authority(name: &str) -> (Issuer<'static, KeyPair>, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let mut distinguished = rcgen::DistinguishedName::new();
        distinguished.push(rcgen::DnType::CommonName, name);
        params.distinguished_name = distinguished;
        let pem = params.self_signed(&key).unwrap().pem();
        (Issuer::new(params, key), pem)
    }

    /// An echo for clients with a certificate alone, which a guard asks for.
    fn guarded(seen: mpsc::UnboundedSender<CertificateDer<'static>>) -> WebSocketLayer {
        WebSocketLayer::new()
            .route("/echo", echo)
            .guard(move |request: &mut Request<()>| {
                assert!(request.extensions().get::<PeerAddr>().is_some());
                let certificates = request.extensions().get::<PeerCertificates>();
                let own = certificates.and_then(|all| all.as_slice().first());
                match own {
                    Some(own) => {
                        seen.send(own.clone()).unwrap();
                        Ok(())
                    }
                    None => Err(StatusCode::UNAUTHORIZED),
                }
            })
    }

    /// What a client without a certificate learns: in TLS 1.3 with the first read only.
    async fn fate(stream: io::Result<TlsStream<TcpStream>>) -> io::Result<String> {
        let mut raw = Raw(stream?);
        let request = ws_tests::raw::handshake("/echo");
        raw.0.write_all(request.as_bytes()).await?;
        let mut head = [0; 12];
        within(raw.0.read_exact(&mut head)).await?;
        Ok(String::from_utf8_lossy(&head).into_owned())
    }

    #[tokio::test]
    async fn those_of_clients_are_verified_and_told() {
        let identity = Identity::new();
        let ((root, roots), (stranger, _)) = (authority("known"), authority("unknown"));
        let (certificate, key) = issued(&root);
        for is_required in [true, false] {
            let tls = if is_required {
                identity.tls().require_client_certificates(&roots)
            } else {
                identity.tls().request_client_certificates(&roots)
            };
            let (tell, mut told) = mpsc::unbounded_channel();
            let (listener, address) = bind().await;
            let server = serve(listener, guarded(tell).into_service()).tls(tls.unwrap());
            tokio::spawn(server.into_future());

            let known = Some((certificate.clone(), key.clone_key()));
            let mut raw = Raw(identity.try_connect(address, &[], known).await.unwrap());
            raw.upgrade("/echo").await;
            raw.echoes().await;
            assert_eq!(told.recv().await.unwrap(), certificate);
            let known = Some((certificate.clone(), key.clone_key()));
            let stream = identity.try_connect(address, &["h2"], known).await;
            let mut client = Client::over(stream.unwrap()).await;
            client.open("/echo").await.echoes().await;
            assert_eq!(told.recv().await.unwrap(), certificate);

            let without = fate(identity.try_connect(address, &[], None).await).await;
            if is_required {
                without.unwrap_err();
            } else {
                assert_eq!(without.unwrap(), "HTTP/1.1 401");
            }
            let unknown = Some(issued(&stranger));
            let refused = fate(identity.try_connect(address, &[], unknown).await).await;
            refused.unwrap_err();
        }
    }
}

mod handshakes {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_cut_at_the_deadline_while_others_are_served() {
        let identity = Identity::new();
        let deadline = Duration::from_secs(2);
        let tls = identity.tls().handshake_timeout(deadline);
        let (dial, memory) = Dial::new();
        tokio::spawn(serve(memory, app()).tls(tls).into_future());
        let start = Instant::now();
        let silent: Vec<_> = (0..50).map(|_| dial.dial()).collect();
        // One that stops in the midst of it.
        let mut half = dial.dial();
        half.write(b"\x16\x03\x01\x02\x00\x01").await;
        let connecting = identity.try_connect_over(dial.dial().0, &[], None);
        let mut raw = Raw(within(connecting).await.unwrap());
        raw.upgrade("/echo").await;
        raw.echoes().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        for mut raw in silent {
            assert_eq!(raw.rest().await, b"");
        }
        half.rest().await;
        let elapsed = start.elapsed();
        let in_time = deadline..deadline + Duration::from_millis(50);
        assert!(in_time.contains(&elapsed), "{elapsed:?}");
        raw.echoes().await;
    }

    #[tokio::test]
    async fn silent_peers_hold_up_nobody_however_many_they_are() {
        let identity = Identity::new();
        let (dial, memory) = Dial::new();
        let server = serve(memory, app()).tls(identity.tls());
        tokio::spawn(server.into_future());
        // More than a process may have files.
        let silent: Vec<_> = (0..5000).map(|_| dial.dial()).collect();
        let connecting = identity.try_connect_over(dial.dial().0, &[], None);
        let mut raw = Raw(within(connecting).await.unwrap());
        raw.upgrade("/echo").await;
        raw.echoes().await;
        drop(silent);
    }

    #[tokio::test]
    async fn no_more_than_allowed_are_under_way_and_the_others_wait() {
        let identity = Identity::new();
        let tls = identity
            .tls()
            .max_handshakes(1)
            .handshake_timeout(Duration::from_secs(60));
        let address = serve_with(tls).await;
        let silent = Raw::connect(address).await;
        sleep(Duration::from_millis(50)).await;
        let connecting = tokio::spawn({
            let identity = identity.clone();
            async move { identity.connect(address, &[]).await }
        });
        sleep(Duration::from_millis(100)).await;
        assert!(!connecting.is_finished());
        drop(silent);
        let mut raw = Raw(within(connecting).await.unwrap());
        raw.upgrade("/echo").await;
        raw.echoes().await;
    }

    #[tokio::test]
    async fn what_is_no_handshake_ends_its_connection_alone() {
        let identity = Identity::new();
        let address = identity.serve().await;
        for garbage in [
            &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            &[0xff; 2000],
            b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
            b"\x15\x03\x01\x00\x02\x02\x28",
        ] {
            let mut raw = Raw::connect(address).await;
            raw.write(garbage).await;
            // An alert at the most.
            let rest = raw.rest().await;
            assert!(rest.is_empty() || rest[0] == 0x15, "{rest:?}");
        }
        // Nor does one that trusts nobody stop others.
        let other = Identity::new();
        other.try_connect(address, &[], None).await.unwrap_err();
        let mut raw = Raw(identity.connect(address, &[]).await);
        raw.upgrade("/echo").await;
        raw.echoes().await;
    }
}

mod ends {
    use super::*;

    /// Connections whose writes are counted.
    struct Counting(TcpListener, Arc<AtomicUsize>);

    struct Counted(TcpStream, Arc<AtomicUsize>);

    impl Listener for Counting {
        type Io = Counted;

        async fn accept(&mut self) -> io::Result<(Counted, Option<SocketAddr>)> {
            let (io, peer) = self.0.accept().await?;
            Ok((Counted(io, Arc::clone(&self.1)), Some(peer)))
        }
    }

    impl AsyncRead for Counted {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buffer)
        }
    }

    impl AsyncWrite for Counted {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let written = Pin::new(&mut self.0).poll_write_vectored(cx, slices);
            if written.is_ready() {
                self.1.fetch_add(1, Ordering::SeqCst);
            }
            written
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    #[tokio::test]
    async fn the_answer_to_a_close_and_the_end_of_tls_are_one_write() {
        let identity = Identity::new();
        let writes = Arc::<AtomicUsize>::default();
        let (listener, address) = bind().await;
        let listener = Counting(listener, Arc::clone(&writes));
        tokio::spawn(serve(listener, app()).tls(identity.tls()).into_future());
        let mut raw = Raw(identity.connect(address, &[]).await);
        raw.upgrade("/echo").await;
        raw.echoes().await;
        let before = writes.load(Ordering::SeqCst);
        raw.echoes().await;
        let echo = writes.load(Ordering::SeqCst) - before;
        assert_eq!(echo, 1);
        // To the end, which is that of TLS, or it would be an error.
        raw.close().await;
        assert_eq!(writes.load(Ordering::SeqCst) - before - echo, 1);
    }

    #[tokio::test]
    async fn without_the_end_of_tls_an_end_is_unclean() {
        let identity = Identity::new();
        let (tell, mut told) = mpsc::unbounded_channel::<Closed>();
        let app = WebSocketLayer::new()
            .route("/echo", echo)
            .on_closed(move |closed| tell.send(closed.clone()).unwrap());
        let (listener, address) = bind().await;
        let server = serve(listener, app.into_service()).tls(identity.tls());
        tokio::spawn(server.into_future());

        let mut raw = Raw(identity.connect(address, &[]).await);
        raw.upgrade("/echo").await;
        raw.echoes().await;
        // A FIN that anyone on the way could have made.
        raw.0.get_mut().0.shutdown().await.unwrap();
        let closed = within(told.recv()).await.unwrap();
        assert!(!closed.is_clean());
        let Some(Error::Io(error)) = closed.cause() else {
            panic!("{closed:?}");
        };
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);

        // One that TLS vouches for, but without a Close.
        let mut raw = Raw(identity.connect(address, &[]).await);
        raw.upgrade("/echo").await;
        raw.0.shutdown().await.unwrap();
        let closed = within(told.recv()).await.unwrap();
        assert!(!closed.is_clean());
        assert!(
            matches!(closed.cause(), Some(Error::Connection(_))),
            "{closed:?}"
        );

        // With a Close and its answer nothing is missing.
        let mut raw = Raw(identity.connect(address, &[]).await);
        raw.upgrade("/echo").await;
        raw.close().await;
        assert!(within(told.recv()).await.unwrap().is_clean());
    }

    #[tokio::test]
    async fn a_shutdown_tells_sockets_and_waits_for_no_handshake() {
        let identity = Identity::new();
        let (stop, stopped) = oneshot::channel::<()>();
        let signal = async {
            let _ = stopped.await;
        };
        let (listener, address) = bind().await;
        let server = serve(listener, app())
            .tls(identity.tls())
            .with_graceful_shutdown(signal, Duration::from_secs(60));
        let server = tokio::spawn(server.into_future());
        let _silent = Raw::connect(address).await;
        let mut http1 = Raw(identity.connect(address, &[]).await);
        http1.upgrade("/echo").await;
        let stream = identity.connect(address, &["h2"]).await;
        let mut client = Client::over(stream).await;
        let mut http2 = client.open("/echo").await;
        drop(stop);
        let (first, payload) = http1.frame().await;
        assert_eq!((first, &payload[..2]), (0x88, &[3, 0xe9][..]));
        http1.write(masked(0x88, &[3, 0xe9])).await;
        let (first, payload) = http2.frame().await;
        assert_eq!((first, &payload[..2]), (0x88, &[3, 0xe9][..]));
        http2.write(masked(0x88, &[3, 0xe9])).await;
        assert_eq!(http2.rest().await, b"");
        let shutdown = within(server).await.unwrap().unwrap();
        assert_eq!((shutdown.closed, shutdown.cut), (2, 0));
    }
}
