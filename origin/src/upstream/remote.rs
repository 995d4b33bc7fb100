//! One upstream registry, as this origin asks it: within what may be asked, as whom, and not while it said "too many".

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use globset::GlobSet;
use http::StatusCode;
use lru::LruCache;
use shoal_core::{Digest, Reference, RepositoryName, Tag};
use shoal_upstream::{
    BlobFound, Credentials, DockerConfig, EndpointConfig, Manifest, Registry, RegistryHost, UpstreamError,
};
use tokio::time::Instant;

use super::config::{Login, UpstreamConfig, UpstreamConfigError};
use super::gate::Gate;
use super::metrics::UpstreamMetrics;
use crate::source::SourceError;

/// See the module.
pub(crate) struct Upstream {
    pub(super) name: RegistryHost,
    pub(super) prefix: RepositoryName,
    pub(super) tag_ttl: Duration,
    pub(super) absent_ttl: Duration,
    pub(super) ttl: Duration,
    pub(super) gate: Gate,
    pub(super) metrics: UpstreamMetrics,
    allowed: GlobSet,
    endpoint: EndpointConfig,
    login: Login,
    clients: Mutex<Clients>,
    /// What is being fetched as a manifest: a digest does not say what it is of.
    manifests: Mutex<LruCache<(RepositoryName, Digest), ()>>,
    closed: OnceLock<Closed>,
}

/// Told of every pause that the upstream asked for.
pub(super) type Closed = Box<dyn Fn(Duration) + Send + Sync>;

/// The clients by whom they are, and which of them is for a repository.
struct Clients {
    made: Vec<(Credentials, Registry)>,
    known: LruCache<RepositoryName, (Registry, Instant)>,
}

/// What a question is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Tag,
    Manifest,
    Blob,
    BlobHead,
}

impl Upstream {
    /// How long what a docker configuration says is believed: tokens of cloud registries last for hours.
    const LOGIN_LIFETIME: Duration = Duration::from_secs(300);
    /// How many clients there are at most: a file with more logins for one registry has the oldest made anew.
    const MAX_CLIENTS: usize = 16;

    pub(super) fn new(
        config: &UpstreamConfig,
        metrics: UpstreamMetrics,
    ) -> Result<Self, UpstreamConfigError> {
        let upstream = Self {
            name: config.name.clone(),
            prefix: config.prefix()?,
            tag_ttl: config.tag_ttl,
            absent_ttl: config.absent_ttl,
            ttl: config.ttl,
            gate: Gate::new(),
            metrics,
            allowed: config.allowed()?,
            endpoint: config.endpoint()?,
            login: config.login()?,
            clients: Mutex::new(Clients { made: Vec::new(), known: LruCache::new(KNOWN) }),
            manifests: Mutex::new(LruCache::new(KNOWN)),
            closed: OnceLock::new(),
        };
        // Files that cannot be used are to be heard of now.
        let client = upstream.client_for(match &upstream.login {
            Login::Fixed(credentials) => credentials.clone(),
            Login::DockerConfig(_) => Credentials::Anonymous,
        });
        client.map_err(|source| UpstreamConfigError::Client { name: config.name.clone(), source })?;
        Ok(upstream)
    }

    /// Has this done with every pause that is news. To be said once.
    pub(super) fn on_closed(&self, closed: Closed) {
        // The first to say it counts.
        let _ = self.closed.set(closed);
    }

    /// What the upstream calls a repository of ours, if it may be pulled. It must be below the prefix.
    pub(super) fn remote(&self, repository: &RepositoryName) -> Option<RepositoryName> {
        let name = repository.as_str().strip_prefix(self.prefix.as_str())?.strip_prefix('/')?;
        self.allowed.is_match(name).then(|| RepositoryName::parse(name).ok()).flatten()
    }

    /// That digest is of a manifest there.
    pub(super) fn expect_manifest(&self, repository: &RepositoryName, digest: &Digest) {
        self.manifests().put((repository.clone(), *digest), ());
    }

    pub(super) fn expects_manifest(&self, repository: &RepositoryName, digest: &Digest) -> bool {
        self.manifests().contains(&(repository.clone(), *digest))
    }

    /// What the tag names, in the upstream's word. By HEAD, which registries that count pulls do not count.
    pub(super) async fn find_tag(&self, remote: &RepositoryName, tag: &Tag) -> Result<Digest, SourceError> {
        let reference = Reference::Tag(tag.clone());
        let found = self.ask(Kind::Tag, remote, async |registry: &Registry| {
            registry.find_manifest(remote, &reference).await
        });
        let found = found.await?.ok_or(SourceError::NotFound)?;
        match found.claimed {
            Some(digest) => Ok(digest),
            // A registry that does not say it is asked for the manifest itself.
            None => {
                let manifest = self.ask(Kind::Manifest, remote, async |registry: &Registry| {
                    registry.manifest(remote, &reference).await
                });
                Ok(manifest.await?.digest())
            }
        }
    }

    pub(super) async fn has_manifest(
        &self,
        remote: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), SourceError> {
        let reference = Reference::Digest(*digest);
        let found = self.ask(Kind::Tag, remote, async |registry: &Registry| {
            registry.find_manifest(remote, &reference).await
        });
        found.await?.map(drop).ok_or(SourceError::NotFound)
    }

    pub(super) async fn manifest(
        &self,
        remote: &RepositoryName,
        digest: &Digest,
    ) -> Result<Manifest, SourceError> {
        let reference = Reference::Digest(*digest);
        let manifest = self.ask(Kind::Manifest, remote, async |registry: &Registry| {
            registry.manifest(remote, &reference).await
        });
        manifest.await
    }

