//! The failures of S3, and the errors that they become.
//!
//! - Wrong credentials, a bucket that does not exist and a wrong region are `config`, each naming its
//!   setting: a retry does not help.
//! - A missing permission is `forbidden`, and named.
//! - Transient failures (no connection, no answer in time, an overloaded or failing server, an upload damaged
//!   in transit) were retried before they get here, and are `backend-unavailable`.
//!
//! Any other answer is an error too. Only a 404 that is not about the bucket means that an object is absent.

use std::fmt;
use std::time::Duration;

use super::location::S3Location;
use crate::error::{Code, Error};

/// The reason why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// The server answered with no success.
    #[error("{0}")]
    Refused(Refusal),
    /// There was no answer, or not all of it.
    #[error("{0}")]
    Broken(String),
    /// There was no request, or an answer that makes no sense.
    #[error("{0}")]
    Senseless(String),
}

/// An answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// As S3 names it; empty where the answer has no body.
    pub(super) code: String,
    message: String,
    /// Where the bucket really is, if the server says so.
    region: Option<String>,
}

impl Refusal {
    pub(super) fn new(status: u16, body: &str, region: Option<String>) -> Refusal {
        Refusal { status, code: element(body, "Code"), message: element(body, "Message"), region }
    }
}

/// The text of an XML element. That is all that is needed of an error, and nothing else of it is kept: it can
/// have the access key in it.
fn element(body: &str, name: &str) -> String {
    const MOST: usize = 300;
    let (start, end) = (format!("<{name}>"), format!("</{name}>"));
    let inside =
        body.split_once(&start).and_then(|(_, rest)| rest.split_once(&end)).map_or("", |(text, _)| text);
    let text: String = inside.chars().filter(|letter| !letter.is_control()).take(MOST).collect();
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'");
    text.replace("&apos;", "'").replace("&amp;", "&").trim().to_owned()
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal { status, code, message, .. } = self;
        write!(f, "the server answered {status}")?;
        match (code.is_empty(), message.is_empty()) {
            (true, _) => Ok(()),
            (false, true) => write!(f, " {code}"),
            (false, false) => write!(f, " {code}: {}", message.trim_end_matches('.')),
        }
    }
}

/// The action that a permission is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Read,
    Write,
    Delete,
    List,
}

impl Failure {
    pub(super) fn silent(after: Duration) -> Failure {
        Failure::Broken(format!("no answer within {after:?}"))
    }

