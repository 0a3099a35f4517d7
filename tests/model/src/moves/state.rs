//! One block as an object and as records in packs, and the requests that are on their way.

use std::fmt;

/// Processes that repack into packs. Their numbers are those of their requests.
pub(crate) const PACKERS: usize = 2;
/// The number of the collector among those that delete.
pub(crate) const COLLECTOR: usize = PACKERS;
/// Places of records, for as many as somebody may point at.
pub(crate) const RECORDS: usize = 7;
const REQUESTS: usize = 4;
/// For how long the server may carry out a delete after its date: so many quarters of an hour.
pub(crate) const VALID: u8 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct State {
    pub(crate) now: u8,
    pub(crate) row: Option<Row>,
    /// The row that a power cut would leave, if there may be one.
    #[expect(clippy::option_option, reason = "there is none to come, or it leaves no row")]
    pub(crate) disk: Option<Option<Row>>,
    /// Whether an object has the block's name. Its bytes are good.
    pub(crate) object: bool,
    pub(crate) records: [Record; RECORDS],
    pub(crate) live: u8,
    pub(crate) deleted: u8,
    /// Blobs of puts that ended, and that refer to the block until they are reaped.
    pub(crate) expired: u8,
    pub(crate) packers: [Packer; PACKERS],
    pub(crate) collector: Collector,
    pub(crate) filer: User,
    pub(crate) writer: User,
    pub(crate) reader: Reader,
    pub(crate) requests: [Option<Request>; REQUESTS],
    pub(crate) damages: u8,
    pub(crate) cuts: u8,
    /// The bytes were damaged, and no put has written them since that began behind the damage.
    pub(crate) excused: bool,
    /// A repack into objects has lost its lease without knowing it.
    pub(crate) has_stalled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Row {
    pub(crate) stored: bool,
    /// The record; none means under its own name.
    pub(crate) place: Option<u8>,
    pub(crate) candidate: bool,
    /// Of its own name.
    pub(crate) doom: Option<Doom>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Doom {
    /// `None`: one that is over.
    pub(crate) by: Option<u8>,
    /// 0 if it has ended.
    pub(crate) until: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Record {
    Absent,
    Good,
    Damaged,
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
    /// The pack is sent.
    Sign {
        record: u8,
    },
    Move {
        record: u8,
        dated: u8,
    },
    /// An object is under the name of a block that is in a pack.
    SignName,
    DoomName {
        dated: u8,
    },
    Delete(Deleting),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Collector {
    pub(crate) at: Collect,
    pub(crate) runs: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Collect {
    Idle,
    Doom { dated: u8 },
    Delete(Deleting),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Deleting {
    pub(crate) dated: u8,
    pub(crate) is_sent: bool,
    /// It was not answered, as far as its process knows.
    pub(crate) is_open: bool,
    pub(crate) is_gone: bool,
}

impl Deleting {
    pub(crate) fn dated(dated: u8) -> Deleting {
        Deleting { dated, is_sent: false, is_open: false, is_gone: false }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Request {
    /// The process that waits for the answer, if one does.
    pub(crate) by: Option<u8>,
    pub(crate) dated: u8,
    /// Carried out or refused, and the answer is on its way.
    pub(crate) done: Option<bool>,
}

/// A repack into objects, or a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct User {
    pub(crate) at: Use,
    pub(crate) done: u8,
    /// Its blob is pending and refers to the block.
    pub(crate) is_pinned: bool,
    /// The place that it read, or found damaged.
    pub(crate) found: Option<u8>,
    /// It began behind the last damage.
    pub(crate) is_fresh: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Use {
    Idle,
    Write,
    /// Into a pack.
    Append,
    /// The block is under its name, or in this record.
    Mark(Option<u8>),
    Commit {
        has_written: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Reader {
    pub(crate) at: Option<Look>,
    pub(crate) done: u8,
    /// It did not find the bytes of a live blob.
    pub(crate) has_failed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Look {
    /// Where it reads.
    pub(crate) place: Option<u8>,
    /// It has not found the bytes there, and is about to ask the row.
    pub(crate) has_missed: bool,
    /// It reads there for the second time.
    pub(crate) is_again: bool,
}

pub(crate) const NOBODY: User =
    User { at: Use::Idle, done: 0, is_pinned: false, found: None, is_fresh: false };

impl State {
    /// A put under way refers to the block.
    pub(crate) fn is_pinned(&self) -> bool {
        self.filer.is_pinned || self.writer.is_pinned
    }

    pub(crate) fn references(&self) -> u8 {
        let pending = u8::from(self.filer.is_pinned) + u8::from(self.writer.is_pinned);
        self.live + self.deleted + self.expired + pending
    }

    /// A delete of the name may be carried out.
    pub(crate) fn is_doomed(&self) -> bool {
        self.row.and_then(|row| row.doom).is_some_and(|doom| self.now < doom.until)
    }

    pub(crate) fn is_good(&self, place: Option<u8>) -> bool {
        match place {
            Some(record) => self.records[usize::from(record)] == Record::Good,
            None => self.object,
        }
    }

    /// The transaction was synced, and with it all before.
    pub(crate) fn persist(&mut self) {
        let row = self.row;
        self.disk.iter_mut().for_each(|disk| *disk = row);
    }

    /// A record that nobody points at, or will.
    pub(crate) fn free_record(&self) -> Option<u8> {
        let used = self.used();
        (0..RECORDS).find(|record| !used[*record]).map(|record| record as u8)
    }

    fn used(&self) -> [bool; RECORDS] {
        let mut used = [false; RECORDS];
        let of_packers = self.packers.iter().map(|packer| match packer.at {
            Pack::Sign { record } | Pack::Move { record, .. } => Some(record),
            _ => None,
        });
        let of_users = [self.filer, self.writer].into_iter().flat_map(|user| {
            let written = if let Use::Mark(place) = user.at { place } else { None };
            [user.found, written]
        });
        let of_rows = [self.row, self.disk.flatten()].map(|row| row.and_then(|row| row.place));
        let places =
            of_packers.chain(of_users).chain(of_rows).chain([self.reader.at.and_then(|look| look.place)]);
        for place in places.flatten() {
            used[usize::from(place)] = true;
        }
        used
    }

    /// Adds a request, if there is room.
    pub(crate) fn send(&mut self, request: Request) -> bool {
        let free = self.requests.iter_mut().find(|place| place.is_none());
        free.map(|place| *place = Some(request)).is_some()
    }

    pub(crate) fn requests(&self) -> impl Iterator<Item = (usize, Request)> {
        let all = self.requests.into_iter().enumerate();
        all.filter_map(|(place, request)| Some((place, request?)))
    }

    /// Nobody waits for the answers to this process any more.
    pub(crate) fn without_answers(mut self, number: usize) -> State {
        for request in self.requests.iter_mut().flatten() {
            request.by = request.by.filter(|by| usize::from(*by) != number);
        }
        self
    }

    /// Values that nobody can tell from others any more become equal to them.
    pub(crate) fn normal(mut self) -> State {
        let now = self.now;
        let is_over = |request: &Request| {
            request.by.is_none() && (request.done.is_some() || now >= request.dated + VALID)
        };
        self.requests = self.requests.map(|request| request.filter(|request| !is_over(request)));
        self.requests.sort_unstable();
        if self.cuts == 0 {
            self.disk = None;
        }
        let is_idle = |by: u8| match usize::from(by) {
            COLLECTOR => !matches!(self.collector.at, Collect::Delete(_)),
            packer => !matches!(self.packers[packer].at, Pack::Delete(_)),
        };
        let row = |row: Row| {
            let doom = row.doom.map(|doom| Doom {
                by: doom.by.filter(|by| !is_idle(*by)),
                until: if doom.until > now { doom.until } else { 0 },
            });
            Row { doom, ..row }
        };
        self.row = self.row.map(row);
        self.disk = self.disk.map(|disk| disk.map(row));
        let used = self.used();
        for (record, used) in self.records.iter_mut().zip(used) {
            if !used {
                *record = Record::Absent;
            }
        }
        self
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let State { now, object, live, deleted, expired, records, .. } = self;
        write!(f, "        {now}: object {object}, records {records:?}; {live} live, {deleted} deleted")?;
        write!(f, ", {expired} expired")?;
        if let Some(Row { stored, place, candidate, doom }) = self.row {
            let doom = doom.map(|doom| (doom.by, doom.until));
            let pinned = if self.is_pinned() { ", pinned" } else { "" };
            write!(f, "; stored {stored}, place {place:?}, candidate {candidate}, doom {doom:?}{pinned}")?;
        }
        let requests = self.requests().map(|(_, request)| (request.by, request.dated, request.done));
        write!(f, "; requests {:?}", requests.collect::<Vec<_>>())
    }
}
