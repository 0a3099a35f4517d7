//! The command line as clap sees it: commands, options, help.
//!
//! Clap refuses only malformed command lines (exit code 2). Ids and settings are parsed later, so that their
//! errors are those of the library.

mod upkeep;

use std::ffi::OsString;
use std::fmt::Write;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use graviton_core::{SETTINGS, Setting};

use graviton_core::ByteRange;
pub(crate) use upkeep::{Backup, Collect, Copy, Repack, Repair, Several, Verify};

/// A content-addressed blob store: files are cut into blocks that are stored once each, and read back
/// verified by their id.
#[derive(Debug, Parser)]
#[command(name = "graviton", version, subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = format!("{EXAMPLES}\n\n{MORE_HELP}"), after_long_help = long_help())]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  graviton put README.md                 store a file; prints its id
  graviton get blake3:…:1234 -o copy.md  write it back, verified
  tar c photos | graviton put -          store a stream";

const MORE_HELP: &str = "\
`graviton --help` lists settings and exit codes; `graviton COMMAND --help` explains a command.";

fn long_help() -> String {
    let mut text = String::from("Settings (environment variables, or --set NAME=VALUE):\n");
    for setting in SETTINGS {
        let default =
            if setting.default.is_empty() { String::new() } else { format!(" [{}]", setting.default) };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {}{default}\n      {}", setting.name, setting.meaning);
    }
    text.push_str(
        "
Exit codes:
  0 done, 1 failed, 2 wrong usage, 3 no such blob or store, 4 corrupt or missing data found,
  130 interrupted with Ctrl-C (143 by SIGTERM, 129 by SIGHUP)

",
    );
    text.push_str(EXAMPLES);
    text
}

