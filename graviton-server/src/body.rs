//! The body of a request as it comes in: bounded in size, in time without a byte, and from below in bytes a second.
//!
//! Only the time that the *client* lets us wait counts for it; time that the store takes is not the client's.

use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use graviton_core::Code;
use http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use http_body::Body as _;
use serde::de::DeserializeOwned;

use crate::app::App;
use crate::memory::Held;
use crate::problem::Problem;

/// The body of a request.
pub(crate) struct Incoming<'a> {
    body: Body,
    app: &'a App,
    most: u64,
    received: u64,
    /// How long the client let us wait, and what came, since the rate was looked at last.
    waited: Duration,
    came: u64,
    /// What `all` took.
    held: Held,
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
        let incoming =
            Incoming { body, app, most, received: 0, waited: Duration::ZERO, came: 0, held: Held::default() };
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
        let limits = self.app.limits();
        loop {
            let started = Instant::now();
            let next = std::future::poll_fn(|context| std::pin::Pin::new(&mut self.body).poll_frame(context));
            let Ok(frame) = tokio::time::timeout(limits.body_timeout, next).await else {
                let seconds = limits.body_timeout.as_secs();
                return Err(too_slow(&format!("no byte of the content came for {seconds} s")));
            };
            self.waited += started.elapsed();
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
            if self.received > self.most {
                return Err(self.too_large());
            }
            self.came += bytes.len() as u64;
            // Over a while and not from the start: who sent much at first may not take its time for ever.
            if self.waited >= limits.body_timeout {
                if (self.came as f64) < limits.body_rate as f64 * self.waited.as_secs_f64() {
                    return Err(too_slow("the content comes too slowly"));
                }
                (self.waited, self.came) = (Duration::ZERO, 0);
            }
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }

    /// All of it. Its memory counts until `self` is dropped.
    pub(crate) async fn all(&mut self) -> Result<Bytes, Problem> {
        let memory = self.app.memory_in();
        let Some(first) = self.next().await? else { return Ok(Bytes::new()) };
        memory.grow(&mut self.held, first.len() as u64).await?;
        let mut all = BytesMut::from(first);
        while let Some(bytes) = self.next().await? {
            memory.grow(&mut self.held, bytes.len() as u64).await?;
            all.extend_from_slice(&bytes);
        }
        Ok(all.freeze())
    }

    /// All of it, read as JSON.
    pub(crate) async fn json<T: DeserializeOwned>(mut self, headers: &HeaderMap) -> Result<T, Problem> {
        let is_json = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
            value.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
        });
        if !is_json || headers.contains_key(CONTENT_ENCODING) {
            return Err(Problem::new(
                Code::Unsupported,
                "the content has to be application/json, and its Content-Type say so, without a Content-Encoding",
            ));
        }
        let bytes = self.all().await?;
        // An array would be taken for the fields in their order.
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(Problem::new(Code::InvalidArgument, "the content has to be a JSON object"));
        }
        serde_json::from_slice(&bytes).map_err(|error| {
            Problem::new(Code::InvalidArgument, format!("the content is not what is expected here: {error}"))
        })
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
