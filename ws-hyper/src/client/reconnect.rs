//! One socket after another, for as long as the server can be reached.

use std::{
    collections::hash_map::RandomState,
    fmt,
    hash::{BuildHasher, Hasher},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_core::Stream;
use http::header::RETRY_AFTER;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use ws_tower::WebSocket;

use super::{address::Address, connecting::YEAR, connector::Connector, error::ConnectError};

/// Makes a fresh socket whenever it is asked for the next one, and keeps trying until there is one
/// or it makes no sense to.
///
/// Each socket is a new connection, and knows nothing of those before. No message is ever sent
/// again: one that was queued when a socket ended may have arrived or not, and only the
/// application can tell. So send what the server has to know at the beginning of each socket.
///
/// It is a [`Stream`] of sockets, and [`next`](Self::next) is the same by hand.
///
/// ```no_run
/// use ws_hyper::{Connector, client::Reconnecting};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let connector = Connector::new().bearer_auth("3vJx");
/// let mut sockets = Reconnecting::new(connector, "wss://chat.example/rooms/7")?;
/// while let Some(socket) = sockets.next().await {
///     let mut socket = socket?; // a failure that trying again would not mend
///     socket.send("what have I missed?").await.ok();
///     while let Some(Ok(message)) = socket.recv().await {
///         println!("{message:?}");
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Reconnecting {
    target: Arc<Target>,
    backoff: Backoff,
    is_final: Arc<Final>,
    prepare: Option<Arc<Prepare>>,
    on_failure: Option<Arc<OnFailure>>,
    /// Failures since the last socket that was healthy.
    failures: u32,
    /// When the last socket was given out.
    last: Option<Instant>,
    attempt: Option<Attempt>,
    state: watch::Sender<ReconnectState>,
    has_ended: bool,
}

struct Target {
    connector: Connector,
    address: Address,
}

type Final = dyn Fn(&ConnectError) -> bool + Send + Sync;
type Prepare = dyn Fn(Connector) -> Prepared + Send + Sync;
type Prepared = Pin<Box<dyn Future<Output = Result<Connector, ConnectError>> + Send>>;
type OnFailure = dyn Fn(&ConnectError) + Send + Sync;
type Attempt = Pin<Box<dyn Future<Output = Result<WebSocket, ConnectError>> + Send>>;

/// What a [`Reconnecting`] is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReconnectState {
    /// Nobody has asked for a socket yet.
    Idle,
    /// A connect is under way.
    Connecting {
        /// How many have failed since the last healthy socket.
        failures: u32,
    },
    /// There is a socket. When it has ended it is told by the socket itself; this stays until the
    /// next one is asked for.
    Connected,
    /// The last connect has failed, or the last socket has ended, and the next is yet to come.
    Waiting {
        /// How many have failed since the last healthy socket.
        failures: u32,
        /// How long the pause is, as a whole.
        pause: Duration,
    },
    /// There will be no further one.
    Ended,
}

impl Reconnecting {
    /// Sockets of one address. Nothing is done before the first one is asked for.
    ///
    /// # Errors
    ///
    /// The address is none.
    pub fn new<A>(connector: Connector, address: A) -> Result<Self, ConnectError>
    where
        A: TryInto<Address>,
        A::Error: Into<ConnectError>,
    {
        let address = address.try_into().map_err(Into::into)?;
        Ok(Self {
            target: Arc::new(Target { connector, address }),
            backoff: Backoff::default(),
            is_final: Arc::new(ConnectError::is_final),
            prepare: None,
            on_failure: None,
            failures: 0,
            last: None,
            attempt: None,
            state: watch::Sender::new(ReconnectState::Idle),
            has_ended: false,
        })
    }

    /// Sets the pauses between attempts. Default: [`Backoff::default`].
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets which failures are final: the stream tells them and ends. All others are told to
    /// [`on_failure`](Self::on_failure), and tried again. Default: [`ConnectError::is_final`].
    #[must_use]
    pub fn final_if(
        mut self,
        is_final: impl Fn(&ConnectError) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.is_final = Arc::new(is_final);
        self
    }

