//! The time of the Rust API, for a comparison with another language in the same run: a part of
//! `tests/bench/python`.
//!
//! `bench_api DATA DIRECTORY` reads the file DATA into memory, then obeys lines of standard input and answers
//! each with the seconds that it took:
//!
//! - `put`: opens a new store in DIRECTORY, without syncs, and puts the data
//! - `again`: puts it there again
//! - `get`: gets it, into fresh memory
//! - `small STORE COUNT ID…`: gets these blobs of that store one after the other, COUNT times altogether

use std::error::Error;
use std::io::{BufRead, Read, Write};
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use graviton_core::{BlobId, Config, Store};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn put(store: &Store, data: &Bytes) -> Outcome<(f64, BlobId)> {
    let data = data.clone();
    let start = Instant::now();
    let put = store.put_bytes(data)?;
    Ok((start.elapsed().as_secs_f64(), put.id))
}

fn get(store: &Store, id: &BlobId) -> Outcome<f64> {
    let start = Instant::now();
    let mut bytes = Vec::with_capacity(usize::try_from(id.size())?);
    store.reader(id)?.read_to_end(&mut bytes)?;
    let seconds = start.elapsed().as_secs_f64();
    if bytes.len() as u64 == id.size() { Ok(seconds) } else { Err("a get was short".into()) }
}

fn small(words: &[&str]) -> Outcome<f64> {
    let [place, count, ids @ ..] = words else { return Err("usage: small STORE COUNT ID…".into()) };
    let store = Store::open(place)?;
    let ids: Vec<BlobId> = ids.iter().map(|id| id.parse()).collect::<Result<_, _>>()?;
    let start = Instant::now();
    for id in ids.iter().cycle().take(count.parse()?) {
        let mut bytes = Vec::with_capacity(usize::try_from(id.size())?);
        store.reader(id)?.read_to_end(&mut bytes)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    store.close();
    Ok(seconds)
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [data, root] = arguments.as_slice() else { return Err("usage: bench_api DATA DIRECTORY".into()) };
    let data = Bytes::from(std::fs::read(data)?);
    let mut number = 0;
    let mut current = None;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let seconds = match (words[0], &current) {
            ("put", _) => {
                number += 1;
                let place = Path::new(root).join(format!("rust-{number}"));
                let store = Config::for_directory(place).set("GRAVITON_DURABILITY", "relaxed")?.open()?;
                let (seconds, id) = put(&store, &data)?;
                current = Some((store, id));
                seconds
            }
            ("again", Some((store, _))) => put(store, &data)?.0,
            ("get", Some((store, id))) => get(store, id)?,
            ("small", _) => small(&words[1..])?,
            _ => return Err(format!("what is {line:?}?").into()),
        };
        println!("{seconds}");
        std::io::stdout().flush()?;
    }
    Ok(())
}
