//! The client's way to a socket: name resolution, TCP, TLS and the opening handshake.

mod credentials;
mod error;

use std::{
    io,
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderName, HeaderValue, Response, Uri, header::AUTHORIZATION, uri::Scheme};

pub use self::error::{ConnectError, Stage};
use super::{
    head::{Exchange, HeadError, encode_request},
    socket::WebSocket,
    stream::{Stream, TimedStream},
};
use crate::{
    Config, Connection, Role,
    handshake::{
        Accepted,
        client::{Handshake, Refusal},
        conceal,
    },
};

/// How long the body of a refusal is awaited at most: it is a courtesy to whoever reads the error.
const BODY_WAIT: Duration = Duration::from_secs(1);

/// Makes client sockets: what to ask for, and how long to wait for it.
///
/// It can be used again and again, and cloned at little cost. A value that cannot be sent, such as a
/// cookie with a line break in it, is told by the connect.
///
/// ```no_run
/// use ws_core::{Config, blocking::Connector};
///
/// let connector = Connector::new()
///     .bearer_auth("3vJx")
///     .subprotocol("chat.v2")
///     .config(Config::new().max_message_size(16 << 20));
/// let (mut socket, response) = connector.connect("ws://chat.example/rooms")?;
/// assert_eq!(response.status(), 101);
/// assert_eq!(socket.subprotocol(), Some("chat.v2"));
/// socket.send("Hello")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a connector does nothing before it connects"]
pub struct Connector {
    config: Arc<Config>,
    headers: Vec<(HeaderName, HeaderValue)>,
    subprotocols: Vec<String>,
    #[cfg(feature = "rustls")]
    tls: Option<Arc<rustls::ClientConfig>>,
    /// What is wrong with a setting.
    wrong: Option<Box<str>>,
}

impl Connector {
    /// A connector with the default limits and times that asks for nothing in particular.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the limits and times of the sockets. [`Config::handshake_timeout`] is for the whole
    /// way to a socket, but for the resolution of the host's name, which the operating system does
    /// in its own time. Default: [`Config::new`].
    pub fn config(mut self, config: impl Into<Arc<Config>>) -> Self {
        self.config = config.into();
        self
    }

    /// Adds a header to the request, beside others of the same name. Default: those of the
    /// handshake only.
    ///
    /// A header that belongs to the handshake itself makes [`connect`](Self::connect) fail.
    /// Credentials and cookies stay out of `Debug`; mark the values of other headers as
    /// [sensitive](HeaderValue::set_sensitive).
    pub fn header(mut self, name: HeaderName, mut value: HeaderValue) -> Self {
        conceal(&name, &mut value);
        self.headers.push((name, value));
        self
    }

    /// Offers a subprotocol, after those that are offered already. Default: none.
    ///
    /// One that is not a token, or is offered twice, makes [`connect`](Self::connect) fail.
    pub fn subprotocol(mut self, name: impl Into<String>) -> Self {
        self.subprotocols.push(name.into());
        self
    }

    /// Sets how TLS is spoken for `wss`: the roots to trust, a certificate of the client's own.
    /// Default: TLS 1.2 and 1.3 by *ring*, with the roots that Mozilla trusts.
    #[cfg(feature = "rustls")]
    pub fn tls(mut self, config: impl Into<Arc<rustls::ClientConfig>>) -> Self {
        self.tls = Some(config.into());
        self
    }

    /// Connects to a URI of the scheme `ws`, `wss`, `http` or `https`; returns the socket, and the
    /// response for its headers. A name and a password in it (`ws://name:password@host`) are sent
    /// as basic authentication, unless an `Authorization` is set.
    ///
    /// All addresses of the host are tried in turn, those of IPv6 and IPv4 by turns, and each has
    /// its share of the time that is left. `TCP_NODELAY` is on.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] says how far it came, and what to do.
    pub fn connect<U>(&self, uri: U) -> Result<(WebSocket, Response<()>), ConnectError>
    where
        U: TryInto<Uri>,
        U::Error: Into<http::Error>,
    {
        let handshake = self.handshake(uri)?;
        let is_tls = *handshake.scheme() == Scheme::HTTPS;
        if is_tls && !cfg!(feature = "rustls") {
            return Err(ConnectError::TlsUnavailable);
        }
        let addresses = resolve(handshake.host(), handshake.port())?;
        let deadline = self.deadline();
        let tcp = connect_to_any(&addresses, deadline, handshake.host())?;
        let stream = if is_tls {
            self.encrypt(tcp, handshake.host(), deadline)?
        } else {
            tcp.into()
        };
        self.open(&handshake, stream, deadline)
    }

