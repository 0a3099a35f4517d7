//! The state at one moment: rows, bytes, and the progress of every process.
//!
//! Small and `Copy`, because there are millions of states. Values that no longer make a difference are made
//! equal (a doom whose collector is gone, a file whose writer has moved on), so that they count as one state.

use std::fmt;

pub(crate) const BLOCKS: usize = 2;
pub(crate) const WRITERS: usize = 2;
pub(crate) const COLLECTORS: usize = 2;
/// The most rows of blobs at the same time.
pub(crate) const BLOBS: usize = 5;

/// Names of one block in `.doomed`: one for each collection.
pub(crate) const ASIDE: usize = 3;
/// The number of a collector whose collection is over.
pub(crate) const GONE: u8 = u8::MAX;

/// A set of blocks, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct BlockSet(u8);

impl BlockSet {
    pub(crate) const NONE: BlockSet = BlockSet(0);

    pub(crate) fn contains(self, block: usize) -> bool {
        self.0 & 1 << block != 0
    }

    pub(crate) fn insert(&mut self, block: usize) {
        self.0 |= 1 << block;
    }

    pub(crate) fn remove(&mut self, block: usize) {
        self.0 &= !(1 << block);
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        (0..BLOCKS).filter(move |block| self.contains(*block))
    }

    /// All sets of blocks but the empty one.
    pub(crate) fn all() -> impl Iterator<Item = BlockSet> {
        (1..1 << BLOCKS).map(BlockSet)
    }
}

impl FromIterator<usize> for BlockSet {
    fn from_iter<I: IntoIterator<Item = usize>>(blocks: I) -> BlockSet {
        let mut set = BlockSet::NONE;
        blocks.into_iter().for_each(|block| set.insert(block));
        set
    }
}

impl fmt::Display for BlockSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|block| write!(f, "{}", block_name(block)))
    }
}

pub(crate) fn block_name(block: usize) -> char {
    char::from(b'A' + block as u8)
}

/// The content of a blob; it stands for the blob's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Content {
    A,
    B,
    Both,
}

impl Content {
    pub(crate) fn blocks(self) -> BlockSet {
        match self {
            Content::A => BlockSet(0b01),
            Content::B => BlockSet(0b10),
            Content::Both => BlockSet(0b11),
        }
    }

    pub(crate) fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A block: its row, if it has one, and the bytes under its name in the block store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Block {
    pub(crate) row: Option<Row>,
    /// The holder of the row's lock over several steps. All other transactions are one step.
    pub(crate) lock: Option<Holder>,
    pub(crate) bytes: Bytes,
    /// In `.doomed`.
    pub(crate) aside: [Option<Bytes>; ASIDE],
    /// Something outside the protocol damaged the bytes, and they have not been written again.
    pub(crate) damaged: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) stored: bool,
    pub(crate) candidate: bool,
    pub(crate) doom: Doom,
}

/// `doomed_by` and `doomed_until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Doom {
    No,
    /// By a collection that has ended in an unknown way; only the waiting time remains.
    ByNobody,
    By {
        collector: u8,
        /// The time in `doomed_until` has come.
        over: bool,
    },
}

impl Doom {
    /// Whether a put must heed it.
    pub(crate) fn holds(self) -> bool {
        matches!(self, Doom::ByNobody | Doom::By { over: false, .. })
    }

