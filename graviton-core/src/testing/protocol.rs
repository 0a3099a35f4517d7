//! The put protocol, step by step, against any manifest repository.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use super::database_place::{
    CHUNKER, DatabasePlace, LEASE, entries_of, id_of, key, live, marks, pinned, plain, put,
};
use crate::key::{BlobId, BlockKey};
use crate::manifest::{
    BlobRow, BlockRow, Commit,
    Committed::{self, Created, Existed, Expired, NotInPlace},
    Durability, ManifestEntry, ManifestRepo, Mark, Pinned, PinnedBlock, PlacedEntry,
};

pub(super) async fn all<P: DatabasePlace>(make: impl AsyncFn() -> P) {
    a_put_is_visible_from_its_commit_on(&make().await).await;
    pins_can_be_repeated(&make().await).await;
    a_commit_needs_all_its_pins(&make().await).await;
    pins_need_a_pending_blob(&make().await).await;
    marks_need_a_pending_blob(&make().await).await;
    a_doomed_block_is_not_pinned(&make().await).await;
    an_expired_member_does_not_hurt_its_group(&make().await).await;
    one_content_is_created_once(&make().await).await;
    a_whole_commit_can_be_repeated(&make().await).await;
    a_pinned_commit_can_be_repeated(&make().await).await;
    a_whole_blob_is_committed_at_once(&make().await).await;
    a_whole_blob_not_in_place_changes_nothing(&make().await).await;
    a_block_that_is_replaced_during_the_commit_leaves_no_hole(&make().await).await;
    a_whole_blob_heals_damaged_blocks(&make().await).await;
    deleted_content_can_be_put_again(&make().await).await;
    durability_is_noted(&make().await).await;
}

fn keys(range: std::ops::Range<u32>) -> Vec<BlockKey> {
    range.map(|number| key(number, 10)).collect()
}

fn commit_of(row: BlobRow, id: BlobId, stored: &[BlockRow]) -> Commit {
    Commit::Pinned { row, id, block_count: id.size() / 10, marks: marks(stored), packs: vec![] }
}

fn whole(
    id: BlobId,
    entries: &[ManifestEntry],
    in_place: impl Fn(&BlockKey) -> bool + Send + Sync + 'static,
) -> Commit {
    Commit::Whole {
        id,
        chunker: CHUNKER.into(),
        entries: entries.into(),
        in_place: Box::new(in_place),
        packed: Arc::default(),
    }
}

/// Whether each block's row says `stored`; `None` without a row.
async fn stored(repo: &ManifestRepo, keys: &[BlockKey]) -> Vec<Option<bool>> {
    repo.known(&[], keys).await.unwrap().stored
}

/// Acts like a collector that has chosen these blocks.
async fn doom(place: &impl DatabasePlace, rows: &[BlockRow], until: SystemTime) {
    let until = until.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    let rows: Vec<String> = rows.iter().map(|row| row.0.to_string()).collect();
    place
        .sql(&format!(
            "UPDATE data_block SET stored = FALSE, doomed_by = 1, doomed_until = {until} WHERE id IN ({})",
            rows.join(", ")
        ))
        .await;
}

fn in_a_minute() -> SystemTime {
    SystemTime::now() + Duration::from_secs(60)
}

async fn a_put_is_visible_from_its_commit_on(place: &impl DatabasePlace) {
    let (repo, other) = (place.open(Durability::Full).await, place.open(Durability::Full).await);
    let writer = repo.register_writer(LEASE).await.unwrap();
    let entries = entries_of(&keys(0..3));
    let id = id_of("blob", &entries);
    let row = repo.begin(writer, CHUNKER).await.unwrap().unwrap();
    let Pinned::Blocks(blocks) = repo.pin(row, &entries).await.unwrap() else { panic!("cannot pin") };
    assert!(blocks.iter().all(|block| !block.stored), "nobody has stored them");
    assert_eq!(stored(&other, &keys(0..3)).await, [Some(false); 3]);
    assert!(repo.mark_stored(row, &[Mark::named(blocks[1].row)], &[]).await.unwrap());
    assert_eq!(stored(&other, &keys(0..3)).await, [Some(false), Some(true), Some(false)]);
    assert!(live(&other).await.is_empty(), "a pending blob is visible");
    assert_eq!(other.find(&id, 1).await.unwrap(), None);

    let commit = commit_of(row, id, &[blocks[0].row, blocks[2].row]);
    assert_eq!(repo.commit([commit].into()).await.unwrap(), [Created]);
    assert_eq!(live(&other).await, [id]);
    assert_eq!(stored(&other, &keys(0..3)).await, [Some(true); 3]);
    let (record, found) = other.find(&id, 10).await.unwrap().unwrap();
    assert_eq!((record.row, record.block_count, plain(&found)), (row, 3, entries));
    // An abort that comes too late changes nothing.
    repo.abort(row).await.unwrap();
    assert_eq!(live(&other).await, [id]);
}

