//! Plans over images that are made up, and some that nobody means well with.

use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};
use shoal_core::{Algorithm, RepositoryName};
use shoal_upstream::{ByteStream, RegistryHost};

use super::*;

/// Manifests in memory; the last is the root.
#[derive(Default)]
struct Made(Vec<Manifest>);

impl Made {
    /// Adds a document, and says how another names it.
    fn add(&mut self, document: &Value) -> Value {
        let manifest =
            Manifest::parse_new(Bytes::from(document.to_string()), Algorithm::Sha256, None).unwrap();
        let descriptor = serde_json::to_value(manifest.descriptor()).unwrap();
        self.0.push(manifest);
        descriptor
    }

    fn image(&mut self, name: &str) -> Value {
        let (config, layer) = (blob(name, 7), blob("shared", 9));
        self.add(&json!({ "config": config, "layers": [layer, blob(&format!("{name} layer"), 5)] }))
    }

    async fn plan(&self) -> Result<Plan, String> {
        Plan::make(self, None, true).await.map_err(|error| error.to_string())
    }
}

fn blob(name: &str, size: u64) -> Value {
    json!({ "mediaType": "x", "digest": Digest::sha256(name.as_bytes()), "size": size })
}

#[async_trait]
impl Source for Made {
    async fn root(&self) -> Result<Manifest, ImageError> {
        Ok(self.0.last().unwrap().clone())
    }

    async fn manifest(&self, descriptor: &Descriptor) -> Result<Manifest, ImageError> {
        let found = self.0.iter().find(|manifest| manifest.digest() == descriptor.digest);
        found.cloned().ok_or_else(|| ImageError::invalid("made", "absent"))
    }

    async fn open(&self, _blob: &Descriptor, _offset: u64) -> io::Result<ByteStream> {
        Err(io::ErrorKind::NotFound.into())
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, ImageError> {
        let of = |manifest: &&Manifest| manifest.subject().is_some_and(|named| named.digest == *subject);
        Ok(self.0.iter().filter(of).map(Manifest::descriptor).collect())
    }

    fn repository(&self) -> Option<(&RegistryHost, &RepositoryName)> {
        None
    }
}

#[tokio::test]
async fn what_is_named_comes_before_what_names_it_and_each_once() {
    let mut made = Made::default();
    let (first, second) = (made.image("a"), made.image("b"));
    let inner = made.add(&json!({ "manifests": [first, second] }));
    made.add(&json!({ "manifests": [second, inner, first, blob("cache", 3)] }));
    let plan = made.plan().await.unwrap();
    let place = |index: usize| {
        plan.manifests.iter().position(|manifest| manifest.digest() == made.0[index].digest()).unwrap()
    };
    assert_eq!(plan.manifests.len(), 4);
    assert!(place(0) < place(2) && place(1) < place(2) && place(2) < place(3));
    assert_eq!(plan.root.digest(), made.0[3].digest());
    // Two configurations, two layers, the shared one, and what is no manifest.
    assert_eq!(plan.blobs.len(), 6);
}

#[tokio::test]
async fn what_refers_to_what_refers_to_the_image_comes_too() {
    let mut made = Made::default();
    let image = made.image("a");
    let signature = json!({ "config": blob("s", 1), "layers": [], "subject": image });
    let signature = made.add(&signature);
    made.add(&json!({ "config": blob("t", 1), "layers": [], "subject": signature }));
    let root = made.0.remove(0);
    made.0.push(root);
    let plan = made.plan().await.unwrap();
    assert_eq!(plan.manifests.len(), 3);
    assert_eq!(plan.root.digest(), plan.manifests[0].digest());
}

#[tokio::test]
async fn indexes_are_followed_only_so_deep() {
    let mut made = Made::default();
    let mut inner = made.image("a");
    for _ in 0..MAX_DEPTH {
        inner = made.add(&json!({ "manifests": [inner] }));
    }
    assert!(made.plan().await.is_ok());
    made.add(&json!({ "manifests": [inner] }));
    assert!(made.plan().await.unwrap_err().contains("nested"));
}

#[tokio::test]
async fn manifests_that_do_not_agree_are_refused() {
    let mut made = Made::default();
    made.add(&json!({ "config": blob("c", 1), "layers": [blob("x", 1), blob("x", 2)] }));
    assert!(made.plan().await.unwrap_err().contains("1 bytes or 2"));
    let mut child = made.image("a");
    child["size"] = 3.into();
    made.add(&json!({ "manifests": [child] }));
    assert!(made.plan().await.unwrap_err().contains("its length"));
}

#[tokio::test]
async fn a_platform_that_is_not_there_is_told_what_is() {
    let mut made = Made::default();
    let mut image = made.image("a");
    image["platform"] = json!({ "os": "linux", "architecture": "arm", "variant": "v7" });
    made.add(&json!({ "manifests": [image] }));
    let plan = async |text: &str| {
        let platform: Platform = text.parse().unwrap();
        Plan::make(&made, Some(&platform), false).await.map_err(|error| error.to_string())
    };
    assert_eq!(plan("linux/arm").await.unwrap().root.digest(), made.0[0].digest());
    assert!(plan("linux/amd64").await.unwrap_err().contains("it has linux/arm/v7"));
}
