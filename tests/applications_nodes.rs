//! The applications of the examples on two nodes, by their bytes: what clients of one node get from
//! clients of the other.

#[path = "support/memory.rs"]
mod memory;

use std::time::Duration;

use self::memory::{Dial, clock};
use bytes::Bytes;
use tokio::{
    io::DuplexStream,
    sync::watch,
    time::{Instant, sleep, timeout},
};
use ws_examples::applications::{
    board::{Boards, Limits, REASON},
    chat::Chat,
    sensors::Sensors,
    tick::Tick,
};
use ws_tests::raw::{Raw, handshake, masked, until, within};
use ws_tower::{
    BoxError, WebSocketLayer,
    hub::{
        Backplane, Hub, HubBuilder,
        backplane::{Broker, Commands, InProcess, Messages},
    },
};

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;

// --- tick ---

const PERIOD: Duration = Duration::from_millis(100);

#[tokio::test(start_paused = true)]
async fn two_nodes_have_one_counter() {
    let (here, there) = two_ways();
    let mut one = tick(&here).await;
    one.tick().await;
    let before = one.tick().await;
    let mut two = tick(&there).await;
    let first = two.tick().await;
    assert!(first > before, "who comes later does not begin anew");
    let start = Instant::now();
    for _ in 0..15 {
        one.tick().await;
        two.tick().await;
    }
    // Two that counted each for itself would be faster.
    assert!(start.elapsed() > PERIOD * 13, "{:?}", start.elapsed());
    let (here, there) = (one.newest().await, two.newest().await);
    assert!(here.abs_diff(there) <= 1, "{here} and {there}");
}

