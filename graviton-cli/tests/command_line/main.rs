//! The command line as a program: the real binary in temporary directories, seen only through its
//! arguments, streams, signals, files and exit code.
//!
//! Some tests mount a small filesystem and fail where that is not permitted. `GRAVITON_TEST_NO_MOUNT=1`
//! leaves them out, and says so.

mod bad_input;
mod delete;
mod get;
mod inspect;
#[path = "../../../tests/mount.rs"]
mod mount;
mod mounted;
mod put;
mod scene;
mod signals;
mod terminal;
mod transfer;
mod verify;
