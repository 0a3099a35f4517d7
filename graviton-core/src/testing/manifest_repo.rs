//! The rules of [`ManifestRepo`], as one suite that every manifest repository passes: its answers. Its
//! behaviour at each step of the put protocol is in [`super::protocol`].

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::database_place::{
    CHUNKER, DatabasePlace, LEASE, entries_of, id_of, key, live, marks, pinned, put,
};
use super::{collection, packs, protocol, repack};
use crate::digest::{Algo, Digest};
use crate::error::Code;
use crate::key::{BlobId, BlockKey, MAX_BLOB_SIZE};
use crate::manifest::{
    BlobRow, Claim, Commit, Committed, Durability, ManifestRepo, Owned, PlacedEntry, Refusal, Whereabouts,
};
use crate::report::StoreStats;

/// Tests that a manifest repository obeys the rules of its trait. `make` creates a new, empty database each
/// time.
pub async fn manifest_repo_conformance<P: DatabasePlace>(make: impl AsyncFn() -> P) {
    a_new_database_is_empty(&make().await).await;
    settings_of_the_store_are_kept(&make().await).await;
    writers_come_and_go(&make().await).await;
    listing_has_an_order_and_a_cursor(&make().await).await;
    finding_gives_the_first_entries(&make().await).await;
    entries_start_anywhere(&make().await).await;
    known_answers_in_the_order_of_the_questions(&make().await).await;
    blocks_that_are_stored_are_told_at_once(&make().await).await;
    totals_count_live_blobs_and_stored_blocks(&make().await).await;
    concurrent_puts_do_not_mix(&make().await).await;
    a_closed_repository_says_so(&make().await).await;
    collection::all(&make).await;
    repack::all(&make).await;
    packs::all(&make).await;
    protocol::all(make).await;
}

async fn a_new_database_is_empty(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    let record = repo.store().await.unwrap();
    assert!(record.id.len() >= 32, "an id of 128 bits: {record:?}");
    assert_eq!((record.block_location.as_str(), record.durability), ("", Durability::Full));
    assert_eq!(repo.totals().await.unwrap(), StoreStats::default());
    assert_eq!(repo.list(None, 10).await.unwrap(), []);
    assert_eq!(repo.find(&id_of("no", &[]), 10).await.unwrap(), None);
    assert_eq!(repo.entries(BlobRow(1), 0, 10).await.unwrap(), [] as [PlacedEntry; 0]);
    assert_eq!(repo.commit([].into()).await.unwrap(), []);
    let known = repo.known(&[id_of("no", &[])], &[key(1, 1)]).await.unwrap();
    assert_eq!((known.live, known.stored), (vec![false], vec![None]));
    assert_eq!(place.open(Durability::Full).await.store().await.unwrap(), record);
}

async fn settings_of_the_store_are_kept(place: &impl DatabasePlace) {
    let (repo, other) = (place.open(Durability::Full).await, place.open(Durability::Full).await);
    let id = repo.store().await.unwrap().id;
    let at = Whereabouts { place: Some("../it's/m.db".to_owned()), file: None };
    let location = "fs:/somewhere/it's".to_owned();
    let hour = Duration::from_secs(3_600);
    let first = Claim { at, location, beside: 0, take_over: None, relies_on_rows: true, interval: hour };
    assert_eq!(repo.own(first.clone()).await.unwrap(), Owned::Owner(0), "the first one only records");
    let claim = Claim { interval: Duration::ZERO, ..first };
    assert_eq!(other.own(claim.clone()).await.unwrap(), Owned::Owner(1));
    let elsewhere = Whereabouts { place: Some("../b.db".to_owned()), file: Some("7".to_owned()) };
    let elsewhere = Claim { at: elsewhere, ..claim.clone() };
    let refused = Owned::Refused(Refusal::Elsewhere { was: "../it's/m.db".to_owned() });
    assert_eq!(repo.own(elsewhere.clone()).await.unwrap(), refused);
    let behind = Owned::Refused(Refusal::Behind { generation: 1, beside: 7 });
    assert_eq!(repo.own(Claim { beside: 7, ..claim.clone() }).await.unwrap(), behind);
    let taking_over = Claim { beside: 8, take_over: Some(8), ..elsewhere.clone() };
    assert_eq!(repo.own(taking_over).await.unwrap(), Owned::Owner(8));
    let hourly = Claim { beside: 8, interval: hour, ..elsewhere };
    assert_eq!(other.own(hourly.clone()).await.unwrap(), Owned::Owner(8));
    assert!(other.ownership().await.unwrap().stands(&hourly));
    repo.set_durability(Durability::Relaxed).await.unwrap();
    let record = other.store().await.unwrap();
    assert_eq!(record.id, id);
    assert_eq!(
        (record.block_location.as_str(), record.durability),
        ("fs:/somewhere/it's", Durability::Relaxed)
    );
    other.set_durability(Durability::Full).await.unwrap();
    assert_eq!(repo.store().await.unwrap().durability, Durability::Full);
}

