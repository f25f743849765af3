//! The client: from an address to a [`WebSocket`].
//!
//! [`connect`] does it with the defaults. A [`Connector`] has the settings, and is made once for
//! many connects:
//!
//! ```
//! use std::time::Duration;
//!
//! use ws_hyper::Connector;
//! use ws_tower::{Config, Message, WebSocket, WebSocketLayer};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let layer = WebSocketLayer::new().subprotocols(["chat.v2"]).route("/echo", echo);
//! # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! # let address = format!("ws://{}/echo", listener.local_addr()?);
//! # tokio::spawn(ws_hyper::serve(listener, layer.into_service()).into_future());
//! # async fn echo(mut socket: WebSocket) -> Result<(), ws_tower::Error> {
//! #     while let Some(message) = socket.recv().await { socket.send(message?).await?; }
//! #     Ok(())
//! # }
//! let connector = Connector::new()
//!     .subprotocol("chat.v2")
//!     .bearer_auth("3vJx")
//!     .header("x-room", "7")
//!     .config(Config::new().handshake_timeout(Duration::from_secs(3)));
//! let (mut socket, response) = connector.connect(&address).await?;
//! assert_eq!(socket.subprotocol(), Some("chat.v2"));
//! assert_eq!(response.status(), 101);
//!
//! socket.send("Hello").await?;
//! assert_eq!(socket.recv().await.transpose()?, Some(Message::text("Hello")));
//! let closed = socket.close(ws_tower::CloseFrame::from(ws_tower::CloseCode::NORMAL)).await;
//! assert!(closed.is_clean());
//! # Ok(())
//! # }
//! ```
//!
//! # From the address to the socket
//!
//! One deadline, [`Config::handshake_timeout`], 10 s, is over all of it:
//!
//! | step | what is seen to |
//! |---|---|
//! | the address | [`Address`]: `ws`, `wss`, `http`, `https`, `ws+unix`; a name and password become basic authentication |
//! | the connection | both address families, raced; `TCP_NODELAY`; or a [connector](Connector::transport) of your own, or [any stream](Connector::connect_with) |
//! | [the proxy](Proxy) | none unless asked: HTTP CONNECT or SOCKS5, given or from the environment |
//! | TLS | the feature `rustls`; certificates are verified, against roots that further features or `Tls` bring |
//! | the request | RFC 6455 §4.1, with a new key; `Origin` only if it is set; or an extended CONNECT, with the feature `http2` |
//! | the answer | at most 64 KiB and 100 lines, interim answers included; every check of RFC 6455 §4.1: see [`handshake::client`](ws_tower::ws_core::handshake::client) |
//! | a refusal | [`ConnectError::Refused`] with the status, the headers, and up to 8 KiB of the body, as far as it comes within 2 s |
//! | [redirects](Connector::max_redirects) | none are followed unless asked |
//! | what follows the 101 | is the socket's first input, at whatever byte it is cut |
//!
//! Dropping the future at any point closes the connection. Nothing is spawned before there is a
//! socket, but for the lookup of a name, which the system ends in its own time.
//!
//! # How a socket ends
//!
//! [`WebSocket::recv`] ends with `None` after the peer's Close, and with an error otherwise.
//! [`WebSocket::closed`] has the facts:
//!
//! | what happened | [`is_clean`](ws_tower::Closed::is_clean) | [`cause`](ws_tower::Closed::cause) |
//! |---|---|---|
//! | both sides said Close | yes | none |
//! | the stream ended without a Close: a server that crashed, a proxy that lost patience | no | `Connection(UnexpectedEof)` |
//! | TLS was cut off without its own good-bye, which anybody on the way can do | no | `Io`, kind `UnexpectedEof` |
//! | a reset | no | `Io`, kind `ConnectionReset` |
//! | no sign of life, no answer to the Close, no bytes taken | no | `Connection`, with the deadline's name |
//! | the peer broke the protocol, such as by masking | no | `Connection(Protocol(…))` |
//!
//! # Keepalive and latency
//!
//! The session pings a silent server after [`Config::keepalive_interval`], and gives it up after
//! [`Config::keepalive_timeout`]. To know how far away the server is, ask:
//! [`WebSocket::ping`] waits for the answer and returns the time it took, from any task and
//! beside everything else. [`Sender`](ws_tower::Sender) has it too, so a task can go on measuring
//! while another one receives:
//!
//! ```
//! use std::time::Duration;
//!
//! use tokio::{sync::watch, time::sleep};
//! use ws_tower::{Error, Sender};
//!
//! /// Measures until the socket ends.
//! async fn measure(socket: Sender, latency: watch::Sender<Duration>) -> Result<(), Error> {
//!     loop {
//!         latency.send_replace(socket.ping().await?);
//!         sleep(Duration::from_secs(10)).await;
//!     }
//! }
//! # let (client, _server) = tokio::io::duplex(1);
//! # drop((measure, client));
//! ```
//!
//! # One connection after another
//!
//! [`Reconnecting`] makes a new socket when the last one has ended, with a growing pause after
//! failures. It repeats no message: only the application knows which ones have arrived.