async fn pins_can_be_repeated(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    let writer = repo.register_writer(LEASE).await.unwrap();
    // The largest pin, with the same block at several positions in it and in two pins.
    let mut all = keys(0..1_024);
    (all[7], all[1_023]) = (all[3], all[3]);
    let entries = entries_of(&all);
    let row = repo.begin(writer, CHUNKER).await.unwrap().unwrap();
    let first = repo.pin(row, &entries).await.unwrap();
    let Pinned::Blocks(blocks) = &first else { panic!("cannot pin") };
    assert_eq!(blocks.len(), 1_024);
    assert!(blocks[3] == blocks[7] && blocks[3] == blocks[1_023], "one block has several rows");
    assert_eq!(blocks.iter().map(|block| block.row).collect::<HashSet<_>>().len(), 1_022);
    assert_eq!(repo.pin(row, &entries).await.unwrap(), first);
    assert_eq!(repo.pin(row, &entries[100..200]).await.unwrap(), Pinned::Blocks(blocks[100..200].to_vec()));
    assert_eq!(repo.pin(row, &[]).await.unwrap(), Pinned::Blocks(Vec::new()));

    let rows: Vec<BlockRow> = blocks.iter().map(|block| block.row).collect();
    assert!(repo.mark_stored(row, &marks(&rows), &[]).await.unwrap());
    assert!(repo.mark_stored(row, &marks(&rows), &[]).await.unwrap(), "marks can be repeated");
    // The next put of the same blocks finds them stored, under the same rows, in the order of its own
    // request.
    let row = repo.begin(writer, CHUNKER).await.unwrap().unwrap();
    all.reverse();
    let expected = rows
        .iter()
        .rev()
        .map(|row| PinnedBlock { row: *row, stored: true, located: None, damaged: false, doomed: None })
        .collect();
    assert_eq!(repo.pin(row, &entries_of(&all)).await.unwrap(), Pinned::Blocks(expected));
    let found = repo.entries(row, 0, 2_000).await.unwrap();
    assert_eq!(found, entries_of(&all));
}

/// A database that replaced another one meanwhile may lack the last pins.
async fn a_commit_needs_all_its_pins(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    let writer = repo.register_writer(LEASE).await.unwrap();
    let entries = entries_of(&keys(0..3));
    let id = id_of("short of a pin", &entries);
    let row = repo.begin(writer, CHUNKER).await.unwrap().unwrap();
    let Pinned::Blocks(blocks) = repo.pin(row, &entries[..2]).await.unwrap() else { panic!("cannot pin") };
    let rows: Vec<BlockRow> = blocks.iter().map(|block| block.row).collect();
    let outcome = repo.commit([commit_of(row, id, &rows)].into()).await.unwrap();
    assert_eq!(outcome, [Expired]);
    assert!(live(&repo).await.is_empty(), "a blob without its last block is live");
    assert!(matches!(repo.pin(row, &entries[2..]).await.unwrap(), Pinned::Blocks(_)));
    assert_eq!(repo.commit([commit_of(row, id, &rows)].into()).await.unwrap(), [Created]);
}

