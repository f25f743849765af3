//! A client of HTTP/2 that chooses its own DATA frames, on the crate `h2`.

use std::{future::poll_fn, net::SocketAddr};

use bytes::{Buf, Bytes, BytesMut};
use h2::{
    Reason, RecvStream, SendStream,
    client::{self, SendRequest},
    ext::Protocol,
};
use http::{Method, Request, Response, Version};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinHandle,
};

use crate::peer::masked;
use crate::raw::{until, within};

/// A connection. Every wait ends after [`PATIENCE`](crate::raw::PATIENCE), with a panic.
#[derive(Debug)]
pub struct Client {
    /// What sends requests.
    pub requests: SendRequest<Bytes>,
    /// The connection's own task, which ends with it.
    pub connection: JoinHandle<Result<(), h2::Error>>,
}

impl Client {
    /// Connects over TCP, and knows that the server speaks HTTP/2.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = within(TcpStream::connect(address)).await;
        let stream = stream.expect("the server accepts");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        Self::over(stream).await
    }

    /// Speaks over any stream, and waits until the server has allowed for extended CONNECT.
    pub async fn over<Io>(io: Io) -> Self
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let builder = client::Builder::new()
            .initial_window_size(8 << 20)
            .initial_connection_window_size(64 << 20)
            .max_send_buffer_size(64 << 20)
            .handshake(io);
        let (requests, connection) = within(builder).await.expect("a preface");
        let connection = tokio::spawn(connection);
        let client = Self {
            requests,
            connection,
        };
        until(|| client.requests.is_extended_connect_protocol_enabled()).await;
        client
    }

    /// Opens a WebSocket.
    pub async fn open(&mut self, path: &str) -> Socket {
        let (response, socket) = self.ask(connect(path)).await;
        assert_eq!(response.status(), 200);
        // RFC 8441 §5: no key, no accept; RFC 9110 §9.3.6: no length.
        let headers = response.headers();
        assert!(!headers.contains_key("sec-websocket-accept"), "{headers:?}");
        assert!(!headers.contains_key("content-length"), "{headers:?}");
        socket
    }

    /// The answer to a request without a body, and the stream, which stays open.
    pub async fn ask(&mut self, request: Request<()>) -> (Response<()>, Socket) {
        let result = within(self.try_ask(request)).await;
        result.expect("a response")
    }

    /// The same, or why there is no answer.
    ///
    /// # Errors
    ///
    /// The stream or the connection has been reset.
    pub async fn try_ask(
        &mut self,
        request: Request<()>,
    ) -> Result<(Response<()>, Socket), h2::Error> {
        let ends = request.method() != Method::CONNECT;
        let mut requests = self.requests.clone().ready().await?;
        let (response, send) = requests.send_request(request, ends)?;
        let (parts, recv) = response.await?.into_parts();
        assert_eq!(parts.version, Version::HTTP_2);
        let socket = Socket {
            send,
            recv,
            buffer: BytesMut::new(),
        };
        Ok((Response::from_parts(parts, ()), socket))
    }

    /// A page is served.
    pub async fn serves(&mut self, path: &str, page: &str) {
        let request = Request::get(format!("http://localhost{path}")).body(());
        let (response, mut stream) = self.ask(request.expect("a request")).await;
        assert_eq!(response.status(), 200);
        assert_eq!(stream.rest().await, page.as_bytes());
    }

    /// How the connection ended, now that it has nothing to do any more.
    ///
    /// # Errors
    ///
    /// The server has ended it for a mistake, or it broke.
    pub async fn end(self) -> Result<(), h2::Error> {
        drop(self.requests);
        within(self.connection).await.expect("no panic")
    }
}

/// A request for a WebSocket (RFC 8441 §4).
pub fn connect(path: &str) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = format!("http://localhost{path}").parse().expect("a path");
    *request.version_mut() = Version::HTTP_2;
    let version = http::HeaderValue::from_static("13");
    request
        .headers_mut()
        .insert("sec-websocket-version", version);
    request
        .extensions_mut()
        .insert(Protocol::from_static("websocket"));
    request
}

/// One stream.
#[derive(Debug)]
pub struct Socket {
    /// What it says.
    pub send: SendStream<Bytes>,
    /// What it hears.
    pub recv: RecvStream,
    buffer: BytesMut,
}

impl Socket {
    /// Writes it in DATA frames as large as they may be, when there is room for them.
    pub async fn write(&mut self, bytes: impl Into<Bytes>) {
        let mut bytes = bytes.into();
        while !bytes.is_empty() {
            let frame = bytes.split_to(bytes.len().min(16 << 10));
            self.room(frame.len()).await;
            self.send.send_data(frame, false).expect("it is open");
        }
    }

    /// Waits until so many bytes may be written.
    pub async fn room(&mut self, bytes: usize) {
        self.send.reserve_capacity(bytes);
        while self.send.capacity() < bytes {
            let capacity = within(poll_fn(|cx| self.send.poll_capacity(cx))).await;
            capacity.expect("it is open").expect("it is open");
        }
    }

    /// Ends what it says, without a Close.
    pub fn end(&mut self) {
        self.send.send_data(Bytes::new(), true).expect("it is open");
    }

    /// The next DATA frame, or the end.
    ///
    /// # Errors
    ///
    /// The stream or the connection has been reset.
    pub async fn data(&mut self) -> Option<Result<Bytes, h2::Error>> {
        let data = within(self.recv.data()).await?;
        Some(data.inspect(|data| {
            let flow = self.recv.flow_control();
            flow.release_capacity(data.len()).expect("it came");
        }))
    }

    /// The next frame of the server: its first byte and its payload.
    pub async fn frame(&mut self) -> (u8, Vec<u8>) {
        let start = self.read(2).await;
        let len = match start[1] {
            126 => self.read(2).await.get_u16().into(),
            127 => self.read(8).await.get_u64(),
            len => len.into(),
        };
        let len = usize::try_from(len).expect("a frame fits into memory");
        (start[0], self.read(len).await.into())
    }

    async fn read(&mut self, count: usize) -> BytesMut {
        while self.buffer.len() < count {
            let data = self.data().await.expect("the server writes as much");
            self.buffer.extend_from_slice(&data.expect("no reset"));
        }
        self.buffer.split_to(count)
    }

    /// What comes until the end.
    pub async fn rest(&mut self) -> Vec<u8> {
        while let Some(data) = self.data().await {
            self.buffer.extend_from_slice(&data.expect("no reset"));
        }
        self.buffer.split().into()
    }

    /// What comes until the end, and the reason if that is a reset.
    pub async fn fate(&mut self) -> (Vec<u8>, Option<Reason>) {
        while let Some(data) = self.data().await {
            match data {
                Ok(data) => self.buffer.extend_from_slice(&data),
                Err(error) => return (self.buffer.split().into(), error.reason()),
            }
        }
        (self.buffer.split().into(), None)
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
}
