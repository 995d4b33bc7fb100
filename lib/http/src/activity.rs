//! Whether an HTTP/2 connection has requests under way, from their header to the end of their answer's body.
//!
//! HTTP/1.1 needs none of this: hyper's deadline for the next header covers its idle time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::watch;

/// Counts the requests of one connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Activity(watch::Sender<usize>);

/// One request under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct InFlight(watch::Sender<usize>);

impl Activity {
    /// A request begins.
    pub(crate) fn begin(&self) -> InFlight {
        self.0.send_modify(|requests| *requests += 1);
        InFlight(self.0.clone())
    }

    /// Resolves when there was no request for `limit`.
    pub(crate) async fn idle(&self, limit: Duration) {
        let mut requests = self.0.subscribe();
        loop {
            // Neither can fail: `self` holds a sender.
            let _ = requests.wait_for(|requests| *requests == 0).await;
            if tokio::time::timeout(limit, requests.changed()).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.send_modify(|requests| *requests -= 1);
    }
}

/// An answer's body that keeps its request under way.
#[derive(Debug)]
pub(crate) struct Answer {
    body: Body,
    _request: Option<InFlight>,
}

impl Answer {
    pub(crate) fn new(body: Body, request: Option<InFlight>) -> Self {
        Self { body, _request: request }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
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
    use tokio::time::Instant;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn idle_time_starts_when_the_last_request_ends() {
        let activity = Activity::default();
        let (first, second) = (activity.begin(), activity.begin());
        let start = Instant::now();
        let ends = async {
            tokio::time::sleep(LIMIT * 2).await;
            drop(first);
            tokio::time::sleep(LIMIT * 2).await;
            drop(second);
        };
        tokio::join!(activity.idle(LIMIT), ends);
        assert_eq!(start.elapsed().as_secs(), (LIMIT * 5).as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_request_starts_the_idle_time_anew() {
        let activity = Activity::default();
        let start = Instant::now();
        let visits = async {
            for _ in 0..3 {
                tokio::time::sleep(LIMIT / 2).await;
                drop(activity.begin());
            }
        };
        tokio::join!(activity.idle(LIMIT), visits);
        assert_eq!(start.elapsed().as_secs(), (LIMIT * 5 / 2).as_secs());
    }
}
