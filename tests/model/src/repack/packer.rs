//! A repack into packs, and the look at files that it left.

use super::bounds::Mutant;
use super::state::{PACKERS, Pack, RUNS, Record, State, Tidy};
use super::{Repack, Turns};

impl Repack {
    pub(super) fn turns_of_packer(&self, state: &State, number: usize, turns: &mut Turns) {
        let packer = state.packers[number];
        let to = |at: Pack| {
            let mut next = *state;
            next.packers[number].at = at;
            next
        };
        let mut add = |what: &'static str, next: State| self.add(turns, "repack", number, what, next);
        let slot = number * RUNS + usize::from(packer.runs.saturating_sub(1));
        match packer.at {
            Pack::Idle if packer.runs < self.bounds.to_packs[number] && state.row.stored => {
                let mut next = *state;
                next.packers[number].runs += 1;
                if state.row.place.is_none() && state.is_good(None) {
                    next.packers[number].at = Pack::Move;
                    next.records[number * RUNS + usize::from(packer.runs)] = Record::Good;
                    add("reads the file, and appends it", next);
                } else if state.row.place.is_some() && state.is_good(state.row.place) && state.name {
                    next.packers[number].at = Pack::Doom;
                    add("finds a file whose block is in a pack", next);
                }
            }
            Pack::Idle => {}
            Pack::Move => {
                if let Some(next) = self.moved(state, number, slot) {
                    add("moves the row, and dooms the name", next);
                } else {
                    add("finds the row in use, or moved", to(Pack::Idle));
                }
            }
            Pack::Doom => {
                let is_in_a_pack = state.row.stored && state.row.place.is_some();
                if is_in_a_pack && (!state.is_pinned() || self.is(Mutant::RepackMovesPinned)) {
                    let mut next = to(Pack::Take);
                    next.row.doomed_by = Some(number as u8);
                    next.persist_rows();
                    add("dooms the name", next);
                } else {
                    add("finds the block in use", to(Pack::Idle));
                }
            }
            Pack::Take => {
                let mut next = to(Pack::Sync);
                next.aside[slot] = std::mem::take(&mut next.name);
                add("sets the file aside", next);
                add("cannot set the file aside", to(Pack::Idle));
            }
            Pack::Sync => {
                let mut next = to(Pack::Settle);
                next.persist_names();
                add("syncs both directories", next);
            }
            Pack::Settle => add("looks at the row", self.settled(state, number, slot)),
            Pack::Unlink => {
                let mut next = to(Pack::Idle);
                next.aside[slot] = false;
                add("unlinks what it set aside", next);
            }
            Pack::Restore => {
                let mut next = to(Pack::Idle);
                next.name |= std::mem::take(&mut next.aside[slot]);
                add("moves the file back", next);
            }
            Pack::UnlinkName => {
                let mut next = to(Pack::Idle);
                next.name = false;
                add("unlinks the name", next);
            }
        }
        if packer.at != Pack::Idle {
            self.add(turns, "repack", number, "dies", to(Pack::Idle));
        }
    }

    /// The transaction that moves the row, if it may.
    fn moved(&self, state: &State, number: usize, slot: usize) -> Option<State> {
        let row = state.row;
        let is_there = row.stored && row.place.is_none() && row.doomed_by.is_none();
        let is_free = !state.is_pinned() || self.is(Mutant::RepackMovesPinned);
        if !(is_there || self.is(Mutant::RepackMovesMoved)) || !is_free {
            return None;
        }
        let mut next = *state;
        next.point(Some(slot as u8));
        next.row.doomed_by = Some(number as u8);
        if !self.is(Mutant::RepackMovesUnsynced) {
            next.persist_rows();
        }
        let at_once = self.is(Mutant::RepackUnlinksAtOnce);
        next.packers[number].at = if at_once { Pack::UnlinkName } else { Pack::Take };
        Some(next)
    }

    /// The transaction that decides what happens to a file that was set aside, and lifts the doom.
    fn settled(&self, state: &State, number: usize, slot: usize) -> State {
        let mut next = *state;
        let unlinks = self.may_unlink(state) || self.is(Mutant::RepackUnlinksBlindly);
        next.packers[number].at = match (state.aside[slot], unlinks) {
            (false, _) => Pack::Idle,
            (true, true) => Pack::Unlink,
            (true, false) => Pack::Restore,
        };
        if state.row.doomed_by == Some(number as u8) {
            next.row.doomed_by = None;
        }
        next
    }

    /// Nothing relies on a file in `.doomed`, now or later.
    fn may_unlink(&self, state: &State) -> bool {
        let is_pinned = state.is_pinned() && !self.is(Mutant::RepackForgetsPins);
        let row = state.row;
        row.doomed_by.is_some() || row.stored && row.place.is_some() && !is_pinned
    }

    /// Files in `.doomed` whose repack may be alive.
    pub(super) fn tidies(&self, state: &State, turns: &mut Turns) {
        let slots = (0..PACKERS * RUNS).filter(|slot| state.aside[*slot]);
        let mut next = State { tidier: Tidy::Idle, ..*state };
        match state.tidier {
            Tidy::Idle => {
                for slot in slots {
                    let unlinks = self.may_unlink(state);
                    let slot = slot as u8;
                    let tidier = if unlinks { Tidy::Unlink(slot) } else { Tidy::Restore(slot) };
                    self.add_of_all(turns, "somebody finds a file in .doomed", State { tidier, ..*state });
                }
            }
            Tidy::Unlink(slot) => {
                next.aside[usize::from(slot)] = false;
                self.add_of_all(turns, "it is unlinked", next);
            }
            Tidy::Restore(slot) => {
                next.name |= std::mem::take(&mut next.aside[usize::from(slot)]);
                self.add_of_all(turns, "it moves back", next);
            }
        }
    }
}
