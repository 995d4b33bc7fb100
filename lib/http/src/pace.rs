//! How fast a request's body has to come: who is silent, or trickles, is told so instead of holding what its request holds.
//!
//! Only the time in which this side waited for the client counts: a slow disk is not the client's fault. How long the whole
//! takes is not limited: blobs are large. The failure is an [`io::Error`] of the kind `TimedOut`, for a handler to tell.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::limits::Limits;

/// A body, and how fast its client is.
#[derive(Debug)]
pub(crate) struct Paced<B> {
    body: B,
    pace: Pace,
    /// Since when the next bytes are waited for.
    since: Option<Instant>,
    deadline: Option<Pin<Box<Sleep>>>,
}

/// What came in the current window of waiting. Pure: time is an argument.
#[derive(Clone, Debug)]
struct Pace {
    window: Duration,
    /// Bytes that have to come in a window.
    least: u64,
    waited: Duration,
    received: u64,
}

/// Why a body is given up.
#[derive(Debug, thiserror::Error)]
enum TooSlow {
    #[error("no byte of the body came for {} seconds", .0.as_secs())]
    Silent(Duration),
    #[error("only {received} bytes of the body came in {} seconds; at least {least} are needed", .window.as_secs())]
    Trickle { received: u64, least: u64, window: Duration },
}

impl<B> Paced<B> {
    pub(crate) fn new(body: B, limits: &Limits) -> Self {
        let (window, rate) = (limits.body_idle_timeout, limits.min_body_rate.as_u64());
        // A rate of nothing still asks for a sign of life.
        let least = rate.saturating_mul(window.as_secs()).max(1);
        let pace = Pace { window, least, waited: Duration::ZERO, received: 0 };
        Self { body, pace, since: None, deadline: None }
    }

    /// Waits on, as long as the window lasts; again if enough came in it.
    fn poll_patience(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            let since = *self.since.get_or_insert_with(Instant::now);
            let end = since + self.pace.left();
            let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep_until(end)));
            if deadline.deadline() != end {
                deadline.as_mut().reset(end);
            }
            ready!(deadline.as_mut().poll(context));
            self.since = None;
            if let Err(error) = self.pace.end_window() {
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, error));
            }
        }
    }

    fn arrived(&mut self, length: usize) {
        let waited = self.since.take().map_or(Duration::ZERO, |since| since.elapsed());
        self.pace.arrived(waited, length as u64);
    }
}

impl Pace {
    fn left(&self) -> Duration {
        self.window.saturating_sub(self.waited)
    }

    fn arrived(&mut self, waited: Duration, bytes: u64) {
        self.waited += waited;
        self.received += bytes;
    }

    /// The window is over: a new one begins, if enough came.
    fn end_window(&mut self) -> Result<(), TooSlow> {
        let received = std::mem::take(&mut self.received);
        self.waited = Duration::ZERO;
        match received {
            0 => Err(TooSlow::Silent(self.window)),
            _ if received < self.least => {
                Err(TooSlow::Trickle { received, least: self.least, window: self.window })
            }
            _ => Ok(()),
        }
    }
}

impl<B> Body for Paced<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            return self.poll_patience(context).map(|error| Some(Err(error)));
        };
        let length = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
        self.arrived(length.map_or(0, Buf::remaining));
        Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body as Whole;
    use bytesize::ByteSize;
    use futures_util::stream;
    use http_body_util::BodyExt as _;
    use tokio::time::sleep;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    /// A body that sends so many bytes each time after a pause.
    fn body(parts: &'static [(u64, usize)]) -> Paced<Whole> {
        let limits =
            Limits { body_idle_timeout: WINDOW, min_body_rate: ByteSize::b(10), ..Limits::default() };
        let parts = stream::unfold(parts.iter(), |mut parts| async move {
            let (pause, length) = parts.next()?;
            sleep(Duration::from_secs(*pause)).await;
            Some((Ok::<_, io::Error>(Bytes::from(vec![0; *length])), parts))
        });
        Paced::new(Whole::from_stream(parts), &limits)
    }

    /// How many bytes came, and why there were no more.
    async fn read(mut body: Paced<Whole>) -> (usize, Option<io::Error>) {
        let mut received = 0;
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => received += frame.into_data().unwrap().len(),
                Err(error) => return (received, Some(error)),
            }
        }
        (received, None)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_take_for_ever_if_it_keeps_its_rate() {
        let (received, error) = read(body(&[(59, 600), (59, 600), (59, 600), (59, 600), (59, 1)])).await;
        assert!(error.is_none(), "{error:?}");
        assert_eq!(received, 2401);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_body_in_time() {
        let start = Instant::now();
        let (received, error) = read(body(&[(0, 5), (3600, 1)])).await;
        // The first bytes did not make up for what did not come after them.
        assert_eq!((received, start.elapsed()), (5, WINDOW));
        assert_eq!(error.unwrap().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_ends_a_body_in_time_however_often_it_comes() {
        let start = Instant::now();
        let (received, error) = read(body(&[(20, 1); 100])).await;
        assert!(received <= 3 && start.elapsed() == WINDOW, "{received} in {:?}", start.elapsed());
        let message = error.unwrap().to_string();
        assert!(message.contains("at least 600"), "{message}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_readers_own_pauses_do_not_count() {
        let mut body = body(&[(1, 10), (1, 10), (1, 10)]);
        for _ in 0..3 {
            body.frame().await.unwrap().unwrap();
            sleep(WINDOW * 5).await;
        }
        assert!(body.frame().await.is_none());
    }
}
