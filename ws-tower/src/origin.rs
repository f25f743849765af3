//! The origin policy: which pages may open a WebSocket (RFC 6455 §10.2).
//!
//! A browser lets any page open a WebSocket to any host, with the user's cookies, and says in
//! `Origin` which page it is. Only the server can refuse. What is not a browser sends no `Origin`
//! and could send any; the policy is no protection against it.

use std::{error::Error, fmt, sync::Arc};

use http::{
    HeaderMap,
    header::{HOST, ORIGIN},
    request::Parts,
    uri::Authority,
};

/// Which pages may open a WebSocket. Default: [`same_origin`](Self::same_origin).
///
/// | `Origin` of the request | same origin | with [`allow`](Self::allow) |
/// |---|---|---|
/// | absent: not a browser | passes | passes |
/// | host and port of the request | passes | passes |
/// | another | refused | passes if it is listed |
/// | `null`: a sandboxed frame, a `file:` page | refused | refused |
/// | more than one, or not an origin | refused | refused |
///
/// A refusal is a 403 whose text names both sides and the setting.
///
/// The server's own scheme is unknown (TLS may end at a proxy before it), so the scheme of the
/// `Origin` counts for the default port only: 80 for `http`, 443 for `https`. Some clients send
/// `ws` and `wss`; they are read as `http` and `https`. Hosts are compared without case.
///
/// **Behind a proxy** the request's host must be the one in the browser. nginx replaces it,
/// unless it is told `proxy_set_header Host $http_host;`.
///
/// ```
/// use ws_tower::OriginPolicy;
///
/// let policy = OriginPolicy::same_origin().allow("https://app.example")?;
/// assert!(policy.allows("https://chat.example", "chat.example:443"));
/// assert!(policy.allows("https://app.example", "chat.example"));
/// assert!(!policy.allows("https://evil.example", "chat.example"));
/// # Ok::<(), ws_tower::origin::InvalidOrigin>(())
/// ```
#[derive(Clone)]
pub struct OriginPolicy {
    base: Base,
    // Shared: the policy is cloned for each request.
    allowed: Arc<Vec<Origin>>,
}

#[derive(Clone)]
enum Base {
    Any,
    Predicate(Arc<Predicate>),
    SameOrigin,
}

type Predicate = dyn Fn(&str, &str) -> bool + Send + Sync;

impl OriginPolicy {
    /// Pages of the host and port that the request was sent to, and clients that are no
    /// browsers.
    pub fn same_origin() -> Self {
        Self::new(Base::SameOrigin)
    }

    /// Pages that a function of the application lets pass, and clients that are no browsers. It
    /// gets the `Origin` as it came, several joined by commas, and the authority that the request
    /// was sent to.
    ///
    /// ```
    /// use ws_tower::OriginPolicy;
    ///
    /// let policy = OriginPolicy::predicate(|origin, _| origin.ends_with(".corp.example"));
    /// assert!(policy.allows("https://wiki.corp.example", "chat.example"));
    /// ```
    pub fn predicate(predicate: impl Fn(&str, &str) -> bool + Send + Sync + 'static) -> Self {
        Self::new(Base::Predicate(Arc::new(predicate)))
    }

    /// Every page of the web. It may act with the rights of any user who happens to visit it:
    /// right for public data, and for sockets that authenticate by something else than cookies,
    /// client certificates or the network they are in.
    pub fn dangerously_any() -> Self {
        Self::new(Base::Any)
    }

    /// Lets pages of one more origin pass: scheme, host, and a port if it is not the default, as
    /// `https://app.example`. Schemes of browser extensions and of desktop shells are fine.
    ///
    /// # Errors
    ///
    /// It is not an origin: there is a path, for instance, or no scheme.
    pub fn allow(mut self, origin: &str) -> Result<Self, InvalidOrigin> {
        let parsed = Origin::parse(origin).ok_or_else(|| InvalidOrigin(origin.to_owned()))?;
        Arc::make_mut(&mut self.allowed).push(parsed);
        Ok(self)
    }

    /// Whether a page of this origin may open a WebSocket that was asked for at this authority
    /// (`host[:port]`). An absent `Origin` passes without this question.
    pub fn allows(&self, origin: &str, authority: &str) -> bool {
        match &self.base {
            Base::Any => return true,
            Base::Predicate(predicate) if predicate(origin, authority) => return true,
            _ => {}
        }
        Origin::parse(origin).is_some_and(|origin| {
            self.allowed.contains(&origin)
                || matches!(self.base, Base::SameOrigin) && origin.is_at(authority)
        })
    }

    fn new(base: Base) -> Self {
        Self {
            base,
            allowed: Arc::default(),
        }
    }
}

impl Default for OriginPolicy {
    fn default() -> Self {
        Self::same_origin()
    }
}

