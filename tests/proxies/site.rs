//! A site: two servers of ours, a proxy of the deployment guide before them, and a browser's way in.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper::{client::conn::http2, ext::Protocol, upgrade::Upgraded};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, RootCertStore, pki_types::ServerName},
};
use tower::{Layer, util::MapRequestLayer};
use ws_hyper::serve;
use ws_tests::{
    broker::{free_port, listens},
    raw::{Raw, within},
    wire,
};
use ws_tower::{
    CloseCode, CloseFrame, Closed, Config, Error, Shutdown, Tracker, WebSocket, WebSocketLayer,
};

/// The proxies of the guide, each with its file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Caddy,
    Haproxy,
    Nginx,
}

impl Kind {
    /// The file of the guide, and what is replaced in it: where it listens, what it proves itself
    /// with, and how long it bears silence. Nothing else differs from what the guide shows.
    fn file(
        self,
        address: SocketAddr,
        directory: &Path,
        patience: Duration,
    ) -> (&'static str, Vec<(String, String)>) {
        let pairs = |pairs: &[(&str, String)]| {
            let pairs = pairs.iter();
            pairs
                .map(|(old, new)| ((*old).to_owned(), new.clone()))
                .collect()
        };
        let at = |name: &str| directory.join(name).display().to_string();
        let silence = format!("{}s", patience.as_secs());
        match self {
            Self::Caddy => (
                include_str!("../../ws-hyper/src/docs/deployment/Caddyfile"),
                pairs(&[(
                    "chat.example {",
                    format!(
                        "{{\n\tadmin off\n\tauto_https disable_redirects\n}}\n\
                         https://chat.example:{} {{\n\tbind {}\n\ttls {} {}",
                        address.port(),
                        address.ip(),
                        at("certificate.pem"),
                        at("key.pem")
                    ),
                )]),
            ),
            Self::Haproxy => (
                include_str!("../../ws-hyper/src/docs/deployment/haproxy.cfg"),
                pairs(&[
                    ("bind :443", format!("bind {address}")),
                    ("/etc/haproxy/chat.example.pem", at("both.pem")),
                    ("tunnel 60s", format!("tunnel {silence}")),
                ]),
            ),
            Self::Nginx => (
                include_str!("../../ws-hyper/src/docs/deployment/nginx.conf"),
                pairs(&[
                    ("listen 443", format!("listen {address}")),
                    (
                        "/etc/ssl/chat.example/certificate.pem",
                        at("certificate.pem"),
                    ),
                    ("/etc/ssl/chat.example/key.pem", at("key.pem")),
                    (
                        "proxy_read_timeout 60s",
                        format!("proxy_read_timeout {silence}"),
                    ),
                    (
                        "proxy_send_timeout 60s",
                        format!("proxy_send_timeout {silence}"),
                    ),
                ]),
            ),
        }
    }

    /// One process in the foreground, so that killing it leaves nothing.
    fn command(self, directory: &Path) -> Command {
        let file = directory.join("proxy.conf");
        match self {
            Self::Caddy => {
                let mut command = Command::new("caddy");
                command
                    .args(["run", "--adapter", "caddyfile", "--config"])
                    .arg(file);
                command
            }
            Self::Haproxy => {
                let mut command = Command::new("haproxy");
                command.arg("-db").arg("-f").arg(file);
                command
            }
            Self::Nginx => {
                fs::write(directory.join("nginx.conf"), NGINX).unwrap();
                let mut command = Command::new("nginx");
                command
                    .args(["-e", "stderr", "-g"])
                    .arg("daemon off; master_process off; pid nginx.pid;")
                    .arg("-p")
                    .arg(directory)
                    .arg("-c")
                    .arg(directory.join("nginx.conf"));
                command
            }
        }
    }
}

/// What includes the guide's file, as a distribution's own configuration includes `conf.d`. Paths
/// are relative to the directory.
const NGINX: &str = "\
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include proxy.conf;
}
";

/// How long proxies bear silence that are told to bear little.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// How long the others do, which is what the guide says.
const OF_THE_GUIDE: Duration = Duration::from_secs(60);

pub(crate) struct Site {
    pub(crate) servers: [Server; 2],
    proxy: Child,
    address: SocketAddr,
    connector: TlsConnector,
    directory: PathBuf,
}

impl Site {
    pub(crate) async fn start(kind: Kind, config: Config) -> Self {
        Self::start_with(kind, config, OF_THE_GUIDE, |text| text).await
    }

    /// With a proxy that bears silence for [`PATIENCE`].
    pub(crate) async fn impatient(kind: Kind, config: Config) -> Self {
        Self::start_with(kind, config, PATIENCE, |text| text).await
    }

