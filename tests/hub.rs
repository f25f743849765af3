//! The hub: who gets what, who is there, and what is promised on the way.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt};
use http::{Request, Response};
use tokio::{
    io::{AsyncReadExt, DuplexStream, duplex},
    net::TcpListener,
    task::yield_now,
    time::timeout,
};
use tower::{Layer, ServiceExt, service_fn};
use ws_core::{
    Connection, Role,
    handshake::{client, server},
};
use ws_tests::{
    io::Recorder,
    peer::Peer,
    raw::{Raw, handshake},
};
use ws_tower::{
    BoxError, CloseCode, CloseFrame, Config, Message, NoHandler, PreparedMessage, Session,
    WebSocket, WebSocketLayer, WebSocketUpgrade,
    hub::{Hub, Member, Policy, Presence, Seat, Watch},
    pair,
    upgrade::test_request,
};

const SOON: Duration = Duration::from_secs(30);

fn quiet() -> Config {
    Config::new().keepalive_interval(None)
}

async fn text(socket: &mut WebSocket) -> String {
    let message = timeout(SOON, socket.recv()).await.unwrap();
    message.unwrap().unwrap().as_text().unwrap().to_owned()
}

/// Nothing has come, and nothing is on its way.
async fn nothing(socket: &mut WebSocket) {
    for _ in 0..20 {
        yield_now().await;
    }
    assert!(socket.recv().now_or_never().is_none());
}

// Who gets what.

