//! A put, and the move of a record. Both append to a pack of their own store, sync it, and make the row point
//! there.

use super::state::{At, Blob, Entry, MOVER, PACKS, PUTS, Pack, Place, Row, SLOTS, Slot, State, Store, Task};
use super::{Mutant, Packs, Turns};

impl Packs {
    pub(super) fn turns_of_task(&self, state: &State, number: usize, turns: &mut Turns) {
        let task = state.tasks[number];
        let store = self.bounds.stores[number];
        let to = |at: At| {
            let mut next = *state;
            next.tasks[number].at = at;
            next
        };
        let who = self.name(number);
        let mut add = |what, next: State| self.add(turns, who, number, what, next);
        match task.at {
            At::Idle if number == MOVER && self.bounds.rebuilds => {
                (0..PACKS).for_each(|pack| self.begin_to_rebuild(state, pack, turns));
            }
            At::Idle if number == MOVER => {
                if let Some(next) = self.begin_to_move(state) {
                    add("reads a record and begins to move it", next);
                }
            }
            At::Idle => {
                if task.left > 0 && state.rows.blobs[number] == Blob::None && !state.stores[store].latched {
                    let mut next = *state;
                    let row = next.rows.block.get_or_insert_default();
                    next.tasks[number] = Task { at: At::Look(*row), found: None, left: task.left - 1 };
                    next.rows.blobs[number] = Blob::Pending;
                    next.rows.writers[store] = true;
                    add("begins and pins", next);
                }
            }
            At::Look(row) => add("looks", self.look(state, number, row)),
            At::Append => self.append(state, number, turns),
            At::Writing(place) => {
                let mut next = to(At::Written(place, false));
                next.stray |= state.closed[place.pack];
                let file = &mut next.files[place.pack];
                if matches!(file.entry, Entry::Fresh | Entry::Durable) {
                    file.slots[place.slot] = Slot::Fresh;
                }
                add("has written", next);
            }
            At::Written(place, _) => {
                let syncs = !self.bounds.relaxed[store] || number == MOVER && !self.is(Mutant::MovesUnsynced);
                if !syncs || self.is(Mutant::MarksUnsynced) {
                    add("does not sync", to(At::Synced(place)));
                }
            }
            At::Synced(place) if number == MOVER && self.bounds.rebuilds => {
                add("marks", self.rebuild_row(state, place));
            }
            At::Synced(place) if number == MOVER => add("moves the row", self.move_row(state, place)),
            At::Synced(place) => add("marks", self.mark(state, number, place)),
            At::Stored => add("commits", self.commit(state, number)),
            At::Failing => {
                let mut next = to(At::Idle);
                if number != MOVER && next.rows.blobs[number] == Blob::Pending {
                    next.rows.blobs[number] = Blob::Deleted;
                }
                let pack = state.stores[store].pack;
                if pack.is_some_and(|pack| state.rows.packs[pack] != Pack::Writing(store)) {
                    next.leave_pack(store);
                }
                add("gives up", next);
            }
        }
    }

    /// Whether the put may rely on the record that the row points at. It checks the header, which costs
    /// almost nothing; in a pack that another store writes, or in a found one that is not sealed, it checks
    /// the whole record.
    fn look(&self, state: &State, number: usize, row: Row) -> State {
        let mut next = *state;
        let store = self.bounds.stores[number];
        let (at, found) = match row {
            Row { stored: true, place: Some(place) } => {
                let pack = state.rows.packs[place.pack];
                let by_header =
                    pack == Pack::Sealed || pack == Pack::Writing(store) || self.is(Mutant::TrustsWriting);
                let is_intact = if by_header { state.has_header(place) } else { state.is_good(place) };
                if is_intact { (At::Stored, None) } else { (At::Append, Some(place)) }
            }
            Row { .. } => (At::Append, None),
        };
        next.tasks[number] = Task { at, found, ..state.tasks[number] };
        next
    }

    /// Takes a place in the pack of the store. Makes a pack first if there is none.
    fn append(&self, state: &State, number: usize, turns: &mut Turns) {
        let who = self.name(number);
        let store = self.bounds.stores[number];
        if state.stores[store].latched {
            let mut next = *state;
            next.tasks[number].at = At::Failing;
            return self.add(turns, who, number, "fails: the store is latched", next);
        }
        let Some(pack) = state.stores[store].pack else { return self.make_pack(state, number, turns) };
        if state.rows.packs[pack] == Pack::Absent && self.is(Mutant::CreatesFirst) {
            let mut next = *state;
            next.rows.packs[pack] = Pack::Writing(store);
            next.sync_rows();
            return self.add(turns, who, number, "inserts the row of its pack", next);
        }
        if !state.stores[store].has_file {
            let mut next = *state;
            next.files[pack].entry = Entry::Fresh;
            next.stores[store].has_file = true;
            next.late[pack] |= !matches!(state.rows.packs[pack], Pack::Writing(_) | Pack::Sealed);
            return self.add(turns, who, number, "creates the file of its pack", next);
        }
        let is_taken = |slot: usize| {
            let place = Some(Place { pack, slot });
            state.tasks.iter().zip(self.bounds.stores).any(|(task, of)| of == store && task.place() == place)
        };
        let file = &state.files[pack];
        let free = (0..SLOTS)
            .find(|slot| file.slots[*slot..].iter().all(|slot| *slot == Slot::Empty) && !is_taken(*slot));
        let mut next = *state;
        if let Some(slot) = free {
            next.tasks[number].at = At::Writing(Place { pack, slot });
            self.add(turns, who, number, "takes a place", next);
        } else if state.rows.packs[pack] != Pack::Writing(store) {
            // Another process has sealed it.
            next.leave_pack(store);
            self.add(turns, who, number, "leaves its pack", next);
        }
    }

