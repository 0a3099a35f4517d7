//! Kills (kill -9) at every point of putting, deleting, restoring, collecting, repacking and verifying, on
//! every pair.
//!
//! A process works on a store whose halves are wrapped, so that it kills itself at a chosen change of the
//! block store or the database: before it, in the middle of its batch, or after it. Sometimes it is killed
//! from outside at a random moment instead, to reach points inside a call. It reports each operation when it
//! begins and when it is done, so the expected state afterwards is known. After each death another process,
//! this one, checks the store:
//! 1. at once: blobs that were put and not deleted read back, deleted blobs stay deleted, and no block is
//!    missing or damaged;
//! 2. after every third death, once leases and dooms are over: a collection leaves exactly the reachable
//!    blocks.
//!
//! Another process lives beside all of them. It puts, deletes, reads and collects its own blobs, made of the
//! same blocks, and pauses only while a store is compared with the reachable blocks.
//!
//! Then the next life begins over the same store, mostly in the middle of the remains of the last one.
//! `GRAVITON_KILL_ROUNDS` for each pair makes it a campaign; `GRAVITON_KILL_SEED` repeats the choices of a
//! run.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::ops::ControlFlow;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use crate::support::child::{Numbers, Process, TASK, number, say, seed};
use crate::support::exact::{assert_exact, collect, collect_all, halves, verify};
use crate::support::needs_servers;
use crate::support::pair::{Blocks, Manifests, Pair};
use graviton_core::testing::{Crash, CrashingBlockStore, CrashingTransactions, Moment, Recipe};
use graviton_core::{
    Algo, AsyncStore, BlobId, BlockLayout, Code, Config, Error, GcOptions, Result, Settings, Store, Timing,
    VerifyOptions,
};

const BLOCK: usize = 4_096;

/// Small blobs, which may take the short path, and large blobs, which do not.
const SMALL: usize = 10;
const LARGE: usize = 4;

/// The first blob of the process that lives on.
const OWN: usize = 100;

/// The number of operations of one life.
const LIFE: usize = 16;

const SIGKILL: i32 = 9;

/// The times of a process that dies: its leases and dooms are over soon. Its requests are valid for two
/// seconds.
const DYING: Timing = Timing {
    lease: Duration::from_millis(1_000),
    renewal: Duration::from_millis(200),
    doom: Duration::from_secs(4),
    generation: Duration::from_secs(1),
};

/// The times of a process that collects after it, and does not die.
const LIVING: Timing = Timing { doom: Duration::from_secs(24), ..DYING };

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    PutSmall,
    PutLarge,
    Delete,
    Restore,
    Collect,
    Repack,
    Verify,
}

/// The operations in which a process dies; those with more steps occur more often.
const DEATHS: [Kind; 11] = [
    Kind::PutSmall,
    Kind::PutLarge,
    Kind::PutLarge,
    Kind::Delete,
    Kind::Restore,
    Kind::Collect,
    Kind::Collect,
    Kind::Collect,
    Kind::Repack,
    Kind::Repack,
    Kind::Verify,
];

const KINDS: [Kind; 7] =
    [Kind::PutSmall, Kind::PutLarge, Kind::Delete, Kind::Restore, Kind::Collect, Kind::Repack, Kind::Verify];

/// The operations of one life, by its seed: some that leave blocks to collect first, then any, each kind at
/// least once.
fn life(seed: u64) -> Vec<(Kind, usize)> {
    let mut numbers = Numbers::new(seed);
    let first = [Kind::PutLarge, Kind::PutSmall, Kind::Delete, Kind::Delete];
    let kinds = first.into_iter().chain((0..LIFE - first.len()).map(|place| match place {
        0..7 => KINDS[(place + seed as usize) % KINDS.len()],
        _ => KINDS[numbers.next() as usize % KINDS.len()],
    }));
    let kinds: Vec<Kind> = kinds.collect();
    let content = |kind: Kind| match kind {
        Kind::PutSmall => numbers.below(SMALL),
        Kind::PutLarge => SMALL + numbers.below(LARGE),
        Kind::Delete | Kind::Restore => numbers.below(SMALL + LARGE),
        Kind::Repack => numbers.below(2),
        Kind::Collect | Kind::Verify => 0,
    };
    let mut content = content;
    kinds.into_iter().map(|kind| (kind, content(kind))).collect()
}

