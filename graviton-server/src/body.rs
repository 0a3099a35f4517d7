//! The body of a request as it comes in: bounded in size, in time without a byte, and from below in bytes a second.
//! The last two are stricter while others wait for the memory or the place that it has.
//!
//! Only the time that the *client* lets us wait counts for it; time that the store takes is not the client's.

use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use graviton_core::Code;
use http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use http_body::{Body as _, Frame};
use serde::de::DeserializeOwned;

use crate::app::App;
use crate::memory::Held;
use crate::problem::Problem;

/// While others wait for what this one has, it has to come so many times as fast, and a byte of it so many times as soon.
const HURRY: u32 = 4;

/// What JSON takes in memory: itself, and what is made of it.
const JSON_TAKES: u64 = 2;

/// It is taken in steps, as most of it comes in very small pieces or is very small.
const JSON_STEP: u64 = 4 << 10;

/// The body of a request.
pub(crate) struct Incoming<'a> {
    body: Body,
    app: &'a App,
    most: u64,
    received: u64,
    window: Window,
}

/// What came since when: the rate is that of now, so that nobody lives on what was fast in the beginning.
#[derive(Default)]
struct Window {
    waited: Duration,
    received: u64,
}

impl<'a> Incoming<'a> {
    /// The body, of which no more than `most` bytes are taken. Where it says beforehand that it is larger, it is
    /// refused before a byte of it came.
    pub(crate) fn new(
        body: Body,
        headers: &HeaderMap,
        app: &'a App,
        most: u64,
    ) -> Result<Incoming<'a>, Problem> {
        let incoming = Incoming { body, app, most, received: 0, window: Window::default() };
        match announced(headers) {
            Some(length) if length > most => Err(incoming.too_large()),
            _ => Ok(incoming),
        }
    }

    fn too_large(&self) -> Problem {
        Problem::new(Code::TooLarge, format!("the content of this request is limited to {} bytes", self.most))
    }

    /// The next bytes; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            let started = Instant::now();
            let frame = self.frame().await?;
            self.window.waited += started.elapsed();
            let Some(frame) = frame else {
                return Ok(None);
            };
            let frame = frame.map_err(|_| {
                Problem::new(
                    Code::InvalidArgument,
                    "the content ended before it was complete; nothing was kept, send it again",
                )
            })?;
            // Trailers say nothing to us.
            let Ok(bytes) = frame.into_data() else { continue };
            self.received += bytes.len() as u64;
            self.window.received += bytes.len() as u64;
            if self.received > self.most {
                return Err(self.too_large());
            }
            self.check_rate()?;
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }

    /// The next frame, for which a client has a while, and less while others wait.
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
                return Err(too_slow(&format!("no byte of the content came for {seconds} s")));
            }
        }
        Ok(None)
    }

    /// Looks at the rate at the end of a window, which is as long as a client may send nothing.
    fn check_rate(&mut self) -> Result<(), Problem> {
        let limits = self.app.limits();
        let hurry = if self.app.uploads_wait() { HURRY } else { 1 };
        let Window { waited, received } = self.window;
        if waited < limits.body_timeout / hurry {
            return Ok(());
        }
        let least = u128::from(limits.body_rate) * u128::from(hurry) * waited.as_millis() / 1_000;
        if u128::from(received) < least {
            return Err(too_slow("the content comes too slowly"));
        }
        self.window = Window::default();
        Ok(())
    }

    /// All of it, for whoever has taken the memory of `most`.
    pub(crate) async fn all(mut self) -> Result<Bytes, Problem> {
        let Some(first) = self.next().await? else { return Ok(Bytes::new()) };
        let mut all = BytesMut::from(first);
        while let Some(bytes) = self.next().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all.freeze())
    }

    /// All of it, read as JSON, and the memory that this takes, which is taken as it comes.
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
                "the content has to be application/json, and its Content-Type say so, without a Content-Encoding",
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
        // An array would be taken for the fields in their order.
        if all.trim_ascii_start().first() != Some(&b'{') {
            return Err(Problem::new(Code::InvalidArgument, "the content has to be a JSON object"));
        }
        let value = serde_json::from_slice(&all).map_err(|error| {
            Problem::new(Code::InvalidArgument, format!("the content is not what is expected here: {error}"))
        })?;
        Ok((value, held))
    }
}

fn too_slow(why: &str) -> Problem {
    Problem::new(Code::Timeout, format!("{why}; nothing was kept, send it again"))
        .with_header(CONNECTION, HeaderValue::from_static("close"))
}

/// How much is to come, where that is known.
pub(crate) fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
