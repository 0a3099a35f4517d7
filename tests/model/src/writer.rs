//! Putting, on the long path and the short one.
//!
//! A writer may stop at any point, for good: it crashed, gave up, or was refused. Or it pauses for longer
//! than its lease; then another process expires its blob, and the writer continues with its old knowledge.
//! Each function is one step; it returns `None` if that step is not possible.
//!
//! A pin does not check whether the blob is pending: under row locks the result of such a check may be out of
//! date when the reference is inserted, so the protocol must not depend on it. The check is only a courtesy
//! to the writer.

use crate::protocol::{Mutant, Protocol};
use crate::state::{Blob, BlobState, BlockSet, Bytes, Content, Doom, Phase, Row, State};

impl Protocol {
    fn content(&self, state: &State, writer: usize) -> Option<Content> {
        self.bounds.programs[writer].get(usize::from(state.writers[writer].done)).copied()
    }

    /// Inserts the pending row.
    pub(crate) fn begin(&self, state: &State, writer: usize) -> Option<State> {
        let content = self.content(state, writer)?;
        let phase = state.writers[writer].phase;
        if phase != Phase::NotInPlace && (phase != Phase::Idle || self.bounds.short_path[writer]) {
            return None;
        }
        let mut next = *state;
        next.writers[writer].phase = Phase::Long;
        next.writers[writer].to_pin = content.blocks();
        next.insert(Blob {
            state: BlobState::Pending,
            content,
            references: BlockSet::NONE,
            owner: Some(writer as u8),
            reader: false,
            seen_pending: false,
        })?;
        Some(next)
    }

    /// One transaction for each block: locks its row, or inserts it, then checks whether it is doomed, and
    /// inserts the reference.
    pub(crate) fn pin(&self, state: &State, writer: usize) -> Option<State> {
        let block = state.writers[writer].to_pin.iter().next()?;
        let looked = state.writers[writer].phase == Phase::Looked && self.is(Mutant::PinLooksFirst);
        if state.writers[writer].phase != Phase::Long && !looked {
            return None;
        }
        let mut next = *state;
        let row =
            next.blocks[block].row.get_or_insert(Row { stored: false, candidate: false, doom: Doom::No });
        if row.doom.holds() && !looked && !self.is(Mutant::NoWaiting) {
            return None;
        }
        if self.is(Mutant::PinLooksFirst) && !looked {
            next = *state;
            next.writers[writer].phase = Phase::Looked;
            return Some(next);
        }
        if (!row.doom.holds() || looked) && !self.is(Mutant::PinKeepsDoom) {
            row.doom = Doom::No;
        }
        // A row may say `stored` although its file has been lost.
        let missing = !row.stored || state.blocks[block].bytes == Bytes::Absent;
        // The foreign key: if the row of the blob is gone, the reference cannot be inserted.
        let own = next.own(writer).filter(|_| !state.is_locked(block))?;
        if !self.is(Mutant::NoReference) {
            own.references.insert(block);
        }
        let itself = &mut next.writers[writer];
        itself.phase = Phase::Long;
        itself.to_pin.remove(block);
        if missing {
            itself.to_store.insert(block);
        }
        Some(next)
    }

    /// Writes the bytes, durably, whatever has happened to the rows.
    pub(crate) fn store(&self, state: &State, writer: usize, block: usize) -> Option<State> {
        let mut next = *state;
        let itself = &mut next.writers[writer];
        if !itself.to_store.contains(block) {
            return None;
        }
        itself.to_store.remove(block);
        let file_of = (itself.phase == Phase::Short).then_some(writer as u8);
        if file_of.is_none() && self.is(Mutant::SharesEarlierStores) {
            itself.storing.insert(block);
        } else if file_of.is_none() {
            itself.to_mark.insert(block);
        }
        next.blocks[block].bytes = Bytes::Good(file_of);
        next.blocks[block].damaged = false;
        Some(next)
    }

