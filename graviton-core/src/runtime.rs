//! The tokio runtime of the synchronous facade: one for each process, created when it is first needed.
//!
//! [`drive`] runs a future on the caller's own thread and parks the thread while it waits; the runtime's
//! threads drive timers, tasks and sockets. Unlike tokio's own `block_on`, which panics there, it also works
//! on a thread that belongs to another tokio runtime. It then blocks that thread, as any synchronous call
//! does, and cannot deadlock, because nothing that it waits for needs that thread.
//!
//! A forked child has none of its parent's threads. It creates its own runtime when it opens a store.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

use crate::blocking;
use crate::descriptor;
use crate::error::{Error, Result};
use crate::interrupt;
use crate::process::PerProcess;

static RUNTIME: PerProcess<Runtime> = PerProcess::new();

/// The runtime of this process, which drives every synchronous [`Store`](crate::Store) in it; made when first
/// needed.
///
/// For a binding or program that drives an [`AsyncStore`](crate::AsyncStore) and has no tokio runtime of its
/// own. It is multi-threaded, with a thread for each core.
pub fn of_this_process() -> Result<&'static Runtime> {
    RUNTIME.get_or_make(start)
}

fn start() -> Result<Runtime> {
    descriptor::occupy_standard();
    // And one each for work that blocks here and in tokio.
    try_threads(blocking::cores() + 2)?;
    // Where tokio finds that out, it may panic.
    descriptor::check_free(DESCRIPTORS)
        .map_err(|error| Error::io("cannot start the threads of the store", error))?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(blocking::cores())
        .thread_name("graviton")
        .thread_keep_alive(KEPT)
        .enable_all()
        .build()
        .map_err(|error| Error::io("cannot start the threads of the store", error))?;
    // Names are looked up on such a thread. One that is there takes what comes when no more can be had.
    drop(runtime.spawn_blocking(|| ()));
    Ok(runtime)
}

/// How long tokio keeps a thread that blocked: for ever. The store itself has its own (`threads`).
const KEPT: Duration = Duration::from_secs(1 << 31);

/// The files that a runtime opens, signals included.
const DESCRIPTORS: usize = 6;

/// Fails if the system starts no more threads. Where tokio finds that out, it panics.
fn try_threads(count: usize) -> Result<()> {
    let before = threads_now();
    let threads: Vec<_> = (0..count).map(|_| std::thread::Builder::new().spawn(std::thread::park)).collect();
    let mut result = Ok(());
    for thread in threads {
        match thread {
            Ok(thread) => {
                thread.thread().unpark();
                let _ = thread.join();
            }
            Err(error) => result = Err(error),
        }
    }
    // A thread that has ended counts a little longer than it can be joined.
    let deadline = Instant::now() + ENDING;
    while threads_now() > before && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    result.map_err(|error| Error::no_thread("cannot start the threads of the store", error))
}

/// For so long threads that have ended are waited for.
const ENDING: Duration = Duration::from_millis(200);

/// The threads of this process; 0 if that cannot be told.
fn threads_now() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

/// Wakes the thread, and notes that it did: a call that is made inside of another one's poll, by a callback,
/// waits on the same thread and takes its wake-ups.
struct Unpark {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// Runs the future to its end on this thread, which may block. The caller has entered a runtime.
pub(crate) fn drive<T>(future: impl Future<Output = T>) -> T {
    let driven = drive_with(future, || {
        std::thread::park();
        Ok::<(), std::convert::Infallible>(())
    });
    driven.unwrap_or_else(|never| match never {})
}

/// Like [`drive`]; calls `pause` whenever the future waits for something, and ends when that fails.
fn drive_with<T, E>(
    future: impl Future<Output = T>,
    mut pause: impl FnMut() -> std::result::Result<(), E>,
) -> std::result::Result<T, E> {
    let _may_block = blocking::may_block();
    // On a thread of another tokio runtime, whose scheduler never gets to renew the task's budget here.
    let mut future = pin!(tokio::task::unconstrained(future));
    // Most calls end at the first poll: no waker is made for them.
    if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        return Ok(result);
    }
    let unpark = Arc::new(Unpark { thread: std::thread::current(), woken: AtomicBool::new(false) });
    let waker = Waker::from(Arc::clone(&unpark));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut context) {
            return Ok(result);
        }
        while !unpark.woken.swap(false, Ordering::Acquire) {
            pause()?;
        }
    }
}

/// Runs the future to its end on this thread, on this process's runtime, unless the caller interrupts it.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> Result<T> {
    let _entered = of_this_process()?.enter();
    if !interrupt::is_watched() {
        return Ok(drive(future));
    }
    interrupt::ask()?;
    drive_with(future, || {
        std::thread::park_timeout(interrupt::PERIOD);
        interrupt::ask()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A callback may call the store while another call is being polled. Without the note in [`Unpark`] this
    /// hangs.
    #[test]
    fn a_nested_call_does_not_take_the_wake_up_of_the_outer_one() {
        let mut polls = 0;
        let outer = std::future::poll_fn(|context| {
            polls += 1;
            context.waker().wake_by_ref();
            // The first poll has no waker that counts.
            match polls {
                1 => return Poll::Pending,
                2 => {}
                _ => return Poll::Ready(()),
            }
            block_on(tokio::time::sleep(Duration::from_millis(1))).unwrap();
            Poll::Pending
        });
        block_on(outer).unwrap();
    }
}
