//! Repeats calls that a signal ended before they did anything (`EINTR`).
//!
//! Disks never return that error; network filesystems, FUSE and some filesystems in containers do. A signal
//! is no failure of the disk, so it must neither end an operation nor latch the store.
//! `rustix::io::retry_on_intr` does the same for calls of rustix. The standard library repeats only opens,
//! reads, writes and syncs.

use std::ffi::OsString;
use std::io;
use std::path::Path;

/// Makes the call again for as long as a signal ends it.
pub(crate) fn again<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// The names in a directory that has few.
pub(crate) fn names_in(directory: &Path) -> io::Result<Vec<OsString>> {
    // A listing that was interrupted cannot be continued.
    again(|| std::fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_signal_makes_it_happen_again() {
        let mut calls = 0;
        let result: io::Result<()> = again(|| {
            calls += 1;
            Err(if calls < 3 { io::ErrorKind::Interrupted } else { io::ErrorKind::NotFound }.into())
        });
        assert_eq!((calls, result.unwrap_err().kind()), (3, io::ErrorKind::NotFound));
    }
}
