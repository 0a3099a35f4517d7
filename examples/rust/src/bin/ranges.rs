//! Reads parts of a blob: by range, by seeking, and with several threads at once. A read touches only the
//! blocks that hold the bytes.
//!
//! usage: `ranges STORE`

use std::error::Error;
use std::io::{Read, Seek, SeekFrom};
use std::thread;

use graviton_core::Store;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args().nth(1).ok_or("usage: ranges STORE")?;
    let store = Store::open(directory)?;
    let content: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let id = store.put_bytes(content)?.id;

    // The first block in the manifest.
    let first = store.manifest(&id, 0, 1)?;
    println!("the first of {} blocks has {} bytes", store.stat(&id)?.blocks, first[0].key.size());

    let number = store.read_range(&id, 4_000..4_004)?;
    println!("at 4000: {}", u32::from_le_bytes(number[..].try_into()?));

    let mut reader = store.reader(&id)?;
    reader.seek(SeekFrom::End(-4))?;
    let mut number = [0; 4];
    reader.read_exact(&mut number)?;
    println!("at the end: {}", u32::from_le_bytes(number));

    // `read_at` moves nothing, so threads share one reader.
    let sum: u64 = thread::scope(|scope| {
        let reader = &reader;
        let threads: Vec<_> = (0..4_u64)
            .map(|part| {
                scope.spawn(move || {
                    let mut number = [0; 4];
                    reader
                        .read_at(part * 2_000_000, &mut number)
                        .map(|_| u64::from(u32::from_le_bytes(number)))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread panicked")).sum::<Result<u64, _>>()
    })?;
    println!("the sum of four: {sum}");
    Ok(())
}
