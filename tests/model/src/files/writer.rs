//! Puts of the block, by the long path (the reference is the pin) and by the short one (bytes first, one
//! transaction).
//!
//! A put does not wait for a doom: it takes the doom away and writes. (A put of the earlier protocol waits.)

use super::bounds::{Deletion, Mutant};
use super::state::{File, Holder, NOBODY, Own, Put, Row, State};
use super::{Files, Turns};

impl Files {
    pub(super) fn turns_of_writer(&self, state: &State, number: usize, turns: &mut Turns) {
        let writer = state.writers[number];
        let starts = writer.at == Put::Idle && writer.done < self.bounds.puts[number];
        if writer.own == Own::Pending {
            let mut next = *state;
            next.writers[number].own = Own::Expired;
            next.blobs.expired += 1;
            self.add(turns, "writer", number, "loses its lease, and its blob expires", next);
        }
        match writer.at {
            Put::Idle if starts => self.begins_short(state, number, turns),
            Put::ShortSync | Put::Sync => self.syncs(state, number, turns),
            Put::ShortCommit => self.commits_short(state, number, turns),
            Put::Proven => {
                let mut next = *state;
                let candidate = state.row.is_some_and(|row| row.candidate);
                next.row = Some(Row { stored: true, candidate, doomed_by: None });
                next.blobs.live += 1;
                Files::end_put(&mut next, number);
                next.persist_rows();
                self.add(turns, "writer", number, "commits on the short path", next);
            }
            Put::Write => {
                let mut next = *state;
                next.name = Some(self.fresh(number));
                next.writers[number].at = Put::Sync;
                self.add(turns, "writer", number, "gives its file the name", next);
            }
            Put::Commit => self.commits(state, number, turns),
            Put::Idle | Put::Pin => {}
        }
        if writer.at == Put::Pin || starts {
            self.pins(state, number, turns);
        }
        if writer.at != Put::Idle {
            self.add(turns, "writer", number, "dies or gives up", Files::given_up(*state, number));
        }
    }

    /// The short path, without locks.
    fn begins_short(&self, state: &State, number: usize, turns: &mut Turns) {
        let mut next = *state;
        next.writers[number].at = Put::ShortCommit;
        if state.row.is_some_and(|row| row.stored) {
            self.add(turns, "writer", number, "takes the short path: the row says stored", next);
        }
        next.name = Some(self.fresh(number));
        next.writers[number].at = Put::ShortSync;
        self.add(turns, "writer", number, "takes the short path, and gives its file the name", next);
    }

    fn syncs(&self, state: &State, number: usize, turns: &mut Turns) {
        let mut next = *state;
        let to = if state.writers[number].at == Put::Sync { Put::Commit } else { Put::ShortCommit };
        next.writers[number].at = to;
        if self.is(Mutant::NoSyncName) {
            self.add(turns, "writer", number, "does not sync the directory", next);
        }
        // The data of its own file is synced earlier; in the mutant `NameFirst` here.
        if let Some(file) = next.name.as_mut().filter(|file| usize::from(file.owner) == number) {
            file.whole = true;
        }
        next.persist_names(self.is(Mutant::TornRename));
        self.add(turns, "writer", number, "syncs the directory", next);
        let mut failed = Files::given_up(*state, number);
        if self.is(Mutant::UnlinkFail) {
            failed.name = None;
        }
        self.add(turns, "writer", number, "cannot sync the directory, and gives up", failed);
    }

    fn commits_short(&self, state: &State, number: usize, turns: &mut Turns) {
        if state.lock.is_some() {
            return;
        }
        let in_place =
            state.name.is_some_and(|file| usize::from(file.owner) == number || self.is(Mutant::NoProof));
        let stored = state.row.is_some_and(|row| row.stored);
        let mut next = *state;
        if (stored || in_place) && !self.is_heeded(state, Mutant::ShortIgnoresDoom) {
            next.lock = Some(Holder::Writer(number as u8));
            next.writers[number].at = Put::Proven;
            self.add(
                turns,
                "writer",
                number,
                "locks the row, and finds it stored or its file in place",
                next,
            );
        } else {
            next.writers[number].at = Put::Pin;
            self.add(turns, "writer", number, "does not find its file in place", next);
        }
    }

    /// A doom that a put may not take away.
    fn is_heeded(&self, state: &State, but: Mutant) -> bool {
        let doomed = state.row.is_some_and(|row| row.doomed_by.is_some());
        doomed && self.deletion() != Deletion::Aside && !self.is(but)
    }

    fn pins(&self, state: &State, number: usize, turns: &mut Turns) {
        if state.lock.is_some() || self.is_heeded(state, Mutant::PinIgnoresDoom) {
            return;
        }
        let mut next = *state;
        let row = next.row.get_or_insert(Row { stored: false, candidate: false, doomed_by: None });
        if self.deletion() == Deletion::Aside && !self.is(Mutant::PinKeepsDoom) {
            row.doomed_by = None;
        }
        let marked = row.stored;
        let writer = &mut next.writers[number];
        writer.marked = marked;
        writer.own = if self.is(Mutant::NoReference) { Own::None } else { Own::Pending };
        writer.at = Put::Write;
        if !marked {
            self.add(turns, "writer", number, "pins a block that is not stored", next);
            return;
        }
        if state.name.is_none() {
            self.add(turns, "writer", number, "pins a stored block, and finds no file under the name", next);
        }
        next.writers[number].at = Put::Commit;
        self.add(turns, "writer", number, "pins a stored block", next);
    }

    fn commits(&self, state: &State, number: usize, turns: &mut Turns) {
        if state.lock.is_some() {
            return;
        }
        let writer = state.writers[number];
        let unchecked = self.is(Mutant::CommitUnchecked) || self.is(Mutant::NoReference);
        let Some(row) = state.row.filter(|_| writer.own == Own::Pending || unchecked) else {
            let mut refused = *state;
            Files::end_put(&mut refused, number);
            self.add(turns, "writer", number, "is refused its commit", refused);
            return;
        };
        let mut next = *state;
        if !writer.marked {
            next.row = Some(Row { stored: true, ..row });
            next.writers[number].marked = true;
            if !row.stored {
                self.add(turns, "writer", number, "marks the block stored", next);
            }
        }
        next.blobs.live += 1;
        Files::end_put(&mut next, number);
        next.persist_rows();
        self.add(turns, "writer", number, "commits", next);
    }

    fn fresh(&self, number: usize) -> File {
        File { owner: number as u8, whole: !self.is(Mutant::NameFirst) }
    }

    pub(super) fn given_up(mut state: State, number: usize) -> State {
        if state.writers[number].own == Own::Pending {
            state.blobs.expired += 1;
        }
        Files::end_put(&mut state, number);
        state
    }

    fn end_put(state: &mut State, number: usize) {
        let writer = &mut state.writers[number];
        writer.at = Put::Idle;
        writer.own = Own::None;
        writer.marked = false;
        writer.done += 1;
        state.lock = state.lock.filter(|by| *by != Holder::Writer(number as u8));
        // An equal inode under the name means the same file only while the put holds it open.
        for file in state.name.iter_mut().filter(|file| usize::from(file.owner) == number) {
            file.owner = NOBODY;
        }
    }
}
