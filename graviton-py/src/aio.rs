//! Calls for asyncio: each is a task on the engine's own runtime, and its answer goes back to the event loop through
//! a [`Mailbox`].
//!
//! No thread of the engine ever waits for the GIL: an answer is put into the box, and the bell is rung, a socket
//! that the event loop listens to; the loop's own thread then makes Python objects of all answers that have come
//! together. A call that is cancelled is a future that is dropped.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use graviton_core::{Code, Error, Result};
use pyo3::exceptions::PyOSError;
use pyo3::intern;
use pyo3::prelude::*;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use crate::errors;

/// Calls of a store that are under way at once: enough to share a transaction and a sync, or to fill a network, and
/// few enough for the threads that they take. The others wait, and cost no thread.
const AT_ONCE: usize = 64;

/// The turns of a store's calls.
pub(crate) fn turns() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(AT_ONCE))
}

/// Makes a Python object of what a call came to. Runs on the event loop's thread.
type Answer = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

/// An `asyncio.Future`, until somebody takes it: who answers it, or who cancels it, after which nobody holds it, or its
/// event loop.
type Waiting = Arc<Mutex<Option<Py<PyAny>>>>;

fn take(waiting: &Waiting) -> Option<Py<PyAny>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner).take()
}

struct Letter {
    waiting: Waiting,
    answer: Answer,
}

/// Where the answers for one event loop arrive. That holds it for as long as it listens; a letter that nobody can open any
/// more goes with the box.
#[pyclass(frozen, weakref, module = "graviton._graviton")]
pub(crate) struct Mailbox {
    inner: Arc<Inner>,
}

struct Inner {
    letters: Mutex<Vec<Letter>>,
    bell: UnixStream,
    ear: UnixStream,
}

impl Inner {
    fn post(&self, letter: Letter) {
        let first = {
            let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
            letters.push(letter);
            letters.len() == 1
        };
        if first {
            // It cannot be full: it is rung once for each time that the box is emptied.
            let _ = (&self.bell).write(&[1]);
        }
    }
}

#[pymethods]
impl Mailbox {
    #[new]
    fn new() -> PyResult<Mailbox> {
        let pair = || {
            let (bell, ear) = UnixStream::pair()?;
            bell.set_nonblocking(true)?;
            ear.set_nonblocking(true)?;
            Ok((bell, ear))
        };
        let (bell, ear) = pair().map_err(|error: std::io::Error| PyOSError::new_err(error))?;
        Ok(Mailbox { inner: Arc::new(Inner { letters: Mutex::default(), bell, ear }) })
    }

    /// What the event loop is to listen to.
    fn fileno(&self) -> i32 {
        self.inner.ear.as_raw_fd()
    }

