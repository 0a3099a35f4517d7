//! Publishes files: written without a name, synced, named, and the name synced.
//!
//! The order is essential:
//! 1. The bytes go to a file without a name (`O_TMPFILE`). A filesystem without such files gets a named file
//!    in `.tmp`, locked (`flock`) for as long as its writer lives, so that the next store to open removes it
//!    if the writer died. If the filesystem lacks locks as well, the file's age decides.
//! 2. Its data is synced. A batch is synced together if the filesystem can be synced as a whole: one flush
//!    for each file is what makes stores slow (237 µs each against 14 µs in a batch for 4 KiB).
//! 3. It gets its final name. An existing file of that name is replaced: while the database does not say
//!    `stored`, a file under a name proves nothing.
//! 4. The directory is synced, and compared with the one under its path (`opened`).
//!
//! Because 2 comes before 3, a file that replaces another is never less durable than that one, and a reader
//! that trusts names alone (an older server on the same directory) never finds a partial block after a power
//! cut. Naming first and syncing once was measured to be no faster.
//!
//! If step 4 fails, the names are kept: no row that says `stored` references them, and removing them could
//! remove a block that another process made durable under the same name in the meantime.

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{Access, access};
use rustix::io::{Errno, retry_on_intr};
use tokio::sync::OwnedSemaphorePermit;

use super::opened::{OpenDirectory, Writable};
use super::shared::Shared;
use super::temporaries::{Fresh, TEMPORARY, Temporaries, open_temporary, remove_leftovers};
use crate::block::{Block, Published};
use crate::blocking::Task;
use crate::digest::Algo;
use crate::error::{Code, Error, Result};
use crate::key::BlockKey;
use crate::repeated::again;
use crate::{blocking, durable};

/// From this many files on, one `syncfs` is cheaper than a sync of each.
///
/// It also waits for writes of other programs to that filesystem, so it is not worth it for few files.
const SYNC_TOGETHER: usize = 12;

pub(super) async fn publish(shared: &Arc<Shared>, blocks: Vec<Block>) -> Result<Published> {
    if blocks.len() <= shared.most_files {
        let permit = permits(shared, blocks.len()).await?;
        return publish_batch(shared, blocks, permit).await;
    }
    // More than may be open at once: they are written in parts, and none is kept open for a proof.
    let mut blocks = blocks.into_iter();
    loop {
        let part: Vec<Block> = blocks.by_ref().take(shared.most_files).collect();
        if part.is_empty() {
            return Ok(Published::without_proof());
        }
        let permit = permits(shared, part.len()).await?;
        publish_batch(shared, part, permit).await?;
    }
}

async fn permits(shared: &Shared, count: usize) -> Result<OwnedSemaphorePermit> {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let permit = Arc::clone(&shared.files).acquire_many_owned(count).await;
    permit.map_err(|_| Error::new(Code::Closed, "the block store is closed"))
}

async fn publish_batch(
    shared: &Arc<Shared>,
    blocks: Vec<Block>,
    permit: OwnedSemaphorePermit,
) -> Result<Published> {
    let opening = Arc::clone(shared);
    shared
        .writable
        .get_or_try_init(|| async { blocking::run(move || opening.open_to_write()).await? })
        .await?;

    // The kernel reports a failed write once for each open directory. So each batch has its own, opened
    // before its first byte: no other batch can take the report away (Linux 5.8 and later, syncfs(2)).
    let barrier = if shared.durable && blocks.len() >= SYNC_TOGETHER {
        Some(open_temporary(&shared.blocks)?)
    } else {
        None
    };
    let few = blocks.len() < 4;
    let shards = if few { 1 } else { blocking::cores() };
    let mut rest = blocks;
    let mut writing = Vec::new();
    for left in (2..=shards).rev() {
        let part = rest.split_off(rest.len() - rest.len() / left);
        let shared = Arc::clone(shared);
        writing.push(Task::blocking(move || shared.write(part)));
    }
    let here = Arc::clone(shared);
    if few {
        return blocking::run(move || here.finish(here.write(rest)?, None, permit)).await?;
    }
    let mut fresh = blocking::run(move || here.write(rest)).await??;
    for part in writing {
        fresh.extend(part.join().await??);
    }
    let here = Arc::clone(shared);
    blocking::run(move || here.finish(fresh, barrier, permit)).await?
}

impl Shared {
    fn writable(&self) -> Result<&Writable> {
        self.writable
            .get()
            .ok_or_else(|| Error::new(Code::Internal, "blocks are written before the directory is open"))
    }

    fn open_to_write(&self) -> Result<Writable> {
        let path = self.blocks.join(TEMPORARY);
        durable::create_directory(&path)?;
        // Another process may have made these and died before it synced them.
        let above = self.root.parent().unwrap_or(&self.root);
        for directory in self.blocks.ancestors().take_while(|directory| directory.starts_with(above)) {
            durable::sync_directory(directory)?;
        }
        let open = |algo: Algo| {
            let path = self.blocks.join(algo.name());
            durable::create_directory(&path)?;
            OpenDirectory::open_existing(&path)
        };
        let [blake3, sha256] = Algo::ALL.map(open);
        let temporary = open_temporary(&self.blocks)?;
        remove_leftovers(&self.blocks)?;
        Ok(Writable {
            temporaries: Temporaries::new(temporary, self.named_temporaries.load(Ordering::Relaxed)),
            algo: [blake3?, sha256?],
        })
    }

