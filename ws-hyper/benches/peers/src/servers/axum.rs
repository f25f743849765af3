//! axum: the echo of the documentation of `axum::extract::ws`, the chat of its examples, and the
//! accept loop of its example of rustls.

use std::sync::Arc;

use axum::{
    Router,
    extract::{
        State,
        ws::{Message, WebSocket, WebSocketUpgrade},
    },
    response::Response,
    routing::any,
    serve::ListenerExt,
};
use futures_util::{SinkExt, StreamExt};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use tokio::{
    net::TcpListener,
    sync::broadcast::{self, error::RecvError},
};
use tokio_rustls::TlsAcceptor;

use super::BROADCAST_CAPACITY;
use crate::{Result, wire::PATH};

pub async fn serve(listener: TcpListener) -> Result<()> {
    serve_app(listener, echoes()).await
}

/// Every message to every connection, as its example `chat` does it: two tasks for each.
pub async fn broadcast(listener: TcpListener) -> Result<()> {
    let (send, _) = broadcast::channel(BROADCAST_CAPACITY);
    let app = Router::new().route(PATH, any(join)).with_state(send);
    serve_app(listener, app).await
}

/// The echo over TLS, as its example `low-level-rustls` does it.
pub async fn serve_tls(listener: TcpListener, tls: Arc<ServerConfig>) -> Result<()> {
    let acceptor = TlsAcceptor::from(tls);
    let app = TowerToHyperService::new(echoes());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (acceptor, app) = (acceptor.clone(), app.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            // A failure shows in the client.
            let _ = Builder::new(TokioExecutor::new())
                .serve_connection_with_upgrades(TokioIo::new(stream), app)
                .await;
        });
    }
}

async fn serve_app(listener: TcpListener, app: Router) -> Result<()> {
    let listener = listener.tap_io(|stream| {
        // A failure shows in the numbers, not in the echo.
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, app).await?;
    Ok(())
}

fn echoes() -> Router {
    Router::new().route(PATH, any(handler))
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

async fn join(
    upgrade: WebSocketUpgrade,
    State(messages): State<broadcast::Sender<Message>>,
) -> Response {
    upgrade.on_upgrade(|socket| member(socket, messages))
}

async fn member(socket: WebSocket, messages: broadcast::Sender<Message>) {
    let (mut send, mut receive) = socket.split();
    let mut others = messages.subscribe();
    let mut sending = tokio::spawn(async move {
        loop {
            match others.recv().await {
                Ok(message) => {
                    if send.send(message).await.is_err() {
                        return;
                    }
                }
                // It has missed some, and goes on.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    });
    let mut receiving = tokio::spawn(async move {
        while let Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) = receive.next().await
        {
            // There is a receiver: this connection's.
            let _ = messages.send(message);
        }
    });
    tokio::select! {
        _ = &mut sending => receiving.abort(),
        _ = &mut receiving => sending.abort(),
    }
}
