//! Many sockets at once: `cargo run --release --example swarm -- ws://127.0.0.1:8000/echo --sockets 1000`
//!
//! Opens them, lets them echo or listen, and shows the rate and the latency while it goes on. What
//! it cannot open or loses it counts by reason; the exit status is 1 if there is any such. `--help`
//! lists the options.

#[path = "swarm/plan.rs"]
mod plan;
#[path = "swarm/tally.rs"]
mod tally;

use std::{process::ExitCode, sync::Arc, time::Duration};

use tokio::{
    runtime,
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, interval, sleep, timeout},
};
use ws_examples::{Failure, asked_to_end, causes};
use ws_hyper::{Connector, client::Tls};
use ws_tower::{CloseCode, CloseFrame, Config, Error, Message, WebSocket};

use plan::{Mode, Plan};
use tally::{Report, Tally};

fn main() -> Result<ExitCode, Failure> {
    let plan = Plan::from_env()?;
    let mut builder = runtime::Builder::new_multi_thread();
    if let Some(threads) = plan.threads {
        builder.worker_threads(threads);
    }
    Ok(builder.enable_all().build()?.block_on(run(plan)))
}

async fn run(plan: Plan) -> ExitCode {
    let mut config = Config::new();
    if !plan.deflate {
        config = config.deflate(None);
    }
    let mut connector = Connector::new().config(config);
    if plan.insecure {
        connector = connector.tls(Tls::dangerously_accept_any_certificate());
    }
    let swarm = Arc::new(Swarm {
        connector,
        tally: Tally::default(),
        doors: Semaphore::new(plan.at_once),
        plan,
    });
    let mut report = Report::new(swarm.plan.sockets);
    let (stop, stopped) = watch::channel(false);
    let mut sockets: JoinSet<()> = (0..swarm.plan.sockets)
        .map(|number| Arc::clone(&swarm).live(number, stopped.clone()))
        .collect();

    let end = async {
        match swarm.plan.time {
            Some(time) => sleep(time).await,
            None => std::future::pending().await,
        }
    };
    let over = async {
        tokio::select! {
            () = end => {}
            () = asked_to_end() => {}
        }
    };
    let mut over = std::pin::pin!(over);
    let mut seconds = interval(Duration::from_secs(1));
    seconds.tick().await;
    loop {
        tokio::select! {
            _ = seconds.tick() => report.progress(&swarm.tally),
            () = &mut over => break,
        }
        while sockets.try_join_next().is_some() {}
        if sockets.is_empty() {
            break;
        }
    }
    // What is lost from here on is lost on purpose.
    report.progress(&swarm.tally);
    report.finish(&swarm.tally);
    let losses = swarm.tally.losses();
    let _ = stop.send(true);
    let all_closed = async { while sockets.join_next().await.is_some() {} };
    let _ = timeout(Duration::from_secs(5), all_closed).await;
    ExitCode::from(u8::from(losses > 0))
}

struct Swarm {
    plan: Plan,
    connector: Connector,
    tally: Tally,
    /// As many permits as handshakes may be under way.
    doors: Semaphore,
}

impl Swarm {
    /// The life of one socket.
    async fn live(self: Arc<Self>, number: usize, mut stopped: watch::Receiver<bool>) {
        let opened = async {
            let _permit = self.doors.acquire().await;
            self.connector.connect(&self.plan.url).await
        };
        let mut socket = tokio::select! {
            opened = opened => match opened {
                Ok((socket, _)) => socket,
                Err(error) => return self.tally.lost(causes(&error)),
            },
            _ = stopped.changed() => return,
        };
        self.tally.opened();
        let over = tokio::select! {
            over = self.talk(number, &mut socket) => Some(over),
            _ = stopped.changed() => None,
        };
        match over {
            None => drop(socket.close(CloseFrame::from(CloseCode::NORMAL)).await),
            Some(Err(error)) => self.tally.lost(causes(&error)),
            Some(Ok(())) => self.tally.lost(socket.closed().await.to_string()),
        }
        self.tally.closed();
    }

    async fn talk(&self, number: usize, socket: &mut WebSocket) -> Result<(), Error> {
        if self.plan.mode == Mode::Subscribe {
            while let Some(message) = socket.recv().await {
                self.tally.received(message?.len());
            }
            return Ok(());
        }
        for sequence in 0_u64.. {
            let text = self.text(number, sequence);
            let sent = Instant::now();
            socket.send(text.as_str()).await?;
            loop {
                let Some(message) = socket.recv().await.transpose()? else {
                    return Ok(());
                };
                self.tally.received(message.len());
                if is_answer(&message, &text) {
                    break;
                }
            }
            self.tally.answered(number, sent.elapsed());
            if !self.plan.pause.is_zero() {
                sleep(self.plan.pause).await;
            }
        }
        Ok(())
    }

    /// The text that this socket sends next: whose it is, and then what makes it long enough.
    fn text(&self, number: usize, sequence: u64) -> String {
        let size = self.plan.size;
        let name = format!("{number:08x}-{:08x}-", sequence & 0xffff_ffff);
        if size < name.len() {
            return "x".repeat(size);
        }
        format!("{name:x<size$}")
    }
}

/// Whether this is the text come back: as it is, or behind something of the server's.
fn is_answer(message: &Message, text: &str) -> bool {
    message.as_bytes().ends_with(text.as_bytes())
}