    fn make_pack(&self, state: &State, number: usize, turns: &mut Turns) {
        let who = self.name(number);
        let store = self.bounds.stores[number];
        let mut next = *state;
        if !state.rows.writers[store] {
            next.tasks[number].at = At::Failing;
            return self.add(turns, who, number, "finds its lease gone", next);
        }
        let found = |pack: &usize| {
            self.is(Mutant::AppendsToFound)
                && matches!(state.rows.packs[*pack], Pack::Sealed | Pack::Writing(_))
                && state.files[*pack].slots.contains(&Slot::Empty)
                && state.files[*pack].entry != Entry::Absent
        };
        let fresh = |pack: &usize| {
            state.rows.packs[*pack] == Pack::Absent && state.files[*pack].entry == Entry::Absent
        };
        let Some(pack) = (0..PACKS).find(found).or_else(|| (0..PACKS).find(fresh)) else { return };
        if self.is(Mutant::CreatesFirst) && state.files[pack].entry == Entry::Absent {
            next.files[pack].entry = Entry::Fresh;
            next.stores[store] = Store { pack: Some(pack), has_file: true, ..state.stores[store] };
            return self.add(turns, who, number, "creates a file", next);
        }
        next.rows.packs[pack] = Pack::Writing(store);
        let has_file = state.files[pack].entry != Entry::Absent;
        next.stores[store] = Store { pack: Some(pack), has_file, ..state.stores[store] };
        // Synced in every mode.
        next.sync_rows();
        self.add(turns, who, number, "inserts the row of a pack", next);
    }

    /// The sync of a store's pack: it covers everything written before it, and its puts share it.
    pub(super) fn turns_of_store(&self, state: &State, store: usize, turns: &mut Turns) {
        let mut add = |what, next: State| self.add(turns, "store", store, what, next);
        let Some(pack) = state.stores[store].pack else { return };
        let mine = |task: &Task| task.place().is_some_and(|place| place.pack == pack);
        let tasks = || (0..=MOVER).filter(|number| self.bounds.stores[*number] == store);
        let mut next = *state;
        if let Some(covered) = state.stores[store].sync {
            next.stores[store].sync = None;
            let file = &mut next.files[pack];
            if file.unreported && !self.is(Mutant::ForgetsFailure) {
                file.unreported = false;
                next.stores[store].latched = true;
                for number in tasks().filter(|number| mine(&state.tasks[*number])) {
                    next.tasks[number].at = At::Failing;
                }
                return add("finds out by a sync that a write has failed", next);
            }
            for (slot, covered) in file.slots.iter_mut().zip(covered) {
                if covered && *slot == Slot::Fresh {
                    *slot = Slot::Durable;
                }
            }
            if file.entry == Entry::Fresh && !self.is(Mutant::NoSyncDirectory) {
                file.entry = Entry::Durable;
            }
            for number in tasks() {
                let At::Written(place, began_later) = state.tasks[number].at else { continue };
                if place.pack == pack && (began_later || self.is(Mutant::JoinsSync)) {
                    next.tasks[number].at = At::Synced(place);
                }
            }
            return add("ends a sync", next);
        }
        let waits = |number: &usize| matches!(state.tasks[*number].at, At::Written(place, false) if place.pack == pack);
        if tasks().any(|number| waits(&number)) {
            next.stores[store].sync = Some(state.files[pack].slots.map(|slot| slot == Slot::Fresh));
            for number in tasks().filter(waits) {
                if let At::Written(place, _) = state.tasks[number].at {
                    next.tasks[number].at = At::Written(place, true);
                }
            }
            return add("begins a sync", next);
        }
        let is_under_way = tasks().any(|number| mine(&state.tasks[number]));
        let is_used = state.files[pack].slots[0] != Slot::Empty;
        if state.rows.packs[pack] == Pack::Writing(store)
            && is_used
            && (!is_under_way || self.is(Mutant::SealsUnderWay))
        {
            if !self.is(Mutant::SealsUnsynced) {
                next.files[pack].sync();
            }
            next.rows.packs[pack] = Pack::Sealed;
            next.leave_pack(store);
            next.closed[pack] = true;
            next.sync_rows();
            add("seals its pack", next);
        }
    }

