//! The extent of the search, and the rules that mutants leave out to see that a property fails.

use std::fmt;

use super::state::{COLLECTORS, WRITERS};
use crate::mutants::mutants;

#[derive(Debug)]
pub(crate) struct Bounds {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// Puts of each writer.
    pub(crate) puts: [u8; WRITERS],
    /// Collections of each collector.
    pub(crate) runs: [u8; COLLECTORS],
    /// The collectors that look at files which others left in `.doomed`: before a collection, or as the next
    /// store that writes.
    pub(crate) tidiers: [bool; COLLECTORS],
    pub(crate) cuts: u8,
    pub(crate) reader: bool,
    /// The second transaction of a collection is not synced. That is allowed: the doom was.
    pub(crate) lazy_settle: bool,
    pub(crate) deletion: Deletion,
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; puts {:?}; collections {:?}; {} cuts", self.what, self.puts, self.runs, self.cuts)
    }
}

/// How names are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deletion {
    /// Moved to `.doomed` without a lock, then settled.
    Aside,
    /// The earlier protocol: unlinked in the transaction that removes the row; the doom outlasts the unlink.
    InTime,
    /// The same, but the unlink may stall for longer than its doom.
    Stalls,
}

const ASIDE: Bounds = Bounds {
    name: "",
    what: "",
    puts: [1, 1, 0],
    runs: [1, 1, 0],
    tidiers: [true, true, false],
    cuts: 1,
    reader: false,
    lazy_settle: false,
    deletion: Deletion::Aside,
};

pub(crate) const SHORT_LEG: &[Bounds] = &[
    Bounds { name: "files-cut", what: "a put, two collections, a power cut", puts: [1, 0, 0], ..ASIDE },
    Bounds {
        name: "files-tidy",
        what: "two that only tidy beside a collection",
        runs: [1, 0, 0],
        tidiers: [false, true, true],
        ..ASIDE
    },
    Bounds {
        name: "files-lazy",
        what: "the same, and the transaction in which the row goes is not synced",
        runs: [1, 0, 0],
        tidiers: [false, true, true],
        lazy_settle: true,
        ..ASIDE
    },
    Bounds { name: "files-uncut", what: "two puts, two collections", cuts: 0, ..ASIDE },
    Bounds {
        name: "files-read",
        what: "a reader beside two collections",
        puts: [1, 1, 0],
        cuts: 0,
        reader: true,
        ..ASIDE
    },
    Bounds {
        name: "files-again",
        what: "a collector that dooms the same block twice",
        puts: [1, 0, 0],
        runs: [2, 0, 0],
        tidiers: [false, true, false],
        ..ASIDE
    },
    Bounds { name: "files-timely", what: "the earlier protocol, if no unlink stalls", ..TIMELY },
    Bounds {
        name: "files-timely-puts",
        what: "the same: each writer puts twice",
        puts: [2, 2, 0],
        runs: [1, 0, 0],
        ..TIMELY
    },
    Bounds {
        name: "files-timely-uncut",
        what: "the same without power cuts",
        puts: [2, 2, 0],
        cuts: 0,
        ..TIMELY
    },
    Bounds {
        name: "files-timely-three",
        what: "the same: three writers",
        puts: [1, 1, 1],
        runs: [1, 0, 0],
        ..TIMELY
    },
    Bounds {
        name: "files-timely-again",
        what: "the same: each collector runs twice",
        runs: [2, 2, 0],
        ..TIMELY
    },
];

const TIMELY: Bounds = Bounds { deletion: Deletion::InTime, ..ASIDE };

/// Checked only by name.
pub(crate) const LONG_LEG: &[Bounds] = &[
    Bounds { name: "files-cut-two", what: "two puts, two collections, a power cut", ..ASIDE },
    Bounds {
        name: "files-lazy-cut",
        what: "`files-cut-two` without a sync of the row's end",
        lazy_settle: true,
        ..ASIDE
    },
    Bounds {
        name: "files-again-beside",
        what: "a collector that dooms the same block twice beside two that tidy",
        runs: [2, 0, 0],
        tidiers: [false, true, true],
        ..ASIDE
    },
    Bounds { name: "files-puts", what: "each writer puts twice", puts: [2, 2, 0], runs: [1, 0, 0], ..ASIDE },
    Bounds { name: "files-two-cuts", what: "two power cuts", runs: [1, 0, 0], cuts: 2, ..ASIDE },
];

mutants! {
    NoReference "files-cut files-timely" "the pin inserts no reference",
    CommitUnchecked "files-uncut files-timely" "a commit does not look whether its blob is still pending",
    NoProof "files-tidy files-timely" "the short path finds any file under the name enough",
    NoSyncName "files-cut files-timely" "commits come before the directory is synced",
    NameFirst "files-cut files-timely" "a file gets its name before its data is synced",
    UnlinkFail "files-cut files-timely" "after a failed directory sync the writer removes the name",
    StaysStored "files-uncut files-timely" "a doomed row still says stored",
    PinKeepsDoom "files-uncut" "a pin leaves the doom in the row",
    LazyDoom "files-cut files-timely" "a doom is committed without a sync",
    NoSyncMoved "files-cut" "the row goes before the move is on the disk",
    TornRename "files-cut" "a power cut may leave a rename half done",
    SettlesFirst "files-uncut" "the row is looked at before the file is moved aside",
    UnlinksWhatIsPutAgain "files-uncut" "a collection unlinks what it moved aside, whoever put it again",
    UnlinksUnstored "files-uncut" "a file in .doomed goes if its row does not say stored",
    TidiesBlindly "files-uncut" ".doomed is emptied without a look at the rows",
    LooksWithoutLocking "files-uncut" "the row of a file in .doomed is read and not locked",
    LooksWithoutInserting "files-uncut" "the row of a file in .doomed is locked if there is one",
    LeavesAside "files-uncut" "nobody looks at what a collection left in .doomed",
    ReusesName "files-again" "a collection moves a second file to the same name in .doomed",
    LinksBack "files-tidy" "a file is linked back if its name is free, synced, then unlinked",
    LinksBackUnsynced "files-tidy" "the same without a sync",
    ReaderLooksOnce "files-read" "a reader looks under the name alone",
    ReaderLooksTwice "files-read" "a reader looks under the name and in .doomed, once each",
    UnlinkStalls "files-timely" "earlier: an unlink may stall for longer than its doom",
    HoldsTransaction "files-timely" "earlier: the transaction that removes the row is open over the unlink",
    PinIgnoresDoom "files-timely" "earlier: a pin does not heed a doom",
    ShortIgnoresDoom "files-timely" "earlier: the short path does not heed a doom",
    StolenDoom "files-timely" "earlier: a collector ignores another's doom",
}
