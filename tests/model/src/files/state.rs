//! One block, its file, the files moved aside, and the state of all that after a power cut.

use std::fmt;

pub(crate) const WRITERS: usize = 3;
pub(crate) const COLLECTORS: usize = 3;
/// Names in `.doomed`: one for each run of each collector.
pub(crate) const ASIDE: usize = 3;
/// A writer or collector that is gone, or whose number no longer matters.
pub(crate) const NOBODY: u8 = u8::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct State {
    pub(crate) row: Option<Row>,
    /// The transaction that holds the row's lock over several steps, or has inserted a row that no other
    /// transaction sees yet.
    pub(crate) lock: Option<Holder>,
    /// The file under the block's name.
    pub(crate) name: Option<File>,
    pub(crate) aside: [Aside; ASIDE],
    pub(crate) blobs: Blobs,
    /// `None` once no more power cuts follow.
    pub(crate) disk: Option<Disk>,
    pub(crate) writers: [Writer; WRITERS],
    pub(crate) collectors: [Collector; COLLECTORS],
    pub(crate) reader: Reader,
    pub(crate) cuts: u8,
    /// A row was removed for good before the move of its file was on the disk.
    pub(crate) leaked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Holder {
    /// The commit of a short path, between its look at the file and its end.
    Writer(u8),
    /// The earlier sweep.
    Collector(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Row {
    pub(crate) stored: bool,
    pub(crate) candidate: bool,
    /// `doomed_by`. The new protocol does not read `doomed_until`.
    pub(crate) doomed_by: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct File {
    /// The writer that published it, while its put is running.
    pub(crate) owner: u8,
    /// Its data is synced.
    pub(crate) whole: bool,
}

/// A name in `.doomed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Aside {
    Empty,
    Here(File),
    /// The file is back under the block's name, but perhaps not on the disk yet.
    Back,
}

/// The committed blobs. Pending ones are in their writers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct Blobs {
    pub(crate) live: u8,
    pub(crate) deleted: u8,
    pub(crate) expired: u8,
}

/// The state after a power cut; for a file, whether its data is synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Disk {
    pub(crate) row: Option<Row>,
    pub(crate) blobs: Blobs,
    pub(crate) name: Option<bool>,
    pub(crate) aside: [Option<bool>; ASIDE],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Writer {
    pub(crate) at: Put,
    pub(crate) own: Own,
    /// The pin found the row `stored`.
    pub(crate) marked: bool,
    pub(crate) done: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Put {
    Idle,
    ShortSync,
    ShortCommit,
    /// The row is locked, and the file was in place.
    Proven,
    Pin,
    Write,
    Sync,
    Commit,
}

/// The pending blob of a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Own {
    None,
    Pending,
    Expired,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Collector {
    pub(crate) at: Collect,
    pub(crate) runs: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Collect {
    Idle,
    Reap,
    Doom,
    Move,
    Sync,
    Settle,
    /// The move failed, or its result is unknown.
    Lift,
    /// To be removed.
    Unlink(u8),
    /// To go back under the block's name.
    Restore(u8),
    /// Only in mutants that link: the link exists, and the old name still does.
    SyncLink(u8),
    /// Only in the mutant that decides before it moves.
    MoveDecided(bool),
    /// Only in the earlier sweep.
    Sweep,
    UnlinkName,
    Drop,
    Zombie,
}

/// A reader of a blob that stays live: how often it has looked under the name and in `.doomed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Reader {
    Away,
    AtName(u8),
    AtAside(u8),
    /// It has seen a name in `.doomed` and opens it next.
    Opens(u8, u8),
    Missed,
}

impl State {
    pub(crate) fn references(&self) -> u8 {
        let pending = self.writers.iter().filter(|writer| writer.own == Own::Pending).count() as u8;
        self.blobs.live + self.blobs.deleted + self.blobs.expired + pending
    }

    pub(crate) fn is_swept(&self) -> bool {
        matches!(self.lock, Some(Holder::Collector(_)))
    }

    pub(crate) fn has_bytes(&self) -> bool {
        self.name.is_some() || self.aside.iter().any(|aside| matches!(aside, Aside::Here(_)))
    }

    /// The file leaves the name; `None` if there is none.
    pub(crate) fn move_aside(&mut self, place: usize) {
        if let Some(file) = self.name.take() {
            self.aside[place] = Aside::Here(file);
        }
    }

    /// One rename, over any file under the name.
    pub(crate) fn move_back(&mut self, place: usize) {
        if let Aside::Here(file) = self.aside[place] {
            self.name = Some(file);
            self.aside[place] = Aside::Back;
        }
    }

    /// The directory of the names reaches the disk. A rename is on the disk as a whole or not at all: if the
    /// old name is gone, the new one is there.
    pub(crate) fn persist_names(&mut self, torn_renames: bool) {
        let name = self.name.map(|file| file.whole);
        let Some(disk) = &mut self.disk else { return };
        disk.name = name;
        for (aside, on_disk) in self.aside.iter().zip(&mut disk.aside) {
            if let (Aside::Here(file), None, false) = (aside, &on_disk, torn_renames) {
                *on_disk = Some(file.whole);
            }
        }
    }

    /// One name in `.doomed` reaches the disk.
    pub(crate) fn persist_aside(&mut self, place: usize, torn_renames: bool) {
        if self.aside[place] == Aside::Back && !torn_renames {
            self.persist_names(false);
        }
        let Some(disk) = &mut self.disk else { return };
        disk.aside[place] = match self.aside[place] {
            Aside::Here(file) => Some(file.whole),
            Aside::Empty | Aside::Back => None,
        };
    }

    /// The database reaches the disk. A pending blob whose writer is gone counts as expired.
    pub(crate) fn persist_rows(&mut self) {
        let pending = self.writers.iter().filter(|writer| writer.own == Own::Pending).count() as u8;
        let Some(disk) = &mut self.disk else { return };
        disk.row = self.row;
        disk.blobs = Blobs { expired: self.blobs.expired + pending, ..self.blobs };
    }

    /// The same state with two writers exchanged that have the same work.
    pub(crate) fn swap_writers(mut self, one: usize, other: usize) -> State {
        self.writers.swap(one, other);
        if let Some(Holder::Writer(by)) = &mut self.lock {
            *by = swapped(*by, one, other);
        }
        let files = self.name.iter_mut().chain(self.aside.iter_mut().filter_map(Aside::file));
        files.for_each(|file| file.owner = swapped(file.owner, one, other));
        self
    }

    /// The same with two collectors, and with their names in `.doomed`.
    pub(crate) fn swap_collectors(
        mut self,
        one: usize,
        other: usize,
        places: Option<(usize, usize)>,
    ) -> State {
        self.collectors.swap(one, other);
        if let Some(Holder::Collector(by)) = &mut self.lock {
            *by = swapped(*by, one, other);
        }
        for row in self.row.iter_mut().chain(self.disk.iter_mut().filter_map(|disk| disk.row.as_mut())) {
            row.doomed_by = row.doomed_by.map(|by| swapped(by, one, other));
        }
        let Some((one, other)) = places else { return self };
        self.aside.swap(one, other);
        if let Some(disk) = &mut self.disk {
            disk.aside.swap(one, other);
        }
        for collector in &mut self.collectors {
            if let Collect::Unlink(place) | Collect::Restore(place) = &mut collector.at {
                *place = swapped(*place, one, other);
            }
        }
        if let Reader::Opens(_, place) = &mut self.reader {
            *place = swapped(*place, one, other);
        }
        self
    }

    /// Values that no longer make a difference become equal.
    pub(crate) fn normal(mut self) -> State {
        let idle = self.writers.map(|writer| writer.at == Put::Idle);
        let forget = |file: &mut File| {
            if idle.get(usize::from(file.owner)).is_some_and(|idle| *idle) {
                file.owner = NOBODY;
            }
        };
        self.name.iter_mut().for_each(forget);
        if self.cuts == 0 {
            self.disk = None;
        }
        let disk = self.disk.map(|disk| disk.aside);
        for (place, aside) in self.aside.iter_mut().enumerate() {
            match aside {
                Aside::Here(file) => forget(file),
                Aside::Back if disk.is_none_or(|disk| disk[place].is_none()) => *aside = Aside::Empty,
                Aside::Back | Aside::Empty => {}
            }
        }
        let gone = self.collectors.map(|collector| collector.at == Collect::Idle);
        for row in self.row.iter_mut().chain(self.disk.iter_mut().filter_map(|disk| disk.row.as_mut())) {
            if row.doomed_by.is_some_and(|by| gone.get(usize::from(by)).is_some_and(|gone| *gone)) {
                row.doomed_by = Some(NOBODY);
            }
        }
        self
    }
}

impl Aside {
    fn file(&mut self) -> Option<&mut File> {
        match self {
            Aside::Here(file) => Some(file),
            Aside::Empty | Aside::Back => None,
        }
    }
}

fn swapped(which: u8, one: usize, other: usize) -> u8 {
    match usize::from(which) {
        which if which == one => other as u8,
        which if which == other => one as u8,
        _ => which,
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Blobs { live, deleted, expired } = self.blobs;
        write!(f, "        name {}", self.name.map_or("free", |_| "taken"))?;
        for (place, aside) in self.aside.iter().enumerate() {
            if let Aside::Here(_) = aside {
                write!(f, ", .doomed/{place}")?;
            }
        }
        match self.row {
            None => write!(f, "; no row")?,
            Some(Row { stored, candidate, doomed_by }) => {
                write!(f, "; stored {stored}, candidate {candidate}, doomed by {doomed_by:?}")?;
            }
        }
        write!(f, "; {live} live, {deleted} deleted, {expired} expired")?;
        if let Some(disk) = self.disk {
            write!(
                f,
                "; disk: name {:?}, .doomed {:?}",
                disk.name.is_some(),
                disk.aside.map(|a| a.is_some())
            )?;
        }
        Ok(())
    }
}
