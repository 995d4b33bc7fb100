//! The files of a layout, in a folder or in an archive: found by name, read from anywhere.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use shoal_core::Digest;
use shoal_upstream::ByteStream;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use crate::archive::{Extent, Table};
use crate::error::ImageError;

/// Named files that can be read.
#[derive(Debug)]
pub(crate) enum Files {
    /// Below a folder.
    Folder(PathBuf),
    /// In a tar archive.
    Archive(PathBuf, Table),
}

/// A file, or a part of one.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) file: PathBuf,
    pub(crate) extent: Extent,
}

impl Files {
    /// A folder that is there.
    pub(crate) async fn folder(path: &Path) -> Result<Self, ImageError> {
        let real = tokio::fs::canonicalize(path).await.map_err(ImageError::file(path, "cannot be opened"))?;
        Ok(Self::Folder(real))
    }

    /// An archive, whose headers are all read.
    pub(crate) async fn archive(path: &Path) -> Result<Self, ImageError> {
        let file = path.to_owned();
        let table =
            blocking(move || Table::read(&file)).await.map_err(ImageError::file(path, "cannot be read"))?;
        Ok(Self::Archive(path.to_owned(), table))
    }

    /// Where it is, for errors.
    pub(crate) fn place(&self) -> std::path::Display<'_> {
        match self {
            Self::Folder(path) | Self::Archive(path, _) => path.display(),
        }
    }

    /// The file of that name, which is one of a layout and never from outside. `None` where there is none.
    pub(crate) async fn find(&self, name: &str) -> io::Result<Option<Found>> {
        let folder = match self {
            Self::Archive(file, table) => {
                return Ok(table.find(name).map(|extent| Found { file: file.clone(), extent }));
            }
            Self::Folder(folder) => folder,
        };
        let file = match tokio::fs::canonicalize(folder.join(name)).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found?,
        };
        // Somebody else's layout must not have files of this host pushed.
        if !file.starts_with(folder) {
            let reason = format!("{name} is a link out of {}", folder.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        let metadata = tokio::fs::metadata(&file).await?;
        let length = metadata.len();
        Ok(metadata.is_file().then_some(Found { file, extent: Extent { offset: 0, length } }))
    }

    /// The whole of a small file.
    pub(crate) async fn read(&self, name: &str, limit: usize) -> Result<Bytes, ImageError> {
        let failed = |error: io::Error| ImageError::invalid(self.place(), format!("{name}: {error}"));
        let Some(found) = self.find(name).await.map_err(failed)? else {
            return Err(ImageError::invalid(self.place(), format!("there is no {name}")));
        };
        if found.extent.length > limit as u64 {
            return Err(ImageError::invalid(self.place(), format!("{name} has more than {limit} bytes")));
        }
        let chunks: Vec<Bytes> = found.open(0).await.map_err(failed)?.try_collect().await.map_err(failed)?;
        Ok(chunks.concat().into())
    }
}

impl Found {
    /// Its bytes from `offset` on.
    pub(crate) async fn open(&self, offset: u64) -> io::Result<ByteStream> {
        let mut file = tokio::fs::File::open(&self.file).await?;
        let offset = offset.min(self.extent.length);
        file.seek(io::SeekFrom::Start(self.extent.offset + offset)).await?;
        Ok(ReaderStream::with_capacity(file.take(self.extent.length - offset), CHUNK).boxed())
    }
}

/// The name of a blob in a layout (image-layout.md, "Blobs").
pub(crate) fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

/// Does work that blocks where it may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Each is one trip to a thread that may block.
const CHUNK: usize = 256 << 10;
