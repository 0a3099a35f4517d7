//! One block in two layouts, and its state after a power cut.

use std::fmt;

/// Processes that repack into packs.
pub(crate) const PACKERS: usize = 2;
/// Runs of each of them: each has a name in `.doomed` of its own.
pub(crate) const RUNS: usize = 2;
/// Records: one for each run, and one for a compaction.
pub(crate) const RECORDS: usize = PACKERS * RUNS + 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct State {
    pub(crate) row: Row,
    /// Whether a file has the block's name. Its bytes are good.
    pub(crate) name: bool,
    /// Files in `.doomed`.
    pub(crate) aside: [bool; PACKERS * RUNS],
    pub(crate) records: [Record; RECORDS],
    pub(crate) disk: Option<Disk>,
    pub(crate) packers: [Packer; PACKERS],
    pub(crate) filer: User,
    pub(crate) writer: User,
    pub(crate) tidier: Tidy,
    pub(crate) compactions: u8,
    pub(crate) damages: u8,
    pub(crate) cuts: u8,
    /// The bytes were damaged, and no put that began after the damage has returned.
    pub(crate) excused: bool,
}

/// The rows of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Row {
    pub(crate) stored: bool,
    /// The record; `None` means under its own name.
    pub(crate) place: Option<u8>,
    pub(crate) doomed_by: Option<u8>,
    /// Records that a row has pointed at.
    pub(crate) used: [bool; RECORDS],
    /// Records that count as dead bytes.
    pub(crate) dead: [bool; RECORDS],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Record {
    Absent,
    /// Durable and correct.
    Good,
    Damaged,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Disk {
    pub(crate) row: Row,
    pub(crate) name: bool,
    pub(crate) aside: [bool; PACKERS * RUNS],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Packer {
    pub(crate) at: Pack,
    pub(crate) runs: u8,
}

/// The steps of a repack into packs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Pack {
    Idle,
    /// The record is appended.
    Move,
    /// A file is under the name of a block that is in a pack.
    Doom,
    Take,
    Sync,
    Settle,
    Unlink,
    Restore,
    /// Only in a mutant.
    UnlinkName,
}

/// A repack into files, or a put of a store that writes files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct User {
    pub(crate) at: Use,
    pub(crate) done: u8,
    /// Its blob is pending and refers to the block.
    pub(crate) pinned: bool,
    /// The place that it read, or found damaged.
    pub(crate) found: Option<u8>,
    /// It began after the last damage.
    pub(crate) fresh: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Use {
    Idle,
    Write,
    Sync,
    Mark,
    Commit,
}

/// The look at files that others left in `.doomed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Tidy {
    Idle,
    Unlink(u8),
    Restore(u8),
}

pub(crate) const NOBODY: User = User { at: Use::Idle, done: 0, pinned: false, found: None, fresh: false };

impl State {
    /// A running put refers to the block.
    pub(crate) fn is_pinned(&self) -> bool {
        self.filer.pinned || self.writer.pinned
    }

    pub(crate) fn is_good(&self, place: Option<u8>) -> bool {
        match place {
            Some(record) => self.records[usize::from(record)] == Record::Good,
            // A reader that misses the name looks in `.doomed`.
            None => self.name || self.aside.contains(&true),
        }
    }

    pub(crate) fn persist_rows(&mut self) {
        let row = self.row;
        self.disk.iter_mut().for_each(|disk| disk.row = row);
    }

    /// Both directories: a rename is on the disk as a whole or not at all.
    pub(crate) fn persist_names(&mut self) {
        let (name, aside) = (self.name, self.aside);
        if let Some(disk) = &mut self.disk {
            (disk.name, disk.aside) = (name, aside);
        }
    }

    /// The row gets this place. Its old record counts as dead.
    pub(crate) fn place(&mut self, place: Option<u8>) {
        if let Some(left) = self.row.place {
            self.row.dead[usize::from(left)] = true;
        }
        self.point(place);
    }

    /// The same, without counting the old record.
    pub(crate) fn point(&mut self, place: Option<u8>) {
        self.row.place = place;
        if let Some(record) = place {
            self.row.used[usize::from(record)] = true;
        }
    }

    /// Values that no longer make a difference become equal.
    pub(crate) fn normal(mut self) -> State {
        if self.cuts == 0 {
            self.disk = None;
        }
        self
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { stored, place, doomed_by, .. } = self.row;
        let pinned = if self.is_pinned() { ", pinned" } else { "" };
        write!(f, "        stored {stored}, place {place:?}, doomed by {doomed_by:?}{pinned}")?;
        write!(f, "; name {}, .doomed {:?}, records {:?}", self.name, self.aside, self.records)?;
        if let Some(Disk { row, name, aside }) = self.disk {
            write!(f, "; disk: place {:?}, name {name}, .doomed {aside:?}", row.place)?;
        }
        Ok(())
    }
}
