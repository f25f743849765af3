//! One server, one port: `cargo run --release --example showcase -- [--listen 127.0.0.1:8000] [--tls]`
//!
//! Open the address it prints. `/echo` and `/data` are a page to a browser's GET and a socket to
//! an upgrade: the pages are axum's, the sockets the layer's. `/version` tells the version of HTTP.
//! With `--tls` the certificate is made at the start, and the browser warns of it.

use std::time::Duration;

use axum::{
    Router,
    http::{Version, header::CONTENT_TYPE},
    response::Html,
    routing::get,
};
use tokio::time::interval;
use ws_examples::{Arguments, Failure, asked_to_end, listen, self_signed};
use ws_tower::{Error, Message, WebSocket, WebSocketLayer};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = Arguments::from_env("showcase [--listen ADDR] [--tls]")?;
    let address: Option<String> = arguments.value("--listen")?;
    let tls = arguments.flag("--tls");
    arguments.finish()?;

    let style = (
        [(CONTENT_TYPE, "text/css")],
        include_str!("showcase/style.css"),
    );
    let icon = (
        [(CONTENT_TYPE, "image/svg+xml")],
        include_str!("showcase/icon.svg"),
    );
    let sockets = WebSocketLayer::new()
        .route("/echo", echo)
        .route("/data", data);
    let app = Router::new()
        .route("/", get(Html(include_str!("showcase/index.html"))))
        .route("/echo", get(Html(include_str!("showcase/echo.html"))))
        .route("/data", get(Html(include_str!("showcase/data.html"))))
        .route("/test", get("Yes this is a test!"))
        .route(
            "/version",
            get(async |version: Version| format!("{version:?}")),
        )
        .route("/style.css", get(style))
        .route("/icon.svg", get(icon))
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
    server
        .with_graceful_shutdown(asked_to_end(), Duration::from_secs(10))
        .await?;
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
