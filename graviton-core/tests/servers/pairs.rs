//! Any block store with any database, chosen by settings alone: the same behaviour, for any number of
//! processes.

use std::collections::BTreeSet;
use std::io::{Read, Seek, SeekFrom};
use std::process::Stdio;

use crate::support::child;
use crate::support::needs_servers;
use crate::support::pair;
use crate::support::pair::{Blocks, Manifests, Pair, in_runtime, new_database, new_prefix, s3_client};
use graviton_core::testing::Recipe;
use graviton_core::{Algo, BlobId, BlockKey, Code, Config, PutOptions, Store};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

fn content(recipe: &str) -> Vec<u8> {
    recipe.parse::<Recipe>().unwrap().bytes()
}

fn read(store: &Store, id: &BlobId) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = store.reader(id).and_then(|mut reader| Ok(reader.read_to_end(&mut bytes)?));
    read.unwrap_or_else(|error| panic!("cannot read {id}: {error}"));
    bytes
}

#[test]
fn every_pair_gives_back_what_it_was_given() {
    for pair in Pair::all() {
        let error = pair.config().open_read_only().unwrap_err();
        assert_eq!(error.code(), Code::NotFound, "{pair:?}: {error}");
        let store = pair.open();
        let contents =
            ["zeros:0", "xof:one:1", "xof:a:16384", "xof:b:16385", "xof:long:900000", "zeros:200000"];
        let contents = contents.map(content);
        let mut ids = BTreeSet::new();
        for bytes in &contents {
            let put = store.put(&bytes[..]).unwrap();
            assert_eq!(put.id, BlobId::of(Algo::Blake3, bytes));
            assert!(put.created);
            ids.insert(put.id);
            assert!(read(&store, &put.id) == *bytes, "{pair:?}: {}", put.id);
            check_manifest(&store, &put.id, bytes);
        }
        check_totals(&store, &contents, pair.blocks.are_packed());
        check_listing(&store, &ids);
        check_ranges(&store, &contents[4]);
        check_refusals(&store, &contents[4]);

        // Again, in a reopened store: nothing is sent and nothing is new.
        store.close();
        let store = pair.open();
        for bytes in &contents {
            let put = store.put(&bytes[..]).unwrap();
            assert_eq!((put.created, put.fresh_blocks, put.fresh_bytes), (false, 0, 0), "{pair:?}");
        }
        check_totals(&store, &contents, pair.blocks.are_packed());

        let reading = pair.config().open_read_only().unwrap();
        assert!(read(&reading, &BlobId::of(Algo::Blake3, &contents[4])) == contents[4]);
        assert!(reading.put(&b"x"[..]).is_err());
    }
}

/// Checks that the blocks follow each other, and have the bytes that their keys name.
fn check_manifest(store: &Store, id: &BlobId, bytes: &[u8]) {
    let mut end = 0;
    loop {
        let entries = store.manifest(id, end, 100).unwrap();
        for entry in &entries {
            assert_eq!(entry.offset, end);
            let block = &bytes[end as usize..entry.end() as usize];
            assert_eq!(Some(entry.key), BlockKey::of(Algo::Blake3, block).ok());
            end = entry.end();
        }
        if entries.is_empty() {
            break;
        }
    }
    assert_eq!(end, bytes.len() as u64);
}

fn check_totals(store: &Store, contents: &[Vec<u8>], is_packed: bool) {
    let mut blocks = BTreeSet::new();
    for bytes in contents {
        let id = BlobId::of(Algo::Blake3, bytes);
        blocks.extend(store.manifest(&id, 0, 10_000).unwrap().iter().map(|entry| entry.key));
    }
    let stats = store.stats().unwrap();
    assert_eq!((stats.blobs, stats.blocks), (contents.len() as u64, blocks.len() as u64));
    assert_eq!(stats.logical_bytes, contents.iter().map(Vec::len).sum::<usize>() as u64);
    let plain = blocks.iter().map(BlockKey::size).sum::<usize>() as u64;
    // In packs, blocks are compressed: here two blocks of zeros.
    let is_as_expected = if is_packed { stats.stored_bytes < plain } else { stats.stored_bytes == plain };
    assert!(is_as_expected, "{} bytes are stored of {plain}", stats.stored_bytes);
}

fn check_listing(store: &Store, ids: &BTreeSet<BlobId>) {
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = store.list(after.as_ref(), 2).unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        listed.extend(page.iter().map(|stat| stat.id));
    }
    assert_eq!(listed, ids.iter().copied().collect::<Vec<_>>());
    for id in ids {
        assert_eq!(store.stat(id).unwrap().id, *id);
        assert!(store.exists(id).unwrap());
    }
}

