//! The extent of the search, and the rules that mutants leave out to see that a property fails.
//!
//! A mutant that looks too early takes a step twice: the first time it looks, the second time it acts.

use std::fmt;

use crate::mutants::mutants;
use crate::state::{COLLECTORS, Content, WRITERS};
use Content::{A, B, Both};

/// A finite part of all possible runs.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each allows some steps, apart from the others")]
pub(crate) struct Bounds {
    pub(crate) name: &'static str,
    /// The states that only these bounds reach.
    pub(crate) what: &'static str,
    /// The contents that each writer puts, one after the other.
    pub(crate) programs: [&'static [Content]; WRITERS],
    /// The writers that try the short path first. Only where blocks are files that can be recognised.
    pub(crate) short_path: [bool; WRITERS],
    /// The contents that are live at the beginning.
    pub(crate) live: &'static [Content],
    /// The number of collections of each collector.
    pub(crate) collections: [u8; COLLECTORS],
    pub(crate) restore: bool,
    pub(crate) reader: bool,
    pub(crate) verify: bool,
    pub(crate) adopt: bool,
    /// How often bytes are damaged from outside.
    pub(crate) damages: u8,
    pub(crate) lost_answers: bool,
    pub(crate) deletion: Deletion,
}

/// How the bytes of a block are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deletion {
    /// The earlier protocol: in the transaction that removes the row, and never after the doom.
    Swept,
    /// Objects: by requests outside of transactions, which the server refuses before the doom ends.
    Requested,
    /// Files: moved to `.doomed` outside of transactions, at any time; then settled.
    Aside,
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |contents: &[Content]| {
            contents.iter().map(|content| content.blocks().to_string()).collect::<Vec<_>>().join(" ")
        };
        let flags = [
            ("restore", self.restore),
            ("reader", self.reader),
            ("verify", self.verify),
            ("adopt", self.adopt),
            ("damage", self.damages > 0),
            ("lost answers", self.lost_answers),
        ];
        write!(f, "{}; live {}", self.what, names(self.live))?;
        for (program, short) in self.programs.iter().zip(self.short_path) {
            write!(f, "; puts {}{}", names(program), if short { " short" } else { "" })?;
        }
        write!(f, "; collections {:?}", self.collections)?;
        flags.iter().filter(|(_, on)| *on).try_for_each(|(name, _)| write!(f, "; {name}"))
    }
}

const LONG: Bounds = Bounds {
    name: "",
    what: "",
    programs: [&[Both], &[A]],
    short_path: [false, false],
    live: &[A],
    collections: [1, 1],
    restore: false,
    reader: false,
    verify: false,
    adopt: false,
    damages: 0,
    lost_answers: false,
    deletion: Deletion::Swept,
};

const REQUESTED: Bounds = Bounds { deletion: Deletion::Requested, ..LONG };

const ASIDE: Bounds = Bounds { deletion: Deletion::Aside, ..LONG };

/// Checked in every run of the tests.
pub(crate) const SHORT_LEG: &[Bounds] = &[
    Bounds { name: "long", what: "two writers, two collectors, shared blocks", ..LONG },
    Bounds {
        name: "long-again",
        what: "a writer that puts a second blob",
        programs: [&[Both, A], &[A]],
        lost_answers: true,
        ..LONG
    },
    Bounds {
        name: "collect-again",
        what: "a collector that collects a second time",
        programs: [&[A, A], &[A]],
        collections: [2, 1],
        ..LONG
    },
    Bounds { name: "short", what: "the short path beside the long one", short_path: [true, false], ..LONG },
    Bounds {
        name: "files",
        what: "the short path beside itself, and files without rows",
        programs: [&[Both], &[A]],
        short_path: [true, true],
        adopt: true,
        ..LONG
    },
    Bounds {
        name: "restore",
        what: "deleting and restoring beside a reader",
        programs: [&[A], &[Both]],
        live: &[A, Both],
        restore: true,
        reader: true,
        lost_answers: true,
        ..LONG
    },
    Bounds {
        name: "verify",
        what: "damage, verify and healing",
        short_path: [true, false],
        verify: true,
        damages: 1,
        ..LONG
    },
    Bounds {
        name: "adopt",
        what: "adopting what has no row",
        programs: [&[A], &[A]],
        short_path: [true, false],
        verify: true,
        adopt: true,
        ..LONG
    },
    Bounds {
        name: "all",
        what: "everything together, with one block",
        programs: [&[A], &[A]],
        short_path: [true, false],
        restore: true,
        reader: true,
        verify: true,
        adopt: true,
        damages: 1,
        ..LONG
    },
    Bounds { name: "requested", what: "deletes by request: two writers, shared blocks", ..REQUESTED },
    Bounds {
        name: "requested-verify",
        what: "deletes by request: damage, verify and adopting",
        programs: [&[A], &[A]],
        live: &[A],
        restore: true,
        verify: true,
        adopt: true,
        damages: 1,
        ..REQUESTED
    },
    Bounds {
        name: "aside",
        what: "files moved aside: two writers, shared blocks",
        collections: [1, 0],
        ..ASIDE
    },
    Bounds {
        name: "aside-short",
        what: "files moved aside: the short path",
        short_path: [true, false],
        collections: [1, 0],
        ..ASIDE
    },
    Bounds {
        name: "aside-again",
        what: "files moved aside: two collections of one block",
        programs: [&[A], &[A]],
        short_path: [true, false],
        ..ASIDE
    },
    Bounds {
        name: "aside-verify",
        what: "files moved aside: everything together, with one block",
        programs: [&[A], &[A]],
        short_path: [true, false],
        collections: [1, 0],
        restore: true,
        reader: true,
        verify: true,
        adopt: true,
        damages: 1,
        ..ASIDE
    },
];

