//! Whether a repository of an upstream has a blob or a manifest, where no origin knows: the upstream is asked, and what it says
//! is kept as a link.
//!
//! A manifest is fetched for that, and with it come the links to the blobs that it names, those first: a manifest that is linked has
//! all of its blobs' links. What an index lists is asked for when somebody wants it.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures_util::future::try_join_all;
use futures_util::{StreamExt as _, TryStreamExt as _};
use shoal_control::cluster::message::{LinkName, LinkTo};
use shoal_core::{Digest, RepositoryName};
use shoal_driver::{ByteRange, TransferError};
use shoal_upstream::{MAX_MANIFEST_BYTES, Manifest};

use super::PullThrough;
use super::remote::Upstream;
use crate::cluster::Routed;
use crate::records::link_of;
use crate::transferer::reader;

/// Whether a repository has something. Cheap to clone, for all who wait.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// It is linked now.
    Yes,
    No,
    /// The upstream does not say; why.
    Unknown(Arc<str>),
}

impl PullThrough {
    /// Has a link put, if the upstream has what it leads to.
    pub(super) async fn ensure_link(&self, link: &LinkName) -> Found {
        if self.0.records.link(&link_of(link)).await.is_ok() {
            return Found::Yes;
        }
        if self.memory().is_absent(Instant::now(), link) {
            return Found::No;
        }
        let (through, key) = (self.clone(), link.clone());
        let work = || async move { through.ask_for_link(&key).await };
        self.0.links.join(link.clone(), work).await.unwrap_or_else(too_much)
    }

    async fn ask_for_link(&self, link: &LinkName) -> Found {
        let Some(cluster) = &self.0.cluster else { return self.establish(link).await };
        let asked = |client: shoal_control::ClusterClient, place| {
            let link = link.clone();
            async move { client.upstream_link(place, &link).await }
        };
        match cluster.at_owner(&link.digest, asked).await {
            Routed::Here => self.establish(link).await,
            Routed::There(Ok(_)) => Found::Yes,
            Routed::There(Err(TransferError::NotFound)) => Found::No,
            Routed::There(Err(error)) => Found::Unknown(error.to_string().into()),
        }
    }

    /// The same as the one origin that asks upstream.
    pub(super) async fn establish(&self, link: &LinkName) -> Found {
        if self.0.records.link(&link_of(link)).await.is_ok() {
            return Found::Yes;
        }
        if self.memory().is_absent(Instant::now(), link) {
            return Found::No;
        }
        let (through, key) = (self.clone(), link.clone());
        let work = || async move { through.ask_upstream(&key).await };
        self.0.links_here.join(link.clone(), work).await.unwrap_or_else(too_much)
    }

    async fn ask_upstream(&self, link: &LinkName) -> Found {
        let asked = tokio::select! {
            biased;
            () = self.0.stop.cancelled() => return Found::Unknown("the origin stops".into()),
            asked = self.look(link) => asked,
        };
        match asked {
            Ok(()) => Found::Yes,
            Err(TransferError::NotFound) => {
                let lifetime = self.remote(&link.repository).map(|(upstream, _)| upstream.absent_ttl);
                self.memory().learn_absent(Instant::now(), link.clone(), lifetime.unwrap_or_default());
                Found::No
            }
            Err(error) => {
                let (repository, digest) = (&link.repository, &link.digest);
                tracing::warn!(%repository, %digest, %error, "an upstream does not say whether it has something");
                Found::Unknown(error.to_string().into())
            }
        }
    }

    async fn look(&self, link: &LinkName) -> Result<(), TransferError> {
        let (upstream, remote) = self.remote(&link.repository)?;
        match link.to {
            LinkTo::Layer => {
                upstream.find_blob(&remote, &link.digest).await?;
                self.put_link(link).await
            }
            LinkTo::Revision => self.take_manifest(&upstream, &remote, link).await,
        }
    }

