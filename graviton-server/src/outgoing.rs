//! Bytes going out: a block, or a blob block by block, in pieces that a client takes one after the other.
//!
//! Everything that is held for a client is taken from the server's memory ([`Budget`]) before it is fetched: the block
//! that is being sent, for as long as a piece of it is somewhere, and what is fetched ahead. While memory is scarce
//! nothing is fetched ahead, and the connection is given one small piece at a time, a copy, so that the block can go if
//! the client does not come back for its rest; it is fetched again when the client does.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use graviton_core::{AsyncStore, BlobReader, BlockKey, Result};
use tokio::sync::Notify;

use crate::app::{App, Downloading};
use crate::connection::{Connection, Progress};
use crate::memory::{Budget, Held, Parked};
use crate::problem::Problem;

/// The pieces, as large as what a client has to take within the idle time-out; smaller while memory is scarce.
const PIECE: u64 = 256 << 10;
const SMALL_PIECE: u64 = 32 << 10;

/// A blob of up to so many bytes is looked up and read at once.
pub(crate) const SMALL_BLOB: u64 = 64 << 10;

/// One download fetches no more than this ahead.
const MOST_AHEAD: u64 = 32 << 20;

/// With less than this it is not worth while.
const LEAST_AHEAD: u64 = 256 << 10;

/// Where the bytes come from.
#[expect(clippy::large_enum_variant, reason = "most are blobs, and each is in one place")]
pub(crate) enum Source {
    Blob(BlobReader),
    Block(Block),
}

/// A block that is sent by itself.
pub(crate) struct Block {
    store: AsyncStore,
    key: BlockKey,
    bytes: Option<Bytes>,
    position: u64,
}

impl Block {
    pub(crate) fn new(store: &AsyncStore, key: BlockKey) -> Block {
        Block { store: store.clone(), key, bytes: None, position: 0 }
    }

    async fn next_up_to(&mut self, most: u64) -> Result<Option<Bytes>> {
        let size = self.key.size() as u64;
        if self.position >= size {
            return Ok(None);
        }
        let bytes = match self.bytes.take() {
            Some(bytes) => bytes,
            None => self.store.block(&self.key).await?,
        };
        let end = (self.position + most).min(size);
        let piece = bytes.slice(self.position as usize..end as usize);
        self.bytes = Some(bytes);
        self.position = end;
        Ok(Some(piece))
    }
}

impl Source {
    /// The block that the next byte is in, as a range of all bytes; `None` at the end.
    async fn block(&mut self) -> Result<Option<Range<u64>>> {
        match self {
            Source::Blob(reader) => reader.block().await,
            Source::Block(block) => {
                let size = block.key.size() as u64;
                Ok((block.position < size).then_some(0..size))
            }
        }
    }

    async fn next_up_to(&mut self, most: u64) -> Result<Option<Bytes>> {
        match self {
            Source::Blob(reader) => reader.next_up_to(most).await,
            Source::Block(block) => block.next_up_to(most).await,
        }
    }

    fn release(&mut self) {
        match self {
            Source::Blob(reader) => reader.release(),
            Source::Block(block) => block.bytes = None,
        }
    }
}

/// A download under way.
pub(crate) struct Outgoing {
    budget: Arc<Budget>,
    /// Where what is kept for the next piece lies while the client is at the last one.
    parked: Arc<Parking>,
    downloading: Downloading,
    taking: Arc<Taking>,
}

/// How the client takes what the connection was given.
struct Taking {
    progress: Arc<Progress>,
    /// Pieces that are not yet gone.
    pieces: AtomicUsize,
    gone: Notify,
}

/// What is kept from one piece to the next.
struct Kept {
    source: Source,
    /// The block that is being sent, and its memory, which its pieces share.
    block: Range<u64>,
    held: Option<Arc<Held>>,
    /// The memory of a piece that is a copy.
    copy: Option<Arc<Held>>,
    ahead: Held,
    since: Instant,
}

impl Kept {
    fn release(&mut self) -> u64 {
        self.source.release();
        let ahead = std::mem::take(&mut self.ahead).bytes();
        // Pieces of it that are still with the connection keep the block.
        let block = self.held.take().and_then(Arc::into_inner).map_or(0, |held| held.bytes());
        self.block = 0..0;
        ahead + block
    }

    /// This block is sent now, and this is its memory and that of a copy of a piece of it.
    fn send(&mut self, block: Range<u64>, mut held: Held) -> Arc<Held> {
        let copy = held.bytes().saturating_sub(block.end - block.start).min(SMALL_PIECE);
        self.copy = (copy == SMALL_PIECE).then(|| Arc::new(held.split(copy)));
        self.block = block;
        Arc::clone(self.held.insert(Arc::new(held)))
    }
}

struct Parking(Mutex<Option<Kept>>);

impl Parking {
    fn take(&self) -> Option<Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, kept: Kept) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
    }
}

