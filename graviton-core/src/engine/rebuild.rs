//! Rebuilds blocks from packs: blocks that blobs need, and that are not where their rows say.
//!
//! A database that was restored from a backup may say that a block is at a place that was given up since, and
//! not know the pack that the block was moved to. So the records of packs without a row are read, and those
//! of packs that may contain records without a row. A record of a missing or damaged block is verified, and
//! *copied* as in a put: pinned, written anew, synced, marked. The row never gets the place of the record
//! itself, which a late collector may give up (`docs/FORMAT.md`, "Rebuilding"; mutant `RebuildsInPlace`).

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::core::{Core, Engine};
use super::damage::{is_unreadable, look, recheck};
use super::pack::read;
use super::pack::scan::{Met, Walk};
use super::put::pinned::PinnedPut;
use crate::block::Packs;
use crate::block::pack::record::{HEADER, Header, read_pack_header};
use crate::error::{Code, Result};
use crate::key::BlockKey;
use crate::manifest::{BlockRecord, ManifestEntry};
use crate::place::{PackName, PackRow, Place};

/// The most records that are looked up together, and about the most bytes of blocks that are in memory.
const RECORDS: usize = 512;
const TOGETHER: u64 = 8 << 20;

/// The packs of one query.
const PACKS: usize = 512;

/// A pack to search.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    pub(super) name: PackName,
    pub(super) length: u64,
    /// Whether it has a row. It may then be written at this moment and have holes, so its defects are no
    /// findings.
    is_known: bool,
}

/// A part of a pack that cannot be used.
#[derive(Debug)]
pub(super) struct Unusable {
    pub(super) offset: u64,
    pub(super) key: Option<BlockKey>,
    pub(super) why: String,
}

/// The result of one step through a pack.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// The offset of the next step; `None` at the end of the pack.
    pub(super) next: Option<u64>,
    /// Blocks that were rebuilt, and their bytes.
    pub(super) rebuilt: (u64, u64),
    /// Bytes that were hashed.
    pub(super) hashed: u64,
    pub(super) unusable: Vec<Unusable>,
}

/// The packs from which blocks may be rebuilt, in the order of their names, from this one on. Those of other
/// stores are left out.
pub(super) async fn sources(engine: &Engine, from: Option<PackName>) -> Result<Vec<Source>> {
    let core = &engine.core;
    let Some(packs) = core.packs.as_ref().filter(|_| core.manifests.has_packs()) else {
        return Ok(Vec::new());
    };
    let mut listed = packs.list().await?;
    listed.retain(|(name, _)| from.is_none_or(|from| *name >= from));
    listed.sort_unstable();
    let mut sources = Vec::new();
    for part in listed.chunks(PACKS) {
        let names: Vec<PackName> = part.iter().map(|(name, _)| *name).collect();
        // Queried after the packs were listed: the row of a new pack exists before its file.
        let known = core.manifests.known_packs(&names).await?;
        for (name, length) in part.iter().copied() {
            let is_known = match known.get(&name) {
                Some(false) => continue,
                known => known.is_some(),
            };
            if is_known || stranger(&**packs, &engine.store_id, name).await?.is_none() {
                sources.push(Source { name, length, is_known });
            }
        }
    }
    Ok(sources)
}

/// The id of the store that a pack belongs to, if it is another one. A pack without a header does not count
/// as another store's.
pub(super) async fn stranger(packs: &dyn Packs, store_id: &str, name: PackName) -> Result<Option<String>> {
    let header = match packs.read(&name, 0..HEADER).await {
        // A pack that cannot be read is reported by the reads that follow.
        Err(error) if matches!(error.code(), Code::Io | Code::Forbidden) => return Ok(None),
        header => header?.unwrap_or_default(),
    };
    Ok(read_pack_header(&header).map(|(id, _)| id).filter(|id| id != store_id))
}

/// Reads some records of a pack, from this offset on, and rebuilds blocks from them. With `deep`, blocks that
/// are where their rows say are hashed as well.
pub(super) async fn step(engine: &Engine, source: Source, from: u64, deep: bool) -> Result<Step> {
    let core = &engine.core;
    let Some(packs) = &core.packs else { return Ok(Step::default()) };
    engine.check_owner_again().await?;
    let mut pass = Pass { core, packs: &**packs, source, deep, step: Step::default() };
    match pass.run(engine, from).await {
        // A pack that cannot be read does not prevent the others from being read.
        Err(error) if is_unreadable(core, &error) => {
            pass.note(from, None, error.to_string());
            pass.step.next = None;
        }
        ran => ran?,
    }
    Ok(pass.step)
}

struct Pass<'a> {
    core: &'a Arc<Core>,
    packs: &'a dyn Packs,
    source: Source,
    deep: bool,
    step: Step,
}