    pub(super) async fn find_blob(
        &self,
        remote: &RepositoryName,
        digest: &Digest,
    ) -> Result<BlobFound, SourceError> {
        let found = self.ask(Kind::BlobHead, remote, async |registry: &Registry| {
            registry.find_blob(remote, digest).await
        });
        found.await?.ok_or(SourceError::NotFound)
    }

    /// Puts a question, unless nobody may ask at the moment.
    pub(super) async fn ask<T>(
        &self,
        kind: Kind,
        remote: &RepositoryName,
        question: impl AsyncFnOnce(&Registry) -> Result<T, UpstreamError>,
    ) -> Result<T, SourceError> {
        if let Some(left) = self.gate.closed_for(Instant::now()) {
            self.count(kind, "paused");
            return Err(self.paused(left));
        }
        let registry = self.client(remote).await?;
        let answer = question(&registry).await;
        if let Some(left) = registry.pulls_left() {
            let left = i64::try_from(left).unwrap_or(i64::MAX);
            self.metrics.pulls_left.with_label_values(&[self.name.as_str()]).set(left);
        }
        match answer {
            Ok(answer) => {
                self.count(kind, "ok");
                Ok(answer)
            }
            Err(error) => Err(self.failed(kind, &error)),
        }
    }

    /// What an error means for whoever asked. One that says "too many" closes the gate.
    pub(super) fn failed(&self, kind: Kind, error: &UpstreamError) -> SourceError {
        let reason = error.to_string();
        let (result, error) = match error {
            UpstreamError::NotFound { .. } => ("not_found", SourceError::NotFound),
            UpstreamError::Denied { .. } | UpstreamError::Refused { .. } => {
                ("refused", SourceError::Refused(reason))
            }
            // Asking again would bring the same, and may be counted.
            UpstreamError::WrongContent { .. }
            | UpstreamError::Malformed { .. }
            | UpstreamError::Unsafe { .. } => ("wrong", SourceError::Refused(reason)),
            UpstreamError::Busy { status, retry_after, .. } => {
                let limited = *status == StatusCode::TOO_MANY_REQUESTS;
                if limited || retry_after.is_some() {
                    self.close(retry_after.unwrap_or(Gate::UNSAID));
                }
                let error = SourceError::Unavailable { reason, retry_after: *retry_after };
                (if limited { "limited" } else { "unavailable" }, error)
            }
            UpstreamError::Unreachable { .. } | UpstreamError::Content { .. } => {
                ("unavailable", SourceError::Unavailable { reason, retry_after: None })
            }
            UpstreamError::Untrusted { .. } | UpstreamError::Setup(_) => {
                ("unavailable", SourceError::Failed(reason))
            }
        };
        self.count(kind, result);
        error
    }

    fn close(&self, asked: Duration) {
        if self.gate.close(Instant::now(), asked) {
            tracing::warn!(upstream = %self.name, ?asked, "an upstream says that it is asked too much: nobody asks it before that");
            if let Some(closed) = self.closed.get() {
                closed(asked);
            }
        }
    }

    fn paused(&self, left: Duration) -> SourceError {
        let reason = format!(
            "{} said that it is asked too much: it is asked again in {} s",
            self.name,
            left.as_secs() + 1
        );
        SourceError::Unavailable { reason, retry_after: Some(left) }
    }

    fn count(&self, kind: Kind, result: &str) {
        self.metrics.requests.with_label_values(&[self.name.as_str(), kind.as_str(), result]).inc();
    }

    async fn client(&self, remote: &RepositoryName) -> Result<Registry, SourceError> {
        let failed = |error: &dyn std::error::Error| SourceError::Failed(shoal_core::causes(error));
        let path = match &self.login {
            Login::Fixed(credentials) => {
                return self.client_for(credentials.clone()).map_err(|error| failed(&error));
            }
            Login::DockerConfig(path) => path,
        };
        if let Some((registry, read)) = self.clients().known.get(remote)
            && read.elapsed() < Self::LOGIN_LIFETIME
        {
            return Ok(registry.clone());
        }
        let credentials = self.read_login(path, remote).await.map_err(|error| failed(&error))?;
        let registry = self.client_for(credentials).map_err(|error| failed(&error))?;
        self.clients().known.put(remote.clone(), (registry.clone(), Instant::now()));
        Ok(registry)
    }

    async fn read_login(
        &self,
        path: &Path,
        remote: &RepositoryName,
    ) -> Result<Credentials, shoal_upstream::CredentialsError> {
        let path = path.to_owned();
        let load = tokio::task::spawn_blocking(move || DockerConfig::load(&path));
        let Ok(config) = load.await else { return Ok(Credentials::Anonymous) };
        Ok(config?.credentials(&self.name, remote).await?.unwrap_or_default())
    }

    /// One client for each login, so that connections and tokens are shared.
    fn client_for(&self, credentials: Credentials) -> Result<Registry, UpstreamError> {
        let mut clients = self.clients();
        if let Some((_, registry)) = clients.made.iter().find(|(made, _)| *made == credentials) {
            return Ok(registry.clone());
        }
        let registry = Registry::new(self.name.clone(), &self.endpoint, credentials.clone())?;
        if clients.made.len() >= Self::MAX_CLIENTS {
            clients.made.remove(0);
        }
        clients.made.push((credentials, registry.clone()));
        Ok(registry)
    }

    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn manifests(&self) -> MutexGuard<'_, LruCache<(RepositoryName, Digest), ()>> {
        self.manifests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Tag => "tag",
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::BlobHead => "blob_head",
        }
    }
}

/// One that is forgotten has its login read again, or is fetched again.
const KNOWN: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
