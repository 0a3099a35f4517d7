//! Processes that delete the object: a repack into packs, and a collection.

use super::bounds::Mutant;
use super::state::{COLLECTOR, Collect, Deleting, Doom, Pack, Request, Row, State, VALID};
use super::{Moves, Turns};

impl Moves {
    pub(super) fn turns_of_packer(&self, state: &State, number: usize, turns: &mut Turns) {
        let packer = state.packers[number];
        let to = |at: Pack| {
            let mut next = *state;
            next.packers[number].at = at;
            next
        };
        let mut add = |what: &'static str, next: State| self.add(turns, "repack", number, what, next);
        match packer.at {
            Pack::Idle if packer.runs < self.bounds.to_packs[number] => {
                let Some(row) = state.row.filter(|row| row.stored) else { return };
                let mut next = *state;
                next.packers[number].runs += 1;
                if row.place.is_none() && state.object {
                    let Some(record) = state.free_record() else { return };
                    if !self.is(Mutant::MovesUnsent) {
                        next.records[usize::from(record)] = super::state::Record::Good;
                    }
                    next.packers[number].at = Pack::Sign { record };
                    add("reads the object, and sends it in a pack", next);
                } else if row.place.is_some() && state.object {
                    // The record is read first. A damaged one is found, and the object stays.
                    if state.is_good(row.place) || self.is(Mutant::RemovesLast) {
                        next.packers[number].at = Pack::SignName;
                        add("finds an object whose block is in a pack", next);
                    }
                }
            }
            Pack::Idle => {}
            Pack::Sign { record } => {
                add("signs its delete", to(Pack::Move { record, dated: state.now }));
            }
            Pack::Move { record, dated } => match self.moved(state, number, record) {
                Some(mut next) => {
                    next.packers[number].at = Pack::Delete(Deleting::dated(dated));
                    add("moves the row, and dooms the name", next);
                }
                None => add("finds the row in use, or moved", to(Pack::Idle)),
            },
            Pack::SignName => add("signs its delete", to(Pack::DoomName { dated: state.now })),
            Pack::DoomName { dated } => {
                let is_in_a_pack = state.row.is_some_and(|row| row.stored && row.place.is_some());
                let is_free = !state.is_pinned() || self.is(Mutant::MovesPinned);
                let is_undoomed = !state.is_doomed() || self.is(Mutant::StealsNames);
                if is_in_a_pack && is_free && is_undoomed {
                    let mut next = to(Pack::Delete(Deleting::dated(dated)));
                    next.doom_name(number);
                    next.persist();
                    add("dooms the name", next);
                } else {
                    add("finds the block in use", to(Pack::Idle));
                }
            }
            Pack::Delete(deleting) => {
                for (what, deleting, next) in self.deletes(state, number, deleting) {
                    let mut next = next;
                    next.packers[number].at = Pack::Delete(deleting);
                    add(what, next);
                }
                let mut next = to(Pack::Idle).without_answers(number);
                next.row = next.row.map(|row| self.name_settled(row, number, deleting));
                add("settles", next);
            }
        }
        if packer.at != Pack::Idle {
            self.add(turns, "repack", number, "dies", to(Pack::Idle).without_answers(number));
        }
    }

    /// The transaction that moves the row, if it may.
    fn moved(&self, state: &State, number: usize, record: u8) -> Option<State> {
        let row = state.row?;
        let is_there = row.stored && row.place.is_none() && row.doom.is_none();
        let is_free = !state.is_pinned() || self.is(Mutant::MovesPinned);
        if !(is_there || self.is(Mutant::MovesMoved)) || !is_free {
            return None;
        }
        let mut next = *state;
        next.row = Some(Row { place: Some(record), ..row });
        if !self.is(Mutant::ForgetsDoom) {
            next.doom_name(number);
        }
        if !self.is(Mutant::MovesLazily) {
            next.persist();
        }
        Some(next)
    }

    /// The steps of one delete.
    fn deletes(
        &self,
        state: &State,
        number: usize,
        deleting: Deleting,
    ) -> Vec<(&'static str, Deleting, State)> {
        let mut steps = Vec::new();
        let by = Some(number as u8);
        if !deleting.is_sent {
            let dated = if self.is(Mutant::SignsLate) { state.now } else { deleting.dated };
            let mut next = *state;
            if next.send(Request { by, dated, done: None }) {
                steps.push(("sends its delete", Deleting { is_sent: true, is_open: true, ..deleting }, next));
            }
        }
        for (place, request) in state.requests() {
            if let (true, Some(is_gone)) = (request.by == by, request.done) {
                let mut next = *state;
                next.requests[place] = None;
                let what =
                    if is_gone { "hears that the object is gone" } else { "hears that it was refused" };
                steps.push((what, Deleting { is_open: false, is_gone, ..deleting }, next));
            }
        }
        steps
    }

