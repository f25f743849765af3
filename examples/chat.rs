//! A chat room: `cargo run --example chat -- [--listen 127.0.0.1:8000]`
//!
//! Open the address it prints, twice. The application is `support/applications/chat.rs`.

use std::time::Duration;

use ws_examples::{
    Arguments, Failure, Page, applications::chat::Chat, asked_to_end, listen, log_to_stderr, site,
};
use ws_tower::WebSocketLayer;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = Arguments::from_env("chat [--listen ADDR]")?;
    let address: Option<String> = arguments.value("--listen")?;
    arguments.finish()?;
    log_to_stderr()?;

    let sockets = Chat::start().route(WebSocketLayer::new());
    let app = site(&[Page::Chat]).layer(sockets);

    let listener = listen(address.as_deref().unwrap_or("127.0.0.1:8000")).await?;
    println!("http://{}", listener.local_addr()?);
    ws_hyper::serve(listener, app)
        .with_graceful_shutdown(asked_to_end(), Duration::from_secs(10))
        .await?;
    Ok(())
}
