//! tokio-tungstenite: the loop most people write, and the one of its `echo-server` example.

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt, TryStreamExt, future};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;
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

/// The same loop as [`echo`], over TLS.
pub async fn serve_tls(listener: TcpListener, tls: Arc<ServerConfig>) -> Result<()> {
    let acceptor = TlsAcceptor::from(tls);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let stream = acceptor.accept(stream).await?;
            echo(accept_async(stream).await?).await
        });
    }
}

/// Writes each message by itself.
pub async fn echo<Io>(mut socket: WebSocketStream<Io>) -> Result<(), Error>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
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
