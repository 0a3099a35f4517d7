//! How much memory the bodies of requests and responses hold at once, however many clients there are and however slow
//! they are to send or to take them (`GRAVITON_HTTP_MEMORY`, for each of the two directions).
//!
//! It is taken before the bytes are there, and given back when they are gone. Who waits for it for too long is
//! `overloaded`; nobody waits for ever, so that those who have some and want more cannot block each other.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use graviton_core::Code;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::Problem;

/// A permit is so many bytes.
const UNIT: u64 = 1 << 10;

/// For so long somebody waits for memory.
const PATIENCE: Duration = Duration::from_secs(10);

/// The memory of one direction.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    free: Arc<Semaphore>,
    all: u32,
}

/// Memory that is taken, until it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Held {
    permit: Option<OwnedSemaphorePermit>,
    /// What was asked for: permits are rounded up.
    bytes: u64,
}

impl Memory {
    pub(crate) fn new(bytes: u64) -> Memory {
        let all = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX).min(Semaphore::MAX_PERMITS as u32);
        Memory { free: Arc::new(Semaphore::new(all as usize)), all }
    }

    /// So many bytes; all that there is, if they are more.
    pub(crate) async fn hold(&self, bytes: u64) -> Result<Held, Problem> {
        let mut held = Held::default();
        self.grow(&mut held, bytes).await?;
        Ok(held)
    }

    /// So many bytes more.
    pub(crate) async fn grow(&self, held: &mut Held, more: u64) -> Result<(), Problem> {
        let bytes = held.bytes + more;
        let has = held.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits) as u32;
        let needs = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.all);
        if needs <= has {
            held.bytes = bytes;
            return Ok(());
        }
        let permits = Arc::clone(&self.free).acquire_many_owned(needs - has);
        let Ok(Ok(permit)) = tokio::time::timeout(PATIENCE, permits).await else {
            let why =
                "too many clients are slow to send or to take what they asked for; try again in a moment";
            return Err(Problem::new(Code::Overloaded, why));
        };
        held.bytes = bytes;
        match &mut held.permit {
            Some(permits) => permits.merge(permit),
            none => *none = Some(permit),
        }
        Ok(())
    }
}

impl Held {
    /// These bytes, which give the memory back when the last part of them is dropped.
    pub(crate) fn around(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Around { bytes, _held: self })
    }
}

struct Around {
    bytes: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for Around {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_not_there_is_waited_for_and_then_refused() {
        let memory = Memory::new(10 << 10);
        let mut first = memory.hold(5 << 10).await.unwrap();
        let second = memory.hold(1 << 10).await.unwrap();
        assert_eq!(memory.hold(5 << 10).await.unwrap_err().code(), Code::Overloaded);
        assert_eq!(memory.grow(&mut first, 5 << 10).await.unwrap_err().code(), Code::Overloaded);
        let part = first.around(Bytes::from_static(b"some bytes")).slice(2..3);
        drop(second);
        assert!(memory.hold(6 << 10).await.is_err());
        drop(part);
        // More than there is takes all.
        let all = memory.hold(1 << 40).await.unwrap();
        assert!(memory.hold(1).await.is_err());
        drop(all);
        memory.hold(10 << 10).await.unwrap();
    }

    #[tokio::test]
    async fn growing_by_little_takes_no_more_than_the_sum() {
        let memory = Memory::new(4 << 10);
        let mut held = Held::default();
        for _ in 0..4096 {
            memory.grow(&mut held, 1).await.unwrap();
        }
        assert_eq!(memory.free.available_permits(), 0);
    }
}
