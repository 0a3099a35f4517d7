//! Ctrl-C, SIGTERM and SIGHUP: the first asks the process to end, the second ends it at once.
//!
//! The first raises a flag. Work that waits in tokio is dropped where it waits ([`Interrupt::or`]); work that
//! blocks its thread checks the flag between two pieces. After [`PATIENCE`] the process ends even if a thread
//! is still stuck in a system call. Such an end loses nothing: uncommitted blobs are not visible, and
//! unfinished files are unnamed.
//!
//! A signal that was ignored when the process started stays ignored, as `nohup` and shells without job
//! control expect.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::failure::Failure;

/// How long a blocked system call may delay the end.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long work may continue after it was asked to end. Shorter than `PATIENCE`, because its results must
/// still be printed.
const MOMENT: Duration = Duration::from_secs(1);

/// Whether this process was asked to end. Clones share this state.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt {
    /// The exit code of the signal that arrived; 0 if none arrived.
    exit_code: Arc<AtomicU8>,
    raised: watch::Receiver<bool>,
}

impl Interrupt {
    /// Handles the signals from now on. Needs a tokio runtime.
    pub(crate) fn listen() -> io::Result<Interrupt> {
        // With a handler, a write that exceeds the limit on file size fails, and the process does not end.
        drop(signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?);
        let ignored = ignored_signals();
        let exit_code = Arc::new(AtomicU8::new(0));
        let (raise, raised) = watch::channel(false);
        let raise = Arc::new(raise);
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            let number = kind.as_raw_value() as u8;
            if ignored & (1 << (number - 1)) != 0 {
                continue;
            }
            let mut signals = signal(kind)?;
            let (exit_code, raise) = (Arc::clone(&exit_code), Arc::clone(&raise));
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    if exit_code.swap(128 + number, Ordering::SeqCst) != 0 {
                        std::process::exit(i32::from(128 + number));
                    }
                    raise.send_replace(true);
                    tokio::spawn(end_after(PATIENCE, 128 + number));
                }
            });
        }
        Ok(Interrupt { exit_code, raised })
    }

    /// Fails once the process was asked to end.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match self.exit_code.load(Ordering::SeqCst) {
            0 => Ok(()),
            exit_code => Err(Failure::interrupted(exit_code)),
        }
    }

    /// The reason for incomplete work, if the process was asked to end.
    pub(crate) fn of_unfinished(&self, complete: bool) -> Option<Failure> {
        if complete { None } else { self.check().err() }
    }

    /// The answer to work that asks whether to continue.
    pub(crate) fn flow(&self) -> ControlFlow<()> {
        if self.check().is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    /// Waits until the process is asked to end.
    pub(crate) async fn wait(&self) -> Failure {
        // If no signal is handled, this waits for ever.
        if self.raised.clone().wait_for(|raised| *raised).await.is_err() {
            std::future::pending::<()>().await;
        }
        Failure::interrupted(self.exit_code.load(Ordering::SeqCst))
    }

    /// Runs the work, and drops it where it waits if the process is asked to end.
    pub(crate) async fn or<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            failure = self.wait() => Err(failure),
            result = work => result,
        }
    }

    /// The same for work that asks whether to continue: it has [`MOMENT`] to end by itself.
    pub(crate) async fn or_soon<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            result = work => result,
            failure = async { let failure = self.wait().await; tokio::time::sleep(MOMENT).await; failure } => {
                Err(failure)
            }
        }
    }
}

async fn end_after(patience: Duration, exit_code: u8) {
    tokio::time::sleep(patience).await;
    Failure::interrupted(exit_code).report();
    std::process::exit(i32::from(exit_code));
}

/// The signals that were ignored at the start, as a mask in which bit 0 is signal 1. The kernel prints this
/// as text; `sigaction` would need unsafe code.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
