//! The time of one small put and one small get inside a program: a part of `tests/bench/run`.
//!
//! `bench_small DIRECTORY [COUNT [LAYOUT]]` puts 4 KiB blobs one by one, each after a file that is created,
//! synced, renamed and its directory synced, and then gets them one by one. Afterwards 16 threads put as many
//! blobs together, in rounds, each round after as many files as one thread writes in the same way. Prints a
//! line for each measure: its name, and the median, the 10th and the 90th hundredth in microseconds, or of
//! the ratios.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use graviton_core::{BlobId, Config, Store};

const SIZE: usize = 4096;
const WARM_UP: usize = 100;

const THREADS: usize = 16;
const ROUNDS: usize = 9;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn fill(bytes: &mut [u8], state: &mut u64) {
    for word in bytes.chunks_exact_mut(8) {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
}

/// Keeps a file as a program without a store does.
fn keep_file(at: &Path, directory: &File, name: usize, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = at.join(format!("{name}.tmp"));
    let mut file = File::create_new(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, at.join(name.to_string()))?;
    directory.sync_all()
}

fn micros(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e6
}

fn print(name: &str, mut values: Vec<f64>) {
    values.sort_unstable_by(f64::total_cmp);
    let at = |part: f64| values[((values.len() - 1) as f64 * part) as usize];
    println!("{name} {:.2} {:.2} {:.2}", at(0.5), at(0.1), at(0.9));
}

/// How long a put takes of those that the threads do together, in microseconds.
fn put_together(store: &Store, count: usize, state: &mut u64) -> Outcome<f64> {
    let mut blobs = vec![vec![0; SIZE]; count / THREADS * THREADS];
    for blob in &mut blobs {
        fill(blob, state);
    }
    let start = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = blobs
            .chunks(count / THREADS)
            .map(|part| scope.spawn(|| part.iter().try_for_each(|blob| store.put(blob.as_slice()).map(drop))))
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a thread that puts does not panic"))
    })?;
    Ok(micros(start) / blobs.len() as f64)
}

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let root = arguments.next().ok_or("usage: bench_small DIRECTORY [COUNT [LAYOUT]]")?;
    let count: usize = arguments.next().map_or(Ok(500), |text| text.parse())?;
    let layout = arguments.next().unwrap_or_else(|| "files".to_owned());
    let root = Path::new(&root);
    let files = root.join("files");
    std::fs::create_dir_all(&files)?;
    let directory = File::open(&files)?;
    let config = Config::for_directory(root.join("store")).set("GRAVITON_BLOCK_LAYOUT", &layout)?;
    let store = config.open()?;

    let mut state = u64::from(std::process::id()) << 32 | 0x9e37_79b9;
    let mut bytes = vec![0; SIZE];
    let (mut file, mut put, mut ratio) = (Vec::new(), Vec::new(), Vec::new());
    let mut ids: Vec<BlobId> = Vec::new();
    for number in 0..WARM_UP + count {
        fill(&mut bytes, &mut state);
        let start = Instant::now();
        keep_file(&files, &directory, number, &bytes)?;
        let for_file = micros(start);
        let start = Instant::now();
        let receipt = store.put(bytes.as_slice())?;
        let for_put = micros(start);
        if receipt.fresh_blocks != 1 {
            return Err("a put found its random bytes in the store".into());
        }
        if number >= WARM_UP {
            file.push(for_file);
            put.push(for_put);
            ratio.push(for_put / for_file);
            ids.push(receipt.id);
        }
    }
    let mut get = Vec::new();
    for id in ids.iter().chain(&ids) {
        let start = Instant::now();
        let got = store.read_range(id, 0..SIZE as u64)?;
        get.push(micros(start));
        if got.len() != SIZE {
            return Err("a get was short".into());
        }
    }
    let get = get.split_off(ids.len());
    print("file", file);
    print("put", put);
    print("ratio", ratio);
    print("get", get);
    let (mut together, mut ratio) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let start = Instant::now();
        for number in 0..count / ROUNDS {
            fill(&mut bytes, &mut state);
            keep_file(&files, &directory, (round + 1) * 1_000_000 + number, &bytes)?;
        }
        let for_file = micros(start) / (count / ROUNDS) as f64;
        let for_put = put_together(&store, count.max(THREADS), &mut state)?;
        if round > 0 {
            together.push(for_put);
            ratio.push(for_put / for_file);
        }
    }
    print("together", together);
    print("together-ratio", ratio);
    store.close();
    Ok(())
}
