//! One backend: a few operations on objects, each with a limit of time, its errors told apart by what is to be done about them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetResult, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload,
    UpdateVersion,
};
use shoal_core::causes;
use tokio::time::timeout;

use super::keys::Key;
use super::metrics::BackendMetrics;

/// A backend. Clones are one.
#[derive(Clone)]
pub(crate) struct Objects(Arc<Inner>);

struct Inner {
    name: String,
    store: Arc<dyn ObjectStore>,
    /// Before every key.
    prefix: String,
    /// A directory that has to be there: a share that is not mounted has lost nothing.
    root: Option<PathBuf>,
    timeout: Duration,
    metrics: BackendMetrics,
}

/// Why a backend did not do it. Nothing was lost, and the message names neither backend nor object.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum BackendError {
    /// There is no such object.
    #[error("not there")]
    NotFound,
    /// Another wrote it meanwhile: look again.
    #[error("another wrote it at the same time")]
    Conflict,
    /// It cannot do that: do it another way.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// It has forbidden this: for an operator.
    #[error("refused: {0}")]
    Refused(String),
    /// It cannot be reached, or is broken: try again later.
    #[error("not available: {0}")]
    Unavailable(String),
}

/// A small object.
#[derive(Clone, Debug)]
pub(crate) struct Small {
    pub(crate) content: Bytes,
    version: UpdateVersion,
}

/// What has to be there for an object to be put.
#[derive(Clone, Debug)]
pub(crate) enum Expected {
    Anything,
    Nothing,
    Version(UpdateVersion),
}

impl Small {
    /// To put another in its place.
    pub(crate) fn expected(&self) -> Expected {
        Expected::Version(self.version.clone())
    }
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Objects").field(&self.0.name).finish()
    }
}

