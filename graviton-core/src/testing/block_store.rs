//! The rules of [`BlockStore`], as one suite that every block store passes.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::JoinSet;

use super::Recipe;
use crate::block::{Aside, Block, BlockStore, Listed, Removed};
use crate::blocking;
use crate::collection::Collection;
use crate::digest::Algo;
use crate::error::Code;
use crate::key::{BlockKey, MAX_BLOCK_SIZE};

/// A place for blocks that the suite may do with as it likes.
#[async_trait]
pub trait BlockPlace: Send + Sync {
    /// A store over the place, as one more process would open it.
    async fn open(&self) -> Arc<dyn BlockStore>;

    /// Puts any bytes under the key, behind the back of all stores, or takes the block away.
    async fn damage(&self, key: &BlockKey, bytes: Option<Bytes>);
}

/// Holds a block store to the rules of its trait. `make` makes a new, empty place each time.
///
/// Wants a runtime of tokio with several threads, 64 MiB of memory, and about as much room in the place.
pub async fn block_store_conformance<P: BlockPlace>(make: impl AsyncFn() -> P) {
    an_empty_place_is_empty(&make().await).await;
    what_is_put_is_there(&make().await).await;
    every_size_works(&make().await).await;
    ranges_are_exact(&make().await).await;
    damage_is_an_error(&make().await).await;
    a_call_that_is_polled_once_answers_or_begins_nothing(&make().await).await;
    a_put_replaces_whatever_was_there(&make().await).await;
    a_proof_holds_until_the_block_is_replaced_or_removed(&make().await).await;
    the_store_id_is_written_once(&make().await).await;
    the_generation_only_grows(&make().await).await;
    one_id_wins(&make().await).await;
    many_blocks_in_one_put(&make().await).await;
    concurrent_puts_of_the_same_and_of_other_blocks(&make().await).await;
    what_is_deleted_is_gone(&make().await).await;
    what_is_set_aside_comes_back(&make().await).await;
    a_listing_meets_every_block_once(&make().await).await;
}

fn content(recipe: &str) -> Bytes {
    recipe.parse::<Recipe>().unwrap().bytes().into()
}

fn block(algo: Algo, bytes: Bytes) -> Block {
    Block { key: BlockKey::of(algo, &bytes).unwrap(), bytes }
}

fn random(seed: &str, size: usize) -> Block {
    block(Algo::Blake3, content(&format!("xof:{seed}:{size}")))
}

async fn assert_holds(store: &dyn BlockStore, block: &Block) {
    let key = &block.key;
    assert!(store.get(key, None).await.unwrap() == block.bytes, "other bytes under {key}");
    assert_eq!(store.length(key).await.unwrap(), Some(key.size() as u64), "{key}");
    assert_eq!(store.seems_intact(&[*key]).await.unwrap(), [true], "{key}");
}

async fn an_empty_place_is_empty(place: &impl BlockPlace) {
    let store = place.open().await;
    let key = random("absent", 10).key;
    assert_eq!(store.get(&key, None).await.unwrap_err().code(), Code::MissingBlock);
    assert_eq!(store.get(&key, Some(0..1)).await.unwrap_err().code(), Code::MissingBlock);
    assert_eq!(store.length(&key).await.unwrap(), None);
    assert!(!store.has_blocks().await.unwrap());
    assert_eq!(store.store_id().await.unwrap(), None);
    assert_eq!(store.seems_intact(&[]).await.unwrap(), [false; 0]);
    if store.is_local() {
        assert_eq!(store.seems_intact(&[key]).await.unwrap(), [false]);
    }
    store.put(Vec::new()).await.unwrap();
    assert!(!store.has_blocks().await.unwrap(), "a put of nothing stored something");
    let again = place.open().await;
    assert_eq!(again.location(), store.location(), "one place has two names");
}

