//! Bit rot: for any damage to a small store, every read that needs the damaged part is an error and never a
//! wrong byte, `verify` names the damage, and putting the same bytes again heals it.
//!
//! Files with SQLite exhaustively; blocks in S3 and manifests in PostgreSQL by sample.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::support::exact::{halves, setting};
use crate::support::pair;
use crate::support::pair::{Blocks, Manifests, Pair};
use graviton_core::block::pack::record::HEADER;
use graviton_core::{BlobId, BlockKey, Code, Config, Finding, Store, VerifyEvent, VerifyOptions};
use object_store::{ObjectStoreExt, PutPayload};
use sqlx::Connection;
use tempfile::TempDir;

const BLOCK: usize = 24;

/// Blobs that share blocks: of one block, of several, with a short block at the end, with one block twice.
fn contents() -> Vec<Vec<u8>> {
    let block = |number: u8| (0..BLOCK as u8).map(move |byte| byte.wrapping_mul(7) ^ (number << 3));
    let blocks = |numbers: &[u8]| numbers.iter().flat_map(|number| block(*number)).collect::<Vec<u8>>();
    vec![blocks(&[1]), blocks(&[1, 2, 3]), [blocks(&[3, 4]), vec![9; 7]].concat(), blocks(&[5, 2, 5])]
}

/// The findings of a verification: bad blocks with the damaged blobs, and blobs with a broken manifest.
#[derive(Debug, Default, PartialEq)]
struct Found {
    blocks: Vec<(BlockKey, BTreeSet<BlobId>)>,
    manifests: BTreeSet<BlobId>,
    others: Vec<Finding>,
}

fn verify(store: &Store, deep: bool) -> Found {
    let mut found = Found::default();
    let report = store.verify(&VerifyOptions { deep, ..VerifyOptions::default() }, |event| {
        match event {
            VerifyEvent::Found(Finding::Block { key, blobs, .. }) => {
                found.blocks.push((key, blobs.into_iter().collect()));
            }
            VerifyEvent::Found(Finding::Manifest { id, .. }) => drop(found.manifests.insert(id)),
            VerifyEvent::Found(other) => found.others.push(other),
            VerifyEvent::Progress(_) => {}
        }
        ControlFlow::Continue(())
    });
    assert_eq!(report.unwrap().is_clean(), found == Found::default(), "{found:?}");
    found.blocks.sort();
    found
}

/// Reads every blob whole and byte by byte around each boundary. Returns the blobs that do not read whole.
fn hurt(store: &Store, blobs: &[(BlobId, Vec<u8>)]) -> BTreeSet<BlobId> {
    let fitting = [Code::CorruptBlock, Code::MissingBlock, Code::CorruptDatabase, Code::NotFound];
    let mut hurt = BTreeSet::new();
    for (id, content) in blobs {
        match store.read_range(id, 0..u64::MAX) {
            Ok(bytes) => assert!(bytes == content[..], "{id} reads wrong bytes"),
            Err(error) => {
                assert!(fitting.contains(&error.code()), "{error:?}");
                hurt.insert(*id);
            }
        }
        for start in (0..content.len()).step_by(BLOCK / 2) {
            let end = (start + BLOCK).min(content.len());
            match store.read_range(id, start as u64..end as u64) {
                Ok(bytes) => assert!(bytes == content[start..end], "{id} reads wrong bytes from {start} on"),
                Err(error) => assert!(fitting.contains(&error.code()) && hurt.contains(id), "{error:?}"),
            }
        }
    }
    hurt
}

/// A store with the blobs in it.
struct Rotten {
    config: Config,
    blobs: Vec<(BlobId, Vec<u8>)>,
    blocks: Vec<(BlockKey, BTreeSet<BlobId>)>,
}

impl Rotten {
    fn new(config: Config) -> Rotten {
        let config = config.set("GRAVITON_CHUNKER", &format!("fixed:{BLOCK}")).unwrap();
        let store = config.open().unwrap();
        let blobs: Vec<(BlobId, Vec<u8>)> =
            contents().into_iter().map(|content| (store.put(&content[..]).unwrap().id, content)).collect();
        let mut blocks: Vec<(BlockKey, BTreeSet<BlobId>)> = Vec::new();
        for (id, _) in &blobs {
            for entry in store.manifest(id, 0, 100).unwrap() {
                match blocks.iter_mut().find(|(key, _)| *key == entry.key) {
                    Some((_, of)) => drop(of.insert(*id)),
                    None => blocks.push((entry.key, BTreeSet::from([*id]))),
                }
            }
        }
        blocks.sort();
        assert_eq!(blocks.len(), 6);
        Rotten { config, blobs, blocks }
    }

