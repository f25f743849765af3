//! Servers behind nginx, `HAProxy` or Caddy.
//!
//! ```text
//! browser ──── TLS, HTTP/1.1 or HTTP/2 ────▶ proxy ──── HTTP/1.1 ────▶ server, 127.0.0.1:8000
//!              https://chat.example               └──── HTTP/1.1 ────▶ server, 127.0.0.1:8001
//! ```
//!
//! The configurations on this page are tested as they stand, with nginx 1.22, `HAProxy` 2.6 and
//! Caddy 2.6 (`tests/full.sh proxies`). The tests put in their own ports and certificate, and make
//! the times shorter.
//!
//! # What a proxy has to do
//!
//! | it has to | nginx | `HAProxy` | Caddy |
//! |---|---|---|---|
//! | pass the upgrade on | three lines | does | does |
//! | leave `Host` as the browser sent it | one line | does | does |
//! | say who the client is | `X-Forwarded-For`, one line | two lines | does |
//! | bear silence for longer than a [keepalive](#silence) | 60 s | `timeout tunnel` | for ever |
//! | try the other server when one refuses the connection | does | `option redispatch` | `lb_try_duration` |
//! | balance by connections, not by turns | `least_conn` | `leastconn` | `least_conn` |
//!
//! ## nginx
//!
//! ```nginx
#![doc = include_str!("deployment/nginx.conf")]
//! ```
//!
//! ## `HAProxy`
//!
//! The certificate file holds the certificate and then its key.
//!
//! ```haproxy
#![doc = include_str!("deployment/haproxy.cfg")]
//! ```
//!
//! ## Caddy
//!
//! It gets the certificate by itself.
//!
//! ```caddyfile
#![doc = include_str!("deployment/Caddyfile")]
//! ```
//!
//! # The server
//!
//! It listens on the loopback address, where only the proxy reaches it. Its peer is then always the
//! proxy; the client's address is in `X-Forwarded-For`, which the service reads before the layer
//! does:
//!
//! ```no_run
#![doc = include_str!("deployment/forwarded.rs")]
//! # use std::{error::Error, time::Duration};
//! #
//! # use tokio::net::TcpListener;
//! # use tower::{Layer, util::MapRequestLayer};
//! # use ws_tower::{WebSocket, WebSocketLayer};
//! #
//! async fn chat(socket: WebSocket) -> Result<(), ws_tower::Error> {
//!     let client = socket.peer().map(|peer| peer.ip()); // the client, not the proxy
//!     socket.send(format!("You are {client:?}.")).await
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn Error>> {
//! let sockets = WebSocketLayer::new().route("/chat", chat);
//! let app = MapRequestLayer::new(forwarded).layer(sockets.into_service());
//! let listener = TcpListener::bind("127.0.0.1:8000").await?;
//! # let terminated = std::future::pending();
//! ws_hyper::serve(listener, app)
//!     .max_connections(10_000)
//!     .with_graceful_shutdown(terminated, Duration::from_secs(10))
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! With the proxy on another host, `forwarded` compares the peer with that host's address instead.
//! A header that anyone can write must never count from anyone else: it would put any address
//! into logs, limits and bans.
//!
//! `X-Forwarded-Proto` tells whether the browser came by TLS. Nothing here needs it; an application
//! that builds addresses does.
//!
//! # Origin
//!
//! By default pages of the same origin may open a socket ([`OriginPolicy`]): the host and port in
//! `Origin` must be those in `Host`. So the proxy has to pass on the `Host` that the browser sent.
//! nginx does not unless it is told to; without that line every browser gets a 403 whose text says
//! so, while clients that are no browsers get in. (The text is there if the layer stands alone, or on
//! axum with `ws-tower`'s feature `axum`, which is on by default; for other bodies
//! [`with_body`](ws_tower::WebSocketLayer::with_body) makes it.)
//!
//! Where `Host` cannot be passed on, or where pages and sockets have different names, the pages'
//! origin is named in the server:
//!
//! ```
//! use ws_tower::{OriginPolicy, WebSocketLayer};
//!
//! let policy = OriginPolicy::same_origin().allow("https://chat.example")?;
//! let sockets = WebSocketLayer::new().origins(policy);
//! # drop::<WebSocketLayer>(sockets);
//! # Ok::<(), ws_tower::origin::InvalidOrigin>(())
//! ```
//!
//! # Silence
//!
//! nginx and `HAProxy` cut a socket on which nothing was said for a time; so do most load balancers
//! of clouds, and routers between. A session pings after 20 s without input, which is heard in both
//! directions: the defaults hold with every proxy that bears 60 s. Make
//! [`keepalive_interval`](ws_tower::Config::keepalive_interval) at most a third of the shortest such time:
//!
//! ```
//! use std::time::Duration;
//! use ws_tower::Config;
//!
//! let config = Config::new().keepalive_interval(Duration::from_secs(10)); // a proxy bears 30 s
//! # drop(config);
//! ```
//!
//! Without keepalive the proxy ends the connection without a Close. Both ends see an unclean end: in
//! the browser code 1006, here a [`Closed`] that is not clean, and says by what. Caddy never cuts;
//! there keepalive is what finds the clients that are gone.
//!
//! # TLS and HTTP/2
//!
//! TLS ends at the proxy. Between it and the server is plain HTTP/1.1, on one connection for each
//! socket. What browsers speak to the proxy is another matter: they open a WebSocket on HTTP/2
//! (RFC 8441) only where the proxy's settings allow it. `HAProxy` does, and makes an upgrade of it;
//! nginx and Caddy do not, and browsers open a connection with HTTP/1.1 beside the one they have.
//! The server sees the same request either way.
//!
//! # How many
//!
//! A socket takes two descriptors of the proxy and one of the server. The limits are `maxconn` in
//! `HAProxy`; in nginx `worker_connections` (each socket takes two) and `worker_rlimit_nofile`; and
//! for all of them what the system allows (`LimitNOFILE=` in a unit of systemd). For one address of
//! a server, a proxy has some 28,000 ports (`net.ipv4.ip_local_port_range`); a second port of the
//! server doubles that.
//!
//! [`max_connections`](crate::Serve::max_connections) limits the server. At the limit, connections
//! wait in its backlog, which looks like a slow server to the proxy: keep the proxy's limit below.
//!
//! How many sockets one address may have is for a guard to say. It leaves a place in the request, which
//! the handler keeps, and which is free again when the handler is gone, or when no socket has come of
//! the request:
//!
//! ```
//! use std::{
//!     collections::HashMap,
//!     net::IpAddr,
//!     sync::{Arc, Mutex, PoisonError},
//! };
//!
//! use http::{Request, StatusCode};
//! use ws_tower::{Error, PeerAddr, WebSocket, WebSocketLayer};
//!
//! type Counts = Arc<Mutex<HashMap<IpAddr, usize>>>;
//!
//! /// One of the sockets of an address.
//! struct Place(Counts, IpAddr);
//!
//! impl Place {
//!     fn take(counts: &Counts, address: IpAddr) -> Option<Arc<Self>> {
//!         let mut places = counts.lock().unwrap_or_else(PoisonError::into_inner);
//!         let count = places.entry(address).or_default();
//!         (*count < 50).then(|| {
//!             *count += 1;
//!             Arc::new(Self(Arc::clone(counts), address)) // extensions want a Clone
//!         })
//!     }
//! }
//!
//! impl Drop for Place {
//!     fn drop(&mut self) {
//!         let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
//!         let count = places.remove(&self.1).unwrap_or(1) - 1;
//!         if count > 0 {
//!             places.insert(self.1, count);
//!         }
//!     }
//! }
//!
//! async fn chat(socket: WebSocket, mut request: Request<()>) -> Result<(), Error> {
//!     let _place = request.extensions_mut().remove::<Arc<Place>>();
//!     drop(request); // the rest of it is not kept
//!     socket.send("welcome").await
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use tower::ServiceExt;
//! # use ws_tower::upgrade::test_request;
//! let counts = Counts::default();
//! # let places = Arc::clone(&counts);
//! let sockets = WebSocketLayer::new().route("/chat", chat).guard(
//!     move |request: &mut Request<()>| -> Result<(), StatusCode> {
//!         if let Some(PeerAddr(peer)) = request.extensions().get().copied() {
//!             let place = Place::take(&counts, peer.ip()).ok_or(StatusCode::TOO_MANY_REQUESTS)?;
//!             request.extensions_mut().insert(place);
//!         }
//!         Ok(())
//!     },
//! );
//! # let service = sockets.into_service();
//! # let peer = PeerAddr(([192, 0, 2, 1], 4000).into());
//! # let mut sockets = Vec::new();
//! # for expected in [vec![101; 50], vec![429]].concat() {
//! #     let (mut request, client) = test_request::<String>("/chat");
//! #     request.extensions_mut().insert(peer);
//! #     let response = service.clone().oneshot(request).await?;
//! #     assert_eq!(response.status(), expected);
//! #     sockets.extend(client.finish(&response).ok());
//! # }
//! # for mut socket in sockets.drain(..) {
//! #     assert_eq!(socket.recv().await.transpose()?, Some("welcome".into()));
//! #     socket.closed().await;
//! # }
//! # for _ in 0..100 {
//! #     tokio::task::yield_now().await;
//! # }
//! # assert!(places.lock().unwrap().is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! # Restarts
//!
//! At a [graceful shutdown](crate::Serve::with_graceful_shutdown) the server refuses new connections
//! at once, so the proxy sends them to the other server; every socket gets a Close with 1001. The
//! clients connect again and reach the other server. Make them wait a random time first, or the
//! other gets all of them in the same second. Restart the servers one by one, each after the one
//! before is back: no request is turned away.
//!
//! When a proxy reads its configuration anew, the old processes of nginx and `HAProxy` keep their
//! sockets, until `worker_shutdown_timeout` and `hard-stop-after` if these are set; Caddy ends them.
//! When a proxy dies, every socket through it ends uncleanly; their handlers learn it from
//! [`recv`](ws_tower::WebSocket::recv), and nothing is left of them.
//!
//! [`Closed`]: ws_tower::Closed
//! [`OriginPolicy`]: ws_tower::OriginPolicy
