//! Deadlines that cannot overflow.

use std::time::{Duration, Instant};

/// For a wait so long that the clock cannot tell its end.
const FAR_FUTURE: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// The time `wait` after `now`; as good as never for `Duration::MAX`.
pub(super) fn after(now: Instant, wait: Duration) -> Instant {
    now + wait.min(FAR_FUTURE)
}