    /// With a change to the proxy's file.
    pub(crate) async fn changed(
        kind: Kind,
        config: Config,
        change: impl Fn(String) -> String,
    ) -> Self {
        Self::start_with(kind, config, OF_THE_GUIDE, change).await
    }

    async fn start_with(
        kind: Kind,
        config: Config,
        patience: Duration,
        change: impl Fn(String) -> String,
    ) -> Self {
        let config = Arc::new(config);
        let mut log = String::new();
        for _ in 0..5 {
            let mut site = Self::try_start(kind, &config, patience, &change).await;
            if listens(&mut site.proxy, site.address).await {
                return site;
            }
            // Somebody has taken its port meanwhile; or it never listens.
            log = site.log();
        }
        panic!("the proxy does not listen:\n{log}");
    }

    async fn try_start(
        kind: Kind,
        config: &Arc<Config>,
        patience: Duration,
        change: impl Fn(String) -> String,
    ) -> Self {
        static SITES: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "ws-proxies-{}-{}",
            std::process::id(),
            SITES.fetch_add(1, Ordering::Relaxed)
        );
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).unwrap();
        let connector = certificate(&directory);
        let servers = [Server::start(config).await, Server::start(config).await];
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let (file, mut replacements) = kind.file(address, &directory, patience);
        for (old, server) in ["127.0.0.1:8000", "127.0.0.1:8001"].iter().zip(&servers) {
            replacements.push(((*old).to_owned(), server.address.to_string()));
        }
        let mut text = file.to_owned();
        for (old, new) in &replacements {
            assert_eq!(text.matches(old).count(), 1, "`{old}` in the guide's file");
            text = text.replace(old, new);
        }
        fs::write(directory.join("proxy.conf"), change(text)).unwrap();
        let log = fs::File::create(directory.join("log")).unwrap();
        let proxy = kind
            .command(&directory)
            .current_dir(&directory)
            .env("HOME", &directory)
            .env("XDG_CONFIG_HOME", &directory)
            .env("XDG_DATA_HOME", &directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{kind:?} does not start: {error}"));
        Self {
            servers,
            proxy,
            address,
            connector,
            directory,
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// A TLS connection to the proxy, from another address than the proxy's own.
    pub(crate) async fn connect(&self) -> Raw<TlsStream<TcpStream>> {
        self.connect_with(&[b"http/1.1"]).await
    }

    /// With these protocols in the ALPN extension.
    pub(crate) async fn connect_with(&self, alpn: &[&[u8]]) -> Raw<TlsStream<TcpStream>> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((CLIENT, 0))).unwrap();
        let stream = within(socket.connect(self.address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let connector = self.connector.clone();
        let mut config = ClientConfig::clone(connector.config());
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from("chat.example").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        Raw(within(connector.connect(name, stream)).await.unwrap())
    }

    /// The head of the response to a request with these header lines.
    pub(crate) async fn ask(
        &self,
        path: &str,
        headers: &str,
    ) -> (String, Raw<TlsStream<TcpStream>>) {
        let mut raw = self.connect().await;
        // A port of one's own is part of `Host`, and of the page's origin.
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n",
            host = self.host()
        );
        raw.write(request).await;
        (raw.head().await, raw)
    }

    /// Opens a WebSocket as a page of this site does.
    pub(crate) async fn open(&self, path: &str) -> Raw<TlsStream<TcpStream>> {
        let origin = format!("Origin: https://{}\r\n{UPGRADE}", self.host());
        let (head, raw) = self.ask(path, &origin).await;
        assert!(head.starts_with("http/1.1 101 "), "{head}{}", self.log());
        raw
    }

    /// Opens a WebSocket on an HTTP/2 stream (RFC 8441 §4).
    pub(crate) async fn open_http2(&self, path: &str) -> Raw<TokioIo<Upgraded>> {
        let Raw(stream) = self.connect_with(&[b"h2"]).await;
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut requests, connection) = within(handshake).await.unwrap();
        tokio::spawn(connection);
        let request = Request::connect(format!("https://{}{path}", self.host()))
            .extension(Protocol::from_static("websocket"))
            .header("sec-websocket-version", "13")
            .header("origin", format!("https://{}", self.host()))
            .body(Empty::<Bytes>::new())
            .unwrap();
        let response = within(requests.send_request(request)).await.unwrap();
        assert_eq!(response.status(), 200, "{}", self.log());
        let upgraded = within(hyper::upgrade::on(response)).await.unwrap();
        Raw(TokioIo::new(upgraded))
    }

    /// Whether the proxy's settings allow WebSockets on HTTP/2 (RFC 8441 §3). Browsers that do not
    /// see it open another connection, with HTTP/1.1.
    pub(crate) async fn offers_sockets_on_http2(&self) -> bool {
        let mut raw = self.connect_with(&[b"h2", b"http/1.1"]).await;
        assert_eq!(raw.0.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        // RFC 9113 §3.4: the preface, and settings that change nothing. §6.5: those of the proxy
        // are its first frame.
        raw.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            .await;
        let header = raw.read(9).await;
        assert_eq!(header[3], 4, "SETTINGS");
        let settings = raw.read(usize::from(header[2])).await;
        settings.chunks_exact(6).any(|it| it == [0, 8, 0, 0, 0, 1])
    }

    /// What the browser calls this site.
    pub(crate) fn host(&self) -> String {
        format!("chat.example:{}", self.address.port())
    }

    /// Kills the proxy as a crash does.
    pub(crate) fn kill_proxy(&mut self) {
        self.proxy.kill().unwrap();
        self.proxy.wait().unwrap();
    }

    /// How all sockets of both servers ended, once `count` have.
    pub(crate) async fn closed(&self, count: usize) -> Vec<Closed> {
        let all = || {
            let all = self.servers.iter();
            all.flat_map(|server| server.closed.lock().unwrap().clone())
                .collect::<Vec<_>>()
        };
        ws_tests::raw::until(|| all().len() >= count).await;
        ws_tests::raw::until(|| self.servers.iter().all(|server| server.tracker.is_empty())).await;
        all()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.proxy.kill();
        let _ = self.proxy.wait();
        if std::thread::panicking() {
            eprintln!("the proxy's log:\n{}", self.log());
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A server of ours, as the guide has it.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) tracker: Tracker,
    closed: Arc<Mutex<Vec<Closed>>>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<Shutdown>>,
}

impl Server {
    async fn start(config: &Arc<Config>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tracker, closed) = (Tracker::new(), Arc::<Mutex<Vec<_>>>::default());
        let hook = Arc::clone(&closed);
        let sockets = WebSocketLayer::new()
            .config(Arc::clone(config))
            .route("/echo", echo)
            .route("/request", request)
            .on_closed(move |closed| hook.lock().unwrap().push(closed.clone()));
        let app = MapRequestLayer::new(crate::forwarded).layer(sockets.into_service());
        let (stop, stopped) = oneshot::channel::<()>();
        let signal = async {
            let _ = stopped.await;
        };
        let server = serve(listener, app)
            .tracker(tracker.clone())
            .with_graceful_shutdown(signal, Duration::from_secs(20));
        Self {
            address,
            tracker,
            closed,
            stop: Some(stop),
            task: tokio::spawn(server.into_future()),
        }
    }

    /// Shuts down as at a restart.
    pub(crate) async fn shut_down(&mut self) -> Shutdown {
        drop(self.stop.take());
        within(&mut self.task).await.unwrap().unwrap()
    }
}

