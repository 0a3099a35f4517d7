//! The memory that a put's bytes pass through: a few large buffers, used again and again.
//!
//! A source fills the body of a buffer. The cutter moves the bytes that did not make a whole block yet in
//! front of the next buffer's body, into its headroom, so that every block is one slice of one buffer and
//! is copied no more. A buffer comes back when the last slice of it is dropped. The number of a put's
//! buffers is its window: a source that is faster than the disk waits for one.
//!
//! Fresh memory is dear (the system clears it, a virtual machine's host has to find it), so buffers are
//! kept for the next put.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Code, Error, Result};

/// So many bytes of a stream are read, cut and hashed as one piece of work; less in a small window, but never
/// less than a small blob has.
const BODY: usize = 4 << 20;
const LEAST_BODY: usize = 1 << 20;

/// The free buffers of a store, all of one size.
#[derive(Debug)]
pub(super) struct Buffers {
    headroom: usize,
    body: usize,
    /// How many buffers a put may have.
    window: usize,
    free: Mutex<Vec<Vec<u8>>>,
}

/// How many a put may still take.
#[derive(Debug, Clone)]
pub(super) struct Window(Arc<Semaphore>);

/// A buffer, and its place in the window.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    pool: Arc<Buffers>,
    _permit: OwnedSemaphorePermit,
}

impl Buffers {
    /// Buffers for blocks of up to `max_block` bytes, of which a put uses `window` bytes, but at least
    /// three buffers: one being filled, one being cut, one being written.
    pub(super) fn new(max_block: usize, window: usize) -> Buffers {
        let body = BODY.min(window / 4).max(LEAST_BODY).max(max_block);
        let count = (window / (max_block + body)).max(3);
        Buffers { headroom: max_block, body, window: count, free: Mutex::new(Vec::new()) }
    }

    /// How many bytes of a stream one buffer takes.
    pub(super) fn body_size(&self) -> usize {
        self.body
    }

    pub(super) fn window(&self) -> Window {
        Window(Arc::new(Semaphore::new(self.window)))
    }

    /// Blocks of so many bytes may wait for others, so that they are pinned together: little enough that
    /// the source always finds a buffer.
    pub(super) fn batch_bytes(&self) -> usize {
        ((self.window - 2) * self.body / 3).max(1)
    }

    /// The next buffer of a put, as soon as one of its window is free.
    pub(super) async fn take(self: &Arc<Self>, window: &Window) -> Result<Buffer> {
        let permit = Arc::clone(&window.0).acquire_owned().await;
        let permit = permit.map_err(|_| Error::new(Code::Closed, "the store is closed"))?;
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = free.unwrap_or_else(|| vec![0; self.headroom + self.body]);
        Ok(Buffer { bytes, pool: Arc::clone(self), _permit: permit })
    }
}

impl Buffer {
    /// Where the source's bytes go.
    pub(super) fn body(&mut self) -> &mut [u8] {
        &mut self.bytes[self.pool.headroom..]
    }

    /// The bytes of the stream from `carried` on: these, and the first `filled` of the body.
    pub(super) fn freeze(mut self, carried: &[u8], filled: usize) -> Bytes {
        let start = self.pool.headroom - carried.len();
        let end = self.pool.headroom + filled;
        self.bytes[start..self.pool.headroom].copy_from_slice(carried);
        Bytes::from_owner(self).slice(start..end)
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
        if free.len() < self.pool.window {
            free.push(bytes);
        }
    }
}
