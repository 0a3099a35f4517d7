//! The body of a request as it arrives. It is limited in size, in time without a byte, and by a minimum rate.
//! The last two limits are stricter while other requests wait for memory or an upload slot.
//!
//! Only the time that the server waits for the *client* counts, not the time that the store takes.

use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use graviton_core::Code;
use http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body as _, Frame};
use serde::de::DeserializeOwned;

use crate::app::App;
use crate::declared::Declared;
use crate::memory::Held;
use crate::problem::Problem;

/// While others wait, the body must arrive at this many times the rate, and the time without a byte is
/// divided by this.
const HURRY: u32 = 4;

/// The memory of JSON as a multiple of its text: the text, and the values parsed from it.
const JSON_TAKES: u64 = 2;

/// Memory for JSON is taken in steps of this size: most JSON is short or arrives in small pieces.
const JSON_STEP: u64 = 4 << 10;

/// The body of a request.
pub(crate) struct Incoming<'a> {
    body: Body,
    app: &'a App,
    most: u64,
    received: u64,
    window: Window,
    declared: Declared,
    is_content: bool,
}

/// The bytes of the current window. Each window is measured separately, so a fast start does not make up for
/// a slow end.
#[derive(Default)]
struct Window {
    waited: Duration,
    received: u64,
}

impl<'a> Incoming<'a> {
    /// A body of at most `most` bytes. Refuses a larger `Content-Length` before it reads a byte.
    pub(crate) fn new(
        body: Body,
        headers: &HeaderMap,
        app: &'a App,
        most: u64,
    ) -> Result<Incoming<'a>, Problem> {
        let (window, declared) = (Window::default(), Declared::default());
        let incoming = Incoming { body, app, most, received: 0, window, declared, is_content: false };
        match announced(headers) {
            Some(length) if length > most => Err(incoming.too_large()),
            _ => Ok(incoming),
        }
    }

    /// Like [`new`](Incoming::new), for content that is stored as it arrives. Refuses a body that wraps the
    /// content or is a part of it, because the store would keep bytes that no client meant. A body whose
    /// digest differs from a declared one fails at its end.
    pub(crate) fn content(
        body: Body,
        headers: &HeaderMap,
        app: &'a App,
        most: u64,
    ) -> Result<Incoming<'a>, Problem> {
        check_is_content(headers)?;
        let declared = Declared::of(headers)?;
        Ok(Incoming { declared, is_content: true, ..Incoming::new(body, headers, app, most)? })
    }

    fn too_large(&self) -> Problem {
        Problem::new(Code::TooLarge, format!("the body of this request is limited to {} bytes", self.most))
    }

    /// The next bytes; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            let started = Instant::now();
            let frame = self.frame().await?;
            self.window.waited += started.elapsed();
            let Some(frame) = frame else {
                self.declared.finish()?;
                return Ok(None);
            };
            let frame = frame.map_err(|_| {
                Problem::new(
                    Code::InvalidArgument,
                    "the request body ended early; nothing was kept, send it again",
                )
            })?;
            let bytes = match frame.into_data() {
                Ok(bytes) => bytes,
                Err(frame) => {
                    self.check_trailers(frame.trailers_ref())?;
                    continue;
                }
            };
            self.received += bytes.len() as u64;
            self.window.received += bytes.len() as u64;
            if self.received > self.most {
                return Err(self.too_large());
            }
            self.check_rate()?;
            self.declared.update(&bytes);
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }

    /// Refuses trailers that would have to be known before the content, and ignores other trailers.
    fn check_trailers(&self, trailers: Option<&HeaderMap>) -> Result<(), Problem> {
        match trailers {
            Some(trailers) if self.is_content => Declared::none_in(trailers),
            _ => Ok(()),
        }
    }

    /// The next frame. The client has the body timeout to send it, and less time while others wait.
    async fn frame(&mut self) -> Result<Option<Result<Frame<Bytes>, axum::Error>>, Problem> {
        let limits = self.app.limits();
        let next = std::future::poll_fn(|context| std::pin::Pin::new(&mut self.body).poll_frame(context));
        let mut next = std::pin::pin!(next);
        for waits in 1..=HURRY {
            if let Ok(frame) = tokio::time::timeout(limits.body_timeout / HURRY, &mut next).await {
                return Ok(frame);
            }
            if waits == HURRY || self.app.uploads_wait() {
                let seconds = (limits.body_timeout / HURRY * waits).as_secs_f64();
                return Err(too_slow(&format!("no byte of the request body arrived for {seconds} s")));
            }
        }
        Ok(None)
    }

    /// Checks the rate at the end of a window, which is as long as the body timeout.
    fn check_rate(&mut self) -> Result<(), Problem> {
        let limits = self.app.limits();
        let hurry = if self.app.uploads_wait() { HURRY } else { 1 };
        let Window { waited, received } = self.window;
        if waited < limits.body_timeout / hurry {
            return Ok(());
        }
        let least = u128::from(limits.body_rate) * u128::from(hurry) * waited.as_millis() / 1_000;
        if u128::from(received) < least {
            return Err(too_slow("the request body arrives too slowly"));
        }
        self.window = Window::default();
        Ok(())
    }

    /// The whole body. The caller has already taken the memory for it.
    pub(crate) async fn all(mut self) -> Result<Bytes, Problem> {
        let Some(first) = self.next().await? else { return Ok(Bytes::new()) };
        let mut all = BytesMut::from(first);
        while let Some(bytes) = self.next().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all.freeze())
    }

    /// The whole body, parsed as JSON. Takes memory as the body arrives.
    pub(crate) async fn json<T: DeserializeOwned>(
        mut self,
        headers: &HeaderMap,
    ) -> Result<(T, Held), Problem> {
        let is_json = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
            value.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
        });
        if !is_json || headers.contains_key(CONTENT_ENCODING) {
            return Err(Problem::new(
                Code::Unsupported,
                "the request body must be JSON with Content-Type application/json and without Content-Encoding",
            ));
        }
        let (mut all, mut held) = (BytesMut::new(), Held::default());
        while let Some(bytes) = self.next().await? {
            let more = (all.len() + bytes.len()) as u64 * JSON_TAKES;
            if let Some(more) = more.checked_sub(held.bytes()).filter(|more| *more > 0) {
                held.add(self.app.incoming().take_soon(more.max(JSON_STEP)).await?);
            }
            all.extend_from_slice(&bytes);
        }
        // serde would accept an array as the list of fields, in order.
        if all.trim_ascii_start().first() != Some(&b'{') {
            return Err(Problem::new(Code::InvalidArgument, "the request body must be a JSON object"));
        }
        let value = serde_json::from_slice(&all).map_err(|error| {
            Problem::new(Code::InvalidArgument, format!("the request body is not valid: {error}"))
        })?;
        Ok((value, held))
    }
}

