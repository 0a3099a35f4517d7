//! The settings of the engine, and the times that the protocol is built on.

use std::str::FromStr;
use std::time::Duration;

use crate::block::pack::Compression;
use crate::chunker::ChunkerSpec;
use crate::digest::Algo;
use crate::error::{Code, Error, Result};
use crate::manifest::Durability;

/// The settings of the engine; the places of blocks and manifests are not among them.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub struct Settings {
    /// The algorithm of what is written.
    pub algo: Algo,
    /// How it is cut.
    pub chunker: ChunkerSpec,
    /// Where new blocks are written.
    pub layout: BlockLayout,
    /// How new blocks in packs are compressed.
    pub compression: Compression,
    /// How durable a returned put is.
    pub durability: Durability,
    /// Whether every block is hashed again before a byte of it is handed out.
    pub verify_reads: bool,
    /// How many bytes of memory a put may use, whatever the blob's size.
    pub window: usize,
    /// How many bytes more puts may use that find them unused, all together.
    pub shared_window: usize,
    /// Whether nothing is to be written.
    pub read_only: bool,
    /// Whether blocks without a `store-id` beside them are taken over.
    pub adopt: bool,
    /// Whether the database becomes the one that owns the blocks, although it is a copy.
    pub take_over: bool,
    /// How long a deleted blob is kept, unless a collection is told otherwise.
    pub grace: Duration,
    /// The times that the protocol is built on, the same in every process that shares the database. Not to be
    /// changed but by tests that cannot wait for a minute.
    pub timing: Timing,
}

/// Where new blocks are written. Blocks of both kinds can always be read, in one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BlockLayout {
    /// Each is a file or an object of its own.
    #[default]
    Files,
    /// Many of them share a file.
    Packs,
}

impl FromStr for BlockLayout {
    type Err = Error;

    /// `files` or `packs`, as in `GRAVITON_BLOCK_LAYOUT`.
    fn from_str(text: &str) -> Result<BlockLayout> {
        match text {
            "files" => Ok(BlockLayout::Files),
            "packs" => Ok(BlockLayout::Packs),
            _ => Err(Error::new(Code::InvalidArgument, format!("{text:?} is not a layout of blocks"))
                .with_advice("use files or packs")),
        }
    }
}

/// The times that the protocol is built on. The database's clock must not jump.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// For how long a writer counts as alive without a word from it.
    pub lease: Duration,
    /// How often it says so.
    pub renewal: Duration,
    /// For how long nobody puts a block in S3 that a collector is about to delete. Its requests are valid for
    /// half of that; by the other half the clocks of client and server may differ.
    pub doom: Duration,
    /// How long a generation of the database lasts that a writer begins.
    pub generation: Duration,
}

impl Timing {
    /// The times that every store uses which shares a database.
    pub(crate) const USUAL: Timing = Timing {
        lease: Duration::from_secs(60),
        renewal: Duration::from_secs(15),
        // S3 lets clocks differ by a quarter of an hour.
        doom: Duration::from_secs(30 * 60),
        generation: Duration::from_secs(3_600),
    };
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            algo: Algo::default(),
            chunker: ChunkerSpec::default(),
            layout: BlockLayout::default(),
            compression: Compression::USUAL,
            durability: Durability::default(),
            verify_reads: true,
            window: 64 << 20,
            shared_window: 0,
            read_only: false,
            adopt: false,
            take_over: false,
            grace: Duration::from_secs(3_600),
            timing: Timing::USUAL,
        }
    }
}
