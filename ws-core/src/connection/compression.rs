//! From what was agreed on to what runs.

use crate::{Config, Role, handshake::extensions::Extensions, stream::deflate::Compression};
#[cfg(feature = "deflate")]
use crate::{
    deflate::Takeover,
    stream::deflate::{Context, Settings},
};

/// Both directions, as the end with this role runs them.
#[cfg(feature = "deflate")]
pub(super) fn of(agreed: &Extensions, config: &Config, role: Role) -> Option<Box<Compression>> {
    let agreed = agreed.deflate()?;
    let settings = config.deflate.clone().unwrap_or_default();
    let own = agreed.own_window_bits(role).map(|bits| Settings {
        window_bits: bits.get(),
        level: settings.level.get(),
        min_size: settings.threshold,
        context: match agreed.own_takeover(role) {
            Takeover::Allowed => Context::Elastic,
            Takeover::Forbidden => Context::Fresh,
        },
    });
    let peer = match agreed.peer_takeover(role) {
        Takeover::Allowed => Some(agreed.peer_window_bits(role).get()),
        Takeover::Forbidden => None,
    };
    Some(Box::new(Compression::new(
        settings.pool_or_global(),
        own,
        peer,
    )))
}

#[cfg(not(feature = "deflate"))]
pub(super) fn of(_: &Extensions, _: &Config, _: Role) -> Option<Box<Compression>> {
    None
}
