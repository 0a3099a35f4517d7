//! Deletion, collection and verification, step by step, against any manifest repository.

use std::sync::Arc;
use std::time::Duration;

use super::database_place::{CHUNKER, DatabasePlace, LEASE, entries_of, id_of, key, live, pinned, put};
use crate::key::BlockKey;
use crate::manifest::{
    BlobRow, BlockRow, Collection, Commit, Committed, Durability, LookAgain, ManifestRepo, Pinned, Restored,
};

pub(super) async fn all<P: DatabasePlace>(make: impl AsyncFn() -> P) {
    a_deleted_blob_can_be_restored_until_it_loses_its_name(&make().await).await;
    the_grace_is_kept(&make().await).await;
    a_clock_that_was_ahead_holds_nothing_up(&make().await).await;
    abandoned_puts_expire(&make().await).await;
    references_go_in_parts_and_the_blob_last(&make().await).await;
    blobs_go_together_up_to_the_limit(&make().await).await;
    only_what_nothing_refers_to_is_doomed(&make().await).await;
    what_is_settled_goes_if_it_is_still_doomed(&make().await).await;
    a_doom_belongs_to_its_collection(&make().await).await;
    a_bad_block_is_marked_under_its_lock(&make().await).await;
    adopted_blocks_are_candidates(&make().await).await;
    a_plan_counts_what_a_collection_does(&make().await).await;
}

const ONE: Collection = Collection(1);
const TWO: Collection = Collection(i64::MAX);
const MINUTE: Duration = Duration::from_secs(60);
const NOW: Duration = Duration::ZERO;

fn keys(range: std::ops::Range<u32>) -> Vec<BlockKey> {
    range.map(|number| key(number, 10)).collect()
}

/// Puts a blob of these blocks and reaps it, so that they become candidates.
async fn garbage(repo: &ManifestRepo, keys: &[BlockKey]) {
    let writer = repo.register_writer(LEASE).await.unwrap();
    let entries = entries_of(keys);
    let id = id_of("garbage", &entries);
    put(repo, writer, id, &entries).await;
    assert!(repo.delete(&id).await.unwrap());
    reap(repo).await;
}

async fn reap(repo: &ManifestRepo) {
    repo.discard(NOW, 100).await.unwrap();
    let blobs = repo.discarded_blobs(BlobRow(0), 100).await.unwrap();
    let mut rest = &blobs[..];
    while !rest.is_empty() {
        rest = &rest[repo.reap(rest, 100).await.unwrap()..];
    }
}

async fn doom(repo: &ManifestRepo, by: Collection) -> Vec<(BlockRow, BlockKey)> {
    doom_for(repo, by, MINUTE).await
}

async fn doom_for(repo: &ManifestRepo, by: Collection, lasts: Duration) -> Vec<(BlockRow, BlockKey)> {
    let candidates = repo.candidates(BlockRow(0), 100).await.unwrap();
    let mut doomed = repo.doom(by, &rows(&candidates), lasts).await.unwrap().blocks;
    doomed.sort_unstable_by_key(|(_, key)| *key);
    doomed
}

fn rows(doomed: &[(BlockRow, BlockKey)]) -> Vec<BlockRow> {
    doomed.iter().map(|(row, _)| *row).collect()
}

fn keys_of(doomed: &[(BlockRow, BlockKey)]) -> Vec<BlockKey> {
    doomed.iter().map(|(_, key)| *key).collect()
}

async fn settle(repo: &ManifestRepo, by: Collection, own: &[BlockKey]) -> (Vec<BlockKey>, Vec<usize>) {
    let mut settled = repo.settle(by, own, &[]).await.unwrap();
    settled.gone.sort_unstable();
    settled.undoomed.sort_unstable();
    (settled.gone, settled.undoomed)
}

async fn stored(repo: &ManifestRepo, keys: &[BlockKey]) -> Vec<Option<bool>> {
    repo.known(&[], keys).await.unwrap().stored
}

