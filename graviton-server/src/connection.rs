//! The state of one connection that the parts of the server share: its peer, its requests, and when it was
//! last active.
//!
//! The server closes a connection whose client neither sends requests nor reads responses
//! ([`Connection::verdict`]). It infers the client's reading from the progress of downloads. hyper asks a
//! body for its next piece only when there is room, on HTTP/1.1 in the socket and on HTTP/2 in the stream's
//! window, and drops each piece once it is sent.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// After a refusal, the server continues to read for at most this time and this many bytes, on at most as
/// many connections as there are permits.
pub(crate) const LINGER: Duration = Duration::from_secs(5);
pub(crate) const LINGER_BYTES: u64 = 64 << 20;

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    peer: IpAddr,
    opened: Instant,
    /// The number of running requests.
    active: AtomicUsize,
    /// Whether there has been a request.
    asked: AtomicBool,
    /// When a request last started or ended, in milliseconds since `opened`.
    last: AtomicU64,
    transfers: Mutex<Vec<Weak<Progress>>>,
    lingers: Arc<AtomicBool>,
    /// One permit for each connection that lingers after its end.
    leaving: Arc<Semaphore>,
}

/// The progress of a download.
#[derive(Debug)]
pub(crate) struct Progress {
    opened: Instant,
    last: AtomicU64,
    /// Whether the download waits for the server.
    ours: AtomicBool,
}

/// While this exists, a download waits for the server and not for the client.
pub(crate) struct Ours<'a>(&'a Progress);

/// The judgement of [`Connection::verdict`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fine,
    /// No request runs, and none came for too long.
    Idle,
    /// The client does not read its response.
    Stalled,
}

impl Connection {
    pub(crate) fn new(peer: IpAddr, leaving: &Arc<Semaphore>) -> Connection {
        Connection {
            peer,
            opened: Instant::now(),
            active: AtomicUsize::new(0),
            asked: AtomicBool::new(false),
            last: AtomicU64::new(0),
            transfers: Mutex::default(),
            lingers: Arc::default(),
            leaving: Arc::clone(leaving),
        }
    }

    pub(crate) fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Counts a request until the result is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Active {
        self.active.fetch_add(1, Ordering::Relaxed);
        self.asked.store(true, Ordering::Relaxed);
        self.touch();
        Active(Arc::clone(self))
    }

    /// Whether there has been a request.
    pub(crate) fn was_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    fn touch(&self) {
        self.last.store(self.opened.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Watches a download until the result is dropped.
    pub(crate) fn download(&self) -> Arc<Progress> {
        let progress =
            Arc::new(Progress { opened: self.opened, last: AtomicU64::new(0), ours: AtomicBool::new(false) });
        progress.touch();
        let mut transfers = self.transfers.lock().unwrap_or_else(PoisonError::into_inner);
        transfers.retain(|transfer| transfer.strong_count() > 0);
        transfers.push(Arc::downgrade(&progress));
        progress
    }

    /// Makes the server read on for a moment after the connection ends. If the server closed the connection
    /// at once while the client still sends an upload, the connection would be reset, and the client would
    /// lose the answer.
    pub(crate) fn linger(&self) {
        self.lingers.store(true, Ordering::Relaxed);
    }

    /// Judges the connection: the first request must come within `to_ask`, and later requests, and progress
    /// of downloads, within `idle`. While others wait for memory (`short`), a download must make progress
    /// sooner.
    ///
    /// A stalled download ends its connection, unless the connection is otherwise active and nobody waits for
    /// memory. On HTTP/2 the server cannot end a single stream, because hyper does not poll a body whose
    /// window is closed.
    pub(crate) fn verdict(&self, to_ask: Duration, idle: Duration, short: bool) -> Verdict {
        let most = if self.asked.load(Ordering::Relaxed) { idle } else { to_ask };
        let before = |age| self.opened.elapsed().saturating_sub(age).as_millis() as u64;
        let (oldest, oldest_taken) = (before(most), before(if short { idle / 4 } else { idle }));
        let (mut stalled, mut going) = (0, self.active.load(Ordering::Relaxed));
        for transfer in &*self.transfers.lock().unwrap_or_else(PoisonError::into_inner) {
            let Some(progress) = transfer.upgrade() else { continue };
            *(if progress.stalls_since(oldest_taken) { &mut stalled } else { &mut going }) += 1;
        }
        if stalled > 0 && (short || going == 0) {
            return Verdict::Stalled;
        }
        let quiet = stalled + going == 0;
        if quiet && self.last.load(Ordering::Relaxed) < oldest { Verdict::Idle } else { Verdict::Fine }
    }
}

impl Progress {
    pub(crate) fn touch(&self) {
        self.last.store(self.opened.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// The download waits for the server until the result is dropped.
    pub(crate) fn ours(&self) -> Ours<'_> {
        self.ours.store(true, Ordering::Relaxed);
        Ours(self)
    }

    fn stalls_since(&self, moment: u64) -> bool {
        !self.ours.load(Ordering::Relaxed) && self.last.load(Ordering::Relaxed) < moment
    }
}

impl Drop for Ours<'_> {
    fn drop(&mut self) {
        self.0.ours.store(false, Ordering::Relaxed);
        self.0.touch();
    }
}

/// A running request.
pub(crate) struct Active(Arc<Connection>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
        self.0.touch();
    }
}

/// The socket of a connection. Dropping it closes it, at once or after [lingering](Connection::linger).
pub(crate) struct Socket {
    /// `None` only while it is dropped.
    stream: Option<TcpStream>,
    lingers: Arc<AtomicBool>,
    leaving: Arc<Semaphore>,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream, connection: &Connection) -> Socket {
        let (lingers, leaving) = (Arc::clone(&connection.lingers), Arc::clone(&connection.leaving));
        Socket { stream: Some(stream), lingers, leaving }
    }

    fn stream(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(self.stream.as_mut().expect("taken only when dropped"))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let lingers = self.lingers.load(Ordering::Relaxed);
        if let Some(stream) = self.stream.take().filter(|_| lingers)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
            // With very many refusals at once, some clients lose their answer.
            && let Ok(permit) = Arc::clone(&self.leaving).try_acquire_owned()
        {
            runtime.spawn(async move {
                read_the_rest(stream).await;
                drop(permit);
            });
        }
    }
}

async fn read_the_rest(mut stream: TcpStream) {
    let rest = async {
        tokio::io::AsyncWriteExt::shutdown(&mut stream).await?;
        tokio::io::copy(&mut (&mut stream).take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    // After that the connection is reset.
    let _ = tokio::time::timeout(LINGER, rest).await;
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.stream().poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.stream().poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        self.stream().poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.stream().poll_shutdown(context)
    }
}
