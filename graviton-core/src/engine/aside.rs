//! The last steps of the removal of blocks that a collection has set aside (`remove`): by the collection, or,
//! if it died, by a store that finds them.

use std::collections::HashSet;
use std::sync::Arc;

use crate::block::{Aside, Asides, BlockStore};
use crate::collection::Collection;
use crate::error::Result;
use crate::key::BlockKey;
use crate::manifest::ManifestRepo;

/// Blocks that are settled together.
const TOGETHER: usize = 1_024;

/// Settles what collections have set aside. Those may be alive, and do the same a moment later.
pub(super) async fn tidy(blocks: &Arc<dyn BlockStore>, manifests: &ManifestRepo) -> Result<()> {
    let Some(aside) = blocks.asides() else { return Ok(()) };
    let asides = aside.all().await?;
    for part in asides.chunks(TOGETHER) {
        let keys: Vec<BlockKey> = part.iter().map(|aside| aside.key).collect();
        // Of no collection: no row goes.
        let settled = manifests.settle(Collection(-1), &[], &keys).await?;
        end(&*aside, part, &settled.undoomed).await?;
    }
    Ok(())
}

/// Moves those back that have a row without a doom, and deletes the others.
pub(super) async fn end(aside: &dyn Asides, asides: &[Aside], undoomed: &[usize]) -> Result<()> {
    let undoomed: HashSet<usize> = undoomed.iter().copied().collect();
    let (mut gone, mut back) = (Vec::new(), Vec::new());
    for (place, aside) in asides.iter().enumerate() {
        if undoomed.contains(&place) { back.push(*aside) } else { gone.push(*aside) }
    }
    aside.end_removal(&gone, &back).await
}
