//! The memory that a put's bytes pass through: a few large buffers that are reused.
//!
//! A source fills the body of a buffer. The cutter moves the bytes that do not make a whole block yet into
//! the headroom in front of the next buffer's body, so that every block is one slice of one buffer and is
//! never copied again. A buffer is free again when its last slice is dropped. The number of a put's buffers
//! is its window: a source that is faster than the disk waits for a buffer. Beyond its window a put may use
//! buffers that all puts share, while some are free.
//!
//! A stream that is already in memory needs no buffers. Its parts still count as buffers in the window, which
//! bounds the work in progress.
//!
//! Fresh memory is slow (the system clears each page), so buffers are kept for the next put.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::error::{Code, Error, Result};

/// How many bytes of a stream are read, cut and hashed as one piece of work. A small window has less, but
/// never less than a small blob.
const BODY: usize = 4 << 20;
const LEAST_BODY: usize = 1 << 20;

/// The free buffers of a store, all of one size.
#[derive(Debug)]
pub(super) struct Buffers {
    headroom: usize,
    body: usize,
    /// How many buffers a put may have in any case.
    window: usize,
    /// The buffers that puts may use beyond their windows, and how many of them there are.
    shared: Arc<Semaphore>,
    most_shared: usize,
    free: Mutex<Vec<Vec<u8>>>,
}

/// How many buffers a put may still take, and whether its source waits for one.
#[derive(Debug, Clone)]
pub(super) struct Window {
    own: Arc<Semaphore>,
    source: Arc<Source>,
}

#[derive(Debug, Default)]
struct Source {
    waits: AtomicBool,
    begins_to_wait: Notify,
}

/// A buffer, and its place in the window.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    pool: Arc<Buffers>,
    _permit: OwnedSemaphorePermit,
}

impl Buffers {
    /// Buffers for blocks of up to `max_block` bytes. A put uses `window` bytes of them, but at least three
    /// buffers: one being filled, one being cut, one being written. All puts share another `shared` bytes.
    pub(super) fn new(max_block: usize, window: usize, shared: usize) -> Buffers {
        let body = BODY.min(window / 4).max(LEAST_BODY).max(max_block);
        let most_shared = shared / (max_block + body);
        Buffers {
            headroom: max_block,
            body,
            window: (window / (max_block + body)).max(3),
            shared: Arc::new(Semaphore::new(most_shared)),
            most_shared,
            free: Mutex::new(Vec::new()),
        }
    }

    /// How many bytes of a stream one buffer takes.
    pub(super) fn body_size(&self) -> usize {
        self.body
    }

    pub(super) fn window(&self) -> Window {
        Window { own: Arc::new(Semaphore::new(self.window)), source: Arc::default() }
    }

    /// How many bytes of blocks may wait for others, so that they are pinned together. While the source waits
    /// for a buffer, the number is small enough that it gets one of its own as soon as the blocks that do not
    /// wait are written.
    pub(super) fn batch_bytes(&self, window: &Window) -> usize {
        let shared = if window.source_waits() { 0 } else { self.most_shared };
        ((self.window + shared - 2) * self.body / 3).max(1)
    }

    /// The next buffer of a put, as soon as one is free for it.
    pub(super) async fn take(self: &Arc<Self>, window: &Window) -> Result<Buffer> {
        let permit = self.permit(window).await?;
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = free.unwrap_or_else(|| vec![0; self.headroom + self.body]);
        Ok(Buffer { bytes, pool: Arc::clone(self), _permit: permit })
    }

    /// The part of `whole` from `start` on, as long as a buffer's body, as soon as the put may have another
    /// buffer.
    pub(super) async fn part(&self, window: &Window, whole: &Bytes, start: usize) -> Result<Filled> {
        let permit = self.permit(window).await?;
        let range = start..whole.len().min(start + self.body);
        Ok(Filled::Part(Part { whole: whole.clone(), _permit: permit }, range))
    }