async fn a_deleted_blob_can_be_restored_until_it_loses_its_name(place: &impl DatabasePlace) {
    let (repo, other) = (place.open(Durability::Full).await, place.open(Durability::Full).await);
    let writer = repo.register_writer(LEASE).await.unwrap();
    let entries = entries_of(&keys(0..3));
    let id = id_of("deleted", &entries);
    assert!(!repo.delete(&id).await.unwrap());
    assert_eq!(repo.restore(&id).await.unwrap(), Restored::NotFound);
    let row = put(&repo, writer, id, &entries).await;
    assert_eq!(repo.restore(&id).await.unwrap(), Restored::Live);
    assert!(repo.delete(&id).await.unwrap());
    assert!(!other.delete(&id).await.unwrap(), "it was deleted twice");
    assert!(live(&other).await.is_empty() && other.find(&id, 9).await.unwrap().is_none());
    // Readers of the blob continue.
    assert_eq!(other.entries(row, 0, 9).await.unwrap(), entries);
    assert_eq!(other.restore(&id).await.unwrap(), Restored::Restored);
    assert_eq!(repo.find(&id, 9).await.unwrap().unwrap().1, entries);

    // A blob that was put again stays as it is. Of two deleted blobs the later one comes back.
    assert!(repo.delete(&id).await.unwrap());
    let second = put(&repo, writer, id, &entries).await;
    assert_eq!(repo.restore(&id).await.unwrap(), Restored::Live);
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(repo.delete(&id).await.unwrap());
    assert_eq!(repo.restore(&id).await.unwrap(), Restored::Restored);
    assert_eq!(repo.find(&id, 9).await.unwrap().unwrap().0.row, second);

    assert!(repo.delete(&id).await.unwrap());
    assert_eq!(repo.discard(NOW, 100).await.unwrap(), 2);
    assert_eq!(repo.restore(&id).await.unwrap(), Restored::NotFound);
    assert_eq!(repo.discarded_blobs(BlobRow(0), 1).await.unwrap(), [row]);
    assert_eq!(repo.discarded_blobs(row, 9).await.unwrap(), [second]);
}

async fn the_grace_is_kept(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    let writer = repo.register_writer(LEASE).await.unwrap();
    let mut ids = Vec::new();
    for number in 0..5 {
        let entries = entries_of(&keys(number..number + 1));
        ids.push(id_of(&format!("grace{number}"), &entries));
        put(&repo, writer, ids[number as usize], &entries).await;
        assert!(repo.delete(&ids[number as usize]).await.unwrap());
    }
    assert_eq!(repo.discard(MINUTE, 100).await.unwrap(), 0);
    place.sql("UPDATE blob SET deleted_at = deleted_at - 70000 WHERE id <= 3").await;
    assert_eq!(repo.discard(MINUTE, 2).await.unwrap(), 2);
    assert_eq!(repo.discard(MINUTE, 2).await.unwrap(), 1);
    assert_eq!(repo.discard(MINUTE, 2).await.unwrap(), 0);
    assert_eq!(repo.restore(&ids[0]).await.unwrap(), Restored::NotFound);
    assert_eq!(repo.restore(&ids[4]).await.unwrap(), Restored::Restored);
}

