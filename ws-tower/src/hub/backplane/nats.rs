//! Core NATS: subjects, without `JetStream`.

use std::{
    collections::HashMap,
    fmt::{self, Write},
    future::{poll_fn, ready},
    sync::Arc,
    task::{Context, Poll},
};

use async_nats::{Client, ConnectOptions, Event, Subscriber};
use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{AbortHandle, BoxStream, SelectAll, abortable},
};
use tokio::sync::mpsc;

use super::broker::{Broker, Commands, Messages};
use crate::BoxError;

/// A NATS server, or a cluster of them.
///
/// It makes one connection. A message counts as sent when it has been written to it: what the
/// server says comes back with the heartbeat only.
#[derive(Clone)]
pub struct Nats {
    addresses: Vec<String>,
    options: Arc<Options>,
}

type Options = dyn Fn() -> ConnectOptions + Send + Sync;

impl Nats {
    /// Servers by their URLs, `nats://[user:password@]host[:port]` or `tls://`, with commas between
    /// them: any one of a cluster. It does not connect yet.
    pub fn new(addresses: &str) -> Self {
        Self::with_options(addresses, ConnectOptions::new)
    }

    /// The same, with options for authentication and TLS. They are made for each connection.
    /// The backplane connects again by itself, so `max_reconnects` and `event_callback` are
    /// its own.
    pub fn with_options(
        addresses: &str,
        options: impl Fn() -> ConnectOptions + Send + Sync + 'static,
    ) -> Self {
        let addresses = addresses.split(',').map(|it| it.trim().to_owned());
        Self {
            addresses: addresses.collect(),
            options: Arc::new(options),
        }
    }
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An address may have a password.
        f.debug_struct("Nats")
            .field("addresses", &self.addresses.len())
            .finish_non_exhaustive()
    }
}

impl Broker for Nats {
    type Commands = NatsCommands;
    type Messages = NatsMessages;

    async fn connect(&self) -> Result<(NatsCommands, NatsMessages), BoxError> {
        let (news, receiver) = mpsc::unbounded_channel();
        let lost = news.clone();
        let options = (self.options)()
            // It tries once more in the background, finds nobody who wants it, and ends.
            .max_reconnects(1)
            .event_callback(move |event| {
                if matches!(event, Event::Disconnected | Event::Closed) {
                    let _ = lost.send(News::Lost);
                }
                ready(())
            });
        let client = options.connect(self.addresses.clone()).await?;
        let commands = NatsCommands {
            client,
            news,
            subscriptions: HashMap::new(),
        };
        let messages = NatsMessages {
            subscribers: SelectAll::new(),
            news: receiver,
        };
        Ok((commands, messages))
    }
}

/// What the receiving half is to know.
enum News {
    Subscribed(BoxStream<'static, (String, Bytes)>),
    Lost,
}

/// The commands of a connection to [`Nats`].
pub struct NatsCommands {
    client: Client,
    news: mpsc::UnboundedSender<News>,
    subscriptions: HashMap<String, AbortHandle>,
}

impl Commands for NatsCommands {
    fn max_payload(&self) -> usize {
        self.client.server_info().max_payload
    }

    async fn subscribe(&mut self, channels: &[String]) -> Result<(), BoxError> {
        for channel in channels {
            let subscriber: Subscriber = self.client.subscribe(subject(channel)).await?;
            let name = channel.clone();
            let payloads = subscriber.map(move |message| (name.clone(), message.payload));
            let (payloads, handle) = abortable(payloads);
            self.subscriptions.insert(channel.clone(), handle);
            let _ = self.news.send(News::Subscribed(payloads.boxed()));
        }
        self.client.flush().await?;
        Ok(())
    }

    async fn unsubscribe(&mut self, channels: &[String]) -> Result<(), BoxError> {
        for channel in channels {
            if let Some(handle) = self.subscriptions.remove(channel) {
                // Its stream ends, and is dropped by who polls it: that unsubscribes.
                handle.abort();
            }
        }
        Ok(())
    }

    async fn publish(&mut self, batch: &[(String, Bytes)]) -> Result<(), BoxError> {
        for (channel, payload) in batch {
            let subject = subject(channel);
            self.client.publish(subject, payload.clone()).await?;
        }
        self.client.flush().await?;
        Ok(())
    }
}

impl fmt::Debug for NatsCommands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsCommands").finish_non_exhaustive()
    }
}

/// What arrives from [`Nats`].
pub struct NatsMessages {
    subscribers: SelectAll<BoxStream<'static, (String, Bytes)>>,
    news: mpsc::UnboundedReceiver<News>,
}

impl NatsMessages {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<(String, Bytes), BoxError>> {
        while let Poll::Ready(news) = self.news.poll_recv(cx) {
            match news {
                Some(News::Subscribed(subscriber)) => self.subscribers.push(subscriber),
                Some(News::Lost) | None => {
                    return Poll::Ready(Err("the connection has ended".into()));
                }
            }
        }
        match self.subscribers.poll_next_unpin(cx) {
            Poll::Ready(Some(received)) => Poll::Ready(Ok(received)),
            // There is nobody to hear yet.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Messages for NatsMessages {
    async fn recv(&mut self) -> Result<(String, Bytes), BoxError> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }
}

impl fmt::Debug for NatsMessages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsMessages").finish_non_exhaustive()
    }
}

/// A subject for a channel. `:` becomes the dot between tokens while that makes no empty one, so
/// that permissions can name `ws.topic.>`; what a token may not have is escaped by `=` and two
/// digits.
fn subject(channel: &str) -> String {
    let mut subject = String::with_capacity(channel.len() + 8);
    // The prefix, what it is, and whose.
    let tokens = channel.splitn(3, ':');
    for token in tokens {
        if !subject.is_empty() {
            subject.push('.');
        }
        if token.is_empty() {
            subject.push('=');
        }
        for byte in token.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
                subject.push(char::from(byte));
            } else {
                let _ = write!(subject, "={byte:02x}");
            }
        }
    }
    subject
}

#[cfg(test)]
mod tests {
    use super::subject;

    #[test]
    fn a_channel_of_any_text_is_a_subject_of_plain_tokens() {
        assert_eq!(subject("ws:nodes"), "ws.nodes");
        assert_eq!(subject("ws:topic:lobby"), "ws.topic.lobby");
        assert_eq!(subject("ws:topic:a:b.c"), "ws.topic.a=3ab=2ec");
        assert_eq!(subject("ws:topic:"), "ws.topic.=");
        assert_eq!(subject("ws:topic:="), "ws.topic.=3d");
        assert_eq!(subject("ws:topic:> *\r\n"), "ws.topic.=3e=20=2a=0d=0a");
    }
}