    /// Opens a socket over a stream of the caller's: a Unix socket, a tunnel through a proxy, TLS
    /// of another kind. Nothing is put around it, not even for `wss`; the URI says what to ask for.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Self::connect) that come after the connection.
    ///
    /// ```no_run
    /// # #[cfg(unix)] {
    /// use std::os::unix::net::UnixStream;
    /// use ws_core::blocking::Connector;
    ///
    /// let stream = UnixStream::connect("/run/chat.sock")?;
    /// let (mut socket, _) = Connector::new().connect_over("ws://localhost/rooms", stream)?;
    /// socket.send("Hello")?;
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn connect_over<U, S>(
        &self,
        uri: U,
        stream: S,
    ) -> Result<(WebSocket<S>, Response<()>), ConnectError>
    where
        U: TryInto<Uri>,
        U::Error: Into<http::Error>,
        S: TimedStream,
    {
        self.open(&self.handshake(uri)?, stream, self.deadline())
    }

    fn handshake<U>(&self, uri: U) -> Result<Handshake, ConnectError>
    where
        U: TryInto<Uri>,
        U::Error: Into<http::Error>,
    {
        let uri = uri
            .try_into()
            .map_err(|error| ConnectError::Uri(error.into()))?;
        if let Some(wrong) = &self.wrong {
            return Err(ConnectError::Setting(String::from(&**wrong)));
        }
        let (uri, user) = credentials::take_user_info(uri).map_err(ConnectError::Uri)?;
        let mut handshake = Handshake::new(&uri)?.negotiate(&self.config);
        if let Some(user) = user
            && self.headers.iter().all(|(name, _)| *name != AUTHORIZATION)
        {
            let value = credentials::basic(&user.name, &user.password)
                .ok_or_else(|| ConnectError::Setting(credentials::COLON.into()))?;
            handshake = handshake.header(AUTHORIZATION, value)?;
        }
        for (name, value) in &self.headers {
            handshake = handshake.header(name.clone(), value.clone())?;
        }
        for name in &self.subprotocols {
            handshake = handshake.subprotocol(name)?;
        }
        Ok(handshake)
    }

    fn deadline(&self) -> Instant {
        /// As good as never.
        const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
        Instant::now() + self.config.handshake_timeout.min(YEAR)
    }

    #[cfg(feature = "rustls")]
    fn encrypt(
        &self,
        tcp: TcpStream,
        host: &str,
        deadline: Instant,
    ) -> Result<Stream, ConnectError> {
        use rustls::{ClientConnection, pki_types::ServerName};

        use super::tls::{self, TlsStream};

        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                ConnectError::TimedOut(Stage::Tls)
            }
            _ => ConnectError::Tls {
                host: host.to_owned(),
                error,
            },
        };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let config = match &self.tls {
            Some(config) => Arc::clone(config),
            None => tls::default_config()
                .map_err(io::Error::other)
                .map_err(failed)?,
        };
        let session = ClientConnection::new(config, name)
            .map_err(io::Error::other)
            .map_err(failed)?;
        let mut stream = TlsStream::new(session, tcp);
        stream.handshake(deadline).map_err(failed)?;
        Ok(stream.into())
    }

    #[cfg(not(feature = "rustls"))]
    #[expect(
        clippy::unused_self,
        reason = "it is the settings' with the feature `rustls`"
    )]
    fn encrypt(&self, _: TcpStream, _: &str, _: Instant) -> Result<Stream, ConnectError> {
        Err(ConnectError::TlsUnavailable)
    }

    /// The opening handshake (RFC 6455 §4.1).
    fn open<S: TimedStream>(
        &self,
        handshake: &Handshake,
        mut stream: S,
        deadline: Instant,
    ) -> Result<(WebSocket<S>, Response<()>), ConnectError> {
        let mut exchange = Exchange::new(&mut stream, deadline);
        let response = exchange
            .write(&encode_request(&handshake.request()))
            .and_then(|()| exchange.response())
            .map_err(|error| match error {
                HeadError::TimedOut => ConnectError::TimedOut(Stage::Response),
                error => ConnectError::Response(error),
            })?;
        match handshake.finish(&response) {
            Ok(accepted) => {
                let mut connection = self.connection(&accepted);
                // RFC 6455 §4.1 lets the server speak at once.
                connection.receive(&exchange.into_rest());
                let (subprotocol, _) = accepted.into_parts();
                let socket = WebSocket::new(stream, connection).with_subprotocol(subprotocol);
                Ok((socket, response))
            }
            Err(refusal) => {
                let patience = Instant::now() + BODY_WAIT;
                exchange.deadline = exchange.deadline.min(patience);
                let body = exchange.body(response.headers(), Refusal::MAX_BODY);
                Err(refusal.with_body(&body).into())
            }
        }
    }

    fn connection(&self, accepted: &Accepted) -> Connection {
        Connection::new(Role::Client, Arc::clone(&self.config))
            .with_extensions(accepted.extensions())
            .without_control_events()
    }
}

