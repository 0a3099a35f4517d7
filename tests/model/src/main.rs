//! The put, delete and collect protocol, checked in every interleaving of small bounds with `stateright`.
//!
//! ```text
//! main -> bounds (how much is tried; the mutants)
//!      -> protocol (all steps, all properties) -> writer     begin, pin, store, mark, commit; the short path
//!                                              -> collector  doom, sweep, and what a lost session leaves
//!                                              -> blob       delete, restore, expire, reap; readers
//!                                              -> verify     damage, clearing, adopting
//!                                              -> quiet      what a collection leaves when nobody else moves
//!                                              -> state      what there is at one moment
//! ```
//! # What is modelled
//! Two blocks that three contents share ({A}, {B}, {A, B}), two writers, two collectors, a reader, verify, and damage
//! from outside. A transaction is one step, for it locks the rows of its blocks (and of the blob whose state it requires)
//! before it looks at anything. Where the order of looking and locking matters there is a mutant that looks first. The
//! sweep is many steps: bytes are deleted inside its transaction, and the session, and with it the locks, can be lost at
//! any point while the deletions go on. What has not to do with locks is a step of its own: each file, each deletion.
//! SQLite, where a transaction locks the whole database, allows some of these runs and no others.
//!
//! # What holds
//! 1. A blob that is live, can be restored, or is being read has all rows and bytes of its blocks.
//! 2. A row never says `stored` of bytes that are not there, except after damage and until they are written again.
//! 3. A blob whose put or restore has returned is live until it is deleted.
//! 4. Verify never clears `stored` of a block that is good.
//! 5. If everybody stopped, one collection would leave exactly what is referenced, and the bytes without rows that it was
//!    asked to adopt would be gone. (Asked of every state: "eventually" means nothing where runs can go in circles.)
//!
//! # What is not modelled
//! Power cuts, which are in `put_and_collect.py` beside this crate, with one block; so is why the short path must find
//! *its own* file, and not any whole one: only a power cut shows the difference. Deadlocks. Batches of several blocks in
//! one pin. How times are kept: that a doom does not run out while a deletion that relies on it may happen is assumed,
//! and the mutant `ShortDoom` is what that assumption is worth. That a writer that is gone loses its lease.
//!
//! # How much that is
//! The short leg has 7.1 million states in 9 sets of bounds, and 23 mutants: half a minute on two cores, 0.2 GiB. Of the
//! long leg, asked for by name, `all-long` has 11 million states, `files-long` 16 million and `long-long` 29 million, which
//! takes some minutes and 3 GiB. `short-long` is larger: let it run for as long as there is memory.

#![forbid(unsafe_code)]
#![allow(clippy::unused_self, reason = "all steps are called alike, also those that no mutant changes")]

mod blob;
mod bounds;
mod collector;
mod protocol;
mod quiet;
mod state;
mod verify;
mod writer;

use std::process::ExitCode;
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use crate::bounds::{Bounds, LONG_LEG, MUTANTS, Mutant, SHORT_LEG};
use crate::protocol::Protocol;

const USAGE: &str = "usage: graviton-model [NAME ...]
Checks sets of bounds, or that mutants are caught. Without names: those of the short leg, and all mutants.
Exits with 1 if a property fails or a mutant is not caught.";

fn main() -> ExitCode {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &str, by_default: bool| {
        if names.is_empty() { by_default } else { names.iter().any(|one| one == name) }
    };
    if let Some(name) = names.iter().find(|name| !is_known(name)) {
        eprintln!("unknown: {name}\n{}", usage());
        return ExitCode::from(2);
    }
    let mut outcomes = Vec::new();
    outcomes.extend(SHORT_LEG.iter().filter(|bounds| wanted(bounds.name, true)).map(check));
    outcomes.extend(LONG_LEG.iter().filter(|bounds| wanted(bounds.name, false)).map(check));
    for (mutant, bounds, what) in MUTANTS {
        if wanted(&format!("{mutant:?}"), true) {
            let bounds = SHORT_LEG.iter().find(|one| one.name == *bounds);
            outcomes.push(bounds.is_some_and(|bounds| catch(*mutant, bounds, what, !names.is_empty())));
        }
    }
    let passed = outcomes.iter().filter(|fine| **fine).count();
    println!("model: {passed} passed, {} failed", outcomes.len() - passed);
    if passed == outcomes.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn is_known(name: &str) -> bool {
    SHORT_LEG.iter().chain(LONG_LEG).any(|bounds| bounds.name == name)
        || MUTANTS.iter().any(|(mutant, _, _)| format!("{mutant:?}") == name)
}

fn usage() -> String {
    let list = |heading: &str, bounds: &[Bounds]| {
        let lines = bounds.iter().map(|bounds| format!("\n  {:22}{}", bounds.name, bounds.what));
        format!("\n{heading}:{}", lines.collect::<String>())
    };
    let mutants = MUTANTS.iter().map(|(mutant, _, what)| format!("\n  {:22}{what}", format!("{mutant:?}")));
    let mutants: String = mutants.collect();
    format!("{USAGE}\n{}{}\nmutants:{mutants}", list("short leg", SHORT_LEG), list("long leg", LONG_LEG))
}

/// What was found.
struct Outcome {
    states: usize,
    depth: usize,
    seconds: f64,
    broken: Option<Failure>,
}

/// A property that does not hold, and the shortest run to a state where it does not.
struct Failure {
    property: &'static str,
    run: String,
}

fn run(bounds: &'static Bounds, mutant: Option<Mutant>, symmetric: bool, threads: usize) -> Outcome {
    let start = Instant::now();
    let checker = Protocol::new(bounds, mutant, symmetric)
        .checker()
        .threads(threads)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let broken = checker.discoveries().into_iter().next().map(|(property, path)| {
        let steps = path.into_vec();
        let mut run = String::new();
        for (state, step) in &steps {
            run += &step.map_or_else(|| format!("\n{state}"), |step| format!("\n    {step}"));
        }
        Failure { property, run }
    });
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    Outcome { states, depth, seconds: start.elapsed().as_secs_f64(), broken }
}

/// Whether the protocol holds within these bounds.
fn check(bounds: &'static Bounds) -> bool {
    let Outcome { states, depth, seconds, broken } = run(bounds, None, true, 2);
    let verdict = if broken.is_none() { "holds" } else { "BROKEN" };
    println!("{}: {bounds}", bounds.name);
    println!("    {verdict}: {states} states, depth {depth}, {seconds:.1} s");
    let Some(failure) = broken else { return true };
    // Again without symmetry, which mixes the numbers up, and on one thread, which finds the shortest run first.
    let failure = run(bounds, None, false, 1).broken.unwrap_or(failure);
    println!("    breaks: {}{}", failure.property, failure.run);
    false
}

/// Whether the mutant is caught.
fn catch(mutant: Mutant, bounds: &'static Bounds, what: &str, in_full: bool) -> bool {
    let Outcome { states, depth, seconds, broken } = run(bounds, Some(mutant), false, 1);
    let verdict = if broken.is_some() { "caught" } else { "NOT CAUGHT" };
    println!("{mutant:?}, {what}");
    println!("    {verdict} in `{}`: {states} states, depth {depth}, {seconds:.1} s", bounds.name);
    if let Some(Failure { property, run }) = &broken {
        println!("    breaks: {property}{}", if in_full { run } else { "" });
    }
    broken.is_some()
}
