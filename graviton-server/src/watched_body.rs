//! The body of a request, watched for its end: if the server did not read all of it, the next bytes on an
//! HTTP/1.1 connection may belong to it and not to the next request.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// A body that notes when it has ended.
pub(crate) struct WatchedBody {
    body: Incoming,
    ended: Arc<AtomicBool>,
}

impl WatchedBody {
    /// The watched body, and a flag that is set once all of it was read.
    pub(crate) fn new(body: Incoming) -> (WatchedBody, Arc<AtomicBool>) {
        let ended = Arc::new(AtomicBool::new(body.is_end_stream()));
        (WatchedBody { body, ended: Arc::clone(&ended) }, ended)
    }
}

impl Body for WatchedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() || self.body.is_end_stream() {
            self.ended.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
