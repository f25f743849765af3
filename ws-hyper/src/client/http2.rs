//! WebSockets over HTTP/2 (RFC 8441): many on one connection.

mod ending;

use std::{
    fmt,
    future::poll_fn,
    mem,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, Uri, uri::PathAndQuery};
use hyper::{
    client::conn::http2::{Builder, SendRequest},
    ext::Protocol,
    rt::Executor,
    upgrade::Upgraded,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{Instant, timeout_at};
use ws_tower::{Config, WebSocket, ws_core::handshake::client::Handshake};

use self::ending::Ending;
use super::{
    address::{Address, AddressError},
    connecting::YEAR,
    connector::Connector,
    error::{ConnectError, HttpError, Step},
    exchange::{MAX_ANSWER, Opened, body_deadline, start_of, with_body},
    tls::Alpn,
    transport::Transport,
};
use crate::inlet::{Inlets, SocketIo, WeakInlets};

/// An HTTP/2 connection on which any number of WebSockets may be opened, at a time or one after
/// another: each is a stream of it. Made by [`Connector::connect_http2`].
///
/// A clone is the same connection. It ends when the last clone and the last socket are gone, or
/// when the server ends it; then [`open`](Self::open) fails, and a new one is to be made.
///
/// While there are sockets, a peer that is silent for
/// [`Config::keepalive_interval`](ws_tower::Config::keepalive_interval) is asked whether it is
/// there (RFC 9113 §6.7), once a second at most, and the connection ends without an answer within
/// [`Config::keepalive_timeout`](ws_tower::Config::keepalive_timeout).
///
/// A socket that is slow, or whose task waits behind one that holds up its thread, costs the others
/// nothing: the connection's own task takes what comes for it. Past
/// [`Config::http2_receive_cap`](ws_tower::Config::http2_receive_cap) that socket is closed with 1013.
///
/// How many sockets there may be at a time, the server says (`SETTINGS_MAX_CONCURRENT_STREAMS`,
/// often 100 or more). Beyond, [`open`](Self::open) waits for one to end.
///
/// ```no_run
/// use ws_hyper::Connector;
///
/// # async fn run() -> Result<(), ws_hyper::client::ConnectError> {
/// let connection = Connector::new().connect_http2("wss://chat.example").await?;
/// let (news, _) = connection.open("/news").await?;
/// let (chat, _) = connection.open("/rooms?id=7").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Http2Connection {
    connector: Connector,
    address: Address,
    link: Link,
}

impl Http2Connection {
    pub(super) async fn connect(
        connector: &Connector,
        address: Address,
        deadline: Instant,
        step: &mut Step,
    ) -> Result<Self, ConnectError> {
        let handshake = connector.handshake(&address, true)?;
        let io = connector
            .stream(&address, &handshake, Alpn::Http2, deadline, step)
            .await?;
        if address.is_tls() && !io.is_http2() {
            return Err(ConnectError::Http(HttpError::no_http2(None)));
        }
        *step = Step::Settings;
        let link = Link::establish(io, &connector.config).await?;
        Ok(Self {
            connector: connector.clone(),
            address,
            link,
        })
    }

    /// Opens a WebSocket at a path and query of this server, with the settings of the
    /// [`Connector`]; an empty path is the one of the address. Redirects are not followed.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Refused`] if the server does not want to, [`ConnectError::Timeout`] at the
    /// deadline, [`ConnectError::Http`] if the connection is gone.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the stream is reset, and the connection stays for the others.
    pub async fn open(&self, path: &str) -> Result<(WebSocket, Response<()>), ConnectError> {
        let mut address = self.address.clone();
        if !path.is_empty() {
            address = address.with_path(path)?;
        }
        let handshake = self.connector.handshake(&address, true)?;
        let mut step = Step::Answer;
        self.connector
            .in_time(&mut step, async |_, deadline| {
                let opened = self.link.open(&handshake, deadline).await?;
                Ok(self.connector.start(opened, self.link.peer))
            })
            .await
    }

