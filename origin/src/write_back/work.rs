//! Does the jobs: brings what is at a backend to what is here.

use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use serde::Deserialize;
use shoal_control::cluster::message::{LinkName, LinkTo, TagName};
use shoal_core::Digest;
use shoal_driver::{ByteRange, Freshness, Link, LinkKind, TransferError};

use super::job::Job;
use super::tag_object::{self, Ours};
use super::{Peers, WriteBack};
use crate::backend::{BackendError, Expected, Key, Objects};
use crate::queue::Taken;
use crate::records::{link_of, name_of};

/// What came of a job.
enum Done {
    Written,
    /// What has to be there before it is not there yet.
    Waits,
}

impl WriteBack {
    pub(super) async fn work(self) {
        loop {
            let taken = tokio::select! {
                biased;
                () = self.0.stop.cancelled() => return,
                taken = self.0.queue.take() => taken,
            };
            tokio::select! {
                biased;
                // It is done again after the restart.
                () = self.0.stop.cancelled() => return,
                () = self.perform(taken) => {}
            }
        }
    }

    async fn perform(&self, taken: Taken<Job>) {
        match self.write(&taken.job).await {
            Ok(Done::Written) => taken.done().await,
            Ok(Done::Waits) => taken.put_off(PAUSE),
            Err(reason) => taken.failed(&reason).await,
        }
    }

    async fn write(&self, job: &Job) -> Result<Done, String> {
        let Some(backend) = self.0.backends.of(job.repository()) else {
            // The patterns are others now.
            return Ok(Done::Written);
        };
        let peers = self.peers().map_err(|error| error.to_string())?;
        let written = match job {
            Job::Link(name) => self.write_link(backend, peers, name).await,
            Job::Tag(name) => self.write_tag(backend, peers, name).await,
        };
        written.map_err(|reason| format!("backend {}: {reason}", backend.name()))
    }

    async fn write_link(&self, backend: &Objects, peers: &Peers, name: &LinkName) -> Result<Done, String> {
        let key = Key::Link(name.clone());
        let target = match self.0.records.link(&link_of(name)).await {
            Ok(target) => target,
            Err(TransferError::NotFound) => {
                backend.delete(&key).await.map_err(|error| error.to_string())?;
                self.seen().pop(&(backend.name().to_owned(), key.path()));
                return Ok(Done::Written);
            }
            Err(error) => return Err(error.to_string()),
        };
        self.write_blob(backend, peers, name, &target).await?;
        if name.to == LinkTo::Revision && !self.parts_are_there(backend, peers, name, &target).await? {
            return Ok(Done::Waits);
        }
        let content = Bytes::from(target.to_string());
        let there = backend.small(&key).await.map_err(|error| error.to_string())?;
        if there.is_none_or(|there| there.content != content) {
            let put = backend.put_small(&key, content, Expected::Anything).await;
            put.map_err(|error| error.to_string())?;
        }
        self.saw(backend.name(), &key);
        Ok(Done::Written)
    }

    /// Sees to it that the backend has a blob whole.
    async fn write_blob(
        &self,
        backend: &Objects,
        peers: &Peers,
        name: &LinkName,
        digest: &Digest,
    ) -> Result<(), String> {
        let there = backend.size(&Key::Blob(*digest)).await.map_err(|error| error.to_string())?;
        let length = peers.transferer.stat(Some(&name.repository), digest).await;
        let length = length.map_err(|error| format!("{digest}: {error}"))?;
        if there == Some(length) {
            return Ok(());
        }
        let bytes = self.read(peers, name, digest, length).await?;
        backend.put_blob(digest, length, bytes).await.map_err(|error| format!("{digest}: {error}"))?;
        tracing::info!(%digest, length, backend = backend.name(), "written back");
        Ok(())
    }

    async fn read(
        &self,
        peers: &Peers,
        name: &LinkName,
        digest: &Digest,
        length: u64,
    ) -> Result<shoal_driver::ByteStream, String> {
        if let Some(blob) = self.0.store.blob(digest) {
            let failed = |error: shoal_store::ReadError| shoal_driver::DriverError::Unavailable {
                driver: "origin",
                detail: error.to_string(),
            };
            return Ok(Box::pin(blob.reader(0..length).into_stream().map_err(failed)));
        }
        let range = ByteRange { start: 0, end: None };
        let opened = peers.transferer.open(Some(&name.repository), digest, range).await;
        opened.map_err(|error| format!("{digest}: {error}"))
    }

