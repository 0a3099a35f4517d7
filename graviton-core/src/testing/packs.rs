//! Packs, and the blocks in them, against any manifest repository.

use std::collections::HashMap;
use std::time::Duration;

use super::database_place::{DatabasePlace, LEASE, entries_of, id_of, key, pinned, put};
use crate::key::BlockKey;
use crate::manifest::{
    BlobRow, BlockRecord, BlockRow, Claim, Commit, Committed, Durability, HeldPack, ManifestRepo, Mark,
    Owned, PackPhase, PackSums, Whereabouts, WriterId,
};
use crate::place::{Codec, HEADER, PackName, Place, record_size};

pub(super) async fn all<P: DatabasePlace>(make: impl AsyncFn() -> P) {
    only_blocks_that_a_blob_may_need_are_wanted(&make().await).await;
    if !make().await.open(Durability::Full).await.has_packs() {
        return;
    }
    packs_are_known_with_whether_they_have_more_than_rows_say(&make().await).await;
    who_takes_over_trusts_no_pack(&make().await).await;
    sums_of_packs_add_up(&make().await).await;
}

fn name(number: u8) -> PackName {
    PackName::from_bytes([number; 16])
}

async fn pack(repo: &ManifestRepo, writer: WriterId, number: u8) -> HeldPack {
    let pack = repo.insert_pack(writer, &name(number)).await.unwrap().unwrap();
    HeldPack { pack, writer, name: name(number) }
}

/// Puts a blob of these blocks, each 10 bytes in a record that takes 80, into a pack. Returns its end.
async fn put_into(repo: &ManifestRepo, held: HeldPack, from: u64, blob: &str, keys: &[BlockKey]) -> u64 {
    let entries = entries_of(keys);
    let (row, blocks) = pinned(repo, held.writer, &entries).await;
    let mut offset = from;
    let mut marks = Vec::new();
    for block in blocks {
        let HeldPack { pack, name, .. } = held;
        let place = Place { pack, name, offset, stored_size: 10, codec: Codec::Raw };
        marks.push(Mark { row: block, place: Some(place), found: None });
        offset += record_size(10);
    }
    let id = id_of(blob, &entries);
    let commit = Commit::Pinned { row, id, block_count: entries.len() as u64, marks, packs: vec![held] };
    assert_eq!(repo.commit([commit].into()).await.unwrap(), [Committed::Created]);
    offset
}

async fn only_blocks_that_a_blob_may_need_are_wanted(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    let writer = repo.register_writer(LEASE).await.unwrap();
    let keys: Vec<BlockKey> = (0..5).map(|number| key(number, 10)).collect();
    let wanted = async || {
        let mut found: Vec<BlockRecord> = repo.wanted_blocks(&keys).await.unwrap();
        found.sort_unstable_by_key(|record| record.row);
        found.into_iter().map(|record| (record.key, record.stored, record.live)).collect::<Vec<_>>()
    };
    assert_eq!(wanted().await, []);
    let (live, deleted) = (entries_of(&keys[..1]), entries_of(&keys[1..2]));
    put(&repo, writer, id_of("live", &live), &live).await;
    let gone = id_of("deleted", &deleted);
    put(&repo, writer, gone, &deleted).await;
    assert!(repo.delete(&gone).await.unwrap());
    // Of a put that is under way; and without a reference.
    pinned(&repo, writer, &entries_of(&keys[2..3])).await;
    repo.adopt(keys[3..4].to_vec()).await.unwrap();
    assert_eq!(wanted().await, [(keys[0], true, true), (keys[1], true, false)]);
    repo.discard(Duration::ZERO, 9).await.unwrap();
    assert_eq!(wanted().await, [(keys[0], true, true)], "a blob that cannot be restored wants a block");
}

async fn packs_are_known_with_whether_they_have_more_than_rows_say(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    let writer = repo.register_writer(LEASE).await.unwrap();
    let names: Vec<PackName> = (1..6).map(name).collect();
    let (full, some, writing) =
        (pack(&repo, writer, 1).await, pack(&repo, writer, 2).await, pack(&repo, writer, 3).await);
    let end = put_into(&repo, full, HEADER, "full", &[key(1, 10)]).await;
    assert!(repo.seal_own(full, end, Duration::ZERO).await.unwrap());
    let end = put_into(&repo, some, HEADER, "some", &[key(2, 10)]).await;
    assert!(repo.seal_own(some, end + 80, Duration::ZERO).await.unwrap());
    put_into(&repo, writing, HEADER, "writing", &[key(3, 10)]).await;
    assert_eq!(repo.adopt_packs(&[(name(4), 1_000)]).await.unwrap(), 1);
    let known = repo.known_packs(&names).await.unwrap();
    let expected = [(1, false), (2, true), (3, true), (4, true)].map(|(number, has)| (name(number), has));
    assert_eq!(known, HashMap::from(expected));
}

