//! HTTP CONNECT (RFC 9110 §9.3.6): asks a proxy for a tunnel.
//!
//! hyper-util has a connector for it, but that keeps the proxy's answer to itself, and takes no
//! status but 200 for a yes.

use http::{
    HeaderValue, Method, Request,
    header::{HOST, PROXY_AUTHORIZATION},
};
use tokio::time::Instant;
use ws_tower::BoxError;

use super::error::{ProxyError, ProxyErrorKind};
use crate::client::{
    exchange::{Driven, connection},
    transport::Transport,
};

/// A tunnel through the proxy to a host and port. The proxy's name is for its errors.
pub(super) async fn open(
    io: Transport,
    target: &str,
    credentials: Option<&HeaderValue>,
    deadline: Instant,
    proxy: &str,
) -> Result<Transport, ProxyError> {
    let failed = |error: BoxError| ProxyError::new(proxy, ProxyErrorKind::Failed, Some(error));
    let request = request(target, credentials).map_err(|error| failed(error.into()))?;
    let connection = connection(io).await;
    let mut driven = Driven::from(connection.map_err(|error| failed(error.into()))?);
    let asked = driven.ask(request).await;
    let mut response = asked.map_err(|error| failed(error.into()))?;
    // RFC 9110 §9.3.6: "Any 2xx (Successful) response indicates that the sender […] will switch to
    // tunnel mode immediately after the response header section".
    if !response.status().is_success() {
        let body = driven.read_body(response.body_mut(), deadline).await;
        return Err(ProxyError::refused(proxy, response.status(), &body));
    }
    let finished = driven.finish().await;
    finished.map_err(|error| failed(error.into()))?;
    let (io, early) = driven.into_stream(&mut response);
    if !early.is_empty() {
        // No server of HTTP or TLS speaks first.
        return Err(failed("it sent more than an answer".into()));
    }
    Ok(io)
}

fn request(
    target: &str,
    credentials: Option<&HeaderValue>,
) -> Result<Request<String>, http::Error> {
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri(target)
        .header(HOST, target);
    if let Some(credentials) = credentials {
        request = request.header(PROXY_AUTHORIZATION, credentials);
    }
    request.body(String::new())
}
