//! The smallest server: `cargo run --example echo`, then connect to `ws://127.0.0.1:8000/echo`.

use std::error::Error;

use tokio::net::TcpListener;
use ws_tower::{WebSocket, WebSocketLayer};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init(); // a handler's error is logged
    let app = WebSocketLayer::new().route("/echo", echo).into_service();
    let listener = TcpListener::bind("127.0.0.1:8000").await?;
    println!("ws://{}/echo", listener.local_addr()?);
    ws_hyper::serve(listener, app).await?;
    Ok(())
}

async fn echo(mut socket: WebSocket) -> Result<(), ws_tower::Error> {
    while let Some(message) = socket.recv().await {
        socket.send(message?).await?;
    }
    Ok(())
}