/// The addresses of a host, IPv6 and IPv4 by turns, the first as the system prefers it (RFC 8305
/// §4): if one family does not work, the other is not far.
fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
    let failed = |error| ConnectError::Resolve {
        host: host.to_owned(),
        error,
    };
    let found: Vec<_> = (host, port).to_socket_addrs().map_err(failed)?.collect();
    let Some(first) = found.first() else {
        let error = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        return Err(failed(error));
    };
    Ok(interleave(&found, first.is_ipv6()))
}

fn interleave(addresses: &[SocketAddr], starts_with_ipv6: bool) -> Vec<SocketAddr> {
    let (first, second): (Vec<SocketAddr>, Vec<_>) = addresses
        .iter()
        .copied()
        .partition(|address| address.is_ipv6() == starts_with_ipv6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut all = Vec::with_capacity(addresses.len());
    while all.len() < addresses.len() {
        all.extend(first.next());
        all.extend(second.next());
    }
    all
}

fn connect_to_any(
    addresses: &[SocketAddr],
    deadline: Instant,
    host: &str,
) -> Result<TcpStream, ConnectError> {
    let mut failures = Vec::new();
    for (address, after) in addresses.iter().zip((0..addresses.len()).rev()) {
        let left = deadline.saturating_duration_since(Instant::now());
        let shares = u32::try_from(after + 1).unwrap_or(u32::MAX);
        let share = (left / shares).max(Duration::from_millis(1));
        let connected = TcpStream::connect_timeout(address, share).and_then(|tcp| {
            tcp.set_nodelay(true)?;
            Ok(tcp)
        });
        match connected {
            Ok(tcp) => return Ok(tcp),
            Err(error) => failures.push((*address, error)),
        }
    }
    let is_timeout = |(_, error): &(SocketAddr, io::Error)| error.kind() == io::ErrorKind::TimedOut;
    if failures.iter().all(is_timeout) {
        return Err(ConnectError::TimedOut(Stage::Connect));
    }
    Err(ConnectError::Connect {
        host: host.to_owned(),
        failures,
    })
}

#[cfg(test)]
mod tests {
    use http::header::COOKIE;

    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let secret = || HeaderValue::from_static("s3cret");
        let connector = Connector::new()
            .header(AUTHORIZATION, secret())
            .header(COOKIE, secret());
        let shown = format!("{connector:?}");
        assert!(!shown.contains("s3cret"), "{shown}");
        assert!(shown.contains("authorization") && shown.contains("cookie"));
    }

    #[test]
    fn families_take_turns_and_no_address_is_lost() {
        let addresses: Vec<SocketAddr> =
            ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "1.1.1.2:1"]
                .iter()
                .map(|address| address.parse().unwrap())
                .collect();
        let order = |starts_with_ipv6| {
            let order = interleave(&addresses, starts_with_ipv6);
            order.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let expected = ["[::1]:1", "1.1.1.1:1", "[::2]:1", "1.1.1.2:1", "[::3]:1"];
        assert_eq!(order(true), expected);
        let expected = ["1.1.1.1:1", "[::1]:1", "1.1.1.2:1", "[::2]:1", "[::3]:1"];
        assert_eq!(order(false), expected);
    }
}
