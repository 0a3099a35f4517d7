//! Deleting files, with power cuts: one block in the layout where a block is a file.
//!
//! ```text
//! mod (all steps and properties, power cuts, the reader)
//!   -> writer     the long path and the short one
//!   -> collector  doom, move, settle, tidy; the earlier sweep
//!   -> state      the state, in memory and on the disk
//!   -> bounds     the extent of the search; the mutants
//! ```
//! Every call of a collector is a step without a lock, so it may come arbitrarily late: after its session was
//! lost, its doom taken away, the block put again. Any process may die between any two steps. A power cut
//! ends all of them and leaves the state of the disk: each directory and the database reach it separately, at
//! any moment, at the latest when they are synced. Nothing here depends on a clock.
//!
//! # The rules
//! Collecting:
//! 1. *Doom*, one synced transaction: candidates that nothing references, looked up under their locks, get
//!    `stored` = 0 and `doomed_by`. Another collection's doom may be taken over. (mutants `LazyDoom`,
//!    `StaysStored`)
//! 2. *Move*, outside of transactions: `rename` of the block's name to a name in `.doomed` that no other call
//!    ever gets: collection, count of its moves, key. (mutant `ReusesName`) After an error of the move its
//!    doom is lifted, and its row stays, because the file may have moved or not.
//! 3. Sync both directories. Without that, a row would go and its file come back. (mutant `NoSyncMoved`)
//! 4. *Settle*, after the move returned (mutant `SettlesFirst`), one transaction: the row goes if this
//!    collection still dooms it; a doomed row has no references. It need not be synced, because the doom was
//!    (bounds `files-lazy`). A file that was moved aside must go back if its row still exists without a doom
//!    (mutants `UnlinksUnstored`, `UnlinksWhatIsPutAgain`); the others must be unlinked.
//! 5. Outside of transactions: unlink, or *move* back, with one `rename` over any file under the block's
//!    name. A link would be two steps: see the mutants `LinksBack` and `LinksBackUnsynced`. (The model of two
//!    blocks has the rule that a damaged file never replaces another, mutant `RestoresGarbage`.)
//!
//! Tidying: a process that finds a name in `.doomed`, the next collection or the next store that writes, does
//! 4 and 5 for it without removing rows: if the row is gone or doomed, the file is unlinked; otherwise it
//! moves back. The collection that moved it may be alive. The file must be seen before the row is read.
//!
//! The look at a row, in 4 and when tidying, waits for transactions that hold the row, and also for one that
//! has inserted it and not committed: by then the short path has seen its file in place. Where a lock on a
//! missing row does not wait, the look inserts the row and removes it again. (mutants `LooksWithoutLocking`,
//! `LooksWithoutInserting`)
//!
//! Putting: a put waits for no doom. A pin, and a commit of the short path, take the doom away in the
//! transaction that adds the reference. (mutant `PinKeepsDoom`) The rest is unchanged.
//!
//! Reading: the name, then `.doomed`, then the name again, and so on; each file that is moved aside meanwhile
//! may cost one round. (mutants `ReaderLooksOnce`, `ReaderLooksTwice`)
//!
//! The reason why it holds: a name in `.doomed` gets one file, once. When a look finds the row gone or
//! doomed, nothing relies on that file: a put that pins later writes its own, and the short path finds its
//! own file under the name only if the file moved back, and then the unlink finds nothing. So an unlink may
//! come at any time. A file that a put relies on leaves the block's name only by a move or for another whole
//! file.
//!
//! # Assumptions
//! A rename is on the disk as a whole or not at all, also between two directories (mutant `TornRename`). A
//! transaction that others see will not become more durable.

mod bounds;
mod collector;
mod state;
mod writer;

use std::sync::atomic::{AtomicBool, Ordering};

use stateright::{Model, Property};

use bounds::Deletion;
pub(crate) use bounds::{Bounds, LONG_LEG, MUTANTS, Mutant, SHORT_LEG};
use state::{
    ASIDE, Aside, Blobs, COLLECTORS, Collect, Collector, Disk, File, NOBODY, Own, Put, Reader, Row, State,
    WRITERS, Writer,
};

use crate::turn::Turn;

type Turns = Vec<Turn<State>>;

#[derive(Debug)]
pub(crate) struct Files {
    bounds: &'static Bounds,
    mutant: Option<Mutant>,
    /// Whether states that differ only in the numbers of writers and collectors count as one.
    symmetric: bool,
    broken: AtomicBool,
}

