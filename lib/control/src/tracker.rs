//! The client of trackers.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use serde::Serialize;
use shoal_core::{Digest, PeerAddress, PeerId, RepositoryName, Role, SignedMetainfo};
use shoal_identity::{Identity, Revocations};

use crate::error::{ControlError, Nonsense};
use crate::message::{
    AnnounceRequest, Announced, CertificateReply, FindReply, FindRequest, Holding, LeaveRequest, News,
    RenewRequest, Seen, UnreachableRequest, path,
};
use crate::prefetch::{PrefetchOrder, PrefetchReply, PrefetchState, PrefetchTaken, joined};
use crate::rendezvous::{MAX_TRACKERS, Places, Rendezvous};
use crate::server_url::ServerUrl;
use crate::servers::{Call, REQUEST_TIMEOUT, Servers, Start};
use clock::Clock;
use standing::Standings;

/// Asks trackers: for a blob those to which it belongs, for anything else any that answers. Clones share their connections.
#[derive(Clone, Debug)]
pub struct TrackerClient {
    servers: Servers,
    /// Who the caller is.
    id: PeerId,
    rendezvous: Arc<Rendezvous>,
    standings: Arc<Standings>,
    clock: Arc<Clock>,
    /// The number of the latest revocation list, and which tracker said it.
    latest_list: Arc<Mutex<(u64, usize)>>,
}

/// A tracker's answer for one blob.
#[derive(Clone, Debug)]
pub struct Found {
    /// Unverified: the caller checks the signature.
    pub metainfo: SignedMetainfo,
    /// Whom to ask, best first; origins among them.
    pub peers: Vec<PeerAddress>,
    /// The tracker that said so.
    pub bearer: Option<PeerId>,
    /// How much that tracker knew, if it answers again when it knows more.
    pub seen: Option<Seen>,
}

/// What one announce says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Announcement<'a> {
    pub(crate) address: &'a PeerAddress,
    pub(crate) api: Option<&'a str>,
    pub(crate) added: &'a [Holding],
    pub(crate) removed: &'a [Digest],
    pub(crate) everything: bool,
}

impl TrackerClient {
    /// A client of the trackers at `https://host:port` each, at most [`MAX_TRACKERS`]. Without any, every question is answered
    /// by `Unavailable`.
    pub fn new(identity: &Identity, trackers: Vec<String>) -> Result<Self, ControlError> {
        let servers = Servers::new(identity, Role::Tracker, trackers)?;
        let urls = servers.urls();
        if urls.len() > MAX_TRACKERS {
            return Err(ControlError::TooMany { count: urls.len(), max: MAX_TRACKERS });
        }
        Ok(Self {
            servers,
            id: identity.id(),
            rendezvous: Arc::new(Rendezvous::new(urls.iter().map(ServerUrl::as_str))),
            standings: Arc::default(),
            clock: Arc::default(),
            latest_list: Arc::default(),
        })
    }

    /// A tracker that proved itself said that it is there, too: asked after those that are configured. Only a few are kept.
    pub fn learn(&self, tracker: ServerUrl) {
        self.servers.learn(tracker);
    }

    /// Metainfo and the first peers in one round trip. `repository`: the blob must be linked there (`None`: any).
    ///
    /// `NotFound` when the origins say so; `Unavailable` when the tracker (or, for unknown metainfo, every origin) cannot
    /// be reached. The metainfo is of that digest, and otherwise unverified.
    pub async fn find(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
    ) -> Result<Found, ControlError> {
        let request = FindRequest { repository: repository.cloned(), digest: *digest, news: None };
        self.find_by(request, None).await
    }

    /// The same, answered when somebody is to be met of whom the answer did not know that said `seen`, or after `wait`.
    pub async fn find_news(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
        seen: Seen,
        wait: Duration,
    ) -> Result<Found, ControlError> {
        let wait = wait.min(Duration::from_millis(FindRequest::MAX_WAIT_MS));
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(FindRequest::MAX_WAIT_MS);
        let news = Some(News { seen, wait_ms });
        let request = FindRequest { repository: repository.cloned(), digest: *digest, news };
        self.find_by(request, Some(wait)).await
    }

    async fn find_by(&self, request: FindRequest, wait: Option<Duration>) -> Result<Found, ControlError> {
        let FindRequest { repository, digest, .. } = &request;
        let what = crate::origin::blob(repository.as_ref(), digest);
        let call = post(path::FIND, &request, FindReply::MAX_LENGTH, what);
        let (plan, read) = (self.plan(digest), |reply| read_found(&reply, digest));
        let (found, server) = match wait {
            None => self.ask_owners(&call, plan, read).await?,
            Some(wait) => self.ask_patiently(&call, plan, wait, read).await?,
        };
        Ok(Found { bearer: server.id, ..found })
    }