    /// Only in the mutant with shared stores: a store returns, to `writer` and to the writers that have
    /// joined it.
    pub(crate) fn store_returns(
        &self,
        state: &State,
        writer: usize,
        block: usize,
        joined: bool,
    ) -> Option<State> {
        let mut next = *state;
        if !state.writers[writer].storing.contains(block) {
            return None;
        }
        let of = if joined { 1 - writer } else { writer };
        let (from, to) = (next.writers[of], &mut next.writers[of]);
        to.to_mark.insert(block);
        if joined {
            to.to_store.remove(block);
            return (from.phase == Phase::Long && from.to_store.contains(block)).then_some(next);
        }
        to.storing.remove(block);
        Some(next)
    }

    /// Marks the written blocks as `stored`: locks them, then checks whether the blob is pending.
    pub(crate) fn mark(&self, state: &State, writer: usize) -> Option<State> {
        let mut next = *state;
        let itself = &mut next.writers[writer];
        if itself.phase == Phase::Long && self.is(Mutant::MarkLooksFirst) && !itself.to_mark.is_empty() {
            itself.phase = Phase::Looked;
            return next.own(writer).is_some_and(|own| own.state == BlobState::Pending).then_some(next);
        }
        let looked = itself.phase == Phase::Looked && self.is(Mutant::MarkLooksFirst);
        if !(itself.phase == Phase::Long || looked)
            || itself.to_mark.is_empty()
            || state.any_locked(itself.to_mark)
        {
            return None;
        }
        let pending = next.own(writer).is_some_and(|own| own.state == BlobState::Pending);
        if !pending && !looked && !self.is(Mutant::MarkUnchecked) {
            return None;
        }
        next.writers[writer].phase = Phase::Long;
        mark_all(&mut next, writer);
        Some(next)
    }

    /// The last transaction of the long path. If its answer is lost, it is run again.
    pub(crate) fn commit(&self, state: &State, writer: usize, answered: bool) -> Option<State> {
        let itself = state.writers[writer];
        let content = self.content(state, writer)?;
        let ready = itself.to_pin.is_empty() && itself.to_store.is_empty() && itself.storing.is_empty();
        if itself.phase != Phase::Long || !ready || state.any_locked(itself.to_mark) {
            return None;
        }
        let mut next = *state;
        let exists = state.is_live(content);
        match next.own(writer) {
            Some(own) if own.state == BlobState::Pending || self.is(Mutant::CommitUnchecked) => {
                own.owner = None;
                own.state = if exists { BlobState::Discarded } else { BlobState::Live };
                if self.is(Mutant::NoReference) {
                    own.references = content.blocks();
                }
                mark_all(&mut next, writer);
            }
            // Committed before, or by another writer. Otherwise it was refused, which is `stop`.
            _ if exists => {}
            _ => return None,
        }
        if answered {
            Protocol::acknowledge(&mut next, writer, content);
        } else if !self.bounds.lost_answers {
            return None;
        }
        Some(next)
    }

    /// The short path's look at rows and files, without locks.
    pub(crate) fn look(&self, state: &State, writer: usize) -> Option<State> {
        if state.writers[writer].phase != Phase::Idle || !self.bounds.short_path[writer] {
            return None;
        }
        let content = self.content(state, writer)?;
        let live = state.is_live(content);
        let needed = |block: &usize| match state.blocks[*block].row {
            Some(row) => !row.stored || row.doom.holds() || state.blocks[*block].bytes == Bytes::Absent,
            None => !live,
        };
        let mut next = *state;
        let needed: BlockSet = content.blocks().iter().filter(needed).collect();
        if live && needed.is_empty() {
            Protocol::acknowledge(&mut next, writer, content);
        } else {
            next.writers[writer].phase = Phase::Short;
            next.writers[writer].to_store = needed;
        }
        Some(next)
    }

