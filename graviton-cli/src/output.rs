//! Standard output: whole lines, or the bytes of a blob.
//!
//! Nothing here panics or complains when the reader has closed the pipe: it has read enough, and
//! [`Lines::closed`] lets a listing stop early. Every other failure is an error.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use graviton_core::Error;
use graviton_core::report::{self, Report};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde_json::Value;

use crate::failure::Failure;
use crate::interrupt::Interrupt;

/// Lines are written once this many bytes are waiting.
const ENOUGH: usize = 64 << 10;

/// The longest time a wait lasts before it checks for an interrupt.
const POLL: Duration = Duration::from_millis(100);

/// Lines that wait to be written to standard output.
#[derive(Debug)]
pub(crate) struct Lines {
    waiting: Vec<u8>,
    closed: bool,
    interrupt: Interrupt,
}

impl Lines {
    pub(crate) fn new(interrupt: &Interrupt) -> Lines {
        Lines { waiting: Vec::new(), closed: false, interrupt: interrupt.clone() }
    }

    /// Adds a line. It is written with the next [`flush`](Lines::flush) or earlier.
    pub(crate) fn add(&mut self, line: &str) -> Result<(), Failure> {
        self.waiting.extend_from_slice(line.as_bytes());
        self.waiting.push(b'\n');
        if self.waiting.len() < ENOUGH { Ok(()) } else { self.flush() }
    }

    /// Whether a flush has something to write.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Writes what is waiting, in whole lines.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        if !self.closed {
            self.closed = write_to_stdout(&self.waiting, &self.interrupt)? == Reader::Gone;
        }
        self.waiting.clear();
        Ok(())
    }

    /// Whether the reader has closed the pipe.
    pub(crate) fn closed(&self) -> bool {
        self.closed
    }
}

/// Whether the other end of a pipe is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    Listening,
    Gone,
}

pub(crate) fn write_to_stdout(bytes: &[u8], interrupt: &Interrupt) -> Result<Reader, Failure> {
    write(rustix::stdio::stdout(), bytes, interrupt, &"standard output")
}

/// Writes all of the bytes, without a buffer in between.
pub(crate) fn write(
    to: impl AsFd,
    mut bytes: &[u8],
    interrupt: &Interrupt,
    name: &dyn std::fmt::Display,
) -> Result<Reader, Failure> {
    while !bytes.is_empty() {
        match rustix::io::write(to.as_fd(), bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => interrupt.check()?,
            // Another process made this end of a shared pipe non-blocking.
            Err(Errno::AGAIN) => wait(to.as_fd(), PollFlags::OUT, interrupt)?,
            Err(Errno::PIPE) => return Ok(Reader::Gone),
            Err(error) => return Err(Failure::io(format!("cannot write {name}"), error.into())),
        }
    }
    Ok(Reader::Listening)
}

/// Waits until the descriptor can be read or written, or fails if the process is asked to end meanwhile.
pub(crate) fn wait(
    descriptor: BorrowedFd<'_>,
    flags: PollFlags,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let time_out = Timespec::try_from(POLL).ok();
    loop {
        interrupt.check()?;
        match poll(&mut [PollFd::from_borrowed_fd(descriptor, flags)], time_out.as_ref()) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => {
                let error = Error::io("cannot wait for input or output", io::Error::from(error));
                return Err(Failure::outside(error));
            }
        }
    }
}

/// `1 blob`, `2 blobs`.
pub(crate) fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// `0.12 s`.
pub(crate) fn seconds(seconds: f64) -> String {
    format!("{seconds:.2} s")
}

/// One JSON object in one line, its fields in this order.
pub(crate) fn json(fields: &[(&str, Value)]) -> String {
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

/// The fields of a report, in the order of its declaration. A list becomes its length; samples have lines of
/// their own.
pub(crate) fn fields<R: Report>(report: &R) -> Vec<(&'static str, Value)> {
    let fields = report.entries().filter_map(|(field, value)| {
        let value = match value {
            report::Value::Sample(_) => return None,
            report::Value::Count(number) | report::Value::Bytes(number) | report::Value::Size(number) => {
                number.into()
            }
            report::Value::Seconds(number) | report::Value::Ratio(number) => number.into(),
            report::Value::Flag(flag) => flag.into(),
            report::Value::Id(id) => id.to_string().into(),
            report::Value::Ids(ids) => ids.len().into(),
            report::Value::Keys(keys) => keys.len().into(),
            report::Value::Cursor(cursor) => cursor.map(ToString::to_string).into(),
            report::Value::Text(text) => text.into(),
            report::Value::Time(milliseconds) => rfc3339(milliseconds).into(),
            other => format!("{other:?}").into(),
        };
        Some((field.name.strip_suffix("_ms").unwrap_or(field.name), value))
    });
    fields.collect()
}

/// A report as the last line of a command.
pub(crate) fn summary<R: Report>(report: &R) -> String {
    let mut all = vec![("kind", "summary".into())];
    all.extend(fields(report));
    json(&all)
}

/// `2026-02-03T04:05:06.789Z`.
pub(crate) fn rfc3339(milliseconds: i64) -> String {
    // A time outside the calendar is shown as the number in the database.
    jiff::Timestamp::from_millisecond(milliseconds)
        .map_or_else(|_| milliseconds.to_string(), |time| format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_the_order_and_escapes_values() {
        let line = json(&[("path", "a\"b\n".into()), ("id", 1.into())]);
        assert_eq!(line, r#"{"path":"a\"b\n","id":1}"#);
    }
}
