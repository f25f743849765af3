//! `Sec-WebSocket-Extensions` (RFC 6455 §9.1): the list as it travels, and what becomes of it.
//!
//! [`parse`] reads the header, over all its lines, into a list of [`Extension`]s in the order of
//! the peer's preference. It is strict: what is not the grammar is [`MalformedExtensions`], as a
//! whole. A server then takes no extension at all, a client fails the connection.
//!
//! ```text
//! permessage-deflate; client_max_window_bits; server_max_window_bits="10", permessage-deflate
//! └──── name ──────┘  └───── parameter ────┘  └── parameter and value ──┘  └── second offer ─┘
//! ```
//!
//! [`Extensions`] is what both ends agreed on: a server's [choice](Extensions::negotiate) from the
//! offers, a client's [check](Extensions::confirm) of the answer. There is one extension,
//! permessage-deflate (RFC 7692), with the feature `deflate`; without it a server agrees to none
//! and a client offers none.
//!
//! ```
//! use http::{HeaderMap, header::SEC_WEBSOCKET_EXTENSIONS};
//! use ws_core::{Config, handshake::extensions::{self, Extensions}};
//!
//! let mut headers = HeaderMap::new();
//! let offer = "permessage-deflate; client_max_window_bits; server_max_window_bits=\"10\"";
//! headers.insert(SEC_WEBSOCKET_EXTENSIONS, offer.parse()?);
//!
//! let offers = extensions::parse(&headers)?;
//! assert_eq!(offers[0].name(), "permessage-deflate");
//! assert!(offers[0].parameters().eq([
//!     ("client_max_window_bits", None),
//!     ("server_max_window_bits", Some("10")),
//! ]));
//!
//! # #[cfg(feature = "deflate")] {
//! use ws_core::Deflate;
//!
//! let agreed = Extensions::negotiate(&offers, &Config::new().deflate(Deflate::new()))?;
//! assert_eq!(
//!     agreed.header_value().unwrap(),
//!     "permessage-deflate; client_no_context_takeover; server_max_window_bits=10",
//! );
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(feature = "deflate")]
mod deflate;
mod error;

use std::{error::Error, fmt};

use http::{HeaderMap, HeaderValue, header::SEC_WEBSOCKET_EXTENSIONS};

#[cfg(feature = "deflate")]
pub use self::deflate::DeflateParameters;
pub use self::error::{AnswerError, ExtensionRequired, ParameterProblem};
use super::{is_token, is_token_byte, quote};
use crate::Config;
#[cfg(feature = "deflate")]
use crate::Deflate;

/// The most extensions read from one head. Browsers send one; the fallbacks of RFC 7692 §5 make
/// a handful.
pub const MAX_EXTENSIONS: usize = 16;

/// The most parameters read for one extension. permessage-deflate has four.
pub const MAX_PARAMETERS: usize = 16;

/// The most bytes of the header, over all its lines.
pub const MAX_LENGTH: usize = 4096;

/// One element of the header: an offer of a client, or the answer of a server.
///
/// It holds tokens only: it was read by [`parse`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    name: Box<str>,
    parameters: Vec<(Box<str>, Option<Box<str>>)>,
}

impl Extension {
    /// The name, as it was spelt.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The parameters in their order, repeated ones too. A quoted value comes without its
    /// quotes.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.parameters
            .iter()
            .map(|(name, value)| (&**name, value.as_deref()))
    }

    /// As it may stand in a text: not long.
    fn quote(&self) -> String {
        quote(self.to_string().as_bytes())
    }
}

impl fmt::Display for Extension {
    /// Writes the element as it travels.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for (name, value) in self.parameters() {
            write!(f, "; {name}")?;
            if let Some(value) = value {
                write!(f, "={value}")?;
            }
        }
        Ok(())
    }
}

/// The extensions both ends of a connection use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    #[cfg(feature = "deflate")]
    deflate: Option<DeflateParameters>,
}

impl Extensions {
    /// No extension: frames as RFC 6455 has them.
    pub fn none() -> Self {
        Self::default()
    }

