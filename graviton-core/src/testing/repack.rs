//! Blocks that move between the layouts, step by step, against any manifest repository.

use std::sync::Arc;
use std::time::Duration;

use super::database_place::{DatabasePlace, LEASE, entries_of, id_of, key, marks, pinned, put};
use crate::key::BlockKey;
use crate::manifest::{
    BlobRow, BlockRow, Collection, Commit, Committed, Durability, HeldPack, ManifestRepo, Mark, Packed,
    Pinned, WriterId,
};
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
    a_doom_of_a_name_holds_up_whoever_would_write_it(&make().await).await;
    a_doom_that_has_ended_stays_until_its_object_is_gone(&make().await).await;
    a_block_that_is_written_into_a_pack_keeps_the_doom_of_its_name(&make().await).await;
    a_block_that_moves_out_of_a_pack_loses_a_doom_that_has_ended(&make().await).await;
    a_name_is_marked_before_it_is_written(&make().await).await;
    a_move_is_repeated_whose_answer_was_lost(&make().await).await;
}

const ONE: Collection = Collection(1);
const TWO: Collection = Collection(2);

/// Where nothing is waited for, as with files, and where a deletion may be late.
const NONE: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(600);

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

async fn move_all(repo: &ManifestRepo, rows: &[BlockRow], held: &HeldPack, doom: Duration) -> Vec<Mark> {
    let marks = placed(rows, held, 64);
    let mut moved = repo.move_to_packs(ONE, &marks, &[*held], doom).await.unwrap().unwrap();
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
    let marks = move_all(&repo, &rows[..2], &held, NONE).await;
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
    assert_eq!(repo.move_to_packs(TWO, &again, &[held], NONE).await.unwrap().unwrap(), rows[2..]);
    // A name is doomed again for its own sake.
    assert_eq!(repo.doom_names(ONE, &rows[..1], NONE).await.unwrap(), keys[..1]);
    let other = HeldPack { writer: WriterId(writer.0 + 1), ..held };
    assert_eq!(repo.move_to_packs(ONE, &again, &[other], NONE).await.unwrap(), None, "the pack is another's");
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
    assert_eq!(repo.move_to_packs(ONE, &marks, &[held], NONE).await.unwrap().unwrap(), rows[3..]);
    assert!(repo.doom_names(ONE, &rows[..3], NONE).await.unwrap().is_empty(), "files are not leftovers");
    repo.abort(pins).await.unwrap();
    let moved = repo.move_to_packs(TWO, &marks, &[held], NONE).await.unwrap().unwrap();
    assert_eq!(moved, rows[2..3]);
    // In a pack, and in use again.
    pinned(&repo, writer, &entries_of(&keys[3..])).await;
    assert_eq!(repo.doom_names(TWO, &rows[2..], NONE).await.unwrap(), keys[2..3]);
}

async fn a_block_moves_out_of_a_pack_while_it_is_pinned(place: &impl DatabasePlace) {
    let (repo, writer, keys, rows) = in_files(place, 3).await;
    let held = pack(&repo, writer).await;
    let marks = move_all(&repo, &rows, &held, NONE).await;
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
    move_all(&repo, &rows, &held, NONE).await;
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
    move_all(&repo, &rows, &held, NONE).await;
    place.sql(&format!("DELETE FROM blob_block WHERE block_id = {}", rows[1].0)).await;
    assert!(repo.settle_names(ONE, &keys).await.unwrap().is_empty());
    let left = repo.packed_candidates(BlockRow(0), 10).await.unwrap();
    assert_eq!(left, [(rows[1], 10)]);
    // A put that pins it does not need the name.
    let (pins, _) = pinned(&repo, writer, &entries_of(&keys)).await;
    assert!(repo.mark_stored(pins, &marks(&rows), &[]).await.unwrap());
    assert_eq!(repo.layouts().await.unwrap(), (0, 2));
}

/// As if so much time had gone by.
async fn end_dooms(place: &impl DatabasePlace) {
    place.sql("UPDATE data_block SET doomed_until = 2 WHERE doomed_until > 2").await;
}

async fn left(repo: &ManifestRepo) -> Vec<BlockRow> {
    repo.left_names(BlockRow(0), 10).await.unwrap().iter().map(|record| record.row).collect()
}

async fn begin(repo: &ManifestRepo, writer: WriterId) -> BlobRow {
    repo.begin(writer, "fixed:10").await.unwrap().unwrap()
}

/// The answer of a pin: whether each block is stored, in a pack, and doomed.
fn told(pinned: Pinned) -> Vec<(bool, bool, bool)> {
    let Pinned::Blocks(blocks) = pinned else { panic!("{pinned:?}") };
    blocks.iter().map(|block| (block.stored, block.located.is_some(), block.doomed.is_some())).collect()
}

