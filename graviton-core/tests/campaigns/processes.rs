//! Several processes over one directory, and processes that are killed.
//!
//! The test program starts itself again with `--ignored`: [`child`] then does the task that the environment
//! names.

use crate::support::child;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Stdio};

use graviton_core::testing::Recipe;
use graviton_core::{Algo, BlobId, Config, Store};

const TASK: &str = "GRAVITON_TEST_TASK";
const DIRECTORY: &str = "GRAVITON_TEST_DIRECTORY";
const NUMBER: &str = "GRAVITON_TEST_NUMBER";

/// The prefix of a child's messages to its parent, among the output of the test harness.
const SAYS: &str = "child says ";

#[test]
#[ignore = "not a test: what the other tests start as another process"]
fn child() {
    let Ok(task) = std::env::var(TASK) else { return };
    let directory = std::env::var(DIRECTORY).unwrap();
    let number: usize = std::env::var(NUMBER).unwrap().parse().unwrap();
    match task.as_str() {
        "create" => create(directory.as_ref(), number),
        "share" => share(directory.as_ref(), number),
        "until-killed" => until_killed(directory.as_ref(), number),
        other => panic!("no such task: {other}"),
    }
}

fn spawn(task: &str, directory: &Path, number: usize) -> Child {
    child::command(module_path!())
        .env(TASK, task)
        .env(DIRECTORY, directory)
        .env(NUMBER, number.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn say(text: &str) {
    // A single write, so that a kill leaves no half line.
    let mut output = std::io::stdout().lock();
    output.write_all(format!("{SAYS}{text}\n").as_bytes()).unwrap();
    output.flush().unwrap();
}

/// The messages of a child until it ended; the last line counts only if it is whole.
fn said(output: impl Read) -> Vec<String> {
    let mut text = String::new();
    BufReader::new(output).read_to_string(&mut text).unwrap();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    // The harness begins a line, "test child ... ", and does not end it.
    whole.lines().filter_map(|line| Some(line.split_once(SAYS)?.1.to_owned())).collect()
}

/// Waits until the parent closes standard input, so that all children begin at the same time.
fn wait_for_start() {
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// Starts children, releases them at the same time, and returns the messages of each.
fn run_together(task: &str, directory: &Path, count: usize) -> Vec<Vec<String>> {
    let mut children: Vec<Child> = (0..count).map(|number| spawn(task, directory, number)).collect();
    for child in &mut children {
        for line in BufReader::new(child.stdout.as_mut().unwrap()).lines() {
            if line.unwrap().ends_with("ready") {
                break;
            }
        }
    }
    for child in &mut children {
        drop(child.stdin.take());
    }
    let finish = |(number, child): (usize, Child)| {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "child {number} failed: {text}");
        said(&output.stdout[..])
    };
    children.into_iter().enumerate().map(finish).collect()
}

fn open(directory: &Path) -> Store {
    let config = Config::for_directory(directory).set("GRAVITON_CHUNKER", "fastcdc:1024:4096:16384").unwrap();
    config.open().unwrap()
}

fn content(recipe: &str) -> Vec<u8> {
    recipe.parse::<Recipe>().unwrap().bytes()
}

fn read(store: &Store, id: &BlobId) -> Vec<u8> {
    let mut bytes = Vec::new();
    store
        .reader(id)
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap_or_else(|error| panic!("cannot read {id}: {error}"));
    bytes
}

/// Checks that every listed blob has the bytes that its id names.
fn assert_all_read_back(store: &Store) -> BTreeSet<BlobId> {
    let listed = store.list(None, 100_000).unwrap();
    for stat in &listed {
        assert_eq!(BlobId::of(stat.id.algo(), &read(store, &stat.id)), stat.id);
    }
    listed.iter().map(|stat| stat.id).collect()
}

/// The other entries of the directory of the blocks.
fn beside_blocks(directory: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory.join("cas/blocks")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn create(directory: &Path, number: usize) {
    say("ready");
    wait_for_start();
    let store = open(directory);
    let put = store.put(format!("from child {number}").as_bytes()).unwrap();
    say(&put.id.to_string());
    let id = std::fs::read_to_string(directory.join("cas/blocks/store-id")).unwrap();
    say(id.trim_end());
    store.close();
}

#[test]
fn processes_that_create_a_store_together_create_one() {
    for _ in 0..6 {
        let directory = tempfile::tempdir().unwrap();
        // Several levels of directories that do not exist yet.
        let root = directory.path().join("a/b/store");
        let said = run_together("create", &root, 6);
        let ids: BTreeSet<&String> = said.iter().map(|said| &said[1]).collect();
        assert_eq!(ids.len(), 1, "several stores were created: {ids:?}");
        let store = open(&root);
        let expected: BTreeSet<BlobId> = said.iter().map(|said| said[0].parse().unwrap()).collect();
        assert_eq!(assert_all_read_back(&store), expected);
        assert_eq!(expected.len(), 6);
        let names = [".tmp", "blake3", "sha256", "store-id"].map(str::to_owned);
        assert_eq!(beside_blocks(&root), names.into());
    }
}

/// The blobs that a child of `share` puts: some of its own, some common to all children, small and through
/// the pipeline.
fn shared_contents(number: usize) -> Vec<Vec<u8>> {
    let mut contents: Vec<Vec<u8>> =
        (0..12).map(|nth| content(&format!("xof:same{nth}:{}", nth * 900))).collect();
    contents.push(content("xof:same large:3000000"));
    contents.push(content(&format!("xof:same large:2500000+xof:{number}:200000")));
    contents.extend((0..12).map(|nth| content(&format!("xof:{number}-{nth}:{}", nth * 700 + 1))));
    // Each child has an order of its own.
    let count = contents.len();
    contents.rotate_left(number * 5 % count);
    contents
}

fn share(directory: &Path, number: usize) {
    let contents = shared_contents(number);
    say("ready");
    wait_for_start();
    let store = open(directory);
    let ids: Vec<BlobId> = contents.iter().map(|bytes| store.put(&bytes[..]).unwrap().id).collect();
    for (id, bytes) in ids.iter().zip(&contents) {
        assert!(read(&store, id) == *bytes, "{id} has other bytes");
    }
    // The store is not closed: a process may end without closing it.
    drop(store);
}

#[test]
fn processes_that_put_the_same_and_other_content_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let count = 4;
    run_together("share", directory.path(), count);
    let expected: BTreeMap<BlobId, Vec<u8>> =
        (0..count).flat_map(shared_contents).map(|bytes| (BlobId::of(Algo::Blake3, &bytes), bytes)).collect();
    let store = open(directory.path());
    assert_eq!(assert_all_read_back(&store), expected.keys().copied().collect());
    let logical: usize = expected.values().map(Vec::len).sum();
    let stats = store.stats().unwrap();
    assert_eq!((stats.blobs, stats.logical_bytes), (expected.len() as u64, logical as u64));
    // Putting all of it once more writes nothing.
    for bytes in expected.values() {
        let put = store.put(&bytes[..]).unwrap();
        assert_eq!((put.created, put.fresh_blocks), (false, 0));
    }
}

/// The blobs of the child that is killed: mostly small, every seventh through the pipeline; some of them it
/// has put before, in this life or an earlier one.
fn doomed_content(life: usize, nth: usize) -> String {
    match nth % 7 {
        3 => format!("xof:large{life}-{nth}:2600000"),
        5 => format!("xof:again{}:9000", nth % 4),
        _ => format!("xof:{life}-{nth}:{}", nth * 1_771 % 20_000),
    }
}

fn until_killed(directory: &Path, life: usize) {
    let store = open(directory);
    for nth in 0.. {
        let bytes = content(&doomed_content(life, nth));
        // Two at a time, so that puts share a commit.
        let other = content(&format!("lines:{life}-{nth}:5000"));
        let (one, two) = std::thread::scope(|scope| {
            let two = scope.spawn(|| store.put(&other[..]).unwrap().id);
            (store.put(&bytes[..]).unwrap().id, two.join().unwrap())
        });
        say(&one.to_string());
        say(&two.to_string());
    }
}

/// `GRAVITON_CRASH_ROUNDS` makes it a campaign.
#[test]
fn what_was_put_survives_kill_9() {
    let rounds = std::env::var("GRAVITON_CRASH_ROUNDS").map_or(15, |rounds| rounds.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged: BTreeSet<BlobId> = BTreeSet::new();
    // A different moment each time, and the same moments in each run; the machine adds its own chance.
    let mut moments = content(&format!("xof:moments:{}", rounds * 2)).into_iter();
    for life in 0..rounds {
        let mut moment = || u64::from(moments.next().unwrap());
        let wait = moment() + moment() % 4 * 100;
        let mut child = spawn("until-killed", directory.path(), life);
        let output = child.stdout.take().unwrap();
        let listener = std::thread::spawn(move || said(output));
        std::thread::sleep(std::time::Duration::from_millis(wait));
        child.kill().unwrap();
        child.wait().unwrap();
        let said = listener.join().unwrap();
        acknowledged.extend(said.iter().map(|id| id.parse::<BlobId>().unwrap()));

        // In some rounds the next life begins without a check before it.
        if life % 3 == 2 || life + 1 == rounds {
            let store = open(directory.path());
            let listed = assert_all_read_back(&store);
            let lost: Vec<&BlobId> = acknowledged.difference(&listed).collect();
            assert!(lost.is_empty(), "life {life}: committed and lost: {lost:?}");
            // The blob that the child was putting when it was killed can be put again, and so can the earlier
            // ones.
            for nth in said.len() / 2..said.len() / 2 + 2 {
                let bytes = content(&doomed_content(life, nth));
                let put = store.put(&bytes[..]).unwrap();
                assert!(read(&store, &put.id) == bytes);
                acknowledged.insert(put.id);
            }
            assert_leftovers_are_gone(directory.path());
            store.close();
        }
    }
    assert!(acknowledged.len() > rounds, "the children did next to nothing: {}", acknowledged.len());
}

/// Checks that a store that has written has removed the files of dead processes.
fn assert_leftovers_are_gone(directory: &Path) {
    let left: Vec<_> = std::fs::read_dir(directory.join("cas/blocks/.tmp")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn leftovers_of_the_dead_are_removed_and_those_of_the_living_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path());
    first.put(&b"first"[..]).unwrap();
    let temporary = directory.path().join("cas/blocks/.tmp");
    let (dead, living) = (temporary.join("1-1-1"), temporary.join("2-2-2"));
    std::fs::write(&dead, b"half a block").unwrap();
    let file = std::fs::File::create(&living).unwrap();
    file.lock().unwrap();

    // A store that only reads touches nothing; neither does one that was opened before.
    let reader = Config::for_directory(directory.path()).open_read_only().unwrap();
    assert_eq!(reader.list(None, 10).unwrap().len(), 1);
    assert!(dead.exists());
    let second = open(directory.path());
    second.put(&b"second"[..]).unwrap();
    assert!(!dead.exists(), "a leftover is still there");
    assert!(living.exists(), "the file of a living writer was removed");
    drop(file);
    open(directory.path()).put(&b"third"[..]).unwrap();
    assert!(!living.exists());
    assert_eq!(assert_all_read_back(&first).len(), 3);
}
