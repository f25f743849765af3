//! tokio-tungstenite: the loop most people write, and the one of its `echo-server` example.

use futures_util::{SinkExt, StreamExt, TryStreamExt, future};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{WebSocketStream, accept_async, tungstenite::Error};

use crate::Result;

pub async fn serve<F>(
    listener: TcpListener,
    handler: fn(WebSocketStream<TcpStream>) -> F,
) -> Result<()>
where
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move { handler(accept_async(stream).await?).await });
    }
}

/// Writes each message by itself.
pub async fn echo(mut socket: WebSocketStream<TcpStream>) -> Result<(), Error> {
    while let Some(message) = socket.next().await {
        let message = message?;
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}

/// Writes when nothing is left to read.
pub async fn forward(socket: WebSocketStream<TcpStream>) -> Result<(), Error> {
    let (write, read) = socket.split();
    read.try_filter(|message| future::ready(message.is_text() || message.is_binary()))
        .forward(write)
        .await
}
