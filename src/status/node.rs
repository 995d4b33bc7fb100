//! An agent or an origin, as it shows itself.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use shoal_control::TrackerClient;
use shoal_control::overlay::OverlayHandle;
use shoal_core::{Digest, PeerId, Zone};
use shoal_identity::Identity;
use shoal_origin::{QueueStatus, Queues, ReadOnlySwitch};
use shoal_store::{Entry, Store};
use shoal_transfer::{FetchView, PeerView, Transfer, View};

use super::api::Source;
use super::{
    DeadJob, FetchStatus, JobQueue, List, MemberStatus, NodeStatus, NodeSwarm, Own, PeerStatus, Peers, Query,
    Rates, ReadOnly, Retried, ServerStatus, Status, StoreStatus, Swarm,
};
use crate::admin::Readiness;

/// What of an agent or an origin there is to look at.
pub struct NodeSource {
    /// Who it is.
    pub identity: Identity,
    /// Where it stands.
    pub zone: Zone,
    /// Its data plane.
    pub transfer: Transfer,
    /// What it keeps.
    pub store: Store,
    /// Where that is.
    pub directory: PathBuf,
    /// Its trackers.
    pub tracker: TrackerClient,
    /// The overlay, if it takes part.
    pub overlay: Option<OverlayHandle>,
    /// Whether it is ready.
    pub readiness: Readiness,
    /// What it is to do later, of an origin.
    pub queues: Option<Queues>,
    /// Whether it takes writes, of an origin.
    pub read_only: Option<ReadOnlySwitch>,
    /// When it came up.
    pub started: Instant,
}

impl From<QueueStatus> for JobQueue {
    fn from(queue: QueueStatus) -> Self {
        let shown = queue.newest_dead.len();
        let dead = queue.newest_dead.into_iter();
        Self {
            name: queue.name.to_string(),
            waiting: queue.waiting,
            lag_s: queue.lag.as_secs(),
            dead: List::of(
                dead.map(|job| DeadJob { key: job.key, tries: job.tries, error: job.error }),
                queue.dead,
                shown,
            ),
        }
    }
}

/// Two looks.
struct Looks {
    before: View,
    now: View,
    apart: Duration,
}

impl Source for NodeSource {
    async fn status(&self, query: Query) -> Status {
        let (looks, trackers) = tokio::join!(self.look(query.over()), self.tracker.probe());
        let trackers = trackers.into_iter().map(|(url, answer)| ServerStatus {
            url,
            error: answer.err().map(|error| format!("{:#}", anyhow::Error::from(error))),
        });
        let stats = self.transfer.stats();
        let fetches = looks.now.fetches.iter().map(|fetch| looks.fetch(fetch));
        let node = NodeStatus {
            zone: self.zone.clone(),
            peer_port: self.transfer.local_address(),
            trackers: trackers.collect(),
            overlay_peers: self.overlay.as_ref().map(OverlayHandle::peers),
            store: self.store().await,
            connections: looks.now.peers.len(),
            received_from_agents: stats.bytes_from_peers,
            received_from_origins: stats.bytes_from_origins,
            sent: stats.bytes_sent,
            rates: looks.all(),
            fetches: List::of(fetches, looks.now.fetches.len(), query.limit()),
            queues: self.queues.iter().flat_map(Queues::status).map(JobQueue::from).collect(),
        };
        Status {
            node: Some(node),
            not_ready: (self.readiness)().err(),
            ..super::tracker::identified(&self.identity, self.started)
        }
    }

    async fn peers(&self, query: Query) -> Peers {
        let looks = self.look(query.over()).await;
        let peers = looks.now.peers.iter().map(|peer| looks.peer(peer));
        Peers::Node(List::of(peers, looks.now.peers.len(), query.limit()))
    }

    fn read_only(&self, change: Option<ReadOnly>) -> Option<ReadOnly> {
        let switch = self.read_only.as_ref()?;
        if let Some(ReadOnly { on }) = change {
            switch.set(on);
        }
        Some(ReadOnly { on: switch.is_on() })
    }

    async fn retry(&self) -> Result<Retried, String> {
        let Some(queues) = &self.queues else { return Ok(Retried::default()) };
        let jobs = queues.retry().await.map_err(|error| error.to_string())?;
        Ok(Retried { jobs })
    }

