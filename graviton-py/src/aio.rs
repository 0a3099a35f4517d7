//! Calls for asyncio. Each is a task on the engine's runtime, and its answer goes back to the event loop
//! through an [`AnswerQueue`].
//!
//! No thread of the engine waits for the GIL. It puts the answer into the queue and writes to a socket that
//! the event loop listens to. The loop's thread then makes Python objects of all answers in the queue. A call
//! that is cancelled is a Rust future that is dropped.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use graviton_core::{Code, Error, Process, Result};
use pyo3::exceptions::PyOSError;
use pyo3::intern;
use pyo3::prelude::*;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use crate::lent::Lent;
use crate::{errors, lent};

/// The most calls of a store that run at once: enough to share a transaction and a sync, or to fill a
/// network, and few enough for the threads that they need. Further calls wait without a thread.
const AT_ONCE: usize = 64;

/// The semaphore that limits the calls of a store.
pub(crate) fn turns() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(AT_ONCE))
}

/// Converts the result of a call into a Python object. Runs on the event loop's thread.
type Answer = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

/// An `asyncio.Future`. Either the answer or the cancellation takes it; after that, nothing holds the future
/// or its event loop.
type PendingFuture = Arc<Mutex<Option<Lent<Py<PyAny>>>>>;

fn take(waiting: &PendingFuture) -> Option<Lent<Py<PyAny>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner).take()
}

struct Completion {
    waiting: PendingFuture,
    answer: Answer,
}

/// The answers for one event loop. The loop holds this while it listens. Answers that cannot be delivered any
/// more are dropped with it.
#[pyclass(frozen, weakref, module = "graviton._graviton")]
pub(crate) struct AnswerQueue {
    inner: Arc<Inner>,
}

struct Inner {
    completions: Mutex<Vec<Completion>>,
    wake: UnixStream,
    listen: UnixStream,
}

impl Inner {
    fn post(&self, completion: Completion) {
        let first = {
            let mut completions = self.completions.lock().unwrap_or_else(PoisonError::into_inner);
            completions.push(completion);
            completions.len() == 1
        };
        if first {
            // The socket cannot be full: one byte is written each time after the queue was emptied.
            let _ = (&self.wake).write(&[1]);
        }
    }
}

#[pymethods]
impl AnswerQueue {
    #[new]
    fn new() -> PyResult<AnswerQueue> {
        let pair = || {
            let (wake, listen) = UnixStream::pair()?;
            wake.set_nonblocking(true)?;
            listen.set_nonblocking(true)?;
            Ok((wake, listen))
        };
        let (wake, listen) = pair().map_err(|error: std::io::Error| PyOSError::new_err(error))?;
        Ok(AnswerQueue { inner: Arc::new(Inner { completions: Mutex::default(), wake, listen }) })
    }

    /// The file descriptor that the event loop listens to.
    fn fileno(&self) -> i32 {
        self.inner.listen.as_raw_fd()
    }

    /// Delivers the answers in the queue. Called on the event loop's thread, when the socket can be read.
    fn deliver(&self, py: Python<'_>) -> PyResult<()> {
        // Read before the queue is emptied, because a later answer writes again.
        let mut bytes = [0; 64];
        loop {
            match (&self.inner.listen).read(&mut bytes) {
                Ok(count) if count == bytes.len() => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        let completions =
            std::mem::take(&mut *self.inner.completions.lock().unwrap_or_else(PoisonError::into_inner));
        let mut failed = Ok(());
        for completion in completions {
            // An error of one future does not delay the answers of the others.
            failed = failed.and(completion.complete(py));
        }
        lent::take_back(py);
        failed
    }
}

impl Completion {
    fn complete(self, py: Python<'_>) -> PyResult<()> {
        let Some(future) = take(&self.waiting) else { return Ok(()) };
        let future = future.back(py).into_bound(py);
        // A cancelled future has no waiter.
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

/// A running call.
#[pyclass(frozen, module = "graviton._graviton")]
pub(crate) struct Task {
    handle: Held<AbortHandle>,
    /// Weak, because the future refers back to this, and Python's collector could not see that cycle.
    waiting: Weak<Mutex<Option<Lent<Py<PyAny>>>>>,
}

#[pymethods]
impl Task {
    /// Drops the call at its current point, and its future, which gets no answer. Does nothing if the call
    /// has ended.
    fn abort(&self, py: Python<'_>) {
        // In a forked child, the call belongs to the parent.
        let Ok(handle) = self.handle.get() else { return };
        handle.abort();
        drop(self.waiting.upgrade().and_then(|waiting| take(&waiting)));
        lent::take_back(py);
    }
}

/// The destination of an answer. Every call has one and gets an answer, unless the caller has ended the call;
/// otherwise the caller would wait for ever.
pub(crate) struct Reply {
    queue: Arc<Inner>,
    waiting: Option<PendingFuture>,
}

impl Reply {
    pub(crate) fn new(queue: &Bound<'_, AnswerQueue>, future: Py<PyAny>) -> Reply {
        Reply {
            queue: Arc::clone(&queue.get().inner),
            waiting: Some(Arc::new(Mutex::new(Some(Lent::new(future))))),
        }
    }

    fn send(mut self, answer: Answer) {
        if let Some(waiting) = self.waiting.take() {
            self.queue.post(Completion { waiting, answer });
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        // An answer without a receiver is not posted, because its event loop may be gone.
        let unanswered =
            |waiting: &PendingFuture| waiting.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if let Some(waiting) = self.waiting.take().filter(unanswered) {
            let answer: Answer = Box::new(|py| {
                let error = Error::new(Code::Cancelled, "the call was ended before it was done");
                Err(errors::exception(py, &error))
            });
            self.queue.post(Completion { waiting, answer });
        }
    }
}

/// Begins a call. `convert` turns its result into a Python object.
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
        // The error is raised here, and must not be posted too.
        reply.waiting = None;
        errors::exception(py, &error)
    })?;
    let waiting = reply.waiting.as_ref().map(Arc::downgrade).unwrap_or_default();
    let task = runtime.spawn(async move {
        let result = {
            // Never closed, so this always gets a turn.
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
    Ok(Task { handle: Held::new("the call", task.abort_handle()), waiting })
}

/// A part of the engine that Python code holds. It is dropped on the runtime, which it may need to clean up.
/// In a forked child it is never dropped, because its threads and locks are the parent's.
pub(crate) struct Held<T> {
    /// The name in errors, with its article.
    name: &'static str,
    process: Process,
    value: Option<T>,
}

impl<T> Held<T> {
    pub(crate) fn new(name: &'static str, value: T) -> Held<T> {
        Held { name, process: Process::this(), value: Some(value) }
    }

    pub(crate) fn get(&self) -> Result<&T> {
        self.process.check(self.name)?;
        self.value.as_ref().ok_or_else(|| Error::new(Code::Closed, format!("{} is closed", self.name)))
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        if !self.process.is_this() {
            std::mem::forget(self.value.take());
        } else if let Ok(runtime) = graviton_core::runtime() {
            let _entered = runtime.enter();
            drop(self.value.take());
        }
    }
}
