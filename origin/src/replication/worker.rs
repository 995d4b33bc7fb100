//! Does the jobs of one rule.

use std::collections::HashSet;
use std::sync::Arc;

use shoal_core::{Digest, Reference, RepositoryName, Tag, causes};
use shoal_driver::TransferError;
use shoal_images::{ImageError, Options, Plan, Progress, Put, RegistrySink, Source as _, copy};
use shoal_upstream::{
    Credentials, Descriptor, DockerConfig, Manifest, Registry, RegistryHost, UpstreamError,
};
use tokio_util::sync::CancellationToken;

use super::config::ReplicationError;
use super::metrics::Outcome;
use super::sink::{TagPut, TurnSink};
use super::{Job, Rule, What, mark};

/// Takes one job after the other.
pub(super) struct Worker(pub(super) Arc<Rule>);

/// Why a job was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum JobError {
    /// It cannot be read here.
    #[error("it cannot be read here: {0}")]
    Here(#[from] TransferError),
    /// It was not copied.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The target did not do.
    #[error(transparent)]
    There(#[from] UpstreamError),
    /// Nobody can be asked.
    #[error(transparent)]
    Setup(#[from] ReplicationError),
}

/// What a job is about, on both sides.
struct Place {
    rule: Arc<Rule>,
    registry: Registry,
    here: RepositoryName,
    there: RepositoryName,
}

impl Worker {
    /// Until it is to stop. A copy that is cut goes on where it was, after the restart.
    pub(super) async fn run(self, stop: CancellationToken) {
        loop {
            let taken = tokio::select! {
                () = stop.cancelled() => return,
                taken = self.0.queue.take() => taken,
            };
            let done = tokio::select! {
                () = stop.cancelled() => return,
                done = self.0.clone().carry_out(taken.job.clone(), taken.tries) => done,
            };
            match done {
                Ok(outcome) => {
                    self.0.metrics.done(&self.0.config.name, outcome);
                    taken.done().await;
                }
                Err(error) => taken.failed(&causes(&error)).await,
            }
        }
    }
}

impl Rule {
    async fn carry_out(self: Arc<Self>, job: Job, tries: u32) -> Result<Outcome, JobError> {
        // The rule is another since then.
        let Some(there) = self.config.rename(&job.repository) else { return Ok(Outcome::Same) };
        let registry = self.registry(tries, &there, job.hops).await?;
        let place = Place { rule: self, registry, here: job.repository, there };
        match job.what {
            What::Tag(tag) => place.tag(tag).await,
            What::Manifest(digest) => place.manifest(digest).await,
        }
    }

    /// A client of the target, which calls itself what passes on something that came over so many clusters. Made anew for each job:
    /// credentials and authorities may have been replaced. `tries` chooses the host.
    pub(super) async fn registry(
        &self,
        tries: u32,
        there: &RepositoryName,
        hops: u32,
    ) -> Result<Registry, ReplicationError> {
        let hosts = self.config.to.all();
        let host = &hosts[tries as usize % hosts.len()];
        let failed = |source| ReplicationError::Credentials { name: self.config.name.clone(), source };
        let credentials = match self.read_credentials()? {
            Some(file) => file.credentials(host, there).await.map_err(failed)?.unwrap_or_default(),
            None => Credentials::Anonymous,
        };
        self.client(host, credentials, hops)
    }

    /// Whether the files are what they should be.
    pub(super) fn check(&self) -> Result<(), ReplicationError> {
        self.read_credentials()?;
        self.config
            .to
            .all()
            .iter()
            .try_for_each(|host| self.client(host, Credentials::Anonymous, 0).map(drop))
    }

    fn client(
        &self,
        host: &RegistryHost,
        credentials: Credentials,
        hops: u32,
    ) -> Result<Registry, ReplicationError> {
        let registry = Registry::new(host.clone(), &self.config.endpoint, credentials);
        let registry = registry.and_then(|registry| registry.marked(&mark::user_agent(hops)));
        registry.map_err(|source| ReplicationError::Endpoint { name: self.config.name.clone(), source })
    }

    /// On a thread of the runtime: such a file has some KiB.
    fn read_credentials(&self) -> Result<Option<DockerConfig>, ReplicationError> {
        let file = self.config.credentials.as_deref().map(DockerConfig::load).transpose();
        file.map_err(|source| ReplicationError::Credentials { name: self.config.name.clone(), source })
    }
}

impl Place {
    async fn tag(&self, tag: Tag) -> Result<Outcome, JobError> {
        let reference = Reference::Tag(tag.clone());
        let Some(root) = self.rule.images.resolve(&self.here, &tag).await? else {
            return self.delete(&reference).await;
        };
        let there = self.registry.find_manifest(&self.there, &reference).await?;
        let over = there.and_then(|found| found.claimed);
        if over == Some(root) && self.has_referrers(root).await? {
            return Ok(Outcome::Same);
        }
        let over = over.filter(|over| *over != root);
        let put = TagPut { repository: self.here.clone(), tag, over };
        self.copy(root, &reference, Some(put)).await
    }

    /// One that came without a tag goes where what it is about went; all others come with a tag.
    async fn manifest(&self, digest: Digest) -> Result<Outcome, JobError> {
        let reference = Reference::Digest(digest);
        if self.rule.images.find(&self.here, &reference).await?.is_none() {
            return self.delete(&reference).await;
        }
        let manifest = self.rule.images.image(&self.here, digest).root().await?;
        let Some(subject) = manifest.subject() else { return Ok(Outcome::Same) };
        let subject = Reference::Digest(subject.digest);
        if self.registry.find_manifest(&self.there, &subject).await?.is_none()
            || self.registry.find_manifest(&self.there, &reference).await?.is_some()
        {
            return Ok(Outcome::Same);
        }
        self.copy(digest, &reference, None).await
    }

    async fn delete(&self, reference: &Reference) -> Result<Outcome, JobError> {
        let is_gone = self.rule.config.delete && self.registry.delete(&self.there, reference).await?;
        Ok(if is_gone { Outcome::Deleted } else { Outcome::Same })
    }

    /// Whether what refers to the image here is there, too.
    async fn has_referrers(&self, root: Digest) -> Result<bool, JobError> {
        let plan = Plan::make(&self.rule.images.image(&self.here, root), None, true).await?;
        let referrers = plan.manifests.iter().skip_while(|manifest| manifest.digest() != root).skip(1);
        for referrer in referrers {
            let reference = Reference::Digest(referrer.digest());
            if self.registry.find_manifest(&self.there, &reference).await?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Copies the image with what refers to it. A signature that came meanwhile found no image there, and is seen by another look.
    async fn copy(
        &self,
        root: Digest,
        reference: &Reference,
        tag: Option<TagPut>,
    ) -> Result<Outcome, JobError> {
        let Self { rule, registry, here, there } = self;
        let source = rule.images.image(here, root);
        let options = Options { platform: None, referrers: true, parallel: rule.config.blobs_at_once.max(1) };
        let mut copied = self.all_of(root).await?;
        for _ in 0..MAX_LOOKS {
            let sessions = rule.sessions.clone();
            let sink = RegistrySink::new(registry.clone(), there.clone(), reference.clone(), sessions);
            let sink = TurnSink { sink, rule: rule.clone(), repository: there.clone(), tag: tag.clone() };
            let moved = copy(&source, &sink, &options, &Silent).await?;
            rule.metrics.moved(&rule.config.name, moved.moved_bytes);
            let now = self.all_of(root).await?;
            if now.is_subset(&copied) {
                break;
            }
            copied = now;
        }
        tracing::info!(rule = rule.config.name, repository = %here, %reference, digest = %root, "replicated");
        Ok(Outcome::Copied)
    }

    async fn all_of(&self, root: Digest) -> Result<HashSet<Digest>, JobError> {
        let plan = Plan::make(&self.rule.images.image(&self.here, root), None, true).await?;
        Ok(plan.manifests.iter().map(Manifest::digest).collect())
    }
}

/// Nobody looks on.
struct Silent;

impl Progress for Silent {
    fn planned(&self, _: &[Descriptor]) {}

    fn at(&self, _: &Digest, _: u64) {}

    fn done(&self, _: &Descriptor, _: Put) {}
}

/// How often an image is looked at for more that refers to it: each time something came within the seconds of a copy.
const MAX_LOOKS: usize = 3;
