//! Liveness, readiness, and statistics of the store.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use graviton_core::{Code, StoreStats};
use http::header::CACHE_CONTROL;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::Shared;
use crate::problem::Problem;
use crate::schemas::{Common, Unavailable};

/// How long the database and the block store may take to answer.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(health)).routes(routes!(ready)).routes(routes!(stats))
}

/// The health of the server
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    #[schema(pattern = "^ok$")]
    status: &'static str,
    /// The version of the server
    version: &'static str,
}

/// Statistics of the store
#[derive(Debug, Serialize, ToSchema)]
struct Stats {
    #[schema(minimum = 0)]
    blobs: u64,
    /// The size of all blobs
    #[schema(minimum = 0)]
    logical_bytes: u64,
    /// Stored blocks, each counted once
    #[schema(minimum = 0)]
    blocks: u64,
    /// The size of all stored blocks
    #[schema(minimum = 0)]
    stored_bytes: u64,
    /// The size of all blobs divided by the size of their blocks
    #[schema(minimum = 0)]
    dedup_ratio: f64,
    /// Deleted blobs that can still be restored
    #[schema(minimum = 0)]
    dead_blobs: u64,
    /// The size of these blobs
    #[schema(minimum = 0)]
    dead_bytes: u64,
    /// The bytes that a garbage collection without grace period would free
    #[schema(minimum = 0)]
    reclaimable_bytes: u64,
}

impl From<StoreStats> for Stats {
    fn from(stats: StoreStats) -> Stats {
        Stats {
            blobs: stats.blobs,
            logical_bytes: stats.logical_bytes,
            blocks: stats.blocks,
            stored_bytes: stats.stored_bytes,
            dedup_ratio: stats.dedup_ratio(),
            dead_blobs: stats.dead_blobs,
            dead_bytes: stats.dead_bytes,
            reclaimable_bytes: stats.reclaimable_bytes,
        }
    }
}

fn ok() -> Response {
    let health = Health { status: "ok", version: env!("CARGO_PKG_VERSION") };
    ([(CACHE_CONTROL, "no-store")], Json(health)).into_response()
}

/// Check that the server is alive
#[utoipa::path(get, path = "/api/health", tag = "operations", security(()),
    responses((status = 200, body = Health, description = "Alive")))]
async fn health() -> Response {
    ok()
}

/// Check that the server is ready: database and block store answer, and it is not shutting down
#[utoipa::path(get, path = "/api/ready", tag = "operations", security(()),
    responses((status = 200, body = Health, description = "Ready"), Unavailable))]
async fn ready(State(app): State<Shared>) -> Result<Response, Problem> {
    if app.is_draining() {
        return Err(Problem::new(Code::Overloaded, "the server is shutting down; use another one"));
    }
    match tokio::time::timeout(PING_TIMEOUT, app.store().ping()).await {
        Ok(Ok(())) => Ok(ok()),
        Ok(Err(error)) => {
            tracing::error!(code = %error.code(), %error, "the store is not ready");
            Err(Problem::new(
                Code::BackendUnavailable,
                "the store is unavailable; the server log explains why",
            ))
        }
        Err(_) => Err(Problem::new(
            Code::BackendUnavailable,
            "the database or the block store did not answer in time",
        )),
    }
}

/// Statistics of the store. Takes time in proportion to what is stored
#[utoipa::path(get, path = "/api/stats", tag = "operations",
    responses((status = 200, body = Stats, description = "The statistics"), Common))]
async fn stats(State(app): State<Shared>) -> Result<Response, Problem> {
    let stats = app.store().stats().await?;
    metrics::gauge!("graviton_dedup_ratio").set(stats.dedup_ratio());
    metrics::gauge!("graviton_stored_bytes").set(stats.stored_bytes as f64);
    Ok(([(CACHE_CONTROL, "no-store")], Json(Stats::from(stats))).into_response())
}
