//! Blobs on their way up: mounted where the registry has them, else sent in parts, and taken up again where the session is.
//!
//! A blob of one part is a single PUT, a longer one goes in PATCHes; either way the registry proves the digest in the end. After a
//! break the session says how far it came (distribution-spec, "Pushing blobs").

mod attempts;
mod body;
mod session;

use std::io;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use shoal_core::{Digest, RepositoryName};

pub use session::Session;

use crate::error::UpstreamError;
use crate::registry::Registry;
use attempts::Attempts;
use body::Reader;
use session::Place;

/// Bytes, a chunk at a time.
pub type ByteStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// What is uploaded: can be read again, from anywhere.
#[async_trait]
pub trait Content: Send + Sync {
    /// How many bytes there are.
    fn length(&self) -> u64;
    /// The bytes from `offset` on.
    async fn open(&self, offset: u64) -> io::Result<ByteStream>;
}

/// Who is told how an upload goes.
pub trait Watch: Send + Sync {
    /// So many bytes of the blob are at the registry, or on their way there. May go back.
    fn at(&self, bytes: u64);
    /// This session takes the blob, until the upload has ended: whoever keeps it can go on in another process.
    fn session(&self, session: &Session);
}

/// How an upload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uploaded {
    /// The registry had it in the other repository.
    Mounted,
    /// Its bytes were sent.
    Sent,
}

/// One blob on its way.
struct Upload<'a> {
    registry: &'a Registry,
    repository: &'a RepositoryName,
    digest: &'a Digest,
    watch: &'a dyn Watch,
    reader: Reader<'a>,
    length: u64,
}

impl Registry {
    /// Uploads a blob. `from`: another repository here that may have it. `resume`: a session that an earlier upload began.
    pub async fn upload(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        content: &dyn Content,
        from: Option<&RepositoryName>,
        resume: Option<Session>,
        watch: &dyn Watch,
    ) -> Result<Uploaded, UpstreamError> {
        let reader = Reader::new(content);
        let upload = Upload { registry: self, repository, digest, watch, reader, length: content.length() };
        upload.run(from, resume).await
    }
}

impl Upload<'_> {
    async fn run(
        mut self,
        from: Option<&RepositoryName>,
        resume: Option<Session>,
    ) -> Result<Uploaded, UpstreamError> {
        let resumed = match resume {
            Some(session) => self.registry.session_status(self.repository, session).await?,
            None => None,
        };
        let mut place = match resumed.filter(|place| place.offset <= self.length) {
            Some(place) => place,
            None => match self.registry.begin(self.repository, self.digest, from).await? {
                Some(place) => place,
                None => return Ok(Uploaded::Mounted),
            },
        };
        let mut attempts = Attempts::from(place.offset);
        loop {
            self.watch.session(&place.session);
            self.watch.at(place.offset);
            match self.step(&mut place).await {
                Ok(true) => return Ok(Uploaded::Sent),
                Ok(false) => {}
                Err(error) => {
                    let Some(wait) = attempts.after(&error, rand::random()) else { return Err(error) };
                    tracing::debug!(digest = %self.digest, %error, ?wait, "an upload is taken up again");
                    tokio::time::sleep(wait).await;
                    let session = (!attempts.leaves_session()).then_some(place.session);
                    match self.recover(session).await? {
                        Some(found) => place = found,
                        None => return Ok(Uploaded::Sent),
                    }
                }
            }
            attempts.reached(place.offset);
        }
    }

    /// Where the upload stands after a break, in that session or a new one; `None` where the registry has the blob by now.
    async fn recover(&mut self, session: Option<Session>) -> Result<Option<Place>, UpstreamError> {
        let found = match session {
            Some(session) => self.registry.session_status(self.repository, session).await?,
            None => None,
        };
        match found {
            Some(place) if place.offset <= self.length => return Ok(Some(place)),
            Some(_) => {
                return Err(UpstreamError::malformed(
                    &self.what(),
                    "the session has more bytes than the blob",
                ));
            }
            None => {}
        }
        if self.registry.find_blob(self.repository, self.digest).await?.is_some() {
            return Ok(None);
        }
        self.registry.begin(self.repository, self.digest, None).await
    }

    /// Sends the next part, or ends the upload: whether it is done.
    async fn step(&mut self, place: &mut Place) -> Result<bool, UpstreamError> {
        let left = self.length - place.offset;
        let part = PART.max(place.min_part);
        let (repository, digest) = (self.repository, self.digest);
        if left <= part {
            let target = self.registry.commit_url(place, digest)?;
            let range = (place.offset > 0 && left > 0).then_some(place.offset);
            let call = self.registry.put_part(repository, target, range, left)?;
            self.reader.send(self.registry, call, (place.offset, left), self.watch, &[201, 204]).await?;
            return Ok(true);
        }
        let call = self.registry.patch_part(repository, place, part)?;
        let extent = (place.offset, part);
        let response = self.reader.send(self.registry, call, extent, self.watch, &[202, 201, 204]).await?;
        match place.advance(self.registry, &response, part)? {
            0 => Err(UpstreamError::malformed(
                &self.what(),
                "the registry took a part, and says that it has none of it",
            )),
            _ => Ok(false),
        }
    }

    fn what(&self) -> String {
        format!("upload of {} to {}/{}", self.digest, self.registry.host(), self.repository)
    }
}

/// What one request carries. Registries that keep a part only when all of it came lose that much at a break; more requests
/// would cost a round trip each.
const PART: u64 = 32 << 20;
