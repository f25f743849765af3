//! A client at the command line: `cargo run --release --example client -- URL`
//!
//! Every line of standard input is sent as a text, every message received is printed as a line.
//! Control-C or the end of the input closes with 1000. How it ended is the last line on standard
//! error: `closed CODE REASON (clean|unclean): cause`, or `refused STATUS: cause`. The exit status
//! is 0 after a clean close, and 1 otherwise.

#[path = "client/autobahn.rs"]
mod autobahn;
#[path = "client/options.rs"]
mod options;
#[path = "client/terminal.rs"]
mod terminal;

use std::process::ExitCode;

use tokio::signal;
use ws_examples::Failure;
use ws_tower::{CloseCode, CloseFrame, Receiver, Sender};

use options::Options;
use terminal::Terminal;

#[tokio::main]
async fn main() -> Result<ExitCode, Failure> {
    let options = Options::from_env()?;
    if options.autobahn {
        return autobahn::run(&options).await;
    }
    let connector = options.connector()?;
    let socket = tokio::select! {
        connected = connector.connect(&options.url) => match connected {
            Ok((socket, _)) => socket,
            Err(error) => return Ok(terminal::refused(&error)),
        },
        _ = signal::ctrl_c() => return Ok(ExitCode::FAILURE),
    };
    let terminal = Terminal::new();
    let (sender, receiver) = socket.split();
    // Two tasks: a server that waits for us to receive must not keep us from it by not receiving.
    let input = tokio::spawn(send(sender.clone(), terminal));
    receive(receiver, terminal).await;
    input.abort();
    Ok(terminal::closed(&sender.closed().await))
}

/// Sends lines, until there are no more of them or the user has had enough.
async fn send(sender: Sender, terminal: Terminal) {
    let mut lines = terminal.lines();
    let interrupted = signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        let sent = async {
            match lines.recv().await {
                Some(line) => sender.send(line).await.is_ok(),
                None => false,
            }
        };
        tokio::select! {
            goes_on = sent => if !goes_on { break },
            _ = &mut interrupted => break,
        }
    }
    sender.close(CloseFrame::from(CloseCode::NORMAL)).await;
}

/// Prints messages, to the end. How it ended, the socket tells afterwards.
async fn receive(mut receiver: Receiver, terminal: Terminal) {
    while let Some(Ok(message)) = receiver.recv().await {
        if terminal.print(&message).is_err() {
            // Nobody reads any more.
            return;
        }
    }
}