/// Blobs that stopped being pending in each possible way, and one that never was.
async fn not_pending(
    place: &impl DatabasePlace,
    repo: &ManifestRepo,
    name: &str,
) -> Vec<(&'static str, BlobRow)> {
    let writer = repo.register_writer(LEASE).await.unwrap();
    let aborted = repo.begin(writer, CHUNKER).await.unwrap().unwrap();
    repo.abort(aborted).await.unwrap();
    repo.abort(aborted).await.unwrap();
    let expired = repo.begin(writer, CHUNKER).await.unwrap().unwrap();
    expire(place, expired).await;
    let committed = put(repo, writer, id_of(name, &[]), &[]).await;
    vec![
        ("aborted", aborted),
        ("expired", expired),
        ("committed", committed),
        ("unknown", BlobRow(committed.0 + 1_000)),
    ]
}

/// Acts like a collector on a pending blob whose writer's lease is over.
async fn expire(place: &impl DatabasePlace, row: BlobRow) {
    place.sql(&format!("UPDATE blob SET state = 2, deleted_at = 1 WHERE id = {} AND state = 0", row.0)).await;
}

async fn pins_need_a_pending_blob(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    for (why, row) in not_pending(place, &repo, "pins").await {
        assert_eq!(repo.pin(row, &entries_of(&keys(0..3))).await.unwrap(), Pinned::Expired, "{why}");
        assert_eq!(repo.entries(row, 0, 10).await.unwrap(), [] as [PlacedEntry; 0], "{why}");
    }
    assert_eq!(stored(&repo, &keys(0..3)).await, [None; 3], "an expired pin left rows");
}

async fn marks_need_a_pending_blob(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    let writer = repo.register_writer(LEASE).await.unwrap();
    let (_, blocks) = pinned(&repo, writer, &entries_of(&keys(0..3))).await;
    for (why, row) in not_pending(place, &repo, "marks").await {
        assert!(!repo.mark_stored(row, &marks(&blocks), &[]).await.unwrap(), "{why}");
    }
    assert_eq!(stored(&repo, &keys(0..3)).await, [Some(false); 3]);
}

async fn a_doomed_block_is_not_pinned(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    let writer = repo.register_writer(LEASE).await.unwrap();
    let (first, blocks) = pinned(&repo, writer, &entries_of(&keys(0..3))).await;
    assert!(repo.mark_stored(first, &marks(&blocks), &[]).await.unwrap());
    doom(place, &blocks[1..2], in_a_minute()).await;
    let row = repo.begin(writer, CHUNKER).await.unwrap().unwrap();
    match repo.pin(row, &entries_of(&keys(0..5))).await.unwrap() {
        Pinned::Doomed { remaining, .. } => assert!(remaining <= Duration::from_secs(61), "{remaining:?}"),
        other => panic!("a doomed block was pinned: {other:?}"),
    }
    assert_eq!(
        repo.entries(row, 0, 10).await.unwrap(),
        [] as [PlacedEntry; 0],
        "a refused pin left references"
    );
    assert_eq!(stored(&repo, &keys(3..5)).await, [None; 2], "a refused pin left blocks");
    // No put may rely on a block that is about to be deleted.
    assert_eq!(stored(&repo, &keys(0..3)).await, [Some(true), Some(false), Some(true)]);

    // A doom that has run out is over, and the bytes have to be written again.
    doom(place, &blocks[1..2], SystemTime::now() - Duration::from_secs(10)).await;
    let Pinned::Blocks(again) = repo.pin(row, &entries_of(&keys(0..5))).await.unwrap() else {
        panic!("a doom that ran out still holds")
    };
    assert_eq!(again.iter().map(|block| block.row).take(3).collect::<Vec<_>>(), blocks);
    let says: Vec<bool> = again.iter().map(|block| block.stored).collect();
    assert_eq!(says, [true, false, true, false, false]);
    // The doom is also removed from the row: a doom that only the clock ended would return if the clock were
    // set back.
    place.sql("UPDATE data_block SET doomed_until = 9000000000000 WHERE doomed_by IS NOT NULL").await;
    assert!(matches!(repo.pin(row, &entries_of(&keys(0..5))).await.unwrap(), Pinned::Blocks(_)));
}