async fn what_is_put_is_there(place: &impl BlockPlace) {
    let store = place.open().await;
    let bytes = content("xof:one:1000");
    // The same bytes under both algorithms are two blocks.
    let (one, two) = (block(Algo::Blake3, bytes.clone()), block(Algo::Sha256, bytes));
    store.put(vec![one.clone()]).await.unwrap();
    assert_holds(&*store, &one).await;
    assert!(store.has_blocks().await.unwrap());
    assert_eq!(store.length(&two.key).await.unwrap(), None);
    store.put(vec![two.clone()]).await.unwrap();
    if let Some(disk) = store.disk() {
        disk.sync_all().await.unwrap();
    }
    let again = place.open().await;
    for block in [&one, &two] {
        assert_holds(&*again, block).await;
    }
    assert!(again.has_blocks().await.unwrap());
}

/// 1 and a few: the smallest. 4096: a page and a filesystem's block. 64 KiB and 1 MiB: the smallest and
/// largest block of the default chunker. 16 MiB: the largest block there is.
async fn every_size_works(place: &impl BlockPlace) {
    let store = place.open().await;
    for around in [2, 4096, 64 << 10, 1 << 20] {
        for size in around - 1..=around + 1 {
            let block = random("sizes", size);
            store.put(vec![block.clone()]).await.unwrap();
            assert_holds(&*store, &block).await;
        }
    }
    let largest = block(Algo::Sha256, content(&format!("zeros:{MAX_BLOCK_SIZE}")));
    store.put(vec![largest.clone()]).await.unwrap();
    assert_holds(&*store, &largest).await;
}

async fn ranges_are_exact(place: &impl BlockPlace) {
    let store = place.open().await;
    let block = random("ranges", 10_000);
    store.put(vec![block.clone()]).await.unwrap();
    let range = |range: Range<usize>| store.get(&block.key, Some(range));
    for (start, end) in
        [(0, 10_000), (0, 1), (0, 0), (9_999, 10_000), (10_000, 10_000), (4_095, 8_193), (1, 9_999), (77, 77)]
    {
        let got = range(start..end).await.unwrap();
        assert!(got == block.bytes[start..end], "wrong bytes for {start}..{end}");
    }
    #[allow(clippy::reversed_empty_ranges, reason = "that is what is tested")]
    for wrong in [0..10_001, 10_000..10_001, 10_001..10_002, 2..1] {
        let error = range(wrong.clone()).await.expect_err("a range that the block does not have");
        assert_eq!(error.code(), Code::InvalidArgument, "{wrong:?}");
    }
}

async fn damage_is_an_error(place: &impl BlockPlace) {
    let store = place.open().await;
    let block = random("damage", 5_000);
    store.put(vec![block.clone()]).await.unwrap();
    let cut = [0, 1, 4_999].map(|length| block.bytes.slice(..length));
    let longer = Bytes::from([&block.bytes[..], b"x"].concat());
    for wrong in cut.into_iter().chain([longer]) {
        let length = wrong.len();
        place.damage(&block.key, Some(wrong)).await;
        for range in [None, Some(0..1), Some(100..200)] {
            let error = store.get(&block.key, range.clone()).await.expect_err("a block of another length");
            assert_eq!(error.code(), Code::CorruptBlock, "{length} bytes, {range:?}");
            assert!(error.to_string().contains(&block.key.to_string()), "no key in {error}");
        }
        assert_eq!(store.length(&block.key).await.unwrap(), Some(length as u64));
        if store.is_local() {
            assert_eq!(store.seems_intact(&[block.key]).await.unwrap(), [false], "{length} bytes");
        }
    }
    place.damage(&block.key, None).await;
    let error = store.get(&block.key, None).await.expect_err("a block that was removed");
    assert_eq!(error.code(), Code::MissingBlock);
    assert!(error.to_string().contains(&block.key.to_string()), "no key in {error}");
    assert_eq!(store.length(&block.key).await.unwrap(), None);
}

