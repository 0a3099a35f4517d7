//! The routes of blobs: upload, download, list, delete, restore, and links to them.

#![allow(unused_qualifications, reason = "utoipa's macros qualify what is in scope")]

mod conditions;
mod download;
mod links;
mod presentation;
mod upload;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use graviton_core::{BlobId, BlobStat, Code, ManifestEntry};
use http::header::CACHE_CONTROL;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::Shared;
use crate::extract::{Named, Params, most};
use crate::problem::Problem;
use crate::schemas::{Common, NotFound, PreconditionFailed};
use crate::timestamp::rfc3339;

pub(crate) use conditions::is_known;
pub(crate) use presentation::{Disposition, MediaType};
pub(crate) use upload::{SMALL, Uploaded, answer};

/// The largest page of blobs, and of a manifest.
const MOST_BLOBS: u64 = 1_000;
const MOST_ENTRIES: u64 = 10_000;

/// The routes that stream content.
pub(crate) fn streams() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(upload::post))
        .routes(routes!(download::get, download::head, upload::put, delete))
        .routes(routes!(restore))
        .routes(routes!(links::make))
}

/// The routes that answer with JSON.
pub(crate) fn documents() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(manifest))
}

/// A blob
#[derive(Debug, Serialize, ToSchema)]
struct Blob {
    #[schema(value_type = crate::schemas::BlobIdText)]
    id: String,
    /// Its size in bytes
    #[schema(minimum = 0)]
    size: u64,
    /// How many blocks it consists of
    #[schema(minimum = 0)]
    blocks: u64,
    /// The chunker that cut it
    chunker: String,
    /// When it was stored, in UTC
    #[schema(format = "date-time")]
    created_at: String,
}

impl From<BlobStat> for Blob {
    fn from(stat: BlobStat) -> Blob {
        Blob {
            id: stat.id.to_string(),
            size: stat.id.size(),
            blocks: stat.blocks,
            chunker: stat.chunker,
            created_at: rfc3339(stat.created_at_ms),
        }
    }
}

/// A page of blobs
#[derive(Debug, Serialize, ToSchema)]
struct BlobPage {
    blobs: Vec<Blob>,
    /// The `after` of the next page; null on the last page
    #[schema(value_type = Option<crate::schemas::BlobIdText>)]
    next: Option<String>,
}

/// A block of a blob
#[derive(Debug, Serialize, ToSchema)]
struct Entry {
    /// Its offset in the blob, in bytes
    #[schema(minimum = 0)]
    offset: u64,
    /// Its size in bytes
    #[schema(minimum = 1)]
    size: u64,
    /// Its key
    #[schema(value_type = crate::schemas::BlockKeyText)]
    key: String,
}

impl From<ManifestEntry> for Entry {
    fn from(entry: ManifestEntry) -> Entry {
        Entry { offset: entry.offset, size: entry.key.size() as u64, key: entry.key.to_string() }
    }
}

/// A page of a manifest
#[derive(Debug, Serialize, ToSchema)]
struct ManifestPage {
    blocks: Vec<Entry>,
    /// The `from` of the next page; null on the last page
    #[schema(minimum = 0)]
    next: Option<u64>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListParams {
    /// List blobs after this ID, whether it exists or not
    #[param(value_type = Option<crate::schemas::BlobIdText>)]
    after: Option<String>,
    /// The most blobs to return; 100 by default
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u64>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ManifestParams {
    /// Start with the block that contains this byte of the blob; 0 by default
    #[param(minimum = 0, maximum = 9_223_372_036_854_775_807_i64)]
    from: Option<u64>,
    /// The most blocks to return; 1000 by default
    #[param(minimum = 1, maximum = 10000)]
    limit: Option<u64>,
}

/// List blobs in the order of their IDs
#[utoipa::path(get, path = "/api/blobs", tag = "blobs", params(ListParams),
    responses((status = 200, body = BlobPage, description = "A page of blobs"), Common))]
async fn list(State(app): State<Shared>, Params(params): Params<ListParams>) -> Result<Response, Problem> {
    let after: Option<BlobId> = params.after.as_deref().map(str::parse).transpose()?;
    let limit = most("limit", params.limit, 100, MOST_BLOBS)?;
    // Asks for one blob more than requested, to know whether there is a next page.
    let mut stats = app.store().list(after.as_ref(), limit + 1).await?;
    let more = stats.len() > limit;
    stats.truncate(limit);
    let next = stats.last().filter(|_| more).map(|last| last.id.to_string());
    let page = BlobPage { blobs: stats.into_iter().map(Blob::from).collect(), next };
    Ok(([(CACHE_CONTROL, "no-store")], Json(page)).into_response())
}

/// List the blocks of a blob
#[utoipa::path(get, path = "/api/blobs/{id}/manifest", tag = "blobs",
    params(("id" = crate::schemas::BlobIdText, Path, description = "The blob"), ManifestParams),
    responses((status = 200, body = ManifestPage, description = "A page of the manifest"), NotFound, Common))]
async fn manifest(
    State(app): State<Shared>,
    Named(id): Named<BlobId>,
    Params(params): Params<ManifestParams>,
) -> Result<Json<ManifestPage>, Problem> {
    let limit = most("limit", params.limit, 1_000, MOST_ENTRIES)?;
    let from = params.from.unwrap_or(0);
    if i64::try_from(from).is_err() {
        let why = format!("`from` must be at most {}", i64::MAX);
        return Err(Problem::new(Code::InvalidArgument, why));
    }
    let entries = app.store().manifest(&id, from, limit).await?;
    let next = entries.last().map(ManifestEntry::end).filter(|end| *end < id.size());
    Ok(Json(ManifestPage { blocks: entries.into_iter().map(Entry::from).collect(), next }))
}

/// Delete a blob. It can be restored during the grace period
#[utoipa::path(delete, path = "/api/blobs/{id}", tag = "blobs",
    params(
        ("id" = crate::schemas::BlobIdText, Path, description = "The blob"),
        ("If-Match" = Option<String>, Header, description = "Entity tags; the blob must have one of them"),
        ("If-None-Match" = Option<String>, Header, description = "Entity tags; the blob must have none of them"),
    ),
    responses((status = 204, description = "Deleted"), NotFound, PreconditionFailed, Common))]
async fn delete(
    State(app): State<Shared>,
    Named(id): Named<BlobId>,
    wishes: HeaderMap,
) -> Result<StatusCode, Problem> {
    conditions::check_change(app.store(), &wishes, &id).await?;
    app.store().delete(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Restore a deleted blob
///
/// During the grace period this always succeeds. Later it succeeds only if nothing is collected yet.
#[utoipa::path(post, path = "/api/blobs/{id}/restore", tag = "blobs",
    params(("id" = crate::schemas::BlobIdText, Path, description = "The blob")),
    responses((status = 204, description = "Restored, or never deleted"), NotFound, Common))]
async fn restore(State(app): State<Shared>, Named(id): Named<BlobId>) -> Result<StatusCode, Problem> {
    app.store().restore(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}