mod address;
mod error;
mod exchange;
#[cfg(feature = "http2")]
mod http2;
mod proxy;
mod reconnect;
mod redirect;
#[cfg_attr(not(feature = "rustls"), path = "client/tls/absent.rs")]
mod tls;
mod transport;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{
    HeaderName, HeaderValue, Response, Uri,
    header::{AUTHORIZATION, COOKIE, ORIGIN, PROXY_AUTHORIZATION, USER_AGENT},
};
use hyper::rt::{Read, Write};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout_at},
};
use tower::Service;
use ws_tower::{
    BoxError, Config, Session, WebSocket,
    ws_core::{
        Connection, Role,
        handshake::{Opening, client::Handshake},
    },
};

#[cfg(feature = "http2")]
pub use self::http2::Http2;
#[cfg(feature = "rustls")]
pub use self::tls::Tls;
#[cfg(not(feature = "rustls"))]
use self::tls::Tls;
pub use self::{
    address::{Address, AddressError},
    error::{
        ConnectError, HttpError, HttpErrorKind, RedirectError, RedirectErrorKind, Step, TlsError,
        TlsErrorKind,
    },
    proxy::Proxy,
    reconnect::{Backoff, Reconnecting, State, is_final},
};
use self::{
    exchange::{Opened, exchange},
    tls::Alpn,
    transport::{Dialer, Transport},
};
#[cfg(feature = "rustls")]
pub use rustls;

/// Connects to a WebSocket, with the defaults of a [`Connector`].
///
/// # Errors
///
/// [`ConnectError`]: why there is none.
///
/// # Cancel safety
///
/// Dropping the future closes the connection.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let mut socket = ws_hyper::connect("ws://127.0.0.1:8000/echo").await?;
/// socket.send("Hello").await?;
/// while let Some(message) = socket.recv().await {
///     println!("{:?}", message?);
/// }
/// # Ok(())
/// # }
/// ```
pub async fn connect<A>(address: A) -> Result<WebSocket, ConnectError>
where
    A: TryInto<Address>,
    A::Error: Into<ConnectError>,
{
    let (socket, _) = Connector::new().connect(address).await?;
    Ok(socket)
}

/// Connects to WebSockets, with settings. Cheap to clone.
///
/// | setting | default |
/// |---|---|
/// | [`config`](Self::config) | [`Config::default`]: the deadline of a connect is 10 s |
/// | [`header`](Self::header), [`cookie`](Self::cookie), [`basic_auth`](Self::basic_auth), [`bearer_auth`](Self::bearer_auth), [`origin`](Self::origin) | none |
/// | [`user_agent`](Self::user_agent) | `ws-hyper/` and the version |
/// | [`subprotocol`](Self::subprotocol) | none |
/// | [`max_redirects`](Self::max_redirects) | 0: none are followed |
/// | [`proxy`](Self::proxy) | none, and the environment is not looked at |
/// | [`transport`](Self::transport) | TCP to the first address that answers, both families raced |
/// | `tls` (feature `rustls`) | the roots that the crate's features bring |
/// | `prefer_http2` (feature `http2`) | HTTP/1.1 |
///
/// A value that cannot be used, such as a header with a line break in it, is told by the connect.
#[derive(Clone, Debug)]
pub struct Connector {
    config: Arc<Config>,
    headers: Vec<(HeaderName, HeaderValue)>,
    cookies: String,
    subprotocols: Vec<Box<str>>,
    max_redirects: usize,
    proxy: Option<Proxy>,
    dialer: Dialer,
    tls: Option<Tls>,
    #[cfg(feature = "http2")]
    prefers_http2: bool,
    /// What is wrong with a setting.
    wrong: Option<Box<str>>,
}

