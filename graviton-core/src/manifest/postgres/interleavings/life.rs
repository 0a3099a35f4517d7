//! The sequences of operations that sessions run, with real statements and with files in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::PgConnection;

use crate::digest::Algo;
use crate::key::{BlobId, BlockKey};
use crate::manifest::postgres::stepped::{Gate, Stepped};
use crate::manifest::repo::Database;
use crate::manifest::{
    BlobRow, BlockRow, Collection, Commit, Committed, Durability, LookAgain, ManifestEntry, ManifestRepo,
    Mark, Pinned, WriterId,
};

/// A session of its own: a repository over its one connection.
pub(super) struct Session(ManifestRepo);

impl Session {
    pub(super) fn new(connection: PgConnection, gate: Gate) -> Session {
        let stepped = Stepped { connection: tokio::sync::Mutex::new(connection), gate };
        Session(ManifestRepo::new(Database::Stepped(stepped), Durability::Full))
    }

    pub(super) fn gate(&self) -> &Gate {
        let Database::Stepped(stepped) = &self.0.database else { unreachable!("made above") };
        &stepped.gate
    }

    pub(super) fn into_connection(self) -> PgConnection {
        let Database::Stepped(stepped) = self.0.database else { unreachable!("made above") };
        stepped.connection.into_inner()
    }
}

impl std::ops::Deref for Session {
    type Target = ManifestRepo;

    fn deref(&self) -> &ManifestRepo {
        &self.0
    }
}

/// Files of blocks. Each has a number, as a file has an inode.
#[derive(Default)]
pub(super) struct Files {
    pub(super) count: u64,
    pub(super) named: HashMap<BlockKey, u64>,
    /// Files that collections have set aside.
    pub(super) aside: HashMap<u64, BlockKey>,
}

impl Files {
    pub(super) fn write(&mut self, key: BlockKey) -> u64 {
        self.count += 1;
        self.named.insert(key, self.count);
        self.count
    }
}

/// The world that the sessions share.
#[derive(Clone)]
pub(super) struct World {
    pub(super) files: Arc<Mutex<Files>>,
    pub(super) keys: Vec<BlockKey>,
    pub(super) writer: WriterId,
    /// A live blob of the first block, as it was put.
    pub(super) live: (BlobRow, BlobId),
    /// A pending blob that nobody has pinned anything for.
    pub(super) pending: BlobRow,
}

pub(super) fn key(number: u8) -> BlockKey {
    BlockKey::new(Algo::Blake3, Algo::Blake3.digest(&[number]), 10).unwrap()
}

pub(super) fn entries(keys: &[BlockKey]) -> Vec<ManifestEntry> {
    keys.iter().enumerate().map(|(at, key)| ManifestEntry { offset: at as u64 * 10, key: *key }).collect()
}

pub(super) fn id_of(keys: &[BlockKey]) -> BlobId {
    let name: Vec<u8> = keys.iter().flat_map(|key| *key.digest().as_bytes()).collect();
    BlobId::new(Algo::Blake3, Algo::Blake3.digest(&name), keys.len() as u64 * 10).unwrap()
}

