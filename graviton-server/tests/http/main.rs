//! The HTTP server over real sockets: what a client sees of it, and what it leaves in the store.
//!
//! Some tests mount something, for which they must be root: elsewhere, and with `GRAVITON_TEST_NO_MOUNT=1`, they say
//! LEFT OUT.

mod auth;
mod blobs;
mod blocks;
mod failures;
mod few_threads;
#[path = "../../../tests/left_out.rs"]
mod left_out;
mod limits;
mod links;
mod memory;
#[path = "../../../tests/mount.rs"]
mod mount;
mod operations;
mod problems;
mod proxies;
mod scene;
mod signer;
mod tls;
