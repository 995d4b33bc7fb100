//! A registry on a driver that counts its calls and fails on request, and short ways to ask it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use shoal_core::Digest;
use shoal_driver::{
    ByteRange, ByteStream, Context, DriverError, DriverPath, FileInfo, FileWriter, MemoryDriver,
    StorageDriver, WriteMode,
};
use shoal_registry::{Config, Observer, Registry, auth};
use tower::ServiceExt;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// A registry and what can be seen of it.
pub(crate) struct Rig {
    pub(crate) router: Router,
    pub(crate) driver: Arc<TestDriver>,
    pub(crate) events: Arc<Events>,
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with_config(Config::default())
    }

    pub(crate) fn with_config(config: Config) -> Self {
        Self::on(Arc::new(MemoryDriver::new()), config)
    }

    pub(crate) fn on(driver: Arc<dyn StorageDriver>, config: Config) -> Self {
        let driver = Arc::new(TestDriver {
            inner: driver,
            calls: Mutex::default(),
            faults: Mutex::default(),
            life: Mutex::default(),
        });
        let events = Arc::new(Events::default());
        let router = Registry::new(config, driver.clone(), events.clone()).router();
        Self { router, driver, events }
    }

    /// The same content behind a guard.
    pub(crate) async fn guarded(&self, auth: &auth::Config) -> Self {
        let (driver, events) = (Arc::clone(&self.driver), Arc::clone(&self.events));
        let guard = auth::Guard::new(auth).await.unwrap();
        let registry = Registry::new(Config::default(), driver.clone(), events.clone()).guarded(guard);
        Self { router: registry.router(), driver, events }
    }

    /// Another registry over the same driver: what a restart, or a second process, is.
    pub(crate) fn restarted(&self) -> Self {
        Self::on(self.driver.inner.clone(), Config::default())
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Reply {
        let response = self.start(method, path, headers, body).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        Reply { status: parts.status, headers: parts.headers, body }
    }

    /// The answer with its body still to be read.
    pub(crate) async fn start(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> axum::response::Response {
        let request =
            headers.iter().fold(Request::builder().method(method).uri(path), |request, (name, value)| {
                request.header(*name, *value)
            });
        self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], Body::empty()).await
    }

    pub(crate) async fn head(&self, path: &str) -> Reply {
        self.send("HEAD", path, &[], Body::empty()).await
    }

    /// Pushes a blob the shortest way.
    pub(crate) async fn push_blob(&self, repository: &str, content: &[u8]) -> Digest {
        let digest = Digest::sha256(content);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        self.send("POST", &path, &[], content.to_vec()).await.expect(StatusCode::CREATED);
        digest
    }

    /// Starts a session; gives its location.
    pub(crate) async fn start_upload(&self, repository: &str) -> String {
        let reply = self.send("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], Body::empty()).await;
        reply.expect(StatusCode::ACCEPTED).header("location").to_owned()
    }

    pub(crate) async fn put_manifest(&self, path: &str, media_type: &str, document: &Value) -> Reply {
        self.send("PUT", path, &[("content-type", media_type)], document.to_string()).await
    }

    /// Pushes config, layer and manifest of a small image under a tag; gives the manifest.
    pub(crate) async fn push_image(&self, repository: &str, tag: &str) -> Value {
        self.push_blob(repository, b"{}").await;
        self.push_blob(repository, b"layer").await;
        let document = image(OCI_MANIFEST);
        let path = format!("/v2/{repository}/manifests/{tag}");
        self.put_manifest(&path, OCI_MANIFEST, &document).await.expect(StatusCode::CREATED);
        document
    }
}

