//! The sessions that clients have open: each keeps blocks, and every one that it keeps is a row of the
//! database, stored or not. So the blocks that the sessions of one client keep together are bounded, and so
//! is the number of sessions.
//!
//! The server counts for itself. It adds up what it was asked, and asks the database only when that is too
//! much: a client may ask about the same block again. For the same reason the last question may go beyond the
//! bound. Where several servers share a store, each has its own count.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use graviton_core::{Code, Session};

use crate::auth::Caller;
use crate::problem::Problem;

/// The most sessions of one client. One more ends the one that was not used for the longest time.
const MOST_EACH: usize = 1_024;

/// A session that was not used for so long makes room for others.
const IDLE: Duration = Duration::from_secs(60);

/// The open sessions, as far as this server has seen them.
pub(crate) struct Sessions {
    /// How long a session lives without a call.
    lifetime: Duration,
    idle: Duration,
    /// The most blocks of one client.
    most: u64,
    seen: Mutex<HashMap<Caller, Vec<Seen>>>,
}

struct Seen {
    token: String,
    session: Session,
    /// It keeps so many blocks, or fewer.
    blocks: u64,
    used: Instant,
}

impl Sessions {
    pub(crate) fn new(lifetime: Duration, most: u64) -> Sessions {
        Sessions { lifetime, idle: IDLE, most, seen: Mutex::default() }
    }

    /// Lets this session keep so many blocks more, or says why not. May end other sessions of the client.
    pub(crate) async fn keep(&self, caller: &Caller, session: &Session, more: u64) -> Result<(), Problem> {
        let kept = match self.count(caller, session) {
            Some(kept) if kept + more <= self.most => kept,
            _ => session.kept().await?,
        };
        if kept > self.most {
            let why = format!(
                "a client's sessions keep at most {} blocks; commit the blob, and go on with another session",
                self.most
            );
            return Err(Problem::new(Code::TooLarge, why));
        }
        let (ended, fits) = self.note(caller, session, kept, more);
        for session in ended {
            // If it fails, the session ends by itself.
            let _ = session.close().await;
        }
        if fits {
            return Ok(());
        }
        let why = "the sessions of this client keep too many blocks; end some by not using them for a minute";
        Err(Problem::new(Code::Overloaded, why))
    }

    /// Forgets sessions that are over.
    pub(crate) fn forget_old(&self) {
        self.seen().retain(|_, sessions| {
            sessions.retain(|seen| seen.used.elapsed() < self.lifetime);
            !sessions.is_empty()
        });
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<Caller, Vec<Seen>>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session keeps so many blocks, or fewer; none if this server has not seen it.
    fn count(&self, caller: &Caller, session: &Session) -> Option<u64> {
        let token = session.token();
        self.seen().get(caller)?.iter().find(|seen| seen.token == token).map(|seen| seen.blocks)
    }

    /// Notes that the session keeps so many blocks, and is to keep more. The sessions that make room for it,
    /// and whether that is enough; if it is not, nothing is noted.
    fn note(&self, caller: &Caller, session: &Session, kept: u64, more: u64) -> (Vec<Session>, bool) {
        let token = session.token();
        let mut seen = self.seen();
        let sessions = seen.entry(caller.clone()).or_default();
        sessions.retain(|seen| seen.token != token && seen.used.elapsed() < self.lifetime);
        // The one that was not used for the longest time is the last.
        sessions.sort_by_key(|seen| std::cmp::Reverse(seen.used));
        let mut ended = Vec::new();
        let mut together = kept + sessions.iter().map(|seen| seen.blocks).sum::<u64>();
        while sessions.len() >= MOST_EACH
            || together > self.most && sessions.last().is_some_and(|last| last.used.elapsed() >= self.idle)
        {
            let Some(last) = sessions.pop() else { break };
            together -= last.blocks;
            ended.push(last.session);
        }
        let fits = together <= self.most;
        if fits {
            let blocks = kept + more;
            sessions.push(Seen { token, session: session.clone(), blocks, used: Instant::now() });
        }
        (ended, fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graviton_core::{Algo, AsyncStore, BlockKey, Config};

    const LIFETIME: Duration = Duration::from_secs(600);

    fn caller(last: u8) -> Caller {
        Caller::Address([192, 0, 2, last].into())
    }

    fn keys(from: u8, to: u8) -> Vec<BlockKey> {
        (from..to).map(|byte| BlockKey::of(Algo::Blake3, &[byte]).unwrap()).collect()
    }

    async fn session(store: &AsyncStore) -> Session {
        store.open_session(LIFETIME).await.unwrap()
    }

    async fn ask(
        sessions: &Sessions,
        caller: &Caller,
        session: &Session,
        keys: &[BlockKey],
    ) -> Result<(), Code> {
        sessions.keep(caller, session, keys.len() as u64).await.map_err(|problem| problem.code())?;
        session.missing(keys).await.map(drop).map_err(|error| error.code())
    }

    #[tokio::test]
    async fn a_client_keeps_so_many_blocks_and_others_do_not_notice() {
        let directory = tempfile::tempdir().unwrap();
        let store = Config::for_directory(directory.path()).open_async().await.unwrap();
        let sessions = Sessions::new(LIFETIME, 10);
        let (one, other) = (session(&store).await, session(&store).await);
        ask(&sessions, &caller(1), &one, &keys(0, 6)).await.unwrap();
        // The same blocks again are no more blocks.
        for _ in 0..5 {
            ask(&sessions, &caller(1), &one, &keys(2, 6)).await.unwrap();
        }
        assert_eq!(one.kept().await.unwrap(), 6);
        ask(&sessions, &caller(1), &one, &keys(6, 11)).await.unwrap();
        assert_eq!(ask(&sessions, &caller(1), &one, &keys(0, 1)).await, Err(Code::TooLarge));
        assert_eq!(ask(&sessions, &caller(1), &other, &keys(6, 11)).await, Err(Code::Overloaded));
        ask(&sessions, &caller(2), &other, &keys(6, 11)).await.unwrap();
        // A server that has not seen the session counts what it keeps.
        let elsewhere = Sessions::new(LIFETIME, 10);
        assert_eq!(ask(&elsewhere, &caller(1), &one, &keys(0, 1)).await, Err(Code::TooLarge));
    }

    #[tokio::test]
    async fn a_session_that_nobody_uses_makes_room() {
        let directory = tempfile::tempdir().unwrap();
        let store = Config::for_directory(directory.path()).open_async().await.unwrap();
        let sessions = Sessions { idle: Duration::ZERO, ..Sessions::new(LIFETIME, 10) };
        let (one, other) = (session(&store).await, session(&store).await);
        ask(&sessions, &caller(1), &one, &keys(0, 11)).await.unwrap();
        ask(&sessions, &caller(1), &other, &keys(0, 6)).await.unwrap();
        assert_eq!(one.missing(&[]).await.unwrap_err().code(), Code::WriterExpired);
        other.missing(&[]).await.unwrap();
        // However many a client opens, so many are left.
        let many = Sessions::new(LIFETIME, 10);
        for _ in 0..=MOST_EACH {
            many.keep(&caller(1), &session(&store).await, 0).await.unwrap();
        }
        assert_eq!(many.seen()[&caller(1)].len(), MOST_EACH);
        let over = Sessions { lifetime: Duration::ZERO, ..many };
        over.forget_old();
        assert!(over.seen().is_empty());
    }
}