/// Blocks that all blobs share, and an end of the blob's own.
fn content(nth: usize) -> Vec<u8> {
    let mut numbers = Numbers::new(nth as u64);
    let pool = format!("xof:pool:{}", 100 * BLOCK).parse::<Recipe>().unwrap().bytes();
    let blocks = if nth % OWN < SMALL { 1 + numbers.below(8) } else { 66 + numbers.below(20) };
    let mut bytes: Vec<u8> = Vec::new();
    for _ in 0..blocks {
        let block = numbers.below(100) * BLOCK;
        bytes.extend(&pool[block..block + BLOCK]);
    }
    bytes.extend(format!("content {nth}").as_bytes());
    bytes
}

fn id(nth: usize) -> BlobId {
    BlobId::of(Algo::Blake3, &content(nth))
}

#[test]
#[ignore = "not a test: what the other tests start as another process"]
fn child() {
    let Ok(task) = std::env::var(TASK) else { return };
    if let Some(seed) = task.strip_prefix("beside ") {
        return live_beside(seed.parse().unwrap());
    }
    let words: Vec<u64> = task.split(' ').map(|word| word.parse().unwrap()).collect();
    let [seed, place, nth, moment] = words[..] else { panic!("no such task: {task}") };
    let moment = [Moment::Before, Moment::Middle, Moment::After][moment as usize];
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(live(seed, place as usize, nth, moment));
}

/// Runs the whole life, and dies at the `nth` call, counted from the beginning of the operation at `place`.
async fn live(seed: u64, place: usize, nth: u64, moment: Moment) {
    let crash = Crash::new();
    let (blocks, manifests) = halves(|name| std::env::var(name).unwrap_or_default()).await;
    let blocks = CrashingBlockStore::new(blocks, Arc::clone(&crash));
    let manifests = manifests.with_hook(Arc::new(CrashingTransactions::new(Arc::clone(&crash))));
    let chunker = format!("fixed:{BLOCK}").parse().unwrap();
    let layout = match std::env::var("GRAVITON_BLOCK_LAYOUT").as_deref() {
        Ok("packs") => BlockLayout::Packs,
        _ => BlockLayout::Files,
    };
    let settings = Settings { layout, chunker, timing: DYING, grace: Duration::ZERO, ..Settings::default() };
    say("opens");
    let store = AsyncStore::new(Arc::new(blocks), Arc::new(manifests), settings).await.unwrap();
    for (at, (kind, content)) in life(seed).into_iter().enumerate() {
        say(&format!("begins {at}"));
        let before = crash.calls();
        if at == place {
            crash.arm(nth, moment);
        }
        let live = loop {
            match operate(&store, kind, content).await {
                Ok(live) => break live,
                // The machine is busy: the lease ran out, or the database was not available.
                Err(error) => assert!(error.is_retryable(), "{kind:?}: {error}"),
            }
        };
        say(&format!("done {at} {} {live}", crash.calls() - before));
    }
}

/// Returns whether the blob is live afterwards.
async fn operate(store: &AsyncStore, kind: Kind, nth: usize) -> Result<bool> {
    let absent = |error: Error| if error.code() == Code::NotFound { Ok(false) } else { Err(error) };
    match kind {
        Kind::PutSmall | Kind::PutLarge => {
            let put = store.put(&content(nth)[..]).await?;
            assert_eq!(put.id, id(nth));
            Ok(true)
        }
        Kind::Delete => store.delete(&id(nth)).await.map_or_else(absent, |()| Ok(false)),
        Kind::Restore => store.restore(&id(nth)).await.map_or_else(absent, |()| Ok(true)),
        Kind::Collect => {
            store.gc(&GcOptions::default(), |_| ControlFlow::Continue(())).await?;
            Ok(false)
        }
        Kind::Repack => {
            let to = if nth == 0 { BlockLayout::Packs } else { BlockLayout::Files };
            assert_eq!(store.repack(to, |_| ControlFlow::Continue(())).await?.damaged, 0);
            Ok(false)
        }
        Kind::Verify => {
            let options = VerifyOptions { deep: true, adopt: true, ..VerifyOptions::default() };
            let report = store.verify(&options, |_| ControlFlow::Continue(())).await?;
            assert!(report.is_clean(), "{report:?}");
            Ok(false)
        }
    }
}

