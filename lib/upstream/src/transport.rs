//! One request at a time: shows who asks, follows redirects, tries again, waits no longer than it may.
//!
//! Two clients. One speaks to the registry, and has its certificate; the other to whatever hosts it leads to, without any secret,
//! and resolves no name to an address that is nearer to this host than the registry's.

mod clients;
mod exchange;

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use reqwest::{Body, Response, Url};

use crate::challenge;
use crate::config::EndpointConfig;
use crate::credentials::{Credentials, Secret};
use crate::error::UpstreamError;
use crate::reference::RegistryHost;
use crate::retry::{self, Decision, Failure};
use crate::token::{Authorizer, Scope, Shown};
use clients::Clients;

/// A request.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) scope: Scope,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// How long the answer may take to begin, where that is not what the configuration says.
    pub(crate) patience: Option<Duration>,
}

/// The way to one registry.
pub(crate) struct Transport {
    clients: Clients,
    base: Url,
    authorizer: Authorizer,
    response_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    /// How many attempts are left out.
    spared: u32,
    /// What the registry said last of how many pulls are left; -1: nothing yet.
    pulls_left: AtomicI64,
}

impl Call {
    pub(crate) fn new(method: Method, url: Url, scope: Scope) -> Self {
        Self { method, url, scope, headers: HeaderMap::new(), body: Bytes::new(), patience: None }
    }

    pub(crate) fn header(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// For errors: without the query, which may hold a capability.
    pub(crate) fn what(&self) -> String {
        what(&self.method, &self.url)
    }
}

impl Transport {
    pub(crate) fn new(
        host: &RegistryHost,
        config: &EndpointConfig,
        credentials: Credentials,
    ) -> Result<Self, UpstreamError> {
        let address = config.address.as_ref().unwrap_or(host).api_host();
        let base = Url::parse(&format!("{}://{address}/", config.scheme_for(host)))
            .map_err(|error| UpstreamError::Setup(format!("registry {host}: {error}")))?;
        Ok(Self {
            clients: Clients::new(config)?,
            base,
            authorizer: Authorizer::new(host, credentials, config.token_hosts.clone()),
            response_timeout: config.response_timeout,
            idle_timeout: config.idle_timeout,
            spared: retry::MAX_ATTEMPTS.saturating_sub(config.attempts.max(1)),
            pulls_left: AtomicI64::new(-1),
        })
    }

    /// The registry's root.
    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    /// Sends a request until there is an answer that asking again would not change. Any status may be in it.
    pub(crate) async fn send(&self, call: &Call) -> Result<Response, UpstreamError> {
        for attempt in 0.. {
            let outcome = self.authorized(call).await;
            let failure = match &outcome {
                Ok(response) if retry::is_temporary(response.status()) => {
                    Failure::Status(response.status(), asked_to_wait(response))
                }
                Err(UpstreamError::Unreachable { .. }) => Failure::Connection,
                // A token server was.
                Err(UpstreamError::Busy { status, retry_after, .. }) => {
                    Failure::Status(*status, *retry_after)
                }
                _ => return outcome,
            };
            match self.decide(attempt, failure) {
                Decision::GiveUp => return outcome,
                Decision::After(wait) => {
                    tracing::debug!(request = call.what(), ?failure, ?wait, "a registry is asked again");
                    tokio::time::sleep(wait).await;
                }
            }
        }
        unreachable!("the number of attempts is bounded")
    }

    /// What to do after attempt `attempt` (from 0), by the configuration.
    pub(crate) fn decide(&self, attempt: u32, failure: Failure) -> Decision {
        if attempt.saturating_add(1).saturating_add(self.spared) >= retry::MAX_ATTEMPTS {
            return Decision::GiveUp;
        }
        retry::decide(attempt, failure, rand::random())
    }

    /// How many pulls the registry said last are left, if it ever did.
    pub(crate) fn pulls_left(&self) -> Option<u64> {
        u64::try_from(self.pulls_left.load(Ordering::Relaxed)).ok()
    }

    /// The same; any other status than these is an error.
    pub(crate) async fn expect(
        &self,
        call: &Call,
        statuses: &[StatusCode],
    ) -> Result<Response, UpstreamError> {
        let response = self.send(call).await?;
        self.judge(&call.what(), response, statuses).await
    }

    /// The answer, where its status is one of these.
    pub(crate) async fn judge(
        &self,
        what: &str,
        response: Response,
        statuses: &[StatusCode],
    ) -> Result<Response, UpstreamError> {
        let status = response.status();
        if statuses.contains(&status) {
            return Ok(response);
        }
        let retry_after = asked_to_wait(&response);
        let body = self.read_some(response).await;
        Err(UpstreamError::of(what, status, &body, retry_after))
    }

