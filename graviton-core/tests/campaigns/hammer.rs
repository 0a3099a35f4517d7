//! The real code under real schedules: writers, deleters and collectors of several processes over one store,
//! for a set time.
//!
//! Three processes with two threads each put, delete, restore, put again and read; two collect without grace,
//! and one verifies every byte and adopts, all in a loop. All blobs consist of the same few blocks. There are
//! small and large blobs (the short path and the long one), so that every deletion leaves blocks that other
//! blobs need, or are about to need.
//!
//! For each blob the expected result is known. Some blobs belong to one thread: only this thread puts,
//! deletes and restores them, so it knows whether they are live, and a live one reads back whatever the other
//! processes do. The other blobs are shared: they may disappear at any moment, and then a read reports that;
//! it never returns wrong bytes.
//!
//! Meanwhile one process after another is stopped at a random point, for longer than its lease, and then
//! continues. In S3, a deletion sometimes gets no answer and is carried out later, at the latest when it is
//! no longer valid.
//!
//! After each round, while the collectors run, all live blobs read back, and they are those that their owners
//! report. At the end, exactly the reachable blocks are stored.
//!
//! `GRAVITON_HAMMER_SECONDS` for each pair makes it a campaign. `GRAVITON_HAMMER_SEED` repeats the choices of
//! a run, but not its schedule, which depends on the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::child::{Brake, Numbers, Process, TASK, number, say, seed};
use crate::support::exact::{assert_exact, collect, collect_all, live_and_intact, verify};
use crate::support::needs_servers;
use crate::support::pair::{Blocks, Manifests, Pair};
use crate::support::proxy::{Fault, Proxy};
use graviton_core::testing::Recipe;
use graviton_core::{Algo, BlobId, Code, Config, Error, Store, Timing};

/// Large enough that a few blocks are larger than the first buffer of a put.
const BLOCK: usize = 16 << 10;

/// The number of different blocks.
const POOL: usize = 160;

/// The writing processes, their threads, and the number of blobs that each thread owns in addition to the
/// shared ones.
const WRITERS: usize = 3;
const THREADS: usize = 2;
const OWNED: usize = 8;
const CONTESTED: usize = 12;
const CONTENTS: usize = CONTESTED + WRITERS * THREADS * OWNED;

const COLLECTORS: usize = 2;
const ROUND: Duration = Duration::from_secs(4);

/// Leases and dooms that run out within a run.
const TIMING: Timing = Timing {
    lease: Duration::from_secs(3),
    renewal: Duration::from_millis(500),
    doom: Duration::from_secs(24),
    generation: Duration::from_secs(1),
};

/// The longest stop of a process, which is longer than a lease.
const STOP: Duration = Duration::from_millis(4_500);

/// The interval between late deletions, and their longest delay: a signature is valid for half of a doom.
/// Puts wait for the doom to end, so the interval is not shorter.
const LATE_EVERY: Duration = Duration::from_secs(40);
const LATE: Duration = Duration::from_secs(20);

/// All blobs: blocks of the pool, chosen by the blob's number. Of eight blobs, six are small, one takes the
/// long path, and one goes through the pipeline.
fn contents() -> Vec<(BlobId, Vec<u8>)> {
    let pool = format!("xof:pool:{}", POOL * BLOCK).parse::<Recipe>().unwrap().bytes();
    let content = |nth: usize| {
        let mut numbers = Numbers::new(nth as u64);
        let blocks = match nth % 8 {
            6 => 70 + numbers.below(60),
            7 if nth % 16 == 15 => 135,
            _ => 1 + numbers.below(12),
        };
        let mut bytes: Vec<u8> = Vec::new();
        for _ in 0..blocks {
            let block = numbers.below(POOL) * BLOCK;
            bytes.extend(&pool[block..block + BLOCK]);
        }
        // Without this, no blob has a block of its own.
        bytes.extend(format!("content {nth}").as_bytes());
        (BlobId::of(Algo::Blake3, &bytes), bytes)
    };
    (0..CONTENTS).map(content).collect()
}

#[test]
#[ignore = "not a test: what the other tests start as another process"]
fn child() {
    let Ok(task) = std::env::var(TASK) else { return };
    let words: Vec<&str> = task.split(' ').collect();
    let store = Config::from_env().unwrap().timing(TIMING).open().unwrap();
    match words[..] {
        ["write", process, seed] => write(&store, process.parse().unwrap(), seed.parse().unwrap()),
        ["collect"] => until_told(Duration::from_millis(15), |totals| collect_once(&store, totals)),
        ["verify"] => until_told(Duration::from_millis(200), |totals| verify_once(&store, totals)),
        _ => panic!("no such task: {task}"),
    }
    store.close();
}

