//! The routes of blocks, for clients that cut content themselves and upload only the missing blocks.
//!
//! ```text
//! POST /api/blocks/missing -> PUT /api/blocks/{key} (each missing one) -> POST /api/manifests
//! ```
//! These calls share a session. A session is a writer in the database, so any server can continue it. The
//! client sends it as `Graviton-Session`, and each call extends it.

use std::fmt;

use axum::Extension;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use graviton_core::{BlobId, BlockKey, COMMIT_AHEAD, Code, Session, SessionCommit};
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::{App, SESSION_LIFETIME, Shared};
use crate::auth::Caller;
use crate::blobs::{self, SMALL};
use crate::body::{Incoming, announced};
use crate::client::Requester;
use crate::extract::Named;
use crate::outgoing::{Block, Outgoing, Source};
use crate::problem::Problem;
use crate::quota::REFERENCE;
use crate::schemas::{
    BodyProblems, Common, DigestMismatch, MissingBlocks, NoRoom, NotContent, NotFound, UploadProblems,
};
use crate::timestamp::rfc3339;

/// The most keys in one question, and the most bytes of it.
const MOST_KEYS: usize = 10_000;
const MOST_QUESTION: u64 = 2 << 20;

/// The most bytes of a manifest: about 700,000 blocks.
const MOST_MANIFEST: u64 = 64 << 20;

const SESSION: HeaderName = HeaderName::from_static("graviton-session");

/// The routes that stream content.
pub(crate) fn streams() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(get, head, put))
}

/// The routes that answer with JSON.
pub(crate) fn documents() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(missing)).routes(routes!(commit))
}

/// The blocks that a client has
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Question {
    /// Their keys
    #[schema(value_type = Vec<crate::schemas::BlockKeyText>, max_items = 10000)]
    keys: Vec<Key>,
}

/// The blocks to upload
#[derive(Debug, Serialize, ToSchema)]
struct Answer {
    /// The keys of the missing blocks, each once
    #[schema(value_type = Vec<crate::schemas::BlockKeyText>)]
    missing: Vec<String>,
    /// The session: send it as `Graviton-Session` with the next calls, to any server; keep it secret
    session: String,
    /// When the session expires without another call, in UTC
    #[schema(format = "date-time")]
    expires_at: String,
}

/// The blocks of a blob
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Manifest {
    #[schema(value_type = crate::schemas::BlobIdText)]
    id: String,
    /// The keys of its blocks, in order
    #[schema(value_type = Vec<crate::schemas::BlockKeyText>)]
    blocks: Vec<Key>,
}

/// A key, parsed while the JSON is read: with hundreds of thousands of them, no text is kept.
#[derive(Debug)]
struct Key(BlockKey);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a block key")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Key, E> {
                text.parse().map(Key).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// The session of the request.
fn session(app: &Shared, headers: &HeaderMap) -> Result<Option<Session>, Problem> {
    let Some(token) = headers.get(&SESSION) else { return Ok(None) };
    match app.store().session(token.to_str().unwrap_or_default()) {
        Ok(session) => Ok(Some(session)),
        Err(error) if error.code() == Code::InvalidArgument => Err(Problem::new(
            Code::NotFound,
            "no such session in this store; send Graviton-Session unchanged, or start a new session without it",
        )),
        Err(error) => Err(error.into()),
    }
}

/// The limit on the size of uploads also applies to blobs made of blocks.
fn not_too_large(app: &App, size: u64) -> Result<(), Problem> {
    let most = app.limits().max_body;
    if size <= most {
        return Ok(());
    }
    Err(Problem::new(Code::TooLarge, format!("uploads are limited to {most} bytes")))
}

fn needed(session: Option<Session>) -> Result<Session, Problem> {
    session.ok_or_else(|| {
        Problem::new(
            Code::InvalidArgument,
            "a session is required; get one from POST /api/blocks/missing and send it as Graviton-Session",
        )
    })
}

/// Find out which blocks are missing. The other blocks are kept while the session lasts
#[utoipa::path(post, path = "/api/blocks/missing", tag = "blocks", request_body = Question,
    params(("Graviton-Session" = Option<String>, Header, description = "The session to continue; a new one is started without it")),
    responses((status = 200, body = Answer, description = "The missing blocks and the session"),
        NotFound, BodyProblems, NoRoom, Common))]
