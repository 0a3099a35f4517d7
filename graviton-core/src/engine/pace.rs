//! Limits the rate and the size of the steps of long work, and lets the caller end it during a wait.

use std::time::{Duration, Instant};

/// The longest sleep: a caller that ends the work waits at most this long.
const STEP: Duration = Duration::from_millis(100);

/// The time at which `done`, at `per_second`, is allowed if the work began at `started`; `None` if it is
/// beyond the range of clocks.
pub(super) fn due(started: Instant, done: u64, per_second: u64) -> Option<Instant> {
    let after = Duration::try_from_secs_f64(done as f64 / per_second.max(1) as f64).ok()?;
    started.checked_add(after)
}

/// Sleeps until `due`, but no longer than a step. Returns whether it slept.
pub(super) async fn sleep_a_step(due: Option<Instant>) -> bool {
    let left = due.map_or(STEP, |due| due.saturating_duration_since(Instant::now()));
    if left.is_zero() {
        return false;
    }
    tokio::time::sleep(left.min(STEP)).await;
    true
}

/// How many of the first items have sizes that add up to at most this many bytes; at least one, of any size,
/// so that the work makes progress.
pub(super) fn fitting<T>(items: &[T], most: u64, size: impl Fn(&T) -> u64) -> usize {
    let mut bytes = 0;
    let fits = |item: &&T| {
        bytes += size(item);
        bytes <= most
    };
    items.iter().take_while(fits).count().max(1)
}
