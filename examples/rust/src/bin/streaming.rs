//! Writes a blob piece by piece. Nothing is visible before `finish` returns.
//!
//! usage: `streaming STORE`

use std::error::Error;
use std::io::{BufRead, Write};

use graviton_core::Store;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args().nth(1).ok_or("usage: streaming STORE")?;
    let store = Store::open(directory)?;

    let mut writer = store.writer()?;
    for number in 1..=100_000 {
        writeln!(writer, "line {number}")?;
    }
    let put = writer.finish()?;
    println!("{} bytes in {} blocks", put.id.size(), put.blocks);

    // A writer that is dropped without `finish` leaves nothing.
    let mut abandoned = store.writer()?;
    abandoned.write_all(b"this is never stored")?;
    drop(abandoned);
    println!("{} blob", store.stats()?.blobs);

    // A reader is a `BufRead` too.
    let last = store.reader(&put.id)?.lines().last().ok_or("the blob is empty")??;
    println!("{last}");
    Ok(())
}