    /// The whole body, if it has at most `limit` bytes.
    pub(crate) async fn read(
        &self,
        what: &str,
        mut response: Response,
        limit: usize,
    ) -> Result<Bytes, UpstreamError> {
        let mut body = BytesMut::new();
        while let Some(chunk) = self.chunk(what, &mut response).await? {
            if body.len() + chunk.len() > limit {
                return Err(UpstreamError::wrong(what, format!("the answer has more than {limit} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    /// The next bytes of a body.
    pub(crate) async fn chunk(
        &self,
        what: &str,
        response: &mut Response,
    ) -> Result<Option<Bytes>, UpstreamError> {
        match tokio::time::timeout(self.idle_timeout, response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => Err(broken(what, error)),
            Err(_) => Err(slow(what, self.idle_timeout)),
        }
    }

    /// Sends a request with a body that streams, once. `moved` counts what went.
    pub(crate) async fn send_body(
        &self,
        call: &Call,
        length: u64,
        body: Body,
        moved: impl Fn() -> u64,
    ) -> Result<Response, UpstreamError> {
        let shown = self.shown(&call.scope).await?;
        let headers = call.headers.clone();
        let mut request =
            self.clients.registry.request(call.method.clone(), call.url.clone()).headers(headers);
        request = request.header(header::CONTENT_LENGTH, length).body(body);
        if let Some(secret) = shown {
            request = request.header(header::AUTHORIZATION, sensitive(&secret)?);
        }
        let what = call.what();
        let mut sending = std::pin::pin!(request.send());
        let mut seen = 0;
        loop {
            let patience = if moved() == length { ANSWER_TO_BODY } else { self.idle_timeout };
            match tokio::time::timeout(patience, &mut sending).await {
                Ok(Ok(response)) => return Ok(self.note_challenge(response, &call.scope)),
                Ok(Err(error)) => return Err(broken(&what, error)),
                Err(_) if moved() > seen => seen = moved(),
                Err(_) => return Err(slow(&what, patience)),
            }
        }
    }

    /// Takes notice of what the registry asks for.
    fn note_challenge(&self, response: Response, scope: &Scope) -> Response {
        if let Some(left) = response.headers().get(PULLS_LEFT).and_then(|value| value.to_str().ok())
            && let Some(left) = retry::pulls_left(left)
        {
            self.pulls_left.store(left.into(), Ordering::Relaxed);
        }
        if response.status() == StatusCode::UNAUTHORIZED {
            let values = response.headers().get_all(header::WWW_AUTHENTICATE).iter();
            if let Some(challenge) = challenge::best(values.filter_map(|value| value.to_str().ok())) {
                self.authorizer.challenged(challenge, scope);
            }
        }
        response
    }

    /// One attempt, a second one included where the registry asks who it is.
    async fn authorized(&self, call: &Call) -> Result<Response, UpstreamError> {
        let shown = self.shown(&call.scope).await?;
        let response = self.note_challenge(self.exchange(call, shown.as_ref()).await?, &call.scope);
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        match self.shown(&call.scope).await? {
            Some(better) if Some(&better) != shown.as_ref() => {
                Ok(self.note_challenge(self.exchange(call, Some(&better)).await?, &call.scope))
            }
            _ => Ok(response),
        }
    }

    /// What a request of that scope shows; a token is fetched where one is needed.
    async fn shown(&self, scope: &Scope) -> Result<Option<Secret>, UpstreamError> {
        match self.authorizer.shown(scope, Instant::now()) {
            Shown::Nothing => Ok(None),
            Shown::Header(header) => Ok(Some(header)),
            Shown::Token(request) => self.fetch_token(&request).await.map(Some),
        }
    }

    /// As much of a refusal as is read for its words.
    async fn read_some(&self, mut response: Response) -> Vec<u8> {
        let mut body = Vec::new();
        while let Ok(Some(chunk)) = self.chunk("", &mut response).await {
            body.extend_from_slice(&chunk[..chunk.len().min(MAX_REFUSAL - body.len())]);
            if body.len() == MAX_REFUSAL {
                break;
            }
        }
        body
    }
}

pub(crate) fn what(method: &Method, url: &Url) -> String {
    format!("{method} {}{}", url.origin().ascii_serialization(), url.path())
}

fn asked_to_wait(response: &Response) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    retry::retry_after(value, SystemTime::now())
}

fn sensitive(secret: &Secret) -> Result<HeaderValue, UpstreamError> {
    let mut value = HeaderValue::from_str(secret.expose()).map_err(|_| {
        UpstreamError::Setup("the credentials have characters that no header can carry".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn slow(what: &str, limit: Duration) -> UpstreamError {
    UpstreamError::Unreachable {
        what: what.to_owned(),
        reason: format!("nothing came or went for {} s", limit.as_secs_f64()),
    }
}

/// reqwest's own error names the URL with its query.
fn broken(what: &str, error: reqwest::Error) -> UpstreamError {
    let error = error.without_url();
    let (mut reason, mut untrusted) = (error.to_string(), false);
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        reason = format!("{reason}: {cause}");
        untrusted |= is_untrusted(cause);
        source = cause.source();
    }
    let what = what.to_owned();
    if untrusted {
        UpstreamError::Untrusted { what, reason }
    } else {
        UpstreamError::Unreachable { what, reason }
    }
}

/// Whether one side did not like the other's certificate, which it will not like a second later either. Errors of TLS come
/// wrapped in those of I/O, more than once.
fn is_untrusted(mut cause: &(dyn std::error::Error + 'static)) -> bool {
    while let Some(inner) = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        cause = inner;
    }
    let tls = cause.downcast_ref::<rustls::Error>();
    matches!(tls, Some(rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_)))
}

/// As Docker Hub has it: `76;w=21600`, so many pulls in so many seconds.
const PULLS_LEFT: &str = "ratelimit-remaining";
/// A registry says why it refuses in some hundred bytes; a page of HTML has more, and is cut.
const MAX_REFUSAL: usize = 16 << 10;
/// After the last byte of an upload registries hash all of it, and some copy it.
const ANSWER_TO_BODY: Duration = Duration::from_secs(600);
