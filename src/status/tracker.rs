//! A tracker, as it shows itself.

use std::time::Instant;

use shoal_core::Digest;
use shoal_identity::Identity;
use shoal_tracker::View;
use shoal_tracker::state::{HolderView, NodeView, Share};

use super::api::Source;
use super::{HolderStatus, Holds, KnownNode, List, Peers, Query, Status, Swarm, TrackerStatus, TrackerSwarm};

/// What of a tracker there is to look at.
pub struct TrackerSource {
    /// Who it is.
    pub identity: Identity,
    /// What it knows.
    pub view: View,
    /// When it came up.
    pub started: Instant,
}

impl Source for TrackerSource {
    async fn status(&self, _: Query) -> Status {
        let counts = self.view.counts();
        let tracker = TrackerStatus {
            agents: counts.agents,
            origins: counts.origins,
            blobs: counts.blobs,
            holdings: counts.holdings,
            waiting: self.view.waiting(),
        };
        Status { tracker: Some(tracker), ..identified(&self.identity, self.started) }
    }

    async fn peers(&self, query: Query) -> Peers {
        let (nodes, next) = self.view.nodes(query.after, query.limit());
        let total = self.view.counts();
        Peers::Tracker(List {
            entries: nodes.into_iter().map(known).collect(),
            total: total.agents + total.origins,
            truncated: next.is_some(),
            next,
        })
    }

    async fn swarm(&self, digest: Digest, query: Query) -> Swarm {
        let (holders, total) = self.view.holders(&digest, query.limit());
        let holders = List::of(holders.into_iter().map(holder), total, query.limit());
        Swarm::Tracker(TrackerSwarm { digest, holders })
    }
}

/// What any role says of itself.
pub(super) fn identified(identity: &Identity, started: Instant) -> Status {
    Status {
        role: identity.role(),
        id: identity.id(),
        name: identity.name().to_owned(),
        cluster: identity.cluster().to_owned(),
        version: env!("CARGO_PKG_VERSION").into(),
        uptime_s: started.elapsed().as_secs(),
        certificate_ends: humantime::format_rfc3339_seconds(identity.expires()).to_string(),
        not_ready: None,
        node: None,
        tracker: None,
    }
}

fn known(node: NodeView) -> KnownNode {
    KnownNode {
        id: node.address.id,
        role: node.address.role,
        zone: node.address.zone,
        addresses: node.address.addresses,
        lease_s: node.lease.as_secs(),
        blobs: node.holdings,
        removed: node.is_removed,
    }
}

fn holder(holder: HolderView) -> HolderStatus {
    HolderStatus {
        id: holder.address.id,
        role: holder.address.role,
        zone: holder.address.zone,
        addresses: holder.address.addresses,
        state: match holder.share {
            Share::Asked => Holds::Asked,
            Share::Partial => Holds::Partial,
            Share::Complete => Holds::Complete,
        },
        since_s: holder.since.as_secs(),
    }
}
