//! The command line of the server as clap sees it.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use graviton_core::SETTINGS as STORE;
use graviton_core::quantity;
use graviton_server::settings::SETTINGS as SERVER;

/// A content-addressed blob store over HTTP.
///
/// With nothing configured it serves the store in ./.graviton on 127.0.0.1:8081, to whoever is on this machine. `/docs`
/// there explains every route, and `/api/openapi.json` says the same for programs.
///
/// SIGTERM lets requests under way end, and then the server; SIGHUP reads certificates, tokens and keys again.
#[derive(Debug, Parser)]
#[command(name = "graviton-server", version, after_long_help = settings(), subcommand_negates_reqs = true)]
#[command(after_help = "`graviton-server --help` lists all settings.")]
pub(crate) struct Arguments {
    /// The directory of the store (GRAVITON_FS_ROOT) [default: ./.graviton]
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<String>,
    /// Change a setting; may be repeated. `--help` lists them
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub(crate) set: Vec<(String, String)>,
    /// Listen anywhere without authentication: whoever can reach it can read, write and delete
    #[arg(long)]
    pub(crate) insecure: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a bearer token, and print it; the line for the file of tokens goes to --file, or to standard error
    ///
    /// The file (GRAVITON_HTTP_TOKENS) has only the hash of the token. A server that runs reads it again on SIGHUP. To
    /// take a token back, remove its line.
    Token(Token),
    /// Print the OpenAPI document
    Openapi,
}

#[derive(Debug, Args)]
pub(crate) struct Token {
    /// Whose it is: a word for logs and rate limits
    pub(crate) name: String,
    /// What it allows: some of read, write, delete and admin, with commas between them
    #[arg(long, default_value = "read")]
    pub(crate) scopes: String,
    /// For how long, such as 90d; for ever if it is not given
    #[arg(long, value_name = "DURATION", value_parser = quantity::duration)]
    pub(crate) expires: Option<Duration>,
    /// Add its line to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it is not of the form KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn settings() -> String {
    let mut text = String::from("Settings of the server (environment variables, or --set NAME=VALUE):\n");
    for setting in SERVER {
        describe(&mut text, setting.name, setting.default, setting.meaning);
    }
    text.push_str("\nSettings of the store:\n");
    for setting in STORE {
        describe(&mut text, setting.name, setting.default, setting.meaning);
    }
    text
}

fn describe(text: &mut String, name: &str, default: &str, meaning: &str) {
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
