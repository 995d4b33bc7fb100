//! Tells trackers of peers that cannot be connected to, soon and together.
//!
//! A report is worth something for a lease at most, so none is kept for a tracker that does not answer; and a peer that is
//! dialled again and again is reported now and then.

use std::collections::HashMap;
use std::time::Duration;

use shoal_core::PeerId;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::message::UnreachableRequest;
use crate::tracker::TrackerClient;

/// Reports for as long as it lives.
#[derive(Debug)]
pub struct Reporter {
    _task: AbortOnDropHandle<()>,
}

/// Which peers were reported a moment ago, and so need not be again.
#[derive(Debug, Default)]
struct Recent(HashMap<PeerId, Instant>);

/// How long the first of a batch waits for others: a dead rack is one request.
const GATHER: Duration = Duration::from_millis(300);
/// How often one peer is reported at most. 5 s: a tracker remembers for a lease, and one that was removed and came back
/// is a new case.
const REPEAT: Duration = Duration::from_secs(5);

impl Reporter {
    /// Reports whom `unreachable` names.
    #[must_use]
    pub fn start(client: TrackerClient, unreachable: Receiver<PeerId>) -> Self {
        Self { _task: AbortOnDropHandle::new(tokio::spawn(run(client, unreachable))) }
    }
}

async fn run(client: TrackerClient, mut unreachable: Receiver<PeerId>) {
    let mut recent = Recent::default();
    while let Some(peers) = batch(&mut unreachable, &mut recent).await {
        let count = peers.len();
        if count == 0 {
            continue;
        }
        match client.report_unreachable(peers).await {
            Ok(()) => tracing::debug!(count, "unreachable peers reported"),
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, count, "no tracker takes a report");
            }
        }
    }
}

/// The next peers to report; `None` when nobody names any more.
async fn batch(unreachable: &mut Receiver<PeerId>, recent: &mut Recent) -> Option<Vec<PeerId>> {
    let mut batch = Vec::new();
    let mut ends = None;
    while batch.len() < UnreachableRequest::MAX_PEERS {
        let named = match ends {
            None => unreachable.recv().await,
            Some(end) => match timeout_at(end, unreachable.recv()).await {
                Ok(named) => named,
                Err(_) => break,
            },
        };
        match named {
            Ok(peer) if recent.is_news(Instant::now(), peer) => batch.push(peer),
            // Some were named faster than they could be told: they will be again.
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return None,
        }
        ends = ends.or(Some(Instant::now() + GATHER));
    }
    Some(batch)
}

impl Recent {
    /// Peers that are remembered; one more makes room for itself.
    const MAX: usize = 1024;

    fn is_news(&mut self, now: Instant, peer: PeerId) -> bool {
        if self.0.len() >= Self::MAX {
            self.0.retain(|_, told| now < *told + REPEAT);
        }
        if self.0.len() >= Self::MAX {
            self.0.clear();
        }
        let told = self.0.get(&peer).copied();
        let is_news = told.is_none_or(|told| told + REPEAT <= now);
        if is_news {
            self.0.insert(peer, now);
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast;

    use super::*;

    fn peer(number: u32) -> PeerId {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        PeerId::from_public_key(key)
    }

    #[test]
    fn a_peer_is_reported_again_only_after_a_while() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        assert!(recent.is_news(now, peer(1)));
        assert!(!recent.is_news(now + REPEAT - Duration::from_millis(1), peer(1)));
        assert!(recent.is_news(now + REPEAT, peer(1)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        for number in 0..10 * Recent::MAX as u32 {
            assert!(recent.is_news(now, peer(number)));
            assert!(recent.0.len() <= Recent::MAX);
        }
    }

    #[tokio::test]
    async fn those_that_are_named_together_are_one_batch_and_none_is_larger_than_a_request() {
        let (sender, mut named) = broadcast::channel(1024);
        let most = UnreachableRequest::MAX_PEERS as u32;
        for number in 0..most + 2 {
            sender.send(peer(number)).unwrap();
            sender.send(peer(number)).unwrap();
        }
        let mut recent = Recent::default();
        assert_eq!(batch(&mut named, &mut recent).await.unwrap(), (0..most).map(peer).collect::<Vec<_>>());
        assert_eq!(batch(&mut named, &mut recent).await.unwrap(), [peer(most), peer(most + 1)]);
        drop(sender);
        assert_eq!(batch(&mut named, &mut recent).await, None);
    }
}
