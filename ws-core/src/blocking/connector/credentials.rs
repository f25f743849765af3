//! Who the client says it is: credentials, those in a URI (RFC 3986 §3.2.1) among them, and cookies.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{
    HeaderName, HeaderValue, Uri,
    header::{AUTHORIZATION, COOKIE, ORIGIN, USER_AGENT},
    uri::Authority,
};

use super::Connector;

impl Connector {
    /// Sends a cookie, beside those before. The name is a token, and the value has no white space,
    /// quote, comma, semicolon or backslash in it (RFC 6265 §4.1.1). Default: none.
    pub fn cookie(mut self, name: &str, value: &str) -> Self {
        let is_octet = |byte: u8| byte.is_ascii_graphic() && !b"\",;\\".contains(&byte);
        if HeaderName::from_bytes(name.as_bytes()).is_err() || !value.bytes().all(is_octet) {
            return self.refuse("a cookie has a name or a value that cannot be sent");
        }
        // RFC 6265 §5.4: there is one line of them.
        let mut line = Vec::new();
        if let Some(place) = self.headers.iter().position(|(name, _)| *name == COOKIE) {
            let (_, before) = self.headers.remove(place);
            line.extend_from_slice(before.as_bytes());
            line.extend_from_slice(b"; ");
        }
        line.extend_from_slice(format!("{name}={value}").as_bytes());
        match HeaderValue::from_bytes(&line) {
            Ok(line) => self.header(COOKIE, line),
            Err(_) => self.refuse("the cookies cannot be sent"),
        }
    }

    /// Sends a name and a password as basic authentication (RFC 7617), in place of those in the
    /// URI. The name has no colon. Default: what the URI has.
    pub fn basic_auth(self, name: &str, password: &str) -> Self {
        match basic(name.as_bytes(), password.as_bytes()) {
            Some(value) => self.set(AUTHORIZATION, value),
            None => self.refuse(COLON),
        }
    }

    /// Sends a token as bearer authentication (RFC 6750 §2.1). Default: none.
    pub fn bearer_auth(self, token: &str) -> Self {
        match HeaderValue::try_from(format!("Bearer {token}")) {
            Ok(value) => self.set(AUTHORIZATION, value),
            Err(_) => self.refuse("a bearer token has characters that cannot be sent"),
        }
    }

    /// Sets the `User-Agent`; `None` sends none. Default: none.
    pub fn user_agent<'a>(mut self, agent: impl Into<Option<&'a str>>) -> Self {
        self.headers.retain(|(name, _)| *name != USER_AGENT);
        match agent.into().map(HeaderValue::from_str) {
            Some(Ok(agent)) => self.header(USER_AGENT, agent),
            Some(Err(_)) => self.refuse("the user agent has characters that cannot be sent"),
            None => self,
        }
    }

    /// Sets the `Origin` (RFC 6455 §10.2): for a client that speaks for a page, or for a server
    /// that asks for one. Default: none, as RFC 6455 §4.1 has it for clients that are no browsers.
    pub fn origin(self, origin: &str) -> Self {
        match HeaderValue::from_str(origin) {
            Ok(origin) => self.set(ORIGIN, origin),
            Err(_) => self.refuse("the origin has characters that cannot be sent"),
        }
    }

    /// Sets a header in place of those of the same name.
    fn set(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self.header(name, value)
    }

    fn refuse(mut self, text: &str) -> Self {
        self.wrong.get_or_insert(text.into());
        self
    }
}

/// What a name with a colon in it is told: it would end there.
pub(super) const COLON: &str =
    "a user name has a colon in it, which basic authentication cannot send";

/// The value of `Authorization`; `None` for a name with a colon in it.
pub(super) fn basic(name: &[u8], password: &[u8]) -> Option<HeaderValue> {
    if name.contains(&b':') {
        return None;
    }
    let pair = [name, b":", password].concat();
    HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair))).ok()
}

/// Takes a name and a password out of a URI.
pub(super) fn take_user_info(uri: Uri) -> Result<(Uri, Option<UserInfo>), http::Error> {
    let Some((user, host)) = uri
        .authority()
        .and_then(|authority| authority.as_str().rsplit_once('@'))
    else {
        return Ok((uri, None));
    };
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let user = UserInfo {
        name: decoded(name),
        password: decoded(password),
    };
    let host = Authority::try_from(host)?;
    let mut parts = uri.into_parts();
    parts.authority = Some(host);
    Ok((Uri::from_parts(parts)?, Some(user)))
}

