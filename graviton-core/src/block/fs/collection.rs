//! Whether a collection's process is alive: a file in `.tmp` that it holds locked.
//!
//! The lock ends with the process, however it dies, and only once all its threads are done: no deletion of it
//! is under way any more then. So its dooms can end at once instead of running out. This holds for processes
//! of one host only. The file of a dead one is a leftover like any other.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::temporaries::TEMPORARY;
use crate::collection::Collection;
use crate::descriptor::{occupy_standard, open_file};
use crate::durable;
use crate::error::{Error, Result};

/// Locked as long as it lives.
#[derive(Debug)]
pub(super) struct CollectionFile {
    path: PathBuf,
    _file: File,
}

fn path(blocks: &Path, by: Collection) -> PathBuf {
    blocks.join(TEMPORARY).join(format!("collection-{:016x}", by.0))
}

impl CollectionFile {
    pub(super) fn lock(blocks: &Path, by: Collection) -> Result<CollectionFile> {
        let path = path(blocks, by);
        let failed = |error| Error::io(format!("cannot lock {}", path.display()), error);
        durable::create_directory(&blocks.join(TEMPORARY))?;
        occupy_standard();
        loop {
            let file = File::create(&path).map_err(failed)?;
            rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
            // Somebody took it for a leftover between the two lines.
            if file.metadata().map_err(failed)?.nlink() > 0 {
                return Ok(CollectionFile { path, _file: file });
            }
        }
    }
}

impl Drop for CollectionFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether nobody holds the lock, or ever will: a collection takes it before it dooms anything.
pub(super) fn is_gone(blocks: &Path, by: Collection) -> bool {
    match open_file(&path(blocks, by)) {
        Ok(file) => rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_ok(),
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collection_is_gone_when_its_lock_is() {
        let directory = tempfile::tempdir().unwrap();
        let by = Collection(7);
        assert!(is_gone(directory.path(), by));
        let lock = CollectionFile::lock(directory.path(), by).unwrap();
        assert!(!is_gone(directory.path(), by));
        drop(lock);
        assert!(is_gone(directory.path(), by));
        // Of a process that died: the file is there, and nobody holds it.
        File::create(path(directory.path(), by)).unwrap();
        assert!(is_gone(directory.path(), by));
    }
}