    /// Hands over the answers that have come. To be called on the event loop's thread, when there is something to
    /// read.
    fn open(&self, py: Python<'_>) -> PyResult<()> {
        // Heard before the box is emptied: what comes later rings again.
        let mut rings = [0; 64];
        loop {
            match (&self.inner.ear).read(&mut rings) {
                Ok(count) if count == rings.len() => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        let letters = std::mem::take(&mut *self.inner.letters.lock().unwrap_or_else(PoisonError::into_inner));
        let mut failed = Ok(());
        for letter in letters {
            // What one future raises is not the fault of the others.
            failed = failed.and(letter.hand_over(py));
        }
        failed
    }
}

impl Letter {
    fn hand_over(self, py: Python<'_>) -> PyResult<()> {
        let Some(future) = take(&self.waiting) else { return Ok(()) };
        let future = future.bind(py);
        // Nobody waits for a cancelled one.
        if future.call_method0(intern!(py, "done"))?.is_truthy()? {
            return Ok(());
        }
        match (self.answer)(py) {
            Ok(value) => future.call_method1(intern!(py, "set_result"), (value,))?,
            Err(raised) => future.call_method1(intern!(py, "set_exception"), (raised.value(py),))?,
        };
        Ok(())
    }
}

/// A call under way.
#[pyclass(frozen, module = "graviton._graviton")]
pub(crate) struct Task {
    handle: AbortHandle,
    /// Not held, for the future leads back to this, which Python's collector could not see.
    waiting: Weak<Mutex<Option<Py<PyAny>>>>,
}

#[pymethods]
impl Task {
    /// Drops the call, where it is, and its future, which gets no answer. Nothing happens if it has ended.
    fn abort(&self) {
        self.handle.abort();
        drop(self.waiting.upgrade().and_then(|waiting| take(&waiting)));
    }
}

/// Where an answer is to go: every call has one, and every one gets its answer, or the caller would wait for ever, unless it
/// has ended the call.
pub(crate) struct Reply {
    mailbox: Arc<Inner>,
    waiting: Option<Waiting>,
}

impl Reply {
    pub(crate) fn new(mailbox: &Bound<'_, Mailbox>, future: Py<PyAny>) -> Reply {
        Reply { mailbox: Arc::clone(&mailbox.get().inner), waiting: Some(Arc::new(Mutex::new(Some(future)))) }
    }

    fn send(mut self, answer: Answer) {
        if let Some(waiting) = self.waiting.take() {
            self.mailbox.post(Letter { waiting, answer });
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        // An answer that nobody takes is not posted: its event loop may be gone.
        let unanswered = |waiting: &Waiting| waiting.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if let Some(waiting) = self.waiting.take().filter(unanswered) {
            let answer: Answer = Box::new(|py| {
                let error = Error::new(Code::Cancelled, "the call was ended before it was done");
                Err(errors::exception(py, &error))
            });
            self.mailbox.post(Letter { waiting, answer });
        }
    }
}

/// Begins a call. `convert` makes what Python code sees of its result.
pub(crate) fn start<T, C>(
    py: Python<'_>,
    mut reply: Reply,
    turns: Option<&Arc<Semaphore>>,
    work: impl Future<Output = Result<T>> + Send + 'static,
    convert: C,
) -> PyResult<Task>
where
    T: Send + 'static,
    C: for<'py> FnOnce(Python<'py>, T) -> PyResult<Bound<'py, PyAny>> + Send + 'static,
{
    let turns = turns.map(Arc::clone);
    let runtime = graviton_core::runtime().map_err(|error| {
        // Raised, and not also posted.
        reply.waiting = None;
        errors::exception(py, &error)
    })?;
    let waiting = reply.waiting.as_ref().map(Arc::downgrade).unwrap_or_default();
    let task = runtime.spawn(async move {
        let result = {
            // Never closed, so never without a turn.
            let _turn = match &turns {
                Some(turns) => turns.acquire().await.ok(),
                None => None,
            };
            work.await
        };
        reply.send(Box::new(move |py| match result {
            Ok(value) => convert(py, value).map(Bound::unbind),
            Err(error) => Err(errors::exception(py, &error)),
        }));
    });
    Ok(Task { handle: task.abort_handle(), waiting })
}

/// A part of the engine that Python code holds: dropped on the runtime, which it may need to clean up, and left alone in a
/// forked child, for its threads and locks are the parent's.
pub(crate) struct Held<T> {
    /// As the errors call it, with its article.
    name: &'static str,
    process: u32,
    value: Option<T>,
}

impl<T> Held<T> {
    pub(crate) fn new(name: &'static str, value: T) -> Held<T> {
        Held { name, process: std::process::id(), value: Some(value) }
    }

    pub(crate) fn get(&self) -> Result<&T> {
        if self.process != std::process::id() {
            return Err(Error::new(Code::Forked, format!("{} was opened by the parent process", self.name))
                .with_advice("open the store again after the fork"));
        }
        self.value.as_ref().ok_or_else(|| Error::new(Code::Closed, format!("{} is closed", self.name)))
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            std::mem::forget(self.value.take());
        } else if let Ok(runtime) = graviton_core::runtime() {
            let _entered = runtime.enter();
            drop(self.value.take());
        }
    }
}
