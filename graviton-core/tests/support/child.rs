//! The test program as another process: it starts itself again, with one `#[ignore]`d test named `child`, and
//! both sides speak in lines.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

#[cfg(all(feature = "s3", feature = "postgres"))]
use super::pair::Pair;

/// Marks what children say to their parent, among what the test harness prints.
const SAYS: &str = "child says ";

/// Holds what the child is to do; without it, `child` is nobody's.
pub(crate) const TASK: &str = "GRAVITON_TEST_TASK";

/// Another process over the store of this pair. It does not outlive its handle.
pub(crate) struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    name: String,
}

/// A command that runs the ignored test `child` of this module of the test program.
pub(crate) fn command(module: &str) -> Command {
    command_of(&std::env::current_exe().unwrap(), module)
}

/// The same of another copy of the test program.
pub(crate) fn command_of(program: &Path, module: &str) -> Command {
    // The harness names tests by their path in the crate.
    let test = module.split_once("::").map_or("child".to_owned(), |(_, inside)| format!("{inside}::child"));
    let mut command = Command::new(program);
    command.args([&test, "--exact", "--ignored", "--nocapture"]);
    command
}

impl Process {
    #[cfg(all(feature = "s3", feature = "postgres"))]
    pub(crate) fn start(module: &str, pair: &Pair, task: &str) -> Process {
        let mut child = command(module)
            .envs(pair.settings.iter().map(|(name, value)| (*name, value)))
            .env("GRAVITON_FS_ROOT", pair.root.path())
            .env(TASK, task)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Process { child, input, output, name: task.to_owned() }
    }

    pub(crate) fn tell(&mut self, line: &str) {
        let input = self.input.as_mut().unwrap();
        writeln!(input, "{line}").unwrap_or_else(|error| panic!("{} has ended: {error}", self.name));
    }

    /// The next line that it says; none once it has ended. Half a line, of a process that was killed, is
    /// none.
    pub(crate) fn hear(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            self.output.read_line(&mut line).unwrap();
            let line = line.strip_suffix('\n')?;
            // The harness begins a line, "test …::child ... ", and leaves it open.
            if let Some((_, said)) = line.split_once(SAYS) {
                return Some(said.to_owned());
            }
        }
    }

    /// Like [`hear`](Process::hear), of one that must not have ended.
    pub(crate) fn must_say(&mut self) -> String {
        self.hear().unwrap_or_else(|| panic!("{} has failed: see what it wrote", self.name))
    }

    /// Closes its input, which ends it, and gives its last words.
    pub(crate) fn end(mut self) -> Vec<String> {
        drop(self.input.take());
        let words = std::iter::from_fn(|| self.hear()).collect();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{} has failed: {status}", self.name);
        words
    }

    /// Kills it after this time. It is not waited for before the thread is joined, so that its number is
    /// still its own.
    pub(crate) fn kill_after(&self, wait: Duration) -> JoinHandle<()> {
        let id = Pid::from_raw(self.child.id() as i32).unwrap();
        std::thread::spawn(move || {
            std::thread::sleep(wait);
            kill_process(id, Signal::KILL).unwrap();
        })
    }

    /// Can stop it wherever it is, while the handle lives.
    pub(crate) fn brake(&self) -> Brake {
        Brake(Pid::from_raw(self.child.id() as i32).unwrap())
    }

    /// Waits for its end, and gives the signal that it died by, if it did.
    pub(crate) fn died_by(&mut self) -> Option<i32> {
        self.child.wait().unwrap().signal()
    }

    /// Waits for its end, and says whether it was a good one.
    pub(crate) fn succeeded(&mut self) -> bool {
        self.child.wait().unwrap().success()
    }
}

/// Stops a process for a while.
pub(crate) struct Brake(Pid);

impl Brake {
    pub(crate) fn stop_for(&self, length: Duration) {
        kill_process(self.0, Signal::STOP).unwrap();
        std::thread::sleep(length);
        kill_process(self.0, Signal::CONT).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In the child: says a line, in one write, so that a kill leaves no half of it among others.
pub(crate) fn say(text: &str) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut output = std::io::stdout().lock();
    output.write_all(format!("{SAYS}{text}\n").as_bytes()).unwrap();
    output.flush().unwrap();
}

/// Numbers that a seed gives again (SplitMix64).
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Numbers {
        Numbers(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// A number of the environment.
pub(crate) fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, which is no number"))
    })
}

/// The seed of this run: of the environment, or another each time.
pub(crate) fn seed(name: &str) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    number(name, now.as_nanos() as u64 % 1_000_000_000)
}
