//! Processes that rely on the block, or write its name: a repack into objects, a put, and a reader.

use super::bounds::Mutant;
use super::state::{Doom, Look, NOBODY, Reader, Record, Row, State, Use, User};
use super::{Moves, Turns};

impl Moves {
    pub(super) fn turns_of_filer(&self, state: &State, turns: &mut Turns) {
        let filer = state.filer;
        let pins = !self.is(Mutant::NamesUnpinned);
        let mut add = |what: &'static str, filer: User, next: State| {
            self.add(turns, "repack into objects", 0, what, State { filer, ..next });
        };
        let (ended, after) = self.ended(filer, state);
        match filer.at {
            Use::Idle if filer.done < self.bounds.to_files => {
                let Some(row) = state.row.filter(|row| row.stored && row.place.is_some()) else { return };
                let is_free = !state.is_doomed() || self.is(Mutant::NamesDoomed);
                if state.is_good(row.place) && is_free {
                    let found = row.place;
                    let filer = User { at: Use::Write, is_pinned: pins, found, ..filer };
                    let mut next = *state;
                    if !self.is(Mutant::NamesUnmarked) {
                        // Also instead of one that has ended, whose repack may settle it later.
                        let doom = Some(Doom { by: None, until: 0 });
                        next.row = Some(Row { doom, candidate: true, ..row });
                        next.persist();
                    }
                    add("reads the record, pins the block, and marks it", filer, next);
                }
            }
            Use::Write => {
                let next = State { object: true, ..*state };
                add("writes the object", User { at: Use::Mark(None), ..filer }, next);
            }
            Use::Mark(_) => {
                let is_there = |row: &Row| row.place == filer.found;
                let row = state.row.filter(|_| filer.is_pinned || !pins).filter(is_there);
                if let Some(row) = row.filter(|row| row.place.is_some()) {
                    let doom = row.doom.filter(|_| self.is(Mutant::NamesDoomed) || !pins);
                    let mut next = State { row: Some(Row { place: None, doom, ..row }), ..after };
                    next.persist();
                    add("moves the row", ended, next);
                } else {
                    add("finds the row moved, or its pins gone", ended, after);
                }
            }
            Use::Idle | Use::Append | Use::Commit { .. } => {}
        }
        if filer.at != Use::Idle {
            add("dies, or gives up", ended, after);
        }
        if filer.is_pinned {
            let expired = state.expired + self.expiring();
            let next = State { expired, has_stalled: true, ..*state };
            add("loses its lease, and does not know it", User { is_pinned: false, ..filer }, next);
        }
    }

    /// A put of a store of either layout.
    pub(super) fn turns_of_writer(&self, state: &State, turns: &mut Turns) {
        let writer = state.writer;
        let mut add = |what: &'static str, writer: User, next: State| {
            self.add(turns, "put", 0, what, State { writer, ..next });
        };
        let (ended, after) = self.ended(writer, state);
        match writer.at {
            Use::Idle if writer.done < self.bounds.puts => {
                let row =
                    state.row.unwrap_or(Row { stored: false, place: None, candidate: false, doom: None });
                let pinned = User { is_pinned: true, is_fresh: true, ..writer };
                let kept = State { row: Some(row), ..*state };
                if row.stored {
                    // It does not look: that would be a request.
                    let at = Use::Commit { has_written: false };
                    add("pins the block, and relies on it", User { at, ..pinned }, kept);
                }
                if row.stored && state.is_good(row.place) {
                    return;
                }
                let found = row.place.filter(|_| row.stored);
                let into_pack = User { at: Use::Append, found, ..pinned };
                add("pins the block, for a pack", into_pack, kept);
                if state.is_doomed() && !(row.place.is_some() && self.is(Mutant::HealsDoomed)) {
                    add("finds the name doomed, and fails", ended, after);
                } else {
                    // An ended doom goes, unless it says that an object may be beside a record.
                    let doom = row.doom.filter(|_| row.place.is_some());
                    let next = State { row: Some(Row { doom, ..row }), ..*state };
                    add("pins the block, to write its name", User { at: Use::Write, found, ..pinned }, next);
                }
            }
            Use::Idle => {}
            Use::Write => {
                let next = State { object: true, ..*state };
                add("writes the object", User { at: Use::Mark(None), ..writer }, next);
            }
            Use::Append => {
                let Some(record) = state.free_record() else { return };
                let mut next = *state;
                next.records[usize::from(record)] = Record::Good;
                add("sends a pack", User { at: Use::Mark(Some(record)), ..writer }, next);
            }
            Use::Mark(place) => {
                let Some(row) = state.row.filter(|_| writer.is_pinned) else {
                    return add("is refused", ended, after);
                };
                let mut next = *state;
                if !row.stored || writer.found.is_some() && row.place == writer.found {
                    let lifts = place.is_none() && !self.is(Mutant::HealsDoomed)
                        || place.is_some() && self.is(Mutant::MarkLifts);
                    let doom = row.doom.filter(|_| !lifts);
                    next.row = Some(Row { stored: true, place, doom, ..row });
                }
                let at = Use::Commit { has_written: true };
                add("marks the block", User { at, ..writer }, next);
            }
            Use::Commit { has_written } => {
                if !writer.is_pinned {
                    return add("is refused", ended, after);
                }
                let mut next = *state;
                next.live += 1;
                next.excused &= !(has_written && writer.is_fresh);
                next.persist();
                add("commits", User { done: writer.done + 1, ..NOBODY }, next);
            }
        }
        if writer.at != Use::Idle {
            add("dies, or gives up", ended, after);
        }
        if writer.is_pinned {
            let next = State { expired: state.expired + self.expiring(), ..*state };
            add("loses its lease, and does not know it", User { is_pinned: false, ..writer }, next);
        }
    }

    /// References of puts that end count only where somebody collects.
    fn expiring(&self) -> u8 {
        u8::from(self.bounds.collections > 0)
    }

    /// This user when it has ended, without a commit.
    fn ended(&self, user: User, state: &State) -> (User, State) {
        let expired = state.expired + if user.is_pinned { self.expiring() } else { 0 };
        (User { done: user.done + 1, ..NOBODY }, State { expired, ..*state })
    }

    pub(super) fn turns_of_reader(&self, state: &State, turns: &mut Turns) {
        let reader = state.reader;
        let mut add = |what: &'static str, reader: Reader| {
            self.add(turns, "reader", 0, what, State { reader, ..*state });
        };
        let first = |place| Look { place, has_missed: false, is_again: false };
        let Some(look) = reader.at else {
            if let Some(row) = state.row.filter(|_| state.live > 0 && reader.done < self.bounds.reads) {
                add("reads the row", Reader { at: Some(first(row.place)), done: reader.done + 1, ..reader });
            }
            return;
        };
        let is_live = state.live > 0 && !state.excused;
        let gives_up = Reader { at: None, has_failed: reader.has_failed || is_live, ..reader };
        let now = state.row.map(|row| row.place);
        if !look.has_missed && state.is_good(look.place) {
            add("reads the bytes", Reader { at: None, ..reader });
        } else if !look.has_missed {
            add("misses the bytes", Reader { at: Some(Look { has_missed: true, ..look }), ..reader });
        } else if let Some(place) = now.filter(|now| *now != look.place && !self.is(Mutant::ReaderGivesUp)) {
            add("finds the row moved", Reader { at: Some(first(place)), ..reader });
        } else if now.is_some() && !look.is_again && !self.is(Mutant::ReaderTrustsRow) {
            let again = Look { has_missed: false, is_again: true, ..look };
            add("finds the row as it was, and looks again", Reader { at: Some(again), ..reader });
        } else {
            add("gives up", gives_up);
        }
    }
}
