//! Ways around a wall: HTTP CONNECT and SOCKS5.

mod error;
mod tunnel;

use std::{fmt, future::ready, sync::Arc};

use http::Uri;
use hyper_util::{
    client::{
        legacy::connect::proxy::SocksV5,
        proxy::matcher::{Intercept, Matcher},
    },
    rt::TokioIo,
};
use tokio::time::Instant;
use tower::{Service, service_fn};
use ws_tower::BoxError;

pub use self::error::{ProxyError, ProxyErrorKind};
use super::{
    error::ConnectError,
    tls::{self, Tls},
    transport::{Dialer, Transport, authority},
};

/// Which proxy leads to which host.
///
/// | the proxy's address | is |
/// |---|---|
/// | `http://host:port` | an HTTP proxy, asked to CONNECT (RFC 9110 §9.3.6), also for `ws` |
/// | `https://host:port` | the same over TLS |
/// | `socks5://host:port`, `socks5h://host:port` | SOCKS5 (RFC 1928, RFC 1929); the proxy resolves the name |
///
/// The port is 80, 443 or 1080 if there is none. A name and a password in the address are sent to
/// the proxy, and to nobody else. A Unix socket is never behind a proxy.
///
/// ```
/// use ws_hyper::{Connector, client::Proxy};
///
/// let proxy = Proxy::new("socks5://name:secret@proxy.example:1080")?
///     .except("localhost, 127.0.0.0/8, .internal.example");
/// let connector = Connector::new().proxy(proxy);
/// # Ok::<(), ws_hyper::client::ConnectError>(())
/// ```
#[derive(Clone)]
pub struct Proxy {
    matcher: Arc<Matcher>,
    /// The address, for those that were given one.
    address: Option<Box<str>>,
}

impl Proxy {
    /// One proxy for every host.
    ///
    /// # Errors
    ///
    /// The address is none of the table's.
    pub fn new(address: impl Into<String>) -> Result<Self, ConnectError> {
        let address = address.into();
        let matcher = Matcher::builder().all(address.clone()).build();
        // The matcher goes without a proxy that it does not understand, which nobody here wants.
        let probe = Uri::from_static("http://host.invalid/");
        match matcher.intercept(&probe) {
            Some(found) if default_port(found.uri()).is_some() => Ok(Self {
                matcher: Arc::new(matcher),
                address: Some(address.into()),
            }),
            _ => Err(ConnectError::Setting(
                "the proxy's address is not understood: it begins with http://, https://, \
                 socks5:// or socks5h://, and has a host"
                    .into(),
            )),
        }
    }

    /// What the environment says, as curl reads it: `HTTPS_PROXY` for `wss`, `HTTP_PROXY` for
    /// `ws`, `ALL_PROXY` for both, `NO_PROXY` for neither; in capitals or not. They are read now.
    pub fn from_env() -> Self {
        let no_proxy = ["NO_PROXY", "no_proxy"].map(std::env::var);
        let no_proxy = no_proxy.into_iter().find_map(Result::ok);
        let matcher = if is_everything(no_proxy.as_deref().unwrap_or_default()) {
            Matcher::builder().build()
        } else {
            Matcher::from_env()
        };
        Self {
            matcher: Arc::new(matcher),
            address: None,
        }
    }

    /// Connects to these hosts directly, in place of those given before: names, which include
    /// those beneath them, addresses and networks (`10.0.0.0/8`), with commas in between; `*` for
    /// all. It has no meaning for a proxy [from the environment](Self::from_env), where
    /// `NO_PROXY` is.
    #[must_use]
    pub fn except(mut self, hosts: impl Into<String>) -> Self {
        let hosts = hosts.into();
        if let Some(address) = &self.address {
            let mut builder = Matcher::builder();
            if !is_everything(&hosts) {
                builder = builder.all(String::from(&**address)).no(hosts);
            }
            self.matcher = Arc::new(builder.build());
        }
        self
    }

    /// The proxy for a host, if it has one. The URI is that of the request.
    pub(super) fn intercept(&self, uri: &Uri) -> Option<Intercept> {
        // The matcher knows `http` and `https`.
        let scheme = match uri.scheme_str().map(str::to_ascii_lowercase).as_deref() {
            Some("wss" | "https") => "https",
            _ => "http",
        };
        let host = uri.authority()?;
        let uri: Uri = format!("{scheme}://{host}/").parse().ok()?;
        self.matcher.intercept(&uri)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The matcher keeps the credentials to itself.
        f.debug_tuple("Proxy").field(&self.matcher).finish()
    }
}

/// Whether no host has a proxy. The matcher takes the asterisk for all names, and for no address.
fn is_everything(hosts: &str) -> bool {
    hosts.split(',').any(|host| host.trim() == "*")
}

