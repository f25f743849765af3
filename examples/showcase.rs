//! One server, one port: `cargo run --release --example showcase -- [--listen 127.0.0.1:8000] [--tls]
//! [--backplane redis://127.0.0.1]`
//!
//! Open the address it prints. `/echo` and its like are a page to a browser's GET and a socket to
//! an upgrade: the pages are axum's, the sockets the layer's. `/version` tells the version of HTTP,
//! to a GET and to a socket.
//! With `--tls` the certificate is made at the start, and the browser warns of it. A board lives for
//! `--board-lifetime SECONDS`, 300 if that is not said.
//!
//! With `--backplane` the same applications run on several nodes, over Redis (`redis://`) or NATS
//! (`nats://`): start this program more than once, with the same broker and different addresses.

use std::time::Duration;

use axum::{
    http::{Request, Version},
    routing::get,
};
use tokio::time::interval;
use ws_examples::{
    Arguments, BrokerUrl, Failure, Page,
    applications::{
        board::{Boards, Limits},
        chat::Chat,
        sensors::Sensors,
        tick::Tick,
    },
    asked_to_end, listen, log_to_stderr, self_signed, site,
};
use ws_tower::{Error, Message, WebSocket, WebSocketLayer, hub::Hub};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let usage = "showcase [--listen ADDR] [--tls] [--board-lifetime SECONDS] [--backplane URL]";
    let mut arguments = Arguments::from_env(usage)?;
    let address: Option<String> = arguments.value("--listen")?;
    let tls = arguments.flag("--tls");
    let lifetime: Option<u64> = arguments.value("--board-lifetime")?;
    let broker: Option<BrokerUrl> = arguments.value("--backplane")?;
    arguments.finish()?;
    log_to_stderr()?;

    let mut limits = Limits::default();
    if let Some(seconds) = lifetime {
        limits.lifetime = Duration::from_secs(seconds);
    }
    let sockets = WebSocketLayer::new()
        .route("/echo", echo)
        .route("/data", data)
        .route("/version", version);
    // Each application has a hub of its own, with its own policies.
    let hub = |prefix| match &broker {
        Some(broker) => broker.hub(prefix),
        None => Hub::builder(),
    };
    let tick = Tick::start_on(hub("ws-tick"), Duration::from_secs(1));
    let chat = Chat::start_on(hub("ws-chat"));
    let boards = Boards::new_on(hub("ws-board"), limits);
    let sensors = Sensors::new_on(hub("ws-sensors"), Duration::from_millis(150));
    let hubs = [tick.hub(), chat.hub(), boards.hub(), sensors.hub()].map(Hub::clone);
    let sockets = sensors.route(boards.route(chat.route(tick.route(sockets))));
    let app = site(&Page::ALL)
        .route("/test", get("Yes this is a test!"))
        .route(
            "/version",
            get(async |version: Version| format!("{version:?}")),
        )
        .layer(sockets);

    let listener = listen(address.as_deref().unwrap_or("127.0.0.1:8000")).await?;
    let address = listener.local_addr()?;
    let mut server = ws_hyper::serve(listener, app);
    if tls {
        server = server.tls(self_signed()?);
        println!("https://{address}");
    } else {
        println!("http://{address}");
    }
    if let Some(broker) = &broker {
        broker.report(&hubs[0]);
    }
    server
        .with_graceful_shutdown(asked_to_end(), Duration::from_secs(10))
        .await?;
    for hub in hubs {
        hub.leave().await;
    }
    Ok(())
}

/// Sends everything back, until the text `quit`. Returning closes with 1000.
async fn echo(mut socket: WebSocket) -> Result<(), Error> {
    while let Some(message) = socket.recv().await {
        match message? {
            Message::Text(text) if text == "quit" => break,
            message => socket.send(message).await?,
        }
    }
    Ok(())
}

/// Says by which version of HTTP it was opened.
async fn version(socket: WebSocket, request: Request<()>) -> Result<(), Error> {
    socket.send(format!("{:?}", request.version())).await
}

/// Sends a hundred numbers, and never reads: what the client says is read and thrown away.
async fn data(mut socket: WebSocket) -> Result<(), Error> {
    socket.discard_incoming();
    let mut ticks = interval(Duration::from_millis(100));
    for i in 0..100 {
        ticks.tick().await;
        socket.send(format!("0 {i} {}\n", fastrand::f64())).await?;
    }
    Ok(())
}
