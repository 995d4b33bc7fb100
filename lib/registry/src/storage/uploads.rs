//! Upload sessions of one repository: bytes that come in parts and become a blob when their digest is right.
//!
//! A session lives in its upload directory, so it survives this process; its id is a capability of 122 random bits.
//! The digest runs along with the bytes; its state is saved *after* the bytes are, so a state that exists is right,
//! and where it is missing the bytes are read again. Hashing of large parts runs on the blocking threads.

use bytes::Bytes;
use futures_util::TryStreamExt;
use futures_util::future::OptionFuture;
use shoal_core::{Algorithm, Digest, Digester};
use shoal_driver::{ByteRange, DriverError, FileWriter, RegistryPath, UploadId, WriteMode};

use super::blobs::Descriptor;
use super::hashing::absorb;
use super::owner::{Owner, Started};
use super::sessions::{Claim, Progress, Refused};
use super::{Repository, found};

/// The upload sessions that one client has in one repository.
pub(crate) struct Uploads {
    repository: Repository,
    owner: Option<Owner>,
}

/// An open session, and its only writer. End it with [`Upload::suspend`], [`Upload::commit`] or [`Upload::cancel`].
pub(crate) struct Upload {
    session: Session,
    writer: Box<dyn FileWriter>,
    /// Has seen exactly the bytes that the writer has; `None` where that cannot be said.
    digester: Option<Digester>,
}

/// A session that nobody else writes to.
struct Session {
    repository: Repository,
    id: UploadId,
    claim: Claim,
}

/// Why an upload does not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    /// This repository has no such session, or it is another client's, which looks the same.
    #[error("upload {0} is not known in this repository")]
    Unknown(UploadId),
    /// Another request writes to it.
    #[error("upload {0} is being written to by another request")]
    Busy(UploadId),
    /// As many sessions are written to as may be: try again later.
    #[error("too many uploads at once")]
    TooMany,
    /// The blob would become larger than is allowed here.
    #[error("blob is larger than the {limit} bytes that are allowed")]
    TooLarge {
        /// In bytes.
        limit: u64,
    },
    /// The bytes are not those that the client named. The session is gone.
    #[error("content does not have digest {0}")]
    DigestMismatch(Digest),
    /// The driver failed.
    #[error(transparent)]
    Driver(#[from] DriverError),
}

impl Uploads {
    pub(super) fn new(repository: Repository, owner: Option<Owner>) -> Self {
        Self { repository, owner }
    }

    /// Starts a session, ready to take bytes whose digest will be of that algorithm.
    pub(crate) async fn create(&self, algorithm: Algorithm) -> Result<Upload, UploadError> {
        let id = UploadId::random();
        let session = self.claim(self.repository.shared.upload_mark.map_or(id, |mark| id.marked(mark)))?;
        let started_at = RegistryPath::UploadStartedAt(self.repository.name.clone(), session.id);
        self.repository.put(started_at, Started::now(self.owner).to_content()).await?;
        let writer = match session.writer(WriteMode::Create).await {
            Ok(writer) => writer,
            Err(error) => {
                // Nobody hears of this session: a purge would find it a week from now.
                let _ = session.remove().await;
                return Err(error.into());
            }
        };
        session.claim.written(0);
        Ok(Upload { session, writer, digester: Some(Digester::new(algorithm)) })
    }

    /// Takes a session up where it stands, for bytes whose digest will be of that algorithm.
    pub(crate) async fn resume(&self, id: UploadId, algorithm: Algorithm) -> Result<Upload, UploadError> {
        self.admit(id).await?;
        let session = self.claim(id)?;
        let writer = session.reopen().await?;
        session.claim.written(writer.size());
        let digester = session.saved_digester(algorithm, writer.size()).await;
        Ok(Upload { session, writer, digester })
    }

