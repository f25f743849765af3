//! Where a WebSocket is: a URI, or a Unix socket and a path behind it.

use std::{convert::Infallible, error::Error, fmt, path::PathBuf, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{
    HeaderValue, Uri,
    uri::{Authority, InvalidUri, Scheme},
};
use percent_encoding::percent_decode_str;

/// The address of a WebSocket: what [`connect`](crate::connect) takes.
///
/// | address | is |
/// |---|---|
/// | `ws://host:port/path?query` | RFC 6455 §3, without TLS; the port is 80 if there is none |
/// | `wss://host:port/path?query` | the same with TLS; the port is 443 if there is none |
/// | `http://…`, `https://…` | the same as `ws` and `wss` |
/// | `ws+unix:///path/of/socket:/path?query` | a Unix socket, without TLS, as the Node package `ws` writes it: the path of the socket, which is absolute, then after the first colon what is requested, or `/`; `Host` is `localhost` |
///
/// A name and a password (`ws://name:password@host`) are taken out of the URI and sent as basic
/// authentication, unless an `Authorization` is set. Bytes that have a meaning in a URI are
/// percent-encoded: `%40` is an `@` in a password, `%3A` a colon in a socket's path. TLS over a
/// Unix socket, `wss+unix`, is refused; hand such a stream to
/// [`Connector::connect_with`](super::Connector::connect_with).
///
/// ```
/// use ws_hyper::client::Address;
///
/// let address: Address = "wss://name:secret@chat.example/rooms?id=7".parse()?;
/// assert_eq!(address.uri(), "wss://chat.example/rooms?id=7");
///
/// let address: Address = "ws+unix:///run/chat.sock:/rooms?id=7".parse()?;
/// assert_eq!(address.uri(), "ws://localhost/rooms?id=7");
/// assert_eq!(address.socket_path().unwrap().to_str(), Some("/run/chat.sock"));
/// # Ok::<(), ws_hyper::client::AddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    uri: Uri,
    socket: Option<PathBuf>,
    /// A value of `Authorization`; it is marked as sensitive, and `Debug` does not show it.
    credentials: Option<HeaderValue>,
}

impl Address {
    /// The URI, without a name and password; for a Unix socket `ws://localhost` and the path that
    /// is requested.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The path of the Unix socket, if it is one.
    pub fn socket_path(&self) -> Option<&std::path::Path> {
        self.socket.as_deref()
    }

    /// What the URI's name and password are as an `Authorization`.
    pub(super) fn credentials(&self) -> Option<&HeaderValue> {
        self.credentials.as_ref()
    }

    pub(super) fn is_tls(&self) -> bool {
        matches!(self.uri.scheme_str(), Some(scheme) if is(scheme, "wss") || is(scheme, "https"))
    }

    /// The scheme, host and port: what RFC 6454 calls the origin. `ws` is `http` in it.
    pub(super) fn origin(&self) -> (bool, String, u16) {
        let host = self.uri.host().unwrap_or_default().to_ascii_lowercase();
        let default = if self.is_tls() { 443 } else { 80 };
        let port = self.uri.port_u16().unwrap_or(default);
        (self.is_tls(), host, port)
    }

    /// Another URI in the same place: the socket and the credentials are kept.
    pub(super) fn with_uri(self, uri: Uri) -> Self {
        Self { uri, ..self }
    }

    /// Where a redirect leads. It names no Unix socket, and brings no credentials along.
    pub(super) fn redirected(uri: &Uri) -> Result<Self, AddressError> {
        let address = Self::try_from(uri)?;
        Ok(Self {
            credentials: None,
            ..address
        })
    }

