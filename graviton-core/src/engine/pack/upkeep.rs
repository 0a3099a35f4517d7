//! The collector's work on packs: blocks are released, packs of stores that died are sealed, space is given
//! back.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::append::Appender;
use super::read::{self, Run};
use crate::block::pack::record::{HEADER, Header, record_size};
use crate::block::{Block, Packs};
use crate::blocking;
use crate::engine::core::Core;
use crate::engine::damage;
use crate::engine::pace;
use crate::error::{Code, Error, Result};
use crate::manifest::{BlockRecord, Hole, Mark, SealedPack};
use crate::place::{DOUBT, PackName, PackRow, Place};

/// Rows of one query or transaction.
const ROWS: usize = 1_024;

/// A pack of fewer bytes is small, and if there are more such packs, they are merged.
const SMALL: u64 = 1 << 20;
const MOST_SMALL: usize = 64;

/// Bytes of blocks that are moved together.
const TOGETHER: u64 = 8 << 20;

/// Bytes of a tail that are checked together.
const LOOK: u64 = 1 << 20;

/// Seals the next pack after `after` whose store is gone. `None` if there are none left.
///
/// Such a pack is synced, and each record with a row is verified: its maker may have been a relaxed store,
/// and its last writes may be lost. A bad block is marked as not stored.
///
/// A pack that this user may not read is left for another user; its error is the answer for it.
pub(in crate::engine) async fn seal_found(
    core: &Arc<Core>,
    packs: &dyn Packs,
    after: PackRow,
) -> Result<Option<(PackRow, Result<()>)>> {
    let found = core.manifests.found_packs(after, 1).await?;
    let Some((row, name)) = found.first().copied() else { return Ok(None) };
    match seal_one(core, packs, row, name).await {
        Err(error) if error.code() == Code::Forbidden => Ok(Some((row, Err(error)))),
        sealed => sealed.map(|()| Some((row, Ok(())))),
    }
}

async fn seal_one(core: &Arc<Core>, packs: &dyn Packs, row: PackRow, name: PackName) -> Result<()> {
    if !packs.grows() {
        return seal_object(core, packs, row, name).await;
    }
    packs.sync(&name).await?;
    let (mut after, mut end) = (0, HEADER);
    loop {
        let records = core.manifests.pack_blocks(row, after, ROWS).await?;
        let Some(last) = records.last().and_then(|record| record.located) else { break };
        after = last.place.offset;
        end = after + record_size(last.place.stored_size);
        for record in records {
            let Some(located) = record.located else { continue };
            if record.stored && damage::look(core, record.key, record.located, true).await?.is_some() {
                core.manifests.clear_placed(record.row, &located.place).await?;
            }
        }
    }
    let end = end_of_records(packs, &name, end).await?;
    let length = packs.length(&name).await?.unwrap_or_default();
    if core.manifests.seal_found(row, end.min(length), Duration::ZERO).await? && end < length {
        packs.cut(&name, end).await?;
    }
    Ok(())
}

/// The same for an object. It exists as a whole, and rows point at it only after that. Its maker may have
/// sent it just before it died, so it may appear later.
async fn seal_object(core: &Core, packs: &dyn Packs, row: PackRow, name: PackName) -> Result<()> {
    let length = packs.length(&name).await?.unwrap_or_default();
    let mut after = 0;
    loop {
        let records = core.manifests.pack_blocks(row, after, ROWS).await?;
        let Some(last) = records.last().and_then(|record| record.located) else { break };
        after = last.place.offset;
        for record in records {
            if let Some(located) = record.located.filter(|located| read::end_of(&located.place) > length) {
                core.manifests.clear_placed(record.row, &located.place).await?;
            }
        }
    }
    core.manifests.seal_found(row, length, DOUBT).await.map(drop)
}

/// Cuts off the reserved space of sealed packs whose makers died before they could.
pub(in crate::engine) async fn cut_tails(core: &Core, packs: &dyn Packs) -> Result<()> {
    if !packs.grows() {
        return Ok(());
    }
    let lengths: HashMap<PackName, u64> = packs.list().await?.into_iter().collect();
    for pack in core.manifests.sealed_packs().await? {
        if lengths.get(&pack.name).is_some_and(|length| *length > pack.bytes) {
            packs.cut(&pack.name, pack.bytes).await?;
        }
    }
    Ok(())
}

/// The start of the tail without records: after the records that follow `from`, if only zeros come then.
/// Otherwise it is the length of the pack, because there may be records after a damaged one.
async fn end_of_records(packs: &dyn Packs, name: &PackName, from: u64) -> Result<u64> {
    let mut end = from;
    while let Some(header) = packs.read(name, end..end + HEADER).await?
        && let Some(header) = Header::decode(&header)
    {
        end += record_size(header.stored_size);
    }
    let mut at = end;
    while let Some(bytes) = packs.read(name, at..at + LOOK).await?
        && !bytes.is_empty()
    {
        at += bytes.len() as u64;
        if bytes.iter().any(|byte| *byte != 0) {
            return Ok(packs.length(name).await?.unwrap_or_default());
        }
    }
    Ok(end)
}

/// Gives the space of some released blocks back. False if there are none left.
pub(in crate::engine) async fn punch(core: &Arc<Core>, packs: &dyn Packs) -> Result<bool> {
    let holes = core.manifests.holes(ROWS).await?;
    for of_pack in holes.chunk_by(|one, next| one.pack == next.pack) {
        // If holes are not possible, the bytes stay until the pack is dropped.
        let punched = packs.punch(&of_pack[0].name, &merged(of_pack)).await?;
        core.manifests.forget_holes(of_pack[0].pack, of_pack, punched).await?;
    }
    Ok(!holes.is_empty())
}

