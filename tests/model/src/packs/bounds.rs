//! The extent of the search, and the rules that mutants leave out to see that a property fails.

use std::fmt;

use super::state::{Left, MOVER, PUTS, STORES};
use crate::mutants::mutants;

#[derive(Debug)]
pub(crate) struct Bounds {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// Puts of each task, and moves.
    pub(super) runs: [u8; PUTS + 1],
    /// The store of each task.
    pub(super) stores: [usize; PUTS + 1],
    /// Stores that promise nothing after a power cut.
    pub(super) relaxed: [bool; STORES],
    /// Whether the last task rebuilds, instead of moving.
    pub(super) rebuilds: bool,
    /// Whether blobs are deleted, and collections run.
    pub(super) collects: bool,
    pub(super) left: Left,
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bounds { what, runs, left, rebuilds, .. } = self;
        let last = if *rebuilds { "rebuilds" } else { "moves" };
        write!(f, "{what}; puts {:?}, {} {last}, {} power cuts", &runs[..PUTS], runs[MOVER], left.cuts)
    }
}

const NOTHING: Left = Left {
    expiries: 0,
    deaths: 0,
    cuts: 0,
    failovers: 0,
    failed_writes: 0,
    damages: 0,
    graces: 0,
    backups: 0,
    reads: 0,
    restores: 0,
};

const PUT: Bounds = Bounds {
    name: "",
    what: "",
    runs: [1, 1, 0],
    stores: [0, 1, 2],
    relaxed: [false; STORES],
    rebuilds: false,
    collects: true,
    left: NOTHING,
};

pub(crate) const SHORT_LEG: &[Bounds] = &[
    Bounds {
        name: "packs-put",
        what: "two tasks of one store, a failed write",
        stores: [0, 0, 2],
        collects: false,
        left: Left { cuts: 1, failed_writes: 1, ..NOTHING },
        ..PUT
    },
    Bounds {
        name: "packs-expire",
        what: "two stores, one of which loses its lease, or dies",
        left: Left { expiries: 1, deaths: 1, ..NOTHING },
        ..PUT
    },
    Bounds {
        name: "packs-again",
        what: "a block that goes and is put again",
        runs: [2, 0, 0],
        left: Left { cuts: 1, graces: 1, ..NOTHING },
        ..PUT
    },
    Bounds {
        name: "packs-fail-over",
        what: "a database that loses its last transactions",
        runs: [1, 1, 0],
        left: Left { expiries: 1, failovers: 1, ..NOTHING },
        ..PUT
    },
    Bounds {
        name: "packs-damage",
        what: "a record that is damaged",
        runs: [1, 1, 0],
        left: Left { damages: 1, ..NOTHING },
        ..PUT
    },
    Bounds {
        name: "packs-relaxed",
        what: "relaxed stores",
        relaxed: [true, true, true],
        left: Left { cuts: 1, expiries: 1, ..NOTHING },
        ..PUT
    },
    Bounds {
        name: "packs-move",
        what: "a move beside a backup and a reader",
        runs: [1, 0, 1],
        left: Left { graces: 1, backups: 1, reads: 1, ..NOTHING },
        ..PUT
    },
    Bounds {
        name: "packs-move-cut",
        what: "a move of a relaxed store",
        runs: [1, 0, 1],
        relaxed: [false, false, true],
        left: Left { graces: 1, cuts: 1, expiries: 1, ..NOTHING },
        ..PUT
    },
    Bounds {
        name: "packs-read",
        what: "a reader beside a block that goes and is put again",
        runs: [2, 0, 0],
        left: Left { reads: 1, ..NOTHING },
        ..PUT
    },
    Bounds {
        name: "packs-rebuild",
        what: "a rebuild after an old database was restored, beside a collector that is late",
        runs: [2, 0, 1],
        rebuilds: true,
        left: Left { restores: 1, ..NOTHING },
        ..PUT
    },
    Bounds {
        name: "packs-rebuild-damage",
        what: "a rebuild of a damaged record from a copy of it",
        runs: [1, 1, 1],
        rebuilds: true,
        left: Left { damages: 1, cuts: 1, ..NOTHING },
        ..PUT
    },
];

/// Checked only by name.
pub(crate) const LONG_LEG: &[Bounds] = &[
    Bounds {
        name: "packs-all",
        what: "two stores and a move",
        runs: [1, 1, 1],
        left: Left { expiries: 1, cuts: 1, graces: 1, ..NOTHING },
        ..PUT
    },
    Bounds {
        name: "packs-rebuild-grace",
        what: "the same, and packs that are dropped",
        runs: [2, 0, 1],
        rebuilds: true,
        left: Left { restores: 1, graces: 1, ..NOTHING },
        ..PUT
    },
    Bounds {
        name: "packs-again-two",
        what: "two stores that put twice",
        runs: [2, 1, 0],
        left: Left { expiries: 1, cuts: 1, graces: 1, ..NOTHING },
        ..PUT
    },
];

mutants! {
    MarksUnsynced "packs-put" "rows point at bytes that are not synced",
    JoinsSync "packs-put" "a put joins a sync that began before its write ended",
    ForgetsFailure "packs-put" "a failed write is forgotten, for the file is opened again to sync it",
    NoSyncDirectory "packs-put" "the directory of a new pack is not synced",
    SealsUnderWay "packs-put" "a writer seals its pack while bytes are under way",
    CreatesFirst "packs-expire" "a file is created before its row is inserted",
    MarksBlindly "packs-move-cut" "a mark or a move does not ask whether its pack is still writing, and its own",
    AppendsToFound "packs-expire" "a store appends to a pack that another one left",
    LooksUpEndFirst "packs-move-cut" "the last row of a found pack is looked up before its row is locked",
    CutsFirst "packs-move-cut" "the tail of a found pack is cut before its seal is committed",
    LeavesPacks "packs-expire" "the row of a writer goes, and its packs stay as they are",
    LooksBeforeLocking "packs-again" "a block is released that nothing referred to before its row was locked",
    PunchesUnsynced "packs-again" "a hole is punched before its transaction is synced",
    DropsReferenced "packs-again" "a sealed pack is dropped whatever points there",
    ForgetsPack "packs-again" "the row of a pack goes before its file",
    CommitsUnmarked "packs-fail-over" "a commit does not ask whether its blocks are stored",
    KeepsDamaged "packs-damage" "a mark keeps a place that its put found damaged",
    TrustsFound "packs-relaxed" "a pack that was found is not verified when it is sealed",
    TrustsWriting "packs-relaxed" "a put relies on a record of a pack that another store writes, by its header",
    SealsUnsynced "packs-relaxed" "a relaxed store seals a pack that is not synced",
    PunchesMoved "packs-move" "a move leaves a hole behind",
    DropsEarly "packs-move" "a pack is dropped before the grace is over",
    ReadsOnce "packs-move" "a reader calls a block damaged without asking where it is now",
    MovesUnsynced "packs-move-cut" "a relaxed store moves a record without a sync",
    RebuildsInPlace "packs-rebuild" "a rebuild makes the row point at the record that it found",
    TrustsRestored "packs-rebuild" "the packs of a restored database are still sealed, and their headers are trusted",
    RebuildsUnsynced "packs-rebuild-damage" "a rebuild says that it is done before its transaction is synced",
    ReadsHeader "packs-read" "a reader looks at a record's header alone",
}
