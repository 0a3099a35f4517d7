//! Calls that are ended while they wait for another process: at once, without effect, and without harm to
//! others.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use graviton_core::{Code, Error, GcOptions, Store, interruptible};

/// Somebody else's transaction that writes, for as long as this lives.
struct Held(#[allow(dead_code, reason = "dropped, it rolls back")] rusqlite::Connection);

fn hold(directory: &Path) -> Held {
    let connection = rusqlite::Connection::open(directory.join("manifests.db")).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    Held(connection)
}

/// Runs the call until it has been asked twice whether to go on.
fn ended<T: std::fmt::Debug>(call: impl FnOnce() -> Result<T, Error>) -> Error {
    let mut asked = 0;
    let check = move || {
        asked += 1;
        if asked == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    interruptible(check, call).unwrap_err()
}

#[test]
fn a_call_that_waits_for_a_lock_can_be_ended_and_then_never_happens() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let kept = store.put(&b"kept"[..]).unwrap().id;
    let dead = store.put(&b"dead"[..]).unwrap().id;
    store.delete(&dead).unwrap();

    let held = hold(directory.path());
    assert_eq!(ended(|| store.delete(&kept)).code(), Code::Cancelled);
    assert_eq!(ended(|| store.restore(&dead)).code(), Code::Cancelled);
    let options = GcOptions { grace: Some(Duration::ZERO), ..GcOptions::default() };
    assert_eq!(ended(|| store.gc(&options, |_| ControlFlow::Continue(()))).code(), Code::Cancelled);
    // Time for a thread that still waits to notice that it need not.
    std::thread::sleep(Duration::from_millis(500));
    drop(held);
    std::thread::sleep(Duration::from_millis(500));
    assert!(store.exists(&kept).unwrap());
    assert!(!store.exists(&dead).unwrap());
    store.restore(&dead).unwrap();
}

/// The put that leads a batch of commits is ended; those that count on it are committed all the same.
#[test]
fn who_shares_a_batch_with_an_ended_put_is_not_harmed() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    store.put(&b"the first put prepares the store"[..]).unwrap();
    let held = hold(directory.path());
    let leading = Arc::new(AtomicBool::new(false));
    let (leads, leader) = (Arc::clone(&leading), store.clone());
    let leader = std::thread::spawn(move || {
        let mut asked = 0;
        let check = move || {
            leads.store(true, Ordering::Release);
            asked += 1;
            // Long enough that the others wait behind it.
            if asked == 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        interruptible(check, || leader.put(&b"the leader's"[..])).unwrap_err()
    });
    while !leading.load(Ordering::Acquire) {
        std::thread::yield_now();
    }
    let others: Vec<_> = (0..4_u8)
        .map(|other| {
            let store = store.clone();
            std::thread::spawn(move || store.put(&[other; 100][..]))
        })
        .collect();
    assert_eq!(leader.join().unwrap().code(), Code::Cancelled);
    drop(held);
    for other in others {
        let id = other.join().unwrap().unwrap().id;
        assert!(store.exists(&id).unwrap());
    }
}