    /// Fetches a manifest, unless it is held, and links what it names and then itself.
    async fn take_manifest(
        &self,
        upstream: &Upstream,
        remote: &RepositoryName,
        link: &LinkName,
    ) -> Result<(), TransferError> {
        let bytes = if self.is_held(&link.digest).await {
            // Others may have it; whether this repository does is the upstream's to say.
            upstream.has_manifest(remote, &link.digest).await?;
            self.read_held(link).await?
        } else {
            self.fetch_manifest(upstream, link).await?
        };
        let manifest = Manifest::parse(bytes, &link.digest, None).map_err(|error| {
            tracing::warn!(repository = %link.repository, digest = %link.digest, %error, "what an upstream has is no manifest");
            TransferError::NotFound
        })?;
        let blobs: Vec<_> = manifest.blobs().iter().map(|blob| blob.digest).collect();
        for some in blobs.chunks(LINKS_AT_ONCE) {
            let links = some.iter().map(|&digest| LinkName { to: LinkTo::Layer, digest, ..link.clone() });
            try_join_all(links.map(async |link| self.put_link(&link).await)).await?;
        }
        self.put_link(link).await?;
        self.note_use(&link.repository, &link.digest);
        Ok(())
    }

    pub(super) async fn is_held(&self, digest: &Digest) -> bool {
        if self.0.store.blob(digest).is_some() {
            return true;
        }
        match &self.0.cluster {
            Some(cluster) => cluster.find_metainfo(digest).await.is_ok(),
            None => false,
        }
    }

    pub(super) async fn read_held(&self, link: &LinkName) -> Result<Bytes, TransferError> {
        let whole = ByteRange::default();
        if let Some(blob) = self.0.store.blob(&link.digest) {
            return collect(blob.reader(0..u64::MAX).into_stream()).await;
        }
        collect(self.0.below.open(Some(&link.repository), &link.digest, whole).await?).await
    }

    async fn fetch_manifest(&self, upstream: &Upstream, link: &LinkName) -> Result<Bytes, TransferError> {
        upstream.expect_manifest(&link.repository, &link.digest);
        let fetched = async {
            let entry = self.0.refill.open(Some(&link.repository), &link.digest).await?;
            collect(reader(&entry, ByteRange::default()).into_stream()).await
        };
        tokio::select! {
            biased;
            fetched = fetched => fetched,
            // Nobody waits for as long as an upstream may ask for.
            () = upstream.gate.closes() => {
                Err(TransferError::Unavailable(format!("{} says that it is asked too much", upstream.name)))
            }
        }
    }

    /// Puts a link at all origins that are well. Where they are too few it is at some, and is found there.
    async fn put_link(&self, name: &LinkName) -> Result<(), TransferError> {
        let link = link_of(name);
        match &self.0.cluster {
            Some(cluster) => cluster.put_link_to_source(&link, &name.digest).await,
            None => self.0.records.put_link_alone(&link, &name.digest).await,
        }
    }
}

/// All of it, if it is as long as a manifest may be.
async fn collect<E>(
    stream: impl futures_util::Stream<Item = Result<Bytes, E>> + Send,
) -> Result<Bytes, TransferError>
where
    E: std::fmt::Display,
{
    let mut stream = stream.boxed();
    let mut bytes = BytesMut::new();
    while let Some(part) = stream.try_next().await.map_err(|error| unavailable(&error))? {
        if bytes.len() + part.len() > MAX_MANIFEST_BYTES {
            return Err(TransferError::NotFound);
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes.freeze())
}

fn unavailable(error: &impl std::fmt::Display) -> TransferError {
    TransferError::Unavailable(error.to_string())
}

fn too_much() -> Found {
    Found::Unknown("too many questions to upstreams are under way: try again".into())
}

/// How many links are put at a time: those of most images at once, and a bound for what waits at the disks of all origins.
const LINKS_AT_ONCE: usize = 16;