async fn an_expired_member_does_not_hurt_its_group(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    let writer = repo.register_writer(LEASE).await.unwrap();
    let mut members = Vec::new();
    for number in 0..5_u32 {
        let entries = entries_of(&keys(number * 3..number * 3 + 3));
        let (row, blocks) = pinned(&repo, writer, &entries).await;
        members.push((row, id_of(&format!("member {number}"), &entries), blocks));
    }
    repo.abort(members[1].0).await.unwrap();
    expire(place, members[3].0).await;
    let commits: Arc<[Commit]> =
        members.iter().map(|(row, id, blocks)| commit_of(*row, *id, blocks)).collect();
    let outcome = repo.commit(Arc::clone(&commits)).await.unwrap();
    assert_eq!(outcome, [Created, Expired, Created, Expired, Created]);
    let mut ids = vec![members[0].1, members[2].1, members[4].1];
    ids.sort_unstable();
    assert_eq!(live(&repo).await, ids);
    // Blocks that an expired put wrote may have been collected since.
    assert_eq!(stored(&repo, &keys(3..6)).await, [Some(false); 3]);
    assert_eq!(stored(&repo, &keys(9..12)).await, [Some(false); 3]);
    assert_eq!(stored(&repo, &keys(0..3)).await, [Some(true); 3]);
}

async fn one_content_is_created_once(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    let writer = repo.register_writer(LEASE).await.unwrap();
    let entries = entries_of(&keys(0..2));
    let id = id_of("twins", &entries);
    let (one, blocks) = pinned(&repo, writer, &entries).await;
    let (two, _) = pinned(&repo, writer, &entries).await;
    let (three, _) = pinned(&repo, writer, &entries).await;
    let in_place = |_: &BlockKey| true;
    let commits: Arc<[Commit]> =
        [commit_of(one, id, &blocks), commit_of(two, id, &blocks), whole(id, &entries, in_place)].into();
    assert_eq!(repo.commit(Arc::clone(&commits)).await.unwrap(), [Created, Existed, Existed]);
    assert_eq!(repo.commit([commit_of(three, id, &blocks)].into()).await.unwrap(), [Existed]);
    assert_eq!(live(&repo).await, [id]);
    assert_eq!(repo.find(&id, 0).await.unwrap().unwrap().0.row, one);
    // The twin rows are not pending; otherwise the writer could not be removed.
    repo.remove_writer(writer).await.unwrap();
    assert!(!repo.renew_writer(writer, LEASE).await.unwrap());

    let other = id_of("whole twins", &entries);
    let commits: Arc<[Commit]> = [whole(other, &entries, in_place), whole(other, &entries, in_place)].into();
    assert_eq!(repo.commit(Arc::clone(&commits)).await.unwrap(), [Created, Existed]);
    assert_eq!(repo.find(&other, 9).await.unwrap().unwrap().1, entries);
}

async fn a_whole_commit_can_be_repeated(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    let entries = entries_of(&keys(0..2));
    let id = id_of("whole", &entries);
    let in_place = |_: &BlockKey| true;
    let commits: Arc<[Commit]> = [whole(id, &entries, in_place)].into();
    assert_eq!(repo.commit(Arc::clone(&commits)).await.unwrap(), [Created]);
    // The answer was lost, and the group is committed again.
    assert_eq!(repo.commit(Arc::clone(&commits)).await.unwrap(), [Existed]);
    assert_eq!(repo.find(&id, 9).await.unwrap().unwrap().1, entries);
}

async fn a_pinned_commit_can_be_repeated(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    let writer = repo.register_writer(LEASE).await.unwrap();
    let entries = entries_of(&keys(0..2));
    let (id, twin) = (id_of("one", &entries), id_of("one", &entries));
    let (row, blocks) = pinned(&repo, writer, &entries).await;
    let (twin_row, _) = pinned(&repo, writer, &entries).await;
    let commits: Arc<[Commit]> = [commit_of(row, id, &blocks), commit_of(twin_row, twin, &blocks)].into();
    assert_eq!(repo.commit(Arc::clone(&commits)).await.unwrap(), [Created, Existed]);
    // The answer was lost, and the group is committed again.
    assert_eq!(repo.commit(Arc::clone(&commits)).await.unwrap(), [Created, Existed]);
    assert_eq!(live(&repo).await, [id]);
    assert_eq!(repo.find(&id, 9).await.unwrap().unwrap().1, entries);
}

