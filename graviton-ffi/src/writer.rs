//! A blob going in piece by piece.

use std::io::Write;
use std::sync::Mutex;

use graviton_core::{Error, Writer};

use crate::blob_id::{graviton_blob_id, read_id_if_given};
use crate::error::graviton_error;
use crate::panic::{Outcome, guard};
use crate::pointer::{borrow, exclusive, free, invalid, out, slice, versioned_out};
use crate::put::graviton_put_receipt;
use crate::session::Session;
use crate::status::graviton_status;
use crate::store::graviton_store;

/// A blob being written. Owned; free it with graviton_writer_free, which aborts what was not finished. One thread at a time:
/// a second one gets GRAVITON_ERROR_INVALID_ARGUMENT.
pub struct graviton_writer {
    session: Session,
    state: Mutex<State>,
}

enum State {
    Open(Writer),
    Finished,
    /// After an error, which every later call gets again.
    Failed(Error),
}

impl graviton_writer {
    fn with<T>(&self, call: impl FnOnce(&Session, &mut State) -> Outcome<T>) -> Outcome<T> {
        // First, for in a forked child the lock may be held by a thread that is not there.
        self.session.check()?;
        call(&self.session, &mut *exclusive(&self.state, "writer")?)
    }
}

fn finished() -> Error {
    invalid("this writer is finished").with_advice("open another one")
}

/// Opens a writer. With `expected`, only content with this id is committed, and any other is GRAVITON_ERROR_DIGEST_MISMATCH;
/// `expected` may be NULL. Free it with graviton_writer_free, before or after the store. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_writer_open(
    store: *const graviton_store,
    expected: *const graviton_blob_id,
    writer: *mut *mut graviton_writer,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let out = out(writer, "writer")?;
            let expected = read_id_if_given(expected, "expected")?;
            let session = borrow(store, "store")?.session();
            let writer = session.run(|store| match &expected {
                Some(id) => store.writer_expecting(id),
                None => store.writer(),
            })?;
            out.give(graviton_writer { session: session.clone(), state: Mutex::new(State::Open(writer)) });
            Ok(())
        })
    }
}

/// Takes the next `length` bytes of the blob: all of them, or it fails. `bytes` may be NULL if `length` is 0. After an error
/// every later call on this writer gives it again, and the writer can only be freed; but a wrong argument, or use by two
/// threads at once, leaves it as it was. Blocks while the store is slower than the caller.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_writer_write(
    writer: *mut graviton_writer,
    bytes: *const u8,
    length: usize,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let bytes = slice(bytes, length, "bytes")?;
            borrow(writer, "writer")?.with(|session, state| {
                let open = match state {
                    State::Open(writer) => writer,
                    State::Finished => return Err(finished().into()),
                    State::Failed(error) => return Err(error.clone().into()),
                };
                let written = session.run_checked(|| Ok(open.write_all(bytes)?));
                if let Err(failure) = &written {
                    *state = State::Failed(failure.error.clone());
                }
                written
            })
        })
    }
}

/// How many bytes were written so far, into `*size`. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_writer_size(
    writer: *const graviton_writer,
    size: *mut u64,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let out = out(size, "size")?;
            borrow(writer, "writer")?.with(|_, state| match state {
                State::Open(writer) => {
                    out.set(writer.size());
                    Ok(())
                }
                State::Finished => Err(finished().into()),
                State::Failed(error) => Err(error.clone().into()),
            })
        })
    }
}

/// Commits the blob: it is visible, and as durable as the store is configured, when this returns. The writer can then only be
/// freed; writing on is GRAVITON_ERROR_INVALID_ARGUMENT. `receipt` may be NULL. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_writer_finish(
    writer: *mut graviton_writer,
    receipt: *mut graviton_put_receipt,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let out = versioned_out(receipt)?;
            let receipt = borrow(writer, "writer")?.with(|session, state| {
                match std::mem::replace(state, State::Finished) {
                    State::Open(writer) => session.run_checked(|| writer.finish()).inspect_err(|failure| {
                        *state = State::Failed(failure.error.clone());
                    }),
                    State::Finished => Err(finished().into()),
                    State::Failed(error) => {
                        *state = State::Failed(error.clone());
                        Err(error.into())
                    }
                }
            })?;
            if let Some(out) = out {
                out.set((&receipt).into());
            }
            Ok(())
        })
    }
}

/// Frees a writer; what it had not finished is aborted and leaves nothing. NULL is fine. In a forked child it only
/// forgets the handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_writer_free(writer: *mut graviton_writer) {
    // SAFETY: the caller keeps to the header.
    unsafe { free(writer) }
}
