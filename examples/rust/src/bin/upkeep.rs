//! Deletes and restores a blob, frees its space, and verifies the store, with progress.
//!
//! usage: `upkeep STORE`

use std::error::Error;
use std::ops::ControlFlow;
use std::time::Duration;

use graviton_core::{GcOptions, Store, VerifyEvent, VerifyOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args().nth(1).ok_or("usage: upkeep STORE")?;
    let store = Store::open(directory)?;
    let id = store.put(&b"no longer wanted"[..])?.id;

    store.delete(&id)?;
    store.restore(&id)?; // possible until the grace period is over
    store.delete(&id)?;

    // Without a grace period the space is free at once. By default the configured one counts, an hour.
    let options = GcOptions { grace: Some(Duration::ZERO), ..GcOptions::default() };
    let report = store.gc(&options, |so_far| {
        eprintln!("gc: {} blocks", so_far.blocks);
        ControlFlow::Continue(()) // `Break` ends the collection; the next one continues
    })?;
    println!("freed {} blobs, {} blocks, {} bytes", report.blobs, report.blocks, report.bytes);

    let options = VerifyOptions { deep: true, ..VerifyOptions::default() };
    let report = store.verify(&options, |event| {
        match event {
            VerifyEvent::Found(finding) => println!("found: {finding:?}"),
            VerifyEvent::Progress(so_far) => eprintln!("verify: {} blocks", so_far.blocks),
        }
        ControlFlow::Continue(())
    })?;
    println!("verified {} blobs; clean: {}", report.blobs, report.is_clean());
    Ok(())
}
