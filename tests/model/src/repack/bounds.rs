//! The extent of the search, and the rules that mutants leave out to see that a property fails.

#![allow(clippy::enum_variant_names, reason = "a mutant's name is unique among those of all models")]

use std::fmt;

use super::state::PACKERS;
use crate::mutants::mutants;

#[derive(Debug)]
pub(crate) struct Bounds {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// Repacks into packs, for each process.
    pub(super) to_packs: [u8; PACKERS],
    /// Repacks into files.
    pub(super) to_files: u8,
    pub(super) puts: u8,
    pub(super) compactions: u8,
    pub(super) damages: u8,
    pub(super) cuts: u8,
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bounds { what, to_packs, to_files, puts, damages, cuts, .. } = self;
        write!(
            f,
            "{what}; repacks {to_packs:?} and {to_files}; {puts} puts; {damages} damages; {cuts} power cuts"
        )
    }
}

const TWO: Bounds = Bounds {
    name: "repack-two",
    what: "two repacks into packs beside one into files",
    to_packs: [1, 1],
    to_files: 1,
    puts: 0,
    compactions: 0,
    damages: 0,
    cuts: 1,
};

pub(crate) const SHORT_LEG: &[Bounds] = &[
    TWO,
    Bounds {
        name: "repack-put",
        what: "the same beside puts that find the record damaged",
        puts: 2,
        damages: 1,
        cuts: 0,
        ..TWO
    },
    Bounds {
        name: "repack-move",
        what: "a repack to and fro beside a compaction",
        to_packs: [2, 0],
        compactions: 1,
        puts: 1,
        ..TWO
    },
];

/// Checked only by name.
pub(crate) const LONG_LEG: &[Bounds] = &[Bounds {
    name: "repack-all",
    what: "all of that, and two repacks into files",
    to_files: 2,
    puts: 2,
    compactions: 1,
    damages: 1,
    ..TWO
}];

mutants! {
    RepackUnlinksAtOnce "repack-two" "a repack unlinks the name instead of setting the file aside",
    RepackUnlinksBlindly "repack-two" "a repack unlinks what it set aside without a look at the row",
    RepackForgetsPins "repack-two" "a file that was set aside goes although a put under way refers to its block",
    RepackMovesPinned "repack-two" "a repack dooms the name of a block that a put under way refers to",
    RepackMovesMoved "repack-two" "a repack into packs moves a row that has moved",
    RepackMovesUnsynced "repack-two" "the transaction of a repack is not synced before the deletion",
    RepackPinsNothing "repack-two" "a repack into files does not pin the block",
    RepackPublishesUnsynced "repack-two" "a repack into files moves the row before the name is synced",
    RepackIgnoresMoves "repack-move" "a repack into files moves a row that a compaction has moved",
    RepackKeepsDoom "repack-put" "a put that names the block leaves the doom of its name",
}
