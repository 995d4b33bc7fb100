//! The tracker's HTTP API: who calls, what they may ask, and the answers of [`State`] and [`Library`].
//!
//! Who calls is in the certificate of the connection. Bodies are capped before they are read, and nobody takes
//! longer than [`REQUEST_TIME_LIMIT`] to send one. State is locked for a look or a change, never across an await.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Extension, FromRequest, FromRequestParts, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use http::request::Parts;
use serde::de::DeserializeOwned;
use shoal_control::message::{
    AnnounceRequest, CertificateReply, FindReply, FindRequest, LeaveRequest, News, RenewRequest,
    UnreachableRequest, path,
};
use shoal_control::prefetch::{PrefetchOrder, PrefetchReply};
use shoal_control::{Announced, ErrorReply, Seen, Sharing};
use shoal_core::{Digest, PeerAddress, Role};
use shoal_http::{ClientCertificate, RemoteAddress};
use shoal_identity::{Authority, Identity, Peer};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::admission::admit;
use crate::config::Config;
use crate::enrolment::Registrar;
use crate::handout::Policy;
use crate::metainfo::{Answer, Library};
use crate::metrics::Metrics;
use crate::prefetch::Orders;
use crate::refusal::Refusal;
use crate::shared::Shared as SharedState;
use crate::state::replica::Event;
use crate::state::{Memory, Reported, State};
use crate::waits::{Newcomer, Waits};

/// What the handlers share.
#[derive(Debug)]
pub(crate) struct Api {
    identity: Identity,
    state: Arc<Mutex<State>>,
    library: Library,
    policy: Policy,
    announce_interval: Duration,
    /// Announces that may be in memory at once: they are the only large requests.
    announces: Semaphore,
    /// Finds that wait for somebody new.
    waits: Arc<Waits>,
    /// Names this life of the tracker to those who ask again.
    life: u64,
    /// Who gives nodes their next certificate, if this tracker does.
    registrar: Option<Arc<Registrar>>,
    /// Those with whom this tracker shares its state, if it does.
    shared: Option<Arc<SharedState>>,
    /// What agents are to fetch.
    orders: Mutex<Orders>,
    /// How far all orders are, and until when that is good enough.
    progress: tokio::sync::Mutex<Option<(Instant, PrefetchReply)>>,
    metrics: Metrics,
}

/// Who calls, from where.
struct Caller {
    peer: Peer,
    source: IpAddr,
}

/// A JSON body, whatever its content type says.
pub(crate) struct Body<T>(pub(crate) T);

/// A request that took so long is of no use to anybody: clients give up after 3 s.
const REQUEST_TIME_LIMIT: Duration = Duration::from_secs(10);
/// At most 64 announces of at most 2 MiB are in memory at once.
const MAX_ANNOUNCES: usize = 64;

impl Api {
    pub(crate) fn new(
        config: &Config,
        identity: Identity,
        state: Arc<Mutex<State>>,
        library: Library,
        registrar: Option<Arc<Registrar>>,
        metrics: Metrics,
    ) -> Self {
        Self {
            identity,
            state,
            library,
            policy: config.handout.clone(),
            announce_interval: config.announce_interval,
            announces: Semaphore::new(MAX_ANNOUNCES),
            waits: Arc::default(),
            life: rand::random(),
            registrar,
            shared: None,
            orders: Mutex::default(),
            progress: tokio::sync::Mutex::default(),
            metrics,
        }
    }

    /// The same, with others who are told what it is told.
    pub(crate) fn sharing(self, shared: Option<Arc<SharedState>>) -> Self {
        Self { shared, ..self }
    }

    /// The same, with finds that wait there.
    pub(crate) fn ringing(self, waits: Arc<Waits>) -> Self {
        Self { waits, ..self }
    }

    /// Answers at once, or when there is somebody new if that is what was asked for. Who waits holds no metainfo.
    async fn find(&self, caller: &Caller, mut request: FindRequest) -> Result<Response, Refusal> {
        if let Some(news) = request.news.take() {
            self.look_up(&request).await?;
            self.join(&caller.peer, request.digest);
            self.wait(&caller.peer, request.digest, news).await;
        }
        let metainfo = self.look_up(&request).await?;
        let (peers, seen) = self.introduce(&caller.peer, request.digest);
        Ok(Json(FindReply { metainfo: Cow::Borrowed(&metainfo), peers, seen: Some(seen) }).into_response())
    }

    async fn look_up(&self, request: &FindRequest) -> Result<Arc<str>, Refusal> {
        let digest = request.digest;
        let origins = || lock(&self.state).origin_apis(Instant::now().into_std());
        match tokio::time::timeout(REQUEST_TIME_LIMIT, self.library.find(request, origins)).await {
            Ok(Answer::Found(metainfo)) => Ok(metainfo),
            Ok(Answer::NotFound) => Err(Refusal::NotFound(digest)),
            Ok(Answer::Unavailable(reason)) => Err(Refusal::Unavailable { digest, reason }),
            Err(_) => Err(Refusal::TooSlow),
        }
    }

