//! What all requests share, and the table of routes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::{Extension, Router};
use graviton_core::{AsyncStore, Code, Result};
use http::header::CONTENT_TYPE;
use http::{Extensions, HeaderMap, StatusCode, Version};
use tokio::sync::Semaphore;
use tower_http::compression::CompressionLayer;
use tower_http::cors::{AllowOrigin, Any, CorsLayer};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::auth::{Auth, Caller};
use crate::jobs::Jobs;
use crate::memory::Budget;
use crate::places::{Place, Places};
use crate::problem::Problem;
use crate::quota::Quota;
use crate::settings::{Limits, Settings};
use crate::{admin, blobs, blocks, documented, health, metrics_page};

/// Connections that are looked after for a moment after their end, and as many that are told that there are too many.
const LEAVING: usize = 64;

/// What all requests share.
pub(crate) struct App {
    store: AsyncStore,
    settings: Settings,
    auth: Auth,
    quota: Arc<Quota>,
    places: Places,
    incoming: Arc<Budget>,
    outgoing: Arc<Budget>,
    leaving: Arc<Semaphore>,
    refusing: Arc<Semaphore>,
    downloads: Arc<AtomicUsize>,
    jobs: Jobs,
    draining: AtomicBool,
    connections: AtomicUsize,
}

/// The one of a server.
pub(crate) type Shared = Arc<App>;

impl App {
    pub(crate) async fn new(store: AsyncStore, auth: Auth, settings: Settings) -> Result<Shared> {
        let quota = Quota::new(settings.limits.quota);
        if quota.is_on() {
            quota.refresh(&store).await?;
        }
        Ok(Arc::new(App {
            places: Places::new(settings.limits.max_uploads, settings.limits.max_uploads_each),
            incoming: Budget::new(settings.limits.memory / 4),
            outgoing: Budget::new(settings.limits.memory - settings.limits.memory / 4),
            leaving: Arc::new(Semaphore::new(LEAVING)),
            refusing: Arc::new(Semaphore::new(LEAVING)),
            downloads: Arc::default(),
            jobs: Jobs::default(),
            draining: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
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

    /// How what never changes may be cached. What needs a token is not for a cache that others use.
    pub(crate) fn caching(&self) -> &'static str {
        if self.auth.is_on() {
            "private, max-age=31536000, immutable"
        } else {
            "public, max-age=31536000, immutable"
        }
    }

    /// From now on this server is not ready for more.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// The number of open connections.
    pub(crate) fn connections(&self) -> &AtomicUsize {
        &self.connections
    }

    /// How many uploads have a place, and how many downloads there are.
    pub(crate) fn transfers(&self) -> (usize, usize) {
        (self.places.taken(), self.downloads.load(Ordering::Relaxed))
    }

    /// A place for an upload that takes buffers. Waits for one as long as a client may let us wait.
    pub(crate) async fn place_for_upload(&self, caller: &Caller) -> Result<Place, Problem> {
        self.places.take(caller, self.limits().body_timeout.min(Duration::from_secs(10))).await
    }

    /// The memory of what comes in: bodies that are held as a whole, and uploads that have no place.
    pub(crate) fn incoming(&self) -> &Arc<Budget> {
        &self.incoming
    }

    /// The memory of what goes out, and of blocks that are read for a commit.
    pub(crate) fn outgoing(&self) -> &Arc<Budget> {
        &self.outgoing
    }

    /// Whether somebody waits for what those who send something have taken.
    pub(crate) fn uploads_wait(&self) -> bool {
        self.incoming.is_short() || self.places.are_short()
    }

    /// For connections that have ended and linger.
    pub(crate) fn leaving(&self) -> &Arc<Semaphore> {
        &self.leaving
    }

    /// For connections that are told that there are too many.
    pub(crate) fn refusing(&self) -> &Arc<Semaphore> {
        &self.refusing
    }

    /// A download begins; it ends when what this returns is dropped.
    pub(crate) fn downloading(&self) -> Downloading {
        self.downloads.fetch_add(1, Ordering::Relaxed);
        Downloading { all: Arc::clone(&self.downloads), sent: 0 }
    }
}

/// A download that is under way.
pub(crate) struct Downloading {
    all: Arc<AtomicUsize>,
    sent: u64,
}

impl Downloading {
    /// Its share of what all have together.
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

/// Blobs are compressed already, mostly, and what is small or seldom asked for is not worth it.
fn is_json(_: StatusCode, _: Version, headers: &HeaderMap, _: &Extensions) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"))
}

/// Every route, and the document that describes them.
fn routes() -> OpenApiRouter<Shared> {
    let documents = OpenApiRouter::new()
        .merge(blobs::documents())
        .merge(blocks::documents())
        .merge(health::routes())
        .merge(metrics_page::routes())
        .merge(admin::routes())
        .merge(documented::routes())
        .layer(CompressionLayer::new().compress_when(is_json));
    OpenApiRouter::with_openapi(documented::Document::openapi())
        .merge(blobs::streams())
        .merge(blocks::streams())
        .merge(documents)
}

/// The OpenAPI document.
pub(crate) fn openapi() -> utoipa::openapi::OpenApi {
    documented::finish(routes().into_openapi())
}

pub(crate) fn router(app: &Shared) -> Router {
    let (router, _) = routes().split_for_parts();
    let router = router
        .fallback(async || {
            Problem::new(Code::NotFound, "there is nothing at this path; /docs lists what there is")
        })
        .method_not_allowed_fallback(async || {
            Problem::new(Code::MethodNotAllowed, "the method does not apply here; /docs lists those that do")
        })
        .with_state(Arc::clone(app));
    with_cors(router, app.settings())
}

/// Answers requests that did not get in with the [`Problem`] among their extensions: pages of other origins are to see why.
pub(crate) fn refusals(app: &Shared) -> Router {
    with_cors(Router::new().fallback(async |Extension(problem): Extension<Problem>| problem), app.settings())
}

/// Tells browsers which pages may use the server, if any of other origins may.
fn with_cors(router: Router, settings: &Settings) -> Router {
    let origins = &settings.cors;
    if origins.is_empty() {
        return router;
    }
    let origin = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.clone())
    };
    let exposed = [
        "etag",
        "location",
        "content-range",
        "content-disposition",
        "accept-ranges",
        "retry-after",
        "www-authenticate",
        "x-request-id",
        "preference-applied",
    ];
    let cors = CorsLayer::new()
        .allow_origin(origin)
        .allow_methods(Any)
        .allow_headers([
            http::header::AUTHORIZATION,
            CONTENT_TYPE,
            http::header::RANGE,
            http::header::IF_RANGE,
            http::header::IF_MATCH,
            http::header::IF_NONE_MATCH,
            http::HeaderName::from_static("prefer"),
            http::HeaderName::from_static("graviton-session"),
            http::HeaderName::from_static("x-request-id"),
        ])
        .expose_headers(exposed.map(http::HeaderName::from_static))
        .max_age(Duration::from_secs(3_600));
    router.layer(cors)
}
