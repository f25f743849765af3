use std::cell::Cell;

use tokio::time::advance;

use super::{super::RETENTION, *};

const QUIET: Duration = Duration::from_secs(5);

fn relay() -> Relay {
    Relay::new(NodeId(1), Options::default())
}

fn publish(relay: &Relay, topic: &str, text: &str) {
    relay.publish(topic, None, &Message::from(text));
}

#[tokio::test(start_paused = true)]
async fn what_is_in_time_does_not_wait_behind_what_is_late() {
    let relay = relay();
    for _ in 0..2000 {
        publish(&relay, "lobby", "late");
    }
    advance(relay.options.deadline).await;
    publish(&relay, "lobby", "in time");
    let mut batch = Batch::default();
    relay.take(&mut batch);
    assert_eq!(batch.payloads().len(), 1);
    assert_eq!(relay.counters.get().expired, 2000);
}

#[tokio::test]
async fn marks_are_not_queued_again_while_some_wait() {
    let relay = relay();
    for topic in 0..2000 {
        publish(&relay, &format!("{topic}"), "text");
    }
    let mut batch = Batch::default();
    while relay.lock().queue.len() > 0 {
        relay.take(&mut batch);
    }
    assert!(!relay.has_marks());
    relay.rewind();
    let mut taken = 0;
    while relay.mark_some(QUIET) || relay.has_marks() {
        assert!(relay.lock().queue.marks() <= 2 * BATCH);
        batch = Batch::default();
        relay.take(&mut batch);
        taken += batch.payloads().len();
    }
    assert_eq!(taken, 2000);
    relay.rewind();
    relay.mark_some(QUIET);
    relay.expire(&mut batch);
    assert!(!relay.has_marks());
}

#[tokio::test]
async fn answers_leave_in_pieces_that_a_broker_takes_in_time() {
    let relay = relay();
    for _ in 0..2000 {
        relay.order("ws:nodes".into(), Envelope::Bye);
    }
    let mut batches = 0;
    loop {
        let mut batch = Batch::default();
        relay.take(&mut batch);
        if batch.is_empty() {
            break;
        }
        assert!(batch.payloads().len() <= BATCH);
        batches += 1;
    }
    assert_eq!(batches, 4);
}

#[tokio::test(start_paused = true)]
async fn streams_that_nobody_has_are_forgotten_without_a_broker_too() {
    let relay = relay();
    publish(&relay, "old", "text");
    advance(RETENTION).await;
    publish(&relay, "new", "text");
    let forget = || {
        let forgotten = Cell::new(0);
        relay.forget_some(RETENTION, |_| {
            forgotten.set(forgotten.get() + 1);
            false
        });
        forgotten.get()
    };
    assert_eq!(forget(), 1);
    advance(RETENTION).await;
    assert_eq!((forget(), relay.lock().streams.len()), (1, 0));
    assert_eq!(relay.counters.get().forgotten, 0);
}