fn check_ranges(store: &Store, bytes: &[u8]) {
    let id = BlobId::of(Algo::Blake3, bytes);
    let size = bytes.len() as u64;
    let edge = store.manifest(&id, 0, 1).unwrap()[0].end();
    for range in [0..0, 0..1, edge - 1..edge + 1, edge..edge + 1, 5..size - 5, size - 1..size, 0..size] {
        let wanted = &bytes[range.start as usize..range.end as usize];
        assert!(store.read_range(&id, range.clone()).unwrap() == wanted, "{range:?}");
    }
    let mut reader = store.reader(&id).unwrap();
    let mut end = Vec::new();
    reader.seek(SeekFrom::End(-100)).unwrap();
    reader.read_to_end(&mut end).unwrap();
    assert!(end == bytes[bytes.len() - 100..]);
}

/// An absent blob is not found, and a put of unexpected bytes leaves nothing visible.
fn check_refusals(store: &Store, bytes: &[u8]) {
    let unknown = BlobId::of(Algo::Blake3, b"never put");
    assert_eq!(store.stat(&unknown).unwrap_err().code(), Code::NotFound);
    assert_eq!(store.reader(&unknown).unwrap_err().code(), Code::NotFound);
    let error = store.put_with(&PutOptions::new().expect(unknown)).source(&bytes[..1000]).unwrap_err();
    assert_eq!(error.code(), Code::DigestMismatch);
    assert!(!store.exists(&unknown).unwrap());
    assert!(!store.exists(&BlobId::of(Algo::Blake3, &bytes[..1000])).unwrap());
}

#[test]
fn both_algorithms_live_in_one_store() {
    for pair in Pair::all() {
        let bytes = content("xof:both:40000");
        let ids = ["blake3", "sha256"].map(|hash| {
            pair.config().set("GRAVITON_HASH", hash).unwrap().open().unwrap().put(&bytes[..]).unwrap()
        });
        let store = pair.open();
        for put in ids {
            assert!(read(&store, &put.id) == bytes, "{pair:?}: {}", put.id);
        }
    }
}

#[test]
fn a_store_of_another_host_is_the_same_store() {
    needs_servers!();
    let here = Pair::new(Blocks::S3, Manifests::Postgres);
    let there = here.with(&[]);
    let bytes = content("xof:hosts:300000");
    let id = here.open().put(&bytes[..]).unwrap().id;
    let store = there.open();
    assert!(read(&store, &id) == bytes);
    let put = store.put(&bytes[..]).unwrap();
    assert_eq!((put.created, put.fresh_blocks), (false, 0));
    let file = |pair: &Pair| std::fs::read_dir(pair.root.path()).unwrap().count();
    assert_eq!((file(&here), file(&there)), (0, 0), "a store without files made some");
}

#[test]
fn blocks_of_one_database_are_refused_to_another() {
    needs_servers!();
    for first in Pair::all() {
        let id = first.open().put(&b"mine"[..]).unwrap().id;
        for other in [Manifests::Sqlite, Manifests::Postgres] {
            let url = match other {
                Manifests::Sqlite => format!("sqlite:{}", first.root.path().join("other.db").display()),
                Manifests::Postgres => new_database(),
            };
            // The same location: for files that is the directory.
            let config = first.config().set("GRAVITON_MANIFEST_URL", &url).unwrap();
            for _ in 0..2 {
                let error = config.open().unwrap_err();
                assert_eq!(error.code(), Code::Config, "{first:?}: {error}");
                assert!(error.to_string().contains("belong to another database"), "{error}");
            }
            // Not even with a request to take them over.
            let error = config.clone().adopt(true).open().unwrap_err();
            assert_eq!(error.code(), Code::Config, "{first:?}: {error}");
        }
        assert_eq!(read(&first.open(), &id), b"mine");
    }
}

#[test]
fn a_database_is_not_used_with_another_place() {
    needs_servers!();
    for manifests in [Manifests::Sqlite, Manifests::Postgres] {
        let first = Pair::new(Blocks::S3, manifests);
        first.open().put(&b"mine"[..]).unwrap();
        let config = first.config().set("GRAVITON_S3_BLOCK_PREFIX", &new_prefix()).unwrap();
        let error = config.open().unwrap_err();
        assert_eq!(error.code(), Code::Config, "{error}");
        let place = format!("{}/{}", pair::BUCKET, first.setting("GRAVITON_S3_BLOCK_PREFIX"));
        assert!(format!("{error} {:?}", error.advice()).contains(&place), "{error} {:?}", error.advice());
    }
}

#[test]
fn blocks_that_moved_with_their_id_are_found() {
    needs_servers!();
    let first = Pair::new(Blocks::S3, Manifests::Postgres);
    let bytes = content("xof:moved:50000");
    let id = first.open().put(&bytes[..]).unwrap().id;
    let (from, to) = (first.setting("GRAVITON_S3_BLOCK_PREFIX"), new_prefix());
    in_runtime(async {
        let s3 = s3_client();
        let mut names = vec![format!("{from}/store-id")];
        let listed = s3.list_with_delimiter(Some(&Path::from(format!("{from}/blake3")))).await.unwrap();
        names.extend(listed.objects.iter().map(|object| object.location.to_string()));
        for name in names {
            let new = name.replace(from, &to);
            s3.rename(&Path::from(name), &Path::from(new)).await.unwrap();
        }
    });
    let moved = first.with(&[("GRAVITON_S3_BLOCK_PREFIX", &to)]);
    assert!(read(&moved.open(), &id) == bytes);
}

