//! A store across `fork`: the parent's is refused in the child, and a child's own works.
//!
//! Not under the test harness, which has threads of its own.

use graviton_core::{Code, Store};

fn main() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, theirs) = (directory.path().join("parent"), directory.path().join("child"));
    let store = Store::open(&ours).unwrap();
    let put = store.put(&b"before the fork"[..]).unwrap();
    // Closed again before the fork; of some the files are gone, and their numbers are free for others.
    let closed = directory.path().join("closed");
    let early = Store::open(&closed).unwrap();
    let kept = early.put(&b"closed before the fork"[..]).unwrap();
    early.close();
    for number in 0..50 {
        let gone = directory.path().join(format!("gone {number}"));
        let store = Store::open(&gone).unwrap();
        store.put(&b"gone"[..]).unwrap();
        store.close();
        std::fs::remove_dir_all(gone).unwrap();
    }
    let mut reader = store.reader(&put.id).unwrap();

    // SAFETY: the child uses no lock that another thread of the parent could hold at this moment: the
    // store is idle, and the allocator is made for this. It leaves by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let fine = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            assert_eq!(store.stat(&put.id).unwrap_err().code(), Code::Forked);
            assert_eq!(store.put(&b"x"[..]).unwrap_err().code(), Code::Forked);
            assert_eq!(Store::open(&ours).unwrap_err().code(), Code::Forked);
            drop(store);
            let again = Store::open(&closed).unwrap();
            assert_eq!(again.read_range(&kept.id, 0..6).unwrap(), &b"closed"[..]);
            assert!(again.put(&b"after the fork"[..]).unwrap().created);
            again.close();
            for number in 0..50 {
                let store = Store::open(directory.path().join(format!("new {number}"))).unwrap();
                store.put(&b"new"[..]).unwrap();
            }
            // The parent's stays refused, also after the child dropped it.
            assert_eq!(Store::open(&ours).unwrap_err().code(), Code::Forked);
            let own = Store::open(&theirs).unwrap();
            let put = own.put(&b"after the fork"[..]).unwrap();
            assert_eq!(own.read_range(&put.id, 0..100).unwrap(), &b"after the fork"[..]);
            own.close();
        }));
        // SAFETY: ends this process at once, which is the point.
        unsafe { libc::_exit(i32::from(fine.is_err())) };
    }
    let mut status = 0;
    // SAFETY: waits for the child that was just forked, with a place for its status.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child failed");

    assert_eq!(reader.next_block().unwrap().as_deref(), Some(&b"before the fork"[..]));
    assert!(store.put(&b"the parent goes on"[..]).unwrap().created);
    let child = Store::open(&theirs).unwrap();
    assert_eq!(child.list(None, 10).unwrap().len(), 1);
    assert_eq!(Store::open(&closed).unwrap().list(None, 10).unwrap().len(), 2);
    println!("test fork ... ok\n\n1 passed, 0 failed");
}