    /// Says that these nodes could not be connected to, at most [`UnreachableRequest::MAX_PEERS`] of them: to every tracker, since
    /// each believes it of those that it named itself. It is enough that one answers.
    pub async fn report_unreachable(&self, peers: Vec<PeerId>) -> Result<(), ControlError> {
        let request = UnreachableRequest { peers };
        let call = post(path::UNREACHABLE, &request, SMALL_REPLY, "unreachable peers".to_owned());
        self.servers.tell_all(&call).await
    }

    /// Asks every tracker for a sign of life, for a second at most; what each said, by its URL.
    pub async fn probe(&self) -> Vec<(String, Result<(), ControlError>)> {
        // A question that costs nothing: finds are asked by POST, and that is the answer.
        let (path, query, body) = (path::FIND, Vec::new(), Bytes::new());
        let what = "sign of life".to_owned();
        let call = Call { method: Method::GET, path, query, body, max_reply: SMALL_REPLY, what };
        let answers = self.servers.ask_each(&call).await;
        let alive = |answer| match answer {
            Err(ControlError::NotFound { .. } | ControlError::Denied { status: 405, .. }) => Ok(()),
            answer => answer,
        };
        answers.into_iter().map(|(url, answer)| (url, alive(answer))).collect()
    }

    /// Renews the lease of this node at `address` and tells what changed since the last announce: at most
    /// [`AnnounceRequest::MAX_CHANGES`] at once. `api`: an origin's internal API. `everything`: `added` is all there is.
    ///
    /// [`Announcer`](crate::Announcer) does that for the life of a node.
    pub async fn announce(
        &self,
        address: &PeerAddress,
        api: Option<&str>,
        added: &[Holding],
        removed: &[Digest],
        everything: bool,
    ) -> Result<Announced, ControlError> {
        let announcement = Announcement { address, api, added, removed, everything };
        let call = self.announcement(announcement);
        let (announced, server) = self.servers.ask(&call, Start::First, read_announced).await?;
        Ok(self.heed(announced, server.index))
    }

    /// The same to that tracker alone, or for the place after the configured ones to any of those that were learned of. Says
    /// which of them took it.
    pub(crate) async fn announce_at(
        &self,
        place: usize,
        announcement: Announcement<'_>,
    ) -> Result<(Announced, usize), ControlError> {
        let call = self.announcement(announcement);
        let (announced, server) = if place < self.rendezvous.len() {
            self.servers.ask_at(&call, place, REQUEST_TIMEOUT, read_announced).await?
        } else {
            self.servers.ask_from(&call, place, read_announced).await?
        };
        self.standings.answered(server.index);
        Ok((self.heed(announced, server.index), server.index))
    }

    /// The configured trackers that are taken for alive by whoever announces this node.
    pub(crate) fn rely_on(&self, live: Places) {
        self.standings.rely_on(Places::first(self.rendezvous.len()).without(live));
    }

    /// Whether all trackers are told of all blobs; if so, those that also hear what others are told.
    pub(crate) fn take_any(&self, sharing: Option<Places>) {
        self.standings.take_any(sharing);
    }

    pub(crate) fn rendezvous(&self) -> Arc<Rendezvous> {
        Arc::clone(&self.rendezvous)
    }

