//! Several servers of one kind, of which any will do: each question goes to one after the other until one answers.
//!
//! Connections are kept, nothing is redirected, no proxy is taken from the environment, and every reply has a limit
//! that holds while it is read. The whole question takes at most [`REQUEST_TIMEOUT`], however many servers there are; one that
//! a server may think over takes as much longer at each.

mod streaming;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use shoal_core::{PeerId, Role};
use shoal_identity::Identity;
use tokio::time::Instant;

use crate::error::{ControlError, Failure, Nonsense};
use crate::message::ErrorReply;
use crate::server_url::ServerUrl;

/// How long an agent waits for the control plane before it answers the runtime (a manifest: 404 within 5 s in all).
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a connection may take: several round trips around the world, and short enough to try the next server.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A server that is slow gets at least that long before the next is asked, however many there are.
const MIN_ATTEMPT: Duration = Duration::from_secs(1);
/// Longer than the interval between two announces, so that those of an idle node share a connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// How often a kept HTTP/2 connection is tried, so that a host that vanished does not cost the next who asks his time.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// HTTP/1.1 connections kept to one server: more are opened when needed, and closed again. HTTP/2 needs one.
const MAX_IDLE_CONNECTIONS: usize = 8;
/// What is spoken.
const PROTOCOLS: &[&[u8]] = &[b"h2", b"http/1.1"];
/// How much of a server's own words an error keeps, in characters.
pub(crate) const MAX_REASON_LENGTH: usize = 300;

/// Servers that were learned of beside the configured ones: a cluster has a handful, and each that is away costs time.
const MAX_LEARNED: usize = 8;

/// The servers, and which of them answered last. Clones share connections and that knowledge.
#[derive(Clone, Debug)]
pub(crate) struct Servers {
    http: Http,
    /// The configured ones first. It only ever grows, so that a place means the same server for good.
    urls: Arc<RwLock<Known>>,
    last_good: Arc<AtomicUsize>,
    timeout: Duration,
}

/// The HTTP client. Connections are let go of when somebody is revoked: one of them may lead there.
#[derive(Clone, Debug)]
struct Http {
    tls: Arc<rustls::ClientConfig>,
    client: Arc<Mutex<(u64, Client)>>,
    identity: Option<Identity>,
}

#[derive(Debug)]
struct Known {
    urls: Arc<[ServerUrl]>,
    configured: usize,
}

/// One question.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) query: Vec<(&'static str, &'a str)>,
    pub(crate) body: Bytes,
    /// The most bytes of a reply.
    pub(crate) max_reply: usize,
    /// For errors: names the digest or tag.
    pub(crate) what: String,
}

/// Who gave an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    /// Its place in the list.
    pub(crate) index: usize,
    /// Its id, by the certificate of the connection.
    pub(crate) id: Option<PeerId>,
}

/// What a server said.
struct Reply {
    body: Bytes,
    id: Option<PeerId>,
}

/// Which server is asked first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// The one that answered last: somebody waits for the answer.
    LastGood,
    /// The first of the list.
    First,
    /// The one at that place, if there is one; else the first.
    At(usize),
}

impl Known {
    fn share(urls: Arc<[ServerUrl]>) -> Arc<RwLock<Self>> {
        Arc::new(RwLock::new(Self { configured: urls.len(), urls }))
    }
}

impl Servers {
    /// Servers that must prove one role of this cluster.
    pub(crate) fn new(identity: &Identity, role: Role, urls: Vec<String>) -> Result<Self, ControlError> {
        let tls = identity.client_config(&[role], PROTOCOLS);
        Self::over(Http::new(tls, Some(identity.clone()))?, urls)
    }

    /// Servers that prove who they are as `tls` demands.
    pub(crate) fn proven_by(tls: Arc<rustls::ClientConfig>, urls: Vec<String>) -> Result<Self, ControlError> {
        Self::over(Http::new(tls, None)?, urls)
    }

    fn over(http: Http, urls: Vec<String>) -> Result<Self, ControlError> {
        let mut known: Vec<ServerUrl> = Vec::new();
        for url in urls {
            let url = ServerUrl::parse(&url)?;
            if !known.contains(&url) {
                known.push(url);
            }
        }
        Ok(Self {
            http,
            urls: Known::share(known.into()),
            last_good: Arc::default(),
            timeout: REQUEST_TIMEOUT,
        })
    }

    /// Other servers of the same kind, over the same connections.
    pub(crate) fn with_urls(&self, urls: impl IntoIterator<Item = ServerUrl>, timeout: Duration) -> Self {
        let urls = Known::share(urls.into_iter().collect());
        Self { http: self.http.clone(), urls, last_good: Arc::default(), timeout }
    }