    /// Checks a store in which the bytes of these blocks are wrong, and heals it. With `quick`, the lengths
    /// of all of them are wrong too.
    fn judge(&self, bad: &[BlockKey], quick: bool, what: &str) {
        let bad: Vec<(BlockKey, BTreeSet<BlobId>)> =
            self.blocks.iter().filter(|(key, _)| bad.contains(key)).cloned().collect();
        let expected: BTreeSet<BlobId> = bad.iter().flat_map(|(_, blobs)| blobs.clone()).collect();
        let store = self.config.open().unwrap();
        assert_eq!(hurt(&store, &self.blobs), expected, "{what}");
        // Not the store that has read the blobs: its memory of damaged blocks helps a put.
        let store = self.config.open().unwrap();
        let found = verify(&store, false);
        assert_eq!(found.blocks, if quick { bad.clone() } else { Vec::new() }, "{what}, quickly");
        let found = verify(&store, true);
        assert_eq!(found, Found { blocks: bad, ..Found::default() }, "{what}");
        self.heal(&store, what);
    }

    fn heal(&self, store: &Store, what: &str) {
        for (id, content) in &self.blobs {
            assert_eq!(store.put(&content[..]).unwrap().id, *id);
        }
        assert_eq!(verify(store, true), Found::default(), "{what}, after everything was put again");
        assert!(hurt(store, &self.blobs).is_empty(), "{what}, after everything was put again");
    }
}

fn file(directory: &TempDir, key: &BlockKey) -> PathBuf {
    directory.path().join("cas/blocks").join(key.algo().name()).join(format!(
        "{}-{}",
        key.digest(),
        key.size()
    ))
}

/// Replaces the file under the same name, as rot does: not in the way the store writes.
fn replace(path: &PathBuf, bytes: Option<&[u8]>) {
    std::fs::remove_file(path).unwrap();
    if let Some(bytes) = bytes {
        std::fs::write(path, bytes).unwrap();
    }
}

#[test]
fn every_byte_and_every_length_of_every_file() {
    let directory = tempfile::tempdir().unwrap();
    let rotten = Rotten::new(Config::for_directory(directory.path()));
    for (key, _) in &rotten.blocks {
        let path = file(&directory, key);
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[at] ^= 1 << (at % 8);
            replace(&path, Some(&wrong));
            rotten.judge(&[*key], false, &format!("{key}: byte {at} flipped"));
            replace(&path, Some(&bytes[..at]));
            rotten.judge(&[*key], true, &format!("{key}: cut off at {at}"));
        }
        replace(&path, Some(&[&bytes[..], b"x"].concat()));
        rotten.judge(&[*key], true, &format!("{key}: a byte longer"));
        replace(&path, None);
        rotten.judge(&[*key], true, &format!("{key}: removed"));
    }
}

#[test]
fn every_two_files_swapped_and_one_in_the_place_of_another() {
    let directory = tempfile::tempdir().unwrap();
    let rotten = Rotten::new(Config::for_directory(directory.path()));
    let paths: Vec<(BlockKey, PathBuf)> =
        rotten.blocks.iter().map(|(key, _)| (*key, file(&directory, key))).collect();
    for (one, path) in &paths {
        for (other, other_path) in paths.iter().filter(|(other, _)| other != one) {
            let (bytes, others) = (std::fs::read(path).unwrap(), std::fs::read(other_path).unwrap());
            let quick = bytes.len() != others.len();
            replace(path, Some(&others));
            rotten.judge(&[*one], quick, &format!("{other} in the place of {one}"));
            replace(path, Some(&others));
            replace(other_path, Some(&bytes));
            rotten.judge(&[*one, *other], quick, &format!("{one} and {other} swapped"));
        }
    }
}

/// The damage to the database, and whether foreign keys have to be off for it.
fn statements(store: &Store, blobs: &[(BlobId, Vec<u8>)]) -> Vec<(String, BTreeSet<BlobId>)> {
    let mut statements = Vec::new();
    for (row, (id, _)) in (1..).zip(blobs) {
        let only = BTreeSet::from([*id]);
        for entry in store.manifest(id, 0, 100).unwrap() {
            let here = format!("WHERE blob_id = {row} AND block_offset = {}", entry.offset);
            statements.push((format!("DELETE FROM blob_block {here}"), only.clone()));
            statements.push((
                format!("UPDATE blob_block SET block_offset = block_offset + 1 {here}"),
                only.clone(),
            ));
        }
        statements.push((
            format!("UPDATE blob SET block_count = block_count + 1 WHERE id = {row}"),
            BTreeSet::new(),
        ));
    }
    statements
}

