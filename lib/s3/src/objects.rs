//! Whole objects: read, written, copied and deleted through the driver.
//!
//! What an object is decides how ([`Content`]). Two things are not as in an object store: a copy is only ever that of an
//! upload onto its blob, which is a rename; and an upload is deleted as one, by the key of its `startedat`.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use bytes::Bytes;
use s3s::dto::{self, StreamingBlob};
use s3s::{S3Error, S3ErrorCode, S3Result};
use shoal_driver::{
    ByteRange, Context, DriverError, DriverPath, FileInfo, MAX_CONTENT_LENGTH, RegistryPath, StorageDriver,
};

use crate::error::{no_such_key, read_failed, refusal, write_failed};
use crate::keys::{Content, Keys, Named};
use crate::listing::{Depth, Entry, Listing, Page};
use crate::parts::Memory;
use crate::repositories::Repositories;
use crate::uploads::Uploads;

/// The bucket, and what it stands on.
pub(crate) struct Bucket {
    pub(crate) name: String,
    pub(crate) keys: Keys,
    pub(crate) driver: Arc<dyn StorageDriver>,
    pub(crate) uploads: Uploads,
    pub(crate) repositories: Repositories,
    pub(crate) memory: Memory,
}

/// An object on its way out.
pub(crate) struct Opened {
    pub(crate) body: StreamingBlob,
    /// The bytes of it that are in `body`.
    pub(crate) range: Range<u64>,
    pub(crate) length: u64,
    pub(crate) modified: SystemTime,
}

/// Which keys a listing is to give.
pub(crate) struct Wanted<'a> {
    pub(crate) prefix: &'a str,
    pub(crate) delimiter: Option<&'a str>,
    /// The key or common prefix behind which it goes on.
    pub(crate) after: Option<&'a str>,
    pub(crate) max_keys: Option<i32>,
}

/// The most keys of a page, and of one deletion: S3's own limit.
pub(crate) const MAX_KEYS: usize = 1000;

impl Bucket {
    /// The object of a key, to be read.
    pub(crate) fn existing(&self, bucket: &str, key: &str) -> S3Result<Named> {
        self.check(bucket)?;
        self.keys.parse(key).ok_or_else(|| no_such_key(key))
    }

    /// The object of a key, to be written.
    pub(crate) fn writable(&self, bucket: &str, key: &str) -> S3Result<Named> {
        self.check(bucket)?;
        let message = || format!("the key {} is no path of the registry layout", key.escape_debug());
        self.keys.parse(key).ok_or_else(|| refusal(S3ErrorCode::InvalidArgument, message()))
    }

    /// There is one bucket.
    pub(crate) fn check(&self, bucket: &str) -> S3Result<()> {
        if bucket == self.name {
            return Ok(());
        }
        Err(refusal(S3ErrorCode::NoSuchBucket, format!("the bucket here is {}", self.name)))
    }

    /// What is known of an object without reading it.
    pub(crate) async fn stat(&self, named: &Named) -> S3Result<FileInfo> {
        let info =
            self.driver.stat(&self.repositories.context(named), &named.path).await.map_err(read_failed)?;
        if info.is_directory { Err(no_such_key(named.path.as_str())) } else { Ok(info) }
    }

    /// An object, or a range of it.
    pub(crate) async fn open(&self, named: &Named, range: Option<dto::Range>) -> S3Result<Opened> {
        match named.content {
            Content::Upload(..) | Content::Blob(_) => self.open_stream(named, range).await,
            Content::Link(_) | Content::StartedAt(..) | Content::HashState(..) => {
                self.open_small(named, range).await
            }
        }
    }

    async fn open_stream(&self, named: &Named, range: Option<dto::Range>) -> S3Result<Opened> {
        let info = self.stat(named).await?;
        let range = within(range, info.size)?;
        // Who leaves nothing out wants all of it: a stock registry asks for a blob by `bytes=0-`.
        let is_all = range == (0..info.size);
        let bytes = if is_all {
            ByteRange::default()
        } else {
            ByteRange { start: range.start, end: Some(range.end) }
        };
        let context = self.repositories.context(named);
        let stream = self.driver.reader(&context, &named.path, bytes).await.map_err(read_failed)?;
        let body = s3s::Body::http_body_unsync(Body::from_stream(stream)).into();
        Ok(Opened { body, range, length: info.size, modified: info.modified })
    }

    async fn open_small(&self, named: &Named, range: Option<dto::Range>) -> S3Result<Opened> {
        let context = self.repositories.context(named);
        let content = self.driver.get_content(&context, &named.path).await.map_err(read_failed)?;
        self.repositories.learn(&named.path);
        let length = content.len() as u64;
        let range = within(range, length)?;
        let at = |byte: u64| usize::try_from(byte).unwrap_or(content.len());
        let body = s3s::Body::from(content.slice(at(range.start)..at(range.end))).into();
        Ok(Opened { body, range, length, modified: SystemTime::UNIX_EPOCH })
    }

    /// Writes a small object: a link, a note of an upload, a manifest.
    pub(crate) async fn put(
        &self,
        named: &Named,
        body: Option<StreamingBlob>,
        length: Option<i64>,
    ) -> S3Result<()> {
        if let Content::Upload(..) = named.content {
            return Err(refusal(S3ErrorCode::InvalidRequest, "an upload is written by a multipart upload"));
        }
        let content = self.memory.hold(body, length, MAX_CONTENT_LENGTH).await?;
        let context = self.repositories.context(named);
        let put = self.driver.put_content(&context, &named.path, Bytes::clone(&content.bytes)).await;
        put.map_err(write_failed)?;
        self.repositories.learn(&named.path);
        Ok(())
    }

