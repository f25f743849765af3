//! The server's way to a socket: the request is read, and somebody decides.

use std::{
    error::Error,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{
    HeaderMap, HeaderValue, Request, Response,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING},
};

use super::{
    head::{Exchange, HeadError, encode_response},
    socket::WebSocket,
    stream::TimedStream,
};
use crate::{
    Config, Connection, Role,
    handshake::{
        Accepted, conceal,
        server::{Offer, Rejection},
    },
};

/// A client's request for a WebSocket that waits for a decision, on a stream of its own.
///
/// The decision is the caller's, by the request's path, its credentials, and its `Origin`: a
/// browser lets any page ask, with the user's cookies, and says there which page it is (RFC 6455
/// §10.2).
///
/// ```no_run
/// use std::{net::TcpListener, thread};
/// use http::{Response, header::ORIGIN};
/// use ws_core::{Config, blocking::Incoming};
///
/// let listener = TcpListener::bind("127.0.0.1:9001")?;
/// for stream in listener.incoming() {
///     let stream = stream?;
///     thread::spawn(move || {
///         let incoming = Incoming::read(stream, Config::new())?;
///         let headers = incoming.request().headers();
///         if headers.get(ORIGIN).is_some_and(|origin| origin != "https://chat.example") {
///             let refusal = Response::builder().status(403).body("not from this page")?;
///             return Ok(incoming.refuse(&refusal)?);
///         }
///         let mut socket = incoming.subprotocols(&["chat.v2"]).accept()?;
///         while let Some(message) = socket.recv() {
///             socket.send(message?)?;
///         }
///         Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
///     });
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Incoming<S> {
    stream: S,
    config: Arc<Config>,
    request: Request<()>,
    offer: Offer,
    subprotocol: Option<String>,
    headers: HeaderMap,
    /// What came behind the request.
    behind: Vec<u8>,
    deadline: Instant,
}

impl<S: TimedStream> Incoming<S> {
    /// Reads a request, within [`Config::handshake_timeout`], which is also for the answer.
    ///
    /// # Errors
    ///
    /// [`AcceptError::Rejected`] when it does not ask for a WebSocket, or not in order; the client
    /// has been told so. [`AcceptError::Request`] when there is none, or it cannot be read.
    pub fn read(mut stream: S, config: impl Into<Arc<Config>>) -> Result<Self, AcceptError> {
        /// As good as never.
        const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
        let config = config.into();
        let deadline = Instant::now() + config.handshake_timeout.min(YEAR);
        let mut exchange = Exchange::new(&mut stream, deadline);
        let request = exchange.request().map_err(AcceptError::Request)?;
        let (parts, ()) = request.into_parts();
        match Offer::from_request(&parts).and_then(|offer| offer.negotiate(&config)) {
            Ok(offer) => Ok(Self {
                behind: exchange.into_rest(),
                stream,
                config,
                request: Request::from_parts(parts, ()),
                offer,
                subprotocol: None,
                headers: HeaderMap::new(),
                deadline,
            }),
            Err(rejection) => {
                // The rejection is the news, whether the client hears of it or not.
                let _ = refuse(stream, deadline, &rejection.to_response());
                Err(AcceptError::Rejected(rejection))
            }
        }
    }

    /// The request: its path and its headers.
    pub fn request(&self) -> &Request<()> {
        &self.request
    }

    /// What the client offers.
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Chooses the first of these subprotocols that the client offers, or none. Default: none.
    #[must_use]
    pub fn subprotocols(mut self, preferences: &[impl AsRef<str>]) -> Self {
        let chosen = self.offer.select_subprotocol(preferences);
        self.subprotocol = chosen.map(str::to_owned);
        self
    }

    /// Adds headers to the acceptance, a cookie for instance. Those of the handshake stay as they
    /// are.
    #[must_use]
    pub fn headers(mut self, headers: HeaderMap) -> Self {
        self.headers.extend(headers);
        for (name, value) in &mut self.headers {
            conceal(name, value);
        }
        self
    }

    /// Accepts.
    ///
    /// # Errors
    ///
    /// [`AcceptError::Response`] when the client has not taken the response in time, or is gone.
    pub fn accept(mut self) -> Result<WebSocket<S>, AcceptError> {
        let (mut response, accepted) = self
            .offer
            .accept(self.subprotocol.as_deref())
            // It cannot fail: the subprotocol is out of the offer.
            .map_err(|error| AcceptError::Response(HeadError::Malformed(error.to_string())))?;
        for (name, value) in response.headers() {
            self.headers.insert(name, value.clone());
        }
        *response.headers_mut() = self.headers;
        Exchange::new(&mut self.stream, self.deadline)
            .write(&encode_response(&response))
            .map_err(AcceptError::Response)?;
        let mut connection = connection(self.config, &accepted);
        connection.receive(&self.behind);
        let (subprotocol, _) = accepted.into_parts();
        Ok(WebSocket::new(self.stream, connection).with_subprotocol(subprotocol))
    }

    /// Refuses, with any response but an acceptance, and ends the stream.
    ///
    /// # Errors
    ///
    /// [`AcceptError::Response`] when the client has not taken the response in time, or is gone.
    pub fn refuse(self, response: &Response<impl AsRef<[u8]>>) -> Result<(), AcceptError> {
        refuse(self.stream, self.deadline, response)
    }
}

/// Why a server has no socket.
#[derive(Debug)]
#[non_exhaustive]
pub enum AcceptError {
    /// No request came, or none that can be read.
    Request(HeadError),
    /// The request is not one for a WebSocket, or not in order. The client has been told.
    Rejected(Rejection),
    /// The response could not be written.
    Response(HeadError),
}

impl fmt::Display for AcceptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(error) => write!(f, "the client's request cannot be read: {error}"),
            Self::Rejected(_) => f.write_str("the client's request was refused"),
            Self::Response(error) => write!(f, "the response cannot be written: {error}"),
        }
    }
}

impl Error for AcceptError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Request(error) | Self::Response(error) => error.source(),
            Self::Rejected(rejection) => Some(rejection),
        }
    }
}

fn connection(config: Arc<Config>, accepted: &Accepted) -> Connection {
    Connection::new(Role::Server, config)
        .with_extensions(accepted.extensions())
        .without_control_events()
}

/// Sends a response that is no acceptance, and ends the stream.
fn refuse<S: TimedStream>(
    mut stream: S,
    deadline: Instant,
    response: &Response<impl AsRef<[u8]>>,
) -> Result<(), AcceptError> {
    let body = response.body().as_ref();
    let mut head = Response::new(());
    *head.status_mut() = response.status();
    *head.headers_mut() = response.headers().clone();
    let headers = head.headers_mut();
    headers.remove(TRANSFER_ENCODING);
    headers.insert(CONTENT_LENGTH, body.len().into());
    if !headers.contains_key(CONNECTION) {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let bytes = [&encode_response(&head), body].concat();
    let written = Exchange::new(&mut stream, deadline).write(&bytes);
    // The client may be gone by now, which comes to the same.
    let _ = stream.shutdown_write();
    written.map_err(AcceptError::Response)
}
