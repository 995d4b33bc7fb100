//! What a tag of an upstream names: its word, believed for a while; what is held where it gives none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_control::cluster::message::{LinkName, LinkTo, TagName, UpstreamTag};
use shoal_core::{Digest, RepositoryName};
use shoal_driver::{Freshness, ResolvedTag, TagExpectation, TransferError};
use tokio::time::timeout;

use super::links::Found;
use super::memory::Word;
use super::remote::Upstream;
use super::{PullThrough, busy, key_of};
use crate::cluster::Routed;
use crate::source::SourceError;

/// What the origin that asks upstream tells of a tag.
pub(super) type Told = Result<UpstreamTag, Untold>;

/// Why a tag names nothing that could be told. Cheap to clone, for all who wait.
#[derive(Clone, Debug)]
pub(super) enum Untold {
    NotFound,
    Unavailable(Arc<str>),
}

impl PullThrough {
    /// What the tag names, as one origin of all found out.
    pub(super) async fn resolve(&self, name: &TagName) -> Result<ResolvedTag, TransferError> {
        self.remote(&name.repository)?;
        let remembered = self.memory().tag(Instant::now(), name);
        let told = match remembered {
            Some((Word::Names(digest), _)) => return Ok(ResolvedTag::current(digest)),
            Some((Word::Absent, _)) => return Err(TransferError::NotFound),
            // It costs the owner no more to say it again, with what is held.
            Some((Word::Silent(_), _)) | None => {
                let (through, key) = (self.clone(), name.clone());
                let work = || async move { through.ask_owner(&key).await };
                self.0.tags.join(name.clone(), work).await.ok_or_else(busy)?
            }
        };
        let tag = told?;
        let freshness = if tag.unconfirmed { Freshness::Unconfirmed } else { Freshness::Current };
        Ok(ResolvedTag { digest: tag.digest, freshness })
    }

    async fn ask_owner(&self, name: &TagName) -> Told {
        let Some(cluster) = &self.0.cluster else { return self.tell(name).await };
        let asked = |client: shoal_control::ClusterClient, place| {
            let name = name.clone();
            async move { client.upstream_tag(place, &name).await }
        };
        match cluster.at_owner(&key_of(name), asked).await {
            Routed::Here => self.tell(name).await,
            Routed::There(Ok(tag)) => {
                if !tag.unconfirmed {
                    let lifetime = Duration::from_millis(tag.fresh_for_ms);
                    self.memory().learn_tag(Instant::now(), name.clone(), Word::Names(tag.digest), lifetime);
                }
                Ok(tag)
            }
            Routed::There(Err(error)) => Err(error.into()),
        }
    }

    /// What this origin tells of the tag, as the one that asks upstream. Who has something does not wait long for better.
    pub(super) async fn tell(&self, name: &TagName) -> Told {
        let remembered = self.memory().tag(Instant::now(), name);
        let word = match remembered {
            Some((word, _)) => word,
            None => {
                let (through, key) = (self.clone(), name.clone());
                let work = || async move { through.find_out(&key).await };
                let asking = self.0.tags_here.join(name.clone(), work);
                tokio::pin!(asking);
                match timeout(PATIENCE, &mut asking).await {
                    Ok(word) => word.ok_or_else(busy)?,
                    Err(_) => match self.held(name).await {
                        Some(_) => Word::Silent("the upstream is slow".into()),
                        None => asking.await.ok_or_else(busy)?,
                    },
                }
            }
        };
        match word {
            Word::Names(digest) => {
                let left = self.memory().tag(Instant::now(), name).map_or(Duration::ZERO, |(_, left)| left);
                let fresh_for_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
                Ok(UpstreamTag { digest, unconfirmed: false, fresh_for_ms })
            }
            Word::Absent => Err(Untold::NotFound),
            Word::Silent(reason) => match self.held(name).await {
                Some(digest) => {
                    self.count_stale(&name.repository);
                    Ok(UpstreamTag { digest, unconfirmed: true, fresh_for_ms: 0 })
                }
                None => Err(Untold::Unavailable(reason)),
            },
        }
    }

