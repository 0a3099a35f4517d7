//! What the parts of the server know of one connection: who is at its other end, what goes on on it, and for how long
//! nothing has.
//!
//! A client that neither asks nor takes what it asked for is not waited for ([`Connection::verdict`]). What it takes is
//! seen by how far its downloads have come: a body is asked for its next piece only when there is room for it, on
//! HTTP/1.1 in the socket and on HTTP/2 in the stream's window, and the pieces are seen to go.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// For so long, and so many bytes, and so many at once as there are permits for, what a client still sends is taken in after it was refused.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BYTES: u64 = 64 << 20;

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    peer: IpAddr,
    opened: Instant,
    /// Requests that are being answered.
    active: AtomicUsize,
    /// Whether there was a request at all.
    asked: AtomicBool,
    /// When a request began or ended last: milliseconds since it was opened.
    last: AtomicU64,
    transfers: Mutex<Vec<Weak<Progress>>>,
    lingers: Arc<AtomicBool>,
    /// One for each connection that lingers after its end.
    leaving: Arc<Semaphore>,
}

/// How a download gets on.
#[derive(Debug)]
pub(crate) struct Progress {
    opened: Instant,
    last: AtomicU64,
    /// Whether it is the server that is at it.
    ours: AtomicBool,
}

/// So long a download waits for the server and not for the client.
pub(crate) struct Ours<'a>(&'a Progress);

/// What is to be done about a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fine,
    /// Nothing goes on.
    Idle,
    /// A client does not take what it asked for.
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

    /// A request begins; it ends when what this returns is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Active {
        self.active.fetch_add(1, Ordering::Relaxed);
        self.asked.store(true, Ordering::Relaxed);
        self.touch();
        Active(Arc::clone(self))
    }

    /// Whether there was a request.
    pub(crate) fn was_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    fn touch(&self) {
        self.last.store(self.opened.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// A download begins; it ends when what this returns is dropped.
    pub(crate) fn download(&self) -> Arc<Progress> {
        let progress =
            Arc::new(Progress { opened: self.opened, last: AtomicU64::new(0), ours: AtomicBool::new(false) });
        progress.touch();
        let mut transfers = self.transfers.lock().unwrap_or_else(PoisonError::into_inner);
        transfers.retain(|transfer| transfer.strong_count() > 0);
        transfers.push(Arc::downgrade(&progress));
        progress
    }

    /// What the client still sends when the connection ends is taken in for a moment: where an upload was refused before
    /// its end, the connection would be reset if it were closed at once, and the answer lost with it.
    pub(crate) fn linger(&self) {
        self.lingers.store(true, Ordering::Relaxed);
    }

    /// What is to be done about it, if the first request has to come within one time, and nothing may go on for no longer
    /// than the other. While others wait for memory, the time in which a client takes something is shorter.
    ///
    /// A download that stalls ends its connection, unless something else goes on there and nobody waits for memory: on
    /// HTTP/2 a single stream cannot be ended here, as a body is asked for nothing while its window is closed.
    pub(crate) fn verdict(&self, to_ask: Duration, idle: Duration, short: bool) -> Verdict {
        let patience = if self.asked.load(Ordering::Relaxed) { idle } else { to_ask };
        let before = |patience| self.opened.elapsed().saturating_sub(patience).as_millis() as u64;
        let (oldest, oldest_taken) = (before(patience), before(if short { idle / 4 } else { idle }));
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

    /// The server is at it until what this returns is dropped.
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

/// A request that is being answered.
pub(crate) struct Active(Arc<Connection>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
        self.0.touch();
    }
}

/// The socket of a connection. Dropped, it is closed, at once or after a moment of [lingering](Connection::linger).
pub(crate) struct Socket {
    /// `None` only once it was taken out.
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
        Pin::new(self.stream.as_mut().expect("taken out only when dropped"))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let lingers = self.lingers.load(Ordering::Relaxed);
        if let Some(stream) = self.stream.take().filter(|_| lingers)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
            // Where very many are refused at once, some may not get to see why.
            && let Ok(permit) = Arc::clone(&self.leaving).try_acquire_owned()
        {
            runtime.spawn(async move {
                take_in_the_rest(stream).await;
                drop(permit);
            });
        }
    }
}

async fn take_in_the_rest(mut stream: TcpStream) {
    let rest = async {
        tokio::io::AsyncWriteExt::shutdown(&mut stream).await?;
        tokio::io::copy(&mut (&mut stream).take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    // Who does not end within that has its connection reset.
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
