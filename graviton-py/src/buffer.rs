//! Memory of Python objects: any C-contiguous buffer, to store from or to read into.
//!
//! While a buffer is held, its memory stays where it is, but Python code may change it, because a call does
//! not hold the GIL. So no Rust slice of it is ever made. Its bytes are copied once, into or out of memory of
//! our own, and that copy is hashed and stored. Only `bytes` never change, and are read in place.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int};
use std::io::{self, Read};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use graviton_core::Result;
use pyo3::exceptions::{PyBufferError, PyMemoryError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rustix::mm::{Advice, madvise};

use crate::call::{Interrupts, Stop, call};
use crate::lent::Lent;

/// Copied with the GIL held: releasing it and waiting for it again takes longer.
const AT_ONCE: usize = 64 << 10;

/// Larger memory has a mapping of its own, whatever the allocator learned, and all of it is fresh. The system
/// finds and clears each page when it is first touched, which takes longer than reading, verifying and
/// copying the bytes for it. So another thread touches the pages, this many bytes at a time. (Huge pages took
/// a third of that time where the system had some, and three times as long on a virtual machine whose host
/// had to find them: 3 s per GiB.)
const TOUCHED_ASIDE: usize = 32 << 20;
const TOUCHED_AT_ONCE: usize = 2 << 20;

/// The memory that an object exposes, held until this is dropped.
pub(crate) enum Buffer<'py> {
    Bytes(Bound<'py, PyBytes>),
    View(View<'py>),
}

/// Memory by the buffer protocol. pyo3's own type refuses ctypes arrays, whose strides are not given.
pub(crate) struct View<'py> {
    /// Boxed, because it may point into itself.
    view: Box<ffi::Py_buffer>,
    held: PhantomData<Python<'py>>,
}

impl<'py> View<'py> {
    fn of(object: &Bound<'py, PyAny>, flags: c_int) -> PyResult<View<'py>> {
        let mut view = Box::new(MaybeUninit::<ffi::Py_buffer>::uninit());
        // SAFETY: the object is alive, and `view` has room for a `Py_buffer`.
        let result = unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), view.as_mut_ptr(), flags) };
        if result != 0 {
            return Err(PyErr::fetch(object.py()));
        }
        // SAFETY: the call succeeded and filled it in.
        let view = View { view: unsafe { Box::from_raw(Box::into_raw(view).cast()) }, held: PhantomData };
        // SAFETY: this view is held.
        if unsafe { ffi::PyBuffer_IsContiguous(&raw const *view.view, b'C' as _) } == 0 {
            return Err(PyBufferError::new_err("the memory is not C-contiguous; copy it first"));
        }
        // SAFETY: a format that is not null is a C string that lives as long as the view.
        let format = (!view.view.format.is_null()).then(|| unsafe { CStr::from_ptr(view.view.format) });
        if format.is_some_and(|format| format.to_bytes().contains(&b'O')) {
            return Err(PyTypeError::new_err(
                "an array of Python objects has no bytes of its own; pickle it",
            ));
        }
        Ok(view)
    }

    fn data(&self) -> *mut u8 {
        self.view.buf.cast()
    }

    fn len(&self) -> usize {
        self.view.len as usize
    }

    fn is_writable(&self) -> bool {
        self.view.readonly == 0
    }
}

impl Drop for View<'_> {
    fn drop(&mut self) {
        // SAFETY: `PyObject_GetBuffer` filled this in, it is released once, and `held` proves that the GIL is
        // held.
        unsafe { ffi::PyBuffer_Release(&raw mut *self.view) };
    }
}

