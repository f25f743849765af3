//! Runs with several processes: nodes that share a topic, and the broker between them.

use std::{
    iter, thread,
    time::{Duration, Instant},
};

use super::{Sample, Speed, Unit, echo_each, memory, quantiles, settled};
use crate::{
    Result, Server,
    broker::Broker,
    load::Load,
    machine,
    options::Options,
    process::{Ended, Process},
    scenario::Payload,
    wire::{self, Exchange, TOPICS, TOPICS_PATH},
};

/// As in the other scenarios of fan-out.
const PAYLOAD: usize = 128;

/// How long nodes have to find each other, and to subscribe.
const SETTLING: Duration = Duration::from_millis(700);

/// Nodes with their broker, or one server without.
struct Cluster {
    broker: Option<Broker>,
    nodes: Vec<Process>,
}

impl Cluster {
    fn start(server: Server, nodes: usize, options: &Options) -> Result<Self> {
        let (core, own_core) = (options.server_core, options.generator_core);
        let broker = server.broker();
        let broker = broker.map(|kind| Broker::start(kind, core, own_core));
        let broker = broker.transpose()?;
        let nodes = if broker.is_some() { nodes } else { 1 };
        let nodes = (0..nodes)
            .map(|_| Process::start_node(server, broker.as_ref(), core, own_core))
            .collect::<Result<_>>()?;
        Ok(Self { broker, nodes })
    }

    fn account(&self) -> Result<Account> {
        let broker = self.broker.as_ref().map(|it| &it.process);
        let mut nodes = Vec::new();
        let mut waiting = Duration::ZERO;
        for node in &self.nodes {
            let times = node.times()?;
            nodes.push(times.running);
            waiting += times.waiting;
        }
        let times = broker.map(Ended::times).transpose()?;
        Ok(Account {
            nodes,
            waiting,
            broker: times.map_or(Duration::ZERO, |it| it.running),
            broker_bytes: broker.map(Ended::bytes).transpose()?.unwrap_or_default(),
        })
    }
}

/// What all had so far.
struct Account {
    /// CPU time of each node.
    nodes: Vec<Duration>,
    waiting: Duration,
    broker: Duration,
    /// Read and written.
    broker_bytes: (u64, u64),
}

/// One connection of the first node publishes, all connections of all nodes receive.
pub fn messages(
    server: Server,
    name: &str,
    [nodes, members, in_flight]: [usize; 3],
    options: &Options,
) -> Result<Vec<Sample>> {
    let connections = nodes * members;
    if !machine::allows_connections(connections) {
        return Err("the limit of open files is too low".into());
    }
    let cluster = Cluster::start(server, nodes, options)?;
    let payload = Payload::Bytes(PAYLOAD);
    let exchange = Exchange::new(in_flight, payload, options.kind, server.echo(), false)?;
    let of_each = connections / cluster.nodes.len();
    let endpoints = cluster.nodes.iter();
    let endpoints = endpoints.flat_map(|node| iter::repeat_n(&node.endpoint, of_each));
    let mut load = Load::connect(endpoints, exchange, false)?;
    thread::sleep(SETTLING);
    load.publish(options.warm_up)?;

    let before = cluster.account()?;
    let (run, latencies) = load.publish(options.measured)?;
    let after = cluster.account()?;

    let (deliveries, elapsed) = (run.messages as f64, run.elapsed.as_secs_f64());
    let published = deliveries / connections as f64;
    let of_nodes: Vec<_> = iter::zip(&after.nodes, &before.nodes)
        .map(|(after, before)| (*after - *before).as_secs_f64())
        .collect();
    let running: f64 = of_nodes.iter().sum();
    let mut samples = vec![Sample {
        row: name.into(),
        cost: running / deliveries * 1e9,
        unit: Unit::Nanoseconds,
        speed: Some(Speed {
            messages_per_second: deliveries / elapsed,
            busy: running / elapsed,
            held_up: (after.waiting - before.waiting).as_secs_f64() / elapsed,
            bytes_back: run.bytes_back as f64 / deliveries,
        }),
    }];
    if let [publisher, receivers @ ..] = &of_nodes[..]
        && !receivers.is_empty()
    {
        let mut row = |what: &str, cost: f64, unit| {
            samples.push(Sample {
                row: format!("{name}, {what}"),
                cost: cost / published,
                unit,
                speed: None,
            });
        };
        let receiver = receivers.iter().sum::<f64>() / receivers.len() as f64;
        let broker = (after.broker - before.broker).as_secs_f64();
        let bytes = |of: fn(&Account) -> u64| (of(&after) - of(&before)) as f64;
        row("publisher", publisher * 1e9, Unit::Nanoseconds);
        row("receiver", receiver * 1e9, Unit::Nanoseconds);
        row("broker", broker * 1e9, Unit::Nanoseconds);
        row("broker in", bytes(|it| it.broker_bytes.0), Unit::Bytes);
        row("broker out", bytes(|it| it.broker_bytes.1), Unit::Bytes);
    }
    if in_flight == 1 {
        let (here, there): (Vec<_>, Vec<_>) = latencies
            .into_iter()
            .partition(|(connection, _)| *connection < of_each);
        quantiles(&format!("{name}, here"), &here, &mut samples);
        if !there.is_empty() {
            quantiles(&format!("{name}, there"), &there, &mut samples);
        }
    }
    Ok(samples)
}

/// One socket joins so many topics.
pub fn topics(server: Server, topics: usize, options: &Options) -> Result<Vec<Sample>> {
    let cluster = Cluster::start(server, 1, options)?;
    let node = &cluster.nodes[0];
    let exchange = Exchange::new(1, Payload::Bytes(20), options.kind, server.echo(), false)?;
    let mut streams = vec![wire::connect_to(TOPICS_PATH, &node.endpoint, false)?.stream];
    echo_each(&mut streams, &exchange.windows[0])?;
    thread::sleep(SETTLING);
    let broker_memory = || match &cluster.broker {
        Some(broker) => broker.process.resident(),
        None => Ok(0),
    };
    let (resident, of_broker) = (settled(node)?, broker_memory()?);
    let before = cluster.account()?;
    let start = Instant::now();
    let rounds = topics.div_ceil(TOPICS);
    for _ in 0..rounds {
        echo_each(&mut streams, &exchange.windows[0])?;
    }
    let elapsed = start.elapsed();
    let after = cluster.account()?;
    let topics = rounds * TOPICS;
    let each = |what: &str, seconds: f64| Sample {
        row: format!("topics, {what}"),
        cost: seconds * 1e9 / topics as f64,
        unit: Unit::Nanoseconds,
        speed: None,
    };
    let mut samples = vec![
        memory("topics, memory", resident, settled(node)?, topics),
        each("time", elapsed.as_secs_f64()),
        each("CPU", (after.nodes[0] - before.nodes[0]).as_secs_f64()),
    ];
    if cluster.broker.is_some() {
        let broker = (after.broker - before.broker).as_secs_f64();
        samples.push(each("broker CPU", broker));
        let after = broker_memory()?;
        samples.push(memory("topics, broker mem", of_broker, after, topics));
    }
    Ok(samples)
}
