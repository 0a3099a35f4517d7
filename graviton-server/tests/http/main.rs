//! The HTTP server over real sockets: what a client sees of it, and what it leaves in the store.
//!
//! Some tests mount something and fail where that is not permitted. `GRAVITON_TEST_NO_MOUNT=1` leaves them out, and says so.

mod auth;
mod blobs;
mod blocks;
mod failures;
mod limits;
mod memory;
#[path = "../../../tests/mount.rs"]
mod mount;
mod operations;
mod problems;
mod scene;
mod tls;