/// Refuses a body that is not the content byte for byte, if any line of its headers says so: a form or a
/// package around the content, an encoding of it, or a part of it.
fn check_is_content(headers: &HeaderMap) -> Result<(), Problem> {
    let unsupported = |why: &str| {
        let why = format!("{why}; send the bytes of the content as they are, alone and complete");
        Err(Problem::new(Code::Unsupported, why))
    };
    let part = |why: &str| {
        let why = format!("{why}; send all of it, or its blocks under a session");
        Err(Problem::new(Code::InvalidArgument, why))
    };
    let all = |name: HeaderName| {
        headers
            .get_all(name)
            .into_iter()
            .map(|value| value.to_str().unwrap_or("?").trim().to_ascii_lowercase())
    };
    if all(CONTENT_TYPE).count() > 1 {
        return Err(Problem::new(Code::InvalidArgument, "the request has two media types (Content-Type)"));
    }
    if all(CONTENT_TYPE).any(|media| media.starts_with("multipart/")) {
        return unsupported("the body is a form or a package around the content (Content-Type: multipart)");
    }
    if all(CONTENT_ENCODING).any(|encoding| encoding != "identity") {
        return unsupported("the body is encoded (Content-Encoding)");
    }
    // S3's clients put signatures between the bytes.
    if all(AMAZON_DIGEST).any(|digest| digest.starts_with("streaming-"))
        || headers.contains_key(AMAZON_LENGTH)
    {
        return unsupported("the body is encoded in chunks of S3 (aws-chunked)");
    }
    if headers.contains_key(CONTENT_RANGE) {
        return part("the body is a part of the content (Content-Range)");
    }
    // Resumable uploads: <https://datatracker.ietf.org/doc/draft-ietf-httpbis-resumable-upload/>, and tus.
    if all(UPLOAD_COMPLETE).any(|complete| complete != "?1") || all(UPLOAD_OFFSET).any(|offset| offset != "0")
    {
        return part("the body is a part of the content (Upload-Offset, Upload-Complete)");
    }
    Ok(())
}

const AMAZON_DIGEST: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const AMAZON_LENGTH: HeaderName = HeaderName::from_static("x-amz-decoded-content-length");
const UPLOAD_COMPLETE: HeaderName = HeaderName::from_static("upload-complete");
const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");

fn too_slow(why: &str) -> Problem {
    Problem::new(Code::Timeout, format!("{why}; nothing was kept, send it again"))
        .with_header(CONNECTION, HeaderValue::from_static("close"))
}

/// The length of the body, if the client announced it.
pub(crate) fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
