//! Blocks that move between the layouts, step by step, against any manifest repository.

use std::sync::Arc;
use std::time::Duration;

use super::database_place::{DatabasePlace, LEASE, entries_of, id_of, key, marks, pinned, put};
use crate::key::BlockKey;
use crate::manifest::{BlockRow, Collection, Durability, HeldPack, ManifestRepo, Mark, WriterId};
use crate::place::{Codec, PackName, Place};

pub(super) async fn all<P: DatabasePlace>(make: impl AsyncFn() -> P) {
    if !make().await.open(Durability::Full).await.has_packs() {
        // Of the version before packs.
        return;
    }
    a_block_moves_into_a_pack_and_its_name_is_doomed(&make().await).await;
    only_stored_blocks_that_nobody_uses_move_into_packs(&make().await).await;
    a_block_moves_out_of_a_pack_while_it_is_pinned(&make().await).await;
    a_file_moves_back_if_somebody_may_rely_on_it(&make().await).await;
    a_block_that_lost_its_references_stays_a_candidate(&make().await).await;
}

const ONE: Collection = Collection(1);
const TWO: Collection = Collection(2);

/// In the order in which they get rows.
fn keys(range: std::ops::Range<u32>) -> Vec<BlockKey> {
    let mut keys: Vec<BlockKey> = range.map(|number| key(number, 10)).collect();
    keys.sort_unstable();
    keys
}

/// A live blob of this many blocks, which are files: their keys and rows.
async fn in_files(
    place: &impl DatabasePlace,
    count: u32,
) -> (Arc<ManifestRepo>, WriterId, Vec<BlockKey>, Vec<BlockRow>) {
    let repo = place.open(Durability::Full).await;
    let writer = repo.register_writer(LEASE).await.unwrap();
    let keys = keys(0..count);
    let entries = entries_of(&keys);
    put(&repo, writer, id_of("live", &entries), &entries).await;
    let rows = rows(&repo, &keys).await;
    (repo, writer, keys, rows)
}

async fn rows(repo: &ManifestRepo, keys: &[BlockKey]) -> Vec<BlockRow> {
    let records = repo.blocks_by_key(keys.to_vec()).await.unwrap();
    let row = |key: &BlockKey| records.iter().find(|record| record.key == *key).unwrap().row;
    keys.iter().map(row).collect()
}

async fn pack(repo: &ManifestRepo, writer: WriterId) -> HeldPack {
    let name = PackName::random().unwrap();
    HeldPack { pack: repo.insert_pack(writer, &name).await.unwrap().unwrap(), writer, name }
}

/// Moves these rows to places in the pack, one behind the other.
fn placed(rows: &[BlockRow], held: &HeldPack, from: u64) -> Vec<Mark> {
    let place = |number: usize| Place {
        pack: held.pack,
        name: held.name,
        offset: from + 80 * number as u64,
        stored_size: 10,
        codec: Codec::Raw,
    };
    let mark = |(number, row): (usize, &BlockRow)| Mark { place: Some(place(number)), ..Mark::named(*row) };
    rows.iter().enumerate().map(mark).collect()
}

async fn move_all(repo: &ManifestRepo, rows: &[BlockRow], held: &HeldPack) -> Vec<Mark> {
    let marks = placed(rows, held, 64);
    let mut moved = repo.move_to_packs(ONE, &marks, &[*held]).await.unwrap().unwrap();
    moved.sort_unstable();
    let mut rows = rows.to_vec();
    rows.sort_unstable();
    assert_eq!(moved, rows);
    marks
}

async fn a_block_moves_into_a_pack_and_its_name_is_doomed(place: &impl DatabasePlace) {
    let (repo, writer, keys, rows) = in_files(place, 3).await;
    assert_eq!(repo.layouts().await.unwrap(), (3, 0));
    assert_eq!(repo.named_blocks(BlockRow(0), 2).await.unwrap().len(), 2);
    let held = pack(&repo, writer).await;
    let marks = move_all(&repo, &rows[..2], &held).await;
    assert_eq!(repo.layouts().await.unwrap(), (1, 2));
    let packed = repo.packed_blocks(BlockRow(0), 10).await.unwrap();
    for (record, mark) in packed.iter().zip(&marks) {
        assert_eq!((record.row, record.stored), (mark.row, true));
        assert_eq!(record.located.map(|located| located.place), mark.place);
    }
    let named = repo.named_blocks(BlockRow(0), 10).await.unwrap();
    assert_eq!(named.iter().map(|record| record.row).collect::<Vec<_>>(), rows[2..]);
    // A collection finds them, if nobody ends the doom.
    let found = repo.candidates_in_packs(BlockRow(0), 10).await.unwrap();
    assert_eq!(found.iter().map(|record| record.row).collect::<Vec<_>>(), rows[..2]);
    assert_eq!(repo.settle_names(TWO, &keys).await.unwrap(), [2]);
    assert_eq!(found, repo.candidates_in_packs(BlockRow(0), 10).await.unwrap(), "not its own doom");
    assert_eq!(repo.settle_names(ONE, &keys).await.unwrap(), [2]);
    assert!(repo.candidates_in_packs(BlockRow(0), 10).await.unwrap().is_empty());
    assert!(repo.candidates(BlockRow(0), 10).await.unwrap().is_empty());
    assert!(repo.packed_candidates(BlockRow(0), 10).await.unwrap().is_empty());

    // Again: what has moved stays where it is.
    let again = placed(&rows, &held, 1_000);
    assert_eq!(repo.move_to_packs(TWO, &again, &[held]).await.unwrap().unwrap(), rows[2..]);
    // A name is doomed again for its own sake.
    assert_eq!(repo.doom_names(ONE, &rows[..1]).await.unwrap(), keys[..1]);
    let other = HeldPack { writer: WriterId(writer.0 + 1), ..held };
    assert_eq!(repo.move_to_packs(ONE, &again, &[other]).await.unwrap(), None, "the pack is another's");
}