    /// Whether the links of all parts of a manifest are at the backend, as far as this repository has them.
    async fn parts_are_there(
        &self,
        backend: &Objects,
        peers: &Peers,
        name: &LinkName,
        manifest: &Digest,
    ) -> Result<bool, String> {
        let content = self.read(peers, name, manifest, u64::MAX).await?;
        for digest in parts(&small(content).await?) {
            for kind in [LinkKind::Layer, LinkKind::Revision] {
                let link = Link { repository: name.repository.clone(), kind, digest };
                let is_here = self.0.records.link(&link).await.is_ok();
                if is_here && digest != *manifest && !self.is_there(backend, name_of(&link)).await? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    async fn is_there(&self, backend: &Objects, name: LinkName) -> Result<bool, String> {
        let key = Key::Link(name);
        if self.has_seen(backend.name(), &key) {
            return Ok(true);
        }
        let there = backend.size(&key).await.map_err(|error| error.to_string())?.is_some();
        if there {
            self.saw(backend.name(), &key);
        }
        Ok(there)
    }

    async fn write_tag(&self, backend: &Objects, peers: &Peers, name: &TagName) -> Result<Done, String> {
        let ours = self.ours(peers, name).await?;
        let digest = match &ours {
            Ours::Voted(vote) => vote.as_ref().and_then(|vote| vote.value.digest),
            Ours::Alone(digest) => *digest,
        };
        if let Some(digest) = digest {
            let link = Link { repository: name.repository.clone(), kind: LinkKind::Revision, digest };
            let is_here = self.0.records.link(&link).await.is_ok();
            if is_here && !self.is_there(backend, name_of(&link)).await? {
                return Ok(Done::Waits);
            }
        }
        for _ in 0..ROUNDS {
            match put_tag(backend, name, &ours).await {
                Err(BackendError::Conflict) => {}
                put => return put.map(|()| Done::Written).map_err(|error| error.to_string()),
            }
        }
        Err(BackendError::Conflict.to_string())
    }

    /// What is decided about a tag. A vote that others have not joined is not written.
    async fn ours(&self, peers: &Peers, name: &TagName) -> Result<Ours, String> {
        let resolved = peers.transferer.resolve_tag(&name.repository, &name.tag).await;
        let digest = match resolved {
            Ok(resolved) if resolved.freshness == Freshness::Current => Some(resolved.digest),
            Ok(_) => return Err("too few origins answer to be sure of the tag".to_owned()),
            Err(TransferError::NotFound) => None,
            Err(error) => return Err(error.to_string()),
        };
        if peers.alone {
            return Ok(Ours::Alone(digest));
        }
        let vote = self.0.records.vote(name).await.map_err(|error| error.to_string())?;
        if vote.as_ref().and_then(|vote| vote.value.digest) != digest {
            return Err("this origin has missed the last vote on the tag".to_owned());
        }
        Ok(Ours::Voted(vote))
    }
}

/// Puts a tag if what is there is older: in one step with looking where the backend can do that. Where it cannot, of two origins
/// that write at the same moment the older may win, until the next of them looks, a `takeover` later.
async fn put_tag(backend: &Objects, name: &TagName, ours: &Ours) -> Result<(), BackendError> {
    let key = Key::Tag(name.clone());
    let small = backend.small(&key).await?;
    let there = match &small {
        // What cannot be read is in nobody's way.
        Some(small) => tag_object::parse(&small.content)
            .inspect_err(|reason| {
                tracing::error!(path = key.path(), reason, "not the object of a tag: replaced");
            })
            .ok(),
        None => None,
    };
    let Some(vote) = tag_object::next(there.as_ref(), ours) else { return Ok(()) };
    let content = Bytes::from(tag_object::content(&vote));
    let expected = small.map_or(Expected::Nothing, |small| small.expected());
    match backend.put_small(&key, content.clone(), expected).await {
        Err(BackendError::Unsupported(_)) => backend.put_small(&key, content, Expected::Anything).await,
        put => put,
    }
}

/// All digests that a manifest or an index names as its parts; a subject is none.
fn parts(manifest: &[u8]) -> Vec<Digest> {
    #[derive(Deserialize)]
    struct Part {
        digest: String,
    }
    #[derive(Default, Deserialize)]
    struct Parts {
        config: Option<Part>,
        #[serde(default)]
        layers: Vec<Part>,
        #[serde(default)]
        blobs: Vec<Part>,
        #[serde(default)]
        manifests: Vec<Part>,
    }
    // What cannot be read has no parts: the registry has taken it all the same.
    let Parts { config, layers, blobs, manifests } = serde_json::from_slice(manifest).unwrap_or_default();
    let all = config.into_iter().chain(layers).chain(blobs).chain(manifests);
    all.filter_map(|part| Digest::parse(&part.digest).ok()).collect()
}

async fn small(mut content: shoal_driver::ByteStream) -> Result<Vec<u8>, String> {
    let mut read = Vec::new();
    while let Some(bytes) = content.try_next().await.map_err(|error| error.to_string())? {
        if read.len() + bytes.len() > MAX_MANIFEST {
            return Err(format!("a manifest of more than {MAX_MANIFEST} bytes"));
        }
        read.extend_from_slice(&bytes);
    }
    Ok(read)
}

/// After how long it is looked again whether what has to be there is there: about as long as a small blob takes.
const PAUSE: Duration = Duration::from_millis(500);
/// How often in a row another may be quicker in writing a tag.
const ROUNDS: usize = 8;
/// More than the registry takes by any configuration that makes sense.
const MAX_MANIFEST: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_manifest_are_what_it_is_made_of() {
        let digest = |name: &str| Digest::sha256(name.as_bytes()).to_string();
        let manifest = serde_json::json!({
            "config": { "digest": digest("config") },
            "layers": [{ "digest": digest("one") }, { "digest": "nonsense" }],
            "manifests": [{ "digest": digest("child") }],
            "subject": { "digest": digest("subject") },
        });
        let found: Vec<_> = parts(manifest.to_string().as_bytes()).iter().map(Digest::to_string).collect();
        assert_eq!(found, [digest("config"), digest("one"), digest("child")]);
        assert!(parts(b"no JSON").is_empty());
    }
}