/// Works beside the dying processes, and pauses on command.
fn live_beside(seed: u64) {
    let store = Config::from_env().unwrap().timing(LIVING).open().unwrap();
    let mut numbers = Numbers::new(seed);
    let (told, orders) = mpsc::channel();
    std::thread::spawn(move || {
        let lines = std::io::stdin().lock().lines();
        lines.map(Result::unwrap).try_for_each(|line| told.send(line))
    });
    let (mut live, mut steps) = (BTreeSet::new(), 0);
    loop {
        match orders.try_recv() {
            Ok(order) => {
                assert_eq!(order, "rest");
                for nth in &live {
                    assert!(store.read_range(&id(*nth), 0..u64::MAX).unwrap() == content(*nth));
                }
                say(&format!("rests {steps}"));
                // Waits for the command to continue, or for the end of the parent.
                let Ok(_) = orders.recv() else { return store.close() };
            }
            Err(mpsc::TryRecvError::Disconnected) => return store.close(),
            Err(mpsc::TryRecvError::Empty) => match step_beside(&store, &mut live, &mut numbers) {
                Ok(()) => steps += 1,
                Err(error) => assert!(error.is_retryable(), "{error}"),
            },
        }
    }
}

fn step_beside(store: &Store, live: &mut BTreeSet<usize>, numbers: &mut Numbers) -> Result<()> {
    let nth = OWN + numbers.below(SMALL + LARGE);
    match numbers.below(8) {
        0..3 => {
            assert_eq!(store.put(&content(nth)[..])?.id, id(nth));
            live.insert(nth);
        }
        3..6 => match store.delete(&id(nth)) {
            Err(error) if error.code() == Code::NotFound => assert!(!live.contains(&nth), "{nth} was lost"),
            deleted => {
                // An error may come after the deletion took effect, so this happens after an error too.
                live.remove(&nth);
                deleted?;
            }
        },
        6 if live.contains(&nth) => assert!(store.read_range(&id(nth), 0..u64::MAX)? == content(nth)),
        _ => drop(collect(store)?),
    }
    Ok(())
}

/// The known state after all lives so far.
#[derive(Default)]
struct Known {
    /// Whether a blob is live; `None` if the process died while it changed that.
    live: BTreeMap<usize, Option<bool>>,
    /// How many calls each operation took the last time.
    calls: BTreeMap<Kind, u64>,
    /// The operations in which processes died.
    deaths: BTreeMap<String, u64>,
}

impl Known {
    fn learn(&mut self, plan: &[(Kind, usize)], line: &str) -> Option<Kind> {
        let words: Vec<&str> = line.split(' ').collect();
        let (kind, content) = *plan.get(words.get(1)?.parse::<usize>().unwrap())?;
        let changes = !matches!(kind, Kind::Collect | Kind::Repack | Kind::Verify);
        match words[..] {
            ["begins", _] if changes => drop(self.live.insert(content, None)),
            ["begins", _] => {}
            ["done", _, calls, is_live] => {
                if changes {
                    self.live.insert(content, Some(is_live == "true"));
                }
                self.calls.insert(kind, calls.parse().unwrap());
                return None;
            }
            _ => panic!("{line}"),
        }
        Some(kind)
    }

    /// Runs one life, up to its death.
    fn live_once(&mut self, pair: &Pair, seed: u64) {
        let mut numbers = Numbers::new(seed ^ 0x6b69_6c6c);
        let plan = life(seed);
        let kind = DEATHS[numbers.below(DEATHS.len())];
        let places: Vec<usize> = (0..LIFE).filter(|place| plan[*place].0 == kind).collect();
        let place = places[numbers.below(places.len())];
        let nth = 1 + numbers.below(*self.calls.get(&kind).unwrap_or(&4).max(&1) as usize);
        let moment = numbers.below(3);
        let from_outside = numbers.below(4) == 0;
        let task =
            if from_outside { format!("{seed} 99 0 0") } else { format!("{seed} {place} {nth} {moment}") };
        let mut process = Process::start(module_path!(), pair, &task);
        // Opening the database and the blocks takes longest; the rest is quick.
        assert_eq!(process.must_say(), "opens");
        let mut doing = None;
        let wait = Duration::from_micros(numbers.next() % 600_000);
        let killer = from_outside.then(|| process.kill_after(wait));
        while let Some(line) = process.hear() {
            doing = self.learn(&plan, &line);
        }
        if let Some(killer) = killer {
            killer.join().unwrap();
        }
        let by = process.died_by();
        assert!(by.is_none_or(|signal| signal == SIGKILL), "died by {by:?}");
        let doing = doing.map_or_else(|| "nothing".to_owned(), |kind| format!("{kind:?}"));
        let how = if by.is_none() { "survived".to_owned() } else { doing };
        *self.deaths.entry(how).or_default() += 1;
        assert!(by.is_some() || process.succeeded(), "{task}: failed by itself, see above");
    }

