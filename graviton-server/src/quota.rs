//! The quota: the most bytes that may be stored.
//!
//! The server asks the database for the stored bytes periodically, because other servers write too, and
//! before an upload if its last answer is some seconds old. In between it adds the bytes that it stored
//! itself. An upload in progress counts in full, because only its end shows how much of it is new: close to
//! the quota, a large upload of stored content can be refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use graviton_core::{AsyncStore, Code, Result};
use tokio::sync::Mutex;

use crate::problem::Problem;

/// The bytes that one block of a manifest takes in the database. Blocks that many manifests share take almost
/// no space themselves.
pub(crate) const REFERENCE: u64 = 100;

/// How long an answer of the database counts as current; shorter within the last tenth of the quota.
const FRESH: Duration = Duration::from_secs(5);
const FRESH_IF_CLOSE: Duration = Duration::from_secs(1);
const CLOSE: u64 = 10;

/// The quota and what counts against it.
#[derive(Debug)]
pub(crate) struct Quota {
    limit: Option<u64>,
    /// The last answer of the database.
    stored: AtomicU64,
    /// New bytes that this server stored after that answer.
    added: AtomicU64,
    /// Bytes of uploads in progress.
    coming: AtomicU64,
    /// When the database was asked; locked during the question.
    asked: Mutex<Option<Instant>>,
}

impl Quota {
    pub(crate) fn new(limit: Option<u64>) -> Arc<Quota> {
        Arc::new(Quota {
            limit,
            stored: AtomicU64::new(0),
            added: AtomicU64::new(0),
            coming: AtomicU64::new(0),
            asked: Mutex::default(),
        })
    }

    /// Whether there is a quota.
    pub(crate) fn is_on(&self) -> bool {
        self.limit.is_some()
    }

    /// Asks the database for the stored bytes.
    pub(crate) async fn refresh(&self, store: &AsyncStore) -> Result<()> {
        let mut asked = self.asked.lock().await;
        self.ask(store, &mut asked).await
    }

    async fn ask(&self, store: &AsyncStore, asked: &mut Option<Instant>) -> Result<()> {
        // Bytes added during the question may be in the answer, and then count twice until the next one.
        let added = self.added.load(Ordering::Relaxed);
        let stats = store.stats().await?;
        let stored = stats.stored_bytes.saturating_add(stats.references.saturating_mul(REFERENCE));
        self.stored.store(stored, Ordering::Relaxed);
        self.added.fetch_sub(added, Ordering::Relaxed);
        *asked = Some(Instant::now());
        Ok(())
    }

    fn used(&self) -> u64 {
        let parts = [&self.stored, &self.added, &self.coming].map(|part| part.load(Ordering::Relaxed));
        parts.into_iter().fold(0, u64::saturating_add)
    }

    /// Starts to count an upload.
    pub(crate) async fn reserve(self: &Arc<Self>, store: &AsyncStore) -> Result<Reserved, Problem> {
        if let Some(limit) = self.limit {
            let fresh = if self.used() < limit - limit / CLOSE { FRESH } else { FRESH_IF_CLOSE };
            let mut asked = self.asked.lock().await;
            if asked.is_none_or(|asked| asked.elapsed() >= fresh) {
                self.ask(store, &mut asked).await?;
            }
        }
        let reserved = Reserved { quota: Arc::clone(self), bytes: 0 };
        self.check(0)?;
        Ok(reserved)
    }

    /// Fails if, as far as this server knows, sessions that keep this many blocks use up the quota. Each kept
    /// block is a row like a block of a manifest, but counts as one only when the blob is committed.
    pub(crate) fn check_kept(&self, blocks: u64) -> Result<(), Problem> {
        self.check(blocks.saturating_mul(REFERENCE))
    }

    fn check(&self, more: u64) -> Result<(), Problem> {
        let Some(limit) = self.limit else { return Ok(()) };
        if self.used().saturating_add(more.max(1)) <= limit {
            return Ok(());
        }
        let why = format!(
            "the quota of {limit} bytes is used up; delete blobs and try again after a garbage collection"
        );
        Err(Problem::new(Code::QuotaExceeded, why))
    }
}

/// The bytes of an upload in progress.
#[derive(Debug)]
pub(crate) struct Reserved {
    quota: Arc<Quota>,
    bytes: u64,
}

impl Reserved {
    /// Counts more bytes of the upload.
    pub(crate) fn grow(&mut self, more: u64) -> Result<(), Problem> {
        self.quota.check(more)?;
        self.quota.coming.fetch_add(more, Ordering::Relaxed);
        self.bytes += more;
        Ok(())
    }

    /// The upload is stored, and this many of its bytes were new.
    pub(crate) fn became(self, fresh: u64) {
        self.quota.added.fetch_add(fresh, Ordering::Relaxed);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.quota.coming.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_other_servers_store_counts_soon_and_what_came_during_a_question_is_not_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let store = graviton_core::Config::for_directory(directory.path()).open_async().await.unwrap();
        let quota = Quota::new(Some(1_000_000));
        quota.reserve(&store).await.unwrap().became(0);
        store.put(&vec![7; 600_000][..]).await.unwrap();
        let other: Vec<u8> = (0..500_000_u32).flat_map(u32::to_le_bytes).collect();
        store.put(&other[..]).await.unwrap();
        // By the known numbers there is room.
        assert!(quota.reserve(&store).await.is_ok());
        *quota.asked.lock().await = Instant::now().checked_sub(FRESH);
        assert_eq!(quota.reserve(&store).await.unwrap_err().code(), Code::QuotaExceeded);
        let used = quota.used();
        Reserved { quota: Arc::clone(&quota), bytes: 0 }.became(1_000);
        assert_eq!(quota.used(), used + 1_000);
        quota.refresh(&store).await.unwrap();
        assert_eq!(quota.used(), used);
    }
}
