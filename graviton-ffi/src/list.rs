//! The blobs of a store, one by one.

use std::collections::VecDeque;
use std::sync::Mutex;

use graviton_core::{BlobId, BlobStat};

use crate::blob_id::{graviton_blob_id, read_id_if_given};
use crate::error::graviton_error;
use crate::guard::guard;
use crate::pointer::{borrow, exclusive, free, out};
use crate::reports::graviton_blob_stat;
use crate::session::Session;
use crate::status::graviton_status;
use crate::store::{graviton_store, session_of};
use crate::versioned::versioned_needed;

/// How many are requested at once.
const PAGE: usize = 256;

/// An iterator over the blobs of a store. Owned; free it with graviton_list_free. One thread at a time: a
/// second one gets GRAVITON_ERROR_INVALID_ARGUMENT.
pub struct graviton_list {
    session: Session,
    walk: Mutex<Walk>,
}

struct Walk {
    page: VecDeque<BlobStat>,
    after: Option<BlobId>,
    ended: bool,
}

/// Iterates over all live blobs, or those after `after`, ordered by algorithm, digest and size. Blobs that
/// are put or deleted meanwhile may or may not be included. `after` may be NULL. Free it with
/// graviton_list_free. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_list_open(
    store: *const graviton_store,
    after: *const graviton_blob_id,
    list: *mut *mut graviton_list,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let out = out(list, "list")?;
            let after = read_id_if_given(after, "after")?;
            let session = session_of(store, "store")?;
            session.check()?;
            let walk = Mutex::new(Walk { page: VecDeque::new(), after, ended: false });
            out.give(graviton_list { session: session.clone(), walk });
            Ok(())
        })
    }
}

/// The next blob: `*found` becomes 1 and `stat` is filled in, or `*found` becomes 0 at the end and `stat`
/// stays as it is. After an error it can be called again. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_list_next(
    list: *mut graviton_list,
    stat: *mut graviton_blob_stat,
    found: *mut i32,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let stat = versioned_needed(stat, "stat")?;
            let found = out(found, "found")?;
            let list = borrow(list, "list")?;
            list.session.check()?;
            let mut walk = exclusive(&list.walk, "list")?;
            if walk.page.is_empty() && !walk.ended {
                let page = list.session.run(|store| store.list(walk.after.as_ref(), PAGE))?;
                walk.ended = page.len() < PAGE;
                walk.after = page.last().map(|stat| stat.id).or(walk.after);
                walk.page = page.into();
            }
            let next = walk.page.pop_front();
            found.set(i32::from(next.is_some()));
            if let Some(next) = next {
                stat.set(&(&next).into());
            }
            Ok(())
        })
    }
}

/// Frees an iterator. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_list_free(list: *mut graviton_list) {
    // SAFETY: the caller keeps to the header.
    unsafe { free(list) }
}
