//! The command line as a program: the real binary in temporary directories, tested only through its
//! arguments, streams, signals, files and exit code.
//!
//! Some tests mount a small filesystem, which only root may do. For other users, and with
//! `GRAVITON_TEST_NO_MOUNT=1`, they print LEFT OUT.

mod bad_input;
mod damaged;
mod delete;
mod filesystems;
mod get;
mod inspect;
#[path = "../../../tests/left_out.rs"]
mod left_out;
mod limits;
#[path = "../../../tests/mount.rs"]
mod mount;
mod mounted;
mod put;
mod scene;
mod signals;
mod terminal;
mod transfer;
mod verify;
