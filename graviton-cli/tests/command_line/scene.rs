//! A temporary directory with a store in it, and the helpers of the tests.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longer than every test takes, but short enough to wait for.
const TOO_LONG: Duration = Duration::from_secs(60);

/// When an interrupted process gives up waiting for its own threads. It ends with the same message then, so
/// only the time shows that it was not stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// A directory to work in; the store is `.graviton` in it.
pub(crate) struct Scene {
    directory: tempfile::TempDir,
}

/// The result of a finished process.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Scene {
    pub(crate) fn new() -> Scene {
        Scene { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// The program in this directory, without settings from outside.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        self.through(env!("CARGO_BIN_EXE_graviton"), arguments)
    }

    /// Another program in the same environment.
    pub(crate) fn through<S: AsRef<OsStr>>(&self, program: &str, arguments: &[S]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.directory.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            let ours = ["GRAVITON_", "QUASAR_", "MINIO_", "PG_"];
            if ours.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command
    }

    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Outcome {
        finish(self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Runs with this on standard input.
    pub(crate) fn feed(&self, arguments: &[&str], input: &[u8]) -> Outcome {
        let mut child = self.start(arguments);
        child.stdin.take().unwrap().write_all(input).unwrap();
        finish(child)
    }

    /// Starts with all streams piped.
    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Puts this content. Returns its id.
    pub(crate) fn put(&self, content: &[u8]) -> String {
        let outcome = self.feed(&["put", "-"], content);
        assert_eq!(outcome.code, 0, "{outcome:?}");
        outcome.lines().remove(0)
    }

    /// Asserts that there are this many blobs.
    pub(crate) fn assert_blobs(&self, count: usize) {
        let outcome = self.run(&["ls"]);
        assert_eq!((outcome.code, outcome.lines().len()), (0, count), "{outcome:?}");
    }

    /// The block files of the default store.
    pub(crate) fn blocks(&self) -> Vec<PathBuf> {
        let directory = self.path(".graviton/cas/blocks/blake3");
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    /// The file of the block at this index of the blob's manifest.
    pub(crate) fn block(&self, id: &str, place: usize) -> PathBuf {
        let manifest = self.run(&["manifest", "--json", id]).json();
        let key = manifest[place]["key"].as_str().unwrap().to_owned();
        let name = key.strip_prefix("blake3:").unwrap().replace(':', "-");
        self.path(".graviton/cas/blocks/blake3").join(name)
    }

    /// Changes the database as another program would.
    #[track_caller]
    pub(crate) fn python(&self, statement: &str) {
        let program = format!(
            "import sqlite3; c = sqlite3.connect('.graviton/manifests.db'); \
             assert c.execute('{statement}').rowcount > 0; c.commit(); c.close()"
        );
        assert!(self.through("python3", &["-c", &program]).status().unwrap().success());
    }

    /// Every file under a directory, with its content and modification time.
    pub(crate) fn snapshot(&self, name: &str) -> BTreeMap<PathBuf, (std::time::SystemTime, Vec<u8>)> {
        let mut found = BTreeMap::new();
        let mut directories = vec![self.path(name)];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(&directory).unwrap() {
                let path = entry.unwrap().path();
                let changed = path.metadata().unwrap().modified().unwrap();
                if path.is_dir() {
                    directories.push(path.clone());
                    found.insert(path, (changed, Vec::new()));
                } else {
                    let content = std::fs::read(&path).unwrap();
                    found.insert(path, (changed, content));
                }
            }
        }
        found
    }

    /// The names in the working directory beside the store.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != ".graviton");
        names.sort();
        names
    }
}

impl Outcome {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// The lines of standard output, each of which must be whole.
    pub(crate) fn lines(&self) -> Vec<String> {
        assert!(self.stdout.is_empty() || self.stdout.ends_with(b"\n"), "{self:?}");
        self.text().lines().map(str::to_owned).collect()
    }

    pub(crate) fn json(&self) -> Vec<Value> {
        self.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Asserts success and an empty standard error.
    #[track_caller]
    pub(crate) fn succeeded(self) -> Outcome {
        assert_eq!((self.code, self.stderr.as_str()), (0, ""), "{:?}", self.text().lines().next());
        self
    }

    /// Asserts that it failed with exactly one error of this code, which contains this text, followed by
    /// advice.
    #[track_caller]
    pub(crate) fn failed(&self, exit_code: i32, code: &str, saying: &str) {
        let lines: Vec<&str> = self.stderr.lines().collect();
        assert_eq!((self.code, lines.len()), (exit_code, 2), "{}", self.stderr);
        assert!(lines[0].starts_with(&format!("error[{code}]: ")), "{}", self.stderr);
        assert!(lines[0].contains(saying), "{}", self.stderr);
        assert!(lines[1].starts_with("  help: ") && lines[1].len() > 12, "{}", self.stderr);
    }
}

/// Waits for the end of a process; one that hangs fails the test.
#[track_caller]
pub(crate) fn finish(mut child: Child) -> Outcome {
    drop(child.stdin.take());
    let process = child.id();
    let (ended, waiting) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if waiting.recv_timeout(TOO_LONG) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            send_to(process, Signal::KILL);
        }
    });
    let output = child.wait_with_output().unwrap();
    drop(ended);
    watchdog.join().unwrap();
    Outcome {
        code: output.status.code().expect("it hung or died by a signal"),
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

pub(crate) fn signal(child: &Child, signal: Signal) {
    send_to(child.id(), signal);
}

fn send_to(process: u32, signal: Signal) {
    kill_process(Pid::from_raw(process as i32).unwrap(), signal).unwrap();
}

/// Waits until the condition holds.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < TOO_LONG, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until a thread of the process waits for somebody who writes to a pipe.
#[track_caller]
pub(crate) fn until_it_opens_a_pipe(child: &Child) {
    let threads = format!("/proc/{}/task", child.id());
    let waits = |thread: std::io::Result<std::fs::DirEntry>| {
        let state = thread.and_then(|thread| std::fs::read_to_string(thread.path().join("wchan")));
        state.is_ok_and(|state| state.contains("wait_for_partner"))
    };
    until("it opens the pipe", || std::fs::read_dir(&threads).unwrap().any(waits));
}

/// Bytes without repetitions, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Changes one byte of a file.
pub(crate) fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    // Block files are read-only, which stops every user but root.
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Makes a named pipe.
pub(crate) fn make_pipe(path: &Path) {
    rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RWXU).unwrap();
}