    /// Whether the same request may succeed in a moment.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Failure::Broken(_) => true,
            Failure::Senseless(_) => false,
            Failure::Refused(Refusal { status, code, .. }) => match status {
                // The bytes were damaged or stopped on their way.
                400 => matches!(
                    code.as_str(),
                    "BadDigest"
                        | "IncompleteBody"
                        | "RequestTimeout"
                        | "XAmzContentSHA256Mismatch"
                        | "XAmzContentChecksumMismatch"
                ),
                409 => matches!(code.as_str(), "ConditionalRequestConflict" | "OperationAborted"),
                // Not implemented; out of space.
                501 | 507 => false,
                408 | 429 => true,
                status => *status >= 500,
            },
        }
    }

    /// Whether the server answered that it did nothing. A gateway that fails (5xx) does not know.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Failure::Refused(Refusal { status: 400..=499 | 501 | 507, .. }))
    }

    /// Whether it says that there is no such object.
    pub(super) fn is_absence(&self) -> bool {
        // Servers name it differently, and a HEAD is answered without a body.
        matches!(self, Failure::Refused(Refusal { status: 404, code, .. }) if code != "NoSuchBucket")
    }

    /// Whether the server says that the request itself is wrong, or asks for what it does not know: a header
    /// of it, for example.
    pub(super) fn is_about_the_request(&self) -> bool {
        matches!(self, Failure::Refused(refusal)
            if matches!(refusal.status, 400 | 501) && matches!(Kind::of(refusal), Kind::Other))
    }

    /// Whether the answer is an error as S3 writes them.
    pub(super) fn is_of_s3(&self) -> bool {
        matches!(self, Failure::Refused(refusal) if !refusal.code.is_empty())
    }

    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Failure::Refused(refusal) => Some(refusal.status),
            _ => None,
        }
    }

    /// The error for the caller: `tried` is what was being done and to what, `key` the object or prefix.
    pub(super) fn explain(
        self,
        location: &S3Location,
        endpoint: &str,
        action: Action,
        key: &str,
        tried: &str,
    ) -> Error {
        let bucket = location.bucket();
        let (code, why, advice) = match &self {
            Failure::Refused(refusal) => match Kind::of(refusal) {
                Kind::NoBucket => (
                    Code::Config,
                    format!("bucket {bucket:?} does not exist at {endpoint}"),
                    "create the bucket, or name another with GRAVITON_S3_BLOCK_BUCKET".to_owned(),
                ),
                Kind::BadBucketName => (
                    Code::Config,
                    format!("{endpoint} does not take {bucket:?} for the name of a bucket"),
                    "name another bucket with GRAVITON_S3_BLOCK_BUCKET".to_owned(),
                ),
                Kind::Credentials => (
                    Code::Config,
                    format!("{endpoint} does not accept the credentials: {self}"),
                    credentials_advice(location),
                ),
                Kind::Clock => (
                    Code::Config,
                    format!("the clock of this machine is wrong, or that of {endpoint}: {self}"),
                    "set the clock".to_owned(),
                ),
                Kind::Region => (
                    Code::Config,
                    match &refusal.region {
                        Some(region) => format!("bucket {bucket:?} is in the region {region}: {self}"),
                        None => format!("bucket {bucket:?} is in another region: {self}"),
                    },
                    "set GRAVITON_S3_REGION to the region of the bucket".to_owned(),
                ),
                Kind::Addressing => (
                    Code::Config,
                    format!("{endpoint} wants the bucket in the name of the host: {self}"),
                    "set GRAVITON_S3_ADDRESSING=virtual".to_owned(),
                ),
                Kind::Forbidden => {
                    let (permission, more) = match action {
                        Action::Read => (
                            "s3:GetObject",
                            "; without s3:ListBucket on the bucket an object that is absent looks like that too",
                        ),
                        Action::Write => ("s3:PutObject", ""),
                        Action::Delete => ("s3:DeleteObject", ""),
                        Action::List => ("s3:ListBucket", ""),
                    };
                    (
                        Code::Forbidden,
                        format!(
                            "permission {permission} is missing for {key:?} in bucket {bucket:?} ({self})"
                        ),
                        format!("grant {permission} on {} to these credentials{more}", location.path()),
                    )
                }
                Kind::Late => (
                    Code::BackendUnavailable,
                    format!("the request came too late: {self}"),
                    "try again; if that does not help, compare the clocks of both machines".to_owned(),
                ),
                Kind::Full => (Code::NoSpace, self.to_string(), "free some space on that server".to_owned()),
                Kind::Quota => {
                    (Code::QuotaExceeded, self.to_string(), "raise the quota of the bucket".to_owned())
                }
                Kind::Passing => (Code::BackendUnavailable, self.to_string(), "try again later".to_owned()),
                Kind::Other => (
                    Code::Config,
                    format!("{self}, which is not what S3 answers to that"),
                    format!("check that {endpoint} is the address of an S3 server, not of its console"),
                ),
            },
            Failure::Broken(reason) => broken(location, endpoint, reason),
            Failure::Senseless(reason) => (
                Code::Config,
                match location.server() {
                    Some(_) => reason.clone(),
                    None => format!("no credentials for AWS, or no sense in an answer: {reason}"),
                },
                match location.server() {
                    Some(_) => format!("check that {endpoint} is the address of an S3 server"),
                    None => credentials_advice(location),
                },
            ),
        };
        let advice = match proxy_of(endpoint) {
            Some(proxy) => self.through_proxy(advice, proxy),
            None => advice,
        };
        Error::new(code, format!("{tried}: {why}")).with_advice(advice).with_source(self)
    }

    /// The advice where a proxy is in the way: a refusal without a code of S3 may be its own.
    fn through_proxy(&self, advice: String, proxy: &str) -> String {
        match self {
            Failure::Refused(refusal) if refusal.code.is_empty() => format!(
                "{advice}; if the answer is that of the proxy which {proxy} names, change that or except the server with NO_PROXY"
            ),
            _ => advice,
        }
    }
}

/// The code, the reason and the advice where there was no answer.
fn broken(location: &S3Location, endpoint: &str, reason: &str) -> (Code, String, String) {
    if reason.contains("certificate") {
        let more = if location.server().is_some() { "" } else { " or AWS_CA_BUNDLE" };
        let advice = format!("name the PEM file of its authority with GRAVITON_S3_CA{more}");
        return (Code::Config, format!("{endpoint} cannot be trusted: {reason}"), advice);
    }
    let advice = match (proxy_of(endpoint), location.server()) {
        (Some(proxy), _) => format!(
            "check that it can be reached through the proxy that {proxy} names, or except it with NO_PROXY, and try again"
        ),
        (None, Some(_)) => {
            "check that this server runs and can be reached (QUASAR_MINIO_URL), and try again".to_owned()
        }
        (None, None) => "check that it can be reached from here, and try again".to_owned(),
    };
    (Code::BackendUnavailable, format!("{endpoint}: {reason}"), advice)
}