    /// A server's choice from a client's offers: of each kind the first that its settings can
    /// meet. What it does not know, or what is not in order, it passes over (RFC 6455 §9.1,
    /// RFC 7692 §5).
    ///
    /// # Errors
    ///
    /// The settings require an extension, and no offer of it can be met.
    pub fn negotiate(offers: &[Extension], config: &Config) -> Result<Self, ExtensionRequired> {
        #[cfg(feature = "deflate")]
        let agreed = Self {
            deflate: match &config.deflate {
                Some(settings) => deflate::negotiate(offers, settings)?,
                None => None,
            },
        };
        #[cfg(not(feature = "deflate"))]
        let agreed = {
            let _ = (offers, config);
            Self {}
        };
        Ok(agreed)
    }

    /// A client's check of a server's answer against what it had offered.
    ///
    /// # Errors
    ///
    /// The answer is none to this offer: RFC 6455 §4.1 and RFC 7692 §7.1 have the client fail
    /// the connection.
    pub fn confirm(offered: &Offered, answered: &[Extension]) -> Result<Self, AnswerError> {
        #[cfg(feature = "deflate")]
        let agreed = {
            let ours =
                |answer: &&Extension| offered.deflate.is_some() && answer.name() == deflate::NAME;
            if let Some(stranger) = answered.iter().find(|answer| !ours(answer)) {
                return Err(AnswerError::NotOffered(stranger.quote()));
            }
            Self {
                deflate: match &offered.deflate {
                    Some(settings) => deflate::confirm(settings, answered)?,
                    None => None,
                },
            }
        };
        #[cfg(not(feature = "deflate"))]
        let agreed = {
            let Offered {} = offered;
            if let Some(stranger) = answered.first() {
                return Err(AnswerError::NotOffered(stranger.quote()));
            }
            Self {}
        };
        Ok(agreed)
    }

    /// Whether no extension is in use.
    pub fn is_none(&self) -> bool {
        *self == Self::none()
    }

    /// What was agreed on for compression; `None` if messages travel as they are.
    #[cfg(feature = "deflate")]
    pub fn deflate(&self) -> Option<&DeflateParameters> {
        self.deflate.as_ref()
    }

    /// The server's `Sec-WebSocket-Extensions`; `None` if there is nothing to say, and then the
    /// header must be absent.
    pub fn header_value(&self) -> Option<HeaderValue> {
        #[cfg(feature = "deflate")]
        let value = self.deflate.map(DeflateParameters::header_value);
        #[cfg(not(feature = "deflate"))]
        let value = None;
        value
    }
}

/// What a client offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offered {
    #[cfg(feature = "deflate")]
    deflate: Option<Deflate>,
}

impl Offered {
    /// No extension.
    pub fn none() -> Self {
        Self::default()
    }

    /// The extensions that the settings ask for.
    pub fn new(config: &Config) -> Self {
        #[cfg(feature = "deflate")]
        let offered = Self {
            deflate: config.deflate.clone(),
        };
        #[cfg(not(feature = "deflate"))]
        let offered = {
            let _ = config;
            Self {}
        };
        offered
    }

    /// The client's `Sec-WebSocket-Extensions`; `None` if nothing is offered, and then the header
    /// must be absent.
    pub fn header_value(&self) -> Option<HeaderValue> {
        #[cfg(feature = "deflate")]
        let value = self
            .deflate
            .as_ref()
            .map(|settings| deflate::offer(settings).header_value());
        #[cfg(not(feature = "deflate"))]
        let value = None;
        value
    }
}

/// Reads `Sec-WebSocket-Extensions` over all its lines. Without the header, or with an empty
/// one, the list is empty.
///
/// # Errors
///
/// The header is not the grammar of RFC 6455 §9.1, or is beyond [`MAX_EXTENSIONS`],
/// [`MAX_PARAMETERS`] or [`MAX_LENGTH`].
pub fn parse(headers: &HeaderMap) -> Result<Vec<Extension>, MalformedExtensions> {
    let mut extensions = Vec::new();
    let mut length = 0;
    for line in headers.get_all(SEC_WEBSOCKET_EXTENSIONS) {
        length += line.len();
        if length > MAX_LENGTH {
            return Err(MalformedExtensions::TooLong);
        }
        Cursor(line.as_bytes()).extensions(&mut extensions)?;
    }
    Ok(extensions)
}

/// The header `Sec-WebSocket-Extensions` cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MalformedExtensions {
    /// It is not the grammar of RFC 6455 §9.1.
    Syntax,
    /// It is beyond [`MAX_EXTENSIONS`], [`MAX_PARAMETERS`] or [`MAX_LENGTH`].
    TooLong,
}

impl fmt::Display for MalformedExtensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syntax => "sec-websocket-extensions is malformed",
            Self::TooLong => "sec-websocket-extensions is too long",
        })
    }
}