/// Sets times a year ahead, once for each kind of thing that waits for a time.
async fn a_clock_that_was_ahead_holds_nothing_up(place: &impl DatabasePlace) {
    const YEAR: u64 = 365 * 86_400_000;
    let repo = place.open(Durability::Full).await;
    garbage(&repo, &keys(2..4)).await;
    assert_eq!(doom(&repo, ONE).await.len(), 2);
    let writer = repo.register_writer(LEASE).await.unwrap();
    let entries = entries_of(&keys(0..2));
    let id = id_of("deleted", &entries);
    put(&repo, writer, id, &entries).await;
    assert!(repo.delete(&id).await.unwrap());
    for (table, column) in [("blob", "deleted_at"), ("writer", "expires_at"), ("data_block", "doomed_until")]
    {
        place.sql(&format!("UPDATE {table} SET {column} = {column} + {YEAR} WHERE {column} > 1")).await;
    }
    assert_eq!(repo.discard(NOW, 9).await.unwrap(), 0);
    assert_eq!(repo.plan_garbage(NOW, 9).await.unwrap().named, [id], "a plan brings it back, too");
    assert_eq!(repo.plan_garbage(MINUTE, 9).await.unwrap().named, []);
    assert_eq!(repo.doomed_by_others(TWO).await.unwrap(), 2);
    assert_eq!(repo.bring_times_back(NOW, NOW).await.unwrap(), 5, "a deletion, two leases and two dooms");
    assert_eq!(repo.discard(NOW, 9).await.unwrap(), 1);
    assert_eq!(repo.expire(9).await.unwrap(), 0);
    assert!(!repo.renew_writer(writer, LEASE).await.unwrap(), "its lease ended a year later");
    assert_eq!(doom(&repo, TWO).await.len(), 2, "and the doom");
    // Correct times stay.
    let writer = repo.register_writer(LEASE).await.unwrap();
    assert_eq!(repo.bring_times_back(LEASE, MINUTE).await.unwrap(), 0);
    repo.expire(9).await.unwrap();
    assert!(repo.renew_writer(writer, LEASE).await.unwrap());
}

async fn abandoned_puts_expire(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    let (alive, dead) =
        (repo.register_writer(LEASE).await.unwrap(), repo.register_writer(NOW).await.unwrap());
    let idle = repo.register_writer(NOW).await.unwrap();
    let (kept, _) = pinned(&repo, alive, &entries_of(&keys(0..2))).await;
    let (abandoned, _) = pinned(&repo, dead, &entries_of(&keys(1..3))).await;
    let lost = repo.begin(dead, CHUNKER).await.unwrap().unwrap();
    // The row of its writer is gone, so the writer cannot be alive.
    place.sql(&format!("UPDATE blob SET writer_id = 999999 WHERE id = {}", lost.0)).await;
    assert_eq!(repo.expire(1).await.unwrap() + repo.expire(100).await.unwrap(), 2);
    assert_eq!(repo.expire(100).await.unwrap(), 0);
    assert_eq!(repo.pin(abandoned, &entries_of(&keys(1..3))).await.unwrap(), Pinned::Expired);
    assert!(matches!(repo.pin(kept, &entries_of(&keys(0..2))).await.unwrap(), Pinned::Blocks(_)));
    for gone in [dead, idle] {
        assert!(!repo.renew_writer(gone, LEASE).await.unwrap());
    }
    assert!(repo.renew_writer(alive, LEASE).await.unwrap());
    // These blobs never had a name, and need no grace.
    assert_eq!(repo.discarded_blobs(BlobRow(0), 9).await.unwrap(), [abandoned, lost]);
}

async fn references_go_in_parts_and_the_blob_last(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    let writer = repo.register_writer(LEASE).await.unwrap();
    let mut all = keys(0..10);
    all[9] = all[0];
    let entries = entries_of(&all);
    let id = id_of("parts", &entries);
    let row = put(&repo, writer, id, &entries).await;
    assert!(repo.delete(&id).await.unwrap());
    repo.discard(NOW, 9).await.unwrap();
    assert_eq!(repo.reap(&[row], 4).await.unwrap(), 0);
    assert_eq!(repo.entries(row, 0, 99).await.unwrap(), entries[4..]);
    assert_eq!(repo.reap(&[row], 4).await.unwrap(), 0);
    assert_eq!(repo.discarded_blobs(BlobRow(0), 9).await.unwrap(), [row]);
    assert_eq!(repo.reap(&[row], 4).await.unwrap(), 1);
    assert_eq!(repo.reap(&[row], 4).await.unwrap(), 1, "what is gone is gone");
    assert!(repo.discarded_blobs(BlobRow(0), 9).await.unwrap().is_empty());
    assert_eq!(doom(&repo, ONE).await.len(), 9);
}

