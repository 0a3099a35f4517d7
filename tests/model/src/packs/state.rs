//! The state at one moment: rows, packs, and processes in the middle of their work.

use std::fmt;

/// The most packs. A name is never reused.
pub(super) const PACKS: usize = 3;
/// Records that a pack takes.
pub(super) const SLOTS: usize = 2;
/// Tasks that put. One more task compacts.
pub(super) const PUTS: usize = 2;
pub(super) const MOVER: usize = PUTS;
/// Open stores. The task that compacts has the last one.
pub(super) const STORES: usize = 3;

/// A record's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) pack: usize,
    pub(super) slot: usize,
}

/// The row of the block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Row {
    pub(super) stored: bool,
    pub(super) place: Option<Place>,
}

/// The row of a pack.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) enum Pack {
    #[default]
    Absent,
    /// By this store.
    Writing(usize),
    /// The lease of its store has ended. It is not sealed yet.
    Found,
    Sealed,
    Dropped,
    /// Its row is gone again.
    Gone,
}

/// The blob of a task. All of them have the block. References go with the row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) enum Blob {
    #[default]
    None,
    Pending,
    Live,
    Deleted,
}

/// The database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Rows {
    pub(super) block: Option<Row>,
    pub(super) packs: [Pack; PACKS],
    /// Released, and not punched yet.
    pub(super) holes: [[bool; SLOTS]; PACKS],
    /// Packs that no row has pointed at for a whole grace.
    pub(super) waited: [bool; PACKS],
    pub(super) blobs: [Blob; PUTS],
    /// Stores whose lease has not ended.
    pub(super) writers: [bool; STORES],
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) enum Slot {
    #[default]
    Empty,
    /// Written, and not synced.
    Fresh,
    /// Writing it back has failed: it can be read until a power cut.
    Clean,
    Durable,
    /// Its header is there, its bytes are not.
    Torn,
    Punched,
}

/// The name of a pack's file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) enum Entry {
    #[default]
    Absent,
    /// Created; the directory is not synced.
    Fresh,
    Durable,
    /// Removed; the directory is not synced.
    Removed,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct File {
    pub(super) entry: Entry,
    pub(super) slots: [Slot; SLOTS],
    /// A failed write that the descriptor of its writer has not reported yet.
    pub(super) unreported: bool,
}

impl File {
    /// The file and its directory. (A failed write is known to the descriptor of its writer alone.)
    pub(super) fn sync(&mut self) {
        for slot in &mut self.slots {
            if *slot == Slot::Fresh {
                *slot = Slot::Durable;
            }
        }
        if self.entry == Entry::Fresh {
            self.entry = Entry::Durable;
        }
    }
}

/// An open store, from the view of its process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Store {
    pub(super) pack: Option<usize>,
    /// Its file was created.
    pub(super) has_file: bool,
    /// A sync is under way, and covers these slots of the pack.
    pub(super) sync: Option<[bool; SLOTS]>,
    /// A sync has failed.
    pub(super) latched: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) enum At {
    #[default]
    Idle,
    /// The block is pinned. The answer says whether it is stored, and where.
    Look(Row),
    /// Bytes are to be appended.
    Append,
    /// The record's place is taken.
    Writing(Place),
    /// The record is written. The flag says whether a sync that began after the write is running.
    Written(Place, bool),
    /// As durable as the store promises.
    Synced(Place),
    /// The row points at the block's bytes.
    Stored,
    Failing,
}

/// A put, or the move of a record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Task {
    pub(super) at: At,
    /// For a put and a rebuild: the place that it found damaged. For a move: the place that it moves from.
    pub(super) found: Option<Place>,
    /// The number of runs left.
    pub(super) left: u8,
}

impl Task {
    /// The place of its record, if it relies on one.
    pub(super) fn place(&self) -> Option<Place> {
        match self.at {
            At::Writing(place) | At::Written(place, _) | At::Synced(place) => Some(place),
            At::Idle | At::Look(_) | At::Append | At::Stored | At::Failing => None,
        }
    }
}

/// A reader of the first blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Reader {
    pub(super) place: Place,
    /// The blob was live all the time.
    pub(super) is_live: bool,
}

/// A backup that is younger than the grace: the place of the block then, and the blobs that were live then
/// and are now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Backup {
    pub(super) place: Place,
    pub(super) live: [bool; PUTS],
}

