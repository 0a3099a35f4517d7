//! Whole blobs going in: from memory, a file descriptor, a path or a callback.

use std::cell::Cell;
use std::ffi::{c_char, c_void};
use std::fs::File;
use std::io::{self, Read};

use graviton_core::{BlobId, Code, Error, PutReceipt, Result};

use crate::blob_id::{graviton_blob_id, read_id_if_given};
use crate::callback::{
    GRAVITON_SIZE_UNKNOWN, Progress, Userdata, cancelled, graviton_progress_callback, graviton_read_callback,
};
use crate::descriptor::Descriptor;
use crate::error::graviton_error;
use crate::panic::{Outcome, guard};
use crate::pointer::{Versioned, borrow, invalid, path, slice, versioned, versioned_out};
use crate::session::Session;
use crate::status::graviton_status;
use crate::store::graviton_store;

/// What a put did. Set `struct_size` before a call, with GRAVITON_PUT_RECEIPT_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct graviton_put_receipt {
    /// sizeof(graviton_put_receipt).
    pub struct_size: usize,
    /// The id under which the content can be read.
    pub id: graviton_blob_id,
    /// How many blocks the content was cut into.
    pub blocks: u64,
    /// How many of them were not in the store before and were written.
    pub fresh_blocks: u64,
    /// The bytes of those.
    pub fresh_bytes: u64,
    /// 1 if the blob is new, 0 if it was there already.
    pub created: i32,
    /// 0.
    pub reserved: u32,
}

// SAFETY: begins with its size, and numbers are valid for any bytes.
unsafe impl Versioned for graviton_put_receipt {
    const NAME: &'static str = "graviton_put_receipt";
}

impl From<&PutReceipt> for graviton_put_receipt {
    fn from(receipt: &PutReceipt) -> graviton_put_receipt {
        graviton_put_receipt {
            struct_size: size_of::<graviton_put_receipt>(),
            id: (&receipt.id).into(),
            blocks: receipt.blocks,
            fresh_blocks: receipt.fresh_blocks,
            fresh_bytes: receipt.fresh_bytes,
            created: i32::from(receipt.created),
            reserved: 0,
        }
    }
}

/// How to put. Initialise it with GRAVITON_PUT_OPTIONS_INIT, then set what is wanted.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct graviton_put_options {
    /// sizeof(graviton_put_options).
    pub struct_size: usize,
    /// The id that the content must have; any other is GRAVITON_ERROR_DIGEST_MISMATCH and stores nothing. NULL: any content.
    pub expected: *const graviton_blob_id,
    /// Told how far it is; NULL for nobody.
    pub progress: graviton_progress_callback,
    /// For the callback.
    pub progress_userdata: *mut c_void,
}

// SAFETY: begins with its size, and pointers and nullable functions are valid for any bytes that a caller may put there.
unsafe impl Versioned for graviton_put_options {
    const NAME: &'static str = "graviton_put_options";
}

/// What is left of the options, checked.
struct Wanted {
    expected: Option<BlobId>,
    progress: graviton_progress_callback,
    userdata: *mut c_void,
}

/// # Safety
/// As [`versioned`].
unsafe fn wanted(options: *const graviton_put_options) -> Result<Wanted> {
    // SAFETY: the same contract.
    unsafe {
        let Some(options) = versioned(options)? else {
            return Ok(Wanted { expected: None, progress: None, userdata: std::ptr::null_mut() });
        };
        let expected = read_id_if_given(options.expected, "expected")?;
        Ok(Wanted { expected, progress: options.progress, userdata: options.progress_userdata })
    }
}

/// A source that tells how far it is.
struct Watched<'a, R> {
    source: R,
    progress: &'a mut Progress,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        if count > 0 {
            self.progress.advance(count)?;
        }
        Ok(count)
    }
}

fn put(session: &Session, source: impl Read, total: u64, wanted: &Wanted) -> Outcome<graviton_put_receipt> {
    let mut progress = Progress::new(wanted.progress, wanted.userdata, total);
    let put = session.run(|store| {
        let source = Watched { source, progress: &mut progress };
        match &wanted.expected {
            Some(id) => store.put_expecting(id, source),
            None => store.put(source),
        }
    });
    put.as_ref().map(Into::into).map_err(|failure| failure.or_code(progress.code))
}

