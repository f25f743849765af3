//! Compression in sessions: what the layer agrees on, what a large message holds up, and what
//! becomes of the pool.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use allocation_counter::measure;
use futures_util::{FutureExt, SinkExt, future::pending};
use http::{HeaderMap, Response, header::SEC_WEBSOCKET_EXTENSIONS};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tower::{Service, ServiceExt, service_fn};
use ws_core::{
    Compress, Connection, Deflate, Role,
    deflate::{Level, Pool, PoolConfig, ShelfStatistics, Takeover, WindowBits},
    handshake::client::Handshake,
};
use ws_tests::{
    deflate::{agree, compressed},
    peer::Peer,
    random::Random,
    raw::PATIENCE,
    wire::frame,
};
use ws_tower::{
    BoxError, CloseCode, CloseFrame, Closed, Config, Error, Message, PreparedMessage, Route,
    Sender, Session, TrySendError, WebSocket, WebSocketLayer, WebSocketUpgrade,
    upgrade::{TestClient, test_request, test_request_with},
};

async fn echo(mut socket: WebSocket) -> Result<(), Error> {
    while let Some(message) = socket.recv().await {
        socket.send(message?).await?;
    }
    Ok(())
}

fn deflate(settings: impl Into<Option<Deflate>>) -> Config {
    Config::new().deflate(settings)
}

fn text(len: usize) -> Message {
    let words = "all work and no play makes jack a dull boy, ";
    Message::text(words.repeat(len.div_ceil(words.len())))
}

// What is agreed on.

/// Asks for a WebSocket, with these settings for compression or none.
async fn ask<S>(service: S, path: &str, settings: Option<Deflate>) -> (Response<String>, TestClient)
where
    S: Service<http::Request<String>, Response = Response<String>>,
    S::Error: std::fmt::Debug,
{
    let handshake = Handshake::new(&format!("ws://localhost{path}").parse().unwrap()).unwrap();
    let (request, client) = test_request_with(handshake.negotiate(&deflate(settings)));
    (service.oneshot(request).await.unwrap(), client)
}

fn extensions(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(SEC_WEBSOCKET_EXTENSIONS)?;
    Some(value.to_str().unwrap())
}

async fn echoes(response: &Response<String>, client: TestClient) {
    let mut socket = client.finish(response).unwrap();
    for len in [0, 1, 300, 5000, 100_000] {
        let message = text(len);
        socket.send(message.clone()).await.unwrap();
        let echo = timeout(PATIENCE, socket.recv()).await.unwrap();
        assert_eq!(echo.unwrap().unwrap(), message);
    }
    let closed = socket.sender().close(None).await;
    assert!(closed.is_clean(), "{closed:?}");
}

#[tokio::test]
async fn the_layer_agrees_by_default_and_only_with_clients_that_offer() {
    let service = WebSocketLayer::new().route("/echo", echo).into_service();
    let (response, client) = ask(service.clone(), "/echo", Some(Deflate::new())).await;
    assert_eq!(response.status(), 101);
    assert_eq!(
        extensions(response.headers()),
        Some("permessage-deflate; client_no_context_takeover")
    );
    echoes(&response, client).await;
    let (response, client) = ask(service.clone(), "/echo", None).await;
    assert_eq!(extensions(response.headers()), None);
    echoes(&response, client).await;
    // And what a client that offers nothing never sees is the bit.
    let (request, client) = test_request::<String>("/echo");
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(extensions(response.headers()), None);
    let mut io = client.into_io();
    io.write_all(&frame(0x81, Some([0; 4]), &[b'a'; 1000]))
        .await
        .unwrap();
    assert_eq!(
        timeout(PATIENCE, io.read_u8()).await.unwrap().unwrap(),
        0x81
    );
}

