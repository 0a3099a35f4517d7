//! Which SQLite files this process and its parents have opened.
//!
//! SQLite keeps its locks for each process and file in memory, and a forked child inherits that memory but
//! not the locks (<https://sqlite.org/howtocorrupt.html>, section 2.6). A child that opened the same file
//! again would believe that it holds what its parent holds; when the parent then closes, it removes the
//! write-ahead log under the child, and what the child commits is lost. So a child is refused the files that
//! were opened before it was forked. It may open any other.
//!
//! A list without locks, for a lock that another thread held at the fork would never be released in the child.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;

use crate::error::{Code, Error, Result};

struct Opened {
    process: u32,
    device: u64,
    inode: u64,
    next: Next,
}

type Next = OnceLock<Box<Opened>>;

static OPENED: Next = OnceLock::new();

/// Takes note that this process opens the file, which exists; fails if a parent did.
pub(super) fn note(path: &Path) -> Result<()> {
    let metadata = std::fs::metadata(path)
        .map_err(|error| Error::io(format!("cannot open {}", path.display()), error))?;
    let (process, device, inode) = (std::process::id(), metadata.dev(), metadata.ino());
    let mut place = &OPENED;
    loop {
        let fresh = || Box::new(Opened { process, device, inode, next: OnceLock::new() });
        let opened = place.get_or_init(fresh);
        if (opened.device, opened.inode) == (device, inode) {
            if opened.process == process {
                return Ok(());
            }
            return Err(Error::new(
                Code::Forked,
                format!("cannot open {}: the process that forked this one has opened it", path.display()),
            )
            .with_advice("open the store only after the fork, or start the child as a new program (spawn)"));
        }
        place = &opened.next;
    }
}