impl<'py> Buffer<'py> {
    /// The memory of the object, for reading.
    pub(crate) fn to_read(object: &Bound<'py, PyAny>) -> PyResult<Buffer<'py>> {
        match object.cast::<PyBytes>() {
            Ok(bytes) => Ok(Buffer::Bytes(bytes.clone())),
            Err(_) => Ok(Buffer::View(View::of(object, ffi::PyBUF_FULL_RO)?)),
        }
    }

    /// The memory of the object, for writing.
    pub(crate) fn to_fill(object: &Bound<'py, PyAny>) -> PyResult<Buffer<'py>> {
        let refused = match View::of(object, ffi::PyBUF_FULL) {
            Ok(view) if view.is_writable() => return Ok(Buffer::View(view)),
            Ok(_) => None,
            Err(raised) => Some(raised),
        };
        match (refused, View::of(object, ffi::PyBUF_FULL_RO)) {
            // The object refused for another reason than read-only memory.
            (_, Err(raised)) => Err(raised),
            (Some(raised), Ok(view)) if view.is_writable() => Err(raised),
            _ => Err(PyBufferError::new_err(
                "the memory is read-only; give a bytearray or another writable buffer",
            )),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Buffer::Bytes(bytes) => bytes.as_bytes().len(),
            Buffer::View(view) => view.len(),
        }
    }

    /// Its bytes, for reading within this call.
    pub(crate) fn source(&self) -> Source<'_> {
        let data = match self {
            Buffer::Bytes(bytes) => bytes.as_bytes().as_ptr(),
            Buffer::View(view) => view.data().cast_const(),
        };
        Source { data, left: self.len(), fixed: matches!(self, Buffer::Bytes(_)), held: PhantomData }
    }

    /// Its bytes, for writing within this call.
    pub(crate) fn sink(&self) -> Sink<'_> {
        match self {
            Buffer::Bytes(_) => Sink { data: ptr::null_mut(), left: 0, held: PhantomData },
            Buffer::View(view) => {
                let left = if view.is_writable() { view.len() } else { 0 };
                Sink { data: view.data(), left, held: PhantomData }
            }
        }
    }
}

/// The bytes of a buffer that are not taken yet.
pub(crate) struct Source<'buffer> {
    data: *const u8,
    left: usize,
    fixed: bool,
    held: PhantomData<&'buffer ()>,
}

// SAFETY: the memory is valid on any thread as long as the buffer is held, as the lifetime says.
unsafe impl Send for Source<'_> {}

impl<'buffer> Source<'buffer> {
    /// The next bytes, at most `most`: in place if nobody can change them, otherwise copied into `scratch`.
    pub(crate) fn piece<'a>(&mut self, most: usize, scratch: &'a mut Vec<u8>) -> &'a [u8]
    where
        'buffer: 'a,
    {
        let count = self.left.min(most);
        if count == 0 {
            return &[];
        }
        if self.fixed {
            // SAFETY: these bytes are inside a `bytes` object. They never change, and live as long as the
            // object is held.
            let piece = unsafe { std::slice::from_raw_parts(self.data, count) };
            self.skip(count);
            return piece;
        }
        scratch.resize(count, 0);
        self.copy_to(scratch);
        scratch
    }

    fn copy_to(&mut self, to: &mut [u8]) -> usize {
        let count = self.left.min(to.len());
        if count > 0 {
            // SAFETY: `count` bytes are left in the buffer, which is held, and `to` is memory of our own. If
            // Python code writes there meanwhile, the copy mixes old and new bytes, as in any C extension;
            // each byte is read only once.
            unsafe { ptr::copy_nonoverlapping(self.data, to.as_mut_ptr(), count) };
            self.skip(count);
        }
        count
    }

    /// Copies as many bytes as fit.
    fn pour(&mut self, to: &mut Sink<'_>) {
        let count = self.left.min(to.left);
        if count > 0 {
            // SAFETY: `count` bytes are left in both, which are held. They may be the same memory of Python
            // code, which may change meanwhile, as in `copy_to`.
            unsafe { ptr::copy(self.data, to.data, count) };
            self.skip(count);
            to.skip(count);
        }
    }

    fn skip(&mut self, count: usize) {
        // SAFETY: at most one past the end of the buffer.
        self.data = unsafe { self.data.add(count) };
        self.left -= count;
    }
}

/// A source that the engine reads directly into its own memory.
pub(crate) struct Reading<'a> {
    pub(crate) source: Source<'a>,
    pub(crate) interrupts: &'a Interrupts,
}