    async fn swarm(&self, digest: Digest, query: Query) -> Swarm {
        let (looks, members) = tokio::join!(self.look(query.over()), self.transfer.members(&digest));
        let own = self.store.entry(&digest).map(|entry| {
            let geometry = entry.metainfo().geometry();
            let have = match &entry {
                Entry::Whole(_) => geometry.piece_count(),
                Entry::Partial(partial) => partial.bitfield().count(),
            };
            Own { length: geometry.length(), pieces: geometry.piece_count(), have }
        });
        let total = members.len();
        let members = members.into_iter().map(|member| MemberStatus {
            id: member.peer,
            role: member.role,
            have: member.have,
            rates: looks.rates_of(&member.peer),
        });
        Swarm::Node(NodeSwarm { digest, own, members: List::of(members, total, query.limit()) })
    }
}

impl NodeSource {
    /// Looks twice, or once where there is no time between.
    async fn look(&self, apart: Duration) -> Looks {
        let (before, began) = (self.transfer.view().await, Instant::now());
        if apart.is_zero() {
            return Looks { now: before.clone(), before, apart };
        }
        tokio::time::sleep(apart).await;
        Looks { before, now: self.transfer.view().await, apart: began.elapsed() }
    }

    async fn store(&self) -> StoreStatus {
        let directory = self.directory.clone();
        let free = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&directory)).await;
        let free =
            free.ok().and_then(Result::ok).map(|file_system| file_system.f_bavail * file_system.f_frsize);
        let (blobs, partials) = self.store.counts();
        StoreStatus { used: self.store.bytes(), capacity: self.store.capacity(), free, blobs, partials }
    }
}

impl Looks {
    fn per_second(&self, before: u64, now: u64) -> Option<u64> {
        let millis = u64::try_from(self.apart.as_millis()).unwrap_or(u64::MAX);
        (now.saturating_sub(before).saturating_mul(1000)).checked_div(millis)
    }

    fn peer_before(&self, peer: &PeerView) -> (u64, u64) {
        let same = |before: &&PeerView| before.id == peer.id && before.received <= peer.received;
        let before = self.before.peers.iter().find(same);
        before.map_or((0, 0), |before| (before.received, before.sent))
    }

    fn rates(&self, peer: &PeerView) -> Option<Rates> {
        let (received, sent) = self.peer_before(peer);
        Some(Rates {
            received: self.per_second(received, peer.received)?,
            sent: self.per_second(sent, peer.sent)?,
        })
    }

    fn rates_of(&self, id: &PeerId) -> Option<Rates> {
        self.rates(self.now.peers.iter().find(|peer| peer.id == *id)?)
    }

    fn all(&self) -> Option<Rates> {
        let before: HashMap<_, _> =
            self.before.peers.iter().map(|peer| (peer.id, (peer.received, peer.sent))).collect();
        let (mut received, mut sent) = (0, 0);
        for peer in &self.now.peers {
            let (received_before, sent_before) = before.get(&peer.id).copied().unwrap_or_default();
            received += peer.received.saturating_sub(received_before);
            sent += peer.sent.saturating_sub(sent_before);
        }
        Some(Rates { received: self.per_second(0, received)?, sent: self.per_second(0, sent)? })
    }

    fn fetch(&self, fetch: &FetchView) -> FetchStatus {
        let before = self.before.fetches.iter().find(|before| before.digest == fetch.digest);
        let rate = before.and_then(|before| self.per_second(before.bytes, fetch.bytes));
        let FetchView { digest, length, bytes, peers, .. } = *fetch;
        FetchStatus { digest, length, bytes, peers, rate }
    }

    fn peer(&self, peer: &PeerView) -> PeerStatus {
        PeerStatus {
            id: peer.id,
            role: peer.role,
            zone: peer.zone.clone(),
            address: peer.address,
            transport: peer.transport.into(),
            round_trip_us: peer.round_trip.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
            connected_s: peer.connected_for.as_secs(),
            received: peer.received,
            sent: peer.sent,
            rates: self.rates(peer),
            requests: peer.requests,
            blobs: peer.blobs,
        }
    }
}
