//! What no origin holds: one origin fetches it from behind the cluster, and all others have it from that one as it comes.
//!
//! That is the first in the blob's order that is well. Whoever goes away is followed by the next, from the byte that was
//! reached; what an origin says of its sources counts, and is not asked again elsewhere. Origins that disagree for a moment
//! about who is well may fetch a blob twice.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use shoal_control::cluster::message::{BlobName, RefillQuery};
use shoal_control::message::{HashesQuery, HashesReply};
use shoal_control::{ControlError, Failure};
use shoal_core::{Digest, RepositoryName};
use shoal_driver::{ByteRange, ByteStream, DriverError, TransferError};

use super::Cluster;
use crate::transferer::reader;

impl Cluster {
    /// How long the blob is by what stands behind the cluster, where nobody holds it, as `error` says.
    pub(super) async fn or_stat_behind(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
        error: TransferError,
    ) -> Result<u64, TransferError> {
        if !self.refill.has_sources() || matches!(error, TransferError::Failed(_)) {
            return Err(error);
        }
        let name = BlobName { repository: repository.cloned(), digest: *digest };
        for place in self.fetchers(digest) {
            match self.stat_at(place, &name).await {
                Ok(length) => return Ok(length),
                Err(At::Absent) => {}
                Err(At::Away(error)) => skipped(&error),
                Err(At::Says(error)) => return Err(error),
            }
        }
        Err(error)
    }

    /// The bytes from behind the cluster, where nobody holds the blob, as `error` says.
    pub(super) async fn or_open_behind(
        self: Arc<Self>,
        query: RefillQuery,
        error: TransferError,
    ) -> Result<ByteStream, TransferError> {
        if !self.refill.has_sources() || matches!(error, TransferError::Failed(_)) {
            return Err(error);
        }
        let mut left = self.fetchers(&query.digest);
        left.reverse();
        let mut behind =
            Behind { cluster: self, query, left, error: Some(error), stream: None, asked_again: None };
        let Some(first) = behind.next().await? else { return Ok(stream::empty().boxed()) };
        let rest = stream::try_unfold(behind, |mut behind| async move {
            match behind.next().await {
                Ok(bytes) => Ok(bytes.map(|bytes| (bytes, behind))),
                Err(error) => Err(broken(&error)),
            }
        });
        Ok(stream::once(async { Ok(first) }).chain(rest).boxed())
    }

    /// What is known of a blob that comes from behind the cluster: it is fetched if nobody is at it yet. `error` says that
    /// nobody holds it.
    pub(crate) async fn hashes_behind(
        &self,
        query: &HashesQuery,
        error: TransferError,
    ) -> Result<HashesReply, TransferError> {
        if !self.refill.has_sources() || matches!(error, TransferError::Failed(_)) {
            return Err(error);
        }
        for place in self.fetchers(&query.digest) {
            match self.hashes_at(place, query).await {
                Ok(reply) => return Ok(reply),
                Err(At::Absent) => {}
                Err(At::Away(error)) => skipped(&error),
                Err(At::Says(error)) => return Err(error),
            }
        }
        Err(error)
    }

    async fn hashes_at(&self, place: usize, query: &HashesQuery) -> Result<HashesReply, At> {
        if place == self.own {
            return self.refill.hashes(query).await.map_err(|error| At::said(error.into()));
        }
        let reply = tokio::select! {
            reply = self.client.refill_hashes(place, query) => reply,
            () = self.members.went_away(place) => return Err(At::Away(None)),
        };
        reply.map_err(|error| self.judge(place, error))
    }

    /// Sees to it that a blob that came from behind the cluster is where it belongs. Nobody waits for that; what fails here is
    /// for repair.
    pub(super) fn give_what_lands(self: &Arc<Self>) {
        let cluster = Arc::downgrade(self);
        self.refill.on_landed(Box::new(move |digest| {
            let cluster = cluster.upgrade();
            async move {
                if let Some(cluster) = cluster
                    && let Err(error) = cluster.replicate(&digest).await
                {
                    tracing::info!(%digest, %error, "a blob from behind the cluster is copied later");
                }
            }
            .boxed()
        }));
    }

    /// Who is to fetch a blob, and who instead where that one is away.
    pub(super) fn fetchers(&self, digest: &Digest) -> Vec<usize> {
        let well = self.members.well();
        self.rendezvous.order(digest).into_iter().filter(|&place| well.contains(place)).collect()
    }

