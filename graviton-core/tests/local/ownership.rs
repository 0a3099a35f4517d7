//! A copy of the database does not pass for the database: it is read, and refused when it would be written to
//! or collect, until it takes over.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use graviton_core::{
    Algo, BlobId, BlockKey, Code, Config, GcOptions, Settings, Store, Timing, VerifyOptions,
};
use tempfile::TempDir;

use crate::support::ownership::{collect, is_refused, works};

/// A store with one blob, in `blobs` below a directory.
struct Scene {
    directory: TempDir,
    first: BlobId,
}

impl Scene {
    fn new() -> Scene {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("blobs")).unwrap();
        let first = store.put(&b"first"[..]).unwrap().id;
        // So that everything is in the file that a test copies.
        store.close();
        Scene { directory, first }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn config(&self) -> Config {
        Config::for_directory(self.path("blobs"))
    }

    /// The same, with generations that last only so long.
    fn with_generations_of(&self, milliseconds: u64) -> Config {
        let generation = Duration::from_millis(milliseconds);
        self.config().timing(Timing { generation, ..Settings::default().timing })
    }

    /// The blocks of this store with the database in another file.
    fn with(&self, database: &Path) -> Config {
        let url = format!("sqlite:{}", database.display());
        self.config().set("GRAVITON_MANIFEST_URL", &url).unwrap()
    }

    fn database(&self) -> PathBuf {
        self.path("blobs/manifests.db")
    }

    /// As it was before there were generations, with a copy in `copy.db`.
    fn become_older_and_copied(&self) {
        let forget = rusqlite::Connection::open(self.database()).unwrap();
        forget.execute("UPDATE store SET place = '', file = '', raised_at = 0, generation = 0", []).unwrap();
        drop(forget);
        std::fs::copy(self.database(), self.path("copy.db")).unwrap();
    }

    fn generation(&self) -> Option<String> {
        std::fs::read_to_string(self.path("blobs/cas/blocks/generation")).ok()
    }
}

#[test]
fn a_backup_is_refused_until_it_takes_over() {
    let scene = Scene::new();
    let backup = scene.path("b.db");
    let store = scene.config().open().unwrap();
    store.backup(&backup).unwrap();
    let second = store.put(&b"second"[..]).unwrap().id;
    assert_eq!(collect(&store).unwrap().blocks, 0);
    store.close();

    let why = is_refused(&scene.with(&backup), &scene.first);
    assert!(why.contains("backup"), "{why}");
    let restored = scene.with(&backup).take_over(true).open().unwrap();
    assert!(!restored.exists(&second).unwrap());
    restored.delete(&scene.first).unwrap();
    assert_eq!(collect(&restored).unwrap().blocks, 1);
    restored.put(&b"first"[..]).unwrap();
    restored.close();
    scene.with(&backup).open().unwrap().put(&b"third"[..]).unwrap();
    // From now on the other one is behind.
    let why = is_refused(&scene.config(), &scene.first);
    assert!(why.contains("old copy"), "{why}");
}

/// The losses that were found: the copy knows nothing of what was put since, and collects it.
#[test]
fn a_collection_beside_a_copy_takes_nothing_of_what_was_put_since() {
    for adopt in [false, true] {
        let scene = Scene::new();
        let store = scene.config().open().unwrap();
        store.delete(&scene.first).unwrap();
        store.backup(scene.path("b.db")).unwrap();
        store.put(&b"first"[..]).unwrap();
        let second = store.put(&b"second"[..]).unwrap().id;
        let copy = scene.with(&scene.path("b.db")).open().unwrap();
        let options = VerifyOptions { adopt, ..VerifyOptions::default() };
        assert_eq!(copy.verify(&options, |_| ControlFlow::Continue(())).is_err(), adopt);
        collect(&copy).unwrap_err();
        assert_eq!(&store.read_range(&scene.first, 0..9).unwrap()[..], b"first");
        assert_eq!(&store.read_range(&second, 0..9).unwrap()[..], b"second");
    }
}