/// Counts of a process's actions, by name.
type Totals = BTreeMap<&'static str, u64>;

fn add(totals: &mut Totals, name: &'static str, count: u64) {
    *totals.entry(name).or_default() += count;
}

/// Repeats the work until the parent closes standard input, and then reports how much was done.
fn until_told(pause: Duration, mut once: impl FnMut(&mut Totals)) {
    static OVER: AtomicBool = AtomicBool::new(false);
    std::thread::spawn(|| {
        while std::io::stdin().lock().read_line(&mut String::new()).unwrap() > 0 {}
        OVER.store(true, Ordering::Relaxed);
    });
    let mut totals = Totals::new();
    while !OVER.load(Ordering::Relaxed) {
        once(&mut totals);
        // Without a pause they take the processors from the processes that give them work.
        std::thread::sleep(pause);
    }
    say_totals(&totals);
}

fn say_totals(totals: &Totals) {
    let words: Vec<String> = totals.iter().map(|(name, count)| format!("{name}={count}")).collect();
    say(&words.join(" "));
}

/// An error that a busy machine may cause: it must be retryable.
fn later(totals: &mut Totals, error: &Error) {
    match error.code() {
        Code::WriterExpired => add(totals, "expired", 1),
        Code::BackendUnavailable => add(totals, "unavailable", 1),
        _ => panic!("{error}: {:?}", error.advice()),
    }
    eprintln!("again: {error}");
}

fn collect_once(store: &Store, totals: &mut Totals) {
    match collect(store) {
        Ok(report) => {
            add(totals, "collections", 1);
            add(totals, "reaped", report.blobs);
            add(totals, "deleted", report.blocks);
            add(totals, "kept", report.kept_referenced);
            add(totals, "failed", report.kept_failed);
        }
        Err(error) => later(totals, &error),
    }
}

fn verify_once(store: &Store, totals: &mut Totals) {
    match verify(store, true) {
        Ok((report, findings)) => {
            assert!(report.is_clean(), "{findings}");
            add(totals, "verifications", 1);
            add(totals, "verified", report.blocks);
            add(totals, "adopted", report.unreferenced);
        }
        Err(error) => later(totals, &error),
    }
}

/// Rounds whose lengths in milliseconds the parent sends. After each round, prints the numbers of the live
/// blobs that this process owns.
fn write(store: &Store, process: usize, seed: u64) {
    let contents = contents();
    let mut hands: Vec<Hand<'_>> = (0..THREADS)
        .map(|thread| {
            let hand = process * THREADS + thread;
            let numbers = Numbers::new(seed ^ (hand as u64) << 32);
            let owned = CONTESTED + hand * OWNED;
            Hand { store, contents: &contents, owned, live: BTreeSet::new(), numbers, totals: Totals::new() }
        })
        .collect();
    for line in std::io::stdin().lock().lines() {
        let end = Instant::now() + Duration::from_millis(line.unwrap().parse().unwrap());
        std::thread::scope(|scope| {
            for hand in &mut hands {
                scope.spawn(move || {
                    while Instant::now() < end {
                        hand.step();
                    }
                });
            }
        });
        let live: Vec<String> = hands.iter().flat_map(|hand| &hand.live).map(usize::to_string).collect();
        say(&live.join(" "));
    }
    let mut totals = Totals::new();
    for (name, count) in hands.iter().flat_map(|hand| &hand.totals) {
        add(&mut totals, name, *count);
    }
    say_totals(&totals);
}

/// A thread that puts and deletes.
struct Hand<'a> {
    store: &'a Store,
    contents: &'a [(BlobId, Vec<u8>)],
    /// The first of its own blobs.
    owned: usize,
    /// Those of its own blobs that are live.
    live: BTreeSet<usize>,
    numbers: Numbers,
    totals: Totals,
}

