//! A directory in the blob layout of an OCI image: `blobs/<algorithm>/<hex>`. It is only read.
//!
//! Reads run on blocking threads, one part at a time.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use bytesize::ByteSize;
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use shoal_core::{Digest, RepositoryName};

use super::{Incoming, Source, SourceError};

/// A directory that holds blobs: an OCI image layout, or a share that several hosts mount.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryConfig {
    /// What logs and metrics call it.
    pub name: String,
    /// The directory that has `blobs/`.
    pub path: PathBuf,
    /// How many bytes a second are read of it at most, by all fetches of this origin together. Unlimited unless set.
    #[serde(default)]
    pub rate: Option<ByteSize>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    root: PathBuf,
}

impl Directory {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
    }
}

#[async_trait]
impl Source for Directory {
    async fn open(
        &self,
        _: Option<&RepositoryName>,
        digest: &Digest,
        start: u64,
    ) -> Result<Incoming, SourceError> {
        let path = self.path(digest);
        let (file, length) = blocking(move || open(&path, start)).await?;
        Ok(Incoming { length, bytes: stream::try_unfold(file, next).boxed() })
    }
}

fn open(path: &Path, start: u64) -> io::Result<(File, u64)> {
    let mut file = File::open(path)?;
    let found = file.metadata()?;
    // Nor a pipe, which would be waited for without end.
    if !found.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    file.seek(SeekFrom::Start(start))?;
    Ok((file, found.len()))
}

async fn next(file: File) -> Result<Option<(Bytes, File)>, SourceError> {
    let part = blocking(move || {
        let mut part = BytesMut::zeroed(PART);
        let count = (&file).read(&mut part)?;
        part.truncate(count);
        Ok((part.freeze(), file))
    });
    let (part, file) = part.await?;
    Ok((!part.is_empty()).then_some((part, file)))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, SourceError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| SourceError::Failed("the origin stops".to_owned()))?.map_err(|error| {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => SourceError::NotFound,
            _ => SourceError::Failed(error.to_string()),
        }
    })
}

/// What one read takes: long enough to be worth a change of threads.
const PART: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt as _;

    use super::*;

    #[tokio::test]
    async fn a_file_is_read_from_where_it_is_asked_for_and_what_is_none_is_not_there() {
        let root = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..PART + 5).map(|at| (at % 251) as u8).collect();
        let digest = Digest::sha256(&content);
        let folder = root.path().join("blobs/sha256");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(digest.hex()), &content).unwrap();
        let source = Directory::new(root.path().to_owned());
        for start in [0, 7, PART, content.len()] {
            let incoming = source.open(None, &digest, start as u64).await.unwrap();
            assert_eq!(incoming.length, content.len() as u64);
            let parts: Vec<Bytes> = incoming.bytes.try_collect().await.unwrap();
            assert_eq!(parts.concat(), content[start..]);
        }
        assert_eq!(source.stat(None, &digest).await.unwrap(), content.len() as u64);
        let absent = Digest::sha256(b"absent");
        assert!(matches!(source.stat(None, &absent).await, Err(SourceError::NotFound)));
        std::fs::create_dir(folder.join(absent.hex())).unwrap();
        assert!(matches!(source.stat(None, &absent).await, Err(SourceError::Failed(_))));
    }
}
