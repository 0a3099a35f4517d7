//! The possible steps in a state, and the properties of every state.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use stateright::{Model, Property};

pub(crate) use crate::bounds::Mutant;
use crate::bounds::{Bounds, Deletion};
use crate::state::{
    ASIDE, BLOBS, BLOCKS, Blob, BlobState, Block, BlockSet, Bytes, COLLECTORS, Collection, Collector, Doom,
    Holder, Phase, Row, State, Verifier, WRITERS, Writer, block_name,
};

/// The protocol, or a mutant that lacks one of its rules.
#[derive(Debug)]
pub(crate) struct Protocol {
    pub(crate) bounds: &'static Bounds,
    pub(crate) mutant: Option<Mutant>,
    /// Whether states that differ only in the numbers of writers and collectors count as one.
    pub(crate) symmetric: bool,
    /// A property failed. The first failure has the shortest run, so later ones are not searched for.
    broken: AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Begin(usize),
    Pin(usize),
    Store(usize, usize),
    StoreReturns(usize, usize, bool),
    Mark(usize),
    Commit(usize, bool),
    Look(usize),
    CommitShort(usize, bool),
    Stop(usize),
    Doom(usize, BlockSet),
    MoveAside(usize, usize),
    Settle(usize),
    ActAside(usize, usize),
    Tidy(usize, usize, usize),
    Sweep(usize),
    DeleteBytes(usize, usize, bool),
    CommitSweep(usize),
    LoseSession(usize),
    Crash(usize),
    Unmark(usize),
    DoomRunsOut(usize),
    Delete(usize),
    Restore(usize),
    Expire(usize),
    Claim(usize),
    DropReference(usize, usize),
    DropRow(usize),
    Open(usize),
    Close(usize),
    Damage(usize, Bytes),
    Verify(usize),
    Clear,
    AbandonVerify,
    Adopt(usize),
}

impl Protocol {
    pub(crate) fn new(bounds: &'static Bounds, mutant: Option<Mutant>, symmetric: bool) -> Protocol {
        Protocol { bounds, mutant, symmetric, broken: AtomicBool::new(false) }
    }

    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// One step, without regard to symmetry.
    pub(crate) fn step(&self, state: &State, step: Step) -> Option<State> {
        match step {
            Step::Begin(writer) => self.begin(state, writer),
            Step::Pin(writer) => self.pin(state, writer),
            Step::Store(writer, block) => self.store(state, writer, block),
            Step::StoreReturns(writer, block, joined) => self.store_returns(state, writer, block, joined),
            Step::Mark(writer) => self.mark(state, writer),
            Step::Commit(writer, answered) => self.commit(state, writer, answered),
            Step::Look(writer) => self.look(state, writer),
            Step::CommitShort(writer, answered) => self.commit_short(state, writer, answered),
            Step::Stop(writer) => self.stop(state, writer),
            Step::Doom(collector, blocks) => self.doom(state, collector, blocks),
            Step::MoveAside(collector, block) => self.move_aside(state, collector, block),
            Step::Settle(collector) => self.settle(state, collector),
            Step::ActAside(collector, block) => self.act_aside(state, collector, block),
            Step::Tidy(collector, block, place) => self.tidy(state, collector, block, place),
            Step::Sweep(collector) => self.sweep(state, collector),
            Step::DeleteBytes(collector, block, happens) => {
                self.delete_bytes(state, collector, block, happens)
            }
            Step::CommitSweep(collector) => self.commit_sweep(state, collector),
            Step::LoseSession(collector) => self.lose_session(state, collector),
            Step::Crash(collector) => self.crash(state, collector),
            Step::Unmark(block) => self.unmark(state, block),
            Step::DoomRunsOut(block) => self.doom_runs_out(state, block),
            Step::Delete(place) => self.delete(state, place),
            Step::Restore(place) => self.restore(state, place),
            Step::Expire(place) => self.expire(state, place),
            Step::Claim(place) => self.claim(state, place),
            Step::DropReference(place, block) => self.drop_reference(state, place, block),
            Step::DropRow(place) => self.drop_row(state, place),
            Step::Open(place) => self.open(state, place),
            Step::Close(place) => self.close(state, place),
            Step::Damage(block, bytes) => self.damage(state, block, bytes),
            Step::Verify(block) => self.verify(state, block),
            Step::Clear => self.clear(state),
            Step::AbandonVerify => self.abandon_verify(state),
            Step::Adopt(block) => self.adopt(state, block),
        }
    }