impl Objects {
    pub(super) fn new(
        name: &str,
        (store, prefix): (Arc<dyn ObjectStore>, &str),
        root: Option<PathBuf>,
        timeout: Duration,
        metrics: BackendMetrics,
    ) -> Self {
        let (name, prefix) = (name.to_owned(), prefix.trim_matches('/').to_owned());
        Self(Arc::new(Inner { name, store, prefix, root, timeout, metrics }))
    }

    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    /// How long an object is; nothing if there is none.
    pub(crate) async fn size(&self, key: &Key) -> Result<Option<u64>, BackendError> {
        let path = self.path(&key.path())?;
        match self.call("head", self.0.store.head(&path)).await {
            Ok(found) => Ok(Some(found.size)),
            Err(BackendError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A small object whole; nothing if there is none.
    pub(crate) async fn small(&self, key: &Key) -> Result<Option<Small>, BackendError> {
        let path = self.path(&key.path())?;
        let read = self.call("get", async {
            let found = self.0.store.get(&path).await?;
            let version =
                UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
            Ok((first_bytes(found).await?, version))
        });
        match read.await {
            Ok((content, _)) if content.len() > MAX_SMALL => Err(BackendError::Unavailable(format!(
                "an object of more than {MAX_SMALL} bytes is no record"
            ))),
            Ok((content, version)) => Ok(Some(Small { content, version })),
            Err(BackendError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts a small object where what is there is as expected.
    pub(crate) async fn put_small(
        &self,
        key: &Key,
        content: Bytes,
        expected: Expected,
    ) -> Result<(), BackendError> {
        let path = self.path(&key.path())?;
        let mode = match expected {
            Expected::Anything => PutMode::Overwrite,
            Expected::Nothing => PutMode::Create,
            Expected::Version(version) => PutMode::Update(version),
        };
        let options = PutOptions { mode, ..PutOptions::default() };
        self.call("put", self.0.store.put_opts(&path, content.into(), options)).await.map(drop)
    }

    /// Deletes an object, if it is there.
    pub(crate) async fn delete(&self, key: &Key) -> Result<(), BackendError> {
        let path = self.path(&key.path())?;
        match self.call("delete", self.0.store.delete(&path)).await {
            Err(BackendError::NotFound) => Ok(()),
            deleted => deleted,
        }
    }

    /// All objects below a path: each path without the backend's prefix, and its length.
    pub(crate) fn list(&self, below: &str) -> BoxStream<'static, Result<(String, u64), BackendError>> {
        let below = match self.path(below) {
            Ok(below) => below,
            Err(error) => return futures_util::stream::iter([Err(error)]).boxed(),
        };
        let objects = self.clone();
        let listed = self.0.store.list(Some(&below));
        futures_util::stream::try_unfold(listed, move |mut listed| {
            let objects = objects.clone();
            async move {
                let next = objects.call("list", listed.try_next()).await?;
                let Some(found) = next else {
                    // A directory that went away meanwhile ends like one that was read to its end.
                    objects.require_root().await?;
                    return Ok(None);
                };
                let path = objects.own(found.location.as_ref());
                Ok(Some(((path, found.size), listed)))
            }
        })
        .boxed()
    }

    /// An object from `start` on, and how long the whole is.
    pub(super) async fn open(&self, key: &Key, start: u64) -> Result<GetResult, BackendError> {
        let path = self.path(&key.path())?;
        let options = GetOptions { range: (start > 0).then_some((start..).into()), ..GetOptions::default() };
        self.call("open", self.0.store.get_opts(&path, options)).await
    }

    pub(super) async fn put_whole(&self, key: &Key, payload: PutPayload) -> Result<(), BackendError> {
        let path = self.path(&key.path())?;
        self.call("put", self.0.store.put(&path, payload)).await.map(drop)
    }

    pub(super) async fn begin_parts(
        &self,
        key: &Key,
    ) -> Result<Box<dyn object_store::MultipartUpload>, BackendError> {
        let path = self.path(&key.path())?;
        self.call("begin", self.0.store.put_multipart(&path)).await
    }

    pub(super) fn count_written(&self, bytes: u64) {
        self.0.metrics.written.with_label_values(&[&self.0.name]).inc_by(bytes);
    }

    /// A call to the backend: counted, not for ever, its error told apart.
    pub(super) async fn call<T>(
        &self,
        operation: &str,
        call: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, BackendError> {
        let done = async {
            self.require_root().await?;
            match timeout(self.0.timeout, call).await {
                Ok(Ok(done)) => Ok(done),
                Ok(Err(error)) => Err(self.explain(error).await),
                Err(_) => Err(BackendError::Unavailable(format!("no answer in {:?}", self.0.timeout))),
            }
        };
        let done = done.await;
        let result = match &done {
            Ok(_) => "ok",
            Err(BackendError::NotFound) => "not_found",
            Err(BackendError::Conflict) => "conflict",
            Err(BackendError::Refused(_) | BackendError::Unsupported(_)) => "refused",
            Err(BackendError::Unavailable(_)) => "unavailable",
        };
        self.0.metrics.calls.with_label_values(&[&self.0.name, operation, result]).inc();
        done
    }

    async fn explain(&self, error: Error) -> BackendError {
        match BackendError::from(error) {
            // It may have gone just now.
            BackendError::NotFound => match self.require_root().await {
                Ok(()) => BackendError::NotFound,
                Err(error) => error,
            },
            error => error,
        }
    }

    async fn require_root(&self) -> Result<(), BackendError> {
        let Some(root) = &self.0.root else { return Ok(()) };
        match tokio::fs::metadata(root).await {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err(BackendError::Unavailable(format!("{} is no directory", root.display()))),
            Err(error) => Err(BackendError::Unavailable(format!("{}: {error}", root.display()))),
        }
    }

    fn path(&self, path: &str) -> Result<Path, BackendError> {
        let path =
            if self.0.prefix.is_empty() { path.to_owned() } else { format!("{}/{path}", self.0.prefix) };
        Path::parse(&path).map_err(|error| BackendError::Unavailable(error.to_string()))
    }

    fn own(&self, path: &str) -> String {
        let own = path.strip_prefix(&self.0.prefix).unwrap_or(path);
        own.trim_start_matches('/').to_owned()
    }
}

/// One more than a record may have, at most: what is longer is none.
async fn first_bytes(found: GetResult) -> object_store::Result<Bytes> {
    let (mut content, mut parts) = (BytesMut::new(), found.into_stream());
    while let Some(part) = parts.try_next().await? {
        content.extend_from_slice(&part[..part.len().min(MAX_SMALL + 1 - content.len())]);
        if content.len() > MAX_SMALL {
            break;
        }
    }
    Ok(content.freeze())
}

impl From<Error> for BackendError {
    fn from(error: Error) -> Self {
        let reason = causes(&error);
        match error {
            // A bucket that is not there has lost nothing.
            Error::NotFound { .. } if reason.contains("NoSuchBucket") => Self::Unavailable(reason),
            Error::NotFound { .. } => Self::NotFound,
            Error::AlreadyExists { .. } | Error::Precondition { .. } => Self::Conflict,
            Error::NotImplemented { .. } | Error::NotSupported { .. } => Self::Unsupported(reason),
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Self::Refused(reason),
            _ => Self::Unavailable(reason),
        }
    }
}

/// The longest record: a tag with its last writes has less than 2 KiB.
const MAX_SMALL: usize = 64 << 10;
