//! The quota: how much may be stored.
//!
//! What is stored is asked of the database now and then, for other servers write too; between that, what this server
//! stored is added. An upload under way counts in full, for how much of it is new is known only at its end: near the
//! quota, a large upload of what is there already can be refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use graviton_core::{AsyncStore, Code, Result};

use crate::problem::Problem;

/// How much may be stored, and is.
#[derive(Debug)]
pub(crate) struct Quota {
    limit: Option<u64>,
    stored: AtomicU64,
    coming: AtomicU64,
}

impl Quota {
    pub(crate) fn new(limit: Option<u64>) -> Arc<Quota> {
        Arc::new(Quota { limit, stored: AtomicU64::new(0), coming: AtomicU64::new(0) })
    }

    /// Whether there is one.
    pub(crate) fn is_on(&self) -> bool {
        self.limit.is_some()
    }

    /// Asks the database how much is stored.
    pub(crate) async fn refresh(&self, store: &AsyncStore) -> Result<()> {
        let stored = store.stats().await?.stored_bytes;
        self.stored.store(stored, Ordering::Relaxed);
        Ok(())
    }

    /// A place for an upload that is to begin.
    pub(crate) fn reserve(self: &Arc<Self>) -> Result<Reserved, Problem> {
        let reserved = Reserved { quota: Arc::clone(self), bytes: 0 };
        self.check(0)?;
        Ok(reserved)
    }

    fn check(&self, more: u64) -> Result<(), Problem> {
        let Some(limit) = self.limit else { return Ok(()) };
        let used = self.stored.load(Ordering::Relaxed).saturating_add(self.coming.load(Ordering::Relaxed));
        if used.saturating_add(more.max(1)) <= limit {
            return Ok(());
        }
        let why = format!(
            "no more than {limit} bytes may be stored here; delete something, and try again after a collection"
        );
        Err(Problem::new(Code::QuotaExceeded, why))
    }
}

/// What an upload that is under way may come to.
#[derive(Debug)]
pub(crate) struct Reserved {
    quota: Arc<Quota>,
    bytes: u64,
}

impl Reserved {
    /// So many bytes more have come.
    pub(crate) fn grow(&mut self, more: u64) -> Result<(), Problem> {
        self.quota.check(more)?;
        self.quota.coming.fetch_add(more, Ordering::Relaxed);
        self.bytes += more;
        Ok(())
    }

    /// The upload is stored, and this much of it was new.
    pub(crate) fn became(self, fresh: u64) {
        self.quota.stored.fetch_add(fresh, Ordering::Relaxed);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.quota.coming.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