/// A pack that is being dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Drop {
    Unlink(usize),
    Sync(usize),
    Forget(usize),
}

/// A found pack that is being sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Seal {
    /// It was synced, and is to be verified.
    Verify(usize),
    /// Only in mutants: the end was looked up while its store could still mark.
    Commit(usize, usize),
    Cut(usize, usize),
}

/// How often events from outside may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Left {
    pub(super) expiries: u8,
    pub(super) deaths: u8,
    pub(super) cuts: u8,
    pub(super) failovers: u8,
    pub(super) failed_writes: u8,
    pub(super) damages: u8,
    pub(super) graces: u8,
    pub(super) backups: u8,
    pub(super) reads: u8,
    pub(super) restores: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(super) rows: Rows,
    /// The rows that survive every power cut and fail-over.
    pub(super) durable: Rows,
    pub(super) files: [File; PACKS],
    pub(super) stores: [Store; STORES],
    pub(super) tasks: [Task; PUTS + 1],
    /// The block was found without references. (Only in a mutant; the protocol looks and releases in one
    /// transaction.)
    pub(super) chosen: bool,
    pub(super) punch: Option<Place>,
    pub(super) drop: Option<Drop>,
    pub(super) seal: Option<Seal>,
    pub(super) reader: Option<Reader>,
    pub(super) backup: Option<Backup>,
    /// A copy of the database, of any age.
    pub(super) saved: Option<Rows>,
    /// Blobs whose put has returned, and that were not deleted since.
    pub(super) acknowledged: [bool; PUTS],
    /// Blobs that damage, or a power cut without syncs, may have cost.
    pub(super) excused: [bool; PUTS],
    /// A reader got wrong bytes, or an error that a live block is damaged.
    pub(super) misread: bool,
    /// Packs that their own writers have sealed.
    pub(super) closed: [bool; PACKS],
    /// Packs whose files were created after their rows had gone, by a store that was stopped for the whole
    /// grace; and those that a restored database does not know. Verifying finds them.
    pub(super) late: [bool; PACKS],
    /// Bytes were written to a pack that its writer had sealed.
    pub(super) stray: bool,
    pub(super) left: Left,
}

impl State {
    /// The state without collector and reader, which end.
    pub(super) fn without_others(self) -> State {
        State { chosen: false, punch: None, drop: None, seal: None, reader: None, ..self }
    }

    /// Whether a record can be read: its header and its bytes.
    pub(super) fn is_good(&self, place: Place) -> bool {
        let File { entry, slots, .. } = &self.files[place.pack];
        matches!(entry, Entry::Fresh | Entry::Durable)
            && matches!(slots[place.slot], Slot::Fresh | Slot::Clean | Slot::Durable)
    }

    /// Whether a record survives a power cut.
    pub(super) fn is_durable(&self, place: Place) -> bool {
        let File { entry, slots, .. } = &self.files[place.pack];
        *entry == Entry::Durable && slots[place.slot] == Slot::Durable
    }

    /// Whether there is a header of this block.
    pub(super) fn has_header(&self, place: Place) -> bool {
        let File { entry, slots, .. } = &self.files[place.pack];
        matches!(entry, Entry::Fresh | Entry::Durable) && slots[place.slot] != Slot::Empty
    }

    /// Whether a row points into this pack.
    pub(super) fn is_pointed_at(&self, pack: usize) -> bool {
        self.rows.block.and_then(|row| row.place).is_some_and(|place| place.pack == pack)
    }

    /// The store has no pack any more.
    pub(super) fn leave_pack(&mut self, store: usize) {
        self.stores[store] = Store { latched: self.stores[store].latched, ..Store::default() };
    }

    /// The transaction is synced, with all earlier ones.
    pub(super) fn sync_rows(&mut self) {
        self.durable = self.rows;
    }

    /// The process of this store ends, with its tasks.
    pub(super) fn end(&mut self, store: usize, stores: &[usize]) {
        self.stores[store] = Store::default();
        for (task, of) in self.tasks.iter_mut().zip(stores) {
            if *of == store {
                *task = Task { left: task.left, ..Task::default() };
            }
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let State { rows, durable, files, stores, tasks, .. } = self;
        write!(
            f,
            "        {rows:?}\n        durable {durable:?}\n        {files:?}\n        {stores:?}\n        {tasks:?}"
        )
    }
}
