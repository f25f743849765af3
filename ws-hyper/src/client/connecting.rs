//! The steps from an address to a socket, under one deadline.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::Response;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout_at},
};
use ws_tower::{
    Session, WebSocket,
    ws_core::{
        Connection, Role,
        handshake::{Opening, client::Handshake},
    },
};

#[cfg(feature = "http2")]
use super::http2::{self, Http2Connection};
use super::{
    address::Address,
    connector::Connector,
    error::{ConnectError, RedirectError, RedirectErrorKind, Step},
    exchange::{Opened, exchange},
    proxy, redirect,
    tls::{self, Alpn},
    transport::{Transport, authority},
};

impl Connector {
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
    /// [`ConnectError`]: why there is none. It is [`NoHttp2`](super::HttpErrorKind::NoHttp2) if the
    /// server speaks no HTTP/2, or allows no WebSockets over it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    #[cfg(feature = "http2")]
    pub async fn connect_http2<A>(&self, address: A) -> Result<Http2Connection, ConnectError>
    where
        A: TryInto<Address>,
        A::Error: Into<ConnectError>,
    {
        let address = address.try_into().map_err(Into::into)?;
        let mut step = Step::Connecting;
        self.in_time(&mut step, async |step, deadline| {
            Http2Connection::connect(self, address, deadline, step).await
        })
        .await
    }

    /// Cuts an attempt at the deadline, and says what it was doing.
    pub(super) async fn in_time<T>(
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
            let io = self
                .stream(address, handshake, Alpn::Http2, deadline, step)
                .await?;
            if address.is_tls() && !io.is_http2() {
                let peer = io.peer();
                return self.upgrade(io, peer, handshake, deadline, step).await;
            }
            *step = Step::Settings;
            // A server that does not know HTTP/2 may wait for the rest of a strange request.
            let patience = SETTINGS_TIMEOUT.min((deadline - Instant::now()) / 2);
            match tokio::time::timeout(patience, http2::Link::establish(io, &self.config)).await {
                Ok(Ok(link)) => {
                    *step = Step::Answer;
                    let opened = link.open(handshake, deadline).await?;
                    return Ok(self.start(opened, link.peer));
                }
                Ok(Err(error)) => tracing::debug!(%error, "no http/2, trying http/1.1"),
                Err(_) => tracing::debug!("no http/2 settings, trying http/1.1"),
            }
        }
        let io = self
            .stream(address, handshake, Alpn::Http1, deadline, step)
            .await?;
        let peer = io.peer();
        self.upgrade(io, peer, handshake, deadline, step).await
    }

    /// The stream on which HTTP is spoken.
    pub(super) async fn stream(
        &self,
        address: &Address,
        handshake: &Handshake,
        alpn: Alpn,
        deadline: Instant,
        step: &mut Step,
    ) -> Result<Transport, ConnectError> {
        *step = Step::Connecting;
        if let Some(path) = address.socket_path() {
            return unix(path).await;
        }
        let (host, port) = (handshake.host(), handshake.port());
        let proxy = self.proxy.as_ref();
        let io = if let Some(proxy) = proxy.and_then(|proxy| proxy.intercept(address.uri())) {
            *step = Step::Proxy;
            let tls = self.tls.as_ref();
            proxy::connect(&proxy, &self.dialer, tls, host, port, deadline).await?
        } else {
            let connected = self.dialer.dial(host, port).await;
            connected.map_err(|error| ConnectError::connect(authority(host, port), error))?
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
    pub(super) fn start<Io>(
        &self,
        opened: Opened<Io>,
        peer: Option<SocketAddr>,
    ) -> (WebSocket, Response<()>)
    where
        Io: AsyncRead + AsyncWrite + Send + 'static,
    {
        let opening = opened.accepted.opening();
        let (subprotocol, extensions) = opened.accepted.into_parts();
        let mut connection =
            Connection::new(Role::Client, Arc::clone(&self.config)).with_extensions(&extensions);
        if opening == Opening::ExtendedConnect {
            // A stream that is not read would hold up the whole HTTP/2 connection.
            connection = connection.without_pauses();
        }
        connection.receive(&opened.early);
        let (session, socket) = Session::after_handshake(opened.io, connection, subprotocol, peer);
        tokio::spawn(session);
        (socket, opened.response)
    }
}

/// How long a server's HTTP/2 settings may take where HTTP/1.1 would do; half of what is left of
/// the deadline, if that is less.
#[cfg(feature = "http2")]
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest deadline: tokio's clock does not reach for ever.
pub(super) const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

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
