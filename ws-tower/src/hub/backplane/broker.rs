//! What a broker has to do for a hub.

use std::future::Future;

use bytes::Bytes;

use crate::BoxError;

/// A broker that carries payloads between nodes, on channels by name.
///
/// A channel is a text of up to 600 bytes, and any text at all: a broker with rules for names
/// escapes it. A payload is bytes. What is asked is little: payloads that one connection
/// publishes on one channel arrive in that order with all who have subscribed, the publisher
/// itself included, or do not arrive. Losses, repetitions and stalls are found by the
/// [`Backplane`](super::Backplane), which also connects again: an implementation must not.
pub trait Broker: Send + Sync + 'static {
    /// The half of a connection that subscribes and publishes.
    type Commands: Commands;
    /// The half that receives.
    type Messages: Messages;

    /// Connects once. It may be dropped at any time, and is after the backplane's deadline.
    ///
    /// # Errors
    ///
    /// The broker's own; it is logged.
    fn connect(
        &self,
    ) -> impl Future<Output = Result<(Self::Commands, Self::Messages), BoxError>> + Send;
}

/// The half of a connection that subscribes and publishes. After an error or a deadline it is
/// dropped with the other half, and a new connection is made.
pub trait Commands: Send {
    /// The largest payload that the broker takes, in bytes. Default: no limit.
    fn max_payload(&self) -> usize {
        usize::MAX
    }

    /// Subscribes to channels, none of which it is subscribed to.
    ///
    /// # Errors
    ///
    /// The connection is of no use any more.
    fn subscribe(
        &mut self,
        channels: &[String],
    ) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Ends subscriptions.
    ///
    /// # Errors
    ///
    /// The connection is of no use any more.
    fn unsubscribe(
        &mut self,
        channels: &[String],
    ) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Publishes in this order. After an error all of it may be published again, on a new
    /// connection.
    ///
    /// # Errors
    ///
    /// The connection is of no use any more.
    fn publish(
        &mut self,
        batch: &[(String, Bytes)],
    ) -> impl Future<Output = Result<(), BoxError>> + Send;
}

/// The half of a connection that receives.
pub trait Messages: Send {
    /// The next payload, with the channel it came on.
    ///
    /// # Errors
    ///
    /// The connection has ended.
    fn recv(&mut self) -> impl Future<Output = Result<(String, Bytes), BoxError>> + Send;
}
