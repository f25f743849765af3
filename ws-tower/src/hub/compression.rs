//! Compresses what a topic's members want compressed, once and before any lock is taken.

use ws_core::{Connection, PreparedMessage};

/// Who of a topic's members has agreed on compression.
#[derive(Default)]
pub(super) struct Compression {
    #[cfg(feature = "deflate")]
    members: std::sync::atomic::AtomicUsize,
    /// Those of the first of them. A member with a smaller window mostly takes the same bytes,
    /// for few messages reach further back; else there is one more for all of those.
    #[cfg(feature = "deflate")]
    settings: std::sync::OnceLock<Box<ws_core::Deflate>>,
}

#[cfg(feature = "deflate")]
impl Compression {
    /// A member joins. Says whether it has agreed on compression.
    pub(super) fn join(&self, connection: &Connection) -> bool {
        let Some(settings) = connection.deflate() else {
            return false;
        };
        self.settings.get_or_init(|| Box::new(settings));
        self.members
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        true
    }

    /// A member leaves that has.
    pub(super) fn leave(&self) {
        self.members
            .fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }

    /// Compresses a message for those who want it.
    pub(super) fn prepare(&self, message: &PreparedMessage) {
        if self.members.load(std::sync::atomic::Ordering::Relaxed) > 0
            && let Some(settings) = self.settings.get()
        {
            message.deflate(settings);
        }
    }

    /// Compresses a message for one who is about to join.
    pub(super) fn prepare_for(connection: &Connection) -> impl FnOnce(&PreparedMessage) + use<> {
        let settings = connection.deflate();
        move |message| {
            if let Some(settings) = settings {
                message.deflate(&settings);
            }
        }
    }
}

#[cfg(not(feature = "deflate"))]
#[expect(clippy::unused_self, reason = "the same methods as with the feature")]
impl Compression {
    pub(super) fn join(&self, _: &Connection) -> bool {
        false
    }

    pub(super) fn leave(&self) {}

    pub(super) fn prepare(&self, _: &PreparedMessage) {}

    pub(super) fn prepare_for(_: &Connection) -> impl FnOnce(&PreparedMessage) + use<> {
        |_| {}
    }
}
