//! The body of a request as it arrives: limited in size, in time without a byte, and to a least rate. The
//! last two limits are stricter while other requests wait for memory or an upload slot.
//!
//! Only the time that the server waits for the *client* counts, not the time that the store takes.

use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use graviton_core::Code;
use http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use http_body::{Body as _, Frame};
use serde::de::DeserializeOwned;

use crate::app::App;
use crate::declared::Declared;
use crate::memory::Held;
use crate::problem::Problem;

/// While others wait, the body must arrive this many times as fast, and its next byte this many times as
/// soon.
const HURRY: u32 = 4;

/// The memory of JSON as a multiple of its text: the text, and the values made from it.
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
}

/// The bytes of the current window. The rate is measured in each window, so that a fast start does not excuse
/// a slow end.
#[derive(Default)]
struct Window {
    waited: Duration,
    received: u64,
}

impl<'a> Incoming<'a> {
    /// A body of at most `most` bytes. If its `Content-Length` is larger, it is refused before a byte of it
    /// is read.
    pub(crate) fn new(
        body: Body,
        headers: &HeaderMap,
        app: &'a App,
        most: u64,
    ) -> Result<Incoming<'a>, Problem> {
        let (window, declared) = (Window::default(), Declared::default());
        let incoming = Incoming { body, app, most, received: 0, window, declared };
        match announced(headers) {
            Some(length) if length > most => Err(incoming.too_large()),
            _ => Ok(incoming),
        }
    }

    /// Like [`new`](Incoming::new), of content that is stored as it is. A body that has the content in it, or
    /// a part of it, is refused: it would be stored as something that nobody asked for. One that has another
    /// digest than the headers declare fails at its end.
    pub(crate) fn content(
        body: Body,
        headers: &HeaderMap,
        app: &'a App,
        most: u64,
    ) -> Result<Incoming<'a>, Problem> {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        if text(CONTENT_TYPE)
            .is_some_and(|media| media.to_ascii_lowercase().starts_with("multipart/form-data"))
        {
            let why = "the body is a form around the content; send the bytes of the content alone";
            return Err(Problem::new(Code::Unsupported, why));
        }
        if text(CONTENT_ENCODING).is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
            let why = "the body is encoded (Content-Encoding); send the bytes of the content as they are";
            return Err(Problem::new(Code::Unsupported, why));
        }
        if headers.contains_key(CONTENT_RANGE) {
            let why = "the body is a part of the content (Content-Range); send all of it, or its blocks under a session";
            return Err(Problem::new(Code::InvalidArgument, why));
        }
        let declared = Declared::of(headers)?;
        Ok(Incoming { declared, ..Incoming::new(body, headers, app, most)? })
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
            // Trailers are ignored.
            let Ok(bytes) = frame.into_data() else { continue };
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

    /// The next frame. The client has the body timeout for it, and less while others wait.
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

    /// Checks the rate at the end of a window, which is as long as a client may send nothing.
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

    /// The whole body. The caller has taken the memory for it.
    pub(crate) async fn all(mut self) -> Result<Bytes, Problem> {
        let Some(first) = self.next().await? else { return Ok(Bytes::new()) };
        let mut all = BytesMut::from(first);
        while let Some(bytes) = self.next().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all.freeze())
    }

    /// The whole body, parsed as JSON, and its memory, which is taken as the body arrives.
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
        // serde would accept an array as the fields in their order.
        if all.trim_ascii_start().first() != Some(&b'{') {
            return Err(Problem::new(Code::InvalidArgument, "the request body must be a JSON object"));
        }
        let value = serde_json::from_slice(&all).map_err(|error| {
            Problem::new(Code::InvalidArgument, format!("the request body is not valid: {error}"))
        })?;
        Ok((value, held))
    }
}

fn too_slow(why: &str) -> Problem {
    Problem::new(Code::Timeout, format!("{why}; nothing was kept, send it again"))
        .with_header(CONNECTION, HeaderValue::from_static("close"))
}

/// The length of the body, if the client announced it.
pub(crate) fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