async fn a_whole_blob_is_committed_at_once(place: &impl DatabasePlace) {
    let (repo, other) = (place.open(Durability::Full).await, place.open(Durability::Full).await);
    let asked = Arc::new(Mutex::new(HashSet::new()));
    let noted = Arc::clone(&asked);
    let in_place = move |key: &BlockKey| {
        noted.lock().unwrap().insert(*key);
        true
    };
    // The same block twice in one blob, and shared with another blob of the group.
    let mut all = keys(0..4);
    all.push(all[0]);
    let (one, two) = (entries_of(&all), entries_of(&keys(3..6)));
    let ids = [id_of("one", &one), id_of("two", &two), id_of("empty", &[])];
    let commits: Arc<[Commit]> = [
        whole(ids[0], &one, in_place.clone()),
        whole(ids[1], &two, in_place.clone()),
        whole(ids[2], &[], in_place),
    ]
    .into();
    assert_eq!(repo.commit(Arc::clone(&commits)).await.unwrap(), [Created; 3]);
    assert_eq!(*asked.lock().unwrap(), keys(0..6).into_iter().collect(), "blocks taken for granted");
    assert_eq!(stored(&other, &keys(0..6)).await, [Some(true); 6]);
    for (id, entries) in ids.iter().zip([&one, &two, &Vec::new()]) {
        let (record, found) = other.find(id, 10).await.unwrap().unwrap();
        assert_eq!((&plain(&found), record.block_count), (entries, entries.len() as u64));
        assert_eq!(record.chunker, CHUNKER);
    }
    // Blocks that are stored need no proof.
    let three = entries_of(&keys(2..5));
    let never = |key: &BlockKey| panic!("asked for {key}, which is stored");
    let commit = whole(id_of("three", &three), &three, never);
    assert_eq!(repo.commit([commit].into()).await.unwrap(), [Created]);
}

/// Another put replaces the file of the block just after the commit has checked it.
async fn a_block_that_is_replaced_during_the_commit_leaves_no_hole(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    let entries = entries_of(&keys(0..3));
    let id = id_of("replaced", &entries);
    let seen = Mutex::new(HashSet::new());
    let in_place = move |key: &BlockKey| seen.lock().unwrap().insert(*key);
    assert_eq!(repo.commit([whole(id, &entries, in_place)].into()).await.unwrap(), [Created]);
    assert_eq!(plain(&repo.find(&id, 9).await.unwrap().unwrap().1), entries);
    assert_eq!(stored(&repo, &keys(0..3)).await, [Some(true); 3]);
}

async fn a_whole_blob_not_in_place_changes_nothing(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    let writer = repo.register_writer(LEASE).await.unwrap();
    let (_, blocks) = pinned(&repo, writer, &entries_of(&keys(10..12))).await;
    doom(place, &blocks[..1], in_a_minute()).await;
    let gone = key(1, 10);
    let in_place = move |key: &BlockKey| *key != gone;
    let lists = [keys(0..3), vec![key(20, 10), key(10, 10)], vec![key(30, 10), key(11, 10)], keys(40..41)];
    let lists = lists.map(|keys| entries_of(&keys));
    let id = |number: usize| id_of(&format!("whole {number}"), &lists[number]);
    let commits: Arc<[Commit]> = (0..4).map(|number| whole(id(number), &lists[number], in_place)).collect();
    // Not in place; doomed; pinned by another put and in place; fresh and in place.
    assert_eq!(repo.commit(Arc::clone(&commits)).await.unwrap(), [NotInPlace, NotInPlace, Created, Created]);
    let mut ids = vec![id(2), id(3)];
    ids.sort_unstable();
    assert_eq!(live(&repo).await, ids);
    assert_eq!(stored(&repo, &keys(0..3)).await, [None; 3], "a refused blob left blocks");
    assert_eq!(stored(&repo, &[key(20, 10), key(10, 10)]).await, [None, Some(false)]);
    assert_eq!(stored(&repo, &[key(30, 10), key(11, 10)]).await, [Some(true); 2]);
}

