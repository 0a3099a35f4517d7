//! The put, delete and collect protocol, checked in every interleaving of small bounds with `stateright`.
//!
//! Eight models; each covers parts that the others leave out:
//!
//! ```text
//! main -> protocol (bounds)  shared blocks: putting, restoring, reading, verifying, and all ways of deleting
//!           -> writer        begin, pin, store, mark, commit; the short path
//!           -> collector     doom, and the deletion of bytes
//!           -> blob          delete, restore, expire, reap; readers
//!           -> verify        damage, clearing, adopting
//!           -> quiet         the result of a collection when nothing else runs
//!           -> state         the state at one moment
//!      -> files              one block as a file: calls that stall, power cuts
//!      -> objects            one block as an object: deletes that the server carries out late
//!      -> owners             a database and its copy: which of them owns the blocks
//!      -> packs              one block as a record in a pack
//!      -> sent               one pack as an object: PUTs that the server carries out late
//!      -> repack             one block that moves between its own name and packs
//!      -> moves              the same in S3: deletes that the server carries out late
//!      -> turn               a step of the small ones
//! ```
//! # What is modelled
//! In `protocol`: two blocks that three contents share ({A}, {B}, {A, B}), two writers, two collectors, a
//! reader, verify, and damage from outside. A transaction is one step, because it locks the rows of its
//! blocks (and of the blob whose state it requires) before it reads anything. Where the order of reading and
//! locking matters, a mutant reads first. Each file and each deletion is a step of its own. SQLite, where a
//! transaction locks the whole database, allows some of these runs and no others.
//!
//! There are three ways of deleting. *Swept* is the earlier one: the bytes go inside the transaction that
//! removes the rows, assuming that no deletion is later than its doom. *Requested* is for objects, and
//! *aside* for files. `files` and `objects` state the rules of the last two. They also show the losses of the
//! first one if the assumption is false, with their mutants `UnlinkStalls`, `HoldsTransaction` and
//! `ShortDoom`.
//!
//! # What holds
//! 1. A blob that is live, can be restored, or is being read has all rows and bytes of its blocks.
//! 2. A row never says `stored` of missing bytes, except after damage and until they are written again.
//! 3. A blob whose put or restore has returned is live until it is deleted.
//! 4. Verify never clears `stored` of a block that is good.
//! 5. If everything stopped, one collection would leave exactly the referenced blocks, and it would remove
//!    the bytes without rows that it was asked to adopt. (Checked in every state: "eventually" means nothing
//!    if runs can go in circles.)
//! 6. No transaction is open while bytes are deleted. (Not of the earlier sweep.)
//!
//! # What is not modelled
//! Deadlocks. Batches of several blocks in one pin. The loss of a dead writer's lease. Processes of both
//! protocols side by side: the earlier ones heed `doomed_until`, so the new ones set it, and heed it as long
//! as earlier ones may run.
//!
//! # Size of the models
//! `graviton-model` with an unknown name lists all bounds and mutants. The short leg has about 14 million
//! states and takes about a minute on two cores. Of the long leg, which runs by name, `all-long` has 11
//! million states, `files-long` 16 million and `long-long` 29 million, which takes some minutes and 3 GiB.
//! `short-long` is larger: let it run as long as there is memory.

#![forbid(unsafe_code)]
#![allow(clippy::unused_self, reason = "all steps are called alike, also those that no mutant changes")]

mod blob;
mod bounds;
mod collector;
mod files;
mod moves;
mod mutants;
mod objects;
mod owners;
mod packs;
mod protocol;
mod quiet;
mod repack;
mod sent;
mod state;
mod turn;
mod verify;
mod writer;

use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::process::ExitCode;
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use crate::files::Files;
use crate::moves::Moves;
use crate::objects::Objects;
use crate::owners::Owners;
use crate::packs::Packs;
use crate::protocol::Protocol;
use crate::repack::Repack;
use crate::sent::Sent;

const USAGE: &str = "usage: graviton-model [NAME ...]
Checks sets of bounds, or that mutants are caught. Without names: those of the short leg, and all mutants.
Exits with 1 if a property fails or a mutant is not caught.";

/// A set of bounds, or a mutant within one.
struct Check {
    name: String,
    what: String,
    leg: Leg,
    explore: Box<dyn Fn(Search) -> Outcome>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Leg {
    Short,
    Long,
    Mutant,
}

/// How a model is explored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Search {
    /// On all cores.
    Fast,
    /// On one core, and without symmetry, which permutes numbers: the run to the failure is the shortest.
    Shortest,
}

/// A property that fails, and the run to that state.
struct Failure {
    property: &'static str,
    run: String,
}

struct Outcome {
    states: usize,
    depth: usize,
    seconds: f64,
    broken: Option<Failure>,
}

