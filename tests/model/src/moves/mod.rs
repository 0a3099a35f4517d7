//! Repack in S3: one block that moves between an object of its own and packs, beside puts, a collection and
//! a reader, with deletes that the server carries out late.
//!
//! ```text
//! mod (steps from outside, properties)
//!   -> packer   a repack into packs: send, sign, move, delete, settle; the object that another one left; a
//!               collection; the server
//!   -> user     a repack into objects, a put of either layout, a reader
//!   -> state    all there is at one moment
//!   -> bounds   how much is tried; the mutants
//! ```
//! Time goes in steps of a quarter of an hour, as in `objects`. Each transaction is one step, and each
//! request another, which the server may carry out until its date is too old. A lease may end at any moment.
//!
//! # The rules
//! *To packs.* The pack is sent, and its PUT answered. The delete is signed. Then one synced transaction
//! gives the row its place, if it says `stored`, has no place and no doom, and no put under way refers to the
//! block; and dooms the name for as long as the delete may be carried out. Then it is sent. An answer that
//! the object is gone lifts the doom. An answer that it is not ends it, and it stays as a mark. Without an
//! answer it stays until its time. (mutants `MovesUnsent`, `SignsLate`, `MovesLazily`, `MovesMoved`,
//! `MovesPinned`, `ForgetsDoom`, `LiftsUnanswered`)
//!
//! *An object whose block is in a pack* goes in the same way, once a doom of its name is over, if the record
//! is good. (mutants `StealsNames`, `RemovesLast`)
//!
//! *To objects.* The block is pinned. If its name is not doomed, the row gets a doom that has ended, as a
//! mark, and the object is written. Then the row loses the place that was read, if it still has it, and the
//! mark, while the pin holds. (mutants `NamesUnpinned`, `NamesDoomed`, `NamesUnmarked`)
//!
//! *Putting.* A put relies on what is stored. Under a name that is doomed it writes nothing: the block goes
//! into a pack, and the row keeps the doom, or the put fails. (mutants `HealsDoomed`, `MarkLifts`)
//!
//! *Releasing.* A row in a pack goes only without a doom, also of one that is over: its object is looked for
//! first. (mutant `ReleasesNames`)
//!
//! *Reading.* A reader that misses the bytes asks the row again. If the block has not moved, it looks there
//! once more, for the block may have moved away and back. (mutants `ReaderGivesUp`, `ReaderTrustsRow`)
//!
//! # Not modelled
//! A PUT that the server carries out late (`sent`): under the name it leaves an object that the next repack
//! into packs finds. Several requests for one object (`objects`). The drop of packs (`packs`).

mod bounds;
mod packer;
mod state;
mod user;

use std::sync::atomic::{AtomicBool, Ordering};

use stateright::{Model, Property};

pub(crate) use bounds::{Bounds, LONG_LEG, MUTANTS, Mutant, SHORT_LEG};
use state::{
    COLLECTOR, Collect, Collector, NOBODY, PACKERS, Pack, Packer, RECORDS, Reader, Record, Row, State, Use,
    User,
};

use crate::turn::Turn;

type Turns = Vec<Turn<State>>;

#[derive(Debug)]
pub(crate) struct Moves {
    bounds: &'static Bounds,
    mutant: Option<Mutant>,
    broken: AtomicBool,
}