    fn steps_of_writer(state: &State, writer: usize, steps: &mut Vec<Step>) {
        match state.writers[writer].phase {
            Phase::Idle => steps.extend([Step::Begin(writer), Step::Look(writer)]),
            Phase::NotInPlace => steps.extend([Step::Begin(writer), Step::Stop(writer)]),
            Phase::Short | Phase::Long | Phase::Looked => {
                steps.extend([Step::Pin(writer), Step::Mark(writer), Step::Stop(writer)]);
                for block in 0..BLOCKS {
                    steps.push(Step::Store(writer, block));
                    steps.extend([true, false].map(|joined| Step::StoreReturns(writer, block, joined)));
                }
                for answered in [true, false] {
                    steps.extend([Step::Commit(writer, answered), Step::CommitShort(writer, answered)]);
                }
            }
        }
    }

    fn steps_of_collector(state: &State, collector: usize, steps: &mut Vec<Step>) {
        match state.collectors[collector].phase {
            Collection::Idle | Collection::Looked(_) => {
                steps.extend(BlockSet::all().map(|blocks| Step::Doom(collector, blocks)));
                for (block, found) in state.blocks.iter().enumerate() {
                    let places = (0..ASIDE).filter(|place| found.aside[*place].is_some());
                    steps.extend(places.map(|place| Step::Tidy(collector, block, place)));
                }
            }
            Collection::Moving(_) => {
                steps.extend((0..BLOCKS).map(|block| Step::MoveAside(collector, block)));
                steps.extend([Step::Settle(collector), Step::Crash(collector)]);
            }
            Collection::Decided { .. } => {
                steps.extend((0..BLOCKS).map(|block| Step::ActAside(collector, block)));
                steps.push(Step::Crash(collector));
            }
            Collection::Doomed => steps.extend([Step::Sweep(collector), Step::Crash(collector)]),
            Collection::Sweeping(_) | Collection::Zombie(_) => {
                for block in 0..BLOCKS {
                    steps.extend([true, false].map(|happens| Step::DeleteBytes(collector, block, happens)));
                }
                let whole =
                    [Step::CommitSweep(collector), Step::LoseSession(collector), Step::Crash(collector)];
                steps.extend(whole);
            }
        }
    }

    fn steps_of_blob(blob: Blob, place: usize, steps: &mut Vec<Step>) {
        match blob.state {
            BlobState::Pending => {}
            BlobState::Live => steps.extend([Step::Delete(place), Step::Open(place)]),
            BlobState::Deleted => steps.extend([Step::Restore(place), Step::Claim(place)]),
            BlobState::Discarded => steps.push(Step::Restore(place)),
        }
        steps.extend([Step::Expire(place), Step::DropRow(place), Step::Close(place)]);
        steps.extend(blob.references.iter().map(|block| Step::DropReference(place, block)));
    }

    /// No live blob, and none that can be restored or is being read, lacks a row or bytes.
    fn is_whole(blob: Blob, blocks: &[Block; BLOCKS]) -> bool {
        let needed = match blob.state {
            BlobState::Live => blob.content.blocks(),
            _ if blob.reader => blob.content.blocks(),
            BlobState::Deleted => blob.references,
            BlobState::Pending | BlobState::Discarded => return true,
        };
        needed.iter().all(|index| {
            let block = &blocks[index];
            blob.references.contains(index) && block.row.is_some() && (block.has_good() || block.damaged)
        })
    }