    /// Prepares the connector of each connect, for what does not stay the same: a token that
    /// expires, a ticket that is good for one socket. It gets the connector that was given to
    /// [`new`](Self::new), and gives back the one to use. Default: that one as it is.
    ///
    /// An error of it is a failed connect: final or not, as [`ConnectError::is_final`] or
    /// [`final_if`](Self::final_if) says. It has no deadline but its own.
    ///
    /// ```no_run
    /// use ws_hyper::{Connector, client::{ConnectError, Reconnecting}};
    ///
    /// # #[derive(Clone)]
    /// # struct Login;
    /// # impl Login {
    /// #     async fn token(&self) -> Result<Option<String>, std::io::Error> { Ok(None) }
    /// # }
    /// # fn run(login: Login) -> Result<(), ConnectError> {
    /// let sockets = Reconnecting::new(Connector::new(), "wss://chat.example/rooms/7")?
    ///     .prepare(move |connector| {
    ///         let login = login.clone();
    ///         async move {
    ///             match login.token().await {
    ///                 Ok(Some(token)) => Ok(connector.bearer_auth(&token)),
    ///                 // Final: nobody is logged in any more.
    ///                 Ok(None) => Err(ConnectError::Setting("there is no token".into())),
    ///                 // Tried again, after a pause.
    ///                 Err(error) => Err(ConnectError::Connect {
    ///                     to: "the login service".into(),
    ///                     source: error.into(),
    ///                 }),
    ///             }
    ///         }
    ///     })
    ///     // A token that has been called back: the next attempt has a new one.
    ///     .final_if(|error| {
    ///         let is_stale = error.refusal().is_some_and(|it| it.status() == 401);
    ///         error.is_final() && !is_stale
    ///     });
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn prepare<Fut>(
        mut self,
        prepare: impl Fn(Connector) -> Fut + Send + Sync + 'static,
    ) -> Self
    where
        Fut: Future<Output = Result<Connector, ConnectError>> + Send + 'static,
    {
        self.prepare = Some(Arc::new(move |connector| Box::pin(prepare(connector))));
        self
    }

    /// Sets what is told each failure that is tried again, before the pause: for a person who
    /// waits, or to count. A failure that is final is told by [`next`](Self::next). Default:
    /// nobody is told, and the log has it at the level debug.
    #[must_use]
    pub fn on_failure(mut self, hook: impl Fn(&ConnectError) + Send + Sync + 'static) -> Self {
        self.on_failure = Some(Arc::new(hook));
        self
    }

    /// What is being done, to be watched from anywhere.
    pub fn state(&self) -> watch::Receiver<ReconnectState> {
        self.state.subscribe()
    }

    /// The next socket: the first one at once, those after it after a pause, which is that of one
    /// failure if the last one was healthy. `None` after a failure that was final.
    ///
    /// # Errors
    ///
    /// A failure that is final.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the attempt under way rests, and goes on with the next call. Its deadline
    /// does not rest.
    pub async fn next(&mut self) -> Option<Result<WebSocket, ConnectError>> {
        std::future::poll_fn(|cx| self.poll_socket(cx)).await
    }

    fn poll_socket(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<WebSocket, ConnectError>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        loop {
            let attempt = if let Some(attempt) = &mut self.attempt {
                attempt
            } else {
                let pause = self.look_back();
                self.attempt.insert(self.begin(pause))
            };
            let result = ready!(attempt.as_mut().poll(cx));
            self.attempt = None;
            match result {
                Ok(socket) => {
                    self.last = Some(Instant::now());
                    self.state.send_replace(ReconnectState::Connected);
                    return Poll::Ready(Some(Ok(socket)));
                }
                Err(error) if (self.is_final)(&error) => {
                    self.has_ended = true;
                    self.state.send_replace(ReconnectState::Ended);
                    return Poll::Ready(Some(Err(error)));
                }
                Err(error) => {
                    if let Some(hook) = &self.on_failure {
                        hook(&error);
                    }
                    self.failures = self.failures.saturating_add(1);
                    let asked = retry_after(&error).unwrap_or_default();
                    let pause = self.backoff.pause(self.failures).max(asked);
                    tracing::debug!(%error, ?pause, "no websocket, trying again");
                    self.attempt = Some(self.begin(pause));
                }
            }
        }
    }

    /// How long to wait after the last socket.
    fn look_back(&mut self) -> Duration {
        let Some(since) = self.last.take() else {
            return Duration::ZERO;
        };
        if since.elapsed() >= self.backoff.healthy_after {
            self.failures = 0;
            // RFC 6455 §7.2.3: "The first reconnect attempt SHOULD be delayed by a random amount
            // of time." All clients of a server that restarts have healthy sockets.
            return self.backoff.pause(1);
        }
        // A server that accepts and closes at once is not to be stormed either.
        self.failures = self.failures.saturating_add(1);
        self.backoff.pause(self.failures)
    }

    fn begin(&self, pause: Duration) -> Attempt {
        let (target, state) = (Arc::clone(&self.target), self.state.clone());
        let (failures, prepare) = (self.failures, self.prepare.clone());
        Box::pin(async move {
            if !pause.is_zero() {
                state.send_replace(ReconnectState::Waiting { failures, pause });
                sleep(pause).await;
            }
            state.send_replace(ReconnectState::Connecting { failures });
            let connector = target.connector.clone();
            let connector = match prepare {
                Some(prepare) => prepare(connector).await?,
                None => connector,
            };
            let (socket, _) = connector.connect(target.address.clone()).await?;
            Ok(socket)
        })
    }
}