/// A stream through a proxy to a host and port.
pub(super) async fn connect(
    proxy: &Intercept,
    dialer: &Dialer,
    tls: Option<&Tls>,
    host: &str,
    port: u16,
    deadline: Instant,
) -> Result<Transport, ConnectError> {
    let uri = proxy.uri();
    let name = uri.host().unwrap_or_default();
    let bare = name.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let bare = bare.unwrap_or(name);
    let Some(default) = default_port(uri) else {
        let scheme = uri.scheme_str().unwrap_or_default();
        let text = format!("proxies of the kind {scheme} are not supported");
        return Err(ConnectError::Setting(text));
    };
    let proxy_port = uri.port_u16().unwrap_or(default);
    let shown = format!("{name}:{proxy_port}");
    let target = authority(host, port);
    let failed = |kind, error: BoxError| {
        ConnectError::Proxy(ProxyError::new(shown.as_str(), kind, Some(error)))
    };

    let io = dialer.dial(bare, proxy_port).await;
    let mut io = io.map_err(|error| failed(ProxyErrorKind::Unreachable, error))?;
    let is = |scheme: &str| uri.scheme_str() == Some(scheme);
    if is("https") {
        let encrypted = tls::connect(tls, bare, io, tls::Alpn::Http1).await;
        io = encrypted.map_err(|error| match error {
            ConnectError::Tls(error) => failed(ProxyErrorKind::Tls, error.into()),
            error => error,
        })?;
    }
    if is("http") || is("https") {
        let opened = tunnel::open(io, &target, proxy.basic_auth(), deadline, &shown).await;
        return opened.map_err(ConnectError::Proxy);
    }
    let target: Uri = format!("http://{target}/")
        .parse()
        .map_err(|error| ConnectError::connect(host, BoxError::from(error)))?;
    // The connector wants to connect itself; this hands it what there is.
    let mut io = Some(TokioIo::new(io));
    let connected = service_fn(move |_: Uri| {
        let io = io.take();
        ready(io.ok_or_else(|| std::io::Error::other("a proxy was asked twice")))
    });
    let mut socks = SocksV5::new(uri.clone(), connected);
    if let Some((name, password)) = proxy.raw_auth() {
        socks = socks.with_auth(name.to_owned(), password.to_owned());
    }
    let io = socks.call(target).await;
    let io = io.map_err(|error| failed(ProxyErrorKind::Failed, error.into()))?;
    Ok(io.into_inner())
}

/// The port of a proxy that has none; `None` for a proxy that is not supported.
fn default_port(uri: &Uri) -> Option<u16> {
    match uri.scheme_str()? {
        "http" => Some(80),
        "https" => Some(443),
        "socks5" | "socks5h" => Some(1080),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_no_proxy_is_refused_and_not_passed_over() {
        for address in [
            "",
            "ftp://proxy.example",
            "socks4://proxy.example",
            "http://",
            "a b",
        ] {
            assert!(Proxy::new(address).is_err(), "{address}");
        }
        for address in [
            "http://p.example",
            "p.example:3128",
            "socks5h://u:p@[::1]:1",
        ] {
            assert!(Proxy::new(address).is_ok(), "{address}");
        }
    }

    #[test]
    fn exceptions_are_names_addresses_and_networks() {
        let proxy = Proxy::new("http://p.example").unwrap();
        let proxy = proxy.except("direct.example, 127.0.0.0/8, ::1");
        let cases = [
            ("ws://a.example/", true),
            ("wss://a.example:8443/", true),
            ("WSS://a.example/", true),
            ("ws://direct.example/", false),
            ("wss://sub.direct.example/", false),
            ("ws://indirect.example/", true),
            ("ws://127.1.2.3:9/", false),
            ("ws://[::1]:9/", false),
            ("ws://128.0.0.1/", true),
        ];
        for (uri, is_proxied) in cases {
            let found = proxy.intercept(&uri.parse().unwrap());
            assert_eq!(found.is_some(), is_proxied, "{uri}");
        }
        let proxy = proxy.except("a.example, *");
        for uri in ["ws://b.example/", "ws://127.0.0.1/", "wss://[::1]/"] {
            assert!(proxy.intercept(&uri.parse().unwrap()).is_none(), "{uri}");
        }
    }

    #[test]
    fn credentials_are_not_shown() {
        let proxy = Proxy::new("http://name:secret@p.example").unwrap();
        assert!(!format!("{proxy:?}").contains("secret"));
        assert!(!format!("{proxy:?}").contains("bmFtZTpzZWNyZXQ"));
    }
}
