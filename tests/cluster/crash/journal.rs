//! What a client knows for sure of its repository, and what it cannot know because the answer never came.
//!
//! Before a request its outcome becomes possible, after the answer it is certain. So whatever instant the registry dies
//! at, the journal says exactly what it may show afterwards.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use shoal_core::Digest;

/// One repository, as its only client knows it.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub(crate) repository: String,
    pub(crate) blobs: BTreeMap<Digest, Presence>,
    pub(crate) manifests: BTreeMap<Digest, Manifest>,
    /// What each tag may name; one value where it is known.
    pub(crate) tags: BTreeMap<String, Vec<Option<Digest>>>,
    /// The upload that was under way.
    pub(crate) upload: Option<Upload>,
    /// Blobs and manifests of requests since the last audit.
    pub(crate) touched: BTreeSet<Digest>,
    /// Requests that start or end an upload and whose answer never came: each may leave a session behind.
    pub(crate) sessions_lost: usize,
    /// Requests that were acknowledged.
    pub(crate) acknowledged: usize,
    /// Whether the registry said that it does not delete.
    pub(crate) cannot_delete: bool,
}

/// Whether something is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    There,
    /// Asked for, or asked to go away, without an answer.
    Unknown,
    Gone,
}

/// A manifest, and what must be there with it.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub(crate) presence: Presence,
    pub(crate) content: Bytes,
    pub(crate) blobs: Vec<Digest>,
}

/// An upload session.
#[derive(Clone, Debug)]
pub(crate) struct Upload {
    /// Path and query.
    pub(crate) location: String,
    pub(crate) content: Bytes,
    /// Bytes that the registry said it has.
    pub(crate) acknowledged: u64,
    /// Bytes that it may have.
    pub(crate) sent: u64,
    /// Whether it was asked to make it a blob.
    pub(crate) ending: bool,
}

impl Journal {
    pub(crate) fn new(repository: String) -> Self {
        Self { repository, ..Self::default() }
    }

    /// A blob is about to be asked for, or to be asked away.
    pub(crate) fn begin_blob(&mut self, digest: Digest) {
        self.touched.insert(digest);
        self.blobs.entry(digest).and_modify(Presence::doubt_absence).or_insert(Presence::Unknown);
    }

    pub(crate) fn begin_manifest(&mut self, digest: Digest, content: &Bytes, blobs: &[Digest]) {
        self.touched.insert(digest);
        let new =
            || Manifest { presence: Presence::Unknown, content: content.clone(), blobs: blobs.to_vec() };
        let known = self.manifests.entry(digest).or_insert_with(new);
        known.presence.doubt_absence();
    }

    pub(crate) fn begin_tag(&mut self, tag: &str, value: Option<Digest>) {
        self.tags.entry(tag.to_owned()).or_insert_with(|| vec![None]).push(value);
    }

    pub(crate) fn end_tag(&mut self, tag: &str, value: Option<Digest>) {
        self.tags.insert(tag.to_owned(), vec![value]);
    }

    pub(crate) fn end_manifest(&mut self, digest: &Digest, presence: Presence) {
        self.manifests.get_mut(digest).unwrap().presence = presence;
    }

    /// A manifest is about to be deleted, and its tags with it.
    pub(crate) fn begin_delete(&mut self, digest: &Digest) {
        self.touched.insert(*digest);
        self.end_manifest(digest, Presence::Unknown);
        for values in self.tags.values_mut().filter(|values| values.contains(&Some(*digest))) {
            values.push(None);
        }
    }

    pub(crate) fn end_delete(&mut self, digest: &Digest, presence: Presence) {
        self.end_manifest(digest, presence);
        for values in self.tags.values_mut().filter(|values| values.contains(&Some(*digest))) {
            *values = vec![(presence == Presence::There).then_some(*digest)];
        }
    }

    /// The manifests of which that is known.
    pub(crate) fn manifests_in(&self, presence: Presence) -> Vec<Digest> {
        let found = self.manifests.iter().filter(|(_, manifest)| manifest.presence == presence);
        found.map(|(digest, _)| *digest).collect()
    }
}

impl Presence {
    /// To put what is there leaves it there; to put what is not makes it unknown.
    fn doubt_absence(&mut self) {
        if *self == Self::Gone {
            *self = Self::Unknown;
        }
    }
}
