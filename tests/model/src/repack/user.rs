//! Processes that write the block's own name: a repack into files, and a put of a store that writes files.
//! Both pin the block first.

use super::bounds::Mutant;
use super::state::{NOBODY, State, Use, User};
use super::{Repack, Turns};

impl Repack {
    pub(super) fn turns_of_filer(&self, state: &State, turns: &mut Turns) {
        let filer = state.filer;
        let pins = !self.is(Mutant::RepackPinsNothing);
        let mut add = |what: &'static str, filer: User, mut next: State| {
            next.filer = filer;
            self.add(turns, "repack into files", 0, what, next);
        };
        match filer.at {
            Use::Idle => {
                let is_there = state.row.stored && state.is_good(state.row.place);
                if filer.done < self.bounds.to_files && state.row.place.is_some() && is_there {
                    let mut next = *state;
                    if pins {
                        next.row.doomed_by = None;
                    }
                    let found = state.row.place;
                    add(
                        "pins the block, and reads it",
                        User { at: Use::Write, pinned: pins, found, ..filer },
                        next,
                    );
                }
            }
            Use::Write => {
                let next = State { name: true, ..*state };
                let at = if self.is(Mutant::RepackPublishesUnsynced) { Use::Mark } else { Use::Sync };
                add("publishes the file", User { at, ..filer }, next);
            }
            Use::Sync => {
                let mut next = *state;
                next.persist_names();
                add("syncs the directory", User { at: Use::Mark, ..filer }, next);
            }
            Use::Mark | Use::Commit => {
                let ended = User { done: filer.done + 1, ..NOBODY };
                let is_same = state.row.place == filer.found || self.is(Mutant::RepackIgnoresMoves);
                if (filer.pinned || !pins) && is_same && state.row.place.is_some() {
                    let mut next = *state;
                    if let Some(left) = filer.found {
                        next.row.dead[usize::from(left)] = true;
                    }
                    next.point(None);
                    next.persist_rows();
                    add("moves the row", ended, next);
                } else {
                    add("finds the row moved, or its pins gone", ended, *state);
                }
            }
        }
        if filer.at != Use::Idle {
            add("dies, or loses its lease and gives up", User { done: filer.done + 1, ..NOBODY }, *state);
        }
        if filer.pinned {
            add("loses its lease, and does not know it", User { pinned: false, ..filer }, *state);
        }
    }

    /// A put. It relies on a stored block that looks right, and writes the name otherwise.
    pub(super) fn turns_of_writer(&self, state: &State, turns: &mut Turns) {
        let writer = state.writer;
        let mut add = |what: &'static str, writer: User, mut next: State| {
            next.writer = writer;
            self.add(turns, "put", 0, what, next);
        };
        let ended = User { done: writer.done + 1, ..NOBODY };
        match writer.at {
            Use::Idle => {
                if writer.done < self.bounds.puts {
                    let mut next = *state;
                    if !self.is(Mutant::RepackKeepsDoom) {
                        next.row.doomed_by = None;
                    }
                    let relies = state.row.stored && state.is_good(state.row.place);
                    let at = if relies { Use::Commit } else { Use::Write };
                    let found = state.row.place.filter(|_| state.row.stored);
                    add("pins the block", User { at, pinned: true, found, fresh: true, ..writer }, next);
                    if relies && state.row.place.is_none() && !state.name {
                        // It has seen no file under the name.
                        add(
                            "pins the block, and misses its file",
                            User { at: Use::Write, pinned: true, found, fresh: true, ..writer },
                            next,
                        );
                    }
                }
            }
            Use::Write => {
                add("publishes the file", User { at: Use::Sync, ..writer }, State { name: true, ..*state });
            }
            Use::Sync => {
                let mut next = *state;
                next.persist_names();
                add("syncs the directory", User { at: Use::Mark, ..writer }, next);
            }
            Use::Mark if writer.pinned => {
                let mut next = *state;
                if !state.row.stored || writer.found.is_some() && state.row.place == writer.found {
                    next.row.stored = true;
                    // The old record is counted when the pack is sealed, or not at all.
                    next.place(None);
                }
                add("marks the block", User { at: Use::Commit, ..writer }, next);
            }
            Use::Commit if writer.pinned && state.row.stored => {
                let mut next = *state;
                next.excused &= !writer.fresh;
                next.persist_rows();
                add("commits", ended, next);
            }
            Use::Mark | Use::Commit => add("is refused", ended, *state),
        }
        if writer.at != Use::Idle {
            add("dies or gives up", ended, *state);
        }
        if writer.pinned {
            add("loses its lease, and does not know it", User { pinned: false, ..writer }, *state);
        }
    }
}
