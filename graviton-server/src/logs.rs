//! The log: lines on standard error, as text or JSON, each request with its ID.
//!
//! A separate thread writes them, so that requests do not wait when the reader of standard error stalls or
//! its disk is full. The queue of lines is bounded; further lines are dropped, and their number is logged
//! once there is room again. At the end of the process, [`Log`] waits until the queue is written.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use graviton_core::{Error, Result};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::settings::Settings;

/// The most queued lines: a second of a busy server, some megabytes.
const MOST_LINES: usize = 16_384;

/// How long the end of the process waits for the queue.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Starts to log to standard error as the settings say. Later calls in the same process change nothing.
///
/// Fails with `io` if the thread cannot start.
pub fn install(settings: &Settings) -> Result<Log> {
    let (log, lines) = Log::to(std::io::stderr(), MOST_LINES)?;
    // Other crates log for their developers; the operator gets only their warnings and errors.
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

/// The log of the process. Dropping it waits a moment for queued lines.
#[derive(Debug)]
pub struct Log {
    lines: SyncSender<Message>,
}

impl Drop for Log {
    fn drop(&mut self) {
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        let (written, is_written) = sync_channel(1);
        // The queue may get room while it is written.
        while self.lines.try_send(Message::End(written.clone())).is_err() {
            if Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = is_written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

impl Log {
    /// A log to this target with a queue of this many lines, and the writer that fills the queue.
    fn to(target: impl Write + Send + 'static, most: usize) -> Result<(Log, Lines)> {
        let (sender, receiver) = sync_channel(most);
        let dropped = Arc::new(AtomicU64::new(0));
        let lines = Lines { sender: sender.clone(), dropped: Arc::clone(&dropped) };
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write(target, &receiver, &dropped))
            .map_err(|error| Error::no_thread("cannot start the log thread", error))?;
        Ok((Log { lines: sender }, lines))
    }
}

/// A message to the log thread.
#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    /// Write all lines before this, then confirm.
    End(SyncSender<()>),
}

fn write(mut target: impl Write, messages: &Receiver<Message>, dropped: &AtomicU64) {
    for message in messages {
        // If standard error fails, there is nowhere to report it.
        let _ = match message {
            Message::Line(line) => target.write_all(&line),
            Message::End(written) => {
                let flushed = target.flush();
                let _ = written.try_send(());
                flushed
            }
        };
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(
                target,
                "{{\"level\":\"WARN\",\"message\":\"log lines were dropped\",\"lines\":{lost}}}"
            );
        }
    }
}

/// Queues lines. Never blocks.
struct Lines {
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: self, text: Vec::new() }
    }
}

/// One line, queued when it is dropped.
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
        if !text.is_empty() && self.lines.sender.try_send(Message::Line(text)).is_err() {
            self.lines.dropped.fetch_add(1, Ordering::Relaxed);
            metrics::counter!("graviton_log_lines_dropped_total").increment(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Blocks until the gate is open.
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
    fn a_stalled_reader_blocks_nobody_and_lost_lines_are_counted() {
        let target = Stalled::default();
        let (log, lines) = Log::to(target.clone(), 10).unwrap();
        let closed = target.gate.lock().unwrap();
        for number in 0..100 {
            writeln!(lines.make_writer(), "line {number}").unwrap();
        }
        drop(closed);
        // The queue empties, and then has room for the last line.
        while lines.sender.try_send(Message::Line(b"after\n".to_vec())).is_err() {}
        drop(log);
        let text = String::from_utf8(target.text.lock().unwrap().clone()).unwrap();
        assert!(text.starts_with("line 0\n") && text.contains("after\n"), "{text}");
        // The thread may hold one line besides the ten in the queue.
        let lost = text.lines().find_map(|line| line.split("\"lines\":").nth(1)).unwrap();
        let lost: usize = lost.trim_end_matches('}').parse().unwrap();
        assert!((89..=90).contains(&lost), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("line ")).count(), 100 - lost);
    }
}
