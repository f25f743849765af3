//! Where a device points, for all to see: `cargo run --example sensors -- [--listen 127.0.0.1:8000]`
//!
//! Open the address it prints. The page can be the device; `sensor` is another one. The
//! application is `support/applications/sensors.rs`.

use std::time::Duration;

use ws_examples::{
    Arguments, Failure, Page, applications::sensors::Sensors, asked_to_end, listen, log_to_stderr,
    site,
};
use ws_tower::WebSocketLayer;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = Arguments::from_env("sensors [--listen ADDR]")?;
    let address: Option<String> = arguments.value("--listen")?;
    arguments.finish()?;
    log_to_stderr()?;

    let sockets = Sensors::new(Duration::from_millis(150)).route(WebSocketLayer::new());
    let app = site(&[Page::Sensors]).layer(sockets);

    let listener = listen(address.as_deref().unwrap_or("127.0.0.1:8000")).await?;
    println!("http://{}", listener.local_addr()?);
    ws_hyper::serve(listener, app)
        .with_graceful_shutdown(asked_to_end(), Duration::from_secs(10))
        .await?;
    Ok(())
}