async fn blobs_go_together_up_to_the_limit(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    let writer = repo.register_writer(LEASE).await.unwrap();
    let mut rows = Vec::new();
    for (nth, blocks) in [0..2, 1..4, 4..4, 4..9, 2..3].into_iter().enumerate() {
        let entries = entries_of(&keys(blocks));
        let id = id_of(&format!("blob {nth}"), &entries);
        rows.push(put(&repo, writer, id, &entries).await);
        assert!(repo.delete(&id).await.unwrap());
    }
    repo.discard(NOW, 9).await.unwrap();
    assert_eq!(repo.reap(&rows, 7).await.unwrap(), 3, "and two references of the next one");
    assert_eq!(repo.discarded_blobs(BlobRow(0), 9).await.unwrap(), rows[3..]);
    assert_eq!(repo.entries(rows[3], 0, 99).await.unwrap().len(), 3);
    // Exactly as many as are left: the next call shows that there are no more.
    assert_eq!(repo.reap(&rows[3..], 3).await.unwrap(), 0);
    assert_eq!(repo.reap(&rows[3..], 3).await.unwrap(), 2);
    assert_eq!(repo.reap(&rows, 3).await.unwrap(), 5, "what is gone is gone");
    assert!(repo.discarded_blobs(BlobRow(0), 9).await.unwrap().is_empty());
    assert_eq!(doom(&repo, ONE).await.len(), 9);
}

async fn only_what_nothing_refers_to_is_doomed(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    let writer = repo.register_writer(LEASE).await.unwrap();
    let entries = entries_of(&keys(3..5));
    put(&repo, writer, id_of("live", &entries), &entries).await;
    let (_, _) = pinned(&repo, writer, &entries_of(&keys(5..6))).await;
    garbage(&repo, &keys(0..6)).await;
    // In parts: no candidate is returned twice.
    let first = repo.candidates(BlockRow(0), 2).await.unwrap();
    let second = repo.candidates(first[1].0, 100).await.unwrap();
    assert!(repo.candidates(second.last().unwrap().0, 100).await.unwrap().is_empty());
    let first = repo.doom(ONE, &rows(&first), MINUTE).await.unwrap();
    let second = repo.doom(ONE, &rows(&second), MINUTE).await.unwrap();
    assert_eq!(first.blocks.len() + second.blocks.len(), 3);
    assert_eq!(first.referenced + second.referenced, 3);
    assert_eq!(repo.doomed_by_others(TWO).await.unwrap(), 3);
    assert_eq!(repo.doomed_by_others(ONE).await.unwrap(), 0);
    // The answer was lost, and the step is repeated.
    let again = repo.doom(ONE, &rows(&first.blocks), MINUTE).await.unwrap();
    assert_eq!(again, crate::manifest::Doomed { referenced: 0, ..first.clone() });
    assert_eq!(
        stored(&repo, &keys(0..5)).await,
        [Some(false), Some(false), Some(false), Some(true), Some(true)]
    );
    // No put can pin a doomed block, and no other collection can doom it.
    let row = repo.begin(writer, CHUNKER).await.unwrap().unwrap();
    let pin = repo.pin(row, &entries_of(&keys(1..4))).await.unwrap();
    assert!(matches!(pin, Pinned::Doomed { .. }), "{pin:?}");
    assert!(doom(&repo, TWO).await.is_empty());
    assert!(
        repo.doom(TWO, &rows(&first.blocks), MINUTE).await.unwrap().blocks.is_empty(),
        "a doom that lasts was taken over"
    );
}

