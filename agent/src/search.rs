//! Whom to ask for a blob: the trackers first, and the overlay as well when they keep silent.
//!
//! What a tracker answers is final, "nobody has it" included: the origins stand behind it. The overlay only ever adds what
//! some node has.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::IntCounter;
use shoal_control::overlay::{FoundByOverlay, OverlayHandle};
use shoal_control::{ControlError, Found, Seen, TrackerClient};
use shoal_core::{Digest, PeerAddress, RepositoryName, SignedMetainfo, causes};
use shoal_identity::Identity;
use tokio::time::timeout;

use crate::access::Grant;
use crate::fetches::FetchError;

/// Asks for blobs.
pub(crate) struct Search {
    pub(crate) tracker: TrackerClient,
    pub(crate) identity: Identity,
    /// Counts metainfo that was not believed.
    pub(crate) refused: IntCounter,
    pub(crate) overlay: Option<Fallback>,
}

/// The overlay, and how long the trackers are waited for before it is asked.
pub(crate) struct Fallback {
    pub(crate) overlay: OverlayHandle,
    pub(crate) patience: Duration,
}

/// What a found blob is like, its signature checked. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Verified {
    found: Arc<Found>,
    grant: Grant,
}

/// What the trackers said.
enum Told {
    /// That counts, whatever others may say.
    Outcome(Result<Verified, FetchError>),
    /// Nothing that could be used.
    Nothing(FetchError),
}

impl Verified {
    /// The blob's length in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.found.metainfo.metainfo.length()
    }

    /// What an origin signed.
    pub(crate) fn metainfo(&self) -> &SignedMetainfo {
        &self.found.metainfo
    }

    /// Whom to ask for pieces.
    pub(crate) fn peers(&self) -> Vec<PeerAddress> {
        self.found.peers.clone()
    }

    /// How much the tracker knew that named them.
    pub(crate) fn seen(&self) -> Option<Seen> {
        self.found.seen
    }

    /// On whose word the repository that was asked for may see it.
    pub(crate) fn grant(&self) -> Grant {
        self.grant
    }
}

impl Search {
    /// Looks for a blob that the repository must be allowed to see (`None`: any repository).
    pub(crate) async fn find(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
    ) -> Result<Verified, FetchError> {
        let mut asking = pin!(self.tracker.find(repository, digest));
        let Some(Fallback { overlay, patience }) = &self.overlay else {
            return self.judge(digest, asking.await).outcome();
        };
        let mut finding = pin!(overlay.find(repository, digest));
        if let Ok(told) = timeout(*patience, &mut asking).await {
            return match self.judge(digest, told) {
                Told::Outcome(outcome) => outcome,
                Told::Nothing(error) => or_else(finding.await, error),
            };
        }
        tracing::debug!(%digest, "no tracker answers, the overlay is asked");
        tokio::select! {
            told = &mut asking => match self.judge(digest, told) {
                Told::Outcome(outcome) => outcome,
                Told::Nothing(error) => or_else(finding.await, error),
            },
            found = &mut finding => match found {
                Ok(found) => Ok(by_overlay(found)),
                // The overlay has nothing, and the trackers may yet.
                Err(_) => self.judge(digest, asking.await).outcome(),
            },
        }
    }

    /// The same, answered when there is somebody of whom the answer did not know that said `seen`, or after `wait`. Where no
    /// tracker can say, whoever is known is named at once.
    pub(crate) async fn find_news(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
        seen: Seen,
        wait: Duration,
    ) -> Result<Verified, FetchError> {
        let told = self.tracker.find_news(repository, digest, seen, wait).await;
        match self.judge(digest, told) {
            Told::Outcome(outcome) => outcome,
            Told::Nothing(_) => self.find(repository, digest).await,
        }
    }

    fn judge(&self, digest: &Digest, told: Result<Found, ControlError>) -> Told {
        match told {
            Ok(found) => match self.verify(digest, found) {
                Ok(verified) => Told::Outcome(Ok(verified)),
                Err(error) => Told::Nothing(error),
            },
            Err(ControlError::NotFound { .. }) => Told::Outcome(Err(FetchError::NotFound)),
            Err(error) => {
                let unavailable = FetchError::Unavailable(causes(&error).into());
                // Who is refused is not to find another way.
                let is_final = matches!(error, ControlError::Denied { .. });
                if is_final { Told::Outcome(Err(unavailable)) } else { Told::Nothing(unavailable) }
            }
        }
    }

    fn verify(&self, digest: &Digest, found: Found) -> Result<Verified, FetchError> {
        if found.metainfo.metainfo.digest() != digest {
            return Err(FetchError::Unavailable("the tracker answered with another blob's metainfo".into()));
        }
        match self.identity.verify(&found.metainfo) {
            Ok(_) => Ok(Verified { found: Arc::new(found), grant: Grant::Given }),
            Err(error) => {
                self.refused.inc();
                let (bearer, cause) =
                    (found.bearer.map(|id| id.to_string()), &error as &dyn std::error::Error);
                tracing::warn!(%digest, bearer, error = cause, "metainfo refused: no origin of this cluster signed it");
                Err(FetchError::Unavailable(format!("metainfo refused: {error}").into()))
            }
        }
    }
}

impl Told {
    fn outcome(self) -> Result<Verified, FetchError> {
        match self {
            Self::Outcome(outcome) => outcome,
            Self::Nothing(error) => Err(error),
        }
    }
}

/// What the overlay found, or why the trackers were of no use: that is what an operator can mend.
fn or_else(found: Result<FoundByOverlay, ControlError>, error: FetchError) -> Result<Verified, FetchError> {
    found.map(by_overlay).map_err(|_| error)
}

fn by_overlay(FoundByOverlay { found, lent }: FoundByOverlay) -> Verified {
    let grant = lent.map_or(Grant::Given, |lent| Grant::Lent(Instant::now() + lent));
    Verified { found: Arc::new(found), grant }
}
