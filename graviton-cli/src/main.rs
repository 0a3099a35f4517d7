//! `graviton`, the command line of the blob store.
//!
//! ```text
//! main -> arguments -> put ── source       failure, interrupt, output, progress
//!                   -> get ── destination, damage  are used by all
//!                   -> inspect (stat, ls, manifest, stats)
//!                   -> remove (rm, restore), collect (gc), repack, verify, upgrade,
//!                      transfer (copy, repair, backup)
//! ```
//! Commands run on the main thread, which may block. The engine's tasks and the task that handles signals
//! have threads of their own. The process ends through `exit`, so that a thread that is stuck in a read from
//! a terminal or a pipe cannot delay it.

#![forbid(unsafe_code)]

mod arguments;
mod collect;
mod context;
mod damage;
mod destination;
mod failure;
mod get;
mod inspect;
mod interrupt;
mod output;
mod progress;
mod put;
mod remove;
mod repack;
mod source;
mod transfer;
mod upgrade;
mod verify;

use std::process::ExitCode;

use crate::arguments::{Arguments, Command};
use crate::context::Context;
use crate::failure::Failure;

fn main() -> ExitCode {
    let arguments = match Arguments::of_this_process() {
        Ok(arguments) => arguments,
        Err(answer) => {
            // A closed pipe while help is printed is no error.
            let _ = answer.print();
            return ExitCode::from(if answer.use_stderr() { 2 } else { 0 });
        }
    };
    allow_many_files();
    let result = match graviton_core::runtime() {
        Ok(runtime) => runtime.block_on(run(arguments)),
        Err(error) => Err(Failure::outside(error)),
    };
    let exit_code = result.unwrap_or_else(|failure| {
        failure.report();
        failure.exit_code()
    });
    std::process::exit(i32::from(exit_code))
}

async fn run(arguments: Arguments) -> Result<u8, Failure> {
    let context = Context::new(&arguments.common())?;
    match arguments.command {
        Command::Put(put) => return put::put(&context, put).await,
        Command::Get(get) => get::get(&context, get).await?,
        Command::Stat(one) => inspect::stat(&context, &one.id).await?,
        Command::Manifest(one) => inspect::manifest(&context, &one.id).await?,
        Command::Ls(list) => inspect::list(&context, list.after.as_deref(), list.limit).await?,
        Command::Stats(_) => inspect::stats(&context).await?,
        Command::Rm(several) => return remove::remove(&context, &several.ids).await,
        Command::Restore(several) => return remove::restore(&context, &several.ids).await,
        Command::Gc(collect) => return collect::collect(&context, &collect).await,
        Command::Repack(arguments) => return repack::repack(&context, &arguments).await,
        Command::Verify(verify) => return verify::verify(&context, &verify).await,
        Command::Repair(repair) => return transfer::repair(&context, &repair).await,
        Command::Copy(copy) => return transfer::copy(&context, &copy).await,
        Command::Backup(backup) => return transfer::backup(&context, &backup).await,
        Command::Upgrade(_) => upgrade::upgrade(&context).await?,
    }
    Ok(0)
}

/// A put opens many files at once, and the usual limit is meant for programs that use `select`.
fn allow_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    const PLENTY: u64 = 4096;
    let mut limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.map_or(PLENTY, |maximum| maximum.min(PLENTY));
    if limit.current.is_some_and(|current| current < most) {
        limit.current = Some(most);
        // If it fails, less work runs at once.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}