async fn what_is_settled_goes_if_it_is_still_doomed(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    garbage(&repo, &keys(0..4)).await;
    let doomed = doom_for(&repo, ONE, NOW).await;
    assert_eq!(doomed.len(), 4);
    // As if the clock had been set back: a clock never delays files.
    place.sql("UPDATE data_block SET doomed_until = doomed_until + 3600000 WHERE doomed_until > 0").await;
    // A pin removes the doom, and the block has to be written again. A commit that has seen its own file in
    // place does the same.
    let writer = repo.register_writer(LEASE).await.unwrap();
    let row = repo.begin(writer, CHUNKER).await.unwrap().unwrap();
    let Pinned::Blocks(blocks) = repo.pin(row, &entries_of(&[doomed[0].1])).await.unwrap() else {
        panic!("a doom that has ended still holds")
    };
    assert!(!blocks[0].stored);
    let entries = entries_of(&[doomed[1].1]);
    let commit = Commit::Whole {
        id: id_of("whole", &entries),
        chunker: CHUNKER.into(),
        entries: entries.into(),
        in_place: Box::new(|_| true),
        packed: Arc::default(),
    };
    assert_eq!(repo.commit([commit].into()).await.unwrap(), [Committed::Created]);
    let all = keys_of(&doomed);
    assert_eq!(settle(&repo, ONE, &all).await, (all[2..].to_vec(), vec![0, 1]));
    assert_eq!(
        stored(&repo, &all).await,
        [Some(false), Some(true), None, None],
        "what is referenced stays, and the rest is gone"
    );
    assert_eq!(settle(&repo, ONE, &all).await, (Vec::new(), vec![0, 1]));
    // Without a collection no row is deleted or left behind.
    let absent = key(99, 10);
    let found = repo.settle(Collection(-1), &[], &[absent, all[1], all[2]]).await.unwrap();
    assert_eq!((found.gone, found.undoomed), (Vec::new(), vec![1]));
    assert_eq!(stored(&repo, &[absent]).await, [None]);
}

async fn a_doom_belongs_to_its_collection(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    garbage(&repo, &keys(0..2)).await;
    let doomed = doom(&repo, ONE).await;
    let all = keys_of(&doomed);
    // A row that another collection dooms is neither gone nor to be relied on.
    assert_eq!(settle(&repo, TWO, &all).await, (Vec::new(), Vec::new()));
    repo.lift(TWO, rows(&doomed)).await.unwrap();
    assert_eq!(repo.doomed_by_others(TWO).await.unwrap(), 2);
    // A doom that has run out belongs to the next collection, and no longer to its own.
    place.sql("UPDATE data_block SET doomed_until = 1").await;
    assert_eq!(doom(&repo, TWO).await, doomed);
    assert_eq!(settle(&repo, ONE, &all).await, (Vec::new(), Vec::new()));
    // A lifted block can be pinned at once, and is a candidate again.
    repo.lift(TWO, rows(&doomed)).await.unwrap();
    assert_eq!(settle(&repo, TWO, &all).await, (Vec::new(), vec![0, 1]));
    assert_eq!(doom(&repo, ONE).await, doomed);
    assert_eq!(settle(&repo, ONE, &all).await, (all, Vec::new()));
}

fn looking(good: bool) -> Arc<LookAgain> {
    Arc::new(move |_, _| Box::pin(async move { Ok(good) }))
}

