//! Every failure as RFC 9457 `application/problem+json`, with a code from the closed list that all languages
//! share.
//!
//! Mistakes of the client are explained to the client. Internal failures are explained in the log, under the
//! ID of the request. The client gets the code and a general sentence, so that no path, address or text of a
//! backend leaves the server. The engine's `forbidden` means that a backend refused the server, and never
//! becomes a client's 403.

use axum::response::{IntoResponse, Response};
use graviton_core::{Code, Error};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

/// The media type of a problem.
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";

/// A failure on its way to the client.
#[derive(Debug, Clone)]
pub(crate) struct Problem(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    code: Code,
    status: StatusCode,
    detail: String,
    headers: HeaderMap,
    /// The blocks that the client must put first.
    missing: Option<Vec<String>>,
    /// The explanation for the log, if it has more detail than the client may see.
    internal: Option<String>,
}

/// A failure
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Body<'a> {
    /// Where this code is explained
    #[serde(rename = "type")]
    #[schema(example = "/docs#not-found", format = "uri-reference")]
    kind: String,
    /// The code in words
    #[schema(example = "Not found")]
    title: &'a str,
    /// The status of the response
    #[schema(minimum = 400, maximum = 599, example = 404)]
    status: u16,
    /// The cause, and how to fix it
    detail: &'a str,
    /// The kind of failure, from a closed list
    #[schema(example = "not-found", pattern = "^[a-z]+(-[a-z]+)*$")]
    code: &'a str,
    /// Whether the same request may succeed later
    retryable: bool,
    /// The ID of the request in the server's log
    request_id: &'a str,
    /// The keys of the blocks that a commit did not find
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    missing: Option<&'a [String]>,
}

/// The codes that a client can receive, each with its title.
pub const CODES: &[(Code, &str)] = &[
    (Code::InvalidArgument, "Invalid request"),
    (Code::InvalidId, "Invalid ID"),
    (Code::NotFound, "Not found"),
    (Code::DigestMismatch, "Content does not match its ID"),
    (Code::TooLarge, "Too large"),
    (Code::RangeNotSatisfiable, "Range not satisfiable"),
    (Code::Unauthorized, "Authentication required"),
    (Code::Forbidden, "Permission denied"),
    (Code::CorruptBlock, "Stored data is corrupt"),
    (Code::MissingBlock, "Stored data is missing"),
    (Code::BackendUnavailable, "Database or block store unavailable"),
    (Code::WriterExpired, "Upload or session expired"),
    (Code::NoSpace, "Disk full"),
    (Code::QuotaExceeded, "Quota exceeded"),
    (Code::MethodNotAllowed, "Method not allowed"),
    (Code::Timeout, "Request timed out"),
    (Code::Unsupported, "Unsupported content"),
    (Code::RateLimited, "Rate limit exceeded"),
    (Code::Io, "I/O error"),
    (Code::Latched, "Store refuses writes after a failed one"),
    (Code::Internal, "Internal server error"),
    (Code::CorruptDatabase, "Database is corrupt"),
    (Code::Overloaded, "Server overloaded"),
    (Code::Conflict, "Not in the required state"),
];

