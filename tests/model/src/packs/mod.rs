//! Packs: records of one block, appended by the store that made the pack, found by the row, and released.
//!
//! ```text
//! mod (steps from outside, the reader, properties)
//!   -> task       a put and a move: append, sync, mark; sealing a store's own pack
//!   -> collector  leases, releasing, punching, dropping
//!   -> state      the state at one moment
//!   -> bounds     the extent of the search; the mutants
//! ```
//! Each transaction is one step, and each call outside of transactions is another. The database may lose its
//! last transactions up to the last synced one: with a power cut, which ends all processes, or in a
//! fail-over, which ends none. A lease may end at any moment, and its store continue without knowing it.
//!
//! # The rules
//! *The pack.* Its row is inserted, synced, before its file is created. Only its maker appends to it, and no
//! place is written twice. (mutants `CreatesFirst`, `AppendsToFound`)
//!
//! *Putting.* Pin; append; wait for a sync that began after the end of the own write, of the pack and, the
//! first time, of its directory; *mark*: lock the row of the pack, require that the own store is writing it,
//! and set the place in the row of the block if that does not say `stored`, or still has the place that this
//! put found damaged; *commit*: require that the blob is pending and its blocks are stored. After a sync that
//! reports a failed write the store is latched, and the puts in that pack fail. (mutants `MarksUnsynced`,
//! `JoinsSync`, `ForgetsFailure`, `NoSyncDirectory`, `MarksBlindly`, `KeepsDamaged`, `CommitsUnmarked`)
//!
//! A put relies on a record of a sealed pack, or of one that its store writes, if the header is there. In a
//! pack that another store writes, or in a found one, it verifies the record. (mutant `TrustsWriting`)
//!
//! *Sealing.* The maker seals when no write to the pack is running, after a sync in every mode. The
//! transaction that ends a lease makes its packs *found*: no process marks in them any more. Then, outside of
//! transactions, a found pack is synced, and each record that a row points at is verified; then it is sealed,
//! and the rows of damaged records no longer say `stored`. The sync is needed although the records look
//! right, because the maker may be a relaxed store that continues. The tail is cut after that. (mutants
//! `SealsUnderWay`, `SealsUnsynced`, `LeavesPacks`, `TrustsFound`, `LooksUpEndFirst`, `CutsFirst`)
//!
//! *Releasing*, one transaction, synced in every mode: the row of an unreferenced block goes, and a hole is
//! noted. Then it is punched, and forgotten. (mutants `LooksBeforeLocking`, `PunchesUnsynced`)
//!
//! *Moving*, like a put, in every mode with a sync of the bytes: the row gets its new place if it has the old
//! one. The old record stays as it is. The transaction need not be synced, because the one that drops the old
//! pack is. (mutants `MovesUnsynced`, `PunchesMoved`)
//!
//! *Restoring* an older database: all packs that it knows become found ones, because they may have holes that
//! it does not know. (mutant `TrustsRestored`)
//!
//! *Rebuilding*, after restoring a database that does not know the place of its block: a correct record of
//! it, in any pack, is copied like a put. The row gets the place of the copy if it does not say `stored`, or
//! still has the place that was found damaged. A collector that has released the record may be about to punch
//! it. (mutants `RebuildsInPlace`, `RebuildsUnsynced`)
//!
//! *Dropping* a sealed pack that no row has pointed at for the grace, and none will: its row records that,
//! synced; the file goes; the directory is synced; the row goes. (mutants `DropsReferenced`, `DropsEarly`,
//! `ForgetsPack`)
//!
//! *Reading*: the header and the bytes are compared with the key. If they are wrong, the row is read once
//! more, and the block is damaged only if it has the same place. (mutants `ReadsOnce`, `ReadsHeader`)
//!
//! # Not modelled
//! A second block: only that would show the harm of moving a row that has moved. Blocks under their own names
//! beside packs (`repack`); packs in S3 (`sent`).

#![allow(clippy::large_types_passed_by_value, reason = "a state becomes a part of its turn")]

mod bounds;
mod collector;
mod state;
mod task;

use std::sync::atomic::{AtomicBool, Ordering};

use stateright::{Model, Property};

