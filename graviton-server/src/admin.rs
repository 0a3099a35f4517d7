//! The routes that start, watch and cancel garbage collections, repacks and verifications. All require the
//! scope `admin`.

#![allow(unused_qualifications, reason = "utoipa's macros qualify what is in scope")]

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use graviton_core::{BlobId, BlockLayout, Code, GcOptions, VerifyOptions};
use http::header::{CACHE_CONTROL, LOCATION};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::Shared;
use crate::body::Incoming;
use crate::extract::{Params, Whole};
use crate::jobs::{Job, View};
use crate::problem::Problem;
use crate::schemas::{BodyProblems, Common, NotFound, OtherJob};

/// The largest order, in bytes.
const MOST_BODY: u64 = 1 << 20;

/// The most blobs in an order.
const MOST_IDS: usize = 1_000;

/// The longest time that a request may wait for a job, in seconds.
const MOST_WAIT: u64 = 60;

pub(crate) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(collect))
        .routes(routes!(repack))
        .routes(routes!(verify))
        .routes(routes!(list))
        .routes(routes!(watch))
        .routes(routes!(cancel))
}

/// The options of a garbage collection
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
struct Collect {
    /// Collect blobs deleted at least this many seconds ago; by default the grace period of the store
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 1_000_000_000)]
    grace_seconds: Option<Whole<0, 1_000_000_000>>,
    /// Only report what would be collected
    dry_run: bool,
    /// Start no further step after this many seconds
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 1_000_000_000)]
    max_seconds: Option<Whole<0, 1_000_000_000>>,
    /// Delete at most this many blocks
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 9_223_372_036_854_775_807_i64)]
    max_blocks: Option<Whole<1, 9_223_372_036_854_775_807>>,
    /// Delete at most about this many bytes
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 9_223_372_036_854_775_807_i64)]
    max_bytes: Option<Whole<1, 9_223_372_036_854_775_807>>,
    /// Delete at most this many blocks per second
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 4_000_000_000_i64)]
    blocks_per_second: Option<Whole<1, 4_000_000_000>>,
}

/// The options of a repack
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Repack {
    /// The layout that all blocks get
    to: Layout,
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum Layout {
    Files,
    Packs,
}

impl From<Layout> for BlockLayout {
    fn from(layout: Layout) -> BlockLayout {
        match layout {
            Layout::Files => BlockLayout::Files,
            Layout::Packs => BlockLayout::Packs,
        }
    }
}

/// The options of a verification
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
struct Verify {
    /// Hash every byte; otherwise only lengths are checked
    deep: bool,
    /// Verify only these blobs; the whole store if empty
    #[schema(value_type = Vec<crate::schemas::BlobIdText>, max_items = 1000)]
    ids: Vec<String>,
    /// Read at most this many bytes per second
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 9_223_372_036_854_775_807_i64)]
    bytes_per_second: Option<Whole<1, 9_223_372_036_854_775_807>>,
    /// Hand blocks and packs that the database does not know to the next garbage collection
    adopt: bool,
    /// Copy blocks that are missing or damaged from packs that the database does not know: after it was
    /// restored from a backup. Not with `ids`
    rebuild: bool,
    /// Continue where an earlier verification ended: the `cursor` of its report
    #[schema(pattern = "^(manifests|packs(/[0-9a-f]{32}/[0-9]{1,18})?|listing|blocks/[0-9]{1,18})$")]
    from: Option<String>,
}

/// The most recent jobs
#[derive(Debug, Serialize, ToSchema)]
struct JobList {
    jobs: Vec<View>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct WatchParams {
    /// Wait up to this many seconds for the job to end
    #[param(minimum = 0, maximum = 60)]
    wait: Option<u64>,
}

/// Start a garbage collection. It frees the space of blobs deleted before the grace period
#[utoipa::path(post, path = "/api/admin/gc", tag = "admin", request_body = Collect,
    responses(
        (status = 202, body = View, description = "Started", headers(("Location" = String, description = "The path to watch it"))),
        (status = 200, body = View, description = "Already running with these options: this is the running job"), OtherJob, BodyProblems, Common))]
async fn collect(State(app): State<Shared>, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let order: Collect = read(&app, &headers, body).await?;
    let options = GcOptions {
        grace: order.grace_seconds.map(|seconds| Duration::from_secs(seconds.0)),
        dry_run: order.dry_run,
        max_time: order.max_seconds.map(|seconds| Duration::from_secs(seconds.0)),
        max_blocks: order.max_blocks.map(|blocks| blocks.0),
        max_bytes: order.max_bytes.map(|bytes| bytes.0),
        blocks_per_second: order.blocks_per_second.map(|blocks| blocks.0 as u32),
    };
    Ok(started(app.jobs().collect(app.store(), options)?))
}

