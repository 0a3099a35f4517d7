//! Uploads. A blob becomes visible only as a whole, when the store has committed it. Nothing is kept of an
//! upload that was refused, aborted, or whose content does not match its ID.
//!
//! A large upload needs buffers and one of the `MAX_UPLOADS` slots. A small one needs memory for the bytes
//! that arrived, and a slot only if there is no memory. So the memory in use is bounded, however many uploads
//! arrive.

use axum::Extension;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::Response;
use graviton_core::{BlobId, Code, PutOptions, PutReceipt};
use http::header::{CACHE_CONTROL, ETAG, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::conditions;
use crate::app::Shared;
use crate::auth::Caller;
use crate::body::{Incoming, announced};
use crate::extract::Named;
use crate::memory::Held;
use crate::problem::Problem;
use crate::schemas::{Common, DigestMismatch, NotContent, PreconditionFailed, UploadProblems};

/// An upload up to this size needs no slot: its bytes are accounted for in memory.
pub(crate) const SMALL: u64 = 512 << 10;

/// Memory is taken in steps of this size.
const STEP: u64 = 16 << 10;

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The receipt of an upload
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Receipt {
    #[schema(value_type = crate::schemas::BlobIdText)]
    id: String,
    /// Its size in bytes
    #[schema(minimum = 0)]
    size: u64,
    /// The number of its blocks
    #[schema(minimum = 0)]
    blocks: u64,
    /// The number of blocks that were not stored before
    #[schema(minimum = 0)]
    fresh_blocks: u64,
    /// The size of these blocks in bytes
    #[schema(minimum = 0)]
    fresh_bytes: u64,
    /// The bytes that they take where they are stored, after compression
    #[schema(minimum = 0)]
    fresh_stored_bytes: u64,
    /// Whether the blob is new; false if it was already stored
    created: bool,
}

/// The ID of a blob, or its receipt
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = Uploaded)]
#[expect(dead_code, reason = "for the OpenAPI document")]
pub(crate) enum Uploaded {
    #[schema(value_type = crate::schemas::BlobIdText)]
    Id(String),
    Receipt(Receipt),
}

/// Upload a blob of any length and any media type
#[utoipa::path(post, path = "/api/blobs", tag = "blobs",
    params(("Prefer" = Option<String>, Header, description = "`return=representation` returns the receipt instead of the ID")),
    request_body(content((crate::schemas::Content = "application/octet-stream"), (crate::schemas::Content = "*/*")), description = "The content; its media type is ignored"),
    responses(
        (status = 201, body = inline(Uploaded), description = "Stored",
            headers(("Location" = String, description = "The path to read it from"), ("ETag" = String, description = "The ID in double quotes"))),
        (status = 200, body = inline(Uploaded), description = "Already stored",
            headers(("Location" = String, description = "The path to read it from"), ("ETag" = String, description = "The ID in double quotes"))),
        NotContent, UploadProblems, Common))]
pub(super) async fn post(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let receipt = store(&app, &caller, &headers, body, None).await?;
    Ok(answer(&receipt, &headers))
}

/// Upload a blob with a known ID; refused if the content does not match it
#[utoipa::path(put, path = "/api/blobs/{id}", tag = "blobs",
    params(
        ("id" = crate::schemas::BlobIdText, Path, description = "The ID that the content must have"),
        ("If-Match" = Option<String>, Header, description = "Entity tags; the blob must have one of them"),
        ("If-None-Match" = Option<String>, Header, description = "`*` uploads only if the blob is not stored yet"),
        ("Prefer" = Option<String>, Header, description = "`return=representation` returns the receipt instead of the ID"),
    ),
    request_body(content((crate::schemas::Content = "application/octet-stream"), (crate::schemas::Content = "*/*")), description = "The content; its media type is ignored"),
    responses(
        (status = 201, body = inline(Uploaded), description = "Stored",
            headers(("Location" = String, description = "The path to read it from"), ("ETag" = String, description = "The ID in double quotes"))),
        (status = 200, body = inline(Uploaded), description = "Already stored",
            headers(("Location" = String, description = "The path to read it from"), ("ETag" = String, description = "The ID in double quotes"))),
        DigestMismatch,
        PreconditionFailed, NotContent, UploadProblems, Common))]