async fn a_call_that_is_polled_once_answers_or_begins_nothing(place: &impl BlockPlace) {
    let store = place.open().await;
    let (small, absent) = (random("once", 4_096), random("absent", 4_096));
    store.put(vec![small.clone()]).await.unwrap();
    for _ in 0..2 {
        if let Some(got) = blocking::at_once(store.get(&small.key, None)) {
            assert!(store.is_local(), "a network answers later");
            assert_eq!(got.unwrap(), small.bytes);
        }
        if let Some(got) = blocking::at_once(store.get(&absent.key, None)) {
            assert!(store.is_local(), "a network answers later");
            assert_eq!(got.unwrap_err().code(), Code::MissingBlock);
        }
        // The usual call answers all the same.
        assert_holds(&*store, &small).await;
        assert_eq!(store.get(&absent.key, None).await.unwrap_err().code(), Code::MissingBlock);
    }
    place.damage(&small.key, Some(small.bytes.slice(1..))).await;
    if let Some(got) = blocking::at_once(store.get(&small.key, None)) {
        assert_eq!(got.unwrap_err().code(), Code::CorruptBlock);
    }
    assert_eq!(store.get(&small.key, None).await.unwrap_err().code(), Code::CorruptBlock);
}

async fn a_put_replaces_whatever_was_there(place: &impl BlockPlace) {
    let store = place.open().await;
    let block = random("replace", 5_000);
    let flipped = Bytes::from(block.bytes.iter().map(|byte| !byte).collect::<Vec<_>>());
    for before in
        [None, Some(block.bytes.clone()), Some(flipped), Some(Bytes::new()), Some(content("zeros:9999"))]
    {
        place.damage(&block.key, before).await;
        store.put(vec![block.clone()]).await.unwrap();
        assert_holds(&*store, &block).await;
    }
}

async fn a_proof_holds_until_the_block_is_replaced_or_removed(place: &impl BlockPlace) {
    let (store, other) = (place.open().await, place.open().await);
    let blocks: Vec<Block> = (0..4).map(|number| random(&format!("proof{number}"), 3_000)).collect();
    let proof = store.put(blocks.clone()).await.unwrap();
    if !store.proves_publication() {
        assert!(blocks.iter().all(|block| !proof.is_in_place(&block.key)), "a store without proofs has one");
        return;
    }
    assert!(blocks.iter().all(|block| proof.is_in_place(&block.key)));
    assert!(!proof.is_in_place(&random("never put", 10).key));

    other.put(vec![blocks[0].clone()]).await.unwrap();
    assert!(!proof.is_in_place(&blocks[0].key), "another store wrote it again");
    let newer = store.put(vec![blocks[1].clone()]).await.unwrap();
    assert!(!proof.is_in_place(&blocks[1].key), "the same store wrote it again");
    assert!(newer.is_in_place(&blocks[1].key));
    place.damage(&blocks[2].key, None).await;
    assert!(!proof.is_in_place(&blocks[2].key), "it was removed");
    other.put(vec![blocks[2].clone()]).await.unwrap();
    assert!(!proof.is_in_place(&blocks[2].key), "it was removed and written by somebody else");
    assert!(proof.is_in_place(&blocks[3].key), "nobody touched it");
}

async fn the_store_id_is_written_once(place: &impl BlockPlace) {
    let store = place.open().await;
    assert_eq!(store.create_store_id("first").await.unwrap(), "first");
    assert_eq!(store.create_store_id("second").await.unwrap(), "first");
    let again = place.open().await;
    assert_eq!(again.store_id().await.unwrap().as_deref(), Some("first"));
    assert_eq!(again.create_store_id("third").await.unwrap(), "first");
    assert!(!again.has_blocks().await.unwrap(), "an id is no block");
}

async fn the_generation_only_grows(place: &impl BlockPlace) {
    let store = place.open().await;
    assert_eq!(store.generation().await.unwrap(), 0);
    store.create_store_id("mine").await.unwrap();
    for (to, then) in [(1, 1), (12, 12), (3, 12), (1 << 40, 1 << 40)] {
        store.raise_generation(to).await.unwrap();
        assert_eq!(store.generation().await.unwrap(), then);
        assert_eq!(place.open().await.generation().await.unwrap(), then);
    }
    assert_eq!(store.store_id().await.unwrap().as_deref(), Some("mine"));
    assert!(!store.has_blocks().await.unwrap(), "a generation is no block");
}

