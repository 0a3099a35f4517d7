//! How fast streams are cut: our FastCDC beside the `fastcdc` crate's, which has the same boundaries.
//!
//! `cargo bench -p graviton-core --bench chunker`; `GRAVITON_BENCH_MIB` sets the amount. Both run in turns,
//! so that a change of the machine's clock hits both.

use std::hint::black_box;
use std::time::Instant;

use fastcdc::v2020::FastCDC;
use graviton_core::ChunkerSpec;

const ROUNDS: usize = 7;
const SIZES: [(usize, usize, usize); 3] =
    [(16 << 10, 64 << 10, 256 << 10), (64 << 10, 256 << 10, 1 << 20), (256 << 10, 1 << 20, 4 << 20)];

fn ours(spec: &ChunkerSpec, bytes: &[u8]) -> usize {
    let mut chunker = spec.chunker();
    let (mut at, mut blocks) = (0, 0);
    while let Some(size) = chunker.cut(&bytes[at..], true) {
        at += size;
        blocks += 1;
    }
    blocks
}

fn seconds(work: impl FnOnce() -> usize) -> (f64, usize) {
    let start = Instant::now();
    let blocks = black_box(work());
    (start.elapsed().as_secs_f64(), blocks)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let mib = std::env::var("GRAVITON_BENCH_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(256);
    let mut bytes = vec![0; mib << 20];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for word in bytes.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    println!("{mib} MiB of random bytes, medians of {ROUNDS}, one thread");
    for (min, average, max) in SIZES {
        let spec: ChunkerSpec = format!("fastcdc:{min}:{average}:{max}").parse().expect("sizes in range");
        let theirs = |bytes| FastCDC::new(bytes, min, average, max).count();
        assert_eq!(ours(&spec, &bytes), theirs(&bytes), "other boundaries than the crate's");
        let (mut us, mut them) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            us.push(seconds(|| ours(&spec, &bytes)).0);
            them.push(seconds(|| theirs(&bytes)).0);
        }
        let mut ratios: Vec<f64> = us.iter().zip(&them).map(|(us, them)| them / us).collect();
        let speed = |seconds: f64| bytes.len() as f64 / 1e6 / seconds;
        println!(
            "{spec}: graviton {:.0} MB/s, crate {:.0} MB/s, ratio {:.2}",
            speed(median(&mut us)),
            speed(median(&mut them)),
            median(&mut ratios),
        );
    }
}
