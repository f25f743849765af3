//! Sensors: some send where they point and how they move, all see the newest of it.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};
use ws_core::Utf8Bytes;
use ws_tower::{
    Config, Error, Route, WebSocket, WebSocketLayer,
    hub::{Hub, HubBuilder, Policy, Seat, SlowConsumer, Watch},
};

use super::{explanation, next_text};

/// The application behind `/sensors`.
///
/// A text is six numbers with a blank between each two, `azimuth pitch roll x y z`: three angles in
/// degrees, and an acceleration in m/s². Who sends it is a producer. Everyone is a viewer, producers
/// too, and gets it unchanged.
///
/// - A viewer who comes later gets the latest value at once ([`Policy::retain`]).
/// - A viewer who is slow gets fewer values, and always the newest
///   ([`SlowConsumer::Latest`]).
/// - A producer that sends more often than every 150 ms loses what it overtakes itself: its newest
///   value goes out when the time has come.
/// - What is no such text is answered with `{"error":"…"}`, to its sender alone.
///
/// # On several nodes
///
/// A value goes to the viewers of all nodes, and each node keeps the latest; one that starts later
/// asks the others for it. Of two producers on two nodes that send at the same moment each node may
/// take the other's value for the later one, until the next one comes.
#[derive(Clone, Debug)]
pub struct Sensors {
    hub: Hub,
    pause: Duration,
    /// It keeps the topic, and with it the latest value, while nobody is there.
    _watch: Arc<Watch>,
}

impl Sensors {
    /// A feed without a value, whose producers send every `pause` at most; 150 ms in the showcase.
    pub fn new(pause: Duration) -> Self {
        Self::new_on(Hub::builder(), pause)
    }

    /// The feed of all nodes over the backplane of this hub.
    ///
    /// # Panics
    ///
    /// With a backplane, outside a tokio runtime.
    pub fn new_on(hub: HubBuilder, pause: Duration) -> Self {
        let newest = Policy::new(SlowConsumer::Latest).retain();
        let hub = hub.slow_consumer(newest).build();
        Self {
            _watch: Arc::new(hub.watch(TOPIC)),
            hub,
            pause,
        }
    }

    /// The hub that all nodes share.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Adds the socket `/sensors`.
    #[must_use]
    pub fn route(self, sockets: WebSocketLayer) -> WebSocketLayer {
        let handler = move |socket| watch_and_produce(self.clone(), socket);
        // Six numbers of 17 digits, with signs and exponents, are less.
        let config = Config::new().max_message_size(256);
        sockets.route_with("/sensors", Route::new(handler).config(config))
    }
}

async fn watch_and_produce(sensors: Sensors, mut socket: WebSocket) -> Result<(), Error> {
    let seat = sensors.hub.join(TOPIC, &socket);
    let mut held = None;
    let mut free_at = Instant::now();
    loop {
        let text = tokio::select! {
            text = next_text(&mut socket) => text,
            () = sleep_until(free_at), if held.is_some() => {
                publish(&seat, held.take());
                free_at = Instant::now() + sensors.pause;
                continue;
            }
        };
        match text {
            Ok(Some(text)) => match check(&text) {
                Ok(()) => held = Some(text),
                Err(wrong) => socket.send(explanation(&wrong)).await?,
            },
            end => {
                // The last value that was sent is the latest, whenever it was.
                publish(&seat, held.take());
                return end.map(drop);
            }
        }
    }
}

fn publish(seat: &Seat, value: Option<Utf8Bytes>) {
    if let Some(value) = value {
        seat.publish(value);
    }
}

/// Whether the text is six numbers that can be drawn.
fn check(text: &str) -> Result<(), String> {
    let numbers = text.split(' ').map(|word| {
        let number = word.parse::<f64>().ok().filter(|it| it.abs() <= LARGEST);
        number.ok_or_else(|| {
            format!("`{word}` is no number between -{LARGEST} and {LARGEST}; send `{SHAPE}`")
        })
    });
    match numbers.collect::<Result<Vec<_>, _>>()?.len() {
        6 => Ok(()),
        count => Err(format!("{count} numbers are not six; send `{SHAPE}`")),
    }
}

const TOPIC: &str = "values";
const SHAPE: &str = "azimuth pitch roll x y z";
/// Far beyond any angle and any acceleration that a device survives.
const LARGEST: f64 = 10_000.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_six_numbers() {
        for right in ["0 0 0 0 0 0", "359.9 -90 180 -0.25 9.80665 1e-3"] {
            assert_eq!(check(right), Ok(()), "{right}");
        }
        for wrong in [
            "",
            "1 2 3 4 5",
            "1 2 3 4 5 6 7",
            "1 2 3 4 5 six",
            "1 2 3 4 5 NaN",
            "1 2 3 4 5 inf",
            "1 2 3 4 5 10001",
            "1  2 3 4 5 6",
        ] {
            assert!(check(wrong).unwrap_err().contains(SHAPE), "{wrong}");
        }
    }
}
