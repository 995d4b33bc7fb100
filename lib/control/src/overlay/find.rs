//! A search for a blob by the overlay, from the question to something that can be fetched.
//!
//! Holders are asked as they are found. The first that has the blob is asked for its metainfo; one whose metainfo no origin
//! signed is kept out, and the next is asked.

use std::time::Duration;

use shoal_core::{Digest, PeerAddress, PeerId, RepositoryName, Role, SignedMetainfo};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::error::{ControlError, Failure};
use crate::overlay::handle::{Command, OverlayHandle};
use crate::overlay::queries::MAX_ASKED;
use crate::overlay::question::{Held, Question};
use crate::tracker::Found;

/// What the overlay knows of a blob.
#[derive(Clone, Debug)]
pub struct FoundByOverlay {
    /// Its metainfo, **verified**, and holders of it.
    pub found: Found,
    /// For how long the repository may see the blob on the holders' word; `None`: an origin itself said so.
    pub lent: Option<Duration>,
}

/// How long a search may take in all: a manifest is answered within 4.5 s, whatever becomes of it.
const FIND_TIMEOUT: Duration = Duration::from_secs(3);
/// How long more holders are waited for once there is something to begin with: those that answer are a few milliseconds apart.
const MORE_HOLDERS: Duration = Duration::from_millis(50);
/// How long one holder may take to bring the metainfo before another is asked: 2 MiB at most, between hosts of one cluster.
const METAINFO_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest that a repository sees a blob on the word of other agents. An hour, as trackers go on without origins.
pub const MAX_LENT: Duration = Duration::from_secs(3600);

/// What a search has found so far.
#[derive(Default)]
struct Findings {
    holders: Vec<(PeerAddress, Duration)>,
    /// Holders that were not asked for the metainfo yet.
    unasked: Vec<PeerId>,
    metainfo: Option<SignedMetainfo>,
}

impl OverlayHandle {
    /// Asks the overlay for a blob that the repository must be allowed to see (`None`: any repository).
    ///
    /// `Unavailable` if no node that was reached has it: the overlay cannot know that there is none.
    pub async fn find(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
    ) -> Result<FoundByOverlay, ControlError> {
        let findings = self.search(repository, digest, Instant::now() + FIND_TIMEOUT).await;
        let result = if findings.metainfo.is_some() { "found" } else { "not_found" };
        self.metrics.finds.with_label_values(&[result]).inc();
        findings.into_found().ok_or_else(|| ControlError::Unavailable {
            what: crate::origin::blob(repository, digest),
            url: "the overlay".into(),
            source: Failure::NoHolder,
        })
    }

    async fn search(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
        deadline: Instant,
    ) -> Findings {
        let question = Question { repository: repository.cloned(), digest: *digest, metainfo: false };
        // Room for all that will be asked: the task never waits for us.
        let (sender, mut replies) = mpsc::channel(MAX_ASKED);
        let mut findings = Findings::default();
        if self.commands.send(Command::Find { question: question.clone(), replies: sender }).await.is_err() {
            return findings;
        }
        let mut until = deadline;
        while let Ok(Some(answer)) = timeout_at(until, replies.recv()).await {
            let Some(holder) = answer.held.and_then(|held| self.believe(held)) else { continue };
            findings.add(holder);
            if findings.metainfo.is_none() && self.fetch_metainfo(&mut findings, &question, deadline).await {
                until = deadline.min(Instant::now() + MORE_HOLDERS);
            }
        }
        findings
    }

    /// Asks the holders that were not asked yet until one has what an origin signed; says whether one had.
    async fn fetch_metainfo(&self, findings: &mut Findings, question: &Question, deadline: Instant) -> bool {
        while let Some(peer) = findings.unasked.pop() {
            let question = Question { metainfo: true, ..question.clone() };
            let (reply, replied) = oneshot::channel();
            if self.commands.send(Command::Ask { peer, question: question.clone(), reply }).await.is_err() {
                return false;
            }
            let until = deadline.min(Instant::now() + METAINFO_TIMEOUT);
            let Ok(Ok(answer)) = timeout_at(until, replied).await else { continue };
            let Some(signed) = answer.metainfo else { continue };
            if self.verify(peer, &question.digest, &signed).await {
                findings.metainfo = Some(signed);
                return true;
            }
            findings.drop_holder(&peer);
        }
        false
    }

    /// Whether an origin signed it; whoever brought what no origin signed is reported.
    async fn verify(&self, bearer: PeerId, digest: &Digest, signed: &SignedMetainfo) -> bool {
        let outcome = match self.identity.verify(signed) {
            Ok(_) if signed.metainfo.digest() == digest => return true,
            Ok(_) => "metainfo of another blob".to_owned(),
            Err(error) => error.to_string(),
        };
        tracing::warn!(%digest, %bearer, reason = outcome, "metainfo from the overlay refused");
        // The task may have ended.
        let _ = self.commands.send(Command::Refuse { peer: bearer, what: "metainfo" }).await;
        false
    }

    /// What a holder says of itself, as far as it is believed.
    fn believe(&self, held: Held) -> Option<(PeerAddress, Duration)> {
        let Held { mut address, lent_ms } = held;
        if address.role == Role::Tracker {
            return None;
        }
        address.addresses = self.belief.plausible(address.addresses);
        let lent = Duration::from_millis(lent_ms).min(MAX_LENT);
        (!address.addresses.is_empty()).then_some((address, lent))
    }
}

impl Findings {
    fn add(&mut self, holder: (PeerAddress, Duration)) {
        self.unasked.push(holder.0.id);
        self.holders.push(holder);
    }

    fn drop_holder(&mut self, peer: &PeerId) {
        self.holders.retain(|(address, _)| address.id != *peer);
    }

    fn into_found(self) -> Option<FoundByOverlay> {
        let metainfo = self.metainfo?;
        let by_origin = self.holders.iter().any(|(address, _)| address.role == Role::Origin);
        let lent = self.holders.iter().map(|(_, lent)| *lent).max()?;
        // Origins last, as trackers name them: agents near by are to be asked first.
        let mut peers: Vec<PeerAddress> = self.holders.into_iter().map(|(address, _)| address).collect();
        peers.sort_by_key(|address| address.role == Role::Origin);
        Some(FoundByOverlay {
            found: Found { metainfo, peers, bearer: None, seen: None },
            lent: (!by_origin).then_some(lent),
        })
    }
}