    /// One transaction. The row of the pack is locked first.
    fn mark(&self, state: &State, number: usize, place: Place) -> State {
        let mut next = *state;
        let store = self.bounds.stores[number];
        let owns = state.rows.packs[place.pack] == Pack::Writing(store) || self.is(Mutant::MarksBlindly);
        let (true, Blob::Pending, Some(row)) = (owns, state.rows.blobs[number], &mut next.rows.block) else {
            next.tasks[number].at = At::Failing;
            return next;
        };
        let found = state.tasks[number].found;
        let is_damaged = found.is_some() && row.place == found && !self.is(Mutant::KeepsDamaged);
        // Otherwise another put was faster, and these bytes are dead.
        if !row.stored || is_damaged {
            *row = Row { stored: true, place: Some(place) };
        }
        next.tasks[number].at = At::Stored;
        next
    }

    fn commit(&self, state: &State, number: usize) -> State {
        let mut next = *state;
        let is_stored = state.rows.block.is_some_and(|row| row.stored) || self.is(Mutant::CommitsUnmarked);
        if state.rows.blobs[number] != Blob::Pending || !is_stored {
            next.tasks[number].at = At::Failing;
            return next;
        }
        next.rows.blobs[number] = Blob::Live;
        next.acknowledged[number] = true;
        next.excused[number] = false;
        if !self.bounds.relaxed[self.bounds.stores[number]] {
            next.sync_rows();
        }
        next.tasks[number].at = At::Idle;
        next
    }

    fn name(&self, number: usize) -> &'static str {
        match number {
            MOVER if self.bounds.rebuilds => "rebuild",
            MOVER => "move",
            _ => "put",
        }
    }

    /// Finds a record of a block that is not at the place in its row.
    fn begin_to_rebuild(&self, state: &State, pack: usize, turns: &mut Turns) {
        let store = self.bounds.stores[MOVER];
        let task = state.tasks[MOVER];
        let Some(row) = state.rows.block else { return };
        let is_bad = !row.stored || row.place.is_some_and(|place| !state.is_good(place));
        if task.left == 0 || state.stores[store].latched || !is_bad {
            return;
        }
        for slot in 0..SLOTS {
            let place = Place { pack, slot };
            if !state.is_good(place) {
                continue;
            }
            let mut next = *state;
            next.rows.writers[store] = true;
            let found = row.place.filter(|_| row.stored);
            next.tasks[MOVER] = Task { at: At::Append, found, left: task.left - 1 };
            if self.is(Mutant::RebuildsInPlace) {
                next.tasks[MOVER].at = At::Idle;
                // The most careful implementation possible.
                next.files[pack].sync();
                if matches!(state.rows.packs[pack], Pack::Absent | Pack::Gone) {
                    next.rows.packs[pack] = Pack::Sealed;
                }
                next.rows.block = Some(Row { stored: true, place: Some(place) });
                self.tell_rebuilt(&mut next);
            }
            self.add(turns, "rebuild", MOVER, "reads a record", next);
        }
    }

    /// One transaction, as for a put, and another one that is synced and ends the pin. Only then does the
    /// block count as rebuilt.
    fn rebuild_row(&self, state: &State, place: Place) -> State {
        let mut next = *state;
        next.tasks[MOVER].at = At::Failing;
        if state.rows.packs[place.pack] != Pack::Writing(self.bounds.stores[MOVER]) {
            return next;
        }
        let found = state.tasks[MOVER].found;
        let may = |row: &&mut Row| !row.stored || found.is_some() && row.place == found;
        let Some(row) = next.rows.block.as_mut().filter(may) else { return next };
        *row = Row { stored: true, place: Some(place) };
        self.tell_rebuilt(&mut next);
        next
    }

    /// From now on the lost blobs count again.
    fn tell_rebuilt(&self, state: &mut State) {
        if !self.is(Mutant::RebuildsUnsynced) {
            state.sync_rows();
        }
        for number in 0..PUTS {
            state.excused[number] &= state.rows.blobs[number] != Blob::Live;
        }
    }

    fn begin_to_move(&self, state: &State) -> Option<State> {
        let store = self.bounds.stores[MOVER];
        let task = state.tasks[MOVER];
        let from = state.rows.block.filter(|row| row.stored)?.place?;
        let may =
            task.left > 0 && !state.stores[store].latched && state.rows.packs[from.pack] == Pack::Sealed;
        if !may || !state.is_good(from) {
            return None;
        }
        let mut next = *state;
        next.rows.writers[store] = true;
        next.tasks[MOVER] = Task { at: At::Append, found: Some(from), left: task.left - 1 };
        Some(next)
    }

    /// One transaction, which moves the row if its place has not changed.
    fn move_row(&self, state: &State, place: Place) -> State {
        let mut next = *state;
        let store = self.bounds.stores[MOVER];
        next.tasks[MOVER].at = At::Failing;
        if state.rows.packs[place.pack] != Pack::Writing(store) && !self.is(Mutant::MarksBlindly) {
            return next;
        }
        let from = state.tasks[MOVER].found;
        let Some(row) = next.rows.block.as_mut().filter(|row| row.place == from) else { return next };
        row.place = Some(place);
        if let Some(from) = from.filter(|_| self.is(Mutant::PunchesMoved)) {
            next.rows.holes[from.pack][from.slot] = true;
        }
        next
    }
}
