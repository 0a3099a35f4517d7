//! Places for what takes much: large uploads, and commits of large blobs. There are only so many, and only some of them
//! for one caller, so that no single one keeps all others out.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use graviton_core::Code;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::auth::Caller;
use crate::problem::Problem;

/// All places of a server.
pub(crate) struct Places {
    all: Arc<Semaphore>,
    total: usize,
    each: usize,
    /// Of those who have or want some.
    callers: Mutex<HashMap<Caller, Arc<Semaphore>>>,
    waiting: AtomicUsize,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _own: OwnedSemaphorePermit,
    _common: OwnedSemaphorePermit,
}

impl Places {
    /// So many, and so many of them for each caller.
    pub(crate) fn new(total: usize, each: usize) -> Places {
        Places {
            all: Arc::new(Semaphore::new(total)),
            total,
            each,
            callers: Mutex::default(),
            waiting: AtomicUsize::new(0),
        }
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.total - self.all.available_permits()
    }

    /// Whether somebody waits for one.
    pub(crate) fn are_short(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// A place; `overloaded` if none is free for so long.
    pub(crate) async fn take(&self, caller: &Caller, patience: Duration) -> Result<Place, Problem> {
        let overloaded = |why| Problem::new(Code::Overloaded, why);
        let deadline = tokio::time::Instant::now() + patience;
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        let Ok(Ok(own)) = tokio::time::timeout_at(deadline, self.of(caller).acquire_owned()).await else {
            let why = "too many uploads of this caller are under way; send the others when some have ended";
            return Err(overloaded(why));
        };
        match tokio::time::timeout_at(deadline, Arc::clone(&self.all).acquire_owned()).await {
            Ok(Ok(common)) => Ok(Place { _own: own, _common: common }),
            _ => Err(overloaded("too many uploads are under way; try again in a moment")),
        }
    }

    fn of(&self, caller: &Caller) -> Arc<Semaphore> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.len() == callers.capacity() {
            // Those who have no place and want none.
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
    async fn one_caller_cannot_take_all_and_is_forgotten_in_the_end() {
        let places = Places::new(4, 3);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(places.take(&caller(1), SOON).await.unwrap());
        }
        assert!(places.take(&caller(1), SOON).await.is_err());
        held.push(places.take(&caller(2), SOON).await.unwrap());
        assert!(places.take(&caller(2), SOON).await.is_err());
        assert_eq!((places.taken(), places.are_short()), (4, false));
        held.remove(0);
        held.push(places.take(&caller(1), SOON).await.unwrap());
        drop(held);
        assert_eq!(places.taken(), 0);
        for last in 0..=255 {
            places.take(&caller(last), SOON).await.unwrap();
        }
        assert!(places.callers.lock().unwrap().len() < 32);
    }
}