impl Problem {
    /// A problem with this text for the client: the cause, and how to fix it.
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Problem {
        let mut headers = HeaderMap::new();
        if matches!(code, Code::BackendUnavailable | Code::WriterExpired | Code::Overloaded) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if code == Code::Unauthorized {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let status = StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Problem(Box::new(Inner {
            code,
            status,
            detail: detail.into(),
            headers,
            missing: None,
            internal: None,
        }))
    }

    /// A problem whose explanation goes only to the log.
    pub(crate) fn internal(code: Code, why: impl Into<String>) -> Problem {
        let detail = "internal error; the server log explains it under the ID of this request";
        let mut problem = Problem::new(code, detail);
        problem.0.internal = Some(why.into());
        problem
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Problem {
        self.0.headers.insert(name, value);
        self
    }

    /// The same problem with another status, where HTTP has a more specific one.
    pub(crate) fn with_status(mut self, status: StatusCode) -> Problem {
        self.0.status = status;
        self
    }

    /// The same problem, with the blocks that the client must put first.
    pub(crate) fn naming_missing(mut self, keys: Vec<String>) -> Problem {
        self.0.missing = Some(keys);
        self
    }

    /// The kind of failure.
    pub(crate) fn code(&self) -> Code {
        self.0.code
    }

    /// The explanation for the log, if it has more detail than the client may see.
    pub(crate) fn for_the_log(&self) -> Option<&str> {
        self.0.internal.as_deref()
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The response, once the ID of the request is known. `prefix` is the prefix of the server's paths, and
    /// `allow` lists the methods of the path, for a 405.
    pub(crate) fn render(self, prefix: &str, request_id: &str, allow: Option<HeaderValue>) -> Response {
        let body = self.body(prefix, request_id);
        let mut response = Response::new(axum::body::Body::from(body));
        *response.status_mut() = self.status();
        *response.headers_mut() = self.0.headers;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(allow) = allow {
            response.headers_mut().insert(ALLOW, allow);
        }
        response
    }

    /// The problem as JSON.
    pub(crate) fn body(&self, prefix: &str, request_id: &str) -> Vec<u8> {
        let body = Body {
            kind: format!("{prefix}/docs#{}", self.0.code),
            title: title(self.0.code),
            status: self.status().as_u16(),
            detail: &self.0.detail,
            code: self.0.code.name(),
            retryable: self.0.code.is_retryable(),
            request_id,
            missing: self.0.missing.as_deref(),
        };
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

fn title(code: Code) -> &'static str {
    CODES.iter().find(|(known, _)| *known == code).map_or("Internal server error", |(_, title)| title)
}

/// A failure of the engine. The client gets its text only if the client caused it.
impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        let is_clients = match error.code() {
            Code::InvalidId | Code::DigestMismatch | Code::RangeNotSatisfiable | Code::Conflict => true,
            // If the error comes from the operating system, it concerns a file of the server.
            Code::NotFound | Code::InvalidArgument | Code::TooLarge => error.errno().is_none(),
            _ => false,
        };
        if is_clients {
            return Problem::new(error.code(), with_advice(&error));
        }
        let why = match error.advice() {
            Some(advice) => format!("{error} ({advice})"),
            None => error.to_string(),
        };
        let general = match error.code() {
            Code::CorruptBlock => "a block of the content is corrupt; put the content again to repair it",
            Code::MissingBlock => "a block of the content is missing; put the content again to repair it",
            Code::WriterExpired => "the upload or session took longer than its lease; start it again",
            Code::NoSpace => "the disk of the store is full; the upload was discarded",
            Code::Latched => "an earlier write failed; restart the server before writing again",
            Code::BackendUnavailable | Code::Timeout => {
                "the database or the block store is unavailable; try again"
            }
            // The state changed after the server opened it: the database is now a copy, or the disk another
            // one.
            Code::Config => {
                "the store is not as it was set up, and cannot be used now; the server's log says why"
            }
            _ => return Problem::internal(inner_code(error.code()), why),
        };
        let code = match error.code() {
            Code::Timeout | Code::Config => Code::BackendUnavailable,
            code => code,
        };
        let mut problem = Problem::new(code, general);
        problem.0.internal = Some(why);
        problem
    }
}

/// The code that the client gets for an internal failure of the engine.
fn inner_code(code: Code) -> Code {
    match code {
        Code::Io | Code::CorruptDatabase | Code::Overloaded => code,
        Code::Closed => Code::BackendUnavailable,
        _ => Code::Internal,
    }
}

fn with_advice(error: &Error) -> String {
    match error.advice() {
        Some(advice) => format!("{error}; {advice}"),
        None => error.to_string(),
    }
}

/// An empty response that carries the problem to `service`, which knows the ID of the request.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backends_refusal_is_never_a_403_and_its_text_stays_inside() {
        for code in [Code::Forbidden, Code::Unauthorized, Code::Version, Code::Cancelled] {
            let problem = Problem::from(Error::new(code, "key AKIA of bucket secret-bucket was refused"));
            assert_eq!(problem.code(), Code::Internal, "{code}");
            assert!(!problem.0.detail.contains("secret-bucket"));
            assert!(problem.for_the_log().unwrap().contains("secret-bucket"));
        }
        let copy = Problem::from(Error::new(Code::Config, "the database /srv/secret is a copy"));
        assert_eq!((copy.code(), copy.status().as_u16()), (Code::BackendUnavailable, 503));
        assert!(!copy.0.detail.contains("/srv") && copy.for_the_log().unwrap().contains("/srv"));
        let missing = Error::io("cannot open /srv/secret", std::io::Error::from_raw_os_error(2));
        assert_eq!(Problem::from(missing).code(), Code::Internal);
        let damaged = Problem::from(Error::new(Code::CorruptBlock, "block in /srv/secret is altered"));
        assert!(damaged.code() == Code::CorruptBlock && !damaged.0.detail.contains("/srv"));
    }

    #[test]
    fn every_code_that_a_client_can_receive_has_a_title() {
        for code in Code::all() {
            let left = Problem::from(Error::new(code, "x")).code();
            assert!(CODES.iter().any(|(known, _)| *known == left), "{left}");
        }
    }
}