async fn missing(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let question = Incoming::new(body, &headers, &app, MOST_QUESTION)?;
    let (question, _held): (Question, _) = question.json(&headers).await?;
    if question.keys.len() > MOST_KEYS {
        let why = format!("a request may contain at most {MOST_KEYS} keys; split it into several requests");
        return Err(Problem::new(Code::TooLarge, why));
    }
    app.quota().check_kept(app.sessions().kept() + question.keys.len() as u64)?;
    let session = match session(&app, &headers)? {
        Some(session) => session,
        None => app.store().open_session(SESSION_LIFETIME).await?,
    };
    let keys: Vec<BlockKey> = question.keys.into_iter().map(|key| key.0).collect();
    let _in_use = app.sessions().keep(&caller, &session, keys.len() as u64).await?;
    let missing = session.missing(&keys).await?;
    let answer = Answer {
        missing: missing.iter().map(ToString::to_string).collect(),
        session: session.token(),
        expires_at: rfc3339(session.expires_at_ms()),
    };
    Ok(([(CACHE_CONTROL, "no-store")], Json(answer)).into_response())
}

/// Upload a missing block
#[utoipa::path(put, path = "/api/blocks/{key}", tag = "blocks", operation_id = "put_block",
    params(
        ("key" = crate::schemas::BlockKeyText, Path, description = "The key that the content must have"),
        ("Graviton-Session" = String, Header, description = "The session that keeps the block"),
    ),
    request_body(content((crate::schemas::Content = "application/octet-stream"), (crate::schemas::Content = "*/*")), description = "The content; its media type is ignored"),
    responses(
        (status = 201, body = inline(crate::schemas::BlockKeyText), description = "Stored; concurrent uploads of the same block may each get this status"),
        (status = 200, body = inline(crate::schemas::BlockKeyText), description = "Already stored"),
        NotFound, DigestMismatch, NotContent, UploadProblems, Common))]
async fn put(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    Named(key): Named<BlockKey>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let size = key.size() as u64;
    not_too_large(&app, size)?;
    let session = needed(session(&app, &headers)?)?;
    let longer = || {
        let why = format!("the content does not have the size of block {key}; nothing was stored");
        Problem::new(Code::DigestMismatch, why)
    };
    if announced(&headers).is_some_and(|length| length != size) {
        return Err(longer());
    }
    let body = Incoming::content(body, &headers, &app, size)?;
    let _in_use = app.sessions().keep(&caller, &session, 1).await?;
    let mut reserved = app.quota().reserve(app.store()).await?;
    reserved.grow(size)?;
    let _slot = if size > SMALL { Some(app.upload_slot(&caller).await?) } else { None };
    let _held = app.incoming().take_soon(size).await?;
    let bytes = match body.all().await {
        // The limit comes from the key, not from a setting.
        Err(problem) if problem.code() == Code::TooLarge => return Err(longer()),
        all => all?,
    };
    metrics::counter!("graviton_received_bytes_total").increment(bytes.len() as u64);
    let fresh = session.put_block(&key, bytes).await?;
    reserved.became(if fresh { size } else { 0 });
    let kind = if fresh { "fresh" } else { "duplicate" };
    metrics::counter!("graviton_put_blocks_total", "kind" => kind).increment(1);
    let status = if fresh { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(key.to_string())).into_response())
}

/// Download a block
#[utoipa::path(get, path = "/api/blocks/{key}", tag = "blocks", operation_id = "get_block",
    params(("key" = crate::schemas::BlockKeyText, Path, description = "The block")),
    responses(
        (status = 200, body = inline(crate::schemas::Content), content_type = "application/octet-stream", description = "The content of the block"),
        (status = 304, description = "Not modified: the client has it"), NotFound, Common))]
