//! Answers where there is no valid request: bytes that are not HTTP, headers too large to read, plain HTTP on
//! a TLS port, and a connection over the limit.
//!
//! hyper answers the first two itself, with a status alone. [`Explained`] replaces that by a problem
//! document. It does so only before the first request of a connection, when the only bytes written are
//! hyper's own and never content.

use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use graviton_core::Code;
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::connection::Connection;
use crate::problem::{MEDIA_TYPE, Problem};
use crate::request_id;

/// A complete HTTP/1.1 response with the problem.
pub(crate) fn response(problem: &Problem, prefix: &str, id: &str) -> Vec<u8> {
    let body = problem.body(prefix, id);
    let mut response = format!(
        "HTTP/1.1 {}\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         X-Request-Id: {id}\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n",
        problem.status(),
        body.len()
    );
    if problem.code().is_retryable() {
        response.push_str("Retry-After: 1\r\n");
    }
    response.push_str("\r\n");
    let mut response = response.into_bytes();
    response.extend_from_slice(&body);
    response
}

/// Whether the first bytes are those of a request without TLS: a method, where TLS begins with 22.
pub(crate) async fn is_plain(stream: &TcpStream) -> bool {
    let mut first = [0];
    stream.peek(&mut first).await.is_ok_and(|count| count == 1) && first[0].is_ascii_uppercase()
}

/// The bytes of a connection, with hyper's own refusal replaced by a problem document.
pub(crate) struct Explained<S> {
    stream: S,
    connection: Arc<Connection>,
    /// The prefix of the server's paths.
    prefix: String,
    /// The replacement, and the number of its bytes already written.
    instead: Option<(Vec<u8>, usize)>,
}

impl<S> Explained<S> {
    pub(crate) fn new(stream: S, connection: Arc<Connection>, prefix: String) -> Explained<S> {
        Explained { stream, connection, prefix, instead: None }
    }

    fn refusal(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        if self.connection.was_asked() || !bytes.ends_with(b"\r\n\r\n") {
            return None;
        }
        let status = bytes.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
        let status = StatusCode::from_bytes(status).ok().filter(StatusCode::is_client_error)?;
        let (code, why) = match status {
            StatusCode::URI_TOO_LONG | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                (Code::TooLarge, "the request headers are too large; send fewer or shorter ones")
            }
            _ => (Code::InvalidArgument, "this is not a valid HTTP/1.1 or HTTP/2 request"),
        };
        // The client may still be sending, and must be able to read the answer.
        self.connection.linger();
        Some(response(&Problem::new(code, why).with_status(status), &self.prefix, &request_id::fresh()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Explained<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Explained<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if self.instead.is_none() {
            self.instead = self.refusal(bytes).map(|refusal| (refusal, 0));
        }
        let this = &mut *self;
        let Some((refusal, written)) = &mut this.instead else {
            return Pin::new(&mut this.stream).poll_write(context, bytes);
        };
        while *written < refusal.len() {
            match ready!(Pin::new(&mut this.stream).poll_write(context, &refusal[*written..]))? {
                0 => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                count => *written += count,
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        if self.connection.was_asked() {
            return Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        }
        let first = slices.iter().find(|slice| !slice.is_empty());
        self.poll_write(context, first.map_or(&[], |slice| slice))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