    /// Asks upstream, and has the origins hold what it says.
    async fn find_out(&self, name: &TagName) -> Word {
        let (word, lifetime) = tokio::select! {
            biased;
            () = self.0.stop.cancelled() => return Word::Silent("the origin stops".into()),
            found = self.find_tag(name) => found,
        };
        self.memory().learn_tag(Instant::now(), name.clone(), word.clone(), lifetime);
        word
    }

    async fn find_tag(&self, name: &TagName) -> (Word, Duration) {
        let Ok((upstream, remote)) = self.remote(&name.repository) else {
            return (Word::Absent, SILENCE);
        };
        match upstream.find_tag(&remote, &name.tag).await {
            Ok(digest) => self.take_over(&upstream, name, digest).await,
            Err(SourceError::NotFound) => {
                self.drop_tag(name).await;
                (Word::Absent, upstream.absent_ttl)
            }
            Err(error) => {
                let lifetime = match &error {
                    SourceError::Unavailable { retry_after: Some(after), .. } => SILENCE.max(*after),
                    SourceError::Unavailable { .. } | SourceError::NotFound => SILENCE,
                    SourceError::Refused(_) | SourceError::Failed(_) => upstream.absent_ttl,
                };
                let (repository, tag) = (&name.repository, &name.tag);
                tracing::warn!(%repository, %tag, %error, "an upstream does not say what a tag names: what is held is given");
                (Word::Silent(error.to_string().into()), lifetime)
            }
        }
    }

    /// The upstream's tag names `digest`: it is named here once its manifest is here.
    async fn take_over(&self, upstream: &Upstream, name: &TagName, digest: Digest) -> (Word, Duration) {
        let link = LinkName { repository: name.repository.clone(), to: LinkTo::Revision, digest };
        match self.ensure_link(&link).await {
            Found::Yes => {}
            Found::No => return (Word::Absent, upstream.absent_ttl),
            Found::Unknown(reason) => return (Word::Silent(reason), SILENCE),
        }
        if self.held(name).await != Some(digest) {
            let whatever = TagExpectation::anything();
            let put = self.0.below.put_tag(&name.repository, &name.tag, &digest, &whatever);
            // It is for when the upstream is away; what it says now needs no vote.
            if let Err(error) = put.await {
                tracing::warn!(repository = %name.repository, tag = %name.tag, %error, "what an upstream's tag names is not kept");
            }
        }
        (Word::Names(digest), upstream.tag_ttl)
    }

    /// What is held under the tag.
    async fn held(&self, name: &TagName) -> Option<Digest> {
        let held = self.0.below.resolve_tag(&name.repository, &name.tag).await;
        held.ok().map(|held| held.digest)
    }

    /// The upstream has it no more. Where it cannot be deleted, it is when the upstream is asked again.
    async fn drop_tag(&self, name: &TagName) {
        if self.held(name).await.is_none() {
            return;
        }
        let deleted = self.0.below.delete_tag(&name.repository, &name.tag, &TagExpectation::anything()).await;
        if let Err(error) = deleted {
            tracing::info!(repository = %name.repository, tag = %name.tag, %error, "a tag that its upstream has no more is still held");
        }
    }

    fn count_stale(&self, repository: &RepositoryName) {
        if let Ok((upstream, _)) = self.remote(repository) {
            upstream.metrics.stale_tags.with_label_values(&[upstream.name.as_str()]).inc();
        }
    }
}

impl From<TransferError> for Untold {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::NotFound => Self::NotFound,
            TransferError::Unavailable(reason) => Self::Unavailable(reason.into()),
            other => Self::Unavailable(other.to_string().into()),
        }
    }
}

impl From<Untold> for TransferError {
    fn from(untold: Untold) -> Self {
        match untold {
            Untold::NotFound => Self::NotFound,
            Untold::Unavailable(reason) => Self::Unavailable(reason.to_string()),
        }
    }
}

/// How long an upstream that does not answer is left alone with a tag.
const SILENCE: Duration = Duration::from_secs(5);
/// How long whoever asks for a tag that is held waits for the upstream: an agent is given four seconds.
const PATIENCE: Duration = Duration::from_secs(2);
