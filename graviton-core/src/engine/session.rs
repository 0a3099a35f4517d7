//! A put in pieces, by a client that asks which blocks are missing before it sends any.
//!
//! A session is a writer row of its own, with one pending blob that pins every block that the session asked
//! for or sent. So it has the guarantee of a put (`manifest`): no collector deletes such a block while the
//! session lives. All of its state is in the database and its token, so that each request may go to another
//! process. Every call extends the session. An unused session is collected like a put whose process died.
//!
//! ```text
//! open_session -> missing(keys) -> put_block(each) -> commit(keys, id)
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_recursion::async_recursion as boxed;
use bytes::Bytes;
use futures_util::StreamExt;

use super::core::{Core, Engine};
use super::damage::recheck;
use super::fetch;
use super::lease::{LONGEST_LEASE, Lease, expired};
use super::put::pinned::{PIN_BLOCKS, PinnedPut};
use super::put::writer::mismatch;
use crate::blocking::{self, Task};
use crate::digest::Hasher;
use crate::error::{Code, Error, Result};
use crate::key::{BlobId, BlockKey};
use crate::manifest::{BlobRow, ManifestEntry, PinnedBlock, WriterId};
use crate::report::PutReceipt;

/// Blocks that are read at once to check a blob.
const TOGETHER: usize = 8;

/// Bytes of blocks that [`Session::commit`] has read, or is reading, before it checks them: no more than
/// this, or one block.
pub const COMMIT_AHEAD: u64 = 8 << 20;

/// The chunker that is recorded for a blob which a client cut.
const CUT_BY: &str = "client";

/// The longest and the shortest that a session may live without a call.
const LIFETIMES: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=LONGEST_LEASE;

/// A client's put in pieces; made by [`AsyncStore::open_session`](crate::AsyncStore::open_session).
///
/// Cheap to clone and to drop: dropping ends nothing. Any number of calls may run at once.
#[derive(Clone)]
pub struct Session {
    engine: Arc<Engine>,
    writer: WriterId,
    /// The pending blob that holds the pins.
    pins: BlobRow,
    lifetime: Duration,
    /// The epoch of the database that opened it. In another copy of the database, these rows may be different
    /// ones.
    epoch: u64,
}

/// The outcome of [`Session::commit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionCommit {
    /// The blob is live.
    Committed(PutReceipt),
    /// These blocks are missing or damaged, each named once; nothing was committed. Put them and commit
    /// again.
    Missing(Vec<BlockKey>),
}

/// Opens a session that ends this long after its last call.
#[boxed]
pub(super) async fn open(engine: &Arc<Engine>, lifetime: Duration) -> Result<Session> {
    if !LIFETIMES.contains(&lifetime) {
        let why = format!("a session cannot live for {} s", lifetime.as_secs_f64());
        return Err(Error::new(Code::InvalidArgument, why).with_advice("choose 1 s to 86400 s"));
    }
    engine.prepare_to_write().await?;
    let core = &engine.core;
    let writer = core.latch.watch(core.manifests.register_writer(lifetime).await)?;
    let pins = core.latch.watch(core.manifests.begin(writer, CUT_BY).await)?.ok_or_else(expired)?;
    Ok(Session { engine: Arc::clone(engine), writer, pins, lifetime, epoch: engine.owner.epoch() })
}

/// The session with this token.
pub(super) fn with_token(engine: &Arc<Engine>, token: &str) -> Result<Session> {
    let unknown = || {
        Error::new(Code::InvalidArgument, "this is not the token of a session of this store")
            .with_advice("use the token as it was given, or open a session")
    };
    let (said, code) = token.rsplit_once('.').ok_or_else(unknown)?;
    let code = blake3::Hash::from_hex(code).map_err(|_| unknown())?;
    // The comparison of hashes takes the same time wherever they differ.
    if code != mac(engine, said) {
        return Err(unknown());
    }
    let mut numbers = said.split('.').map(str::parse::<u64>);
    let mut next = || numbers.next().and_then(std::result::Result::ok).ok_or_else(unknown);
    let (writer, pins, lifetime) = (next()?, next()?, next()?);
    // Tokens of older versions have no epoch.
    let epoch = next().unwrap_or(0);
    Ok(Session {
        engine: Arc::clone(engine),
        writer: WriterId(writer as i64),
        pins: BlobRow(pins as i64),
        lifetime: Duration::from_millis(lifetime),
        epoch,
    })
}

/// The authentication code of a token, which only processes that share the database can make, so that nobody
/// can guess a token.
fn mac(engine: &Engine, said: &str) -> blake3::Hash {
    let key = blake3::derive_key("graviton 2026 session token", engine.store_id.as_bytes());
    blake3::keyed_hash(&key, said.as_bytes())
}

