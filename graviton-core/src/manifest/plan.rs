//! Plans a grouped commit: the decisions only. A database carries them out.
//!
//! Every condition is looked up first, in one query under the transaction's locks. A member whose condition
//! does not hold drops out, and the others continue, so that one bad member never costs the group its sync.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::batch::{Batch, Row};
use super::sql::{self, Sql};
use super::{BlobRow, BlockRow, Commit, Committed, HeldPack, ManifestEntry, Mark};
use crate::key::{BlobId, BlockKey};
use crate::place::Place;

/// States of a blob row.
pub(super) const PENDING: i64 = 0;
pub(super) const LIVE: i64 = 1;

/// The members of a group, and the rows that have to be looked up for them.
pub(super) struct Plan<'a> {
    commits: &'a [Commit],
    rows: Vec<BlobRow>,
    ids: Vec<BlobId>,
    keys: Vec<BlockKey>,
    /// Blocks of pending blobs that are to be marked.
    blocks: Vec<BlockRow>,
}

/// The answer of the query.
#[derive(Default)]
pub(super) struct Facts {
    /// Pending rows, and how many references they have.
    pending: HashMap<BlobRow, u64>,
    /// Rows that an earlier attempt made live.
    committed: HashSet<BlobRow>,
    live: HashSet<BlobId>,
    /// Whether the row says `stored`, and whether it is doomed.
    blocks: HashMap<BlockKey, (bool, bool)>,
    /// The packs that their writers hold.
    held: HashSet<HeldPack>,
    /// Whether the store holds blocks that are not durable.
    pub(super) relaxed: bool,
}

impl Facts {
    /// The fact that these packs are held.
    pub(super) fn of(held: HashSet<HeldPack>) -> Facts {
        Facts { held, ..Facts::default() }
    }

    /// Forgets what the rows of these blocks say.
    pub(super) fn disregard<'k>(&mut self, keys: impl IntoIterator<Item = &'k BlockKey>) {
        for key in keys {
            self.blocks.remove(key);
        }
    }
}

