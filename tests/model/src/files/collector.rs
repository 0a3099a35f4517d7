//! Collections: doom, move aside, settle; and the look at files that others left in `.doomed`.
//!
//! Each file operation is a step without a lock, so a collector may stall before it as long as the model
//! runs: at the call, the row may have been put again, deleted and doomed again.

use super::bounds::{Deletion, Mutant};
use super::state::{ASIDE, Aside, Collect, Collector, Holder, Row, State};
use super::{Files, Turns};

impl Files {
    pub(super) fn turns_of_collector(&self, state: &State, number: usize, turns: &mut Turns) {
        let collector = state.collectors[number];
        let to = |at: Collect| {
            let mut next = *state;
            next.collectors[number].at = at;
            next
        };
        let mut add = |what: &'static str, next: State| self.add(turns, "collector", number, what, next);
        match collector.at {
            Collect::Idle => {
                if collector.runs < self.bounds.runs[number] {
                    let mut next = to(Collect::Reap);
                    next.collectors[number].runs += 1;
                    add("starts", next);
                }
                if self.deletion() == Deletion::Aside && self.bounds.tidiers[number] {
                    self.tidies(state, number, turns);
                }
            }
            Collect::Reap => {
                let mut marked = *state;
                if let Some(row) = marked.row.as_mut().filter(|_| state.lock.is_none()) {
                    row.candidate = true;
                    if state.blobs.deleted > 0 {
                        let mut next = marked;
                        next.blobs.deleted -= 1;
                        add("reaps a deleted blob", next);
                    }
                    if state.blobs.expired > 0 {
                        let mut next = marked;
                        next.blobs.expired -= 1;
                        add("reaps an expired blob", next);
                    }
                }
                add("has reaped", to(Collect::Doom));
            }
            Collect::Doom => self.dooms(state, number, turns),
            Collect::Move => {
                let mut next = to(Collect::Sync);
                next.move_aside(self.place(number, collector));
                add("moves the file aside", next);
                next.collectors[number].at = Collect::Lift;
                add("moves the file aside, and hears of an error", next);
                add("cannot move the file aside", to(Collect::Lift));
            }
            Collect::Lift if state.lock.is_none() => {
                let mut next = to(Collect::Idle);
                if let Some(row) = next.row.as_mut().filter(|row| row.doomed_by == Some(number as u8)) {
                    row.doomed_by = None;
                }
                add("lifts its doom", next);
            }
            Collect::Lift => {}
            Collect::Sync => {
                let mut next = to(Collect::Settle);
                if self.is(Mutant::NoSyncMoved) {
                    add("does not sync the directories", next);
                } else {
                    next.persist_names(self.is(Mutant::TornRename));
                    (0..ASIDE).for_each(|place| next.persist_aside(place, false));
                    add("syncs both directories", next);
                }
            }
            Collect::Settle => self.settles(state, number, turns),
            Collect::MoveDecided(unlinks) => {
                let place = self.place(number, collector);
                let mut next =
                    to(if unlinks { Collect::Unlink(place as u8) } else { Collect::Restore(place as u8) });
                next.move_aside(place);
                add("moves the file aside, late", next);
            }
            Collect::Unlink(place) => {
                let mut next = to(Collect::Idle);
                if let Aside::Here(_) = state.aside[usize::from(place)] {
                    next.aside[usize::from(place)] = Aside::Empty;
                }
                add("unlinks what it moved aside", next);
            }
            Collect::Restore(place) => self.restores(state, number, usize::from(place), turns),
            Collect::SyncLink(place) => {
                let mut next = to(Collect::Unlink(place));
                next.persist_names(self.is(Mutant::TornRename));
                add("syncs the directory of its link", next);
            }
            Collect::Sweep | Collect::UnlinkName | Collect::Drop | Collect::Zombie => {
                self.sweeps(state, number, turns);
            }
        }
        if collector.at != Collect::Idle {
            let mut next = to(Collect::Idle);
            next.lock = state.lock.filter(|by| *by != Holder::Collector(number as u8));
            self.add(turns, "collector", number, "dies", next);
        }
    }

