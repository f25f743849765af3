//! Whether a request asks for a WebSocket, and how.

use http::{Extensions, HeaderMap, Method, Version};
use ws_core::handshake::{Opening, server::is_upgrade};

/// `None`: it asks for something else (RFC 9110 §7.8 lets a server ignore `Upgrade`).
///
/// An extended CONNECT is known by hyper's `Protocol` among the extensions (RFC 8441 §4). Every
/// other CONNECT is the application's, and without the feature `http2` every one.
pub(crate) fn opening_of(
    method: &Method,
    version: Version,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> Option<Opening> {
    #[cfg(feature = "http2")]
    if *method == Method::CONNECT
        && let Some(protocol) = extensions.get::<hyper::ext::Protocol>()
    {
        let is_websocket = protocol.as_str() == "websocket";
        return is_websocket.then_some(Opening::ExtendedConnect);
    }
    #[cfg(not(feature = "http2"))]
    let _ = extensions;
    is_upgrade(method, version, headers).then_some(Opening::Upgrade)
}