pub(super) async fn put(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    Named(id): Named<BlobId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    conditions::check_change(app.store(), &headers, &id).await?;
    let receipt = store(&app, &caller, &headers, body, Some(id)).await?;
    Ok(answer(&receipt, &headers))
}

async fn store(
    app: &Shared,
    caller: &Caller,
    headers: &HeaderMap,
    body: Body,
    expected: Option<BlobId>,
) -> Result<PutReceipt, Problem> {
    let mut body = Incoming::content(body, headers, app, app.limits().max_body)?;
    if let (Some(length), Some(id)) = (announced(headers), expected)
        && length != id.size()
    {
        let why = format!("the content has {length} bytes and cannot be {id}; nothing was stored");
        return Err(Problem::new(Code::DigestMismatch, why));
    }
    let mut reserved = app.quota().reserve(app.store()).await?;
    let mut writer = app.store().put_with(&PutOptions::new().expect(expected)).writer().await?;
    let (mut slot, mut held) = (None, Held::default());
    while let Some(bytes) = body.next().await? {
        if slot.is_none() {
            let size = writer.size() + bytes.len() as u64;
            let lacks = size.saturating_sub(held.bytes());
            let more = match lacks {
                _ if size > SMALL => None,
                0 => Some(Held::default()),
                lacks => app.incoming().try_take(lacks.max(STEP)),
            };
            if let Some(more) = more {
                held.add(more);
            } else {
                slot = Some(app.upload_slot(caller).await?);
                held = Held::default();
            }
        }
        reserved.grow(bytes.len() as u64)?;
        writer.write(&bytes).await?;
        metrics::counter!("graviton_received_bytes_total").increment(bytes.len() as u64);
    }
    let receipt = writer.finish().await?;
    drop((slot, held));
    reserved.became(receipt.fresh_stored_bytes);
    metrics::counter!("graviton_put_bytes_total").increment(receipt.id.size());
    metrics::counter!("graviton_put_fresh_bytes_total").increment(receipt.fresh_bytes);
    metrics::counter!("graviton_put_fresh_stored_bytes_total").increment(receipt.fresh_stored_bytes);
    metrics::counter!("graviton_put_blocks_total", "kind" => "fresh").increment(receipt.fresh_blocks);
    metrics::counter!("graviton_put_blocks_total", "kind" => "duplicate")
        .increment(receipt.blocks.saturating_sub(receipt.fresh_blocks));
    Ok(receipt)
}

/// The response for a stored blob.
pub(crate) fn answer(receipt: &PutReceipt, wishes: &HeaderMap) -> Response {
    let status = if receipt.created { StatusCode::CREATED } else { StatusCode::OK };
    let id = receipt.id.to_string();
    let wants_receipt = wishes.get_all(PREFER).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split([',', ';']).any(|one| one.trim().eq_ignore_ascii_case("return=representation"))
    });
    let mut headers = HeaderMap::with_capacity(8);
    let mut say = |name: HeaderName, value: &str| {
        // An ID is always a valid header value.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    say(LOCATION, &format!("/api/blobs/{id}"));
    say(ETAG, &conditions::etag(&receipt.id));
    say(CACHE_CONTROL, "no-store");
    if !wants_receipt {
        return (status, headers, Json(id)).into_response();
    }
    say(PREFERENCE_APPLIED, "return=representation");
    let receipt = Receipt {
        id,
        size: receipt.id.size(),
        blocks: receipt.blocks,
        fresh_blocks: receipt.fresh_blocks,
        fresh_bytes: receipt.fresh_bytes,
        fresh_stored_bytes: receipt.fresh_stored_bytes,
        created: receipt.created,
    };
    (status, headers, Json(receipt)).into_response()
}
