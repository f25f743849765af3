//! The opening handshake, as pure functions over [`http`] types: a request goes in, a response
//! comes out, and the other way round on a client. Nothing here reads, writes or waits.
//!
//! ```text
//!   client::Handshake                                   server::Offer
//!     .request()          ── GET + Upgrade ──>            ::from_request
//!     .finish(&response)  <── 101 ────────────            .accept(subprotocol)
//!
//!     .extended_connect_request() ── CONNECT ──>          ::from_extended_connect
//!     .finish(&response)          <── 200 ──────          .accept(subprotocol)
//! ```
//!
//! Both ends come to an [`Accepted`]: what was agreed on. A server that refuses has a
//! [`server::Rejection`], which knows its status, headers and text; a client that is refused, or
//! that must not go on, has a [`client::Refusal`].
//!
//! | opening | RFC | request | acceptance |
//! |---|---|---|---|
//! | [`Opening::Upgrade`] | 6455 §4 | `GET`, HTTP/1.1, `Upgrade: websocket`, a key | 101 with the key's answer |
//! | [`Opening::ExtendedConnect`] | 8441, 9220 | `CONNECT`, `:protocol = websocket` | 200, no key and no answer |
//!
//! ```
//! use ws_core::handshake::{client::Handshake, server::Offer};
//!
//! // The client asks …
//! let handshake = Handshake::new(&"ws://chat.example/rooms?id=7".parse()?)?
//!     .subprotocol("chat.v2")?
//!     .subprotocol("chat.v1")?;
//! let (parts, ()) = handshake.request().into_parts();
//! assert_eq!(parts.uri, "/rooms?id=7");
//!
//! // … the server chooses, by its own preference …
//! let offer = Offer::from_request(&parts)?;
//! let chosen = offer.select_subprotocol(&["chat.v3", "chat.v2"]);
//! let (response, accepted) = offer.accept(chosen)?;
//! assert_eq!(response.status(), 101);
//!
//! // … and the client checks the answer. Both hold the same agreement.
//! assert_eq!(handshake.finish(&response)?, accepted);
//! assert_eq!(accepted.subprotocol(), Some("chat.v2"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What the parsers promise: every line of a header counts, not only the first; tokens of
//! `Connection` and `Upgrade` are compared without case; the work is linear in the size of the
//! headers; no value, text or not, makes them panic.

pub mod client;
pub mod extensions;
pub mod server;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        AUTHORIZATION, CONTENT_LENGTH, COOKIE, PROXY_AUTHORIZATION, SET_COOKIE, TRANSFER_ENCODING,
    },
    uri::Authority,
};
use sha1::{Digest as _, Sha1};

use self::extensions::Extensions;

/// The value of `Sec-WebSocket-Version` that both ends speak (RFC 6455 §4.1).
pub const VERSION: &str = "13";

/// What both ends agreed on: the fruit of a handshake, and what a connection is built from.
///
/// It owns what it holds, a few bytes, and keeps no part of the request or the response alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    opening: Opening,
    subprotocol: Option<Box<str>>,
    extensions: Extensions,
}

impl Accepted {
    /// The way the connection was opened.
    pub fn opening(&self) -> Opening {
        self.opening
    }

    /// The subprotocol both ends speak, in the client's spelling; `None` if they agreed on none.
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// The extensions both ends use.
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// Takes the subprotocol and the extensions out, to be kept with the connection.
    pub fn into_parts(self) -> (Option<Box<str>>, Extensions) {
        (self.subprotocol, self.extensions)
    }
}

/// How a WebSocket is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Opening {
    /// An HTTP/1.1 upgrade (RFC 6455 §4): the connection itself becomes the WebSocket.
    Upgrade,
    /// An extended CONNECT (RFC 8441 on HTTP/2, RFC 9220 on HTTP/3): one stream of the
    /// connection becomes the WebSocket.
    ExtendedConnect,
}

/// The `Sec-WebSocket-Accept` that answers a `Sec-WebSocket-Key`: 28 characters of base64
/// (RFC 6455 §4.2.2).
///
/// The key is taken as it travels; whether it is well-formed is not looked at.
///
/// ```
/// // The example of RFC 6455 §1.3.
/// let accept = ws_core::handshake::accept_key(b"dGhlIHNhbXBsZSBub25jZQ==");
/// assert_eq!(&accept, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
/// ```
pub fn accept_key(key: &[u8]) -> [u8; 28] {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut accept = [0; 28];
    // 20 bytes are 28 characters: it fits, always.
    let written = STANDARD.encode_slice(digest, &mut accept);
    debug_assert!(matches!(written, Ok(28)));
    accept
}

