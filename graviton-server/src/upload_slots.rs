//! Slots for large uploads and for commits of large blobs. The number of slots is limited, in all and for one
//! client, so that no client keeps all others out.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use graviton_core::Code;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::auth::Caller;
use crate::problem::Problem;

/// The upload slots of a server.
pub(crate) struct UploadSlots {
    all: Arc<Semaphore>,
    total: usize,
    each: usize,
    /// The slots of each client that holds or waits for one.
    callers: Mutex<HashMap<Caller, Arc<Semaphore>>>,
    waiting: AtomicUsize,
}

/// An upload slot, taken until this is dropped.
#[derive(Debug)]
pub(crate) struct UploadSlot {
    _own: OwnedSemaphorePermit,
    _common: OwnedSemaphorePermit,
}

impl UploadSlots {
    /// `total` slots, and at most `each` of them for one client.
    pub(crate) fn new(total: usize, each: usize) -> UploadSlots {
        UploadSlots {
            all: Arc::new(Semaphore::new(total)),
            total,
            each,
            callers: Mutex::default(),
            waiting: AtomicUsize::new(0),
        }
    }

    /// The number of taken slots.
    pub(crate) fn taken(&self) -> usize {
        self.total - self.all.available_permits()
    }

    /// Whether an upload waits for a slot.
    pub(crate) fn are_short(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Takes a slot; fails with `overloaded` if none becomes free in time.
    pub(crate) async fn take(&self, caller: &Caller, most: Duration) -> Result<UploadSlot, Problem> {
        let overloaded = |why| Problem::new(Code::Overloaded, why);
        let deadline = tokio::time::Instant::now() + most;
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        let Ok(Ok(own)) = tokio::time::timeout_at(deadline, self.slots_of(caller).acquire_owned()).await
        else {
            let why = "this client has too many uploads in progress; wait until some have ended";
            return Err(overloaded(why));
        };
        match tokio::time::timeout_at(deadline, Arc::clone(&self.all).acquire_owned()).await {
            Ok(Ok(common)) => Ok(UploadSlot { _own: own, _common: common }),
            _ => Err(overloaded("too many uploads are in progress; try again in a moment")),
        }
    }

    fn slots_of(&self, caller: &Caller) -> Arc<Semaphore> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.len() == callers.capacity() {
            // Forget clients that neither hold nor wait for a slot.
            callers.retain(|_, own| Arc::strong_count(own) > 1);
        }
        let own = callers.entry(caller.clone()).or_insert_with(|| Arc::new(Semaphore::new(self.each)));
        Arc::clone(own)
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    fn caller(last: u8) -> Caller {
        Caller::Address([192, 0, 2, last].into())
    }

    #[tokio::test]
    async fn one_client_cannot_take_all_slots_and_is_forgotten_in_the_end() {
        let slots = UploadSlots::new(4, 3);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(slots.take(&caller(1), SOON).await.unwrap());
        }
        assert!(slots.take(&caller(1), SOON).await.is_err());
        held.push(slots.take(&caller(2), SOON).await.unwrap());
        assert!(slots.take(&caller(2), SOON).await.is_err());
        assert_eq!((slots.taken(), slots.are_short()), (4, false));
        held.remove(0);
        held.push(slots.take(&caller(1), SOON).await.unwrap());
        drop(held);
        assert_eq!(slots.taken(), 0);
        for last in 0..=255 {
            slots.take(&caller(last), SOON).await.unwrap();
        }
        assert!(slots.callers.lock().unwrap().len() < 32);
    }
}