    fn dooms(&self, state: &State, number: usize, turns: &mut Turns) {
        let mut next = *state;
        next.collectors[number].at = Collect::Idle;
        self.add(turns, "collector", number, "finds nothing to doom", next);
        let Some(row) = state.row.filter(|row| row.candidate && state.lock.is_none()) else { return };
        // Where files are moved aside, any collector may take over another's doom.
        let anothers = row.doomed_by.is_some() && self.deletion() != Deletion::Aside;
        if anothers && !self.is(Mutant::StolenDoom) {
            return;
        }
        if state.references() > 0 {
            next.row = Some(Row { candidate: false, ..row });
            self.add(turns, "collector", number, "finds the block referenced", next);
            return;
        }
        let stored = row.stored && self.is(Mutant::StaysStored);
        next.row = Some(Row { stored, candidate: true, doomed_by: Some(number as u8) });
        next.collectors[number].at = match self.deletion() {
            Deletion::Aside if self.is(Mutant::SettlesFirst) => Collect::Settle,
            Deletion::Aside => Collect::Move,
            _ => Collect::Sweep,
        };
        if !self.is(Mutant::LazyDoom) {
            next.persist_rows();
        }
        self.add(turns, "collector", number, "dooms the block", next);
    }

    /// The second transaction: the row goes if it is still doomed by this collection. A doomed row has no
    /// references, because a pin takes the doom away.
    fn settles(&self, state: &State, number: usize, turns: &mut Turns) {
        if self.is_kept_from_looking(state) {
            return;
        }
        let place = self.place(number, state.collectors[number]);
        let mut next = *state;
        let mine = state.row.is_some_and(|row| row.doomed_by == Some(number as u8));
        if mine {
            next.row = None;
            next.leaked |= matches!(state.aside[place], Aside::Here(_))
                && state.disk.is_some_and(|disk| disk.aside[place].is_none());
        }
        if !self.bounds.lazy_settle {
            next.persist_rows();
        }
        let unlinks = mine || self.may_unlink(state, self.is(Mutant::UnlinksWhatIsPutAgain));
        next.collectors[number].at = match state.aside[place] {
            _ if self.is(Mutant::SettlesFirst) => Collect::MoveDecided(unlinks),
            Aside::Here(_) if unlinks => Collect::Unlink(place as u8),
            Aside::Here(_) => Collect::Restore(place as u8),
            Aside::Empty | Aside::Back => Collect::Idle,
        };
        let what = if mine { "removes the row" } else { "finds the row not its own" };
        self.add(turns, "collector", number, what, next);
    }

    /// Whether it must wait for another's transaction. A transaction that inserts the row does not delay one
    /// that only reads or locks: so a look must insert the row itself, as if to keep it, and remove it again.
    fn is_kept_from_looking(&self, state: &State) -> bool {
        let sees_nothing = state.row.is_none() && self.is(Mutant::LooksWithoutInserting);
        state.lock.is_some() && !sees_nothing && !self.is(Mutant::LooksWithoutLocking)
    }

    /// Whether nothing relies on a file that was in `.doomed` before the row was read.
    fn may_unlink(&self, state: &State, in_any_case: bool) -> bool {
        let unstored = self.is(Mutant::UnlinksUnstored);
        in_any_case || state.row.is_none_or(|row| row.doomed_by.is_some() || unstored && !row.stored)
    }

    /// Looks at the row of a file that a collection left in `.doomed`. That collection may still run.
    fn tidies(&self, state: &State, number: usize, turns: &mut Turns) {
        if self.is_kept_from_looking(state) {
            return;
        }
        for place in 0..ASIDE {
            let Some(unlinks) = self.decided(state, place) else { continue };
            let mut next = *state;
            next.collectors[number].at =
                if unlinks { Collect::Unlink(place as u8) } else { Collect::Restore(place as u8) };
            let what = if unlinks {
                "finds a file in .doomed that nobody needs"
            } else {
                "finds a file in .doomed whose block was put again"
            };
            self.add(turns, "collector", number, what, next);
        }
    }

