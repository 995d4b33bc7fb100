//! A blob that its origin still receives: the hashes of its pieces are learned from the origins as they come, until one of
//! them signs all.
//!
//! What an origin says over its proved connection is believed of pieces, which nobody else can say; that they are the blob
//! says a signature alone, and until then nobody reads to an end.

use std::time::Duration;

use shoal_control::message::{HashesQuery, Known};
use shoal_control::{ControlError, OriginClient};
use shoal_core::{PieceIndex, RepositoryName, SignedMetainfo, causes};
use shoal_identity::Identity;
use shoal_store::Partial;
use tokio::time::{Instant, sleep_until};

/// Asks the origins.
#[derive(Clone)]
pub(crate) struct Follower {
    origins: OriginClient,
    identity: Identity,
}

/// Why no more is to be learned.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FollowError {
    /// The origins have it no more: it was not what it should be.
    #[error("the origins do not receive the blob any more")]
    Gone,
    /// What they say contradicts what they said: it began anew there.
    #[error("the origins say something else of the blob's pieces than before")]
    Conflict,
    /// Nobody who could say answers.
    #[error("no origin says how the blob goes on: {0}")]
    Unavailable(String),
}

impl FollowError {
    /// Whether the pieces that came are worth nothing.
    pub(crate) fn is_of_the_blob(&self) -> bool {
        matches!(self, Self::Gone | Self::Conflict)
    }
}

impl Follower {
    /// How often the origins are asked at most: what came to them meanwhile is told at once. 500 ms: a thousand agents make two
    /// thousand small requests a second, as long as a blob arrives.
    const INTERVAL: Duration = Duration::from_millis(500);
    /// How long they may be silent: they have pauses of their own before they give up.
    const PATIENCE: Duration = Duration::from_secs(60);

    pub(crate) fn new(origins: OriginClient, identity: Identity) -> Self {
        Self { origins, identity }
    }

    /// Learns until all hashes are signed; at once where they are.
    pub(crate) async fn follow(
        &self,
        repository: Option<&RepositoryName>,
        partial: &Partial,
    ) -> Result<(), FollowError> {
        let digest = *partial.metainfo().digest();
        let mut heard = Instant::now();
        while partial.signed().is_none() {
            let (asked, known) = (Instant::now(), partial.known());
            let query = HashesQuery { digest, repository: repository.cloned(), known };
            match self.ask(&query, partial).await {
                Ok(()) => heard = Instant::now(),
                Err(FollowError::Unavailable(reason)) if heard.elapsed() < Self::PATIENCE => {
                    tracing::debug!(%digest, reason, "asking for hashes again");
                }
                Err(error) => return Err(error),
            }
            // Where only the proof is missing the origin says so the moment it has it.
            let is_about_to_end = partial.known() == partial.metainfo().geometry().piece_count();
            let is_news = partial.known() > known;
            if !(is_about_to_end && is_news) {
                sleep_until(asked + Self::INTERVAL).await;
            }
        }
        Ok(())
    }

    async fn ask(&self, query: &HashesQuery, partial: &Partial) -> Result<(), FollowError> {
        let reply = match self.origins.hashes(query).await {
            Ok(reply) => reply,
            Err(ControlError::NotFound { .. }) => return Err(FollowError::Gone),
            Err(error) => return Err(FollowError::Unavailable(causes(&error))),
        };
        if reply.geometry != *partial.metainfo().geometry() {
            return Err(FollowError::Conflict);
        }
        match reply.read().map_err(|error| FollowError::Unavailable(causes(&error)))? {
            Known::Hashes(hashes) => {
                partial.learn(PieceIndex(query.known), &hashes).map_err(|_| FollowError::Conflict)
            }
            Known::Whole(signed) => self.vouch(&signed, partial),
        }
    }

    fn vouch(&self, signed: &SignedMetainfo, partial: &Partial) -> Result<(), FollowError> {
        self.identity.verify(signed).map_err(|error| FollowError::Unavailable(causes(&error)))?;
        partial.vouch(signed).map_err(|_| FollowError::Conflict)
    }
}