impl Read for Reading<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.interrupts.check()?;
        Ok(self.source.copy_to(to))
    }
}

/// The memory of a buffer that is not filled yet.
pub(crate) struct Sink<'buffer> {
    data: *mut u8,
    left: usize,
    held: PhantomData<&'buffer ()>,
}

// SAFETY: the memory is valid on any thread as long as the buffer is held, as the lifetime says.
unsafe impl Send for Sink<'_> {}

impl Sink<'_> {
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// Copies as many bytes as fit. Returns their number.
    pub(crate) fn fill(&mut self, from: &[u8]) -> usize {
        let count = self.left.min(from.len());
        if count > 0 {
            // SAFETY: `count` bytes are left in the buffer, which is held and writable, and `from` is memory
            // of our own.
            unsafe { ptr::copy_nonoverlapping(from.as_ptr(), self.data, count) };
            self.skip(count);
        }
        count
    }

    /// Runs `work`, which fills the memory. If the memory is large, another thread touches its pages
    /// meanwhile. Only for fresh memory of our own.
    pub(crate) fn touched_aside<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        if self.left <= TOUCHED_ASIDE {
            return work(self);
        }
        let stop = Stop::default();
        let untouched = Untouched { data: self.data, length: self.left, stopped: Arc::clone(&stop.0) };
        thread::scope(|scope| {
            // If no thread can be started, the work only takes longer.
            let _touching = thread::Builder::new().spawn_scoped(scope, move || untouched.touch());
            // Stops the thread even if the work panics.
            let _stop = stop;
            work(self)
        })
    }

    fn skip(&mut self, count: usize) {
        // SAFETY: at most one past the end of the buffer.
        self.data = unsafe { self.data.add(count) };
        self.left -= count;
    }
}

/// A `bytes` object that is filled before any other code sees it.
pub(crate) struct FreshBytes<'py> {
    bytes: Bound<'py, PyBytes>,
}

impl<'py> FreshBytes<'py> {
    /// Raises `MemoryError` if there is not enough memory.
    pub(crate) fn new(py: Python<'py>, length: usize) -> PyResult<FreshBytes<'py>> {
        let length =
            isize::try_from(length).map_err(|_| PyMemoryError::new_err("the bytes do not fit in memory"))?;
        // SAFETY: with a null pointer this makes an object of that length, or raises. Its bytes are filled
        // before anything reads them (`finish`).
        let bytes = unsafe {
            let object = ffi::PyBytes_FromStringAndSize(ptr::null(), length);
            Bound::from_owned_ptr_or_err(py, object)?.cast_into_unchecked::<PyBytes>()
        };
        Ok(FreshBytes { bytes })
    }

    /// All of it, to be filled within this call.
    pub(crate) fn sink(&mut self) -> Sink<'_> {
        // SAFETY: the object is our own `bytes`.
        let data = unsafe { ffi::PyBytes_AsString(self.bytes.as_ptr()) };
        // SAFETY: as above.
        let length = unsafe { ffi::PyBytes_Size(self.bytes.as_ptr()) };
        Sink { data: data.cast(), left: length as usize, held: PhantomData }
    }

    /// The object without its last `left` bytes, which were not filled.
    pub(crate) fn finish(self, left: usize) -> Bound<'py, PyBytes> {
        if left == 0 {
            return self.bytes;
        }
        // SAFETY: the object is our own `bytes`.
        let length = unsafe { ffi::PyBytes_Size(self.bytes.as_ptr()) } as usize;
        // SAFETY: these bytes were filled.
        let filled = unsafe {
            let data = ffi::PyBytes_AsString(self.bytes.as_ptr());
            std::slice::from_raw_parts(data.cast::<u8>(), length - left)
        };
        PyBytes::new(self.bytes.py(), filled)
    }
}

/// Memory that is touched from its start to its end, unless that is stopped.
struct Untouched {
    data: *mut u8,
    length: usize,
    stopped: Arc<AtomicBool>,
}

// SAFETY: only the kernel accesses the memory, which is mapped as long as the scope of the thread lasts.
unsafe impl Send for Untouched {}

