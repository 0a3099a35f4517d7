//! Calls back into the program: progress, sources of bytes, and the question whether to go on.
//!
//! A callback runs on the thread that called the function it was given to (for a question: that uses the handle), holds no
//! lock of ours but that of a reader or writer in use, and may itself call into the library. What it returns, if it is not
//! 0, ends the call and comes back in the error object; it never ends the calls that another callback makes.

use std::cell::Cell;
use std::ffi::c_void;
use std::ops::ControlFlow;
use std::rc::Rc;

use graviton_core::{Code, Error, Result, interruptible, uninterrupted};

use crate::panic::{Failure, Outcome};

/// For a progress callback: the size of the whole is not known.
pub const GRAVITON_SIZE_UNKNOWN: u64 = 18_446_744_073_709_551_615;

/// What a callback of gc, verify, copy_from or repair_from returns to end the work early in an orderly way: the call then
/// succeeds, and its report says that it is not complete. Anything else but 0 ends it with GRAVITON_ERROR_CANCELLED.
pub const GRAVITON_STOP: i32 = 2_147_483_647;

/// Told how far a put or get has come: `done` bytes of `total`, which is GRAVITON_SIZE_UNKNOWN if that is not known. Called
/// on the thread that called the function, as often as bytes come or go: every few KiB to some MiB. Returns 0 to go on;
/// anything else aborts with GRAVITON_ERROR_CANCELLED, nothing is stored, and graviton_error_callback_code gives the value.
/// May call into the library, with this store too. Must return: no exception, no longjmp.
pub type graviton_progress_callback =
    Option<unsafe extern "C" fn(userdata: *mut c_void, done: u64, total: u64) -> i32>;

/// Asked for the next bytes of a blob: puts up to `capacity` of them in `buffer` and their number in `*count`, where 0 is
/// the end of the blob. Called on the thread that called the function. Returns 0; anything else aborts with
/// GRAVITON_ERROR_CANCELLED, nothing is stored, and graviton_error_callback_code gives the value. May call into the library,
/// with this store too. Must return: no exception, no longjmp.
pub type graviton_read_callback = Option<
    unsafe extern "C" fn(userdata: *mut c_void, buffer: *mut u8, capacity: usize, count: *mut usize) -> i32,
>;

/// Asked about every 50 ms, while a call waits, whether to go on: for a network, disk, pipe or socket that does not answer, or
/// a user who does not want to wait. Not asked: by calls that are over sooner or never block, while the program's own
/// callbacks run, and by calls that these make with a handle that has no cancel callback. Called on the thread that makes the
/// call, so from several at once if several use the handle. Returns 0 to go on; anything else ends the call with
/// GRAVITON_ERROR_CANCELLED, and graviton_error_callback_code gives the value. Must be quick, must use neither the handle nor
/// the buffers that are in the call, and must return: no exception, no longjmp.
pub type graviton_cancel_callback = Option<unsafe extern "C" fn(userdata: *mut c_void) -> i32>;

/// The program's pointer, which it gets back.
///
/// Handles that hold one move between threads: what the pointer points to is the program's business, as the header says.
#[derive(Clone, Copy)]
pub(crate) struct Userdata(pub(crate) *mut c_void);

// SAFETY: never used here but to hand it back.
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

/// The question whether to go on.
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
        // SAFETY: the caller gave both, and keeps them good for as long as the handle is used.
        unsafe { (self.callback)(self.userdata.get()) }
    }

    /// Makes a call, which asks now and then on this thread, and which the questions of no other call end.
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

/// The question of one call, which remembers a no.
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

/// Told how far it is, if the program wants to know.
pub(crate) struct Progress {
    callback: graviton_progress_callback,
    userdata: Userdata,
    done: u64,
    total: u64,
    /// What the callback returned.
    pub(crate) code: i32,
}

impl Progress {
    pub(crate) fn new(callback: graviton_progress_callback, userdata: *mut c_void, total: u64) -> Progress {
        Progress { callback, userdata: Userdata(userdata), done: 0, total, code: 0 }
    }

    /// So many bytes more are done.
    pub(crate) fn advance(&mut self, count: usize) -> Result<()> {
        self.done += count as u64;
        let Some(callback) = self.callback else { return Ok(()) };
        // SAFETY: the caller gave both for this call.
        self.code = unsafe { callback(self.userdata.get(), self.done, self.total) };
        if self.code == 0 { Ok(()) } else { Err(cancelled("progress")) }
    }
}

/// What a callback of a long work wants.
pub(crate) fn flow(returned: i32) -> ControlFlow<()> {
    if returned == 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

/// An abort by a callback of a long work, which the engine takes for an orderly end.
pub(crate) fn check_stop(returned: i32) -> Outcome<()> {
    if returned == 0 || returned == GRAVITON_STOP {
        return Ok(());
    }
    Err(Failure { error: cancelled("progress"), callback_code: returned })
}
