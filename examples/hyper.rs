//! hyper and no framework: `cargo run --example hyper -- [--listen 127.0.0.1:8000]`
//!
//! The layer alone is a service, and hyper serves it like any other. What `ws_hyper::serve` does
//! besides (limits, deadlines, a graceful shutdown) is yours here.

use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use ws_examples::{Arguments, Failure, listen, log_to_stderr};
use ws_tower::{Error, WebSocket, WebSocketLayer};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = Arguments::from_env("hyper [--listen ADDR]")?;
    let address: Option<String> = arguments.value("--listen")?;
    arguments.finish()?;
    log_to_stderr()?;

    let sockets = WebSocketLayer::new().route("/echo", echo);
    let service = TowerToHyperService::new(sockets.into_service());

    let listener = listen(address.as_deref().unwrap_or("127.0.0.1:8000")).await?;
    println!("ws://{}/echo", listener.local_addr()?);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: others will close theirs.
                eprintln!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // It fails where the peer is gone already, which is no reason to stop serving.
        let _ = stream.set_nodelay(true);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new()) // for its deadline on reading a request's head
            .serve_connection(TokioIo::new(stream), service.clone())
            .with_upgrades(); // without this there is no WebSocket
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                eprintln!("a connection ended: {error}");
            }
        });
    }
}

async fn echo(mut socket: WebSocket) -> Result<(), Error> {
    while let Some(message) = socket.recv().await {
        socket.send(message?).await?;
    }
    Ok(())
}
