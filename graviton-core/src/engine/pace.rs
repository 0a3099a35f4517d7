//! Long work that is not to go faster than it may, and stays open to whoever wants to end it.

use std::time::{Duration, Instant};

/// How long it sleeps at once: whoever wants to end it need not wait longer.
const GLANCE: Duration = Duration::from_millis(100);

/// When so much, at so much a second, may have been done since `started`; `None` if that is beyond all clocks.
pub(super) fn due(started: Instant, done: u64, a_second: u64) -> Option<Instant> {
    let after = Duration::try_from_secs_f64(done as f64 / a_second.max(1) as f64).ok()?;
    started.checked_add(after)
}

/// Sleeps a moment if that time has not come. Returns whether it slept.
pub(super) async fn glance(due: Option<Instant>) -> bool {
    let left = due.map_or(GLANCE, |due| due.saturating_duration_since(Instant::now()));
    if left.is_zero() {
        return false;
    }
    tokio::time::sleep(left.min(GLANCE)).await;
    true
}