impl Session {
    /// The text that names this session to [`AsyncStore::session`](crate::AsyncStore::session): letters,
    /// digits and dots. Keep it secret.
    pub fn token(&self) -> String {
        let said = format!("{}.{}.{}.{}", self.writer.0, self.pins.0, self.lifetime.as_millis(), self.epoch);
        format!("{said}.{}", mac(&self.engine, &said))
    }

    /// The end of the session if no call comes: milliseconds since 1970-01-01 UTC by this host's clock. Its
    /// real end is by the database's clock.
    pub fn expires_at_ms(&self) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (now + self.lifetime).as_millis() as i64
    }

    /// Extends the session. `writer-expired` if it is over.
    #[boxed]
    pub async fn renew(&self) -> Result<()> {
        self.engine.check_owner().await?;
        if self.epoch != self.engine.owner.epoch() {
            // Another process may know a newer epoch.
            self.engine.check_owner_again().await?;
        }
        if self.epoch != self.engine.owner.epoch() {
            return Err(over());
        }
        let core = self.core();
        if core.latch.watch(core.manifests.renew_writer(self.writer, self.lifetime).await)? {
            return Ok(());
        }
        Err(over())
    }

    /// The keys whose blocks are missing, each named once, in their order. All of the keys are pinned:
    /// existing blocks stay.
    #[boxed]
    pub async fn missing(&self, keys: &[BlockKey]) -> Result<Vec<BlockKey>> {
        self.renew().await?;
        let mut put = self.resume();
        let mut missing = Missing::default();
        for keys in keys.chunks(PIN_BLOCKS) {
            let entries: Vec<_> = keys.iter().map(pin_of).collect();
            let pinned = put.pin_missing(&entries).await.map_err(named)?;
            let absent = keys.iter().zip(pinned).filter(|(_, block)| !block.is_usable());
            missing.extend(absent.map(|(key, _)| *key));
        }
        Ok(missing.keys)
    }

    /// How many blocks the session keeps. Takes time in proportion.
    #[boxed]
    pub async fn kept(&self) -> Result<u64> {
        self.core().manifests.references(self.pins).await
    }

    /// Stores a block, durably, and pins it. Bytes that do not have this key are `digest-mismatch`. Returns
    /// whether they were written; false if they already existed.
    #[boxed]
    pub async fn put_block(&self, key: &BlockKey, bytes: Bytes) -> Result<bool> {
        let (key, algo) = (*key, key.algo());
        let (bytes, is) = blocking::run(move || {
            let is = BlockKey::of(algo, &bytes);
            (bytes, is)
        })
        .await?;
        if is.as_ref().ok() != Some(&key) {
            let is = is.map_or_else(|error| error.to_string(), |is| format!("the content is {is}"));
            return Err(Error::new(Code::DigestMismatch, format!("cannot put block {key}: {is}"))
                .with_advice("check where the content came from; nothing was stored"));
        }
        self.renew().await?;
        let mut put = self.resume();
        put.add(&[pin_of(&key)], &[bytes]).await.map_err(named)?;
        put.keep().await.map_err(named)
    }

    /// Makes a blob of existing blocks, after reading all of them: their content must have this id, otherwise
    /// it is `digest-mismatch`. The sizes of the keys must add up to the blob's.
    ///
    /// Takes as long as reading the blob, and memory for [`COMMIT_AHEAD`] or one block, and one block more.
    /// The session continues.
    #[boxed]
    pub async fn commit(&self, keys: &[BlockKey], id: &BlobId) -> Result<SessionCommit> {
        let entries = tiled(keys, id)?;
        self.renew().await?;
        let core = self.core();
        let row = core.latch.watch(core.manifests.begin(self.writer, CUT_BY).await)?.ok_or_else(over)?;
        let mut put = PinnedPut::under(core, &self.lease(), row);
        let mut missing = Missing::default();
        let mut hasher = Hasher::new(id.algo());
        let mut renewed = Instant::now();
        for entries in entries.chunks(PIN_BLOCKS) {
            // All of them are read, so it does not matter whether they look intact.
            let pinned = put.pin(entries).await.map_err(named)?;
            let absent = entries.iter().zip(&pinned).filter(|(_, block)| !block.stored);
            missing.extend(absent.map(|(entry, _)| entry.key));
            if !missing.keys.is_empty() {
                // All missing blocks are reported together, without reading the rest.
                continue;
            }
            // Owned, so that the future is `Send` and can be spawned.
            let blocks = runs(entries, pinned);
            let largest = entries.iter().map(|entry| entry.key.size() as u64).fold(1, u64::max);
            let together = ((COMMIT_AHEAD / largest) as usize).clamp(1, TOGETHER);
            let mut blocks = futures_util::stream::iter(blocks)
                .map(|(key, pinned, times)| {
                    let core = Arc::clone(core);
                    async move {
                        let bytes =
                            Task::spawn(
                                async move { fetch::fetch_verified(&core, key, pinned.located).await },
                            );
                        (key, pinned, times, bytes.join().await)
                    }
                })
                .buffered(together);
            while let Some((key, pinned, times, bytes)) = blocks.next().await {
                match bytes? {
                    Ok(bytes) => {
                        hasher = Task::blocking(move || {
                            for _ in 0..times {
                                hasher.update(&bytes);
                            }
                            hasher
                        })
                        .join()
                        .await?;
                    }
                    Err(error) if matches!(error.code(), Code::MissingBlock | Code::CorruptBlock) => {
                        // The next caller then knows it too.
                        core.latch.watch(recheck(core, pinned.row).await)?;
                        missing.extend([key]);
                    }
                    Err(error) => return Err(error),
                }
                if renewed.elapsed() > self.lifetime / 4 {
                    self.renew().await?;
                    renewed = Instant::now();
                }
            }
        }
        if !missing.keys.is_empty() {
            return Ok(SessionCommit::Missing(missing.keys));
        }
        if hasher.finish() != *id.digest() {
            return Err(mismatch(id, "the blocks together have another digest"));
        }
        Ok(SessionCommit::Committed(put.commit(&self.engine, *id).await.map_err(named)?))
    }

    /// Ends the session: blocks that only it pinned can be collected. A session that is already over is no
    /// error.
    #[boxed]
    pub async fn close(&self) -> Result<()> {
        let core = self.core();
        core.latch.watch(core.manifests.abort(self.pins).await)?;
        core.latch.watch(core.manifests.remove_writer(self.writer).await)
    }

    fn core(&self) -> &Arc<Core> {
        &self.engine.core
    }

    fn lease(&self) -> Arc<Lease> {
        Arc::new(Lease::of(self.writer))
    }

    /// The put that holds the pins, for one call.
    fn resume(&self) -> PinnedPut {
        PinnedPut::resume(self.core(), &self.lease(), self.pins)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("writer", &self.writer).finish_non_exhaustive()
    }
}

