//! A broker for hubs in one process that can be cut, stalled and made to lose messages.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::watch;
use ws_tower::{
    BoxError,
    hub::backplane::{Broker, Commands, InProcess, Messages},
};

/// A broker with faults.
#[derive(Clone, Debug)]
pub struct Faulty {
    broker: InProcess,
    /// Connections of an older generation are cut.
    generation: watch::Sender<u64>,
    /// No new connections.
    pub is_down: Arc<AtomicBool>,
    /// It takes nothing.
    pub stalls: Arc<AtomicBool>,
    /// So many messages are lost on their way in.
    pub loses: Arc<AtomicUsize>,
    /// How many payloads of each kind it was given.
    pub kinds: Arc<[AtomicUsize; 16]>,
}

impl Faulty {
    /// One over this broker, without faults so far.
    #[must_use]
    pub fn new(broker: &InProcess) -> Self {
        Self {
            broker: broker.clone(),
            generation: watch::Sender::new(0),
            is_down: Arc::default(),
            stalls: Arc::default(),
            loses: Arc::default(),
            kinds: Arc::default(),
        }
    }

    /// Ends all connections.
    pub fn cut(&self) {
        self.generation.send_modify(|it| *it += 1);
    }
}

/// A half of a connection.
#[derive(Debug)]
pub struct Half<T>(T, Faulty, watch::Receiver<u64>);

impl Broker for Faulty {
    type Commands = Half<<InProcess as Broker>::Commands>;
    type Messages = Half<<InProcess as Broker>::Messages>;

    async fn connect(&self) -> Result<(Self::Commands, Self::Messages), BoxError> {
        if self.is_down.load(Ordering::SeqCst) {
            return Err("down".into());
        }
        let (commands, messages) = self.broker.connect().await?;
        let cut = || self.generation.subscribe();
        Ok((
            Half(commands, self.clone(), cut()),
            Half(messages, self.clone(), cut()),
        ))
    }
}

impl Commands for Half<<InProcess as Broker>::Commands> {
    fn max_payload(&self) -> usize {
        1 << 20
    }

    async fn subscribe(&mut self, channels: &[String]) -> Result<(), BoxError> {
        self.0.subscribe(channels).await
    }

    async fn unsubscribe(&mut self, channels: &[String]) -> Result<(), BoxError> {
        self.0.unsubscribe(channels).await
    }

    async fn publish(&mut self, batch: &[(String, Bytes)]) -> Result<(), BoxError> {
        if self.1.stalls.load(Ordering::SeqCst) {
            return pending().await;
        }
        if self.2.has_changed()? {
            return Err("cut".into());
        }
        let lose = |it: usize| it.checked_sub(1);
        for one in batch {
            let kind = one
                .1
                .get(4)
                .and_then(|it| self.1.kinds.get(usize::from(*it)));
            kind.map(|it| it.fetch_add(1, Ordering::SeqCst));
            // Kinds 1 and 2 are messages.
            let is_message = matches!(one.1.get(4), Some(1 | 2));
            let loses = &self.1.loses;
            if is_message
                && loses
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, lose)
                    .is_ok()
            {
                continue;
            }
            self.0.publish(std::slice::from_ref(one)).await?;
        }
        Ok(())
    }
}

impl Messages for Half<<InProcess as Broker>::Messages> {
    async fn recv(&mut self) -> Result<(String, Bytes), BoxError> {
        tokio::select! {
            received = self.0.recv() => received,
            _ = self.2.changed() => Err("cut".into()),
        }
    }
}
