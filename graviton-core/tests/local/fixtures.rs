//! Stores that released versions wrote (`tests/fixtures/`). Each of them opens and reads for ever, from any
//! directory.

use crate::support::child;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::RwLock;

use graviton_core::testing::Recipe;
use graviton_core::{BlobId, Code, Config, PutOptions, Store};
use serde_json::Value;
use tempfile::TempDir;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

/// The names of all fixtures.
fn names() -> Vec<String> {
    let entries = std::fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap());
    let stores = entries.filter(|entry| entry.path().is_dir());
    let names: Vec<String> = stores.map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert!(names.iter().any(|name| name == "store-0.1"), "{names:?}");
    names
}

/// Locked exclusively by the test that opens fixtures in place: SQLite creates files there for a moment.
static IN_PLACE: RwLock<()> = RwLock::new(());

/// A copy of a fixture that a test may change.
fn copy_of(name: &str) -> TempDir {
    let _not_in_place = IN_PLACE.read().unwrap();
    let directory = tempfile::tempdir().unwrap();
    for path in files(&fixtures().join(name)).keys() {
        let target = directory.path().join(path);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(fixtures().join(name).join(path), target).unwrap();
    }
    directory
}

/// All files below a directory, with their bytes.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                found.insert(path.strip_prefix(directory).unwrap().to_owned(), bytes);
            }
        }
    }
    found
}

/// The blobs of a fixture: id, bytes, the chunker's setting and the number of blocks.
fn blobs(name: &str) -> Vec<(BlobId, Vec<u8>, String, u64)> {
    let lists = std::env::var_os(LISTS).map_or_else(fixtures, PathBuf::from);
    let list = std::fs::read(lists.join(format!("{name}.json"))).unwrap();
    let list: Value = serde_json::from_slice(&list).unwrap();
    let blob = |blob: &Value| {
        let text = |name: &str| blob[name].as_str().unwrap();
        let bytes = text("content").parse::<Recipe>().unwrap().bytes();
        let id: BlobId = text("id").parse().unwrap();
        assert_eq!(BlobId::of(id.algo(), &bytes), id);
        (id, bytes, text("chunker").to_owned(), blob["blocks"].as_u64().unwrap())
    };
    list["blobs"].as_array().unwrap().iter().map(blob).collect()
}

fn assert_reads(store: &Store, name: &str) {
    let blobs = blobs(name);
    let mut ids: Vec<BlobId> = blobs.iter().map(|(id, ..)| *id).collect();
    ids.sort_unstable();
    assert_eq!(store.list(None, 1_000).unwrap().iter().map(|stat| stat.id).collect::<Vec<_>>(), ids);
    for (id, bytes, chunker, blocks) in &blobs {
        let mut read = Vec::new();
        store.reader(id).unwrap().read_to_end(&mut read).unwrap();
        assert!(read == *bytes, "{id} has other bytes");
        let middle = bytes.len() as u64 / 2;
        assert_eq!(store.read_range(id, middle..middle + 100).unwrap(), {
            let from = middle as usize;
            bytes[from..bytes.len().min(from + 100)].to_vec()
        });
        let stat = store.stat(id).unwrap();
        assert_eq!((&stat.chunker, stat.blocks), (chunker, *blocks));
        let entries = store.manifest(id, 0, 10_000).unwrap();
        assert_eq!(entries.len() as u64, *blocks);
        assert_eq!(entries.last().map_or(0, graviton_core::ManifestEntry::end), id.size());
    }
    let stats = store.stats().unwrap();
    assert_eq!(stats.blobs, blobs.len() as u64);
    assert_eq!(stats.logical_bytes, blobs.iter().map(|(id, ..)| id.size()).sum::<u64>());
}