impl Files {
    pub(crate) fn new(bounds: &'static Bounds, mutant: Option<Mutant>, symmetric: bool) -> Files {
        Files { bounds, mutant, symmetric, broken: AtomicBool::new(false) }
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    fn deletion(&self) -> Deletion {
        if self.is(Mutant::UnlinkStalls) { Deletion::Stalls } else { self.bounds.deletion }
    }

    fn add(&self, turns: &mut Turns, who: &'static str, number: usize, what: &'static str, to: State) {
        turns.push(Turn::of(who, number, what, self.representative(to.normal())));
    }

    fn add_of_all(&self, turns: &mut Turns, what: &'static str, to: State) {
        turns.push(Turn::of_all(what, self.representative(to.normal())));
    }

    /// The smallest of the equivalent states.
    fn representative(&self, state: State) -> State {
        if !self.symmetric {
            return state;
        }
        let Bounds { puts, runs, tidiers, .. } = self.bounds;
        let mut least = state;
        if puts[0] == puts[1] {
            least = least.min(least.swap_writers(0, 1));
        }
        for (one, other) in [(0, 1), (1, 2)] {
            if (runs[one], tidiers[one]) != (runs[other], tidiers[other]) || runs[one] > 1 {
                continue;
            }
            let places = (runs[one] == 1).then_some((one, other));
            let mut alike = least.swap_collectors(one, other, places);
            if puts[0] == puts[1] {
                alike = alike.min(alike.swap_writers(0, 1));
            }
            least = least.min(alike);
        }
        least
    }

    fn power(&self, state: &State, turns: &mut Turns) {
        let Some(disk) = state.disk.filter(|_| state.cuts > 0) else { return };
        let torn = self.is(Mutant::TornRename);
        let mut next = *state;
        next.persist_names(torn);
        self.add_of_all(turns, "the directory of the names reaches the disk", next);
        for place in 0..ASIDE {
            let mut next = *state;
            next.persist_aside(place, torn);
            self.add_of_all(turns, ".doomed reaches the disk", next);
        }
        let mut next = *state;
        next.persist_rows();
        self.add_of_all(turns, "the database reaches the disk", next);
        let kept =
            |whole: Option<bool>| whole.filter(|whole| *whole).map(|whole| File { owner: NOBODY, whole });
        let mut next = State {
            row: disk.row,
            lock: None,
            name: kept(disk.name),
            aside: disk.aside.map(|one| kept(one).map_or(Aside::Empty, Aside::Here)),
            blobs: disk.blobs,
            reader: Reader::Away,
            cuts: state.cuts - 1,
            ..*state
        };
        for writer in &mut next.writers {
            let done = writer.done + u8::from(writer.at != Put::Idle);
            *writer = Writer { at: Put::Idle, own: Own::None, marked: false, done };
        }
        for collector in &mut next.collectors {
            collector.at = Collect::Idle;
        }
        self.add_of_all(turns, "POWER CUT", next);
    }

    /// A reader of a blob that stays live: it looks under the name, in `.doomed`, and so on.
    fn reads(&self, state: &State, turns: &mut Turns) {
        if !self.bounds.reader {
            return;
        }
        let looks = self.looks();
        let to = |reader: Reader| State { reader, ..*state };
        match state.reader {
            _ if state.blobs.live == 0 => {}
            Reader::Away => self.add(turns, "reader", 0, "begins", to(Reader::AtName(1))),
            Reader::AtName(_) if state.name.is_some() => {
                self.add(turns, "reader", 0, "finds the file under its name", to(Reader::Away));
            }
            Reader::AtName(count) => {
                let next = if count == looks { Reader::Missed } else { Reader::AtAside(count + 1) };
                self.add(turns, "reader", 0, "finds nothing under the name", to(next));
            }
            Reader::AtAside(count) => {
                let missed = if count == looks { Reader::Missed } else { Reader::AtName(count + 1) };
                let mut any = false;
                for place in 0..ASIDE {
                    if let Aside::Here(_) = state.aside[place] {
                        any = true;
                        let next = to(Reader::Opens(count, place as u8));
                        self.add(turns, "reader", 0, "sees a file in .doomed", next);
                    }
                }
                if !any {
                    self.add(turns, "reader", 0, "sees nothing in .doomed", to(missed));
                }
            }
            Reader::Opens(count, place) => {
                let here = matches!(state.aside[usize::from(place)], Aside::Here(_));
                let missed = if count == looks { Reader::Missed } else { Reader::AtName(count + 1) };
                let next = to(if here { Reader::Away } else { missed });
                self.add(turns, "reader", 0, "opens what it saw", next);
            }
            Reader::Missed => {}
        }
    }

    /// The looks of a reader: under the name once more than the number of files that can be moved aside, and
    /// in `.doomed` between two of these.
    fn looks(&self) -> u8 {
        if self.is(Mutant::ReaderLooksOnce) {
            1
        } else if self.is(Mutant::ReaderLooksTwice) {
            2
        } else {
            2 * self.bounds.runs.iter().sum::<u8>() + 1
        }
    }

    /// If everything stopped here, and one process tidied `.doomed`, nothing would be left there.
    fn tidies_all(&self, state: &State) -> bool {
        let mut rest = *state;
        for place in 0..ASIDE {
            let decided = self.decided(state, place);
            match decided {
                Some(true) => rest.aside[place] = Aside::Empty,
                Some(false) => rest.move_back(place),
                None => {}
            }
        }
        rest.aside.iter().all(|aside| !matches!(aside, Aside::Here(_)))
    }

    fn holds(&self, holds: bool) -> bool {
        holds || self.broken.swap(true, Ordering::Relaxed)
    }
}

impl Model for Files {
    type State = State;
    type Action = Turn<State>;

