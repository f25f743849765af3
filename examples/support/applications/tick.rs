//! Tick: the server counts the seconds for everyone, and everyone talks to everyone.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use ws_tower::{Error, WebSocket, WebSocketLayer, hub::Hub};

use super::next_text;

/// The application behind `/tick`.
///
/// | the socket sends | when |
/// |---|---|
/// | `tick:<n>` | every second, to everyone; one counter for all, from 0 |
/// | `msg:<text>` | somebody has sent this text; the sender gets it too. The text is all that follows the first colon |
///
/// Nobody waits for a slow client: the hub closes it with 1013.
#[derive(Clone, Debug)]
pub struct Tick {
    hub: Hub,
}

impl Tick {
    /// Starts to count, once in each `period`. The counting ends with the runtime.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, or if the period is zero.
    pub fn start(period: Duration) -> Self {
        let hub = Hub::new();
        let everyone = hub.clone();
        let mut ticks = interval(period);
        // Seconds that the machine slept through are not made up for.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::spawn(async move {
            for count in 0_u64.. {
                ticks.tick().await;
                everyone.publish(TOPIC, format!("tick:{count}"));
            }
        });
        Self { hub }
    }

    /// Adds the socket `/tick`.
    #[must_use]
    pub fn route(self, sockets: WebSocketLayer) -> WebSocketLayer {
        sockets.route("/tick", move |socket| talk(self.hub.clone(), socket))
    }
}

async fn talk(hub: Hub, mut socket: WebSocket) -> Result<(), Error> {
    let seat = hub.join(TOPIC, &socket);
    while let Some(text) = next_text(&mut socket).await? {
        seat.publish(format!("msg:{text}"));
    }
    Ok(())
}

const TOPIC: &str = "everyone";
