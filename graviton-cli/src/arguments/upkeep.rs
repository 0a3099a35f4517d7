//! The arguments of the commands that delete, collect, verify and heal.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::Common;
use graviton_core::{BlockLayout, quantity};

#[derive(Debug, Args)]
pub(crate) struct Several {
    /// Blobs, as `put` printed them: `<algo>:<hex>:<size>`
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<String>,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Collect {
    /// The grace period: collect what was deleted before it, such as 30m, 12h, 7d, or 0 [default:
    /// GRAVITON_GC_GRACE]
    #[arg(long, value_name = "DURATION", value_parser = quantity::duration)]
    pub(crate) grace: Option<Duration>,
    /// Only print what would be deleted
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Stop after this many seconds; the next gc continues from there
    #[arg(long, value_name = "N")]
    pub(crate) max_seconds: Option<u64>,
    /// Delete at most this many blocks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_blocks: Option<u64>,
    /// Delete at most about this many bytes, such as 10GiB
    #[arg(long, value_name = "SIZE", value_parser = quantity::bytes)]
    pub(crate) max_bytes: Option<u64>,
    /// Delete at most this many blocks in a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) blocks_per_second: Option<u32>,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct Verify {
    /// The blobs to verify, as `put` printed them; without any, the whole store
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// Read and hash every block; otherwise only lengths are checked
    #[arg(long)]
    pub(crate) deep: bool,
    /// Read at most this many bytes in a second, such as 10MiB. Only with --deep
    #[arg(long, value_name = "BYTES/S", value_parser = quantity::rate, requires = "deep")]
    pub(crate) rate: Option<u64>,
    /// Continue from the cursor of an interrupted verification of the whole store
    #[arg(long, value_name = "CURSOR", conflicts_with = "ids")]
    pub(crate) from: Option<String>,
    /// Hand blocks without a row in the database to the next gc; also use blocks whose store-id is gone
    #[arg(long, conflicts_with = "ids")]
    pub(crate) adopt: bool,
    /// Copy blocks that are missing or damaged from packs without a row in the database: after it was
    /// restored from a backup. With --adopt, the next gc then drops these packs when the grace is over
    #[arg(long, conflicts_with = "ids")]
    pub(crate) rebuild: bool,
    /// Make this copy of the database (a restored backup, a promoted standby) the one that owns the blocks;
    /// the other is refused from then on: end what uses it first
    #[arg(long, conflicts_with = "ids")]
    pub(crate) take_over: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Repack {
    /// The layout that all blocks get: `packs`, or `files` of their own
    #[arg(long, value_name = "LAYOUT", value_parser = str::parse::<BlockLayout>)]
    pub(crate) to: BlockLayout,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Repair {
    /// The other store: its directory, or a file with its settings as lines NAME=VALUE
    #[arg(long, value_name = "OTHER")]
    pub(crate) from: PathBuf,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Copy {
    /// The other store: its directory, or a file with its settings as lines NAME=VALUE
    #[arg(long, value_name = "OTHER")]
    pub(crate) from: PathBuf,
    /// The blobs to copy; without any, all blobs of the other store
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<String>,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// The file to write. It must not exist, and appears only when it is complete
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(super) common: Common,
}
