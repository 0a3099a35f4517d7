//! A blob coming in. Nothing of it is visible before the response, and nothing is kept of one that was refused, cut
//! short or not what its id says.
//!
//! A large upload takes buffers, and a place among `MAX_UPLOADS`. A small one takes memory as it comes, and no place unless
//! there is no memory: so that what is held is bounded however many come.

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
use crate::documented::{Common, DigestMismatch, PreconditionFailed, UploadProblems};
use crate::extract::Named;
use crate::memory::Held;
use crate::problem::Problem;

/// What is smaller needs no place among the uploads: it is held in the memory that it fills.
pub(crate) const SMALL: u64 = 512 << 10;

/// Memory is taken in steps of this.
const STEP: u64 = 16 << 10;

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// What an upload did
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Receipt {
    #[schema(value_type = crate::documented::BlobIdText)]
    id: String,
    /// Its size in bytes
    #[schema(minimum = 0)]
    size: u64,
    /// How many blocks it was cut into
    #[schema(minimum = 0)]
    blocks: u64,
    /// How many of them were not in the store before
    #[schema(minimum = 0)]
    fresh_blocks: u64,
    /// The bytes of those
    #[schema(minimum = 0)]
    fresh_bytes: u64,
    /// Whether the blob is new; false if it was there already
    created: bool,
}

/// The id of a blob, or its receipt
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = Uploaded)]
#[expect(dead_code, reason = "for the OpenAPI document")]
pub(crate) enum Uploaded {
    #[schema(value_type = crate::documented::BlobIdText)]
    Id(String),
    Receipt(Receipt),
}

/// Put a blob: a stream of any length, of any type
#[utoipa::path(post, path = "/api/blobs", tag = "blobs",
    params(("Prefer" = Option<String>, Header, description = "`return=representation` for the receipt instead of the id")),
    request_body(content((crate::documented::Content = "application/octet-stream"), (crate::documented::Content = "*/*")), description = "The content; its type is left aside"),
    responses(
        (status = 201, body = inline(Uploaded), description = "It is stored",
            headers(("Location" = String, description = "Where it can be read"), ("ETag" = String, description = "Its id, quoted"))),
        (status = 200, body = inline(Uploaded), description = "It was there already",
            headers(("Location" = String, description = "Where it can be read"), ("ETag" = String, description = "Its id, quoted"))),
        UploadProblems, Common))]
pub(super) async fn post(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let receipt = store(&app, &caller, &headers, body, None).await?;
    Ok(answer(&receipt, &headers))
}

/// Put a blob if it has this id
#[utoipa::path(put, path = "/api/blobs/{id}", tag = "blobs",
    params(
        ("id" = crate::documented::BlobIdText, Path, description = "What the content has to be"),
        ("If-Match" = Option<String>, Header, description = "Entity tags of which it has to have one"),
        ("If-None-Match" = Option<String>, Header, description = "`*` to put it only if it is not there"),
        ("Prefer" = Option<String>, Header, description = "`return=representation` for the receipt instead of the id"),
    ),
    request_body(content((crate::documented::Content = "application/octet-stream"), (crate::documented::Content = "*/*")), description = "The content; its type is left aside"),
    responses(
        (status = 201, body = inline(Uploaded), description = "It is stored",
            headers(("Location" = String, description = "Where it can be read"), ("ETag" = String, description = "Its id, quoted"))),
        (status = 200, body = inline(Uploaded), description = "It was there already",
            headers(("Location" = String, description = "Where it can be read"), ("ETag" = String, description = "Its id, quoted"))),
        DigestMismatch,
        PreconditionFailed, UploadProblems, Common))]
pub(super) async fn put(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    Named(id): Named<BlobId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    conditions::check(&headers, &id)?;
    // `If-None-Match` asks to put only what is not there.
    if conditions::is_known(&headers, &conditions::etag(&id)) && app.store().exists(&id).await? {
        return Err(conditions::failed("the blob is there already, and If-None-Match wants that it is not"));
    }
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
    let mut body = Incoming::new(body, headers, app, app.limits().max_body)?;
    if let (Some(length), Some(id)) = (announced(headers), expected)
        && length != id.size()
    {
        let why =
            format!("the content has {length} bytes and not those of {id}; nothing was stored under that id");
        return Err(Problem::new(Code::DigestMismatch, why));
    }
    let mut reserved = app.quota().reserve(app.store()).await?;
    let mut writer = app.store().put_with(&PutOptions::new().expect(expected)).writer().await?;
    let (mut place, mut held) = (None, Held::default());
    while let Some(bytes) = body.next().await? {
        if place.is_none() {
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
                place = Some(app.place_for_upload(caller).await?);
                held = Held::default();
            }
        }
        reserved.grow(bytes.len() as u64)?;
        writer.write(&bytes).await?;
        metrics::counter!("graviton_received_bytes_total").increment(bytes.len() as u64);
    }
    let receipt = writer.finish().await?;
    drop((place, held));
    reserved.became(receipt.fresh_bytes);
    metrics::counter!("graviton_put_bytes_total").increment(receipt.id.size());
    metrics::counter!("graviton_put_fresh_bytes_total").increment(receipt.fresh_bytes);
    metrics::counter!("graviton_put_blocks_total", "kind" => "fresh").increment(receipt.fresh_blocks);
    metrics::counter!("graviton_put_blocks_total", "kind" => "duplicate")
        .increment(receipt.blocks.saturating_sub(receipt.fresh_blocks));
    Ok(receipt)
}

/// The response to a blob that is stored.
pub(crate) fn answer(receipt: &PutReceipt, wishes: &HeaderMap) -> Response {
    let status = if receipt.created { StatusCode::CREATED } else { StatusCode::OK };
    let id = receipt.id.to_string();
    let wants_receipt = wishes.get_all(PREFER).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split([',', ';']).any(|one| one.trim().eq_ignore_ascii_case("return=representation"))
    });
    let mut headers = HeaderMap::with_capacity(8);
    let mut say = |name: HeaderName, value: &str| {
        // An id is a header's text.
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
        created: receipt.created,
    };
    (status, headers, Json(receipt)).into_response()
}