pub(crate) use bounds::{Bounds, LONG_LEG, MUTANTS, Mutant, SHORT_LEG};
use state::{
    Backup, Blob, Entry, File, MOVER, PACKS, PUTS, Pack, Reader, Rows, STORES, Slot, State, Store, Task,
};

use crate::turn::Turn;

type Turns = Vec<Turn<State>>;

#[derive(Debug)]
pub(crate) struct Packs {
    bounds: &'static Bounds,
    mutant: Option<Mutant>,
    broken: AtomicBool,
}

impl Packs {
    pub(crate) fn new(bounds: &'static Bounds, mutant: Option<Mutant>) -> Packs {
        Packs { bounds, mutant, broken: AtomicBool::new(false) }
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    fn holds(&self, holds: bool) -> bool {
        holds || self.broken.swap(true, Ordering::Relaxed)
    }

    fn add(&self, turns: &mut Turns, who: &'static str, number: usize, what: &'static str, to: State) {
        turns.push(Turn::of(who, number, what, to));
    }

    fn add_of_all(&self, turns: &mut Turns, what: &'static str, to: State) {
        turns.push(Turn::of_all(what, to));
    }

    /// Deletions, a backup, the end of the grace.
    fn turns_of_users(&self, state: &State, turns: &mut Turns) {
        if !self.bounds.collects {
            return;
        }
        for number in 0..PUTS {
            if state.rows.blobs[number] != Blob::Live {
                continue;
            }
            let mut next = *state;
            next.rows.blobs[number] = Blob::Deleted;
            next.acknowledged[number] = false;
            if let Some(backup) = &mut next.backup {
                backup.live[number] = false;
            }
            if let Some(reader) = next.reader.as_mut().filter(|_| number == 0) {
                reader.is_live = false;
            }
            if !self.bounds.relaxed[self.bounds.stores[number]] {
                next.sync_rows();
            }
            self.add(turns, "blob", number, "is deleted", next);
        }
        let place = state.rows.block.and_then(|row| row.place);
        if state.left.backups > 0
            && let Some(place) = place
        {
            let mut next = *state;
            next.left.backups -= 1;
            next.backup = Some(Backup { place, live: state.acknowledged });
            self.add_of_all(turns, "a backup is made", next);
        }
        if state.left.restores > 0 && state.saved.is_none() && place.is_some() {
            let next = State { saved: Some(state.rows), ..*state };
            self.add_of_all(turns, "the database is copied", next);
        }
        if state.left.restores > 0
            && let Some(saved) = state.saved
        {
            self.add_of_all(turns, "the copy becomes the database", self.restore(state, saved));
        }
        if state.left.graces > 0 {
            let mut next = *state;
            next.left.graces -= 1;
            next.backup = None;
            for pack in 0..PACKS {
                next.rows.waited[pack] |=
                    state.rows.packs[pack] == Pack::Sealed && !state.is_pointed_at(pack);
            }
            self.add_of_all(turns, "the grace goes by", next);
        }
    }

    /// All processes have ended before, as the documentation demands of a restore, and so have their calls.
    fn restore(&self, state: &State, saved: Rows) -> State {
        let mut next = State { rows: saved, backup: None, saved: None, ..state.without_others() };
        next.left.restores -= 1;
        for store in 0..STORES {
            next.end(store, &self.bounds.stores);
            next.rows.writers[store] = false;
        }
        for number in 0..PUTS {
            if saved.blobs[number] == Blob::Pending {
                next.rows.blobs[number] = Blob::Deleted;
            }
            next.acknowledged[number] = saved.blobs[number] == Blob::Live;
            // Bytes that were released since are lost, until they are rebuilt.
            next.excused[number] = true;
        }
        for pack in 0..PACKS {
            match saved.packs[pack] {
                Pack::Sealed if self.is(Mutant::TrustsRestored) => {}
                // Records that the other database has released may be punched.
                Pack::Writing(_) | Pack::Sealed => next.rows.packs[pack] = Pack::Found,
                // Unknown. Its name is not used again.
                Pack::Absent if state.rows.packs[pack] != Pack::Absent => {
                    next.rows.packs[pack] = Pack::Gone;
                    next.late[pack] = true;
                }
                _ => next.late[pack] |= saved.packs[pack] == Pack::Gone,
            }
        }
        next.sync_rows();
        next
    }

    fn turns_of_reader(&self, state: &State, turns: &mut Turns) {
        let mut next = *state;
        let place = state.rows.block.and_then(|row| row.place);
        let Some(reader) = state.reader else {
            if state.left.reads > 0
                && state.rows.blobs[0] == Blob::Live
                && let Some(place) = place
            {
                next.left.reads -= 1;
                next.reader = Some(Reader { place, is_live: true });
                self.add_of_all(turns, "a reader looks up the block", next);
            }
            return;
        };
        let has_header = state.has_header(reader.place);
        if state.is_good(reader.place) || has_header && self.is(Mutant::ReadsHeader) {
            next.reader = None;
            next.misread |= !state.is_good(reader.place);
            return self.add_of_all(turns, "the reader has read the block", next);
        }
        if place == Some(reader.place) || self.is(Mutant::ReadsOnce) {
            next.reader = None;
            next.misread |= reader.is_live && !state.excused[0];
            return self.add_of_all(turns, "the reader says that the block is damaged", next);
        }
        next.reader = place.map(|place| Reader { place, ..reader });
        next.misread |= place.is_none() && reader.is_live;
        self.add_of_all(turns, "the reader asks where the block is now", next);
    }

    /// Deaths, failures of disks, and of the database.
    fn turns_from_outside(&self, state: &State, turns: &mut Turns) {
        for store in (0..STORES).filter(|store| state.stores[*store] != Store::default()) {
            if state.left.deaths > 0 {
                let mut next = *state;
                next.left.deaths -= 1;
                next.end(store, &self.bounds.stores);
                self.add(turns, "process of store", store, "dies", next);
            }
        }
        if state.left.deaths > 0 && (state.punch.is_some() || state.drop.is_some()) {
            let mut next = State { punch: None, drop: None, ..*state };
            next.left.deaths -= 1;
            self.add_of_all(turns, "the collector dies", next);
        }
        for pack in (0..PACKS).filter(|pack| state.files[*pack].slots.contains(&Slot::Fresh)) {
            if state.left.failed_writes > 0 {
                let mut next = *state;
                next.left.failed_writes -= 1;
                let file = &mut next.files[pack];
                file.unreported = true;
                for slot in file.slots.iter_mut().filter(|slot| **slot == Slot::Fresh) {
                    *slot = Slot::Clean;
                }
                self.add(turns, "pack", pack, "cannot be written back", next);
            }
        }
        let is_quiet = state.tasks.iter().all(|task| task.place().is_none() && task.at == Task::default().at);
        if state.left.damages > 0
            && is_quiet
            && let Some(place) = state.rows.block.and_then(|row| row.place)
        {
            let mut next = *state;
            next.left.damages -= 1;
            next.files[place.pack].slots[place.slot] = Slot::Empty;
            next.excused = [true; PUTS];
            self.add_of_all(turns, "the record is damaged", next);
        }
        if state.left.failovers > 0 && state.rows != state.durable {
            let mut next = State { rows: state.durable, ..*state };
            next.left.failovers -= 1;
            self.add_of_all(turns, "the database loses its last transactions", next);
        }
        if state.left.cuts > 0 {
            for rows in [state.durable, state.rows] {
                for kept in [None, Some(Slot::Empty), Some(Slot::Torn), Some(Slot::Durable)] {
                    self.add_of_all(turns, "the power is cut", self.cut(state, rows, kept));
                }
            }
        }
    }

    /// All processes end. Of the names that were not synced, all or none are kept. If they are kept, `kept`
    /// is left of the records that were not synced.
    fn cut(&self, state: &State, rows: Rows, kept: Option<Slot>) -> State {
        let lost = kept.unwrap_or(Slot::Empty);
        let file = |file: File| {
            let entry = match file.entry {
                Entry::Fresh | Entry::Removed if kept.is_some() => Entry::Durable,
                Entry::Fresh | Entry::Removed => Entry::Absent,
                entry => entry,
            };
            let slots = file.slots.map(|slot| match slot {
                Slot::Fresh | Slot::Clean => lost,
                slot => slot,
            });
            let slots = if entry == Entry::Absent { Default::default() } else { slots };
            File { entry, slots, unreported: false }
        };
        let mut next = State { rows, durable: rows, files: state.files.map(file), ..state.without_others() };
        next.left.cuts -= 1;
        for store in 0..STORES {
            next.end(store, &self.bounds.stores);
        }
        for number in 0..PUTS {
            if self.bounds.relaxed[self.bounds.stores[number]] {
                next.excused[number] = true;
                next.acknowledged[number] &= rows.blobs[number] == Blob::Live;
            }
        }
        next
    }
}

impl Model for Packs {
    type State = State;
    type Action = Turn<State>;

