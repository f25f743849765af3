//! The echo client of the Autobahn suite: `URL/getCaseCount`, then `URL/runCase` for each.

use std::{env, process::ExitCode};

use ws_examples::Failure;
use ws_tower::WebSocket;

use crate::options::Options;

pub(crate) async fn run(options: &Options) -> Result<ExitCode, Failure> {
    let connector = options.connector()?;
    let base = options.url.trim_end_matches('/');
    let agent = env::var("AUTOBAHN_AGENT").unwrap_or_else(|_| "ws-hyper".to_owned());

    let (mut socket, _) = connector.connect(format!("{base}/getCaseCount")).await?;
    let count = match socket.recv().await {
        Some(message) => message?,
        None => return Err(Failure::new("the suite does not say how many cases it has")),
    };
    let count: u32 = count.as_text().unwrap_or_default().trim().parse()?;
    drop(socket);

    let mut exit = ExitCode::SUCCESS;
    for case in 1..=count {
        let address = format!("{base}/runCase?case={case}&agent={agent}");
        match connector.connect(address).await {
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

/// Sends everything back. What ends it is what the case is about.
async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if socket.send(message).await.is_err() {
            break;
        }
    }
    socket.closed().await;
}