impl Default for Connector {
    fn default() -> Self {
        let agent = concat!("ws-hyper/", env!("CARGO_PKG_VERSION"));
        Self {
            config: Arc::default(),
            headers: vec![(USER_AGENT, HeaderValue::from_static(agent))],
            cookies: String::new(),
            subprotocols: Vec::new(),
            max_redirects: 0,
            proxy: None,
            dialer: Dialer::default(),
            tls: None,
            #[cfg(feature = "http2")]
            prefers_http2: false,
            wrong: None,
        }
    }
}

impl Connector {
    /// The defaults of the table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets limits and times. [`Config::handshake_timeout`] is the deadline of a whole connect,
    /// redirects included, of at most a year. An `Arc` is shared by many.
    #[must_use]
    pub fn config(mut self, config: impl Into<Arc<Config>>) -> Self {
        self.config = config.into();
        self
    }

    /// Adds a header to the request, beside others of the same name. Those of the handshake itself
    /// are refused by the connect.
    #[must_use]
    pub fn header<N, V>(mut self, name: N, value: V) -> Self
    where
        N: TryInto<HeaderName>,
        V: TryInto<HeaderValue>,
    {
        match (name.try_into(), value.try_into()) {
            (Ok(name), Ok(value)) => self.headers.push((name, value)),
            (Ok(name), Err(_)) => self.refuse(format!("the value of the header {name} is none")),
            (Err(_), _) => self.refuse("the name of a header is none"),
        }
        self
    }

    /// Sends a cookie, beside those before. The name is a token, and the value has no white space,
    /// quote, comma, semicolon or backslash in it (RFC 6265 §4.1.1).
    #[must_use]
    pub fn cookie(mut self, name: &str, value: &str) -> Self {
        let is_octet = |byte: u8| byte.is_ascii_graphic() && !b"\",;\\".contains(&byte);
        if HeaderName::from_bytes(name.as_bytes()).is_err() || !value.bytes().all(is_octet) {
            self.refuse("a cookie has a name or a value that cannot be sent");
            return self;
        }
        if !self.cookies.is_empty() {
            self.cookies.push_str("; ");
        }
        self.cookies.push_str(name);
        self.cookies.push('=');
        self.cookies.push_str(value);
        self
    }

    /// Sends a name and a password as basic authentication (RFC 7617), in place of those in the
    /// address. The name has no colon.
    #[must_use]
    pub fn basic_auth(mut self, name: &str, password: &str) -> Self {
        match address::basic(name.as_bytes(), password.as_bytes()) {
            Some(value) => self.set(AUTHORIZATION, value),
            None => self.refuse("a user name has a colon in it, which cannot be sent"),
        }
        self
    }

    /// Sends a token as bearer authentication (RFC 6750 §2.1).
    #[must_use]
    pub fn bearer_auth(mut self, token: &str) -> Self {
        match HeaderValue::try_from(format!("Bearer {token}")) {
            Ok(mut value) => {
                value.set_sensitive(true);
                self.set(AUTHORIZATION, value);
            }
            Err(_) => self.refuse("a bearer token has characters that cannot be sent"),
        }
        self
    }

