//! Verifying beside all other processes, and the damage that it finds.
//!
//! The bytes are read under the lock of their row, and the row is changed under the same lock. Bytes that are
//! not referenced and have no row are adopted as a candidate that is not `stored`: no put trusts them, and
//! the next collection removes them.

use crate::protocol::{Mutant, Protocol};
use crate::state::{Bytes, Doom, Holder, Row, State, Verifier};

impl Protocol {
    /// An event from outside: the bytes are lost or changed.
    pub(crate) fn damage(&self, state: &State, block: usize, bytes: Bytes) -> Option<State> {
        let mut next = *state;
        next.damages = state.damages.checked_sub(1)?;
        next.blocks[block].bytes = bytes;
        next.blocks[block].damaged = true;
        state.blocks[block].bytes.are_good().then_some(next)
    }

    /// Locks the row of a block that should be stored, and reads it. If it is good, the verification of it
    /// ends.
    pub(crate) fn verify(&self, state: &State, block: usize) -> Option<State> {
        let found = state.blocks[block];
        let good = if self.is(Mutant::VerifiesNameOnly) { found.bytes.are_good() } else { found.has_good() };
        let damaged = found.row.is_some_and(|row| row.stored) && !good;
        let possible = self.bounds.verify && state.verifier == Verifier::Idle && !state.is_locked(block);
        let mut next = *state;
        next.verifier = Verifier::FoundDamaged(block as u8);
        if !self.is(Mutant::VerifiesUnlocked) {
            next.blocks[block].lock = Some(Holder::Verifier);
        }
        (possible && damaged).then_some(next)
    }

    /// Clears `stored`, so that the next put writes the block again.
    pub(crate) fn clear(&self, state: &State) -> Option<State> {
        let mut next = *state;
        let Verifier::FoundDamaged(block) = state.verifier else { return None };
        let block = usize::from(block);
        if self.is(Mutant::VerifiesUnlocked) {
            next.cleared_good = state.blocks[block].bytes.are_good();
            if state.is_locked(block) {
                return None;
            }
        }
        if self.is(Mutant::VerifiesNameOnly) {
            next.cleared_good = state.blocks[block].has_good();
        }
        next.verifier = Verifier::Idle;
        next.blocks[block].lock = None;
        if let Some(row) = next.row(block) {
            row.stored = false;
        }
        Some(next)
    }

    /// Its process is gone.
    pub(crate) fn abandon_verify(&self, state: &State) -> Option<State> {
        let mut next = *state;
        let Verifier::FoundDamaged(block) = std::mem::replace(&mut next.verifier, Verifier::Idle) else {
            return None;
        };
        if !self.is(Mutant::VerifiesUnlocked) {
            next.blocks[usize::from(block)].lock = None;
        }
        Some(next)
    }

    /// Inserts a row for bytes without one. They were seen in a listing, and may be gone by now.
    pub(crate) fn adopt(&self, state: &State, block: usize) -> Option<State> {
        (self.bounds.adopt && state.blocks[block].row.is_none()).then(|| self.adopted(*state, block))
    }

    pub(crate) fn adopted(&self, mut state: State, block: usize) -> State {
        let stored = self.is(Mutant::AdoptsAsStored);
        state.blocks[block].row = Some(Row { stored, candidate: true, doom: Doom::No });
        // Wrong bytes without a row are no loss.
        state.blocks[block].damaged = false;
        state
    }
}
