//! The Rust side of `tests/bench/c`; `tests/bench/boundary.c` is the same program in C, step by step.
//!
//! `bench_boundary put ROOT FILE` puts the file through a writer and prints seconds and id, `get ROOT ID`
//! reads the blob, both with buffers of 64 KiB, and `random ROOT ID COUNT` reads 4 KiB at random offsets. get
//! and random print seconds.

use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Write};
use std::time::Instant;

use graviton_core::{BlobId, Config, Store};

const BUFFER: usize = 65_536;
const PIECE: usize = 4096;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn put(store: &Store, path: &str) -> Outcome<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; BUFFER];
    let start = Instant::now();
    let mut writer = store.writer()?;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        writer.write_all(&buffer[..count])?;
    }
    let receipt = writer.finish()?;
    println!("{:.6} {}", start.elapsed().as_secs_f64(), receipt.id);
    Ok(())
}

fn get(store: &Store, id: &BlobId) -> Outcome<()> {
    let mut buffer = vec![0; BUFFER];
    let start = Instant::now();
    let mut reader = store.reader(id)?;
    let mut whole = 0;
    loop {
        let count = reader.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        whole += count as u64;
        black_box(buffer[0]);
    }
    println!("{:.6}", start.elapsed().as_secs_f64());
    if whole == id.size() { Ok(()) } else { Err("not all of it came".into()) }
}

fn random(store: &Store, id: &BlobId, count: u64) -> Outcome<()> {
    let mut buffer = vec![0; PIECE];
    let reader = store.reader(id)?;
    let places = id.size() - PIECE as u64;
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let start = Instant::now();
    for _ in 0..count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if reader.read_at(state % places, &mut buffer)? != PIECE {
            return Err("not all of it came".into());
        }
        black_box(buffer[0]);
    }
    println!("{:.6}", start.elapsed().as_secs_f64());
    Ok(())
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["put", root, path] => put(&Config::for_directory(root).open()?, path),
        ["get", root, id] => get(&Config::for_directory(root).open()?, &id.parse()?),
        ["random", root, id, count] => {
            random(&Config::for_directory(root).open()?, &id.parse()?, count.parse()?)
        }
        _ => Err("usage: bench_boundary put ROOT FILE | get ROOT ID | random ROOT ID COUNT".into()),
    }
}