impl fmt::Debug for OriginPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = match self.base {
            Base::Any => "any",
            Base::Predicate(_) => "predicate",
            Base::SameOrigin => "same origin",
        };
        f.debug_struct("OriginPolicy")
            .field("base", &base)
            .field("allowed", &self.allowed)
            .finish()
    }
}

/// What was to be allowed is not an origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidOrigin(String);

impl fmt::Display for InvalidOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is not an origin: a scheme, a host and perhaps a port, such as \
             `https://app.example`, and nothing behind",
            self.0.escape_debug()
        )
    }
}

impl Error for InvalidOrigin {}

/// An origin (RFC 6454), in one spelling: lower case, `http` for `ws`, no default port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let scheme = match scheme.to_ascii_lowercase() {
            scheme if scheme == "ws" => "http".to_owned(),
            scheme if scheme == "wss" => "https".to_owned(),
            scheme => scheme,
        };
        let mut letters = scheme.bytes();
        // RFC 3986 §3.1.
        if !letters.next()?.is_ascii_lowercase()
            || !letters.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        {
            return None;
        }
        let (host, port) = host_and_port(authority)?;
        let port = port.filter(|port| Some(*port) != default_port(&scheme));
        Some(Self { scheme, host, port })
    }

    /// Whether a request to this authority is one to this origin.
    fn is_at(&self, authority: &str) -> bool {
        // Only schemes with a default port can be this server's.
        let Some(default) = default_port(&self.scheme) else {
            return false;
        };
        host_and_port(authority).is_some_and(|(host, port)| {
            host == self.host && port.unwrap_or(default) == self.port.unwrap_or(default)
        })
    }
}

/// The page that a request comes from, and where it was sent to: what a policy decides on,
/// copied out of the request.
#[derive(Debug)]
pub(crate) struct Sides {
    pub(crate) origin: Option<Box<str>>,
    /// Empty without an origin.
    pub(crate) authority: Box<str>,
}

impl Sides {
    pub(crate) fn of(parts: &Parts) -> Self {
        let origin = lines(&parts.headers, ORIGIN.as_str());
        // RFC 9112 §3.2.2: an absolute-form target overrides `Host`.
        let authority = match parts.uri.authority() {
            // There is nothing to be compared.
            _ if origin.is_none() => Box::default(),
            Some(authority) => authority.as_str().into(),
            None => lines(&parts.headers, HOST.as_str()).unwrap_or_default(),
        };
        Self { origin, authority }
    }

    pub(crate) fn pass(&self, policy: &OriginPolicy) -> bool {
        self.origin
            .as_ref()
            .is_none_or(|origin| policy.allows(origin, &self.authority))
    }
}

/// All lines of a header as one text, which is no origin and no host if they are several.
fn lines(headers: &HeaderMap, name: &str) -> Option<Box<str>> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    let mut text = String::from_utf8_lossy(first.as_bytes().trim_ascii()).into_owned();
    for line in lines {
        text.push_str(", ");
        text.push_str(&String::from_utf8_lossy(line.as_bytes().trim_ascii()));
    }
    Some(text.into())
}