    /// Sets the `User-Agent`; `None` sends none.
    #[must_use]
    pub fn user_agent<'a>(mut self, agent: impl Into<Option<&'a str>>) -> Self {
        self.headers.retain(|(name, _)| *name != USER_AGENT);
        match agent.into() {
            Some(agent) => self.header(USER_AGENT, agent),
            None => self,
        }
    }

    /// Sets the `Origin` (RFC 6455 §10.2): for a client that speaks for a page, or for a server
    /// that asks for one. Default: none, as RFC 6455 §4.1 has it for clients that are no browsers.
    #[must_use]
    pub fn origin<V: TryInto<HeaderValue>>(mut self, origin: V) -> Self {
        match origin.try_into() {
            Ok(origin) => self.set(ORIGIN, origin),
            Err(_) => self.refuse("the origin has characters that cannot be sent"),
        }
        self
    }

    /// Offers a subprotocol, after those offered before: the order is that of preference. What the
    /// server chose, [`WebSocket::subprotocol`] tells.
    #[must_use]
    pub fn subprotocol(mut self, name: impl Into<Box<str>>) -> Self {
        self.subprotocols.push(name.into());
        self
    }

    /// Follows so many redirects (301, 302, 303, 307, 308). Default: 0.
    ///
    /// `Authorization`, `Cookie`, `Proxy-Authorization` and what the address had for a name and
    /// password are sent only as long as scheme, host and port stay the same. A redirect from TLS
    /// to a connection without, or to a Unix socket, is refused.
    #[must_use]
    pub fn max_redirects(mut self, count: usize) -> Self {
        self.max_redirects = count;
        self
    }

    /// Connects by a proxy; [`Proxy::from_env`] for that of the environment. Default: none.
    #[must_use]
    pub fn proxy(mut self, proxy: impl Into<Option<Proxy>>) -> Self {
        self.proxy = proxy.into();
        self
    }

    /// Makes connections with a service of the caller's: hyper-util's `HttpConnector` with options
    /// for TCP or a resolver, or any other. It is called with `http://host:port/`, the port always
    /// there, and makes a stream to that host, or to the proxy. TLS is added to it where it belongs.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use hyper_util::client::legacy::connect::HttpConnector;
    /// use ws_hyper::Connector;
    ///
    /// let mut tcp = HttpConnector::new();
    /// tcp.set_keepalive(Some(Duration::from_secs(60)));
    /// tcp.set_local_address(Some([127, 0, 0, 1].into()));
    /// let connector = Connector::new().transport(tcp);
    /// ```
    #[must_use]
    pub fn transport<S>(mut self, service: S) -> Self
    where
        S: Service<Uri> + Clone + Send + Sync + 'static,
        S::Response: Read + Write + Unpin + Send + 'static,
        S::Error: Into<BoxError> + Send,
        S::Future: Send,
    {
        self.dialer = Dialer::new(service);
        self
    }

    /// Sets whom to trust.
    #[cfg(feature = "rustls")]
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Tries HTTP/2 (RFC 8441) first: with TLS if the server agrees on it by ALPN, without TLS by
    /// prior knowledge. If the server does not speak it, or allows no extended CONNECT, it is
    /// connected to anew, over HTTP/1.1. Each socket has a connection of its own;
    /// [`connect_http2`](Self::connect_http2) puts many on one. Default: HTTP/1.1.
    #[cfg(feature = "http2")]
    #[must_use]
    pub fn prefer_http2(mut self) -> Self {
        self.prefers_http2 = true;
        self
    }

    /// Connects to a WebSocket. The response is the server's acceptance, with its headers: 101, or
    /// 200 over HTTP/2.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]: why there is none.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    pub async fn connect<A>(&self, address: A) -> Result<(WebSocket, Response<()>), ConnectError>
    where
        A: TryInto<Address>,
        A::Error: Into<ConnectError>,
    {
        let address = address.try_into().map_err(Into::into)?;
        let mut step = Step::Connecting;
        self.in_time(&mut step, async |step, deadline| {
            self.follow(address, deadline, step).await
        })
        .await
    }

    /// Does the handshake over a stream of the caller's, TLS included if the address says so: for
    /// streams that this crate does not know, and for tests. What has been read from it before is
    /// lost. There is no proxy, no HTTP/2, and no redirect is followed.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]: why there is no WebSocket.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the stream.
    pub async fn connect_with<Io, A>(
        &self,
        stream: Io,
        address: A,
    ) -> Result<(WebSocket, Response<()>), ConnectError>
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        A: TryInto<Address>,
        A::Error: Into<ConnectError>,
    {
        let address = address.try_into().map_err(Into::into)?;
        let handshake = self.handshake(&address, true)?;
        let mut step = Step::Tls;
        self.in_time(&mut step, async |step, deadline| {
            if !address.is_tls() {
                return self.upgrade(stream, None, &handshake, deadline, step).await;
            }
            #[cfg(feature = "rustls")]
            {
                let host = handshake.host();
                let stream = tls::handshake(self.tls.as_ref(), host, stream, Alpn::Http1).await?;
                self.upgrade(stream, None, &handshake, deadline, step).await
            }
            #[cfg(not(feature = "rustls"))]
            Err(tls::unavailable())
        })
        .await
    }

    /// Makes an HTTP/2 connection (RFC 8441), to open WebSockets on. With TLS the server must agree
    /// on it by ALPN; without, prior knowledge is assumed. The path of the address is the one that
    /// an empty path stands for.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]: why there is none; [`HttpErrorKind::NoHttp2`] if the server speaks no
    /// HTTP/2 or allows no WebSockets over it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    #[cfg(feature = "http2")]
    pub async fn connect_http2<A>(&self, address: A) -> Result<Http2, ConnectError>
    where
        A: TryInto<Address>,
        A::Error: Into<ConnectError>,
    {
        let address = address.try_into().map_err(Into::into)?;
        let mut step = Step::Connecting;
        self.in_time(&mut step, async |step, _| {
            Http2::connect(self, address, step).await
        })
        .await
    }

    /// Cuts an attempt at the deadline, and says what it was doing.
    async fn in_time<T>(
        &self,
        step: &mut Step,
        attempt: impl AsyncFnOnce(&mut Step, Instant) -> Result<T, ConnectError>,
    ) -> Result<T, ConnectError> {
        let after = self.config.handshake_timeout.min(YEAR);
        let deadline = Instant::now() + after;
        match timeout_at(deadline, attempt(step, deadline)).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::Timeout {
                during: *step,
                after,
            }),
        }
    }

    /// Connects, and goes where it is redirected to.
    async fn follow(
        &self,
        mut address: Address,
        deadline: Instant,
        step: &mut Step,
    ) -> Result<(WebSocket, Response<()>), ConnectError> {
        let mut with_credentials = true;
        let mut followed = 0;
        loop {
            let handshake = self.handshake(&address, with_credentials)?;
            let refusal = match self.open(&address, &handshake, deadline, step).await {
                Err(ConnectError::Refused(refusal))
                    if self.max_redirects > 0 && redirect::is_redirect(&refusal) =>
                {
                    refusal
                }
                result => return result,
            };
            if followed == self.max_redirects {
                let kind = RedirectErrorKind::TooMany(followed);
                return Err(ConnectError::Redirect(RedirectError::new(kind, refusal)));
            }
            followed += 1;
            let next = redirect::follow(&address, refusal).map_err(ConnectError::Redirect)?;
            if next.origin() == address.origin() {
                // Still the same place, be it a Unix socket.
                address = address.with_uri(next.uri().clone());
            } else {
                // For good: a redirect back would tell the first server what the second wants.
                with_credentials = false;
                address = next;
            }
        }
    }

    async fn open(
        &self,
        address: &Address,
        handshake: &Handshake,
        deadline: Instant,
        step: &mut Step,
    ) -> Result<(WebSocket, Response<()>), ConnectError> {
        #[cfg(feature = "http2")]
        if self.prefers_http2 {
            let io = self.stream(address, handshake, Alpn::Http2, step).await?;
            if address.is_tls() && !io.is_http2() {
                let peer = io.peer();
                return self.upgrade(io, peer, handshake, deadline, step).await;
            }
            *step = Step::Settings;
            // A server that does not know HTTP/2 may wait for the rest of a strange request.
            let patience = SETTINGS_TIMEOUT.min((deadline - Instant::now()) / 2);
            match tokio::time::timeout(patience, http2::Link::establish(io)).await {
                Ok(Ok(link)) => {
                    *step = Step::Answer;
                    let opened = link.open(handshake, deadline).await?;
                    return Ok(self.start(opened, link.peer));
                }
                Ok(Err(error)) => tracing::debug!(%error, "no http/2, trying http/1.1"),
                Err(_) => tracing::debug!("no http/2 settings, trying http/1.1"),
            }
        }
        let io = self.stream(address, handshake, Alpn::Http1, step).await?;
        let peer = io.peer();
        self.upgrade(io, peer, handshake, deadline, step).await
    }

    /// The stream on which HTTP is spoken.
    async fn stream(
        &self,
        address: &Address,
        handshake: &Handshake,
        alpn: Alpn,
        step: &mut Step,
    ) -> Result<Transport, ConnectError> {
        *step = Step::Connecting;
        if let Some(path) = address.socket_path() {
            return unix(path).await;
        }
        let (host, port) = (handshake.host(), handshake.port());
        let proxy = self.proxy.as_ref();
        let io = if let Some(proxy) = proxy.and_then(|proxy| proxy.intercept(address.uri())) {
            let tls = self.tls.as_ref();
            proxy::connect(&proxy, &self.dialer, tls, host, port, step).await?
        } else {
            let connected = self.dialer.dial(host, port).await;
            connected
                .map_err(|error| ConnectError::connect(format_args!("{host}:{port}"), error))?
        };
        if !address.is_tls() {
            return Ok(io);
        }
        *step = Step::Tls;
        tls::connect(self.tls.as_ref(), host, io, alpn).await
    }

    async fn upgrade<Io>(
        &self,
        io: Io,
        peer: Option<SocketAddr>,
        handshake: &Handshake,
        deadline: Instant,
        step: &mut Step,
    ) -> Result<(WebSocket, Response<()>), ConnectError>
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        *step = Step::Answer;
        let opened = exchange(io, handshake, deadline).await?;
        Ok(self.start(opened, peer))
    }

    /// Makes the connection that both ends have agreed on, and its session.
    fn start<Io>(&self, opened: Opened<Io>, peer: Option<SocketAddr>) -> (WebSocket, Response<()>)
    where
        Io: AsyncRead + AsyncWrite + Send + 'static,
    {
        let opening = opened.accepted.opening();
        let (subprotocol, _extensions) = opened.accepted.into_parts();
        let mut connection = Connection::new(Role::Client, Arc::clone(&self.config));
        if opening == Opening::ExtendedConnect {
            // A stream that is not read would hold up the whole HTTP/2 connection.
            connection = connection.without_pauses();
        }
        connection.receive(&opened.early);
        let (session, socket) = Session::after_handshake(opened.io, connection, subprotocol, peer);
        tokio::spawn(session);
        (socket, opened.response)
    }

    /// The request, and what its answer is checked against.
    fn handshake(
        &self,
        address: &Address,
        with_credentials: bool,
    ) -> Result<Handshake, ConnectError> {
        if let Some(wrong) = &self.wrong {
            return Err(ConnectError::Setting(String::from(&**wrong)));
        }
        let mut handshake = Handshake::new(address.uri())?;
        for name in &self.subprotocols {
            handshake = handshake.subprotocol(name)?;
        }
        let mut is_authorized = false;
        for (name, value) in &self.headers {
            is_authorized |= *name == AUTHORIZATION;
            if with_credentials || !CREDENTIALS.contains(name) {
                handshake = handshake.header(name.clone(), value.clone())?;
            }
        }
        if !with_credentials {
            return Ok(handshake);
        }
        if !self.cookies.is_empty() {
            let value = HeaderValue::try_from(&self.cookies)
                .map_err(|_| ConnectError::Setting("the cookies cannot be sent".into()))?;
            handshake = handshake.header(COOKIE, value)?;
        }
        if let Some(credentials) = address.credentials()
            && !is_authorized
        {
            handshake = handshake.header(AUTHORIZATION, credentials.clone())?;
        }
        Ok(handshake)
    }

    /// Sets a header in place of those of the same name.
    fn set(&mut self, name: HeaderName, value: HeaderValue) {
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value));
    }

    fn refuse(&mut self, text: impl Into<Box<str>>) {
        self.wrong.get_or_insert(text.into());
    }
}

/// How long a server's HTTP/2 settings may take where HTTP/1.1 would do; half of what is left of
/// the deadline, if that is less.
#[cfg(feature = "http2")]
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(3);

/// What is for the first server alone.
const CREDENTIALS: [HeaderName; 3] = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION];

/// The longest deadline: tokio's clock does not reach for ever.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

#[cfg(unix)]
async fn unix(path: &std::path::Path) -> Result<Transport, ConnectError> {
    match tokio::net::UnixStream::connect(path).await {
        Ok(stream) => Ok(Transport::Unix(stream)),
        Err(error) => Err(ConnectError::connect(path.display(), error)),
    }
}

#[cfg(not(unix))]
#[expect(clippy::unused_async, reason = "on unix it waits")]
async fn unix(_: &std::path::Path) -> Result<Transport, ConnectError> {
    let text = "this system's unix sockets are not supported";
    Err(ConnectError::Setting(text.into()))
}
