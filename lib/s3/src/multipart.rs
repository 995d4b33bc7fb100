//! What a multipart upload does to the driver: a writer's session, or a rename.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use s3s::{S3ErrorCode, S3Result};
use shoal_driver::{ByteRange, ByteStream, FileWriter, WriteMode};

use crate::error::{no_space, read_failed, refusal, write_failed};
use crate::keys::{Content, Named};
use crate::objects::Bucket;
use crate::parts::Held;
use crate::uploads::{
    Arrival, Part, Piece, Session, Upload, arrival, confirm, no_such_upload, note, whole_of,
};

impl Bucket {
    /// Begins an upload. What the key has already stays as it is until the upload is complete.
    pub(crate) async fn begin_upload(&self, named: Named) -> S3Result<Arc<Upload>> {
        let session = match named.content {
            Content::Upload(..) => {
                let mut writer = self.writer(&named, WriteMode::Create).await?;
                writer.close().await.map_err(write_failed)?;
                self.uploads.forget_moved(&named.path);
                Session::Append(Vec::new())
            }
            Content::Blob(_) => Session::Move(Vec::new()),
            Content::Link(_) | Content::StartedAt(..) | Content::HashState(..) => {
                return Err(refusal(S3ErrorCode::InvalidRequest, "small objects are put whole"));
            }
        };
        Ok(self.uploads.begin(named, session))
    }

    /// Refuses a part before it is sent, if there is no room for it: once begun, it could not be taken back.
    pub(crate) async fn expect(&self, length: Option<i64>) -> S3Result<()> {
        let length = length.and_then(|length| u64::try_from(length).ok()).unwrap_or(0);
        match self.driver.room().await.map_err(write_failed)? {
            Some(room) if length > room => Err(no_space()),
            _ => Ok(()),
        }
    }

    /// Appends a part.
    pub(crate) async fn append(&self, upload: &Upload, number: i32, held: &Held) -> S3Result<Part> {
        let bytes = Bytes::clone(&held.bytes);
        let tag = tokio::task::spawn_blocking(move || blake3::hash(&bytes).to_hex().to_string()).await;
        let tag = tag.map_err(|error| refusal(S3ErrorCode::InternalError, error.to_string()))?;
        let part = Part { number, length: held.bytes.len() as u64, tag };
        let bytes = stream::iter([Ok(Bytes::clone(&held.bytes))]).boxed();
        let mut session = upload.session.lock().await;
        self.append_to(&mut session, upload, part, bytes).await
    }

    /// Appends a range of what another object has, or notes it as a piece of a blob.
    pub(crate) async fn append_copy(
        &self,
        upload: &Upload,
        number: i32,
        from: &Named,
        range: Option<s3s::dto::Range>,
    ) -> S3Result<Part> {
        let range = crate::objects::within(range, self.stat(from).await?.size)?;
        let length = range.end - range.start;
        let tag = blake3::hash(format!("{} {range:?}", from.path).as_bytes()).to_hex().to_string();
        let part = Part { number, length, tag };
        let mut session = upload.session.lock().await;
        if let Session::Move(pieces) = &mut *session {
            let Content::Upload(..) = from.content else {
                return Err(refusal(S3ErrorCode::NotImplemented, "a blob is the copy of an upload"));
            };
            let piece = Piece { part: part.clone(), from: from.path.clone(), start: range.start };
            return note(pieces, piece).map(|()| part);
        }
        let bytes = ByteRange { start: range.start, end: Some(range.end) };
        let context = self.repositories.context(from);
        let bytes = self.driver.reader(&context, &from.path, bytes).await.map_err(read_failed)?;
        self.append_to(&mut session, upload, part, bytes).await
    }

    /// Appends bytes as that part. If it fails half way, or is given up, the session is over: what was
    /// written cannot be taken back.
    async fn append_to(
        &self,
        session: &mut Session,
        upload: &Upload,
        part: Part,
        mut bytes: ByteStream,
    ) -> S3Result<Part> {
        let parts = match session {
            Session::Append(parts) => parts,
            Session::Move(_) => {
                return Err(refusal(S3ErrorCode::NotImplemented, "a blob is the copy of an upload"));
            }
            Session::Over => return Err(no_such_upload(&upload.named.path)),
        };
        if arrival(parts, &part)? == Arrival::Again {
            return Ok(part);
        }
        let mut parts = std::mem::take(parts);
        *session = Session::Over;
        let before: u64 = parts.iter().map(|part| part.length).sum();
        let mut writer = self.resume(upload, before).await?;
        while let Some(bytes) = bytes.try_next().await.map_err(read_failed)? {
            writer.write(bytes).await.map_err(write_failed)?;
        }
        let written = writer.size();
        writer.close().await.map_err(write_failed)?;
        if written != before + part.length {
            return Err(refusal(
                S3ErrorCode::InternalError,
                "the part has not the length that it should have",
            ));
        }
        parts.push(part.clone());
        *session = Session::Append(parts);
        Ok(part)
    }

    /// Makes of the parts what they were sent for.
    pub(crate) async fn complete(&self, upload: &Upload, named: &[(i32, String)]) -> S3Result<()> {
        let mut session = upload.session.lock().await;
        if let Session::Over = *session {
            return Err(no_such_upload(&upload.named.path));
        }
        confirm(&session.parts(), named)?;
        match std::mem::replace(&mut *session, Session::Over) {
            Session::Append(parts) => self.commit(upload, &parts).await?,
            Session::Move(pieces) => self.complete_move(upload, pieces).await?,
            Session::Over => return Err(no_such_upload(&upload.named.path)),
        }
        self.uploads.remove(upload.id);
        Ok(())
    }

    async fn commit(&self, upload: &Upload, parts: &[Part]) -> S3Result<()> {
        let mut writer = self.resume(upload, parts.iter().map(|part| part.length).sum()).await?;
        writer.commit().await.map_err(write_failed)?;
        writer.close().await.map_err(write_failed)
    }

    async fn complete_move(&self, upload: &Upload, pieces: Vec<Piece>) -> S3Result<()> {
        let (from, length) = whole_of(pieces)?;
        let from = Named::of(&from).ok_or_else(|| no_such_upload(&from))?;
        let there = self.stat(&from).await?.size;
        if there != length {
            let message = format!("the parts have {length} bytes, and {} has {there}", from.path);
            return Err(refusal(S3ErrorCode::InvalidPart, message));
        }
        self.move_upload(&from, &upload.named).await
    }

    /// Discards the parts.
    pub(crate) async fn abort(&self, upload: &Upload) -> S3Result<()> {
        let mut session = upload.session.lock().await;
        self.uploads.remove(upload.id);
        if let Session::Append(_) = std::mem::replace(&mut *session, Session::Over) {
            let mut writer = self.writer(&upload.named, WriteMode::Append).await?;
            writer.cancel().await.map_err(write_failed)?;
            writer.close().await.map_err(write_failed)?;
        }
        Ok(())
    }

    /// Goes on behind what the parts wrote, and makes sure that nobody else wrote there.
    async fn resume(&self, upload: &Upload, expected: u64) -> S3Result<Box<dyn FileWriter>> {
        let writer = self.writer(&upload.named, WriteMode::Append).await?;
        if writer.size() == expected {
            return Ok(writer);
        }
        let message = format!("{} was written by somebody else", upload.named.path);
        Err(refusal(S3ErrorCode::NoSuchUpload, message))
    }

    async fn writer(&self, named: &Named, mode: WriteMode) -> S3Result<Box<dyn FileWriter>> {
        self.driver.writer(&self.repositories.context(named), &named.path, mode).await.map_err(write_failed)
    }
}