async fn writers_come_and_go(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    let one = repo.register_writer(LEASE).await.unwrap();
    let two = repo.register_writer(LEASE).await.unwrap();
    assert_ne!(one, two);
    assert!(repo.renew_writer(one, LEASE).await.unwrap());

    // A writer with a pending blob stays, so that a collector finds the blob.
    let row = repo.begin(one, CHUNKER).await.unwrap().unwrap();
    repo.remove_writer(one).await.unwrap();
    assert!(repo.renew_writer(one, LEASE).await.unwrap());
    repo.abort(row).await.unwrap();
    repo.remove_writer(one).await.unwrap();
    assert!(!repo.renew_writer(one, LEASE).await.unwrap());
    assert!(repo.renew_writer(two, LEASE).await.unwrap(), "another writer's removal is none of its business");

    repo.remove_writer(one).await.unwrap();
    let three = repo.register_writer(LEASE).await.unwrap();
    assert!(three != one && three != two, "an id was used again");
}

async fn listing_has_an_order_and_a_cursor(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    let writer = repo.register_writer(LEASE).await.unwrap();
    // Two algorithms; digests that differ in the first and in the last byte; one digest with several sizes,
    // among them sizes that compare differently as text and as signed bytes, and the largest.
    let digest = |first: u8, last: u8| {
        let mut bytes = [0; 32];
        (bytes[0], bytes[31]) = (first, last);
        Digest::from_bytes(bytes)
    };
    let id = |algo, digest, size| BlobId::new(algo, digest, size).unwrap();
    let mut ids = Vec::new();
    for algo in Algo::ALL {
        for (first, last) in [(0, 0), (0, 1), (0x7f, 0xff), (0x80, 0), (0xff, 0xff)] {
            ids.push(id(algo, digest(first, last), 0));
        }
        for size in [1, 9, 10, 255, 256, MAX_BLOB_SIZE] {
            ids.push(id(algo, digest(0x80, 0), size));
        }
    }
    ids.sort_unstable();
    // In another order.
    for id in ids.iter().skip(7).step_by(2).chain(ids.iter().skip(8).step_by(2)).chain(ids.iter().take(7)) {
        put(&repo, writer, *id, &[]).await;
    }
    assert_eq!(live(&repo).await, ids);
    for page in [1, 3, 100] {
        let mut seen: Vec<BlobId> = Vec::new();
        loop {
            let records = repo.list(seen.last(), page).await.unwrap();
            assert!(records.len() <= page);
            if records.is_empty() {
                break;
            }
            seen.extend(records.into_iter().map(|record| record.id));
            assert!(seen.len() <= ids.len(), "paging goes in circles");
        }
        assert_eq!(seen, ids, "in pages of {page}");
    }
    // The blob of a cursor need not exist, and may have been deleted.
    let absent = id(Algo::Blake3, digest(0x80, 0), 100);
    let behind: Vec<BlobId> = ids.iter().copied().filter(|id| *id > absent).collect();
    let after = async |id: &BlobId| -> Vec<BlobId> {
        repo.list(Some(id), 1_000).await.unwrap().into_iter().map(|record| record.id).collect()
    };
    assert_eq!(after(&absent).await, behind);
    assert_eq!(after(&id(Algo::Sha256, digest(0xff, 0xff), MAX_BLOB_SIZE)).await, []);
    let row = repo.find(&ids[4], 0).await.unwrap().unwrap().0.row;
    place.sql(&format!("UPDATE blob SET state = 2, deleted_at = 1 WHERE id = {}", row.0)).await;
    assert_eq!(after(&ids[4]).await, ids[5..]);
    assert_eq!(repo.list(None, 0).await.unwrap(), []);
}

