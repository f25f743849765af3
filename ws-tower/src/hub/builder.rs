//! How a hub is made.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use super::{Backplane, Hub, Inner, Policy, PolicyOf, table::Table};

/// Makes a [`Hub`] with policies of its own.
#[derive(Default)]
pub struct HubBuilder {
    policy: Policy,
    policy_of: Option<Box<PolicyOf>>,
    backplane: Option<Backplane>,
}

impl HubBuilder {
    /// Shares the topics with the hubs of other nodes, over a broker: a [`Backplane`], or a
    /// [`Broker`](super::backplane::Broker) alone. Default: none, the hub is the process's.
    #[must_use]
    pub fn backplane(mut self, backplane: impl Into<Backplane>) -> Self {
        self.backplane = Some(backplane.into());
        self
    }

    /// How slow subscribers are treated: a [`SlowConsumer`], or a [`Policy`] that says more.
    /// Default: [`SlowConsumer::Disconnect`].
    ///
    /// [`SlowConsumer`]: super::SlowConsumer
    /// [`SlowConsumer::Disconnect`]: super::SlowConsumer::Disconnect
    #[must_use]
    pub fn slow_consumer(mut self, policy: impl Into<Policy>) -> Self {
        self.policy = policy.into();
        self
    }

    /// Gives topics policies of their own, by name. It is asked when a topic is made, and `None`
    /// leaves it with that of the hub.
    ///
    /// ```
    /// use ws_tower::hub::{Hub, SlowConsumer};
    ///
    /// let hub = Hub::builder()
    ///     .policy_of(|topic| topic.starts_with("sensor/").then(|| SlowConsumer::Latest.into()))
    ///     .build();
    /// # let _ = hub;
    /// ```
    #[must_use]
    pub fn policy_of(
        mut self,
        policy_of: impl Fn(&str) -> Option<Policy> + Send + Sync + 'static,
    ) -> Self {
        self.policy_of = Some(Box::new(policy_of));
        self
    }

    /// Makes the hub.
    ///
    /// # Panics
    ///
    /// With a [backplane](Self::backplane), outside of a tokio runtime: its task is spawned.
    pub fn build(self) -> Hub {
        Hub(Arc::new_cyclic(|hub| Inner {
            topics: Table::new(),
            policy: Arc::new(self.policy),
            policy_of: self.policy_of,
            counters: Arc::default(),
            backplane: self.backplane.map(|it| it.start(Weak::clone(hub))),
        }))
    }
}

impl fmt::Debug for HubBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubBuilder")
            .field("policy", &self.policy)
            .field("policy_of", &self.policy_of.is_some())
            .field("backplane", &self.backplane)
            .finish()
    }
}
