//! The routes of blocks, for clients that cut by themselves and send only what is missing.
//!
//! ```text
//! POST /api/blocks/missing -> PUT /api/blocks/{key} (each that is) -> POST /api/manifests
//! ```
//! The session between these calls is a writer of the database: it names itself in `Graviton-Session`, any server goes
//! on with it, and each call moves its end.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

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

use crate::app::{App, Shared};
use crate::auth::Caller;
use crate::blobs::{self, SMALL};
use crate::body::{Incoming, announced};
use crate::connection::Connection;
use crate::documented::{BodyProblems, Common, DigestMismatch, MissingBlocks, NotFound, UploadProblems};
use crate::extract::Named;
use crate::outgoing::{Block, Outgoing, Source};
use crate::problem::Problem;
use crate::timestamp::rfc3339;

/// A session that is not used for so long is over.
const LIFETIME: Duration = Duration::from_secs(600);

/// Keys in one question, and bytes of the question.
const MOST_KEYS: usize = 10_000;
const MOST_QUESTION: u64 = 2 << 20;

/// Bytes of a manifest that is committed: about 700,000 blocks.
const MOST_MANIFEST: u64 = 64 << 20;

const SESSION: HeaderName = HeaderName::from_static("graviton-session");

/// The routes whose bodies are streams.
pub(crate) fn streams() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(get, head, put))
}

/// The routes whose answers are JSON.
pub(crate) fn documents() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(missing)).routes(routes!(commit))
}

/// Which blocks a client has
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Question {
    /// Their keys
    #[schema(value_type = Vec<crate::documented::BlockKeyText>, max_items = 10000)]
    keys: Vec<Key>,
}

/// Which of them are to be sent
#[derive(Debug, Serialize, ToSchema)]
struct Answer {
    /// The keys of the blocks that are not there, each once
    #[schema(value_type = Vec<crate::documented::BlockKeyText>)]
    missing: Vec<String>,
    /// To be sent as `Graviton-Session` with what comes next, to any of the servers; to be kept from others
    session: String,
    /// When the session is over if nothing comes, in UTC
    #[schema(format = "date-time")]
    expires_at: String,
}

/// Which blocks make up a blob
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Manifest {
    #[schema(value_type = crate::documented::BlobIdText)]
    id: String,
    /// The keys of its blocks, in order
    #[schema(value_type = Vec<crate::documented::BlockKeyText>)]
    blocks: Vec<Key>,
}

/// A key, read as it comes: of hundreds of thousands, no text is kept.
#[derive(Debug)]
struct Key(BlockKey);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the key of a block")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Key, E> {
                text.parse().map(Key).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// The session that the request names.
fn session(app: &Shared, headers: &HeaderMap) -> Result<Option<Session>, Problem> {
    let Some(token) = headers.get(&SESSION) else { return Ok(None) };
    match app.store().session(token.to_str().unwrap_or_default()) {
        Ok(session) => Ok(Some(session)),
        Err(error) if error.code() == Code::InvalidArgument => Err(Problem::new(
            Code::NotFound,
            "there is no such session of this store; send Graviton-Session as it was given, or leave it out and begin anew",
        )),
        Err(error) => Err(error.into()),
    }
}

/// What is made of blocks is an upload as well.
fn not_too_large(app: &App, size: u64) -> Result<(), Problem> {
    let most = app.limits().max_body;
    if size <= most {
        return Ok(());
    }
    Err(Problem::new(Code::TooLarge, format!("what is put is limited to {most} bytes")))
}

fn needed(session: Option<Session>) -> Result<Session, Problem> {
    session.ok_or_else(|| {
        Problem::new(
            Code::InvalidArgument,
            "this needs a session; ask POST /api/blocks/missing for one, and send it as Graviton-Session",
        )
    })
}

/// Ask which blocks are missing. Those that are there stay there while the session lives
#[utoipa::path(post, path = "/api/blocks/missing", tag = "blocks", request_body = Question,
    params(("Graviton-Session" = Option<String>, Header, description = "The session to go on with; a new one if it is not given")),
    responses((status = 200, body = Answer, description = "What is missing, and the session"), NotFound, BodyProblems, Common))]
async fn missing(State(app): State<Shared>, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let question = Incoming::new(body, &headers, &app, MOST_QUESTION)?;
    let (question, _held): (Question, _) = question.json(&headers).await?;
    if question.keys.len() > MOST_KEYS {
        let why = format!("no more than {MOST_KEYS} keys may be asked for at once; ask in several requests");
        return Err(Problem::new(Code::TooLarge, why));
    }
    let session = match session(&app, &headers)? {
        Some(session) => session,
        None => app.store().open_session(LIFETIME).await?,
    };
    let keys: Vec<BlockKey> = question.keys.into_iter().map(|key| key.0).collect();
    let missing = session.missing(&keys).await?;
    let answer = Answer {
        missing: missing.iter().map(ToString::to_string).collect(),
        session: session.token(),
        expires_at: rfc3339(session.expires_at_ms()),
    };
    Ok(([(CACHE_CONTROL, "no-store")], Json(answer)).into_response())
}

