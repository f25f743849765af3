//! The settings of a client, and the request they make.

use std::{fmt, sync::Arc};

use http::{
    HeaderName, HeaderValue, Uri,
    header::{AUTHORIZATION, COOKIE, ORIGIN, PROXY_AUTHORIZATION, USER_AGENT},
};
use hyper::rt::{Read, Write};
use tower::Service;
use ws_tower::{BoxError, Config, ws_core::handshake::client::Handshake};

use super::{
    address::{self, Address},
    error::ConnectError,
    proxy::Proxy,
    tls::Tls,
    transport::Dialer,
};

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
#[derive(Clone)]
pub struct Connector {
    pub(super) config: Arc<Config>,
    headers: Vec<(HeaderName, HeaderValue)>,
    cookies: String,
    subprotocols: Vec<Box<str>>,
    pub(super) max_redirects: usize,
    pub(super) proxy: Option<Proxy>,
    pub(super) dialer: Dialer,
    pub(super) tls: Option<Tls>,
    #[cfg(feature = "http2")]
    pub(super) prefers_http2: bool,
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
            (Ok(name), Ok(value)) => {
                let mut value: HeaderValue = value;
                value.set_sensitive(value.is_sensitive() || CREDENTIALS.contains(&name));
                self.headers.push((name, value));
            }
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
    /// server chose, [`WebSocket::subprotocol`](ws_tower::WebSocket::subprotocol) tells.
    #[must_use]
    pub fn subprotocol(mut self, name: impl Into<Box<str>>) -> Self {
        self.subprotocols.push(name.into());
        self
    }

    /// Follows so many redirects (301, 302, 303, 307, 308). Default: 0.
    ///
    /// `Authorization`, `Cookie`, `Proxy-Authorization` and what the address had for a name and
    /// password are sent only as long as scheme, host and port stay the same. Other headers and the
    /// names of subprotocols go to any host: what is secret does not belong there. A redirect from
    /// TLS to a connection without, or to a Unix socket, is refused.
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

    /// The request, and what its answer is checked against.
    pub(super) fn handshake(
        &self,
        address: &Address,
        with_credentials: bool,
    ) -> Result<Handshake, ConnectError> {
        if let Some(wrong) = &self.wrong {
            return Err(ConnectError::Setting(String::from(&**wrong)));
        }
        let mut handshake = Handshake::new(address.uri())?.negotiate(&self.config);
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
            let mut value = HeaderValue::try_from(&self.cookies)
                .map_err(|_| ConnectError::Setting("the cookies cannot be sent".into()))?;
            value.set_sensitive(true);
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

/// Without what is secret: the cookies, and what is sensitive among the headers.
impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cookies = self.cookies.split("; ");
        let names = cookies.filter_map(|it| Some(it.split_once('=')?.0));
        f.debug_struct("Connector")
            .field("config", &self.config)
            .field("headers", &self.headers)
            .field("cookies", &names.collect::<Vec<_>>())
            .field("subprotocols", &self.subprotocols)
            .field("max_redirects", &self.max_redirects)
            .field("proxy", &self.proxy)
            .finish_non_exhaustive()
    }
}

/// What is for the first server alone.
const CREDENTIALS: [HeaderName; 3] = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let connector = Connector::new()
            .cookie("session", "s3cret")
            .cookie("theme", "s3cret")
            .header("cookie", "other=s3cret")
            .header("authorization", "s3cret")
            .bearer_auth("s3cret");
        let shown = format!("{connector:?}");
        assert!(!shown.contains("s3cret"), "{shown}");
        assert!(shown.contains("session") && shown.contains("theme"));
        assert!(format!("{:?}", Connector::new()).contains("cookies: []"));
        let address = "ws://a.example/".parse().unwrap();
        let handshake = connector.handshake(&address, true).unwrap();
        let shown = format!("{:?}", handshake.request());
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}