    /// How many bytes a session has, while it is written to as well.
    pub(crate) async fn offset(&self, id: UploadId) -> Result<u64, UploadError> {
        self.admit(id).await?;
        match self.repository.shared.sessions.progress(&self.repository.name, id) {
            Some(Progress::Written(bytes)) => return Ok(bytes),
            Some(Progress::Opening) => return Err(UploadError::Busy(id)),
            None => {}
        }
        let session = self.claim(id)?;
        let mut writer = session.reopen().await?;
        let offset = writer.size();
        writer.close().await?;
        Ok(offset)
    }

    /// Whether the session is there, and this client's. Before anything is said of it.
    async fn admit(&self, id: UploadId) -> Result<(), UploadError> {
        let Repository { context, name, .. } = &self.repository;
        let started_at = RegistryPath::UploadStartedAt(name.clone(), id).to_driver_path();
        let started = found(self.repository.driver().get_content(context, &started_at).await)?;
        match started.map(|content| Started::parse(&content)) {
            Some(started) if started.owner == self.owner => Ok(()),
            _ => Err(UploadError::Unknown(id)),
        }
    }

    fn claim(&self, id: UploadId) -> Result<Session, UploadError> {
        let repository = self.repository.clone();
        match repository.shared.sessions.claim(&repository.name, id) {
            Ok(claim) => Ok(Session { repository, id, claim }),
            Err(Refused::Busy) => Err(UploadError::Busy(id)),
            Err(Refused::Full) => Err(UploadError::TooMany),
        }
    }
}

impl Upload {
    pub(crate) fn id(&self) -> UploadId {
        self.session.id
    }

    /// How many bytes the session has.
    pub(crate) fn offset(&self) -> u64 {
        self.writer.size()
    }

    /// Refuses bytes before they are sent: more than a blob may have, or than there is room for.
    pub(crate) async fn expect(&mut self, length: u64) -> Result<(), UploadError> {
        self.check_size(length)?;
        let room = self.session.repository.driver().room().await?;
        if room.is_none_or(|room| length <= room) {
            return Ok(());
        }
        let driver = self.session.repository.driver().name();
        let detail = format!("{length} bytes are to come for upload {}, and {room:?} have room", self.id());
        Err(DriverError::NoSpace { driver, detail }.into())
    }

    fn check_size(&self, more: u64) -> Result<(), UploadError> {
        let limit = self.session.repository.shared.max_blob_size;
        match self.offset().checked_add(more) {
            Some(size) if size <= limit => Ok(()),
            _ => Err(UploadError::TooLarge { limit }),
        }
    }

    /// Appends bytes, in parts of at most [`MAX_WRITE`].
    pub(crate) async fn write(&mut self, mut bytes: Bytes) -> Result<(), UploadError> {
        self.check_size(bytes.len() as u64)?;
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(MAX_WRITE));
            let digester =
                OptionFuture::from(self.digester.take().map(|digester| absorb(digester, part.clone())));
            let (written, digester) = tokio::join!(self.writer.write(part), digester);
            // After a failed write nobody knows what the file holds: the digester stays away.
            written?;
            self.digester = digester;
            self.session.claim.written(self.writer.size());
        }
        Ok(())
    }

    /// Lets go of the session so that a later request can take it up. Gives its size in bytes.
    pub(crate) async fn suspend(mut self) -> Result<u64, UploadError> {
        let offset = self.offset();
        self.writer.close().await?;
        if let Some(digester) = self.digester.filter(|_| offset > 0) {
            let path = self.session.hash_state(digester.algorithm(), offset);
            self.session.repository.put(path, Bytes::from(digester.save())).await?;
        }
        Ok(offset)
    }

    /// Makes the bytes a blob of the repository if they have that digest; otherwise the session is gone.
    pub(crate) async fn commit(mut self, expected: &Digest) -> Result<Descriptor, UploadError> {
        let blob = Descriptor { digest: *expected, size: self.offset() };
        let running = self.digester.take().filter(|digester| digester.algorithm() == expected.algorithm());
        let running = running.map(Digester::finish);
        if running.is_some_and(|found| found != *expected) {
            self.cancel().await?;
            return Err(UploadError::DigestMismatch(*expected));
        }
        self.writer.commit().await?;
        self.writer.close().await?;
        if running.is_none() && self.session.digest_on_disk(expected.algorithm()).await? != *expected {
            self.session.remove().await?;
            return Err(UploadError::DigestMismatch(*expected));
        }
        self.session.publish(&blob).await?;
        Ok(blob)
    }

    /// Ends the session and discards its bytes.
    pub(crate) async fn cancel(mut self) -> Result<(), UploadError> {
        let cancelled = self.writer.cancel().await;
        self.session.remove().await?;
        Ok(cancelled?)
    }
}

