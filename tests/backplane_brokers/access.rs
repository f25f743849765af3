//! Brokers that ask who is there, with the very lines of the docs.

use ::redis::ErrorKind;
use tokio::time::timeout;
use ws_tests::broker::{Broker, Kind, write};
use ws_tower::hub::{
    Backplane,
    backplane::{Nats, Redis},
};

use super::{
    log,
    node::{Node, SOON, ask, three, until},
};

const ACL: &str = include_str!("../../ws-tower/src/hub/backplane/operation/redis.acl");
const NATS: &str = include_str!("../../ws-tower/src/hub/backplane/operation/nats.conf");

/// Each node reaches the others, and is heard to leave.
async fn works(nodes: [Node; 3]) {
    let [mut first, mut second, third] = nodes;
    for count in 0..100 {
        first.hub.publish("lobby", format!("0 {count}"));
    }
    for node in [&mut first, &mut second] {
        assert_eq!(node.read_until([100, 0, 0]).await, ([100, 0, 0], 0));
    }
    drop(third);
    for node in [&first, &second] {
        until("one less", || node.hub.member_count("lobby") == 2).await;
        let stats = node.stats();
        assert_eq!((stats.disconnects, stats.failed_connects), (0, 0));
    }
}

/// A hub that the broker does not let in works by itself, and says why it is alone.
async fn is_alone(node: &mut Node, reason: &str) {
    until("it has tried", || node.stats().failed_connects >= 2).await;
    assert_eq!(node.stats().connected, 0);
    assert_eq!(node.hub.publish("lobby", "0 0"), 1);
    assert_eq!(node.text().await, "0 0");
    until("it is given up", || node.stats().expired == 1).await;
    let said = log::said();
    assert!(said.contains("the hub cannot reach its broker"), "{said}");
    assert!(said.to_lowercase().contains(reason), "{said}");
}

mod redis {
    use super::*;

    async fn guarded() -> Broker {
        Broker::start_with(Kind::Redis, |directory, _| {
            vec!["--aclfile".into(), write(directory, "users.acl", ACL)]
        })
        .await
    }

    async fn refusal(server: &Broker, command: &[&str]) -> Option<ErrorKind> {
        let client = ::redis::Client::open(server.url_of("ws:secret@")).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut question = ::redis::cmd(command[0]);
        let answer = question.arg(&command[1..]);
        let answer = answer.query_async::<::redis::Value>(&mut connection).await;
        answer.err().map(|error| error.kind())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs a broker: tests/full.sh"]
    async fn with_the_line_of_the_docs_lets_a_hub_do_its_work_and_nothing_else() {
        let server = guarded().await;
        let url = server.url_of("ws:secret@");
        works(three(|_| Node::patient(Redis::new(&url).unwrap())).await).await;

        let refused = Some(ErrorKind::Server(::redis::ServerErrorKind::NoPerm));
        for command in [
            &["SET", "key", "value"][..],
            &["GET", "ws:key"],
            &["PUBLISH", "other", "text"],
            &["SUBSCRIBE", "other"],
            &["PSUBSCRIBE", "*"],
            &["CONFIG", "GET", "*"],
            &["CLIENT", "LIST"],
        ] {
            assert_eq!(refusal(&server, command).await, refused, "{command:?}");
        }
        assert_eq!(refusal(&server, &["PUBLISH", "ws:x", "text"]).await, None);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs a broker: tests/full.sh"]
    async fn that_refuses_the_password_leaves_the_hub_alone_until_it_takes_it() {
        log::listen();
        let server = guarded().await;
        let broker = Redis::new(&server.url_of("ws:mellon-1@")).unwrap();
        let shown = format!("{broker:?} {:?}", Backplane::new(broker.clone()));
        let mut node = Node::of(broker);
        is_alone(&mut node, "wrongpass").await;
        // A user may have several passwords: that is how one is replaced.
        let () = ask(&server, &["ACL", "SETUSER", "ws", ">mellon-1"]).await;
        node.ready().await;

        let wrong = Redis::new("redis://ws:mellon-1@[broken").unwrap_err();
        let shown = format!("{shown} {wrong} {wrong:?} {}", log::said());
        assert!(!shown.contains("mellon-1"), "{shown}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs a broker: tests/full.sh"]
    async fn that_refuses_a_channel_is_not_taken_for_one_that_works() {
        log::listen();
        let server = guarded().await;
        let broker = Redis::new(&server.url_of("ws:secret@")).unwrap();
        let node = Node::of(Backplane::new(broker).prefix("other"));
        until("it gives up", || node.stats().disconnects >= 2).await;
        assert!(log::said().contains("NoPerm"), "{}", log::said());
    }
}

mod nats {
    use super::*;

    async fn guarded(config: &str) -> Broker {
        Broker::start_with(Kind::Nats, |directory, _| {
            vec!["-c".into(), write(directory, "nats.conf", config)]
        })
        .await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs a broker: tests/full.sh"]
    async fn with_the_permissions_of_the_docs_lets_a_hub_do_its_work_and_nothing_else() {
        let server = guarded(NATS).await;
        let url = server.url_of("ws:secret@");
        works(three(|_| Node::patient(Nats::new(&url))).await).await;

        let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
        let client =
            async_nats::ConnectOptions::with_user_and_password("ws".into(), "secret".into())
                .event_callback(move |event| {
                    let _ = sender.send(event.to_string());
                    std::future::ready(())
                })
                .connect(server.url())
                .await
                .unwrap();
        client.publish("other", "text".into()).await.unwrap();
        let _subscription = client.subscribe(">").await.unwrap();
        client.flush().await.unwrap();
        let mut refused = 0;
        while refused < 2 {
            let event = timeout(SOON, events.recv()).await.unwrap().unwrap();
            refused += usize::from(event.contains("Permissions Violation"));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs a broker: tests/full.sh"]
    async fn takes_a_token_from_the_url() {
        let server =
            Broker::start_with(Kind::Nats, |_, _| vec!["--auth".into(), "s3cr3t".into()]).await;
        let url = server.url_of("s3cr3t@");
        works(three(|_| Node::patient(Nats::new(&url))).await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs a broker: tests/full.sh"]
    async fn that_refuses_the_password_leaves_the_hub_alone_until_it_takes_it() {
        log::listen();
        let server = guarded(NATS).await;
        let broker = Nats::new(&server.url_of("ws:mellon-2@"));
        let shown = format!("{broker:?} {:?}", Backplane::new(broker.clone()));
        let mut node = Node::of(broker);
        is_alone(&mut node, "authorization violation").await;
        server.write("nats.conf", &NATS.replace("secret", "mellon-2"));
        server.signal("-HUP");
        node.ready().await;
        let shown = format!("{shown} {}", log::said());
        assert!(!shown.contains("mellon-2"), "{shown}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs a broker: tests/full.sh"]
    async fn that_refuses_a_subject_is_not_taken_for_one_that_works() {
        log::listen();
        for (publish, subscribe) in [("ws.>", "ws.nodes"), ("ws.nodes", "ws.>")] {
            let allowed = format!("publish: \"{publish}\", subscribe: \"{subscribe}\"");
            let of_the_docs = "publish: \"ws.>\", subscribe: \"ws.>\"";
            assert!(NATS.contains(of_the_docs));
            let server = guarded(&NATS.replace(of_the_docs, &allowed)).await;
            let node = Node::of(Nats::new(&server.url_of("ws:secret@")));
            until("it gives up", || node.stats().disconnects >= 2).await;
            let said = || log::said().to_lowercase().contains("permissions violation");
            until("it says why", said).await;
        }
    }
}
