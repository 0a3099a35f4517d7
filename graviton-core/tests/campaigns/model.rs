//! Random sequences of calls, compared with the simplest possible model of a store: a map in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use graviton_core::block::memory::MemoryBlockStore;
use graviton_core::testing::Recipe;
use graviton_core::{
    Algo, AsyncStore, BlobId, BlockKey, ChunkerSpec, Code, Config, Durability, ManifestRepo, PutOptions,
    Settings, Store, chunker,
};
use proptest::prelude::*;
use tempfile::TempDir;

/// The configuration of one run.
#[derive(Debug, Clone)]
struct Setup {
    chunker: &'static str,
    algo: Algo,
    /// In memory through `AsyncStore`, or in a directory through `Store`.
    memory: bool,
    durability: Durability,
}

/// The bytes of a put: a shared beginning and an end of its own. There are few of each, so that the same
/// blobs and the same blocks occur again.
#[derive(Debug, Clone)]
struct Content {
    shared: usize,
    shared_seed: u8,
    own: usize,
    own_seed: u8,
}

/// A position in a blob: per mille of its size, plus a small offset.
type Place = (u16, i8);

#[derive(Debug, Clone)]
enum Step {
    Put(Content),
    PutExpecting { content: Content, claimed: Content },
    Drop { content: Content, pieces: usize },
    Write { content: Content, pieces: usize },
    Get(usize),
    ReadRange(usize, Place, Place),
    Seek(usize, Vec<(Place, usize)>),
    List { after: Option<(usize, bool)>, limit: usize },
    Manifest(usize, Place, usize),
    Stat(usize),
    Absent(u8),
    Stats,
    Reopen,
}

/// Sizes around a block (5,000), the most blocks of a small blob (64), the average and largest of a small
/// FastCDC, and one buffer of the pipeline (2 MiB).
const SIZES: [usize; 6] = [0, 5_000, 320_000, 256, 1_024, 2 << 20];

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![
        6 => 0_usize..5_000,
        4 => (prop::sample::select(&SIZES[..5]), 0_usize..3).prop_map(|(size, more)| (size + more).saturating_sub(1)),
        2 => 5_000_usize..150_000,
        1 => (0_usize..3).prop_map(|more| SIZES[5] + more - 1),
        1 => (2_usize << 20)..4_500_000,
    ]
}

fn contents() -> impl Strategy<Value = Content> {
    (prop_oneof![2 => Just(0), 1 => sizes()], 0..2_u8, sizes(), 0..3_u8)
        .prop_map(|(shared, shared_seed, own, own_seed)| Content { shared, shared_seed, own, own_seed })
}

fn places() -> impl Strategy<Value = Place> {
    (prop_oneof![0_u16..=1_000, Just(0), Just(1_000)], -2_i8..=2)
}

/// Bytes, and the claim about them: themselves, other bytes of the same size, or any others.
fn claims() -> impl Strategy<Value = (Content, Content)> {
    (contents(), contents(), 0..3_u8).prop_map(|(content, other, kind)| {
        let claimed = match kind {
            0 => content.clone(),
            1 => Content { own_seed: (content.own_seed + 1) % 3, ..content.clone() },
            _ => other,
        };
        (content, claimed)
    })
}

fn steps() -> impl Strategy<Value = Step> {
    let blob = || 0_usize..100;
    prop_oneof![
        6 => contents().prop_map(Step::Put),
        2 => claims().prop_map(|(content, claimed)| Step::PutExpecting { content, claimed }),
        1 => (contents(), 1_usize..5).prop_map(|(content, pieces)| Step::Drop { content, pieces }),
        2 => (contents(), 1_usize..5).prop_map(|(content, pieces)| Step::Write { content, pieces }),
        2 => blob().prop_map(Step::Get),
        3 => (blob(), places(), places()).prop_map(|(blob, from, to)| Step::ReadRange(blob, from, to)),
        2 => (blob(), prop::collection::vec((places(), 0_usize..3_000), 1..6))
            .prop_map(|(blob, moves)| Step::Seek(blob, moves)),
        2 => (prop::option::of((blob(), any::<bool>())), 0_usize..5)
            .prop_map(|(after, limit)| Step::List { after, limit }),
        2 => (blob(), places(), 0_usize..200).prop_map(|(blob, from, limit)| Step::Manifest(blob, from, limit)),
        1 => blob().prop_map(Step::Stat),
        1 => any::<u8>().prop_map(Step::Absent),
        1 => Just(Step::Stats),
        1 => Just(Step::Reopen),
    ]
}