    /// Reports the first failure only.
    fn holds(&self, holds: bool) -> bool {
        holds || self.broken.swap(true, Ordering::Relaxed)
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let absent =
            Block { row: None, lock: None, bytes: Bytes::Absent, aside: [None; ASIDE], damaged: false };
        let mut state = State {
            blocks: [absent; BLOCKS],
            blobs: [None; BLOBS],
            writers: [Writer {
                done: 0,
                phase: Phase::Idle,
                to_pin: BlockSet::NONE,
                to_store: BlockSet::NONE,
                storing: BlockSet::NONE,
                to_mark: BlockSet::NONE,
            }; WRITERS],
            collectors: [Collector { runs: 0, phase: Collection::Idle }; COLLECTORS],
            verifier: Verifier::Idle,
            damages: self.bounds.damages,
            acknowledged: 0,
            cleared_good: false,
        };
        for (place, content) in self.bounds.live.iter().enumerate() {
            let references = content.blocks();
            for block in references.iter() {
                let row = Some(Row { stored: true, candidate: false, doom: Doom::No });
                state.blocks[block] = Block { row, bytes: Bytes::Good(None), ..absent };
            }
            let (content, state_of) = (*content, BlobState::Live);
            state.acknowledged |= content.bit();
            state.blobs[place] = Some(Blob {
                state: state_of,
                content,
                references,
                owner: None,
                reader: false,
                seen_pending: false,
            });
        }
        vec![state.sorted()]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        for writer in 0..WRITERS {
            Protocol::steps_of_writer(state, writer, steps);
        }
        for collector in 0..COLLECTORS {
            Protocol::steps_of_collector(state, collector, steps);
        }
        for (place, blob) in state.blobs.iter().enumerate() {
            // Rows are sorted, so a row like the one before would do the same.
            if let Some(blob) = blob.filter(|_| place == 0 || state.blobs[place - 1] != *blob) {
                Protocol::steps_of_blob(blob, place, steps);
            }
        }
        for block in 0..BLOCKS {
            steps.extend([
                Step::Unmark(block),
                Step::DoomRunsOut(block),
                Step::Verify(block),
                Step::Adopt(block),
            ]);
            steps.extend([Bytes::Absent, Bytes::Garbage].map(|bytes| Step::Damage(block, bytes)));
        }
        steps.extend([Step::Clear, Step::AbandonVerify]);
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let next = self.step(state, step)?;
        if self.symmetric {
            let writers_alike = self.bounds.programs[0] == self.bounds.programs[1]
                && self.bounds.short_path[0] == self.bounds.short_path[1];
            let collectors_alike = self.bounds.collections[0] == self.bounds.collections[1];
            Some(next.representative(writers_alike, collectors_alike))
        } else {
            Some(next.sorted())
        }
    }

