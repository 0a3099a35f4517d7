//! Reads a whole blob, or a range of one, into the caller's memory or file descriptor.

use std::ffi::c_void;

use graviton_core::{Code, Error, Result};

use crate::blob_id::{graviton_blob_id, read_id};
use crate::callback::{Progress, graviton_progress_callback};
use crate::descriptor::Descriptor;
use crate::error::graviton_error;
use crate::guard::guard;
use crate::pointer::{invalid, out, out_if_wanted, room};
use crate::status::graviton_status;
use crate::store::{graviton_store, session_of};
use crate::versioned::{Versioned, versioned};

/// Options of a get. Initialise it with GRAVITON_GET_OPTIONS_INIT, then set fields.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct graviton_get_options {
    /// sizeof(graviton_get_options).
    pub struct_size: usize,
    /// The progress callback, or NULL.
    pub progress: graviton_progress_callback,
    /// The first argument of the callback.
    pub progress_userdata: *mut c_void,
}

// SAFETY: begins with its size; pointers and nullable functions are valid for any bytes that a caller may put
// there.
unsafe impl Versioned for graviton_get_options {
    const NAME: &'static str = "graviton_get_options";
}

/// # Safety
/// As [`versioned`].
unsafe fn progress(options: *const graviton_get_options, total: u64) -> Result<Progress> {
    // SAFETY: the same contract.
    Ok(match unsafe { versioned(options)? } {
        Some(options) => Progress::new(options.progress, options.progress_userdata, total),
        None => Progress::new(None, std::ptr::null_mut(), total),
    })
}

/// Reads a whole blob into `bytes` and writes its length to `*count`. A `capacity` below the `size` in its id
/// is GRAVITON_ERROR_INVALID_ARGUMENT. `bytes` may be NULL if `capacity` is 0. `options` may be NULL. `count`
/// may be NULL. Bytes that the progress callback counts are already there. After an error the content of
/// `bytes` is undefined. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_store_get(
    store: *const graviton_store,
    id: *const graviton_blob_id,
    bytes: *mut u8,
    capacity: usize,
    options: *const graviton_get_options,
    count: *mut usize,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let (id, out) = (read_id(id, "id")?, out_if_wanted(count, "count")?);
            let mut progress = progress(options, id.size())?;
            let room = room(bytes, capacity, "bytes")?;
            let session = session_of(store, "store")?;
            session.check()?;
            let size = usize::try_from(id.size()).ok().filter(|size| *size <= capacity).ok_or_else(|| {
                invalid(format!("the buffer has {capacity} bytes, and blob {id} has {}", id.size()))
                    .with_advice("pass a larger buffer, or read it as a stream")
            })?;
            let got = session.run(|store| {
                let (mut reader, mut filled) = (store.reader(&id)?, 0);
                while let Some(bytes) = reader.next_block()? {
                    room.fill(filled, &bytes);
                    filled += bytes.len();
                    progress.advance(bytes.len())?;
                }
                if filled == size {
                    return Ok(());
                }
                Err(Error::new(Code::Internal, format!("blob {id} ended after {filled} bytes")))
            });
            got.map_err(|failure| failure.or_code(progress.code))?;
            if let Some(out) = out {
                out.set(size);
            }
            Ok(())
        })
    }
}

/// Writes a whole blob to a file descriptor at its current position, and does not close it. Pipes, sockets
/// and devices work, also in non-blocking mode; while they accept nothing, the cancel callback can end the
/// call, and so does closing the store. A closed pipe raises SIGPIPE as any write does. A descriptor that is
/// not open, or a directory, is GRAVITON_ERROR_INVALID_ARGUMENT. After an error some bytes of the blob may
/// have been written, and no other bytes. `options` may be NULL. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_store_get_fd(
    store: *const graviton_store,
    id: *const graviton_blob_id,
    fd: i32,
    options: *const graviton_get_options,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let id = read_id(id, "id")?;
            let mut progress = progress(options, id.size())?;
            let session = session_of(store, "store")?;
            session.check()?;
            let place = Descriptor::new(fd)?;
            let got = session.run_waiting(|store, waiting| {
                let mut reader = store.reader(&id)?;
                while let Some(bytes) = reader.next_block()? {
                    place.write_all(&bytes, waiting)?;
                    progress.advance(bytes.len())?;
                }
                Ok(())
            });
            got.map_err(|failure| failure.or_code(progress.code))
        })
    }
}

/// Reads up to `length` bytes of a blob from `offset` into `bytes`, and writes their number to `*count`: less
/// than `length` only at the end of the blob. An `offset` beyond the end is
/// GRAVITON_ERROR_RANGE_NOT_SATISFIABLE. Reads only the blocks that hold these bytes. For several ranges of a
/// blob, graviton_reader_read_at is faster. `bytes` may be NULL if `length` is 0. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_store_read_range(
    store: *const graviton_store,
    id: *const graviton_blob_id,
    offset: u64,
    bytes: *mut u8,
    length: usize,
    count: *mut usize,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let (id, out) = (read_id(id, "id")?, out(count, "count")?);
            let mut room = room(bytes, length, "bytes")?;
            let read = session_of(store, "store")?.run(|store| {
                let reader = store.reader(&id)?;
                if offset > id.size() {
                    let why = format!("blob {id} has no byte {offset}");
                    return Err(Error::new(Code::RangeNotSatisfiable, why)
                        .with_advice(format!("it has {} bytes", id.size())));
                }
                reader.read_at(offset, room.all())
            })?;
            out.set(read);
            Ok(())
        })
    }
}