impl Error for MalformedExtensions {}

/// What is left of one line.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    /// `1#extension`; empty elements count for nothing (RFC 9110 §5.6.1).
    fn extensions(mut self, into: &mut Vec<Extension>) -> Result<(), MalformedExtensions> {
        loop {
            self.skip_space();
            if self.0.is_empty() {
                return Ok(());
            }
            if self.eat(b',') {
                continue;
            }
            if into.len() == MAX_EXTENSIONS {
                return Err(MalformedExtensions::TooLong);
            }
            into.push(self.extension()?);
            self.skip_space();
            if !self.0.is_empty() && !self.eat(b',') {
                return Err(MalformedExtensions::Syntax);
            }
        }
    }

    /// `token *( ";" token [ "=" ( token | quoted-string ) ] )`, with the white space that
    /// RFC 2616 §2.1 implies between all of them.
    fn extension(&mut self) -> Result<Extension, MalformedExtensions> {
        let name = self.token()?.into();
        let mut parameters = Vec::new();
        loop {
            self.skip_space();
            if !self.eat(b';') {
                return Ok(Extension { name, parameters });
            }
            if parameters.len() == MAX_PARAMETERS {
                return Err(MalformedExtensions::TooLong);
            }
            self.skip_space();
            let parameter = self.token()?.into();
            self.skip_space();
            let value = if self.eat(b'=') {
                self.skip_space();
                Some(self.value()?)
            } else {
                None
            };
            parameters.push((parameter, value));
        }
    }

    fn value(&mut self) -> Result<Box<str>, MalformedExtensions> {
        if !self.eat(b'"') {
            return self.token().map(Box::from);
        }
        let mut value = Vec::new();
        loop {
            match self.next() {
                Some(b'"') => break,
                Some(b'\\') => value.push(self.next().ok_or(MalformedExtensions::Syntax)?),
                Some(byte) => value.push(byte),
                None => return Err(MalformedExtensions::Syntax),
            }
        }
        // RFC 6455 §9.1: "the value after quoted-string unescaping MUST conform to the 'token'
        // ABNF."
        match String::from_utf8(value) {
            Ok(value) if is_token(value.as_bytes()) => Ok(value.into()),
            _ => Err(MalformedExtensions::Syntax),
        }
    }

    fn token(&mut self) -> Result<&'a str, MalformedExtensions> {
        let end = self.0.iter().position(|byte| !is_token_byte(*byte));
        let (token, rest) = self
            .0
            .split_at_checked(end.unwrap_or(self.0.len()))
            .ok_or(MalformedExtensions::Syntax)?;
        self.0 = rest;
        match str::from_utf8(token) {
            Ok(token) if !token.is_empty() => Ok(token),
            _ => Err(MalformedExtensions::Syntax),
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        match self.0 {
            [first, rest @ ..] if *first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn skip_space(&mut self) {
        self.0 = self.0.trim_ascii_start();
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    fn headers(lines: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            let value = HeaderValue::from_bytes(line).unwrap();
            headers.append(SEC_WEBSOCKET_EXTENSIONS, value);
        }
        headers
    }

    /// What was read, as it would be written again.
    fn read(lines: &[&[u8]]) -> Result<String, MalformedExtensions> {
        let list = parse(&headers(lines))?;
        Ok(list
            .iter()
            .map(Extension::to_string)
            .collect::<Vec<_>>()
            .join(", "))
    }

    #[test]
    fn offers_are_read_in_order_over_all_lines() {
        let cases: &[(&[&[u8]], &str)] = &[
            (&[], ""),
            (&[b""], ""),
            (&[b" , ,, "], ""),
            (&[b"foo"], "foo"),
            (&[b"foo", b"bar, baz"], "foo, bar, baz"),
            // RFC 6455 §9.1.
            (&[b"deflate-stream"], "deflate-stream"),
            (
                &[b"mux; max-channels=4; flow-control, deflate-stream"],
                "mux; max-channels=4; flow-control, deflate-stream",
            ),
            (&[b"private-extension"], "private-extension"),
            // RFC 7692 §7.1.
            (
                &[b"permessage-deflate; client_max_window_bits; server_max_window_bits=10, permessage-deflate; client_max_window_bits"],
                "permessage-deflate; client_max_window_bits; server_max_window_bits=10, permessage-deflate; client_max_window_bits",
            ),
            (&[b"a;b=\"c\""], "a; b=c"),
            (&[b"a;b=\"\\c\\d\""], "a; b=cd"),
            (&[b"  a \t;\tb = c ,d"], "a; b=c, d"),
            (&[b"a;b;b=1;b"], "a; b; b=1; b"),
            (&[b"x!#$%&'*+-.^_`|~0"], "x!#$%&'*+-.^_`|~0"),
        ];
        for (lines, expected) in cases {
            assert_eq!(read(lines).as_deref(), Ok(*expected), "{lines:?}");
        }
    }

    #[test]
    fn what_is_not_the_grammar_is_refused_as_a_whole() {
        let cases: &[&[u8]] = &[
            b";",
            b"a;",
            b"a;;b",
            b"a b",
            b"a; b c",
            b"a=b",
            b"a;=b",
            b"a;b=",
            b"a;b==c",
            b"a;b=c=d",
            b"a;b=\"\"",
            b"a;b=\"c",
            b"a;b=\"c\\",
            b"a;b=\"c d\"",
            b"a;b=\"c,d\"",
            b"a;b=\"c\"d",
            b"a;b=\"\xff\"",
            b"\"a\"",
            b"a/b",
            b"(a)",
            b"\xff",
            b"a, \xc3\xa9",
            b"good, bad;",
        ];
        for line in cases {
            assert_eq!(read(&[line]), Err(MalformedExtensions::Syntax), "{line:?}");
            assert!(read(&[b"good", line]).is_err());
        }
        // A quoted value does not run on into the next line.
        assert!(read(&[b"a;b=\"c", b"d\""]).is_err());
    }

    #[test]
    fn the_list_is_bounded() {
        let many = |unit: &str, count| unit.repeat(count).into_bytes();
        assert!(read(&[&many("a,", 16)]).is_ok());
        assert!(read(&[&many("a,", 17)]).is_err());
        assert!(read(&[&[b"a".to_vec(), many(";b", 16)].concat()]).is_ok());
        assert!(read(&[&[b"a".to_vec(), many(";b", 17)].concat()]).is_err());
        assert!(read(&[&many("a", 4096)]).is_ok());
        assert_eq!(
            read(&[&many("a", 4096), b"b"]),
            Err(MalformedExtensions::TooLong)
        );
    }

    #[test]
    fn without_settings_a_server_agrees_to_none_and_a_client_takes_none() {
        let config = Config::new();
        #[cfg(feature = "deflate")]
        let config = config.deflate(None);
        let list = |line: &str| parse(&headers(&[line.as_bytes()])).unwrap();
        let offers = list("permessage-deflate, x-webkit-deflate-frame");
        let agreed = Extensions::negotiate(&offers, &config).unwrap();
        assert!(agreed.is_none());
        assert_eq!(agreed.header_value(), None);

        for offered in [Offered::none(), Offered::new(&config)] {
            assert_eq!(offered.header_value(), None);
            assert_eq!(Extensions::confirm(&offered, &[]), Ok(Extensions::none()));
            let answered = Extensions::confirm(&offered, &list("permessage-deflate; a=b"));
            let stranger = AnswerError::NotOffered("permessage-deflate; a=b".into());
            assert_eq!(answered, Err(stranger));
        }
    }

    #[test]
    fn hostile_lists_cost_time_in_proportion_to_their_size() {
        for unit in [",", " ", "a,", "a;b,", ";", "\"", "\\", "a;b=\"\\"] {
            let line = unit.repeat((1 << 20) / unit.len());
            let start = Instant::now();
            let _ = Cursor(line.as_bytes()).extensions(&mut Vec::new());
            assert!(start.elapsed() < Duration::from_secs(60), "{unit:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..4)
        ) {
            let mut headers = HeaderMap::new();
            for line in &lines {
                if let Ok(value) = HeaderValue::from_bytes(line) {
                    headers.append(SEC_WEBSOCKET_EXTENSIONS, value);
                }
            }
            let _ = parse(&headers);
        }

        #[test]
        fn what_is_read_is_written_the_same(line in "[a;,= \\\\\"]{0,40}") {
            if let Ok(list) = parse(&headers(&[line.as_bytes()])) {
                let line = list.iter().map(Extension::to_string).collect::<Vec<_>>().join(", ");
                let again = parse(&headers(&[line.as_bytes()])).unwrap();
                prop_assert_eq!(again, list);
            }
        }
    }
}
