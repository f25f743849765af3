//! The connection to the broker: made, used, given up and made again.

use std::{
    fmt,
    future::{Future, poll_fn},
    hash::{BuildHasher, RandomState},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};

use super::{
    Options, RETENTION,
    broker::{Broker, Commands, Messages},
    envelope::Envelope,
    inbound::{Changes, Inbound},
    relay::{Batch, Relay},
};
use crate::BoxError;

/// Runs until the hub is gone, or has left.
pub(super) async fn run<B: Broker>(broker: B, inbound: Arc<Inbound>, relay: Arc<Relay>) {
    /// Whichever way it ends.
    struct End<'a>(&'a Inbound, &'a Relay);

    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.forget_all();
            self.1.end();
        }
    }

    let _end = End(&inbound, &relay);
    let options = &relay.options;
    let mut batch = Batch::default();
    let mut delay = MIN_DELAY;
    let mut complaint = Complaint::default();
    while !relay.is_stopped() {
        let since = Instant::now();
        match timeout(options.deadline, broker.connect()).await {
            Ok(Ok((commands, messages))) => {
                let error = serve(commands, messages, &mut batch, &inbound, &relay).await;
                relay.counters.connected.set(0);
                if relay.is_stopped() {
                    return;
                }
                relay.counters.disconnects.add(1);
                tracing::warn!(error, "the hub has lost its broker");
                complaint = Complaint::default();
                if since.elapsed() >= STEADY {
                    delay = MIN_DELAY;
                }
            }
            Ok(Err(error)) => {
                relay.counters.failed_connects.add(1);
                complaint.make(&error);
            }
            Err(_) => {
                relay.counters.failed_connects.add(1);
                complaint.make(&"no connection within the deadline");
            }
        }
        // Between the half and the whole: nodes that lost it together do not come back together.
        let share = RandomState::new().hash_one(()) % 512 + 512;
        let until = Instant::now() + delay * u32::try_from(share).unwrap_or(512) / 1024;
        while Instant::now() < until && !relay.is_stopped() {
            relay.expire(&mut batch);
            // What is wanted is subscribed to by the next link.
            inbound.settle(relay.take_changed());
            while relay.forget_some(RETENTION, |it| inbound.has(it)) {}
            sleep(until.duration_since(Instant::now()).min(TICK)).await;
        }
        relay.expire(&mut batch);
        delay = (delay * 2).min(options.max_backoff);
    }
}

/// What the log hears of a broker that cannot be reached: at first why, and then from time to time
/// that it is still so.
#[derive(Default)]
struct Complaint {
    made: Option<Instant>,
}

impl Complaint {
    fn make(&mut self, error: &dyn fmt::Display) {
        if self.made.is_some_and(|made| made.elapsed() < REMINDER) {
            tracing::debug!(%error, "the hub cannot reach its broker");
        } else {
            tracing::warn!(%error, "the hub cannot reach its broker");
            self.made = Some(Instant::now());
        }
    }
}

/// Uses one connection. Returns why it is of no use any more.
async fn serve<C: Commands, M: Messages>(
    mut commands: C,
    mut messages: M,
    batch: &mut Batch,
    inbound: &Inbound,
    relay: &Relay,
) -> String {
    relay.set_max_payload(commands.max_payload());
    let mut receive = pin!(receive(&mut messages, inbound));
    let mut work = pin!(work(&mut commands, batch, inbound, relay));
    let error = poll_fn(|cx| {
        if let Poll::Ready(error) = receive.as_mut().poll(cx) {
            return Poll::Ready(error);
        }
        work.as_mut().poll(cx)
    })
    .await;
    error.to_string()
}

async fn receive<M: Messages>(messages: &mut M, inbound: &Inbound) -> BoxError {
    loop {
        let mut size = 0;
        for _ in 0..TURN {
            match messages.recv().await {
                Ok((channel, payload)) => {
                    size += payload.len();
                    inbound.receive(&channel, payload);
                }
                Err(error) => return error,
            }
            if size >= TURN_SIZE {
                break;
            }
        }
        // The queue has its turn too, and so have the sessions.
        tokio::task::yield_now().await;
    }
}

async fn work<C: Commands>(
    commands: &mut C,
    batch: &mut Batch,
    inbound: &Inbound,
    relay: &Relay,
) -> BoxError {
    match work_until_error(commands, batch, inbound, relay).await {
        Ok(()) => "the hub is gone".into(),
        Err(error) => error,
    }
}

