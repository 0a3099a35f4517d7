//! The owner of the blocks: a database, a copy of it, and the numbers that distinguish them.
//!
//! Each database has a generation, and one stands beside the blocks. Up to two processes use the first
//! database, one the copy. They collect, raise generations, take over, and die at any moment. Here only the
//! generation distinguishes a copy, and a mark a backup; the location of a database does not matter.
//!
//! # The rules
//! 1. *Compare*: read the number beside the blocks, then the row. A database whose number is smaller is
//!    refused.
//! 2. *Raise*: commit the row, then write the number beside the blocks, unless a larger one is there.
//! 3. *Collect*: raise, and before each batch compare with the number beside the blocks once more.
//! 4. *Take over*: choose a number above both that no copy reaches by raising its own, and that no other
//!    process that takes over chooses; write it beside the blocks; check that it is there; commit the row.
//!
//! # Assumptions
//! Of two simultaneous writes of the number, the larger one stays. A batch that is running when another
//! database takes over is not ended: its processes must be ended first.
//! takes over is not ended: its processes are to be ended before.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use stateright::{Model, Property};

use crate::mutants::mutants;
use crate::turn::Turn;

/// The most processes.
const PROCESSES: usize = 3;

#[derive(Debug)]
pub(crate) struct Bounds {
    pub(crate) name: &'static str,
    what: &'static str,
    /// The database of each process.
    processes: &'static [usize],
    raises: u8,
    takeovers: u8,
    backups: u8,
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bounds { what, raises, takeovers, backups, .. } = self;
        write!(f, "{what}; {raises} raises, {takeovers} take over, {backups} backups")
    }
}

pub(crate) const SHORT_LEG: &[Bounds] = &[
    Bounds {
        name: "owners",
        what: "a process each",
        processes: &[0, 1],
        raises: 3,
        takeovers: 3,
        backups: 2,
    },
    Bounds {
        name: "owners-two",
        what: "two of one",
        processes: &[0, 0, 1],
        raises: 2,
        takeovers: 2,
        backups: 1,
    },
];

pub(crate) const LONG_LEG: &[Bounds] = &[Bounds {
    name: "owners-long",
    what: "two of one, for longer",
    processes: &[0, 0, 1],
    raises: 3,
    takeovers: 3,
    backups: 2,
}];

mutants! {
    Increments "owners" "who takes over chooses the next number, which the other reaches by raising its own",
    SameNumber "owners" "two that take over at once choose the same number",
    CommitsFirst "owners" "who takes over commits first, as who raises does",
    BesideFirst "owners" "who raises writes beside the blocks first, and dies before it commits",
    ReadsRowFirst "owners-two" "who compares reads the row first",
    NeverAgain "owners" "a collection compares once, and not before each batch",
    KeepsMark "owners" "a database that takes over is still marked as a backup",
}

