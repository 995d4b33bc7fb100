//! What nobody pulled for its upstream's `ttl` is unlinked, tags first; its bytes are then nobody's, and go with the garbage.
//!
//! One origin a repository decides, by what all know of when its manifests were pulled, and only while all answer: a delete needs
//! them anyhow. What an index that is pulled lists stays with it. Whoever pulls at that very moment has it fetched again.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use shoal_control::cluster::message::{LinkName, LinkTo, Use};
use shoal_core::{Digest, RepositoryName};
use shoal_driver::{Link, LinkKind, TagExpectation, TransferError};
use shoal_upstream::Manifest;

use super::PullThrough;
use super::remote::Upstream;
use super::uses::{UsesError, seconds};

/// Why a repository is left as it is this time.
#[derive(Debug, thiserror::Error)]
enum Left {
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error(transparent)]
    Uses(#[from] UsesError),
    #[error("not every origin says what was pulled")]
    NotAll,
}

/// What a manifest names, without its bytes.
struct Names {
    manifests: Vec<Digest>,
    blobs: Vec<Digest>,
}

impl Names {
    fn of(manifest: &Manifest) -> Self {
        Self {
            manifests: manifest.manifests().iter().map(|listed| listed.digest).collect(),
            blobs: manifest.blobs().iter().map(|blob| blob.digest).collect(),
        }
    }
}

/// Looks again and again, and writes what was pulled.
pub(super) async fn run(through: PullThrough) {
    let stop = through.0.stop.clone();
    let look = async {
        loop {
            tokio::time::sleep(through.interval()).await;
            through.look_at_all().await;
        }
    };
    tokio::join!(through.0.uses.keep(stop.clone()), stop.run_until_cancelled(look));
}

impl PullThrough {
    /// It was pulled, if it is an upstream's and may expire.
    pub(crate) fn note_use(&self, repository: &RepositoryName, digest: &Digest) {
        let place = self.0.upstreams.place(repository);
        if place.is_some_and(|place| !place.upstream.ttl.is_zero()) {
            self.0.uses.note(repository, digest);
        }
    }