    fn init_states(&self) -> Vec<State> {
        let mut tasks = [Task::default(); PUTS + 1];
        for (task, runs) in tasks.iter_mut().zip(self.bounds.runs) {
            task.left = runs;
        }
        vec![State {
            rows: Rows::default(),
            durable: Rows::default(),
            files: Default::default(),
            stores: Default::default(),
            tasks,
            chosen: false,
            punch: None,
            drop: None,
            seal: None,
            reader: None,
            backup: None,
            saved: None,
            acknowledged: [false; PUTS],
            excused: [false; PUTS],
            misread: false,
            closed: [false; PACKS],
            late: [false; PACKS],
            stray: false,
            left: self.bounds.left,
        }]
    }

    fn actions(&self, state: &State, turns: &mut Turns) {
        (0..=MOVER).for_each(|number| self.turns_of_task(state, number, turns));
        (0..STORES).for_each(|store| self.turns_of_store(state, store, turns));
        self.turns_of_collector(state, turns);
        self.turns_of_users(state, turns);
        self.turns_of_reader(state, turns);
        self.turns_from_outside(state, turns);
    }

    fn next_state(&self, _: &State, turn: Turn<State>) -> Option<State> {
        Some(turn.to)
    }

    fn properties(&self) -> Vec<Property<Packs>> {
        vec![
            Property::always("an acknowledged blob can be read", |model: &Packs, state: &State| {
                let row = state.rows.block.filter(|row| row.stored);
                let place = row.and_then(|row| row.place);
                let is_there = |number: usize| {
                    state.rows.blobs[number] == Blob::Live && place.is_some_and(|place| state.is_good(place))
                };
                let owed = |number: &usize| state.acknowledged[*number] && !state.excused[*number];
                model.holds((0..PUTS).filter(owed).all(is_there))
            }),
            Property::always("and survives a power cut", |model: &Packs, state: &State| {
                let place = state.rows.block.and_then(|row| row.place);
                let owed = |number: usize| {
                    state.acknowledged[number]
                        && !state.excused[number]
                        && !model.bounds.relaxed[model.bounds.stores[number]]
                };
                model.holds(!(0..PUTS).any(owed) || place.is_some_and(|place| state.is_durable(place)))
            }),
            Property::always("a backup within its grace can be restored", |model: &Packs, state: &State| {
                let Some(backup) = state.backup else { return true };
                let owed = (0..PUTS).any(|number| backup.live[number] && !state.excused[number]);
                model.holds(!owed || state.is_good(backup.place))
            }),
            Property::always("a reader is told no lies", |model: &Packs, state: &State| {
                model.holds(!state.misread)
            }),
            Property::always("a file of a pack has a row", |model: &Packs, state: &State| {
                let has = |pack: usize| {
                    state.files[pack].entry == Entry::Absent
                        || state.late[pack] && !model.is(Mutant::CreatesFirst)
                        || !matches!(state.rows.packs[pack], Pack::Absent | Pack::Gone)
                };
                model.holds((0..PACKS).all(has))
            }),
            Property::always("a pack that is being written has a writer", |model: &Packs, state: &State| {
                let has = |pack: &Pack| !matches!(pack, Pack::Writing(store) if !state.rows.writers[*store]);
                model.holds(state.seal.is_some() || state.rows.packs.iter().all(has))
            }),
            Property::always(
                "nothing is written to a pack that its writer sealed",
                |model: &Packs, state: &State| model.holds(!state.stray),
            ),
        ]
    }
}
