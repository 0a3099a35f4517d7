//! Puts of whole blobs: from memory, a file descriptor, a path or a callback.

use std::cell::Cell;
use std::ffi::{c_char, c_void};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use graviton_core::{BlobId, Code, Error, PutOptions, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::blob_id::{graviton_blob_id, read_id_if_given};
use crate::callback::{
    GRAVITON_SIZE_UNKNOWN, Progress, Userdata, cancelled, graviton_progress_callback, graviton_read_callback,
};
use crate::descriptor::Descriptor;
use crate::error::graviton_error;
use crate::guard::guard;
use crate::panic::Outcome;
use crate::pointer::{invalid, path, slice};
use crate::reports::graviton_put_receipt;
use crate::session::{Session, Waiting};
use crate::status::graviton_status;
use crate::store::{graviton_store, session_of};
use crate::versioned::{Versioned, versioned, versioned_out};

/// Options of a put. Initialise it with GRAVITON_PUT_OPTIONS_INIT, then set fields.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct graviton_put_options {
    /// sizeof(graviton_put_options).
    pub struct_size: usize,
    /// The id that the content must have; other content is GRAVITON_ERROR_DIGEST_MISMATCH and stores nothing.
    /// NULL: any content.
    pub expected: *const graviton_blob_id,
    /// The progress callback, or NULL.
    pub progress: graviton_progress_callback,
    /// The first argument of the callback.
    pub progress_userdata: *mut c_void,
}

// SAFETY: begins with its size; pointers and nullable functions are valid for any bytes that a caller may put
// there.
unsafe impl Versioned for graviton_put_options {
    const NAME: &'static str = "graviton_put_options";
}

/// The options after the checks.
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

/// The source of a put's bytes.
trait Source {
    /// The number of bytes, if it is known.
    fn total(&self) -> u64;
    /// Some of the bytes; none at the end.
    fn read(&mut self, buffer: &mut [u8], waiting: &Waiting<'_>) -> io::Result<usize>;
}

impl Source for &[u8] {
    fn total(&self) -> u64 {
        self.len() as u64
    }

    fn read(&mut self, buffer: &mut [u8], _waiting: &Waiting<'_>) -> io::Result<usize> {
        Read::read(self, buffer)
    }
}

impl Source for Descriptor<'_> {
    fn total(&self) -> u64 {
        self.remaining().unwrap_or(GRAVITON_SIZE_UNKNOWN)
    }

    fn read(&mut self, buffer: &mut [u8], waiting: &Waiting<'_>) -> io::Result<usize> {
        Ok(Descriptor::read(self, buffer, waiting)?)
    }
}

/// A source that reports its progress.
struct Watched<'a, S> {
    source: &'a mut S,
    waiting: &'a Waiting<'a>,
    progress: &'a mut Progress,
}

impl<S: Source> Read for Watched<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer, self.waiting)?;
        if count > 0 {
            self.progress.advance(count)?;
        }
        Ok(count)
    }
}

fn put(session: &Session, mut source: impl Source, wanted: &Wanted) -> Outcome<graviton_put_receipt> {
    let mut progress = Progress::new(wanted.progress, wanted.userdata, source.total());
    let put = session.run_waiting(|store, waiting| {
        let source = Watched { source: &mut source, waiting, progress: &mut progress };
        store.put_with(&PutOptions::new().expect(wanted.expected)).source(source)
    });
    put.as_ref().map(Into::into).map_err(|failure| failure.clone().or_code(progress.code))
}

/// Stores `length` bytes from memory, which must not change meanwhile. `bytes` may be NULL if `length` is 0:
/// the empty blob. `options` may be NULL. `receipt` may be NULL. The blob becomes visible when this returns;
/// a failure stores nothing. Blocks.
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
            let receipt = put(session_of(store, "store")?, source, &wanted)?;
            if let Some(out) = out {
                out.set(&receipt);
            }
            Ok(())
        })
    }
}

/// Stores everything from the current position of a file descriptor to its end, and does not close it. Pipes,
/// sockets and devices work, also in non-blocking mode; while they are silent, the cancel callback can end
/// the call, and so does closing the store. A descriptor that is not open, or a directory, is
/// GRAVITON_ERROR_INVALID_ARGUMENT. `options` may be NULL. `receipt` may be NULL. Blocks.
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
            let session = session_of(store, "store")?;
            session.check()?;
            let receipt = put(session, Descriptor::new(fd)?, &wanted)?;
            if let Some(out) = out {
                out.set(&receipt);
            }
            Ok(())
        })
    }
}

/// Opens a file of any kind for reading.
fn open(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
    // A FIFO without a writer would block here, where the cancel callback is not asked.
    let opened = match rustix::fs::open(path, flags | OFlags::NONBLOCK, Mode::empty()) {
        // Another process has a lease on the file, and is now asked to release it.
        Err(Errno::AGAIN) => rustix::fs::open(path, flags, Mode::empty()),
        opened => opened,
    };
    opened.map_err(|error| Error::io_at("cannot read", path, error.into()))
}

/// Stores the content of a file: `path` of `path_length` bytes, in any encoding. FIFOs work as in
/// graviton_store_put_fd. A missing file is GRAVITON_ERROR_NOT_FOUND, a directory
/// GRAVITON_ERROR_INVALID_ARGUMENT. `options` may be NULL. `receipt` may be NULL. Blocks.
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
            let session = session_of(store, "store")?;
            session.check()?;
            let file = open(path)?;
            let source = Descriptor::of(file.as_fd(), path.display().to_string())?;
            let receipt = put(session, source, &wanted)?;
            if let Some(out) = out {
                out.set(&receipt);
            }
            Ok(())
        })
    }
}

/// The program's own function as a source.
struct Called<'a> {
    callback: unsafe extern "C" fn(*mut c_void, *mut u8, usize, *mut usize) -> i32,
    userdata: Userdata,
    /// The return value of the callback.
    code: &'a Cell<i32>,
}

impl Source for Called<'_> {
    fn total(&self) -> u64 {
        GRAVITON_SIZE_UNKNOWN
    }

    fn read(&mut self, buffer: &mut [u8], _waiting: &Waiting<'_>) -> io::Result<usize> {
        let mut count = 0;
        // SAFETY: the caller passed both for this call; the buffer has this length.
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

/// Stores the bytes that a callback provides, until it provides none. `userdata` may be NULL. `options` may
/// be NULL. `receipt` may be NULL. A callback that aborts stores nothing. Blocks.
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
            let receipt = put(session_of(store, "store")?, source, &wanted)
                .map_err(|failure| failure.or_code(code.get()))?;
            if let Some(out) = out {
                out.set(&receipt);
            }
            Ok(())
        })
    }
}