async fn get(
    State(app): State<Shared>,
    Extension(requester): Extension<Requester>,
    Named(key): Named<BlockKey>,
    wishes: HeaderMap,
) -> Result<Response, Problem> {
    let mut headers = describe(&app, &key)?;
    if blobs::is_known(&wishes, &format!("\"{key}\"")) && app.store().has_block(&key).await? {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let source = Source::Block(Block::new(app.store(), key));
    let mut outgoing = Outgoing::new(&app, requester, source, None).await?;
    let first = outgoing.next().await?.unwrap_or_default();
    let body = if first.len() == key.size() {
        Body::from(first)
    } else {
        outgoing.park((key.size() - first.len()) as u64);
        Body::from_stream(stream::try_unfold((Some(first), outgoing), |(first, mut outgoing)| async move {
            let next = if first.is_some() { first } else { outgoing.next().await? };
            Ok::<_, graviton_core::Error>(next.map(|bytes| (bytes, (None, outgoing))))
        }))
    };
    headers.insert(CONTENT_LENGTH, HeaderValue::from(key.size()));
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    Ok(response)
}

/// Check whether a block is stored
#[utoipa::path(head, path = "/api/blocks/{key}", tag = "blocks", operation_id = "head_block",
    params(("key" = crate::schemas::BlockKeyText, Path, description = "The block")),
    responses((status = 200, description = "It exists"), NotFound, Common))]
async fn head(State(app): State<Shared>, Named(key): Named<BlockKey>) -> Result<Response, Problem> {
    if !app.store().has_block(&key).await? {
        return Err(Problem::new(Code::NotFound, format!("block {key} is not stored")));
    }
    let mut response = Response::new(Body::empty());
    *response.headers_mut() = describe(&app, &key)?;
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(key.size()));
    Ok(response)
}

fn describe(app: &Shared, key: &BlockKey) -> Result<HeaderMap, Problem> {
    let mut headers = HeaderMap::with_capacity(8);
    let etag = HeaderValue::from_str(&format!("\"{key}\""));
    headers.insert(
        ETAG,
        etag.map_err(|_| Problem::internal(Code::Internal, format!("the key {key} is not a valid header")))?,
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(app.caching()));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(headers)
}

/// Create a blob from stored blocks. The server reads all of them to compute the digest
#[utoipa::path(post, path = "/api/manifests", tag = "blocks", request_body = Manifest,
    params(
        ("Graviton-Session" = String, Header, description = "The session that keeps the blocks"),
        ("Prefer" = Option<String>, Header, description = "`return=representation` returns the receipt instead of the ID"),
    ),
    responses(
        (status = 201, body = inline(blobs::Uploaded), description = "Stored",
            headers(("Location" = String, description = "The path to read it from"), ("ETag" = String, description = "The ID in double quotes"))),
        (status = 200, body = inline(blobs::Uploaded), description = "Already stored",
            headers(("Location" = String, description = "The path to read it from"), ("ETag" = String, description = "The ID in double quotes"))),
        MissingBlocks, DigestMismatch, BodyProblems, UploadProblems, Common))]
async fn commit(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let body = Incoming::new(body, &headers, &app, MOST_MANIFEST)?;
    let session = needed(session(&app, &headers)?)?;
    let _in_use = app.sessions().enter(&caller, &session).await;
    let (manifest, _held): (Manifest, _) = body.json(&headers).await?;
    let id: BlobId = manifest.id.parse()?;
    not_too_large(&app, id.size())?;
    let keys: Vec<BlockKey> = manifest.blocks.into_iter().map(|key| key.0).collect();
    let mut reserved = app.quota().reserve(app.store()).await?;
    let rows = keys.len() as u64 * REFERENCE;
    reserved.grow(rows)?;
    // The request may be short, but every block of the blob is read.
    let _slot = if id.size() > SMALL { Some(app.upload_slot(&caller).await?) } else { None };
    let largest = keys.iter().map(|key| key.size() as u64).max().unwrap_or(0);
    let _blocks = app.outgoing().take_soon(id.size().min(COMMIT_AHEAD.max(largest) + largest)).await?;
    match session.commit(&keys, &id).await? {
        SessionCommit::Committed(receipt) => {
            reserved.became(if receipt.created { rows } else { 0 });
            metrics::counter!("graviton_put_bytes_total").increment(receipt.id.size());
            Ok(blobs::answer(&receipt, &headers))
        }
        SessionCommit::Missing(missing) => {
            let detail = format!("{} blocks are not stored; upload them, then commit again", missing.len());
            let missing = missing.iter().map(ToString::to_string).collect();
            Err(Problem::new(Code::NotFound, detail).naming_missing(missing))
        }
    }
}
