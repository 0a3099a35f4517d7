//! Writes a blob piece by piece.

use std::io::Write;

use graviton_core::{Error, PutOptions, Writer};

use crate::blob_id::{graviton_blob_id, read_id_if_given};
use crate::error::graviton_error;
use crate::guard::guard;
use crate::pointer::{borrow, free, invalid, out, slice};
use crate::reports::graviton_put_receipt;
use crate::status::graviton_status;
use crate::sticky::Sticky;
use crate::store::{graviton_store, session_of};
use crate::versioned::versioned_out;

/// A blob being written. Owned; free it with graviton_writer_free, which aborts an unfinished blob. One
/// thread at a time: a second one gets GRAVITON_ERROR_INVALID_ARGUMENT.
pub struct graviton_writer {
    /// None once it is finished.
    open: Sticky<Option<Writer>>,
}

fn finished() -> Error {
    invalid("this writer is finished").with_advice("open another one")
}

/// Opens a writer. With `expected`, only content with this id is committed; other content is
/// GRAVITON_ERROR_DIGEST_MISMATCH. `expected` may be NULL. Free it with graviton_writer_free, before or after
/// the store. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_writer_open(
    store: *const graviton_store,
    expected: *const graviton_blob_id,
    writer: *mut *mut graviton_writer,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let out = out(writer, "writer")?;
            let expected = read_id_if_given(expected, "expected")?;
            let session = session_of(store, "store")?;
            let writer = session.run(|store| store.put_with(&PutOptions::new().expect(expected)).writer())?;
            out.give(graviton_writer { open: Sticky::new(session, "writer", Some(writer)) });
            Ok(())
        })
    }
}

/// Writes the next `length` bytes of the blob: all of them, or it fails. `bytes` may be NULL if `length` is
/// 0. After an error, every later call on this writer returns it again, and the writer can only be freed; an
/// invalid argument, or use by two threads at once, does not count. Blocks while the store is slower than the
/// caller.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_writer_write(
    writer: *mut graviton_writer,
    bytes: *const u8,
    length: usize,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let bytes = slice(bytes, length, "bytes")?;
            borrow(writer, "writer")?
                .open
                .with(|writer| Ok(writer.as_mut().ok_or_else(finished)?.write_all(bytes)?))
        })
    }
}

/// The number of bytes written so far, into `*size`. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_writer_size(
    writer: *const graviton_writer,
    size: *mut u64,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let out = out(size, "size")?;
            out.set(
                borrow(writer, "writer")?
                    .open
                    .with(|writer| Ok(writer.as_ref().ok_or_else(finished)?.size()))?,
            );
            Ok(())
        })
    }
}

/// Commits the blob: when this returns, it is visible, and as durable as the store is configured. The writer
/// can then only be freed; writing to it is GRAVITON_ERROR_INVALID_ARGUMENT. `receipt` may be NULL. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_writer_finish(
    writer: *mut graviton_writer,
    receipt: *mut graviton_put_receipt,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let out = versioned_out(receipt)?;
            let receipt =
                borrow(writer, "writer")?.open.with(|writer| writer.take().ok_or_else(finished)?.finish())?;
            if let Some(out) = out {
                out.set(&(&receipt).into());
            }
            Ok(())
        })
    }
}

/// Frees a writer; an unfinished blob is aborted and leaves nothing. NULL is fine. In a forked child it only
/// forgets the handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_writer_free(writer: *mut graviton_writer) {
    // SAFETY: the caller keeps to the header.
    unsafe { free(writer) }
}
