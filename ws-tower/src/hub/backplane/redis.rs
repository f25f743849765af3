//! Redis: its pub/sub, and that of servers that speak the same protocol.

use std::fmt;

use bytes::Bytes;
use futures_util::StreamExt;
use redis::{
    AsyncConnectionConfig, Client, Msg,
    aio::{MultiplexedConnection, PubSubSink, PubSubStream},
};

use super::broker::{Broker, Commands, Messages};
use crate::BoxError;

/// A Redis server, or Valkey or another one that speaks its protocol.
///
/// It makes two connections: one subscribes and receives, one publishes. A message counts as
/// sent when the server has answered.
#[derive(Clone, Debug)]
pub struct Redis(Client);

impl Redis {
    /// The server with this URL: `redis://[user:password@]host[:port]`, or `rediss://` for TLS, for
    /// which the application turns on the feature `tokio-rustls-comp` of the crate `redis`. It
    /// does not connect yet.
    ///
    /// # Errors
    ///
    /// The URL is none, or asks for TLS without the feature.
    pub fn new(url: &str) -> Result<Self, BoxError> {
        Ok(Self(Client::open(url)?))
    }
}

impl Broker for Redis {
    type Commands = RedisCommands;
    type Messages = RedisMessages;

    async fn connect(&self) -> Result<(RedisCommands, RedisMessages), BoxError> {
        let (subscriptions, messages) = self.0.get_async_pubsub().await?.split();
        // The backplane has a deadline of its own.
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_connection_timeout(None);
        let client = &self.0;
        let publisher = client.get_multiplexed_async_connection_with_config(&config);
        let commands = RedisCommands {
            subscriptions,
            publisher: publisher.await?,
        };
        Ok((commands, RedisMessages(messages)))
    }
}

/// The commands of a connection to [`Redis`].
pub struct RedisCommands {
    subscriptions: PubSubSink,
    publisher: MultiplexedConnection,
}

impl Commands for RedisCommands {
    fn max_payload(&self) -> usize {
        // `proto-max-bulk-len` by default.
        512 << 20
    }

    async fn subscribe(&mut self, channels: &[String]) -> Result<(), BoxError> {
        for channel in channels {
            self.subscriptions.subscribe(channel).await?;
        }
        Ok(())
    }

    async fn unsubscribe(&mut self, channels: &[String]) -> Result<(), BoxError> {
        for channel in channels {
            self.subscriptions.unsubscribe(channel).await?;
        }
        Ok(())
    }

    async fn publish(&mut self, batch: &[(String, Bytes)]) -> Result<(), BoxError> {
        let mut pipeline = redis::pipe();
        for (channel, payload) in batch {
            pipeline.publish(channel, &payload[..]).ignore();
        }
        let () = pipeline.query_async(&mut self.publisher).await?;
        Ok(())
    }
}

impl fmt::Debug for RedisCommands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCommands").finish_non_exhaustive()
    }
}

/// What arrives from [`Redis`].
pub struct RedisMessages(PubSubStream);

impl Messages for RedisMessages {
    async fn recv(&mut self) -> Result<(String, Bytes), BoxError> {
        let message: Msg = self.0.next().await.ok_or("the connection has ended")?;
        let payload = message.get_payload()?;
        Ok((message.get_channel_name().to_owned(), payload))
    }
}

impl fmt::Debug for RedisMessages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisMessages").finish_non_exhaustive()
    }
}
