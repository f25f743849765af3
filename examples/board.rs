//! Drawing boards: `cargo run --example board -- [--listen 127.0.0.1:8000] [--lifetime SECONDS]`
//!
//! Open the address it prints: it leads to a new board, whose address is the invitation to it.
//! The application is `support/applications/board.rs`.

use std::time::Duration;

use ws_examples::{
    Arguments, Failure, Page,
    applications::board::{Boards, Limits},
    asked_to_end, listen, log_to_stderr, site,
};
use ws_tower::WebSocketLayer;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = Arguments::from_env("board [--listen ADDR] [--lifetime SECONDS]")?;
    let address: Option<String> = arguments.value("--listen")?;
    let lifetime: Option<u64> = arguments.value("--lifetime")?;
    arguments.finish()?;
    log_to_stderr()?;

    let mut limits = Limits::default();
    if let Some(seconds) = lifetime {
        limits.lifetime = Duration::from_secs(seconds);
    }
    let sockets = Boards::new(limits).route(WebSocketLayer::new());
    let app = site(&[Page::Board]).layer(sockets);

    let listener = listen(address.as_deref().unwrap_or("127.0.0.1:8000")).await?;
    println!("http://{}", listener.local_addr()?);
    ws_hyper::serve(listener, app)
        .with_graceful_shutdown(asked_to_end(), Duration::from_secs(10))
        .await?;
    Ok(())
}