    async fn wait(&self, peer: &Peer, digest: Digest, News { seen, wait_ms }: News) {
        let wait = Duration::from_millis(wait_ms.min(FindRequest::MAX_WAIT_MS));
        // What another tracker knew, or this one in another life, says nothing here.
        let since = if seen.tracker == self.life { seen.arrivals } else { 0 };
        let look = || lock(&self.state).has_news(&self.policy, &peer.id, &digest, since);
        self.waits.until(peer.id, digest, wait, look).await;
    }

    /// Whom the caller meets; and from now on others meet it.
    fn introduce(&self, peer: &Peer, digest: Digest) -> (Vec<PeerAddress>, Seen) {
        self.join(peer, digest);
        let now = Instant::now().into_std();
        let mut state = lock(&self.state);
        let seen = Seen { tracker: self.life, arrivals: state.arrivals() };
        let peers = state.meet(now, &self.policy, peer.id, &digest, &mut rand::rng());
        state.handed(&peer.id, &peers);
        (peers, seen)
    }

    fn join(&self, peer: &Peer, digest: Digest) {
        if peer.role == Role::Agent {
            let is_news = {
                let mut state = lock(&self.state);
                let before = state.arrivals();
                state.join(Instant::now().into_std(), &peer.id, digest);
                state.arrivals() > before
            };
            if is_news {
                self.waits.ring([digest]);
            }
        }
    }

    fn unreachable(&self, caller: &Caller, request: &UnreachableRequest) {
        let now = Instant::now().into_std();
        for peer in request.peers.iter().take(UnreachableRequest::MAX_PEERS) {
            let reported = lock(&self.state).unreachable(now, &caller.peer.id, caller.source, peer);
            self.metrics.reported(reported);
            if let Reported::Removed(scope) = reported {
                tracing::warn!(%peer, ?scope, "node is handed out no more: others cannot reach its peer port");
            }
        }
    }

    fn announce(&self, caller: &Caller, request: AnnounceRequest<'_>) -> Result<Announced, Refusal> {
        let (sequence, zone) = (request.sequence, request.address.zone.clone());
        let announce = admit(&caller.peer, caller.source, request)?;
        let (outcome, sequence, event, counts) =
            self.waits.tell(&self.state, Newcomer::of(&announce), |state| {
                let now = Instant::now().into_std();
                let (outcome, sequence, event) = match &self.shared {
                    None => (state.announce(now, announce), 0, None),
                    Some(_) => {
                        let heard = state.hear(now, clock(), sequence, announce);
                        (heard.outcome, heard.version, heard.event)
                    }
                };
                (outcome, sequence, event, state.counts())
            });
        self.metrics.observe(counts);
        self.tell_others(event);
        let interval_ms = u64::try_from(self.announce_interval.as_millis()).unwrap_or(u64::MAX);
        let revocations = self.identity.revocations().map_or(0, |list| list.number());
        let sharing = self.shared.as_ref().map_or(Sharing::Own, |shared| shared.sharing());
        let (send_all, prefetch) = (outcome? == Memory::Missing, self.orders_for(&caller.peer, &zone));
        Ok(Announced { interval_ms, send_all, revocations, sharing, sequence, prefetch })
    }

    fn tell_others(&self, event: Option<Event>) {
        if let (Some(shared), Some(event)) = (&self.shared, event) {
            shared.publish(event);
        }
    }

    fn leave(&self, caller: &Caller, sequence: u64) {
        let id = caller.peer.id;
        let (event, counts) = {
            let mut state = lock(&self.state);
            let event = match &self.shared {
                None => {
                    state.leave(&id);
                    None
                }
                Some(_) => state.hear_leave(Instant::now().into_std(), clock(), sequence, id),
            };
            (event, state.counts())
        };
        self.metrics.observe(counts);
        self.tell_others(event);
    }
}

/// All routes.
pub(crate) fn router(api: Arc<Api>) -> Router {
    let limited = |limit| DefaultBodyLimit::max(limit);
    Router::new()
        .route(path::ANNOUNCE, post(announce).layer(limited(AnnounceRequest::MAX_LENGTH)))
        .route(path::RENEW, post(renew).layer(limited(RenewRequest::MAX_LENGTH)))
        .route(path::REVOCATIONS, get(revocations))
        .route(path::UNREACHABLE, post(unreachable).layer(limited(UnreachableRequest::MAX_LENGTH)))
        .route(
            path::PREFETCH,
            post(orders::publish).get(orders::list).layer(limited(PrefetchOrder::MAX_LENGTH)),
        )
        .route(path::LEAVE, post(leave).layer(limited(LeaveRequest::MAX_LENGTH)))
        .layer(middleware::from_fn(in_time))
        // Not under that limit: it may wait, and limits its parts itself.
        .route(path::FIND, post(find).layer(limited(FindRequest::MAX_LENGTH)))
        .fallback(|| async { ErrorReply::response(StatusCode::NOT_FOUND, "a tracker has no such path") })
        .method_not_allowed_fallback(|| async {
            ErrorReply::response(
                StatusCode::METHOD_NOT_ALLOWED,
                "a tracker is asked by POST, but for /v1/revocations and /v1/prefetch",
            )
        })
        .with_state(api)
}

