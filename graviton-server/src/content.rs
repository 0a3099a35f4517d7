//! The content of a request, watched for its end: where it was not read to there, what comes next on a connection of
//! HTTP/1.1 may be more of it, and no request.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// The content, which says when it has ended.
pub(crate) struct Watched {
    content: Incoming,
    ended: Arc<AtomicBool>,
}

impl Watched {
    /// The content, and what is set when all of it was read.
    pub(crate) fn new(content: Incoming) -> (Watched, Arc<AtomicBool>) {
        let ended = Arc::new(AtomicBool::new(content.is_end_stream()));
        (Watched { content, ended: Arc::clone(&ended) }, ended)
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.content).poll_frame(context));
        if frame.is_none() || self.content.is_end_stream() {
            self.ended.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}