    fn announcement(&self, announcement: Announcement<'_>) -> Call<'static> {
        let request = AnnounceRequest {
            address: Cow::Borrowed(announcement.address),
            api: announcement.api.map(Cow::Borrowed),
            added: Cow::Borrowed(announcement.added),
            removed: Cow::Borrowed(announcement.removed),
            everything: announcement.everything,
            sequence: self.clock.next(),
        };
        post(path::ANNOUNCE, &request, SMALL_REPLY, "announce".to_owned())
    }

    fn heed(&self, announced: Announced, index: usize) -> Announced {
        self.clock.pass(announced.sequence);
        let mut latest = self.latest_list.lock().unwrap_or_else(PoisonError::into_inner);
        if announced.revocations >= latest.0 {
            *latest = (announced.revocations, index);
        }
        announced
    }

    /// A new certificate (PEM) for this node, from a tracker that holds the authority's key.
    pub async fn renew(&self) -> Result<String, ControlError> {
        let what = "certificate of this node".to_owned();
        let call = post(path::RENEW, &RenewRequest {}, CertificateReply::MAX_LENGTH, what);
        let read = |reply: Bytes| Ok(serde_json::from_slice::<CertificateReply>(&reply)?.certificate);
        Ok(self.servers.ask(&call, Start::LastGood, read).await?.0)
    }

    /// The authority's revocation list, as text and unverified.
    pub async fn revocations(&self) -> Result<String, ControlError> {
        let (max_reply, what) = (Revocations::MAX_LENGTH, "revocation list".to_owned());
        let (path, query, body) = (path::REVOCATIONS, Vec::new(), Bytes::new());
        let call = Call { method: Method::GET, path, query, body, max_reply, what };
        let read = |reply: Bytes| String::from_utf8(reply.to_vec()).map_err(|_| Nonsense::Text);
        // Lists are copied to trackers by hand, so not all have the latest.
        let (_, place) = *self.latest_list.lock().unwrap_or_else(PoisonError::into_inner);
        let start = Start::At(place);
        Ok(self.servers.ask(&call, start, read).await?.0)
    }

    /// Publishes an order at every tracker, or says again that it holds; says for how many agents it is. It is enough that one takes it.
    pub async fn order_prefetch(&self, order: &PrefetchOrder) -> Result<u64, ControlError> {
        let call = post(path::PREFETCH, order, SMALL_REPLY, format!("order to fetch {}", order.image));
        let read = |reply: Bytes| Ok(serde_json::from_slice::<PrefetchTaken>(&reply)?.agents);
        let ask = async |index| Ok(self.servers.ask_at(&call, index, REQUEST_TIMEOUT, read).await?.0);
        let answers = futures_util::future::join_all((0..self.servers.urls().len()).map(ask)).await;
        let most = |one: Result<u64, ControlError>, other: Result<u64, ControlError>| match (one, other) {
            (Ok(one), Ok(other)) => Ok(one.max(other)),
            (one, other) => one.or(other),
        };
        answers.into_iter().reduce(most).unwrap_or_else(|| Err(self.servers.nobody(&call)))
    }

    /// All orders, and how far they are by what all trackers that answer know.
    pub async fn prefetch_states(&self) -> Result<Vec<PrefetchState>, ControlError> {
        let ask = async |index| self.prefetch_orders_at(index).await;
        let answers = futures_util::future::join_all((0..self.servers.urls().len()).map(ask)).await;
        let (good, mut bad): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        match bad.pop() {
            Some(Err(error)) if good.is_empty() => Err(error),
            _ => Ok(joined(good.into_iter().flatten())),
        }
    }

    /// The orders that a tracker has for the caller; which tracker, says who was told of them by it.
    pub async fn prefetch_orders_at(&self, place: usize) -> Result<PrefetchReply, ControlError> {
        let (path, query, body) = (path::PREFETCH, Vec::new(), Bytes::new());
        let what = "orders to fetch".to_owned();
        let max_reply = PrefetchReply::MAX_LENGTH;
        let call = Call { method: Method::GET, path, query, body, max_reply, what };
        let read = |reply: Bytes| {
            let mut reply: PrefetchReply = serde_json::from_slice(&reply)?;
            reply.orders.truncate(PrefetchOrder::MAX_ORDERS);
            reply.orders.retain(|state| state.order.blobs.len() <= PrefetchOrder::MAX_BLOBS);
            Ok(reply)
        };
        Ok(self.servers.ask_at(&call, place, REQUEST_TIMEOUT, read).await?.0)
    }

    /// Says goodbye to every tracker (a lease may be left at any): the node is handed out no more. It is enough that one
    /// answers; the leases of the others run out.
    pub async fn leave(&self) -> Result<(), ControlError> {
        let call =
            post(path::LEAVE, &LeaveRequest { sequence: self.clock.next() }, SMALL_REPLY, "leave".to_owned());
        self.servers.tell_all(&call).await
    }
}

/// The longest reply to an announce or a leave.
const SMALL_REPLY: usize = 4 << 10;

pub(crate) fn post(
    path: &'static str,
    request: &impl Serialize,
    max_reply: usize,
    what: String,
) -> Call<'static> {
    let body = serde_json::to_vec(request).expect("requests have string keys only and cannot fail");
    Call { method: Method::POST, path, query: Vec::new(), body: body.into(), max_reply, what }
}

// By value, as all readers of replies take them.
#[allow(clippy::needless_pass_by_value)]
fn read_announced(reply: Bytes) -> Result<Announced, Nonsense> {
    Ok(serde_json::from_slice(&reply)?)
}

pub(crate) fn read_found(reply: &Bytes, digest: &Digest) -> Result<Found, Nonsense> {
    let mut reply: FindReply<'static> = serde_json::from_slice(reply)?;
    let metainfo = reply.decode_metainfo()?;
    if metainfo.metainfo.digest() != digest {
        return Err(Nonsense::OtherBlob { found: *metainfo.metainfo.digest() });
    }
    reply.peers.truncate(FindReply::MAX_PEERS);
    for peer in &mut reply.peers {
        peer.addresses.truncate(AnnounceRequest::MAX_ADDRESSES);
    }
    Ok(Found { metainfo, peers: reply.peers, bearer: None, seen: reply.seen })
}

mod clock;
mod finding;
mod standing;
