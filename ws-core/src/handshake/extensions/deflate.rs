//! permessage-deflate (RFC 7692 §7.1): what is offered, answered and agreed on.
//!
//! | parameter | in an offer | in an answer |
//! |---|---|---|
//! | `server_no_context_takeover` | the server has to | if offered, or by the server's wish |
//! | `client_no_context_takeover` | the client will, in any case | the client has to; may come unasked |
//! | `server_max_window_bits=N` | the server has to stay within | `N` or less if offered, or by the server's wish |
//! | `client_max_window_bits[=N]` | the client can be limited, and stays within `N` in any case | the client has to stay within; only if offered |
//!
//! `N` is 8 to 15, without a leading zero. No parameter may be there twice, and there are no
//! others. A server declines an offer that is not so, and looks at the next; a client fails the
//! handshake.
//!
//! What says nothing is not answered: clients in use refuse a `server_max_window_bits=15` that
//! they have not asked for.

use std::fmt;

use http::HeaderValue;

use super::{AnswerError, Extension, ExtensionRequired, ParameterProblem};
use crate::{
    config::{
        Role,
        deflate::{Deflate, Negotiation, Takeover, WindowBits},
    },
    handshake::{quote, visible},
};

/// The name of the extension.
pub(super) const NAME: &str = "permessage-deflate";

const SERVER_NO_CONTEXT_TAKEOVER: &str = "server_no_context_takeover";
const CLIENT_NO_CONTEXT_TAKEOVER: &str = "client_no_context_takeover";
const SERVER_MAX_WINDOW_BITS: &str = "server_max_window_bits";
const CLIENT_MAX_WINDOW_BITS: &str = "client_max_window_bits";

/// What both ends of a connection agreed on for permessage-deflate (RFC 7692 §7.1).
///
/// *Own* is the direction that the end with this role compresses, *peer* the one that it
/// inflates.
///
/// ```
/// use http::{HeaderMap, header::SEC_WEBSOCKET_EXTENSIONS};
/// use ws_core::{
///     Config, Deflate, Role, deflate::Takeover,
///     handshake::extensions::{self, Extensions},
/// };
///
/// let mut headers = HeaderMap::new();
/// let offer = "permessage-deflate; server_max_window_bits=10; client_max_window_bits";
/// headers.insert(SEC_WEBSOCKET_EXTENSIONS, offer.parse()?);
/// let config = Config::new().deflate(Deflate::new());
/// let agreed = Extensions::negotiate(&extensions::parse(&headers)?, &config)?;
///
/// let parameters = agreed.deflate().unwrap();
/// assert_eq!(parameters.own_window_bits(Role::Server).unwrap().size(), 1024);
/// assert_eq!(parameters.own_takeover(Role::Server), Takeover::Allowed);
/// assert_eq!(parameters.peer_window_bits(Role::Server).size(), 32 << 10);
/// assert_eq!(parameters.peer_takeover(Role::Server), Takeover::Forbidden);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeflateParameters {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    /// 8 to 15.
    server_max_window_bits: Option<u8>,
    /// 8 to 15. In an offer 15 stands for no value, which means the same; an answer has no 15.
    client_max_window_bits: Option<u8>,
}

impl DeflateParameters {
    /// The largest window this end may compress with.
    ///
    /// `None` is a window of 256 bytes, which a server may demand of a client (8 bits, RFC 7692
    /// §7.1.2.2) and no compressor in use can keep: messages are to be sent as they are, which
    /// is always allowed (§6).
    pub fn own_window_bits(&self, role: Role) -> Option<WindowBits> {
        WindowBits::new(self.max_window_bits(role)).ok()
    }

    /// The largest window the peer compresses with. If it is 256 bytes, this is the next larger
    /// one, which inflates the same.
    pub fn peer_window_bits(&self, role: Role) -> WindowBits {
        WindowBits::new(self.max_window_bits(other(role))).unwrap_or(WindowBits::MIN)
    }

    /// Whether this end may keep its window from message to message.
    pub fn own_takeover(&self, role: Role) -> Takeover {
        let forbidden = match role {
            Role::Client => self.client_no_context_takeover,
            Role::Server => self.server_no_context_takeover,
        };
        if forbidden {
            Takeover::Forbidden
        } else {
            Takeover::Allowed
        }
    }

