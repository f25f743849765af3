//! The connections to a server: commands go in, and what is published comes out of a queue.

use std::{
    collections::HashSet,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures_util::future::try_join;
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, ProtocolVersion, PushInfo, PushKind, Value,
    aio::MultiplexedConnection,
};
use tokio::sync::mpsc;

use crate::{BoxError, hub::backplane::broker::Messages};

/// A server. It has two connections: on one alone the answers to what is published would wait
/// behind all that arrives, and a burst would look like a server that does not answer.
pub(super) struct Server {
    pub(super) subscriber: MultiplexedConnection,
    pub(super) publisher: MultiplexedConnection,
    inbox: Inbox,
}

impl Server {
    pub(super) async fn connect(info: &ConnectionInfo, inbox: Inbox) -> Result<Self, BoxError> {
        let subscriber = connect(info, inbox.clone());
        let publisher = connect(info, inbox.clone());
        let (subscriber, publisher) = try_join(subscriber, publisher).await?;
        Ok(Self {
            subscriber,
            publisher,
            inbox,
        })
    }

    /// The server will say that these have ended, and that is as it should be.
    pub(super) fn leave(&self, channels: &[String]) {
        self.inbox.leaving().extend(channels.iter().cloned());
    }
}

/// Connects once. What the server pushes goes to the inbox, the end of the connection included.
pub(super) async fn connect(
    info: &ConnectionInfo,
    inbox: Inbox,
) -> Result<MultiplexedConnection, BoxError> {
    #[cfg(feature = "redis-rustls")]
    if matches!(info.addr(), redis::ConnectionAddr::TcpTls { .. }) {
        provide_crypto();
    }
    // Subscriptions and commands on one connection need the protocol's third version.
    let settings = info.redis_settings().clone();
    let settings = settings.set_protocol(ProtocolVersion::RESP3);
    let info = info.clone().set_redis_settings(settings);
    // The backplane has a deadline of its own.
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(None)
        .set_connection_timeout(None)
        .set_push_sender(move |push| {
            inbox.push(push);
            Ok::<_, BoxError>(())
        });
    let client = Client::open(info)?;
    let connection = client.get_multiplexed_async_connection_with_config(&config);
    Ok(connection.await?)
}

/// rustls panics when it has to choose between several providers of cryptography, and another
/// crate may have brought a second one.
#[cfg(feature = "redis-rustls")]
fn provide_crypto() {
    use rustls::crypto::{CryptoProvider, ring};

    if CryptoProvider::get_default().is_none() {
        // Another thread may have been faster.
        let _ = ring::default_provider().install_default();
    }
}

/// Where a connection puts what the server pushes. Clones share the queue.
#[derive(Clone)]
pub(super) struct Inbox {
    sender: mpsc::UnboundedSender<News>,
    /// Bytes that nobody has taken yet.
    waiting: Arc<AtomicUsize>,
    /// Channels that are being given up. Others that the server ends have moved away.
    leaving: Arc<Mutex<HashSet<String>>>,
}

enum News {
    Payload(String, Bytes),
    Lost(String),
}

impl Inbox {
    /// A queue, and the way into it for a first connection.
    pub(super) fn new() -> (Self, RedisMessages) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let inbox = Self {
            sender,
            waiting: Arc::clone(&waiting),
            leaving: Arc::default(),
        };
        (inbox, RedisMessages { receiver, waiting })
    }

    /// The way into the same queue for another connection.
    pub(super) fn of_another(&self) -> Self {
        Self {
            leaving: Arc::default(),
            ..self.clone()
        }
    }

    fn push(&self, push: PushInfo) {
        let PushInfo { kind, data } = push;
        let mut data = data.into_iter();
        match kind {
            PushKind::Message | PushKind::SMessage => {
                if let (Some(channel), Some(Value::BulkString(payload))) =
                    (data.next().and_then(text), data.next())
                {
                    let len = size(&channel, &payload);
                    let waiting = self.waiting.fetch_add(len, Ordering::Relaxed);
                    if waiting <= MAX_WAITING {
                        self.tell(News::Payload(channel, payload.into()));
                    } else if waiting <= MAX_WAITING + len {
                        // Once, for what is thrown away counts too.
                        self.tell(News::Lost("this node does not keep up with it".into()));
                    }
                }
            }
            PushKind::Unsubscribe | PushKind::SUnsubscribe => {
                let channel = data.next().and_then(text).unwrap_or_default();
                if !self.leaving().remove(&channel) {
                    let lost = format!("the server has ended the subscription to {channel}");
                    self.tell(News::Lost(lost));
                }
            }
            PushKind::Disconnection => self.tell(News::Lost("the connection has ended".into())),
            _ => {}
        }
    }

    fn tell(&self, news: News) {
        // Nobody is there while both halves are dropped.
        let _ = self.sender.send(news);
    }

    fn leaving(&self) -> MutexGuard<'_, HashSet<String>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::BulkString(text) => String::from_utf8(text).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// What a payload counts in the queue, in bytes.
