//! A store through pgbouncer: it works, or opening it says why not, and nothing is lost.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use graviton_core::{AsyncStore, Code, Config, Error};
use sqlx::{ConnectOptions, Executor, PgConnection, Row};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::support::cluster::Cluster;
use crate::support::needs_servers;
use crate::support::postgres::TestDatabase;
use crate::support::servers::variable;

/// A pgbouncer of its own, ended with it.
struct Pooler {
    process: Child,
    directory: TempDir,
    url: String,
}

impl Pooler {
    /// In front of the test's server, with these settings.
    async fn start(database: &TestDatabase, settings: &str) -> Pooler {
        let server = variable("GRAVITON_TEST_POSTGRES");
        Pooler::before(&server, database.url.rsplit('/').next().unwrap(), settings).await
    }

    /// In front of this server; its URL names this database.
    async fn before(server: &str, name: &str, settings: &str) -> Pooler {
        let server: url::Url = server.parse().unwrap();
        let password = server.password().map_or(String::new(), |password| format!(" password={password}"));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={} user={}{password}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
             default_pool_size = 3\n{settings}\n",
            server.port().unwrap(),
            server.username(),
        );
        std::fs::write(&path, text).unwrap();
        let mut command = Command::new("pgbouncer");
        command.env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default())).arg("-q");
        if rustix::process::geteuid().is_root() {
            // It does not run as root.
            let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(directory.path(), open).unwrap();
            command.args(["-u", "postgres"]);
        }
        let process = command.arg(&path).stderr(Stdio::null()).spawn().expect("pgbouncer, from Debian");
        let url = format!("postgres://anybody@127.0.0.1:{port}/{name}");
        let started = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(20), "pgbouncer does not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Pooler { process, directory, url }
    }
}

