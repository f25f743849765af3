//! A Redis cluster, by its sharded pub/sub.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::try_join_all;
use redis::{Client, ConnectionInfo, Pipeline, Value, aio::MultiplexedConnection};
use tokio::{task::JoinSet, time::Instant};

use super::{
    RedisMessages,
    connection::{Inbox, Server, connect},
    slots::Topology,
};
use crate::{
    BoxError,
    hub::backplane::broker::{Broker, Commands},
};

/// A Redis cluster of version 7 or later, or one of Valkey.
///
/// A topic is on one server of it (`SSUBSCRIBE`, `SPUBLISH`), so more servers carry more topics.
/// Which one the name of its channel says, or what stands in braces in it: topics `{game 7}/chat`
/// and `{game 7}/moves` are on the same server.
///
/// A node makes two connections to each master. When one of them ends, when the cluster is down, or
/// when a slot moves to another server, all are given up and made anew, with what the cluster
/// then says of itself. Nothing is lost unseen by that, but for its time, all topics are away.
/// It needs every slot to have a master that can be reached.
///
/// ```
/// use ws_tower::hub::{Hub, backplane::RedisCluster};
///
/// # fn main() -> Result<(), ws_tower::BoxError> {
/// let broker = RedisCluster::new(["redis://10.0.0.7", "redis://10.0.0.8"])?;
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let hub = Hub::builder().backplane(broker).build();
/// # drop(hub);
/// # });
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RedisCluster {
    seeds: Arc<[Client]>,
    next: Arc<AtomicUsize>,
}

impl RedisCluster {
    /// Servers of the cluster by their URLs, as in [`Redis::new`](super::Redis::new): the others
    /// are found through any of them. Name several, for when one is away. All have the same
    /// user and password. It does not connect yet.
    ///
    /// # Errors
    ///
    /// A URL is none, or asks for TLS without the feature `redis-rustls`; or there is none at all.
    pub fn new(urls: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, BoxError> {
        let clients: Result<Vec<_>, _> = urls
            .into_iter()
            .map(|url| Client::open(url.as_ref()))
            .collect();
        Self::with_clients(clients?)
    }

    /// The same, by clients of the crate `redis`: see
    /// [`Redis::with_client`](super::Redis::with_client). The servers that are found through one
    /// are connected to with its settings, TLS included; the certificate of each has to be for
    /// the name or address that the cluster announces.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn with_clients(clients: impl IntoIterator<Item = Client>) -> Result<Self, BoxError> {
        let seeds: Arc<[_]> = clients.into_iter().collect();
        if seeds.is_empty() {
            return Err("no server of the cluster is named".into());
        }
        Ok(Self {
            seeds,
            next: Arc::default(),
        })
    }
}

impl Broker for RedisCluster {
    type Commands = RedisClusterCommands;
    type Messages = RedisMessages;

