//! The program under `tests/crash`: runs a workload on a store, and judges the state of a store after a power
//! cut.
//!
//! ```text
//! crash_workload run DIRECTORY WORKLOAD      prints on standard output what begins and what is done
//! crash_workload check DIRECTORY             judges the store for each line of standard input
//! ```
//! A workload is steps separated by `;`: `put A`, `delete A`, `gc`, `verify`, `repack packs`, `repack files`,
//! `relaxed`, `full` (opens the store again with that durability), `put A|B` (at once). The contents A to D
//! are defined below. After a failed step, which is printed, the next one runs.
//!
//! A line to judge is `full` or `relaxed`, and three lists of contents, `must=A,B may=C gone=D`:
//! acknowledged; begun, or about to be deleted; collected. The answer is `ok` or the fault.

use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::time::Duration;

use graviton_core::{Algo, BlobId, Code, Config, Error, GcOptions, Store, VerifyEvent, VerifyOptions};
use graviton_tools::recipe::Recipe;

const BLOCK: usize = 100;

/// Blocks by number. A takes the short path. B takes it too, and has enough blocks for one sync of all. C
/// takes the long path. They overlap. D shares nothing.
const CONTENTS: [(&str, [Range<usize>; 2]); 4] =
    [("A", [0..1, 1..2]), ("B", [1..2, 2..15]), ("C", [0..1, 20..88]), ("D", [100..101, 101..102])];

const BLOCKS: &str = "cas/blocks/blake3";
const PACKS: &str = "cas/blocks-packs";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["run", directory, workload] => run(directory.as_ref(), workload),
        ["check", directory] => {
            for line in std::io::stdin().lock().lines() {
                let judged = judge(directory.as_ref(), &line.expect("a line"));
                say(&judged.err().unwrap_or_else(|| "ok".to_owned()).replace('\n', " "));
            }
        }
        _ => panic!("run DIRECTORY WORKLOAD, or check DIRECTORY"),
    }
}

/// One write, which the trace shows as one event.
fn say(text: &str) {
    let mut output = std::io::stdout().lock();
    output.write_all(format!("{text}\n").as_bytes()).and_then(|()| output.flush()).expect("standard output");
}

fn block(number: usize) -> Vec<u8> {
    format!("xof:block-{number}:{BLOCK}").parse::<Recipe>().expect("a recipe").bytes()
}

fn numbers(name: &str) -> BTreeSet<usize> {
    let (_, ranges) = CONTENTS.iter().find(|(known, _)| *known == name).expect("a content from A to D");
    ranges.iter().cloned().flatten().collect()
}

fn content(name: &str) -> Vec<u8> {
    numbers(name).into_iter().flat_map(block).collect()
}

fn id(name: &str) -> BlobId {
    BlobId::of(Algo::Blake3, &content(name))
}

fn open(directory: &Path, durability: &str) -> Result<Store, Error> {
    Config::for_directory(directory)
        .set("GRAVITON_CHUNKER", &format!("fixed:{BLOCK}"))?
        .set("GRAVITON_BLOCK_LAYOUT", &layout())?
        .set("GRAVITON_DURABILITY", durability)?
        .open()
}

/// `files` or `packs`.
fn layout() -> String {
    std::env::var("GRAVITON_BLOCK_LAYOUT").unwrap_or_else(|_| "files".to_owned())
}

fn collect() -> GcOptions {
    GcOptions { grace: Some(Duration::ZERO), ..GcOptions::default() }
}

// ---- Running

fn run(directory: &Path, workload: &str) {
    let mut durability = "full";
    let mut store = None;
    for step in workload.split(';').map(str::trim).chain(["close"]) {
        say(&format!("begin {step}"));
        let done = match step {
            "close" => {
                close(store.take());
                Ok(())
            }
            "full" | "relaxed" => {
                close(store.take());
                durability = if step == "full" { "full" } else { "relaxed" };
                Ok(())
            }
            step => {
                // The next step tries again to open a store that could not be opened.
                if store.is_none() {
                    store = match open(directory, durability) {
                        Ok(opened) => Some(opened),
                        Err(error) => {
                            say(&failed("open", &error));
                            continue;
                        }
                    };
                }
                store.as_ref().map_or(Ok(()), |store| act(store, step))
            }
        };
        say(&done.map_or_else(|error| failed(step, &error), |()| format!("done {step}")));
    }
}

fn close(store: Option<Store>) {
    if let Some(store) = store {
        store.close();
    }
}

fn failed(step: &str, error: &Error) -> String {
    format!("failed {step}: {:?}: {}", error.code(), error.to_string().replace('\n', " "))
}

