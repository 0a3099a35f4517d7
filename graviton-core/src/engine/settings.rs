//! The settings of the engine, and the times that the protocol depends on.

use std::str::FromStr;
use std::time::Duration;

use crate::block::pack::Compression;
use crate::chunker::ChunkerSpec;
use crate::digest::Algo;
use crate::error::{Code, Error, Result};
use crate::manifest::Durability;

/// The settings of the engine, without the locations of blocks and manifests.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub struct Settings {
    /// The algorithm of new blobs and blocks.
    pub algo: Algo,
    /// The chunker of new blobs.
    pub chunker: ChunkerSpec,
    /// Where new blocks are written.
    pub layout: BlockLayout,
    /// How new blocks in packs are compressed.
    pub compression: Compression,
    /// The durability of a returned put.
    pub durability: Durability,
    /// Whether every block is hashed again before any of its bytes is returned.
    pub verify_reads: bool,
    /// How many bytes of memory a put may use, for blobs of any size.
    pub window: usize,
    /// How many more bytes all puts together may use while these are free.
    pub shared_window: usize,
    /// Whether the store is read-only.
    pub read_only: bool,
    /// Whether blocks without a `store-id` beside them are taken over.
    pub adopt: bool,
    /// Whether the database becomes the owner of the blocks, although it is a copy.
    pub take_over: bool,
    /// How long a deleted blob is kept, unless a collection has another grace.
    pub grace: Duration,
    /// The times that the protocol depends on, the same in every process that shares the database. Only tests
    /// that cannot wait for a minute may change them.
    pub timing: Timing,
}

/// The layout of new blocks. Blocks of both layouts can always be read, in one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BlockLayout {
    /// Each block is a file or an object of its own.
    #[default]
    Files,
    /// Many blocks share a file.
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

/// The times that the protocol depends on. The database's clock must not jump.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// How long a writer counts as alive after its last renewal.
    pub lease: Duration,
    /// The interval of renewals.
    pub renewal: Duration,
    /// For blocks in S3, how long a block stays doomed that a collector is about to delete; no put writes it
    /// meanwhile. The requests are valid for half of that; the other half covers the difference between the
    /// clocks of client and server.
    pub doom: Duration,
    /// How long a generation lasts that a writer begins.
    pub generation: Duration,
}

impl Timing {
    /// The times of every store that shares a database.
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
