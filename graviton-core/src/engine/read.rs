//! Reads a blob: its blocks in order, each verified before any of its bytes is returned.
//!
//! The manifest is read in windows, each with its own query, so that nothing is locked or held between them
//! and no reader holds a whole manifest. Blocks are fetched ahead, more the longer the reads are sequential,
//! and verified in parallel. A seek costs one block, or, over a network and without verification, only the
//! requested part of it.
//!
//! A gap in the manifest and a block that is missing, too short, too long or altered are errors that name the
//! block and the blob. They are never the end of the stream.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use async_recursion::async_recursion as boxed;
use bytes::Bytes;
use tokio::sync::oneshot;

use super::core::{Core, not_found};
use super::fetch::{Fetching, Piece, fetch, fetch_in_task, fetch_moved, fetch_together, verified};
use super::pack::read::Run;
use crate::blocking::{self, Task};
use crate::error::{Code, Error, Result};
use crate::key::BlobId;
use crate::manifest::{BlobRecord, PlacedEntry};
use crate::runtime;

/// Entries of the manifest that come with the first query, with the first one after a seek, and with later
/// ones at most: each brings twice as many as the one before.
pub(super) const FIRST_ENTRIES: usize = 64;
const ENTRIES_AFTER_JUMP: usize = 4;
const MOST_ENTRIES: usize = 512;

/// The most bytes and blocks that are fetched ahead: small blocks are many files. Over a network more,
/// because an answer takes time; with the largest blocks, fetched and returned blocks together are 64 MiB.
const AHEAD_BYTES: u64 = 4 << 20;
const AHEAD_BYTES_REMOTE: u64 = 32 << 20;
const AHEAD_BLOCKS: usize = 64;

/// Neighbours in an object are read together, up to this many bytes of the blob.
const TOGETHER_BYTES: u64 = 8 << 20;

/// A local blob of up to this many bytes is looked up and read at once on the calling thread if it is in
/// memory, and otherwise as one piece of work: handing work to another thread and back takes longer than
/// either.
const SMALL: u64 = 64 << 10;

/// Reads one blob, from its start or any other position.
///
/// Reading continues for the grace (`GRAVITON_GC_GRACE`) after the blob was deleted. After an error, the
/// reader returns the same error until [`seek`](BlobReader::seek) moves it.
#[derive(Debug)]
pub struct BlobReader {
    core: Arc<Core>,
    record: BlobRecord,
    position: u64,
    /// The blob is read up to this offset.
    end: u64,
    /// Manifest entries after those that are being fetched, in order.
    entries: VecDeque<PlacedEntry>,
    /// How many entries the next query asks for.
    window: usize,
    /// The offset at which the next entry must start.
    next_entry: u64,
    ahead: VecDeque<(Piece, Fetching)>,
    /// How many bytes may be fetched ahead: grows while the reads are sequential.
    allowance: u64,
    /// The limit of the growth.
    most_ahead: u64,
    /// The position was reached by a seek: whether reads are sequential from there is not known yet.
    jumped: bool,
    /// The piece that contains the position, or contained it last.
    current: Option<(Piece, Bytes)>,
    failed: Option<Error>,
}

impl BlobReader {
    pub(super) fn new(core: &Arc<Core>, record: BlobRecord, entries: Vec<PlacedEntry>) -> BlobReader {
        BlobReader {
            core: Arc::clone(core),
            end: record.id.size(),
            record,
            position: 0,
            entries: entries.into(),
            window: 2 * FIRST_ENTRIES,
            next_entry: 0,
            ahead: VecDeque::new(),
            allowance: 0,
            most_ahead: if core.blocks.is_local() { AHEAD_BYTES } else { AHEAD_BYTES_REMOTE },
            jumped: false,
            current: None,
            failed: None,
        }
    }

    /// A reader of the same blob, at its start.
    pub(crate) fn another(&self) -> BlobReader {
        BlobReader {
            window: ENTRIES_AFTER_JUMP,
            ..BlobReader::new(&self.core, self.record.clone(), Vec::new())
        }
    }

    /// Whether the byte at this offset is in memory.
    pub(crate) fn holds(&self, offset: u64) -> bool {
        self.current.as_ref().is_some_and(|(piece, _)| piece.range.contains(&offset))
    }

    /// The blob that is read.
    pub fn id(&self) -> &BlobId {
        &self.record.id
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.record.id.size()
    }

    /// How many blocks it has.
    pub fn blocks(&self) -> u64 {
        self.record.block_count
    }

    /// The offset of the next byte.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Moves to this offset; beyond the end there is nothing to read. Costs nothing by itself.
    pub fn seek(&mut self, position: u64) {
        self.position = position;
        self.failed = None;
    }