fn act(store: &Store, step: &str) -> Result<(), Error> {
    match step.split_once(' ') {
        Some(("put", names)) => std::thread::scope(|scope| {
            let put = |name: &str| store.put(&content(name)[..]).map(drop);
            let Some((first, second)) = names.split_once('|') else { return put(names) };
            let beside = scope.spawn(move || put(second));
            put(first).and(beside.join().expect("no panic"))
        }),
        Some(("delete", name)) => store.delete(&id(name)),
        Some(("repack", layout)) => store
            .repack(layout.parse()?, |_| ControlFlow::Continue(()))
            .map(|report| assert!(report.complete)),
        None if step == "gc" => store.gc(&collect(), |_| ControlFlow::Continue(())).map(drop),
        None if step == "verify" => {
            let options = VerifyOptions { deep: true, adopt: true, ..VerifyOptions::default() };
            store.verify(&options, |_| ControlFlow::Continue(())).map(drop)
        }
        _ => panic!("no such step: {step}"),
    }
}

// ---- Judging

/// The expected state of a store after a power cut.
struct Expected {
    full: bool,
    must: Vec<String>,
    may: Vec<String>,
    gone: Vec<String>,
}

impl Expected {
    fn parse(line: &str) -> Expected {
        let list = |name: &str| {
            let list = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            let names = list.unwrap_or_default().split(',').filter(|name| !name.is_empty());
            names.map(str::to_owned).collect()
        };
        Expected { full: line.starts_with("full"), must: list("must"), may: list("may"), gone: list("gone") }
    }

    /// Blocks that only collected contents have.
    fn collected(&self) -> BTreeSet<usize> {
        let kept: BTreeSet<usize> =
            self.must.iter().chain(&self.may).flat_map(|name| numbers(name)).collect();
        self.gone.iter().flat_map(|name| numbers(name)).filter(|number| !kept.contains(number)).collect()
    }
}

fn said(what: &str) -> impl Fn(Error) -> String {
    move |error| format!("{what}: {:?}: {error}", error.code())
}

fn judge(directory: &Path, line: &str) -> Result<(), String> {
    let expected = Expected::parse(line);
    if expected.full {
        look_at_files(directory, &expected)?;
    }
    look_at_packs(directory)?;
    let store =
        open(directory, if expected.full { "full" } else { "relaxed" }).map_err(said("it does not open"))?;
    let listed = look_at_blobs(&store, &expected)?;
    verify(&store, expected.full, false)?;
    store.close();
    collect_everything(directory, &expected, &listed)
}

fn files(directory: &Path) -> Result<BTreeSet<String>, String> {
    match std::fs::read_dir(directory) {
        Ok(entries) => {
            entries
                .map(|entry| Ok(entry.map_err(|error| error.to_string())?.file_name().into_string().unwrap()))
        }
        .collect(),
        Err(_) => Ok(BTreeSet::new()),
    }
}

/// The names of the blocks that are in packs by their rows; the verification checks their records.
fn packed(directory: &Path) -> Result<BTreeSet<String>, String> {
    let wrong = |error: rusqlite::Error| error.to_string();
    let database = rusqlite::Connection::open(directory.join("manifests.db")).map_err(wrong)?;
    let mut statement = database
        .prepare("SELECT lower(hex(digest)) || '-' || size FROM data_block WHERE pack_id IS NOT NULL")
        .map_err(wrong)?;
    let names = statement.query_map([], |row| row.get(0)).map_err(wrong)?;
    names.collect::<Result<_, _>>().map_err(wrong)
}

/// At no moment is a pack without a row: the row is made before the file, and removed after it.
fn look_at_packs(directory: &Path) -> Result<(), String> {
    let found = files(&directory.join(PACKS))?;
    if found.is_empty() {
        return Ok(());
    }
    let wrong = |error: rusqlite::Error| format!("there are packs, and the database: {error}");
    let database = rusqlite::Connection::open(directory.join("manifests.db")).map_err(wrong)?;
    let mut statement = database.prepare("SELECT name || '.pack' FROM pack").map_err(wrong)?;
    let packs = statement.query_map([], |row| row.get(0)).map_err(wrong)?;
    let packs: BTreeSet<String> = packs.collect::<Result<_, _>>().map_err(wrong)?;
    match found.difference(&packs).next() {
        Some(name) => Err(format!("no row knows {name}")),
        None => Ok(()),
    }
}

/// No file under a final name is partial, and no collected block is back.
fn look_at_files(directory: &Path, expected: &Expected) -> Result<(), String> {
    let directory = directory.join(BLOCKS);
    for name in files(&directory)? {
        let bytes = std::fs::read(directory.join(&name)).map_err(|error| error.to_string())?;
        let whole = format!("{}-{}", Algo::Blake3.digest(&bytes), bytes.len());
        if name != whole {
            return Err(format!("the block {name} has {} other bytes", bytes.len()));
        }
    }
    for number in expected.collected() {
        let bytes = block(number);
        if directory.join(format!("{}-{BLOCK}", Algo::Blake3.digest(&bytes))).exists() {
            return Err(format!("block {number} was collected and is there"));
        }
    }
    Ok(())
}

