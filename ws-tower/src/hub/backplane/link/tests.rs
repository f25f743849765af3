use std::sync::{Arc, Mutex};

use tokio::time::advance;
use tracing::{Event, Level, Metadata, Subscriber, span};

use super::*;

/// The levels of what is logged.
#[derive(Clone, Default)]
struct Levels(Arc<Mutex<Vec<Level>>>);

impl Subscriber for Levels {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        self.0.lock().unwrap().push(*event.metadata().level());
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_stays_away_is_warned_of_at_first_and_then_once_a_minute() {
    let levels = Levels::default();
    let mut complaint = Complaint::default();
    let mut make = || {
        tracing::subscriber::with_default(levels.clone(), || complaint.make(&"refused"));
        levels.0.lock().unwrap().pop().unwrap()
    };
    assert_eq!([make(), make()], [Level::WARN, Level::DEBUG]);
    advance(REMINDER / 2).await;
    assert_eq!(make(), Level::DEBUG);
    advance(REMINDER / 2).await;
    assert_eq!([make(), make()], [Level::WARN, Level::DEBUG]);
}