    /// Whether the peer may keep its window from message to message: if so, this end has to.
    pub fn peer_takeover(&self, role: Role) -> Takeover {
        self.own_takeover(other(role))
    }

    /// The header that says this.
    pub(super) fn header_value(self) -> HeaderValue {
        visible(self.to_string().as_bytes())
    }

    fn max_window_bits(self, compressor: Role) -> u8 {
        let bits = match compressor {
            Role::Client => self.client_max_window_bits,
            Role::Server => self.server_max_window_bits,
        };
        bits.unwrap_or(WindowBits::MAX.get())
    }

    /// Reads what a client offers, or what a server answers.
    fn read(extension: &Extension, from: Role) -> Result<Self, (&str, ParameterProblem)> {
        let mut read = Self {
            server_no_context_takeover: false,
            client_no_context_takeover: false,
            server_max_window_bits: None,
            client_max_window_bits: None,
        };
        for (name, value) in extension.parameters() {
            let outcome = match name {
                SERVER_NO_CONTEXT_TAKEOVER => flag(&mut read.server_no_context_takeover, value),
                CLIENT_NO_CONTEXT_TAKEOVER => flag(&mut read.client_no_context_takeover, value),
                SERVER_MAX_WINDOW_BITS => bits(&mut read.server_max_window_bits, value),
                // RFC 7692 §7.1.2.2: only in an offer it may have no value.
                CLIENT_MAX_WINDOW_BITS if from == Role::Client => {
                    bits(&mut read.client_max_window_bits, value.or(Some("15")))
                }
                CLIENT_MAX_WINDOW_BITS => bits(&mut read.client_max_window_bits, value),
                _ => Err(ParameterProblem::Unknown),
            };
            outcome.map_err(|problem| (name, problem))?;
        }
        Ok(read)
    }

    /// A server's answer to this offer; `None` declines it.
    fn answer(self, settings: &Deflate) -> Option<Self> {
        let own = settings.own_window_bits.get();
        let peer = settings.peer_window_bits.get();
        let max = WindowBits::MAX.get();
        let server_max_window_bits = match self.server_max_window_bits {
            // No compressor in use keeps 256 bytes.
            Some(asked) if asked < WindowBits::MIN.get() => return None,
            // RFC 7692 §7.1.2.1: an acceptance has it, "with the same or smaller value as the
            // offer", even if it is 15.
            Some(asked) => Some(asked.min(own)),
            None => (own < max).then_some(own),
        };
        let client_max_window_bits = self.client_max_window_bits.map(|hint| hint.min(peer));
        Some(Self {
            server_no_context_takeover: self.server_no_context_takeover
                || settings.own_takeover == Takeover::Forbidden,
            client_no_context_takeover: self.client_no_context_takeover
                || settings.peer_takeover_of(Role::Server) == Takeover::Forbidden,
            server_max_window_bits,
            client_max_window_bits: client_max_window_bits.filter(|bits| *bits < max),
        })
    }

    /// What a client takes from a server's answer to this offer.
    fn agree(self, answer: Self) -> Result<Self, (&'static str, ParameterProblem)> {
        // RFC 7692 §7.1.1.1: a server accepts it "by including" it.
        if self.server_no_context_takeover && !answer.server_no_context_takeover {
            return Err((SERVER_NO_CONTEXT_TAKEOVER, ParameterProblem::Missing));
        }
        match (self.server_max_window_bits, answer.server_max_window_bits) {
            (Some(_), None) => {
                return Err((SERVER_MAX_WINDOW_BITS, ParameterProblem::Missing));
            }
            (Some(asked), Some(answered)) if answered > asked => {
                return Err((SERVER_MAX_WINDOW_BITS, ParameterProblem::TooLarge));
            }
            _ => {}
        }
        let client_max_window_bits =
            match (self.client_max_window_bits, answer.client_max_window_bits) {
                // RFC 7692 §7.1.2.2: the answer MUST NOT include it then.
                (None, Some(_)) => {
                    return Err((CLIENT_MAX_WINDOW_BITS, ParameterProblem::NotOffered));
                }
                // The value in the offer is a hint that a server may ignore and go beyond; the
                // client keeps to it "even if" that happens.
                (Some(hint), answered) => answered.map_or(Some(hint), |bits| Some(bits.min(hint))),
                (None, None) => None,
            };
        Ok(Self {
            client_no_context_takeover: self.client_no_context_takeover
                || answer.client_no_context_takeover,
            client_max_window_bits: client_max_window_bits
                .filter(|bits| *bits < WindowBits::MAX.get()),
            ..answer
        })
    }
}