async fn a_bad_block_is_marked_under_its_lock(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    let writer = repo.register_writer(LEASE).await.unwrap();
    let entries = entries_of(&keys(0..3));
    let ids = [id_of("one", &entries), id_of("two", &entries)];
    for id in ids {
        put(&repo, writer, id, &entries).await;
    }
    let records = repo.blocks(BlockRow(0), 100).await.unwrap();
    assert!(records.iter().all(|record| record.stored && record.live) && records.len() == 3);
    assert_eq!(repo.blocks(records[1].row, 100).await.unwrap(), records[2..]);
    assert!(!repo.recheck(records[0].row, looking(true)).await.unwrap());
    assert!(repo.recheck(records[1].row, looking(false)).await.unwrap());
    let failing: Arc<LookAgain> = Arc::new(|key, _| {
        let error = crate::Error::new(crate::Code::BackendUnavailable, format!("cannot look at {key}"));
        Box::pin(async move { Err(error) })
    });
    assert!(repo.recheck(records[2].row, failing).await.unwrap_err().is_retryable());
    let all: Vec<BlockKey> = records.iter().map(|record| record.key).collect();
    assert_eq!(stored(&repo, &all).await, [Some(true), Some(false), Some(true)]);
    let mut hurt = repo.blobs_of(records[1].row, 9).await.unwrap();
    hurt.sort_unstable();
    let mut both = ids;
    both.sort_unstable();
    assert_eq!(hurt, both);
    assert_eq!(repo.blobs_of(records[1].row, 1).await.unwrap().len(), 1);
    let mut by_key = repo.blocks_by_key(vec![all[2], key(99, 10), all[0]]).await.unwrap();
    by_key.sort_unstable_by_key(|record| record.row);
    assert_eq!(by_key, [records[0], records[2]]);
    // The next put of the block has to write it again.
    let row = repo.begin(writer, CHUNKER).await.unwrap().unwrap();
    let Pinned::Blocks(blocks) = repo.pin(row, &entries_of(&[all[1]])).await.unwrap() else { panic!() };
    assert!(!blocks[0].stored);
    // A block that is about to be deleted belongs to the collector.
    garbage(&repo, &keys(7..8)).await;
    let doomed = doom(&repo, ONE).await;
    assert!(!repo.recheck(doomed[0].0, looking(false)).await.unwrap());
    assert!(repo.integrity().await.unwrap().is_empty());
}

async fn adopted_blocks_are_candidates(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    let writer = repo.register_writer(LEASE).await.unwrap();
    let entries = entries_of(&keys(0..1));
    put(&repo, writer, id_of("live", &entries), &entries).await;
    let strays = vec![key(0, 10), key(5, 10), key(6, 10), key(5, 10)];
    assert_eq!(repo.adopt(strays).await.unwrap(), 2);
    assert_eq!(stored(&repo, &[key(0, 10), key(5, 10)]).await, [Some(true), Some(false)]);
    assert_eq!(doom(&repo, ONE).await.len(), 2);
    place.sql("UPDATE data_block SET candidate = FALSE").await;
    assert_eq!(repo.mark_forgotten().await.unwrap(), 2);
}

async fn a_plan_counts_what_a_collection_does(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    let (writer, dead) =
        (repo.register_writer(LEASE).await.unwrap(), repo.register_writer(NOW).await.unwrap());
    let one = entries_of(&keys(0..4));
    let two = entries_of(&keys(2..6));
    let ids = [id_of("one", &one), id_of("two", &two)];
    put(&repo, writer, ids[0], &one).await;
    put(&repo, writer, ids[1], &two).await;
    let nothing = repo.plan_garbage(NOW, 9).await.unwrap();
    assert_eq!(nothing, crate::manifest::GarbagePlan::default());
    pinned(&repo, dead, &entries_of(&keys(5..8))).await;
    assert!(repo.delete(&ids[0]).await.unwrap());
    assert_eq!(repo.plan_garbage(MINUTE, 9).await.unwrap().blobs, 1, "only the abandoned put");
    let plan = repo.plan_garbage(NOW, 9).await.unwrap();
    assert_eq!((plan.named.as_slice(), plan.blobs, plan.blocks, plan.bytes), (&ids[..1], 2, 4, 40));
    repo.expire(9).await.unwrap();
    reap(&repo).await;
    assert_eq!(repo.plan_garbage(NOW, 9).await.unwrap().blocks, 4);
    assert_eq!(doom(&repo, ONE).await.len(), 4);
    let totals = repo.totals().await.unwrap();
    assert_eq!((totals.dead_blobs, totals.reclaimable_bytes), (0, 40));
}
