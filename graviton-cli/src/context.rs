//! The context of a command: the configuration, signals, and how to print.

use std::io::{self, IsTerminal};
use std::ops::ControlFlow;

use graviton_core::{AsyncStore, Code, Config, Error};

use crate::arguments::Common;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::progress::{Extent, Progress};

const FS_ROOT: &str = "GRAVITON_FS_ROOT";

/// The state of one run of the program.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) interrupt: Interrupt,
    pub(crate) json: bool,
    pub(crate) quiet: bool,
}

impl Context {
    /// Starts to listen to signals, and reads the configuration.
    pub(crate) fn new(common: &Common) -> Result<Context, Failure> {
        let interrupt =
            Interrupt::listen().map_err(|error| Failure::io("cannot listen for signals", error))?;
        Ok(Context { config: configure(common)?, interrupt, json: common.json, quiet: common.quiet })
    }

    /// Runs `work` on the store, opened without writing anything, and closes it.
    pub(crate) async fn reading<T>(
        &self,
        work: impl AsyncFnOnce(&AsyncStore) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let opening = async { Ok(self.config.open_read_only_async().await?) };
        let store = self.interrupt.or(opening).await?;
        let result = self.interrupt.or(work(&store)).await;
        store.close().await;
        result
    }

    /// Runs `work` that changes the store, which must exist, and closes it.
    pub(crate) async fn changing<T>(
        &self,
        work: impl AsyncFnOnce(&AsyncStore) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.working(self.config.open_existing_async(), work).await
    }

    /// Opens a store, runs work on it that asks whether to continue, and closes it.
    pub(crate) async fn working<T>(
        &self,
        opening: impl Future<Output = Result<AsyncStore, Error>>,
        work: impl AsyncFnOnce(&AsyncStore) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let store = self.interrupt.or(async { Ok(opening.await?) }).await?;
        let result = self.interrupt.or_soon(work(&store)).await;
        store.close().await;
        result
    }

    /// Runs work that reports its progress and asks whether to continue. Returns the last report and the
    /// result, even if the work was interrupted or failed.
    pub(crate) async fn reporting<R: Clone + Send>(
        &self,
        what: &'static str,
        line: impl Fn(&R) -> String + Sync,
        run: impl AsyncFnOnce(&AsyncStore, &mut Tell<'_, R>) -> Result<R, Error>,
    ) -> (Option<R>, Result<(), Failure>) {
        let progress = self.progress(what, Extent::Told, false);
        let mut report = None;
        let ended = self
            .changing(async |store| {
                let mut tell = |so_far: &R| {
                    report = Some(so_far.clone());
                    progress.tell(|| line(so_far));
                    self.interrupt.flow()
                };
                let whole = run(store, &mut tell).await?;
                report = Some(whole);
                Ok(())
            })
            .await;
        (report, ended)
    }

    /// Progress on standard error, unless lines on standard output would mix with it.
    pub(crate) fn progress(&self, what: &'static str, extent: Extent, prints: bool) -> Progress {
        let mixed = prints && io::stdout().is_terminal();
        Progress::new(!self.quiet && !mixed, what, extent)
    }
}

/// Receives the progress of the work, and decides whether it continues.
pub(crate) type Tell<'a, R> = dyn FnMut(&R) -> ControlFlow<()> + Send + 'a;

/// The environment, overridden by the command line.
fn configure(common: &Common) -> Result<Config, Error> {
    let mut config = Config::from_env()?;
    if let Some(root) = &common.root
        && let Some((_, other)) = common.set.iter().find(|(key, value)| key == FS_ROOT && value != root)
    {
        let message = format!("--root {} contradicts --set {FS_ROOT}={}", root.display(), other.display());
        return Err(Error::new(Code::Config, message).with_advice("use one of them"));
    }
    for (key, value) in &common.set {
        config = config.set_os(key, value)?;
    }
    if let Some(root) = &common.root {
        config = config.in_directory(root)?;
    }
    Ok(config)
}
