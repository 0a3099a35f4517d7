//! An embeddable content-addressed blob store: SQLite for blobs.
//!
//! A stream goes in, is cut into blocks by its content, each block is stored once under its BLAKE3 hash,
//! and the blob comes back verified, as a whole or any range of it.
//!
//! ```
//! use std::io::{Read, Seek, SeekFrom};
//! use graviton_core::{BlobId, Store};
//!
//! # let directory = tempfile::tempdir().unwrap();
//! let store = Store::open(directory.path())?;            // files and SQLite under one directory
//! let put = store.put(&b"hello, graviton"[..])?;         // any `Read`
//! println!("{}", put.id);                                // blake3:…:15
//!
//! let id: BlobId = put.id.to_string().parse()?;
//! let mut reader = store.reader(&id)?;                   // `Read + Seek`, verified
//! reader.seek(SeekFrom::Start(7))?;
//! let mut word = String::new();
//! reader.read_to_string(&mut word)?;
//! assert_eq!(word, "graviton");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Guaranteed: the blob of a put that returned is there (after `kill -9`, and with [`Durability::Full`] after
//! power loss); the blob of a failed put is not; every byte that is read is the one that was put; any number
//! of processes may share a store. Not provided: encryption, names for blobs, protection from other writers
//! to the directory.
//!
//! A thread that calls the store needs 256 KiB of stack. If the system has no memory, the process is aborted,
//! like any Rust program. If it has no thread or no descriptor, the call fails with
//! [`Code::BackendUnavailable`] and may be repeated.
//!
//! Dependencies between the modules point one way: errors, digests and keys, then [`chunker`], [`block`]
//! stores and [`manifest`] repositories, then [`report`]s, then the engine ([`AsyncStore`]), then [`Store`].

#![forbid(unsafe_code)]

pub mod block;
mod blocking;
pub mod chunker;
mod collection;
mod config;
mod descriptor;
mod digest;
mod durable;
mod engine;
mod error;
mod interrupt;
mod key;
pub mod manifest;
pub mod place;
mod process;
pub mod quantity;
mod random;
mod range;
mod repeated;
pub mod report;
mod runtime;
mod store;
mod threads;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub use block::BlockStore;
pub use chunker::ChunkerSpec;
pub use config::{Config, SETTINGS, Setting};
pub use digest::{Algo, Digest, Hasher};
pub use engine::{
    AsyncPut, AsyncStore, BlobReader, BlobWriter, BlockLayout, COMMIT_AHEAD, CopyOptions, Damage, Finding,
    GcOptions, NEARLY_FULL_DIRECTORY, PutOptions, Session, SessionCommit, Settings, Timing, VerifyEvent,
    VerifyOptions,
};
pub use error::{Code, Error, Result};
pub use interrupt::{interruptible, uninterrupted};
pub use key::{BlobId, BlockKey, MAX_BLOB_SIZE, MAX_BLOCK_SIZE};
pub use manifest::{Durability, ManifestEntry, ManifestRepo, Opening};
pub use process::Process;
pub use range::ByteRange;
pub use report::{
    BlobStat, CopyReport, GcReport, PutReceipt, RepackReport, RepairReport, StoreStats, VerifyCursor,
    VerifyReport,
};
pub use runtime::of_this_process as runtime;
pub use store::{Put, Reader, Store, Writer};
