//! Ticks and talk for everyone: `cargo run --example tick -- [--listen 127.0.0.1:8000]`
//!
//! Open the address it prints, twice. The application is `support/applications/tick.rs`.

use std::time::Duration;

use ws_examples::{
    Arguments, Failure, Page, applications::tick::Tick, asked_to_end, listen, log_to_stderr, site,
};
use ws_tower::WebSocketLayer;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = Arguments::from_env("tick [--listen ADDR]")?;
    let address: Option<String> = arguments.value("--listen")?;
    arguments.finish()?;
    log_to_stderr()?;

    let sockets = Tick::start(Duration::from_secs(1)).route(WebSocketLayer::new());
    let app = site(&[Page::Tick]).layer(sockets);

    let listener = listen(address.as_deref().unwrap_or("127.0.0.1:8000")).await?;
    println!("http://{}", listener.local_addr()?);
    ws_hyper::serve(listener, app)
        .with_graceful_shutdown(asked_to_end(), Duration::from_secs(10))
        .await?;
    Ok(())
}
