//! The open sessions of clients. Each session keeps blocks, and every kept block is a row of the database,
//! stored or not. So both the number of blocks that the sessions of one client keep together and the number
//! of sessions are bounded.
//!
//! The server counts for itself. It adds up the requested blocks, and asks the database only when the sum
//! exceeds the bound, because a client may ask about the same block again. For the same reason the last
//! question may exceed the bound. Where several servers share a store, each counts separately.
//!
//! A session that is not used makes room for another session of the same client. A running call uses its
//! session, however long it takes ([`InUse`]).

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use graviton_core::{Code, Session};

use crate::auth::Caller;
use crate::problem::Problem;

/// The most sessions of one client. One more ends the session that was not used for the longest time.
const MOST_EACH: usize = 1_024;

/// A session that was not used for this time makes room for others.
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
    /// An upper bound on the blocks that it keeps; unknown until the database was asked.
    blocks: Option<u64>,
    /// All blocks that calls were allowed to add so far, and those of running calls.
    added: u64,
    pending: u64,
    /// The number of running calls.
    calls: usize,
    used: Instant,
}

/// A session in use by a call, until this is dropped.
pub(crate) struct InUse<'a> {
    sessions: &'a Sessions,
    caller: &'a Caller,
    token: String,
    more: u64,
}

/// The answer to a call that wants to add blocks.
enum Answer {
    /// The call may add them, after these sessions have ended.
    Yes(Vec<Session>),
    No,
    /// Only the database can tell.
    AskTheDatabase,
}

impl Sessions {
    pub(crate) fn new(lifetime: Duration, most: u64) -> Sessions {
        Sessions { lifetime, idle: IDLE, most, seen: Mutex::default() }
    }

    /// Uses a session for a call that adds no blocks to it. May end another session of the client.
    pub(crate) async fn enter<'a>(&'a self, caller: &'a Caller, session: &Session) -> InUse<'a> {
        let token = session.token();
        let ended = self.begin(caller, session, &token);
        end(ended).await;
        InUse { sessions: self, caller, token, more: 0 }
    }

    /// Uses a session and lets it keep `more` further blocks, or returns the reason for refusing. May end
    /// other sessions of the client.
    pub(crate) async fn keep<'a>(
        &'a self,
        caller: &'a Caller,
        session: &Session,
        more: u64,
    ) -> Result<InUse<'a>, Problem> {
        let mut in_use = self.enter(caller, session).await;
        let mut answer = self.add(caller, &in_use.token, more, None);
        if matches!(answer, Answer::AskTheDatabase) {
            // A running call may have written its rows already, or not yet.
            let (pending, added) = self.figures(caller, &in_use.token);
            let kept = session.kept().await?;
            if kept > self.most {
                let why = format!(
                    "a client's sessions keep at most {} blocks; commit the blob, and go on with another session",
                    self.most
                );
                return Err(Problem::new(Code::TooLarge, why));
            }
            answer = self.add(caller, &in_use.token, more, Some((kept + pending, added)));
        }
        let Answer::Yes(ended) = answer else {
            let why =
                "the sessions of this client keep too many blocks; end some by not using them for a minute";
            return Err(Problem::new(Code::Overloaded, why));
        };
        in_use.more = more;
        end(ended).await;
        Ok(in_use)
    }

    /// The blocks that the sessions of all clients keep, as far as this server has seen them.
    pub(crate) fn kept(&self) -> u64 {
        self.seen().values().flatten().map(|seen| seen.blocks.unwrap_or(seen.added)).sum()
    }

    /// Forgets expired sessions.
    pub(crate) fn forget_old(&self) {
        self.seen().retain(|_, sessions| {
            sessions.retain(|seen| seen.calls > 0 || seen.used.elapsed() < self.lifetime);
            !sessions.is_empty()
        });
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<Caller, Vec<Seen>>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a call uses the session. Returns the sessions that exceed [`MOST_EACH`].
    fn begin(&self, caller: &Caller, session: &Session, token: &str) -> Vec<Session> {
        let mut seen = self.seen();
        let sessions = seen.entry(caller.clone()).or_default();
        if let Some(own) = sessions.iter_mut().find(|seen| seen.token == token) {
            own.calls += 1;
            return Vec::new();
        }
        sessions.retain(|seen| seen.calls > 0 || seen.used.elapsed() < self.lifetime);
        let mut ended = Vec::new();
        while sessions.len() >= MOST_EACH
            && let Some(place) = longest_unused(sessions)
        {
            ended.push(sessions.remove(place).session);
        }
        sessions.push(Seen {
            token: token.to_owned(),
            session: session.clone(),
            blocks: None,
            added: 0,
            pending: 0,
            calls: 1,
            used: Instant::now(),
        });
        ended
    }

    /// The blocks of running calls, and all blocks that were added so far.
    fn figures(&self, caller: &Caller, token: &str) -> (u64, u64) {
        let seen = self.seen();
        let own = seen.get(caller).and_then(|sessions| sessions.iter().find(|seen| seen.token == token));
        own.map_or((0, 0), |own| (own.pending, own.added))
    }

    /// Lets the session keep `more` further blocks, if the bound allows it. `counted` is the count of the
    /// database plus the blocks of calls that were running then, and all blocks that had been added by then.
    fn add(&self, caller: &Caller, token: &str, more: u64, counted: Option<(u64, u64)>) -> Answer {
        let mut seen = self.seen();
        let Some(sessions) = seen.get_mut(caller) else { return Answer::No };
        let Some(own) = sessions.iter_mut().find(|seen| seen.token == token) else { return Answer::No };
        match (counted, own.blocks) {
            (Some((blocks, added)), _) => {
                let blocks = blocks + (own.added - added);
                own.blocks = Some(blocks);
                if blocks > self.most {
                    return Answer::No;
                }
            }
            (None, Some(blocks)) if blocks + more <= self.most => {}
            (None, _) => return Answer::AskTheDatabase,
        }
        let Some(ended) = self.make_room(sessions) else { return Answer::No };
        if let Some(own) = sessions.iter_mut().find(|seen| seen.token == token) {
            own.blocks = own.blocks.map(|blocks| blocks + more);
            own.added += more;
            own.pending += more;
        }
        Answer::Yes(ended)
    }

    /// Removes unused sessions until the rest keep at most the bound. Returns `None`, and removes nothing, if
    /// that is not enough.
    fn make_room(&self, sessions: &mut Vec<Seen>) -> Option<Vec<Session>> {
        let mut together: u64 = sessions.iter().filter_map(|seen| seen.blocks).sum();
        let mut unused: Vec<&Seen> =
            sessions.iter().filter(|seen| seen.calls == 0 && seen.used.elapsed() >= self.idle).collect();
        unused.sort_by_key(|seen| seen.used);
        let mut ended = Vec::new();
        for seen in unused {
            if together <= self.most {
                break;
            }
            together -= seen.blocks.unwrap_or_default();
            ended.push(seen.token.clone());
        }
        if together > self.most {
            return None;
        }
        let is_ended = |seen: &mut Seen| ended.contains(&seen.token);
        Some(sessions.extract_if(.., is_ended).map(|seen| seen.session).collect())
    }
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        let mut seen = self.sessions.seen();
        let sessions = seen.get_mut(self.caller).into_iter().flatten();
        if let Some(own) = sessions.into_iter().find(|seen| seen.token == self.token) {
            own.calls -= 1;
            own.pending -= self.more;
            own.used = Instant::now();
        }
    }
}