#[tokio::test]
async fn a_route_and_an_upgrade_have_settings_of_their_own() {
    let forbidden = Deflate::new().own_takeover(Takeover::Forbidden);
    let small = Deflate::new()
        .own_window_bits(WindowBits::MIN)
        .peer_takeover(Takeover::Allowed);
    let inner = service_fn(async move |request: http::Request<String>| {
        let upgrade = request
            .extensions()
            .get::<WebSocketUpgrade>()
            .cloned()
            .unwrap();
        let path = upgrade.path().to_owned();
        let upgrade = match &*path {
            "/upgrade/off" => upgrade.config(deflate(None)),
            "/upgrade/required" => upgrade.config(deflate(Deflate::new().required())),
            _ => upgrade,
        };
        Ok::<_, std::convert::Infallible>(upgrade.on_upgrade::<_, _, String>(echo))
    });
    let layer = WebSocketLayer::new()
        .config(deflate(forbidden))
        .route("/layer", echo)
        .route_with("/off", Route::new(echo).config(deflate(None)))
        .route_with("/small", Route::new(echo).config(deflate(small)))
        .route_with(
            "/required",
            Route::new(echo).config(deflate(Deflate::new().required())),
        );
    let service = tower::ServiceBuilder::new().layer(layer).service(inner);
    for (path, expected) in [
        (
            "/layer",
            Some("permessage-deflate; server_no_context_takeover; client_no_context_takeover"),
        ),
        ("/off", None),
        (
            "/small",
            Some("permessage-deflate; server_max_window_bits=9"),
        ),
        (
            "/required",
            Some("permessage-deflate; client_no_context_takeover"),
        ),
        (
            "/upgrade",
            Some("permessage-deflate; server_no_context_takeover; client_no_context_takeover"),
        ),
        ("/upgrade/off", None),
        (
            "/upgrade/required",
            Some("permessage-deflate; client_no_context_takeover"),
        ),
    ] {
        let (response, client) = ask(service.clone(), path, Some(Deflate::new())).await;
        assert_eq!(response.status(), 101, "{path}");
        assert_eq!(extensions(response.headers()), expected, "{path}");
        echoes(&response, client).await;

        let (response, client) = ask(service.clone(), path, None).await;
        assert_eq!(extensions(response.headers()), None, "{path}");
        if path.ends_with("required") {
            assert_eq!(response.status(), 400);
            let body = response.body();
            assert!(body.contains("permessage-deflate"), "{body}");
            client.finish(&response).unwrap_err();
        } else {
            echoes(&response, client).await;
        }
    }
    // What was offered is told, too.
    let (mut request, _client) = test_request::<String>("/required");
    let offer = "permessage-deflate; server_max_window_bits=8, x-other";
    let headers = request.headers_mut();
    headers.insert(SEC_WEBSOCKET_EXTENSIONS, offer.parse().unwrap());
    let response = service.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 400);
    assert!(response.body().contains(offer), "{}", response.body());
}

// Sessions whose ends have agreed.

/// A session without a handler that compresses, and its peer, which inflates.
fn spawn(config: &Config) -> (Peer<DuplexStream>, WebSocket, JoinHandle<Closed>) {
    let (near, far) = duplex(64 << 10);
    let agreed = agree("permessage-deflate; client_max_window_bits", config);
    let connection = Connection::new(Role::Server, config.clone()).with_extensions(&agreed);
    let (session, socket) = Session::new(far, connection);
    let mut peer = Peer::client(near);
    peer.connection =
        Connection::new(Role::Client, peer.connection.config().clone()).with_extensions(&agreed);
    (peer, socket, tokio::spawn(session))
}

/// The first byte of the next frame, which is read to its end.
async fn first_byte(io: &mut DuplexStream) -> u8 {
    let mut start = [0; 2];
    io.read_exact(&mut start).await.unwrap();
    let len = match start[1] {
        126 => u64::from(io.read_u16().await.unwrap()),
        127 => io.read_u64().await.unwrap(),
        len => u64::from(len),
    };
    let mut payload = vec![0; usize::try_from(len).unwrap()];
    io.read_exact(&mut payload).await.unwrap();
    start[0]
}

#[tokio::test]
async fn every_way_to_send_a_large_message_compresses_it_as_it_is_told() {
    let (mut peer, mut socket, session) = spawn(&deflate(Deflate::new()));
    let large = text(200_000);
    let noise = Message::binary(Random::new(1).bytes(100_000));
    let never = PreparedMessage::uncompressed(large.clone());
    for (message, auto) in [(&large, 0xc1), (&noise, 0x82)] {
        let plain = auto & 0x8f;
        let io = &mut peer.io;
        socket.try_send(message.clone()).unwrap();
        assert_eq!(first_byte(io).await, auto);
        let (sent, first) = tokio::join!(socket.send(message.clone()), first_byte(io));
        assert_eq!((sent.is_ok(), first), (true, auto));
        for (compress, expected) in [
            (Compress::Auto, auto),
            (Compress::Always, plain | 0x40),
            (Compress::Never, plain),
        ] {
            let sending = socket.send_with(message.clone(), compress);
            let (sent, first) = tokio::join!(sending, first_byte(io));
            assert_eq!((sent.is_ok(), first), (true, expected), "{compress:?}");
        }
        let prepared = PreparedMessage::new(message.clone());
        let (sent, first) = tokio::join!(socket.send_prepared(&prepared), first_byte(io));
        assert_eq!((sent.is_ok(), first), (true, auto));
        let (sent, first) =
            tokio::join!(SinkExt::send(&mut socket, message.clone()), first_byte(io));
        assert_eq!((sent.is_ok(), first), (true, auto));
    }
    let (sent, first) = tokio::join!(socket.send_prepared(&never), first_byte(&mut peer.io));
    assert_eq!((sent.is_ok(), first), (true, 0x81));
    session.abort();
}

