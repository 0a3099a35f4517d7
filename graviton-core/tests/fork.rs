//! A store across `fork`: the parent's is refused in the child, and a child's own works.
//!
//! Not under the test harness, which has threads of its own.

use graviton_core::{Code, Store};

fn main() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, theirs) = (directory.path().join("parent"), directory.path().join("child"));
    let store = Store::open(&ours).unwrap();
    let put = store.put(&b"before the fork"[..]).unwrap();
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
    println!("test fork ... ok\n\n1 passed, 0 failed");
}