fn setups() -> impl Strategy<Value = Setup> {
    let chunkers = ["fixed:5000", "fixed:65536", "fastcdc:64:256:1024", "fastcdc:1024:4096:16384"];
    let chunkers = chunkers.into_iter().chain(["delimiter:0a:500", "delimiter:616161:65536"]);
    let chunkers = prop::sample::select(chunkers.collect::<Vec<_>>());
    // Syncs take most of the time, and the answers do not depend on them.
    let durabilities = prop_oneof![3 => Just(Durability::Relaxed), 1 => Just(Durability::Full)];
    (chunkers, prop::sample::select(&Algo::ALL[..]), any::<bool>(), durabilities)
        .prop_map(|(chunker, algo, memory, durability)| Setup { chunker, algo, memory, durability })
}

impl Content {
    /// Text, so that delimiters find matches. It is cut short where blocks are so small that a large blob
    /// would be tens of thousands of files.
    fn bytes(&self, setup: &Setup) -> Vec<u8> {
        let Content { shared, shared_seed, own, own_seed } = self;
        let recipe = format!("lines:shared{shared_seed}:{shared}+lines:own{own_seed}:{own}");
        let mut bytes = recipe.parse::<Recipe>().unwrap().bytes();
        if ["fastcdc:64:256:1024", "delimiter:0a:500"].contains(&setup.chunker) {
            bytes.truncate(120_000);
        }
        bytes
    }
}

fn place(bytes: &[u8], (per_mille, beside): Place) -> u64 {
    let place = bytes.len() as u64 * u64::from(per_mille) / 1_000;
    place.saturating_add_signed(beside.into())
}

/// The store, and its expected state.
struct World {
    setup: Setup,
    spec: ChunkerSpec,
    store: Kind,
    directory: TempDir,
    blocks: MemoryBlockStore,
    blobs: BTreeMap<BlobId, Vec<u8>>,
    /// Blocks of committed blobs; failed or dropped puts may leave more.
    stored: BTreeSet<BlockKey>,
    exact: bool,
}

/// Both APIs of a store, called alike.
enum Kind {
    Sync(Store),
    Async(AsyncStore, Arc<tokio::runtime::Runtime>),
}

/// Makes the same call on either.
macro_rules! on {
    ($world:expr, $call:ident($($argument:expr),*)) => {
        match &$world.store {
            Kind::Sync(store) => store.$call($($argument),*),
            Kind::Async(store, runtime) => runtime.block_on(store.$call($($argument),*)),
        }
    };
}

impl World {
    fn new(setup: Setup) -> World {
        let directory = tempfile::tempdir().unwrap();
        let blocks = MemoryBlockStore::new();
        let spec: ChunkerSpec = setup.chunker.parse().unwrap();
        let store = open(&setup, &directory, &blocks);
        let (blobs, stored) = (BTreeMap::new(), BTreeSet::new());
        World { setup, spec, store, directory, blocks, blobs, stored, exact: true }
    }

    /// Any blob, if there is one.
    fn blob(&self, number: usize) -> Option<(&BlobId, &[u8])> {
        let place = number.checked_rem(self.blobs.len())?;
        self.blobs.iter().nth(place).map(|(id, bytes)| (id, bytes.as_slice()))
    }

    fn keys(&self, algo: Algo, bytes: &[u8]) -> Vec<BlockKey> {
        let mut rest = bytes;
        let mut keys = Vec::new();
        for (size, _) in chunker::cut_all(&self.spec, bytes) {
            let (block, behind) = rest.split_at(size);
            keys.push(BlockKey::of(algo, block).unwrap());
            rest = behind;
        }
        keys
    }