    async fn connect(&self) -> Result<(RedisClusterCommands, RedisMessages), BoxError> {
        // One that does not answer is not the first again.
        let start = self.next.fetch_add(1, Ordering::Relaxed) % self.seeds.len();
        let (before, from) = self.seeds.split_at(start);
        let mut last = BoxError::from("no server of the cluster is named");
        for seed in from.iter().chain(before) {
            match join(seed.get_connection_info()).await {
                Ok(connected) => return Ok(connected),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// Connects to all masters that this server knows.
async fn join(seed: &ConnectionInfo) -> Result<(RedisClusterCommands, RedisMessages), BoxError> {
    let (inbox, messages) = Inbox::new();
    let topology = ask(seed).await?;
    let masters = topology.masters.iter().map(|address| {
        let inbox = inbox.of_another();
        let info = seed.clone().set_addr(address.clone());
        async move { Server::connect(&info, inbox).await }
    });
    let commands = RedisClusterCommands {
        masters: try_join_all(masters).await?,
        topology,
        checked: Instant::now(),
        checks: JoinSet::new(),
    };
    Ok((commands, messages))
}

/// Who has which slots.
async fn ask(server: &ConnectionInfo) -> Result<Topology, BoxError> {
    let (unused, _) = Inbox::new();
    let mut connection = connect(server, unused).await?;
    let mut questions = redis::pipe();
    questions.cmd("CLUSTER").arg("INFO");
    questions.cmd("CLUSTER").arg("SLOTS");
    let (state, slots): (String, Value) = questions.query_async(&mut connection).await?;
    check(&state)?;
    let topology = Topology::read(&slots, server.addr());
    topology.ok_or_else(|| "not every slot of the cluster has a server".into())
}

/// What a server says of the cluster. One that the majority has left says that it is down.
fn check(state: &str) -> Result<(), BoxError> {
    let mut lines = state.lines();
    if lines.any(|line| line.trim_end() == "cluster_state:ok") {
        Ok(())
    } else {
        Err("a server says that the cluster is down".into())
    }
}

/// The commands of the connections to a [`RedisCluster`].
pub struct RedisClusterCommands {
    masters: Vec<Server>,
    topology: Topology,
    checked: Instant,
    checks: JoinSet<Result<(), BoxError>>,
}

impl RedisClusterCommands {
    /// Divides items between the masters that have their channels.
    fn divide<'a, T>(&self, all: &'a [T], channel: impl Fn(&T) -> &str) -> Vec<Vec<&'a T>> {
        let mut parts = vec![Vec::new(); self.masters.len()];
        for item in all {
            let master = self.topology.master_of(channel(item));
            if let Some(part) = parts.get_mut(master) {
                part.push(item);
            }
        }
        parts
    }

    /// Sends this command with each channel, to the master that has it: channels of one command
    /// would have to be of one slot.
    async fn each(&mut self, command: &str, channels: &[String]) -> Result<(), BoxError> {
        let parts = self.divide(channels, |it| it);
        let answers = self.masters.iter_mut().zip(parts).map(|(master, part)| {
            let mut pipeline = redis::pipe();
            for channel in part {
                pipeline.cmd(command).arg(channel).ignore();
            }
            send(pipeline, &mut master.subscriber)
        });
        try_join_all(answers).await?;
        Ok(())
    }

    /// Asks all masters now and then whether the cluster is well: one that is cut off from the
    /// others, or no longer there, and has nothing for this node, would not be missed.
    fn check(&mut self) -> Result<(), BoxError> {
        while let Some(checked) = self.checks.try_join_next() {
            checked??;
        }
        let now = Instant::now();
        if now.duration_since(self.checked) < CHECK {
            return Ok(());
        }
        if !self.checks.is_empty() {
            return Err("a server of the cluster does not answer".into());
        }
        self.checked = now;
        for master in &self.masters {
            let mut connection = master.subscriber.clone();
            // Its answer comes behind all that has arrived: nobody waits for it.
            self.checks.spawn(async move {
                let mut question = redis::cmd("CLUSTER");
                let state: String = question.arg("INFO").query_async(&mut connection).await?;
                check(&state)
            });
        }
        Ok(())
    }
}

async fn send(pipeline: Pipeline, connection: &mut MultiplexedConnection) -> Result<(), BoxError> {
    if !pipeline.is_empty() {
        let () = pipeline.query_async(connection).await?;
    }
    Ok(())
}

impl Commands for RedisClusterCommands {
    fn max_payload(&self) -> usize {
        super::MAX_PAYLOAD
    }

    async fn subscribe(&mut self, channels: &[String]) -> Result<(), BoxError> {
        self.each("SSUBSCRIBE", channels).await
    }

    async fn unsubscribe(&mut self, channels: &[String]) -> Result<(), BoxError> {
        for master in &self.masters {
            master.leave(channels);
        }
        self.each("SUNSUBSCRIBE", channels).await
    }

    async fn publish(&mut self, batch: &[(String, Bytes)]) -> Result<(), BoxError> {
        let parts = self.divide(batch, |(channel, _)| channel);
        let answers = self.masters.iter_mut().zip(parts).map(|(master, part)| {
            let mut pipeline = redis::pipe();
            for (channel, payload) in part {
                let publish = pipeline.cmd("SPUBLISH");
                publish.arg(channel).arg(&payload[..]).ignore();
            }
            send(pipeline, &mut master.publisher)
        });
        try_join_all(answers).await?;
        self.check()
    }
}

impl fmt::Debug for RedisClusterCommands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisClusterCommands")
            .field("masters", &self.masters.len())
            .finish_non_exhaustive()
    }
}

/// How often the servers are asked how the cluster is. A node publishes with every heartbeat.
const CHECK: Duration = Duration::from_secs(5);
