//! The memory that blocks are read into, which is reused.
//!
//! Fresh memory is expensive: the system clears each page when it is first touched, which took a third of the
//! time of a warm read. Keeping the memory of small blocks gains nothing.

use std::sync::{Arc, Mutex, PoisonError};

/// Smaller pieces come from the allocator, which keeps them itself.
const LEAST_KEPT: usize = 32 << 10;

/// The most bytes that are kept for the next reads.
const MOST_KEPT: usize = 16 << 20;

/// Idle memory. Clones are one pool.
#[derive(Debug, Clone, Default)]
pub(super) struct Pool(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    pieces: Vec<Vec<u8>>,
    bytes: usize,
}

/// A piece of memory, which goes back to its pool when it is dropped.
#[derive(Debug)]
pub(super) struct Memory {
    bytes: Vec<u8>,
    length: usize,
    pool: Pool,
}

impl Pool {
    /// Memory of this length, with arbitrary content.
    pub(super) fn take(&self, length: usize) -> Memory {
        let mut bytes = Vec::new();
        if length >= LEAST_KEPT {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // The most recently used piece is the most likely one to be in the processor's cache.
            if let Some(piece) = kept.pieces.pop() {
                kept.bytes -= piece.len();
                bytes = piece;
            }
        }
        if bytes.len() < length {
            // Rounded up, so that it fits most of the next blocks too.
            bytes = vec![0; if length < LEAST_KEPT { length } else { length.next_power_of_two() }];
        }
        Memory { bytes, length, pool: self.clone() }
    }
}

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl AsMut<[u8]> for Memory {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes.len() >= LEAST_KEPT {
            let mut kept = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.bytes + bytes.len() <= MOST_KEPT {
                kept.bytes += bytes.len();
                kept.pieces.push(bytes);
            }
        }
    }
}