    fn init_states(&self) -> Vec<State> {
        let row = Some(Row { stored: true, candidate: false, doomed_by: None });
        let blobs = Blobs { live: 1, ..Blobs::default() };
        let state = State {
            row,
            lock: None,
            name: Some(File { owner: NOBODY, whole: true }),
            aside: [Aside::Empty; ASIDE],
            blobs,
            disk: Some(Disk { row, blobs, name: Some(true), aside: [None; ASIDE] }),
            writers: [Writer { at: Put::Idle, own: Own::None, marked: false, done: 0 }; WRITERS],
            collectors: [Collector { at: Collect::Idle, runs: 0 }; COLLECTORS],
            reader: Reader::Away,
            cuts: self.bounds.cuts,
            leaked: false,
        };
        vec![state.normal()]
    }

    fn actions(&self, state: &State, turns: &mut Turns) {
        if state.blobs.live > 0 {
            let mut next = *state;
            next.blobs.live -= 1;
            next.blobs.deleted += 1;
            if next.blobs.live == 0 {
                next.reader = Reader::Away;
            }
            self.add_of_all(turns, "a blob is deleted", next);
        }
        (0..WRITERS).for_each(|writer| self.turns_of_writer(state, writer, turns));
        (0..COLLECTORS).for_each(|collector| self.turns_of_collector(state, collector, turns));
        self.doom_ends(state, turns);
        self.reads(state, turns);
        self.power(state, turns);
    }

    fn next_state(&self, _: &State, turn: Turn<State>) -> Option<State> {
        Some(turn.to)
    }

    fn properties(&self) -> Vec<Property<Files>> {
        vec![
            Property::always(
                "a blob that is live or can be restored has its row and its bytes",
                |model: &Files, state: &State| {
                    let kept = state.blobs.live + state.blobs.deleted > 0;
                    model.holds(!kept || state.row.is_some() && state.has_bytes())
                },
            ),
            Property::always("a row that says stored has its bytes", |model: &Files, state: &State| {
                let stored = state.row.is_some_and(|row| row.stored);
                model.holds(!stored || state.has_bytes() || state.is_swept())
            }),
            Property::always("a doomed row has no references", |model: &Files, state: &State| {
                let doomed = state.row.is_some_and(|row| row.doomed_by.is_some());
                model.holds(!doomed || state.references() == 0 || model.deletion() != Deletion::Aside)
            }),
            Property::always("no transaction is open over a deletion", |model: &Files, state: &State| {
                let asked = model.deletion() == Deletion::Aside || model.is(Mutant::HoldsTransaction);
                model.holds(!state.is_swept() || !asked)
            }),
            Property::always("a reader finds the bytes of a live blob", |model: &Files, state: &State| {
                model.holds(state.reader != Reader::Missed)
            }),
            Property::always(
                "no row goes before the move of its file is kept",
                |model: &Files, state: &State| model.holds(!state.leaked),
            ),
            Property::always("what was left in .doomed can go", |model: &Files, state: &State| {
                model.holds(model.tidies_all(state))
            }),
        ]
    }
}
