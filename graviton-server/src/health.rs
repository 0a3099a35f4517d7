//! Liveness, readiness, and statistics of the store.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use graviton_core::Code;
use http::header::CACHE_CONTROL;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::Shared;
use crate::problem::Problem;
use crate::reports::Stats;
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
    Ok(([(CACHE_CONTROL, "no-store")], Json(Stats(stats))).into_response())
}
