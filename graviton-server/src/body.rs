//! The body of a request as it comes in: bounded in size, in time without a byte, and from below in bytes a second.
//!
//! Only the time that the *client* lets us wait counts for it; time that the store takes is not the client's.

use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use graviton_core::Code;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use http_body::Body as _;
use serde::de::DeserializeOwned;

use crate::problem::Problem;
use crate::settings::Limits;

/// The body of a request.
pub(crate) struct Incoming<'a> {
    body: Body,
    limits: &'a Limits,
    most: u64,
    received: u64,
    waited: Duration,
}

impl<'a> Incoming<'a> {
    /// The body, of which no more than `most` bytes are taken. Where it says beforehand that it is larger, it is
    /// refused before a byte of it came.
    pub(crate) fn new(
        body: Body,
        headers: &HeaderMap,
        limits: &'a Limits,
        most: u64,
    ) -> Result<Incoming<'a>, Problem> {
        let incoming = Incoming { body, limits, most, received: 0, waited: Duration::ZERO };
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
            let next = std::future::poll_fn(|context| std::pin::Pin::new(&mut self.body).poll_frame(context));
            let Ok(frame) = tokio::time::timeout(self.limits.body_timeout, next).await else {
                let seconds = self.limits.body_timeout.as_secs();
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
            let counted = self.waited.checked_sub(self.limits.body_timeout);
            if counted.is_some_and(|counted| {
                self.received < self.limits.body_rate.saturating_mul(counted.as_secs())
            }) {
                return Err(too_slow("the content comes too slowly"));
            }
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }

    /// All of it.
    pub(crate) async fn all(mut self) -> Result<Bytes, Problem> {
        let Some(first) = self.next().await? else { return Ok(Bytes::new()) };
        let mut all = BytesMut::from(first);
        while let Some(bytes) = self.next().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all.freeze())
    }

    /// All of it, read as JSON.
    pub(crate) async fn json<T: DeserializeOwned>(self, headers: &HeaderMap) -> Result<T, Problem> {
        let is_json = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
            value.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
        });
        if !is_json {
            return Err(Problem::new(
                Code::Unsupported,
                "the content has to be application/json, and its Content-Type say so",
            ));
        }
        let bytes = self.all().await?;
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