impl Stream for Reconnecting {
    type Item = Result<WebSocket, ConnectError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_socket(cx)
    }
}

impl fmt::Debug for Reconnecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconnecting")
            .field("address", &self.target.address)
            .field("backoff", &self.backoff)
            .field("state", &*self.state.borrow())
            .finish_non_exhaustive()
    }
}

/// The pauses between attempts: a random time between nothing and a bound that doubles with each
/// failure ("full jitter"), so that a thousand clients of a server that restarts do not come back
/// as one (RFC 6455 §7.2.3). After a healthy socket the bound is that of the first failure.
///
/// | setting | default |
/// |---|---|
/// | [`first`](Self::first): the bound after the first failure | 1 s |
/// | [`max`](Self::max): the largest bound | 60 s |
/// | [`healthy_after`](Self::healthy_after): how long a socket must have lived for its end to be no failure | 30 s |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backoff {
    /// The bound of the pause after the first failure.
    pub first: Duration,
    /// The largest bound.
    pub max: Duration,
    /// How long after it was given out the end of a socket is no failure any more.
    pub healthy_after: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            max: Duration::from_secs(60),
            healthy_after: Duration::from_secs(30),
        }
    }
}

impl Backoff {
    /// The defaults of the table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the bound of the pause after the first failure. Default: 1 s.
    #[must_use]
    pub fn first(mut self, pause: Duration) -> Self {
        self.first = pause;
        self
    }

    /// Sets the largest bound. Default: 60 s.
    #[must_use]
    pub fn max(mut self, pause: Duration) -> Self {
        self.max = pause;
        self
    }

    /// Sets how long a socket must have lived for its end to be no failure. Default: 30 s.
    #[must_use]
    pub fn healthy_after(mut self, time: Duration) -> Self {
        self.healthy_after = time;
        self
    }

    /// The bound after so many failures, of which there is at least one.
    fn bound(&self, failures: u32) -> Duration {
        let factor = 1_u32.checked_shl(failures.saturating_sub(1));
        let bound = self.first.saturating_mul(factor.unwrap_or(u32::MAX));
        bound.min(self.max).min(YEAR)
    }

    fn pause(&self, failures: u32) -> Duration {
        // The standard library seeds its hashers at random; no secret hangs on this.
        let random = RandomState::new().build_hasher().finish() >> 32;
        let share = u32::try_from(random).unwrap_or(u32::MAX);
        self.bound(failures)
            .mul_f64(f64::from(share) / f64::from(u32::MAX))
    }
}

/// The longest pause that a server can ask for with `Retry-After`.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// How long the server asks to be left alone (RFC 9110 §10.2.3), if it says so in seconds.
fn retry_after(error: &ConnectError) -> Option<Duration> {
    let value = error.refusal()?.headers().get(RETRY_AFTER)?;
    let seconds = value.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound() {
        let backoff = Backoff::new();
        let bounds: Vec<u64> = (1..9).map(|it| backoff.bound(it).as_secs()).collect();
        assert_eq!(bounds, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.bound(u32::MAX), backoff.max);
        let large = backoff.first(Duration::MAX).max(Duration::MAX);
        assert_eq!(large.bound(40), YEAR);
        assert!(large.pause(40) <= YEAR);
    }

    #[test]
    fn the_end_of_a_healthy_socket_is_followed_by_a_pause_that_is_no_failure() {
        let hour = Duration::from_secs(3600);
        let backoff = Backoff::new().first(hour).max(hour);
        let sockets = Reconnecting::new(Connector::new(), "ws://localhost/").unwrap();
        let mut sockets = sockets.backoff(backoff.healthy_after(Duration::ZERO));
        assert_eq!(sockets.look_back(), Duration::ZERO);
        sockets.failures = 7;
        sockets.last = Some(Instant::now());
        let pause = sockets.look_back();
        assert!((Duration::from_nanos(1)..=hour).contains(&pause));
        assert_eq!(sockets.failures, 0);
    }

    #[test]
    fn a_pause_is_anything_up_to_its_bound() {
        let backoff = Backoff::new().first(Duration::from_secs(100));
        let backoff = backoff.max(Duration::from_secs(100));
        let pauses: Vec<Duration> = (0..1000).map(|_| backoff.pause(1)).collect();
        assert!(pauses.iter().all(|pause| *pause <= backoff.max));
        for quarter in 0..4 {
            let range = Duration::from_secs(quarter * 25)..Duration::from_secs((quarter + 1) * 25);
            let count = pauses.iter().filter(|pause| range.contains(pause)).count();
            assert!((150..350).contains(&count), "{count} in {range:?}");
        }
    }
}