async fn a_whole_blob_heals_damaged_blocks(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    let writer = repo.register_writer(LEASE).await.unwrap();
    let entries = entries_of(&keys(0..3));
    let id = id_of("damaged", &entries);
    put(&repo, writer, id, &entries).await;
    // `verify` does this to the blocks that it finds damaged.
    place.sql("UPDATE data_block SET stored = FALSE").await;
    let written = key(1, 10);
    let in_place = move |key: &BlockKey| *key == written;
    assert_eq!(repo.commit([whole(id, &entries, in_place)].into()).await.unwrap(), [Existed]);
    assert_eq!(stored(&repo, &keys(0..3)).await, [Some(false), Some(true), Some(false)]);
    assert_eq!(live(&repo).await, [id]);
}

async fn deleted_content_can_be_put_again(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    let writer = repo.register_writer(LEASE).await.unwrap();
    let entries = entries_of(&keys(0..2));
    let id = id_of("again", &entries);
    let first = put(&repo, writer, id, &entries).await;
    place.sql(&format!("UPDATE blob SET state = 2, deleted_at = 1 WHERE id = {}", first.0)).await;
    assert!(live(&repo).await.is_empty());
    assert_eq!(repo.known(&[id], &[]).await.unwrap().live, [false]);
    let second = put(&repo, writer, id, &entries).await;
    assert_ne!(first, second);
    assert_eq!(repo.find(&id, 9).await.unwrap().unwrap().1, entries);
    place.sql(&format!("UPDATE blob SET state = 2, deleted_at = 1 WHERE id = {}", second.0)).await;
    let in_place = |_: &BlockKey| false;
    // The blocks are still stored: no collector has run yet.
    assert_eq!(repo.commit([whole(id, &entries, in_place)].into()).await.unwrap(), [Created]);
    assert_eq!(repo.find(&id, 9).await.unwrap().unwrap().1, entries);
}

/// A store that promises durability does not rely on blocks that another process did not sync.
async fn durability_is_noted(place: &impl DatabasePlace) {
    let (full, relaxed) = (place.open(Durability::Full).await, place.open(Durability::Relaxed).await);
    let writer = full.register_writer(LEASE).await.unwrap();
    let entries = entries_of(&keys(0..2));
    let (row, blocks) = pinned(&full, writer, &entries).await;

    // Opening the store changes nothing; a mark or a commit does.
    assert_eq!(full.store().await.unwrap().durability, Durability::Full);
    let in_place = |_: &BlockKey| true;
    let other = entries_of(&keys(2..4));
    let commit = whole(id_of("relaxed", &other), &other, in_place);
    assert_eq!(relaxed.commit([commit].into()).await.unwrap(), [Created]);
    assert_eq!(full.store().await.unwrap().durability, Durability::Relaxed);

    let id = id_of("full", &entries);
    let third = entries_of(&keys(4..5));
    let third_id = id_of("third", &third);
    let commits: Arc<[Commit]> = [commit_of(row, id, &blocks), whole(third_id, &third, in_place)].into();
    assert_eq!(full.commit(Arc::clone(&commits)).await.unwrap(), [Committed::NotDurable; 2]);
    assert_eq!(live(&full).await.len(), 1);
    assert_eq!(stored(&full, &keys(4..5)).await, [None]);
    full.set_durability(Durability::Full).await.unwrap();
    assert_eq!(full.commit(Arc::clone(&commits)).await.unwrap(), [Created; 2]);

    let writer = relaxed.register_writer(LEASE).await.unwrap();
    let (row, blocks) = pinned(&relaxed, writer, &entries_of(&keys(7..8))).await;
    assert_eq!(full.store().await.unwrap().durability, Durability::Full);
    assert!(relaxed.mark_stored(row, &marks(&blocks), &[]).await.unwrap());
    assert_eq!(full.store().await.unwrap().durability, Durability::Relaxed);
}