#[tokio::test]
async fn large_and_small_messages_in_turn_come_back_in_order() {
    let (mut peer, mut socket, session) = spawn(&deflate(Deflate::new()));
    let sender = socket.sender();
    let sending = tokio::spawn(async move {
        for round in 0..20_usize {
            for len in [300, 70_000, 5000, 90_000, 0] {
                let message = text(len + round);
                match round % 4 {
                    0 => sender.send(message).await.unwrap(),
                    1 => sender.send_with(message, Compress::Always).await.unwrap(),
                    2 => {
                        let prepared = PreparedMessage::new(message);
                        sender.send_prepared(&prepared).await.unwrap();
                    }
                    _ => SinkExt::send(&mut sender.clone(), message).await.unwrap(),
                }
            }
        }
    });
    for round in 0..20 {
        for len in [300, 70_000, 5000, 90_000, 0] {
            assert_eq!(peer.message().await, Some(text(len + round)));
        }
    }
    sending.await.unwrap();
    peer.send("done").await.unwrap();
    assert!(timeout(PATIENCE, socket.recv()).await.unwrap().is_some());
    session.abort();
}

/// The longest that the lock was held while a message was sent, beside how long that took.
fn longest_wait(sender: &Sender, send: impl FnOnce() + Send) -> (Duration, Duration) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let start = std::time::Instant::now();
            send();
            done.store(true, Ordering::Release);
            start.elapsed()
        });
        let mut longest = Duration::ZERO;
        while !done.load(Ordering::Acquire) {
            let start = std::time::Instant::now();
            assert!(sender.is_open());
            longest = longest.max(start.elapsed());
            thread::yield_now();
        }
        (longest, sending.join().unwrap())
    })
}

/// A way to send.
type Way = fn(&WebSocket, Message);

#[test]
fn a_large_message_is_compressed_while_others_use_the_socket() {
    let ways: [(&str, Way); 6] = [
        ("send", |socket, message| {
            socket.send(message).now_or_never().unwrap().unwrap();
        }),
        ("try_send", |socket, message| {
            socket.try_send(message).unwrap();
        }),
        ("send_with", |socket, message| {
            let sent = socket.send_with(message, Compress::Auto).now_or_never();
            sent.unwrap().unwrap();
        }),
        ("send_with, always", |socket, message| {
            let sent = socket.send_with(message, Compress::Always).now_or_never();
            sent.unwrap().unwrap();
        }),
        ("send_prepared", |socket, message| {
            let prepared = PreparedMessage::new(message);
            let sent = socket.send_prepared(&prepared).now_or_never();
            sent.unwrap().unwrap();
        }),
        ("a sink", |socket, message| {
            let mut sender = socket.sender();
            sender.start_send_unpin(message).unwrap();
        }),
    ];
    let config = deflate(Deflate::new().level(Level::MAX));
    let agreed = agree("permessage-deflate", &config);
    let mut random = Random::new(9);
    let words: Vec<String> = (0..3000).map(|_| random.number().to_string()).collect();
    let mut bytes = Vec::new();
    while bytes.len() < 1 << 20 {
        bytes.extend_from_slice(words[random.below(3000)].as_bytes());
    }
    let message = Message::binary(bytes);
    for (way, send) in ways {
        // A busy machine holds up now and then whoever looks; a lock that is kept does so each time.
        let is_free = (0..5).any(|_| {
            let (_near, far) = duplex(1024);
            let connection = Connection::new(Role::Server, config.clone()).with_extensions(&agreed);
            let (_session, socket) = Session::new(far, connection);
            let message = message.clone();
            let (longest, whole) = longest_wait(&socket.sender(), || send(&socket, message));
            println!("{way}: {longest:?} of {whole:?}");
            // Other threads take their share of the processor in between.
            longest < whole / 2
        });
        assert!(is_free, "{way} keeps the lock");
    }
}