#[tokio::test(start_paused = true)]
async fn the_next_node_goes_on_when_the_one_that_counts_dies() {
    let (here, there) = two_ways();
    let mut one = tick(&here).await;
    one.tick().await;
    let mut two = tick(&there).await;
    for _ in 0..3 {
        two.tick().await;
    }
    // To the other node it is as dead as can be; for its own sockets it goes on.
    here.cut();
    let before = two.last;
    let start = Instant::now();
    for _ in 0..10 {
        two.tick().await;
        one.tick().await;
    }
    assert_eq!(two.last, before + 10, "each number once, and none left out");
    assert!(start.elapsed() < PERIOD * 20, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn counters_that_went_apart_are_one_again_and_never_step_back() {
    let (here, there) = two_ways();
    let mut one = tick(&here).await;
    for _ in 0..10 {
        one.tick().await;
    }
    there.cut();
    // It knows nothing of the other, and begins with zero.
    let mut two = tick(&there).await;
    assert_eq!(two.tick().await, 0);
    two.tick().await;
    there.mend();
    // Every reading asserts that no number is lower than the one before, nor the same.
    sleep(PERIOD * 10).await;
    let (here, there) = (one.newest().await, two.newest().await);
    assert!(here.abs_diff(there) <= 1, "{here} and {there}");
    assert!(there > 20, "the higher one is that of both: {there}");
}

#[tokio::test(start_paused = true)]
async fn what_is_said_on_one_node_is_heard_on_both() {
    let (here, there) = two_ways();
    let (mut one, mut two) = (tick(&here).await, tick(&there).await);
    together("talk", 2, [&one.hub, &two.hub]).await;
    one.socket.write(masked(TEXT, b"a:b")).await;
    assert_eq!(without_ticks(&mut one.socket).await, "msg:a:b");
    assert_eq!(without_ticks(&mut two.socket).await, "msg:a:b");
    two.socket.write(masked(TEXT, b"and back")).await;
    assert_eq!(without_ticks(&mut one.socket).await, "msg:and back");
    assert_eq!(without_ticks(&mut two.socket).await, "msg:and back");
}

// --- chat ---

#[tokio::test(start_paused = true)]
async fn lines_goodbyes_and_names_are_those_of_both_nodes() {
    let (here, there) = two_ways();
    let [a, b] = [&here, &there].map(|way| Chat::start_on(way.hub()));
    let hubs = [a.hub().clone(), b.hub().clone()];
    let a = serve(a.route(WebSocketLayer::new()));
    let b = serve(b.route(WebSocketLayer::new()));
    let mut ann = a.open("/chat").await;
    let mut bob = b.open("/chat").await;
    let mut plain = b.open("/chat").await;
    together("lines", 3, [&hubs[0], &hubs[1]]).await;

    ann.write(masked(TEXT, br#"{"name":"Ann"}"#)).await;
    assert_eq!(text(&mut ann).await, r#"{"members":["Ann"]}"#);
    until(|| hubs[1].member_count("members") == 1).await;
    bob.write(masked(TEXT, br#"{"name":"Bob"}"#)).await;
    for socket in [&mut ann, &mut bob] {
        assert_eq!(text(socket).await, r#"{"members":["Ann","Bob"]}"#);
    }
    // The other node does not send its list, too.
    sleep(Duration::from_millis(200)).await;
    bob.write(masked(TEXT, b"Hello")).await;
    for socket in [&mut ann, &mut bob, &mut plain] {
        assert_eq!(text(socket).await, "Hello");
    }
    bob.write(masked(CLOSE, b"\x03\xe8Bob has left")).await;
    assert_eq!(bob.rest().await, b"\x88\x02\x03\xe8");
    assert_eq!(text(&mut plain).await, "Bob has left");
    let mut rest = [text(&mut ann).await, text(&mut ann).await];
    rest.sort_unstable();
    assert_eq!(rest, ["Bob has left", r#"{"members":["Ann"]}"#]);
}

#[tokio::test(start_paused = true)]
async fn a_line_tells_how_many_lines_were_lost_between_the_nodes() {
    let (here, there) = two_ways();
    let [a, b] = [&here, &there].map(|way| Chat::start_on(way.hub()));
    let hubs = [a.hub().clone(), b.hub().clone()];
    let a = serve(a.route(WebSocketLayer::new()));
    let b = serve(b.route(WebSocketLayer::new()));
    let mut ann = a.open("/chat").await;
    let mut bob = b.open("/chat").await;
    together("lines", 2, [&hubs[0], &hubs[1]]).await;
    ann.write(masked(TEXT, b"before")).await;
    assert_eq!(text(&mut bob).await, "before");
    here.cut();
    for _ in 0..3 {
        ann.write(masked(TEXT, b"unheard")).await;
    }
    // Longer than a message waits for the broker.
    sleep(DEADLINE * 3).await;
    here.mend();
    assert_eq!(
        text(&mut bob).await,
        "(3 lines were lost between the servers)"
    );
}

// --- board ---

const POINT: &str = r##"{"x":12,"y":34.5,"c":"#d9822b"}"##;

#[tokio::test(start_paused = true)]
async fn two_on_two_nodes_draw_on_one_board() {
    let (here, there) = two_ways();
    let (a, _) = boards(&here, Limits::default());
    let (b, _) = boards(&there, Limits::default());
    let mut one = a.open("/ws/board/a").await;
    // An answer says that it has its place.
    placed(&mut one).await;
    let mut two = b.open("/ws/board/a").await;
    let mut elsewhere = b.open("/ws/board/b").await;
    two.write(masked(TEXT, POINT.as_bytes())).await;
    assert_eq!(text(&mut one).await, POINT);
    one.write(masked(TEXT, b"clear")).await;
    // The first that comes: its own point did not.
    assert_eq!(text(&mut two).await, "clear");
    let nothing = timeout(Duration::from_millis(50), elsewhere.frame()).await;
    assert!(nothing.is_err(), "{nothing:?}");
}

#[tokio::test(start_paused = true)]
async fn a_board_ends_on_both_nodes_when_its_first_participant_has_had_his_time() {
    let (here, there) = two_ways();
    let mut limits = Limits::default();
    (limits.lifetime, limits.clock) = (Duration::from_secs(10), clock);
    let (a, _) = boards(&here, limits);
    let (b, _) = boards(&there, limits);
    let start = Instant::now();
    let mut one = a.open("/ws/board/a").await;
    placed(&mut one).await;
    sleep(limits.lifetime / 2).await;
    let mut late = b.open("/ws/board/a").await;
    placed(&mut late).await;
    for socket in [&mut late, &mut one] {
        let (first, payload) = socket.frame().await;
        assert_eq!((first, &payload[..2]), (CLOSE, &[3, 0xe9][..]));
        assert_eq!(&payload[2..], REASON.as_bytes());
    }
    let life = start.elapsed();
    let in_time = limits.lifetime..limits.lifetime + Duration::from_secs(1);
    assert!(in_time.contains(&life), "{life:?}");
    // By the clock of the other node, too.
    sleep(Duration::from_millis(100)).await;
    // The next one with this id is another board, whoever has not gone yet.
    let mut again = b.open("/ws/board/a").await;
    placed(&mut again).await;
    let mut other = a.open("/ws/board/a").await;
    other.write(masked(TEXT, b"clear")).await;
    assert_eq!(text(&mut again).await, "clear");
    for mut ended in [one, late] {
        ended.write(masked(CLOSE, &[3, 0xe9])).await;
        assert_eq!(
            ended.rest().await,
            b"",
            "there is one Close, and it is the last"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_board_that_began_twice_is_the_older_one_when_the_broker_is_back() {
    let (here, there) = two_ways();
    let mut limits = Limits::default();
    (limits.lifetime, limits.clock) = (Duration::from_secs(10), clock);
    let (a, _) = boards(&here, limits);
    let (b, _) = boards(&there, limits);
    there.cut();
    let start = Instant::now();
    let mut one = a.open("/ws/board/a").await;
    placed(&mut one).await;
    sleep(limits.lifetime / 4).await;
    let mut two = b.open("/ws/board/a").await;
    placed(&mut two).await;
    let waited = start.elapsed();
    let most = limits.lifetime / 4 + Duration::from_secs(5);
    assert!(waited < most, "nobody waits for long: {waited:?}");
    there.mend();
    let met = within(async {
        loop {
            two.write(masked(TEXT, POINT.as_bytes())).await;
            if let Ok(frame) = timeout(Duration::from_millis(20), one.frame()).await {
                return frame;
            }
        }
    })
    .await;
    assert_eq!(met, (TEXT, POINT.into()));
    let (first, payload) = two.frame().await;
    assert_eq!((first, &payload[..2]), (CLOSE, &[3, 0xe9][..]));
    let life = start.elapsed();
    let in_time = limits.lifetime..limits.lifetime + Duration::from_secs(1);
    assert!(in_time.contains(&life), "that of the older one: {life:?}");
}

#[tokio::test(start_paused = true)]
async fn participants_are_counted_over_both_nodes() {
    let (here, there) = two_ways();
    let mut limits = Limits::default();
    limits.participants = 2;
    let (a, _) = boards(&here, limits);
    let (b, hub) = boards(&there, limits);
    let mut one = a.open("/ws/board/a").await;
    let mut two = b.open("/ws/board/a").await;
    placed(&mut one).await;
    placed(&mut two).await;
    until(|| hub.member_count("a") == 2).await;
    let refused = b.ask(handshake("/ws/board/a")).await;
    assert!(refused.starts_with("http/1.1 503 "), "{refused}");
    one.close().await;
    until(|| hub.member_count("a") == 1).await;
    let mut three = b.open("/ws/board/a").await;
    placed(&mut three).await;
    // This node has nobody at the board: it asks before it says no.
    let mut four = a.open("/ws/board/a").await;
    let (first, payload) = four.frame().await;
    assert_eq!((first, &payload[..2]), (CLOSE, &[3, 0xf5][..]));
    assert!(payload.ends_with(b"no room for more"), "{payload:?}");
}

// --- sensors ---

#[tokio::test(start_paused = true)]
async fn a_value_goes_to_viewers_of_both_nodes_and_to_those_who_come_later() {
    let (here, there) = two_ways();
    let [a, b] = [&here, &there].map(|way| Sensors::new_on(way.hub(), Duration::ZERO));
    let hub = b.hub().clone();
    let a = serve(a.route(WebSocketLayer::new()));
    let b = serve(b.route(WebSocketLayer::new()));
    let mut producer = a.open("/sensors").await;
    let mut viewer = b.open("/sensors").await;
    within(hub.subscribed("values")).await;
    until(|| hub.member_count("values") == 2).await;
    for value in ["1 2 3 4 5 6", "359.5 -90 1e1 0 -0.5 9.81"] {
        producer.write(masked(TEXT, value.as_bytes())).await;
        assert_eq!(text(&mut producer).await, value);
        assert_eq!(text(&mut viewer).await, value);
    }
    // Nobody is left on the other node.
    viewer.close().await;
    until(|| hub.member_count("values") == 1).await;
    producer.write(masked(TEXT, b"0 0 0 0 0 1")).await;
    until(|| {
        hub.retained("values")
            .is_some_and(|it| it.as_text() == Some("0 0 0 0 0 1"))
    })
    .await;
    let mut late = b.open("/sensors").await;
    assert_eq!(text(&mut late).await, "0 0 0 0 0 1");
    // A node that comes later has it from the others.
    let c = Sensors::new_on(here.hub(), Duration::ZERO);
    let c = serve(c.route(WebSocketLayer::new()));
    let mut later = c.open("/sensors").await;
    assert_eq!(text(&mut later).await, "0 0 0 0 0 1");
}

// --- the pieces ---

struct Ticking {
    socket: Raw<DuplexStream>,
    hub: Hub,
    last: u64,
    is_first: bool,
}

async fn tick(way: &Way) -> Ticking {
    let tick = Tick::start_on(way.hub(), PERIOD);
    let hub = tick.hub().clone();
    let address = serve(tick.route(WebSocketLayer::new()));
    Ticking {
        socket: address.open("/tick").await,
        hub,
        last: 0,
        is_first: true,
    }
}

impl Ticking {
    /// The next count, which is more than the one before.
    async fn tick(&mut self) -> u64 {
        let tick = text(&mut self.socket).await;
        let count = tick.strip_prefix("tick:").and_then(|it| it.parse().ok());
        let count = count.unwrap_or_else(|| panic!("{tick}"));
        assert!(
            self.is_first || count > self.last,
            "{count} after {}",
            self.last
        );
        (self.last, self.is_first) = (count, false);
        count
    }

    /// The last count of those that have come.
    async fn newest(&mut self) -> u64 {
        while timeout(PERIOD / 4, self.tick()).await.is_ok() {}
        self.last
    }
}

async fn without_ticks(socket: &mut Raw<DuplexStream>) -> String {
    loop {
        let text = text(socket).await;
        if !text.starts_with("tick:") {
            return text;
        }
    }
}

fn boards(way: &Way, limits: Limits) -> (Dial, Hub) {
    let boards = Boards::new_on(way.hub(), limits);
    let hub = boards.hub().clone();
    (serve(boards.route(WebSocketLayer::new())), hub)
}

/// A participant is answered when it has its place.
async fn placed(socket: &mut Raw<DuplexStream>) {
    socket.write(masked(TEXT, b"?")).await;
    assert!(text(socket).await.starts_with(r#"{"error":"#));
}

/// Both nodes know of so many members, and each hears the other.
async fn together(topic: &str, members: usize, hubs: [&Hub; 2]) {
    for hub in hubs {
        within(hub.subscribed(topic)).await;
        until(|| hub.member_count(topic) == members).await;
    }
}

fn serve(sockets: WebSocketLayer) -> Dial {
    let (dial, memory) = Dial::new();
    tokio::spawn(ws_hyper::serve(memory, sockets.into_service()).into_future());
    dial
}

/// The next frame, which is a text.
async fn text(socket: &mut Raw<DuplexStream>) -> String {
    let (first, payload) = socket.frame().await;
    assert_eq!(first, TEXT, "{}", String::from_utf8_lossy(&payload));
    String::from_utf8(payload).expect("a text is UTF-8")
}

// --- a broker, and a node's way to it that can be cut ---

const BEAT: Duration = Duration::from_millis(100);
const DEADLINE: Duration = Duration::from_millis(200);

#[derive(Clone)]
struct Way {
    broker: InProcess,
    is_cut: watch::Sender<bool>,
}

fn two_ways() -> (Way, Way) {
    let broker = InProcess::new();
    let way = || Way {
        broker: broker.clone(),
        is_cut: watch::Sender::new(false),
    };
    (way(), way())
}

impl Way {
    fn hub(&self) -> HubBuilder {
        let backplane = Backplane::new(self.clone());
        let backplane = backplane.heartbeat(BEAT).max_backoff(BEAT);
        Hub::builder().backplane(backplane.deadline(DEADLINE))
    }

    fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    fn mend(&self) {
        self.is_cut.send_replace(false);
    }
}

struct Half<T>(T, watch::Receiver<bool>);

impl Broker for Way {
    type Commands = Half<<InProcess as Broker>::Commands>;
    type Messages = Half<<InProcess as Broker>::Messages>;

    async fn connect(&self) -> Result<(Self::Commands, Self::Messages), BoxError> {
        if *self.is_cut.borrow() {
            return Err("cut".into());
        }
        let (commands, messages) = self.broker.connect().await?;
        let is_cut = self.is_cut.subscribe();
        Ok((Half(commands, is_cut.clone()), Half(messages, is_cut)))
    }
}

impl Commands for Half<<InProcess as Broker>::Commands> {
    async fn subscribe(&mut self, channels: &[String]) -> Result<(), BoxError> {
        self.0.subscribe(channels).await
    }

    async fn unsubscribe(&mut self, channels: &[String]) -> Result<(), BoxError> {
        self.0.unsubscribe(channels).await
    }

    async fn publish(&mut self, batch: &[(String, Bytes)]) -> Result<(), BoxError> {
        if *self.1.borrow() {
            return Err("cut".into());
        }
        self.0.publish(batch).await
    }
}

impl Messages for Half<<InProcess as Broker>::Messages> {
    async fn recv(&mut self) -> Result<(String, Bytes), BoxError> {
        tokio::select! {
            _ = self.1.wait_for(|it| *it) => Err("cut".into()),
            received = self.0.recv() => received,
        }
    }
}