    pub(crate) fn is_by(self, who: usize) -> bool {
        matches!(self, Doom::By { collector, .. } if usize::from(collector) == who)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Holder {
    Collector(u8),
    Verifier,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Bytes {
    Absent,
    Garbage,
    /// Whole; with this writer if it wants to recognise its own file later.
    Good(Option<u8>),
}

impl Bytes {
    pub(crate) fn are_good(self) -> bool {
        matches!(self, Bytes::Good(_))
    }
}

/// The row of a blob, and its references.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Blob {
    pub(crate) state: BlobState,
    pub(crate) content: Content,
    pub(crate) references: BlockSet,
    /// The writer whose put began it and does not know yet that it is no longer pending.
    pub(crate) owner: Option<u8>,
    /// A reader opened it when it was live, and may still read any of its blocks. That allows more than
    /// reading one block after the other.
    pub(crate) reader: bool,
    /// Only in the mutant whose expiry acts on an earlier look.
    pub(crate) seen_pending: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum BlobState {
    Pending,
    Live,
    /// State 2, with its id: in its grace, can be restored.
    Deleted,
    /// State 2, without an id: a put that failed, expired or put a blob that was live already; or a deleted
    /// blob after its grace. It is being reaped, and never comes back.
    Discarded,
}

/// An open store that puts, one blob of its program after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Writer {
    /// The number of finished puts of its program.
    pub(crate) done: u8,
    pub(crate) phase: Phase,
    pub(crate) to_pin: BlockSet,
    pub(crate) to_store: BlockSet,
    /// Only in the mutant with shared stores: under the name, but the store has not returned yet.
    pub(crate) storing: BlockSet,
    /// Written, but as far as the writer knows, the pinned row does not say `stored` yet.
    pub(crate) to_mark: BlockSet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Phase {
    Idle,
    /// Writing, then committing in one transaction.
    Short,
    /// The short path was not possible.
    NotInPlace,
    /// Pinning, storing and marking side by side, then committing.
    Long,
    /// Only in mutants that look too early: the conditions of the next transaction held at that look.
    Looked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Collector {
    /// Collections begun.
    pub(crate) runs: u8,
    pub(crate) phase: Collection,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Collection {
    Idle,
    /// Only in the mutant that looks up references before it locks: these had none.
    Looked(BlockSet),
    /// The doom is committed. The rows say which blocks are doomed.
    Doomed,
    /// These files must still be moved to `.doomed`; then the row is read.
    Moving(BlockSet),
    /// The rows were read. Of the files of this name in `.doomed`, these are unlinked and those move back.
    Decided {
        place: u8,
        unlink: BlockSet,
        restore: BlockSet,
    },
    /// In the second transaction or, where deletes are requests, before it. The rows say which blocks are
    /// locked; their bytes must still be deleted.
    Sweeping(BlockSet),
    /// The transaction is over or lost, and these deletions may still happen.
    Zombie(BlockSet),
}

impl Collection {
    /// Whether a deletion of these bytes may still happen.
    pub(crate) fn may_delete(self, block: usize) -> bool {
        matches!(self, Collection::Sweeping(left) | Collection::Zombie(left) if left.contains(block))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Verifier {
    Idle,
    /// It has read the bytes of this block and found them damaged or missing.
    FoundDamaged(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) blocks: [Block; BLOCKS],
    /// Sorted, because the order of rows does not matter.
    pub(crate) blobs: [Option<Blob>; BLOBS],
    pub(crate) writers: [Writer; WRITERS],
    pub(crate) collectors: [Collector; COLLECTORS],
    pub(crate) verifier: Verifier,
    pub(crate) damages: u8,
    /// Contents whose put or restore has returned, and that were not deleted since.
    pub(crate) acknowledged: u8,
    /// Verify has cleared `stored` of a block that was good.
    pub(crate) cleared_good: bool,
}

impl Block {
    /// Whether there are good bytes somewhere.
    pub(crate) fn has_good(&self) -> bool {
        self.bytes.are_good() || self.aside.iter().flatten().any(|bytes| bytes.are_good())
    }

    pub(crate) fn files(&mut self) -> impl Iterator<Item = &mut Bytes> {
        std::iter::once(&mut self.bytes).chain(self.aside.iter_mut().flatten())
    }
}

impl State {
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.blobs.iter().flatten()
    }

    pub(crate) fn is_live(&self, content: Content) -> bool {
        self.blobs().any(|blob| blob.state == BlobState::Live && blob.content == content)
    }

    pub(crate) fn is_referenced(&self, block: usize) -> bool {
        self.blobs().any(|blob| blob.references.contains(block))
    }

    pub(crate) fn is_locked(&self, block: usize) -> bool {
        self.blocks[block].lock.is_some()
    }

    pub(crate) fn any_locked(&self, blocks: BlockSet) -> bool {
        blocks.iter().any(|block| self.is_locked(block))
    }

    pub(crate) fn row(&mut self, block: usize) -> Option<&mut Row> {
        self.blocks[block].row.as_mut()
    }

    /// The blob of this writer's current put, if its row still exists.
    pub(crate) fn own(&mut self, writer: usize) -> Option<&mut Blob> {
        self.blobs.iter_mut().flatten().find(|blob| blob.owner == Some(writer as u8))
    }

    /// `None` if there are more rows of blobs than the bounds allow.
    pub(crate) fn insert(&mut self, blob: Blob) -> Option<()> {
        *self.blobs.iter_mut().find(|place| place.is_none())? = Some(blob);
        Some(())
    }

    /// The same state with the rows of blobs in order.
    pub(crate) fn sorted(mut self) -> State {
        self.blobs.sort_unstable();
        self
    }

    /// The same state with writers and collectors in order, if they have the same work.
    pub(crate) fn representative(mut self, writers_alike: bool, collectors_alike: bool) -> State {
        if writers_alike && self.order_of_writer(0) > self.order_of_writer(1) {
            self.writers.swap(0, 1);
            for blob in self.blobs.iter_mut().flatten() {
                blob.owner = blob.owner.map(other);
            }
            for block in &mut self.blocks {
                for bytes in block.files() {
                    if let Bytes::Good(Some(writer)) = bytes {
                        *writer = other(*writer);
                    }
                }
            }
        }
        if collectors_alike && self.collectors[0] > self.collectors[1] {
            self.collectors.swap(0, 1);
            for collector in &mut self.collectors {
                if let Collection::Decided { place, .. } = &mut collector.phase {
                    *place = other(*place);
                }
            }
            for block in &mut self.blocks {
                block.aside.swap(0, 1);
                if let Some(Holder::Collector(collector)) = &mut block.lock {
                    *collector = other(*collector);
                }
                if let Some(Row { doom: Doom::By { collector, .. }, .. }) = &mut block.row
                    && *collector != GONE
                {
                    *collector = other(*collector);
                }
            }
        }
        self.sorted()
    }

    fn order_of_writer(&self, writer: u8) -> (Writer, Option<Blob>, [[bool; ASIDE + 1]; BLOCKS]) {
        let own = self.blobs().find(|blob| blob.owner == Some(writer));
        let own_file = Bytes::Good(Some(writer));
        let files = self.blocks.map(|block| {
            let [first, second, third] = block.aside.map(|aside| aside == Some(own_file));
            [block.bytes == own_file, first, second, third]
        });
        (self.writers[usize::from(writer)], own.map(|blob| Blob { owner: None, ..*blob }), files)
    }
}

/// The other of two.
fn other(one: u8) -> u8 {
    1 - one
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, block) in self.blocks.iter().enumerate() {
            write!(f, "block {}: {:?}", block_name(index), block.bytes)?;
            for (place, bytes) in block.aside.iter().enumerate() {
                bytes.map_or(Ok(()), |bytes| write!(f, ", .doomed/{place} {bytes:?}"))?;
            }
            match block.row {
                None => write!(f, ", no row")?,
                Some(Row { stored, candidate, doom }) => {
                    write!(f, ", stored {stored}, candidate {candidate}, doom {doom:?}")?;
                }
            }
            writeln!(f, "{}", if block.damaged { ", damaged" } else { "" })?;
        }
        for blob in self.blobs() {
            writeln!(f, "blob {}: {:?}, references {}", blob.content.blocks(), blob.state, blob.references)?;
        }
        Ok(())
    }
}
