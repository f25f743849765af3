//! This repository: the layer alone behind `ws_hyper::serve`, the plain `recv`/`send` handler.

use tokio::net::TcpListener;
use ws_tower::{Config, Error, WebSocket, WebSocketLayer};

use crate::{Result, wire::PATH};

pub async fn serve(listener: TcpListener, config: Config) -> Result<()> {
    let app = WebSocketLayer::new()
        .config(config)
        .route(PATH, echo)
        .into_service();
    ws_hyper::serve(listener, app).await?;
    Ok(())
}

async fn echo(mut socket: WebSocket) -> Result<(), Error> {
    while let Some(message) = socket.recv().await {
        socket.send(message?).await?;
    }
    Ok(())
}