    /// Whether the connection is there, as far as is known.
    pub fn is_open(&self) -> bool {
        !self.link.sender.is_closed()
    }
}

impl fmt::Debug for Http2Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2Connection")
            .field("address", &self.address)
            .field("is_open", &self.is_open())
            .finish_non_exhaustive()
    }
}

impl Address {
    /// The same origin, another path and query.
    fn with_path(self, path: &str) -> Result<Self, AddressError> {
        let mut parts = self.uri().clone().into_parts();
        let path: PathAndQuery = path.parse().map_err(AddressError::Syntax)?;
        parts.path_and_query = Some(path);
        let uri = Uri::from_parts(parts).map_err(|_| AddressError::Host)?;
        Ok(self.with_uri(uri))
    }
}

/// The connection, without the settings of those who use it.
#[derive(Clone)]
pub(super) struct Link {
    sender: SendRequest<String>,
    inlets: WeakInlets,
    pub(super) peer: Option<SocketAddr>,
}

impl Link {
    /// The preface, and the server's settings. It fails when these do not allow extended CONNECT.
    ///
    /// hyper leaves the connection to a task, and tells nobody when settings have come. So this
    /// future drives the connection itself until then, and sees them after any poll that brought
    /// them. Only then it is spawned: until then dropping the future drops the connection.
    pub(super) async fn establish(io: Transport, config: &Config) -> Result<Self, ConnectError> {
        let peer = io.peer();
        let tasks = Tasks::default();
        let inlets = Inlets::new(STREAM_WINDOW, CONNECTION_WINDOW);
        let mut builder = Builder::new(tasks.clone());
        if let Some(interval) = config.keepalive_interval {
            // Its sockets find out by themselves that the peer is gone, but the connection would
            // be held for open, and every new socket wait for its deadline.
            builder
                .keep_alive_interval(interval.clamp(SHORTEST_INTERVAL, YEAR))
                .keep_alive_timeout(config.keepalive_timeout.min(YEAR));
        }
        let (sender, mut connection) = builder
            .timer(TokioTimer::new())
            // No stream may be opened before the settings have come, and the settings change it,
            // if only to "as many as you like": that is how they are seen.
            .initial_max_send_streams(0)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_stream_window_size(STREAM_WINDOW)
            .max_header_list_size(u32::try_from(MAX_ANSWER).unwrap_or(u32::MAX))
            .handshake(TokioIo::new(inlets.below(io, Bytes::new())))
            .await?;
        let is_enabled = poll_fn(|cx| {
            let has_ended = inlets.poll(cx, |cx| tasks.poll(cx)).is_ready();
            if let Poll::Ready(result) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(result.map(|()| false));
            }
            if connection.current_max_send_streams() > 0 || has_ended {
                return Poll::Ready(Ok(connection.is_extended_connect_protocol_enabled()));
            }
            Poll::Pending
        })
        .await;
        match is_enabled {
            Ok(true) => {}
            Ok(false) => return Err(ConnectError::Http(HttpError::no_http2(None))),
            Err(error) => {
                return Err(ConnectError::Http(HttpError::no_http2(Some(error.into()))));
            }
        }
        let link = Self {
            sender,
            inlets: inlets.downgrade(),
            peer,
        };
        tasks.spawn(&inlets);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "http/2 connection ended");
            }
        });
        Ok(link)
    }

    /// Opens a stream and makes it a WebSocket's.
    pub(super) async fn open(
        &self,
        handshake: &Handshake,
        deadline: Instant,
    ) -> Result<Opened<Ending<SocketIo<TokioIo<Upgraded>>>>, ConnectError> {
        let mut request: Request<String> =
            handshake.extended_connect_request().map(|()| String::new());
        let protocol = Protocol::from_static("websocket");
        request.extensions_mut().insert(protocol);
        let mut sender = self.sender.clone();
        let response = sender.send_request(request).await;
        let mut response = response.map_err(|error| {
            if error.is_canceled() || error.is_closed() {
                ConnectError::Http(HttpError::no_http2(Some(error.into())))
            } else {
                error.into()
            }
        })?;
        let accepted = match handshake.finish(&response) {
            Ok(accepted) => accepted,
            Err(refusal) => {
                let mut start = Vec::new();
                let reading = start_of(response.body_mut(), &mut start);
                let _ = timeout_at(body_deadline(deadline), reading).await;
                return Err(with_body(refusal, &start).into());
            }
        };
        let upgraded = hyper::upgrade::on(&mut response).await?;
        let io = self.inlets.add(upgraded);
        let io = io.ok_or_else(|| ConnectError::Http(HttpError::no_http2(None)))?;
        Ok(Opened {
            io: Ending(io),
            early: Bytes::new(),
            accepted,
            response: response.map(|_| ()),
        })
    }
}