async fn one_id_wins(place: &impl BlockPlace) {
    let mut creators = JoinSet::new();
    for number in 0..16 {
        let store = place.open().await;
        creators.spawn(async move { store.create_store_id(&format!("{number:032x}")).await.unwrap() });
    }
    let ids = creators.join_all().await;
    let winner = place.open().await.store_id().await.unwrap();
    assert!(ids.iter().all(|id| Some(id) == winner.as_ref()), "{ids:?}, but it is {winner:?}");
}

/// More than a process may have files open by default, and than a request may name objects.
async fn many_blocks_in_one_put(place: &impl BlockPlace) {
    let store = place.open().await;
    let blocks: Vec<Block> = (0..1_100).map(|number| random(&format!("many{number}"), 20)).collect();
    store.put(blocks.clone()).await.unwrap();
    let keys: Vec<BlockKey> = blocks.iter().map(|block| block.key).collect();
    assert!(store.seems_intact(&keys).await.unwrap().iter().all(|intact| *intact));
    for block in &blocks {
        assert_eq!(store.get(&block.key, None).await.unwrap(), block.bytes);
    }
    // Answers come in the order of the questions.
    place.damage(&keys[3], None).await;
    if store.is_local() {
        let intact = store.seems_intact(&keys[..5]).await.unwrap();
        assert_eq!(intact, [true, true, true, false, true]);
    }
}

async fn concurrent_puts_of_the_same_and_of_other_blocks(place: &impl BlockPlace) {
    let shared: Vec<Block> = (0..8).map(|number| random(&format!("shared{number}"), 5_000)).collect();
    let stores = [place.open().await, place.open().await];
    let mut puts = JoinSet::new();
    for task in 0..24 {
        let store = Arc::clone(&stores[task % 2]);
        let mut blocks = shared.clone();
        blocks.extend((0..4).map(|number| random(&format!("own{task}-{number}"), 1_000)));
        puts.spawn(async move {
            store.put(blocks.clone()).await.unwrap();
            for block in &blocks {
                // Whole at every moment, while others write it again.
                assert_eq!(store.get(&block.key, None).await.unwrap(), block.bytes);
            }
            blocks
        });
    }
    for block in puts.join_all().await.iter().flatten() {
        assert_holds(&*stores[0], block).await;
    }
}

async fn what_is_deleted_is_gone(place: &impl BlockPlace) {
    let (store, other) = (place.open().await, place.open().await);
    let blocks: Vec<Block> = (0..5).map(|number| random(&format!("delete{number}"), 2_000)).collect();
    let proof = store.put(blocks.clone()).await.unwrap();
    let absent = random("never there", 10).key;
    let sha = block(Algo::Sha256, blocks[0].bytes.clone());
    store.put(vec![sha.clone()]).await.unwrap();
    // Of both algorithms, one that was never there, and one twice.
    let keys = [blocks[0].key, absent, sha.key, blocks[3].key, blocks[3].key];
    let asides = remove(&*store, &keys).await;
    for store in [&store, &other] {
        for key in &keys {
            assert_eq!(store.seems_intact(&[*key]).await.unwrap(), [!store.is_local()]);
            // Readers find what was set aside, until it is known that nobody relies on it.
            let there = store.asides().is_some() && *key != absent;
            assert_eq!(store.length(key).await.unwrap(), there.then_some(key.size() as u64));
            let code = store.get(key, None).await.map_err(|error| error.code());
            assert_eq!(code.is_ok(), there, "{code:?}");
        }
        for kept in [1, 2, 4] {
            assert_holds(&**store, &blocks[kept]).await;
        }
    }
    assert!(!proof.is_in_place(&blocks[0].key));
    if let Some(other) = other.asides() {
        let mut listed = other.all().await.unwrap();
        listed.sort_unstable();
        let there = asides.iter().filter(|aside| aside.key != absent && aside.number != 4);
        assert_eq!(listed, there.copied().collect::<Vec<_>>());
        other.end_removal(&asides, &[]).await.unwrap();
        assert!(other.all().await.unwrap().is_empty());
    }
    for key in &keys {
        assert_eq!(store.length(key).await.unwrap(), None, "{key} is still there");
        assert_eq!(other.get(key, None).await.unwrap_err().code(), Code::MissingBlock);
    }
    store.put(vec![blocks[0].clone()]).await.unwrap();
    assert_holds(&*other, &blocks[0]).await;
    assert!(remove(&*store, &[]).await.is_empty());
}

