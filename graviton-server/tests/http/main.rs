//! The HTTP server over real sockets: what a client sees of it, and what it leaves in the store.

mod auth;
mod blobs;
mod blocks;
mod limits;
mod memory;
mod operations;
mod problems;
mod scene;
mod tls;
