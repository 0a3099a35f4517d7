//! A program that closes its standard streams and still writes to them: nothing of that gets into the store.
//!
//! Not under the test harness, which writes to them too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use graviton_core::Store;

fn content(number: u32) -> Vec<u8> {
    (0..20_000_u32).flat_map(|word| (word ^ number << 16).wrapping_mul(0x9e37_79b1).to_le_bytes()).collect()
}

fn close_standard() {
    for number in 0..3 {
        // SAFETY: a number; nothing of this process that is used below holds one of these three.
        unsafe { libc::close(number) };
    }
}

fn main() {
    let directory = tempfile::tempdir().unwrap();
    // SAFETY: a copy of standard output, to say how it went.
    let output = unsafe { libc::dup(1) };
    std::panic::set_hook(Box::new(move |panic| say(output, &format!("{panic}\n"))));
    for opened_before in [true, false] {
        let root = directory.path().join(opened_before.to_string());
        if !opened_before {
            close_standard();
        }
        let store = Store::open(&root).unwrap();
        if opened_before {
            store.put(&b"before"[..]).unwrap();
            close_standard();
        }
        let ended = Arc::new(AtomicBool::new(false));
        let writing = {
            let ended = Arc::clone(&ended);
            std::thread::spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    for number in 0..3 {
                        // SAFETY: a buffer of that length; a closed descriptor is an error.
                        unsafe { libc::write(number, c"log line\n".as_ptr().cast(), 9) };
                    }
                }
            })
        };
        let puts: Vec<_> = (0..200).map(|number| store.put(&content(number)[..]).unwrap()).collect();
        store.close();
        ended.store(true, Ordering::Relaxed);
        writing.join().unwrap();
        let store = Store::open(&root).unwrap();
        for (number, put) in (0..).zip(&puts) {
            assert_eq!(store.read_range(&put.id, 0..u64::MAX).unwrap(), content(number));
        }
        store.close();
    }
    say(output, "test closed_streams ... ok\n\n1 passed, 0 failed\n");
}

fn say(output: i32, text: &str) {
    // SAFETY: a text of that length, to a descriptor that is open.
    unsafe { libc::write(output, text.as_ptr().cast(), text.len()) };
}
