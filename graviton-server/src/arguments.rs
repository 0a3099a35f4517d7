//! The command line of the server as clap sees it.

use std::ffi::OsString;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use graviton_core::{SETTINGS as STORE, Setting, quantity};
use graviton_server::settings::SETTINGS as SERVER;

/// A content-addressed blob store over HTTP.
///
/// Without any settings it serves the store in ./.graviton on 127.0.0.1:8081 to every user of this machine.
/// The page `/docs` explains every route; `/api/openapi.json` describes them for programs.
///
/// SIGTERM and SIGINT shut the server down after running requests have finished. SIGHUP reloads certificates,
/// tokens and keys.
#[derive(Debug, Parser)]
#[command(name = "graviton-server", version, after_long_help = settings(), subcommand_negates_reqs = true)]
#[command(after_help = "`graviton-server --help` lists all settings.")]
pub(crate) struct Arguments {
    /// Directory of the store (GRAVITON_FS_ROOT) [default: ./.graviton]
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<OsString>,
    /// Set a setting; may be repeated. `--help` lists all settings
    #[arg(long, value_name = "KEY=VALUE", value_parser = OsStringValueParser::new().try_map(Setting::assignment))]
    pub(crate) set: Vec<(String, OsString)>,
    /// Allow any address without authentication: everyone who can reach the server can read, write and delete
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Use the existing blocks although their store-id is gone, as `graviton verify --adopt` does
    #[arg(long)]
    pub(crate) adopt: bool,
    /// Make this copy of the database the one that owns the blocks, as `graviton verify --take-over` does;
    /// not for every start
    #[arg(long)]
    pub(crate) take_over: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a bearer token and print it; the line for the token file goes to --file, or to standard error
    ///
    /// The token file (GRAVITON_HTTP_TOKENS) contains only a hash of each token. A running server reads the
    /// file again on SIGHUP. To revoke a token, remove its line.
    Token(Token),
    /// Print the OpenAPI document
    Openapi,
}

#[derive(Debug, Args)]
pub(crate) struct Token {
    /// Name of the token's owner, a word for logs and rate limits
    pub(crate) name: String,
    /// Scopes of the token, separated by commas: read, write, delete, admin
    #[arg(long, default_value = "read")]
    pub(crate) scopes: String,
    /// Lifetime of the token, such as 90d [default: unlimited]
    #[arg(long, value_name = "DURATION", value_parser = quantity::duration)]
    pub(crate) expires: Option<Duration>,
    /// Append the token's line to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

fn settings() -> String {
    let mut text = String::from("Settings of the server (environment variables, or --set NAME=VALUE):\n");
    for setting in SERVER {
        describe(&mut text, setting);
    }
    text.push_str("\nSettings of the store:\n");
    for setting in STORE {
        describe(&mut text, setting);
    }
    text
}

fn describe(text: &mut String, Setting { name, default, meaning, .. }: &Setting) {
    let default = if default.is_empty() { String::new() } else { format!(" [{default}]") };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "  {name}{default}\n      {meaning}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn clap_finds_no_fault_and_the_long_help_names_every_setting() {
        Arguments::command().debug_assert();
        let help = Arguments::command().render_long_help().to_string();
        for name in STORE.iter().map(|setting| setting.name).chain(SERVER.iter().map(|setting| setting.name))
        {
            assert!(help.contains(name), "{name}");
        }
    }
}