async fn only_stored_blocks_that_nobody_uses_move_into_packs(place: &impl DatabasePlace) {
    let (repo, writer, keys, rows) = in_files(place, 4).await;
    let row = |index: usize| rows[index].0;
    place.sql(&format!("UPDATE data_block SET stored = FALSE WHERE id = {}", row(0))).await;
    let doom = format!("UPDATE data_block SET doomed_by = 7, doomed_until = 0 WHERE id = {}", row(1));
    place.sql(&doom).await;
    let (pins, _) = pinned(&repo, writer, &entries_of(&keys[2..3])).await;
    let held = pack(&repo, writer).await;
    let marks = placed(&rows, &held, 64);
    assert_eq!(repo.move_to_packs(ONE, &marks, &[held]).await.unwrap().unwrap(), rows[3..]);
    assert!(repo.doom_names(ONE, &rows[..3]).await.unwrap().is_empty(), "files are not leftovers");
    repo.abort(pins).await.unwrap();
    assert_eq!(repo.move_to_packs(ONE, &marks, &[held]).await.unwrap().unwrap(), rows[2..3]);
    // In a pack, and in use again.
    pinned(&repo, writer, &entries_of(&keys[3..])).await;
    assert_eq!(repo.doom_names(TWO, &rows[2..]).await.unwrap(), keys[2..3]);
}

async fn a_block_moves_out_of_a_pack_while_it_is_pinned(place: &impl DatabasePlace) {
    let (repo, writer, keys, rows) = in_files(place, 3).await;
    let held = pack(&repo, writer).await;
    let marks = move_all(&repo, &rows, &held).await;
    assert!(repo.seal_own(held, 64 + 3 * 80, Duration::ZERO).await.unwrap());
    let (pins, pinned) = pinned(&repo, writer, &entries_of(&keys)).await;
    assert_eq!(pinned, rows);
    assert_eq!(repo.settle(TWO, &[], &keys).await.unwrap().undoomed, [0, 1, 2], "a pin takes dooms away");
    let mut back: Vec<Mark> =
        marks.iter().map(|mark| Mark { row: mark.row, place: None, found: mark.place }).collect();
    // One has moved since.
    back[2].found = back[2].found.map(|place| Place { offset: 8, ..place });
    let mut moved = repo.move_to_files(pins, &back).await.unwrap().unwrap();
    moved.sort_unstable();
    assert_eq!(moved, rows[..2]);
    assert_eq!(repo.layouts().await.unwrap(), (2, 1));
    let packs = repo.sealed_packs().await.unwrap();
    assert_eq!(packs.iter().map(|pack| pack.dead).collect::<Vec<_>>(), [160]);
    repo.abort(pins).await.unwrap();
    assert_eq!(repo.move_to_files(pins, &back).await.unwrap(), None, "nothing is pinned");
}

async fn a_file_moves_back_if_somebody_may_rely_on_it(place: &impl DatabasePlace) {
    let (repo, writer, keys, rows) = in_files(place, 2).await;
    let held = pack(&repo, writer).await;
    move_all(&repo, &rows, &held).await;
    let (pins, _) = pinned(&repo, writer, &entries_of(&keys[..1])).await;
    // The put may be about to write the name, because it found the record damaged.
    assert_eq!(repo.settle_names(ONE, &keys).await.unwrap(), [0]);
    assert_eq!(repo.settle(TWO, &[], &keys).await.unwrap().undoomed, [0]);
    repo.abort(pins).await.unwrap();
    // It is in a pack, and nobody else is under way.
    assert!(repo.settle(TWO, &[], &keys).await.unwrap().undoomed.is_empty());
    place.sql(&format!("UPDATE data_block SET stored = FALSE WHERE id = {}", rows[0].0)).await;
    assert_eq!(repo.settle(TWO, &[], &keys).await.unwrap().undoomed, [0]);
}

async fn a_block_that_lost_its_references_stays_a_candidate(place: &impl DatabasePlace) {
    let (repo, writer, keys, rows) = in_files(place, 2).await;
    let held = pack(&repo, writer).await;
    move_all(&repo, &rows, &held).await;
    place.sql(&format!("DELETE FROM blob_block WHERE block_id = {}", rows[1].0)).await;
    assert!(repo.settle_names(ONE, &keys).await.unwrap().is_empty());
    let left = repo.packed_candidates(BlockRow(0), 10).await.unwrap();
    assert_eq!(left, [(rows[1], 10)]);
    // A put that pins it does not need the name.
    let (pins, _) = pinned(&repo, writer, &entries_of(&keys)).await;
    assert!(repo.mark_stored(pins, &marks(&rows), &[]).await.unwrap());
    assert_eq!(repo.layouts().await.unwrap(), (0, 2));
}