    /// Whether a file in `.doomed` is to be unlinked; otherwise it moves back.
    pub(super) fn decided(&self, state: &State, place: usize) -> Option<bool> {
        let here = matches!(state.aside[place], Aside::Here(_)) && !self.is(Mutant::LeavesAside);
        here.then(|| self.may_unlink(state, self.is(Mutant::TidiesBlindly)))
    }

    fn restores(&self, state: &State, number: usize, place: usize, turns: &mut Turns) {
        let mut next = *state;
        next.collectors[number].at = Collect::Idle;
        if !self.is(Mutant::LinksBack) && !self.is(Mutant::LinksBackUnsynced) {
            next.move_back(place);
            self.add(turns, "collector", number, "moves the file back", next);
            return;
        }
        // A second name if the block's is free; then, or if that is taken, the one in `.doomed` goes.
        if let (Aside::Here(file), None) = (state.aside[place], state.name) {
            next.name = Some(file);
        }
        next.collectors[number].at = if self.is(Mutant::LinksBack) {
            Collect::SyncLink(place as u8)
        } else {
            Collect::Unlink(place as u8)
        };
        self.add(turns, "collector", number, "links the file back, or finds the name taken", next);
    }

    /// The earlier protocol's second transaction: the name is removed while the row is locked.
    fn sweeps(&self, state: &State, number: usize, turns: &mut Turns) {
        let mut next = *state;
        let collector = &mut next.collectors[number].at;
        match state.collectors[number].at {
            Collect::Sweep if state.lock.is_none() => {
                let row = state.row.filter(|row| row.doomed_by == Some(number as u8));
                if row.is_some() && state.references() == 0 {
                    *collector = Collect::UnlinkName;
                    next.lock = Some(Holder::Collector(number as u8));
                    self.add(turns, "collector", number, "locks the row to sweep", next);
                } else {
                    *collector = Collect::Idle;
                    next.row = state.row.map(|row| Row {
                        doomed_by: row.doomed_by.filter(|by| usize::from(*by) != number),
                        ..row
                    });
                    self.add(turns, "collector", number, "gives up", next);
                }
            }
            Collect::UnlinkName => {
                *collector = Collect::Zombie;
                next.lock = None;
                self.add(turns, "collector", number, "loses its session, and does not know it", next);
                next = *state;
                next.collectors[number].at = Collect::Drop;
                next.name = None;
                self.add(turns, "collector", number, "unlinks the name", next);
            }
            Collect::Drop => {
                // Synced before the row goes. A file that was put back meanwhile is synced with it.
                *collector = Collect::Idle;
                next.row = None;
                next.lock = None;
                next.persist_names(false);
                self.add(turns, "collector", number, "syncs the directory and removes the row", next);
            }
            Collect::Zombie => {
                *collector = Collect::Idle;
                next.name = None;
                self.add(turns, "collector", number, "unlinks the name, late", next);
            }
            _ => {}
        }
    }

    /// Dooms of the earlier protocol end; in bounds with deletions in time, not while a deletion may still
    /// happen. (The ends of other dooms change nothing.)
    pub(super) fn doom_ends(&self, state: &State, turns: &mut Turns) {
        let Some(row) = state.row.filter(|row| row.doomed_by.is_some()) else { return };
        let by = row.doomed_by.and_then(|by| state.collectors.get(usize::from(by)));
        let at_it = by.is_some_and(|Collector { at, .. }| {
            matches!(at, Collect::UnlinkName | Collect::Drop | Collect::Zombie)
        });
        let ends = match self.deletion() {
            Deletion::InTime => !at_it,
            Deletion::Stalls => true,
            Deletion::Aside => false,
        };
        if ends {
            let next = State { row: Some(Row { doomed_by: None, ..row }), ..*state };
            self.add_of_all(turns, "the doom ends", next);
        }
    }

    /// The name in `.doomed` that only this attempt of this collection uses.
    fn place(&self, number: usize, collector: Collector) -> usize {
        let earlier: u8 = self.bounds.runs[..number].iter().sum();
        let attempt = if self.is(Mutant::ReusesName) { 0 } else { collector.runs - 1 };
        usize::from(earlier + attempt)
    }
}
