//! A store whose PostgreSQL is cut off or restarted, or has conflicting transactions of others.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::support::cluster::Cluster;
use crate::support::needs_servers;
use crate::support::postgres::TestDatabase;
use crate::support::servers::variable;
use graviton_core::{AsyncStore, Code, Config};
use sqlx::{Connection, Executor};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

fn config(root: &TempDir, url: &str) -> Config {
    let config = Config::for_directory(root.path()).set("GRAVITON_MANIFEST_URL", url).unwrap();
    config.set("GRAVITON_CHUNKER", "fixed:1000").unwrap()
}

async fn open(root: &TempDir, url: &str) -> AsyncStore {
    config(root, url).open_async().await.unwrap()
}

/// Bytes that take the long path: their blocks are pinned in several batches.
fn content(seed: u32) -> Vec<u8> {
    (0..200_000_u32).flat_map(|word| (word.wrapping_mul(seed) ^ seed).to_le_bytes()).collect()
}

async fn assert_reads_back(store: &AsyncStore, id: &graviton_core::BlobId, content: &[u8]) {
    assert_eq!(store.read_range(id, 0..u64::MAX).await.unwrap(), content);
}

/// A user of the server for this test alone, with these rights and settings. Returns the URL of the database
/// with the user's name in it.
async fn with_user(database: &TestDatabase, statements: &str) -> String {
    let name = database.url.rsplit('/').next().unwrap();
    let user = format!("user_of_{name}");
    let statements = statements.replace("{user}", &user).replace("{database}", name);
    let mut connection = sqlx::PgConnection::connect(&database.url).await.unwrap();
    let make = format!("CREATE ROLE {user} LOGIN PASSWORD 'a-password'; {statements}");
    connection.execute(sqlx::raw_sql(&make)).await.unwrap();
    let (_, host) = database.url.split_once('@').unwrap();
    format!("postgres://{user}:a-password@{host}")
}

/// As a careful administrator sets it up: the schema exists, and the user may not create others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_the_user_owns_is_enough() {
    needs_servers!();
    for schema in ["graviton", "another_one"] {
        let database = TestDatabase::create().await;
        let url = with_user(&database, &format!("CREATE SCHEMA {schema} AUTHORIZATION {{user}}")).await;
        let root = tempfile::tempdir().unwrap();
        let config = config(&root, &url).set("GRAVITON_PG_SCHEMA", schema).unwrap();
        let store = config.open_async().await.unwrap();
        let id = store.put(&content(3)[..]).await.unwrap().id;
        assert_reads_back(&store, &id, &content(3)).await;
        store.close().await;
        let without = config.clone().set("GRAVITON_PG_SCHEMA", "not_there").unwrap();
        let refused = without.open_async().await.unwrap_err();
        assert_eq!(refused.code(), Code::Forbidden, "{refused}");
        assert!(refused.advice().unwrap().contains("`not_there`"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_schemas_are_two_stores_and_a_pool_is_as_large_as_it_is_told() {
    needs_servers!();
    let database = TestDatabase::create().await;
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let open = async |root: &TempDir, schema: &str| {
        let config = config(root, &database.url).set("GRAVITON_PG_SCHEMA", schema).unwrap();
        config.set("GRAVITON_PG_CONNECTIONS", "1").unwrap().open_async().await.unwrap()
    };
    let (first, second) = (open(&one, "graviton").await, open(&other, "second").await);
    let puts = (1..=8).map(|seed| {
        let store = first.clone();
        async move { store.put(&content(seed)[..]).await.unwrap().id }
    });
    let ids = futures_util::future::join_all(puts).await;
    assert_eq!(first.connections().most, 1);
    assert_eq!(
        (first.list(None, 100).await.unwrap().len(), second.list(None, 100).await.unwrap().len()),
        (8, 0)
    );
    assert!(second.put(&content(1)[..]).await.unwrap().created);
    assert_reads_back(&first, &ids[0], &content(1)).await;
    for bad in ["", "Graviton", "pg_graviton", "a b", "a;b", "1a"] {
        let config = config(&one, &database.url).set("GRAVITON_PG_SCHEMA", bad).unwrap();
        assert_eq!(config.open_async().await.unwrap_err().code(), Code::Config, "{bad:?}");
    }
    for bad in ["0", "-1", "ten", "100000"] {
        let refused = config(&one, &database.url).set("GRAVITON_PG_CONNECTIONS", bad);
        assert_eq!(refused.err().unwrap().code(), Code::Config, "{bad:?}");
    }
}

/// A user's limit on statements is meant for people at a prompt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_on_statements_keeps_no_step_from_its_end() {
    needs_servers!();
    let database = TestDatabase::create().await;
    let rights =
        "GRANT CREATE ON DATABASE {database} TO {user}; ALTER ROLE {user} SET statement_timeout = '1ms'";
    let url = with_user(&database, rights).await;
    let root = tempfile::tempdir().unwrap();
    let store = open(&root, &url).await;
    let id = store.put(&content(5)[..]).await.unwrap().id;
    store.stats().await.unwrap();
    let verified =
        store.verify(&graviton_core::VerifyOptions::default(), |_| std::ops::ControlFlow::Continue(())).await;
    assert!(verified.unwrap().is_clean());
    store.delete(&id).await.unwrap();
    let options = graviton_core::GcOptions { grace: Some(Duration::ZERO), ..Default::default() };
    let collected = store.gc(&options, |_| std::ops::ControlFlow::Continue(())).await.unwrap();
    assert!(collected.complete && collected.blocks == 800, "{collected:?}");
}

/// The reaction of a relay when the client sends `COMMIT`.
#[derive(Clone, Copy, PartialEq)]
enum Cut {
    /// The connection is lost before the server receives it.
    Before,
    /// The server receives it, and its answer is lost.
    After,
}

/// A relay in front of the server.
struct Relay {
    /// The database through the relay.
    url: String,
    state: Arc<RelayState>,
}

struct RelayState {
    target: String,
    cut: Cut,
    /// The number of commits that are still to be cut.
    cuts: AtomicU32,
    /// How many times the client has sent something after an answer: round trips.
    turns: AtomicU32,
}

impl Relay {
    /// Cuts the connection at the next `cuts` commits of a transaction.
    async fn start(database: &str, cut: Cut, cuts: u32) -> Relay {
        let target = database.rsplit('@').next().unwrap().split('/').next().unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = database.replace(&target, &format!("127.0.0.1:{port}")) + "?sslmode=disable";
        let (cuts, turns) = (AtomicU32::new(cuts), AtomicU32::new(0));
        let state = Arc::new(RelayState { target, cut, cuts, turns });
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, Arc::clone(&shared)));
            }
        });
        Relay { url, state }
    }

    fn turns(&self) -> u32 {
        self.state.turns.swap(0, Ordering::SeqCst)
    }
}