    async fn stat_at(&self, place: usize, name: &BlobName) -> Result<u64, At> {
        if place == self.own {
            let length = self.refill.stat(name.repository.as_ref(), &name.digest).await;
            return length.map_err(|error| At::said(error.into()));
        }
        let length = tokio::select! {
            length = self.client.refill_length(place, name) => length,
            () = self.members.went_away(place) => return Err(At::Away(None)),
        };
        length.map_err(|error| self.judge(place, error))
    }

    async fn open_at(&self, place: usize, query: &RefillQuery) -> Result<Opened, At> {
        if place == self.own {
            let entry = self.refill.open(query.repository.as_ref(), &query.digest).await;
            let entry = entry.map_err(|error| At::said(error.into()))?;
            let range = ByteRange { start: query.start, end: query.end };
            let bytes = reader(&entry, range).into_stream();
            return Ok(bytes
                .map_err(|error| At::Says(TransferError::Unavailable(error.to_string())))
                .boxed());
        }
        let opened = tokio::select! {
            opened = self.client.refill(place, query) => opened,
            () = self.members.went_away(place) => return Err(At::Away(None)),
        };
        let bytes = opened.map_err(|error| self.judge(place, error))?;
        // What its sources say is told before the first byte: why it ends later is to be asked for.
        Ok(bytes.map_err(|error| At::Away(Some(error))).boxed())
    }

    /// What an origin's answer means: that its sources do not answer says nothing of its own health.
    pub(super) fn judge(&self, place: usize, error: ControlError) -> At {
        match error {
            ControlError::NotFound { .. } => At::Absent,
            ControlError::Unavailable { source: Failure::Answer { reason, .. }, .. } => {
                At::Says(TransferError::Unavailable(reason))
            }
            error => {
                if matches!(error, ControlError::Unavailable { .. }) {
                    self.members.failed(place);
                }
                At::Away(Some(error))
            }
        }
    }
}

type Opened = BoxStream<'static, Result<Bytes, At>>;

/// Why an origin gives nothing.
pub(super) enum At {
    /// Its sources do not have the blob. Those of another may, though all are meant to have the same.
    Absent,
    /// It does not answer, or broke off.
    Away(Option<ControlError>),
    /// Its sources fail: those of the next are the same.
    Says(TransferError),
}

impl At {
    fn said(error: TransferError) -> Self {
        match error {
            TransferError::NotFound => Self::Absent,
            error => Self::Says(error),
        }
    }
}

/// A blob on its way, and who may still be asked for what is left of it.
struct Behind {
    cluster: Arc<Cluster>,
    query: RefillQuery,
    /// The next last.
    left: Vec<usize>,
    /// What is said if nobody has it.
    error: Option<TransferError>,
    stream: Option<(usize, Opened)>,
    /// Who broke off last, and was asked once more.
    asked_again: Option<usize>,
}

impl Behind {
    async fn next(&mut self) -> Result<Option<Bytes>, TransferError> {
        loop {
            let Some((place, stream)) = &mut self.stream else {
                self.open_next().await?;
                continue;
            };
            let place = *place;
            let next = tokio::select! {
                next = stream.try_next() => next,
                () = self.cluster.members.went_away(place) => Err(At::Away(None)),
            };
            match next {
                Ok(Some(bytes)) => {
                    self.query.start += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Ok(None) => return Ok(None),
                Err(At::Says(error)) => return Err(error),
                Err(At::Away(error)) => {
                    skipped(&error);
                    self.broke_off(place);
                }
                Err(At::Absent) => self.broke_off(place),
            }
        }
    }

    /// Whoever broke off is asked once more: if it is there, it says what its sources did, and that ends it.
    fn broke_off(&mut self, place: usize) {
        self.stream = None;
        if self.asked_again.replace(place) != Some(place) {
            self.left.push(place);
        }
    }

    async fn open_next(&mut self) -> Result<(), TransferError> {
        let Some(place) = self.left.pop() else {
            let nobody = || TransferError::Unavailable("no origin is left that could fetch it".to_owned());
            return Err(self.error.take().unwrap_or_else(nobody));
        };
        match self.cluster.open_at(place, &self.query).await {
            Ok(stream) => {
                // Whoever had it once has said enough: what is told from here on is that it broke off.
                self.error = None;
                self.stream = Some((place, stream));
            }
            Err(At::Absent) => {}
            Err(At::Away(error)) => skipped(&error),
            Err(At::Says(error)) => return Err(error),
        }
        Ok(())
    }
}

pub(super) fn skipped(error: &Option<ControlError>) {
    let error = error.as_ref().map(|error| error as &dyn std::error::Error);
    tracing::debug!(error, "asking the next origin to fetch it");
}

fn broken(error: &TransferError) -> DriverError {
    DriverError::Unavailable { driver: "origin-cluster", detail: error.to_string() }
}
