//! A collection: leases end, references go, blocks are released, holes are punched, packs are dropped. Each
//! step is one transaction, or one call outside of transactions, which may come arbitrarily late.

use super::state::{Blob, Drop, Entry, PACKS, PUTS, Pack, Place, Row, SLOTS, STORES, Seal, Slot, State};
use super::{Mutant, Packs, Turns};

impl Packs {
    pub(super) fn turns_of_collector(&self, state: &State, turns: &mut Turns) {
        for store in 0..STORES {
            if state.rows.writers[store] && state.left.expiries > 0 {
                self.add(turns, "lease of store", store, "ends", self.expire(state, store));
            }
        }
        self.seal(state, turns);
        if !self.bounds.collects {
            return;
        }
        for number in 0..PUTS {
            if state.rows.blobs[number] == Blob::Deleted {
                let mut next = *state;
                next.rows.blobs[number] = Blob::None;
                self.add(turns, "blob", number, "is reaped", next);
            }
        }
        self.release(state, turns);
        self.punch(state, turns);
        self.drop(state, turns);
    }

    /// One transaction: pending blobs are deleted, and no process marks in the packs any more.
    fn expire(&self, state: &State, store: usize) -> State {
        let mut next = *state;
        next.left.expiries -= 1;
        next.rows.writers[store] = false;
        for number in 0..PUTS {
            if self.bounds.stores[number] == store && next.rows.blobs[number] == Blob::Pending {
                next.rows.blobs[number] = Blob::Deleted;
            }
        }
        for pack in (0..PACKS).filter(|pack| state.rows.packs[*pack] == Pack::Writing(store)) {
            match self.mutant {
                Some(Mutant::LeavesPacks) => {}
                Some(Mutant::LooksUpEndFirst) => next.seal = Some(Seal::Commit(pack, end(state, pack))),
                Some(Mutant::CutsFirst) => next.seal = Some(Seal::Cut(pack, end(state, pack))),
                _ => next.rows.packs[pack] = Pack::Found,
            }
        }
        next
    }

    /// A found pack is synced, then verified outside of transactions, then sealed.
    fn seal(&self, state: &State, turns: &mut Turns) {
        let mut next = *state;
        let Some(seal) = state.seal else {
            for pack in (0..PACKS).filter(|pack| state.rows.packs[*pack] == Pack::Found) {
                let mut next = *state;
                if !self.is(Mutant::SealsUnsynced) {
                    next.files[pack].sync();
                }
                next.seal = Some(Seal::Verify(pack));
                self.add(turns, "pack", pack, "is synced by who found it", next);
            }
            return;
        };
        match seal {
            Seal::Verify(pack) => {
                next.seal = None;
                next.rows.packs[pack] = Pack::Sealed;
                let bad = |row: &&mut Row| {
                    let place = row.place.filter(|place| place.pack == pack);
                    place.is_some_and(|place| !state.is_good(place)) && !self.is(Mutant::TrustsFound)
                };
                if let Some(row) = next.rows.block.as_mut().filter(bad) {
                    row.stored = false;
                }
                next.sync_rows();
                self.add(turns, "pack", pack, "is verified and sealed", next);
            }
            Seal::Commit(pack, end) => {
                next.rows.packs[pack] = Pack::Sealed;
                next.sync_rows();
                next.seal = (!self.is(Mutant::CutsFirst)).then_some(Seal::Cut(pack, end));
                self.add(turns, "pack", pack, "is sealed", next);
            }
            Seal::Cut(pack, end) => {
                next.files[pack].slots[end..].fill(Slot::Empty);
                next.seal = self.is(Mutant::CutsFirst).then_some(Seal::Commit(pack, end));
                self.add(turns, "pack", pack, "is cut", next);
            }
        }
    }

