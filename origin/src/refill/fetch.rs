//! One fetch: from source to source until the blob is whole, proved and durable.

use std::time::{Duration, Instant};

use shoal_core::{Digest, Geometry, Metainfo, RepositoryName, SignedMetainfo, causes};
use shoal_store::{Blob, CommitError, Entry};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{sleep, timeout};

use super::arrival::{Arrival, Broken};
use super::memory::{Question, Word};
use super::retry::Retry;
use super::{Named, Refill, RefillError, State, late, unavailable};
use crate::source::{Incoming, SourceError};

/// What came of asking all sources once.
enum Round {
    Whole(Blob),
    /// None has it, or gives it.
    Absent,
    /// Worth another round.
    Again {
        error: RefillError,
        retry_after: Option<Duration>,
    },
    /// Worth none.
    End(RefillError),
}

/// What came of one source.
enum Outcome {
    Whole(Blob),
    /// It broke off; whether a further piece had come.
    Broken {
        progressed: bool,
        error: SourceError,
    },
    End(RefillError),
}

/// What a fetch has so far.
struct Fetch<'a> {
    repository: Option<&'a RepositoryName>,
    digest: Digest,
    arrival: Option<Arrival>,
    state: &'a watch::Sender<State>,
}

impl Refill {
    /// Fetches a blob and tells of it by `state`.
    pub(super) async fn run(self, question: Question, state: watch::Sender<State>) {
        let digest = question.1;
        let mut fetch = Fetch { repository: question.0.as_ref(), digest, arrival: None, state: &state };
        let turn = self.turn().await;
        let outcome = match &turn {
            Ok(_) => tokio::select! {
                biased;
                () = self.0.stop.cancelled() => Err(unavailable("the origin stops")),
                outcome = self.fetch(&mut fetch) => outcome,
            },
            Err(error) => Err(error.clone()),
        };
        if let (Err(error), Some(arrival)) = (&outcome, &fetch.arrival) {
            arrival.partial().fail(&error.to_string());
            self.gave_up(digest).await;
        }
        self.tell(question, &state, &outcome);
        if let (Ok(_), Some(landed)) = (&outcome, self.0.landed.get()) {
            tokio::select! {
                biased;
                () = self.0.stop.cancelled() => {}
                () = landed(digest) => {}
            }
        }
        drop(turn);
    }