    fn from_unix(rest: &str) -> Result<Self, AddressError> {
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
        let (place, query) = match rest.split_once('?') {
            Some((place, query)) => (place, Some(query)),
            None => (rest, None),
        };
        let (socket, path) = place.split_once(':').unwrap_or((place, "/"));
        let socket: Vec<u8> = percent_decode_str(socket).collect();
        if !socket.starts_with(b"/") || socket.len() < 2 || socket.contains(&0) {
            return Err(AddressError::SocketPath);
        }
        let mut uri = format!("ws://localhost/{}", path.strip_prefix('/').unwrap_or(path));
        if let Some(query) = query {
            uri.push('?');
            uri.push_str(query);
        }
        Ok(Self {
            uri: uri.parse().map_err(AddressError::Syntax)?,
            socket: Some(path_of(socket)?),
            credentials: None,
        })
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some((scheme, rest)) = text.split_once(':') {
            if is(scheme, "ws+unix") {
                return Self::from_unix(rest);
            }
            if is(scheme, "wss+unix") {
                return Err(AddressError::TlsOverUnix);
            }
        }
        let uri: Uri = text.parse().map_err(AddressError::Syntax)?;
        Self::try_from(uri)
    }
}

impl TryFrom<&str> for Address {
    type Error = AddressError;

    fn try_from(text: &str) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl TryFrom<&String> for Address {
    type Error = AddressError;

    fn try_from(text: &String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl TryFrom<&Uri> for Address {
    type Error = AddressError;

    fn try_from(uri: &Uri) -> Result<Self, AddressError> {
        Self::try_from(uri.clone())
    }
}

impl TryFrom<Uri> for Address {
    type Error = AddressError;

    fn try_from(uri: Uri) -> Result<Self, AddressError> {
        let mut parts = uri.into_parts();
        let scheme = parts.scheme.as_ref().map(Scheme::as_str);
        let known = ["ws", "wss", "http", "https"];
        if !scheme.is_some_and(|scheme| known.iter().any(|known| is(scheme, known))) {
            return Err(AddressError::Scheme(scheme.map(str::to_owned)));
        }
        let mut credentials = None;
        if let Some(authority) = &parts.authority
            && let Some((user_info, host)) = authority.as_str().rsplit_once('@')
        {
            credentials = Some(decoded_basic(user_info)?);
            parts.authority = Some(Authority::try_from(host).map_err(AddressError::Syntax)?);
        }
        Ok(Self {
            // The parts are those of a URI, but for the authority, which has become shorter.
            uri: Uri::from_parts(parts).map_err(|_| AddressError::Host)?,
            socket: None,
            credentials,
        })
    }
}

/// `Basic`, as RFC 7617 has it; `None` for a name with a colon in it, which would end there.
pub(super) fn basic(name: &[u8], password: &[u8]) -> Option<HeaderValue> {
    if name.contains(&b':') {
        return None;
    }
    let pair = [name, b":", password].concat();
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn decoded_basic(user_info: &str) -> Result<HeaderValue, AddressError> {
    let (name, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    let name: Vec<u8> = percent_decode_str(name).collect();
    let password: Vec<u8> = percent_decode_str(password).collect();
    basic(&name, &password).ok_or(AddressError::UserName)
}

/// RFC 3986 §3.1: schemes are compared without case.
fn is(scheme: &str, known: &str) -> bool {
    scheme.eq_ignore_ascii_case(known)
}

#[cfg(unix)]
#[expect(
    clippy::unnecessary_wraps,
    reason = "elsewhere a path has to be unicode"
)]
fn path_of(bytes: Vec<u8>) -> Result<PathBuf, AddressError> {
    use std::{ffi::OsString, os::unix::ffi::OsStringExt};
    Ok(OsString::from_vec(bytes).into())
}

#[cfg(not(unix))]
fn path_of(bytes: Vec<u8>) -> Result<PathBuf, AddressError> {
    let path = String::from_utf8(bytes).map_err(|_| AddressError::SocketPath)?;
    Ok(path.into())
}

/// An address that is none.
#[derive(Debug)]
#[non_exhaustive]
pub enum AddressError {
    /// There is no host.
    Host,
    /// The scheme is none of `ws`, `wss`, `http`, `https` and `ws+unix`; `None` if there is none.
    Scheme(Option<String>),
    /// The path of the Unix socket is not absolute.
    SocketPath,
    /// It is no URI.
    Syntax(InvalidUri),
    /// `wss+unix`: whose certificate that would be, the address does not say.
    TlsOverUnix,
    /// The user name has a colon in it, which basic authentication cannot send (RFC 7617 §2).
    UserName,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("the address has no host"),
            Self::Scheme(Some(scheme)) => write!(
                f,
                "the address begins with `{scheme}`, not with ws, wss, http, https or ws+unix"
            ),
            Self::Scheme(None) => f.write_str(
                "the address has no scheme: it begins with ws:// or wss://, or else with http://, \
                 https:// or ws+unix://",
            ),
            Self::SocketPath => f.write_str(
                "the address of a unix socket has an absolute path: ws+unix:///run/a.sock:/path",
            ),
            Self::Syntax(_) => f.write_str("the address is no uri"),
            Self::TlsOverUnix => f.write_str(
                "wss+unix is not supported: use ws+unix, or connect with a stream of your own",
            ),
            Self::UserName => f.write_str(
                "the address has a user name with a colon in it, which basic authentication \
                 cannot send",
            ),
        }
    }
}

impl Error for AddressError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Syntax(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Infallible> for AddressError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_uri_without_its_user() {
        let cases = [
            ("ws://a.example", "ws://a.example/", None),
            ("WSS://a.example:1/x?y", "WSS://a.example:1/x?y", None),
            ("http://[::1]:80/x", "http://[::1]:80/x", None),
            ("ws://u:p@a.example/", "ws://a.example/", Some("u:p")),
            ("ws://u@a.example/", "ws://a.example/", Some("u:")),
            (
                "ws://u%40x:p%3a%2F@a.example/",
                "ws://a.example/",
                Some("u@x:p:/"),
            ),
        ];
        for (text, uri, credentials) in cases {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.uri().to_string(), uri);
            assert_eq!(address.socket_path(), None);
            let expected = credentials.map(|it| format!("Basic {}", STANDARD.encode(it)));
            let found = address.credentials().map(|it| it.to_str().unwrap());
            assert_eq!(found, expected.as_deref(), "{text}");
            assert!(
                !format!("{address:?}").contains("Basic"),
                "they stay secret"
            );
        }
    }

