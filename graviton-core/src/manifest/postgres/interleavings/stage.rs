//! The environment in which lives run: one database, and a connection for each session.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::{ConnectOptions, Executor, PgConnection};
use tokio::sync::{mpsc, oneshot};

use super::life::{Files, Life, Session, World, entries, id_of, key};
use crate::key::{BlobId, BlockKey};
use crate::manifest::postgres::PostgresAddress;
use crate::manifest::postgres::stepped::Gate;
use crate::manifest::{BlockRow, Commit, Committed, Durability, ManifestRepo, Mark, Opening, Pinned};

/// One database, used again for every schedule.
pub(super) struct Stage {
    pub(super) address: PostgresAddress,
    pub(super) repo: ManifestRepo,
    pub(super) own: PgConnection,
    pub(super) sessions: Vec<Option<PgConnection>>,
}

impl Stage {
    pub(super) async fn new(sessions: usize) -> Stage {
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
    pub(super) async fn set(&mut self, deleted: bool) -> World {
        let truncate = "TRUNCATE writer, data_block, blob, blob_block, pack, hole";
        Executor::execute(&mut self.own, truncate).await.unwrap();
        let keys = vec![key(1), key(2)];
        let repo = &self.repo;
        let writer = repo.register_writer(Duration::from_secs(3_600)).await.unwrap();
        let row = repo.begin(writer, "fixed:10").await.unwrap().unwrap();
        let Pinned::Blocks(blocks) = repo.pin(row, &entries(&keys[..1])).await.unwrap() else { panic!() };
        let id = id_of(&keys[..1]);
        let marks = vec![Mark::named(blocks[0].row)];
        let commit = Commit::Pinned { row, id, block_count: 1, marks, packs: Vec::new() };
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
    pub(super) async fn waits(&mut self, process: i32) -> bool {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'";
        sqlx::query_scalar::<_, i64>(waits).bind(process).fetch_one(&mut self.own).await.unwrap() > 0
    }

    /// Runs the lives; `choose` says which of these sessions goes on. Returns what was committed.
    pub(super) async fn play(
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
    pub(super) async fn check(&mut self, world: &World, committed: &[BlobId], about: &str) {
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
