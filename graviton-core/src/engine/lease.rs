//! The lease of an open store as a writer: the row that keeps its pending blobs from being abandoned.
//!
//! The row is registered at the first put that needs it, renewed every 15 s to 60 s ahead, and removed at a
//! clean close. A store that could not renew in time (a stopped process, a lost database) finds its row gone.
//! Then every put in progress fails with `writer-expired`, and the next one registers a new row.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::settings::Timing;
use crate::error::{Code, Error, Result};
use crate::manifest::{BlobRow, ManifestRepo, WriterId};
use crate::place::{PackName, PackRow};

/// The longest lease: one that ends later was written by a clock that was ahead.
pub(super) const LONGEST_LEASE: Duration = Duration::from_secs(86_400);

/// The current lease of an open store, if it has one.
#[derive(Debug)]
pub(super) struct Leases {
    manifests: Arc<ManifestRepo>,
    timing: Timing,
    current: Mutex<Option<Renewed>>,
}

#[derive(Debug)]
struct Renewed {
    lease: Arc<Lease>,
    renewal: JoinHandle<()>,
}

/// The lease that a running put depends on.
#[derive(Debug)]
pub(super) struct Lease {
    writer: WriterId,
    lost: AtomicBool,
}

impl Lease {
    /// The lease of a writer that somebody else renews.
    pub(super) fn of(writer: WriterId) -> Lease {
        Lease { writer, lost: AtomicBool::new(false) }
    }

    pub(super) fn writer(&self) -> WriterId {
        self.writer
    }

    /// Fails once the row was found to be gone. Success proves nothing, because the loss may not have been
    /// noticed yet: a commit checks its own pending row.
    pub(super) fn check(&self) -> Result<()> {
        if self.lost.load(Ordering::Acquire) { Err(expired()) } else { Ok(()) }
    }
}

/// The error of a put whose blocks may have been collected.
pub(super) fn expired() -> Error {
    Error::new(
        Code::WriterExpired,
        "the put took a pause longer than its lease, or the database was replaced by another one meanwhile, and what it wrote \
         may have been collected",
    )
    .with_advice("put it again")
}

impl Leases {
    pub(super) fn new(manifests: Arc<ManifestRepo>, timing: Timing) -> Leases {
        Leases { manifests, timing, current: Mutex::new(None) }
    }

    /// The lease of this store, registered now if there is none.
    async fn hold(&self) -> Result<Arc<Lease>> {
        let mut current = self.current.lock().await;
        // The renewal ends with its lease, or with the runtime that it was started on.
        if let Some(renewed) =
            current.as_ref().filter(|renewed| renewed.lease.check().is_ok() && !renewed.renewal.is_finished())
        {
            return Ok(Arc::clone(&renewed.lease));
        }
        if let Some(before) = &*current {
            // Nobody renews it any more.
            before.lease.lost.store(true, Ordering::Release);
        }
        let writer = self.manifests.register_writer(self.timing.lease).await?;
        let lease = Arc::new(Lease::of(writer));
        let renewal = tokio::spawn(renew(Arc::clone(&self.manifests), Arc::clone(&lease), self.timing));
        *current = Some(Renewed { lease: Arc::clone(&lease), renewal });
        Ok(lease)
    }

    /// Inserts a pack that this store is going to create, under its lease.
    pub(super) async fn insert_pack(&self, name: &PackName) -> Result<(Arc<Lease>, PackRow)> {
        let lease = self.hold().await?;
        if let Some(pack) = self.manifests.insert_pack(lease.writer, name).await? {
            return Ok((lease, pack));
        }
        // It ran out before anybody noticed.
        lease.lost.store(true, Ordering::Release);
        let lease = self.hold().await?;
        let pack = self.manifests.insert_pack(lease.writer, name).await?.ok_or_else(expired)?;
        Ok((lease, pack))
    }

    /// A pending blob under the lease of this store.
    pub(super) async fn begin(&self, chunker: &str) -> Result<(Arc<Lease>, BlobRow)> {
        let lease = self.hold().await?;
        if let Some(row) = self.manifests.begin(lease.writer, chunker).await? {
            return Ok((lease, row));
        }
        // It ran out before anybody noticed.
        lease.lost.store(true, Ordering::Release);
        let lease = self.hold().await?;
        let row = self.manifests.begin(lease.writer, chunker).await?.ok_or_else(expired)?;
        Ok((lease, row))
    }

    /// Gives the lease up. The collector takes its pending blobs.
    pub(super) async fn close(&self) {
        if let Some(renewed) = self.current.lock().await.take() {
            renewed.renewal.abort();
            // If it fails, the row runs out by itself.
            let _ = self.manifests.remove_writer(renewed.lease.writer).await;
        }
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        let Some(renewed) = self.current.get_mut().take() else { return };
        renewed.renewal.abort();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let manifests = Arc::clone(&self.manifests);
            runtime.spawn(async move {
                let _ = manifests.remove_writer(renewed.lease.writer).await;
            });
        }
    }
}

async fn renew(manifests: Arc<ManifestRepo>, lease: Arc<Lease>, timing: Timing) {
    loop {
        tokio::time::sleep(timing.renewal).await;
        match manifests.renew_writer(lease.writer, timing.lease).await {
            // After an error the database is away, or full. Whether the row outlives that is seen later.
            Ok(true) | Err(_) => {}
            Ok(false) => {
                lease.lost.store(true, Ordering::Release);
                return;
            }
        }
    }
}
