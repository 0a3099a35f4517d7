//! Stores a file, and writes it back to another.
//!
//! usage: `put_get STORE FILE COPY`

use std::error::Error;
use std::fs::File;

use graviton_core::Store;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, file, copy] = arguments.as_slice() else {
        return Err("usage: put_get STORE FILE COPY".into());
    };

    let store = Store::open(directory)?;
    let put = store.put_file(file)?;
    println!("{}", put.id);
    println!("{} of {} blocks are new, {} bytes", put.fresh_blocks, put.blocks, put.fresh_bytes);

    // Every block is verified before a byte of it reaches the file.
    std::io::copy(&mut store.reader(&put.id)?, &mut File::create(copy)?)?;

    let stats = store.stats()?;
    println!("{} blobs, {} bytes, stored in {}", stats.blobs, stats.logical_bytes, stats.stored_bytes);
    store.close();
    Ok(())
}