impl Reply {
    #[track_caller]
    pub(crate) fn expect(self, status: StatusCode) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }

    /// An error of the specification, with that code.
    #[track_caller]
    pub(crate) fn expect_error(self, status: StatusCode, code: &str) -> Value {
        let reply = self.expect(status);
        assert_eq!(reply.header("content-type"), "application/json");
        let mut body: Value = serde_json::from_slice(&reply.body).expect("errors are JSON");
        assert!(body["errors"].as_array().is_some_and(|errors| !errors.is_empty()), "{body}");
        for error in body["errors"].as_array().unwrap() {
            assert_eq!(error["code"], code, "{error}");
            assert!(error["message"].is_string(), "{error}");
        }
        body["errors"].take()
    }

    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.headers)).to_str().unwrap()
    }
}

pub(crate) fn descriptor(content: &[u8], media_type: &str) -> Value {
    json!({"mediaType": media_type, "digest": Digest::sha256(content), "size": content.len()})
}

/// The manifest of the blobs `{}` and `layer`.
pub(crate) fn image(media_type: &str) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": descriptor(b"{}", "application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor(b"layer", "application/vnd.oci.image.layer.v1.tar+gzip")],
    })
}

pub(crate) fn index(media_type: &str, children: &[Value]) -> Value {
    let entry = |child: &Value| descriptor(child.to_string().as_bytes(), OCI_MANIFEST);
    let manifests: Vec<Value> = children.iter().map(entry).collect();
    json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests})
}

pub(crate) fn digest_of(document: &Value) -> Digest {
    Digest::sha256(document.to_string().as_bytes())
}

/// What the registry told its observer.
#[derive(Default)]
pub(crate) struct Events(Mutex<Vec<String>>);

impl Events {
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn add(&self, event: String) {
        self.0.lock().unwrap().push(event);
    }
}

impl Observer for Events {
    fn first_byte(&self, _after: Duration) {
        self.add("first byte".into());
    }

    fn pull_finished(&self, bytes: u64, _after: Duration) {
        self.add(format!("finished {bytes}"));
    }

    fn pull_aborted(&self, bytes: u64) {
        self.add(format!("aborted {bytes}"));
    }

    fn pushed(&self, bytes: u64) {
        self.add(format!("pushed {bytes}"));
    }
}

/// What a driver does instead of its work.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Unavailable,
    Failed,
    /// Does not do that at all, as a read-only driver.
    Unsupported,
    /// Never answers.
    Hangs,
    /// A reader that gives so many bytes and then fails.
    CutAfter(u64),
    /// A reader that gives more than it was asked for.
    TooLong,
}

/// Passes everything on to a real driver, and keeps count.
pub(crate) struct TestDriver {
    inner: Arc<dyn StorageDriver>,
    calls: Mutex<Vec<String>>,
    faults: Mutex<BTreeMap<&'static str, Fault>>,
    /// How many changes it takes before it is dead; `None`: it does not die.
    life: Mutex<Option<usize>>,
}

impl TestDriver {
    /// The operations since the last time, in order: which, and the last parts of its path.
    pub(crate) fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    /// From now on that operation (`""`: every one) goes wrong.
    pub(crate) fn fail(&self, operation: &'static str, fault: Fault) {
        self.faults.lock().unwrap().insert(operation, fault);
    }

    /// It takes so many more changes, and then does nothing any more: as if the process had been killed.
    pub(crate) fn die_after(&self, changes: usize) {
        *self.life.lock().unwrap() = Some(changes);
    }

    fn is_dead(&self, operation: &str) -> bool {
        let mut life = self.life.lock().unwrap();
        match life.as_mut() {
            None => false,
            Some(0) => true,
            Some(left) => {
                *left -= usize::from(matches!(operation, "put" | "write" | "rename" | "delete"));
                false
            }
        }
    }

    pub(crate) fn heal(&self) {
        self.faults.lock().unwrap().clear();
    }