/// The lock of the state: each use leaves it whole, so a panic elsewhere is no reason to stop.
pub(crate) fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Microseconds since 1970, by the clock of this host: only for nodes that do not number what they say.
fn clock() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

type Shared = axum::extract::State<Arc<Api>>;

async fn find(
    axum::extract::State(api): Shared,
    caller: Caller,
    request: Request,
) -> Result<Response, Refusal> {
    let outcome = match tokio::time::timeout(REQUEST_TIME_LIMIT, Body::read(request)).await {
        Ok(Ok(Body(request))) => api.find(&caller, request).await,
        Ok(Err(refusal)) => Err(refusal),
        Err(_) => Err(Refusal::TooSlow),
    };
    let result = outcome.as_ref().map_or_else(Refusal::label, |_| "found");
    api.metrics.finds.with_label_values(&[result]).inc();
    outcome
}

/// The body is read here and not by an extractor: only so many are held at once.
async fn announce(
    axum::extract::State(api): Shared,
    caller: Caller,
    request: Request,
) -> Result<Json<Announced>, Refusal> {
    let _place = api.announces.acquire().await.map_err(|_| Refusal::TooSlow)?;
    let outcome = match Body::from_request(request, &()).await {
        Ok(Body(request)) => api.announce(&caller, request),
        Err(refusal) => Err(refusal),
    };
    let result = outcome.as_ref().map_or_else(Refusal::label, |_| "taken");
    api.metrics.announces.with_label_values(&[result]).inc();
    outcome.map(Json)
}

async fn unreachable(
    axum::extract::State(api): Shared,
    caller: Caller,
    Body(request): Body<UnreachableRequest>,
) -> Json<LeaveRequest> {
    api.unreachable(&caller, &request);
    Json(LeaveRequest::default())
}

async fn leave(
    axum::extract::State(api): Shared,
    caller: Caller,
    Body(LeaveRequest { sequence }): Body<LeaveRequest>,
) -> Json<LeaveRequest> {
    api.leave(&caller, sequence);
    Json(LeaveRequest::default())
}

/// Whoever may connect may ask, trackers too: what a node gets is what it has, for longer.
async fn renew(
    axum::extract::State(api): Shared,
    Extension(ClientCertificate(certificate)): Extension<ClientCertificate>,
    Body(RenewRequest {}): Body<RenewRequest>,
) -> Result<Json<CertificateReply>, Refusal> {
    let registrar = api.registrar.as_ref().ok_or(Refusal::NotHere)?;
    let node = api.identity.peer(&certificate).map_err(|error| Refusal::Certificate(error.to_string()))?;
    if !Authority::may_renew(&certificate, SystemTime::now()) {
        return Err(Refusal::TooEarly(node.id));
    }
    let certificate = registrar.renew(&node).map_err(|error| Refusal::Issue(error.to_string()))?;
    tracing::info!(peer = %node.id, role = %node.role, name = node.name, "certificate renewed");
    Ok(Json(CertificateReply { certificate }))
}

async fn revocations(axum::extract::State(api): Shared) -> Response {
    match api.identity.revocations() {
        Some(list) => list.text().to_owned().into_response(),
        None => ErrorReply::response(StatusCode::NOT_FOUND, "nobody is revoked").into_response(),
    }
}

pub(crate) async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIME_LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Refusal::TooSlow.into_response(),
    }
}

impl FromRequestParts<Arc<Api>> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Refusal> {
        let certificate = parts.extensions.get::<ClientCertificate>().ok_or(Refusal::NoCertificate)?;
        let remote = parts.extensions.get::<RemoteAddress>().ok_or(Refusal::NoCertificate)?;
        let peer =
            api.identity.peer(&certificate.0).map_err(|error| Refusal::Certificate(error.to_string()))?;
        match peer.role {
            Role::Agent | Role::Origin => Ok(Self { peer, source: remote.0.ip() }),
            Role::Tracker => Err(Refusal::Role(peer.role)),
        }
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Refusal> {
        Self::read(request).await
    }
}

impl<T: DeserializeOwned> Body<T> {
    pub(crate) async fn read(request: Request) -> Result<Self, Refusal> {
        let bytes =
            Bytes::from_request(request, &()).await.map_err(|rejection| match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => Refusal::TooLong,
                _ => Refusal::Body(rejection.body_text()),
            })?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| Refusal::Body(error.to_string()))
    }
}

mod orders;
