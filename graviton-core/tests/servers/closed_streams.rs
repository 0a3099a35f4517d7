//! A program that has closed its standard streams: no socket to PostgreSQL or S3 gets one of their numbers,
//! into which some part of the program may still write.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use graviton_core::Config;

use crate::support::child;
use crate::support::needs_servers;
use crate::support::pair::{Blocks, Manifests, Pair};

/// Whether the child closes its streams before it opens the store.
const CLOSES: &str = "GRAVITON_TEST_CLOSES_STREAMS";

fn close_standard() {
    for number in 0..3 {
        // SAFETY: a number; nothing of this process that is used below holds one of these three.
        unsafe { libc::close(number) };
    }
}

/// Something other than what is nothing has the number of a standard stream.
fn taken() -> Option<String> {
    let held = (0..3).filter_map(|number| std::fs::read_link(format!("/proc/self/fd/{number}")).ok());
    // The look itself opens nothing that stays.
    held.map(|path| path.display().to_string()).find(|path| path.starts_with("socket:"))
}

#[test]
#[ignore = "not a test: what the next one starts as another process"]
fn child() {
    let Ok(closes) = std::env::var(CLOSES) else { return };
    // The harness would write to the streams when this is over.
    let done = std::panic::catch_unwind(|| put_and_look(closes == "before"));
    std::process::exit(match done {
        Ok(true) => 0,
        Ok(false) => 3,
        Err(_) => 4,
    });
}

/// True if all was put, and no socket was found at a standard stream.
fn put_and_look(closes_before: bool) -> bool {
    let config = Config::from_env().unwrap();
    if closes_before {
        close_standard();
    }
    let store = config.open().unwrap();
    if !closes_before {
        store.put(&b"before"[..]).unwrap();
        close_standard();
    }
    let (ended, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let looking = {
        let (ended, looks) = (Arc::clone(&ended), Arc::clone(&looks));
        std::thread::spawn(move || {
            let mut found = None;
            while !ended.load(Ordering::Relaxed) {
                found = found.or_else(taken);
                looks.fetch_add(1, Ordering::Relaxed);
            }
            found
        })
    };
    for number in 0..20_u32 {
        let content = number.to_le_bytes().repeat(100_000);
        let put = store.put(&content[..]).unwrap();
        assert!(store.read_range(&put.id, 0..u64::MAX).unwrap() == content);
        // Other connections are made than those of the put before.
        if number % 5 == 4 {
            config.open().unwrap().stats().unwrap();
        }
    }
    ended.store(true, Ordering::Relaxed);
    looking.join().unwrap().is_none() && looks.load(Ordering::Relaxed) > 0
}

#[test]
fn no_socket_gets_the_number_of_a_stream_that_was_closed() {
    needs_servers!();
    for closes in ["before", "after"] {
        let pair = Pair::new(Blocks::S3, Manifests::Postgres);
        let status = child::command(module_path!())
            .envs(pair.settings.iter().map(|(name, value)| (*name, value)))
            .env("GRAVITON_FS_ROOT", pair.root.path())
            .env(CLOSES, closes)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .output()
            .unwrap()
            .status;
        // 3: a socket was found there. 4: something else failed.
        assert_eq!(status.code(), Some(0), "closed {closes} the store was opened");
    }
}
