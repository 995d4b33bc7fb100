//! A client that takes nothing of its answer any more, and does not go away, is cut off: it holds a reader, a file and its
//! place among the connections.
//!
//! Looks at the connection as a whole: bytes that the system takes are bytes that the client made room for. Single streams
//! of an HTTP/2 connection that goes on otherwise are bounded in number, not in time.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// A connection that fails when a write makes no progress for so long.
#[derive(Debug)]
pub(crate) struct Impatient<S> {
    stream: S,
    limit: Duration,
    /// When the write that waits is given up; `None` while none waits.
    deadline: Option<Pin<Box<Sleep>>>,
    waits: bool,
}

impl<S> Impatient<S> {
    pub(crate) fn new(stream: S, limit: Duration) -> Self {
        Self { stream, limit, deadline: None, waits: false }
    }

    /// Passes progress on; without any, fails once the limit is over.
    fn judge<T>(&mut self, step: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if step.is_ready() {
            self.waits = false;
            return step;
        }
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(self.limit)));
        if !std::mem::replace(&mut self.waits, true) {
            deadline.as_mut().reset(Instant::now() + self.limit);
        }
        ready!(deadline.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes no more of its answer")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let step = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(step, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let step = Pin::new(&mut self.stream).poll_flush(context);
        self.judge(step, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let step = Pin::new(&mut self.stream).poll_shutdown(context);
        self.judge(step, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let step = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.judge(step, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up() {
        let (here, _there) = duplex(16);
        let (mut here, start) = (Impatient::new(here, LIMIT), Instant::now());
        let error = here.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!((error.kind(), start.elapsed()), (io::ErrorKind::TimedOut, LIMIT));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_a_little_at_a_time_is_not() {
        let (here, mut there) = duplex(16);
        let mut here = Impatient::new(here, LIMIT);
        let read = async {
            let mut buffer = [0; 16];
            for _ in 0..8 {
                sleep(LIMIT * 9 / 10).await;
                there.read_exact(&mut buffer).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(here.write_all(&[0; 128]), read);
        written.unwrap();
    }
}