/// The changes to make.
#[derive(Default)]
pub(super) struct Changes<'a> {
    marks: Vec<Mark>,
    pinned: Vec<(BlobRow, BlobId, u64)>,
    again: Vec<BlobRow>,
    whole: Vec<&'a Commit>,
    /// Blocks that are in place and whose rows do not say `stored`, with their places.
    stored: BTreeMap<BlockKey, Option<Place>>,
    /// Blocks whose rows say `stored` and that were found damaged in a pack: their new places, and the
    /// damaged ones.
    healed: BTreeMap<BlockKey, (Option<Place>, Place)>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(commits: &'a [Commit]) -> Plan<'a> {
        let mut plan =
            Plan { commits, rows: Vec::new(), ids: Vec::new(), keys: Vec::new(), blocks: Vec::new() };
        for commit in commits {
            match commit {
                Commit::Pinned { row, id, marks, .. } => {
                    plan.blocks.extend(marks.iter().map(|mark| mark.row));
                    plan.rows.push(*row);
                    plan.ids.push(*id);
                }
                Commit::Whole { id, entries, .. } => {
                    plan.ids.push(*id);
                    plan.keys.extend(entries.iter().map(|entry| entry.key));
                }
            }
        }
        // Every transaction locks blocks in this order.
        plan.keys.sort_unstable();
        plan.keys.dedup();
        plan
    }

    /// The batches to lock where others write at the same time: one of blocks, one of blobs.
    pub(super) fn to_lock(&self) -> (String, String) {
        let blocks = Batch::new().numbers("blocks", self.blocks.iter().map(|row| row.0)).rows(
            "keys",
            &self.keys,
            Row::key,
        );
        (blocks.finish(), Batch::new().numbers("rows", self.rows.iter().map(|row| row.0)).finish())
    }

    pub(super) fn has_blocks(&self) -> bool {
        !self.blocks.is_empty() || self.has_keys()
    }

    pub(super) fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    pub(super) fn has_rows(&self) -> bool {
        !self.rows.is_empty()
    }

    /// The packs that the blocks of the commits are in, each once.
    pub(super) fn packs(&self) -> Vec<HeldPack> {
        HeldPack::each_once(self.commits.iter().flat_map(Commit::packs))
    }

    /// The arguments of [`sql::CHECK`].
    pub(super) fn question(&self) -> String {
        Batch::new()
            .numbers("rows", self.rows.iter().map(|row| row.0))
            .rows("ids", &self.ids, Row::id)
            .rows("keys", &self.keys, Row::key)
            .finish()
    }

    /// Records one row of the answer.
    pub(super) fn learn(&self, facts: &mut Facts, what: i64, place: usize, first: i64, second: i64) {
        match what {
            0 if first == PENDING => drop(facts.pending.insert(self.rows[place], second as u64)),
            0 if first == LIVE => drop(facts.committed.insert(self.rows[place])),
            1 => drop(facts.live.insert(self.ids[place])),
            2 => drop(facts.blocks.insert(self.keys[place], (first != 0, second != 0))),
            3 => facts.relaxed = first != 0,
            _ => {}
        }
    }

    pub(super) fn decide(&self, facts: &Facts) -> (Vec<Committed>, Changes<'a>) {
        let mut changes = Changes::default();
        let mut live = facts.live.clone();
        let outcome = self
            .commits
            .iter()
            .map(|commit| match commit {
                // It was committed before, and the answer was lost.
                Commit::Pinned { row, .. } if facts.committed.contains(row) => Committed::Created,
                Commit::Pinned { row, id, .. } if !facts.pending.contains_key(row) && live.contains(id) => {
                    Committed::Existed
                }
                // A database that replaced another one during this put may have only the first of its pins.
                Commit::Pinned { row, block_count, .. } if facts.pending.get(row) != Some(block_count) => {
                    Committed::Expired
                }
                Commit::Pinned { packs, .. } if packs.iter().any(|pack| !facts.held.contains(pack)) => {
                    Committed::Expired
                }
                Commit::Pinned { row, id, block_count, marks, .. } => {
                    changes.marks.extend(marks);
                    if live.insert(*id) {
                        changes.pinned.push((*row, *id, *block_count));
                        Committed::Created
                    } else {
                        changes.again.push(*row);
                        Committed::Existed
                    }
                }
                Commit::Whole { id, entries, .. } if live.contains(id) => {
                    // A block without a row is not a block of this blob, which was cut differently.
                    for entry in entries.iter().filter(|entry| facts.blocks.contains_key(&entry.key)) {
                        if let Some(change) = change_of(commit, entry.key, facts) {
                            changes.add(entry.key, change);
                        }
                    }
                    Committed::Existed
                }
                Commit::Whole { id, entries, .. } => {
                    // Each block is checked once: another put may replace the file between two checks.
                    let proven: Option<Vec<Change>> =
                        entries.iter().map(|entry| change_of(commit, entry.key, facts)).collect();
                    let Some(proven) = proven else { return Committed::NotInPlace };
                    for (entry, change) in entries.iter().zip(proven) {
                        changes.add(entry.key, change);
                    }
                    live.insert(*id);
                    changes.whole.push(commit);
                    Committed::Created
                }
            })
            .collect();
        (outcome, changes)
    }
}

/// Where this small blob has durably written the block: in a pack that is held, or under its own name
/// (`Some(None)`).
#[expect(clippy::option_option, reason = "a block is nowhere, under its own name, or at a place in a pack")]
fn place_of(commit: &Commit, key: BlockKey, facts: &Facts) -> Option<Option<Place>> {
    let Commit::Whole { in_place, packed, .. } = commit else { return None };
    match packed.get(&key).and_then(|packed| packed.place) {
        Some((place, held)) => facts.held.contains(&held).then_some(Some(place)),
        None => in_place(&key).then_some(None),
    }
}