/// The options of every command, before or after its name.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Common {
    /// The directory of the store (GRAVITON_FS_ROOT) [default: ./.graviton]
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<OsString>,
    /// Change a setting; may be repeated. `graviton --help` lists them
    #[arg(long, value_name = "KEY=VALUE", value_parser = OsStringValueParser::new().try_map(Setting::assignment))]
    pub(crate) set: Vec<(String, OsString)>,
    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
    /// Show no progress
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Store files, or standard input, and print their ids
    ///
    /// Each id is printed on a line of its own, in the order of the paths, once its content is committed. For
    /// a path that cannot be stored, an error is printed on standard error; the others are stored, and the
    /// exit code is 1. With --json a line is a receipt: path, id, size, blocks, fresh_blocks, fresh_bytes and
    /// fresh_stored_bytes
    /// (new to the store), seconds.
    ///
    /// An interrupted or failed put leaves nothing visible. If standard output is closed, storing continues.
    Put(Put),
    /// Write a blob, or a part of it, to standard output or to a file
    ///
    /// Every block is verified before any of it is written. If the reader of a pipe closes it early, the exit
    /// code is 0. If a block is damaged, the exit code is 4, and where the store may be written to, the next
    /// put of the content writes that block.
    Get(Get),
    /// Show the metadata of a blob
    Stat(One),
    /// List the blobs of the store, in the order of their ids
    Ls(List),
    /// List the blocks of a blob
    Manifest(One),
    /// Show totals of the store: blobs, blocks, bytes, deduplication, and what gc would free
    ///
    /// Dead blobs are deleted and can still be restored. Reclaimable bytes belong to blocks that neither a
    /// live blob nor a running put needs: `gc --grace 0` would free them.
    Stats(Sums),
    /// Delete blobs, and print their ids
    ///
    /// No process finds them any more. During the grace period (GRAVITON_GC_GRACE), open readers continue and
    /// `restore` brings them back; the next gc after it frees their space. For an id that is not there, an
    /// error is printed, the others are deleted, and the exit code is 3. With a malformed id, nothing is
    /// deleted.
    ///
    /// With --json a line is: id, state (deleted).
    Rm(Several),
    /// Restore deleted blobs, and print their ids
    ///
    /// This works during the grace period, and after it until the next gc. A live blob stays live. For an id
    /// that is not there, an error is printed, the others are restored, and the exit code is 3.
    ///
    /// With --json a line is: id, state (live).
    Restore(Several),
    /// Free the space of blobs that were deleted before the grace period, and of puts whose process died
    ///
    /// It runs beside puts, reads and other collections, here and on other hosts. It can be interrupted at
    /// any moment; the next one continues from there. Run it regularly, for example from cron. It also works
    /// on a full disk: the file `reserve` in the store is kept for that, where 16 MiB are free.
    ///
    /// The exit code is 0 if it freed some blocks and could not delete others; the text says how many, and
    /// why. If it could delete none of them, the exit code is that of the error.
    ///
    /// At its end, a collection that no limit stopped looks at up to 16384 files of blocks and as many packs
    /// for some that the database does not know: of running puts, or left by killed ones. It counts them.
    /// `verify --adopt` finds all of them and hands them to the next gc. Objects in S3 are not looked at.
    ///
    /// With --json there is one line: kind (summary), dry_run, blobs, blocks, bytes (deleted),
    /// abandoned_puts, kept_referenced, kept_doomed, kept_failed (blocks that stayed), failure (why the
    /// first of those did, if one could not be deleted), leftovers (files), complete (whether nothing was
    /// left to do), seconds, unreferenced, unreferenced_bytes (what the database does not know). With
    /// --dry-run, before it, a line for each of up to 10000 blobs: kind (blob), id.
    Gc(Collect),
    /// Move the blocks of a store into packs, or out of them into files
    ///
    /// Runs beside everything else that uses the store. When interrupted, run it again for the rest. Blocks
    /// that a running put uses stay where they are until then. Damaged blocks are marked, so that the next
    /// put of their content writes them again, and the exit code is 4. Where new blocks are written is a
    /// setting: GRAVITON_BLOCK_LAYOUT. In S3, an object whose deletion got no answer stays for half an hour.
    ///
    /// With --json there is one line: kind (summary), blocks, bytes (moved), present (there before), damaged,
    /// skipped (left for another repack), remaining (blocks that are not there yet), leftovers (files or
    /// objects of an earlier repack that were removed), kept_failed (files or objects that could not be
    /// removed), failure (why the first of those was kept), complete, seconds.
    Repack(Repack),
    /// Check that everything is there and intact, and print what is not
    ///
    /// Checks the database, the manifests, the lengths of the blocks (with --deep, every byte of them) and
    /// blocks without a row in the database. A line for each finding:
    ///
    ///   missing KEY, corrupt KEY   a bad block; below it, the blobs that need it
    ///   manifest ID: WHY           a blob with a broken manifest
    ///   database: WHY              a problem that the database's self-check found
    ///   unreferenced KEY           a block of a running put, or garbage; not damage
    ///
    /// The exit code is 4 if there is damage. A bad block is marked, so that the next put of its content
    /// writes it again; nothing else is changed. Where the store may not be written to, nothing is marked.
    /// When interrupted, it prints a cursor for --from.
    ///
    /// With --json a line is a finding: kind (missing, corrupt, manifest, database, unreferenced, pack), and
    /// key, length, blobs, or id, why, or name, length. The last is: kind (summary), blobs, blocks, bytes
    /// (hashed), missing, corrupt, broken_manifests, database_problems, unreferenced, unreferenced_bytes,
    /// clean, complete, cursor, seconds.
    #[command(verbatim_doc_comment)]
    Verify(Verify),
    /// Replace missing and damaged blocks by blocks of another store
    ///
    /// Reads every block that a live blob needs. Blocks of the other store are verified before they are
    /// written. For each bad block that is missing or damaged in the other store too, it prints a line `lost
    /// KEY`, and the exit code is 4. The other store is not changed.
    ///
    /// With --json a line is: kind (lost), key. The last is: kind (summary), checked, repaired (blocks),
    /// bytes, lost, complete, seconds.
    Repair(Repair),
    /// Copy blobs from another store of any kind, and verify them
    ///
    /// Only blocks that are missing here are transferred. After an interruption, run it again. For each blob
    /// that is damaged in the other store, it prints a line `damaged ID`, and the exit code is 4. For a given
    /// ID that is not there, an error is printed, and the exit code is 3. The other store is not changed.
    ///
    /// With --json a line is: kind (damaged), id. The last is: kind (summary), blobs (new here), present
    /// (here before), blocks, bytes (transferred), damaged, complete, seconds.
    Copy(Copy),
    /// Write a consistent copy of the manifests to a file, while the store is in use
    ///
    /// Only for manifests in SQLite; for PostgreSQL, use pg_dump. The copy does not contain the blocks;
    /// deleted ones are kept at least for the grace period. To restore it, end all processes that use the
    /// store, replace manifests.db by the file, remove manifests.db-wal and manifests.db-shm, and
    /// run verify --take-over.
    ///
    /// With --json there is one line: file, bytes, seconds.
    Backup(Backup),
    /// Give the database of a store that an older version made the tables for packs
    ///
    /// Only GRAVITON_BLOCK_LAYOUT=packs needs them. Programs of the older version that use the store get
    /// errors from then on, so end them first. While a store is putting, and for a minute after it was
    /// killed, nothing is changed, and the exit code is 1.
    ///
    /// With --json there is one line: upgraded (false if it was done before).
    Upgrade(Sums),
}