    /// Makes an upload the blob that it is. Done already, as far as its key is still shown: the answer was lost.
    pub(crate) async fn move_upload(&self, from: &Named, to: &Named) -> S3Result<()> {
        let (Content::Upload(..), Content::Blob(_)) = (&from.content, &to.content) else {
            return Err(refusal(
                S3ErrorCode::NotImplemented,
                "only an upload is copied, and only onto its blob",
            ));
        };
        let context = self.repositories.context(from);
        if self.uploads.moved_length(&from.path).is_some() {
            return self.driver.stat(&context, &to.path).await.map(drop).map_err(read_failed);
        }
        let length = self.stat(from).await?.size;
        self.driver.rename(&context, &from.path, &to.path).await.map_err(write_failed)?;
        self.uploads.note_moved(from.path.clone(), length);
        Ok(())
    }

    /// Deletes objects, of which some may not exist. Stops at the first that cannot be: the registry's driver does not look
    /// at what is said of single keys, and would take all for deleted.
    pub(crate) async fn delete(&self, all: &[Named]) -> S3Result<()> {
        for named in all {
            self.delete_one(named, all).await?;
        }
        Ok(())
    }

    async fn delete_one(&self, named: &Named, all: &[Named]) -> S3Result<()> {
        match &named.content {
            Content::Link(_) => self.delete_path(&named.path).await,
            Content::Blob(digest) => self.delete_path(&RegistryPath::Blob(*digest).to_driver_path()).await,
            Content::StartedAt(name, id) => {
                let data = RegistryPath::UploadData(name.clone(), *id).to_driver_path();
                self.uploads.end(&data);
                self.uploads.forget_moved(&data);
                self.delete_path(&RegistryPath::Upload(name.clone(), *id).to_driver_path()).await
            }
            Content::Upload(name, id) | Content::HashState(name, id) => {
                let whole = Content::StartedAt(name.clone(), *id);
                if all.iter().any(|other| other.content == whole) || self.uploads.forget_moved(&named.path) {
                    return Ok(());
                }
                self.refuse_if_there(named).await
            }
        }
    }

    async fn delete_path(&self, path: &DriverPath) -> S3Result<()> {
        match self.driver.delete(&Context::default(), path).await {
            Err(DriverError::PathNotFound { .. }) => Ok(()),
            other => other.map_err(write_failed),
        }
    }

    /// A part of an upload is not deleted alone; what is not there is deleted.
    async fn refuse_if_there(&self, named: &Named) -> S3Result<()> {
        match self.driver.stat(&Context::default(), &named.path).await {
            Err(DriverError::PathNotFound { .. }) => Ok(()),
            Err(error) => Err(write_failed(error)),
            Ok(_) => {
                let message =
                    format!("{}: an upload is deleted with its startedat, not in parts", named.path);
                Err(refusal(S3ErrorCode::AccessDenied, message))
            }
        }
    }

    /// A page of keys.
    pub(crate) async fn list(&self, wanted: &Wanted<'_>) -> S3Result<Page> {
        let depth = depth(wanted.delimiter)?;
        let limit = page_length(wanted.max_keys)?;
        if let Some(page) = self.moved(wanted, limit) {
            return Ok(page);
        }
        let after = match wanted.after.filter(|after| !after.is_empty()) {
            Some(after) => Some(self.keys.marker(after).ok_or_else(|| unknown_marker(after))?),
            None => None,
        };
        let Some(prefix) = self.keys.prefix(wanted.prefix) else { return Ok(Page::default()) };
        let listing = Listing::start((&*self.driver, &self.repositories), &prefix, depth, after)
            .await
            .map_err(read_failed)?;
        listing.page(limit).await.map_err(read_failed)
    }

    /// The one key of an upload that became a blob, if that is what is looked for.
    fn moved(&self, wanted: &Wanted<'_>, limit: usize) -> Option<Page> {
        let named = self.keys.parse(wanted.prefix)?;
        let size = self.uploads.moved_length(&named.path)?;
        let (path, modified) = (named.path.clone(), SystemTime::UNIX_EPOCH);
        let entry = Entry::Object(named, FileInfo { path, size, modified, is_directory: false });
        let is_before = limit > 0 && wanted.after.is_none_or(|after| after < wanted.prefix);
        Some(Page { entries: is_before.then_some(entry).into_iter().collect(), is_truncated: false })
    }
}

/// The bytes that a range names.
pub(crate) fn within(range: Option<dto::Range>, length: u64) -> S3Result<Range<u64>> {
    match range {
        None => Ok(0..length),
        Some(range) => range
            .check(length)
            .map_err(|_| refusal(S3ErrorCode::InvalidRange, format!("the object has {length} bytes"))),
    }
}

/// How many entries of a page are wanted.
pub(crate) fn page_length(wanted: Option<i32>) -> S3Result<usize> {
    match wanted.map(usize::try_from) {
        None => Ok(MAX_KEYS),
        Some(Ok(wanted)) => Ok(wanted.min(MAX_KEYS)),
        Some(Err(_)) => Err(refusal(S3ErrorCode::InvalidArgument, "a page cannot have less than no keys")),
    }
}

fn depth(delimiter: Option<&str>) -> S3Result<Depth> {
    match delimiter {
        None | Some("") => Ok(Depth::All),
        Some("/") => Ok(Depth::One),
        Some(_) => Err(refusal(S3ErrorCode::NotImplemented, "the delimiter here is /")),
    }
}

fn unknown_marker(after: &str) -> S3Error {
    refusal(S3ErrorCode::InvalidArgument, format!("no listing ends with {}", after.escape_debug()))
}