#[test]
fn every_row_of_every_manifest() {
    let directory = tempfile::tempdir().unwrap();
    let rotten = Rotten::new(Config::for_directory(directory.path()));
    let store = rotten.config.open().unwrap();
    let statements = statements(&store, &rotten.blobs);
    store.close();
    drop(store);
    let path = directory.path().join("manifests.db");
    let whole = std::fs::read(&path).unwrap();
    let sql = |statement: &str| {
        std::fs::write(&path, &whole).unwrap();
        let database = rusqlite::Connection::open(&path).unwrap();
        database.execute_batch("PRAGMA foreign_keys = off").unwrap();
        assert!(database.execute(statement, []).unwrap() > 0, "{statement}");
    };
    for (statement, unreadable) in statements {
        sql(&statement);
        let store = rotten.config.open().unwrap();
        assert_eq!(hurt(&store, &rotten.blobs), unreadable, "{statement}");
        for deep in [false, true] {
            let found = verify(&store, deep);
            assert_eq!(found.manifests.len(), 1, "{statement}: {found:?}");
            assert!(unreadable.is_subset(&found.manifests), "{statement}: {found:?}");
        }
        // A manifest is healed by deleting the blob and putting it again.
        let id = *verify(&store, true).manifests.first().unwrap();
        store.delete(&id).unwrap();
        rotten.heal(&store, &statement);
        store.close();
    }
    for (key, of) in &rotten.blocks {
        let digest = format!("digest = x'{}' AND size = {}", key.digest(), key.size());
        sql(&format!("DELETE FROM data_block WHERE {digest}"));
        let store = rotten.config.open().unwrap();
        assert_eq!(hurt(&store, &rotten.blobs), *of, "without the row of {key}");
        let found = verify(&store, false);
        assert_eq!(found.manifests, *of, "without the row of {key}");
        assert!(!found.others.is_empty(), "the database says nothing of {key}");
        store.close();
    }
    for (row, (id, _)) in (1..).zip(&rotten.blobs) {
        sql(&format!("DELETE FROM blob WHERE id = {row}"));
        let store = rotten.config.open().unwrap();
        assert_eq!(hurt(&store, &rotten.blobs), BTreeSet::from([*id]));
        assert_eq!(store.read_range(id, 0..1).unwrap_err().code(), Code::NotFound);
        assert!(!verify(&store, false).others.is_empty(), "references to nothing are found");
        store.close();
    }
}

/// One of each kind of damage, on every other pair.
#[test]
fn a_sample_on_every_pair() {
    for pair in Pair::all() {
        if (pair.blocks, pair.manifests) == (Blocks::Files, Manifests::Sqlite) || pair.blocks.are_packed() {
            continue;
        }
        let rotten = Rotten::new(pair.config());
        for (number, (key, _)) in rotten.blocks.iter().enumerate() {
            let bytes = bytes_of(&pair, key).unwrap();
            let mut flipped = bytes.clone();
            flipped[number % bytes.len()] ^= 0x10;
            set_bytes(&pair, key, Some(flipped));
            rotten.judge(&[*key], false, &format!("{pair:?}: {key} flipped"));
            set_bytes(&pair, key, Some(bytes[..bytes.len() - 1].to_vec()));
            rotten.judge(&[*key], true, &format!("{pair:?}: {key} cut off"));
            set_bytes(&pair, key, None);
            rotten.judge(&[*key], true, &format!("{pair:?}: {key} removed"));
            let (other, _) = &rotten.blocks[(number + 1) % rotten.blocks.len()];
            let others = bytes_of(&pair, other).unwrap();
            let quick = others.len() != bytes.len();
            set_bytes(&pair, key, Some(others));
            set_bytes(&pair, other, Some(bytes));
            rotten.judge(&[*key, *other], quick, &format!("{pair:?}: {key} and {other} swapped"));
        }
        if pair.manifests == Manifests::Postgres {
            rot_rows_of_postgres(&pair, &rotten);
        }
    }
}

/// The location of a block's record: the file of its pack, and the offset.
fn record(pair: &Pair, key: &BlockKey) -> (PathBuf, u64) {
    pair::in_runtime(async {
        let (blocks, manifests) = halves(|name| setting(pair, name)).await;
        let rows = manifests.blocks_by_key(vec![*key]).await.unwrap();
        manifests.close().await;
        let place = rows[0].located.expect("the block is in a pack").place;
        (blocks.packs().unwrap().place(&place.name).into(), place.offset)
    })
}

/// Damages one byte of a file in place.
fn flip(path: &PathBuf, at: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1 << (at % 8)], at).unwrap();
}

