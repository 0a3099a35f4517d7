//! Every failure as RFC 9457 `application/problem+json`, from the closed list of codes that all languages share.
//!
//! What the caller did wrong is told to the caller. What went wrong inside is told to the log, under the id of the
//! request, and the caller gets the code and a general word: no path, address or backend's text leaves the server. An
//! engine's `forbidden` is the backend refusing *us*, and is never a caller's 403.

use axum::response::{IntoResponse, Response};
use graviton_core::{Code, Error};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

/// The media type of a problem.
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";

/// A failure on its way to the caller.
#[derive(Debug, Clone)]
pub(crate) struct Problem(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    code: Code,
    status: StatusCode,
    detail: String,
    headers: HeaderMap,
    /// Blocks that are to be put first.
    missing: Option<Vec<String>>,
    /// What the log says of it, where that is more than the caller is told.
    internal: Option<String>,
}

/// The body of every failure.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Body<'a> {
    /// Where this kind of failure is explained
    #[serde(rename = "type")]
    #[schema(example = "/docs#not-found", format = "uri-reference")]
    kind: String,
    /// The kind of failure in words
    #[schema(example = "There is no such thing")]
    title: &'a str,
    /// The status of the response
    #[schema(minimum = 400, maximum = 599, example = 404)]
    status: u16,
    /// What went wrong this time, and what to do
    detail: &'a str,
    /// What to act on; the list is closed
    #[schema(example = "not-found", pattern = "^[a-z]+(-[a-z]+)*$")]
    code: &'a str,
    /// Whether the same request may succeed later
    retryable: bool,
    /// What the server's log calls this request
    request_id: &'a str,
    /// Where blocks of a blob to be made are missing: their keys
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    missing: Option<&'a [String]>,
}

/// The codes that a caller can get, each with its title.
pub const CODES: &[(Code, &str)] = &[
    (Code::InvalidArgument, "The request makes no sense"),
    (Code::InvalidId, "This is not an id"),
    (Code::NotFound, "There is no such thing"),
    (Code::DigestMismatch, "The content is not what its id says"),
    (Code::TooLarge, "This is larger than a limit allows"),
    (Code::RangeNotSatisfiable, "The range starts behind the end"),
    (Code::Unauthorized, "Who asks is not known"),
    (Code::Forbidden, "Who asks may not do this"),
    (Code::CorruptBlock, "Stored data is damaged"),
    (Code::MissingBlock, "Stored data is missing"),
    (Code::BackendUnavailable, "The database or block store does not answer"),
    (Code::WriterExpired, "The upload took longer than its lease"),
    (Code::NoSpace, "The disk is full"),
    (Code::QuotaExceeded, "The quota is used up"),
    (Code::MethodNotAllowed, "The method does not apply here"),
    (Code::Timeout, "The request took too long to arrive"),
    (Code::Unsupported, "This kind of content is not understood here"),
    (Code::RateLimited, "Too many requests"),
    (Code::Io, "The operating system reported an error"),
    (Code::Latched, "The store refuses writes after a failed one"),
    (Code::Internal, "Something went wrong inside"),
    (Code::CorruptDatabase, "The database is damaged"),
    (Code::Overloaded, "Too much is going on at once"),
];

impl Problem {
    /// A problem that the caller is told in these words: what is wrong, and what to do.
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