/// The name and the password of a URI, without their percent-encoding.
pub(super) struct UserInfo {
    pub(super) name: Vec<u8>,
    pub(super) password: Vec<u8>,
}

/// RFC 3986 §2.1. A percent sign without two digits is one.
fn decoded(text: &str) -> Vec<u8> {
    let mut rest = text.as_bytes();
    let mut bytes = Vec::with_capacity(rest.len());
    while let [first, behind @ ..] = rest {
        let digits = behind
            .get(..2)
            .and_then(|digits| str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let is_hexadecimal = behind.first().is_some_and(u8::is_ascii_hexdigit);
        match byte {
            Some(byte) if *first == b'%' && is_hexadecimal => {
                bytes.push(byte);
                rest = behind.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocking::ConnectError;

    fn headers(connector: &Connector, uri: &str) -> Vec<String> {
        let request = connector.handshake(uri).unwrap().request();
        let lines = request.headers().iter();
        lines
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect()
    }

    #[test]
    fn credentials_cookies_and_names_are_sent() {
        let connector = Connector::new()
            .header(COOKIE, HeaderValue::from_static("a=1"))
            .cookie("b", "2")
            .cookie("c", "3")
            .user_agent("one")
            .user_agent("two")
            .origin("https://app.example")
            .basic_auth("x", "y")
            .bearer_auth("3vJx");
        let lines = headers(&connector, "ws://name:password@a.example/");
        for line in [
            "authorization: Bearer 3vJx",
            "cookie: a=1; b=2; c=3",
            "user-agent: two",
            "origin: https://app.example",
            "host: a.example",
        ] {
            let name = line.split(':').next().unwrap();
            let found: Vec<_> = lines.iter().filter(|it| it.starts_with(name)).collect();
            assert_eq!(found, [line]);
        }
        let lines = headers(&Connector::new(), "ws://name:password@a.example/");
        assert!(lines.contains(&"authorization: Basic bmFtZTpwYXNzd29yZA==".into()));
        let lines = headers(&connector.user_agent(None), "ws://a.example/");
        assert!(!lines.iter().any(|line| line.starts_with("user-agent")));
    }

    #[test]
    fn what_cannot_be_sent_is_told_by_the_connect() {
        let new = Connector::new;
        for (connector, part) in [
            (new().cookie("a b", "c"), "cookie"),
            (new().cookie("a", "b;c"), "cookie"),
            (new().basic_auth("a:b", "c"), "colon"),
            (new().bearer_auth("a\n"), "bearer"),
            (new().user_agent("a\n"), "user agent"),
            (new().origin("a\n"), "origin"),
        ] {
            let error = connector.handshake("ws://a.example/").unwrap_err();
            assert!(matches!(error, ConnectError::Setting(_)), "{error:?}");
            assert!(error.to_string().contains(part), "{error}");
        }
        let error = new().handshake("ws://a%3Ab:c@a.example/").unwrap_err();
        assert!(error.to_string().contains("colon"), "{error}");
    }

    #[test]
    fn a_name_and_a_password_are_taken_out_of_the_uri() {
        for (text, uri, user) in [
            ("ws://a.example/x", "ws://a.example/x", None),
            ("ws://u:p@a.example/", "ws://a.example/", Some("u:p")),
            ("ws://u@[::1]:1/x?y", "ws://[::1]:1/x?y", Some("u:")),
            (
                "ws://u%40x:p%3a%2F%25%@a.example/",
                "ws://a.example/",
                Some("u@x:p:/%%"),
            ),
        ] {
            let Ok(parsed) = text.parse() else {
                panic!("{text}")
            };
            let (left, found) = take_user_info(parsed).unwrap();
            assert_eq!(left.to_string(), uri);
            let found = found.map(|user| [user.name, user.password].join(&b':'));
            assert_eq!(found.as_deref(), user.map(str::as_bytes), "{text}");
        }
    }

    #[test]
    fn a_name_with_a_colon_cannot_be_sent() {
        assert_eq!(basic(b"a:b", b"c"), None);
        // RFC 7617 §2's own example.
        let value = basic(b"Aladdin", b"open sesame").unwrap();
        assert_eq!(value, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    }
}