#[test]
fn every_byte_of_every_record_and_every_length_of_a_pack() {
    let pair = Pair::new(Blocks::Packs, Manifests::Sqlite);
    let rotten = Rotten::new(pair.config());
    for (key, _) in &rotten.blocks {
        for at in 0..HEADER + key.size() as u64 {
            let (path, offset) = record(&pair, key);
            flip(&path, offset + at);
            // A verification that does not read the payload checks only the header.
            rotten.judge(&[*key], at < HEADER, &format!("{key}: byte {at} of its record flipped"));
        }
        for length in 0..HEADER + key.size() as u64 {
            let (path, offset) = record(&pair, key);
            let behind = |other: &&(BlockKey, BTreeSet<BlobId>)| {
                let (of_other, at) = record(&pair, &other.0);
                of_other == path && at >= offset
            };
            let bad: Vec<BlockKey> = rotten.blocks.iter().filter(behind).map(|(key, _)| *key).collect();
            std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(offset + length).unwrap();
            rotten.judge(&bad, true, &format!("{key}: the pack is cut off at {length} of its record"));
        }
        let (path, offset) = record(&pair, key);
        let behind = |other: &&(BlockKey, BTreeSet<BlobId>)| record(&pair, &other.0).0 == path;
        let bad: Vec<BlockKey> = rotten.blocks.iter().filter(behind).map(|(key, _)| *key).collect();
        assert!(bad.contains(key) && offset > 0);
        std::fs::remove_file(&path).unwrap();
        rotten.judge(&bad, true, &format!("the pack of {key} is removed"));
        // Two records of the same length swap places.
        let (other, _) = rotten
            .blocks
            .iter()
            .find(|(other, _)| other != key && other.size() == key.size())
            .unwrap_or(&rotten.blocks[0]);
        if other.size() == key.size() && other != key {
            let ((one, at), (two, other_at)) = (record(&pair, key), record(&pair, other));
            let length = HEADER as usize + key.size();
            let read = |path: &PathBuf, at: u64| {
                let mut bytes = vec![0; length];
                std::fs::File::open(path).unwrap().read_exact_at(&mut bytes, at).unwrap();
                bytes
            };
            let (first, second) = (read(&one, at), read(&two, other_at));
            let write = |path: &PathBuf, at: u64, bytes: &[u8]| {
                std::fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
            };
            write(&one, at, &second);
            write(&two, other_at, &first);
            rotten.judge(&[*key, *other], true, &format!("the records of {key} and {other} are swapped"));
        }
    }
}

fn rot_rows_of_postgres(pair: &Pair, rotten: &Rotten) {
    let store = rotten.config.open().unwrap();
    let (id, _) = &rotten.blobs[1];
    let name = format!("(SELECT id FROM blob WHERE state = 1 AND digest = decode('{}', 'hex'))", id.digest());
    for statement in [
        format!("DELETE FROM blob_block WHERE blob_id = {name} AND block_offset = {BLOCK}"),
        format!(
            "UPDATE blob_block SET block_offset = 1000 WHERE blob_id = {name} AND block_offset = {BLOCK}"
        ),
    ] {
        pair::in_runtime(async {
            let mut connection =
                sqlx::PgConnection::connect(pair.setting("GRAVITON_MANIFEST_URL")).await.unwrap();
            let statement = format!("SET search_path = graviton; {statement}");
            sqlx::raw_sql(&statement).execute(&mut connection).await.unwrap();
        });
        assert_eq!(hurt(&store, &rotten.blobs), BTreeSet::from([*id]), "{statement}");
        assert_eq!(verify(&store, false).manifests, BTreeSet::from([*id]), "{statement}");
        store.delete(id).unwrap();
        rotten.heal(&store, &statement);
    }
}

/// The name of a block's object is `<prefix>/<algo>/<digest>-<size>`, as that of its file.
fn object(pair: &Pair, key: &BlockKey) -> object_store::path::Path {
    let prefix = pair.setting("GRAVITON_S3_BLOCK_PREFIX");
    format!("{prefix}/{}/{}-{}", key.algo().name(), key.digest(), key.size()).into()
}

fn bytes_of(pair: &Pair, key: &BlockKey) -> Option<Vec<u8>> {
    if pair.blocks == Blocks::Files {
        return std::fs::read(file(&pair.root, key)).ok();
    }
    pair::in_runtime(async {
        Some(pair::s3_client().get(&object(pair, key)).await.ok()?.bytes().await.ok()?.to_vec())
    })
}

fn set_bytes(pair: &Pair, key: &BlockKey, bytes: Option<Vec<u8>>) {
    if pair.blocks == Blocks::Files {
        return replace(&file(&pair.root, key), bytes.as_deref());
    }
    pair::in_runtime(async {
        let (client, path) = (pair::s3_client(), object(pair, key));
        match bytes {
            Some(bytes) => drop(client.put(&path, PutPayload::from(bytes)).await.unwrap()),
            None => client.delete(&path).await.unwrap(),
        }
    });
}
