//! A layer on an axum service: `cargo run --example axum -- [--listen 127.0.0.1:8000]`
//!
//! The router and `axum::serve` stay as they are; `/echo` is answered by the layer, `/` by axum.

use std::time::Duration;

use axum::{Router, routing::get};
use ws_examples::{Arguments, Failure, asked_to_end, listen, log_to_stderr};
use ws_tower::{Config, Error, WebSocket, WebSocketLayer};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = Arguments::from_env("axum [--listen ADDR]")?;
    let address: Option<String> = arguments.value("--listen")?;
    arguments.finish()?;
    log_to_stderr()?;

    // 1 MiB unless asked for more.
    let config = Config::new().max_message_size(16 << 20);
    let sockets = WebSocketLayer::new().route("/echo", echo).config(config);
    let tracker = sockets.tracker();
    let app = Router::new()
        .route("/", get("There is a WebSocket at /echo.\n"))
        .layer(sockets); // last, so that it is outermost

    let listener = listen(address.as_deref().unwrap_or("127.0.0.1:8000")).await?;
    println!("http://{}", listener.local_addr()?);
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            asked_to_end().await;
            // axum waits for its requests. The sockets are the layer's: they are told 1001.
            tracker.shutdown(Duration::from_secs(10)).await;
        })
        .await?;
    Ok(())
}

async fn echo(mut socket: WebSocket) -> Result<(), Error> {
    while let Some(message) = socket.recv().await {
        socket.send(message?).await?;
    }
    Ok(())
}
