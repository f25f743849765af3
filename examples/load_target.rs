//! A server for load generators and for conformance suites, on any path and for any origin:
//! `cargo run --release --example load_target -- echo --listen 127.0.0.1:9001`
//!
//! | command | sends |
//! |---|---|
//! | `echo` | every message back, by the plain `recv`/`send` handler |
//! | `deflate` | the same; both compress with clients that offer it |
//! | `plain` | the same, never compressed |
//! | `fanout` | every message to every connection of the process, the sender's too, through the hub; never compressed |
//!
//! With `--backplane redis://127.0.0.1` or `nats://127.0.0.1` the connections of `fanout` are those
//! of all processes that share this broker. What is lost between them is told where it is missing,
//! as the text `missed N`.

use std::time::Duration;

use tokio::runtime;
use ws_examples::{
    Arguments, BrokerUrl, Failure, MAX_THREADS, asked_to_end, listen, log_to_stderr, self_signed,
};
use ws_tower::{
    Config, Error, OriginPolicy, WebSocket, WebSocketLayer,
    hub::{Hub, Policy, SlowConsumer},
};

const USAGE: &str =
    "load_target COMMAND --listen ADDR [--threads N] [--max-message-size BYTES] [--tls]
                   [--backplane URL [--deadline SECONDS]]

  COMMAND                   echo, deflate, plain or fanout
  --listen ADDR             where to listen; port 0 for a free one
  --threads N               threads of the runtime, at most 1024; 1 runs it on the main thread
                            (default: one for each core)
  --max-message-size BYTES  largest message and largest frame (default: the library's, 1 MiB)
  --tls                     TLS, with a certificate that is made at the start
  --backplane URL           the broker between several processes, for fanout: redis:// or nats://
  --deadline SECONDS        how long a message may wait for the broker, at most 3600 (default: the
                            library's, 2)";

fn main() -> Result<(), Failure> {
    let mut arguments = Arguments::from_env(USAGE)?;
    let command = arguments.word();
    let address: Option<String> = arguments.value("--listen")?;
    let threads = arguments.number("--threads", 1..=MAX_THREADS)?;
    let largest: Option<usize> = arguments.value("--max-message-size")?;
    let tls = arguments.flag("--tls");
    let broker: Option<BrokerUrl> = arguments.value("--backplane")?;
    let deadline = arguments.number("--deadline", 1..=3600)?;
    arguments.finish()?;
    log_to_stderr()?;

    let mut config = Config::new();
    if let Some(bytes) = largest {
        config = config.max_message_size(bytes);
    }
    match command.as_deref() {
        Some("echo" | "deflate") => {}
        Some("plain" | "fanout") => config = config.deflate(None),
        Some(unknown) => return Err(usage(&format!("unknown command `{unknown}`"))),
        None => return Err(usage("which command?")),
    }
    let sockets = WebSocketLayer::new()
        .origins(OriginPolicy::dangerously_any())
        .config(config);
    if broker.is_some() && command.as_deref() != Some("fanout") {
        return Err(usage("--backplane is for fanout"));
    }
    if broker.is_none() && deadline.is_some() {
        return Err(usage("--deadline is for --backplane"));
    }
    let deadline = deadline.map(|it| Duration::from_secs(it as u64));
    let broker = broker.map(|it| it.deadline(deadline));
    let address = address.ok_or_else(|| usage("--listen is missing"))?;
    runtime(threads)?.block_on(async {
        // A hub with a backplane is made in the runtime.
        let hub = (command.as_deref() == Some("fanout")).then(|| hub(broker.as_ref()));
        let sockets = if let Some(hub) = hub.clone() {
            let handler = move |socket| fan_out(hub.clone(), socket);
            sockets
                .route("/", handler.clone())
                .route("/{*path}", handler)
        } else {
            sockets.route("/", echo).route("/{*path}", echo)
        };
        serve(&address, sockets, tls).await?;
        if let Some(hub) = hub {
            hub.leave().await;
        }
        Ok(())
    })
}

fn hub(broker: Option<&BrokerUrl>) -> Hub {
    let Some(broker) = broker else {
        return Hub::new();
    };
    let policy =
        Policy::new(SlowConsumer::Disconnect).notice(|lag| format!("missed {}", lag.missed()));
    let hub = broker.hub("ws-load").slow_consumer(policy).build();
    broker.report(&hub);
    hub
}

async fn serve(address: &str, sockets: WebSocketLayer, tls: bool) -> Result<(), Failure> {
    let listener = listen(address).await?;
    let address = listener.local_addr()?;
    let mut server = ws_hyper::serve(listener, sockets.into_service());
    if tls {
        server = server.tls(self_signed()?);
        println!("wss://{address}");
    } else {
        println!("ws://{address}");
    }
    server
        .with_graceful_shutdown(asked_to_end(), Duration::from_secs(1))
        .await?;
    Ok(())
}

async fn echo(mut socket: WebSocket) -> Result<(), Error> {
    while let Some(message) = socket.recv().await {
        socket.send(message?).await?;
    }
    Ok(())
}

async fn fan_out(hub: Hub, mut socket: WebSocket) -> Result<(), Error> {
    let seat = hub.join("everyone", &socket);
    while let Some(message) = socket.recv().await {
        seat.publish(message?);
    }
    Ok(())
}

fn runtime(threads: Option<usize>) -> Result<runtime::Runtime, Failure> {
    let mut builder = match threads {
        Some(1) => runtime::Builder::new_current_thread(),
        _ => runtime::Builder::new_multi_thread(),
    };
    if let Some(threads) = threads {
        builder.worker_threads(threads);
    }
    Ok(builder.enable_all().build()?)
}

fn usage(wrong: &str) -> Failure {
    Failure::new(format!("{wrong}\nusage: {USAGE}"))
}