/// RFC 6455 §1.3: a value that no endpoint which does not know the protocol would use.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADE_OPTION: HeaderValue = HeaderValue::from_static("Upgrade");
const VERSION_13: HeaderValue = HeaderValue::from_static(VERSION);

/// How much of a peer's value is repeated in a text, in bytes: enough to recognise it.
const MAX_QUOTE: usize = 128;

/// The elements of a comma-separated header, over all its lines, in order. Empty elements count
/// for nothing (RFC 9110 §5.6.1).
fn header_tokens<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    headers
        .get_all(name)
        .into_iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

/// Whether a header lists a token, in any case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    header_tokens(headers, name).any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
}

/// Keeps what is secret out of `Debug`, and out of HPACK's tables.
pub(crate) fn conceal(name: &HeaderName, value: &mut HeaderValue) {
    if [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, SET_COOKIE].contains(name) {
        value.set_sensitive(true);
    }
}

/// The value of a header that may be given once, without the white space around it.
fn at_most_one<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a [u8]>, Repeated> {
    let mut lines = headers.get_all(name).into_iter();
    match (lines.next(), lines.next()) {
        (_, Some(_)) => Err(Repeated),
        (line, None) => Ok(line.map(|line| line.as_bytes().trim_ascii())),
    }
}

/// A header that may be given once is there twice.
struct Repeated;

/// Whether the head announces a body. What follows a handshake is frames; a body in between
/// would be read as frames by one side and as HTTP by the other.
fn announces_body(headers: &HeaderMap) -> bool {
    let zero = |line: &HeaderValue| {
        let length = line.as_bytes().trim_ascii();
        !length.is_empty() && length.iter().all(|digit| *digit == b'0')
    };
    headers.contains_key(TRANSFER_ENCODING) || !headers.get_all(CONTENT_LENGTH).iter().all(zero)
}

/// RFC 9110 §5.6.2.
fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().copied().all(is_token_byte)
}

/// `tchar` of RFC 9110 §5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Splits `host[:port]`. `None` if there is user information, no host, or something else than a
/// port behind it. An empty port is no port (RFC 3986 §3.2.3).
fn host_and_port(authority: &Authority) -> Option<(&str, Option<u16>)> {
    let host = authority.host();
    let rest = authority.as_str().strip_prefix(host)?;
    if matches!(host, "" | "[]") {
        return None;
    }
    if rest.is_empty() || rest == ":" {
        return Some((host, None));
    }
    let digits = rest.strip_prefix(':')?;
    // `parse` alone would take a sign.
    let number = digits.bytes().all(|digit| digit.is_ascii_digit());
    let port = number.then(|| digits.parse().ok()).flatten()?;
    Some((host, Some(port)))
}

/// A header value of what was checked before: tokens, base64, an authority.
fn visible(text: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(text).expect("the text was checked to be visible ASCII")
}

