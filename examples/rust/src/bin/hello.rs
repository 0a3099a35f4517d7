//! Stores README.md, and prints what came back.

use graviton_core::{BlobId, Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = Store::open("./data")?; // files and SQLite under one directory
    let put = store.put(std::fs::File::open("README.md")?)?; // any `Read`
    println!("{}: {} of {} blocks are new", put.id, put.fresh_blocks, put.blocks);

    let id: BlobId = put.id.to_string().parse()?;
    assert_eq!(&store.read_range(&id, 2..10)?[..], b"Graviton");
    std::io::copy(&mut store.reader(&id)?, &mut std::io::stdout())?; // `Read + Seek`
    Ok(())
}
