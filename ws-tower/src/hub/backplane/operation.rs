//! For whoever runs the broker: users, TLS, clusters, and what to watch.
//!
//! What stands on this page is tested as it stands, with Redis 7.0 and nats-server 2.9
//! (`tests/full.sh backplane`), but for NATS keys and JWTs, the roots of the system, a name that a
//! cluster announces, and a single Redis that another one takes over from.
//!
//! # Users and passwords
//!
//! Who may publish to the broker may publish to every topic, so give it users. The prefix `ws` is
//! that of [`Backplane::prefix`](super::Backplane::prefix).
//!
//! **Redis.** A user that may do what a hub does, and nothing else, is this line of the ACL file;
//! behind `ACL SETUSER` it is the same without its first word:
//!
//! ```text
#![doc = include_str!("operation/redis.acl")]
//! ```
//!
//! The same for a [cluster](#clusters), on each of its servers:
//!
//! ```text
#![doc = include_str!("operation/redis-cluster.acl")]
//! ```
//!
//! The URL is `redis://ws:secret@10.0.0.7`. To change a password give the user a second one
//! (`ACL SETUSER ws >new`), restart the nodes with it, and take the first away (`<old`).
//!
//! **NATS.** In the server's configuration:
//!
//! ```text
#![doc = include_str!("operation/nats.conf")]
//! ```
//!
//! The URL is `nats://ws:secret@10.0.0.7`, or `nats://TOKEN@10.0.0.7` for a token. Keys, JWTs
//! and passwords that change are in
#![cfg_attr(
    feature = "nats",
    doc = "[`Nats::with_options`](super::Nats::with_options);"
)]
#![cfg_attr(not(feature = "nats"), doc = "`Nats::with_options`;")]
//! keys and JWTs need the feature `nkeys` of the crate `async-nats`, which the application turns on.
//!
//! **What is refused is told.** A wrong password leaves the hub alone: it works by itself, tries
//! again, counts [`failed_connects`](super::BackplaneStats::failed_connects), and the log has the
//! broker's words. As soon as the broker takes the password, they are together. A channel or
//! subject that the user may not have ends the connection, so it is seen as well: the counter is
//! [`disconnects`](super::BackplaneStats::disconnects). It does so again and again; permit the
//! whole prefix, or whoever names topics decides over the link of all.
//!
//! No password is in what this crate logs, or in a `Debug`. The driver `async-nats` logs its own at
//! the level `TRACE`: keep its target at `debug` or above.
//!
//! # TLS
//!
//! **Redis.** The feature `redis-rustls` and a URL with `rediss://`: the roots are those of the
//! system. A private CA and a certificate of the node's own are given by
#![cfg_attr(
    feature = "redis",
    doc = "[`Redis::with_client`](super::Redis::with_client)"
)]
#![cfg_attr(not(feature = "redis"), doc = "`Redis::with_client`")]
//! and its fellow for a cluster.
//!
//! **NATS.** A URL with `tls://`, with the roots of the system. A private CA
//! (`add_root_certificates`) and a certificate of the node's own (`add_client_certificate`) are
//! given by `Nats::with_options`.
//!
//! Both are rustls with the process's provider of cryptography; a process that has none yet gets
//! ring. A server with a certificate that does not fit is not connected to, and the log says
//! what is wrong with it.
//!
//! # Clusters
//!
//! **Redis.** In a cluster plain pub/sub goes to every server of it, so more servers bring no
//! more room.
#![cfg_attr(feature = "redis", doc = "[`RedisCluster`](super::RedisCluster)")]
#![cfg_attr(not(feature = "redis"), doc = "`RedisCluster`")]
//! uses sharded pub/sub, of Redis 7: each topic is on one master. It does not use the cluster
//! client of the crate `redis`, which connects again by itself and sends again what was redirected,
//! each command for itself: then order is not kept, and losses are not seen when they happen.
//! Instead there are two connections to each master, and any of them that ends, or any redirection,
//! ends all:
//!
//! | it happens | the hubs |
//! |---|---|
//! | a slot moves to another master | are told so by the server, and connect again: some milliseconds |
//! | a master dies and has a replica | are alone until that has taken over: `cluster-node-timeout`, 15 s by default, and a second or two |
//! | a master dies and has none | are alone until it is back |
//! | a master is cut off from the others, and from nobody else | notice within 10 seconds of its own noticing, and connect again |
//!
//! While they are alone, messages wait for the [deadline](super::Backplane::deadline), and what is
//! lost is counted and told. It is the whole of the backplane that waits, not a shard of it: more
//! masters bring more room, and not fewer interruptions. A certificate has to be for the address that
//! the cluster announces (`cluster-announce-hostname` with `cluster-preferred-endpoint-type
//! hostname` makes it a name).
//!
//! A single Redis with a replica takes over by address: the node connects again to the same URL.
//! Sentinel is not asked.
//!
//! **NATS.** A cluster divides subscribers between its servers and carries messages to where they
//! are. Name several in `Nats::new`; when the server of a node dies, it goes on with another. The
//! order of one publisher is kept as long as its route stands; numbers that are late are not
//! delivered, and were told as missing.
//!
//! # What to watch
//!
//! | counter | says |
//! |---|---|
//! | [`connected`](super::BackplaneStats::connected) | 0: this node is alone |
//! | `failed_connects`, `disconnects` | the log says why |
//! | [`missed`](super::BackplaneStats::missed) | members here were told that they have missed something |
//! | [`expired`](super::BackplaneStats::expired), [`overflowed`](super::BackplaneStats::overflowed) | the broker is away, or slower than what is published |
//! | [`forgotten`](super::BackplaneStats::forgotten) | more topics are used and left than a node remembers |
//! | [`nodes`](super::BackplaneStats::nodes) | how many others are heard: the same number everywhere |