impl Session {
    /// The writer of a session that was started before.
    async fn reopen(&self) -> Result<Box<dyn FileWriter>, UploadError> {
        found(self.writer(WriteMode::Append).await)?.ok_or(UploadError::Unknown(self.id))
    }

    async fn writer(&self, mode: WriteMode) -> Result<Box<dyn FileWriter>, DriverError> {
        let Repository { context, name, .. } = &self.repository;
        let path = RegistryPath::UploadData(name.clone(), self.id).to_driver_path();
        self.repository.driver().writer(context, &path, mode).await
    }

    /// The digest's state at exactly `offset`. Whatever is wrong with it: the bytes can be read again.
    async fn saved_digester(&self, algorithm: Algorithm, offset: u64) -> Option<Digester> {
        if offset == 0 {
            return Some(Digester::new(algorithm));
        }
        let Repository { context, .. } = &self.repository;
        let path = self.hash_state(algorithm, offset).to_driver_path();
        let saved = self.repository.driver().get_content(context, &path).await.ok()?;
        Digester::restore(algorithm, &saved).ok()
    }

    fn hash_state(&self, algorithm: Algorithm, offset: u64) -> RegistryPath {
        RegistryPath::UploadHashState(self.repository.name.clone(), self.id, algorithm, offset)
    }

    async fn digest_on_disk(&self, algorithm: Algorithm) -> Result<Digest, UploadError> {
        let path = RegistryPath::UploadData(self.repository.name.clone(), self.id);
        let mut bytes = self.repository.read(path, ByteRange::default()).await?;
        let mut digester = Digester::new(algorithm);
        while let Some(part) = bytes.try_next().await? {
            digester = absorb(digester, part).await;
        }
        Ok(digester.finish())
    }

    /// Moves the bytes to the blobs, lets the repository see them, and ends the session: in this order, so that a
    /// crash leaves a session to retry or an unlinked blob, never a link to nothing.
    async fn publish(&self, blob: &Descriptor) -> Result<(), UploadError> {
        let Repository { shared, context, name } = &self.repository;
        // Garbage collection leaves the blob alone from here on: it may have been there for long, unlinked.
        let _push = shared.barrier.push(name, [blob.digest]).await;
        let from = RegistryPath::UploadData(name.clone(), self.id).to_driver_path();
        let to = RegistryPath::BlobData(blob.digest).to_driver_path();
        match self.repository.driver().rename(context, &from, &to).await {
            // The driver may check as well; what it finds wrong is wrong.
            Err(DriverError::DigestMismatch { .. }) => {
                self.remove().await?;
                return Err(UploadError::DigestMismatch(blob.digest));
            }
            moved => moved?,
        }
        self.repository.blobs().link(blob).await?;
        if let Err(error) = self.remove().await {
            tracing::warn!(repository = %name, upload = %self.id, %error, "finished upload's directory stays behind");
        }
        Ok(())
    }

    async fn remove(&self) -> Result<(), UploadError> {
        let path = RegistryPath::Upload(self.repository.name.clone(), self.id);
        found(self.repository.delete(path).await)?;
        Ok(())
    }
}

/// What a driver is given in one write.
const MAX_WRITE: usize = 1 << 20;