impl Moves {
    pub(crate) fn new(bounds: &'static Bounds, mutant: Option<Mutant>) -> Moves {
        Moves { bounds, mutant, broken: AtomicBool::new(false) }
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

    /// Time, deletions, damage and what verifies it, and power cuts of the database.
    fn turns_from_outside(&self, state: &State, turns: &mut Turns) {
        if state.now < self.bounds.end {
            self.add_of_all(turns, "time passes", State { now: state.now + 1, ..*state });
        }
        if state.live > 0 && self.bounds.collections > 0 {
            let next = State { live: state.live - 1, deleted: state.deleted + 1, ..*state };
            self.add_of_all(turns, "a blob is deleted", next);
        }
        if let Some(record) = state.row.and_then(|row| row.place) {
            self.damages(state, usize::from(record), turns);
        }
        if let Some(row) = state.disk.filter(|_| state.cuts > 0) {
            let mut next = *state;
            next.persist();
            self.add_of_all(turns, "the database reaches the disk", next);
            let mut next = State { row, cuts: state.cuts - 1, ..*state };
            for number in 0..=COLLECTOR {
                next = next.without_answers(number);
            }
            next.packers.iter_mut().for_each(|packer| packer.at = Pack::Idle);
            next.collector.at = Collect::Idle;
            for user in [&mut next.filer, &mut next.writer] {
                *user = User { done: user.done + u8::from(user.at != Use::Idle), ..NOBODY };
            }
            self.add_of_all(turns, "POWER CUT", next);
        }
    }

    fn damages(&self, state: &State, record: usize, turns: &mut Turns) {
        if state.damages > 0 && state.records[record] == Record::Good {
            let mut next = *state;
            next.damages -= 1;
            next.records[record] = Record::Damaged;
            next.excused = true;
            next.writer.is_fresh = false;
            self.add_of_all(turns, "the record is damaged", next);
        }
        if state.records[record] == Record::Damaged {
            let mut next = *state;
            next.row = state.row.map(|row| Row { stored: false, ..row });
            next.persist();
            self.add_of_all(turns, "the damage is found, and the row does not say stored any more", next);
        }
    }
}

impl Model for Moves {
    type State = State;
    type Action = Turn<State>;

    fn init_states(&self) -> Vec<State> {
        let Bounds { is_left, damages, cuts, .. } = *self.bounds;
        let mut records = [Record::Absent; RECORDS];
        if is_left {
            records[0] = Record::Damaged;
        }
        let row = Some(Row { stored: true, place: is_left.then_some(0), candidate: false, doom: None });
        let state = State {
            now: 0,
            row,
            disk: Some(row),
            object: true,
            records,
            live: 1,
            deleted: 0,
            expired: 0,
            packers: [Packer { at: Pack::Idle, runs: 0 }; PACKERS],
            collector: Collector { at: Collect::Idle, runs: 0 },
            filer: NOBODY,
            writer: NOBODY,
            reader: Reader { at: None, done: 0, has_failed: false },
            requests: Default::default(),
            damages,
            cuts,
            excused: is_left,
            has_stalled: false,
        };
        vec![state.normal()]
    }

    fn actions(&self, state: &State, turns: &mut Turns) {
        (0..PACKERS).for_each(|number| self.turns_of_packer(state, number, turns));
        self.turns_of_collector(state, turns);
        self.turns_of_filer(state, turns);
        self.turns_of_writer(state, turns);
        self.turns_of_reader(state, turns);
        self.turns_of_server(state, turns);
        self.turns_from_outside(state, turns);
    }

    fn next_state(&self, _: &State, turn: Turn<State>) -> Option<State> {
        Some(turn.to)
    }

    fn properties(&self) -> Vec<Property<Moves>> {
        vec![
            Property::always(
                "a blob that is live or can be restored has its row and its bytes",
                |model: &Moves, state: &State| {
                    let is_kept = state.live + state.deleted > 0;
                    let is_there = state.row.is_some_and(|row| state.excused || state.is_good(row.place));
                    model.holds(!is_kept || is_there)
                },
            ),
            Property::always("a row says stored of good bytes only", |model: &Moves, state: &State| {
                let is_good = |row: &Row| {
                    let record = row.place.map(|place| state.records[usize::from(place)]);
                    record == Some(Record::Damaged) || state.is_good(row.place)
                };
                model.holds(state.row.filter(|row| row.stored).is_none_or(|row| is_good(&row)))
            }),
            Property::always("nobody relies on a name that is doomed", |model: &Moves, state: &State| {
                let relies = state.row.is_some_and(|row| row.stored && row.place.is_none());
                model.holds(!relies || !state.is_doomed())
            }),
            Property::always("an object beside a row in a pack is known", |model: &Moves, state: &State| {
                let Bounds { damages, is_left, .. } = *model.bounds;
                let is_excused = damages > 0 || is_left || state.has_stalled;
                let is_known = |row: Row| row.place.is_none() || row.doom.is_some();
                model.holds(is_excused || !state.object || state.row.is_none_or(is_known))
            }),
            Property::always("a reader finds the bytes of a live blob", |model: &Moves, state: &State| {
                model.holds(!state.reader.has_failed)
            }),
            Property::always("the last good copy stays", |model: &Moves, state: &State| {
                let is_somewhere = state.object || state.records.contains(&Record::Good);
                model.holds(!model.bounds.is_left || state.live == 0 || is_somewhere)
            }),
        ]
    }
}
