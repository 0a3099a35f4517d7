//! Downloads. The first block is verified before the response headers are sent, and each further block before
//! any byte of it. A failure in the middle closes the connection (on HTTP/2, the stream) without the end of
//! the body, so that no client takes a part for the whole.

#![allow(unused_qualifications, reason = "utoipa's macros qualify what is in scope")]

use std::collections::VecDeque;
use std::ops::Range;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use graviton_core::{BlobId, Code, Error};
use http::header::{ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::conditions::{self, Wanted};
use super::links::Signed;
use super::presentation::Presentation;
use crate::app::Shared;
use crate::client::Requester;
use crate::extract::{Named, Params};
use crate::outgoing::{Outgoing, SMALL_BLOB, Source};
use crate::problem::Problem;
use crate::schemas::{Common, NotFound, PreconditionFailed, RangeNotSatisfiable};

/// Download a blob or ranges of it
#[utoipa::path(get, path = "/api/blobs/{id}", tag = "blobs", operation_id = "get_blob",
    params(
        ("id" = crate::schemas::BlobIdText, Path, description = "The blob"),
        Presentation, Signed,
        ("Range" = Option<String>, Header, description = "The bytes to return, such as `bytes=0-99`; several ranges are returned as multipart/byteranges"),
        ("If-Range" = Option<String>, Header, description = "Return the range only if the blob has this entity tag, otherwise all of it"),
        ("If-None-Match" = Option<String>, Header, description = "Entity tags of the content that the client has"),
        ("If-Match" = Option<String>, Header, description = "Entity tags; the blob must have one of them"),
    ),
    responses(
        (status = 200, description = "The whole blob, with the media type asked for",
            content((crate::schemas::Content = "application/octet-stream"), (crate::schemas::Content = "*/*")),
            headers(("ETag" = String, description = "The ID in double quotes"), ("Accept-Ranges" = String, description = "bytes"))),
        (status = 206, description = "The requested ranges",
            content((crate::schemas::Content = "application/octet-stream"), (crate::schemas::Content = "*/*"))),
        (status = 304, description = "Not modified: the client has it"),
        NotFound, PreconditionFailed, RangeNotSatisfiable, Common))]
pub(super) async fn get(
    State(app): State<Shared>,
    Extension(requester): Extension<Requester>,
    Named(id): Named<BlobId>,
    Params(presentation): Params<Presentation>,
    Params(signed): Params<Signed>,
    wishes: HeaderMap,
) -> Result<Response, Problem> {
    signed.check()?;
    let etag = conditions::etag(&id);
    let mut headers = describe(&app, &id, &etag, &presentation)?;
    conditions::check(&wishes, &id)?;
    if conditions::is_known(&wishes, &etag) {
        app.store().stat(&id).await?;
        return Ok(not_modified(headers));
    }
    // The store reads a small blob together with its manifest.
    let held = match id.size() {
        small @ 1..=SMALL_BLOB => Some(app.outgoing().take_soon(small).await?),
        _ => None,
    };
    let mut reader = app.store().reader(&id).await?;
    let (status, parts, length) = match conditions::wanted(&wishes, &etag, id.size()) {
        Wanted::Unsatisfiable => {
            let size = HeaderValue::from_str(&format!("bytes */{}", id.size()));
            let problem = Problem::new(
                Code::RangeNotSatisfiable,
                format!("the blob has {} bytes, and the range starts after its end", id.size()),
            );
            return Err(size.map_or(problem.clone(), |size| problem.with_header(CONTENT_RANGE, size)));
        }
        Wanted::All => (StatusCode::OK, VecDeque::from([Part::of(0..id.size())]), id.size()),
        Wanted::One(range) => {
            headers.insert(CONTENT_RANGE, content_range(&range, id.size())?);
            let length = range.end - range.start;
            (StatusCode::PARTIAL_CONTENT, VecDeque::from([Part::of(range)]), length)
        }
        Wanted::Several(ranges) => {
            let (parts, length) = multipart(&ranges, id.size(), &mut headers)?;
            (StatusCode::PARTIAL_CONTENT, parts, length)
        }
    };
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    if let Some(first) = parts.front() {
        reader.seek(first.range.start);
        reader.limit(first.range.end);
    }
    let outgoing = Outgoing::new(&app, requester, Source::Blob(reader), held).await?;
    let mut download = Download { id, outgoing, parts, started: false };
    let first = download.next().await?;
    let body = match first {
        None => Body::empty(),
        Some(first) if first.len() as u64 == length => Body::from(first),
        Some(first) => {
            let rest = length
                - first.len() as u64
                - download.parts.iter().map(|part| part.head.len() as u64).sum::<u64>();
            download.into_body(first, rest)
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// Check whether a blob exists, and get its size
#[utoipa::path(head, path = "/api/blobs/{id}", tag = "blobs", operation_id = "head_blob",
    params(
        ("id" = crate::schemas::BlobIdText, Path, description = "The blob"),
        Presentation, Signed,
        ("If-None-Match" = Option<String>, Header, description = "Entity tags of the content that the client has"),
        ("If-Match" = Option<String>, Header, description = "Entity tags; the blob must have one of them"),
    ),
    responses(
        (status = 200, description = "It exists", headers(("ETag" = String, description = "The ID in double quotes"))),
        (status = 304, description = "Not modified: the client has it"), NotFound, PreconditionFailed, Common))]
pub(super) async fn head(
    State(app): State<Shared>,
    Named(id): Named<BlobId>,
    Params(presentation): Params<Presentation>,
    Params(signed): Params<Signed>,
    wishes: HeaderMap,
) -> Result<Response, Problem> {
    signed.check()?;
    let etag = conditions::etag(&id);
    let mut headers = describe(&app, &id, &etag, &presentation)?;
    conditions::check(&wishes, &id)?;
    app.store().stat(&id).await?;
    if conditions::is_known(&wishes, &etag) {
        return Ok(not_modified(headers));
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(id.size()));
    let mut response = Response::new(Body::empty());
    *response.headers_mut() = headers;
    Ok(response)
}

fn describe(
    app: &Shared,
    id: &BlobId,
    etag: &str,
    presentation: &Presentation,
) -> Result<HeaderMap, Problem> {
    let mut headers = HeaderMap::with_capacity(12);
    let etag = HeaderValue::from_str(etag)
        .map_err(|_| Problem::internal(Code::Internal, format!("the id {id} is no header")))?;
    headers.insert(ETAG, etag);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(app.caching()));
    presentation.describe(&mut headers)?;
    Ok(headers)
}

