//! The HTTP server over real sockets: its answers to clients, and its effects on the store.
//!
//! Some tests mount something, which only root may do. For other users, and with `GRAVITON_TEST_NO_MOUNT=1`,
//! they print LEFT OUT.

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