impl Pooler {
    /// From now on it hands sessions on between transactions.
    fn share_sessions(&self) {
        let path = self.directory.path().join("pgbouncer.ini");
        let text =
            std::fs::read_to_string(&path).unwrap().replace("pool_mode = session", "pool_mode = transaction");
        std::fs::write(&path, text).unwrap();
        let process = rustix::process::Pid::from_raw(self.process.id() as i32).unwrap();
        rustix::process::kill_process(process, rustix::process::Signal::HUP).unwrap();
        std::thread::sleep(Duration::from_millis(500));
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn open(root: &TempDir, url: &str) -> Result<AsyncStore, Error> {
    Config::for_directory(root.path()).set("GRAVITON_MANIFEST_URL", url).unwrap().open_async().await
}

async fn tables(database: &TestDatabase) -> Vec<String> {
    let mut connection: PgConnection = database.connect().await;
    let tables = "SELECT schemaname || '.' || tablename FROM pg_tables \
        WHERE schemaname NOT IN ('pg_catalog', 'information_schema')";
    let rows = connection.fetch_all(tables).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Sets for everybody what our sessions set for themselves.
async fn prepare(database: &TestDatabase) {
    let name = database.url.rsplit('/').next().unwrap();
    let settings = format!(
        "ALTER DATABASE {name} SET search_path = graviton; ALTER DATABASE {name} SET synchronous_commit = on"
    );
    database.sql(&settings).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_keeps_our_settings_from_the_server_is_refused() {
    needs_servers!();
    for mode in ["session", "transaction"] {
        // As it is by default, and told to ignore what it does not know.
        for (ignored, named) in
            [("", "startup parameter"), ("ignore_startup_parameters = options", "session")]
        {
            let database = TestDatabase::create().await;
            let pooler = Pooler::start(&database, &format!("pool_mode = {mode}\n{ignored}")).await;
            let root = tempfile::tempdir().unwrap();
            let refused = open(&root, &pooler.url).await.unwrap_err();
            assert_eq!(refused.code(), Code::Config, "{refused}");
            let text = refused.to_string();
            assert!(text.contains("pooler") && text.contains(named), "{text}");
            assert!(refused.advice().is_some_and(|advice| advice.contains("ALTER DATABASE")), "{refused:?}");
            assert_eq!(tables(&database).await, [""; 0], "something was made");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_settings_of_the_advice_a_pooler_of_sessions_works() {
    needs_servers!();
    let database = TestDatabase::create().await;
    prepare(&database).await;
    // More sessions than the store has.
    let settings = "pool_mode = session\nignore_startup_parameters = options\ndefault_pool_size = 30";
    let pooler = Pooler::start(&database, settings).await;
    let root = tempfile::tempdir().unwrap();
    let store = open(&root, &pooler.url).await.unwrap();
    let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let put = store.put(&content[..]).await.unwrap();
    assert_eq!(store.read_range(&put.id, 0..u64::MAX).await.unwrap(), content);
    wait_for_a_lock_ends(&store, &database).await;
    store.close().await;
    // The tables are where a direct connection looks for them.
    let store = open(&root, &database.url).await.unwrap();
    assert_eq!(store.read_range(&put.id, 0..u64::MAX).await.unwrap(), content);
    assert!(tables(&database).await.iter().all(|table| table.starts_with("graviton.")));
}

/// Nobody waits for a lock for ever, as without a pooler: the wait ends, and the step begins again.
/// More stores at once than the pooler takes clients: each waits for its turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_without_connections_is_waited_for() {
    needs_servers!();
    let database = TestDatabase::create().await;
    prepare(&database).await;
    let settings = "pool_mode = session\nignore_startup_parameters = options\nmax_client_conn = 3";
    let pooler = Pooler::start(&database, settings).await;
    let root = tempfile::tempdir().unwrap();
    open(&root, &pooler.url).await.unwrap().close().await;
    let mut puts = JoinSet::new();
    for seed in 0..12_u32 {
        let config = Config::for_directory(root.path()).set("GRAVITON_MANIFEST_URL", &pooler.url).unwrap();
        puts.spawn(async move {
            let store = config.open_async().await?;
            let put = store.put(&seed.to_le_bytes().repeat(20_000)[..]).await?;
            store.close().await;
            Ok::<_, Error>((seed, put.id))
        });
    }
    let put: Vec<_> = puts.join_all().await.into_iter().collect::<Result<_, _>>().unwrap();
    let store = open(&root, &pooler.url).await.unwrap();
    for (seed, id) in put {
        let content = store.read_range(&id, 0..u64::MAX).await.unwrap();
        assert_eq!(content, seed.to_le_bytes().repeat(20_000));
    }
    store.close().await;
}

async fn wait_for_a_lock_ends(store: &AsyncStore, database: &TestDatabase) {
    let mut holder: PgConnection = database.connect().await;
    holder.execute("BEGIN; LOCK TABLE graviton.blob IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let putting = store.clone();
    let put = tokio::spawn(async move { putting.put(&b"that waits for the table"[..]).await });
    let mut looking: PgConnection = database.connect().await;
    let mut waits = Vec::new();
    let started = Instant::now();
    while waits.len() < 2 {
        assert!(started.elapsed() < Duration::from_secs(60), "one wait goes on: {waits:?}");
        let waiting = "SELECT query_start::text FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
            AND datname = current_database()";
        for row in looking.fetch_all(waiting).await.unwrap() {
            let since: String = row.get(0);
            if !waits.contains(&since) {
                waits.push(since);
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    holder.execute("ROLLBACK").await.unwrap();
    put.await.unwrap().unwrap();
}

/// With the settings of the advice too, and before anything is made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_hands_sessions_on_is_refused_when_the_store_is_opened() {
    needs_servers!();
    for mode in ["transaction", "statement"] {
        let database = TestDatabase::create().await;
        prepare(&database).await;
        let settings = format!("pool_mode = {mode}\nignore_startup_parameters = options");
        let pooler = Pooler::start(&database, &settings).await;
        let root = tempfile::tempdir().unwrap();
        for made in [false, true] {
            if made {
                let direct = open(&root, &database.url).await.unwrap();
                direct.put(&b"the tables are there"[..]).await.unwrap();
            }
            let refused = open(&root, &pooler.url).await.unwrap_err();
            assert_eq!(refused.code(), Code::Config, "{refused}");
            assert!(refused.to_string().contains("pooler"), "{refused}");
            assert!(refused.advice().is_some_and(|advice| advice.contains("session mode")), "{refused:?}");
            assert!(made || tables(&database).await.is_empty(), "something was made");
        }
    }
}

/// Another client of the pooler has told the session that its commits need not be durable, and then the
/// database crashes: acknowledged blobs are there all the same, and that client's last commit is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_of_the_database_behind_a_pooler_loses_nothing() {
    needs_servers!();
    let mut cluster = Cluster::new();
    let direct_url = format!("{}/store", cluster.url());
    let postgres: sqlx::postgres::PgConnectOptions = format!("{}/postgres", cluster.url()).parse().unwrap();
    let mut owner = postgres.connect().await.unwrap();
    // A commit that does not sync is not synced for ten seconds.
    for sql in [
        "ALTER SYSTEM SET wal_writer_delay = '10s'",
        "SELECT pg_reload_conf()",
        "CREATE DATABASE store",
        "ALTER DATABASE store SET search_path = graviton",
        "ALTER DATABASE store SET synchronous_commit = on",
    ] {
        owner.execute(sql).await.unwrap();
    }
    drop(owner);
    let root = tempfile::tempdir().unwrap();
    let direct = open(&root, &direct_url).await.unwrap();
    direct.put(&b"the tables are there"[..]).await.unwrap();
    let deleted = direct.put(&b"that is deleted"[..]).await.unwrap().id;
    direct.close().await;

    // All clients share one session, from when the store is open.
    let settings = "pool_mode = session\nignore_startup_parameters = options\ndefault_pool_size = 1";
    let pooler = Pooler::before(&cluster.url(), "store", settings).await;
    let store = open(&root, &pooler.url).await.unwrap();
    pooler.share_sessions();
    store.put(&b"that gives the session back"[..]).await.unwrap();
    let other: sqlx::postgres::PgConnectOptions = pooler.url.parse().unwrap();
    let mut other = other.statement_cache_capacity(0).extra_float_digits(None).connect().await.unwrap();
    other.execute("CREATE TABLE public.mark (number integer)").await.unwrap();
    let mut acknowledged = Vec::new();
    let put = async |nth: u32| {
        // The long way and the short one.
        let content = nth.to_le_bytes().repeat(if nth.is_multiple_of(2) { 10 } else { 5_000_000 });
        (store.put(&content[..]).await, content)
    };
    for nth in 0..8 {
        other.execute("SET synchronous_commit = off").await.unwrap();
        let (put, content) = put(nth).await;
        acknowledged.push((put.unwrap().id, content));
    }
    other.execute("SET synchronous_commit = off").await.unwrap();
    store.delete(&deleted).await.unwrap();
    other.execute("INSERT INTO public.mark VALUES (1)").await.unwrap();
    cluster.crash();

    let direct = open(&root, &direct_url).await.unwrap();
    for (id, content) in acknowledged {
        assert!(direct.read_range(&id, 0..u64::MAX).await.unwrap() == content);
    }
    assert_eq!(direct.stat(&deleted).await.unwrap_err().code(), Code::NotFound);
    let marks: sqlx::postgres::PgConnectOptions = direct_url.parse().unwrap();
    let marks = marks.connect().await.unwrap().fetch_all("SELECT number FROM public.mark").await.unwrap();
    assert!(marks.is_empty(), "nothing was lost that might have been, and this shows nothing");
}
