//! Whether the server lives, whether it is of use, and what is stored.

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
use crate::documented::{Common, Unavailable};
use crate::problem::Problem;

/// So long the database and the block store have to answer.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(health)).routes(routes!(ready)).routes(routes!(stats))
}

/// The state of the server
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    #[schema(pattern = "^ok$")]
    status: &'static str,
    /// The version of the server
    version: &'static str,
}

/// Sums over the store
#[derive(Debug, Serialize, ToSchema)]
struct Stats {
    #[schema(minimum = 0)]
    blobs: u64,
    /// The sum of their sizes
    #[schema(minimum = 0)]
    logical_bytes: u64,
    /// Blocks that are stored, each once
    #[schema(minimum = 0)]
    blocks: u64,
    /// The sum of their sizes
    #[schema(minimum = 0)]
    stored_bytes: u64,
    /// How many bytes of blobs a stored byte serves
    #[schema(minimum = 0)]
    dedup_ratio: f64,
    /// Deleted blobs that can still be restored
    #[schema(minimum = 0)]
    dead_blobs: u64,
    /// The sum of their sizes
    #[schema(minimum = 0)]
    dead_bytes: u64,
    /// What a collection without grace would free
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

/// Whether the server lives
#[utoipa::path(get, path = "/api/health", tag = "operations", security(()),
    responses((status = 200, body = Health, description = "It lives")))]
async fn health() -> Response {
    ok()
}

/// Whether the server is of use: the database and the block store answer, and it is not about to end
#[utoipa::path(get, path = "/api/ready", tag = "operations", security(()),
    responses((status = 200, body = Health, description = "It is"), Unavailable))]
async fn ready(State(app): State<Shared>) -> Result<Response, Problem> {
    if app.is_draining() {
        return Err(Problem::new(Code::Overloaded, "this server is about to end; ask another one"));
    }
    match tokio::time::timeout(PATIENCE, app.store().ping()).await {
        Ok(Ok(())) => Ok(ok()),
        Ok(Err(error)) => {
            tracing::error!(code = %error.code(), %error, "the store is not ready");
            Err(Problem::new(
                Code::BackendUnavailable,
                "the store cannot be used; the log of the server says why",
            ))
        }
        Err(_) => Err(Problem::new(
            Code::BackendUnavailable,
            "the database or the block store does not answer in time",
        )),
    }
}

/// Sums over the store. Costs time in proportion to what is stored
#[utoipa::path(get, path = "/api/stats", tag = "operations",
    responses((status = 200, body = Stats, description = "What is stored"), Common))]
async fn stats(State(app): State<Shared>) -> Result<Response, Problem> {
    let stats = app.store().stats().await?;
    metrics::gauge!("graviton_dedup_ratio").set(stats.dedup_ratio());
    metrics::gauge!("graviton_stored_bytes").set(stats.stored_bytes as f64);
    Ok(([(CACHE_CONTROL, "no-store")], Json(Stats::from(stats))).into_response())
}
