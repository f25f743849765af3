//! A device that turns in somebody's hand: `cargo run --example sensor -- ws://127.0.0.1:8000/sensors`
//!
//! Sends `azimuth pitch roll x y z` every 150 ms, if it has changed, and comes back when the
//! connection is lost. Watch it on the page of `sensors` or `showcase`.

use std::time::Duration;

use http::Uri;
use tokio::time::{Instant, interval, sleep};
use ws_examples::{Arguments, Failure, asked_to_end, dial};
use ws_tower::{CloseCode, CloseFrame, Config, WebSocket};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let mut arguments = Arguments::from_env("sensor [ws://127.0.0.1:8000/sensors]")?;
    let uri = arguments.word();
    arguments.finish()?;
    let uri: Uri = uri
        .as_deref()
        .unwrap_or("ws://127.0.0.1:8000/sensors")
        .parse()?;

    let start = Instant::now();
    tokio::select! {
        () = for_ever(&uri, start) => {}
        () = asked_to_end() => {}
    }
    Ok(())
}

/// Connects, sends, and connects again: at once after a good connection, else after a pause that
/// doubles up to 16 s.
async fn for_ever(uri: &Uri, start: Instant) {
    let mut pause = SHORTEST;
    loop {
        match dial(uri, &Config::new()).await {
            Ok(socket) => {
                println!("sending to {uri}");
                pause = SHORTEST;
                produce(socket, start).await;
            }
            Err(failure) => println!("{failure:?}"),
        }
        // Not all devices at one moment.
        sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        pause = (2 * pause).min(LONGEST);
    }
}

async fn produce(mut socket: WebSocket, start: Instant) {
    socket.discard_incoming(); // this one's own values, and those of others
    let mut ticks = interval(Duration::from_millis(150));
    let mut last = String::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            closed = socket.closed() => return println!("{closed:?}"),
        }
        let value = measure(start.elapsed().as_secs_f64());
        if value != last && socket.send(value.as_str()).await.is_err() {
            let closed = socket.close(CloseFrame::from(CloseCode::NORMAL)).await;
            return println!("{closed:?}");
        }
        last = value;
    }
}

/// A device that is carried around, tilted, and shaken every ten seconds.
fn measure(seconds: f64) -> String {
    let azimuth = (seconds * 24.0) % 360.0;
    let pitch = 35.0 * (seconds * 0.9).sin();
    let roll = 50.0 * (seconds * 0.6).cos();
    let shaken = if seconds % 10.0 < 1.0 { 6.0 } else { 0.4 };
    let [x, y, z] = [9.0, 11.0, 13.0].map(|speed| shaken * (seconds * speed).sin());
    format!(
        "{azimuth:.1} {pitch:.1} {roll:.1} {x:.2} {y:.2} {:.2}",
        9.81 + z
    )
}

const SHORTEST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(16);