impl fmt::Display for DeflateParameters {
    /// Writes the element of the header.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)?;
        if self.server_no_context_takeover {
            write!(f, "; {SERVER_NO_CONTEXT_TAKEOVER}")?;
        }
        if self.client_no_context_takeover {
            write!(f, "; {CLIENT_NO_CONTEXT_TAKEOVER}")?;
        }
        if let Some(bits) = self.server_max_window_bits {
            write!(f, "; {SERVER_MAX_WINDOW_BITS}={bits}")?;
        }
        match self.client_max_window_bits {
            Some(15) => write!(f, "; {CLIENT_MAX_WINDOW_BITS}"),
            Some(bits) => write!(f, "; {CLIENT_MAX_WINDOW_BITS}={bits}"),
            None => Ok(()),
        }
    }
}

/// A client's offer.
pub(super) fn offer(settings: &Deflate) -> DeflateParameters {
    let peer = settings.peer_window_bits;
    DeflateParameters {
        server_no_context_takeover: settings.peer_takeover_of(Role::Client) == Takeover::Forbidden,
        client_no_context_takeover: settings.own_takeover == Takeover::Forbidden,
        server_max_window_bits: (peer < WindowBits::MAX).then_some(peer.get()),
        client_max_window_bits: Some(settings.own_window_bits.get()),
    }
}

/// A server's choice.
pub(super) fn negotiate(
    offers: &[Extension],
    settings: &Deflate,
) -> Result<Option<DeflateParameters>, ExtensionRequired> {
    let mut offers = offers.iter().filter(|offer| offer.name() == NAME);
    let agreed = offers.find_map(|offer| {
        DeflateParameters::read(offer, Role::Client)
            .ok()?
            .answer(settings)
    });
    match settings.negotiation {
        Negotiation::Required if agreed.is_none() => Err(ExtensionRequired(NAME)),
        _ => Ok(agreed),
    }
}

/// A client's check of the answers of this name.
pub(super) fn confirm(
    settings: &Deflate,
    answered: &[Extension],
) -> Result<Option<DeflateParameters>, AnswerError> {
    match answered {
        [answer] => DeflateParameters::read(answer, Role::Server)
            .and_then(|read| offer(settings).agree(read))
            .map(Some)
            .map_err(|(parameter, problem)| AnswerError::Parameter {
                extension: answer.quote(),
                parameter: quote(parameter.as_bytes()),
                problem,
            }),
        [_, again, ..] => Err(AnswerError::Repeated(again.quote())),
        [] if settings.negotiation == Negotiation::Required => Err(AnswerError::Required(NAME)),
        [] => Ok(None),
    }
}

fn flag(flag: &mut bool, value: Option<&str>) -> Result<(), ParameterProblem> {
    if std::mem::replace(flag, true) {
        return Err(ParameterProblem::Repeated);
    }
    match value {
        None => Ok(()),
        Some(_) => Err(ParameterProblem::Value),
    }
}

fn bits(bits: &mut Option<u8>, value: Option<&str>) -> Result<(), ParameterProblem> {
    // RFC 7692 §7.1.2: "a decimal integer value without leading zeroes between 8 to 15".
    let value = match value {
        Some("8") => 8,
        Some("9") => 9,
        Some("10") => 10,
        Some("11") => 11,
        Some("12") => 12,
        Some("13") => 13,
        Some("14") => 14,
        Some("15") => 15,
        _ => return Err(ParameterProblem::Value),
    };
    match bits.replace(value) {
        None => Ok(()),
        Some(_) => Err(ParameterProblem::Repeated),
    }
}

fn other(role: Role) -> Role {
    match role {
        Role::Client => Role::Server,
        Role::Server => Role::Client,
    }
}

#[cfg(test)]
mod tests;
