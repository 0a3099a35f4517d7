//! The result of one collection when nothing else runs.
//!
//! This is the promise that nothing is kept for ever. A model checker cannot check "eventually" for a
//! protocol that may go in circles, so it checks every state: if everything stopped here, and one collector
//! then ran to its end, would exactly the referenced blocks be left?

use crate::protocol::{Protocol, Step};
use crate::state::{ASIDE, BLOBS, BLOCKS, BlobState, BlockSet, Bytes, COLLECTORS, State, WRITERS};

impl Protocol {
    pub(crate) fn collects_cleanly(&self, state: &State) -> bool {
        let mut rest = self.everybody_stops(*state);
        self.reap_and_sweep(&mut rest);
        let mut clean = rest.blobs().all(|blob| blob.state == BlobState::Live);
        for block in 0..BLOCKS {
            let row = rest.blocks[block].row;
            clean &= row.is_some() == rest.is_referenced(block);
            clean &= row.is_none_or(|row| !row.candidate && !row.doom.holds());
        }
        clean &= rest.blocks.iter().all(|block| block.aside.iter().all(Option::is_none));
        // Puts that never committed leave bytes without a row. These go after an adoption.
        let mut rest_adopted = rest;
        for block in 0..BLOCKS {
            if rest.blocks[block].row.is_none() && rest.blocks[block].bytes != Bytes::Absent {
                rest_adopted = self.adopted(rest_adopted, block);
            }
        }
        self.reap_and_sweep(&mut rest_adopted);
        let left = |block: usize| rest_adopted.blocks[block].bytes != Bytes::Absent;
        clean && (0..BLOCKS).all(|block| rest.is_referenced(block) || !left(block))
    }

    /// Processes in the middle of a step stop for good, readers finish, and time passes.
    fn everybody_stops(&self, mut state: State) -> State {
        for writer in 0..WRITERS {
            self.try_step(&mut state, Step::Stop(writer));
        }
        for collector in 0..COLLECTORS {
            self.try_step(&mut state, Step::Crash(collector));
            // Requests that are on their way are refused in the end.
            for block in 0..BLOCKS {
                self.try_step(&mut state, Step::DeleteBytes(collector, block, false));
            }
        }
        self.try_step(&mut state, Step::AbandonVerify);
        for block in 0..BLOCKS {
            self.try_step(&mut state, Step::DoomRunsOut(block));
        }
        for place in 0..BLOBS {
            self.try_step(&mut state, Step::Close(place));
        }
        // The collection is a new one.
        state.collectors[0].runs = 0;
        state
    }

    fn reap_and_sweep(&self, state: &mut State) {
        for (block, place) in (0..BLOCKS).flat_map(|block| (0..ASIDE).map(move |place| (block, place))) {
            self.try_step(state, Step::Tidy(0, block, place));
            self.try_step(state, Step::ActAside(0, block));
        }
        for place in 0..BLOBS {
            self.try_step(state, Step::Expire(place));
            self.try_step(state, Step::Claim(place));
            for block in 0..BLOCKS {
                self.try_step(state, Step::DropReference(place, block));
            }
            self.try_step(state, Step::DropRow(place));
        }
        let mut unreferenced = BlockSet::NONE;
        for block in 0..BLOCKS {
            self.try_step(state, Step::Unmark(block));
            if state.blocks[block].row.is_some_and(|row| row.candidate) {
                unreferenced.insert(block);
            }
        }
        if unreferenced.is_empty() {
            return;
        }
        state.collectors[0].runs = 0;
        self.try_step(state, Step::Doom(0, unreferenced));
        self.try_step(state, Step::Doom(0, unreferenced));
        for block in unreferenced.iter() {
            self.try_step(state, Step::MoveAside(0, block));
        }
        self.try_step(state, Step::Settle(0));
        for block in unreferenced.iter() {
            self.try_step(state, Step::ActAside(0, block));
        }
        self.try_step(state, Step::Sweep(0));
        for block in unreferenced.iter() {
            self.try_step(state, Step::DeleteBytes(0, block, true));
        }
        self.try_step(state, Step::CommitSweep(0));
    }

    /// Takes the step if it is possible.
    fn try_step(&self, state: &mut State, step: Step) {
        if let Some(next) = self.step(state, step) {
            *state = next;
        }
    }
}