    /// Fails if a directory for new files no longer exists, or is not writable. A put creates a directory
    /// that never existed.
    pub(super) fn check_directories(&self) -> Result<()> {
        let writable = self.writable.get();
        for name in [TEMPORARY, Algo::Blake3.name(), Algo::Sha256.name()] {
            let path = self.blocks.join(name);
            match retry_on_intr(|| access(&path, Access::WRITE_OK)) {
                Ok(()) => {}
                Err(Errno::NOENT) if writable.is_none() => {}
                Err(error) => return Err(Error::io_at("cannot write in", &path, error.into())),
            }
        }
        writable.map_or(Ok(()), |writable| writable.algo.iter().try_for_each(OpenDirectory::check_in_place))
    }

    /// Step 1.
    fn write(&self, blocks: Vec<Block>) -> Result<Vec<Fresh>> {
        let temporaries = &self.writable()?.temporaries;
        blocks
            .into_iter()
            .map(|Block { key, bytes }| {
                let mut fresh = temporaries.create(key).map_err(|error| self.failed(&key, error))?;
                fresh.file.write_all(&bytes).map_err(|error| self.failed(&key, error))?;
                Ok(fresh)
            })
            .collect()
    }

    /// Steps 2 to 4.
    fn finish(
        self: &Arc<Self>,
        mut fresh: Vec<Fresh>,
        barrier: Option<OwnedFd>,
        permit: OwnedSemaphorePermit,
    ) -> Result<Published> {
        if self.durable {
            self.sync_data(&fresh, barrier)?;
        }
        let Writable { temporaries, algo: directories } = self.writable()?;
        let mut touched = [false; Algo::ALL.len()];
        for one in &mut fresh {
            let (key, algo) = (one.key, one.key.algo() as usize);
            temporaries.name(one, &directories[algo]).map_err(|error| self.failed(&key, error))?;
            touched[algo] = true;
        }
        for algo in Algo::ALL.into_iter().filter(|algo| touched[*algo as usize]) {
            let directory = &directories[algo as usize];
            if self.durable {
                durable::sync_open_directory(directory)
                    .map_err(|error| self.failed_sync(algo.name(), error))?;
            }
            directory.check_in_place()?;
        }
        self.proof(fresh, permit)
    }

    fn sync_data(&self, fresh: &[Fresh], barrier: Option<OwnedFd>) -> Result<()> {
        if let Some(barrier) = barrier
            && durable::sync_filesystem(&barrier).map_err(|error| self.failed_sync("", error))?
        {
            return Ok(());
        }
        for Fresh { file, key, .. } in fresh {
            retry_on_intr(|| rustix::fs::fdatasync(file))
                .map_err(|error| self.failed_sync(&key.name(), error))?;
        }
        Ok(())
    }

    /// The files stay open with the proof, so that no other file can get their inode numbers: an equal number
    /// under the name means the same file.
    fn proof(self: &Arc<Self>, fresh: Vec<Fresh>, permit: OwnedSemaphorePermit) -> Result<Published> {
        let mut inodes = HashMap::with_capacity(fresh.len());
        for Fresh { key, file, .. } in fresh {
            let inode = again(|| file.metadata()).map_err(|error| self.failed(&key, error))?.ino();
            inodes.insert(key, (inode, file));
        }
        let shared = Arc::clone(self);
        Ok(Published::proven_by(move |key| {
            let _open = &permit;
            let now = shared.file(key).ok().flatten().map(|(_, inode)| inode);
            now.is_some() && now == inodes.get(key).map(|(inode, _)| *inode)
        }))
    }

    fn failed(&self, key: &BlockKey, error: std::io::Error) -> Error {
        if error.kind() == std::io::ErrorKind::StorageFull && self.has_room() {
            let directory = self.blocks.join(key.algo().name());
            let why = format!(
                "cannot write the block {}: the directory takes no more files, although the disk has room",
                self.path(key).display()
            );
            return Error::new(Code::NoSpace, why).with_errno(Errno::NOSPC.raw_os_error()).with_advice(format!(
                "let ext4 make the index of {} larger (tune2fs -O large_dir, on the unmounted filesystem), use another \
                 filesystem, or larger blocks (GRAVITON_CHUNKER)",
                directory.display()
            ));
        }
        let error = Error::io_at("cannot write the block", self.path(key), error);
        // A directory that vanished must not look like a blob that was not found.
        if error.code() == Code::NotFound { error.with_code(Code::BackendUnavailable) } else { error }
    }

    /// Whether a disk that is reported full has bytes and inodes for another block.
    fn has_room(&self) -> bool {
        let disk = rustix::fs::statvfs(&self.blocks);
        // A filesystem without an inode limit reports 0 of 0.
        disk.is_ok_and(|disk| {
            disk.f_bavail * disk.f_frsize > 64 << 20 && (disk.f_ffree > 0 || disk.f_files == 0)
        })
    }

    fn failed_sync(&self, name: &str, error: Errno) -> Error {
        Error::io_at("cannot sync", self.blocks.join(name), error.into())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::block::{BlockStore, fs::FsBlockStore};

    #[tokio::test]
    async fn a_file_gets_its_name_in_either_way() {
        let directory = tempfile::tempdir().unwrap();
        let store = FsBlockStore::new(directory.path(), "blocks", true);
        store.put(Vec::new()).await.unwrap();
        for through_proc in [false, true] {
            store.0.writable().unwrap().temporaries.through_proc.store(through_proc, Ordering::Relaxed);
            let bytes = Bytes::from(format!("through /proc: {through_proc}"));
            let key = BlockKey::of(Algo::Blake3, &bytes).unwrap();
            // The second time it replaces a file.
            for _ in 0..2 {
                store.put(vec![Block { key, bytes: bytes.clone() }]).await.unwrap();
                assert_eq!(store.get(&key, None).await.unwrap(), bytes);
            }
        }
    }
}