    #[test]
    fn a_unix_socket_has_a_path_and_a_request() {
        let cases = [
            ("ws+unix:///run/a.sock", "/run/a.sock", "/"),
            ("ws+unix:/run/a.sock", "/run/a.sock", "/"),
            ("ws+unix:///run/a.sock:/x/y?z=1", "/run/a.sock", "/x/y?z=1"),
            ("WS+UNIX:///run/a.sock:x", "/run/a.sock", "/x"),
            ("ws+unix:///run/a.sock?z", "/run/a.sock", "/?z"),
            ("ws+unix:///run/a%3Ab%20c:/x:y#f", "/run/a:b c", "/x:y"),
        ];
        for (text, socket, path) in cases {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.socket_path().unwrap().to_str(), Some(socket));
            assert_eq!(address.uri().path_and_query().unwrap(), path, "{text}");
            assert_eq!(address.uri().authority().unwrap(), "localhost");
        }
    }

    #[test]
    fn what_is_no_address_says_why() {
        let cases = [
            ("a.example", "no scheme"),
            ("ftp://a.example/", "`ftp`"),
            ("wss+unix:///a", "wss+unix"),
            ("ws+unix://a", "absolute"),
            ("ws+unix://", "absolute"),
            ("ws://", "no uri"),
            ("ws:///x", "no uri"),
            ("ws://a b/", "no uri"),
            ("ws://x%3Ay:p@a.example/", "colon"),
            ("", "no uri"),
        ];
        for (text, part) in cases {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let origin = |text: &str| text.parse::<Address>().unwrap().origin();
        assert_eq!(origin("ws://A.example/x"), origin("http://a.example:80/y"));
        assert_ne!(origin("ws://a.example/"), origin("wss://a.example/"));
        assert_ne!(origin("ws://a.example/"), origin("ws://a.example:81/"));
        assert_ne!(origin("ws://a.example/"), origin("ws://b.example/"));
    }
}