    fn committed(&mut self, put: &graviton_core::PutReceipt, bytes: Vec<u8>) {
        let id = BlobId::of(put.id.algo(), &bytes);
        let keys = self.keys(id.algo(), &bytes);
        assert_eq!((put.id, put.blocks), (id, keys.len() as u64));
        assert_eq!(put.created, !self.blobs.contains_key(&id));
        if self.exact {
            let fresh: BTreeSet<&BlockKey> = keys.iter().filter(|key| !self.stored.contains(key)).collect();
            let fresh_bytes: u64 = fresh.iter().map(|key| key.size() as u64).sum();
            assert_eq!((put.fresh_blocks, put.fresh_bytes), (fresh.len() as u64, fresh_bytes));
        }
        self.stored.extend(keys);
        self.blobs.insert(id, bytes);
    }

    /// Writes the bytes in this many pieces, and commits them or not.
    fn write(&mut self, content: &Content, pieces: usize, finish: bool) {
        let bytes = content.bytes(&self.setup);
        let piece = bytes.len().div_ceil(pieces).max(1);
        let put = match &self.store {
            Kind::Sync(store) => {
                let mut writer = store.writer().unwrap();
                bytes.chunks(piece).for_each(|piece| writer.write_all(piece).unwrap());
                assert_eq!(writer.size(), bytes.len() as u64);
                finish.then(|| writer.finish().unwrap())
            }
            Kind::Async(store, runtime) => runtime.block_on(async {
                let mut writer = store.writer().await.unwrap();
                for piece in bytes.chunks(piece) {
                    writer.write(piece).await.unwrap();
                }
                assert_eq!(writer.size(), bytes.len() as u64);
                if finish { Some(writer.finish().await.unwrap()) } else { None }
            }),
        };
        match put {
            Some(put) => self.committed(&put, bytes),
            None => self.exact = false,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Put(content) => {
                let bytes = content.bytes(&self.setup);
                let put = on!(self, put(&bytes[..])).unwrap();
                assert_eq!(put.id.algo(), self.setup.algo);
                self.committed(&put, bytes);
            }
            Step::PutExpecting { content, claimed } => self.put_expecting(&content, &claimed),
            Step::Drop { content, pieces } => self.write(&content, pieces, false),
            Step::Write { content, pieces } => self.write(&content, pieces, true),
            Step::Get(number) => self.get(number),
            Step::ReadRange(number, from, to) => self.read_range(number, from, to),
            Step::Seek(number, moves) => self.seek(number, &moves),
            Step::List { after, limit } => self.list(after, limit),
            Step::Manifest(number, from, limit) => self.manifest(number, from, limit),
            Step::Stat(number) => {
                let Some((id, bytes)) = self.blob(number) else { return };
                let stat = on!(self, stat(id)).unwrap();
                let blocks = self.keys(id.algo(), bytes).len() as u64;
                assert_eq!((stat.id, stat.blocks, stat.chunker.as_str()), (*id, blocks, self.setup.chunker));
                assert!(on!(self, exists(id)).unwrap());
            }
            Step::Absent(number) => {
                let id = BlobId::of(self.setup.algo, format!("absent {number}").as_bytes());
                assert!(!on!(self, exists(&id)).unwrap());
                assert_eq!(on!(self, stat(&id)).unwrap_err().code(), Code::NotFound);
                assert_eq!(on!(self, read_range(&id, 0..0)).unwrap_err().code(), Code::NotFound);
                assert_eq!(on!(self, manifest(&id, 0, 1)).unwrap_err().code(), Code::NotFound);
            }
            Step::Stats => self.stats(),
            Step::Reopen => {
                on_close(&self.store);
                self.store = open(&self.setup, &self.directory, &self.blocks);
            }
        }
    }

