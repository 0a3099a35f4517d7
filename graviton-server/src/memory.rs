//! Accounts for the memory of requests and blobs in transit. A task takes bytes from a [`Budget`] before it
//! holds them, and returns them by dropping its [`Held`].
//!
//! There are two budgets, for uploads and for downloads, so that slow uploads take nothing from downloads. A
//! budget serves tasks in the order in which they ask. When it is used up, downloads whose clients have not
//! read for a moment give up the bytes that they keep for the next piece ([`Parked`]), and fetch them again
//! later.
//!
//! Not accounted for: the buffers of large uploads, which the upload slots bound, and the buffers of
//! connections.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use graviton_core::Code;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::Problem;

/// The unit of the semaphore, whose count has 32 bits.
const UNIT: u64 = 1 << 10;

/// How long a request waits before it is refused as `overloaded`.
const WAIT: Duration = Duration::from_secs(10);

/// While a task waits, the budget scans for reclaimable memory every `SCAN`; a download is reclaimable `AWAY`
/// after its client last read.
const SCAN: Duration = Duration::from_millis(100);
const AWAY: Duration = Duration::from_millis(250);

/// An amount of memory that tasks share.
pub(crate) struct Budget {
    free: Arc<Semaphore>,
    total: u64,
    waiting: AtomicUsize,
    wanted: AtomicU64,
    parked: Mutex<Vec<Weak<dyn Parked>>>,
    scanned: Mutex<Option<Instant>>,
}

/// A holder of bytes that can be fetched again.
pub(crate) trait Parked: Send + Sync {
    /// When the client last read; `None` if the bytes are in use or there are none.
    fn since(&self) -> Option<Instant>;
    /// Gives up the bytes, unless they are in use by now, and returns their number.
    fn give_back(&self) -> u64;
}

/// Bytes taken from a budget, until this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Held(Option<OwnedSemaphorePermit>);

impl Held {
    /// Adds these bytes.
    pub(crate) fn add(&mut self, more: Held) {
        match (&mut self.0, more.0) {
            (Some(permit), Some(more)) => permit.merge(more),
            (Some(_), None) => {}
            (none, more) => *none = more,
        }
    }

    /// Splits off this many bytes, or all of them if there are fewer.
    pub(crate) fn split(&mut self, bytes: u64) -> Held {
        let Some(permit) = &mut self.0 else { return Held::default() };
        let units = (bytes.div_ceil(UNIT) as usize).min(permit.num_permits());
        Held(permit.split(units))
    }

    /// The number of bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.as_ref().map_or(0, |permit| permit.num_permits() as u64 * UNIT)
    }
}

impl Budget {
    pub(crate) fn new(bytes: u64) -> Arc<Budget> {
        let total = (bytes / UNIT).clamp(1, u64::from(u32::MAX));
        Arc::new(Budget {
            free: Arc::new(Semaphore::new(total as usize)),
            total,
            waiting: AtomicUsize::new(0),
            wanted: AtomicU64::new(0),
            parked: Mutex::default(),
            scanned: Mutex::default(),
        })
    }