/// Keys in the order in which they were found, each once.
#[derive(Default)]
struct Missing {
    keys: Vec<BlockKey>,
    named: std::collections::HashSet<BlockKey>,
}

impl Missing {
    fn extend(&mut self, keys: impl IntoIterator<Item = BlockKey>) {
        for key in keys {
            if self.named.insert(key) {
                self.keys.push(key);
            }
        }
    }
}

/// The blocks in order, each with the number of its repetitions in a row: a block of zeros is read once.
fn runs(entries: &[ManifestEntry], pinned: Vec<PinnedBlock>) -> Vec<(BlockKey, PinnedBlock, usize)> {
    let mut runs: Vec<(BlockKey, PinnedBlock, usize)> = Vec::new();
    for (entry, block) in entries.iter().zip(pinned) {
        match runs.last_mut() {
            Some((key, _, times)) if *key == entry.key => *times += 1,
            _ => runs.push((entry.key, block, 1)),
        }
    }
    runs
}

fn over() -> Error {
    Error::new(Code::WriterExpired, "the session is over, and what it pinned may have been collected")
        .with_advice("open another one and ask again what is missing")
}

/// The error of a put under a session, in the terms of sessions.
fn named(error: Error) -> Error {
    if error.code() == Code::WriterExpired { over() } else { error }
}

/// The pin of a block. Its position among the pins depends only on the key, not on the caller or the number
/// of calls. Two keys that collide there can be made, at the cost of 2^31 hashes; then one of the two is not
/// pinned, and may be missing at the commit.
fn pin_of(key: &BlockKey) -> ManifestEntry {
    let hash = blake3::hash(key.to_string().as_bytes());
    let mut start = [0; 8];
    start.copy_from_slice(&hash.as_bytes()[..8]);
    ManifestEntry { offset: u64::from_le_bytes(start) >> 1, key: *key }
}

/// The blocks one after another, if they are as long as the blob.
fn tiled(keys: &[BlockKey], id: &BlobId) -> Result<Vec<ManifestEntry>> {
    let entries = ManifestEntry::tiling(0, keys.iter().copied());
    let size = entries.last().map_or(0, ManifestEntry::end);
    if size != id.size() {
        let why = format!("cannot put blob {id}: its {} blocks have {size} bytes together", keys.len());
        return Err(
            Error::new(Code::InvalidArgument, why).with_advice("name all blocks of the blob, in order")
        );
    }
    Ok(entries)
}
