//! Dooming, and the ways to delete the bytes of a doomed block.
//!
//! *Swept*: inside the second transaction, whose locks are lost with its session. A collector that does not
//! know that yet, and a request that is still on its way, continue to delete: dooms exist for that reason. A
//! doom does not end as long as a deletion that relies on it may happen.
//!
//! *Requested*: before the second transaction. The server refuses a delete whose doom is over.
//!
//! *Aside*: files are moved to `.doomed` at any time, and the row then decides whether they are unlinked or
//! moved back. No put waits for such a doom. `files` models more of that, with power cuts.

use crate::bounds::Deletion;
use crate::protocol::{Mutant, Protocol};
use crate::state::{BLOCKS, Block, BlockSet, Bytes, Collection, Doom, GONE, Holder, Row, State};

impl Protocol {
    /// The first transaction: locks candidates, then looks up their references, and dooms those without any.
    /// (Referenced candidates lose the mark, [`Protocol::unmark`]; locked ones are skipped.)
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
            // A doom of files makes no put wait.
            let over = self.bounds.deletion == Deletion::Aside;
            let doom = Doom::By { collector: collector as u8, over };
            let stored = row.stored && self.is(Mutant::StaysStored);
            next.blocks[block].row = Some(Row { stored, candidate: true, doom });
        }
        next.collectors[collector].phase = match self.bounds.deletion {
            Deletion::Aside => Collection::Moving(blocks),
            Deletion::Swept | Deletion::Requested => Collection::Doomed,
        };
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

    /// The second transaction begins: it locks the rows that this collection has doomed, and keeps those that
    /// it still dooms, in time, and that are not referenced. The others lose the doom.
    pub(crate) fn sweep(&self, state: &State, collector: usize) -> Option<State> {
        let mine: BlockSet =
            (0..state.blocks.len()).filter(|block| doomed_by(state, *block, collector)).collect();
        if state.collectors[collector].phase != Collection::Doomed || state.any_locked(mine) {
            return None;
        }
        let mut next = *state;
        let mut left = BlockSet::NONE;
        if self.bounds.deletion == Deletion::Requested {
            // The server refuses a delete whose doom is over, by its date, however late it was sent.
            let sent: BlockSet = mine.iter().filter(|block| in_time(state, *block)).collect();
            for block in mine.iter().filter(|block| !sent.contains(*block)) {
                lift(&mut next, block, collector);
            }
            next.collectors[collector].phase = Collection::Sweeping(sent);
            return Some(next);
        }
        for block in mine.iter() {
            if (in_time(state, block) || self.is(Mutant::SweepsLate)) && !state.is_referenced(block) {
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

    /// A deletion takes effect or, with `happens` false, never will.
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
        } else if sweeping && self.bounds.deletion == Deletion::Requested {
            // Answered: nothing was deleted.
            if state.is_locked(block) {
                return None;
            }
            lift(&mut next, block, collector);
        } else if sweeping {
            // It was not sent, or certainly failed: the row stays, without a doom.
            next.blocks[block].lock = None;
            if let Some(row) = next.row(block) {
                row.doom = Doom::No;
            }
        }
        let waits = match self.bounds.deletion {
            Deletion::Requested => true,
            _ => next.blocks.iter().any(|block| is_held(block, collector)),
        };
        if left.is_empty() && !(sweeping && waits) {
            end(&mut next, collector);
        }
        Some(next)
    }

    /// The second transaction commits: the rows of deleted blocks go. A row with an unknown outcome keeps its
    /// doom.
    pub(crate) fn commit_sweep(&self, state: &State, collector: usize) -> Option<State> {
        let Collection::Sweeping(left) = state.collectors[collector].phase else { return None };
        let mut next = *state;
        if self.bounds.deletion == Deletion::Requested {
            for block in (0..BLOCKS).filter(|block| !left.contains(*block)) {
                let mine = doomed_by(state, block, collector);
                if mine && state.is_locked(block) {
                    return None;
                }
                if mine || self.is(Mutant::SettlesBlindly) {
                    remove_row(&mut next, block);
                }
            }
        }
        for (index, block) in
            next.blocks.iter_mut().enumerate().filter(|(_, block)| is_held(block, collector))
        {
            block.lock = None;
            if !left.contains(index) {
                block.row = None;
                // As in `remove_row`.
                next.writers.iter_mut().for_each(|writer| writer.to_mark.remove(index));
            }
        }
        next.collectors[collector].phase = Collection::Zombie(left);
        if left.is_empty() {
            end(&mut next, collector);
        }
        Some(next)
    }

    /// The file of a block is moved to `.doomed`, under a name that only this collection uses.
    pub(crate) fn move_aside(&self, state: &State, collector: usize, block: usize) -> Option<State> {
        let Collection::Moving(left) = state.collectors[collector].phase else { return None };
        let mut next = *state;
        let mut still = left;
        still.remove(block);
        next.collectors[collector].phase = Collection::Moving(still);
        let found = &mut next.blocks[block];
        if found.bytes != Bytes::Absent {
            found.aside[self.place(state, collector)] = Some(found.bytes);
            found.bytes = Bytes::Absent;
        }
        left.contains(block).then_some(next)
    }

    /// The second transaction: the rows that this collection still dooms go.
    pub(crate) fn settle(&self, state: &State, collector: usize) -> Option<State> {
        if state.collectors[collector].phase != Collection::Moving(BlockSet::NONE) {
            return None;
        }
        let place = self.place(state, collector);
        let mut next = *state;
        let (mut unlink, mut restore) = (BlockSet::NONE, BlockSet::NONE);
        for block in 0..BLOCKS {
            let moved = state.blocks[block].aside[place].is_some();
            let mine = doomed_by(state, block, collector);
            if (moved || mine) && state.is_locked(block) {
                return None;
            }
            if mine {
                remove_row(&mut next, block);
            }
            if moved && (self.may_unlink(state, block) || self.is(Mutant::UnlinksWhatIsPutAgain)) {
                unlink.insert(block);
            } else if moved {
                restore.insert(block);
            }
        }
        decide(&mut next, collector, place, unlink, restore);
        Some(next)
    }

    /// A look at the row of a file in `.doomed`, whichever collection moved it.
    pub(crate) fn tidy(&self, state: &State, collector: usize, block: usize, place: usize) -> Option<State> {
        let idle = state.collectors[collector].phase == Collection::Idle;
        let here = state.blocks[block].aside[place].is_some();
        if !idle || !here || state.is_locked(block) || self.is(Mutant::LeavesAside) {
            return None;
        }
        let mut next = *state;
        let one: BlockSet = std::iter::once(block).collect();
        let (unlink, restore) =
            if self.may_unlink(state, block) { (one, BlockSet::NONE) } else { (BlockSet::NONE, one) };
        decide(&mut next, collector, place, unlink, restore);
        Some(next)
    }

    /// The block has no row or a doomed one, so nothing relies on its file.
    fn may_unlink(&self, state: &State, block: usize) -> bool {
        state.blocks[block]
            .row
            .is_none_or(|row| row.doom != Doom::No || self.is(Mutant::UnlinksUnstored) && !row.stored)
    }

    /// Carries out the decision: unlinks the file or moves it back. A damaged file never replaces another.
    pub(crate) fn act_aside(&self, state: &State, collector: usize, block: usize) -> Option<State> {
        let Collection::Decided { place, mut unlink, mut restore } = state.collectors[collector].phase else {
            return None;
        };
        let mut next = *state;
        let found = &mut next.blocks[block];
        if unlink.contains(block) {
            found.aside[usize::from(place)] = None;
        } else if restore.contains(block) {
            if let Some(bytes) = found.aside[usize::from(place)].take()
                && (bytes.are_good() || found.bytes == Bytes::Absent || self.is(Mutant::RestoresGarbage))
            {
                found.bytes = bytes;
            }
        } else {
            return None;
        }
        unlink.remove(block);
        restore.remove(block);
        decide(&mut next, collector, usize::from(place), unlink, restore);
        Some(next)
    }

    /// The name in `.doomed` of this collection.
    fn place(&self, state: &State, collector: usize) -> usize {
        let earlier: u8 = self.bounds.collections[..collector].iter().sum();
        usize::from(earlier + state.collectors[collector].runs - 1)
    }

    /// The session is lost: the locks are gone, the rows stay, and the collector continues.
    pub(crate) fn lose_session(&self, state: &State, collector: usize) -> Option<State> {
        let Collection::Sweeping(left) = state.collectors[collector].phase else { return None };
        if self.bounds.deletion == Deletion::Requested {
            return None;
        }
        let mut next = *state;
        unlock(&mut next, collector);
        next.collectors[collector].phase = Collection::Zombie(left);
        if left.is_empty() {
            end(&mut next, collector);
        }
        Some(next)
    }

    /// The process is gone. Only its requests may still be on their way.
    pub(crate) fn crash(&self, state: &State, collector: usize) -> Option<State> {
        if state.collectors[collector].phase == Collection::Idle {
            return None;
        }
        let mut next = *state;
        if self.bounds.deletion == Deletion::Requested {
            match state.collectors[collector].phase {
                Collection::Sweeping(left) if !left.is_empty() => {
                    next.collectors[collector].phase = Collection::Zombie(left);
                    return Some(next);
                }
                Collection::Zombie(_) => return None,
                _ => {}
            }
        }
        unlock(&mut next, collector);
        end(&mut next, collector);
        Some(next)
    }

    /// The time in `doomed_until` has come; or the process is gone and a lock file says so.
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

fn in_time(state: &State, block: usize) -> bool {
    state.blocks[block].row.is_some_and(|row| row.doom.holds())
}

fn lift(state: &mut State, block: usize, collector: usize) {
    if let Some(row) = state.row(block).filter(|row| row.doom.is_by(collector)) {
        row.doom = Doom::No;
    }
}

/// Ids are never reused: a writer that had pinned this row finds nothing to mark.
fn remove_row(state: &mut State, block: usize) {
    state.blocks[block].row = None;
    state.writers.iter_mut().for_each(|writer| writer.to_mark.remove(block));
}

fn decide(state: &mut State, collector: usize, place: usize, unlink: BlockSet, restore: BlockSet) {
    state.collectors[collector].phase = Collection::Decided { place: place as u8, unlink, restore };
    if unlink.is_empty() && restore.is_empty() {
        end(state, collector);
    }
}

fn is_held(block: &Block, collector: usize) -> bool {
    block.lock == Some(Holder::Collector(collector as u8))
}

fn unlock(state: &mut State, collector: usize) {
    for block in state.blocks.iter_mut().filter(|block| is_held(block, collector)) {
        block.lock = None;
    }
}

/// A collection ends. Its number is not reused, so its dooms belong to no running collection.
fn end(state: &mut State, collector: usize) {
    // Only dooms of files are over from the beginning; they still say that nothing relies on the file.
    let aside = matches!(
        state.collectors[collector].phase,
        Collection::Moving(_) | Collection::Decided { .. } | Collection::Idle
    );
    state.collectors[collector].phase = Collection::Idle;
    for row in state.blocks.iter_mut().filter_map(|block| block.row.as_mut()) {
        if row.doom.is_by(collector) {
            row.doom = match row.doom {
                Doom::By { over: true, .. } if aside => Doom::By { collector: GONE, over: true },
                doom if doom.holds() => Doom::ByNobody,
                _ => Doom::No,
            };
        }
    }
}
