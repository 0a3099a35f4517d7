//! Checks every pointer, length and number that comes from a caller before it is used: a detectable mistake
//! is `invalid-argument` and not undefined behaviour. The caller guarantees the rest (no dangling pointers)
//! by obeying the header; this is the meaning of `unsafe` on these functions.

use std::ffi::{OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, TryLockError};

use graviton_core::{Code, Error, Result};

use crate::panic::contain;

pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(Code::InvalidArgument, message)
}

pub(crate) fn null(name: &str) -> Error {
    invalid(format!("{name} is NULL")).with_advice("pass a valid pointer")
}

pub(crate) fn check<T>(pointer: *const T, name: &str) -> Result<()> {
    if pointer.is_null() {
        return Err(null(name));
    }
    if !pointer.is_aligned() {
        return Err(invalid(format!("{name} is not aligned")).with_advice("pass a pointer to the right type"));
    }
    Ok(())
}

/// The value behind a caller's pointer.
///
/// # Safety
/// Null or misaligned, or valid to read for as long as the result is used.
pub(crate) unsafe fn borrow<'a, T>(pointer: *const T, name: &str) -> Result<&'a T> {
    check(pointer, name)?;
    // SAFETY: not null, aligned, and valid by the contract.
    Ok(unsafe { &*pointer })
}

/// A destination for a result.
pub(crate) struct Out<T>(*mut T);

/// # Safety
/// Null or misaligned, or valid to write for as long as the result is used.
pub(crate) unsafe fn out<T>(pointer: *mut T, name: &str) -> Result<Out<T>> {
    check(pointer, name).map(|()| Out(pointer))
}

/// Like [`out`], for an optional result.
///
/// # Safety
/// As [`out`].
pub(crate) unsafe fn out_if_wanted<T>(pointer: *mut T, name: &str) -> Result<Option<Out<T>>> {
    // SAFETY: the same contract.
    if pointer.is_null() { Ok(None) } else { unsafe { out(pointer, name) }.map(Some) }
}

impl<T> Out<T> {
    pub(crate) fn set(self, value: T) {
        // SAFETY: checked on creation, and valid to write by the contract there. The old value has no
        // destructor.
        unsafe { self.0.write(value) };
    }
}

impl<T> Out<*mut T> {
    /// Passes a new handle to the caller.
    pub(crate) fn give(self, value: T) {
        self.set(Box::into_raw(Box::new(value)));
    }
}

/// Takes a handle back and drops it. Null does nothing.
///
/// # Safety
/// Null, or from [`Out::give`] and not freed before.
pub(crate) unsafe fn free<T>(handle: *mut T) {
    if !handle.is_null() && handle.is_aligned() {
        // SAFETY: by the contract it is a box that was passed out before.
        contain((), || drop(unsafe { Box::from_raw(handle) }));
    }
}

fn check_length<T>(pointer: *const T, length: usize, name: &str) -> Result<()> {
    if length > isize::MAX as usize / size_of::<T>() {
        return Err(invalid(format!("the length of {name} is {length}, more than there can be"))
            .with_advice("look for a negative number that was converted to size_t"));
    }
    if length > 0 { check(pointer, name) } else { Ok(()) }
}

/// `length` values to read; any pointer, null too, is fine for no values.
///
/// # Safety
/// Null or misaligned, or points to this many values, which nobody changes while the result is used.
pub(crate) unsafe fn slice<'a, T>(pointer: *const T, length: usize, name: &str) -> Result<&'a [T]> {
    check_length(pointer, length, name)?;
    // SAFETY: not null, aligned, of a possible length, and valid by the contract.
    Ok(if length == 0 { &[] } else { unsafe { std::slice::from_raw_parts(pointer, length) } })
}

/// The address of the first value, or null without any: a dangling pointer would invite a read.
pub(crate) fn first<T>(values: &[T]) -> *const T {
    if values.is_empty() { std::ptr::null() } else { values.as_ptr() }
}

/// The caller's memory for bytes. It is not a slice, because no reference to it may exist while the caller's
/// own code runs, which may read it.
pub(crate) struct Room {
    place: *mut u8,
    pub(crate) length: usize,
}

/// `length` bytes to be filled; any pointer, null too, is fine for no bytes.
///
/// # Safety
/// Null, or points to this many bytes, which are valid to write for as long as the result is used.
pub(crate) unsafe fn room(pointer: *mut u8, length: usize, name: &str) -> Result<Room> {
    check_length(pointer, length, name)?;
    Ok(Room { place: pointer, length })
}