/// Removes the blocks, and says under which names.
async fn remove(store: &dyn BlockStore, keys: &[BlockKey]) -> Vec<Aside> {
    let aside = |(number, key): (u64, &BlockKey)| Aside { by: Collection(7), number, key: *key };
    let asides: Vec<Aside> = (0..).zip(keys).map(aside).collect();
    let mut there = std::collections::HashSet::new();
    for key in keys {
        if store.length(key).await.unwrap().is_some() {
            there.insert(key);
        }
    }
    let removal = store.prepare_removal(&asides, Duration::from_secs(60)).await.unwrap();
    let removed = removal.remove(&asides).await;
    assert_eq!(removed.len(), keys.len());
    for (key, removed) in keys.iter().zip(&removed) {
        match removed {
            Removed::Gone => drop(there.remove(key)),
            // A server does not always say so.
            Removed::Absent => assert!(!there.contains(key), "{key} was there: {removed:?}"),
            removed => panic!("{key} could not be removed: {removed:?}"),
        }
    }
    assert!(there.is_empty(), "{there:?}");
    asides
}

async fn what_is_set_aside_comes_back(place: &impl BlockPlace) {
    let (store, other) = (place.open().await, place.open().await);
    let Some(aside) = other.asides() else { return };
    let blocks: Vec<Block> = (0..3).map(|number| random(&format!("back{number}"), 2_000)).collect();
    store.put(blocks.clone()).await.unwrap();
    let keys: Vec<BlockKey> = blocks.iter().map(|block| block.key).collect();
    let asides = remove(&*store, &keys).await;
    // The first was put again meanwhile.
    store.put(vec![blocks[0].clone()]).await.unwrap();
    aside.end_removal(&[], &asides).await.unwrap();
    for block in &blocks {
        assert_holds(&*store, block).await;
        assert!(store.seems_intact(&[block.key]).await.unwrap()[0]);
    }
    // To do it again, late, changes nothing.
    aside.end_removal(&asides, &asides).await.unwrap();
    for block in &blocks {
        assert_holds(&*other, block).await;
    }
    // A damaged one must not replace a good one.
    place.damage(&keys[1], Some(Bytes::from(vec![7; 2_000]))).await;
    let asides = remove(&*store, &keys[1..2]).await;
    store.put(vec![blocks[1].clone()]).await.unwrap();
    aside.end_removal(&[], &asides).await.unwrap();
    assert_holds(&*store, &blocks[1]).await;
    assert!(aside.all().await.unwrap().is_empty());
}

/// More than one request or read of a directory gives.
async fn a_listing_meets_every_block_once(place: &impl BlockPlace) {
    let store = place.open().await;
    assert!(store.list().await.unwrap().next().await.unwrap().is_empty(), "an empty place has blocks");
    let count = if store.is_local() { 2_500 } else { 1_050 };
    let mut blocks: Vec<Block> = (0..count).map(|number| random(&format!("list{number}"), 30)).collect();
    blocks.push(block(Algo::Sha256, content("xof:list:99")));
    store.put(blocks.clone()).await.unwrap();
    store.create_store_id("no-block").await.unwrap();
    place.damage(&blocks[7].key, Some(Bytes::from_static(b"short"))).await;
    let mut expected: Vec<Listed> =
        blocks.iter().map(|block| Listed { key: block.key, length: block.key.size() as u64 }).collect();
    expected[7].length = 5;
    expected.sort_unstable();
    let mut listed = Vec::new();
    let mut listing = place.open().await.list().await.unwrap();
    loop {
        let page = listing.next().await.unwrap();
        if page.is_empty() {
            break;
        }
        listed.extend(page);
    }
    listed.sort_unstable();
    assert!(listed == expected, "{} listed, {} stored", listed.len(), expected.len());
    if let Some(disk) = store.disk() {
        assert_eq!(disk.remove_leftovers().await.unwrap(), 0);
    }
}