async fn who_takes_over_trusts_no_pack(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    let writer = repo.register_writer(LEASE).await.unwrap();
    let held = pack(&repo, writer, 1).await;
    let end = put_into(&repo, held, HEADER, "blob", &[key(1, 10)]).await;
    assert!(repo.seal_own(held, end, Duration::ZERO).await.unwrap());
    let at = Whereabouts { place: Some("here".to_owned()), file: None };
    let claim = Claim {
        at,
        location: "fs:/blocks".to_owned(),
        beside: 0,
        take_over: None,
        relies_on_rows: false,
        interval: Duration::ZERO,
    };
    let located = async || repo.wanted_blocks(&[key(1, 10)]).await.unwrap()[0].located.unwrap();
    assert!(matches!(repo.own(claim.clone()).await.unwrap(), Owned::Owner(_)));
    assert!(located().await.is_sealed);
    repo.own(Claim { beside: 8, take_over: Some(8), ..claim }).await.unwrap();
    assert!(!located().await.is_sealed);
    assert_eq!(repo.found_packs(crate::place::PackRow(0), 9).await.unwrap(), [(held.pack, held.name)]);
    assert!(repo.seal_found(held.pack, end, Duration::ZERO).await.unwrap());
    assert!(located().await.is_sealed);
}

async fn sums_of_packs_add_up(place: &impl DatabasePlace) {
    let repo = place.open(Durability::Full).await;
    let writer = repo.register_writer(LEASE).await.unwrap();
    assert_eq!(repo.pack_sums().await.unwrap(), []);
    let (sealed, open) = (pack(&repo, writer, 1).await, pack(&repo, writer, 2).await);
    let keys: Vec<BlockKey> = (0..5).map(|number| key(number, 10)).collect();
    let end = put_into(&repo, sealed, HEADER, "sealed", &keys[..2]).await;
    let end = put_into(&repo, sealed, end, "deleted", &keys[2..3]).await;
    // Two records that no row points at.
    assert!(repo.seal_own(sealed, end + 160, Duration::ZERO).await.unwrap());
    put_into(&repo, open, HEADER, "open", &keys[3..4]).await;
    repo.adopt_packs(&[(name(3), 1_000), (name(4), 10)]).await.unwrap();
    let phase = |dead, punched, goes| PackPhase::Sealed { dead, punched, goes };
    let sums = |number, phase, live, released| PackSums { name: name(number), phase, live, released };
    let others = [
        sums(2, PackPhase::Open, 80, 0),
        sums(3, phase(936, 0, false), 0, 0),
        sums(4, phase(0, 0, false), 0, 0),
    ];
    let first = async || {
        let all = repo.pack_sums().await.unwrap();
        assert_eq!(all[1..], others);
        all[0]
    };
    assert_eq!(first().await, sums(1, phase(160, 0, false), 240, 0));
    assert!(repo.delete(&id_of("deleted", &entries_of(&keys[2..3]))).await.unwrap());
    repo.discard(Duration::ZERO, 9).await.unwrap();
    let blobs = repo.discarded_blobs(BlobRow(0), 9).await.unwrap();
    repo.reap(&blobs, 9).await.unwrap();
    let rows: Vec<BlockRow> =
        repo.packed_candidates(BlockRow(0), 9).await.unwrap().into_iter().map(|(row, _)| row).collect();
    assert_eq!(repo.release(&rows).await.unwrap().blocks, 1);
    assert_eq!(first().await, sums(1, phase(160, 0, false), 160, 80));
    let holes = repo.holes(9).await.unwrap();
    repo.forget_holes(sealed.pack, &holes, 50).await.unwrap();
    assert_eq!(first().await, sums(1, phase(240, 50, false), 160, 0));
    repo.note_empty_packs(9).await.unwrap();
    let all = repo.pack_sums().await.unwrap();
    assert_eq!(all[2..], [sums(3, phase(936, 0, true), 0, 0), sums(4, phase(0, 0, true), 0, 0)]);
}