    fn put_expecting(&mut self, content: &Content, claimed: &Content) {
        let bytes = content.bytes(&self.setup);
        // The id decides the algorithm, whatever the store uses by default.
        let algo = if claimed.own_seed == 0 { Algo::Sha256 } else { Algo::Blake3 };
        let id = BlobId::of(algo, &claimed.bytes(&self.setup));
        let expected = PutOptions::new().expect(id);
        let result = match &self.store {
            Kind::Sync(store) => store.put_with(&expected).source(&bytes[..]),
            Kind::Async(store, runtime) => runtime.block_on(store.put_with(&expected).source(&bytes[..])),
        };
        if id == BlobId::of(algo, &bytes) {
            self.committed(&result.unwrap(), bytes);
        } else {
            assert_eq!(result.unwrap_err().code(), Code::DigestMismatch);
            assert_eq!(on!(self, exists(&id)).unwrap(), self.blobs.contains_key(&id));
            self.exact = false;
        }
    }

    fn get(&self, number: usize) {
        let Some((id, bytes)) = self.blob(number) else { return };
        let read = match &self.store {
            Kind::Sync(store) => {
                let mut read = Vec::new();
                store.reader(id).unwrap().read_to_end(&mut read).unwrap();
                read
            }
            Kind::Async(store, runtime) => runtime.block_on(async {
                let (mut reader, mut read) = (store.reader(id).await.unwrap(), Vec::new());
                while let Some(next) = reader.next().await.unwrap() {
                    assert!(!next.is_empty(), "an empty piece is no end");
                    read.extend_from_slice(&next);
                }
                read
            }),
        };
        assert!(read == bytes, "{id} has other bytes");
    }

    fn read_range(&self, number: usize, from: Place, to: Place) {
        let Some((id, bytes)) = self.blob(number) else { return };
        let (from, to) = (place(bytes, from), place(bytes, to));
        let size = bytes.len() as u64;
        match on!(self, read_range(id, from..to)) {
            Ok(read) => {
                assert!(from <= size && from <= to, "{from}..{to} of {size}");
                assert!(read == bytes[from as usize..to.min(size) as usize], "{from}..{to} of {id}");
            }
            Err(error) => {
                assert_eq!(error.code(), Code::RangeNotSatisfiable);
                assert!(from > size || from > to, "{from}..{to} of {size} was refused");
            }
        }
    }

    fn seek(&self, number: usize, moves: &[(Place, usize)]) {
        let Some((id, bytes)) = self.blob(number) else { return };
        let expected = |from: u64, length: usize| {
            let from = bytes.len().min(from as usize);
            &bytes[from..bytes.len().min(from + length)]
        };
        match &self.store {
            Kind::Sync(store) => {
                let mut reader = store.reader(id).unwrap();
                let mut position = 0;
                for (to, length) in moves {
                    let target = place(bytes, *to);
                    // All three kinds of seek, which must have the same effect.
                    let seek = match length % 3 {
                        0 => SeekFrom::Start(target),
                        1 => SeekFrom::Current(target as i64 - position as i64),
                        _ => SeekFrom::End(target as i64 - bytes.len() as i64),
                    };
                    assert_eq!(reader.seek(seek).unwrap(), target);
                    let mut read = Vec::new();
                    (&mut reader).take(*length as u64).read_to_end(&mut read).unwrap();
                    assert!(read == expected(target, *length), "{length} at {target} of {id}");
                    position = reader.stream_position().unwrap();
                    assert_eq!(position, target + read.len() as u64);
                }
                assert!(reader.seek(SeekFrom::End(-(bytes.len() as i64) - 1)).is_err());
            }
            Kind::Async(store, runtime) => runtime.block_on(async {
                let mut reader = store.reader(id).await.unwrap();
                for (to, length) in moves {
                    let target = place(bytes, *to);
                    reader.seek(target);
                    let mut read = Vec::new();
                    while read.len() < *length {
                        let most = (*length - read.len()) as u64;
                        let Some(next) = reader.next_up_to(most).await.unwrap() else { break };
                        assert!(next.len() as u64 <= most);
                        read.extend_from_slice(&next);
                    }
                    assert!(read == expected(target, *length), "{length} at {target} of {id}");
                    assert_eq!(reader.position(), target + read.len() as u64);
                }
            }),
        }
    }