/// A peer's bytes, as they may stand in a text or a log record: printable, and not long.
fn quote(bytes: &[u8]) -> String {
    match bytes.get(..MAX_QUOTE) {
        Some(start) if bytes.len() > MAX_QUOTE => format!("{}...", start.escape_ascii()),
        _ => bytes.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use http::header::{CONNECTION, HOST, UPGRADE};
    use proptest::prelude::*;

    use super::*;

    fn lines(name: &HeaderName, values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn accept_key_is_that_of_the_rfc() {
        // RFC 6455 §1.3.
        assert_eq!(
            &accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="),
            b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[test]
    fn token_lists_run_over_all_lines_without_case() {
        let cases: &[(&[&[u8]], bool)] = &[
            (&[b"Upgrade"], true),
            (&[b"upgrade"], true),
            (&[b"keep-alive, Upgrade"], true),
            (&[b"keep-alive,Upgrade"], true),
            (&[b"close", b"UPGRADE"], true),
            (&[b" \t upgrade \t ,"], true),
            (&[b",,, upgrade"], true),
            (&[b"\xff\xfe", b"\xc3\xa9,upgrade"], true),
            (&[b"notupgrade"], false),
            (&[b"upgrade-insecure"], false),
            (&[b"up grade"], false),
            (&[b"upgrade;q=1"], false),
            (&[b"\"upgrade\""], false),
            (&[b"\xc3\xbcpgrade"], false),
            (&[b""], false),
            (&[b",,,"], false),
            (&[], false),
        ];
        for (values, expected) in cases {
            let headers = lines(&CONNECTION, values);
            assert_eq!(
                has_token(&headers, &CONNECTION, "upgrade"),
                *expected,
                "{values:?}"
            );
            assert!(!has_token(&headers, &UPGRADE, "upgrade"));
        }
    }

    #[test]
    fn a_single_header_is_told_from_a_repeated_one() {
        let value = |values: &[&[u8]]| {
            at_most_one(&lines(&HOST, values), &HOST)
                .map(|value| value.map(<[u8]>::to_vec))
                .ok()
        };
        assert_eq!(value(&[]), Some(None));
        assert_eq!(value(&[b" a "]), Some(Some(b"a".to_vec())));
        assert_eq!(value(&[b"a", b"a"]), None);
        assert_eq!(value(&[b"a", b"b", b"c"]), None);
    }

    #[test]
    fn a_body_is_announced_by_length_or_by_transfer_encoding() {
        let cases: &[(HeaderName, &[&[u8]], bool)] = &[
            (CONTENT_LENGTH, &[], false),
            (CONTENT_LENGTH, &[b"0"], false),
            (CONTENT_LENGTH, &[b"00"], false),
            (CONTENT_LENGTH, &[b"1"], true),
            (CONTENT_LENGTH, &[b"0", b"8"], true),
            (CONTENT_LENGTH, &[b"-0"], true),
            (CONTENT_LENGTH, &[b"0, 0"], true),
            (CONTENT_LENGTH, &[b""], true),
            (CONTENT_LENGTH, &[b"\xff"], true),
            (TRANSFER_ENCODING, &[b"chunked"], true),
            (TRANSFER_ENCODING, &[b"identity"], true),
            (TRANSFER_ENCODING, &[b""], true),
        ];
        for (name, values, expected) in cases {
            let headers = lines(name, values);
            assert_eq!(announces_body(&headers), *expected, "{name}: {values:?}");
        }
    }

    #[test]
    fn an_authority_is_a_host_and_perhaps_a_port() {
        let cases = [
            ("a.example", Some(("a.example", None))),
            ("a.example:80", Some(("a.example", Some(80)))),
            ("a.example:", Some(("a.example", None))),
            ("[::1]", Some(("[::1]", None))),
            ("[::1]:8000", Some(("[::1]", Some(8000)))),
            ("a.example:65536", None),
            ("a.example:+80", None),
            ("user@a.example", None),
            ("user:secret@a.example:80", None),
            (":80", None),
            ("[]:80", None),
        ];
        for (text, expected) in cases {
            let authority: Authority = text.parse().unwrap();
            assert_eq!(host_and_port(&authority), expected, "{text}");
        }
    }

    #[test]
    fn a_quote_is_short_and_printable() {
        assert_eq!(quote(b"a\r\nb\xff"), r"a\r\nb\xff");
        assert_eq!(quote(&[b'a'; 128]).len(), 128);
        assert_eq!(quote(&[b'a'; 129]), format!("{}...", "a".repeat(128)));
    }

    #[test]
    fn hostile_lists_cost_time_in_proportion_to_their_size() {
        // A megabyte is more than any server reads for a head. Quadratic work would be 10^12
        // steps, which no machine does in this time.
        for unit in [",", " ", "a,", " ,", "a ", "\t,"] {
            let value = unit.repeat((1 << 20) / unit.len());
            let headers = lines(&CONNECTION, &[value.as_bytes()]);
            let start = Instant::now();
            assert!(!has_token(&headers, &CONNECTION, "upgrade"));
            assert!(start.elapsed() < Duration::from_secs(60), "{unit:?}");
        }
    }

    proptest! {
        #[test]
        fn no_header_value_panics(
            values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..4)
        ) {
            let mut headers = HeaderMap::new();
            for value in &values {
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    headers.append(CONNECTION, value);
                }
                let text = quote(value);
                prop_assert!(text.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
            }
            for element in header_tokens(&headers, &CONNECTION) {
                prop_assert!(!element.is_empty() && !element.contains(&b','));
            }
        }
    }
}