#[test]
fn a_backup_that_is_put_back_is_refused_until_it_takes_over() {
    let scene = Scene::new();
    let store = scene.config().open().unwrap();
    store.backup(scene.path("b.db")).unwrap();
    store.close();
    std::fs::copy(scene.path("b.db"), scene.database()).unwrap();
    is_refused(&scene.config(), &scene.first);
    scene.config().take_over(true).open().unwrap().close();
    scene.config().open().unwrap().put(&b"second"[..]).unwrap();
}

#[test]
fn a_plain_copy_is_refused_at_another_path() {
    let scene = Scene::new();
    std::fs::copy(scene.database(), scene.path("copy.db")).unwrap();
    let why = is_refused(&scene.with(&scene.path("copy.db")), &scene.first);
    assert!(why.contains("which was at ../../manifests.db"), "{why}");
    scene.config().open().unwrap().put(&b"second"[..]).unwrap();
}

#[test]
fn a_plain_copy_that_is_put_back_is_refused_if_the_database_was_collected_since() {
    let scene = Scene::new();
    std::fs::copy(scene.database(), scene.path("copy.db")).unwrap();
    let store = scene.config().open().unwrap();
    collect(&store).unwrap();
    store.close();
    std::fs::copy(scene.path("copy.db"), scene.database()).unwrap();
    let why = is_refused(&scene.config(), &scene.first);
    assert!(why.contains("its generation is 0, and theirs is 1"), "{why}");
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn a_store_that_was_moved_or_copied_as_a_whole_works() {
    let scene = Scene::new();
    works(&scene.config(), &scene.first);
    std::fs::rename(scene.path("blobs"), scene.path("moved")).unwrap();
    works(&Config::for_directory(scene.path("moved")), &scene.first);
    // As rsync does: both go on, each with blocks of its own.
    copy_all(&scene.path("moved"), &scene.path("copied"));
    works(&Config::for_directory(scene.path("copied")), &scene.first);
    works(&Config::for_directory(scene.path("moved")), &scene.first);
    works(&Config::for_directory(scene.path("copied")), &scene.first);
}

#[test]
fn a_database_that_was_renamed_or_is_seen_under_another_path_works() {
    let scene = Scene::new();
    std::fs::create_dir(scene.path("elsewhere")).unwrap();
    std::fs::rename(scene.database(), scene.path("elsewhere/m.db")).unwrap();
    works(&scene.with(&scene.path("elsewhere/m.db")), &scene.first);
    // Moved again, with a copy in the old place.
    std::fs::rename(scene.path("elsewhere/m.db"), scene.path("m.db")).unwrap();
    works(&scene.with(&scene.path("m.db")), &scene.first);
    std::fs::copy(scene.path("m.db"), scene.database()).unwrap();
    is_refused(&scene.config(), &scene.first);
    std::os::unix::fs::symlink(scene.path("m.db"), scene.path("link.db")).unwrap();
    works(&scene.with(&scene.path("link.db")), &scene.first);
}

#[test]
fn a_collection_and_a_backup_end_the_generation_and_a_put_does_not() {
    let scene = Scene::new();
    let store = scene.config().open().unwrap();
    store.put(&b"second"[..]).unwrap();
    assert_eq!(scene.generation(), None);
    collect(&store).unwrap();
    assert_eq!(scene.generation().as_deref(), Some("1\n"));
    store.backup(scene.path("b.db")).unwrap();
    assert_eq!(scene.generation().as_deref(), Some("2\n"));
    store.put(&b"third"[..]).unwrap();
    store.close();
    scene.config().open().unwrap().put(&b"fourth"[..]).unwrap();
    assert_eq!(scene.generation().as_deref(), Some("2\n"));
    let reading = scene.config().open_read_only().unwrap();
    reading.backup(scene.path("c.db")).unwrap();
    assert_eq!(scene.generation().as_deref(), Some("2\n"), "a store that is only read writes nothing");
    is_refused(&scene.with(&scene.path("c.db")), &scene.first);
}

#[test]
fn a_writer_ends_a_generation_that_is_old() {
    let scene = Scene::new();
    let store = scene.with_generations_of(300).open().unwrap();
    store.put(&b"second"[..]).unwrap();
    std::fs::copy(scene.database(), scene.path("copy.db")).unwrap();
    let before = scene.generation();
    std::thread::sleep(Duration::from_millis(400));
    store.put(&b"third"[..]).unwrap();
    assert_ne!(scene.generation(), before);
    store.close();
    std::fs::copy(scene.path("copy.db"), scene.database()).unwrap();
    is_refused(&scene.config(), &scene.first);
}

#[test]
fn a_store_that_is_open_while_a_copy_takes_over_is_refused_within_its_generation() {
    let scene = Scene::new();
    let store = scene.with_generations_of(300).open().unwrap();
    store.put(&b"second"[..]).unwrap();
    let session = run(store.as_async().open_session(Duration::from_secs(60))).unwrap();
    store.backup(scene.path("b.db")).unwrap();
    scene.with(&scene.path("b.db")).take_over(true).open().unwrap().close();
    assert_eq!(collect(&store).unwrap_err().code(), Code::Config);
    assert_eq!(store.put(&b"third"[..]).unwrap_err().code(), Code::Config);
    let key = BlockKey::of(Algo::Blake3, b"of a session").unwrap();
    let error = run(session.put_block(&key, (&b"of a session"[..]).into())).unwrap_err();
    assert_eq!(error.code(), Code::Config);
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Two copies of a database from before there were generations: the first that writes owns the blocks.
#[test]
fn of_the_copies_of_an_older_version_the_first_owns_the_blocks() {
    let scene = Scene::new();
    scene.become_older_and_copied();
    works(&scene.with(&scene.path("copy.db")), &scene.first);
    is_refused(&scene.config(), &scene.first);
    works(&scene.with(&scene.path("copy.db")), &scene.first);
}

/// A collection may come before any put. Then the copies are behind, as after every collection.
#[test]
fn a_collection_is_the_end_of_the_copies_of_an_older_version_too() {
    let scene = Scene::new();
    scene.become_older_and_copied();
    collect(&scene.config().open().unwrap()).unwrap();
    is_refused(&scene.with(&scene.path("copy.db")), &scene.first);
}

/// Its process died, or the number beside the blocks could not be written, again and again.
#[test]
fn a_database_whose_number_ran_ahead_does_not_outrun_the_one_that_takes_over() {
    let scene = Scene::new();
    let store = scene.config().open().unwrap();
    collect(&store).unwrap();
    store.backup(scene.path("b.db")).unwrap();
    store.close();
    let ahead = rusqlite::Connection::open(scene.database()).unwrap();
    ahead.execute("UPDATE store SET generation = 1000", []).unwrap();
    drop(ahead);
    scene.with(&scene.path("b.db")).take_over(true).open().unwrap().put(&b"second"[..]).unwrap();
    is_refused(&scene.config(), &scene.first);
    works(&scene.with(&scene.path("b.db")), &scene.first);
}

/// Two would be one too many.
#[test]
fn a_take_over_that_fails_half_way_leaves_no_owner_until_one_takes_over() {
    let scene = Scene::new();
    scene.config().open().unwrap().backup(scene.path("b.db")).unwrap();
    // The number is beside the blocks, and the database cannot be written.
    let reader = rusqlite::Connection::open(scene.path("b.db")).unwrap();
    reader
        .execute_batch("CREATE TRIGGER full BEFORE UPDATE ON store BEGIN SELECT RAISE(FAIL, 'full'); END")
        .unwrap();
    scene.with(&scene.path("b.db")).take_over(true).open().unwrap_err();
    is_refused(&scene.config(), &scene.first);
    reader.execute_batch("DROP TRIGGER full").unwrap();
    drop(reader);
    is_refused(&scene.with(&scene.path("b.db")), &scene.first);
    scene.config().take_over(true).open().unwrap().put(&b"second"[..]).unwrap();
    works(&scene.config(), &scene.first);
}

/// As a server goes on that was running when its database was told to take over.
#[test]
fn an_open_store_that_was_refused_goes_on_when_its_database_has_taken_over() {
    let scene = Scene::new();
    scene.config().open().unwrap().backup(scene.path("b.db")).unwrap();
    let open = scene.with(&scene.path("b.db")).open().unwrap();
    open.put(&b"second"[..]).unwrap_err();
    let taking_over = scene.with(&scene.path("b.db")).take_over(true).open().unwrap();
    taking_over.put(&b"third"[..]).unwrap();
    // A refusal is remembered for two seconds.
    std::thread::sleep(Duration::from_millis(2_100));
    open.put(&b"second"[..]).unwrap();
}

/// A collection that takes hours does not go on for hours beside the database that took over.
#[test]
fn a_collection_ends_when_another_database_takes_over() {
    let scene = Scene::new();
    let store = scene.config().open().unwrap();
    for number in 0..9 {
        let put = store.put(format!("dead {number}").as_bytes()).unwrap();
        store.delete(&put.id).unwrap();
    }
    store.backup(scene.path("b.db")).unwrap();
    let options =
        GcOptions { grace: Some(Duration::ZERO), blocks_per_second: Some(3), ..GcOptions::default() };
    let mut taken_over = false;
    let ended = store.gc(&options, |report| {
        if report.blocks > 0 && !taken_over {
            taken_over = true;
            let copy = scene.with(&scene.path("b.db")).take_over(true).open().unwrap();
            copy.put(&b"second"[..]).unwrap();
        }
        assert!(report.blocks < 9, "it goes on");
        ControlFlow::Continue(())
    });
    let error = ended.unwrap_err();
    assert_eq!(error.code(), Code::Config, "{error}");
    assert!(error.to_string().contains("old copy"), "{error}");
}

/// The rows that it names are others in the copy.
#[test]
fn a_session_ends_when_another_database_takes_over() {
    let scene = Scene::new();
    let store = scene.config().open().unwrap();
    store.backup(scene.path("b.db")).unwrap();
    let session = run(store.as_async().open_session(Duration::from_secs(60))).unwrap();
    let token = session.token();
    let another = scene.config().open().unwrap();
    run(another.as_async().session(&token).unwrap().renew()).unwrap();
    let copy = scene.with(&scene.path("b.db")).take_over(true).open().unwrap();
    let own = run(copy.as_async().open_session(Duration::from_secs(60))).unwrap();
    let error = run(copy.as_async().session(&token).unwrap().renew()).unwrap_err();
    assert_eq!(error.code(), Code::WriterExpired, "{error}");
    // Its own goes on, in a process that has not heard of it too.
    let another = scene.with(&scene.path("b.db")).open().unwrap();
    run(another.as_async().session(&own.token()).unwrap().renew()).unwrap();
}

#[test]
fn any_number_of_stores_open_at_once_are_one_owner() {
    let scene = Scene::new();
    std::thread::scope(|threads| {
        for thread in 0..8 {
            let scene = &scene;
            threads.spawn(move || {
                for round in 0..12 {
                    let store = scene.with_generations_of(5).open().unwrap();
                    store.put(format!("{thread} {round}").as_bytes()).unwrap();
                    std::thread::sleep(Duration::from_millis(6));
                    store.put(format!("{thread} {round} again").as_bytes()).unwrap();
                    if thread < 2 {
                        collect(&store).unwrap();
                    }
                }
            });
        }
    });
    let number: u64 = scene.generation().unwrap().trim_end().parse().unwrap();
    assert!(number >= 24, "{number}");
}

#[test]
fn a_damaged_generation_is_an_error_whose_advice_works() {
    let scene = Scene::new();
    let path = scene.path("blobs/cas/blocks/generation");
    std::fs::write(&path, "").unwrap();
    let store = scene.config().open().unwrap();
    let error = store.put(&b"second"[..]).unwrap_err();
    assert_eq!(error.code(), Code::Config);
    assert!(error.advice().unwrap().contains("remove the file"), "{error}");
    store.close();
    std::fs::remove_file(&path).unwrap();
    scene.config().take_over(true).open().unwrap().close();
    works(&scene.config(), &scene.first);
}
