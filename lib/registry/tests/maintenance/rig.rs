//! A registry over a driver whose content a test can see and change past the registry.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use shoal_core::{Digest, RepositoryName, Tag};
use shoal_driver::{Context, DriverPath, MemoryDriver, RegistryPath, StorageDriver, walk};
use shoal_registry::maintenance::{GarbagePolicy, GarbageReport};
use shoal_registry::{Config, Maintenance, Observer, Registry};
use tower::ServiceExt;

pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) struct Rig {
    pub(crate) registry: Registry,
    pub(crate) driver: Arc<dyn StorageDriver>,
    router: Router,
}

/// An image that was pushed.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) digest: Digest,
    pub(crate) config: Digest,
    pub(crate) layer: Digest,
}

struct Silent;

impl Observer for Silent {}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::on(Arc::new(MemoryDriver::new()))
    }

    pub(crate) fn on(driver: Arc<dyn StorageDriver>) -> Self {
        let registry = Registry::new(Config::default(), driver.clone(), Arc::new(Silent));
        let router = registry.router();
        Self { registry, driver, router }
    }

    pub(crate) fn maintenance(&self) -> Maintenance {
        self.registry.maintenance()
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: impl Into<Body>) -> StatusCode {
        let request = Request::builder().method(method).uri(path);
        let request = request.header("content-type", MANIFEST).body(body.into()).unwrap();
        self.router.clone().oneshot(request).await.unwrap().status()
    }

    /// What is attached to a manifest, as clients are told.
    pub(crate) async fn referrers(&self, repository: &str, subject: Digest) -> Vec<Digest> {
        let request = Request::builder().uri(format!("/v2/{repository}/referrers/{subject}"));
        let response = self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let index: Value = serde_json::from_slice(&body).unwrap();
        let entries = index["manifests"].as_array().unwrap().iter();
        entries.map(|entry| Digest::parse(entry["digest"].as_str().unwrap()).unwrap()).collect()
    }

    pub(crate) async fn put_blob(&self, repository: &str, content: &[u8]) -> Digest {
        let digest = Digest::sha256(content);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        assert_eq!(self.send("POST", &path, content.to_vec()).await, StatusCode::CREATED);
        digest
    }

    /// Starts an upload session; gives where it goes on.
    pub(crate) async fn start_upload(&self, repository: &str) -> String {
        let request = Request::builder().method("POST").uri(format!("/v2/{repository}/blobs/uploads/"));
        let response = self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        response.headers()["location"].to_str().unwrap().to_owned()
    }

    /// Pushes a manifest by a tag, or by its digest; `media_type` is in the document.
    pub(crate) async fn put_manifest(
        &self,
        repository: &str,
        tag: Option<&str>,
        document: &Value,
    ) -> StatusCode {
        let digest = digest_of(document).to_string();
        let path = format!("/v2/{repository}/manifests/{}", tag.unwrap_or(&digest));
        let media_type = document["mediaType"].as_str().unwrap();
        let request = Request::builder().method("PUT").uri(path).header("content-type", media_type);
        let request = request.body(Body::from(document.to_string())).unwrap();
        self.router.clone().oneshot(request).await.unwrap().status()
    }

    /// Pushes an image with one layer; no two names give a common blob.
    pub(crate) async fn push_image(&self, repository: &str, tag: Option<&str>, name: &str) -> Image {
        let config = self.put_blob(repository, format!("config of {name}").as_bytes()).await;
        let layer = self.put_blob(repository, format!("layer of {name}").as_bytes()).await;
        let document = image(config, layer);
        assert_eq!(self.put_manifest(repository, tag, &document).await, StatusCode::CREATED);
        Image { digest: digest_of(&document), config, layer }
    }

    pub(crate) async fn push_index(&self, repository: &str, tag: Option<&str>, entries: &[Digest]) -> Digest {
        let document = index(entries);
        assert_eq!(self.put_manifest(repository, tag, &document).await, StatusCode::CREATED);
        digest_of(&document)
    }

    /// What a DELETE of a manifest by digest does.
    pub(crate) async fn unlink_manifest(&self, repository: &str, digest: Digest) {
        self.delete(RegistryPath::RevisionLink(name(repository), digest)).await;
    }

    pub(crate) async fn untag(&self, repository: &str, tag: &str) {
        self.delete(RegistryPath::Tag(name(repository), Tag::parse(tag).unwrap())).await;
    }

    pub(crate) async fn delete(&self, path: RegistryPath) {
        self.driver.delete(&Context::default(), &path.to_driver_path()).await.unwrap();
    }

    pub(crate) async fn put(&self, path: RegistryPath, content: impl Into<Bytes>) {
        let path = path.to_driver_path();
        self.driver.put_content(&Context::default(), &path, content.into()).await.unwrap();
    }

    pub(crate) async fn has(&self, path: RegistryPath) -> bool {
        self.driver.stat(&Context::default(), &path.to_driver_path()).await.is_ok()
    }

    pub(crate) async fn has_blob(&self, digest: Digest) -> bool {
        self.has(RegistryPath::BlobData(digest)).await
    }

    /// Manifest, config and layer, linked and there.
    pub(crate) async fn has_image(&self, repository: &str, image: &Image) -> bool {
        let Image { digest, config, layer, .. } = *image;
        let name = || name(repository);
        self.has(RegistryPath::RevisionLink(name(), digest)).await
            && self.has(RegistryPath::LayerLink(name(), config)).await
            && self.has(RegistryPath::LayerLink(name(), layer)).await
            && self.has_blobs(&[digest, config, layer]).await
    }

    pub(crate) async fn has_blobs(&self, digests: &[Digest]) -> bool {
        let there = self.blobs().await;
        digests.iter().all(|digest| there.contains(&digest.to_string()))
    }

    pub(crate) async fn blobs(&self) -> BTreeSet<String> {
        let files = self.files().await;
        let blob = |file: &String| match RegistryPath::parse(&DriverPath::parse(file).unwrap()) {
            Ok(RegistryPath::BlobData(digest)) => Some(digest.to_string()),
            _ => None,
        };
        files.iter().filter_map(blob).collect()
    }

    /// Every file that the driver has.
    pub(crate) async fn files(&self) -> BTreeSet<String> {
        let (context, root) = (Context::default(), DriverPath::root());
        let mut walk = walk(&*self.driver, &context, &root);
        let mut files = BTreeSet::new();
        while let Some(entry) = walk.next().await.unwrap() {
            if !entry.is_directory {
                files.insert(entry.path.to_string());
            }
        }
        files
    }

    /// Collects garbage in a month from now, when all that is there is old.
    pub(crate) async fn collect(&self, delete_untagged: bool) -> GarbageReport {
        let policy = GarbagePolicy { delete_untagged, ..policy() };
        self.maintenance().collect_garbage(in_a_month(), &policy).await.unwrap()
    }
}

pub(crate) fn policy() -> GarbagePolicy {
    GarbagePolicy { min_age: 7 * DAY, delete_untagged: false, dry_run: false }
}

pub(crate) fn in_a_month() -> SystemTime {
    SystemTime::now() + 30 * DAY
}

pub(crate) fn name(text: &str) -> RepositoryName {
    RepositoryName::parse(text).unwrap()
}

pub(crate) fn digest_of(document: &Value) -> Digest {
    Digest::sha256(document.to_string().as_bytes())
}

pub(crate) fn image(config: Digest, layer: Digest) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 1},
        "layers": [{"mediaType": LAYER, "digest": layer, "size": 1}],
    })
}

pub(crate) fn index(entries: &[Digest]) -> Value {
    let entry = |digest: &Digest| json!({"mediaType": MANIFEST, "digest": digest, "size": 1});
    let manifests: Vec<Value> = entries.iter().map(entry).collect();
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
}

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
