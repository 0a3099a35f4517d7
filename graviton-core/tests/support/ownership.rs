//! Whether a store takes writes, and a copy of its database does not. The store has a blob of the bytes
//! `first`.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use graviton_core::{BlobId, Code, Config, CopyOptions, Error, GcOptions, GcReport, Store, VerifyOptions};

/// Collects without a grace.
pub(crate) fn collect(store: &Store) -> Result<GcReport, Error> {
    let options = GcOptions { grace: Some(Duration::ZERO), ..GcOptions::default() };
    store.gc(&options, |_| ControlFlow::Continue(()))
}

type Write<'a> = &'a dyn Fn(&Store) -> Result<(), Error>;

/// Every way to write is refused, and every way to read works. Returns the reason.
pub(crate) fn is_refused(config: &Config, id: &BlobId) -> String {
    let other = tempfile::tempdir().unwrap();
    let other = Store::open(other.path()).unwrap();
    other.put(&b"of another store"[..]).unwrap();
    let adopt = VerifyOptions { adopt: true, ..VerifyOptions::default() };
    // Each in a store of its own: the first refusal is remembered.
    let writes: &[(&str, Write)] = &[
        ("put", &|store| store.put(&b"new"[..]).map(drop)),
        ("put it again", &|store| store.put(&b"first"[..]).map(drop)),
        ("put a large one", &|store| store.put_bytes(vec![7; 1 << 20]).map(drop)),
        ("delete", &|store| store.delete(id)),
        ("restore", &|store| store.restore(id)),
        ("collect", &|store| collect(store).map(drop)),
        ("adopt", &|store| store.verify(&adopt, |_| ControlFlow::Continue(())).map(drop)),
        ("copy", &|store| {
            store.copy_from(&other, &CopyOptions::default(), |_| ControlFlow::Continue(())).map(drop)
        }),
        ("repair", &|store| store.repair_from(&other, |_| ControlFlow::Continue(())).map(drop)),
    ];
    let mut why = String::new();
    for (name, write) in writes {
        let store = config.open().unwrap();
        for _ in 0..2 {
            let error = write(&store).expect_err(name);
            assert_eq!(error.code(), Code::Config, "{name}: {error}");
            assert!(error.advice().unwrap().contains("--take-over"), "{name}: {error}");
            why = error.to_string();
        }
        assert_eq!(&store.read_range(id, 0..9).unwrap()[..], b"first", "{name}");
    }
    let reading = config.open_read_only().unwrap();
    assert_eq!(&reading.read_range(id, 0..9).unwrap()[..], b"first");
    let verified = reading.verify(&VerifyOptions::default(), |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(verified.missing, 0);
    why
}

/// The store takes a blob, and gives its space free again.
pub(crate) fn works(config: &Config, id: &BlobId) {
    let store = config.open().unwrap();
    let content = format!("{:?}", Instant::now());
    let put = store.put(content.as_bytes()).unwrap();
    store.delete(&put.id).unwrap();
    assert_eq!(collect(&store).unwrap().blocks, 1);
    assert_eq!(&store.read_range(id, 0..9).unwrap()[..], b"first");
    store.close();
}