impl Pass<'_> {
    fn note(&mut self, offset: u64, key: Option<BlockKey>, why: String) {
        if !self.source.is_known {
            self.step.unusable.push(Unusable { offset, key, why });
        }
    }

    async fn run(&mut self, engine: &Engine, from: u64) -> Result<()> {
        let Source { name, length, .. } = self.source;
        let mut from = from;
        if from == 0 && self.check_header().await? {
            from = HEADER;
        }
        let mut walk = Walk::new(self.packs, (name, length), from);
        let (mut records, mut bytes) = (Vec::new(), 0);
        let is_over = loop {
            let met = records.len() + self.step.unusable.len();
            if met >= RECORDS || bytes >= TOGETHER {
                break false;
            }
            match walk.next().await? {
                None => break true,
                Some((offset, Met::Record(header))) => {
                    bytes += header.key.size() as u64;
                    records.push((offset, header));
                }
                Some((offset, Met::Unusable(header, why))) => {
                    self.note(offset, header.map(|header| header.key), why);
                }
            }
        };
        self.step.next = (!is_over).then_some(walk.offset());
        let blocks = self.blocks_to_rebuild(&records).await?;
        if !blocks.is_empty() {
            self.step.rebuilt = copy(engine, blocks).await?;
        }
        Ok(())
    }

    /// Whether the pack begins with a header. Without one it may still have records.
    async fn check_header(&mut self) -> Result<bool> {
        let name = self.source.name;
        let Some(header) = self.packs.read(&name, 0..HEADER).await? else { return Ok(false) };
        match read_pack_header(&header) {
            Some((_, of)) if of == name => Ok(true),
            Some((_, of)) => {
                self.note(0, None, format!("it has the header of pack {of}"));
                Ok(true)
            }
            None => {
                self.note(0, None, "it does not begin with the header of a pack".to_owned());
                Ok(false)
            }
        }
    }

    /// The verified bytes of records whose blocks are needed and are not where their rows say.
    async fn blocks_to_rebuild(&mut self, records: &[(u64, Header)]) -> Result<Vec<(BlockKey, Bytes)>> {
        let mut keys: Vec<BlockKey> = records.iter().map(|(_, header)| header.key).collect();
        keys.sort_unstable();
        keys.dedup();
        let wanted = self.core.manifests.wanted_blocks(&keys).await?;
        // True: found to be bad. False: not yet checked.
        let mut wanted: HashMap<BlockKey, (BlockRecord, bool)> =
            wanted.into_iter().map(|record| (record.key, (record, false))).collect();
        let mut blocks = Vec::new();
        for (offset, header) in records {
            let key = header.key;
            let Some((record, is_bad)) = wanted.get(&key).copied() else { continue };
            if !is_bad {
                if self.is_at(&record, *offset) || !self.is_bad(&record).await? {
                    wanted.remove(&key);
                    continue;
                }
                wanted.insert(key, (record, true));
            }
            if let Some(bytes) = self.read(*offset, header).await? {
                blocks.push((key, bytes));
                wanted.remove(&key);
            }
        }
        Ok(blocks)
    }

    /// Whether the row points at this very record, so that there is nothing to copy.
    fn is_at(&self, record: &BlockRecord, offset: u64) -> bool {
        let is_here = |place: Place| (place.name, place.offset) == (self.source.name, offset);
        record.located.is_some_and(|located| is_here(located.place))
    }

    /// Whether a block has to be written again, as its row then says. A block whose row does not say `stored`
    /// may still exist: after a database took over the objects of another one, no row says so.
    async fn is_bad(&self, record: &BlockRecord) -> Result<bool> {
        let deep = self.deep || !record.stored;
        match look(self.core, record.key, record.located, deep).await {
            // It is in a pack that others may read.
            Err(error) if is_unreadable(self.core, &error) => Ok(false),
            looked => Ok(looked?.is_some() && (!record.stored || recheck(self.core, record.row).await?)),
        }
    }

    /// The bytes of a record, if they are those of the block.
    async fn read(&mut self, offset: u64, header: &Header) -> Result<Option<Bytes>> {
        let Header { key, codec, stored_size, .. } = *header;
        // The pack has no row: only its name matters.
        let place = Place { pack: PackRow(0), name: self.source.name, offset, stored_size, codec };
        self.step.hashed += key.size() as u64;
        let error = match read::verified(self.packs, &key, &place).await {
            Ok(bytes) => return Ok(Some(bytes)),
            Err(error) => error,
        };
        let why = match error.code() {
            // The pack was removed meanwhile.
            Code::MissingBlock => return Ok(None),
            Code::CorruptBlock => "its bytes are not those of the block".to_owned(),
            Code::Unsupported => error.to_string(),
            Code::Io if self.core.blocks.is_local() => error.to_string(),
            _ => return Err(error),
        };
        self.note(offset, Some(key), why);
        Ok(None)
    }
}

/// Writes blocks anew, as a put does. Returns how many were, and their bytes: another put may be faster.
async fn copy(engine: &Engine, blocks: Vec<(BlockKey, Bytes)>) -> Result<(u64, u64)> {
    let (keys, bytes): (Vec<BlockKey>, Vec<Bytes>) = blocks.into_iter().unzip();
    let entries = ManifestEntry::tiling(0, keys);
    let mut put = PinnedPut::begin(engine).await?;
    put.add(&entries, &bytes).await?;
    put.release().await
}
