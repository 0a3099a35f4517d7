//! Liveness, readiness, and statistics of the store.

#![allow(unused_qualifications, reason = "utoipa's macros qualify what is in scope")]

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use graviton_core::Code;
use http::header::CACHE_CONTROL;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::Shared;
use crate::extract::Params;
use crate::problem::Problem;
use crate::reports::Stats;
use crate::schemas::{Common, Invalid, Unavailable};

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
    /// Seconds since the server was started
    #[schema(minimum = 0)]
    uptime: u64,
}

fn ok(app: &Shared) -> Response {
    let health = Health { status: "ok", version: env!("CARGO_PKG_VERSION"), uptime: app.uptime().as_secs() };
    ([(CACHE_CONTROL, "no-store")], Json(health)).into_response()
}

/// Check that the server is alive
#[utoipa::path(get, path = "/api/health", tag = "operations", security(()),
    responses((status = 200, body = Health, description = "Alive")))]
async fn health(State(app): State<Shared>) -> Response {
    ok(&app)
}

/// The work that a server is to be ready for
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum Work {
    Reading,
    #[default]
    Writing,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ReadyParams {
    /// The work that it is to be ready for; by default `writing`, which includes `reading`
    #[serde(rename = "for", default)]
    #[param(inline, required = false)]
    work: Work,
}

/// Check that the server is ready
///
/// It is not shutting down, database and block store answer, the blocks are there, and it would take a put.
#[utoipa::path(get, path = "/api/ready", tag = "operations", security(()), params(ReadyParams),
    responses((status = 200, body = Health, description = "Ready"), Invalid, Unavailable))]
async fn ready(
    State(app): State<Shared>,
    Params(ReadyParams { work }): Params<ReadyParams>,
) -> Result<Response, Problem> {
    if app.is_draining() {
        return Err(Problem::new(Code::Overloaded, "the server is shutting down; use another one"));
    }
    let not_ready = |what| {
        let why = format!("the server is not ready {what}; its log explains why");
        Problem::new(Code::BackendUnavailable, why)
    };
    let readiness = app.readiness();
    if !readiness.reading.ask(|| answers(app.store().ping(), "reading")).await {
        return Err(not_ready("for reading and writing"));
    }
    if work == Work::Writing
        && !readiness.writing.ask(|| answers(app.store().check_writes(), "writing")).await
    {
        return Err(not_ready("for writing; it is for reading"));
    }
    Ok(ok(&app))
}

/// Whether this succeeds in time; the log gets the reason if not.
async fn answers(question: impl Future<Output = graviton_core::Result<()>>, work: &str) -> bool {
    match tokio::time::timeout(PING_TIMEOUT, question).await {
        Ok(Ok(())) => return true,
        Ok(Err(error)) => tracing::error!(code = %error.code(), %error, "the store is not ready for {work}"),
        Err(_) => tracing::error!("the store is not ready for {work}: no answer within {PING_TIMEOUT:?}"),
    }
    false
}

/// Statistics of the store. Takes time in proportion to what is stored
#[utoipa::path(get, path = "/api/stats", tag = "operations",
    responses((status = 200, body = Stats, description = "The statistics"), Common))]
async fn stats(State(app): State<Shared>) -> Result<Response, Problem> {
    let stats = app.store().stats().await?;
    metrics::gauge!("graviton_dedup_ratio").set(stats.dedup_ratio());
    metrics::gauge!("graviton_stored_bytes").set(stats.stored_bytes as f64);
    for (what, bytes) in [
        ("live", stats.pack_live_bytes),
        ("dead", stats.pack_dead_bytes),
        ("punched", stats.pack_punched_bytes),
        ("pending", stats.pack_pending_bytes),
        ("open", stats.pack_open_bytes),
        ("unknown", stats.unknown_pack_bytes),
    ] {
        metrics::gauge!("graviton_pack_bytes", "of" => what).set(bytes as f64);
    }
    Ok(([(CACHE_CONTROL, "no-store")], Json(Stats(stats))).into_response())
}