/// Start a repack. It moves all blocks into packs, or out of them into files of their own
#[utoipa::path(post, path = "/api/admin/repack", tag = "admin", request_body = Repack,
    responses(
        (status = 202, body = View, description = "Started", headers(("Location" = String, description = "The path to watch it"))),
        (status = 200, body = View, description = "Already running with these options: this is the running job"), OtherJob, BodyProblems, Common))]
async fn repack(State(app): State<Shared>, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let order: Repack = read(&app, &headers, body).await?;
    Ok(started(app.jobs().repack(app.store(), order.to.into())?))
}

/// Start a verification. It checks that every block exists and is intact
#[utoipa::path(post, path = "/api/admin/verify", tag = "admin", request_body = Verify,
    responses(
        (status = 202, body = View, description = "Started", headers(("Location" = String, description = "The path to watch it"))),
        (status = 200, body = View, description = "Already running with these options: this is the running job"), OtherJob, BodyProblems, Common))]
async fn verify(State(app): State<Shared>, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let order: Verify = read(&app, &headers, body).await?;
    if order.ids.len() > MOST_IDS {
        let why = format!("a request may name at most {MOST_IDS} blobs; split it into several requests");
        return Err(Problem::new(Code::InvalidArgument, why));
    }
    let options = VerifyOptions {
        deep: order.deep,
        ids: order.ids.iter().map(|id| id.parse()).collect::<Result<Vec<BlobId>, _>>()?,
        bytes_per_second: order.bytes_per_second.map(|bytes| bytes.0),
        from: order.from.as_deref().map(str::parse).transpose()?,
        adopt: order.adopt,
        rebuild: order.rebuild,
    };
    Ok(started(app.jobs().verify(app.store(), options)?))
}

async fn read<T: serde::de::DeserializeOwned>(
    app: &Shared,
    headers: &HeaderMap,
    body: Body,
) -> Result<T, Problem> {
    // An order is small: its memory need not stay accounted for.
    Ok(Incoming::new(body, headers, app, MOST_BODY)?.json(headers).await?.0)
}

fn started((job, is_new): (Arc<Job>, bool)) -> Response {
    let status = if is_new { StatusCode::ACCEPTED } else { StatusCode::OK };
    (status, [(LOCATION, job.path())], Json(job.view())).into_response()
}

/// List the recent jobs of this server, the oldest first
#[utoipa::path(get, path = "/api/admin/jobs", tag = "admin", operation_id = "list_jobs",
    responses((status = 200, body = JobList, description = "The jobs"), Common))]
async fn list(State(app): State<Shared>) -> Response {
    let jobs = app.jobs().all().iter().map(|job| job.view()).collect();
    ([(CACHE_CONTROL, "no-store")], Json(JobList { jobs })).into_response()
}

/// Get the progress of a job
#[utoipa::path(get, path = "/api/admin/jobs/{id}", tag = "admin", operation_id = "watch_job",
    params(("id" = crate::schemas::JobNumber, Path, description = "The number of the job"), WatchParams),
    responses((status = 200, body = View, description = "The job and its progress"), NotFound, Common))]
async fn watch(
    State(app): State<Shared>,
    JobNamed(id): JobNamed,
    Params(params): Params<WatchParams>,
) -> Result<Response, Problem> {
    let wait = params.wait.unwrap_or(0);
    if wait > MOST_WAIT {
        return Err(Problem::new(
            Code::InvalidArgument,
            format!("`wait` must be a number from 0 to {MOST_WAIT}"),
        ));
    }
    let job = find(&app, id)?;
    job.wait(Duration::from_secs(wait)).await;
    Ok(([(CACHE_CONTROL, "no-store")], Json(job.view())).into_response())
}

/// Cancel a job
#[utoipa::path(post, path = "/api/admin/jobs/{id}/cancel", tag = "admin", operation_id = "cancel_job",
    params(("id" = crate::schemas::JobNumber, Path, description = "The number of the job")),
    responses((status = 202, body = View, description = "The job will end soon, or has ended"), NotFound, Common))]
async fn cancel(State(app): State<Shared>, JobNamed(id): JobNamed) -> Result<Response, Problem> {
    let job = find(&app, id)?;
    job.cancel();
    Ok((StatusCode::ACCEPTED, Json(job.view())).into_response())
}

fn find(app: &Shared, id: u64) -> Result<Arc<Job>, Problem> {
    app.jobs().get(id).ok_or_else(|| {
        Problem::new(Code::NotFound, format!("this server has no job {id}; ask the server that started it"))
    })
}

/// The number of a job, from the path.
struct JobNamed(u64);

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for JobNamed {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut http::request::Parts, state: &S) -> Result<JobNamed, Problem> {
        let number = axum::extract::Path::<u64>::from_request_parts(parts, state).await;
        number
            .map(|axum::extract::Path(number)| JobNamed(number))
            .map_err(|_| Problem::new(Code::InvalidId, "the ID of a job is a number"))
    }
}
