//! The floor: tokio echoing bytes, behind a canned handshake. It looks at no frame, and its
//! connections share one buffer.

use std::{
    cell::RefCell,
    future::poll_fn,
    io::{self, ErrorKind},
    pin::Pin,
    sync::Arc,
    task::{Poll, ready},
};

use rustix::io::{Errno, write};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
};

use crate::{Result, wire::ACCEPT};

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 64 << 10]);
    static MEMBERS: RefCell<Vec<Arc<TcpStream>>> = const { RefCell::new(Vec::new()) };
}

pub async fn serve(listener: TcpListener) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(echo(stream));
    }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    handshake(&mut stream).await?;
    while let Some(rest) = poll_fn(|context| {
        BUFFER.with_borrow_mut(|buffer| {
            let mut read = ReadBuf::new(buffer);
            ready!(Pin::new(&mut stream).poll_read(context, &mut read))?;
            Poll::Ready(write_now(&stream, read.filled()))
        })
    })
    .await?
    {
        stream.write_all(&rest).await?;
    }
    Ok(())
}

/// Writes what the socket takes at once, and returns the rest; `None` if there was nothing.
fn write_now(stream: &TcpStream, bytes: &[u8]) -> io::Result<Option<Vec<u8>>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let written = match stream.try_write(bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        outcome => outcome?,
    };
    Ok(Some(bytes[written..].to_vec()))
}

/// Every byte to every connection, by one plain write for each: the floor of fan-out. What a socket
/// does not take is lost.
pub async fn fan_out(listener: TcpListener) -> Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            handshake(&mut stream).await?;
            let stream = Arc::new(stream);
            MEMBERS.with_borrow_mut(|members| members.push(Arc::clone(&stream)));
            let outcome = publish(&stream).await;
            MEMBERS.with_borrow_mut(|members| {
                members.retain(|member| !Arc::ptr_eq(member, &stream));
            });
            outcome
        });
    }
}

async fn publish(stream: &TcpStream) -> io::Result<()> {
    loop {
        stream.readable().await?;
        let count = BUFFER.with_borrow_mut(|buffer| {
            let count = match stream.try_read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                outcome => outcome?,
            };
            MEMBERS.with_borrow(|members| {
                for member in members {
                    match write(member.as_ref(), &buffer[..count]) {
                        // It stalls, or is no more, which its own task finds out.
                        Ok(_) | Err(Errno::AGAIN | Errno::PIPE | Errno::CONNRESET) => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            })?;
            Ok::<_, io::Error>(Some(count))
        })?;
        if count == Some(0) {
            return Ok(());
        }
    }
}

async fn handshake(stream: &mut TcpStream) -> io::Result<()> {
    // The generator sends its request at once, and nothing behind it before the answer.
    stream.read_buf(&mut Vec::with_capacity(1024)).await?;
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\n\
         Connection: Upgrade\r\n\
         Upgrade: websocket\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    stream.write_all(response.as_bytes()).await
}