    fn tell(&self, question: Question, state: &watch::Sender<State>, outcome: &Result<Blob, RefillError>) {
        let digest = question.1;
        let result = match outcome {
            Ok(_) => "whole",
            Err(RefillError::NotFound) => "not_found",
            Err(RefillError::Unavailable(_)) => "unavailable",
            Err(RefillError::Failed(_)) => "failed",
        };
        self.0.metrics.fetches.with_label_values(&[result]).inc();
        match outcome {
            Ok(blob) => {
                let bytes = blob.metainfo().length();
                tracing::info!(%digest, bytes, "a blob has come from behind the cluster");
            }
            Err(RefillError::NotFound) => self.memory().remember(Instant::now(), question, Word::Absent),
            Err(error) => tracing::warn!(%digest, %error, "a blob does not come from behind the cluster"),
        }
        // Whoever comes from here on begins anew, or finds it in the store.
        self.active().remove(&digest);
        self.0.metrics.active.dec();
        state.send_replace(match outcome {
            Ok(blob) => State::Whole(blob.clone()),
            Err(error) => State::Failed(error.clone()),
        });
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit, RefillError> {
        let turn = timeout(self.0.config.queue_timeout, self.0.turns.clone().acquire_owned());
        let turn = tokio::select! {
            biased;
            () = self.0.stop.cancelled() => return Err(unavailable("the origin stops")),
            turn = turn => turn,
        };
        let busy = || unavailable("as many blobs as may be are on their way from the sources: try again");
        turn.ok().and_then(Result::ok).ok_or_else(busy)
    }

    async fn fetch(&self, fetch: &mut Fetch<'_>) -> Result<Blob, RefillError> {
        if let Some(blob) = self.0.store.blob(&fetch.digest) {
            return Ok(blob);
        }
        let mut retry = Retry::new(self.0.config.attempts);
        loop {
            let had = fetch.pieces();
            let (error, retry_after) = match self.round(fetch).await {
                Round::Whole(blob) => return Ok(blob),
                Round::End(error) => return Err(error),
                Round::Absent if fetch.arrival.is_none() => return Err(RefillError::NotFound),
                Round::Absent => (unavailable("no source has the rest of the blob"), None),
                Round::Again { error, retry_after } => (error, retry_after),
            };
            if fetch.pieces() > had {
                retry.progressed();
            }
            match retry.failed(retry_after) {
                Some(pause) => sleep(pause).await,
                None => return Err(error),
            }
        }
    }

    async fn round(&self, fetch: &mut Fetch<'_>) -> Round {
        let (mut error, mut retry_after) = (None, None);
        for (place, named) in self.0.sources.iter().enumerate() {
            if self.memory().is_barred(Instant::now(), place, &fetch.digest) {
                error = Some(unavailable("a source that has it sent wrong bytes, and is not asked"));
                continue;
            }
            let (progressed, failure) = match self.from(fetch, place, named).await {
                Outcome::Whole(blob) => return Round::Whole(blob),
                Outcome::End(error) => return Round::End(error),
                Outcome::Broken { progressed, error } => (progressed, error),
            };
            if let SourceError::Unavailable { retry_after: Some(after), .. } = &failure {
                retry_after = retry_after.max(Some(*after));
            }
            error = self.note(&named.name, &fetch.digest, &failure).or(error);
            if progressed {
                // The same is asked first again: it may have the rest.
                break;
            }
        }
        error.map_or(Round::Absent, |error| Round::Again { error, retry_after })
    }

    /// Takes from one source what it gives.
    async fn from(&self, fetch: &mut Fetch<'_>, place: usize, named: &Named) -> Outcome {
        let mut incoming = match self.begin_to_read(fetch, named).await {
            Ok(incoming) => incoming,
            Err(error) => return Outcome::Broken { progressed: false, error },
        };
        if incoming.length > self.0.config.max_blob_size.as_u64() {
            return Outcome::End(self.too_long(&named.name, incoming.length));
        }
        if fetch.arrival.is_none() {
            match self.begin(fetch, incoming.length).await {
                Ok(Some(blob)) => return Outcome::Whole(blob),
                Ok(None) => {}
                Err(error) => return Outcome::End(error),
            }
            // An earlier life may have left pieces: then the source is to begin behind them.
            if fetch.pieces() > 0 {
                incoming = match self.begin_to_read(fetch, named).await {
                    Ok(incoming) => incoming,
                    Err(error) => return Outcome::Broken { progressed: false, error },
                };
            }
        }
        self.0.metrics.opened.with_label_values(&[&named.name]).inc();
        self.take(fetch, place, named, incoming).await
    }

    async fn begin_to_read(&self, fetch: &Fetch<'_>, named: &Named) -> Result<Incoming, SourceError> {
        let start = fetch.arrival.as_ref().map_or(0, Arrival::offset);
        let opened = named.source.open(fetch.repository, &fetch.digest, start);
        timeout(self.patience(named), opened).await.unwrap_or_else(|_| Err(late()))
    }

    /// Makes room for a blob of that length, and tells of it.
    async fn begin(&self, fetch: &mut Fetch<'_>, length: u64) -> Result<Option<Blob>, RefillError> {
        let failed = |error: &dyn std::error::Error| RefillError::Failed(causes(error).into());
        let geometry = Geometry::for_blob(length).map_err(|error| failed(&error))?;
        let metainfo = Metainfo::outline(fetch.digest, geometry);
        let proof = (self.0.sign)(&metainfo);
        let entry = self.0.store.create(&SignedMetainfo { metainfo, proof }).await;
        let partial = match entry.map_err(|error| failed(&error))? {
            Entry::Whole(blob) => return Ok(Some(blob)),
            Entry::Partial(partial) => partial,
        };
        let arrival = Arrival::resume(partial.clone()).await.map_err(|error| failed(&error))?;
        fetch.arrival = Some(arrival);
        fetch.state.send_replace(State::Arriving(partial));
        Ok(None)
    }

    async fn take(&self, fetch: &mut Fetch<'_>, place: usize, named: &Named, incoming: Incoming) -> Outcome {
        let (digest, state) = (fetch.digest, fetch.state);
        let Some(arrival) = &mut fetch.arrival else {
            return Outcome::End(unavailable("nothing is on its way"));
        };
        let ending = State::Ending(arrival.partial().clone());
        if incoming.length != arrival.length() {
            state.send_replace(ending);
            return self.disagreed(arrival, named, incoming.length, digest).await;
        }
        let had = arrival.pieces();
        let stall = self.0.config.stall_timeout;
        let bytes = self.0.metrics.bytes.with_label_values(&[&named.name]);
        let taken = arrival.take(place, incoming.bytes, named.pace.as_ref(), stall, &bytes).await;
        let progressed = arrival.pieces() > had;
        match taken {
            Ok(()) => {
                state.send_replace(ending);
                self.prove(arrival, digest).await
            }
            Err(Broken::Source(error)) => Outcome::Broken { progressed, error },
            Err(Broken::Lied(reason)) => {
                state.send_replace(ending);
                tracing::error!(source = named.name, %digest, reason, "a source sent what cannot be right");
                self.throw_away(arrival, digest).await;
                Outcome::End(unavailable("a source sent wrong bytes: they were thrown away"))
            }
            Err(Broken::Store(error)) => Outcome::End(RefillError::Failed(causes(&error).into())),
        }
    }

    /// All bytes are here: they are the blob, or nothing.
    async fn prove(&self, arrival: &Arrival, digest: Digest) -> Outcome {
        let sign = self.0.sign.clone();
        match arrival.partial().commit_signed(move |metainfo| sign(metainfo)).await {
            Ok(blob) => Outcome::Whole(blob),
            Err(error @ CommitError::DigestMismatch { .. }) => {
                tracing::error!(%digest, %error, "what came from behind the cluster is another blob: thrown away");
                self.throw_away(arrival, digest).await;
                Outcome::End(unavailable(
                    "the sources sent another blob under that digest: it was thrown away",
                ))
            }
            Err(error) => Outcome::End(RefillError::Failed(causes(&error).into())),
        }
    }

    /// Two sources, or one at two times, say different lengths. At most one is right, so all that came is thrown away.
    async fn disagreed(&self, arrival: &Arrival, named: &Named, length: u64, digest: Digest) -> Outcome {
        let before = arrival.length();
        tracing::error!(source = named.name, %digest, length, before, "sources disagree about a blob's length");
        self.throw_away(arrival, digest).await;
        Outcome::End(unavailable("the sources disagree about how long the blob is"))
    }

    /// Throws wrong bytes away, and bars whom they are from. Where several mixed, the last is asked alone the next time: if what
    /// it sends is wrong, the others are asked again. Who brought what an earlier life left is not known.
    async fn throw_away(&self, arrival: &Arrival, digest: Digest) {
        let (guilt, suspects) = arrival.suspects();
        for place in suspects {
            let Some(named) = self.0.sources.get(place) else { continue };
            tracing::error!(source = named.name, %digest, "the source is not asked for that blob for a while");
            self.0.metrics.wrong.with_label_values(&[&named.name]).inc();
            self.memory().bar(Instant::now(), (place, digest), guilt, 0..self.0.sources.len());
        }
        self.delete(digest).await;
    }

    /// Keeps what came of the last fetches that were given up.
    async fn gave_up(&self, digest: Digest) {
        let oldest = {
            let mut given_up = self.0.given_up.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            given_up.retain(|other| *other != digest);
            given_up.push_back(digest);
            if given_up.len() > Self::MAX_GIVEN_UP { given_up.pop_front() } else { None }
        };
        if let Some(oldest) = oldest.filter(|oldest| !self.active().contains_key(oldest)) {
            self.delete(oldest).await;
        }
    }

    /// Deletes what is there of a blob that is not whole.
    async fn delete(&self, digest: Digest) {
        if let Some(Entry::Partial(_)) = self.0.store.entry(&digest)
            && let Err(error) = self.0.store.delete(&digest).await
        {
            tracing::warn!(%digest, error = causes(&error), "what came of a blob stays on the disk");
        }
    }
}

impl Fetch<'_> {
    fn pieces(&self) -> u32 {
        self.arrival.as_ref().map_or(0, Arrival::pieces)
    }
}
