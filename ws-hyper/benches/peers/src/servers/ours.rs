//! This repository: the layer alone behind `ws_hyper::serve`, the plain `recv`/`send` handler.

use std::{sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{net::TcpListener, sync::mpsc};
use ws_hyper::server::Tls;
use ws_tower::{Config, Error, Message, WebSocket, WebSocketLayer, hub::Hub};

use crate::{
    Result,
    wire::{PATH, TOPICS, TOPICS_PATH},
};

pub async fn serve(listener: TcpListener, config: Config) -> Result<()> {
    let app = WebSocketLayer::new()
        .config(config)
        .route(PATH, echo)
        .into_service();
    ws_hyper::serve(listener, app).await?;
    Ok(())
}

/// The echo over TLS.
pub async fn serve_tls(listener: TcpListener, tls: Arc<ServerConfig>) -> Result<()> {
    let app = WebSocketLayer::new().route(PATH, echo).into_service();
    ws_hyper::serve(listener, app)
        .tls(Tls::from_config(tls))
        .await?;
    Ok(())
}

/// Every message to every connection: the handler publishes what it receives. On another path, for
/// every message so many topics more with one member.
pub async fn hub(listener: TcpListener, hub: Hub) -> Result<()> {
    let other = hub.clone();
    let app = WebSocketLayer::new()
        .config(without_pings())
        .route(TOPICS_PATH, move |socket: WebSocket| {
            topics(other.clone(), socket)
        })
        .route(PATH, move |mut socket: WebSocket| {
            let hub = hub.clone();
            async move {
                let seat = hub.join(TOPIC, &socket);
                while let Some(message) = socket.recv().await {
                    seat.publish(message?);
                }
                Ok::<_, Error>(())
            }
        })
        .into_service();
    ws_hyper::serve(listener, app).await?;
    Ok(())
}

/// Answers each message when it has joined [`TOPICS`] topics more, and hears what other nodes
/// publish to them.
async fn topics(hub: Hub, mut socket: WebSocket) -> Result<(), Error> {
    let mut seats = Vec::new();
    while let Some(message) = socket.recv().await {
        for _ in 0..TOPICS {
            seats.push(hub.join(&format!("topic-{:07}", seats.len()), &socket));
        }
        if hub.node().is_some()
            && let Some(last) = seats.last()
        {
            // They are subscribed to in this order.
            hub.subscribed(last.topic()).await;
        }
        socket.send(message?).await?;
    }
    Ok(())
}

/// The same by a task of its own, which belongs to no connection.
pub async fn hub_task(listener: TcpListener) -> Result<()> {
    let hub = Hub::new();
    let (send, mut receive) = mpsc::channel::<Message>(64);
    let publisher = hub.clone();
    tokio::spawn(async move {
        while let Some(message) = receive.recv().await {
            publisher.publish(TOPIC, message);
        }
    });
    let app = WebSocketLayer::new()
        .config(without_pings())
        .route(PATH, move |mut socket: WebSocket| {
            let (hub, send) = (hub.clone(), send.clone());
            async move {
                let _seat = hub.join(TOPIC, &socket);
                while let Some(message) = socket.recv().await {
                    if send.send(message?).await.is_err() {
                        break;
                    }
                }
                Ok::<_, Error>(())
            }
        })
        .into_service();
    ws_hyper::serve(listener, app).await?;
    Ok(())
}

/// The generator compares every byte and answers no ping, and most of its connections send
/// nothing for as long as a run takes.
fn without_pings() -> Config {
    Config::new().keepalive_interval(Duration::from_hours(1))
}

/// Everybody's topic.
const TOPIC: &str = "all";

async fn echo(mut socket: WebSocket) -> Result<(), Error> {
    while let Some(message) = socket.recv().await {
        socket.send(message?).await?;
    }
    Ok(())
}