    fn properties(&self) -> Vec<Property<Protocol>> {
        vec![
            Property::always(
                "what is live, restorable or being read has its blocks",
                |model: &Protocol, state: &State| {
                    let whole = state.blobs().all(|blob| Protocol::is_whole(*blob, &state.blocks));
                    model.holds(whole)
                },
            ),
            Property::always("what a row calls stored is there", |model: &Protocol, state: &State| {
                let there = |block: &Block| {
                    !block.row.is_some_and(|row| row.stored) || block.has_good() || block.damaged
                };
                model.holds(state.blocks.iter().all(there))
            }),
            Property::always(
                "what was acknowledged is live until it is deleted",
                |model: &Protocol, state: &State| {
                    let live = state.blobs().filter(|blob| blob.state == BlobState::Live);
                    let live = live.fold(0, |set, blob| set | blob.content.bit());
                    model.holds(state.acknowledged & !live == 0)
                },
            ),
            Property::always("no transaction is open over a deletion", |model: &Protocol, state: &State| {
                let held = |block: &Block| matches!(block.lock, Some(Holder::Collector(_)));
                let swept = model.bounds.deletion == Deletion::Swept;
                model.holds(swept || !state.blocks.iter().any(held))
            }),
            Property::always("verify leaves good blocks alone", |model: &Protocol, state: &State| {
                model.holds(!state.cleared_good)
            }),
            Property::always(
                "a collection alone leaves what is referenced and nothing else",
                |model: &Protocol, state: &State| model.holds(model.collects_cleanly(state)),
            ),
        ]
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lost = |answered: bool| if answered { "" } else { ", and the answer is lost" };
        match *self {
            Step::Begin(writer) => write!(f, "writer {writer} begins"),
            Step::Pin(writer) => write!(f, "writer {writer} pins its next block"),
            Step::Store(writer, block) => write!(f, "writer {writer} stores {}", block_name(block)),
            Step::StoreReturns(writer, block, joined) => {
                let whom = if joined { "whoever joined" } else { "its own" };
                write!(f, "the store of {} by writer {writer} returns to {whom}", block_name(block))
            }
            Step::Mark(writer) => write!(f, "writer {writer} marks what it has stored"),
            Step::Commit(writer, answered) => write!(f, "writer {writer} commits{}", lost(answered)),
            Step::Look(writer) => write!(f, "writer {writer}, short path: looks what is there"),
            Step::CommitShort(writer, answered) => {
                write!(f, "writer {writer}, short path: commits{}", lost(answered))
            }
            Step::Stop(writer) => write!(f, "writer {writer} stops"),
            Step::Doom(collector, blocks) => write!(f, "collector {collector} dooms {blocks}"),
            Step::MoveAside(collector, block) => {
                write!(f, "collector {collector} moves the file of {} aside", block_name(block))
            }
            Step::Settle(collector) => write!(f, "collector {collector} looks at the rows again"),
            Step::ActAside(collector, block) => {
                write!(f, "collector {collector} unlinks the file of {}, or moves it back", block_name(block))
            }
            Step::Tidy(collector, block, place) => {
                let block = block_name(block);
                write!(f, "collector {collector} looks at the row of {block} for .doomed/{place}")
            }
            Step::Sweep(collector) => write!(f, "collector {collector} begins to delete what it doomed"),
            Step::DeleteBytes(collector, block, true) => {
                write!(f, "collector {collector} deletes the bytes of {}", block_name(block))
            }
            Step::DeleteBytes(collector, block, false) => {
                write!(f, "collector {collector} gives up {}", block_name(block))
            }
            Step::CommitSweep(collector) => write!(f, "collector {collector} commits its sweep"),
            Step::LoseSession(collector) => write!(f, "collector {collector} loses its session, and goes on"),
            Step::Crash(collector) => write!(f, "collector {collector} crashes"),
            Step::Unmark(block) => write!(f, "a collector finds {} referenced", block_name(block)),
            Step::DoomRunsOut(block) => write!(f, "the doom of {} runs out", block_name(block)),
            Step::Delete(place) => write!(f, "blob row {place} is deleted"),
            Step::Restore(place) => write!(f, "blob row {place} is restored"),
            Step::Expire(place) => write!(f, "blob row {place} expires"),
            Step::Claim(place) => write!(f, "blob row {place} loses its id"),
            Step::DropReference(place, block) => {
                write!(f, "blob row {place} loses its reference to {}", block_name(block))
            }
            Step::DropRow(place) => write!(f, "blob row {place} goes"),
            Step::Open(place) => write!(f, "a reader opens blob row {place}"),
            Step::Close(place) => write!(f, "the reader of blob row {place} is done"),
            Step::Damage(block, bytes) => write!(f, "DAMAGE: {} is {bytes:?}", block_name(block)),
            Step::Verify(block) => write!(f, "verify finds {} damaged", block_name(block)),
            Step::Clear => write!(f, "verify clears stored"),
            Step::AbandonVerify => write!(f, "verify crashes"),
            Step::Adopt(block) => write!(f, "verify adopts {}", block_name(block)),
        }
    }
}
