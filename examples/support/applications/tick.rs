//! Tick: the server counts the seconds for everyone, and everyone talks to everyone.

use std::{collections::HashSet, time::Duration};

use tokio::time::{Instant, sleep_until, timeout};
use ws_tower::{
    Config, Error, WebSocket, WebSocketLayer,
    hub::{Hub, HubBuilder, Policy, Seat, SlowConsumer},
};

use super::next_text;

/// The application behind `/tick`.
///
/// | the socket sends | when |
/// |---|---|
/// | `tick:<n>` | every second, to everyone; one counter for all, from 0 |
/// | `msg:<text>` | somebody has sent this text; the sender gets it too. The text is all that follows the first colon |
///
/// Nobody waits for a slow client: the hub closes it with 1013.
///
/// # On several nodes
///
/// There is one counter for all nodes. One of them counts, the others repeat to their own
/// sockets what it says. Which one is no matter of trust: every node passes on only what is more
/// than the last it has passed on, so no socket gets a number twice or a lower one. That the
/// others hold back, the first for half a second longer than the one that counts, the second for a
/// whole one, saves messages; when it dies, the first of them goes on with the next number.
///
/// While the broker is away each node counts by itself. Afterwards the highest counter is that of
/// all, and the others leap forward. Only who changes the node meanwhile may see a lower number.
///
/// A text goes to everyone on all nodes. When texts are lost between them, `msg:` tells how many.
#[derive(Clone, Debug)]
pub struct Tick {
    shared: Hub,
    /// The sockets of this node, for its own ticks.
    local: Hub,
}

impl Tick {
    /// Starts to count, once in each `period`. The counting ends with the runtime.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn start(period: Duration) -> Self {
        Self::start_on(Hub::builder(), period)
    }

    /// The same over the backplane of this hub.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn start_on(hub: HubBuilder, period: Duration) -> Self {
        let talk = Policy::new(SlowConsumer::Disconnect)
            .notice(|lag| format!("msg:({} texts were lost between the servers)", lag.missed()));
        let shared = hub
            .slow_consumer(talk)
            // Of two counts nobody needs the first.
            .policy_of(|topic| (topic == COUNTS).then(|| SlowConsumer::Latest.into()))
            .build();
        let local = Hub::new();
        tokio::spawn(Counter::new(shared.clone(), local.clone(), period).run());
        Self { shared, local }
    }

    /// The hub that all nodes share.
    pub fn hub(&self) -> &Hub {
        &self.shared
    }

    /// Adds the socket `/tick`.
    #[must_use]
    pub fn route(self, sockets: WebSocketLayer) -> WebSocketLayer {
        sockets.route("/tick", move |socket| talk(self.clone(), socket))
    }
}

async fn talk(tick: Tick, mut socket: WebSocket) -> Result<(), Error> {
    let _ticks = tick.local.join(TICKS, &socket);
    let seat = tick.shared.join(TALK, &socket);
    while let Some(text) = next_text(&mut socket).await? {
        seat.publish(format!("msg:{text}"));
    }
    Ok(())
}

/// The counter of this node. It has a seat among those of the others: a socket whose other end is
/// here.
struct Counter {
    shared: Hub,
    local: Hub,
    period: Duration,
    seat: Seat,
    /// What the others count comes here.
    counts: WebSocket,
    /// The other end, which has the seat.
    _tap: WebSocket,
    last: Option<u64>,
    /// Whether it was this node that counted last.
    is_counting: bool,
}

impl Counter {
    fn new(shared: Hub, local: Hub, period: Duration) -> Self {
        // Both ends are here: who would not answer a ping?
        let (counts, tap) = ws_tower::pair(Config::new().keepalive_interval(None));
        Self {
            seat: shared.join(COUNTS, &tap),
            shared,
            local,
            period,
            counts,
            _tap: tap,
            last: None,
            is_counting: false,
        }
    }

    async fn run(mut self) {
        let mut next = Instant::now();
        if self.shared.node().is_some() {
            // Who comes to others listens before it counts.
            let subscribed = self.shared.subscribed(COUNTS);
            let _ = timeout(PATIENCE, subscribed).await;
            next = Instant::now() + 2 * self.period;
        }
        loop {
            let due = next + self.restraint();
            tokio::select! {
                biased;
                count = next_text(&mut self.counts) => match count {
                    Ok(Some(count)) => {
                        if self.hear(count.parse().unwrap_or(0)) {
                            next = Instant::now() + self.period;
                        }
                    }
                    // It ends with the runtime.
                    Ok(None) | Err(_) => return,
                },
                () = sleep_until(due) => {
                    self.count();
                    // Seconds that the machine slept through are not made up for.
                    let now = Instant::now();
                    let behind = if due + self.period > now { due } else { now };
                    next = behind + self.period;
                }
            }
        }
    }

    /// How much longer than a period this node waits before it counts: it lets those go first
    /// whose numbers are less.
    fn restraint(&self) -> Duration {
        let own = self.shared.node();
        if self.is_counting || own.is_none() {
            return Duration::ZERO;
        }
        let members = self.shared.members(COUNTS).into_iter();
        let nodes: HashSet<_> = members.map(|it| self.shared.node_of(it.id())).collect();
        let before = nodes.into_iter().filter(|it| *it < own).count();
        self.period / 2 * u32::try_from(before).unwrap_or(u32::MAX).min(10)
    }

    fn count(&mut self) {
        let count = self.last.map_or(0, |it| it.saturating_add(1));
        self.seat.publish_to_others(count.to_string());
        self.is_counting = true;
        self.tick(count);
    }

    /// Another node has counted. Says whether that is the count now.
    fn hear(&mut self, count: u64) -> bool {
        // Of two that count at the same time the one with the lower number goes on.
        self.is_counting &= self.last.is_some_and(|last| count < last);
        let is_news = self.last.is_none_or(|last| count > last);
        if is_news {
            self.tick(count);
        }
        is_news
    }

    fn tick(&mut self, count: u64) {
        self.last = Some(count);
        self.local.publish(TICKS, format!("tick:{count}"));
    }
}

const TALK: &str = "talk";
const COUNTS: &str = "counts";
const TICKS: &str = "ticks";

/// How long the first count waits for the broker.
const PATIENCE: Duration = Duration::from_secs(2);