/// Numbers that grow: first by the count of takeovers, among equals by chance, then by raises.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Generation {
    epoch: u8,
    chance: u8,
    count: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Database {
    generation: Generation,
    is_backup: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum At {
    Idle,
    /// It has read the number beside the blocks or the row, and now reads the other.
    Compare {
        beside: Generation,
        row: Option<Database>,
        takes_over: bool,
    },
    /// It has committed, and now writes beside the blocks.
    Write {
        to: Generation,
    },
    /// It has written beside the blocks before its commit.
    CommitLate {
        to: Generation,
    },
    /// It begins a batch.
    Batch,
    Announce {
        to: Generation,
    },
    Own {
        to: Generation,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    beside: Generation,
    databases: [Database; 2],
    processes: [At; PROCESSES],
    /// The database that took over last.
    owner: usize,
    /// Whether a takeover has begun since and not ended.
    is_open: bool,
    /// Whether a database that is not the owner began a batch.
    is_stray: bool,
    /// Whether the owner was refused.
    is_wronged: bool,
    raises: u8,
    takeovers: u8,
    backups: u8,
}

#[derive(Debug)]
pub(crate) struct Owners {
    bounds: &'static Bounds,
    mutant: Option<Mutant>,
    broken: AtomicBool,
}

type Turns = Vec<Turn<State>>;

impl Owners {
    pub(crate) fn new(bounds: &'static Bounds, mutant: Option<Mutant>) -> Owners {
        Owners { bounds, mutant, broken: AtomicBool::new(false) }
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    fn holds(&self, holds: bool) -> bool {
        holds || self.broken.swap(true, Ordering::Relaxed)
    }

    fn turns_of(&self, state: &State, number: usize, turns: &mut Turns) {
        let database = self.bounds.processes[number];
        let to = |at: At| {
            let mut next = *state;
            next.processes[number] = at;
            next
        };
        let mut add = |what, next: State| turns.push(Turn::of("process", number, what, next));
        match state.processes[number] {
            At::Idle => {
                for takes_over in [false, true] {
                    if takes_over && state.takeovers >= self.bounds.takeovers {
                        continue;
                    }
                    let row = self.is(Mutant::ReadsRowFirst).then_some(state.databases[database]);
                    let what = if takes_over { "begins to take over" } else { "begins to collect" };
                    add(what, to(At::Compare { beside: state.beside, row, takes_over }));
                }
            }
            At::Compare { beside, row, takes_over } => {
                // Reads the one that was not read yet.
                let beside = if row.is_some() { state.beside } else { beside };
                let row = row.unwrap_or(state.databases[database]);
                if takes_over {
                    let mut next = to(At::Idle);
                    next.takeovers += 1;
                    let to = self.chosen(row.generation.max(beside), database);
                    let first = self.is(Mutant::CommitsFirst);
                    next.processes[number] = if first { At::Own { to } } else { At::Announce { to } };
                    add("chooses a number", next);
                } else if row.is_backup || row.generation < beside {
                    let is_wronged = !state.is_open && state.owner == database;
                    add("is refused", State { is_wronged: state.is_wronged || is_wronged, ..to(At::Idle) });
                } else if state.raises < self.bounds.raises {
                    // It reads the row again under its lock.
                    let row = state.databases[database];
                    let generation = Generation { count: row.generation.count + 1, ..row.generation };
                    let mut next = to(At::Write { to: generation });
                    next.raises += 1;
                    if self.is(Mutant::BesideFirst) {
                        next.beside = next.beside.max(generation);
                        next.processes[number] = At::CommitLate { to: generation };
                    } else {
                        next.databases[database].generation = generation;
                    }
                    add("raises its generation", next);
                }
            }
            At::CommitLate { to: generation } => {
                let mut next = to(At::Batch);
                next.databases[database].generation = generation;
                add("commits", next);
            }
            At::Write { to: generation } => {
                let next = State { beside: state.beside.max(generation), ..to(At::Batch) };
                add("writes it beside the blocks", next);
            }
            At::Batch => {
                add("ends", to(At::Idle));
                let behind = state.databases[database].generation < state.beside;
                if behind && !self.is(Mutant::NeverAgain) {
                    add("is refused before a batch", to(At::Idle));
                } else {
                    let is_stray = !state.is_open && state.owner != database;
                    add("begins a batch", State { is_stray: state.is_stray || is_stray, ..*state });
                }
            }
            At::Announce { to: generation } => {
                let beside = state.beside.max(generation);
                let mut next = State { beside, ..to(At::Own { to: generation }) };
                // If another's number is there, the owner continues.
                next.is_open |= beside == generation;
                if beside != generation {
                    next.processes[number] = At::Idle;
                }
                if self.is(Mutant::CommitsFirst) {
                    next = State { is_open: state.is_open, ..next };
                    next.processes[number] = At::Idle;
                }
                add("writes its number beside the blocks", next);
            }
            At::Own { to: generation } => {
                let first = self.is(Mutant::CommitsFirst);
                let mut next = to(if first { At::Announce { to: generation } } else { At::Idle });
                let row = &mut next.databases[database];
                row.generation = row.generation.max(generation);
                row.is_backup &= self.is(Mutant::KeepsMark);
                if row.generation == state.beside || first {
                    next.owner = database;
                    next.is_open = false;
                }
                add("has taken over", next);
            }
        }
        if state.processes[number] != At::Idle {
            add("dies", to(At::Idle));
        }
    }

    fn chosen(&self, above: Generation, database: usize) -> Generation {
        if self.is(Mutant::Increments) {
            return Generation { count: above.count + 1, ..above };
        }
        let chance = if self.is(Mutant::SameNumber) { 0 } else { database as u8 };
        Generation { epoch: above.epoch + 1, chance, count: 0 }
    }
}

impl State {
    fn passes(&self, database: usize) -> bool {
        let Database { generation, is_backup } = self.databases[database];
        !is_backup && generation >= self.beside
    }
}

impl Model for Owners {
    type State = State;
    type Action = Turn<State>;

    fn init_states(&self) -> Vec<State> {
        let database = Database { generation: Generation::default(), is_backup: false };
        vec![State {
            beside: Generation::default(),
            databases: [database, Database { is_backup: true, ..database }],
            processes: [At::Idle; PROCESSES],
            owner: 0,
            is_open: false,
            is_stray: false,
            is_wronged: false,
            raises: 0,
            takeovers: 0,
            backups: 0,
        }]
    }

    fn actions(&self, state: &State, turns: &mut Turns) {
        (0..self.bounds.processes.len()).for_each(|number| self.turns_of(state, number, turns));
        let other = 1 - state.owner;
        let mut users = self.bounds.processes.iter().zip(&state.processes);
        let is_unused = users.all(|(database, at)| *database != other || *at == At::Idle);
        if state.backups < self.bounds.backups && is_unused && !state.is_open {
            let mut next = *state;
            next.backups += 1;
            next.databases[other] = Database { is_backup: true, ..state.databases[state.owner] };
            turns.push(Turn::of_all("the other database becomes a backup of the owner", next));
        }
    }

    fn next_state(&self, _: &State, turn: Turn<State>) -> Option<State> {
        let mut next = turn.to;
        if self.bounds.processes[0] == self.bounds.processes[1] {
            next.processes[..2].sort_unstable();
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Owners>> {
        vec![
            Property::always("two databases never own the blocks", |model: &Owners, state: &State| {
                model.holds(!(state.passes(0) && state.passes(1)))
            }),
            Property::always(
                "the database that took over last owns them",
                |model: &Owners, state: &State| model.holds(state.is_open || state.passes(state.owner)),
            ),
            Property::always("no batch begins of another database", |model: &Owners, state: &State| {
                model.holds(!state.is_stray)
            }),
            Property::always("the owner is not refused", |model: &Owners, state: &State| {
                model.holds(!state.is_wronged)
            }),
        ]
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "        beside {:?}; {:?}; owner {}", self.beside, self.databases, self.owner)
    }
}