    /// Asks every server at the same time, each for [`MIN_ATTEMPT`] at most.
    pub(crate) async fn ask_each(&self, call: &Call<'_>) -> Vec<(String, Result<(), ControlError>)> {
        let ask = async |index| (self.url(index), self.ask_one(call, index, MIN_ATTEMPT).await.map(drop));
        futures_util::future::join_all((0..self.urls().len()).map(ask)).await
    }

    /// One more, asked after the others. Whether it is what it says is proved when it is asked.
    pub(crate) fn learn(&self, url: ServerUrl) {
        let mut known = self.urls.write().unwrap_or_else(PoisonError::into_inner);
        if !known.urls.contains(&url) && known.urls.len() - known.configured < MAX_LEARNED {
            tracing::info!(url = url.as_str(), "learned of a server");
            known.urls = known.urls.iter().cloned().chain([url]).collect();
        }
    }

    pub(crate) fn urls(&self) -> Arc<[ServerUrl]> {
        self.urls.read().unwrap_or_else(PoisonError::into_inner).urls.clone()
    }

    /// From now on begins with a server by chance, so that many clients spread over them.
    pub(crate) fn start_anywhere(&self) {
        let count = self.urls().len();
        if count > 0 {
            self.last_good.store(rand::random_range(0..count), Ordering::Relaxed);
        }
    }

    /// Asks until a server answers; says which it was. A reply that `read` refuses counts as none.
    pub(crate) async fn ask<T>(
        &self,
        call: &Call<'_>,
        start: Start,
        read: impl Fn(Bytes) -> Result<T, Nonsense>,
    ) -> Result<(T, Server), ControlError> {
        let deadline = Instant::now() + self.timeout;
        let mut last = None;
        let count = self.urls().len();
        for (tried, index) in self.order(start, count).enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let servers_left = u32::try_from(count - tried).unwrap_or(u32::MAX);
            match self.ask_at(call, index, left.min(MIN_ATTEMPT.max(left / servers_left)), &read).await {
                Ok(answer) => {
                    self.last_good.store(index, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(error) if error.is_final() => {
                    self.last_good.store(index, Ordering::Relaxed);
                    return Err(error);
                }
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "asking the next server");
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| self.nobody(call)))
    }

    /// Asks those from that place on, in order.
    pub(crate) async fn ask_from<T>(
        &self,
        call: &Call<'_>,
        first: usize,
        read: impl Fn(Bytes) -> Result<T, Nonsense>,
    ) -> Result<(T, Server), ControlError> {
        let mut last = ControlError::Unavailable {
            what: call.what.clone(),
            url: self.url(usize::MAX),
            source: Failure::NoServer,
        };
        for index in first..self.urls().len() {
            match self.ask_at(call, index, MIN_ATTEMPT, &read).await {
                Err(error) if !error.is_final() => last = error,
                answer => return answer,
            }
        }
        Err(last)
    }

    /// Asks that server alone.
    pub(crate) async fn ask_at<T>(
        &self,
        call: &Call<'_>,
        index: usize,
        timeout: Duration,
        read: impl Fn(Bytes) -> Result<T, Nonsense>,
    ) -> Result<(T, Server), ControlError> {
        let Reply { body, id } = self.ask_one(call, index, timeout).await?;
        let answer = read(body).map_err(|source| self.malformed(call, index, source))?;
        Ok((answer, Server { index, id }))
    }

    /// Tells every server at the same time; it is enough that one answers.
    pub(crate) async fn tell_all(&self, call: &Call<'_>) -> Result<(), ControlError> {
        let tell = async |index| self.ask_one(call, index, self.timeout).await.map(drop);
        let told = futures_util::future::join_all((0..self.urls().len()).map(tell)).await;
        told.into_iter().reduce(Result::or).unwrap_or_else(|| Err(self.nobody(call)))
    }

    async fn ask_one(&self, call: &Call<'_>, index: usize, timeout: Duration) -> Result<Reply, ControlError> {
        let failed =
            |error: reqwest::Error| self.unavailable(call, index, Failure::Connection(error.without_url()));
        let response = self.request(call, index).timeout(timeout).send().await.map_err(failed)?;
        let (status, id) = (response.status(), self.http.id_of(&response));
        let limit = if status.is_success() { call.max_reply } else { ErrorReply::MAX_LENGTH };
        let body = read_capped(response, limit).await.map_err(failed)?;
        match (status, body) {
            (StatusCode::OK, Some(body)) => Ok(Reply { body, id }),
            (StatusCode::OK, None) => Err(self.malformed(call, index, Nonsense::TooLong { limit })),
            (status, body) => Err(self.refusal(call, index, status, &body.unwrap_or_default())),
        }
    }

