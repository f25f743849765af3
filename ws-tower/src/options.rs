//! The settings that the layer, a route and an upgrade have in common.

use std::sync::{Arc, LazyLock};

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE},
};
use ws_core::Config;

use crate::{OriginPolicy, session::OnClosed};

/// What can be set on the layer, on a route and on an upgrade. `None`: as further out.
#[derive(Clone, Default)]
pub(crate) struct Options {
    pub(crate) config: Option<Arc<Config>>,
    pub(crate) subprotocols: Option<Subprotocols>,
    /// With the name of the setting, for the text of the refusal.
    pub(crate) origins: Option<(OriginPolicy, &'static str)>,
    pub(crate) headers: HeaderMap,
    pub(crate) on_closed: Option<OnClosed>,
    /// Whether the handler is dropped when the socket has ended.
    pub(crate) cancel_on_close: bool,
}

/// One for all connections that have none of their own.
static DEFAULT_CONFIG: LazyLock<Arc<Config>> = LazyLock::new(Arc::default);

impl Options {
    pub(crate) fn config(&self) -> Arc<Config> {
        Arc::clone(self.config.as_ref().unwrap_or(&DEFAULT_CONFIG))
    }

    /// These, over those of the layer. Headers add up.
    pub(crate) fn over(&self, layer: &Self) -> Self {
        let mut headers = layer.headers.clone();
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        Self {
            config: self.config.as_ref().or(layer.config.as_ref()).cloned(),
            subprotocols: self
                .subprotocols
                .as_ref()
                .or(layer.subprotocols.as_ref())
                .cloned(),
            origins: self.origins.as_ref().or(layer.origins.as_ref()).cloned(),
            headers,
            on_closed: self
                .on_closed
                .as_ref()
                .or(layer.on_closed.as_ref())
                .cloned(),
            cancel_on_close: self.cancel_on_close || layer.cancel_on_close,
        }
    }

    /// Adds a header, unless it is the handshake's own.
    pub(crate) fn header(&mut self, name: HeaderName, value: HeaderValue) {
        let reserved = [CONNECTION, UPGRADE, CONTENT_LENGTH, TRANSFER_ENCODING];
        if reserved.contains(&name) || name.as_str().starts_with("sec-websocket-") {
            tracing::warn!(%name, "the handshake's own header is not replaced");
            return;
        }
        self.headers.append(name, value);
    }
}

/// The server's subprotocols, in the order of its preference.
#[derive(Clone, Debug)]
pub(crate) struct Subprotocols {
    pub(crate) names: Arc<[Box<str>]>,
    pub(crate) required: bool,
}

impl Subprotocols {
    pub(crate) fn new<N: AsRef<str>>(names: impl IntoIterator<Item = N>, required: bool) -> Self {
        Self {
            names: names.into_iter().map(|name| name.as_ref().into()).collect(),
            required,
        }
    }
}
