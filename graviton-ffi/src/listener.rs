//! A callback that reports on long work: it gets a report and a list, during the work and at its end.

use std::ffi::c_void;
use std::ops::ControlFlow;

use crate::callback::{Userdata, check_stop, flow};
use crate::panic::Outcome;
use crate::pointer::first;
use crate::versioned::{Report, Versioned};

type Callback<R, L> =
    Option<unsafe extern "C" fn(userdata: *mut c_void, report: *const R, list: *const L) -> i32>;

/// The callback of one call, with its last answer.
pub(crate) struct Listener<R, L> {
    callback: Callback<R, L>,
    userdata: Userdata,
    returned: i32,
}

impl<R: Versioned, L> Listener<R, L> {
    /// # Safety
    /// The callback may be called with this userdata for as long as the listener is used.
    pub(crate) unsafe fn new(callback: Callback<R, L>, userdata: *mut c_void) -> Listener<R, L> {
        Listener { callback, userdata: Userdata(userdata), returned: 0 }
    }

    /// Tells the callback, and returns whether to go on.
    pub(crate) fn tell<'a, Core, Item>(&mut self, report: &'a Core, list: &'a [Item]) -> ControlFlow<()>
    where
        R: From<&'a Core>,
        L: From<&'a Item>,
    {
        if let Some(callback) = self.callback {
            let list: Vec<L> = list.iter().map(L::from).collect();
            // SAFETY: by the contract of `new`; both live until it returns.
            self.returned = unsafe { callback(self.userdata.get(), &R::from(report), first(&list)) };
        }
        flow(self.returned)
    }

    /// Tells the callback the last report, unless it aborted the call, and gives the report to the caller.
    pub(crate) fn end<'a, Core, Item>(
        mut self,
        report: &'a Core,
        list: &'a [Item],
        out: Option<Report<R>>,
    ) -> Outcome<()>
    where
        R: From<&'a Core>,
        L: From<&'a Item>,
    {
        check_stop(self.returned)?;
        // The work is over: the answer changes nothing.
        let _ = self.tell(report, list);
        if let Some(out) = out {
            out.set(&report.into());
        }
        Ok(())
    }
}
