//! Dooming and sweeping: the two transactions in which a collection deletes blocks.
//!
//! The bytes are deleted inside the second one, and the locks of a transaction are lost with its session. A collector
//! that does not know that yet, and a request that is still on its way, go on deleting: that is what dooms are for. A
//! doom does not run out as long as a deletion that relies on it may happen; the times in the design see to that.

use crate::protocol::{Mutant, Protocol};
use crate::state::{Block, BlockSet, Bytes, Collection, Doom, Holder, Row, State};

impl Protocol {
    /// The first transaction: locks candidates, then looks up who references them, and dooms those that nobody does.
    /// (Those that are referenced lose the mark, [`Protocol::unmark`]; those that are locked are left alone.)
    pub(crate) fn doom(&self, state: &State, collector: usize, blocks: BlockSet) -> Option<State> {
        let looked = match state.collectors[collector].phase {
            Collection::Idle if state.collectors[collector].runs < self.bounds.collections[collector] => {
                false
            }
            Collection::Looked(unreferenced) if unreferenced == blocks => true,
            _ => return None,
        };
        let mut next = *state;
        for block in blocks.iter() {
            let row = state.blocks[block].row.filter(|row| row.candidate && !state.is_locked(block))?;
            if row.doom.holds() && !self.is(Mutant::StolenDoom) || state.is_referenced(block) && !looked {
                return None;
            }
            let doom = Doom::By { collector: collector as u8, over: false };
            let stored = row.stored && self.is(Mutant::StaysStored);
            next.blocks[block].row = Some(Row { stored, candidate: true, doom });
        }
        next.collectors[collector].phase = Collection::Doomed;
        if self.is(Mutant::LooksBeforeLocking) && !looked {
            next.blocks = state.blocks;
            next.collectors[collector].phase = Collection::Looked(blocks);
        }
        next.collectors[collector].runs += u8::from(!looked);
        Some(next)
    }

    /// A candidate that is referenced loses the mark.
    pub(crate) fn unmark(&self, state: &State, block: usize) -> Option<State> {
        let mut next = *state;
        let row = next.row(block).filter(|row| row.candidate)?;
        row.candidate = false;
        (state.is_referenced(block) && !state.is_locked(block)).then_some(next)
    }

    /// The second transaction begins: locks what this collection has doomed, and keeps those rows that are still doomed
    /// by it, in time, and not referenced. The others lose the doom.
    pub(crate) fn sweep(&self, state: &State, collector: usize) -> Option<State> {
        let mine: BlockSet =
            (0..state.blocks.len()).filter(|block| doomed_by(state, *block, collector)).collect();
        if state.collectors[collector].phase != Collection::Doomed || state.any_locked(mine) {
            return None;
        }
        let mut next = *state;
        let mut left = BlockSet::NONE;
        for block in mine.iter() {
            let in_time = state.blocks[block].row.is_some_and(|row| row.doom.holds());
            if (in_time || self.is(Mutant::SweepsLate)) && !state.is_referenced(block) {
                next.blocks[block].lock = Some(Holder::Collector(collector as u8));
                left.insert(block);
            } else if let Some(row) = next.row(block) {
                row.doom = Doom::No;
            }
        }
        next.collectors[collector].phase = Collection::Sweeping(left);
        if left.is_empty() {
            end(&mut next, collector);
        }
        Some(next)
    }

    /// A deletion takes effect; or, with `happens` false, never will.
    pub(crate) fn delete_bytes(
        &self,
        state: &State,
        collector: usize,
        block: usize,
        happens: bool,
    ) -> Option<State> {
        let mut next = *state;
        let (Collection::Sweeping(left) | Collection::Zombie(left)) = &mut next.collectors[collector].phase
        else {
            return None;
        };
        if !left.contains(block) {
            return None;
        }
        left.remove(block);
        let left = *left;
        let sweeping = matches!(state.collectors[collector].phase, Collection::Sweeping(_));
        if happens {
            next.blocks[block].bytes = Bytes::Absent;
            next.blocks[block].damaged = false;
        } else if sweeping {
            // It was not sent, or surely failed: the row stays, without a doom.
            next.blocks[block].lock = None;
            if let Some(row) = next.row(block) {
                row.doom = Doom::No;
            }
        }
        let holds_a_lock = next.blocks.iter().any(|block| is_held(block, collector));
        if left.is_empty() && !(sweeping && holds_a_lock) {
            end(&mut next, collector);
        }
        Some(next)
    }

    /// The second transaction commits: the rows of what is deleted go. What has an unknown outcome keeps its doom.
    pub(crate) fn commit_sweep(&self, state: &State, collector: usize) -> Option<State> {
        let Collection::Sweeping(left) = state.collectors[collector].phase else { return None };
        let mut next = *state;
        for (index, block) in
            next.blocks.iter_mut().enumerate().filter(|(_, block)| is_held(block, collector))
        {
            block.lock = None;
            if !left.contains(index) {
                block.row = None;
                // Ids are not used again: a writer that had pinned this row will find nothing to mark.
                next.writers.iter_mut().for_each(|writer| writer.to_mark.remove(index));
            }
        }
        next.collectors[collector].phase = Collection::Zombie(left);
        if left.is_empty() {
            end(&mut next, collector);
        }
        Some(next)
    }

    /// The session is lost: the locks are gone, the rows stay, and the collector goes on.
    pub(crate) fn lose_session(&self, state: &State, collector: usize) -> Option<State> {
        let Collection::Sweeping(left) = state.collectors[collector].phase else { return None };
        let mut next = *state;
        unlock(&mut next, collector);
        next.collectors[collector].phase = Collection::Zombie(left);
        if left.is_empty() {
            end(&mut next, collector);
        }
        Some(next)
    }

    /// The process is gone, and nothing that it sent is still on its way.
    pub(crate) fn crash(&self, state: &State, collector: usize) -> Option<State> {
        if state.collectors[collector].phase == Collection::Idle {
            return None;
        }
        let mut next = *state;
        unlock(&mut next, collector);
        end(&mut next, collector);
        Some(next)
    }

    /// The time in `doomed_until` comes; or the process is gone and a lock file says so.
    pub(crate) fn doom_runs_out(&self, state: &State, block: usize) -> Option<State> {
        let mut next = *state;
        let row = next.row(block)?;
        match row.doom {
            Doom::ByNobody => row.doom = Doom::No,
            Doom::By { collector, over: false } => {
                let relied_upon = state.collectors[usize::from(collector)].phase.may_delete(block);
                if relied_upon && !self.is(Mutant::ShortDoom) {
                    return None;
                }
                row.doom = Doom::By { collector, over: true };
            }
            Doom::By { over: true, .. } | Doom::No => return None,
        }
        Some(next)
    }
}

fn doomed_by(state: &State, block: usize, collector: usize) -> bool {
    state.blocks[block].row.is_some_and(|row| row.doom.is_by(collector))
}

fn is_held(block: &Block, collector: usize) -> bool {
    block.lock == Some(Holder::Collector(collector as u8))
}

fn unlock(state: &mut State, collector: usize) {
    for block in state.blocks.iter_mut().filter(|block| is_held(block, collector)) {
        block.lock = None;
    }
}

/// A collection ends. Its number is not used again: what it has doomed is doomed by nobody who is there.
fn end(state: &mut State, collector: usize) {
    state.collectors[collector].phase = Collection::Idle;
    for row in state.blocks.iter_mut().filter_map(|block| block.row.as_mut()) {
        if row.doom.is_by(collector) {
            row.doom = if row.doom.holds() { Doom::ByNobody } else { Doom::No };
        }
    }
}