impl World {
    pub(super) fn files(&self) -> std::sync::MutexGuard<'_, Files> {
        self.files.lock().unwrap()
    }

    /// Whether a reader finds the block.
    pub(super) fn has(&self, key: &BlockKey) -> bool {
        let files = self.files();
        files.named.contains_key(key) || files.aside.values().any(|aside| aside == key)
    }

    /// All that a put does.
    pub(super) async fn put(&self, session: &Session, keys: &[BlockKey]) -> Option<BlobId> {
        let row = session.begin(self.writer, "fixed:10").await.unwrap()?;
        self.pin_and_commit(session, row, keys).await
    }

    pub(super) async fn pin_and_commit(
        &self,
        session: &Session,
        row: BlobRow,
        keys: &[BlockKey],
    ) -> Option<BlobId> {
        let pinned = loop {
            match session.pin(row, &entries(keys)).await.unwrap() {
                Pinned::Blocks(blocks) => break blocks,
                Pinned::Expired => return None,
                Pinned::Doomed { .. } => {}
            }
        };
        let mut marks = Vec::new();
        for (key, block) in keys.iter().zip(&pinned) {
            if block.stored {
                assert!(self.has(key), "a pinned block that is said to be stored has no bytes");
            } else {
                self.files().write(*key);
                marks.push(Mark::named(block.row));
            }
        }
        let id = id_of(keys);
        let commit = Commit::Pinned { row, id, block_count: keys.len() as u64, marks, packs: Vec::new() };
        let commits: Arc<[Commit]> = [commit].into();
        let outcome = session.commit(commits).await.unwrap();
        match outcome[0] {
            Committed::Created | Committed::Existed => Some(id),
            Committed::Expired => None,
            other => panic!("a pinned blob was {other:?}"),
        }
    }

    /// The short path: bytes first, then one transaction.
    pub(super) async fn put_whole(&self, session: &Session, keys: &[BlockKey]) -> Option<BlobId> {
        let own: HashMap<BlockKey, u64> = keys.iter().map(|key| (*key, self.files().write(*key))).collect();
        let (id, world) = (id_of(keys), self.clone());
        let commit = Commit::Whole {
            id,
            chunker: "fixed:10".into(),
            entries: entries(keys).into(),
            packed: Arc::default(),
            in_place: Box::new(move |key| world.files().named.get(key) == own.get(key)),
        };
        let commits: Arc<[Commit]> = [commit].into();
        let outcome = session.commit(commits).await.unwrap();
        matches!(outcome[0], Committed::Created | Committed::Existed).then_some(id)
    }

    /// Takes the names and the references of everything that is deleted.
    pub(super) async fn reap(&self, session: &Session) {
        session.expire(100).await.unwrap();
        session.discard(Duration::ZERO, 100).await.unwrap();
        let blobs = session.discarded_blobs(BlobRow(0), 100).await.unwrap();
        session.reap(&blobs, 100).await.unwrap();
    }

    /// Dooms everything that it can, and sets its files aside. Each step may be late.
    pub(super) async fn doom_and_set_aside(&self, session: &Session, by: Collection) -> Vec<(u64, BlockKey)> {
        let candidates = session.candidates(BlockRow(0), 100).await.unwrap();
        let rows: Vec<BlockRow> = candidates.iter().map(|(row, _)| *row).collect();
        let doomed = session.doom(by, &rows, Duration::ZERO).await.unwrap().blocks;
        session.gate().pass().await;
        let mut files = self.files();
        let mut asides = Vec::new();
        for (_, key) in doomed {
            // Of one that is not there the row goes all the same.
            let file = files.named.remove(&key);
            if let Some(file) = file {
                files.aside.insert(file, key);
            }
            asides.push((file.unwrap_or_default(), key));
        }
        asides
    }

    pub(super) async fn doom_and_remove(&self, session: &Session, by: i64) {
        let by = Collection(by);
        let asides = self.doom_and_set_aside(session, by).await;
        let keys: Vec<BlockKey> = asides.iter().map(|(_, key)| *key).collect();
        session.gate().pass().await;
        let settled = session.settle(by, &keys, &[]).await.unwrap();
        self.end(session, &asides, &settled.undoomed).await;
    }

    pub(super) async fn tidy(&self, session: &Session) {
        let asides: Vec<(u64, BlockKey)> =
            self.files().aside.iter().map(|(file, key)| (*file, *key)).collect();
        let keys: Vec<BlockKey> = asides.iter().map(|(_, key)| *key).collect();
        let settled = session.settle(Collection(-1), &[], &keys).await.unwrap();
        self.end(session, &asides, &settled.undoomed).await;
    }

    pub(super) async fn end(&self, session: &Session, asides: &[(u64, BlockKey)], undoomed: &[usize]) {
        session.gate().pass().await;
        let mut files = self.files();
        for (place, (file, key)) in asides.iter().enumerate() {
            if files.aside.remove(file).is_some() && undoomed.contains(&place) {
                files.named.insert(*key, *file);
            }
        }
    }

    pub(super) async fn verify(&self, session: &Session) {
        let world = self.clone();
        let look: Arc<LookAgain> = Arc::new(move |key, _| {
            let there = world.has(&key);
            Box::pin(async move { Ok(there) })
        });
        for record in session.blocks(BlockRow(0), 100).await.unwrap() {
            if record.stored && session.recheck(record.row, Arc::clone(&look)).await.unwrap() {
                assert!(!self.has(&record.key), "a good block was marked as bad");
            }
        }
    }
}

/// A session's life.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Life {
    /// Puts the first block, which is there.
    PutSame,
    /// Puts both blocks, of which one is new.
    PutBoth,
    PutWhole,
    /// Pins and commits under the blob that is pending already.
    PinAndCommit,
    Delete,
    Restore,
    /// The lease of the writer is over.
    Expire,
    Collect,
    /// The same, by one that dies when it has set files aside.
    CollectAndDie,
    DoomAndRemove,
    /// Settles what it finds set aside.
    Tidy,
    Verify,
}

use Life::{
    Collect, CollectAndDie, Delete, DoomAndRemove, Expire, PinAndCommit, PutBoth, PutSame, PutWhole, Restore,
    Tidy, Verify,
};

impl Life {
    pub(super) async fn live(self, world: &World, session: &Session) -> Option<BlobId> {
        let same = &world.keys[..1];
        match self {
            PutSame => world.put(session, same).await,
            PutBoth => world.put(session, &world.keys).await,
            PutWhole => world.put_whole(session, &world.keys).await,
            PinAndCommit => world.pin_and_commit(session, world.pending, same).await,
            Delete => {
                session.delete(&world.live.1).await.unwrap();
                None
            }
            Restore => {
                session.restore(&world.live.1).await.unwrap();
                None
            }
            Expire => {
                session.renew_writer(world.writer, Duration::ZERO).await.unwrap();
                session.expire(100).await.unwrap();
                None
            }
            Collect => {
                world.reap(session).await;
                world.doom_and_remove(session, session.gate().session as i64 + 1).await;
                None
            }
            CollectAndDie => {
                world.reap(session).await;
                world.doom_and_set_aside(session, Collection(session.gate().session as i64 + 1)).await;
                None
            }
            DoomAndRemove => {
                world.doom_and_remove(session, session.gate().session as i64 + 1).await;
                None
            }
            Tidy => {
                world.tidy(session).await;
                None
            }
            Verify => {
                world.verify(session).await;
                None
            }
        }
    }
}