#[test]
fn a_moved_copy_opens_reads_and_takes_more() {
    for name in names() {
        let directory = copy_of(&name);
        let config = Config::for_directory(directory.path());
        let store = config.open().unwrap();
        assert_reads(&store, &name);
        let more = store.put(&b"more, by a later version"[..]).unwrap();
        for (id, bytes, chunker, _) in blobs(&name) {
            // The current version finds the existing blobs.
            let config = Config::for_directory(directory.path()).set("GRAVITON_CHUNKER", &chunker).unwrap();
            let expected = PutOptions::new().expect(id);
            let put = config.open().unwrap().put_with(&expected).source(&bytes[..]).unwrap();
            assert_eq!((put.created, put.fresh_blocks), (false, 0), "{id}");
        }
        store.close();
        let store = Config::for_directory(directory.path()).open().unwrap();
        assert_eq!(store.read_range(&more.id, 0..4).unwrap(), "more");
        assert_eq!(store.list(None, 1_000).unwrap().len(), blobs(&name).len() + 1);
    }
}

/// Opens the fixture in place, where a changed file would also show up in the repository.
#[test]
fn reading_in_place_writes_nothing() {
    let _alone = IN_PLACE.write().unwrap();
    for name in names() {
        let place = fixtures().join(&name);
        let before = files(&place);
        assert!(before.keys().all(|path| !path.to_string_lossy().contains("-wal")), "not checkpointed");
        let store = Config::for_directory(&place).open_read_only().unwrap();
        assert_reads(&store, &name);
        store.close();
        let after = files(&place);
        // Cleans up first, so that a failure does not litter the repository.
        let added: Vec<&PathBuf> = after.keys().filter(|path| !before.contains_key(*path)).collect();
        for path in &added {
            std::fs::remove_file(place.join(path)).unwrap();
        }
        assert!(added.is_empty(), "reading made {added:?}");
        assert!(after == before, "a file of {name} was changed");
    }
}

#[test]
fn reading_changes_no_file() {
    for name in names() {
        let directory = copy_of(&name);
        let before = files(directory.path());
        assert!(before.keys().all(|path| !path.to_string_lossy().contains("-wal")), "not checkpointed");
        let store = Config::for_directory(directory.path()).open_read_only().unwrap();
        assert_reads(&store, &name);
        let error = store.put(&b"refused"[..]).unwrap_err();
        assert_eq!(error.code(), Code::Forbidden);
        store.close();
        let mut after = files(directory.path());
        // SQLite needs these beside a database in WAL mode, because a writer could come at any moment.
        after.remove(Path::new("manifests.db-shm"));
        let wal = after.remove(Path::new("manifests.db-wal"));
        assert!(wal.is_none_or(|wal| wal.is_empty()), "reading wrote to the log");
        assert!(after == before, "a file of {name} was made or changed");
    }
}

#[test]
#[ignore = "not a test: what the next one starts as a user that may write nothing"]
fn child() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let name = std::env::var(NAME).unwrap();
    assert!(std::fs::write(Path::new(&directory).join("x"), "").is_err(), "this user may write");
    let store = Config::for_directory(&directory).open_read_only().unwrap();
    assert_reads(&store, &name);
    println!("child has read {}", store.list(None, 1_000).unwrap().len());
    store.close();
    // Opened for writing, the same store reports the problem.
    let error = Config::for_directory(&directory).open().and_then(|store| store.put(&b"x"[..])).unwrap_err();
    assert_eq!(error.code(), Code::Forbidden, "{error}");
}

const DIRECTORY: &str = "GRAVITON_TEST_DIRECTORY";
const NAME: &str = "GRAVITON_TEST_NAME";

/// Where the child finds the lists of the blobs.
const LISTS: &str = "GRAVITON_TEST_LISTS";

