//! `graviton`, the command line of the blob store.
//!
//! ```text
//! main -> arguments -> put ── source       failure, interrupt, output, progress
//!                   -> get ── destination  are used by all
//!                   -> inspect (stat, ls, manifest, stats)
//!                   -> remove (rm, restore), collect (gc), verify, transfer (copy, repair, backup)
//! ```
//! Commands run on the main thread, which may block; the engine's tasks, and the task that listens to
//! signals, have threads of their own. The process leaves through `exit`, for a thread that is stuck in a
//! read from a terminal or a pipe must not hold it up.

#![forbid(unsafe_code)]

mod arguments;
mod collect;
mod destination;
mod failure;
mod get;
mod inspect;
mod interrupt;
mod output;
mod progress;
mod put;
mod remove;
mod source;
mod transfer;
mod verify;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use graviton_core::{AsyncStore, Code, Config, Error};

use crate::arguments::{Arguments, Command, Common};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::progress::{Extent, Progress};

const FS_ROOT: &str = "GRAVITON_FS_ROOT";

fn main() -> ExitCode {
    let arguments = match Arguments::of_this_process() {
        Ok(arguments) => arguments,
        Err(answer) => {
            // Help that nobody reads any more is no error.
            let _ = answer.print();
            return ExitCode::from(if answer.use_stderr() { 2 } else { 0 });
        }
    };
    allow_many_files();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let failure = Failure::io("cannot start threads", error);
            failure.report();
            return ExitCode::from(failure.exit_code());
        }
    };
    let exit_code = runtime.block_on(run(arguments)).unwrap_or_else(|failure| {
        failure.report();
        failure.exit_code()
    });
    std::process::exit(i32::from(exit_code))
}

/// What a command works with.
#[derive(Debug)]
struct Context {
    config: Config,
    interrupt: Interrupt,
    json: bool,
    quiet: bool,
}

async fn run(arguments: Arguments) -> Result<u8, Failure> {
    let interrupt = Interrupt::listen().map_err(|error| Failure::io("cannot listen to signals", error))?;
    let common = arguments.common();
    let config = configure(&common)?;
    let context = Context { config, interrupt, json: common.json, quiet: common.quiet };
    match arguments.command {
        Command::Put(put) => return put::put(&context, put).await,
        Command::Get(get) => get::get(&context, get).await?,
        Command::Stat(one) => inspect::stat(&context, &one.id).await?,
        Command::Manifest(one) => inspect::manifest(&context, &one.id).await?,
        Command::Ls(list) => inspect::list(&context, list.after.as_deref(), list.limit).await?,
        Command::Stats(_) => inspect::stats(&context).await?,
        Command::Rm(several) => return remove::remove(&context, &several.ids).await,
        Command::Restore(several) => return remove::restore(&context, &several.ids).await,
        Command::Gc(collect) => return collect::collect(&context, &collect).await,
        Command::Verify(verify) => return verify::verify(&context, &verify).await,
        Command::Repair(repair) => return transfer::repair(&context, &repair).await,
        Command::Copy(copy) => return transfer::copy(&context, &copy).await,
        Command::Backup(backup) => return transfer::backup(&context, &backup).await,
    }
    Ok(0)
}

/// The environment, and what the command line says over it.
fn configure(common: &Common) -> Result<Config, Error> {
    let mut config = Config::from_env()?;
    if let Some(root) = &common.root {
        let root = root.to_str().ok_or_else(|| {
            Error::new(Code::Config, format!("--root {} is not Unicode text", root.display()))
                .with_advice("use a directory whose name is")
        })?;
        if let Some((_, other)) = common.set.iter().find(|(key, value)| key == FS_ROOT && value != root) {
            let message = format!("--root {root} contradicts --set {FS_ROOT}={other}");
            return Err(Error::new(Code::Config, message).with_advice("use one of them"));
        }
        config = config.set(FS_ROOT, root)?;
    }
    for (key, value) in &common.set {
        config = config.set(key, value)?;
    }
    Ok(config)
}

impl Context {
    /// Does something with the store, opened so that nothing is written, and closes it.
    async fn reading<T>(
        &self,
        work: impl AsyncFnOnce(&AsyncStore) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let opening = async { Ok(self.config.open_read_only_async().await?) };
        let store = self.interrupt.or(opening).await?;
        let result = self.interrupt.or(work(&store)).await;
        store.close().await;
        result
    }

    /// Does something that changes the store, which must exist, and closes it.
    async fn changing<T>(
        &self,
        work: impl AsyncFnOnce(&AsyncStore) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.working(self.config.open_existing_async(), work).await
    }

    /// Opens a store, does something with it that asks whether to go on, and closes it.
    async fn working<T>(
        &self,
        opening: impl Future<Output = Result<AsyncStore, Error>>,
        work: impl AsyncFnOnce(&AsyncStore) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let store = self.interrupt.or(async { Ok(opening.await?) }).await?;
        let result = self.interrupt.or_soon(work(&store)).await;
        store.close().await;
        result
    }

    /// Progress on standard error, unless lines on standard output would mix with it.
    fn progress(&self, what: &'static str, extent: Extent, prints: bool) -> Progress {
        let mixed = prints && io::stdout().is_terminal();
        Progress::new(!self.quiet && !mixed, what, extent)
    }
}

/// Many files are open at once during a put, and the usual limit is for programs that use `select`.
fn allow_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    const PLENTY: u64 = 4096;
    let mut limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.map_or(PLENTY, |maximum| maximum.min(PLENTY));
    if limit.current.is_some_and(|current| current < most) {
        limit.current = Some(most);
        // Without it, less is done at once.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}
