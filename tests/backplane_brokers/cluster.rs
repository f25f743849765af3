//! Clusters: several servers that are one broker.

use std::{collections::HashMap, time::Duration};

use tokio::time::{sleep, timeout};
use ws_tests::broker::{Broker, Kind, free_port, write};
use ws_tower::hub::backplane::{Nats, RedisCluster};

use super::node::{BEAT, Node, Publisher, SOON, all_come_in_order, ask, backplane, three, until};

/// Redis: each topic is on one of the masters.
mod masters {
    use super::*;

    const ACL: &str = include_str!("../../ws-tower/src/hub/backplane/operation/redis-cluster.acl");

    /// Three masters, and a replica if asked for.
    struct Cluster {
        servers: Vec<Broker>,
    }

    /// How many milliseconds servers bear the silence of another: few where one is killed, and else
    /// more than a busy machine takes.
    const FEW: &str = "1000";
    const MANY: &str = "30000";

    impl Cluster {
        async fn start(replicas: usize, patience: &str) -> Self {
            let mut servers = Vec::new();
            for _ in 0..3 + replicas {
                let started = Broker::start_with(Kind::Redis, |directory, _| {
                    let acl = write(directory, "users.acl", ACL);
                    let bus = free_port().to_string();
                    [
                        ["--aclfile", &acl],
                        ["--cluster-enabled", "yes"],
                        ["--cluster-port", &bus],
                        ["--cluster-node-timeout", patience],
                        ["--repl-diskless-sync-delay", "0"],
                    ]
                    .concat()
                    .into_iter()
                    .map(Into::into)
                    .collect()
                });
                servers.push(started.await);
            }
            let addresses = servers[..3]
                .iter()
                .map(|it| format!("127.0.0.1:{}", it.port));
            let made = tokio::process::Command::new("redis-cli")
                .args(["--cluster", "create", "--cluster-yes"])
                .args(addresses)
                .output()
                .await
                .unwrap();
            assert!(made.status.success(), "{made:?}");
            let cluster = Self { servers };
            for server in &cluster.servers[3..] {
                let bus = cluster.bus_of(&cluster.servers[0]).await;
                let port = cluster.servers[0].port.to_string();
                let meet = ["CLUSTER", "MEET", "127.0.0.1", &port, &bus];
                let () = ask(server, &meet).await;
            }
            cluster.is_well().await;
            cluster
        }

        async fn bus_of(&self, server: &Broker) -> String {
            let all: String = ask(server, &["CLUSTER", "NODES"]).await;
            let own = all.lines().find(|it| it.contains("myself")).unwrap();
            let (_, bus) = own.split_once('@').unwrap();
            bus.split([' ', ',']).next().unwrap().to_owned()
        }

        async fn id_of(&self, server: &Broker) -> String {
            ask(server, &["CLUSTER", "MYID"]).await
        }

        /// All servers that run agree.
        async fn is_well(&self) {
            let known = format!("cluster_known_nodes:{}", self.servers.len());
            for server in &self.servers {
                let mut state = String::new();
                for _ in 0..1000 {
                    state = ask(server, &["CLUSTER", "INFO"]).await;
                    if state.contains("cluster_state:ok") && state.contains(&known) {
                        break;
                    }
                    sleep(Duration::from_millis(20)).await;
                }
                let is_well = state.contains("cluster_state:ok") && state.contains(&known);
                assert!(is_well, "{state}");
            }
        }

        fn broker(&self) -> RedisCluster {
            let urls = self.servers.iter().map(|it| it.url_of("ws:secret@"));
            RedisCluster::new(urls).unwrap()
        }

        /// What the hubs' user hears of a command that it may not give.
        async fn refusal(&self, command: &str) -> String {
            let port = self.servers[0].port.to_string();
            let user = ["--user", "ws", "--pass", "secret", "--no-auth-warning"];
            let asked = tokio::process::Command::new("redis-cli")
                .args(["-p", &port])
                .args(user)
                .args(command.split(' '))
                .output();
            String::from_utf8(asked.await.unwrap().stdout).unwrap()
        }

        /// The channels that each server has.
        async fn channels(&self) -> Vec<Vec<String>> {
            let mut all = Vec::new();
            for server in &self.servers {
                all.push(ask(server, &["PUBSUB", "SHARDCHANNELS"]).await);
            }
            all
        }

