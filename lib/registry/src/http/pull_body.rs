//! The body of a pull: exactly as many bytes as its headers promise, or a cut connection.
//!
//! Once the headers are out there is no other way to say that something is wrong: a body that ends early, or would
//! be too long, becomes an error, on which the server aborts the connection. Nothing is ever padded. The client sees
//! a short body, and asks for the rest by range.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http_body::{Frame, SizeHint};
use shoal_driver::ByteStream;
use tokio::time::Instant;

use super::Exchange;
use crate::Observer;

/// A body of known length that tells the observer how it went.
pub(super) struct PullBody {
    parts: ByteStream,
    remaining: u64,
    /// Why the body ends here, once it does.
    failure: Option<io::Error>,
    progress: Progress,
}

/// How much of a pull went out; says so when dropped.
struct Progress {
    observer: Arc<dyn Observer>,
    arrived: Instant,
    sent: u64,
    finished: bool,
}

impl PullBody {
    /// The body of `length` bytes that `parts` gives.
    pub(super) fn stream(exchange: &Exchange, parts: ByteStream, length: u64) -> Body {
        let observer = Arc::clone(&exchange.api.observer);
        let mut progress = Progress { observer, arrived: exchange.arrived, sent: 0, finished: false };
        if length == 0 {
            progress.finish();
        }
        Body::new(Self { parts, remaining: length, failure: None, progress })
    }

    /// A body that is there already.
    pub(super) fn whole(exchange: &Exchange, bytes: Bytes) -> Body {
        let length = bytes.len() as u64;
        Self::stream(exchange, stream::iter([Ok(bytes)]).boxed(), length)
    }
}

impl http_body::Body for PullBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.remaining == 0 {
            return Poll::Ready(None);
        }
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Some(Err(failure)));
        }
        let part = match ready!(Pin::new(&mut self.parts).poll_next(context)) {
            Some(Ok(part)) => part,
            Some(Err(error)) => return self.cut(context, io::Error::other(error)),
            None => return self.cut(context, io::ErrorKind::UnexpectedEof.into()),
        };
        let length = part.len() as u64;
        if length > self.remaining {
            return self.cut(context, io::ErrorKind::InvalidData.into());
        }
        self.remaining -= length;
        let whole = self.remaining == 0;
        self.progress.sent(length, whole);
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

impl PullBody {
    /// Ends the body with an error, one poll later: the server throws away what it has not sent when a body fails, and
    /// sends it when a body has to wait. What was verified is worth having.
    fn cut<T>(&mut self, context: &Context<'_>, error: io::Error) -> Poll<T> {
        tracing::warn!(%error, sent = self.progress.sent, missing = self.remaining, "a pull is cut short");
        self.failure = Some(error);
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Progress {
    fn sent(&mut self, bytes: u64, whole: bool) {
        if self.sent == 0 && bytes > 0 {
            self.observer.first_byte(self.arrived.elapsed());
        }
        self.sent += bytes;
        if whole {
            self.finish();
        }
    }

    fn finish(&mut self) {
        self.finished = true;
        self.observer.pull_finished(self.sent, self.arrived.elapsed());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if !self.finished {
            self.observer.pull_aborted(self.sent);
        }
    }
}