/// Put a block that is missing
#[utoipa::path(put, path = "/api/blocks/{key}", tag = "blocks", operation_id = "put_block",
    params(
        ("key" = crate::documented::BlockKeyText, Path, description = "What the content has to be"),
        ("Graviton-Session" = String, Header, description = "The session that keeps it"),
    ),
    request_body(content((crate::documented::Content = "application/octet-stream"), (crate::documented::Content = "*/*")), description = "The content; its type is left aside"),
    responses(
        (status = 201, body = inline(crate::documented::BlockKeyText), description = "It is stored; of several who put it at once, each may be told so"),
        (status = 200, body = inline(crate::documented::BlockKeyText), description = "It was there already"),
        NotFound, DigestMismatch, UploadProblems, Common))]
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
        let why = format!("the content is not as long as block {key}; nothing was stored");
        Problem::new(Code::DigestMismatch, why)
    };
    if announced(&headers).is_some_and(|length| length != size) {
        return Err(longer());
    }
    let body = Incoming::new(body, &headers, &app, size)?;
    let mut reserved = app.quota().reserve(app.store()).await?;
    reserved.grow(size)?;
    let _place = if size > SMALL { Some(app.place_for_upload(&caller).await?) } else { None };
    let _held = app.incoming().take_soon(size).await?;
    let bytes = match body.all().await {
        // It is the key that limits it.
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

/// Get a block
#[utoipa::path(get, path = "/api/blocks/{key}", tag = "blocks", operation_id = "get_block",
    params(("key" = crate::documented::BlockKeyText, Path, description = "The block")),
    responses(
        (status = 200, body = inline(crate::documented::Content), content_type = "application/octet-stream", description = "Its content"),
        (status = 304, description = "The client has it"), NotFound, Common))]
async fn get(
    State(app): State<Shared>,
    Extension(connection): Extension<Arc<Connection>>,
    Named(key): Named<BlockKey>,
    wishes: HeaderMap,
) -> Result<Response, Problem> {
    let mut headers = describe(&app, &key)?;
    if blobs::is_known(&wishes, &format!("\"{key}\"")) && app.store().has_block(&key).await? {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let source = Source::Block(Block::new(app.store(), key));
    let mut outgoing = Outgoing::new(&app, &connection, source, None).await?;
    let first = outgoing.next().await?.unwrap_or_default();
    let body = if first.len() == key.size() {
        Body::from(first)
    } else {
        outgoing.park();
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

/// See whether a block is there
#[utoipa::path(head, path = "/api/blocks/{key}", tag = "blocks", operation_id = "head_block",
    params(("key" = crate::documented::BlockKeyText, Path, description = "The block")),
    responses((status = 200, description = "It is there"), NotFound, Common))]
async fn head(State(app): State<Shared>, Named(key): Named<BlockKey>) -> Result<Response, Problem> {
    if !app.store().has_block(&key).await? {
        return Err(Problem::new(Code::NotFound, format!("there is no block {key} in this store")));
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
        etag.map_err(|_| Problem::internal(Code::Internal, format!("the key {key} is no header")))?,
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(app.caching()));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(headers)
}

/// Make a blob of blocks that are there. Reads all of them again, and costs as much
#[utoipa::path(post, path = "/api/manifests", tag = "blocks", request_body = Manifest,
    params(
        ("Graviton-Session" = String, Header, description = "The session that keeps the blocks"),
        ("Prefer" = Option<String>, Header, description = "`return=representation` for the receipt instead of the id"),
    ),
    responses(
        (status = 201, body = inline(blobs::Uploaded), description = "The blob is stored",
            headers(("Location" = String, description = "Where it can be read"), ("ETag" = String, description = "Its id, quoted"))),
        (status = 200, body = inline(blobs::Uploaded), description = "The blob was there already",
            headers(("Location" = String, description = "Where it can be read"), ("ETag" = String, description = "Its id, quoted"))),
        MissingBlocks, DigestMismatch, BodyProblems, UploadProblems, Common))]
async fn commit(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let body = Incoming::new(body, &headers, &app, MOST_MANIFEST)?;
    let session = needed(session(&app, &headers)?)?;
    let (manifest, _held): (Manifest, _) = body.json(&headers).await?;
    let id: BlobId = manifest.id.parse()?;
    not_too_large(&app, id.size())?;
    let keys: Vec<BlockKey> = manifest.blocks.into_iter().map(|key| key.0).collect();
    // It is all read again: that is what it costs, however short it is said.
    let _place = if id.size() > SMALL { Some(app.place_for_upload(&caller).await?) } else { None };
    let largest = keys.iter().map(|key| key.size() as u64).max().unwrap_or(0);
    let _blocks = app.outgoing().take_soon(id.size().min(COMMIT_AHEAD.max(largest) + largest)).await?;
    match session.commit(&keys, &id).await? {
        SessionCommit::Committed(receipt) => {
            metrics::counter!("graviton_put_bytes_total").increment(receipt.id.size());
            Ok(blobs::answer(&receipt, &headers))
        }
        SessionCommit::Missing(missing) => {
            let detail = format!("{} of the blocks are not there; put them, and commit again", missing.len());
            let missing = missing.iter().map(ToString::to_string).collect();
            Err(Problem::new(Code::NotFound, detail).naming_missing(missing))
        }
    }
}
