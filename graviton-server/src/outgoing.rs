//! The bytes of a download: a block, or a blob block by block, in pieces that the client reads one after the
//! other.
//!
//! A download takes memory from the [`Budget`] before it fetches: for the current block, as long as a piece
//! of it exists, and for blocks fetched ahead. While memory is scarce, it fetches nothing ahead and gives the
//! connection one small piece at a time. That piece is a copy, so the block can be released if the client
//! stops reading. The block is fetched again when the client reads on.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use graviton_core::{AsyncStore, BlobReader, BlockKey, Result};
use tokio::sync::Notify;

use crate::app::{App, Downloading};
use crate::client::Requester;
use crate::connection::Progress;
use crate::memory::{Budget, Held, Parked};
use crate::problem::Problem;

/// The size of a piece, which a client must read within the idle timeout; smaller while memory is scarce.
const PIECE: u64 = 256 << 10;
const SMALL_PIECE: u64 = 32 << 10;

/// A blob up to this size is read together with its manifest.
pub(crate) const SMALL_BLOB: u64 = 64 << 10;

/// The most that one download fetches ahead.
const MOST_AHEAD: u64 = 32 << 20;

/// Fetching ahead less than this is not worthwhile.
const LEAST_AHEAD: u64 = 256 << 10;

/// The source of the bytes.
#[expect(clippy::large_enum_variant, reason = "most are blobs, and none is moved often")]
pub(crate) enum Source {
    Blob(BlobReader),
    Block(Block),
}

/// A block, sent alone.
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
    /// The block of the next byte, as a range of all bytes; `None` at the end.
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

/// A download in progress.
pub(crate) struct Outgoing {
    budget: Arc<Budget>,
    /// The state for the next piece, kept while the client reads the last one.
    parked: Arc<Parking>,
    downloading: Downloading,
    taking: Arc<Taking>,
    requester: Requester,
    /// The bytes that are still to be sent, known once the rest of the download belongs to the connection.
    rest: Option<u64>,
}

/// How the client reads the pieces that the connection holds.
struct Taking {
    progress: Arc<Progress>,
    /// The number of pieces that are not sent yet.
    pieces: AtomicUsize,
    gone: Notify,
}

/// The state that a download keeps from one piece to the next.
struct Kept {
    source: Source,
    /// The current block, and its memory, which its pieces share.
    block: Range<u64>,
    held: Option<Arc<Held>>,
    /// The memory of a copied piece.
    copy: Option<Arc<Held>>,
    ahead: Held,
    since: Instant,
}

impl Kept {
    fn release(&mut self) -> u64 {
        self.source.release();
        let ahead = std::mem::take(&mut self.ahead).bytes();
        // Pieces that the connection still holds keep the block in memory.
        let block = self.held.take().and_then(Arc::into_inner).map_or(0, |held| held.bytes());
        self.block = 0..0;
        ahead + block
    }

    /// Makes this the current block, with the memory of it and of a copied piece.
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

/// A piece that the connection holds. Until it is dropped, its memory is held and the client has something to
/// read.
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
    /// Starts a download. Waits for the memory of its first block, unless `held` is that memory, and fails
    /// with `overloaded` if there is none for a while.
    pub(crate) async fn new(
        app: &App,
        requester: Requester,
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
                progress: requester.connection.download(),
                pieces: AtomicUsize::new(0),
                gone: Notify::new(),
            }),
            requester,
            rest: None,
        })
    }

    /// For a download of more than one piece, with `rest` bytes still to be sent: from now on, the bytes that
    /// it keeps are reclaimable while the client does not read.
    pub(crate) fn park(&mut self, rest: u64) {
        self.rest = Some(rest);
        self.budget.register(&self.parked);
    }

    /// Continues with this range of the blob. Does nothing for a block, which is sent whole.
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
        // From here on the client waits for the server.
        let _ours = taking.progress.ours();
        // Only after an earlier error is there nothing here; the download has ended then.
        let Some(mut kept) = self.parked.take() else { return Ok(None) };
        let next = match self.next_of(&mut kept).await {
            Ok(next) => next,
            Err(error) => {
                // The server ends the download, not the client.
                self.rest = None;
                return Err(error);
            }
        };
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
        self.rest = self.rest.map(|rest| rest.saturating_sub(bytes.len() as u64));
        let whole = bytes.len() as u64 == kept.block.end - kept.block.start;
        let (bytes, held) = match &kept.copy {
            Some(copy) if scarce && !whole => (Bytes::copy_from_slice(&bytes), Arc::clone(copy)),
            _ => (bytes, held),
        };
        self.taking.pieces.fetch_add(1, Ordering::Relaxed);
        Ok(Some(Bytes::from_owner(Piece { bytes, _held: held, taking: Arc::clone(&self.taking) })))
    }

    /// Takes the memory of the next block and of what to fetch ahead.
    async fn move_to(&self, kept: &mut Kept, block: Range<u64>) -> Arc<Held> {
        (kept.held, kept.copy) = (None, None);
        let size = block.end - block.start;
        let held = if let Some(held) = self.budget.try_take(size + SMALL_PIECE) {
            held
        } else {
            // A task that waits must hold nothing that others wait for.
            kept.release();
            self.budget.take(size + SMALL_PIECE).await
        };
        let held = kept.send(block, held);
        if let Source::Blob(reader) = &mut kept.source {
            let share = self.downloading.share(self.budget.figures().0 / 4).min(MOST_AHEAD);
            let wanted = if share < LEAST_AHEAD || self.budget.is_half_taken() { 0 } else { share };
            if kept.ahead.bytes() < wanted {
                // The last block fetched may extend beyond the limit.
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

impl Drop for Outgoing {
    fn drop(&mut self) {
        if let Some(rest) = self.rest.filter(|rest| *rest > 0) {
            metrics::counter!("graviton_http_given_up_downloads_total").increment(1);
            let Requester { address, request, .. } = &self.requester;
            let request = request.to_str().unwrap_or_default();
            tracing::info!(request, peer = %address, rest, "a download was given up: the connection ended before its end");
        }
    }
}
