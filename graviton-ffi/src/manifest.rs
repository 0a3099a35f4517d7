//! The blocks of a blob, one by one.

use std::collections::VecDeque;
use std::sync::Mutex;

use graviton_core::{BlobId, ManifestEntry};

use crate::blob_id::{graviton_blob_id, graviton_block_key, read_id};
use crate::error::graviton_error;
use crate::guard::guard;
use crate::pointer::{borrow, exclusive, free, out};
use crate::session::Session;
use crate::status::graviton_status;
use crate::store::{graviton_store, session_of};

/// How many are requested at once.
const PAGE: usize = 512;

/// The position of a block in a blob. Plain data of a fixed size that will never grow.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct graviton_manifest_entry {
    /// Where the block starts in the blob, in bytes.
    pub offset: u64,
    /// The block; its size is in the key.
    pub key: graviton_block_key,
}

/// An iterator over the blocks of a blob. Owned; free it with graviton_manifest_free. One thread at a time: a
/// second one gets GRAVITON_ERROR_INVALID_ARGUMENT.
pub struct graviton_manifest {
    session: Session,
    id: BlobId,
    walk: Mutex<Walk>,
}

struct Walk {
    page: VecDeque<ManifestEntry>,
    from: u64,
}

/// Iterates over the blocks of a blob in order, from the one that holds the byte at `from`.
/// GRAVITON_ERROR_NOT_FOUND if there is no such blob. Free it with graviton_manifest_free. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_manifest_open(
    store: *const graviton_store,
    id: *const graviton_blob_id,
    from: u64,
    manifest: *mut *mut graviton_manifest,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let out = out(manifest, "manifest")?;
            let id = read_id(id, "id")?;
            let session = session_of(store, "store")?;
            let page: VecDeque<_> = session.run(|store| store.manifest(&id, from, PAGE))?.into();
            let from = page.back().map_or(id.size(), ManifestEntry::end);
            let walk = Mutex::new(Walk { page, from });
            out.give(graviton_manifest { session: session.clone(), id, walk });
            Ok(())
        })
    }
}

/// The next block: `*found` becomes 1 and `entry` is filled in, or `*found` becomes 0 at the end and `entry`
/// stays as it is. After an error it can be called again. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_manifest_next(
    manifest: *mut graviton_manifest,
    entry: *mut graviton_manifest_entry,
    found: *mut i32,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let (entry, found) = (out(entry, "entry")?, out(found, "found")?);
            let manifest = borrow(manifest, "manifest")?;
            manifest.session.check()?;
            let mut walk = exclusive(&manifest.walk, "manifest")?;
            if walk.page.is_empty() && walk.from < manifest.id.size() {
                let page = manifest.session.run(|store| store.manifest(&manifest.id, walk.from, PAGE))?;
                walk.from = page.last().map_or(manifest.id.size(), ManifestEntry::end);
                walk.page = page.into();
            }
            let next = walk.page.pop_front();
            found.set(i32::from(next.is_some()));
            if let Some(next) = next {
                entry.set(graviton_manifest_entry { offset: next.offset, key: (&next.key).into() });
            }
            Ok(())
        })
    }
}

/// Frees an iterator. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_manifest_free(manifest: *mut graviton_manifest) {
    // SAFETY: the caller keeps to the header.
    unsafe { free(manifest) }
}