impl Parked for Parking {
    fn since(&self) -> Option<Instant> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().filter(|kept| kept.held.is_some()).map(|kept| kept.since)
    }

    fn give_back(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map_or(0, Kept::release)
    }
}

/// A piece as the connection has it: until it is gone, its memory is held, and the client has something to take.
struct Piece {
    bytes: Bytes,
    _held: Arc<Held>,
    taking: Arc<Taking>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.taking.progress.touch();
        self.taking.pieces.fetch_sub(1, Ordering::Relaxed);
        self.taking.gone.notify_one();
    }
}

impl Outgoing {
    /// Sends these bytes, one block after the other. Waits for the memory of the first, unless it was taken already, and is
    /// `overloaded` if there is none for a while.
    pub(crate) async fn new(
        app: &App,
        connection: &Connection,
        mut source: Source,
        held: Option<Held>,
    ) -> Result<Outgoing, Problem> {
        let block = source.block().await?.unwrap_or_default();
        let held = match held {
            Some(held) => held,
            None => app.outgoing().take_soon(block.end - block.start + SMALL_PIECE).await?,
        };
        let ahead = Held::default();
        let mut kept = Kept { source, block: 0..0, held: None, copy: None, ahead, since: Instant::now() };
        kept.send(block, held);
        Ok(Outgoing {
            budget: Arc::clone(app.outgoing()),
            parked: Arc::new(Parking(Mutex::new(Some(kept)))),
            downloading: app.downloading(),
            taking: Arc::new(Taking {
                progress: connection.download(),
                pieces: AtomicUsize::new(0),
                gone: Notify::new(),
            }),
        })
    }

    /// It goes on beyond its first piece: from now on, what is kept while the client does not come back can be taken away.
    pub(crate) fn park(&self) {
        self.budget.register(&self.parked);
    }

    /// Goes on at this place of the blob, and to that one. Nothing for a block, which is sent whole.
    pub(crate) fn go(&mut self, range: &Range<u64>) {
        let mut kept = self.parked.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Kept { source: Source::Blob(reader), .. }) = &mut *kept {
            reader.limit(range.end);
            reader.seek(range.start);
        }
    }

    /// The next bytes, verified; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        let taking = Arc::clone(&self.taking);
        while self.budget.is_half_taken() && taking.pieces.load(Ordering::Relaxed) > 0 {
            taking.gone.notified().await;
        }
        // From here on it is not the client who is late.
        let _ours = taking.progress.ours();
        // It is there but for an earlier error, after which there is nothing more.
        let Some(mut kept) = self.parked.take() else { return Ok(None) };
        let next = self.next_of(&mut kept).await?;
        kept.since = Instant::now();
        self.parked.put(kept);
        Ok(next)
    }

    async fn next_of(&mut self, kept: &mut Kept) -> Result<Option<Bytes>> {
        let Some(block) = kept.source.block().await? else { return Ok(None) };
        let held = match &kept.held {
            Some(held) if kept.block == block => Arc::clone(held),
            _ => self.move_to(kept, block).await,
        };
        let scarce = self.budget.is_half_taken();
        let Some(bytes) = kept.source.next_up_to(if scarce { SMALL_PIECE } else { PIECE }).await? else {
            return Ok(None);
        };
        self.downloading.sent(bytes.len());
        let whole = bytes.len() as u64 == kept.block.end - kept.block.start;
        let (bytes, held) = match &kept.copy {
            Some(copy) if scarce && !whole => (Bytes::copy_from_slice(&bytes), Arc::clone(copy)),
            _ => (bytes, held),
        };
        self.taking.pieces.fetch_add(1, Ordering::Relaxed);
        Ok(Some(Bytes::from_owner(Piece { bytes, _held: held, taking: Arc::clone(&self.taking) })))
    }

    /// Takes the memory of the next block, and of what may be fetched ahead of it.
    async fn move_to(&self, kept: &mut Kept, block: Range<u64>) -> Arc<Held> {
        (kept.held, kept.copy) = (None, None);
        let size = block.end - block.start;
        let held = if let Some(held) = self.budget.try_take(size + SMALL_PIECE) {
            held
        } else {
            // Whoever waits holds nothing.
            kept.release();
            self.budget.take(size + SMALL_PIECE).await
        };
        let held = kept.send(block, held);
        if let Source::Blob(reader) = &mut kept.source {
            let share = self.downloading.share(self.budget.figures().0 / 4).min(MOST_AHEAD);
            let wanted = if share < LEAST_AHEAD || self.budget.is_half_taken() { 0 } else { share };
            if kept.ahead.bytes() < wanted {
                // The last block that is fetched may lie across the limit.
                let more = self.budget.try_take(wanted + size - kept.ahead.bytes().min(wanted));
                kept.ahead.add(more.unwrap_or_default());
            }
            let mut allowed = kept.ahead.bytes().saturating_sub(size).min(wanted);
            if wanted == 0 && reader.ahead() == 0 {
                kept.ahead = Held::default();
                allowed = 0;
            }
            reader.limit_ahead(allowed);
        }
        held
    }
}