    /// The doom is lifted if the object is gone. If it is not, and nothing is under way, the doom is over,
    /// and stays to be found.
    fn name_settled(&self, row: Row, number: usize, deleting: Deleting) -> Row {
        let Some(doom) = row.doom.filter(|doom| doom.by == Some(number as u8)) else { return row };
        let doom = match deleting {
            Deleting { is_open: true, .. } if self.is(Mutant::LiftsUnanswered) => None,
            Deleting { is_open: true, .. } => Some(doom),
            Deleting { is_gone: true, .. } => None,
            Deleting { .. } => Some(Doom { until: 0, ..doom }),
        };
        Row { doom, ..row }
    }

    pub(super) fn turns_of_collector(&self, state: &State, turns: &mut Turns) {
        let collector = state.collector;
        let to = |at: Collect| {
            let mut next = *state;
            next.collector.at = at;
            next
        };
        let mut add = |what: &'static str, next: State| self.add(turns, "collection", 0, what, next);
        if self.bounds.collections > 0 {
            self.reaps(state, &mut add);
        }
        match collector.at {
            Collect::Idle if collector.runs < self.bounds.collections => {
                let mut next = to(Collect::Doom { dated: state.now });
                next.collector.runs += 1;
                add("signs its delete", next);
            }
            Collect::Idle => {}
            Collect::Doom { dated } => {
                add("finds nothing to doom", to(Collect::Idle));
                let Some(row) = state.row.filter(|row| row.candidate && state.references() == 0) else {
                    return;
                };
                if row.place.is_none() && !state.is_doomed() {
                    let mut next = to(Collect::Delete(Deleting::dated(dated)));
                    next.row = Some(Row { stored: false, ..row });
                    next.doom_name(COLLECTOR);
                    next.persist();
                    add("dooms the block", next);
                }
                if row.place.is_some() && (row.doom.is_none() || self.is(Mutant::ReleasesNames)) {
                    let mut next = to(Collect::Idle);
                    next.row = None;
                    next.persist();
                    add("releases the record", next);
                }
            }
            Collect::Delete(deleting) => {
                for (what, deleting, next) in self.deletes(state, COLLECTOR, deleting) {
                    let mut next = next;
                    next.collector.at = Collect::Delete(deleting);
                    add(what, next);
                }
                let mut next = to(Collect::Idle).without_answers(COLLECTOR);
                next.row = next.row.and_then(|row| block_settled(row, deleting, state.references()));
                add("settles", next);
            }
        }
        if collector.at != Collect::Idle {
            let next = to(Collect::Idle).without_answers(COLLECTOR);
            self.add(turns, "collection", 0, "dies", next);
        }
    }

    /// Blobs that were deleted lose their references.
    fn reaps(&self, state: &State, add: &mut impl FnMut(&'static str, State)) {
        let Some(row) = state.row else { return };
        let row = Some(Row { candidate: true, ..row });
        if state.deleted > 0 {
            add("reaps a deleted blob", State { row, deleted: state.deleted - 1, ..*state });
        }
        if state.expired > 0 {
            add("reaps a put that ended", State { row, expired: state.expired - 1, ..*state });
        }
    }

    pub(super) fn turns_of_server(&self, state: &State, turns: &mut Turns) {
        for (place, request) in state.requests() {
            if request.done.is_some() {
                continue;
            }
            let answered = |done: bool| {
                let mut next = *state;
                next.requests[place] =
                    request.by.is_some().then_some(Request { done: Some(done), ..request });
                next
            };
            if state.now < request.dated + VALID {
                let next = State { object: false, ..answered(true) };
                self.add_of_all(turns, "the server carries out a delete", next);
            }
            self.add_of_all(turns, "the server refuses a delete", answered(false));
            if request.by.is_some() {
                let mut next = *state;
                next.requests[place] = Some(Request { by: None, ..request });
                self.add_of_all(turns, "the connection of a delete breaks", next);
            }
        }
    }
}

/// The row goes if the object is gone and nobody refers to the block; otherwise only the doom, if the answer
/// is there.
fn block_settled(row: Row, deleting: Deleting, references: u8) -> Option<Row> {
    let is_mine = row.doom.is_some_and(|doom| doom.by == Some(COLLECTOR as u8));
    if !is_mine || deleting.is_open {
        return Some(row);
    }
    let goes = deleting.is_gone && references == 0 && row.place.is_none();
    let doom = (!deleting.is_gone).then_some(Doom { by: None, until: 0 });
    (!goes).then_some(Row { doom, ..row })
}

impl State {
    /// Until all deletes that were signed before are too old.
    fn doom_name(&mut self, number: usize) {
        let doom = Some(Doom { by: Some(number as u8), until: self.now + VALID });
        self.row = self.row.map(|row| Row { doom, candidate: true, ..row });
    }
}
