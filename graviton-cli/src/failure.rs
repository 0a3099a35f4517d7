//! The failure of a command: an error of the library with its exit code.
//!
//! The exit code is that of the error's code, except that 3 means that a blob or a store does not exist. A
//! missing file of the user's own is a plain failure, exit code 1.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;

use graviton_core::{Code, Error};

/// An error, and the exit code of the process if no other error follows.
#[derive(Debug)]
pub(crate) struct Failure {
    error: Error,
    exit_code: u8,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { exit_code: error.code().exit_code(), error }
    }
}

impl Failure {
    /// A failure with the user's own files, where "not found" does not concern the store.
    pub(crate) fn outside(error: Error) -> Failure {
        let exit_code = match error.code() {
            Code::NotFound => 1,
            code => code.exit_code(),
        };
        Failure { error, exit_code }
    }

    /// A failed system call on the user's own files. `tried` names the action and the file, as in `cannot
    /// write copy.md`.
    pub(crate) fn io(tried: impl Display, error: io::Error) -> Failure {
        Failure::outside(Error::io(tried, error))
    }

    /// The failure of a process that the user or the system asked to end.
    pub(crate) fn interrupted(exit_code: u8) -> Failure {
        let error = Error::new(Code::Cancelled, "interrupted before the end")
            .with_advice("nothing is there in part; run the same command again");
        Failure { error, exit_code }
    }

    /// The same failure, with the file's name if it has none yet.
    pub(crate) fn naming(self, path: &Path) -> Failure {
        let path = path.display().to_string();
        if path == "-" || self.error.to_string().contains(&path) {
            return self;
        }
        Failure { error: self.error.within(format!("cannot put {path}")), ..self }
    }

    /// The same failure with better advice.
    pub(crate) fn advising(self, advice: impl Into<String>) -> Failure {
        Failure { error: self.error.with_advice(advice), ..self }
    }

    /// Whether a read has ended at a block that is damaged, missing, or cannot be read.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(self.error.code(), Code::MissingBlock | Code::CorruptBlock | Code::Io | Code::Forbidden)
    }

    /// The exit code of the process.
    pub(crate) fn exit_code(&self) -> u8 {
        self.exit_code
    }

    /// Prints the message and the advice on standard error. If that is closed, nobody can be told.
    pub(crate) fn report(&self) {
        let mut text = format!("error[{}]: {}\n", self.error.code(), printable(&self.error.to_string()));
        if let Some(advice) = self.error.advice() {
            text.extend(["  help: ", &printable(advice), "\n"]);
        }
        // One write, so that no other output comes between the lines.
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

/// The exit code of a command on several blobs that continues after one is not found.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    exit_code: u8,
}

impl Tally {
    pub(crate) fn report(&mut self, failure: &Failure) {
        failure.report();
        self.exit_code = failure.exit_code();
    }

    /// The exit code if no other error follows.
    pub(crate) fn exit_code(&self) -> u8 {
        self.exit_code
    }
}

/// Names of files may contain anything. Characters that would move the cursor or fake a line are escaped.
fn printable(text: &str) -> String {
    let show = |letter: char| -> String {
        if letter.is_control() { letter.escape_default().collect() } else { letter.into() }
    };
    text.chars().map(show).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_not_a_missing_blob() {
        let missing = || Error::new(Code::NotFound, "no");
        assert_eq!(Failure::from(missing()).exit_code(), 3);
        assert_eq!(Failure::outside(missing()).exit_code(), 1);
        assert_eq!(Failure::outside(Error::new(Code::CorruptBlock, "bad")).exit_code(), 4);
    }

    #[test]
    fn control_characters_are_shown_and_not_sent() {
        assert_eq!(printable("a\n\x1b[2Jé"), "a\\n\\u{1b}[2Jé");
    }
}