    /// Ends reading at this offset: no block after it is fetched.
    pub fn limit(&mut self, end: u64) {
        self.end = end.min(self.size());
    }

    /// Limits the bytes that are fetched ahead to about `most`, and never raises the usual limit. For
    /// programs with many readers and little memory.
    pub fn limit_ahead(&mut self, most: u64) {
        let usual = if self.core.blocks.is_local() { AHEAD_BYTES } else { AHEAD_BYTES_REMOTE };
        self.most_ahead = most.min(usual);
        self.allowance = self.allowance.min(self.most_ahead);
    }

    /// The start and end in the blob of the block that contains the position; `None` at the end. It fetches
    /// only rows of the manifest, so that a caller can find room for the block before
    /// [`next`](BlobReader::next) fetches it.
    pub async fn block(&mut self) -> Result<Option<Range<u64>>> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.position >= self.end {
            return Ok(None);
        }
        if let Some((piece, _)) = &self.current
            && piece.range.contains(&self.position)
        {
            return Ok(Some(piece.entry.offset..piece.entry.end()));
        }
        if let Err(error) = self.skip_to_position().await {
            return Err(self.fail(error));
        }
        let ahead = self.ahead.front().map(|(piece, _)| &piece.entry);
        Ok(ahead.or(self.entries.front()).map(|entry| entry.offset..entry.end()))
    }

    /// How many bytes are being fetched ahead, or were fetched and not yet read.
    pub fn ahead(&self) -> u64 {
        self.ahead.iter().map(|(piece, _)| piece.range.end - piece.range.start).sum()
    }

    /// Releases the memory of the fetched blocks. Reading continues at the position; needed blocks are
    /// fetched again.
    pub fn release(&mut self) {
        self.ahead.clear();
        self.entries.clear();
        self.current = None;
        self.allowance = 0;
        self.window = ENTRIES_AFTER_JUMP;
    }

    /// Returns the bytes from the position to the end of its block, and moves past them. `None` at the end.
    ///
    /// They are not copied: the result shares the memory that the block was read into.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        self.next_up_to(u64::MAX).await
    }

    /// Like [`next`](BlobReader::next), but no more than `most` bytes.
    pub async fn next_up_to(&mut self, most: u64) -> Result<Option<Bytes>> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.position >= self.end {
            return Ok(None);
        }
        match self.block_at_position().await {
            Ok((piece, bytes)) => {
                let start = (self.position - piece.range.start) as usize;
                let length = ((bytes.len() - start) as u64).min(most).min(self.end - self.position);
                self.position += length;
                Ok(Some(bytes.slice(start..start + length as usize)))
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Reads a blob of one block if the block store has it in memory.
    fn read_cached(&mut self) {
        let [entry] = self.entries.make_contiguous() else { return };
        if (entry.offset, entry.end()) != (0, self.record.id.size()) {
            return;
        }
        let key = entry.key;
        let entry = *entry;
        let Some(read) = blocking::at_once(self.core.get(&key, entry.located.as_ref(), None)) else { return };
        // The next read meets the same error, and may take the time to note it.
        if let Ok(bytes) = read.and_then(|bytes| verified(&self.core, &entry, bytes)) {
            self.entries.clear();
            self.next_entry = entry.end();
            self.current = Some((self.piece_of(entry), bytes));
        }
    }

    /// Records an error at the position.
    fn fail(&mut self, error: Error) -> Error {
        let error = error.within(format!("cannot read blob {} at {}", self.record.id, self.position));
        self.failed = Some(error.clone());
        self.ahead.clear();
        error
    }

    async fn block_at_position(&mut self) -> Result<(Piece, Bytes)> {
        if let Some((piece, bytes)) = &self.current
            && piece.range.contains(&self.position)
        {
            return Ok((piece.clone(), bytes.clone()));
        }
        self.fetch_block_at_position().await
    }

    #[boxed]
    async fn fetch_block_at_position(&mut self) -> Result<(Piece, Bytes)> {
        self.skip_to_position().await?;
        self.fetch_ahead().await?;
        let Some((piece, fetching)) = self.ahead.pop_front() else { return Err(hole()) };
        let bytes = match fetching.join(&self.core, &piece).await {
            Ok(bytes) => bytes,
            Err(error) => {
                let Piece { entry, range } = piece.clone();
                let at = |located| {
                    fetch(&self.core, Piece { entry: PlacedEntry { located, ..entry }, range: range.clone() })
                };
                fetch_moved(&self.core, entry.key, entry.located, error, at).await?
            }
        };
        if !std::mem::take(&mut self.jumped) {
            self.allowance = (self.allowance * 2).max(bytes.len() as u64).min(self.most_ahead);
            // An error further on is reported when reading gets there.
            let _ = self.fetch_ahead().await;
        }
        self.current = Some((piece.clone(), bytes.clone()));
        Ok((piece, bytes))
    }

    /// Drops the bytes before the position, and everything if the position is elsewhere.
    #[boxed]
    async fn skip_to_position(&mut self) -> Result<()> {
        while self.ahead.front().is_some_and(|(piece, _)| piece.range.end <= self.position) {
            self.ahead.pop_front();
        }
        if self.ahead.front().is_some_and(|(piece, _)| piece.range.contains(&self.position)) {
            return Ok(());
        }
        let straight_on = self.ahead.is_empty()
            && self.current.as_ref().is_none_or(|(piece, _)| piece.range.end == self.position);
        if !straight_on {
            self.ahead.clear();
            self.allowance = 0;
            // With a limit, all bytes up to it are wanted.
            self.jumped = self.end == self.size();
        }
        while self.entries.front().is_some_and(|entry| entry.end() <= self.position) {
            self.entries.pop_front();
        }
        match self.entries.front() {
            Some(entry) if holds(entry, self.position) => self.next_entry = entry.offset,
            _ => {
                if !straight_on {
                    self.window = ENTRIES_AFTER_JUMP;
                }
                self.entries = self.manifest(self.position).await?.into();
                let first = self.entries.front().ok_or_else(hole)?;
                if !holds(first, self.position) {
                    return Err(hole());
                }
                self.next_entry = first.offset;
            }
        }
        Ok(())
    }

    /// Begins to fetch as much as allowed; at least the first block is planned.
    async fn fetch_ahead(&mut self) -> Result<()> {
        let mut bytes = self.ahead();
        while self.may_fetch(bytes) {
            let Some(entry) = self.next_entry().await? else { return Ok(()) };
            let alone = self.ahead.is_empty() && self.allowance == 0;
            if !alone && self.is_in_object(&entry) {
                bytes += self.fetch_neighbours(entry, bytes).await?;
                continue;
            }
            let piece = self.piece_of(entry);
            bytes += piece.range.end - piece.range.start;
            let fetching =
                if alone { Fetching::Here } else { Fetching::Task(fetch_in_task(&self.core, piece.clone())) };
            self.ahead.push_back((piece, fetching));
        }
        Ok(())
    }

    /// Whether more may be fetched in addition to this many bytes.
    fn may_fetch(&self, bytes: u64) -> bool {
        if self.ahead.is_empty() {
            return true;
        }
        match self.entries.front() {
            // Enough at once to be worth a request.
            Some(entry) if self.is_in_object(entry) => {
                self.allowance.saturating_sub(bytes) >= (self.allowance / 2).clamp(1, TOGETHER_BYTES)
            }
            _ => bytes < self.allowance && self.ahead.len() < AHEAD_BLOCKS,
        }
    }

    fn is_in_object(&self, entry: &PlacedEntry) -> bool {
        entry.located.is_some() && self.core.has_objects_of_packs()
    }

    /// The next entry of the manifest, in order; `None` at the end of what is read.
    async fn next_entry(&mut self) -> Result<Option<PlacedEntry>> {
        if self.next_entry >= self.end {
            return Ok(None);
        }
        if self.entries.is_empty() {
            self.entries = self.manifest(self.next_entry).await?.into();
        }
        let entry = self.entries.pop_front().ok_or_else(hole)?;
        if self.entries.is_empty() && entry.end() < self.size() {
            self.entries = self.manifest(entry.end()).await?.into();
        }
        // An entry whose offset was changed looks right by itself; only the next entry shows that it is in
        // the wrong position.
        let next = self.entries.front().map_or(self.size(), |next| next.offset);
        if entry.offset != self.next_entry || entry.end() != next {
            return Err(hole());
        }
        self.next_entry = entry.end();
        Ok(Some(entry))
    }

    /// Begins to fetch this block and its neighbours in the pack, in one request. Returns how many bytes of
    /// the blob these are.
    async fn fetch_neighbours(&mut self, first: PlacedEntry, ahead: u64) -> Result<u64> {
        let most = self.allowance.saturating_sub(ahead).min(TOGETHER_BYTES);
        let (mut run, mut bytes) = (vec![first], first.key.size() as u64);
        while let Some(next) = self.entries.front()
            && bytes + next.key.size() as u64 <= most
            && let (Some(last), Some(to)) = (run[run.len() - 1].located, next.located)
            && Run::goes_on(&last.place, &to.place)
        {
            let Some(next) = self.next_entry().await? else { break };
            bytes += next.key.size() as u64;
            run.push(next);
        }
        let (senders, receivers): (Vec<_>, Vec<_>) = run.iter().map(|_| oneshot::channel()).unzip();
        let task = Arc::new(fetch_together(&self.core, run.clone(), senders));
        for (entry, receiver) in run.into_iter().zip(receivers) {
            let fetching = Fetching::Together(receiver, Arc::clone(&task));
            self.ahead.push_back((self.piece_of(entry), fetching));
        }
        Ok(bytes)
    }

    fn piece_of(&self, entry: PlacedEntry) -> Piece {
        let whole = entry.offset..entry.end();
        // The digest covers the whole block: verifying one byte takes all the others. And in a file, the
        // bytes around the wanted ones cost almost nothing.
        let range = if self.core.verify_reads || self.core.blocks.is_local() || entry.located.is_some() {
            whole
        } else {
            let first = if holds(&entry, self.position) { self.position } else { whole.start };
            first..whole.end.min(self.end)
        };
        Piece { entry, range }
    }

    async fn manifest(&mut self, from: u64) -> Result<Vec<PlacedEntry>> {
        let limit = self.window;
        self.window = (2 * limit).min(MOST_ENTRIES);
        self.core.manifests.entries(self.record.row, from, limit).await
    }
}

fn hole() -> Error {
    let why = "its manifest has a hole: a row was removed or changed, or the blob was deleted and its grace is over";
    Error::new(Code::MissingBlock, why)
        .with_advice(
            "if the blob was deleted, nothing is wrong; otherwise restore the database from a backup, or put the blob again",
        )
}

fn holds(entry: &PlacedEntry, position: u64) -> bool {
    (entry.offset..entry.end()).contains(&position)
}

/// These bytes of a blob.
#[boxed]
pub(super) async fn range(core: &Arc<Core>, id: &BlobId, range: Range<u64>) -> Result<Bytes> {
    let mut reader = open(core, id).await?;
    let size = reader.size();
    if range.start > size || range.start > range.end {
        return Err(Error::new(
            Code::RangeNotSatisfiable,
            format!("blob {id} has no bytes {}..{}", range.start, range.end),
        )
        .with_advice(format!("it has {size} bytes")));
    }
    let length = range.end.min(size) - range.start;
    reader.seek(range.start);
    reader.limit(range.start + length);
    let Some(first) = reader.next().await? else { return Ok(Bytes::new()) };
    if first.len() as u64 == length {
        return Ok(first);
    }
    let mut bytes = Vec::new();
    let reserved = usize::try_from(length).ok().map(|length| bytes.try_reserve_exact(length));
    if !matches!(reserved, Some(Ok(()))) {
        return Err(Error::new(Code::TooLarge, format!("{length} bytes of blob {id} do not fit in memory"))
            .with_advice("read it as a stream"));
    }
    bytes.extend_from_slice(&first);
    while (bytes.len() as u64) < length {
        let Some(next) = reader.next().await? else {
            let why = format!("the reading of blob {id} ended after {} of {length} bytes", bytes.len());
            return Err(Error::new(Code::Internal, why));
        };
        bytes.extend_from_slice(&next);
    }
    Ok(bytes.into())
}

/// A blob to be read.
#[boxed]
pub(super) async fn open(core: &Arc<Core>, id: &BlobId) -> Result<BlobReader> {
    let is_small = id.size() <= SMALL && core.is_on_one_host();
    if is_small && let Some(found) = core.manifests.find_at_once(id, FIRST_ENTRIES) {
        let (record, entries) = found.ok_or_else(|| not_found(id))?;
        let mut reader = BlobReader::new(core, record, entries);
        reader.read_cached();
        return Ok(reader);
    }
    if !is_small || blocking::may_block_here() {
        return found(core, id).await;
    }
    let (core, id) = (Arc::clone(core), *id);
    let both = move || {
        runtime::drive(async move {
            let mut reader = found(&core, &id).await?;
            // An error of the block is reported when it is read.
            if id.size() > 0
                && let Err(error) = reader.block_at_position().await
            {
                reader.fail(error);
            }
            Ok(reader)
        })
    };
    Task::blocking(both).join().await?
}

async fn found(core: &Arc<Core>, id: &BlobId) -> Result<BlobReader> {
    let found = core.manifests.find(id, FIRST_ENTRIES).await?;
    let (record, entries) = found.ok_or_else(|| not_found(id))?;
    Ok(BlobReader::new(core, record, entries))
}
