//! A store of many blocks in packs: the time of single calls at two sizes, and the memory that it takes.
//!
//! `large_store DIRECTORY BLOCKS [PEAK_MIB]` fills a store with blocks of 64 bytes, up to a tenth of BLOCKS
//! and then up to all of them. At both sizes it measures, on random blobs, stat, a range of one block, a page
//! of a listing, a put of one block, and a collection of 1,000 dead blocks, and it compares each answer.
//! Prints a line for each call: its name, the median at both sizes in microseconds, and their ratio, which is
//! about 1 if the call does not depend on the size of the store. Fails if its peak resident memory is above
//! PEAK_MIB.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use graviton_core::{BlobId, Config, GcOptions, PutReceipt, Store};
use graviton_tools::recipe::Recipe;

const BLOCK: u64 = 64;

/// Blocks of one blob.
const BLOCKS: u64 = 1_000;

const CALLS: usize = 201;
const COLLECTIONS: usize = 5;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Random bytes, the same for the same number.
fn content(number: u64, length: u64) -> Vec<u8> {
    format!("xof:{number}:{length}").parse::<Recipe>().expect("a recipe").bytes()
}

fn put(store: &Store, number: u64, blocks: u64) -> Outcome<PutReceipt> {
    let receipt = store.put_bytes(content(number, blocks * BLOCK))?;
    if receipt.fresh_blocks != blocks {
        return Err(format!("{} of {blocks} blocks are new", receipt.fresh_blocks).into());
    }
    Ok(receipt)
}

struct Measured {
    store: Store,
    blobs: Vec<BlobId>,
    /// The number of the next single block or dead blob.
    next: u64,
}

impl Measured {
    /// Fills the store up to this number of blobs.
    fn fill(&mut self, blobs: u64) -> Outcome<()> {
        let started = Instant::now();
        for number in self.blobs.len() as u64..blobs {
            self.blobs.push(put(&self.store, number, BLOCKS)?.id);
        }
        println!("{} blocks after {:.0} s", blobs * BLOCKS, started.elapsed().as_secs_f64());
        Ok(())
    }

    /// A blob and its number, another one each time.
    fn some_blob(&self, call: usize) -> (u64, BlobId) {
        let number = call * 7_919 % self.blobs.len();
        (number as u64, self.blobs[number])
    }

    fn new_number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn medians(&mut self) -> Outcome<Vec<(&'static str, f64)>> {
        let stat = median(CALLS, |call| {
            let (_, id) = self.some_blob(call);
            let started = Instant::now();
            let stat = self.store.stat(&id)?;
            let took = started.elapsed();
            if stat.blocks == BLOCKS { Ok(took) } else { Err("a blob has lost blocks".into()) }
        })?;
        let range = median(CALLS, |call| {
            let (number, id) = self.some_blob(call);
            let from = (call as u64 * 31 % BLOCKS) * BLOCK;
            let started = Instant::now();
            let read = self.store.read_range(&id, from..from + BLOCK)?;
            let took = started.elapsed();
            let all = content(number, BLOCKS * BLOCK);
            if read[..] == all[from as usize..][..BLOCK as usize] {
                Ok(took)
            } else {
                Err("wrong bytes".into())
            }
        })?;
        let page = median(CALLS, |call| {
            let (_, id) = self.some_blob(call);
            let started = Instant::now();
            let page = self.store.list(Some(&id), 10)?;
            let took = started.elapsed();
            if page.iter().all(|stat| stat.id > id) { Ok(took) } else { Err("a page is not in order".into()) }
        })?;
        let single = median(CALLS, |_| {
            let number = self.new_number();
            let started = Instant::now();
            put(&self.store, number, 1)?;
            Ok(started.elapsed())
        })?;
        let options = GcOptions { grace: Some(Duration::ZERO), ..GcOptions::default() };
        let collection = median(COLLECTIONS, |_| {
            let number = self.new_number();
            let dead = put(&self.store, number, BLOCKS)?.id;
            self.store.delete(&dead)?;
            let started = Instant::now();
            let report = self.store.gc(&options, |_| ControlFlow::Continue(()))?;
            let took = started.elapsed();
            if report.blocks == BLOCKS {
                Ok(took)
            } else {
                Err(format!("{} were collected", report.blocks).into())
            }
        })?;
        Ok(vec![
            ("stat", stat),
            ("range of a block", range),
            ("page of a listing", page),
            ("put of a block", single),
            ("gc of 1,000 blocks", collection),
        ])
    }
}

/// The median of what so many calls took, in microseconds.
fn median(calls: usize, mut call: impl FnMut(usize) -> Outcome<Duration>) -> Outcome<f64> {
    let mut took = (0..calls).map(&mut call).collect::<Outcome<Vec<Duration>>>()?;
    took.sort_unstable();
    Ok(took[calls / 2].as_secs_f64() * 1e6)
}

/// The peak resident memory of this process in MiB.
fn peak() -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? >> 10)
}

fn main() -> Outcome<()> {
    let usage = "usage: large_store DIRECTORY BLOCKS [PEAK_MIB]";
    let mut arguments = std::env::args().skip(1);
    let root = arguments.next().ok_or(usage)?;
    let blocks: u64 = arguments.next().ok_or(usage)?.parse()?;
    let most: u64 = arguments.next().map_or(Ok(u64::MAX), |text| text.parse())?;
    let blobs = blocks / BLOCKS;
    if blobs < 10 {
        return Err("too few blocks to compare".into());
    }
    let config = Config::for_directory(root)
        .set("GRAVITON_BLOCK_LAYOUT", "packs")?
        .set("GRAVITON_CHUNKER", &format!("fixed:{BLOCK}"))?
        .set("GRAVITON_DURABILITY", "relaxed")?;
    let mut measured = Measured { store: config.open()?, blobs: Vec::new(), next: u64::MAX / 2 };
    measured.fill(blobs / 10)?;
    let small = measured.medians()?;
    measured.fill(blobs)?;
    let large = measured.medians()?;
    for ((name, small), (_, large)) in small.iter().zip(&large) {
        println!("{name}: {small:.0} us, {large:.0} us, ratio {:.2}", large / small);
    }
    measured.store.close();
    let peak = peak()?;
    println!("peak resident memory {peak} MiB");
    if peak > most { Err(format!("more than {most} MiB").into()) } else { Ok(()) }
}