    /// The units of these bytes, at most the whole budget.
    fn units(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT).min(self.total)).unwrap_or(u32::MAX)
    }

    /// Takes this many bytes if they are free.
    pub(crate) fn try_take(&self, bytes: u64) -> Option<Held> {
        let taken = Arc::clone(&self.free).try_acquire_many_owned(self.units(bytes));
        taken.ok().map(|permit| Held(Some(permit)))
    }

    /// Takes this many bytes, and waits as long as necessary. A task that waits here must hold nothing that
    /// others wait for.
    pub(crate) async fn take(&self, bytes: u64) -> Held {
        if let Some(held) = self.try_take(bytes) {
            return held;
        }
        let _waiting = Waiting::new(self, bytes);
        let mut taking = std::pin::pin!(Arc::clone(&self.free).acquire_many_owned(self.units(bytes)));
        loop {
            self.take_back();
            // The semaphore is never closed, so there is no error.
            if let Ok(permit) = tokio::time::timeout(SCAN, &mut taking).await {
                return Held(permit.ok());
            }
        }
    }

    /// Takes this many bytes, or fails with `overloaded` after [`WAIT`].
    pub(crate) async fn take_soon(&self, bytes: u64) -> Result<Held, Problem> {
        if let Some(held) = self.try_take(bytes) {
            return Ok(held);
        }
        tokio::time::timeout(WAIT, self.take(bytes)).await.map_err(|_| {
            Problem::new(Code::Overloaded, "other requests use all memory; try again in a moment")
        })
    }

    /// Whether a task waits.
    pub(crate) fn is_short(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Whether more than half of the budget is taken.
    pub(crate) fn is_half_taken(&self) -> bool {
        self.free.available_permits() as u64 * 2 < self.total
    }

    /// The bytes of the budget, and how many of them are taken.
    pub(crate) fn figures(&self) -> (u64, u64) {
        let free = self.free.available_permits() as u64;
        (self.total * UNIT, self.total.saturating_sub(free) * UNIT)
    }

    /// Makes the bytes of this holder reclaimable.
    pub(crate) fn register(&self, parked: &Arc<impl Parked + 'static>) {
        let mut all = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == all.capacity() {
            all.retain(|parked| parked.strong_count() > 0);
        }
        let weak = Arc::downgrade(parked);
        all.push(weak);
    }

    /// Reclaims about as many bytes as tasks wait for, starting with the client that has not read for the
    /// longest time.
    fn take_back(&self) {
        {
            let mut scanned = self.scanned.lock().unwrap_or_else(PoisonError::into_inner);
            if scanned.is_some_and(|scanned| scanned.elapsed() < SCAN / 2) {
                return;
            }
            *scanned = Some(Instant::now());
        }
        let mut away: Vec<_> = {
            let mut all = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|parked| parked.strong_count() > 0);
            all.iter().filter_map(Weak::upgrade).filter_map(|one| Some((one.since()?, one))).collect()
        };
        away.retain(|(since, _)| since.elapsed() >= AWAY);
        away.sort_by_key(|(since, _)| *since);
        let wanted = self.wanted.load(Ordering::Relaxed);
        let mut back = 0;
        for (_, one) in away {
            if back >= wanted {
                break;
            }
            back += one.give_back();
        }
    }
}

/// A task that waits, counted until this is dropped.
struct Waiting<'a>(&'a Budget, u64);

impl Waiting<'_> {
    fn new(budget: &Budget, bytes: u64) -> Waiting<'_> {
        budget.waiting.fetch_add(1, Ordering::Relaxed);
        budget.wanted.fetch_add(bytes, Ordering::Relaxed);
        Waiting(budget, bytes)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.wanted.fetch_sub(self.1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Kept(Mutex<Option<Held>>, Instant);

    impl Parked for Kept {
        fn since(&self) -> Option<Instant> {
            self.0.lock().unwrap().as_ref().map(|_| self.1)
        }

        fn give_back(&self) -> u64 {
            self.0.lock().unwrap().take().map_or(0, |held| held.bytes())
        }
    }

    #[tokio::test]
    async fn a_waiting_task_gets_what_others_keep_the_oldest_first_and_no_more() {
        let budget = Budget::new(4 << 20);
        let keep = |age: u64| {
            let held = budget.try_take(1 << 20).unwrap();
            let kept = Arc::new(Kept(
                Mutex::new(Some(held)),
                Instant::now().checked_sub(Duration::from_secs(age)).unwrap(),
            ));
            budget.register(&kept);
            kept
        };
        let (younger, oldest, old) = (keep(10), keep(30), keep(20));
        let used = budget.try_take(1 << 20).unwrap();
        assert!(budget.try_take(1).is_none() && !budget.is_short());
        let taken = budget.take(2 << 20).await;
        assert_eq!(taken.bytes(), 2 << 20);
        assert!(oldest.since().is_none() && old.since().is_none() && younger.since().is_some());
        drop((taken, used));
        assert_eq!(budget.figures(), (4 << 20, 1 << 20));
    }

    #[tokio::test]
    async fn a_request_for_more_than_the_budget_gets_the_whole_budget() {
        let budget = Budget::new(1 << 20);
        let mut all = budget.try_take(1 << 40).unwrap();
        assert_eq!(all.bytes(), 1 << 20);
        assert!(budget.try_take(1).is_none() && budget.is_half_taken());
        all.add(Held::default());
        let part = all.split(1_000);
        assert_eq!((part.bytes(), all.bytes()), (1 << 10, (1 << 20) - (1 << 10)));
        all.add(part);
        drop(all);
        assert!(budget.try_take(1).is_some());
    }
}
