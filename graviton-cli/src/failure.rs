//! What ends a command: an error of the library with the exit code it means here.
//!
//! The exit code is that of the error's code, except that 3 says that a blob or a store is not there.
//! A file of the user's own that is not there is a plain failure, exit code 1.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;

use graviton_core::{Code, Error};

/// An error, and the exit code of the process if nothing else goes wrong.
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
    /// A failure with the user's own files, where "not found" says nothing of the store.
    pub(crate) fn outside(error: Error) -> Failure {
        let exit_code = match error.code() {
            Code::NotFound => 1,
            code => code.exit_code(),
        };
        Failure { error, exit_code }
    }

    /// A failed system call on the user's own files: what was being done to what, as in
    /// `cannot write copy.md`.
    pub(crate) fn io(tried: impl Display, error: io::Error) -> Failure {
        Failure::outside(Error::io(tried, error))
    }

    /// The user or the system asked this process to end.
    pub(crate) fn interrupted(exit_code: u8) -> Failure {
        let error = Error::new(Code::Cancelled, "interrupted before the end")
            .with_advice("nothing is there in part; run the same command again");
        Failure { error, exit_code }
    }

    /// The same failure, naming the file it is about if it does not yet.
    pub(crate) fn naming(self, path: &Path) -> Failure {
        let path = path.display().to_string();
        if path == "-" || self.error.to_string().contains(&path) {
            return self;
        }
        Failure { error: self.error.within(format!("cannot put {path}")), ..self }
    }

    /// The same failure with something better to do about it.
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

    /// The message and the advice on standard error. If that is closed there is nobody to tell.
    pub(crate) fn report(&self) {
        let mut text = format!("error[{}]: {}\n", self.error.code(), printable(&self.error.to_string()));
        if let Some(advice) = self.error.advice() {
            text.extend(["  help: ", &printable(advice), "\n"]);
        }
        // One write, so that nothing comes between the lines.
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

/// What was not found among several, while the others were seen to.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    exit_code: u8,
}

impl Tally {
    pub(crate) fn report(&mut self, failure: &Failure) {
        failure.report();
        self.exit_code = failure.exit_code();
    }

    /// The exit code if nothing else goes wrong.
    pub(crate) fn exit_code(&self) -> u8 {
        self.exit_code
    }
}

/// Names of files may hold anything; what would move the cursor or fake a line is shown escaped.
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
