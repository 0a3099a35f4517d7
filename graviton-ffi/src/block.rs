//! Single blocks.

use crate::blob_id::{graviton_block_key, read_key};
use crate::error::graviton_error;
use crate::guard::guard;
use crate::pointer::{invalid, out_if_wanted, room};
use crate::status::graviton_status;
use crate::store::{graviton_store, session_of};

/// Reads a whole block, verified, into `bytes` and writes its length to `*count`. A `capacity` below the
/// `size` in its key is GRAVITON_ERROR_INVALID_ARGUMENT, a block that is not stored GRAVITON_ERROR_NOT_FOUND.
/// This is for programs that compare stores or inspect manifests; read blobs with a graviton_reader. A block
/// that no blob references may be collected at any moment. `count` may be NULL. After an error the content of
/// `bytes` is undefined. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_store_read_block(
    store: *const graviton_store,
    key: *const graviton_block_key,
    bytes: *mut u8,
    capacity: usize,
    count: *mut usize,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let (key, out) = (read_key(key)?, out_if_wanted(count, "count")?);
            let room = room(bytes, capacity, "bytes")?;
            if room.length < key.size() {
                return Err(invalid(format!(
                    "the buffer has {capacity} bytes, and block {key} has {}",
                    key.size()
                ))
                .with_advice("pass a larger buffer")
                .into());
            }
            let block = session_of(store, "store")?.run(|store| store.block(&key))?;
            room.fill(0, &block);
            if let Some(out) = out {
                out.set(block.len());
            }
            Ok(())
        })
    }
}
