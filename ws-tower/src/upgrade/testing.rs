//! A request with a client behind it, so that a WebSocket can be tested without a port.

use std::fmt;

use http::{Request, Response, Uri};
use tokio::io::DuplexStream;
use ws_core::{
    Config, Connection, Role,
    handshake::client::{Handshake, Refusal},
};

use crate::{
    Session, WebSocket,
    provided::ProvidedIo,
    session::state::{About, Handler, Shared},
};

/// A request for a WebSocket at a path or a `ws:` URI, and the client that waits for its
/// response. Give the request to a service, by `oneshot` for instance, and the response to the
/// client: everything runs as it does behind a server, but for the network.
///
/// Headers can be added to the request. For subprotocols there is [`test_request_with`].
///
/// # Panics
///
/// The URI is none.
pub fn test_request<B: Default>(uri: &str) -> (Request<B>, TestClient) {
    let absolute = match uri {
        path if path.starts_with('/') => format!("ws://localhost{path}"),
        uri => uri.to_owned(),
    };
    let handshake = absolute
        .parse::<Uri>()
        .map_err(|error| error.to_string())
        .and_then(|uri| Handshake::new(&uri).map_err(|error| error.to_string()));
    match handshake {
        Ok(handshake) => test_request_with(handshake),
        Err(error) => panic!("`{uri}` cannot be asked for a websocket: {error}"),
    }
}

/// Like [`test_request`], with the client's part of the handshake made by hand: subprotocols, a
/// key that is known, compression (by `Handshake::negotiate`).
pub fn test_request_with<B: Default>(handshake: Handshake) -> (Request<B>, TestClient) {
    let (near, far) = tokio::io::duplex(DUPLEX);
    let mut request = handshake.request().map(|()| B::default());
    request.extensions_mut().insert(ProvidedIo::new(far));
    let client = TestClient {
        handshake,
        io: near,
    };
    (request, client)
}

/// The client behind a [`test_request`].
pub struct TestClient {
    handshake: Handshake,
    io: DuplexStream,
}

impl TestClient {
    /// Checks the response as any client does, and gives the client's end. Its session runs in a
    /// task of its own.
    ///
    /// # Errors
    ///
    /// The response does not accept.
    ///
    /// # Panics
    ///
    /// There is no tokio runtime.
    pub fn finish<B>(self, response: &Response<B>) -> Result<WebSocket, Refusal> {
        let (subprotocol, extensions) = self.handshake.finish(response)?.into_parts();
        let connection = Connection::new(Role::Client, Config::default());
        let connection = connection.with_extensions(&extensions);
        let about = About {
            subprotocol,
            ..About::default()
        };
        let shared = Shared::new(connection, Handler::Done, about);
        let socket = WebSocket::new(shared.clone());
        let session: Session<DuplexStream> = Session::start(shared, self.io, None);
        tokio::spawn(session);
        Ok(socket)
    }

    /// The client's end of the bytes, for tests that speak for themselves.
    pub fn into_io(self) -> DuplexStream {
        self.io
    }
}

impl fmt::Debug for TestClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestClient").finish_non_exhaustive()
    }
}

/// What either side may be ahead of the other, in bytes: as the buffers of a socket.
const DUPLEX: usize = 64 << 10;
