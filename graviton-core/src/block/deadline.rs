//! A moment after which something must not begin, on a clock that also runs while the machine sleeps.
//!
//! `Instant` stands still in a suspended machine (CLOCK_MONOTONIC), and a collector that wakes up would think
//! that its dooms have only begun.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A moment of `CLOCK_BOOTTIME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Duration);

impl Deadline {
    /// The moment that is `time` from now.
    pub fn after(time: Duration) -> Deadline {
        Deadline(now() + time)
    }

    /// Whether it is over.
    pub fn has_passed(self) -> bool {
        now() >= self.0
    }

    /// The same moment, earlier by so much.
    #[must_use]
    pub fn earlier_by(self, time: Duration) -> Deadline {
        Deadline(self.0.saturating_sub(time))
    }
}

fn now() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_passes() {
        let deadline = Deadline::after(Duration::from_secs(3_600));
        assert!(!deadline.has_passed());
        assert!(deadline.earlier_by(Duration::from_secs(3_601)).has_passed());
        assert!(Deadline::after(Duration::ZERO).has_passed());
    }
}
