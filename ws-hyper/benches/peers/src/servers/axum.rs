//! axum: the echo of the documentation of `axum::extract::ws`.

use axum::{
    Router,
    extract::ws::{WebSocket, WebSocketUpgrade},
    response::Response,
    routing::any,
    serve::ListenerExt,
};
use tokio::net::TcpListener;

use crate::{Result, wire::PATH};

pub async fn serve(listener: TcpListener) -> Result<()> {
    let app = Router::new().route(PATH, any(handler));
    let listener = listener.tap_io(|stream| {
        // A failure shows in the numbers, not in the echo.
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, app).await?;
    Ok(())
}

async fn handler(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(echo)
}

async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if socket.send(message).await.is_err() {
            return;
        }
    }
}