        /// The place of the server that has the channel of the topic `lobby`.
        async fn home(&self) -> usize {
            let channels = self.channels().await;
            let has = |it: &Vec<String>| it.iter().any(|it| it == "ws:topic:lobby");
            channels.iter().position(has).unwrap()
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs a broker: tests/full.sh"]
    async fn divides_topics_between_its_servers_and_keeps_their_order() {
        const TOPICS: usize = 30;
        const COUNT: usize = 400;
        let cluster = Cluster::start(0, MANY).await;
        let mut nodes = three(|_| Node::patient(cluster.broker())).await;
        let mut joined = Vec::new();
        for node in &nodes {
            for topic in 0..TOPICS {
                joined.push(node.hub.join(&format!("{topic}"), &node.server));
            }
            for topic in 0..TOPICS {
                let topic = format!("{topic}");
                timeout(SOON, node.hub.subscribed(&topic)).await.unwrap();
            }
        }
        for command in [
            "SET ws:a b",
            "SUBSCRIBE ws:a",
            "SPUBLISH a b",
            "CLUSTER NODES",
        ] {
            let refused = cluster.refusal(command).await;
            assert!(refused.contains("NOPERM"), "{command}: {refused}");
        }
        let channels = cluster.channels().await;
        // And the lobby, the channel of all nodes, and one for each of them.
        assert_eq!(channels.iter().map(Vec::len).sum::<usize>(), TOPICS + 5);
        assert!(channels.iter().all(|it| it.len() > 5), "{channels:?}");

        for (name, node) in nodes.iter().enumerate() {
            let hub = node.hub.clone();
            tokio::spawn(async move {
                for count in 0..COUNT {
                    for topic in 0..TOPICS {
                        hub.publish(&format!("{topic}"), format!("{name}/{topic} {count}"));
                    }
                    sleep(Duration::from_millis(2)).await;
                }
            });
        }
        for node in &mut nodes {
            let mut next: HashMap<String, usize> = HashMap::new();
            for _ in 0..3 * TOPICS * COUNT {
                let text = node.text().await;
                let (stream, count) = text.split_once(' ').unwrap();
                let next = next.entry(stream.to_owned()).or_default();
                assert_eq!(count.parse::<usize>().unwrap(), *next, "of {stream}");
                *next += 1;
            }
            assert_eq!(next.len(), 3 * TOPICS);
        }
        for node in &nodes {
            let stats = node.stats();
            assert_eq!((stats.missed, stats.repeated, stats.refused), (0, 0, 0));
            assert_eq!(stats.received, (2 * TOPICS * COUNT) as u64);
            assert_eq!((stats.disconnects, stats.failed_connects), (0, 0));
        }
        drop(joined);
        for _ in 0..3000 {
            if cluster.channels().await.concat().len() == 5 {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("subscriptions are left: {:?}", cluster.channels().await);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs a broker: tests/full.sh"]
    async fn whose_master_is_killed_and_started_again_loses_what_is_counted() {
        let mut cluster = Cluster::start(0, FEW).await;
        let mut nodes = three(|_| Node::of(cluster.broker())).await;
        let publisher = Publisher::start(&nodes);
        sleep(Duration::from_secs(1)).await;
        let home = cluster.home().await;
        cluster.servers[home].kill();
        sleep(Duration::from_secs(3)).await;
        cluster.servers[home].restart().await;
        cluster.is_well().await;
        assert!(publisher.all_are_accounted_for(&mut nodes).await > 0);
        assert!(nodes.iter().all(|it| it.stats().disconnects >= 1));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs a broker: tests/full.sh"]
    async fn goes_on_with_the_replica_of_a_master_that_is_killed() {
        let mut cluster = Cluster::start(1, FEW).await;
        let mut nodes = three(|_| Node::of(cluster.broker())).await;
        let home = cluster.home().await;
        let master = cluster.id_of(&cluster.servers[home]).await;
        let replica = &cluster.servers[3];
        let () = ask(replica, &["CLUSTER", "REPLICATE", &master]).await;
        let mut info = String::new();
        for _ in 0..1500 {
            info = ask(replica, &["INFO", "replication"]).await;
            if info.contains("master_link_status:up") {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        assert!(info.contains("master_link_status:up"), "{info}");
        let publisher = Publisher::start(&nodes);
        sleep(Duration::from_secs(1)).await;
        cluster.servers[home].kill();
        publisher.all_are_accounted_for(&mut nodes).await;
        let channels: Vec<String> = ask(&cluster.servers[3], &["PUBSUB", "SHARDCHANNELS"]).await;
        assert!(
            channels.iter().any(|it| it == "ws:topic:lobby"),
            "{channels:?}"
        );
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs a broker: tests/full.sh"]
    async fn whose_master_takes_it_for_down_is_given_up_even_if_nothing_is_sent_there() {
        let cluster = Cluster::start(0, MANY).await;
        let node = Node::of(cluster.broker());
        node.ready().await;
        let channels = cluster.channels().await;
        let beats = |it: &Vec<String>| it.iter().any(|it| it == "ws:nodes");
        let silent = channels.iter().position(|it| !beats(it)).unwrap();
        // What there was to say of the member that has joined.
        sleep(BEAT * 5).await;
        // The first slot of its share: from now on it knows of no master for it.
        let slot = ["0", "5461", "10923"][silent];
        let forget = ["CLUSTER", "DELSLOTS", slot];
        let () = ask(&cluster.servers[silent], &forget).await;
        until("it is noticed", || node.stats().disconnects >= 1).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs a broker: tests/full.sh"]
    async fn moves_a_slot_and_the_hubs_follow() {
        let cluster = Cluster::start(0, MANY).await;
        let mut nodes = three(|_| Node::of(cluster.broker())).await;
        let from = cluster.home().await;
        let to = (from + 1) % 3;
        let publisher = Publisher::start(&nodes);
        sleep(Duration::from_secs(1)).await;
        let key = ["CLUSTER", "KEYSLOT", "ws:topic:lobby"];
        let slot: u64 = ask(&cluster.servers[0], &key).await;
        let slot = slot.to_string();
        let (source, target) = (&cluster.servers[from], &cluster.servers[to]);
        let old = cluster.id_of(source).await;
        let new = cluster.id_of(target).await;
        let set = ["CLUSTER", "SETSLOT", &*slot];
        let () = ask(target, &[&set[..], &["IMPORTING", &old]].concat()).await;
        let () = ask(source, &[&set[..], &["MIGRATING", &new]].concat()).await;
        sleep(Duration::from_millis(500)).await;
        for server in [target, source, &cluster.servers[(from + 2) % 3]] {
            let () = ask(server, &[&set[..], &["NODE", &new]].concat()).await;
        }
        publisher.all_are_accounted_for(&mut nodes).await;
        assert_eq!(cluster.home().await, to);
        assert!(nodes.iter().all(|it| it.stats().disconnects >= 1));
    }
}

/// NATS: messages go from server to server.
mod routes {
    use super::*;

    /// Two servers with a route between them.
    async fn cluster() -> [Broker; 2] {
        let routes = [free_port(), free_port()];
        let server = |own: u16, other: u16| {
            Broker::start_with(Kind::Nats, move |_, _| {
                let own = format!("nats://127.0.0.1:{own}");
                let other = format!("nats://127.0.0.1:{other}");
                let words = [
                    "--cluster_name",
                    "ws",
                    "--cluster",
                    &own,
                    "--routes",
                    &other,
                ];
                words.map(Into::into).into()
            })
        };
        let [first, second] = routes;
        [server(first, second).await, server(second, first).await]
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs a broker: tests/full.sh"]
    async fn keeps_the_order_between_nodes_on_different_servers() {
        let servers = cluster().await;
        let node = |name: usize| Node::patient(backplane(Kind::Nats, &servers[name % 2].url()));
        all_come_in_order(three(node).await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs a broker: tests/full.sh"]
    async fn goes_on_without_a_server_that_is_killed() {
        let [mut first, second] = cluster().await;
        let both = format!("{},{}", first.url(), second.url());
        let mut nodes = three(|_| Node::of(Nats::new(&both))).await;
        let publisher = Publisher::start(&nodes);
        sleep(Duration::from_secs(1)).await;
        first.kill();
        publisher.all_are_accounted_for(&mut nodes).await;
        for node in &nodes {
            until("all see all", || node.hub.member_count("lobby") == 3).await;
        }
    }
}
