//! wtx: the echo of its documentation, on a `TcpListener`. Its compression keeps no window between
//! messages, and a compressor for each connection.

use tokio::net::{TcpListener, TcpStream};
use wtx::{
    collection::Vector,
    web_socket::{
        CompressionLevel, DeflateConfig, OpCode, WebSocketAcceptor, WebSocketPayloadOrigin,
        compression::{Flate2, WindowBits},
    },
};

use crate::Result;

/// Its defaults: level 5, windows of 4 KiB.
pub fn default() -> DeflateConfig {
    DeflateConfig::default()
}

/// Level 1 and windows of 32 KiB, as ours.
pub fn fast() -> DeflateConfig {
    DeflateConfig {
        client_max_window_bits: WindowBits::Fifteen,
        compression_level: CompressionLevel::One,
        server_max_window_bits: WindowBits::Fifteen,
    }
}

pub async fn serve(listener: TcpListener, deflate: fn() -> DeflateConfig) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(echo(stream, deflate()));
    }
}

async fn echo(stream: TcpStream, deflate: DeflateConfig) -> wtx::Result<()> {
    let mut socket = WebSocketAcceptor::default()
        .compression(Flate2::from(deflate))
        .accept(stream)
        .await?;
    let mut buffer = Vector::new();
    let (mut common, mut reader, mut writer) = socket.split_mut();
    loop {
        let mut frame = reader
            .read_frame(&mut buffer, &mut common, WebSocketPayloadOrigin::Adaptive)
            .await?;
        match frame.op_code() {
            OpCode::Text | OpCode::Binary => {
                writer.write_frame(&mut common, &mut frame).await?;
            }
            OpCode::Close => return Ok(()),
            _ => {}
        }
    }
}
