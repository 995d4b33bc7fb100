//! Tells the registry's watcher what a request did.

use std::sync::Arc;

use http::header::{HOST, USER_AGENT};
use shoal_core::{Digest, Tag};

use super::Exchange;
use super::names::Target;
use crate::event::{self, Action, Client, ClientAddress, Content, Event, Watcher};
use crate::manifest::Manifest;
use crate::storage::Descriptor;

/// Speaks for one request; says nothing where nobody watches.
pub(super) struct Teller(Option<Voice>);

struct Voice {
    watcher: Arc<dyn Watcher>,
    target: Target,
    client: Client,
}

impl Exchange {
    /// For what the request is about to do, if that is watched.
    pub(super) fn teller(&self, target: &Target, action: &Action) -> Teller {
        let watcher = self.api.watcher.as_ref().filter(|watcher| watcher.watches(action));
        Teller(watcher.map(|watcher| Voice {
            watcher: watcher.clone(),
            target: target.clone(),
            client: self.client(),
        }))
    }

    fn client(&self) -> Client {
        let words = |name| {
            let words = self.header(name).unwrap_or_default();
            words.chars().take(MAX_WORDS).collect()
        };
        Client {
            method: self.parts.method.to_string(),
            host: words(HOST),
            address: self.parts.extensions.get().map(|ClientAddress(address)| *address),
            user_agent: words(USER_AGENT),
            name: self.caller.identity().map(ToString::to_string),
        }
    }
}

impl Teller {
    pub(super) async fn tell_of_blob(self, action: Action, blob: &Descriptor) {
        let content = Content { media_type: BLOB.to_owned(), length: blob.size };
        self.tell_of_bytes(action, &blob.digest, Some(content)).await;
    }

    pub(super) async fn tell_of_deleted_blob(self, digest: &Digest) {
        self.tell_of_bytes(Action::Delete, digest, None).await;
    }

    async fn tell_of_bytes(self, action: Action, digest: &Digest, content: Option<Content>) {
        let Self(Some(voice)) = self else { return };
        let path = voice.target.blob_url(digest);
        let target = event::Target { digest: *digest, content, path, is_manifest: false };
        voice.say(action, None, Some(target)).await;
    }

    /// Once for each tag, and once where there is none.
    pub(super) async fn tell_of_manifest(
        self,
        action: Action,
        manifest: &Manifest,
        digest: &Digest,
        tags: &[Tag],
    ) {
        let Self(Some(voice)) = self else { return };
        let media_type = manifest.media_type().as_str().to_owned();
        let content = Some(Content { media_type, length: manifest.bytes().len() as u64 });
        let path = voice.target.manifest_url(digest);
        let target = Some(event::Target { digest: *digest, content, path, is_manifest: true });
        if tags.is_empty() {
            voice.say(action.clone(), None, target.clone()).await;
        }
        for tag in tags {
            voice.say(action.clone(), Some(tag.clone()), target.clone()).await;
        }
    }

    pub(super) async fn tell_of_deleted_manifest(self, digest: Option<Digest>, tag: Option<Tag>) {
        let Self(Some(voice)) = self else { return };
        let target = digest.map(|digest| {
            let path = voice.target.manifest_url(digest);
            event::Target { digest, content: None, path, is_manifest: true }
        });
        voice.say(Action::Delete, tag, target).await;
    }
}

impl Voice {
    async fn say(&self, action: Action, tag: Option<Tag>, target: Option<event::Target>) {
        let (repository, client) = (self.target.repository.clone(), self.client.clone());
        self.watcher.happened(Event { action, repository, tag, target, client }).await;
    }
}

/// As the CNCF registry calls what has no other type.
const BLOB: &str = "application/octet-stream";

/// How much of a client's words is passed on, in characters.
const MAX_WORDS: usize = 256;
