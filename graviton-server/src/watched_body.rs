//! The body of a request, watched for its end. If the server did not read all of it, the next bytes on an
//! HTTP/1.1 connection may belong to the body and not to the next request.
//!
//! On HTTP/2, dropping a body resets its stream, and a client that is still sending reports the reset and not
//! the answer. So the server reads on for a moment there too, as it does after the end of an HTTP/1.1
//! connection (`connection`).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::Semaphore;

use crate::connection::{LINGER, LINGER_BYTES};

/// A body that notes when it has ended.
pub(crate) struct WatchedBody {
    /// `None` only while it is dropped.
    body: Option<Incoming>,
    ended: Arc<AtomicBool>,
    /// One permit for each body that the server reads on; `None` if it does not read this one on.
    leaving: Option<Arc<Semaphore>>,
}

impl WatchedBody {
    /// The watched body, and a flag that is set once all of the body was read.
    pub(crate) fn new(
        body: Incoming,
        version: Version,
        leaving: &Arc<Semaphore>,
    ) -> (WatchedBody, Arc<AtomicBool>) {
        let ended = Arc::new(AtomicBool::new(body.is_end_stream()));
        let leaving = (version == Version::HTTP_2).then(|| Arc::clone(leaving));
        (WatchedBody { body: Some(body), ended: Arc::clone(&ended), leaving }, ended)
    }
}

impl Body for WatchedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(&mut *body).poll_frame(context));
        if frame.is_none() || body.is_end_stream() {
            self.ended.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Incoming::size_hint).unwrap_or_default()
    }
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        if let (Some(body), Some(leaving)) = (self.body.take(), self.leaving.take())
            && !self.ended.load(Ordering::Relaxed)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
            // With very many refusals at once, some clients lose their answer.
            && let Ok(permit) = leaving.try_acquire_owned()
        {
            runtime.spawn(async move {
                let _ = tokio::time::timeout(LINGER, read_the_rest(body)).await;
                drop(permit);
            });
        }
    }
}

async fn read_the_rest(mut body: Incoming) {
    let mut left = LINGER_BYTES;
    loop {
        let frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let Some(Ok(frame)) = frame else { return };
        let length = frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
        let Some(rest) = left.checked_sub(length) else { return };
        left = rest;
    }
}