#[derive(Debug, Args)]
pub(crate) struct Put {
    /// Files to store; `-` is standard input
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Store the one PATH only if its content has this id
    #[arg(long, value_name = "ID")]
    pub(crate) expect: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// The blob, as `put` printed it: `<algo>:<hex>:<size>`
    pub(crate) id: String,
    /// Write to this file, which appears only when it is complete; `-` is standard output. A device or a pipe
    /// is written directly
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Only these bytes, counted from 0: FIRST-LAST (LAST included), FIRST- (to the end), -N (the last N)
    #[arg(long, value_name = "FIRST-LAST", allow_hyphen_values = true)]
    pub(crate) range: Option<ByteRange>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct One {
    /// The blob, as `put` printed it: `<algo>:<hex>:<size>`
    pub(crate) id: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Start after this id, which need not exist
    #[arg(long, value_name = "ID")]
    pub(crate) after: Option<String>,
    /// List at most this many
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Sums {
    #[command(flatten)]
    common: Common,
}

impl Arguments {
    /// The arguments of this process, or clap's own answer: help, the version, wrong usage.
    pub(crate) fn of_this_process() -> Result<Arguments, clap::Error> {
        let arguments = Arguments::try_parse()?;
        if let Command::Put(put) = &arguments.command {
            let inputs = put.paths.iter().filter(|path| path.as_os_str() == "-").count();
            if inputs > 1 {
                return Err(wrong("standard input (`-`) can be stored only once"));
            }
            if put.expect.is_some() && put.paths.len() != 1 {
                return Err(wrong("`--expect ID` needs exactly one PATH"));
            }
        }
        Ok(arguments)
    }

    /// The common options before and after the command. The later one wins.
    pub(crate) fn common(&self) -> Common {
        let inner = match &self.command {
            Command::Put(put) => &put.common,
            Command::Get(get) => &get.common,
            Command::Stat(one) | Command::Manifest(one) => &one.common,
            Command::Ls(list) => &list.common,
            Command::Stats(sums) | Command::Upgrade(sums) => &sums.common,
            Command::Rm(several) | Command::Restore(several) => &several.common,
            Command::Gc(collect) => &collect.common,
            Command::Verify(verify) => &verify.common,
            Command::Repack(arguments) => &arguments.common,
            Command::Repair(repair) => &repair.common,
            Command::Copy(copy) => &copy.common,
            Command::Backup(backup) => &backup.common,
        };
        let outer = &self.common;
        Common {
            root: inner.root.clone().or_else(|| outer.root.clone()),
            set: outer.set.iter().chain(&inner.set).cloned().collect(),
            json: outer.json || inner.json,
            quiet: outer.quiet || inner.quiet,
        }
    }
}

fn wrong(message: &str) -> clap::Error {
    let mut command = Arguments::command();
    command.build();
    match command.find_subcommand_mut("put") {
        Some(put) => put.error(ErrorKind::ArgumentConflict, message),
        None => command.error(ErrorKind::ArgumentConflict, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_finds_no_fault_with_the_definition() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn options_before_and_after_the_command_add_up() {
        let line = "graviton --root a --set A=1 -q put --set B=2=3 --root b --json x";
        let common = Arguments::try_parse_from(line.split(' ')).unwrap().common();
        let pair = |key: &str, value: &str| (key.to_owned(), OsString::from(value));
        assert_eq!(common.root.unwrap(), "b");
        assert_eq!(common.set, [pair("A", "1"), pair("B", "2=3")]);
        assert!(common.json && common.quiet);
    }

    #[test]
    fn the_long_help_names_every_setting() {
        let help = Arguments::command().render_long_help().to_string();
        for setting in SETTINGS {
            assert!(help.contains(setting.name), "{}", setting.name);
        }
    }
}
