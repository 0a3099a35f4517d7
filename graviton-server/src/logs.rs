//! The log: lines on standard error, as text or JSON, each request with its id.
//!
//! A thread of its own writes them: when whoever reads standard error stalls, or a disk behind it is full, nobody who
//! serves a request waits for that. So many lines wait to be written; further ones are dropped, and it is said how many
//! once lines are taken again. At the end of the process, [`Log`] sees to it that what was said is written.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use graviton_core::{Error, Result};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::settings::Settings;

/// Lines that wait to be written at most: a second of a busy server, and some megabytes.
const MOST_LINES: usize = 16_384;

/// So long the end of the process waits for lines to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Begins to log to standard error as the settings say. Once in a process; later calls change nothing.
///
/// `io` if there is no thread for it.
pub fn install(settings: &Settings) -> Result<Log> {
    let (log, lines) = Log::to(std::io::stderr(), MOST_LINES)?;
    // Libraries underneath have words for their developers; only what is wrong is for the operator.
    let filter = EnvFilter::new(format!("warn,graviton_server={0},graviton_core={0}", settings.log));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines).with_target(false);
    let _ = if settings.log_json {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    } else {
        let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
        builder.with_ansi(colours).try_init()
    };
    Ok(log)
}

/// The log of the process, for as long as this is there. Dropped, it waits a moment for what is not yet written.
#[derive(Debug)]
pub struct Log {
    lines: SyncSender<Said>,
}

impl Drop for Log {
    fn drop(&mut self) {
        let deadline = Instant::now() + LAST_WORDS;
        let (written, is_written) = sync_channel(1);
        // A full queue may be one that is being written.
        while self.lines.try_send(Said::End(written.clone())).is_err() {
            if Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = is_written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

impl Log {
    /// A log to somewhere, in which so many lines may wait, and what says them.
    fn to(target: impl Write + Send + 'static, most: usize) -> Result<(Log, Lines)> {
        let (sender, receiver) = sync_channel(most);
        let dropped = Arc::new(AtomicU64::new(0));
        let lines = Lines { sender: sender.clone(), dropped: Arc::clone(&dropped) };
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write(target, &receiver, &dropped))
            .map_err(|error| Error::io("cannot start the thread of the log", error))?;
        Ok((Log { lines: sender }, lines))
    }
}

/// What the thread is told.
#[derive(Debug)]
enum Said {
    Line(Vec<u8>),
    /// All before it is to be written, and then this told.
    End(SyncSender<()>),
}

fn write(mut target: impl Write, said: &Receiver<Said>, dropped: &AtomicU64) {
    for said in said {
        // If nobody takes it there is nobody to tell.
        let _ = match said {
            Said::Line(line) => target.write_all(&line),
            Said::End(written) => {
                let flushed = target.flush();
                let _ = written.try_send(());
                flushed
            }
        };
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(
                target,
                "{{\"level\":\"WARN\",\"message\":\"lines of the log were dropped\",\"lines\":{lost}}}"
            );
        }
    }
}

/// Where lines are said. Never blocks.
struct Lines {
    sender: SyncSender<Said>,
    dropped: Arc<AtomicU64>,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: self, text: Vec::new() }
    }
}

/// One line, said when it is dropped.
struct Line<'a> {
    lines: &'a Lines,
    text: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let text = std::mem::take(&mut self.text);
        if !text.is_empty() && self.lines.sender.try_send(Said::Line(text)).is_err() {
            self.lines.dropped.fetch_add(1, Ordering::Relaxed);
            metrics::counter!("graviton_log_lines_dropped_total").increment(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Takes nothing until it is let.
    #[derive(Clone, Default)]
    struct Stalled {
        gate: Arc<Mutex<()>>,
        text: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _open = self.gate.lock().unwrap();
            self.text.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_who_does_not_read_and_what_was_lost_is_said() {
        let target = Stalled::default();
        let (log, lines) = Log::to(target.clone(), 10).unwrap();
        let closed = target.gate.lock().unwrap();
        for number in 0..100 {
            writeln!(lines.make_writer(), "line {number}").unwrap();
        }
        drop(closed);
        // The queue empties; then there is room for the last words.
        while lines.sender.try_send(Said::Line(b"after\n".to_vec())).is_err() {}
        drop(log);
        let text = String::from_utf8(target.text.lock().unwrap().clone()).unwrap();
        assert!(text.starts_with("line 0\n") && text.contains("after\n"), "{text}");
        // One may be in the thread's hand besides the ten that wait.
        let lost = text.lines().find_map(|line| line.split("\"lines\":").nth(1)).unwrap();
        let lost: usize = lost.trim_end_matches('}').parse().unwrap();
        assert!((89..=90).contains(&lost), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("line ")).count(), 100 - lost);
    }
}
