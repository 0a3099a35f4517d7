//! The bytes of requests and blobs that are in memory: whoever is to hold some takes them from a budget before it does,
//! and gives them back by dropping what it [`Held`].
//!
//! There are two budgets, of what comes in and of what goes out, so that clients who do not send take nothing from those
//! who read. Who comes first is served first: as long as somebody waits, nobody gets past. Where a budget is used up,
//! downloads whose clients have not come back for a moment lose what they keep for the next time ([`Parked`]); they
//! fetch it again.
//!
//! Not in it: the buffers of large uploads, which are as many as there are places for them, and those of connections.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use graviton_core::Code;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::Problem;

/// The semaphore counts these: its number is 32 bits wide.
const UNIT: u64 = 1 << 10;

/// A request waits for so long, and then is told to come back.
const PATIENCE: Duration = Duration::from_secs(10);

/// So often it is looked for what can be taken back while somebody waits, from whom nobody came back to for so long.
const LOOK: Duration = Duration::from_millis(100);
const AWAY: Duration = Duration::from_millis(250);

/// So many bytes may be held.
pub(crate) struct Budget {
    free: Arc<Semaphore>,
    total: u64,
    waiting: AtomicUsize,
    wanted: AtomicU64,
    parked: Mutex<Vec<Weak<dyn Parked>>>,
    looked: Mutex<Option<Instant>>,
}

/// Who keeps bytes that can be fetched again.
pub(crate) trait Parked: Send + Sync {
    /// Since when nobody came back for them; `None` if somebody is at it, or nothing is kept.
    fn since(&self) -> Option<Instant>;
    /// Gives them back, unless somebody is at it by now. How many there were.
    fn give_back(&self) -> u64;
}

/// Bytes that may be held, until this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Held(Option<OwnedSemaphorePermit>);

impl Held {
    /// These as well.
    pub(crate) fn add(&mut self, more: Held) {
        match (&mut self.0, more.0) {
            (Some(permit), Some(more)) => permit.merge(more),
            (Some(_), None) => {}
            (none, more) => *none = more,
        }
    }

    /// So many of them apart, or all there are.
    pub(crate) fn split(&mut self, bytes: u64) -> Held {
        let Some(permit) = &mut self.0 else { return Held::default() };
        let units = (bytes.div_ceil(UNIT) as usize).min(permit.num_permits());
        Held(permit.split(units))
    }

    /// How many bytes.
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
            looked: Mutex::default(),
        })
    }

    /// What is more than there is at all has to be content with all there is.
    fn units(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT).min(self.total)).unwrap_or(u32::MAX)
    }

    /// So many bytes, if they can be had at once.
    pub(crate) fn try_take(&self, bytes: u64) -> Option<Held> {
        let taken = Arc::clone(&self.free).try_acquire_many_owned(self.units(bytes));
        taken.ok().map(|permit| Held(Some(permit)))
    }

    /// So many bytes, however long it takes. Whoever waits here should hold nothing that others wait for.
    pub(crate) async fn take(&self, bytes: u64) -> Held {
        if let Some(held) = self.try_take(bytes) {
            return held;
        }
        let _waiting = Waiting::new(self, bytes);
        let mut taking = std::pin::pin!(Arc::clone(&self.free).acquire_many_owned(self.units(bytes)));
        loop {
            self.take_back();
            // It is never closed: an error cannot come.
            if let Ok(permit) = tokio::time::timeout(LOOK, &mut taking).await {
                return Held(permit.ok());
            }
        }
    }

    /// So many bytes, or `overloaded` after a while.
    pub(crate) async fn take_soon(&self, bytes: u64) -> Result<Held, Problem> {
        if let Some(held) = self.try_take(bytes) {
            return Ok(held);
        }
        tokio::time::timeout(PATIENCE, self.take(bytes)).await.map_err(|_| {
            Problem::new(
                Code::Overloaded,
                "other requests take all the memory there is; try again in a moment",
            )
        })
    }

    /// Whether somebody waits.
    pub(crate) fn is_short(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Whether more than half of it is taken.
    pub(crate) fn is_half_taken(&self) -> bool {
        self.free.available_permits() as u64 * 2 < self.total
    }

    /// How much it is, and how much of it is taken.
    pub(crate) fn figures(&self) -> (u64, u64) {
        let free = self.free.available_permits() as u64;
        (self.total * UNIT, self.total.saturating_sub(free) * UNIT)
    }

    /// What this one keeps can be taken back.
    pub(crate) fn register(&self, parked: &Arc<impl Parked + 'static>) {
        let mut all = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == all.capacity() {
            all.retain(|parked| parked.strong_count() > 0);
        }
        let weak = Arc::downgrade(parked);
        all.push(weak);
    }

    /// Takes back about as much as is waited for, first from whom nobody came back to for the longest time.
    fn take_back(&self) {
        {
            let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
            if looked.is_some_and(|looked| looked.elapsed() < LOOK / 2) {
                return;
            }
            *looked = Some(Instant::now());
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

/// Somebody who waits.
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
    async fn who_waits_gets_what_others_keep_the_oldest_first_and_no_more() {
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
    async fn more_than_there_is_is_all_there_is() {
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