#[tokio::test]
async fn a_large_message_without_room_comes_back_and_is_not_compressed_for_nothing() {
    let pool = Pool::default();
    let config = deflate(Deflate::new().pool(pool.clone()));
    let agreed = agree("permessage-deflate", &config);
    let (_near, far) = duplex(1024);
    let connection = Connection::new(Role::Server, config).with_extensions(&agreed);
    let (session, socket) = Session::new(far, connection);
    let large = text(200_000);
    socket.try_send(large.clone()).unwrap();
    let before = pool.statistics();
    for _ in 0..3 {
        match socket.try_send(large.clone()) {
            Err(TrySendError::Full(message)) => assert_eq!(message, large),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(pool.statistics(), before);
    drop(session);
    match socket.try_send(large.clone()) {
        Err(TrySendError::Closed(message)) => assert_eq!(message, large),
        other => panic!("{other:?}"),
    }
    assert_eq!(
        pool.statistics().compressors.misses,
        before.compressors.misses
    );
}

#[tokio::test]
async fn a_prepared_message_to_many_sockets_is_compressed_once() {
    let pool = Pool::default();
    let config = deflate(Deflate::new().pool(pool.clone()));
    let mut sockets: Vec<_> = (0..20).map(|_| spawn(&config)).collect();
    for len in [300, 3000, 100_000] {
        let before = pool.statistics().compressors;
        let message = text(len);
        let prepared = PreparedMessage::new(message.clone());
        for (peer, socket, _) in &mut sockets {
            socket.send_prepared(&prepared).await.unwrap();
            assert_eq!(peer.message().await, Some(message.clone()));
        }
        let after = pool.statistics().compressors;
        let uses = |it: ShelfStatistics| it.hits + it.misses;
        assert_eq!(uses(after) - uses(before), 1);
    }
}

// The pool.

fn kept(pool: &Pool) -> usize {
    pool.statistics().kept_compressors
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_becomes_idle_gives_its_compressor_back() {
    let pool = Pool::default();
    let config = deflate(Deflate::new().pool(pool.clone()));
    let (mut peer, socket, session) = spawn(&config);
    for _ in 0..20 {
        socket.send(text(1000)).await.unwrap();
        assert_eq!(peer.message().await, Some(text(1000)));
    }
    assert_eq!(kept(&pool), 1);
    // The peer is alive, and answers.
    let peer = tokio::spawn(async move {
        peer.message().await;
    });
    let start = Instant::now();
    while kept(&pool) > 0 {
        sleep(Duration::from_millis(500)).await;
        assert!(start.elapsed() < Duration::from_secs(11));
    }
    assert!(socket.is_open());
    // And it is found again.
    socket.send(text(1000)).await.unwrap();
    assert_eq!(kept(&pool), 1);
    session.abort();
    peer.abort();
}

#[tokio::test]
async fn no_compressor_is_kept_by_a_socket_that_has_ended_however_it_did() {
    async fn busy(pool: &Pool) -> (Peer<DuplexStream>, WebSocket, JoinHandle<Closed>) {
        let config = deflate(
            Deflate::new()
                .pool(pool.clone())
                .peer_takeover(Takeover::Allowed),
        );
        let (mut peer, mut socket, session) = spawn(&config);
        for _ in 0..20 {
            socket.send(text(1000)).await.unwrap();
            assert_eq!(peer.message().await, Some(text(1000)));
        }
        // A message under way holds a decompressor.
        let payload = compressed(&[7; 1000], 6);
        let cut = frame(0x42, Some([0; 4]), &payload[..4]);
        peer.io.write_all(&cut).await.unwrap();
        let ping = frame(0x89, Some([0; 4]), b"ping");
        peer.io.write_all(&ping).await.unwrap();
        assert!(peer.event().await.is_some());
        assert_eq!(kept(pool), 1);
        assert_eq!(pool.statistics().decompressors.spare, 0);
        assert!(socket.recv().now_or_never().is_none());
        (peer, socket, session)
    }
    let check = |pool: &Pool, name| {
        let statistics = pool.statistics();
        assert_eq!(statistics.kept_compressors, 0, "{name}");
        let decompressors = statistics.decompressors;
        assert_eq!(
            (decompressors.spare, decompressors.misses),
            (1, 1),
            "{name}"
        );
    };

    let pool = Pool::default();
    let (mut peer, socket, session) = busy(&pool).await;
    let sender = socket.sender();
    let closing = sender.close(CloseFrame::from(CloseCode::NORMAL));
    tokio::join!(closing, async { while peer.event().await.is_some() {} });
    session.await.unwrap();
    check(&pool, "closed");

    let pool = Pool::default();
    let (mut peer, _socket, session) = busy(&pool).await;
    peer.close(None).await.unwrap();
    session.await.unwrap();
    check(&pool, "closed by the peer, the handle is left");

    let pool = Pool::default();
    let (peer, _socket, session) = busy(&pool).await;
    drop(peer);
    session.await.unwrap();
    check(&pool, "left by the peer, the handle is left");

    let pool = Pool::default();
    let (_peer, _socket, session) = busy(&pool).await;
    session.abort();
    session.await.unwrap_err();
    check(&pool, "aborted, the handle is left");

    let pool = Pool::default();
    let (mut peer, _socket, session) = busy(&pool).await;
    peer.io
        .write_all(&frame(0x83, Some([0; 4]), b""))
        .await
        .unwrap();
    session.await.unwrap();
    check(&pool, "broken by the peer");
}

#[tokio::test]
async fn a_hundred_busy_sockets_keep_no_more_than_the_pool_has_places_for() {
    let pool = Pool::new(
        PoolConfig::new()
            .kept_compressors(5)
            .spare_compressors(2)
            .spare_decompressors(2),
    );
    let settings = Deflate::new().pool(pool.clone());
    let service = WebSocketLayer::new()
        .config(deflate(settings))
        .route("/echo", echo)
        .into_service();
    let mut sockets = Vec::new();
    for _ in 0..100 {
        let handshake = Handshake::new(&"ws://localhost/echo".parse().unwrap()).unwrap();
        // The clients have the pool of the process.
        let handshake = handshake.negotiate(&deflate(Deflate::new()));
        let (request, client) = test_request_with::<String>(handshake);
        let response = service.clone().oneshot(request).await.unwrap();
        sockets.push(client.finish(&response).unwrap());
    }
    for round in 0..5 {
        for socket in &sockets {
            for _ in 0..4 {
                socket.send(text(1000 + round)).await.unwrap();
            }
        }
        for socket in &mut sockets {
            for _ in 0..4 {
                let message = timeout(PATIENCE, socket.recv()).await.unwrap();
                assert_eq!(message.unwrap().unwrap(), text(1000 + round));
            }
            let statistics = pool.statistics();
            assert!(statistics.kept_compressors <= 5);
            assert!(statistics.compressors.spare <= 2);
            assert!(statistics.decompressors.spare <= 2);
        }
    }
    assert_eq!(kept(&pool), 5);
    drop(sockets);
    timeout(PATIENCE, async {
        while kept(&pool) > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_handler_that_panics_or_never_ends_keeps_no_compressor() {
    for ends in [true, false] {
        let pool = Pool::default();
        let config = Arc::new(deflate(Deflate::new().pool(pool.clone())));
        let agreed = agree("permessage-deflate", &config);
        let (near, far) = duplex(1 << 20);
        let connection =
            Connection::new(Role::Server, Arc::clone(&config)).with_extensions(&agreed);
        let session = Session::with_handler(far, connection, async move |socket| {
            for _ in 0..20 {
                socket.send(text(1000)).await?;
            }
            assert!(!ends, "the handler's own");
            pending::<Result<(), BoxError>>().await
        });
        let session = tokio::spawn(session);
        timeout(PATIENCE, async {
            while kept(&pool) == 0 && pool.statistics().compressors.spare == 0 {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .unwrap();
        if !ends {
            assert_eq!(kept(&pool), 1);
            session.abort();
        }
        drop(near);
        let _ = session.await;
        assert_eq!(kept(&pool), 0);
    }
}

// Bombs.

#[test]
fn bombs_where_reading_never_stops_cost_a_few_messages_beyond_the_cap() {
    // As over HTTP/2.
    let config = deflate(Deflate::new());
    let agreed = agree("permessage-deflate", &config);
    let bomb = compressed(&vec![0; 1 << 20], 9);
    let bombs = frame(0xc2, Some([0; 4]), &bomb).repeat(60);
    assert!(bombs.len() < 64 << 10);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let info = measure(|| {
        runtime.block_on(async {
            let (mut near, far) = duplex(64 << 10);
            let connection = Connection::new(Role::Server, config)
                .without_pauses()
                .with_extensions(&agreed);
            let (session, socket) = Session::new(far, connection);
            let session = tokio::spawn(session);
            near.write_all(&bombs).await.unwrap();
            let mut head = [0; 4];
            near.read_exact(&mut head).await.unwrap();
            assert_eq!(head[0], 0x88);
            assert_eq!(head[2..], 1013_u16.to_be_bytes());
            drop(socket);
            session.abort();
        });
    });
    println!("{} KiB", info.bytes_max >> 10);
    assert!(info.bytes_max < 12 << 20, "{} KiB", info.bytes_max >> 10);
}