    /// One transaction, synced in every mode: the row of an unreferenced block goes, and leaves a hole.
    fn release(&self, state: &State, turns: &mut Turns) {
        let Some(row) = state.rows.block else { return };
        let is_free = state.rows.blobs == [Blob::None; PUTS];
        let mut next = *state;
        if self.is(Mutant::LooksBeforeLocking) && is_free && !state.chosen {
            next.chosen = true;
            return self.add_of_all(turns, "nothing refers to the block", next);
        }
        if !is_free && !state.chosen {
            return;
        }
        next.chosen = false;
        next.rows.block = None;
        if let Some(Place { pack, slot }) = row.place {
            next.rows.holes[pack][slot] = true;
        }
        if !self.is(Mutant::PunchesUnsynced) {
            next.sync_rows();
        }
        self.add_of_all(turns, "the block is released", next);
    }

    /// The choice of a hole, the call, and the transaction that forgets it.
    fn punch(&self, state: &State, turns: &mut Turns) {
        if let Some(place) = state.punch {
            let mut next = *state;
            next.punch = None;
            let slot = &mut next.files[place.pack].slots[place.slot];
            if *slot != Slot::Empty {
                *slot = Slot::Punched;
            }
            next.rows.holes[place.pack][place.slot] = false;
            return self.add_of_all(turns, "a hole is punched", next);
        }
        for (pack, holes) in state.rows.holes.iter().enumerate() {
            for slot in (0..SLOTS).filter(|slot| holes[*slot]) {
                let next = State { punch: Some(Place { pack, slot }), ..*state };
                self.add_of_all(turns, "a hole is chosen", next);
            }
        }
    }

    /// A sealed pack that no row has pointed at for the grace: its row records that, then the file goes, then
    /// the row.
    fn drop(&self, state: &State, turns: &mut Turns) {
        let mut next = *state;
        match state.drop {
            None => {
                for pack in 0..PACKS {
                    let may = match state.rows.packs[pack] {
                        Pack::Sealed => {
                            let is_empty = !state.is_pointed_at(pack) && self.is(Mutant::DropsEarly);
                            state.rows.waited[pack] || is_empty || self.is(Mutant::DropsReferenced)
                        }
                        // From a collection that died.
                        Pack::Dropped => true,
                        Pack::Absent | Pack::Writing(_) | Pack::Found | Pack::Gone => false,
                    };
                    if !may {
                        continue;
                    }
                    let mut next = *state;
                    next.rows.packs[pack] = Pack::Dropped;
                    next.rows.holes[pack] = [false; SLOTS];
                    let first = self.is(Mutant::ForgetsPack);
                    next.drop = Some(if first { Drop::Forget(pack) } else { Drop::Unlink(pack) });
                    next.sync_rows();
                    self.add(turns, "pack", pack, "is dropped", next);
                }
            }
            Some(Drop::Unlink(pack)) => {
                let entry = &mut next.files[pack].entry;
                *entry = if *entry == Entry::Durable { Entry::Removed } else { Entry::Absent };
                next.drop = (!self.is(Mutant::ForgetsPack)).then_some(Drop::Sync(pack));
                self.add(turns, "pack", pack, "is unlinked", next);
            }
            Some(Drop::Sync(pack)) => {
                let entry = &mut next.files[pack].entry;
                if *entry == Entry::Removed {
                    *entry = Entry::Absent;
                }
                next.drop = Some(Drop::Forget(pack));
                self.add(turns, "pack", pack, "is gone for good", next);
            }
            Some(Drop::Forget(pack)) => {
                next.rows.packs[pack] = Pack::Gone;
                next.drop = self.is(Mutant::ForgetsPack).then_some(Drop::Unlink(pack));
                self.add(turns, "pack", pack, "is forgotten", next);
            }
        }
    }
}

/// The end of the last record of the pack that a row points at.
fn end(state: &State, pack: usize) -> usize {
    let place = state.rows.block.and_then(|row| row.place);
    place.filter(|place| place.pack == pack).map_or(0, |place| place.slot + 1)
}