async fn pass(client: TcpStream, state: Arc<RelayState>) {
    let server = TcpStream::connect(&state.target).await.unwrap();
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let (mute, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(true)));
    let (muted, answering) = (Arc::clone(&mute), Arc::clone(&answered));
    let answers = tokio::spawn(async move {
        let mut buffer = vec![0; 65_536];
        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
            if muted.load(Ordering::SeqCst) {
                // The server has committed; nobody receives the answer.
                return;
            }
            answering.store(true, Ordering::SeqCst);
            if to_client.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    });
    let mut buffer = vec![0; 65_536];
    while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
        let sent = &buffer[..count];
        if answered.swap(false, Ordering::SeqCst) {
            state.turns.fetch_add(1, Ordering::SeqCst);
        }
        let commits = sent.windows(7).any(|part| part == b"COMMIT\0");
        let one_less = |cuts: u32| cuts.checked_sub(1);
        if commits && state.cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
            if state.cut == Cut::Before {
                answers.abort();
                return;
            }
            mute.store(true, Ordering::SeqCst);
        }
        if to_server.write_all(sent).await.is_err() {
            return;
        }
        if mute.load(Ordering::SeqCst) {
            let _ = answers.await;
            return;
        }
    }
    answers.abort();
}

/// However the end of a transaction fails, the put tells the truth about the blob.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_found_out() {
    needs_servers!();
    for (cut, times) in [(Cut::After, 1), (Cut::After, 20), (Cut::Before, 1), (Cut::Before, 2)] {
        let database = TestDatabase::create().await;
        let root = tempfile::tempdir().unwrap();
        // The tables are created and the writer is registered without a fault.
        let direct = open(&root, &database.url).await;
        for (size, content) in [("large", content(times)), ("small", b"small".repeat(times as usize))] {
            let relay = Relay::start(&database.url, cut, times).await;
            let store = open(&root, &relay.url).await;
            let put = store.put(&content[..]).await.unwrap();
            assert!(relay.state.cuts.load(Ordering::SeqCst) < times, "nothing was cut");
            // A small blob has no row of its own that could show who made it live.
            assert!(put.created || size == "small" && cut == Cut::After, "{size}");
            assert_reads_back(&direct, &put.id, &content).await;
            let again = direct.put(&content[..]).await.unwrap();
            assert!(!again.created && again.fresh_blocks == 0);
            store.close().await;
        }
        assert_eq!(direct.list(None, 10).await.unwrap().len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_retryable_and_hurts_no_other_call() {
    needs_servers!();
    let database = TestDatabase::create().await;
    let root = tempfile::tempdir().unwrap();
    let store = open(&root, &database.url).await;
    let name = database.url.rsplit('/').next().unwrap().to_owned();
    let killer = tokio::spawn(async move {
        let kill = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{name}' \
             AND pid <> pg_backend_pid() AND application_name = 'graviton'"
        );
        let mut connection = database.connect().await;
        loop {
            connection.execute(sqlx::raw_sql(&kill)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    });
    let mut puts = JoinSet::new();
    for number in 0..30 {
        let store = store.clone();
        puts.spawn(async move {
            let content = content(number % 20);
            (number % 20, store.put(&content[..]).await)
        });
    }
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for (number, result) in puts.join_all().await {
        match result {
            Ok(put) => done.push((number, put.id)),
            Err(error) => {
                assert!(error.is_retryable(), "{error:?}");
                failed.push(number);
            }
        }
    }
    killer.abort();
    let _ = killer.await;
    // The store works again, without being opened again.
    for number in failed {
        done.push((number, store.put(&content(number)[..]).await.unwrap().id));
    }
    for (number, id) in &done {
        assert_reads_back(&store, id, &content(*number)).await;
    }
    assert_eq!(store.list(None, 100).await.unwrap().len(), 20);
}

fn control(what: &str) {
    let command = format!("{} {what}", variable("GRAVITON_TEST_POSTGRES_CONTROL"));
    assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success(), "{command}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_makes_calls_fail_and_then_work_again() {
    needs_servers!();
    let database = TestDatabase::create_on(&variable("GRAVITON_TEST_POSTGRES_FRAGILE")).await;
    let root = tempfile::tempdir().unwrap();
    let store = open(&root, &database.url).await;
    let first = store.put(&content(1)[..]).await.unwrap();
    let mut writer = store.writer().await.unwrap();
    writer.write(&content(2)).await.unwrap();
    control("stop");
    let started = Instant::now();
    let error = store.put(&content(3)[..]).await.unwrap_err();
    assert_eq!(error.code(), Code::BackendUnavailable, "{error:?}");
    assert_eq!(store.stat(&first.id).await.unwrap_err().code(), Code::BackendUnavailable);
    assert_eq!(config(&root, &database.url).open_async().await.unwrap_err().code(), Code::BackendUnavailable);
    assert!(started.elapsed() < Duration::from_secs(30), "a refused connection took {:?}", started.elapsed());
    control("start");
    // A put that was in progress continues: its lease is still good.
    writer.write(&content(4)).await.unwrap();
    let put = writer.finish().await.unwrap();
    assert_reads_back(&store, &put.id, &[content(2), content(4)].concat()).await;
    control("restart");
    assert_reads_back(&store, &first.id, &content(1)).await;
    control("restart");
    store.put(&content(3)[..]).await.unwrap();
    assert_eq!(store.list(None, 10).await.unwrap().len(), 3);
}

/// The database reports a conflict with another transaction, at each writing statement in turn: the step is
/// run again.
#[tokio::test(flavor = "multi_thread")]
async fn conflicts_are_run_again() {
    needs_servers!();
    for (table, event) in [
        ("data_block", "INSERT"),
        ("data_block", "UPDATE"),
        ("blob", "INSERT"),
        ("blob", "UPDATE"),
        ("blob_block", "INSERT"),
        ("writer", "INSERT"),
    ] {
        for code in ["40001", "40P01", "55P03"] {
            let database = TestDatabase::create().await;
            let root = tempfile::tempdir().unwrap();
            let store = open(&root, &database.url).await;
            database
                .sql(&format!(
                    "CREATE SEQUENCE tries;
                     CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                         -- A sequence does not roll back.
                         IF nextval('tries') <= 3 THEN RAISE EXCEPTION 'injected' USING ERRCODE = '{code}'; END IF;
                         RETURN NEW;
                     END $$;
                     CREATE TRIGGER refuse BEFORE {event} ON {table}
                     FOR EACH STATEMENT EXECUTE FUNCTION refuse()"
                ))
                .await;
            for content in [content(5), b"small".to_vec()] {
                let put = store.put(&content[..]).await.unwrap();
                assert_reads_back(&store, &put.id, &content).await;
            }
            let mut connection = database.connect().await;
            let tries: i64 =
                sqlx::query_scalar("SELECT last_value FROM tries").fetch_one(&mut connection).await.unwrap();
            assert!(tries > 3, "{code} was never injected at {event} of {table}");
            store.close().await;
        }
    }
}

/// Many hosts that put the same blobs in different orders.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stores_that_put_the_same_at_once_agree() {
    needs_servers!();
    let database = TestDatabase::create().await;
    let root = tempfile::tempdir().unwrap();
    let mut puts = JoinSet::new();
    for store in 0..4 {
        let store = (store, open(&root, &database.url).await);
        for put in 0..8 {
            let (number, store) = store.clone();
            puts.spawn(async move {
                let which = if number % 2 == 0 { put } else { 7 - put };
                let content = if which % 2 == 0 { content(100 + which) } else { vec![which as u8; 500] };
                let put = store.put(&content[..]).await.unwrap();
                assert_reads_back(&store, &put.id, &content).await;
                u32::from(put.created)
            });
        }
    }
    assert_eq!(puts.join_all().await.into_iter().sum::<u32>(), 8, "each blob is made once");
    let store = open(&root, &database.url).await;
    assert_eq!(store.list(None, 100).await.unwrap().len(), 8);
    let mut connection = database.connect().await;
    let pending: i64 = sqlx::query_scalar("SELECT count(*) FROM blob WHERE state = 0")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(pending, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn round_trips_grow_with_batches_and_not_with_blocks() {
    needs_servers!();
    let database = TestDatabase::create().await;
    let root = tempfile::tempdir().unwrap();
    let relay = Relay::start(&database.url, Cut::Before, 0).await;
    let store = open(&root, &relay.url).await;
    // Statements are prepared and the writer is registered.
    let put = store.put(&content(1)[..]).await.unwrap();
    store.stat(&put.id).await.unwrap();
    relay.turns();
    store.stat(&put.id).await.unwrap();
    assert_eq!(relay.turns(), 1, "a stat is one round trip");
    assert!(store.exists(&put.id).await.unwrap());
    assert_eq!(relay.turns(), 1);
    let ten = store.read_range(&put.id, 5_000..5_010).await.unwrap();
    assert_eq!((&ten[..], relay.turns()), (&content(1)[5_000..5_010], 1), "a small range too");

    store.put(&content(2)[..]).await.unwrap();
    let one = relay.turns();
    let four = [content(3), content(4), content(5), content(6)].concat();
    store.put(&four[..]).await.unwrap();
    let four = relay.turns();
    // 800 blocks are at most four pins and as many marks, with ten round trips together.
    assert!(four - one <= 3 * 4 * 10, "800 blocks cost {one} round trips, 3,200 cost {four}");
}

/// More stores at once than the server has connections: each waits for its turn, as calls within one store
/// do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_connections_is_waited_for() {
    needs_servers!();
    let mut cluster = Cluster::new();
    let mut owner = sqlx::PgConnection::connect(&format!("{}/postgres", cluster.url())).await.unwrap();
    for sql in ["ALTER SYSTEM SET max_connections = 12", "CREATE DATABASE few"] {
        owner.execute(sql).await.unwrap();
    }
    drop(owner);
    cluster.crash();
    let root = tempfile::tempdir().unwrap();
    let url = format!("{}/few", cluster.url());
    open(&root, &url).await.close().await;
    let mut puts = JoinSet::new();
    for seed in 0..24_u32 {
        let config = config(&root, &url);
        puts.spawn(async move {
            let store = config.open_async().await?;
            let put = store.put(&content(seed)[..100_000]).await?;
            store.close().await;
            Ok::<_, graviton_core::Error>((seed, put.id))
        });
    }
    let put: Vec<_> = puts.join_all().await.into_iter().collect::<Result<_, _>>().unwrap();
    let store = open(&root, &url).await;
    for (seed, id) in put {
        assert_reads_back(&store, &id, &content(seed)[..100_000]).await;
    }
}
