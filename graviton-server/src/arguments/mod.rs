//! The command line as clap sees it: commands, options, help.
//!
//! Clap refuses only what is malformed as a command line (exit code 2). Ids and settings are parsed
//! behind it, so that their errors are those of the library.

use std::ffi::OsString;
use std::fmt::Write;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use graviton_core::SETTINGS;

use crate::range::ByteRange;

/// A content-addressed blob store: files go in, are cut into blocks that are stored once each, and come
/// back verified by their id.
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
  0 done, 1 failed, 2 wrong usage, 3 no such blob or store, 4 corrupt or missing data,
  130 interrupted with Ctrl-C (143 by SIGTERM, 129 by SIGHUP)

",
    );
    text.push_str(EXAMPLES);
    text
}

/// What every command takes, before or after its name.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Common {
    /// The directory of the store (GRAVITON_FS_ROOT) [default: ./.graviton]
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<OsString>,
    /// Change a setting; may be repeated. `graviton --help` lists them
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub(crate) set: Vec<(String, String)>,
    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
    /// Show no progress
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it is not of the form KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Store files, or standard input, and print their ids
    ///
    /// Each id is printed on a line of its own, in the order of the paths, once its content is stored for
    /// good. A path that cannot be stored gets an error on standard error instead; the others are stored
    /// all the same, and the exit code is 1. With --json a line is a receipt: path, id, size, blocks,
    /// fresh_blocks and fresh_bytes (what was not in the store before), seconds.
    ///
    /// Nothing is visible of what was interrupted or failed. If nobody reads the ids any more, the storing
    /// goes on.
    Put(Put),
    /// Write a blob, or a part of it, to standard output or to a file
    ///
    /// Every block is verified before a byte of it is written. A reader that closes the pipe early ends it
    /// quietly, with exit code 0.
    Get(Get),
    /// Show what is known of a blob
    Stat(One),
    /// List the blobs of the store, in the order of their ids
    Ls(List),
    /// List the blocks that a blob consists of
    Manifest(One),
    /// Show sums over the store: blobs, blocks, bytes, deduplication
    Stats(Sums),
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
    /// Write to this file, which appears only when it is complete; `-` is standard output. A device or a
    /// pipe is written straight
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
    /// Begin behind this id, whether it is there or not
    #[arg(long, value_name = "ID")]
    pub(crate) after: Option<String>,
    /// List at most so many
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
    /// The arguments of this process, or what clap has to say instead: help, the version, wrong usage.
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

    /// What was said before and after the command, together. What came later wins.
    pub(crate) fn common(&self) -> Common {
        let inner = match &self.command {
            Command::Put(put) => &put.common,
            Command::Get(get) => &get.common,
            Command::Stat(one) | Command::Manifest(one) => &one.common,
            Command::Ls(list) => &list.common,
            Command::Stats(sums) => &sums.common,
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
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
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
