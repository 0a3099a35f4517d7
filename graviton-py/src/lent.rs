//! Python objects that the engine's threads hold, and how they are returned.
//!
//! The engine must not drop such an object: dropping a `Py` without the GIL takes a lock inside pyo3. A fork
//! copies that lock as it is, and if another thread holds it, the child waits for ever. So a [`Lent`] object
//! goes into a list of our own instead, and [`take_back`] drops it on a thread that has the GIL. A fork waits
//! until that list is not in use ([`at_forks`]), which never takes long, because no Python code runs
//! meanwhile.
//!
//! Rule: a `Py`, or a value that contains one, moves to another thread or out of the GIL only as `Lent`.

use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;

type Objects = Vec<Box<dyn Send>>;

/// Objects that the engine does not need any more.
static DONE_WITH: Mutex<Objects> = Mutex::new(Vec::new());

thread_local! {
    /// The locked list, while this thread forks.
    static FORKING: RefCell<Option<MutexGuard<'static, Objects>>> = const { RefCell::new(None) };
}

fn done_with() -> MutexGuard<'static, Objects> {
    DONE_WITH.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A Python object, or a value that holds one, which may be dropped on any thread and without the GIL.
pub(crate) struct Lent<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> Lent<T> {
    pub(crate) fn new(object: T) -> Lent<T> {
        Lent(Some(object))
    }

    /// The object itself, for a caller with the GIL.
    pub(crate) fn back(mut self, _py: Python<'_>) -> T {
        self.0.take().unwrap_or_else(|| unreachable!("it is taken here alone"))
    }
}

impl<T: AsRef<[u8]> + Send + 'static> AsRef<[u8]> for Lent<T> {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], AsRef::as_ref)
    }
}

impl<T: Send + 'static> Drop for Lent<T> {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            done_with().push(Box::new(object));
        }
    }
}

/// Drops the objects that the engine does not need any more.
pub(crate) fn take_back(_py: Python<'_>) {
    // Not under the lock, because dropping an object may run Python code.
    let objects = std::mem::take(&mut *done_with());
    drop(objects);
}

/// From now on, each fork of the process waits for the list, which is then unlocked in the parent and in the
/// child.
///
/// Not with `os.register_at_fork`: Python code of other libraries would run between those functions and the
/// fork, and could wait for a thread that waits for the list.
#[allow(unsafe_code)]
pub(crate) fn at_forks() -> PyResult<()> {
    // SAFETY: the functions exist as long as the process, because Python never unloads a module. They wait
    // only for threads that push to the list or take it, and touch nothing else.
    match unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(after_fork)) } {
        0 => Ok(()),
        error => Err(std::io::Error::from_raw_os_error(error).into()),
    }
}

extern "C" fn before_fork() {
    let list = done_with();
    FORKING.with_borrow_mut(|forking| *forking = Some(list));
}

/// Runs in the parent and in the child.
extern "C" fn after_fork() {
    FORKING.with_borrow_mut(Option::take);
}