impl Hand<'_> {
    fn step(&mut self) {
        let nth = match self.numbers.below(10) {
            0..6 => self.owned + self.numbers.below(OWNED),
            6..9 => self.numbers.below(CONTESTED),
            _ => self.numbers.below(CONTENTS),
        };
        let owns = (self.owned..self.owned + OWNED).contains(&nth);
        match self.numbers.below(20) {
            _ if !owns && nth >= CONTESTED => self.read(nth, None),
            0..7 => self.put(nth),
            7..13 => {
                self.delete(nth, owns.then(|| self.live.contains(&nth)));
                // An immediate restore has the best chance to come before the collectors.
                if self.numbers.below(3) == 0 {
                    self.restore(nth, owns.then_some(false));
                }
            }
            13..15 => self.restore(nth, owns.then(|| self.live.contains(&nth))),
            _ => self.read(nth, owns.then(|| self.live.contains(&nth))),
        }
    }

    fn put(&mut self, nth: usize) {
        let (id, bytes) = &self.contents[nth];
        loop {
            match self.store.put(&bytes[..]) {
                Ok(put) => {
                    assert_eq!(put.id, *id);
                    add(&mut self.totals, "puts", 1);
                    add(&mut self.totals, "fresh", put.fresh_blocks);
                    self.live.insert(nth);
                    return;
                }
                // It is unknown whether a failed put took effect; the outcome of the next one is known.
                Err(error) => later(&mut self.totals, &error),
            }
        }
    }

    /// `live` is the expected result, where it is known.
    fn delete(&mut self, nth: usize, live: Option<bool>) {
        let mut unknown = live.is_none();
        loop {
            match self.store.delete(&self.contents[nth].0) {
                Ok(()) => assert!(unknown || live == Some(true), "content {nth} was deleted twice"),
                Err(error) if error.code() == Code::NotFound => {
                    assert!(unknown || live == Some(false), "content {nth} was lost: {error}");
                }
                Err(error) => {
                    unknown = true;
                    later(&mut self.totals, &error);
                    continue;
                }
            }
            self.live.remove(&nth);
            return add(&mut self.totals, "deletes", 1);
        }
    }

    fn restore(&mut self, nth: usize, live: Option<bool>) {
        loop {
            match self.store.restore(&self.contents[nth].0) {
                Ok(()) => drop(self.live.insert(nth)),
                Err(error) if error.code() == Code::NotFound => {
                    assert!(live != Some(true), "content {nth} was lost: {error}");
                    return;
                }
                Err(error) => {
                    later(&mut self.totals, &error);
                    continue;
                }
            }
            if live == Some(false) {
                add(&mut self.totals, "restored", 1);
            }
            return;
        }
    }

    fn read(&mut self, nth: usize, live: Option<bool>) {
        let (id, bytes) = &self.contents[nth];
        match self.store.read_range(id, 0..u64::MAX) {
            Ok(read) => {
                assert!(read == *bytes, "content {nth} has other bytes");
                assert!(live != Some(false), "content {nth} was deleted, and is there");
                add(&mut self.totals, "reads", 1);
            }
            Err(error) if error.code() == Code::BackendUnavailable => later(&mut self.totals, &error),
            Err(error) => {
                // Without a grace, a deleted blob may be collected while it is read. The read then finds a
                // gap in the manifest, or a missing block.
                let gone = matches!(error.code(), Code::NotFound | Code::MissingBlock);
                assert!(gone && live != Some(true), "content {nth}, {id}: {error}");
                add(&mut self.totals, "gone", 1);
            }
        }
    }
}

/// Stops processes and delays deletions until told to end; returns how often.
fn disturb(brakes: &[Brake], proxy: Option<&Proxy>, seed: u64, over: &AtomicBool) -> (u64, u64) {
    let mut numbers = Numbers::new(seed);
    let mut up_to = |most: Duration| Duration::from_millis(numbers.next() % most.as_millis() as u64);
    let mut next_late = Instant::now() + LATE_EVERY / 2;
    let (mut stops, mut late) = (0, 0);
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(up_to(Duration::from_secs(1)));
        brakes[stops as usize % brakes.len()].stop_for(up_to(STOP));
        stops += 1;
        if let Some(proxy) = proxy
            && Instant::now() >= next_late
        {
            proxy.harm("DELETE", "", 1, Fault::Late(up_to(LATE)));
            next_late = Instant::now() + LATE_EVERY;
            late += 1;
        }
    }
    (stops, late)
}

/// Rounds of writing, each with a full check at its end; returns how many.
fn rounds(
    store: &Store,
    contents: &[(BlobId, Vec<u8>)],
    writers: &mut [Process],
    length: Duration,
    seed: u64,
) -> u64 {
    let end = Instant::now() + length;
    let mut rounds = 0;
    while Instant::now() < end {
        rounds += 1;
        for writer in &mut *writers {
            writer.tell(&ROUND.as_millis().to_string());
        }
        let owned: Vec<String> = writers.iter_mut().map(Process::must_say).collect();
        let owned: BTreeSet<BlobId> = owned
            .iter()
            .flat_map(|said| said.split_whitespace())
            .map(|nth| contents[nth.parse::<usize>().unwrap()].0)
            .collect();
        // The collectors continue; nobody deletes.
        let live = live_and_intact(store);
        let contested: BTreeSet<BlobId> = contents[..CONTESTED].iter().map(|(id, _)| *id).collect();
        let found: BTreeSet<BlobId> = live.difference(&contested).copied().collect();
        let owned: BTreeSet<BlobId> = owned.difference(&contested).copied().collect();
        assert_eq!(
            found, owned,
            "seed {seed}, round {rounds}: live are others than were put and not deleted"
        );
        let (report, findings) = verify(store, false).unwrap();
        assert!(report.is_clean(), "seed {seed}, round {rounds}: {findings}");
    }
    rounds
}

