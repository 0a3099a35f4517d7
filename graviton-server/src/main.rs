//! `graviton-server`, the blob store over HTTP: settings, signals, exit code. The server itself is the library.
//!
//! SIGTERM and SIGINT let requests under way end, a second one cuts them off; SIGHUP reads certificates, tokens and keys
//! again. Exit codes: 0 ended as asked, 1 could not start or had to cut off requests, 2 wrong usage.

#![forbid(unsafe_code)]

mod arguments;

use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use graviton_core::{Code, Config, Error, Result};
use graviton_server::settings::{PREFIX, Settings};
use graviton_server::{Control, Server, auth, logs, openapi_json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::arguments::{Arguments, Command, Token};

/// The system's keeps what the busiest moment of each thread needed; this one gives it back within seconds.
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
            // If standard error is closed there is nobody to tell.
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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::io("cannot start threads", error))?;
    let result = runtime.block_on(serve(config, settings));
    // A system call that hangs must not hold up the end.
    runtime.shutdown_background();
    result
}

async fn serve(config: Config, settings: Settings) -> Result<()> {
    let mut hangups = listen_to(SignalKind::hangup())?;
    let mut interrupts = listen_to(SignalKind::interrupt())?;
    let mut terminations = listen_to(SignalKind::terminate())?;
    graviton_server::check(&settings)?;
    let store = config.open_async().await?;
    let is_tls = settings.tls.is_some();
    let server = Server::bind(store, settings).await?;
    let control = server.control();
    let scheme = if is_tls { "https" } else { "http" };
    // On standard output, and before anything else there: a script waits for it.
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
    Err(Error::new(Code::Cancelled, "requests were under way, and were cut off")
        .with_advice("raise GRAVITON_HTTP_DRAIN to give them longer"))
}

fn reload(control: &Control) {
    match control.reload() {
        Ok(()) => tracing::info!("certificates, tokens and keys were read again"),
        Err(error) => {
            tracing::error!(code = %error.code(), %error, "not all was read again: what cannot be used stays as it was");
        }
    }
}

fn listen_to(kind: SignalKind) -> Result<Signal> {
    signal(kind).map_err(|error| Error::io("cannot listen to signals", error))
}

/// The environment, and what the command line says over it; names of the server apart from those of the store.
fn configure(arguments: &Arguments) -> Result<(Config, Settings)> {
    let mut config = Config::from_env()?;
    if let Some(root) = &arguments.root {
        config = config.set("GRAVITON_FS_ROOT", root)?;
    }
    let (mut servers, stores): (Vec<_>, Vec<_>) =
        arguments.set.iter().cloned().partition(|(name, _)| name.starts_with(PREFIX));
    if arguments.insecure {
        servers.push((format!("{PREFIX}INSECURE"), "true".to_owned()));
    }
    for (name, value) in &stores {
        config = config.set(name, value)?;
    }
    Ok((config.put_window(WINDOW).shared_put_window(SHARED_WINDOW), Settings::from_env_and(&servers)?))
}

/// Memory of an upload: less than a program has for its own puts, for 64 of them at once are to stay below 1 GiB.
const WINDOW: usize = 8 << 20;

/// Memory that uploads find beyond that: as much as a program has for one put. One upload alone took a tenth longer without.
const SHARED_WINDOW: usize = 64 << 20;

/// A connection is a descriptor, and so is a block that is read: the usual limit is for programs that use `select`.
fn allow_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Without it, less is done at once.
    let _ = setrlimit(Resource::Nofile, limit);
}

fn make_token(token: &Token) -> Result<()> {
    let (secret, line) = auth::tokens::make(&token.name, &token.scopes, token.expires)?;
    match &token.file {
        None => {
            // Apart, so that the one can be piped without the other.
            let _ = writeln!(std::io::stderr(), "{line}");
        }
        Some(file) => append(file, &line)?,
    }
    print(&format!("{secret}\n"))
}

/// Adds a line to a file that only its owner may read.
fn append(file: &Path, line: &str) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let opened = options.create(true).append(true).read(true).mode(0o600).open(file);
    opened
        .and_then(|mut opened| {
            // Who edits it by hand may have left the last line without an end.
            let mut before = String::new();
            opened.read_to_string(&mut before)?;
            let end = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
            opened.write_all(format!("{end}{line}\n").as_bytes())
        })
        .map_err(|error| Error::io(format!("cannot write {}", file.display()), error))
}

fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| Error::io("cannot write to standard output", error))
}
