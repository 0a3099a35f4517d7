//! The state that all requests of a server share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use graviton_core::{AsyncStore, Result};
use tokio::sync::Semaphore;

use crate::auth::{Auth, Caller};
use crate::connection_slots::ConnectionSlots;
use crate::jobs::Jobs;
use crate::memory::Budget;
use crate::problem::Problem;
use crate::quota::Quota;
use crate::readiness::Readiness;
use crate::sessions::Sessions;
use crate::settings::{Limits, Settings};
use crate::upload_slots::{UploadSlot, UploadSlots};

/// The most connections that linger after their end, and the most that receive a refusal at the same time.
const LEAVING: usize = 64;

/// A session expires after this time without a call.
pub(crate) const SESSION_LIFETIME: Duration = Duration::from_secs(600);

/// The longest wait of an upload for a slot.
const SLOT_WAIT: Duration = Duration::from_secs(10);

/// The state that all requests of a server share.
pub(crate) struct App {
    store: AsyncStore,
    settings: Settings,
    auth: Auth,
    quota: Arc<Quota>,
    upload_slots: UploadSlots,
    incoming: Arc<Budget>,
    outgoing: Arc<Budget>,
    leaving: Arc<Semaphore>,
    refusing: Arc<Semaphore>,
    downloads: Arc<AtomicUsize>,
    jobs: Jobs,
    draining: AtomicBool,
    connections: Arc<ConnectionSlots>,
    started: Instant,
    readiness: Readiness,
    sessions: Sessions,
}

/// The state as handlers receive it.
pub(crate) type Shared = Arc<App>;

impl App {
    pub(crate) async fn new(store: AsyncStore, auth: Auth, settings: Settings) -> Result<Shared> {
        let quota = Quota::new(settings.limits.quota);
        if quota.is_on() {
            quota.refresh(&store).await?;
        }
        Ok(Arc::new(App {
            upload_slots: UploadSlots::new(settings.limits.max_uploads, settings.limits.max_uploads_each),
            incoming: Budget::new(settings.limits.memory / 4),
            outgoing: Budget::new(settings.limits.memory - settings.limits.memory / 4),
            leaving: Arc::new(Semaphore::new(LEAVING)),
            refusing: Arc::new(Semaphore::new(LEAVING)),
            downloads: Arc::default(),
            jobs: Jobs::default(),
            draining: AtomicBool::new(false),
            connections: ConnectionSlots::new(
                settings.limits.max_connections,
                settings.limits.max_connections_each,
            ),
            started: Instant::now(),
            readiness: Readiness::default(),
            sessions: Sessions::new(SESSION_LIFETIME, settings.limits.max_session_blocks.into()),
            auth,
            quota,
            settings,
            store,
        }))
    }

    pub(crate) fn store(&self) -> &AsyncStore {
        &self.store
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.settings.limits
    }

    pub(crate) fn auth(&self) -> &Auth {
        &self.auth
    }

    pub(crate) fn quota(&self) -> &Arc<Quota> {
        &self.quota
    }

    pub(crate) fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// The `Cache-Control` of immutable content. A shared cache may not keep content that needs a token.
    pub(crate) fn caching(&self) -> &'static str {
        if self.auth.is_on() {
            "private, max-age=31536000, immutable"
        } else {
            "public, max-age=31536000, immutable"
        }
    }

    /// Makes the server report that it is not ready, from now on.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// The time since the server was started.
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The last answers of the store to the readiness check.
    pub(crate) fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// The open sessions of clients.
    pub(crate) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// The open connections.
    pub(crate) fn connections(&self) -> &Arc<ConnectionSlots> {
        &self.connections
    }

    /// The number of uploads that hold a slot, and the number of downloads.
    pub(crate) fn transfers(&self) -> (usize, usize) {
        (self.upload_slots.taken(), self.downloads.load(Ordering::Relaxed))
    }

    /// Waits for an upload slot, for `SLOT_WAIT` or the body timeout, whichever is shorter.
    pub(crate) async fn upload_slot(&self, caller: &Caller) -> Result<UploadSlot, Problem> {
        self.upload_slots.take(caller, self.limits().body_timeout.min(SLOT_WAIT)).await
    }

    /// Memory for incoming bytes: bodies that are held as a whole, and uploads without a slot.
    pub(crate) fn incoming(&self) -> &Arc<Budget> {
        &self.incoming
    }

    /// Memory for outgoing bytes, and for blocks that are read for a commit.
    pub(crate) fn outgoing(&self) -> &Arc<Budget> {
        &self.outgoing
    }

    /// Whether an upload waits for memory or for a slot.
    pub(crate) fn uploads_wait(&self) -> bool {
        self.incoming.is_short() || self.upload_slots.are_short()
    }

    /// One permit for each connection that lingers after its end.
    pub(crate) fn leaving(&self) -> &Arc<Semaphore> {
        &self.leaving
    }

    /// One permit for each connection that is being refused because there are too many.
    pub(crate) fn refusing(&self) -> &Arc<Semaphore> {
        &self.refusing
    }

    /// Counts a download until the result is dropped.
    pub(crate) fn downloading(&self) -> Downloading {
        self.downloads.fetch_add(1, Ordering::Relaxed);
        Downloading { all: Arc::clone(&self.downloads), sent: 0 }
    }
}

/// A download in progress.
pub(crate) struct Downloading {
    all: Arc<AtomicUsize>,
    sent: u64,
}

impl Downloading {
    /// This download's share of the `of_all` bytes that all downloads have together.
    pub(crate) fn share(&self, of_all: u64) -> u64 {
        of_all / self.all.load(Ordering::Relaxed).max(1) as u64
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }
}

impl Drop for Downloading {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::Relaxed);
        metrics::counter!("graviton_sent_bytes_total").increment(self.sent);
    }
}