fn credentials_advice(location: &S3Location) -> String {
    match location.server() {
        Some(_) => "check MINIO_ROOT_USER and MINIO_ROOT_PASSWORD",
        None if std::env::var_os("AWS_PROFILE").is_some() => {
            "AWS_PROFILE is not read: set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, as `aws configure \
             export-credentials --format env` prints them"
        }
        None => {
            "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or the role of this machine; profiles \
             are not read"
        }
    }
    .to_owned()
}

/// The variable that names the proxy which requests to this endpoint go through, if one does and it is not
/// excepted. For messages only: `NO_PROXY` is read by the client of HTTP.
fn proxy_of(endpoint: &str) -> Option<&'static str> {
    let names: &[&str] = if endpoint.starts_with("https:") {
        &["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
    } else {
        &["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]
    };
    let is_set = |name: &&&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    names.iter().find(is_set).copied()
}

enum Kind {
    NoBucket,
    BadBucketName,
    Credentials,
    Clock,
    Region,
    /// It wants the bucket in the host name.
    Addressing,
    Forbidden,
    Late,
    Full,
    Quota,
    Passing,
    Other,
}

impl Kind {
    fn of(refusal: &Refusal) -> Kind {
        match (refusal.status, refusal.code.as_str()) {
            (_, "NoSuchBucket") => Kind::NoBucket,
            (_, "InvalidBucketName") => Kind::BadBucketName,
            (
                _,
                "InvalidAccessKeyId"
                | "SignatureDoesNotMatch"
                | "InvalidToken"
                | "ExpiredToken"
                | "TokenRefreshRequired"
                | "InvalidSecurity"
                | "InvalidClientTokenId"
                | "NotSignedUp",
            ) => Kind::Credentials,
            (_, "RequestTimeTooSkewed" | "RequestExpired") => Kind::Clock,
            (
                _,
                "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException",
            )
            | (301 | 307, _) => Kind::Region,
            (_, "SecondLevelDomainForbidden" | "VirtualHostDomainRequired" | "PathStyleDomainForbidden") => {
                Kind::Addressing
            }
            (_, "XMinioStorageFull" | "InsufficientStorage") | (507, _) => Kind::Full,
            (_, "QuotaExceeded" | "XMinioAdminBucketQuotaExceeded") => Kind::Quota,
            (401, _) => Kind::Credentials,
            // That of an address which was signed for a while, and is used too late.
            (403, "AccessDenied") if refusal.message.starts_with("Request has expired") => Kind::Late,
            (403, _) => Kind::Forbidden,
            _ if Failure::Refused(refusal.clone()).is_passing() => Kind::Passing,
            _ => Kind::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::s3::S3Server;
    use crate::error::root_cause;

    const ENDPOINT: &str = "http://h:9000";

    fn refused(status: u16, code: &str) -> Failure {
        let body = format!(
            "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>Because &amp; so.</Message>\
             <AWSAccessKeyId>AKIASECRET</AWSAccessKeyId></Error>"
        );
        Failure::Refused(Refusal::new(status, &body, None))
    }

    fn explained(failure: Failure, action: Action) -> Error {
        let server = S3Server::new(ENDPOINT, "user", "password").unwrap();
        let location = S3Location::new("the-bucket", "the/prefix").unwrap().at(server).unwrap();
        failure.explain(&location, ENDPOINT, action, "the/prefix/key", "cannot do it")
    }

    #[test]
    fn each_refusal_has_its_code_and_names_what_to_change() {
        for (status, code, expected, named) in [
            (404, "NoSuchBucket", Code::Config, "GRAVITON_S3_BLOCK_BUCKET"),
            (400, "InvalidBucketName", Code::Config, "GRAVITON_S3_BLOCK_BUCKET"),
            (403, "InvalidAccessKeyId", Code::Config, "MINIO_ROOT_USER"),
            (403, "SignatureDoesNotMatch", Code::Config, "MINIO_ROOT_PASSWORD"),
            (400, "ExpiredToken", Code::Config, "credentials"),
            (401, "", Code::Config, "credentials"),
            (403, "RequestTimeTooSkewed", Code::Config, "clock"),
            (400, "AuthorizationHeaderMalformed", Code::Config, "GRAVITON_S3_REGION"),
            (301, "PermanentRedirect", Code::Config, "GRAVITON_S3_REGION"),
            (403, "SecondLevelDomainForbidden", Code::Config, "GRAVITON_S3_ADDRESSING=virtual"),
            (403, "AccessDenied", Code::Forbidden, "s3:GetObject"),
            (403, "", Code::Forbidden, "the/prefix/key"),
            (503, "SlowDown", Code::BackendUnavailable, "SlowDown"),
            (500, "", Code::BackendUnavailable, "500"),
            (429, "", Code::BackendUnavailable, "429"),
            (400, "BadDigest", Code::BackendUnavailable, "BadDigest"),
            (507, "XMinioStorageFull", Code::NoSpace, "507"),
            (400, "XMinioAdminBucketQuotaExceeded", Code::QuotaExceeded, "quota"),
            (405, "MethodNotAllowed", Code::Config, "console"),
            (404, "", Code::Config, "404"),
        ] {
            let error = explained(refused(status, code), Action::Read);
            let text = format!("{error} {}", error.advice().unwrap());
            assert_eq!(error.code(), expected, "{text}");
            assert!(text.contains(named) && text.starts_with("cannot do it: "), "{text}");
            assert!(!text.contains("AKIASECRET"), "{text}");
        }
    }

    #[test]
    fn a_refusal_that_may_be_a_proxys_names_the_proxy() {
        for (status, code, named) in
            [(403, "", true), (407, "", true), (502, "", true), (403, "AccessDenied", false)]
        {
            let advice = refused(status, code).through_proxy("check it".to_owned(), "HTTPS_PROXY");
            assert_eq!(advice.contains("HTTPS_PROXY"), named, "{status} {code}: {advice}");
        }
    }

    #[test]
    fn a_missing_permission_is_named() {
        for (action, permission) in
            [(Action::Read, "s3:GetObject"), (Action::Write, "s3:PutObject"), (Action::List, "s3:ListBucket")]
        {
            let error = explained(refused(403, "AccessDenied"), action);
            let text = error.to_string();
            assert!(text.contains(permission) && text.contains("the-bucket"), "{text}");
        }
    }

    /// Seen on a machine that was stalled for half a minute: the deletion was signed for less.
    #[test]
    fn a_request_that_came_too_late_lacks_no_permission() {
        let body = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>";
        let error = explained(Failure::Refused(Refusal::new(403, body, None)), Action::Delete);
        assert!(error.is_retryable() && error.to_string().contains("too late"), "{error}");
        assert!(!error.to_string().contains("permission"), "{error}");
    }

    #[test]
    fn only_a_404_about_the_object_is_absence() {
        assert!(refused(404, "NoSuchKey").is_absence());
        assert!(Failure::Refused(Refusal::new(404, "", None)).is_absence());
        assert!(Failure::Refused(Refusal::new(404, "<html>not found</html>", None)).is_absence());
        for other in [refused(404, "NoSuchBucket"), refused(403, ""), refused(500, ""), refused(410, "")] {
            assert!(!other.is_absence(), "{other}");
        }
        assert!(!Failure::Broken("connection refused".into()).is_absence());
    }

    #[test]
    fn what_passes_is_tried_again() {
        for passing in [
            refused(500, "InternalError"),
            refused(503, "SlowDown"),
            refused(408, ""),
            refused(429, ""),
            refused(400, "RequestTimeout"),
            refused(400, "BadDigest"),
            refused(409, "OperationAborted"),
            Failure::Broken(String::new()),
        ] {
            assert!(passing.is_passing(), "{passing}");
        }
        for lasting in [
            refused(400, "InvalidRequest"),
            refused(403, "SlowDownNot"),
            refused(404, ""),
            refused(409, "BucketNotEmpty"),
            refused(412, ""),
            refused(416, ""),
            refused(501, "NotImplemented"),
            refused(507, ""),
            Failure::Senseless(String::new()),
        ] {
            assert!(!lasting.is_passing(), "{lasting}");
        }
    }

    #[test]
    fn the_text_of_an_answer_is_kept_short_and_on_one_line() {
        let body = format!("<Code>A</Code><Message>one\ntwo &lt;{}</Message>", "x".repeat(1_000));
        let text = Failure::Refused(Refusal::new(400, &body, None)).to_string();
        assert!(text.starts_with("the server answered 400 A: onetwo <xxx") && text.len() < 400, "{text}");
        assert_eq!(element("<Code></Code>", "Code"), "");
        assert_eq!(element("</Code><Code>", "Code"), "");
    }

    #[test]
    fn the_innermost_cause_is_told() {
        let io = std::io::Error::from_raw_os_error(111);
        let error = Error::new(Code::Io, "outer").with_source(io);
        assert_eq!(root_cause(&error), "connection refused");
        assert_eq!(root_cause(&Error::new(Code::Io, "TLS failed")), "TLS failed");
    }
}