#[test]
fn a_store_that_may_not_be_written_to_can_be_read() {
    for name in names() {
        let (directory, programs) = (copy_of(&name), tempfile::tempdir().unwrap());
        let allow = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        for path in files(directory.path()).keys() {
            let path = directory.path().join(path);
            allow(&path, 0o444);
            let parents = path.ancestors().skip(1).take_while(|parent| parent.starts_with(&directory));
            parents.for_each(|parent| allow(parent, 0o555));
        }
        let before = files(directory.path());
        // Permissions do not stop a superuser, and another user may not be able to reach this program or the
        // fixtures.
        let list = format!("{name}.json");
        std::fs::copy(fixtures().join(&list), programs.path().join(&list)).unwrap();
        let program = programs.path().join("child");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        allow(programs.path(), 0o755);
        allow(&program, 0o755);
        let mut child = child::command_of(&program, module_path!());
        child.current_dir("/");
        child.env(DIRECTORY, directory.path()).env(NAME, &name).env(LISTS, programs.path());
        if rustix::process::geteuid().is_root() {
            child.uid(65_534).gid(65_534);
        }
        let output = child.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains(&format!("child has read {}", blobs(&name).len())), "{text}");
        assert!(files(directory.path()) == before, "a file was made or changed");
        // So that it can be removed.
        for parent in ["cas/blocks/blake3", "cas/blocks/sha256", "cas/blocks", "cas", ""] {
            allow(&directory.path().join(parent), 0o755);
        }
    }
}

#[test]
fn blocks_of_another_database_are_refused() {
    for name in names() {
        let (one, two) = (copy_of(&name), tempfile::tempdir().unwrap());
        let other = Config::for_directory(two.path()).open().unwrap();
        other.put(&b"other"[..]).unwrap();
        other.close();
        for suffix in ["", "-wal", "-shm"] {
            let name = format!("manifests.db{suffix}");
            let _ = std::fs::copy(two.path().join(&name), one.path().join(&name));
        }
        let error = Config::for_directory(one.path()).open().unwrap_err();
        assert_eq!(error.code(), Code::Config);
        assert!(error.to_string().contains("belong to another database"), "{error}");
    }
}

/// A store of the last version without packs, and a copy of the result of opening it with the next version.
#[test]
fn a_store_without_packs_goes_on_in_files_until_it_is_upgraded() {
    let directory = copy_of("store-0.2");
    let root = directory.path();
    let config = Config::for_directory(root);
    let tables = || -> Vec<String> {
        let connection = rusqlite::Connection::open(root.join("manifests.db")).unwrap();
        let mut statement =
            connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let store = config.open().unwrap();
    let put = store.put(&b"put by the version with packs"[..]).unwrap();
    assert_eq!(&store.read_range(&put.id, 0..3).unwrap()[..], b"put");
    assert!(tables().contains(&"block".to_owned()), "an ordinary opening has upgraded the store");
    let error = store.repack(graviton_core::BlockLayout::Packs, |_| ControlFlow::Continue(())).unwrap_err();
    assert_eq!(error.code(), Code::Config, "{error}");
    assert!(error.advice().unwrap().contains("graviton upgrade"), "{error:?}");
    store.close();

    let packs = config.clone().set("GRAVITON_BLOCK_LAYOUT", "packs").unwrap();
    let error = packs.open().unwrap_err();
    assert_eq!(error.code(), Code::Config, "{error}");
    assert!(error.advice().unwrap().contains("graviton upgrade"), "{error:?}");
    // Reading it needs no packs.
    packs.open_read_only().unwrap();

    // A store that puts prevents the upgrade of the database.
    let beside = config.open().unwrap();
    let mut writer = beside.writer().unwrap();
    writer.write_all(&vec![7; 9 << 20]).unwrap();
    let error = config.upgrade().unwrap_err();
    assert_eq!(error.code(), Code::BackendUnavailable, "{error}");
    writer.finish().unwrap();
    beside.close();
    // This store is open, and puts nothing.
    let reading = config.open().unwrap();
    assert!(config.upgrade().unwrap() && !config.upgrade().unwrap());
    let error = reading.read_range(&put.id, 0..3).unwrap_err();
    assert_eq!(error.code(), Code::Version, "{error}");
    assert!(error.advice().unwrap().contains("open the store again"), "{error:?}");
    assert!(!tables().contains(&"block".to_owned()));

    let store = packs.open().unwrap();
    let more = store.put(&b"in a pack"[..]).unwrap();
    assert_eq!(&store.read_range(&more.id, 0..9).unwrap()[..], b"in a pack");
    assert_eq!(&store.read_range(&put.id, 0..3).unwrap()[..], b"put");
    for (id, bytes, ..) in blobs("store-0.2") {
        assert!(store.read_range(&id, 0..u64::MAX).unwrap() == bytes);
    }
    store.close();
}
