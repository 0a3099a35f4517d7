//! A progress bar with rate and remaining time on the terminal, for work that takes over a second.
//!
//! It is drawn on standard error, only if that is a terminal, and disappears when the work is done. Output
//! during the work must go through [`Progress::pause`], or it would end up inside the bar.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;

/// Shorter work has no bar.
const NOTICEABLE: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(100);

const BAR: &str = "{msg} {wide_bar} {bytes}/{total_bytes}  {binary_bytes_per_sec}  {eta} left";
const OPEN_END: &str = "{msg} {spinner} {bytes}  {binary_bytes_per_sec}  {elapsed}";
const TOLD: &str = "{msg} {spinner} {prefix}  {elapsed}";
const WAITING: &str = "{msg} {spinner} {elapsed}";

/// The size of the work, as far as it is known in advance.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Extent {
    /// This many bytes.
    Bytes(u64),
    /// An unknown number of bytes.
    OpenEnd,
    /// The work describes its progress itself.
    Told,
    /// Nothing can be counted.
    Unknown,
}

/// The progress of one piece of work. Dropped, it clears its line.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    appearing: Option<JoinHandle<()>>,
}

impl Progress {
    /// A bar that appears after [`NOTICEABLE`], and never if it is not `wanted` or there is no terminal.
    /// Needs a tokio runtime.
    pub(crate) fn new(wanted: bool, what: &'static str, extent: Extent) -> Progress {
        if !wanted || !io::stderr().is_terminal() {
            return Progress::none();
        }
        let (template, bar) = match extent {
            Extent::Bytes(total) => {
                (BAR, ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden()))
            }
            Extent::OpenEnd => (OPEN_END, ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())),
            Extent::Told => (TOLD, ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())),
            Extent::Unknown => (WAITING, ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what);
        let shown = bar.clone();
        let appearing = tokio::spawn(async move {
            tokio::time::sleep(NOTICEABLE).await;
            shown.set_draw_target(ProgressDrawTarget::stderr());
            shown.enable_steady_tick(TICK);
        });
        Progress { bar, appearing: Some(appearing) }
    }

    /// A progress that is never shown.
    pub(crate) fn none() -> Progress {
        Progress { bar: ProgressBar::hidden(), appearing: None }
    }

    /// Adds bytes that are done.
    pub(crate) fn add(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// Shows these words as the progress. `words` is called only if a bar may be visible.
    pub(crate) fn tell(&self, words: impl FnOnce() -> String) {
        if self.appearing.is_some() {
            self.bar.set_prefix(words());
        }
    }

    /// Runs something that prints, with the bar hidden meanwhile.
    pub(crate) fn pause<T>(&self, printing: impl FnOnce() -> T) -> T {
        self.bar.suspend(printing)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(appearing) = &self.appearing {
            appearing.abort();
            self.bar.finish_and_clear();
        }
    }
}
