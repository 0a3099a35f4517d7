//! The real statements of the protocol in every order, on a real server.
//!
//! Each session runs its operations on a connection of its own that stops before every statement; a schedule
//! says whose turn it is. A session whose statement waits for a lock loses its turn until the lock is free.
//! Of two transactions all schedules are run; of whole lives of writers and collectors all in which one of
//! them is held up once, and some random ones (`GRAVITON_SCHEDULES` of each).
//!
//! After each schedule the property of the protocol has to hold: whoever committed has its blocks' rows and
//! bytes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::{ConnectOptions, Executor, PgConnection};
use tokio::sync::{mpsc, oneshot};

#[path = "../../../../tests/left_out.rs"]
mod left_out;

use super::PostgresAddress;
use super::stepped::{Gate, Stepped};
use crate::digest::Algo;
use crate::key::{BlobId, BlockKey};
use crate::manifest::repo::Database;
use crate::manifest::{
    BlobRow, BlockRow, Collection, Commit, Committed, Durability, LookAgain, ManifestEntry, ManifestRepo,
    Opening, Pinned, WriterId,
};

/// A session of its own: a repository over its one connection.
struct Session(ManifestRepo);

impl Session {
    fn new(connection: PgConnection, gate: Gate) -> Session {
        let stepped = Stepped { connection: tokio::sync::Mutex::new(connection), gate };
        Session(ManifestRepo::new(Database::Stepped(stepped), Durability::Full))
    }

    fn gate(&self) -> &Gate {
        let Database::Stepped(stepped) = &self.0.database else { unreachable!("made above") };
        &stepped.gate
    }

