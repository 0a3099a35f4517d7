//! The last answers of the store, for the readiness check. The check needs no token, so the store is asked at
//! most a few times per second, and by one request at a time.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

/// How long an answer is reused.
const FRESH: Duration = Duration::from_millis(250);

/// The last answers of the store, for reading and for writing.
#[derive(Default)]
pub(crate) struct Readiness {
    pub(crate) reading: LastAnswer,
    pub(crate) writing: LastAnswer,
}

/// The last answer to one question.
#[derive(Default)]
pub(crate) struct LastAnswer(Mutex<Option<(Instant, bool)>>);

impl LastAnswer {
    /// The last answer if it is fresh, otherwise a new one.
    pub(crate) async fn ask<A: Future<Output = bool>>(&self, question: impl FnOnce() -> A) -> bool {
        let mut last = self.0.lock().await;
        if let Some((since, answer)) = *last
            && since.elapsed() < FRESH
        {
            return answer;
        }
        let answer = question().await;
        *last = Some((Instant::now(), answer));
        answer
    }
}