    /// A problem that is told only to the log.
    pub(crate) fn internal(code: Code, why: impl Into<String>) -> Problem {
        let told = "the server failed; its log says why, under the id of this request";
        let mut problem = Problem::new(code, told);
        problem.0.internal = Some(why.into());
        problem
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Problem {
        self.0.headers.insert(name, value);
        self
    }

    /// The same under another status, where HTTP has one of its own for the occasion.
    pub(crate) fn with_status(mut self, status: StatusCode) -> Problem {
        self.0.status = status;
        self
    }

    /// The same, naming blocks that are to be put first.
    pub(crate) fn naming_missing(mut self, keys: Vec<String>) -> Problem {
        self.0.missing = Some(keys);
        self
    }

    /// What to act on.
    pub(crate) fn code(&self) -> Code {
        self.0.code
    }

    /// What the log says of it, where that is more than the caller is told.
    pub(crate) fn for_the_log(&self) -> Option<&str> {
        self.0.internal.as_deref()
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The response, once the id of the request is known. `allow` is what axum said of a method that does not apply.
    pub(crate) fn render(self, request_id: &str, allow: Option<HeaderValue>) -> Response {
        let body = self.body(request_id);
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

    /// The JSON of it.
    pub(crate) fn body(&self, request_id: &str) -> Vec<u8> {
        let body = Body {
            kind: format!("/docs#{}", self.0.code),
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
    CODES.iter().find(|(known, _)| *known == code).map_or("Something went wrong inside", |(_, title)| title)
}

/// A failure of the engine: the caller's own are told, all others are the log's.
impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        let callers = match error.code() {
            Code::InvalidId | Code::DigestMismatch | Code::RangeNotSatisfiable => true,
            // With an error of the operating system behind it, it is about a file of ours.
            Code::NotFound | Code::InvalidArgument | Code::TooLarge => error.errno().is_none(),
            _ => false,
        };
        if callers {
            return Problem::new(error.code(), told(&error));
        }
        let why = match error.advice() {
            Some(advice) => format!("{error} ({advice})"),
            None => error.to_string(),
        };
        let general = match error.code() {
            Code::CorruptBlock => "a block of the content is damaged; put the content again to mend it",
            Code::MissingBlock => "a block of the content is missing; put the content again to mend it",
            Code::WriterExpired => "the upload or session took longer than its lease; begin it again",
            Code::NoSpace => "the disk of the store is full; nothing of the upload was kept",
            Code::Latched => "an earlier write failed; the store has to be opened again before it takes more",
            Code::BackendUnavailable | Code::Timeout => {
                "the database or the block store does not answer; try again"
            }
            _ => return Problem::internal(inner_code(error.code()), why),
        };
        let code = if error.code() == Code::Timeout { Code::BackendUnavailable } else { error.code() };
        let mut problem = Problem::new(code, general);
        problem.0.internal = Some(why);
        problem
    }
}

/// What an engine's code is to the caller where the caller is not to blame.
fn inner_code(code: Code) -> Code {
    match code {
        Code::Io | Code::CorruptDatabase | Code::Overloaded => code,
        Code::Closed => Code::BackendUnavailable,
        _ => Code::Internal,
    }
}

fn told(error: &Error) -> String {
    match error.advice() {
        Some(advice) => format!("{error}; {advice}"),
        None => error.to_string(),
    }
}

/// An empty response that carries the problem to where the id of the request is known (`front`).
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
    fn a_backends_refusal_is_no_caller_s_403_and_its_words_stay_inside() {
        for code in [Code::Forbidden, Code::Unauthorized, Code::Config, Code::Version, Code::Cancelled] {
            let problem = Problem::from(Error::new(code, "key AKIA of bucket secret-bucket was refused"));
            assert_eq!(problem.code(), Code::Internal, "{code}");
            assert!(!problem.0.detail.contains("secret-bucket"));
            assert!(problem.for_the_log().unwrap().contains("secret-bucket"));
        }
        let missing = Error::io("cannot open /srv/secret", std::io::Error::from_raw_os_error(2));
        assert_eq!(Problem::from(missing).code(), Code::Internal);
        let damaged = Problem::from(Error::new(Code::CorruptBlock, "block in /srv/secret is altered"));
        assert!(damaged.code() == Code::CorruptBlock && !damaged.0.detail.contains("/srv"));
    }

    #[test]
    fn every_code_that_can_leave_has_a_title() {
        for code in Code::all() {
            let left = Problem::from(Error::new(code, "x")).code();
            assert!(CODES.iter().any(|(known, _)| *known == left), "{left}");
        }
    }
}
