//! A client at the command line: `cargo run --release --example client -- URL`
//!
//! Every line of standard input is sent as a text, every message received is printed as a line.
//! Control-C or the end of the input closes with 1000; the end of a pipe as soon as the server, which
//! may still have to answer, is silent for half a second. How it ended is the last line on standard
//! error: `closed CODE REASON (clean|unclean): cause`, or `refused STATUS: cause`; `Error: …` where
//! what was asked for cannot be done. The exit status is 0 after a clean close if all that came was
//! printed, and 1 otherwise.
//!
//! With `--blocking` it is a client of `ws-core` alone, on `std::net` and a thread, without proxies
//! and HTTP/2.

#[path = "client/autobahn.rs"]
mod autobahn;
#[path = "client/blocking.rs"]
mod blocking;
#[path = "client/options.rs"]
mod options;
#[path = "client/terminal.rs"]
mod terminal;

use std::{error::Error, io, process::ExitCode};

use tokio::{
    signal,
    sync::Notify,
    time::{Instant, timeout},
};
use ws_examples::Failure;
use ws_hyper::client::ConnectError;
use ws_tower::{CloseCode, CloseFrame, Receiver, Sender, ws_core::handshake::client::Refusal};

use options::Options;
use terminal::Terminal;

#[tokio::main]
async fn main() -> Result<ExitCode, Failure> {
    let options = Options::from_env()?;
    match (options.blocking, options.autobahn) {
        (false, false) => run(&options).await,
        (false, true) => autobahn::run(&options).await,
        (true, false) => blocking::run(&options).await,
        (true, true) => autobahn::run_blocking(&options),
    }
}

async fn run(options: &Options) -> Result<ExitCode, Failure> {
    let connector = options.connector()?;
    let socket = tokio::select! {
        // Listened for before there is anything to interrupt.
        biased;
        _ = signal::ctrl_c() => return Ok(terminal::interrupted()),
        connected = connector.connect(&options.url) => match connected {
            Ok((socket, _)) => socket,
            // What was asked for cannot be done by anybody.
            Err(
                error @ (ConnectError::Address(_)
                | ConnectError::Request(_)
                | ConnectError::Setting(_)),
            ) => return Err(error.into()),
            Err(error) => {
                let status = error.refusal().map(Refusal::status);
                return Ok(terminal::refused(status, &error));
            }
        },
    };
    let terminal = Terminal::new();
    let (sender, receiver) = socket.split();
    // Two tasks: a server that waits for us to receive must not keep us from it by not receiving.
    let input = tokio::spawn(send(sender.clone(), terminal));
    let is_lost = terminal::is_lost(receive(receiver, terminal).await);
    input.abort();
    let closed = sender.closed().await;
    let cause = closed.cause().map(|cause| cause as &dyn Error);
    let exit = terminal::closed(closed.received(), closed.is_clean(), cause);
    Ok(if is_lost { ExitCode::FAILURE } else { exit })
}

/// A message has been received.
static HEARD: Notify = Notify::const_new();

/// Sends lines, until there are no more of them or the user has had enough.
async fn send(sender: Sender, terminal: Terminal) {
    let all_said = async {
        let mut lines = terminal.lines();
        let mut is_answer_due = false;
        while let Some(line) = lines.recv().await {
            if sender.send(line).await.is_err() {
                return;
            }
            is_answer_due = terminal.is_piped;
        }
        if is_answer_due {
            silence().await;
        }
    };
    tokio::select! {
        biased;
        _ = signal::ctrl_c() => {}
        () = all_said => {}
    }
    sender.close(CloseFrame::from(CloseCode::NORMAL)).await;
}

/// Waits until the server has nothing more to say.
async fn silence() {
    let ended = Instant::now();
    while timeout(terminal::SILENCE, HEARD.notified()).await.is_ok()
        && ended.elapsed() < terminal::PATIENCE
    {}
}

/// Prints messages, to the end or as long as they can be. How it ended, the socket tells afterwards.
async fn receive(mut receiver: Receiver, terminal: Terminal) -> io::Result<()> {
    while let Some(Ok(message)) = receiver.recv().await {
        HEARD.notify_one();
        terminal.print(&message)?;
    }
    Ok(())
}
