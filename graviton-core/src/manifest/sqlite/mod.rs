//! Manifests in SQLite: the embedded default, shared by any number of processes on one host.
//!
//! The database is in WAL mode. One connection writes, a few read, and one runs checkpoints (`checkpoint`).
//! Within a process, writers queue for the one connection, because SQLite's own busy handler sleeps; between
//! processes, SQLite decides. Writing transactions are `BEGIN IMMEDIATE`, so that none has to be repeated
//! half-way, and stay short.
//!
//! Only operations that must survive a power cut are synced: they run with `synchronous = FULL`, all others
//! with `NORMAL`, which leaves them to the next sync of the write-ahead log.
//!
//! The lease of a writer is renewed over the same connection: a transaction holds it for milliseconds, and
//! a second connection would only wait for the same lock.

mod backup;
mod checkpoint;
mod connect;
pub(super) mod connection;
mod database;
mod failure;
mod filesystem;
mod forked;
mod in_place;
mod mutex;
mod whereabouts;

pub(super) use database::SqliteDatabase;
pub(super) use failure::is_damage;
pub(crate) use filesystem::check_local;