/// A statement of a commit.
pub(super) struct Statement {
    pub(super) sql: Sql,
    /// How many rows it must change: with fewer, a blob would be live with a hole.
    pub(super) rows: Option<usize>,
}

/// The change to the row of a block.
#[derive(Debug, Clone, Copy)]
enum Change {
    /// The row says `stored`, and stays as it is.
    None,
    /// The block becomes stored: in a pack, or under its own name.
    Stored(Option<Place>),
    /// The block gets the first place. The second one is where it was found damaged.
    Healed(Option<Place>, Place),
}

/// The change to the row of a block that this small blob references; `None` if it cannot rely on the block.
fn change_of(commit: &Commit, key: BlockKey, facts: &Facts) -> Option<Change> {
    let Commit::Whole { packed, .. } = commit else { return None };
    match facts.blocks.get(&key) {
        Some((_, true)) => None,
        Some((true, false)) => {
            let found = packed.get(&key).and_then(|packed| packed.found);
            let healed = found.and_then(|found| Some(Change::Healed(place_of(commit, key, facts)?, found)));
            Some(healed.unwrap_or(Change::None))
        }
        Some((false, false)) | None => place_of(commit, key, facts).map(Change::Stored),
    }
}

impl Changes<'_> {
    fn add(&mut self, key: BlockKey, change: Change) {
        match change {
            Change::None => {}
            Change::Stored(place) => drop(self.stored.entry(key).or_insert(place)),
            Change::Healed(place, found) => drop(self.healed.entry(key).or_insert((place, found))),
        }
    }

    /// The statements to run, in the order in which rows are locked, and the batch that all of them take as
    /// argument.
    pub(super) fn statements(&self) -> (Vec<Statement>, String) {
        let mut statements = Vec::new();
        let mut run = |sql, rows| statements.push(Statement { sql, rows });
        let mut batch = Batch::new();
        if !self.stored.is_empty() {
            batch = batch.rows("keys", &self.stored, |row, (key, place)| {
                row.key(key);
                row.place(place.as_ref());
            });
            run(sql::COMMIT_BLOCKS, None);
        }
        if !self.healed.is_empty() {
            batch = batch.rows("healed", &self.healed, |row, (key, (place, found))| {
                row.key(key);
                row.place(place.as_ref());
                row.found(Some(found));
            });
            run(sql::COMMIT_HEALED, None);
        }
        if !self.marks.is_empty() {
            batch = batch.rows("marks", &self.marks, Row::mark);
            run(sql::MARK_STORED, None);
        }
        if !self.pinned.is_empty() {
            batch = batch.rows("live", &self.pinned, |values, (row, id, block_count)| {
                values.id(id);
                values.number(row.0);
                values.number(*block_count as i64);
            });
            run(sql::COMMIT_PINNED, Some(self.pinned.len()));
        }
        if !self.again.is_empty() {
            batch = batch.numbers("again", self.again.iter().map(|row| row.0));
            run(sql::COMMIT_AGAIN, None);
        }
        if !self.whole.is_empty() {
            batch = batch.rows("ids", self.wholes(), |row, (id, chunker, entries)| {
                row.id(id);
                row.number(entries.len() as i64);
                row.text(chunker);
            });
            let references =
                self.wholes().flat_map(|(id, _, entries)| entries.iter().map(move |entry| (id, entry)));
            batch = batch.rows("references", references, |row, (id, entry)| {
                row.id(id);
                row.number(entry.offset as i64);
                row.key(&entry.key);
            });
            run(sql::COMMIT_BLOBS, Some(self.whole.len()));
            run(sql::COMMIT_REFERENCES, Some(self.wholes().map(|(_, _, entries)| entries.len()).sum()));
        }
        (statements, batch.finish())
    }

    fn wholes(&self) -> impl Iterator<Item = (&BlobId, &str, &[ManifestEntry])> {
        self.whole.iter().filter_map(|commit| match commit {
            Commit::Whole { id, chunker, entries, .. } => Some((id, chunker.as_ref(), entries.as_ref())),
            Commit::Pinned { .. } => None,
        })
    }
}