/// Splits `host[:port]`; the host in lower case. `None` for anything else.
fn host_and_port(text: &str) -> Option<(String, Option<u16>)> {
    let authority: Authority = text.parse().ok()?;
    let host = authority.host();
    let rest = authority.as_str().strip_prefix(host)?;
    if host.is_empty() {
        return None;
    }
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        Some("") => None,
        Some(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => {
            Some(digits.parse().ok()?)
        }
        _ => return None,
    };
    Some((host.to_ascii_lowercase(), port))
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    #[test]
    fn same_origin_is_the_host_and_port_of_the_request() {
        let policy = OriginPolicy::same_origin();
        let pass = [
            ("http://a.example", "a.example"),
            ("https://a.example", "a.example"),
            ("http://a.example", "a.example:80"),
            ("http://a.example:80", "a.example"),
            ("https://a.example", "a.example:443"),
            ("https://a.example:443", "a.example"),
            ("https://a.example:443", "a.example:443"),
            ("http://a.example:8000", "a.example:8000"),
            ("https://a.example:8000", "a.example:8000"),
            ("ws://a.example", "a.example"),
            ("wss://a.example", "a.example:443"),
            ("wss://a.example:443", "a.example"),
            ("ws://a.example:8000", "a.example:8000"),
            ("HTTPS://A.Example", "a.eXample"),
            ("http://127.0.0.1:9000", "127.0.0.1:9000"),
            ("http://localhost:9000", "localhost:9000"),
            ("http://[::1]:9000", "[::1]:9000"),
            ("http://[::1]", "[::1]"),
            ("http://a.example:", "a.example"),
            ("http://a.example", "a.example:"),
        ];
        for (origin, authority) in pass {
            assert!(policy.allows(origin, authority), "{origin} at {authority}");
        }
        let refused = [
            ("null", "a.example"),
            ("", "a.example"),
            ("null", "null"),
            ("a.example", "a.example"),
            ("://a.example", "a.example"),
            ("http://", "a.example"),
            ("http://b.example", "a.example"),
            ("http://a.example.evil", "a.example"),
            ("http://evil-a.example", "a.example"),
            ("http://sub.a.example", "a.example"),
            ("http://a.example", "sub.a.example"),
            ("http://a.example.", "a.example"),
            // The default port of one scheme is not that of another.
            ("http://a.example", "a.example:443"),
            ("https://a.example", "a.example:80"),
            ("https://a.example:80", "a.example"),
            ("http://a.example:443", "a.example"),
            ("http://a.example:8001", "a.example:8000"),
            ("http://a.example:8000", "a.example"),
            ("http://a.example", "a.example:8000"),
            // Not an origin.
            ("http://a.example/", "a.example"),
            ("http://a.example/page", "a.example"),
            ("http://a.example?x", "a.example"),
            ("http://a.example#x", "a.example"),
            ("http://user@a.example", "a.example"),
            ("http://a.example@evil.example", "a.example"),
            ("http://evil.example@a.example", "a.example"),
            ("http://a.example, http://evil.example", "a.example"),
            ("http://a.example http://evil.example", "a.example"),
            ("http://a.example:+80", "a.example"),
            ("http://a.example:65616", "a.example:80"),
            ("http://a\u{fffd}.example", "a.example"),
            ("chrome-extension://abc", "abc"),
            ("file://a.example", "a.example"),
            ("1http://a.example", "a.example"),
            // Not an authority.
            ("http://a.example", ""),
            ("http://a.example", "a.example, a.example"),
            ("http://a.example", "x@a.example"),
        ];
        for (origin, authority) in refused {
            assert!(!policy.allows(origin, authority), "{origin} at {authority}");
        }
    }

    #[test]
    fn allowed_origins_pass_in_every_spelling_and_nothing_near_them_does() {
        let policy = OriginPolicy::same_origin()
            .allow("https://App.example")
            .and_then(|policy| policy.allow("http://localhost:3000"))
            .and_then(|policy| policy.allow("chrome-extension://abcdef"))
            .unwrap();
        for origin in [
            "https://app.example",
            "https://app.example:443",
            "wss://APP.example",
            "http://localhost:3000",
            "chrome-extension://abcdef",
            "https://chat.example",
        ] {
            assert!(policy.allows(origin, "chat.example"), "{origin}");
        }
        for origin in [
            "http://app.example",
            "https://app.example:80",
            "https://app.example.evil",
            "https://x.app.example",
            "http://localhost",
            "https://localhost:3000",
            "chrome-extension://abcdefg",
            "null",
        ] {
            assert!(!policy.allows(origin, "chat.example"), "{origin}");
        }
    }

    #[test]
    fn what_is_allowed_must_be_an_origin() {
        for text in [
            "",
            "*",
            "null",
            "app.example",
            "https://",
            "https://a/",
            "https://a/b",
        ] {
            let error = OriginPolicy::same_origin().allow(text).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn any_is_any_and_a_predicate_decides_alone() {
        assert!(OriginPolicy::dangerously_any().allows("null", "a.example"));
        let policy = OriginPolicy::predicate(|origin, authority| {
            origin == "null" && authority == "a.example"
        });
        assert!(policy.allows("null", "a.example"));
        assert!(!policy.allows("null", "b.example"));
        assert!(!policy.allows("http://a.example", "a.example"));
        assert!(
            policy
                .allow("http://c.example")
                .unwrap()
                .allows("http://c.example", "a.example")
        );
    }

    #[test]
    fn the_sides_are_read_off_every_form_of_request() {
        let sides =
            |request: http::request::Builder| Sides::of(&request.body(()).unwrap().into_parts().0);
        let policy = OriginPolicy::same_origin();

        let absent = sides(Request::get("/").header("host", "a.example"));
        assert_eq!(absent.origin, None);
        assert!(absent.pass(&policy));

        let own = sides(
            Request::get("/")
                .header("host", "a.example")
                .header("origin", "http://a.example"),
        );
        assert!(own.pass(&policy));

        let absolute = sides(
            Request::get("http://a.example/x")
                .header("host", "b.example")
                .header("origin", "http://a.example"),
        );
        assert!(absolute.pass(&policy));

        let twice = sides(
            Request::get("/")
                .header("host", "a.example")
                .header("origin", "http://a.example")
                .header("origin", "http://a.example"),
        );
        assert!(!twice.pass(&policy));
        assert!(twice.pass(&OriginPolicy::dangerously_any()));

        let empty = sides(
            Request::get("/")
                .header("host", "a.example")
                .header("origin", ""),
        );
        assert!(!empty.pass(&policy));
    }
}
