//! How much is tried, and the rules that are left out to see that it shows.

use std::fmt;

use super::state::PACKERS;
use crate::mutants::mutants;

#[derive(Debug)]
pub(crate) struct Bounds {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// Repacks into packs, of each process.
    pub(super) to_packs: [u8; PACKERS],
    /// Repacks into objects.
    pub(super) to_files: u8,
    pub(super) puts: u8,
    pub(super) reads: u8,
    pub(super) collections: u8,
    pub(super) damages: u8,
    pub(super) cuts: u8,
    /// It begins with an object beside a record that is damaged.
    pub(super) is_left: bool,
    /// The last moment.
    pub(super) end: u8,
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bounds { what, to_packs, to_files, puts, reads, collections, damages, cuts, .. } = self;
        write!(
            f,
            "{what}; repacks {to_packs:?} and {to_files}; {puts} puts; {reads} reads; {collections} collections; \
             {damages} damages; {cuts} power cuts"
        )
    }
}

const TWO: Bounds = Bounds {
    name: "moves-two",
    what: "objects: two repacks into packs beside one into objects, and a reader",
    to_packs: [1, 1],
    to_files: 1,
    puts: 0,
    reads: 1,
    collections: 0,
    damages: 0,
    cuts: 1,
    is_left: false,
    end: 4,
};

pub(crate) const SHORT_LEG: &[Bounds] = &[
    TWO,
    Bounds {
        name: "moves-put",
        what: "the same beside puts that find the record damaged",
        to_packs: [2, 0],
        puts: 2,
        reads: 0,
        damages: 1,
        cuts: 0,
        ..TWO
    },
    Bounds {
        name: "moves-gc",
        what: "a repack beside a collection and a put",
        to_packs: [1, 1],
        to_files: 0,
        puts: 1,
        reads: 0,
        collections: 1,
        cuts: 0,
        ..TWO
    },
    Bounds {
        name: "moves-left",
        what: "an object beside a record that is damaged",
        to_packs: [1, 1],
        to_files: 0,
        puts: 1,
        reads: 0,
        cuts: 0,
        is_left: true,
        ..TWO
    },
];

/// Checked when asked for by name.
pub(crate) const LONG_LEG: &[Bounds] = &[Bounds {
    name: "moves-all",
    what: "all of that",
    to_packs: [2, 1],
    puts: 2,
    collections: 1,
    damages: 1,
    ..TWO
}];

mutants! {
    SignsLate "moves-two" "the deletes of a repack are dated when they are sent, after a stall",
    LiftsUnanswered "moves-two" "the doom of a name is lifted although a delete got no answer",
    MovesPinned "moves-two" "a repack dooms the name of a block that a put under way refers to",
    MovesMoved "moves-two" "a repack into packs moves a row that has moved",
    MovesUnsent "moves-two" "a repack moves the row before the PUT of the pack was answered",
    MovesLazily "moves-two" "the transaction that moves the row is not synced before the deletes",
    NamesUnpinned "moves-two" "a repack into objects does not pin the block",
    NamesUnmarked "moves-two" "a repack into objects writes a name and leaves no mark, and dies",
    NamesDoomed "moves-two" "a repack into objects writes a name that is doomed",
    StealsNames "moves-two" "the doom of a name is replaced that has not ended",
    ReaderGivesUp "moves-two" "a reader that misses the bytes does not ask the row again",
    ReaderTrustsRow "moves-two" "a reader that misses the bytes gives up if the row says the same as before",
    HealsDoomed "moves-put" "a put that finds the record damaged writes a name that is doomed",
    MarkLifts "moves-put" "a put that writes the block into a pack lifts the doom of its name",
    ForgetsDoom "moves-two" "a repack moves a row without a doom of its name",
    ReleasesNames "moves-gc" "a row in a pack is released while its name is doomed",
    RemovesLast "moves-left" "an object is removed although the record beside it is damaged",
}