fn main() -> ExitCode {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let checks = checks();
    if let Some(name) = names.iter().find(|name| checks.iter().all(|check| check.name != **name)) {
        eprintln!("unknown: {name}\n{}", usage(&checks));
        return ExitCode::from(2);
    }
    let wanted = |check: &&Check| {
        if names.is_empty() { check.leg != Leg::Long } else { names.contains(&check.name) }
    };
    let outcomes: Vec<bool> =
        checks.iter().filter(wanted).map(|check| check.run(!names.is_empty())).collect();
    let passed = outcomes.iter().filter(|fine| **fine).count();
    println!("model: {passed} passed, {} failed", outcomes.len() - passed);
    if passed == outcomes.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// All checks of one model. A mutant is checked in the bounds that it names.
macro_rules! checks_of {
    ($checks:expr, $module:ident, $new:expr) => {
        let mut add = |name: String, what: &str, leg, bounds, mutant| {
            let explore = Box::new(move |search| explore(&|| $new(bounds, mutant, search), search));
            $checks.push(Check { name, what: what.to_owned(), leg, explore });
        };
        for bounds in $module::SHORT_LEG {
            add(bounds.name.to_owned(), &bounds.to_string(), Leg::Short, bounds, None);
        }
        for bounds in $module::LONG_LEG {
            add(bounds.name.to_owned(), &bounds.to_string(), Leg::Long, bounds, None);
        }
        for (mutant, names, what) in $module::MUTANTS {
            for name in names.split(' ') {
                let mut all = $module::SHORT_LEG.iter().chain($module::LONG_LEG);
                let bounds = all.find(|bounds| bounds.name == name).expect("a mutant names its bounds");
                let what = format!("{what} (`{name}`)");
                add(format!("{mutant:?}"), &what, Leg::Mutant, bounds, Some(*mutant));
            }
        }
    };
}

fn checks() -> Vec<Check> {
    let mut checks = Vec::new();
    checks_of!(checks, bounds, |bounds, mutant, search| {
        Protocol::new(bounds, mutant, search == Search::Fast)
    });
    checks_of!(checks, files, |bounds, mutant, search| {
        Files::new(bounds, mutant, search == Search::Fast)
    });
    checks_of!(checks, objects, |bounds, mutant, search| {
        Objects::new(bounds, mutant, search == Search::Fast)
    });
    checks_of!(checks, owners, |bounds, mutant, _| Owners::new(bounds, mutant));
    checks_of!(checks, packs, |bounds, mutant, _| Packs::new(bounds, mutant));
    checks_of!(checks, sent, |bounds, mutant, _| Sent::new(bounds, mutant));
    checks_of!(checks, repack, |bounds, mutant, _| Repack::new(bounds, mutant));
    checks_of!(checks, moves, |bounds, mutant, _| Moves::new(bounds, mutant));
    checks
}

fn usage(checks: &[Check]) -> String {
    let list = |heading: &str, leg: Leg| {
        let lines = checks.iter().filter(|check| check.leg == leg);
        let lines: Vec<String> = lines.map(|check| format!("\n  {:22}{}", check.name, check.what)).collect();
        format!("\n{heading}:{}", lines.concat())
    };
    let (short, long) = (list("short leg", Leg::Short), list("long leg", Leg::Long));
    format!("{USAGE}\n{short}{long}{}", list("mutants", Leg::Mutant))
}

fn explore<M>(new: &dyn Fn() -> M, search: Search) -> Outcome
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + PartialEq + Hash + Send + Sync + Display + 'static,
    M::Action: Clone + Debug + PartialEq + Display + Send + Sync,
{
    let start = Instant::now();
    let threads = if search == Search::Fast { 2 } else { 1 };
    let checker =
        new().checker().threads(threads).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let broken = checker.discoveries().into_iter().next().map(|(property, path)| {
        let mut run = String::new();
        for (state, step) in path.into_vec() {
            run += &step.map_or_else(|| format!("\n{state}"), |step| format!("\n{state}\n    {step}"));
        }
        Failure { property, run }
    });
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    Outcome { states, depth, seconds: start.elapsed().as_secs_f64(), broken }
}

impl Check {
    /// Whether the protocol holds, or the mutant is caught.
    fn run(&self, in_full: bool) -> bool {
        let breaks = self.leg == Leg::Mutant;
        let search = if breaks && in_full { Search::Shortest } else { Search::Fast };
        let Outcome { states, depth, seconds, broken } = (self.explore)(search);
        let verdict = match (&broken, breaks) {
            (None, false) => "holds",
            (Some(_), false) => "BROKEN",
            (Some(_), true) => "caught",
            (None, true) => "NOT CAUGHT",
        };
        println!("{}: {}", self.name, self.what);
        println!("    {verdict}: {states} states, depth {depth}, {seconds:.1} s");
        if let Some(failure) = &broken {
            let again = (!breaks).then(|| (self.explore)(Search::Shortest).broken).flatten();
            let Failure { property, run } = again.as_ref().unwrap_or(failure);
            println!("    breaks: {property}{}", if in_full || !breaks { run } else { "" });
        }
        broken.is_some() == breaks
    }
}