    /// A twentieth of the shortest life, at most an hour.
    fn interval(&self) -> Duration {
        let lives = self.0.upstreams.0.iter().map(|upstream| upstream.ttl).filter(|ttl| !ttl.is_zero());
        lives.min().map_or(LONGEST_INTERVAL, |ttl| (ttl / 20).clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL))
    }

    async fn look_at_all(&self) {
        for upstream in self.0.upstreams.0.iter().filter(|upstream| !upstream.ttl.is_zero()) {
            let repositories = match self.0.records.repositories_below(&upstream.prefix).await {
                Ok(repositories) => repositories,
                Err(error) => {
                    tracing::error!(upstream = %upstream.name, %error, "cannot look what of an upstream is pulled no more");
                    continue;
                }
            };
            for repository in repositories {
                if let Err(error) = self.look_at(upstream, &repository).await {
                    tracing::info!(%repository, %error, "what nobody pulls of an upstream stays for now");
                }
            }
        }
        let lives = self.0.upstreams.0.iter().map(|upstream| upstream.ttl.as_secs());
        // Twice the longest life: what is older was unlinked long ago, or no origin could.
        let forgotten = seconds().saturating_sub(lives.max().unwrap_or_default().saturating_mul(2));
        if let Err(error) = self.0.uses.forget_before(forgotten).await {
            tracing::error!(%error, "cannot forget what was pulled long ago");
        }
    }

    async fn look_at(&self, upstream: &Upstream, repository: &RepositoryName) -> Result<(), Left> {
        let is_ours = |cluster: &std::sync::Arc<crate::cluster::Cluster>| {
            cluster.is_owner(&Digest::sha256(repository.as_str().as_bytes()))
        };
        if !self.0.cluster.as_ref().is_none_or(is_ours) {
            return Ok(());
        }
        let linked = self.0.records.revisions(repository).await?;
        let used = self.last_uses(repository, &linked).await?;
        let oldest = seconds().saturating_sub(upstream.ttl.as_secs().max(1));
        if linked.iter().all(|digest| used.get(digest).is_some_and(|at| *at >= oldest)) {
            return Ok(());
        }
        let manifests = self.read_all(repository, &linked).await?;
        let expired = expired(&linked, &used, &manifests, oldest);
        if expired.is_empty() {
            return Ok(());
        }
        self.unlink(repository, &expired, &manifests).await?;
        upstream.metrics.expired.with_label_values(&[upstream.name.as_str()]).inc_by(expired.len() as u64);
        tracing::info!(%repository, manifests = expired.len(), "unlinked what nobody has pulled for its time");
        Ok(())
    }

    /// When each was pulled anywhere. What nobody knows of is as if it were pulled now: its time begins.
    async fn last_uses(
        &self,
        repository: &RepositoryName,
        linked: &BTreeSet<Digest>,
    ) -> Result<HashMap<Digest, u64>, Left> {
        let mut all = self.0.uses.of(repository).await?;
        if let Some(cluster) = &self.0.cluster {
            all.extend(cluster.uses_elsewhere(repository).await.ok_or(Left::NotAll)?);
        }
        let mut last: HashMap<Digest, u64> = HashMap::new();
        for Use { digest, at } in all {
            let known = last.entry(digest).or_default();
            *known = at.max(*known);
        }
        for digest in linked {
            last.entry(*digest).or_insert_with(|| {
                self.0.uses.note(repository, digest);
                seconds()
            });
        }
        Ok(last)
    }

    /// What can be read of them. One that cannot names nothing.
    async fn read_all(
        &self,
        repository: &RepositoryName,
        linked: &BTreeSet<Digest>,
    ) -> Result<HashMap<Digest, Names>, Left> {
        let mut manifests = HashMap::new();
        for digest in linked {
            let link = LinkName { repository: repository.clone(), to: LinkTo::Revision, digest: *digest };
            if !self.is_held(digest).await {
                continue;
            }
            if let Ok(manifest) = Manifest::parse(self.read_held(&link).await?, digest, None) {
                manifests.insert(*digest, Names::of(&manifest));
            }
        }
        Ok(manifests)
    }

    /// Tags, manifests, and the blobs that only these manifests name.
    async fn unlink(
        &self,
        repository: &RepositoryName,
        expired: &BTreeSet<Digest>,
        manifests: &HashMap<Digest, Names>,
    ) -> Result<(), Left> {
        let tags = match self.0.below.list_tags(repository).await {
            Err(TransferError::NotFound) => Vec::new(),
            tags => tags?,
        };
        let expected = TagExpectation::one_of(expired.iter().copied());
        for tag in tags {
            match self.0.below.delete_tag(repository, &tag, &expected).await {
                Ok(()) | Err(TransferError::NotFound | TransferError::TagMoved { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for digest in expired {
            self.delete_link(repository, LinkKind::Revision, digest).await?;
        }
        let blobs = |is_expired: bool| {
            let those = manifests.iter().filter(move |(digest, _)| expired.contains(digest) == is_expired);
            those.flat_map(|(_, names)| names.blobs.iter().copied())
        };
        let kept: HashSet<Digest> = blobs(false).collect();
        let gone: BTreeSet<Digest> = blobs(true).filter(|digest| !kept.contains(digest)).collect();
        for digest in &gone {
            self.delete_link(repository, LinkKind::Layer, digest).await?;
        }
        Ok(())
    }

    async fn delete_link(
        &self,
        repository: &RepositoryName,
        kind: LinkKind,
        digest: &Digest,
    ) -> Result<(), TransferError> {
        let link = Link { repository: repository.clone(), kind, digest: *digest };
        match &self.0.cluster {
            Some(_) => self.0.below.delete_link(&link).await.map(drop),
            None => self.0.records.delete_link_alone(&link).await,
        }
    }
}

/// Those that were pulled before `oldest` for the last time, and that no younger one lists, at any depth.
fn expired(
    linked: &BTreeSet<Digest>,
    used: &HashMap<Digest, u64>,
    manifests: &HashMap<Digest, Names>,
    oldest: u64,
) -> BTreeSet<Digest> {
    let is_young = |digest: &&Digest| used.get(digest).is_some_and(|at| *at >= oldest);
    let mut kept: HashSet<Digest> = HashSet::new();
    let mut left: Vec<Digest> = linked.iter().filter(is_young).copied().collect();
    while let Some(digest) = left.pop() {
        if kept.insert(digest)
            && let Some(names) = manifests.get(&digest)
        {
            left.extend(&names.manifests);
        }
    }
    linked.iter().filter(|digest| !kept.contains(digest)).copied().collect()
}

const SHORTEST_INTERVAL: Duration = Duration::from_millis(500);
const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shoal_core::Algorithm;

    use super::*;

    fn manifest(name: &str, listed: &[Digest]) -> Manifest {
        let kind = "application/vnd.oci.image.index.v1+json";
        let listed: Vec<_> = listed
            .iter()
            .map(|digest| json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1 }))
            .collect();
        let bytes = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": listed, "annotations": { "n": name } });
        Manifest::parse_new(bytes.to_string().into(), Algorithm::Sha256, Some(kind)).unwrap()
    }

    #[test]
    fn what_a_pulled_index_lists_stays_with_it() {
        let (child, other) = (manifest("child", &[]), manifest("other", &[]));
        let index = manifest("index", &[child.digest()]);
        let outer = manifest("outer", &[index.digest()]);
        let all = [&child, &other, &index, &outer];
        let linked: BTreeSet<_> = all.iter().map(|manifest| manifest.digest()).collect();
        let manifests = all.iter().map(|manifest| (manifest.digest(), Names::of(manifest))).collect();
        let used = |outer_at| {
            let old = all.iter().map(|manifest| (manifest.digest(), 5));
            old.chain([(outer.digest(), outer_at)]).collect()
        };
        assert_eq!(expired(&linked, &used(10), &manifests, 10), [other.digest()].into());
        assert_eq!(expired(&linked, &used(9), &manifests, 10), linked);
        assert_eq!(expired(&linked, &used(9), &manifests, 5), BTreeSet::new());
    }
}