fn size(channel: &str, payload: &[u8]) -> usize {
    channel.len() + payload.len() + OVERHEAD
}

/// What arrives from [`Redis`](super::Redis) or [`RedisCluster`](super::RedisCluster).
///
/// It holds 64 MiB that nobody has taken, and ends when there is more.
pub struct RedisMessages {
    receiver: mpsc::UnboundedReceiver<News>,
    waiting: Arc<AtomicUsize>,
}

impl Messages for RedisMessages {
    async fn recv(&mut self) -> Result<(String, Bytes), BoxError> {
        match self.receiver.recv().await {
            Some(News::Payload(channel, payload)) => {
                let len = size(&channel, &payload);
                self.waiting.fetch_sub(len, Ordering::Relaxed);
                Ok((channel, payload))
            }
            Some(News::Lost(why)) => Err(why.into()),
            None => Err("the connection has ended".into()),
        }
    }
}

impl fmt::Debug for RedisMessages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisMessages").finish_non_exhaustive()
    }
}

/// Bytes that may wait: the driver reads whatever the server sends, so the server's own limit for
/// slow subscribers does not protect this process. Twice that limit's default.
const MAX_WAITING: usize = 64 << 20;

/// What a payload takes beside itself and its channel's name.
const OVERHEAD: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn published(channel: &str, payload: Vec<u8>) -> PushInfo {
        let channel = Value::BulkString(channel.into());
        PushInfo {
            kind: PushKind::SMessage,
            data: vec![channel, Value::BulkString(payload)],
        }
    }

    fn ended(channel: &str) -> PushInfo {
        PushInfo {
            kind: PushKind::SUnsubscribe,
            data: vec![Value::BulkString(channel.into()), Value::Int(0)],
        }
    }

    #[tokio::test]
    async fn what_nobody_takes_is_bounded_and_ends_the_connection() {
        let (inbox, mut messages) = Inbox::new();
        for _ in 0..200 {
            inbox.push(published("ws:topic:a", vec![0; 1 << 20]));
        }
        let mut came = 0;
        let error = loop {
            match messages.recv().await {
                Ok(_) => came += 1,
                Err(error) => break error.to_string(),
            }
        };
        assert_eq!(came, 64);
        assert!(error.contains("keep up"), "{error}");
    }

    #[tokio::test]
    async fn what_is_taken_makes_room() {
        let (inbox, mut messages) = Inbox::new();
        for _ in 0..200 {
            inbox.push(published("ws:topic:a", vec![0; 1 << 20]));
            messages.recv().await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_subscription_that_the_server_ends_is_an_error_and_one_that_we_end_is_none() {
        let (inbox, mut messages) = Inbox::new();
        inbox.leaving().insert("ws:topic:a".to_owned());
        inbox.push(ended("ws:topic:a"));
        inbox.push(published("ws:topic:b", b"still here".to_vec()));
        assert_eq!(messages.recv().await.unwrap().0, "ws:topic:b");
        inbox.push(ended("ws:topic:b"));
        let error = messages.recv().await.unwrap_err().to_string();
        assert!(error.ends_with("ws:topic:b"), "{error}");
    }
}