fn not_modified(mut headers: HeaderMap) -> Response {
    headers.remove(CONTENT_TYPE);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    *response.headers_mut() = headers;
    response
}

fn content_range(range: &Range<u64>, size: u64) -> Result<HeaderValue, Problem> {
    HeaderValue::from_str(&format!("bytes {}-{}/{size}", range.start, range.end - 1))
        .map_err(|_| Problem::internal(Code::Internal, "a Content-Range is not a valid header"))
}

/// The parts of a `multipart/byteranges` body, and its length.
fn multipart(
    ranges: &[Range<u64>],
    size: u64,
    headers: &mut HeaderMap,
) -> Result<(VecDeque<Part>, u64), Problem> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| Problem::internal(Code::Internal, error.to_string()))?;
    let boundary = format!("graviton-{:032x}", u128::from_le_bytes(random));
    let media_type =
        headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let mut parts = VecDeque::new();
    for range in ranges {
        let head = format!(
            "\r\n--{boundary}\r\nContent-Type: {media_type}\r\nContent-Range: bytes {}-{}/{size}\r\n\r\n",
            range.start,
            range.end - 1
        );
        parts.push_back(Part { head: head.into(), range: range.clone() });
    }
    parts.push_back(Part { head: format!("\r\n--{boundary}--\r\n").into(), range: 0..0 });
    let length = parts.iter().map(|part| part.head.len() as u64 + part.range.end - part.range.start).sum();
    let media_type = HeaderValue::from_str(&format!("multipart/byteranges; boundary={boundary}"));
    headers.insert(
        CONTENT_TYPE,
        media_type.map_err(|_| Problem::internal(Code::Internal, "a boundary is not a valid header"))?,
    );
    Ok((parts, length))
}

/// A part of the body: header bytes, then a range of the blob.
struct Part {
    head: Bytes,
    range: Range<u64>,
}

impl Part {
    fn of(range: Range<u64>) -> Part {
        Part { head: Bytes::new(), range }
    }
}

/// The rest of a download.
struct Download {
    id: BlobId,
    outgoing: Outgoing,
    parts: VecDeque<Part>,
    /// Whether the reader is in the range of the first part.
    started: bool,
}

impl Download {
    /// The next bytes, verified; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let Some(part) = self.parts.front_mut() else { return Ok(None) };
            if !self.started {
                self.outgoing.go(&part.range);
                self.started = true;
                if !part.head.is_empty() {
                    return Ok(Some(std::mem::take(&mut part.head)));
                }
            }
            if !part.range.is_empty()
                && let Some(bytes) = self.outgoing.next().await?
            {
                return Ok(Some(bytes));
            }
            self.parts.pop_front();
            self.started = false;
        }
    }

    /// The body. `rest` bytes of the blob come after the first piece.
    fn into_body(mut self, first: Bytes, rest: u64) -> Body {
        self.outgoing.park(rest);
        Body::from_stream(stream::try_unfold((Some(first), self), |(first, mut download)| async move {
            if let Some(first) = first {
                return Ok(Some((first, (None, download))));
            }
            match download.next().await {
                Ok(bytes) => Ok(bytes.map(|bytes| (bytes, (None, download)))),
                Err(error) => {
                    tracing::error!(id = %download.id, code = %error.code(), %error, "a download failed and was aborted");
                    Err(error)
                }
            }
        }))
    }
}