    /// The short path's transaction: locks the rows of all blocks, inserts missing ones, then checks them and
    /// the files.
    pub(crate) fn commit_short(&self, state: &State, writer: usize, answered: bool) -> Option<State> {
        let content = self.content(state, writer)?;
        let itself = state.writers[writer];
        let looked = itself.phase == Phase::Looked && self.is(Mutant::ShortLooksFirst);
        if !(itself.phase == Phase::Short || looked) || !itself.to_store.is_empty() {
            return None;
        }
        if !answered && !self.bounds.lost_answers {
            return None;
        }
        let mut next = *state;
        let heeded = |row: &Row| row.doom.holds() && !self.is(Mutant::ShortIgnoresDoom);
        let own_file = Bytes::Good(Some(writer as u8));
        let in_place = |block: usize| state.blocks[block].bytes == own_file || self.is(Mutant::NoProof);
        let proven = |block: usize| match state.blocks[block].row {
            Some(row) => !heeded(&row) && (row.stored || in_place(block)),
            None => in_place(block),
        };
        if self.is(Mutant::ShortLooksFirst) && !looked {
            next.writers[writer].phase = Phase::Looked;
            return content.blocks().iter().all(proven).then_some(next);
        }
        if state.any_locked(content.blocks()) {
            return None;
        }
        if state.is_live(content) {
            // Damaged blocks are written again, and may be marked as stored.
            for block in content.blocks().iter().filter(|block| in_place(*block)) {
                if let Some(row) = next.row(block).filter(|row| !row.stored && !heeded(row)) {
                    *row = Row { stored: true, doom: Doom::No, ..*row };
                }
            }
        } else if looked || content.blocks().iter().all(proven) {
            for block in content.blocks().iter() {
                let candidate = state.blocks[block].row.is_some_and(|row| row.candidate);
                next.blocks[block].row = Some(Row { stored: true, candidate, doom: Doom::No });
            }
            next.insert(Blob {
                state: BlobState::Live,
                content,
                references: content.blocks(),
                owner: None,
                reader: false,
                seen_pending: false,
            })?;
        } else {
            next.writers[writer].phase = Phase::NotInPlace;
            forget_files(&mut next, writer);
            return answered.then_some(next);
        }
        if answered {
            Protocol::acknowledge(&mut next, writer, content);
        }
        Some(next)
    }

    fn acknowledge(state: &mut State, writer: usize, content: Content) {
        state.acknowledged |= content.bit();
        Protocol::end_put(state, writer);
    }

    /// The put fails, is dropped or refused, or its process dies. Its blob may stop being pending later, but
    /// a blob that is pending a little longer is the same as with a slower writer.
    pub(crate) fn stop(&self, state: &State, writer: usize) -> Option<State> {
        if state.writers[writer].phase == Phase::Idle {
            return None;
        }
        let mut next = *state;
        if let Some(own) = next.own(writer).filter(|own| own.state == BlobState::Pending) {
            own.state = BlobState::Discarded;
        }
        Protocol::end_put(&mut next, writer);
        Some(next)
    }

    fn end_put(state: &mut State, writer: usize) {
        if let Some(own) = state.own(writer) {
            own.owner = None;
        }
        forget_files(state, writer);
        let itself = &mut state.writers[writer];
        itself.done += 1;
        itself.phase = Phase::Idle;
        for set in [&mut itself.to_pin, &mut itself.to_store, &mut itself.storing, &mut itself.to_mark] {
            *set = BlockSet::NONE;
        }
    }
}

fn mark_all(state: &mut State, writer: usize) {
    for block in std::mem::take(&mut state.writers[writer].to_mark).iter() {
        if let Some(row) = state.row(block) {
            row.stored = true;
        }
    }
}

/// No step depends on the writer of these files any more.
fn forget_files(state: &mut State, writer: usize) {
    for block in &mut state.blocks {
        for bytes in block.files().filter(|bytes| **bytes == Bytes::Good(Some(writer as u8))) {
            *bytes = Bytes::Good(None);
        }
    }
}
