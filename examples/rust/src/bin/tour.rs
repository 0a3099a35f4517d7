//! The calls that most programs need.

use std::io::{Read, Seek, SeekFrom, Write};

use graviton_core::{Algo, BlobId, Code, PutOptions, Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = Store::open("./data")?; // files and SQLite under one directory
    let put = store.put_bytes(vec![7; 1_000_000])?; // or `put` for any `Read`, `put_file` for a path
    println!("{} blocks, {} of them new", put.blocks, put.fresh_blocks);

    let mut reader = store.reader(&put.id)?; // `Read + Seek`, verified
    reader.seek(SeekFrom::End(-100))?;
    let mut end = Vec::new();
    reader.read_to_end(&mut end)?;
    assert_eq!(store.read_range(&put.id, 999_900..1_000_000)?, end);

    let mut writer = store.writer()?; // `Write`; dropped without `finish`, it leaves nothing
    writer.write_all(b"piece by piece")?;
    let written = writer.finish()?;

    let expected = PutOptions::new().expect(BlobId::of(Algo::Blake3, b"hello")); // only this content
    store.put_with(&expected).bytes("hello")?;
    let error = store.put_with(&expected).bytes("jello").unwrap_err();
    assert_eq!(error.code(), Code::DigestMismatch);
    println!("{error}");

    store.delete(&written.id)?;
    assert!(!store.exists(&written.id)?);
    for blob in store.list(None, 100)? {
        println!("{} in {} blocks", blob.id, blob.blocks);
    }
    Ok(())
}