/// Checked only by name.
pub(crate) const LONG_LEG: &[Bounds] = &[
    Bounds {
        name: "aside-verify-two",
        what: "files moved aside: damage and verify beside two collections",
        programs: [&[A], &[A]],
        short_path: [true, false],
        verify: true,
        damages: 1,
        ..ASIDE
    },
    Bounds { name: "aside-long", what: "files moved aside: two collections, shared blocks", ..ASIDE },
    Bounds {
        name: "aside-files",
        what: "files moved aside: the short path beside itself",
        short_path: [true, true],
        adopt: true,
        ..ASIDE
    },
    Bounds {
        name: "long-long",
        what: "four puts, three collections",
        programs: [&[Both, A], &[Both, B]],
        collections: [2, 1],
        ..LONG
    },
    Bounds {
        name: "files-long",
        what: "more of `files`",
        programs: [&[Both], &[A, A]],
        short_path: [true, true],
        adopt: true,
        lost_answers: true,
        ..LONG
    },
    Bounds {
        name: "short-long",
        what: "two puts each on the short path, three collections",
        programs: [&[Both, A], &[Both, A]],
        short_path: [true, true],
        collections: [2, 1],
        restore: true,
        adopt: true,
        ..LONG
    },
    Bounds {
        name: "all-long",
        what: "everything together, with two collectors",
        programs: [&[A], &[A]],
        short_path: [true, false],
        restore: true,
        reader: true,
        verify: true,
        adopt: true,
        damages: 1,
        lost_answers: true,
        ..LONG
    },
];

mutants! {
    NoReference "long requested aside" "a pin inserts no reference",
    NoWaiting "long requested" "a pin does not wait for a doom",
    PinLooksFirst "long" "whether a block is doomed is looked up before it is locked",
    SharesEarlierStores "long" "a put takes the result of a store that began before its pin",
    MarkUnchecked "long requested aside" "a block is marked stored although the blob is not pending",
    MarkLooksFirst "long" "whether the blob is pending is looked up before the blocks are locked",
    CommitUnchecked "long requested aside" "a commit does not look whether its blob is still pending",
    StaysStored "long requested aside" "bytes are deleted while the row says stored",
    StolenDoom "long requested" "a collector ignores another's doom",
    LooksBeforeLocking "long aside" "references are looked up before the block is locked",
    ShortDoom "long requested" "a doom runs out while its zombie may still delete",
    SweepsLate "long" "a deletion starts although the doom has run out",
    RowFirst "long" "reaping deletes the row of the blob before its references",
    ReapsWithoutMark "long" "a dropped reference does not make its block a candidate",
    ExpiresWhatWasPending "restore" "expiring does not look again whether the blob is pending",
    NoGrace "restore" "a blob is reaped while somebody reads it",
    ReapsWithoutClaim "restore" "reaping starts with the references, and the row keeps its id",
    RestoresBlindly "restore" "restoring does not look again whether the blob has its id",
    NoProof "short aside-short" "the short path does not look whether its files are in place",
    ShortIgnoresDoom "short" "the short path does not heed a doom",
    ShortLooksFirst "short" "the short path looks for its files before it locks the rows",
    VerifiesUnlocked "verify" "verify clears what it read before it had the lock",
    RestoresGarbage "aside-verify" "a file in .doomed goes back over the name unread",
    VerifiesNameOnly "aside-verify" "verify does not look in .doomed",
    LeavesAside "aside" "nobody looks at what a collection left in .doomed",
    UnlinksUnstored "aside" "a file in .doomed goes if its row does not say stored",
    UnlinksWhatIsPutAgain "aside" "a collection unlinks what it moved aside, whoever put it again",
    PinKeepsDoom "aside" "a pin leaves the doom in the row",
    SettlesBlindly "requested" "the row goes without a look at whose doom it has",
    AdoptsAsStored "adopt" "verify adopts a file as stored",
}