fn hammer(blocks: Blocks, manifests: Manifests) {
    let seconds = number("GRAVITON_HAMMER_SECONDS", 20);
    let seed = seed("GRAVITON_HAMMER_SEED");
    println!("{blocks:?} and {manifests:?}: {seconds} s, seed {seed}");
    let pair = Pair::new(blocks, manifests).with(&[("GRAVITON_CHUNKER", &format!("fixed:{BLOCK}"))]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let proxy = blocks.are_in_s3().then(|| runtime.block_on(Proxy::to(pair.setting("QUASAR_MINIO_URL"))));
    let through: Vec<(&'static str, &str)> =
        proxy.iter().map(|proxy| ("QUASAR_MINIO_URL", proxy.url.as_str())).collect();
    let pair = pair.with(&through);
    let store = pair.config().timing(TIMING).open().unwrap();
    let contents = contents();
    let start = |task: String| Process::start(module_path!(), &pair, &task);
    let mut writers: Vec<Process> =
        (0..WRITERS).map(|process| start(format!("write {process} {seed}"))).collect();
    let others: Vec<Process> =
        (0..COLLECTORS).map(|_| start("collect".to_owned())).chain([start("verify".to_owned())]).collect();

    let brakes: Vec<Brake> = writers.iter().chain(&others).map(Process::brake).collect();
    let over = AtomicBool::new(false);
    let (rounds, disturbed) = std::thread::scope(|scope| {
        let disturbing = scope.spawn(|| disturb(&brakes, proxy.as_ref(), seed, &over));
        // Runs in a thread, so that the disturbances end before the processes do, even if a round fails.
        let rounds = || rounds(&store, &contents, &mut writers, Duration::from_secs(seconds), seed);
        let rounds = scope.spawn(rounds).join();
        over.store(true, Ordering::Relaxed);
        let disturbed = disturbing.join().unwrap();
        (rounds.unwrap_or_else(|panic| resume_unwind(panic)), disturbed)
    });
    let (stops, late) = disturbed;

    let mut totals: BTreeMap<String, u64> = BTreeMap::new();
    for process in writers.into_iter().chain(others) {
        let words = process.end();
        for (name, count) in words.last().unwrap().split(' ').filter_map(|word| word.split_once('=')) {
            *totals.entry(name.to_owned()).or_default() += count.parse::<u64>().unwrap();
        }
    }
    println!(
        "{blocks:?} and {manifests:?}: {rounds} rounds, {stops} stops, {late} late deletions, {totals:?}"
    );
    for name in ["puts", "deletes", "restored", "reads", "deleted", "kept", "verifications"] {
        assert!(totals.get(name).is_some_and(|count| *count > 0), "there were no {name}: {totals:?}");
    }
    collect_all(&pair, &store, Duration::from_secs(60));
    assert_exact(&pair, &store);
    // An emptied store keeps nothing.
    for id in live_and_intact(&store) {
        store.delete(&id).unwrap();
    }
    collect_all(&pair, &store, Duration::from_secs(60));
    assert_eq!(store.stats().unwrap().stored_bytes, 0);
    assert_exact(&pair, &store);
}

#[test]
fn files_and_sqlite() {
    hammer(Blocks::Files, Manifests::Sqlite);
}

#[test]
fn files_and_postgres() {
    needs_servers!();
    hammer(Blocks::Files, Manifests::Postgres);
}

#[test]
fn packs_and_sqlite() {
    hammer(Blocks::Packs, Manifests::Sqlite);
}

#[test]
fn packs_and_postgres() {
    needs_servers!();
    hammer(Blocks::Packs, Manifests::Postgres);
}

#[test]
fn s3_and_sqlite() {
    needs_servers!();
    hammer(Blocks::S3, Manifests::Sqlite);
}

#[test]
fn s3_and_postgres() {
    needs_servers!();
    hammer(Blocks::S3, Manifests::Postgres);
}

#[test]
fn s3_packs_and_sqlite() {
    needs_servers!();
    hammer(Blocks::S3Packs, Manifests::Sqlite);
}

#[test]
fn s3_packs_and_postgres() {
    needs_servers!();
    hammer(Blocks::S3Packs, Manifests::Postgres);
}
