//! Checks that the database of an open store owns its blocks, and is not a copy of the owner.
//!
//! A copy would collect blocks that the original database may reference. So a copy may be read, and is
//! refused for writing and collecting until it is told to take over (`manifest::ownership` says how a copy is
//! detected). The check runs before the first write, in each collection, and at most once an hour in a
//! writer, so that a put in between costs nothing. Collections and copies, which may take long, also compare
//! the generation beside the blocks with their own repeatedly.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::block::BlockStore;
use crate::error::{Code, Error, Result};
use crate::manifest::{Claim, EPOCH_BITS, ManifestRepo, Owned, Ownership, Refusal, Whereabouts};
use crate::random;

/// A refusal is repeated for this long without another check. Not for ever: the database may take over
/// through another process.
const REFUSED: Duration = Duration::from_secs(2);

/// The ownership checks of one open store.
#[derive(Debug)]
pub(super) struct Owner {
    blocks: Arc<dyn BlockStore>,
    manifests: Arc<ManifestRepo>,
    /// Whether the database is still to take over.
    take_over: AtomicBool,
    /// How long a generation lasts, unless a collection or a backup ends it.
    interval: Duration,
    opened: Instant,
    /// The time of the last check, in milliseconds since the store was opened; 0 for none, and after a
    /// refusal.
    looked_at: AtomicU64,
    /// The generation at the last check.
    generation: AtomicU64,
    looking: tokio::sync::Mutex<()>,
    /// The reason why the database does not own the blocks, and when it was found.
    refused: Mutex<Option<(Instant, Error)>>,
}

impl Owner {
    pub(super) fn new(
        blocks: Arc<dyn BlockStore>,
        manifests: Arc<ManifestRepo>,
        take_over: bool,
        interval: Duration,
    ) -> Owner {
        Owner {
            blocks,
            manifests,
            take_over: AtomicBool::new(take_over),
            interval,
            opened: Instant::now(),
            looked_at: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            looking: tokio::sync::Mutex::default(),
            refused: Mutex::default(),
        }
    }

    /// Fails if the database does not own the blocks, as of a check within the last hour. A database without
    /// any put owns none, and passes.
    pub(super) async fn check(&self) -> Result<()> {
        let looked_at = self.looked_at.load(Ordering::Acquire);
        if looked_at != 0 && self.now() - looked_at < self.interval.as_millis() as u64 {
            return Ok(());
        }
        if looked_at == 0 {
            if let Some((since, error)) = &*self.refused()
                && since.elapsed() < REFUSED
            {
                return Err(error.clone());
            }
            let _looking = self.looking.lock().await;
            if self.looked_at.load(Ordering::Acquire) != 0 {
                return Ok(());
            }
            return Box::pin(self.look(self.interval, self.whereabouts().await?, false)).await;
        }
        // One of many puts checks, and the others continue. The location of the database was checked at open:
        // a standby that was promoted meanwhile is not refused here, but for a collection and for its next
        // opener.
        let Ok(_looking) = self.looking.try_lock() else { return Ok(()) };
        Box::pin(self.look(self.interval, Whereabouts::default(), false)).await
    }

    /// Records the places of the database and of its blocks at the first put, or the first one after a move.
    pub(super) async fn record(&self) -> Result<()> {
        let _looking = self.looking.lock().await;
        Box::pin(self.look(self.interval, self.whereabouts().await?, true)).await
    }

    /// Fails if another database has taken over since the last check. Costs a read of the number beside the
    /// blocks.
    pub(super) async fn check_generation(&self) -> Result<()> {
        if self.blocks.generation().await? <= self.generation.load(Ordering::Acquire) {
            return Ok(());
        }
        // Another process of this database may have raised it.
        let _looking = self.looking.lock().await;
        Box::pin(self.look(self.interval, Whereabouts::default(), false)).await
    }

    /// How often a database took over these blocks, as far as this store knows.
    pub(super) fn epoch(&self) -> u64 {
        self.generation.load(Ordering::Acquire) >> EPOCH_BITS
    }

