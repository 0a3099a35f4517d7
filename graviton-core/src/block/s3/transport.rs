//! The handling of one HTTP request to S3: its time-out, its answer, and whether it is worth a retry.
//!
//! `object_store` signs requests and retries those whose failure is marked as transient, with backoff and
//! jitter. By itself it retries less than we need (not an answer that broke off in the middle, nor an upload
//! that was damaged in transit), and its errors do not contain the server's error code. So this module sits
//! below it, as its HTTP client:
//! - every answer is read to its end here, within the time-out of the attempt, so that a truncated answer is
//!   a failed attempt like any other;
//! - an unsuccessful answer becomes a [`Failure`], which is kept for the caller and decides itself whether to
//!   retry.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use object_store::{Certificate, ClientOptions, Extensions, HeaderValue};

use super::failure::{Failure, Refusal};
use crate::descriptor;
use crate::error::root_cause;

/// No error of S3 is longer.
const MOST_OF_AN_ERROR: usize = 64 << 10;

/// Goes along with each attempt of a request, and brings back why the last one failed.
#[derive(Debug, Clone)]
pub(super) struct Trace {
    /// How long an attempt may take.
    attempt: Duration,
    /// The most bytes that are taken of an answer. The body of a longer one is left unread, for its length
    /// says already that it is the wrong one.
    most: usize,
    last: Arc<Mutex<Option<Failure>>>,
    /// Set once an attempt failed that may still be carried out.
    in_doubt: Arc<AtomicBool>,
}

impl Trace {
    pub(super) fn new(attempt: Duration, most: usize) -> Trace {
        Trace { attempt, most, last: Arc::default(), in_doubt: Arc::default() }
    }

    /// Whether an attempt failed that may still be carried out.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.in_doubt.load(Ordering::Relaxed)
    }

    pub(super) fn extensions(&self) -> Extensions {
        let mut extensions = Extensions::new();
        extensions.insert(self.clone());
        extensions
    }

    /// Why the last attempt failed, if one did.
    pub(super) fn last_failure(&self) -> Option<Failure> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn failed(&self, failure: Failure) -> HttpError {
        let kind = if failure.is_passing() { HttpErrorKind::Request } else { HttpErrorKind::Unknown };
        if !failure.is_refusal() {
            self.in_doubt.store(true, Ordering::Relaxed);
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure.clone());
        HttpError::new(kind, failure)
    }
}

/// Makes the HTTP clients of one store.
#[derive(Debug)]
pub(super) struct Connector {
    /// The time-out of requests that no [`Trace`] goes along with: those for credentials.
    pub(super) attempt: Duration,
    /// Whether no request will use TLS, so that no certificates need to be loaded.
    pub(super) plain: bool,
    /// Certificates to trust besides the system's.
    pub(super) authorities: Vec<Certificate>,
    /// The client that was made last.
    pub(super) last: Arc<Mutex<Option<HttpClient>>>,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let mut options = options
            .clone()
            .with_timeout_disabled()
            .with_user_agent(HeaderValue::from_static(concat!("graviton/", env!("CARGO_PKG_VERSION"))));
        if self.plain {
            options = options.with_no_system_certificates(true);
        }
        for authority in &self.authorities {
            options = options.with_root_certificate(authority.clone());
        }
        // The HTTP client asks the process for its provider of cryptography. One that the program has
        // installed stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = ReqwestConnector::default().connect(&options)?;
        let client = HttpClient::new(Transport { client, attempt: self.attempt });
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(client.clone());
        Ok(client)
    }
}

#[derive(Debug)]
struct Transport {
    client: HttpClient,
    attempt: Duration,
}

#[async_trait]
impl HttpService for Transport {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        // It may open a connection.
        descriptor::occupy_standard();
        let Some(trace) = request.extensions().get::<Trace>().cloned() else {
            let answer = tokio::time::timeout(self.attempt, self.client.execute(request)).await;
            let silent = |_| Err(HttpError::new(HttpErrorKind::Unknown, Failure::silent(self.attempt)));
            // Not repeated: where there are no credentials to be had, that is to be said soon.
            return answer.unwrap_or_else(silent).map_err(|error| {
                HttpError::new(HttpErrorKind::Unknown, Failure::Broken(root_cause(&error)))
            });
        };
        match tokio::time::timeout(trace.attempt, self.exchange(request, trace.most)).await {
            Ok(answer) => answer.map_err(|failure| trace.failed(failure)),
            Err(_) => Err(trace.failed(Failure::silent(trace.attempt))),
        }
    }
}

impl Transport {
    async fn exchange(&self, request: HttpRequest, most: usize) -> Result<HttpResponse, Failure> {
        let without_body = request.method().as_str() == "HEAD";
        let answer = self.client.execute(request).await;
        let (parts, body) = answer.map_err(|error| Failure::Broken(root_cause(&error)))?.into_parts();
        let header = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let length: Option<usize> = header("content-length").and_then(|length| length.parse().ok());
        if parts.status.is_success() {
            // Without a length, `object_store` takes a list and refuses an object.
            if without_body || length.is_none_or(|length| length > most) {
                return Ok(HttpResponse::from_parts(parts, body));
            }
            let bytes = body.bytes().await.map_err(|error| Failure::Broken(root_cause(&error)))?;
            return Ok(HttpResponse::from_parts(parts, bytes.into()));
        }
        let region = header("x-amz-bucket-region").map(str::to_owned);
        let text = if without_body || length.is_some_and(|length| length > MOST_OF_AN_ERROR) {
            None
        } else {
            // The status counts, also where the explanation breaks off.
            body.bytes().await.ok()
        };
        let text = String::from_utf8_lossy(text.as_deref().unwrap_or_default());
        Err(Failure::Refused(Refusal::new(parts.status.as_u16(), &text, region)))
    }
}
