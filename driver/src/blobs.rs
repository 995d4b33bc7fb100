//! Reading blobs for both peer-to-peer drivers: from the store if it has the whole blob, else from the cluster.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use shoal_core::Digest;
use shoal_store::{BlobReader, ReadError, Store};

use crate::driver::{ByteRange, ByteStream, Context, FileInfo, MAX_CONTENT_LENGTH};
use crate::error::{DriverError, Errors};
use crate::path::DriverPath;
use crate::registry_path::RegistryPath;
use crate::request::Operation;
use crate::transferer::Transferer;

/// The store, and the cluster behind it.
pub(crate) struct Blobs {
    pub(crate) errors: Errors,
    pub(crate) store: Store,
    pub(crate) transferer: Arc<dyn Transferer>,
}

impl Blobs {
    /// The length of a blob in bytes.
    pub(crate) async fn length(
        &self,
        operation: Operation,
        context: &Context,
        digest: &Digest,
    ) -> Result<u64, DriverError> {
        if let Some(blob) = self.store.blob(digest) {
            return Ok(blob.metainfo().length());
        }
        let length = self.transferer.stat(context.repository.as_ref(), digest).await;
        length.map_err(|error| self.errors.transfer(operation, &data_path(digest), error))
    }

    pub(crate) async fn stat(&self, context: &Context, digest: &Digest) -> Result<FileInfo, DriverError> {
        let path = data_path(digest);
        if let Some(blob) = self.store.blob(digest) {
            match blob.modified().await {
                Ok(modified) => return Ok(FileInfo { modified, ..file(path, blob.metainfo().length()) }),
                // Deleted since: the cluster may still have it.
                Err(ReadError::Gone { .. }) => {}
                Err(error) => return Err(self.errors.caused(format!("stat {path}"), error)),
            }
        }
        let size = self.length(Operation::Stat, context, digest).await?;
        Ok(file(path, size))
    }

    /// The bytes of a range, as they come in.
    pub(crate) async fn reader(
        &self,
        context: &Context,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<ByteStream, DriverError> {
        if let Some(blob) = self.store.blob(digest) {
            let reader = blob.reader(range.within(blob.metainfo().length()));
            // Evicted since it was looked up: the cluster may still have it.
            if !reader.is_gone() {
                return Ok(self.stream(*digest, reader));
            }
        }
        let opened = self.transferer.open(context.repository.as_ref(), digest, range).await;
        opened.map_err(|error| self.errors.transfer(Operation::Reader, &data_path(digest), error))
    }

    /// The whole of a blob that is small. Counted while it comes in: what the cluster says of its length is not relied on.
    pub(crate) async fn content(&self, context: &Context, digest: &Digest) -> Result<Bytes, DriverError> {
        let too_long = || self.errors.too_long(&data_path(digest));
        if self.length(Operation::GetContent, context, digest).await? > MAX_CONTENT_LENGTH {
            return Err(too_long());
        }
        let mut content = BytesMut::new();
        let mut stream = self.reader(context, digest, ByteRange::default()).await?;
        while let Some(bytes) = stream.try_next().await? {
            if (content.len() + bytes.len()) as u64 > MAX_CONTENT_LENGTH {
                return Err(too_long());
            }
            content.extend_from_slice(&bytes);
        }
        Ok(content.freeze())
    }

    fn stream(&self, digest: Digest, reader: BlobReader) -> ByteStream {
        let errors = self.errors;
        // The reader goes with its last item: after an error there is nothing more.
        let bytes = stream::unfold(Some(reader), move |reader| async move {
            let mut reader = reader?;
            match reader.next().await? {
                Ok(bytes) => Some((Ok(bytes), Some(reader))),
                Err(error) => Some((Err(errors.caused(format!("reader {digest}"), error)), None)),
            }
        });
        bytes.boxed()
    }
}

/// What `stat` says of content of which nobody here knows when it came.
pub(crate) fn file(path: DriverPath, size: u64) -> FileInfo {
    FileInfo { path, size, modified: SystemTime::UNIX_EPOCH, is_directory: false }
}

/// What `stat` says of a folder that is only a way of speaking.
pub(crate) fn directory(path: DriverPath) -> FileInfo {
    FileInfo { path, size: 0, modified: SystemTime::UNIX_EPOCH, is_directory: true }
}

/// The folders that lead to the repositories and to the blobs: there even if they are empty.
pub(crate) fn children_of_trunk(path: &RegistryPath) -> Option<Vec<RegistryPath>> {
    match path {
        RegistryPath::Root => Some(vec![RegistryPath::Docker]),
        RegistryPath::Docker => Some(vec![RegistryPath::Registry]),
        RegistryPath::Registry => Some(vec![RegistryPath::Version]),
        RegistryPath::Version => Some(vec![RegistryPath::Blobs, RegistryPath::Repositories]),
        _ => None,
    }
}

fn data_path(digest: &Digest) -> DriverPath {
    RegistryPath::BlobData(*digest).to_driver_path()
}