/// Puts `length` bytes from memory. `bytes` may be NULL if `length` is 0: the empty blob. `options` may be NULL. `receipt`
/// may be NULL. Nothing is visible before this returns, and nothing at all if it fails. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_store_put(
    store: *const graviton_store,
    bytes: *const u8,
    length: usize,
    options: *const graviton_put_options,
    receipt: *mut graviton_put_receipt,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let (wanted, out) = (wanted(options)?, versioned_out(receipt)?);
            let source = slice(bytes, length, "bytes")?;
            let receipt = put(borrow(store, "store")?.session(), source, length as u64, &wanted)?;
            if let Some(out) = out {
                out.set(receipt);
            }
            Ok(())
        })
    }
}

/// Puts everything from a file descriptor's place to its end, and does not close it. A pipe or socket works, also in
/// non-blocking mode; while it is silent and in blocking mode, no callback is asked. `options` may be NULL. `receipt` may be
/// NULL. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_store_put_fd(
    store: *const graviton_store,
    fd: i32,
    options: *const graviton_put_options,
    receipt: *mut graviton_put_receipt,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let (wanted, out) = (wanted(options)?, versioned_out(receipt)?);
            let source = Descriptor::new(fd)?;
            let total = source.remaining().unwrap_or(GRAVITON_SIZE_UNKNOWN);
            let receipt = put(borrow(store, "store")?.session(), source, total, &wanted)?;
            if let Some(out) = out {
                out.set(receipt);
            }
            Ok(())
        })
    }
}

/// Puts the content of a file: `path` of `path_length` bytes, in any encoding. `options` may be NULL. `receipt` may be NULL.
/// A file that is not there is GRAVITON_ERROR_NOT_FOUND. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_store_put_path(
    store: *const graviton_store,
    path: *const c_char,
    path_length: usize,
    options: *const graviton_put_options,
    receipt: *mut graviton_put_receipt,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let (wanted, out) = (wanted(options)?, versioned_out(receipt)?);
            let path = self::path(path, path_length, "path")?;
            let session = borrow(store, "store")?.session();
            session.check()?;
            let failed = |error| Error::io(format!("cannot read {}", path.display()), error);
            let file = File::open(path).map_err(failed)?;
            let about = file.metadata().map_err(failed)?;
            if about.is_dir() {
                return Err(invalid(format!("cannot read {}: it is a directory", path.display())).into());
            }
            let total = if about.is_file() { about.len() } else { GRAVITON_SIZE_UNKNOWN };
            let receipt = put(session, file, total, &wanted)?;
            if let Some(out) = out {
                out.set(receipt);
            }
            Ok(())
        })
    }
}

/// The program's own function as a source.
struct Called<'a> {
    callback: unsafe extern "C" fn(*mut c_void, *mut u8, usize, *mut usize) -> i32,
    userdata: Userdata,
    /// What the callback returned.
    code: &'a Cell<i32>,
}

impl Read for Called<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut count = 0;
        // SAFETY: the caller gave both for this call; the buffer has so many bytes.
        let code = unsafe {
            (self.callback)(self.userdata.get(), buffer.as_mut_ptr(), buffer.len(), &raw mut count)
        };
        if code != 0 {
            self.code.set(code);
            return Err(cancelled("read").into());
        }
        if count > buffer.len() {
            let why = format!(
                "the read callback says that it gave {count} bytes, and there was room for {}",
                buffer.len()
            );
            return Err(Error::new(Code::InvalidArgument, why).into());
        }
        Ok(count)
    }
}

/// Puts what a callback gives, until it gives nothing. `userdata` may be NULL. `options` may be NULL. `receipt` may be NULL.
/// A callback that aborts stores nothing. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_store_put_callback(
    store: *const graviton_store,
    read: graviton_read_callback,
    userdata: *mut c_void,
    options: *const graviton_put_options,
    receipt: *mut graviton_put_receipt,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let (wanted, out) = (wanted(options)?, versioned_out(receipt)?);
            let callback = read.ok_or_else(|| invalid("read is NULL").with_advice("pass a function"))?;
            let code = Cell::new(0);
            let source = Called { callback, userdata: Userdata(userdata), code: &code };
            let receipt = put(borrow(store, "store")?.session(), source, GRAVITON_SIZE_UNKNOWN, &wanted)
                .map_err(|failure| failure.or_code(code.get()))?;
            if let Some(out) = out {
                out.set(receipt);
            }
            Ok(())
        })
    }
}