    /// Checks that everything expected is there and, with `rest`, that everything else disappears.
    fn check(&mut self, pair: &Pair, when: &str, rest: bool) {
        let store = pair.config().timing(LIVING).open().unwrap();
        for (nth, live) in &self.live {
            let read = store.read_range(&id(*nth), 0..u64::MAX);
            match (&read, *live) {
                (Ok(bytes), Some(true) | None) => assert!(*bytes == content(*nth), "{when}: wrong bytes"),
                (Err(error), Some(false) | None) => {
                    assert_eq!(error.code(), Code::NotFound, "{when}: {error}");
                }
                (Ok(_), Some(false)) => panic!("{when}: content {nth} was deleted, and is there"),
                (Err(error), Some(true)) => panic!("{when}: content {nth} was put, and is lost: {error}"),
            }
        }
        let (report, findings) = verify(&store, false).unwrap();
        assert!(report.is_clean(), "{when}: {findings}");
        if rest {
            collect_all(pair, &store, Duration::from_secs(40));
            let to = if pair.blocks.are_packed() { BlockLayout::Packs } else { BlockLayout::Files };
            let report = store.repack(to, |_| ControlFlow::Continue(())).unwrap();
            assert!(report.complete, "{when}: {report:?}");
            assert_exact(pair, &store);
            // Not earlier: a server may still carry out a request of the dead process.
            for (nth, live) in &mut self.live {
                let found = store.exists(&id(*nth)).unwrap();
                assert!(live.is_none_or(|live| live == found), "{when}: content {nth} changed by itself");
                *live = Some(found);
            }
        }
        store.close();
    }
}

fn kill(blocks: Blocks, manifests: Manifests) {
    let rounds = number("GRAVITON_KILL_ROUNDS", 15);
    let seed = seed("GRAVITON_KILL_SEED");
    let started = Instant::now();
    let pair = Pair::new(blocks, manifests).with(&[("GRAVITON_CHUNKER", &format!("fixed:{BLOCK}"))]);
    println!("{blocks:?} and {manifests:?}: {rounds} rounds, seed {seed}");
    let mut beside = Process::start(module_path!(), &pair, &format!("beside {seed}"));
    let mut steps = String::new();
    let mut known = Known::default();
    for round in 0..rounds {
        known.live_once(&pair, seed + round);
        // In the other rounds, the next life begins among leases, dooms and blocks that nobody knows.
        let rest = round % 3 == 2 || round + 1 == rounds;
        if rest {
            beside.tell("rest");
            steps = beside.must_say();
        }
        known.check(&pair, &format!("{blocks:?} and {manifests:?}, seed {seed}, round {round}"), rest);
        if rest {
            beside.tell("go on");
        }
    }
    beside.end();
    let seconds = started.elapsed().as_secs();
    println!(
        "{blocks:?} and {manifests:?}: {rounds} rounds in {seconds} s, died in {:?}; the other {steps}",
        known.deaths
    );
    let survived = known.deaths.get("survived").copied().unwrap_or(0);
    assert!(survived * 2 <= rounds, "most were not killed: {:?}", known.deaths);
}

#[test]
fn files_and_sqlite() {
    kill(Blocks::Files, Manifests::Sqlite);
}

#[test]
fn files_and_postgres() {
    needs_servers!();
    kill(Blocks::Files, Manifests::Postgres);
}

#[test]
fn packs_and_sqlite() {
    kill(Blocks::Packs, Manifests::Sqlite);
}

#[test]
fn packs_and_postgres() {
    needs_servers!();
    kill(Blocks::Packs, Manifests::Postgres);
}

#[test]
fn s3_and_sqlite() {
    needs_servers!();
    kill(Blocks::S3, Manifests::Sqlite);
}

#[test]
fn s3_and_postgres() {
    needs_servers!();
    kill(Blocks::S3, Manifests::Postgres);
}

#[test]
fn s3_packs_and_sqlite() {
    needs_servers!();
    kill(Blocks::S3Packs, Manifests::Sqlite);
}

#[test]
fn s3_packs_and_postgres() {
    needs_servers!();
    kill(Blocks::S3Packs, Manifests::Postgres);
}
