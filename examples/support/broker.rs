//! The broker between nodes, as `--backplane URL` names it on the command line.

use std::{
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{interval, sleep};
use ws_tower::{
    BoxError,
    hub::{
        Backplane, Hub, HubBuilder,
        backplane::{BackplaneStats, Broker as Carrier, Nats, Redis},
    },
};

use crate::{Failure, causes};

/// A broker by its URL: `redis://`, or `rediss://` for TLS; `nats://`, or `tls://`, also several
/// with commas between them. It is not connected to before a hub is made.
///
/// What it shows of itself has no user and no password.
///
/// ```
/// use ws_examples::BrokerUrl;
///
/// # fn main() -> Result<(), ws_examples::Failure> {
/// let broker: BrokerUrl = "redis://ann:secret@10.0.0.7:6380/1".parse()?;
/// assert_eq!(broker.to_string(), "redis://10.0.0.7:6380");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct BrokerUrl {
    broker: Broker,
    shown: String,
    deadline: Option<Duration>,
    last: LastError,
}

#[derive(Clone)]
enum Broker {
    Redis(Redis),
    Nats(Nats),
}

impl BrokerUrl {
    /// How long a message may wait for the broker. Default: that of the hub, 2 seconds.
    #[must_use]
    pub fn deadline(mut self, deadline: Option<Duration>) -> Self {
        self.deadline = deadline;
        self
    }

    /// What makes a hub that shares its topics over this broker, with those of other nodes that
    /// have the same prefix.
    pub fn hub(&self, prefix: &str) -> HubBuilder {
        let mut backplane = match &self.broker {
            Broker::Redis(redis) => Backplane::new(self.last.of(redis.clone())),
            Broker::Nats(nats) => Backplane::new(self.last.of(nats.clone())),
        };
        if let Some(deadline) = self.deadline {
            backplane = backplane.deadline(deadline);
        }
        Hub::builder().backplane(backplane.prefix(prefix))
    }

    /// Says on stderr whether this node is connected to the broker and how many others are, or why
    /// it could not connect, in half a second and whenever that changes.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn report(&self, hub: &Hub) {
        let (hub, broker) = (hub.clone(), self.clone());
        tokio::spawn(async move {
            // A broker that is there is connected to by then.
            sleep(Duration::from_millis(500)).await;
            let mut looks = interval(Duration::from_millis(250));
            let mut told = None;
            while let Some(stats) = hub.backplane_stats() {
                looks.tick().await;
                let now = broker.state(&stats);
                if told.as_ref() != Some(&now) {
                    eprintln!("backplane {broker}: {now}");
                    told = Some(now);
                }
            }
        });
    }

    fn state(&self, stats: &BackplaneStats) -> String {
        let alone = "this node goes on alone until it is back";
        match (stats.connected, stats.nodes, self.last.get()) {
            (0, _, Some(error)) => format!("cannot be connected to: {error}; {alone}"),
            (0, _, None) => format!("away; {alone}"),
            (_, 1, _) => "connected, 1 other node".to_owned(),
            (_, nodes, _) => format!("connected, {nodes} other nodes"),
        }
    }
}

/// Why the last connect failed; `None` if it did not.
#[derive(Clone, Default)]
struct LastError(Arc<Mutex<Option<String>>>);

impl LastError {
    fn of<B>(&self, broker: B) -> Told<B> {
        let last = self.clone();
        Told { broker, last }
    }

    fn get(&self) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// A broker whose last error is told.
struct Told<B> {
    broker: B,
    last: LastError,
}

impl<B: Carrier> Carrier for Told<B> {
    type Commands = B::Commands;
    type Messages = B::Messages;

    async fn connect(&self) -> Result<(B::Commands, B::Messages), BoxError> {
        let connected = self.broker.connect().await;
        let error = connected.as_ref().err().map(|error| causes(&**error));
        *self.last.0.lock().unwrap_or_else(PoisonError::into_inner) = error;
        connected
    }
}

impl FromStr for BrokerUrl {
    type Err = Failure;