impl Room {
    /// Copies bytes there, which must fit.
    pub(crate) fn fill(&self, at: usize, bytes: &[u8]) {
        assert!(at <= self.length && bytes.len() <= self.length - at, "the bytes do not fit");
        if !bytes.is_empty() {
            // SAFETY: the range lies within memory that is valid to write by the contract of `room`; our
            // bytes do not overlap it.
            unsafe { self.place.add(at).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        }
    }

    /// All of it, for calls that run no code of the caller except its cancel callback, which must not touch
    /// it.
    pub(crate) fn all(&mut self) -> &mut [u8] {
        if self.length == 0 {
            return &mut [];
        }
        // SAFETY: not null, of a possible length, and valid by the contract of `room`; bytes need no initial
        // value.
        unsafe { std::slice::from_raw_parts_mut(self.place, self.length) }
    }
}

/// Text in UTF-8; no NUL follows it.
///
/// # Safety
/// As [`slice`].
pub(crate) unsafe fn text<'a>(pointer: *const c_char, length: usize, name: &str) -> Result<&'a str> {
    // SAFETY: the same contract.
    let bytes = unsafe { slice(pointer.cast::<u8>(), length, name)? };
    std::str::from_utf8(bytes).map_err(|_| invalid(format!("{name} is not UTF-8 text")))
}

/// A path: any bytes but NUL, and at least one.
///
/// # Safety
/// As [`slice`].
pub(crate) unsafe fn path<'a>(pointer: *const c_char, length: usize, name: &str) -> Result<&'a Path> {
    // SAFETY: the same contract.
    let bytes = unsafe { slice(pointer.cast::<u8>(), length, name)? };
    if bytes.is_empty() || bytes.contains(&0) {
        let what = if bytes.is_empty() { "is empty" } else { "has a NUL byte in it" };
        return Err(invalid(format!("{name} {what}")).with_advice("pass the path and its strlen"));
    }
    Ok(Path::new(OsStr::from_bytes(bytes)))
}

/// A flag: 0 or 1.
pub(crate) fn truth(value: i32, name: &str) -> Result<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(invalid(format!("{name} is {value}; it must be 0 or 1"))),
    }
}

/// A handle for one thread at a time: a second thread gets an error, and does not wait.
pub(crate) fn exclusive<'a, T>(value: &'a Mutex<T>, what: &str) -> Result<MutexGuard<'a, T>> {
    match value.try_lock() {
        Ok(guard) => Ok(guard),
        Err(TryLockError::WouldBlock) => Err(invalid(format!(
            "the {what} is in use, by another thread or by the call that this callback is part of"
        ))
        .with_advice(format!("use a {what} from one thread at a time"))),
        Err(TryLockError::Poisoned(_)) => {
            Err(Error::new(Code::Internal, format!("a bug in Graviton made this {what} unusable"))
                .with_advice("free it"))
        }
    }
}

/// Copies text and a NUL into an array of the caller's structure. Text that is too long is cut between two
/// characters.
pub(crate) fn fill_text<const N: usize>(text: &str) -> [c_char; N] {
    let mut array = [0; N];
    let text = &text[..text.floor_char_boundary(N - 1)];
    for (place, byte) in array.iter_mut().zip(text.bytes()) {
        *place = byte as c_char;
    }
    array
}

/// Copies text to a caller that may only want its length: the shared part of the `_get` and `_format`
/// functions.
///
/// # Safety
/// As [`room`], and [`out_if_wanted`] for `length`.
pub(crate) unsafe fn give_text(
    text: &str,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
) -> Result<()> {
    // SAFETY: the same contracts.
    let (room, length) =
        unsafe { (room(buffer.cast::<u8>(), capacity, "buffer")?, out_if_wanted(length, "length")?) };
    if capacity > 0 {
        if capacity <= text.len() {
            return Err(invalid(format!(
                "the buffer has {capacity} bytes, and {} are needed",
                text.len() + 1
            ))
            .with_advice("ask for the length first, with a buffer of NULL and 0"));
        }
        room.fill(0, text.as_bytes());
        room.fill(text.len(), &[0]);
    }
    if let Some(length) = length {
        length.set(text.len());
    }
    Ok(())
}