    async fn enter(&self, operation: &'static str, path: &DriverPath) -> Result<(), DriverError> {
        self.calls.lock().unwrap().push(format!("{operation} {}", kind(path.as_str())));
        if path.as_str().contains("/_manifests") {
            // As a disk or a cluster would: other requests come in between.
            tokio::task::yield_now().await;
        }
        let driver = "test";
        if self.is_dead(operation) {
            return Err(DriverError::Failed { driver, detail: "killed".into(), source: None });
        }
        match self.fault(operation) {
            Some(Fault::Unavailable) => {
                Err(DriverError::Unavailable { driver, detail: "no peer answers".into() })
            }
            Some(Fault::Failed) => {
                Err(DriverError::Failed { driver, detail: "secret disk detail".into(), source: None })
            }
            Some(Fault::Unsupported) => Err(DriverError::Unsupported { driver, operation }),
            Some(Fault::Hangs) => std::future::pending().await,
            Some(Fault::CutAfter(_) | Fault::TooLong) | None => Ok(()),
        }
    }

    fn fault(&self, operation: &str) -> Option<Fault> {
        let faults = self.faults.lock().unwrap();
        faults.get(operation).or_else(|| faults.get("")).copied()
    }
}

/// What a path is, without the names in it.
fn kind(path: &str) -> &'static str {
    let kinds = [
        ("/_layers/", "layer link"),
        ("/revisions/", "revision link"),
        ("/current/link", "tag link"),
        ("/index/", "index link"),
        ("/startedat", "startedat"),
        ("/hashstates/", "hash state"),
        ("/_uploads/", "upload"),
        ("/blobs/", "blob"),
    ];
    kinds.into_iter().find(|(part, _)| path.contains(part)).map_or("folder", |(_, kind)| kind)
}

#[async_trait]
impl StorageDriver for TestDriver {
    async fn room(&self) -> Result<Option<u64>, DriverError> {
        self.inner.room().await
    }

    fn name(&self) -> &'static str {
        "test"
    }

    async fn get_content(&self, context: &Context, path: &DriverPath) -> Result<Bytes, DriverError> {
        self.enter("get", path).await?;
        self.inner.get_content(context, path).await
    }

    async fn put_content(
        &self,
        context: &Context,
        path: &DriverPath,
        content: Bytes,
    ) -> Result<(), DriverError> {
        self.enter("put", path).await?;
        self.inner.put_content(context, path, content).await
    }

    async fn reader(
        &self,
        context: &Context,
        path: &DriverPath,
        range: ByteRange,
    ) -> Result<ByteStream, DriverError> {
        use futures_util::{StreamExt, stream};
        self.enter("read", path).await?;
        match self.fault("read") {
            Some(Fault::CutAfter(bytes)) => {
                let range = ByteRange { start: range.start, end: Some(range.start + bytes) };
                let error = DriverError::Unavailable { driver: "test", detail: "the swarm is gone".into() };
                let cut = stream::iter([Err(error)]);
                Ok(self.inner.reader(context, path, range).await?.chain(cut).boxed())
            }
            Some(Fault::TooLong) => {
                let extra = stream::iter([Ok(Bytes::from_static(b"extra"))]);
                Ok(self.inner.reader(context, path, range).await?.chain(extra).boxed())
            }
            _ => self.inner.reader(context, path, range).await,
        }
    }

    async fn writer(
        &self,
        context: &Context,
        path: &DriverPath,
        mode: WriteMode,
    ) -> Result<Box<dyn FileWriter>, DriverError> {
        self.enter("write", path).await?;
        self.inner.writer(context, path, mode).await
    }

    async fn stat(&self, context: &Context, path: &DriverPath) -> Result<FileInfo, DriverError> {
        self.enter("stat", path).await?;
        self.inner.stat(context, path).await
    }

    async fn list(&self, context: &Context, path: &DriverPath) -> Result<Vec<DriverPath>, DriverError> {
        self.enter("list", path).await?;
        self.inner.list(context, path).await
    }

    async fn rename(&self, context: &Context, from: &DriverPath, to: &DriverPath) -> Result<(), DriverError> {
        self.enter("rename", to).await?;
        self.inner.rename(context, from, to).await
    }

    async fn delete(&self, context: &Context, path: &DriverPath) -> Result<(), DriverError> {
        self.enter("delete", path).await?;
        self.inner.delete(context, path).await
    }
}
