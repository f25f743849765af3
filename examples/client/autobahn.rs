//! The echo client of the Autobahn suite: `URL/getCaseCount`, then `URL/runCase` for each.

use std::{env, fmt::Write as _, process::ExitCode};

use ws_core::blocking;
use ws_examples::Failure;
use ws_tower::{Message, WebSocket};

use crate::options::Options;

pub(crate) async fn run(options: &Options) -> Result<ExitCode, Failure> {
    let connector = options.connector()?;
    let suite = Suite::new(options);
    let (mut socket, _) = connector.connect(suite.count()).await?;
    let count = cases(socket.recv().await.transpose()?)?;
    drop(socket);

    let mut exit = ExitCode::SUCCESS;
    for case in 1..=count {
        match connector.connect(suite.case(case)).await {
            Ok((socket, _)) => echo(socket).await,
            Err(error) => {
                eprintln!("case {case}: {error}");
                exit = ExitCode::FAILURE;
            }
        }
    }
    eprintln!("{count} cases done");
    Ok(exit)
}

pub(crate) fn run_blocking(options: &Options) -> Result<ExitCode, Failure> {
    let connector = options.blocking_connector()?;
    let suite = Suite::new(options);
    let (mut socket, _) = connector.connect(suite.count())?;
    let count = cases(socket.recv().transpose()?)?;
    drop(socket);

    let mut exit = ExitCode::SUCCESS;
    for case in 1..=count {
        match connector.connect(suite.case(case)) {
            Ok((socket, _)) => echo_blocking(socket),
            Err(error) => {
                eprintln!("case {case}: {error}");
                exit = ExitCode::FAILURE;
            }
        }
    }
    eprintln!("{count} cases done");
    Ok(exit)
}

/// Sends everything back. What ends it is what the case is about.
async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if socket.send(message).await.is_err() {
            break;
        }
    }
    socket.closed().await;
}

fn echo_blocking(mut socket: blocking::WebSocket) {
    while let Some(Ok(message)) = socket.recv() {
        if socket.send(message).is_err() {
            break;
        }
    }
    socket.close(None);
}

/// Where the suite is.
struct Suite<'a> {
    base: &'a str,
    agent: String,
}

impl<'a> Suite<'a> {
    fn new(options: &'a Options) -> Self {
        Self {
            base: options.url.trim_end_matches('/'),
            agent: encoded(&env::var("AUTOBAHN_AGENT").unwrap_or_else(|_| "ws-hyper".to_owned())),
        }
    }

    fn count(&self) -> String {
        format!("{}/getCaseCount", self.base)
    }

    fn case(&self, number: u32) -> String {
        format!("{}/runCase?case={number}&agent={}", self.base, self.agent)
    }
}

/// A value of a query (RFC 3986 §2.1).
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte.into());
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

fn cases(message: Option<Message>) -> Result<u32, Failure> {
    let missing = || Failure::new("the suite does not say how many cases it has");
    let message = message.ok_or_else(missing)?;
    let count = message.as_text().ok_or_else(missing)?;
    Ok(count.trim().parse()?)
}