/// Acknowledged contents are there, no other contents are, and everything reads back.
fn look_at_blobs(store: &Store, expected: &Expected) -> Result<Vec<String>, String> {
    let listed = store.list(None, 1_000).map_err(said("it cannot be listed"))?;
    let mut names = Vec::new();
    for stat in &listed {
        let known = CONTENTS.iter().map(|(name, _)| *name).find(|name| id(name) == stat.id);
        let Some(name) = known else { return Err(format!("there is an unknown blob {}", stat.id)) };
        names.push(name.to_owned());
        let begun = expected.must.iter().chain(&expected.may).any(|begun| begun == name);
        if !begun && expected.full {
            return Err(format!("{name} is there and should not be"));
        }
        match store.read_range(&stat.id, 0..u64::MAX) {
            Ok(bytes) if bytes == content(name) => {}
            Ok(_) => return Err(format!("{name} reads other bytes")),
            Err(error)
                if !expected.full && matches!(error.code(), Code::MissingBlock | Code::CorruptBlock) => {}
            Err(error) => return Err(format!("{name} does not read: {error}")),
        }
    }
    if let Some(name) = expected.must.iter().find(|name| expected.full && !names.contains(name)) {
        return Err(format!("{name} was acknowledged and is not there"));
    }
    for (name, _) in CONTENTS.iter().filter(|(name, _)| !names.iter().any(|listed| listed == name)) {
        restore(store, name, expected.full)?;
    }
    Ok(names)
}

/// Restored contents are whole too.
fn restore(store: &Store, name: &str, full: bool) -> Result<(), String> {
    match store.restore(&id(name)) {
        Err(error) if error.code() == Code::NotFound => return Ok(()),
        restored => restored.map_err(said("it cannot be restored"))?,
    }
    match store.read_range(&id(name), 0..u64::MAX) {
        Ok(bytes) if bytes == content(name) => {}
        Err(error) if !full && matches!(error.code(), Code::MissingBlock | Code::CorruptBlock) => {}
        read => {
            return Err(format!("{name} was restored and does not read: {:?}", read.map(|read| read.len())));
        }
    }
    store.delete(&id(name)).map_err(said("what was restored cannot be deleted"))
}

fn verify(store: &Store, clean: bool, adopt: bool) -> Result<u64, String> {
    let mut found = Vec::new();
    let report = store.verify(&VerifyOptions { deep: true, adopt, ..VerifyOptions::default() }, |event| {
        if let VerifyEvent::Found(finding) = event {
            found.push(finding);
        }
        ControlFlow::Continue(())
    });
    let report = report.map_err(said("verify"))?;
    // Without syncs, blocks may be damaged, but never the database.
    let wrong = report.broken_manifests + report.database_problems;
    if wrong > 0 || (clean && !report.is_clean()) {
        return Err(format!("verify found {found:?}"));
    }
    Ok(report.unreferenced)
}

/// The collector leaves the listed blocks and nothing else, and everything can be put.
fn collect_everything(directory: &Path, expected: &Expected, listed: &[String]) -> Result<(), String> {
    // Time passes: the lease of the writer that lost its power is over.
    let database =
        rusqlite::Connection::open(directory.join("manifests.db")).map_err(|error| error.to_string())?;
    database.execute("UPDATE writer SET expires_at = 0", []).map_err(|error| error.to_string())?;
    drop(database);
    let store = open(directory, if expected.full { "full" } else { "relaxed" })
        .map_err(said("it does not open again"))?;
    let run = || store.gc(&collect(), |_| ControlFlow::Continue(())).map_err(said("gc"));
    run()?;
    verify(&store, expected.full, true)?;
    let report = run()?;
    if !report.complete || report.kept_doomed + report.kept_failed > 0 {
        return Err(format!("gc is not done: {report:?}"));
    }
    let left: BTreeSet<usize> = listed.iter().flat_map(|name| numbers(name)).collect();
    let wanted: BTreeSet<String> =
        left.into_iter().map(|number| format!("{}-{BLOCK}", Algo::Blake3.digest(&block(number)))).collect();
    look_at_packs(directory)?;
    let (packed, named) = (packed(directory)?, files(&directory.join(BLOCKS))?);
    if let Some(name) = packed.intersection(&named).next() {
        return Err(format!("gc left the file {name} of a block that is in a pack"));
    }
    let there: BTreeSet<String> = packed.union(&named).cloned().collect();
    let missing = wanted.difference(&there).count();
    if there.difference(&wanted).count() > 0 || (expected.full && missing > 0) {
        return Err(format!("gc left {} blocks of {}, {missing} are missing", there.len(), wanted.len()));
    }
    if verify(&store, expected.full, false)? > 0 {
        return Err("gc left what no row knows".to_owned());
    }
    for (name, _) in CONTENTS {
        store.put(&content(name)[..]).map_err(said("it cannot be put again"))?;
        let bytes = store.read_range(&id(name), 0..u64::MAX).map_err(said("it does not read after a put"))?;
        if bytes != content(name) {
            return Err(format!("{name} reads other bytes after it was put again"));
        }
    }
    verify(&store, true, false)?;
    store.close();
    let temporary = files(&directory.join("cas/blocks/.tmp"))?;
    if temporary.is_empty() { Ok(()) } else { Err(format!("leftovers: {temporary:?}")) }
}