    fn list(&self, after: Option<(usize, bool)>, limit: usize) {
        // A cursor that exists, or a similar one that does not.
        let after = after.and_then(|(number, exists)| {
            let (id, _) = self.blob(number)?;
            let beside = BlobId::new(id.algo(), *id.digest(), id.size() ^ 1).unwrap();
            Some(if exists { *id } else { beside })
        });
        let listed = on!(self, list(after.as_ref(), limit)).unwrap();
        let ids = self.blobs.keys().filter(|id| after.is_none_or(|after| **id > after));
        let expected: Vec<BlobId> = ids.copied().take(limit).collect();
        assert_eq!(listed.iter().map(|stat| stat.id).collect::<Vec<_>>(), expected);
    }

    fn manifest(&self, number: usize, from: Place, limit: usize) {
        let Some((id, bytes)) = self.blob(number) else { return };
        let from = place(bytes, from);
        let entries = on!(self, manifest(id, from, limit)).unwrap();
        let mut offset = 0;
        let all = self.keys(id.algo(), bytes).into_iter().map(|key| {
            let start = offset;
            offset += key.size() as u64;
            (start, key)
        });
        let expected: Vec<(u64, BlockKey)> =
            all.filter(|(start, key)| start + key.size() as u64 > from).take(limit).collect();
        assert_eq!(entries.iter().map(|entry| (entry.offset, entry.key)).collect::<Vec<_>>(), expected);
    }

    fn stats(&self) {
        let stats = on!(self, stats()).unwrap();
        assert_eq!(stats.blobs, self.blobs.len() as u64);
        assert_eq!(stats.logical_bytes, self.blobs.keys().map(BlobId::size).sum::<u64>());
        if self.exact {
            assert_eq!(stats.blocks, self.stored.len() as u64);
            assert_eq!(stats.stored_bytes, self.stored.iter().map(|key| key.size() as u64).sum::<u64>());
        }
    }
}

fn open(setup: &Setup, directory: &TempDir, blocks: &MemoryBlockStore) -> Kind {
    if !setup.memory {
        let config = Config::for_directory(directory.path()).set("GRAVITON_CHUNKER", setup.chunker).unwrap();
        let config = config.set("GRAVITON_HASH", setup.algo.name()).unwrap();
        let config = config.set("GRAVITON_DURABILITY", setup.durability.name()).unwrap();
        return Kind::Sync(config.open().unwrap());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let settings = Settings {
        algo: setup.algo,
        chunker: setup.chunker.parse().unwrap(),
        durability: setup.durability,
        ..Settings::default()
    };
    let path = directory.path().join("manifests.db");
    let store = runtime.block_on(async {
        let manifests =
            ManifestRepo::open_sqlite(&path, setup.durability, graviton_core::Opening::Create).await.unwrap();
        AsyncStore::new(Arc::new(blocks.clone()), Arc::new(manifests), settings).await.unwrap()
    });
    Kind::Async(store, Arc::new(runtime))
}

fn on_close(store: &Kind) {
    match store {
        Kind::Sync(store) => store.close(),
        Kind::Async(store, runtime) => runtime.block_on(store.close()),
    }
}

/// A short run; `PROPTEST_CASES` makes it longer.
fn config() -> ProptestConfig {
    let default = ProptestConfig { max_shrink_iters: 200, ..ProptestConfig::default() };
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { 24 };
    ProptestConfig { cases, ..default }
}

proptest! {
    #![proptest_config(config())]
    #[test]
    fn a_store_is_a_map(setup in setups(), steps in prop::collection::vec(steps(), 1..25)) {
        let mut world = World::new(setup);
        for step in steps {
            world.step(step);
        }
        // After any sequence, the store has all expected blobs and nothing else.
        world.step(Step::List { after: None, limit: 1_000 });
        world.step(Step::Stats);
        world.step(Step::Reopen);
        for number in 0..world.blobs.len() {
            world.get(number);
        }
        on_close(&world.store);
    }
}
