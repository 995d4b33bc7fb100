//! Blobs that other origins have, streamed through: nothing is kept, and no more than what is on its way is in memory.
//!
//! What comes was proved by the origin that keeps it, before it was acknowledged. Where one breaks off, the next goes on.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use shoal_control::ControlError;
use shoal_control::cluster::message::BlobQuery;
use shoal_core::{Digest, SignedMetainfo};
use shoal_driver::{ByteStream, DriverError, TransferError};

use super::Cluster;

impl Cluster {
    /// The metainfo of a blob that this origin does not have.
    pub(crate) async fn find_metainfo(&self, digest: &Digest) -> Result<SignedMetainfo, TransferError> {
        let mut asked = 1;
        for place in self.others_for(digest) {
            match self.noted(place, self.client.metainfo(place, digest).await) {
                Ok(signed) => return Ok(signed),
                Err(ControlError::NotFound { .. }) => asked += 1,
                Err(error) => skipped(&error),
            }
        }
        Err(self.not_found(asked))
    }

    /// Nobody of those who were asked has it.
    pub(super) fn not_found(&self, asked: usize) -> TransferError {
        if self.is_everybody_asked(asked) {
            return TransferError::NotFound;
        }
        let away = self.rendezvous.len() - asked;
        TransferError::Unavailable(format!("{away} origins that may have it do not answer"))
    }

    /// The bytes of a blob that this origin does not have.
    pub(super) async fn open_remote(self: Arc<Self>, query: BlobQuery) -> Result<ByteStream, TransferError> {
        let mut places = self.others_for(&query.digest);
        places.reverse();
        let mut remote = Remote { cluster: self, query, left: places, asked: 1, stream: None };
        let first = remote.next().await?;
        let rest = stream::try_unfold(remote, |mut remote| async move {
            match remote.next().await {
                Ok(bytes) => Ok(bytes.map(|bytes| (bytes, remote))),
                Err(error) => Err(broken(&error)),
            }
        });
        let Some(first) = first else { return Ok(stream::empty().boxed()) };
        Ok(stream::once(async { Ok(first) }).chain(rest).boxed())
    }
}

/// A blob on its way, and who may still be asked for what is left of it.
struct Remote {
    cluster: Arc<Cluster>,
    query: BlobQuery,
    left: Vec<usize>,
    asked: usize,
    stream: Option<(usize, BoxStream<'static, Result<Bytes, ControlError>>)>,
}

impl Remote {
    async fn next(&mut self) -> Result<Option<Bytes>, TransferError> {
        loop {
            let Some((place, stream)) = &mut self.stream else {
                self.open_next().await?;
                continue;
            };
            let place = *place;
            match self.cluster.noted(place, stream.try_next().await) {
                Ok(Some(bytes)) => {
                    self.query.start += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Ok(None) => return Ok(None),
                Err(_) => self.stream = None,
            }
        }
    }

    async fn open_next(&mut self) -> Result<(), TransferError> {
        let Some(place) = self.left.pop() else { return Err(self.cluster.not_found(self.asked)) };
        match self.cluster.noted(place, self.cluster.client.blob(place, &self.query).await) {
            Ok(stream) => self.stream = Some((place, stream.boxed())),
            Err(ControlError::NotFound { .. }) => self.asked += 1,
            Err(error) => skipped(&error),
        }
        Ok(())
    }
}

fn skipped(error: &ControlError) {
    tracing::debug!(error = error as &dyn std::error::Error, "asking the next origin");
}

fn broken(error: &TransferError) -> DriverError {
    DriverError::Unavailable { driver: "origin-cluster", detail: error.to_string() }
}
