//! A broker without a network, for tests of applications.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::broker::{Broker, Commands, Messages};
use crate::BoxError;

/// A broker within the process: several hubs with clones of one behave as if on several machines.
///
/// It is for tests. What a receiver has not taken is held without bound.
#[derive(Clone, Debug, Default)]
pub struct InProcess(Arc<Mutex<Channels>>);

type Subscriber = UnboundedSender<(String, Bytes)>;

#[derive(Debug, Default)]
struct Channels {
    last: u64,
    by_name: HashMap<String, Vec<(u64, Subscriber)>>,
}

impl InProcess {
    /// A broker that nobody is connected to.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many subscriptions there are to a channel.
    pub fn subscriptions(&self, channel: &str) -> usize {
        self.lock().by_name.get(channel).map_or(0, Vec::len)
    }

    /// The channels that somebody has subscribed to, in no order.
    pub fn channels(&self) -> Vec<String> {
        self.lock().by_name.keys().cloned().collect()
    }

    /// Publishes a payload, as some other program may do.
    pub fn publish(&self, channel: &str, payload: impl Into<Bytes>) {
        let payload = payload.into();
        let channels = self.lock();
        for (_, subscriber) in channels.by_name.get(channel).into_iter().flatten() {
            let _ = subscriber.send((channel.to_owned(), payload.clone()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Channels> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Broker for InProcess {
    type Commands = InProcessCommands;
    type Messages = InProcessMessages;

    async fn connect(&self) -> Result<(InProcessCommands, InProcessMessages), BoxError> {
        let (sender, receiver) = unbounded_channel();
        let number = {
            let mut channels = self.lock();
            channels.last += 1;
            channels.last
        };
        let commands = InProcessCommands {
            broker: self.clone(),
            number,
            sender,
        };
        Ok((commands, InProcessMessages(receiver)))
    }
}

/// A connection to [`InProcess`].
#[derive(Debug)]
pub struct InProcessCommands {
    broker: InProcess,
    number: u64,
    sender: Subscriber,
}

impl Commands for InProcessCommands {
    async fn subscribe(&mut self, channels: &[String]) -> Result<(), BoxError> {
        let mut all = self.broker.lock();
        for channel in channels {
            let subscribers = all.by_name.entry(channel.clone()).or_default();
            subscribers.push((self.number, self.sender.clone()));
        }
        Ok(())
    }

    async fn unsubscribe(&mut self, channels: &[String]) -> Result<(), BoxError> {
        let mut all = self.broker.lock();
        all.by_name.retain(|channel, subscribers| {
            if channels.contains(channel) {
                subscribers.retain(|(number, _)| *number != self.number);
            }
            !subscribers.is_empty()
        });
        Ok(())
    }

    async fn publish(&mut self, batch: &[(String, Bytes)]) -> Result<(), BoxError> {
        for (channel, payload) in batch {
            self.broker.publish(channel, payload.clone());
        }
        Ok(())
    }
}

impl Drop for InProcessCommands {
    fn drop(&mut self) {
        let mut all = self.broker.lock();
        all.by_name.retain(|_, subscribers| {
            subscribers.retain(|(number, _)| *number != self.number);
            !subscribers.is_empty()
        });
    }
}

/// What arrives from [`InProcess`].
#[derive(Debug)]
pub struct InProcessMessages(UnboundedReceiver<(String, Bytes)>);

impl Messages for InProcessMessages {
    async fn recv(&mut self) -> Result<(String, Bytes), BoxError> {
        let received = self.0.recv().await;
        received.ok_or_else(|| "the connection has ended".into())
    }
}
