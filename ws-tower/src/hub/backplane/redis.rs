//! Redis: its pub/sub, and that of servers that speak the same protocol.

mod cluster;
mod connection;
mod slots;

use std::fmt;

use bytes::Bytes;
use redis::Client;

use self::connection::{Inbox, Server};
pub use self::{
    cluster::{RedisCluster, RedisClusterCommands},
    connection::RedisMessages,
};
use super::broker::{Broker, Commands};
use crate::BoxError;

/// A Redis server of version 6 or later, or Valkey or another one that speaks its protocol, RESP3.
///
/// It makes two connections: one subscribes and receives, one publishes. A message counts as sent when the server has answered.
#[derive(Clone, Debug)]
pub struct Redis(Client);

impl Redis {
    /// The server with this URL: `redis://[user:password@]host[:port]`, or `rediss://` for TLS
    /// with the roots of the system, for which the feature `redis-rustls` has to be on. It does
    /// not connect yet.
    ///
    /// # Errors
    ///
    /// The URL is none, or asks for TLS without the feature. No error has a password in it.
    pub fn new(url: &str) -> Result<Self, BoxError> {
        Ok(Self::with_client(Client::open(url)?))
    }

    /// The server of a client of the crate `redis`, which is where a private CA and a client's
    /// certificate can be given:
    ///
    /// ```
    /// use ws_tower::hub::backplane::Redis;
    ///
    /// # fn connect(ca: Vec<u8>) -> Result<Redis, ws_tower::BoxError> {
    /// let client = redis::Client::build_with_tls(
    ///     "rediss://ws:secret@broker.internal:6379",
    ///     redis::TlsCertificates { root_cert: Some(ca), client_tls: None }, // PEM
    /// )?;
    /// let broker = Redis::with_client(client);
    /// # Ok(broker)
    /// # }
    /// ```
    pub fn with_client(client: Client) -> Self {
        Self(client)
    }
}

impl Broker for Redis {
    type Commands = RedisCommands;
    type Messages = RedisMessages;

    async fn connect(&self) -> Result<(RedisCommands, RedisMessages), BoxError> {
        let (inbox, messages) = Inbox::new();
        let server = Server::connect(self.0.get_connection_info(), inbox).await?;
        Ok((RedisCommands(server), messages))
    }
}

/// The commands of a connection to [`Redis`].
pub struct RedisCommands(Server);

impl Commands for RedisCommands {
    fn max_payload(&self) -> usize {
        MAX_PAYLOAD
    }

    async fn subscribe(&mut self, channels: &[String]) -> Result<(), BoxError> {
        Ok(self.0.subscriber.subscribe(channels).await?)
    }

    async fn unsubscribe(&mut self, channels: &[String]) -> Result<(), BoxError> {
        self.0.leave(channels);
        Ok(self.0.subscriber.unsubscribe(channels).await?)
    }

    async fn publish(&mut self, batch: &[(String, Bytes)]) -> Result<(), BoxError> {
        let mut pipeline = redis::pipe();
        for (channel, payload) in batch {
            pipeline.publish(channel, &payload[..]).ignore();
        }
        let () = pipeline.query_async(&mut self.0.publisher).await?;
        Ok(())
    }
}

impl fmt::Debug for RedisCommands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCommands").finish_non_exhaustive()
    }
}

/// `proto-max-bulk-len` of a server by default.
const MAX_PAYLOAD: usize = 512 << 20;