impl Untouched {
    fn touch(&self) {
        let mut at = self.data.align_offset(rustix::param::page_size());
        while at < self.length && !self.stopped.load(Ordering::Relaxed) {
            let length = TOUCHED_AT_ONCE.min(self.length - at);
            // SAFETY: from a page that begins inside the memory, at most to its end. The call does not change
            // the bytes.
            if unsafe { madvise(self.data.add(at).cast(), length, Advice::LinuxPopulateWrite) }.is_err() {
                // Kernels before 5.14 cannot do this; the code that fills the memory then touches it.
                return;
            }
            at += length;
        }
    }
}

/// A `bytes` object with these bytes. A large one is copied without the GIL.
pub(crate) fn copied<'py>(py: Python<'py>, from: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    if from.len() <= AT_ONCE {
        return Ok(PyBytes::new(py, from));
    }
    let mut bytes = FreshBytes::new(py, from.len())?;
    let mut sink = bytes.sink();
    let left = py.detach(|| {
        sink.fill(from);
        sink.left()
    });
    Ok(bytes.finish(left))
}

/// A `bytes` object of this length, which `work` fills without the GIL; shorter if `work` does not fill all
/// of it.
pub(crate) fn filled(
    py: Python<'_>,
    length: u64,
    work: impl FnOnce(&mut Sink<'_>, &Interrupts) -> Result<()> + Send,
) -> PyResult<Bound<'_, PyBytes>> {
    let mut bytes = FreshBytes::new(py, usize::try_from(length).unwrap_or(usize::MAX))?;
    let mut sink = bytes.sink();
    let left = call(py, |interrupts| {
        sink.touched_aside(|sink| work(sink, interrupts))?;
        Ok(sink.left())
    })?;
    Ok(bytes.finish(left))
}

/// A `bytes` object that is filled step by step, on any thread and without the GIL.
pub(crate) struct Filling {
    bytes: Lent<Py<PyBytes>>,
    sink: Sink<'static>,
}

impl Filling {
    /// Raises `MemoryError` if there is not enough memory.
    pub(crate) fn new(py: Python<'_>, length: usize) -> PyResult<Filling> {
        let mut fresh = FreshBytes::new(py, length)?;
        let Sink { data, left, .. } = fresh.sink();
        // The memory stays where it is as long as the object is held, and the object is held beside the sink.
        let sink = Sink { data, left, held: PhantomData };
        Ok(Filling { bytes: Lent::new(fresh.bytes.unbind()), sink })
    }

    pub(crate) fn sink(&mut self) -> &mut Sink<'static> {
        &mut self.sink
    }

    /// The object, as from `FreshBytes::finish`.
    pub(crate) fn finish(self, py: Python<'_>) -> Bound<'_, PyBytes> {
        let left = self.sink.left();
        FreshBytes { bytes: self.bytes.back(py).into_bound(py) }.finish(left)
    }
}

/// A copy of up to `most` bytes of any readable memory, from `from_offset` on.
#[pyfunction]
pub(crate) fn piece_of<'py>(
    data: &Bound<'py, PyAny>,
    from_offset: usize,
    most: usize,
) -> PyResult<Bound<'py, PyBytes>> {
    let buffer = Buffer::to_read(data)?;
    let mut source = buffer.source();
    source.skip(from_offset.min(source.left));
    let mut bytes = FreshBytes::new(data.py(), most.min(source.left))?;
    let mut sink = bytes.sink();
    source.pour(&mut sink);
    let left = sink.left();
    Ok(bytes.finish(left))
}

/// Copies as many of the bytes as fit into any writable memory, from `offset` on. Returns their number.
#[pyfunction]
pub(crate) fn fill_at(
    buffer: &Bound<'_, PyAny>,
    offset: usize,
    data: &Bound<'_, PyBytes>,
) -> PyResult<usize> {
    let buffer = Buffer::to_fill(buffer)?;
    let mut sink = buffer.sink();
    sink.skip(offset.min(sink.left));
    Ok(sink.fill(data.as_bytes()))
}
