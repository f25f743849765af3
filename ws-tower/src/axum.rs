//! [`WebSocketUpgrade`] as an axum extractor, plain and as an `Option`.
//!
//! ```
//! use axum_core::response::Response;
//! use ws_tower::{Error, WebSocket, WebSocketUpgrade};
//!
//! async fn handler(upgrade: WebSocketUpgrade) -> Response {
//!     upgrade.on_upgrade(async |mut socket: WebSocket| socket.send("hello").await)
//! }
//! ```
//!
//! Route it with `any(handler)`: over HTTP/2 a WebSocket is asked for with `CONNECT`.
//!
//! A [`WebSocketLayer`](crate::WebSocketLayer) or a [`GateLayer`](crate::gate::GateLayer) must be
//! around it; without one the extractor answers 500 with the line to add.

use axum_core::{
    body::Body,
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::request::Parts;

use crate::upgrade::{UpgradeRejection, WebSocketUpgrade, is_asked_for};

/// A request that asks for no WebSocket is refused with 426, or 405 for a method other than
/// `GET`; a handshake that is not in order with its [`Rejection`].
///
/// [`Rejection`]: ws_core::handshake::server::Rejection
impl<S: Sync> FromRequestParts<S> for WebSocketUpgrade {
    type Rejection = UpgradeRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, UpgradeRejection> {
        Self::from_parts(parts)
    }
}

/// `None` for a request that asks for no WebSocket. A handshake that is not in order is refused.
impl<S: Sync> OptionalFromRequestParts<S> for WebSocketUpgrade {
    type Rejection = UpgradeRejection;

    async fn from_request_parts(
        parts: &mut Parts,
        _: &S,
    ) -> Result<Option<Self>, UpgradeRejection> {
        if is_asked_for(parts) {
            Self::from_parts(parts).map(Some)
        } else {
            Ok(None)
        }
    }
}

impl IntoResponse for UpgradeRejection {
    fn into_response(self) -> Response {
        self.to_response().map(Body::from)
    }
}
