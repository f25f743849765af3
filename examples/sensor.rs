//! A device that turns in somebody's hand: `cargo run --example sensor -- ws://127.0.0.1:8000/sensors`
//!
//! Sends `azimuth pitch roll x y z` every 150 ms, if it has changed, and comes back when the
//! connection is lost: why there is none, and when the next attempt is, it says on stderr. Watch it
//! on the page of `sensors` or `showcase`. With `--insecure` any certificate will do, such as that of
//! `showcase --tls`.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, interval},
};
use ws_examples::{Arguments, Failure, asked_to_end, causes};
use ws_hyper::{
    Connector,
    client::{ConnectError, ReconnectState, Reconnecting, Tls},
};
use ws_tower::{CloseCode, CloseFrame, WebSocket};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let mut arguments = Arguments::from_env("sensor [ws://127.0.0.1:8000/sensors] [--insecure]")?;
    let insecure = arguments.flag("--insecure");
    let address = arguments.word();
    arguments.finish()?;
    let address = address.as_deref().unwrap_or("ws://127.0.0.1:8000/sensors");

    let start = Instant::now();
    let mut connector = Connector::new();
    if insecure {
        connector = connector.tls(Tls::dangerously_accept_any_certificate());
    }
    let mut sockets = Reconnecting::new(connector, address)?.final_if(|error| {
        let is_final = ConnectError::is_final(error); // then `main` tells it
        if !is_final {
            eprintln!("no connection: {}", causes(error));
        }
        is_final
    });
    tokio::spawn(tell(sockets.state()));
    let mut asked_to_end = std::pin::pin!(asked_to_end());
    loop {
        let socket = tokio::select! {
            socket = sockets.next() => socket,
            () = &mut asked_to_end => return Ok(()),
        };
        // An error is one that another attempt would not mend, such as a wrong path.
        let Some(mut socket) = socket.transpose()? else {
            return Ok(());
        };
        socket.discard_incoming(); // its own values come back, and those of others
        println!("sending to {address}");
        tokio::select! {
            () = produce(&socket, start) => println!("{}", socket.closed().await),
            () = &mut asked_to_end => {
                socket.close(CloseFrame::from(CloseCode::NORMAL)).await;
                return Ok(());
            }
        }
    }
}

/// Says on stderr when the next attempt is.
async fn tell(mut state: watch::Receiver<ReconnectState>) {
    while state.changed().await.is_ok() {
        if let ReconnectState::Waiting { pause, .. } = *state.borrow_and_update() {
            eprintln!("next attempt in {:.1} s", pause.as_secs_f64());
        }
    }
}

/// Sends until the socket has ended.
async fn produce(socket: &WebSocket, start: Instant) {
    let mut ticks = interval(Duration::from_millis(150));
    let mut last = String::new();
    loop {
        ticks.tick().await;
        let value = measure(start.elapsed().as_secs_f64());
        if value != last && socket.send(value.as_str()).await.is_err() {
            return;
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