/// What a socket's stream may bring before it is taken, in bytes.
const STREAM_WINDOW: u32 = 1 << 20;

/// The same for all sockets of a connection together: one that does not receive is closed long
/// before it holds all of this.
const CONNECTION_WINDOW: u32 = 16 << 20;

/// A peer is asked no more often: servers take a flood of pings for an attack.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// hyper's tasks: polled by whoever has them, until they are spawned.
#[derive(Clone)]
struct Tasks(Arc<Mutex<Option<Vec<Task>>>>);

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Default for Tasks {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Some(Vec::new()))))
    }
}

impl Tasks {
    /// Polls all of them. It is ready when one has ended: then the connection has.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        // A task may start another one: nobody holds the lock meanwhile.
        let mut tasks = self.held().as_mut().map(mem::take).unwrap_or_default();
        let before = tasks.len();
        tasks.retain_mut(|task| task.as_mut().poll(cx).is_pending());
        let has_ended = tasks.len() < before;
        match self.held().as_mut() {
            Some(held) => held.append(&mut tasks),
            None => tasks.into_iter().for_each(|task| drop(tokio::spawn(task))),
        }
        if has_ended {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Spawns them, and from now on every new one. Those that are there read the connection, and
    /// take the bytes of its sockets.
    fn spawn(&self, inlets: &Inlets) {
        let tasks = self.held().take();
        for mut task in tasks.into_iter().flatten() {
            let inlets = inlets.clone();
            tokio::spawn(poll_fn(move |cx| {
                inlets.poll(cx, |cx| task.as_mut().poll(cx))
            }));
        }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Option<Vec<Task>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F> Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        if let Some(held) = self.held().as_mut() {
            held.push(Box::pin(task));
            return;
        }
        tokio::spawn(task);
    }
}

#[cfg(test)]
mod tests {
    use tokio::{net::TcpListener, time::sleep};

    use super::*;

    #[tokio::test]
    async fn a_connection_whose_peer_is_gone_is_not_open_for_long() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (tcp, _) = listener.accept().await.unwrap();
            let mut builder = h2::server::Builder::new();
            let builder = builder.enable_connect_protocol();
            let mut connection = builder.handshake::<_, Bytes>(tcp).await.unwrap();
            let (request, mut respond) = connection.accept().await.unwrap().unwrap();
            let stream = respond.send_response(Response::new(()), false).unwrap();
            let _ = timeout_at(
                Instant::now() + Duration::from_millis(500),
                connection.accept(),
            )
            .await;
            // From here on it says nothing and hears nothing.
            (connection, request, stream)
        });
        let config = Config::new()
            .keepalive_interval(Duration::from_secs(3))
            .keepalive_timeout(Duration::from_secs(3));
        let connector = Connector::new().config(config);
        let connection = connector.connect_http2(format!("ws://{address}/"));
        let connection = connection.await.unwrap();
        let (socket, _) = connection.open("").await.unwrap();
        assert!(connection.is_open());
        let gone = server.await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while connection.is_open() {
            assert!(
                Instant::now() < deadline,
                "nobody asked whether it is there"
            );
            sleep(Duration::from_millis(20)).await;
        }
        assert!(connection.open("").await.is_err());
        drop((gone, socket));
    }
}
