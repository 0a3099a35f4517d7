//! Interrupts a synchronous call: for a signal, a cancel button, or an exception of another language.
//!
//! The check runs on the caller's own thread, so that it may use the state of that thread (of an interpreter,
//! say). An ended call is dropped like a future: its partial work is cleaned up as after any failed call.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::error::{Code, Error, Result};

/// How long a thread that waits goes without asking.
pub(crate) const PERIOD: Duration = Duration::from_millis(50);

struct Watch {
    check: Box<dyn FnMut() -> ControlFlow<()>>,
    asked: Instant,
}

thread_local! {
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

/// Runs `call`. Every synchronous call to Graviton that it makes on this thread runs `check` about every 50
/// ms while it waits, on this thread, and ends with `cancelled` once `check` breaks.
///
/// Short work, such as a put of a small blob or a page of a list, is not interrupted. A collection and a
/// verification have checks of their own, after each step. `check` does not run inside itself. Of nested
/// scopes the inner one counts; [`uninterrupted`] makes one without a check.
///
/// ```
/// # let directory = tempfile::tempdir().unwrap();
/// use graviton_core::{Code, Store, interruptible};
/// use std::ops::ControlFlow;
///
/// let store = Store::open(directory.path())?;
/// // A source that never ends, until somebody has had enough.
/// let put = interruptible(|| ControlFlow::Break(()), || store.put(std::io::repeat(7)));
/// assert_eq!(put.unwrap_err().code(), Code::Cancelled);
/// # Ok::<(), graviton_core::Error>(())
/// ```
pub fn interruptible<T>(check: impl FnMut() -> ControlFlow<()> + 'static, call: impl FnOnce() -> T) -> T {
    let watch = Watch { check: Box::new(check), asked: Instant::now() };
    let _outer = Outer(WATCH.replace(Some(watch)));
    call()
}

/// Runs `call` without a check: for a call in a callback of an [`interruptible`] call, whose check must not
/// end it.
pub fn uninterrupted<T>(call: impl FnOnce() -> T) -> T {
    let _outer = Outer(WATCH.take());
    call()
}

/// The scope around this one, which counts again when this one ends.
struct Outer(Option<Watch>);

impl Drop for Outer {
    fn drop(&mut self) {
        WATCH.set(self.0.take());
    }
}

/// Whether a call on this thread may be ended before its time.
pub(crate) fn is_watched() -> bool {
    WATCH.with_borrow(Option::is_some)
}

/// Asks, if it is time.
pub(crate) fn ask() -> Result<()> {
    let due = WATCH.with_borrow(|watch| watch.as_ref().is_some_and(|watch| watch.asked.elapsed() >= PERIOD));
    // Taken: a check that calls a store itself is not asked there.
    let Some(mut watch) = due.then(|| WATCH.take()).flatten() else { return Ok(()) };
    let answer = (watch.check)();
    watch.asked = Instant::now();
    WATCH.set(Some(watch));
    match answer {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::new(Code::Cancelled, "the caller cancelled it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime;
    use std::cell::Cell;
    use std::rc::Rc;

    fn never() -> Result<()> {
        runtime::block_on(std::future::pending())?
    }

    #[test]
    fn a_call_that_waits_asks_until_it_is_ended_and_later_calls_do_not() {
        let asked = Rc::new(Cell::new(0));
        let counted = Rc::clone(&asked);
        let check = move || {
            counted.set(counted.get() + 1);
            if counted.get() == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        assert_eq!(interruptible(check, never).unwrap_err().code(), Code::Cancelled);
        assert_eq!(asked.get(), 3);
        assert!(!is_watched());
    }

    #[test]
    fn the_inner_scope_counts_and_a_check_may_call() {
        let inner = || interruptible(|| ControlFlow::Break(()), never);
        let outer = || {
            // Not asked in here, or it would never end.
            runtime::block_on(tokio::time::sleep(2 * PERIOD)).unwrap();
            ControlFlow::Break(())
        };
        let both = interruptible(outer, || (inner(), never()));
        assert_eq!(both.0.unwrap_err().code(), Code::Cancelled);
        assert_eq!(both.1.unwrap_err().code(), Code::Cancelled);
    }

    #[test]
    fn a_call_that_is_not_to_be_interrupted_is_not_asked_for_and_the_scope_around_it_goes_on() {
        let nap = || runtime::block_on(async { tokio::time::sleep(2 * PERIOD).await });
        let both =
            interruptible(|| ControlFlow::Break(()), || (uninterrupted(|| (is_watched(), nap())), never()));
        assert!(!both.0.0 && both.0.1.is_ok());
        assert_eq!(both.1.unwrap_err().code(), Code::Cancelled);
    }

    #[test]
    fn a_panic_in_the_check_leaves_nothing_behind() {
        let caught = std::panic::catch_unwind(|| interruptible(|| panic!("on purpose"), never));
        assert!(caught.is_err() && !is_watched());
    }
}
