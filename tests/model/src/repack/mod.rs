//! Repack: one block that moves between its own name and packs, beside puts, with dooms of the name.
//!
//! ```text
//! mod (steps from outside, properties)
//!   -> packer   a repack into packs: append, move, set aside, settle; the look at files that others left
//!   -> user     a repack into files, and a put of a store that writes files: pin, publish, mark
//!   -> state    the state at one moment
//!   -> bounds   the extent of the search; the mutants
//! ```
//! A live blob refers to the block all the time. Each transaction is one step, and each call outside of
//! transactions is another, which may come arbitrarily late. A lease may end at any moment.
//!
//! # The rules
//! *To packs.* One synced transaction gives the row its place and dooms the name, if the row says `stored`,
//! has no place and no doom, and no running put refers to the block. Then the file is set aside, and the row
//! read. The file goes if the name is doomed, or if the block is in a pack and no running put refers to it.
//! Otherwise it moves back. (mutants `RepackMovesMoved`, `RepackMovesPinned`, `RepackMovesUnsynced`,
//! `RepackUnlinksAtOnce`, `RepackUnlinksBlindly`, `RepackForgetsPins`)
//!
//! A file whose block is in a pack is removed in the same way, by any later repack.
//!
//! *To files.* The block is pinned, which takes a doom away. The file is published and its name synced. Then
//! the row loses the place that was read, if it still has it, while the pin lasts. (mutants
//! `RepackPinsNothing`, `RepackPublishesUnsynced`, `RepackIgnoresMoves`)
//!
//! # Not modelled
//! The collection of the block (`files`, `packs`), the short path (`files`), a record that is not synced or
//! not verified (`packs`), and a drop of packs.

mod bounds;
mod packer;
mod state;
mod user;

use std::sync::atomic::{AtomicBool, Ordering};

use stateright::{Model, Property};

pub(crate) use bounds::{Bounds, LONG_LEG, MUTANTS, Mutant, SHORT_LEG};
use state::{Disk, NOBODY, PACKERS, Pack, Packer, RECORDS, RUNS, Record, Row, State, Tidy, Use};

use crate::turn::Turn;

type Turns = Vec<Turn<State>>;

#[derive(Debug)]
pub(crate) struct Repack {
    bounds: &'static Bounds,
    mutant: Option<Mutant>,
    broken: AtomicBool,
}

impl Repack {
    pub(crate) fn new(bounds: &'static Bounds, mutant: Option<Mutant>) -> Repack {
        Repack { bounds, mutant, broken: AtomicBool::new(false) }
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    fn holds(&self, holds: bool) -> bool {
        holds || self.broken.swap(true, Ordering::Relaxed)
    }

    fn add(&self, turns: &mut Turns, who: &'static str, number: usize, what: &'static str, to: State) {
        turns.push(Turn::of(who, number, what, to.normal()));
    }

    fn add_of_all(&self, turns: &mut Turns, what: &'static str, to: State) {
        turns.push(Turn::of_all(what, to.normal()));
    }

    /// Compactions, damage, and the verification of it.
    fn turns_from_outside(&self, state: &State, turns: &mut Turns) {
        let Some(place) = state.row.place.filter(|_| state.row.stored) else { return };
        let record = usize::from(place);
        if state.compactions > 0 && state.records[record] == Record::Good {
            let mut next = *state;
            next.compactions -= 1;
            next.records[RECORDS - 1] = Record::Good;
            next.place(Some((RECORDS - 1) as u8));
            self.add_of_all(turns, "a compaction moves the block", next);
        }
        if state.damages > 0 && state.records[record] == Record::Good {
            let mut next = *state;
            next.damages -= 1;
            next.records[record] = Record::Damaged;
            next.excused = true;
            next.writer.fresh = false;
            self.add_of_all(turns, "the record is damaged", next);
        }
        if state.records[record] == Record::Damaged {
            let mut next = *state;
            next.row.stored = false;
            next.persist_rows();
            self.add_of_all(turns, "the damage is found, and the row does not say stored any more", next);
        }
    }

    fn power(&self, state: &State, turns: &mut Turns) {
        let Some(Disk { row, name, aside }) = state.disk.filter(|_| state.cuts > 0) else { return };
        let mut next = *state;
        next.persist_names();
        self.add_of_all(turns, "the directories reach the disk", next);
        let mut next = *state;
        next.persist_rows();
        self.add_of_all(turns, "the database reaches the disk", next);
        let mut next = State { row, name, aside, cuts: state.cuts - 1, tidier: Tidy::Idle, ..*state };
        next.packers.iter_mut().for_each(|packer| packer.at = Pack::Idle);
        for user in [&mut next.filer, &mut next.writer] {
            *user = state::User { done: user.done + u8::from(user.at != Use::Idle), ..NOBODY };
        }
        self.add_of_all(turns, "POWER CUT", next);
    }
}

impl Model for Repack {
    type State = State;
    type Action = Turn<State>;

    fn init_states(&self) -> Vec<State> {
        let unused = [false; RECORDS];
        let row = Row { stored: true, place: None, doomed_by: None, used: unused, dead: unused };
        let aside = [false; PACKERS * RUNS];
        let state = State {
            row,
            name: true,
            aside,
            records: [Record::Absent; RECORDS],
            disk: Some(Disk { row, name: true, aside }),
            packers: [Packer { at: Pack::Idle, runs: 0 }; PACKERS],
            filer: NOBODY,
            writer: NOBODY,
            tidier: Tidy::Idle,
            compactions: self.bounds.compactions,
            damages: self.bounds.damages,
            cuts: self.bounds.cuts,
            excused: false,
        };
        vec![state.normal()]
    }

    fn actions(&self, state: &State, turns: &mut Turns) {
        (0..PACKERS).for_each(|number| self.turns_of_packer(state, number, turns));
        self.turns_of_filer(state, turns);
        self.turns_of_writer(state, turns);
        self.tidies(state, turns);
        self.turns_from_outside(state, turns);
        self.power(state, turns);
    }

    fn next_state(&self, _: &State, turn: Turn<State>) -> Option<State> {
        Some(turn.to)
    }

    fn properties(&self) -> Vec<Property<Repack>> {
        vec![
            Property::always("the block can be read", |model: &Repack, state: &State| {
                model.holds(state.excused || state.row.stored && state.is_good(state.row.place))
            }),
            Property::always("a row says stored of good bytes only", |model: &Repack, state: &State| {
                let is_damaged =
                    state.row.place.is_some_and(|place| state.records[usize::from(place)] == Record::Damaged);
                model.holds(!state.row.stored || is_damaged || state.is_good(state.row.place))
            }),
            Property::always("dead bytes are counted", |model: &Repack, state: &State| {
                let Row { place, used, dead, .. } = state.row;
                let is_right = |record: usize| dead[record] == (place != Some(record as u8));
                model.holds((0..RECORDS).filter(|record| used[*record]).all(is_right))
            }),
        ]
    }
}
