//! tokio-websockets: its `echo_server` example, with its default limits, and a broadcast with one
//! task for each connection.

use futures_util::{SinkExt, StreamExt};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::broadcast::{self, error::RecvError},
    task,
};
use tokio_websockets::{Error, Message, ServerBuilder};

use super::BROADCAST_CAPACITY;
use crate::Result;

pub async fn serve(listener: TcpListener) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // As in the example: outside tokio's cooperative budget.
        task::spawn(task::unconstrained(echo(stream)));
    }
}

/// Every message to every connection.
pub async fn broadcast(listener: TcpListener) -> Result<()> {
    let (send, _) = broadcast::channel(BROADCAST_CAPACITY);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(member(stream, send.clone()));
    }
}

async fn member(stream: TcpStream, messages: broadcast::Sender<Message>) -> Result<(), Error> {
    let (_request, mut socket) = ServerBuilder::new().accept(stream).await?;
    let mut others = messages.subscribe();
    loop {
        tokio::select! {
            message = socket.next() => match message.transpose()? {
                Some(message) if message.is_text() || message.is_binary() => {
                    // There is a receiver: this connection's.
                    let _ = messages.send(message);
                }
                Some(_) => {}
                None => return Ok(()),
            },
            message = others.recv() => match message {
                Ok(message) => socket.send(message).await?,
                // It has missed some, and goes on.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(()),
            },
        }
    }
}

async fn echo(stream: TcpStream) -> Result<(), Error> {
    let (_request, mut socket) = ServerBuilder::new().accept(stream).await?;
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}