    fn into_connection(self) -> PgConnection {
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
struct Files {
    count: u64,
    named: HashMap<BlockKey, u64>,
    /// Files that collections have set aside.
    aside: HashMap<u64, BlockKey>,
}

impl Files {
    fn write(&mut self, key: BlockKey) -> u64 {
        self.count += 1;
        self.named.insert(key, self.count);
        self.count
    }
}

/// The world that the sessions share.
#[derive(Clone)]
struct World {
    files: Arc<Mutex<Files>>,
    keys: Vec<BlockKey>,
    writer: WriterId,
    /// A live blob of the first block, as it was put.
    live: (BlobRow, BlobId),
    /// A pending blob that nobody has pinned anything for.
    pending: BlobRow,
}

fn key(number: u8) -> BlockKey {
    BlockKey::new(Algo::Blake3, Algo::Blake3.digest(&[number]), 10).unwrap()
}

fn entries(keys: &[BlockKey]) -> Vec<ManifestEntry> {
    keys.iter().enumerate().map(|(at, key)| ManifestEntry { offset: at as u64 * 10, key: *key }).collect()
}

fn id_of(keys: &[BlockKey]) -> BlobId {
    let name: Vec<u8> = keys.iter().flat_map(|key| *key.digest().as_bytes()).collect();
    BlobId::new(Algo::Blake3, Algo::Blake3.digest(&name), keys.len() as u64 * 10).unwrap()
}

impl World {
    fn files(&self) -> std::sync::MutexGuard<'_, Files> {
        self.files.lock().unwrap()
    }

    /// Whether a reader finds the block.
    fn has(&self, key: &BlockKey) -> bool {
        let files = self.files();
        files.named.contains_key(key) || files.aside.values().any(|aside| aside == key)
    }

    /// What a put does, all of it.
    async fn put(&self, session: &Session, keys: &[BlockKey]) -> Option<BlobId> {
        let row = session.begin(self.writer, "fixed:10").await.unwrap()?;
        self.pin_and_commit(session, row, keys).await
    }

    async fn pin_and_commit(&self, session: &Session, row: BlobRow, keys: &[BlockKey]) -> Option<BlobId> {
        let pinned = loop {
            match session.pin(row, &entries(keys)).await.unwrap() {
                Pinned::Blocks(blocks) => break blocks,
                Pinned::Expired => return None,
                Pinned::Doomed { .. } => {}
            }
        };
        let mut stored = Vec::new();
        for (key, block) in keys.iter().zip(&pinned) {
            if block.stored {
                assert!(self.has(key), "a pinned block that is said to be stored has no bytes");
            } else {
                self.files().write(*key);
                stored.push(block.row);
            }
        }
        let id = id_of(keys);
        let commit = Commit::Pinned { row, id, block_count: keys.len() as u64, stored };
        let commits: Arc<[Commit]> = [commit].into();
        let outcome = session.commit(commits).await.unwrap();
        match outcome[0] {
            Committed::Created | Committed::Existed => Some(id),
            Committed::Expired => None,
            other => panic!("a pinned blob was {other:?}"),
        }
    }

    /// The short path: bytes first, then one transaction.
    async fn put_whole(&self, session: &Session, keys: &[BlockKey]) -> Option<BlobId> {
        let own: HashMap<BlockKey, u64> = keys.iter().map(|key| (*key, self.files().write(*key))).collect();
        let (id, world) = (id_of(keys), self.clone());
        let commit = Commit::Whole {
            id,
            chunker: "fixed:10".into(),
            entries: entries(keys).into(),
            in_place: Box::new(move |key| world.files().named.get(key) == own.get(key)),
        };
        let commits: Arc<[Commit]> = [commit].into();
        let outcome = session.commit(commits).await.unwrap();
        matches!(outcome[0], Committed::Created | Committed::Existed).then_some(id)
    }

    /// Takes the names and the references of everything that is deleted.
    async fn reap(&self, session: &Session) {
        session.expire(100).await.unwrap();
        session.take_names(Duration::ZERO, 100).await.unwrap();
        let blobs = session.nameless(BlobRow(0), 100).await.unwrap();
        session.reap(&blobs, 100).await.unwrap();
    }

    /// Dooms everything that it can, and sets its files aside. Each step may be late.
    async fn doom_and_set_aside(&self, session: &Session, by: Collection) -> Vec<(u64, BlockKey)> {
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

    async fn doom_and_remove(&self, session: &Session, by: i64) {
        let by = Collection(by);
        let asides = self.doom_and_set_aside(session, by).await;
        let keys: Vec<BlockKey> = asides.iter().map(|(_, key)| *key).collect();
        session.gate().pass().await;
        let settled = session.settle(by, &keys, &[]).await.unwrap();
        self.end(session, &asides, &settled.undoomed).await;
    }

    async fn tidy(&self, session: &Session) {
        let asides: Vec<(u64, BlockKey)> =
            self.files().aside.iter().map(|(file, key)| (*file, *key)).collect();
        let keys: Vec<BlockKey> = asides.iter().map(|(_, key)| *key).collect();
        let settled = session.settle(Collection(-1), &[], &keys).await.unwrap();
        self.end(session, &asides, &settled.undoomed).await;
    }

    async fn end(&self, session: &Session, asides: &[(u64, BlockKey)], undoomed: &[usize]) {
        session.gate().pass().await;
        let mut files = self.files();
        for (place, (file, key)) in asides.iter().enumerate() {
            if files.aside.remove(file).is_some() && undoomed.contains(&place) {
                files.named.insert(*key, *file);
            }
        }
    }

    async fn verify(&self, session: &Session) {
        let world = self.clone();
        let look: Arc<LookAgain> = Arc::new(move |key| {
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
enum Life {
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
    async fn live(self, world: &World, session: &Session) -> Option<BlobId> {
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

/// One database, used again for every schedule.
struct Stage {
    address: PostgresAddress,
    repo: ManifestRepo,
    own: PgConnection,
    sessions: Vec<Option<PgConnection>>,
}

impl Stage {
    async fn new(sessions: usize) -> Stage {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let server = std::env::var("GRAVITON_TEST_POSTGRES")
            .expect("GRAVITON_TEST_POSTGRES is not set: run this through tests/servers");
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("interleavings_{}_{number}", std::process::id());
        let parse = |name: &str| {
            let url = format!("{server}/{name}");
            PostgresAddress::parse("GRAVITON_MANIFEST_URL", &url, None, None).unwrap()
        };
        let mut admin = parse("postgres").options().connect().await.unwrap();
        let create = format!("CREATE DATABASE {name}");
        Executor::execute(&mut admin, sqlx::raw_sql(&create)).await.unwrap();
        let address = parse(&name);
        let repo = ManifestRepo::open_postgres(&address, Durability::Full, Opening::Create).await.unwrap();
        let mut own = address.options().connect().await.unwrap();
        Executor::execute(&mut own, "SET synchronous_commit = off").await.unwrap();
        let mut stage = Stage { address, repo, own, sessions: Vec::new() };
        for _ in 0..sessions {
            let mut connection = stage.address.options().connect().await.unwrap();
            let settings = "SET synchronous_commit = off; SET deadlock_timeout = '20ms'";
            Executor::execute(&mut connection, sqlx::raw_sql(settings)).await.unwrap();
            stage.sessions.push(Some(connection));
        }
        stage
    }

    /// A live blob of the first block, deleted or not, and a pending one.
    async fn set(&mut self, deleted: bool) -> World {
        let truncate = "TRUNCATE writer, block, blob, blob_block";
        Executor::execute(&mut self.own, truncate).await.unwrap();
        let keys = vec![key(1), key(2)];
        let repo = &self.repo;
        let writer = repo.register_writer(Duration::from_secs(3_600)).await.unwrap();
        let row = repo.begin(writer, "fixed:10").await.unwrap().unwrap();
        let Pinned::Blocks(blocks) = repo.pin(row, &entries(&keys[..1])).await.unwrap() else { panic!() };
        let id = id_of(&keys[..1]);
        let commit = Commit::Pinned { row, id, block_count: 1, stored: vec![blocks[0].row] };
        assert_eq!(repo.commit([commit].into()).await.unwrap(), [Committed::Created]);
        if deleted {
            assert!(repo.delete(&id).await.unwrap());
        }
        let pending = repo.begin(writer, "fixed:10").await.unwrap().unwrap();
        let mut files = Files::default();
        files.write(keys[0]);
        World { files: Arc::new(Mutex::new(files)), keys, writer, live: (row, id), pending }
    }

    /// Whether the session's server process waits for a lock.
    async fn waits(&mut self, process: i32) -> bool {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'";
        sqlx::query_scalar::<_, i64>(waits).bind(process).fetch_one(&mut self.own).await.unwrap() > 0
    }

    /// Runs the lives; `choose` says which of these sessions goes on. Returns what was committed.
    async fn play(
        &mut self,
        world: &World,
        lives: &[Life],
        mut choose: impl FnMut(&[usize]) -> usize,
    ) -> Vec<BlobId> {
        let (asks, mut asked) = mpsc::unbounded_channel();
        let mut running = tokio::task::JoinSet::new();
        let mut processes = Vec::new();
        for (session, life) in lives.iter().enumerate() {
            let mut connection = self.sessions[session].take().unwrap();
            let process: i32 =
                sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection).await.unwrap();
            processes.push(process);
            let (life, world, asks) = (*life, world.clone(), asks.clone());
            running.spawn(async move {
                let stepped = Session::new(connection, Gate { asks, session });
                let id = life.live(&world, &stepped).await;
                (session, stepped.into_connection(), id)
            });
        }
        drop(asks);
        // Sessions that ask for leave; the others run or wait for a lock.
        let mut ready: BTreeMap<usize, oneshot::Sender<()>> = BTreeMap::new();
        let mut busy: HashSet<usize> = (0..lives.len()).collect();
        let mut committed = Vec::new();
        loop {
            // Until every session asks, has ended, or waits for a lock.
            loop {
                let moved = tokio::time::timeout(Duration::from_millis(3), async {
                    tokio::select! {
                        biased;
                        Some((session, leave)) = asked.recv() => {
                            ready.insert(session, leave);
                            busy.remove(&session);
                        }
                        Some(ended) = running.join_next() => {
                            let (session, connection, id) = ended.unwrap();
                            self.sessions[session] = Some(connection);
                            busy.remove(&session);
                            committed.extend(id);
                        }
                    }
                });
                let moved = moved.await.is_ok();
                if busy.is_empty() {
                    break;
                }
                if !moved {
                    let mut all_wait = !ready.is_empty();
                    for session in busy.clone() {
                        all_wait &= self.waits(processes[session]).await;
                    }
                    if all_wait {
                        break;
                    }
                }
            }
            let turns: Vec<usize> = ready.keys().copied().collect();
            if turns.is_empty() {
                return committed;
            }
            let next = choose(&turns);
            busy.insert(next);
            let _ = ready.remove(&next).unwrap().send(());
        }
    }

    /// The property, and that nothing dead is left after one more collection.
    async fn check(&mut self, world: &World, committed: &[BlobId], about: &str) {
        let live = self.repo.list(None, 100).await.unwrap();
        for record in &live {
            let entries = self.repo.entries(record.row, 0, 100).await.unwrap();
            assert_eq!(entries.len() as u64, record.block_count, "{about}: a live blob lost references");
            let keys: Vec<BlockKey> = entries.iter().map(|entry| entry.key).collect();
            let stored = self.repo.known(&[], &keys).await.unwrap().stored;
            assert!(stored.iter().all(|stored| *stored == Some(true)), "{about}: {stored:?}");
            assert!(keys.iter().all(|key| world.has(key)), "{about}: a live blob lost bytes");
        }
        let deletes = about.contains("Delete");
        for id in committed {
            let found = live.iter().any(|record| record.id == *id);
            assert!(found || (deletes && *id == world.live.1), "{about}: a committed blob is not live");
        }
        // The writers are gone.
        let later = "UPDATE writer SET expires_at = 0";
        Executor::execute(&mut self.own, sqlx::raw_sql(later)).await.unwrap();
        let session = self.sessions[0].take().unwrap();
        let (asks, mut asked) = mpsc::unbounded_channel::<(usize, oneshot::Sender<()>)>();
        let free = tokio::spawn(async move {
            while let Some((_, leave)) = asked.recv().await {
                let _ = leave.send(());
            }
        });
        let stepped = Session::new(session, Gate { asks, session: 9 });
        world.reap(&stepped).await;
        world.tidy(&stepped).await;
        world.doom_and_remove(&stepped, 99).await;
        self.sessions[0] = Some(stepped.into_connection());
        free.await.unwrap();
        let mut referenced = HashSet::new();
        for record in &live {
            let entries = self.repo.entries(record.row, 0, 100).await.unwrap();
            referenced.extend(entries.iter().map(|entry| entry.key));
        }
        let rows = self.repo.blocks(BlockRow(0), 100).await.unwrap();
        assert_eq!(
            rows.iter().map(|row| row.key).collect::<HashSet<_>>(),
            referenced,
            "{about}: garbage rows"
        );
        assert!(world.files().aside.is_empty(), "{about}: something stays aside");
        // The short path may leave bytes without a row, which a verification adopts.
        if !about.contains("PutWhole") {
            let named: HashSet<BlockKey> = world.files().named.keys().copied().collect();
            assert_eq!(named, referenced, "{about}: garbage bytes");
        }
    }
}

/// All schedules of two lives, depth first: the choices of the last one are changed from the end.
async fn all_schedules(lives: [Life; 2], deleted: bool, most: usize) -> usize {
    let mut stage = Stage::new(2).await;
    // For each turn: which of how many was chosen.
    let mut path: Vec<(usize, usize)> = Vec::new();
    for count in 1.. {
        let world = stage.set(deleted).await;
        let mut turn = 0;
        let committed = stage
            .play(&world, &lives, |turns| {
                if turn == path.len() {
                    path.push((0, turns.len()));
                }
                // A lock that was waited for a little longer or shorter may change who is ready.
                path[turn].1 = turns.len();
                let chosen = path[turn].0.min(turns.len() - 1);
                turn += 1;
                turns[chosen]
            })
            .await;
        path.truncate(turn);
        stage.check(&world, &committed, &format!("{lives:?} deleted={deleted} {path:?}")).await;
        while path.last().is_some_and(|(chosen, of)| chosen + 1 >= *of) {
            path.pop();
        }
        let Some(last) = path.last_mut() else { return count };
        last.0 += 1;
        if count == most {
            return count;
        }
    }
    unreachable!("every path ends")
}

/// Every schedule in which one session is held up once, anywhere, while the others do all they want to.
async fn all_pauses(lives: &[Life], deleted: bool) {
    let mut stage = Stage::new(lives.len()).await;
    for paused in 0..lives.len() {
        for at in 0.. {
            let world = stage.set(deleted).await;
            let (mut done, mut others) = (0, 0);
            let committed = stage
                .play(&world, lives, |turns| {
                    let other = turns.iter().copied().find(|session| *session != paused);
                    // Some wait for the one that is held up: for its doom to end.
                    let held_up = done == at && others < 60;
                    match other {
                        Some(other) if held_up || !turns.contains(&paused) => {
                            others += 1;
                            other
                        }
                        _ => {
                            done += 1;
                            paused
                        }
                    }
                })
                .await;
            stage
                .check(&world, &committed, &format!("{lives:?} deleted={deleted}, {paused} held up at {at}"))
                .await;
            if done < at {
                break;
            }
        }
    }
}

/// A number of random schedules of these lives.
async fn random_schedules(lives: &[Life], deleted: bool, count: u64, seed: u64) {
    let mut stage = Stage::new(lives.len()).await;
    for run in 0..count {
        let world = stage.set(deleted).await;
        let mut random = seed ^ (run + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let committed = stage
            .play(&world, lives, |turns| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                turns[random as usize % turns.len()]
            })
            .await;
        stage
            .check(&world, &committed, &format!("{lives:?} deleted={deleted} run {run} of seed {seed}"))
            .await;
    }
}

/// Whether the servers run. If not, says that `test` is left out.
fn are_servers_there(test: &str) -> bool {
    let there = std::env::var_os("GRAVITON_TEST_POSTGRES").is_some();
    if !there {
        left_out::leave_out(test, "no servers run; start the tests through tests/servers");
    }
    there
}

fn schedules() -> u64 {
    std::env::var("GRAVITON_SCHEDULES").ok().and_then(|count| count.parse().ok()).unwrap_or(5)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_order_of_two_short_lives() {
    if !are_servers_there("every_order_of_two_short_lives") {
        return;
    }
    let most = schedules() as usize * 10;
    let mut total = 0;
    for (lives, deleted) in [
        ([PinAndCommit, Delete], false),
        ([PinAndCommit, Expire], false),
        ([Restore, Delete], true),
        ([Restore, PutWhole], true),
        ([PinAndCommit, Verify], false),
    ] {
        total += all_schedules(lives, deleted, most).await;
    }
    println!("{total} schedules");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_orders_of_whole_lives() {
    if !are_servers_there("random_orders_of_whole_lives") {
        return;
    }
    for (number, (lives, deleted)) in [
        (vec![PutSame, Collect], true),
        (vec![PutBoth, DoomAndRemove], true),
        (vec![Collect, Collect], true),
        (vec![Restore, Collect], true),
        (vec![PutWhole, Collect], true),
        (vec![Expire, PinAndCommit, Collect], true),
        (vec![PutSame, Collect, Collect], true),
        (vec![PutSame, Delete, Collect], false),
        (vec![PutBoth, PutSame, Collect], true),
        (vec![PutWhole, PutBoth, Collect], true),
        (vec![PutSame, CollectAndDie], true),
        (vec![PutBoth, CollectAndDie, Collect], true),
        (vec![PutWhole, CollectAndDie, Tidy], true),
        (vec![PutSame, CollectAndDie, Tidy], true),
        (vec![PutWhole, Collect, Tidy], true),
        (vec![PutSame, Restore, Collect], true),
        (vec![PutBoth, Verify, Collect], true),
    ]
    .into_iter()
    .enumerate()
    {
        all_pauses(&lives, deleted).await;
        random_schedules(&lives, deleted, schedules(), number as u64 + 1).await;
    }
}