    /// Ends the present generation: every copy that was made before is then behind.
    pub(super) async fn raise(&self) -> Result<()> {
        let _looking = self.looking.lock().await;
        Box::pin(self.look(Duration::ZERO, self.whereabouts().await?, false)).await
    }

    fn refused(&self) -> MutexGuard<'_, Option<(Instant, Error)>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        self.opened.elapsed().as_millis() as u64 + 1
    }

    async fn whereabouts(&self) -> Result<Whereabouts> {
        let location = self.blocks.location();
        self.manifests.whereabouts(location.strip_prefix("fs:").map(PathBuf::from)).await
    }

    /// The future is large, so callers box it: most of them never get here.
    async fn look(&self, interval: Duration, at: Whereabouts, first: bool) -> Result<()> {
        // The order matters: another process may raise both meanwhile, the database first.
        let beside = self.blocks.generation().await?;
        let ownership = self.manifests.ownership().await?;
        if !first && ownership.store.block_location.is_empty() {
            return Ok(());
        }
        let take_over = if self.take_over.load(Ordering::Acquire) {
            Some(self.announce(&ownership, beside).await?)
        } else {
            None
        };
        let claim = Claim {
            at,
            location: self.blocks.location(),
            beside: take_over.unwrap_or(beside),
            take_over,
            relies_on_rows: !self.blocks.is_local(),
            interval,
        };
        let mut generation = ownership.generation;
        if !ownership.stands(&claim) {
            // A copy is not written to, so that a copy on a read-only filesystem reports the reason as well.
            if let Some(refusal) = ownership.refusal(&claim.at, beside)
                && take_over.is_none()
            {
                return Err(self.refuse(&refusal));
            }
            let beside = claim.beside;
            generation = match self.manifests.own(claim).await? {
                Owned::Refused(refusal) => return Err(self.refuse(&refusal)),
                Owned::Owner(generation) => generation,
            };
            if generation > beside {
                self.blocks.raise_generation(generation).await?;
            }
            self.take_over.store(false, Ordering::Release);
        }
        *self.refused() = None;
        self.generation.store(generation, Ordering::Release);
        self.looked_at.store(self.now(), Ordering::Release);
        Ok(())
    }

    /// Writes the generation with which this database takes over beside the blocks. From here on every other
    /// database is refused.
    async fn announce(&self, ownership: &Ownership, beside: u64) -> Result<u64> {
        let generation = ownership.above(beside, u32::from_le_bytes(random::bytes()?));
        self.blocks.raise_generation(generation).await?;
        // If another database takes over meanwhile with a larger generation, that one stays and owns the
        // blocks.
        let there = self.blocks.generation().await?;
        if there != generation {
            let refusal = Refusal::Behind { generation, beside: there };
            return Err(self.refuse(&refusal));
        }
        Ok(generation)
    }

    fn refuse(&self, refusal: &Refusal) -> Error {
        let location = self.blocks.location();
        let why = match refusal {
            Refusal::Backup => {
                format!("this database is a backup of the one that the blocks in {location} belong to")
            }
            Refusal::Elsewhere { was } => format!(
                "this database is a copy of the one that the blocks in {location} belong to, which was at {was}"
            ),
            Refusal::Behind { generation, beside } => format!(
                "this database is an old copy of the one that the blocks in {location} belong to: its generation is \
                 {generation}, and theirs is {beside}"
            ),
        };
        let error = Error::new(Code::Config, format!("cannot write or collect: {why}")).with_advice(
            "use the other database (GRAVITON_MANIFEST_URL); or, if this one is to replace it for good, end everything \
             that uses the other, wait 15 minutes if the blocks are in S3, and open this one once with take over (on \
             the command line: graviton verify --take-over); to read, nothing is needed",
        );
        self.looked_at.store(0, Ordering::Release);
        *self.refused() = Some((Instant::now(), error.clone()));
        error
    }
}
