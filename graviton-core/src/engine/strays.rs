//! Blocks and packs without a row in the database: left by a put that was killed before its rows existed, or
//! written by a running put.
//!
//! No collection removes them by itself, because nothing in the database leads to them; a verification with
//! `adopt` lists all of them, and gives them rows. A collection counts them, so that its report shows them.
//! It checks at most [`MOST`] names, so that it takes no longer in a large store, and no objects, because
//! listing them costs money.

use super::core::Core;
use crate::block::Listed;
use crate::error::Result;
use crate::key::BlockKey;
use crate::place::PackName;

/// Names that a collection looks at.
const MOST: usize = 16_384;

/// Names of one query.
const TOGETHER: usize = 1_024;

/// How many there are among some of the blocks and packs, and the sum of their sizes in bytes.
pub(super) async fn sample(core: &Core) -> Result<(u64, u64)> {
    let (mut count, mut bytes) = (0, 0);
    if !core.blocks.is_local() {
        return Ok((count, bytes));
    }
    let (mut listing, mut looked) = (core.blocks.list().await?, 0);
    while looked < MOST {
        let page = listing.next().await?;
        if page.is_empty() {
            break;
        }
        looked += page.len();
        for part in page.chunks(TOGETHER) {
            for listed in blocks(core, part).await? {
                count += 1;
                bytes += listed.length;
            }
        }
    }
    if let Some(packs) = core.packs.as_ref().filter(|_| core.manifests.has_packs()) {
        let listed = packs.list().await?;
        for part in listed[..listed.len().min(MOST)].chunks(TOGETHER) {
            for (_, length) in self::packs(core, part).await? {
                count += 1;
                bytes += length;
            }
        }
    }
    Ok((count, bytes))
}

/// Those of the blocks that have no row.
pub(super) async fn blocks(core: &Core, listed: &[Listed]) -> Result<Vec<Listed>> {
    let keys: Vec<BlockKey> = listed.iter().map(|listed| listed.key).collect();
    let known = core.manifests.known(&[], &keys).await?;
    let unknown = listed.iter().zip(known.stored).filter(|(_, row)| row.is_none());
    Ok(unknown.map(|(listed, _)| *listed).collect())
}

/// Those of the packs that have no row. No put has one: the row is first.
pub(super) async fn packs(core: &Core, listed: &[(PackName, u64)]) -> Result<Vec<(PackName, u64)>> {
    let names: Vec<PackName> = listed.iter().map(|(name, _)| *name).collect();
    let known = core.manifests.known_packs(&names).await?;
    Ok(listed.iter().filter(|(name, _)| !known.contains_key(name)).copied().collect())
}