    fn order(&self, start: Start, count: usize) -> impl Iterator<Item = usize> + use<> {
        let first = match start {
            Start::LastGood => self.last_good.load(Ordering::Relaxed),
            Start::First => 0,
            Start::At(place) if place < count => place,
            Start::At(_) => 0,
        };
        (0..count).map(move |offset| (first + offset) % count)
    }

    fn request(&self, call: &Call<'_>, index: usize) -> RequestBuilder {
        let mut url = self.urls()[index].with_path(call.path);
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        let request = self.http.client().request(call.method.clone(), url);
        if call.method == Method::GET {
            return request;
        }
        request.header(reqwest::header::CONTENT_TYPE, "application/json").body(call.body.clone())
    }

    fn refusal(&self, call: &Call<'_>, index: usize, status: StatusCode, body: &[u8]) -> ControlError {
        let reason = reason(status, body);
        let (what, url) = (call.what.clone(), self.url(index));
        match status.as_u16() {
            404 => ControlError::NotFound { what, url },
            // 408: the server had no time for it; another may have.
            status @ (408 | 500..) => {
                ControlError::Unavailable { what, url, source: Failure::Answer { status, reason } }
            }
            status @ 400..500 => ControlError::Denied { what, url, status, reason },
            status => ControlError::Malformed { what, url, source: Nonsense::Status(status) },
        }
    }

    fn malformed(&self, call: &Call<'_>, index: usize, source: Nonsense) -> ControlError {
        ControlError::Malformed { what: call.what.clone(), url: self.url(index), source }
    }

    fn unavailable(&self, call: &Call<'_>, index: usize, source: Failure) -> ControlError {
        ControlError::Unavailable { what: call.what.clone(), url: self.url(index), source }
    }

    pub(crate) fn nobody(&self, call: &Call<'_>) -> ControlError {
        let source = if self.urls().is_empty() { Failure::NoServer } else { Failure::OutOfTime };
        self.unavailable(call, 0, source)
    }

    fn url(&self, index: usize) -> String {
        self.urls().get(index).map_or("the control plane", ServerUrl::as_str).to_owned()
    }
}

impl Http {
    fn new(tls: Arc<rustls::ClientConfig>, identity: Option<Identity>) -> Result<Self, ControlError> {
        let client = connect_by(&tls).map_err(ControlError::Client)?;
        let client = Arc::new(Mutex::new((revocations(identity.as_ref()), client)));
        Ok(Self { tls, client, identity })
    }

    /// The client: a new one, whose connections are checked anew, when there is another revocation list.
    fn client(&self) -> Client {
        let now = revocations(self.identity.as_ref());
        // Either value is whole at any time.
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if client.0 != now
            && let Ok(fresh) = connect_by(&self.tls)
        {
            *client = (now, fresh);
        }
        client.1.clone()
    }

    /// Whose certificate the answer came with.
    fn id_of(&self, response: &Response) -> Option<PeerId> {
        let certificate = response.extensions().get::<reqwest::tls::TlsInfo>()?.peer_certificate()?;
        Some(self.identity.as_ref()?.peer(&certificate.into()).ok()?.id)
    }
}

fn revocations(identity: Option<&Identity>) -> u64 {
    identity.and_then(Identity::revocations).map_or(0, |list| list.number())
}

fn connect_by(tls: &rustls::ClientConfig) -> Result<Client, reqwest::Error> {
    Client::builder()
        .tls_backend_preconfigured(tls.clone())
        .tls_info(true)
        .https_only(true)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_while_idle(true)
        .build()
}

/// The body, or `None` if it is longer than `limit`: never more than that is held.
async fn read_capped(mut response: Response, limit: usize) -> Result<Option<Bytes>, reqwest::Error> {
    let announced = response.content_length().unwrap_or(0);
    if announced > limit as u64 {
        return Ok(None);
    }
    let mut body = BytesMut::with_capacity(usize::try_from(announced).unwrap_or(0));
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body.freeze()))
}

/// The server's own words if it has any, else what the status means.
fn reason(status: StatusCode, body: &[u8]) -> String {
    match serde_json::from_slice::<ErrorReply>(body) {
        Ok(reply) => reply.error.chars().take(MAX_REASON_LENGTH).collect(),
        Err(_) => status.canonical_reason().unwrap_or("no reason given").to_owned(),
    }
}
