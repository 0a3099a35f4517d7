//! Callbacks into the program: progress, sources of bytes, and cancellation.
//!
//! A callback runs on the thread that called the function it was passed to (a cancel callback: the function
//! that uses the handle). It holds no lock of ours except that of a reader or writer in use, and may itself
//! call into the library. A return value other than 0 ends the call and is stored in the error object; it
//! never ends the calls that another callback makes.

use std::cell::Cell;
use std::ffi::c_void;
use std::ops::ControlFlow;
use std::rc::Rc;

use graviton_core::{Code, Error, Result, interruptible, uninterrupted};

use crate::panic::{Failure, Outcome};

/// For a progress callback: the total size is unknown.
pub const GRAVITON_SIZE_UNKNOWN: u64 = 18_446_744_073_709_551_615;

/// A callback of gc, repack, verify, copy_from or repair_from returns this to stop the work early: the call
/// then succeeds, and its report says that it is not complete. Any other value but 0 ends the call with
/// GRAVITON_ERROR_CANCELLED.
pub const GRAVITON_STOP: i32 = 2_147_483_647;

/// Reports the progress of a put or get: `done` of `total` bytes; `total` may be GRAVITON_SIZE_UNKNOWN.
/// Called on the thread that made the call, every few KiB to some MiB. Returns 0 to continue; any other value
/// aborts with GRAVITON_ERROR_CANCELLED and stores nothing, and graviton_error_callback_code returns the
/// value. It may call the library, with the same store too, and must return: no exception, no longjmp.
pub type graviton_progress_callback =
    Option<unsafe extern "C" fn(userdata: *mut c_void, done: u64, total: u64) -> i32>;

/// Provides the next bytes of a blob: writes up to `capacity` bytes to `buffer` and their number to `*count`;
/// 0 is the end of the blob. Called on the thread that made the call. Returns 0; any other value aborts with
/// GRAVITON_ERROR_CANCELLED and stores nothing, and graviton_error_callback_code returns the value. It may
/// call the library, with the same store too, and must return: no exception, no longjmp.
pub type graviton_read_callback = Option<
    unsafe extern "C" fn(userdata: *mut c_void, buffer: *mut u8, capacity: usize, count: *mut usize) -> i32,
>;

/// Decides about every 50 ms, while a call waits for a network, disk, pipe or socket, whether the call
/// continues. It is not called by calls that end sooner or never block, while the program's own callbacks
/// run, or by calls that those make with a handle that has no cancel callback. It runs on the thread that
/// makes the call, so on several at once if several use the handle. Returns 0 to continue; any other value
/// ends the call with GRAVITON_ERROR_CANCELLED, and graviton_error_callback_code gives the value. It must be
/// quick, must use neither the handle nor the buffers of the call, and must return: no exception, no longjmp.
pub type graviton_cancel_callback = Option<unsafe extern "C" fn(userdata: *mut c_void) -> i32>;

/// The program's pointer, which is passed back to it.
///
/// Handles that contain one move between threads: the program is responsible for the data behind the pointer,
/// as the header says.
#[derive(Clone, Copy)]
pub(crate) struct Userdata(pub(crate) *mut c_void);

// SAFETY: it is only passed back, and never used here.
unsafe impl Send for Userdata {}
// SAFETY: as above.
unsafe impl Sync for Userdata {}

impl Userdata {
    /// A method, so that a closure that calls it captures this type and not the bare pointer in it.
    pub(crate) fn get(self) -> *mut c_void {
        self.0
    }
}

pub(crate) fn cancelled(by: &str) -> Error {
    Error::new(Code::Cancelled, format!("the {by} callback ended it"))
}

/// The cancel callback of a handle.
#[derive(Clone, Copy)]
pub(crate) struct Cancel {
    callback: unsafe extern "C" fn(*mut c_void) -> i32,
    userdata: Userdata,
}

impl Cancel {
    pub(crate) fn new(callback: graviton_cancel_callback, userdata: *mut c_void) -> Option<Cancel> {
        callback.map(|callback| Cancel { callback, userdata: Userdata(userdata) })
    }

    fn ask(&self) -> i32 {
        // SAFETY: the caller passed both, and keeps them valid for as long as the handle is used.
        unsafe { (self.callback)(self.userdata.get()) }
    }

    /// Makes a call that asks the cancel callback from time to time, on this thread. The cancel callbacks of
    /// other calls do not end it.
    pub(crate) fn watch<T>(
        cancel: Option<Cancel>,
        call: impl FnOnce(Option<&Question>) -> Result<T>,
    ) -> Outcome<T> {
        let Some(cancel) = cancel else { return Ok(uninterrupted(|| call(None))?) };
        let question = Question { cancel, said: Rc::default() };
        let asked = question.clone();
        let outcome = interruptible(move || asked.ask(), || call(Some(&question)));
        outcome.map_err(|error| Failure::from(error).or_code(question.said.get()))
    }
}

/// The cancel callback of one call, which remembers that the call was cancelled.
#[derive(Clone)]
pub(crate) struct Question {
    cancel: Cancel,
    said: Rc<Cell<i32>>,
}

impl Question {
    pub(crate) fn ask(&self) -> ControlFlow<()> {
        if self.said.get() == 0 {
            self.said.set(self.cancel.ask());
        }
        flow(self.said.get())
    }
}

/// Reports progress, if the program wants to know it.
pub(crate) struct Progress {
    callback: graviton_progress_callback,
    userdata: Userdata,
    done: u64,
    total: u64,
    /// The return value of the callback.
    pub(crate) code: i32,
}

impl Progress {
    pub(crate) fn new(callback: graviton_progress_callback, userdata: *mut c_void, total: u64) -> Progress {
        Progress { callback, userdata: Userdata(userdata), done: 0, total, code: 0 }
    }

    /// Reports that this many more bytes are done.
    pub(crate) fn advance(&mut self, count: usize) -> Result<()> {
        self.done += count as u64;
        let Some(callback) = self.callback else { return Ok(()) };
        // SAFETY: the caller passed both for this call.
        self.code = unsafe { callback(self.userdata.get(), self.done, self.total) };
        if self.code == 0 { Ok(()) } else { Err(cancelled("progress")) }
    }
}

/// Converts the return value of a progress callback of a long operation.
pub(crate) fn flow(returned: i32) -> ControlFlow<()> {
    if returned == 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

/// Detects an abort by the callback of a long operation, which looks like an orderly end to the engine.
pub(crate) fn check_stop(returned: i32) -> Outcome<()> {
    if returned == 0 || returned == GRAVITON_STOP {
        return Ok(());
    }
    Err(Failure { error: cancelled("progress"), callback_code: returned })
}