async fn a_doom_of_a_name_holds_up_whoever_would_write_it(place: &impl DatabasePlace) {
    let (repo, writer, keys, rows) = in_files(place, 3).await;
    let held = pack(&repo, writer).await;
    move_all(&repo, &rows, &held, LONG).await;
    // It holds nobody up who relies on the pack.
    let pins = begin(&repo, writer).await;
    let entries = entries_of(&keys);
    assert_eq!(told(repo.pin(pins, &entries).await.unwrap()), [(true, true, true); 3]);
    repo.abort(pins).await.unwrap();
    // Others leave the doom alone.
    assert_eq!(repo.doom_names(TWO, &rows, LONG).await.unwrap(), []);
    assert_eq!(repo.doom_names(ONE, &rows, LONG).await.unwrap(), [], "also of an earlier step");
    assert!(left(&repo).await.is_empty());
    // The record of one is damaged: its name is not to be written.
    place.sql(&format!("UPDATE data_block SET stored = FALSE WHERE id = {}", rows[1].0)).await;
    let pins = begin(&repo, writer).await;
    let doomed = repo.pin(pins, &entries).await.unwrap();
    assert!(matches!(doomed, Pinned::Doomed { remaining } if remaining <= LONG), "{doomed:?}");
    let pinned = told(repo.pin_into_packs(pins, &entries).await.unwrap());
    assert_eq!(pinned, [(true, true, true), (false, true, true), (true, true, true)]);
    repo.abort(pins).await.unwrap();
    // Nobody releases a block whose name is doomed.
    place.sql("DELETE FROM blob_block").await;
    assert_eq!(repo.packed_candidates(BlockRow(0), 10).await.unwrap(), []);
    assert_eq!(repo.release(&rows).await.unwrap().blocks, 0);
    assert!(repo.settle_names(ONE, &keys).await.unwrap().len() <= 1);
    assert_eq!(repo.packed_candidates(BlockRow(0), 10).await.unwrap().len(), 3);
    assert_eq!(repo.release(&rows).await.unwrap().blocks, 3);
}

async fn a_doom_that_has_ended_stays_until_its_object_is_gone(place: &impl DatabasePlace) {
    let (repo, writer, keys, rows) = in_files(place, 4).await;
    let held = pack(&repo, writer).await;
    move_all(&repo, &rows, &held, LONG).await;
    repo.settle_names(ONE, &keys[..1]).await.unwrap();
    // Not carried out.
    repo.end_names(TWO, &keys).await.unwrap();
    assert!(left(&repo).await.is_empty(), "it is another's");
    repo.end_names(ONE, &keys[1..2]).await.unwrap();
    assert_eq!(left(&repo).await, rows[1..2]);
    end_dooms(place).await;
    assert_eq!(left(&repo).await, rows[1..]);
    // Neither a put nor a release takes it away.
    let entries = entries_of(&keys);
    for into_packs in [false, true] {
        let pins = begin(&repo, writer).await;
        let pinned = if into_packs {
            repo.pin_into_packs(pins, &entries).await
        } else {
            repo.pin(pins, &entries).await
        };
        assert_eq!(told(pinned.unwrap()), [(true, true, false); 4]);
        assert_eq!(repo.doom_names(TWO, &rows[1..], LONG).await.unwrap(), [], "a put uses them");
        repo.abort(pins).await.unwrap();
        assert_eq!(left(&repo).await, rows[1..]);
    }
    assert_eq!(repo.packed_candidates(BlockRow(0), 10).await.unwrap(), []);
    assert_eq!(repo.release(&rows).await.unwrap().referenced, 0);
    // It is doomed again to be deleted, or nothing is there.
    assert_eq!(repo.doom_names(TWO, &rows[1..2], LONG).await.unwrap(), keys[1..2]);
    assert_eq!(left(&repo).await, rows[2..]);
    repo.lift_ended(&rows[..3]).await.unwrap();
    assert_eq!(left(&repo).await, rows[3..]);
    assert_eq!(repo.release(&rows).await.unwrap().referenced, 1);
    assert_eq!(repo.doom_names(ONE, &rows[1..3], LONG).await.unwrap(), keys[2..3], "the other is doomed");
}