async fn work_until_error<C: Commands>(
    commands: &mut C,
    batch: &mut Batch,
    inbound: &Inbound,
    relay: &Relay,
) -> Result<(), BoxError> {
    let options = &relay.options;
    let patience = options.deadline;
    let nodes = options.nodes_channel();
    // All that is wanted by now is subscribed to below, whether it is new or not.
    inbound.settle(relay.take_changed());
    let own = [nodes.clone(), options.node_channel(relay.node)];
    timeout(patience, commands.subscribe(&own)).await??;
    // What was subscribed to before.
    subscribe(commands, &inbound.channels(), options).await?;
    let is_first = inbound.connected();
    relay.counters.connected.set(1);
    for name in inbound.unconfirmed() {
        inbound.ask_all(&name);
    }
    if !is_first {
        tracing::info!("the hub has its broker again");
        // Before the others know that it is back: until then they forget nothing.
        relay.order(nodes.clone(), Envelope::Resync { node: None });
    }
    relay.order(nodes.clone(), beat(relay));
    let mut next_beat = Instant::now() + options.heartbeat;
    // What was begun in pieces, so that publishers and messages come in between.
    let (mut marks, mut forgets) = (false, false);
    let mut retention = RETENTION;
    let mut changed = relay.take_changed();
    loop {
        if relay.is_stopped() {
            // What was published before goes first.
            loop {
                if batch.is_empty() {
                    relay.take(batch);
                }
                if batch.is_empty() {
                    break;
                }
                publish(commands, batch, relay).await?;
            }
            let bye = (nodes, Envelope::Bye.encode(relay.node));
            timeout(patience, commands.publish(&[bye])).await??;
            return Ok(());
        }
        change(commands, &inbound.settle(changed), inbound, options).await?;
        let now = Instant::now();
        if now >= next_beat {
            next_beat = now + options.heartbeat;
            if inbound.silence() > options.expiry() {
                return Err("nothing comes back from it".into());
            }
            relay.order(nodes.clone(), beat(relay));
            inbound.expire();
            retention = inbound.retention();
            (marks, forgets) = (true, true);
        }
        inbound.answer();
        if !relay.has_marks() {
            // One pass after the other: those who ask meanwhile have the next.
            if !marks && inbound.take_mark() {
                relay.rewind();
                marks = true;
            }
            marks = marks && relay.mark_some(options.heartbeat);
        }
        while relay.is_crowded() {
            relay.forget_some(retention, |it| inbound.has(it));
        }
        forgets = forgets && relay.forget_some(retention, |it| inbound.has(it));
        if batch.is_empty() {
            relay.take(batch);
        }
        if batch.is_empty() {
            let until = match inbound.next_turn() {
                _ if marks || forgets => Instant::now(),
                Some(turn) => turn.min(next_beat),
                None => next_beat,
            };
            let wait = until.saturating_duration_since(Instant::now());
            let _ = timeout(wait, relay.work.notified()).await;
        } else {
            publish(commands, batch, relay).await?;
        }
        changed = relay.take_changed();
    }
}

async fn publish<C: Commands>(
    commands: &mut C,
    batch: &mut Batch,
    relay: &Relay,
) -> Result<(), BoxError> {
    let patience = relay.options.deadline;
    timeout(patience, commands.publish(batch.payloads())).await??;
    relay.counters.sent.add(batch.clear());
    Ok(())
}

async fn change<C: Commands>(
    commands: &mut C,
    changes: &Changes,
    inbound: &Inbound,
    options: &Options,
) -> Result<(), BoxError> {
    for piece in changes.unsubscribe.chunks(PIECE) {
        let channels = options.topic_channels(piece);
        timeout(options.deadline, commands.unsubscribe(&channels)).await??;
    }
    subscribe(commands, &changes.subscribe, options).await?;
    for name in changes.subscribe.iter().chain(&changes.renewed) {
        inbound.ask_all(name);
    }
    Ok(())
}

/// Subscribes to topics, in pieces: there may be many.
async fn subscribe<C: Commands>(
    commands: &mut C,
    topics: &[Arc<str>],
    options: &Options,
) -> Result<(), BoxError> {
    for piece in topics.chunks(PIECE) {
        let channels = options.topic_channels(piece);
        timeout(options.deadline, commands.subscribe(&channels)).await??;
    }
    Ok(())
}

fn beat(relay: &Relay) -> Envelope {
    let expiry = relay.options.expiry().as_millis();
    Envelope::Beat {
        expiry: u32::try_from(expiry).unwrap_or(u32::MAX),
    }
}

/// The first wait before a new connection; each one after it is twice as long.
const MIN_DELAY: Duration = Duration::from_millis(50);

/// A connection that has lasted so long begins the waits anew.
const STEADY: Duration = Duration::from_secs(5);

/// How often the log is told that there is still no broker.
const REMINDER: Duration = Duration::from_secs(60);

/// How often messages are looked at for their deadline while there is no connection.
const TICK: Duration = Duration::from_millis(100);

/// Channels in one command: a few kilobytes.
const PIECE: usize = 256;

/// Payloads that are delivered before others have their turn.
const TURN: usize = 64;

/// And bytes of them: half of what a socket queues by default. A subscriber that keeps up must not
/// look slow because it had no turn.
const TURN_SIZE: usize = 32 << 10;

#[cfg(test)]
mod tests;