#[tokio::test(start_paused = true)]
async fn a_message_reaches_all_members_of_its_topic_and_nobody_else() {
    let hub = Hub::new();
    let (mut ann, ann_there) = pair(quiet());
    let (mut bob, bob_there) = pair(quiet());
    let (mut eve, eve_there) = pair(quiet());
    let seats = [
        hub.join("lobby", &ann_there),
        hub.join("lobby", &bob_there.sender()),
        hub.join("cellar", &eve_there),
    ];
    assert_eq!(hub.publish("lobby", "hello"), 2);
    assert_eq!(hub.publish("cellar", Message::binary(&b"psst"[..])), 1);
    assert_eq!(hub.publish("attic", "nobody"), 0);
    assert_eq!(text(&mut ann).await, "hello");
    assert_eq!(text(&mut bob).await, "hello");
    let message = eve.recv().await.unwrap().unwrap();
    assert_eq!(message, Message::binary(&b"psst"[..]));
    for socket in [&mut ann, &mut bob, &mut eve] {
        nothing(socket).await;
    }
    assert_eq!(
        seats.each_ref().map(Seat::topic),
        ["lobby", "lobby", "cellar"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_message_goes_to_all_but_one_or_to_one_alone() {
    let hub = Hub::new();
    let (mut ann, ann_there) = pair(quiet());
    let (mut bob, bob_there) = pair(quiet());
    let ann_seat = hub.join("lobby", &ann_there);
    let bob_seat = hub.join("lobby", &bob_there);
    assert_eq!(ann_seat.publish_to_others("from ann"), 1);
    assert_eq!(hub.publish_except("lobby", bob_seat.id(), "not for bob"), 1);
    assert!(hub.publish_to("lobby", bob_seat.id(), "for bob"));
    assert_eq!(ann_seat.publish("for both"), 2);
    let prepared = PreparedMessage::new("twice");
    assert_eq!(bob_seat.publish_prepared(&prepared), 2);
    assert_eq!(bob_seat.publish_prepared_to_others(&prepared), 1);
    assert_eq!(hub.publish_prepared("lobby", &prepared), 2);
    for expected in ["not for bob", "for both", "twice", "twice", "twice"] {
        assert_eq!(text(&mut ann).await, expected);
    }
    for expected in ["from ann", "for bob", "for both", "twice", "twice"] {
        assert_eq!(text(&mut bob).await, expected);
    }
    nothing(&mut ann).await;
    nothing(&mut bob).await;
}

#[tokio::test(start_paused = true)]
async fn an_id_names_one_seat_and_no_other_after_it() {
    let hub = Hub::new();
    let (_client, there) = pair(quiet());
    let (_other, other_there) = pair(quiet());
    let _keeps_the_topic = hub.join("lobby", &other_there);
    let first = hub.join("lobby", &there);
    let id = first.id();
    drop(first);
    assert!(!hub.publish_to("lobby", id, "late"));
    let second = hub.join("lobby", &there);
    assert_ne!(second.id(), id);
    assert!(second.id().number() > id.number());
    assert_eq!(second.id().to_string(), second.id().number().to_string());
    assert!(!hub.publish_to("lobby", id, "late"));
    assert!(!hub.publish_to("elsewhere", second.id(), "not there"));
    assert_eq!(hub.publish_except("lobby", id, "to both"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_socket_may_be_in_many_topics_and_hubs() {
    let (one, two) = (Hub::new(), Hub::new());
    let (mut client, there) = pair(quiet());
    let a = one.join("a", &there);
    let b = one.join("b", &there);
    let other = two.join("a", &there);
    let twice = one.join("a", &there);
    assert_eq!(one.publish("a", "one a"), 2);
    assert_eq!(one.publish("b", "one b"), 1);
    assert_eq!(two.publish("a", "two a"), 1);
    assert_eq!(two.publish("b", "two b"), 0);
    for expected in ["one a", "one a", "one b", "two a"] {
        assert_eq!(text(&mut client).await, expected);
    }
    drop((a, other));
    assert_eq!(one.publish("a", "again"), 1);
    assert_eq!((one.topic_count(), two.topic_count()), (2, 0));
    drop((b, twice));
    assert_eq!(one.topic_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_topic_is_gone_with_its_last_member() {
    let hub = Hub::new();
    let (_client, there) = pair(quiet());
    assert_eq!(hub.publish("a", "nobody"), 0);
    assert!(hub.members("a").is_empty());
    assert_eq!(hub.topic_count(), 0);
    let seats = [hub.join("a", &there), hub.join("a", &there)];
    assert_eq!((hub.member_count("a"), hub.topic_count()), (2, 1));
    assert_eq!(hub.topics(), [Arc::<str>::from("a")]);
    for (seat, left) in seats.into_iter().zip([1, 0]) {
        drop(seat);
        assert_eq!((hub.member_count("a"), hub.topic_count()), (left, left));
    }
    let again = hub.join("a", &there);
    assert_eq!(hub.publish("a", "again"), 1);
    drop(again);
    // Only what had members counts.
    assert_eq!((hub.stats().published, hub.stats().delivered), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn the_sockets_of_a_topic_can_be_closed_with_a_reason() {
    let hub = Hub::new();
    let (mut ann, ann_there) = pair(quiet());
    let (mut bob, bob_there) = pair(quiet());
    let _ann_seat = hub.join("board", &ann_there);
    let _bob_seat = hub.join("other", &bob_there);
    hub.publish("board", "last");
    let close = CloseFrame::truncated(CloseCode::GOING_AWAY, "Board can't exist for more than 5mn");
    assert_eq!(hub.close("board", &close), 1);
    assert_eq!(hub.close("nowhere", &close), 0);
    assert_eq!(text(&mut ann).await, "last");
    assert!(ann.recv().await.is_none());
    let closed = ann.closed().await;
    let received = closed.received().unwrap().frame().unwrap().clone();
    assert_eq!(received, close);
    assert_eq!(hub.publish("other", "still there"), 1);
    assert_eq!(text(&mut bob).await, "still there");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_members_share_one_topic() {
    let hub = Hub::new();
    let (mut client, there) = pair(quiet().outgoing_high_water(1 << 20));
    let mut seats: Vec<_> = (0..1000).map(|_| hub.join("crowd", &there)).collect();
    assert_eq!(hub.publish("crowd", "x"), 1000);
    assert_eq!(hub.members("crowd").len(), 1000);
    for _ in 0..1000 {
        assert_eq!(text(&mut client).await, "x");
    }
    // Every second one: there are holes in all segments, and they are filled again.
    let mut number = 0;
    seats.retain(|_| {
        number += 1;
        number % 2 == 0
    });
    assert_eq!(hub.publish("crowd", "y"), 500);
    seats.extend((0..700).map(|_| hub.join("crowd", &there)));
    assert_eq!(hub.publish("crowd", "z"), 1200);
    for seat in &seats {
        assert!(seat.is_taken());
        assert!(hub.publish_to("crowd", seat.id(), "you"));
    }
    drop(seats);
    assert_eq!(hub.topic_count(), 0);
}

// Handlers and wake-ups.

#[tokio::test(start_paused = true)]
async fn publishing_wakes_no_handler() {
    let hub = Hub::new();
    let (near, far) = duplex(64 << 10);
    let polls = Arc::new(AtomicUsize::new(0));
    let (counted, joined) = (Arc::clone(&polls), hub.clone());
    let connection = Connection::new(Role::Server, quiet());
    tokio::spawn(Session::with_handler(
        far,
        connection,
        async move |socket| {
            let _seat = joined.join("topic", &socket);
            std::future::poll_fn(|_| {
                counted.fetch_add(1, Ordering::Relaxed);
                Poll::<Result<(), BoxError>>::Pending
            })
            .await
        },
    ));
    let mut peer = Peer::client(near);
    yield_now().await;
    for number in 0..100 {
        assert_eq!(hub.publish("topic", number.to_string()), 1);
        assert_eq!(peer.message().await, Some(number.to_string().into()));
    }
    assert_eq!(polls.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_published_together_is_one_write_and_one_wake_up() {
    let hub = Hub::new();
    let (near, far) = duplex(64 << 10);
    let (io, tape) = Recorder::new(far);
    let (session, socket) = Session::new(io, Connection::new(Role::Server, quiet()));
    let mut session = Task::new(session);
    assert!(session.poll());
    let _seat = hub.join("topic", &socket);
    for round in 1..=3 {
        for _ in 0..16 {
            assert_eq!(hub.publish("topic", "x"), 1);
        }
        assert_eq!(session.wakes(), round);
        assert!(session.poll());
        assert_eq!(tape.get().writes, vec![16 * 3; round]);
    }
    drop(near);
}

/// A session that is polled by hand, and counts how often it is woken.
struct Task<F> {
    future: std::pin::Pin<Box<F>>,
    waker: Arc<Wakes>,
}

#[derive(Default)]
struct Wakes {
    count: AtomicUsize,
    then: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let then = self.then.lock().unwrap().take();
        if let Some(then) = then {
            then();
        }
    }
}

impl<F: Future> Task<F> {
    fn new(future: F) -> Self {
        Self {
            future: Box::pin(future),
            waker: Arc::default(),
        }
    }

    /// Polls once. Says whether it is pending.
    fn poll(&mut self) -> bool {
        let waker = Waker::from(Arc::clone(&self.waker));
        let before = self.wakes();
        let pending = self
            .future
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending();
        assert_eq!(self.wakes(), before, "it woke itself");
        pending
    }

    fn wakes(&self) -> usize {
        self.waker.count.load(Ordering::Relaxed)
    }
}

type Duplex = Session<DuplexStream, NoHandler>;

fn by_hand() -> (Task<Duplex>, WebSocket, DuplexStream) {
    let (near, far) = duplex(64 << 10);
    let (session, socket) = Session::new(far, Connection::new(Role::Server, quiet()));
    (Task::new(session), socket, near)
}

#[tokio::test(start_paused = true)]
async fn a_waker_may_do_with_the_hub_what_it_likes() {
    let hub = Hub::new();
    let (mut task, socket, _near) = by_hand();
    assert!(task.poll());
    let (other_client, other) = pair(quiet());
    let other_seat = hub.join("topic", &other);
    let seat = hub.join("topic", &socket);
    let id = seat.id();
    let inner = hub.clone();
    *task.waker.then.lock().unwrap() = Some(Box::new(move || {
        assert_eq!(inner.members("topic").len(), 2);
        assert_eq!(inner.publish("topic", "from a waker"), 2);
        assert!(inner.publish_to("topic", id, "from a waker"));
        drop(inner.join("topic", &socket));
        drop(seat);
        drop(socket);
        assert_eq!(inner.member_count("topic"), 1);
    }));
    assert_eq!(hub.publish("topic", "x"), 2);
    assert_eq!(hub.member_count("topic"), 1);
    drop((other_seat, other_client));
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_publish_to_its_own_topic() {
    let hub = Hub::new();
    let handler_hub = hub.clone();
    let (near, far) = duplex(64 << 10);
    let connection = Connection::new(Role::Server, quiet());
    let session = Session::with_handler(far, connection, async move |mut socket: WebSocket| {
        let seat = handler_hub.join("topic", &socket);
        while let Some(message) = socket.recv().await {
            seat.publish(message?);
            socket.send("sent").await?;
            seat.publish("after");
        }
        Ok(())
    });
    let session = tokio::spawn(session);
    let mut peer = Peer::client(near);
    for _ in 0..10 {
        peer.send("hello").await.unwrap();
        for expected in ["hello", "sent", "after"] {
            assert_eq!(peer.message().await, Some(expected.into()));
        }
    }
    peer.close(CloseFrame::from(CloseCode::NORMAL))
        .await
        .unwrap();
    assert!(session.await.unwrap().is_clean());
    assert_eq!(hub.topic_count(), 0);
}

// The handshake.

#[tokio::test(start_paused = true)]
async fn no_message_precedes_the_handshake_on_the_wire() {
    let hub = Hub::new();
    let joined = hub.clone();
    let application = service_fn(move |request: Request<hyper::body::Incoming>| {
        let hub = joined.clone();
        async move {
            let upgrade = request.extensions().get::<WebSocketUpgrade>().cloned();
            let (response, socket) = upgrade
                .unwrap()
                .accept::<http_body_util::Empty<bytes::Bytes>>();
            let seat = hub.join("topic", &socket);
            // The 101 has not even been returned.
            assert_eq!(hub.publish("topic", "early"), 1);
            tokio::spawn(async move {
                let closed = socket.closed().await;
                drop(seat);
                closed
            });
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let service = WebSocketLayer::new().layer(application);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { ws_hyper::serve(listener, service).await });
    let mut raw = Raw::connect(address).await;
    raw.write(handshake("/")).await;
    assert!(raw.head().await.starts_with("http/1.1 101 "));
    assert_eq!(raw.read(7).await, b"\x81\x05early");
    assert_eq!(hub.publish("topic", "later"), 1);
    assert_eq!(raw.read(7).await, b"\x81\x05later");
    server.abort();
}

#[tokio::test(start_paused = true)]
async fn a_seat_before_the_handshake_is_left_when_the_handshake_fails() {
    let hub = Hub::new();
    let joined = hub.clone();
    let application = service_fn(move |request: Request<String>| {
        let hub = joined.clone();
        async move {
            let upgrade = request.extensions().get::<WebSocketUpgrade>().cloned();
            let (_acceptance, socket) = upgrade.unwrap().accept::<String>();
            let seat = hub.join("topic", &socket);
            assert_eq!(hub.publish("topic", "never"), 1);
            tokio::spawn(async move { (socket.closed().await, seat) });
            // Another response leaves.
            Ok::<_, std::convert::Infallible>(Response::new("no".to_owned()))
        }
    });
    let service = WebSocketLayer::new().layer(application);
    let (request, _client) = test_request("/");
    service.oneshot(request).await.unwrap();
    assert_eq!(hub.topic_count(), 0);
}

// Presence.

async fn expect(watch: &mut Watch) -> Presence {
    timeout(SOON, watch.recv()).await.unwrap().unwrap()
}

fn names(members: &[Member]) -> Vec<&str> {
    let mut names: Vec<_> = members.iter().filter_map(Member::metadata).collect();
    names.sort_unstable();
    names
}

#[tokio::test(start_paused = true)]
async fn presence_is_complete_and_in_order() {
    let hub = Hub::new();
    let (_client, there) = pair(quiet());
    let ann = hub.join_as("lobby", &there, "ann");
    let mut watch = hub.watch("lobby");
    assert_eq!(watch.topic(), "lobby");
    let Presence::Members(members) = expect(&mut watch).await else {
        panic!("the members come first");
    };
    assert_eq!(names(&members), ["ann"]);
    assert_eq!(members, hub.members("lobby"));
    assert_eq!(members[0].id(), ann.id());
    assert!(watch.recv().now_or_never().is_none());
    let bob = hub.join_as("lobby", &there, "bob".to_owned());
    let nameless = hub.join("lobby", &there);
    drop(ann);
    drop(bob);
    let mut story = Vec::new();
    for _ in 0..4 {
        let (what, member) = match watch.next().await.unwrap() {
            Presence::Joined(member) => ("joined", member),
            Presence::Left(member) => ("left", member),
            other => panic!("{other:?}"),
        };
        story.push((what, member.metadata().map(str::to_owned)));
    }
    let some = |name: &str| Some(name.to_owned());
    let expected = [
        ("joined", some("bob")),
        ("joined", None),
        ("left", some("ann")),
        ("left", some("bob")),
    ];
    assert_eq!(story, expected);
    drop(nameless);
    // The watch keeps the topic.
    assert_eq!((hub.topic_count(), hub.member_count("lobby")), (1, 0));
    drop(watch);
    assert_eq!(hub.topic_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_waits_is_woken() {
    let hub = Hub::new();
    let mut watch = hub.watch("lobby");
    assert_eq!(expect(&mut watch).await, Presence::Members(Vec::new()));
    let waits = tokio::spawn(async move { expect(&mut watch).await });
    yield_now().await;
    let (_client, there) = pair(quiet());
    let seat = hub.join("lobby", &there);
    let Presence::Joined(member) = waits.await.unwrap() else {
        panic!("it has joined");
    };
    assert_eq!((member.id(), member.metadata()), (seat.id(), None));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_behind_begins_anew() {
    let hub = Hub::new();
    let (_client, there) = pair(quiet());
    let mut watch = hub.watch("lobby");
    assert_eq!(expect(&mut watch).await, Presence::Members(Vec::new()));
    for number in 0..5000 {
        drop(hub.join_as("lobby", &there, number.to_string()));
    }
    let _last = hub.join_as("lobby", &there, "last");
    let Presence::Members(members) = expect(&mut watch).await else {
        panic!("not all members");
    };
    assert_eq!(names(&members), ["last"]);
    assert!(watch.recv().now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn two_watches_see_the_same() {
    let hub = Hub::new();
    let (_client, there) = pair(quiet());
    let mut watches = [hub.watch("lobby"), hub.watch("lobby")];
    for watch in &mut watches {
        expect(watch).await;
    }
    let seats: Vec<_> = (0..10).map(|_| hub.join("lobby", &there)).collect();
    drop(seats);
    let [first, second] = &mut watches;
    for _ in 0..20 {
        assert_eq!(expect(first).await, expect(second).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_hub_ends_its_watches_and_leaves_its_seats() {
    let hub = Hub::new();
    let (mut client, there) = pair(quiet());
    let seat = hub.join("lobby", &there);
    let mut watch = hub.watch("lobby");
    expect(&mut watch).await;
    let clone = hub.clone();
    drop(hub);
    assert!(watch.recv().now_or_never().is_none());
    drop(clone);
    assert_eq!(timeout(SOON, watch.recv()).await.unwrap(), None);
    assert_eq!(seat.publish("still here"), 1);
    assert_eq!(text(&mut client).await, "still here");
    drop(seat);
    assert!(there.is_open());
}

// Clients, and compression.

#[tokio::test(start_paused = true)]
async fn a_client_may_be_a_member_too() {
    let hub = Hub::new();
    let (client, mut there) = pair(quiet());
    let _seat = hub.join("upstream", &client);
    assert_eq!(hub.publish("upstream", "masked"), 1);
    assert_eq!(text(&mut there).await, "masked");
}

#[tokio::test(start_paused = true)]
async fn members_with_and_without_compression_get_the_same_message() {
    let hub = Hub::new();
    let text = "the same words again and again, ".repeat(40);
    let (client, server) = compressing();
    let (near, squeezed) = member(server);
    let (mut plain, straight) = member(Connection::new(Role::Server, quiet()));
    let _seats = [hub.join("topic", &squeezed), hub.join("topic", &straight)];
    assert_eq!(hub.publish("topic", text.clone()), 2);
    let mut wire = vec![0; 4 + text.len()];
    plain.read_exact(&mut wire).await.unwrap();
    assert_eq!(wire[..2], *b"\x81\x7e");
    assert_eq!(wire[4..], *text.as_bytes());
    let (near, tape) = Recorder::new(near);
    let mut peer = Peer {
        io: near,
        connection: client,
    };
    assert_eq!(peer.message().await, Some(text.into()));
    assert!(tape.get().reads.iter().sum::<usize>() < 100);
}

#[tokio::test(start_paused = true)]
async fn a_retained_message_is_compressed_for_a_member_that_agreed_on_it() {
    let hub = Hub::builder()
        .slow_consumer(Policy::default().retain())
        .build();
    let text = "the same words again and again, ".repeat(40);
    let _watch = hub.watch("topic");
    assert_eq!(hub.publish("topic", text.clone()), 0);
    let (client, server) = compressing();
    let (near, squeezed) = member(server);
    let _seat = hub.join("topic", &squeezed);
    let (near, tape) = Recorder::new(near);
    let mut peer = Peer {
        io: near,
        connection: client,
    };
    assert_eq!(peer.message().await, Some(text.into()));
    assert!(tape.get().reads.iter().sum::<usize>() < 100);
}

/// Both ends of a connection that has agreed on compression.
fn compressing() -> (Connection, Connection) {
    let config = Arc::new(quiet().deflate(ws_core::Deflate::default()));
    let uri = "ws://localhost/".parse().unwrap();
    let client = client::Handshake::new(&uri).unwrap().negotiate(&config);
    let (parts, ()) = client.request().into_parts();
    let offer = server::Offer::from_request(&parts).unwrap();
    let offer = offer.negotiate(&config).unwrap();
    let (response, by_server) = offer.accept(None).unwrap();
    let by_client = client.finish(&response).unwrap();
    assert!(by_client.extensions().deflate().is_some());
    let client = Connection::new(Role::Client, Arc::clone(&config));
    let server = Connection::new(Role::Server, config);
    (
        client.with_extensions(by_client.extensions()),
        server.with_extensions(by_server.extensions()),
    )
}

/// A session over a connection, and the bytes at its other end.
fn member(connection: Connection) -> (DuplexStream, WebSocket) {
    let (near, far) = duplex(64 << 10);
    let (session, socket) = Session::new(far, connection);
    tokio::spawn(session);
    (near, socket)
}