async fn finding_gives_the_first_entries(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    let writer = repo.register_writer(LEASE).await.unwrap();
    let entries = entries_of(&(0..10).map(|number| key(number, 100)).collect::<Vec<_>>());
    let (id, empty) = (id_of("ten", &entries), id_of("empty", &[]));
    let row = put(&repo, writer, id, &entries).await;
    put(&repo, writer, empty, &[]).await;
    for count in [0, 1, 9, 10, 11, 1_000] {
        let (record, found) = repo.find(&id, count).await.unwrap().unwrap();
        assert_eq!((record.row, record.id, record.block_count), (row, id, 10));
        assert_eq!(record.chunker, CHUNKER);
        assert!(record.created_at_ms > 1_500_000_000_000, "not in milliseconds: {record:?}");
        assert_eq!(found, entries[..count.min(10)], "{count} entries");
    }
    for count in [0, 1, 10] {
        let (record, found) = repo.find(&empty, count).await.unwrap().unwrap();
        assert_eq!((record.block_count, record.id.size()), (0, 0));
        assert_eq!(found, [] as [PlacedEntry; 0], "{count} entries of the empty blob");
    }
    // All three parts of an id matter.
    let other = |algo, size| BlobId::new(algo, *id.digest(), size).unwrap();
    assert_eq!(repo.find(&other(Algo::Sha256, id.size()), 1).await.unwrap(), None);
    assert_eq!(repo.find(&other(Algo::Blake3, id.size() + 1), 1).await.unwrap(), None);
}

async fn entries_start_anywhere(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    let writer = repo.register_writer(LEASE).await.unwrap();
    // Blocks of different sizes; one block three times, the last time at the end; in several pins.
    let mut keys: Vec<BlockKey> =
        (0..2_000).map(|number| key(number, u64::from(number) * 7 % 50 + 1)).collect();
    keys[5] = keys[4];
    keys.push(keys[4]);
    let entries = entries_of(&keys);
    let id = id_of("long", &entries);
    let row = put(&repo, writer, id, &entries).await;
    let other = entries_of(&[key(4, key(4, 1).size() as u64), key(7_777, 5)]);
    put(&repo, writer, id_of("beside", &other), &other).await;

    for (from, first) in [(0, 0), (entries[0].end() - 1, 0), (entries[0].end(), 1)]
        .into_iter()
        .chain([4, 5, 6, 1_023, 1_024, 1_999, 2_000].map(|place| (entries[place].offset, place)))
        .chain([4, 5, 1_023, 2_000].map(|place| (entries[place].end() - 1, place)))
    {
        for limit in [0, 1, 512, 5_000] {
            let found = repo.entries(row, from, limit).await.unwrap();
            let expected = &entries[first..(first + limit).min(entries.len())];
            assert!(found == expected, "{limit} from {from}: {} entries", found.len());
        }
    }
    // After a deletion, reading continues for the grace.
    place.sql(&format!("UPDATE blob SET state = 2, deleted_at = 1 WHERE id = {}", row.0)).await;
    assert_eq!(repo.find(&id, 1).await.unwrap(), None);
    assert_eq!(repo.entries(row, 0, 1).await.unwrap(), entries[..1]);
}

async fn known_answers_in_the_order_of_the_questions(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    let writer = repo.register_writer(LEASE).await.unwrap();
    let (stored, only_pinned, absent) = (key(1, 10), key(2, 10), key(3, 10));
    let entries = entries_of(&[stored]);
    let id = id_of("live", &entries);
    put(&repo, writer, id, &entries).await;
    let (pending, _) = pinned(&repo, writer, &entries_of(&[only_pinned])).await;
    let no = id_of("absent", &entries);
    let known = repo.known(&[no, id, no, id], &[absent, only_pinned, stored, absent, stored]).await.unwrap();
    assert_eq!(known.live, [false, true, false, true]);
    assert_eq!(known.stored, [None, Some(false), Some(true), None, Some(true)]);
    let nothing = repo.known(&[], &[]).await.unwrap();
    assert_eq!((nothing.live.len(), nothing.stored.len()), (0, 0));
    repo.abort(pending).await.unwrap();
}

