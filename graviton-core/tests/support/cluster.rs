//! PostgreSQL clusters of a test's own, which it may copy and promote.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A running server, ended with it. Anybody on this host is its superuser.
#[derive(Debug)]
pub(crate) struct Cluster {
    process: Child,
    directory: TempDir,
    port: u16,
}

impl Cluster {
    /// A new one.
    pub(crate) fn new() -> Cluster {
        let directory = directory();
        let data = directory.path().join("data");
        run(program("initdb")
            .args(["--no-sync", "--auth=trust", "--username=graviton", "--pgdata"])
            .arg(&data));
        Cluster::start(directory)
    }

    /// A standby of this one.
    pub(crate) fn standby(&self) -> Cluster {
        let directory = directory();
        let (data, port) = (directory.path().join("data"), self.port.to_string());
        let mut copy = program("pg_basebackup");
        copy.args([
            "--host=127.0.0.1",
            "--username=graviton",
            "--checkpoint=fast",
            "--write-recovery-conf",
            "--no-sync",
        ]);
        run(copy.args(["--port", &port, "--pgdata"]).arg(&data));
        Cluster::start(directory)
    }

    /// Makes a standby a primary; waits until it has all that its primary wrote before.
    pub(crate) fn promote(&self) {
        run(program("pg_ctl").args(["promote", "--wait", "--pgdata"]).arg(self.data()));
    }

    /// Ends it as a crash does, with nothing written that was not synced, and starts it again.
    pub(crate) fn crash(&mut self) {
        let process = Pid::from_raw(self.process.id() as i32).unwrap();
        kill_process(process, Signal::QUIT).unwrap();
        self.process.wait().unwrap();
        self.process = serve(&self.directory, self.port);
        self.await_ready();
    }

    fn start(directory: TempDir) -> Cluster {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let cluster = Cluster { process: serve(&directory, port), directory, port };
        cluster.await_ready();
        cluster
    }

    fn await_ready(&self) {
        let port = self.port;
        let started = Instant::now();
        let ready = || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
                && program("pg_isready")
                    .args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()])
                    .status()
                    .unwrap()
                    .success()
        };
        while !ready() {
            assert!(started.elapsed() < Duration::from_secs(60), "{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Without a database behind it.
    pub(crate) fn url(&self) -> String {
        format!("postgres://graviton@127.0.0.1:{}", self.port)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let process = Pid::from_raw(self.process.id() as i32).unwrap();
        // An immediate stop: its children go with it.
        let _ = kill_process(process, Signal::QUIT);
        let _ = self.process.wait();
    }
}

fn serve(directory: &TempDir, port: u16) -> Child {
    let log = std::fs::File::create(directory.path().join("log")).unwrap();
    let mut server = program("postgres");
    server.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c"]);
    server.arg(format!("port={port}")).arg("-D").arg(directory.path().join("data"));
    server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

/// Runs it to its end; returns what it wrote.
pub(crate) fn run(command: &mut Command) -> Vec<u8> {
    let done = command.stdin(Stdio::null()).output().unwrap();
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

/// One of PostgreSQL's programs, as the user that it may run as.
pub(crate) fn program(name: &str) -> Command {
    let installed =
        std::fs::read_dir("/usr/lib/postgresql").map(|entries| entries.map(|entry| entry.unwrap().path()));
    let newest = installed.ok().and_then(|versions| {
        let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
        versions.max_by_key(number)
    });
    let mut command =
        Command::new(newest.map_or_else(|| name.into(), |version| version.join("bin").join(name)));
    if let Some((user, group)) = postgres() {
        command.uid(user).gid(group);
    }
    command.current_dir("/").env("LC_ALL", "C");
    command
}

/// The ids of Debian's user `postgres`, for root, as whom it does not run.
fn postgres() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:")).expect("the user postgres");
    let ids: Vec<u32> = line.split(':').skip(2).take(2).map(|id| id.parse().unwrap()).collect();
    Some((ids[0], ids[1]))
}

/// A directory that PostgreSQL's user may write to.
fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    if let Some((user, group)) = postgres() {
        std::os::unix::fs::chown(directory.path(), Some(user), Some(group)).unwrap();
    }
    directory
}

/// Brings the schema of our tables from one database to another, as the documentation says.
pub(crate) fn dump_and_restore(from: &str, to: &str, file: &Path) {
    let dump = run(program("pg_dump").args(["--schema=graviton", from]));
    std::fs::write(file, dump).unwrap();
    run(program("psql").args(["--quiet", "--set=ON_ERROR_STOP=1", "--dbname", to, "--file"]).arg(file));
}