/// Sends everything back; at `close CODE REASON` it closes with those.
async fn echo(mut socket: WebSocket) -> Result<(), Error> {
    while let Some(message) = socket.recv().await {
        let message = message?;
        let wish = message
            .as_text()
            .and_then(|text| text.strip_prefix("close "));
        if let Some((code, reason)) = wish.and_then(|wish| wish.split_once(' ')) {
            let code = CloseCode::try_from(code.parse::<u16>().unwrap()).unwrap();
            socket.close(CloseFrame::new(code, reason).unwrap()).await;
        } else {
            socket.send(message).await?;
        }
    }
    Ok(())
}

/// Says whom the server takes for its peer, and what the proxy told it.
async fn request(socket: WebSocket, request: Request<()>) -> Result<(), Error> {
    let header = |name: &str| {
        let value = request.headers().get(name);
        value.map_or("", |value| value.to_str().unwrap()).to_owned()
    };
    let peer = socket.peer().map(|peer| peer.ip());
    let told = format!(
        "{peer:?} {} {}",
        header("x-forwarded-proto"),
        header("host")
    );
    socket.send(told).await
}

/// A certificate for the proxy, in all forms that the proxies want, and a client that trusts it.
fn certificate(directory: &Path) -> TlsConnector {
    let made = rcgen::generate_simple_self_signed(["chat.example".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    fs::write(directory.join("certificate.pem"), &certificate).unwrap();
    fs::write(directory.join("key.pem"), &key).unwrap();
    fs::write(directory.join("both.pem"), certificate + &key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// A frame of a client. Its masking key is zeros, which leaves the payload readable.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    wire::frame(first, Some([0; 4]), payload)
}

/// Where the client is: not where the proxy is.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// What makes a request an upgrade. The key is that of RFC 6455 §1.3.
pub(crate) const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
