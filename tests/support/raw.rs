//! A client that knows nothing but bytes.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// A client that knows nothing but bytes. Every wait ends after [`PATIENCE`], with a panic.
#[derive(Debug)]
pub struct Raw<Io = TcpStream>(pub Io);

impl Raw {
    /// Connects over TCP, without delay.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = within(TcpStream::connect(address)).await;
        let stream = stream.expect("the server accepts");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        Self(stream)
    }

    /// Opens a WebSocket.
    pub async fn open(address: SocketAddr, path: &str) -> Self {
        let mut raw = Self::connect(address).await;
        raw.upgrade(path).await;
        raw
    }

    /// The head of the response to a request on a connection of its own.
    pub async fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> String {
        let mut raw = Self::connect(address).await;
        raw.write(request).await;
        raw.head().await
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Raw<Io> {
    /// Asks for a WebSocket, and gets it.
    pub async fn upgrade(&mut self, path: &str) {
        self.write(handshake(path)).await;
        let head = self.head().await;
        assert!(head.starts_with("http/1.1 101 "), "{head}");
    }

    /// Writes all of it, which may take as long as the server reads on.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let mut bytes = bytes.as_ref();
        while !bytes.is_empty() {
            let written = within(self.0.write(bytes)).await;
            let count = written.expect("the server reads");
            assert!(count > 0, "the server reads");
            bytes = &bytes[count..];
        }
        // TLS keeps what the socket does not take at once.
        let flushed = within(self.0.flush()).await;
        flushed.expect("the server reads");
    }

    /// The next head of a response, in lower case, with its last empty line.
    pub async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match within(self.0.read_u8()).await {
                Ok(byte) => head.push(byte),
                Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&head)),
            }
        }
        String::from_utf8(head)
            .expect("a head is text")
            .to_ascii_lowercase()
    }

    /// So many bytes, which may take as long as the server writes on.
    pub async fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let mut rest = &mut bytes[..];
        while !rest.is_empty() {
            let read = within(self.0.read(rest)).await;
            let count = read.expect("the server writes as much");
            assert!(count > 0, "the server writes as much");
            rest = &mut rest[count..];
        }
        bytes
    }

    /// What comes until the end, even if that is a reset.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = within(self.0.read_to_end(&mut bytes)).await;
        bytes
    }

    /// The next frame of the server: its first byte and its payload.
    pub async fn frame(&mut self) -> (u8, Vec<u8>) {
        let start = self.read(2).await;
        let len = match start[1] {
            126 => u64::from(u16::from_be_bytes([self.byte().await, self.byte().await])),
            127 => {
                let bytes = self.read(8).await.try_into().expect("8 bytes");
                u64::from_be_bytes(bytes)
            }
            len => u64::from(len),
        };
        let len = usize::try_from(len).expect("a frame fits into memory");
        (start[0], self.read(len).await)
    }

    /// Says `Hello`, and hears it back.
    pub async fn echoes(&mut self) {
        self.write(masked(0x81, b"Hello")).await;
        assert_eq!(self.frame().await, (0x81, b"Hello".to_vec()));
    }

    /// Says Close with 1000, hears it back, and sees the end of the stream.
    pub async fn close(mut self) {
        self.write(masked(0x88, &[3, 0xe8])).await;
        assert_eq!(self.rest().await, b"\x88\x02\x03\xe8");
    }

    async fn byte(&mut self) -> u8 {
        self.read(1).await[0]
    }
}

pub use crate::peer::masked;

/// A request for a WebSocket. Its key is that of RFC 6455 §1.3.
pub fn handshake(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// After this long something hangs, however busy the machine is. It is less than a server needs to
/// give up a peer that is silent (40 s), so that no test takes that for what it waits for.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for [`PATIENCE`] at most.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    let result = timeout(PATIENCE, future).await;
    result.expect("this should not have taken so long")
}

/// Waits for [`PATIENCE`] at most until something holds.
pub async fn until(mut holds: impl FnMut() -> bool) {
    within(async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
