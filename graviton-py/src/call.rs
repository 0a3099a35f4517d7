//! Calls into the engine: without the GIL, and ended within 100 ms by a signal whose handler raises.
//!
//! While the engine waits, it asks [`Interrupts`] about every 50 ms; loops over pieces of data ask it between
//! pieces. Python runs signal handlers only on its main thread. On other threads the check costs almost
//! nothing, and the answer is always to continue.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use graviton_core::{Code, Error, Result};
use pyo3::prelude::*;

use crate::{errors, lent};

/// How often Python is asked for pending signals.
pub(crate) const PATIENCE: Duration = Duration::from_millis(50);

/// An exception of Python code during a call: of a signal handler, or of a function that was passed to the
/// call.
#[derive(Clone)]
pub(crate) struct Interrupts(Arc<Mutex<State>>);

struct State {
    raised: Option<PyErr>,
    asked: Instant,
}

impl Interrupts {
    fn new() -> Interrupts {
        Interrupts(Arc::new(Mutex::new(State { raised: None, asked: Instant::now() })))
    }

    /// Ends the call with the exception of a signal handler. Asks no more often than necessary.
    pub(crate) fn check(&self) -> Result<()> {
        if self.state().asked.elapsed() < PATIENCE {
            return Ok(());
        }
        self.check_now()
    }

    fn check_now(&self) -> Result<()> {
        self.state().asked = Instant::now();
        #[allow(
            clippy::redundant_closure_for_method_calls,
            reason = "the method itself is of one lifetime only"
        )]
        self.python(|py| py.check_signals())
    }

    /// Runs Python code. An exception in it ends the call, and the call raises it.
    pub(crate) fn python<T>(&self, code: impl FnOnce(Python<'_>) -> PyResult<T>) -> Result<T> {
        let result = Python::try_attach(|py| code(py).map_err(|raised| self.keep(raised)));
        // `None` if the interpreter is shutting down.
        result.and_then(std::result::Result::ok).ok_or_else(cancelled)
    }

    /// The first exception is kept. A second one is dropped here, where the GIL is held.
    fn keep(&self, raised: PyErr) {
        let mut state = self.state();
        if state.raised.is_none() {
            state.raised = Some(raised);
        } else {
            // Dropping an exception may run Python code.
            drop(state);
            drop(raised);
        }
    }

    /// Never locked while Python code runs.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cancelled() -> Error {
    Error::new(Code::Cancelled, "the call was interrupted")
}

/// Ends the work of another thread when the thread that waits for it drops this.
#[derive(Default)]
pub(crate) struct Stop(pub(crate) Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does the work without the GIL.
pub(crate) fn call<T: Send>(
    py: Python<'_>,
    work: impl FnOnce(&Interrupts) -> Result<T> + Send,
) -> PyResult<T> {
    let (result, raised) = py.detach(|| {
        let interrupts = Interrupts::new();
        let asked = interrupts.clone();
        let check = move || match asked.check_now() {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        };
        let result = graviton_core::interruptible(check, || work(&interrupts));
        let raised = interrupts.state().raised.take();
        (result, raised)
    });
    lent::take_back(py);
    match (result, raised) {
        (_, Some(raised)) => Err(raised),
        (Ok(value), None) => Ok(value),
        (Err(error), None) => Err(errors::exception(py, &error)),
    }
}
