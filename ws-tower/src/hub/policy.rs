//! What a topic does for a subscriber that does not keep up, and for one that comes later.

use std::{fmt, sync::Arc};

use ws_core::{CloseCode, CloseFrame, Message};

/// What happens to a subscriber whose socket takes less than its topic brings.
///
/// Nobody waits for it, neither the publisher nor the other subscribers. What differs is what it
/// loses. See [choosing a policy](crate::hub#choosing-a-policy).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SlowConsumer {
    /// It loses the connection, with a [Close](Policy::close_with) that says why; 1013 by default.
    #[default]
    Disconnect,
    /// It loses the newest message: what does not fit is not queued.
    SkipNewest,
    /// It loses the oldest message that waits, as many as make room for the new one.
    DropOldest,
    /// It loses all messages but the newest: one waits at most, and it goes out when the socket
    /// has taken everything before.
    Latest,
}

/// How a topic treats slow subscribers: the rule, how much may wait for one, and what it is told;
/// and whether whoever comes later gets the newest message.
///
/// ```
/// use ws_tower::hub::{Hub, Policy, SlowConsumer};
/// use ws_tower::Message;
///
/// let feed = Policy::new(SlowConsumer::DropOldest)
///     .backlog(256 << 10)
///     .notice(|lag| Message::text(format!(r#"{{"missed":{}}}"#, lag.missed())));
/// let hub = Hub::builder()
///     .slow_consumer(SlowConsumer::Disconnect)
///     .policy_of(move |topic| topic.starts_with("feed/").then(|| feed.clone()))
///     .build();
/// # let _ = hub;
/// ```
#[derive(Clone)]
pub struct Policy {
    pub(super) rule: SlowConsumer,
    pub(super) backlog: usize,
    pub(super) close: CloseFrame,
    pub(super) notice: Option<Arc<Notice>>,
    pub(super) retains: bool,
}

impl Policy {
    /// The rule with its defaults: a backlog of 64 KiB, Close 1013, no notice.
    pub fn new(rule: SlowConsumer) -> Self {
        Self {
            rule,
            backlog: BACKLOG,
            close: CloseFrame::truncated(
                CloseCode::TRY_AGAIN_LATER,
                "the subscriber does not keep up",
            ),
            notice: None,
            retains: false,
        }
    }

    /// How much may wait for one subscriber beside the outgoing queue of its socket: bytes of
    /// payload, plus 64 for each message. The message that reaches the mark is still taken. Default:
    /// 64 KiB.
    ///
    /// What waits is shared with all others it waits for, so 1,000 slow subscribers of one topic
    /// hold the same messages once. [`SlowConsumer::Latest`] holds one message, whatever the mark.
    #[must_use]
    pub fn backlog(mut self, bytes: usize) -> Self {
        self.backlog = bytes;
        self
    }

    /// The Close that [`SlowConsumer::Disconnect`] sends. Default: 1013, "the subscriber does not
    /// keep up"; some prefer 1008, which clients take for final. 1010 is for clients: a 1011 goes
    /// out in its place (RFC 6455 §7.4.1).
    #[must_use]
    pub fn close_with(mut self, close: CloseFrame) -> Self {
        self.close = if close.code() == CloseCode::MANDATORY_EXTENSION {
            CloseFrame::truncated(CloseCode::INTERNAL_ERROR, close.reason())
        } else {
            close
        };
        self
    }

    /// What a subscriber is told that has missed messages by [`SlowConsumer::SkipNewest`] or
    /// [`SlowConsumer::DropOldest`]: a message that stands where they would have stood. Under every
    /// rule it also tells of messages that were lost between nodes, by a
    /// [`Backplane`](crate::hub::Backplane). Default: nothing, and messages that were lost between
    /// nodes count for [`SlowConsumer::Disconnect`] as too much: it closes the sockets.
    ///
    /// It runs on the subscriber's task or on the backplane's, under no lock. If it panics, the panic is logged and
    /// that notice is left out.
    #[must_use]
    pub fn notice<M: Into<Message>>(
        mut self,
        notice: impl Fn(&Lag<'_>) -> M + Send + Sync + 'static,
    ) -> Self {
        self.notice = Some(Arc::new(move |lag| notice(lag).into()));
        self
    }

    /// Keeps the newest message of the topic for whoever joins later, under every rule: it is
    /// queued for the new member while it joins, in its place among what is published. What counts
    /// is published to all, or to all but one; not a message to one member, a notice or a
    /// Close. Default: nothing is kept.
    ///
    /// It is kept as long as the topic: with its last member and [`Watch`](crate::hub::Watch) it is
    /// gone, and what is published to a topic that nobody has joined is not kept. A watch
    /// keeps it for a topic without members. Other nodes of a [backplane](crate::hub::backplane) that
    /// come later are told of it. [`Hub::retained`](crate::hub::Hub::retained) reads it.
    ///
    /// ```
    /// use ws_tower::hub::{Hub, Policy, SlowConsumer};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use ws_tower::Config;
    /// let hub = Hub::builder()
    ///     .slow_consumer(Policy::new(SlowConsumer::Latest).retain())
    ///     .build();
    /// let _watch = hub.watch("sensor/7");
    /// hub.publish("sensor/7", "21.5 °C");
    ///
    /// let (mut client, server) = ws_tower::pair(Config::new());
    /// let _seat = hub.join("sensor/7", &server);
    /// assert_eq!(client.recv().await.transpose()?, Some("21.5 °C".into()));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn retain(mut self) -> Self {
        self.retains = true;
        self
    }
}

impl Default for Policy {
    /// [`SlowConsumer::Disconnect`].
    fn default() -> Self {
        Self::new(SlowConsumer::default())
    }
}

impl From<SlowConsumer> for Policy {
    fn from(rule: SlowConsumer) -> Self {
        Self::new(rule)
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("rule", &self.rule)
            .field("backlog", &self.backlog)
            .field("close", &self.close)
            .field("notice", &self.notice.is_some())
            .field("retains", &self.retains)
            .finish()
    }
}

/// Makes the message that tells a subscriber what it has missed.
type Notice = dyn Fn(&Lag<'_>) -> Message + Send + Sync;

/// What a subscriber has missed, for the [notice](Policy::notice) that tells it.
#[derive(Debug)]
pub struct Lag<'a> {
    pub(super) topic: &'a str,
    pub(super) missed: u64,
}

impl Lag<'_> {
    /// The topic.
    pub fn topic(&self) -> &str {
        self.topic
    }

    /// How many messages are missing in this place.
    pub fn missed(&self) -> u64 {
        self.missed
    }
}

/// As much as waits in the outgoing queue of the socket itself.
const BACKLOG: usize = 64 << 10;