/// Applies where the database is a file of this host; other databases need not answer at once.
async fn blocks_that_are_stored_are_told_at_once(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    let writer = repo.register_writer(LEASE).await.unwrap();
    let mut blocks = vec![key(1, 10), key(1, 10), key(2, 7)];
    let entries = entries_of(&blocks);
    blocks.sort();
    let [id, other, empty] = [id_of("live", &entries), id_of("other", &entries), id_of("empty", &[])];
    for (id, entries) in [(id, &entries[..]), (other, &entries[..]), (empty, &[])] {
        put(&repo, writer, id, entries).await;
    }
    let told = |repo: &ManifestRepo, id, limit| {
        let mut told = repo.stored_at_once(&id, limit)?;
        told.sort_by_key(|(key, _)| *key);
        Some(told)
    };
    let local =
        |keys: &[BlockKey]| repo.is_local().then(|| keys.iter().map(|key| (*key, None)).collect::<Vec<_>>());
    assert_eq!(told(&repo, id, 3), local(&blocks));
    assert_eq!(told(&repo, empty, 3), local(&[]));
    assert_eq!(told(&repo, id, 2), None, "there are three");
    assert_eq!(told(&repo, id_of("absent", &entries), 3), None);
    assert!(repo.delete(&other).await.unwrap());
    assert_eq!(told(&repo, other, 3), None, "deleted");
    // Blocks that another store wrote without a sync are enough for a store that does not sync.
    repo.set_durability(Durability::Relaxed).await.unwrap();
    assert_eq!(told(&repo, id, 3), None, "not durable");
    assert_eq!(told(&*place.open(Durability::Relaxed).await, id, 3), local(&blocks));
    repo.set_durability(Durability::Full).await.unwrap();
    assert_eq!(told(&repo, id, 3), local(&blocks));
    let damaged = repo.blocks_by_key(vec![key(2, 7)]).await.unwrap()[0].row;
    assert!(repo.recheck(damaged, Arc::new(|_, _| Box::pin(async { Ok(false) }))).await.unwrap());
    assert_eq!(told(&repo, id, 3), None, "a block is not stored");
}

async fn totals_count_live_blobs_and_stored_blocks(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    let writer = repo.register_writer(LEASE).await.unwrap();
    let (a, b) = (key(1, 100), key(2, 7));
    // 100 + 100 + 7 and 7 bytes, of blocks of 100 and 7.
    for (name, keys) in [("one", vec![a, a, b]), ("two", vec![b]), ("empty", vec![])] {
        let entries = entries_of(&keys);
        put(&repo, writer, id_of(name, &entries), &entries).await;
    }
    // Neither live nor stored.
    pinned(&repo, writer, &entries_of(&[key(3, 1_000)])).await;
    let expected = StoreStats {
        blobs: 3,
        logical_bytes: 214,
        blocks: 2,
        stored_bytes: 107,
        references: 4,
        ..StoreStats::default()
    };
    assert_eq!(repo.totals().await.unwrap(), expected);
}

/// Two repositories over one database, as in two processes, each with many tasks.
async fn concurrent_puts_do_not_mix(place: &impl DatabasePlace) {
    let repos = [place.open(Durability::Full).await, place.open(Durability::Full).await];
    let mut puts = JoinSet::new();
    for task in 0..24_u32 {
        let repo = Arc::clone(&repos[task as usize % 2]);
        puts.spawn(async move {
            let writer = repo.register_writer(LEASE).await.unwrap();
            // Two tasks share every third blob, and all blobs share some blocks, in different orders.
            let number = task / 3 * 3 + (task % 3).max(1);
            let mut keys: Vec<BlockKey> = (0..20).map(|place| key(place * (number % 2), 10)).collect();
            keys.extend((0..20).map(|place| key(1_000 + number * 20 + place, 10)));
            let entries = entries_of(&keys);
            let id = id_of(&format!("blob {number}"), &entries);
            let (row, stored) = pinned(&repo, writer, &entries).await;
            assert!(repo.mark_stored(row, &marks(&stored[..5]), &[]).await.unwrap());
            let commit = Commit::Pinned { row, id, block_count: 40, marks: marks(&stored), packs: vec![] };
            let outcome = repo.commit([commit].into()).await.unwrap()[0];
            (id, entries, outcome == Committed::Created)
        });
    }
    let puts = puts.join_all().await;
    for repo in &repos {
        for (id, entries, _) in &puts {
            let (_, found) = repo.find(id, 100).await.unwrap().unwrap();
            assert_eq!(&found, entries);
        }
        assert_eq!(live(repo).await.len(), 16);
    }
    assert_eq!(puts.iter().filter(|(_, _, created)| *created).count(), 16, "each content is created once");
}

async fn a_closed_repository_says_so(place: &impl DatabasePlace) {
    let (repo, other) = (place.open(Durability::Full).await, place.open(Durability::Full).await);
    let writer = repo.register_writer(LEASE).await.unwrap();
    repo.close().await;
    repo.close().await;
    assert_eq!(repo.list(None, 1).await.unwrap_err().code(), Code::Closed);
    assert_eq!(repo.begin(writer, CHUNKER).await.unwrap_err().code(), Code::Closed);
    assert_eq!(repo.commit([].into()).await.unwrap_err().code(), Code::Closed);
    assert_eq!(repo.store().await.unwrap_err().code(), Code::Closed);
    assert!(other.renew_writer(writer, LEASE).await.unwrap(), "another repository is not closed with it");
}