    async fn permit(&self, window: &Window) -> Result<OwnedSemaphorePermit> {
        let free =
            [&window.own, &self.shared].into_iter().find_map(|from| from.clone().try_acquire_owned().ok());
        let permit = if let Some(permit) = free {
            permit
        } else {
            window.source.waits.store(true, Ordering::SeqCst);
            window.source.begins_to_wait.notify_one();
            let permit = tokio::select! {
                permit = window.own.clone().acquire_owned() => permit,
                permit = self.shared.clone().acquire_owned() => permit,
            };
            permit.map_err(|_| Error::new(Code::Closed, "the store is closed"))?
        };
        window.source.waits.store(false, Ordering::SeqCst);
        Ok(permit)
    }
}

impl Window {
    /// Whether the source waits for a buffer.
    fn source_waits(&self) -> bool {
        self.source.waits.load(Ordering::SeqCst)
    }

    /// Waits until the source starts to wait for a buffer.
    pub(super) async fn until_source_waits(&self) {
        self.source.begins_to_wait.notified().await;
    }
}

impl Buffer {
    /// The memory that the source fills.
    pub(super) fn body(&mut self) -> &mut [u8] {
        &mut self.bytes[self.pool.headroom..]
    }

    /// The bytes of the stream from `carried` on: `carried` itself, and the first `filled` bytes of the body.
    fn freeze(mut self, carried: &[u8], filled: usize) -> Bytes {
        let start = self.pool.headroom - carried.len();
        let end = self.pool.headroom + filled;
        self.bytes[start..self.pool.headroom].copy_from_slice(carried);
        Bytes::from_owner(self).slice(start..end)
    }
}

/// The next bytes of a stream.
#[derive(Debug)]
pub(super) enum Filled {
    /// The first bytes of a buffer's body.
    Buffer(Buffer, usize),
    Part(Part, Range<usize>),
}

/// Memory that holds the whole stream, and a part's place in the window.
#[derive(Debug)]
pub(super) struct Part {
    whole: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl Filled {
    /// How many bytes it brings.
    pub(super) fn len(&self) -> usize {
        match self {
            Filled::Buffer(_, filled) => *filled,
            Filled::Part(_, range) => range.len(),
        }
    }

    /// The bytes of the stream from `carried` on; `carried` came right before these.
    pub(super) fn after(self, carried: &[u8]) -> Bytes {
        match self {
            Filled::Buffer(buffer, filled) => buffer.freeze(carried, filled),
            Filled::Part(part, range) => {
                Bytes::from_owner(part).slice(range.start - carried.len()..range.end)
            }
        }
    }
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.whole
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut free = self.pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < self.pool.window + self.pool.most_shared {
            free.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_all_share_comes_on_top_of_what_each_has() {
        let buffers = Arc::new(Buffers::new(1 << 20, 6 << 20, 4 << 20));
        let (one, other) = (buffers.window(), buffers.window());
        let mut taken = Vec::new();
        while let Some(taking) = take_now(&buffers, &one) {
            taken.push(taking);
        }
        assert_eq!(taken.len(), buffers.window + buffers.most_shared);
        assert!(one.source_waits() && !other.source_waits());
        one.until_source_waits().await;
        // A put that comes later still has its own buffers.
        let own: Vec<Buffer> = (0..buffers.window).filter_map(|_| take_now(&buffers, &other)).collect();
        assert_eq!(own.len(), buffers.window);
        assert!(take_now(&buffers, &other).is_none());
        drop(taken.pop());
        assert!(take_now(&buffers, &other).is_some(), "what was shared is anybody's");
        assert!(!other.source_waits());
    }

    fn take_now(buffers: &Arc<Buffers>, window: &Window) -> Option<Buffer> {
        futures_util::FutureExt::now_or_never(buffers.take(window)).map(Result::unwrap)
    }
}
