//! A client's connection, for the examples that are clients.

use std::time::Duration;

use http::{Response, StatusCode, Uri};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use ws_core::{Config, Connection, Role, handshake::client::Handshake};
use ws_tower::{Session, WebSocket};

use crate::Failure;

/// Connects to a `ws://` address, and spawns the session.
///
/// # Errors
///
/// Says what went wrong: the address, the connection, or what the server answered. There are ten
/// seconds for all of it.
pub async fn dial(uri: &Uri, config: &Config) -> Result<WebSocket, Failure> {
    let late = || Failure::new(format!("{uri} did not answer within 10 s"));
    timeout(Duration::from_secs(10), open(uri, config))
        .await
        .map_err(|_| late())?
}

async fn open(uri: &Uri, config: &Config) -> Result<WebSocket, Failure> {
    let handshake = Handshake::new(uri)?;
    if handshake.scheme() != "http" {
        return Err(Failure::new("this client has no TLS: it takes ws:// only"));
    }
    let address = (handshake.host(), handshake.port());
    let mut stream = TcpStream::connect(address)
        .await
        .map_err(|error| Failure::new(format!("cannot connect to {uri}: {error}")))?;
    stream.set_nodelay(true)?;

    let request = handshake.request();
    let mut head = format!("GET {} HTTP/1.1\r\n", request.uri()).into_bytes();
    for (name, value) in request.headers() {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    stream.write_all(&head).await?;

    let (head, rest) = read_head(&mut stream).await?;
    handshake.finish(&response(&head)?)?;
    let mut connection = Connection::new(Role::Client, config.clone());
    connection.receive(&rest);
    let (session, socket) = Session::new(stream, connection);
    tokio::spawn(session);
    Ok(socket)
}

/// The head of the response as text, and what came behind it.
async fn read_head(stream: &mut TcpStream) -> Result<(String, Vec<u8>), Failure> {
    const MOST: usize = 64 << 10;
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((String::from_utf8(bytes)?, rest));
        }
        if bytes.len() > MOST || stream.read_buf(&mut bytes).await? == 0 {
            return Err(Failure::new("the server's answer is not HTTP"));
        }
    }
}

fn response(head: &str) -> Result<Response<()>, Failure> {
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let mut response = Response::builder().status(StatusCode::from_bytes(
        status.unwrap_or_default().as_bytes(),
    )?);
    for line in lines.take_while(|line| !line.is_empty()) {
        if let Some((name, value)) = line.split_once(':') {
            response = response.header(name, value.trim());
        }
    }
    Ok(response.body(())?)
}
