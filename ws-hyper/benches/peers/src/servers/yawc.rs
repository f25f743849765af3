//! yawc: the loop of its documentation, on a hyper upgrade, with its profiles of compression.
//! Without one it compresses nothing.

use bytes::Bytes;
use futures_util::SinkExt;
use http_body_util::Empty;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task};
use yawc::{DeflatePool, OpCode, Options, UpgradeFut, WebSocket, WebSocketError};

use crate::Result;

/// "A good default for most applications": level 6, context takeover.
pub fn balanced() -> Options {
    Options::default().with_balanced_compression().with_utf8()
}

/// Level 1 with context takeover, as ours.
pub fn fast() -> Options {
    Options::default()
        .with_low_latency_compression()
        .with_utf8()
}

/// What its documentation has for many idle connections.
pub fn pooled() -> Options {
    Options::default()
        .with_low_latency_compression()
        .server_no_context_takeover()
        .client_no_context_takeover()
        .with_deflate_pool(DeflatePool::new(64))
        .with_compression_threshold(64)
        .with_read_buffer_capacity(1024)
        .with_write_buffer_capacity(1024)
        .with_utf8()
}

pub async fn serve(listener: TcpListener, options: Options) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let options = options.clone();
        task::spawn(async move {
            let handler = service_fn(move |request| handler(request, options.clone()));
            http1::Builder::new()
                .serve_connection(TokioIo::new(stream), handler)
                .with_upgrades()
                .await
        });
    }
}

async fn handler(
    mut request: Request<Incoming>,
    options: Options,
) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let (response, upgrade) = WebSocket::upgrade_with_options(&mut request, options)?;
    task::spawn(echo(upgrade));
    Ok(response)
}

async fn echo(upgrade: UpgradeFut) -> Result<(), WebSocketError> {
    let mut socket = upgrade.await?;
    loop {
        let frame = socket.next_frame().await?;
        match frame.opcode() {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => socket.send(frame).await?,
            _ => {}
        }
    }
}
