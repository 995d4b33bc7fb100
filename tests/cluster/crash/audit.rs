//! What a registry shows after it was killed, held against what its clients know.
//!
//! An audit ends with nothing unknown: what it saw is what must be there from now on.

use std::net::SocketAddr;

use reqwest::header::{CONTENT_LENGTH, LOCATION, RANGE};
use reqwest::{Response, StatusCode};
use serde_json::Value;
use shoal_core::{Digest, Digester};

use super::journal::{Journal, Presence, Upload};
use super::writer::with_digest;

/// Which of the things that nobody has touched lately are looked at as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// None.
    Touched,
    /// All.
    Everything,
}

/// One repository under audit.
pub(crate) struct Audit<'a> {
    pub(crate) http: &'a reqwest::Client,
    pub(crate) address: SocketAddr,
    pub(crate) journal: &'a mut Journal,
}

impl Audit<'_> {
    pub(crate) async fn run(mut self, scope: Scope) {
        self.settle_upload().await;
        self.settle_blobs(scope).await;
        self.settle_manifests(scope).await;
        self.settle_tags().await;
        self.check_tag_list().await;
        self.journal.touched.clear();
    }

    /// An upload goes on where it stands, with no byte lost that was acknowledged; or it is over.
    async fn settle_upload(&mut self) {
        let Some(upload) = self.journal.upload.take() else { return };
        let status = self.get(&upload.location).await;
        if status.status() == StatusCode::NOT_FOUND {
            assert!(upload.ending, "{}: the session is gone", upload.location);
            return;
        }
        assert_eq!(status.status(), StatusCode::NO_CONTENT, "{}", upload.location);
        let digest = Digest::sha256(&upload.content);
        self.finish_upload(&upload, offset(&status), &digest).await;
        self.journal.blobs.insert(digest, Presence::There);
        // It did not stay behind, whatever was lost with the request that should have ended it.
        self.journal.sessions_lost -= usize::from(upload.ending);
    }

    async fn finish_upload(&self, upload: &Upload, offset: u64, digest: &Digest) {
        let possible = upload.acknowledged..=upload.sent;
        assert!(possible.contains(&offset), "{}: stands at {offset}, not in {possible:?}", upload.location);
        let rest = upload.content.slice(offset as usize..);
        let patch = self.http.patch(self.at(&upload.location)).body(rest).send().await.unwrap();
        assert_eq!(patch.status(), StatusCode::ACCEPTED, "{}", upload.location);
        let location = patch.headers()[LOCATION].to_str().unwrap();
        let url = with_digest(patch.url().join(location).unwrap().as_str(), digest);
        let put = self.http.put(url).header(CONTENT_LENGTH, 0).send().await.unwrap();
        assert_eq!(put.status(), StatusCode::CREATED, "{}", upload.location);
    }

    async fn settle_blobs(&mut self, scope: Scope) {
        for (digest, expected) in self.journal.blobs.clone() {
            if self.is_due(&digest, scope) {
                let found = self.blob(&digest).await;
                self.check(&digest, expected, found);
                self.journal.blobs.insert(digest, found);
            }
        }
    }

    async fn settle_manifests(&mut self, scope: Scope) {
        for (digest, manifest) in self.journal.manifests.clone() {
            if self.is_due(&digest, scope) {
                let found = self.manifest(&digest.to_string(), scope).await;
                assert!(found.is_none_or(|found| found == digest), "{digest} is answered as {found:?}");
                let found = if found.is_some() { Presence::There } else { Presence::Gone };
                self.check(&digest, manifest.presence, found);
                self.journal.end_manifest(&digest, found);
            }
        }
    }

    async fn settle_tags(&mut self) {
        for (tag, possible) in self.journal.tags.clone() {
            let found = self.manifest(&tag, Scope::Touched).await;
            assert!(possible.contains(&found), "{tag} names {found:?}, not one of {possible:?}");
            if let Some(digest) = found {
                let by_digest = self.manifest(&digest.to_string(), Scope::Touched).await;
                assert_eq!(by_digest, found, "{tag} names {digest}, which is not there by its digest");
            }
            self.journal.end_tag(&tag, found);
        }
    }

    /// Exactly the tags that name something are listed.
    async fn check_tag_list(&self) {
        let list = self.get(&format!("/v2/{}/tags/list", self.journal.repository)).await;
        let named = self.journal.tags.iter().filter(|(_, values)| values[0].is_some());
        let expected: Vec<_> = named.map(|(tag, _)| tag.as_str()).collect();
        if list.status() == StatusCode::NOT_FOUND {
            assert!(expected.is_empty(), "no repository, yet it has the tags {expected:?}");
            return;
        }
        let list: Value = serde_json::from_str(&list.text().await.unwrap()).unwrap();
        let listed: Vec<_> =
            list["tags"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        assert_eq!(listed, expected);
    }

    fn is_due(&self, digest: &Digest, scope: Scope) -> bool {
        scope == Scope::Everything || self.journal.touched.contains(digest)
    }

    fn check(&self, digest: &Digest, expected: Presence, found: Presence) {
        let repository = &self.journal.repository;
        let right = expected == Presence::Unknown || expected == found;
        assert!(right, "{repository}: {digest} should be {expected:?}, and is {found:?}");
    }

    /// The digest of the manifest under a reference, whose bytes and blobs are whole.
    async fn manifest(&self, reference: &str, blobs: Scope) -> Option<Digest> {
        let answer = self.get(&format!("/v2/{}/manifests/{reference}", self.journal.repository)).await;
        if answer.status() == StatusCode::NOT_FOUND {
            return None;
        }
        assert_eq!(answer.status(), StatusCode::OK, "manifest {reference}");
        let digest = Digest::sha256(&answer.bytes().await.unwrap());
        let manifest = self.journal.manifests.get(&digest);
        let manifest = manifest.unwrap_or_else(|| panic!("{reference} names {digest}, which nobody pushed"));
        for blob in &manifest.blobs {
            // Those that were not touched were looked at when they were, and are again at the end.
            if self.is_due(blob, blobs) || self.is_due(&digest, blobs) {
                assert_eq!(self.blob(blob).await, Presence::There, "{blob} of the manifest {digest}");
            }
        }
        Some(digest)
    }

    /// Whether a blob is there; if so, whole.
    async fn blob(&self, digest: &Digest) -> Presence {
        let mut answer = self.get(&format!("/v2/{}/blobs/{digest}", self.journal.repository)).await;
        if answer.status() == StatusCode::NOT_FOUND {
            return Presence::Gone;
        }
        assert_eq!(answer.status(), StatusCode::OK, "blob {digest}");
        let mut digester = Digester::new(digest.algorithm());
        while let Some(part) = answer.chunk().await.unwrap() {
            digester.update(&part);
        }
        assert_eq!(digester.finish(), *digest, "a blob is not what it says");
        Presence::There
    }

    async fn get(&self, path: &str) -> Response {
        self.http.get(self.at(path)).send().await.unwrap()
    }

    fn at(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// How many bytes a session has. `0-0` stands for none; these tests write no single byte.
fn offset(status: &Response) -> u64 {
    let range = status.headers()[RANGE].to_str().unwrap();
    let last: u64 = range.strip_prefix("0-").unwrap().parse().unwrap();
    if last == 0 { 0 } else { last + 1 }
}