/// Merges neighbours: the filesystem gives back only whole blocks of its own.
fn merged(holes: &[Hole]) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for hole in holes {
        match ranges.last_mut() {
            Some(last) if last.end == hole.offset => last.end += hole.bytes,
            _ => ranges.push(hole.offset..hole.offset + hole.bytes),
        }
    }
    ranges
}

/// Chooses packs whose live blocks should be moved: first those with the largest share of dead bytes, until
/// dead bytes that take space are at most a tenth of the live ones; and small packs, if there are many.
fn wasteful(mut packs: Vec<SealedPack>) -> Vec<SealedPack> {
    let live: u64 = packs.iter().map(SealedPack::live).sum();
    let mut waste: u64 = packs.iter().map(SealedPack::waste).sum();
    let small = packs.iter().filter(|pack| pack.bytes < SMALL).count();
    packs.sort_by_key(|pack| {
        std::cmp::Reverse(u128::from(pack.waste()) * 1_000_000 / u128::from(pack.bytes.max(1)))
    });
    packs.retain(|pack| {
        let is_small = small > MOST_SMALL && pack.bytes < SMALL;
        let is_chosen = waste > live / 10 && pack.waste() > 0;
        if is_chosen || is_small {
            waste -= pack.waste();
        }
        is_chosen || is_small
    });
    packs
}

/// The packs whose live blocks should be moved now.
pub(in crate::engine) async fn to_compact(core: &Core) -> Result<Vec<SealedPack>> {
    Ok(wasteful(core.manifests.sealed_packs().await?))
}

/// Moves some live blocks of a pack, those after `after`, into the store's own pack. Returns the position
/// that it reached, or nothing at the end.
///
/// Each block is verified first; a damaged one is marked as not stored, and keeps its place. The old bytes
/// stay for readers and restored databases until the pack is dropped. The copies are written durably in every
/// mode. The move of the rows need not be synced, because the drop of the old pack is.
pub(in crate::engine) async fn compact(
    core: &Arc<Core>,
    packs: &Arc<dyn Packs>,
    appender: &Arc<Appender>,
    from: PackRow,
    after: u64,
) -> Result<Option<u64>> {
    let mut records = core.manifests.pack_blocks(from, after, ROWS).await?;
    records.truncate(pace::fitting(&records, TOGETHER, |record| record.key.size() as u64));
    let Some(last) = records.last().and_then(|record| record.located) else { return Ok(None) };
    let (mut blocks, mut marks) = (Vec::new(), Vec::new());
    let placed: Vec<(BlockRecord, Place)> = records
        .into_iter()
        .filter(|record| record.stored)
        .filter_map(|record| Some((record, record.located?.place)))
        .collect();
    for (record, place, copy) in copies(packs, placed).await? {
        match copy {
            Ok(bytes) => {
                blocks.push(Block { key: record.key, bytes });
                marks.push(Mark { row: record.row, place: None, found: Some(place) });
            }
            Err(error) if matches!(error.code(), Code::MissingBlock | Code::CorruptBlock) => {
                core.manifests.clear_placed(record.row, &place).await?;
            }
            Err(error) => return Err(error),
        }
    }
    if !blocks.is_empty() {
        let copies = appender.append_synced(blocks, true).await?;
        for (mark, (place, _)) in marks.iter_mut().zip(&copies.places) {
            mark.place = Some(*place);
        }
        // If the lease was lost, the next collection moves them.
        if core.manifests.move_blocks(from, &marks, &copies.packs()).await?.is_none() {
            return Ok(None);
        }
    }
    Ok(Some(last.place.offset))
}

/// The verified bytes of blocks that are in one pack, in order. Neighbours are read together.
async fn copies(
    packs: &Arc<dyn Packs>,
    placed: Vec<(BlockRecord, Place)>,
) -> Result<Vec<(BlockRecord, Place, Result<Bytes>)>> {
    let mut all = Vec::with_capacity(placed.len());
    for neighbours in placed.chunk_by(|(_, last), (_, next)| Run::goes_on(last, next)) {
        let run = Run::read(packs, &neighbours[0].1, &neighbours[neighbours.len() - 1].1).await;
        let neighbours = neighbours.to_vec();
        let copying = move || {
            let copy = |(record, place): (BlockRecord, Place)| {
                let bytes =
                    run.as_ref().map_err(Error::clone).and_then(|run| run.verified(&record.key, &place));
                (record, place, bytes)
            };
            neighbours.into_iter().map(copy).collect::<Vec<_>>()
        };
        all.extend(blocking::run(copying).await?);
    }
    Ok(all)
}

/// Drops some packs that no row has pointed at for the grace, and removes the dropped ones. False if there
/// are none left.
pub(in crate::engine) async fn drop_empty(
    core: &Arc<Core>,
    packs: &dyn Packs,
    grace: Duration,
) -> Result<bool> {
    core.manifests.drop_packs(grace, ROWS).await?;
    // This includes the dropped packs of a collection that died.
    let dropped = core.manifests.dropped_packs(PackRow(0), ROWS).await?;
    if dropped.is_empty() {
        return Ok(false);
    }
    let (rows, names): (Vec<PackRow>, Vec<PackName>) = dropped.into_iter().unzip();
    packs.remove(&names).await?;
    // The rows go last: a pack whose file comes back after a power cut still has its row.
    core.manifests.forget_packs(&rows).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_punched_as_one() {
        let hole =
            |offset, bytes| Hole { pack: PackRow(1), name: PackName::from_bytes([0; 16]), offset, bytes };
        let holes = [hole(64, 100), hole(164, 36), hole(300, 10), hole(310, 1)];
        assert_eq!(merged(&holes), [64..200, 300..311]);
        assert_eq!(merged(&[]), []);
    }
}
