//! Reading a blob: in order, from any offset, and at any offset from many threads.

use std::io::{BufRead, Seek, SeekFrom};

use graviton_core::Reader;

use crate::blob_id::{graviton_blob_id, read_id};
use crate::error::graviton_error;
use crate::guard::guard;
use crate::pointer::{borrow, free, invalid, out, out_if_wanted, room};
use crate::status::graviton_status;
use crate::sticky::Sticky;
use crate::store::{graviton_store, session_of};

/// For graviton_reader_seek: the offset is from the start of the blob. Equal to SEEK_SET of C.
pub const GRAVITON_SEEK_SET: i32 = 0;

/// For graviton_reader_seek: the offset is from the position. Equal to SEEK_CUR of C.
pub const GRAVITON_SEEK_CUR: i32 = 1;

/// For graviton_reader_seek: the offset is from the end of the blob. Equal to SEEK_END of C.
pub const GRAVITON_SEEK_END: i32 = 2;

/// A blob being read: verified bytes. Owned; free it with graviton_reader_free. Any number of threads may
/// call graviton_reader_read_at at once. Calls that use the position are for one thread at a time, beside
/// those; a second thread gets GRAVITON_ERROR_INVALID_ARGUMENT. It works for the grace period after the blob
/// was deleted.
pub struct graviton_reader {
    /// For reads at an offset, which share nothing with the other.
    anywhere: Reader,
    in_order: Sticky<Reader>,
}

/// Opens a blob for reading. GRAVITON_ERROR_NOT_FOUND if there is no such blob. Free it with
/// graviton_reader_free, before or after the store. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_reader_open(
    store: *const graviton_store,
    id: *const graviton_blob_id,
    reader: *mut *mut graviton_reader,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let out = out(reader, "reader")?;
            let id = read_id(id, "id")?;
            let session = session_of(store, "store")?;
            let reader = session.run(|store| store.reader(&id))?;
            let anywhere = reader.another();
            out.give(graviton_reader { anywhere, in_order: Sticky::new(session, "reader", reader) });
            Ok(())
        })
    }
}

/// Reads the next bytes into `buffer` of `capacity` bytes, and writes their number to `*count`: 0 only at the
/// end of the blob (or for a `capacity` of 0), otherwise at least one and often fewer than `capacity`, like
/// read(2). `buffer` may be NULL if `capacity` is 0. After an error, every later call that uses the position
/// returns it again; an invalid argument, or use by two threads at once, does not count. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_reader_read(
    reader: *mut graviton_reader,
    buffer: *mut u8,
    capacity: usize,
    count: *mut usize,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let out = out(count, "count")?;
            let room = room(buffer, capacity, "buffer")?;
            let count = borrow(reader, "reader")?.in_order.with(|reader| {
                if capacity == 0 {
                    return Ok(0);
                }
                let bytes = reader.fill_buf()?;
                let count = bytes.len().min(capacity);
                room.fill(0, &bytes[..count]);
                reader.consume(count);
                Ok(count)
            })?;
            out.set(count);
            Ok(())
        })
    }
}

/// Reads bytes at an offset into `buffer` of `length` bytes, and writes their number to `*count`: less than
/// `length` only at the end of the blob, 0 beyond it. Like pread(2), it neither uses nor moves the position;
/// an error leaves the reader usable. From any number of threads at once. `buffer` may be NULL if `length` is
/// 0. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_reader_read_at(
    reader: *const graviton_reader,
    offset: u64,
    buffer: *mut u8,
    length: usize,
    count: *mut usize,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let out = out(count, "count")?;
            let mut room = room(buffer, length, "buffer")?;
            let reader = borrow(reader, "reader")?;
            out.set(reader.in_order.session().run(|_| reader.anywhere.read_at(offset, room.all()))?);
            Ok(())
        })
    }
}

/// Moves the position to `offset` bytes from `whence` (GRAVITON_SEEK_…), and writes the new position, from
/// the start, to `*position`. A position beyond the end is allowed; nothing is read there. One before the
/// start is GRAVITON_ERROR_INVALID_ARGUMENT. `position` may be NULL. It reads nothing. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_reader_seek(
    reader: *mut graviton_reader,
    offset: i64,
    whence: i32,
    position: *mut u64,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let out = out_if_wanted(position, "position")?;
            let handle = borrow(reader, "reader")?;
            let base = match whence {
                GRAVITON_SEEK_SET => 0,
                GRAVITON_SEEK_CUR => handle.in_order.with(|reader| Ok(reader.stream_position()?))?,
                GRAVITON_SEEK_END => handle.anywhere.size(),
                _ => {
                    return Err(invalid(format!("whence is {whence}"))
                        .with_advice("use GRAVITON_SEEK_SET, GRAVITON_SEEK_CUR or GRAVITON_SEEK_END")
                        .into());
                }
            };
            let target = base.checked_add_signed(offset).ok_or_else(|| {
                invalid(format!("cannot seek to {base} {offset:+} of blob {}", handle.anywhere.id()))
            })?;
            handle.in_order.with(|reader| Ok(reader.seek(SeekFrom::Start(target))?))?;
            if let Some(out) = out {
                out.set(target);
            }
            Ok(())
        })
    }
}

/// The position, in bytes from the start of the blob, into `*position`. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_reader_tell(
    reader: *const graviton_reader,
    position: *mut u64,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let out = out(position, "position")?;
            out.set(borrow(reader, "reader")?.in_order.with(|reader| Ok(reader.stream_position()?))?);
            Ok(())
        })
    }
}

/// The size of the blob in bytes, into `*size`. From any thread. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_reader_size(
    reader: *const graviton_reader,
    size: *mut u64,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let out = out(size, "size")?;
            let reader = borrow(reader, "reader")?;
            reader.in_order.session().check()?;
            out.set(reader.anywhere.size());
            Ok(())
        })
    }
}

/// The id of the blob, into `*id`. From any thread. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_reader_id(
    reader: *const graviton_reader,
    id: *mut graviton_blob_id,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let out = out(id, "id")?;
            let reader = borrow(reader, "reader")?;
            reader.in_order.session().check()?;
            out.set(reader.anywhere.id().into());
            Ok(())
        })
    }
}

/// Frees a reader. NULL is fine. No other thread may be using it. In a forked child it only forgets the
/// handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_reader_free(reader: *mut graviton_reader) {
    // SAFETY: the caller keeps to the header.
    unsafe { free(reader) }
}