    /// # Errors
    ///
    /// Says which URLs are taken, or what is wrong with this one; without its password.
    fn from_str(url: &str) -> Result<Self, Failure> {
        let addresses: Vec<_> = url.split(',').map(str::trim).collect();
        let shown = addresses.iter().map(|it| shown(it));
        let shown: Vec<_> = shown
            .collect::<Option<_>>()
            .ok_or_else(|| Failure::new(USAGE))?;
        let all = |schemes: [&str; 2]| {
            let mut found = shown.iter().filter_map(|it| it.split_once("://"));
            found.all(|(scheme, _)| schemes.contains(&scheme))
        };
        let broker = if all(["nats", "tls"]) {
            Broker::Nats(Nats::new(url))
        } else if all(["redis", "rediss"]) && addresses.len() == 1 {
            // What the library says of it may have all of it in it.
            let redis = Redis::new(url).map_err(|_| Failure::new(USAGE))?;
            Broker::Redis(redis)
        } else {
            return Err(Failure::new(USAGE));
        };
        let shown = shown.join(",");
        Ok(Self {
            broker,
            shown,
            deadline: None,
            last: LastError::default(),
        })
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BrokerUrl").field(&self.shown).finish()
    }
}

/// The scheme, host and port of a URL; `None` if it has no scheme or no host.
fn shown(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    // A password may have anything in it: what is shown begins behind the last `@`.
    let address = rest.rsplit('@').next()?;
    let address = address.split(['/', '?', '#']).next()?;
    let is_host = !address.is_empty() && !address.starts_with(':');
    is_host.then(|| format!("{scheme}://{address}"))
}

const USAGE: &str = "a broker is redis://[user:password@]host[:port][/database], rediss:// for TLS; \
                     or nats://[user:password@]host[:port], tls:// for TLS, several with commas";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_shown_without_user_and_password() {
        for (url, expected) in [
            ("redis://127.0.0.1", "redis://127.0.0.1"),
            (
                "redis://:secret@[::1]:6380/2?protocol=resp3",
                "redis://[::1]:6380",
            ),
            (
                "rediss://ann:s%40cret@redis.example",
                "rediss://redis.example",
            ),
            (
                "nats://ann:sec@ret@nats.example:4223",
                "nats://nats.example:4223",
            ),
            ("nats://secret@a, tls://b:4222", "nats://a,tls://b:4222"),
        ] {
            let broker: BrokerUrl = url.parse().expect(url);
            assert_eq!(broker.to_string(), expected);
            assert!(!format!("{broker:?}").contains("ret"), "{broker:?}");
        }
    }

    #[test]
    fn what_is_no_broker_is_explained_without_repeating_it() {
        for wrong in [
            "",
            "secret",
            "127.0.0.1:6379",
            "http://secret@127.0.0.1",
            "redis://",
            "redis://u:secret@",
            "redis://secret@h:many",
            "redis://a,redis://b",
            "nats://:4222",
            "nats://a,redis://secret@b",
            "unix:///secret",
        ] {
            let failure = wrong.parse::<BrokerUrl>().expect_err(wrong);
            assert_eq!(format!("{failure:?}"), USAGE, "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_broker_that_refuses_the_password_is_told_in_its_own_words() {
        let listener = crate::listen("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let refusing = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    while stream.readable().await.is_ok() {
                        match stream.try_read(&mut [0; 1024]) {
                            Ok(0) => break,
                            Ok(_) => {
                                let answers =
                                    "-WRONGPASS invalid username-password pair\r\n".repeat(8);
                                let _ = stream.try_write(answers.as_bytes());
                            }
                            Err(_) => {} // nothing there after all
                        }
                    }
                });
            }
        });
        let broker: BrokerUrl = format!("redis://ann:s3cret@{address}")
            .parse()
            .expect("one");
        let hub = broker.hub("test").build();
        let told = async {
            while broker.last.get().is_none() {
                sleep(Duration::from_millis(5)).await;
            }
            broker.state(&hub.backplane_stats().expect("it has a backplane"))
        };
        let told = tokio::time::timeout(Duration::from_secs(10), told).await;
        let told = told.expect("an error");
        assert!(told.contains("invalid username-password pair"), "{told}");
        assert!(!told.contains("s3cret"), "{told}");
        refusing.abort();
    }
}
