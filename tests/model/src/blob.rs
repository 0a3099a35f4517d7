//! The rows of blobs: deleting, restoring, expiring, reaping, and readers.
//!
//! None of these steps needs anything from an earlier one, so any collector may take them. A reaped blob
//! first loses its id, under its row's lock, in a transaction that locks no block. That is the point of no
//! return: restoring finds a blob by its id, and a live row must have one. Only then do its references go,
//! one by one.

use crate::protocol::{Mutant, Protocol};
use crate::state::{BlobState, State};

impl Protocol {
    pub(crate) fn delete(&self, state: &State, place: usize) -> Option<State> {
        let mut next = *state;
        let blob = next.blobs[place].as_mut().filter(|blob| blob.state == BlobState::Live)?;
        blob.state = BlobState::Deleted;
        next.acknowledged &= !blob.content.bit();
        Some(next)
    }

    /// Makes a deleted blob live again. Its row is locked and still has its id, and no other blob of that id
    /// is live.
    pub(crate) fn restore(&self, state: &State, place: usize) -> Option<State> {
        let mut next = *state;
        let blob = next.blobs[place].as_mut()?;
        let possible = match blob.state {
            BlobState::Deleted => true,
            BlobState::Discarded => self.is(Mutant::RestoresBlindly) && blob.owner.is_none(),
            BlobState::Pending | BlobState::Live => false,
        };
        blob.state = BlobState::Live;
        next.acknowledged |= blob.content.bit();
        (possible && self.bounds.restore && !state.is_live(blob.content)).then_some(next)
    }

    /// The lease of its writer is over: a collector gives up a pending blob.
    pub(crate) fn expire(&self, state: &State, place: usize) -> Option<State> {
        let mut next = *state;
        let blob = next.blobs[place].as_mut()?;
        if self.is(Mutant::ExpiresWhatWasPending) && !blob.seen_pending {
            blob.seen_pending = true;
            return (blob.state == BlobState::Pending).then_some(next);
        }
        if blob.state != BlobState::Pending && !(blob.seen_pending && blob.state == BlobState::Live) {
            return None;
        }
        blob.state = BlobState::Discarded;
        blob.seen_pending = false;
        Some(next)
    }

    /// The grace is over: the blob loses its id. The grace is as long as its readers take.
    pub(crate) fn claim(&self, state: &State, place: usize) -> Option<State> {
        let mut next = *state;
        let blob = next.blobs[place].as_mut().filter(|blob| blob.state == BlobState::Deleted)?;
        if blob.reader && !self.is(Mutant::NoGrace) || self.is(Mutant::ReapsWithoutClaim) {
            return None;
        }
        blob.state = BlobState::Discarded;
        Some(next)
    }

    fn is_reaped(&self, state: BlobState) -> bool {
        state == BlobState::Discarded || state == BlobState::Deleted && self.is(Mutant::ReapsWithoutClaim)
    }

    /// One transaction for each batch of references; it locks the blocks and makes them candidates.
    pub(crate) fn drop_reference(&self, state: &State, place: usize, block: usize) -> Option<State> {
        let mut next = *state;
        let blob = next.blobs[place].as_mut().filter(|blob| self.is_reaped(blob.state))?;
        if !blob.references.contains(block) || state.is_locked(block) {
            return None;
        }
        blob.references.remove(block);
        if let Some(row) = next.row(block).filter(|_| !self.is(Mutant::ReapsWithoutMark)) {
            row.candidate = true;
        }
        Some(next)
    }

    /// The last step of reaping. The foreign key refuses it as long as there are references.
    pub(crate) fn drop_row(&self, state: &State, place: usize) -> Option<State> {
        let blob = state.blobs[place].filter(|blob| self.is_reaped(blob.state))?;
        if !blob.references.is_empty() && !self.is(Mutant::RowFirst) {
            return None;
        }
        let mut next = *state;
        next.blobs[place] = None;
        Some(next)
    }

    pub(crate) fn open(&self, state: &State, place: usize) -> Option<State> {
        let mut next = *state;
        let blob = next.blobs[place].as_mut().filter(|blob| blob.state == BlobState::Live && !blob.reader)?;
        blob.reader = true;
        // One reader is enough.
        (self.bounds.reader && !state.blobs().any(|blob| blob.reader)).then_some(next)
    }

    pub(crate) fn close(&self, state: &State, place: usize) -> Option<State> {
        let mut next = *state;
        next.blobs[place].as_mut().filter(|blob| blob.reader)?.reader = false;
        Some(next)
    }
}
