//! What there is to see of the node, for whoever asks.

use shoal_core::{Bitfield, Digest, Geometry};
use shoal_swarm::MemberView;

use super::Node;
use crate::swarms::Swarm;
use crate::view::{FetchView, PeerView, View};

impl Node {
    pub(super) fn view(&self) -> View {
        let mut peers: Vec<_> =
            self.peers.connections().map(|connection| self.peer_view(connection)).collect();
        let mut fetches: Vec<_> =
            self.swarms.iter().filter_map(|(digest, swarm)| self.fetch_view(digest, swarm)).collect();
        peers.sort_by_key(|peer| peer.id);
        fetches.sort_by_key(|fetch| fetch.digest);
        View { peers, fetches }
    }

    /// The peers in the swarm of a blob; none where there is no swarm.
    pub(super) fn members(&self, digest: &Digest) -> Vec<MemberView> {
        self.engine.look().members(digest).collect()
    }

    fn peer_view(&self, connection: &crate::peers::Established) -> PeerView {
        let id = connection.id.peer;
        let standing = self.engine.look().peer(&id).unwrap_or_default();
        PeerView {
            id,
            role: connection.role,
            zone: connection.zone.clone(),
            address: connection.link.remote_address(),
            transport: connection.link.transport().name(),
            round_trip: connection.link.round_trip(),
            connected_for: connection.since.elapsed(),
            received: connection.traffic.received(),
            sent: connection.traffic.sent(),
            requests: standing.requests,
            blobs: standing.blobs,
        }
    }

    fn fetch_view(&self, digest: &Digest, swarm: &Swarm) -> Option<FetchView> {
        let partial = &swarm.fetch.as_ref()?.partial;
        let (geometry, have) = (partial.metainfo().geometry(), partial.bitfield());
        Some(FetchView {
            digest: *digest,
            length: geometry.length(),
            bytes: bytes_of(geometry, &have),
            pieces: geometry.piece_count(),
            have: have.count(),
            peers: self.engine.look().members(digest).count(),
        })
    }
}

/// How many bytes those pieces have: all but the last are of one length.
fn bytes_of(geometry: &Geometry, have: &Bitfield) -> u64 {
    let all = u64::from(have.count()) * u64::from(geometry.piece_length().bytes());
    let last = geometry.piece_count().checked_sub(1).map(shoal_core::PieceIndex);
    let short = last.filter(|&last| have.contains(last)).and_then(|last| geometry.piece(last));
    short.map_or(all, |last| all - u64::from(geometry.piece_length().bytes() - last.length))
}