#[test]
fn blocks_without_an_id_are_taken_over_only_on_request() {
    needs_servers!();
    for manifests in [Manifests::Sqlite, Manifests::Postgres] {
        let pair = Pair::new(Blocks::S3, manifests);
        // A block as the seed version's server left it.
        let block = b"left by the first server";
        let key = BlockKey::of(Algo::Blake3, block).unwrap();
        let prefix = pair.setting("GRAVITON_S3_BLOCK_PREFIX");
        let name = Path::from(format!("{prefix}/blake3/{}", key.name()));
        in_runtime(s3_client().put(&name, block.to_vec().into())).unwrap();

        let error = pair.config().open().unwrap_err();
        assert_eq!(error.code(), Code::Config, "{error}");
        assert!(error.advice().unwrap().contains("adopt"), "{error}");
        let store = pair.config().adopt(true).open().unwrap();
        let id = store.put(&block[..]).unwrap().id;
        assert_eq!(read(&store, &id), block);
        store.close();
        // From then on the blocks belong to this store, and no request is needed.
        assert_eq!(read(&pair.open(), &id), block);
    }
}

const NUMBER: &str = "GRAVITON_TEST_NUMBER";

/// The blobs that a child puts: some of its own, some common to all children, small and large.
fn shared_contents(number: usize) -> Vec<Vec<u8>> {
    let mut contents: Vec<Vec<u8>> =
        (0..10).map(|nth| content(&format!("xof:same{nth}:{}", nth * 900))).collect();
    contents.push(content("xof:same large:1000000"));
    contents.push(content(&format!("xof:same large:900000+xof:{number}:100000")));
    contents.extend((0..10).map(|nth| content(&format!("xof:{number}-{nth}:{}", nth * 700 + 1))));
    // Each child has an order of its own.
    let count = contents.len();
    contents.rotate_left(number * 5 % count);
    contents
}

#[test]
#[ignore = "not a test: what the next one starts as another process"]
fn child() {
    let Ok(number) = std::env::var(NUMBER) else { return };
    let contents = shared_contents(number.parse().unwrap());
    // The parent closes standard input when all children are ready.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    let store = Config::from_env().unwrap().open().unwrap();
    let ids: Vec<BlobId> = contents.iter().map(|bytes| store.put(&bytes[..]).unwrap().id).collect();
    for (id, bytes) in ids.iter().zip(&contents) {
        assert!(read(&store, id) == *bytes, "{id} has other bytes");
    }
    println!("child {number} has put {}", ids.len());
}

#[test]
fn processes_that_put_the_same_and_other_content_at_once_lose_nothing() {
    needs_servers!();
    let pair = Pair::new(Blocks::S3, Manifests::Postgres);
    let count = 4;
    // Each with a root of its own, as on another host.
    let hosts: Vec<Pair> = (0..count).map(|_| pair.with(&[])).collect();
    let start = |(number, host): (usize, &Pair)| {
        child::command(module_path!())
            .envs(host.settings.iter().map(|(name, value)| (*name, value)))
            .env("GRAVITON_FS_ROOT", host.root.path())
            .env(NUMBER, number.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let mut children: Vec<_> = hosts.iter().enumerate().map(start).collect();
    std::thread::sleep(std::time::Duration::from_millis(300));
    for child in &mut children {
        drop(child.stdin.take());
    }
    for (number, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("has put 22"), "child {number}: {text}");
    }

    let expected: BTreeSet<Vec<u8>> = (0..count).flat_map(shared_contents).collect();
    let store = pair.open();
    assert_eq!(store.stats().unwrap().blobs, expected.len() as u64);
    for bytes in &expected {
        assert!(read(&store, &BlobId::of(Algo::Blake3, bytes)) == *bytes);
        let put = store.put(&bytes[..]).unwrap();
        assert_eq!((put.created, put.fresh_blocks), (false, 0));
    }
    in_runtime(check_objects(&pair, &store, &expected));
}

/// Checks that the bucket contains exactly the blocks of the blobs, and the id.
async fn check_objects(pair: &Pair, store: &Store, contents: &BTreeSet<Vec<u8>>) {
    let prefix = pair.setting("GRAVITON_S3_BLOCK_PREFIX");
    let mut expected = BTreeSet::from([format!("{prefix}/store-id")]);
    for bytes in contents {
        let id = BlobId::of(Algo::Blake3, bytes);
        let entries = store.as_async().manifest(&id, 0, 10_000).await.unwrap();
        expected.extend(entries.iter().map(|entry| format!("{prefix}/blake3/{}", entry.key.name())));
    }
    let s3 = s3_client();
    let mut found = BTreeSet::new();
    for directory in [prefix.to_owned(), format!("{prefix}/blake3")] {
        let listed = s3.list_with_delimiter(Some(&Path::from(directory))).await.unwrap();
        found.extend(listed.objects.iter().map(|object| object.location.to_string()));
    }
    assert_eq!(found, expected);
}