async fn a_block_that_is_written_into_a_pack_keeps_the_doom_of_its_name(place: &impl DatabasePlace) {
    let (repo, writer, keys, rows) = in_files(place, 3).await;
    let held = pack(&repo, writer).await;
    let marks = move_all(&repo, &rows, &held, LONG).await;
    place.sql(&format!("UPDATE data_block SET stored = FALSE WHERE id <> {}", rows[0].0)).await;
    let places: Vec<Place> = placed(&rows, &held, 1_000).iter().filter_map(|mark| mark.place).collect();
    // One that is found damaged and marked, and two by the short path.
    let entries = entries_of(&keys);
    let pins = begin(&repo, writer).await;
    repo.pin_into_packs(pins, &entries).await.unwrap();
    let healed = Mark { row: rows[0], place: Some(places[0]), found: marks[0].place };
    assert!(repo.mark_stored(pins, &[healed], &[held]).await.unwrap());
    repo.abort(pins).await.unwrap();
    let packed = |number: usize, found| (keys[number], Packed { place: Some((places[number], held)), found });
    let whole = |packed: Vec<(BlockKey, Packed)>, numbers: std::ops::Range<usize>| Commit::Whole {
        id: id_of("short", &entries_of(&keys[numbers.clone()])),
        chunker: "fixed:10".into(),
        entries: entries_of(&keys[numbers]).into(),
        in_place: Box::new(|_| false),
        packed: Arc::new(packed.into_iter().collect()),
    };
    let short = whole(vec![packed(1, None), packed(2, None)], 1..3);
    assert_eq!(repo.commit(vec![short].into()).await.unwrap(), [Committed::Created]);
    let now: Vec<Option<Place>> = repo
        .packed_blocks(BlockRow(0), 10)
        .await
        .unwrap()
        .iter()
        .map(|record| record.located.map(|located| located.place))
        .collect();
    assert_eq!(now, places.iter().map(|place| Some(*place)).collect::<Vec<_>>());
    // All of them are doomed still.
    assert_eq!(repo.doom_names(TWO, &rows, LONG).await.unwrap(), []);
    end_dooms(place).await;
    assert_eq!(left(&repo).await, rows);
}

async fn a_block_that_moves_out_of_a_pack_loses_a_doom_that_has_ended(place: &impl DatabasePlace) {
    let (repo, writer, keys, rows) = in_files(place, 3).await;
    let held = pack(&repo, writer).await;
    let marks = move_all(&repo, &rows, &held, LONG).await;
    end_dooms(place).await;
    let back: Vec<Mark> = marks.iter().map(|mark| Mark { place: None, found: mark.place, ..*mark }).collect();
    let pins = begin(&repo, writer).await;
    assert_eq!(told(repo.pin(pins, &entries_of(&keys)).await.unwrap()), [(true, true, false); 3]);
    // By a repack, and by a put that found the record damaged.
    assert_eq!(repo.move_to_files(pins, &back[..1]).await.unwrap().unwrap(), rows[..1]);
    assert!(repo.mark_stored(pins, &back[1..2], &[]).await.unwrap());
    repo.abort(pins).await.unwrap();
    assert_eq!(repo.layouts().await.unwrap(), (2, 1));
    let again = placed(&rows, &held, 1_000);
    let mut moved = repo.move_to_packs(TWO, &again, &[held], LONG).await.unwrap().unwrap();
    moved.sort_unstable();
    assert_eq!(moved, rows[..2], "their dooms are gone");
}

async fn a_name_is_marked_before_it_is_written(place: &impl DatabasePlace) {
    let (repo, writer, keys, rows) = in_files(place, 3).await;
    let held = pack(&repo, writer).await;
    move_all(&repo, &rows[..2], &held, LONG).await;
    repo.settle_names(ONE, &keys[..1]).await.unwrap();
    let (pins, _) = pinned(&repo, writer, &entries_of(&keys[..1])).await;
    repo.mark_names(TWO, &rows).await.unwrap();
    // One is doomed, and one in no pack.
    assert_eq!(left(&repo).await, rows[..1]);
    repo.lift_ended(&rows).await.unwrap();
    assert_eq!(left(&repo).await, rows[..1], "the name may be about to be written");
    repo.abort(pins).await.unwrap();
    assert_eq!(repo.release(&rows).await.unwrap().referenced, 0);
    repo.lift_ended(&rows).await.unwrap();
    assert!(left(&repo).await.is_empty());
    assert_eq!(repo.release(&rows).await.unwrap().referenced, 1);
}

async fn a_move_is_repeated_whose_answer_was_lost(place: &impl DatabasePlace) {
    let (repo, writer, _, rows) = in_files(place, 2).await;
    let held = pack(&repo, writer).await;
    let marks = move_all(&repo, &rows, &held, LONG).await;
    assert_eq!(move_all(&repo, &rows, &held, LONG).await, marks);
    // To another place, or by another run: they have moved.
    let other = placed(&rows, &held, 1_000);
    assert_eq!(repo.move_to_packs(ONE, &other, &[held], LONG).await.unwrap().unwrap(), []);
    assert_eq!(repo.move_to_packs(TWO, &marks, &[held], LONG).await.unwrap().unwrap(), []);
}