/// The index of the session that was not used for the longest time.
fn longest_unused(sessions: &[Seen]) -> Option<usize> {
    let unused = sessions.iter().enumerate().filter(|(_, seen)| seen.calls == 0);
    unused.min_by_key(|(_, seen)| seen.used).map(|(place, _)| place)
}

async fn end(sessions: Vec<Session>) {
    for session in sessions {
        // If it fails, the session ends by itself.
        let _ = session.close().await;
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
        let kept = sessions.keep(caller, session, keys.len() as u64).await;
        let _in_use = kept.map_err(|problem| problem.code())?;
        session.missing(keys).await.map(drop).map_err(|error| error.code())
    }

    #[tokio::test]
    async fn a_client_keeps_so_many_blocks_and_others_do_not_notice() {
        let directory = tempfile::tempdir().unwrap();
        let store = Config::for_directory(directory.path()).open_async().await.unwrap();
        let sessions = Sessions::new(LIFETIME, 10);
        let (one, other) = (session(&store).await, session(&store).await);
        ask(&sessions, &caller(1), &one, &keys(0, 6)).await.unwrap();
        // The same blocks again do not count as more blocks.
        for _ in 0..5 {
            ask(&sessions, &caller(1), &one, &keys(2, 6)).await.unwrap();
        }
        assert_eq!(one.kept().await.unwrap(), 6);
        ask(&sessions, &caller(1), &one, &keys(6, 11)).await.unwrap();
        assert_eq!(ask(&sessions, &caller(1), &one, &keys(0, 1)).await, Err(Code::TooLarge));
        // Refusals never make the server forget the blocks of the first session.
        for _ in 0..3 {
            assert_eq!(ask(&sessions, &caller(1), &other, &keys(6, 11)).await, Err(Code::Overloaded));
            assert_eq!(ask(&sessions, &caller(1), &one, &keys(0, 1)).await, Err(Code::TooLarge));
        }
        ask(&sessions, &caller(2), &other, &keys(6, 11)).await.unwrap();
        // A server that has not seen the session counts its blocks too.
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
        // A session in use is never ended, however long its call takes.
        let user = caller(1);
        let _call = sessions.enter(&user, &other).await;
        ask(&sessions, &caller(1), &other, &keys(6, 11)).await.unwrap();
        let third = session(&store).await;
        assert_eq!(ask(&sessions, &caller(1), &third, &keys(0, 6)).await, Err(Code::Overloaded));
        other.missing(&[]).await.unwrap();
        // A client may open any number, but only this many remain.
        let many = Sessions::new(LIFETIME, 10);
        for _ in 0..=MOST_EACH {
            many.enter(&caller(1), &session(&store).await).await;
        }
        assert_eq!(many.seen()[&caller(1)].len(), MOST_EACH);
        let over = Sessions { lifetime: Duration::ZERO, ..many };
        over.forget_old();
        assert!(over.seen().is_empty());
    }

    #[tokio::test]
    async fn calls_beside_each_other_are_added_up() {
        let directory = tempfile::tempdir().unwrap();
        let store = Config::for_directory(directory.path()).open_async().await.unwrap();
        let sessions = Sessions::new(LIFETIME, 10);
        let (one, caller) = (session(&store).await, caller(1));
        // None of its rows are written yet, so the database knows no block of it.
        let first = sessions.keep(&caller, &one, 6).await.unwrap();
        let second = sessions.keep(&caller, &one, 6).await.unwrap();
        assert_eq!(
            sessions.keep(&caller, &one, 6).await.err().map(|problem| problem.code()),
            Some(Code::Overloaded)
        );
        drop((first, second));
        sessions.keep(&caller, &one, 6).await.unwrap();
    }
}
