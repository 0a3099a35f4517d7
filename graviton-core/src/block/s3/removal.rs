//! Removes objects: one DELETE for each, signed before the doom is sent.
//!
//! A request may be carried out long after its client abandoned it: a gateway holds it, or the client stalls
//! before it sends it. So each request is a presigned URL with an expiry time, after which the server refuses
//! it from any sender. That is the only bound, and it also holds for requests that got no answer.
//!
//! One request is sent for each object, not DeleteObjects for a thousand of them: that is missing in some
//! servers, slow in others, and can fail in part. A DELETE costs nothing on AWS.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use http::Method;
use object_store::client::{HttpRequest, HttpRequestBody};
use object_store::signer::Signer;

use super::failure::{Action, Failure, Refusal};
use super::shared::{Shared, path};
use super::transport::Trace;
use crate::block::{Aside, Removal, Removed};
use crate::error::{Code, Error, Result, root_cause};
use crate::key::BlockKey;

/// Requests of one removal at once.
const MOST_REQUESTS: usize = 32;

/// How long the answer of one request is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a request is sent that the server was too busy for, and how long the first pause is.
const ATTEMPTS: u32 = 6;
const PAUSE: Duration = Duration::from_millis(100);

/// The signed request of each block.
pub(super) struct SignedRemoval {
    shared: Arc<Shared>,
    requests: HashMap<BlockKey, http::Uri>,
    /// Set when a request got no answer. Then no other begins: what is not begun needs no doom.
    silent: AtomicBool,
}

impl SignedRemoval {
    /// Signs the requests, valid from now on for so long.
    pub(super) async fn prepare(
        shared: Arc<Shared>,
        blocks: &[Aside],
        valid: Duration,
    ) -> Result<SignedRemoval> {
        // In whole seconds.
        let valid = valid.max(Duration::from_secs(1));
        let mut requests = HashMap::with_capacity(blocks.len());
        for Aside { key, .. } in blocks {
            let object = shared.location.key_of(key);
            let signed = shared.s3.signed_url(Method::DELETE, &path(&object)?, valid).await;
            let uri = signed.map_err(|error| root_cause(&error)).and_then(|url| {
                url.as_str().parse::<http::Uri>().map_err(|error| format!("{object}: {error}"))
            });
            let uri = uri.map_err(|why| {
                let tried = format!("cannot delete blocks from {}", shared.name);
                shared.explain(Failure::Senseless(why), Action::Delete, &object, &tried)
            })?;
            requests.insert(*key, uri);
        }
        Ok(SignedRemoval { shared, requests, silent: AtomicBool::new(false) })
    }

    async fn remove_one(&self, key: &BlockKey) -> Removed {
        let Some(uri) = self.requests.get(key) else {
            return Removed::Kept(Error::new(
                Code::Internal,
                format!("the removal of {key} was not prepared"),
            ));
        };
        for attempt in 0..ATTEMPTS {
            if self.silent.load(Ordering::Relaxed) {
                let why = "other deletions got no answer, and this one was not begun";
                return Removed::Kept(self.explain(key, Failure::Broken(why.to_owned())));
            }
            let Err(failure) = self.send(uri.clone()).await else { return Removed::Gone };
            match outcome(&failure) {
                Outcome::Gone => return Removed::Gone,
                Outcome::Busy if attempt + 1 < ATTEMPTS => tokio::time::sleep(PAUSE * (1 << attempt)).await,
                Outcome::Busy | Outcome::Refused => return Removed::Kept(self.explain(key, failure)),
                Outcome::Unknown => {
                    self.silent.store(true, Ordering::Relaxed);
                    return Removed::Unknown(self.explain(key, failure));
                }
            }
        }
        Removed::Kept(Error::new(Code::Internal, format!("the deletion of {key} was never sent")))
    }

    async fn send(&self, uri: http::Uri) -> Result<(), Failure> {
        let trace = Trace::new(PATIENCE, 0);
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = Method::DELETE;
        *request.uri_mut() = uri;
        *request.extensions_mut() = trace.extensions();
        match self.shared.http.execute(request).await {
            Ok(_) => Ok(()),
            Err(error) => Err(trace.last_failure().unwrap_or_else(|| Failure::Broken(root_cause(&error)))),
        }
    }

    fn explain(&self, key: &BlockKey, failure: Failure) -> Error {
        let tried = format!("cannot delete block {key} from {}", self.shared.name);
        self.shared.explain(failure, Action::Delete, &self.shared.location.key_of(key), &tried)
    }
}

/// The meaning of an answer that is no success.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Gone,
    /// The server did nothing, for now.
    Busy,
    /// The server did nothing.
    Refused,
    /// It may still be deleted.
    Unknown,
}

fn outcome(failure: &Failure) -> Outcome {
    if failure.is_absence() {
        return Outcome::Gone;
    }
    let Failure::Refused(Refusal { status, code, .. }) = failure else { return Outcome::Unknown };
    match (*status, code.as_str()) {
        (429, _) | (503, "SlowDown" | "SlowDownWrite" | "ServiceUnavailable" | "RequestLimitExceeded") => {
            Outcome::Busy
        }
        (400..=499 | 501, _) => Outcome::Refused,
        // A gateway says so too, and does not know what became of the request.
        _ => Outcome::Unknown,
    }
}

#[async_trait]
impl Removal for SignedRemoval {
    async fn remove(&self, blocks: &[Aside]) -> Vec<Removed> {
        let requests: Vec<_> = blocks.iter().map(|aside| self.remove_one(&aside.key)).collect();
        futures_util::stream::iter(requests).buffered(MOST_REQUESTS).collect().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_of_the_server_says_that_nothing_will_happen() {
        let refused = |status, code: &str| {
            outcome(&Failure::Refused(Refusal::new(status, &format!("<Code>{code}</Code>"), None)))
        };
        assert_eq!(refused(404, "NoSuchKey"), Outcome::Gone);
        assert_eq!(refused(404, "NoSuchBucket"), Outcome::Refused);
        assert_eq!(refused(403, "AccessDenied"), Outcome::Refused);
        assert_eq!(refused(501, "NotImplemented"), Outcome::Refused);
        assert_eq!(refused(503, "SlowDown"), Outcome::Busy);
        for (status, code) in [(500, "InternalError"), (502, ""), (503, ""), (504, "GatewayTimeout")] {
            assert_eq!(refused(status, code), Outcome::Unknown, "{status} {code}");
        }
        assert_eq!(outcome(&Failure::silent(PATIENCE)), Outcome::Unknown);
    }
}
