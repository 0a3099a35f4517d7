//! `graviton-server`, the blob store over HTTP: settings, signals, exit code. The server itself is the
//! library.
//!
//! SIGTERM and SIGINT let running requests finish; a second one aborts them. SIGHUP reloads certificates,
//! tokens and keys. Exit codes: 0 after a clean shutdown, 1 if the server could not start or aborted
//! requests, 2 for wrong usage.

#![forbid(unsafe_code)]

mod arguments;

use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use graviton_core::{Code, Config, Error, Result};
use graviton_server::settings::{PREFIX, Settings};
use graviton_server::{Control, Port, Server, auth, logs, openapi_json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::arguments::{Arguments, Command, Token};

/// The system allocator keeps the peak of each thread for ever; jemalloc returns memory within seconds.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.command {
        Some(Command::Token(token)) => make_token(token),
        Some(Command::Openapi) => print(openapi_json()),
        None => run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let advice = error.advice().map(|advice| format!("  help: {advice}\n")).unwrap_or_default();
            // If standard error is closed, nobody reads it.
            let _ =
                std::io::stderr().write_all(format!("error[{}]: {error}\n{advice}", error.code()).as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let (config, settings) = configure(arguments)?;
    let _log = logs::install(&settings)?;
    allow_many_files();
    // The runtime is never shut down: a system call that hangs must not delay the exit.
    graviton_core::runtime()?.block_on(serve(config, settings))
}

async fn serve(config: Config, settings: Settings) -> Result<()> {
    // With a handler, a write that exceeds the limit on file size fails, and the process does not end.
    drop(listen_to(SignalKind::from_raw(SIGXFSZ))?);
    let mut hangups = listen_to(SignalKind::hangup())?;
    let mut interrupts = listen_to(SignalKind::interrupt())?;
    let mut terminations = listen_to(SignalKind::terminate())?;
    let port = Port::take(&settings)?;
    let store = config.open_async().await?;
    let is_tls = settings.tls.is_some();
    let server = Server::new(port, store, settings).await?;
    let control = server.control();
    let scheme = if is_tls { "https" } else { "http" };
    // The first line on standard output: scripts wait for it.
    print(&format!("listening on {scheme}://{}\n", server.address()))?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupts.recv() => control.stop(),
                _ = terminations.recv() => control.stop(),
                _ = hangups.recv() => reload(&control),
            }
        }
    });
    if server.run().await {
        return Ok(());
    }
    Err(Error::new(Code::Cancelled, "running requests were aborted")
        .with_advice("raise GRAVITON_HTTP_DRAIN to give them more time"))
}

/// The signal for a write beyond the limit on file size.
const SIGXFSZ: i32 = rustix::process::Signal::XFSZ.as_raw();

fn reload(control: &Control) {
    match control.reload() {
        Ok(()) => tracing::info!("certificates, tokens and keys reloaded"),
        Err(error) => {
            tracing::error!(code = %error.code(), %error, "reload failed; what could not be loaded stays as it was");
        }
    }
}

fn listen_to(kind: SignalKind) -> Result<Signal> {
    signal(kind).map_err(|error| Error::io("cannot handle signals", error))
}

/// The environment, overridden by the command line: the settings of the store and those of the server.
fn configure(arguments: &Arguments) -> Result<(Config, Settings)> {
    let mut config = Config::from_env()?;
    if let Some(root) = &arguments.root {
        config = config.in_directory(root)?;
    }
    let (mut servers, stores): (Vec<_>, Vec<_>) =
        arguments.set.iter().cloned().partition(|(name, _)| name.starts_with(PREFIX));
    if arguments.insecure {
        servers.push((format!("{PREFIX}INSECURE"), "true".into()));
    }
    for (name, value) in &stores {
        config = config.set_os(name, value)?;
    }
    config = config.adopt(arguments.adopt).take_over(arguments.take_over);
    Ok((config.put_window(WINDOW).shared_put_window(SHARED_WINDOW), Settings::from_env_and(servers)?))
}

/// Memory of an upload: less than the default of the library, so that 64 concurrent uploads stay below 1 GiB.
const WINDOW: usize = 8 << 20;

/// Memory that uploads share beyond that: the library's default for one put. Without it, a lone upload takes
/// a tenth longer.
const SHARED_WINDOW: usize = 64 << 20;

/// Each connection and each block being read needs a descriptor; the usual soft limit is meant for programs
/// that use `select`.
fn allow_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // If it fails, the server handles fewer connections at once.
    let _ = setrlimit(Resource::Nofile, limit);
}

fn make_token(token: &Token) -> Result<()> {
    let (secret, line) = auth::tokens::make(&token.name, &token.scopes, token.expires)?;
    match &token.file {
        None => {
            // Not on standard output, so that the token can be piped alone.
            let _ = writeln!(std::io::stderr(), "{line}");
        }
        Some(file) => append(file, &line)?,
    }
    print(&format!("{secret}\n"))
}

/// Appends a line to a file; a new file is readable only by its owner.
fn append(file: &Path, line: &str) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let opened = options.create(true).append(true).read(true).mode(0o600).open(file);
    opened
        .and_then(|mut opened| {
            // An editor may have left the last line without a line feed.
            let mut before = String::new();
            opened.read_to_string(&mut before)?;
            let end = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
            opened.write_all(format!("{end}{line}\n").as_bytes())
        })
        .map_err(|error| Error::io_at("cannot write", file, error))
}

fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| Error::io("cannot write to standard output", error))
}
